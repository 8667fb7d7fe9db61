"""What each key does while a text is chosen by hand; no terminal here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from tokenglass.cli.text import plural
from tokenglass.cli.views.line_editor import LineEditor
from tokenglass.cli.views.pick_page import ENDS, Page, Tree
from tokenglass.model.decoding.branches import Branches, Node
from tokenglass.model.errors import NothingPossible, ParameterError, TokenglassError
from tokenglass.model.files import expand_home, write_whole
from tokenglass.model.runs.branch_file import as_json, branch_records, write
from tokenglass.model.runs.run import Run
from tokenglass.model.runs.trace_writer import TraceWriter, watch
from tokenglass.model.runs.walk_trace import WalkTrace, Writer

TRACES = (".jsonl", ".jsonl.gz")  # ends of the names of traces


class Picking:
    """A tree of texts, where the user is in it, and what the page shows. Raises EngineError.

    What computes is an iterator: it yields the length of the cache after each pass, and works while it is consumed.
    """

    def __init__(
        self,
        branches: Branches,
        run: Run,
        *,
        most: int,
        save_to: Path | None,
        candidates: int | None = None,
        replant: Replant | None = None,
        writer: Writer | None = None,
        trail: Sequence[Node] = (),
    ):
        """`most` tokens are written by one run of the sampler, and `candidates` can be picked from. `replant` makes the
        branches of another prompt, where it can be changed; `writer` keeps a trace; `trail` is what can be undone."""
        self.page = Page(run, branches, run.request.top if candidates is None else candidates)
        self.done = False
        self._most = most
        self._save_to = save_to
        self._saved: Path | None = None
        self._written = 0  # by the run that goes on
        self._replant = replant
        self._writer = writer
        self._trace = None if writer is None else WalkTrace(writer, run, branches)
        self._trail = [(branches, run, node) for node in trail]

    @property
    def _branches(self) -> Branches:
        return self.page.branches

    @property
    def _run(self) -> Run:
        return self.page.run

    def text(self) -> tuple[str, str]:
        """The prompt, and what was chosen behind it."""
        return self._run.prompt, self._branches.text(self._branches.here)

    def finish(self) -> None:
        """The end of the trace."""
        if self._trace is not None:
            self._trace.finish()

    def begin(self) -> Iterator[int]:
        """Read the prompt."""
        return self._watch(self._branches.look())

    def obey(self, key: str) -> Iterator[int]:
        """Do what a key means now."""
        self._show(message="")
        before = (self._branches, self._run, self._branches.here)
        if self.page.explains:
            self._show(explains=False)
        elif self.page.tree is not None:
            yield from self._in_tree(key, self.page.tree)
        elif self.page.editor is not None:
            yield from self._type(key, self.page.editor)
        elif key == "u":
            self._undo()
            before = (self._branches, self._run, self._branches.here)
        elif key in ("up", "down", "escape"):
            self._highlight({"up": -1, "down": 1}.get(key))
        elif key in ("backspace", "left", "right"):
            self._move(forward=key == "right")
        elif key == "enter" or key in "1234567890":
            self._take(self.page.highlighted if key == "enter" else (int(key) - 1) % 10)
        else:
            self._command(key)
        if before[2] is not self._branches.here:
            self._trail.append(before)
        yield from self._watch(self._branches.look())

    def run_on(self) -> Iterator[int]:
        """One more token by the sampler, if the run goes on."""
        if not self._can_go_on():
            self._show(runs=False)
        elif self._written >= self._most:
            self._show(runs=False, message=f"{plural(self._most, 'token')} written, as -n has it; a goes on")
        else:
            before = self._branches.here.depth
            self._written += self._branches.draw().depth - before
            yield from self._watch(self._branches.look())

    def stop(self) -> None:
        """End a run of the sampler."""
        self._show(runs=False, message=f"stopped after {plural(self._written, 'token')}")

    def _show(self, **changes: Any) -> None:
        self.page = replace(self.page, **changes)

    def _watch(self, passes: Iterable[int]) -> Iterator[int]:
        """The same passes; what is unusual about them is told."""
        if self._trace is not None:
            self._trace.follow()
        try:
            for length in passes:
                again = self._branches.cache.recomputed
                if again:
                    self._show(message=f"the sliding window had let go of it: {again:,} positions are computed again")
                yield length
        except NothingPossible as error:
            self._show(message=str(error))

    def _command(self, key: str) -> None:
        """A letter, while candidates are shown."""
        match key:
            case "/" | "i":
                self._show(editor=LineEditor("text") if self._can_go_on() else None, highlighted=None)
            case "p":
                self._edit_prompt()
            case "e":
                self._show(editor=LineEditor.of("file", str(free_name(self._run.seed, ".txt"))), highlighted=None)
            case "a":
                self._written = 0
                self._trail.append((self._branches, self._run, self._branches.here))
                self._show(runs=True, highlighted=None)
            case "b":
                self._mark()
            case "t":
                self._show(tree=Tree.of(self._branches, self._run.prompt), highlighted=None)
            case "s":
                self._save()
            case "?":
                self._show(explains=True)
            case "q":
                self.done = True

    def _highlight(self, step: int | None) -> None:
        """The next candidate up or down, round the ends; or none."""
        shown, at = len(self._branches.candidates()), self.page.highlighted
        if step is None or not shown:
            self._show(highlighted=None)
        else:
            first = 0 if step > 0 else shown - 1
            self._show(highlighted=first if at is None else (at + step) % shown)

    def _take(self, candidate: int | None) -> None:
        """A candidate, or what the sampler draws."""
        if not self._can_go_on() or (candidate or 0) >= len(self._branches.candidates()):
            return
        if candidate is None:
            self._branches.draw()
        else:
            self._branches.pick(candidate)
        self._show(highlighted=None, message=self._rewind())

    def _rewind(self) -> str:
        """What is told where a ban led back."""
        return "that would write what --ban forbids: back to where it began" if self._branches.is_rewound else ""

    def _move(self, *, forward: bool) -> None:
        moved = self._branches.forward() if forward else self._branches.back()
        otherwise = "no way on was taken from here yet" if forward else "this is where the prompt ends"
        self._show(highlighted=None, message="" if moved else otherwise)

    def _undo(self) -> None:
        """Back to where the user was before the last step, a run of the sampler or another prompt."""
        if not self._trail:
            self._show(message="there is nothing to undo")
            return
        branches, run, node = self._trail.pop()
        self._plant(branches, run)
        branches.switch(node)
        self._show(highlighted=None, message="undone")

    def _plant(self, branches: Branches, run: Run) -> None:
        """Another tree to choose in; the trace begins another run."""
        if branches is self._branches:
            return
        self.finish()
        self._show(branches=branches, run=run, highlighted=None)
        if self._writer is not None:
            self._trace = WalkTrace(self._writer, run, branches)

    def _edit_prompt(self) -> None:
        if self._replant is None:
            self._show(message="this prompt came through a chat's template; begin anew to change it")
        else:
            self._show(editor=LineEditor.of("prompt", self._replant.text_of(self._run)), highlighted=None)

    def _type(self, key: str, editor: LineEditor) -> Iterator[int]:
        """A key while a line is typed."""
        if key == "escape" or (key == "backspace" and not editor.text):
            self._show(editor=None)
        elif key != "enter":
            self._show(editor=editor.after(key))
        else:
            self._show(editor=None)
            if editor.text:
                yield from {"text": self._insert, "prompt": self._begin_anew, "file": self._export}[editor.purpose](
                    editor.text
                )

    def _insert(self, text: str) -> Iterator[int]:
        """Take the tokens of a text."""
        yield from self._watch(self._branches.force(self._branches.tokens_for(text)))
        self._show(message=self.page.message or self._rewind())

    def _begin_anew(self, text: str) -> Iterator[int]:
        """Choose behind another prompt."""
        assert self._replant is not None
        if text == self._replant.text_of(self._run):
            return
        try:
            self._plant(*self._replant(text))
        except TokenglassError as error:
            self._show(message=str(error))
        yield from self._watch(self._branches.look())

    def _export(self, name: str) -> Iterator[int]:
        """Write the branch up to here to a new file: a trace by its name, else the text, prompt and all."""
        path = expand_home(name)
        try:
            if path.name.endswith(TRACES):
                writer = TraceWriter(path)
                for _ in watch(self._run, branch_records(self._branches, self._run), writer.add):
                    pass
                writer.close()
                if writer.failure is not None:
                    raise writer.failure
            else:
                write_whole("".join(self.text()), path, new=True)
            self._show(message=f"this branch is in {path}")
        except (OSError, ValueError, ParameterError) as error:
            words = "already exists" if isinstance(error, FileExistsError) else getattr(error, "strerror", None)
            self._show(message=f"not written: {f'{path}: {words}' if words else error}")
        yield from ()

    def _in_tree(self, key: str, tree: Tree) -> Iterator[int]:
        """A key while the tree is shown."""
        if key in ("up", "down"):
            step = 1 if key == "down" else -1
            self._show(tree=replace(tree, highlighted=(tree.highlighted + step) % len(tree.nodes)))
        elif key in ("escape", "t", "q", "enter"):
            self._show(tree=None)
            if key == "enter":
                self._branches.switch(tree.nodes[tree.highlighted])
        yield from ()

    def _can_go_on(self) -> bool:
        """Whether there is something to choose; if not, why is told."""
        if self._branches.here.offer is not None:
            return True
        reason = self._branches.here.reason
        self._show(message=ENDS[reason] if reason is not None else "the sampler's settings leave no token here")
        return False

    def _mark(self) -> None:
        here = self._branches.here
        here.marked = not here.marked and here.depth > 0
        words = "a branch is marked here; go back and choose another way, t shows the tree"
        if not here.marked:
            words = "no longer marked" if here.depth else "a branch begins with the first new token"
        self._show(message=words)

    def _save(self) -> None:
        path = self._saved or self._save_to or free_name(self._run.seed)
        try:
            trail = [node for branches, _, node in self._trail if branches is self._branches]
            write(as_json(self._branches, self._run, trail), path, new=self._saved is None)
        except OSError as error:
            self._show(message=f"not saved: {path}: {error.strerror}")
            return
        self._saved = path
        self._show(message=f"saved to {path}")


class Replant(Protocol):
    """Makes the branches of another prompt."""

    def text_of(self, run: Run) -> str:
        """What of a run's prompt can be edited."""

    def __call__(self, text: str) -> tuple[Branches, Run]:
        """Raises TokenglassError."""


def free_name(seed: int, suffix: str = ".json") -> Path:
    """A name that no file here has."""
    names = (Path(f"tokenglass-pick-{seed}{f'-{number}' if number else ''}{suffix}") for number in count())
    return next(name for name in names if not name.exists())
