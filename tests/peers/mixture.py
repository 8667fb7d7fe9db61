"""A random mixture of experts of a billion weights, of which a token reads four tenths: its speed beside the time that
reading these bytes takes on this machine.

    python tests/peers/mixture.py FOLDER [--weights bfloat16 int8 int4] [--context 128] [--tokens 16] [--runs 5]

The model is written to FOLDER where it is not there yet (2.7 GB), by transformers, with the sizes of a GraniteMoe
1B-A400M. Which experts a token takes is up to its router, so no two tokens read the same. The ratio is that of the time
of a step to the time that only reading its weights and cache would take: run by run, median.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from contenders import median_and_range

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tiny

from tokenglass.model.loading import load_model
from tokenglass.model.measuring.bench import Memory, Plan, measure_decode, prompt_of

SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 512,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "num_experts_per_tok": 8,
    "max_position_embeddings": 4096,
    "vocab_size": 49155,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", nargs="+", default=["bfloat16", "int8", "int4"])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if not (options.folder / "config.json").exists():
        write_model(options.folder)
    plan = Plan((options.context,), (1,), options.tokens, options.runs)
    for weights in options.weights:
        is_quantised = weights.startswith("int")
        engine = load_model(
            options.folder,
            dtype="auto" if is_quantised else weights,
            quantize=weights if is_quantised else "none",
            device="cpu",
            backend="native",
            threads=options.threads,
        ).engine
        memory = Memory(engine, engine.step_bytes)
        prompt = prompt_of(engine.vocab_size, 1, options.context)
        reading = measure_decode(engine, plan, prompt, engine.step_bytes, memory, "decode")
        assert reading.share is not None
        size = engine.step_bytes / 2**20
        print(
            f"{weights:9} {size:6,.0f} MiB a token {median_and_range(reading.rate.values)}   "
            f"{1 / reading.share:.2f} x the time of reading them"
        )


def write_model(folder: Path) -> None:
    """A random checkpoint in bfloat16, and a tokenizer."""
    from transformers import GraniteMoeConfig, GraniteMoeForCausalLM  # noqa: PLC0415  (takes seconds)

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_default_dtype(torch.bfloat16)
    GraniteMoeForCausalLM(GraniteMoeConfig(**SIZES)).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))


if __name__ == "__main__":
    main()
