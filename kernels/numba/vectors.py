"""A little language of vectors: registers of numbers as values that a kernel computes with.

Numba knows scalars, and leaves it to LLVM to make vectors of the loops over them. Where LLVM would not, a kernel can say what
it means: a :class:`Vector` is a type of Numba's, held in one register, and each function below is one instruction or a few::

    zero = spread(0.0, real, real)                        zero in every lane
    tail = lanes_between(0, count, real)                  a mask: true in the first lanes
    total = plus(load_where(tail, place, zero), zero)     memory behind the mask is not touched
    store_where(tail, total, place)

How many lanes there are is settled by one dtype, ``real``: as many as a register holds of it. Indices that go with the real
numbers have as many lanes, in two registers if need be; so has a mask, a truth value for each lane. Addresses are int64 and
count bytes. Kernels that are one fixed piece of vector code are written with :class:`~intrinsics.VectorCode` instead,
which this language is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

from xpconv.kernels.numba.compiler import inline
from xpconv.kernels.numba.intrinsics import INT32, INT64, Value, VectorCode, lane_count
from xpconv.kernels.numba.target import lanes as lanes_of

_ELEMENTS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: INT32,
    types.int64: INT64,
    types.boolean: ir.IntType(1),
}
# How LLVM spells an element in the names of its functions, and its size in bytes.
_SPELLING = {"float": ("f32", 4), "double": ("f64", 8), "i32": ("i32", 4), "i64": ("i64", 8)}


class Vector(types.Type):  # type: ignore[misc]
    """A register of numbers, or of the truth values that choose between numbers."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_ELEMENTS[vector.element], vector.lanes))


def _vector_of(element: Any, real: Any) -> Vector:
    return Vector(element, lanes_of(np.dtype(str(real))))


def _code(builder: Any, vector: Any) -> VectorCode:
    # Loads, stores and broadcasts are the same for integers as for floating-point numbers of their size.
    size = _SPELLING[str(vector.element)][1]
    code = VectorCode(builder, types.float32 if size == 4 else types.float64, vector.count)
    code.type = vector
    return code


def _constant(element: Any, values: Any) -> Value:
    constants = [element(value) for value in values]
    return ir.Constant(ir.VectorType(element, len(constants)), constants)


def _call(builder: Any, name: str, result: Any, *arguments: Value, **options: Any) -> Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments, **options)


def _suffix(vector: Any) -> str:
    return f"v{vector.count}{_SPELLING[str(vector.element)][0]}"


# ---- memory ------------------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[misc]
def load(typing_context, address, like):  # type: ignore[no-untyped-def]
    """The elements at an address, as a vector of the type of another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, like = arguments
        return _code(builder, like.type).load(address)

    return like(address, like), generate


@intrinsic  # type: ignore[misc]
def load_where(typing_context, mask, address, otherwise):  # type: ignore[no-untyped-def]
    """As :func:`load`, but only where the mask says so; memory elsewhere is not looked at."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, address, otherwise = arguments
        vector, size = otherwise.type, INT32(_code(builder, otherwise.type).itemsize)
        place = builder.inttoptr(address, vector.as_pointer())
        return _call(builder, f"llvm.masked.load.{_suffix(vector)}.p0", vector, place, size, mask, otherwise)

    return otherwise(mask, address, otherwise), generate


@intrinsic  # type: ignore[misc]
def gather_where(typing_context, mask, address, stride, otherwise):  # type: ignore[no-untyped-def]
    """As :func:`load_where`, of elements that lie ``stride`` elements apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, address, stride, otherwise = arguments
        vector, count = otherwise.type, otherwise.type.count
        code = _code(builder, vector)
        offsets = builder.mul(_constant(INT64, range(count)), code.broadcast(stride, ir.VectorType(INT64, count)))
        bytes_of_offsets = builder.mul(offsets, _constant(INT64, [code.itemsize] * count))
        places = builder.add(code.broadcast(address, offsets.type), bytes_of_offsets)
        pointers = builder.inttoptr(places, ir.VectorType(vector.element.as_pointer(), count))
        name = f"llvm.masked.gather.{_suffix(vector)}.v{count}p0"
        return _call(builder, name, vector, pointers, INT32(code.itemsize), mask, otherwise)

    return otherwise(mask, address, stride, otherwise), generate


@intrinsic  # type: ignore[misc]
def store(typing_context, vector, address):  # type: ignore[no-untyped-def]
    """Write all lanes to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, address = arguments
        _code(builder, value.type).store(value, address)
        return context.get_dummy_value()

    return types.void(vector, address), generate


@intrinsic  # type: ignore[misc]
def store_where(typing_context, mask, vector, address):  # type: ignore[no-untyped-def]
    """Write the lanes that the mask names."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, value, address = arguments
        place, size = builder.inttoptr(address, value.type.as_pointer()), INT32(_code(builder, value.type).itemsize)
        _call(builder, f"llvm.masked.store.{_suffix(value.type)}.p0", ir.VoidType(), value, place, size, mask)
        return context.get_dummy_value()

    return types.void(mask, vector, address), generate


@intrinsic  # type: ignore[misc]
def prefetch(typing_context, address):  # type: ignore[no-untyped-def]
    """Ask for the cache line at an address, which need not be memory."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), place, INT32(0), INT32(3), INT32(1))
        return context.get_dummy_value()

    return types.void(address), generate


# ---- vectors made of scalars -------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[misc]
def spread(typing_context, value, element, real):  # type: ignore[no-untyped-def]
    """The same value in every lane."""
    result = _vector_of(element.dtype, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], result.element)
        return _code(builder, context.get_value_type(result)).broadcast(value)

    return result(value, element, real), generate


@intrinsic  # type: ignore[misc]
def count_up(typing_context, start, step, real):  # type: ignore[no-untyped-def]
    """``start + step * lane``, as int64."""
    result = _vector_of(types.int64, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _code(builder, context.get_value_type(result))
        start, step = (code.broadcast(argument) for argument in arguments[:2])
        return builder.add(start, builder.mul(_constant(INT64, range(result.lanes)), step))

    return result(types.int64, types.int64, real), generate


@intrinsic  # type: ignore[misc]
def lanes_between(typing_context, begin, end, real):  # type: ignore[no-untyped-def]
    """Mask of the lanes ``begin <= lane < end``; both may lie anywhere."""
    result = _vector_of(types.boolean, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = _constant(INT32, range(result.lanes))
        code = _code(builder, numbers.type)

        def bound(value: Value) -> Value:
            value = builder.select(builder.icmp_signed("<", value, INT64(0)), INT64(0), value)
            value = builder.select(builder.icmp_signed(">", value, INT64(result.lanes)), INT64(result.lanes), value)
            return code.broadcast(builder.trunc(value, INT32))

        from_begin = builder.icmp_signed(">=", numbers, bound(arguments[0]))
        return builder.and_(from_begin, builder.icmp_signed("<", numbers, bound(arguments[1])))

    return result(types.int64, types.int64, real), generate


# ---- some lanes of a vector ------------------------------------------------------------------------------------------


@inline
def load_between(begin: int, end: int, address: int, otherwise: Any, real: Any) -> Any:
    """The lanes ``begin <= lane < end``; no mask is made where these are all."""
    if begin <= 0 and end >= lane_count(real):
        return load(address, otherwise)
    return load_where(lanes_between(begin, end, real), address, otherwise)


@inline
def store_between(begin: int, end: int, vector: Any, address: int, real: Any) -> None:
    """Write the lanes ``begin <= lane < end``; no mask is made where these are all."""
    if begin <= 0 and end >= lane_count(real):
        store(vector, address)
    else:
        store_where(lanes_between(begin, end, real), vector, address)


# ---- vectors made of vectors -------------------------------------------------------------------------------------------


def _instruction(result: Callable[..., Vector]) -> Callable[[Callable[..., Value]], Any]:
    """Make an intrinsic of ``generate(builder, *values)``, of one to three vectors; ``result`` gives the type of its result."""

    def decorate(generate: Callable[..., Value]) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return generate(builder, *arguments)

        def of_one(typing_context, a):  # type: ignore[no-untyped-def]
            return result(a)(a), code

        def of_two(typing_context, a, b):  # type: ignore[no-untyped-def]
            return result(a, b)(a, b), code

        def of_three(typing_context, a, b, c):  # type: ignore[no-untyped-def]
            return result(a, b, c)(a, b, c), code

        return intrinsic({1: of_one, 2: of_two, 3: of_three}[generate.__code__.co_argcount - 1])

    return decorate


def _same(vector: Vector, *_: Vector) -> Vector:
    return vector


def _mask(vector: Vector, *_: Vector) -> Vector:
    return Vector(types.boolean, vector.lanes)


@_instruction(_same)
def plus(builder: Any, a: Value, b: Value) -> Value:
    """Sum of two vectors of numbers, or of integers."""
    return builder.add(a, b) if isinstance(a.type.element, ir.IntType) else builder.fadd(a, b)


@_instruction(_same)
def times(builder: Any, a: Value, b: Value) -> Value:
    """Product of two vectors."""
    return builder.fmul(a, b)


@_instruction(_same)
def over(builder: Any, a: Value, b: Value) -> Value:
    """Quotient of two vectors."""
    return builder.fdiv(a, b)


@_instruction(_same)
def larger(builder: Any, a: Value, b: Value) -> Value:
    """The larger of two numbers; NaN where either is NaN."""
    # Without regard to the sign of zero ("nsz") it takes two instructions less.
    return _call(builder, f"llvm.maximum.{_suffix(a.type)}", a.type, a, b, fastmath=("nsz",))


@_instruction(_mask)
def beats(builder: Any, value: Value, best: Value) -> Value:
    """Whether a value replaces the best so far: it is greater, or the first NaN."""
    first_nan = builder.and_(builder.fcmp_unordered("uno", value, value), builder.fcmp_ordered("ord", best, best))
    return builder.or_(builder.fcmp_ordered(">", value, best), first_nan)


@_instruction(_mask)
def equal(builder: Any, a: Value, b: Value) -> Value:
    """Whether two integers are equal."""
    return builder.icmp_signed("==", a, b)


@_instruction(lambda mask, a, b: a)
def choose(builder: Any, mask: Value, a: Value, b: Value) -> Value:
    """``a`` where the mask is set, ``b`` elsewhere."""
    return builder.select(mask, a, b)


@_instruction(lambda a: Vector(types.int64, a.lanes))
def widened(builder: Any, a: Value) -> Value:
    """Integers as int64."""
    wide = ir.VectorType(INT64, a.type.count)
    return a if a.type == wide else builder.sext(a, wide)


def _shuffle(lanes_of_result: Callable[[int], Any]) -> Any:
    def generate(builder: Any, a: Value, b: Value) -> Value:
        return builder.shuffle_vector(a, b, _constant(INT32, lanes_of_result(a.type.count)))

    return _instruction(_same)(generate)


def _woven(count: int) -> list[int]:
    return [lane + which * count for lane in range(count) for which in (0, 1)]


# Of two vectors in a row: elements 0, 2, 4, ...; elements 1, 3, 5, ...
evens = _shuffle(lambda count: range(0, 2 * count, 2))
odds = _shuffle(lambda count: range(1, 2 * count, 2))
# The way back: the first and the second half of a0 b0 a1 b1 a2 b2 ...
woven_low = _shuffle(lambda count: _woven(count)[:count])
woven_high = _shuffle(lambda count: _woven(count)[count:])
