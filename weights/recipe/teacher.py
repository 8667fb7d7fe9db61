"""A larger model learns the simplest stories, so that it can say how they may go on.

    python -m tokenglass.weights.recipe.teacher CORPUS --work DIR [--teacher smollm2] [--tokens 60000]

Writes DIR/teacher, a checkpoint. Only the upper half of the layers learns: it costs two thirds of the time.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.errors import TokenglassError
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.engine import TorchEngine
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.corpus import TINY, training_documents
from tokenglass.weights.recipe.joint import GOLDEN
from tokenglass.weights.recipe.vocabulary import end_of_text

ROWS, CONTEXT = 4, 512  # of a step
LEARNING_RATE = 3e-4
WARMUP_STEPS = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tokenglass.weights.recipe.teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, help="the folder with stories-*.txt.xz")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--teacher", default="smollm2", help="a model's name or checkpoint folder (default: smollm2)")
    parser.add_argument("--tokens", type=int, default=60_000, help="what it learns from (default: 60,000)")
    options = parser.parse_args()
    try:
        folder = resolve(options.teacher)
        loaded = load_model(folder, backend="torch", dtype="float32", device="cpu")
        stream = read_stream(options.corpus, loaded.tokenizer.backend)
    except (TokenglassError, ValueError, OSError) as error:
        parser.error(str(error))
    assert isinstance(loaded.engine, TorchEngine)
    model = loaded.engine.model
    for record in adapt(model, stream, options.tokens // (ROWS * CONTEXT)):
        print(record, file=sys.stderr, flush=True)
    out = options.work / "teacher"
    shutil.copytree(folder, out, dirs_exist_ok=True)
    learned = dict(model.named_parameters())
    weights = {
        name: learned.get(name, tensor).detach().contiguous()
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, out / "model.safetensors", {"format": "pt"})


def read_stream(corpus: Path, tokenizer: Tokenizer) -> Tensor:
    """The simplest stories as one row of token ids, each followed by the end token."""
    end = end_of_text(tokenizer)
    texts = itertools.chain.from_iterable(training_documents(corpus, source) for source in TINY)
    ids = [end]
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        ids += [*encoding.ids, end]
    return torch.tensor(ids)


def adapt(model: Transformer, stream: Tensor, steps: int) -> Iterator[dict[str, float]]:
    """Train the upper half of the layers and the last norm; yields one record per step."""
    layers = model.model.layers
    model.requires_grad_(False)
    trained = [*layers[len(layers) // 2 :].parameters(), *model.model.norm.parameters()]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(steps):
        started = time.monotonic()
        share = min((step + 1) / WARMUP_STEPS, 1 - step / steps)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * share
        total = 0.0
        for row in range(ROWS):
            start = int((step * ROWS + row) * GOLDEN % 1.0 * (len(stream) - CONTEXT - 1))
            ids = stream[None, start : start + CONTEXT + 1]
            loss = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
            (loss / ROWS).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / ROWS
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield {"step": step, "loss": total, "seconds": time.monotonic() - started}
    model.eval()


if __name__ == "__main__":
    main()
