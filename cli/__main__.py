"""The two console scripts, and `python -m tokenglass.cli`."""

from __future__ import annotations

import atexit
import gc
import os
import sys

INTERRUPTED = 130
TORCHRUN = "WORLD_SIZE"  # a variable that it sets; without it nothing is imported
ALLOCATIONS = 200_000  # between two collections: what a start makes stays, so that looking through it finds nothing


def tokenglass() -> None:
    """All commands."""
    gc.set_threshold(ALLOCATIONS)
    try:
        join_processes()
        from tokenglass.cli.app import run, tokenglass_app

        app = tokenglass_app(*sys.argv[1:2])
    except KeyboardInterrupt:  # while the program itself is read
        sys.exit(INTERRUPTED)
    run(app, "tokenglass")


def generate() -> None:
    """The same as `tokenglass generate`."""
    gc.set_threshold(ALLOCATIONS)
    try:
        join_processes()
        from tokenglass.cli.app import generate_app, run

        app = generate_app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run(app, "generate")


def join_processes() -> None:
    """Where torchrun started several processes: the first goes on, and in the end lets the others go, which follow."""
    if TORCHRUN not in os.environ:
        return
    from tokenglass.model.engine.processes import Processes

    processes = Processes.of(os.environ)
    if processes is None:
        return
    from tokenglass.cli.say import say
    from tokenglass.model.errors import TokenglassError
    from tokenglass.model.torch_engine.group import dismiss, follow

    if not processes.leads:
        try:
            follow(processes)
        except TokenglassError as error:
            say(str(error))
            os._exit(1)
        os._exit(0)
    atexit.register(dismiss, processes)


if __name__ == "__main__":
    tokenglass()
