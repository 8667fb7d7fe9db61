"""Models as transformers has them and as we do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from families import CASES, save

from tokenglass.model.checkpoint.store import bundled_folder
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model


def load_pair(name: str, folder: Path) -> tuple[Any, LoadedModel]:
    """tale, or a small random model of a family, written to the folder; in float32."""
    if name == "tale":
        from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

        folder = bundled_folder()
        reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    else:
        reference = save(folder, *CASES[name])
    return reference, load_model(folder, backend="auto", dtype="float32")
