"""A sampler's class is the one place of its settings: parameters, options, summaries and traces follow from it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from shell import assert_one_line_error, generate

from tokenglass.cli.app import generate_app
from tokenglass.cli.options.sampling import SamplingOptions
from tokenglass.model.errors import ParameterError
from tokenglass.model.sampling.chain import build_chain
from tokenglass.model.sampling.parameters import (
    IN_CHAIN,
    KINDS,
    LISTED,
    SAMPLERS,
    SETTINGS,
    SamplingParameters,
)
from tokenglass.model.sampling.processor import Processor
from tokenglass.model.sampling.settings import Number, Setting, Texts


def subclasses(kind: type[Any]) -> list[type[Any]]:
    return [kind, *(below for child in kind.__subclasses__() for below in subclasses(child))]


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    if isinstance(setting, Texts):
        return st.just(setting.default)
    assert isinstance(setting, Number)
    most = min(setting.most, 10**9)
    if setting.is_whole:
        return st.integers(int(setting.least), int(most))
    return st.floats(setting.least, most)


SOME = st.fixed_dictionaries({}, optional={name: values_of(setting) for name, setting in SETTINGS.items()})


def test_every_sampler_is_in_the_chain_once() -> None:
    """A class that its file's list lacks would be found here."""
    every = {kind.__qualname__ for kind in subclasses(Processor) if "name" in vars(kind)}
    assert every == {kind.__qualname__ for kind in KINDS}
    assert len(set(SAMPLERS)) == len(IN_CHAIN) == len(KINDS) - 1  # guidance always comes first


@given(values=SOME)
def test_parameters_are_made_again_of_their_values(values: dict[str, Any]) -> None:
    parameters = SamplingParameters(**values)
    assert SamplingParameters(**parameters.values) == parameters
    assert {name: getattr(parameters, name) for name in values} == values


@given(values=SOME)
def test_a_summary_names_what_acts_and_nothing_else(values: dict[str, Any]) -> None:
    parameters = SamplingParameters(**values)
    acting = {processor.settings()[0].name for processor in build_chain(parameters)}
    assert set(parameters.in_effect) == {name for name in acting if isinstance(SETTINGS[name], Number)} - {
        "temperature"
    }


def test_a_parameter_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"no sampling parameter 'top_q'; expected one of temperature, .*top_k"):
        SamplingParameters(top_q=3)


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.flags])
def test_each_setting_is_an_option_with_its_help_line(name: str) -> None:
    (option,) = (option for option in typer.main.get_command(generate_app()).params if option.name == name)
    assert tuple(option.opts) == SETTINGS[name].flags
    assert getattr(option, "help") == SETTINGS[name].help  # noqa: B009  (arguments have none)


def test_help_lists_the_draw_first_and_the_chain_in_its_order() -> None:
    options = {option.name: option for option in typer.main.get_command(generate_app()).params}
    names = [name for name in options if name in SETTINGS]
    assert names == [name for name in SETTINGS if SETTINGS[name].flags]
    assert LISTED[0].name == "temperature"
    assert ", ".join(SAMPLERS) in getattr(options["samplers"], "help")  # noqa: B009


def test_options_that_were_not_given_leave_the_checkpoint_its_own() -> None:
    assert SamplingOptions().values(None, 10) == {}  # type: ignore[arg-type]  # no text is read


def test_texts_of_a_sampler_that_is_off_are_not_read() -> None:
    """They would be looked for among all tokens."""
    assert SamplingOptions({"dry_sequence_breakers": ["x"]}).values(None, 10) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_sampler_refuses_what_its_range_has_not(kind: type[Processor]) -> None:
    for setting in kind.settings():
        if isinstance(setting, Number):
            with pytest.raises(ParameterError, match=f"^{setting.name} is "):
                kind.of({**{one.name: one.default for one in kind.settings()}, setting.name: setting.least - 1})


def test_options_are_read_without_numpy() -> None:
    """It takes half of the time that help takes."""
    code = "import sys; from tokenglass.cli.app import generate_app; generate_app(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "need"),
    [
        (("--dry-base", "2"), "--dry-multiplier"),
        (("--dry-breaker", "x", "-t", "0"), "--dry-multiplier"),
        (("--xtc-threshold", "0.2"), "--xtc-probability"),
        (("--penalty-window", "9"), "--repetition-penalty or --presence-penalty or --frequency-penalty"),
        (("--top-k", "5", "--samplers", "top-p"), "top-k among --samplers"),
        (("-t", "0.5", "--samplers", "top-p"), "temperature among --samplers"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_setting_without_effect_is_refused_by_name(arguments: tuple[str, ...], need: str) -> None:
    assert_one_line_error(generate("The fox", "-n", "1", *arguments), 2, "has no effect", need)


@pytest.mark.parametrize(
    "values",
    [
        {"dry_base": 2.0, "dry_multiplier": 0.5},
        {"penalty_window": 9, "presence_penalty": 0.5},
        {"temperature": 0.0, "samplers": ("top-p",)},
        {"top_k": 0, "samplers": ("top-p",)},
        {"xtc_threshold": 0.1},
    ],
    ids=str,
)
def test_a_setting_that_acts_or_switches_off_is_not_refused(values: dict[str, Any]) -> None:
    settings = {name: value for name, value in values.items() if name != "samplers"}
    assert SamplingParameters(**values).idle(settings) is None
