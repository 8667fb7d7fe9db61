"""A GGUF file turned into an ordinary checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.checkpoint import SINGLE
from model.config import ModelConfig
from model.errors import GGUFError, TokenglassError
from model.importers.gguf_architectures import ROPE_FACTORS, architecture
from model.importers.gguf_config import config_of
from model.importers.gguf_file import GGUFFile
from model.importers.gguf_tokenizer import end_ids, tokenizer_of
from model.importers.gguf_weights import main_dtype, nbytes_stored, plan, read_values, write
from model.importers.partial import Progress, complete_or_nothing
from model.loading import load_model
from model.store import Origin, write_origin


def import_gguf(path: Path, folder: Path, *, dtype: str = "auto") -> Iterator[Progress]:
    """Write `folder`: config, tokenizer and dequantised weights; there is nothing until all of it is there.

    dtype auto loses nothing: quantised tensors become float32, float16 and bfloat16 stay. The folder is loaded once
    before it counts as done. Raises GGUFError and what loading a checkpoint raises.
    """
    file = GGUFFile.open(path)
    with complete_or_nothing(folder, f"import {path.resolve()} {dtype}") as partial:
        yield from fill_and_load(partial, file, dtype, str(path.resolve()))


def fill_and_load(folder: Path, file: GGUFFile, dtype: str, source: str) -> Iterator[Progress]:
    """Write everything, load it once, and say where it came from. Errors name the GGUF file."""
    try:
        yield from fill(folder, file, dtype)
        load_model(folder, device="cpu")
    except TokenglassError as error:
        raise type(error)(f"{file.path}: {str(error).removeprefix(f'{folder}: ')}") from None
    licence = file.metadata.get("general.license")
    write_origin(folder, Origin(source, licence if isinstance(licence, str) else ""))


def fill(folder: Path, file: GGUFFile, dtype: str) -> Iterator[Progress]:
    """Write the small files, then the weights."""
    kind = architecture(file.metadata.get("general.architecture"))
    draft = config_of(file, "float32", rope_factors(file))
    heads = {"attn_q": draft["num_attention_heads"], "attn_k": draft["num_key_value_heads"]}
    ModelConfig.from_hf(draft)  # refuses what cannot be run, before anything large is written
    weights = plan(file, kind, heads, dtype)
    tokenizer, tokenizer_config = tokenizer_of(file.metadata)
    ends = end_ids(file.metadata)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_json(folder / "config.json", {**draft, "dtype": main_dtype(weights)})
    save_json(folder / "tokenizer_config.json", tokenizer_config)
    save_json(folder / "generation_config.json", {"bos_token_id": draft["bos_token_id"], "eos_token_id": ends})
    yield from write(folder / SINGLE, file, weights)


def rope_factors(file: GGUFFile) -> list[float] | None:
    """The divisors of the rotary frequencies, where the file holds some. Raises GGUFError."""
    tensor = next((tensor for tensor in file.tensors if tensor.name == ROPE_FACTORS), None)
    if tensor is None:
        return None
    nbytes = nbytes_stored(tensor)
    if tensor.offset + nbytes > file.path.stat().st_size:
        raise GGUFError(f"damaged or incomplete ({ROPE_FACTORS} ends after the file)")
    return [float(value) for chunk in read_values(file, tensor, nbytes) for value in chunk.flatten()]


def save_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
