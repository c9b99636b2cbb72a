"""Which tiles a matrix product is cut into: the shapes that the kernels of this folder can take, and the choice among them.

Every shape computes the same numbers in the same order; only the time differs. No card was at hand when the constants of
:func:`choose_tile` were written: they count instructions, which the compiled kernels confirm, and not seconds.
``XPCONV_CUDA_TILE=64x32``, or ``64x32x8`` with its depth, takes this shape for every product that can have it; see
:mod:`xpconv.kernels.cuda.autotune` for a choice by measurement.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xpconv.kernels.cuda.runtime import Runtime, ceil_div

Engine = Literal["cores", "tensor"]

ENVIRONMENT_VARIABLE = "XPCONV_CUDA_TILE"
TF32_VARIABLE = "XPCONV_TF32"

# What a multiprocessor of each architecture since sm_75 has for its blocks, at least.
REGISTERS = 65536
SCHEDULERS = 4
# Warps that keep the pipelines of a multiprocessor busy, each with some 32 independent sums in flight.
BUSY_WARPS = 8


@dataclass(frozen=True, slots=True)
class TileShape:
    """How a block of threads is laid over a tile of a matrix product; see ``tile.cuh``.

    Attributes:
        rows: Rows of the tile.
        columns: Columns of the tile.
        depth: Terms of each sum that are in shared memory at a time.
        warps_m: Warps along the rows.
        warps_n: Warps along the columns.
        lane_rows: Rows that a lane sums in registers; or of a fragment, on tensor cores.
        lane_columns: Columns, likewise.
        stages: Steps of ``depth`` terms that are in shared memory or on their way.

    Example:
        >>> TileShape(64, 32, 16, 2, 1, 8, 4, 3).template_arguments()
        '64, 32, 16, 2, 1, 8, 4, 3'
    """

    rows: int
    columns: int
    depth: int
    warps_m: int
    warps_n: int
    lane_rows: int
    lane_columns: int
    stages: int

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.warps_m * self.warps_n

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    def template_arguments(self) -> str:
        """The shape as the last arguments of a template."""
        return (
            f"{self.rows}, {self.columns}, {self.depth}, {self.warps_m}, {self.warps_n}, "
            f"{self.lane_rows}, {self.lane_columns}, {self.stages}"
        )


# Lanes lie 4 x 8 in a warp, so that eight of them read or write 128 bytes of neighbours. 8 x 8 sums a lane need the fewest
# loads for each multiplication; smaller ones make more blocks of a small problem. The 64-bit sums take twice the registers.
_FLOAT = (
    TileShape(128, 128, 16, 4, 2, 8, 8, 2),
    TileShape(128, 64, 16, 4, 1, 8, 8, 2),
    TileShape(64, 128, 16, 2, 2, 8, 8, 2),
    TileShape(64, 64, 16, 2, 2, 8, 4, 3),
    TileShape(128, 32, 16, 4, 1, 8, 4, 3),
    TileShape(32, 128, 16, 1, 4, 8, 4, 3),
    TileShape(64, 32, 16, 2, 1, 8, 4, 3),
    TileShape(32, 64, 16, 1, 2, 8, 4, 3),
    TileShape(32, 32, 16, 2, 1, 4, 4, 3),
    TileShape(128, 16, 16, 4, 1, 8, 2, 3),
    TileShape(16, 128, 16, 1, 4, 4, 4, 3),
)
_DOUBLE = (
    TileShape(128, 64, 8, 4, 2, 8, 4, 3),
    TileShape(64, 128, 8, 2, 4, 8, 4, 3),
    TileShape(64, 64, 8, 2, 2, 8, 4, 3),
    TileShape(128, 32, 8, 4, 1, 8, 4, 3),
    TileShape(32, 128, 8, 1, 4, 8, 4, 3),
    TileShape(64, 32, 8, 2, 1, 8, 4, 3),
    TileShape(32, 64, 8, 1, 2, 8, 4, 3),
    TileShape(32, 32, 8, 2, 1, 4, 4, 3),
    TileShape(128, 16, 8, 4, 1, 8, 2, 3),
    TileShape(16, 128, 8, 1, 4, 4, 4, 3),
)
_TENSOR_16 = (
    TileShape(128, 128, 32, 4, 2, 16, 16, 2),
    TileShape(128, 64, 32, 4, 1, 16, 16, 2),
    TileShape(64, 128, 32, 2, 2, 16, 16, 2),
    TileShape(64, 64, 32, 2, 2, 16, 16, 3),
    TileShape(128, 32, 32, 4, 1, 16, 16, 3),
    TileShape(32, 128, 32, 1, 4, 16, 16, 3),
    TileShape(32, 32, 32, 2, 2, 16, 16, 3),
    TileShape(128, 16, 32, 4, 1, 16, 16, 3),
    TileShape(16, 128, 32, 1, 4, 16, 16, 3),
)


def _half_deep(shapes: tuple[TileShape, ...]) -> tuple[TileShape, ...]:
    # Fewer zeros where there are few channels.
    return tuple(
        TileShape(s.rows, s.columns, s.depth // 2, s.warps_m, s.warps_n, s.lane_rows, s.lane_columns, s.stages) for s in shapes
    )


_SHAPES: dict[tuple[Engine, int], tuple[TileShape, ...]] = {
    ("cores", 2): _FLOAT + _half_deep(_FLOAT[3:]),
    ("cores", 4): _FLOAT + _half_deep(_FLOAT[3:]),
    ("cores", 8): _DOUBLE + _half_deep(_DOUBLE[2:]),
    ("tensor", 2): _TENSOR_16 + _half_deep(_TENSOR_16[3:]),
    ("tensor", 4): _half_deep(_TENSOR_16),
}


# Terms of the deepest tiles.
DEEPEST = max(shape.depth for shapes in _SHAPES.values() for shape in shapes)


def tile_shapes(engine: Engine, dtype: Any) -> tuple[TileShape, ...]:
    """All shapes that are compiled for an engine and a dtype, large ones first."""
    return _SHAPES[engine, _itemsize(dtype)]


def choose_engine(dtype: Any, runtime: Runtime) -> Engine:
    """Whether tensor cores multiply numbers of this dtype on this card.

    They multiply the 16-bit types exactly and sum in float: float16 since sm_75, bfloat16 since sm_80. They would round
    float32 to 10 bits behind the point first (TF32), which is done only when ``XPCONV_TF32=1`` asks for it, from sm_80 on.
    """
    name = np.dtype(dtype).name
    if name == "float16" or (name == "bfloat16" and runtime.compute_capability >= 80):
        return "tensor"
    if name == "float32" and runtime.compute_capability >= 80 and environment_flag(TF32_VARIABLE):
        return "tensor"
    return "cores"


def choose_tile(
    rows: int, columns: int, depth: int, products: int, dtype: Any, engine: Engine, runtime: Runtime, repetitions: int = 1
) -> TileShape:
    """The most promising shape; see :func:`promising_tiles`, whose arguments it takes."""
    return promising_tiles(rows, columns, depth, products, dtype, engine, runtime, repetitions)[0]


def promising_tiles(
    rows: int, columns: int, depth: int, products: int, dtype: Any, engine: Engine, runtime: Runtime, repetitions: int = 1
) -> list[TileShape]:
    """All shapes for some matrix products, the most promising first.

    The blocks are dealt out to the multiprocessors, and the one with the most blocks is waited for: a problem that fills the
    card takes the shape with the fewest instructions for each multiplication, the largest; a small one takes a shape that
    leaves no multiprocessor idle. Zeros up to whole tiles cost as much as numbers. A multiprocessor with fewer than
    ``BUSY_WARPS`` warps cannot hide how long an instruction takes, and is slower in proportion.

    Args:
        rows: Rows of each product.
        columns: Columns of each product.
        depth: Terms of each sum that lie side by side: the channels, of one tap.
        products: Number of products.
        dtype: dtype of the numbers.
        engine: What multiplies them; see :func:`choose_engine`.
        runtime: The card.
        repetitions: How many times ``depth`` terms are summed: the taps.
    """
    shapes = _forced_shapes(tile_shapes(engine, dtype))

    def cost(shape: TileShape) -> float:
        blocks = products * ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns)
        dealt = ceil_div(blocks, runtime.multiprocessors)
        resident = max(1, min(dealt, _resident_blocks(shape, dtype, engine, runtime)))
        steps = repetitions * ceil_div(depth, shape.depth)
        issued = dealt * shape.warps * steps * instructions(shape, dtype, engine) / SCHEDULERS
        return issued * max(1.0, BUSY_WARPS / (resident * shape.warps))

    return sorted(shapes, key=cost)


def instructions(shape: TileShape, dtype: Any, engine: Engine) -> float:
    """Issue slots that one step of the main loop takes of a warp's scheduler."""
    wide = 16 // _itemsize(dtype)
    warp_rows, warp_columns = shape.rows // shape.warps_m, shape.columns // shape.warps_n
    if engine == "cores":
        # A multiplication for each sum and term, and loads of 128 bits from shared memory.
        sums = shape.lane_rows * shape.lane_columns
        product = shape.depth * (sums + (shape.lane_rows + shape.lane_columns) / wide)
    else:
        # 16 x 16 x 16 multiplications keep a tensor core busy for some 16 slots; a fragment takes about 4 to load.
        fragments_m, fragments_n = warp_rows // 16, warp_columns // 16
        product = shape.depth / 16 * (16 * fragments_m * fragments_n + 4 * (fragments_m + fragments_n))
    # Copies: 128 bits of weights, and single numbers of pixels, with their addresses; then the barrier and the counters.
    copies = 3 * (shape.rows * shape.depth / wide + shape.columns * shape.depth) / shape.threads
    return product + copies + 30


def shared_bytes(
    shape: TileShape, dtype: Any, engine: Engine, columns_along_depth: bool = False, rows_along_depth: bool = False
) -> int:
    """Dynamic shared memory of a block: its stages, or the strips that its sums go through in the end if they are larger.

    Args:
        shape: The shape of its tile.
        dtype: dtype of the numbers.
        engine: What multiplies them.
        columns_along_depth: Whether the second operand lies ``ALONG_DEPTH`` in shared memory.
        rows_along_depth: Whether the first one does.
    """
    itemsize = _itemsize(dtype)
    pad = 16 // itemsize

    def elements(length: int, along_depth: bool) -> int:
        return length * (shape.depth + pad) if along_depth else shape.depth * (length + pad)

    stages = shape.stages * itemsize * (elements(shape.rows, rows_along_depth) + elements(shape.columns, columns_along_depth))
    warp_rows, warp_columns = shape.rows // shape.warps_m, shape.columns // shape.warps_n
    if engine == "tensor":
        strip = 16 * (warp_columns + 4) * 4
    else:
        strip = warp_rows // shape.lane_rows * warp_columns * max(itemsize, 4)
    return max(stages, shape.warps * strip)


def _resident_blocks(shape: TileShape, dtype: Any, engine: Engine, runtime: Runtime) -> int:
    # Blocks that a multiprocessor holds at a time, by registers and shared memory: sums, operands and some forty addresses.
    words = max(1, _itemsize(dtype) // 4)
    sums = shape.rows * shape.columns // shape.threads * words
    registers = shape.threads * min(255, sums + 64)
    return min(REGISTERS // registers, runtime.shared_memory_limit // shared_bytes(shape, dtype, engine))


def _itemsize(dtype: Any) -> int:
    return int(np.dtype(dtype).itemsize)


def _forced_shapes(shapes: tuple[TileShape, ...]) -> tuple[TileShape, ...]:
    # Those that the environment asks for; all of them where it doesn't, or where it names a shape of other products only.
    name = os.environ.get(ENVIRONMENT_VARIABLE)
    if not name:
        return shapes
    every = {_name(shape): shape for compiled in _SHAPES.values() for shape in compiled}
    if not any(known == name or known.startswith(f"{name}x") for known in every):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(every)}, or without its depth, got {name!r}")
    return tuple(shape for shape in shapes if _name(shape) == name or _name(shape).startswith(f"{name}x"))[:1] or shapes


def _name(shape: TileShape) -> str:
    return f"{shape.rows}x{shape.columns}x{shape.depth}"


def environment_flag(variable: str) -> bool:
    """Whether a variable of the environment is 1, and not 0 or absent."""
    value = os.environ.get(variable, "0")
    if value not in ("0", "1"):
        raise ValueError(f"{variable} must be 0 or 1, got {value!r}")
    return value == "1"
