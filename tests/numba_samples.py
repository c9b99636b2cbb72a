"""Small kernels of the numba device, by which test_numba_runtime.py and its programs test what compiles and runs them."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, task
from xpconv.kernels.numba.intrinsics import outer_products, pointer, transpose_square
from xpconv.kernels.numba.memory import address
from xpconv.kernels.numba.threads import run, run_with_scratch, thread_count

Array = np.ndarray[Any, np.dtype[Any]]


class _Map(Arguments):
    x: int
    y: int
    size: int
    factor: float


@functools.cache
def scale_kernel(real: Any) -> CompiledFunction:
    @task(_Map)
    def scale(worker: int, workers: int, a: Any) -> None:
        x, y = pointer(a.x, real), pointer(a.y, real)
        for i in range(worker * a.size // workers, (worker + 1) * a.size // workers):
            y[i] = x[i] * real(a.factor)

    return scale


def scale(x: Array, factor: float, workers: int) -> Array:
    """``factor * x``."""
    y = np.full_like(x, np.nan)
    kernel = scale_kernel(numba.from_dtype(x.dtype))
    run(kernel, _Map(x=address(x), y=address(y), size=x.size, factor=factor), workers)
    return y


class _Sum(Arguments):
    x: int
    total: int
    size: int
    scratch: int
    scratch_pitch: int


@functools.cache
def sum_kernel(real: Any) -> CompiledFunction:
    @task(_Sum)
    def sum_up(worker: int, workers: int, a: Any) -> None:
        x, own = pointer(a.x, real), pointer(a.scratch + worker * a.scratch_pitch, real)
        own[0] = real(0)
        for i in range(worker * a.size // workers, (worker + 1) * a.size // workers):
            own[0] += x[i]
        pointer(a.total, real)[worker] = own[0]

    return sum_up


def sum_up(x: Array, workers: int | None = None) -> float:
    """The sum: one of each worker, added up in their order. Its bits depend on the number of workers."""
    workers = workers or thread_count()
    totals = np.full(workers, np.nan, x.dtype)
    kernel = sum_kernel(numba.from_dtype(x.dtype))
    arguments = _Sum(x=address(x), total=address(totals), size=x.size, scratch=0, scratch_pitch=0)
    run_with_scratch(kernel, arguments, workers, 64)
    return float(sum(totals))


class _Work(Arguments):
    rounds: int
    first_rounds: int
    done: int


@functools.cache
def work_kernel() -> CompiledFunction:
    @task(_Work)
    def work(worker: int, workers: int, a: Any) -> None:
        state = worker + 1
        for _ in range(a.first_rounds if worker == 0 else a.rounds):
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
        pointer(a.done, numba.int64)[worker] = state | 1

    return work


def work(done: Array, first_rounds: int, rounds: int) -> None:
    """Keep a thread for each entry of ``done`` busy; an entry that is 0 becomes another number when its thread is done.

    Args:
        done: int64, zeros.
        first_rounds: How long worker 0 is busy, the calling thread; 100 million rounds take a fraction of a second.
        rounds: How long the others are.
    """
    run(work_kernel(), _Work(rounds=rounds, first_rounds=first_rounds, done=address(done)), done.size)


class _Product(Arguments):
    depth: int
    a: int
    a_rows: int
    a_steps: int
    b: int
    b_pitch: int
    start: int
    start_pitch: int
    c: int
    c_pitch: int


@functools.cache
def product_kernel(real: Any, rows: int, vectors: int) -> CompiledFunction:
    @task(_Product)
    def product(worker: int, workers: int, p: Any) -> None:
        outer_products(
            real, rows, vectors, p.depth, p.a, p.a_rows, p.a_steps, p.b, p.b_pitch, p.start, p.start_pitch, p.c, p.c_pitch
        )

    return product


def product(a: Array, a_rows: Array, a_steps: Array, b: Array, start: Array, c: Array, vectors: int) -> None:
    """:func:`~xpconv.kernels.numba.intrinsics.outer_products` on arrays; ``start`` is one row, or has as many as ``c``."""
    pitch = start.shape[1] if start.ndim == 2 else 0
    arguments = _Product(
        depth=a_steps.size,
        a=address(a),
        a_rows=address(a_rows),
        a_steps=address(a_steps),
        b=address(b),
        b_pitch=b.shape[1],
        start=address(start),
        start_pitch=pitch,
        c=address(c),
        c_pitch=c.shape[1],
    )
    run(product_kernel(numba.from_dtype(a.dtype), a_rows.size, vectors), arguments, 1)


class _Transpose(Arguments):
    source: int
    source_pitch: int
    target: int
    target_pitch: int


@functools.cache
def transpose_kernel(real: Any) -> CompiledFunction:
    @task(_Transpose)
    def transpose(worker: int, workers: int, a: Any) -> None:
        transpose_square(real, a.source, a.source_pitch, a.target, a.target_pitch)

    return transpose


def transpose(source: Array, target: Array) -> None:
    """Write the transpose of the upper left square of ``source`` to the one of ``target``."""
    arguments = _Transpose(
        source=address(source), source_pitch=source.shape[1], target=address(target), target_pitch=target.shape[1]
    )
    run(transpose_kernel(numba.from_dtype(source.dtype)), arguments, 1)
