"""The book's fully connected network with batch normalisation and dropout."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.scratch.layers import BatchNormalization, Dropout
from xpconv.scratch.multi_layer_net import MultiLayerNet


class MultiLayerNetExtend(MultiLayerNet):
    """A chain of fully connected layers, on request with batch normalisation and dropout in every hidden one.

    ::

        affine - [batch normalisation] - activation - [dropout] - ... - affine - softmax

    Args:
        input_size: As for :class:`~xpconv.scratch.multi_layer_net.MultiLayerNet`; likewise the arguments that follow.
        hidden_size_list: Outputs of each hidden layer.
        output_size: Number of classes.
        activation: ``"relu"`` or ``"sigmoid"``.
        weight_init_std: A number, ``"relu"``, ``"he"``, ``"sigmoid"`` or ``"xavier"``.
        weight_decay_lambda: Strength of the weight decay.
        use_dropout: Whether each activation is followed by dropout.
        dropout_ration: Share of the activations that is dropped (the book's spelling), at least 0 and less than 1.
        use_batchnorm: Whether each hidden affine layer is followed by batch normalisation.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64.
        seed: Seed of the initial weights and of dropout, or None for NumPy's global generator, as in the book.

    Attributes:
        params: As of :class:`~xpconv.scratch.multi_layer_net.MultiLayerNet`, and ``gamma1``, ``beta1`` ... with batch
            normalisation. Its running means and variances are no parameters, but ``save`` and ``load`` keep them too.
        layers: ``Affine1, BatchNorm1, Activation_function1, Dropout1, Affine2 ...``

    Raises:
        ValueError, TypeError: As :class:`~xpconv.scratch.multi_layer_net.MultiLayerNet`.

    Example:
        >>> from xpconv.scratch.multi_layer_net_extend import MultiLayerNetExtend
        >>> net = MultiLayerNetExtend(784, [100], 10, use_dropout=True, dropout_ration=0.2, use_batchnorm=True)
        >>> list(net.layers)
        ['Affine1', 'BatchNorm1', 'Activation_function1', 'Dropout1', 'Affine2']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size_list,
            output_size,
            activation,
            weight_init_std,
            weight_decay_lambda,
            device=device,
            dtype=dtype,
            seed=seed,
        )
        self.use_dropout = use_dropout
        self.use_batchnorm = use_batchnorm
        plain, self.layers = self.layers, OrderedDict()
        for index, size in enumerate(self.hidden_size_list, 1):
            self.layers[f"Affine{index}"] = plain[f"Affine{index}"]
            if use_batchnorm:
                gamma = self.params[f"gamma{index}"] = self.constant(size, value=1)
                beta = self.params[f"beta{index}"] = self.constant(size, value=0)
                self.layers[f"BatchNorm{index}"] = BatchNormalization(
                    gamma,
                    beta,
                    running_mean=self.constant(size, value=0),
                    running_var=self.constant(size, value=1),
                    device=self.device,
                )
                self.parameters_of[f"BatchNorm{index}"] = {"gamma": f"gamma{index}", "beta": f"beta{index}"}
            self.layers[f"Activation_function{index}"] = plain[f"Activation_function{index}"]
            if use_dropout:
                dropout_seed = None if seed is None else int(self.random.randint(2**31))
                self.layers[f"Dropout{index}"] = Dropout(dropout_ration, seed=dropout_seed, device=self.device)
        last = f"Affine{self.hidden_layer_num + 1}"
        self.layers[last] = plain[last]
