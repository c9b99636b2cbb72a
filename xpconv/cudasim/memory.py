"""Copies of the arguments for check mode, with nobody's bytes around each, so that an overrun meets no other array."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np

_Array = np.ndarray[Any, np.dtype[Any]]
_Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_GUARD = 1 << 16  # bytes before and after
_ALIGNMENT = 256  # of what a card allocates


class Buffer(ctypes.Structure):
    """See runtime/worker.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("argument", ctypes.c_int),
        ("writable", ctypes.c_int),
    )


class GuardedCopies(NamedTuple):
    """Copies of the arrays of a launch.

    Attributes:
        addresses: Where each argument lies, by its index.
        buffers: What the run time has to know.
        written: For each array that may be written, the array and the bytes of its copy.
        memory: What the copies lie in.
    """

    addresses: dict[int, int]
    buffers: Any
    written: list[tuple[_Array, _Bytes]]
    memory: list[_Bytes]

    def write_back(self) -> None:
        """Copy what the kernel wrote into the arrays."""
        for array, copy in self.written:
            _bytes_of(array)[:] = copy


def guarded_copies(arrays: list[tuple[int, _Array, bool]]) -> GuardedCopies:
    """Copy arrays; those that overlap stay together, so that a kernel sees them overlap.

    A copy is as misaligned as the array is within the memory that it was cut out of, as on a card.

    Args:
        arrays: Index of the argument, C-contiguous array, whether the kernel may write it.

    Returns:
        The copies.
    """
    placed = sorted((_address_of(array), array.nbytes, index) for index, array, _ in arrays)
    by_index = {index: (array, writable) for index, array, writable in arrays}
    groups: list[tuple[int, int, list[int]]] = []  # first address, end, indices
    for begin, size, index in placed:
        if groups and begin < groups[-1][1]:
            first, end, indices = groups[-1]
            groups[-1] = (first, max(end, begin + size), [*indices, index])
        else:
            groups.append((begin, begin + size, [index]))
    addresses: dict[int, int] = {}
    buffers: list[Buffer] = []
    memory: list[_Bytes] = []
    written: list[tuple[_Array, _Bytes]] = []
    for first, end, indices in groups:
        raw = np.full(end - first + 2 * _GUARD + 2 * _ALIGNMENT, 0xFF, np.uint8)
        memory.append(raw)
        misalignment = (first - _allocation_of(by_index[indices[0]][0])) % _ALIGNMENT
        start = -(_address_of(raw) + _GUARD) % _ALIGNMENT + _GUARD + misalignment
        copy = raw[start : start + end - first]
        writable = False
        for index in indices:
            array, may_be_written = by_index[index]
            offset = _address_of(array) - first
            part = copy[offset : offset + array.nbytes]
            part[:] = _bytes_of(array)
            addresses[index] = _address_of(part) if part.size else _address_of(copy)
            if may_be_written:
                writable = True
                written.append((array, part))
        buffers.append(Buffer(_address_of(copy), end - first, min(indices), writable))
    return GuardedCopies(addresses, (Buffer * len(buffers))(*buffers), written, memory)


def _address_of(array: _Array) -> int:
    return int(array.__array_interface__["data"][0])


def _allocation_of(array: _Array) -> int:
    """Address of the memory that an array was cut out of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return _address_of(array)


def _bytes_of(array: _Array) -> _Bytes:
    return array.reshape(-1).view(np.uint8)
