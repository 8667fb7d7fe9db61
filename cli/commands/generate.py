"""generate: continue a prompt."""

from __future__ import annotations

import secrets

import typer

from cli import options
from cli.say import say

INTERRUPTED = 130


def generate(
    prompt: options.Prompt = None,
    max_new_tokens: options.MaxNewTokens = 256,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    seed: options.Seed = None,
    view: options.View = options.ViewName.auto,
    jsonl: options.Jsonl = False,
    top: options.Top = 5,
    panel: options.Panel = options.PanelSize.full,
    color_by: options.ColorByOption = options.ColorBy.none,
    pause: options.Pause = False,
    stats: options.Stats = False,
    color: options.Color = options.ColorWhen.auto,
    prompt_file: options.PromptFile = None,
    keep_newline: options.KeepNewline = False,
    truncate_side: options.Truncate = None,
    echo: options.Echo = False,
    chat: options.Chat = False,
    system: options.System = None,
    model: options.ModelName = None,
    dtype: options.DtypeOption = options.Dtype.auto,
    device: options.DeviceOption = options.Device.auto,
    threads: options.Threads = None,
    no_cache: options.NoCache = False,
    prefill_chunk: options.PrefillChunk = 256,
    debug: options.Debug = False,
    version: options.Version = False,
) -> None:
    """Continue a prompt, one token at a time, and see every choice.

    On a terminal the text appears with the candidates of each step; in a pipe it is the text and nothing else.
    """
    if version:
        print_version()
        return
    from cli import session
    from cli.interrupts import soft_interrupt
    from cli.model_folder import model_folder
    from cli.progress import loading_bar
    from cli.prompt import read_prompt
    from cli.summary import summary
    from model.decoding.request import Request

    text = read_prompt(prompt or [], prompt_file, keep_newline=keep_newline)
    name = session.settle_view(view, jsonl=jsonl)
    # torch is imported from here on, once everything that needs no model is known to be right
    from model.decoding.autoregressive import decode
    from model.engine import set_threads
    from model.loading import load_model

    used_threads = set_threads(threads)
    loaded = load_model(
        model_folder(model),
        dtype=dtype,
        device=device,
        watch=loading_bar,
        length=lambda tokenizer: len(tokenizer.encode(text)) + max_new_tokens,
    )
    prompt_ids = session.encode(loaded, text, chat=chat, system=system, messages=not prompt)
    request = Request(
        prompt_ids=session.fit(loaded, prompt_ids, max_new_tokens, truncate_side),
        seed=secrets.randbits(32) if seed is None else seed,
        sampling=session.choose_sampling(loaded, temperature, top_k, top_p, min_p),
        max_new_tokens=max_new_tokens,
        eos_token_ids=loaded.eos_token_ids,
        top=top,
        prefill_chunk=prefill_chunk,
        use_cache=not no_cache,
    )
    run = session.describe(loaded, f"{text}\n" if chat else text, request, used_threads)
    with soft_interrupt() as interrupt:
        shown = session.make_view(
            name, color=color, echo=echo, panel=panel, color_by=color_by, pause=pause, interrupt=interrupt
        )
        finish = shown.show(run, decode(loaded.engine, loaded.tokenizer, request, interrupt))
    if stats:
        say(summary(run, finish))
    if finish.reason == "interrupt":
        raise typer.Exit(INTERRUPTED)


def print_version() -> None:
    from importlib.metadata import version

    print(f"tokenglass {version('tokenglass')}")
