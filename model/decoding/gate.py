"""What of a growing text may be printed: nothing that may still become a stop string or a banned phrase."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from copy import copy

from tokenglass.model.text.tokenizer import StreamingDetokenizer, Tokenizer


class Gate:
    """The text of the new tokens, cut at the first stop string, and held back while a stop or a ban may have begun.

    Of all stops the one that is complete first counts, of those that end together the longest. One that is the name
    of a special token stops at that token, which the text does not show. A banned phrase is held back from the border
    of the token it begins in, since that whole token is taken back. Only what is held back is kept: no phrase begins
    in what was printed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Iterable[int],
        stops: tuple[str, ...] = (),
        bans: tuple[str, ...] = (),
        healed: int = 0,
    ):
        self._stops = stops
        self._stop_ids = tokenizer.special_ids(stops)
        self._bans = bans
        self._detokenizer = StreamingDetokenizer(tokenizer, prompt_ids)
        self._text = ""  # what is not printed
        self._healed = healed  # characters at its beginning that the prompt has already
        # From the border before that text on: tokens before it, and behind each the text's length and a way back
        self._first = 0
        self._ends = [0]
        self._states = [self._detokenizer.state]
        self.stopped = False
        self.banned_from: int | None = None  # number of new tokens before a banned phrase that is now complete

    def fork(self) -> Gate:
        """A second one that goes on from here."""
        other = copy(self)
        other._detokenizer, other._ends, other._states = copy(self._detokenizer), self._ends[:], self._states[:]
        return other

    def add(self, token_id: int) -> str:
        """One more token; the text that may be printed now."""
        if token_id in self._stop_ids:
            text, self.stopped = self.flush(), True
            return text
        before = len(self._text)
        self._text += self._detokenizer.add(token_id)
        self._ends.append(len(self._text))
        self._states.append(self._detokenizer.state)
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
        last = count - self._first
        self._text, self._detokenizer.state = self._text[: self._ends[last]], self._states[last]
        del self._ends[last + 1 :], self._states[last + 1 :]
        self.banned_from = None

    def _settle(self, before: int) -> int:
        """Up to where the text may be printed, after it grew from `before`."""
        stop, ban = (first_end(self._text, phrases, before, self._healed) for phrases in (self._stops, self._bans))
        if ban is not None and (stop is None or ban[1] <= stop[1]):
            self.banned_from = self._first + self._border_before(ban[0])
        elif stop is not None:
            self.stopped = True
            return stop[0]
        held = len(self._text) if self.banned_from is None else self._ends[self.banned_from - self._first]
        while (earlier := begins(self._text[:held], self._bans)) < held:  # where it is taken back to, another may begin
            held = self._ends[self._border_before(earlier)]
        return begins(self._text[:held], self._stops)

    def _border_before(self, place: int) -> int:
        """Which border comes before the token in which this character begins, halves of it included."""
        return bisect_left(self._ends, self._ends[bisect_right(self._ends, place) - 1])

    def _print(self, end: int) -> str:
        """The text up to there, which is forgotten, and the borders before it too."""
        text = self._text[self._healed : end]
        if end > self._healed:
            self._text, self._healed = self._text[end:], 0
            gone = self._border_before(end)
            self._first += gone
            self._ends = [length - end for length in self._ends[gone:]]
            del self._states[:gone]
        return text


def first_end(text: str, phrases: tuple[str, ...], since: int, floor: int = 0) -> tuple[int, int] | None:
    """Start and end of the phrase that is complete first, beyond the first `since` characters; the longest of those
    that end together. None begins before `floor`."""
    ends = []
    for phrase in phrases:
        start = text.find(phrase, max(floor, since - len(phrase) + 1))
        if start >= 0:
            ends.append((start + len(phrase), start))
    if not ends:
        return None
    end, start = min(ends)
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
