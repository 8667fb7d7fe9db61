"""The slots of many prompts: which text is in each, how far it is, and what its cache shares and holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style

from tokenglass.cli.text import nbytes, plural
from tokenglass.cli.widgets.beams import tail
from tokenglass.cli.widgets.lines import Rule
from tokenglass.cli.widgets.widget import BAR, DIM, PLAIN, Glyphs, Row, Widget, cell, crop, label_fields, one_line
from tokenglass.model.records.steps import CacheUsage, Step

KEPT = 400  # characters of a text: more than fit in a row
READING = Style(color="yellow")


@dataclass(slots=True)
class SlotText:
    """A text in work: `name` is its prompt's id, `most` the new tokens that it may have. None: not reported."""

    name: str
    prompt_tokens: int | None
    most: int
    computed: int = 0  # positions of the prompt
    shared: int = 0  # positions that another text had computed
    new_tokens: int = 0
    text: str = ""
    cache: CacheUsage | None = None
    is_over: bool = False

    def add(self, step: Step) -> None:
        if self.cache is None and step.cache is not None:
            self.shared = step.cache.length - step.num_input_tokens
        self.cache = step.cache
        self.computed += step.num_input_tokens if step.phase == "prefill" else 0
        self.new_tokens += len(step.settled)
        self.text = (self.text + step.text)[-KEPT:]

    @property
    def read(self) -> int:
        """Positions of the prompt that are in the cache."""
        return min(self.prompt_tokens or 0, self.shared + self.computed)

    @property
    def is_read(self) -> bool:
        return self.new_tokens > 0 or (self.prompt_tokens is not None and self.read >= self.prompt_tokens)


@dataclass(frozen=True, slots=True)
class SlotPanel(Widget):
    """A row for each text in work, as many as there is room for, below what all have done."""

    texts: Sequence[SlotText]
    title: str
    note: str
    most_rows: int

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        (rule,) = Rule(self.title, self.note).rows(width, glyphs)
        room = max(1, self.most_rows - 3)
        shown = self.texts if len(self.texts) <= room else self.texts[: room - 1]
        rows = [rule, self.caches(width, glyphs), self.heading(width, glyphs)]
        rows += [self.lane(text, width, glyphs) for text in shown]
        if len(shown) < len(self.texts):
            rows.append([Segment(f"   and {len(self.texts) - len(shown):,} more", DIM)])
        return rows[: self.most_rows]

    def caches(self, width: int, glyphs: Glyphs) -> Row:
        """What the caches of all texts hold, and how much of it was computed once for several."""
        usages = [text.cache for text in self.texts if text.cache is not None]
        if self.texts and not usages:
            return label_fields("cache", [[Segment("not reported")]], width, glyphs)[0]
        held, used = (sum(getattr(usage, name) for usage in usages) for name in ("nbytes_held", "nbytes_used"))
        shared = sum(text.shared for text in self.texts)
        fields = [f"{nbytes(used)} used", f"{nbytes(held)} held", f"{plural(shared, 'position')} shared"]
        return label_fields("cache", [[Segment(text)] for text in fields], width, glyphs)[0]

    def heading(self, width: int, glyphs: Glyphs) -> Row:
        row = [cell("   id", 11, DIM)]
        if width >= 60:
            row += [cell("prompt", 9, DIM, right=True), cell("shared", 8, DIM, right=True)]
        row += [cell("new", 10, DIM, right=True), Segment("  text", DIM)]
        return crop(row, width, glyphs)

    def lane(self, text: SlotText, width: int, glyphs: Glyphs) -> Row:
        """The id, how much of the prompt is read and was shared, how many tokens are written, and the text's end."""
        sign = " " if text.is_over else glyphs.marker
        row = [Segment(f" {sign} ", BAR if text.is_read else READING), cell(text.name, 8, glyphs=glyphs)]
        if width >= 60:
            prompt = "" if text.prompt_tokens is None else f"{text.prompt_tokens:,}"
            prompt = prompt if text.is_read else f"{text.read:,}/{prompt}"
            shared = "" if text.cache is None else f"{text.shared:,}"
            row += [cell(prompt, 9, right=True, glyphs=glyphs), cell(shared, 8, DIM, right=True)]
        row += [cell(f"{text.new_tokens:,}/{text.most:,}", 10, right=True, glyphs=glyphs), Segment("  ")]
        left = width - sum(segment.cell_length for segment in row)
        row.append(Segment(tail(one_line(text.text, glyphs), left, glyphs), DIM if text.is_over else PLAIN))
        return crop(row, width, glyphs)
