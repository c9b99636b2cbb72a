"""Pooling and its gradients: which kernel of ``pool2d.cu`` computes what, and with how many threads."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from xpconv.geometry import Pair, Window2d, batch_shape
from xpconv.kernels.cuda.division import REACH, magic
from xpconv.kernels.cuda.runtime import Array, ceil_div, index_type, runtime_of, type_name, vector_width
from xpconv.kernels.cuda.source import Record, record

FILE = "pool2d.cu"
# As the sources have it: threads of a block; of the teams, windows in a block and channels of each.
THREADS = 256
TEAMS_OF_ONE_CHANNEL, TEAMS_OF_CHANNELS = (8, 1), (1, 32)

# The number of a tap that no window has.
NO_TAP = 255
# Windows that are unrolled: those that networks have.
UNROLLED = ((2, 2), (3, 3))
# Windows that cover a pixel along an axis: up to how many are looked at without a loop.
MOST_UNROLLED = 2
# Taps from which a window is given a team of threads, if there are too few windows to keep the card busy with a thread each.
LARGE = 64
# Threads that fill a multiprocessor.
FULL = 2048


def max_pool2d_forward(x: Array, geometry: Window2d, return_indices: bool) -> tuple[Array, Array | None]:
    """See :func:`xpconv.functional.max_pool2d`."""
    xp = runtime_of(x).xp
    y = xp.empty(geometry.y_shape, x.dtype)
    indices = xp.empty(geometry.y_shape, np.int64) if return_indices else None
    _pool("max_pool2d_forward", x, y, *([] if indices is None else [indices]), geometry=geometry)
    return y, indices


def max_pool2d_backward(dy: Array, indices: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_pool2d_backward`.

    Args:
        dy: Gradient of the maxima.
        indices: int64 positions in the plane, or the taps of :func:`max_pool2d_forward_with_taps`.
        geometry: The window.
    """
    return _spread("max_pool2d_backward", dy, indices, geometry=geometry)


def max_pool2d_forward_with_taps(x: Array, geometry: Window2d, only_positive: bool) -> tuple[Array, Array]:
    """As :func:`max_pool2d_forward`, but tell the winners by the numbers of their taps, a byte each.

    Args:
        x: Images.
        geometry: A window of :data:`NO_TAP` taps at most.
        only_positive: Let no tap win where the maximum is not greater than 0: what ReLU held back passes no gradient on.

    Returns:
        The maxima, and the number of the tap that won each window, :data:`NO_TAP` for none.
    """
    xp = runtime_of(x).xp
    y, taps = xp.empty(geometry.y_shape, x.dtype), xp.empty(geometry.y_shape, np.uint8)
    _pool("max_pool2d_forward", x, y, taps, geometry=geometry, only_positive=only_positive)
    return y, taps


def count_misplaced(indices: Array, geometry: Window2d) -> Array:
    """How many positions are none of a pixel of the image that their own window reads: int64 without axes, on the device."""
    misplaced = runtime_of(indices).xp.zeros((), np.uint64)
    kernel = f"count_misplaced<{_index(geometry, indices)}>"
    _launch(kernel, _pool2d(geometry, geometry.output_size), indices, misplaced)
    return misplaced.view(np.int64)


def avg_pool2d_forward(x: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d`."""
    y = runtime_of(x).xp.empty(geometry.y_shape, x.dtype)
    _pool("avg_pool2d_forward", x, y, geometry=geometry, count_include_pad=count_include_pad)
    return y


def avg_pool2d_backward(dy: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d_backward`."""
    return _spread("avg_pool2d_backward", dy, geometry=geometry, count_include_pad=count_include_pad)


def max_unpool2d(x: Array, indices: Array, output_size: tuple[int, int], geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_unpool2d`."""
    xp = runtime_of(x).xp
    unpooling = dataclasses.replace(geometry, output_size=output_size)
    y = xp.empty(batch_shape(geometry.batch, geometry.channels, output_size, geometry.data_format), x.dtype)
    index = _index(unpooling, indices, y)
    latest = xp.zeros(y.shape, np.int32 if index == "int" else np.int64)
    _launch(f"find_latest<{index}>", _pool2d(unpooling, geometry.size), indices, latest)
    _launch(f"max_unpool2d<{type_name(x.dtype)}, {index}>", _pool2d(unpooling, output_size), x, latest, y)
    return y


# ---- the pieces --------------------------------------------------------------------------------------------------------


def _pool(
    name: str,
    x: Array,
    y: Array,
    *positions: Array,
    geometry: Window2d,
    count_include_pad: bool = True,
    only_positive: bool = False,
) -> None:
    # One value for each window. A thread computes neighbouring channels of a window, or neighbouring windows of a channel; or
    # a team of threads computes a single value.
    channels, size = _planes(geometry)[1], geometry.output_size
    types = f"{type_name(x.dtype)}, {_index(geometry, x, y, *positions)}"
    noted = "".join(f", {_position(array)}" for array in positions)
    if geometry.taps >= LARGE and y.size < FULL * runtime_of(x).multiprocessors:
        per_block, width = TEAMS_OF_ONE_CHANNEL if channels == 1 else TEAMS_OF_CHANNELS
        kernel = f"{name}_in_teams<{types}, {width}{noted}>"
    else:
        per_block, width = THREADS, vector_width(channels, x, y, *positions)
        window = geometry.kernel_size if geometry.kernel_size in UNROLLED and geometry.dilation == (1, 1) else (0, 0)
        columns = _columns(x, y, *positions, geometry=geometry) if window != (0, 0) else 0
        kernel = f"{name}<{types}, {window[0]}, {window[1]}, {columns}, {width}{noted}>"
        size = (size[0], size[1] // max(columns, 1))
    pool = _pool2d(geometry, size, width, count_include_pad, only_positive)
    _launch(kernel, pool, x, y, positions=positions, items_per_block=per_block)


def _spread(name: str, dy: Array, *positions: Array, geometry: Window2d, count_include_pad: bool = True) -> Array:
    # The gradient of the images. A thread computes neighbouring channels of a pixel; or of one channel neighbouring pixels,
    # where no two windows cover the same.
    dx = runtime_of(dy).xp.empty(geometry.x_shape, dy.dtype)
    channels, size = _planes(geometry)[1], geometry.size
    most = max(ceil_div(window, stride) for window, stride in zip(geometry.kernel_size, geometry.stride, strict=True))
    if most > MOST_UNROLLED or geometry.dilation != (1, 1):
        most = 0
    window, columns = 0, 1
    if channels == 1 == most:
        columns = vector_width(size[1], dx)
        windows = _columns(dx, dy, *positions, geometry=geometry)
        if windows > 0:
            window, columns = geometry.kernel_size[1], windows * geometry.kernel_size[1]
    width = vector_width(channels, dx, dy, *positions)
    types = f"{type_name(dx.dtype)}, {_index(geometry, dx, dy, *positions)}"
    noted = "".join(f", {_position(array)}" for array in positions)
    kernel = f"{name}<{types}, {window}, {columns}, {width}, {most}{noted}>"
    pool = _pool2d(geometry, (size[0], size[1] // columns), width, count_include_pad)
    _launch(kernel, pool, dy, *positions, dx)
    return dx


def _columns(images: Array, *pooled: Array, geometry: Window2d) -> int:
    # How many neighbouring windows of one channel a thread can take at once, each row of theirs in one load: 0 unless the
    # windows tile every row of the images.
    window, width = geometry.kernel_size[1], geometry.size[1]
    tiled = (
        _planes(geometry)[1] == 1
        and geometry.stride[1] == window
        and geometry.inside
        and geometry.output_size[1] * window == width
    )
    if not tiled or window & (window - 1):
        return 0
    return min(vector_width(geometry.output_size[1], *pooled), vector_width(width, images) // window)


def _launch(
    kernel: str, pool: Record, *arrays: Array, positions: tuple[Array, ...] = (), items_per_block: int = THREADS
) -> None:
    grid = (ceil_div(int(pool["items"]), items_per_block),)
    runtime_of(arrays[0]).launch(FILE, kernel, grid, (THREADS,), (*arrays, pool, *positions))


@functools.lru_cache(maxsize=256)
def _pool2d(
    geometry: Window2d, size: Pair, width: int = 1, count_include_pad: bool = True, only_positive: bool = False
) -> Record:
    # Work on all pixels of planes of this size, `width` channels at a time.
    planes, channels = _planes(geometry)
    vectors = ceil_div(channels, width)
    (top, bottom), (left, right) = geometry.padding
    return record(
        FILE,
        "Pool2d",
        items=planes * size[0] * size[1] * vectors,
        height=geometry.size[0],
        width=geometry.size[1],
        channels=channels,
        out_height=geometry.output_size[0],
        out_width=geometry.output_size[1],
        window_height=geometry.kernel_size[0],
        window_width=geometry.kernel_size[1],
        stride_height=geometry.stride[0],
        stride_width=geometry.stride[1],
        dilation_height=geometry.dilation[0],
        dilation_width=geometry.dilation[1],
        top=top,
        left=left,
        counted_top=top if count_include_pad else 0,
        counted_bottom=bottom if count_include_pad else 0,
        counted_left=left if count_include_pad else 0,
        counted_right=right if count_include_pad else 0,
        by_vectors=magic(vectors),
        by_columns=magic(size[1]),
        by_rows=magic(size[0]),
        by_stride_height=magic(geometry.stride[0]),
        by_stride_width=magic(geometry.stride[1]),
        by_window_width=magic(geometry.kernel_size[1]),
        only_positive=only_positive,
    )


def _planes(geometry: Window2d) -> Pair:
    # Planes of a batch, and the channels of each pixel in one.
    if geometry.data_format == "channels_first":
        return geometry.batch * geometry.channels, 1
    return geometry.batch, geometry.channels


def _index(geometry: Window2d, *arrays: Array) -> str:
    # The type of offsets, of positions in the padded images, and of the number of a tap; windows can be larger than images.
    padded = (size + sum(pads) for size, pads in zip(geometry.size, geometry.padding, strict=True))
    return index_type(*arrays) if max(geometry.taps, *geometry.swept_size, *padded) < REACH else "long long"


def _position(positions: Array) -> str:
    return "unsigned char" if positions.dtype == np.uint8 else "long long"
