"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import DTypeLike

from xpconv import activations, initializers, regularizers
from xpconv.arguments import boolean
from xpconv.arrays import contiguous
from xpconv.device import Device
from xpconv.geometry import integer
from xpconv.layers.layer import Layer, Shape
from xpconv.layers.tape import Run

Array = Any


class Dense(Layer):
    """Fully connected layer: ``activation(x @ kernel + bias)``, along the last axis.

    Args:
        units: Size of the last axis of the output.
        activation: A name or an object of :mod:`xpconv.activations`; None for none.
        use_bias: Whether there is a bias.
        kernel_initializer: A name or an object of :mod:`xpconv.initializers`.
        bias_initializer: Likewise.
        kernel_regularizer: A name or an object of :mod:`xpconv.regularizers`, or None.
        bias_regularizer: Likewise.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Whether training changes the weights.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        kernel: (inputs, units), once the layer is built.
        bias: (units,), or None.

    Raises:
        TypeError, ValueError: A wrong argument; when called, an input that has fewer than two axes, or another size of the
            last one than the layer was built with.

    Notes:
        An input (N, ..., inputs) gives an output (N, ..., units).

        Differences from Keras: no constraints, no regularization of the output, no LoRA, no quantization.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> layer = xc.layers.Dense(3, activation="relu", kernel_initializer="ones")
        >>> layer(np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32))
        array([[3., 3., 3.],
               [0., 0., 0.]], dtype=float32)
        >>> [weight.shape for weight in layer.get_weights()]
        [(2, 3), (3,)]
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        self.units = integer("Dense", "units", units, 1)
        self.activation = activations.get(activation, op="Dense")
        self.use_bias = boolean("Dense", "use_bias", use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer, op="Dense", argument="kernel_initializer")
        self.bias_initializer = initializers.get(bias_initializer, op="Dense", argument="bias_initializer")
        self.kernel_regularizer = regularizers.get(kernel_regularizer, op="Dense", argument="kernel_regularizer")
        self.bias_regularizer = regularizers.get(bias_regularizer, op="Dense", argument="bias_regularizer")
        self.kernel: Array = None
        self.bias: Array = None

    def build(self, input_shape: Shape) -> None:
        """Make the kernel and the bias for inputs of this shape."""
        _check_rank(input_shape)
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError("the size of the last axis must be known")
        self.add_weight("kernel", (inputs, self.units), self.kernel_initializer, regularizer=self.kernel_regularizer)
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer)
        self.expect(axes={-1: inputs})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(N, ..., inputs) becomes (N, ..., units)."""
        _check_rank(input_shape)
        return (*input_shape[:-1], self.units)

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        """Compute ``activation(x @ kernel + bias)``."""
        _check_rank(x.shape)
        rows = contiguous(_rows(x), run.device.xp)
        z = run.device.kernels.matmul(rows, self.kernel)
        if self.use_bias:
            z += self.bias
        if x.ndim > 2:
            z = z.reshape(*x.shape[:-1], self.units)
        y = self.activation.forward(z, run.device)
        return y, (rows, x.shape, z if self.activation.keeps_input else None, y) if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """Go back through the activation, then as :meth:`differentiate_before_activation`."""
        _, _, z, y = saved
        dz = self.activation.backward(dy, z, y, run.device)
        return self.differentiate_before_activation(saved, dz, run, input_gradient)

    def differentiate_before_activation(
        self, saved: Any, dz: Array, run: Run, input_gradient: bool
    ) -> tuple[Array, list[Array]]:
        """The gradients of ``x``, of the kernel (``x.T @ dz``) and of the bias (``dz`` summed over all but the last axis)."""
        rows, x_shape, _, _ = saved
        dz = contiguous(_rows(dz), run.device.xp)
        gradients = []
        if self.trainable:
            gradients.append(run.device.kernels.matmul(rows.T, dz))
            if self.use_bias:
                gradients.append(dz.sum(axis=0))
        dx = run.device.kernels.matmul(dz, self.kernel.T).reshape(x_shape) if input_gradient else None
        return dx, gradients

    def before_activation(self, saved: Any) -> tuple[str, Array] | None:
        """Name of the activation and what it was given, for a loss that starts from there."""
        return activations.for_loss(self.activation, saved[2])


def _rows(x: Array) -> Array:
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _check_rank(shape: Shape) -> None:
    if len(shape) < 2:
        raise ValueError(f"the input must have at least two axes, (batch, ..., inputs), got {tuple(shape)}")
