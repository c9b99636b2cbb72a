"""Rules that turn gradients into new parameters, with the book's formulas and arguments.

An optimizer updates a dictionary of parameters in place and keeps what it has to remember, one array a parameter, until the
next update::

    optimizer = xc.Adam(lr=0.001)
    optimizer.update(params, grads)      # {"W1": array, ...}, {"W1": gradient, ...}
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from xpconv.arrays import as_array, is_floating, is_real
from xpconv.device import Device, get_device

# Keeps the divisions of AdaGrad, RMSprop and Adam away from zero; the book's value, and Keras' for Adam.
EPSILON = 1e-7


class Optimizer(ABC):
    """What all optimizers share: the learning rate, the count of updates and the state of each parameter.

    Attributes:
        lr: Learning rate; may be changed between updates.
        iteration: Number of updates so far.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = _positive(type(self).__name__, "lr", lr)
        self.iteration = 0
        self._state: dict[str, dict[str, Any]] = {}

    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any], device: str | Device | None = None) -> None:
        """Update every parameter in place.

        Args:
            params: Parameters by name; writable float arrays, or plain numbers, whose entries are replaced.
            grads: Their gradients by the same names, of the same shapes.
            device: Where to compute; None follows the arrays.

        Raises:
            ValueError: A gradient is missing, left over or of another shape, or a parameter cannot be updated.
            TypeError: A gradient is no array of real numbers. Nothing has been updated then, either.
        """
        op = f"{type(self).__name__}.update"
        if params.keys() != grads.keys():
            raise ValueError(
                f"{op}: parameters and gradients must have the same names, got {sorted(params)} and {sorted(grads)}"
            )
        arrays = {name: param if _is_array(param) else np.array(param, dtype=np.float64) for name, param in params.items()}
        checked = {}
        for name, param in arrays.items():
            if not is_floating(param.dtype) or not getattr(param.flags, "writeable", True):
                raise ValueError(f"{op}: params[{name!r}] must be a writable array of floats, got dtype {param.dtype}")
            checked[name] = grad = as_array(op, f"grads[{name!r}]", grads[name])
            if not is_real(grad.dtype):
                raise TypeError(f"{op}: grads[{name!r}] must hold real numbers, got dtype {grad.dtype}")
            if grad.shape != param.shape:
                raise ValueError(f"{op}: grads[{name!r}].shape must be {param.shape}, got {grad.shape}")
            known = self._state.get(name)
            if known is not None and any(array.shape != param.shape for array in known.values()):
                raise ValueError(f"{op}: {name!r} has the shape {param.shape}, at earlier updates it had another")
        place = get_device(device, *arrays.values(), *checked.values())
        self.iteration += 1
        with place.current():
            for name, param in arrays.items():
                if name not in self._state:
                    self._state[name] = {slot: place.xp.zeros_like(param) for slot in self.slots}
                self._apply(place.kernels, param, checked[name], self._state[name])
                if param is not params[name]:
                    params[name] = float(param)

    def hyperparameters(self) -> dict[str, float]:
        """The arguments that this optimizer was made with, by name, as they stand now."""
        return {"lr": self.lr}

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer remembers, as arrays: ``"m/W1"`` for slot m of parameter W1, and ``"iteration"``.

        Returns:
            Copies; a later update doesn't change them.

        Example:
            >>> import numpy as np, xpconv as xc
            >>> optimizer = xc.Momentum()
            >>> optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})
            >>> optimizer.state_dict()
            {'iteration': array(1), 'v/W': array([-0.01, -0.01])}
        """
        arrays = {f"{slot}/{name}": array.copy() for name, state in self._state.items() for slot, array in state.items()}
        return {"iteration": np.array(self.iteration), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` of an optimizer of the same class returned.

        Raises:
            ValueError: Entries of another class of optimizer, or of some slots only.
        """
        loaded: dict[str, dict[str, Any]] = {}
        for key, array in state.items():
            slot, _, name = key.partition("/")
            if key != "iteration":
                loaded.setdefault(name, {})[slot] = array.copy()
        if "iteration" not in state or any(set(slots) != set(self.slots) for slots in loaded.values()):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: expected 'iteration' and the slots {self.slots} of every "
                f"parameter, got {sorted(state)}"
            )
        self.iteration = int(state["iteration"])
        self._state = loaded

    @abstractmethod
    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        """Update one parameter and its state in place."""

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.hyperparameters().items())
        return f"{type(self).__name__}({arguments})"


class SGD(Optimizer):
    """Stochastic gradient descent: ``W -= lr * dW``.

    Args:
        lr: Learning rate.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> xc.SGD(lr=0.5).update(params, {"W": np.array([1.0, -1.0])})
        >>> params["W"]
        array([0.5, 2.5])
    """

    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        kernels.sgd_update(param, grad, self.lr)


class Momentum(Optimizer):
    """Descent with inertia: ``v = momentum * v - lr * dW``, ``W += v``.

    Args:
        lr: Learning rate.
        momentum: How much of the last step is kept, 0 to 1.
    """

    slots = ("v",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = _fraction(type(self).__name__, "momentum", momentum)

    def hyperparameters(self) -> dict[str, float]:
        """The arguments that this optimizer was made with, by name, as they stand now."""
        return {"lr": self.lr, "momentum": self.momentum}

    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        kernels.momentum_update(param, grad, state["v"], self.lr, self.momentum)


class Nesterov(Momentum):
    """Nesterov's accelerated gradient, in the form that needs the gradient at ``W`` only.

    ``v = momentum * v - lr * dW``, ``W += momentum * v - lr * dW`` (Bengio et al., arXiv:1212.0901).

    Args:
        lr: Learning rate.
        momentum: How much of the last step is kept, 0 to 1.
    """

    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        kernels.nesterov_update(param, grad, state["v"], self.lr, self.momentum)


class AdaGrad(Optimizer):
    """A learning rate for each element, falling with the squares of its gradients so far.

    ``h += dW ** 2``, ``W -= lr * dW / (sqrt(h) + 1e-7)`` (Duchi et al., JMLR 12, 2011).

    Args:
        lr: Learning rate.
    """

    slots = ("h",)

    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        kernels.adagrad_update(param, grad, state["h"], self.lr, EPSILON)


class RMSprop(Optimizer):
    """AdaGrad that forgets: ``h = decay_rate * h + (1 - decay_rate) * dW ** 2``, ``W -= lr * dW / (sqrt(h) + 1e-7)``.

    Args:
        lr: Learning rate.
        decay_rate: How much of the mean square is kept, 0 to 1.
    """

    slots = ("h",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = _fraction(type(self).__name__, "decay_rate", decay_rate)

    def hyperparameters(self) -> dict[str, float]:
        """The arguments that this optimizer was made with, by name, as they stand now."""
        return {"lr": self.lr, "decay_rate": self.decay_rate}

    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        kernels.rmsprop_update(param, grad, state["h"], self.lr, self.decay_rate, EPSILON)


class Adam(Optimizer):
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
        self.beta1 = _fraction(type(self).__name__, "beta1", beta1)
        self.beta2 = _fraction(type(self).__name__, "beta2", beta2)

    def hyperparameters(self) -> dict[str, float]:
        """The arguments that this optimizer was made with, by name, as they stand now."""
        return {"lr": self.lr, "beta1": self.beta1, "beta2": self.beta2}

    def _apply(self, kernels: ModuleType, param: Any, grad: Any, state: dict[str, Any]) -> None:
        corrected = self.lr * math.sqrt(1 - self.beta2**self.iteration) / (1 - self.beta1**self.iteration)
        kernels.adam_update(param, grad, state["m"], state["v"], corrected, self.beta1, self.beta2, EPSILON)


def _is_array(param: Any) -> bool:
    return hasattr(param, "shape") and not isinstance(param, np.generic)


def _positive(op: str, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{op}: {name} must be a positive number, got {value!r}")
    return float(value)


def _fraction(op: str, name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{op}: {name} must be at least 0 and less than 1, got {value!r}")
    return float(value)
