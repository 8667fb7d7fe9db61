"""An answer in a chat on a terminal: what is thought is dim, and one line once it is over; no panel stays behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace

from rich.segment import Segment
from rich.text import Text

from tokenglass.cli.terminal.console import size
from tokenglass.cli.terminal.terminal import visible
from tokenglass.cli.text import plural
from tokenglass.cli.views.live import LiveSession, LiveView
from tokenglass.cli.views.plain import PlainView
from tokenglass.cli.views.view import View
from tokenglass.cli.widgets.widget import DIM, Row, glyphs_of
from tokenglass.model.decoding.conversation import settled_ids
from tokenglass.model.records.steps import Finish, Record
from tokenglass.model.runs.run import Run
from tokenglass.model.text.thoughts import Thoughts

LAST_LINES = 4  # of a thought that goes on
TAIL = 2000  # characters of it, enough for these lines on any terminal


def in_chat(view: View, thoughts: Thoughts) -> View:
    """The view of an answer, whose thoughts stand as they do at its beginning. A pipe gets everything."""
    if isinstance(view, LiveView):
        return ChatView(**{each.name: getattr(view, each.name) for each in fields(LiveView)}, thoughts=thoughts)
    return PlainChatView(view.console, copy(thoughts)) if isinstance(view, PlainView) else view


@dataclass(frozen=True, slots=True)
class PlainChatView(PlainView):
    """The answer as it comes, its thought dim."""

    thoughts: Thoughts

    def parts(self, record: Record) -> Sequence[tuple[str, str | None]]:
        before = self.thoughts.said
        thought, said = next_parts(self.thoughts, record)
        between = "\n\n" if said and not before and self.thoughts.thought else ""
        return ((thought, "dim"), (between + said, None))


@dataclass(frozen=True, slots=True)
class ChatView(LiveView):
    """The live view of an answer."""

    thoughts: Thoughts = field(default_factory=Thoughts)

    def show(self, run: Run, records: Iterable[Record]) -> Finish:
        with ChatSession(self, run) as session:
            return session.run(records)


class ChatSession(LiveSession):
    """While the model thinks, the last lines of its thought stand above the panel; then one line says that it did."""

    def __init__(self, view: ChatView, run: Run):
        super().__init__(view, run)
        self._view = view
        self._thoughts = copy(view.thoughts)
        self._thought = ""  # what is not folded yet
        self._num_tokens = 0  # of it

    def segments(self, record: Record) -> list[Segment]:
        thought, said = next_parts(self._thoughts, record)
        self._thought += thought
        self._num_tokens += len(settled_ids(record)) if self._thoughts.is_thinking else 0
        segments = []
        if self._thought.strip() and (not self._thoughts.is_thinking or isinstance(record, Finish)):
            segments.append(Segment(f"{self._fold()}\n\n", DIM))
            self._thought, self._num_tokens = "", 0
        if said:
            segments += super().segments(replace(record, text=said))
        return segments

    def rows_to_leave(self) -> list[Row]:
        return []

    def _rows(self) -> list[Row]:
        rows = super()._rows()
        return [*self._thought_rows(len(rows)), *rows] if self._thoughts.is_thinking else rows

    def _fold(self) -> str:
        glyphs = glyphs_of(self._view.console.options)
        return f"{glyphs.marker} thought for {plural(self._num_tokens, 'token')} (/thoughts)"

    def _thought_rows(self, below: int) -> list[Row]:
        """The end of the thought, in what room the panel leaves."""
        console = self._view.console
        width, height = size(console)
        room = min(LAST_LINES, height - below - 2)
        text = Text(visible(self._thought[-TAIL:].strip(), ascii_only=console.options.ascii_only), style="dim")
        lines = text.wrap(console, width, overflow="fold")[-room:] if room > 0 else []
        return [[Segment(line.plain.rstrip("\n"), DIM)] for line in lines]


def next_parts(thoughts: Thoughts, record: Record) -> tuple[str, str]:
    """What of a record is thought, and what is said."""
    thought, said = thoughts.add(record.text, settled_ids(record))
    if isinstance(record, Finish):
        rest, more = thoughts.flush()
        return thought + rest, said + more
    return thought, said
