"""Matrix products with a long depth and a small result: into how many splits the depth is cut, and how they are added up.

The tiles of a small result are too few for a card. So several blocks share a tile, each with a part of the depth of its own;
they write their sums side by side into a workspace, and a second kernel adds them in the order of the splits. How many there
are follows from the sizes and the card alone, so that the same problem gives the same bits at every run.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.kernels.cuda.runtime import Array, Runtime, ceil_div, type_name
from xpconv.kernels.cuda.tiles import (
    BUSY_WARPS,
    ENVIRONMENT_VARIABLE,
    REGISTERS,
    SCHEDULERS,
    Engine,
    TileShape,
    choose_tile,
    instructions,
    tile_shapes,
)

# What the sums of all splits may take of the card's memory.
WORKSPACE_BYTES = 64 << 20
# Steps of a split at least: the first copies, and the sums that go through memory, should not be most of its work.
SHORTEST_SPLIT = 4
# A grid has no more blocks along y.
MOST_SPLITS = 65535

# What one multiprocessor does, roughly, in issue slots: until the first step has been copied, a launch, and how many bytes of
# the workspace it writes or reads in one.
_START, _LAUNCH, _BYTES = 600, 3000, 16
_THREADS = 256


@dataclass(frozen=True, slots=True)
class SplitProduct:
    """How a matrix product with a long depth is laid out.

    Attributes:
        tile: Shape of its tiles.
        splits: Number of splits.
        steps: Steps of each split, but for the last, which can have fewer; none has no steps.
    """

    tile: TileShape
    splits: int
    steps: int


def split_product(
    rows: int,
    columns: int,
    depth: int,
    products: int,
    dtype: Any,
    engine: Engine,
    runtime: Runtime,
    tile: TileShape | None = None,
    splits: int | None = None,
) -> SplitProduct:
    """Choose tile and splits for ``products`` matrix products of rows x columns numbers, each a sum of ``depth`` terms.

    Args:
        rows: Rows of each product.
        columns: Columns of each product.
        depth: Terms of each sum, at least one.
        products: Number of products.
        dtype: dtype of the numbers.
        engine: What multiplies them.
        runtime: The card.
        tile: Shape of the tiles; None chooses.
        splits: Number of splits, cut to as many as there are steps; None chooses.
    """
    return _split_product(
        rows, columns, depth, products, np.dtype(dtype), engine, runtime, tile, splits, os.environ.get(ENVIRONMENT_VARIABLE)
    )


@functools.lru_cache(maxsize=1024)
def _split_product(
    rows: int,
    columns: int,
    depth: int,
    products: int,
    dtype: np.dtype[Any],
    engine: Engine,
    runtime: Runtime,
    tile: TileShape | None,
    splits: int | None,
    forced_tile: str | None,
) -> SplitProduct:
    if tile is not None:
        shapes: tuple[TileShape, ...] = (tile,)
    elif forced_tile:
        shapes = (choose_tile(rows, columns, depth, products, dtype, engine, runtime),)
    else:
        # The shallow ones are for few terms.
        deepest = max(shape.depth for shape in tile_shapes(engine, dtype))
        shapes = tuple(shape for shape in tile_shapes(engine, dtype) if shape.depth == deepest)
    choices = []
    for shape in shapes:
        steps = ceil_div(depth, shape.depth)
        tiles = products * ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns)
        counts = _split_counts(steps, tiles, products * rows * columns, dtype, runtime) if splits is None else [splits]
        for count in counts:
            each = ceil_div(steps, min(count, steps, MOST_SPLITS))
            choices.append(SplitProduct(shape, ceil_div(steps, each), each))
    return min(choices, key=lambda choice: _cost(choice, rows, columns, products, dtype, engine, runtime))


def _split_counts(steps: int, tiles: int, sums: int, dtype: np.dtype[Any], runtime: Runtime) -> list[int]:
    # One split, and as many as give every multiprocessor the same number of blocks, for some numbers.
    most = min(steps // SHORTEST_SPLIT, WORKSPACE_BYTES // (sums * _sum_dtype(dtype).itemsize), MOST_SPLITS)
    filling = (blocks * runtime.multiprocessors // tiles for blocks in range(1, 9))
    return [1, *sorted({min(count, most) for count in filling if min(count, most) > 1})]


def _cost(
    choice: SplitProduct, rows: int, columns: int, products: int, dtype: np.dtype[Any], engine: Engine, runtime: Runtime
) -> float:
    # Issue slots of the busiest multiprocessor, as in choose_tile; and those of adding up.
    shape = choice.tile
    tiles = products * ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns)
    dealt = ceil_div(tiles * choice.splits, runtime.multiprocessors)
    # Operands that lie along the depth take many registers, here up to all that a thread can have.
    resident = min(dealt, max(1, REGISTERS // (shape.threads * 255)))
    issued = dealt * shape.warps * choice.steps * instructions(shape, dtype, engine) / SCHEDULERS
    cost = issued * max(1.0, BUSY_WARPS / (resident * shape.warps)) + dealt * _START
    if choice.splits > 1:
        written_and_read = 2 * choice.splits * products * rows * columns * _sum_dtype(dtype).itemsize
        cost += _LAUNCH + written_and_read / (_BYTES * runtime.multiprocessors)
    return cost


def sum_type_name(dtype: Any) -> str:
    """The type in the sources that products of this dtype are summed in."""
    return type_name(_sum_dtype(np.dtype(dtype)))


def workspace(runtime: Runtime, splits: int, size: int, dtype: Any) -> Array:
    """Room for the sums of all splits, (splits, size), in the type that products of this dtype are summed in."""
    return runtime.xp.empty((splits, size), _sum_dtype(np.dtype(dtype)))


def add_splits(runtime: Runtime, sums: Array, first: Array, second: Array | None = None) -> None:
    """Add up the rows of ``sums``, (splits, size), in their order: into ``first`` and then ``second``, ``size`` in all."""
    splits, size = sums.shape
    if second is None:
        second = runtime.xp.empty(0, first.dtype)
    runtime.launch(
        "splits.cu",
        f"add_splits<{type_name(first.dtype)}>",
        (min(ceil_div(size, _THREADS), 32 * runtime.multiprocessors),),
        (_THREADS,),
        (sums, first, second, np.int64(first.size), np.int64(size), np.int32(splits)),
    )


def _sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
