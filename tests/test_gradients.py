"""The gradients are those of the functions: along a random direction, and as adjoints; no oracle at all, in float64.

Along a unit direction u the central difference (f(x + h u) - f(x - h u)) / 2h must be <gradient, u>, where f is the
inner product of the result with fixed numbers r, and the gradient is what the backward function makes of r. A linear
function admits any h; for maximum pooling h is below half the smallest distance of two pixels, and no winner changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from conftest import WindowCase, call, normal, window_cases
from hypothesis import given
from hypothesis import strategies as st

import xpconv as xc

Array = np.ndarray[Any, np.dtype[Any]]


def inner(a: Array, b: Array) -> float:
    """<a, b>."""
    assert a.shape == b.shape
    return float(np.sum(a * b))


def agree(a: float, b: float) -> None:
    """Two ways to the same number, of size 1 or so, in float64."""
    assert a == pytest.approx(b, rel=1e-9, abs=1e-9)


def check_direction(f: Callable[[Array], Array], x: Array, r: Array, gradient: Array, *, step: float = 0.5) -> None:
    """Compare the derivative of <f(x), r> along a random direction with <gradient, direction>."""
    assert gradient.shape == x.shape
    for seed in range(3):
        direction = normal(100 + seed, x.shape)
        direction /= np.linalg.norm(direction)
        difference = inner(f(x + step * direction), r) - inner(f(x - step * direction), r)
        agree(difference / (2 * step), inner(gradient, direction))


def distinct(shape: tuple[int, ...], seed: int = 1) -> Array:
    """Pixels that are all at least 1 apart."""
    return np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape).astype(np.float64)


CONVOLUTIONS = [
    # x.shape, w.shape, options; for channels_first
    pytest.param((2, 3, 6, 7), (4, 3, 3, 2), {}, id="plain"),
    pytest.param((2, 3, 7, 6), (4, 3, 3, 3), {"stride": (2, 3), "padding": ((0, 2), (1, 0))}, id="stride, asymmetric"),
    pytest.param((2, 4, 7, 8), (6, 2, 2, 3), {"groups": 2, "dilation": (3, 2)}, id="groups and dilation"),
    pytest.param((2, 3, 7, 6), (6, 1, 3, 3), {"groups": 3, "padding": "same", "stride": 2}, id="depthwise, same"),
    pytest.param((2, 3, 4, 5), (5, 3, 1, 1), {}, id="1x1"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
def test_conv2d(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], device: str, data_format: str
) -> None:
    x = reference.from_channels_first(normal(1, x_shape), data_format)
    w = reference.weight_from_channels_first(normal(2, w_shape), data_format)
    b = normal(3, w_shape[:1])
    options = {**options, "data_format": data_format, "device": device}
    r = normal(4, call(xc.conv2d, x, w, b, **options).shape)
    dx = call(xc.conv2d_backward_input, r, w, x.shape, **options)
    dw, db = call(xc.conv2d_backward_weight, x, r, w.shape, **options)
    check_direction(lambda x: call(xc.conv2d, x, w, b, **options), x, r, dx)
    check_direction(lambda w: call(xc.conv2d, x, w, b, **options), w, r, dw)
    check_direction(lambda b: call(xc.conv2d, x, w, b, **options), b, r, db)


@given(
    window=window_cases(),
    channels=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
    data_format=st.sampled_from(["channels_first", "channels_last"]),
)
def test_convolution_and_its_gradients_are_adjoint(
    window: WindowCase, channels: tuple[int, int, int, int], data_format: str, device: str
) -> None:
    """<conv2d(x, w), y> = <x, backward_input(y, w)> = <w, backward_weight(x, y)>: all three are one trilinear form."""
    batch, groups, channels_in, channels_out = channels
    x = reference.from_channels_first(normal(1, (batch, groups * channels_in, *window.size)), data_format)
    w = reference.weight_from_channels_first(normal(2, (groups * channels_out, channels_in, *window.kernel)), data_format)
    options = {**window.options, "groups": groups, "data_format": data_format, "device": device}
    result = call(xc.conv2d, x, w, **options)
    y = normal(3, result.shape)
    dw, db = call(xc.conv2d_backward_weight, x, y, w.shape, **options)
    value = inner(result, y)
    agree(inner(x, call(xc.conv2d_backward_input, y, w, x.shape, **options)), value)
    agree(inner(w, dw), value)
    agree(float(db.sum()), float(y.sum()))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        pytest.param((2, 3, 4, 5), (3, 4, 3, 2), {}, id="plain"),
        pytest.param((2, 3, 3, 4), (3, 2, 3, 3), {"stride": (2, 3), "padding": ((0, 1), (1, 0))}, id="stride"),
        pytest.param((2, 4, 3, 4), (4, 3, 2, 3), {"groups": 2, "dilation": (3, 2)}, id="groups and dilation"),
    ],
)
def test_conv_transpose2d(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], device: str, data_format: str
) -> None:
    """Its gradients are those of the convolution that it transposes, with the roles of x and y exchanged."""
    x = reference.from_channels_first(normal(1, x_shape), data_format)
    w = reference.weight_from_channels_first(normal(2, w_shape), data_format)
    b = normal(3, (w_shape[1] * options.get("groups", 1),))
    options = {**options, "data_format": data_format, "device": device}
    r = normal(4, call(xc.conv_transpose2d, x, w, b, **options).shape)
    dx = call(xc.conv2d, r, w, **options)
    dw, _ = call(xc.conv2d_backward_weight, r, x, w.shape, **options)
    db = reference.to_channels_first(r, data_format).sum((0, 2, 3))
    check_direction(lambda x: call(xc.conv_transpose2d, x, w, b, **options), x, r, dx)
    check_direction(lambda w: call(xc.conv_transpose2d, x, w, b, **options), w, r, dw)
    check_direction(lambda b: call(xc.conv_transpose2d, x, w, b, **options), b, r, db)


POOLINGS = [
    pytest.param(2, {}, id="plain"),
    pytest.param((3, 2), {"stride": (1, 2), "padding": ((0, 2), (1, 0))}, id="overlapping, asymmetric"),
    pytest.param(3, {"stride": 2, "padding": 1, "ceil_mode": True}, id="ceil_mode"),
    pytest.param(3, {"stride": (2, 1), "padding": "same"}, id="same"),
]


@pytest.mark.parametrize(("pool_size", "options"), [*POOLINGS, pytest.param(2, {"dilation": 3}, id="dilation")])
def test_max_pool2d(pool_size: Any, options: dict[str, Any], device: str, data_format: str) -> None:
    x = reference.from_channels_first(distinct((2, 3, 8, 7)), data_format)
    options = {**options, "data_format": data_format, "device": device}
    y, indices = call(xc.max_pool2d, x, pool_size, return_indices=True, **options)
    r = normal(2, y.shape)
    dx = call(xc.max_pool2d_backward, r, indices, x.shape, pool_size, **options)
    check_direction(lambda x: call(xc.max_pool2d, x, pool_size, **options), x, r, dx, step=0.4)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("pool_size", "options"), POOLINGS)
def test_avg_pool2d(pool_size: Any, options: dict[str, Any], count_include_pad: bool, device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (2, 3, 8, 7)), data_format)
    options = {**options, "count_include_pad": count_include_pad, "data_format": data_format, "device": device}
    r = normal(2, call(xc.avg_pool2d, x, pool_size, **options).shape)
    dx = call(xc.avg_pool2d_backward, r, x.shape, pool_size, **options)
    check_direction(lambda x: call(xc.avg_pool2d, x, pool_size, **options), x, r, dx)


@pytest.mark.parametrize("output_size", [1, (2, 3), (5, 4), (9, 10)])
def test_adaptive_pooling(output_size: Any, device: str, data_format: str) -> None:
    x = reference.from_channels_first(distinct((2, 3, 8, 7)), data_format)
    options = {"data_format": data_format, "device": device}
    y, indices = call(xc.adaptive_max_pool2d, x, output_size, return_indices=True, **options)
    r = normal(2, y.shape)
    dx = call(xc.adaptive_max_pool2d_backward, r, indices, x.shape, **options)
    check_direction(lambda x: call(xc.adaptive_max_pool2d, x, output_size, **options), x, r, dx, step=0.4)
    dx = call(xc.adaptive_avg_pool2d_backward, r, x.shape, **options)
    check_direction(lambda x: call(xc.adaptive_avg_pool2d, x, output_size, **options), x, r, dx)


def test_unpooling_undoes_pooling(device: str, data_format: str) -> None:
    """<unpool(y), x> = <y, x at the indices>: unpooling is the adjoint of reading the winners."""
    x = reference.from_channels_first(distinct((2, 3, 8, 6)), data_format)
    options = {"data_format": data_format, "device": device}
    y, indices = call(xc.max_pool2d, x, return_indices=True, **options)
    unpooled = call(xc.max_unpool2d, y, indices, **options)
    agree(inner(unpooled, x), inner(y, y))
    again, same_indices = call(xc.max_pool2d, unpooled, return_indices=True, **options)
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(same_indices[y > 0], indices[y > 0])


@given(
    window=window_cases(),
    batch=st.integers(1, 2),
    channels=st.integers(1, 3),
    data_format=st.sampled_from(["channels_first", "channels_last"]),
)
def test_col2im_is_the_adjoint_of_im2col(window: WindowCase, batch: int, channels: int, data_format: str, device: str) -> None:
    x = reference.from_channels_first(normal(1, (batch, channels, *window.size)), data_format)
    options = {**window.options, "data_format": data_format, "device": device}
    col = call(xc.im2col, x, window.kernel, **options)
    y = normal(2, col.shape)
    agree(inner(col, y), inner(x, call(xc.col2im, y, x.shape, window.kernel, **options)))
