"""Convolution, bias, ReLU and max pooling in one pass over the batch.

Each thread takes a chunk of images through the whole block while it is in its cache: the maps between convolution and
pooling, several times the size of what comes out, are never stored for the batch. The gradients start from
the pooled gradients and the winning taps, and rebuild the gradient of the maps chunk by chunk.

The windows of the pooling don't overlap, so the product can be computed in their order: first what tap 0 of every window
sees, then tap 1, and so on. A maximum over the windows is then a maximum of whole rows, without strides::

      columns  (K, taps, n * PH * PW)         product  (F, taps, n * PH * PW)         pooled  (F, n * PH * PW)
     +-------+-------+-------+-------+       +-------+-------+-------+-------+        +-------+
     | tap 0 | tap 1 | tap 2 | tap 3 |  -->  | tap 0 | tap 1 | tap 2 | tap 3 |  -->   |  max  |
     +-------+-------+-------+-------+       +-------+-------+-------+-------+        +-------+
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpconv.geometry import Conv2dGeometry, Window2d
from xpconv.kernels.numpy.conv2d import (
    Chunk,
    accumulate_weight_gradient,
    chunks_of,
    gradient_canvas,
    weight_from_matrix,
    weight_matrix,
    windows_of,
    windows_of_images,
)
from xpconv.kernels.numpy.threads import buffer, parallel, thread_count
from xpconv.kernels.numpy.windows import CHUNK_BYTES, Array

# A tap number that no window of 255 taps or fewer has.
NO_TAP = 255


def fuses_conv2d_max_pool2d(convolution: Conv2dGeometry, pooling: Window2d, itemsize: int) -> bool:
    """Whether the block is one that the two functions below compute: windows side by side, images that fit the cache."""
    bytes_per_position = (convolution.channels * convolution.taps + convolution.filters) * itemsize
    return (
        pooling.stride == pooling.kernel_size
        and pooling.dilation == (1, 1)
        and pooling.inside
        and pooling.taps <= NO_TAP
        and bytes_per_position * convolution.output_size[0] * convolution.output_size[1] <= CHUNK_BYTES
    )


def conv2d_max_pool2d_forward(
    x: Array, w: Array, b: Array, convolution: Conv2dGeometry, pooling: Window2d, relu: bool
) -> tuple[Array, Array]:
    """Convolve, add the bias, apply ReLU where asked for, and pool.

    Returns:
        The pooled maps, and the number of the tap that won each window.
    """
    y = np.empty(pooling.y_shape, x.dtype)
    winners = np.empty(pooling.y_shape, np.uint8)
    weight = weight_matrix(w, convolution)
    bias = b.reshape(convolution.groups, -1, 1)
    chunks = chunks_of(convolution, x.itemsize, thread_count())

    def work(worker: int, start: int, stop: int) -> None:
        for chunk in chunks[start:stop]:
            product, maps = _product_of_chunk(convolution, pooling, chunk, x.dtype)
            np.matmul(weight, _columns_by_tap(x, convolution, pooling, chunk), out=product)
            np.add(product, bias, out=product)
            best = buffer("best", maps[0].shape, x.dtype)
            winner = buffer("winner", maps[0].shape, np.dtype(np.uint8))
            _first_maximum(maps, best, winner)
            if relu:
                np.maximum(best, 0, out=best)
            np.copyto(_by_filter(y, pooling, chunk), best)
            np.copyto(_by_filter(winners, pooling, chunk), winner)

    parallel(work, len(chunks), thread_count())
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
    workers = thread_count()
    chunks = chunks_of(convolution, x.itemsize, workers)
    groups, filters = convolution.groups, convolution.filters // convolution.groups
    dx = np.empty(convolution.x_shape, x.dtype) if input_gradient else None
    dw = np.zeros((workers, groups, filters, convolution.channels // groups * convolution.taps), x.dtype)
    db = np.zeros((workers, groups, filters), x.dtype)
    weight = weight_matrix(w, convolution).transpose(0, 2, 1)

    def work(worker: int, start: int, stop: int) -> None:
        for chunk in chunks[start:stop]:
            product, maps = _product_of_chunk(convolution, pooling, chunk, dy.dtype)
            _spread(y, winners, dy, pooling, chunk, relu, maps)
            accumulate_weight_gradient(product, _columns_by_tap(x, convolution, pooling, chunk), dw[worker], db[worker])
            if dx is not None:
                canvas, inner = gradient_canvas(dx, convolution, chunk)
                targets = _by_tap(windows_of_images(canvas, convolution, chunk), convolution, pooling)
                columns = _column_buffer(targets, convolution, dy.dtype)
                np.matmul(weight, product, out=columns.matrix)
                for kernel_tap in np.ndindex(convolution.kernel_size):
                    target = targets[columns.of_tap(kernel_tap)]
                    np.add(target, columns.shaped[columns.of_tap(kernel_tap)], out=target)
                if inner is not None:
                    np.copyto(dx[chunk.image : chunk.image_end], inner)

    parallel(work, len(chunks), workers)
    return dx, weight_from_matrix(dw.sum(axis=0), convolution), db.sum(axis=0).reshape(-1)


def _spread(y: Array, winners: Array, dy: Array, pooling: Window2d, chunk: Chunk, relu: bool, maps: list[Array]) -> None:
    # The gradient of the maps of one chunk: each pooled gradient where its winner was, zero elsewhere.
    shape = maps[0].shape
    bits = np.dtype(f"i{dy.itemsize}")
    gradient = buffer("best", shape, dy.dtype)
    winner = buffer("winner", shape, np.dtype(np.uint8))
    mask = buffer("mask", shape, bits)
    won = buffer("won", shape, np.dtype(bool))
    np.copyto(gradient, _by_filter(dy, pooling, chunk))
    np.copyto(winner, _by_filter(winners, pooling, chunk))
    if relu:
        # What ReLU held back belongs to no tap: its number becomes 255.
        np.greater(_by_filter(y, pooling, chunk), 0, out=won)
        np.logical_not(won, out=won)
        np.bitwise_or(winner, np.negative(won.view(np.uint8)), out=winner)
    for tap, target in enumerate(maps):
        # Masking the bits, not multiplying, keeps infinite gradients out of where they don't belong.
        np.equal(winner, np.uint8(tap), out=won)
        np.negative(won.view(np.int8), out=mask)
        np.bitwise_and(gradient.view(bits), mask, out=target.view(bits))


class _Columns(NamedTuple):
    # One buffer seen twice: as the (groups, K, L) matrix of BLAS, and with all its axes.
    matrix: Array
    shaped: Array
    tap_axis: int  # where the two axes of the kernel's taps are in ``shaped``

    def of_tap(self, kernel_tap: tuple[int, ...]) -> tuple[slice | int, ...]:
        return (slice(None),) * self.tap_axis + kernel_tap


def _columns_by_tap(x: Array, convolution: Conv2dGeometry, pooling: Window2d, chunk: Chunk) -> Array:
    # As conv2d.columns_of, (groups, K, L), but L runs over the taps of the pooling first.
    ordered = _by_tap(windows_of(x, convolution, chunk), convolution, pooling)
    columns = _column_buffer(ordered, convolution, x.dtype)
    np.copyto(columns.shaped, ordered)
    return columns.matrix


def _by_tap(view: Array, convolution: Conv2dGeometry, pooling: Window2d) -> Array:
    # (KH, KW, OH, OW, n, groups, C/groups), as conv2d.windows_of has it, in the order of the columns.
    (pool_h, pool_w), (height, width) = pooling.kernel_size, pooling.output_size
    kernel_h, kernel_w, _, _, images, groups, channels = view.shape
    view = view[:, :, : height * pool_h, : width * pool_w]
    view = view.reshape(kernel_h, kernel_w, height, pool_h, width, pool_w, images, groups, channels)
    if convolution.data_format == "channels_first":
        return view.transpose(7, 8, 0, 1, 3, 5, 6, 2, 4)
    return view.transpose(7, 3, 5, 6, 2, 4, 0, 1, 8)


def _column_buffer(ordered: Array, convolution: Conv2dGeometry, dtype: np.dtype[Any]) -> _Columns:
    shaped = buffer("columns", ordered.shape, dtype)
    groups, depth = convolution.groups, convolution.channels // convolution.groups * convolution.taps
    if convolution.data_format == "channels_first":
        return _Columns(shaped.reshape(groups, depth, -1), shaped, 2)
    return _Columns(shaped.reshape(groups, -1, depth).transpose(0, 2, 1), shaped, 6)


def _product_of_chunk(
    convolution: Conv2dGeometry, pooling: Window2d, chunk: Chunk, dtype: np.dtype[Any]
) -> tuple[Array, list[Array]]:
    # One buffer seen twice: as the (groups, F/groups, L) matrix of BLAS, and as one map for each tap of the pooling.
    images, (height, width) = chunk.image_end - chunk.image, pooling.output_size
    groups, filters, taps = convolution.groups, convolution.filters, pooling.taps
    if convolution.data_format == "channels_first":
        memory = buffer("product", (filters, taps, images, height, width), dtype)
        return memory.reshape(groups, filters // groups, -1), [memory[:, tap] for tap in range(taps)]
    memory = buffer("product", (taps, images, height, width, filters), dtype)
    return memory.reshape(-1, groups, filters // groups).transpose(1, 2, 0), list(memory)


def _first_maximum(maps: list[Array], best: Array, winner: Array) -> None:
    # A later tap must be strictly greater to win; its number is greater too, so the greatest number seen is the winner's.
    greater = buffer("won", best.shape, np.dtype(bool))
    number = greater.view(np.uint8)
    np.copyto(best, maps[0])
    winner[...] = 0
    for tap in range(1, len(maps)):
        np.greater(maps[tap], best, out=greater)
        np.maximum(best, maps[tap], out=best)
        np.multiply(number, np.uint8(tap), out=number)
        np.maximum(winner, number, out=winner)
    missing = np.isnan(best, out=greater)
    if missing.any():
        # Nothing compares with NaN: the first NaN of the window is the one that made it so.
        first = np.argmax(np.isnan([map_[missing] for map_ in maps]), axis=0)
        winner[missing] = first


def _by_filter(array: Array, pooling: Window2d, chunk: Chunk) -> Array:
    # A chunk of pooled maps in the order of the product: filters first for channels_first, last for channels_last.
    part = array[chunk.image : chunk.image_end]
    return part.swapaxes(0, 1) if pooling.data_format == "channels_first" else part
