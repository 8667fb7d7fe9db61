"""Logits of a mixture of experts that say which experts their positions took, so that a choice can tell it: whichever
way it is decoded, it is made of the logits of one position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokenglass.model.records.steps import LayerExperts

Routes = tuple[LayerExperts, ...]  # of one position, layer by layer


class RoutedLogits(np.ndarray[Any, np.dtype[np.float32]]):
    """(positions, vocab) or (vocab,). One position's part of it is such an array too; anything else made of it is an
    ordinary one."""

    routes: Sequence[Routes] = ()  # of each position

    def __getitem__(self, place: Any) -> Any:
        part = np.asarray(self)[place]
        return route_logits(part, [self.routes[place]]) if self.ndim == 2 and isinstance(place, int) else part


def route_logits(logits: np.ndarray[Any, Any], routes: Sequence[Routes]) -> RoutedLogits:
    """The same logits with the routes of their positions."""
    routed = logits.view(RoutedLogits)
    routed.routes = routes
    return routed


def routes_of(layers: Sequence[int], columns: Sequence[int], taken: Any, probs: Any) -> list[Routes]:
    """Those of some positions of a pass, from the experts and the probabilities of all: both, arrays or tensors,
    (layers with experts, positions, chosen)."""
    numbers, likely = (part[:, columns].tolist() for part in (taken, probs))
    return [
        tuple(
            LayerExperts(layer, tuple(numbers[place][column]), tuple(likely[place][column]))
            for place, layer in enumerate(layers)
        )
        for column in range(len(columns))
    ]


def experts_of(logits: Any) -> Routes | None:
    """What the position took that these logits (vocab,) come from; None where nobody watched."""
    return logits.routes[-1] if isinstance(logits, RoutedLogits) and logits.routes else None
