"""What `generate` is asked for many prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenglass.cli.options.control import ControlOptions
    from tokenglass.cli.options.many import ManyOptions
    from tokenglass.cli.options.model import ServedModelOptions
    from tokenglass.cli.options.passes import PassOptions
    from tokenglass.cli.options.prompt import PromptOptions
    from tokenglass.cli.options.sampling import SamplingOptions
    from tokenglass.cli.options.view import ViewOptions


@dataclass(frozen=True, slots=True)
class ManyRunOptions:
    """By group; all lines share them."""

    many: ManyOptions
    prompt: PromptOptions
    control: ControlOptions
    sampling: SamplingOptions
    view: ViewOptions
    model: ServedModelOptions
    passes: PassOptions
