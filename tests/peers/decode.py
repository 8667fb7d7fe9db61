"""Decode speed beside transformers, llama.cpp and ik_llama.cpp: same weights, prompt and number of tokens, greedy.

    python tests/peers/decode.py [MODEL] [--gguf DIR] [--contexts 128 1024] [--tokens 128] [--level v3]
                                  [--runs 5] [--threads 2]

DIR is what gguf_files.py made of the model's own GGUF file; without it llama.cpp sits out. Each contender has a process
of its own; they run in turn, with the prompt in the cache already. Medians, their ratios, and bits per weight.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from contenders import (
    GGUF_READERS,
    MAKERS,
    Arena,
    Contender,
    common_options,
    contenders,
    median_and_range,
    prompt_of,
    use_level,
)

from tokenglass.model.checkpoint.store import resolve

RIVALS = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--gguf", type=Path, help="the folder that gguf_files.py wrote")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 1024], help="prompt tokens in the cache")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--who", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--weights", nargs="+", default=list(RIVALS), choices=list(RIVALS))
    parser.add_argument("--json", type=Path, help="also write every rate to this file")
    options = parser.parse_args()
    use_level(options.level)
    wanted = {*options.weights, *(RIVALS[weights] for weights in options.weights)}
    everybody = contenders(options.model, options.gguf, options.threads, options.who)
    everybody = [contender for contender in everybody if contender.weights in wanted]
    arena, weights_by_name = Arena(everybody), {}
    for context in options.contexts:
        prompt = prompt_of(resolve(options.model), context)
        answers = arena.rates("decode", prompt, options.tokens, runs=options.runs)
        rates = {name: [rate for rate, _ in answered] for name, answered in answers.items()}
        texts = {name: answered[0][1] for name, answered in answers.items()}
        weights_by_name[context] = rates
        print(
            f"\n{options.tokens} tokens behind {context:,}, level {options.level}, {options.threads} threads, "
            f"{options.runs} runs each"
        )
        tell(everybody, arena.bits, rates)
        if {"tokenglass float32", "transformers float32"} <= set(texts):
            alike = texts["tokenglass float32"] == texts["transformers float32"]
            print(f"the float32 texts of tokenglass and transformers are {'the same' if alike else 'DIFFERENT'}")
    arena.close()
    if options.json:
        options.json.write_text(json.dumps(weights_by_name, indent=1))


def tell(everybody: list[Contender], bits: dict[str, float], rates: dict[str, list[float]]) -> None:
    """Each contender's rate, and ours over that of whoever has the same weights."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for contender in everybody:
        ratios = [
            f"{medians[contender.name] / medians[rival]:.2f} x {rival}"
            for rival in (
                *(f"{reader} {RIVALS.get(contender.weights)}" for reader in GGUF_READERS),
                "transformers float32",
            )
            if contender.who == "tokenglass" and rival in medians
        ]
        text = median_and_range(rates[contender.name])
        print(f"{contender.name:22} {bits[contender.name]:5.2f} bits {text}   {', '.join(ratios)}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
