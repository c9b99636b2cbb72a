"""How large the initial weights are."""

from __future__ import annotations

import math

import numpy as np

# Name of a rule -> the variance that it gives to each of n inputs, times n.
VARIANCES = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}


def initial_std(op: str, weight_init_std: float | str, inputs: int) -> float:
    """Standard deviation of the initial weights of a layer.

    Args:
        op: Name of the public class, for messages.
        weight_init_std: The standard deviation itself; or ``"relu"`` or ``"he"`` for ``sqrt(2 / inputs)`` (He et al.,
            arXiv:1502.01852), ``"sigmoid"`` or ``"xavier"`` for ``sqrt(1 / inputs)`` (the book's form of Glorot and Bengio's
            rule).
        inputs: Number of inputs that each output of the layer sums.

    Raises:
        TypeError: Neither a number nor a name.
        ValueError: A negative or infinite number, or an unknown name.

    Example:
        >>> from xpconv.initializers import initial_std
        >>> initial_std("SimpleConvNet", "he", inputs=200)
        0.1
    """
    if isinstance(weight_init_std, str):
        if weight_init_std.lower() not in VARIANCES:
            raise ValueError(
                f"{op}: weight_init_std must be a number or one of {', '.join(map(repr, VARIANCES))}, got {weight_init_std!r}"
            )
        return math.sqrt(VARIANCES[weight_init_std.lower()] / inputs)
    if isinstance(weight_init_std, bool) or not isinstance(weight_init_std, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: weight_init_std must be a number or a name, got {weight_init_std!r}")
    if not 0 <= weight_init_std < math.inf:
        raise ValueError(f"{op}: weight_init_std must be at least 0 and finite, got {weight_init_std!r}")
    return float(weight_init_std)
