"""A checkpoint folder, from its headers and small files: what it holds, and whether that fits. No torch here."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.adapter import Adapter
from tokenglass.model.checkpoint.adapting import Change, plan_changes
from tokenglass.model.checkpoint.blueprint import Blueprint
from tokenglass.model.checkpoint.formats.method import Method
from tokenglass.model.checkpoint.formats.methods import method_of
from tokenglass.model.checkpoint.formats.packing import RANGES, Packing
from tokenglass.model.checkpoint.headers import DTYPES, Header, TensorInfo, read_header
from tokenglass.model.checkpoint.layouts import Stored, stored_tensors
from tokenglass.model.checkpoint.quantised_layout import Format, Quantisation, quantisation_of, weights_in
from tokenglass.model.checkpoint.shards import expected_tensors, shards_of
from tokenglass.model.checkpoint.wrapped import split_drafts, split_wrapper
from tokenglass.model.config.config import ModelConfig, names_dtype
from tokenglass.model.config.fields import first_few, shown_name
from tokenglass.model.config.wrappers import text_part
from tokenglass.model.errors import CheckpointError
from tokenglass.model.files import MAX_CONFIG, open_regular, read_bytes, read_json
from tokenglass.model.sampling.generation_config import GenerationConfig

FORMATS: tuple[Format, ...] = ("int8", "int4")
BITS = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "int4": 5}  # per weight, scales of int8 apart
HEADER_BYTES_PER_EXPERT = 2**12  # eighteen tensors, where three matrices are packed in six each
HEADER_BYTES, HEADER_BYTES_PER_LAYER = 2**20, 2**14  # what a file names at most: 50 tensors a layer, and room to spare
# Tables and causal masks that old checkpoints store and nobody reads
RECOMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|(attn|attention)\.(masked_)?bias)$")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder, its configuration and headers read, no weights loaded."""

    folder: Path
    config: ModelConfig
    generation_config: GenerationConfig
    tensors: tuple[TensorInfo, ...]
    quantisation: Quantisation | None = None  # what `tokenglass quantize` made of it
    other_tensors: tuple[TensorInfo, ...] = ()  # beside the text model
    adapters: tuple[Adapter, ...] = ()  # that are merged into the weights as they are read
    method: Method | None = None  # that a release was quantised with

    @staticmethod
    def open(folder: Path) -> Checkpoint:
        """Read the small files and the headers. Raises CheckpointError or ConfigError."""
        _refuse_other_formats(folder)
        raw: Mapping[str, Any] = read_json(folder / "config.json")
        config = ModelConfig.from_hf(raw)
        most = HEADER_BYTES + config.num_layers * HEADER_BYTES_PER_LAYER + config.num_experts * HEADER_BYTES_PER_EXPERT
        shards = shards_of(folder)
        headers = {file: read_header(file, most) for file in shards}
        tensors = tuple(info for file, names in shards.items() for info in expected_tensors(file, headers[file], names))
        quantisation = _quantisation(headers)
        method = None if quantisation is not None else method_of(raw, folder)
        if config.wrapper is not None:
            raw, (tensors, others) = text_part(raw), split_wrapper(tensors)
        else:
            tensors, others = split_drafts(tensors)
        if not names_dtype(raw):
            config = replace(config, dtype=_stored_dtype(tensors))
        if method is not None and config.dtype == "float16":  # which the kernels do not know
            config = replace(config, dtype="bfloat16")
        return Checkpoint(
            folder=folder,
            config=config,
            generation_config=GenerationConfig.from_folder(folder, raw),
            tensors=tensors,
            quantisation=quantisation,
            other_tensors=others,
            method=method,
        )

    def with_adapters(self, adapters: tuple[Adapter, ...]) -> Checkpoint:
        """The same model with these merged into it. Raises CheckpointError where it is stored in fewer bits."""
        if adapters and self.quantisation is not None:
            stored = self.quantisation.format
            raise CheckpointError(
                f"{self.folder}: is stored as {stored}, into which no adapter can be merged; name the model that it "
                f"was made from, with --quantize {stored}"
            )
        return replace(self, adapters=adapters)

    @cached_property
    def blueprint(self) -> Blueprint:
        return Blueprint.of(self.config)

    @cached_property
    def packing(self) -> Packing | None:
        """The matrices of a quantised release; None where weights are stored as they are."""
        return None if self.method is None else Packing.of(self.method, self.tensors, self.layout)

    @cached_property
    def layout(self) -> Mapping[str, Stored]:
        """What the files may hold, by the names of unpacked tensors, the head apart from the embedding.

        Raises CheckpointError.
        """
        self.check_layers()
        names = {info.name for info in self.tensors}
        present = names if self.method is None else names | {self.method.unpacked_name(name) for name in names}
        untied = Blueprint.of(replace(self.config, tie_word_embeddings=False))
        return {stored.name: stored for stored in stored_tensors(self.config, untied.shapes, present)}

    @cached_property
    def kept_formats(self) -> Mapping[str, Format]:
        """The packed weights that int4 or int8 holds exactly, with which; from their scales alone."""
        return {} if self.packing is None else self.packing.kept_formats(self.blueprint, self.changes.keys())

    @cached_property
    def changes(self) -> Mapping[str, Change]:
        """What adapters change in the tensors of `layout`. Raises CheckpointError where one does not fit."""
        return plan_changes(self.adapters, self.layout, self.config)

    @property
    def num_parameters(self) -> int:
        return sum(self.dtypes.values())

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored per parameter, scales and offsets included."""
        return 8 * self.nbytes / max(1, self.num_parameters)

    def nbytes_as(self, kind: str) -> int:
        """Bytes of the weights in memory when they are loaded in this dtype or format; quantised ones stay as they are
        stored, and tables that stay on the disk take none."""
        blueprint = self.blueprint
        if self.quantisation is not None:
            return self.nbytes - sum(info.nbytes for info in self.tensors if info.name in blueprint.on_disk)
        loaded = {name: math.prod(shape) for name, shape in blueprint.shapes.items() if name not in blueprint.on_disk}
        target = next((known for known in FORMATS if known == kind), None)
        kept = {name: stored for name, stored in self.kept_formats.items() if target in (None, stored)}
        quantised = {name: blueprint.format_of(name, target) or kind for name in loaded} if target else {}
        kinds = {**quantised, **kept}
        return sum(size * BITS[kinds.get(name, kind)] for name, size in loaded.items()) // 8

    @property
    def dtypes(self) -> dict[str, int]:
        """Parameters per dtype, by the usual names."""
        counts: dict[str, int] = {}
        packing = self.packing
        if packing is not None and packing.matrices:
            counts["packed"] = packing.num_weights
        for info in self.tensors:
            if packing is not None and info.name in packing.names:
                continue
            name, size = DTYPES.get(info.dtype, info.dtype), info.size
            if self.quantisation is not None:
                name, size = weights_in(info.name, info.shape, name, self.blueprint.shapes)
            if size or self.quantisation is None:
                counts[name] = counts.get(name, 0) + size
        return counts

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """End tokens that generation_config.json names; where there is none, config.json."""
        return self.generation_config.eos_token_ids

    def check_layers(self) -> None:
        """Raises CheckpointError for more layers than there are tensors, before names are made of an absurd number."""
        layers, count = self.config.num_layers, len(self.tensors)
        if layers > count:
            raise CheckpointError(
                f"{self.folder}: the weights do not fit config.json; {layers} layers, but only {count} tensors"
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config.json, every tensor's name, dtype and shape, both ends (4 KiB) of each file, and all of
        the adapters."""
        digest = hashlib.sha256(read_bytes(self.folder / "config.json", MAX_CONFIG))
        for info in sorted(self.tensors, key=lambda info: info.name):
            digest.update(f"{info.name} {info.dtype} {info.shape}\n".encode())
        for file in sorted({info.file for info in self.tensors}):
            with open_regular(file) as opened:
                header = int.from_bytes(opened.read(8), "little")
                opened.seek(8 + header)
                digest.update(opened.read(4096))
                opened.seek(-min(4096, file.stat().st_size), 2)
                digest.update(opened.read(4096))
        for adapter in self.adapters:
            digest.update(f"{adapter.fingerprint} {adapter.scale!r}\n".encode())
        return digest.hexdigest()

    def audit(self, expected: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str] | None = None) -> None:
        """Raises CheckpointError for missing or wrongly shaped tensors, and dtypes that cannot be run.

        Quantised checkpoints fix the dtype of each tensor: `dtypes`, by safetensors' names. This program wrote them, so
        a tensor that does not belong to them is an error too; elsewhere it is left aside, as in transformers.
        """
        packed = () if self.packing is None else self.packing.names
        infos = {i.name: i for i in self.tensors if i.name not in packed and not RECOMPUTED.search(i.name)}
        wrong = {
            "missing": [name for name in expected if name not in infos],
            "unexpected": [shown_name(name) for name in infos if name not in expected],
            "wrong shape": [
                f"{name} is {list(infos[name].shape)}, expected {list(shape)}"
                for name, shape in expected.items()
                if name in infos and infos[name].shape != shape
            ],
            "unsupported dtype": [
                f"{shown_name(info.name)} is {shown_name(info.dtype)}"
                for info in infos.values()
                if info.name in expected
                and (info.dtype not in DTYPES if dtypes is None else info.dtype != dtypes.get(info.name, info.dtype))
            ],
        }
        complaints = [f"{kind}: {first_few(texts)}" for kind, texts in wrong.items() if texts]
        if any(texts for kind, texts in wrong.items() if kind != "unexpected" or dtypes is not None):
            raise CheckpointError(f"{self.folder}: the weights do not fit config.json; {'; '.join(complaints)}")

    def unread(self, expected: Collection[str]) -> str | None:
        """A note on tensors that no weight of the model is made of; None where there are none."""
        ignored = RECOMPUTED if self.packing is None else re.compile(f"{RECOMPUTED.pattern}|{RANGES.pattern}")
        names = [i.name for i in self.tensors if i.name not in expected and not ignored.search(i.name)]
        few = first_few([shown_name(name) for name in names])
        return f"the weights hold what the model has no place for, not used: {few}" if names else None


def _refuse_other_formats(folder: Path) -> None:
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; -m takes a checkpoint folder in Hugging Face's layout")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; -m takes a checkpoint folder in Hugging Face's layout")
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder}: a LoRA adapter, not a whole model; give it with --lora, and the model that it is for with -m"
        )


def _stored_dtype(tensors: Collection[TensorInfo]) -> str:
    """That of the first tensor with one that can be computed in."""
    return next((DTYPES[info.dtype] for info in tensors if info.dtype in DTYPES), "float32")


def _quantisation(headers: Mapping[Path, Header]) -> Quantisation | None:
    """What the files' metadata says, which must be the same in all. Raises CheckpointError."""
    kinds = {quantisation_of(header.metadata, file) for file, header in headers.items()}
    if len(kinds) > 1:
        raise CheckpointError(f"{min(headers).parent}: its files are not quantised alike; quantise the model again")
    return kinds.pop()
