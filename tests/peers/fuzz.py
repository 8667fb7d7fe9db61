"""Mutated model files: what a stranger could send ends in a text or in one short line, never in anything else.

PYTHONPATH=tests python tests/peers/fuzz.py [--kind KIND] [--count 1000] [--seed 0]

Each case changes one file of a small real checkpoint (or a GGUF file), then opens, loads, encodes, renders and decodes
as `generate` does, in a forked process with limits on time and memory. Told are outcomes per kind; a case is named by
its kind and number, which give the same file again.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import random
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import tiny
import torch
import transformers
from families import CASES
from gguf_metadata import byte_level_metadata, sentencepiece_metadata
from tiny_gguf import write_gguf

from tokenglass.cli.commands.inspect import describe
from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.checkpoint.quantised_checkpoint import quantize_checkpoint
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.errors import TokenglassError
from tokenglass.model.importers.gguf import import_gguf
from tokenglass.model.loading import load_model, quantizer
from tokenglass.model.text.chat import ChatTemplate, Message

SECONDS, MEMORY, LONGEST = 30, 4 * 2**30, 600
GOOD = ("text", "refused")
FAMILIES = (
    *("llama", "mistral, window", "qwen2", "qwen3", "gemma2", "gemma3_text"),
    *("gpt2", "gpt_neox", "phi3", "olmo2", "smollm3"),
)
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SMALL = ("generation_config.json", "tokenizer_config.json", "chat_template.jinja")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
OTHER_DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)
Rng = random.Random
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 2**15, 2**24, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**400),
    *(0.0, -0.0, 0.5, -1.5, 1e-300, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "\x1b]0;title\x07", "\u202eabc", "\ud800", "\0", "a\nb", "x" * 100_000, "../../etc/passwd", "silu"),
    *([], {}, [[]], [None], [-1], [0] * 1000, {"": {}}, {"rope_type": "yarn"}, ["full_attention"], [[[[[[1]]]]]]),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: str
    number: int
    end: str  # text, refused, internal, signal, hang, control, long
    told: str


# What is mutated


def make_originals(folder: Path, families: tuple[str, ...] = FAMILIES) -> None:
    """Small real checkpoints, one per family, one in shards, two quantised, and two GGUF files."""
    for name in families:
        model_type, options = CASES[name]
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(model_type, **options)
        path = folder / "families" / model_type
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(path)
        add_small_files(path)
    add_small_files(tiny.save_llama(folder / "sharded", max_shard_size="50KB"))
    for stored in ("int8", "int4"):
        for _ in quantize_checkpoint(
            Checkpoint.open(folder / "families" / "llama"), folder / stored, quantizer(stored, None, 1)
        ):
            pass
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 432}
    original = tiny.save_llama(folder / "for-gguf", **sizes)
    write_gguf(folder / "a.gguf", original, tokenizer=byte_level_metadata(bos_token_id=0), tokenizer__chat_template="x")
    vocabulary = sentencepiece_metadata()
    size = len(vocabulary["tokenizer.ggml.tokens"])
    write_gguf(
        folder / "b.gguf", tiny.save_llama(folder / "other", **{**sizes, "vocab_size": size}), tokenizer=vocabulary
    )


def add_small_files(folder: Path) -> None:
    tiny.byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(
        '{"eos_token_id": [0], "temperature": 0.7, "top_k": 5, "top_p": 0.9}'
    )
    names = {"eos_token": {"content": "<|endoftext|>", "special": True}, "chat_template": TEMPLATE}
    added = {"added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, **added}))


# How


def mutate_json(path: Path, rng: Rng) -> None:
    """One to three fields, at any depth, become something else, go, or come twice."""
    content = json.loads(path.read_text())
    for _ in range(rng.randint(1, 3)):
        change(content, rng)
    text = json.dumps(content)
    if rng.random() < 0.05:
        key = next(iter(content), "a") if isinstance(content, dict) else "a"
        text = f"{{{json.dumps(key)}: {json.dumps(rng.choice(NASTY))}, {text[1:]}" if text[:1] == "{" else text
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def change(content: Any, rng: Rng) -> None:
    """Change one place in a JSON value, chosen by walking down."""
    parent, key = content, None
    while isinstance(parent, dict | list) and parent:
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
        if not isinstance(parent[key], dict | list) or not parent[key] or rng.random() < 0.3:
            break
        parent = parent[key]
    if key is None or not isinstance(parent, dict | list) or not parent:
        return
    value = parent[key]
    match rng.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(value, int | float) and not isinstance(value, bool):
            parent[key] = value * rng.choice((-1, 0.5, 2, 1000, 1e-9)) + rng.choice((0, 1, -1))
        case 2 if isinstance(parent, dict):
            parent[rng.choice(("\x1b[31m", "x" * 3000, "\ud800", "a.b", "factor"))] = value
        case 3:
            parent[key] = [copy.deepcopy(value)]
        case 4:
            parent[key] = str(value)
        case _:
            parent[key] = copy.deepcopy(rng.choice(NASTY))


def mutate_bytes(path: Path, rng: Rng, *, first: int | None = None) -> None:
    """Cut short, or a few bytes changed, put in or taken out (among the first so many)."""
    content = bytearray(path.read_bytes())
    size = min(len(content), first or len(content))
    match rng.randrange(4):
        case 0:
            del content[rng.randrange(size + 1) :]
        case 1:
            place = rng.randrange(size)
            content[place : place + rng.choice((0, 1, 8))] = rng.randbytes(rng.choice((1, 4, 8)))
        case _:
            for _ in range(rng.choice((1, 2, 8, 64))):
                content[rng.randrange(size)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    path.write_bytes(content)


def mutate_header(path: Path, rng: Rng) -> None:
    """The JSON in front of the tensors."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = path.with_suffix(".header")
    header.write_bytes(content[8 : 8 + length].rstrip())
    mutate_json(header, rng)
    text = header.read_bytes() + b" " * rng.choice((0, 1, 8))
    header.unlink()
    stated = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 2**31, 2**63, len(text) + 1))
    path.write_bytes(stated.to_bytes(8, "little") + text + content[8 + length :])


def mutate_weights(path: Path, rng: Rng) -> None:
    """Numbers that no training makes, other dtypes and shapes, other names."""
    tensors = safetensors.torch.load_file(path)
    for name in rng.sample(sorted(tensors), min(len(tensors), rng.randint(1, 3))):
        tensor = tensors[name]
        match rng.randrange(7):
            case 0 | 1:
                bad = rng.choice((float("nan"), float("inf"), float("-inf"), 1e38, -1e38, 0.0, 1e-45))
                if tensor.is_floating_point():
                    tensor.view(-1)[rng.randrange(max(1, tensor.numel())) :: rng.choice((1, 7, 10**6))] = bad
            case 2:
                tensors[name] = tensor.to(
                    rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool))
                )
            case 3:
                tensors[name] = tensor[:0] if rng.random() < 0.5 else tensor.reshape(-1)
            case 4:
                tensors[rng.choice(("x" * 50_000, "\x1b]0;a\x07", "model.layers.99.mlp", f"model.{name}"))] = (
                    tensors.pop(name)
                )
            case 5:
                tensors[name] = torch.empty((0, *tensor.shape))
            case _:
                del tensors[name]
    safetensors.torch.save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def mutated(kind: str, number: int, originals: Path, folder: Path, seed: int) -> Path:
    """The files of a case, which its kind and number decide."""
    rng = Rng(f"{seed} {kind} {number}")
    families = sorted((originals / "families").iterdir())
    if kind == "gguf":
        path = folder / "a.gguf"
        shutil.copyfile(originals / rng.choice(("a.gguf", "b.gguf")), path)
        mutate_bytes(path, rng, first=rng.choice((64, 1024, 16_000, None)))
        return path
    source = {"quantised": originals / rng.choice(("int8", "int4")), "index": originals / "sharded"}
    path = folder / "model"
    shutil.copytree(source.get(kind, rng.choice(families) if kind == "config" else families[0]), path)
    match kind:
        case "config":
            mutate_json(path / CONFIG, rng)
        case "header":
            mutate_header(path / WEIGHTS, rng)
        case "tokenizer":
            mutate_json(path / "tokenizer.json", rng)
        case "cut":
            mutate_bytes(path / rng.choice((CONFIG, WEIGHTS, WEIGHTS, "tokenizer.json", *SMALL[:2])), rng)
        case "quantised":
            mutate_header(path / WEIGHTS, rng) if rng.random() < 0.7 else mutate_bytes(path / WEIGHTS, rng)
        case "small":
            name = rng.choice(SMALL)
            if name.endswith("jinja"):
                (path / name).write_text(TEMPLATE)
                mutate_bytes(path / name, rng)
            else:
                mutate_json(path / name, rng)
        case "index":
            mutate_json(path / INDEX, rng)
        case "weights":
            mutate_weights(path / WEIGHTS, rng)
    return path


KINDS = ("config", "header", "tokenizer", "gguf", "cut", "quantised", "small", "index", "weights")


# What is done with it


def use(path: Path, backend: str) -> str:
    """Load a model as `generate` does, and generate with it."""
    if path.suffix == ".gguf":
        folder = path.with_name("imported")
        for _ in import_gguf(path, folder):
            pass
        path = folder
    model = load_model(path, device="cpu", backend=backend)
    json.dumps(describe(model.checkpoint))
    prompt = model.tokenizer.encode("The fox\n said 123 é 😀")
    if (path / "chat_template.jinja").exists():
        prompt = ChatTemplate.from_folder(path).encode((Message("user", "hello"),), model.tokenizer)
    prompt = prompt[: model.engine.limit - 4]
    settings = model.checkpoint.generation_config
    request = Request(
        prompt,
        1,
        settings.sampling(),
        max_new_tokens=min(3, settings.max_new_tokens(len(prompt), 3)),
        min_new_tokens=min(2, settings.min_new_tokens(len(prompt))),
        max_seconds=settings.max_seconds,
        stops=settings.stop_strings,
        eos_token_ids=model.eos_token_ids,
    )
    notes = (*model.notes, *settings.notes)
    assert all(note.isprintable() and len(note) <= LONGEST for note in notes), notes
    records = list(decode(Job(model.engine, model.tokenizer, request)))
    return "".join(record.text for record in records)


def attempt(work: Callable[[], str]) -> tuple[str, str]:
    """How a piece of work ends, and what is told of it."""
    try:
        return "text", work()
    except TokenglassError as error:
        message = str(error)
    except (OSError, MemoryError) as error:  # which the command line turns into lines of its own
        message = f"{type(error).__name__}: {error}"
    except BaseException as error:
        import traceback  # noqa: PLC0415

        where = traceback.extract_tb(error.__traceback__)[-1]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/model/" in frame.filename]
        place = own[-1] if own else where
        return "internal", f"{type(error).__name__}: {str(error)[:200]!r} at {place.filename}:{place.lineno}"
    if len(message) > LONGEST:
        return "long", message[:300]
    return ("refused" if message.isprintable() else "control"), message


def child(cases: list[tuple[str, int]], originals: Path, seed: int, backend: str, out: int) -> None:
    """Work through cases in this process, telling of each when it begins and when it ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with os.fdopen(out, "wb") as pipe:

        def tell(*what: Any) -> None:
            pickle.dump(what, pipe)
            pipe.flush()

        for kind, number in cases:
            tell(kind, number)
            with TemporaryDirectory() as folder:
                path = mutated(kind, number, originals, Path(folder), seed)
                tell(*attempt(partial(use, path, backend)))


def run(cases: list[tuple[str, int]], originals: Path, *, seed: int = 0, backend: str = "torch") -> Iterator[Outcome]:
    """The outcome of each case; one that kills or holds up its process is told, and the next begins in a new one."""
    while cases:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            child(cases, originals, seed, backend, writing)
            os._exit(0)
        os.close(writing)
        done, late = 0, threading.Timer(SECONDS, os.kill, (pid, signal.SIGKILL))
        late.start()
        with os.fdopen(reading, "rb") as pipe:
            try:
                while True:
                    kind, number = pickle.load(pipe)
                    begun = time.monotonic()
                    late.cancel()
                    late = threading.Timer(SECONDS, os.kill, (pid, signal.SIGKILL))
                    late.start()
                    end, message = pickle.load(pipe)
                    done += 1
                    yield Outcome(kind, number, end, message)
            except EOFError:
                late.cancel()
        _, status = os.waitpid(pid, 0)
        if done < len(cases):
            hung = time.monotonic() - begun > SECONDS - 1
            yield Outcome(kind, number, "hang" if hung else "signal", f"status {status}")
            done += 1
        cases = cases[done:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("torch", "native", "auto"), default="torch")
    parser.add_argument("--show", action="store_true", help="print every outcome")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    with TemporaryDirectory() as folder:
        make_originals(Path(folder), tuple(arguments.family or FAMILIES))
        for kind in arguments.kind or KINDS:
            cases = [(kind, number) for number in range(arguments.first, arguments.first + arguments.count)]
            counts: Counter[str] = Counter()
            for outcome in run(cases, Path(folder), seed=arguments.seed, backend=arguments.backend):
                counts[outcome.end] += 1
                if arguments.show or outcome.end not in GOOD:
                    print(f"{outcome.kind} {outcome.number}: {outcome.end}: {ascii(outcome.told)[:400]}", flush=True)
            print(kind, json.dumps(counts), flush=True)
            wrong += sum(number for end, number in counts.items() if end not in GOOD)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
