"""The book's simple convolutional network: convolution, ReLU, pooling, affine, ReLU, affine, softmax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.geometry import integer, window_2d
from xpconv.initializers import initial_std
from xpconv.scratch.layers import Affine, Convolution, Pooling, Relu
from xpconv.scratch.network import Network

CONV_PARAM: Mapping[str, Any] = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}


class SimpleConvNet(Network):
    """A convolutional network with one convolution, which learns MNIST to 98 % and more.

    ::

        conv - relu - pool - affine - relu - affine - softmax

    Args:
        input_dim: Channels, height and width of the images; they need not be square.
        conv_param: ``filter_num`` filters of ``filter_size`` (a number or (height, width)) with ``pad`` and ``stride``;
            what is left out has the default's value.
        hidden_size: Outputs of the first affine layer.
        output_size: Number of classes.
        weight_init_std: Standard deviation of the initial weights, or ``"he"`` or ``"xavier"`` for one that follows from
            the number of inputs of each layer; see :func:`xpconv.initializers.initial_std`.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64.
        seed: Seed of the initial weights, or None for NumPy's global generator, as in the book.

    Attributes:
        params: ``W1`` (filter_num, C, FH, FW), ``b1``, ``W2`` (pooled pixels, hidden_size), ``b2``, ``W3``, ``b3``.
        layers: ``Conv1, Relu1, Pool1, Affine1, Relu2, Affine2``.

    Raises:
        ValueError: A convolution or a pooling that doesn't fit the images.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> net = xc.SimpleConvNet(input_dim=(1, 9, 12), conv_param={"filter_num": 4, "filter_size": 3}, seed=0)
        >>> net.params["W2"].shape
        (60, 100)
        >>> net.predict(np.zeros((7, 1, 9, 12), np.float32)).shape
        (7, 10)
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: Mapping[str, Any] = CONV_PARAM,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float | str = 0.01,
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        if len(input_dim) != 3:
            raise ValueError(f"SimpleConvNet: input_dim must be (channels, height, width), got {input_dim!r}")
        for axis in range(3):
            integer("SimpleConvNet", f"input_dim[{axis}]", input_dim[axis], 1)
        super().__init__(input_dim, device=device, dtype=dtype, seed=seed)
        op = "SimpleConvNet"
        unknown = sorted(set(conv_param) - set(CONV_PARAM))
        if unknown:
            raise ValueError(f"{op}: conv_param has unknown entries {unknown}; expected {sorted(CONV_PARAM)}")
        chosen = {**CONV_PARAM, **conv_param}
        filters = integer(op, "conv_param['filter_num']", chosen["filter_num"], 1)
        hidden = integer(op, "hidden_size", hidden_size, 1)
        classes = integer(op, "output_size", output_size, 1)
        convolution = window_2d(
            op,
            (1, *input_dim),
            chosen["filter_size"],
            kernel_name="filter_size",
            stride=chosen["stride"],
            padding=chosen["pad"],
            shape_name="(1, *input_dim)",
        )
        pooled = window_2d(op, (1, filters, *convolution.output_size), 2, stride=2, shape_name="convolved shape").output_size

        pixels = filters * pooled[0] * pooled[1]
        stds = [initial_std(op, weight_init_std, inputs) for inputs in (input_dim[0] * convolution.taps, pixels, hidden)]
        self.params["W1"] = self.normal(filters, input_dim[0], *convolution.kernel_size, std=stds[0])
        self.params["b1"] = self.constant(filters, value=0)
        self.params["W2"] = self.normal(pixels, hidden, std=stds[1])
        self.params["b2"] = self.constant(hidden, value=0)
        self.params["W3"] = self.normal(hidden, classes, std=stds[2])
        self.params["b3"] = self.constant(classes, value=0)

        W1, b1, W2, b2, W3, b3 = self.params.values()
        self.layers["Conv1"] = Convolution(W1, b1, chosen["stride"], chosen["pad"], device=self.device)
        self.layers["Relu1"] = Relu(device=self.device)
        self.layers["Pool1"] = Pooling(pool_h=2, pool_w=2, stride=2, device=self.device)
        self.layers["Affine1"] = Affine(W2, b2, device=self.device)
        self.layers["Relu2"] = Relu(device=self.device)
        self.layers["Affine2"] = Affine(W3, b3, device=self.device)
        self.parameters_of = {
            "Conv1": {"W": "W1", "b": "b1"},
            "Affine1": {"W": "W2", "b": "b2"},
            "Affine2": {"W": "W3", "b": "b3"},
        }
