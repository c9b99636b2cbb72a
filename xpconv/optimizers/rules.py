"""The optimizers of the Keras front end: Keras 3's formulas, arguments and defaults."""

from __future__ import annotations

from typing import Any

from xpconv.arguments import boolean, fraction, fraction_or_one, not_negative
from xpconv.device import Device
from xpconv.optimizers.optimizer import EPSILON, Optimizer, bias_corrected
from xpconv.optimizers.schedules import LearningRateSchedule


class SGD(Optimizer):
    """Gradient descent, with momentum if there is to be one.

    Without: ``w -= learning_rate * g``. With it: ``v = momentum * v - learning_rate * g`` and ``w += v``, or with
    ``nesterov`` ``w += momentum * v - learning_rate * g`` (Bengio et al., arXiv:1212.0901).

    Args:
        learning_rate: As for :class:`xpconv.optimizers.Optimizer`, as are all arguments that are not listed here.
        momentum: How much of the last step is kept, 0 to 1.
        nesterov: Whether the gradient counts as one taken ahead of the point.
        weight_decay: See there.
        clipnorm: See there.
        clipvalue: See there.
        global_clipnorm: See there.
        name: See there.

    Raises:
        ValueError, TypeError: As :class:`xpconv.optimizers.Optimizer`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> xc.SGD(learning_rate=0.5).update(params, {"W": np.array([1.0, -1.0])})
        >>> params["W"]
        array([0.5, 2.5])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name)
        self.momentum = fraction_or_one(type(self).__name__, "momentum", momentum)
        self.nesterov = boolean(type(self).__name__, "nesterov", nesterov)
        self.slots = ("momentum",) if self.momentum else ()

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its momentum in place."""
        if not self.momentum:
            place.kernels.sgd_update(param, grad, rate)
        elif self.nesterov:
            place.kernels.nesterov_update(param, grad, state["momentum"], rate, self.momentum)
        else:
            place.kernels.momentum_update(param, grad, state["momentum"], rate, self.momentum)


class Adam(Optimizer):
    """Steps as large as the mean gradient is against its size, both corrected for starting at zero (arXiv:1412.6980).

    ``m`` and ``v`` are decaying means of ``g`` and ``g ** 2``;
    ``w -= learning_rate * sqrt(1 - beta_2 ** t) / (1 - beta_1 ** t) * m / (sqrt(v) + epsilon)``. The epsilon stands outside
    the correction; PyTorch puts it inside.

    Args:
        learning_rate: As for :class:`xpconv.optimizers.Optimizer`, as are all arguments that are not listed here.
        beta_1: Decay of the mean gradient, 0 to 1.
        beta_2: Decay of the mean square, 0 to 1.
        epsilon: What keeps the division away from zero.
        amsgrad: Whether to divide by the largest ``v`` so far (Reddi et al., arXiv:1904.09237).
        weight_decay: See there.
        clipnorm: See there.
        clipvalue: See there.
        global_clipnorm: See there.
        name: See there.

    Raises:
        ValueError, TypeError: As :class:`xpconv.optimizers.Optimizer`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> xc.Adam(learning_rate=0.5).update(params, {"W": np.array([10.0, -0.1])})
        >>> params["W"].round(4)
        array([0.5, 2.5])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = EPSILON,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name)
        op = type(self).__name__
        self.beta_1 = fraction(op, "beta_1", beta_1)
        self.beta_2 = fraction(op, "beta_2", beta_2)
        self.epsilon = not_negative(op, "epsilon", epsilon)
        self.amsgrad = boolean(op, "amsgrad", amsgrad)
        self.slots = ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")

    def step_size(self, rate: float) -> float:
        """The learning rate, corrected for means that started at zero."""
        return bias_corrected(rate, self.beta_1, self.beta_2, self.iteration)

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its means in place."""
        mean, squares = state["momentum"], state["velocity"]
        if not self.amsgrad:
            place.kernels.adam_update(param, grad, mean, squares, rate, self.beta_1, self.beta_2, self.epsilon)
            return
        work = grad - mean
        work *= 1 - self.beta_1
        mean += work
        work = grad * grad
        work -= squares
        work *= 1 - self.beta_2
        squares += work
        largest = state["velocity_hat"]
        largest[...] = place.xp.maximum(largest, squares)
        _step(param, mean, largest, rate, self.epsilon, place.xp)


class AdamW(Adam):
    """Adam with weight decay (Loshchilov and Hutter, arXiv:1711.05101).

    Args:
        learning_rate: As for :class:`xpconv.optimizers.Adam`, as are all arguments that are not listed here.
        weight_decay: Before each step ``w -= learning_rate * weight_decay * w``.
        beta_1: See there.
        beta_2: See there.
        epsilon: See there.
        amsgrad: See there.
        clipnorm: See there.
        clipvalue: See there.
        global_clipnorm: See there.
        name: See there.

    Raises:
        ValueError, TypeError: As :class:`xpconv.optimizers.Optimizer`; ``weight_decay`` must be a number.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> params = {"W": np.array([1.0])}
        >>> xc.AdamW(learning_rate=0.5, weight_decay=0.5).update(params, {"W": np.array([0.0])})
        >>> params["W"]
        array([0.75])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = EPSILON,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            not_negative(type(self).__name__, "weight_decay", weight_decay),
            clipnorm,
            clipvalue,
            global_clipnorm,
            name=name,
        )


class RMSprop(Optimizer):
    """Steps that are divided by the size that gradients have had of late.

    ``v = rho * v + (1 - rho) * g ** 2`` and ``w -= learning_rate * g / sqrt(v + epsilon)``. With a momentum
    ``m = momentum * m + learning_rate * g / sqrt(v + epsilon)`` and ``w -= m``. (Hinton's lecture 6e of 2012.)

    Args:
        learning_rate: As for :class:`xpconv.optimizers.Optimizer`, as are all arguments that are not listed here.
        rho: How much of the mean square is kept, 0 to 1.
        momentum: How much of the last step is kept, 0 to 1.
        epsilon: What keeps the division away from zero.
        centered: Whether to divide by the root of the variance, ``v`` less the square of the mean gradient.
        weight_decay: See there.
        clipnorm: See there.
        clipvalue: See there.
        global_clipnorm: See there.
        name: See there.

    Raises:
        ValueError, TypeError: As :class:`xpconv.optimizers.Optimizer`.

    Notes:
        The epsilon stands inside the root, as in Keras; the book and PyTorch have it outside. A variance that rounding makes
        negative, as that of a gradient that stays the same, counts as zero; Keras takes its root, which is NaN.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> xc.RMSprop(learning_rate=0.5, rho=0.75).update(params, {"W": np.array([10.0, -10.0])})
        >>> params["W"].round(4)
        array([0., 3.])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = EPSILON,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name)
        op = type(self).__name__
        self.rho = fraction(op, "rho", rho)
        self.momentum = fraction_or_one(op, "momentum", momentum)
        self.epsilon = not_negative(op, "epsilon", epsilon)
        self.centered = boolean(op, "centered", centered)
        used = {"velocity": True, "momentum": self.momentum > 0, "average_gradient": self.centered}
        self.slots = tuple(slot for slot, is_used in used.items() if is_used)

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its means in place."""
        squares = state["velocity"]
        work = grad * grad
        work *= 1 - self.rho
        squares *= self.rho
        squares += work
        scale = squares
        if self.centered:
            mean = state["average_gradient"]
            work = grad * (1 - self.rho)
            mean *= self.rho
            mean += work
            scale = place.xp.maximum(squares - mean * mean, 0)
        step = grad * rate
        step /= place.xp.sqrt(scale + self.epsilon)
        if self.momentum:
            momentum = state["momentum"]
            momentum *= self.momentum
            momentum += step
            step = momentum
        param -= step


class Adagrad(Optimizer):
    """A learning rate for each element, falling with the squares of its gradients so far (Duchi et al., JMLR 12, 2011).

    ``a += g ** 2`` and ``w -= learning_rate * g / sqrt(a + epsilon)``.

    Args:
        learning_rate: As for :class:`xpconv.optimizers.Optimizer`, as are all arguments that are not listed here. This
            optimizer takes large ones; the paper's is 1.
        initial_accumulator_value: What ``a`` is at first.
        epsilon: What keeps the division away from zero.
        weight_decay: See there.
        clipnorm: See there.
        clipvalue: See there.
        global_clipnorm: See there.
        name: See there.

    Raises:
        ValueError, TypeError: As :class:`xpconv.optimizers.Optimizer`.

    Notes:
        The epsilon stands inside the root, as in Keras; the book and PyTorch have it outside, and start at zero.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> xc.Adagrad(learning_rate=0.5).update(params, {"W": np.array([10.0, -10.0])})
        >>> params["W"].round(2)
        array([0.5, 2.5])
    """

    slots = ("accumulator",)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = EPSILON,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name=name)
        op = type(self).__name__
        self.initial_accumulator_value = not_negative(op, "initial_accumulator_value", initial_accumulator_value)
        self.epsilon = not_negative(op, "epsilon", epsilon)
        self.initial_slot_value = self.initial_accumulator_value

    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and its sum of squares in place."""
        squares = state["accumulator"]
        squares += grad * grad
        step = grad * rate
        step /= place.xp.sqrt(squares + self.epsilon)
        param -= step


def _step(param: Any, direction: Any, squares: Any, rate: float, epsilon: float, xp: Any) -> None:
    step = direction * rate
    step /= xp.sqrt(squares) + epsilon
    param -= step
