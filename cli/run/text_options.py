"""What every command that writes texts is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenglass.cli.options.control import ControlOptions
    from tokenglass.cli.options.model import ServedModelOptions
    from tokenglass.cli.options.passes import PassOptions
    from tokenglass.cli.options.sampling import SamplingOptions
    from tokenglass.cli.options.view import ViewOptions


@dataclass(frozen=True, slots=True)
class TextOptions:
    """By group."""

    control: ControlOptions
    sampling: SamplingOptions
    view: ViewOptions
    model: ServedModelOptions
    passes: PassOptions
