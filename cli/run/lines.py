"""Messages that somebody types, or that a pipe holds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from tokenglass.cli.run.prompt import decode, utf8_argument
from tokenglass.cli.say import is_plain, say
from tokenglass.cli.terminal.terminal import is_terminal

PROMPT, FURTHER = "> ", ". "
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
GOES_ON = "\\"  # at the end of a line: the next one belongs to the same message


class LineReader:
    """Messages from stdin, of one line or of several that end in a backslash. On a terminal there is a prompt, line
    editing, history, and Tab completes `words`."""

    def __init__(self, words: Sequence[str]):
        self.is_interactive = is_terminal(sys.stdin)
        self._words = words
        self._readline = False
        if self.is_interactive and is_terminal(sys.stdout):
            with contextlib.suppress(ImportError):  # where the platform has it
                import readline

                self._readline = True
                readline.set_completer(self._complete)
                readline.set_completer_delims("")
                readline.parse_and_bind("tab: complete")

    def read(self) -> str | None:
        """The next message, or None at the end. Raises PromptError for what is not UTF-8."""
        lines: list[str] = []
        for line in self._typed_lines() if self.is_interactive else piped_lines():
            lines.append(line.removesuffix(GOES_ON))
            if not line.endswith(GOES_ON):
                break
        return "\n".join(lines) if lines else None

    def _typed_lines(self) -> Iterator[str]:
        prompt = PROMPT
        while True:
            try:
                yield utf8_argument(self._ask(prompt))
            except EOFError:
                say("")
                return
            prompt = FURTHER

    def _ask(self, prompt: str) -> str:
        """One line of the terminal. The prompt goes to stderr where stdout is no terminal. Raises EOFError."""
        if not is_terminal(sys.stdout):
            sys.stderr.write(prompt)
            sys.stderr.flush()
            if line := sys.stdin.readline():
                return line.removesuffix("\n")
            raise EOFError
        if is_plain(sys.stdout):
            return input(prompt)
        begin, end = (f"\x01{code}\x02" if self._readline else code for code in (BOLD, PLAIN))
        return input(f"{begin}{prompt}{end}")

    def _complete(self, text: str, state: int) -> str | None:
        """What readline asks for: the words that go on from the text, one for each state."""
        return next(iter([word for word in self._words if word.startswith(text)][state:]), None)


def piped_lines() -> Iterator[str]:
    """Raises PromptError."""
    while sys.stdin is not None and (line := sys.stdin.buffer.readline()):
        yield decode(line, "stdin", keep_newline=False)
