"""Activations as layers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import DTypeLike

from xpconv import activations
from xpconv.device import Device
from xpconv.layers.layer import Layer
from xpconv.layers.tape import Run

Array = Any


class Activation(Layer):
    """An activation as a layer of its own.

    Args:
        activation: A name or an object of :mod:`xpconv.activations`.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: A wrong argument.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Activation("relu")(np.array([[-1.0, 2.0]]))
        array([[0., 2.]], dtype=float32)
    """

    def __init__(
        self,
        activation: Any,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        self.activation = activations.get(activation, op=type(self).__name__)

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        """Compute the activation."""
        y = self.activation.forward(x, run.device)
        return y, (x if self.activation.keeps_input else None, y) if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """Go back through the activation."""
        x, y = saved
        return self.activation.backward(dy, x, y, run.device) if input_gradient else None, []

    def differentiate_before_activation(
        self, saved: Any, dz: Array, run: Run, input_gradient: bool
    ) -> tuple[Array, list[Array]]:
        """The gradient of what the activation was given is that of the layer's input."""
        return dz if input_gradient else None, []

    def before_activation(self, saved: Any) -> tuple[str, Array] | None:
        """Name of the activation and what it was given, for a loss that starts from there."""
        return activations.for_loss(self.activation, saved[0])


class ReLU(Activation):
    """``max(x, 0)``; or with other arguments, ``negative_slope * (x - threshold)`` up to a threshold, and a largest value.

    Args:
        max_value: The largest value, at least 0; None for no such.
        negative_slope: Slope up to the threshold, at least 0.
        threshold: Up to here, and here too, the input counts as negative; at least 0.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: A wrong argument.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.ReLU(max_value=6, negative_slope=0.5)(np.array([[-1.0, 2.0, 8.0]]))
        array([[-0.5,  2. ,  6. ]], dtype=float32)
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        activation = activations.ReLU(negative_slope, max_value, threshold)
        super().__init__(activation, name=name, dtype=dtype, trainable=trainable, device=device)


class LeakyReLU(Activation):
    """``x`` above 0, otherwise ``negative_slope * x``.

    Args:
        negative_slope: The slope, at least 0. (The activation of the name ``"leaky_relu"`` has 0.2, as in Keras.)
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: A wrong argument.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.LeakyReLU()(np.array([[-1.0, 2.0]]))
        array([[-0.3,  2. ]], dtype=float32)
    """

    def __init__(
        self,
        negative_slope: float = 0.3,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        activation = activations.LeakyReLU(negative_slope)
        super().__init__(activation, name=name, dtype=dtype, trainable=trainable, device=device)


class ELU(Activation):
    """``x`` above 0, otherwise ``alpha * (exp(x) - 1)``.

    Args:
        alpha: Minus what very negative inputs give.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: A wrong argument.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.ELU(alpha=2.0)(np.array([[-1000.0, 2.0]]))
        array([[-2.,  2.]], dtype=float32)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(activations.ELU(alpha), name=name, dtype=dtype, trainable=trainable, device=device)


class Softmax(Activation):
    """``exp(x) / sum(exp(x))``: positive numbers that sum to 1.

    Args:
        axis: The axis that they sum along, or several.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: A wrong argument; when called, an input that does not have the axis.

    Notes:
        Differences from Keras: there is no mask.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Softmax()(np.array([[0.0, 0.0], [0.0, 1000.0]]))
        array([[0.5, 0.5],
               [0. , 1. ]], dtype=float32)
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(activations.Softmax(axis), name=name, dtype=dtype, trainable=trainable, device=device)
