"""im2col and its adjoint col2im, on every device, against the loops of reference.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from conftest import MEMORY_LAYOUTS, WindowCase, assert_close, call, normal, window_cases
from hypothesis import given
from hypothesis import strategies as st

import xpconv as xc


def check(shape: tuple[int, ...], kernel_size: Any, options: dict[str, Any], data_format: str, dtype: Any, device: str) -> None:
    """Hold both functions against the reference; the shape is given for channels_first."""
    options = {**options, "data_format": data_format}
    x = reference.from_channels_first(normal(1, shape, dtype), data_format)
    expected = reference.im2col(x, kernel_size, **options)
    col = call(xc.im2col, x, kernel_size, device=device, **options)
    assert col.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(col, expected)  # a copy: nothing is rounded
    dcol = normal(2, expected.shape, dtype)
    dx = call(xc.col2im, dcol, x.shape, kernel_size, device=device, **options)
    assert_close(dx, reference.col2im(dcol, x.shape, kernel_size, **options), dtype)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "options"),
    [
        pytest.param((2, 3, 5, 6), 2, {}, id="plain"),
        pytest.param((2, 3, 5, 6), 1, {}, id="1x1"),
        pytest.param((2, 3, 5, 6), 1, {"stride": 2, "padding": 1}, id="1x1 with stride and padding"),
        pytest.param((1, 1, 1, 1), 1, {}, id="one pixel"),
        pytest.param((2, 3, 5, 6), (5, 6), {}, id="whole image"),
        pytest.param((2, 2, 3, 2), (5, 4), {"padding": 1}, id="whole padded image"),
        pytest.param((2, 2, 7, 8), (3, 2), {"stride": (3, 1)}, id="unequal strides with a rest"),
        pytest.param((2, 2, 7, 8), 2, {"stride": 4}, id="gaps"),
        pytest.param((2, 2, 4, 5), 3, {"padding": ((0, 2), (3, 1))}, id="asymmetric padding"),
        pytest.param((2, 2, 3, 3), 2, {"padding": 5, "stride": 2}, id="padding larger than kernel and image"),
        pytest.param((2, 2, 9, 8), (3, 2), {"dilation": (2, 3), "padding": 1}, id="dilation"),
        pytest.param((2, 2, 6, 7), (3, 4), {"padding": "same", "stride": (1, 2)}, id="same"),
        pytest.param((2, 2, 6, 7), (3, 4), {"padding": "valid"}, id="valid"),
        pytest.param((0, 2, 6, 7), 3, {}, id="empty batch"),
        pytest.param((7, 2, 3, 3), 3, {"padding": 1}, id="several images"),
    ],
)
def test_geometry(
    shape: tuple[int, ...],
    kernel_size: Any,
    options: dict[str, Any],
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    check(shape, kernel_size, options, data_format, dtype, device)


@given(
    window=window_cases(),
    batch=st.integers(0, 3),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "float64"]),
    data_format=st.sampled_from(["channels_first", "channels_last"]),
)
def test_any_geometry(window: WindowCase, batch: int, channels: int, dtype: str, data_format: str, device: str) -> None:
    check((batch, channels, *window.size), window.kernel, window.options, data_format, dtype, device)


def test_the_defaults(device: str) -> None:
    x = normal(1, (2, 3, 5, 6))
    col = call(xc.im2col, x, 3, device=device)
    assert_close(col, reference.im2col(x, 3), np.float64)
    assert_close(call(xc.col2im, col, x.shape, 3, device=device), reference.col2im(col, x.shape, 3), np.float64)


def test_a_row_is_a_window_and_a_product_with_it_a_convolution(device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (2, 3, 5, 6)), data_format)
    w = reference.weight_from_channels_first(normal(2, (4, 3, 2, 3)), data_format)
    col = call(xc.im2col, x, (2, 3), device=device, data_format=data_format)
    product = col @ w.reshape(4, -1).T if data_format == "channels_first" else col @ w.reshape(-1, 4)
    y = reference.conv2d(x, w, data_format=data_format)
    assert_close(product, reference.to_channels_first(y, data_format).transpose(0, 2, 3, 1).reshape(-1, 4), np.float64)


@pytest.mark.parametrize("shape", [(5, 8, 90, 90), (1, 3, 517, 389)])
def test_large_images(shape: tuple[int, ...], device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, shape, np.float32), data_format)
    options = {"stride": (2, 1), "padding": 1, "data_format": data_format}
    col = call(xc.im2col, x, 3, device=device, **options)
    windows = reference.Windows(shape[2:], 3, (2, 1), 1)
    padded = reference.pad(reference.to_channels_first(x, data_format), windows.pads)
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2]
    order = (0, 2, 3, 1, 4, 5) if data_format == "channels_first" else (0, 2, 3, 4, 5, 1)
    np.testing.assert_array_equal(col, view.transpose(order).reshape(col.shape))
    # Every pixel comes back as often as windows have read it.
    readers = np.zeros(padded.shape[2:])
    for i, j in np.ndindex(*windows.outputs):
        readers[windows.slices(i, j)] += 1
    dx = call(xc.col2im, col, x.shape, 3, device=device, **options)
    counts = reference.crop(readers[None, None], windows.pads, windows.size)
    assert_close(dx, x * reference.from_channels_first(counts, data_format), np.float32)


@pytest.mark.parametrize("memory", MEMORY_LAYOUTS)
def test_arrays_in_unusual_memory(memory: str, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    store = MEMORY_LAYOUTS[memory]
    x = reference.from_channels_first(normal(1, (2, 3, 5, 6), dtype), data_format)
    options = {"stride": (1, 2), "padding": (0, 1), "data_format": data_format}
    expected = reference.im2col(x, 3, **options)
    assert_close(call(xc.im2col, store(x), 3, device=device, **options), expected, dtype)
    dcol = normal(2, expected.shape, dtype)
    dx = call(xc.col2im, store(dcol), x.shape, 3, device=device, **options)
    assert_close(dx, reference.col2im(dcol, x.shape, 3, **options), dtype)


def test_a_single_image_needs_no_batch_axis(device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (1, 3, 5, 6)), data_format)
    expected = reference.im2col(x, 2, data_format=data_format)
    col = call(xc.im2col, x[0], 2, device=device, data_format=data_format)
    assert_close(col, expected, np.float64)
    dx = call(xc.col2im, col, x.shape[1:], 2, device=device, data_format=data_format)
    assert_close(dx, reference.col2im(col, x.shape, 2, data_format=data_format)[0], np.float64)


@pytest.mark.parametrize(
    ("x_dtype", "expected"),
    [("bool", "float32"), ("uint8", "float32"), ("int64", "float32"), (">f4", "float32"), (">f8", "float64")],
)
def test_dtype_of_the_result(x_dtype: str, expected: str, device: str) -> None:
    x = np.random.default_rng(1).integers(0, 2, (2, 3, 5, 6)).astype(x_dtype)
    col = call(xc.im2col, x, 2, device=device)
    assert_close(col, reference.im2col(x, 2), expected)
    dx = call(xc.col2im, col.astype(x_dtype), x.shape, 2, device=device)
    assert_close(dx, reference.col2im(col, x.shape, 2), expected)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_where_they_are(value: float, device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (2, 3, 5, 6)), data_format).copy()
    reference.to_channels_first(x, data_format)[1, 1, 2, 3] = value
    options = {"padding": 1, "data_format": data_format}
    col = call(xc.im2col, x, 3, device=device, **options)
    np.testing.assert_array_equal(col, reference.im2col(x, 3, **options))
    assert np.count_nonzero(~np.isfinite(col)) == 9
    col[0, 13], col[-1, 13] = value, -np.inf
    dx = call(xc.col2im, col, x.shape, 3, device=device, **options)
    assert_close(dx, reference.col2im(col, x.shape, 3, **options), np.float64)


def test_the_same_input_gives_the_same_bits(device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (5, 8, 40, 41), np.float32), data_format)
    options = {"stride": 2, "padding": 1, "data_format": data_format, "device": device}
    col = call(xc.im2col, x, 3, **options)
    dx = call(xc.col2im, col, x.shape, 3, **options)
    for _ in range(3):
        assert call(xc.im2col, x, 3, **options).tobytes() == col.tobytes()
        assert call(xc.col2im, col, x.shape, 3, **options).tobytes() == dx.tobytes()
