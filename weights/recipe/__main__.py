"""Make weights/tale: python -m weights.recipe CORPUS --work DIR --out weights/tale [--tokens N]."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from weights.recipe.card import write_card
from weights.recipe.corpus import END_OF_TEXT, SOURCES, held_out_documents, training_documents
from weights.recipe.evaluate import bits_per_byte
from weights.recipe.export import write_checkpoint
from weights.recipe.train import Recipe, append_log, train
from weights.recipe.vocabulary import train_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m weights.recipe", description=__doc__)
    parser.add_argument("corpus", type=Path, help="the folder with stories-*.txt.xz")
    parser.add_argument("--work", type=Path, required=True, help="vocabulary, token streams, training state, log")
    parser.add_argument("--out", type=Path, required=True, help="where the finished checkpoint is written")
    parser.add_argument("--tokens", type=int, default=16_000_000, help="length of the training run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(tokens=options.tokens, seed=options.seed)
    tokenizer = prepare_tokenizer(options.corpus, options.work)
    streams = {s.name: prepare_stream(options.corpus, options.work, s.name, tokenizer) for s in SOURCES}
    for record in train(streams, recipe, options.work):
        append_log(options.work, record)
        if record["step"] % 20 == 0:
            print(record, file=sys.stderr, flush=True)
    model = write_checkpoint(options.work, options.out, tokenizer)
    bits = {}
    for source in SOURCES:
        held_out = itertools.islice(held_out_documents(options.corpus, source), 100)
        bits[source.name] = bits_per_byte(model, tokenizer, held_out)
    write_card(options.out, recipe, bits, sum(len(stream) for stream in streams.values()))


def prepare_tokenizer(corpus: Path, work: Path) -> Tokenizer:
    path = work / "tokenizer.json"
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
