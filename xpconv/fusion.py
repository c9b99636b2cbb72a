"""Which layers of a network run as one: decided here, by looking at the list of layers, and nowhere else.

The layers themselves stay simple and know nothing of each other. A stretch that the device can compute in one pass becomes a
block, everything else a block of one layer. A block gives the same result and leaves the same gradients in the same
layers (``dW``, ``db``) as its layers one by one; only what they remember between the passes is kept elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from xpconv.activations import Linear, ReLU
from xpconv.arrays import contiguous, float_arrays
from xpconv.device import Device
from xpconv.geometry import Conv2dGeometry, Window2d, check_pooling_window, conv2d_geometry, window_2d
from xpconv.layers.convolution import Conv2D
from xpconv.layers.layer import Layer as KerasLayer
from xpconv.layers.pooling import MaxPooling2D
from xpconv.layers.tape import Run
from xpconv.scratch.layers import Affine, BatchNormalization, Convolution, Dropout, Layer, Pooling, Relu

Array = Any


class Block(Protocol):
    """One or more layers that run as one."""

    def forward(self, x: Array, training: bool) -> Array:
        """Compute the output of the last layer from the input of the first."""

    def backward(self, dout: Array, input_gradient: bool) -> Array:
        """Compute the gradient of the input, or None where it isn't asked for; leave the parameters' in their layers."""


def blocks(layers: Sequence[Layer]) -> Iterator[Block]:
    """Cut a list of layers into blocks.

    Args:
        layers: The layers in the order they run in.

    Yields:
        Blocks that cover them all, in order.
    """
    position = 0
    while position < len(layers):
        stretch = layers[position : position + 3]
        match stretch:
            # A class of the user's own may compute something else: only these very classes are known.
            case [Convolution() as convolution, Relu() as relu, Pooling() as pooling] if [type(layer) for layer in stretch] == [
                Convolution,
                Relu,
                Pooling,
            ]:
                yield _ConvolutionReluPooling(convolution, relu, pooling)
                position += 3
            case [layer, *_]:
                yield _SingleLayer(layer)
                position += 1


class _SingleLayer:
    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def forward(self, x: Array, training: bool) -> Array:
        if isinstance(self.layer, (BatchNormalization, Dropout)):
            return self.layer.forward(x, training)
        return self.layer.forward(x)

    def backward(self, dout: Array, input_gradient: bool) -> Array:
        if isinstance(self.layer, (Affine, Convolution)):
            return self.layer.backward(dout, input_gradient)
        return self.layer.backward(dout)


class _ConvolutionReluPooling:
    # Pooling takes the maximum of the windows first and ReLU follows: the maximum of what ReLU lets through is what ReLU
    # lets through of the maximum, and where that is zero no gradient passes either way.

    def __init__(self, convolution: Convolution, relu: Relu, pooling: Pooling) -> None:
        self.convolution, self.relu, self.pooling = convolution, relu, pooling
        self.one_by_one = [_SingleLayer(layer) for layer in (convolution, relu, pooling)]
        self.saved: tuple[Device, tuple[Array, ...], Conv2dGeometry, Window2d] | None = None

    def forward(self, x: Array, training: bool) -> Array:
        convolution, pooling = self.convolution, self.pooling
        place, (x, w, b) = float_arrays("Convolution", convolution.device, x=x, W=convolution.W, b=convolution.bias())
        self.saved = None
        if x.ndim == 4 and x.shape[0] > 0 and b.shape == w.shape[:1]:
            geometry = conv2d_geometry(
                "Convolution", x.shape, w.shape, stride=convolution.stride, padding=convolution.pad, w_name="W"
            )
            window = window_2d(
                "Pooling",
                geometry.y_shape,
                (pooling.pool_h, pooling.pool_w),
                kernel_name="(pool_h, pool_w)",
                stride=pooling.stride,
                padding=pooling.pad,
            )
            check_pooling_window("Pooling", window)
            if place.kernels.fuses_conv2d_max_pool2d(geometry, window, x.itemsize):
                y, winners = place.kernels.conv2d_max_pool2d_forward(x, w, b, geometry, window, True)
                self.saved = (place, (x, w, y, winners), geometry, window)
                # What the layers remember of an earlier pass is void; should their own backward be called, they run again.
                convolution.x = self.relu.out = pooling.arg_max = None
                convolution.replay = self.relu.replay = pooling.replay = functools.partial(self._replay, x)
                return y
        for layer in self.one_by_one:
            x = layer.forward(x, training)
        return x

    def _replay(self, x: Array) -> None:
        for layer in self.one_by_one:
            x = layer.forward(x, True)

    def backward(self, dout: Array, input_gradient: bool) -> Array:
        if self.saved is None:
            for layer in reversed(self.one_by_one):
                dout = layer.backward(dout, input_gradient or layer is not self.one_by_one[0])
            return dout
        place, (x, w, y, winners), geometry, window = self.saved
        _, (dout,) = float_arrays("Pooling.backward", place, dout=dout)
        dx, self.convolution.dW, self.convolution.db = place.kernels.conv2d_max_pool2d_backward(
            x, w, y, winners, dout.astype(y.dtype, copy=False), geometry, window, True, input_gradient
        )
        return dx


def stages(layers: Sequence[KerasLayer]) -> Iterator[KerasLayer]:
    """Cut a row of Keras' layers into stages: layers that run as one, and all others as they are.

    Args:
        layers: The layers in the order they run in.

    Yields:
        Layers that do together what the row does, in order.
    """
    position = 0
    while position < len(layers):
        layer, following = layers[position], layers[position + 1] if position + 1 < len(layers) else None
        # Of these very classes, as above.
        if type(layer) is Conv2D and type(following) is MaxPooling2D and _run_as_one(layer, following):
            yield Conv2DMaxPooling2D(layer, following)
            position += 2
        else:
            yield layer
            position += 1


def _run_as_one(convolution: Conv2D, pooling: MaxPooling2D) -> bool:
    activation = convolution.activation
    return (
        convolution.use_bias
        and (type(activation) is Linear or (type(activation) is ReLU and activation.is_plain))
        and convolution.data_format == pooling.data_format
        and (convolution.dtype is None) is (pooling.dtype is None)
        and convolution.dtype == pooling.dtype
    )


class Conv2DMaxPooling2D(KerasLayer):
    """A convolution with ReLU, or with nothing behind it, and the pooling that follows, as one layer.

    It has no weights of its own: it computes with those of the convolution, and hands their gradients on as it would.
    """

    def __init__(self, convolution: Conv2D, pooling: MaxPooling2D) -> None:
        super().__init__(name=f"{convolution.name} and {pooling.name}", dtype=convolution.dtype)
        self.convolution, self.pooling = convolution, pooling

    @property
    def trainable_weights(self) -> list[Array]:
        """Those of the convolution."""
        return self.convolution.trainable_weights

    def build(self, input_shape: Any) -> None:
        """Build the two."""
        if self.convolution.built:
            self.convolution.check_expected(input_shape)
        else:
            self.convolution.build(input_shape)
        if not self.pooling.built:
            self.pooling.build(self.convolution.shape_after(input_shape))
        self._expected = self.convolution._expected

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The pooling's."""
        return self.pooling.compute_output_shape(self.convolution.compute_output_shape(input_shape))

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """In one pass where the device has one for these sizes."""
        convolution, pooling = self.convolution, self.pooling
        inputs = contiguous(inputs, run.device.xp)
        geometry = convolution.geometry_for(inputs.shape)
        window = pooling.window_for(geometry.y_shape)
        if inputs.shape[0] and run.device.kernels.fuses_conv2d_max_pool2d(geometry, window, inputs.itemsize):
            w, relu = convolution.kernel_for(run.device), type(convolution.activation) is ReLU
            y, winners = run.device.kernels.conv2d_max_pool2d_forward(inputs, w, convolution.bias, geometry, window, relu)
            return y, (inputs, w, y, winners, geometry, window, relu)
        maps, of_convolution = convolution.compute(inputs, run)
        y, of_pooling = pooling.compute(maps, run)
        return y, (of_convolution, of_pooling)

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Any, list[Array]]:
        """Likewise."""
        if len(saved) == 2:
            maps_gradient, _ = self.pooling.differentiate(saved[1], dy, run, True)
            return self.convolution.differentiate(saved[0], maps_gradient, run, input_gradient)
        x, w, y, winners, geometry, window, relu = saved
        dy = contiguous(dy, run.device.xp)
        dx, dw, db = run.device.kernels.conv2d_max_pool2d_backward(x, w, y, winners, dy, geometry, window, relu, input_gradient)
        return dx, [self.convolution.gradient_for(dw, run.device), db] if self.trainable_weights else []
