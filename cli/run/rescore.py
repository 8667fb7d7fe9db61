"""The text of a kept run, and the same in another model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.run.trace_file import open_file
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.steps import Choice, Step
from tokenglass.model.runs.playback import Texts, split_runs
from tokenglass.model.runs.run import EngineSettings, Run

if TYPE_CHECKING:
    from tokenglass.cli.terminal.opening import Opening
    from tokenglass.cli.views.diff import Diff
    from tokenglass.model.loaded_model import LoadedModel
    from tokenglass.model.runs.trace_reader import TraceReader


def read_text(file: str) -> tuple[Run, list[Choice]]:
    """The first run of a trace, and the tokens of its first text. Raises TraceError."""
    with open_file(file) as trace:
        return text_of(trace)


def text_of(trace: TraceReader) -> tuple[Run, list[Choice]]:
    run, records = next(split_runs(trace))
    texts = Texts()
    for record in records:
        if isinstance(record, Step):
            texts.add(record)
    return run, next((choices for _, choices in sorted(texts.choices.items())), [])


def column_of(run: Run) -> str:
    from tokenglass.cli.run.summary import computed_on, description, settings

    if run.is_imported:
        return description(run)[0]
    return ", ".join((computed_on(run)[0], *settings(run.request.sampling), f"seed {run.seed}"))


def column_of_model(loaded: LoadedModel) -> str:
    from tokenglass.cli.run.summary import in_numbers_of

    return f"{loaded.name} {in_numbers_of(EngineSettings.of(loaded))}"


def rescore_trace(trace: TraceReader, model: ModelOptions, screen: Opening) -> Diff:
    """The recorded tokens, and the same as another model has them, in one prefill. Raises TokenglassError."""
    from tokenglass.cli.run import session
    from tokenglass.cli.views.diff import Diff
    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.measuring.difference import rescore
    from tokenglass.model.measuring.scoring import LOGITS

    run, recorded = text_of(trace)
    opened = session.open_model(model, screen)
    if run.tokenizer_fingerprint and opened.tokenizer_fingerprint != run.tokenizer_fingerprint:
        raise ParameterError(f"{opened.name} has another tokenizer than {run.model}; its tokens do not compare")
    length = min(run.prompt_length + len(recorded), opened.limit)
    loaded = session.load(opened, Caches(length, beside=LOGITS), screen)
    screen.show("comparing")
    pairs = list(rescore(loaded.engine, loaded.tokenizer, run.request.prompt_ids, recorded))
    texts = (recorded, [each.second for each in pairs])
    return Diff((f"{column_of(run)}, as recorded", column_of_model(loaded)), texts, pairs)
