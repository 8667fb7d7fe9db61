"""The panel below the text: everything about the newest step, in the lines there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.segment import Segment

from tokenglass.cli.terminal.terminal import MIN_HEIGHT, MIN_WIDTH, visible_piece
from tokenglass.cli.terminal.wrapping import READABLE
from tokenglass.cli.text import plural
from tokenglass.cli.widgets.block import LABELS, BlockLines
from tokenglass.cli.widgets.cache_bar import CacheBar
from tokenglass.cli.widgets.candidates import CandidateTable
from tokenglass.cli.widgets.draw_strip import DrawStrip
from tokenglass.cli.widgets.experts import ExpertsPanel
from tokenglass.cli.widgets.flow_panel import FlowPanel, FlowRow
from tokenglass.cli.widgets.lines import ChosenLine, Details, EndLine, PrefillBar, Rule, SpeedLine, note
from tokenglass.cli.widgets.stages import Unfolded
from tokenglass.cli.widgets.token_text import ColorBy, Legend, Ramp
from tokenglass.cli.widgets.widget import BOLD, CHOSEN, Glyphs, Row, Widget, label_fields, percent, probability
from tokenglass.model.records.steps import CacheUsage, Choice, Finish, Step, Totals
from tokenglass.model.runs.run import Run

Size = Literal["full", "slim", "off"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a panel shows: a run as far as it has come."""

    run: Run
    totals: Totals
    choice: Choice | None = None
    cache: CacheUsage | None = None
    history: Sequence[float] = ()
    finish: Finish | None = None
    step: Step | None = None  # the newest
    settled: Sequence[Choice] = ()  # of the block that it works on, by earlier passes
    flow: Sequence[FlowRow] = ()  # what the earlier tokens and the layers did in the newest step, where it is known
    behind: int = 0  # steps, of the newest one that was shown
    before: Choice | None = None  # the last choice of the steps before

    def plus(self, step: Step) -> Progress:
        """The run after one more step; what is not known of it does not stay from the last."""
        before = self.step.block if self.step is not None else None
        same = before is not None and step.block is not None and before.start == step.block.start
        return Progress(
            self.run,
            self.totals.plus(step),
            self.choice_after(step),
            step.cache,
            self.history,
            self.finish,
            step,
            (*self.settled, *self.step.settled) if same and self.step is not None else (),
            step.flow or (),
            before=self.choice,
        )

    def choice_after(self, step: Step) -> Choice | None:
        """The last choice that there was about anything; what a constraint forced stands for itself only alone, and an
        end that it forced never."""
        chosen = [choice for choice in step.settled if choice.status != "forced"]
        forced = [choice for choice in step.settled if choice.token_id not in self.run.request.eos_token_ids]
        return next(reversed(chosen or forced), self.choice)

    @property
    def has_block(self) -> bool:
        """Whether the newest step worked on several positions."""
        return self.step is not None and self.step.phase in LABELS and self.step.choices != ()

    @property
    def greedy(self) -> bool:
        return self.run.request.sampling.is_greedy

    @property
    def title(self) -> str:
        if self.choice is None:
            return "reading the prompt"
        title = f"token {self.totals.new_tokens:,} of {self.run.request.max_new_tokens:,}"
        back = self.totals.rewound_tokens
        title += f", {back:,} taken back" if back else ""
        return title + (f", {plural(self.behind, 'step')} back" if self.behind else "")


@dataclass(frozen=True, slots=True)
class Panel(Widget):
    """At most `height` rows: what matters least is left out first."""

    progress: Progress
    size: Size
    height: int
    color_by: ColorBy = "none"
    ramp: Ramp | None = None
    keys: Widget | None = None
    highlighted: int | None = None
    unfolded: Unfolded | None = None  # in place of the candidates and what stands below them

    def rows(self, width: int, glyphs: Glyphs) -> list[Row]:
        if self.size == "off" or self.height < 1:
            return []
        width = min(width, READABLE)
        if self.unfolded is not None and self.progress.choice is not None:
            rows = self.unfold(self.unfolded, self.progress.choice, width, glyphs)
        else:
            rows = self.slim(width, glyphs) if self.size == "slim" else self.full(width, glyphs)
        return rows[: self.height]

    def unfold(self, unfolded: Unfolded, choice: Choice, width: int, glyphs: Glyphs) -> list[Row]:
        """The title, the chosen token, and its tables."""
        above = [*self.rule(width, glyphs), *ChosenLine(choice, self.progress.greedy).rows(width, glyphs)[:1]]
        below = [*self.legend(width, glyphs), *self.closing(width, glyphs)]
        return [*above, *unfolded.rows(width, glyphs, max(0, self.height - len(above) - len(below))), *below]

    def rule(self, width: int, glyphs: Glyphs) -> list[Row]:
        run = self.progress.run
        return Rule(self.progress.title, note(run.model, run.seed)).rows(width, glyphs)

    def slim(self, width: int, glyphs: Glyphs) -> list[Row]:
        progress, choice = self.progress, self.progress.choice
        closing = self.closing(width, glyphs)
        if choice is None:
            return [
                *PrefillBar(progress.totals.prefill_tokens, progress.run.reported_prompt_length).rows(width, glyphs),
                *closing,
            ]
        is_raw = choice.prob is None and choice.logprob is not None
        words = [f"raw {percent(probability(choice.logprob), glyphs)}" if is_raw else percent(choice.prob, glyphs)]
        words += [ChosenLine(choice).entropy(narrow=True)] if choice.entropy is not None or is_raw else []
        words.append(self.cache_in_words())
        words += [f"{progress.totals.decode_rate:,.0f} tok/s"] if progress.totals.decode_rate else []
        piece = [Segment(visible_piece(choice.piece, ascii_only=glyphs.ascii_only), CHOSEN + BOLD)]
        fields = [piece, *([Segment(word)] for word in words)]
        rows = label_fields(f"token {progress.totals.new_tokens:,}", fields, width, glyphs)[:2]
        return [*rows, *self.experts(width, glyphs, 0)[:1], *closing]

    def cache_in_words(self) -> str:
        usage = self.progress.cache
        if usage is not None:
            return f"cache {usage.length:,} of {usage.limit:,}"
        return "cache not reported" if self.progress.run.is_remote else "cache off"

    def full(self, width: int, glyphs: Glyphs) -> list[Row]:
        """The fullest arrangement that fits."""
        best: list[Row] = []
        for detail in range(7, -1, -1):
            rest = self.arrange(width, glyphs, detail, 0)
            room = self.height - len(rest)
            wanted = self.num_candidates
            if room >= min(wanted, (0, 1, 2, 3, 3, 4, 5, 5)[detail]):
                return self.arrange(width, glyphs, detail, min(wanted, room))
            best = rest
        return best

    @property
    def num_candidates(self) -> int:
        return len(self.progress.choice.candidates) if self.progress.choice else 0

    def arrange(self, width: int, glyphs: Glyphs, detail: int, limit: int) -> list[Row]:
        """The rows at a level of detail: 7 is everything, 0 the chosen token alone."""
        progress, choice = self.progress, self.progress.choice
        rows: list[Row] = []
        if detail >= 1:
            rows += self.rule(width, glyphs)
        if choice is None:
            rows += PrefillBar(progress.totals.prefill_tokens, progress.run.reported_prompt_length).rows(width, glyphs)
        else:
            strip = DrawStrip(choice).rows(width, glyphs) if detail >= 6 else []
            line = ChosenLine(choice, progress.greedy, draw=not strip)
            rows += line.rows(width, glyphs)[: 2 if detail >= 4 else 1]
            table = CandidateTable(choice, limit, detail >= 5, detail >= 4, self.highlighted)
            rows += table.rows(width, glyphs) if limit else placeholder(detail)
            rows += strip
            if progress.has_block and progress.step is not None and detail >= 1:
                block = BlockLines(progress.step.phase, progress.step.choices, progress.settled, 1 + detail // 3)
                rows += block.rows(width, glyphs)
        if progress.flow and detail >= 2:
            rows += FlowPanel(progress.flow).rows(width, glyphs)
        if detail >= 2:
            rows += self.experts(width, glyphs, detail // 3)
        if detail >= 2 and choice is not None:
            cache = CacheBar(progress.cache, progress.history, progress.totals, detail >= 7, not progress.run.is_remote)
            rows += cache.rows(width, glyphs)
        if detail >= 3 and choice is not None:
            rows += SpeedLine(progress.totals).rows(width, glyphs)
        if detail >= 2:
            rows += self.legend(width, glyphs)
        return rows + self.closing(width, glyphs)

    def experts(self, width: int, glyphs: Glyphs, limit: int) -> list[Row]:
        """Those of the chosen token, where they were watched; at most `limit` rows of single layers."""
        choice, before = self.progress.choice, self.progress.before
        if choice is None or not choice.experts:
            return []
        earlier = before.experts if before is not None else None
        return ExpertsPanel(choice.experts, earlier or (), limit).rows(width, glyphs)

    def legend(self, width: int, glyphs: Glyphs) -> list[Row]:
        if self.color_by == "none" or self.ramp is None:
            return []
        return Legend(self.color_by, self.ramp).rows(width, glyphs)

    def closing(self, width: int, glyphs: Glyphs) -> list[Row]:
        """The candidate looked at and the keys, or why the run ended."""
        rows: list[Row] = []
        choice = self.progress.choice
        if self.highlighted is not None and choice is not None and choice.candidates:
            rows += Details(choice.candidates[self.highlighted]).rows(width, glyphs)
        if self.progress.finish is not None:
            return rows + EndLine(self.progress.finish).rows(width, glyphs)
        return rows + (self.keys.rows(width, glyphs) if self.keys is not None else [])


def placeholder(detail: int) -> list[Row]:
    """Rows that the table will need beside its candidates: the heading and the sums."""
    return [[] for _ in range((detail >= 5) + (detail >= 4))]


def panel_height(width: int, height: int) -> int:
    """Rows that the panel may take: a third of the lines, at least 3, stay for the text."""
    return 0 if width < MIN_WIDTH or height < MIN_HEIGHT else height - max(3, height // 3)
