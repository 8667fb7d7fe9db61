"""Whether the lossless modes keep their promise, and what guesses from the text itself save where it repeats itself.

    python tests/peers/modes.py lossless [MODEL] --to FILE [--prompts 100] [--tokens 32] [--modes A,B]
    python tests/peers/modes.py repetition [MODEL] [--tokens 96]

The first writes a JSON line to FILE for each prompt, mode and sampling, and goes on from what is there: it may be
stopped at any time. The prompts are stretches of 4 to 32 words of the stories that come with the program and of the
held-out text. The second decodes greedily, with the draft length of the command, and counts every pass.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.modes import AUTOREGRESSIVE
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TokenglassError
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.measuring.comparison.divergence import divergence
from tokenglass.model.measuring.comparison.modes import Variants
from tokenglass.model.measuring.comparison.passages import read_passages
from tokenglass.model.measuring.comparison.runs import time_run
from tokenglass.model.measuring.quality import held_out_text
from tokenglass.model.sampling.parameters import SamplingParameters

SAMPLINGS = {"greedy": SamplingParameters(temperature=0), "sampled": SamplingParameters(temperature=0.8, top_p=0.95)}
LOSSLESS = "speculative-ngram,speculative-parallel,jacobi"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lossless", "repetition"])
    parser.add_argument("model", nargs="?", help="a model's name or checkpoint folder; absent, the bundled model")
    parser.add_argument("--to", type=Path, help="where lossless writes what it has found")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--modes", default=LOSSLESS)
    parser.add_argument("--backend", default="auto", choices=["auto", "native", "torch"])
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.what == "lossless" and options.to is None:
        parser.error("lossless needs --to FILE")
    loaded = load_model(resolve(options.model), backend=options.backend, threads=options.threads)
    print(f"{loaded.name}, {loaded.dtype}, {loaded.backend}, {loaded.threads} threads", flush=True)
    if options.what == "repetition":
        tell_repetition(loaded, options.tokens or 96)
        return
    names = [name.strip() for name in options.modes.split(",")]
    check_lossless(loaded, options.to, names, options.prompts, options.tokens or 32)


def check_lossless(loaded: LoadedModel, file: Path, names: list[str], prompts: int, tokens: int) -> None:
    """Append what is not in the file yet, then tell all that is."""
    setting = {"model": loaded.name, "fingerprint": loaded.checkpoint.fingerprint, "dtype": loaded.dtype}
    setting |= {"backend": loaded.backend, "tokens": tokens}
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = [line for line in done if line.items() >= setting.items()]
    known = {(line["mode"], line["sampling"], line["prompt"]) for line in done}
    with file.open("a") as out:
        for line in findings(loaded, names, prompts, tokens, known):
            out.write(json.dumps(setting | line) + "\n")
            out.flush()
            done.append(setting | line)
    for name in names:
        for sampling in SAMPLINGS:
            lines = [line for line in done if (line["mode"], line["sampling"]) == (name, sampling)]
            refused = [line["refused"] for line in lines if line["refused"]]
            differ = [line for line in lines if line["divergence"]]
            verdict = (
                f"refused: {refused[0]}" if refused else f"{len(lines) - len(differ)} of {len(lines)} the same ids"
            )
            print(f"{name:22} {sampling:8} {verdict}")
            for line in differ:
                print(f"    prompt {line['prompt']}: {line['divergence']}")


def findings(
    loaded: LoadedModel, names: list[str], prompts: int, tokens: int, known: set[tuple[str, str, int]]
) -> Iterator[dict[str, Any]]:
    """What each mode makes of each prompt; the autoregressive text is written once for all of them."""
    make = Variants(loaded)
    plain, modes = make.find(AUTOREGRESSIVE), [make.find(name) for name in names]
    for number, prompt in enumerate(stretches(prompts)):
        for sampling, parameters in SAMPLINGS.items():
            missing = [mode for mode in modes if (mode.name, sampling, number) not in known]
            if not missing:
                continue
            request = request_of(loaded, prompt, parameters, number, tokens)
            expected = time_run(plain, request)
            for mode in missing:
                line: dict[str, Any] = {"mode": mode.name, "sampling": sampling, "prompt": number}
                try:
                    timing = time_run(mode, request)
                except TokenglassError as error:
                    yield {**line, "refused": str(error), "divergence": None}
                    continue
                parted = divergence(loaded, request, expected.token_ids, timing.token_ids)
                yield {**line, "refused": None, "divergence": parted and asdict(parted), "forwards": timing.forwards}


def stretches(count: int) -> list[str]:
    """Texts of 4 to 32 words, from places spread over everything that is there."""
    stories = [passage.prompt + passage.continuation for passage in read_passages("stories")]
    words = " ".join([*stories, held_out_text()]).split()
    starts = [number * (len(words) - 32) // count for number in range(count)]
    return [" ".join(words[start : start + 4 + number * 7 % 29]) for number, start in enumerate(starts)]


def request_of(loaded: LoadedModel, prompt: str, sampling: SamplingParameters, seed: int, tokens: int) -> Request:
    ids = loaded.tokenizer.encode(prompt)
    return Request(ids, seed, sampling, tokens, loaded.eos_token_ids, top=1)


def tell_repetition(loaded: LoadedModel, tokens: int) -> None:
    """Tokens per pass on the prompts that ask for a repetition, and on the stories, which do not."""
    make = Variants(loaded)
    for name in ("repetition", "stories"):
        ratios = []
        for passage in read_passages(name):
            request = request_of(loaded, passage.prompt, SAMPLINGS["greedy"], 1, tokens)
            size = min(tokens, len(loaded.tokenizer.encode_bare(passage.continuation)))
            request = replace(request, max_new_tokens=size)
            plain, guessed = (time_run(make.find(mode), request) for mode in (AUTOREGRESSIVE, "speculative-ngram"))
            assert plain.token_ids == guessed.token_ids or loaded.backend == "torch"
            ratios.append((plain, guessed))
            ratio = plain.forwards / guessed.forwards
            as_asked = guessed.text.strip() == passage.continuation.strip()
            print(
                f"{name:10} {ratio:5.2f} x the tokens per pass{', the text that was asked for' * as_asked}", flush=True
            )
        passes = [sum(run.forwards for run in of_mode) for of_mode in zip(*ratios, strict=True)]
        print(f"{name:10} {passes[0] / passes[1]:5.2f} x over all: {passes[0]} passes against {passes[1]}")


if __name__ == "__main__":
    main()
