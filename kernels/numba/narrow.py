"""Convolution with few filters per group: depthwise, and the way back to images of few channels.

:mod:`~xpconv.kernels.numba.correlation` puts filters into the lanes of a register, and where a group has one to four of them
most lanes would be wasted. Here the lanes are neighbouring pixels of a row, or, where every group has a single channel and
these are the innermost axis (depthwise, ``channels_last``), neighbouring channels. A tile takes a few rows of the grid, so that
a row of the source is read once for all rows of the tile that see it. With three rows of taps::

                                        row 0   row 1   row 2   row 3   of the tile
        row 0 of the source   x  tap      0
        row 1                 x  tap      1       0
        row 2                 x  tap      2       1       0
        row 3                 x  tap              2       1       0
        row 4                 x  tap                      2       1
        row 5                 x  tap                              2

A place in the source that is read is a *term*; the terms that the same rows of the tile see make a *class*, and the tile goes
over one class after the other (:func:`_tile`). Nothing is multiplied by zeros to fill the corners of that picture: a pixel may
be infinite. Any stride and dilation gives such a picture, with more or less to share.

Vectors of pixels must lie in one piece. The band of the source that a worker holds is therefore made planar, its columns
are split by the remainder of their number by the stride, and what the window reads outside the image is written as zeros::

        column            0 1 2 3 4 5 6 7      stride 2     0 2 4 6 | 1 3 5 7

At the end of a row the last vector reaches back to pixels that another one computes, too, so that nothing is read or written
outside. Where that cannot be done, because the grid is narrower than a register or because the pixels of the target are not
neighbours, the sums go to a band of their own first. All phases of a gradient with a stride are computed from the same band,
and woven together on the way from there to the target.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpconv.geometry import Conv2dGeometry, Pair
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.correlation import Correlation
from xpconv.kernels.numba.intrinsics import (
    INT32,
    INT64,
    Value,
    VectorCode,
    fill,
    lane_count,
    load_offset,
    pointer,
    size_of,
    transpose,
)
from xpconv.kernels.numba.memory import Array, address, borrowed, odd_lines
from xpconv.kernels.numba.target import lanes, registers
from xpconv.kernels.numba.threads import run, run_with_scratch

# Most filters that a tile takes, and by their number the rows that it takes at a time.
MOST_FILTERS = 4
TILE_ROWS = (0, 4, 2, 2, 1)
# Vectors that it is wide.
TILE_VECTORS = 4 if registers() == 32 else 2
# For the gradient of the weights, by the number of filters: the terms that share the load of a vector of the gradient.
SUM_TERMS = (0, 9, 9, 8, 5) if registers() == 32 else (0, 9, 4, 3, 2)
# Instead of nine terms of one filter, where that leaves fewer sums that nobody needs: a kernel of 2 x 2.
FEW_TERMS = 4
# A band of the source, and the sums of the threads in the gradient of the weights.
BAND_BYTES = 128 << 10
SUMS_BYTES = 24 << 20
# What a phase is described by: its first term, first weight, rows, columns, and where its first pixel is in the target.
PHASE_FIELDS = 5
# Multiplications that one thread does in the time that waking another one takes.
SMALL_WORK = 1 << 18


# ---- the plan ------------------------------------------------------------------------------------------------------------


class _UnitArguments(Arguments):
    """What the kernels need to go over the units of a plan.

    A *block* is a group, or, where lanes are channels, a register of groups; the last one reaches back to groups of the one
    before, and both write the same numbers there. ``phases`` has a row of numbers for each phase: ``PHASE_FIELDS`` and then the
    number of terms of each class. The first ``band_shift`` bytes of a band are left out, so that the first pixel of the source
    lies on a cache line, and not the zeros before it.
    """

    source: int
    source_end: int
    target: int
    weights: int
    bias: int
    blocks: int
    block_step: int
    block_last: int
    block_source: int
    block_target: int
    block_filters: int
    kept: int
    channels: int
    filters: int
    filter_blocks: int
    phases: int
    phase_count: int
    phase_fields: int
    terms: int
    term_count: int
    height: int
    source_image: int
    source_channel: int
    source_row: int
    source_column: int
    step_h: int
    step_w: int
    first_row: int
    first_column: int
    span_h: int
    rows: int
    bands: int
    units: int
    packs: int
    band_plane: int
    band_row: int
    band_column: int
    lines: int
    line_count: int
    line_pitch: int
    direct: int
    target_image: int
    target_filter: int
    target_row: int
    target_column: int
    sums_phase: int
    sums_filter: int
    sums_row: int
    positions_bytes: int
    band_bytes: int
    band_shift: int
    packs_gradient: int
    gradient_filter: int
    gradient_row: int
    gradient_column: int
    parts: int
    slices: int
    term_blocks: int
    worker_elements: int
    scratch: int
    scratch_pitch: int


class _PackArguments(Arguments):
    weight: int
    packed: int
    places: int
    place_count: int
    blocks: int
    block_step: int
    block_last: int
    kept: int
    filters: int
    filter_blocks: int
    weight_filter: int
    weight_group: int


class _AddArguments(Arguments):
    sums: int
    dw: int
    db: int
    parts: int
    slices: int
    worker_elements: int
    term_blocks: int
    terms: int
    blocks: int
    block_step: int
    block_last: int
    kept: int
    filters: int
    filter_blocks: int
    weight_filter: int
    weight_group: int
    weight_places: int


class NarrowPlan:
    """How convolutions of few filters per group are computed by so many threads.

    Args:
        problems: The convolution itself, or all phases of the gradient of its input; phases without taps are zeros.
        dtype: Dtype of all arrays.
        workers: Number of threads.
    """

    def __init__(self, problems: tuple[Correlation, ...], dtype: np.dtype[Any], workers: int) -> None:
        problem = problems[0]
        self.problem, self.dtype, self.workers = problem, dtype, workers
        self.real = numba.from_dtype(dtype)
        lane = lanes(dtype)
        self.lanes_are_channels = not problem.planar and problem.channels == problem.filters == 1
        filter_blocks = -(-problem.filters // MOST_FILTERS)
        self.tile_filters = -(-problem.filters // filter_blocks)
        self.tile_rows = TILE_ROWS[self.tile_filters]
        block = lane if self.lanes_are_channels else 1
        self.blocks = -(-problem.groups // block)
        rows, columns = (max(phase.grid[axis] for phase in problems) for axis in (0, 1))
        seen = [phase for phase in problems if phase.rows and phase.columns]
        first_row = min((min(phase.rows) for phase in seen), default=0)
        first_column = min((min(phase.columns) for phase in seen), default=0)
        self.first = first_row, first_column
        span_h, span_w = (
            max((max(places) for places in axis), default=first) - first + 1
            for axis, first in (
                ([phase.rows for phase in seen], first_row),
                ([phase.columns for phase in seen], first_column),
            )
        )
        step_h, step_w = problem.step

        # The cut into units: bands of rows, none of fewer rows than a tile has.
        if self.lanes_are_channels:
            self.lines: tuple[int, ...] = (0,)
            line_columns = (columns - 1) * step_w + span_w
            line_pitch = line_columns * lane
        else:
            self.lines = tuple(sorted({(column - first_column) % step_w for phase in seen for column in phase.columns}) or [0])
            line_columns = max(columns, lane) + (span_w - 1) // step_w
            line_pitch = -(-line_columns // lane) * lane
        row_elements = problem.channels * len(self.lines) * line_pitch
        wanted = (BAND_BYTES // (row_elements * dtype.itemsize) - span_h) // step_h + 1
        bands = -(-rows // max(wanted, self.tile_rows))
        bands = max(bands, -(-4 * workers // max(1, problem.batch * self.blocks)))
        bands = max(1, min(bands, rows // self.tile_rows))
        unit_rows = max(-(-rows // bands), self.tile_rows)
        fewest = rows // bands - (rows - min(phase.grid[0] for phase in problems))

        # Where the sums go, and where the elements of the source are.
        if self.lanes_are_channels:
            direct = fewest >= self.tile_rows and problem.groups >= lane
            inside = all(phase.inside for phase in seen)
        else:
            direct = fewest >= self.tile_rows and columns >= lane and problem.target.column == 1 and len(problems) == 1
            inside = all(phase.inside for phase in seen) and problem.source.column == step_w == 1
        self.packs = not (inside and direct)
        band_rows = (unit_rows - 1) * step_h + span_h
        plane = odd_lines(band_rows * len(self.lines) * line_pitch + lane, dtype.itemsize)
        if self.packs:
            self.band_plane, self.band_row = plane, len(self.lines) * line_pitch
            self.band_column = lane if self.lanes_are_channels else 1
        else:
            self.band_plane, self.band_row = problem.source.channel, problem.source.row
            self.band_column = problem.source.column
        self.line_pitch = line_pitch

        # The terms of all phases, one after the other, and which weights they are multiplied by.
        spans = _spans(self.tile_rows)
        self.phases = np.zeros((len(problems), PHASE_FIELDS + len(spans)), np.int64)
        terms: list[Array] = []
        places: list[Array] = []
        for phase, numbers in zip(problems, self.phases, strict=True):
            done = sum(part.size for part in terms), sum(part.size for part in places)
            numbers[:PHASE_FIELDS] = *done, *phase.grid, phase.target.first
            for index, span in enumerate(spans):
                of_span, weights = self._terms(phase, span)
                numbers[PHASE_FIELDS + index] = of_span.size
                terms.append(of_span)
                places.append(weights)
        # The kernel of most depthwise convolutions has a tile of its own.
        top = min(problem.rows, default=0)
        self.unrolled = (
            len(problems) == problem.channels == problem.filters == step_h == 1
            and sorted(problem.rows) == [top, top + 1, top + 2]
            and len(problem.columns) == 3
        )
        self.terms, self.places = np.concatenate(terms), np.concatenate(places)

        sums_columns = columns if self.lanes_are_channels else max(columns, lane)
        sums_row = sums_columns * block
        sums_filter = unit_rows * sums_row
        vectors = columns if self.lanes_are_channels else -(-columns // lane)
        positions = -(-unit_rows // self.tile_rows) * vectors + TILE_VECTORS
        positions_bytes, band_bytes = 16 * positions, (problem.channels * plane + lane) * dtype.itemsize * self.packs
        sums_bytes = len(problems) * problem.filters * sums_filter * dtype.itemsize
        self.scratch = positions_bytes + 64 + band_bytes + sums_bytes + lane * lane * dtype.itemsize
        self.line_table = self._line_table(line_columns if self.lanes_are_channels else columns + (span_w - 1) // step_w)
        depth = sum(phase.depth for phase in problems)
        self.zeros = np.zeros(max(problem.groups * problem.filters, block), dtype)
        self.weight_tables = self._weight_tables()
        work = problem.batch * problem.groups * problem.filters * rows * columns * depth
        if work < SMALL_WORK:
            self.workers = 1
        self.template = _UnitArguments(
            source=0,
            source_end=0,
            target=0,
            weights=0,
            bias=0,
            blocks=self.blocks,
            block_step=block,
            block_last=max(0, problem.groups - block),
            block_source=problem.channels * problem.source.channel,
            block_target=problem.filters * problem.target.channel,
            block_filters=problem.filters,
            kept=min(block, problem.groups),
            channels=problem.channels,
            filters=problem.filters,
            filter_blocks=filter_blocks,
            phases=address(self.phases),
            phase_count=len(problems),
            phase_fields=self.phases.shape[1],
            terms=address(self.terms),
            term_count=self.places.size,
            height=problem.size[0],
            source_image=problem.source.image,
            source_channel=problem.source.channel,
            source_row=problem.source.row,
            source_column=problem.source.column,
            step_h=step_h,
            step_w=step_w,
            first_row=first_row,
            first_column=first_column,
            span_h=span_h,
            rows=rows,
            bands=bands,
            units=problem.batch * self.blocks * bands,
            packs=int(self.packs),
            band_plane=self.band_plane,
            band_row=self.band_row,
            band_column=self.band_column,
            lines=address(self.line_table),
            line_count=len(self.lines),
            line_pitch=line_pitch,
            direct=int(direct),
            target_image=problem.target.image,
            target_filter=problem.target.channel,
            target_row=problem.target.row,
            target_column=problem.target.column,
            sums_phase=problem.filters * sums_filter,
            sums_filter=sums_filter,
            sums_row=sums_row,
            positions_bytes=-(-positions_bytes // 64) * 64,
            band_bytes=band_bytes,
            band_shift=-int(self.line_table[0, 1]) % lane * dtype.itemsize,
            packs_gradient=0,
            gradient_filter=0,
            gradient_row=0,
            gradient_column=0,
            parts=0,
            slices=0,
            term_blocks=0,
            worker_elements=0,
            scratch=0,
            scratch_pitch=0,
        )

    def run(self, source: Array, weight: Array, bias: Array | None, target: Array) -> None:
        """Compute the correlations, and so every element of the target.

        Args:
            source: The source.
            weight: The weights.
            bias: The bias, if there is one.
            target: Where the results go.
        """
        if target.size == 0:
            return
        problem, size, block = self.problem, self.dtype.itemsize, self.template.block_step
        start = self.zeros if bias is None else bias
        if start.size < block:  # a whole vector of it is read
            start = np.append(start, np.zeros(block - start.size, self.dtype))
        elements = self.blocks * self.template.filter_blocks * self.places.size * block
        with borrowed(elements * size) as packed:
            packing = _PackArguments(
                weight=address(weight),
                packed=packed,
                places=address(self.places),
                place_count=self.places.size,
                blocks=self.blocks,
                block_step=block,
                block_last=self.template.block_last,
                kept=self.template.kept,
                filters=problem.filters,
                filter_blocks=self.template.filter_blocks,
                weight_filter=problem.weight_filter,
                weight_group=problem.weight_group,
            )
            run(_pack_weights(self.real, self.tile_filters), packing, self.workers if elements > 1 << 14 else 1)
            arguments = _UnitArguments.from_buffer_copy(self.template)
            arguments.source, arguments.target = address(source), address(target)
            arguments.source_end = arguments.source + source.nbytes
            arguments.weights, arguments.bias = packed, address(start)
            kernel = _correlate(self.real, self.tile_filters, int(not self.lanes_are_channels), int(self.unrolled))
            run_with_scratch(kernel, arguments, min(self.workers, self.template.units), self.scratch)

    def place(self, row: int, column: int) -> int:
        """Elements from the first one of a band's plane to what a tap reads for the first pixel."""
        row, column = row - self.first[0], column - self.first[1]
        if self.lanes_are_channels:
            return row * self.band_row + column * self.band_column
        quotient, line = divmod(column, self.problem.step[1])
        return row * self.band_row + self.lines.index(line) * self.line_pitch + quotient

    def _line_table(self, columns: int) -> Array:
        # For each line of a band: the first column of the source in it, where in the line that is, and how many there are.
        step = 1 if self.lanes_are_channels else self.problem.step[1]
        table = np.zeros((len(self.lines), 3), np.int64)
        for index, line in enumerate(self.lines):
            start = self.first[1] + line
            left = min(columns, max(0, -(start // step)))
            count = min(columns, -(-(self.problem.size[1] - start) // step)) - left
            table[index] = start + left * step, left, max(0, count)
        return table

    def _weight_tables(self) -> tuple[Array, Array]:
        # For each weight of a filter, where the first pixel reads what it is multiplied by, and where it belongs itself. The
        # last tile of terms is a whole one, too.
        problem = self.problem
        channels = np.arange(problem.channels, dtype=np.int64)[:, None]
        taps = np.array([self.place(row, column) for row in problem.rows for column in problem.columns], np.int64)
        weights = channels * problem.weight_channel + np.array(problem.weight_taps, np.int64)
        places = (channels * self.band_plane + taps).ravel()
        return np.append(places, np.zeros(max(SUM_TERMS), np.int64)), weights.ravel()

    def _terms(self, phase: Correlation, span: Pair) -> tuple[Array, Array]:
        # The terms that just these rows of the tile see: where in the band, and the places of the weights of each.
        terms, taps = [], []
        for row, seen_by in _seen_by(phase, self.tile_rows):
            for column_tap, column in enumerate(phase.columns):
                for rows in _runs(seen_by):
                    if (rows[0], rows[-1] + 1) == span:
                        terms.append(self.place(row, column))
                        taps.append([phase.weight_taps[seen_by[i] * len(phase.columns) + column_tap] for i in rows])
        channels = np.arange(phase.channels, dtype=np.int64)
        of_terms = np.array(terms, np.int64).reshape(1, -1)
        of_weights = np.array(taps, np.int64).reshape(1, len(terms), span[1] - span[0], 1)
        places = channels[:, None] * self.band_plane + of_terms
        of_channel = channels.reshape(-1, 1, 1, 1) * phase.weight_channel
        weights = of_channel + of_weights + np.arange(self.tile_filters) * phase.weight_filter
        return places.ravel(), weights.ravel()


def _spans(rows: int) -> list[Pair]:
    # The classes of terms: those that the rows from a first to a last one of the tile see.
    return [(first, last) for first in range(rows) for last in range(first + 1, rows + 1)]


def _seen_by(phase: Correlation, rows: int) -> Iterator[tuple[int, dict[int, int]]]:
    # Each row of the source that a tile reads, and by which row of taps each row of the tile sees it.
    seen: dict[int, dict[int, int]] = {}
    for row in range(rows):
        for tap, place in enumerate(phase.rows):
            seen.setdefault(row * phase.step[0] + place, {})[row] = tap
    yield from sorted(seen.items())


def _runs(numbers: Any) -> list[list[int]]:
    # The numbers in pieces without gaps.
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


# ---- the tiles, as vector code -------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _tile(  # type: ignore[no-untyped-def]  # noqa: D417
    typing_context,
    real,
    filters,
    rows,
    spread,
    unrolled,
    counts,
    source,
    positions,
    terms,
    weights,
    bias,
    target,
    target_row,
    target_filter,
):
    """``target[f, i, :] = bias[f] + sum over terms of weight * source``, some vectors wide, all sums in registers.

    Args:
        real: Dtype, a literal.
        filters: Number of filters, a literal.
        rows: Number of rows, a literal.
        spread: Whether lanes are pixels, so that a weight is spread over all of them, a literal; else each has its own.
        unrolled: Whether it is known that three rows of three taps follow one another, for one filter and one channel, a
            literal: the nine weights then stay in registers.
        counts: Address of the number of terms in each class.
        source: Address of the source.
        positions: Address of two offsets in bytes for each vector: in the source and in the target.
        terms: Address of the offset of each term from there.
        weights: Address of the weights: for each term, for each row that sees it, for each filter.
        bias: Address of the bias of each filter.
        target: Address of the target.
        target_row: Elements from one row of it to the next.
        target_filter: Elements from one filter of it to the next.
    """
    signature = types.void(real, filters, rows, spread, unrolled, *[types.int64] * 9)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counts, source, positions, terms, weights, bias, target, target_row, target_filter = arguments[5:]
        v = VectorCode(builder, real.dtype)
        count, height, vectors = filters.literal_value, rows.literal_value, range(TILE_VECTORS)
        weight_size = 1 if spread.literal_value else v.lanes

        def weight_at(at: Value, index: int) -> Value:
            at = v.at(at, index * weight_size)
            return v.broadcast(v.load_scalar(at)) if spread.literal_value else v.load(at)

        sources = [builder.add(source, load_offset(v, positions, 2 * z)) for z in vectors]
        targets = [builder.add(target, load_offset(v, positions, 2 * z + 1)) for z in vectors]
        start = [weight_at(bias, f) for f in range(count)]
        sums = [start[f] for _ in range(height) for f in range(count) for _ in vectors]
        if unrolled.literal_value:
            # Those that row 2 of the source is multiplied by are all of them: its class begins after 3 + 6 weights.
            taps = [[weight_at(weights, 9 + 3 * column + 2 - tap) for column in range(3)] for tap in range(3)]
            for source_row in range(height + 2):
                for column in range(3):
                    place = load_offset(v, terms, 3 * source_row + column)
                    values = [v.load(v.at(at, place)) for at in sources]
                    for row in range(max(0, source_row - 2), min(height, source_row + 1)):
                        for z in vectors:
                            at = row * TILE_VECTORS + z
                            sums[at] = v.multiply_add(taps[source_row - row][column], values[z], sums[at])
        for index, (first, last) in enumerate(() if unrolled.literal_value else _spans(height)):
            of_class = load_offset(v, counts, index)
            of_term = (last - first) * count * weight_size

            def add_term(
                k: Value, sums: list[Value], rows: range = range(first, last), of_term: int = of_term, terms: Value = terms,
                weights: Value = weights,
            ) -> list[Value]:  # fmt: skip
                place = load_offset(v, terms, k)
                values = [v.load(v.at(at, place)) for at in sources]
                at = v.at(weights, builder.mul(k, INT64(of_term)))
                sums = list(sums)
                for row in rows:
                    for f in range(count):
                        weight = weight_at(at, (row - rows[0]) * count + f)
                        for z in vectors:
                            place = (row * count + f) * TILE_VECTORS + z
                            sums[place] = v.multiply_add(weight, values[z], sums[place])
                return sums

            sums = v.loop(of_class, sums, add_term)
            terms = builder.add(terms, builder.mul(of_class, INT64(8)))
            weights = v.at(weights, builder.mul(of_class, INT64(of_term)))
        for row in range(height):
            for f in range(count):
                place = builder.add(builder.mul(target_row, INT64(row)), builder.mul(target_filter, INT64(f)))
                for z in vectors:
                    v.store(sums[(row * count + f) * TILE_VECTORS + z], v.at(targets[z], place))
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _sum_tile(  # type: ignore[no-untyped-def]  # noqa: D417
    typing_context,
    real,
    filters,
    terms,
    rows,
    whole,
    cut,
    first_kept,
    last_kept,
    cut_place,
    source,
    places,
    source_row,
    source_step,
    gradient,
    gradient_filter,
    gradient_row,
    gradient_step,
    sums,
):
    """``sums[f, t, :] += source[places[t] + pixel] * gradient[f, pixel]`` over all pixels, all sums in registers.

    After the ``filters * terms`` registers of these sums come the sums of the gradient alone, one for each filter.

    Args:
        real: Dtype, a literal.
        filters: Number of filters, a literal.
        terms: Number of terms, a literal.
        rows: Number of rows.
        whole: Vectors in a row.
        cut: 1 if one more belongs to each row, of which only some lanes count: infinities in the others must not spread.
        first_kept: The first of these lanes, ...
        last_kept: ... and the one behind the last.
        cut_place: Where that vector lies, in elements from the first one of the row.
        source: Address of the source.
        places: Address of the offset of each term.
        source_row: Elements from one row of the source to the next, ...
        source_step: ... and from one vector to the next.
        gradient: Address of the gradient of the result.
        gradient_filter: Elements from one filter of it to the next, ...
        gradient_row: ... from one row to the next, ...
        gradient_step: ... and from one vector to the next.
        sums: Address of the sums.
    """
    signature = types.void(real, filters, terms, *[types.int64] * 15)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, whole, cut, first_kept, last_kept, cut_place, source, places, source_row, source_step = arguments[3:13]
        gradient, gradient_filter, gradient_row, gradient_step, sums_at = arguments[13:]
        v = VectorCode(builder, real.dtype)
        filter_count, term_count = filters.literal_value, terms.literal_value
        total = filter_count * (term_count + 1)
        sources = [v.at(source, load_offset(v, places, term)) for term in range(term_count)]
        gradients = [v.at(gradient, builder.mul(gradient_filter, INT64(f))) for f in range(filter_count)]
        zero = ir.Constant(v.type, [0.0] * v.lanes)
        numbers = ir.VectorType(INT32, v.lanes)
        number = ir.Constant(numbers, list(range(v.lanes)))
        bounds = [v.broadcast(builder.trunc(bound, INT32), numbers) for bound in (first_kept, last_kept)]
        kept = builder.and_(builder.icmp_signed(">=", number, bounds[0]), builder.icmp_signed("<", number, bounds[1]))

        def add(sums: list[Value], in_source: Value, in_gradient: Value, load: Any) -> list[Value]:
            sums = list(sums)
            factors = [load(v.at(at, in_gradient)) for at in gradients]
            for term, at in enumerate(sources):
                value = load(v.at(at, in_source))
                for f, factor in enumerate(factors):
                    place = f * term_count + term
                    sums[place] = v.multiply_add(value, factor, sums[place])
            for f, factor in enumerate(factors):
                place = filter_count * term_count + f
                sums[place] = builder.fadd(sums[place], factor)
            return sums

        def add_row(row: Value, sums: list[Value]) -> list[Value]:
            in_source, in_gradient = builder.mul(row, source_row), builder.mul(row, gradient_row)

            def add_whole(index: Value, sums: list[Value]) -> list[Value]:
                places = (
                    builder.add(in_source, builder.mul(index, source_step)),
                    builder.add(in_gradient, builder.mul(index, gradient_step)),
                )
                return add(sums, *places, v.load)

            def add_cut(index: Value, sums: list[Value]) -> list[Value]:
                places = builder.add(in_source, cut_place), builder.add(in_gradient, cut_place)
                return add(sums, *places, lambda at: builder.select(kept, v.load(at), zero))

            return v.loop(cut, v.loop(whole, sums, add_whole), add_cut)

        at = [v.at(sums_at, index * v.lanes) for index in range(total)]
        for place, value in zip(at, v.loop(rows, [v.load(place) for place in at], add_row), strict=True):
            v.store(value, place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _move(typing_context, real, source, target):  # type: ignore[no-untyped-def]
    """Copy one register."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = VectorCode(builder, real.dtype)
        v.store(v.load(arguments[1]), arguments[2])
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _move_first(typing_context, real, source, target, count):  # type: ignore[no-untyped-def]
    """Copy the first ``count`` elements of a register, and write zeros behind them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source, target, count = arguments
        v = VectorCode(builder, real.dtype)
        numbers = ir.VectorType(INT32, v.lanes)
        count = v.broadcast(builder.trunc(count, INT32), numbers)
        kept = builder.icmp_signed("<", ir.Constant(numbers, list(range(v.lanes))), count)
        v.store(builder.select(kept, v.load(source), ir.Constant(v.type, [0.0] * v.lanes)), target)
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _move_even(typing_context, real, source, target):  # type: ignore[no-untyped-def]
    """Copy every second element until a register is full, and read nothing behind the last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = VectorCode(builder, real.dtype)
        first, second = v.load(arguments[1]), v.load(v.at(arguments[1], v.lanes - 1))
        places = [*range(0, v.lanes, 2), *range(v.lanes + 1, 2 * v.lanes, 2)]
        v.store(builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(INT32, v.lanes), places)), arguments[2])
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _move_alternating(typing_context, real, first, second, target):  # type: ignore[no-untyped-def]
    """Write the elements of two registers in turns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        v = VectorCode(builder, real.dtype)
        pair = v.load(arguments[1]), v.load(arguments[2])
        for half in range(2):
            places = [half * v.lanes // 2 + lane // 2 + lane % 2 * v.lanes for lane in range(v.lanes)]
            mask = ir.Constant(ir.VectorType(INT32, v.lanes), places)
            v.store(builder.shuffle_vector(*pair, mask), v.at(arguments[3], half * v.lanes))
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def _move_whole(typing_context, real, source, target, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` elements, at least those of a register: the last one reaches back."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source, target, count = arguments
        v = VectorCode(builder, real.dtype)

        def move(index: Value, values: list[Value]) -> list[Value]:
            place = builder.mul(index, INT64(v.lanes))
            v.store(v.load(v.at(source, place)), v.at(target, place))
            return values

        v.loop(builder.sdiv(builder.sub(count, INT64(1)), INT64(v.lanes)), [], move)
        last = builder.sub(count, INT64(v.lanes))
        v.store(v.load(v.at(source, last)), v.at(target, last))
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64, types.int64), generate


@inline
def _copy_line(real: Any, source: int, target: int, count: int) -> None:
    # Lines are short: half of the time would go into the odd elements at the end if they were not one vector more.
    if count >= lane_count(real):
        _move_whole(real, source, target, count)
        return
    read, written = pointer(source, real), pointer(target, real)
    for i in range(count):
        written[i] = read[i]


# ---- forward, and back to the input --------------------------------------------------------------------------------------


@functools.cache
def _pack_weights(real: Any, tile_filters: int) -> CompiledFunction:
    """Weights in the order that the tiles read them in: (blocks, blocks of filters, terms and rows and filters, lanes)."""

    @task(_PackArguments)
    def pack_weights(worker: int, workers: int, a: Any) -> None:
        weight, packed, places = pointer(a.weight, real), pointer(a.packed, real), pointer(a.places, numba.int64)
        for block in range(worker * a.blocks // workers, (worker + 1) * a.blocks // workers):
            of_block = min(block * a.block_step, a.block_last) * a.weight_group
            for filter_block in range(a.filter_blocks):
                of_filter = min(filter_block * tile_filters, a.filters - tile_filters) * a.weight_filter
                to = (block * a.filter_blocks + filter_block) * a.place_count * a.block_step
                for k in range(a.place_count):
                    start = of_block + of_filter + places[k]
                    for lane in range(a.kept):
                        packed[to + k * a.block_step + lane] = weight[start + lane * a.weight_group]

    return pack_weights


@functools.cache
def _correlate(real: Any, tile_filters: int, spread: int, unrolled: int) -> CompiledFunction:
    tile_rows = TILE_ROWS[tile_filters]

    @task(_UnitArguments)
    def correlate(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        positions = a.scratch + worker * a.scratch_pitch
        own_band = positions + a.positions_bytes
        sums = own_band + a.band_bytes
        square = sums + a.phase_count * a.sums_phase * size
        phases = pointer(a.phases, numba.int64)
        positions_of, count = -1, 0
        fill(real, own_band, a.band_bytes // size)
        for unit in range(worker * a.units // workers, (worker + 1) * a.units // workers):
            block, number = unit % a.blocks, unit // a.blocks
            image, band_number = number // a.bands, number % a.bands
            row = band_number * a.rows // a.bands
            rows = (band_number + 1) * a.rows // a.bands - row
            first = min(block * a.block_step, a.block_last)
            source = a.source + (image * a.source_image + first * a.block_source) * size
            target = a.target + (image * a.target_image + first * a.block_target) * size
            band = _band(real, spread, a, source, row, rows, own_band + a.band_shift, square)
            for phase in range(a.phase_count):
                of_phase = phase * a.phase_fields
                height, width = min(rows, phases[of_phase + 2] - row), phases[of_phase + 3]
                if height <= 0:
                    continue
                if a.direct != 0:
                    to = target + (phases[of_phase + 4] + row * a.target_row) * size
                    to_filter, to_row = a.target_filter, a.target_row
                    to_column = 1 if spread == 1 else a.target_column
                else:
                    to = sums + phase * a.sums_phase * size
                    to_filter, to_row = a.sums_filter, a.sums_row
                    to_column = 1 if spread == 1 else lanes
                    # Where there are fewer, those that are too many end up in the sums, too.
                    height = max(height, tile_rows)
                    width = max(width, lanes) if spread == 1 else width
                if height * a.phase_count + phase != positions_of:
                    positions_of = height * a.phase_count + phase
                    count = _positions(
                        tile_rows,
                        height,
                        width,
                        lanes if spread == 1 else 1,
                        a.step_h * a.band_row * size,
                        (1 if spread == 1 else a.step_w * a.band_column) * size,
                        to_row * size,
                        to_column * size,
                        positions,
                    )
                terms = a.terms + phases[of_phase] * 8
                counts = a.phases + (of_phase + PHASE_FIELDS) * 8
                for filter_block in range(a.filter_blocks):
                    f = min(filter_block * tile_filters, a.filters - tile_filters)
                    weights = (block * a.filter_blocks + filter_block) * a.term_count + phases[of_phase + 1]
                    weights = a.weights + weights * a.block_step * size
                    bias = a.bias + (first * a.block_filters + f) * size
                    to_f = to + f * to_filter * size
                    for tile in range(0, count, TILE_VECTORS):
                        at = positions + 16 * tile
                        _tile(
                            real,
                            tile_filters,
                            tile_rows,
                            spread,
                            unrolled,
                            counts,
                            band,
                            at,
                            terms,
                            weights,
                            bias,
                            to_f,
                            to_row,
                            to_filter,
                        )
            if a.direct == 0:
                _weave(real, spread, a, sums, target, row, rows)

    return correlate


@inline
def _positions(
    tile_rows: int,
    rows: int,
    columns: int,
    vector: int,
    source_row: int,
    source_column: int,
    target_row: int,
    target_column: int,
    positions: int,
) -> int:
    """Write down where the vectors of the tiles begin, in bytes from the first pixel; returns their number.

    Args:
        tile_rows: Rows of a tile.
        rows: Rows of the grid, no fewer.
        columns: Columns of the grid, no fewer than a vector has.
        vector: Pixels of a vector.
        source_row: Bytes from one row of the grid to the next in the source, ...
        source_column: ... from one column to the next, ...
        target_row: ... and likewise in the target.
        target_column: Likewise.
        positions: Address of the table.
    """
    table = pointer(positions, numba.int64)
    count = 0
    for first_row in range(0, rows, tile_rows):
        row = min(first_row, rows - tile_rows)
        for first_column in range(0, columns, vector):
            column = min(first_column, columns - vector)
            table[2 * count] = row * source_row + column * source_column
            table[2 * count + 1] = row * target_row + column * target_column
            count += 1
    # The last tile is a whole one, too: what it has too many it computes twice.
    for extra in range(count, count + TILE_VECTORS - 1):
        table[2 * extra] = table[2 * count - 2]
        table[2 * extra + 1] = table[2 * count - 1]
    return count


@inline
def _band(real: Any, spread: int, a: Any, source: int, row: int, rows: int, band: int, square: int) -> int:
    """Bring what some rows of the grid read into a band; returns its address.

    Every unit leaves zeros where its columns are outside the source, and so the kernels write them once, before the first.
    """
    size, lanes = size_of(real), lane_count(real)
    first_row = row * a.step_h + a.first_row
    if a.packs == 0:
        return int(source + (first_row * a.source_row + a.first_column * a.source_column) * size)
    lines = pointer(a.lines, numba.int64)
    element = lanes if spread == 0 else 1
    for i in range((rows - 1) * a.step_h + a.span_h):
        from_row = first_row + i
        for index in range(a.line_count):
            line = band + (i * a.band_row + index * a.line_pitch) * size
            if from_row < 0 or from_row >= a.height:
                for channel in range(a.channels):
                    fill(real, line + channel * a.band_plane * size, a.line_pitch)
                continue
            # What is outside the source at the ends of the line stays the zeros that it is.
            column, left, count = lines[3 * index], lines[3 * index + 1], lines[3 * index + 2]
            from_line = source + (from_row * a.source_row + column * a.source_column) * size
            to_line = line + left * element * size
            if spread == 0:
                for j in range(count):
                    from_pixel, to = from_line + j * a.source_column * size, to_line + j * lanes * size
                    if a.kept == lanes:
                        _move(real, from_pixel, to)
                    else:
                        _copy_line(real, from_pixel, to, a.kept)
            elif a.source_column == 1:
                for channel in range(a.channels):
                    from_channel, to = from_line + channel * a.source_channel * size, to_line + channel * a.band_plane * size
                    if a.step_w == 1 and count < lanes and from_channel + lanes * size <= a.source_end:
                        _move_first(real, from_channel, to, count)
                    else:
                        _gather(real, from_channel, a.step_w, to, count)
            else:
                pitch = a.step_w * a.source_column
                transpose(real, from_line, pitch, count, a.channels, to_line, a.band_plane, square, False)
    return int(band)


@inline
def _gather(real: Any, source: int, step: int, target: int, count: int) -> None:
    """Copy every ``step``-th element; the first two steps are vector code."""
    size, lanes = size_of(real), lane_count(real)
    if step == 1:
        _copy_line(real, source, target, count)
    elif step == 2 and count >= lanes:
        last = count - lanes
        for j in range(0, last, lanes):
            _move_even(real, source + 2 * j * size, target + j * size)
        _move_even(real, source + 2 * last * size, target + last * size)
    else:
        read, written = pointer(source, real), pointer(target, real)
        for j in range(count):
            written[j] = read[j * step]


@inline
def _alternate(real: Any, first: int, second: int, target: int, count: int) -> None:
    """Write ``count`` elements of two lines, those of the first to the even and those of the second to the odd places."""
    size, lanes = size_of(real), lane_count(real)
    if count < lanes:
        evens, odds, written = pointer(first, real), pointer(second, real), pointer(target, real)
        for j in range(count):
            written[2 * j] = evens[j]
            written[2 * j + 1] = odds[j]
        return
    last = count - lanes
    for j in range(0, last, lanes):
        _move_alternating(real, first + j * size, second + j * size, target + 2 * j * size)
    _move_alternating(real, first + last * size, second + last * size, target + 2 * last * size)


@inline
def _weave(real: Any, spread: int, a: Any, sums: int, target: int, row: int, rows: int) -> None:
    """Bring the sums of all phases to the target."""
    size, lanes = size_of(real), lane_count(real)
    phases = pointer(a.phases, numba.int64)
    for f in range(a.filters):
        to_last_row = target + (f * a.target_filter + (row + rows - 1) * a.target_row) * size
        for i in range(rows):
            phase = 0
            while phase < a.phase_count:
                fields = phase * a.phase_fields
                from_row = sums + (phase * a.sums_phase + f * a.sums_filter + i * a.sums_row) * size
                to_row = target + (phases[fields + 4] + f * a.target_filter + (row + i) * a.target_row) * size
                columns = phases[fields + 3]
                phase += 1
                if row + i >= phases[fields + 2]:
                    continue
                read, written = pointer(from_row, real), pointer(to_row, real)
                if spread == 0:
                    for j in range(columns):
                        to = to_row + j * a.target_column * size
                        _copy_line(real, from_row + j * lanes * size, to, a.kept)
                elif a.target_column == 1 and columns < lanes and to_row + lanes * size <= to_last_row:
                    _move(real, from_row, to_row)  # what it writes too much, the next rows replace
                elif a.target_column == 1:
                    _copy_line(real, from_row, to_row, columns)
                elif (
                    a.target_column == 2
                    and columns > 1  # of an image one pixel wide the next phase is that of the next row
                    and phase < a.phase_count
                    and phases[fields + a.phase_fields + 4] == phases[fields + 4] + 1
                ):
                    # Two phases whose columns alternate.
                    others = phases[fields + a.phase_fields + 3]
                    _alternate(real, from_row, from_row + a.sums_phase * size, to_row, others)
                    if others < columns:
                        written[2 * others] = read[others]
                    phase += 1
                else:
                    for j in range(columns):
                        written[j * a.target_column] = read[j]


# ---- the gradient of the weights -----------------------------------------------------------------------------------------


def weight_gradient(plan: NarrowPlan, x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """Gradients of the weight and of the bias of a convolution.

    The terms are now the pixels. A lane collects its own sums, which are added up over the lanes (where these are pixels) and
    the workers at the end, always in the same order.

    Args:
        plan: The plan of the convolution itself.
        x: Images.
        dy: Gradient of the result.
        geometry: The convolution.
    """
    problem, dtype, size = plan.problem, plan.dtype, plan.dtype.itemsize
    dw, db = np.empty(geometry.w_shape, dtype), np.empty(geometry.filters, dtype)
    depth, lane = problem.depth, lanes(dtype)
    terms = SUM_TERMS[plan.tile_filters]
    if plan.tile_filters == 1 and -(-depth // FEW_TERMS) * (FEW_TERMS + 1) < -(-depth // terms) * (terms + 1):
        terms = FEW_TERMS
    term_blocks = -(-depth // terms)
    places, weights = plan.weight_tables
    block_elements = plan.tile_filters * (terms + 1) * lane
    elements = plan.blocks * plan.template.filter_blocks * term_blocks * block_elements
    parts = max(1, min(plan.workers, plan.template.units, SUMS_BYTES // (elements * size)))
    slices = min(plan.workers // parts, term_blocks)
    packs_gradient = not plan.lanes_are_channels and (problem.target.column != 1 or problem.grid[1] < lane)
    packs_gradient = packs_gradient or (plan.lanes_are_channels and problem.groups < lane)
    with borrowed(parts * slices * elements * size) as sums:
        arguments = _UnitArguments.from_buffer_copy(plan.template)
        arguments.source, arguments.target, arguments.weights = address(x), address(dy), sums
        arguments.source_end = arguments.source + x.nbytes
        arguments.terms = address(places)
        arguments.term_blocks = term_blocks
        arguments.parts, arguments.slices, arguments.worker_elements = parts, slices, elements
        arguments.packs_gradient = int(packs_gradient)
        if packs_gradient:  # to the place of the sums of a convolution
            arguments.gradient_filter, arguments.gradient_row = plan.template.sums_filter, plan.template.sums_row
            arguments.gradient_column = plan.template.block_step
        else:
            arguments.gradient_filter, arguments.gradient_row = problem.target.channel, problem.target.row
            arguments.gradient_column = problem.target.column
        kernel = _collect(plan.real, plan.tile_filters, terms, int(not plan.lanes_are_channels))
        run_with_scratch(kernel, arguments, parts * slices, plan.scratch)
        summing = _AddArguments(
            sums=sums,
            dw=address(dw),
            db=address(db),
            parts=parts,
            slices=slices,
            worker_elements=elements,
            term_blocks=term_blocks,
            terms=depth,
            blocks=plan.blocks,
            block_step=plan.template.block_step,
            block_last=plan.template.block_last,
            kept=plan.template.kept,
            filters=problem.filters,
            filter_blocks=plan.template.filter_blocks,
            weight_filter=problem.weight_filter,
            weight_group=problem.weight_group,
            weight_places=address(weights),
        )
        add_up = _add_up(plan.real, plan.tile_filters, terms, int(not plan.lanes_are_channels))
        run(add_up, summing, plan.workers if elements > 1 << 13 else 1)
    return dw, db


@functools.cache
def _collect(real: Any, tile_filters: int, terms: int, spread: int) -> CompiledFunction:
    @task(_UnitArguments)
    def collect(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        own_band = a.scratch + worker * a.scratch_pitch + a.positions_bytes
        gradient = own_band + a.band_bytes
        square = gradient + a.sums_phase * size
        sums = a.weights + worker * a.worker_elements * size
        fill(real, sums, a.worker_elements)
        fill(real, own_band, a.band_bytes // size)
        part, share = worker % a.parts, worker // a.parts
        first_term, last_term = share * a.term_blocks // a.slices, (share + 1) * a.term_blocks // a.slices
        columns = pointer(a.phases, numba.int64)[3]
        if spread == 0:
            whole, cut, first_kept, last_kept, cut_place = columns, 0, 0, 0, 0
            source_step, gradient_step = a.step_w * a.band_column, a.gradient_column
        else:
            whole, cut = columns // lanes, min(1, columns % lanes)
            source_step = gradient_step = lanes
            # The vector at the end of a row reaches back where it can, and else over the end.
            cut_place = max(0, columns - lanes)
            first_kept, last_kept = (lanes - columns % lanes, lanes) if columns > lanes else (0, columns)
        for unit in range(part * a.units // a.parts, (part + 1) * a.units // a.parts):
            block, number = unit % a.blocks, unit // a.blocks
            image, band_number = number // a.bands, number % a.bands
            row = band_number * a.rows // a.bands
            rows = (band_number + 1) * a.rows // a.bands - row
            first = min(block * a.block_step, a.block_last)
            source = a.source + (image * a.source_image + first * a.block_source) * size
            dy = a.target + (image * a.target_image + first * a.block_target + row * a.target_row) * size
            band = _band(real, spread, a, source, row, rows, own_band + a.band_shift, square)
            if a.packs_gradient != 0:
                _band_of_gradient(real, spread, a, dy, rows, columns, gradient)
                dy = gradient
            for filter_block in range(a.filter_blocks):
                f = min(filter_block * tile_filters, a.filters - tile_filters)
                of_block = (block * a.filter_blocks + filter_block) * a.term_blocks
                for term_block in range(first_term, last_term):
                    to = sums + (of_block + term_block) * tile_filters * (terms + 1) * lanes * size
                    _sum_tile(
                        real,
                        tile_filters,
                        terms,
                        rows,
                        whole,
                        cut,
                        first_kept,
                        last_kept,
                        cut_place,
                        band,
                        a.terms + term_block * terms * 8,
                        a.step_h * a.band_row,
                        source_step,
                        dy + f * a.gradient_filter * size,
                        a.gradient_filter,
                        a.gradient_row,
                        gradient_step,
                        to,
                    )

    return collect


@inline
def _band_of_gradient(real: Any, spread: int, a: Any, dy: int, rows: int, columns: int, band: int) -> None:
    """Bring some rows of the gradient into the order of a band, so that whole vectors can be read; what else they hold is 0."""
    size = size_of(real)
    for f in range(a.filters):
        for i in range(rows):
            from_row = dy + (f * a.target_filter + i * a.target_row) * size
            to_row = band + (f * a.gradient_filter + i * a.gradient_row) * size
            if spread == 0:
                fill(real, to_row, a.gradient_row)
                for j in range(columns):
                    to = to_row + j * a.gradient_column * size
                    _copy_line(real, from_row + j * a.target_column * size, to, a.kept)
            else:
                fill(real, to_row + columns * size, a.gradient_row - columns)
                _gather(real, from_row, a.target_column, to_row, columns)


@functools.cache
def _add_up(real: Any, tile_filters: int, tile_terms: int, spread: int) -> CompiledFunction:
    @task(_AddArguments)
    def add_up(worker: int, workers: int, a: Any) -> None:
        lanes = lane_count(real)
        sums, dw, db, places = (
            pointer(a.sums, real),
            pointer(a.dw, real),
            pointer(a.db, real),
            pointer(a.weight_places, numba.int64),
        )
        # Neighbouring sums are those of a filter and its terms, and then those of the gradient alone.
        tile = tile_filters * (tile_terms + 1) * lanes
        # How many numbers one register gives, and how many lanes each is the sum of.
        results, summands = (1, lanes) if spread == 1 else (a.kept, 1)
        for block in range(worker * a.blocks // workers, (worker + 1) * a.blocks // workers):
            first = min(block * a.block_step, a.block_last)
            for filter_block in range(a.filter_blocks):
                filter_ = min(filter_block * tile_filters, a.filters - tile_filters)
                of_block = (block * a.filter_blocks + filter_block) * a.term_blocks
                for term_block in range(a.term_blocks):
                    share = _share_of(term_block, a.term_blocks, a.slices)
                    start = share * a.parts * a.worker_elements + (of_block + term_block) * tile
                    for f in range(tile_filters):
                        for term in range(tile_terms + 1):
                            k = term_block * tile_terms + term
                            is_bias = term == tile_terms
                            if (is_bias and term_block > 0) or (not is_bias and k >= a.terms):
                                continue
                            index = tile_filters * tile_terms + f if is_bias else f * tile_terms + term
                            for result in range(results):
                                total = real(0)
                                for part in range(a.parts):
                                    at = start + part * a.worker_elements + index * lanes + result
                                    for lane in range(summands):
                                        total += sums[at + lane]
                                group = first + result
                                if is_bias:
                                    db[group * a.filters + filter_ + f] = total
                                else:
                                    dw[group * a.weight_group + (filter_ + f) * a.weight_filter + places[k]] = total

    return add_up


@inline
def _share_of(index: int, count: int, shares: int) -> int:
    """Which of ``shares`` pieces of a range has a number in it."""
    share = index * shares // count
    while (share + 1) * count // shares <= index:
        share += 1
    return share
