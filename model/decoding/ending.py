"""Every run ends with a Finish for each of its sequences, whatever went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tokenglass.model.errors import EngineError, is_out_of_memory
from tokenglass.model.records.steps import Finish, Record, Totals


def end_always(records: Iterator[Record], failures: Callable[[], Iterable[Finish]]) -> Iterator[Record]:
    """The records; where an exception ends them, a Finish of `failures` for each open sequence, then the exception.

    Memory that cannot be had is an EngineError, whatever torch, numpy or C++ call it. A second Ctrl-C is no failure:
    it quits at once.
    """
    finished: set[int] = set()
    try:
        for record in records:
            if isinstance(record, Finish):
                finished.add(record.sequence)
            yield record
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        yield from (finish for finish in _read(failures) if finish.sequence not in finished)
        if is_out_of_memory(error):
            raise EngineError(
                "not enough memory to go on; try a shorter prompt, fewer new tokens or a smaller model"
            ) from error
        raise


def _read(failures: Callable[[], Iterable[Finish]]) -> list[Finish]:
    try:
        return list(failures())
    except Exception:  # of what is left nothing more can be told
        return [Finish(0, "error", "", Totals())]
