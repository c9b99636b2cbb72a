"""What each case must give, from the float64 loops of reference.py and from formulas that are written out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference

from xpconv.geometry import Conv2dGeometry, Window2d
from xpconv.sanitizer.cases import Array, Case

Settings = dict[str, Any]


def expected(case: Case) -> list[Any]:
    """The results of a case, in float64."""
    arguments = [
        argument.astype(np.float64) if isinstance(argument, np.ndarray) and argument.dtype.kind not in "iub" else argument
        for argument in case.arguments
    ]
    with np.errstate(all="ignore"):
        results = ORACLES[case.operation](*arguments)
    told = list(results) if isinstance(results, tuple) else [results]
    if case.operation.endswith("_update"):
        # What decays ends at zero, not among the numbers that are too small to be normal where it is computed.
        smallest = np.finfo(np.float64 if case.dtype == np.float64 else np.float32).tiny
        told[1:] = [np.where(np.abs(state) < smallest, 0.0, state) for state in told[1:]]
    return told


def window_settings(geometry: Window2d) -> Settings:
    return {"stride": geometry.stride, "padding": geometry.padding, "data_format": geometry.data_format}


def convolution_settings(geometry: Conv2dGeometry) -> Settings:
    return {**window_settings(geometry), "dilation": geometry.dilation, "groups": geometry.groups}


def pooling_settings(geometry: Window2d) -> Settings:
    """Of a geometry that may have come of ceil_mode: the one that gives its size."""
    floor = tuple(
        reference.output_size(
            geometry.size[axis],
            geometry.kernel_size[axis],
            geometry.stride[axis],
            geometry.padding[axis],
            geometry.dilation[axis],
            ceil_mode=False,
        )
        for axis in (0, 1)
    )
    return {**window_settings(geometry), "ceil_mode": floor != geometry.output_size}


def conv2d_forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry) -> Array:
    return reference.conv2d(x, w, b, **convolution_settings(geometry))


def conv2d_backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    return reference.conv2d_backward_input(dy, w, geometry.x_shape, **convolution_settings(geometry))


def conv2d_backward_weight(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    return reference.conv2d_backward_weight(x, dy, geometry.w_shape, **convolution_settings(geometry))


def max_pool2d_forward(x: Array, geometry: Window2d, return_indices: bool) -> Any:
    settings = {**pooling_settings(geometry), "dilation": geometry.dilation}
    y, indices = reference.max_pool2d(x, geometry.kernel_size, **settings)
    return (y, indices) if return_indices else y


def pool_forward_and_backward(x: Array, dy: Array, geometry: Window2d) -> tuple[Any, ...]:
    y, indices = max_pool2d_forward(x, geometry, True)
    return y, indices, 0, reference.scatter_add(dy, indices, geometry.x_shape, geometry.data_format)


def count_misplaced(indices: Array, geometry: Window2d) -> int:
    """How many positions are none of their window's pixels."""
    flat = reference.to_channels_first(indices, geometry.data_format)
    windows = reference.Windows(geometry.size, geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation)
    count = 0
    for n, c, i, j in np.ndindex(flat.shape):
        own = {row * geometry.size[1] + column for row, column in windows.pixels(i, j)}
        count += int(flat[n, c, i, j]) not in own
    return count


def max_pool2d_backward(dy: Array, indices: Array, geometry: Window2d) -> Array:
    return reference.scatter_add(dy, indices, geometry.x_shape, geometry.data_format)


def avg_pool2d_forward(x: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    settings = {**pooling_settings(geometry), "count_include_pad": count_include_pad}
    return reference.avg_pool2d(x, geometry.kernel_size, **settings)


def avg_pool2d_backward(dy: Array, geometry: Window2d, count_include_pad: bool) -> Array:
    settings = {**pooling_settings(geometry), "count_include_pad": count_include_pad}
    return reference.avg_pool2d_backward(dy, geometry.x_shape, geometry.kernel_size, **settings)


def max_unpool2d(x: Array, indices: Array, output_size: tuple[int, int], geometry: Window2d) -> Array:
    """What has no place in the result goes to a row below it, which is cut off."""
    height, width = output_size
    nowhere = (indices < 0) | (indices >= height * width)
    settings = {"output_size": (height + 1, width), "data_format": geometry.data_format}
    y = reference.max_unpool2d(x, np.where(nowhere, height * width, indices), **settings)
    return y[:, :height] if geometry.data_format == "channels_last" else y[:, :, :height]


def fused_block(
    x: Array, w: Array, b: Array, dy: Array, convolution: Conv2dGeometry, pooling: Window2d, relu: bool
) -> tuple[Array, ...]:
    maps = conv2d_forward(x, w, b, convolution)
    if relu:
        maps = np.where(maps <= 0, 0.0, maps)
    y, indices = max_pool2d_forward(maps, pooling, True)
    dmaps = reference.scatter_add(dy, indices, maps.shape, pooling.data_format)
    if relu:
        dmaps = np.where(maps > 0, dmaps, 0.0)
    return y, conv2d_backward_input(dmaps, w, convolution), *conv2d_backward_weight(x, dmaps, convolution)


def im2col(x: Array, geometry: Window2d) -> Array:
    return reference.im2col(x, geometry.kernel_size, dilation=geometry.dilation, **window_settings(geometry))


def col2im(col: Array, geometry: Window2d) -> Array:
    settings = {"dilation": geometry.dilation, **window_settings(geometry)}
    return reference.col2im(col, geometry.x_shape, geometry.kernel_size, **settings)


def matmul(a: Array, b: Array) -> Array:
    return np.einsum("ik,kj->ij", a, b)


def relu_forward(x: Array) -> Array:
    return np.where(x <= 0, 0.0, x)


def relu_backward(dy: Array, y: Array) -> Array:
    return np.where(y > 0, dy, 0.0)


def all_finite(x: Array) -> bool:
    return all(np.isfinite(value) for value in x.flat)


def softmax_cross_entropy_forward(x: Array, labels: Array) -> tuple[float, Array]:
    below = x - x.max(axis=1)[:, None]
    sums = np.exp(below).sum(axis=1)[:, None]
    y = np.exp(below) / sums
    losses = np.log(sums) - below
    if labels.ndim == 1:
        return float(np.mean([losses[row, label] for row, label in enumerate(labels)])), y
    asked = np.where(labels > 0, labels * losses, 0.0)  # what no label asks for may be impossible
    return float(np.mean(asked.sum(axis=1))), y


def softmax_cross_entropy_backward(y: Array, labels: Array, dloss: float) -> Array:
    rows = np.eye(y.shape[1])[labels] if labels.ndim == 1 else labels
    return dloss / len(y) * (y * rows.sum(axis=1)[:, None] - rows)


def sgd_update(p: Array, g: Array, lr: float) -> tuple[Any, ...]:
    return p - lr * g


def momentum_update(p: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Any, ...]:
    v = momentum * v - lr * g
    return p + v, v


def nesterov_update(p: Array, g: Array, v: Array, lr: float, momentum: float) -> tuple[Any, ...]:
    v = momentum * v - lr * g
    return p + momentum * v - lr * g, v


def adagrad_update(p: Array, g: Array, s: Array, lr: float, epsilon: float) -> tuple[Any, ...]:
    s = s + g**2
    return p - lr * g / (np.sqrt(s) + epsilon), s


def rmsprop_update(p: Array, g: Array, s: Array, lr: float, decay_rate: float, epsilon: float) -> tuple[Any, ...]:
    s = decay_rate * s + (1 - decay_rate) * g**2
    return p - lr * g / (np.sqrt(s) + epsilon), s


def adam_update(
    p: Array, g: Array, m: Array, s: Array, lr: float, beta1: float, beta2: float, epsilon: float
) -> tuple[Any, ...]:
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * g**2
    return p - lr * m / (np.sqrt(s) + epsilon), m, s


ORACLES: dict[str, Any] = {
    function.__name__: function
    for function in (
        conv2d_forward,
        conv2d_backward_input,
        conv2d_backward_weight,
        max_pool2d_forward,
        max_pool2d_backward,
        pool_forward_and_backward,
        count_misplaced,
        avg_pool2d_forward,
        avg_pool2d_backward,
        max_unpool2d,
        fused_block,
        im2col,
        col2im,
        matmul,
        relu_forward,
        relu_backward,
        all_finite,
        softmax_cross_entropy_forward,
        softmax_cross_entropy_backward,
        sgd_update,
        momentum_update,
        nesterov_update,
        adagrad_update,
        rmsprop_update,
        adam_update,
    )
}
