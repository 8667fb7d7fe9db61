"""Through the layers: what each added to the residual stream, and what the head would read from it there."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenglass.model.inspection.fork import Recording, blocks, head
from tokenglass.model.inspection.records import LayerFlow, Token
from tokenglass.model.torch_engine.transformer import Transformer


def divergence_bits(logprobs: Tensor, others: Tensor) -> Tensor:
    """Kullback-Leibler divergence of `logprobs` from `others` (..., vocab), natural logarithms, in bits (...).

    Never below 0: rounding is not a finding. A token of probability 0 adds nothing.
    """
    probs = logprobs.exp()
    terms = torch.where(probs > 0, probs * (logprobs - others), 0)
    return (terms.sum(-1) / math.log(2)).clamp(min=0)


def through_layers(
    model: Transformer, recording: Recording, chosen: int, piece: Callable[[int], bytes]
) -> tuple[LayerFlow, ...]:
    """One record for the embedding and one per layer; the lens of the last is the model's own distribution."""
    residual = torch.stack(recording.residual)  # (layers + 1, hidden)
    logprobs = head(model, model.model.norm(residual))[1].double().log_softmax(-1)
    tops = logprobs.max(-1)
    ranks = (logprobs > logprobs[:, chosen, None]).sum(-1) + 1
    lost = divergence_bits(logprobs[-1], logprobs)
    norms = residual.float().norm(dim=-1)
    cosines = F.cosine_similarity(residual[1:].float(), residual[:-1].float(), dim=-1)
    updates = [
        [part.float().norm().item() for part in (block.after_mixer(attended), block.after_mlp(mlp))]  # as it is added
        for block, attended, mlp in zip(blocks(model), recording.attended, recording.mlp, strict=True)
    ]
    return tuple(
        LayerFlow(
            layer=layer,
            norm=norms[layer].item(),
            attention_norm=updates[layer - 1][0] if layer else None,
            mlp_norm=updates[layer - 1][1] if layer else None,
            cosine=cosines[layer - 1].item() if layer else None,
            top=Token(top := int(tops.indices[layer]), piece(top)),
            top_prob=tops.values[layer].exp().item(),
            prob=logprobs[layer, chosen].exp().item(),
            rank=int(ranks[layer]),
            kl_bits=lost[layer].item(),
        )
        for layer in range(len(residual))
    )
