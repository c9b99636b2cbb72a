"""Views of a batch of images through a sliding window, for either data format.

The kernels of this folder see every batch as (N, H, W, C) or (N, C, H, W) through strides alone: a view that names its
axes, never a copy that swaps them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from xpconv.geometry import Window2d
from xpconv.kernels.numpy.threads import buffer

Array: TypeAlias = np.ndarray[Any, Any]

# What one thread works on at a time. Small enough that memory stays bounded and a chunk close to the cores; large enough that
# each NumPy call takes some 100 us, since a thread that comes back for the GIL while the other holds it loses 20 to 50 us.
# Of 1, 2, 4 and 8 MiB the last was the fastest for most shapes on two cores with 2 MiB of L2 cache each.
CHUNK_BYTES = 8 << 20


def plane_axes(geometry: Window2d) -> tuple[int, int]:
    """Which axes of a batch are height and width."""
    return (2, 3) if geometry.data_format == "channels_first" else (1, 2)


def images_per_chunk(images: int, bytes_per_image: int, workers: int) -> int:
    """How many images one thread takes at a time: as many as fit the cache, and an even share for every worker."""
    fitting = max(1, CHUNK_BYTES // max(1, bytes_per_image))
    chunks = max(-(-images // fitting), min(workers, images), 1)
    return max(1, -(-images // chunks))


def padded(images: Array, geometry: Window2d, axes: tuple[int, int], rows: tuple[int, int], fill: float, name: str) -> Array:
    """The part of the padded images that the windows of some output rows visit.

    Args:
        images: Images with the height on ``axes[0]`` and the width on ``axes[1]``.
        geometry: The window.
        axes: Where height and width are.
        rows: First and last + 1 of the output rows.
        fill: What the padding holds.
        name: Buffer to build it in, when there is padding.

    Returns:
        A view of ``images`` where the windows stay inside, else a buffer.
    """
    (top, _), (left, _) = geometry.padding
    height, width = geometry.size
    first = rows[0] * geometry.stride[0] - top
    swept_height = (rows[1] - rows[0] - 1) * geometry.stride[0] + geometry.span[0]
    swept_width = geometry.swept_size[1]
    if first >= 0 and first + swept_height <= height and left == 0 and swept_width <= width:
        return images[_along(images.ndim, axes, slice(first, first + swept_height), slice(0, swept_width))]
    start = min(max(first, 0), height)
    stop = max(min(first + swept_height, height), start)
    columns = max(min(swept_width - left, width), 0)
    shape = list(images.shape)
    shape[axes[0]], shape[axes[1]] = swept_height, swept_width
    result = buffer(name, tuple(shape), images.dtype)
    above = min(start - first, swept_height)
    below = above + stop - start
    everything = slice(None)
    for border_rows, border_columns in (
        (slice(0, above), everything),
        (slice(below, None), everything),
        (slice(above, below), slice(0, left)),
        (slice(above, below), slice(left + columns, None)),
    ):
        result[_along(images.ndim, axes, border_rows, border_columns)] = fill
    result[_along(images.ndim, axes, slice(above, below), slice(left, left + columns))] = images[
        _along(images.ndim, axes, slice(start, stop), slice(0, columns))
    ]
    return result


def taps(images: Array, geometry: Window2d, axes: tuple[int, int], output_rows: int) -> Array:
    """View padded images as windows: the two axes become four, (KH, KW, OH, OW), in place of ``axes`` and at the front.

    Returns:
        A view of shape (KH, KW, OH, OW, *the other axes in their order).
    """
    stride_h, stride_w = images.strides[axes[0]], images.strides[axes[1]]
    others = [axis for axis in range(images.ndim) if axis not in axes]
    return as_strided(
        images,
        (*geometry.kernel_size, output_rows, geometry.output_size[1], *(images.shape[axis] for axis in others)),
        (
            geometry.dilation[0] * stride_h,
            geometry.dilation[1] * stride_w,
            geometry.stride[0] * stride_h,
            geometry.stride[1] * stride_w,
            *(images.strides[axis] for axis in others),
        ),
    )


def _along(ndim: int, axes: tuple[int, int], rows: slice, columns: slice) -> tuple[slice, ...]:
    index = [slice(None)] * ndim
    index[axes[0]], index[axes[1]] = rows, columns
    return tuple(index)
