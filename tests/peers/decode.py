"""Decode speed against transformers `generate`: same weights, same prompt, same number of tokens, greedy.

    python tests/peers/decode.py [MODEL] [--tokens 128] [--runs 7] [--threads 2]

Both run in this process, in turn, after a warm-up; the medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from model.decoding.autoregressive import decode
from model.decoding.request import Request
from model.loading import load_model
from model.sampling.parameters import SamplingParameters
from model.steps import Finish
from model.store import resolve

PROMPT = "Once upon a time there was a little fox who lived in the forest."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a checkpoint folder; absent, the bundled model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = resolve(options.model)
    ours, peer = ours_on(folder, options.tokens), transformers_on(folder, options.tokens)
    timed: dict[str, list[float]] = {"tokenglass": [], "transformers": []}
    ids = [ours(), peer()]  # the warm-up, and the proof that both do the same work
    assert ids[0] == ids[1], "the two texts differ"
    for _ in range(options.runs):
        for name, run in (("tokenglass", ours), ("transformers", peer)):
            started = time.perf_counter()
            run()
            timed[name].append(options.tokens / (time.perf_counter() - started))
    print(f"{folder.name}, float32, {options.tokens} tokens, {options.threads} threads, {options.runs} runs each")
    for name, rates in timed.items():
        print(f"{name:14} {statistics.median(rates):8.1f} tok/s   ({min(rates):.1f} to {max(rates):.1f})")
    ratio = statistics.median(timed["tokenglass"]) / statistics.median(timed["transformers"])
    print(f"ratio of medians {ratio:.2f}")


def ours_on(folder: Path, tokens: int):
    """A run of the whole loop, records, candidates and detokenised text included."""
    loaded = load_model(folder, dtype="float32", device="cpu")
    greedy = SamplingParameters(temperature=0)
    request = Request(loaded.tokenizer.encode(PROMPT), seed=1, sampling=greedy, max_new_tokens=tokens)

    def run() -> list[int]:
        records = list(decode(loaded.engine, loaded.tokenizer, request, threading.Event()))
        assert isinstance(records[-1], Finish)
        return [choice.token_id for record in records[:-1] for choice in record.choices]

    return run


def transformers_on(folder: Path, tokens: int):
    """transformers' own loop on the same prompt ids, its end token switched off."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    prompt = torch.tensor([load_model(folder, dtype="float32", device="cpu").tokenizer.encode(PROMPT)])
    settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "pad_token_id": 0}

    def run() -> list[int]:
        with torch.inference_mode():
            out = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=tokens, max_new_tokens=tokens, **settings
            )
        return out[0, prompt.shape[1] :].tolist()

    return run


if __name__ == "__main__":
    main()
