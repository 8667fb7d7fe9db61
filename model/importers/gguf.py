"""A GGUF file turned into an ordinary checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.partial import complete_or_nothing
from tokenglass.model.checkpoint.shards import SINGLE
from tokenglass.model.checkpoint.store import Origin, write_origin
from tokenglass.model.checkpoint.weights import read_weights
from tokenglass.model.config.config import ModelConfig
from tokenglass.model.errors import GGUFError, TokenglassError
from tokenglass.model.importers.gguf_architectures import architecture, unread
from tokenglass.model.importers.gguf_config import config_of
from tokenglass.model.importers.gguf_file import GGUFFile
from tokenglass.model.importers.gguf_tokenizer import end_ids, tokenizer_of
from tokenglass.model.importers.gguf_weights import constants_of, guessing_layers, read_table, weights_of
from tokenglass.model.importers.gguf_writing import Kept, Numbers, write
from tokenglass.model.progress import Progress, finish
from tokenglass.model.text.tokenizer import Tokenizer


def import_gguf(path: Path, folder: Path, *, dtype: str = "auto", keep: bool = False) -> Generator[Progress, None, str]:
    """Write `folder`: config, tokenizer and weights; there is nothing until all of it is there.

    dtype auto loses nothing: quantised tensors become float32, float16 and bfloat16 stay. With `keep`, matrices that
    int4 holds are kept in it, and the text that comes back says which. The folder is read once before it counts as
    done. Raises GGUFError and what loading a checkpoint raises.
    """
    file = GGUFFile.open(path)
    with complete_or_nothing(folder, f"import {path.resolve()} {dtype} {keep}") as partial:
        return (yield from fill_and_read(partial, file, dtype, keep, str(path.resolve())))


def fill_and_read(folder: Path, file: GGUFFile, dtype: str, keep: bool, source: str) -> Generator[Progress, None, str]:
    """Write everything, read it once, and say where it came from. Errors name the GGUF file."""
    try:
        kept = yield from fill(folder, file, dtype, keep)
        Tokenizer.from_folder(folder)
        checkpoint = Checkpoint.open(folder)
        finish(read_weights(checkpoint, dtype=checkpoint.config.dtype))
    except TokenglassError as error:
        raise type(error)(f"{file.path}: {str(error).removeprefix(f'{folder}: ')}") from None
    licence = file.metadata.get("general.license")
    write_origin(folder, Origin(source, licence if isinstance(licence, str) else ""))
    return kept


def fill(folder: Path, file: GGUFFile, dtype: str, keep: bool) -> Generator[Progress, None, str]:
    """Write the small files, then the weights. Every size is checked before anything is read or unpacked by it."""
    kind = architecture(file.metadata.get("general.architecture"))
    draft = config_of(file, "float32", lambda name, count: read_table(file, name, count))
    config = ModelConfig.from_hf(draft)
    weights = weights_of(file, kind, config)
    tokens = file.metadata.get("tokenizer.ggml.tokens", ())
    if isinstance(tokens, tuple) and len(tokens) > config.vocab_size:
        raise GGUFError(f"{len(tokens):,} tokens are more than the {config.vocab_size:,} rows of token_embd.weight")
    kept = Kept(config, weights, dtype) if keep else None
    content = kept if kept is not None and kept.names else Numbers(config, {**weights, **constants_of(config)}, dtype)
    tokenizer, tokenizer_config = tokenizer_of(file.metadata)
    ends = end_ids(file.metadata)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_json(folder / "config.json", {**draft, "dtype": content.main_dtype})
    save_json(folder / "tokenizer_config.json", tokenizer_config)
    save_json(folder / "generation_config.json", {"bos_token_id": draft["bos_token_id"], "eos_token_id": ends})
    yield from write(folder / SINGLE, content)
    guessing = "without the layers that guess further tokens" if guessing_layers(file, config) else ""
    spare = not unread(config).isdisjoint(tensor.name for tensor in file.tensors)
    keys = "without keys and values that no layer reads" if spare else ""
    return "; ".join(filter(None, ("" if kept is None else str(kept), guessing, keys)))


def save_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
