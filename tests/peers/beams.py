"""Beam search beside transformers: the same sequences and scores, and the time each takes.

    python tests/peers/beams.py [MODEL] [--beams 2 4 8] [--tokens 48] [--threads 2]

Every number of beams is tried with and without early stopping, length penalties 1 and 2, and three prompts, in float32.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

import torch
from transformers import AutoModelForCausalLM

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.beam_search import BeamParameters
from tokenglass.model.decoding.beams import decode_beams
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.sampling.parameters import SamplingParameters

PROMPTS = (
    "Once upon a time there was a little fox",
    "The capital of France is Paris. The capital of Italy is",
    "Question: What is 2 + 2?\nAnswer:",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model's name or checkpoint folder; absent, the bundled model")
    parser.add_argument("--beams", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="torch")
    options = parser.parse_args()
    folder = resolve(options.model)
    loaded = load_model(folder, dtype="float32", device="cpu", backend=options.backend, threads=options.threads)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    eos, differing, farthest = sorted(loaded.eos_token_ids), 0, 0.0
    for beams, early, penalty in itertools.product(options.beams, (True, False), (1.0, 2.0)):
        ours = theirs = 0.0
        same = 0
        for prompt in PROMPTS:
            prompt_ids = loaded.tokenizer.encode(prompt)
            request = Request(
                prompt_ids, 1, SamplingParameters(temperature=0), options.tokens, frozenset(eos), prefill_chunk=256
            )
            started = time.perf_counter()
            found = searched(loaded, request, BeamParameters(beams, penalty, early))
            ours += time.perf_counter() - started
            started = time.perf_counter()
            expected = peer.generate(
                torch.tensor([prompt_ids]),
                attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
                num_beams=beams,
                num_return_sequences=beams,
                do_sample=False,
                length_penalty=penalty,
                early_stopping=early,
                max_new_tokens=options.tokens,
                eos_token_id=eos,
                pad_token_id=eos[0],
                return_dict_in_generate=True,
                output_scores=True,
            )
            theirs += time.perf_counter() - started
            told = expected.sequences[:, len(prompt_ids) :].tolist()
            for (token_ids, score), other, other_score in zip(
                found, told, expected.sequences_scores.tolist(), strict=True
            ):
                is_same = token_ids == other[: len(token_ids)] and set(other[len(token_ids) :]) <= {eos[0]}
                same += is_same
                differing += not is_same
                farthest = max(farthest, abs(score - other_score))
        print(
            f"{beams} beams, early stopping {early!s:5}, length penalty {penalty}: {same} of {beams * len(PROMPTS)} "
            f"sequences the same; tokenglass {ours:.2f} s, transformers {theirs:.2f} s",
            flush=True,
        )
    print(f"{differing} sequences differ; the farthest scores are {farthest:.1e} apart")
    sys.exit(1 if differing or farthest > 1e-4 else 0)


def searched(loaded: LoadedModel, request: Request, parameters: BeamParameters) -> list[tuple[list[int], float]]:
    """New tokens and score of each text, best first."""
    texts: dict[int, list[int]] = {}
    before: dict[int, list[int]] = {}
    steps, forward = [], -1
    for record in decode_beams(Job(loaded.engine, loaded.tokenizer, request), parameters):
        if isinstance(record, Finish):
            steps.append((texts[record.sequence], record.score))
            continue
        assert isinstance(record, Step)
        if record.forward != forward:
            forward, before = record.forward, dict(texts)
        parent = record.sequence if record.parent is None else record.parent
        new_ids = [choice.token_id for choice in record.choices if choice.status == "sampled"]
        texts[record.sequence] = before.get(parent, []) + new_ids
    return steps


if __name__ == "__main__":
    main()
