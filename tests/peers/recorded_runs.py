"""What sixty fixed runs say, kept before a change of structure and compared after it.

    python tests/peers/recorded_runs.py record before.json    # with the program as it was
    python tests/peers/recorded_runs.py compare before.json   # with the program as it is

Texts, token ids, ranks and reasons must be equal; numbers may differ by 1e-4 of their size, or by 1e-4 where they are
small: sums are taken in another order, and the tables of sines come from another library.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

PROMPT = "Once upon a time there was a fox and a fox"
BOUND = 1e-4
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "GPT2", "GPTNeoX", "Phi3", "Olmo2")


def commands(folder: Path) -> dict[str, list[str]]:
    """Sixty runs by name; `folder` holds a tiny model of each family."""
    short = [PROMPT, "-n", "24", "--seed", "7"]
    ways: dict[str, list[str]] = {
        "plain": [],
        "greedy": ["-t", "0"],
        "processors": ["--repetition-penalty", "1.2", "--min-p", "0.05", "--top-k", "40", "--xtc-probability", "0.5"],
        "dry": ["--dry-multiplier", "0.8", "--no-repeat-ngram", "4", "--typical-p", "0.9"],
        "no cache": ["--no-cache"],
        "chunks": ["--prefill-chunk", "3"],
        "parallel": ["--mode", "parallel"],
        "parallel, 2 passes": ["--mode", "parallel", "--passes", "2"],
        "parallel, entropy": ["--mode", "parallel", "--entropy-bound", "0.5"],
        "n-grams": ["--mode", "speculative"],
        "parallel drafts": ["--mode", "speculative", "--draft", "parallel"],
        "a model drafts": ["--mode", "speculative", "--draft-model", "tale"],
        "jacobi": ["--mode", "jacobi"],
        "samples": ["--num-samples", "3"],
        "beams": ["--beams", "3"],
        "json": ["--json"],
        "regex": ["--regex", "( the| a| fox)+"],
        "stop and ban": ["--stop", "the", "--ban", " was"],
        "min new": ["--min-new-tokens", "20"],
        "healing": ["--heal"],
        "guidance": ["--negative", "The sad bear", "--guidance", "1.5"],
        "bias": ["--logit-bias", "id:300=2", "--presence-penalty", "0.5"],
    }
    runs = {f"tale, {name}": [*short, *more] for name, more in ways.items()}
    for backend in ("native", "torch"):
        for kind in ("int8", "int4"):
            runs[f"tale, {kind}, {backend}"] = [*short, "--quantize", kind, "--backend", backend]
            runs[f"tale, {kind}, greedy, {backend}"] = [*short, "--quantize", kind, "--backend", backend, "-t", "0"]
    for name in ("plain", "parallel", "n-grams", "samples", "beams", "json", "guidance"):
        runs[f"tale, {name}, torch"] = [*short, *ways[name], "--backend", "torch"]
    for family in FAMILIES:
        for backend in ("native", "torch"):
            runs[f"{family}, {backend}"] = ["-m", str(folder / family), *short, "-t", "0", "--backend", backend]
    for family in ("Llama", "Gemma2", "GPT2", "Phi3", "GPTNeoX"):
        runs[f"{family}, int8"] = ["-m", str(folder / family), *short, "--quantize", "int8"]
    return runs


def save_families(folder: Path) -> None:
    """A tiny random model of each family, as transformers writes them."""
    import tiny  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    for family in FAMILIES:
        sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256}
        if family == "GPT2":
            sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
        if family in ("GPTNeoX", "Phi3"):
            sizes.pop("head_dim")
        if family == "GPTNeoX":
            sizes.pop("num_key_value_heads")
        ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        config = getattr(transformers, f"{family}Config")(vocab_size=512, initializer_range=0.3, **sizes, **ends)
        torch.manual_seed(0)
        model = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM")(config)
        model.save_pretrained(folder / family)
        tiny.byte_level_tokenizer().save(str(folder / family / "tokenizer.json"))


def run_all() -> dict[str, Any]:
    """Exit code, and the records without their seconds, of each run."""
    records = {}
    with tempfile.TemporaryDirectory() as place:
        save_families(Path(place))
        runs = commands(Path(place))
        for name, arguments in runs.items():
            command = ["generate", *arguments, "--jsonl", "--threads", "2"]
            done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "2"})
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            records[name] = {
                "code": done.returncode,
                "records": [clean(line) for line in lines if line["record"] != "run"],
            }
            print(f"{len(records)} of {len(runs)}: {name}", file=sys.stderr)
    return records


def clean(value: Any) -> Any:
    """A record without what differs from run to run."""
    if isinstance(value, dict):
        varying = ("nbytes_held", "allocated")
        return {key: clean(part) for key, part in value.items() if "seconds" not in key and key not in varying}
    return [clean(part) for part in value] if isinstance(value, list) else value


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two records differ by more than rounding."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [text for key in keys for text in differences(old.get(key), new.get(key), f"{where}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [text for place, pair in pairs for text in differences(*pair, f"{where}[{place}]")]
    if isinstance(old, float) and isinstance(new, float):
        close = math.isclose(old, new, rel_tol=BOUND, abs_tol=BOUND)
        return [] if close else [f"{where}: {old} and {new}"]
    return [] if old == new else [f"{where}: {old!r:.60} and {new!r:.60}"]


def main() -> None:
    what, file = sys.argv[1], Path(sys.argv[2])
    fresh = run_all()
    if what == "record":
        file.write_text(json.dumps(fresh))
        return
    record = clean(json.loads(file.read_text()))
    wrong = {name: texts for name in record if (texts := differences(record[name], fresh.get(name)))}
    for name, texts in wrong.items():
        print(f"{name}: {len(texts)} differences, the first {texts[0]}")
    print(f"{len(record) - len(wrong)} of {len(record)} runs are the same")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
