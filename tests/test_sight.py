"""What a query may look at, position by position."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenglass.model.torch_engine.attention import CAUSAL, Sight, sight


def visible_slots(actual: Sight, queries: int, slots: int) -> list[list[int]]:
    """The slots that each query sees."""
    mask = actual.mask
    if mask is None:
        return [list(range(actual.first, slots))] * queries
    if mask is CAUSAL:
        return [list(range(query + 1)) for query in range(queries)]
    assert isinstance(mask, torch.Tensor)
    return [row.nonzero()[:, 0].tolist() for row in mask[0, 0]]


@given(
    past=st.integers(0, 5),
    length=st.integers(1, 6),
    block=st.integers(0, 6),
    window=st.sampled_from([None, 1, 3, 8]),
    hidden=st.none() | st.sets(st.integers(0, 4)),
)
def test_a_query_sees_the_past_and_a_block_sees_itself(
    past: int, length: int, block: int, window: int | None, hidden: set[int] | None
) -> None:
    block = min(block, length)
    positions = torch.arange(past, past + length)[None]
    hide = None if hidden is None else torch.tensor([[position in hidden for position in range(5)]])

    actual = sight(positions, 0, past + length, window, block=block, hide=hide)

    expected = []
    for query in range(past, past + length):
        in_block = query >= past + length - block
        last = past + length - 1 if in_block else query
        first = 0 if window is None else max(0, query - window + 1)
        expected.append([key for key in range(first, last + 1) if key not in (hidden or ())])
    assert visible_slots(actual, length, past + length) == expected


@pytest.mark.parametrize("cached", [False, True])
def test_a_block_reads_its_later_tokens_and_what_is_before_it_does_not(cached: bool) -> None:
    model = tiny.random_transformer()
    ids = torch.arange(12)[None] * 7 % tiny.VOCAB_SIZE
    other = ids.clone()
    other[0, -1] += 1

    def logits(sequence: torch.Tensor) -> torch.Tensor:
        if not cached:
            return model(sequence, block=4)
        cache = tiny.ScriptedEngine(tiny.says(0, after=0)).new_cache()
        return torch.cat((model(sequence[:, :5], cache), model(sequence[:, 5:], cache, block=4)), dim=1)

    changed = (logits(ids) != logits(other)).any(-1)[0]
    assert changed.tolist() == [False] * 8 + [True] * 4
    torch.testing.assert_close(logits(ids), model(ids, block=4), rtol=0, atol=1e-5)


def test_a_hidden_position_changes_nothing_for_its_own_row_only() -> None:
    model = tiny.random_transformer()
    ids = (torch.arange(8) * 7 % tiny.VOCAB_SIZE).expand(2, 8)
    hide = torch.zeros(2, 8, dtype=torch.bool)
    hide[1, 3] = True
    plain = model(ids)
    both = model(ids[:, :4]), model(ids, hide=hide)
    torch.testing.assert_close(both[1][0], plain[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1][1, :3], both[0][1, :3], rtol=0, atol=1e-5)
    assert bool((both[1][1, 4:] != plain[1, 4:]).any(-1).all())
