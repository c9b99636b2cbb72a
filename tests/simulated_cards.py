"""Cards for tests of the cuda kernels: the simulator in either of its modes, as a card of any kind."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest

from xpconv import cudasim
from xpconv.kernels.cuda.runtime import Runtime, runtime_of

Array = np.ndarray[Any, np.dtype[Any]]

MODES = ("fast", "check")

needs_simulator = pytest.mark.skipif(not cudasim.status()[0], reason="the simulator needs g++")


@functools.cache
def simulated_card(mode: str, compute_capability: int = 80) -> Runtime:
    """The simulator in this mode, as a card of this architecture."""
    return dataclasses.replace(
        runtime_of(np.empty(0)),
        load=functools.partial(cudasim.Module, mode=mode),
        compute_capability=compute_capability,
        _kernels={},
    )


def moved(array: Array, elements: int) -> Array:
    """A copy that starts so many elements behind an address that suits every vector."""
    aligned = np.empty(array.nbytes + 64 + elements * array.itemsize, np.uint8)
    start = -aligned.ctypes.data % 64 + elements * array.itemsize
    copy = aligned[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def claimed(shape: tuple[int, ...]) -> Array:
    """An array of float32 to plan for: of any size, with no memory behind it."""
    strides = [4 * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return np.lib.stride_tricks.as_strided(np.empty(1, np.float32), shape, strides)
