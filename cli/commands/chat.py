"""chat: a conversation of several turns that keeps its cache."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli import options
from cli.say import say
from model.errors import TokenglassError

if TYPE_CHECKING:
    from model.conversation import Conversation

HELP = "/clear forgets the conversation, /save FILE writes it as JSON, /help shows this; Ctrl-D ends"


def chat(
    model: options.ModelName = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = 512,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    seed: options.Seed = None,
    view: options.View = options.ViewName.auto,
    top: options.Top = 5,
    panel: options.Panel = options.PanelSize.slim,
    color_by: options.ColorByOption = options.ColorBy.none,
    stats: options.Stats = False,
    color: options.Color = options.ColorWhen.auto,
    dtype: options.DtypeOption = options.Dtype.auto,
    device: options.DeviceOption = options.Device.auto,
    threads: options.Threads = None,
    debug: options.Debug = False,
) -> None:
    """Talk with a chat model, turn by turn.

    Only what is new is computed at each turn. /clear, /save FILE and /help work at the prompt; Ctrl-C stops an answer,
    Ctrl-D ends.
    """
    from cli import session
    from cli.interrupts import soft_interrupt
    from cli.model_folder import model_folder
    from cli.progress import loading_bar
    from cli.summary import summary
    from model.chat import ChatTemplate, Message
    from model.conversation import Conversation
    from model.decoding.request import Request
    from model.engine import set_threads
    from model.loading import load_model

    name = session.settle_view(view, jsonl=False)
    used_threads = set_threads(threads)
    loaded = load_model(
        model_folder(model), dtype=dtype, device=device, watch=loading_bar, length=lambda _: max_new_tokens
    )
    opening = () if system is None else (Message("system", system),)
    template = ChatTemplate.from_folder(loaded.checkpoint.folder)
    conversation = Conversation(loaded.engine, loaded.tokenizer, template, opening)
    sampling = session.choose_sampling(loaded, temperature, top_k, top_p, min_p)
    seed = secrets.randbits(32) if seed is None else seed
    interactive = sys.stdin is not None and sys.stdin.isatty()
    if interactive:
        say(f"{loaded.name}, seed {seed}. {HELP}")
    while (line := read_line(interactive)) is not None:
        if line.startswith("/"):
            say(obey(line, conversation))
            continue
        if not line.strip():
            continue
        try:
            prompt_ids = conversation.prompt_ids(line)
            request = Request(
                prompt_ids=session.fit(loaded, prompt_ids, max_new_tokens, None),
                seed=seed,
                sampling=sampling,
                max_new_tokens=max_new_tokens,
                eos_token_ids=loaded.eos_token_ids,
                top=top,
            )
        except TokenglassError as error:
            if not interactive:
                raise
            say(f"{error}; /clear begins anew")
            continue
        reused = conversation.reuse(request.prompt_ids, request.planned_length(loaded.engine.limit))
        run = session.describe(loaded, "", request, used_threads)
        with soft_interrupt() as interrupt:
            shown = session.make_view(
                name, color=color, echo=False, panel=panel, color_by=color_by, pause=False, interrupt=interrupt
            )
            finish = shown.show(run, conversation.answer(line, request, interrupt))
        if not sys.stdout.isatty():
            print(flush=True)  # one answer after another
        if interactive or stats:
            say(f"({reused:,} of {len(request.prompt_ids):,} prompt positions reused)")
        if stats:
            say(summary(run, finish))


def read_line(interactive: bool) -> str | None:
    """The next line of the user, or None at the end. Ctrl-C on a line empties it."""
    from cli.prompt import decode

    if not interactive:
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        return decode(line, "stdin", keep_newline=False) if line else None
    import contextlib

    with contextlib.suppress(ImportError):  # line editing and history, where the platform has them
        import readline  # noqa: F401  (input() uses it once it is imported)
    while True:
        try:
            return input("> ")
        except EOFError:
            say("")
            return None
        except KeyboardInterrupt:
            say("")


def obey(line: str, conversation: Conversation) -> str:
    """Carry out a line that begins with a slash; what to say about it."""
    import json

    command, _, argument = line.strip().partition(" ")
    if command == "/clear":
        conversation.clear()
        return "the conversation is forgotten"
    if command == "/save" and argument:
        messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
        try:
            Path(argument).expanduser().write_text(json.dumps(messages, ensure_ascii=False, indent=2) + "\n", "utf-8")
        except OSError as error:
            return f"{argument}: {error.strerror}"
        return f"{len(messages)} messages written to {argument}"
    return HELP if command == "/help" else f"unknown command {command}; {HELP}"
