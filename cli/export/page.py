"""A kept run as one page: the data of its texts in a template that fetches nothing."""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from tokenglass.cli.run.summary import computed_on, in_words, seeds, settings
from tokenglass.cli.terminal.terminal import visible, visible_piece
from tokenglass.model.records.codec import to_json
from tokenglass.model.records.steps import Choice, Finish, Record
from tokenglass.model.runs.playback import Texts
from tokenglass.model.runs.run import Run

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
IN_SCRIPT = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(runs: Iterable[tuple[Run, Iterable[Record]]]) -> str:
    """HTML of the texts of all runs; the first names the model, the settings and the prompt."""
    content: dict[str, Any] = {"texts": []}
    for number, (run, records) in enumerate(runs, start=1):
        if number == 1:
            content["title"] = f"A kept run of {visible(run.model)}"
            content["settings"] = visible(", ".join((*computed_on(run), *settings(run.request.sampling), seeds(run))))
            content["prompt"] = visible(run.prompt)
        content["texts"] += [{**text, "title": f"run {number}, {text['title']}"} for text in texts_of(records)]
    template = files("tokenglass.cli.export").joinpath("page.html").read_text(encoding="utf-8")
    script = SCRIPT.search(template)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    return template.replace("SCRIPT_HASH", digest).replace("PAGE_DATA", in_script(content), 1)


def in_script(content: Any) -> str:
    """JSON that no text in it can lead out of a script element."""
    text = json.dumps(to_json(content), ensure_ascii=False)
    return "".join(IN_SCRIPT.get(char, char) for char in text)


def texts_of(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Each text with its tokens that stand; those that finished, where any did."""
    texts, ends, lengths = Texts(), dict[int, Finish](), dict[tuple[int, int], int]()
    for record in records:
        if isinstance(record, Finish):
            ends[record.sequence] = record
            continue
        texts.add(record)
        if record.cache is not None:
            lengths.update({(record.sequence, choice.position): record.cache.length for choice in record.choices})
    numbers = list(ends) or list(texts.choices)
    return [
        {
            "title": f"text {number}" + (f": {in_words(ends[number])}" if number in ends else ""),
            "tokens": tokens_of(texts.choices.get(number, []), lambda at, row=number: lengths.get((row, at))),
        }
        for number in numbers
    ]


def tokens_of(choices: list[Choice], length: Any) -> list[dict[str, Any]]:
    """Every token with its numbers; a character that several make stands with the last of them."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    last = len(choices) - 1
    return [
        {
            "text": visible(decoder.decode(choice.piece, number == last)),
            "id": choice.token_id,
            "piece": visible_piece(choice.piece),
            "logprob": choice.logprob,
            "prob": choice.prob,
            "rank": choice.rank,
            "entropy": choice.entropy,
            "status": choice.status,
            "cache": length(choice.position),
            "candidates": [
                {
                    "id": candidate.token_id,
                    "piece": visible_piece(candidate.piece),
                    "logprob": candidate.logprob,
                    "prob": candidate.prob,
                    "removed_by": None if candidate.removed_by is None else visible(candidate.removed_by),
                }
                for candidate in choice.candidates
            ],
        }
        for number, choice in enumerate(choices)
    ]
