"""Convolution on the numba device: which algorithm computes which shape, and the three functions of the contract."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpconv.geometry import Conv2dGeometry, Pair
from xpconv.kernels.numba.correlation import Correlation, Plan, backward_correlations, forward_correlation
from xpconv.kernels.numba.elementwise import all_finite
from xpconv.kernels.numba.exact import correlate_exactly
from xpconv.kernels.numba.memory import Array, borrowed, empty
from xpconv.kernels.numba.narrow import NarrowPlan
from xpconv.kernels.numba.narrow import weight_gradient as narrow_weight_gradient
from xpconv.kernels.numba.threads import thread_count
from xpconv.kernels.numba.weight_gradient import weight_gradient
from xpconv.kernels.numba.winograd import WinogradPlan

ALGORITHMS = ("direct", "winograd", "narrow")
ENVIRONMENT_VARIABLE = "XPCONV_CONV2D"

# Filters per group up to which narrow.py computes a correlation, and a gradient of the weights. How many times as fast it is as
# the general path, forward/dw, with 64 channels and 3x3 taps on one thread:
#   filters                     1        2        3        4        6        8        10       12       16
#   float32, channels_first  4.0/2.9  3.5/2.5  3.2/2.2  2.9/1.8  2.2/1.4  1.9/1.1  1.5/0.9  1.5/0.9  1.2/0.7
#   float64, channels_first  2.8/1.9  2.4/1.7  2.1/1.5  1.9/1.2  1.4/1.0  1.2/0.7  1.2/0.8  1.2/0.8  1.0/0.6
#   float32, channels_last   3.5/3.0  3.3/2.7  2.9/2.3  2.7/2.0  2.0/1.5  1.8/1.3  1.4/0.9  1.3/0.9  1.1/0.7
#   float64, channels_last   2.3/2.0  2.0/1.7  1.7/1.4  1.6/1.3  1.2/1.0  1.0/0.8  1.1/0.8  1.1/0.8  0.8/0.7
_NARROW = {4: (12, 8), 8: (6, 4)}
# Depthwise with several filters a channel, channels_last, where neither pixels nor filters lie side by side: 1.6 times as fast
# with 2 filters, 1.4 with 3, 0.9 with 4.
_NARROW_DEPTHWISE = 3

_forced: str | None = None


def choose_algorithm(problem: Correlation, dtype: np.dtype[Any]) -> str:
    """Name of the algorithm that computes a correlation, with the measured reason for each.

    ``XPCONV_CONV2D=direct`` in the environment turns Winograd's algorithm off, and the other one; :func:`forced_algorithm` does
    the same for tests and benchmarks. Where a forced algorithm cannot compute a problem, it is computed directly.
    """
    narrow = problem.source_group == problem.channels * problem.source.channel
    winograd = WinogradPlan.suits(problem, dtype)
    if forced := _forced or _from_environment():
        return forced if {"winograd": winograd, "narrow": narrow}.get(forced, False) else "direct"
    # With few filters most lanes of a register would be empty if lanes were filters.
    if narrow and problem.filters <= _narrow_filters(problem, dtype)[0]:
        return "narrow"
    # 1.4 to 2.6 times as fast where it takes clearly fewer multiplications; the table stands beside the rule.
    if winograd and WinogradPlan.pays(problem):
        return "winograd"
    # Every geometry; with 3x3 taps and 64 channels or more at 80 to 95 % of the speed of a large matrix product.
    return "direct"


def _narrow_filters(problem: Correlation, dtype: np.dtype[Any]) -> Pair:
    if problem.channels == 1 and problem.filters > 1 and not problem.planar:
        return _NARROW_DEPTHWISE, _NARROW_DEPTHWISE
    return _NARROW[dtype.itemsize]


def _from_environment() -> str | None:
    name = os.environ.get(ENVIRONMENT_VARIABLE)
    if name and name not in ALGORITHMS:
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(map(repr, ALGORITHMS))}, got {name!r}")
    return name


@contextlib.contextmanager
def forced_algorithm(name: str) -> Iterator[None]:
    """Compute all correlations that it can by one algorithm, as long as the context lasts, and the others directly."""
    global _forced
    if name not in ALGORITHMS:
        raise ValueError(f"forced_algorithm: name must be one of {', '.join(map(repr, ALGORITHMS))}, got {name!r}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def conv2d_forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry) -> Array:
    """See :func:`xpconv.functional.conv2d`."""
    y = empty(geometry.y_shape, x.dtype)
    if y.size:
        # The zeros of the padding count: infinity times zero is NaN.
        _correlate((forward_correlation(geometry),), x, w, b, y, zeros_count=True)
    return y


def conv2d_backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """See :func:`xpconv.functional.conv2d_backward_input`."""
    dx = empty(geometry.x_shape, dy.dtype)
    if dx.size:
        correlate_backward(backward_correlations(geometry), dy, w, dx)
    return dx


def conv2d_backward_weight(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """See :func:`xpconv.functional.conv2d_backward_weight`."""
    if dy.size == 0:
        return np.zeros(geometry.w_shape, x.dtype), np.zeros(geometry.filters, x.dtype)
    problem = forward_correlation(geometry)
    narrow = choose_algorithm(problem, x.dtype) == "narrow"
    if narrow and (_forced or problem.filters <= _narrow_filters(problem, x.dtype)[1]):
        return narrow_weight_gradient(_narrow_plan((problem,), x.dtype, thread_count()), x, dy, geometry)
    return weight_gradient(_plan(problem, x.dtype, thread_count()), x, dy, geometry)


def correlate_backward(phases: tuple[Correlation, ...], source: Array, w: Array, dx: Array) -> None:
    """Compute the gradient of the input from its phases.

    The zeros around the source are no gradients of anything: a weight that is not finite must not meet them.
    """
    _correlate(phases, source, w, None, dx, zeros_count=False)


def _correlate(
    problems: tuple[Correlation, ...], source: Array, w: Array, b: Array | None, target: Array, zeros_count: bool
) -> None:
    dtype, workers = target.dtype, thread_count()
    if choose_algorithm(problems[0], dtype) == "narrow" and (zeros_count or all_finite(w)):
        _narrow_plan(problems, dtype, workers).run(source, w, b, target)
        return
    if any(not problem.depth for problem in problems):
        target[...] = 0  # a stride longer than the filter: no window saw the pixels of some phases
    for problem in problems:
        if problem.depth and not (
            choose_algorithm(problem, dtype) == "winograd" and _run_winograd(problem, source, w, b, target, workers)
        ):
            plan = _plan(problem, dtype, workers)
            with borrowed(plan.packed_bytes) as packed:
                if plan.pack(w, b, packed) or zeros_count or problem.inside:
                    plan.run(source, packed, target)
                else:
                    correlate_exactly(problem, source, w, target)


def _run_winograd(problem: Correlation, source: Array, w: Array, b: Array | None, target: Array, workers: int) -> bool:
    # Whether it could: not with numbers that would overflow on the way, or spread to pixels that don't see them.
    plan = _winograd_plan(problem, workers)
    with borrowed(plan.packed_bytes) as packed:
        return plan.pack(w, b, packed) and plan.run(source, packed, target)


@functools.lru_cache(maxsize=256)
def _plan(problem: Correlation, dtype: np.dtype[Any], workers: int) -> Plan:
    return Plan(problem, dtype, workers)


@functools.lru_cache(maxsize=256)
def _winograd_plan(problem: Correlation, workers: int) -> WinogradPlan:
    return WinogradPlan(problem, workers)


@functools.lru_cache(maxsize=256)
def _narrow_plan(problems: tuple[Correlation, ...], dtype: np.dtype[Any], workers: int) -> NarrowPlan:
    return NarrowPlan(problems, dtype, workers)
