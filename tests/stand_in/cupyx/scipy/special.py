"""What xpconv uses of ``cupyx.scipy.special``; see the stand-in for CuPy beside it."""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np


def erfc(x: cupy.ndarray) -> cupy.ndarray:
    return cupy._computed(_erfc, x)


def _erfc(x: Any) -> Any:
    # To the precision of float64, and then of the dtype.
    return np.vectorize(math.erfc, otypes=[x.dtype])(x)
