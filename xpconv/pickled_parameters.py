"""A reader of the one kind of pickle that the book's programs write: a dictionary of NumPy arrays.

``pickle.load`` does what the file says: it imports, calls, and hands bytes of the file to NumPy's own unpickling, which
trusts them. Not so here. The opcodes are only read, by ``pickletools.genops``, and the few that such a file consists of
are carried out below, on a stack that can hold texts, bytes, numbers, tuples, dictionaries with texts as keys, and the
small classes of this module. A global is not looked up but compared with a list of ten names; "calling" one fills in a
description of an array, checked against the bytes at hand; the arrays are made last, by ``np.frombuffer``. Memory and
time grow with the size of the file, whatever it claims.

``python -m pickletools params.pkl`` shows what such a file looks like; ``ndarray.__reduce__`` and ``dtype.__reduce__``
tell what the numbers in it mean.
"""

import math
import pickletools
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpconv.errors import ParameterFileError
from xpconv.files import array_from_bytes

_MAX_PROTOCOL = 5
_MAX_DIMENSIONS = 64  # NumPy's
_DTYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})


class _Global:
    """A name that such a file may mention; it stands for itself and can do nothing."""

    def __init__(self, name: str) -> None:
        self.name = name


_NDARRAY = _Global("ndarray")
_DTYPE = _Global("dtype")
_RECONSTRUCT = _Global("_reconstruct")
_FROMBUFFER = _Global("_frombuffer")
_ENCODE = _Global("encode")
_BYTES = _Global("bytes")
_ORDERED_DICT = _Global("OrderedDict")

_GLOBALS = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _DTYPE,
    "numpy.core.multiarray._reconstruct": _RECONSTRUCT,  # NumPy 1
    "numpy._core.multiarray._reconstruct": _RECONSTRUCT,  # NumPy 2
    "numpy.core.numeric._frombuffer": _FROMBUFFER,  # protocol 5
    "numpy._core.numeric._frombuffer": _FROMBUFFER,
    "_codecs.encode": _ENCODE,  # bytes, in protocols 0 to 2
    "builtins.bytes": _BYTES,  # no bytes, in protocols 0 to 2
    "__builtin__.bytes": _BYTES,
    "collections.OrderedDict": _ORDERED_DICT,
}


class _Latin1:
    """Bytes that the file gives as text; encoded once it is known that they are wanted."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text)


class _Dtype:
    def __init__(self, code: str) -> None:
        self.code = code
        self.byte_order: str | None = None  # told by BUILD

    def set_state(self, state: Any) -> None:
        # (version, byte order, sub-array, names, fields, item size, alignment, flags); all but the byte order are
        # fixed for a plain number, and NumPy takes what is told there at its word: object flags, offsets, sizes.
        plain = (None, None, None, -1, -1, 0)
        if self.byte_order is not None or not isinstance(state, tuple) or state[0:1] != (3,) or state[2:] != plain:
            raise ValueError("a dtype that isn't a plain number's")
        if not isinstance(state[1], str) or state[1] not in ("<", ">", "|"):
            raise ValueError("a dtype without a byte order")
        self.byte_order = state[1]

    def to_numpy(self) -> np.dtype[Any]:
        if self.byte_order is None:
            raise ValueError("a dtype without a byte order")
        return np.dtype(self.code).newbyteorder(self.byte_order)  # type: ignore[arg-type]


class _Array:
    """An array, described but not made."""

    def __init__(self) -> None:
        self.content: _Content | None = None  # told by BUILD
        self._made: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        if self.content is not None:
            raise ValueError("an array that is filled twice")
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or state[3] not in (False, True):
            raise ValueError("an array whose state is not (1, shape, dtype, Fortran order, bytes)")
        _, shape, dtype, fortran_order, data = state
        self.content = _content(data, dtype, shape, "F" if fortran_order else "C")

    def to_numpy(self) -> NDArray[Any]:
        """Make the array; the second time, give the same one."""
        assert self.content is not None
        if self._made is None:
            data, dtype, shape, order, axes = self.content
            data = data.text.encode("latin1") if isinstance(data, _Latin1) else data
            if order == "K":
                self._made = array_from_bytes(data, dtype, shape).transpose(axes).copy(order="C")
            else:
                self._made = array_from_bytes(data, dtype, shape, order)
        return self._made


class _Content(NamedTuple):
    data: bytes | bytearray | _Latin1
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F", "K"]
    axes: tuple[int, ...] | None  # with order K: the array is `shape`, transposed by these


def _content(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Content:
    if not isinstance(data, bytes | bytearray | _Latin1):
        raise ValueError("an array without bytes (of objects, perhaps)")
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without a dtype")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise ValueError("an array with an impossible shape")
    if order == "K":
        if not isinstance(axes, tuple) or not all(map(_is_size, axes)) or sorted(axes) != list(range(len(shape))):
            raise ValueError("an array with an impossible order of its axes")
    elif order not in ("C", "F") or axes is not None:
        raise ValueError("an array in an unknown order")
    expected = math.prod(shape) * dtype.to_numpy().itemsize
    if len(data) != expected:
        raise ValueError(f"an array of shape {shape}, {dtype.to_numpy()}, takes {expected} bytes, but {len(data)} are there")
    return _Content(data, dtype.to_numpy(), shape, order, axes)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


_MARK = object()


class _Machine:
    """Carries out the opcodes of one file."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("an opcode that finds nothing to work on")
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self.pop() for _ in range(count)]))

    def pop_to_mark(self) -> tuple[Any, ...]:
        values = []
        while self.stack and self.stack[-1] is not _MARK:
            values.append(self.stack.pop())
        if not self.stack:
            raise ValueError("an opcode that finds no mark")
        self.stack.pop()
        return tuple(reversed(values))

    def top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value

    def step(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "PROTO":
                if argument > _MAX_PROTOCOL:
                    raise ValueError(f"pickle protocol {argument}; 0 to {_MAX_PROTOCOL} can be read")
            case "FRAME" | "STOP":
                pass
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(opcode == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                self.stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                self.stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                self.stack.append(argument)
            case "MARK":
                self.stack.append(_MARK)
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(self.pop_many(int(opcode[-1])))
            case "TUPLE":
                self.stack.append(self.pop_to_mark())
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                items = self.pop_to_mark()
                self.stack.append({})
                self.set_items(items)
            case "SETITEM":
                self.set_items(self.pop_many(2))
            case "SETITEMS":
                self.set_items(self.pop_to_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError(f"a reference to number {argument}, which was never stored")
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(_find_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self.stack.append(_find_global(*self.pop_many(2)))
            case "REDUCE":
                self.stack.append(_call(*self.pop_many(2)))
            case "BUILD":
                state = self.pop()
                target = self.top()
                if not isinstance(target, _Array | _Dtype):
                    raise ValueError("a state for what has none")
                target.set_state(state)
            case _:
                raise ValueError(f"the opcode {opcode}, which no such dictionary needs")

    def set_items(self, items: tuple[Any, ...]) -> None:
        target = self.top()
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            target[key] = value


def _find_global(module: Any, name: Any) -> _Global:
    asked = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
    if asked not in _GLOBALS:
        raise ValueError(f"it asks for {_shortened(asked)}, which no such dictionary needs")
    return _GLOBALS[asked]


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise ValueError("a call of what is no function")
    if function is _RECONSTRUCT and len(arguments) == 3 and arguments[0] is _NDARRAY:
        return _Array()
    if function is _FROMBUFFER and len(arguments) in (4, 5):
        array = _Array()
        array.content = _content(*arguments)
        return array
    if function is _DTYPE and len(arguments) == 3 and isinstance(arguments[0], str):
        if arguments[0] not in _DTYPES:
            raise ValueError(f"an array of dtype {_shortened(arguments[0])}; bool, integers and floats can be read")
        return _Dtype(arguments[0])
    if function is _ENCODE and len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return _Latin1(arguments[0])
    if function is _BYTES and arguments == ():
        return b""
    if function is _ORDERED_DICT and arguments == ():
        return {}
    raise ValueError(f"a call of {function.name} with unusual arguments")


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def read_pickled_parameters(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    """Read a pickled dictionary of NumPy arrays.

    Args:
        content: the whole file.
        name: of the file, for the error texts.

    Returns:
        The arrays by name, new and writable, in the machine's byte order. Arrays that were one when they were saved are
        one again.

    Raises:
        ParameterFileError: the content is anything else.

    Example:
        >>> import pickle
        >>> from xpconv.pickled_parameters import read_pickled_parameters
        >>> read_pickled_parameters(pickle.dumps({"b1": eval}), "params.pkl")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        xpconv.errors.ParameterFileError: params.pkl is not a pickled ... arrays: it asks for 'builtins.eval', ...
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is no pickle can look like a text with odd escapes
            return _read(content)
    except ValueError as error:  # of this module, and of pickletools for what is no pickle or only a part of one
        raise ParameterFileError(f"{name} is not a pickled dictionary of NumPy arrays: {error}") from error


def _read(content: bytes) -> dict[str, NDArray[Any]]:
    machine = _Machine()
    stop = None
    for opcode, argument, position in pickletools.genops(content):  # it ends with the first STOP, and wants one
        machine.step(opcode.name, argument)
        stop = position
    if stop != len(content) - 1:
        raise ValueError("bytes follow the end of the pickle")
    result = machine.pop()
    if machine.stack or not isinstance(result, dict):
        raise ValueError("its content is no dictionary")
    for key, value in result.items():
        if not isinstance(value, _Array) or value.content is None:
            raise ValueError(f"{_shortened(key)} is no array")
    # Many arrays may name the same bytes: harmless in the file, but each would be given memory of its own.
    if sum(len(array.content.data) for array in set(result.values())) > len(content):
        raise ValueError("its arrays take more bytes than the file has")
    return {key: array.to_numpy() for key, array in result.items()}
