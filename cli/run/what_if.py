"""What other settings would have drawn in a kept run, in words, and the text that they give, with the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tokenglass.cli.options.model import CacheDtype, Dtype, ModelOptions, Quantize
from tokenglass.cli.options.view import ViewName, ViewOptions
from tokenglass.cli.say import say, write, write_json
from tokenglass.cli.terminal.opening import opening
from tokenglass.cli.terminal.terminal import visible_piece
from tokenglass.cli.text import plural
from tokenglass.cli.widgets.widget import percent
from tokenglass.model.errors import ParameterError
from tokenglass.model.records.codec import to_dict
from tokenglass.model.records.steps import Record, Step
from tokenglass.model.runs.playback import Texts, split_runs
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace_reader import TraceReader
from tokenglass.model.runs.what_if import WhatIf, what_if

if TYPE_CHECKING:
    import threading

    from tokenglass.model.records.steps import Finish

SOME = 64  # tokens of the recorded text that are verified in one pass
BEFORE = 8  # tokens shown before the one that differs


def tell(trace: TraceReader, settings: dict[str, Any], *, as_json: bool) -> None:
    """For each text of a trace where these settings would have drawn another token. Raises ParameterError."""
    for run, records in split_runs(trace):
        texts = Texts()
        for answer in what_if(run, watch(records, texts), run.request.sampling.replace(**settings)):
            if as_json:
                write_json(as_facts(answer))
            else:
                write(describe(answer, run, texts))


def watch(records: Iterator[Record], texts: Texts) -> Iterator[Record]:
    """The same records; what stands of the texts is known meanwhile."""
    for record in records:
        if isinstance(record, Step):
            texts.add(record)
        yield record


def describe(answer: WhatIf, run: Run, texts: Texts) -> str:
    name = f"text {answer.sequence}: " if run.search.is_several else ""
    choice, instead = answer.choice, answer.instead
    if choice is None:
        return f"{name}the same text, all {plural(answer.same_tokens, 'token')}"
    said = b"".join(each.piece for each in texts.choices[answer.sequence] if each.position < choice.position)
    before = " ".join(said.decode("utf-8", "replace").split()[-BEFORE:])
    same = f"{plural(answer.same_tokens, 'token')} stay{'s' * (answer.same_tokens == 1)} the same"
    place = f"{name}{same}: …{before}\ntoken {answer.same_tokens + 1:,}: "
    if choice.prob is None:
        return f"{place}recorded {visible_piece(choice.piece)}; what it was drawn from is not reported"
    piece = f"{visible_piece(choice.piece)} {percent(choice.prob)}"
    if instead is None or answer.probs is None:
        held = sum(candidate.prob or 0.0 for candidate in choice.candidates)
        words = f"the {len(choice.candidates):,} candidates that are kept held {percent(held)} as recorded"
        return f"{place}recorded {piece}; the trace does not tell what would have come ({words}; see --trace-top)"
    low, high = (percent(prob) for prob in answer.probs)
    prob = low if low == high else f"{low} to {high}"
    return f"{place}{visible_piece(instead.piece)} {prob} instead of {piece}"


def as_facts(answer: WhatIf) -> dict[str, Any]:
    choice, instead, probs = answer.choice, answer.instead, answer.probs
    return {
        "record": "what_if",
        "sequence": answer.sequence,
        "same_tokens": answer.same_tokens,
        "is_answered": choice is None or instead is not None,
        "recorded": None if choice is None else to_dict(replace(choice, candidates=())),
        "instead": None if instead is None else to_dict(instead),
        "prob": None if probs is None else {"least": probs[0], "most": probs[1]},
    }


def go_on(
    trace: TraceReader, settings: dict[str, Any], model: ModelOptions, view: ViewOptions, interrupt: threading.Event
) -> tuple[Run, Finish]:
    """Write the text that these settings give with the model of the run: it verifies the recorded text, many tokens in
    a pass, and goes on where another token comes. Raises TokenglassError."""
    recorded, records = next(split_runs(trace))
    with opening(recorded.prompt) as screen:
        screen.show("reading the run")
        from tokenglass.cli.run import session
        from tokenglass.cli.run.request import plan_caches
        from tokenglass.cli.views.view import Setting, make_view
        from tokenglass.model.decoding.drafts import TextDrafter
        from tokenglass.model.decoding.job import Job
        from tokenglass.model.decoding.speculative import decode_speculative
        from tokenglass.model.runs.run import describe_run

        texts = Texts()
        for _ in watch(records, texts):
            pass
        if recorded.search.is_several:
            raise ParameterError("--continue goes on with one text, and this run has several")
        name = session.settle_view(view)
        opened = session.open_model(as_recorded(model, recorded), screen)
        if recorded.tokenizer_fingerprint and opened.tokenizer_fingerprint != recorded.tokenizer_fingerprint:
            raise ParameterError(f"{opened.name} has another tokenizer than {recorded.model}, which was run")
        if recorded.model_fingerprint and opened.checkpoint.fingerprint != recorded.model_fingerprint:
            say(
                f"note: {opened.name} is not the model that was run, {recorded.model}; "
                "the text may differ from the start"
            )
        sampling = recorded.request.sampling.replace(**settings)
        request = replace(recorded.request, sampling=sampling, top=view.top, use_cache=True)
        loaded = session.load(opened, plan_caches(request, opened), screen)
        run = describe_run(loaded, request, recorded.prompt, identify=name is ViewName.jsonl)
        token_ids = tuple(choice.token_id for choice in texts.choices.get(0, ()) if choice.token_id is not None)
        drafter = TextDrafter(token_ids, recorded.prompt_length)
        shown = make_view(name, Setting(view, interrupt))
        if name is ViewName.live:
            screen.hand_over()
    return run, shown.show(run, decode_speculative(Job.of(loaded, request, interrupt), drafter, SOME))


def as_recorded(model: ModelOptions, run: Run) -> ModelOptions:
    """What the run was computed with, where nothing else is asked for."""
    dtype, quantize, cache_dtype = run.engine.dtype, run.engine.quantize, run.engine.cache_dtype
    if model.model is None:
        model = replace(model, model=run.model, lora=model.lora or list(run.engine.adapters or ()))
    if cache_dtype is not None and cache_dtype in [*CacheDtype] and model.cache_dtype is CacheDtype.auto:
        model = replace(model, cache_dtype=CacheDtype(cache_dtype))
    if model.quantize is Quantize.none and quantize in ("int8", "int4"):
        return replace(model, quantize=Quantize(quantize))
    if dtype is None or dtype not in [*Dtype] or model.dtype is not Dtype.auto:
        return model
    return replace(model, dtype=Dtype(dtype))
