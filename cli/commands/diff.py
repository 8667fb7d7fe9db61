"""diff: where two models or two kept runs part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tokenglass.cli import options
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.two_models import FirstModelOptions, SecondModelOptions, two_models
from tokenglass.cli.options.what_if import TwoSettings
from tokenglass.cli.terminal.opening import Opening, opening
from tokenglass.model.errors import ParameterError

if TYPE_CHECKING:
    from tokenglass.cli.views.diff import Diff
    from tokenglass.model.sampling.parameters import SamplingParameters

Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help="Two traces; or one text for two models, - is stdin.")
]
Worst = Annotated[int, typer.Option("--worst", min=0, max=1000, help="How many of the tokens that differ most.")]


@flat
def diff(
    files: Files,
    settings: TwoSettings,
    worst: Worst = 10,
    as_json: options.Json = False,
    *,
    model: FirstModelOptions,
    against: SecondModelOptions,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Compare two kept runs, or one text under two models, dtypes, quantisations or settings, token by token.

    Examples:
      tokenglass diff one.jsonl other.jsonl
      tokenglass diff book.txt -m smollm2 --against-quantize int4
      tokenglass diff book.txt -m smollm2 --lora ./my-adapter
      tokenglass diff book.txt --temperature 0.8 --against-top-p 0.9
    """
    if len(files) > 2:
        raise ParameterError("diff compares two traces, or one text under two models")
    first, second = two_models(model, against)
    if settings.are_given and (len(files) == 2 or first != second):
        raise ParameterError("settings of the samplers are compared on one text in one model; leave the others out")
    if len(files) == 1 and first == second and len(set(settings.both)) == 1:
        raise ParameterError(
            "name the other trace, or what is another in the second, such as --against-quantize int4 or "
            "--against-temperature 1.2"
        )
    with opening() as screen:
        screen.show("reading")
        if second.lora and first.model is None:
            from tokenglass.cli.run.adapters import base_folder, open_adapters

            base = str(base_folder(None, open_adapters(second.lora), screen))
            first, second = replace(first, model=base), replace(second, model=second.model or base)
        from tokenglass.cli.views.diff import show
        from tokenglass.model.sources.server.address import is_address

        if len(files) == 2:
            difference = of_two_traces(*files)
        elif settings.are_given:
            difference = under_two_settings(files[0], first, settings.both, screen)
        elif is_address(first.model) or is_address(second.model):
            from tokenglass.cli.run.served_diff import compare_served

            difference = compare_served(files[0], first, second, screen)
        else:
            difference = in_two_models(files[0], first, second, screen)
    show(difference, count=worst, as_json=as_json, color=color.value)


def of_two_traces(first: str, second: str) -> Diff:
    """Raises TraceError, ParameterError for runs of other prompts."""
    from tokenglass.cli.run.rescore import column_of, read_text
    from tokenglass.cli.views.diff import Diff
    from tokenglass.model.measuring.difference import compare_texts

    (run, one), (other_run, other) = read_text(first), read_text(second)
    if run.request.prompt_ids != other_run.request.prompt_ids:
        raise ParameterError(f"{first} and {second} have other prompts; runs are compared behind the same one")
    return Diff((column_of(run), column_of(other_run)), (one, other), list(compare_texts(one, other)))


def in_two_models(file: str, first: ModelOptions, second: ModelOptions, screen: Opening) -> Diff:
    """Raises TokenglassError."""
    from tokenglass.cli.run import session
    from tokenglass.cli.run.rescore import column_of_model
    from tokenglass.cli.run.texts import read_texts
    from tokenglass.cli.views.diff import Diff
    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.measuring.difference import compare_models
    from tokenglass.model.measuring.scoring import LOGITS, GivenText

    ((_, text),) = read_texts([file], keep_newline=False)
    opened = [session.open_model(each, screen) for each in (first, second)]
    if opened[0].tokenizer_fingerprint != opened[1].tokenizer_fingerprint:
        raise ParameterError(
            f"{opened[0].name} and {opened[1].name} have other tokenizers; their tokens do not compare"
        )
    content = GivenText.encode(opened[0].tokenizer, text)
    caches = Caches(min(len(content.token_ids), opened[0].limit), beside=LOGITS)
    one, other = (session.load(each, caches, screen) for each in opened)
    screen.show("comparing")
    pairs = list(compare_models(one.engine, other.engine, one.tokenizer, content.token_ids))
    texts = ([each.first for each in pairs], [each.second for each in pairs])
    return Diff((column_of_model(one), column_of_model(other)), texts, pairs)


def under_two_settings(
    file: str, model: ModelOptions, settings: tuple[SamplingParameters, SamplingParameters], screen: Opening
) -> Diff:
    """The final distributions that two settings of the samplers leave on one text. Raises TokenglassError."""
    from tokenglass.cli.run import session, summary
    from tokenglass.cli.run.texts import read_texts
    from tokenglass.cli.views.diff import Diff
    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.measuring.difference import compare_settings
    from tokenglass.model.measuring.scoring import LOGITS, GivenText

    ((_, text),) = read_texts([file], keep_newline=False)
    opened = session.open_model(model, screen)
    content = GivenText.encode(opened.tokenizer, text)
    loaded = session.load(opened, Caches(min(len(content.token_ids), opened.limit), beside=LOGITS), screen)
    screen.show("comparing")
    pairs = list(compare_settings(loaded.engine, loaded.tokenizer, content.token_ids, settings))
    first, second = (", ".join(summary.settings(each)) for each in settings)
    texts = ([each.first for each in pairs], [each.second for each in pairs])
    return Diff((first, second), texts, pairs, is_final=True)
