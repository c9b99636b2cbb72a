"""Matrix products for fully connected layers: the host side of ``dense.cuh``.

They are our own, so that no cuBLAS need be installed, and so that a product is the same on every card of an architecture.
``XPCONV_CUDA_MATMUL=cublas`` takes ``cupy.matmul`` instead, where there is one.
"""

from __future__ import annotations

import os

from xpconv.kernels.cuda.runtime import Array, ceil_div, index_type, runtime_of, type_name, vector_width
from xpconv.kernels.cuda.source import record
from xpconv.kernels.cuda.splits import add_splits, split_product, sum_type_name, workspace
from xpconv.kernels.cuda.tiles import TileShape, choose_engine, shared_bytes

ENVIRONMENT_VARIABLE = "XPCONV_CUDA_MATMUL"


def matmul(a: Array, b: Array) -> Array:
    """The product of two matrices, each of them contiguous or the transpose of a contiguous one."""
    return runtime_of(a).xp.matmul(a, b) if _takes_cublas() else matrix_product(a, b)


def matrix_product(a: Array, b: Array, tile: TileShape | None = None, splits: int | None = None) -> Array:
    """As :func:`matmul`, by our own kernels.

    Args:
        a: (M, K).
        b: (K, N).
        tile: Shape of the tiles; None chooses.
        splits: Number of parts that K is cut into; None chooses.
    """
    runtime, dtype = runtime_of(a), a.dtype
    (rows, depth), columns = a.shape, b.shape[1]
    if 0 in (rows, columns, depth):
        return runtime.xp.zeros((rows, columns), dtype)
    out = runtime.xp.empty((rows, columns), dtype)
    engine = choose_engine(dtype, runtime)
    plan = split_product(rows, columns, depth, 1, dtype, engine, runtime, tile, splits)
    sums = out if plan.splits == 1 else workspace(runtime, plan.splits, out.size, dtype)

    # Copies go along the rows of a matrix as it lies in memory: of a along the depth, and of b not, unless transposed.
    a_transposed, b_transposed = not a.flags.c_contiguous, not b.flags.c_contiguous
    a, b = a.T if a_transposed else a, b.T if b_transposed else b
    column_tiles = ceil_div(columns, plan.tile.columns)
    arguments = (
        type_name(dtype),
        type_name(dtype) if plan.splits == 1 else sum_type_name(dtype),
        index_type(a, b, sums),
        "ALONG_ROWS" if a_transposed else "ALONG_DEPTH",
        "ALONG_DEPTH" if b_transposed else "ALONG_ROWS",
        str(vector_width(a.shape[1], a)),
        str(vector_width(b.shape[1], b)),
        plan.tile.template_arguments(),
    )
    file, kernel = ("dense_tensor.cu", "matmul_tensor") if engine == "tensor" else ("dense.cu", "matmul")
    runtime.launch(
        file,
        f"{kernel}<{', '.join(arguments)}>",
        (ceil_div(rows, plan.tile.rows) * column_tiles, plan.splits),
        (plan.tile.threads,),
        (
            a,
            b,
            sums,
            record(
                "dense.cuh",
                "Dense",
                rows=rows,
                columns=columns,
                column_tiles=column_tiles,
                steps=plan.steps,
                depth=depth,
                a_pitch=a.shape[1],
                b_pitch=b.shape[1],
            ),
        ),
        shared_memory=shared_bytes(
            plan.tile, dtype, engine, columns_along_depth=b_transposed, rows_along_depth=not a_transposed
        ),
    )
    if plan.splits > 1:
        add_splits(runtime, sums, out)
    return out


def _takes_cublas() -> bool:
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "own")
    if choice not in ("own", "cublas"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be 'own' or 'cublas', got {choice!r}")
    return choice == "cublas"
