"""Prefill speed beside transformers, llama.cpp and ik_llama.cpp: a prompt of 512 tokens read into an empty cache.

    python tests/peers/prefill.py [MODEL] [--gguf DIR] [--tokens 512] [--level v3] [--runs 5] [--threads 2]

As decode.py does it; ours is compared with whichever contender is fastest.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from contenders import GGUF_READERS, MAKERS, Arena, common_options, contenders, median_and_range, prompt_of, use_level

from tokenglass.model.checkpoint.store import resolve


def main() -> None:
    parser = common_options(__doc__)
    parser.add_argument("--gguf", type=Path, help="the folder that gguf_files.py wrote")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--who", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    options = parser.parse_args()
    use_level(options.level)
    everybody = contenders(options.model, options.gguf, options.threads, options.who)
    arena = Arena(everybody)
    rates = arena.rates("prefill", prompt_of(resolve(options.model), options.tokens), runs=options.runs)
    arena.close()
    print(f"prefill of {options.tokens}, level {options.level}, {options.threads} threads, {options.runs} runs each")
    for contender in everybody:
        print(f"{contender.name:22} {arena.bits[contender.name]:5.2f} bits {median_and_range(rates[contender.name])}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = {who: max((m for n, m in medians.items() if n.startswith(f"{who} ")), default=None) for who in MAKERS}
    for rival in ("transformers", *GGUF_READERS):
        if best["tokenglass"] and best[rival]:
            print(f"our best is {best['tokenglass'] / best[rival]:.2f} x the best of {rival}")


if __name__ == "__main__":
    main()
