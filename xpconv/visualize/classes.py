"""Labels and predictions as class numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xpconv.arrays import as_array
from xpconv.device import to_numpy


def classes_of(op: str, name: str, value: Any, samples: int | None = None) -> NDArray[np.int64]:
    """Class numbers, given as such or as rows of which the greatest entry is the class."""
    array = to_numpy(as_array(op, name, value))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{op}: {name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{op}: {name} must be class numbers, (N,), or rows of scores, (N, classes), got shape {array.shape}")
    if samples is not None and len(array) != samples:
        raise ValueError(f"{op}: there are {samples} images but {len(array)} {name}")
    if np.isnan(array).any():
        raise ValueError(f"{op}: {name} hold NaN, which is of no class")
    if array.ndim == 2 and array.shape[1] > 1:
        return np.asarray(array.argmax(axis=1), np.int64)
    array = array.reshape(-1)
    with np.errstate(invalid="ignore"):
        numbers: NDArray[np.int64] = array.astype(np.int64)
    wrong = np.flatnonzero((numbers != array) | (numbers < 0))
    if wrong.size:
        hint = "; of a single score a sample, pass score > 0.5 or so" if name == "predictions" else ""
        raise ValueError(f"{op}: {name} must be whole numbers from 0 on, got {array[wrong[0]]} at sample {wrong[0]}{hint}")
    return numbers
