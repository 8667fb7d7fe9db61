"""Responses with log-probabilities, written by hand after the documentation of each server (see
model/importers/responses.py for where that is): two tokens, " fox" and half of "é" twice, with what stood beside them.
"""

from __future__ import annotations

import json
from typing import Any

LOGPROBS = ((-0.25, -1.75), (-0.5, -2.0), (-0.125, -3.0))
TOKENS = ((" fox", " hen"), ("\\xc3", "e"), ("\\xa9", "!"))
BYTES = (([32, 102, 111, 120], [32, 104, 101, 110]), ([195], [101]), ([169], [33]))
TEXT = " foxé"


def entry(position: int, place: int = 0) -> dict[str, Any]:
    """A token of a chat completion."""
    return {
        "token": TOKENS[position][place],
        "logprob": LOGPROBS[position][place],
        "bytes": BYTES[position][place],
    }


CONTENT = [{**entry(at), "top_logprobs": [entry(at), entry(at, 1)]} for at in range(3)]

CHAT = {
    "id": "chatcmpl-123",
    "object": "chat.completion",
    "created": 1741570283,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
            "logprobs": {"content": CONTENT, "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}

COLUMNS = {
    "text_offset": [12, 16, 17],
    "token_logprobs": [-0.25, -0.5, -0.125],
    "tokens": [" fox", "bytes:\\xc3", "bytes:\\xa9"],
    "top_logprobs": [
        {" fox": -0.25, " hen": -1.75},
        {"e": -2.0, "bytes:\\xc3": -0.5},
        {"bytes:\\xa9": -0.125, "!": -3.0},
    ],
}
COMPLETION = {
    "id": "cmpl-123",
    "object": "text_completion",
    "created": 1589478378,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"text": TEXT, "index": 0, "logprobs": COLUMNS, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}

VLLM = {
    **CHAT,
    "model": "Qwen/Qwen3-0.6B",
    "prompt_logprobs": None,
    "prompt_token_ids": [785, 38835],
    "kv_transfer_params": None,
    "choices": [{**CHAT["choices"][0], "stop_reason": None, "token_ids": [38835, 127, 102]}],  # type: ignore[index]
}

LLAMA_CPP = {
    "index": 0,
    "content": TEXT,
    "tokens": [39935, 127, 102],
    "id_slot": 0,
    "stop": True,
    "model": "smollm2.gguf",
    "tokens_predicted": 3,
    "tokens_evaluated": 4,
    "generation_settings": {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
    "prompt": "The quick brown",
    "has_new_line": False,
    "truncated": False,
    "stop_type": "limit",
    "stopping_word": "",
    "tokens_cached": 6,
    "timings": {
        "prompt_n": 4,
        "prompt_ms": 40.0,
        "predicted_n": 3,
        "predicted_ms": 30.0,
        "predicted_per_token_ms": 10.0,
    },
    "completion_probabilities": [
        {"id": 100 + at, **entry(at), "top_logprobs": [{"id": 100 + at, **entry(at)}, {"id": 200 + at, **entry(at, 1)}]}
        for at in range(3)
    ],
}

# With post_sampling_probs the numbers are of the distribution that was sampled.
SAMPLED = {
    **LLAMA_CPP,
    "completion_probabilities": [
        {
            "id": 100,
            "token": " fox",
            "bytes": [32, 102, 111, 120],
            "prob": 0.75,
            "top_probs": [
                {"id": 100, "token": " fox", "bytes": [32, 102, 111, 120], "prob": 0.75},
                {"id": 200, "token": " hen", "bytes": [32, 104, 101, 110], "prob": 0.25},
            ],
        }
    ],
}

# Before December 2024.
FORMER = {
    "content": " fox",
    "stop": True,
    "model": "smollm2.gguf",
    "completion_probabilities": [
        {"content": " fox", "probs": [{"tok_str": " fox", "prob": 0.75}, {"tok_str": " hen", "prob": 0.25}]}
    ],
}

OLLAMA = {
    "model": "gemma3",
    "created_at": "2025-11-12T10:00:00.000000Z",
    "response": TEXT,
    "done": True,
    "done_reason": "stop",
    "context": [1, 2, 3],
    "total_duration": 200000000,
    "load_duration": 50000000,
    "prompt_eval_count": 4,
    "prompt_eval_duration": 40000000,
    "eval_count": 3,
    "eval_duration": 30000000,
    "logprobs": CONTENT,
}
OLLAMA_CHAT = {
    **{name: value for name, value in OLLAMA.items() if name not in ("response", "context")},
    "message": {"role": "assistant", "content": TEXT},
}

SAID = (" fox", "", "é")  # with each token: half a character is held back
CHAT_STREAM = [
    *(
        {
            "id": "chatcmpl-123",
            "object": "chat.completion.chunk",
            "created": 1694268190,
            "model": "gpt-4o-2024-08-06",
            "choices": [
                {"index": 0, "delta": {"content": said}, "logprobs": {"content": [token]}, "finish_reason": None}
            ],
        }
        for token, said in zip(CONTENT, SAID, strict=True)
    ),
    {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}],
    },
    {"id": "chatcmpl-123", "object": "chat.completion.chunk", "choices": [], "usage": CHAT["usage"]},
]
OLLAMA_STREAM = [
    *(
        {"model": "gemma3", "response": said, "done": False, "logprobs": [token]}
        for token, said in zip(CONTENT, SAID, strict=True)
    ),
    {**OLLAMA, "response": "", "logprobs": []},
]
OLLAMA_CHAT_STREAM = [
    {
        **{name: value for name, value in chunk.items() if name not in ("response", "context")},
        "message": {"role": "assistant", "content": chunk["response"]},
    }
    for chunk in OLLAMA_STREAM
]


def column(at: int) -> dict[str, Any]:
    """What a chunk of a completion's stream says of one token."""
    return {name: [values[at]] for name, values in COLUMNS.items()}  # type: ignore[index]


def completion_chunk(**choice: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
    return {
        "id": "cmpl-123",
        "object": "text_completion",
        "created": 1694268190,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{**base, **choice}],
    }


COMPLETION_STREAM = [
    *(completion_chunk(text=said, logprobs=column(at)) for at, said in enumerate(SAID)),
    completion_chunk(finish_reason="length"),
    {**completion_chunk(), "choices": [], "usage": COMPLETION["usage"]},
]

# vllm/entrypoints/openai/completion/protocol.py, CompletionResponseStreamChoice: prompt_token_ids in the first chunk.
VLLM_STREAM = [
    *(
        completion_chunk(
            text=said,
            logprobs=column(at),
            stop_reason=None,
            token_ids=[VLLM["choices"][0]["token_ids"][at]],  # type: ignore[index]
            prompt_token_ids=VLLM["prompt_token_ids"] if at == 0 else None,
        )
        for at, said in enumerate(SAID)
    ),
    completion_chunk(finish_reason="stop", stop_reason="The end"),
    {**completion_chunk(), "choices": [], "usage": COMPLETION["usage"]},
]

# As tools/server/README.md has it: content, tokens and stop in each chunk, all else in the last.
LLAMA_CPP_STREAM = [
    *(
        {
            "index": 0,
            "content": said,
            "tokens": [LLAMA_CPP["tokens"][at]],  # type: ignore[index]
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": at + 1,
            "tokens_evaluated": 4,
            "completion_probabilities": [LLAMA_CPP["completion_probabilities"][at]],  # type: ignore[index]
        }
        for at, said in enumerate(SAID)
    ),
    {**{name: value for name, value in LLAMA_CPP.items() if name != "completion_probabilities"}, "content": ""},
]

WHOLE = {
    "OpenAI chat": CHAT,
    "OpenAI completion": COMPLETION,
    "vLLM": VLLM,
    "llama.cpp": LLAMA_CPP,
    "Ollama generate": OLLAMA,
    "Ollama chat": OLLAMA_CHAT,
}


def as_events(chunks: list[dict[str, Any]]) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def as_lines(chunks: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(chunk) + "\n" for chunk in chunks)
