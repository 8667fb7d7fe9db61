"""Make weights/tale in two runs.

    python -m weights.recipe CORPUS --work DIR --out weights/tale
    python -m weights.recipe CORPUS --work DIR --out weights/tale --joint weights/tale

The first learns to predict the next token, from nothing; the second goes on from those weights and learns to fill in
blocks of masks as well. Either can be stopped and goes on from its last state in DIR; with another --tokens that makes
it longer or shorter.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model.transformer import Transformer
from weights.recipe.card import Measured, write_card
from weights.recipe.corpus import END_OF_TEXT, SOURCES, held_out_documents, training_documents
from weights.recipe.evaluate import bits_per_byte, block_losses, held_out_rows
from weights.recipe.export import read_model, write_checkpoint
from weights.recipe.train import BLOCK_SIZES, Recipe, append_log, joint_recipe, train
from weights.recipe.vocabulary import train_tokenizer

BLOCK_ROWS, BLOCK_LENGTH = 64, 512  # of the held-out text that blocks are measured on


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m weights.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="the folder with stories-*.txt.xz")
    parser.add_argument("--work", type=Path, required=True, help="vocabulary, token streams, training state, log")
    parser.add_argument("--out", type=Path, required=True, help="where the finished checkpoint is written")
    parser.add_argument("--joint", type=Path, metavar="FOLDER", help="go on from this checkpoint, and write the card")
    parser.add_argument("--tokens", type=int, help="length of the run; 12.5 million, or 10 million with --joint")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.joint:
        recipe = joint_recipe(options.tokens or 10_000_000, options.seed)
        state = options.work / "joint.pt"
    else:
        recipe = Recipe(options.tokens or 12_500_000, options.seed)
        state = options.work / "training.pt"
    tokenizer = prepare_tokenizer(options.corpus, options.joint or options.work)
    streams = {s.name: prepare_stream(options.corpus, options.work, s.name, tokenizer) for s in SOURCES}
    for record in train(streams, recipe, state, options.joint):
        append_log(options.work, record)
        if record["step"] % 20 == 0:
            print(record, file=sys.stderr, flush=True)
    before = measure(read_model(options.joint), tokenizer, options.corpus) if options.joint else None
    write_checkpoint(state, options.out, tokenizer, options.joint, recipe.mix)
    after = measure(read_model(options.out), tokenizer, options.corpus)
    print(after, file=sys.stderr)
    if before is not None:
        write_card(options.out, recipe, before, after, sum(len(stream) for stream in streams.values()))


def measure(model: Transformer, tokenizer: Tokenizer, corpus: Path) -> Measured:
    held_out = {s.name: list(itertools.islice(held_out_documents(corpus, s), 100)) for s in SOURCES}
    rows = held_out_rows(tokenizer, held_out["stories-simple"], BLOCK_ROWS, BLOCK_LENGTH)
    return Measured(
        bits={name: bits_per_byte(model, tokenizer, texts) for name, texts in held_out.items()},
        blocks={size: block_losses(model, rows, size) for size in BLOCK_SIZES},
        block_tokens=rows[:, 1:].numel(),
    )


def prepare_tokenizer(corpus: Path, folder: Path) -> Tokenizer:
    """The folder's tokenizer, trained on the corpus where there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        texts = (text for source in SOURCES for text in training_documents(corpus, source))
        train_tokenizer(texts).save(str(path))
    return Tokenizer.from_file(str(path))


def prepare_stream(corpus: Path, work: Path, name: str, tokenizer: Tokenizer) -> Tensor:
    """All training documents of a source as one row of token ids, each followed by the end token."""
    path = work / f"{name}.pt"
    if not path.exists():
        source = next(source for source in SOURCES if source.name == name)
        end = tokenizer.token_to_id(END_OF_TEXT)
        ids = [end]
        for text in training_documents(corpus, source):
            ids.extend(tokenizer.encode(text, add_special_tokens=False).ids)
            ids.append(end)
        torch.save(torch.tensor(ids, dtype=torch.int16), path)
    return torch.load(path, weights_only=True)


if __name__ == "__main__":
    main()
