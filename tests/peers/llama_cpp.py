"""llama.cpp's own reading of a GGUF file, through the prebuilt xllamacpp package (pip install xllamacpp)."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class LlamaCpp:
    """A llama.cpp server in this process, with as small a context as its tokenizer needs unless more is asked for, in
    each of its slots."""

    def __init__(self, path: Path, *, context: int = 64, threads: int = 1, slots: int = 1):
        import xllamacpp  # noqa: PLC0415  (a peer that may be absent)

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context * slots
        params.n_parallel = slots
        params.n_gpu_layers = 0
        params.warmup = False
        params.verbosity = -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.port = 0
        self.server = xllamacpp.Server(params)

    def tokenize(self, text: str, *, start: bool = False, specials: bool = True) -> tuple[int, ...]:
        """Token ids; `start` adds the start token where the model has one, `specials` reads special tokens in text."""
        answer = self.post("/tokenize", {"content": text, "add_special": start, "parse_special": specials})
        return tuple(answer["tokens"])

    def complete(self, prompt: Sequence[int], tokens: int, *, keep: bool) -> Any:
        """Its answer to a greedy request for `tokens` tokens, with its own timings; `keep` reads the prompt once."""
        greedy = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True}
        settings = {"n_predict": tokens, "cache_prompt": keep, "return_tokens": True, **greedy}
        return self.post("/completion", {"prompt": list(prompt), **settings})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        url = f"{self.server.listening_address}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=900) as answer:
            return json.load(answer)
