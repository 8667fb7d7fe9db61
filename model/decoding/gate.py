"""What of a growing text may be printed: nothing that may still become a stop string or a banned phrase."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from tokenglass.model.text.tokenizer import StreamingDetokenizer, Tokenizer


class Gate:
    """The text of the new tokens, cut at the first stop string, and held back while a stop or a ban may have begun.

    Of all stops the one that is complete first counts, of those that end together the longest. One that is the name
    of a special token stops at that token, which the text does not show. A banned phrase is held back from the border
    of the token it begins in, since that whole token is taken back.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Iterable[int],
        stops: tuple[str, ...] = (),
        bans: tuple[str, ...] = (),
        healed: int = 0,
    ):
        self._tokenizer = tokenizer
        self._prompt_ids = tuple(prompt_ids)
        self._stops = stops
        self._stop_ids = tokenizer.special_ids(stops)
        self._bans = bans
        self._ids: list[int] = []
        self._healed = healed  # characters at the beginning that the prompt has already
        self.stopped = False
        self.banned_from: int | None = None  # number of new tokens before a banned phrase that is now complete
        self._begin()

    def _begin(self) -> None:
        self._detokenizer = StreamingDetokenizer(self._tokenizer, self._prompt_ids)
        self._text = ""  # all of it, printed or not
        self._ends = [0]  # its length after each token
        self._printed = self._healed

    def add(self, token_id: int) -> str:
        """One more token; the text that may be printed now."""
        if token_id in self._stop_ids:
            text, self.stopped = self.flush(), True
            return text
        self._ids.append(token_id)
        before = len(self._text)
        self._text += self._detokenizer.add(token_id)
        self._ends.append(len(self._text))
        if not (self._stops or self._bans):  # the common case
            return self._print(len(self._text))
        return self._print(self._settle(before))

    def flush(self) -> str:
        """What is still held back, incomplete characters as U+FFFD; up to a stop that they complete."""
        if self.stopped:
            return ""
        before = len(self._text)
        self._text += self._detokenizer.flush()
        self._ends[-1] = len(self._text)
        end = first_end(self._text, self._stops, before, self._healed)
        self.stopped = end is not None
        return self._print(len(self._text) if end is None else end[0])

    def rewind(self, count: int) -> None:
        """Only the first `count` tokens stand; none of what goes was printed."""
        printed, kept = self._printed, self._ids[:count]
        self._ids, self.banned_from = [], None
        self._begin()
        for token_id in kept:
            self._ids.append(token_id)
            self._text += self._detokenizer.add(token_id)
            self._ends.append(len(self._text))
        self._printed = printed

    def _settle(self, before: int) -> int:
        """Up to where the text may be printed, after it grew from `before`."""
        stop, ban = (first_end(self._text, phrases, before, self._healed) for phrases in (self._stops, self._bans))
        if ban is not None and (stop is None or ban[1] <= stop[1]):
            self.banned_from = self._token_at(ban[0])
        elif stop is not None:
            self.stopped = True
            return stop[0]
        held = len(self._text) if self.banned_from is None else self._ends[self.banned_from]
        while (earlier := begins(self._text[:held], self._bans)) < held:  # where it is taken back to, another may begin
            held = self._ends[self._token_at(earlier)]
        return begins(self._text[:held], self._stops)

    def _token_at(self, place: int) -> int:
        """How many tokens come before the one in which this character begins, halves of it included."""
        return bisect_left(self._ends, self._ends[bisect_right(self._ends, place) - 1])

    def _print(self, end: int) -> str:
        text = self._text[self._printed : end]
        self._printed = max(self._printed, end)
        return text


def first_end(text: str, phrases: tuple[str, ...], since: int, floor: int = 0) -> tuple[int, int] | None:
    """Start and end of the phrase that is complete first, beyond the first `since` characters; the longest of those
    that end together. None begins before `floor`."""
    found = []
    for phrase in phrases:
        start = text.find(phrase, max(floor, since - len(phrase) + 1))
        if start >= 0:
            found.append((start + len(phrase), start))
    if not found:
        return None
    end, start = min(found)
    return start, end


def begins(text: str, phrases: tuple[str, ...]) -> int:
    """Where the longest end of `text` that one of the phrases may begin with starts; its length if there is none."""
    held = 0
    for phrase in phrases:
        for length in range(min(len(phrase) - 1, len(text)), held, -1):
            if text.endswith(phrase[:length]):
                held = length
                break
    return len(text) - held
