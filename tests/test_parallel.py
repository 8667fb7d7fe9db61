"""Blocks of masks: what they see, when they are revealed, and that everything else is as in autoregressive decoding."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from closeness import assert_close
from torch import Tensor
from torch_parts import as_tensor

from tokenglass.model.config.config import SLACK
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.parallel import decode_parallel
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.engine.engine import Ids, Logits, PerRow
from tokenglass.model.errors import EngineError, ParameterError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Block, Finish, Step, Totals
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

GREEDY = SamplingParameters(temperature=0)
SAMPLED = SamplingParameters(temperature=1.0, top_p=1.0)
EOS, MASK = 0, 1
RULES: dict[str, dict[str, float]] = {
    "reveal": {"reveal": 3},
    "passes": {"passes": 2},
    "all at once": {"passes": 1},
    "threshold": {"threshold": 0.4},
    "entropy bound": {"entropy_bound": 2.0},
}


def run(
    engine: Any, tokenizer: Tokenizer, prompt_ids: tuple[int, ...], rule: dict[str, float], **options: Any
) -> tuple[list[Step], Finish]:
    """The steps and the Finish of a run, greedy unless told otherwise."""
    request = Request(prompt_ids, **{"seed": 1, "sampling": GREEDY, "eos_token_ids": frozenset({EOS}), **options})
    parameters = ParallelParameters(**{"block_size": 8, **rule})
    *steps, finish = decode_parallel(Job(engine, tokenizer, request, mask_id=MASK), parameters)
    assert isinstance(finish, Finish)
    assert all(isinstance(step, Step) for step in steps)
    return steps, finish


def filled(steps: list[Step]) -> list[int]:
    """The revealed ids in the order of their positions."""
    ids = {c.position: c.token_id for step in steps for c in step.choices if c.token_id is not None}
    return [ids[position] for position in sorted(ids)]


def text_of(steps: list[Step], finish: Finish) -> str:
    return "".join(step.text for step in steps) + finish.text


class ScriptedEngine(tiny.ScriptedEngine):
    """Sure of the token `says[n]` for the n-th new position; a bit surer of what comes earlier."""

    def __init__(self, said: list[int], after: int, limit: int = 64):
        super().__init__(self.row, limit)
        self.said, self.after = said, after
        self.blocks: list[int] = []

    def forward(
        self,
        token_ids: Ids,
        cache: Any,
        *,
        last: PerRow | None = 1,
        planned_length: int | None = None,
        block: PerRow = 0,
    ) -> list[Logits]:
        assert isinstance(block, int)
        self.blocks.append(block)
        return super().forward(token_ids, cache, last=last, planned_length=planned_length, block=block)

    def row(self, position: int) -> Tensor:
        """Logits of the token at this position."""
        logits = torch.zeros(tiny.VOCAB_SIZE)
        place = min(max(position - self.after, 0), len(self.said) - 1)
        logits[self.said[place]] = 30.0 - 0.1 * place
        return logits


@pytest.fixture(scope="module")
def engine(saved_checkpoint: Path) -> TorchEngine:
    return load_model(saved_checkpoint).engine


@pytest.fixture
def prompt(tokenizer: Tokenizer) -> tuple[int, ...]:
    return tokenizer.encode("The fox lived in the forest")


# What a block sees.


@pytest.mark.parametrize("block", [1, 2, 4])
def test_an_input_is_seen_by_itself_what_follows_and_its_own_block(block: int) -> None:
    """Changing input j changes the logits at i exactly where i may look at j."""
    model, length = tiny.random_transformer(), 9
    ids = torch.arange(20, 20 + length)[None]
    with torch.inference_mode():
        before = model(ids, block=block)[0]
        for j in range(length):
            changed = ids.clone()
            changed[0, j] = 7
            differs = (model(changed, block=block)[0] != before).any(dim=-1).tolist()
            first = length - block
            assert differs == [j <= i or (i >= first and j >= first) for i in range(length)]


@pytest.mark.parametrize("prefilled", [0, 1, 5, 11])
def test_the_logits_of_a_block_are_the_same_with_a_cache(engine: TorchEngine, prefilled: int) -> None:
    """First pass, with clean tokens in front of the block; then a second pass after the guesses were cut off."""
    clean = list(range(30, 42))
    cache = engine.new_cache()
    if prefilled:
        as_tensor(engine.forward(torch.tensor([clean[:prefilled]]), cache))
    for guesses in ([MASK] * 7, [MASK, 50, MASK, MASK, 51, MASK, MASK]):
        whole = as_tensor(engine.forward(torch.tensor([clean + guesses]), None, last=None, block=8))[0, -8:]
        inputs = clean[cache.lengths[0] :] + guesses
        logits = as_tensor(engine.forward(torch.tensor([inputs]), cache, last=None, block=8))[0, -8:]
        assert_close(logits, whole)
        cache.truncate(0, len(clean) - 1)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_same_tokens_with_a_cache_and_without(
    engine: TorchEngine,
    tokenizer: Tokenizer,
    prompt: tuple[int, ...],
    rule: dict[str, float],
    sampling: SamplingParameters,
) -> None:
    options = {"sampling": sampling, "max_new_tokens": 43, "ignore_eos": True}
    cached, finish = run(engine, tokenizer, prompt, rule, **options, prefill_chunk=3)
    whole, _ = run(engine, tokenizer, prompt, rule, **options, use_cache=False)
    assert filled(cached) == filled(whole)
    assert len(filled(cached)) == finish.totals.new_tokens == 43
    assert all(step.cache is None for step in whole)


@pytest.mark.parametrize("block_size", [8, SLACK + 20])
def test_a_sliding_window_bears_that_guesses_are_cut_off(
    tokenizer: Tokenizer, prompt: tuple[int, ...], block_size: int
) -> None:
    """Even a block longer than a window's slack costs no second prefill."""
    kinds = tuple(dataclasses.replace(tiny.CONFIG.layers[0], window=window) for window in (5, None))
    model = tiny.random_transformer(dataclasses.replace(tiny.CONFIG, layers=kinds))
    engine = TorchEngine(model, torch.device("cpu"), torch.float32)
    rule, options = {"passes": 2, "block_size": block_size}, {"max_new_tokens": 230, "ignore_eos": True}
    cached, _ = run(engine, tokenizer, prompt, rule, **options)
    whole, _ = run(engine, tokenizer, prompt, rule, **options, use_cache=False)
    assert filled(cached) == filled(whole)
    assert [step.phase for step in cached] == ["prefill"] + ["denoise"] * (len(cached) - 1)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_blocks_of_one_are_autoregressive(
    engine: TorchEngine,
    tokenizer: Tokenizer,
    prompt: tuple[int, ...],
    rule: dict[str, float],
    sampling: SamplingParameters,
    use_cache: bool,
) -> None:
    options = {"sampling": sampling, "max_new_tokens": 40, "use_cache": use_cache, "stops": ("qq",)}
    steps, finish = run(engine, tokenizer, prompt, {**rule, "block_size": 1}, **options)
    request = Request(prompt, seed=1, eos_token_ids=frozenset({EOS}), **options)
    *expected, end = decode(Job(engine, tokenizer, request))
    assert filled(steps) == tiny.new_tokens(expected)
    assert (finish.reason, text_of(steps, finish)) == (end.reason, "".join(record.text for record in [*expected, end]))
    draws = [choice.draw for step in steps for choice in step.choices]
    assert draws == [choice.draw for step in expected for choice in step.choices]


def test_the_seed_decides_the_text(engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]) -> None:
    texts = [text_of(*run(engine, tokenizer, prompt, {"passes": 2}, sampling=SAMPLED, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


# What the records say.


def test_a_block_is_filled_settled_and_committed_with_the_next_one(tokenizer: Tokenizer) -> None:
    scripted = ScriptedEngine([30, 31, 32, 33, 34, 35, 36], after=5)
    steps, finish = run(
        scripted,
        tokenizer,
        (10, 11, 12, 13, 14),
        {"reveal": 2, "block_size": 4},
        prefill_chunk=3,
        max_new_tokens=7,
    )
    assert scripted.inputs == [
        [10, 11, 12],
        [13],
        [14, MASK, MASK, MASK],
        [14, 30, 31, MASK],
        [14, 30, 31, 32, 33, MASK, MASK],
        [33, 34, 35],
    ]
    assert scripted.blocks == [0, 0, 4, 4, 3, 3]
    assert [step.phase for step in steps] == ["prefill"] * 2 + ["denoise"] * 4
    assert [step.num_input_tokens for step in steps] == [3, 1, 4, 4, 7, 3]
    assert [step.index for step in steps] == [step.forward for step in steps] == list(range(6))
    assert [step.block for step in steps] == [None, None, Block(5, 4), Block(5, 4), Block(9, 3), Block(9, 3)]
    assert [step.cache.length for step in steps] == [3, 4, 4, 4, 8, 8]
    assert [bool(step.text) for step in steps] == [False, False, False, True, False, True]
    assert text_of(steps, finish) == tokenizer.decode(range(30, 37))
    assert [[(c.position, c.token_id, c.status) for c in step.choices] for step in steps[2:4]] == [
        [(5, 30, "revealed"), (6, 31, "revealed"), (7, None, "masked"), (8, None, "masked")],
        [(7, 32, "revealed"), (8, 33, "revealed")],
    ]
    assert finish.reason == "length"
    totals = finish.totals
    assert (totals.new_tokens, totals.forwards, totals.positions_computed) == (7, 6, 22)
    assert (totals.prefill_tokens, totals.decode_tokens) == (4, 7)


def test_masked_places_report_their_entropy_and_nothing_else(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]
) -> None:
    steps, _ = run(engine, tokenizer, prompt, {"reveal": 1}, max_new_tokens=8, sampling=SAMPLED, ignore_eos=True)
    step = next(step for step in steps if step.phase == "denoise")
    statuses = [choice.status for choice in step.choices]
    assert sorted(statuses) == ["masked"] * 7 + ["revealed"]
    for choice in step.choices:
        assert 0 < choice.entropy <= 9
        if choice.status == "masked":
            fields = (choice.token_id, choice.logprob, choice.prob, choice.rank, choice.draw, choice.candidates)
            assert fields == (None, None, None, None, None, ())


def test_entropies_agree_with_what_the_sampler_reports(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]
) -> None:
    """The order of the first pass by entropy is the order of what revealing everything at once reports."""
    at_once, _ = run(engine, tokenizer, prompt, {"passes": 1}, max_new_tokens=8, ignore_eos=True)
    reported = [choice.entropy for choice in at_once[-1].choices]
    bound, _ = run(engine, tokenizer, prompt, {"entropy_bound": 2.0}, max_new_tokens=8, ignore_eos=True)
    first = next(step for step in bound if step.phase == "denoise")
    assert [choice.entropy for choice in first.choices] == pytest.approx(reported)
    revealed = [place for place, choice in enumerate(first.choices) if choice.status == "revealed"]
    by_entropy = [0, *sorted(range(1, 7), key=lambda place: reported[place])]
    assert revealed == sorted(by_entropy[: len(revealed)])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_totals_are_a_fold_over_steps_that_each_reveal_something(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...], rule: dict[str, float]
) -> None:
    steps, finish = run(engine, tokenizer, prompt, rule, sampling=SAMPLED, max_new_tokens=30, ignore_eos=True)
    totals = Totals()
    for step in steps:
        totals = totals.plus(step)
        assert step.phase == "prefill" or any(choice.status == "revealed" for choice in step.choices)
    assert totals == finish.totals
    assert text_of(steps, finish) == tokenizer.decode(filled(steps))


# How a text ends.


def test_an_end_token_cuts_its_block(tokenizer: Tokenizer) -> None:
    ids = [40, 41, EOS, 43, 44, 45, 46, 47]
    at_once = ScriptedEngine(ids, after=3)
    steps, finish = run(at_once, tokenizer, (10, 11, 12), {"passes": 1})
    assert filled(steps) == [40, 41, EOS]
    assert (finish.reason, finish.totals.new_tokens) == ("eos", 3)
    assert text_of(steps, finish) == tokenizer.decode([40, 41])


def test_what_was_revealed_behind_an_end_token_is_dropped(tokenizer: Tokenizer) -> None:
    class EndComesLate(ScriptedEngine):
        def row(self, position: int) -> Tensor:
            return super().row(position) * (0.3 if position == self.after + 1 else 1.0)

    steps, finish = run(EndComesLate([40, EOS, 42, 43], after=3), tokenizer, (10, 11, 12), {"reveal": 1})
    assert [c.position for step in steps for c in step.choices if c.status == "revealed"][:2] == [3, 5]
    assert finish.reason == "eos"
    assert text_of(steps, finish) == tokenizer.decode([40])


def test_a_stop_string_ends_the_text_inside_a_block(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" said hello to the bear and")[1:]
    steps, finish = run(
        ScriptedEngine(list(ids), after=3), tokenizer, (10, 11, 12), {"passes": 1, "block_size": 16}, stops=("hello",)
    )
    assert text_of(steps, finish) == " said "
    assert finish.reason == "stop"


def test_a_banned_phrase_is_taken_back_and_its_place_drawn_afresh(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]
) -> None:
    options = {"sampling": SAMPLED, "max_new_tokens": 40, "ignore_eos": True}
    free = text_of(*run(engine, tokenizer, prompt, {"passes": 2}, **options))
    banned = free[20:22]
    steps, finish = run(engine, tokenizer, prompt, {"passes": 2}, **options, bans=(banned,))
    assert banned not in text_of(steps, finish)
    assert text_of(steps, finish).startswith(free[:12])
    cuts = [step.rewound_to for step in steps if step.rewound_to is not None]
    assert cuts
    for step in steps:
        if step.rewound_to is not None:
            assert step.block.start == step.rewound_to


@pytest.mark.parametrize("new", [1, 7, 8, 9, 20])
def test_the_last_block_is_as_long_as_is_left(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...], new: int
) -> None:
    steps, finish = run(engine, tokenizer, prompt, {"passes": 2}, max_new_tokens=new, ignore_eos=True)
    assert (finish.reason, len(filled(steps))) == ("length", new)


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_context_is_filled_to_its_end(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...], use_cache: bool
) -> None:
    long = (*prompt, *range(10, 260))[: engine.limit - 13]
    steps, finish = run(
        engine, tokenizer, long, {"passes": 2}, max_new_tokens=500, ignore_eos=True, use_cache=use_cache
    )
    assert (finish.reason, len(filled(steps))) == ("context", 13)


def test_fewest_new_tokens_hold_place_by_place(tokenizer: Tokenizer) -> None:
    class WantsToEnd(ScriptedEngine):
        def row(self, position: int) -> Tensor:
            logits = super().row(position)
            logits[EOS] = 40.0
            return logits

    scripted = WantsToEnd([30, 31, 32, 33, 34, 35], after=2)
    steps, finish = run(scripted, tokenizer, (10, 11), {"passes": 1}, min_new_tokens=5)
    assert (filled(steps), finish.reason) == ([30, 31, 32, 33, 34, EOS], "eos")


def test_an_interrupt_stops_between_passes_and_keeps_what_is_settled(
    engine: TorchEngine, tokenizer: Tokenizer, prompt: tuple[int, ...]
) -> None:
    interrupt = threading.Event()
    request = Request(prompt, seed=1, sampling=GREEDY, ignore_eos=True)
    records = decode_parallel(
        Job(engine, tokenizer, request, interrupt, mask_id=MASK), ParallelParameters(block_size=8, reveal=4)
    )
    steps = list(itertools.islice(records, 6))  # prefill, two passes for each of two blocks, one for the third
    interrupt.set()
    *rest, finish = records
    assert rest == []
    assert finish.reason == "interrupt"
    assert text_of(steps, finish) == tokenizer.decode(filled(steps)[:16])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_error_in_a_pass_yields_a_finish_first(tokenizer: Tokenizer, rule: dict[str, float]) -> None:
    class Breaks(ScriptedEngine):
        def row(self, position: int) -> Tensor:
            return super().row(position) * (float("nan") if position >= self.after + 8 else 1.0)

    request = Request((10, 11), seed=1, sampling=GREEDY)
    parameters = ParallelParameters(**{"block_size": 8, **rule})
    records = decode_parallel(Job(Breaks([30, 31], after=2), tokenizer, request, mask_id=MASK), parameters)
    found: list[Any] = []
    with pytest.raises(EngineError, match="not numbers"):
        found.extend(records)  # what came before the error stays
    *steps, finish = found
    assert isinstance(finish, Finish)
    assert (finish.reason, text_of(steps, finish)) == ("error", tokenizer.decode([30] + [31] * 7))


# What is refused.


def test_a_checkpoint_without_a_mask_token_is_refused_and_told_why(tokenizer: Tokenizer) -> None:
    request = Request((10, 11), seed=1)
    job = Job(ScriptedEngine([30], after=2), tokenizer, request)
    with pytest.raises(ParameterError, match=r"no mask token \(mask_token_id in its config.json\)"):
        decode_parallel(job, ParallelParameters(passes=1))


@pytest.mark.parametrize("options", [{"healed": b"x"}, {"negative_ids": (3, 4)}], ids=["healing", "negative prompt"])
def test_what_needs_the_text_before_each_token_is_refused(tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="leave"):
        run(ScriptedEngine([30], after=2), tokenizer, (10, 11), {"passes": 1}, **options)
