"""Convolution, bias, ReLU and max pooling in one pass: the maps between them never leave the cache.

The sums of a unit, (pixels, filters), are pooled where they were computed, lanes being filters; what leaves the unit is a
quarter of the maps with windows of 2 x 2. Of each window the number of the tap that won is kept, or :data:`NO_TAP` where ReLU
let nothing through, one byte a filter. From these and the gradient of the pooled maps a unit's share of the gradient of
the maps is rebuilt in the cache, and goes straight into the sums of the weights' gradient::

    forward    images -> tiles -> sums (pixels, filters) -> windows -> maxima (windows, filters) -> pooled maps
                                                                    -> winners, kept as they are
    backward   gradient of the pooled maps -> (windows, filters) -> by winners -> (pixels, filters) -> tiles -> gradient of w
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.geometry import Conv2dGeometry, Window2d
from xpconv.kernels.numba.compiler import CompiledFunction, inline, task
from xpconv.kernels.numba.conv2d import choose_algorithm, correlate_backward
from xpconv.kernels.numba.correlation import (
    Correlation,
    Plan,
    UnitArguments,
    backward_correlations,
    forward_correlation,
    source_of_unit,
    store,
    strides_of,
    unit_at,
)
from xpconv.kernels.numba.intrinsics import (
    INT64,
    VectorCode,
    block_width,
    lane_count,
    load_offset,
    multiply,
    size_of,
)
from xpconv.kernels.numba.memory import Array, address, borrowed, empty
from xpconv.kernels.numba.threads import run_with_scratch, thread_count
from xpconv.kernels.numba.weight_gradient import add_products, by_pixel, clear_sums, collect_and_add

# A tap number that no window has.
NO_TAP = 255
# Sums of one row of windows, in bytes, above which the block is not computed in one pass.
LARGEST_ROW = 2 << 20
# Gradient of the maps that is rebuilt at a time where the input needs one, too.
CHUNK_BYTES = 16 << 20


def fuses_conv2d_max_pool2d(convolution: Conv2dGeometry, pooling: Window2d, itemsize: int) -> bool:
    """Whether the block is one that the two functions below compute, and they are the fastest way to."""
    if choose_algorithm(forward_correlation(convolution), np.dtype(f"f{itemsize}")) == "winograd":
        return False  # faster than what is saved by not storing the maps
    row_bytes = pooling.kernel_size[0] * pooling.output_size[1] * pooling.kernel_size[1] * 48 * itemsize
    return (
        pooling.stride == pooling.kernel_size
        and pooling.dilation == (1, 1)
        and pooling.inside
        and pooling.taps < NO_TAP
        and row_bytes <= LARGEST_ROW
    )


def conv2d_max_pool2d_forward(
    x: Array, w: Array, b: Array, convolution: Conv2dGeometry, pooling: Window2d, relu: bool
) -> tuple[Array, Array]:
    """Convolve, add the bias, apply ReLU where asked for, and pool.

    Returns:
        The pooled maps, and what the backward pass needs of the maps.
    """
    fused = _fused(convolution, pooling, x.dtype, thread_count())
    plan = fused.plan
    y = empty(pooling.y_shape, x.dtype)
    winners = empty((pooling.batch, *pooling.output_size, plan.bias_elements), np.dtype(np.uint8))
    with borrowed(plan.packed_bytes) as packed:
        plan.pack(w, b, packed)
        arguments = fused.arguments(x, y, winners, relu)
        arguments.weights, arguments.bias = packed, packed + plan.packed_elements * x.itemsize
        run_with_scratch(_convolve_and_pool(plan.real), arguments, plan.workers, plan.scratch)
    return y, winners


def conv2d_max_pool2d_backward(
    x: Array,
    w: Array,
    y: Array,
    winners: Array,
    dy: Array,
    convolution: Conv2dGeometry,
    pooling: Window2d,
    relu: bool,
    input_gradient: bool,
) -> tuple[Array | None, Array, Array]:
    """Gradients of :func:`conv2d_max_pool2d_forward`, from its results.

    Returns:
        The gradient of the images (None unless ``input_gradient``), of the weight and of the bias.
    """
    fused = _fused(convolution, pooling, x.dtype, thread_count())
    arguments = fused.arguments(x, dy, winners, relu)
    dw, db = collect_and_add(_rebuild_and_collect(fused.plan.real), fused.plan, arguments, convolution)
    dx = _input_gradient(w, winners, dy, convolution, pooling) if input_gradient else None
    return dx, dw, db


class _Fused:
    def __init__(self, convolution: Conv2dGeometry, pooling: Window2d, dtype: np.dtype[Any], workers: int) -> None:
        (window_h, window_w), (height, width) = pooling.kernel_size, pooling.output_size
        problem = dataclasses.replace(
            forward_correlation(convolution),
            grid=(height * window_h, width * window_w),  # rows and columns that belong to no window are left out
            target=strides_of(pooling.y_shape, pooling.data_format),
        )
        self.plan = Plan(problem, dtype, workers, row_multiple=window_h)
        rows, columns = np.ogrid[:window_h, :window_w]
        self.window_places = (rows * width * window_w + columns).astype(np.int64)
        self.template = UnitArguments.from_buffer_copy(self.plan.template)
        self.template.window_places = address(self.window_places)
        self.template.window_h, self.template.window_w = window_h, window_w

    def arguments(self, x: Array, pooled: Array, winners: Array, relu: bool) -> UnitArguments:
        arguments = UnitArguments.from_buffer_copy(self.template)
        arguments.source, arguments.target = address(x), address(pooled)
        arguments.winners, arguments.relu = address(winners), int(relu)
        return arguments


@functools.lru_cache(maxsize=128)
def _fused(convolution: Conv2dGeometry, pooling: Window2d, dtype: np.dtype[Any], workers: int) -> _Fused:
    return _Fused(convolution, pooling, dtype, workers)


def _input_gradient(w: Array, winners: Array, dy: Array, convolution: Conv2dGeometry, pooling: Window2d) -> Array:
    # The gradient of the maps of some images at a time, (images, rows, columns, lanes), is the source of the correlations.
    dx = empty(convolution.x_shape, dy.dtype)
    rows, columns = (count * taps for count, taps in zip(pooling.output_size, pooling.kernel_size, strict=True))
    image_shape = (rows, columns, winners.shape[3])
    images = max(1, min(pooling.batch, CHUNK_BYTES // (math.prod(image_shape) * dy.itemsize)))
    memory = empty((images, *image_shape), dy.dtype)
    for start in range(0, pooling.batch, images):
        stop = min(pooling.batch, start + images)
        part = dataclasses.replace(convolution, batch=stop - start)
        fused = _fused(part, dataclasses.replace(pooling, batch=stop - start), dy.dtype, thread_count())
        maps = memory[: stop - start]
        arguments = fused.arguments(dx, dy[start:stop], winners[start:stop], False)
        arguments.weights = address(maps)
        run_with_scratch(_rebuild(fused.plan.real), arguments, fused.plan.workers, fused.plan.scratch)
        correlate_backward(_backward_from_maps(part, maps.shape), maps, w, dx[start:stop])
    return dx


@functools.lru_cache(maxsize=128)
def _backward_from_maps(convolution: Conv2dGeometry, shape: tuple[int, int, int, int]) -> tuple[Correlation, ...]:
    source = strides_of(shape, "channels_last")
    of_grid = dataclasses.replace(convolution, output_size=shape[1:3])
    return tuple(
        dataclasses.replace(problem, source=source, source_group=shape[3] // convolution.groups, planar=False)
        for problem in backward_correlations(of_grid)
    )


# ---- the kernels ---------------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _first_maximum(typing_context, real, taps, sums, places, pitch, relu, pooled, winners):  # type: ignore[no-untyped-def]
    """Maximum over the taps of a window in each lane, and which tap it was: the first of equal ones, the first NaN.

    With ``relu`` a lane whose maximum is not positive gives zero (NaN stays) and has no winner.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, taps, sums, places, pitch, relu, pooled, winners = arguments
        v = VectorCode(builder, real.dtype)
        zero, zeros = ir.Constant(v.type, [0.0] * v.lanes), ir.Constant(v.integers, [0] * v.lanes)

        def compare(tap: Any, best: list[Any]) -> list[Any]:
            maximum, winner = best
            value = v.load(v.at(sums, builder.mul(load_offset(v, places, tap), pitch)))
            # Greater or NaN, unless a NaN was there before.
            wins = builder.and_(builder.fcmp_unordered(">", value, maximum), builder.fcmp_ordered("ord", maximum, maximum))
            number = v.broadcast(builder.trunc(tap, v.integer) if v.itemsize < 8 else tap, v.integers)
            return [builder.select(wins, value, maximum), builder.select(wins, number, winner)]

        first = v.load(v.at(sums, builder.mul(load_offset(v, places, 0), pitch)))
        maximum, winner = v.loop(taps, [first, zeros], compare)
        without_relu = builder.icmp_signed("==", relu, INT64(0))
        for_all = v.broadcast(without_relu, ir.VectorType(ir.IntType(1), v.lanes))
        kept = builder.or_(for_all, builder.fcmp_unordered(">", maximum, zero))
        won = builder.or_(for_all, builder.fcmp_ordered(">", maximum, zero))
        none = ir.Constant(v.integers, [NO_TAP] * v.lanes)
        v.store(builder.select(kept, maximum, zero), pooled)
        numbers = builder.trunc(builder.select(won, winner, none), ir.VectorType(ir.IntType(8), v.lanes))
        store = builder.store(numbers, builder.inttoptr(winners, numbers.type.as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 7), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _give_to_winners(typing_context, real, taps, gradient, winners, places, pitch, target):  # type: ignore[no-untyped-def]
    """Write to each tap of a window, in each lane, the gradient if the tap won, else zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, taps, gradient, winners, places, pitch, target = arguments
        v = VectorCode(builder, real.dtype)
        zero = ir.Constant(v.type, [0.0] * v.lanes)
        value = v.load(gradient)
        numbers = builder.load(builder.inttoptr(winners, ir.VectorType(ir.IntType(8), v.lanes).as_pointer()))
        numbers.align = 1
        winner = builder.zext(numbers, v.integers)

        def give(tap: Any, _: list[Any]) -> list[Any]:
            number = v.broadcast(builder.trunc(tap, v.integer) if v.itemsize < 8 else tap, v.integers)
            mine = builder.select(builder.icmp_signed("==", winner, number), value, zero)
            v.store(mine, v.at(target, builder.mul(load_offset(v, places, tap), pitch)))
            return []

        v.loop(taps, [], give)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 6), generate


@functools.cache
def _convolve_and_pool(real: Any) -> CompiledFunction:
    @task(UnitArguments)
    def convolve_and_pool(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        band = a.scratch + worker * a.scratch_pitch
        sums = band + a.band_bytes
        pooled = sums + a.sums_bytes
        square = pooled + a.sums_bytes
        windows_w, taps, bytes_of_window = a.columns // a.window_w, a.window_h * a.window_w, a.groups * a.vectors * lanes
        for unit in range(worker * a.units // workers, (worker + 1) * a.units // workers):
            group, image, images, row, rows = unit_at(a, unit)
            windows_h = rows // a.window_h
            source = source_of_unit(real, a, group, image, images, row, rows, band)
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                pitch = width * lanes
                block = (group * a.vectors + done) * lanes
                weights = a.weights + block * a.depth * size
                pixels = images * rows * a.columns
                bias = a.bias + block * size
                multiply(
                    real, width, pixels, a.depth, source, a.pixel_places, a.step_places, weights, pitch, bias, 0, sums, pitch
                )
                for i in range(images * windows_h):
                    # Whole images follow each other, and parts of one image are alone: rows of windows can be counted through.
                    window = (image * (a.rows // a.window_h) + row // a.window_h + i) * windows_w
                    for j in range(windows_w):
                        pixel = i * a.window_h * a.columns + j * a.window_w
                        to = pooled + (i * windows_w + j) * pitch * size
                        winners = a.winners + (window + j) * bytes_of_window + block
                        for vector in range(width):
                            _first_maximum(
                                real,
                                taps,
                                sums + (pixel * pitch + vector * lanes) * size,
                                a.window_places,
                                pitch,
                                a.relu,
                                to + vector * lanes * size,
                                winners + vector * lanes,
                            )
                kept = min(pitch, a.filters - done * lanes)
                place = (group * a.filters + done * lanes) * a.target_channel + image * a.target_image
                place += row // a.window_h * a.target_row
                store(real, a, pooled, pitch, images, windows_h, windows_w, kept, a.target + place * size, sums, square)
                done += width

    return convolve_and_pool


@inline
def _rebuild_maps(
    real: Any,
    a: Any,
    group: int,
    image: int,
    images: int,
    row: int,
    rows: int,
    done: int,
    width: int,
    pooled: int,
    maps: int,
    maps_pitch: int,
    square: int,
) -> None:
    """The gradient of the maps of a unit for a block of filters, (pixels, lanes), from that of the pooled maps."""
    size, lanes = size_of(real), lane_count(real)
    pitch = width * lanes
    windows_h, windows_w = rows // a.window_h, a.columns // a.window_w
    kept = min(pitch, a.filters - done * lanes)
    place = (group * a.filters + done * lanes) * a.target_channel + image * a.target_image
    place += row // a.window_h * a.target_row
    by_pixel(real, a, a.target + place * size, images, windows_h * windows_w, kept, pooled, pitch, square)
    for i in range(images * windows_h):
        window = (image * (a.rows // a.window_h) + row // a.window_h + i) * windows_w
        for j in range(windows_w):
            pixel = i * a.window_h * a.columns + j * a.window_w
            winners = a.winners + ((window + j) * a.groups * a.vectors + group * a.vectors + done) * lanes
            for vector in range(width):
                _give_to_winners(
                    real,
                    a.window_h * a.window_w,
                    pooled + ((i * windows_w + j) * pitch + vector * lanes) * size,
                    winners + vector * lanes,
                    a.window_places,
                    maps_pitch,
                    maps + (pixel * maps_pitch + vector * lanes) * size,
                )


@functools.cache
def _rebuild_and_collect(real: Any) -> CompiledFunction:
    @task(UnitArguments)
    def rebuild_and_collect(worker: int, workers: int, a: Any) -> None:
        lanes = lane_count(real)
        part = worker % a.parts
        band = a.scratch + worker * a.scratch_pitch
        maps = band + a.band_bytes
        pooled = maps + a.sums_bytes
        square = pooled + a.sums_bytes
        clear_sums(real, a, worker)
        for unit in range(part * a.units // a.parts, (part + 1) * a.units // a.parts):
            group, image, images, row, rows = unit_at(a, unit)
            pixels = images * rows * a.columns
            source = source_of_unit(real, a, group, image, images, row, rows, band)
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                pitch = width * lanes
                _rebuild_maps(real, a, group, image, images, row, rows, done, width, pooled, maps, pitch, square)
                add_products(real, a, worker, width, pixels, source, maps, pitch, group * a.vectors + done)
                done += width

    return rebuild_and_collect


@functools.cache
def _rebuild(real: Any) -> CompiledFunction:
    """The gradient of the maps at ``weights``: (images, rows, columns, lanes)."""

    @task(UnitArguments)
    def rebuild(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        pooled = a.scratch + worker * a.scratch_pitch
        square = pooled + 2 * a.sums_bytes
        for unit in range(worker * a.units // workers, (worker + 1) * a.units // workers):
            group, image, images, row, rows = unit_at(a, unit)
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                pixel = (image * a.rows + row) * a.columns
                maps = a.weights + ((pixel * a.groups + group) * a.vectors + done) * lanes * size
                pitch = a.groups * a.vectors * lanes
                _rebuild_maps(real, a, group, image, images, row, rows, done, width, pooled, maps, pitch, square)
                done += width

    return rebuild
