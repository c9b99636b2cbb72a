"""Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv.arguments import fraction_or_one
from xpconv.device import Device, asarray
from xpconv.geometry import integer
from xpconv.layers.layer import Layer, Shape
from xpconv.layers.tape import Run

Array = Any


class Dropout(Layer):
    """Set random numbers to 0 in training, and scale the others so that the mean stays (Srivastava et al., JMLR 15, 2014).

    Args:
        rate: Share of the numbers that is set to 0, from 0 to 1.
        noise_shape: Shape of what is drawn, spread over the input: ``(None, 1, 1, None)`` drops whole channels of images (N,
            H, W, C). None, here and as one of the sizes, stands for the input's.
        seed: Seed of the layer's own random numbers; None takes the model's, or NumPy's global generator.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: As of every layer; there is nothing to train.
        device: Where to compute; None follows the model, or the input.

    Raises:
        TypeError, ValueError: A wrong argument; when called, an input that ``noise_shape`` does not fit.

    Notes:
        It is drawn on the host by NumPy, so that the same numbers are dropped on every device. They are others than Keras
        drops with the same seed.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Dropout(0.5, seed=0)(np.ones((1, 6)), training=True)
        array([[2., 0., 0., 0., 2., 2.]], dtype=float32)
        >>> xc.layers.Dropout(0.5)(np.ones((1, 3)))
        array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        self.rate = fraction_or_one("Dropout", "rate", rate)
        self.noise_shape = None if noise_shape is None else _noise_shape(noise_shape)
        self.seed = None if seed is None else integer("Dropout", "seed", seed, 0)
        self._random = None if self.seed is None else np.random.default_rng(self.seed)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape of the input."""
        noise = self.noise_shape
        if noise is not None and (
            len(noise) != len(input_shape)
            or any(one not in (None, 1, size) and size is not None for one, size in zip(noise, input_shape, strict=True))
        ):
            raise ValueError(f"noise_shape {noise} does not fit the input: each size must be that of the input, 1 or None")
        return tuple(input_shape)

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        """Drop in training; return ``x`` as it is otherwise."""
        if not run.training or self.rate == 0:
            return x, None
        shape = x.shape
        if self.noise_shape is not None:
            self.compute_output_shape(shape)
            shape = tuple(size if one is None else one for one, size in zip(self.noise_shape, shape, strict=True))
        random = run.random if self._random is None else self._random
        kept = asarray(random.random(shape) >= self.rate, device=run.device)
        return self._dropped(x, kept, run), kept

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """Let the gradient through where the input got through, scaled likewise."""
        return dy if saved is None or not input_gradient else self._dropped(dy, saved, run), []

    def _dropped(self, x: Array, kept: Array, run: Run) -> Array:
        # Not by a product with 0, which would make NaN of what is infinite.
        y = run.device.xp.where(kept, x, 0)
        if self.rate < 1:
            y *= 1 / (1 - self.rate)
        return y


def _noise_shape(noise_shape: Sequence[int | None]) -> tuple[int | None, ...]:
    if isinstance(noise_shape, str):
        raise TypeError(f"Dropout: noise_shape must be a tuple of integers and None, got {noise_shape!r}")
    try:
        sizes = tuple(noise_shape)
    except TypeError:
        raise TypeError(f"Dropout: noise_shape must be a tuple of integers and None, got {noise_shape!r}") from None
    return tuple(None if size is None else integer("Dropout", "each size of noise_shape", size, 1) for size in sizes)
