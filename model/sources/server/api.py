"""How each kind of server is asked, in its own names, and what its numbers are of.

The names are those of their documentation: OpenAI's API reference (completions, chat completions), which vLLM
("OpenAI-Compatible Server") and SGLang ("Sampling Parameters", "OpenAI APIs") extend; llama.cpp's
tools/server/README.md; Ollama's docs/api.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tokenglass.model.decoding.request import Request
from tokenglass.model.runs.run import Logprobs
from tokenglass.model.sampling.parameters import SETTINGS, SamplingParameters
from tokenglass.model.text.chat import Message

Prompt = str | tuple[Message, ...]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Name:
    """What an API calls a sampling setting; `off` is the value that does nothing there, where it is not ours."""

    name: str
    off: Any = None


def names(*same: str, **others: str | Name) -> Mapping[str, Name]:
    """The settings that an API calls as we do, and those that it calls otherwise."""
    renamed = {ours: theirs if isinstance(theirs, Name) else Name(theirs) for ours, theirs in others.items()}
    return MappingProxyType({**{name: Name(name) for name in same}, **renamed})


def always_raw(_: SamplingParameters) -> Logprobs | None:
    return "raw"


def after_temperature(sampling: SamplingParameters) -> Logprobs | None:
    """Penalties and the temperature are in the numbers, truncations are not; at temperature 0 they are those of 1."""
    acting = {processor.name for processor in sampling.processors if processor.acts(sampling.is_greedy)}
    changed = acting & {"logit-bias", "repetition-penalty", "presence-penalty", "frequency-penalty"}
    return "processed" if changed or ("temperature" in acting and sampling.temperature != 1) else "raw"


def not_told(_: SamplingParameters) -> Logprobs | None:
    return None


@dataclass(frozen=True, slots=True)
class Api:
    """One kind of server: its paths, what it calls things, and what it reports."""

    name: str
    complete: str
    chat: str
    body: Callable[[Api, str, Prompt, Request], Body]
    settings: Mapping[str, Name]
    logprobs: Callable[[SamplingParameters], Logprobs | None] = always_raw
    most_candidates: int | None = None  # that it reports beside a token
    most_in_chat: int | None = None
    most_seed: int = 2**63 - 1
    controls: Mapping[str, str] = field(default_factory=dict)  # what it calls ignore_eos and min_new_tokens
    has_bias: bool = True
    slots: int = 8  # texts that are asked for at once, where no number is given
    tokenize: str | None = None  # the path that gives the ids of a text
    echoes: bool = False  # whether it reports the log-probabilities of a prompt

    def path(self, prompt: Prompt) -> str:
        return self.complete if isinstance(prompt, str) else self.chat

    def num_candidates(self, prompt: Prompt, wanted: int) -> int:
        """How many of them it can report beside each token."""
        most = self.most_candidates if isinstance(prompt, str) else self.most_in_chat
        return wanted if most is None else min(wanted, most)

    def sampling(self, sampling: SamplingParameters) -> Body:
        """Every setting that it has a name for: a server's own defaults are not ours."""
        values = sampling.values
        return {
            theirs.name: theirs.off if theirs.off is not None and values[ours] == SETTINGS[ours].off else values[ours]
            for ours, theirs in self.settings.items()
        }

    def control(self, request: Request) -> Body:
        """How the text ends, where that is asked for."""
        values = {"ignore_eos": request.ignore_eos, "min_new_tokens": request.min_new_tokens}
        return {self.controls[name]: value for name, value in values.items() if value}


def bias_of(request: Request) -> dict[int, float]:
    """What is added to the logits of tokens, by their ids."""
    total: dict[int, float] = {}
    for token_ids, bias in request.sampling.logit_bias:
        for token_id in token_ids:
            total[token_id] = total.get(token_id, 0.0) + bias
    return total


def messages_of(prompt: tuple[Message, ...]) -> list[Body]:
    return [dict(message.fields) for message in prompt]


def openai_body(api: Api, model: str, prompt: Prompt, request: Request) -> Body:
    """A streamed completion or chat completion, with log-probabilities."""
    top = api.num_candidates(prompt, request.top)
    body: Body = {
        "model": model,
        "max_tokens": request.max_new_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": request.seed,
        **api.sampling(request.sampling),
        **api.control(request),
    }
    if isinstance(prompt, str):
        body |= {"prompt": prompt, "logprobs": top}
    else:
        body |= {"messages": messages_of(prompt), "logprobs": True, "top_logprobs": top}
    if request.stops:
        body["stop"] = list(request.stops)
    if bias := bias_of(request):
        body["logit_bias"] = {str(token_id): value for token_id, value in bias.items()}
    return body


def vllm_body(api: Api, model: str, prompt: Prompt, request: Request) -> Body:
    return {**openai_body(api, model, prompt, request), "return_token_ids": True}


def llama_cpp_body(api: Api, _: str, prompt: Prompt, request: Request) -> Body:
    """A streamed completion. A chat has been made a text by the server's own template, and the samplers act in our
    order."""
    assert isinstance(prompt, str)
    whole = len(request.prompt_ids) + request.max_new_tokens
    return {
        "prompt": prompt,
        "n_predict": request.max_new_tokens,
        "stream": True,
        "n_probs": max(1, request.top),
        "return_tokens": True,
        "cache_prompt": True,
        "seed": request.seed,
        "stop": list(request.stops),
        "samplers": ["penalties", "temperature", "top_n_sigma", "top_k", "top_p", "min_p", "typ_p", "xtc"],
        "logit_bias": [[token_id, bias] for token_id, bias in bias_of(request).items()],
        **api.sampling(request.sampling),
        "repeat_last_n": request.sampling.penalty_window or whole,
        **api.control(request),
    }


def ollama_body(api: Api, model: str, prompt: Prompt, request: Request) -> Body:
    top = api.num_candidates(prompt, request.top)
    asked: Body = {"prompt": prompt, "raw": True} if isinstance(prompt, str) else {"messages": messages_of(prompt)}
    options = {"num_predict": request.max_new_tokens, "seed": request.seed, **api.sampling(request.sampling)}
    if request.stops:
        options["stop"] = list(request.stops)
    return {"model": model, "stream": True, "logprobs": True, "top_logprobs": top, **asked, "options": options}


def without_logprobs(body: Body) -> Body:
    """The same request, of which only the text is wanted."""
    return {name: value for name, value in body.items() if name != "n_probs" and "logprobs" not in name}


OPENAI_SETTINGS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")

APIS: Mapping[str, Api] = MappingProxyType(
    {
        api.name: api
        for api in (
            Api(
                "openai",
                "/v1/completions",
                "/v1/chat/completions",
                openai_body,
                names(*OPENAI_SETTINGS),
                not_told,
                most_candidates=5,
                most_in_chat=20,
            ),
            Api(
                "vllm",  # unless it was started with another --logprobs-mode
                "/v1/completions",
                "/v1/chat/completions",
                vllm_body,
                names(*OPENAI_SETTINGS, "top_k", "min_p", "repetition_penalty"),
                controls={"ignore_eos": "ignore_eos", "min_new_tokens": "min_tokens"},
                slots=32,
                tokenize="/tokenize",
                echoes=True,
            ),
            Api(
                "sglang",  # unless it was started with SGLANG_RETURN_ORIGINAL_LOGPROB
                "/v1/completions",
                "/v1/chat/completions",
                openai_body,
                names(*OPENAI_SETTINGS, "min_p", "repetition_penalty", top_k=Name("top_k", off=-1)),
                after_temperature,
                controls={"ignore_eos": "ignore_eos", "min_new_tokens": "min_tokens"},
                slots=32,
                tokenize="/tokenize",
                echoes=True,
            ),
            Api(
                "llama.cpp",
                "/completion",
                "/completion",
                llama_cpp_body,
                names(
                    *OPENAI_SETTINGS,
                    *("top_k", "min_p", "xtc_probability", "xtc_threshold"),
                    top_n_sigma=Name("top_n_sigma", off=-1),
                    typical_p="typical_p",
                    repetition_penalty="repeat_penalty",
                    penalty_window="repeat_last_n",
                ),
                most_seed=2**32 - 2,  # the largest one asks for a seed of the server's own
                controls={"ignore_eos": "ignore_eos"},
                tokenize="/tokenize",
            ),
            Api(
                "ollama",
                "/api/generate",
                "/api/chat",
                ollama_body,
                names(
                    *OPENAI_SETTINGS,
                    *("top_k", "min_p", "typical_p"),
                    repetition_penalty="repeat_penalty",
                    penalty_window=Name("repeat_last_n", off=-1),
                ),
                most_candidates=20,
                most_in_chat=20,
                most_seed=2**31 - 1,
                has_bias=False,
                slots=4,
            ),
        )
    }
)
