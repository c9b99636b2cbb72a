"""Keras' activations: each an object that can be called on an array, and that layers go forward and back through.

All of them keep the dtype, keep NaN, and have the right limits for huge and infinite inputs, without a warning on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv.arguments import boolean, finite, not_negative
from xpconv.arrays import contiguous, float_arrays
from xpconv.configuration import Described, found
from xpconv.device import Device
from xpconv.naming import resolve

Array = Any


class Activation(Described):
    """What all activations share. Derive from it for one of your own, and override :meth:`forward` and :meth:`backward`.

    Attributes:
        name: Keras' name.
        keeps_input: Whether what the activation was given is worth keeping, for ``backward`` or for a loss that can make use
            of it; else ``backward`` is given None for it.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> class Square(xc.activations.Activation):
        ...     name = "square"
        ...     def forward(self, x, place):
        ...         return x * x
        ...     def backward(self, dy, x, y, place):
        ...         return 2 * x * dy
        >>> Square()(np.array([1.0, 3.0]))
        array([1., 9.])
        >>> xc.layers.Dense(3, activation=Square()).activation
        Square()
    """

    name = "activation"
    keeps_input = True

    def __call__(self, x: Any, device: str | Device | None = None) -> Any:
        """Compute the activation of an array.

        Args:
            x: An array, or a number.
            device: Where to compute; None follows the array.

        Returns:
            Floats of the shape of ``x``; float32 and float64 are kept, integers become float32.

        Raises:
            TypeError: ``x`` holds something else than real numbers.
        """
        place, (x,) = float_arrays(self.name, device, x=x)
        with place.current():
            return self.forward(x, place)

    def forward(self, x: Array, place: Device) -> Array:
        """Compute the activation of a floating array on ``place``: a new array, or ``x`` itself where nothing is to do."""
        raise NotImplementedError(f"{type(self).__name__} must override forward")

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """Go back from the gradient of the output to that of the input.

        Args:
            dy: Gradient of the output.
            x: What ``forward`` was given; may be None unless ``keeps_input``.
            y: What ``forward`` returned.
            place: Where they are.
        """
        raise NotImplementedError(f"{type(self).__name__} must override backward")


class Linear(Activation):
    """``x`` itself.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.linear(np.array([-1.0, 2.0]))
        array([-1.,  2.])
    """

    name = "linear"
    keeps_input = False

    def forward(self, x: Array, place: Device) -> Array:
        """Return ``x``."""
        return x

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """Return ``dy``."""
        return dy


class ReLU(Activation):
    """``max(x, 0)``; or with other arguments, ``negative_slope * (x - threshold)`` up to a threshold, and a largest value.

    Args:
        negative_slope: Slope up to the threshold, at least 0.
        max_value: The largest value, at least 0; None for no such.
        threshold: Up to here, and here too, the input counts as negative; at least 0.

    Attributes:
        is_plain: Whether it is ``max(x, 0)``, which devices compute in passes of their own.

    Raises:
        TypeError, ValueError: An argument is no such number.

    Notes:
        The gradient at the threshold is that below it, and at the largest value 0.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.relu(np.array([-1.0, 0.0, 8.0]))
        array([0., 0., 8.])
        >>> xc.activations.ReLU(negative_slope=0.5, max_value=6.0)(np.array([-1.0, 0.0, 8.0]))
        array([-0.5,  0. ,  6. ])
    """

    name = "relu"

    def __init__(self, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> None:
        self.negative_slope = not_negative("ReLU", "negative_slope", negative_slope)
        self.max_value = None if max_value is None else not_negative("ReLU", "max_value", max_value)
        self.threshold = not_negative("ReLU", "threshold", threshold)
        self.is_plain = self.negative_slope == 0 and self.threshold == 0 and self.max_value is None
        self.keeps_input = not self.is_plain

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it; NaN stays NaN."""
        if self.is_plain:
            return place.kernels.relu_forward(contiguous(x, place.xp))
        xp = place.xp
        below = 0 if self.negative_slope == 0 else self.negative_slope * (x - self.threshold)
        y = xp.where(x <= self.threshold, below, x)
        return y if self.max_value is None else xp.minimum(y, self.max_value)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """The gradient, times the slope."""
        if self.is_plain:
            return place.kernels.relu_backward(contiguous(dy, place.xp), y)
        xp = place.xp
        dx = xp.where(x <= self.threshold, 0 if self.negative_slope == 0 else self.negative_slope * dy, dy)
        return dx if self.max_value is None else xp.where(x >= self.max_value, 0, dx)


class ReLU6(ReLU):
    """``min(max(x, 0), 6)``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.relu6(np.array([-1.0, 2.0, 8.0]))
        array([0., 2., 6.])
    """

    name = "relu6"

    def __init__(self) -> None:
        super().__init__(max_value=6.0)


class LeakyReLU(Activation):
    """``x`` above 0, otherwise ``negative_slope * x``.

    Args:
        negative_slope: The slope, at least 0.

    Raises:
        TypeError, ValueError: It is no such number.

    Notes:
        The default is that of Keras' activation; its layer has 0.3.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.leaky_relu(np.array([-1.0, 0.0, 2.0]))
        array([-0.2,  0. ,  2. ])
    """

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.2) -> None:
        self.negative_slope = not_negative("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        with np.errstate(invalid="ignore"):  # an infinite input times a slope of 0, where it is above 0
            return place.xp.where(x > 0, x, self.negative_slope * x)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """The gradient, times the slope."""
        with np.errstate(invalid="ignore"):
            return place.xp.where(x > 0, dy, self.negative_slope * dy)


class ELU(Activation):
    """``x`` above 0, otherwise ``alpha * (exp(x) - 1)`` (Clevert et al., arXiv:1511.07289).

    Args:
        alpha: Minus what very negative inputs give.

    Raises:
        TypeError, ValueError: It is no finite number.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.elu(np.array([-1.0, 0.0, 2.0])).round(4)
        array([-0.6321,  0.    ,  2.    ])
    """

    name = "elu"
    scale = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = finite("ELU", "alpha", alpha)

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        xp = place.xp
        y = xp.where(x > 0, x, self.alpha * xp.expm1(xp.minimum(x, 0)))
        return y if self.scale == 1 else self.scale * y

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """The gradient, times 1 above 0, otherwise ``alpha * exp(x)``."""
        xp = place.xp
        dx = dy * xp.where(x > 0, 1, self.alpha * xp.exp(xp.minimum(x, 0)))
        return dx if self.scale == 1 else self.scale * dx


class SELU(ELU):
    """ELU with the two constants that keep mean 0 and variance 1 from layer to layer (Klambauer et al., arXiv:1706.02515).

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.selu(np.array([-1.0, 0.0, 2.0])).round(4)
        array([-1.1113,  0.    ,  2.1014])
    """

    name = "selu"
    scale = 1.0507009873554805

    def __init__(self) -> None:
        super().__init__(1.6732632423543772)


class Sigmoid(Activation):
    """The logistic function ``1 / (1 + exp(-x))``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.sigmoid(np.array([-1000.0, 0.0, 2.0])).round(4)
        array([0.    , 0.5   , 0.8808])
    """

    name = "sigmoid"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        return _sigmoid(x, place)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy * y * (1 - y)``."""
        dx = 1 - y
        dx *= y
        dx *= dy
        return dx


class Tanh(Activation):
    """The hyperbolic tangent.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.tanh(np.array([-1000.0, 0.0, 1.0])).round(4)
        array([-1.    ,  0.    ,  0.7616])
    """

    name = "tanh"
    keeps_input = False

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        return place.xp.tanh(x)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy * (1 - y**2)``."""
        dx = 1 - y
        dx *= 1 + y  # exact near 1, where 1 - y**2 is not
        dx *= dy
        return dx


class Softmax(Activation):
    """``exp(x) / sum(exp(x))``: positive numbers that sum to 1.

    Args:
        axis: The axis that they sum along, or several.

    Raises:
        TypeError: It is neither an integer nor several.

    Notes:
        Along the last axis its name is ``"softmax"``: by that name a loss knows that it may start from what the activation
        was given.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.softmax(np.array([0.3, 2.9, 4.0])).round(4)
        array([0.0182, 0.2452, 0.7366])
        >>> xc.activations.Softmax(axis=0)(np.zeros((2, 3)))
        array([[0.5, 0.5, 0.5],
               [0.5, 0.5, 0.5]])
    """

    name = "softmax"

    def __init__(self, axis: int | Sequence[int] = -1) -> None:
        self.axis = _axes("Softmax", axis)
        self.name = "softmax" if axis == -1 else f"softmax(axis={axis})"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it; a row with NaN or plus infinity gives NaN."""
        y = _below_largest(x, self.axis, place)
        place.xp.exp(y, out=y)
        y /= y.sum(axis=self.axis, keepdims=True)
        return y

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``(dy - sum(dy * y)) * y``."""
        dx = dy - (dy * y).sum(axis=self.axis, keepdims=True)
        dx *= y
        return dx


class LogSoftmax(Activation):
    """``x - log(sum(exp(x)))``: the logarithm of softmax, exact however small it is.

    Args:
        axis: The axis that softmax sums along, or several.

    Raises:
        TypeError: It is neither an integer nor several.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.log_softmax(np.array([0.0, 1000.0]))
        array([-1000.,     0.])
    """

    name = "log_softmax"
    keeps_input = False

    def __init__(self, axis: int | Sequence[int] = -1) -> None:
        self.axis = _axes("LogSoftmax", axis)

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it; a row with NaN or plus infinity gives NaN."""
        y = _below_largest(x, self.axis, place)
        y -= place.xp.log(place.xp.exp(y).sum(axis=self.axis, keepdims=True))
        return y

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy - sum(dy) * exp(y)``."""
        return dy - dy.sum(axis=self.axis, keepdims=True) * place.xp.exp(y)


class Softplus(Activation):
    """``log(1 + exp(x))``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.softplus(np.array([-1000.0, 0.0, 20.0])).round(4)
        array([ 0.    ,  0.6931, 20.    ])
    """

    name = "softplus"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        xp = place.xp
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy * sigmoid(x)``."""
        return dy * _sigmoid(x, place)


class Softsign(Activation):
    """``x / (1 + abs(x))``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.softsign(np.array([-1.0, 0.0, 3.0]))
        array([-0.5 ,  0.  ,  0.75])
    """

    name = "softsign"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        x = place.xp.clip(x, -1e30, 1e30)  # further out it is 1 in any dtype, and infinity over itself would be NaN
        return x / (1 + abs(x))

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy / (1 + abs(x))**2``."""
        root = 1 / (1 + abs(x))
        return dy * root * root


class Exponential(Activation):
    """``exp(x)``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.exponential(np.array([0.0, 1.0, 1000.0])).round(4)
        array([1.    , 2.7183,    inf])
    """

    name = "exponential"
    keeps_input = False

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it; infinite where it is beyond the dtype."""
        with np.errstate(over="ignore"):
            return place.xp.exp(x)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy * y``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return dy * y


class GELU(Activation):
    """``x * P(X <= x)`` for X of a standard normal distribution (Hendrycks and Gimpel, arXiv:1606.08415).

    Args:
        approximate: Whether to take the paper's approximation by tanh, which is off by up to 0.0005.

    Notes:
        The exact form is, to the precision of the dtype, exact in the negative tail too, where forms with ``1 + erf`` lose
        all digits.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> x = np.array([-1.0, 0.0, 2.0])
        >>> xc.activations.gelu(x).round(5), xc.activations.GELU(approximate=True)(x).round(5)
        (array([-0.15866,  0.     ,  1.9545 ]), array([-0.15881,  0.     ,  1.9546 ]))
    """

    name = "gelu"

    def __init__(self, approximate: bool = False) -> None:
        self.approximate = boolean("GELU", "approximate", approximate)

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        xp = place.xp
        share = (1 + xp.tanh(_gelu_argument(x, xp))) / 2 if self.approximate else _normal_cdf(x, place)
        return xp.maximum(x, -_SATURATED) * share

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """The gradient, times the derivative."""
        xp = place.xp
        near = xp.clip(x, -_SATURATED, _SATURATED)
        if self.approximate:
            bent = xp.tanh(_gelu_argument(x, xp))
            steepness = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * near * near)
            return dy * ((1 + bent) / 2 + near * ((1 - bent) * (1 + bent) / 2 * steepness))
        return dy * (_normal_cdf(x, place) + near * (math.sqrt(0.5 / math.pi) * _decay(xp.minimum(abs(x), _FAR), xp)))


class SiLU(Activation):
    """``x * sigmoid(x)``, also called swish (Ramachandran et al., arXiv:1710.05941).

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.silu(np.array([-1.0, 0.0, 2.0])).round(4)
        array([-0.2689,  0.    ,  1.7616])
    """

    name = "silu"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        return place.xp.maximum(x, -_SATURATED) * _sigmoid(x, place)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy * s * (1 + x * (1 - s))`` with ``s = sigmoid(x)``."""
        s = _sigmoid(x, place)
        return dy * s * (1 + place.xp.clip(x, -_SATURATED, _SATURATED) * (1 - s))


class HardSigmoid(Activation):
    """``relu6(x + 3) / 6``: straight from 0 at -3 to 1 at 3.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.hard_sigmoid(np.array([-4.0, 0.0, 1.5]))
        array([0.  , 0.5 , 0.75])
    """

    name = "hard_sigmoid"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        return place.xp.clip(x + 3, 0, 6) / 6

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy / 6`` between -3 and 3, else 0."""
        return place.xp.where(abs(x) < 3, dy / 6, 0)


class HardSiLU(Activation):
    """``x * hard_sigmoid(x)``, also called hard swish (Howard et al., arXiv:1905.02244).

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.hard_silu(np.array([-4.0, 0.0, 1.5, 4.0]))
        array([-0.   ,  0.   ,  1.125,  4.   ])
    """

    name = "hard_silu"

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        return place.xp.maximum(x, -3) * (place.xp.clip(x + 3, 0, 6) / 6)

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """``dy * (2 * x + 3) / 6`` between -3 and 3, 0 below and ``dy`` above."""
        near = place.xp.clip(x, -3, 3)
        return place.xp.where(x <= -3, 0, place.xp.where(x >= 3, dy, dy * ((2 * near + 3) / 6)))


class Mish(Activation):
    """``x * tanh(softplus(x))`` (Misra, arXiv:1908.08681).

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.activations.mish(np.array([-1.0, 0.0, 2.0])).round(4)
        array([-0.3034,  0.    ,  1.944 ])
    """

    name = "mish"

    # With e = exp(x) and n = e * (e + 2), tanh(softplus(x)) is n / (n + 2): no logarithm, and no digits lost for negative x.

    def forward(self, x: Array, place: Device) -> Array:
        """Compute it."""
        e = place.xp.exp(place.xp.minimum(x, _MISH_SATURATED))
        n = e * (e + 2)
        return place.xp.maximum(x, -_SATURATED) * (n / (n + 2))

    def backward(self, dy: Array, x: Array, y: Array, place: Device) -> Array:
        """The gradient, times the derivative."""
        e = place.xp.exp(place.xp.minimum(x, _MISH_SATURATED))
        n = e * (e + 2)
        near = place.xp.clip(x, -_SATURATED, _SATURATED)
        return dy * (n / (n + 2) + near * (4 * e * (e + 1) / (n + 2) / (n + 2)))


# Where sigmoids of all kinds are 0 or 1 in any dtype, and x itself is small enough to be multiplied with that 0.
_SATURATED = 1e4
# Where tanh(softplus(x)) is 1 in any dtype, and exp(2 * x) is within float32.
_MISH_SATURATED = 40.0

# The paper's approximation is (1 + tanh(scale * (x + cubic * x**3))) / 2.
_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715

# Where the tail of the normal distribution is 0 in any dtype.
_FAR = 40.0
# (1 + 2t) * exp(t**2) * erfc(t) as a series of Chebyshev polynomials in (t - 3.75) / (t + 3.75), for all t from 0: the form of
# Shepherd and Laframboise, Mathematics of Computation 36 (1981); the coefficients are computed, with 50 digits, and rounded.
_ERFC_CENTRE = 3.75
_ERFC_SERIES = (
    1.1775789345674017,
    -0.004590054580646478,
    -0.08424913336651792,
    0.05920993999819189,
    -0.026658668435305753,
    0.009074997670705265,
    -0.002413163540417608,
    0.0004907758365258086,
    -6.916973302501206e-05,
    4.139027986073028e-06,
    7.740383066198714e-07,
    -2.1886401049231845e-07,
    1.076499946569799e-08,
    4.521959811245215e-09,
    -7.754400208580721e-10,
    -6.318088338725966e-11,
    2.8687950126091444e-11,
    1.9455869636471808e-13,
    -9.65469670491364e-13,
    3.2525479022070285e-14,
    3.3478110391819505e-14,
    -1.864577999696613e-15,
    -1.2508152132667384e-15,
    7.415845836228482e-17,
    5.0655402672535265e-17,
)
# Terms that matter to a dtype of so many bytes.
_ERFC_TERMS = {4: 14, 8: len(_ERFC_SERIES)}
# Elements that are taken through the series at a time: all that it takes stays in a core's cache.
_BLOCK = 1 << 13


def _normal_cdf(x: Array, place: Device) -> Array:
    """The probability of at most x in a standard normal distribution."""
    xp = place.xp
    if place.kind == "cuda":
        from cupyx.scipy.special import erfc

        return 0.5 * erfc(-math.sqrt(0.5) * x)
    flat = contiguous(x, xp).reshape(-1)
    cdf = np.empty_like(flat)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        size = xp.minimum(abs(part), _FAR)
        tail = _decay(size, xp) * _tail_series(size * math.sqrt(0.5)) * 0.5
        cdf[start : start + _BLOCK] = np.where(part <= 0, tail, 1 - tail)
    return cdf.reshape(x.shape)


def _tail_series(t: Array) -> Array:
    """``exp(t**2) * erfc(t)`` for t from 0, by Clenshaw's recurrence."""
    twice = (t - _ERFC_CENTRE) / (t + _ERFC_CENTRE) * 2
    later, last = np.zeros_like(t), np.zeros_like(t)
    for coefficient in reversed(_ERFC_SERIES[1 : _ERFC_TERMS[t.dtype.itemsize]]):
        term = twice * last
        term -= later
        term += coefficient
        later, last = last, term
    return (_ERFC_SERIES[0] + twice * 0.5 * last - later) / (1 + 2 * t)


def _decay(size: Array, xp: Any) -> Array:
    """``exp(-size**2 / 2)``: in two factors, so that the rounding of the square is not magnified."""
    coarse = xp.rint(size * 16) * 0.0625  # has an exact square
    return xp.exp(coarse * coarse * -0.5) * xp.exp((size - coarse) * (size + coarse) * -0.5)


def _gelu_argument(x: Array, xp: Any) -> Array:
    near = xp.clip(x, -_SATURATED, _SATURATED)
    return _GELU_SCALE * (near + _GELU_CUBIC * near * near * near)


def _sigmoid(x: Array, place: Device) -> Array:
    decay = place.xp.exp(-abs(x))
    return place.xp.where(x >= 0, 1, decay) / (1 + decay)


def _below_largest(x: Array, axis: int | tuple[int, ...], place: Device) -> Array:
    """``x - max(x)`` along axes, as a new array."""
    _check_axes(axis, x.ndim)
    if not x.size:
        return place.xp.empty_like(x)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity minus itself is NaN, and meant
        return place.xp.subtract(x, x.max(axis=axis, keepdims=True))


def _check_axes(axis: int | tuple[int, ...], ndim: int) -> None:
    if any(not -ndim <= one < ndim for one in (axis if isinstance(axis, tuple) else (axis,))):
        raise ValueError(f"softmax: axis {axis} is not there in an input of {ndim} axes")


def _axes(op: str, axis: Any) -> int | tuple[int, ...]:
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    if not axes or any(isinstance(one, bool) or not isinstance(one, (int, np.integer)) for one in axes):
        raise TypeError(f"{op}: axis must be an integer or several, got {axis!r}")
    return tuple(int(one) for one in axes) if isinstance(axis, (list, tuple)) else int(axis)


linear = Linear()
relu, relu6, leaky_relu, elu, selu = ReLU(), ReLU6(), LeakyReLU(), ELU(), SELU()
sigmoid, hard_sigmoid, tanh = Sigmoid(), HardSigmoid(), Tanh()
softmax, log_softmax = Softmax(), LogSoftmax()
softplus, softsign, exponential = Softplus(), Softsign(), Exponential()
gelu, silu, hard_silu, mish = GELU(), SiLU(), HardSiLU(), Mish()

_KNOWN: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        relu,
        relu6,
        leaky_relu,
        elu,
        selu,
        linear,
        sigmoid,
        hard_sigmoid,
        tanh,
        softmax,
        log_softmax,
        softplus,
        softsign,
        exponential,
        gelu,
        silu,
        hard_silu,
        mish,
    )
}
_CLASSES = {type(activation).__name__: type(activation) for activation in _KNOWN.values()}
_KNOWN |= {"swish": silu, "hard_swish": hard_silu}
_EXPECTED = "a name such as 'relu', an object of xpconv.activations or None"


def get(identifier: Any, op: str = "get") -> Activation:
    """Find the activation that a name, a configuration or an object stands for.

    Args:
        identifier: A name such as ``"relu"``; a dictionary with ``"class_name"`` and ``"config"``; an :class:`Activation` or
            its class; or None for :data:`linear`.
        op: Name of the caller, for messages.

    Raises:
        ValueError: An unknown name; the text tells the nearest ones.
        TypeError: Nothing that stands for an activation, such as a function: it has no way back.

    Notes:
        Keras' activations are functions with arguments; here these are the arguments of the class:
        ``activations.LeakyReLU(0.1)``.

    Example:
        >>> import xpconv as xc
        >>> xc.activations.get("relu") is xc.activations.relu, xc.activations.get(None).name
        (True, 'linear')
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        return resolve(op, "activation", identifier, _KNOWN)
    if callable(identifier) and not isinstance(identifier, (Activation, type)):
        raise TypeError(
            f"{op}: activation must be {_EXPECTED}, got {identifier!r}; derive a class from Activation, which also goes back"
        )
    return found(op, "activation", identifier, Activation, _CLASSES, _EXPECTED)


def for_loss(activation: Activation, x: Array) -> tuple[str, Array] | None:
    """An activation's name and what it was given, where a loss can start from that; else None."""
    # Of these very classes: one of the user's own may compute something else by the same name.
    is_known = type(activation) in (Softmax, Sigmoid) and activation.name in ("softmax", "sigmoid")
    return (activation.name, x) if is_known and x is not None else None
