"""Matrix products for fully connected layers, on the same threads as everything else.

BLAS would split a product by itself, but its threads keep spinning for some milliseconds after each one, on the cores that
the next convolution needs: in a training step that cost more than the products themselves.
"""

from __future__ import annotations

import numpy as np

from xpconv.kernels.numpy.threads import parallel, thread_count
from xpconv.kernels.numpy.windows import Array

# Multiplications below which BLAS doesn't start threads, and splitting would not pay either.
SMALL = 1 << 18


def matmul(a: Array, b: Array) -> Array:
    """The product of two matrices."""
    rows, columns = a.shape[0], b.shape[1]
    out = np.empty((rows, columns), a.dtype)
    by_rows = rows >= columns

    def work(worker: int, start: int, stop: int) -> None:
        if by_rows:
            np.matmul(a[start:stop], b, out=out[start:stop])
        else:
            np.matmul(a, b[:, start:stop], out=out[:, start:stop])

    workers = thread_count() if rows * columns * a.shape[1] > SMALL else 1
    parallel(work, rows if by_rows else columns, workers)
    return out
