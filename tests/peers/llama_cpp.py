"""llama.cpp's own reading of a GGUF file, through the prebuilt xllamacpp package (pip install xllamacpp)."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any


class LlamaCpp:
    """A llama.cpp server in this process. Only the tokenizer is asked, so the context is small."""

    def __init__(self, path: Path):
        import xllamacpp  # noqa: PLC0415  (a peer that may be absent)

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 64
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.warmup = False
        params.verbosity = -1
        params.cpuparams.n_threads = 1
        params.port = 0
        self.server = xllamacpp.Server(params)

    def tokenize(self, text: str, *, start: bool = False, specials: bool = True) -> tuple[int, ...]:
        """Token ids; `start` adds the start token where the model has one, `specials` reads special tokens in text."""
        answer = self.post("/tokenize", {"content": text, "add_special": start, "parse_special": specials})
        return tuple(answer["tokens"])

    def post(self, path: str, body: dict[str, Any]) -> Any:
        url = f"{self.server.listening_address}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
