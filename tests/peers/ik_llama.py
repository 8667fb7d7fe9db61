"""ik_llama.cpp's own generation from a GGUF file, through the prebuilt ik-llama-cpp-python package (an AVX2 build)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

AT_ONCE = 512  # positions of a prompt in one call, as its own package reads them


class IkLlamaCpp:
    """A model and one sequence in this process."""

    def __init__(self, path: Path, *, context: int = 64, threads: int = 1):
        from ik_llama_cpp import IkLlama  # noqa: PLC0415  (a peer that may be absent)

        logging.getLogger("ik_llama_cpp").setLevel(logging.ERROR)
        self.model = IkLlama(str(path), n_ctx=context, n_threads=threads, verbose=False)

    def complete(self, prompt: Sequence[int], tokens: int) -> tuple[list[int], list[float]]:
        """So many greedy token ids, and when the prompt was begun and each of them was there, in seconds."""
        self.model._context.kv_cache_clear()
        times, ids = [time.perf_counter()], list[int]()
        for start in range(0, len(prompt), AT_ONCE):
            self.compute(prompt[start : start + AT_ONCE], start)
        while True:
            ids.append(self.most_probable())
            times.append(time.perf_counter())
            if len(ids) == tokens:
                return ids, times
            self.compute(ids[-1:], len(prompt) + len(ids) - 1)

    def compute(self, token_ids: Sequence[int], position: int) -> None:
        from ik_llama_cpp import _ctypes_api, _internals  # noqa: PLC0415

        batch = _internals.make_batch_range(list(token_ids), pos_start=position)
        status = self.model._context.decode(batch)
        _ctypes_api.llama_batch_free(batch)
        assert status == 0

    def most_probable(self) -> int:
        from ik_llama_cpp import _ctypes_api  # noqa: PLC0415

        size = _ctypes_api.llama_vocab_n_tokens(self.model._model.vocab)
        logits = _ctypes_api.llama_get_logits_ith(self.model.ctx, -1)
        return int(np.ctypeslib.as_array(logits, (size,)).argmax())
