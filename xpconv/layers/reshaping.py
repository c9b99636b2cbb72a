"""Layers that give the same numbers another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.geometry import check_data_format, integer
from xpconv.layers.layer import Layer, Shape
from xpconv.layers.tape import Run

Array = Any


class Flatten(Layer):
    """All axes but the first in one: (N, H, W, C) becomes (N, H * W * C), without a copy.

    Args:
        data_format: ``"channels_last"``, which None stands for; or ``"channels_first"``: images (N, C, H, W) are flattened in
            the order (H, W, C) nevertheless, as in Keras, so that the weights of what follows fit both.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's. Integers stay integers.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        ValueError: An unknown ``data_format``; when called, an input without axes.

    Notes:
        An input (N,) gives an output (N, 1).

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Flatten()(np.zeros((2, 4, 4, 3))).shape
        (2, 48)
        >>> xc.layers.Flatten("channels_first")(np.array([[[1, 2], [10, 20]]]))
        array([[ 1, 10,  2, 20]])
    """

    keeps_integers = True

    def __init__(
        self,
        data_format: str | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        self.data_format = check_data_format("Flatten", "channels_last" if data_format is None else data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(N, ...) becomes (N, product of the others); None where one of them is."""
        if not input_shape:
            raise ValueError("the input must have at least one axis")
        return (input_shape[0], _product(input_shape[1:]))

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        """Flatten; what is flat already is returned as it is."""
        if x.ndim == 2:
            return x, None
        last = x if self.data_format == "channels_last" or x.ndim < 3 else run.device.xp.moveaxis(x, 1, -1)
        return last.reshape(self.compute_output_shape(x.shape)), last.shape

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """The gradient in the shape of the input."""
        if not input_gradient or saved is None:
            return dy, []
        last = dy.reshape(saved)
        return last if self.data_format == "channels_last" or last.ndim < 3 else run.device.xp.moveaxis(last, -1, 1), []


class Reshape(Layer):
    """Every sample in another shape, without a copy.

    Args:
        target_shape: The new shape, without the batch; one of its sizes may be -1, for what is left.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's. Integers stay integers.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: ``target_shape`` is no such shape; when called, an input that does not fill it.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Reshape((28, 28, 1))(np.zeros((8, 784))).shape
        (8, 28, 28, 1)
        >>> xc.layers.Reshape((-1, 2))(np.zeros((8, 6))).shape
        (8, 3, 2)
    """

    keeps_integers = True

    def __init__(
        self,
        target_shape: Sequence[int],
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        try:
            sizes = tuple(target_shape)
        except TypeError:
            raise TypeError(f"Reshape: target_shape must be a tuple of integers, got {target_shape!r}") from None
        self.target_shape = tuple(integer("Reshape", "each size of target_shape", size, -1) for size in sizes)
        if self.target_shape.count(-1) > 1:
            raise ValueError(f"Reshape: only one size of target_shape may be -1, got {target_shape!r}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(N, ...) becomes (N, *target_shape), with None for -1 where the input has a None."""
        if not input_shape:
            raise ValueError("the input must have at least one axis")
        size = _product(input_shape[1:])
        if size is None:
            return (input_shape[0], *(None if axis == -1 else axis for axis in self.target_shape))
        rest = math.prod(axis for axis in self.target_shape if axis != -1)
        if -1 not in self.target_shape:
            if rest != size:
                raise ValueError(f"target_shape {self.target_shape} holds {rest} numbers a sample, and the input has {size}")
            return (input_shape[0], *self.target_shape)
        if not rest or size % rest:
            raise ValueError(
                f"target_shape {self.target_shape} holds a multiple of {rest} numbers a sample, and the input has {size}"
            )
        return (input_shape[0], *(size // rest if axis == -1 else axis for axis in self.target_shape))

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        """Reshape; what has the shape already is returned as it is."""
        shape = self.compute_output_shape(x.shape)
        return (x if shape == x.shape else x.reshape(shape)), x.shape

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """The gradient in the shape of the input."""
        return dy.reshape(saved) if input_gradient else None, []


def _product(sizes: Shape) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
