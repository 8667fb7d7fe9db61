"""A kept run as one page: the data of its texts in a template that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from tokenglass.cli.export.kept_text import KeptText, KeptToken, Runs, kept_texts
from tokenglass.cli.terminal.terminal import visible, visible_piece
from tokenglass.model.records.bounds import Bounds
from tokenglass.model.records.encoder import to_text
from tokenglass.model.records.steps import Candidate

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
TOKENS = ("piece", "top", "runner_up")  # in a row of a flow
IN_SCRIPT = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(runs: Runs) -> str:
    """HTML of the texts of all runs."""
    content = {"texts": [text_data(text) for text in kept_texts(runs)]}
    template = files("tokenglass.cli.export").joinpath("page.html").read_text(encoding="utf-8")
    script = SCRIPT.search(template)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    return template.replace("SCRIPT_HASH", digest).replace("PAGE_DATA", in_script(content), 1)


def in_script(content: Any) -> str:
    """JSON that no text in it can lead out of a script element."""
    text = to_text(content)
    return "".join(IN_SCRIPT.get(char, char) for char in text)


def text_data(text: KeptText) -> dict[str, Any]:
    """A text as the page's script reads it; tokens of one pass have its number, counted from 0."""
    forwards = sorted({token.step.forward for token in text.tokens})
    passes = {forward: number for number, forward in enumerate(forwards)}
    return {
        "title": text.title,
        "model": visible(text.run.model),
        "about": text.about,
        "prompt": visible(text.run.prompt),
        "passes": len(passes),
        "tokens": [token_data(token, passes[token.step.forward]) for token in text.tokens],
    }


def token_data(token: KeptToken, number_of_pass: int) -> dict[str, Any]:
    choice, step = token.choice, token.step
    data: dict[str, Any] = {
        "text": visible(token.text),
        "id": choice.token_id,
        "piece": visible_piece(choice.piece),
        "position": choice.position,
        "logprob": choice.logprob,
        "prob": choice.prob,
        "rank": choice.rank,
        "entropy": choice.entropy,
        "draw": choice.draw,
        "status": choice.status,
        "pass": number_of_pass,
        "cache": None if step.cache is None else step.cache.length,
        "candidates": [candidate_data(candidate) for candidate in choice.candidates],
    }
    bounds = Bounds.of(choice) if choice.entropy is None else None
    if bounds is not None:
        data |= {"rest": bounds.rest, "least_entropy": bounds.least_entropy}
    if choice.experts:
        data["experts"] = [[layer.layer, layer.experts, layer.probs] for layer in choice.experts]
    if step.flow is not None and choice is step.choices[0]:
        data["flow"] = [
            {name: visible_piece(str(value).encode()) if name in TOKENS else value for name, value in row.items()}
            for row in step.flow
        ]
    return data


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """Numbers as they are, and what was done to it, in words; a rule that did nothing is left out."""
    done = [f"{visible(name)} {change:+.2f}" for name, change in candidate.moved]
    if candidate.removed_by is not None:
        done.append(f"cut by {visible(candidate.removed_by)}")
    data: dict[str, Any] = {
        "id": candidate.token_id,
        "piece": visible_piece(candidate.piece),
        "logprob": candidate.logprob,
        "prob": candidate.prob,
    }
    return {**data, "done": ", ".join(done)} if done else data
