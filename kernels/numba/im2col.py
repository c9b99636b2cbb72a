"""The columns of a batch as one matrix, and back: what the book's convolution is made of.

Both layouts are one here: an image is ``planes`` of pixels of ``depth`` numbers each, and a window, which is a row of the
matrix, has the same order inside::

                        image                           row of the matrix
    channels_first      planes C, height, width         planes C, KH, KW
    channels_last       height, width, depth C          KH, KW, depth C

Of a row of windows, one tap of one plane is a stretch of a row of pixels, with zeros where it leaves the image::

    windows of a row       0   1   2   3   4   5           stride 1, padding 1, the first tap
    pixel that it reads   -1   0   1   2   3   4
                        zero | inside            |

Work is shared out in rows that no two workers write to: im2col in rows of windows, col2im in rows of pixels, each of which
gathers from all rows of windows that have read it, always in the same order.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from xpconv.geometry import Window2d
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.intrinsics import pointer, size_of
from xpconv.kernels.numba.memory import Array, address, empty
from xpconv.kernels.numba.threads import run, thread_count

# Elements of the matrix below which a second thread costs more than it saves.
SMALL = 1 << 13


class _Columns(Arguments):
    images: int
    matrix: int
    batch: int
    planes: int
    depth: int
    height: int
    width: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    top: int
    left: int
    output_height: int
    output_width: int


@inline
def _first_at_or_behind(position: int, offset: int, stride: int, outputs: int) -> int:
    # The first window whose tap, at ``window * stride + offset``, lies at or behind a position; ``outputs`` if none does.
    return min(max(-((offset - position) // stride), 0), outputs)


@functools.cache
def _im2col(dtype: np.dtype[Any], planar: int) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_Columns)
    def im2col(worker: int, workers: int, a: Any) -> None:
        size, depth = size_of(real), 1 if planar else a.depth
        taps, pitch = a.kernel_height * a.kernel_width, a.planes * a.kernel_height * a.kernel_width * depth
        rows = a.batch * a.output_height
        for row in range(worker * rows // workers, (worker + 1) * rows // workers):
            image, i = row // a.output_height, row % a.output_height
            for plane in range(a.planes):
                for tap in range(taps):
                    r, s = tap // a.kernel_width, tap % a.kernel_width
                    y, offset = i * a.stride_height + r * a.dilation_height - a.top, s * a.dilation_width - a.left
                    first = _first_at_or_behind(0, offset, a.stride_width, a.output_width)
                    last = _first_at_or_behind(a.width, offset, a.stride_width, a.output_width)
                    if y < 0 or y >= a.height:
                        first = last = a.output_width
                    pixels = ((image * a.planes + plane) * a.height + y) * a.width + offset
                    source = pointer(a.images + pixels * depth * size, real)
                    columns = (plane * taps + tap) * depth
                    target = pointer(a.matrix + (row * a.output_width * pitch + columns) * size, real)
                    for j in range(first):
                        for z in range(depth):
                            target[j * pitch + z] = real(0)
                    for j in range(first, last):
                        for z in range(depth):
                            target[j * pitch + z] = source[j * a.stride_width * depth + z]
                    for j in range(last, a.output_width):
                        for z in range(depth):
                            target[j * pitch + z] = real(0)

    return im2col


def im2col(x: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.im2col`."""
    windows = geometry.batch * geometry.output_size[0] * geometry.output_size[1]
    col = empty((windows, geometry.channels * geometry.taps), x.dtype)
    _run(_im2col, x, col, geometry)
    return col


@functools.cache
def _col2im(dtype: np.dtype[Any], planar: int) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_Columns)
    def col2im(worker: int, workers: int, a: Any) -> None:
        size, depth = size_of(real), 1 if planar else a.depth
        taps, pitch = a.kernel_height * a.kernel_width, a.planes * a.kernel_height * a.kernel_width * depth
        rows = a.batch * a.height
        for row in range(worker * rows // workers, (worker + 1) * rows // workers):
            image, y = row // a.height, row % a.height
            for plane in range(a.planes):
                pixels = ((image * a.planes + plane) * a.height + y) * a.width
                target = pointer(a.images + pixels * depth * size, real)
                for x in range(a.width * depth):
                    target[x] = real(0)
                for tap in range(taps):
                    r, s = tap // a.kernel_width, tap % a.kernel_width
                    above, offset = y + a.top - r * a.dilation_height, s * a.dilation_width - a.left
                    i = above // a.stride_height
                    if i < 0 or i >= a.output_height or i * a.stride_height != above:
                        continue  # no window has this pixel at this tap
                    first = _first_at_or_behind(0, offset, a.stride_width, a.output_width)
                    last = _first_at_or_behind(a.width, offset, a.stride_width, a.output_width)
                    target = pointer(a.images + (pixels + offset) * depth * size, real)
                    columns = (plane * taps + tap) * depth
                    windows = (image * a.output_height + i) * a.output_width
                    source = pointer(a.matrix + (windows * pitch + columns) * size, real)
                    for j in range(first, last):
                        for z in range(depth):
                            target[j * a.stride_width * depth + z] += source[j * pitch + z]

    return col2im


def col2im(col: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.col2im`."""
    dx = empty(geometry.x_shape, col.dtype)
    _run(_col2im, dx, col, geometry)
    return dx


def _run(kernel: Any, images: Array, matrix: Array, geometry: Window2d) -> None:
    planar = geometry.data_format == "channels_first" or geometry.channels == 1
    arguments = _Columns(
        images=address(images),
        matrix=address(matrix),
        batch=geometry.batch,
        planes=geometry.channels if planar else 1,
        depth=1 if planar else geometry.channels,
        height=geometry.size[0],
        width=geometry.size[1],
        kernel_height=geometry.kernel_size[0],
        kernel_width=geometry.kernel_size[1],
        stride_height=geometry.stride[0],
        stride_width=geometry.stride[1],
        dilation_height=geometry.dilation[0],
        dilation_width=geometry.dilation[1],
        top=geometry.padding[0][0],
        left=geometry.padding[1][0],
        output_height=geometry.output_size[0],
        output_width=geometry.output_size[1],
    )
    run(kernel(images.dtype, int(planar)), arguments, thread_count() if matrix.size > SMALL else 1)
