"""A GGUF file turned into an ordinary checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.headers import TensorInfo
from tokenglass.model.checkpoint.layouts import stored_tensors
from tokenglass.model.checkpoint.partial import complete_or_nothing
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.checkpoint.store import Origin, write_origin
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import GGUFError, TokenglassError
from tokenglass.model.importers.gguf_architectures import architecture
from tokenglass.model.importers.gguf_config import config_of
from tokenglass.model.importers.gguf_file import GGUFFile
from tokenglass.model.importers.gguf_tokenizer import end_ids, tokenizer_of
from tokenglass.model.importers.gguf_weights import CODES, Weight, main_dtype, plan, read_table, write
from tokenglass.model.progress import Progress, finish
from tokenglass.model.sampling.generation_config import GenerationConfig
from tokenglass.model.text.tokenizer import Tokenizer


def import_gguf(path: Path, folder: Path, *, dtype: str = "auto") -> Generator[Progress, None, None]:
    """Write `folder`: config, tokenizer and dequantised weights; there is nothing until all of it is there.

    dtype auto loses nothing: quantised tensors become float32, float16 and bfloat16 stay. The folder is read once
    before it counts as done. Raises GGUFError and what loading a checkpoint raises.
    """
    file = GGUFFile.open(path)
    with complete_or_nothing(folder, f"import {path.resolve()} {dtype}") as partial:
        yield from fill_and_read(partial, file, dtype, str(path.resolve()))


def fill_and_read(folder: Path, file: GGUFFile, dtype: str, source: str) -> Generator[Progress, None, None]:
    """Write everything, read it once, and say where it came from. Errors name the GGUF file."""
    try:
        yield from fill(folder, file, dtype)
        Tokenizer.from_folder(folder)
        checkpoint = Checkpoint.open(folder)
        finish(read_weights(checkpoint, dtype=checkpoint.config.dtype))
    except TokenglassError as error:
        raise type(error)(f"{file.path}: {str(error).removeprefix(f'{folder}: ')}") from None
    licence = file.metadata.get("general.license")
    write_origin(folder, Origin(source, licence if isinstance(licence, str) else ""))


def fill(folder: Path, file: GGUFFile, dtype: str) -> Generator[Progress, None, None]:
    """Write the small files, then the weights. Every size is checked before anything is read or unpacked by it."""
    kind = architecture(file.metadata.get("general.architecture"))
    draft = config_of(file, "float32", lambda name, count: read_table(file, name, count))
    config = ModelConfig.from_hf(draft)
    weights = plan(file, kind, config, dtype)
    check_shapes(folder, config, weights)
    tokens = file.metadata.get("tokenizer.ggml.tokens", ())
    if isinstance(tokens, tuple) and len(tokens) > config.vocab_size:
        raise GGUFError(f"{len(tokens):,} tokens are more than the {config.vocab_size:,} rows of token_embd.weight")
    tokenizer, tokenizer_config = tokenizer_of(file.metadata)
    ends = end_ids(file.metadata)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_json(folder / "config.json", {**draft, "dtype": main_dtype(weights)})
    save_json(folder / "tokenizer_config.json", tokenizer_config)
    save_json(folder / "generation_config.json", {"bos_token_id": draft["bos_token_id"], "eos_token_id": ends})
    yield from write(folder / SINGLE, weights)


def check_shapes(folder: Path, config: ModelConfig, weights: tuple[Weight, ...]) -> None:
    """Raises CheckpointError where the tensors are not those of this config."""
    expected = {stored.name: stored.shape for stored in stored_tensors(config, Blueprint.of(config).shapes)}
    tensors = (TensorInfo(w.name, folder / SINGLE, CODES[w.dtype], w.shape, 0, w.nbytes) for w in weights)
    Checkpoint(folder, config, GenerationConfig({}), tuple(tensors)).audit(expected)


def save_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
