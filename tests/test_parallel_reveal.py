"""Which places of a block a pass reveals: one rule at a time, at least one place, the last place last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.errors import ParameterError

PEAKS = [0.5, 0.95, 0.2, 0.91, 0.99]
ENTROPIES = [1.0, 0.25, 3.0, 0.5, 0.125]

rules = st.one_of(
    st.integers(1, 40).map(lambda count: ParallelParameters(reveal=count)),
    st.integers(1, 40).map(lambda count: ParallelParameters(passes=count)),
    st.floats(0.01, 1).map(lambda least: ParallelParameters(threshold=least)),
    st.floats(0, 100).map(lambda bound: ParallelParameters(entropy_bound=bound)),
)
places = st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 12), st.booleans()), min_size=1, max_size=32)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"reveal": 1}, [1]),
        ({"reveal": 2}, [1, 3]),
        ({"reveal": 4}, [1, 3, 0, 2]),
        ({"reveal": 9}, [1, 3, 0, 2, 4]),
        ({"passes": 1}, [1, 3, 0, 2, 4]),
        ({"passes": 2}, [1, 3, 0]),
        ({"passes": 9}, [1]),
        ({"threshold": 0.9}, [0, 1, 3]),
        ({"threshold": 0.95}, [0, 1]),
        ({"threshold": 0.97}, [0]),
        ({"threshold": 0.2}, [0, 1, 3, 2, 4]),
        ({"entropy_bound": 0.0}, [0]),
        ({"entropy_bound": 0.25}, [0, 1]),
        ({"entropy_bound": 0.75}, [0, 1, 3]),
        ({"entropy_bound": 1.75}, [0, 1, 3, 2]),
        ({"entropy_bound": 1.875}, [0, 1, 3, 2, 4]),
    ],
)
def test_each_rule_reveals_the_most_certain_places_and_the_adaptive_ones_the_first_before_them(
    rule: dict[str, float], expected: list[int]
) -> None:
    assert ParallelParameters(**rule).pick(range(5), PEAKS, ENTROPIES, done=0) == expected


def test_what_is_revealed_is_not_revealed_again_and_the_passes_left_share_the_rest() -> None:
    rule = ParallelParameters(passes=3)
    assert rule.pick([0, 2, 4], PEAKS, ENTROPIES, done=1) == [0, 2]
    assert rule.pick([4], PEAKS, ENTROPIES, done=2) == [4]
    assert rule.pick([2, 4], PEAKS, ENTROPIES, done=7) == [2, 4]


@given(rules, places)
def test_a_pass_reveals_at_least_one_hidden_place_and_the_last_only_with_all_others(
    rule: ParallelParameters, block: list[tuple[float, float, bool]]
) -> None:
    hidden = [place for place, (_, _, is_hidden) in enumerate(block) if is_hidden] or [0]
    picked = rule.pick(hidden, [peak for peak, _, _ in block], [entropy for _, entropy, _ in block], done=0)
    assert picked
    assert len(set(picked)) == len(picked)
    assert set(picked) <= set(hidden)
    if len(block) - 1 in picked:
        assert set(picked) == set(hidden)


@given(rules, places)
def test_a_block_is_full_after_as_many_passes_as_it_has_places(
    rule: ParallelParameters, block: list[tuple[float, float, bool]]
) -> None:
    hidden = set(range(len(block)))
    done = 0
    while hidden:
        assert done < len(block)
        hidden -= set(rule.pick(hidden, [peak for peak, _, _ in block], [e for _, e, _ in block], done))
        done += 1


@pytest.mark.parametrize("size", [1, 5, 16])
@pytest.mark.parametrize("passes", [1, 2, 3, 4, 8, 16, 20])
def test_passes_fill_a_block_in_that_many(size: int, passes: int) -> None:
    rule, hidden, taken = ParallelParameters(passes=passes), set(range(size)), 0
    while hidden:
        hidden -= set(rule.pick(hidden, [0.5] * size, [1.0] * size, taken))
        taken += 1
    assert taken == min(passes, size)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "expected one of reveal, passes, threshold, entropy_bound; none is given"),
        ({"passes": 1, "threshold": 0.9}, "passes and threshold is given"),
        ({"passes": 0}, "passes is 0; expected at least 1"),
        ({"reveal": -1}, "reveal is -1; expected at least 1"),
        ({"block_size": 0, "passes": 1}, "block_size is 0; expected at least 1"),
        ({"threshold": 0.0}, "threshold is 0.0; expected more than 0, at most 1"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"entropy_bound": -0.1}, "entropy_bound is -0.1; expected 0 bits or more"),
        ({"entropy_bound": float("inf")}, "entropy_bound is inf"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ParallelParameters(**wrong)
