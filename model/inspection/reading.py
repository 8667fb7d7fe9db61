"""A text as a model reads it: for any of its tokens, what made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.engine.cache import KVCache
from tokenglass.model.engine.engine import check_ids
from tokenglass.model.errors import EngineError, ParameterError, PromptError
from tokenglass.model.inspection.attribution import Split, split_logits
from tokenglass.model.inspection.fork import Fork, ForkView, device_of, head, record
from tokenglass.model.inspection.knock_out import direct_effects, total_effect
from tokenglass.model.inspection.lens import through_layers
from tokenglass.model.inspection.records import Component, Flow, PositionFlow, Token
from tokenglass.model.torch_engine.engine import TorchEngine, check_whole
from tokenglass.model.torch_engine.storage import TensorCache
from tokenglass.model.torch_engine.transformer import Transformer

CHUNK = 256  # positions per prefill pass
LIVE_POSITIONS = 8  # knocked out per drawn step of the live view

Piece = Callable[[int], bytes]
Rows = tuple[dict[str, float | str | None], ...]  # what Step.flow holds


class Reading:
    """Keeps keys and values of the text so far, of every position in every layer, so that moving along it is cheap.

    `planned_length` is the length of the run that made the text, by which some ropes choose their factors.
    """

    def __init__(
        self, engine: TorchEngine, token_ids: Sequence[int], piece: Piece, *, planned_length: int | None = None
    ):
        if len(token_ids) < 2:
            raise PromptError("the text is one token; there is nothing before it that could have made it")
        if len(token_ids) > engine.limit:
            raise PromptError(f"the text is {len(token_ids):,} tokens and the context holds {engine.limit:,}")
        check_ids(token_ids, engine.vocab_size)
        if engine.device.type == "mps":
            raise EngineError("flow sums in float64, which mps does not have; use --device cpu")
        check_whole(engine)
        check_keeps_positions(engine.model.config)
        self.engine = engine
        self.token_ids = tuple(token_ids)
        self.piece = piece
        config = engine.model.config
        # no layer lets go of a position: the way back is as short as the way on
        self.cache = TensorCache(
            replace(config, layers=tuple(replace(kind, window=None) for kind in config.layers)),
            limit=engine.limit,
            dtype=engine.dtype,
            device=engine.device,
            planned_length=len(token_ids) if planned_length is None else planned_length,
        )

    def at(self, position: int, *, total: bool = False) -> Flow:
        """What made the token at `position`, 1 to the last. Raises ParameterError."""
        if not 1 <= position < len(self.token_ids):
            raise ParameterError(
                f"position {position} has nothing to explain; this text has the positions 1 to "
                f"{len(self.token_ids) - 1} (0 is its first token, which nothing made)"
            )
        for start in range(self.cache.lengths[0], position - 1, CHUNK):
            self.engine.forward([self.token_ids[start : min(start + CHUNK, position - 1)]], self.cache)
        before, chosen = self.token_ids[:position], self.token_ids[position]
        hidden = range(position - 1)
        with torch.inference_mode():
            return flow_of(self.engine.model, self.cache, 0, before, chosen, self.piece, lambda _: hidden, total=total)


def check_keeps_positions(config: ModelConfig) -> None:
    """Raises ParameterError for layers that fold all positions into one state, where none can be hidden."""
    if any(kind.delta for kind in config.layers):
        raise ParameterError(
            "flow cannot look into Gated DeltaNet layers, which keep no positions apart; "
            "generate --stages shows how each token was chosen"
        )


def flow_of(
    model: Transformer,
    cache: KVCache,
    row: int,
    token_ids: Sequence[int],
    chosen: int,
    piece: Piece,
    hide: Callable[[Split], Sequence[int]],
    *,
    total: bool = False,
) -> Flow:
    """What made `chosen` after `token_ids`, of which the cache's row holds at least all but the last; it is only read.

    `hide` says which earlier positions are knocked out, once the attributions are known.
    """
    last, device = len(token_ids) - 1, device_of(cache)
    positions = torch.tensor([last], device=device)
    view = ForkView(Fork(cache, row, last), positions, torch.ones(1, last + 1, dtype=torch.bool, device=device))
    with record(model) as recording:
        hidden = model.model(torch.tensor([[token_ids[-1]]], device=device), view)
    uncapped, logits = (part[0, 0] for part in head(model, hidden))
    logprobs = logits.double().log_softmax(-1)
    best = torch.topk(logprobs, 2).indices.tolist()
    runner_up = best[1] if best[0] == chosen else best[0]
    difference = (uncapped[chosen].double() - uncapped[runner_up].double()).item()
    split = split_logits(model, recording, view, (chosen, runner_up))
    components = with_rounding(split.components, difference, hidden.dtype)
    direct = direct_effects(model, cache, row, token_ids, chosen, hide(split))
    totals = {
        position: total_effect(model, cache, row, token_ids, chosen, position, logits)
        for position in (range(last) if total else ())
    }
    carried, weights = split.by_position.T.tolist(), split.weights.T.tolist()
    return Flow(
        position=last + 1,
        chosen=Token(chosen, piece(chosen)),
        logprob=logprobs[chosen].item(),
        rank=int((logprobs > logprobs[chosen]).sum()) + 1,
        entropy=entropy_bits(logprobs),
        runner_up=Token(runner_up, piece(runner_up)),
        runner_up_logprob=logprobs[runner_up].item(),
        difference=difference,
        capped=model.config.logit_softcap is not None,
        layers=through_layers(model, recording, chosen, piece),
        components=components,
        positions=tuple(
            PositionFlow(
                position=position,
                token=Token(token_id, piece(token_id)),
                attribution=tuple(carried[position]),
                weight=tuple(weights[position]),
                direct=direct.get(position),
                total=totals.get(position),
            )
            for position, token_id in enumerate(token_ids)
        ),
    )


def with_rounding(components: tuple[Component, ...], difference: float, dtype: torch.dtype) -> tuple[Component, ...]:
    """With a dtype that rounds the residual stream visibly, the terms and what its rounding made of their sum."""
    if dtype == torch.float32:
        return components
    name = f"rounding to {str(dtype).removeprefix('torch.')}"
    lost = difference - sum(component.logit for component in components)
    return (*components, Component(name, "rounding", None, lost))


def entropy_bits(logprobs: Tensor) -> float:
    probs = logprobs.exp()
    return -(torch.where(probs > 0, probs * logprobs, 0).sum() / math.log(2)).item()


def flow_rows(
    model: Transformer,
    cache: KVCache,
    token_ids: Sequence[int],
    chosen: int,
    piece: Piece,
    row: int = 0,
) -> Rows:
    """What `Step.flow` holds for a choice of `chosen` after `token_ids`, over the cache of the run, which is only read.

    A row per layer, then one per position that carried most to the logits (those alone are knocked out), in order of
    position, then one with the sums. Costs two passes of a few rows; call it for the steps that are drawn.
    """

    def telling(split: Split) -> list[int]:
        carried = split.by_position.sum(0)[:-1].abs()
        return sorted(carried.topk(min(LIVE_POSITIONS, len(carried))).indices.tolist())

    with torch.inference_mode():
        flow = flow_of(model, cache, row, token_ids, chosen, piece, telling)
    return as_rows(flow)


def as_rows(flow: Flow) -> Rows:
    """A flow as flat rows: `row` says of what, the fields are those of the records."""
    layers: Rows = tuple(
        {
            "row": "layer",
            "layer": layer.layer,
            "norm": layer.norm,
            "attention_norm": layer.attention_norm,
            "mlp_norm": layer.mlp_norm,
            "cosine": layer.cosine,
            "top": layer.top.piece.decode("utf-8", "replace"),
            "top_prob": layer.top_prob,
            "prob": layer.prob,
            "rank": layer.rank,
            "kl_bits": layer.kl_bits,
        }
        for layer in flow.layers
    )
    positions: Rows = tuple(
        {
            "row": "position",
            "position": place.position,
            "piece": place.token.piece.decode("utf-8", "replace"),
            "logit": place.logit,
            "weight": place.mean_weight,
            "kl_bits": place.direct.kl_bits,
            "logprob_change": place.direct.logprob_change,
        }
        for place in flow.positions
        if place.direct is not None
    )
    sums: dict[str, float | str | None] = {
        "row": "sums",
        "position": flow.position,
        "piece": flow.chosen.piece.decode("utf-8", "replace"),
        "runner_up": flow.runner_up.piece.decode("utf-8", "replace"),
        "logprob": flow.logprob,
        "difference": flow.difference,
        "commit_depth": flow.commit_depth,
    }
    return (*layers, *positions, sums)
