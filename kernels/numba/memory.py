"""Memory that is used again: pages that are mapped already are written three times as fast as fresh ones."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

# Larger blocks go back to the system, and so does a third one of a size: 32 MiB are kept at most.
_LARGEST_KEPT = 8 << 20
_KEPT_OF_A_SIZE = 2

_idle: dict[int, list[Array]] = {}


# Results that malloc would map anew each time (glibc does from 128 KiB on) are given out again when nothing refers to them any
# more; so much may be idle. With small batches the new pages took a third of a training step.
_LARGE_RESULT = 1 << 17
_IDLE_RESULTS = 52 << 20

_results: dict[int, list[Array]] = {}


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """As ``np.empty``, but on memory that an earlier result left where there is some, and starting on a cache line.

    A register is then written to one line and not across two, and after the first step of a training no page is new.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _LARGE_RESULT:
        memory = np.empty(size + 64, np.uint8)
        return np.ndarray(shape, dtype, buffer=memory, offset=-address(memory) % 64)
    return np.asarray(_Lent(shape, dtype, size))


class _Lent:
    """The memory of a result: NumPy keeps it as the base of the array and of all its views, and lets go of it with the last."""

    __slots__ = ("__array_interface__", "memory")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> None:
        size = (-(-size // (64 << 10)) * 64 << 10) + 64
        try:
            self.memory = _results[size].pop()
        except (KeyError, IndexError):
            self.memory = np.empty(size, np.uint8)
        start = -(-address(self.memory) // 64) * 64
        self.__array_interface__ = {"shape": shape, "typestr": dtype.str, "data": (start, False), "version": 3}

    def __del__(self) -> None:
        _results.setdefault(self.memory.size, []).append(self.memory)
        surplus = sum(size * len(idle) for size, idle in list(_results.items())) - _IDLE_RESULTS
        for size in sorted(_results.copy(), key=self.memory.size.__eq__):  # those of the size wanted last go last
            with contextlib.suppress(IndexError):  # another Python thread was faster
                while surplus > 0:
                    _results[size].pop()
                    surplus -= size


class borrowed:  # noqa: N801 - used as a function
    """Address of at least ``size`` bytes, a multiple of 64, as long as a ``with`` lasts; what they hold is left over.

    Blocks are kept by their size, a power of two, and whoever takes one owns it: a second Python thread, or a signal handler
    that computes while its own thread computes, takes another.
    """

    __slots__ = ("memory", "size")

    def __init__(self, size: int) -> None:
        self.size = 1 << max(12, (size + 63).bit_length())

    def __enter__(self) -> int:
        try:
            self.memory = _idle[self.size].pop()
        except (KeyError, IndexError):
            self.memory = np.empty(self.size, np.uint8)
        return -(-address(self.memory) // 64) * 64

    def __exit__(self, *error: object) -> None:
        if self.size <= _LARGEST_KEPT:
            kept = _idle.setdefault(self.size, [])
            if len(kept) < _KEPT_OF_A_SIZE:
                kept.append(self.memory)


def whole_lines(size: int) -> int:
    """Bytes of the cache lines that ``size`` bytes take."""
    return -(-size // 64) * 64


def odd_lines(elements: int, itemsize: int) -> int:
    """Elements of an odd number of cache lines: rows that far apart don't share the same few sets of the cache."""
    return (-(-elements * itemsize // 64) | 1) * 64 // itemsize


def _looked_up(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _read(array: Array) -> int:
    # The first field of NumPy's array object behind Python's header: what its C interface calls PyArray_DATA.
    return ctypes.c_int64.from_address(id(array) + object.__basicsize__).value


_sample = np.zeros(1)
# Where the first element of an array lies. A kernel is given several arrays, and reading a field takes a seventh of the time.
address: Callable[[Array], int] = _read if _read(_sample[:]) == _looked_up(_sample) else _looked_up
