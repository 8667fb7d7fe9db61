"""From the options of a command to the request that decoding is given."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.options.prompt import PromptOptions, Side
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.say import say
from tokenglass.model.decoding.request import Request, check_length, truncate
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.sampling.parameters import SamplingParameters

if TYPE_CHECKING:
    from pathlib import Path

    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.loading import LoadedModel
    from tokenglass.model.text.tokenizer import Tokenizer


def build_request(
    loaded: LoadedModel,
    prompt_ids: tuple[int, ...],
    control: ControlOptions,
    sampling: SamplingOptions,
    model: ModelOptions,
    top: int,
    *,
    chat: bool = False,
) -> Request:
    """What the options ask for, of a text or of a turn in a chat. Raises ParameterError, PromptError."""
    from tokenglass.cli.run.constraint import read_constraint

    checkpoint = loaded.checkpoint.generation_config
    most, least = lengths(loaded, control, len(prompt_ids))
    return Request(
        prompt_ids=prompt_ids,
        seed=secrets.randbits(32) if sampling.seed is None else sampling.seed,
        sampling=sampling_parameters(loaded, sampling),
        max_new_tokens=most,
        min_new_tokens=least,
        ignore_eos=control.ignore_eos,
        max_seconds=checkpoint.max_seconds if control.max_time is None else control.max_time,
        stops=tuple(control.stop) if control.stop else checkpoint.stop_strings,
        bans=tuple(control.ban or ()),
        constraint=read_constraint(control),
        eos_token_ids=loaded.turn_end_ids if chat else loaded.eos_token_ids,
        top=top,
        prefill_chunk=model.prefill_chunk,
        use_cache=not model.no_cache,
    )


def healed(request: Request, tokenizer: Tokenizer) -> Request:
    """The request with its prompt's last token to be chosen anew."""
    from tokenglass.model.decoding.healing import heal

    prompt_ids, piece = heal(tokenizer, request.prompt_ids)
    return replace(request, prompt_ids=prompt_ids, healed=piece)


def guided(request: Request, loaded: LoadedModel, prompt: PromptOptions, search: SearchOptions) -> Request:
    """The request with a negative prompt beside its own, where one is given. Raises ParameterError."""
    if search.negative is None:
        if search.guidance != 1:
            raise ParameterError("--guidance needs a prompt to be guided away from; add --negative TEXT")
        return request
    if search.guidance == 1:
        raise ParameterError("--negative does nothing at --guidance 1; try --guidance 1.5")
    tokenizer, folder = loaded.tokenizer, loaded.checkpoint.folder
    negative_ids = encode(tokenizer, folder, search.negative, replace(prompt, prompt=[search.negative]))
    return replace(
        request, negative_ids=negative_ids, sampling=request.sampling.replace(guidance_scale=search.guidance)
    )


def caches(tokenizer: Tokenizer, prompt_length: int, new_tokens: int, search: SearchOptions) -> Caches:
    """What a run will keep: a row for each text, and as many for a negative prompt. Raises PromptError."""
    from tokenglass.model.engine.memory import Caches

    negative = 0 if search.negative is None else new_tokens + len(tokenizer.encode(search.negative))
    return Caches(prompt_length + new_tokens, max(search.num_samples, search.beams), negative)


def encode(tokenizer: Tokenizer, folder: Path, text: str, prompt: PromptOptions) -> tuple[int, ...]:
    """The prompt's token ids; with --chat, of a conversation: one message, or on stdin a JSON list.

    Raises PromptError, ParameterError, TemplateError.
    """
    if not text:
        raise PromptError("the prompt is empty; give at least one character")
    if not prompt.chat:
        for name, value in (("--system", prompt.system), ("--prefill-response", prompt.prefill_response)):
            if value is not None:
                raise ParameterError(f"{name} is part of a chat; add --chat")
        return tokenizer.encode(text)
    from tokenglass.model.text.chat import ChatTemplate, Message, parse_messages

    is_list = not prompt.prompt and text.lstrip().startswith("[")
    said = parse_messages(text) if is_list else (Message("user", text),)
    opening = () if prompt.system is None else (Message("system", prompt.system),)
    template = ChatTemplate.from_folder(folder)
    return template.encode((*opening, *said), tokenizer, begun=prompt.prefill_response or "")


def lengths(loaded: LoadedModel, control: ControlOptions, prompt_length: int) -> tuple[int, int]:
    """How many new tokens there are at most and at least. Raises ParameterError, PromptError."""
    checkpoint = loaded.checkpoint.generation_config
    most, least = control.max_new_tokens, control.min_new_tokens
    if most is None:
        most = checkpoint.max_new_tokens(prompt_length, control.DEFAULT_LENGTH)
    if least is None:
        least = min(checkpoint.min_new_tokens(prompt_length), most)
    return most, least


def fit(
    loaded: LoadedModel, prompt_ids: tuple[int, ...], control: ControlOptions, side: Side | None
) -> tuple[int, ...]:
    """Token ids cut to the context only where that was asked for. Raises PromptError."""
    limit = loaded.engine.limit
    if side is not None:
        room = max(limit - control.planned_length, limit // 2)
        prompt_ids = truncate(prompt_ids, room, side.value, keep=len(loaded.tokenizer.start_ids))
    check_length(prompt_ids, limit)
    return prompt_ids


def sampling_parameters(loaded: LoadedModel, options: SamplingOptions) -> SamplingParameters:
    """The checkpoint's defaults, overridden by what was given; what is not applied is told. Raises ParameterError."""
    from tokenglass.model.sampling.chain import describe_chain

    checkpoint = loaded.checkpoint.generation_config
    for note in checkpoint.notes:
        say(f"note: {note}")
    parameters = checkpoint.sampling(**options.values(loaded.tokenizer, loaded.engine.vocab_size))
    if options.show_chain:
        for name, settings in describe_chain(parameters):
            say(f"{name:<19} {settings}")
    return parameters
