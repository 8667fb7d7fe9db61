"""The sorted head: what is in it, and that it is the same whether repaired or made anew."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenglass.model.sampling.head import Head


def check(head: Head, whole: np.ndarray) -> None:
    """Sorted, every token once, with its own score; what is outside lies below."""
    pairs = list(zip(head.values.tolist(), head.token_ids.tolist(), strict=True))
    assert pairs == sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    assert head.values.tolist() == whole[head.token_ids].tolist()
    assert len(set(head.token_ids.tolist())) == len(head.token_ids)
    outside = np.delete(whole, head.token_ids)
    if head.is_complete:
        assert (outside == -math.inf).all()
    elif len(head.values):
        assert (outside < head.values[-1]).all()


@settings(max_examples=300, deadline=None)
@given(data=st.data(), size=st.integers(1, 900), count=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_a_repaired_head_holds_what_a_new_one_would(data: st.DataObject, size: int, count: int, seed: int) -> None:
    """Scores rise, fall and become impossible, some tokens named twice; rounded, so that there are ties."""
    random = np.random.default_rng(seed)
    whole = random.normal(0, 3, size).round(data.draw(st.sampled_from([0, 9])))
    whole[random.random(size) < data.draw(st.sampled_from([0.0, 0.4]))] = -math.inf
    whole[random.integers(size)] = 1.0
    head = Head.of(whole, count)
    check(head, whole)
    assert head.is_complete or len(head.token_ids) >= count
    floor = -math.inf if head.is_complete else head.values[-1]
    touched = [random.integers(0, size, data.draw(st.integers(0, 2 * size))) for _ in range(2)]
    for token_ids in touched:
        moved = whole[token_ids] + data.draw(st.sampled_from([-2.0, 0.0, 2.0, -math.inf]))
        whole[token_ids] = moved
    repaired = head.after(whole, touched)
    check(repaired, whole)
    assert repaired.is_complete == head.is_complete
    assert set(repaired.token_ids.tolist()) == set(np.flatnonzero((whole >= floor) & (whole > -math.inf)).tolist())
