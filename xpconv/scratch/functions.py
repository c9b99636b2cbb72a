"""The book's ``common/functions.py``: activations, losses and their gradients, each in the dtype that it is given.

float32 and float64 are kept, booleans and integers become float32 (as everywhere in xpconv), lists of fractions float64. A
number is taken as an array without axes. Every function computes on the device of its array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.arrays import as_array, float_arrays, smallest_normal
from xpconv.device import Device, asarray
from xpconv.labels import check_labels

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "mean_squared_error",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

_ROUNDING = 1e-3  # what a probability may exceed 1 by; softmax in float32 gives 1.0000001


def identity_function(x: Any) -> Any:
    """Return ``x`` itself: the activation of a regression's last layer.

    Args:
        x: Anything.

    Example:
        >>> from xpconv.scratch.functions import identity_function
        >>> identity_function(3.0)
        3.0
    """
    return x


def step_function(x: Any, device: str | Device | None = None) -> Any:
    """1 where ``x`` is above 0, else 0.

    Args:
        x: An array, or a number.
        device: Where to compute; None follows the arrays.

    Returns:
        int64, of the shape of ``x``.

    Raises:
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.functions import step_function
        >>> step_function(np.array([-1.0, 0.0, 2.0]))
        array([0, 0, 1])
    """
    _, x = _floats("step_function", device, x)
    return (x > 0).astype(np.int64)


def sigmoid(x: Any, device: str | Device | None = None) -> Any:
    """``1 / (1 + exp(-x))``, without overflow.

    Args:
        x: An array, or a number.
        device: Where to compute; None follows the arrays.

    Returns:
        Floats of the shape of ``x``.

    Raises:
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.functions import sigmoid
        >>> sigmoid(np.array([-1000.0, 0.0, 2.0])).round(4)
        array([0.    , 0.5   , 0.8808])
    """
    place, x = _floats("sigmoid", device, x)
    decay = place.xp.exp(-abs(x))
    return place.xp.where(x >= 0, 1, decay) / (1 + decay)


def sigmoid_grad(x: Any, device: str | Device | None = None) -> Any:
    """Derivative of :func:`sigmoid`: ``sigmoid(x) * (1 - sigmoid(x))``, without its loss of digits for large ``x``.

    Args:
        x: An array, or a number: the argument of the sigmoid, not its value.
        device: Where to compute; None follows the arrays.

    Returns:
        Floats of the shape of ``x``.

    Raises:
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.functions import sigmoid_grad
        >>> sigmoid_grad(np.array([0.0, 50.0]))
        array([2.50000000e-01, 1.92874985e-22])
    """
    place, x = _floats("sigmoid_grad", device, x)
    decay = place.xp.exp(-abs(x))
    return decay / (1 + decay) ** 2


def relu(x: Any, device: str | Device | None = None) -> Any:
    """``max(x, 0)``; NaN stays NaN.

    Args:
        x: An array, or a number.
        device: Where to compute; None follows the arrays.

    Returns:
        Floats of the shape of ``x``.

    Raises:
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.functions import relu
        >>> relu(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 2.])
    """
    place, x = _floats("relu", device, x)
    return place.xp.maximum(x, 0)


def relu_grad(x: Any, device: str | Device | None = None) -> Any:
    """Derivative of :func:`relu`: 1 where ``x`` is above 0, else 0, at 0 too, as ``Relu.backward`` has it.

    Args:
        x: An array, or a number.
        device: Where to compute; None follows the arrays.

    Returns:
        Floats of the shape of ``x``.

    Raises:
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.functions import relu_grad
        >>> relu_grad(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 1.])
    """
    _, x = _floats("relu_grad", device, x)
    return (x > 0).astype(x.dtype)


def softmax(x: Any, device: str | Device | None = None) -> Any:
    """``exp(x) / sum(exp(x))`` along the last axis, without overflow.

    Args:
        x: Scores, (..., classes).
        device: Where to compute; None follows the arrays.

    Returns:
        Probabilities, of the shape of ``x``; along the last axis they sum to 1.

    Raises:
        ValueError: ``x`` has no axis, or the last one is empty.
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.functions import softmax
        >>> softmax(np.array([0.3, 2.9, 4.0])).round(4)
        array([0.0182, 0.2452, 0.7366])
    """
    place, x = _floats("softmax", device, x)
    if x.ndim < 1 or x.shape[-1] < 1:
        raise ValueError(f"softmax: the last axis of x must hold the classes, got x.shape={x.shape}")
    weights = place.xp.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sum_squared_error(y: Any, t: Any, device: str | Device | None = None) -> float:
    """Half the sum of the squared differences, over all entries.

    Args:
        y: What a network gives, of any shape.
        t: What it should give, of the same shape.
        device: Where to compute; None follows the arrays.

    Raises:
        ValueError: The shapes differ; nothing is broadcast.
        TypeError: One of them holds something else than real numbers.

    Example:
        >>> from xpconv.scratch.functions import sum_squared_error
        >>> sum_squared_error([0.5, 0.5], [0.0, 1.0])
        0.25
    """
    return _sum_squared_error("sum_squared_error", device, y, t)


def mean_squared_error(y: Any, t: Any, device: str | Device | None = None) -> float:
    """The name of :func:`sum_squared_error` in the book's Korean edition: half the sum, and not the mean.

    Args:
        y: What a network gives, of any shape.
        t: What it should give, of the same shape.
        device: Where to compute; None follows the arrays.

    Raises:
        ValueError, TypeError: As :func:`sum_squared_error`.

    Example:
        >>> from xpconv.scratch.functions import mean_squared_error
        >>> mean_squared_error([0.5, 0.5], [0.0, 1.0])
        0.25
    """
    return _sum_squared_error("mean_squared_error", device, y, t)


def cross_entropy_error(y: Any, t: Any, device: str | Device | None = None) -> float:
    """Mean of ``-log(y[label])`` over the samples; for labels that are probabilities, of ``-sum(t * log(y))``.

    Args:
        y: Probabilities, (N, classes), as :func:`softmax` gives them; or of one sample, (classes,).
        t: Labels: classes, (N,) or (N, 1), or probabilities such as one-hot rows, (N, classes). For one sample the class,
            or its row.
        device: Where to compute; None follows the arrays.

    Raises:
        ValueError: Shapes that do not fit, labels that are none, or ``y`` not between 0 and 1.
        TypeError: Something that is no array of real numbers.

    Notes:
        A probability below the dtype's smallest normal number (1.2e-38 for float32, 2.2e-308 for float64) is taken as that
        number, so that a 0 costs 87.3 or 708.4 and not infinity. Where the scores are at hand, :func:`softmax_loss` has no
        such limit.

    Example:
        >>> from xpconv.scratch.functions import cross_entropy_error
        >>> y = [[0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0]]
        >>> round(cross_entropy_error(y, [2]), 4)
        0.5108
    """
    op = "cross_entropy_error"
    place, y = _floats(op, device, y, "y")
    y, labels = _samples(op, place, "y", y, t)
    if (y < 0).any() or (y > 1 + _ROUNDING).any():
        raise ValueError(f"{op}: y must be probabilities, got values from {y.min()} to {y.max()}; see softmax_loss for scores")
    logarithms = place.xp.log(place.xp.maximum(y, smallest_normal(y.dtype)))
    if labels.ndim == 1:
        chosen = logarithms[place.xp.arange(len(labels)), labels]
    else:
        # A NaN counts where a label asks for it only, as it does for classes.
        chosen = (labels * place.xp.where(labels > 0, logarithms, 0)).sum(axis=1)
    return float(-chosen.mean(dtype=np.float64))


def softmax_loss(X: Any, t: Any, device: str | Device | None = None) -> float:
    """Cross entropy of the softmax of scores, computed from the scores: ``mean(log(sum(exp(X))) - X[label])``.

    Args:
        X: Scores, (N, classes), or of one sample, (classes,).
        t: Labels, as for :func:`cross_entropy_error`.
        device: Where to compute; None follows the arrays.

    Raises:
        ValueError: Shapes that do not fit, or labels that are none.
        TypeError: Something that is no array of real numbers.

    Notes:
        The logarithm is never taken of a probability, so that no loss is too large to be told.

    Example:
        >>> from xpconv.scratch.functions import softmax_loss
        >>> softmax_loss([[1000.0, 0.0, 0.0]], [1])
        1000.0
    """
    op = "softmax_loss"
    place, X = _floats(op, device, X, "X")
    X, labels = _samples(op, place, "X", X, t)
    return float(place.kernels.softmax_cross_entropy_forward(X, labels)[0])


def _floats(op: str, device: str | Device | None, value: Any, name: str = "x") -> tuple[Device, Any]:
    place, (array,) = float_arrays(op, device, **{name: value})
    return place, array


def _sum_squared_error(op: str, device: str | Device | None, y: Any, t: Any) -> float:
    _, (given, wanted) = float_arrays(op, device, y=y, t=t)
    if given.shape != wanted.shape:
        raise ValueError(f"{op}: y and t must have the same shape, got y.shape={given.shape} and t.shape={wanted.shape}")
    difference = given - wanted
    return float(0.5 * (difference * difference).sum(dtype=np.float64))


def _samples(op: str, place: Device, name: str, y: Any, t: Any) -> tuple[Any, Any]:
    t = as_array(op, "t", t)
    if y.ndim == 1:
        y, t = y[None], t.reshape(1, -1)
    if y.ndim != 2 or 0 in y.shape:
        raise ValueError(f"{op}: {name} must be (N, classes), or (classes,) for one sample, got {name}.shape={y.shape}")
    return y, asarray(check_labels(op, t, *y.shape), device=place)
