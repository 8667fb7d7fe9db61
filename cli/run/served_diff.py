"""One text in two models of which a server has one at least: as far as the candidates that both name tell."""

from __future__ import annotations

from tokenglass.cli.options.model import ModelOptions, ServedModelOptions
from tokenglass.cli.run.scoring import score_here, score_there
from tokenglass.cli.run.texts import read_texts
from tokenglass.cli.terminal.opening import Opening
from tokenglass.cli.views.diff import Diff
from tokenglass.cli.views.score import Scoring
from tokenglass.model.errors import ParameterError
from tokenglass.model.measuring.difference import compare_texts
from tokenglass.model.sources.server.address import Address, is_address

TOP = 20  # candidates that are asked for: more than most servers report beside a token


def compare_served(file: str, first: ModelOptions, second: ModelOptions, opening: Opening) -> Diff:
    """Raises ParameterError where the two cut the text into other tokens, ServerError."""
    texts = read_texts([file], keep_newline=False)
    one, other = (score(model, texts, opening) for model in (first, second))
    names = (name_of(one, first), name_of(other, second))
    if one.texts[0].token_ids != other.texts[0].token_ids:
        raise ParameterError(f"{names[0]} and {names[1]} cut this text into other tokens; they do not compare")
    opening.show("comparing")
    choices = [list(scoring.choices(scoring.texts[0]))[1:] for scoring in (one, other)]
    return Diff(names, (choices[0], choices[1]), list(compare_texts(*choices)))


def score(model: ModelOptions, texts: list[tuple[str, str]], opening: Opening) -> Scoring:
    """The text as one of the two finds it."""
    if not is_address(model.model):
        return score_here(model, texts, None, None, TOP, opening)
    if model.are_given:
        raise ParameterError("--dtype, --quantize and the like are not for a server; it has its own")
    return score_there(ServedModelOptions(model.model), texts, None, None, TOP, opening)


def name_of(scoring: Scoring, model: ModelOptions) -> str:
    where = f" on {Address.parse(model.model).name}" if model.model is not None and is_address(model.model) else ""
    return f"{scoring.model}{where}"
