"""What `score` and `choose` cost beside a prefill of the same tokens: a ratio, medians of interleaved runs.

    python tests/peers/ask.py [MODEL] [--tokens 512] [--runs 5] [--threads 2] [--quantize int8]

`prefill` computes the logits of the last position alone, `all logits` those of every one: the least that a score needs.
`choose` weighs 8 answers of up to 6 tokens behind the prompt.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from contenders import prompt_of

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.choosing import Chooser
from tokenglass.model.measuring.scoring import score_tokens

ANSWERS = (1, 2, 3, 4, 5, 6, 6, 6)  # tokens of each
CHUNK = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model's name or checkpoint folder; absent, the bundled model")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quantize", default="none", choices=["none", "int8", "int4"])
    options = parser.parse_args()
    folder = resolve(options.model)
    loaded = load_model(folder, backend="auto", threads=options.threads, quantize=options.quantize)
    engine, ids = loaded.engine, tuple(prompt_of(folder, options.tokens))
    answers = {str(number): ids[number * 6 :][:length] for number, length in enumerate(ANSWERS)}

    def prefill(last: int | None) -> None:
        cache = engine.new_cache()
        for start in range(0, len(ids), CHUNK):
            engine.forward([ids[start : start + CHUNK]], cache, last=last)

    def choose() -> None:
        chooser = Chooser(engine, loaded.tokenizer)
        chooser.choose(lambda answer: (*ids, *answers.get(answer, ())), list(answers))

    works: dict[str, Callable[[], object]] = {
        "prefill": lambda: prefill(1),
        "all logits": lambda: prefill(None),
        "score": lambda: list(score_tokens(engine, loaded.tokenizer, ids)),
        "choose": choose,
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for run in range(options.runs + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if run:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    print(f"{loaded.name}, {options.tokens} tokens, {options.threads} threads, {options.runs} runs each")
    base = statistics.median(seconds["prefill"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<11} {median * 1e3:8.1f} ms {options.tokens / median:9,.0f} tok/s {median / base:5.2f} prefills")


if __name__ == "__main__":
    main()
