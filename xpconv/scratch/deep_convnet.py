"""The book's deep convolutional network: six convolutions, three poolings, two affine layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.geometry import Pair, integer, window_2d
from xpconv.initializers import initial_std
from xpconv.scratch.layers import Affine, Convolution, Dropout, Pooling, Relu
from xpconv.scratch.network import Network

ConvParam = Mapping[str, Any]

CONV_PARAMS: tuple[ConvParam, ...] = (
    {"filter_num": 16, "filter_size": 3, "pad": 1, "stride": 1},
    {"filter_num": 16, "filter_size": 3, "pad": 1, "stride": 1},
    {"filter_num": 32, "filter_size": 3, "pad": 1, "stride": 1},
    {"filter_num": 32, "filter_size": 3, "pad": 2, "stride": 1},
    {"filter_num": 64, "filter_size": 3, "pad": 1, "stride": 1},
    {"filter_num": 64, "filter_size": 3, "pad": 1, "stride": 1},
)
DROPOUT_RATIO = 0.5


class DeepConvNet(Network):
    """A convolutional network with six convolutions.

    ::

        conv - relu - conv - relu - pool -
        conv - relu - conv - relu - pool -
        conv - relu - conv - relu - pool -
        affine - relu - dropout - affine - softmax

    Args:
        input_dim: Channels, height and width of the images; they need not be square.
        conv_param_1: ``filter_num`` filters of ``filter_size`` (a number or (height, width)) with ``pad`` and ``stride``;
            what is left out has the default's value. Likewise the five that follow.
        conv_param_2: Of the second convolution.
        conv_param_3: Of the third.
        conv_param_4: Of the fourth.
        conv_param_5: Of the fifth.
        conv_param_6: Of the sixth.
        hidden_size: Outputs of the first affine layer.
        output_size: Number of classes.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64.
        seed: Seed of the initial weights and of dropout, or None for NumPy's global generator, as in the book.

    Attributes:
        params: ``W1`` (filter_num, C, FH, FW), ``b1`` ... ``W6``, ``b6`` of the convolutions, ``W7`` (pooled pixels,
            hidden_size), ``b7``, ``W8`` (hidden_size, output_size), ``b8``.
        layers: ``Conv1, Relu1, Conv2, Relu2, Pool1, Conv3 ... Pool3, Affine1, Relu7, Dropout1, Affine2``.

    Raises:
        ValueError: A convolution or a pooling that doesn't fit the images.

    Notes:
        Weights start by the rule ``"he"`` of :func:`xpconv.initializers.initial_std`. The book drops the scores too, behind
        the last layer; here they are left alone.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> net = xc.DeepConvNet(input_dim=(3, 32, 48), output_size=5, seed=0)
        >>> net.params["W1"].shape, net.params["W7"].shape
        ((16, 3, 3, 3), (1536, 50))
        >>> net.predict(np.zeros((2, 3, 32, 48), np.float32)).shape
        (2, 5)
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param_1: ConvParam = CONV_PARAMS[0],
        conv_param_2: ConvParam = CONV_PARAMS[1],
        conv_param_3: ConvParam = CONV_PARAMS[2],
        conv_param_4: ConvParam = CONV_PARAMS[3],
        conv_param_5: ConvParam = CONV_PARAMS[4],
        conv_param_6: ConvParam = CONV_PARAMS[5],
        hidden_size: int = 50,
        output_size: int = 10,
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        op = "DeepConvNet"
        hidden = integer(op, "hidden_size", hidden_size, 1)
        classes = integer(op, "output_size", output_size, 1)
        super().__init__(input_dim, device=device, dtype=dtype, seed=seed)
        channels, size = input_dim[0], (input_dim[1], input_dim[2])
        given = (conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6)
        for index, conv_param in enumerate(given, 1):
            channels, size = self._add_convolution(index, conv_param, channels, size)
            if index % 2 == 0:
                size = self._add_pooling(index // 2, channels, size)
        self._add_affine("Affine1", 7, channels * size[0] * size[1], hidden)
        self.layers["Relu7"] = Relu(device=self.device)
        dropout_seed = None if seed is None else int(self.random.randint(2**31))
        self.layers["Dropout1"] = Dropout(DROPOUT_RATIO, seed=dropout_seed, device=self.device)
        self._add_affine("Affine2", 8, hidden, classes)

    def from_the_book(self, params: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Turn the book's parameters into those that give the same scores here.

        The book's dropout does not scale while it trains but halves when it predicts, twice: before the last layer and
        behind it. Here prediction scales nothing, so ``W8`` is taken times 1/4 and ``b8`` times 1/2.
        """
        kept = 1 - DROPOUT_RATIO
        scales = {"W8": kept * kept, "b8": kept}
        return {name: array * scales[name] if name in scales else array for name, array in params.items()}

    def _add_convolution(self, index: int, conv_param: ConvParam, channels: int, size: Pair) -> tuple[int, Pair]:
        op, name, default = "DeepConvNet", f"conv_param_{index}", CONV_PARAMS[index - 1]
        unknown = sorted(set(conv_param) - set(default))
        if unknown:
            raise ValueError(f"{op}: {name} has unknown entries {unknown}; expected {sorted(default)}")
        chosen = {**default, **conv_param}
        filters = integer(op, f"{name}['filter_num']", chosen["filter_num"], 1)
        window = window_2d(
            f"{op}, {name}",
            (1, channels, *size),
            chosen["filter_size"],
            kernel_name="filter_size",
            stride=chosen["stride"],
            padding=chosen["pad"],
            shape_name="its input's shape",
        )
        std = initial_std(op, "he", channels * window.taps)
        W = self.params[f"W{index}"] = self.normal(filters, channels, *window.kernel_size, std=std)
        b = self.params[f"b{index}"] = self.constant(filters, value=0)
        self.layers[f"Conv{index}"] = Convolution(W, b, chosen["stride"], chosen["pad"], device=self.device)
        self.layers[f"Relu{index}"] = Relu(device=self.device)
        self.parameters_of[f"Conv{index}"] = {"W": f"W{index}", "b": f"b{index}"}
        return filters, window.output_size

    def _add_pooling(self, index: int, channels: int, size: Pair) -> Pair:
        window = window_2d(
            f"DeepConvNet, pooling {index}",
            (1, channels, *size),
            2,
            kernel_name="pool_size",
            stride=2,
            shape_name="its input's shape",
        )
        self.layers[f"Pool{index}"] = Pooling(pool_h=2, pool_w=2, stride=2, device=self.device)
        return window.output_size

    def _add_affine(self, name: str, index: int, inputs: int, outputs: int) -> None:
        W = self.params[f"W{index}"] = self.normal(inputs, outputs, std=initial_std("DeepConvNet", "he", inputs))
        b = self.params[f"b{index}"] = self.constant(outputs, value=0)
        self.layers[name] = Affine(W, b, device=self.device)
        self.parameters_of[name] = {"W": f"W{index}", "b": f"b{index}"}
