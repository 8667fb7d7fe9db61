"""The experts of a choice in the live panel: how sure the routers were, and which experts came first; and those that
several texts took together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment

from tokenglass.cli.text import plural
from tokenglass.cli.widgets.widget import BOLD, CHOSEN, DIM, Glyphs, Row, Widget, curve, label_fields, percent
from tokenglass.model.records.steps import LayerExperts

WORDY = 60  # columns, from which on the heading of the layers is a whole one


@dataclass(frozen=True, slots=True)
class ExpertsPanel(Widget):
    """At most `limit` rows of layers, each with its first choice; `before` are those of the token before."""

    experts: Sequence[LayerExperts]
    before: Sequence[LayerExperts] = ()
    limit: int = 2

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        layers = [layer for layer in self.experts if layer.experts and layer.probs]
        if not layers:
            return []
        first = [share(layer.probs[0]) for layer in layers]
        fields: list[Row] = [
            [Segment(f"{max(len(layer.experts) for layer in layers):,} in each of {plural(len(layers), 'layer')}")],
            [
                Segment("first choice ", DIM),
                Segment(curve([*first], min(len(first), 32, max(8, width // 4)), glyphs), CHOSEN),
                Segment(f" {percent(sum(first) / len(first), glyphs)} on average"),
            ],
        ]
        same = self.same()
        if same is not None:
            fields.append([Segment(percent(same, glyphs), BOLD), Segment(" as for the token before")])
        names: list[Row] = [
            [Segment(f"{layer.layer:,}: ", DIM), Segment(f"{layer.experts[0]:,}"), Segment(f" {percent(prob)}", DIM)]
            for layer, prob in zip(layers, first, strict=True)
        ]
        heading = "layer: first expert, probability" if width >= WORDY else "layer: expert"
        return [
            *label_fields("experts", fields, width, glyphs, gap=2),
            *label_fields(heading, names, width, glyphs, gap=2)[: self.limit],
        ]

    def same(self) -> float | None:
        """The share of the experts that the token before took too; None where that is not known."""
        earlier = {layer.layer: set(layer.experts) for layer in self.before}
        known = [layer for layer in self.experts if layer.layer in earlier]
        again = [expert in earlier[layer.layer] for layer in known for expert in layer.experts]
        return sum(again) / len(again) if again else None


@dataclass(frozen=True, slots=True)
class SharedExperts(Widget):
    """How many experts several texts took together in a pass: each is read once, however many texts take it."""

    texts: Sequence[Sequence[LayerExperts]]

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        takers = Counter(
            (layer.layer, expert) for text in self.texts for layer in text for expert in set(layer.experts)
        )
        if not takers:
            return []
        layers = len({layer for layer, _ in takers})
        several = sum(count > 1 for count in takers.values()) / len(takers)
        fields: list[Row] = [
            [Segment(f"{len(takers) / layers:,.1f} in each of {plural(layers, 'layer')} for all texts together")],
            [Segment(percent(several, glyphs), BOLD), Segment(" of them for more than one")],
        ]
        return label_fields("experts", fields, width, glyphs, gap=2)


def share(prob: float) -> float:
    """A probability; 0 for what is none, as in a damaged trace."""
    return min(1.0, max(0.0, prob)) if math.isfinite(prob) else 0.0
