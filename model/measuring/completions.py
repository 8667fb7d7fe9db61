"""A scored text in the shape of OpenAI's legacy completions with `echo` and `logprobs`.

Source: the API reference, "Legacy > Completions > The completion object". The first token has no log-probability, and
start tokens that the tokenizer adds are told by name, with no room in the text, as vLLM tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tokenglass.model.measuring.scoring import GivenText
from tokenglass.model.records.steps import Choice


def completion(model: str, texts: Sequence[tuple[GivenText, Iterable[Choice]]], created: int) -> dict[str, Any]:
    """One choice for each text, in order, as a server answers a list of prompts with `max_tokens` 0."""
    tokens = sum(len(text.token_ids) for text, _ in texts)
    return {
        "id": f"score-{created}",
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": [
            {"text": text.text, "index": index, "logprobs": logprobs(text, choices), "finish_reason": "length"}
            for index, (text, choices) in enumerate(texts)
        ],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }


def logprobs(text: GivenText, choices: Iterable[Choice]) -> dict[str, list[Any]]:
    """What is known of each token; `text_offset` counts characters."""
    tokens, token_logprobs, top_logprobs = [], [], []
    for choice in choices:
        tokens.append(name(choice.piece))
        token_logprobs.append(choice.logprob)
        best = {name(candidate.piece): candidate.logprob for candidate in reversed(choice.candidates)}
        top_logprobs.append(None if choice.logprob is None else dict(reversed(best.items())))
    return {
        "tokens": tokens,
        "token_logprobs": token_logprobs,
        "top_logprobs": top_logprobs,
        "text_offset": list(text.offsets),
    }


def name(piece: bytes) -> str:
    """A token as text; bytes that are not whole characters are spelt bytes:\\\\xf0\\\\x9f."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
