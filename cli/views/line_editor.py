"""A line that is being typed on a screen of our own: its text, and the place in it where the next character goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Purpose = Literal["text", "prompt", "file"]


@dataclass(frozen=True, slots=True)
class LineEditor:
    """`place` is between two characters, or at an end."""

    purpose: Purpose
    text: str = ""
    place: int = 0

    @staticmethod
    def of(purpose: Purpose, text: str) -> LineEditor:
        """A text to be changed, from its end on."""
        return LineEditor(purpose, text, len(text))

    @property
    def before(self) -> str:
        return self.text[: self.place]

    @property
    def behind(self) -> str:
        return self.text[self.place :]

    def after(self, key: str) -> LineEditor:
        """What a key makes of it: a character is written, others move or delete; the rest does nothing."""
        moves = {"left": self.place - 1, "right": self.place + 1, "home": 0, "end": len(self.text)}
        if key in moves:
            return replace(self, place=min(max(moves[key], 0), len(self.text)))
        if key == "backspace" and self.place:
            return replace(self, text=self.before[:-1] + self.behind, place=self.place - 1)
        if key == "delete":
            return replace(self, text=self.before + self.behind[1:])
        if len(key) == 1:
            return replace(self, text=self.before + key + self.behind, place=self.place + 1)
        return self
