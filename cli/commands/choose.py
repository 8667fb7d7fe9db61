"""choose: which of several answers a model would give, with the exact probability of each."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tokenglass.cli import options
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ServedModelOptions
from tokenglass.cli.terminal.opening import opening
from tokenglass.cli.terminal.terminal import is_terminal

UNEXPECTED = 1  # exit status
Chat = Annotated[
    bool, typer.Option("--chat", help="Apply the chat template; a prompt from stdin may be a JSON list of messages.")
]


@flat
def choose(
    answers: options.Answers = None,
    prompt: options.PromptText = None,
    prompt_file: options.PromptFile = None,
    keep_newline: options.KeepNewline = False,
    chat: Chat = False,
    system: options.System = None,
    by: options.WeighBy = options.By.joint,
    rotate: options.Rotate = False,
    prior: options.Prior = False,
    expect: options.Expect = None,
    as_json: options.Json = False,
    jsonl: options.QuestionLines = False,
    systemone: options.TypedDecisions = False,
    *,
    model: ServedModelOptions,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Choose between answers: the exact probability of each behind a prompt, from one prefill.

    A terminal shows bars and where the answers differ; a pipe gets the best answer and nothing else.
    """
    from tokenglass.cli.run.prompt import read_source, utf8_argument
    from tokenglass.model.errors import ParameterError

    texts = [utf8_argument(answer) for answer in answers or []]
    if as_json + jsonl + systemone > 1:
        raise ParameterError("--json, --jsonl and --systemone exclude each other; give one of them")
    if expect is not None and (jsonl or systemone or expect not in texts):
        raise ParameterError("--expect takes one of the answers that are given as arguments")
    if jsonl and prompt is not None:
        raise ParameterError("--jsonl reads its prompts from --prompt-file or stdin; leave --prompt out")
    if systemone and (texts or rotate):
        raise ParameterError("--systemone takes its answers from the request: no ANSWER, and no --rotate")
    source = None if jsonl else read_source(prompt, prompt_file, keep_newline=keep_newline)
    with opening(source or "") as first:
        from tokenglass.cli.run.choosing import open_asking
        from tokenglass.cli.run.numbered_lines import number_lines, open_lines
        from tokenglass.cli.run.question import Manner, read_prompt_or_messages
        from tokenglass.cli.views import choose as views

        asking, chooser = open_asking(model, source, first, Manner(chat, system, rotate, prior), decides=systemone)
        lines = number_lines(open_lines(prompt_file)) if jsonl else iter(())
        if source is not None and not systemone:
            first.show("reading the prompt and the answers")
            choosing = asking.ask(chooser, read_prompt_or_messages(source, chat=chat and prompt is None), texts)
    if source is None:
        if not views.answer_lines(lines, asking, chooser, texts, by_mean=by is options.By.mean):
            raise typer.Exit(UNEXPECTED)
        return
    if systemone:
        views.answer_request(source, asking, chooser)
        return
    best = choosing.ranking(by is options.By.mean)[0].text
    if as_json:
        views.write_facts(choosing, asking.name, by_mean=by is options.By.mean)
    elif is_terminal(sys.stdout) or color is options.ColorWhen.always:
        views.show(choosing, by_mean=by is options.By.mean, color=color.value)
    else:
        views.write_best(best)
    if expect is not None and best != expect:
        raise typer.Exit(UNEXPECTED)
