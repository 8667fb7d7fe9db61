"""Who answers the questions of choose: a model that is here, or a server."""

from __future__ import annotations

from dataclasses import replace

from tokenglass.cli.options.model import ModelOptions, ServedModelOptions
from tokenglass.cli.run.question import Asking, Chooses, LocalAsking, Manner, ServedAsking
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.errors import ParameterError
from tokenglass.model.sources.server.address import is_address

UNKNOWN = 2048  # tokens that room is asked for where the prompts are still to be read


def open_asking(
    model: ServedModelOptions, source: str | None, opening: Opening, manner: Manner, *, decides: bool
) -> tuple[Asking, Chooses]:
    """What asks and what answers; `decides` where typed decisions are asked for. Raises TokenglassError."""
    if is_address(model.model):
        return ask_there(model, opening, manner, decides=decides)
    return ask_here(model, source, opening, manner, decides=decides)


def ask_here(
    model: ModelOptions, source: str | None, opening: Opening, manner: Manner, *, decides: bool
) -> tuple[Asking, Chooses]:
    from tokenglass.cli.run import session
    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.measuring.choosing import COPIES, Chooser
    from tokenglass.model.measuring.scoring import LOGITS
    from tokenglass.model.text.chat import has_template

    opened = session.open_model(model, opening)
    is_chat = manner.chat or (decides and has_template(opened.checkpoint.folder))
    asking = LocalAsking(replace(manner, chat=is_chat), opened)
    longest = UNKNOWN if source is None else asking.length(source)
    loaded = session.load(opened, Caches(min(longest, opened.limit), beside=LOGITS + COPIES), opening)
    return asking, Chooser(loaded.engine, loaded.tokenizer)


def ask_there(model: ServedModelOptions, opening: Opening, manner: Manner, *, decides: bool) -> tuple[Asking, Chooses]:
    from tokenglass.cli.run.remote import open_server, refuse_others
    from tokenglass.model.measuring.served import ServedChooser
    from tokenglass.model.sources.server.served_text import ServedText

    refuse_others(model, {"model", "remote_model"})
    if decides:
        raise ParameterError("--systemone is not for a server; it works with a model that is here")
    served = ServedText(open_server(model, opening))
    return ServedAsking(manner, served), ServedChooser(served)
