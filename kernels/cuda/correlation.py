"""Convolution forward and back to its input as an implicit matrix product: the host side of ``correlation.cu``.

Both are the same problem, a correlation; ``correlation.cuh`` says which, and how it is computed. Here it is laid out for a
launch: what is read and written, which phases there are, which tile suits, how many blocks share one, and how wide the copies
may be. All of that follows from the geometry, the dtype and the card: it is worked out once, and remembered.
"""

from __future__ import annotations

import functools
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.geometry import Conv2dGeometry
from xpconv.kernels.cuda import autotune
from xpconv.kernels.cuda.runtime import INT_REACH, Array, Runtime, ceil_div, index_type, runtime_of, type_name, vector_width
from xpconv.kernels.cuda.source import Record, record
from xpconv.kernels.cuda.splits import split_product, workspace
from xpconv.kernels.cuda.tiles import (
    DEEPEST,
    ENVIRONMENT_VARIABLE,
    Engine,
    TileShape,
    choose_engine,
    promising_tiles,
    shared_bytes,
)

_FILE, _TENSOR_FILE = "correlation.cu", "correlation_tensor.cu"
_THREADS = 256
# Blocks for each multiprocessor of kernels whose threads take one element after another.
_BLOCKS = 8


def forward(
    x: Array,
    w: Array,
    b: Array | None,
    geometry: Conv2dGeometry,
    relu: bool = False,
    tile: TileShape | None = None,
    splits: int | None = None,
) -> Array:
    """``y = conv2d(x, w) + b``, and ``max(y, 0)`` of it if ``relu``; of any geometry.

    Args:
        x: Images.
        w: Weight.
        b: Bias, or None.
        geometry: The convolution.
        relu: Whether negative results become zero; a NaN stays.
        tile: Shape of the tiles; None chooses.
        splits: Number of blocks that share a tile, each with a part of the sums; None chooses.
    """
    y = runtime_of(x).xp.empty(geometry.y_shape, x.dtype)
    if y.size:
        _correlate(_Correlation.of(geometry, False), x, w, b, y, relu, tile, splits)
    return y


def backward_input(
    dy: Array, w: Array, geometry: Conv2dGeometry, tile: TileShape | None = None, splits: int | None = None
) -> Array:
    """The gradient of the input, of any geometry; the arguments are those of :func:`forward`."""
    problem = _Correlation.of(geometry, True)
    dx = _room(runtime_of(dy), problem, geometry.x_shape, dy.dtype)
    if dx.size:
        _correlate(problem, dy, w, None, dx, False, tile, splits)
    return dx


@dataclass(frozen=True)
class _Correlation:
    # A convolution as its kernels see it: forward it reads x and writes y, backward it reads dy and writes dx. Channels and
    # filters are those of one group. Backward, the pixels that see tap t see the taps t + tap_step, t + 2 * tap_step, ..., too,
    # and no others: there are as many phases as first taps. Where they are fewer than the stride, no window ever saw the pixels
    # in between: the phases are not complete.
    geometry: Conv2dGeometry
    backward: bool
    channels: int
    filters: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    tap_step: tuple[int, int]
    phases: tuple[int, int]
    complete: bool
    pixels: int  # of the largest phase

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def of(geometry: Conv2dGeometry, backward: bool) -> _Correlation:
        channels, filters = geometry.channels // geometry.groups, geometry.filters // geometry.groups
        if not backward:
            pixels = geometry.batch * math.prod(geometry.output_size)
            sizes = geometry.size, geometry.output_size
            return _Correlation(geometry, False, channels, filters, *sizes, (1, 1), (1, 1), True, pixels)
        (stride_h, stride_w), (dilation_h, dilation_w) = geometry.stride, geometry.dilation
        tap_step = stride_h // math.gcd(stride_h, dilation_h), stride_w // math.gcd(stride_w, dilation_w)
        phases = min(geometry.kernel_size[0], tap_step[0]), min(geometry.kernel_size[1], tap_step[1])
        pixels = geometry.batch * ceil_div(geometry.size[0], stride_h) * ceil_div(geometry.size[1], stride_w)
        sizes, complete = (geometry.output_size, geometry.size), phases == geometry.stride
        return _Correlation(geometry, True, filters, channels, *sizes, tap_step, phases, complete, pixels)

    @property
    def last(self) -> bool:
        return self.geometry.data_format == "channels_last"

    @property
    def product(self) -> tuple[int, int]:
        # Rows and columns of the matrix product of one phase of one group.
        return (self.pixels, self.filters) if self.last else (self.filters, self.pixels)

    @property
    def phase_taps(self) -> int:
        # Taps of the phase that has the most.
        (kernel_h, kernel_w), (phases_h, phases_w) = self.geometry.kernel_size, self.phases
        return ceil_div(kernel_h, phases_h) * ceil_div(kernel_w, phases_w)

    @property
    def neighbours(self) -> int:
        # Elements that lie side by side and may be copied at once: channels, or pixels of 1x1 windows.
        geometry = self.geometry
        if self.last:
            return self.channels
        pointwise = geometry.kernel_size == geometry.stride == (1, 1) and geometry.padding == ((0, 0), (0, 0))
        return math.prod(self.in_size) if pointwise else 1

    @property
    def is_far(self) -> bool:
        # Whether offsets need 64 bits, be the arrays as small as they may: positions in the padded images, or the step from the
        # planes of one tile to the planes of the next.
        geometry = self.geometry
        return math.prod(self.in_size) >= INT_REACH // DEEPEST or any(
            size + sum(pads) + span >= INT_REACH // 4
            for size, pads, span in zip(geometry.size, geometry.padding, geometry.span, strict=True)
        )


@dataclass(frozen=True)
class _Plan:
    # A correlation laid out for a card.
    engine: Engine
    tile: TileShape
    splits: int
    grid: tuple[int, int]
    shared_memory: int
    packed_shape: tuple[int, int, int, int]
    problem: Record
    weights: Record


def _correlate(
    problem: _Correlation,
    source: Array,
    w: Array,
    b: Array | None,
    out: Array,
    relu: bool,
    tile: TileShape | None,
    splits: int | None,
) -> None:
    runtime, dtype = runtime_of(source), source.dtype
    engine = choose_engine(dtype, runtime)
    if tile is None and autotune.is_wanted(runtime):
        tile = autotune.fastest_tile(
            runtime,
            _FILE if engine == "cores" else _TENSOR_FILE,
            f"{dtype} {problem}",
            _promising_tiles(problem, dtype, engine, runtime),
            lambda tile: _correlate(problem, source, w, b, out, relu, tile, splits),
        )
    plan = _plan(problem, dtype, engine, runtime, b is not None, relu, tile, splits, os.environ.get(ENVIRONMENT_VARIABLE))
    packed = runtime.xp.empty(plan.packed_shape, dtype)
    sums = out
    if plan.splits > 1:
        sums = workspace(runtime, plan.splits, out.size, dtype)
        if not problem.complete:
            sums[...] = 0
    bias = packed if b is None else b
    index = "long long" if problem.is_far else index_type(source, out, packed, sums)
    type_, last = type_name(dtype), str(problem.last).lower()

    def launch(kernel: str, size: int, *arguments: Any) -> None:
        blocks = min(ceil_div(size, _THREADS), _BLOCKS * runtime.multiprocessors)
        runtime.launch(_FILE, kernel, (blocks,), (_THREADS,), arguments)

    flag = (runtime.xp.zeros if problem.backward else runtime.xp.empty)(1, np.int32)
    launch(f"pack_weights<{type_}, {index}>", packed.size // problem.geometry.taps, w, packed, flag, plan.weights)
    runtime.launch(
        _FILE if engine == "cores" else _TENSOR_FILE,
        f"{'correlate' if engine == 'cores' else 'correlate_tensor'}<{type_}, {index}, {last}, "
        f"{vector_width(problem.neighbours, source)}, {plan.tile.template_arguments()}, {str(plan.splits > 1).lower()}>",
        plan.grid,
        (plan.tile.threads,),
        (source, packed, bias, sums, plan.problem),
        shared_memory=plan.shared_memory,
    )
    if plan.splits > 1:
        kernel = f"add_correlation_splits<{type_}, {index}, {last}>"
        launch(kernel, out.size, sums, bias, out, plan.problem, np.int32(plan.splits))
    if problem.backward:
        kernel = f"correct_backward_input<{type_}, {index}, {last}>"
        launch(kernel, out.size, source, w, flag, out, plan.problem, plan.weights)


def _room(runtime: Runtime, problem: _Correlation, shape: tuple[int, ...], dtype: Any) -> Array:
    # For the results. Pixels that no window ever saw are zero.
    return (runtime.xp.empty if problem.complete else runtime.xp.zeros)(shape, dtype)


@functools.lru_cache(maxsize=1024)
def _plan(
    problem: _Correlation,
    dtype: np.dtype[Any],
    engine: Engine,
    runtime: Runtime,
    bias: bool,
    relu: bool,
    tile: TileShape | None,
    splits: int | None,
    forced_tile: str | None,
) -> _Plan:
    groups, taps = problem.geometry.groups, problem.geometry.taps
    phases, phase_taps = math.prod(problem.phases), problem.phase_taps
    if tile is None or splits is None:
        terms = phase_taps * problem.channels
        split = split_product(*problem.product, terms, groups * phases, dtype, engine, runtime, tile, splits)
        if tile is None:
            tile = split.tile if split.splits > 1 else _promising_tiles(problem, dtype, engine, runtime)[0]
        splits = split.splits
    steps = phase_taps * ceil_div(problem.channels, tile.depth)
    split_steps = ceil_div(steps, min(splits, steps))
    splits = ceil_div(steps, split_steps)

    tile_filters, tile_pixels = (tile.columns, tile.rows) if problem.last else (tile.rows, tile.columns)
    filter_tiles = ceil_div(problem.filters, tile_filters)
    packed_shape = groups, taps, ceil_div(problem.channels, tile.depth) * tile.depth, filter_tiles * tile_filters
    return _Plan(
        engine,
        tile,
        splits,
        (groups * phases * ceil_div(problem.pixels, tile_pixels) * filter_tiles, splits),
        shared_bytes(tile, dtype, engine, rows_along_depth=problem.last),
        packed_shape,
        _problem_record(problem, bias, relu, packed_shape, split_steps),
        _weights_record(problem, packed_shape),
    )


def _promising_tiles(problem: _Correlation, dtype: np.dtype[Any], engine: Engine, runtime: Runtime) -> list[TileShape]:
    products = problem.geometry.groups * math.prod(problem.phases)
    return promising_tiles(*problem.product, problem.channels, products, dtype, engine, runtime, problem.phase_taps)


def _problem_record(
    problem: _Correlation, bias: bool, relu: bool, packed_shape: tuple[int, int, int, int], split_steps: int
) -> Record:
    geometry = problem.geometry
    return record(
        "correlation.cuh",
        "Correlation",
        bias=bias,
        relu=relu,
        backward=problem.backward,
        packed_channels=packed_shape[2],
        packed_filters=packed_shape[3],
        batch=geometry.batch,
        groups=geometry.groups,
        channels=problem.channels,
        filters=problem.filters,
        in_size=problem.in_size,
        out_size=problem.out_size,
        in_plane=math.prod(problem.in_size),
        out_plane=math.prod(problem.out_size),
        taps=geometry.kernel_size,
        stride=geometry.stride,
        dilation=geometry.dilation,
        padding=(geometry.padding[0][0], geometry.padding[1][0]),
        tap_step=problem.tap_step,
        phases=problem.phases,
        split_steps=split_steps,
    )


def _weights_record(problem: _Correlation, packed_shape: tuple[int, int, int, int]) -> Record:
    geometry = problem.geometry
    taps, filters, channels = geometry.taps, geometry.filters // geometry.groups, geometry.channels // geometry.groups
    if problem.last:  # (KH, KW, C/groups, F)
        group, tap, of_channel, of_filter = filters, channels * geometry.filters, geometry.filters, 1
    else:  # (F, C/groups, KH, KW)
        group, tap, of_channel, of_filter = filters * channels * taps, 1, taps, channels * taps
    if problem.backward:
        of_channel, of_filter = of_filter, of_channel
    return record(
        _FILE,
        "Weights",
        groups=geometry.groups,
        taps=taps,
        channels=problem.channels,
        filters=problem.filters,
        packed_channels=packed_shape[2],
        packed_filters=packed_shape[3],
        group=group,
        tap=tap,
        channel=of_channel,
        filter=of_filter,
        look=problem.backward,
    )
