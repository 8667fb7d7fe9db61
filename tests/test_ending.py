"""Whatever goes wrong in a run, each of its texts has a Finish, and what went wrong is raised behind it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from shell import ENVIRONMENT

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.beam_search import BeamParameters
from tokenglass.model.decoding.beams import decode_beams
from tokenglass.model.decoding.cached_conversation import CachedConversation
from tokenglass.model.decoding.conversation import Turn
from tokenglass.model.decoding.drafts import NgramDrafter
from tokenglass.model.decoding.ending import end_always
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.parallel import decode_parallel
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.decoding.samples import decode_samples
from tokenglass.model.decoding.speculative import decode_jacobi, decode_speculative
from tokenglass.model.errors import EngineError
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Record, Step
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.chat import ChatTemplate, Message

FLAG = threading.Event()
ENDS = 6  # forward passes that work


class Panic(BaseException):
    """As the tokenizers library raises: no Exception."""


# What torch, numpy and C++ say where memory cannot be had.
SHORT_OF_MEMORY = (
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("[enforce fail at CPUAllocator.cpp:64] . DefaultCPUAllocator: not enough memory: you tried to ..."),
    RuntimeError("std::bad_alloc"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    OSError(12, "Cannot allocate memory"),
)
OTHERS = (RuntimeError("shapes do not match"), ValueError("x"), IndexError(), ZeroDivisionError(), Panic("index"))


class Fails:
    """The engine of the bundled model until some pass, which raises."""

    def __init__(self, engine: Any, error: BaseException, after: int = ENDS):
        self._engine, self._error, self._left = engine, error, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._engine.forward(*arguments, **options)


@pytest.fixture(scope="module")
def tale() -> Any:
    return load_model(bundled_folder())


def conversation(engine: Any, tokenizer: Any, request: Request) -> Iterator[Record]:
    turn = Turn((Message("user", "Hello"),), request.prompt_ids)
    return CachedConversation(engine, tokenizer, ChatTemplate("", {})).answer(turn, request, FLAG)


def parallel(engine: Any, tokenizer: Any, request: Request) -> Iterator[Record]:
    parameters = ParallelParameters(8, passes=4)
    return decode_parallel(Job(engine, tokenizer, request, mask_id=engine.model.config.mask_token_id), parameters)


LOOPS: dict[str, Callable[[Any, Any, Request], Iterator[Record]]] = {
    "autoregressive": lambda engine, tokenizer, request: decode(Job(engine, tokenizer, request)),
    "samples": lambda engine, tokenizer, request: decode_samples(Job(engine, tokenizer, request), 3),
    "beams": lambda engine, tokenizer, request: decode_beams(Job(engine, tokenizer, request), BeamParameters(3)),
    "parallel": parallel,
    "speculative": lambda engine, tokenizer, request: decode_speculative(
        Job(engine, tokenizer, request, cache=engine.new_cache()), NgramDrafter()
    ),
    "jacobi": lambda engine, tokenizer, request: decode_jacobi(
        Job(engine, tokenizer, request, cache=engine.new_cache()), 2
    ),
    "conversation": conversation,
}


def cut_short(loop: str, tale: Any, error: BaseException, after: int) -> tuple[list[Record], BaseException]:
    """The records of a run whose engine fails, and what it then raises."""
    request = Request(tale.tokenizer.encode("The fox and the hen"), 1, SamplingParameters(), max_new_tokens=60)
    records = LOOPS[loop](Fails(tale.engine, error, after), tale.tokenizer, request)
    seen: list[Record] = []
    with pytest.raises(BaseException) as caught:  # noqa: PT011  (any of them)
        seen.extend(records)
    return seen, caught.value


def assert_all_ended(loop: str, records: list[Record]) -> None:
    """Every sequence has one Finish, but for beams that others took the place of; one at least is of reason error."""
    finishes = [record for record in records if isinstance(record, Finish)]
    begun = {record.sequence for record in records if isinstance(record, Step)}
    assert loop == "beams" or {finish.sequence for finish in finishes} >= begun
    assert len({finish.sequence for finish in finishes}) == len(finishes) > 0
    assert "error" in {finish.reason for finish in finishes}
    assert isinstance(records[-1], Finish)


@pytest.mark.parametrize("error", SHORT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {error}"[:50])
@pytest.mark.parametrize("loop", LOOPS)
def test_no_memory_is_a_finish_and_one_kind_of_error(loop: str, error: Exception, tale: Any) -> None:
    records, raised = cut_short(loop, tale, error, ENDS)
    assert_all_ended(loop, records)
    assert isinstance(raised, EngineError)
    assert "not enough memory" in str(raised)


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("after", [0, ENDS])
def test_any_exception_is_a_finish_and_passes_on(loop: str, error: BaseException, after: int, tale: Any) -> None:
    records, raised = cut_short(loop, tale, error, after)
    assert_all_ended(loop, records)
    assert raised is error


@pytest.mark.parametrize("loop", LOOPS)
def test_a_second_ctrl_c_quits_at_once(loop: str, tale: Any) -> None:
    records, raised = cut_short(loop, tale, KeyboardInterrupt(), ENDS)
    assert isinstance(raised, KeyboardInterrupt)
    assert not [record for record in records if isinstance(record, Finish)]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_finish_counts_the_steps_and_tells_what_was_held_back(loop: str, tale: Any) -> None:
    records, _ = cut_short(loop, tale, ValueError(), ENDS)
    finish = records[-1]
    assert isinstance(finish, Finish)
    assert finish.totals.forwards > 0
    whole, _ = cut_short(loop, tale, ValueError(), ENDS)
    assert [record.text for record in whole] == [record.text for record in records]


def test_a_text_that_ended_is_not_ended_again_and_failing_ends_are_one() -> None:
    from tokenglass.model.records.steps import Totals  # noqa: PLC0415

    done = Finish(0, "eos", "said", Totals())

    def records() -> Iterator[Record]:
        yield done
        raise ValueError("x")

    def fails() -> list[Finish]:
        raise MemoryError

    ends = [Finish(0, "error", "", Totals()), Finish(1, "error", "", Totals())]
    for failed, expected in ((lambda: ends, [done, ends[1]]), (fails, [done])):
        seen: list[Record] = []
        with pytest.raises(ValueError, match="x"):
            seen.extend(end_always(records(), failed))
        assert seen == expected


PROGRAM = """
import sys
from tokenglass.cli.__main__ import generate
from tokenglass.model.torch_engine.engine import TorchEngine
forward, left = TorchEngine.forward, 4
def fail(self, *arguments, **options):
    global left
    left -= 1
    if left < 0:
        raise {error}
    return forward(self, *arguments, **options)
TorchEngine.forward = fail
sys.argv = ["generate", "The fox", "-n", "30", "--backend", "torch", *{options}]
generate()
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ('RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', "not enough memory"),
        ("MemoryError()", "not enough memory"),
        ("ValueError('odd ' * 10**6)", "internal error: ValueError"),
        ("type('Panic', (BaseException,), {})('index out of bounds')", "internal error: Panic"),
    ],
)
def test_json_lines_end_with_a_finish_and_the_program_with_a_line_and_1(error: str, message: str) -> None:
    run_failing(error, message, ["--jsonl"])


@pytest.mark.parametrize("options", [["--jsonl", "--num-samples", "2"], ["--jsonl", "--flow"], []])
def test_so_do_several_texts_explained_ones_and_plain_text(options: list[str]) -> None:
    run_failing("MemoryError()", "not enough memory", options)


def run_failing(error: str, message: str, options: list[str]) -> None:
    program = PROGRAM.replace("{error}", error).replace("{options}", repr(options))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert message in line
    assert len(line) < 700
    if options:
        *_, last = map(json.loads, done.stdout.splitlines())
        assert (last["record"], last["reason"]) == ("finish", "error")
    else:
        assert done.stdout, "the text that came is kept"
