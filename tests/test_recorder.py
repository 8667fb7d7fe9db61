"""One recorder for every way of decoding: it numbers, times, adds up, and ends each text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tokenglass.model.decoding.recorder import Recorder, record
from tokenglass.model.decoding.request import Request
from tokenglass.model.records.steps import Finish, Reason, Record, Step, Totals


class Countdown:
    """Texts without words: number k ends by itself after k + 1 passes."""

    def __init__(self, count: int):
        self.reasons: dict[int, Reason | None] = dict.fromkeys(range(count))
        self.passes = 0

    @property
    def are_open(self) -> bool:
        return None in self.reasons.values()

    def end(self, reason: Reason) -> None:
        self.reasons = {number: known or reason for number, known in self.reasons.items()}

    def finishes(self, totals: Callable[[int], Totals]) -> Iterator[Finish]:
        for number, reason in list(self.reasons.items()):
            if reason is not None:
                del self.reasons[number]
                yield Finish(number, reason, "", totals(number))

    def decode_once(self, recorder: Recorder) -> Iterator[Step]:
        self.passes += 1
        for number in self.reasons:
            if number < self.passes:
                self.reasons[number] = "eos"
            yield recorder.step("decode", 1, None, sequence=number)


REQUEST = Request((1,), 1)


def test_steps_are_numbered_through_and_batch_mates_share_a_pass_and_its_seconds() -> None:
    texts = Countdown(3)
    records = list(record(texts, texts.decode_once, REQUEST, threading.Event()))
    steps = [step for step in records if isinstance(step, Step)]
    assert [step.index for step in steps] == list(range(6))
    assert [(step.forward, step.sequence) for step in steps] == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    assert all(len({step.seconds for step in steps if step.forward == forward}) == 1 for forward in range(3))


def test_a_finish_comes_behind_the_last_pass_of_its_text_with_the_sum_of_its_steps() -> None:
    texts = Countdown(3)
    records = list(record(texts, texts.decode_once, REQUEST, threading.Event()))
    assert [type(one).__name__[0] for one in records] == list("SSSFSSFSF")
    for finish in [one for one in records if isinstance(one, Finish)]:
        total = Totals()
        for step in [one for one in records if isinstance(one, Step) and one.sequence == finish.sequence]:
            total = total.plus(step)
        assert (finish.totals, finish.reason) == (total, "eos")


def test_a_branch_goes_on_from_what_its_parent_has_cost() -> None:
    recorder = Recorder()
    recorder.begin()
    first = recorder.step("prefill", 5, None)
    recorder.begin()
    recorder.branch(0, 7)
    recorder.step("decode", 1, None)
    new = recorder.step("decode", 0, None, sequence=7, parent=0)
    assert recorder.totals(7) == Totals().plus(first).plus(new)


@pytest.mark.parametrize("taken", [0, 3, 4, 6])
def test_an_interrupt_ends_every_open_text_before_the_next_pass(taken: int) -> None:
    texts, flag = Countdown(3), threading.Event()
    records = record(texts, texts.decode_once, REQUEST, flag)
    before = [next(records) for _ in range(taken)]
    flag.set()
    after = [*before, *records]
    finishes = {one.sequence: one.reason for one in after if isinstance(one, Finish)}
    ended = {number for number in range(3) if number < texts.passes}
    assert finishes == {number: "eos" if number in ended else "interrupt" for number in range(3)}
    assert sum(isinstance(one, Step) for one in after) == [0, 3, 5, 6][texts.passes]


def test_time_that_is_up_ends_them_as_well() -> None:
    texts = Countdown(2)
    request = Request((1,), 1, max_seconds=1e-9)
    records = record(texts, texts.decode_once, request, threading.Event())
    assert [one.reason for one in records if isinstance(one, Finish)] == ["time"] * 2


def test_an_exception_comes_behind_a_finish_for_each_open_text() -> None:
    texts = Countdown(3)

    def fails(recorder: Recorder) -> Iterator[Step]:
        if texts.passes == 1:
            raise ZeroDivisionError
        yield from texts.decode_once(recorder)

    records: list[Record] = []
    with pytest.raises(ZeroDivisionError):
        records.extend(record(texts, fails, REQUEST, threading.Event()))
    assert [(one.sequence, one.reason) for one in records if isinstance(one, Finish)] == [
        (0, "eos"),
        (1, "error"),
        (2, "error"),
    ]
