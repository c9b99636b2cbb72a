"""Gradients by central differences, the yardstick that every backward pass is held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.arrays import FLOAT_DTYPES, as_array
from xpconv.device import get_device, to_numpy

__all__ = ["numerical_gradient", "numerical_gradient_2d"]

_BOOK_STEP = 1e-4


def numerical_gradient(f: Callable[[Any], Any], x: Any) -> Any:
    """Estimate the gradient of a function by central differences.

    Every entry of ``x`` is moved a little up and a little down, in place, and put back as it was, bit for bit, also when
    ``f`` raises. So ``f`` may read ``x`` from elsewhere and ignore its argument, as the loss of a network does that reads
    the parameters of its layers.

    Args:
        f: Function of an array, returning one number.
        x: Where to take the gradient: float32 or float64, of any shape, writable. Integers and lists are worked on as a
            float64 copy, which ``f`` gets as its argument.

    Returns:
        The gradient, of the shape of ``x``; float32 for float32, else float64. NaN where ``x`` is not finite.

    Raises:
        ValueError: ``x`` is read-only.
        TypeError: ``x`` holds something else than real numbers, or ``f`` returns something else than one number.

    Notes:
        The step is the book's 1e-4 or, where that is lost in the rounding of ``x``, ``cbrt(eps) * max(1, abs(x))`` with
        the machine epsilon of the dtype: 0.005 for float32. ``cbrt(eps)`` balances rounding against truncation: J. Nocedal
        and S. J. Wright, Numerical Optimization, section 8.1. The difference of ``f`` is divided by the step that was
        made, not by the one that was asked for. ``f`` is called ``2 * x.size`` times.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.gradient import numerical_gradient
        >>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
        array([6., 8.])
    """
    op = "numerical_gradient"
    return _gradient(op, f, _writable(op, "x", x))


def numerical_gradient_2d(f: Callable[[Any], Any], X: Any) -> Any:
    """Estimate the gradients of a function at several points, the rows of a matrix.

    Args:
        f: Function of a vector, returning one number.
        X: The points, one a row, (N, D); or one point, (D,). As ``x`` of :func:`numerical_gradient`.

    Returns:
        The gradients, of the shape of ``X``, one a row.

    Raises:
        ValueError: ``X`` has neither one nor two axes, or is read-only.
        TypeError: As :func:`numerical_gradient`.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.gradient import numerical_gradient_2d
        >>> numerical_gradient_2d(lambda x: (x**2).sum(), np.array([[0.0, 1.0], [3.0, 4.0]])).round(6)
        array([[0., 2.],
               [6., 8.]])
    """
    op = "numerical_gradient_2d"
    X = _writable(op, "X", X)
    if X.ndim not in (1, 2):
        raise ValueError(f"{op}: X must be a matrix of points, or one point, got X.shape={X.shape}")
    if X.ndim == 1:
        return _gradient(op, f, X)
    gradient = get_device(None, X).xp.zeros_like(X)
    for row, point in enumerate(X):
        gradient[row] = _gradient(op, f, point)
    return gradient


def _writable(op: str, name: str, value: Any) -> Any:
    x = as_array(op, name, value)
    if x.dtype.kind in "biu":
        return x.astype(np.float64)
    if x.dtype.newbyteorder("=") not in FLOAT_DTYPES:
        raise TypeError(f"{op}: {name} must be float32, float64, integer or boolean, got {x.dtype}")
    if not getattr(x.flags, "writeable", True):  # CuPy has no read-only arrays
        raise ValueError(f"{op}: {name} is read-only, but its entries are moved in place; pass {name}.copy()")
    return x


def _gradient(op: str, f: Callable[[Any], Any], x: Any) -> Any:
    relative_step = float(np.cbrt(np.finfo(x.dtype).eps))
    gradient = np.zeros(x.shape, x.dtype.newbyteorder("="))
    for index in np.ndindex(x.shape):
        before = x[index].copy()
        center = float(before)
        step = max(_BOOK_STEP, relative_step * max(1.0, abs(center)))
        try:
            x[index] = center + step
            upper, f_upper = float(x[index]), _number(op, f(x))
            x[index] = center - step
            lower, f_lower = float(x[index]), _number(op, f(x))
        finally:
            x[index] = before
        distance = upper - lower
        gradient[index] = (f_upper - f_lower) / distance if math.isfinite(distance) else math.nan
    return get_device(None, x).xp.asarray(gradient)


def _number(op: str, value: Any) -> float:
    result = to_numpy(value)
    if result.size != 1 or result.dtype.kind not in "biuf":
        raise TypeError(f"{op}: f must return one real number, got {value!r}")
    return float(result.item())
