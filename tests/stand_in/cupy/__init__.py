"""A stand-in for CuPy, for tests of the ``cuda`` device where there is no card.

It has what xpconv uses of CuPy, computed on the host: kernels by the simulator, all else by NumPy. It keeps what NumPy in
CuPy's place would hide:

* An array never turns into a NumPy array by itself, mixes with none, and lives on one of two cards; what it is computed with
  must be there, too, and that card must be the current one.
* Results without axes are arrays. To read a value (``float``, ``bool``, ``get``) makes the host wait: that is counted in
  ``traffic``, and an error where ``traffic.forbid_waiting`` is in force.
* New memory holds rubbish. A copy on another stream happens when somebody waits for it, and takes then what the host's
  memory holds then.

The name of the package makes ``import cupy`` find it where this folder is on the path.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

__version__ = "14.0.0"


class Traffic:
    """What passed between the host and the cards, and how often the host waited.

    Attributes:
        uploads: Copies to a card.
        downloads: Copies to the host, and values read.
        launches: Name of every kernel that was launched.
    """

    def __init__(self) -> None:
        self.uploads = self.downloads = 0
        self.launches: list[str] = []
        self._forbidden = False

    @contextlib.contextmanager
    def forbid_waiting(self) -> Iterator[None]:
        """Make it an error to wait for a card."""
        before, self._forbidden = self._forbidden, True
        try:
            yield
        finally:
            self._forbidden = before

    def wait(self, what: str) -> None:
        if self._forbidden:
            raise AssertionError(f"{what} makes the host wait for the card")
        self.downloads += 1


traffic = Traffic()


class Flags(NamedTuple):
    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class ndarray:
    """An array on a card; ``_values`` is what only this file may touch."""

    __slots__ = ("__weakref__", "_values", "device")
    __hash__ = None

    def __init__(self, values: np.ndarray[Any, Any], device: Device) -> None:
        self._values, self.device = values, device

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    strides = property(lambda self: self._values.strides)
    T = property(lambda self: ndarray(self._values.T, self.device))
    real = property(lambda self: ndarray(self._values.real, self.device))
    imag = property(lambda self: ndarray(self._values.imag, self.device))
    data = property(lambda self: types.SimpleNamespace(ptr=self._values.ctypes.data, device_id=self.device.id))

    @property
    def flags(self) -> Flags:
        flags = self._values.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, flags.owndata)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<array of {self.dtype} and shape {self.shape} on {self.device}>"

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct one explicitly.")

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> Any:
        if function.__name__ not in _FUNCTIONS or any(kind is not ndarray for kind in kinds):
            raise TypeError(f"NumPy's {function.__name__} was called with an array of a card")
        return _FUNCTIONS[function.__name__](*arguments, **options)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, out: Any = (None,)) -> Any:
        if method != "__call__" or ufunc.__name__ not in _FUNCTIONS:
            raise TypeError(f"NumPy's {ufunc.__name__}.{method} was called with an array of a card")
        return _FUNCTIONS[ufunc.__name__](*operands, out=out[0])

    def get(self) -> np.ndarray[Any, Any]:
        traffic.wait("get()")
        return self._values.copy()

    def item(self) -> Any:
        traffic.wait("item()")
        return self._values.item()

    def __float__(self) -> float:
        traffic.wait("float()")
        return float(self._values)

    def __int__(self) -> int:
        traffic.wait("int()")
        return int(self._values)

    def __index__(self) -> int:
        traffic.wait("the use as an index")
        return operator.index(self._values[()])

    def __bool__(self) -> bool:
        traffic.wait("bool()")
        return bool(self._values)

    def set(self, values: Any, stream: Stream | None = None) -> None:
        if type(values) is not np.ndarray or values.dtype != self.dtype or values.shape != self.shape:
            raise TypeError(f"set() takes a NumPy array of {self.dtype} and shape {self.shape}, got {values!r}")
        traffic.uploads += 1
        (stream or get_current_stream()).copy(values, self._values)

    def copy(self) -> ndarray:  # to the current card
        return ndarray(self._values.copy(), _current.stack[-1])

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == dtype else _computed(np.ndarray.astype, self, dtype, order)

    def __getitem__(self, key: Any) -> ndarray:
        is_view = not any(isinstance(entry, (ndarray, list)) for entry in (key if isinstance(key, tuple) else (key,)))
        values = self._values if is_view else _on_host(self)
        return ndarray(np.asarray(values[_index(key)]), self.device)

    def __setitem__(self, key: Any, value: Any) -> None:
        _on_host(self)[_index(key)] = _on_host(value)


def _method_of(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *arguments, **options: _computed(function, self, *arguments, **options)


def _binary(name: str) -> Callable[..., Any]:
    function = getattr(operator, name)

    def forward(self: ndarray, other: Any) -> Any:
        return _computed(function, self, other)

    def reflected(self: ndarray, other: Any) -> Any:
        return _computed(lambda right, left: function(left, right), self, other)

    def in_place(self: ndarray, other: Any) -> ndarray:
        _computed(getattr(operator, f"i{name.strip('_')}"), self, other)
        return self

    return forward, reflected, in_place


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor"):
    _plain = _name.strip("_")
    for _prefix, _method in zip(("", "r", "i"), _binary(_name), strict=True):
        setattr(ndarray, f"__{_prefix}{_plain}__", _method)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(_name)[0])
for _name in ("neg", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _method_of(getattr(operator, _name)))

# CuPy's methods, with arguments that they have as NumPy's have them; a star stands for any number of positional ones.
_METHODS = {
    "all": "axis out keepdims",
    "any": "axis out keepdims",
    "argmax": "axis",
    "argmin": "axis",
    "clip": "min max out",
    "max": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "min": "axis out keepdims",
    "prod": "axis dtype out keepdims",
    "ravel": "order",
    "repeat": "repeats axis",
    "reshape": "* order",
    "round": "decimals out",
    "squeeze": "axis",
    "std": "axis dtype out ddof keepdims",
    "sum": "axis dtype out keepdims",
    "swapaxes": "axis1 axis2",
    "transpose": "*",
    "var": "axis dtype out ddof keepdims",
    "view": "dtype",
}


def _method_with(name: str, accepted: list[str]) -> Callable[..., Any]:
    function = getattr(np.ndarray, name)

    def method(self: ndarray, *arguments: Any, **options: Any) -> Any:
        _check_arguments(f"ndarray.{name}", accepted, arguments, options)
        return _computed(function, self, *arguments, **options)

    return method


def _check_arguments(name: str, accepted: list[str], arguments: Any, options: dict[str, Any]) -> None:
    unknown = options.keys() - set(accepted)
    if unknown or (len(arguments) > len(accepted) and "*" not in accepted):
        raise TypeError(f"CuPy's {name} has the arguments {accepted}, got {len(arguments)} and {sorted(options)}")


for _name, _accepted in _METHODS.items():
    setattr(ndarray, _name, _method_with(_name, _accepted.split()))


def _on_host(value: Any) -> Any:
    if isinstance(value, ndarray):
        if value.device != _current.stack[-1]:
            raise ValueError(f"an array on {value.device} is used while {_current.stack[-1]} is the current card")
        return value._values
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: an array of the host meets one of a card")
    if isinstance(value, (tuple, list)):
        return type(value)(_on_host(entry) for entry in value)
    return value


def _checked_operand(value: Any) -> Any:
    if not isinstance(value, (ndarray, bool, int, float, np.generic)):
        raise TypeError(f"Unsupported type {type(value)}: neither an array of a card nor a number")
    return value


def _index(key: Any) -> Any:
    host = _on_host(key)
    for entry in host if isinstance(host, tuple) else (host,):
        if isinstance(entry, np.ndarray) and entry.dtype.kind == "b":
            traffic.wait("a mask as an index")
    return host


def _computed(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    out = options.get("out")
    if out is not None and not isinstance(out, ndarray):
        raise TypeError(f"Argument 'out' has incorrect type (expected cupy.ndarray, got {type(out)})")
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):  # a card warns of nothing
        result = function(*map(_on_host, arguments), **{name: _on_host(value) for name, value in options.items()})
    return ndarray(np.asarray(result), _current.stack[-1]) if out is None else out


def _elementwise(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def ufunc(*operands: Any, out: ndarray | None = None, dtype: Any = None, casting: str = "same_kind") -> ndarray:
        count = getattr(function, "nin", len(operands))
        if len(operands) != count:
            raise TypeError(f"CuPy's {name} takes {count} arrays, and out= by its name here, got {len(operands)}")
        for operand in operands:
            _checked_operand(operand)
        options = {} if dtype is None else {"dtype": dtype}
        return _computed(function, *operands, out=out, casting=casting, **options)

    return ufunc


def _of_array(name: str, accepted: list[str]) -> Callable[..., Any]:
    function = getattr(np, name)

    def of_array(array: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(array, ndarray):
            raise TypeError(f"CuPy's {name} takes an array of a card first, got {type(array)}")
        _check_arguments(name, accepted, arguments, options)
        return _computed(function, array, *arguments, **options)

    return of_array


def _joining(name: str) -> Callable[..., Any]:
    def join(arrays: Any, axis: int = 0) -> ndarray:
        if not all(isinstance(array, ndarray) for array in arrays):
            raise TypeError(f"CuPy's {name} takes arrays of a card, got {[type(array) for array in arrays]}")
        return _computed(getattr(np, name), list(arrays), axis=axis)

    return join


def _making(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(_computed, function)


# CuPy's functions, by what they take.
_ELEMENTWISE = """abs absolute add bitwise_and bitwise_or bitwise_xor ceil cos cosh divide equal exp expm1 floor floor_divide
    greater greater_equal invert isfinite isinf isnan less less_equal log log10 log1p log2 logical_and logical_not logical_or
    maximum minimum multiply negative not_equal power reciprocal remainder rint sign signbit sin sinh sqrt square subtract tan
    tanh true_divide"""
_OF_ARRAY = {
    **{name: accepted for name, accepted in _METHODS.items() if name not in ("clip", "reshape", "transpose", "view")},
    "broadcast_to": "shape",
    "clip": "a_min a_max out",
    "count_nonzero": "axis",
    "cumsum": "axis dtype out",
    "expand_dims": "axis",
    "moveaxis": "source destination",
    "pad": "pad_width mode constant_values",
    "reshape": "newshape order",
    "take_along_axis": "indices axis",
    "transpose": "axes",
}
_MAKING = "arange asfortranarray full matmul ones ones_like zeros zeros_like"


def where(condition: ndarray, x: Any, y: Any) -> ndarray:
    """As CuPy's with all three arguments; with one it would wait."""
    if not isinstance(condition, ndarray):
        raise TypeError(f"CuPy's where takes a condition of a card, got {type(condition)}")
    return _computed(np.where, condition, _checked_operand(x), _checked_operand(y))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _elementwise(name, getattr(np, name)) for name in _ELEMENTWISE.split()},
    **{name: _of_array(name, accepted.split()) for name, accepted in _OF_ARRAY.items()},
    **{name: _joining(name) for name in ("concatenate", "stack")},
    **{name: _making(getattr(np, name)) for name in _MAKING.split()},
    "shape": lambda array: array.shape,
    "where": where,
}


def __getattr__(name: str) -> Callable[..., Any]:
    # Not by their names in here, where some are Python's own.
    try:
        return _FUNCTIONS[name]
    except KeyError:
        raise AttributeError(f"the stand-in for CuPy has no {name}") from None


def empty(shape: Any, dtype: Any = float) -> ndarray:
    made = np.empty(shape, dtype)
    made.view(np.uint8).fill(0xFF) if made.ndim and made.size else None  # NaN, or -1
    return ndarray(made, _current.stack[-1])


def empty_like(like: ndarray) -> ndarray:
    return empty(like.shape, like.dtype)


def asarray(x: Any, dtype: Any = None, order: str | None = None) -> ndarray:
    if not isinstance(x, ndarray):
        traffic.uploads += 1
        return ndarray(np.array(x, dtype=dtype, order=order), _current.stack[-1])
    if dtype is None and order is None:
        return x
    values = np.asarray(x._values, dtype=dtype, order=order)
    return x if values is x._values else ndarray(values, x.device)


def may_share_memory(a: ndarray, b: ndarray) -> bool:
    return np.may_share_memory(a._values, b._values)


def ascontiguousarray(x: Any, dtype: Any = None) -> ndarray:
    values = asarray(x, dtype)
    return values if values.flags.c_contiguous and values.ndim else ndarray(np.ascontiguousarray(values._values), values.device)


# ---- cupy.cuda ---------------------------------------------------------------------------------------------------------


class Device:
    def __init__(self, number: int) -> None:
        if not 0 <= number < cuda.runtime.getDeviceCount():
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = number
        self.compute_capability = "80"
        self.attributes = {"MultiProcessorCount": 8, "MaxSharedMemoryPerBlockOptin": 99 << 10}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def __enter__(self) -> Device:
        _current.stack.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        assert _current.stack.pop() is self


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.recorded: tuple[Stream, int] | None = None

    def synchronize(self) -> None:
        if self.recorded is not None:
            stream, position = self.recorded
            stream.catch_up(position)
            stream.known = max(stream.known, position)

    def happen(self) -> None:
        if self.recorded is not None:
            stream, position = self.recorded
            stream.catch_up(position)


class Stream:
    """The stream that computes does what it is given at once, any other one when somebody waits for it.

    That a stream waits for another one tells the host nothing: ``known`` counts what the host knows to be done. It may use the
    memory of a copy again only then.
    """

    def __init__(self, non_blocking: bool = False, at_once: bool = False) -> None:
        self.at_once, self.given, self.known, self._waiting = at_once, 0, 0, []
        self._read: dict[int, int] = {}

    def copy(self, source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> None:
        memory = (source if source.base is None else source.base).ctypes.data
        if not self.at_once:
            assert self._read.get(memory, 0) <= self.known, "memory of the host was used again that a copy may still read"
        self.do(lambda: np.copyto(target, source))
        self._read[memory] = self.given

    def do(self, work: Callable[[], None]) -> None:
        self.given += 1
        self._waiting.append(work)
        if self.at_once:
            self.catch_up(self.given)

    def catch_up(self, position: int) -> None:
        while self._waiting and self.given - len(self._waiting) < position:
            self._waiting.pop(0)()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.recorded = self, self.given
        return event

    def wait_event(self, event: Event) -> None:
        self.do(event.happen)

    def synchronize(self) -> None:
        traffic.wait("Stream.synchronize()")
        self.catch_up(self.given)
        self.known = self.given


_computing = Stream(at_once=True)


def get_current_stream() -> Stream:
    return _computing


class RawModule:
    """Compiles and runs by the simulator; see :class:`xpconv.cudasim.Module`."""

    def __init__(self, *, code: str, options: tuple[str, ...] = (), name_expressions: tuple[str, ...] | None = None) -> None:
        from xpconv import cudasim

        names = {} if name_expressions is None else {"name_expressions": name_expressions}
        self._module = cudasim.Module(code=code, options=options, **names)

    def get_function(self, name: str) -> Kernel:
        return Kernel(name, self._module.get_function(name) if name != "probe" else None)


class Kernel:
    def __init__(self, name: str, kernel: Any) -> None:
        self._name, self._kernel = name, kernel

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "max_dynamic_shared_size_bytes":
            setattr(self._kernel, name, value)
        else:
            super().__setattr__(name, value)

    def __call__(self, grid: Any, block: Any, arguments: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        traffic.launches.append(self._name)
        self._kernel(grid, block, tuple(map(_on_host, arguments)), shared_mem=shared_mem)


class CUDARuntimeError(RuntimeError):
    pass


class CompileException(Exception):
    pass


class OutOfMemoryError(MemoryError):
    pass


runtime = types.SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    is_hip=False,
    driverGetVersion=lambda: 13020,
    runtimeGetVersion=lambda: 13020,
    getDeviceCount=lambda: 2,
    getDeviceProperties=lambda number: {
        "name": b"Stand-in",
        "major": 8,
        "minor": 0,
        "totalGlobalMem": 2**34,
        "multiProcessorCount": 8,
    },
)
cuda = types.SimpleNamespace(
    Device=Device,
    Event=Event,
    Stream=Stream,
    compiler=types.SimpleNamespace(CompileException=CompileException),
    get_current_stream=get_current_stream,
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 2)),
    runtime=runtime,
)


class _Current(threading.local):
    """Every thread has a current card of its own."""

    def __init__(self) -> None:
        self.stack = [Device(0)]


_current = _Current()
