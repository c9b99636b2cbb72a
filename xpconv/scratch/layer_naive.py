"""The nodes of the book's first computational graphs: a product and a sum that know their gradients."""

from __future__ import annotations

from typing import Any

__all__ = ["AddLayer", "MulLayer"]


class MulLayer:
    """The product of two numbers or arrays.

    Attributes:
        x: The first factor of the last :meth:`forward`.
        y: The second one.

    Example:
        What two apples at 100 cost with 10 % tax, and how the price changes with each of the three:

        >>> from xpconv.scratch.layer_naive import MulLayer
        >>> apples, tax = MulLayer(), MulLayer()
        >>> round(tax.forward(apples.forward(100, 2), 1.1))
        220
        >>> d_cost, d_tax = tax.backward(1)
        >>> apples.backward(d_cost), d_tax
        ((2.2, 110.00000000000001), 200)
    """

    def __init__(self) -> None:
        self.x: Any = None
        self.y: Any = None

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x * y``, and remember both.

        Args:
            x: A number, or an array.
            y: A number, or an array of the same shape.
        """
        self.x = x
        self.y = y
        return x * y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Return the gradients with respect to ``x`` and ``y``.

        Args:
            dout: Gradient of the product.

        Raises:
            RuntimeError: :meth:`forward` has not been called.
        """
        if self.x is None:
            raise RuntimeError("MulLayer.backward: call forward first, it keeps the factors")
        return dout * self.y, dout * self.x


class AddLayer:
    """The sum of two numbers or arrays.

    Example:
        >>> from xpconv.scratch.layer_naive import AddLayer
        >>> layer = AddLayer()
        >>> layer.forward(200, 450), layer.backward(1.1)
        (650, (1.1, 1.1))
    """

    def forward(self, x: Any, y: Any) -> Any:
        """Return ``x + y``.

        Args:
            x: A number, or an array.
            y: A number, or an array of the same shape.
        """
        return x + y

    def backward(self, dout: Any) -> tuple[Any, Any]:
        """Return the gradients with respect to ``x`` and ``y``: twice ``dout``.

        Args:
            dout: Gradient of the sum.
        """
        return dout * 1, dout * 1  # two new arrays, so that changing one in place leaves the other
