"""`tokenglass check` says that what must hold holds, and notices where it does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import shell
import tiny
import torch
from torch import Tensor
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import Ids, Logits
from tokenglass.model.errors import EngineError
from tokenglass.model.inspection.check import Finding, Probe, against_exact, probe_ids, try_all
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

CLAIMS = ["causality", "cache", "chunked prefill", "batch", "streaming text"]


@pytest.fixture(scope="module")
def probe(saved_checkpoint, tokenizer: Tokenizer) -> Probe:
    engine = load_engine(Checkpoint.open(saved_checkpoint), dtype="float32", device="cpu")
    return Probe(engine, tokenizer, probe_ids(tokenizer, engine.limit), "float32")


def verdicts(probe: Probe) -> dict[str, bool | None]:
    return {finding.name: finding.passed for finding in try_all(probe)}


class Broken:
    """The engine with one fault: `spoil` changes the logits it gives, knowing the ids and whether there is a cache."""

    def __init__(self, engine: TorchEngine, spoil):
        self.engine, self.spoil, self.limit, self.measure = engine, spoil, engine.limit, engine.measure
        self.vocab_size = engine.vocab_size

    def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
        return self.engine.new_cache(rows, planned_length=planned_length)

    def forward(self, token_ids: Ids, cache: KVCache | None, **options) -> list[Logits]:
        ids = torch.as_tensor(token_ids)
        return list(self.spoil(as_tensor(self.engine.forward(token_ids, cache, **options)), ids, cache).numpy())


def sees_the_end(logits: Tensor, ids: Tensor, cache: KVCache | None) -> Tensor:
    return logits + ids[:, -1:, None] if cache is None else logits


def forgets(logits: Tensor, ids: Tensor, cache: KVCache | None) -> Tensor:
    return logits + 0.01 * (cache is not None and ids.shape[1] == 1)


def cuts_badly(logits: Tensor, ids: Tensor, cache: KVCache | None) -> Tensor:
    return logits + 0.01 * (cache is not None and 1 < ids.shape[1] <= 7)


def mixes_rows(logits: Tensor, ids: Tensor, cache: KVCache | None) -> Tensor:
    return logits + 0.01 * (len(logits) > 1)


def has_nan(logits: Tensor, ids: Tensor, cache: KVCache | None) -> Tensor:
    return logits * torch.nan if len(logits) > 1 else logits


def test_everything_holds_for_a_sound_model(probe: Probe) -> None:
    assert verdicts(probe) == dict.fromkeys(CLAIMS, True)


@pytest.mark.parametrize(
    ("spoil", "fails"),
    [
        (sees_the_end, {"causality", "cache"}),
        (forgets, {"cache"}),
        (cuts_badly, {"chunked prefill"}),
        (mixes_rows, {"batch"}),
        (has_nan, {"batch"}),
        (lambda logits, ids, cache: torch.zeros_like(logits), {"causality"}),  # nothing moves anything
    ],
    ids=["sees the end", "forgets", "cuts badly", "mixes rows", "has nan", "constant"],
)
def test_a_fault_fails_the_claim_that_it_breaks(probe: Probe, spoil, fails: set[str]) -> None:
    results = verdicts(replace(probe, engine=Broken(probe.engine, spoil)))

    assert {name for name, passed in results.items() if passed is False} == fails


def test_a_tokenizer_that_streams_another_text_fails(probe: Probe) -> None:
    class Stutters(Tokenizer):
        def decode(self, token_ids) -> str:
            return super().decode(token_ids) + ("!" if len(token_ids) > 100 else "")

    tokenizer = Stutters(tiny.byte_level_tokenizer())

    assert verdicts(replace(probe, tokenizer=tokenizer))["streaming text"] is False


def test_what_an_engine_cannot_do_is_said_and_not_judged(probe: Probe) -> None:
    class Alone(Broken):
        def new_cache(self, rows: int = 1, *, planned_length: int | None = None) -> KVCache:
            if rows > 1:
                raise EngineError("one row at a time")
            return super().new_cache(rows, planned_length=planned_length)

    alone = Alone(probe.engine, lambda logits, ids, cache: logits)

    findings = {finding.name: finding for finding in try_all(replace(probe, engine=alone))}

    assert findings["batch"].passed is None
    assert findings["batch"].value is None
    assert "one row at a time" in findings["batch"].note


def compare(exact: Tensor, rounded: Tensor, tokenizer: Tokenizer) -> list[Finding]:
    return list(against_exact(exact, rounded, tokenizer, "int4 on native", "float32 on torch", ("int4",)))


def test_the_cost_of_a_dtype_is_its_divergence_and_the_first_token_that_flips(tokenizer: Tokenizer) -> None:
    exact = torch.zeros(3, 8)
    exact[:, 2], exact[:, 3] = 5.0, 4.75
    rounded = exact.clone()
    rounded[1, 3] = 5.5

    divergence, flips = compare(exact, rounded, tokenizer)

    assert divergence.passed is True
    assert divergence.value == pytest.approx(bits(exact, rounded))
    assert "0.75" in divergence.note
    assert (flips.passed, flips.value, flips.unit) == (None, 1, "of 3")
    assert "the first after position 1" in flips.note
    assert "margin is 0.25" in flips.note
    assert compare(exact, exact, tokenizer)[1].note == "the smallest margin is 0.25 logits"
    assert compare(exact, -9 * exact, tokenizer)[0].passed is False


def bits(exact: Tensor, rounded: Tensor) -> float:
    first, second = exact.double().log_softmax(-1), rounded.double().log_softmax(-1)
    return (
        torch.nn.functional.kl_div(second, first, log_target=True, reduction="none").sum(-1).mean() / 0.6931471805599453
    ).item()


def test_the_bundled_model_holds_on_this_machine() -> None:
    done = shell.tokenglass("check", "--backend", "torch")

    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert text.startswith("tale, float32, torch, 96 tokens")
    assert text.count("holds") == 6  # the claims, and "everything holds"
    assert "\x1b" not in text
    assert len(text.splitlines()) == 8  # a title, headings, a line for each claim, and the sum: none is folded


def test_another_dtype_is_compared_with_float32_in_json() -> None:
    done = shell.tokenglass("check", "--backend", "torch", "--dtype", "bfloat16", "--json")

    assert done.returncode == 0, done.stderr.decode()
    facts = json.loads(done.stdout)
    findings = {finding["name"]: finding for finding in facts["findings"]}
    assert facts["checked"] == "tale, bfloat16, torch, 96 tokens"
    assert list(findings) == [*CLAIMS, "divergence", "flips"]
    assert 0 < findings["divergence"]["value"] < findings["divergence"]["tolerance"]
    assert findings["flips"]["passed"] is None


def test_a_model_that_is_not_there_is_one_line() -> None:
    shell.assert_one_line_error(shell.tokenglass("check", "/nowhere/at/all"), 1, "/nowhere/at/all")
