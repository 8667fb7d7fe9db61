"""From the options of a command to the request that decoding is given."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tokenglass.cli.options.control import ControlOptions
from tokenglass.cli.options.passes import PassOptions
from tokenglass.cli.options.prompt import PromptOptions, Side
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.cli.options.search import SearchOptions
from tokenglass.cli.options.view import ViewOptions
from tokenglass.cli.run.prompt import STDIN
from tokenglass.cli.say import say
from tokenglass.model.config.fields import shown_name
from tokenglass.model.decoding.request import Request, check_length, truncate
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.sampling.parameters import SamplingParameters

if TYPE_CHECKING:
    from tokenglass.model.engine.memory import Caches
    from tokenglass.model.loaded_model import OpenedModel
    from tokenglass.model.text.chat import ChatTemplate, Message
    from tokenglass.model.text.tokenizer import Tokenizer


def read_request(
    opened: OpenedModel,
    text: str,
    prompt: PromptOptions,
    control: ControlOptions,
    sampling: SamplingOptions,
    search: SearchOptions,
    view: ViewOptions,
    passes: PassOptions,
) -> Request:
    """All that the options of `generate` ask for. Raises ParameterError, PromptError, TemplateError."""
    from tokenglass.cli.run.several import check_several

    prompt_ids = fit(opened, encode(opened, text, prompt), control, prompt.truncate)
    request = build_request(opened, prompt_ids, control, sampling, passes, view.top, chat=prompt.chat)
    request = add_negative(request, opened, prompt, search)
    if prompt.heal:
        request = heal_prompt(request, opened.tokenizer)
    return check_several(request, search, view) if search.is_several else request


def build_request(
    opened: OpenedModel,
    prompt_ids: tuple[int, ...],
    control: ControlOptions,
    sampling: SamplingOptions,
    passes: PassOptions,
    top: int,
    *,
    chat: bool = False,
    notes: bool = True,
) -> Request:
    """What the options ask for, of a text or of a turn in a chat; `notes` tell what is not applied.

    Raises ParameterError, PromptError.
    """
    from tokenglass.cli.run.constraint import read_constraint

    checkpoint = opened.checkpoint.generation_config
    most, least = lengths(opened, control, len(prompt_ids))
    return Request(
        prompt_ids=prompt_ids,
        seed=secrets.randbits(32) if sampling.seed is None else sampling.seed,
        sampling=sampling_parameters(opened, sampling, notes=notes),
        max_new_tokens=most,
        min_new_tokens=least,
        ignore_eos=control.ignore_eos,
        max_seconds=checkpoint.max_seconds if control.max_time is None else control.max_time,
        stops=tuple(control.stop) if control.stop else checkpoint.stop_strings,
        bans=tuple(control.ban or ()),
        constraint=read_constraint(control),
        eos_token_ids=opened.turn_end_ids if chat else opened.eos_token_ids,
        top=top,
        prefill_chunk=passes.prefill_chunk,
        use_cache=not passes.no_cache,
    )


def heal_prompt(request: Request, tokenizer: Tokenizer) -> Request:
    """The request with its prompt's last token to be chosen anew."""
    from tokenglass.model.decoding.healing import heal

    prompt_ids, piece = heal(tokenizer, request.prompt_ids)
    return replace(request, prompt_ids=prompt_ids, healed=piece)


def add_negative(request: Request, opened: OpenedModel, prompt: PromptOptions, search: SearchOptions) -> Request:
    """The request with a negative prompt beside its own, where one is given. Raises ParameterError."""
    if search.negative is None:
        if search.guidance != 1:
            raise ParameterError("--guidance needs a prompt to be guided away from; add --negative TEXT")
        return request
    if search.guidance == 1:
        raise ParameterError("--negative does nothing at --guidance 1; try --guidance 1.5")
    negative_ids = encode(opened, search.negative, replace(prompt, prompt=[search.negative], prompt_option=None))
    return replace(
        request, negative_ids=negative_ids, sampling=request.sampling.replace(guidance_scale=search.guidance)
    )


def plan_caches(request: Request, opened: OpenedModel, rows: int = 1) -> Caches:
    """What a run will keep: a row for each text, and as many for a negative prompt."""
    from tokenglass.model.engine.memory import Caches

    negative = len(request.negative_ids) + request.max_new_tokens if request.negative_ids else 0
    return Caches(request.planned_length(opened.limit), rows, min(negative, opened.limit))


def encode(opened: OpenedModel, text: str, prompt: PromptOptions) -> tuple[int, ...]:
    """The prompt's token ids; with --chat, of a conversation: one message, or on stdin a JSON list.

    Raises PromptError, ParameterError, TemplateError.
    """
    if not text and (prompt.chat or not prompt.parts or STDIN in prompt.parts):
        raise PromptError("the prompt is empty; give at least one character")
    if not prompt.chat:
        return encode_text(opened, text, prompt)
    from tokenglass.model.text.chat import ChatTemplate, Message, parse_messages

    is_list = not prompt.parts and text.lstrip().startswith("[")
    messages = parse_messages(text) if is_list else (Message("user", text),)
    return encode_chat(opened, messages, prompt, ChatTemplate.from_folder(opened.checkpoint.folder))


def encode_text(opened: OpenedModel, text: str, prompt: PromptOptions) -> tuple[int, ...]:
    """A text without a template. Raises PromptError, ParameterError."""
    for name, value in (("--system", prompt.system), ("--prefill-response", prompt.prefill_response)):
        if value is not None:
            raise ParameterError(f"{name} is part of a chat; add --chat")
    if not text and not opened.tokenizer.start_ids:
        raise PromptError(f"the prompt is empty, and {opened.name} has no start token; give at least one character")
    return text_alone(opened, opened.tokenizer.encode(text) if text else opened.tokenizer.start_ids)


def encode_chat(
    opened: OpenedModel, messages: Sequence[Message], prompt: PromptOptions, template: ChatTemplate
) -> tuple[int, ...]:
    """A conversation behind the system message of the options, up to how they let the answer begin. Raises
    TemplateError, PromptError."""
    from tokenglass.model.text.chat import Message

    opening = () if prompt.system is None else (Message("system", prompt.system),)
    begun = prompt.prefill_response or ""
    return text_alone(opened, template.encode((*opening, *messages), opened.tokenizer, begun=begun))


def text_alone(opened: OpenedModel, prompt_ids: tuple[int, ...]) -> tuple[int, ...]:
    """The same token ids. Raises PromptError where one of them stands for an image or a sound."""
    config = opened.checkpoint.config
    if media := set(config.media_token_ids).intersection(prompt_ids):
        name = shown_name(opened.tokenizer.piece(min(media)).decode(errors="replace"))
        raise PromptError(
            f"the prompt holds {name}, an image or a sound; only the text part of {config.wrapper} runs here"
        )
    return prompt_ids


def lengths(opened: OpenedModel, control: ControlOptions, prompt_length: int) -> tuple[int, int]:
    """How many new tokens there are at most and at least. Raises ParameterError, PromptError."""
    checkpoint = opened.checkpoint.generation_config
    most, least = control.max_new_tokens, control.min_new_tokens
    if most is None:
        most = checkpoint.max_new_tokens(prompt_length, control.DEFAULT_LENGTH)
    if least is None:
        least = min(checkpoint.min_new_tokens(prompt_length), most)
    return most, least


def fit(
    opened: OpenedModel, prompt_ids: tuple[int, ...], control: ControlOptions, side: Side | None
) -> tuple[int, ...]:
    """Token ids cut to the context only where that was asked for. Raises PromptError."""
    limit = opened.limit
    if side is not None:
        room = max(limit - control.planned_length, limit // 2)
        prompt_ids = truncate(prompt_ids, room, side.value, keep=len(opened.tokenizer.start_ids))
    check_length(prompt_ids, limit)
    return prompt_ids


def sampling_parameters(opened: OpenedModel, options: SamplingOptions, *, notes: bool = True) -> SamplingParameters:
    """The checkpoint's defaults, overridden by what was given; `notes` tell what is not applied.

    Raises ParameterError.
    """
    from tokenglass.model.sampling.chain import describe_chain

    checkpoint = opened.checkpoint.generation_config
    for note in checkpoint.notes if notes else ():
        say(f"note: {note}")
    parameters = checkpoint.sampling(**options.values(opened.tokenizer, opened.vocab_size))
    if idle := parameters.idle(options.settings):
        raise ParameterError("{} has no effect here; it needs {}".format(*idle))
    if options.show_chain:
        for name, settings in describe_chain(parameters):
            say(f"{name:<19} {settings}")
    return parameters
