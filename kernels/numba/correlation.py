"""Convolution as tiles of outer products, straight from the images: the path of every geometry, forward and back to the input.

Forward and the gradient of the input are one and the same problem, a *correlation*: every pixel of a grid gathers, from fixed
places around it, all channels of a source, and gives a sum for each filter::

    target[n, i, j, f] = bias[f] + sum over r, s, c of  w[f, r, s, c] * source[n, i * step + row[r], j * step + column[s], c]

Forward, the source is the images and the grid is the result. For the gradient the source is the gradient of the result; with
stride 1 the grid is all pixels of the images, and the places run backwards. With stride s the pixels fall into s x s phases:
those of one phase see the same taps of the filter, so that each phase is a correlation of its own, and nothing is multiplied by
zeros in between.

The lanes of a register are filters, and each tile takes some pixels of the grid, wherever they lie: a table has their offsets
in the source, another the offsets of the places (:func:`~xpconv.kernels.numba.intrinsics.outer_products`). So every stride,
dilation and layout costs the same, and no matrix of columns is built. A worker takes a *unit* at a time: some images, or a
band of rows of one, as much as fits its cache::

     source --(zeros around it, where the window leaves the image)--> band --> tiles: pixels x filters --(transposed)--> target
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from xpconv.geometry import Conv2dGeometry, Pair
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.intrinsics import (
    block_width,
    copy,
    fill,
    lane_count,
    multiply,
    padded_rows,
    pointer,
    size_of,
    transpose,
)
from xpconv.kernels.numba.memory import Array, address, odd_lines, whole_lines
from xpconv.kernels.numba.target import lanes
from xpconv.kernels.numba.threads import run, run_with_scratch
from xpconv.kernels.numba.vectors import prefetch

# A band of the source that a worker holds at a time: a quarter of it was slower by a tenth to a half, four times as much equal.
BAND_BYTES = 256 << 10
# Pixels of the grid that it computes from it at most, so that their sums for one block of filters stay in the cache, too.
UNIT_PIXELS = 1024
# How many planes ahead of the one that is copied memory is asked for.
PLANES_AHEAD = 4
# Elements of weights below which sharing their packing among threads costs more than it saves.
SMALL_WEIGHT = 1 << 14


@dataclass(frozen=True, slots=True)
class Strides:
    """Elements from one image, channel, row and column of an array to the next, and to the first element."""

    image: int
    channel: int
    row: int
    column: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Correlation:
    """The problem of this module; see there.

    Attributes:
        batch: Number of images.
        groups: Number of groups.
        channels: Channels of the source, per group.
        filters: Filters, per group.
        size: Height and width of the source.
        source: Where its elements are.
        source_group: Elements of the source from one group to the next.
        grid: Rows and columns of the grid.
        step: Rows and columns of the source from one pixel of the grid to the next.
        rows: Row that each tap reads, relative to the pixel.
        columns: Column, likewise.
        target: Where the results belong.
        weight_filter: Elements of the weight from one filter to the next, ...
        weight_group: ... from one group to the next,
        weight_channel: ... from one channel to the next,
        weight_taps: ... and where each tap is, by row and column.
        planar: Whether the channels of the source are planes (``channels_first``).
    """

    batch: int
    groups: int
    channels: int
    filters: int
    size: Pair
    source: Strides
    source_group: int
    grid: Pair
    step: Pair
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    target: Strides
    weight_filter: int
    weight_group: int
    weight_channel: int
    weight_taps: tuple[int, ...]
    planar: bool

    @property
    def inside(self) -> bool:
        """Whether no pixel ever reads outside the source."""
        return all(
            min(places) >= 0 and (count - 1) * step + max(places) < size
            for places, count, step, size in zip((self.rows, self.columns), self.grid, self.step, self.size, strict=True)
        )

    @property
    def depth(self) -> int:
        """Terms in each sum."""
        return self.channels * len(self.rows) * len(self.columns)


def strides_of(shape: tuple[int, ...], data_format: str) -> Strides:
    """Strides of a contiguous batch of images."""
    if data_format == "channels_first":
        _, channels, height, width = shape
        return Strides(channels * height * width, height * width, width, 1)
    _, height, width, channels = shape
    return Strides(height * width * channels, 1, width * channels, channels)


def weight_strides(geometry: Conv2dGeometry) -> tuple[int, int, tuple[tuple[int, ...], ...]]:
    """Elements from one filter of the weight to the next, from one channel to the next, and where each (row, column) tap is."""
    (kernel_h, kernel_w), per_group = geometry.kernel_size, geometry.channels // geometry.groups
    if geometry.data_format == "channels_first":
        of_filter, of_channel, of_tap = per_group * kernel_h * kernel_w, kernel_h * kernel_w, 1
    else:
        of_filter, of_channel, of_tap = 1, geometry.filters, per_group * geometry.filters
    taps = tuple(tuple((row * kernel_w + column) * of_tap for column in range(kernel_w)) for row in range(kernel_h))
    return of_filter, of_channel, taps


@functools.lru_cache(maxsize=256)
def forward_correlation(geometry: Conv2dGeometry) -> Correlation:
    """The convolution itself."""
    (top, _), (left, _) = geometry.padding
    of_filter, of_channel, taps = weight_strides(geometry)
    filters = geometry.filters // geometry.groups
    source = strides_of(geometry.x_shape, geometry.data_format)
    return Correlation(
        batch=geometry.batch,
        groups=geometry.groups,
        channels=geometry.channels // geometry.groups,
        filters=filters,
        size=geometry.size,
        source=source,
        source_group=geometry.channels // geometry.groups * source.channel,
        grid=geometry.output_size,
        step=geometry.stride,
        rows=tuple(tap * geometry.dilation[0] - top for tap in range(geometry.kernel_size[0])),
        columns=tuple(tap * geometry.dilation[1] - left for tap in range(geometry.kernel_size[1])),
        target=strides_of(geometry.y_shape, geometry.data_format),
        weight_filter=of_filter,
        weight_group=filters * of_filter,
        weight_channel=of_channel,
        weight_taps=tuple(place for row in taps for place in row),
        planar=geometry.data_format == "channels_first",
    )


@functools.lru_cache(maxsize=256)
def backward_correlations(geometry: Conv2dGeometry) -> tuple[Correlation, ...]:
    """The gradient of the input: one correlation for each phase of the stride."""
    return tuple(_phases(geometry))


def _phases(geometry: Conv2dGeometry) -> Iterator[Correlation]:
    dx = strides_of(geometry.x_shape, geometry.data_format)
    dy = strides_of(geometry.y_shape, geometry.data_format)
    of_filter, of_channel, taps = weight_strides(geometry)
    filters = geometry.filters // geometry.groups
    for phase_h in range(min(geometry.stride[0], geometry.size[0])):
        for phase_w in range(min(geometry.stride[1], geometry.size[1])):
            seen_h, rows = _taps_of_phase(geometry, 0, phase_h)
            seen_w, columns = _taps_of_phase(geometry, 1, phase_w)
            yield Correlation(
                batch=geometry.batch,
                groups=geometry.groups,
                channels=filters,
                filters=geometry.channels // geometry.groups,
                size=geometry.output_size,
                source=dy,
                source_group=filters * dy.channel,
                grid=(
                    -(-(geometry.size[0] - phase_h) // geometry.stride[0]),
                    -(-(geometry.size[1] - phase_w) // geometry.stride[1]),
                ),
                step=(1, 1),
                rows=rows,
                columns=columns,
                target=Strides(
                    dx.image,
                    dx.channel,
                    dx.row * geometry.stride[0],
                    dx.column * geometry.stride[1],
                    phase_h * dx.row + phase_w * dx.column,
                ),
                weight_filter=of_channel,
                weight_group=filters * of_filter,
                weight_channel=of_filter,
                weight_taps=tuple(taps[row][column] for row in seen_h for column in seen_w),
                planar=geometry.data_format == "channels_first",
            )


def _taps_of_phase(geometry: Conv2dGeometry, axis: int, phase: int) -> tuple[list[int], tuple[int, ...]]:
    # Pixel h of the image was read by tap k of output (h + padding - k * dilation) / stride, where that is a whole number.
    taps, places = [], []
    for tap in range(geometry.kernel_size[axis]):
        place, rest = divmod(phase + geometry.padding[axis][0] - tap * geometry.dilation[axis], geometry.stride[axis])
        if rest == 0:
            taps.append(tap)
            places.append(place)
    return taps, tuple(places)


# ---- the plan: what can be computed once for all calls of one geometry ----------------------------------------------------


class UnitArguments(Arguments):
    """What a kernel needs to go over the units of a plan.

    For the gradient of the weights ``target`` is the gradient of the result, ``weights`` and ``bias`` are the sums of the
    workers; the fields from ``parts`` to ``worker_bias_elements`` are of that kernel alone, those from ``winners`` to ``relu``
    of the kernels with pooling.
    """

    source: int
    target: int
    weights: int
    bias: int
    parts: int
    slices: int
    worker_rows: int
    worker_elements: int
    worker_bias_elements: int
    winners: int
    window_places: int
    window_h: int
    window_w: int
    relu: int
    batch: int
    groups: int
    filters: int
    vectors: int
    depth: int
    height: int
    width: int
    source_image: int
    source_group: int
    source_channel: int
    source_row: int
    source_column: int
    rows: int
    columns: int
    step_h: int
    target_image: int
    target_channel: int
    target_row: int
    target_column: int
    packs: int
    first_row: int
    first_column: int
    span_h: int
    band_columns: int
    band_image: int
    band_plane: int
    band_row: int
    planes: int
    inner: int
    pixel_places: int
    step_places: int
    unit_images: int
    unit_rows: int
    bands: int
    units: int
    band_bytes: int
    sums_bytes: int
    scratch: int
    scratch_pitch: int


class _PackArguments(Arguments):
    weight: int
    packed: int
    bias: int
    packed_bias: int
    groups: int
    filters: int
    vectors: int
    depth: int
    weight_filter: int
    weight_group: int
    weight_places: int
    not_finite: int


class Plan:
    """How a correlation is computed by so many threads: the cut into units, and the tables of offsets.

    Args:
        problem: The correlation.
        dtype: float32 or float64.
        workers: Number of threads.
        row_multiple: The rows of a unit are a multiple of this; those of the grid are.
    """

    def __init__(self, problem: Correlation, dtype: np.dtype[Any], workers: int, row_multiple: int = 1) -> None:
        self.problem, self.dtype, self.workers, self.row_multiple = problem, dtype, workers, row_multiple
        self.real = numba.from_dtype(dtype)
        self.packs = not problem.inside or self._scattered()
        self.vectors = -(-problem.filters // lanes(dtype))
        rows, columns = problem.grid
        self.unit_images, self.unit_rows = self._unit()
        bands = -(-rows // self.unit_rows)
        units = -(-problem.batch // self.unit_images) * bands * problem.groups
        pixels = self.unit_images * self.unit_rows * columns
        band = self._band()
        self.pixel_places, self.step_places = self._tables(band)
        weights = [
            channel * problem.weight_channel + tap for channel, tap in self._order(range(problem.channels), problem.weight_taps)
        ]
        self.weight_places = np.array(weights, np.int64)
        filters = self.vectors * lanes(dtype)
        self.packed_elements = problem.groups * problem.depth * filters
        self.bias_elements = problem.groups * filters
        band_bytes = whole_lines(self.unit_images * band.image * dtype.itemsize) if self.packs else 0
        sums_bytes = whole_lines(padded_rows(pixels) * min(self.vectors, 3) * lanes(dtype) * dtype.itemsize)
        self.scratch = band_bytes + 2 * sums_bytes + 4096
        self.template = UnitArguments(
            source=0,
            target=0,
            weights=0,
            bias=0,
            parts=0,
            slices=0,
            worker_rows=0,
            worker_elements=0,
            worker_bias_elements=0,
            winners=0,
            window_places=0,
            window_h=1,
            window_w=1,
            relu=0,
            batch=problem.batch,
            groups=problem.groups,
            filters=problem.filters,
            vectors=self.vectors,
            depth=problem.depth,
            height=problem.size[0],
            width=problem.size[1],
            source_image=problem.source.image,
            source_group=problem.source_group,
            source_channel=problem.source.channel,
            source_row=problem.source.row,
            source_column=problem.source.column,
            rows=rows,
            columns=columns,
            step_h=problem.step[0],
            target_image=problem.target.image,
            target_channel=problem.target.channel,
            target_row=problem.target.row,
            target_column=problem.target.column,
            packs=int(self.packs),
            first_row=min(problem.rows),
            first_column=min(problem.columns),
            span_h=max(problem.rows) - min(problem.rows) + 1,
            band_columns=(columns - 1) * problem.step[1] + max(problem.columns) - min(problem.columns) + 1,
            band_image=band.image,
            band_plane=band.channel,
            band_row=band.row,
            planes=problem.channels if problem.planar else 1,
            inner=1 if problem.planar else problem.channels,
            pixel_places=address(self.pixel_places),
            step_places=address(self.step_places),
            unit_images=self.unit_images,
            unit_rows=self.unit_rows,
            bands=bands,
            units=units,
            band_bytes=band_bytes,
            sums_bytes=sums_bytes,
            scratch=0,
            scratch_pitch=0,
        )

    @property
    def packed_bytes(self) -> int:
        """Memory that :meth:`pack` fills."""
        return (self.packed_elements + self.bias_elements) * self.dtype.itemsize

    def pack(self, weight: Array, bias: Array | None, packed: int) -> bool:
        """Bring weights and bias into the order the tiles read them in; missing filters and biases are zeros.

        Args:
            weight: The weight.
            bias: The bias or None.
            packed: Address of :attr:`packed_bytes` bytes.

        Returns:
            Whether all weights are finite.
        """
        workers = self.workers if weight.size > SMALL_WEIGHT else 1
        flags = np.zeros(workers, np.int64)
        arguments = _PackArguments(
            weight=address(weight),
            packed=packed,
            bias=0 if bias is None else address(bias),
            packed_bias=packed + self.packed_elements * self.dtype.itemsize,
            groups=self.problem.groups,
            filters=self.problem.filters,
            vectors=self.vectors,
            depth=self.problem.depth,
            weight_filter=self.problem.weight_filter,
            weight_group=self.problem.weight_group,
            weight_places=address(self.weight_places),
            not_finite=address(flags),
        )
        run(_pack_weights(self.real), arguments, workers)
        return not flags.any()

    def run(self, source: Array, packed: int, target: Array) -> None:
        """Compute the correlation.

        Args:
            source: The source.
            packed: Address of what :meth:`pack` left.
            target: Where the results go.
        """
        arguments = UnitArguments.from_buffer_copy(self.template)
        arguments.source = address(source)
        arguments.target = address(target) + self.problem.target.first * self.dtype.itemsize
        arguments.weights = packed
        arguments.bias = packed + self.packed_elements * self.dtype.itemsize
        run_with_scratch(_correlate(self.real), arguments, min(self.workers, max(1, arguments.units)), self.scratch)

    def _scattered(self) -> bool:
        # Every channel of a large image is on pages of its own: copied together they are read faster, the copy included.
        height, width = self.problem.size
        return self.problem.planar and self.problem.channels * height * width * self.dtype.itemsize > BAND_BYTES

    def _unit(self) -> Pair:
        problem = self.problem
        rows, columns = problem.grid
        span = max(problem.rows) - min(problem.rows) + 1
        row_bytes = problem.channels * ((columns - 1) * problem.step[1] + len(problem.columns)) * self.dtype.itemsize
        fitting = (BAND_BYTES // row_bytes - span) // problem.step[0] + 1
        unit_rows = max(1, min(rows, fitting, UNIT_PIXELS // max(columns, 1)))
        if unit_rows < rows or rows * columns == 0:
            # Bands of the same height, as many as keep all threads busy to the end.
            bands = -(-rows // unit_rows)
            if problem.batch * problem.groups * bands < 4 * self.workers:
                bands = min(rows, -(-4 * self.workers // (problem.batch * problem.groups)))
            return 1, self._rounded(-(-rows // bands) if rows else 1)
        if problem.batch * problem.groups < self.workers:
            return 1, self._rounded(max(1, -(-rows // self.workers)))
        image_bytes = row_bytes * ((rows - 1) * problem.step[0] + span)
        images = max(1, min(UNIT_PIXELS // (2 * rows * columns), BAND_BYTES // image_bytes))
        return min(images, max(1, problem.batch * problem.groups // (4 * self.workers))), rows

    def _rounded(self, rows: int) -> int:
        return -(-rows // self.row_multiple) * self.row_multiple

    def _band(self) -> Strides:
        # Where the elements of a unit's band are: in memory of its own, or in the source.
        problem = self.problem
        if not self.packs:
            return problem.source
        height = (self.unit_rows - 1) * problem.step[0] + max(problem.rows) - min(problem.rows) + 1
        width = (problem.grid[1] - 1) * problem.step[1] + max(problem.columns) - min(problem.columns) + 1
        if problem.planar:
            plane = odd_lines(height * width, self.dtype.itemsize)
            return Strides(problem.channels * plane, plane, width, 1)
        return Strides(height * width * problem.channels, 1, width * problem.channels, problem.channels)

    def _tables(self, band: Strides) -> tuple[Array, Array]:
        problem = self.problem
        images, rows, columns = np.ogrid[: self.unit_images, : self.unit_rows, : problem.grid[1]]
        pixels = (images * band.image + rows * problem.step[0] * band.row + columns * problem.step[1] * band.column).ravel()
        first_row, first_column = (min(problem.rows), min(problem.columns)) if self.packs else (0, 0)
        taps = [
            (row - first_row) * band.row + (column - first_column) * band.column
            for row in problem.rows
            for column in problem.columns
        ]
        steps = [channel * band.channel + tap for channel, tap in self._order(range(problem.channels), taps)]
        return _whole_tiles(pixels), _whole_tiles(steps)

    def _order(self, channels: range, taps: Any) -> Iterator[tuple[int, int]]:
        # The order of the terms of a sum: as the source lies in memory.
        if self.problem.planar:
            return ((channel, tap) for channel in channels for tap in taps)
        return ((channel, tap) for tap in taps for channel in channels)


def _whole_tiles(places: Any) -> Array:
    # The last tile may read the places of some more rows, whose sums nobody looks at.
    return np.concatenate([places, np.zeros(padded_rows(0), np.int64)]).astype(np.int64)


# ---- the kernels ---------------------------------------------------------------------------------------------------------


@functools.cache
def _pack_weights(real: Any) -> CompiledFunction:
    """Weights in blocks of 1 to 3 registers of filters: (groups, blocks, depth, lanes of the block)."""

    @task(_PackArguments)
    def pack_weights(worker: int, workers: int, a: Any) -> None:
        lanes = lane_count(real)
        weight, packed, places = pointer(a.weight, real), pointer(a.packed, real), pointer(a.weight_places, numba.int64)
        first, last = worker * a.depth // workers, (worker + 1) * a.depth // workers
        bad = 0
        for group in range(a.groups):
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done) * lanes
                block = (group * a.vectors + done) * lanes * a.depth
                kept = min(width, a.filters - done * lanes)
                for k in range(first, last):
                    source = group * a.weight_group + done * lanes * a.weight_filter + places[k]
                    for lane in range(kept):
                        value = weight[source + lane * a.weight_filter]
                        packed[block + k * width + lane] = value
                        bad |= value - value != real(0)
                    for lane in range(kept, width):
                        packed[block + k * width + lane] = real(0)
                done += width // lanes
        pointer(a.not_finite, numba.int64)[worker] = bad
        if worker == 0:
            packed_bias = pointer(a.packed_bias, real)
            for group in range(a.groups):
                for lane in range(a.vectors * lanes):
                    value = real(0)
                    if a.bias != 0 and lane < a.filters:
                        value = pointer(a.bias, real)[group * a.filters + lane]
                    packed_bias[group * a.vectors * lanes + lane] = value

    return pack_weights


@functools.cache
def _correlate(real: Any) -> CompiledFunction:
    @task(UnitArguments)
    def correlate(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        band = a.scratch + worker * a.scratch_pitch
        sums = band + a.band_bytes
        turned = sums + a.sums_bytes
        square = turned + a.sums_bytes
        for unit in range(worker * a.units // workers, (worker + 1) * a.units // workers):
            group, image, images, row, rows = unit_at(a, unit)
            pixels = images * rows * a.columns
            source = source_of_unit(real, a, group, image, images, row, rows, band)
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                weights = a.weights + (group * a.vectors + done) * lanes * a.depth * size
                bias = a.bias + (group * a.vectors + done) * lanes * size
                pitch = width * lanes
                multiply(
                    real, width, pixels, a.depth, source, a.pixel_places, a.step_places, weights, pitch, bias, 0, sums, pitch
                )
                kept = min(pitch, a.filters - done * lanes)
                target = a.target + (group * a.filters + done * lanes) * a.target_channel * size
                target += (image * a.target_image + row * a.target_row) * size
                store(real, a, sums, pitch, images, rows, a.columns, kept, target, turned, square)
                done += width

    return correlate


@inline
def unit_at(a: Any, unit: int) -> tuple[int, int, int, int, int]:
    """Group of a unit, its first image and how many, and its first row of the grid and how many."""
    group, number = unit % a.groups, unit // a.groups
    image, row = number // a.bands * a.unit_images, number % a.bands * a.unit_rows
    return group, image, min(a.unit_images, a.batch - image), row, min(a.unit_rows, a.rows - row)


@inline
def source_of_unit(real: Any, a: Any, group: int, image: int, images: int, row: int, rows: int, band: int) -> int:
    """Address from which the tables count what a unit reads: in the source itself, or in its copy at ``band``."""
    size = size_of(real)
    source: int = a.source + (image * a.source_image + group * a.source_group) * size
    if a.packs:
        pack_band(real, a, source, images, row, rows, band)
        source = band
    else:
        source += row * a.step_h * a.source_row * size
    return source


@inline
def pack_band(real: Any, a: Any, source: int, images: int, row: int, rows: int, band: int) -> None:
    """Copy what some rows of the grid read to ``band``, with zeros where that is outside the source."""
    size = size_of(real)
    left = max(0, -a.first_column)
    right = max(left, min(a.band_columns, a.width - a.first_column))
    height = (rows - 1) * a.step_h + a.span_h
    first_row = row * a.step_h + a.first_row
    for image in range(images):
        for plane in range(a.planes):
            for i in range(height):
                to = band + (image * a.band_image + plane * a.band_plane + i * a.band_row) * size
                from_row = first_row + i
                if from_row < 0 or from_row >= a.height:
                    fill(real, to, a.band_columns * a.inner)
                    continue
                fill(real, to, left * a.inner)
                column = a.first_column + left
                place = image * a.source_image + plane * a.source_channel + from_row * a.source_row + column * a.source_column
                start = source + place * size
                if a.source_column == a.inner:
                    # The memory foresees a row that is read in order, but not the next plane.
                    for line in range(0, (right - left) * a.inner * size, 64):
                        prefetch(start + PLANES_AHEAD * a.source_channel * size + line)
                    copy(real, start, to + left * a.inner * size, (right - left) * a.inner)
                else:
                    for j in range(left, right):
                        copy(real, start + (j - left) * a.source_column * size, to + j * a.inner * size, a.inner)
                fill(real, to + right * a.inner * size, (a.band_columns - right) * a.inner)


@inline
def store(
    real: Any,
    a: Any,
    sums: int,
    pitch: int,
    images: int,
    rows: int,
    columns: int,
    kept: int,
    target: int,
    turned: int,
    square: int,
) -> None:
    """Bring the sums of some filters, (images, rows, columns, lanes), to where they belong in the target."""
    size = size_of(real)
    pixels = rows * columns
    for image in range(images):
        to = target + image * a.target_image * size
        of_image = sums + image * pixels * pitch * size
        if a.target_channel == 1:
            for i in range(rows):
                for j in range(columns):
                    from_pixel = of_image + (i * columns + j) * pitch * size
                    copy(real, from_pixel, to + (i * a.target_row + j * a.target_column) * size, kept)
        elif a.target_column == 1 and a.target_row == columns:
            transpose(real, of_image, pitch, pixels, kept, to, a.target_channel, square, True)
        else:
            transpose(real, of_image, pitch, pixels, kept, turned, pixels, square, True)
            read, written = pointer(turned, real), pointer(to, real)
            for f in range(kept):
                for i in range(rows):
                    start = f * pixels + i * columns
                    place = f * a.target_channel + i * a.target_row
                    for j in range(columns):
                        written[place + j * a.target_column] = read[start + j]
