"""The uniform numbers: the same key gives the same number, and they look random whichever part of the key counts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import chi_square
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.sampling.draw import uniform

COUNT = 20_000
WORD = st.integers(0, 2**64 - 1)


def count_bins(numbers: Iterable[float], bins: int) -> list[int]:
    counts = Counter(int(number * bins) for number in numbers)
    return [counts[index] for index in range(bins)]


def is_flat(counts: list[int]) -> bool:
    return not chi_square.is_rejected(counts, [1 / len(counts)] * len(counts))


@pytest.mark.parametrize("seed", [0, 1, 42, 2**64 - 1])
def test_positions_at_one_seed_are_uniform(seed: int) -> None:
    assert is_flat(count_bins((uniform(seed, position) for position in range(COUNT)), 100))


@pytest.mark.parametrize("position", [0, 1, 1000])
def test_seeds_at_one_position_are_uniform(position: int) -> None:
    assert is_flat(count_bins((uniform(seed, position) for seed in range(COUNT)), 100))


def test_streams_and_attempts_are_uniform() -> None:
    assert is_flat(count_bins((uniform(1, 1, stream=stream) for stream in range(COUNT)), 100))
    assert is_flat(count_bins((uniform(1, 1, attempt=attempt) for attempt in range(COUNT)), 100))


@pytest.mark.parametrize("part", ["position", "seed", "stream", "attempt"])
def test_neighbours_are_independent(part: str) -> None:
    """Overlapping pairs would not be independent counts; these are disjoint, in 12 by 12 bins."""
    key = {"seed": 1, "position": 1}
    numbers = [uniform(**{**key, part: number}) for number in range(COUNT)]
    pairs = Counter(zip(*[(int(number * 12) for number in numbers)] * 2, strict=True))
    assert is_flat([pairs[bins] for bins in itertools.product(range(12), repeat=2)])


def test_the_chi_square_test_itself_rejects_what_is_not_uniform() -> None:
    skewed = count_bins((uniform(1, position) ** 1.1 for position in range(COUNT)), 100)
    assert not is_flat(skewed)
    assert not is_flat([COUNT // 100] * 100)  # too even to be random


@given(seed=WORD, position=WORD, stream=WORD, attempt=WORD)
def test_every_key_gives_a_number_from_0_to_below_1_and_always_the_same(
    seed: int, position: int, stream: int, attempt: int
) -> None:
    number = uniform(seed, position, stream=stream, attempt=attempt)
    assert 0 <= number < 1
    assert (number * 2**53).is_integer()
    assert number == uniform(seed, position, stream=stream, attempt=attempt)


@pytest.mark.parametrize("other", [{"seed": 2}, {"position": 2}, {"stream": 1}, {"attempt": 1}])
def test_every_part_of_the_key_matters(other: dict[str, int]) -> None:
    assert uniform(**{"seed": 1, "position": 1, **other}) != uniform(1, 1)


def test_known_numbers_stay_what_they_are_so_that_old_traces_stay_true() -> None:
    assert [uniform(1, 0), uniform(1, 1), uniform(1, 1, attempt=1), uniform(2**64 - 1, 9, stream=3)] == [
        0.8009033503239135,
        0.9864650708620174,
        0.8286680154323319,
        0.7526334895532784,
    ]
