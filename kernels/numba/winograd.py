"""Convolution with 3 x 3 taps in a quarter of the multiplications, after Winograd: float32, stride 1, many channels.

A tile of 4 x 4 results reads 6 x 6 pixels. Take pixels, taps and results for coefficients of polynomials: their values at six
points along each axis tell as much, and of values the sum over 9 taps is *one* product for each of the 36 pairs of points,
where the 4 x 4 results of 9 taps took 144::

                        6 x 6 pixels, a channel a lane                     4 x 4 results, a filter a lane
    source --(transposed, if channels are planes)--> B' d B     36 products     A' m A  --(transposed)--> target
                                                 [36][tiles][C]  ------->  [36][tiles][filters]
                                  weight --> G w G'  [36][C][filters]

(S. Winograd, Arithmetic Complexity of Computations, 1980; for images A. Lavin and S. Gray, Fast Algorithms for Convolutional
Neural Networks, 2016, whose B', G and A' these are, at other points.) A worker takes a unit at a time, some rows of tiles of an
image or some small images, whose transformed pixels stay in its cache while the weights pass by.

The values at the points are larger than the pixels and cancel again, which costs precision: with 1 and 2, the usual points,
ten times that of the direct sum. The points taken here lose little: the largest error is once or twice that of the
direct sum. float64, which is asked for to be precise, never comes here; nor do numbers that cannot take the detour: an infinity
would spread over its tile, 3e38 would overflow inside, and 1e-40 would lose its last digits. The largest weight and the largest
result tell; :class:`WinogradPlan` then says that it could not, and the caller takes the direct path.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.geometry import Pair
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.correlation import Correlation, store
from xpconv.kernels.numba.intrinsics import (
    INT64,
    TILE_ROWS_1,
    TILE_ROWS_2,
    TILE_ROWS_3,
    Value,
    VectorCode,
    block_width,
    fill,
    lane_count,
    load_offset,
    multiply,
    padded_rows,
    pointer,
    size_of,
    transpose,
)
from xpconv.kernels.numba.memory import Array, address, odd_lines, whole_lines
from xpconv.kernels.numba.target import lanes
from xpconv.kernels.numba.threads import run_with_scratch

# Rows and columns of results that a tile has, and of pixels that it reads.
TILE, PATCH = 4, 6
POINTS = PATCH * PATCH
# Transformed pixels that a worker holds at a time: as many as leave room in 2 MiB of L2 for the products and some weights.
# Where the weights are larger than that they pass by once for each unit, and units may be larger, too.
UNIT_BYTES = 640 << 10
# Tiles that could be computed in the time that this takes.
STREAMING = 4
# Elements of weights below which sharing their transform among threads costs more than it saves.
SMALL_WEIGHT = 1 << 12
# Tiles that could be computed in the time that transforming the weights takes, and the part of the direct sum's multiplications
# below which it pays. Measured: how many times as fast as the direct sum, channels_first and last, one thread with AVX-512
# (with AVX2 and SSE2 more); in brackets what is left to the direct sum.
#    8 x  16 x 28 x 28 -> 16   1.4  1.7      1 x 64 x 28 x 28 -> 64    1.8  1.9       16 x 128 x 7 x 7 -> 128   1.5  1.6
#    8 x  32 x 28 x 28 ->  8   1.6  1.6     (1 x 64 x 14 x 14 -> 64)   1.2  1.1       (4 x 128 x 7 x 7 -> 128)  1.1  1.1
#    8 x  32 x 28 x 28 -> 32   1.8  2.0     (1 x 64 x  7 x  7 -> 64)   0.8  0.8       (1 x 128 x 7 x 7 -> 128)  0.6  0.7
#    8 x  64 x 28 x 28 -> 64   2.3  2.6     16 x 64 x  4 x  4 -> 64    1.6  1.5       16 x 512 x 7 x 7 -> 512   1.4  1.5
#    8 x 128 x 28 x 28 -> 64   2.1  2.4     (8 x 64 x  5 x  5 -> 64)   0.9  0.9       (4 x 512 x 7 x 7 -> 512)  0.8  0.8
WEIGHT_TILES, GAIN = 16, 0.65
# Magnitude below which numbers may have lost digits on the detour. Those of float32 end at 2**-149.
TINY = 2.0**-100

# The points are 0, NEAR, -NEAR, FAR, -FAR and infinity. Largest error of normally distributed numbers, relative to the largest
# result, with 64 and 512 channels (direct sum: 1e-6 and 3e-6); float32 holds their powers and products exactly.
#   1, 2: 9e-6, 16e-6    3/2, 1: 4e-6, 10e-6    3/4, 3/2: 1.6e-6, 4.0e-6    5/8, 3/2: 1.2e-6, 3.7e-6    1/2, 3/2: 3.3e-6, 6.2e-6
NEAR, FAR = 5 / 8, 3 / 2

_DTYPE = np.dtype(np.float32)
# What lies together at the end of a worker's memory: the addresses of a tile's pixels, a register, a square of registers.
_LARGEST_AT, _SQUARE_AT, _SMALL_BYTES = 512, 1024, 4096


class _WeightArguments(Arguments):
    weight: int
    bias: int
    packed: int
    packed_bias: int
    largest: int
    groups: int
    channels: int
    filters: int
    vectors: int
    weight_filter: int
    weight_group: int
    weight_channel: int
    taps: int
    scratch: int
    scratch_pitch: int


class _UnitArguments(Arguments):
    source: int
    target: int
    weights: int
    bias: int
    largest: int
    batch: int
    groups: int
    channels: int
    filters: int
    vectors: int
    height: int
    width: int
    source_image: int
    source_group: int
    source_channel: int
    source_row: int
    source_column: int
    rows: int
    columns: int
    target_image: int
    target_channel: int
    target_row: int
    target_column: int
    planar: int
    first_row: int
    first_column: int
    tile_columns: int
    tile_places: int
    channel_places: int
    unit_images: int
    unit_rows: int
    bands: int
    units: int
    band_image: int
    pixel_plane: int
    product_plane: int
    band_bytes: int
    pixel_bytes: int
    product_bytes: int
    sums_bytes: int
    zero_bytes: int
    scratch: int
    scratch_pitch: int


class WinogradPlan:
    """How a correlation with 3 x 3 neighbouring taps is computed by so many threads."""

    def __init__(self, problem: Correlation, workers: int) -> None:
        self.problem, self.workers = problem, workers
        width, size = lanes(_DTYPE), _DTYPE.itemsize
        self.vectors = -(-problem.filters // width)
        rows, columns = problem.grid
        tile_rows, tile_columns = -(-rows // TILE), -(-columns // TILE)
        self.unit_images, self.unit_rows = self._unit((tile_rows, tile_columns))
        tiles = self.unit_images * self.unit_rows * tile_columns
        bands = -(-tile_rows // self.unit_rows)
        self.tile_places = np.zeros(padded_rows(tiles), np.int64)
        self.tile_places[:tiles] = np.arange(tiles) * problem.channels
        self.channel_places = np.arange(problem.channels, dtype=np.int64)
        # The taps in the order of the rows and columns that they read: for the gradient of the input they run backwards.
        taps = np.array(problem.weight_taps, np.int64).reshape(3, 3)
        self.taps = np.ascontiguousarray(taps[np.argsort(problem.rows)][:, np.argsort(problem.columns)])
        self.packed_elements = problem.groups * POINTS * (problem.channels + 1) * self.vectors * width
        self.packed_bytes = (self.packed_elements + problem.groups * self.vectors * width) * size + 64
        block = min(self.vectors, 3) * width
        band_rows = min(problem.size[0], self.unit_rows * TILE + PATCH - TILE)
        band_image = band_rows * problem.size[1] * problem.channels
        pixel_plane = odd_lines(tiles * problem.channels, size)
        product_plane = odd_lines(padded_rows(tiles) * block, size)
        band_bytes = whole_lines(self.unit_images * band_image * size) if problem.planar else 0
        sums_bytes = whole_lines(self.unit_images * self.unit_rows * TILE * columns * block * size)
        zero_bytes = whole_lines(max(problem.channels, block) * size)
        pixel_bytes, product_bytes = POINTS * pixel_plane * size, POINTS * product_plane * size
        self.scratch = band_bytes + pixel_bytes + product_bytes + 2 * sums_bytes + 2 * zero_bytes + _SMALL_BYTES
        self.template = _UnitArguments(
            source=0,
            target=0,
            weights=0,
            bias=0,
            largest=0,
            batch=problem.batch,
            groups=problem.groups,
            channels=problem.channels,
            filters=problem.filters,
            vectors=self.vectors,
            height=problem.size[0],
            width=problem.size[1],
            source_image=problem.source.image,
            source_group=problem.source_group,
            source_channel=problem.source.channel,
            source_row=problem.source.row,
            source_column=problem.source.column,
            rows=rows,
            columns=columns,
            target_image=problem.target.image,
            target_channel=problem.target.channel,
            target_row=problem.target.row,
            target_column=problem.target.column,
            planar=int(problem.planar),
            first_row=min(problem.rows),
            first_column=min(problem.columns),
            tile_columns=tile_columns,
            tile_places=address(self.tile_places),
            channel_places=address(self.channel_places),
            unit_images=self.unit_images,
            unit_rows=self.unit_rows,
            bands=bands,
            units=-(-problem.batch // self.unit_images) * bands * problem.groups,
            band_image=band_image,
            pixel_plane=pixel_plane,
            product_plane=product_plane,
            band_bytes=band_bytes,
            pixel_bytes=pixel_bytes,
            product_bytes=product_bytes,
            sums_bytes=sums_bytes,
            zero_bytes=zero_bytes,
            scratch=0,
            scratch_pitch=0,
        )

    @staticmethod
    def suits(problem: Correlation, dtype: np.dtype[Any]) -> bool:
        """Whether this is a problem that a plan can be made for."""
        height, width = problem.size
        return (
            dtype == _DTYPE
            and problem.step == (1, 1)
            and _are_neighbours(problem.rows)
            and _are_neighbours(problem.columns)
            and problem.channels >= lanes(_DTYPE)
            and (not problem.planar or (problem.source.row, problem.source.column) == (width, 1))
            and min(problem.batch, problem.filters, *problem.grid, height, width) > 0
        )

    @staticmethod
    def pays(problem: Correlation) -> bool:
        """Whether a plan is faster than the direct sum: where it has clearly fewer multiplications."""
        rows, columns = problem.grid
        tiles = problem.batch * -(-rows // TILE) * -(-columns // TILE)
        direct = 9 * problem.batch * rows * columns
        return problem.filters >= lanes(_DTYPE) // 2 and POINTS * (tiles + WEIGHT_TILES) < GAIN * direct

    def pack(self, weight: Array, bias: Array | None, packed: int) -> bool:
        """Transform the weight, and bring it and the bias into the order the tiles read them in.

        Args:
            weight: The weight.
            bias: The bias of each filter, if there is one.
            packed: Address of :attr:`packed_bytes` bytes.

        Returns:
            Whether it could: not with weights that are not finite, or so small that digits would be lost.
        """
        problem = self.problem
        workers = min(self.workers, problem.channels) if weight.size > SMALL_WEIGHT else 1
        largest = np.zeros(workers, np.int64)
        arguments = _WeightArguments(
            weight=address(weight),
            bias=0 if bias is None else address(bias),
            packed=packed,
            packed_bias=packed + self.packed_elements * _DTYPE.itemsize,
            largest=address(largest),
            groups=problem.groups,
            channels=problem.channels,
            filters=problem.filters,
            vectors=self.vectors,
            weight_filter=problem.weight_filter,
            weight_group=problem.weight_group,
            weight_channel=problem.weight_channel,
            taps=address(self.taps),
            scratch=0,
            scratch_pitch=0,
        )
        run_with_scratch(_transform_weights(numba.float32), arguments, workers, 10 * lanes(_DTYPE) * _DTYPE.itemsize)
        magnitude = _magnitude(largest)
        ctypes.c_float.from_address(packed + self.packed_bytes - 64).value = magnitude
        return magnitude == 0 or TINY <= magnitude < math.inf

    def run(self, source: Array, packed: int, target: Array) -> bool:
        """Compute the correlation.

        Args:
            source: The source.
            packed: Address of what :meth:`pack` left.
            target: Where the results go.

        Returns:
            Whether it could: not where numbers are not finite, or so large or so small that they are lost on the detour. What
            ``target`` holds is then void.
        """
        largest = np.zeros(self.workers, np.int64)
        arguments = _UnitArguments.from_buffer_copy(self.template)
        arguments.source = address(source)
        arguments.target = address(target) + self.problem.target.first * _DTYPE.itemsize
        arguments.weights, arguments.bias = packed, packed + self.packed_elements * _DTYPE.itemsize
        arguments.largest = address(largest)
        run_with_scratch(_convolve(numba.float32), arguments, min(self.workers, arguments.units), self.scratch)
        # No result is larger than the largest weight and the largest pixel of the source allow: so that is not tiny, either.
        weight = ctypes.c_float.from_address(packed + self.packed_bytes - 64).value
        smallest = TINY * max(1.0, 9 * self.problem.channels * weight) if weight else 0.0
        return smallest <= _magnitude(largest) < math.inf

    def _unit(self, tiles: Pair) -> Pair:
        # Images and rows of tiles of a unit: those with which a worker has the least to do, counted in tiles.
        rows, columns = tiles
        problem, size = self.problem, _DTYPE.itemsize
        weight_bytes = POINTS * problem.channels * self.vectors * lanes(_DTYPE) * size
        fitting = (UNIT_BYTES + weight_bytes // 8) // (POINTS * problem.channels * size)
        whole = TILE_ROWS_3 if self.vectors == 3 or self.vectors > 4 else TILE_ROWS_2 if self.vectors > 1 else TILE_ROWS_1

        def cost(unit: Pair) -> int:
            images, unit_rows = unit
            units = -(-problem.batch // images) * -(-rows // unit_rows) * problem.groups
            products = -(-images * unit_rows * columns // whole) * whole
            return -(-units // self.workers) * (products + STREAMING)

        units = [(1, -(-rows // bands)) for bands in range(rows, 0, -1)]
        units += [(images, rows) for images in range(2, min(problem.batch, fitting) + 1)]
        return min((unit for unit in units if unit[0] * unit[1] * columns <= fitting), key=cost, default=units[0])


def _are_neighbours(places: tuple[int, ...]) -> bool:
    return len(places) == 3 and sorted(places) == [*range(min(places), min(places) + 3)]


def _magnitude(bits: Array) -> float:
    # Of numbers without sign the bits have the same order, and those of an infinity and of NaN are the largest.
    return float(bits.max().astype(np.int32).view(_DTYPE))


# ---- the transforms, a register at a time --------------------------------------------------------------------------------


class _Transform:
    """The matrices of Winograd's algorithm, each applied to some registers.

    Points come in pairs, p and -p: of a polynomial's values there the even powers are one half, the odd powers the other.
    """

    def __init__(self, vectors: VectorCode) -> None:
        self.vectors = vectors
        self.add, self.subtract = vectors.builder.fadd, vectors.builder.fsub

    def scaled(self, factor: float, a: Value) -> Value:
        return self.vectors.builder.fmul(self._constant(factor), a)

    def plus(self, c: Value, factor: float, a: Value) -> Value:
        """``c + factor * a``."""
        return self.vectors.multiply_add(self._constant(factor), a, c)

    def pixels(self, d: list[Value]) -> list[Value]:
        """B': six pixels at the six points; the row of p has the coefficients of the product of t - q over all other q."""
        near, far = NEAR**2, FAR**2
        values = [self.plus(self.plus(d[4], -near - far, d[2]), near * far, d[0])]
        for point, other in (NEAR, far), (FAR, near):
            even, odd = self.plus(d[4], -other, d[2]), self.plus(d[3], -other, d[1])
            values += [self.plus(even, point, odd), self.plus(even, -point, odd)]
        return [*values, self.plus(self.plus(d[5], -near - far, d[3]), near * far, d[1])]

    def taps(self, w: list[Value]) -> list[Value]:
        """G: three taps at the six points, divided by the product of p - q over all other q."""
        near, far = NEAR**2, FAR**2
        values = [self.scaled(1 / (near * far), w[0])]
        for point, divisor in (NEAR, 2 * near * (near - far)), (FAR, 2 * far * (far - near)):
            even = self.plus(self.scaled(1 / divisor, w[0]), point**2 / divisor, w[2])
            values += [self.plus(even, point / divisor, w[1]), self.plus(even, -point / divisor, w[1])]
        return [*values, w[2]]

    def results(self, m: list[Value]) -> list[Value]:
        """A': from the products at the six points to four results, the powers 0 to 3 of the points."""
        near, near_odd = self.add(m[1], m[2]), self.subtract(m[1], m[2])
        far, far_odd = self.add(m[3], m[4]), self.subtract(m[3], m[4])
        return [
            self.add(m[0], self.add(near, far)),
            self.plus(self.scaled(NEAR, near_odd), FAR, far_odd),
            self.plus(self.scaled(NEAR**2, near), FAR**2, far),
            self.plus(self.plus(m[5], NEAR**3, near_odd), FAR**3, far_odd),
        ]

    def _constant(self, factor: float) -> Value:
        return ir.Constant(self.vectors.type, [factor] * self.vectors.lanes)


def _place(vectors: VectorCode, places: Value, index: int, offset: Value) -> Value:
    return vectors.builder.add(load_offset(vectors, places, index), offset)


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _transform_pixels(typing_context, real, places, offset, target, plane):  # type: ignore[no-untyped-def]
    """One register of channels of a patch, whose pixels are ``offset`` bytes from the 36 addresses at ``places``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, places, offset, target, plane = arguments
        v = VectorCode(builder, real.dtype)
        transform = _Transform(v)
        columns = [
            transform.pixels([v.load(_place(v, places, row * PATCH + column, offset)) for row in range(PATCH)])
            for column in range(PATCH)
        ]
        step = builder.mul(plane, INT64(v.itemsize))
        for row in range(PATCH):
            for value in transform.pixels([column[row] for column in columns]):
                v.store(value, target)
                target = builder.add(target, step)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 4), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _transform_taps(typing_context, real, taps, target, plane):  # type: ignore[no-untyped-def]
    """One register of filters, of nine taps that lie one after the other."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, taps, target, plane = arguments
        v = VectorCode(builder, real.dtype)
        transform = _Transform(v)
        columns = [
            transform.taps([v.load(v.at(taps, (row * 3 + column) * v.lanes)) for row in range(3)]) for column in range(3)
        ]
        step = builder.mul(plane, INT64(v.itemsize))
        for row in range(PATCH):
            for value in transform.taps([column[row] for column in columns]):
                v.store(value, target)
                target = builder.add(target, step)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 3), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _transform_products(typing_context, real, products, plane, bias, places, offset, largest):  # type: ignore[no-untyped-def]
    """One register of filters of a tile, to ``offset`` bytes from the 16 addresses at ``places``.

    ``largest`` is the address of a register of integers: the bits of the largest magnitude so far. As integers those of an
    infinity are larger than all, and those of NaN larger still.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, products, plane, bias, places, offset, largest = arguments
        v = VectorCode(builder, real.dtype)
        transform = _Transform(v)
        step = builder.mul(plane, INT64(v.itemsize))
        columns = []
        for column in range(PATCH):
            values = []
            for row in range(PATCH):
                place = builder.add(products, builder.mul(step, INT64(row * PATCH + column)))
                values.append(v.load(place))
            columns.append(transform.results(values))
        start = v.load(bias)
        pointer_to_largest = builder.inttoptr(largest, v.integers.as_pointer())
        seen = builder.load(pointer_to_largest)
        magnitude = ir.Constant(v.integers, [(1 << (8 * v.itemsize - 1)) - 1] * v.lanes)
        for row in range(TILE):
            for column, value in enumerate(transform.results([column[row] for column in columns])):
                result = builder.fadd(value, start)
                bits = builder.and_(builder.bitcast(result, v.integers), magnitude)
                seen = builder.select(builder.icmp_signed(">", bits, seen), bits, seen)
                v.store(result, _place(v, places, row * TILE + column, offset))
        builder.store(seen, pointer_to_largest)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 6), generate


# ---- the kernels ---------------------------------------------------------------------------------------------------------


@functools.cache
def _transform_weights(real: Any) -> CompiledFunction:
    """Transformed weights, in blocks of 1 to 3 registers of filters: (groups, blocks, points, channels + 1, lanes of a block).

    The row that is too many is never read: without it the points of a block would often share some few sets of the cache.
    """

    @task(_WeightArguments)
    def transform_weights(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        gathered = a.scratch + worker * a.scratch_pitch
        weight, taps, tap_places = pointer(a.weight, real), pointer(gathered, real), pointer(a.taps, numba.int64)
        bits, seen = pointer(gathered, numba.int32), 0
        for group in range(a.groups):
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                plane = (a.channels + 1) * width * lanes
                block = a.packed + (group * a.vectors + done) * (a.channels + 1) * POINTS * lanes * size
                for channel in range(worker * a.channels // workers, (worker + 1) * a.channels // workers):
                    for vector in range(width):
                        first = (done + vector) * lanes
                        kept = min(lanes, a.filters - first)
                        start = group * a.weight_group + first * a.weight_filter + channel * a.weight_channel
                        for lane in range(kept):
                            for tap in range(9):
                                taps[tap * lanes + lane] = weight[start + lane * a.weight_filter + tap_places[tap]]
                        for lane in range(kept, lanes):
                            for tap in range(9):
                                taps[tap * lanes + lane] = real(0)
                        for i in range(9 * lanes):
                            seen = max(seen, bits[i] & 0x7FFFFFFF)
                        _transform_taps(real, gathered, block + (channel * width + vector) * lanes * size, plane)
                done += width
        pointer(a.largest, numba.int64)[worker] = seen
        if worker == 0:
            bias = pointer(a.packed_bias, real)
            for group in range(a.groups):
                for lane in range(a.vectors * lanes):
                    value = real(0)
                    if a.bias != 0 and lane < a.filters:
                        value = pointer(a.bias, real)[group * a.filters + lane]
                    bias[group * a.vectors * lanes + lane] = value

    return transform_weights


@functools.cache
def _convolve(real: Any) -> CompiledFunction:
    @task(_UnitArguments)
    def convolve(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        band = a.scratch + worker * a.scratch_pitch
        pixels = band + a.band_bytes
        products = pixels + a.pixel_bytes
        sums = products + a.product_bytes
        turned = sums + a.sums_bytes
        zeros = turned + a.sums_bytes
        nowhere = zeros + a.zero_bytes
        places = nowhere + a.zero_bytes
        largest = places + _LARGEST_AT
        square = places + _SQUARE_AT
        fill(real, zeros, a.zero_bytes // size)
        fill(real, largest, lanes)
        for unit in range(worker * a.units // workers, (worker + 1) * a.units // workers):
            group, number = unit % a.groups, unit // a.groups
            image = number // a.bands * a.unit_images
            images = min(a.unit_images, a.batch - image)
            row = number % a.bands * a.unit_rows * TILE
            rows = min(a.unit_rows * TILE, a.rows - row)
            source = a.source + (image * a.source_image + group * a.source_group) * size
            _transform_source(real, a, source, images, row, rows, band, pixels, zeros, places, square)
            tiles = images * ((rows + TILE - 1) // TILE) * a.tile_columns
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                pitch = width * lanes
                kept = min(pitch, a.filters - done * lanes)
                weights = a.weights + (group * a.vectors + done) * (a.channels + 1) * POINTS * lanes * size
                for point in range(POINTS):
                    multiply(
                        real,
                        width,
                        tiles,
                        a.channels,
                        pixels + point * a.pixel_plane * size,
                        a.tile_places,
                        a.channel_places,
                        weights + point * (a.channels + 1) * pitch * size,
                        pitch,
                        zeros,
                        0,
                        products + point * a.product_plane * size,
                        pitch,
                    )
                bias = a.bias + (group * a.vectors + done) * lanes * size
                target = a.target + (group * a.filters + done * lanes) * a.target_channel * size
                target += (image * a.target_image + row * a.target_row) * size
                at_once = a.target_channel == 1 and kept == pitch
                to, of_image, of_row, of_column = target, a.target_image, a.target_row, a.target_column
                if not at_once:
                    to, of_image, of_row, of_column = sums, rows * a.columns * pitch, a.columns * pitch, pitch
                _form_results(
                    real, a, products, width, bias, images, rows, to, of_image, of_row, of_column, nowhere, places, largest
                )
                if not at_once:
                    store(real, a, sums, pitch, images, rows, a.columns, kept, target, turned, square)
                done += width
        bits, seen = pointer(largest, numba.int32), 0
        for lane in range(lanes):
            seen = max(seen, bits[lane])
        pointer(a.largest, numba.int64)[worker] = seen

    return convolve


@inline
def _transform_source(
    real: Any,
    a: Any,
    source: int,
    images: int,
    row: int,
    rows: int,
    band: int,
    pixels: int,
    zeros: int,
    places: int,
    square: int,
) -> None:
    """Transform the pixels that some rows of the grid read: (points, tiles, channels)."""
    size, lanes = size_of(real), lane_count(real)
    table = pointer(places, numba.int64)
    first_row, tile_rows = row + a.first_row, (rows + TILE - 1) // TILE
    tile = 0
    for image in range(images):
        from_image = source + image * a.source_image * size
        row_pitch, column_pitch = a.source_row, a.source_column
        if a.planar:
            top = max(0, first_row)
            bottom = max(top, min(a.height, first_row + tile_rows * TILE + PATCH - TILE))
            to = band + image * a.band_image * size
            start = from_image + top * a.source_row * size
            transpose(real, start, a.source_channel, a.channels, (bottom - top) * a.width, to, a.channels, square, False)
            row_pitch, column_pitch = a.width * a.channels, a.channels
            from_image = to - top * row_pitch * size
        for tile_row in range(tile_rows):
            for tile_column in range(a.tile_columns):
                for i in range(PATCH):
                    for j in range(PATCH):
                        from_row, from_column = first_row + tile_row * TILE + i, tile_column * TILE + a.first_column + j
                        place = zeros
                        if 0 <= from_row < a.height and 0 <= from_column < a.width:
                            place = from_image + (from_row * row_pitch + from_column * column_pitch) * size
                        table[i * PATCH + j] = place
                for start in range(0, a.channels, lanes):
                    channel = min(start, a.channels - lanes)
                    to = pixels + (tile * a.channels + channel) * size
                    _transform_pixels(real, places, channel * size, to, a.pixel_plane)
                tile += 1


@inline
def _form_results(
    real: Any,
    a: Any,
    products: int,
    width: int,
    bias: int,
    images: int,
    rows: int,
    target: int,
    image_pitch: int,
    row_pitch: int,
    column_pitch: int,
    nowhere: int,
    places: int,
    largest: int,
) -> None:
    """Bring the products of some filters, (points, tiles, lanes), back to the pixels of the grid."""
    size, lanes = size_of(real), lane_count(real)
    table = pointer(places, numba.int64)
    tile = 0
    for image in range(images):
        for tile_row in range(0, rows, TILE):
            for tile_column in range(0, a.columns, TILE):
                for i in range(TILE):
                    for j in range(TILE):
                        row, column = tile_row + i, tile_column + j
                        place = nowhere
                        if row < rows and column < a.columns:
                            place = target + (image * image_pitch + row * row_pitch + column * column_pitch) * size
                        table[i * TILE + j] = place
                for vector in range(width):
                    start = products + (tile * width + vector) * lanes * size
                    offset = vector * lanes * size
                    _transform_products(real, start, a.product_plane, bias + offset, places, offset, largest)
                tile += 1
