"""What the size of a weight adds to the loss that training makes small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.arguments import not_negative
from xpconv.arrays import as_array
from xpconv.configuration import Described, found
from xpconv.device import on_its_card

Array = Any


class Regularizer(Described):
    """What all regularizers share. Derive from it for one of your own, and override :meth:`__call__` and :meth:`gradient`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> class Spread(xc.regularizers.Regularizer):
        ...     def __call__(self, w):
        ...         return 0.5 * ((w - w.mean()) ** 2).sum()
        ...     def gradient(self, w):
        ...         return w - w.mean()
        >>> Spread()(np.array([1.0, 3.0]))
        np.float64(1.0)
    """

    def __call__(self, w: Array) -> Any:
        """The penalty of a weight: a number, or an array without axes, of the weight's dtype."""
        raise NotImplementedError(f"{type(self).__name__} must override __call__")

    def gradient(self, w: Array) -> Array:
        """The gradient of the penalty with respect to the weight: of its shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__} must override gradient")


class L1(Regularizer):
    """``l1 * sum(abs(w))``: drives weights to zero. The gradient at zero is zero.

    Args:
        l1: The factor, at least 0.

    Raises:
        TypeError, ValueError: ``l1`` is no number, or negative or not finite.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> penalty = xc.regularizers.L1(0.5)
        >>> penalty(np.array([1.0, -2.0]))
        np.float64(1.5)
        >>> penalty.gradient(np.array([1.0, -2.0]))
        array([ 0.5, -0.5])
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = not_negative("L1", "l1", l1)

    @on_its_card
    def __call__(self, w: Array) -> Any:
        """The penalty of a weight."""
        return _l1(as_array("L1", "w", w), self.l1)

    @on_its_card
    def gradient(self, w: Array) -> Array:
        """``l1 * sign(w)``."""
        return self.l1 * np.sign(as_array("L1", "w", w))


class L2(Regularizer):
    """``l2 * sum(w**2)``: keeps weights small; what is called weight decay is often half of it.

    Args:
        l2: The factor, at least 0.

    Raises:
        TypeError, ValueError: ``l2`` is no number, or negative or not finite.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> penalty = xc.regularizers.L2(0.5)
        >>> penalty(np.array([1.0, -2.0]))
        np.float64(2.5)
        >>> penalty.gradient(np.array([1.0, -2.0]))
        array([ 1., -2.])
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = not_negative("L2", "l2", l2)

    @on_its_card
    def __call__(self, w: Array) -> Any:
        """The penalty of a weight."""
        return _l2(as_array("L2", "w", w), self.l2)

    @on_its_card
    def gradient(self, w: Array) -> Array:
        """``2 * l2 * w``."""
        return 2 * self.l2 * as_array("L2", "w", w)


class L1L2(Regularizer):
    """``l1 * sum(abs(w)) + l2 * sum(w**2)``.

    Args:
        l1: Factor of the first, at least 0.
        l2: Factor of the second, at least 0.

    Raises:
        TypeError, ValueError: A factor is no number, or negative or not finite.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.regularizers.L1L2(l1=1.0, l2=0.5)(np.array([1.0, -2.0]))
        np.float64(5.5)
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = not_negative("L1L2", "l1", l1), not_negative("L1L2", "l2", l2)

    @on_its_card
    def __call__(self, w: Array) -> Any:
        """The penalty of a weight."""
        w = as_array("L1L2", "w", w)
        return _l1(w, self.l1) + _l2(w, self.l2)

    @on_its_card
    def gradient(self, w: Array) -> Array:
        """``l1 * sign(w) + 2 * l2 * w``."""
        w = as_array("L1L2", "w", w)
        gradient = self.l1 * np.sign(w)
        gradient += 2 * self.l2 * w
        return gradient


# Keras' other names of the classes.
l1, l2, l1_l2 = L1, L2, L1L2

_CLASSES: dict[str, type[Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": L1L2, "L1": L1, "L2": L2, "L1L2": L1L2}
# What a name alone stands for. The default factors of L1L2 are 0, and a name must not ask for nothing.
_BY_NAME: dict[str, Callable[[], Regularizer]] = {**_CLASSES, **dict.fromkeys(("l1_l2", "L1L2"), lambda: L1L2(0.01, 0.01))}


def get(identifier: Any, op: str = "get", argument: str = "regularizer") -> Regularizer | None:
    """Find the regularizer that a name, a configuration or an object stands for.

    Args:
        identifier: ``"l1"``, ``"l2"`` or ``"l1_l2"``, with factors of 0.01; a class; a dictionary with ``"class_name"`` and
            ``"config"``; a :class:`Regularizer`; or None.
        op: Name of the caller, for messages.
        argument: Name of its argument, for messages.

    Returns:
        The regularizer, or None for None.

    Raises:
        ValueError: An unknown name; the text tells the nearest ones.
        TypeError: Nothing that stands for a regularizer.

    Notes:
        Keras' documentation gives ``"l1_l2"`` the factors 0.01 too, but Keras 3.15 knows no such name, and its ``"l1l2"`` has
        the factors 0.

    Example:
        >>> import xpconv as xc
        >>> xc.regularizers.get("l2"), xc.regularizers.get({"class_name": "L1", "config": {"l1": 0.5}})
        (L2(l2=0.01), L1(l1=0.5))
    """
    if identifier is None:
        return None
    return found(
        op, argument, identifier, Regularizer, _CLASSES, "a name such as 'l2', a Regularizer or None", by_name=_BY_NAME
    )


def _l1(w: Array, factor: float) -> Any:
    return factor * abs(w).sum()


def _l2(w: Array, factor: float) -> Any:
    with np.errstate(over="ignore"):  # the square of a huge weight is infinite, and so is the penalty
        return factor * (w * w).sum()
