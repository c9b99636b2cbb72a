"""The columns of a batch as one matrix, and back: what the book's convolution is made of."""

from __future__ import annotations

import numpy as np

from xpconv.geometry import Window2d
from xpconv.kernels.numpy.windows import Array, plane_axes, taps


def im2col(x: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.im2col`."""
    view = taps(_surrounded(x, geometry), geometry, plane_axes(geometry), geometry.output_size[0])
    # view: (KH, KW, OH, OW, N, C)
    order = (4, 2, 3, 5, 0, 1) if geometry.data_format == "channels_first" else (4, 2, 3, 0, 1, 5)
    return np.array(view.transpose(order), order="C").reshape(-1, geometry.channels * geometry.taps)


def col2im(col: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.col2im`."""
    kernel, output = geometry.kernel_size, geometry.output_size
    if geometry.data_format == "channels_first":
        columns = col.reshape(geometry.batch, *output, geometry.channels, *kernel).transpose(4, 5, 1, 2, 0, 3)
    else:
        columns = col.reshape(geometry.batch, *output, *kernel, geometry.channels).transpose(3, 4, 1, 2, 0, 5)
    canvas = _surrounded(np.zeros(geometry.x_shape, col.dtype), geometry)
    targets = taps(canvas, geometry, plane_axes(geometry), output[0])
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            np.add(targets[row, column], columns[row, column], out=targets[row, column])
    (top, _), (left, _) = geometry.padding
    rows, width = slice(top, top + geometry.size[0]), slice(left, left + geometry.size[1])
    inner = canvas[:, :, rows, width] if geometry.data_format == "channels_first" else canvas[:, rows, width]
    return np.ascontiguousarray(inner)


def _surrounded(x: Array, geometry: Window2d) -> Array:
    # The whole batch with its padding: the result is KH * KW times that size anyway.
    widths = [(0, 0)] * 4
    for axis, pads in zip(plane_axes(geometry), geometry.padding, strict=True):
        widths[axis] = pads
    return np.pad(x, widths) if any(map(any, widths)) else x
