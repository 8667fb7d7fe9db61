"""What `generate` is asked for many prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenglass.cli.run.text_options import TextOptions

if TYPE_CHECKING:
    from tokenglass.cli.options.many import ManyOptions
    from tokenglass.cli.options.prompt import PromptOptions


@dataclass(frozen=True, slots=True)
class ManyRunOptions(TextOptions):
    """All lines share them."""

    many: ManyOptions
    prompt: PromptOptions
