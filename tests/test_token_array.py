"""A text's ids as an array, beside a plain list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.sampling.token_array import TokenArray

IDS = st.lists(st.integers(0, 2**31), max_size=40)
CHANGES = st.lists(st.one_of(st.integers(0, 2**31), st.tuples(st.integers(0, 60))), max_size=60)


@given(IDS, CHANGES, CHANGES)
def test_after_appends_cuts_and_forks_it_holds_what_a_list_holds(
    ids: list[int], changes: list[int | tuple[int]], of_fork: list[int | tuple[int]]
) -> None:
    array, expected = TokenArray(ids), [*ids]
    change(array, expected, changes)
    other, expected_other = array.fork(), [*expected]
    change(other, expected_other, of_fork)
    change(array, expected, of_fork[::-1])
    assert array.array.tolist() == expected
    assert other.array.tolist() == expected_other
    assert (len(array), len(other)) == (len(expected), len(expected_other))


def change(array: TokenArray, expected: list[int], changes: list[int | tuple[int]]) -> None:
    for one in changes:
        if isinstance(one, tuple):
            array.truncate(*one)
            del expected[one[0] :]
        else:
            array.append(one)
            expected.append(one)
