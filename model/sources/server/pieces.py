"""Which text came with which token, where a server tells both."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence

from tokenglass.model.importers.responses import ReportedToken
from tokenglass.model.text.thoughts import TAGS

Pair = tuple[ReportedToken | None, str]


class Pieces:
    """The text of a stream beside the bytes of its tokens.

    A server holds back half a character, or what may be a stop; special tokens have no text; and some tell of the
    newest token alone when several make a character. What was said and no token tells becomes a token of its own,
    about which nothing is known; what was held back may come without one.
    """

    def __init__(self) -> None:
        self._unsaid = b""  # bytes of tokens that are no text yet
        self._is_thinking = False

    def pair_all(self, tokens: Sequence[ReportedToken], thought: str, said: str) -> list[Pair]:
        """The same of a message that may hold a part of a thought, which stands in tags as most models write them."""
        pairs: list[Pair] = []
        if thought:
            pairs += begun_by("" if self._is_thinking else TAGS[0].begin, self.pair(() if said else tokens, thought))
            self._is_thinking = True
        if said or not thought:
            ends = bool(said) and self._is_thinking
            pairs += begun_by(f"{TAGS[0].end}\n\n" if ends else "", self.pair(tokens, said))
            self._is_thinking = self._is_thinking and not ends
        return pairs

    def pair(self, tokens: Sequence[ReportedToken], said: str) -> Iterator[Pair]:
        """The tokens of one message, each with the text that became printable with it."""
        text, content = said.encode("utf-8", "replace"), b"".join(token.piece for token in tokens)
        if not (text or content):
            return
        unsaid, self._unsaid = self._unsaid, b""
        whole = unsaid + content
        if len(text) > len(whole) and text.endswith(content) and text.startswith(unsaid):
            untold = ReportedToken(text[len(unsaid) : len(text) - len(content)])
            tokens, whole = (untold, *tokens), text
        elif text != whole and whole.startswith(text):
            self._unsaid = whole[len(text) :]
        if text == whole and tokens:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            decoder.decode(unsaid)
            yield from ((token, decoder.decode(token.piece)) for token in tokens)
            return
        *first, last = tokens or (None,)
        yield from ((token, "") for token in first)
        yield last, said


def begun_by(tag: str, pairs: Iterator[Pair]) -> Iterator[Pair]:
    """The pairs, with the tag before the text of the first."""
    for token, said in pairs:
        yield token, tag + said
        tag = ""
