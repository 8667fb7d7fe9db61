"""Train the bundled model: one process, resumable at any moment."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenglass.model.config.config import ModelConfig
from tokenglass.model.config.layer_kinds import LayerKind
from tokenglass.model.config.rope_config import Rope
from tokenglass.model.torch_engine.transformer import Transformer
from tokenglass.weights.recipe.corpus import PATTERNS, REPEATS, SOURCES
from tokenglass.weights.recipe.distillation import SoftTargets
from tokenglass.weights.recipe.dropout import add_dropout
from tokenglass.weights.recipe.growth import grow
from tokenglass.weights.recipe.joint import GOLDEN, draw_noise, joint_states, masked_loss
from tokenglass.weights.recipe.optimizer import Muon
from tokenglass.weights.recipe.schedule import Decay, Recipe
from tokenglass.weights.recipe.vocabulary import MASK_ID, VOCAB_SIZE

ROPE_THETA = 10000.0
END_ID = 0
WHOLE = (PATTERNS.name, REPEATS.name)  # rows begin with a document: a heading, or the first time, tells what comes


def model_config() -> ModelConfig:
    """11 million parameters in the Llama layout."""
    return ModelConfig(
        model_type="llama",
        vocab_size=VOCAB_SIZE,
        hidden_size=384,
        intermediate_size=768,
        num_heads=6,
        num_kv_heads=3,
        head_dim=64,
        max_positions=1024,
        norm_eps=1e-5,
        layers=(LayerKind(Rope(theta=ROPE_THETA, dim=64)),) * 6,
        tie_word_embeddings=False,
        dtype="bfloat16",
        eos_token_ids=(END_ID,),
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
    parts = [
        Muon(matrices, lr=recipe.matrix_lr, fast=recipe.fast),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0),
    ]
    for optimizer in parts:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return parts


def row_starts(streams: dict[str, Tensor], recipe: Recipe, step: int, context: int) -> Iterator[tuple[str, int]]:
    """The source of each row of a step, and where it begins: a function of the step alone, so that a run resumes."""
    rows = recipe.batch_tokens // context
    shares = [source.name for source in SOURCES for _ in range(source.rows)]
    for row in range(rows):
        number = step * rows + row
        name = shares[(number * 13) % len(shares)]  # 13 and 32 share no factor: every share in turn
        if step < recipe.copying_steps and number % 3:
            name = REPEATS.name
        place = int((number * GOLDEN + recipe.seed / 7) % 1.0 * (len(streams[name]) - context - 1))
        yield name, document_start(streams[name], place) if name in WHOLE else place


def document_start(stream: Tensor, place: int) -> int:
    """Where the document at a place of a stream begins: at the end token before it."""
    ends = (stream[: place + 1] == END_ID).nonzero()
    return int(ends[-1]) if len(ends) else 0


def batch(streams: dict[str, Tensor], recipe: Recipe, step: int, context: int) -> Tensor:
    """Rows (batch_tokens / context, context + 1) for one step."""
    rows = row_starts(streams, recipe, step, context)
    return torch.stack([streams[name][start : start + context + 1] for name, start in rows]).long()


def batch_targets(
    streams: dict[str, Tensor], targets: dict[str, SoftTargets], recipe: Recipe, step: int, context: int
) -> SoftTargets:
    """The soft targets (batch_tokens / context, context) of the batch's rows; none for sources that have none."""
    none = SoftTargets.none(context)
    rows = row_starts(streams, recipe, step, context)
    return SoftTargets.stack(
        [targets[name][start + 1 : start + context + 1] if name in targets else none for name, start in rows]
    )


class Training:
    """A model, its optimizers, and how far it has come: all that a run needs to go on."""

    def __init__(self, recipe: Recipe, start: Path | None = None):
        self.recipe = recipe
        self.model = new_model(recipe.seed)
        if start is not None:
            grow(self.model, load_file(start / "model.safetensors"))
        if recipe.dropout:
            add_dropout(self.model, recipe.dropout)
        self.optimizers = optimizers(self.model, recipe)
        self.step = 0
        self.decay: Decay | None = None  # announced; otherwise the recipe's own
        if recipe.compiled:
            self.model.model.compile(dynamic=False)

    @property
    def planned_decay(self) -> Decay:
        return self.decay or self.recipe.planned_decay

    def announce_end(self, steps: int) -> None:
        """Let the learning rate fall to zero within `steps` more steps."""
        self.decay = Decay(self.step, steps, self.planned_decay.share_at(max(0, self.step - 1)))

    def advance(self, streams: dict[str, Tensor], targets: dict[str, SoftTargets]) -> dict[str, float]:
        """One step; its record."""
        started = time.monotonic()
        share = self.recipe.learning_rate_at(self.step, self.planned_decay)
        context = self.recipe.context_at(self.step, self.planned_decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * share
        rows = batch(streams, self.recipe, self.step, context)
        soft = batch_targets(streams, targets, self.recipe, self.step, context)
        losses = train_step(self.model, self.optimizers, rows, soft, self.recipe, self.step)
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(f"step {self.step}: {losses}; the last state saved is sound")
        record = {"step": self.step, **losses, "lr": share, "context": context, "seconds": time.monotonic() - started}
        self.step += 1
        return record

    def save(self, path: Path) -> None:
        """Write the whole state beside its place, then move it there, so that a stop in between loses nothing."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "decay": self.decay and asdict(self.decay),
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        self.decay = state["decay"] and Decay(**state["decay"])


def train(
    streams: dict[str, Tensor],
    recipe: Recipe,
    work: Path,
    start: Path | None = None,
    save_every: float = 120.0,
    targets: dict[str, SoftTargets] | None = None,
) -> Iterator[dict[str, float]]:
    """Train to the end, or on from the state in the folder `work`; yields one record per step.

    `targets` are those of a teacher, for the streams that have some. A new run begins with the weights in the folder
    `start`, grown, or from nothing. A number in the file work/end announces the end: the learning rate falls to zero
    within so many steps.
    """
    state, end = work / "training.pt", work / "end"
    training = Training(recipe, start)
    if state.exists():
        training.restore(state)
    saved_at = time.monotonic()
    while training.step < training.planned_decay.end:
        if end.exists():
            training.announce_end(int(end.read_text()))
            training.save(state)
            end.unlink()
        yield training.advance(streams, targets or {})
        if training.step == training.planned_decay.end or time.monotonic() - saved_at > save_every:
            training.save(state)
            saved_at = time.monotonic()


def train_step(
    model: Transformer,
    opts: list[torch.optim.Optimizer],
    rows: Tensor,
    soft: SoftTargets,
    recipe: Recipe,
    step: int,
) -> dict[str, float]:
    """One update; the mean losses in nats per token.

    They are `loss` of the next token, `soft` of what a teacher makes of it, and `masked` of the joint objective.
    """
    seed = recipe.seed << 32 | step
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of dropout
    size = 0
    if recipe.is_joint(step):
        size = recipe.block_sizes[int(torch.randint(len(recipe.block_sizes), (), generator=generator))]
    totals: dict[str, float] = {}
    length = rows.shape[1] - 1
    at_a_time = max(1, recipe.micro_tokens // length)
    for first in range(0, len(rows), at_a_time):
        part, expected = rows[first : first + at_a_time], soft[first : first + at_a_time]
        targets = part[:, 1:]
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.fast):
            if size:
                noise = draw_noise(len(part), length, size, generator, ends=True)
                clean, noised = joint_states(model, part, size, noise, MASK_ID)
                logits, masked = model.lm_head(clean), {"masked": masked_loss(model, noised, targets, noise)}
            else:
                logits, masked = model(part[:, :-1]), {}
            own, mixed = expected.cross_entropies(logits, targets, recipe.teacher_share)
        taught = {"soft": mixed.mean()} if recipe.teacher_share else {}
        losses = {"loss": own.mean()} | taught | masked
        whole = losses.get("soft", losses["loss"]) + recipe.masked_share * losses.get("masked", 0.0)
        (whole * (len(part) / len(rows))).backward()  # type: ignore[no-untyped-call]
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(part) / len(rows)
    for optimizer in opts:
        optimizer.step()
        optimizer.zero_grad()
    return {**totals, "block": size} if size else totals


def append_log(folder: Path, record: dict[str, float]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def read_log(folder: Path) -> list[dict[str, float]]:
    """One record per step; where a run went back to its last state, the later record of a step."""
    records = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return list({record["step"]: record for record in records}.values())
