"""flow: what each earlier token and each layer did to one choice."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenglass.cli.options.common import Debug
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import PANEL as MODEL
from tokenglass.cli.options.model import Backend, CacheDtype, Dtype, ModelOptions
from tokenglass.cli.options.prompt import KeepNewline, PromptFile
from tokenglass.cli.options.view import Color, ColorWhen
from tokenglass.cli.say import say, write_json
from tokenglass.cli.terminal.opening import opening
from tokenglass.cli.text import plural
from tokenglass.model.files import expand_home

if TYPE_CHECKING:
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.inspection.reading import Reading
    from tokenglass.model.inspection.records import Flow
    from tokenglass.model.loaded_model import LoadedModel
    from tokenglass.model.records.steps import Choice

WHICH, SHOWN = "Which token", "What is shown"
Text = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Text to examine; parts are joined by newlines, - is stdin."),
]
NewTokens = Annotated[
    int,
    typer.Option(
        "-n", "--max-new-tokens", min=0, help="Continue the text first, by this many tokens.", rich_help_panel=WHICH
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**64 - 1, help="For -n: same seed, same text.", rich_help_panel=WHICH)
]
Temperature = Annotated[
    float | None, typer.Option("-t", "--temperature", min=0, help="For -n: 0 is greedy.", rich_help_panel=WHICH)
]
At = Annotated[
    int | None,
    typer.Option(
        "--at", min=1, help="The token at this position, counted from 0; else the last.", rich_help_panel=WHICH
    ),
]
Interactive = Annotated[
    bool, typer.Option("-i", "--interactive", help="Walk along the text with the arrow keys.", rich_help_panel=SHOWN)
]
Total = Annotated[
    bool,
    typer.Option("--total", help="Also recompute the text without each token in turn (slow).", rich_help_panel=SHOWN),
]
Jsonl = Annotated[
    bool, typer.Option("--jsonl", help="A line of JSON per token: with -n, each new one.", rich_help_panel=SHOWN)
]
Svg = Annotated[
    Path | None, typer.Option("--svg", metavar="FILE", help="Save the picture instead.", rich_help_panel=SHOWN)
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="A new page for a browser instead: every token, or with -n each new one, and what made it.",
        rich_help_panel=SHOWN,
    ),
]
Rows = Annotated[int, typer.Option("--rows", min=2, max=1000, help="Rows of each table.", rich_help_panel=SHOWN)]
FlowDtype = Annotated[
    Dtype, typer.Option("--dtype", help="In float32 the sums are exact to 0.0001.", rich_help_panel=MODEL)
]


@dataclass(frozen=True, slots=True)
class ModelInTorch(ModelOptions):
    """The kernels have nothing to look into."""

    dtype: FlowDtype = Dtype.float32
    backend: Backend = field(default=Backend.torch, init=False)
    cache_dtype: CacheDtype = field(default=CacheDtype.auto, init=False)


@flat
def flow(
    text: Text = None,
    max_new_tokens: NewTokens = 0,
    at: At = None,
    seed: Seed = 0,
    temperature: Temperature = None,
    interactive: Interactive = False,
    total: Total = False,
    rows: Rows = 12,
    jsonl: Jsonl = False,
    svg: Svg = None,
    html: Html = None,
    color: Color = ColorWhen.auto,
    prompt_file: PromptFile = None,
    keep_newline: KeepNewline = False,
    *,
    model: ModelInTorch,
    debug: Debug = False,
) -> None:
    """Show what made a token: which earlier tokens, and which layers.

    The numbers are exact, each named for what it is. Without -n the text itself is examined, as the model reads it.
    """
    from tokenglass.cli.run.prompt import read_prompt
    from tokenglass.cli.terminal.terminal import supports_live
    from tokenglass.model.errors import ParameterError

    if sum((interactive, jsonl, svg is not None, html is not None)) > 1:
        raise ParameterError("--interactive, --jsonl, --svg and --html exclude each other")
    if html is not None:
        from tokenglass.cli.run.page_file import PageFile

        page = PageFile(expand_home(str(html)))
    content = read_prompt(text or [], prompt_file, keep_newline=keep_newline)
    if interactive and not supports_live(sys.stdout, sys.stderr):
        raise ParameterError("--interactive needs a terminal of at least 20 columns and 6 lines; leave it out")
    with opening(content) as first:
        from tokenglass.cli.run import session
        from tokenglass.cli.terminal.console import make_console
        from tokenglass.model.engine.memory import Caches
        from tokenglass.model.records.codec import to_dict

        opened = session.open_model(model, first)
        loaded = session.load(opened, Caches(len(opened.tokenizer.encode(content)) + max_new_tokens), first)
        first.show(f"writing {plural(max_new_tokens, 'token')}" if max_new_tokens else "looking into the text")
        reading, request, choices = read(loaded, content, max_new_tokens, seed, temperature)
        last = len(reading.token_ids) - 1
        position = last if at is None else at

        def look(position: int) -> Flow:
            return reading.at(position, total=total)

        if html is not None:
            from tokenglass.cli.views.flow_run import flow_run, keep_flow

            first.show("looking into every token")
            keep_flow(
                page,
                flow_run(loaded, content, request, choices, reading.token_ids),
                look,
                range(1, last + 1) if at is None else [at],
            )
        elif not jsonl:
            first.show("recomputing the text without each token" if total else "looking into the text")
            with patience(total and not first.is_shown):
                picture = look(position)
    if jsonl:
        for each in range(last if request is None else len(request.prompt_ids), last + 1) if at is None else [at]:
            write_json({"record": "flow", **to_dict(look(each))})
    elif svg is not None:
        from tokenglass.cli.views.flow_picture import flow_picture

        svg.write_text(flow_picture(picture, limit=rows), encoding="utf-8")
        say(f"wrote {svg}")
    elif html is not None:
        page.write()
        say(f"wrote {html}")
    elif interactive:
        from tokenglass.cli.views.flow import FlowView

        FlowView(make_console(sys.stdout, color=color.value), look, last).show(position)
    else:
        from tokenglass.cli.widgets.flow_page import FlowPage, styles_of

        console = make_console(sys.stdout, color=color.value)
        console.print(FlowPage(picture, styles_of(console), rows))


def read(
    loaded: LoadedModel, text: str, new_tokens: int, seed: int, temperature: float | None
) -> tuple[Reading, Request | None, Iterable[Choice]]:
    """The text, and where it was to be continued how, and with which tokens. Raises PromptError."""
    from tokenglass.model.decoding.autoregressive import decode
    from tokenglass.model.decoding.job import Job
    from tokenglass.model.decoding.request import Request
    from tokenglass.model.errors import PromptError
    from tokenglass.model.inspection.reading import Reading
    from tokenglass.model.records.steps import Choice, Step
    from tokenglass.model.torch_engine.engine import TorchEngine

    assert isinstance(loaded.engine, TorchEngine), "loaded for torch"
    if not text:
        raise PromptError("the text is empty; give at least two words")
    token_ids, planned_length = list(loaded.tokenizer.encode(text)), None
    request, choices = None, list[Choice]()
    if new_tokens:
        chosen = {} if temperature is None else {"temperature": temperature}
        sampling = loaded.checkpoint.generation_config.sampling(**chosen)
        request = Request(
            tuple(token_ids), seed, sampling, max_new_tokens=new_tokens, eos_token_ids=loaded.eos_token_ids
        )
        planned_length = request.planned_length(loaded.engine.limit)
        for record in decode(Job.of(loaded, request)):
            if isinstance(record, Step):
                choices += record.choices
        token_ids += [choice.token_id for choice in choices if choice.token_id is not None]
    reading = Reading(loaded.engine, token_ids, loaded.tokenizer.piece, planned_length=planned_length)
    return reading, request, choices


@contextmanager
def patience(slow: bool) -> Iterator[None]:
    """A word on stderr where somebody waits for something slow."""
    from tokenglass.cli.terminal.console import make_console
    from tokenglass.cli.terminal.terminal import is_terminal

    if not (slow and is_terminal(sys.stderr)):
        yield
        return
    with make_console(sys.stderr, color="auto").status("recomputing the text without each token"):
        yield
