"""Pooling of the cuda device beyond what test_pool2d.py asks of every device: each of its kernels in both modes of the
simulator, 16-bit types, offsets of 64 bits, arrays at odd addresses, and what a card is given to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference
from simulated_cards import MODES, claimed, moved, needs_simulator, simulated_card

from xpconv.geometry import Window2d, window_2d
from xpconv.kernels.cuda import pool2d
from xpconv.kernels.cuda.division import magic
from xpconv.kernels.cuda.runtime import computed_by, planning

pytestmark = needs_simulator

Array = np.ndarray[Any, np.dtype[Any]]

# x.shape (channels_first), pool_size, options.
CASES = [
    pytest.param((2, 3, 6, 8), 2, {}, id="side by side, pairs"),
    pytest.param((2, 4, 7, 8), 2, {}, id="side by side, a row left over"),
    pytest.param((3, 8, 5, 7), 2, {}, id="side by side, a column left over"),
    pytest.param((2, 3, 3, 2), 2, {}, id="fewer windows than a vector"),
    pytest.param((1, 2, 9, 8), (3, 4), {}, id="side by side, 3x4"),
    pytest.param((1, 4, 9, 8), 2, {"stride": (3, 4)}, id="gaps"),
    pytest.param((2, 4, 7, 8), 3, {"stride": 2, "padding": 1}, id="3x3 stride 2"),
    pytest.param((1, 3, 8, 7), 3, {"stride": 2, "ceil_mode": True}, id="3x3 beyond the end"),
    pytest.param((1, 2, 5, 6), (4, 5), {"stride": 1, "padding": ((2, 1), (3, 2))}, id="much overlap"),
    pytest.param((1, 4, 9, 8), (3, 2), {"stride": (1, 2), "dilation": (3, 2), "padding": (2, 1)}, id="dilation"),
    pytest.param((1, 2, 9, 9), 3, {"stride": 1, "dilation": 2, "padding": 2}, id="3x3 with dilation"),
    pytest.param((2, 2, 9, 10), (8, 9), {"stride": 1, "padding": 2}, id="large windows"),
    pytest.param((1, 35, 8, 8), 8, {}, id="large windows of many channels"),
    pytest.param((1, 1, 1, 1), 1, {}, id="one pixel"),
    pytest.param((0, 2, 4, 4), 2, {}, id="no images"),
]


def half_types(name: str) -> np.dtype[Any]:
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def images(shape: tuple[int, ...], data_format: str, dtype: Any, seed: int = 1) -> Array:
    """Small whole numbers with many ties, some of them -inf and some NaN; ``shape`` is channels_first."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, shape).astype(np.float64)
    x[rng.random(shape) < 0.2] = -np.inf
    x[rng.random(shape) < 0.05] = np.nan
    return np.ascontiguousarray(reference.from_channels_first(x, data_format)).astype(dtype)


def window(x: Array, pool_size: Any, options: dict[str, Any], data_format: str) -> Window2d:
    return window_2d("test", x.shape, pool_size, data_format=data_format, **{"stride": pool_size, **options})


def wide(array: Array) -> Array:
    return array.astype(np.float64)


def tolerance(dtype: Any) -> dict[str, float]:
    epsilon = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 4e-7, "float64": 1e-15}[np.dtype(dtype).name]
    return {"rtol": 8 * epsilon, "atol": 8 * epsilon}


def check_max(x: Array, pool_size: Any, options: dict[str, Any], data_format: str) -> None:
    """Hold all kernels of maximum pooling against the loops, bit for bit."""
    geometry = window(x, pool_size, options, data_format)
    expected, positions = reference.max_pool2d(wide(x), pool_size, data_format=data_format, **options)
    y, nothing = pool2d.max_pool2d_forward(x, geometry, False)
    assert nothing is None
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(wide(y), expected)
    y, indices = pool2d.max_pool2d_forward(x, geometry, True)
    np.testing.assert_array_equal(wide(y), expected)
    np.testing.assert_array_equal(indices, positions)
    assert indices is not None
    assert indices.dtype == np.int64
    dy = np.random.default_rng(5).integers(-8, 9, y.shape).astype(x.dtype)
    dx = pool2d.max_pool2d_backward(dy, indices, geometry)
    assert dx.dtype == x.dtype
    np.testing.assert_array_equal(wide(dx), reference.scatter_add(wide(dy), positions, x.shape, data_format))
    assert pool2d.count_misplaced(indices, geometry) == 0
    for wrong in (-1, geometry.size[0] * geometry.size[1]):
        if indices.size > 1:
            spoiled = indices.copy()
            spoiled.reshape(-1)[[0, -1]] = wrong
            assert pool2d.count_misplaced(spoiled, geometry) == 2


def check_taps(x: Array, pool_size: Any, options: dict[str, Any], data_format: str) -> None:
    """Hold maximum pooling that tells taps in bytes against the loops."""
    geometry = window(x, pool_size, options, data_format)
    expected, positions = reference.max_pool2d(wide(x), pool_size, data_format=data_format, **options)
    for only_positive in (False, True):
        y, taps = pool2d.max_pool2d_forward_with_taps(x, geometry, only_positive)
        np.testing.assert_array_equal(wide(y), expected)
        assert taps.dtype == np.uint8
        dy = np.random.default_rng(5).integers(-8, 9, y.shape).astype(x.dtype)
        passing = np.where(expected > 0, wide(dy), 0) if only_positive else wide(dy)
        dx = pool2d.max_pool2d_backward(dy, taps, geometry)
        np.testing.assert_array_equal(wide(dx), reference.scatter_add(passing, positions, x.shape, data_format))


def check_avg(shape: tuple[int, ...], dtype: Any, pool_size: Any, options: dict[str, Any], data_format: str) -> None:
    """Hold average pooling against the loops."""
    numbers = np.random.default_rng(3).standard_normal(shape)
    x = np.ascontiguousarray(reference.from_channels_first(numbers, data_format)).astype(dtype)
    geometry = window(x, pool_size, options, data_format)
    for include in (True, False):
        how = {**options, "data_format": data_format, "count_include_pad": include}
        y = pool2d.avg_pool2d_forward(x, geometry, include)
        np.testing.assert_allclose(wide(y), reference.avg_pool2d(wide(x), pool_size, **how), **tolerance(dtype))
        dy = np.random.default_rng(4).standard_normal(y.shape).astype(dtype)
        dx = pool2d.avg_pool2d_backward(dy, geometry, include)
        assert y.dtype == dx.dtype == dtype
        expected = reference.avg_pool2d_backward(wide(dy), x.shape, pool_size, **how)
        np.testing.assert_allclose(wide(dx), expected, **tolerance(dtype))


def check(shape: tuple[int, ...], dtype: Any, pool_size: Any, options: dict[str, Any], data_format: str) -> None:
    x = images(shape, data_format, dtype)
    check_max(x, pool_size, options, data_format)
    if window(x, pool_size, options, data_format).inside and options.get("dilation", 1) == 1:
        check_taps(x, pool_size, options, data_format)
    if "dilation" not in options:
        check_avg(shape, dtype, pool_size, options, data_format)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    with computed_by(simulated_card(request.param)):
        yield request.param


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("shape", "pool_size", "options"), CASES)
def test_geometry(shape: tuple[int, ...], pool_size: Any, options: dict[str, Any], data_format: str) -> None:
    check(shape, np.float32, pool_size, options, data_format)


@pytest.mark.parametrize("name", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "pool_size", "options"),
    [
        pytest.param((1, 8, 6, 8), 2, {}, id="side by side"),
        pytest.param((1, 8, 7, 7), 3, {"stride": 2, "padding": 1}, id="3x3 stride 2"),
        pytest.param((1, 2, 5, 6), (4, 5), {"stride": 1, "padding": 2}, id="much overlap"),
        pytest.param((1, 3, 9, 10), (8, 9), {"stride": 1, "padding": 2}, id="large windows"),
    ],
)
def test_types(shape: tuple[int, ...], pool_size: Any, options: dict[str, Any], data_format: str, name: str) -> None:
    check(shape, half_types(name), pool_size, options, data_format)


@pytest.mark.parametrize(
    ("shape", "pool_size", "options"),
    [((2, 4, 6, 8), 2, {}), ((1, 4, 7, 6), (3, 2), {"stride": (1, 2), "padding": 1}), ((1, 3, 8, 9), 8, {"stride": 1})],
)
def test_offsets_of_64_bits(
    shape: tuple[int, ...], pool_size: Any, options: dict[str, Any], data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool2d, "REACH", 0)
    check(shape, np.float32, pool_size, options, data_format)
    x, indices = np.arange(4.0, dtype=np.float32).reshape(1, 1, 2, 2), np.array([[[[5, 0], [5, 7]]]])
    y = pool2d.max_unpool2d(x, indices, (2, 4), window_2d("test", x.shape, 1))
    np.testing.assert_array_equal(y.reshape(-1), [1, 0, 0, 0, 0, 2, 0, 3])


@pytest.mark.parametrize("large", [1, 10**9], ids=["teams", "threads"])
@pytest.mark.parametrize("multiprocessors", [1, 10**6])
def test_large_windows_by_teams_or_threads(
    large: int, multiprocessors: int, data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool2d, "LARGE", large)
    check((2, 33, 5, 6), np.float32, (3, 4), {"stride": 2, "padding": 1}, data_format)
    check((2, 3, 6, 6), np.float16, 2, {}, data_format)


def test_a_team_is_for_few_windows(data_format: str) -> None:
    def kernels(batch: int) -> list[str]:
        shape = (batch, 64, 16, 16) if data_format == "channels_first" else (batch, 16, 16, 64)
        with planning(80, 2, 99 << 10) as launches:
            x = claimed(shape)
            pool2d.avg_pool2d_forward(x, window(x, 8, {}, data_format), True)
        return [launch.name for launch in launches]

    assert all("_in_teams" in name for name in kernels(1))
    assert not any("_in_teams" in name for name in kernels(64))


@pytest.mark.parametrize("elements", [1, 2])
def test_arrays_at_odd_addresses(elements: int, data_format: str) -> None:
    x = moved(images((2, 8, 6, 8), data_format, np.float32), elements)
    check_max(x, 2, {}, data_format)
    check_taps(x, 2, {}, data_format)
    geometry = window(x, 2, {}, data_format)
    y, indices = pool2d.max_pool2d_forward(x, geometry, True)
    dx = pool2d.max_pool2d_backward(moved(y, elements), moved(indices, elements), geometry)
    np.testing.assert_array_equal(dx, pool2d.max_pool2d_backward(y, indices, geometry))


@pytest.mark.parametrize("name", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, -65504.0])
def test_padding_never_wins(value: float, name: str, data_format: str) -> None:
    for pool_size in (3, (4, 2)):
        x = np.full((1, 4, 4, 4), value, name)
        geometry = window(x, pool_size, {"stride": 1, "padding": 1}, data_format)
        y, indices = pool2d.max_pool2d_forward(x, geometry, True)
        np.testing.assert_array_equal(y, np.full(y.shape, value, name))
        expected = reference.max_pool2d(wide(x), pool_size, stride=1, padding=1, data_format=data_format)[1]
        np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("pool_size", [2, 3, (1, 5), 8])
def test_an_infinite_gradient_stays_with_its_winner(pool_size: Any, data_format: str) -> None:
    x = images((1, 4, 8, 8), data_format, np.float32)
    geometry = window(x, pool_size, {}, data_format)
    y, indices = pool2d.max_pool2d_forward(x, geometry, True)
    dx = pool2d.max_pool2d_backward(np.full(y.shape, np.inf, np.float32), indices, geometry)
    assert np.count_nonzero(dx == np.inf) == y.size
    assert np.count_nonzero(dx == 0) == x.size - y.size


def test_sums_of_16_bit_numbers_do_not_overflow(data_format: str) -> None:
    x = np.full((1, 2, 16, 16) if data_format == "channels_first" else (1, 16, 16, 2), 60000, np.float16)
    for pool_size in (2, 3, 5, 16):
        geometry = window(x, pool_size, {}, data_format)
        y = pool2d.avg_pool2d_forward(x, geometry, True)
        np.testing.assert_array_equal(y, np.full(y.shape, 60000, np.float16))


def test_of_maxima_with_one_place_the_last_is_kept(data_format: str) -> None:
    rng = np.random.default_rng(8)
    x = np.ascontiguousarray(reference.from_channels_first(rng.standard_normal((2, 5, 6, 7)), data_format)).astype(np.float32)
    indices = rng.integers(0, 20, x.shape)
    for mode in MODES:
        with computed_by(simulated_card(mode)):
            y = pool2d.max_unpool2d(x, indices, (4, 5), window_2d("test", x.shape, 1, data_format=data_format))
            expected = reference.max_unpool2d(x, indices, output_size=(4, 5), data_format=data_format)
            np.testing.assert_array_equal(y, expected)


def test_positions_outside_the_result_write_nothing() -> None:
    x = np.ones((1, 1, 1, 3), np.float32)
    with computed_by(simulated_card("check")):
        y = pool2d.max_unpool2d(x, np.array([[[[-1, 4, 1]]]]), (2, 2), window_2d("test", x.shape, 1))
    np.testing.assert_array_equal(y, [[[[0, 1], [0, 0]]]])


def test_a_misplaced_position_is_counted_wherever_it_lies(data_format: str) -> None:
    x = np.zeros((1, 1, 6, 6), np.float32) if data_format == "channels_first" else np.zeros((1, 6, 6, 1), np.float32)
    options: dict[str, Any] = {"stride": (3, 2), "padding": (1, 0), "dilation": (2, 3)}
    geometry = window(x, 2, options, data_format)
    windows = reference.Windows((6, 6), 2, 3, 0)  # for its loops alone
    windows.stride, windows.dilation, windows.pads = (3, 2), (2, 3), ((1, 1), (0, 0))
    rows, columns = geometry.output_size
    for position in range(-2, 40):
        wrong = sum(
            divmod(position, 6) not in windows.pixels(i, j) or not 0 <= position < 36
            for i in range(rows)
            for j in range(columns)
        )
        misplaced = pool2d.count_misplaced(np.full(geometry.y_shape, position), geometry)
        assert misplaced.shape == ()
        assert misplaced.dtype == np.int64
        assert misplaced == wrong, position


@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 7, 10, 28, 641, 65535, 65536, 2**30, 2**30 + 1, 2**31 - 2, 2**31 - 1])
def test_division_by_multiplication(divisor: int) -> None:
    multiplier, shift = magic(divisor)
    assert 0 <= multiplier < 2**32
    assert 0 <= shift < 32
    rng = np.random.default_rng(divisor)
    near = [factor * divisor + step for factor in (1, 2, 3, (2**31 - 1) // divisor) for step in (-1, 0, 1)]
    for number in [0, 1, 2**31 - 1, *near, *rng.integers(0, 2**31, 1000).tolist()]:
        if 0 <= number < 2**31:
            product = (number * multiplier >> 32) + number
            assert product < 2**32
            assert product >> shift == number // divisor


def test_images_beyond_32_bits_are_given_enough_threads_and_wide_offsets(data_format: str) -> None:
    shape = (48, 64, 448, 448) if data_format == "channels_first" else (48, 448, 448, 64)
    with planning(90, 132, 227 << 10) as launches:
        x = claimed(shape)
        geometry = window(x, 2, {}, data_format)
        pool2d.avg_pool2d_forward(x, geometry, True)
        pool2d.avg_pool2d_backward(claimed(geometry.y_shape), geometry, True)
    for launch in launches:
        assert "<float, long long, " in launch.name
        items = int(launch.arguments[2]["items"])
        per_thread = geometry.y_shape if "forward" in launch.name else geometry.x_shape
        assert items * 4 in (np.prod(per_thread), 2 * np.prod(per_thread))  # vectors of four, or of two windows
        assert items <= launch.grid[0] * launch.block[0] < items + launch.block[0]


def test_a_window_beyond_32_bits_is_taken_to_have_wide_offsets() -> None:
    x = np.arange(3.0, dtype=np.float32).reshape(1, 1, 1, 3)
    reach = 2**32
    geometry = window_2d("test", x.shape, (1, 2), stride=1, padding=((0, 0), (reach, 0)), dilation=(1, reach))
    y, indices = pool2d.max_pool2d_forward(x, geometry, True)
    np.testing.assert_array_equal(y, x)  # the first tap is in the padding, the second runs over the image
    np.testing.assert_array_equal(indices.reshape(-1), [0, 1, 2])
    np.testing.assert_array_equal(pool2d.max_pool2d_backward(y, indices, geometry), x)
