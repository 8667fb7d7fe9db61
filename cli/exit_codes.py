"""The exit codes of every command; the README has the table."""

from __future__ import annotations

import signal

DONE = 0
ERROR = 1  # of a model, a file or this machine; for `check` and `choose --expect`, something that does not hold
USAGE = 2  # of the arguments or the prompt
CUT_OFF = 3  # the text ended before it fitted its constraint
INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + 13  # SIGPIPE, which not every system has
TERMINATED = 128 + signal.SIGTERM
