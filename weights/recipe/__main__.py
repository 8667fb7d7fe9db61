"""Make weights/tale.

    python -m tokenglass.weights.recipe CORPUS --work DIR --out weights/tale --start FOLDER

The run begins with the weights in FOLDER, grown to the new shape, or from nothing. It can be stopped at any moment and
goes on from its last state in DIR. `echo 300 > DIR/end` ends it early: the learning rate falls to zero within 300 more
steps, then the checkpoint and its card are written. Two cores with matrix units (AMX) that nothing else uses read about
3,500 tokens a second, 80 million in six hours and a half. `--export` writes what DIR holds now, and trains no further;
`--card` writes the card alone, for what OUT holds, which may be an average (weights/recipe/average.py).

A larger model can help where stories are few. Before the run, whose loss it shares with `--teacher-share 0.7`:

    python -m tokenglass.weights.recipe.teacher CORPUS --work DIR
    python -m tokenglass.weights.recipe.distillation CORPUS --work DIR --start FOLDER
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.errors import TokenglassError
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.card import Measured, write_card
from tokenglass.weights.recipe.corpus import END_OF_TEXT, SOURCES, Source, held_out_documents, training_documents
from tokenglass.weights.recipe.distillation import SoftTargets, read_all_targets
from tokenglass.weights.recipe.evaluate import bits_per_byte, block_losses, held_out_rows
from tokenglass.weights.recipe.export import read_model, write_checkpoint
from tokenglass.weights.recipe.reading import reading_table
from tokenglass.weights.recipe.schedule import BLOCK_SIZES, Recipe
from tokenglass.weights.recipe.train import append_log, read_log, train
from tokenglass.weights.recipe.vocabulary import train_tokenizer

WEIGHTS_EVERY = 100  # steps, the weights alone are written to DIR/last
BLOCK_ROWS, BLOCK_LENGTH = 64, 512  # of the held-out text that blocks are measured on


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenglass.weights.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, help="the folder with stories-*.txt.xz")
    parser.add_argument("--work", type=Path, required=True, help="vocabulary, token streams, training state, log")
    parser.add_argument("--out", type=Path, required=True, help="where the finished checkpoint is written")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="begin with this checkpoint, grown")
    parser.add_argument("--tokens", type=int, default=80_000_000, help="length of the run (default: 80 million)")
    parser.add_argument("--peak", type=float, default=0.5, help="share of the full learning rates (default: 0.5)")
    parser.add_argument(
        "--copying",
        type=int,
        default=0,
        metavar="STEPS",
        help="begin with so many steps in which two rows of three are passages that are repeated (default: 0)",
    )
    parser.add_argument(
        "--dropout",
        type=share,
        default=0.0,
        help="share of numbers that a pass leaves out, against overfitting (default: 0)",
    )
    parser.add_argument(
        "--teacher-share",
        type=share,
        default=0.0,
        help="how much of the loss is a teacher's, where DIR has its soft targets (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precise", action="store_true", help="products in float32")
    parser.add_argument("--compiled", action="store_true", help="compile first: minutes that pay on an idle machine")
    parser.add_argument("--export", action="store_true", help="write the checkpoint and card of the last state")
    parser.add_argument("--card", action="store_true", help="write the card of the checkpoint in OUT")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="the card compares with it (default: that of --start)"
    )
    parser.add_argument("--judge", metavar="MODEL", help="run the reading test for the card, judged by this model")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(
        options.tokens,
        options.seed,
        peak=options.peak,
        copying_steps=options.copying,
        dropout=options.dropout,
        teacher_share=options.teacher_share,
        fast=not options.precise,
        compiled=options.compiled,
    )
    tokenizer = prepare_tokenizer(options.corpus, options.out if options.card else options.start or options.work)
    if not (options.export or options.card):
        try:
            targets = read_all_targets(options.work, tokenizer) if options.teacher_share else {}
        except TokenglassError as error:
            parser.error(str(error))
        run(options.corpus, options.work, options.start, recipe, tokenizer, targets)
    state = options.work / "training.pt"
    if not options.card:
        write_checkpoint(state, options.out, tokenizer)
    earlier = options.before or options.start
    before = measure(read_model(earlier), tokenizer, options.corpus) if earlier else None
    after = measure(read_model(options.out), tokenizer, options.corpus)
    print(before, after, sep="\n", file=sys.stderr)
    editions = {"first edition": earlier, "this one": options.out} if earlier else {"this one": options.out}
    reading = read_stories(editions, options.judge) if options.judge else ""
    write_card(options.out, recipe, read_log(options.work), before, after, reading)


def run(
    corpus: Path,
    work: Path,
    start: Path | None,
    recipe: Recipe,
    tokenizer: Tokenizer,
    targets: dict[str, SoftTargets],
) -> None:
    """Train to the end; writes the log, and now and then the weights alone.

    Of a source of which a teacher has read some, the rest is left out.
    """
    streams = {source.name: prepare_stream(corpus, work, source, tokenizer) for source in SOURCES}
    streams |= {name: streams[name][: len(read)] for name, read in targets.items()}
    for record in train(streams, recipe, work, start, targets=targets):
        append_log(work, record)
        if record["step"] % 10 == 0:
            print(record, file=sys.stderr, flush=True)
        state = work / "training.pt"
        if record["step"] % WEIGHTS_EVERY == WEIGHTS_EVERY - 1 and state.exists():
            write_checkpoint(state, work / "last", tokenizer)


def share(text: str) -> float:
    """A number from 0 to below 1, as an option takes it."""
    with contextlib.suppress(ValueError):
        if 0 <= (number := float(text)) < 1:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number from 0 to below 1")


def read_stories(editions: Mapping[str, Path], judge: str) -> str:
    writers = ((name, load_model(folder, dtype="float32", device="cpu")) for name, folder in editions.items())
    return "\n".join(reading_table(writers, load_model(resolve(judge), device="cpu")))


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


def prepare_stream(corpus: Path, work: Path, source: Source, tokenizer: Tokenizer) -> Tensor:
    """All training documents of a source as one row of token ids, each followed by the end token."""
    path = work / f"{source.name}.pt"
    if not path.exists():
        end = tokenizer.token_to_id(END_OF_TEXT)
        ids = [end]
        for text in training_documents(corpus, source):
            ids.extend(tokenizer.encode(text, add_special_tokens=False).ids)
            ids.append(end)
        torch.save(torch.tensor(ids, dtype=torch.int16), path)
    return torch.load(path, weights_only=True)


if __name__ == "__main__":
    main()
