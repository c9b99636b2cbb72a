"""Depthwise convolution: every group reads a single channel.

The kernels of :file:`depthwise.cu` are meant for these and right for every convolution: :mod:`xpconv.kernels.cuda.direct`
leaves to them what doesn't fit into its shared memory.
"""

from __future__ import annotations

import math

from xpconv.geometry import Conv2dGeometry
from xpconv.kernels.cuda.runtime import Array, ceil_div, runtime_of, type_name, vector_width
from xpconv.kernels.cuda.splits import add_splits, workspace
from xpconv.kernels.cuda.windows import GRID_LIMIT, phases, pixels_of_phase, window_index_type, windows_record

FILE = "depthwise.cu"
THREADS = 256
GRADIENT_THREADS = 128
# Rows of the result that a thread computes at once, in registers, and channels side by side.
ROWS = 4
MOST_CHANNELS = 4
# Windows of these heights (and widths, for the gradient of the weights) and strides have kernels of their own, whose loops are
# unrolled; more of them would take longer to compile than they save.
KERNEL_SIZES = (3, 5, 7)
STRIDES = (1, 2)
# Into how many blocks for each multiprocessor the sum over pixels is split: what they leave to add up goes through memory.
BLOCKS_PER_MULTIPROCESSOR = 2


def suits(operation: str, geometry: Conv2dGeometry) -> bool:
    """Whether the kernels here are meant for this: ``operation`` is a function of this module."""
    return geometry.groups == geometry.channels and geometry.groups > 1


def forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, relu: bool) -> Array:
    """The convolution, with bias and the rectifier at once."""
    return _correlate(x, w, b, geometry, backward=False, relu=relu)


def backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """The gradient of ``x``: every pixel gathers from the outputs that have seen it."""
    return _correlate(dy, w, None, geometry, backward=True, relu=False)


def backward_weight(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """The gradients of ``w`` and ``b``: the sum over pixels in splits, and then of the splits."""
    runtime = runtime_of(x)
    last = geometry.data_format == "channels_last"
    unrolled = has_unrolled_gradient(geometry)
    pairs = geometry.filters * (geometry.channels // geometry.groups)
    pair_blocks = ceil_div(pairs, 32) if last else pairs
    # The sums of a large window leave fewer registers for the numbers that are multiplied.
    rows = ROWS if geometry.kernel_size[0] < 5 else ROWS // 2
    strips = geometry.batch * ceil_div(geometry.output_size[0], rows) * geometry.output_size[1]
    blocks = runtime.multiprocessors * BLOCKS_PER_MULTIPROCESSOR
    count = split_count(strips, GRADIENT_THREADS // 32 if last else GRADIENT_THREADS, ceil_div(blocks, pair_blocks))
    splits = gradient_splits(x, geometry, count)
    specialised = (*geometry.kernel_size, geometry.stride[0]) if unrolled else (0, 0, 0)
    runtime.launch(
        FILE,
        f"plane_gradients<{type_name(x.dtype)}, {window_index_type(geometry, x, dy, splits)}, {str(last).lower()}, {rows}, "
        f"{', '.join(map(str, specialised))}>",
        (pair_blocks, count, 1 if unrolled else min(geometry.taps, GRID_LIMIT)),
        (GRADIENT_THREADS,),
        (x, dy, splits, windows_record(geometry)),
    )
    return sum_of_splits(splits, x, geometry)


def has_unrolled_gradient(geometry: Conv2dGeometry) -> bool:
    """Whether there is a kernel for the gradient of this very window."""
    return (
        geometry.kernel_size in [(size, size) for size in KERNEL_SIZES]
        and geometry.stride in [(stride, stride) for stride in STRIDES]
        and geometry.dilation == (1, 1)
    )


def split_count(work: int, at_once: int, wanted: int) -> int:
    """Into how many parts to split a sum of ``work`` terms, of which a block takes ``at_once``.

    As many as are ``wanted`` to fill the card, if each has something to do; all as much to do as can be. It depends on the
    problem and the card alone, so that the same sums are added in the same order every time.
    """
    turns = ceil_div(work, at_once)
    turns_each = ceil_div(turns, max(1, min(wanted, turns, GRID_LIMIT)))
    return max(1, ceil_div(turns, max(1, turns_each)))


def gradient_splits(x: Array, geometry: Conv2dGeometry, count: int) -> Array:
    """Room for the sums of all splits: the gradient of the weight, and then that of the bias."""
    return workspace(runtime_of(x), count, math.prod(geometry.w_shape) + geometry.filters, x.dtype)


def sum_of_splits(splits: Array, x: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """The gradients of weight and bias."""
    runtime = runtime_of(x)
    dw = runtime.xp.empty(geometry.w_shape, x.dtype)
    db = runtime.xp.empty((geometry.filters,), x.dtype)
    add_splits(runtime, splits, dw, db)
    return dw, db


def _correlate(source: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, *, backward: bool, relu: bool) -> Array:
    runtime = runtime_of(source)
    target = runtime.xp.empty(geometry.x_shape if backward else geometry.y_shape, source.dtype)
    last = geometry.data_format == "channels_last"
    channels = geometry.channels if backward else geometry.filters
    one_by_one = geometry.channels == geometry.filters == geometry.groups
    width = min(MOST_CHANNELS, vector_width(channels, source, w, target)) if last and one_by_one else 1
    tap_rows, stride = geometry.kernel_size[0], geometry.stride[0]
    # A phase of a gradient with a stride has some of the taps only, each another number of them.
    strides = (1,) if backward else STRIDES
    unrolled = tap_rows in KERNEL_SIZES and stride in strides and geometry.dilation[0] == 1
    rows, columns = pixels_of_phase(geometry, backward)
    row_phases, column_phases = phases(geometry, backward)
    threads = geometry.batch * (channels // width) * ceil_div(rows, ROWS) * columns
    runtime.launch(
        FILE,
        f"correlate_planes<{type_name(source.dtype)}, {window_index_type(geometry, source, target, w)}, {str(last).lower()}, "
        f"{width}, {ROWS}, {tap_rows if unrolled else 0}, {stride if unrolled else 0}, {str(backward).lower()}>",
        (ceil_div(threads, THREADS), min(row_phases, GRID_LIMIT), min(column_phases, GRID_LIMIT)),
        (THREADS,),
        (source, w, w if b is None else b, target, windows_record(geometry, backward=backward, bias=b is not None, relu=relu)),
    )
    return target
