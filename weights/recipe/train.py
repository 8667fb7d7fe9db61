"""Train the bundled model: one process, resumable at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.layer_kinds import LayerKind
from model.rope_config import Rope
from model.transformer import Transformer
from weights.recipe.corpus import SOURCES
from weights.recipe.joint import GOLDEN, draw_noise, joint_losses
from weights.recipe.optimizer import Muon
from weights.recipe.vocabulary import MASK_ID, VOCAB_SIZE

ROPE_THETA = 10000.0
BLOCK_SIZES = (4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the training run depends on; the same recipe and machine give the same weights."""

    tokens: int
    seed: int = 1
    batch_tokens: int = 8192
    micro_tokens: int = 2048  # activations of this many tokens fit in the processor's cache
    matrix_lr: float = 0.02
    embedding_lr: float = 0.05
    head_lr: float = 0.005
    norm_lr: float = 0.01
    peak: float = 1.0  # share of these learning rates that is reached
    warmup: float = 0.01  # share of all tokens
    decay: float = 0.45
    block_sizes: tuple[int, ...] = ()  # of the joint objective, one drawn per step; none: next tokens only
    masked_share: float = 0.5  # weight of the masked loss beside the next-token loss
    fast: bool = False  # compiled, products in bfloat16: twice as fast on a processor that multiplies bfloat16
    mix: float = 1.0  # how far from the weights it began with to the trained ones the written ones lie

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_tokens

    def learning_rate_at(self, step: int) -> float:
        """Share of the full learning rate: warm up, hold, then fall in a straight line to zero."""
        progress = (step + 1) / self.steps
        return self.peak * min(1.0, progress / self.warmup, max(0.0, 1 - step / self.steps) / self.decay)

    def context_at(self, step: int) -> int:
        """Short rows first, the whole context at the end: attention costs most where it teaches least."""
        progress = step / self.steps
        return 256 if progress < 0.6 else 512 if progress < 0.88 else 1024


def joint_recipe(tokens: int, seed: int) -> Recipe:
    """A run that goes on from autoregressive weights: smaller steps, falling nearly from the start."""
    return Recipe(
        tokens,
        seed,
        batch_tokens=4096,
        peak=0.7,
        warmup=0.02,
        decay=0.95,
        block_sizes=BLOCK_SIZES,
        masked_share=1.0,
        fast=True,
        mix=0.8,
    )


def model_config() -> ModelConfig:
    """5.6 million parameters in the Llama layout."""
    return ModelConfig(
        model_type="llama",
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=512,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        max_positions=1024,
        norm_eps=1e-5,
        layers=(LayerKind(Rope(theta=ROPE_THETA, dim=64)),) * 6,
        tie_word_embeddings=False,
        dtype="bfloat16",
        eos_token_ids=(0,),
    )


def new_model(seed: int) -> Transformer:
    """A model that begins as the uniform distribution: layers add nothing, the head is zero."""
    torch.manual_seed(seed)
    model = Transformer(model_config())
    nn.init.normal_(model.model.embed_tokens.weight, std=0.5)
    nn.init.zeros_(model.lm_head.weight)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(parameter)
    return model


def optimizers(model: Transformer, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    norms = [p for p in model.model.parameters() if p.ndim == 1]
    groups = [
        {"params": [model.model.embed_tokens.weight], "lr": recipe.embedding_lr},
        {"params": [model.lm_head.weight], "lr": recipe.head_lr},
        {"params": norms, "lr": recipe.norm_lr},
    ]
    made = [
        Muon(matrices, lr=recipe.matrix_lr),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return made


def batch(streams: dict[str, Tensor], recipe: Recipe, step: int) -> Tensor:
    """Rows (batch_tokens / context, context + 1) for one step: a function of the step alone, so that a run resumes."""
    context = recipe.context_at(step)
    rows = recipe.batch_tokens // context
    shares = [source.name for source in SOURCES for _ in range(source.rows)]
    picked = []
    for row in range(rows):
        number = step * rows + row
        stream = streams[shares[(number * 13) % len(shares)]]  # 13 and 32 share no factor: every share in turn
        start = int((number * GOLDEN + recipe.seed / 7) % 1.0 * (len(stream) - context - 1))
        picked.append(stream[start : start + context + 1])
    return torch.stack(picked).long()


def train(
    streams: dict[str, Tensor], recipe: Recipe, checkpoint: Path, start: Path | None = None, save_every: float = 120.0
) -> Iterator[dict[str, Any]]:
    """Train to the end, or on from the `checkpoint` of an earlier run, which begins with the weights in the folder
    `start`, or new; yields one record per step."""
    model = new_model(recipe.seed)
    opts = optimizers(model, recipe)
    if recipe.fast:
        model.model.compile(dynamic=False)
    first = 0
    if start is not None:
        model.load_state_dict(load_file(start / "model.safetensors"))
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(opts, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
    saved_at = time.monotonic()
    for step in range(first, recipe.steps):
        started = time.monotonic()
        share = recipe.learning_rate_at(step)
        for optimizer in opts:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * share
        losses = train_step(model, opts, batch(streams, recipe, step), recipe, step)
        seconds = time.monotonic() - started
        yield {"step": step, **losses, "lr": share, "context": recipe.context_at(step), "seconds": seconds}
        if step + 1 == recipe.steps or time.monotonic() - saved_at > save_every:
            save(checkpoint, model, opts, step + 1)
            saved_at = time.monotonic()


def train_step(
    model: Transformer, opts: list[torch.optim.Optimizer], rows: Tensor, recipe: Recipe, step: int
) -> dict[str, float]:
    """One update; the mean losses in nats per token: `loss` of the next token, and `masked` of the joint objective."""
    generator = torch.Generator().manual_seed(recipe.seed << 32 | step)
    size = 0
    if recipe.block_sizes:
        size = recipe.block_sizes[int(torch.randint(len(recipe.block_sizes), (), generator=generator))]
    totals: dict[str, float] = {}
    length = rows.shape[1] - 1
    for part in torch.split(rows, max(1, recipe.micro_tokens // length)):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.fast):
            if size:
                noise = draw_noise(len(part), length, size, generator)
                loss, masked = joint_losses(model, part, size, noise, MASK_ID)
                losses, whole = {"loss": loss, "masked": masked}, loss + recipe.masked_share * masked
            else:
                whole = F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten())
                losses = {"loss": whole}
        (whole * (len(part) / len(rows))).backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(part) / len(rows)
    for optimizer in opts:
        optimizer.step()
        optimizer.zero_grad()
    return {**totals, "block": size} if size else totals


def save(path: Path, model: Transformer, opts: list[torch.optim.Optimizer], step: int) -> None:
    """Write the whole state beside its place, then move it there, so that a stop in between loses nothing."""
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in opts], "step": step}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def append_log(folder: Path, record: dict[str, Any]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
