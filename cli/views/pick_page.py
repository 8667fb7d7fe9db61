"""One screen of choosing by hand, from what is known to rows of a width and a height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from tokenglass.cli.terminal.terminal import MIN_HEIGHT, MIN_WIDTH, visible
from tokenglass.cli.terminal.wrapping import width_of_tables
from tokenglass.cli.text import nbytes, plural
from tokenglass.cli.views.line_editor import LineEditor
from tokenglass.cli.widgets.lines import PrefillBar, Rule, note
from tokenglass.cli.widgets.picker import (
    HELP,
    KEYS,
    MORE,
    KeyLine,
    KeyTable,
    LastToken,
    NumberedCandidates,
    TextNumbers,
)
from tokenglass.cli.widgets.tree import BranchRow, TreeTable
from tokenglass.cli.widgets.widget import CHOSEN, DIM, PLAIN, Glyphs, Row, crop, one_line
from tokenglass.model.runs.run import Run

if TYPE_CHECKING:
    from tokenglass.model.decoding.branches import Branches, Node

Cursor = tuple[int, int]  # column, row
TYPED = Style(underline=True, bold=True)
AT_CURSOR = Style(reverse=True)
TYPING = {
    "text": (("enter", "take it"), ("esc", "do not"), ("bksp", "delete")),
    "prompt": (("enter", "begin anew with it"), ("esc", "leave it"), ("left right", "move")),
    "file": (("enter", "write it"), ("esc", "do not"), ("bksp", "delete")),
}
TOO_SMALL = ("too small:", "enlarge the", "terminal; q quits")
ENDS = {
    "eos": "the text ended (eos); bksp goes back",
    "stop": "the text ended (stop); bksp goes back",
    "context": "the context is full; bksp goes back",
}
TREE = (("up down", "look"), ("enter", "go there"), ("esc", "stay"))


@dataclass(frozen=True, slots=True)
class Tree:
    """The rows of the tree, and the node at the end of each."""

    branches: tuple[BranchRow, ...]
    nodes: tuple[Node, ...]
    highlighted: int

    @staticmethod
    def of(branches: Branches, prompt: str) -> Tree:
        """A row for the prompt and for each stretch up to a fork, a mark, an end, or the place that is shown."""
        here = branches.here
        rows = [(branches.root, branch_row(branches, branches.root, prompt, (), forked=False))]
        waiting = ways_on(branches.root, ())
        while waiting:
            first, lines, forked = waiting.pop()
            end = first
            while len(end.children) == 1 and not end.marked and end is not here:
                (end,) = end.children.values()
            before = "" if first.parent is None else branches.text(first.parent)
            rows.append((end, branch_row(branches, end, branches.text(end)[len(before) :], lines, forked=forked)))
            waiting += ways_on(end, lines)
        nodes = tuple(node for node, _ in rows)
        return Tree(tuple(shown for _, shown in rows), nodes, nodes.index(here))


def branch_row(branches: Branches, end: Node, text: str, lines: tuple[bool, ...], *, forked: bool) -> BranchRow:
    per_token, here = end.logprob_per_token, end is branches.here
    return BranchRow(text, end.depth, end.logprob, per_token, lines, forked, end.marked, here)


def ways_on(node: Node, lines: tuple[bool, ...]) -> list[tuple[Node, tuple[bool, ...], bool]]:
    """The first node of each way on, the last one first, with the lines before it."""
    ways = list(node.children.values())
    if len(ways) < 2:
        return [(way, lines, False) for way in ways]
    return [(way, (*lines, number < len(ways) - 1), True) for number, way in enumerate(ways)][::-1]


@dataclass(frozen=True, slots=True)
class Page:
    """All that a screen tells; `length` is how far a computation of several passes has come."""

    run: Run
    branches: Branches
    candidates: int  # to choose from
    highlighted: int | None = None
    editor: LineEditor | None = None
    tree: Tree | None = None
    explains: bool = False
    runs: bool = False
    message: str = ""
    length: int | None = None

    def rows(self, width: int, height: int, glyphs: Glyphs, console: Console) -> tuple[list[Row], Cursor | None]:
        """At most `height` rows of at most `width` cells, and the cursor at the text's end."""
        if width < MIN_WIDTH or height < MIN_HEIGHT:
            return [[Segment(line[:width])] for line in TOO_SMALL[:height]], None
        if self.explains:
            table = KeyTable().rows(width, glyphs)
            return [*table[: height - 1], *KeyLine((("any key", "goes back"),)).rows(width, glyphs)], None
        if self.tree is not None:
            return self.tree_rows(self.tree, width, height, glyphs), None
        below = self.below(width_of_tables(width), height - max(2, height // 3), glyphs)
        text = self.text_rows(width, height - len(below), glyphs, console)
        cursor = (min(width - 1, sum(segment.cell_length for segment in text[-1])), len(text) - 1)
        text += [[] for _ in range(height - len(below) - len(text))]
        return [*text, *below], None if self.runs or self.editor is not None else cursor

    def text_rows(self, width: int, height: int, glyphs: Glyphs, console: Console) -> list[Row]:
        """The end of the text, wrapped between words; the prompt dimmed, the newest token marked. Where a prompt is
        edited, its rows around the cursor."""
        rows: list[Row] = []
        parts = [(visible(part, ascii_only=glyphs.ascii_only), how) for part, how in self.parts()]
        for line in reversed(paragraphs(parts)):
            wrapped = line.wrap(console, width, overflow="fold")
            rows = [*(list(part.render(console)) for part in wrapped or [line]), *rows]
            if len(rows) >= height and (self.editor is None or self.editor.purpose != "prompt"):
                break
        if self.editor is not None and self.editor.purpose == "prompt":
            at = next((k for k, row in enumerate(rows) if any(part.style == AT_CURSOR for part in row)), len(rows))
            rows = rows[: max(height, at + 1)]
        return rows[-height:]

    def parts(self) -> list[tuple[str, Style]]:
        """The prompt and the text, each with its style, and what is being typed."""
        here = self.branches.here
        text = self.branches.text(here)
        before = self.branches.text(here.parent) if here.parent is not None else ""
        new = text[len(before) :]  # nothing where a stop ended the text before it
        if self.editor is not None and self.editor.purpose == "prompt":
            return typed_parts(self.editor)
        parts = [(self.run.prompt, DIM), (text[: len(text) - len(new)], PLAIN), (new, CHOSEN)]
        return parts + (typed_parts(self.editor) if self.editor is not None and self.editor.purpose == "text" else [])

    def below(self, width: int, room: int, glyphs: Glyphs) -> list[Row]:
        """What stands under the text, in at most `room` rows: what matters least is left out first."""
        here = self.branches.here
        title = "running on" if self.runs else f"token {here.depth + 1:,}"
        if here.parent is None and here.offer is None:
            title = "reading the prompt"
        rows: list[Row] = Rule(title, note(self.run.model, self.run.seed)).rows(width, glyphs)
        keys = self.key_row(width, glyphs)
        wanted = min(10, self.candidates)
        spare = room - len(rows) - len(keys) - min(wanted, 4)
        status = [self.status_row(width, glyphs)] if spare >= 1 else []
        last = LastToken(here.choice).rows(width, glyphs) if spare >= 2 else []
        heading, together = spare >= 3, spare >= 4 + wanted - min(wanted, 4)
        limit = room - len(rows) - len(keys) - len(status) - len(last) - heading - together
        limit = max(1, min(limit, self.candidates))
        table = self.table(limit, heading, together).rows(width, glyphs) if here.offer is not None else []
        table += [[] for _ in range(limit + heading + together - len(table))]
        return [*rows, *table, *last, *status, *keys]

    def table(self, limit: int, heading: bool, together: bool) -> NumberedCandidates:
        here = self.branches.here
        assert here.offer is not None
        taken = None if here.ahead is None else here.ahead.token_id
        choice = replace(here.offer, token_id=taken, candidates=self.branches.candidates())
        return NumberedCandidates(choice, limit, heading, together, self.highlighted)

    def status_row(self, width: int, glyphs: Glyphs) -> Row:
        """What just happened, or else the numbers of the text."""
        here = self.branches.here
        if self.length is not None and self.length < self.run.prompt_length + here.depth:
            return PrefillBar(self.length, self.run.prompt_length + here.depth).rows(width, glyphs)[0]
        reason = here.reason
        message = self.message
        if self.editor is not None:
            message = self.about(self.editor)
        elif reason is not None and not message:
            message = ENDS[reason]
        if message:
            return crop([Segment(f" {one_line(message, glyphs)}", CHOSEN)], width, glyphs)
        count = sum(node.is_branch for node in self.branches.nodes())
        return TextNumbers(here.depth, here.logprob, here.logprob_per_token, count, here.marked).rows(width, glyphs)[0]

    def about(self, editor: LineEditor) -> str:
        """What the line that is being typed is for."""
        if editor.purpose == "file":
            return f"export this branch to: {editor.before}_{editor.behind}  (.jsonl is a trace, else text)"
        count = len(self.branches.tokens_for(editor.text)) if editor.text and editor.purpose == "text" else 0
        otherwise = "type what comes next; a new word begins with a space"
        if editor.purpose == "prompt":
            otherwise = "the prompt; u comes back to what was chosen behind the old one"
        return f"typed: {plural(count, 'token')}" if count else otherwise

    def key_row(self, width: int, glyphs: Glyphs) -> list[Row]:
        keys: Sequence[tuple[str, str]] = KEYS
        if self.runs:
            return KeyLine((("any key", "stops"),)).rows(width, glyphs)
        if self.editor is not None:
            return KeyLine(TYPING[self.editor.purpose]).rows(width, glyphs)
        if self.highlighted is not None:
            keys = tuple((key, "take" if key == "enter" else word) for key, word in KEYS)
        return KeyLine(keys, MORE, (HELP,)).rows(width, glyphs)

    def tree_rows(self, tree: Tree, width: int, height: int, glyphs: Glyphs) -> list[Row]:
        cache = self.branches.cache
        sizes = f"cache {nbytes(cache.nbytes - cache.nbytes_of_tails)} + branches {nbytes(cache.nbytes_of_tails)}"
        rule = Rule("the tree of branches", sizes).rows(width, glyphs)
        table = TreeTable(tree.branches, tree.highlighted, height - 3).rows(width_of_tables(width), glyphs)
        rows = [*rule, *table]
        return [*rows, *([] for _ in range(height - 1 - len(rows))), *KeyLine(TREE).rows(width, glyphs)]


def typed_parts(editor: LineEditor) -> list[tuple[str, Style]]:
    """A line with the character at its cursor marked."""
    at = editor.behind[:1]
    shown = " " if at in ("", "\n") else at
    return [(editor.before, TYPED), (shown, AT_CURSOR), (editor.behind if at == "\n" else editor.behind[1:], TYPED)]


def paragraphs(parts: Sequence[tuple[str, Style]]) -> list[Text]:
    """The lines that newlines make."""
    return list(Text.assemble(*parts, end="").split("\n", allow_blank=True))
