"""Matrix products for fully connected layers, from the same tiles as the convolutions.

BLAS would do it, but its threads and these would then take the cores from each other in turns, some milliseconds after every
product. A tile reads its left matrix element by element, through tables of offsets, so that a transposed one costs nothing; the
right one it reads by rows, as they lie or, where they don't lie side by side, from a copy::

      out[rows of a unit, a block of 1 to 3 registers]  =  a[rows, k] * b[k, block],   some hundred k at a time

A unit is a band of rows, or for wide results a block of columns.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np

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
from xpconv.kernels.numba.memory import Array, address, empty, odd_lines, whole_lines
from xpconv.kernels.numba.target import lanes
from xpconv.kernels.numba.threads import run_with_scratch, thread_count

# Terms added up before the next block of columns takes its turn; of 96 to 256 all were equally fast.
DEPTH = 256
# Rows of a unit at most: their sums, and what is copied of a, stay in the second cache.
ROWS = 128
# Registers that a unit is wide at most, where it takes bands of rows.
COLUMN_VECTORS = 9
# Multiplications below which starting the threads costs more than it saves.
SMALL = 1 << 18


class _Product(Arguments):
    a: int
    b: int
    out: int
    rows: int
    columns: int
    depth: int
    a_step: int
    b_row: int
    b_column: int
    a_rows: int
    a_steps: int
    a_row: int
    unit_rows: int
    unit_vectors: int
    row_units: int
    units: int
    packs_a: int
    packs_b: int
    vectors: int
    a_bytes: int
    panel_bytes: int
    sums_rows: int
    scratch: int
    scratch_pitch: int


def matmul(a: Array, b: Array) -> Array:
    """The product of two matrices."""
    out = empty((a.shape[0], b.shape[1]), a.dtype)
    if a.size and b.size:
        plan = _plan(a.shape, a.strides, b.shape[1], b.strides, a.dtype, thread_count())
        arguments = _Product.from_buffer_copy(plan.template)
        arguments.a, arguments.b, arguments.out = address(a), address(b), address(out)
        run_with_scratch(plan.kernel, arguments, plan.workers, plan.scratch)
    else:
        out[...] = 0
    return out


class _Plan(NamedTuple):
    kernel: CompiledFunction
    template: _Product
    workers: int
    scratch: int
    tables: tuple[Array, Array]


@functools.lru_cache(maxsize=256)
def _plan(
    shape: tuple[int, ...],
    a_strides: tuple[int, ...],
    columns: int,
    b_strides: tuple[int, ...],
    dtype: np.dtype[Any],
    workers: int,
) -> _Plan:
    (rows, depth), size, width = shape, dtype.itemsize, lanes(dtype)
    if rows * columns * depth <= SMALL:
        workers = 1
    # Rows that are read as they lie must hold a whole block.
    packs_b = b_strides[1] != size or columns < 3 * width
    vectors = -(-columns // width)
    packs_a = a_strides[0] == size and a_strides[1] != size
    # Each worker copies what it needs of b: where that is much, blocks of columns are shared out, not bands of rows.
    by_columns = vectors >= 6 * workers and (packs_b or rows < 16 * workers)
    unit_vectors = min(vectors, 3 if by_columns else COLUMN_VECTORS)
    unit_rows = min(rows, ROWS) if by_columns else max(1, min(ROWS, -(-rows // workers)))
    row_units = -(-rows // unit_rows)
    a_row, a_step = (1, odd_lines(unit_rows, size)) if packs_a else (a_strides[0] // size, a_strides[1] // size)
    tables = np.zeros(padded_rows(unit_rows), np.int64), np.arange(min(depth, DEPTH)) * a_step
    tables[0][:unit_rows] = np.arange(unit_rows) * a_row
    a_bytes = min(depth, DEPTH) * a_step * size if packs_a else 0
    panel_bytes = min(depth, DEPTH) * 3 * width * size if packs_b else 0
    sums_bytes = padded_rows(unit_rows) * unit_vectors * width * size
    template = _Product(
        a=0,
        b=0,
        out=0,
        rows=rows,
        columns=columns,
        depth=depth,
        a_step=a_strides[1] // size,
        b_row=b_strides[0] // size,
        b_column=b_strides[1] // size,
        a_rows=address(tables[0]),
        a_steps=address(tables[1]),
        a_row=a_strides[0] // size,
        unit_rows=unit_rows,
        unit_vectors=unit_vectors,
        row_units=row_units,
        units=row_units * -(-vectors // unit_vectors),
        packs_a=int(packs_a),
        packs_b=int(packs_b),
        vectors=vectors,
        a_bytes=whole_lines(a_bytes),
        panel_bytes=whole_lines(panel_bytes),
        sums_rows=padded_rows(unit_rows),
        scratch=0,
        scratch_pitch=0,
    )
    scratch = template.a_bytes + template.panel_bytes + width * width * size + 64 + sums_bytes
    return _Plan(_multiply(numba.from_dtype(dtype)), template, workers, scratch, tables)


@functools.cache
def _multiply(real: Any) -> CompiledFunction:
    @task(_Product)
    def multiply_matrices(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        turned = a.scratch + worker * a.scratch_pitch
        panel = turned + a.a_bytes
        square = panel + a.panel_bytes
        sums = square + lanes * lanes * size
        for unit in range(worker * a.units // workers, (worker + 1) * a.units // workers):
            row = unit % a.row_units * a.unit_rows
            rows = min(a.unit_rows, a.rows - row)
            first = unit // a.row_units * a.unit_vectors
            last = min(a.vectors, first + a.unit_vectors)
            fill(real, sums, a.sums_rows * (last - first) * lanes)
            for k in range(0, a.depth, DEPTH):
                depth = min(DEPTH, a.depth - k)
                left = a.a + (row * a.a_row + k * a.a_step) * size
                if a.packs_a:
                    for i in range(depth):
                        to = turned + pointer(a.a_steps, numba.int64)[i] * size
                        copy(real, left + i * a.a_step * size, to, rows)
                    left = turned
                vector = first
                while vector < last:
                    width = block_width(last - vector)
                    pitch = width * lanes
                    column = first_column(vector * lanes, pitch, a.columns, a.packs_b)
                    right, right_pitch = a.b + (k * a.b_row + column * a.b_column) * size, a.b_row
                    if a.packs_b:
                        pack_rows(real, a, right, depth, min(pitch, a.columns - column), panel, pitch, square)
                        right, right_pitch = panel, pitch
                    block = sums + (vector - first) * lanes * a.sums_rows * size
                    multiply(
                        real, width, rows, depth, left, a.a_rows, a.a_steps, right, right_pitch, block, pitch, block, pitch
                    )
                    vector += width
            vector = first
            while vector < last:
                width = block_width(last - vector)
                pitch = width * lanes
                column = first_column(vector * lanes, pitch, a.columns, a.packs_b)
                block = sums + (vector - first) * lanes * a.sums_rows * size
                for i in range(rows):
                    to = a.out + ((row + i) * a.columns + column) * size
                    copy(real, block + i * pitch * size, to, min(pitch, a.columns - column))
                vector += width

    return multiply_matrices


@inline
def first_column(column: int, pitch: int, columns: int, packs: int) -> int:
    """Where a block begins: rows that are read as they lie end with the matrix, and the last block reaches back."""
    return column if packs else min(column, columns - pitch)


@inline
def pack_rows(real: Any, a: Any, source: int, rows: int, kept: int, panel: int, pitch: int, square: int) -> None:
    """Copy some rows of some columns of b side by side; missing columns are zeros."""
    size = size_of(real)
    if kept < pitch:
        fill(real, panel, rows * pitch)
    if a.b_column == 1:
        for i in range(rows):
            copy(real, source + i * a.b_row * size, panel + i * pitch * size, kept)
    elif a.b_row == 1:
        transpose(real, source, a.b_column, kept, rows, panel, pitch, square, False)
    else:
        read, written = pointer(source, real), pointer(panel, real)
        for i in range(rows):
            for j in range(kept):
                written[i * pitch + j] = read[i * a.b_row + j * a.b_column]
