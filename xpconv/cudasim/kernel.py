"""Kernel: checks its arguments as strictly as a card never does, and launches."""

from __future__ import annotations

import ctypes
import operator
import os
import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from xpconv.cudasim import toolchain
from xpconv.cudasim.errors import KernelError
from xpconv.cudasim.memory import Buffer, guarded_copies
from xpconv.cudasim.profile import Profile

SHARED_MEMORY_LIMIT = 99 << 10  # of sm_86, sm_89 and sm_120
_DEFAULT_SHARED_MEMORY = 48 << 10
_ORDERS = ("ascending", "descending", "random")
_ROWS = 1 << 16  # of a profile: more than a kernel has loads and stores
_WORTH_A_WORKER = 2048  # threads of the grid: starting a thread of the system costs about as much as these

_Array = np.ndarray[Any, np.dtype[Any]]


class Parameter(ctypes.Structure):
    """A row of a kernel's signature; see include/cudasim/entry.h."""

    _fields_ = (
        ("kind", ctypes.c_char),
        ("target", ctypes.c_char),
        ("constant", ctypes.c_int),
        ("size", ctypes.c_int),
        ("alignment", ctypes.c_int),
    )


class _Failure(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char * 32),
        ("text", ctypes.c_char * 1024),
        ("file", ctypes.c_char * 512),
        ("line", ctypes.c_int),
        ("has_block", ctypes.c_int),
        ("has_thread", ctypes.c_int),
        ("block", ctypes.c_uint * 3),
        ("thread", ctypes.c_uint * 3),
        ("address", ctypes.c_ulonglong),
    )


class _ProfileRow(ctypes.Structure):
    _fields_ = (
        ("address", ctypes.c_ulonglong),
        ("shared", ctypes.c_int),
        ("write", ctypes.c_int),
        ("requests", ctypes.c_ulonglong),
        ("transactions", ctypes.c_ulonglong),
        ("least", ctypes.c_ulonglong),
    )


class _Launch(ctypes.Structure):
    """See runtime/worker.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("dynamic_shared", ctypes.c_size_t),
        ("shared_limit", ctypes.c_size_t),
        ("order", ctypes.c_int),
        ("workers", ctypes.c_int),
        ("seed", ctypes.c_ulonglong),
        ("check", ctypes.c_int),
        ("profile", ctypes.c_int),
        ("buffers", ctypes.POINTER(Buffer)),
        ("buffer_count", ctypes.c_int),
        ("rows", ctypes.POINTER(_ProfileRow)),
        ("row_capacity", ctypes.c_int),
        ("row_count", ctypes.c_int),
        ("shared_used", ctypes.c_size_t),
        ("failure", _Failure),
    )


class Kernel:
    """A kernel of a :class:`Module`, called as CuPy's: ``kernel(grid, block, args, shared_mem=0)``.

    Attributes:
        name: The name it was asked for by.
        max_dynamic_shared_size_bytes: Dynamic shared memory that a launch may have; 48 KiB until it is set to more.
        order: In which order the threads of a block, and the blocks, run where nothing orders them: "ascending", "descending"
            or "random". A right kernel gives the same with each.
        seed: Of the random order.
        workers: Threads of the operating system that blocks are distributed over in fast mode; None for as many as there are
            cores, and fewer where the grid is small.
        profile: Whether a launch in check mode fills :attr:`report`.
        report: A row for each line, space and operation, after a launch with ``profile = True``.
        totals: The rows of the report added up for each space and operation, under no file and line 0.
        shared_memory_used: Bytes of shared memory that a block of the last launch declared.
    """

    def __init__(self, name: str, entry: Any, parameters: Any, library: Path, *, mode: str, shared_memory_limit: int) -> None:
        self.name = name
        self.max_dynamic_shared_size_bytes = _DEFAULT_SHARED_MEMORY
        self.order = "ascending"
        self.seed = 0
        self.workers: int | None = None
        self.profile = False
        self.report: list[Profile] = []
        self.totals: list[Profile] = []
        self.shared_memory_used = 0
        self._entry = entry
        self._library = library
        self._check = mode == "check"
        self._shared_memory_limit = shared_memory_limit
        self._parameters: list[_Parameter] = []
        layout, position = "=", 0
        while parameters[len(self._parameters)].kind != b"\0":
            parameter = _Parameter(len(self._parameters), parameters[len(self._parameters)])
            padding = -position % parameter.alignment
            position += padding + parameter.bytes
            layout += f"{padding}x" + ("Q" if parameter.kind == "p" else f"{parameter.bytes}s")
            self._parameters.append(parameter)
        self._layout = struct.Struct(layout)

    def __repr__(self) -> str:
        return f"<xpconv.cudasim.Kernel {self.name}>"

    def __call__(
        self,
        grid: Sequence[SupportsIndex],
        block: Sequence[SupportsIndex],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
    ) -> None:
        """Run the kernel, from first to last block, before returning.

        Args:
            grid: Number of blocks, up to three numbers; 0 counts as 1, as in CuPy.
            block: Threads of a block, up to three numbers.
            args: A NumPy array, C-contiguous, for each pointer; for each other parameter a NumPy scalar of its type, a record
                (a scalar of a structured dtype), or an int, float or bool of Python, which CuPy passes as 8, 8 and 1 bytes.
            shared_mem: Bytes of dynamic shared memory.

        Raises:
            KernelError: An argument or the launch is wrong, or the kernel made a mistake. In check mode the arrays are then
                as before the launch.
            ValueError: An attribute of the kernel has a bad value.
        """
        launch = self._configured(grid, block, shared_mem)
        if len(args) != len(self._parameters):
            raise self._refused(f"it takes {len(self._parameters)} arguments, but {len(args)} were given")
        values: list[Any] = []
        arrays: list[tuple[int, _Array, bool]] = []  # index of the argument, the array, whether it may be written
        for parameter, argument in zip(self._parameters, args, strict=True):
            if parameter.kind != "p":
                values.append(self._scalar(parameter, argument))
                continue
            array = self._array(parameter, argument)
            values.append(0 if array is None else array.__array_interface__["data"][0])
            if array is not None:
                arrays.append((parameter.index, array, not parameter.constant))
        if self._check:
            self._launch_checked(launch, values, arrays)
        else:
            self._run(launch, values)

    # ---- running -----------------------------------------------------------------------------------------------------

    def _run(self, launch: _Launch, values: list[Any]) -> None:
        failed = self._entry(ctypes.byref(launch), self._layout.pack(*values))
        self.shared_memory_used = launch.shared_used
        if failed:
            raise self._error(launch.failure)

    def _launch_checked(self, launch: _Launch, values: list[Any], arrays: list[tuple[int, _Array, bool]]) -> None:
        copies = guarded_copies(arrays)
        for index, address in copies.addresses.items():
            values[index] = address
        launch.buffers, launch.buffer_count = copies.buffers, len(copies.buffers)
        rows = (_ProfileRow * _ROWS)() if self.profile else None
        if rows is not None:
            launch.rows, launch.row_capacity, launch.profile = rows, _ROWS, 1
        self._run(launch, values)
        copies.write_back()
        if rows is not None:
            self._fill_report(rows[: launch.row_count])

    def _fill_report(self, rows: Sequence[_ProfileRow]) -> None:
        lines = toolchain.lines_of(self._library, [row.address for row in rows])
        by_line: dict[tuple[str, int, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        by_space: dict[tuple[str, int, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for row, (file, line) in zip(rows, lines, strict=True):
            use = ("shared" if row.shared else "global", "write" if row.write else "read")
            for sums in (by_line[file, line, *use], by_space["", 0, *use]):
                sums[0] += row.requests
                sums[1] += row.transactions
                sums[2] += row.least
        self.report = [Profile(*key, *sums) for key, sums in sorted(by_line.items())]
        self.totals = [Profile(*key, *sums) for key, sums in sorted(by_space.items())]

    def _error(self, failure: _Failure) -> KernelError:
        text = failure.text.decode(errors="replace")
        file, line = failure.file.decode(errors="replace"), int(failure.line)
        others = [int(match, 16) for match in re.findall(r"@0x([0-9a-f]+)", text)]
        own = [] if file or not failure.address else [int(failure.address)]
        places = toolchain.lines_of(self._library, own + others) if self._check else [("", 0)] * len(own + others)
        if own:
            file, line = places[0]
        found = iter(places[len(own) :])
        text = re.sub(
            r"@0x[0-9a-f]+", lambda _: "{}:{}".format(*place) if (place := next(found))[0] else "an unknown line", text
        )
        return KernelError(
            self.name,
            failure.kind.decode(),
            text,
            file=file,
            line=line,
            block=_triple(failure.block) if failure.has_block else None,
            thread=_triple(failure.thread) if failure.has_thread else None,
        )

    # ---- what is checked before ----------------------------------------------------------------------------------------

    def _refused(self, why: str) -> KernelError:
        return KernelError(self.name, "launch", why)

    def _configured(self, grid: Sequence[SupportsIndex], block: Sequence[SupportsIndex], shared_mem: int) -> _Launch:
        if self.order not in _ORDERS:
            raise ValueError(f"{self.name}: order is {self.order!r}, but it is one of {', '.join(map(repr, _ORDERS))}")
        if self.profile and not self._check:
            raise ValueError(f'{self.name}: profile = True needs mode="check"')
        gx, gy, gz = self._extents("grid", grid)
        bx, by, bz = self._extents("block", block)
        threads = bx * by * bz
        if threads > 1024 or bz > 64:
            raise self._refused(f"a block of {bx} x {by} x {bz} threads; a card takes 1024 in all, and 64 in z")
        if gx > 0x7FFFFFFF or gy > 65535 or gz > 65535:
            raise self._refused(f"a grid of {gx} x {gy} x {gz} blocks; a card takes 2147483647 x 65535 x 65535")
        allowed = self.max_dynamic_shared_size_bytes
        if allowed > self._shared_memory_limit:
            limit = self._shared_memory_limit
            raise self._refused(f"max_dynamic_shared_size_bytes is {allowed}, but the card has {limit} bytes for a block")
        if not 0 <= shared_mem <= allowed:
            raise self._refused(f"shared_mem is {shared_mem}, but max_dynamic_shared_size_bytes is {allowed}")
        launch = _Launch()
        launch.grid, launch.block = (gx, gy, gz), (bx, by, bz)
        launch.dynamic_shared, launch.shared_limit = shared_mem, self._shared_memory_limit
        launch.order, launch.seed = _ORDERS.index(self.order), self.seed
        launch.check = self._check
        launch.workers = 1 if self._check else self._worker_count(gx * gy * gz * threads)
        return launch

    def _worker_count(self, threads: int) -> int:
        if self.workers is not None:
            if self.workers < 1:
                raise ValueError(f"{self.name}: workers is {self.workers}, but it is at least 1")
            return self.workers
        return min(_CORES, 1 + threads // _WORTH_A_WORKER)

    def _extents(self, name: str, given: Sequence[SupportsIndex]) -> tuple[int, int, int]:
        try:
            numbers = [operator.index(number) for number in given]
        except TypeError:
            raise TypeError(f"{self.name}: {name} is a tuple of up to three integers, not {given!r}") from None
        if not 1 <= len(numbers) <= 3 or min(numbers) < 0:
            raise self._refused(f"{name} is a tuple of up to three integers from 0, not {given!r}")
        x, y, z = (max(number, 1) for number in (*numbers, 1, 1)[:3])
        return x, y, z

    def _array(self, parameter: _Parameter, argument: Any) -> _Array | None:
        """The array for a pointer, or None for a null pointer."""
        if not isinstance(argument, np.ndarray):
            if isinstance(argument, int | np.integer) and not isinstance(argument, bool) and argument == 0:
                return None
            raise self._refused(f"argument {parameter.index} is a {type(argument).__name__}, but the kernel takes a pointer")
        dtype = argument.dtype
        if not parameter.accepts_elements(dtype):
            target = parameter.target_name
            raise self._refused(f"argument {parameter.index} has dtype {dtype}, but the kernel takes a pointer to {target}")
        if not argument.flags.c_contiguous:
            raise self._refused(f"argument {parameter.index} is not C-contiguous, and a kernel knows nothing of strides")
        if not argument.flags.aligned:
            raise self._refused(f"argument {parameter.index} is not aligned to its elements")
        if not parameter.constant and not argument.flags.writeable:
            raise self._refused(f"argument {parameter.index} is read-only, but the kernel takes a pointer to non-const")
        return argument

    def _scalar(self, parameter: _Parameter, argument: Any) -> bytes:
        """The bytes that CuPy would pass, cut to the size of the parameter as a card cuts them."""
        value = _as_numpy(argument)
        if value is None:
            kind = type(argument).__name__
            raise self._refused(f"argument {parameter.index} is a {kind}, but the kernel takes {parameter.type_name}")
        dtype = value.dtype
        if parameter.accepts(value):
            return bytes(value.tobytes()[: parameter.bytes])
        if dtype.kind in "iu" and parameter.kind in "iu" and dtype.itemsize >= parameter.bytes:
            raise self._refused(f"argument {parameter.index} is {argument!r}, which {parameter.type_name} cannot hold")
        passed = f"which CuPy passes as {dtype} ({dtype.itemsize} bytes)"
        raise self._refused(f"argument {parameter.index} is {argument!r}, {passed}, but the kernel takes {parameter.type_name}")


class _Parameter:
    """A parameter of a kernel."""

    def __init__(self, index: int, row: Parameter) -> None:
        self.index = index
        self.kind = row.kind.decode()
        self.target = row.target.decode() if self.kind == "p" else ""
        self.constant = bool(row.constant)
        self.size = int(row.size)
        self.alignment = int(row.alignment)
        self.bytes = 8 if self.kind == "p" else self.size
        self.type_name = _type_name(self.kind, self.size)
        self.target_name = _type_name(self.target, self.size)
        self._exact = _dtype_of(self.kind, self.size)
        self._accepted: dict[np.dtype[Any], bool] = {}
        if self.kind in ("i", "u"):
            bits = 8 * self.size
            self._range = (-(1 << bits - 1), (1 << bits - 1) - 1) if self.kind == "i" else (0, (1 << bits) - 1)

    def accepts_elements(self, dtype: np.dtype[Any]) -> bool:
        """Whether a pointer parameter may point to elements of a dtype; integers of the same size stand for each other."""
        accepted = self._accepted.get(dtype)
        if accepted is None:
            accepted = self._accepted[dtype] = self._is_accepted(dtype)
        return accepted

    def _is_accepted(self, dtype: np.dtype[Any]) -> bool:
        if self.target == "V":
            return True
        if self.target in "biu":
            return dtype.kind in "biu" and dtype.itemsize == self.size
        return _kind_of(dtype) == self.target and dtype.itemsize == self.size

    def accepts(self, value: Any) -> bool:
        """Whether the bytes of a scalar mean on the card what they mean here."""
        dtype = value.dtype
        if self._exact is not None and dtype == self._exact:
            return True
        if self.kind in ("i", "u"):
            return dtype.kind in "iu" and dtype.itemsize >= self.size and self._range[0] <= int(value) <= self._range[1]
        if self.kind == "b":
            return dtype.kind in "biu" and int(value) in (0, 1)
        if self.kind == "V":
            return bool(dtype.itemsize == self.size)
        return bool(_kind_of(dtype) == self.kind and dtype.itemsize == self.size)


def _dtype_of(kind: str, size: int) -> np.dtype[Any] | None:
    if kind == "b":
        return np.dtype(np.bool_)
    return np.dtype(f"{kind}{size}") if kind in "iuf" and kind else None


def _kind_of(dtype: np.dtype[Any]) -> str:
    if dtype.name == "bfloat16":
        return "B"
    return "h" if dtype == np.float16 else dtype.kind


def _type_name(kind: str, size: int) -> str:
    names = {"b": "bool", "h": "__half", "B": "__nv_bfloat16", "p": "a pointer", "V": f"a record of {size} bytes"}
    return names.get(kind) or {"i": f"int{8 * size}", "u": f"uint{8 * size}", "f": f"float{8 * size}"}.get(kind, "anything")


def _as_numpy(argument: Any) -> Any:
    """A scalar as CuPy takes it: Python's int is 8 bytes, its float a double, its bool one byte."""
    if isinstance(argument, np.generic):
        return argument
    if isinstance(argument, np.ndarray):
        return argument.reshape(()) if argument.size == 1 else None
    if isinstance(argument, bool):
        return np.bool_(argument)
    if isinstance(argument, int):
        return np.int64(argument) if -(1 << 63) <= argument < 1 << 63 else None
    if isinstance(argument, float):
        return np.float64(argument)
    return np.complex128(argument) if isinstance(argument, complex) else None


def _triple(values: Any) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])


_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
