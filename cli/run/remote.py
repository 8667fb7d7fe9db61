"""A run that a server writes, made ready: probed, and asked for nothing that it cannot do."""

from __future__ import annotations

import os
import secrets
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from tokenglass.cli.run.prepared import PreparedRun, RunOptions
from tokenglass.cli.say import say
from tokenglass.cli.terminal.opening import Opening
from tokenglass.model.decoding.request import UNKNOWN_PROMPT, Request
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.sampling.parameters import SETTINGS, SamplingParameters
from tokenglass.model.sampling.penalties import read_biases_by_id
from tokenglass.model.sources.server.address import Address
from tokenglass.model.sources.server.client import Client, find_key
from tokenglass.model.sources.server.probe import Server, probe
from tokenglass.model.sources.server.source import PromptSource, describe_served

if TYPE_CHECKING:
    from tokenglass.cli.options.control import ControlOptions
    from tokenglass.cli.options.model import ServedModelOptions
    from tokenglass.cli.options.prompt import PromptOptions
    from tokenglass.cli.options.sampling import SamplingOptions
    from tokenglass.cli.options.view import ViewOptions
    from tokenglass.model.sources.server.api import Api, Prompt

HONOURED = {  # options of `generate` that every server can do, or that are about what is shown; by group
    "prompt": {"prompt", "prompt_option", "prompt_file", "keep_newline", "echo", "chat", "system"},
    "control": {"max_new_tokens", "max_time", "stop", "min_new_tokens", "ignore_eos"},
    "search": {"separator", "null"},
    "mode": set[str](),
    "view": {"view", "jsonl", "candidates", "panel", "color_by", "speed", "pause", "stats", "quiet", "color"},
    "model": {"model", "remote_model"},
    "passes": set[str](),
    "cache": set[str](),
}


def open_server(model: ServedModelOptions, opening: Opening) -> Server:
    """The server that -m names. Raises TokenglassError."""
    assert model.model is not None
    address = Address.parse(model.model)
    client = Client(address, find_key(address, os.environ))
    opening.show(f"asking {address.name} what it serves")
    return probe(client, model.remote_model)


def prepare_remote(text: str, options: RunOptions, opening: Opening) -> PreparedRun:
    """Raises ParameterError for an option that no server, or not this one, honours; PromptError, ServerError."""
    for group, honoured in HONOURED.items():
        refuse_others(getattr(options, group), honoured)
    server = open_server(options.model, opening)
    prompt = PromptSource(server, read_chat(text, options.prompt))
    request = options.keeper.widen(build_request(server, options.control, options.sampling, options.view.top))
    source, request = prompt.read(request)
    tell_limit(server, source.prompt, request.top, options.view)
    run = describe_served(server, request, options.prompt.display_text(text))
    return PreparedRun(run=run, request=request, source=source)


def tell_limit(server: Server, prompt: Prompt, wanted: int, view: ViewOptions) -> None:
    """A note where the server reports fewer candidates than are wanted."""
    reported = server.api.num_candidates(prompt, wanted)
    if reported < wanted and not view.quiet:
        say(f"note: {server.address} reports {reported} candidates a token at most")


def refuse_others(group: Any, honoured: set[str]) -> None:
    """Raises ParameterError for an option that is given and not honoured."""
    for field in fields(group):
        if field.name not in honoured and getattr(group, field.name) != field.default:
            raise ParameterError(
                f"{flag_of(group, field.name)} is not for a server; it works with a model that is here"
            )


def flag_of(group: Any, name: str) -> str:
    """The option as it is typed; Typer takes the first of its names for a default until it builds the command."""
    _, option = get_args(get_type_hints(type(group), include_extras=True)[name])
    flags = [str(flag) for flag in (option.default, *option.param_decls)]
    return max((flag for flag in flags if flag.startswith("--")), key=len)


def read_chat(text: str, options: PromptOptions) -> Prompt:
    """The prompt, or with --chat the messages. Raises PromptError, ParameterError."""
    if options.chat and not options.parts and text.lstrip().startswith("["):
        from tokenglass.model.text.chat import parse_messages

        return with_system(parse_messages(text), options)
    return with_system(text, options)


def with_system(prompt: Prompt, options: PromptOptions) -> Prompt:
    """A text, or with --chat the messages, those of the options before them. Raises PromptError, ParameterError."""
    if not prompt:
        raise PromptError("the prompt is empty; give at least one character")
    if isinstance(prompt, str) and not options.chat:
        if options.system is not None:
            raise ParameterError("--system is part of a chat; add --chat")
        return prompt
    from tokenglass.model.text.chat import Message

    said = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return said if options.system is None else (Message("system", options.system), *said)


def build_request(server: Server, control: ControlOptions, sampling: SamplingOptions, top: int) -> Request:
    """What the options ask of this server, of a prompt that is still to be read. Raises ParameterError."""
    api = server.api
    for name in ("min_new_tokens", "ignore_eos"):
        if getattr(control, name) and name not in api.controls:
            raise ParameterError(f"--{name.replace('_', '-')} is nothing that {api.name} can be asked for")
    seed = secrets.randbits(31) if sampling.seed is None else sampling.seed
    if seed > api.most_seed:
        raise ParameterError(f"--seed {seed}: {api.name} takes seeds up to {api.most_seed}")
    return Request(
        prompt_ids=UNKNOWN_PROMPT,
        seed=seed,
        sampling=sampling_parameters(sampling, api),
        max_new_tokens=control.max_new_tokens or control.DEFAULT_LENGTH,
        min_new_tokens=control.min_new_tokens or 0,
        ignore_eos=control.ignore_eos,
        max_seconds=control.max_time,
        stops=tuple(control.stop or ()),
        top=top,
    )


def sampling_parameters(options: SamplingOptions, api: Api) -> SamplingParameters:
    """Our own defaults, overridden by what was given. Raises ParameterError for what this server has no name for."""
    from tokenglass.model.sampling.chain import describe_chain

    if options.samplers is not None:
        raise ParameterError("--samplers is not for a server, which has an order of its own")
    for name, value in options.settings.items():
        is_known = name in api.settings or (name == "logit_bias" and api.has_bias)
        if value != SETTINGS[name].off and not is_known:
            raise ParameterError(f"{SETTINGS[name].flags[-1]} is nothing that {api.name} can be asked for")
    values = dict(options.settings)
    if "logit_bias" in values:
        values["logit_bias"] = read_biases_by_id(values["logit_bias"])
    parameters = SamplingParameters(**values)
    if idle := parameters.idle(options.settings):
        raise ParameterError("{} has no effect here; it needs {}".format(*idle))
    if options.show_chain:
        for name, settings in describe_chain(parameters):
            say(f"{name:<19} {settings}")
    return parameters
