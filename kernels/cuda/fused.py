"""Convolution, bias, ReLU and max pooling as one block.

Bias and ReLU are the last step of the convolution's own kernel, and of each window one byte is kept, the number of the tap
that won it. The layers one by one would store the result of the convolution twice, before ReLU and after it, until the
gradients are known, and 8 bytes for the position of each maximum::

    forward    images -> convolution, bias, ReLU -> maps, pooled at once -> maxima
                                                                         -> taps, kept as they are
    backward   gradient of the maxima -> by taps -> gradient of the maps -> gradients of images and weight

Where ReLU let nothing through no tap has won, so that the gradient stops there without another look at the maps.
"""

from __future__ import annotations

from xpconv.geometry import Conv2dGeometry, Window2d
from xpconv.kernels.cuda.conv2d import conv2d_backward_input, conv2d_backward_weight, forward_with_activation
from xpconv.kernels.cuda.pool2d import NO_TAP, max_pool2d_backward, max_pool2d_forward_with_taps
from xpconv.kernels.cuda.runtime import Array


def fuses_conv2d_max_pool2d(convolution: Conv2dGeometry, pooling: Window2d, itemsize: int) -> bool:
    """Whether the block is one that the two functions below compute: windows side by side that never leave the maps."""
    return pooling.stride == pooling.kernel_size and pooling.dilation == (1, 1) and pooling.inside and pooling.taps <= NO_TAP


def conv2d_max_pool2d_forward(
    x: Array, w: Array, b: Array, convolution: Conv2dGeometry, pooling: Window2d, relu: bool
) -> tuple[Array, Array]:
    """Convolve, add the bias, apply ReLU where asked for, and pool.

    Returns:
        The pooled maps, and the number of the tap that won each window, :data:`NO_TAP` where ReLU let none through.
    """
    maps = forward_with_activation(x, w, b, convolution, relu)
    return max_pool2d_forward_with_taps(maps, pooling, only_positive=relu)


def conv2d_max_pool2d_backward(
    x: Array,
    w: Array,
    y: Array,
    winners: Array,
    dy: Array,
    convolution: Conv2dGeometry,
    pooling: Window2d,
    relu: bool,
    input_gradient: bool,
) -> tuple[Array | None, Array, Array]:
    """Gradients of :func:`conv2d_max_pool2d_forward`, from its results.

    Returns:
        The gradient of the images (None unless ``input_gradient``), of the weight and of the bias.
    """
    maps_gradient = max_pool2d_backward(dy, winners, pooling)
    dw, db = conv2d_backward_weight(x, maps_gradient, convolution)
    dx = conv2d_backward_input(maps_gradient, w, convolution) if input_gradient else None
    return dx, dw, db
