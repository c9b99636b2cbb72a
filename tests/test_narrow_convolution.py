"""Convolution with few filters per group on the numba device, called by itself: who takes it is decided elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
from conftest import WindowCase, assert_close, normal, window_cases
from hypothesis import given
from hypothesis import strategies as st

from xpconv.geometry import Conv2dGeometry, conv2d_geometry
from xpconv.kernels.numba import narrow
from xpconv.kernels.numba.correlation import backward_correlations, forward_correlation
from xpconv.kernels.numba.narrow import NarrowPlan

Array = np.ndarray[Any, np.dtype[Any]]

# Elements of NaN before and behind an array, more than all registers of a tile hold.
GUARD = 128


class Case(NamedTuple):
    """A convolution in one data format."""

    geometry: Conv2dGeometry
    options: dict[str, Any]
    x: Array
    w: Array
    b: Array
    dy: Array


def convolution(
    images: tuple[int, int, int, int], filters: tuple[int, int, int, int], data_format: str, dtype: Any, **options: Any
) -> Case:
    """A case of random numbers; the shapes are given for channels_first."""
    x, w, b = normal(1, images, dtype), normal(2, filters, dtype), normal(3, filters[:1], dtype)
    if data_format == "channels_last":
        x, w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    options["data_format"] = data_format
    geometry = conv2d_geometry("conv2d", x.shape, w.shape, **options)
    return Case(geometry, options, x, w, b, normal(4, geometry.y_shape, dtype))


def guarded(array: Array) -> Array:
    """A copy of an array in the middle of NaN."""
    memory = np.full(array.size + 2 * GUARD, np.nan, array.dtype)
    inside = memory[GUARD:-GUARD].reshape(array.shape)
    inside[...] = array
    return inside


def check_guards(inside: Array) -> None:
    memory = inside
    while memory.base is not None:
        memory = memory.base
    assert np.isnan(memory[:GUARD]).all(), "written before the array"
    assert np.isnan(memory[-GUARD:]).all(), "written behind the array"


def forward(case: Case, workers: int = 2, b: Array | None = None) -> Array:
    y = guarded(np.full(case.geometry.y_shape, np.nan, case.x.dtype))
    plan = NarrowPlan((forward_correlation(case.geometry),), case.x.dtype, workers)
    plan.run(guarded(case.x), guarded(case.w), b, y)
    check_guards(y)
    return y


def backward_input(case: Case, workers: int = 2) -> Array:
    dx = guarded(np.full(case.geometry.x_shape, np.nan, case.x.dtype))
    plan = NarrowPlan(backward_correlations(case.geometry), case.x.dtype, workers)
    plan.run(guarded(case.dy), guarded(case.w), None, dx)
    check_guards(dx)
    return dx


def backward_weight(case: Case, workers: int = 2) -> tuple[Array, Array]:
    plan = NarrowPlan((forward_correlation(case.geometry),), case.x.dtype, workers)
    return narrow.weight_gradient(plan, guarded(case.x), guarded(case.dy), case.geometry)


def check(case: Case, workers: int = 2) -> None:
    """Hold all three convolutions against the reference."""
    x, w, dy, dtype, geometry = case.x, case.w, case.dy, case.x.dtype, case.geometry
    terms = geometry.taps * max(geometry.channels, geometry.filters) // geometry.groups
    assert_close(forward(case, workers, case.b), reference.conv2d(x, w, case.b, **case.options), dtype, terms=terms)
    expected = reference.conv2d_backward_input(dy, w, x.shape, **case.options)
    assert_close(backward_input(case, workers), expected, dtype, terms=terms)
    pixels = max(1, dy.size // geometry.filters)
    dw, db = reference.conv2d_backward_weight(x, dy, w.shape, **case.options)
    actual_dw, actual_db = backward_weight(case, workers)
    assert_close(actual_dw, dw, dtype, terms=pixels)
    assert_close(actual_db, db, dtype, terms=pixels)


@given(
    case=window_cases(),
    groups=st.integers(1, 3) | st.integers(15, 18),
    channels=st.integers(1, 3),
    filters=st.integers(1, 7),
    wider=st.integers(0, 20),
    batch=st.integers(1, 2),
    workers=st.integers(1, 3),
)
def test_it_agrees_with_the_reference_on_random_geometries(
    case: WindowCase,
    groups: int,
    channels: int,
    filters: int,
    wider: int,
    batch: int,
    workers: int,
    data_format: str,
    dtype: np.dtype[Any],
) -> None:
    channels, filters = (1, 1) if groups > 3 else (channels, filters)
    images = (batch, groups * channels, case.size[0], case.size[1] + wider)
    check(
        convolution(images, (groups * filters, channels, *case.kernel), data_format, dtype, groups=groups, **case.options),
        workers,
    )


LARGER = {
    "depthwise": ((2, 18, 13, 37), (18, 1, 3, 3), {"padding": 1, "groups": 18}),
    "depthwise without padding": ((1, 17, 12, 35), (17, 1, 3, 3), {"groups": 17}),
    "depthwise, rows of the filter skipped": ((1, 17, 14, 33), (17, 1, 3, 3), {"dilation": 2, "padding": 2, "groups": 17}),
    "depthwise, stride": ((2, 17, 14, 67), (17, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 17}),
    "depthwise, stride of rows": ((1, 17, 14, 20), (17, 1, 3, 3), {"padding": 1, "stride": (2, 1), "groups": 17}),
    "depthwise, stride of columns": ((1, 17, 9, 50), (17, 1, 3, 3), {"padding": 1, "stride": (1, 3), "groups": 17}),
    "depthwise, stride longer than the filter": ((1, 17, 12, 40), (17, 1, 2, 2), {"stride": 3, "groups": 17}),
    "depthwise, many taps": ((1, 17, 12, 20), (17, 1, 5, 5), {"padding": 2, "groups": 17}),
    "depthwise, narrow images": ((3, 34, 7, 7), (34, 1, 3, 3), {"padding": 1, "groups": 34}),
    "depthwise, images of one pixel": ((2, 33, 1, 1), (33, 1, 3, 3), {"padding": 1, "groups": 33}),
    "several filters for each channel": ((2, 5, 9, 21), (15, 1, 3, 3), {"padding": 1, "groups": 5}),
    "few filters": ((1, 12, 12, 37), (3, 12, 3, 3), {"padding": 1}),
    "few filters and no padding": ((1, 12, 12, 37), (2, 12, 1, 1), {}),
    "more filters than a tile has": ((1, 9, 8, 19), (7, 9, 3, 3), {"padding": 1}),
    "one channel": ((2, 1, 28, 28), (4, 1, 5, 5), {}),
    "padding wider than the image": ((1, 2, 3, 4), (2, 1, 3, 3), {"padding": 6, "groups": 2}),
}


@pytest.mark.parametrize("name", LARGER)
def test_it_agrees_with_the_reference_beyond_a_tile(name: str, data_format: str, dtype: np.dtype[Any]) -> None:
    images, filters, options = LARGER[name]
    check(convolution(images, filters, data_format, dtype, **options), workers=3)


TALL = {
    "depthwise": ((1, 17, 33, 18), (17, 1, 3, 3), {"padding": 1, "groups": 17}),
    "depthwise, stride": ((1, 17, 35, 34), (17, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 17}),
    "few filters": ((1, 3, 17, 18), (3, 3, 3, 3), {"padding": 1}),
    "few filters and no padding": ((1, 3, 17, 18), (2, 3, 1, 1), {}),
}


@pytest.mark.parametrize("name", TALL)
def test_large_images_are_cut_into_bands(name: str, data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, filters, options = TALL[name]
    case = convolution(images, filters, data_format, np.float64, **options)
    plan = NarrowPlan((forward_correlation(case.geometry),), case.x.dtype, 1)
    monkeypatch.setattr(narrow, "BAND_BYTES", 1)
    cut = NarrowPlan((forward_correlation(case.geometry),), case.x.dtype, 1)
    assert cut.template.bands > max(2, plan.template.bands)
    check(case)


def test_workers_share_their_sums_where_there_is_no_room_for_a_copy_each(
    data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = convolution((4, 12, 12, 37), (3, 12, 3, 3), data_format, np.float64, padding=1)
    dw, db = reference.conv2d_backward_weight(case.x, case.dy, case.w.shape, **case.options)
    monkeypatch.setattr(narrow, "SUMS_BYTES", 1)
    for workers in range(1, 6):
        actual_dw, actual_db = backward_weight(case, workers)
        assert_close(actual_dw, dw, np.float64, terms=100)
        assert_close(actual_db, db, np.float64, terms=100)


@pytest.mark.parametrize("compute", [forward, backward_input, backward_weight])
def test_the_same_number_of_threads_gives_the_same_bits(compute: Callable[..., Any], data_format: str) -> None:
    case = convolution((3, 40, 20, 37), (40, 1, 3, 3), data_format, np.float32, padding=1, groups=40)
    first = np.concatenate([array.ravel() for array in np.atleast_1d(*compute(case, 3))])
    for _ in range(3):
        again = np.concatenate([array.ravel() for array in np.atleast_1d(*compute(case, 3))])
        np.testing.assert_array_equal(again, first)


INFINITIES = {
    "depthwise": ((1, 17, 9, 37), (17, 1, 3, 3), {"groups": 17}),
    "depthwise, narrow images": ((1, 17, 9, 8), (17, 1, 3, 3), {"groups": 17}),
    "depthwise, stride": ((1, 17, 12, 38), (17, 1, 3, 3), {"stride": 2, "groups": 17}),
    "few filters": ((1, 3, 9, 37), (3, 3, 2, 3), {}),
    "few filters, rows of the filter skipped": ((1, 3, 12, 21), (2, 3, 3, 3), {"dilation": 2}),
}


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("name", INFINITIES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_infinity_and_nan_reach_only_what_they_are_a_term_of(name: str, value: float, data_format: str) -> None:
    images, filters, options = INFINITIES[name]
    case = convolution(images, filters, data_format, np.float64, **options)
    pixels = np.random.default_rng(5)
    for array in (case.x, case.dy):
        # Some at random, and the last element of all, which the vector at the end of a row has, too.
        at = pixels.integers(0, array.size, 2)
        clean = array.copy()
        array.reshape(-1)[[*at, -1]] = value
        check(case)
        array[...] = clean


def test_no_images_give_no_gradient(data_format: str) -> None:
    check(convolution((0, 17, 6, 20), (17, 1, 3, 3), data_format, np.float64, groups=17))
