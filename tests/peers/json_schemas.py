"""Do outputs under --json-schema fit? 50 schemas with a prompt each, several seeds, judged by the jsonschema library.

    python tests/peers/json_schemas.py MODEL [-n 256] [--seeds 4] [--schemas 0:50] [--out FILE]

Every output has to fit its schema, or end with the reason "length"; another is told as BAD and the exit code is 1.
With --out each result is a line of JSON, and what the file already holds is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema

from tokenglass.model.checkpoint.store import resolve
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.request import Request
from tokenglass.model.loaded_model import LoadedModel
from tokenglass.model.loading import load_model
from tokenglass.model.records.steps import Finish, Step
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.text.chat import ChatTemplate, Message

SCHEMAS = Path(__file__).with_suffix(".json")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-n", "--max-new-tokens", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--schemas", default="0:50", help="FROM:TO, of the 50")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = read(options.out)
    done = {(result["schema"], result["seed"]) for result in results}
    model = load_model(resolve(options.model), backend="auto")
    cases = json.loads(SCHEMAS.read_text())
    start, end = map(int, options.schemas.split(":"))
    for number, case in list(enumerate(cases))[start:end]:
        for seed in range(1, options.seeds + 1):
            if (number, seed) in done:
                continue
            results.append({"schema": number, "seed": seed, **run(model, case, seed, options.max_new_tokens)})
            line = json.dumps(results[-1])
            print(line, flush=True)
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(line + "\n")
    verdicts = Counter(result["verdict"] for result in results)
    tokens, forced, passes = (sum(result[key] for result in results) for key in ("tokens", "forced", "passes"))
    print(f"{len(results)} outputs: {dict(verdicts)}; {tokens} tokens, {forced} of them forced, in {passes} passes")
    return 1 if verdicts["BAD"] else 0


def read(path: Path | None) -> list[dict[str, Any]]:
    """The results of an earlier run."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path is not None and path.exists() else []


def run(model: LoadedModel, case: dict[str, Any], seed: int, max_new_tokens: int) -> dict[str, Any]:
    """One output and what jsonschema says of it: "fits", "length" (it had no room to end) or "BAD"."""
    template = ChatTemplate.from_folder(model.checkpoint.folder)
    asked = f"{case['prompt']} Answer with JSON only."
    request = Request(
        prompt_ids=template.encode((Message("user", asked),), model.tokenizer),
        seed=seed,
        sampling=model.checkpoint.generation_config.sampling(),
        max_new_tokens=max_new_tokens,
        eos_token_ids=model.eos_token_ids,
        constraint=Constraint("json-schema", (json.dumps(case["schema"]),)),
    )
    started = time.perf_counter()
    records = list(decode(Job(model.engine, model.tokenizer, request)))
    seconds = time.perf_counter() - started
    steps = [record for record in records if isinstance(record, Step)]
    choices = [choice for step in steps for choice in step.choices]
    (finish,) = [record for record in records if isinstance(record, Finish)]
    text = "".join(record.text for record in records)
    fits = finish.reason == "eos" and is_valid(text, case["schema"])
    return {
        "verdict": "fits" if fits else "length" if finish.reason == "length" else "BAD",
        "reason": finish.reason,
        "text": text,
        "tokens": len(choices),
        "forced": sum(choice.status == "forced" for choice in choices),
        "passes": len(steps),
        "seconds": round(seconds, 2),
    }


def is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
