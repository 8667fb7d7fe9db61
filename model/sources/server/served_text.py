"""A text that is given, in the tokens of a server and with the log-probabilities that it reports for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tokenglass.model.errors import ParameterError, ServerError, TraceError, first_line
from tokenglass.model.importers.responses import ReportedToken, Response, fields_of, list_of, piece_of, reader_of, whole
from tokenglass.model.sources.server.api import Body
from tokenglass.model.sources.server.client import Fields
from tokenglass.model.sources.server.probe import Server

EVERY = 2**20  # candidates: more than any vocabulary has
FORCED = 1e9  # added to a logit, it leaves no other token; reported is what there was before


class ServedText:
    """The tokens of texts over the wire. What each says is kept, as it becomes known."""

    def __init__(self, server: Server):
        """Raises ParameterError for a server that tells nothing of a given text."""
        if server.api.tokenize is None:
            raise ParameterError(
                f"{server.address}: {server.api.name} tells no log-probabilities of a text that is given; "
                "vLLM, SGLang and llama.cpp's server do"
            )
        self.server = server
        self._pieces: dict[int, bytes] = {}

    def encode(self, text: str) -> tuple[int, ...]:
        """With the start tokens that the server puts before a prompt. Raises ServerError."""
        return self._encode(text, start=True)

    def encode_bare(self, text: str) -> tuple[int, ...]:
        return self._encode(text, start=False)

    def piece(self, token_id: int) -> bytes:
        """What a token says, where that is known by now."""
        return self._pieces.get(token_id, b"")

    def is_hidden(self, _: int) -> bool:
        """Whether nothing else can begin as this token does: of a server's tokens nobody here knows all."""
        return True

    def report(self, token_ids: Sequence[int], first: int, top: int) -> Iterator[ReportedToken]:
        """The tokens from number `first` on, with `top` candidates beside each. Raises ServerError."""
        reported = (
            self._read_echo(token_ids, first, top)
            if self.server.api.echoes
            else self._read_forced(token_ids, first, top)
        )
        for token_id, token in zip(token_ids[first:], reported, strict=True):
            self._pieces[token_id] = token.piece
            yield replace(token, token_id=token_id)

    def _encode(self, text: str, *, start: bool) -> tuple[int, ...]:
        path = self.server.api.tokenize
        assert path is not None
        if self.server.api.name != "llama.cpp":
            body: Body = {"model": self.server.model, "prompt": text, "add_special_tokens": start}
            return tuple(map(self._id, list_of(self.server.client.post(path, body).get("tokens"), "tokens")))
        body = {"content": text, "add_special": start, "parse_special": True, "with_pieces": True}
        ids = []
        for each in list_of(self.server.client.post(path, body).get("tokens"), "tokens"):
            token = fields_of(each, "tokens")
            exact = token.get("piece")
            ids.append(self._id(token.get("id")))
            self._pieces[ids[-1]] = piece_of("" if isinstance(exact, list) else exact, exact)
        return tuple(ids)

    def _id(self, value: object) -> int:
        token_id = whole(value)
        if token_id is None:
            raise ServerError(f"{self.server.address}: the server gives no token ids for a text")
        return token_id

    def _read_echo(self, token_ids: Sequence[int], first: int, top: int) -> list[ReportedToken]:
        """One request, whose answer repeats the prompt (OpenAI's API reference, completions, `echo`)."""
        body: Body = {
            "model": self.server.model,
            "prompt": list(token_ids),
            "echo": True,
            "logprobs": top,
            "max_tokens": 1,
            "temperature": 1,
        }
        return self._tokens(self.server.client.post(self.server.api.complete, body), len(token_ids), top)[first:]

    def _read_forced(self, token_ids: Sequence[int], first: int, top: int) -> Iterator[ReportedToken]:
        """A request for each token, which a bias makes certain; the server keeps what it has read before."""
        for number in range(first, len(token_ids)):
            token_id, before = token_ids[number], token_ids[:number]
            if not before:
                yield ReportedToken(self.piece(token_id))
            elif is_text(self.piece(token_id)):
                token = self._force(before, token_id, max(1, top))
                yield replace(token, top=token.top[:top])
            else:
                yield self._among_all(before, token_id, top)

    def _among_all(self, before: Sequence[int], token_id: int, top: int) -> ReportedToken:
        """A token that is half a character: llama.cpp's server tells of it only beside one that is whole."""
        whole_id = next((each for each, piece in self._pieces.items() if piece and is_text(piece)), None)
        if whole_id is None:
            return ReportedToken(self.piece(token_id))
        candidates = self._force(before, whole_id, EVERY).top
        logprob = next((each.logprob for each in candidates if each.token_id == token_id), None)
        return ReportedToken(self.piece(token_id), token_id, logprob, None, candidates[:top])

    def _force(self, before: Sequence[int], token_id: int, top: int) -> ReportedToken:
        body: Body = {
            "prompt": list(before),
            "n_predict": 1,
            "n_probs": top,
            "logit_bias": [[token_id, FORCED]],
            "samplers": ["top_k"],
            "top_k": 1,
            "cache_prompt": True,
        }
        (token,) = self._tokens(self.server.client.post(self.server.api.complete, body), 1, top)
        if token.token_id != token_id:
            raise ServerError(f"{self.server.address}: the server wrote another token than it was made to")
        return token

    def _tokens(self, document: Fields, count: int, top: int) -> list[ReportedToken]:
        """The first tokens of an answer. Raises ServerError."""
        response = Response(self.server.api.name, None, self.server.model, num_candidates=top)
        try:
            read, _ = reader_of(document)
            read(document, response)
        except TraceError as error:
            raise ServerError(f"{self.server.address}: the answer cannot be read ({first_line(error)})") from None
        tokens = response.text(0).tokens
        if len(tokens) < count:
            raise ServerError(f"{self.server.address}: the server reports {len(tokens):,} of {count:,} tokens")
        return tokens[:count]


def is_text(piece: bytes) -> bool:
    """Whether it ends no character in its midst."""
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
