"""Typed decisions: the request and the answer that servers share at /v1/systemone, as JSON.

A state and named questions of three types: `choice` (one of several labels), `score` (a level of an ordered scale) and
`noul` (yes or no). Sources: TypeSafe's System One API as the documentation of Ollama ("System One", docs.ollama.com)
and of colibri (docs/systemone.md) describe it. What a question becomes as a prompt is this program's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenglass.model.config.fields import quote
from tokenglass.model.errors import ParameterError
from tokenglass.model.measuring.choosing import Choosing

MOST_QUESTIONS = 64
MOST_OPTIONS = 255
YES, NO = "yes", "no"

Ask = Callable[[str, Sequence[str]], Choosing]  # a question as a text, and its answers as they are spelt in it


@dataclass(frozen=True, slots=True)
class TypedQuestion:
    """One question as a model can read it: the labels to choose from, each with what it means."""

    kind: str
    instructions: str
    labels: tuple[str, ...]
    meanings: tuple[str, ...]  # "" where nothing is said of a label

    @staticmethod
    def read(name: str, content: Any) -> TypedQuestion:
        """Raises ParameterError."""
        where = f"the question {quote(name)}"
        if not isinstance(content, Mapping):
            raise ParameterError(f"{where} is {quote(content)}; expected an object with type and instructions")
        kind, criteria = content.get("type"), content.get("criteria")
        instructions = text_of(content.get("instructions", ""))
        if kind == "noul":
            meant = {} if criteria is None else criteria
            if not isinstance(meant, Mapping) or not set(meant) <= {"true", "false"}:
                raise ParameterError(f"{where}: the criteria of a noul are an object with true and false")
            meanings = tuple(text_of(meant.get(key)) for key in ("true", "false"))
            return TypedQuestion(kind, instructions, (YES, NO), meanings)
        if kind == "choice":
            if not isinstance(criteria, Mapping):
                raise ParameterError(f"{where}: the criteria of a choice are an object, each label with its meaning")
            labels, meanings = tuple(criteria), tuple(map(text_of, criteria.values()))
        elif kind == "score":
            if not isinstance(criteria, list):
                raise ParameterError(f"{where}: the criteria of a score are a list of levels, from low to high")
            labels, meanings = tuple(map(str, range(len(criteria)))), tuple(map(text_of, criteria))
        else:
            raise ParameterError(f"{where} has the type {quote(kind)}; expected choice, score or noul")
        if not 2 <= len(labels) <= MOST_OPTIONS:
            raise ParameterError(f"{where} has {len(labels)} options; give 2 to {MOST_OPTIONS}")
        return TypedQuestion(kind, instructions, labels, meanings)

    def prompt(self, state: str) -> str:
        """The state comes first, so that all questions about it share its prefill."""
        options = [f"- {label}: {meaning}" if meaning else f"- {label}" for label, meaning in self.options]
        asked = [self.instructions] if self.instructions else []
        return "\n".join([state, "", *asked, "Answer with one of these:", *options])

    @property
    def options(self) -> list[tuple[str, str]]:
        return list(zip(self.labels, self.meanings, strict=True))

    def answer(self, choosing: Choosing) -> dict[str, Any]:
        probs = [answer.prob for answer in choosing.answers]
        if self.kind == "noul":
            return {"type": self.kind, "noul": probs[0]}
        shares = dict(zip(self.labels, probs, strict=True))
        about = {"probabilities": shares, "confidence": (len(probs) * max(probs) - 1) / (len(probs) - 1)}
        if self.kind == "choice":
            return {"type": self.kind, "choice": self.labels[probs.index(max(probs))], **about}
        level = sum(number * prob for number, prob in enumerate(probs))
        return {"type": self.kind, "score": level, "legend": dict(self.options), **about}


def text_of(content: Any) -> str:
    """A text as it is, anything else as JSON; nothing for null."""
    return content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)


def decide(request: Mapping[str, Any], ask: Ask, model: str) -> dict[str, Any]:
    """The answer to a request. Raises ParameterError for one of another shape, before anything is computed."""
    if request.get("state") is None:
        raise ParameterError("the request has no state; expected a text or JSON that the questions are about")
    questions = request.get("questions")
    if not isinstance(questions, Mapping) or not 1 <= len(questions) <= MOST_QUESTIONS:
        raise ParameterError(f"questions is {quote(questions)}; expected an object of 1 to {MOST_QUESTIONS} questions")
    state = text_of(request["state"])
    read = {name: TypedQuestion.read(name, content) for name, content in questions.items()}
    answers, tokens = {}, 0
    for name, question in read.items():
        choosing = ask(question.prompt(state), question.labels)
        answers[name] = question.answer(choosing)
        tokens += choosing.prompt_tokens
    return {"model": model, "answers": answers, "usage": {"input_tokens": tokens, "output_tokens": 0}}
