"""Layers in a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.fusion import stages
from xpconv.layers.input import Input
from xpconv.layers.layer import Layer, Shape
from xpconv.layers.tape import current_run
from xpconv.models.model import Model
from xpconv.naming import snake_case

Array = Any


class Sequential(Model):
    """Layers in a row, each fed with what the one before gives.

    Args:
        layers: The layers in their order; the first entry may be an :class:`Input`. More can be added by :meth:`add`.
        trainable: Whether training changes the weights.
        name: Name of the model.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64, for layers that were given none of their own.
        seed: Seed of all that is random; see :class:`Model`.

    Raises:
        TypeError: An entry is no layer.
        ValueError: Two layers have one name, or a layer cannot take what the one before gives.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> model = xc.Sequential(device="numpy", seed=0)
        >>> model.add(xc.layers.Conv2D(30, (2, 2), activation="relu"))
        >>> model.add(xc.layers.MaxPool2D())
        >>> model.add(xc.layers.Flatten())
        >>> model.add(xc.layers.Dense(10, activation="softmax"))
        >>> model(np.zeros((5, 28, 28, 1), np.float32)).shape
        (5, 10)
    """

    def __init__(
        self,
        layers: Sequence[Layer | Input] | None = None,
        trainable: bool = True,
        name: str | None = None,
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(name=name, device=device, dtype=dtype, seed=seed, trainable=trainable)
        self._row: list[Layer] = []
        self._input: Input | None = None
        self._stages: list[Layer] | None = None
        for layer in layers or ():
            self._put(layer)
        self._build_if_known()

    def add(self, layer: Layer | Input) -> None:
        """Put a layer behind the others.

        Raises:
            TypeError, ValueError: As :class:`Sequential`; the model stays as it was.
        """
        self._put(layer)
        try:
            self._build_if_known()
        except ValueError:
            if isinstance(layer, Layer):
                self._row.pop()
                self._changed()
            raise

    def pop(self) -> Layer:
        """Take the last layer away.

        Returns:
            That layer.

        Raises:
            IndexError: There is none.
        """
        if not self._row:
            raise IndexError(f"{self.title} has no layers")
        layer = self._row.pop()
        self._changed()
        self._build_if_known()
        return layer

    def children(self) -> list[tuple[str, Layer]]:
        """The layers, named by their class and counted within the model: ``dense``, ``dense_1``."""
        counted: Counter[str] = Counter()
        named = []
        for layer in self._row:
            kind = snake_case(type(layer).__name__)
            named.append((f"{kind}_{counted[kind]}" if counted[kind] else kind, layer))
            counted[kind] += 1
        return named

    @property
    def layers_within(self) -> list[Layer]:
        """The layers, in order."""
        return list(self._row)

    def call(self, inputs: Array) -> Array:
        """Feed the layers one after the other."""
        run = current_run()
        x = inputs
        if run is not None and run.fuse:
            if self._stages is None:
                self._stages = list(stages(self._row))
            for layer in self._stages:
                x = layer(x)
        else:
            for layer in self._row:
                x = layer(x)
        return x

    def build(self, input_shape: Any = None) -> None:
        """Make all weights, for inputs of this shape; None stands for the size of the batch."""
        shape = self.compute_output_shape(input_shape)
        if not self._row:
            raise ValueError(f"{self.title} has no layers")
        run = current_run()
        with self._running(training=False, any_batch=True) if run is None else self._in_its_own_way(run):
            self._build_row(input_shape)
        self._output_shape = shape

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Shape of the output for an input of this shape."""
        shape = tuple(input_shape) if isinstance(input_shape, (list, tuple)) else input_shape
        for layer in self._row:
            shape = layer.shape_after(shape)
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such a model again."""
        config = super().get_config()
        row: list[Any] = [*([self._input] if self._input else []), *self._row]
        config["layers"] = [{"class_name": type(layer).__name__, "config": layer.get_config()} for layer in row]
        return config

    def _build_row(self, input_shape: Any) -> None:
        shape = input_shape
        for layer in self._row:
            if not layer.built:
                layer.build(shape)
            shape = layer.shape_after(shape)

    def _build_for(self, inputs: Any) -> None:
        Layer._build_for(self, inputs)

    def _put(self, layer: Layer | Input) -> None:
        if isinstance(layer, Input):
            if self._row or self._input:
                raise ValueError(f"{self.title}: Input must come first, and once")
            self._input = layer
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"{self.title}: an entry must be a layer of xpconv.layers, got {layer!r}")
        if any(layer.name == other.name for other in self._row):
            raise ValueError(f"{self.title}: layer names must differ, and there are two of the name {layer.name!r}")
        self._row.append(layer)
        self._changed()

    def _changed(self) -> None:
        self.built, self._stages, self._output_shape = False, None, None

    def _build_if_known(self) -> None:
        if self._input is not None and self._row and not self.built:
            self.build((self._input.batch_size, *self._input.shape))
