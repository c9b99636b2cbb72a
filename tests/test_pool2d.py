"""Maximum, average, global and adaptive pooling, their gradients, and unpooling, on every device."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import reference
import threadpoolctl
from conftest import MEMORY_LAYOUTS, WindowCase, assert_close, call, normal, window_cases
from hypothesis import given
from hypothesis import strategies as st

import xpconv as xc

Array = np.ndarray[Any, np.dtype[Any]]
FORMATS = ["channels_first", "channels_last"]


def integers(seed: int, shape: tuple[int, ...], data_format: str, dtype: Any = np.float64) -> Array:
    """Small whole numbers: many ties, and sums that every dtype holds exactly. ``shape`` is channels_first."""
    drawn = np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)
    return reference.from_channels_first(drawn, data_format)


def no_window_misses(size: tuple[int, int], pool_size: Any, options: dict[str, Any]) -> bool:
    """Whether each window reads a pixel of the image."""
    settings = {"stride": pool_size, "padding": 0, **options}
    windows = reference.Windows(size, pool_size, **settings)
    return all(windows.pixels(i, j) for i, j in np.ndindex(*windows.outputs))


def check_max(x: Array, pool_size: Any, options: dict[str, Any], device: str) -> None:
    """Hold maximum pooling and its gradient against the reference, bit for bit."""
    expected, expected_indices = reference.max_pool2d(x, pool_size, **options)
    y = call(xc.max_pool2d, x, pool_size, device=device, **options)
    again, indices = call(xc.max_pool2d, x, pool_size, device=device, return_indices=True, **options)
    assert y.dtype == again.dtype == x.dtype.newbyteorder("=")
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(indices, expected_indices)
    dy = np.random.default_rng(5).integers(-8, 9, y.shape).astype(x.dtype)
    dx = call(xc.max_pool2d_backward, dy, indices, x.shape, pool_size, device=device, **options)
    assert dx.dtype == x.dtype.newbyteorder("=")
    np.testing.assert_array_equal(dx, reference.scatter_add(dy, indices, x.shape, options["data_format"]))


def check_avg(x: Array, pool_size: Any, options: dict[str, Any], device: str) -> None:
    """Hold average pooling and its gradient against the reference."""
    dtype = x.dtype.newbyteorder("=")
    y = call(xc.avg_pool2d, x, pool_size, device=device, **options)
    assert_close(y, reference.avg_pool2d(x, pool_size, **options), dtype)
    dy = normal(5, y.shape, dtype)
    dx = call(xc.avg_pool2d_backward, dy, x.shape, pool_size, device=device, **options)
    assert_close(dx, reference.avg_pool2d_backward(dy, x.shape, pool_size, **options), dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Geometry
# ----------------------------------------------------------------------------------------------------------------------

GEOMETRIES = [
    # x.shape, pool_size, options
    pytest.param((2, 3, 6, 8), 2, {}, id="plain"),
    pytest.param((2, 3, 7, 9), 2, {}, id="a rest"),
    pytest.param((1, 1, 1, 1), 1, {}, id="one pixel"),
    pytest.param((2, 3, 5, 6), 1, {}, id="1x1"),
    pytest.param((2, 3, 5, 6), 1, {"stride": 2}, id="1x1 with stride"),
    pytest.param((2, 3, 5, 6), (5, 6), {}, id="whole image"),
    pytest.param((2, 3, 5, 6), (7, 8), {"padding": 1}, id="whole padded image"),
    pytest.param((2, 2, 7, 8), (3, 2), {"stride": 1}, id="overlapping"),
    pytest.param((2, 2, 9, 9), (3, 2), {"stride": (2, 1), "padding": (1, 1)}, id="unequal"),
    pytest.param((2, 2, 9, 9), 2, {"stride": 4}, id="gaps"),
    pytest.param((2, 2, 5, 5), 2, {"stride": 9}, id="stride larger than the image"),
    pytest.param((2, 2, 1, 9), (1, 3), {}, id="one row"),
    pytest.param((2, 2, 9, 1), (3, 1), {}, id="one column"),
    pytest.param((2, 2, 5, 6), 3, {"padding": ((0, 2), (1, 0)), "stride": 1}, id="asymmetric padding"),
    pytest.param((2, 2, 1, 1), 3, {"padding": ((2, 0), (0, 2)), "stride": 1}, id="one pixel in the corner"),
    pytest.param((2, 2, 4, 4), 5, {"padding": 4, "stride": 3}, id="padding nearly as large as the window"),
    pytest.param((2, 2, 7, 8), 2, {"padding": "same"}, id="same"),
    pytest.param((2, 2, 7, 8), 3, {"padding": "same", "stride": (1, 2)}, id="same with stride"),
    pytest.param((2, 2, 7, 8), 3, {"padding": "valid", "stride": 2}, id="valid"),
    pytest.param((2, 2, 8, 9), 3, {"stride": 2, "ceil_mode": True}, id="ceil_mode"),
    pytest.param((2, 2, 8, 8), 3, {"stride": 2, "padding": 1, "ceil_mode": True}, id="ceil_mode and padding"),
    pytest.param((2, 2, 8, 7), 2, {"stride": 3, "padding": 1, "ceil_mode": True}, id="ceil_mode, dropped window"),
    pytest.param((2, 2, 7, 5), (4, 3), {"stride": 3, "padding": (2, 1), "ceil_mode": True}, id="ceil_mode, overhang"),
    pytest.param((2, 2, 6, 6), 3, {"stride": 2, "padding": ((0, 1), (1, 2)), "ceil_mode": True}, id="ceil, asymmetric"),
    pytest.param((2, 2, 18, 17), (16, 16), {"stride": 1}, id="256 taps"),
    pytest.param((2, 2, 19, 20), (17, 18), {"stride": 1, "padding": 1}, id="306 taps"),
    pytest.param((0, 2, 6, 6), 2, {}, id="empty batch"),
]
DILATED = [
    pytest.param((2, 2, 9, 8), 2, {"dilation": 3}, id="dilation"),
    pytest.param((2, 2, 9, 9), (2, 3), {"dilation": (3, 2), "padding": (1, 2), "stride": 1}, id="dilation and padding"),
    pytest.param((2, 2, 8, 8), 3, {"dilation": 2, "stride": 2, "padding": 1, "ceil_mode": True}, id="dilation, ceil"),
    pytest.param((2, 2, 3, 3), 3, {"dilation": 3, "padding": 3, "stride": 1}, id="only the middle tap"),
    pytest.param((2, 2, 5, 6), 2, {"dilation": 2, "padding": "same", "stride": 1}, id="dilation, same"),
]


@pytest.mark.parametrize(("shape", "pool_size", "options"), [*GEOMETRIES, *DILATED])
def test_max_pooling(
    shape: tuple[int, ...],
    pool_size: Any,
    options: dict[str, Any],
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    check_max(integers(1, shape, data_format, dtype), pool_size, {**options, "data_format": data_format}, device)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("shape", "pool_size", "options"), GEOMETRIES)
def test_average_pooling(
    shape: tuple[int, ...],
    pool_size: Any,
    options: dict[str, Any],
    count_include_pad: bool,
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    x = reference.from_channels_first(normal(1, shape, dtype), data_format)
    options = {**options, "count_include_pad": count_include_pad, "data_format": data_format}
    check_avg(x, pool_size, options, device)


@pytest.mark.usefixtures("smallest_parts")
@pytest.mark.parametrize(("shape", "pool_size", "options"), GEOMETRIES)
def test_geometry_in_the_smallest_parts(
    shape: tuple[int, ...], pool_size: Any, options: dict[str, Any], device: str, data_format: str
) -> None:
    options = {**options, "data_format": data_format}
    x = integers(1, (5, *shape[1:]), data_format)
    check_max(x, pool_size, options, device)
    check_avg(x, pool_size, options, device)


shapes = st.tuples(st.integers(0, 3), st.integers(1, 3))  # batch, channels
kinds = st.tuples(st.sampled_from(["float32", "float64"]), st.sampled_from(FORMATS), st.integers(0, 1000))


@given(window=window_cases(), shape=shapes, ceil_mode=st.booleans(), kind=kinds)
def test_any_max_pooling(
    window: WindowCase, shape: tuple[int, int], ceil_mode: bool, kind: tuple[str, str, int], device: str
) -> None:
    dtype, data_format, seed = kind
    options = {**window.options, "ceil_mode": ceil_mode}
    x = integers(seed, (*shape, *window.size), data_format, dtype)
    if no_window_misses(window.size, window.kernel, options):
        check_max(x, window.kernel, {**options, "data_format": data_format}, device)
    else:
        with pytest.raises(ValueError, match=r"^max_pool2d: "):
            call(xc.max_pool2d, x, window.kernel, **options, data_format=data_format, device=device)


@given(
    window=window_cases(dilated=False),
    shape=shapes,
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
    kind=kinds,
)
def test_any_average_pooling(
    window: WindowCase,
    shape: tuple[int, int],
    ceil_mode: bool,
    count_include_pad: bool,
    kind: tuple[str, str, int],
    device: str,
) -> None:
    dtype, data_format, seed = kind
    options = {**window.options, "ceil_mode": ceil_mode}
    possible = no_window_misses(window.size, window.kernel, options)
    options = {**options, "count_include_pad": count_include_pad, "data_format": data_format}
    x = reference.from_channels_first(normal(seed, (*shape, *window.size), dtype), data_format)
    if possible:
        check_avg(x, window.kernel, options, device)
    else:
        with pytest.raises(ValueError, match=r"^avg_pool2d: "):
            call(xc.avg_pool2d, x, window.kernel, **options, device=device)


@pytest.mark.parametrize("batch", range(10))
def test_batches_smaller_and_larger_than_the_number_of_threads(batch: int, device: str, data_format: str) -> None:
    options = {"stride": 2, "padding": 1, "data_format": data_format}
    check_max(integers(1, (batch, 2, 4, 5), data_format, np.float32), 3, options, device)
    check_avg(integers(1, (batch, 2, 4, 5), data_format, np.float32), 3, options, device)


@pytest.mark.parametrize("threads", [1, 3, 7])
def test_any_number_of_threads(threads: int, device: str, data_format: str) -> None:
    with threadpoolctl.threadpool_limits(threads):
        for batch in (1, 2, 5, 16):
            options = {"stride": 2, "padding": 1, "data_format": data_format}
            check_max(integers(1, (batch, 2, 4, 5), data_format, np.float32), 3, options, device)
            check_avg(integers(1, (batch, 2, 4, 5), data_format, np.float32), 3, options, device)


def test_the_defaults(device: str) -> None:
    x = integers(1, (2, 3, 6, 8), "channels_first")
    y, indices = reference.max_pool2d(x, 2)
    dy = normal(2, y.shape)
    assert_close(call(xc.max_pool2d, x, device=device), y, np.float64)
    dx = call(xc.max_pool2d_backward, dy, indices, x.shape, device=device)
    assert_close(dx, reference.scatter_add(dy, indices, x.shape), np.float64)
    assert_close(call(xc.avg_pool2d, x, device=device), reference.avg_pool2d(x, 2), np.float64)
    dx = call(xc.avg_pool2d_backward, dy, x.shape, device=device)
    assert_close(dx, reference.avg_pool2d_backward(dy, x.shape, 2), np.float64)
    assert_close(call(xc.max_unpool2d, y, indices, device=device), reference.max_unpool2d(y, indices, 2), np.float64)
    assert_close(call(xc.avg_pool2d, x, 3, device=device), reference.avg_pool2d(x, 3, stride=3), np.float64)


def test_no_device_follows_the_arrays() -> None:
    x = integers(1, (2, 3, 6, 7), "channels_first")
    y = xc.max_pool2d(x)
    assert isinstance(y, np.ndarray)
    assert_close(y, reference.max_pool2d(x, 2)[0], np.float64)


def test_a_single_image_needs_no_batch_axis(device: str, data_format: str) -> None:
    x = integers(1, (1, 3, 6, 7), data_format)
    layout = {"data_format": data_format}
    y, indices = reference.max_pool2d(x, 2, **layout)
    dy = reference.from_channels_first(normal(2, (1, 3, 3, 3)), data_format)
    actual, actual_indices = call(xc.max_pool2d, x[0], device=device, return_indices=True, **layout)
    assert_close(actual, y[0], np.float64)
    np.testing.assert_array_equal(actual_indices, indices[0], strict=True)
    dx = call(xc.max_pool2d_backward, dy[0], indices[0], x.shape[1:], device=device, **layout)
    assert_close(dx, reference.scatter_add(dy, indices, x.shape, data_format)[0], np.float64)
    unpooled = call(xc.max_unpool2d, y[0], indices[0], output_size=(6, 7), device=device, **layout)
    expected = reference.max_unpool2d(y, indices, output_size=(6, 7), **layout)[0]
    assert_close(unpooled, expected, np.float64)
    y = call(xc.avg_pool2d, x[0], device=device, **layout)
    assert_close(y, reference.avg_pool2d(x, 2, **layout)[0], np.float64)
    dx = call(xc.avg_pool2d_backward, dy[0], x.shape[1:], device=device, **layout)
    assert_close(dx, reference.avg_pool2d_backward(dy, x.shape, 2, **layout)[0], np.float64)


# Beyond the caches, so that every device must cut the work into parts.
LARGE = {
    "2x2": ((11, 48, 64, 66), (2, 2), {"stride": (2, 2)}),
    "3x3 with padding": ((4, 32, 75, 56), (3, 3), {"stride": (2, 2), "padding": (1, 1)}),
    "one large image": ((1, 2, 1031, 517), (3, 2), {"stride": (2, 3), "padding": ((0, 2), (1, 0))}),
    "many small images": ((517, 6, 9, 9), (2, 2), {"stride": (1, 1)}),
}


@functools.cache
def large_case(name: str) -> tuple[Array, ...]:
    """(x, dy, y, indices, dx, mean, dx of the mean)."""
    shape, pool_size, options = LARGE[name]
    x = integers(1, shape, "channels_first")
    y, indices = reference.large_max_pool2d(x, pool_size, **options)
    dy = integers(2, y.shape, "channels_first")
    dx = reference.large_scatter_add(dy, indices, shape)
    area = np.prod(pool_size)
    mean = reference.large_sum_pool2d(x, pool_size, **options) / area
    return x, dy, y, indices, dx, mean, reference.large_sum_pool2d_backward(dy / area, shape, pool_size, **options)


@pytest.mark.parametrize("name", LARGE)
def test_large_images(name: str, device: str, data_format: str) -> None:
    _, pool_size, options = LARGE[name]
    x, dy, y, indices, dx, mean, mean_dx = (reference.from_channels_first(array, data_format) for array in large_case(name))
    options = {**options, "data_format": data_format}
    x, dy = x.astype(np.float32), dy.astype(np.float32)
    actual, actual_indices = call(xc.max_pool2d, x, pool_size, device=device, return_indices=True, **options)
    np.testing.assert_array_equal(actual, y)
    np.testing.assert_array_equal(actual_indices, indices)
    np.testing.assert_array_equal(call(xc.max_pool2d, x, pool_size, device=device, **options), y)
    actual = call(xc.max_pool2d_backward, dy, indices, x.shape, pool_size, device=device, **options)
    np.testing.assert_array_equal(actual, dx)
    assert_close(call(xc.avg_pool2d, x, pool_size, device=device, **options), mean, np.float32)
    actual = call(xc.avg_pool2d_backward, dy, x.shape, pool_size, device=device, **options)
    assert_close(actual, mean_dx, np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# Memory
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORY_LAYOUTS)
def test_arrays_in_unusual_memory(memory: str, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    store = MEMORY_LAYOUTS[memory]
    x = integers(1, (3, 4, 6, 7), data_format, dtype)
    options = {"stride": 2, "padding": 1, "data_format": data_format}
    check_max(store(x), 3, options, device)
    check_avg(store(x), 3, options, device)
    y, indices = reference.max_pool2d(x, 2, data_format=data_format)
    dy = normal(2, y.shape, dtype)
    layout = {"device": device, "data_format": data_format}
    dx = call(xc.max_pool2d_backward, store(dy), store(indices), x.shape, **layout)
    assert_close(dx, reference.scatter_add(dy, indices, x.shape, data_format), dtype)
    dx = call(xc.avg_pool2d_backward, store(dy), x.shape, **layout)
    assert_close(dx, reference.avg_pool2d_backward(dy, x.shape, data_format=data_format), dtype)
    unpooled = call(xc.max_unpool2d, store(dy), store(indices), output_size=(6, 7), **layout)
    expected = reference.max_unpool2d(dy, indices, output_size=(6, 7), data_format=data_format)
    assert_close(unpooled, expected, dtype)
    y = call(xc.adaptive_avg_pool2d, store(x), (4, 3), **layout)
    assert_close(y, reference.adaptive_avg_pool2d(x, (4, 3), data_format=data_format), dtype)
    y, indices = call(xc.adaptive_max_pool2d, store(x), (4, 3), return_indices=True, **layout)
    expected, expected_indices = reference.adaptive_max_pool2d(x, (4, 3), data_format=data_format)
    assert_close(y, expected, dtype)
    np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize("index_dtype", ["int8", "uint16", "int32", "uint64"])
def test_indices_of_any_integer_type(index_dtype: str, device: str) -> None:
    x = integers(1, (2, 3, 6, 7), "channels_first")
    y, indices = reference.max_pool2d(x, 2)
    dx = call(xc.max_pool2d_backward, y, indices.astype(index_dtype), x.shape, device=device)
    assert_close(dx, reference.scatter_add(y, indices, x.shape), np.float64)


def test_the_same_input_gives_the_same_bits(device: str, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (9, 16, 61, 60), np.float32), data_format)
    options = {"stride": 2, "padding": 1, "data_format": data_format, "device": device}

    def run() -> list[bytes]:
        y, indices = call(xc.max_pool2d, x, 3, return_indices=True, **options)
        mean = call(xc.avg_pool2d, x, 3, **options)
        dx = call(xc.max_pool2d_backward, y, indices, x.shape, 3, **options)
        mean_dx = call(xc.avg_pool2d_backward, y, x.shape, 3, **options)
        return [array.tobytes() for array in (y, indices, mean, dx, mean_dx)]

    first = run()
    for _ in range(3):
        assert run() == first
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: run(), range(8))) == [first] * 8


def test_a_result_stays_as_it_is_when_the_function_is_called_again(device: str, data_format: str) -> None:
    options = {"stride": 1, "padding": 1, "data_format": data_format}
    x = integers(1, (2, 3, 6, 7), data_format)
    y, indices = call(xc.max_pool2d, x, 3, return_indices=True, device=device, **options)
    dx = call(xc.max_pool2d_backward, y, indices, x.shape, 3, device=device, **options)
    mean = call(xc.avg_pool2d, x, 3, device=device, **options)
    mean_dx = call(xc.avg_pool2d_backward, mean, x.shape, 3, device=device, **options)
    results = (y, indices, dx, mean, mean_dx)
    before = [array.copy() for array in results]
    other = integers(8, (2, 3, 6, 7), data_format)
    check_max(other, 3, options, device)
    check_avg(other, 3, options, device)
    for array, copy in zip(results, before, strict=True):
        np.testing.assert_array_equal(array, copy)


# ----------------------------------------------------------------------------------------------------------------------
# Dtypes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x_dtype", "expected"),
    [("bool", "float32"), ("uint8", "float32"), ("int64", "float32"), (">f4", "float32"), (">f8", "float64")],
)
def test_dtype_of_the_result(x_dtype: str, expected: str, device: str) -> None:
    x = np.random.default_rng(1).integers(0, 2, (2, 3, 6, 7)).astype(x_dtype)
    y, indices = reference.max_pool2d(x, 2)
    assert_close(call(xc.max_pool2d, x, device=device), y, expected)
    assert_close(call(xc.avg_pool2d, x, device=device), reference.avg_pool2d(x, 2), expected)
    dy = y.astype(x_dtype)
    dx = call(xc.max_pool2d_backward, dy, indices, x.shape, device=device)
    assert_close(dx, reference.scatter_add(dy, indices, x.shape), expected)
    dx = call(xc.avg_pool2d_backward, dy, x.shape, device=device)
    assert_close(dx, reference.avg_pool2d_backward(dy, x.shape), expected)
    assert_close(call(xc.max_unpool2d, dy, indices, output_size=(6, 7), device=device).sum(), dy.sum(), expected)
    assert_close(call(xc.adaptive_avg_pool2d, x, 3, device=device), reference.adaptive_avg_pool2d(x, 3), expected)
    assert_close(call(xc.adaptive_max_pool2d, x, 3, device=device), reference.adaptive_max_pool2d(x, 3)[0], expected)
    assert_close(call(xc.global_avg_pool2d, x, device=device), x.astype("f8").mean((2, 3)), expected)
    assert_close(call(xc.global_max_pool2d, x, device=device), x.astype("f8").max((2, 3)), expected)


# ----------------------------------------------------------------------------------------------------------------------
# NaN, infinity and padding
# ----------------------------------------------------------------------------------------------------------------------

PADDED = [
    pytest.param(2, {"stride": 1, "padding": 1}, id="2x2"),
    pytest.param(3, {"stride": 2, "padding": 1, "ceil_mode": True}, id="3x3"),
    pytest.param((3, 4), {"stride": 1, "padding": ((2, 0), (0, 3))}, id="asymmetric"),
    pytest.param(3, {"stride": 1, "padding": 2, "dilation": 2}, id="dilation"),
    pytest.param(2, {"padding": "same"}, id="same"),
]


@pytest.mark.parametrize(("pool_size", "options"), PADDED)
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, -1.0, -0.0])
def test_padding_never_wins(
    value: float, pool_size: Any, options: dict[str, Any], device: str, dtype: np.dtype[Any], data_format: str
) -> None:
    """Also where nothing is greater than -inf: the index is the window's first pixel, never the padding."""
    x = np.full((2, 2, 5, 7), value, dtype)
    x[1, 0] = normal(1, (5, 7)) - 5
    options = {**options, "data_format": data_format}
    check_max(reference.from_channels_first(x, data_format), pool_size, options, device)


@pytest.mark.parametrize(("pool_size", "options"), PADDED)
def test_nan_wins_every_window_that_holds_it(
    pool_size: Any, options: dict[str, Any], device: str, dtype: np.dtype[Any], data_format: str
) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-2, 3, (4, 3, 8, 9)).astype(dtype)
    for value, chance in ((np.nan, 0.1), (np.inf, 0.1), (-np.inf, 0.2)):
        x[1:][rng.random(x[1:].shape) < chance] = value
    options = {**options, "data_format": data_format}
    laid_out = reference.from_channels_first(x, data_format)
    y = call(xc.max_pool2d, laid_out, pool_size, device=device, **options)
    assert np.isfinite(y[0]).all()  # the one image without NaN
    assert np.isnan(y[1:]).any()
    check_max(laid_out, pool_size, options, device)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_reach_the_winners_alone(value: float, device: str, data_format: str) -> None:
    x = integers(1, (2, 2, 6, 6), data_format)
    layout = {"data_format": data_format}
    y, indices = reference.max_pool2d(x, 3, stride=2, **layout)
    dy = np.ones(y.shape)
    dy[0, 0, 1, 1] = value
    dx = call(xc.max_pool2d_backward, dy, indices, x.shape, 3, stride=2, device=device, **layout)
    np.testing.assert_array_equal(dx, reference.scatter_add(dy, indices, x.shape, data_format))
    dx = call(xc.avg_pool2d_backward, dy, x.shape, 3, stride=2, device=device, **layout)
    assert_close(dx, reference.avg_pool2d_backward(dy, x.shape, 3, stride=2, **layout), np.float64)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_averages_of_nan_and_infinity(
    count_include_pad: bool, value: float, device: str, dtype: np.dtype[Any], data_format: str
) -> None:
    x = normal(1, (3, 2, 7, 8), dtype)
    x[1, 1, 3, 3], x[1, 1, 6, 0], x[2, 0, 0, 0], x[2, 0, 0, 1] = value, value, value, -np.inf
    laid_out = reference.from_channels_first(x, data_format)
    options = {"stride": 2, "padding": 1, "count_include_pad": count_include_pad, "data_format": data_format}
    y = call(xc.avg_pool2d, laid_out, 3, device=device, **options)
    assert np.isfinite(y[0]).all()
    assert np.count_nonzero(~np.isfinite(y[1])) == 5
    check_avg(laid_out, 3, options, device)


# ----------------------------------------------------------------------------------------------------------------------
# Unpooling
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "pool_size", "options", "output_size"),
    [
        pytest.param((2, 3, 6, 8), 2, {}, None, id="plain"),
        pytest.param((2, 3, 7, 9), 2, {}, (7, 9), id="output_size"),
        pytest.param((2, 3, 8, 8), (2, 3), {"stride": (2, 3), "padding": (0, 1)}, (8, 8), id="unequal"),
        pytest.param((2, 3, 9, 9), 2, {"stride": 3}, (9, 9), id="gaps"),
        pytest.param((0, 3, 6, 8), 2, {}, None, id="empty batch"),
    ],
)
def test_unpooling(
    shape: tuple[int, ...],
    pool_size: Any,
    options: dict[str, Any],
    output_size: Any,
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    x = reference.from_channels_first(normal(1, shape, dtype), data_format)
    options = {**options, "data_format": data_format}
    y, indices = reference.max_pool2d(x, pool_size, **options)
    options["output_size"] = output_size
    unpooled = call(xc.max_unpool2d, y.astype(dtype), indices, pool_size, device=device, **options)
    assert_close(unpooled, reference.max_unpool2d(y, indices, pool_size, **options), dtype)
    assert unpooled.shape == x.shape


# ----------------------------------------------------------------------------------------------------------------------
# Adaptive and global pooling
# ----------------------------------------------------------------------------------------------------------------------


def check_adaptive(x: Array, output_size: Any, data_format: str, device: str) -> None:
    layout = {"data_format": data_format}
    dtype = x.dtype
    y = call(xc.adaptive_avg_pool2d, x, output_size, device=device, **layout)
    assert_close(y, reference.adaptive_avg_pool2d(x, output_size, **layout), dtype)
    dy = normal(2, y.shape, dtype)
    dx = call(xc.adaptive_avg_pool2d_backward, dy, x.shape, device=device, **layout)
    assert_close(dx, reference.adaptive_avg_pool2d_backward(dy, x.shape, **layout), dtype)
    expected, expected_indices = reference.adaptive_max_pool2d(x, output_size, **layout)
    assert_close(call(xc.adaptive_max_pool2d, x, output_size, device=device, **layout), expected, dtype)
    y, indices = call(xc.adaptive_max_pool2d, x, output_size, return_indices=True, device=device, **layout)
    assert_close(y, expected, dtype)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, expected_indices)
    dx = call(xc.adaptive_max_pool2d_backward, dy, indices, x.shape, device=device, **layout)
    assert_close(dx, reference.scatter_add(dy, indices, x.shape, data_format), dtype)


@pytest.mark.parametrize(
    ("shape", "output_size"),
    [
        pytest.param((2, 3, 6, 8), 1, id="global"),
        pytest.param((2, 3, 6, 8), (3, 4), id="even"),
        pytest.param((2, 3, 7, 9), (3, 4), id="overlapping"),
        pytest.param((2, 3, 5, 6), (5, 6), id="as it is"),
        pytest.param((2, 3, 4, 3), (7, 8), id="larger than the image"),
        pytest.param((2, 3, 1, 1), (3, 2), id="one pixel"),
        pytest.param((3, 2, 9, 2), (2, 9), id="unequal"),
        pytest.param((0, 3, 6, 8), 2, id="empty batch"),
    ],
)
def test_adaptive_pooling(
    shape: tuple[int, ...], output_size: Any, device: str, dtype: np.dtype[Any], data_format: str
) -> None:
    check_adaptive(integers(1, shape, data_format, dtype), output_size, data_format, device)


@given(shape=st.tuples(*[st.integers(1, 9)] * 2), output_size=st.tuples(*[st.integers(1, 9)] * 2), kind=kinds)
def test_any_adaptive_pooling(
    shape: tuple[int, int], output_size: tuple[int, int], kind: tuple[str, str, int], device: str
) -> None:
    dtype, data_format, seed = kind
    check_adaptive(integers(seed, (2, 2, *shape), data_format, dtype), output_size, data_format, device)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
def test_adaptive_pooling_of_nan_and_infinity(device: str, dtype: np.dtype[Any], data_format: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-2, 3, (4, 3, 8, 9)).astype(dtype)
    for value, chance in ((np.nan, 0.1), (np.inf, 0.1), (-np.inf, 0.2)):
        x[1:][rng.random(x[1:].shape) < chance] = value
    x[3] = -np.inf
    laid_out = reference.from_channels_first(x, data_format)
    y = call(xc.adaptive_avg_pool2d, laid_out, (3, 4), device=device, data_format=data_format)
    assert np.isfinite(y[0]).all()
    check_adaptive(laid_out, (3, 4), data_format, device)


def test_a_single_image_needs_no_batch_axis_in_adaptive_pooling(device: str, data_format: str) -> None:
    x = integers(1, (1, 3, 6, 7), data_format)
    layout = {"data_format": data_format}
    mean = call(xc.adaptive_avg_pool2d, x[0], (2, 3), device=device, **layout)
    assert_close(mean, reference.adaptive_avg_pool2d(x, (2, 3), **layout)[0], np.float64)
    y, indices = call(xc.adaptive_max_pool2d, x[0], (2, 3), return_indices=True, device=device, **layout)
    expected, expected_indices = reference.adaptive_max_pool2d(x, (2, 3), **layout)
    assert_close(y, expected[0], np.float64)
    np.testing.assert_array_equal(indices, expected_indices[0], strict=True)
    dx = call(xc.adaptive_max_pool2d_backward, y, indices, x.shape[1:], device=device, **layout)
    assert_close(dx, reference.scatter_add(expected, expected_indices, x.shape, data_format)[0], np.float64)
    dx = call(xc.adaptive_avg_pool2d_backward, y, x.shape[1:], device=device, **layout)
    assert_close(dx, reference.adaptive_avg_pool2d_backward(expected, x.shape, **layout)[0], np.float64)


# Global pooling: NumPy's own mean and maximum are the oracle.


def planes(x: Array, data_format: str) -> Array:
    """(N, C, H * W)."""
    x = reference.to_channels_first(x, data_format)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 1, 1, 1), (3, 2, 1, 5), (0, 3, 4, 4), (2, 37, 70, 71), (1, 1, 260, 261)])
def test_global_pooling(shape: tuple[int, ...], device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x = integers(1, shape, data_format, dtype)
    layout = {"data_format": data_format, "device": device}
    mean = planes(x, data_format).mean(axis=2, dtype=np.float64)
    assert_close(call(xc.global_avg_pool2d, x, **layout), mean, dtype)
    largest = planes(x, data_format).max(axis=2)
    where = planes(x, data_format).argmax(axis=2)
    assert_close(call(xc.global_max_pool2d, x, **layout), largest, dtype)
    y, indices = call(xc.global_max_pool2d, x, return_indices=True, **layout)
    assert_close(y, largest, dtype)
    np.testing.assert_array_equal(indices, where, strict=True)

    dy = normal(2, shape[:2], dtype)
    area = shape[2] * shape[3]
    dx = call(xc.global_avg_pool2d_backward, dy, x.shape, **layout)
    expected = np.broadcast_to(dy[:, :, None] / np.float64(area), (*shape[:2], area)).reshape(shape)
    assert_close(dx, reference.from_channels_first(expected, data_format), dtype)
    dx = call(xc.global_max_pool2d_backward, dy, indices, x.shape, **layout)
    expected = np.zeros((*shape[:2], area))
    np.put_along_axis(expected, where[:, :, None], dy[:, :, None], axis=2)
    assert_close(dx, reference.from_channels_first(expected.reshape(shape), data_format), dtype)


@pytest.mark.parametrize("batched", [True, False])
def test_global_pooling_keeps_the_axes_if_asked(batched: bool, device: str, data_format: str) -> None:
    x = integers(1, (2, 3, 6, 7), data_format)
    kept = (2, 3, 1, 1) if data_format == "channels_first" else (2, 1, 1, 3)
    if not batched:
        x, kept = x[0], kept[1:]
    layout = {"data_format": data_format, "device": device}
    mean, largest = call(xc.global_avg_pool2d, x, **layout), call(xc.global_max_pool2d, x, **layout)
    assert mean.shape == largest.shape == ((2, 3) if batched else (3,))
    mean_kept = call(xc.global_avg_pool2d, x, keepdims=True, **layout)
    largest_kept, indices_kept = call(xc.global_max_pool2d, x, keepdims=True, return_indices=True, **layout)
    assert mean_kept.shape == largest_kept.shape == indices_kept.shape == kept
    np.testing.assert_array_equal(mean_kept.ravel(), mean.ravel())
    np.testing.assert_array_equal(largest_kept.ravel(), largest.ravel())
    # The gradients take either form.
    _, indices = call(xc.global_max_pool2d, x, return_indices=True, **layout)
    dx = call(xc.global_avg_pool2d_backward, mean, x.shape, **layout)
    assert dx.shape == x.shape
    np.testing.assert_array_equal(call(xc.global_avg_pool2d_backward, mean_kept, x.shape, **layout), dx)
    dx = call(xc.global_max_pool2d_backward, largest, indices, x.shape, **layout)
    assert dx.shape == x.shape
    actual = call(xc.global_max_pool2d_backward, largest_kept, indices_kept, x.shape, **layout)
    np.testing.assert_array_equal(actual, dx)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_global_pooling_of_nan_and_infinity(value: float, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x = normal(1, (3, 2, 4, 5), dtype)
    x[1, 1, 2, 3] = x[1, 1, 3, 0] = value
    x[2, 0] = value
    x = reference.from_channels_first(x, data_format)
    layout = {"data_format": data_format, "device": device}
    y, indices = call(xc.global_max_pool2d, x, return_indices=True, **layout)
    np.testing.assert_array_equal(y, planes(x, data_format).max(axis=2))
    np.testing.assert_array_equal(indices, planes(x, data_format).argmax(axis=2))
    mean = planes(x, data_format).mean(axis=2, dtype=np.float64)
    assert_close(call(xc.global_avg_pool2d, x, **layout), mean, dtype)
