"""The model card: measured numbers and unedited samples."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.decoding.autoregressive import decode
from model.decoding.parallel import decode_parallel
from model.decoding.request import Request
from model.decoding.reveal import ParallelParameters
from model.loading import LoadedModel, load_model
from weights.recipe.corpus import SOURCES
from weights.recipe.evaluate import BlockLosses
from weights.recipe.train import Recipe
from weights.recipe.vocabulary import MASK_ID

PROMPTS = (
    "Once upon a time",
    "The fox and the hen",
    "One day, a little girl named Lily",
    "There was once a king who",
    '"Where are you going?" asked the bear.',
)
SAMPLES = 20
SAMPLE_TOKENS = 120
RULES = (ParallelParameters(threshold=0.9), ParallelParameters(passes=4), ParallelParameters(passes=1))

TEMPLATE = Path(__file__).with_name("card.md")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model reaches on held-out text: bits per byte by source, losses by block size over `block_tokens`."""

    bits: Mapping[str, float]
    blocks: Mapping[int, BlockLosses]
    block_tokens: int


def write_card(out: Path, recipe: Recipe, before: Measured, after: Measured, unique_tokens: int) -> None:
    """Write README.md beside the weights of the second run, which was measured before and after."""
    loaded = load_model(out, dtype="float32", device="cpu")
    config = loaded.checkpoint.config
    seeds = range(1, SAMPLES + 1)
    parallel = {seed: RULES[(seed - 1) // len(PROMPTS)] for seed in range(1, len(RULES) * len(PROMPTS) + 1)}
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
        peak=recipe.peak,
        warmup=recipe.warmup,
        decay=recipe.decay,
        block_sizes=", ".join(map(str, recipe.block_sizes)),
        masked_share=recipe.masked_share,
        mix=recipe.mix,
        bits="\n".join(f"| {name} | {before.bits[name]:.3f} | **{bits:.3f}** |" for name, bits in after.bits.items()),
        block_tokens=after.block_tokens,
        blocks="\n".join(block_row(size, before.blocks[size], losses) for size, losses in after.blocks.items()),
        samples=SAMPLES,
        sample_tokens=SAMPLE_TOKENS,
        texts="\n\n".join(f"{seed}. {sample(loaded, seed)}" for seed in seeds),
        parallel_samples=len(parallel),
        block_size=RULES[0].block_size,
        threshold=RULES[0].threshold,
        parallel_texts="\n\n".join(f"{seed}. {sample(loaded, seed, rule)}" for seed, rule in parallel.items()),
    )
    (out / "README.md").write_text(text)


def block_row(size: int, before: BlockLosses, after: BlockLosses) -> str:
    found = (after.next_token, after.any_order, after.at_once, before.any_order, before.at_once)
    return f"| {size} | {' | '.join(f'{nats:.2f}' for nats in found)} |"


def sample(loaded: LoadedModel, seed: int, parallel: ParallelParameters | None = None) -> str:
    """One continuation, as a Markdown list item; in blocks where `parallel` says how."""
    prompt = PROMPTS[(seed - 1) % len(PROMPTS)]
    request = Request(
        loaded.tokenizer.encode(prompt),
        seed=seed,
        sampling=loaded.checkpoint.generation_config.sampling(),
        max_new_tokens=SAMPLE_TOKENS,
        eos_token_ids=loaded.eos_token_ids,
        top=0,
    )
    interrupt = threading.Event()
    if parallel is None:
        records = decode(loaded.engine, loaded.tokenizer, request, interrupt)
    else:
        records = decode_parallel(loaded.engine, loaded.tokenizer, request, interrupt, parallel, MASK_ID)
    text = "".join(record.text for record in records)
    return f"**{prompt}**{text}".replace("\n", "\n   ")
