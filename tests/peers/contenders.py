"""What is compared: this program, transformers, llama.cpp and ik_llama.cpp, each a process that generates greedily.

A contender that waits takes no processor time, so that runs can be interleaved. Every rate leaves out the first token,
which belongs to the prefill.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.job import Job
from tokenglass.model.text.tokenizer import Tokenizer

TYPES = ("F32", "BF16", "Q8_0", "Q4_0")  # llama.cpp's names of float32, bfloat16, int8 and int4
# What keeps this program and torch to AVX2; the builds of both llama.cpp use no more anyway.
LEVELS = {
    "best": {},
    "v3": {
        "TOKENGLASS_MARCH": "x86-64-v3",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
PASSAGE = "Once upon a time there was a little fox who lived in the forest with her mother and nine brothers. "


@dataclass(frozen=True)
class Contender:
    """Who, on which weights: `source` is a checkpoint folder, or a GGUF file for llama.cpp."""

    who: str
    weights: str
    source: Path
    threads: int
    slots: int = 1  # texts at once, which llama.cpp makes room for

    @property
    def name(self) -> str:
        return f"{self.who} {self.weights}"


class Generator(Protocol):
    bits: float  # per weight, over the matrices it reads

    def decode(self, prompt: Sequence[int], tokens: int) -> tuple[float, list[int]]:
        """Tokens per second behind a prompt that is in the cache already, and the token ids."""

    def prefill(self, prompt: Sequence[int]) -> float:
        """Prompt tokens per second, from an empty cache to the first token."""

    def many(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        """Tokens per second of all texts together, the reading of the prompts included."""


class Ours:
    """The whole loop: records, candidates and detokenised text included."""

    def __init__(self, contender: Contender):
        from tokenglass.model.loading import load_model  # noqa: PLC0415  (each process imports what it runs)

        quantised = contender.weights.startswith("int")
        self.loaded = load_model(
            contender.source,
            dtype="auto" if quantised else contender.weights,
            device="cpu",
            quantize=contender.weights if quantised else "none",
            backend="auto",
            threads=contender.threads,
        )
        self.caches: dict[int, Any] = {}
        engine = self.loaded.engine
        weights = {name: engine.weights[name] for name in engine.blueprint.quantisable}
        numbers = sum(math.prod(engine.blueprint.shapes[name]) for name in weights)
        self.bits = 8 * sum(weight.nbytes for weight in weights.values()) / numbers

    def decode(self, prompt: Sequence[int], tokens: int) -> tuple[float, list[int]]:
        cache = self.caches.setdefault(len(prompt), self.loaded.engine.new_cache())
        cache.truncate(0, max(0, min(cache.lengths[0], len(prompt) - 1)))
        started, ids = 0.0, []
        for step in self.steps(prompt, tokens, cache):
            if step.choices:
                ids.append(step.choices[0].token_id)
                started = started or time.perf_counter()
        return (tokens - 1) / (time.perf_counter() - started), ids

    def prefill(self, prompt: Sequence[int]) -> float:
        return len(prompt) / sum(step.seconds for step in self.steps(prompt, 1, None))

    def many(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        from tokenglass.model.decoding.batch import Batch  # noqa: PLC0415

        started = time.perf_counter()
        texts = InTurn([Job.of(self.loaded, greedy(prompt, tokens, top=0)).new_sequence() for prompt in prompts])
        for number, text in enumerate(texts.left):
            text.number = number
        for _ in Batch(self.loaded.engine, texts, len(prompts), threading.Event(), {}).records():
            pass
        return len(prompts) * tokens / (time.perf_counter() - started)

    def steps(self, prompt: Sequence[int], tokens: int, cache: Any) -> list[Any]:
        from tokenglass.model.decoding.autoregressive import decode  # noqa: PLC0415
        from tokenglass.model.records.steps import Step  # noqa: PLC0415

        request = greedy(prompt, tokens, prefill_chunk=512)
        records = decode(Job(self.loaded.engine, self.loaded.tokenizer, request, cache=cache))
        return (record for record in records if isinstance(record, Step))


def greedy(prompt: Sequence[int], tokens: int, **options: Any) -> Any:
    from tokenglass.model.decoding.request import Request  # noqa: PLC0415
    from tokenglass.model.sampling.parameters import SamplingParameters  # noqa: PLC0415

    return Request(tuple(prompt), seed=1, sampling=SamplingParameters(temperature=0), max_new_tokens=tokens, **options)


@dataclass
class InTurn:
    """Texts that a batch takes one after the other."""

    left: list[Any]

    @property
    def are_left(self) -> bool:
        return bool(self.left)

    def take(self, *, wait: bool) -> Any:
        return self.left.pop(0) if self.left else None


class Transformers:
    """Its own `generate`, the end token switched off."""

    def __init__(self, contender: Contender):
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM, logging  # noqa: PLC0415

        logging.disable_progress_bar()
        torch.set_num_threads(contender.threads)
        dtype = getattr(torch, contender.weights)
        self.bits = 8.0 * dtype.itemsize
        self.model = AutoModelForCausalLM.from_pretrained(contender.source, dtype=dtype).eval()
        self.model.generation_config.eos_token_id = None

    def decode(self, prompt: Sequence[int], tokens: int) -> tuple[float, list[int]]:
        times, ids = self.generate(prompt, tokens)
        return (tokens - 1) / (times[-1] - times[1]), ids

    def prefill(self, prompt: Sequence[int]) -> float:
        times, _ = self.generate(prompt, 1)
        return len(prompt) / (times[1] - times[0])

    def many(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        times, _ = self.generate_all(prompts, tokens)
        return len(prompts) * tokens / (times[-1] - times[0])

    def generate(self, prompt: Sequence[int], tokens: int) -> tuple[list[float], list[int]]:
        return self.generate_all([prompt], tokens)

    def generate_all(self, prompts: Sequence[Sequence[int]], tokens: int) -> tuple[list[float], list[int]]:
        """When each pass ended, and the ids of the first text. The prompts are of one length."""
        import torch  # noqa: PLC0415

        times = [time.perf_counter()]

        def clock(ids: Any, _: Any, **__: Any) -> Any:
            times.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool)

        with torch.inference_mode():
            inputs = torch.tensor([list(prompt) for prompt in prompts])
            outputs = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=0,
                stopping_criteria=[clock],
            )
        return times, outputs[0, len(prompts[0]) :].tolist()


class LlamaCppServer:
    """llama.cpp's server, timed by itself."""

    def __init__(self, contender: Contender):
        from gguf_files import bits_per_weight  # noqa: PLC0415
        from llama_cpp import LlamaCpp  # noqa: PLC0415

        self.bits = bits_per_weight(contender.source)
        context = 2048 if contender.slots == 1 else 1024
        self.server = LlamaCpp(contender.source, context=context, threads=contender.threads, slots=contender.slots)

    def decode(self, prompt: Sequence[int], tokens: int) -> tuple[float, list[int]]:
        answer = self.server.complete(prompt, tokens, keep=True)
        assert answer["timings"]["predicted_n"] == tokens
        return 1000 * (tokens - 1) / answer["timings"]["predicted_ms"], answer["tokens"]

    def prefill(self, prompt: Sequence[int]) -> float:
        timings = self.server.complete(prompt, 1, keep=False)["timings"]
        assert timings["prompt_n"] == len(prompt)
        return 1000 * len(prompt) / timings["prompt_ms"]

    def many(self, prompts: Sequence[Sequence[int]], tokens: int) -> float:
        def complete(prompt: Sequence[int]) -> int:
            return int(self.server.complete(prompt, tokens, keep=False)["timings"]["predicted_n"])

        started = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            written = sum(pool.map(complete, prompts))
        assert written == len(prompts) * tokens
        return written / (time.perf_counter() - started)


class IkLlamaCppGenerator:
    """ik_llama.cpp in this process. It reads the prompt anew before it decodes, which is not timed."""

    def __init__(self, contender: Contender):
        from gguf_files import bits_per_weight  # noqa: PLC0415
        from ik_llama import IkLlamaCpp  # noqa: PLC0415

        self.bits = bits_per_weight(contender.source)
        self.model = IkLlamaCpp(contender.source, context=2048, threads=contender.threads)

    def decode(self, prompt: Sequence[int], tokens: int) -> tuple[float, list[int]]:
        ids, times = self.model.complete(prompt, tokens)
        return (tokens - 1) / (times[-1] - times[1]), ids

    def prefill(self, prompt: Sequence[int]) -> float:
        _, times = self.model.complete(prompt, 1)
        return len(prompt) / (times[1] - times[0])


MAKERS = {
    "tokenglass": Ours,
    "transformers": Transformers,
    "llama.cpp": LlamaCppServer,
    "ik_llama.cpp": IkLlamaCppGenerator,
}
GGUF_READERS = ("llama.cpp", "ik_llama.cpp")


class Arena:
    """A process per contender; `rates` has them run in turn."""

    def __init__(self, contenders: Sequence[Contender]):
        context = multiprocessing.get_context("spawn")
        self.ends, self.processes, self.bits = {}, [], {}
        for contender in contenders:
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(contender, theirs), daemon=True)
            process.start()
            self.ends[contender.name] = ours
            self.processes.append(process)
            self.bits[contender.name] = ours.recv()  # when it has loaded

    def ask(self, name: str, what: str, *arguments: Any) -> Any:
        self.ends[name].send((what, arguments))
        return self.ends[name].recv()

    def rates(self, what: str, *arguments: Any, runs: int) -> dict[str, list[Any]]:
        """Each contender's answers of `runs` interleaved runs, behind a warm-up."""
        answers: dict[str, list[Any]] = {name: [] for name in self.ends}
        for counted in [False] + [True] * runs:
            for name in self.ends:
                answer = self.ask(name, what, *arguments)
                if counted:
                    answers[name].append(answer)
        return answers

    def close(self) -> None:
        for end in self.ends.values():
            end.send(None)
        for process in self.processes:
            process.join()


def serve(contender: Contender, end: Any) -> None:
    """A contender's process: load, then answer until there are no more questions."""
    generator: Any = MAKERS[contender.who](contender)
    end.send(generator.bits)
    while (asked := end.recv()) is not None:
        what, arguments = asked
        end.send(getattr(generator, what)(*arguments))


def prompt_of(folder: Path, length: int) -> list[int]:
    """Exactly this many token ids of a running text."""
    tokenizer, text = Tokenizer.from_folder(folder), PASSAGE
    while len(ids := tokenizer.encode(text)) < length:
        text += PASSAGE
    return list(ids[:length])


def common_options(about: str) -> argparse.ArgumentParser:
    """A parser of the options that every comparison has."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model's name or checkpoint folder; absent, the bundled model")
    parser.add_argument("--level", choices=list(LEVELS), default="best", help="v3: AVX2 and nothing newer")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def use_level(level: str) -> None:
    """For the processes that are started from now on."""
    os.environ.update(LEVELS[level])


def median_and_range(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):8,.1f} tok/s   ({min(rates):,.1f} to {max(rates):,.1f})"


def contenders(
    model: str | None, gguf_folder: Path | None, threads: int, who: Sequence[str], slots: int = 1
) -> list[Contender]:
    """Everybody on this model: float32, bfloat16, int8 and int4, and what comes nearest to each.

    transformers has no 8 or 4 bits on a CPU without further packages. Both llama.cpp run where there are GGUF files.
    """
    folder = resolve(model)
    listing = [Contender("tokenglass", weights, folder, threads) for weights in ("float32", "bfloat16", "int8", "int4")]
    listing += [Contender("transformers", weights, folder, threads) for weights in ("float32", "bfloat16")]
    if gguf_folder is not None:
        files = {name: gguf_folder / f"{name}.gguf" for name in TYPES}
        listing += [
            Contender(reader, name, file, threads, slots) for reader in GGUF_READERS for name, file in files.items()
        ]
    return [contender for contender in listing if contender.who in who]
