"""What a peer is: a library that computes workloads."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpconv.bench.workloads import Convolution, ConvolutionReluPooling, Pooling, TrainingStep, Workload

Array = np.ndarray[Any, np.dtype[Any]]

# What each operation gives, in this order.
CONVOLUTION_RESULTS = {"fwd": ("y",), "dx": ("dx",), "dw": ("dw", "db"), "tot": ("y", "dx", "dw", "db")}
POOLING_RESULTS = {"fwd": ("y",), "bwd": ("dx",), "tot": ("y", "dx")}

# Written before each call on a card, so that nothing is in its cache: twice the largest one there is.
FLUSHED_BYTES = 1 << 28


@dataclass(frozen=True)
class Operation:
    """What is timed, and what it gives.

    Attributes:
        run: Does the work once. On the CPU it returns when the work is done; on a card, where it is queued, the peer's clock
            waits for it.
        outcome: Does the work once, by the same code, and gives the results by name as NumPy arrays, channels first.
    """

    run: Callable[[], Any]
    outcome: Callable[[], dict[str, Array]]


@dataclass(frozen=True)
class EventClock:
    """Times what is queued on the current stream of a card.

    The time is that between two events in the stream, so it is the card's alone: the cache is flushed ahead of the first
    one, and while the card does that the call can be queued. What a call then still makes the card wait for counts.

    Attributes:
        flush: Queues a write of :data:`FLUSHED_BYTES`.
        event: Makes an event, which has ``record()`` and ``synchronize()``.
        elapsed: Milliseconds between two events.
    """

    flush: Callable[[], Any]
    event: Callable[[], Any]
    elapsed: Callable[[Any, Any], float]

    def milliseconds(self, run: Callable[[], Any]) -> float:
        """Call once, and wait until its work is done."""
        started, finished = self.event(), self.event()
        self.flush()
        started.record()
        run()
        finished.record()
        finished.synchronize()
        return float(self.elapsed(started, finished))


class Peer(ABC):
    """A library, ready to compute.

    A subclass overrides the workloads that it has; it imports its library when it is made, not before.

    Args:
        variant: Which of the library's ways to use.
        threads: Number of threads to compute with.

    Raises:
        ImportError: The library is not installed.
    """

    @abstractmethod
    def __init__(self, variant: str, threads: int) -> None: ...

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the packages that compute."""

    def milliseconds(self, run: Callable[[], Any]) -> float:
        """Time one call, from its start until its work is done."""
        started = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - started)

    def limits(self, threads: int) -> dict[str, Any]:
        """What the machine can do at most: see `xpconv.bench.machine`."""
        from xpconv.bench.machine import measure_limits

        return measure_limits(threads)

    def operations(self, workload: Workload) -> dict[str, Operation]:
        """Prepare a workload: arrays in the layout that the library likes best, functions compiled or ready to be.

        Returns:
            The workload's operations that the library has, by name; maybe none.
        """
        match workload:
            case Convolution():
                return self.convolution(workload)
            case ConvolutionReluPooling():
                return self.convolution_relu_pooling(workload)
            case Pooling():
                return self.pooling(workload)
            case TrainingStep():
                return self.training_step(workload)
            case _:
                raise TypeError(f"no peer knows the workload {workload!r}")

    def convolution(self, workload: Convolution) -> dict[str, Operation]:
        """Prepare a convolution."""
        return {}

    def convolution_relu_pooling(self, workload: ConvolutionReluPooling) -> dict[str, Operation]:
        """Prepare the fused block."""
        return {}

    def pooling(self, workload: Pooling) -> dict[str, Operation]:
        """Prepare a pooling."""
        return {}

    def training_step(self, workload: TrainingStep) -> dict[str, Operation]:
        """Prepare the training step; its outcome is the ``loss`` of the first batch, and the gradients as ``dW1`` ..."""
        return {}


def operations(
    runs: dict[str, Callable[[], Any]],
    results: dict[str, tuple[str, ...]],
    to_numpy: Callable[[str, Any], Array],
) -> dict[str, Operation]:
    """Make operations of functions that return their results, in order.

    Args:
        runs: The functions by the operation's name; each returns one array or a tuple of them.
        results: Names of the results of each operation.
        to_numpy: Turns the result of a name into a NumPy array, channels first.
    """

    def outcome(name: str) -> Callable[[], dict[str, Array]]:
        def computed() -> dict[str, Array]:
            values = runs[name]()
            values = values if isinstance(values, (tuple, list)) else (values,)
            return {key: to_numpy(key, value) for key, value in zip(results[name], values, strict=True)}

        return computed

    return {name: Operation(run, outcome(name)) for name, run in runs.items()}


# ---- for libraries that like channels_last better ----------------------------------------------------------------------


def channels_last(x: Array) -> Array:
    """Images (N, C, H, W) as (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: Array) -> Array:
    """Images (N, H, W, C) as (N, C, H, W)."""
    return x.transpose(0, 3, 1, 2)


def filters_last(w: Array) -> Array:
    """Filters (F, C, KH, KW) as (KH, KW, C, F)."""
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0))


def filters_first(w: Array) -> Array:
    """Filters (KH, KW, C, F) as (F, C, KH, KW)."""
    return w.transpose(3, 2, 0, 1)


def parameters_last(workload: TrainingStep, parameters: dict[str, Array]) -> dict[str, Array]:
    """SimpleConvNet's parameters for a network whose images are (N, H, W, C): its pixels are flattened in another order."""
    channels, height, width = workload.pooled_shape
    w2 = parameters["W2"].reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    return {
        **{name: parameters[name] for name in ("b1", "b2", "W3", "b3")},
        "W1": filters_last(parameters["W1"]),
        "W2": np.ascontiguousarray(w2.reshape(channels * height * width, -1)),
    }


def gradients_first(workload: TrainingStep, gradients: dict[str, Array]) -> dict[str, Array]:
    """Gradients of such a network by the names and in the shapes of SimpleConvNet's parameters."""
    channels, height, width = workload.pooled_shape
    w2 = gradients["W2"].reshape(height, width, channels, -1).transpose(2, 0, 1, 3)
    shaped = {
        **gradients,
        "W1": filters_first(gradients["W1"]),
        "W2": w2.reshape(channels * height * width, -1),
    }
    return {f"d{name}": gradient for name, gradient in shaped.items()}
