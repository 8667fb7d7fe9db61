"""compare: the ways of decoding beside each other, in speed and in coherence."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tokenglass.cli import options
from tokenglass.cli.options.completion import model_names
from tokenglass.cli.options.groups import flat
from tokenglass.cli.options.model import ModelOptions
from tokenglass.cli.say import say, write_json
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.opening import opening

if TYPE_CHECKING:
    from tokenglass.model.loaded_model import LoadedModel

SCORER = "smollm2"  # where it has been pulled
Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PROMPT", help="Texts to continue, each by itself; - is stdin. Else the program's own stories."
    ),
]
ModeNames = Annotated[
    str | None,
    typer.Option("--modes", metavar="A,B,C", help="Which to compare; else all that the model can do."),
]
ScorerName = Annotated[
    str | None,
    typer.Option(
        "--scorer",
        metavar="MODEL",
        help="Who reads the texts; else smollm2 if pulled, or the model itself.",
        autocompletion=model_names,
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Texts for each prompt: seeds 1 to N.")]
Tokens = Annotated[int, typer.Option("-n", "--max-new-tokens", min=1, help="Tokens of each text.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often every text is timed.")]


@flat
def compare(
    prompts: Prompts = None,
    modes: ModeNames = None,
    scorer: ScorerName = None,
    seeds: Seeds = 2,
    max_new_tokens: Tokens = 64,
    rounds: Rounds = 3,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    block_size: options.BlockSize = 16,
    draft_model: options.DraftModel = None,
    draft_length: options.DraftLength = 8,
    *,
    model: ModelOptions,
    as_json: options.Json = False,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Run the same prompts through every way of decoding, and compare passes, speed, coherence and what each one loses.

    A mode is named as in the table; parallel-N is N passes for each block.
    """
    from tokenglass.cli.run.prompt import read_prompt

    texts = tuple(read_prompt([part], None, keep_newline=False) for part in prompts) if prompts else None
    with opening() as first:
        from tokenglass.cli.progress import watch_steps
        from tokenglass.cli.run import session
        from tokenglass.cli.run.request import sampling_parameters
        from tokenglass.cli.widgets.comparison import show
        from tokenglass.model.engine.memory import Caches

        opened = session.open_model(model, first)
        longest = max((len(opened.tokenizer.encode(text)) for text in texts or ()), default=0)
        values = {"temperature": temperature, "top_p": top_p}
        settings = {name: value for name, value in values.items() if value is not None}
        sampling = sampling_parameters(opened, options.SamplingOptions(settings))
        loaded = session.load(opened, Caches(longest + max_new_tokens), first)
        from tokenglass.model.measuring.comparison.comparison import Comparison, Plan
        from tokenglass.model.measuring.comparison.facts import facts_of
        from tokenglass.model.measuring.comparison.modes import Variants
        from tokenglass.model.measuring.comparison.scorer import Scorer

        plan = Plan(sampling, texts, tuple(range(1, seeds + 1)), max_new_tokens, rounds)
        draft = None if draft_model is None else load(draft_model, loaded)
        make = Variants(loaded, draft, block_size, draft_length)
        wanted = [make.find(name) for name in names_of(modes, has_draft=draft is not None)]
        comparison = Comparison(loaded, Scorer(find_scorer(scorer, loaded)), plan, wanted)
        first.show("trying each way of decoding")
        comparison.try_modes()
    for refused in comparison.refused if as_json else ():
        say(f"note: {refused.mode} is left out: {refused.reason}")
    done = itertools.count(1)
    for _ in watch_steps(comparison.measure(), "comparing", comparison.steps, lambda _: next(done)):
        pass
    facts = facts_of(comparison, loaded.threads)
    if as_json:
        write_json(facts, indent=2)
    else:
        show(facts, make_console(sys.stdout, color=color.value))


def names_of(names: str | None, *, has_draft: bool) -> list[str]:
    """The modes to try, the autoregressive one first: the others are measured by it. Raises ParameterError."""
    from tokenglass.model.decoding.modes import AUTOREGRESSIVE
    from tokenglass.model.measuring.comparison.modes import NAMES

    if names is None:
        return [name for name in NAMES if has_draft or name != "speculative-model"]
    return list(dict.fromkeys([AUTOREGRESSIVE, *(name.strip() for name in names.split(",") if name.strip())]))


def find_scorer(name: str | None, loaded: LoadedModel) -> LoadedModel:
    """The model of that name; without one, smollm2 if it is there, or else the model itself. Raises TokenglassError."""
    from tokenglass.model.errors import StoreError

    try:
        return load(name or SCORER, loaded)
    except StoreError:
        if name is not None:
            raise
        say(f"note: {loaded.name} scores its own texts; `tokenglass pull {SCORER}` gives an independent scorer")
        return loaded


def load(name: str, loaded: LoadedModel) -> LoadedModel:
    """The model of that name which may be the one that is there. Raises TokenglassError."""
    from tokenglass.cli.run import session
    from tokenglass.model.engine.memory import Caches

    opened = session.open_model(ModelOptions(name))
    if opened.checkpoint.folder.resolve() == loaded.checkpoint.folder.resolve():
        return loaded
    return session.load_quietly(opened, Caches())
