"""Convolution with NumPy: the columns of a few images at a time, and one BLAS product for them.

The columns (im2col) of a whole batch would take KH * KW times the memory of the images. Here each thread builds them for a
chunk that fits its cache, in a buffer that it reuses, and multiplies them while they are there::

      x[n0:n1]  (n, C, H, W)                    columns  (groups, K, L)              y[n0:n1]
     +-----------------+     one strided       +--------------------+
     |  KH x KW window |     copy              |                    |    w  (groups, F/groups, K)
     |  +---+          |   ----------->      K |                    |   ----------->  (groups, F/groups, L)
     |  +---+          |                       |                    |    BLAS
     +-----------------+                       +--------------------+
                                                  L = n * rows * OW           K = C/groups * KH * KW

Small images go several to a chunk; of a large image a chunk takes a band of output rows. For ``channels_last`` the columns
are stored the other way round, (groups, L, K) with K = KH * KW * C/groups, so that copies stay contiguous; the code sees a
transposed view and is the same for both. Depthwise convolution is nothing special: a product of one row for each group was
twice as fast as adding up the taps of the filter one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xpconv.geometry import Conv2dGeometry, window_span
from xpconv.kernels.numpy.threads import buffer, parallel, thread_count
from xpconv.kernels.numpy.windows import CHUNK_BYTES, Array, images_per_chunk, padded, plane_axes, taps


class Chunk(NamedTuple):
    """A part of the batch: whole images, or a band of output rows of one image."""

    image: int
    image_end: int
    row: int
    row_end: int


def conv2d_forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry) -> Array:
    """See :func:`xpconv.functional.conv2d`."""
    y = np.empty(geometry.y_shape, x.dtype)
    if y.size == 0:
        return y
    weight = weight_matrix(w, geometry)
    bias = None if b is None else b.reshape(geometry.groups, -1, 1)
    chunks = chunks_of(geometry, x.itemsize, thread_count())

    def work(worker: int, start: int, stop: int) -> None:
        for chunk in chunks[start:stop]:
            columns = columns_of(x, geometry, chunk)
            target = matrix_view(y, geometry, chunk)
            if target is None:
                product = np.matmul(weight, columns, out=buffer("product", (*weight.shape[:2], columns.shape[2]), x.dtype))
                source, destination = split_images(product, chunk), images_view(y, geometry, chunk)
                if bias is None:
                    np.copyto(destination, source)
                else:
                    np.add(source, bias[..., None], out=destination)
            else:
                np.matmul(weight, columns, out=target)
                if bias is not None:
                    np.add(target, bias, out=target)

    parallel(work, len(chunks), thread_count())
    return y


def conv2d_backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """See :func:`xpconv.functional.conv2d_backward_input`."""
    if geometry.batch == 0:
        return np.empty(geometry.x_shape, dy.dtype)
    # A gather multiplies the zeros around dy too, which an infinite weight would turn into NaN.
    if _gather_is_faster(geometry) and np.isfinite(w).all():
        return conv2d_forward(dy, _flipped(w, geometry), None, _mirrored(geometry))
    return _scatter_backward_input(dy, w, geometry)


def conv2d_backward_weight(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """See :func:`xpconv.functional.conv2d_backward_weight`."""
    workers = thread_count()
    chunks = chunks_of(geometry, x.itemsize, workers)
    groups, filters = geometry.groups, geometry.filters // geometry.groups
    dw = np.zeros((workers, groups, filters, geometry.channels // groups * geometry.taps), x.dtype)
    db = np.zeros((workers, groups, filters), x.dtype)

    def work(worker: int, start: int, stop: int) -> None:
        for chunk in chunks[start:stop]:
            gradient = gathered_matrix(dy, geometry, chunk)
            accumulate_weight_gradient(gradient, columns_of(x, geometry, chunk), dw[worker], db[worker])

    parallel(work, len(chunks), workers)
    return weight_from_matrix(dw.sum(axis=0), geometry), db.sum(axis=0).reshape(-1)


# ---- chunks, and matrices of them ------------------------------------------------------------------------------------


def chunks_of(geometry: Conv2dGeometry, itemsize: int, workers: int) -> list[Chunk]:
    """Cut the batch into parts whose columns fit the cache, evenly for ``workers`` threads."""
    out_height, out_width = geometry.output_size
    bytes_per_row = out_width * (geometry.channels * geometry.taps + geometry.filters) * itemsize
    if bytes_per_row * out_height <= CHUNK_BYTES:
        step = images_per_chunk(geometry.batch, bytes_per_row * out_height, workers)
        return [Chunk(n, min(n + step, geometry.batch), 0, out_height) for n in range(0, geometry.batch, step)]
    rows = max(1, CHUNK_BYTES // bytes_per_row)
    bands = max(-(-out_height // rows), -(-min(workers, out_height) // max(geometry.batch, 1)))
    rows = -(-out_height // bands)
    return [
        Chunk(n, n + 1, row, min(row + rows, out_height)) for n in range(geometry.batch) for row in range(0, out_height, rows)
    ]


def columns_of(x: Array, geometry: Conv2dGeometry, chunk: Chunk) -> Array:
    """The columns of a chunk, (groups, K, L): a buffer, or a view of ``x`` where 1x1 windows need no copy."""
    groups, channels = geometry.groups, geometry.channels // geometry.groups
    images, rows = chunk.image_end - chunk.image, chunk.row_end - chunk.row
    length = images * rows * geometry.output_size[1]
    (kernel_h, kernel_w), out_width = geometry.kernel_size, geometry.output_size[1]
    first = geometry.data_format == "channels_first"
    part = x[chunk.image : chunk.image_end]
    if _is_pointwise(geometry) and (images == 1 or not first):
        if first:
            return part.reshape(groups, channels, -1)[:, :, chunk.row * out_width : chunk.row_end * out_width]
        return part[:, chunk.row : chunk.row_end].reshape(length, groups, channels).transpose(1, 2, 0)
    source = windows_of(x, geometry, chunk)
    depth = channels * geometry.taps
    if first:
        columns = buffer("columns", (groups, depth, length), x.dtype)
        shaped = columns.reshape(groups, channels, kernel_h, kernel_w, images, rows, out_width)
        np.copyto(shaped, source.transpose(5, 6, 0, 1, 4, 2, 3))
        return columns
    columns = buffer("columns", (groups, length, depth), x.dtype)
    shaped = columns.reshape(groups, images, rows, out_width, kernel_h, kernel_w, channels)
    np.copyto(shaped, source.transpose(5, 4, 2, 3, 0, 1, 6))
    return columns.transpose(0, 2, 1)


def windows_of(x: Array, geometry: Conv2dGeometry, chunk: Chunk) -> Array:
    """What every tap sees at every output position of a chunk: a view, (KH, KW, rows, OW, n, groups, C/groups)."""
    images = x[chunk.image : chunk.image_end]
    images = padded(images, geometry, plane_axes(geometry), (chunk.row, chunk.row_end), 0, "padded")
    return windows_of_images(images, geometry, chunk)


def windows_of_images(images: Array, geometry: Conv2dGeometry, chunk: Chunk) -> Array:
    """As :func:`windows_of`, of images that are padded already and begin with the first row that the chunk reads."""
    view = taps(images, geometry, plane_axes(geometry), chunk.row_end - chunk.row)
    return view.reshape(*view.shape[:5], geometry.groups, geometry.channels // geometry.groups)


def weight_matrix(w: Array, geometry: Conv2dGeometry) -> Array:
    """The weight as (groups, F/groups, K), K in the order of the columns."""
    groups, filters = geometry.groups, geometry.filters // geometry.groups
    if geometry.data_format == "channels_first":
        return w.reshape(groups, filters, -1)
    return w.reshape(-1, groups, filters).transpose(1, 2, 0)


def weight_from_matrix(matrix: Array, geometry: Conv2dGeometry) -> Array:
    """The inverse of :func:`weight_matrix`."""
    if geometry.data_format == "channels_first":
        return matrix.reshape(geometry.w_shape)
    return np.ascontiguousarray(matrix.transpose(2, 0, 1)).reshape(geometry.w_shape)


def matrix_view(y: Array, geometry: Conv2dGeometry, chunk: Chunk) -> Array | None:
    """A chunk of ``y`` as (groups, F/groups, L) without a copy; None where several images lie between the filters."""
    groups, filters = geometry.groups, geometry.filters // geometry.groups
    out_width = geometry.output_size[1]
    part = y[chunk.image : chunk.image_end]
    if geometry.data_format == "channels_last":
        return part[:, chunk.row : chunk.row_end].reshape(-1, groups, filters).transpose(1, 2, 0)
    if chunk.image_end - chunk.image > 1:
        return None
    return part.reshape(groups, filters, -1)[:, :, chunk.row * out_width : chunk.row_end * out_width]


def images_view(y: Array, geometry: Conv2dGeometry, chunk: Chunk) -> Array:
    """A chunk of whole images of a ``channels_first`` ``y`` as (groups, F/groups, n, OH * OW)."""
    images = chunk.image_end - chunk.image
    groups = geometry.groups
    return y[chunk.image : chunk.image_end].reshape(images, groups, geometry.filters // groups, -1).transpose(1, 2, 0, 3)


def split_images(matrix: Array, chunk: Chunk) -> Array:
    """(groups, F/groups, L) as (groups, F/groups, n, OH * OW)."""
    return matrix.reshape(*matrix.shape[:2], chunk.image_end - chunk.image, -1)


def gathered_matrix(dy: Array, geometry: Conv2dGeometry, chunk: Chunk) -> Array:
    """A chunk of ``dy`` as (groups, F/groups, L), copied only where :func:`matrix_view` can't."""
    view = matrix_view(dy, geometry, chunk)
    if view is not None:
        return view
    source = images_view(dy, geometry, chunk)
    gathered = buffer("gathered", source.shape, dy.dtype)
    np.copyto(gathered, source)
    return gathered.reshape(*source.shape[:2], -1)


def accumulate_weight_gradient(gradient: Array, columns: Array, dw: Array, db: Array) -> None:
    """Add what one chunk contributes to the gradients of weight (groups, F/groups, K) and bias (groups, F/groups)."""
    product = buffer("weight gradient", dw.shape, dw.dtype)
    np.matmul(gradient, columns.transpose(0, 2, 1), out=product)
    np.add(dw, product, out=dw)
    np.add(db, gradient.sum(axis=2), out=db)


# ---- the gradient of the input ---------------------------------------------------------------------------------------


def _gather_is_faster(geometry: Conv2dGeometry) -> bool:
    # At stride 1 the input gradient is itself a convolution, of dy with the mirrored weight: its columns are copied, where
    # scattering adds (reads, adds, writes). It has F * taps columns a pixel instead of C * taps.
    (top, bottom), (left, right) = geometry.padding
    span_h, span_w = geometry.span
    fits = max(top, bottom) < span_h and max(left, right) < span_w
    return fits and geometry.stride == (1, 1) and not _is_pointwise(geometry) and geometry.filters <= 2 * geometry.channels


def _mirrored(geometry: Conv2dGeometry) -> Conv2dGeometry:
    (top, bottom), (left, right) = geometry.padding
    span_h, span_w = (window_span(geometry.kernel_size[axis], geometry.dilation[axis]) for axis in (0, 1))
    return Conv2dGeometry(
        batch=geometry.batch,
        channels=geometry.filters,
        size=geometry.output_size,
        kernel_size=geometry.kernel_size,
        stride=(1, 1),
        padding=((span_h - 1 - top, span_h - 1 - bottom), (span_w - 1 - left, span_w - 1 - right)),
        dilation=geometry.dilation,
        output_size=geometry.size,
        data_format=geometry.data_format,
        filters=geometry.channels,
        groups=geometry.groups,
    )


def _flipped(w: Array, geometry: Conv2dGeometry) -> Array:
    # Turned by 180 degrees, filters and channels of each group swapped.
    groups, filters, channels = geometry.groups, geometry.filters // geometry.groups, geometry.channels // geometry.groups
    kernel_h, kernel_w = geometry.kernel_size
    if geometry.data_format == "channels_first":
        split = w.reshape(groups, filters, channels, kernel_h, kernel_w)[..., ::-1, ::-1]
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(groups * channels, filters, kernel_h, kernel_w)
    split = w.reshape(kernel_h, kernel_w, channels, groups, filters)[::-1, ::-1]
    return np.ascontiguousarray(split.transpose(0, 1, 4, 3, 2)).reshape(kernel_h, kernel_w, filters, groups * channels)


def _scatter_backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    dx = np.empty(geometry.x_shape, dy.dtype)
    weight = weight_matrix(w, geometry).transpose(0, 2, 1)
    groups, channels = geometry.groups, geometry.channels // geometry.groups
    depth, out_width = channels * geometry.taps, geometry.output_size[1]
    first = geometry.data_format == "channels_first"
    workers = thread_count()
    chunks = chunks_of(geometry, dy.itemsize, workers)
    # The bands of one image overlap in dx, so one thread takes them all, in order.
    of_image = [chunk for chunk in chunks if chunk.row == 0]
    bands = len(chunks) // len(of_image)

    def work(worker: int, start: int, stop: int) -> None:
        for index in range(start, stop):
            whole = of_image[index]
            images = whole.image_end - whole.image
            canvas, inner = gradient_canvas(dx, geometry, whole)
            for chunk in chunks[index * bands : (index + 1) * bands]:
                rows = chunk.row_end - chunk.row
                length = images * rows * out_width
                if first:
                    columns = buffer("columns", (groups, depth, length), dy.dtype)
                    shaped = columns.reshape(groups, channels, *geometry.kernel_size, images, rows, out_width)
                    by_tap = shaped.transpose(2, 3, 5, 6, 4, 0, 1)
                else:
                    columns = buffer("columns", (groups, length, depth), dy.dtype)
                    shaped = columns.reshape(groups, images, rows, out_width, *geometry.kernel_size, channels)
                    by_tap = shaped.transpose(4, 5, 2, 3, 1, 0, 6)
                    columns = columns.transpose(0, 2, 1)
                np.matmul(weight, gathered_matrix(dy, geometry, chunk), out=columns)
                top = chunk.row * geometry.stride[0]
                targets = windows_of_images(canvas[:, :, top:] if first else canvas[:, top:], geometry, chunk)
                for tap in np.ndindex(geometry.kernel_size):
                    np.add(targets[tap], by_tap[tap], out=targets[tap])
            if inner is not None:
                np.copyto(dx[whole.image : whole.image_end], inner)

    parallel(work, len(of_image), workers)
    return dx


def gradient_canvas(dx: Array, geometry: Conv2dGeometry, chunk: Chunk) -> tuple[Array, Array | None]:
    """Zeros to add the gradient of a chunk of padded images to, and the part of them that is the images.

    Where nothing is padded the zeros are ``dx`` itself, and the part is None.
    """
    part = dx[chunk.image : chunk.image_end]
    if geometry.inside:
        part[...] = 0
        return part, None
    (top, _), (left, _) = geometry.padding
    height, width = geometry.size
    shape = list(part.shape)
    row_axis, column_axis = plane_axes(geometry)
    shape[row_axis] = max(geometry.swept_size[0], top + height)
    shape[column_axis] = max(geometry.swept_size[1], left + width)
    canvas = buffer("canvas", tuple(shape), dx.dtype)
    canvas[...] = 0
    if row_axis == 2:
        return canvas, canvas[:, :, top : top + height, left : left + width]
    return canvas, canvas[:, top : top + height, left : left + width]


def _is_pointwise(geometry: Conv2dGeometry) -> bool:
    return geometry.kernel_size == geometry.stride == (1, 1) and geometry.padding == ((0, 0), (0, 0))
