"""Runs of small models in every way of decoding that promises the autoregressive text, and what that text is.

`python tests/lossless.py --cases 5000` tries so many runs.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import native_parts
import tiny

from tokenglass.model.config.layer_kinds import Convolution, DeltaNet, LayerKind
from tokenglass.model.config.mixture import ClampedSwiGlu, Mixture
from tokenglass.model.decoding.autoregressive import decode
from tokenglass.model.decoding.drafts import ModelDrafter, NgramDrafter, ParallelDrafter
from tokenglass.model.decoding.healing import heal
from tokenglass.model.decoding.job import Job
from tokenglass.model.decoding.parallel import decode_parallel
from tokenglass.model.decoding.request import Request
from tokenglass.model.decoding.reveal import ParallelParameters
from tokenglass.model.decoding.samples import decode_samples, derived_seed
from tokenglass.model.decoding.speculative import decode_jacobi, decode_speculative
from tokenglass.model.engine.engine import Engine
from tokenglass.model.errors import TokenglassError
from tokenglass.model.records.steps import Finish, Record, Step
from tokenglass.model.sampling.constraints import Constraint
from tokenglass.model.sampling.parameters import SamplingParameters
from tokenglass.model.text.tokenizer import Tokenizer
from tokenglass.model.torch_engine.engine import TorchEngine

END = 0
LAYERS = ("experts", "clamped experts", "convolution", "delta")
KINDS = ("torch", "native", "window", *LAYERS, *(f"native {kind}" for kind in LAYERS))
LETTERS = tuple('abcdeĠ"{}[]:,0123tru.')
LONGER = ("ab", "bc", "abc", "Ġa", "Ġab", '":', '{"', '["', "tr", "ue", "true", "Ġ0", ",Ġ", '"}', "aa", "ca", "12")
SIZE = 1 + len(LETTERS) + len(LONGER)
MASK = SIZE  # a row of the model beyond the tokenizer's

SCHEMA = {
    "type": "object",
    "properties": {"ab": {"enum": ["abc", "aba", "true"]}, "c": {"type": "array", "items": {"enum": [0, 1, 12, True]}}},
    "required": ["ab", "c"],
    "additionalProperties": False,
}
GRAMMAR = 'start: "ab" item+ "."\nitem: "c" | " a" | "{" item "}"'
CONSTRAINTS: dict[str, Constraint | None] = {
    "none": None,
    "json": Constraint("json"),
    "schema": Constraint("json-schema", (json.dumps(SCHEMA),)),
    "regex": Constraint("regex", (r"(abc|ab c|aab)+(true)?[0-3]*\.",)),
    "choice": Constraint("choice", ("abc abc ab", "abc ab c", "true", "tr")),
    "grammar": Constraint("grammar", (GRAMMAR,)),
}
SAMPLINGS = (
    SamplingParameters(temperature=0),
    SamplingParameters(temperature=1, top_p=1),
    SamplingParameters(temperature=0.7, top_k=4, top_p=0.9),
    SamplingParameters(temperature=0, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3),
    SamplingParameters(temperature=1.5, top_p=1, min_p=0.05, dry_multiplier=0.8, penalty_window=8),
    SamplingParameters(temperature=1, top_p=1, no_repeat_ngram_size=3, logit_bias=(((1, 2, 3), 2.0), ((END,), -3.0))),
    SamplingParameters(temperature=1, top_p=1, xtc_probability=0.5, xtc_threshold=0.1, typical_p=0.9),
    SamplingParameters(temperature=0.6, top_p=1, repetition_penalty=0.7, top_n_sigma=2.0),
)
PHRASES = ("a", "ab", "bc a", "ab ab", '":', "c", " a", "abcab", "true", "0", "aa", "tr", "12", "e.")


@functools.cache
def tokenizer() -> Tokenizer:
    """A few letters and longer pieces of them, so that texts repeat themselves and pieces cross phrases' edges."""
    vocab = {token: token_id for token_id, token in enumerate(("<end>", *LETTERS, *LONGER))}
    splits = [(token[:cut], token[cut:]) for token in LONGER for cut in (1, 2, 3) if token[cut:]]
    merges = [pair for pair in splits if pair[0] in vocab and pair[1] in vocab]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend, (END,))


@functools.cache
def engine(kind: str, seed: int = 1) -> Engine:
    """A random model; `window` has layers that let go of what is far behind, `experts` a mixture of them,
    `clamped experts` one as in gpt-oss, and `convolution` and `delta` a layer without attention, torch's or native."""
    config = replace(tiny.CONFIG, vocab_size=SIZE + 1, max_positions=96, mask_token_id=MASK)
    first, second = config.layers
    if kind == "window":
        config = replace(config, layers=(replace(first, window=6), second))
    if kind.endswith("experts"):
        mixture = Mixture(count=6, chosen=2, size=24, renormalise=True, shared_size=16)
        config = replace(config, layers=(first, replace(second, has_experts=True)), mixture=mixture)
    if kind.endswith("clamped experts"):
        mixture = replace(mixture, shared_size=None, router_bias=True)
        swiglu = ClampedSwiGlu(1.702, 0.7)
        config = replace(config, mixture=mixture, swiglu=swiglu, sinks=True, mlp_bias=True)
    if "convolution" in kind:
        config = replace(config, layers=(LayerKind(None, convolution=Convolution(3, bias=True)), second))
    if "delta" in kind:
        config = replace(config, layers=(LayerKind(None, delta=DeltaNet(1, 2, 8, 8, taps=3)), second))
    torch.manual_seed(seed)
    model = tiny.Transformer(config).eval().requires_grad_(False)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4 if weight.ndim > 1 else 1.0)
    local = TorchEngine(model, torch.device("cpu"), torch.float32)
    if not kind.startswith("native"):
        return local
    native = native_parts.try_build(model)
    return local if isinstance(native, str) else native


@dataclass(frozen=True)
class Case:
    """A run, and the way of decoding that is to give the same."""

    request: Request
    kind: str
    mode: str
    count: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    prompt = draw(st.sampled_from(["ab", "abcab cab", "ab ab ab", 'true {"ab":', "c", "0 a 12 12"]))
    prompt_ids, healed = tokenizer().encode(prompt), b""
    constraint = CONSTRAINTS[draw(st.sampled_from(sorted(CONSTRAINTS)))]
    if constraint is None and draw(st.booleans()):
        prompt_ids, healed = heal(tokenizer(), prompt_ids)
    max_new_tokens = draw(st.integers(1, 40))
    request = Request(
        prompt_ids=prompt_ids,
        healed=healed,
        constraint=constraint,
        seed=draw(st.integers(0, 2**20)),
        sampling=draw(st.sampled_from(SAMPLINGS)),
        max_new_tokens=max_new_tokens,
        eos_token_ids=draw(st.sampled_from([frozenset({END}), frozenset(), frozenset({END, 21})])),
        min_new_tokens=draw(st.sampled_from([0, 0, min(5, max_new_tokens)])),
        ignore_eos=draw(st.sampled_from([False, False, True])),
        stops=tuple(draw(st.lists(st.sampled_from(PHRASES), max_size=1))),
        bans=tuple(draw(st.lists(st.sampled_from(PHRASES), max_size=3))),
        prefill_chunk=draw(st.sampled_from([1, 3, 256])),
    )
    kind, mode = draw(st.sampled_from(KINDS)), draw(st.sampled_from(sorted(MODES)))
    return Case(request, kind, mode, draw(st.integers(1, 8)))


Begin = Callable[[Case], Iterator[Record]]


def speculative(case: Case, drafter: str) -> Iterator[Record]:
    model, request = engine(case.kind), case.request
    cache = model.new_cache(planned_length=request.planned_length(model.limit))
    job = Job(model, tokenizer(), request, cache=cache, mask_id=MASK, draft_engine=model)
    guesses = {
        "ngram": NgramDrafter,
        "parallel": lambda: ParallelDrafter(job),
        "itself": lambda: ModelDrafter(job),
        "another": lambda: ModelDrafter(replace(job, draft_engine=engine(case.kind, 2))),
    }[drafter]()
    return decode_speculative(job, guesses, case.count)


def jacobi(case: Case) -> Iterator[Record]:
    model = engine(case.kind)
    cache = model.new_cache(planned_length=case.request.planned_length(model.limit))
    return decode_jacobi(Job(model, tokenizer(), case.request, cache=cache), case.count)


def alone(case: Case, **changes: object) -> Iterator[Record]:
    return decode(Job(engine(case.kind), tokenizer(), replace(case.request, **changes)))


def sample(case: Case) -> Iterator[Record]:
    """The second of two."""
    for record in decode_samples(Job(engine(case.kind), tokenizer(), case.request), 2):
        if record.sequence == 1:
            yield record


def blocks_of_one(case: Case) -> Iterator[Record]:
    rule = ParallelParameters(block_size=1, reveal=1)
    return decode_parallel(Job(engine(case.kind), tokenizer(), case.request, mask_id=MASK), rule)


MODES: dict[str, Begin] = {
    "in other chunks": lambda case: alone(case, prefill_chunk=2),
    "without a cache": lambda case: alone(case, use_cache=False),
    "n-grams": lambda case: speculative(case, "ngram"),
    "blocks as guesses": lambda case: speculative(case, "parallel"),
    "the model itself guesses": lambda case: speculative(case, "itself"),
    "another model guesses": lambda case: speculative(case, "another"),
    "jacobi": jacobi,
    "a sample": sample,
    "blocks of one": blocks_of_one,
}


REFUSED = {"a sample": ("temperature 0",), "blocks of one": ("a constraint", "healing")}  # what the message names


@dataclass(frozen=True)
class Outcome:
    token_ids: tuple[int, ...]
    text: str
    reason: str
    new_tokens: int


def outcome(begin: Begin, case: Case) -> Outcome | str:
    """What stands at the end; the message of a run that is refused."""
    prompt_length = len(case.request.prompt_ids)
    ids: list[int] = []
    text = ""
    try:
        for record in begin(case):
            text += record.text
            if isinstance(record, Step):
                if record.rewound_to is not None:
                    del ids[record.rewound_to - prompt_length :]
                ids += [choice.token_id for choice in record.settled if choice.token_id is not None]
            else:
                finish: Finish = record
    except TokenglassError as error:
        return str(error)
    return Outcome(tuple(ids), text, finish.reason, finish.totals.new_tokens)


def check(case: Case) -> None:
    """The way of decoding gives what one token at a time gives, or says what it cannot do."""
    request = case.request
    if case.mode == "a sample":
        request = replace(request, seed=derived_seed(request.seed, 1))
    expected = outcome(alone, replace(case, request=request))
    actual = outcome(MODES[case.mode], case)
    if isinstance(actual, str):
        refusal = REFUSED.get(case.mode, ())
        assert actual == expected or any(name in actual for name in refusal), (case, actual, expected)
        return
    assert actual == expected, (case, actual, expected)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--mode", choices=sorted(MODES))
    options = parser.parse_args()
    tried: dict[str, int] = {}

    @settings(max_examples=options.cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=cases())
    def run(case: Case) -> None:
        case = case if options.mode is None else replace(case, mode=options.mode)
        tried[case.mode] = tried.get(case.mode, 0) + 1
        check(case)
        if sum(tried.values()) % 500 == 0:
            print(f"{sum(tried.values()):,} runs were those of one token at a time: {tried}", flush=True)

    run()


if __name__ == "__main__":
    main()
