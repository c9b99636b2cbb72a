"""Two levels of parallelism that must not fight: Python threads over the images, one BLAS thread in each.

NumPy's copies, ufuncs and matrix products release the GIL, so Python threads over parts of a batch keep every core busy,
also in the passes that BLAS doesn't see. While they run, BLAS itself is held to one thread.

The number of threads is BLAS' own (``OPENBLAS_NUM_THREADS``, ``OMP_NUM_THREADS``, ``threadpoolctl``): no second setting.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import LibController, ThreadpoolController

# A buffer above this is not worth keeping: mapping it costs little beside filling it, and it would stay for good.
LARGEST_KEPT_BUFFER = 16 << 20

_blas_lock = threading.Lock()
_blas_users = 0
_blas_threads_before: list[int] = []
_local = threading.local()


def thread_count() -> int:
    """Number of threads to use: as many as BLAS may, or the usable cores where BLAS cannot be asked."""
    with _blas_lock:
        counts = _blas_threads_before if _blas_users else [int(library.num_threads) for library in _blas_libraries()]
    return max(counts, default=usable_cores())


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def parallel(work: Callable[[int, int, int], None], items: int, workers: int) -> None:
    """Run ``work(worker, start, stop)`` on ``workers`` threads, each with one fixed stretch of ``range(items)``.

    The split depends on ``items`` and ``workers`` alone, so sums collected per worker come out the same at every run. The
    first stretch runs on the calling thread. With one stretch BLAS keeps its threads.
    """
    workers = min(workers, items)
    if workers <= 1:
        work(0, 0, items)
        return
    bounds = [worker * items // workers for worker in range(workers + 1)]
    # One pool for all numbers of workers: threads keep buffers, so there should be no more of them than are ever busy.
    pool = _pool(max(workers, thread_count()) - 1)
    with _one_blas_thread():
        others: list[Future[None]] = [
            # In the caller's context, so that its np.errstate holds in every thread.
            pool.submit(contextvars.copy_context().run, work, worker, bounds[worker], bounds[worker + 1])
            for worker in range(1, workers)
        ]
        try:
            work(0, bounds[0], bounds[1])
        finally:
            for other in others:
                other.exception()  # waits: no thread may still write when the caller sees an error
        for other in others:
            other.result()


def buffer(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Memory of the calling thread, kept under ``name`` and reused: mapped pages are written three times as fast as fresh ones.

    Its content is whatever was left there. The caller must be done with it before it asks for ``name`` again; a kernel that
    a signal handler calls while another one runs in the same thread would break that.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > LARGEST_KEPT_BUFFER:
        return np.empty(shape, dtype)
    kept: dict[str, np.ndarray[Any, Any]] = _local.__dict__.setdefault("buffers", {})
    memory = kept.get(name)
    if memory is None or memory.size < size:
        memory = kept[name] = np.empty(size, np.uint8)
    return np.ndarray(shape, dtype, buffer=memory.data)


@functools.cache
def _blas_libraries() -> list[LibController]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    # Several threads of the user may be inside at once: the first one in saves the setting, the last one out restores it.
    global _blas_users, _blas_threads_before
    with _blas_lock:
        if _blas_users == 0:
            _blas_threads_before = [int(library.num_threads) for library in _blas_libraries()]
            for library in _blas_libraries():
                library.set_num_threads(1)
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                for library, threads in zip(_blas_libraries(), _blas_threads_before, strict=True):
                    library.set_num_threads(threads)


@functools.cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="xpconv")


def _after_fork() -> None:
    # A child has none of the parent's threads, and perhaps a lock that nobody will release.
    global _blas_lock, _blas_users
    _blas_lock = threading.Lock()
    if _blas_users:
        _blas_users = 0
        for library, threads in zip(_blas_libraries(), _blas_threads_before, strict=True):
            library.set_num_threads(threads)
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
