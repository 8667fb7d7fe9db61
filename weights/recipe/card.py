"""The model card: measured numbers and unedited samples."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from model.decoding.autoregressive import decode
from model.decoding.request import Request
from model.loading import LoadedModel, load_model
from model.sampling.parameters import defaults_from
from weights.recipe.corpus import SOURCES
from weights.recipe.train import Recipe

PROMPTS = (
    "Once upon a time",
    "The fox and the hen",
    "One day, a little girl named Lily",
    "There was once a king who",
    '"Where are you going?" asked the bear.',
)
SAMPLES = 20
SAMPLE_TOKENS = 120

TEMPLATE = Path(__file__).with_name("card.md")


def write_card(out: Path, recipe: Recipe, bits: Mapping[str, float], unique_tokens: int) -> None:
    """Write README.md beside the weights. `bits` are held-out bits per byte by source."""
    loaded = load_model(out, dtype="float32", device="cpu")
    config = loaded.checkpoint.config
    text = TEMPLATE.read_text().format(
        parameters=loaded.checkpoint.num_parameters,
        layers=config.num_layers,
        hidden=config.hidden_size,
        mlp=config.intermediate_size,
        heads=config.num_heads,
        head_dim=config.head_dim,
        kv_heads=config.num_kv_heads,
        vocab=config.vocab_size,
        context=config.max_positions,
        unique=unique_tokens / 1e6,
        **{source.name.removeprefix("stories-"): source.rows for source in SOURCES},
        tokens=recipe.tokens,
        seed=recipe.seed,
        trained=recipe.steps * recipe.batch_tokens,
        steps=recipe.steps,
        batch=recipe.batch_tokens,
        matrix_lr=recipe.matrix_lr,
        embedding_lr=recipe.embedding_lr,
        head_lr=recipe.head_lr,
        norm_lr=recipe.norm_lr,
        decay=recipe.decay,
        bits="\n".join(f"- {name}: **{value:.3f}**" for name, value in bits.items()),
        samples=SAMPLES,
        sample_tokens=SAMPLE_TOKENS,
        texts="\n\n".join(f"{seed}. {sample(loaded, seed)}" for seed in range(1, SAMPLES + 1)),
    )
    (out / "README.md").write_text(text)


def sample(loaded: LoadedModel, seed: int) -> str:
    """One continuation, as a Markdown list item."""
    prompt = PROMPTS[(seed - 1) % len(PROMPTS)]
    request = Request(
        loaded.tokenizer.encode(prompt),
        seed=seed,
        sampling=defaults_from(loaded.checkpoint.generation_config),
        max_new_tokens=SAMPLE_TOKENS,
        eos_token_ids=loaded.eos_token_ids,
        top=0,
    )
    text = "".join(record.text for record in decode(loaded.engine, loaded.tokenizer, request, threading.Event()))
    return f"**{prompt}**{text}".replace("\n", "\n   ")
