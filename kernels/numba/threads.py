"""Threads that wait for work in compiled code, and how a kernel is run on all of them.

A kernel is a compiled function ``f(worker, workers, arguments)`` that computes the share of one worker, outside the GIL.
The calling thread takes share 0, then whatever share nobody has taken yet: it waits for no thread that still sleeps, or whose
core another process has. The other threads are Python threads that live in :func:`_serve`, a compiled loop: for a fraction
of a millisecond after each kernel they watch a number in shared memory, so that the next kernel of a training step starts
within microseconds; then they go to sleep, and take no core from anybody.

Numba's own parallel loops would do the same through OpenMP, TBB or a work queue of its own, and each has a price that a library
cannot put on its users: GNU's OpenMP ends a process that computes after a fork, the work queue ends one that computes
in two Python threads, TBB is often missing, and the idle threads of OpenMP spin for milliseconds on the cores that NumPy's
BLAS needs next. The number of threads is Numba's all the same: ``NUMBA_NUM_THREADS`` and ``numba.set_num_threads``.

The threads meet on a board in shared memory, numbers of 64 bits, each on a cache line of its own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import queue
import threading
import time
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline
from xpconv.kernels.numba.memory import borrowed

# What stands where on the board, in bytes.
WORK = 0  # counts kernels in its upper bits, and holds the number of shares in the lower 16; a change means: look here
FUNCTION = 64  # address of the kernel
ARGUMENTS = 128  # address of its arguments
CLAIMS = 192  # the same count as WORK in its upper bits, and the next share that nobody has taken in the lower 16
FINISHED = 256  # shares of the present kernel that are finished, share 0 left out
CLOSED = 320  # not 0 when the threads are to end
BOARD_BYTES = 384

_WATCH_SECONDS = 500e-6  # how long a thread looks for work before it sleeps: longer than the gaps in a training step
_WAIT_SECONDS = 20e-6  # how long the calling thread waits for the others before it offers them its core
_FOR_EVER = 1 << 62  # looks
_INT64 = ir.IntType(64)


def thread_count() -> int:
    """Number of threads to use: what ``NUMBA_NUM_THREADS`` and ``numba.set_num_threads`` say."""
    try:
        return int(numba.get_num_threads())
    except ValueError:  # no threading layer of Numba's can be loaded; nothing here needs one
        return int(config.NUMBA_NUM_THREADS)


def run(kernel: CompiledFunction, arguments: Arguments, workers: int) -> None:
    """Compute all shares of a kernel, each on a thread of its own where threads are free.

    The shares depend on ``workers`` alone, so that sums collected per worker come out the same whichever thread computes them.

    Args:
        kernel: The kernel.
        arguments: Its arguments; the caller keeps alive what they point to.
        workers: Number of shares.
    """
    _pool.run(kernel.address, arguments.location, workers)


def run_with_scratch(kernel: CompiledFunction, arguments: Arguments, workers: int, scratch: int) -> None:
    """As :func:`run`, for a kernel whose arguments have the fields ``scratch`` and ``scratch_pitch``.

    Worker i may use the ``scratch`` bytes from ``a.scratch + i * a.scratch_pitch`` on; that is a multiple of 64.
    """
    pitch = -(-scratch // 64) * 64 + 64  # not a multiple of a page: the workers' memory then falls on different cache sets
    with borrowed(pitch * workers) as address:
        arguments.scratch, arguments.scratch_pitch = address, pitch  # type: ignore[attr-defined]
        run(kernel, arguments, workers)


# ---- what the threads run, outside the GIL -------------------------------------------------------------------------------


@intrinsic  # type: ignore[misc]
def _read(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _INT64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[misc]
def _write(typing_context, address, value):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _INT64.as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic  # type: ignore[misc]
def _count(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _INT64.as_pointer())
        builder.atomic_rmw("add", pointer, _INT64(1), "acq_rel")
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic  # type: ignore[misc]
def _exchange(typing_context, address, expected, value):  # type: ignore[no-untyped-def]
    """Write ``value`` if ``expected`` stands there, in one step; returns whether it did."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _INT64.as_pointer())
        return builder.extract_value(builder.cmpxchg(pointer, arguments[1], arguments[2], "acq_rel", "acquire"), 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[misc]
def _call(typing_context, function, worker, workers, arguments):  # type: ignore[no-untyped-def]
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_INT64, _INT64, _INT64])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic  # type: ignore[misc]
def _pause(typing_context):  # type: ignore[no-untyped-def]
    """Tell the core that this is a loop that waits, so that it saves power and leaves memory alone."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        triple = llvm.get_default_triple()
        if triple.startswith(("x86_64", "i686", "amd64")):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif triple.startswith(("aarch64", "arm64")):
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint"), [ir.IntType(32)(1)])
        return context.get_dummy_value()

    return types.void(), generate


def _serve(board: int, worker: int, seen: int, looks: int) -> int:
    # Computes share ``worker`` of every kernel that comes, until none has come for ``looks`` looks; returns the last seen.
    looked = 0
    while looked < looks:
        work = _read(board + WORK)
        if work == seen:
            _pause()
            looked += 1
            continue
        seen = work
        if _read(board + CLOSED) != 0:
            break
        if worker < work & 0xFFFF:
            _take_shares(board, work)
        looked = 0
    return seen


def _compute(board: int, function: int, arguments: int, workers: int, looks: int) -> int:
    # Publishes a kernel, computes its shares and waits for those that others took; returns 0 if they take too long.
    work = ((_read(board + WORK) >> 16) + 1) << 16 | workers
    _write(board + FUNCTION, function)
    _write(board + ARGUMENTS, arguments)
    _write(board + FINISHED, 0)
    _write(board + CLAIMS, work - workers + 1)
    _write(board + WORK, work)
    if workers > 0:
        _call(function, 0, workers, arguments)
        _take_shares(board, work)
    return _await(board, workers, looks)


@inline
def _take_shares(board: int, work: int) -> None:
    # Computes one share after the other that nobody has taken. What stands on the board is that of ``work`` as long as a
    # share of it is claimed and not finished.
    workers = work & 0xFFFF
    claims = _read(board + CLAIMS)
    while claims >> 16 == work >> 16 and claims & 0xFFFF < workers:
        if _exchange(board + CLAIMS, claims, claims + 1):
            _call(_read(board + FUNCTION), claims & 0xFFFF, workers, _read(board + ARGUMENTS))
            _count(board + FINISHED)
        claims = _read(board + CLAIMS)


@inline
def _await(board: int, workers: int, looks: int) -> int:
    for _ in range(looks):
        if _read(board + FINISHED) >= workers - 1:
            return 1
        _pause()
    return 0


def _go_on_waiting(board: int, workers: int, looks: int) -> int:
    return _await(board, workers, looks)


def _one_by_one(function: int, workers: int, arguments: int) -> None:
    for worker in range(workers):
        _call(function, worker, workers, arguments)


class _Compiled:
    """The functions above, as functions of C that are called without the GIL."""

    def __init__(self) -> None:
        self.serve = _callable(_serve, 4, types.int64)
        self.compute = _callable(_compute, 5, types.int64)
        self.go_on_waiting = _callable(_go_on_waiting, 3, types.int64)
        self.one_by_one = _callable(_one_by_one, 3, types.void)


def _callable(function: Any, count: int, result: Any) -> Any:
    compiled = CompiledFunction(function, ((types.int64,) * count, result))
    kind = ctypes.CFUNCTYPE(ctypes.c_int64 if result is types.int64 else None, *[ctypes.c_int64] * count)
    called: Any = kind(compiled.address)
    called.keeps_alive = compiled
    return called


# ---- the threads ---------------------------------------------------------------------------------------------------------


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.memory = np.zeros(BOARD_BYTES // 8 + 8, np.int64)
        self.board = -(-self.memory.ctypes.data // 64) * 64
        self.work = ctypes.c_int64.from_address(self.board + WORK)
        self.closed = ctypes.c_int64.from_address(self.board + CLOSED)
        self.threads: list[threading.Thread] = []
        self.owners: dict[int, int] = {}
        self.bells: list[queue.SimpleQueue[None]] = []
        self.asleep: list[bool] = []
        self.code: _Compiled | None = None
        self.looks_of_watch = self.looks_of_wait = 0

    def run(self, function: int, arguments: int, workers: int) -> None:
        code = self.code or self._prepare()
        # The threads may be busy with the kernel of another Python thread, or with one that this call interrupted.
        if workers == 1 or not self.lock.acquire(blocking=False):
            code.one_by_one(function, workers, arguments)
            return
        try:
            self._start(workers - 1)
            self._ring()
            before = self.work.value
            try:
                finished = code.compute(self.board, function, arguments, workers, self.looks_of_wait)
                while not finished:
                    finished = self._wait_on(workers)
            except BaseException:
                # Ctrl-C, which Python raises once the compiled function has returned: the others still write to memory that
                # is let go with this call. They are awaited in compiled code, where no second Ctrl-C can cut that short; one
                # that comes on the way there is let go.
                waited = False
                while not waited:
                    try:
                        if self.work.value != before:
                            self._ring()
                            code.go_on_waiting(self.board, workers, _FOR_EVER)
                        waited = True
                    except KeyboardInterrupt:
                        continue
                raise
        finally:
            self.lock.release()

    def _ring(self) -> None:
        for index, asleep in enumerate(self.asleep):
            if asleep:
                self.asleep[index] = False
                self.bells[index].put(None)

    def _wait_on(self, workers: int) -> int:
        self._ring()  # a thread that fell asleep between the first ring and the kernel
        time.sleep(0)  # there may be fewer cores than threads
        assert self.code is not None
        return int(self.code.go_on_waiting(self.board, workers, self.looks_of_wait))

    def close(self) -> None:
        if self.threads and self.code is not None and self.lock.acquire(timeout=1):
            self.closed.value = 1
            self.code.compute(self.board, 0, 0, 0, 1)
            for bell in self.bells:
                bell.put(None)
            for thread in self.threads:
                thread.join(timeout=1)

    def _prepare(self) -> _Compiled:
        code = _Compiled()
        looks = 1000
        started = time.perf_counter()
        code.go_on_waiting(self.board, 2, looks)  # for a thread that is not there
        looks_a_second = looks / (time.perf_counter() - started)
        self.looks_of_watch = max(1, int(looks_a_second * _WATCH_SECONDS))
        self.looks_of_wait = max(1, int(looks_a_second * _WAIT_SECONDS))
        self.code = code
        return code

    def _start(self, count: int) -> None:
        while len(self.threads) < count:
            index = len(self.threads)
            if index == len(self.bells):
                self.asleep.append(False)
                self.bells.append(queue.SimpleQueue())
            thread = threading.Thread(
                target=self._serve, args=(index, self.work.value), name=f"xpconv-numba-{index + 1}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return  # the system refuses another one, or Python is about to end: there are enough without it
            self.threads.append(thread)

    def _serve(self, index: int, seen: int) -> None:
        if self.owners.setdefault(index, threading.get_ident()) != threading.get_ident():
            return  # Ctrl-C came between its start and the note that it was started, and so another one was
        assert self.code is not None
        serve = self.code.serve
        while not self.closed.value:
            seen = serve(self.board, index + 1, seen, self.looks_of_watch)
            self.asleep[index] = True
            if self.work.value == seen:
                self.bells[index].get()
            self.asleep[index] = False


_pool = _Pool()


def _after_fork() -> None:
    # A child has none of the parent's threads, and perhaps a lock that nobody will release. It does have the machine code.
    global _pool
    parents, _pool = _pool, _Pool()
    _pool.looks_of_watch, _pool.looks_of_wait = parents.looks_of_watch, parents.looks_of_wait
    _pool.code = parents.code


def _close() -> None:
    _pool.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close)
