"""The book's fully connected network of any depth, with a choice of activation, initial weights and weight decay."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from xpconv.arguments import not_negative
from xpconv.device import Device
from xpconv.geometry import integer
from xpconv.initializers import initial_std
from xpconv.scratch.layers import Affine, Relu, Sigmoid
from xpconv.scratch.network import Network

ACTIVATIONS: dict[str, type[Relu | Sigmoid]] = {"relu": Relu, "sigmoid": Sigmoid}


class MultiLayerNet(Network):
    """A chain of fully connected layers.

    ::

        affine - activation - ... - affine - activation - affine - softmax

    Args:
        input_size: Numbers in a sample, such as 784 pixels.
        hidden_size_list: Outputs of each hidden layer, such as ``[100, 100, 100]``; empty for none.
        output_size: Number of classes.
        activation: ``"relu"`` or ``"sigmoid"``.
        weight_init_std: Standard deviation of the initial weights; or ``"relu"`` or ``"he"``, ``"sigmoid"`` or ``"xavier"``
            for one that follows from the number of inputs of each layer: see :func:`xpconv.initializers.initial_std`.
        weight_decay_lambda: Strength of the weight decay: ``lambda / 2`` times the sum of the squared weights is added to
            the loss. Biases are left out.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64.
        seed: Seed of the initial weights, or None for NumPy's global generator, as in the book.

    Attributes:
        params: ``W1`` (input_size, hidden_size_list[0]), ``b1``, ``W2``, ``b2`` ...
        layers: ``Affine1, Activation_function1, Affine2 ...``

    Raises:
        ValueError: An unknown activation or rule, or a size, a deviation or a decay out of range.
        TypeError: A size is no integer, or a deviation no number.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.multi_layer_net import MultiLayerNet
        >>> net = MultiLayerNet(784, [100, 50], 10, activation="sigmoid", weight_init_std="xavier", seed=0)
        >>> {name: value.shape for name, value in net.params.items()}
        {'W1': (784, 100), 'b1': (100,), 'W2': (100, 50), 'b2': (50,), 'W3': (50, 10), 'b3': (10,)}
        >>> net.predict(np.zeros((7, 784))).shape
        (7, 10)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        op = type(self).__name__
        self.input_size = integer(op, "input_size", input_size, 1)
        self.hidden_size_list = [
            integer(op, f"hidden_size_list[{place}]", size, 1) for place, size in enumerate(hidden_size_list)
        ]
        self.output_size = integer(op, "output_size", output_size, 1)
        self.hidden_layer_num = len(self.hidden_size_list)
        super().__init__((self.input_size,), device=device, dtype=dtype, seed=seed)
        self.weight_decay_lambda = not_negative(op, "weight_decay_lambda", weight_decay_lambda)
        if activation not in ACTIVATIONS:
            raise ValueError(f"{op}: activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")

        sizes = [self.input_size, *self.hidden_size_list, self.output_size]
        for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes), 1):
            std = initial_std(op, weight_init_std, inputs)
            W = self.params[f"W{index}"] = self.normal(inputs, outputs, std=std)
            b = self.params[f"b{index}"] = self.constant(outputs, value=0)
            self.layers[f"Affine{index}"] = Affine(W, b, device=self.device)
            self.parameters_of[f"Affine{index}"] = {"W": f"W{index}", "b": f"b{index}"}
            if index <= self.hidden_layer_num:
                self.layers[f"Activation_function{index}"] = ACTIVATIONS[activation](device=self.device)
