"""quantize: a model's weights in 8 or 4 bits, stored, and what that costs."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenglass.cli import options
from tokenglass.cli.options.completion import model_names
from tokenglass.cli.progress import watch_steps
from tokenglass.cli.say import write_json
from tokenglass.cli.terminal.console import make_console
from tokenglass.cli.terminal.opening import Opening, opening
from tokenglass.cli.text import nbytes
from tokenglass.cli.widgets.calibration import calibration_facts, calibration_rows
from tokenglass.cli.widgets.facts import facts_table
from tokenglass.model.errors import EngineError, ParameterError
from tokenglass.model.files import MIB, open_regular

if TYPE_CHECKING:
    from tokenglass.model.checkpoint.folder import Checkpoint
    from tokenglass.model.checkpoint.quantised import Quantizer
    from tokenglass.model.loaded_model import LoadedModel
    from tokenglass.model.measuring.quality import Quality


class StoredFormat(StrEnum):
    int8 = "int8"
    int4 = "int4"


Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A folder, a GGUF file, or a name of `tokenglass models`.", autocompletion=model_names
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")]
Stored = Annotated[
    StoredFormat,
    typer.Option(
        "--format",
        help="int8: a scale per 64 weights. int4: scale and offset per 32, 5 bits in all; "
        "embedding, head and values of attention stay in int8.",
    ),
]
Text = Annotated[
    Path | None,
    typer.Option("--text", metavar="FILE", help="Measure the loss on this text, else on a passage that is built in."),
]
Calibrate = Annotated[
    int | None,
    typer.Option(
        "--calibrate",
        metavar="TOKENS",
        min=0,
        show_default="2048 for int4",
        help="Tokens of the text that int4 is calibrated on; 0: all weights are rounded alike.",
    ),
]
CalibrateWith = Annotated[
    Path | None,
    typer.Option("--calibrate-with", metavar="FILE", help="Calibrate on this text, else on one that the model writes."),
]
Unmeasured = Annotated[bool, typer.Option("--no-measure", help="Do not measure what it costs.")]
TOKENS = 2048  # of the text that the loss is measured on, and of that which int4 is fitted to: more change little


def quantize(
    model: Name,
    folder: Folder,
    format: Stored = StoredFormat.int8,  # noqa: A002  (the option's name)
    calibrate: Calibrate = None,
    calibrate_with: CalibrateWith = None,
    text: Text = None,
    no_measure: Unmeasured = False,
    lora: options.Lora = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    color: options.Color = options.ColorWhen.auto,
    debug: options.Debug = False,
) -> None:
    """Store a model with weights of 8 or 4 bits, and measure what that costs.

    The folder loads like any other: `generate -m DIR`. The cost is reported as perplexity, and as mean Kullback-Leibler
    divergence in nats, against the same model in float32, on the first 2,048 tokens of a text.

    int4 is calibrated: the model writes a text first, and weights that are multiplied with larger numbers in it are
    rounded with less error than others. A text of your own takes the place of the model's.
    """
    tokens = tokens_to_read(format, calibrate, calibrate_with, text)
    with opening() as first:
        from tokenglass.cli.progress import watch_store
        from tokenglass.cli.run.adapters import open_checkpoint
        from tokenglass.model.checkpoint.folder import Checkpoint
        from tokenglass.model.checkpoint.quantised_checkpoint import quantize_checkpoint
        from tokenglass.model.engine.threads import count_threads
        from tokenglass.model.loading import load_kernels, quantizer
        from tokenglass.model.measuring.quality import held_out_text

        passage = held_out_text() if text is None else beginning(text)
        source = open_checkpoint(model, lora, first)
        kernels = load_kernels("float32", "cpu")
        make = quantizer(format.value, None if isinstance(kernels, str) else kernels, count_threads(threads))
        reference = load_reference(source, threads) if tokens or not no_measure else None
        if reference is not None and tokens:
            make = calibrate_quantizer(make, reference, tokens, calibrate_with, first)
        watch_store(quantize_checkpoint(source, folder, make), first)
        target = Checkpoint.open(folder)
        measured = None
        if reference is not None and not no_measure:
            measured = measure_cost(reference, folder, passage, threads, first)
    facts = {
        "model": str(source.folder),
        "folder": str(folder),
        "format": format.value,
        "bits_per_weight": target.bits_per_weight,
        "nbytes": target.nbytes,
        "source_nbytes": source.nbytes,
        "source_fingerprint": source.fingerprint,
        "calibration": calibration_facts(target),
    }
    if measured is not None:
        facts |= {"text": "built in" if text is None else str(text), **in_numbers(measured)}
    if as_json:
        write_json(facts, indent=2)
        return
    make_console(sys.stdout, color=color.value).print(facts_table(in_words(facts)))


def tokens_to_read(stored: StoredFormat, tokens: int | None, calibrate_with: Path | None, text: Path | None) -> int:
    """Of the text that weights are fitted to; 0: none. Raises ParameterError."""
    if stored is not StoredFormat.int4:
        if tokens or calibrate_with is not None:
            raise ParameterError(
                "int8 rounds every weight to the nearest step and needs no text; leave --calibrate out"
            )
        return 0
    if calibrate_with is not None and tokens == 0:
        raise ParameterError("--calibrate 0 reads nothing, and --calibrate-with names a text; leave one out")
    if calibrate_with is not None and text is not None and calibrate_with.resolve() == text.resolve():
        raise ParameterError(
            "--text and --calibrate-with are one file; what was fitted to a text must be measured on another"
        )
    return TOKENS if tokens is None else tokens


def beginning(text: Path) -> str:
    """As much of a text as can make the tokens that are measured. Raises OSError."""
    with open_regular(text) as opened:
        return opened.read(MIB).decode("utf-8", "replace")


def load_reference(source: Checkpoint, threads: int | None) -> LoadedModel:
    """The model in float32. Raises TokenglassError."""
    from tokenglass.model.loading import load_model

    try:
        return load_model(
            source.folder, dtype="float32", device="cpu", backend="auto", threads=threads, adapters=source.adapters
        )
    except EngineError as error:
        raise EngineError(f"{error}, or --no-measure, for int4 with --calibrate 0") from None


def calibrate_quantizer(
    quantizer: Quantizer, reference: LoadedModel, tokens: int, text: Path | None, first: Opening
) -> Quantizer:
    """The same, fitted to so many tokens of a text, or of the model's own. Raises OSError and ParameterError."""
    from tokenglass.model.checkpoint.quantised_layout import Calibration
    from tokenglass.model.measuring.calibration import sum_input_squares, windows_of, write_texts

    sha256 = None
    if text is None:
        steps = write_texts(reference, tokens)
        *_, texts = watch_steps(steps, "writing", tokens, lambda texts: sum(map(len, texts)), first)
    else:
        content = beginning(text)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        if not content.strip():
            raise ParameterError(f"{text}: has no text to calibrate with")
        texts = windows_of(reference.tokenizer.encode(content)[:tokens], reference.engine.limit)
    count = sum(map(len, texts))
    sums = sum_input_squares(reference, texts)
    *_, squares = watch_steps(sums, "calibrating", count, lambda sums: sums.tokens, first)
    return replace(quantizer, squares=squares.by_name, calibration=Calibration(count, sha256))


def measure_cost(reference: LoadedModel, folder: Path, passage: str, threads: int | None, first: Opening) -> Quality:
    """What the folder's model loses to its source in float32 on a text."""
    from tokenglass.model.loading import load_model
    from tokenglass.model.measuring.quality import compare

    other = load_model(folder, device="cpu", backend="auto", threads=threads)
    token_ids = reference.tokenizer.encode(passage)[:TOKENS]
    comparisons = compare(reference.engine, other.engine, token_ids)
    *_, cost = watch_steps(comparisons, "measuring", len(token_ids) - 1, lambda quality: quality.tokens, first)
    return cost


def in_numbers(quality: Quality) -> dict[str, Any]:
    """The measurement by the names that JSON uses."""
    return {
        "tokens": quality.tokens,
        "reference_perplexity": quality.reference_perplexity,
        "perplexity": quality.perplexity,
        "perplexity_ratio": quality.perplexity_ratio,
        "mean_kl_nats": quality.mean_kl,
        "agreement": quality.agreement,
    }


def in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The same facts as rows for people."""
    smaller = f"{nbytes(facts['nbytes'])}, from {nbytes(facts['source_nbytes'])}"
    rows = [
        ("folder", facts["folder"]),
        ("stored as", f"{facts['format']}, {facts['bits_per_weight']:.2f} bits per weight, {smaller}"),
        *calibration_rows(facts["calibration"]),
    ]
    if "tokens" not in facts:
        return [*rows, ("cost", "not measured")]
    change = f"{facts['perplexity_ratio'] - 1:+.2%}".replace("%", " %")
    return [
        *rows,
        (
            "measured on",
            f"{facts['tokens']:,} tokens of {'a built-in passage' if facts['text'] == 'built in' else facts['text']}",
        ),
        ("perplexity", f"{facts['perplexity']:.3f}, float32 {facts['reference_perplexity']:.3f} ({change})"),
        ("mean KL", f"{facts['mean_kl_nats']:.5f} nats from float32"),
        ("first choice", f"the same as float32's in {facts['agreement']:.1%} of the places".replace("%", " %")),
    ]
