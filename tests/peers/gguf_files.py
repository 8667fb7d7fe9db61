"""GGUF files of one model in several types, for llama.cpp: the same weights, and every matrix in the type asked for.

python tests/peers/gguf_files.py FILE.gguf DIR          writes DIR/{F32,BF16,Q8_0,Q4_0}.gguf; needs gguf
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
from contenders import TYPES


def write_types(source: Path, folder: Path, types: tuple[str, ...] = TYPES) -> dict[str, Path]:
    """Files of these types, those that are there kept; embedding and head are in the type too, as ours are."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.gguf" for name in types}
    for name, path in files.items():
        if not path.exists():
            convert(source, path, gguf.GGMLQuantizationType[name])
    return files


def convert(source: Path, target: Path, kind: gguf.GGMLQuantizationType) -> None:
    """The same metadata and weights, the matrices in another type."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue  # the writer's own
        of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=of)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        wanted = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quantize(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)


def bits_per_weight(path: Path) -> float:
    """Bits per weight over the matrices of a file."""
    matrices = [tensor for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) == 2]
    return 8 * sum(int(m.n_bytes) for m in matrices) / sum(int(m.n_elements) for m in matrices)


if __name__ == "__main__":
    for name, path in write_types(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(
            f"{name:5} {bits_per_weight(path):5.2f} bits per weight   {path.stat().st_size / 2**20:,.0f} MiB   {path}"
        )
