"""What xpconv uses of ``cupyx``; see the stand-in for CuPy beside it."""

from __future__ import annotations

from typing import Any

import numpy as np


def empty_pinned(shape: Any, dtype: Any = float) -> np.ndarray[Any, Any]:
    return np.empty(shape, dtype)
