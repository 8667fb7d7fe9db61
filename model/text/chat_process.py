"""The process that renders chat templates, as its parent sees it: started once, asked often, bounded each time."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from tokenglass.model.errors import TemplateError

SECONDS = 10  # that one rendering may take


class TemplateProcess:
    """Renders templates in a helper process, which starts with the first and ends with this object."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    def render(self, template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, str]) -> str:
        """The text that a template makes. Raises TemplateError, in bounded time and memory.

        A helper that was interrupted or broke is given up; the next rendering starts another.
        """
        job = json.dumps({"template": template, "messages": messages, "variables": variables}).encode("ascii")
        process = self._running()
        patience = threading.Timer(SECONDS, process.kill)
        patience.daemon = True
        patience.start()
        try:
            answer = ask(process, job)
        except BaseException:
            self.close()
            raise
        finally:
            patience.cancel()
        if answer is None:
            reason = failure_of(process)
            self.close()
            raise TemplateError(f"the chat template failed: {reason}")
        if "error" in answer:
            raise TemplateError(f"the chat template failed: {answer['error']}")
        return answer["text"]

    def close(self) -> None:
        """End the helper."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = start()
            self._end = weakref.finalize(self, end, self._process)
        return self._process


def start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tokenglass.model.text.chat_render"],  # -P: not what lies in the current folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is the parent's affair
    )


def ask(process: subprocess.Popen[bytes], job: bytes) -> dict[str, str] | None:
    """What the helper answers, or None where it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(job + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        return None
    return json.loads(line) if line.endswith(b"\n") else None


def failure_of(process: subprocess.Popen[bytes]) -> str:
    """Why a helper ended."""
    assert process.stderr is not None
    status = process.wait()
    last = process.stderr.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    return last[0] if status > 0 and last else "it ran too long or took too much memory"


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not written any more
                stream.close()
