"""Quantised models kept as checkpoint folders: written once, then loaded memory-mapped as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from tokenglass.model.checkpoint.folder import SINGLE, Checkpoint
from tokenglass.model.checkpoint.layouts import HEAD
from tokenglass.model.checkpoint.partial import Progress, complete_or_nothing
from tokenglass.model.checkpoint.quantised_layout import Format, Quantisation, Shape, is_quantised, stored_parts
from tokenglass.model.errors import CheckpointError
from tokenglass.model.files import MAX_TOKENIZER, read_bytes
from tokenglass.model.torch_engine.engine import Watch, blank, load_engine, read_weights
from tokenglass.model.torch_engine.quantisation import (
    Int4Weight,
    Int8Weight,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedWeight,
    matrices,
    put,
    quantizing,
)
from tokenglass.model.torch_engine.transformer import Transformer

# Configuration, tokenizer, template, card and licence
BESIDE = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.json", "chat_template.jinja", "tokenizer.model"),
    *("vocab.json", "merges.txt", "vocab.txt", "README.md", "NOTICE", "LICENSE", "LICENSE.md", "LICENSE.txt"),
}
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8"}


def quantize_checkpoint(source: Checkpoint, format: Format, folder: Path) -> Iterator[Progress]:  # noqa: A002
    """Write `folder`: the weights quantised, and the other small files as they are.

    There is nothing until all of it is there. Raises StoreError where something is there already, CheckpointError where
    the weights cannot be quantised or the disk has no room.
    """
    if source.quantisation is not None:
        raise CheckpointError(f"{source.folder}: is quantised already, to {source.quantisation.format}")
    small = small_files(source.folder)
    with complete_or_nothing(folder, f"quantize {source.fingerprint} {format}") as partial:
        model = load_engine(source, dtype=source.config.dtype, device="cpu").model
        done, total = 0, sum(module.weight.nbytes for _, module in matrices(model))
        for _, weight in quantizing(model, format):
            done += weight.nbytes
            yield Progress("quantising", done, total)
        tensors = tensors_of(model)
        needed, free = sum(tensor.nbytes for tensor in tensors.values()), shutil.disk_usage(partial).free
        if needed > free:
            raise CheckpointError(f"{folder}: the weights take {needed:,} bytes and the disk has {free:,}; make room")
        for file in small:
            (partial / file.name).write_bytes(read_bytes(file, MAX_TOKENIZER, CheckpointError))
        yield from write(partial / SINGLE, tensors, Quantisation(format, source.fingerprint).metadata)


def small_files(folder: Path) -> list[Path]:
    """What belongs to a model beside its weights, by its known names.

    Raises CheckpointError for links that lead elsewhere: the new folder may be published, and what they lead to is not
    a stranger's to choose.
    """
    files = [folder / name for name in sorted(BESIDE) if (folder / name).exists()]
    for file in files:
        if not belongs(file, folder):
            raise CheckpointError(f"{file}: a link out of the folder is not copied; put the file itself there")
    return files


def belongs(file: Path, folder: Path) -> bool:
    """Whether a file lies in the folder, or in the Hugging Face cache's store of files that this snapshot links to."""
    target, home = file.resolve(), folder.resolve()
    store = home.parent.parent / "blobs"
    return target.parent == home or (home.parent.name == "snapshots" and target.parent == store)


def tensors_of(model: Transformer) -> dict[str, Tensor]:
    """Every tensor by its name in the file; those of wider numbers come first, so that each lies at its alignment."""
    found: dict[str, Tensor] = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, (QuantizedLinear, QuantizedEmbedding)):
            if name == "lm_head" and model.config.tie_word_embeddings:
                continue
            for field in fields(module.weight):
                part = getattr(module.weight, field.name)
                if isinstance(part, Tensor):
                    found[f"{name}.weight.{field.name}"] = part
    return dict(sorted(found.items(), key=lambda item: -item[1].element_size()))


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Iterator[Progress]:
    """A safetensors file (github.com/huggingface/safetensors), one tensor at a time."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-(len(head) + 8) % 64)
    done = 0
    with path.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            out.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            done += tensor.nbytes
            yield Progress("writing", done, end)


def load_quantised(checkpoint: Checkpoint, device: torch.device, watch: Watch | None = None) -> Transformer:
    """A model from a folder that `quantize_checkpoint` wrote; on a CPU its weights stay memory-mapped.

    `watch` sees each tensor as it is read. Raises CheckpointError.
    """
    assert checkpoint.quantisation is not None
    config, stored = checkpoint.config, checkpoint.quantisation.format
    if config.num_layers > len(checkpoint.tensors):  # an absurd number must not even be built without memory
        raise CheckpointError(
            f"{checkpoint.folder}: the weights do not fit config.json; {config.num_layers} layers, but only "
            f"{len(checkpoint.tensors)} tensors"
        )
    if f"{HEAD}.scales" in {info.name for info in checkpoint.tensors}:  # a head of its own, whatever the config says
        config = replace(config, tie_word_embeddings=False)
    model = blank(config)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes[HEAD]
    expected = {
        part: kind for name, shape in shapes.items() for part, kind in stored_parts(name, shape, stored).items()
    }
    checkpoint.audit(
        {name: shape for name, (_, shape) in expected.items()}, {name: dtype for name, (dtype, _) in expected.items()}
    )
    reading = read_weights(checkpoint, expected.keys(), None, device)
    read = dict(watch(reading) if watch is not None else reading)
    for name, shape in shapes.items():
        if is_quantised(name, shape):
            put(model, name.removesuffix(".weight"), assembled(name, shape, read, stored))
    model.load_state_dict({name: read[name] for name in model.state_dict()}, assign=True)
    return model.eval().requires_grad_(False)


def assembled(name: str, shape: Shape, read: dict[str, Tensor], stored: Format) -> QuantizedWeight:
    """The weight of this name, from its parts."""
    if stored == "int8":
        return Int8Weight(read[f"{name}.values"], read[f"{name}.scales"], shape[1])
    return Int4Weight(read[f"{name}.packed"], read[f"{name}.scales"], read[f"{name}.offsets"], *shape)
