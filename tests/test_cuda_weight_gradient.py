"""The gradient of the weights on the cuda device: every tile and split of it, against the loops of reference.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from conftest import WindowCase, assert_close, normal, window_cases
from hypothesis import given
from hypothesis import strategies as st
from simulated_cards import MODES, Array, claimed, moved, needs_simulator, simulated_card

from xpconv.geometry import Conv2dGeometry, conv2d_geometry
from xpconv.kernels.cuda import weight_gradient
from xpconv.kernels.cuda.runtime import Launch, computed_by, planning
from xpconv.kernels.cuda.splits import WORKSPACE_BYTES, split_product
from xpconv.kernels.cuda.tiles import TileShape, tile_shapes
from xpconv.kernels.cuda.weight_gradient import backward_weight

pytestmark = needs_simulator

SMALL = {np.dtype(dtype): tile_shapes("cores", dtype)[8] for dtype in (np.float32, np.float64)}


def sample(
    shape: tuple[int, ...], w_shape: tuple[int, ...], data_format: str, dtype: Any, **options: Any
) -> tuple[Array, Array, Conv2dGeometry]:
    """Images, a gradient of the result and the geometry; both shapes are given for channels_first."""
    x = np.ascontiguousarray(reference.from_channels_first(normal(1, shape), data_format)).astype(dtype)
    if data_format == "channels_last":
        w_shape = w_shape[2], w_shape[3], w_shape[1], w_shape[0]
    geometry = conv2d_geometry("test", x.shape, w_shape, data_format=data_format, **options)
    return x, normal(2, geometry.y_shape).astype(dtype), geometry


def expectation(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """What the loops give for the same numbers in float64."""
    return reference.conv2d_backward_weight(
        x.astype(np.float64),
        dy.astype(np.float64),
        geometry.w_shape,
        stride=geometry.stride,
        padding=geometry.padding,
        dilation=geometry.dilation,
        groups=geometry.groups,
        data_format=geometry.data_format,
    )


def check(x: Array, dy: Array, geometry: Conv2dGeometry, tile: TileShape | None = None, splits: int | None = None) -> None:
    """Hold a gradient against the loops."""
    dw, db = backward_weight(x, dy, geometry, tile, splits)
    expected_dw, expected_db = expectation(x, dy, geometry)
    terms = max(1, dy.size // geometry.filters)
    if x.dtype.itemsize > 2:
        assert_close(dw, expected_dw, x.dtype, terms=terms)
        assert_close(db, expected_db, x.dtype, terms=terms)
        return
    # Summed in float32, which is as good as exact here, and rounded once: to 11 bits, or 8.
    assert dw.dtype == db.dtype == x.dtype
    half_a_bit = 2.0**-11 if x.dtype == np.float16 else 2.0**-8
    np.testing.assert_allclose(dw.astype(np.float64), expected_dw, rtol=1.01 * half_a_bit, atol=1e-5 * terms**0.5)
    np.testing.assert_allclose(db.astype(np.float64), expected_db, rtol=1.01 * half_a_bit, atol=1e-5 * terms**0.5)


GEOMETRIES = [
    pytest.param((2, 3, 7, 6), (5, 3, 3, 3), {}, id="plain"),
    pytest.param((2, 3, 8, 9), (5, 3, 3, 2), {"stride": (2, 3), "padding": ((0, 2), (3, 1))}, id="strides and paddings"),
    pytest.param((3, 2, 9, 11), (4, 2, 3, 2), {"dilation": (2, 4), "padding": 2}, id="dilation"),
    pytest.param((2, 2, 9, 9), (3, 2, 2, 2), {"stride": 5}, id="gaps"),
    pytest.param((2, 3, 4, 3), (3, 3, 1, 1), {"stride": 2, "padding": 1}, id="1x1 with stride and padding"),
    pytest.param((2, 8, 4, 8), (12, 8, 1, 1), {}, id="1x1, wide copies"),
    pytest.param((3, 3, 5, 3), (5, 3, 1, 1), {}, id="1x1, narrow copies"),
    pytest.param((2, 2, 4, 5), (3, 2, 4, 5), {}, id="whole image"),
    pytest.param((40, 2, 1, 1), (3, 2, 1, 1), {}, id="many images of one pixel"),
    pytest.param((2, 2, 3, 2), (2, 2, 5, 4), {"padding": 3, "stride": 2}, id="padding larger than the image"),
    pytest.param((2, 6, 5, 5), (9, 2, 3, 3), {"groups": 3, "padding": "same"}, id="groups"),
    pytest.param((2, 8, 5, 8), (8, 4, 3, 3), {"groups": 2, "padding": 1}, id="groups, wide copies"),
    pytest.param((2, 4, 6, 6), (8, 1, 3, 3), {"groups": 4}, id="depthwise"),
    pytest.param((1, 40, 3, 4), (70, 40, 2, 2), {"padding": 1}, id="several tiles"),
]


@pytest.mark.parametrize(("shape", "w_shape", "options"), GEOMETRIES)
def test_geometry(
    shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str, dtype: np.dtype[Any]
) -> None:
    check(*sample(shape, w_shape, data_format, dtype, **options), tile=SMALL[dtype])


@given(
    case=window_cases(),
    batch=st.integers(0, 4),
    channels=st.integers(1, 5),
    filters=st.integers(1, 5),
    groups=st.integers(1, 2),
    splits=st.integers(1, 4),
    data_format=st.sampled_from(["channels_first", "channels_last"]),
)
def test_any_geometry(
    case: WindowCase, batch: int, channels: int, filters: int, groups: int, splits: int, data_format: str
) -> None:
    x, dy, geometry = sample(
        (batch, channels * groups, *case.size),
        (filters * groups, channels, *case.kernel),
        data_format,
        np.float64,
        groups=groups,
        **case.options,
    )
    check(x, dy, geometry, SMALL[np.dtype(np.float64)], splits)


def _shapes_of_full_depth(engine: Any, dtype: Any) -> list[Any]:
    deepest = max(shape.depth for shape in tile_shapes(engine, dtype))
    return [
        pytest.param(engine, dtype, shape, number % 2, id=f"{engine}-{np.dtype(dtype)}-{shape.rows}x{shape.columns}")
        for number, shape in enumerate(tile_shapes(engine, dtype))
        if shape.depth == deepest
    ]


@pytest.mark.parametrize(
    ("engine", "dtype", "tile", "number"),
    [
        *_shapes_of_full_depth("cores", np.float32),
        *_shapes_of_full_depth("cores", np.float64),
        *_shapes_of_full_depth("tensor", np.float16),
    ],
)
def test_every_tile_gives_the_same(engine: str, dtype: Any, tile: TileShape, number: int) -> None:
    # Of neighbours in the list one takes each layout: they differ in one size.
    data_format = ("channels_first", "channels_last")[number]
    check(*sample((2, 8, 6, 8), (20, 8, 3, 3), data_format, dtype, padding=1), tile=tile, splits=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("splits", [1, 2, 3, 1000])
def test_splits(splits: int, dtype: Any, data_format: str) -> None:
    x, dy, geometry = sample((3, 4, 7, 7), (6, 4, 3, 3), data_format, dtype, padding=1)
    check(x, dy, geometry, splits=splits)
    first, second = (backward_weight(x, dy, geometry, splits=splits) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("compute_capability", [75, 80])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_types(name: str, compute_capability: int, data_format: str) -> None:
    dtype = np.float16 if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    with computed_by(simulated_card("fast", compute_capability)):
        check(*sample((2, 8, 5, 8), (8, 8, 3, 3), data_format, dtype, padding=1))
        check(*sample((2, 3, 5, 5), (7, 3, 2, 3), data_format, dtype, stride=2))


def test_tf32_on_request(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPCONV_TF32", "1")
    x, dy, geometry = sample((2, 8, 5, 8), (20, 8, 3, 3), data_format, np.float32, padding=1)
    dw, db = backward_weight(x, dy, geometry, splits=2)
    expected_dw, expected_db = expectation(x, dy, geometry)
    # Both factors are rounded to 11 bits, and no sum is longer than these absolute values'; db is not multiplied.
    longest, _ = expectation(abs(x), abs(dy), geometry)
    error = np.abs(dw - expected_dw)
    assert (error <= 2.0**-10 * longest + 1e-5).all()
    assert error.max() > 1e-4
    assert_close(db, expected_db, np.float32, terms=80)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kernel", [1, 3])
def test_both_modes_of_the_simulator(mode: str, dtype: Any, kernel: int, data_format: str) -> None:
    with computed_by(simulated_card(mode)):
        check(*sample((2, 8, 5, 8), (20, 8, kernel, kernel), data_format, dtype, padding=kernel // 2), splits=2)


def test_offsets_of_64_bits(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_gradient, "INT_REACH", 1)
    with computed_by(simulated_card("check")):
        check(*sample((2, 4, 5, 6), (3, 4, 3, 2), data_format, np.float32, stride=2, padding=1))
        check(*sample((2, 4, 5, 4), (3, 4, 1, 1), data_format, np.float32))


def test_taps_far_outside_of_the_image(data_format: str) -> None:
    # Offsets of the other taps would need more than 32 bits.
    x, dy, geometry = sample((2, 2, 3, 3), (2, 2, 3, 3), data_format, np.float64, padding=10**8, dilation=10**8)
    dw, db = backward_weight(x, dy, geometry)
    x, dy = (reference.to_channels_first(array, data_format) for array in (x, dy))
    expected = np.zeros((2, 2, 3, 3))
    expected[:, :, 1, 1] = np.einsum("ncij,nfij->fc", x, dy)
    assert_close(dw, reference.weight_from_channels_first(expected, data_format), np.float64)
    assert_close(db, dy.sum(axis=(0, 2, 3)), np.float64)


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_arrays_that_start_anywhere(offset: int, data_format: str) -> None:
    x, dy, geometry = sample((1, 8, 4, 4), (8, 8, 1, 1), data_format, np.float32)
    check(moved(x, offset), moved(dy, offset), geometry)


def test_no_images(data_format: str, dtype: np.dtype[Any]) -> None:
    x, dy, geometry = sample((0, 3, 5, 5), (4, 3, 3, 3), data_format, dtype)
    dw, db = backward_weight(x, dy, geometry)
    assert_close(dw, np.zeros(geometry.w_shape), dtype)
    assert_close(db, np.zeros(4), dtype)


# ---- numbers that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_padding_is_a_zero_like_any_other(value: float, dtype: Any, data_format: str) -> None:
    # The corner's window covers padding: infinity times zero is NaN for the taps that see it, infinity for the others.
    x, dy, geometry = sample((2, 3, 4, 4), (3, 3, 3, 3), data_format, dtype, padding=1)
    reference.to_channels_first(dy, data_format)[1, 2, 0, 0] = value
    with np.errstate(invalid="ignore"):
        expected_dw, _ = expectation(x, dy, geometry)
        assert np.isnan(expected_dw).any()
        assert np.isfinite(expected_dw).any()
        check(x, dy, geometry, splits=2)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_infinite_image_is_not_read_beyond_its_end(splits: int, dtype: Any, data_format: str) -> None:
    # Steps reach beyond the last pixel and tiles beyond the last filter and column: infinity there, times zero, would be NaN.
    x, dy, geometry = sample((3, 3, 5, 5), (5, 3, 2, 2), data_format, dtype)
    x[...], dy[...] = np.inf, 1
    dw, db = backward_weight(x, dy, geometry, splits=splits)
    assert np.isposinf(dw.astype(np.float64)).all()
    np.testing.assert_array_equal(db.astype(np.float64), np.full(5, 3 * 4 * 4))
    x[...], dy[...] = 1, np.inf
    dw, db = backward_weight(x, dy, geometry, splits=splits)
    assert np.isposinf(dw.astype(np.float64)).all()
    assert np.isposinf(db.astype(np.float64)).all()


def test_what_is_not_finite_stays_in_its_filter_and_channel(data_format: str, dtype: np.dtype[Any]) -> None:
    x, dy, geometry = sample((2, 6, 4, 4), (6, 3, 2, 2), data_format, dtype, groups=2)
    reference.to_channels_first(x, data_format)[:, 1] = np.nan
    reference.to_channels_first(dy, data_format)[:, 4] = np.nan
    dw, db = backward_weight(x, dy, geometry)
    nan = np.zeros((6, 3, 2, 2), bool)
    nan[:3, 1] = True
    nan[4] = True
    np.testing.assert_array_equal(np.isnan(reference.weight_to_channels_first(dw, data_format)), nan)
    np.testing.assert_array_equal(np.isnan(db), np.arange(6) == 4)


# ---- what a card would be given ---------------------------------------------------------------------------------------


def _planned(shape: tuple[int, ...], w_shape: tuple[int, ...], multiprocessors: int = 132, **options: Any) -> list[Launch]:
    geometry = conv2d_geometry("test", shape, w_shape, **options)
    with planning(90, multiprocessors, 227 << 10) as launches:
        backward_weight(claimed(geometry.x_shape), claimed(geometry.y_shape), geometry)
    return launches


def test_a_small_weight_still_fills_a_card() -> None:
    product, adding = _planned((64, 64, 56, 56), (64, 64, 3, 3), padding=1)
    blocks = product.grid[0] * product.grid[1]
    assert 100 <= blocks <= 8 * 132
    assert product.grid[1] > 1
    assert product.arguments[2].nbytes <= WORKSPACE_BYTES
    assert adding.arguments[-1] == product.grid[1]


def test_a_large_weight_is_not_split() -> None:
    (product,) = _planned((8, 2048, 16, 16), (4096, 2048, 3, 3), padding=1)
    assert product.grid[1] == 1


def test_arrays_beyond_two_gigabytes_take_offsets_of_64_bits() -> None:
    assert "long long" in _planned((1024, 64, 112, 112), (64, 64, 3, 3), padding=1)[0].name
    assert "long long" not in _planned((64, 64, 56, 56), (64, 64, 3, 3), padding=1)[0].name


def test_as_many_splits_as_are_asked_for_or_as_there_are_steps() -> None:
    card = simulated_card("fast")
    for asked, depth, given_ in ((3, 16 * 9, 3), (3, 16 * 7, 3), (100, 33, 3), (4, 16 * 5, 3)):
        plan = split_product(8, 8, depth, 1, np.float32, "cores", card, splits=asked)
        assert plan.splits == given_
        assert (plan.splits - 1) * plan.steps < -(-depth // plan.tile.depth) <= plan.splits * plan.steps
