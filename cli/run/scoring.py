"""The texts of score in the tokens of a model that is here, or behind a server."""

from __future__ import annotations

from collections.abc import Sequence

from tokenglass.cli.options.model import ModelOptions, ServedModelOptions
from tokenglass.cli.run import session
from tokenglass.cli.terminal.opening import Opening
from tokenglass.cli.views.score import Scoring
from tokenglass.model.engine.memory import Caches
from tokenglass.model.measuring.scoring import LOGITS, GivenText, check_windows, score_tokens

Texts = Sequence[tuple[str, str]]  # names and contents


def score_here(
    model: ModelOptions, texts: Texts, window: int | None, stride: int | None, top: int, opening: Opening
) -> Scoring:
    """Raises TokenglassError."""
    opened = session.open_model(model, opening)
    contents = [GivenText.encode(opened.tokenizer, text) for _, text in texts]
    size, stride = check_windows(window, stride, opened.limit)
    longest = max(len(text.token_ids) for text in contents)
    loaded = session.load(opened, Caches(min(longest, size), beside=LOGITS), opening)
    engine, tokenizer = loaded.engine, loaded.tokenizer
    return Scoring(
        loaded.name,
        b"".join(map(tokenizer.piece, tokenizer.start_ids)).decode("utf-8", "replace"),
        size,
        stride,
        [name for name, _ in texts],
        contents,
        lambda text: score_tokens(engine, tokenizer, text.token_ids, window=size, stride=stride, top=top),
    )


def score_there(
    model: ServedModelOptions, texts: Texts, window: int | None, stride: int | None, top: int, opening: Opening
) -> Scoring:
    """Raises TokenglassError."""
    from tokenglass.cli.run.remote import open_server, refuse_others
    from tokenglass.model.measuring.served import encode_given, score_served
    from tokenglass.model.sources.server.served_text import ServedText

    refuse_others(model, {"model", "remote_model"})
    served = ServedText(open_server(model, opening))
    contents = [encode_given(served, text) for _, text in texts]
    longest = max(2, *(len(text.token_ids) for text in contents))
    size, stride = check_windows(window, stride, served.server.context or longest)
    starts = next((text.token_ids[: text.added] for text in contents), ())
    return Scoring(
        served.server.name,
        b"".join(map(served.piece, starts)).decode("utf-8", "replace"),
        size,
        stride,
        [name for name, _ in texts],
        contents,
        lambda text: score_served(served, text.token_ids, size, stride, top),
    )
