"""Options about the distribution that a token is drawn from. Those of the samplers are derived from their settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenglass.cli.options.aliases import with_dashes
from tokenglass.cli.options.completion import sampler_names
from tokenglass.cli.options.groups import several
from tokenglass.model.sampling.parameters import IN_CHAIN, SAMPLERS, SETTINGS
from tokenglass.model.sampling.settings import MOST, Number, Setting, Texts

if TYPE_CHECKING:
    from tokenglass.model.text.tokenizer import Tokenizer

PANEL = "Sampling"

option = partial(typer.Option, rich_help_panel=PANEL)


def option_of(setting: Setting, default: str = "") -> Any:
    """The option of a setting, in the setting's own range; `default` says what else stands without it."""
    if isinstance(setting, Number):
        most, shown = setting.most if setting.most < MOST else None, default or f"{setting.default:g}"
        return option(*setting.flags, help=setting.help, min=setting.least, max=most, show_default=shown)
    assert isinstance(setting, Texts)
    return option(*setting.flags, help=setting.help, metavar=setting.metavar)


def annotation_of(setting: Setting, default: str = "") -> Any:
    kind: Any = list[str] if isinstance(setting, Texts) else type(setting.default)
    return Annotated[kind | None, option_of(setting, default)]


Temperature = Annotated[float | None, option_of(SETTINGS["temperature"])]
TopP = Annotated[float | None, option_of(SETTINGS["top_p"])]
Samplers = Annotated[
    str | None,
    option(
        "--samplers",
        metavar="A,B,C",
        autocompletion=sampler_names,
        help=f"The order of the processors, else {', '.join(SAMPLERS)}; what is left out is off.",
    ),
]
ShowChain = Annotated[bool, option("--show-chain", help="Print the processors with their values, and go on.")]
Seed = Annotated[
    int | None, option("--seed", min=0, max=2**64 - 1, help="Same seed, same text.", show_default="chosen and told")
]


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """`settings` are those that were given, texts not read yet. None: the checkpoint's default, or off."""

    settings: dict[str, Any] = several(  # noqa: RUF009  (a field)
        {name: annotation_of(setting) for name, setting in SETTINGS.items() if setting.flags}
    )
    samplers: Samplers = None
    show_chain: ShowChain = False
    seed: Seed = None

    def values(self, tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
        """The sampling parameters that were given; only token ids below `vocab_size` have a logit.

        Texts that belong to a sampler which is off are not read. Raises ParameterError.
        """
        values = dict(self.settings)
        for kind in IN_CHAIN:
            first, *_ = kind.settings()
            is_on = self.settings.get(first.name, first.off) != first.off
            for setting in kind.settings():
                if isinstance(setting, Texts):
                    texts = values.pop(setting.name, setting.otherwise)
                    if is_on:
                        values[setting.name] = setting.read(texts, tokenizer, vocab_size)
        if self.samplers is not None:
            values["samplers"] = tuple(with_dashes(name.strip()) for name in self.samplers.split(",") if name.strip())
        return values
