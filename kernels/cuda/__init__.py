"""The kernels of the ``cuda`` and ``cudasim`` devices: our own CUDA C++, on a card or in the simulator."""

from xpconv.kernels.cuda.conv2d import conv2d_backward_input, conv2d_backward_weight, conv2d_forward
from xpconv.kernels.cuda.dense import matmul
from xpconv.kernels.cuda.elementwise import (
    adagrad_update,
    adam_update,
    all_finite,
    momentum_update,
    nesterov_update,
    relu_backward,
    relu_forward,
    rmsprop_update,
    sgd_update,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from xpconv.kernels.cuda.fused import (
    conv2d_max_pool2d_backward,
    conv2d_max_pool2d_forward,
    fuses_conv2d_max_pool2d,
)
from xpconv.kernels.cuda.im2col import col2im, im2col
from xpconv.kernels.cuda.pool2d import (
    avg_pool2d_backward,
    avg_pool2d_forward,
    count_misplaced,
    max_pool2d_backward,
    max_pool2d_forward,
    max_unpool2d,
)

__all__ = [
    "adagrad_update",
    "adam_update",
    "all_finite",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "col2im",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_forward",
    "conv2d_max_pool2d_backward",
    "conv2d_max_pool2d_forward",
    "count_misplaced",
    "fuses_conv2d_max_pool2d",
    "im2col",
    "matmul",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_unpool2d",
    "momentum_update",
    "nesterov_update",
    "relu_backward",
    "relu_forward",
    "rmsprop_update",
    "sgd_update",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_forward",
]
