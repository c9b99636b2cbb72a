"""Convolution, ReLU and pooling as one block on the cuda device, against the loops, in both modes of the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from conftest import assert_close, normal
from simulated_cards import MODES, needs_simulator, simulated_card

from xpconv.geometry import Conv2dGeometry, Window2d, conv2d_geometry, window_2d
from xpconv.kernels.cuda import fused
from xpconv.kernels.cuda.runtime import computed_by
from xpconv.kernels.numpy import fuses_conv2d_max_pool2d as fuses_on_numpy

pytestmark = needs_simulator

Array = np.ndarray[Any, np.dtype[Any]]


def block(
    shape: tuple[int, ...], w_shape: tuple[int, ...], pool_size: Any, data_format: str, dtype: Any
) -> tuple[Array, Array, Array, Conv2dGeometry, Window2d]:
    x = np.ascontiguousarray(reference.from_channels_first(normal(1, shape, dtype), data_format))
    w = np.ascontiguousarray(reference.weight_from_channels_first(normal(2, w_shape, dtype), data_format))
    convolution = conv2d_geometry("test", x.shape, w.shape, padding=1, data_format=data_format)
    pooling = window_2d("test", convolution.y_shape, pool_size, stride=pool_size, data_format=data_format)
    assert fused.fuses_conv2d_max_pool2d(convolution, pooling, x.itemsize)
    return x, w, normal(3, w_shape[:1], dtype), convolution, pooling


def check(shape: tuple[int, ...], w_shape: tuple[int, ...], pool_size: Any, data_format: str, dtype: Any, relu: bool) -> None:
    x, w, b, convolution, pooling = block(shape, w_shape, pool_size, data_format, dtype)
    maps = reference.conv2d(x, w, b, padding=1, data_format=data_format)
    maxima, positions = reference.max_pool2d(maps, pool_size, data_format=data_format)
    y, winners = fused.conv2d_max_pool2d_forward(x, w, b, convolution, pooling, relu)
    assert_close(y, np.maximum(maxima, 0) if relu else maxima, dtype, terms=w[..., 0].size)
    assert y.dtype == dtype
    dy = normal(4, y.shape, dtype)
    passing = np.where(maxima > 0, dy, 0) if relu else dy
    dmaps = reference.scatter_add(passing, positions, maps.shape, data_format)
    dx, dw, db = fused.conv2d_max_pool2d_backward(x, w, y, winners, dy, convolution, pooling, relu, True)
    how = {"padding": 1, "data_format": data_format}
    assert_close(dx, reference.conv2d_backward_input(dmaps, w, x.shape, **how), dtype, terms=w.size)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dmaps, w.shape, **how)
    assert_close(dw, expected_dw, dtype, terms=dmaps.size)
    assert_close(db, expected_db, dtype, terms=dmaps.size)
    nothing, same_dw, same_db = fused.conv2d_max_pool2d_backward(x, w, y, winners, dy, convolution, pooling, relu, False)
    assert nothing is None
    np.testing.assert_array_equal(same_dw, dw)
    np.testing.assert_array_equal(same_db, db)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("relu", [True, False])
def test_block(mode: str, relu: bool, data_format: str) -> None:
    with computed_by(simulated_card(mode)):
        check((2, 3, 7, 8), (4, 3, 3, 3), 2, data_format, np.float32, relu)


@pytest.mark.parametrize("pool_size", [(1, 1), (3, 2), (15, 17)])
def test_other_windows(pool_size: tuple[int, int], data_format: str, dtype: np.dtype[Any]) -> None:
    check((1, 2, 15, 17), (3, 2, 3, 3), pool_size, data_format, dtype, True)


def test_a_nan_passes_no_gradient_through_relu(data_format: str) -> None:
    x, w, b, convolution, pooling = block((1, 1, 4, 4), (1, 1, 3, 3), 2, data_format, np.float64)
    x[...], w[...], b[...] = 1, 1, np.nan
    y, winners = fused.conv2d_max_pool2d_forward(x, w, b, convolution, pooling, True)
    assert np.isnan(y).all()
    for part in fused.conv2d_max_pool2d_backward(x, w, y, winners, np.ones_like(y), convolution, pooling, True, True):
        np.testing.assert_array_equal(part, np.zeros_like(part))


def test_which_blocks_are_fused() -> None:
    convolution = conv2d_geometry("test", (2, 3, 20, 20), (4, 3, 3, 3))

    def fuses(pool_size: Any, **options: Any) -> bool:
        pooling = window_2d("test", convolution.y_shape, pool_size, **{"stride": pool_size, **options})
        answer = fused.fuses_conv2d_max_pool2d(convolution, pooling, 4)
        assert answer or not fuses_on_numpy(convolution, pooling, 4)
        return answer

    assert fuses(2)
    assert fuses(3)
    assert fuses((15, 17))
    assert not fuses((16, 16))  # more taps than a byte numbers
    assert not fuses(2, stride=1)
    assert not fuses(2, stride=3)
    assert not fuses(2, padding=1)
    assert not fuses(2, dilation=2, stride=2)
