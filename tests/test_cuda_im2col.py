"""im2col and col2im of the cuda device beyond what test_im2col.py asks of every device: 16-bit types, both modes, offsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from conftest import assert_close, normal
from simulated_cards import MODES, needs_simulator, simulated_card

from xpconv.geometry import window_2d
from xpconv.kernels.cuda.im2col import col2im, im2col
from xpconv.kernels.cuda.runtime import computed_by

pytestmark = needs_simulator

CASES = [
    pytest.param((2, 3, 7, 6), 3, {}, id="plain"),
    pytest.param((2, 3, 8, 9), (3, 2), {"stride": (2, 3), "padding": ((0, 2), (3, 1))}, id="strides and paddings"),
    pytest.param((3, 2, 9, 11), (3, 2), {"dilation": (2, 4), "padding": 2}, id="dilation"),
    pytest.param((2, 2, 9, 9), 2, {"stride": 5}, id="gaps"),
    pytest.param((2, 1, 3, 2), (5, 4), {"padding": 3, "stride": 2}, id="padding larger than the image"),
    pytest.param((1, 40, 5, 5), 3, {"padding": 1}, id="more columns than threads"),
    pytest.param((40, 1, 4, 4), 1, {}, id="one column"),
    pytest.param((0, 2, 4, 4), 2, {}, id="no images"),
]


def check(shape: tuple[int, ...], kernel_size: Any, options: dict[str, Any], data_format: str, dtype: Any) -> None:
    """Hold both functions against the loops; the shape is given for channels_first."""
    x = np.ascontiguousarray(reference.from_channels_first(normal(1, shape), data_format)).astype(dtype)
    window = window_2d("test", x.shape, kernel_size, data_format=data_format, **options)
    options = {**options, "data_format": data_format}
    col = im2col(x, window)
    assert col.dtype == dtype
    expected = reference.im2col(x.astype(np.float64), kernel_size, **options)
    np.testing.assert_array_equal(col.astype(np.float64), expected)  # a copy: nothing is rounded
    dcol = normal(2, expected.shape).astype(dtype)
    dx, expected = col2im(dcol, window), reference.col2im(dcol.astype(np.float64), x.shape, kernel_size, **options)
    if np.dtype(dtype).itemsize > 2:
        assert_close(dx, expected, dtype)
    else:
        assert dx.dtype == dtype
        np.testing.assert_allclose(
            dx.astype(np.float64), expected, rtol=1.01 * 2.0 ** (-11 if dtype == np.float16 else -8), atol=1e-5
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "kernel_size", "options"), CASES)
def test_geometry(shape: tuple[int, ...], kernel_size: Any, options: dict[str, Any], data_format: str, mode: str) -> None:
    with computed_by(simulated_card(mode)):
        check(shape, kernel_size, options, data_format, np.float32)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_types(name: str, data_format: str) -> None:
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    check((2, 3, 6, 5), 3, {"padding": 1, "stride": 2}, data_format, dtype)


def test_offsets_of_64_bits(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpconv.kernels.cuda.runtime.INT_REACH", 1)
    check((2, 3, 6, 5), 3, {"padding": 1, "stride": 2}, data_format, np.float32)


def test_padding_is_not_multiplied(data_format: str) -> None:
    # Columns that were padding lead nowhere: what stands in them is lost, be it NaN.
    window = window_2d(
        "test", (1, 1, 2, 2) if data_format == "channels_first" else (1, 2, 2, 1), 3, padding=1, data_format=data_format
    )
    is_real = im2col(np.ones(window.x_shape, np.float32), window)
    dx = col2im(np.where(is_real, np.float32(1), np.float32(np.nan)), window)
    np.testing.assert_array_equal(dx, np.full(window.x_shape, 4))
