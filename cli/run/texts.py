"""The texts that a command reads: files, or stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tokenglass.cli.run.prompt import STDIN, decode, read_file, read_stdin
from tokenglass.model.errors import PromptError


def read_texts(files: Sequence[str], *, keep_newline: bool) -> list[tuple[str, str]]:
    """The name and the text of each file; `-` is stdin, which is also read where it is piped and no file is given.

    Raises PromptError, also for text that is not UTF-8.
    """
    if not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise PromptError("no text; name a file, or pipe a text in (--help shows more)")
        files = [STDIN]
    if list(files).count(STDIN) > 1:
        raise PromptError("the file - (stdin) can stand only once")
    return [
        (
            name,
            read_stdin(sys.stdin, keep_newline=keep_newline)
            if name == STDIN
            else decode(read_file(Path(name)), name, keep_newline=keep_newline),
        )
        for name in files
    ]
