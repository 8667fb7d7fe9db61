"""Help that can be read, names that people guess, and suggestions for what they mistype."""

from __future__ import annotations

import inspect
import shutil
import subprocess
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from manual import manual
from pages import COMMANDS, FOLDER, MANUAL, page_of, path_of
from shell import assert_one_line_error, generate, tokenglass

from tokenglass.cli.app import explain, generate_app, tokenglass_app
from tokenglass.cli.commands.generate import generate as generate_command
from tokenglass.cli.options.aliases import ALIASES
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.model.errors import did_you_mean
from tokenglass.model.sampling.parameters import SAMPLERS

SHORT = ("-n", "3", "--seed", "5")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "tokenglass")
def test_a_help_page_is_the_one_that_was_read(command: str) -> None:
    assert page_of(command) == path_of(command).read_text(encoding="utf-8"), "see tests/pages.py"


def test_the_manual_page_is_made_from_the_commands() -> None:
    page = manual()
    assert page == MANUAL.read_text(encoding="utf-8"), "see tests/pages.py"
    for command in filter(None, COMMANDS):
        assert f".SH {command.upper()}\n" in page


@pytest.mark.skipif(not shutil.which("groff"), reason="there is no groff to read the page with")
def test_the_manual_page_is_good_roff() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", "-ww", str(MANUAL)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "--max-new-tokens" in done.stdout
    assert "top-p" in done.stdout


def test_every_kept_page_is_of_a_command() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {path_of(command).name for command in COMMANDS}


def test_commands_stand_in_four_groups() -> None:
    page = page_of("")
    places = [page.index(f"─ {title} ─") for title in ("Write", "Look inside", "Measure", "Models")]
    assert places == sorted(places)
    assert "─ Commands ─" not in page, "a command without a group"
    for command in filter(None, COMMANDS):
        assert f"│ {command} " in page


def test_no_page_names_a_type_of_python_or_a_hidden_name() -> None:
    for command in COMMANDS:
        page = path_of(command).read_text(encoding="utf-8")
        assert "<" not in page.replace("<=", ""), command
        for alias in [alias for aliases in ALIASES.values() for alias in aliases]:
            assert f" {alias} " not in page, (command, alias)


def test_generate_begins_with_five_examples_that_can_be_run() -> None:
    lines = inspect.cleandoc(generate_command.__doc__ or "").splitlines()
    examples = lines[lines.index("Examples:") + 1 :]
    examples = examples[: examples.index("")]
    assert len(examples) == 5
    for example in examples:
        assert "generate " in example
        assert len(example) <= 78, "it fits a line of 80 columns"


def test_the_defaults_of_the_samplers_are_shown() -> None:
    page = path_of("generate").read_text(encoding="utf-8")
    flat = " ".join(page.replace("│", " ").split())
    for option, default in (("--temperature", "0.8"), ("--top-p", "0.95"), ("--min-p", "0")):
        _, _, after = flat.partition("─ Sampling ─")[2].partition(f" {option} ")
        assert after.partition(" --")[0].rstrip().endswith(f"[default: {default}]"), option


@pytest.mark.parametrize(
    ("guessed", "ours"),
    [
        (("--temp", "0.5", "The fox"), ("--temperature", "0.5", "The fox")),
        (("-p", "The fox"), ("The fox",)),
        (("--prompt", "The fox"), ("The fox",)),
        (("The", "-p", "fox"), ("The", "fox")),
        (("-f", "{file}"), ("--prompt-file", "{file}")),
        (("--file", "{file}"), ("--prompt-file", "{file}")),
        (("--repeat-penalty", "1.3", "The fox"), ("--repetition-penalty", "1.3", "The fox")),
        (("--num-beams", "2", "The fox"), ("--beams", "2", "The fox")),
        (("--num-return-sequences", "2", "The fox"), ("--num-samples", "2", "The fox")),
        (("--top", "2", "The fox"), ("--candidates", "2", "The fox")),
        (("--top_k", "4", "The fox"), ("--top-k", "4", "The fox")),
        (("--samplers", "top_k,temperature", "The fox"), ("--samplers", "top-k,temperature", "The fox")),
    ],
    ids=lambda arguments: " ".join(arguments[:-1]) if len(arguments) > 2 else arguments[0],
)
def test_names_that_people_guess_do_what_they_mean(guessed: tuple[str, ...], ours: tuple[str, ...], tmp_path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("The fox and the hen")

    def request(arguments: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        """The prompt and the other options, as the command is given them."""
        values = values_of([part.format(file=file) for part in arguments])
        parts = [*(values.pop("prompt") or ()), *(values.pop("prompt_option") or ())]
        samplers = values.pop("samplers")
        order = SamplingOptions(samplers=samplers).values(Any, 0).get("samplers") if samplers else None
        return "\n".join(parts), {**values, "samplers": order}

    assert request(guessed) == request(ours)


def values_of(arguments: list[str]) -> dict[str, Any]:
    with typer.main.get_command(generate_app()).make_context("generate", arguments) as context:
        return dict(context.params)


def test_max_tokens_and_s_are_the_length_and_the_seed() -> None:
    assert generate("The fox", "--max-tokens", "3", "-s", "5").stdout == generate("The fox", *SHORT).stdout


def test_every_alias_is_of_an_option_and_takes_no_name_of_another() -> None:
    every = {name for command in commands() for option in command.params for name in option.opts}
    assert ALIASES.keys() <= every
    assert not {alias for aliases in ALIASES.values() for alias in aliases} & every


def commands() -> list[typer.core.TyperCommand]:
    return [*typer.main.get_command(tokenglass_app()).commands.values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["-pity the fox", "-said he", "-for once", "-5 degrees", "- he said", "-s5"])
def test_a_text_that_begins_with_a_dash_is_no_guessed_option(text: str) -> None:
    code, message = refusal(generate_app(), [text, "-n", "2"])
    assert (code, message.partition(";")[0]) == (2, f"no option {text}")
    assert "goes behind --" in message
    assert values_of(["-n", "2", "--", text])["prompt"] == [text]


def refusal(app: typer.Typer, arguments: list[str]) -> tuple[int, str]:
    """Exit code and message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["name", *arguments])
        try:
            app(arguments, prog_name="tokenglass", standalone_mode=False)
        except Exception as error:  # whatever it is, it is explained
            return explain(error)
    raise AssertionError("it is accepted")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-tokns", "3", "x"), ("no option --max-tokns", "did you mean --max-new-tokens?")),
        (("--tempurature", "3", "x"), ("did you mean --temperature?",)),
        (("--num-beam", "3", "x"), ("did you mean --beams?",)),
        (("--samplers", "topk", "x"), ("'topk' is unknown", "did you mean top-k?")),
        (("--samplers", "top-pp,top-k", "x"), ("did you mean top-p?",)),
        (("--samplers", "magic", "x"), ("expected each once of", *SAMPLERS)),
        (("-m", "tales", "x"), ("no model 'tales'", "did you mean tale?")),
        (("--nonsense", "x"), ("no option --nonsense", "--help")),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else "",
)
def test_what_is_mistyped_is_told_with_what_may_be_meant(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    code, message = refusal(generate_app(), [*arguments])
    assert code == (1 if arguments[0] == "-m" else 2)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generte", "x"), ("no command 'generte'", "did you mean generate?")),
        (("imports",), ("did you mean import?",)),
        (("pull", "smolm2"), ("no model 'smolm2'", "did you mean smollm2?")),
        (("Once upon a time",), ("no command 'Once upon a time'", 'tokenglass generate "..."')),
        (("models", "remove"), ("no command 'remove'", "tokenglass models --help")),
    ],
)
def test_a_command_or_a_model_that_is_not_there_is_told_with_what_may_be_meant(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    code, message = refusal(tokenglass_app(), [*arguments])
    assert code == 2
    assert all(word in message for word in words), message


def test_a_suggestion_is_one_line_on_stderr() -> None:
    assert_one_line_error(tokenglass("generte"), 2, "tokenglass: no command 'generte'; did you mean generate?")


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=12), max_size=8))
def test_a_suggestion_is_one_of_the_names_or_nothing(word: str, names: list[str]) -> None:
    suggestion = did_you_mean(word, names)
    assert suggestion == "" or any(name in suggestion for name in names)


@given(st.sampled_from(SAMPLERS), st.data())
def test_a_sampler_with_one_letter_too_many_is_recognised(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(name)))
    assert name in did_you_mean(name[:place] + "q" + name[place:], SAMPLERS)
