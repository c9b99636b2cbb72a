"""Winograd's algorithm on the numba device, called by itself: which convolutions take it is decided elsewhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
from conftest import normal

from xpconv.geometry import Conv2dGeometry, conv2d_geometry
from xpconv.kernels.numba import threads
from xpconv.kernels.numba.correlation import Correlation, backward_correlations, forward_correlation
from xpconv.kernels.numba.memory import borrowed
from xpconv.kernels.numba.target import lanes
from xpconv.kernels.numba.winograd import WinogradPlan

Array = np.ndarray[Any, np.dtype[Any]]

FLOAT32 = np.dtype(np.float32)
# Largest error, relative to the largest result; eight times as large with the points 1 and 2.
PRECISION = 4e-6


class Case(NamedTuple):
    """A convolution of random numbers."""

    geometry: Conv2dGeometry
    options: dict[str, Any]
    x: Array
    w: Array
    b: Array
    dy: Array


def case(
    batch: int, channels: int, size: tuple[int, int], filters: int, data_format: str, kernel: int = 3, **options: Any
) -> Case:
    per_group = channels // options.get("groups", 1)
    x_shape = (batch, channels, *size) if data_format == "channels_first" else (batch, *size, channels)
    w_shape = (filters, per_group, kernel, kernel) if data_format == "channels_first" else (kernel, kernel, per_group, filters)
    geometry = conv2d_geometry("conv2d", x_shape, w_shape, data_format=data_format, **options)
    arrays = (normal(seed, shape, FLOAT32) for seed, shape in enumerate((x_shape, w_shape, (filters,), geometry.y_shape)))
    return Case(geometry, {**options, "data_format": data_format}, *arrays)


class BorrowedNan(borrowed):
    """Memory full of NaN, which spreads to the result of whoever reads before writing."""

    def __enter__(self) -> int:
        place = super().__enter__()
        self.memory.view(np.float32)[:] = np.nan
        return place


@pytest.fixture(autouse=True)
def _scratch_full_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "borrowed", BorrowedNan)


def compute(problem: Correlation, source: Array, w: Array, b: Array | None, target: Array, workers: int = 2) -> bool:
    assert WinogradPlan.suits(problem, FLOAT32)
    plan = WinogradPlan(problem, workers)
    with BorrowedNan(plan.packed_bytes) as packed:
        return plan.pack(w, b, packed) and plan.run(source, packed, target)


def forward(c: Case, workers: int = 2) -> Array:
    y = np.full(c.geometry.y_shape, np.nan, FLOAT32)
    assert compute(forward_correlation(c.geometry), c.x, c.w, c.b, y, workers)
    return y


def backward(c: Case, workers: int = 2) -> Array:
    dx = np.full(c.geometry.x_shape, np.nan, FLOAT32)
    for problem in backward_correlations(c.geometry):
        assert compute(problem, c.dy, c.w, None, dx, workers)
    return dx


def assert_precise(actual: Array, expected: Array, precision: float = PRECISION) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=precision * np.abs(expected).max(), equal_nan=False)


# ----------------------------------------------------------------------------------------------------------------------
# Numbers
# ----------------------------------------------------------------------------------------------------------------------

SHAPES = [
    # All remainders of a tile, and images smaller than one.
    *[(1, 16, (height, width), 16) for height, width in ((1, 1), (2, 7), (3, 3), (4, 5), (5, 10), (6, 4), (8, 8), (9, 2))],
    # Channels and filters that fill no register, or several.
    *[(2, channels, (6, 5), filters) for channels, filters in ((17, 1), (16, 33), (31, 16), (48, 48), (33, 50), (20, 100))],
    # Some images to a unit, and some units to an image.
    (70, 16, (5, 6), 16),
    (1, 80, (50, 43), 20),
    (3, 32, (21, 90), 16),
]


@pytest.mark.parametrize(("batch", "channels", "size", "filters"), SHAPES)
def test_the_convolution_is_that_of_float64(
    batch: int, channels: int, size: tuple[int, int], filters: int, data_format: str
) -> None:
    c = case(batch, channels, size, filters, data_format, padding=1)
    x = reference.to_channels_first(c.x, data_format)
    w = reference.weight_to_channels_first(c.w, data_format)
    expected = reference.large_conv2d(x, w, c.b, padding=1)
    assert_precise(reference.to_channels_first(forward(c), data_format), expected)


@pytest.mark.parametrize(("batch", "filters", "size", "channels"), SHAPES)
def test_the_gradient_of_the_input_is_that_of_float64(
    batch: int, filters: int, size: tuple[int, int], channels: int, data_format: str
) -> None:
    c = case(batch, channels, size, filters, data_format, padding=1)
    x, dy = reference.to_channels_first(c.x, data_format), reference.to_channels_first(c.dy, data_format)
    w = reference.weight_to_channels_first(c.w, data_format)
    expected, _, _ = reference.large_conv2d_backward(x, w, dy, padding=1)
    assert_precise(reference.to_channels_first(backward(c), data_format), expected)


@pytest.mark.parametrize("padding", [0, 2, 3, (0, 1), ((1, 0), (0, 3)), ((5, 0), (0, 6)), "same"])
def test_every_padding(padding: Any, data_format: str) -> None:
    c = case(2, 20, (7, 9), 18, data_format, padding=padding)
    assert_both_are_right(c)


@pytest.mark.parametrize("options", [{"groups": 2, "padding": 1}, {"groups": 3}])
def test_groups(options: dict[str, Any], data_format: str) -> None:
    # An odd number of filters: those of a group, and of a pixel, begin anywhere in a register.
    assert_both_are_right(case(2, 18 * options["groups"], (9, 6), 17 * options["groups"], data_format, **options))


def test_every_phase_of_a_stride(data_format: str) -> None:
    # A 6 x 6 filter with stride 2: each pixel was seen by 3 x 3 of its taps, and its neighbours by others.
    c = case(2, 17, (12, 15), 19, data_format, kernel=6, stride=2, padding=2)
    assert len(backward_correlations(c.geometry)) == 4
    expected = reference.conv2d_backward_input(c.dy, c.w, c.x.shape, **c.options)
    assert_precise(backward(c), expected)


def test_no_bias(data_format: str) -> None:
    c = case(1, 16, (5, 5), 16, data_format)
    y = np.empty(c.geometry.y_shape, FLOAT32)
    assert compute(forward_correlation(c.geometry), c.x, c.w, None, y)
    assert_precise(y, reference.conv2d(c.x, c.w, **c.options))


def test_weights_of_zero_leave_the_bias(data_format: str) -> None:
    c = case(1, 16, (5, 5), 16, data_format)
    c.w[...] = 0
    expected = np.zeros(c.geometry.y_shape) + (c.b if data_format == "channels_last" else c.b[:, None, None])
    np.testing.assert_array_equal(forward(c), expected.astype(FLOAT32))


def test_the_sum_over_many_channels_is_as_precise_as_a_direct_one() -> None:
    c = case(1, 512, (8, 8), 16, "channels_first", padding=1)
    expected = reference.large_conv2d(c.x, c.w, c.b, padding=1)
    assert_precise(forward(c), expected, 8e-6)


def test_the_same_bits_for_any_number_of_threads(data_format: str) -> None:
    c = case(3, 40, (30, 21), 70, data_format, padding=1)
    first, first_dx = forward(c, 1), backward(c, 1)
    for workers in (1, 2, 3, 7):
        np.testing.assert_array_equal(forward(c, workers), first)
        np.testing.assert_array_equal(backward(c, workers), first_dx)


def assert_both_are_right(c: Case) -> None:
    assert_precise(forward(c), reference.conv2d(c.x, c.w, c.b, **c.options))
    assert_precise(backward(c), reference.conv2d_backward_input(c.dy, c.w, c.x.shape, **c.options))


# ----------------------------------------------------------------------------------------------------------------------
# Numbers that it must not touch
# ----------------------------------------------------------------------------------------------------------------------


def is_carried(c: Case) -> bool:
    return compute(forward_correlation(c.geometry), c.x, c.w, c.b, np.empty(c.geometry.y_shape, FLOAT32))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_no_pixel_that_is_not_finite_is_overlooked(bad: float, data_format: str) -> None:
    c = case(1, 17, (7, 6), 16, data_format, padding=1)
    assert is_carried(c)
    for place in np.ndindex(7, 6):
        at = (0, 16, *place) if data_format == "channels_first" else (0, *place, 16)
        good, c.x[at] = c.x[at], bad
        assert not is_carried(c), at
        c.x[at] = good


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_no_weight_or_bias_that_is_not_finite_is_overlooked(bad: float, data_format: str) -> None:
    # Not even where the zeros around the image are all that it meets.
    c = case(1, 16, (1, 1), 17, data_format, padding=1)
    assert is_carried(c)
    for tap in np.ndindex(3, 3):
        at = (16, 15, *tap) if data_format == "channels_first" else (*tap, 15, 16)
        good, c.w[at] = c.w[at], bad
        assert not is_carried(c), at
        c.w[at] = good
    c.b[16] = bad
    assert not is_carried(c)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_lies_outside_of_the_images_is_not_looked_at(bad: float, data_format: str) -> None:
    c = case(1, 16, (6, 7), 16, data_format)
    around = np.full(c.x.size + 4096, bad, FLOAT32)
    around[2048:-2048] = c.x.ravel()
    inside = around[2048:-2048].reshape(c.x.shape)
    expected = reference.conv2d(c.x, c.w, c.b, **c.options)
    assert_precise(forward(c._replace(x=inside)), expected)


def test_nothing_outside_of_the_result_is_written(data_format: str) -> None:
    c = case(1, 16, (6, 7), 17, data_format)
    around = np.full(c.geometry.y_shape[0] * 17 * 4 * 5 + 4096, 7, FLOAT32)
    inside = around[2048:-2048].reshape(c.geometry.y_shape)
    assert compute(forward_correlation(c.geometry), c.x, c.w, c.b, inside)
    assert (around[:2048] == 7).all()
    assert (around[-2048:] == 7).all()


@pytest.mark.parametrize("x_scale", [1e-44, 1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30, 1e37, 5e37])
@pytest.mark.parametrize("w_scale", [1e-44, 1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30, 1e37, 5e37])
def test_too_large_and_too_small_numbers_are_refused_and_all_others_right(x_scale: float, w_scale: float) -> None:
    c = case(1, 16, (6, 7), 16, "channels_last")
    c.x[...] = (c.x.astype(np.float64) * x_scale).astype(FLOAT32)
    c.w[...] = (c.w.astype(np.float64) * w_scale).astype(FLOAT32)
    y = np.empty(c.geometry.y_shape, FLOAT32)
    carried = compute(forward_correlation(c.geometry), c.x, c.w, None, y)
    expected = reference.conv2d(c.x, c.w, **c.options)
    if carried:
        assert_precise(y, expected)
    if 1e-20 <= x_scale <= 1e30 and 1e-20 <= w_scale <= 1e30 and 1e-20 < np.abs(expected).max() < 1e37:
        assert carried


def test_an_overflow_inside_is_not_overlooked(data_format: str) -> None:
    # All results are finite: the differences of neighbours, which the detour takes, are not.
    c = case(1, 16, (6, 6), 16, data_format)
    c.x[...] = np.where(c.x > 0, 3e38, -3e38)
    c.w[...] *= FLOAT32.type(1e-3)
    assert np.abs(reference.conv2d(c.x, c.w, c.b, **c.options)).max() < 3e38
    assert not is_carried(c)


# ----------------------------------------------------------------------------------------------------------------------
# Which problems there are plans for
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"stride": (1, 2)}, {"dilation": 2}, {"dilation": (2, 1)}, {"kernel": 2}, {"kernel": 5}, {"groups": 2}],
)
def test_there_is_no_plan_for_other_convolutions(options: dict[str, Any], data_format: str) -> None:
    width = lanes(FLOAT32)
    assert WinogradPlan.suits(forward_correlation(case(1, width, (9, 9), 16, data_format).geometry), FLOAT32)
    assert not WinogradPlan.suits(forward_correlation(case(1, width, (9, 9), 16, data_format, **options).geometry), FLOAT32)


def test_there_is_no_plan_for_float64_for_few_channels_and_for_nothing(data_format: str) -> None:
    some, width = (9, 9), lanes(FLOAT32)
    assert not WinogradPlan.suits(forward_correlation(case(1, width, some, 16, data_format).geometry), np.dtype(np.float64))
    assert not WinogradPlan.suits(forward_correlation(case(1, width - 1, some, 16, data_format).geometry), FLOAT32)
    assert not WinogradPlan.suits(forward_correlation(case(0, width, some, 16, data_format).geometry), FLOAT32)


@pytest.mark.parametrize(
    ("batch", "channels", "size", "filters", "expected"),
    [
        (16, 64, (56, 56), 64, True),
        (16, 128, (28, 28), 128, True),
        (1, 64, (28, 28), 64, True),
        (16, 512, (7, 7), 512, True),
        (1, 512, (7, 7), 512, False),  # transforming the weights takes longer than all else
        (64, 64, (1, 1), 64, False),  # 36 products for 9
        (8, 64, (28, 28), 1, False),
    ],
)
def test_it_pays_for_large_images_and_many_filters(
    batch: int, channels: int, size: tuple[int, int], filters: int, expected: bool, data_format: str
) -> None:
    c = case(batch, channels, size, filters, data_format, padding=1)
    assert WinogradPlan.pays(forward_correlation(c.geometry)) is expected
