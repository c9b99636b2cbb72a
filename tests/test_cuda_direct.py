"""Convolution from tiles in shared memory, and depthwise, on the cuda device, against the loops of reference.py.

Who takes which is decided elsewhere: here both compute everything.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
from conftest import WindowCase, assert_close, normal, window_cases
from hypothesis import given
from hypothesis import strategies as st
from simulated_cards import Array, claimed, moved, needs_simulator, simulated_card

from xpconv.geometry import Conv2dGeometry, conv2d_geometry
from xpconv.kernels.cuda import depthwise, direct, windows
from xpconv.kernels.cuda.runtime import Launch, Runtime, computed_by, planning

pytestmark = needs_simulator

MODULES = [pytest.param(direct, id="direct"), pytest.param(depthwise, id="depthwise")]
FORMATS = ["channels_first", "channels_last"]


class Case(NamedTuple):
    """A convolution in one data format."""

    x: Array
    w: Array
    b: Array
    dy: Array
    geometry: Conv2dGeometry
    options: dict[str, Any]


def make_case(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str, dtype: Any = np.float32
) -> Case:
    """A case of random numbers; the shapes are given for channels_first."""
    x = np.ascontiguousarray(reference.from_channels_first(normal(1, x_shape), data_format)).astype(dtype)
    w = np.ascontiguousarray(reference.weight_from_channels_first(normal(2, w_shape), data_format)).astype(dtype)
    options = {**options, "data_format": data_format}
    geometry = conv2d_geometry("test", x.shape, w.shape, **options)
    b, dy = normal(3, w_shape[:1]).astype(dtype), normal(4, geometry.y_shape).astype(dtype)
    return Case(x, w, b, dy, geometry, options)


def compute(module: Any, case: Case) -> list[Array]:
    """The convolution with bias, once more without but rectified, and all gradients."""
    x, w, b, dy, geometry, _ = case
    return [
        module.forward(x, w, b, geometry, False),
        module.forward(x, w, None, geometry, True),
        module.backward_input(dy, w, geometry),
        *module.backward_weight(x, dy, geometry),
    ]


def expectation(case: Case) -> list[Array]:
    """What the loops give for the same numbers in float64."""
    x, w, b, dy = (array.astype(np.float64) for array in case[:4])
    return [
        reference.conv2d(x, w, b, **case.options),
        np.maximum(reference.conv2d(x, w, **case.options), 0),
        reference.conv2d_backward_input(dy, w, x.shape, **case.options),
        *reference.conv2d_backward_weight(x, dy, w.shape, **case.options),
    ]


def check(module: Any, case: Case) -> None:
    """Hold everything that a module computes against the loops."""
    for actual, expected in zip(compute(module, case), expectation(case), strict=True):
        assert_close(actual, expected, case.x.dtype)


GEOMETRIES = [
    pytest.param((2, 1, 9, 10), (7, 1, 3, 3), {}, id="one channel"),
    pytest.param((1, 1, 1, 1), (1, 1, 1, 1), {}, id="one of everything"),
    pytest.param((2, 3, 7, 9), (6, 3, 3, 3), {"padding": 1}, id="3x3"),
    pytest.param((2, 3, 9, 8), (5, 3, 5, 5), {"padding": 2, "stride": 2}, id="5x5 with stride"),
    pytest.param((1, 2, 11, 12), (9, 2, 7, 7), {"padding": 3, "stride": 2}, id="7x7 with stride"),
    pytest.param((2, 2, 9, 8), (5, 2, 3, 2), {"stride": (3, 2), "padding": ((0, 2), (3, 1))}, id="strides and paddings"),
    pytest.param((2, 2, 9, 8), (5, 2, 3, 2), {"dilation": (2, 3), "stride": (1, 2), "padding": 2}, id="dilation"),
    pytest.param((1, 2, 9, 9), (3, 2, 3, 3), {"dilation": 2, "stride": 4, "padding": 2}, id="dilation divides the stride"),
    pytest.param((1, 2, 9, 9), (3, 2, 3, 3), {"dilation": 4, "stride": 6, "padding": 3}, id="a factor shared"),
    pytest.param((2, 2, 9, 9), (3, 2, 2, 2), {"stride": 4}, id="gaps between the windows"),
    pytest.param((2, 2, 3, 2), (3, 2, 5, 4), {"padding": 4, "stride": 3}, id="padding larger than the image"),
    pytest.param((2, 2, 5, 5), (3, 2, 3, 3), {"padding": ((0, 0), (6, 0)), "stride": 9}, id="nothing but padding"),
    pytest.param((1, 4, 6, 5), (12, 2, 3, 3), {"groups": 2, "padding": 1}, id="groups"),
    pytest.param((2, 5, 7, 6), (5, 1, 3, 3), {"groups": 5, "padding": 1}, id="depthwise"),
    pytest.param((2, 8, 6, 7), (8, 1, 3, 3), {"groups": 8, "stride": 2}, id="depthwise with stride"),
    pytest.param((2, 3, 7, 6), (9, 1, 3, 2), {"groups": 3, "padding": 1}, id="depthwise, three filters"),
    pytest.param((1, 1, 70, 3), (2, 1, 3, 3), {"padding": 1}, id="many rows"),
    pytest.param((1, 1, 3, 150), (2, 1, 3, 3), {"padding": 1}, id="many columns"),
    pytest.param((1, 1, 6, 67), (1, 1, 3, 3), {}, id="more columns than sums"),
    pytest.param((1, 40, 4, 3), (2, 40, 3, 3), {"padding": 1}, id="many channels"),
    pytest.param((1, 2, 4, 5), (75, 2, 3, 3), {}, id="many filters"),
    pytest.param((0, 2, 5, 5), (3, 2, 3, 3), {}, id="empty batch"),
]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), GEOMETRIES)
def test_geometry(
    module: Any, x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str
) -> None:
    check(module, make_case(x_shape, w_shape, options, data_format))


@pytest.mark.parametrize("module", MODULES)
@given(
    case=window_cases(),
    numbers=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 3)),
    data_format=st.sampled_from(FORMATS),
)
def test_any_geometry(module: Any, case: WindowCase, numbers: tuple[int, int, int, int], data_format: str) -> None:
    batch, channels, filters, groups = numbers
    check(
        module,
        make_case(
            (batch, channels * groups, *case.size),
            (filters * groups, channels, *case.kernel),
            {**case.options, "groups": groups},
            data_format,
            np.float64,
        ),
    )


# Shapes that between them use every kernel, and every way through it.
EVERY_KERNEL = [
    pytest.param((2, 2, 9, 7), (6, 2, 3, 3), {"padding": 1}, id="unrolled"),
    pytest.param((1, 3, 7, 8), (3, 3, 2, 3), {"stride": (2, 1), "dilation": (1, 2), "padding": 1}, id="loops"),
    pytest.param((2, 4, 6, 5), (4, 1, 3, 3), {"groups": 4, "padding": 1}, id="depthwise"),
]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), EVERY_KERNEL)
def test_check_mode_finds_nothing(
    module: Any, x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str
) -> None:
    with computed_by(simulated_card("check")):
        check(module, make_case(x_shape, w_shape, options, data_format))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), EVERY_KERNEL)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(
    module: Any, x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], dtype: str, data_format: str
) -> None:
    kind = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    case = make_case(x_shape, w_shape, options, data_format, kind)
    if dtype == "float64":
        check(module, case)
        return
    # Summed in float32, and rounded once: to 11 bits, or 8.
    half_a_bit = 2.0**-11 if dtype == "float16" else 2.0**-8
    for actual, expected in zip(compute(module, case), expectation(case), strict=True):
        assert actual.dtype == kind
        np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=1.01 * half_a_bit, atol=1e-4)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), EVERY_KERNEL)
def test_offsets_of_64_bits(
    module: Any,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    data_format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "INT_REACH", 1)
    case = make_case(x_shape, w_shape, options, data_format)
    check(module, case)
    for launch in plan(module, case):
        assert launch.file == "splits.cu" or "long long" in launch.name


def plan(module: Any, case: Case, capability: int = 80, multiprocessors: int = 108, shared: int = 163 << 10) -> list[Launch]:
    with planning(capability, multiprocessors, shared) as launches:
        compute(module, case)
    return launches


def test_64_bits_are_taken_where_positions_need_them() -> None:
    near = make_case((1, 1, 5, 5), (1, 1, 3, 3), {"padding": 1}, "channels_first")
    far = make_case((1, 1, 5, 5), (1, 1, 1, 1), {"padding": ((2**31, 0), (0, 0)), "stride": 2**31}, "channels_first")
    assert windows.window_index_type(near.geometry, near.x) == "int"
    assert windows.window_index_type(far.geometry, far.x) == "long long"
    assert windows.window_index_type(near.geometry, claimed((2**29,))) == "long long"


@pytest.mark.parametrize("module", MODULES)
def test_positions_beyond_32_bits(module: Any) -> None:
    # The first row of windows is far away in the padding, the second on the last row of the image.
    options = {"padding": ((2**31, 0), (0, 0)), "stride": (2**31 + 2, 1)}
    x, w, b, dy, geometry, _ = make_case((2, 2, 3, 4), (3, 2, 1, 3), options, "channels_first")
    y, _, dx, dw, db = compute(module, Case(x, w, b, dy, geometry, options))
    assert_close(y[:, :, 0], np.broadcast_to(b[:, None], (2, 3, 2)), np.float32)
    assert_close(y[:, :, 1:], reference.conv2d(x[:, :, 2:], w, b), np.float32)
    assert_close(dx[:, :, :2], np.zeros((2, 2, 2, 4)), np.float32)
    assert_close(dx[:, :, 2:], reference.conv2d_backward_input(dy[:, :, 1:], w, (2, 2, 1, 4)), np.float32)
    assert_close(dw, reference.conv2d_backward_weight(x[:, :, 2:], dy[:, :, 1:], w.shape)[0], np.float32)
    assert_close(db, dy.sum(axis=(0, 2, 3), dtype=np.float64), np.float32)


@pytest.mark.parametrize("module", MODULES)
def test_grids_longer_than_a_card_takes(module: Any, data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (direct, depthwise):
        monkeypatch.setattr(where, "GRID_LIMIT", 2)
    check(module, make_case((5, 2, 7, 8), (3, 2, 3, 2), {"stride": 3, "padding": 1}, data_format))


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("filters", [8, 6, 5])
@pytest.mark.parametrize("elements", [0, 1])
def test_vectors_of_any_width(module: Any, filters: int, elements: int, data_format: str) -> None:
    case = make_case((1, filters, 6, 8), (filters, 1, 3, 3), {"groups": filters, "padding": 1}, data_format)
    check(module, Case(*(moved(array, elements) for array in case[:4]), *case[4:]))
    case = make_case((1, 2, 6, 8), (filters, 2, 3, 3), {"padding": 1}, data_format)
    check(module, Case(*(moved(array, elements) for array in case[:4]), *case[4:]))


# ----------------------------------------------------------------------------------------------------------------------
# Tiles
# ----------------------------------------------------------------------------------------------------------------------


def test_tiles_of_all_sizes(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case((1, 3, 13, 18), (10, 3, 3, 3), {"padding": 1}, data_format)
    seen = set()
    for threads, room in itertools.product((32, 64, 256), (1 << 10, 4 << 10, 32 << 10)):
        monkeypatch.setattr(direct, "THREADS", threads)
        monkeypatch.setattr(direct, "TILE_BYTES", room)
        launches = plan(direct, case, multiprocessors=1)
        seen |= {(launch.name, launch.grid, launch.block, launch.shared_memory) for launch in launches}
        with computed_by(one_multiprocessor()):
            check(direct, case)
    assert len(seen) > 15


def one_multiprocessor() -> Runtime:
    """A card that needs no small tiles to be busy."""
    return dataclasses.replace(simulated_card("fast"), multiprocessors=1)


def test_tile_of_a_first_layer() -> None:
    # The whole plane of one image, for 12 of the 30 filters.
    case = make_case((100, 1, 28, 28), (30, 1, 5, 5), {}, "channels_first")
    forward = plan(direct, case)[0]
    assert forward.name == "direct_correlate<float, int, false, 8, 4, 1, 5, 1, false>"
    assert forward.grid == (3, 100, 1)
    assert forward.block == (224,)  # 24 columns of 3 strips of 8 rows, 3 times, and a rest of a warp
    assert forward.shared_memory < 48 << 10


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("images", [(8, 3, 224, 224), (1, 1, 28, 28), (2, 4, 1000, 3), (2, 2, 3, 1000)])
@pytest.mark.parametrize(
    ("capability", "multiprocessors", "shared"), [(75, 40, 64 << 10), (90, 132, 227 << 10), (120, 170, 99 << 10)]
)
def test_tiles_fit_any_card(
    images: tuple[int, ...], data_format: str, capability: int, multiprocessors: int, shared: int
) -> None:
    for kernel, stride, filters in itertools.product((1, 3, 7, 11), (1, 2, 4), (1, 3, 64)):
        shape = (images[0], images[1], *(max(size, kernel) for size in images[2:]))
        w_shape = (filters, shape[1], kernel, kernel)
        if data_format == "channels_last":
            shape, w_shape = (shape[0], *shape[2:], shape[1]), (*w_shape[2:], w_shape[1], w_shape[0])
        geometry = conv2d_geometry("test", shape, w_shape, stride=stride, data_format=data_format)
        x, w, dy = claimed(geometry.x_shape), claimed(geometry.w_shape), claimed(geometry.y_shape)
        with planning(capability, multiprocessors, shared) as launches:
            direct.forward(x, w, None, geometry, True)
            direct.backward_input(dy, w, geometry)
            direct.backward_weight(x, dy, geometry)
        for launch in launches:
            assert launch.shared_memory <= min(shared, 48 << 10)
            assert np.prod(launch.block) <= 256
            assert max(0, 0, *launch.grid[1:]) <= 65535


def test_what_fits_no_tile_is_computed_without_one(data_format: str) -> None:
    case = make_case((1, 1, 150, 150), (2, 1, 2, 2), {"dilation": 140}, data_format)
    assert {launch.file for launch in plan(direct, case)} == {"depthwise.cu", "splits.cu"}
    check(direct, case)


def test_a_gradient_that_fits_no_tile_is_computed_without_one(data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "TILE_BYTES", 64)
    case = make_case((2, 1, 6, 7), (3, 1, 3, 3), {}, data_format)
    assert [launch.file for launch in plan(direct, case)[-2:]] == ["depthwise.cu", "splits.cu"]
    check(direct, case)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("blocks", [1, 3, 1000])
def test_any_number_of_splits(module: Any, blocks: int, data_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "BLOCKS_PER_MULTIPROCESSOR", blocks)
    with computed_by(one_multiprocessor()):
        check(module, make_case((7, 3, 9, 13), (5, 3, 3, 3), {"padding": 1}, data_format))


def test_splits_share_the_work_evenly() -> None:
    assert depthwise.split_count(0, 128, 50) == 1
    assert depthwise.split_count(1, 128, 50) == 1
    assert depthwise.split_count(128 * 50, 128, 50) == 50
    assert depthwise.split_count(128 * 51, 128, 50) == 26  # two turns each, not two for one and one for the others
    assert depthwise.split_count(10**9, 1, 10**6) <= 65535


# ----------------------------------------------------------------------------------------------------------------------
# NaN, infinity, and the same bits every time
# ----------------------------------------------------------------------------------------------------------------------

IEEE_GEOMETRIES = [
    pytest.param((2, 3, 7, 9), (5, 3, 3, 3), {"padding": 1}, id="3x3"),
    pytest.param((2, 3, 7, 8), (4, 3, 3, 2), {"stride": (2, 3), "padding": ((0, 2), (1, 0))}, id="stride"),
    pytest.param((2, 4, 7, 6), (4, 1, 3, 3), {"groups": 4, "padding": 1}, id="depthwise"),
]


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), IEEE_GEOMETRIES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "w", "b", "dy"])
def test_nan_and_infinity(
    module: Any,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    value: float,
    where: str,
    data_format: str,
) -> None:
    # In the corners, next to what no window or thread may read, and in the middle.
    case = make_case(x_shape, w_shape, options, data_format)
    if where == "b":
        case.b[1] = value
    elif where == "w":
        reference.weight_to_channels_first(case.w, data_format)[1, 0, 0, 0] = value
    else:
        array = reference.to_channels_first(getattr(case, where), data_format)
        array[1, 1, 0, 0] = array[0, 2, -1, -1] = array[1, 0, array.shape[2] // 2, array.shape[3] // 2] = value
    check(module, case)


@pytest.mark.parametrize("module", MODULES)
def test_weights_do_not_leak_through_gradients_that_are_not_there(module: Any, data_format: str) -> None:
    case = make_case((1, 2, 6, 6), (3, 2, 3, 3), {}, data_format)
    reference.weight_to_channels_first(case.w, data_format)[0, 1, 0, 0] = np.inf
    dx = reference.to_channels_first(module.backward_input(case.dy, case.w, case.geometry), data_format)
    # Tap (0, 0) of a window is never at the last two rows and columns of the image.
    assert np.isfinite(dx[0, 0]).all()
    assert np.isinf(dx[0, 1, :4, :4]).all()
    assert np.isfinite(dx[0, 1, 4:]).all()
    assert np.isfinite(dx[0, 1, :, 4:]).all()


@pytest.mark.parametrize("module", MODULES)
def test_the_same_input_gives_the_same_bits(module: Any, data_format: str) -> None:
    case = make_case((3, 3, 11, 14), (6, 3, 3, 3), {"padding": 1}, data_format)
    first = [array.tobytes() for array in compute(module, case)]
    for _ in range(3):
        assert [array.tobytes() for array in compute(module, case)] == first


# ----------------------------------------------------------------------------------------------------------------------
# What they are meant for
# ----------------------------------------------------------------------------------------------------------------------

OPERATIONS = ["forward", "backward_input", "backward_weight"]


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options", "by_direct", "by_depthwise"),
    [
        pytest.param((100, 1, 28, 28), (30, 1, 5, 5), {}, OPERATIONS, [], id="first layer"),
        pytest.param((8, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}, OPERATIONS, [], id="first layer, color"),
        pytest.param((8, 3, 224, 224), (64, 3, 4, 4), {"stride": 4}, OPERATIONS[:2], [], id="patches"),
        pytest.param((8, 3, 224, 224), (64, 3, 3, 3), {"dilation": 50}, [], [], id="far apart"),
        pytest.param((8, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}, [], [], id="many channels"),
        pytest.param((8, 32, 28, 28), (32, 1, 3, 3), {"groups": 32}, OPERATIONS, OPERATIONS, id="depthwise"),
        pytest.param((8, 32, 28, 28), (64, 1, 3, 3), {"groups": 32}, OPERATIONS, OPERATIONS, id="depthwise, two filters"),
    ],
)
def test_suits(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], by_direct: list[str], by_depthwise: list[str]
) -> None:
    geometry = conv2d_geometry("test", x_shape, w_shape, **options)
    assert [operation for operation in OPERATIONS if direct.suits(operation, geometry)] == by_direct
    assert [operation for operation in OPERATIONS if depthwise.suits(operation, geometry)] == by_depthwise
