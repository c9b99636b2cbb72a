"""The book's ``common/optimizer.py``: its classes, arguments and formulas, over the engine of :mod:`xpconv.optimizers`."""

from __future__ import annotations

from typing import Any

from xpconv.arguments import fraction, not_negative, positive
from xpconv.device import Device
from xpconv.optimizers.optimizer import EPSILON, Optimizer, bias_corrected

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"]


class _BookOptimizer(Optimizer):
    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(positive(type(self).__name__, "lr", lr))

    @property
    def lr(self) -> float:
        """Learning rate; may be changed between updates."""
        return self.learning_rate

    @lr.setter
    def lr(self, lr: float) -> None:
        self.learning_rate = not_negative(type(self).__name__, "lr", lr)


class SGD(_BookOptimizer):
    """Stochastic gradient descent: ``W -= lr * dW``.

    Args:
        lr: Learning rate.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.optimizer import SGD
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> SGD(lr=0.5).update(params, {"W": np.array([1.0, -1.0])})
        >>> params["W"]
        array([0.5, 2.5])
    """

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter in place."""
        place.kernels.sgd_update(param, grad, rate)


class Momentum(_BookOptimizer):
    """Descent with inertia: ``v = momentum * v - lr * dW``, ``W += v``.

    Args:
        lr: Learning rate.
        momentum: How much of the last step is kept, 0 to 1.
    """

    slots = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = fraction(type(self).__name__, "momentum", momentum)

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its velocity in place."""
        place.kernels.momentum_update(param, grad, state["v"], rate, self.momentum)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient, in the form that needs the gradient at ``W`` only.

    ``v = momentum * v - lr * dW``, ``W += momentum * v - lr * dW`` (Bengio et al., arXiv:1212.0901).

    Args:
        lr: Learning rate.
        momentum: How much of the last step is kept, 0 to 1.
    """

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its velocity in place."""
        place.kernels.nesterov_update(param, grad, state["v"], rate, self.momentum)


class AdaGrad(_BookOptimizer):
    """A learning rate for each element, falling with the squares of its gradients so far.

    ``h += dW ** 2``, ``W -= lr * dW / (sqrt(h) + 1e-7)`` (Duchi et al., JMLR 12, 2011).

    Args:
        lr: Learning rate.
    """

    slots = ("h",)

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its sum of squares in place."""
        place.kernels.adagrad_update(param, grad, state["h"], rate, EPSILON)


class RMSprop(_BookOptimizer):
    """AdaGrad that forgets: ``h = decay_rate * h + (1 - decay_rate) * dW ** 2``, ``W -= lr * dW / (sqrt(h) + 1e-7)``.

    Args:
        lr: Learning rate.
        decay_rate: How much of the mean square is kept, 0 to 1.
    """

    slots = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = fraction(type(self).__name__, "decay_rate", decay_rate)

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its mean square in place."""
        place.kernels.rmsprop_update(param, grad, state["h"], rate, self.decay_rate, EPSILON)


class Adam(_BookOptimizer):
    """Momentum and RMSprop in one, both corrected for starting at zero (Kingma and Ba, arXiv:1412.6980).

    ``m`` and ``v`` are decaying means of ``dW`` and ``dW ** 2``;
    ``W -= lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t) * m / (sqrt(v) + 1e-7)``. The small number stands outside the
    correction, as in the book and in Keras; PyTorch puts it inside.

    Args:
        lr: Learning rate.
        beta1: Decay of the mean gradient, 0 to 1.
        beta2: Decay of the mean square, 0 to 1.
    """

    slots = ("m", "v")

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1 = fraction(type(self).__name__, "beta1", beta1)
        self.beta2 = fraction(type(self).__name__, "beta2", beta2)

    def step_size(self, rate: float) -> float:
        """The learning rate, corrected for means that started at zero."""
        return bias_corrected(rate, self.beta1, self.beta2, self.iteration)

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its means in place."""
        place.kernels.adam_update(param, grad, state["m"], state["v"], rate, self.beta1, self.beta2, EPSILON)
