"""An imported GGUF file against llama.cpp (token ids) and transformers (logits), both reading the same file.

python tests/peers/imported_gguf.py FILE.gguf          needs xllamacpp, transformers and accelerate
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from llama_cpp import LlamaCpp

from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.loading import load_model
from tokenglass.model.torch_engine.engine import as_tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from unicode_lines import unicode_lines

LINES = 1000


def main(path: Path) -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        start = time.perf_counter()
        for _ in import_gguf(path, folder):
            pass
        print(f"imported in {time.perf_counter() - start:.1f} s")
        ours = load_model(folder, device="cpu")
        llama_cpp = LlamaCpp(path)
        encoded = [(line, ours.tokenizer.encode(line)) for line in unicode_lines(LINES)]
        differ = [line for line, ids in encoded if ids[len(ours.tokenizer.start_ids) :] != llama_cpp.tokenize(line)]
        total = sum(len(ids) for _, ids in encoded)
        print(f"token ids: {len(differ)} of {LINES} lines differ from llama.cpp's ({total:,} tokens)")
        for line in differ[:5]:
            print(f"  {line!r}")
        ids = torch.tensor([[token_id for _, line_ids in encoded for token_id in line_ids][:128]])
        difference = (as_tensor(ours.engine.forward(ids, None, last=None)[0]) - theirs(path, ids)).abs().max().item()
        print(f"logits: largest difference from transformers' reading {difference:.1e} over {ids.shape[1]} positions")


def theirs(path: Path, ids: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  (takes seconds)

    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    print(f"transformers read the file in {time.perf_counter() - start:.1f} s")
    with torch.inference_mode():
        return model.eval()(ids).logits


if __name__ == "__main__":
    main(Path(sys.argv[1]))
