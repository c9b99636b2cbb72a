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

The kernels::

                        forward                                     backward
      _quarters         2x2 with stride 2, in planes                _quarters_backward
      _runs             few windows, of long rows                   _mean_backward                 all other means
      _pixels           the lanes are channels                      _maximum_backward_of_pixels
      _places_in_rows   the lanes are windows, maxima with places   _maximum_backward_of_rows
      _values           everything else                             _scatter                       other maxima, unpooling

The vectors are those of :mod:`xpconv.kernels.numba.vectors`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba import types

from xpconv.geometry import Window2d, batch_shape
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.intrinsics import lane_count, pointer, size_of
from xpconv.kernels.numba.memory import Array, address, empty
from xpconv.kernels.numba.target import lanes as lanes_of
from xpconv.kernels.numba.threads import run, run_with_scratch, thread_count
from xpconv.kernels.numba.vectors import (
    beats,
    choose,
    count_up,
    equal,
    evens,
    gather_where,
    lanes_between,
    larger,
    load,
    load_between,
    load_where,
    odds,
    over,
    plus,
    prefetch,
    spread,
    store,
    store_between,
    times,
    widened,
    woven_high,
    woven_low,
)

# What is done.
MAXIMUM, MEAN, UNPOOLING = range(3)
# How much of a result is scattered to at a time, small enough to stay in the cache.
SCATTERED_BYTES = 128 << 10
# How far before it is read memory is asked for.
BYTES_AHEAD = 8 << 10
# Below this a second thread costs more than it does.
ELEMENTS_WORTH_A_THREAD = 20_000


# ---- the functions of this device ----------------------------------------------------------------------------------------


def max_pool2d_forward(x: Array, geometry: Window2d, return_indices: bool) -> tuple[Array, Array | None]:
    """See :func:`xpconv.functional.max_pool2d`."""
    y = empty(geometry.y_shape, x.dtype)
    indices = empty(geometry.y_shape, np.dtype(np.int64)) if return_indices else None
    if y.size > 0:
        _reduce(x, _pooling(MAXIMUM, geometry, x, y, indices))
    return y, indices


class _Positions(Arguments):
    indices: int
    counts: int
    planes: int
    rows: int
    columns: int
    channels: int
    height: int
    width: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    span_h: int
    span_w: int
    dilation_h: int
    dilation_w: int
    one_row: float


def count_misplaced(indices: Array, geometry: Window2d) -> int:
    """How many positions are none of a pixel of the image that their own window reads."""
    first = geometry.data_format == "channels_first"
    workers = thread_count() if indices.size > 1 << 14 else 1
    counts = np.zeros(workers, np.int64)
    arguments = _Positions(
        indices=address(indices),
        counts=address(counts),
        planes=geometry.batch * geometry.channels if first else geometry.batch,
        rows=geometry.output_size[0],
        columns=geometry.output_size[1],
        channels=1 if first else geometry.channels,
        height=geometry.size[0],
        width=geometry.size[1],
        stride_h=geometry.stride[0],
        stride_w=geometry.stride[1],
        top=geometry.padding[0][0],
        left=geometry.padding[1][0],
        span_h=geometry.span[0],
        span_w=geometry.span[1],
        dilation_h=geometry.dilation[0],
        dilation_w=geometry.dilation[1],
        one_row=1 / geometry.size[1],
    )
    run(_count_misplaced(), arguments, workers)
    return int(counts.sum())


def avg_pool2d_forward(x: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d`."""
    y = empty(geometry.y_shape, x.dtype)
    if y.size > 0:
        rows, columns = _counts(geometry, count_include_pad, x.dtype)
        _reduce(x, _pooling(MEAN, geometry, x, y, row_factors=address(rows), column_factors=address(columns)))
    return y


def max_pool2d_backward(dy: Array, indices: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_pool2d_backward`."""
    dx = empty(geometry.x_shape, dy.dtype)
    if dx.size > 0:
        a = _pooling(MAXIMUM, geometry, dx, dy, indices)
        lanes, real = lanes_of(dx.dtype), numba.from_dtype(dx.dtype)
        # Gathering costs some 6 cycles for each tap and vector, scattering some 8 for each value.
        vectors, values = (1, lanes) if a.channels == 1 else (-(-a.channels // lanes), a.channels)
        gathering_pays = 6 * geometry.taps * vectors <= 8 * values
        if _are_quarters(a):
            kernel = _quarters_backward(real)
        elif gathering_pays and a.channels == 1 and a.stride_width <= 2:
            kernel = _maximum_backward_of_rows(real, _constant_taps(a))
        elif gathering_pays and 2 * a.channels >= lanes:
            kernel = _maximum_backward_of_pixels(real)
        else:
            kernel = _scatter(real)
        run(kernel, a, _workers(a))
    return dx


def avg_pool2d_backward(dy: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d_backward`."""
    dx = empty(geometry.x_shape, dy.dtype)
    if dx.size > 0:
        # Products take a tenth of the time of quotients, and there are more of them than outputs.
        rows, columns = (np.reciprocal(counts) for counts in _counts(geometry, count_include_pad, dy.dtype))
        a = _pooling(MEAN, geometry, dx, dy, row_factors=address(rows), column_factors=address(columns))
        real = numba.from_dtype(dx.dtype)
        if _are_quarters(a):
            run(_quarters_backward(real), a, _workers(a))
        else:
            _see_one_row(a)
            places = max(a.output_width * a.channels, a.left + a.width) + a.kernel_width + 4 * lanes_of(dx.dtype)
            run_with_scratch(
                _mean_backward(real, 2 if a.channels == 1 and a.stride_width == 2 else 0), a, _workers(a), places * dx.itemsize
            )
    return dx


def max_unpool2d(x: Array, indices: Array, output_size: tuple[int, int], geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_unpool2d`."""
    y = empty(batch_shape(geometry.batch, geometry.channels, output_size, geometry.data_format), x.dtype)
    if y.size > 0:
        a = _pooling(UNPOOLING, geometry, y, x, indices)
        (a.height, a.width), (a.output_height, a.output_width) = output_size, geometry.size
        run(_scatter(numba.from_dtype(y.dtype)), a, _workers(a))
    return y


# ---- what the kernels are told -------------------------------------------------------------------------------------------


class _Pooling(Arguments):
    """Images and windows as the kernels see them: planes of pixels with some channels.

    With ``channels_first`` the channels are planes of their own, and a pixel has one. The names are those of a forward pass:
    ``x`` is what windows slide over, ``y`` has a pixel for each window. A backward pass reads ``y`` and writes ``x``.
    """

    operation: int
    x: int
    x_end: int
    y: int
    indices: int  # 0 where there are none
    row_factors: int  # of means: what is to be divided by (forward) or multiplied with (backward), for each row of outputs
    column_factors: int  # the same for each column; the product of both is meant
    planes: int
    channels: int
    height: int
    width: int
    output_height: int
    output_width: int
    kernel_height: int
    kernel_width: int
    span_height: int
    span_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    top: int
    left: int
    scratch: int
    scratch_pitch: int


def _pooling(
    operation: int,
    geometry: Window2d,
    x: Array,
    y: Array,
    indices: Array | None = None,
    row_factors: int = 0,
    column_factors: int = 0,
) -> _Pooling:
    first = geometry.data_format == "channels_first"
    return _Pooling(
        operation=operation,
        x=address(x),
        x_end=address(x) + x.nbytes,
        y=address(y),
        indices=0 if indices is None else address(indices),
        row_factors=row_factors,
        column_factors=column_factors,
        planes=geometry.batch * geometry.channels if first else geometry.batch,
        channels=1 if first else geometry.channels,
        height=geometry.size[0],
        width=geometry.size[1],
        output_height=geometry.output_size[0],
        output_width=geometry.output_size[1],
        kernel_height=geometry.kernel_size[0],
        kernel_width=geometry.kernel_size[1],
        span_height=geometry.span[0],
        span_width=geometry.span[1],
        stride_height=geometry.stride[0],
        stride_width=geometry.stride[1],
        dilation_height=geometry.dilation[0],
        dilation_width=geometry.dilation[1],
        top=geometry.padding[0][0],
        left=geometry.padding[1][0],
        scratch=0,
        scratch_pitch=0,
    )


def _reduce(x: Array, a: _Pooling) -> None:
    real, lanes = numba.from_dtype(x.dtype), lanes_of(x.dtype)
    if _are_quarters(a):
        run(_quarters(real), a, _workers(a))
        return
    _see_one_row(a)
    # A vector of outputs costs a few cycles for each tap; joining the lanes of a single output costs as much as 11 vectors.
    vectors_of_outputs = -(-a.output_width // lanes)
    runs_pay = a.output_width * (a.kernel_width // lanes + 11) < vectors_of_outputs * a.kernel_width
    code_type = types.int32 if x.itemsize == 4 and a.height * a.width < 2**31 else types.int64
    # By pixels each tap of an output is read; by way of a row in between, a column of taps for each pixel, and that row again.
    direct_pays = a.kernel_height * a.kernel_width <= (a.kernel_height + 2) * a.stride_width + a.kernel_width
    if runs_pay and a.dilation_width == a.channels == 1:
        run_with_scratch(_runs(real), a, _workers(a), lanes * (x.itemsize + 8))
    elif a.channels > 1 and (a.indices or direct_pays):
        run(_pixels(real, code_type), a, _workers(a))
    elif a.indices:
        run(_places_in_rows(real, code_type, _constant_taps(a)), a, _workers(a))
    else:
        swept = (a.output_width + lanes) * a.stride_width + (a.kernel_width - 1) * a.dilation_width
        places = max(a.left + a.width, swept) * a.channels + 3 * lanes
        run_with_scratch(_values(real, a.operation), a, _workers(a), places * x.itemsize)


def _are_quarters(a: _Pooling) -> bool:
    are_squares = a.kernel_height == a.kernel_width == a.stride_height == a.stride_width == a.span_height == a.span_width == 2
    fit = 2 * a.output_height <= a.height and 2 * a.output_width <= a.width and a.width < 2**30
    return a.channels == 1 and are_squares and a.top == a.left == 0 and fit


def _see_one_row(a: _Pooling) -> None:
    # A window of whole rows is a stretch of memory without gaps: global pooling reads one row of all pixels.
    are_whole_rows = a.left == 0 and a.output_width == 1 and a.kernel_width == a.width
    if not are_whole_rows or a.channels > 1 or a.span_height > a.kernel_height or a.span_width > a.kernel_width:
        return
    a.left, a.top = a.top * a.width, 0
    a.stride_width, a.stride_height = a.stride_height * a.width, 1
    a.kernel_width, a.kernel_height = a.kernel_height * a.width, 1
    a.span_width, a.span_height = a.kernel_width, 1
    a.output_width, a.output_height = a.output_height, 1
    a.width, a.height = a.height * a.width, 1
    a.row_factors, a.column_factors = a.column_factors, a.row_factors


def _constant_taps(a: _Pooling) -> int:
    # The width of the commonest windows that overlap is a constant of the machine code: a loop less, a fifth of the time.
    return 3 if a.kernel_width == 3 else 0


def _workers(a: _Pooling) -> int:
    pixels = a.height * a.width + a.output_height * a.output_width
    return 1 if a.planes * a.channels * pixels < ELEMENTS_WORTH_A_THREAD else thread_count()


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


# ---- what the kernels share ----------------------------------------------------------------------------------------------


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
def next_windows_over(first: int, last: int, pixel: int, span: int, stride: int, outputs: int) -> tuple[int, int]:
    """As :func:`windows_over`, without the divisions: the windows move on from those over an earlier pixel."""
    while first * stride + span <= pixel:
        first += 1
    while last < outputs and last * stride <= pixel:
        last += 1
    return first, last


@inline
def lanes_before(elements: int, spacing: int) -> int:
    """How many lanes lie before an element, where they are ``spacing`` elements apart and lane 0 is element 0."""
    return (elements + spacing - 1) // spacing if elements > 0 else 0


@inline
def prefetch_rows(start: int, size: int) -> None:
    """Ask for memory that will be read soon.

    Windows that overlap read several rows of one page in turns, a pattern that no processor foresees: of 3x3 windows with
    stride 2, asking doubles the speed.
    """
    for place in range(start + BYTES_AHEAD, start + BYTES_AHEAD + size, 64):
        prefetch(place)


@inline
def store_row(even: Any, odd: Any, row: int, column: int, width: int, step: int, real: Any) -> None:
    """Write a vector of pixels from ``column`` on, or with a step of 2 two vectors woven together, as far as the row goes."""
    place, lanes, size = row + column * size_of(real), lane_count(real), size_of(real)
    if step == 1:
        store_between(-column, width - column, even, place, real)
    else:
        store_between(-column, width - column, woven_low(even, odd), place, real)
        store_between(-column - lanes, width - column - lanes, woven_high(even, odd), place + lanes * size, real)


@inline
def keep_better(best: Any, code: Any, value: Any, code_of_value: Any) -> tuple[Any, Any]:
    """In each lane the greater value, or the first NaN, and the code that goes with it."""
    wins = beats(value, best)
    return choose(wins, value, best), choose(wins, code_of_value, code)


# ---- windows of 2x2 that lie side by side --------------------------------------------------------------------------------


@functools.cache
def _quarters(real: Any) -> CompiledFunction:
    """The commonest pooling by far, 2x2 with stride 2 and no padding, in planes: each row of pixels is read once.

    The general kernels compute the same; on the narrow images that such pooling ends in they need twice the time.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    code_type = types.int32 if size == 4 else types.int64

    @task(_Pooling)
    def quarters(worker: int, workers: int, a: Any) -> None:
        x_end, y, indices, is_mean = a.x_end, a.y, a.indices, a.operation == MEAN
        height, width, output_height, output_width = a.height, a.width, a.output_height, a.output_width
        first, end = worker * (a.planes * output_height) // workers, (worker + 1) * (a.planes * output_height) // workers
        row = first % output_height
        upper = a.x + (first // output_height * height + 2 * row) * width * size
        zero, quarter = spread(0.0, real, real), spread(0.25, real, real)
        here, right = spread(0, code_type, real), spread(1, code_type, real)
        below, below_right = spread(width, code_type, real), spread(width + 1, code_type, real)
        for line in range(first, end):
            lower = upper + width * size
            prefetch_rows(lower + width * size, 2 * width * size)
            for output in range(0, output_width, lanes):
                high, low = upper + 2 * output * size, lower + 2 * output * size
                if low + 2 * lanes * size <= x_end:
                    high_1, high_2 = load(high, zero), load(high + lanes * size, zero)
                    low_1, low_2 = load(low, zero), load(low + lanes * size, zero)
                else:
                    mask = lanes_between(0, width - 2 * output, real)
                    high_1, low_1 = load_where(mask, high, zero), load_where(mask, low, zero)
                    mask = lanes_between(0, width - 2 * output - lanes, real)
                    high_2, low_2 = load_where(mask, high + lanes * size, zero), load_where(mask, low + lanes * size, zero)
                target = line * output_width + output
                if indices != 0:
                    best, code = keep_better(evens(high_1, high_2), here, odds(high_1, high_2), right)
                    best, code = keep_better(best, code, evens(low_1, low_2), below)
                    best, code = keep_better(best, code, odds(low_1, low_2), below_right)
                    places = plus(widened(code), count_up(2 * (row * width + output), 2, real))
                    store_between(0, output_width - output, places, indices + target * 8, real)
                elif is_mean:
                    both_1, both_2 = plus(high_1, low_1), plus(high_2, low_2)
                    best = times(plus(evens(both_1, both_2), odds(both_1, both_2)), quarter)
                else:
                    both_1, both_2 = larger(low_1, high_1), larger(low_2, high_2)
                    best = larger(odds(both_1, both_2), evens(both_1, both_2))
                store_between(0, output_width - output, best, y + target * size, real)
            upper = lower + width * size
            row += 1
            if row == output_height:
                row = 0
                upper += (height - 2 * output_height) * width * size

    return quarters


@functools.cache
def _quarters_backward(real: Any) -> CompiledFunction:
    """The gradient of the same pooling: each gradient is read once, for the two rows of pixels that it goes to."""
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_Pooling)
    def quarters_backward(worker: int, workers: int, a: Any) -> None:
        y, indices = a.y, a.indices
        height, width, output_height, output_width = a.height, a.width, a.output_height, a.output_width
        first, end = worker * (a.planes * output_height) // workers, (worker + 1) * (a.planes * output_height) // workers
        row = first % output_height
        upper = a.x + (first // output_height * height + 2 * row) * width * size
        zero, quarter, nowhere = spread(0.0, real, real), spread(0.25, real, real), spread(-1, integer, real)
        here, right = spread(0, integer, real), spread(1, integer, real)
        below, below_right = spread(width, integer, real), spread(width + 1, integer, real)
        for line in range(first, end):
            lower = upper + width * size
            for output in range(0, output_width, lanes):
                source = line * output_width + output
                gradient = load_between(0, output_width - output, y + source * size, zero, real)
                if indices == 0:
                    share = times(gradient, quarter)
                    store_row(share, share, upper, 2 * output, width, 2, real)
                    store_row(share, share, lower, 2 * output, width, 2, real)
                else:
                    winners = load_between(0, output_width - output, indices + source * 8, nowhere, real)
                    code = plus(winners, count_up(-2 * (row * width + output), -2, real))
                    even, odd = choose(equal(code, here), gradient, zero), choose(equal(code, right), gradient, zero)
                    store_row(even, odd, upper, 2 * output, width, 2, real)
                    even = choose(equal(code, below), gradient, zero)
                    odd = choose(equal(code, below_right), gradient, zero)
                    store_row(even, odd, lower, 2 * output, width, 2, real)
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

    return quarters_backward


# ---- forward -------------------------------------------------------------------------------------------------------------


@functools.cache
def _values(real: Any, operation: int) -> CompiledFunction:
    """Every maximum or mean: first the rows of a window become one, then the columns of that.

    A window of KH x KW taps then costs KH + KW. The row in between lies in scratch memory, between margins that no window
    notices, so that the columns are read without a mask.

    Args:
        real: Dtype.
        operation: MAXIMUM or MEAN.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_Pooling)
    def values(worker: int, workers: int, a: Any) -> None:
        x, y, height, channels = a.x, a.y, a.height, a.channels
        output_height, kernel_height, kernel_width = a.output_height, a.kernel_height, a.kernel_width
        stride_height, dilation_height, top_padding = a.stride_height, a.dilation_height, a.top
        all_column_counts, row_counts = a.column_factors, pointer(a.row_factors, real)
        column_counts = pointer(all_column_counts, real)
        # The outputs that lie side by side are a row of pixels, or the channels of one pixel.
        groups, outputs, spacing = (1, a.output_width, a.stride_width) if channels == 1 else (a.output_width, channels, 1)
        group_step, pitch = a.stride_width * channels * size, a.dilation_width * channels * size
        first, end = worker * (a.planes * output_height) // workers, (worker + 1) * (a.planes * output_height) // workers
        worst = spread(0.0 if operation == MEAN else -math.inf, real, real)
        scratch = a.scratch + worker * a.scratch_pitch
        for place in range(0, a.scratch_pitch - lanes * size, lanes * size):
            store(worst, scratch + place)
        image_row, row = scratch + a.left * channels * size, a.width * channels
        row_pitch = dilation_height * row * size
        new_rows = min(stride_height, a.span_height)
        rows_ahead = stride_height + a.span_height - new_rows
        plane, out_row = first // output_height, first % output_height
        for line in range(first, end):
            top = out_row * stride_height - top_padding
            first_tap, last_tap = taps_inside(top, kernel_height, dilation_height, height)
            source = x + (plane * height + top + first_tap * dilation_height) * row * size
            prefetch_rows(x + (plane * height + top + rows_ahead) * row * size, new_rows * row * size)
            for element in range(0, row, lanes):
                best = worst
                for tap in range(last_tap - first_tap):
                    value = load_between(0, row - element, source + tap * row_pitch + element * size, worst, real)
                    best = plus(best, value) if operation == MEAN else larger(value, best)
                store(best, image_row + element * size)
            for group in range(groups):
                for output in range(0, outputs, lanes):
                    best = worst
                    start = scratch + group * group_step + output * spacing * size
                    if spacing == 2 and pitch == size:
                        # The taps two by two: the even places are what the first sees, the odd ones the second.
                        for tap in range(0, kernel_width, 2):
                            low, high = load(start + tap * size, worst), load(start + (tap + lanes) * size, worst)
                            best = plus(best, evens(low, high)) if operation == MEAN else larger(evens(low, high), best)
                            if tap + 1 < kernel_width:
                                best = plus(best, odds(low, high)) if operation == MEAN else larger(odds(low, high), best)
                    elif spacing == 1:
                        for tap in range(kernel_width):
                            value = load(start + tap * pitch, worst)
                            best = plus(best, value) if operation == MEAN else larger(value, best)
                    else:
                        mask = lanes_between(0, outputs - output, real)
                        for tap in range(kernel_width):
                            value = gather_where(mask, start + tap * pitch, spacing, worst)
                            best = plus(best, value) if operation == MEAN else larger(value, best)
                    if operation == MEAN:
                        if channels == 1:
                            columns = load(all_column_counts + output * size, worst)
                        else:
                            columns = spread(column_counts[group], real, real)
                        best = over(best, times(columns, spread(row_counts[out_row], real, real)))
                    target = y + ((line * groups + group) * outputs + output) * size
                    store_between(0, outputs - output, best, target, real)
            out_row += 1
            if out_row == output_height:
                plane, out_row = plane + 1, 0

    return values


@functools.cache
def _places_in_rows(real: Any, code_type: Any, taps: int) -> CompiledFunction:
    """Every maximum of planes with its place: the lanes are windows side by side.

    Args:
        real: Dtype.
        code_type: Dtype that holds a position in an image.
        taps: Width of the window; 0 where that is to be read from ``kernel_width``.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_Pooling)
    def places_in_rows(worker: int, workers: int, a: Any) -> None:
        x_end, y, indices, width, outputs = a.x_end, a.y, a.indices, a.width, a.output_width
        stride, dilation_height, dilation = a.stride_width, a.dilation_height, a.dilation_width
        kernel_width = a.kernel_width if taps == 0 else taps
        lines, row_pitch = a.planes * a.output_height, dilation_height * width
        worst = spread(-math.inf, real, real)
        new_rows = min(a.stride_height, a.span_height)
        rows_ahead = a.stride_height + a.span_height - new_rows
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            top = line % a.output_height * a.stride_height - a.top
            first, last = taps_inside(top, a.kernel_height, dilation_height, a.height)
            origin = line // a.output_height * a.height + top
            image_row = a.x + origin * width * size
            prefetch_rows(image_row + rows_ahead * width * size, new_rows * width * size)
            for output in range(0, outputs, lanes):
                count = min(lanes, outputs - output)
                left = output * stride - a.left
                reach = left + (kernel_width - 1) * dilation
                inside = left >= 0 and reach + (count - 1) * stride < width and stride <= 2
                # The lanes behind the last output may see what they like, as long as it is memory of x.
                inside = inside and image_row + ((last - 1) * row_pitch + reach + lanes * stride) * size <= x_end
                best, code = worst, spread(first * row_pitch, code_type, real)
                if left < 0:
                    # Where all values are -inf the first one wins that is no padding.
                    for tap in range(kernel_width - 1, -1, -1):
                        is_inside = lanes_between(lanes_before(-left - tap * dilation, stride), lanes, real)
                        code = choose(is_inside, spread(first * row_pitch + tap * dilation, code_type, real), code)
                for tap_row in range(first, last):
                    for tap in range(kernel_width):
                        place = left + tap * dilation
                        source = image_row + (tap_row * row_pitch + place) * size
                        if inside:
                            value = load(source, worst)
                            if stride == 2:
                                value = evens(value, load(source + lanes * size, worst))
                        elif stride <= 2:
                            value = load_between(-place, width - place, source, worst, real)
                            if stride == 2:
                                far, far_source = place + lanes, source + lanes * size
                                value = evens(value, load_between(-far, width - far, far_source, worst, real))
                        else:
                            begin, end = lanes_before(-place, stride), lanes_before(width - place, stride)
                            value = gather_where(lanes_between(begin, min(end, count), real), source, stride, worst)
                        number = spread(tap_row * row_pitch + tap * dilation, code_type, real)
                        best, code = keep_better(best, code, value, number)
                target = line * outputs + output
                store_between(0, count, best, y + target * size, real)
                places = plus(widened(code), count_up(top * width + left, stride, real))
                store_between(0, count, places, indices + target * 8, real)

    return places_in_rows


@functools.cache
def _pixels(real: Any, code_type: Any) -> CompiledFunction:
    """Every maximum, with or without its place, or mean: the lanes are the channels of one pixel, and no tap needs a mask.

    Args:
        real: Dtype.
        code_type: Dtype that holds a position in an image.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_Pooling)
    def pixels(worker: int, workers: int, a: Any) -> None:
        y, indices, is_mean, width, channels = a.y, a.indices, a.operation == MEAN, a.width, a.channels
        row_counts, column_counts = pointer(a.row_factors, real), pointer(a.column_factors, real)
        kernel_width, dilation_height, dilation_width = a.kernel_width, a.dilation_height, a.dilation_width
        lines, outputs, row, pitch = a.planes * a.output_height, a.output_width, width * channels, dilation_width * channels
        zero, lowest = spread(0.0, real, real), spread(-math.inf, real, real)
        new_rows = min(a.stride_height, a.span_height)
        rows_ahead = a.stride_height + a.span_height - new_rows
        ahead = new_rows * row * size // outputs
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            out_row = line % a.output_height
            top = out_row * a.stride_height - a.top
            first, last = taps_inside(top, a.kernel_height, dilation_height, a.height)
            image_row = a.x + (line // a.output_height * a.height + top) * row * size
            for output in range(outputs):
                prefetch_rows(image_row + rows_ahead * row * size + output * ahead, ahead)
                left = output * a.stride_width - a.left
                begin, end = taps_inside(left, kernel_width, dilation_width, width)
                for channel in range(0, channels, lanes):
                    corner, count = image_row + (left * channels + channel) * size, channels - channel
                    target = (line * outputs + output) * channels + channel
                    best, total = lowest, zero
                    code = spread(first * dilation_height * width + begin * dilation_width, code_type, real)
                    for tap_row in range(first, last):
                        source = corner + tap_row * dilation_height * row * size
                        if is_mean:
                            sum_of_row = zero
                            for tap in range(begin, end):
                                sum_of_row = plus(sum_of_row, load_between(0, count, source + tap * pitch * size, zero, real))
                            total = plus(total, sum_of_row)
                        elif indices == 0:
                            for tap in range(begin, end):
                                best = larger(load_between(0, count, source + tap * pitch * size, lowest, real), best)
                        else:
                            for tap in range(begin, end):
                                value = load_between(0, count, source + tap * pitch * size, lowest, real)
                                number = spread(tap_row * dilation_height * width + tap * dilation_width, code_type, real)
                                best, code = keep_better(best, code, value, number)
                    if is_mean:
                        best = over(total, spread(column_counts[output] * row_counts[out_row], real, real))
                    store_between(0, count, best, y + target * size, real)
                    if indices != 0:
                        places = plus(widened(code), spread(top * width + left, types.int64, real))
                        store_between(0, count, places, indices + target * 8, real)

    return pixels


@functools.cache
def _runs(real: Any) -> CompiledFunction:
    """Every output of windows that are long rows: the lanes are neighbouring pixels of one window, joined at its end."""
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_Pooling)
    def runs(worker: int, workers: int, a: Any) -> None:
        lines, is_mean, with_places = a.planes * a.output_height, a.operation == MEAN, a.indices != 0
        zero, lowest = spread(0.0, real, real), spread(-math.inf, real, real)
        scratch = a.scratch + worker * a.scratch_pitch
        values, codes = pointer(scratch, real), pointer(scratch + lanes * size, integer)
        row_counts, column_counts = pointer(a.row_factors, real), pointer(a.column_factors, real)
        y, indices = pointer(a.y, real), pointer(a.indices, integer)
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            out_row = line % a.output_height
            top = out_row * a.stride_height - a.top
            first, last = taps_inside(top, a.kernel_height, a.dilation_height, a.height)
            for output in range(a.output_width):
                begin = max(0, output * a.stride_width - a.left)
                end = min(a.width, output * a.stride_width - a.left + a.kernel_width)
                # Where all values are -inf the first one wins. A lane without a pixel comes behind it.
                best, total, code = lowest, zero, count_up((top + first * a.dilation_height) * a.width + begin, 1, real)
                for tap_row in range(first, last):
                    row = top + tap_row * a.dilation_height
                    source = a.x + (line // a.output_height * a.height + row) * a.width * size
                    if is_mean:
                        sum_of_row = zero  # added row by row, which keeps the rounding errors of large windows small
                        for column in range(begin, end, lanes):
                            value = load_between(0, end - column, source + column * size, zero, real)
                            sum_of_row = plus(sum_of_row, value)
                        total = plus(total, sum_of_row)
                    elif with_places:
                        for column in range(begin, end, lanes):
                            value = load_between(0, end - column, source + column * size, lowest, real)
                            best, code = keep_better(best, code, value, count_up(row * a.width + column, 1, real))
                    else:
                        for column in range(begin, end, lanes):
                            best = larger(load_between(0, end - column, source + column * size, lowest, real), best)
                store(total if is_mean else best, scratch)
                store(code, scratch + lanes * size)
                result, place = values[0], codes[0]
                for lane in range(1, lanes):
                    value_of_lane, place_of_lane = values[lane], codes[lane]
                    if is_mean:
                        result += value_of_lane
                    else:
                        is_nan, was_nan = value_of_lane != value_of_lane, result != result
                        tied = value_of_lane == result or (is_nan and was_nan)
                        greater = value_of_lane > result or (is_nan and not was_nan)
                        if greater or (tied and place_of_lane < place):
                            result, place = value_of_lane, place_of_lane
                target = line * a.output_width + output
                y[target] = result / (column_counts[output] * row_counts[out_row]) if is_mean else result
                if with_places:
                    indices[target] = place

    return runs


# ---- gradient of the maximum ---------------------------------------------------------------------------------------------


@functools.cache
def _maximum_backward_of_rows(real: Any, taps: int) -> CompiledFunction:
    """Every pixel of planes, gathered from the windows that it won. The stride is 1 or 2.

    With stride 2 the even places of the padded row are seen by the even taps alone, the odd ones by the odd taps: a vector
    of each is gathered, lane i of both from window ``first + i``, and the two are woven together.

    Args:
        real: Dtype.
        taps: Width of the window; 0 where that is to be read from ``kernel_width``.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_Pooling)
    def maximum_backward_of_rows(worker: int, workers: int, a: Any) -> None:
        dx, dy, indices, height, width = a.x, a.y, a.indices, a.height, a.width
        output_height, output_width, span_height = a.output_height, a.output_width, a.span_height
        kernel_width = a.kernel_width if taps == 0 else taps
        stride_height, dilation_height, dilation_width = a.stride_height, a.dilation_height, a.dilation_width
        top, left, step = a.top, a.left, a.stride_width
        lines = a.planes * height
        zero, nowhere = spread(0.0, real, real), spread(-1, integer, real)
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            row, plane = line % height, line // height
            first, last = windows_over(row + top, span_height, stride_height, output_height)
            for window in range(left // step, (left + width - 1) // step + 1, lanes):
                column = window * step - left
                even, odd = zero, zero
                here = count_up(row * width + column, step, real)
                right = count_up(row * width + column + 1, step, real)
                for out_row in range(first, last):
                    if dilation_height > 1 and (row + top - out_row * stride_height) % dilation_height != 0:
                        continue
                    source = (plane * output_height + out_row) * output_width
                    for tap in range(kernel_width):
                        offset = tap * dilation_width
                        out = window - (offset >> (step - 1))
                        if out >= output_width or out + lanes <= 0:
                            continue
                        winners = load_between(-out, output_width - out, indices + (source + out) * 8, nowhere, real)
                        gradient = load_between(-out, output_width - out, dy + (source + out) * size, zero, real)
                        if offset & (step - 1) == 0:
                            even = plus(even, choose(equal(winners, here), gradient, zero))
                        else:
                            odd = plus(odd, choose(equal(winners, right), gradient, zero))
                store_row(even, odd, dx + line * width * size, column, width, step, real)

    return maximum_backward_of_rows


@functools.cache
def _maximum_backward_of_pixels(real: Any) -> CompiledFunction:
    """Every pixel, all its channels from each window that covers it."""
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_Pooling)
    def maximum_backward_of_pixels(worker: int, workers: int, a: Any) -> None:
        lines = a.planes * a.height
        zero, nowhere = spread(0.0, real, real), spread(-1, integer, real)
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            row, plane = line % a.height, line // a.height
            first, last = windows_over(row + a.top, a.span_height, a.stride_height, a.output_height)
            begin, end = 0, 0
            for column in range(a.width):
                place = column + a.left
                begin, end = next_windows_over(begin, end, place, a.span_width, a.stride_width, a.output_width)
                here = spread(row * a.width + column, integer, real)
                target = a.x + (line * a.width + column) * a.channels * size
                for channel in range(0, a.channels, lanes):
                    count, total = a.channels - channel, zero
                    for out_row in range(first, last):
                        if a.dilation_height > 1 and (row + a.top - out_row * a.stride_height) % a.dilation_height != 0:
                            continue
                        for out in range(begin, end):
                            if a.dilation_width > 1 and (place - out * a.stride_width) % a.dilation_width != 0:
                                continue
                            source = ((plane * a.output_height + out_row) * a.output_width + out) * a.channels + channel
                            winners = load_between(0, count, a.indices + source * 8, nowhere, real)
                            gradient = load_between(0, count, a.y + source * size, zero, real)
                            total = plus(total, choose(equal(winners, here), gradient, zero))
                    store_between(0, count, total, target + channel * size, real)

    return maximum_backward_of_pixels


@functools.cache
def _scatter(real: Any) -> CompiledFunction:
    """Every value of ``y``, put where its index says: added to what is there, or in place of it (unpooling).

    For windows with so many taps, or so far apart, that few of the pixels that a window covers are its own. A worker writes
    rows of its own, a stretch at a time that stays in the cache, and passes over what belongs elsewhere.
    """
    size = np.dtype(str(real)).itemsize
    integer = types.int64

    @task(_Pooling)
    def scatter(worker: int, workers: int, a: Any) -> None:
        lines = a.planes * a.height
        line, end = worker * lines // workers, (worker + 1) * lines // workers
        dy, indices, is_unpooling = pointer(a.y, real), pointer(a.indices, integer), a.operation == UNPOOLING
        # The compiler cannot know that x is not the memory of the arguments, and would read them anew for each value.
        width, channels, output_height, output_width = a.width, a.channels, a.output_height, a.output_width
        stride_width, left_padding, span_height, span_width = a.stride_width, a.left, a.span_height, a.span_width
        dilation_height, dilation_width = a.dilation_height, a.dilation_width
        is_dilated = dilation_height > 1 or dilation_width > 1
        rows_per_pixel = 1.0 / width
        together = a.height if is_unpooling else max(span_height, SCATTERED_BYTES // (width * channels * size) + 1)
        while line < end:
            plane, row = line // a.height, line % a.height
            rows = min(min(a.height - row, end - line), together)
            dx = pointer(a.x + plane * a.height * width * channels * size, real)
            low, high = row * width, (row + rows) * width
            for element in range(low * channels, high * channels):
                dx[element] = real(0)
            first, last = 0, output_height
            if not is_unpooling:
                first, _ = windows_over(row + a.top, span_height, a.stride_height, output_height)
                _, last = windows_over(row + rows - 1 + a.top, span_height, a.stride_height, output_height)
            for out_row in range(first, last):
                top = out_row * a.stride_height - a.top
                for out in range(output_width):
                    left = out * stride_width - left_padding
                    source = ((plane * output_height + out_row) * output_width + out) * channels
                    for channel in range(channels):
                        place = indices[source + channel]
                        if low <= place < high:
                            target = place * channels + channel
                            if is_unpooling:
                                dx[target] = dy[source + channel]
                                continue
                            # An index that lies outside of its window is none that pooling gave.
                            place_row = int((place + 0.5) * rows_per_pixel)  # never near enough to a whole number to err
                            down = place_row - top
                            right = place - place_row * width - left
                            is_tap = 0 <= down < span_height and 0 <= right < span_width
                            if is_dilated:
                                is_tap = is_tap and down % dilation_height == 0 and right % dilation_width == 0
                            if is_tap:
                                dx[target] += dy[source + channel]
            line += rows

    return scatter


# ---- gradient of the mean ------------------------------------------------------------------------------------------------


@functools.cache
def _mean_backward(real: Any, step: int) -> CompiledFunction:
    """Every row of pixels: first the shares of the windows above each other are summed, then those beside each other.

    Rows that the same windows cover are equal, and only the first is computed.

    Args:
        real: Dtype.
        step: 2 where the lanes are pixels and the stride is 2; 0 for everything else.
    """
    lanes, size = lanes_of(np.dtype(str(real))), np.dtype(str(real)).itemsize

    @task(_Pooling)
    def mean_backward(worker: int, workers: int, a: Any) -> None:
        dx, dy, height, width, channels, top, left = a.x, a.y, a.height, a.width, a.channels, a.top, a.left
        output_height, output_width, kernel_height = a.output_height, a.output_width, a.kernel_height
        kernel_width, stride_height, stride_width = a.kernel_width, a.stride_height, (a.stride_width if step == 0 else step)
        row_shares, column_shares, column_shares_at = (
            pointer(a.row_factors, real),
            pointer(a.column_factors, real),
            a.column_factors,
        )
        lines, row_size, by_channel = a.planes * height, width * channels, channels > 1 and step == 0
        groups, outputs = (output_width, channels) if by_channel else (1, output_width)
        # Tap by tap the neighbours of a vector of pixels are read; for long windows it is cheaper to go through the windows.
        by_tap = stride_width <= 2 and kernel_width <= 4 * min(output_width, (lanes + kernel_width) // stride_width)
        even_taps = kernel_width if stride_width == 1 else (kernel_width + 1) // 2
        zero = spread(0.0, real, real)
        scratch = a.scratch + worker * a.scratch_pitch
        for place in range(0, a.scratch_pitch - lanes * size, lanes * size):
            store(zero, scratch + place)
        # Windows before the first and behind the last have no share: with zeros there, no load needs a mask.
        sums = scratch + (kernel_width + lanes) // lanes * lanes * size
        sum_of = pointer(sums, real)
        first, last, known = 0, 0, -1
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            row, plane = line % height, line // height
            target = dx + line * row_size * size
            before = first, last, known
            first, last = windows_over(row + top, kernel_height, stride_height, output_height)
            known = plane
            if before == (first, last, known):
                for place in range(0, row_size, lanes):
                    copied = load_between(0, row_size - place, target + (place - row_size) * size, zero, real)
                    store_between(0, row_size - place, copied, target + place * size, real)
                continue
            for group in range(groups):
                for output in range(0, outputs, lanes):
                    if by_channel:
                        columns = spread(column_shares[group], real, real)
                    else:
                        columns = load(column_shares_at + output * size, zero)
                    total = zero
                    for out_row in range(first, last):
                        source = ((plane * output_height + out_row) * groups + group) * outputs + output
                        gradient = load_between(0, outputs - output, dy + source * size, zero, real)
                        share = times(columns, spread(row_shares[out_row], real, real))
                        total = plus(total, times(gradient, share))
                    store(total, sums + (group * outputs + output) * size)
            if by_channel:
                begin, end = 0, 0
                for column in range(width):
                    begin, end = next_windows_over(begin, end, column + left, kernel_width, stride_width, output_width)
                    for channel in range(0, channels, lanes):
                        total = zero
                        for out in range(begin, end):
                            total = plus(total, load(sums + (out * channels + channel) * size, zero))
                        place = target + (column * channels + channel) * size
                        store_between(0, channels - channel, total, place, real)
            elif by_tap:
                for window in range(left // stride_width, (left + width - 1) // stride_width + 1, lanes):
                    even, odd = zero, zero
                    for out in range(even_taps):
                        even = plus(even, load(sums + (window - out) * size, zero))
                    for out in range(kernel_width - even_taps):
                        odd = plus(odd, load(sums + (window - out) * size, zero))
                    store_row(even, odd, target, window * stride_width - left, width, stride_width, real)
            else:
                for column in range(0, width, lanes):
                    total = zero
                    place = column + left
                    begin, _ = windows_over(place, kernel_width, stride_width, output_width)
                    _, end = windows_over(place + lanes - 1, kernel_width, stride_width, output_width)
                    for out in range(begin, end):
                        offset = out * stride_width - place
                        mask = lanes_between(offset, offset + kernel_width, real)
                        total = plus(total, choose(mask, spread(sum_of[out], real, real), zero))
                    store_between(0, width - column, total, target + column * size, real)

    return mean_backward


# ---- looking at indices ------------------------------------------------------------------------------------------------


@functools.cache
def _count_misplaced() -> CompiledFunction:
    @task(_Positions)
    def count_misplaced(worker: int, workers: int, a: Any) -> None:
        count, lines = 0, a.planes * a.rows
        for line in range(worker * lines // workers, (worker + 1) * lines // workers):
            top = line % a.rows * a.stride_h - a.top
            positions = pointer(a.indices + line * a.columns * a.channels * 8, numba.int64)
            if a.channels == 1:
                for j in range(a.columns):
                    count += _is_misplaced(a, positions[j], top, j * a.stride_w - a.left)
            else:
                for j in range(a.columns):
                    for channel in range(a.channels):
                        count += _is_misplaced(a, positions[j * a.channels + channel], top, j * a.stride_w - a.left)
        pointer(a.counts, numba.int64)[worker] = count

    return count_misplaced


@inline
def _is_misplaced(a: Any, position: int, top: int, left: int) -> int:
    # The row by a product, not a quotient of integers, which no register computes: exact for images below 2**51 pixels, since
    # half a pixel is added and the product is that much away from a whole number.
    row = numba.int64((numba.float64(position) + 0.5) * a.one_row)
    down, right = row - top, position - row * a.width - left
    misplaced = (position < 0) | (position >= a.height * a.width)
    misplaced |= (down < 0) | (down >= a.span_h) | (right < 0) | (right >= a.span_w)
    if a.dilation_h > 1:
        misplaced |= down % a.dilation_h != 0
    if a.dilation_w > 1:
        misplaced |= right % a.dilation_w != 0
    count: int = numba.int64(misplaced)
    return count
