"""Rules that turn gradients into new parameters, as Keras has them.

An optimizer updates a dictionary of parameters in place and keeps what it has to remember, one array a parameter and slot,
until the next update::

    optimizer = xc.Adam(learning_rate=0.001)
    optimizer.update(params, grads)      # {"conv2d/kernel": array, ...}, {"conv2d/kernel": gradient, ...}

The book's optimizers, with ``lr=`` and the book's formulas, are in :mod:`xpconv.scratch.optimizer`.
"""

from __future__ import annotations

from typing import Any

from xpconv.configuration import found
from xpconv.optimizers import schedules
from xpconv.optimizers.optimizer import Optimizer
from xpconv.optimizers.rules import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "schedules"]

_KNOWN: dict[str, type[Optimizer]] = {rule.__name__.lower(): rule for rule in (SGD, Adam, AdamW, RMSprop, Adagrad)}
_EXPECTED = (
    "a name such as 'adam', an object such as xpconv.Adam(learning_rate=0.001), or a dictionary of its 'class_name' and "
    "'config'"
)


def get(identifier: Any, op: str = "get") -> Optimizer:
    """Find the optimizer that a name, a configuration or an object stands for.

    Args:
        identifier: ``"sgd"``, ``"adam"``, ``"adamw"``, ``"rmsprop"`` or ``"adagrad"``, in any case, for one with the default
            arguments; ``{"class_name": "Adam", "config": {...}}``; or an optimizer, which is returned as it is.
        op: Name of the public function or class, for messages.

    Raises:
        ValueError: There is no optimizer of this name; the text tells the nearest ones.
        TypeError: ``identifier`` is none of these.

    Example:
        >>> import xpconv as xc
        >>> xc.optimizers.get("adam")
        Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07, amsgrad=False)
        >>> xc.optimizers.get({"class_name": "SGD", "config": {"learning_rate": 0.5}})
        SGD(learning_rate=0.5, momentum=0.0, nesterov=False)
    """
    if isinstance(identifier, type):  # one that is made twice remembers nothing the second time
        raise TypeError(f"{op}: optimizer must be {_EXPECTED}, got {identifier!r}; make one: {identifier.__name__}()")
    if isinstance(identifier, str):
        identifier = _known_name(identifier)
    elif isinstance(identifier, dict) and "class_name" in identifier:
        identifier = {**identifier, "class_name": _known_name(identifier["class_name"])}
    return found(op, "optimizer", identifier, Optimizer, _KNOWN, _EXPECTED)


def _known_name(name: Any) -> Any:
    return name.lower() if isinstance(name, str) and name.lower() in _KNOWN else name
