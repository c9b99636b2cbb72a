"""Convolution of images with few channels in a group, and its gradients, from tiles of the images in shared memory.

See :file:`direct.cu`. Right for every convolution: what has no tile that fits is left to the kernels of
:mod:`xpconv.kernels.cuda.depthwise`, which keep nothing in shared memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpconv.geometry import Conv2dGeometry, Pair
from xpconv.kernels.cuda import depthwise
from xpconv.kernels.cuda.runtime import Array, Runtime, ceil_div, runtime_of, type_name, vector_width
from xpconv.kernels.cuda.source import record
from xpconv.kernels.cuda.windows import GRID_LIMIT, phases, pixels_of_phase, window_index_type, windows_record

FILE = "direct.cu"
# Channels of a group, forward, and filters of a group, back to the input, that count as few.
FEW_CHANNELS = 4
# A window that covers more pixels than this makes for tiles that are mostly border.
WIDEST_SPAN = 32
THREADS = 256
# Outputs below each other that a thread sums, for so many filters: 32 sums. Neighbouring lanes read different pixels and, where
# channels are first, the same weights, so more pixels than filters ask least of shared memory.
PIXELS = 8
FILTERS = 4
# Bytes of shared memory that a tile may take, unless a single channel needs more: several blocks share a multiprocessor.
TILE_BYTES = 32 << 10
LARGEST_TILE_BYTES = 48 << 10
# Columns of a tile, and threads along the filters where channels are last.
WIDEST_TILE = 64
MOST_LANES = 16
BANKS = 32
# Rows and columns of dy that a thread multiplies at once, as direct.cu has it.
CELL = 4


@dataclass(frozen=True)
class Tile:
    """The struct ``DirectTile``: how a block is laid out."""

    rows: int
    columns: int
    lanes: int
    row_tiles: int
    column_tiles: int
    filter_tiles: int
    channels: int
    in_rows: int
    in_columns: int
    split: int
    pitch: int
    plane: int
    tap_rows: int
    tap_columns: int


@dataclass(frozen=True)
class GradientTile:
    """The struct ``GradientTile``: how a block that sums gradients of weights is laid out."""

    rows: int
    columns: int
    row_tiles: int
    column_tiles: int
    filters: int
    channels: int
    parts: int
    filter_tiles: int
    channel_tiles: int
    in_rows: int
    in_columns: int
    pitch: int
    dy_elements: int
    elements: int


def suits(operation: str, geometry: Conv2dGeometry) -> bool:
    """Whether the kernels here are meant for this: ``operation`` is a function of this module."""
    few = geometry.channels // geometry.groups <= FEW_CHANNELS and max(geometry.span) <= WIDEST_SPAN
    if operation == "backward_weight":
        return few and depthwise.has_unrolled_gradient(geometry)
    return few


def forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, relu: bool) -> Array:
    """The convolution, with bias and the rectifier at once."""
    if geometry.batch == 0:
        return runtime_of(x).xp.empty(geometry.y_shape, x.dtype)
    y = _correlate(x, w, b, geometry, backward=False, relu=relu)
    return depthwise.forward(x, w, b, geometry, relu) if y is None else y


def backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """The gradient of ``x``: every pixel gathers from the outputs that have seen it."""
    dx = _correlate(dy, w, None, geometry, backward=True, relu=False)
    return depthwise.backward_input(dy, w, geometry) if dx is None else dx


def backward_weight(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """The gradients of ``w`` and ``b``: the sum over pixels in splits, and then of the splits."""
    runtime = runtime_of(x)
    if not depthwise.has_unrolled_gradient(geometry):
        return depthwise.backward_weight(x, dy, geometry)
    last = geometry.data_format == "channels_last"
    tile = choose_gradient_tile(geometry, max(4, x.dtype.itemsize))
    if tile is None:
        return depthwise.backward_weight(x, dy, geometry)
    blocks = geometry.groups * tile.filter_tiles * tile.channel_tiles
    tiles = geometry.batch * tile.row_tiles * tile.column_tiles
    count = depthwise.split_count(tiles, 1, ceil_div(runtime.multiprocessors * depthwise.BLOCKS_PER_MULTIPROCESSOR, blocks))
    splits = depthwise.gradient_splits(x, geometry, count)
    neighbours = math.gcd(tile.filters, geometry.filters // geometry.groups) if last else geometry.output_size[1]
    copy = min(CELL, vector_width(neighbours, dy))
    copying = (tile.filters if last else tile.columns) // copy  # threads that copy a line of dy, at least
    threads = 32 * ceil_div(max(tile.filters * tile.channels * tile.parts, copying), 32)
    size = max(2 * tile.elements, threads * geometry.kernel_size[1])
    runtime.launch(
        FILE,
        f"direct_weight_gradient<{type_name(x.dtype)}, {window_index_type(geometry, x, dy, splits)}, {str(last).lower()}, "
        f"{copy}, {geometry.kernel_size[0]}, {geometry.kernel_size[1]}, {geometry.stride[0]}>",
        (blocks, count),
        (threads,),
        (x, dy, splits, windows_record(geometry), record(FILE, "GradientTile", **vars(tile))),
        shared_memory=size * max(4, x.dtype.itemsize),
    )
    return depthwise.sum_of_splits(splits, x, geometry)


def _correlate(
    source: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, *, backward: bool, relu: bool
) -> Array | None:
    runtime = runtime_of(source)
    last = geometry.data_format == "channels_last"
    filters = (geometry.channels if backward else geometry.filters) // geometry.groups
    # A pixel is used for several filters, but none is multiplied for nothing where there is a single one.
    per_thread = 1 if filters == 1 else FILTERS
    tile = choose_tile(geometry, runtime, backward, per_thread, max(4, source.dtype.itemsize))
    if tile is None:
        return None
    target = runtime.xp.empty(geometry.x_shape if backward else geometry.y_shape, source.dtype)
    width = min(per_thread, vector_width(filters, target)) if last else 1
    stride = geometry.stride[0]
    unrolled = (
        geometry.kernel_size[0] in depthwise.KERNEL_SIZES
        and geometry.stride == (stride, stride)
        and stride in ((1,) if backward else depthwise.STRIDES)
        and geometry.dilation == (1, 1)
    )
    row_phases, column_phases = phases(geometry, backward)
    pixel_threads = tile.rows // PIXELS * tile.columns
    threads = 32 * ceil_div(max(tile.lanes * pixel_threads, tile.lanes * per_thread), 32)
    images = min(geometry.batch, GRID_LIMIT)
    runtime.launch(
        FILE,
        f"direct_correlate<{type_name(source.dtype)}, {window_index_type(geometry, source, target, w)}, {str(last).lower()}, "
        f"{PIXELS}, {per_thread}, {width}, {geometry.kernel_size[0] if unrolled else 0}, {stride if unrolled else 0}, "
        f"{str(backward).lower()}>",
        (
            geometry.groups * row_phases * column_phases * tile.row_tiles * tile.column_tiles * tile.filter_tiles,
            images,
            ceil_div(geometry.batch, GRID_LIMIT),
        ),
        (threads,),
        (
            source,
            w,
            w if b is None else b,
            target,
            windows_record(geometry, backward=backward, bias=b is not None, relu=relu),
            record(FILE, "DirectTile", **vars(tile)),
        ),
        shared_memory=_shared_bytes(tile, per_thread, max(4, source.dtype.itemsize)),
    )
    return target


def choose_tile(geometry: Conv2dGeometry, runtime: Runtime, backward: bool, per_thread: int, itemsize: int) -> Tile | None:
    """What a block computes, or None if no tile fits into shared memory.

    A tile is as large as a block of threads allows, for the borders around it are read in vain: the whole plane of a small
    image. It is smaller where there would be fewer blocks than multiprocessors, or where its part of the image is too large.
    """
    filters = (geometry.channels if backward else geometry.filters) // geometry.groups
    tiles_of_others = geometry.batch * geometry.groups * math.prod(phases(geometry, backward))
    best = None
    pixel_threads = THREADS
    while pixel_threads >= 1:
        tile = _tile(geometry, backward, per_thread, pixel_threads, ceil_div(filters, per_thread), itemsize)
        if _shared_bytes(tile, per_thread, itemsize) <= min(LARGEST_TILE_BYTES, runtime.shared_memory_limit):
            best = tile
            blocks = tiles_of_others * tile.row_tiles * tile.column_tiles * tile.filter_tiles
            if blocks >= runtime.multiprocessors or pixel_threads <= 32:
                break
        pixel_threads //= 2
    return best


def _tile(geometry: Conv2dGeometry, backward: bool, per_thread: int, threads: int, lanes: int, itemsize: int) -> Tile:
    last = geometry.data_format == "channels_last"
    channels = (geometry.filters if backward else geometry.channels) // geometry.groups
    rows, columns = pixels_of_phase(geometry, backward)
    filter_lanes = even_part(lanes, MOST_LANES) if last else 1
    pixel_threads = max(1, threads // filter_lanes)
    tile_columns = even_part(columns, min(WIDEST_TILE, pixel_threads))
    tile_rows = PIXELS * even_part(ceil_div(rows, PIXELS), max(1, pixel_threads // tile_columns))
    if not last:
        filter_lanes = even_part(lanes, max(1, threads // (tile_columns * (tile_rows // PIXELS))))

    divisors = [math.gcd(geometry.stride[axis], geometry.dilation[axis]) if backward else 1 for axis in (0, 1)]
    strides = (1, 1) if backward else geometry.stride
    tap_rows, tap_columns = (
        ceil_div(geometry.kernel_size[axis], geometry.stride[axis] // divisors[axis] if backward else 1) for axis in (0, 1)
    )
    vector = 16 // itemsize
    in_rows = (tile_rows - 1) * strides[0] + (tap_rows - 1) * (geometry.dilation[0] // divisors[0]) + 1
    in_rows = vector * ceil_div(in_rows, vector)
    in_columns = (tile_columns - 1) * strides[1] + (tap_columns - 1) * (geometry.dilation[1] // divisors[1]) + 1
    split = ceil_div(in_columns, strides[1])
    # Lanes read columns side by side: these should begin in different banks.
    pitch = in_rows + 1 if last else vector * (in_rows // vector // 2 * 2 + 1)
    plane = strides[1] * split * pitch
    room = TILE_BYTES // itemsize // (plane + BANKS + tap_rows * tap_columns * filter_lanes * per_thread)
    at_a_time = even_part(channels, max(1, min(room, BANKS)))
    if last and at_a_time > 1:
        # A warp writes several channels of some columns: each channel should begin where the last one's next column would.
        plane += (BANKS // at_a_time * pitch - plane) % BANKS
    return Tile(
        tile_rows,
        tile_columns,
        filter_lanes,
        ceil_div(rows, tile_rows),
        ceil_div(columns, tile_columns),
        ceil_div(lanes, filter_lanes),
        at_a_time,
        in_rows,
        in_columns,
        split,
        pitch,
        plane,
        tap_rows,
        tap_columns,
    )


def choose_gradient_tile(geometry: Conv2dGeometry, itemsize: int) -> GradientTile | None:
    """What a block takes of dy at a time, or None if no tile fits into shared memory.

    All filters of a group if it can, so that dy is read once; as many cells as give every thread of a block one.
    """
    filters, channels = geometry.filters // geometry.groups, geometry.channels // geometry.groups
    most_filters, most_columns = THREADS // 2, WIDEST_TILE
    while True:
        block_filters = even_part(filters, most_filters)
        block_channels = even_part(channels, THREADS // block_filters)
        threads_of_pixels = THREADS // (block_filters * block_channels)
        cells_across = even_part(ceil_div(geometry.output_size[1], CELL), most_columns // CELL)
        cells_down = even_part(ceil_div(geometry.output_size[0], CELL), ceil_div(threads_of_pixels, cells_across))
        for down in range(cells_down, 0, -1):
            tile = _gradient_tile(geometry, block_filters, block_channels, threads_of_pixels, (down, cells_across), itemsize)
            if 2 * tile.elements * itemsize <= TILE_BYTES:
                return tile
        if most_columns > CELL:
            most_columns //= 2
        elif most_filters > 1:
            most_filters //= 2
        else:
            return None


def _gradient_tile(
    geometry: Conv2dGeometry, filters: int, channels: int, threads: int, cells: Pair, itemsize: int
) -> GradientTile:
    last = geometry.data_format == "channels_last"
    vector = 16 // itemsize
    rows, columns = (CELL * count for count in cells)
    stride, taps = geometry.stride[0], geometry.kernel_size
    in_rows = (rows - 1) * stride + taps[0]
    in_columns = vector * ceil_div((columns - CELL) * stride + vector * ceil_div((CELL - 1) * stride + taps[1], vector), vector)
    pitch = filters if last else rows * columns
    # Lanes lie along filters, and each reads a vector: they should begin in different banks.
    if not last and pitch // vector % 2 == 0:
        pitch += vector
    dy_elements = vector * ceil_div(pitch * (rows * columns if last else filters), vector)
    return GradientTile(
        rows,
        columns,
        ceil_div(geometry.output_size[0], rows),
        ceil_div(geometry.output_size[1], columns),
        filters,
        channels,
        even_part(cells[0] * cells[1], threads),
        ceil_div(geometry.filters // geometry.groups, filters),
        ceil_div(geometry.channels // geometry.groups, channels),
        in_rows,
        in_columns,
        pitch,
        dy_elements,
        vector * ceil_div(dy_elements + channels * in_rows * in_columns, vector),
    )


def even_part(length: int, most: int) -> int:
    """The length of the parts when ``length`` is cut evenly into as few parts as can be, none longer than ``most``."""
    return ceil_div(length, ceil_div(length, most))


def _shared_bytes(tile: Tile, per_thread: int, itemsize: int) -> int:
    weights = tile.channels * tile.tap_rows * tile.tap_columns * tile.lanes * per_thread * itemsize
    return 16 * ceil_div(weights, 16) + tile.channels * tile.plane * itemsize
