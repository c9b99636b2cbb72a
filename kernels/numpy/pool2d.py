"""Pooling with NumPy: a window's columns are reduced first, its rows after that.

Every batch is seen as (planes, H, W, inner): ``channels_first`` as (N * C, H, W, 1), ``channels_last`` as (N, H, W, C). A
window of KH x KW taps then costs KW - 1 maxima along the rows and KH - 1 between them, not KH * KW::

      a b | c d         max along W        ab | cd        max along H
      e f | g h        ------------->      ef | gh       ------------->     abef | cdgh

For the gradient the forward pass notes which tap won, ``row * KW + column`` in the smallest unsigned integer that holds
it. A later tap must be strictly greater to win, so ties go to the first in row-major order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from xpconv.geometry import Window2d, batch_shape
from xpconv.kernels.numpy.threads import buffer, parallel, thread_count
from xpconv.kernels.numpy.windows import Array, images_per_chunk, padded

PLANE_AXES = (1, 2)
Winners: TypeAlias = Callable[[int], Array]


def max_pool2d_forward(x: Array, geometry: Window2d, return_indices: bool) -> tuple[Array, Array | None]:
    """See :func:`xpconv.functional.max_pool2d`."""
    y = np.empty(geometry.y_shape, x.dtype)
    indices = np.empty(geometry.y_shape, np.int64) if return_indices else None
    planes, targets = _as_planes(x, geometry), _as_planes(y, geometry)
    index_planes = None if indices is None else _as_planes(indices, geometry)
    cells, offsets = _first_cells(geometry), _offsets_of_taps(geometry)

    def work(chunk: slice) -> None:
        tap = _max_of_windows(planes[chunk], geometry, targets[chunk], with_taps=return_indices)
        if index_planes is not None and tap is not None:
            positions = index_planes[chunk]
            np.take(offsets, tap, out=positions, mode="clip")  # the mode that needs no copy of the output
            np.add(positions, cells, out=positions)

    _for_chunks(work, planes)
    return y, indices


def max_pool2d_backward(dy: Array, indices: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_pool2d_backward`."""
    dx = np.empty(geometry.x_shape, dy.dtype)
    planes, gradients, index_planes = (_as_planes(array, geometry) for array in (dx, dy, indices))
    cells = _first_cells(geometry)
    offsets = _offsets_of_taps(geometry)

    def work(chunk: slice) -> None:
        def won(tap: int) -> Array:
            equal: Array = np.equal(index_planes[chunk], cells + offsets[tap])
            return equal

        _spread_to_winners(gradients[chunk], won, geometry, planes[chunk])

    _for_chunks(work, planes)
    return dx


def count_misplaced(indices: Array, geometry: Window2d) -> int:
    """How many positions are none of a pixel of the image that their own window reads."""
    height, width = geometry.size
    read = (indices >= 0) & (indices < height * width)
    axes = (2, 3) if geometry.data_format == "channels_first" else (1, 2)
    for axis, positions in enumerate((indices // width, indices % width)):
        shape = [1, 1, 1, 1]
        shape[axes[axis]] = -1
        starts = np.arange(geometry.output_size[axis]) * geometry.stride[axis] - geometry.padding[axis][0]
        steps = positions - starts.reshape(shape)
        read &= (steps >= 0) & (steps < geometry.span[axis])
        if geometry.dilation[axis] > 1:
            read &= steps % geometry.dilation[axis] == 0
    return int(read.size - np.count_nonzero(read))


def avg_pool2d_forward(x: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d`."""
    y = np.empty(geometry.y_shape, x.dtype)
    planes, targets = _as_planes(x, geometry), _as_planes(y, geometry)
    divisor = _divisor(geometry, count_include_pad, x.dtype)

    def work(chunk: slice) -> None:
        source = padded(planes[chunk], geometry, PLANE_AXES, (0, geometry.output_size[0]), 0, "padded")
        along_rows = _sum_of(_taps_along(source, geometry, 2), "row sums")
        total = _sum_of(_taps_along(along_rows, geometry, 1), "window sums")
        np.divide(total, divisor, out=targets[chunk])

    _for_chunks(work, planes)
    return y


def avg_pool2d_backward(dy: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    """See :func:`xpconv.functional.avg_pool2d_backward`."""
    dx = np.empty(geometry.x_shape, dy.dtype)
    planes, gradients = _as_planes(dx, geometry), _as_planes(dy, geometry)
    divisor = _divisor(geometry, count_include_pad, dy.dtype)

    def work(chunk: slice) -> None:
        images = gradients[chunk]
        share = np.divide(images, divisor, out=buffer("share", images.shape, dy.dtype))
        canvas, inner = _canvas(planes[chunk], geometry)
        rows_shape = (images.shape[0], canvas.shape[1], *images.shape[2:])
        along_rows = buffer("row sums", rows_shape, dy.dtype)
        along_rows[...] = 0
        for target in _taps_along(along_rows, geometry, 1):
            np.add(target, share, out=target)
        for target in _taps_along(canvas, geometry, 2):
            np.add(target, along_rows, out=target)
        if inner is not None:
            np.copyto(planes[chunk], inner)

    _for_chunks(work, planes)
    return dx


def max_unpool2d(x: Array, indices: Array, output_size: tuple[int, int], geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.max_unpool2d`."""
    planes, index_planes = _as_planes(x, geometry), _as_planes(indices, geometry)
    count, height, width, inner = planes.shape
    flat = (count, height * width, inner)
    y = np.zeros((count, output_size[0] * output_size[1], inner), x.dtype)
    np.put_along_axis(y, index_planes.reshape(flat), planes.reshape(flat), axis=1)
    return y.reshape(batch_shape(geometry.batch, geometry.channels, output_size, geometry.data_format))


# ---- the pieces --------------------------------------------------------------------------------------------------------


def _as_planes(array: Array, geometry: Window2d) -> Array:
    """See a batch as (planes, H, W, inner), whatever its data format."""
    if geometry.data_format == "channels_first":
        return array.reshape(-1, *array.shape[2:], 1)
    return array


def _max_of_windows(planes: Array, geometry: Window2d, out: Array, with_taps: bool) -> Array | None:
    """Write the maximum of every window to ``out``.

    Returns:
        The tap that won, in a buffer of the calling thread, or None when it isn't asked for.
    """
    source = padded(planes, geometry, PLANE_AXES, (0, geometry.output_size[0]), -np.inf, "padded")
    columns = list(_taps_along(source, geometry, 2))
    tap_dtype = np.min_scalar_type(geometry.taps)
    rows_shape = columns[0].shape
    best = buffer("row maxima", rows_shape, planes.dtype)
    if not with_taps:
        _maximum(columns, best)
        _maximum(list(_taps_along(best, geometry, 1)), out)
        return None
    tap = buffer("row taps", rows_shape, tap_dtype)
    tap[...] = 0
    greater = buffer("greater", rows_shape, np.dtype(bool))
    seen = buffer("seen", rows_shape, planes.dtype)
    number = buffer("number", rows_shape, tap_dtype)
    np.copyto(best, columns[0])
    for column in range(1, len(columns)):
        np.copyto(seen, columns[column])  # once with strides; what follows runs over contiguous memory
        np.greater(seen, best, out=greater)
        np.maximum(best, seen, out=best)
        # A later winner has the greater number: the maximum of the numbers is the last winner.
        np.multiply(greater.view(np.uint8), tap_dtype.type(column), out=number)
        np.maximum(tap, number, out=tap)
    rows = list(_taps_along(best, geometry, 1))
    row_taps = list(_taps_along(tap, geometry, 1))
    winner = buffer("taps", out.shape, tap_dtype)
    np.copyto(winner, row_taps[0])
    np.copyto(out, rows[0])
    greater = buffer("greater", out.shape, np.dtype(bool))
    change = buffer("change", out.shape, tap_dtype)
    for row in range(1, len(rows)):
        np.greater(rows[row], out, out=greater)
        np.maximum(out, rows[row], out=out)
        # winner = candidate where greater, without a branch: x ^ ((x ^ candidate) & mask), the mask all ones or all zeros.
        np.add(row_taps[row], tap_dtype.type(row * geometry.kernel_size[1]), out=change)
        np.bitwise_xor(change, winner, out=change)
        np.bitwise_and(change, np.negative(greater.view(np.uint8), dtype=tap_dtype), out=change)
        np.bitwise_xor(winner, change, out=winner)
    _mend_taps(planes, geometry, out, winner)
    return winner


def _spread_to_winners(dy: Array, won: Winners, geometry: Window2d, dx: Array) -> None:
    """Write to ``dx`` the gradient of each window, given to the tap that won it.

    Args:
        dy: Gradients, (planes, OH, OW, inner).
        won: Tells of a tap, by number, which windows it won.
        geometry: The window.
        dx: The result, (planes, H, W, inner).
    """
    canvas, inner = _canvas(dx, geometry)
    bits = dy.view(f"i{dy.itemsize}")
    disjoint = all(stride >= span for stride, span in zip(geometry.stride, geometry.span, strict=True))
    chosen = buffer("chosen", dy.shape, bits.dtype)
    for tap, target in enumerate(_taps_of(canvas, geometry)):
        # Masking the bits, not multiplying: infinite gradients stay out of where they don't belong, and zeros stay +0.
        mask = np.negative(won(tap).view(np.int8))
        if disjoint:
            np.bitwise_and(bits, mask, out=target.view(bits.dtype))
        else:
            np.bitwise_and(bits, mask, out=chosen)
            np.add(target, chosen.view(dy.dtype), out=target)
    if inner is not None:
        np.copyto(dx, inner)


def _for_chunks(work: Callable[[slice], None], planes: Array) -> None:
    if planes.size == 0:
        return
    step = images_per_chunk(planes.shape[0], planes[:1].nbytes, thread_count())
    starts = range(0, planes.shape[0], step)

    def stretch(worker: int, first: int, last: int) -> None:
        for start in starts[first:last]:
            work(slice(start, start + step))

    parallel(stretch, len(starts), thread_count())


def _taps_along(planes: Array, geometry: Window2d, axis: int) -> Iterator[Array]:
    # One view for each tap of the window along the axis: what that tap sees at every output position.
    spatial = axis - 1
    stride, dilation = geometry.stride[spatial], geometry.dilation[spatial]
    reach = (geometry.output_size[spatial] - 1) * stride + 1
    for tap in range(geometry.kernel_size[spatial]):
        part = slice(tap * dilation, tap * dilation + reach, stride)
        yield planes[:, part] if axis == 1 else planes[:, :, part]


def _taps_of(planes: Array, geometry: Window2d) -> Iterator[Array]:
    for row in _taps_along(planes, geometry, 1):
        yield from _taps_along(row, geometry, 2)


def _maximum(parts: list[Array], out: Array) -> None:
    np.copyto(out, parts[0])
    for part in parts[1:]:
        np.maximum(out, part, out=out)


def _sum_of(parts: Iterator[Array], name: str) -> Array:
    first = next(parts)
    total = buffer(name, first.shape, first.dtype)
    np.copyto(total, first)
    for part in parts:
        np.add(total, part, out=total)
    return total


def _canvas(dx: Array, geometry: Window2d) -> tuple[Array, Array | None]:
    # Zeros that every tap of every window can be added to, and the part of them that is the image: dx itself without padding.
    if geometry.inside:
        dx[...] = 0
        return dx, None
    (top, _), (left, _) = geometry.padding
    height, width = geometry.size
    swept_height, swept_width = geometry.swept_size
    shape = (dx.shape[0], max(swept_height, top + height), max(swept_width, left + width), dx.shape[3])
    canvas = buffer("canvas", shape, dx.dtype)
    canvas[...] = 0
    return canvas, canvas[:, top : top + height, left : left + width]


def _first_cells(geometry: Window2d) -> Array:
    # Flat position in the image of tap 0 of every window; negative where that tap lies in the padding above or to the left.
    rows, columns = (
        np.arange(geometry.output_size[axis]) * geometry.stride[axis] - geometry.padding[axis][0] for axis in (0, 1)
    )
    return (rows[:, None] * geometry.size[1] + columns)[..., None]


def _offsets_of_taps(geometry: Window2d) -> Array:
    # What to add to the position of tap 0 to find another tap of the same window.
    rows, columns = (np.arange(geometry.kernel_size[axis]) * geometry.dilation[axis] for axis in (0, 1))
    return (rows[:, None] * geometry.size[1] + columns).reshape(-1)


def _mend_taps(planes: Array, geometry: Window2d, maxima: Array, winner: Array) -> None:
    # Two kinds of window were decided wrongly: nothing is greater than NaN, and where all is -inf the padding came first.
    in_order = maxima > -np.inf
    if in_order.all():
        return
    odd = np.nonzero(~in_order)
    plane, out_row, out_column, inner = odd
    value = maxima[odd]
    undecided = np.ones(value.shape, bool)
    decided = np.zeros(value.shape, winner.dtype)
    for tap in range(geometry.taps):
        tap_row, tap_column = divmod(tap, geometry.kernel_size[1])
        row = out_row * geometry.stride[0] - geometry.padding[0][0] + tap_row * geometry.dilation[0]
        column = out_column * geometry.stride[1] - geometry.padding[1][0] + tap_column * geometry.dilation[1]
        within = (row >= 0) & (row < geometry.size[0]) & (column >= 0) & (column < geometry.size[1])
        seen = planes[plane, np.where(within, row, 0), np.where(within, column, 0), inner]
        wins = undecided & within & ((seen == value) | np.isnan(seen))
        decided[wins] = tap
        undecided &= ~wins
    winner[odd] = decided


def _divisor(geometry: Window2d, count_include_pad: bool, dtype: np.dtype[Any]) -> Array:
    # How many cells each mean is over. With ceil_mode a window can reach past the padding; what lies there never counts.
    counts = []
    for axis in (0, 1):
        before, after = geometry.padding[axis] if count_include_pad else (0, 0)
        start = np.arange(geometry.output_size[axis]) * geometry.stride[axis] - geometry.padding[axis][0]
        end = np.minimum(start + geometry.kernel_size[axis], geometry.size[axis] + after)
        counts.append(end - np.maximum(start, -before))
    return np.outer(*counts)[..., None].astype(dtype)
