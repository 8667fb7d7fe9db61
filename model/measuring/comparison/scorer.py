"""How probable a text is under a model that did not have to write it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.measuring.comparison.texts import Share, shared_length
from tokenglass.model.measuring.quality import log_softmax


@dataclass(frozen=True, slots=True)
class Scorer:
    """An autoregressive model that reads what others wrote."""

    loaded: LoadedModel

    def bits(self, prompt: str, continuation: str) -> Share:
        """Bits that the continuation takes behind its prompt, over its bytes in UTF-8.

        Text is compared, so the scorer may have any tokenizer: what counts are its tokens behind those that the prompt
        alone begins with. A text beyond the scorer's context loses its beginning. Raises EngineError.
        """
        engine, tokenizer = self.loaded.engine, self.loaded.tokenizer
        if not continuation:
            return Share(0, 0)
        ids = tokenizer.encode(prompt + continuation)
        known = max(1, shared_length(tokenizer.encode(prompt), ids))
        cut = max(0, len(ids) - engine.limit)
        ids, known = ids[cut:], max(1, known - cut)
        if known >= len(ids):
            return Share(0, 0)
        logprobs = log_softmax(engine.forward([ids], None, last=None)[0][known - 1 : -1])
        nats = -float(logprobs[np.arange(len(logprobs)), ids[known:]].sum())
        return Share(nats / math.log(2), len(continuation.encode("utf-8", "replace")))
