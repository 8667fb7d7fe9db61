"""What a server is, and which of its models is meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenglass.model.config.fields import first_few, quote, shown_name
from tokenglass.model.errors import ParameterError, ServerError, did_you_mean
from tokenglass.model.importers.responses import whole, whole_numbers
from tokenglass.model.sources.server.api import APIS, Api, Prompt, messages_of
from tokenglass.model.sources.server.client import Client, Fields

OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}  # `owned_by` of /v1/models
MOST_NAMED = 8
MOST_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class Server:
    """A server that has told what it is. `model` is what requests call the model; `context` its tokens, if told."""

    client: Client
    api: Api
    model: str
    context: int | None = None

    @property
    def address(self) -> str:
        return self.client.address.name

    @property
    def name(self) -> str:
        """The model, as it is shown: of a path only its end."""
        return shown_name(self.model.rstrip("/").rpartition("/")[2] if self.model.startswith("/") else self.model)

    def count_slots(self) -> int:
        """Texts to ask for at once: more would wait at the server, silently. llama.cpp's server tells its own number.

        Raises ServerError.
        """
        properties = self.client.get("/props") if self.api.name == "llama.cpp" else None
        return min(MOST_SLOTS, whole((properties or {}).get("total_slots")) or self.api.slots)

    def text_of(self, prompt: Prompt) -> Prompt:
        """The prompt as it is sent: llama.cpp's server writes out a chat first, so that its whole API serves it."""
        if isinstance(prompt, str) or self.api.name != "llama.cpp":
            return prompt
        text = self.client.post("/apply-template", {"messages": messages_of(prompt)}).get("prompt")
        if not isinstance(text, str):
            raise ServerError(f"{self.address}: the server gives no text for this chat")
        return text

    def token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's token ids; none where the server does not tell them. Raises ServerError."""
        if self.api.tokenize is None:
            return ()
        if self.api.name == "llama.cpp":
            body: dict[str, Any] = {"content": prompt, "add_special": True, "parse_special": True}
        elif isinstance(prompt, str):
            body = {"model": self.model, "prompt": prompt}
        else:
            body = {"model": self.model, "messages": messages_of(prompt)}
        try:
            return whole_numbers(self.client.post(self.api.tokenize, body).get("tokens"))
        except ServerError as error:
            if error.status in (400, 404, 405, 422, 501):  # of an older version, or switched off
                return ()
            raise


def probe(client: Client, model: str | None = None) -> Server:
    """The server at an address, with the model of that name, or its only one.

    Raises ServerError for what is no such server, ParameterError for a model that it does not serve.
    """
    listed = client.get("/v1/models")
    if listed is None:
        raise ServerError(f"{client.address.name}: no /v1/models there; is this a server of language models?")
    entries = dict(models_of(listed))
    owners = {str(entry.get("owned_by")) for entry in entries.values()}
    known = [OWNERS[owner] for owner in sorted(owners) if owner in OWNERS]
    name = known[0] if known else "ollama" if is_ollama(client) else "openai"
    chosen = choose(client.address.name, [*entries], model)
    return Server(client, APIS[name], chosen, context_of(entries.get(chosen, {})))


def models_of(listed: Fields) -> Iterator[tuple[str, Fields]]:
    data = listed.get("data")
    for entry in data if isinstance(data, list) else ():
        if isinstance(entry, dict) and isinstance(name := entry.get("id"), str):
            yield name, entry


def is_ollama(client: Client) -> bool:
    version = client.get("/api/version")
    return version is not None and isinstance(version.get("version"), str)


def context_of(entry: Fields) -> int | None:
    """vLLM and SGLang tell it beside the name, llama.cpp among the facts of the model."""
    meta = entry.get("meta")
    return whole(entry.get("max_model_len")) or (whole(meta.get("n_ctx")) if isinstance(meta, dict) else None)


def choose(address: str, served: list[str], wanted: str | None) -> str:
    """The name of the model. Raises ParameterError where several could be meant, or none."""
    if wanted is not None:
        for name in (wanted, f"{wanted}:latest"):  # as Ollama completes a name
            if name in served or not served:
                return name if served else wanted
        meant = did_you_mean(wanted, {name: shown_name(name) for name in served})
        raise ParameterError(f"{address} serves no model {quote(wanted)}{meant or f'; it serves {names_of(served)}'}")
    if not served:
        raise ParameterError(f"{address} lists no model; name one with --remote-model")
    if len(served) > 1:
        raise ParameterError(
            f"{address} serves {len(served):,} models; name one with --remote-model: {names_of(served)}"
        )
    return served[0]


def names_of(served: list[str]) -> str:
    return first_few([shown_name(name) for name in served], MOST_NAMED)
