"""Pooling in registers: the windows of a whole vector of outputs are read together, tap by tap.

The lanes of a vector are neighbouring outputs. With ``channels_first`` they lie side by side in a row of the image, and the
values that one tap sees are ``stride`` apart::

      window 3, stride 2       x   0   1   2   3   4   5   6   7   8
                             tap 0 |       |       |       |                  even places from 0 on
                             tap 1     |       |       |       |              odd places
                             tap 2         |       |       |       |          even places from 2 on
                                 lane  0       1       2       3

With ``channels_last`` they are the channels of one pixel, which lie side by side whatever the stride. No padded image is
ever built: where a vector sticks out of the image its loads are masked. In the same way the gradients are gathered, a vector
of pixels at a time from all windows that cover it, so that every page of a result is touched once.

Numba has no vectors. Those of this file are a type of its own, held in a register, with a handful of instructions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

from xpconv.geometry import Window2d, batch_shape
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.intrinsics import INT32, INT64, pointer
from xpconv.kernels.numba.memory import Array, address, empty
from xpconv.kernels.numba.target import lanes as lanes_of
from xpconv.kernels.numba.threads import run, run_with_scratch, thread_count

# What becomes of the values in a window.
MAXIMUM, MAXIMUM_AND_PLACE, MEAN = range(3)
# How much of a result is scattered to at a time, small enough to stay in the cache.
SCATTERED_BYTES = 128 << 10
# How far before it is read memory is asked for.
BYTES_AHEAD = 8 << 10
# Below this a second thread costs more than it does.
ELEMENTS_WORTH_A_THREAD = 20_000


# ---- vectors -----------------------------------------------------------------------------------------------------------


class Vector(types.Type):  # type: ignore[misc]
    """A register of numbers, or of the truth values that choose between numbers."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")


_ELEMENTS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: INT32,
    types.int64: INT64,
    types.boolean: ir.IntType(1),
}


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_ELEMENTS[vector.element], vector.lanes))


def _of(element: Any, real: Any) -> Vector:
    # As many lanes as a register holds of the real numbers, whatever the elements are.
    return Vector(element, lanes_of(np.dtype(str(real))))


def _mask(vector: Vector, *_: Any) -> Vector:
    return Vector(types.boolean, vector.lanes)


def _same(vector: Vector, *_: Any) -> Vector:
    return vector


def _constant(vector: Any, values: Any) -> Any:
    return ir.Constant(vector, [vector.element(value) for value in values])


def _broadcast(builder: Any, scalar: Any, count: int) -> Any:
    vector = ir.VectorType(scalar.type, count)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, INT32(0))
    return builder.shuffle_vector(first, first, _constant(ir.VectorType(INT32, count), [0] * count))


def _call(builder: Any, name: str, result: Any, *arguments: Any, **options: Any) -> Any:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments, **options)


def _suffix(vector: Any) -> str:
    letter = {"float": "f32", "double": "f64"}.get(str(vector.element), str(vector.element))
    return f"v{vector.count}{letter}"


def _itemsize(vector: Any) -> int:
    return {"float": 4, "double": 8, "i32": 4, "i64": 8}[str(vector.element)]


def _instruction(result: Callable[..., Vector]) -> Callable[[Callable[..., Any]], Any]:
    """Make an intrinsic of ``generate(builder, *values)``, of one to three vectors; ``result`` gives the type of its result."""

    def decorate(generate: Callable[..., Any]) -> Any:
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


@intrinsic  # type: ignore[misc]
def load(typing_context, address, element, real):  # type: ignore[no-untyped-def]
    """The elements at an address, as many as a register has lanes for ``real``."""
    result = _of(element.dtype, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(result)
        value = builder.load(builder.inttoptr(arguments[0], vector.as_pointer()))
        value.align = _itemsize(vector)
        return value

    return result(address, element, real), generate


@intrinsic  # type: ignore[misc]
def load_where(typing_context, mask, address, otherwise):  # type: ignore[no-untyped-def]
    """As :func:`load`, but only where the mask says so; memory elsewhere is not looked at."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, address, otherwise = arguments
        vector = otherwise.type
        pointer = builder.inttoptr(address, vector.as_pointer())
        name = f"llvm.masked.load.{_suffix(vector)}.p0"
        return _call(builder, name, vector, pointer, INT32(_itemsize(vector)), mask, otherwise)

    return otherwise(mask, address, otherwise), generate


@intrinsic  # type: ignore[misc]
def gather_where(typing_context, mask, address, stride, otherwise):  # type: ignore[no-untyped-def]
    """As :func:`load_where`, of elements that lie ``stride`` elements apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, address, stride, otherwise = arguments
        vector, count = otherwise.type, otherwise.type.count
        numbers = _constant(ir.VectorType(INT64, count), range(count))
        step = builder.mul(stride, INT64(_itemsize(vector)))
        places = builder.add(_broadcast(builder, address, count), builder.mul(numbers, _broadcast(builder, step, count)))
        pointers = builder.inttoptr(places, ir.VectorType(vector.element.as_pointer(), count))
        name = f"llvm.masked.gather.{_suffix(vector)}.v{count}p0"
        return _call(builder, name, vector, pointers, INT32(_itemsize(vector)), mask, otherwise)

    return otherwise(mask, address, stride, otherwise), generate


@intrinsic  # type: ignore[misc]
def store(typing_context, vector, address):  # type: ignore[no-untyped-def]
    """Write all lanes to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, address = arguments
        instruction = builder.store(value, builder.inttoptr(address, value.type.as_pointer()))
        instruction.align = _itemsize(value.type)
        return context.get_dummy_value()

    return types.void(vector, address), generate


@intrinsic  # type: ignore[misc]
def store_where(typing_context, mask, vector, address):  # type: ignore[no-untyped-def]
    """Write the lanes that the mask names."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask, value, address = arguments
        pointer = builder.inttoptr(address, value.type.as_pointer())
        name = f"llvm.masked.store.{_suffix(value.type)}.p0"
        _call(builder, name, ir.VoidType(), value, pointer, INT32(_itemsize(value.type)), mask)
        return context.get_dummy_value()

    return types.void(mask, vector, address), generate


@intrinsic  # type: ignore[misc]
def spread(typing_context, value, element, real):  # type: ignore[no-untyped-def]
    """The same value in every lane."""
    result = _of(element.dtype, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], result.element)
        return _broadcast(builder, value, result.lanes)

    return result(value, element, real), generate


@intrinsic  # type: ignore[misc]
def count_up(typing_context, start, step, real):  # type: ignore[no-untyped-def]
    """``start + step * lane``, as int64."""
    result = _of(types.int64, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, step = (_broadcast(builder, argument, result.lanes) for argument in arguments[:2])
        numbers = _constant(ir.VectorType(INT64, result.lanes), range(result.lanes))
        return builder.add(start, builder.mul(numbers, step))

    return result(types.int64, types.int64, real), generate


@intrinsic  # type: ignore[misc]
def lanes_between(typing_context, begin, end, real):  # type: ignore[no-untyped-def]
    """Mask of the lanes ``begin <= lane < end``; both may lie anywhere."""
    result = _of(types.boolean, real.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = result.lanes
        numbers = _constant(ir.VectorType(INT32, lanes), range(lanes))

        def bound(value: Any) -> Any:
            value = builder.select(builder.icmp_signed("<", value, INT64(0)), INT64(0), value)
            value = builder.select(builder.icmp_signed(">", value, INT64(lanes)), INT64(lanes), value)
            return _broadcast(builder, builder.trunc(value, INT32), lanes)

        from_begin = builder.icmp_signed(">=", numbers, bound(arguments[0]))
        return builder.and_(from_begin, builder.icmp_signed("<", numbers, bound(arguments[1])))

    return result(types.int64, types.int64, real), generate


@intrinsic  # type: ignore[misc]
def prefetch(typing_context, address):  # type: ignore[no-untyped-def]
    """Ask for the cache line at an address, which need not be memory."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, INT32(0), INT32(3), INT32(1))
        return context.get_dummy_value()

    return types.void(address), generate


@_instruction(_same)
def larger(builder: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers; NaN where either is NaN."""
    # Without regard to the sign of zero ("nsz") it takes two instructions less.
    return _call(builder, f"llvm.maximum.{_suffix(a.type)}", a.type, a, b, fastmath=("nsz",))


@_instruction(_mask)
def beats(builder: Any, value: Any, best: Any) -> Any:
    """Whether a value replaces the best so far: it is greater, or the first NaN."""
    first_nan = builder.and_(builder.fcmp_unordered("uno", value, value), builder.fcmp_ordered("ord", best, best))
    return builder.or_(builder.fcmp_ordered(">", value, best), first_nan)


@_instruction(_same)
def plus(builder: Any, a: Any, b: Any) -> Any:
    """Sum of two vectors of numbers, or of integers."""
    return builder.add(a, b) if isinstance(a.type.element, ir.IntType) else builder.fadd(a, b)


@_instruction(_same)
def times(builder: Any, a: Any, b: Any) -> Any:
    """Product of two vectors."""
    return builder.fmul(a, b)


@_instruction(_same)
def over(builder: Any, a: Any, b: Any) -> Any:
    """Quotient of two vectors."""
    return builder.fdiv(a, b)


@_instruction(_mask)
def equal(builder: Any, a: Any, b: Any) -> Any:
    """Whether two integers are equal."""
    return builder.icmp_signed("==", a, b)


@_instruction(_mask)
def negative(builder: Any, a: Any) -> Any:
    """Whether an integer is below zero."""
    return builder.icmp_signed("<", a, ir.Constant(a.type, None))


@_instruction(_same)
def either(builder: Any, a: Any, b: Any) -> Any:
    """Where one of two masks is set."""
    return builder.or_(a, b)


@_instruction(_same)
def both(builder: Any, a: Any, b: Any) -> Any:
    """Where both masks are set."""
    return builder.and_(a, b)


@_instruction(lambda mask, a, b: a)
def choose(builder: Any, mask: Any, a: Any, b: Any) -> Any:
    """``a`` where the mask is set, ``b`` elsewhere."""
    return builder.select(mask, a, b)


@_instruction(lambda a: Vector(types.int64, a.lanes))
def widened(builder: Any, a: Any) -> Any:
    """Integers as int64."""
    wide = ir.VectorType(INT64, a.type.count)
    return a if a.type == wide else builder.sext(a, wide)


@_instruction(_same)
def evens(builder: Any, a: Any, b: Any) -> Any:
    """Elements 0, 2, 4, ... of two vectors in a row."""
    count = a.type.count
    return builder.shuffle_vector(a, b, _constant(ir.VectorType(INT32, count), range(0, 2 * count, 2)))


@_instruction(_same)
def odds(builder: Any, a: Any, b: Any) -> Any:
    """Elements 1, 3, 5, ... of two vectors in a row."""
    count = a.type.count
    return builder.shuffle_vector(a, b, _constant(ir.VectorType(INT32, count), range(1, 2 * count, 2)))


def _woven(half: int) -> Callable[[Any, Any, Any], Any]:
    def generate(builder: Any, a: Any, b: Any) -> Any:
        count = a.type.count
        order = [lane + which * count for lane in range(count) for which in (0, 1)]
        return builder.shuffle_vector(a, b, _constant(ir.VectorType(INT32, count), order[half * count :][:count]))

    return generate


woven_low = _instruction(_same)(_woven(0))  # a0 b0 a1 b1 ..., the first half of it
woven_high = _instruction(_same)(_woven(1))


# ---- what the kernels share ---------------------------------------------------------------------------------------------


@inline
def taps_inside(start: int, taps: int, dilation: int, size: int) -> tuple[int, int]:
    """The first tap of a window along one axis that lies inside the image, and the last + 1."""
    first = 0 if start >= 0 else (dilation - 1 - start) // dilation
    last = taps if start + (taps - 1) * dilation < size else (size - start + dilation - 1) // dilation
    return first, last


@inline
def windows_over(pixel: int, span: int, stride: int, outputs: int) -> tuple[int, int]:
    """The first window along one axis that reaches a pixel, counted from the start of the padding, and the last + 1."""
    first = 0 if pixel < span else (pixel - span) // stride + 1
    return first, min(outputs, pixel // stride + 1)


@inline
def prefetch_rows(start: int, size: int) -> None:
    """Ask for memory that will be read soon.

    Windows that overlap read several rows of one page in turns, a pattern that no processor foresees: of 3x3 windows with
    stride 2, asking doubles the speed.
    """
    for place in range(start + BYTES_AHEAD, start + BYTES_AHEAD + size, 64):
        prefetch(place)


@inline
def lanes_before(elements: int, spacing: int) -> int:
    """How many lanes lie before an element, where they are ``spacing`` elements apart and lane 0 is element 0."""
    return (elements + spacing - 1) // spacing if elements > 0 else 0


@inline
def store_first(count: int, vector: Any, target: int, lanes: int, real: Any) -> None:
    """Write the first ``count`` lanes."""
    if count >= lanes:
        store(vector, target)
    else:
        store_where(lanes_between(0, count, real), vector, target)


@inline
def store_row(even: Any, odd: Any, row: int, column: int, width: int, step: int, lanes: int, size: int, real: Any) -> None:
    """Write a vector of pixels from ``column`` on, or with a step of 2 two vectors woven together, as far as the row goes."""
    if step == 1:
        store_inside(even, row, column, width, lanes, size, real)
    else:
        store_inside(woven_low(even, odd), row, column, width, lanes, size, real)
        store_inside(woven_high(even, odd), row, column + lanes, width, lanes, size, real)


@inline
def store_inside(vector: Any, row: int, column: int, width: int, lanes: int, size: int, real: Any) -> None:
    """Write the lanes that lie inside a row, lane 0 at ``column``."""
    if column >= 0 and column + lanes <= width:
        store(vector, row + column * size)
    else:
        store_where(lanes_between(-column, width - column, real), vector, row + column * size)


# ---- forward -----------------------------------------------------------------------------------------------------------


class _Forward(Arguments):
    x: int
    x_end: int
    y: int
    indices: int
    row_counts: int
    column_counts: int
    planes: int
    height: int
    width: int
    row: int
    channels: int
    output_height: int
    groups: int
    outputs: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    top: int
    left: int


@functools.cache
def _forward(real: Any, reduction: int, step: int, by_channel: int, taps: int, place: Any) -> CompiledFunction:
    """Every output: vectors of ``outputs`` that lie side by side, ``groups`` times in each row of outputs.

    Args:
        real: Dtype.
        reduction: What becomes of the values in a window.
        step: Elements of x between one output and the next; 0 where that is to be read from ``stride_width``.
        by_channel: Whether the outputs of a group are the channels of a pixel; else they are a row of pixels.
        taps: Width of the window, 0 where that is to be read from ``kernel_width``.
        place: Dtype that holds a position in an image.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_Forward)
    def forward(worker: int, workers: int, a: Any) -> None:
        lines = a.planes * a.output_height
        spacing = a.stride_width if step == 0 else step
        kernel_width = a.kernel_width if taps == 0 else taps
        pitch = a.dilation_width * a.channels
        worst = spread(0.0 if reduction == MEAN else -math.inf, real, real)
        row_counts = pointer(a.row_counts, real)
        column_counts = pointer(a.column_counts, real)
        span_height = (a.kernel_height - 1) * a.dilation_height + 1
        new_rows = min(a.stride_height, span_height)
        rows_ahead = a.stride_height + span_height - new_rows
        ahead = new_rows * a.row * size // a.groups
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            out_row = line % a.output_height
            top = out_row * a.stride_height - a.top
            first, last = taps_inside(top, a.kernel_height, a.dilation_height, a.height)
            origin = line // a.output_height * a.height + top
            last_row = a.x + (origin + (last - 1) * a.dilation_height) * a.row * size
            for group in range(a.groups):
                prefetch_rows(a.x + (origin + rows_ahead) * a.row * size + group * ahead, ahead)
                left = group * a.stride_width - a.left
                for output in range(0, a.outputs, lanes):
                    count = min(lanes, a.outputs - output)
                    start = left * a.channels + output * spacing
                    reach = start + (kernel_width - 1) * pitch
                    inside = start >= 0 and reach + (count - 1) * spacing < a.row
                    # The lanes behind the last output may see what they like, as long as it is memory of x.
                    inside = inside and step != 0 and last_row + (reach + lanes * spacing) * size <= a.x_end
                    best = worst
                    code = spread(first * a.dilation_height * a.width, place, real)
                    if reduction == MAXIMUM_AND_PLACE and start < 0:
                        # Where all values are -inf the first one wins that is no padding.
                        for tap in range(kernel_width - 1, -1, -1):
                            offset = start + tap * pitch
                            number = spread((first * a.dilation_height * a.width + tap * a.dilation_width), place, real)
                            code = choose(lanes_between(lanes_before(-offset, spacing), lanes, real), number, code)
                    for tap_row in range(first, last):
                        source = a.x + (origin + tap_row * a.dilation_height) * a.row * size
                        row_code = tap_row * a.dilation_height * a.width
                        total = worst
                        for tap in range(kernel_width):
                            offset = start + tap * pitch
                            if inside:
                                value = load(source + offset * size, real, real)
                                if step == 2:
                                    value = evens(value, load(source + (offset + lanes) * size, real, real))
                            elif step == 0:
                                begin, end = lanes_before(-offset, spacing), lanes_before(a.row - offset, spacing)
                                mask = lanes_between(begin, min(end, count), real)
                                value = gather_where(mask, source + offset * size, spacing, worst)
                            else:
                                mask = lanes_between(-offset, a.row - offset, real)
                                value = load_where(mask, source + offset * size, worst)
                                if step == 2:
                                    mask = lanes_between(-offset - lanes, a.row - offset - lanes, real)
                                    upper = load_where(mask, source + (offset + lanes) * size, worst)
                                    value = evens(value, upper)
                            if reduction == MEAN:
                                total = plus(total, value)
                            elif reduction == MAXIMUM:
                                best = larger(value, best)
                            else:
                                wins = beats(value, best)
                                best = choose(wins, value, best)
                                code = choose(wins, spread(row_code + tap * a.dilation_width, place, real), code)
                        if reduction == MEAN:  # row by row, which keeps the rounding errors of large windows small
                            best = plus(best, total)
                    if reduction == MEAN:
                        best = over(best, spread(column_counts[group] * row_counts[out_row], real, real))
                    target = (line * a.groups + group) * a.outputs + output
                    store_first(count, best, a.y + target * size, lanes, real)
                    if reduction == MAXIMUM_AND_PLACE:
                        cell = top * a.width + left + (0 if by_channel else output * spacing)
                        places = plus(widened(code), count_up(cell, 0 if by_channel else spacing, real))
                        store_first(count, places, a.indices + target * 8, lanes, real)

    return forward


class _Rows(Arguments):
    x: int
    y: int
    row_counts: int
    column_counts: int
    planes: int
    height: int
    width: int
    output_height: int
    outputs: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    top: int
    left: int
    scratch: int
    scratch_pitch: int


@functools.cache
def _forward_of_rows(real: Any, reduction: int, step: int) -> CompiledFunction:
    """Every output of planes, without its place: first the rows of a window become one, then the columns of that.

    A window of KH x KW taps then costs KH + KW. The row in between lies in scratch memory, between margins that no window
    notices, so that the columns are read without a mask.

    Args:
        real: Dtype.
        reduction: What becomes of the values in a window, MAXIMUM or MEAN.
        step: The stride, 1 or 2; 0 for any other.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_Rows)
    def forward_of_rows(worker: int, workers: int, a: Any) -> None:
        x, y, height, width, outputs = a.x, a.y, a.height, a.width, a.outputs
        output_height, kernel_height, kernel_width = a.output_height, a.kernel_height, a.kernel_width
        stride_height, dilation_height, dilation = a.stride_height, a.dilation_height, a.dilation_width
        spacing = a.stride_width if step == 0 else step
        top_padding, all_column_counts = a.top, a.column_counts
        row_counts = pointer(a.row_counts, real)
        first, end = worker * (a.planes * output_height) // workers, (worker + 1) * (a.planes * output_height) // workers
        worst = spread(0.0 if reduction == MEAN else -math.inf, real, real)
        row = a.scratch + worker * a.scratch_pitch
        for place in range(0, a.scratch_pitch - lanes * size, lanes * size):
            store(worst, row + place)
        image_row = row + a.left * size
        x_tail, y_tail = lanes_between(0, width % lanes, real), lanes_between(0, outputs % lanes, real)
        span_height = (kernel_height - 1) * dilation_height + 1
        new_rows = min(stride_height, span_height)
        rows_ahead = stride_height + span_height - new_rows
        plane, out_row = first // output_height, first % output_height
        for line in range(first, end):
            top = out_row * stride_height - top_padding
            first_tap, last_tap = taps_inside(top, kernel_height, dilation_height, height)
            source = x + (plane * height + top + first_tap * dilation_height) * width * size
            pitch = dilation_height * width * size
            prefetch_rows(x + (plane * height + top + rows_ahead) * width * size, new_rows * width * size)
            for column in range(0, width, lanes):
                best = worst
                for tap in range(last_tap - first_tap):
                    place = source + tap * pitch + column * size
                    value = load(place, real, real) if column + lanes <= width else load_where(x_tail, place, worst)
                    best = plus(best, value) if reduction == MEAN else larger(value, best)
                store(best, image_row + column * size)
            for output in range(0, outputs, lanes):
                best = worst
                start = row + output * spacing * size
                if step == 2 and dilation == 1:
                    # The taps two by two: the even places are what the first sees, the odd ones the second.
                    for tap in range(0, kernel_width, 2):
                        low = load(start + tap * size, real, real)
                        high = load(start + (tap + lanes) * size, real, real)
                        best = plus(best, evens(low, high)) if reduction == MEAN else larger(evens(low, high), best)
                        if tap + 1 < kernel_width:
                            best = plus(best, odds(low, high)) if reduction == MEAN else larger(odds(low, high), best)
                else:
                    for tap in range(kernel_width):
                        place = start + tap * dilation * size
                        if step == 0:
                            value = gather_where(lanes_between(0, outputs - output, real), place, spacing, worst)
                        elif step == 1:
                            value = load(place, real, real)
                        else:
                            value = evens(load(place, real, real), load(place + lanes * size, real, real))
                        best = plus(best, value) if reduction == MEAN else larger(value, best)
                if reduction == MEAN:
                    columns = load(all_column_counts + output * size, real, real)
                    best = over(best, times(columns, spread(row_counts[out_row], real, real)))
                target = y + (line * outputs + output) * size
                if output + lanes <= outputs:
                    store(best, target)
                else:
                    store_where(y_tail, best, target)
            out_row += 1
            if out_row == output_height:
                plane, out_row = plane + 1, 0

    return forward_of_rows


class _Runs(Arguments):
    x: int
    y: int
    indices: int
    row_counts: int
    column_counts: int
    planes: int
    height: int
    width: int
    output_height: int
    outputs: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    top: int
    left: int
    scratch: int
    scratch_pitch: int


@functools.cache
def _forward_of_runs(real: Any, reduction: int) -> CompiledFunction:
    """Every output of windows that are long rows: the lanes are neighbouring pixels of one window, joined at its end."""
    dtype = np.dtype(str(real))
    lanes, size = lanes_of(dtype), dtype.itemsize
    integer = types.int64

    @task(_Runs)
    def forward_of_runs(worker: int, workers: int, a: Any) -> None:
        lines = a.planes * a.output_height
        worst = spread(0.0 if reduction == MEAN else -math.inf, real, real)
        scratch = a.scratch + worker * a.scratch_pitch
        values, codes = pointer(scratch, real), pointer(scratch + lanes * size, integer)
        row_counts, column_counts = pointer(a.row_counts, real), pointer(a.column_counts, real)
        y, indices = pointer(a.y, real), pointer(a.indices, integer)
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            out_row = line % a.output_height
            top = out_row * a.stride_height - a.top
            first, last = taps_inside(top, a.kernel_height, a.dilation_height, a.height)
            for output in range(a.outputs):
                begin = max(0, output * a.stride_width - a.left)
                end = min(a.width, output * a.stride_width - a.left + a.kernel_width)
                best, code = worst, spread(-1, integer, real)
                for tap_row in range(first, last):
                    row = top + tap_row * a.dilation_height
                    source = a.x + (line // a.output_height * a.height + row) * a.width * size
                    total = worst
                    for column in range(begin, end, lanes):
                        mask = lanes_between(0, end - column, real)
                        if column + lanes <= end:
                            value = load(source + column * size, real, real)
                        else:
                            value = load_where(mask, source + column * size, worst)
                        if reduction == MEAN:
                            total = plus(total, value)
                        elif reduction == MAXIMUM:
                            best = larger(value, best)
                        else:
                            wins = both(either(beats(value, best), negative(code)), mask)
                            best = choose(wins, value, best)
                            code = choose(wins, count_up(row * a.width + column, 1, real), code)
                    if reduction == MEAN:
                        best = plus(best, total)
                store(best, scratch)
                store(code, scratch + lanes * size)
                result, place = values[0], codes[0]
                for lane in range(1, lanes):
                    value_of_lane, place_of_lane = values[lane], codes[lane]
                    if reduction == MEAN:
                        result += value_of_lane
                    elif reduction == MAXIMUM:
                        if value_of_lane > result or value_of_lane != value_of_lane:
                            result = value_of_lane
                    elif place_of_lane >= 0:
                        is_nan, was_nan = value_of_lane != value_of_lane, result != result
                        tied = value_of_lane == result or (is_nan and was_nan)
                        greater = value_of_lane > result or (is_nan and not was_nan)
                        if greater or (tied and place_of_lane < place):
                            result, place = value_of_lane, place_of_lane
                target = line * a.outputs + output
                if reduction == MEAN:
                    result /= column_counts[output] * row_counts[out_row]
                y[target] = result
                if reduction == MAXIMUM_AND_PLACE:
                    indices[target] = place

    return forward_of_runs


# ---- windows of 2x2 that lie side by side -----------------------------------------------------------------------------------


class _Quarters(Arguments):
    x: int
    x_end: int
    y: int
    indices: int
    planes: int
    height: int
    width: int
    output_height: int
    output_width: int


@functools.cache
def _forward_of_quarters(real: Any, reduction: int) -> CompiledFunction:
    """The commonest pooling by far, 2x2 with stride 2 and no padding, in planes: each row of pixels is read once.

    The general kernel computes the same; on the narrow images that such pooling ends in it needs twice the time.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    code_type = types.int32 if size == 4 else types.int64

    @task(_Quarters)
    def forward_of_quarters(worker: int, workers: int, a: Any) -> None:
        x_end, y, indices = a.x_end, a.y, a.indices
        height, width, output_height, output_width = a.height, a.width, a.output_height, a.output_width
        first, end = worker * (a.planes * output_height) // workers, (worker + 1) * (a.planes * output_height) // workers
        row = first % output_height
        upper = a.x + (first // output_height * height + 2 * row) * width * size
        zero, quarter = spread(0.0, real, real), spread(0.25, real, real)
        right, below = spread(1, code_type, real), spread(width, code_type, real)
        below_right = spread(width + 1, code_type, real)
        tail = lanes_between(0, output_width % lanes, real)
        for line in range(first, end):
            lower = upper + width * size
            prefetch_rows(lower + width * size, 2 * width * size)
            for output in range(0, output_width, lanes):
                here, under = upper + 2 * output * size, lower + 2 * output * size
                if under + 2 * lanes * size <= x_end:
                    here_left, here_right = load(here, real, real), load(here + lanes * size, real, real)
                    under_left, under_right = load(under, real, real), load(under + lanes * size, real, real)
                else:
                    mask = lanes_between(0, width - 2 * output, real)
                    here_left, under_left = load_where(mask, here, zero), load_where(mask, under, zero)
                    mask = lanes_between(0, width - 2 * output - lanes, real)
                    here_right = load_where(mask, here + lanes * size, zero)
                    under_right = load_where(mask, under + lanes * size, zero)
                is_whole = output + lanes <= output_width
                target = line * output_width + output
                if reduction == MAXIMUM_AND_PLACE:
                    best = evens(here_left, here_right)
                    code = spread(0, code_type, real)
                    value = odds(here_left, here_right)
                    wins = beats(value, best)
                    best, code = choose(wins, value, best), choose(wins, right, code)
                    value = evens(under_left, under_right)
                    wins = beats(value, best)
                    best, code = choose(wins, value, best), choose(wins, below, code)
                    value = odds(under_left, under_right)
                    wins = beats(value, best)
                    best, code = choose(wins, value, best), choose(wins, below_right, code)
                    places = plus(widened(code), count_up(2 * (row * width + output), 2, real))
                    if is_whole:
                        store(places, indices + target * 8)
                    else:
                        store_where(tail, places, indices + target * 8)
                elif reduction == MAXIMUM:
                    left, rest = larger(under_left, here_left), larger(under_right, here_right)
                    best = larger(odds(left, rest), evens(left, rest))
                else:
                    left, rest = plus(here_left, under_left), plus(here_right, under_right)
                    best = times(plus(evens(left, rest), odds(left, rest)), quarter)
                if is_whole:
                    store(best, y + target * size)
                else:
                    store_where(tail, best, y + target * size)
            upper = lower + width * size
            row += 1
            if row == output_height:
                row = 0
                upper += (height - 2 * output_height) * width * size

    return forward_of_quarters


@functools.cache
def _backward_of_quarters(real: Any, reduction: int) -> CompiledFunction:
    """The gradient of the same pooling: each gradient is read once, for the two rows of pixels that it goes to."""
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_Quarters)
    def backward_of_quarters(worker: int, workers: int, a: Any) -> None:
        y, indices = a.y, a.indices
        height, width, output_height, output_width = a.height, a.width, a.output_height, a.output_width
        first, end = worker * (a.planes * output_height) // workers, (worker + 1) * (a.planes * output_height) // workers
        row = first % output_height
        upper = a.x + (first // output_height * height + 2 * row) * width * size
        zero, nowhere, quarter = spread(0.0, real, real), spread(-1, integer, real), spread(0.25, real, real)
        here, right = spread(0, integer, real), spread(1, integer, real)
        below, below_right = spread(width, integer, real), spread(width + 1, integer, real)
        tail = lanes_between(0, output_width % lanes, real)
        for line in range(first, end):
            lower = upper + width * size
            for output in range(0, output_width, lanes):
                source = line * output_width + output
                is_whole = output + lanes <= output_width
                gradient = load(y + source * size, real, real) if is_whole else load_where(tail, y + source * size, zero)
                if reduction == MEAN:
                    share = times(gradient, quarter)
                    store_row(share, share, upper, 2 * output, width, 2, lanes, size, real)
                    store_row(share, share, lower, 2 * output, width, 2, lanes, size, real)
                else:
                    if is_whole:
                        winners = load(indices + source * 8, integer, real)
                    else:
                        winners = load_where(tail, indices + source * 8, nowhere)
                    code = plus(winners, count_up(-2 * (row * width + output), -2, real))
                    even, odd = choose(equal(code, here), gradient, zero), choose(equal(code, right), gradient, zero)
                    store_row(even, odd, upper, 2 * output, width, 2, lanes, size, real)
                    even = choose(equal(code, below), gradient, zero)
                    odd = choose(equal(code, below_right), gradient, zero)
                    store_row(even, odd, lower, 2 * output, width, 2, lanes, size, real)
            if width > 2 * output_width:
                pointer(upper, real)[width - 1] = real(0)
                pointer(lower, real)[width - 1] = real(0)
            upper = lower + width * size
            row += 1
            if row == output_height:
                row = 0
                if height > 2 * output_height:
                    rest = pointer(upper, real)
                    for column in range(width):
                        rest[column] = real(0)
                    upper += width * size

    return backward_of_quarters


# ---- gradient of the maximum ---------------------------------------------------------------------------------------------


class _MaximumBackward(Arguments):
    dy: int
    indices: int
    dx: int
    planes: int
    height: int
    width: int
    channels: int
    output_height: int
    output_width: int
    kernel_width: int
    span_height: int
    span_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    top: int
    left: int


@functools.cache
def _maximum_backward_of_rows(real: Any, step: int, taps: int) -> CompiledFunction:
    """Every pixel of planes, gathered from the windows that it won. The stride is ``step``, 1 or 2.

    With stride 2 the even places of the padded row are seen by the even taps alone, the odd ones by the odd taps: a vector
    of each is gathered, lane i of both from window ``first + i``, and the two are woven together.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_MaximumBackward)
    def maximum_backward_of_rows(worker: int, workers: int, a: Any) -> None:
        dy, indices, dx, height = a.dy, a.indices, a.dx, a.height
        width, output_height, output_width, span_height = a.width, a.output_height, a.output_width, a.span_height
        stride_height, dilation_height, dilation_width, top = a.stride_height, a.dilation_height, a.dilation_width, a.top
        left = a.left
        lines = a.planes * height
        tap_count = a.kernel_width if taps == 0 else taps
        zero, nowhere = spread(0.0, real, real), spread(-1, integer, real)
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            row, plane = line % height, line // height
            first, last = windows_over(row + top, span_height, stride_height, output_height)
            for window in range(left // step, (left + width - 1) // step + 1, lanes):
                column = window * step - left
                even, odd = zero, zero
                for out_row in range(first, last):
                    if dilation_height > 1 and (row + top - out_row * stride_height) % dilation_height != 0:
                        continue
                    source = (plane * output_height + out_row) * output_width
                    for tap in range(tap_count):
                        offset = tap * dilation_width
                        out = window - offset // step
                        phase = offset % step
                        if out >= output_width or out + lanes <= 0:
                            continue
                        if out >= 0 and out + lanes <= output_width:
                            winners = load(indices + (source + out) * 8, integer, real)
                            gradient = load(dy + (source + out) * size, real, real)
                        else:
                            mask = lanes_between(-out, output_width - out, real)
                            winners = load_where(mask, indices + (source + out) * 8, nowhere)
                            gradient = load_where(mask, dy + (source + out) * size, zero)
                        won = equal(winners, count_up(row * width + column + phase, step, real))
                        gradient = choose(won, gradient, zero)
                        if phase == 0:
                            even = plus(even, gradient)
                        else:
                            odd = plus(odd, gradient)
                store_row(even, odd, dx + line * width * size, column, width, step, lanes, size, real)

    return maximum_backward_of_rows


@functools.cache
def _maximum_backward_of_pixels(real: Any) -> CompiledFunction:
    """Every pixel, all its channels from each window that covers it."""
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_MaximumBackward)
    def maximum_backward_of_pixels(worker: int, workers: int, a: Any) -> None:
        lines = a.planes * a.height
        zero, nowhere = spread(0.0, real, real), spread(-1, integer, real)
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            row, plane = line % a.height, line // a.height
            first, last = windows_over(row + a.top, a.span_height, a.stride_height, a.output_height)
            begin, end = 0, 0
            for column in range(a.width):
                # As windows_over, without the divisions: the windows move on with the pixels.
                place = column + a.left
                while begin * a.stride_width + a.span_width <= place:
                    begin += 1
                while end < a.output_width and end * a.stride_width <= place:
                    end += 1
                here = spread(row * a.width + column, integer, real)
                target = a.dx + (line * a.width + column) * a.channels * size
                for channel in range(0, a.channels, lanes):
                    count = min(lanes, a.channels - channel)
                    mask = lanes_between(0, count, real)
                    total = zero
                    for out_row in range(first, last):
                        if a.dilation_height > 1 and (row + a.top - out_row * a.stride_height) % a.dilation_height != 0:
                            continue
                        for out in range(begin, end):
                            if a.dilation_width > 1 and (place - out * a.stride_width) % a.dilation_width != 0:
                                continue
                            source = ((plane * a.output_height + out_row) * a.output_width + out) * a.channels + channel
                            if count == lanes:
                                winners = load(a.indices + source * 8, integer, real)
                                gradient = load(a.dy + source * size, real, real)
                            else:
                                winners = load_where(mask, a.indices + source * 8, nowhere)
                                gradient = load_where(mask, a.dy + source * size, zero)
                            total = plus(total, choose(equal(winners, here), gradient, zero))
                    store_first(count, total, target + channel * size, lanes, real)

    return maximum_backward_of_pixels


@functools.cache
def _scatter(real: Any, add: int) -> CompiledFunction:
    """Every value of ``dy``, put where its index says: added to what is there, or in place of it (unpooling).

    For windows with so many taps, or so far apart, that few of the pixels that a window covers are its own. A worker writes
    rows of its own, a stretch at a time that stays in the cache, and passes over what belongs elsewhere.
    """
    size = np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_MaximumBackward)
    def scatter(worker: int, workers: int, a: Any) -> None:
        lines = a.planes * a.height
        line, end = worker * lines // workers, (worker + 1) * lines // workers
        dy, indices = pointer(a.dy, real), pointer(a.indices, integer)
        # The compiler cannot know that dx is not the memory of the arguments, and would read them anew for each value.
        width, channels, output_height, output_width = a.width, a.channels, a.output_height, a.output_width
        stride_width, left_padding, span_height, span_width = a.stride_width, a.left, a.span_height, a.span_width
        dilation_height, dilation_width = a.dilation_height, a.dilation_width
        is_dilated = dilation_height > 1 or dilation_width > 1
        rows_per_pixel = 1.0 / width
        together = a.height
        if add:
            together = max(a.span_height, SCATTERED_BYTES // (a.width * a.channels * size) + 1)
        while line < end:
            plane, row = line // a.height, line % a.height
            rows = min(min(a.height - row, end - line), together)
            dx = pointer(a.dx + plane * a.height * a.width * a.channels * size, real)
            low, high = row * a.width, (row + rows) * a.width
            for element in range(low * a.channels, high * a.channels):
                dx[element] = real(0)
            first, last = 0, a.output_height
            if add:
                first, _ = windows_over(row + a.top, a.span_height, a.stride_height, a.output_height)
                _, last = windows_over(row + rows - 1 + a.top, a.span_height, a.stride_height, a.output_height)
            for out_row in range(first, last):
                top = out_row * a.stride_height - a.top
                for out in range(output_width):
                    left = out * stride_width - left_padding
                    source = ((plane * output_height + out_row) * output_width + out) * channels
                    for channel in range(channels):
                        place = indices[source + channel]
                        if low <= place < high:
                            target = place * channels + channel
                            if add:
                                # An index that lies outside of its window is none that pooling gave.
                                place_row = int((place + 0.5) * rows_per_pixel)  # never near enough to a whole number to err
                                down = place_row - top
                                right = place - place_row * width - left
                                is_tap = 0 <= down < span_height and 0 <= right < span_width
                                if is_dilated:
                                    is_tap = is_tap and down % dilation_height == 0 and right % dilation_width == 0
                                if is_tap:
                                    dx[target] += dy[source + channel]
                            else:
                                dx[target] = dy[source + channel]
            line += rows

    return scatter


# ---- gradient of the mean ------------------------------------------------------------------------------------------------


class _MeanBackward(Arguments):
    dy: int
    dx: int
    row_shares: int
    column_shares: int
    planes: int
    height: int
    width: int
    channels: int
    output_height: int
    output_width: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    top: int
    left: int
    scratch: int
    scratch_pitch: int


@functools.cache
def _mean_backward(real: Any, step: int, by_channel: int) -> CompiledFunction:
    """Every row of pixels: first the shares of the windows above each other are summed, then those beside each other.

    Rows that the same windows cover are equal, and only the first is computed.

    Args:
        real: Dtype.
        step: The stride, 1 or 2, where the lanes are pixels; 0 for any other, or for wide windows.
        by_channel: Whether the lanes are the channels of a pixel.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_MeanBackward)
    def mean_backward(worker: int, workers: int, a: Any) -> None:
        dy, dx, height, width = a.dy, a.dx, a.height, a.width
        channels, output_height, output_width, kernel_height = a.channels, a.output_height, a.output_width, a.kernel_height
        kernel_width, stride_height, stride_width, top = a.kernel_width, a.stride_height, a.stride_width, a.top
        left = a.left
        lines = a.planes * height
        zero = spread(0.0, real, real)
        scratch = a.scratch + worker * a.scratch_pitch
        for place in range(0, a.scratch_pitch - lanes * size, lanes * size):
            store(zero, scratch + place)
        # Windows before the first and behind the last have no share: with zeros there, no load needs a mask.
        sums = scratch + (kernel_width + lanes) // lanes * lanes * size
        sum_of = pointer(sums, real)
        column_shares_at = a.column_shares
        row_shares, column_shares = pointer(a.row_shares, real), pointer(column_shares_at, real)
        out_row_size = output_width * channels
        row_size = width * channels
        first, last, known = 0, 0, -1
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            row, plane = line % height, line // height
            target = dx + line * row_size * size
            before = first, last, known
            first, last = windows_over(row + top, kernel_height, stride_height, output_height)
            known = plane
            if before == (first, last, known):
                for place in range(0, row_size, lanes):
                    mask = lanes_between(0, row_size - place, real)
                    if place + lanes <= row_size:
                        store(load(target + (place - row_size) * size, real, real), target + place * size)
                    else:
                        store_where(mask, load_where(mask, target + (place - row_size) * size, zero), target + place * size)
                continue
            for group in range(output_width if by_channel else 1):
                outputs = channels if by_channel else output_width
                for output in range(0, outputs, lanes):
                    if by_channel:
                        columns = spread(column_shares[group], real, real)
                    else:
                        columns = load(column_shares_at + output * size, real, real)
                    mask = lanes_between(0, outputs - output, real)
                    total = zero
                    for out_row in range(first, last):
                        source = (plane * output_height + out_row) * out_row_size + group * outputs + output
                        if output + lanes <= outputs:
                            gradient = load(dy + source * size, real, real)
                        else:
                            gradient = load_where(mask, dy + source * size, zero)
                        share = times(columns, spread(row_shares[out_row], real, real))
                        total = plus(total, times(gradient, share))
                    store(total, sums + (group * outputs + output) * size)
            if by_channel:
                begin, end = 0, 0
                for column in range(width):
                    while begin * stride_width + kernel_width <= column + left:
                        begin += 1
                    while end < output_width and end * stride_width <= column + left:
                        end += 1
                    for channel in range(0, channels, lanes):
                        total = zero
                        for out in range(begin, end):
                            total = plus(total, load(sums + (out * channels + channel) * size, real, real))
                        place = column * channels + channel
                        store_first(channels - channel, total, target + place * size, lanes, real)
            elif step == 0:
                for column in range(0, width, lanes):
                    total = zero
                    place = column + left
                    begin, _ = windows_over(place, kernel_width, stride_width, output_width)
                    _, end = windows_over(place + lanes - 1, kernel_width, stride_width, output_width)
                    for out in range(begin, end):
                        offset = out * stride_width - place
                        mask = lanes_between(offset, offset + kernel_width, real)
                        total = plus(total, choose(mask, spread(sum_of[out], real, real), zero))
                    store_first(width - column, total, target + column * size, lanes, real)
            else:
                for window in range(left // step, (left + width - 1) // step + 1, lanes):
                    even, odd = zero, zero
                    for tap in range(0, kernel_width, step):
                        even = plus(even, load(sums + (window - tap // step) * size, real, real))
                    for tap in range(1, kernel_width if step == 2 else 0, step):
                        odd = plus(odd, load(sums + (window - tap // step) * size, real, real))
                    store_row(even, odd, target, window * step - left, width, step, lanes, size, real)

    return mean_backward


# ---- the functions of this device ----------------------------------------------------------------------------------------


def max_pool2d_forward(x: Array, geometry: Window2d, return_indices: bool) -> tuple[Array, Array | None]:
    """See :func:`xpconv.functional.max_pool2d`."""
    y = empty(geometry.y_shape, x.dtype)
    indices = empty(geometry.y_shape, np.dtype(np.int64)) if return_indices else None
    _reduce(x, y, indices, MAXIMUM_AND_PLACE if return_indices else MAXIMUM, geometry)
    return y, indices


def max_pool2d_backward(dy: Array, indices: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_pool2d_backward`."""
    dx = empty(geometry.x_shape, dy.dtype)
    if dx.size == 0:
        return dx
    windows, real = _windows(geometry), numba.from_dtype(dx.dtype)
    if _are_quarters(windows):
        run(_backward_of_quarters(real, MAXIMUM), _quarters(dx, dy, indices, windows), _workers(dx.size + dy.size))
        return dx
    (span_height, span_width), (stride_height, stride_width) = geometry.span, windows.stride
    arguments = _MaximumBackward(
        dy=address(dy),
        indices=address(indices),
        dx=address(dx),
        planes=windows.planes,
        height=windows.size[0],
        width=windows.size[1],
        channels=windows.channels,
        output_height=windows.output_size[0],
        output_width=windows.output_size[1],
        kernel_width=windows.kernel_size[1],
        span_height=span_height,
        span_width=span_width,
        stride_height=stride_height,
        stride_width=stride_width,
        dilation_height=windows.dilation[0],
        dilation_width=windows.dilation[1],
        top=windows.before[0],
        left=windows.before[1],
    )
    lanes = lanes_of(dx.dtype)
    # Gathering costs some 6 cycles for each tap and vector, scattering some 8 for each value.
    vectors, values = (1, lanes) if windows.channels == 1 else (-(-windows.channels // lanes), windows.channels)
    gathering_pays = 6 * geometry.taps * vectors <= 8 * values and (windows.channels == 1 or 2 * windows.channels >= lanes)
    if gathering_pays and windows.channels > 1:
        kernel = _maximum_backward_of_pixels(real)
    elif gathering_pays and stride_width <= 2:
        kernel = _maximum_backward_of_rows(real, stride_width, _constant_taps(windows))
    else:
        kernel = _scatter(real, True)
    run(kernel, arguments, _workers(dx.size + dy.size))
    return dx


def max_unpool2d(x: Array, indices: Array, output_size: tuple[int, int], geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_unpool2d`."""
    y = empty(batch_shape(geometry.batch, geometry.channels, output_size, geometry.data_format), x.dtype)
    if y.size == 0:
        return y
    windows = _windows(geometry)
    arguments = _MaximumBackward(
        dy=address(x),
        indices=address(indices),
        dx=address(y),
        planes=windows.planes,
        height=output_size[0],
        width=output_size[1],
        channels=windows.channels,
        output_height=windows.size[0],
        output_width=windows.size[1],
        kernel_width=1,
        span_height=1,
        span_width=1,
        stride_height=1,
        stride_width=1,
        dilation_height=1,
        dilation_width=1,
        top=0,
        left=0,
    )
    run(_scatter(numba.from_dtype(y.dtype), False), arguments, _workers(y.size + x.size))
    return y


def avg_pool2d_forward(x: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d`."""
    y = empty(geometry.y_shape, x.dtype)
    _reduce(x, y, None, MEAN, geometry, count_include_pad)
    return y


def avg_pool2d_backward(dy: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d_backward`."""
    dx = empty(geometry.x_shape, dy.dtype)
    if dx.size == 0:
        return dx
    windows, real, lanes = _windows(geometry), numba.from_dtype(dx.dtype), lanes_of(dx.dtype)
    if _are_quarters(windows):
        run(_backward_of_quarters(real, MEAN), _quarters(dx, dy, None, windows), _workers(dx.size + dy.size))
        return dx
    windows, row_counts, column_counts = _as_one_row(windows, *_counts(geometry, count_include_pad, dy.dtype))
    # Products take a tenth of the time of quotients, and there are more of them than outputs.
    row_shares, column_shares = np.reciprocal(row_counts), np.reciprocal(column_counts)
    by_channel = windows.channels > 1
    kernel_width, stride, outputs = windows.kernel_size[1], windows.stride[1], windows.output_size[1]
    # Tap by tap the neighbours of a vector of pixels are read; for long windows it is cheaper to go through the windows.
    by_tap = stride <= 2 and kernel_width <= 4 * min(outputs, (lanes + kernel_width) // stride)
    arguments = _MeanBackward(
        dy=address(dy),
        dx=address(dx),
        row_shares=address(row_shares),
        column_shares=address(column_shares),
        planes=windows.planes,
        height=windows.size[0],
        width=windows.size[1],
        channels=windows.channels,
        output_height=windows.output_size[0],
        output_width=outputs,
        kernel_height=windows.kernel_size[0],
        kernel_width=kernel_width,
        stride_height=windows.stride[0],
        stride_width=stride,
        top=windows.before[0],
        left=windows.before[1],
        scratch=0,
        scratch_pitch=0,
    )
    places = max(outputs * windows.channels, windows.before[1] + windows.size[1]) + kernel_width + 4 * lanes
    kernel = _mean_backward(real, 0 if by_channel or not by_tap else stride, by_channel)
    run_with_scratch(kernel, arguments, _workers(dx.size + dy.size), places * dx.itemsize)
    return dx


# ---- the pieces ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Windows:
    """A pooling as the kernels see it: planes of pixels with some channels, 1 if the channels are planes of their own."""

    planes: int
    channels: int
    size: tuple[int, int]
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    output_size: tuple[int, int]


def _windows(geometry: Window2d) -> _Windows:
    first = geometry.data_format == "channels_first"
    return _Windows(
        planes=geometry.batch * geometry.channels if first else geometry.batch,
        channels=1 if first else geometry.channels,
        size=geometry.size,
        kernel_size=geometry.kernel_size,
        stride=geometry.stride,
        dilation=geometry.dilation,
        before=(geometry.padding[0][0], geometry.padding[1][0]),
        output_size=geometry.output_size,
    )


def _are_quarters(windows: _Windows) -> bool:
    (height, width), (output_height, output_width) = windows.size, windows.output_size
    side_by_side = windows.kernel_size == windows.stride == (2, 2) and windows.dilation == (1, 1) and windows.before == (0, 0)
    return side_by_side and windows.channels == 1 and 2 * output_height <= height and 2 * output_width <= width


def _quarters(x: Array, y: Array, indices: Array | None, windows: _Windows) -> _Quarters:
    return _Quarters(
        x=address(x),
        x_end=address(x) + x.nbytes,
        y=address(y),
        indices=0 if indices is None else address(indices),
        planes=windows.planes,
        height=windows.size[0],
        width=windows.size[1],
        output_height=windows.output_size[0],
        output_width=windows.output_size[1],
    )


def _as_one_row(windows: _Windows, row_counts: Array, column_counts: Array) -> tuple[_Windows, Array, Array]:
    # A window of whole rows is a stretch of memory without gaps: global pooling reads one row of all pixels.
    (height, width), (kernel_height, kernel_width) = windows.size, windows.kernel_size
    whole = windows.before[1] == 0 and windows.output_size[1] == 1 and kernel_width == width and windows.dilation == (1, 1)
    if not whole or windows.channels > 1:
        return windows, row_counts, column_counts
    one_row = _Windows(
        planes=windows.planes,
        channels=1,
        size=(1, height * width),
        kernel_size=(1, kernel_height * width),
        stride=(1, windows.stride[0] * width),
        dilation=(1, 1),
        before=(0, windows.before[0] * width),
        output_size=(1, windows.output_size[0]),
    )
    return one_row, column_counts[:1].copy(), row_counts


def _reduce(
    x: Array, y: Array, indices: Array | None, reduction: int, geometry: Window2d, count_include_pad: bool = True
) -> None:
    windows = _windows(geometry)
    if y.size == 0:
        return
    real, lanes = numba.from_dtype(x.dtype), lanes_of(x.dtype)
    workers = _workers(x.size + y.size)
    if _are_quarters(windows):
        run(_forward_of_quarters(real, reduction), _quarters(x, y, indices, windows), workers)
        return
    row_counts, column_counts = _counts(geometry, count_include_pad, x.dtype)
    windows, row_counts, column_counts = _as_one_row(windows, row_counts, column_counts)
    (height, width), (output_height, outputs) = windows.size, windows.output_size
    kernel_width, stride, dilation = windows.kernel_size[1], windows.stride[1], windows.dilation[1]
    by_channel = windows.channels > 1
    arguments = {
        "x": address(x),
        "y": address(y),
        "row_counts": address(row_counts),
        "column_counts": address(column_counts),
        "planes": windows.planes,
        "height": height,
        "width": width,
        "output_height": output_height,
        "kernel_height": windows.kernel_size[0],
        "kernel_width": kernel_width,
        "stride_height": windows.stride[0],
        "stride_width": stride,
        "dilation_height": windows.dilation[0],
        "top": windows.before[0],
        "left": windows.before[1],
    }
    place_of_indices = 0 if indices is None else address(indices)
    # A vector of outputs costs a few cycles for each tap; joining the lanes of a single output costs as much as 11 vectors.
    of_runs = outputs * (kernel_width // lanes + 11) < -(-outputs // lanes) * kernel_width
    if of_runs and dilation == 1 and not by_channel:
        runs = _Runs(**arguments, indices=place_of_indices, outputs=outputs, scratch=0, scratch_pitch=0)
        run_with_scratch(_forward_of_runs(real, reduction), runs, workers, lanes * (x.itemsize + 8))
    elif by_channel or reduction == MAXIMUM_AND_PLACE:
        forward = _Forward(
            **arguments,
            x_end=address(x) + x.nbytes,
            indices=place_of_indices,
            row=width * windows.channels,
            channels=windows.channels,
            groups=outputs if by_channel else 1,
            outputs=windows.channels if by_channel else outputs,
            dilation_width=dilation,
        )
        step = 1 if by_channel else stride if stride <= 2 else 0
        code = types.int32 if x.itemsize == 4 and height * width < 2**31 else types.int64
        run(_forward(real, reduction, step, by_channel, _constant_taps(windows), code), forward, workers)
    else:
        rows = _Rows(**arguments, outputs=outputs, dilation_width=dilation, scratch=0, scratch_pitch=0)
        swept = (outputs + lanes) * stride + (kernel_width - 1) * dilation
        places = max(windows.before[1] + width, swept) + 3 * lanes
        run_with_scratch(_forward_of_rows(real, reduction, stride if stride <= 2 else 0), rows, workers, places * x.itemsize)


def _constant_taps(windows: _Windows) -> int:
    # The common widths are constants of the machine code.
    return windows.kernel_size[1] if windows.kernel_size[1] in (2, 3) else 0


def _workers(elements: int) -> int:
    return 1 if elements < ELEMENTS_WORTH_A_THREAD else thread_count()


@functools.lru_cache(maxsize=64)
def _counts(geometry: Window2d, count_include_pad: bool, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """How many rows and columns of cells each mean is over; with ceil_mode what lies behind the padding never counts.

    Returns:
        One number for each row and for each column of outputs, and behind them enough ones to fill a vector; not to be changed.
    """
    counts = []
    for axis in (0, 1):
        before, after = geometry.padding[axis] if count_include_pad else (0, 0)
        start = np.arange(geometry.output_size[axis]) * geometry.stride[axis] - geometry.padding[axis][0]
        end = np.minimum(start + geometry.kernel_size[axis], geometry.size[axis] + after)
        counts.append(np.ones(start.size + lanes_of(dtype), dtype))
        counts[axis][: start.size] = end - np.maximum(start, -before)
    return counts[0], counts[1]
