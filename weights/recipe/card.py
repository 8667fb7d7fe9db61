"""The model card: measured numbers and unedited samples."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.parallel import decode_parallel
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.weights.recipe.corpus import SOURCES
from tokenglass.weights.recipe.evaluate import BlockLosses
from tokenglass.weights.recipe.schedule import Recipe
from tokenglass.weights.recipe.vocabulary import MASK_ID

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
SAMPLES_TEMPLATE = TEMPLATE.with_name("card_samples.md")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model reaches on held-out text: bits per byte by source, losses by block size over `block_tokens`."""

    bits: Mapping[str, float]
    blocks: Mapping[int, BlockLosses]
    block_tokens: int


def write_card(
    out: Path, recipe: Recipe, log: list[dict[str, float]], before: Measured | None, after: Measured, reading: str
) -> None:
    """Write README.md beside the weights of a run: what an earlier edition and this one reach, and what was logged.

    `reading` is the table of the reading test, or empty.
    """
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
        rows={source.name: source.rows for source in SOURCES},
        trained=len(log) * recipe.batch_tokens,
        joint=sum("masked" in record for record in log) / len(log),
        steps=len(log),
        recipe=recipe,
        block_sizes=", ".join(map(str, recipe.block_sizes)),
        fall=sum(record["lr"] < recipe.peak for record in log[recipe.warmup_steps :]),
        contexts=", ".join(f"{steps:,} steps of {size:,}" for size, steps in contexts(log).items()),
        curve="\n".join(curve_rows(log, recipe.batch_tokens)),
        bits="\n".join(
            f"| {name} | {before.bits[name]:.3f} | **{bits:.3f}** |" if before else f"| {name} | | **{bits:.3f}** |"
            for name, bits in after.bits.items()
        ),
        block_tokens=after.block_tokens,
        blocks="\n".join(
            block_row(size, before.blocks[size] if before else None, losses) for size, losses in after.blocks.items()
        ),
        reading=reading or "(not run)",
    )
    (out / "README.md").write_text(text)
    write_samples(out, loaded)


def write_samples(out: Path, loaded: LoadedModel) -> None:
    """Write the card's samples anew, all from their heading on."""
    card = out / "README.md"
    seeds = range(1, SAMPLES + 1)
    parallel = {seed: RULES[(seed - 1) // len(PROMPTS)] for seed in range(1, len(RULES) * len(PROMPTS) + 1)}
    text = SAMPLES_TEMPLATE.read_text().format(
        samples=SAMPLES,
        sample_tokens=SAMPLE_TOKENS,
        texts="\n\n".join(f"{seed}. {sample(loaded, seed)}" for seed in seeds),
        parallel_samples=len(parallel),
        block_size=RULES[0].block_size,
        threshold=RULES[0].threshold,
        parallel_texts="\n\n".join(f"{seed}. {sample(loaded, seed, rule)}" for seed, rule in parallel.items()),
    )
    head = card.read_text().partition(f"## {SAMPLES} samples, unedited")[0]
    card.write_text(head + text)


def contexts(log: list[dict[str, float]]) -> Counter[int]:
    return Counter(int(record["context"]) for record in log)


def curve_rows(log: list[dict[str, float]], batch_tokens: int, parts: int = 12) -> Iterator[str]:
    """The loss curve as rows of a table: means over equal parts of the run."""
    for part in range(parts):
        records = log[part * len(log) // parts : (part + 1) * len(log) // parts]
        masked = [record["masked"] for record in records if "masked" in record]
        if records and masked:
            loss = fmean(record["loss"] for record in records)
            tokens = (records[-1]["step"] + 1) * batch_tokens / 1e6
            yield f"| {tokens:.2f} | {loss:.3f} | {fmean(masked):.3f} | {records[-1]['lr']:.2f} |"


def block_row(size: int, before: BlockLosses | None, after: BlockLosses) -> str:
    measured = [after.next_token, after.any_order, after.at_once]
    cells = [f"{nats:.2f}" for nats in measured]
    cells += [f"{nats:.2f}" for nats in (before.any_order, before.at_once)] if before else ["", ""]
    return f"| {size} | {' | '.join(cells)} |"


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
        records = decode(Job(loaded.engine, loaded.tokenizer, request, interrupt))
    else:
        records = decode_parallel(Job(loaded.engine, loaded.tokenizer, request, interrupt, mask_id=MASK_ID), parallel)
    text = "".join(record.text for record in records)
    return f"**{prompt}**{text}".replace("\n", "\n   ")
