"""Whether a model on this machine does what must always hold: claims that are tried, with what was measured.

Works on anything with the Engine protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import TokenglassError
from tokenglass.model.inspection.lens import divergence_bits
from tokenglass.model.text.tokenizer import StreamingDetokenizer, Tokenizer

PROBE = (
    "Once upon a time there was a little fox who lived in the forest. The fox said hello to the bear, and the bear "
    'said: "It is cold today, 3.5 degrees; come in!" They drank tea. Ein schöner Tag für Füße; où est l\'été?\n'
    "def add(a, b):\n    return a + b\n日本語のテキスト。 Привет, мир! 👩‍👩‍👧‍👦 "
    "The fox said goodbye to the bear, and the bear"
)
LENGTH = 96  # positions of the probe at most
CHUNK = 7  # positions, so that chunks end unevenly
# How far two ways to compute the same logits may differ, as a share of the largest: float32 differs by the order of its
# sums over all layers, the 16-bit dtypes by a few roundings of the result.
SHARES = {"float32": 1e-5, "bfloat16": 2**-4, "float16": 2**-7}
FLOOR = 1e-4  # logits; small models stay below it
LOST_BITS = {"float32": 1e-6, "bfloat16": 0.05, "float16": 0.05, "int8": 0.05, "int4": 0.5}  # bits a token, at most


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim tried. `passed` None: a fact to know rather than a claim, or one that could not be tried (then without
    a value, and `note` says why)."""

    name: str
    claim: str
    passed: bool | None
    value: float | None
    tolerance: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is tried on an engine: the ids, and the dtype by which differences are judged."""

    engine: Engine
    tokenizer: Tokenizer
    token_ids: tuple[int, ...]
    dtype: str

    def whole(self, token_ids: Sequence[int]) -> Tensor:
        """Logits (length, vocab), computed in one pass without a cache."""
        return torch.from_numpy(self.engine.forward([token_ids], None, last=None)[0])

    def through_cache(self, rows: Sequence[Sequence[int]], chunk: int) -> Tensor:
        """Logits (rows, length, vocab), computed through one cache in chunks."""
        ids = np.array(rows, np.int64)
        cache = self.engine.new_cache(len(rows), planned_length=ids.shape[1])
        parts = (ids[:, start : start + chunk] for start in range(0, ids.shape[1], chunk))
        logits = [np.stack(self.engine.forward(part, cache, last=None)) for part in parts]
        return torch.from_numpy(np.concatenate(logits, 1))

    def tolerance(self, logits: Tensor) -> float:
        """Logits by which two ways to compute the same in this dtype may differ."""
        return max(FLOOR, SHARES[self.dtype] * logits.abs().max().item())


def probe_ids(tokenizer: Tokenizer, limit: int) -> tuple[int, ...]:
    """The text that everything is tried on, cut to a context of `limit`."""
    return tokenizer.encode(PROBE)[: min(LENGTH, limit)]


def try_all(probe: Probe) -> Iterator[Finding]:
    """Every claim in turn."""
    for name, claim, attempt in (
        ("causality", "changing a token changes no logit before it", causality),
        ("cache", "one token at a time through the cache equals recomputation", check_cache),
        ("chunked prefill", f"a prompt in chunks of {CHUNK} equals the prompt in one pass", check_chunks),
        ("batch", "a text in a batch equals the text alone", check_batches),
        ("streaming text", "the text piece by piece equals the decode of the whole", check_stream),
    ):
        try:
            yield attempt(probe, name, claim)
        except (TokenglassError, NotImplementedError) as error:
            yield Finding(name, claim, None, None, None, "", f"cannot be tried: {error}")


def causality(probe: Probe, name: str, claim: str) -> Finding:
    ids, before = list(probe.token_ids), probe.whole(probe.token_ids)
    places = sorted({1, len(ids) // 2, len(ids) - 1})
    largest, moved = 0.0, True
    for place in places:
        changed = [*ids[:place], ids[place - 1] if ids[place - 1] != ids[place] else ids[0], *ids[place + 1 :]]
        after = probe.whole(changed)
        largest = max(largest, largest_difference(before[:place], after[:place]))
        moved &= changed == ids or largest_difference(before[place:], after[place:]) > probe.tolerance(before)
    note = f"tried at positions {', '.join(map(str, places))}" if moved else "a changed token changed nothing after it"
    return compare_logits(probe, name, claim, largest, before, note, holds=moved)


def check_cache(probe: Probe, name: str, claim: str) -> Finding:
    whole = probe.whole(probe.token_ids)
    return compare_logits(
        probe, name, claim, largest_difference(whole, probe.through_cache([probe.token_ids], 1)[0]), whole, ""
    )


def check_chunks(probe: Probe, name: str, claim: str) -> Finding:
    whole = probe.through_cache([probe.token_ids], len(probe.token_ids))
    parts = probe.through_cache([probe.token_ids], CHUNK)
    return compare_logits(probe, name, claim, largest_difference(whole, parts), whole, "")


def check_batches(probe: Probe, name: str, claim: str) -> Finding:
    rows = [probe.token_ids, probe.token_ids[::-1], probe.token_ids]
    together = probe.through_cache(rows, len(probe.token_ids))
    alone = torch.cat([probe.through_cache([row], len(row)) for row in rows])
    return compare_logits(probe, name, claim, largest_difference(together, alone), together, f"{len(rows)} rows")


def check_stream(probe: Probe, name: str, claim: str) -> Finding:
    tokenizer = probe.tokenizer
    numbers = torch.randint(tokenizer.vocab_size, (256,), generator=torch.Generator().manual_seed(1))
    texts = [tokenizer.encode(PROBE), tokenizer.encode(PROBE)[::-1], tuple(numbers.tolist())]
    wrong = 0
    for ids in texts:
        stream = StreamingDetokenizer(tokenizer)
        joined = "".join([*(stream.add(token_id) for token_id in ids), stream.flush()])
        wrong += joined != tokenizer.decode(ids)
    note = f"{sum(map(len, texts)):,} tokens, random ones among them"
    return Finding(name, claim, wrong == 0, wrong, 0, "texts that differ", note)


def against_exact(
    exact: Tensor, rounded: Tensor, tokenizer: Tokenizer, name: str, exact_name: str, kinds: Collection[str]
) -> Iterator[Finding]:
    """What the dtypes and formats of weights and cache (`kinds`) or a backend cost, from their logits (length, vocab)
    and the exact.

    Judged by the divergence alone; the flips are told (passed None).
    """
    first, second = exact.double().log_softmax(-1), rounded.double().log_softmax(-1)
    lost = divergence_bits(first, second).mean().item()
    claim = f"{name} keeps the distribution of {exact_name}, mean over the tokens"
    note = f"largest logit difference {largest_difference(exact, rounded):.2g}"
    allowed = max(LOST_BITS[kind] for kind in kinds)
    yield Finding("divergence", claim, lost <= allowed, lost, allowed, "bits", note)
    best, others = exact.argmax(-1), rounded.argmax(-1)
    flips = (best != others).nonzero()[:, 0].tolist()
    top = exact.topk(2).values
    note = f"the smallest margin is {(top[:, 0] - top[:, 1]).min().item():.2g} logits"
    if flips:
        at = flips[0]
        was, now = (repr(tokenizer.piece(int(ids[at])).decode("utf-8", "replace")) for ids in (best, others))
        margin = (exact[at, best[at]] - exact[at, others[at]]).item()
        note = f"the first after position {at}: {now} for {was}, whose margin is {margin:.2g} logits"
    claim = f"places where {name} has another most probable token"
    yield Finding("flips", claim, None, len(flips), None, f"of {len(best)}", note)


def compare_logits(
    probe: Probe, name: str, claim: str, value: float, logits: Tensor, note: str, *, holds: bool = True
) -> Finding:
    tolerance = probe.tolerance(logits)
    return Finding(name, claim, holds and value <= tolerance, value, tolerance, "logits", note)


def largest_difference(first: Tensor, second: Tensor) -> float:
    """Infinite where either is not a number, so that it never passes."""
    return (first - second).abs().nan_to_num(nan=torch.inf).max().item()
