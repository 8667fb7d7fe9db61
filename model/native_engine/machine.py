"""What runs a list of operations: the compiled kernels, their memory and their threads."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence
from ctypes import POINTER, c_int, c_int64, c_void_p

from tokenglass.model.errors import EngineError
from tokenglass.model.native_engine.structures import Drawing, Measuring, Operation, Pass, Sizes, Status, TokenMeasuring


class Machine:
    """A program made ready to run. What its operations point to must live as long as this."""

    def __init__(self, library: ctypes.CDLL, operations: Sequence[Operation], sizes: Sizes):
        new, free, self._run = library.tokenglass_new, library.tokenglass_free, library.tokenglass_run
        new.argtypes, new.restype = [POINTER(Operation), c_int64, POINTER(Sizes)], c_void_p
        free.argtypes, free.restype = [c_void_p], None
        self._run.argtypes, self._run.restype = [c_void_p, POINTER(Pass), c_int64], c_int
        self._read = library.tokenglass_read
        self._read.argtypes, self._read.restype = [c_void_p, c_void_p, c_int64, c_int64], c_int
        self._each = {
            Measuring: library.tokenglass_measure_each,
            TokenMeasuring: library.tokenglass_measure_tokens,
            Drawing: library.tokenglass_draw_each,
        }
        for task, work in self._each.items():
            work.argtypes, work.restype = [c_void_p, POINTER(task), c_int64], c_int
        self._vocab = sizes.vocab
        self._lock = threading.Lock()
        self._engine = new((Operation * len(operations))(*operations), len(operations), sizes)
        if not self._engine:
            raise EngineError("there is no memory for the model's kernels")
        weakref.finalize(self, free, self._engine)

    def run(self, task: Pass, threads: int) -> None:
        """One forward pass. Raises EngineError."""
        with self._lock:
            status = self._run(self._engine, task, threads)
        if status == Status.NO_SUCH_TOKEN:
            raise EngineError(f"a token id is not one of the model's {self._vocab:,}")
        if status == Status.NO_MEMORY:
            raise EngineError("there is not enough memory; try a shorter prompt")
        if status == Status.WEIGHTS_LOST:
            raise EngineError("the file of weights became shorter while it was used; start again with a whole one")

    def read(self, address: int, nbytes: int, threads: int) -> None:
        """Only read memory, as a pass reads its weights. Raises EngineError."""
        with self._lock:
            status = self._read(self._engine, address, nbytes, threads)
        if status == Status.NO_MEMORY:
            raise no_memory_for_threads()

    def share(self, task: Measuring | TokenMeasuring | Drawing, threads: int) -> None:
        """Do with all threads what a task asks for each of several rows of logits. Raises EngineError."""
        with self._lock:
            status = self._each[type(task)](self._engine, task, threads)
        if status == Status.NO_MEMORY:
            raise no_memory_for_threads()


def no_memory_for_threads() -> EngineError:
    return EngineError("there is not enough memory for the threads")
