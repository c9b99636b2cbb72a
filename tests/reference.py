"""What every public function should give: float64 and the plainest loops that say it.

This file shares no code with xpconv and never imports it: the sizes, the paddings and the windows are worked out here
a second time, from the definitions. It is slow, and it is meant to be read; test_reference_against_torch.py holds it
against PyTorch. The functions take the arguments of the public functions of the same name, but batches (4-D) alone.

Inside, everything is channels_first: ``x[n, c, row, column]`` and ``w[f, c, tap_row, tap_column]``. The other layout is
a transpose at the door.

The last section holds the same operations a second time in vectorised form, for images that are too large for loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Pads = tuple[tuple[int, int], tuple[int, int]]

# ----------------------------------------------------------------------------------------------------------------------
# Layouts
# ----------------------------------------------------------------------------------------------------------------------


def to_channels_first(x: Array, data_format: str) -> Array:
    """(N, H, W, C) -> (N, C, H, W)."""
    return np.transpose(x, (0, 3, 1, 2)) if data_format == "channels_last" else x


def from_channels_first(x: Array, data_format: str) -> Array:
    """(N, C, H, W) -> (N, H, W, C)."""
    return np.transpose(x, (0, 2, 3, 1)) if data_format == "channels_last" else x


def weight_to_channels_first(w: Array, data_format: str) -> Array:
    """(KH, KW, C, F) -> (F, C, KH, KW)."""
    return np.transpose(w, (3, 2, 0, 1)) if data_format == "channels_last" else w


def weight_from_channels_first(w: Array, data_format: str) -> Array:
    """(F, C, KH, KW) -> (KH, KW, C, F)."""
    return np.transpose(w, (2, 3, 1, 0)) if data_format == "channels_last" else w


def shape_to_channels_first(shape: Sequence[int], data_format: str) -> tuple[int, int, int, int]:
    """The shape of a batch of images, as (N, C, H, W)."""
    a, b, c, d = shape
    return (a, d, b, c) if data_format == "channels_last" else (a, b, c, d)


def weight_shape_to_channels_first(shape: Sequence[int], data_format: str) -> tuple[int, int, int, int]:
    """The shape of a weight, as (F, C, KH, KW)."""
    a, b, c, d = shape
    return (d, c, a, b) if data_format == "channels_last" else (a, b, c, d)


# ----------------------------------------------------------------------------------------------------------------------
# Sizes
# ----------------------------------------------------------------------------------------------------------------------


def pair(value: Any) -> tuple[int, int]:
    """2 -> (2, 2), (2, 3) -> (2, 3)."""
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second


def span(kernel: int, dilation: int) -> int:
    """Positions from a window's first tap to its last."""
    return dilation * (kernel - 1) + 1


def output_size(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, ceil_mode: bool) -> int:
    """Number of windows along one axis, counted one by one."""
    count = 0
    while count * stride - pads[0] + span(kernel, dilation) <= size + pads[1]:
        count += 1
    if ceil_mode:
        covered = (count - 1) * stride - pads[0] + span(kernel, dilation)
        if covered < size + pads[1]:  # one more window, that reaches past the padding
            count += 1
        if (count - 1) * stride - pads[0] >= size:  # but none that starts in the trailing padding (PyTorch's rule)
            count -= 1
    return count


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's "SAME": as little padding as gives ceil(size / stride) windows, the odd one at the end."""
    windows = (size + stride - 1) // stride
    total = 0
    while (size + total - span(kernel, dilation)) < (windows - 1) * stride:
        total += 1
    return total // 2, total - total // 2


def paddings(padding: Any, size: tuple[int, int], kernel: Any, stride: Any, dilation: Any) -> Pads:
    """Every form of ``padding`` as ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        assert padding == "same"
        kernels, strides, dilations = pair(kernel), pair(stride), pair(dilation)
        vertical = same_padding(size[0], kernels[0], strides[0], dilations[0])
        horizontal = same_padding(size[1], kernels[1], strides[1], dilations[1])
        return vertical, horizontal
    rows, columns = pair(padding)
    return pair(rows), pair(columns)


class Windows:
    """The windows that slide over one image.

    Attributes:
        outputs: Number of windows down and across.
        pads: ((top, bottom), (left, right)).
    """

    def __init__(
        self, size: tuple[int, int], kernel: Any, stride: Any, padding: Any, dilation: Any = 1, ceil_mode: bool = False
    ) -> None:
        self.size = size
        self.kernel, self.stride, self.dilation = pair(kernel), pair(stride), pair(dilation)
        self.pads = paddings(padding, size, kernel, stride, dilation)
        rows, columns = (
            output_size(size[a], self.kernel[a], self.stride[a], self.pads[a], self.dilation[a], ceil_mode) for a in (0, 1)
        )
        self.outputs = (rows, columns)

    def taps(self, i: int, j: int) -> Iterator[tuple[int, int, int, int]]:
        """(tap row, tap column, image row, image column) of window (i, j) in row-major order, padding included."""
        for tap_row in range(self.kernel[0]):
            for tap_column in range(self.kernel[1]):
                row = i * self.stride[0] - self.pads[0][0] + tap_row * self.dilation[0]
                column = j * self.stride[1] - self.pads[1][0] + tap_column * self.dilation[1]
                yield tap_row, tap_column, row, column

    def pixels(self, i: int, j: int) -> list[tuple[int, int]]:
        """(row, column) of the pixels of the image that window (i, j) reads, in row-major order."""
        return [
            (row, column) for _, _, row, column in self.taps(i, j) if 0 <= row < self.size[0] and 0 <= column < self.size[1]
        ]

    def slices(self, i: int, j: int) -> tuple[slice, slice]:
        """Where window (i, j) lies in the padded image."""
        rows, columns = (
            slice(at * self.stride[a], at * self.stride[a] + span(self.kernel[a], self.dilation[a]), self.dilation[a])
            for a, at in ((0, i), (1, j))
        )
        return rows, columns


def pad(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """Surround the last two axes with ``value``."""
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def crop(x: Array, pads: Pads, size: tuple[int, int]) -> Array:
    """Undo :func:`pad`."""
    top, left = pads[0][0], pads[1][0]
    return x[:, :, top : top + size[0], left : left + size[1]]


# ----------------------------------------------------------------------------------------------------------------------
# Convolution: padding is a zero like any other, so 0 * inf in the padding is NaN
# ----------------------------------------------------------------------------------------------------------------------


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    data_format: str = "channels_first",
) -> Array:
    """y[n, f, i, j] = b[f] + the sum of window (i, j) of image n, times filter f, over the channels of f's group."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    w = weight_to_channels_first(np.asarray(w, np.float64), data_format)
    filters, per_group = w.shape[:2]
    windows = Windows(x.shape[2:], w.shape[2:], stride, padding, dilation)
    padded = pad(x, windows.pads)
    y = np.zeros((len(x), filters, *windows.outputs))
    for n, f, i, j in np.ndindex(y.shape):
        first = (f // (filters // groups)) * per_group
        rows, columns = windows.slices(i, j)
        y[n, f, i, j] = np.sum(padded[n, first : first + per_group, rows, columns] * w[f])
        if b is not None:
            y[n, f, i, j] += b[f]
    return from_channels_first(y, data_format)


def conv2d_backward_input(
    dy: Array,
    w: Array,
    input_shape: Sequence[int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    data_format: str = "channels_first",
) -> Array:
    """Each output hands its gradient, times the weight, to every position that its window read."""
    dy = to_channels_first(np.asarray(dy, np.float64), data_format)
    w = weight_to_channels_first(np.asarray(w, np.float64), data_format)
    n_images, channels, *size = shape_to_channels_first(input_shape, data_format)
    filters, per_group = w.shape[:2]
    windows = Windows((size[0], size[1]), w.shape[2:], stride, padding, dilation)
    dpadded = pad(np.zeros((n_images, channels, *size)), windows.pads)
    for n, f, i, j in np.ndindex(dy.shape):
        first = (f // (filters // groups)) * per_group
        rows, columns = windows.slices(i, j)
        dpadded[n, first : first + per_group, rows, columns] += dy[n, f, i, j] * w[f]
    return from_channels_first(crop(dpadded, windows.pads, windows.size), data_format)


def conv2d_backward_weight(
    x: Array,
    dy: Array,
    weight_shape: Sequence[int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    data_format: str = "channels_first",
) -> tuple[Array, Array]:
    """Each output hands its gradient, times its window, to its filter; and as it is to its filter's bias."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    dy = to_channels_first(np.asarray(dy, np.float64), data_format)
    dw = np.zeros(weight_shape_to_channels_first(weight_shape, data_format))
    filters, per_group = dw.shape[:2]
    db = np.zeros(filters)
    windows = Windows(x.shape[2:], dw.shape[2:], stride, padding, dilation)
    padded = pad(x, windows.pads)
    for n, f, i, j in np.ndindex(dy.shape):
        first = (f // (filters // groups)) * per_group
        rows, columns = windows.slices(i, j)
        dw[f] += dy[n, f, i, j] * padded[n, first : first + per_group, rows, columns]
        db[f] += dy[n, f, i, j]
    return weight_from_channels_first(dw, data_format), db


def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    data_format: str = "channels_first",
) -> Array:
    """Each pixel of x is stamped into the output, times its filter; what falls outside of the output is cut off.

    ``w`` is (C_in, C_out/groups, KH, KW). With ``padding="same"`` the output is ``size * stride``, with ``"valid"`` it
    holds ``max(span - stride, 0)`` more (Keras' rule); "same" cuts off what a convolution of that output would pad.
    """
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    w = weight_to_channels_first(np.asarray(w, np.float64), data_format)
    n_images, channels, *size = x.shape
    per_group = w.shape[1]
    kernel, strides, dilations, extra = w.shape[2:], pair(stride), pair(dilation), pair(output_padding)
    spans = [span(kernel[a], dilations[a]) for a in (0, 1)]
    if padding == "same":
        sizes = [size[a] * strides[a] + extra[a] for a in (0, 1)]
        before = [same_padding(sizes[a], kernel[a], strides[a], dilations[a])[0] for a in (0, 1)]
    elif padding == "valid":
        sizes = [size[a] * strides[a] + max(spans[a] - strides[a], 0) + extra[a] for a in (0, 1)]
        before = [0, 0]
    else:
        pads = paddings(padding, (size[0], size[1]), kernel, stride, dilation)
        sizes = [(size[a] - 1) * strides[a] + spans[a] - sum(pads[a]) + extra[a] for a in (0, 1)]
        before = [pads[0][0], pads[1][0]]
    y = np.zeros((n_images, per_group * groups, *sizes))
    for n, c, row, column in np.ndindex(x.shape):
        first = (c // (channels // groups)) * per_group
        for f, tap_row, tap_column in np.ndindex(w.shape[1:]):
            i = row * strides[0] - before[0] + tap_row * dilations[0]
            j = column * strides[1] - before[1] + tap_column * dilations[1]
            if 0 <= i < sizes[0] and 0 <= j < sizes[1]:
                y[n, first + f, i, j] += x[n, c, row, column] * w[c, f, tap_row, tap_column]
    if b is not None:
        y += np.asarray(b, np.float64)[:, None, None]
    return from_channels_first(y, data_format)


# ----------------------------------------------------------------------------------------------------------------------
# Pooling
# ----------------------------------------------------------------------------------------------------------------------


def first_maximum(image: Array, pixels: Sequence[tuple[int, int]]) -> tuple[float, int]:
    """The largest of these pixels and its flat position: the first of equals, the first NaN before any number."""
    row, column = pixels[0]
    for candidate in pixels[1:]:
        value, best = image[candidate], image[row, column]
        if value > best or (np.isnan(value) and not np.isnan(best)):
            row, column = candidate
    return image[row, column], row * image.shape[1] + column


def max_pool2d(
    x: Array,
    pool_size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_first",
) -> tuple[Array, Array]:
    """(the largest pixel of each window, its flat position in the H*W plane). Padding takes no part."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    windows = Windows(x.shape[2:], pool_size, pool_size if stride is None else stride, padding, dilation, ceil_mode)
    y = np.zeros((*x.shape[:2], *windows.outputs))
    indices = np.zeros(y.shape, np.int64)
    for n, c, i, j in np.ndindex(y.shape):
        y[n, c, i, j], indices[n, c, i, j] = first_maximum(x[n, c], windows.pixels(i, j))
    return from_channels_first(y, data_format), from_channels_first(indices, data_format)


def scatter_add(dy: Array, indices: Array, input_shape: Sequence[int], data_format: str = "channels_first") -> Array:
    """Every gradient goes to the pixel that its window chose: the backward of every maximum pooling."""
    dy = to_channels_first(np.asarray(dy, np.float64), data_format)
    indices = to_channels_first(indices, data_format)
    dx = np.zeros(shape_to_channels_first(input_shape, data_format))
    for n, c, i, j in np.ndindex(dy.shape):
        row, column = divmod(int(indices[n, c, i, j]), dx.shape[3])
        dx[n, c, row, column] += dy[n, c, i, j]
    return from_channels_first(dx, data_format)


def max_unpool2d(
    x: Array,
    indices: Array,
    pool_size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
    data_format: str = "channels_first",
) -> Array:
    """Every pixel goes back to where it came from; zeros elsewhere."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    indices = to_channels_first(indices, data_format)
    kernels = pair(pool_size)
    strides = kernels if stride is None else pair(stride)
    pads = paddings(padding, x.shape[2:], pool_size, strides, 1)
    if output_size is None:
        output_size = [(x.shape[2 + a] - 1) * strides[a] - sum(pads[a]) + kernels[a] for a in (0, 1)]
    y = np.zeros((*x.shape[:2], *output_size))
    for n, c, i, j in np.ndindex(x.shape):
        row, column = divmod(int(indices[n, c, i, j]), y.shape[3])
        y[n, c, row, column] = x[n, c, i, j]
    return from_channels_first(y, data_format)


def average_divisor(windows: Windows, i: int, j: int, count_include_pad: bool) -> int:
    """What the sum of window (i, j) is divided by (PyTorch's rule).

    Either the pixels of the image alone; or all positions up to the end of the padding, but not those that a window of
    ``ceil_mode`` reaches beyond it.
    """
    if not count_include_pad:
        return len(windows.pixels(i, j))
    (top, bottom), (left, right) = windows.pads
    return sum(
        -top <= row < windows.size[0] + bottom and -left <= column < windows.size[1] + right
        for _, _, row, column in windows.taps(i, j)
    )


def avg_pool2d(
    x: Array,
    pool_size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "channels_first",
) -> Array:
    """The sum of each window's pixels, divided by :func:`average_divisor`."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    windows = Windows(x.shape[2:], pool_size, pool_size if stride is None else stride, padding, 1, ceil_mode)
    y = np.zeros((*x.shape[:2], *windows.outputs))
    for n, c, i, j in np.ndindex(y.shape):
        total = sum(x[n, c, row, column] for row, column in windows.pixels(i, j))
        y[n, c, i, j] = total / average_divisor(windows, i, j, count_include_pad)
    return from_channels_first(y, data_format)


def avg_pool2d_backward(
    dy: Array,
    input_shape: Sequence[int],
    pool_size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "channels_first",
) -> Array:
    """Every pixel of a window gets its share of the window's gradient."""
    dy = to_channels_first(np.asarray(dy, np.float64), data_format)
    dx = np.zeros(shape_to_channels_first(input_shape, data_format))
    windows = Windows(dx.shape[2:], pool_size, pool_size if stride is None else stride, padding, 1, ceil_mode)
    for n, c, i, j in np.ndindex(dy.shape):
        share = dy[n, c, i, j] / average_divisor(windows, i, j, count_include_pad)
        for row, column in windows.pixels(i, j):
            dx[n, c, row, column] += share
    return from_channels_first(dx, data_format)


def adaptive_pixels(size: Sequence[int], output_size: Sequence[int], i: int, j: int) -> list[tuple[int, int]]:
    """Pixels of window (i, j): rows from floor(i * H / OH) up to, not including, ceil((i + 1) * H / OH)."""
    rows = range(i * size[0] // output_size[0], -(-(i + 1) * size[0] // output_size[0]))
    columns = range(j * size[1] // output_size[1], -(-(j + 1) * size[1] // output_size[1]))
    return [(row, column) for row in rows for column in columns]


def adaptive_max_pool2d(x: Array, output_size: Any, *, data_format: str = "channels_first") -> tuple[Array, Array]:
    """(the largest pixel of each window, its flat position in the H*W plane)."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    outputs = pair(output_size)
    y = np.zeros((*x.shape[:2], *outputs))
    indices = np.zeros(y.shape, np.int64)
    for n, c, i, j in np.ndindex(y.shape):
        y[n, c, i, j], indices[n, c, i, j] = first_maximum(x[n, c], adaptive_pixels(x.shape[2:], outputs, i, j))
    return from_channels_first(y, data_format), from_channels_first(indices, data_format)


def adaptive_avg_pool2d(x: Array, output_size: Any, *, data_format: str = "channels_first") -> Array:
    """The mean of each window."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    outputs = pair(output_size)
    y = np.zeros((*x.shape[:2], *outputs))
    for n, c, i, j in np.ndindex(y.shape):
        pixels = adaptive_pixels(x.shape[2:], outputs, i, j)
        y[n, c, i, j] = sum(x[n, c, row, column] for row, column in pixels) / len(pixels)
    return from_channels_first(y, data_format)


def adaptive_avg_pool2d_backward(dy: Array, input_shape: Sequence[int], *, data_format: str = "channels_first") -> Array:
    """Every pixel of a window gets its share of the window's gradient."""
    dy = to_channels_first(np.asarray(dy, np.float64), data_format)
    dx = np.zeros(shape_to_channels_first(input_shape, data_format))
    for n, c, i, j in np.ndindex(dy.shape):
        pixels = adaptive_pixels(dx.shape[2:], dy.shape[2:], i, j)
        for row, column in pixels:
            dx[n, c, row, column] += dy[n, c, i, j] / len(pixels)
    return from_channels_first(dx, data_format)


# ----------------------------------------------------------------------------------------------------------------------
# im2col
# ----------------------------------------------------------------------------------------------------------------------


def im2col(
    x: Array,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    data_format: str = "channels_first",
) -> Array:
    """One row per window, image by image; its columns are (C, KH, KW), or (KH, KW, C) for channels_last."""
    x = to_channels_first(np.asarray(x, np.float64), data_format)
    windows = Windows(x.shape[2:], kernel_size, stride, padding, dilation)
    padded = pad(x, windows.pads)
    col = np.zeros((len(x) * windows.outputs[0] * windows.outputs[1], x.shape[1] * int(np.prod(windows.kernel))))
    for row, (n, i, j) in enumerate(np.ndindex(len(x), *windows.outputs)):
        window = padded[n][:, *windows.slices(i, j)]
        if data_format == "channels_last":
            window = np.transpose(window, (1, 2, 0))
        col[row] = window.ravel()
    return col


def col2im(
    col: Array,
    input_shape: Sequence[int],
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    data_format: str = "channels_first",
) -> Array:
    """Add every entry of every row to the pixel that :func:`im2col` read it from."""
    n_images, channels, *size = shape_to_channels_first(input_shape, data_format)
    windows = Windows((size[0], size[1]), kernel_size, stride, padding, dilation)
    dpadded = pad(np.zeros((n_images, channels, *size)), windows.pads)
    for row, (n, i, j) in enumerate(np.ndindex(n_images, *windows.outputs)):
        if data_format == "channels_last":
            window = np.transpose(np.reshape(col[row], (*windows.kernel, channels)), (2, 0, 1))
        else:
            window = np.reshape(col[row], (channels, *windows.kernel))
        dpadded[n][:, *windows.slices(i, j)] += window
    return from_channels_first(crop(dpadded, windows.pads, windows.size), data_format)


# ----------------------------------------------------------------------------------------------------------------------
# For large images: one tap of the window at a time, all images and channels at once
# ----------------------------------------------------------------------------------------------------------------------


def _tap_slices(windows: Windows, tap_row: int, tap_column: int) -> tuple[Any, ...]:
    """Where the tap stands in the padded images, for all windows together."""
    starts = (tap_row * windows.dilation[0], tap_column * windows.dilation[1])
    ends = [starts[a] + (windows.outputs[a] - 1) * windows.stride[a] + 1 for a in (0, 1)]
    return ..., *(slice(starts[a], ends[a], windows.stride[a]) for a in (0, 1))


def large_conv2d(
    x: Array, w: Array, b: Array, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Array:
    """:func:`conv2d`, channels_first."""
    windows = Windows(x.shape[2:], w.shape[2:], stride, padding, dilation)
    padded = pad(np.asarray(x, np.float64), windows.pads)
    padded = padded.reshape(len(x), groups, w.shape[1], *padded.shape[2:])
    grouped = np.asarray(w, np.float64).reshape(groups, -1, *w.shape[1:])
    y = np.zeros((len(x), groups, grouped.shape[1], *windows.outputs))
    for tap_row, tap_column in np.ndindex(*windows.kernel):
        tap = padded[_tap_slices(windows, tap_row, tap_column)]
        y += np.einsum("ngchw,gfc->ngfhw", tap, grouped[..., tap_row, tap_column], optimize=True)
    return y.reshape(len(x), len(w), *windows.outputs) + np.asarray(b, np.float64)[:, None, None]


def large_conv2d_backward(
    x: Array, w: Array, dy: Array, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Array, Array, Array]:
    """(dx, dw, db), channels_first."""
    windows = Windows(x.shape[2:], w.shape[2:], stride, padding, dilation)
    padded = pad(np.asarray(x, np.float64), windows.pads)
    padded_size = padded.shape[2:]
    padded = padded.reshape(len(x), groups, w.shape[1], *padded_size)
    grouped_w = np.asarray(w, np.float64).reshape(groups, -1, *w.shape[1:])
    grouped_dy = np.asarray(dy, np.float64).reshape(len(x), groups, len(w) // groups, *windows.outputs)
    dpadded, dw = np.zeros(padded.shape), np.zeros(grouped_w.shape)
    for tap_row, tap_column in np.ndindex(*windows.kernel):
        where = _tap_slices(windows, tap_row, tap_column)
        weight = grouped_w[..., tap_row, tap_column]
        dpadded[where] += np.einsum("ngfhw,gfc->ngchw", grouped_dy, weight, optimize=True)
        for g in range(groups):
            dw[g, :, :, tap_row, tap_column] = np.tensordot(grouped_dy[:, g], padded[where][:, g], axes=((0, 2, 3), (0, 2, 3)))
    dx = crop(dpadded.reshape(*x.shape[:2], *padded_size), windows.pads, windows.size)
    return dx, dw.reshape(w.shape), np.sum(dy, axis=(0, 2, 3), dtype=np.float64)


def large_max_pool2d(x: Array, pool_size: Any, *, stride: Any, padding: Any = 0, dilation: Any = 1) -> tuple[Array, Array]:
    """(y, indices) of :func:`max_pool2d`, channels_first, for images without NaN or -inf."""
    windows = Windows(x.shape[2:], pool_size, stride, padding, dilation)
    padded = pad(np.asarray(x, np.float64), windows.pads, -np.inf)
    position = np.arange(x.shape[2] * x.shape[3]).reshape(1, 1, *x.shape[2:])
    padded_position = pad(position, windows.pads, -1)
    y = np.full((*x.shape[:2], *windows.outputs), -np.inf)
    indices = np.full(y.shape, -1)
    for tap_row, tap_column in np.ndindex(*windows.kernel):
        where = _tap_slices(windows, tap_row, tap_column)
        better = padded[where] > y
        y = np.where(better, padded[where], y)
        indices = np.where(better, padded_position[where], indices)
    return y, indices


def large_sum_pool2d(x: Array, pool_size: Any, *, stride: Any, padding: Any = 0) -> Array:
    """The sum of every window, channels_first; divided by the window's area it is :func:`avg_pool2d`."""
    windows = Windows(x.shape[2:], pool_size, stride, padding)
    padded = pad(np.asarray(x, np.float64), windows.pads)
    y = np.zeros((*x.shape[:2], *windows.outputs))
    for tap_row, tap_column in np.ndindex(*windows.kernel):
        y += padded[_tap_slices(windows, tap_row, tap_column)]
    return y


def large_sum_pool2d_backward(dy: Array, input_shape: Sequence[int], pool_size: Any, *, stride: Any, padding: Any = 0) -> Array:
    """The gradient of :func:`large_sum_pool2d`."""
    windows = Windows((input_shape[2], input_shape[3]), pool_size, stride, padding)
    dpadded = pad(np.zeros(input_shape), windows.pads)
    for tap_row, tap_column in np.ndindex(*windows.kernel):
        dpadded[_tap_slices(windows, tap_row, tap_column)] += dy
    return crop(dpadded, windows.pads, windows.size)


def large_scatter_add(dy: Array, indices: Array, input_shape: Sequence[int]) -> Array:
    """:func:`scatter_add`, channels_first."""
    dx = np.zeros((*input_shape[:2], input_shape[2] * input_shape[3]))
    images, channels = np.ogrid[: dy.shape[0], : dy.shape[1]]
    np.add.at(dx, (images[..., None, None], channels[..., None, None], indices), dy)
    return dx.reshape(input_shape)
