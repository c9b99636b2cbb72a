"""The seam: one host code for a card and for the simulator.

Which of the two computes is told by the arrays, and by nothing else: CuPy arrays are computed by their own card, NumPy arrays
by the simulator. What differs is gathered in one record, :class:`Runtime`: the array module, how a module is loaded, and what
the card is like. The launchers in this folder see no more of it than :meth:`Runtime.launch`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpconv.kernels.cuda.source import source_of

Array = Any  # a CuPy array, or a NumPy array for the simulator
Grid = tuple[int, ...]

# What a kernel gets without asking; more must be opted into, up to the limit of the card.
SHARED_MEMORY_WITHOUT_ASKING = 48 << 10
# What a thread can load or store at once.
VECTOR_BYTES = 16
# Bytes that an offset of type int reaches.
INT_REACH = 2**31

TYPE_NAMES = {"float32": "float", "float64": "double", "float16": "__half", "bfloat16": "__nv_bfloat16", "int64": "long long"}
OPTIONS = ("-std=c++17",)


@dataclass(frozen=True)
class Launch:
    """A launch as it was asked for; see :meth:`Runtime.launch`."""

    file: str
    name: str
    grid: Grid
    block: Grid
    arguments: tuple[Any, ...]
    shared_memory: int


@dataclass(frozen=True, eq=False)
class Runtime:
    """A card, or the simulator.

    Attributes:
        name: ``"cuda:0"`` or ``"cudasim"``.
        xp: The array module: CuPy or NumPy.
        load: Makes a module of source text and the names of its instantiated templates, as ``cupy.RawModule`` does.
        array_type: The class of its arrays.
        current: Gives a context in which the card is the current one.
        compute_capability: Ten times the version of the architecture: 80 is sm_80.
        multiprocessors: Number of multiprocessors that share the blocks of a grid.
        shared_memory_limit: Bytes of shared memory that a block can opt into.
        planned: Where launches are noted instead of made; None on whatever computes.
    """

    name: str
    xp: Any
    load: Callable[..., Any]
    array_type: type[Any]
    current: Callable[[], contextlib.AbstractContextManager[object]]
    compute_capability: int
    multiprocessors: int
    shared_memory_limit: int
    planned: list[Launch] | None = None
    _kernels: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    _loading: list[float] = field(default_factory=list, repr=False)

    def kernel(self, file: str, name: str) -> Any:
        """The kernel of this name expression, ``"relu_forward<float>"``, compiled at its first use."""
        key = file, name
        found = self._kernels.get(key)
        if found is None:
            started = time.perf_counter()
            module = self.load(code=source_of(file), options=OPTIONS, name_expressions=(name,))
            found = self._kernels[key] = module.get_function(name)
            self._loading.append(time.perf_counter() - started)
        return found

    @property
    def loaded(self) -> tuple[int, float]:
        """Number of kernels that are ready, and the seconds it took to compile them, or to find what was compiled before."""
        return len(self._kernels), sum(self._loading)

    def launch(
        self, file: str, name: str, grid: Grid, block: Grid, arguments: Sequence[Any], *, shared_memory: int = 0
    ) -> None:
        """Launch a kernel on the caller's current stream, and return without waiting for it.

        Args:
            file: The ``.cu`` file.
            name: The name expression of the kernel in it.
            grid: Blocks along x, y and z; none at all where one of them is 0.
            block: Threads of a block along x, y and z.
            arguments: Contiguous arrays of the device, NumPy scalars and records.
            shared_memory: Bytes of dynamic shared memory.
        """
        if 0 in grid:  # CuPy would raise each 0 to 1, and run a block
            return
        for number, argument in enumerate(arguments):  # CuPy checks nothing
            if isinstance(argument, self.array_type):
                if not argument.flags.c_contiguous:
                    raise ValueError(f"{name}: argument {number} is not C-contiguous")
            elif not isinstance(argument, np.generic):
                raise TypeError(
                    f"{name}: argument {number} must be an array of {self.name} or a NumPy scalar, "
                    f"not {type(argument).__module__}.{type(argument).__qualname__}"
                )
        if self.planned is not None:
            self.planned.append(Launch(file, name, tuple(grid), tuple(block), tuple(arguments), shared_memory))
            return
        with self.current():
            kernel = self.kernel(file, name)
            if shared_memory > SHARED_MEMORY_WITHOUT_ASKING:
                kernel.max_dynamic_shared_size_bytes = shared_memory
            kernel(tuple(map(int, grid)), tuple(map(int, block)), tuple(arguments), shared_mem=int(shared_memory))


def runtime_of(array: Array) -> Runtime:
    """The runtime that computes on this array."""
    if isinstance(array, np.ndarray):
        return _instead.get() or _simulator()
    return _card(array.device.id)


_instead: ContextVar[Runtime | None] = ContextVar("instead", default=None)


@contextlib.contextmanager
def computed_by(runtime: Runtime) -> Iterator[None]:
    """Let this runtime compute on NumPy arrays, in place of the simulator as it is set up."""
    token = _instead.set(runtime)
    try:
        yield
    finally:
        _instead.reset(token)


@contextlib.contextmanager
def planning(compute_capability: int, multiprocessors: int, shared_memory_limit: int) -> Iterator[list[Launch]]:
    """Note what a card of this kind would be given to do with NumPy arrays, instead of doing it.

    The list that is given grows with every launch. The arrays are never read: they may be larger than memory.
    """
    launches: list[Launch] = []
    card = Runtime(
        f"a card of compute capability {compute_capability}",
        np,
        _never_loads,
        np.ndarray,
        contextlib.nullcontext,
        compute_capability,
        multiprocessors,
        shared_memory_limit,
        launches,
    )
    with computed_by(card):
        yield launches


def _never_loads(**_: Any) -> Any:
    raise AssertionError("a planned launch loads no module")


@functools.cache
def type_name(dtype: Any) -> str:
    """What a dtype is called in the sources."""
    return TYPE_NAMES[np.dtype(dtype).name]


def index_type(*arrays: Array) -> str:
    """The type of offsets into these arrays: 32 bits where they reach, for they are twice as fast to compute with."""
    return "int" if max(array.nbytes for array in arrays) < INT_REACH else "long long"


def address(array: Array) -> int:
    """Where the first element of an array lies in the memory of its device."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def vector_width(neighbours: int, *arrays: Array) -> int:
    """How many elements of each of these arrays a thread can load or store at once, 16 bytes of the widest type at most.

    Args:
        neighbours: Elements that lie side by side, in every array; vectors must not reach across their end.
        *arrays: The arrays. Where one of them begins at an odd address the vectors are smaller.
    """
    width = math.gcd(VECTOR_BYTES // max(array.dtype.itemsize for array in arrays), neighbours)
    for array in arrays:
        elements, rest = divmod(address(array), array.dtype.itemsize)  # before this array, in the memory
        width = 1 if rest else math.gcd(width, elements)
    return width


def ceil_div(numerator: int, denominator: int) -> int:
    """``numerator / denominator``, rounded up."""
    return -(-numerator // denominator)


@functools.cache
def _card(number: int) -> Runtime:
    import cupy

    with cupy.cuda.Device(number) as card:
        attributes = card.attributes
    return Runtime(
        f"cuda:{number}",
        cupy,
        load_on_card,
        cupy.ndarray,
        functools.partial(cupy.cuda.Device, number),
        int(card.compute_capability),
        attributes["MultiProcessorCount"],
        attributes["MaxSharedMemoryPerBlockOptin"],
    )


def load_on_card(*, code: str, options: tuple[str, ...] = OPTIONS, **arguments: Any) -> Any:
    """A ``cupy.RawModule`` that finds every header of CUDA, however CUDA was installed."""
    import cupy

    return cupy.RawModule(code=code, options=(*options, *_crt_options()), **arguments)


@functools.cache
def _crt_options() -> tuple[str, ...]:
    # mma.h includes crt/mma.h. Of CUDA 12 that lies in the wheel nvidia-cuda-nvcc-cu12, in a folder of its own.
    try:
        wheel = importlib.util.find_spec("nvidia.cuda_nvcc")
    except ModuleNotFoundError:
        return ()
    return tuple(f"-I{folder}/include" for folder in (wheel.submodule_search_locations or ())) if wheel else ()


@functools.cache
def _simulator() -> Runtime:
    from xpconv.cudasim import Module

    # A card of the smallest kind that has all that the kernels can use; tiles are chosen for it.
    return Runtime("cudasim", np, Module, np.ndarray, contextlib.nullcontext, 80, 8, 99 << 10)
