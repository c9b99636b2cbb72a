"""The vector code that LLVM would not find by itself, written as LLVM instructions: a handful of pieces of every kernel.

Numba compiles loops over scalars, and LLVM vectorises those that are simple. The heart of a convolution is not: its speed
comes from a tile of sums that stays in registers while all taps pass by. An *intrinsic* of Numba writes its instructions
directly; what is known when the kernel is compiled (the dtype, the shape of a tile) is given as a literal.

Memory is given as an address, an int64 that counts bytes, and offsets into it count elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.kernels.numba.compiler import inline
from xpconv.kernels.numba.target import lanes as lanes_of
from xpconv.kernels.numba.target import registers

INT64, INT32 = ir.IntType(64), ir.IntType(32)
Value = Any  # a value of llvmlite

# Rows of the tile of sums that is one, two or three registers wide: the fastest of all that fit, one core, sums of 256 terms.
#   32 registers of 64 bytes:  24 x 1  161 GFLOP/s   10 x 2  211    9 x 3  216    6 x 4  189   (12 x 2: 142, LLVM runs out)
#   16 registers of 32 bytes:  10 x 1  105            6 x 2  117    4 x 3  109
TILE_ROWS_1, TILE_ROWS_2, TILE_ROWS_3 = (24, 10, 9) if registers() == 32 else (10, 6, 4)
# Rows of the tile that takes the last few rows, where a whole one would be half empty.
HALF_TILE_1, HALF_TILE_2, HALF_TILE_3 = ((rows + 1) // 2 for rows in (TILE_ROWS_1, TILE_ROWS_2, TILE_ROWS_3))


class VectorCode:
    """Instructions on vectors of one dtype."""

    def __init__(self, builder: Any, real: Any, lanes: int | None = None) -> None:
        dtype = np.dtype(str(real))
        self.builder = builder
        self.scalar = ir.FloatType() if dtype.itemsize == 4 else ir.DoubleType()
        self.itemsize = dtype.itemsize
        self.lanes = lanes or lanes_of(dtype)
        self.type = ir.VectorType(self.scalar, self.lanes)
        # Integers of the same width: what comparisons of these vectors select from without a conversion.
        self.integer = ir.IntType(8 * dtype.itemsize)
        self.integers = ir.VectorType(self.integer, self.lanes)

    def at(self, address: Value, offset: Value | int = 0) -> Value:
        """The address ``offset`` elements behind ``address``."""
        if isinstance(offset, int):
            return address if offset == 0 else self.builder.add(address, INT64(offset * self.itemsize))
        return self.builder.add(address, self.builder.mul(offset, INT64(self.itemsize)))

    def load(self, address: Value) -> Value:
        """A register from memory of any alignment of elements."""
        value = self.builder.load(self.builder.inttoptr(address, self.type.as_pointer()))
        value.align = self.itemsize
        return value

    def store(self, value: Value, address: Value) -> None:
        """A register to memory, likewise."""
        instruction = self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()))
        instruction.align = self.itemsize

    def first_lanes(self, count: Value) -> Value:
        """A mask of the first ``count`` lanes."""
        numbers = ir.Constant(ir.VectorType(INT64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self.broadcast(count, ir.VectorType(INT64, self.lanes)))

    def load_where(self, mask: Value, address: Value) -> Value:
        """The lanes of a register that the mask names; nothing is read for the others, which are zeros."""
        return self._masked("llvm.masked.load", self.type, address, mask, ir.Constant(self.type, [0.0] * self.lanes))

    def store_where(self, mask: Value, value: Value, address: Value) -> None:
        """To memory the lanes that the mask names."""
        self._masked("llvm.masked.store", ir.VoidType(), address, mask, value)

    def _masked(self, name: str, result: Any, address: Value, mask: Value, value: Value) -> Value:
        place = self.builder.inttoptr(address, INT32.as_pointer())
        aligned = INT32(self.itemsize)
        ordered = [place, aligned, mask, value] if name.endswith("load") else [value, place, aligned, mask]
        kind = ir.FunctionType(result, [argument.type for argument in ordered])
        full_name = f"{name}.v{self.lanes}f{8 * self.itemsize}.p0"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, full_name), ordered)

    def load_scalar(self, address: Value) -> Value:
        """One element."""
        return self.builder.load(self.builder.inttoptr(address, self.scalar.as_pointer()))

    def broadcast(self, scalar: Value, vector: Any = None) -> Value:
        """A register with the same element in all lanes."""
        vector = vector or self.type
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, INT32(0))
        mask = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, fused where the processor can."""
        return self.builder.call(self.function("llvm.fmuladd", self.type, self.type, self.type, self.type), [a, b, c])

    def function(self, name: str, result: Any, *arguments: Any) -> Value:
        """An intrinsic function of LLVM for vectors of this kind."""
        suffix = f".v{self.lanes}f{8 * self.itemsize}"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name + suffix)

    def loop(self, count: Value, start: Sequence[Value], body: Callable[[Value, list[Value]], list[Value]]) -> list[Value]:
        """``for i in range(count): values = body(i, values)``, the values held in registers; returns the last ones."""
        builder = self.builder
        before = builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("loop.head", "loop.body", "loop.end"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(INT64)
        index.add_incoming(INT64(0), before)
        values = []
        for value in start:
            carried = builder.phi(value.type)
            carried.add_incoming(value, before)
            values.append(carried)
        builder.cbranch(builder.icmp_signed("<", index, count), inside, after)
        builder.position_at_end(inside)
        changed = body(index, list(values))
        index.add_incoming(builder.add(index, INT64(1)), builder.block)
        for carried, value in zip(values, changed, strict=True):
            carried.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return values


def load_offset(vectors: VectorCode, table: Value, index: Value | int) -> Value:
    """Entry ``index`` of a table of offsets, int64."""
    builder = vectors.builder
    byte = INT64(8 * index) if isinstance(index, int) else builder.mul(index, INT64(8))
    return builder.load(builder.inttoptr(builder.add(table, byte), INT64.as_pointer()))


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def outer_products(typing_context, real, rows, vectors, depth, a, a_rows, a_steps, b, b_pitch, start, start_pitch, c, c_pitch):  # type: ignore[no-untyped-def]  # noqa: D417
    """``c[m, :] = start[m, :] + sum over k of a[m, k] * b[k, :]``: the tile that convolutions and matrix products are made of.

    A row of ``c`` is ``vectors`` registers wide, and all ``rows * vectors`` of them stay in registers over the whole sum; the
    element of ``a`` is spread over all lanes, ``b`` is read as it lies::

                                 b[k]      | lanes | lanes |         one row of b, read once for all rows of the tile
             a[0, k] -> spread  x     =>   | sums  | sums  |  c[0]
             a[1, k] -> spread  x     =>   | sums  | sums  |  c[1]
                ...

    Args:
        real: Dtype, a literal.
        rows: Number of rows of the tile, a literal.
        vectors: Width of the tile in registers, a literal.
        depth: Number of terms in each sum.
        a: Address; element (m, k) lies at ``a_rows[m] + a_steps[k]`` from there.
        a_rows: Address of ``rows`` offsets, int64.
        a_steps: Address of ``depth`` offsets, int64.
        b: Address of the first row.
        b_pitch: Elements from one row of b to the next.
        start: Address of what is added to the sums.
        start_pitch: Elements from one row of it to the next; 0 adds the same values to all rows, a bias.
        c: Address of the result.
        c_pitch: Elements from one row of the result to the next.
    """
    signature = types.void(real, rows, vectors, *[types.int64] * 10)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        depth, a, a_rows, a_steps, b, b_pitch, start, start_pitch, c, c_pitch = arguments[3:]
        v = VectorCode(builder, real.dtype)
        columns = range(vectors.literal_value)
        sources = [v.at(a, load_offset(v, a_rows, row)) for row in range(rows.literal_value)]
        zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * (len(sources) * len(columns))

        def add_one_product(k: Value, sums: list[Value]) -> list[Value]:
            step = load_offset(v, a_steps, k)
            b_row = v.at(b, builder.mul(k, b_pitch))
            factors = [v.load(v.at(b_row, column * v.lanes)) for column in columns]
            result = []
            for row, source in enumerate(sources):
                spread = v.broadcast(v.load_scalar(v.at(source, step)))
                result += [v.multiply_add(spread, factors[z], sums[row * len(factors) + z]) for z in columns]
            return result

        sums = v.loop(depth, zeros, add_one_product)
        for row in range(rows.literal_value):
            for column in columns:
                # Added last: a long sum that is made of many calls is then a sum of short ones, and loses fewer digits.
                first = v.load(v.at(v.at(start, builder.mul(start_pitch, INT64(row))), column * v.lanes))
                total = builder.fadd(first, sums[row * len(columns) + column])
                v.store(total, v.at(v.at(c, builder.mul(c_pitch, INT64(row))), column * v.lanes))
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def add_rows(typing_context, real, rows, source, pitch, target):  # type: ignore[no-untyped-def]
    """Add the first register of each of ``rows`` rows to the one at ``target``; four sums at a time hide the latency."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, rows, source, pitch, target = arguments
        v = VectorCode(builder, real.dtype)
        zero = ir.Constant(v.type, [0.0] * v.lanes)

        def add_four(index: Value, sums: list[Value]) -> list[Value]:
            first = builder.mul(index, INT64(4))
            at = [v.at(source, builder.mul(builder.add(first, INT64(row)), pitch)) for row in range(4)]
            return [builder.fadd(sum_, v.load(place)) for sum_, place in zip(sums, at, strict=True)]

        fours = builder.sdiv(rows, INT64(4))
        a, b, c, d = v.loop(fours, [zero] * 4, add_four)
        done = builder.mul(fours, INT64(4))

        def add_one(index: Value, sums: list[Value]) -> list[Value]:
            return [builder.fadd(sums[0], v.load(v.at(source, builder.mul(builder.add(done, index), pitch))))]

        (rest,) = v.loop(builder.sub(rows, done), [v.load(target)], add_one)
        total = builder.fadd(builder.fadd(builder.fadd(a, b), builder.fadd(c, d)), rest)
        v.store(total, target)
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 4), generate


@intrinsic  # type: ignore[misc]
def pointer(typing_context, address, dtype):  # type: ignore[no-untyped-def]
    """The memory at an address, to be indexed like an array without bounds: ``pointer(a.x, float32)[i]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(address, dtype), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def transpose_square(typing_context, real, source, source_pitch, target, target_pitch):  # type: ignore[no-untyped-def]
    """Transpose a square of as many rows and columns as a register has lanes, in registers.

    In each of log2(lanes) rounds a row and its partner exchange halves of their blocks::

        0 1 2 3      0 1 8 9      0 4 8 c
        4 5 6 7  ->  4 5 c d  ->  1 5 9 d
        8 9 a b      2 3 a b      2 6 a e
        c d e f      6 7 e f      3 7 b f
    """
    signature = types.void(real, *[types.int64] * 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source, source_pitch, target, target_pitch = arguments
        v = VectorCode(builder, real.dtype)
        lanes = v.lanes
        rows = [v.load(v.at(source, builder.mul(source_pitch, INT64(row)))) for row in range(lanes)]
        block = lanes // 2
        while block:
            # Lanes 0 to lanes - 1 are those of the upper row, the rest those of its partner.
            upper = [lane if not lane & block else lanes + lane - block for lane in range(lanes)]
            lower = [lane + block if not lane & block else lanes + lane for lane in range(lanes)]
            masks = [ir.Constant(ir.VectorType(INT32, lanes), mask) for mask in (upper, lower)]
            for row in range(lanes):
                if not row & block:
                    pair = rows[row], rows[row + block]
                    rows[row], rows[row + block] = (builder.shuffle_vector(*pair, mask) for mask in masks)
            block //= 2
        for row in range(lanes):
            v.store(rows[row], v.at(target, builder.mul(target_pitch, INT64(row))))
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def size_of(typing_context, real):  # type: ignore[no-untyped-def]
    """Bytes of an element."""
    size = np.dtype(str(real.dtype)).itemsize
    return types.int64(real), lambda context, builder, signature, arguments: INT64(size)


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def lane_count(typing_context, real):  # type: ignore[no-untyped-def]
    """Elements of a register."""
    count = lanes_of(np.dtype(str(real.dtype)))
    return types.int64(real), lambda context, builder, signature, arguments: INT64(count)


@inline
def block_width(vectors: int) -> int:
    """How many of the ``vectors`` registers that a matrix is still wide the next tiles take: 1 to 3, never leaving one."""
    return 3 if vectors == 3 or vectors > 4 else min(vectors, 2)


@inline
def multiply(
    real: Any,
    vectors: int,
    rows: int,
    depth: int,
    a: int,
    a_rows: int,
    a_steps: int,
    b: int,
    b_pitch: int,
    start: int,
    start_pitch: int,
    c: int,
    c_pitch: int,
) -> None:
    """:func:`outer_products` for any number of rows, and 1 to 3 registers; the shape of the tile follows from their number.

    The last tile is a whole or a half one: ``a_rows`` must be readable, ``start`` (unless its pitch is 0) too, and ``c``
    writable, for as many rows as it has; :func:`padded_rows` tells how many.
    """
    size = size_of(real)
    if vectors == 1:
        for row in range(0, rows, TILE_ROWS_1):
            from_start, to = start + row * start_pitch * size, c + row * c_pitch * size
            table = a_rows + row * 8
            if rows - row > HALF_TILE_1:
                outer_products(real, TILE_ROWS_1, 1, depth, a, table, a_steps, b, b_pitch, from_start, start_pitch, to, c_pitch)
            else:
                outer_products(real, HALF_TILE_1, 1, depth, a, table, a_steps, b, b_pitch, from_start, start_pitch, to, c_pitch)
    elif vectors == 2:
        for row in range(0, rows, TILE_ROWS_2):
            from_start, to = start + row * start_pitch * size, c + row * c_pitch * size
            table = a_rows + row * 8
            if rows - row > HALF_TILE_2:
                outer_products(real, TILE_ROWS_2, 2, depth, a, table, a_steps, b, b_pitch, from_start, start_pitch, to, c_pitch)
            else:
                outer_products(real, HALF_TILE_2, 2, depth, a, table, a_steps, b, b_pitch, from_start, start_pitch, to, c_pitch)
    else:
        for row in range(0, rows, TILE_ROWS_3):
            from_start, to = start + row * start_pitch * size, c + row * c_pitch * size
            table = a_rows + row * 8
            if rows - row > HALF_TILE_3:
                outer_products(real, TILE_ROWS_3, 3, depth, a, table, a_steps, b, b_pitch, from_start, start_pitch, to, c_pitch)
            else:
                outer_products(real, HALF_TILE_3, 3, depth, a, table, a_steps, b, b_pitch, from_start, start_pitch, to, c_pitch)


def padded_rows(rows: int) -> int:
    """Rows that :func:`multiply` may touch for ``rows`` rows of any width."""
    return rows + max(TILE_ROWS_1, TILE_ROWS_2, TILE_ROWS_3) - 1


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def copy(typing_context, real, source, target, count):  # type: ignore[no-untyped-def]
    """Copy ``count`` elements, the last ones of less than a register in one masked step: most rows of images are short."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source, target, count = arguments
        v = VectorCode(builder, real.dtype)
        whole, rest = builder.sdiv(count, INT64(v.lanes)), builder.srem(count, INT64(v.lanes))

        def move(index: Value, _: list[Value]) -> list[Value]:
            step = builder.mul(index, INT64(v.lanes))
            v.store(v.load(v.at(source, step)), v.at(target, step))
            return []

        v.loop(whole, [], move)
        with builder.if_then(builder.icmp_signed(">", rest, INT64(0))):
            done, mask = builder.mul(whole, INT64(v.lanes)), v.first_lanes(rest)
            v.store_where(mask, v.load_where(mask, v.at(source, done)), v.at(target, done))
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 3), generate


@intrinsic(prefer_literal=True)  # type: ignore[misc]
def fill(typing_context, real, target, count):  # type: ignore[no-untyped-def]
    """Write ``count`` zeros."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, target, count = arguments
        v = VectorCode(builder, real.dtype)
        zero = ir.Constant(v.type, [0.0] * v.lanes)
        whole, rest = builder.sdiv(count, INT64(v.lanes)), builder.srem(count, INT64(v.lanes))

        def write(index: Value, _: list[Value]) -> list[Value]:
            v.store(zero, v.at(target, builder.mul(index, INT64(v.lanes))))
            return []

        v.loop(whole, [], write)
        with builder.if_then(builder.icmp_signed(">", rest, INT64(0))):
            v.store_where(v.first_lanes(rest), zero, v.at(target, builder.mul(whole, INT64(v.lanes))))
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 2), generate


@inline
def transpose(
    real: Any,
    source: int,
    source_pitch: int,
    rows: int,
    columns: int,
    target: int,
    target_pitch: int,
    square: int,
    padded: bool,
) -> None:
    """Write a matrix of ``rows`` x ``columns`` transposed: ``target[j, i] = source[i, j]``.

    Args:
        real: Dtype.
        source: Address of the matrix.
        source_pitch: Elements from one of its rows to the next.
        rows: Number of its rows.
        columns: Number of its columns.
        target: Address of the result.
        target_pitch: Elements from one row of the result to the next.
        square: Address of memory for a square of registers.
        padded: Whether the rows of the source can be read up to the next whole register.
    """
    size, lanes = size_of(real), lane_count(real)
    if rows < lanes or (columns < lanes and not padded):
        read, written = pointer(source, real), pointer(target, real)
        for j in range(columns):
            for i in range(rows):
                written[j * target_pitch + i] = read[i * source_pitch + j]
        return
    # The last squares reach back to rows and columns that were written before, so that all are whole.
    for first_column in range(0, columns, lanes):
        column = max(0, min(first_column, columns - lanes))
        for first_row in range(0, rows, lanes):
            row = min(first_row, rows - lanes)
            from_square = source + (row * source_pitch + column) * size
            to_square = target + (column * target_pitch + row) * size
            if columns >= lanes:
                transpose_square(real, from_square, source_pitch, to_square, target_pitch)
            else:
                transpose_square(real, from_square, source_pitch, square, lanes)
                for j in range(columns):
                    copy(real, square + j * lanes * size, to_square + j * target_pitch * size, lanes)
