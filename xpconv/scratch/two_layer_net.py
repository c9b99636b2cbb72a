"""The book's first network that learns by backpropagation: affine, ReLU, affine, softmax."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.geometry import integer
from xpconv.initializers import initial_std
from xpconv.scratch.layers import Affine, Relu, SoftmaxWithLoss
from xpconv.scratch.network import Network


class TwoLayerNet(Network):
    """A fully connected network with one hidden layer.

    ::

        affine - relu - affine - softmax

    Args:
        input_size: Numbers in a sample, such as 784 pixels.
        hidden_size: Outputs of the hidden layer.
        output_size: Number of classes.
        weight_init_std: Standard deviation of the initial weights, or ``"he"`` or ``"xavier"`` for one that follows from
            the number of inputs of each layer; see :func:`xpconv.initializers.initial_std`.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64.
        seed: Seed of the initial weights, or None for NumPy's global generator, as in the book.

    Attributes:
        params: ``W1`` (input_size, hidden_size), ``b1``, ``W2`` (hidden_size, output_size), ``b2``.
        layers: ``Affine1, Relu1, Affine2``.

    Raises:
        ValueError: A size below 1, or a deviation that is none.
        TypeError: A size is no integer, or a deviation neither a number nor a name.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.two_layer_net import TwoLayerNet
        >>> net = TwoLayerNet(input_size=784, hidden_size=100, output_size=10, seed=0)
        >>> net.predict(np.zeros((7, 784))).shape
        (7, 10)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float | str = 0.01,
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        op = "TwoLayerNet"
        inputs = integer(op, "input_size", input_size, 1)
        hidden = integer(op, "hidden_size", hidden_size, 1)
        classes = integer(op, "output_size", output_size, 1)
        super().__init__((inputs,), device=device, dtype=dtype, seed=seed)
        self.params["W1"] = self.normal(inputs, hidden, std=initial_std(op, weight_init_std, inputs))
        self.params["b1"] = self.constant(hidden, value=0)
        self.params["W2"] = self.normal(hidden, classes, std=initial_std(op, weight_init_std, hidden))
        self.params["b2"] = self.constant(classes, value=0)

        W1, b1, W2, b2 = self.params.values()
        self.layers["Affine1"] = Affine(W1, b1, device=self.device)
        self.layers["Relu1"] = Relu(device=self.device)
        self.layers["Affine2"] = Affine(W2, b2, device=self.device)
        self.parameters_of = {"Affine1": {"W": "W1", "b": "b1"}, "Affine2": {"W": "W2", "b": "b2"}}

    @property
    def lastLayer(self) -> SoftmaxWithLoss:  # noqa: N802 - the book's name
        """The book's name for ``last_layer`` in this network."""
        return self.last_layer
