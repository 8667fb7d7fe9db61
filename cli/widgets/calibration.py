"""The text that a stored model's weights are fitted to, in numbers and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenglass.model.checkpoint.folder import Checkpoint


def calibration_facts(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """By the names that JSON uses; None where there was no text. `sha256` null: the model's own."""
    quantisation = checkpoint.quantisation
    if quantisation is None or quantisation.calibration is None:
        return None
    return {"tokens": quantisation.calibration.tokens, "sha256": quantisation.calibration.sha256}


def calibration_rows(facts: dict[str, Any] | None) -> list[tuple[str, str]]:
    """As in "2,048 tokens that the model wrote"; nothing where there was no text."""
    if facts is None:
        return []
    text = "that the model wrote" if facts["sha256"] is None else f"of a text, SHA-256 {facts['sha256'][:16]}"
    return [("calibrated on", f"{facts['tokens']:,} tokens {text}")]
