"""The implicit matrix product of the cuda device, in the simulator, against the loops of reference.py."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference
from conftest import assert_close
from test_conv2d import GEOMETRIES, Case
from test_conv2d import make_case as make_view

from xpconv import cudasim
from xpconv.geometry import Conv2dGeometry, conv2d_geometry
from xpconv.kernels.cuda import autotune, conv2d, correlation, runtime, tiles
from xpconv.kernels.cuda.tiles import TileShape

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.skipif(not cudasim.status().available, reason="the simulator cannot compile here")

FORMATS = ["channels_first", "channels_last"]
# Numbers that come close to their dtype's precision after float32 sums are rounded to it once.
NARROW_TOLERANCES = {"float16": 2e-3, "bfloat16": 1.6e-2}


def narrow_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(name)


def make_case(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str, dtype: Any = np.float64
) -> Case:
    """Arrays as kernels get them: contiguous."""
    case = make_view(x_shape, w_shape, options, data_format)
    return Case(*(np.ascontiguousarray(array, dtype) for array in case[:4]), case.options)


def geometry_of(case: Case) -> Conv2dGeometry:
    return conv2d_geometry("test", case.x.shape, case.w.shape, **case.options)


def check(case: Case, dtype: Any, relu: bool = False) -> None:
    """Hold forward and the gradient of the input against the reference."""
    dtype = np.dtype(dtype)
    x, w, b, dy, options = case.astype(dtype)
    geometry = geometry_of(case)
    y = correlation.forward(x, w, b, geometry, relu)
    dx = correlation.backward_input(dy, w, geometry)
    expected_y = reference.conv2d(x, w, b, **options)
    assert_near(y, np.maximum(expected_y, 0) if relu else expected_y, dtype)
    assert_near(dx, reference.conv2d_backward_input(dy, w, x.shape, **options), dtype)


def assert_near(actual: Array, expected: Array, dtype: np.dtype[Any]) -> None:
    __tracebackhide__ = True
    if dtype.name in NARROW_TOLERANCES:
        assert actual.dtype == dtype
        tolerance = NARROW_TOLERANCES[dtype.name]
        # float32 sums of products that float32 holds exactly, rounded once
        np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=tolerance, atol=1e-5)
    else:
        assert_close(actual, expected, dtype, terms=16)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), GEOMETRIES)
def test_geometry(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], dtype: np.dtype[Any], data_format: str
) -> None:
    check(make_case(x_shape, w_shape, options, data_format), dtype)


# x.shape, w.shape and options of problems that fill more than a tile along every dimension, with a rest.
LARGE = [
    pytest.param((2, 35, 9, 11), (37, 35, 3, 3), {"padding": 1}, id="3x3"),
    pytest.param((3, 36, 8, 8), (40, 36, 1, 1), {}, id="1x1"),
    pytest.param((1, 66, 9, 8), (68, 33, 2, 3), {"groups": 2, "stride": (2, 1), "padding": ((1, 0), (2, 1))}, id="groups"),
    pytest.param((1, 24, 14, 13), (34, 24, 3, 2), {"stride": (2, 3), "dilation": (3, 2), "padding": 2}, id="dilation"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), LARGE)
def test_more_than_one_tile(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], dtype: np.dtype[Any], data_format: str
) -> None:
    check_fast(make_case(x_shape, w_shape, options, data_format), dtype)


def check_fast(case: Case, dtype: Any, tile: TileShape | None = None, splits: int | None = None) -> None:
    """As :func:`check`, of sizes that are too large for loops."""
    dtype = np.dtype(dtype)
    x, w, b, dy, _ = case.astype(dtype)
    geometry = geometry_of(case)
    rounded = case._replace(x=x.astype(np.float64), w=w.astype(np.float64), b=b.astype(np.float64), dy=dy.astype(np.float64))
    y, dx = expected_of(rounded)
    terms = max(geometry.channels, geometry.filters) // geometry.groups * geometry.taps
    for actual, expected in (
        (correlation.forward(x, w, b, geometry, False, tile, splits), y),
        (correlation.backward_input(dy, w, geometry, tile, splits), dx),
    ):
        if dtype.name in NARROW_TOLERANCES:
            rtol = NARROW_TOLERANCES[dtype.name]
            np.testing.assert_allclose(actual.astype(np.float64), expected, rtol=rtol, atol=1e-4)
        else:
            assert_close(actual, expected, dtype, terms=terms)


def expected_of(case: Case) -> tuple[Array, Array]:
    """Forward and the gradient of the input in float64: a product for every tap."""
    options = dict(case.options)
    data_format, groups = options.pop("data_format"), options.pop("groups", 1)
    x, dy = (reference.to_channels_first(array, data_format) for array in (case.x, case.dy))
    w = reference.weight_to_channels_first(case.w, data_format)
    windows = reference.Windows(x.shape[2:], w.shape[2:], **{"stride": 1, "padding": 0, "dilation": 1, **options})
    padded = reference.pad(x, windows.pads)
    y, dpadded = np.zeros(dy.shape), np.zeros(padded.shape)
    per_group, channels = w.shape[0] // groups, w.shape[1]
    for row, column in np.ndindex(*w.shape[2:]):
        at = tuple(
            slice(tap * step, tap * step + (outputs - 1) * stride + 1, stride)
            for tap, step, outputs, stride in zip((row, column), windows.dilation, windows.outputs, windows.stride, strict=True)
        )
        for group in range(groups):
            filters = slice(group * per_group, (group + 1) * per_group)
            seen = (slice(None), slice(group * channels, (group + 1) * channels), *at)
            y[:, filters] += np.einsum("fc,nchw->nfhw", w[filters, :, row, column], padded[seen])
            dpadded[seen] += np.einsum("fc,nfhw->nchw", w[filters, :, row, column], dy[:, filters])
    y += case.b[:, None, None]
    dx = reference.crop(dpadded, windows.pads, windows.size)
    return reference.from_channels_first(y, data_format), reference.from_channels_first(dx, data_format)


def test_the_fast_reference_is_the_slow_one() -> None:
    options = {"groups": 2, "stride": (2, 1), "dilation": (1, 2), "padding": ((1, 0), (2, 1))}
    case = make_case((2, 4, 6, 7), (6, 2, 3, 2), options, "channels_last")
    y, dx = expected_of(case)
    assert_close(y, reference.conv2d(case.x, case.w, case.b, **case.options), np.float64)
    assert_close(dx, reference.conv2d_backward_input(case.dy, case.w, case.x.shape, **case.options), np.float64)


# ----------------------------------------------------------------------------------------------------------------------
# Tiles, dtypes and the widths of copies
# ----------------------------------------------------------------------------------------------------------------------


def every_tile() -> list[Any]:
    cases = []
    for engine, name in (("cores", "float32"), ("cores", "float64"), ("tensor", "float16")):
        for shape in tiles.tile_shapes(engine, name):  # type: ignore[arg-type]
            cases.append(pytest.param(name, shape, id=f"{name}-{shape.rows}x{shape.columns}x{shape.depth}"))
    return cases


@pytest.mark.parametrize(("name", "shape"), every_tile())
def test_every_tile(name: str, shape: TileShape, data_format: str) -> None:
    # more than one tile of the small shapes along every dimension, part of one tile of the large ones
    case = make_case((2, 20, 7, 6), (36, 20, 2, 3), {"padding": 1, "stride": (1, 2)}, data_format)
    check_fast(case, narrow_dtype(name), shape)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), LARGE)
def test_16_bit_numbers(
    name: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str
) -> None:
    check_fast(make_case(x_shape, w_shape, options, data_format), narrow_dtype(name))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8, 16, 24])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_any_number_of_channels(name: str, channels: int, data_format: str) -> None:
    # of which a thread copies as many at once as divide them
    case = make_case((2, 2 * channels, 3, 4), (2 * channels, channels, 2, 2), {"groups": 2, "padding": 1}, data_format)
    check_fast(case, narrow_dtype(name))


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 5), (4, 4), (3, 8)])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_neighbouring_pixels_of_1x1_windows(name: str, size: tuple[int, int], data_format: str) -> None:
    check_fast(make_case((3, 5, *size), (6, 5, 1, 1), {}, data_format), narrow_dtype(name))


def test_arrays_that_vectors_do_not_fit(data_format: str) -> None:
    case = make_case((2, 8, 4, 4), (8, 8, 1, 1), {}, data_format)
    x, w, b, _, options = case.astype(np.float32)
    shifted = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
    shifted[...] = x
    assert runtime.address(shifted) % 16 == 4
    launches = planned(lambda: correlation.forward(shifted, w, b, geometry_of(case)))
    assert template_arguments(launches[1])[3] == "1"
    y = correlation.forward(shifted, w, b, geometry_of(case))
    assert_close(y, reference.conv2d(x, w, b, **options), np.float32)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_tensor_cores_only_where_they_are_and_only_exact_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = narrow_dtype(name)
    case = make_case((1, 4, 5, 5), (4, 4, 3, 3), {}, "channels_last").astype(dtype)

    def kernels(compute_capability: int) -> str:
        with runtime.planning(compute_capability, 8, 64 << 10) as launches:
            correlation.forward(case.x, case.w, None, geometry_of(case))
        return launches[1].file

    assert kernels(75) == "correlation.cu"
    assert kernels(80) == ("correlation.cu" if name == "float32" else "correlation_tensor.cu")
    monkeypatch.setenv("XPCONV_TF32", "1")
    assert kernels(75) == "correlation.cu"
    assert kernels(80) == "correlation_tensor.cu"
    monkeypatch.setenv("XPCONV_TF32", "yes")
    with (
        pytest.raises(ValueError, match="XPCONV_TF32 must be 0 or 1, got 'yes'")
        if name == "float32"
        else contextlib.nullcontext()
    ):
        kernels(80)


def test_tf32_rounds_what_it_multiplies(monkeypatch: pytest.MonkeyPatch, data_format: str) -> None:
    monkeypatch.setenv("XPCONV_TF32", "1")
    case = make_case((2, 12, 6, 7), (20, 12, 3, 2), {"padding": 1}, data_format)
    x, w, b, _, _ = case.astype(np.float32)
    y = correlation.forward(x, w, b, geometry_of(case))
    expected, _ = expected_of(case._replace(x=tf32(case.x), w=tf32(case.w)))
    exact, _ = expected_of(case)
    assert_close(y, expected, np.float32, terms=72)
    assert np.abs(y - exact).max() > 1e-4


def tf32(x: Array) -> Array:
    """Rounded to 10 bits behind the point, ties away from zero."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def test_bfloat16_on_a_card_whose_tensor_cores_do_not_know_it(data_format: str) -> None:
    dtype = narrow_dtype("bfloat16")
    old = simulator(compute_capability=75)
    with runtime.computed_by(old):
        check_fast(make_case((2, 10, 5, 6), (20, 10, 3, 2), {"padding": 1}, data_format), dtype)


def simulator(**changes: Any) -> runtime.Runtime:
    return dataclasses.replace(runtime.runtime_of(np.zeros(1)), **changes)


@pytest.mark.parametrize(("splits", "name"), [(2, "float32"), (3, "float64"), (100, "float16"), (100, "float32")])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), LARGE)
def test_blocks_that_share_a_tile(
    splits: int, name: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str
) -> None:
    check_fast(make_case(x_shape, w_shape, options, data_format), narrow_dtype(name), splits=splits)


@pytest.mark.parametrize("splits", [2, 7])
@pytest.mark.parametrize("options", [{"stride": 2}, {"stride": 4}, {"stride": (2, 3), "dilation": (2, 1), "padding": 1}])
def test_blocks_that_share_a_tile_of_a_phase(splits: int, options: dict[str, Any], data_format: str) -> None:
    # Phases with few taps leave nothing to some of them; pixels without taps are zero.
    case = make_case((2, 20, 9, 10), (18, 20, 3, 3), options, data_format)
    check_fast(case, np.float64, splits=splits)


def test_small_results_of_long_sums_are_split() -> None:
    x, w = np.empty((1, 512, 7, 7), np.float32), np.empty((512, 512, 3, 3), np.float32)
    geometry = conv2d_geometry("test", x.shape, w.shape, padding=1)
    _, product, add = planned(lambda: correlation.forward(x, w, None, geometry))
    assert product.grid[1] > 1
    assert template_arguments(product)[-1] == "true"
    assert add.name.startswith("add_correlation_splits")
    x = np.empty((256, 512, 7, 7), np.float32)
    geometry = conv2d_geometry("test", x.shape, w.shape, padding=1)
    assert len(planned(lambda: correlation.forward(x, w, None, geometry))) == 2


# ----------------------------------------------------------------------------------------------------------------------
# What is checked in every read and write
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the simulator check every access, whatever the environment says."""
    module = functools.partial(cudasim.Module, mode="check")
    checking = simulator(load=module, _kernels={})
    monkeypatch.setattr(runtime, "_simulator", lambda: checking)


CHECKED = [
    ("float32", "channels_first", (2, 5, 5, 6), (6, 5, 3, 2), {"padding": 1}),
    ("float32", "channels_first", (2, 5, 4, 4), (6, 5, 1, 1), {}),
    ("float32", "channels_last", (2, 8, 5, 6), (6, 8, 3, 2), {"padding": 1}),
    ("float32", "channels_last", (2, 3, 5, 6), (6, 3, 3, 2), {"stride": 2}),
    ("float64", "channels_first", (1, 4, 5, 6), (4, 2, 2, 3), {"groups": 2, "stride": (3, 2), "dilation": 2, "padding": 2}),
    ("float64", "channels_last", (1, 4, 5, 6), (4, 2, 2, 3), {"groups": 2, "stride": (3, 2), "dilation": 2, "padding": 2}),
    ("float16", "channels_first", (2, 5, 5, 6), (6, 5, 3, 2), {"padding": 1}),
    ("float16", "channels_last", (2, 8, 5, 6), (6, 8, 3, 2), {"padding": 1}),
    ("float16", "channels_last", (2, 3, 5, 6), (6, 3, 3, 2), {}),
]


@pytest.mark.usefixtures("checked")
def test_every_access_of_blocks_that_share_a_tile_is_in_order(data_format: str) -> None:
    check_fast(make_case((1, 20, 5, 6), (6, 20, 3, 2), {"padding": 1, "stride": 2}, data_format), np.float32, splits=4)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize(("name", "data_format", "x_shape", "w_shape", "options"), CHECKED)
def test_every_access_is_in_order(
    name: str, data_format: str, x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    check_fast(make_case(x_shape, w_shape, options, data_format), narrow_dtype(name))


@pytest.mark.usefixtures("checked")
def test_every_access_of_the_correction_is_in_order(data_format: str) -> None:
    case = make_case((2, 2, 4, 5), (3, 2, 2, 2), {"padding": 1, "stride": (2, 1)}, data_format)
    reference.weight_to_channels_first(case.w, data_format)[1, 0, 0, 0] = np.inf
    x, w, _, dy, options = case.astype(np.float32)
    with np.errstate(invalid="ignore"):
        expected = reference.conv2d_backward_input(dy, w, x.shape, **options)
    assert_close(correlation.backward_input(dy, w, geometry_of(case)), expected, np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# Phases, zeros, infinities
# ----------------------------------------------------------------------------------------------------------------------

PHASES = [
    pytest.param({"stride": 2}, (3, 3), id="every pixel has taps"),
    pytest.param({"stride": 4}, (2, 3), id="stride longer than the kernel"),
    pytest.param({"stride": 2, "dilation": 2}, (3, 2), id="taps meet every other pixel"),
    pytest.param({"stride": (4, 6), "dilation": (2, 4)}, (3, 3), id="common divisors"),
    pytest.param({"stride": (3, 2), "dilation": (2, 3), "padding": ((3, 1), (0, 4))}, (3, 4), id="no common divisors"),
    pytest.param({"stride": (2, 3), "dilation": (4, 6), "padding": 5}, (2, 2), id="dilation a multiple of the stride"),
    pytest.param({"stride": 40}, (2, 2), id="one output"),
]


@pytest.mark.parametrize(("options", "kernel"), PHASES)
@pytest.mark.parametrize("size", [(9, 10), (13, 14)])
def test_phases(options: dict[str, Any], kernel: tuple[int, int], size: tuple[int, int], data_format: str) -> None:
    check(make_case((2, 3, *size), (5, 3, *kernel), options, data_format), np.float64)


def test_no_multiplication_misses() -> None:
    # All phases together have the taps of the kernel, once: nine for 3x3 taps with stride 2, and not nine for each.
    case = make_case((1, 16, 32, 32), (16, 16, 3, 3), {"stride": 2, "padding": 1}, "channels_first").astype(np.float32)
    launches = planned(lambda: correlation.backward_input(case.dy, case.w, geometry_of(case)))
    problem = launches[1].arguments[-1]
    assert problem["phases"].tolist() == [2, 2]
    assert problem["tap_step"].tolist() == [2, 2]


@pytest.mark.parametrize("relu", [False, True])
def test_relu_and_bias(relu: bool, dtype: np.dtype[Any], data_format: str) -> None:
    case = make_case((2, 3, 5, 6), (7, 3, 3, 2), {"padding": 1}, data_format)
    check(case, dtype, relu=relu)
    x, w, _, _, options = case.astype(dtype)
    y = correlation.forward(x, w, None, geometry_of(case), relu)
    expected = reference.conv2d(x, w, **options)
    assert_close(y, np.maximum(expected, 0) if relu else expected, dtype)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
def test_relu_keeps_nan(data_format: str) -> None:
    case = make_case((1, 2, 4, 4), (3, 2, 2, 2), {}, data_format)
    case.x[0, 1, 1, 1] = np.nan
    check(case, np.float32, relu=True)


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2, "padding": 1, "groups": 2}, {"stride": 3}])
def test_weights_that_are_not_finite(name: str, value: float, options: dict[str, Any], data_format: str) -> None:
    # The zeros around x are numbers like others; those around dy are gradients of nothing.
    groups = options.get("groups", 1)
    case = make_case((2, 4, 5, 6), (6, 4 // groups, 3, 2), options, data_format)
    reference.weight_to_channels_first(case.w, data_format)[1, 0, 0, 0] = value
    check(case, narrow_dtype(name))


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
def test_a_channel_that_is_not_there_is_not_multiplied(data_format: str) -> None:
    # Neither zeros up to a whole tile, of weights or of pixels, may meet what is not finite.
    case = make_case((1, 3, 3, 3), (5, 3, 1, 1), {}, data_format)
    case.w[...] = np.inf
    case.x[...] = 1
    case.dy[...] = np.inf
    check(case, np.float32)


def test_empty_batch(dtype: np.dtype[Any], data_format: str) -> None:
    x, w, b, dy, _ = case = make_case((0, 2, 5, 6), (3, 2, 2, 3), {}, data_format).astype(dtype)
    assert correlation.forward(x, w, b, geometry_of(case)).shape == dy.shape
    assert correlation.backward_input(dy, w, geometry_of(case)).shape == x.shape


def test_same_bits_at_every_run(data_format: str) -> None:
    case = make_case((2, 19, 7, 6), (33, 19, 3, 3), {"padding": 1, "stride": 2}, data_format).astype(np.float32)
    first, second = (
        (
            correlation.forward(case.x, case.w, case.b, geometry_of(case)),
            correlation.backward_input(case.dy, case.w, geometry_of(case)),
        )
        for _ in range(2)
    )
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


# ----------------------------------------------------------------------------------------------------------------------
# Large arrays
# ----------------------------------------------------------------------------------------------------------------------


def test_64_bit_offsets(monkeypatch: pytest.MonkeyPatch, dtype: np.dtype[Any], data_format: str) -> None:
    monkeypatch.setattr(correlation, "index_type", lambda *arrays: "long long")
    options = {"padding": ((1, 0), (2, 1)), "stride": (2, 1), "dilation": (1, 2), "groups": 2}
    check(make_case((2, 6, 7, 6), (8, 3, 3, 2), options, data_format), dtype)


def test_offsets_have_64_bits_where_they_are_needed() -> None:
    small = make_case((1, 1, 3, 3), (1, 1, 1, 1), {}, "channels_first", np.float32)
    far = conv2d_geometry("test", small.x.shape, small.w.shape, stride=(2**30, 1), padding=(2**30, 0))
    for geometry, expected in ((geometry_of(small), "int"), (far, "long long")):
        launches = planned(lambda geometry=geometry: correlation.forward(small.x, small.w, None, geometry))
        assert template_arguments(launches[1])[1] == expected
    for images, expected in ((63, "int"), (64, "long long")):
        x, w = np.empty((images, 64, 512, 512), np.float16), np.empty((32, 64, 1, 1), np.float16)  # never touched
        geometry = conv2d_geometry("test", x.shape, w.shape, stride=2)
        launches = planned(lambda x=x, w=w, geometry=geometry: correlation.forward(x, w, None, geometry))
        assert template_arguments(launches[1])[1] == expected


@pytest.mark.parametrize("axis", [0, 1])
def test_padding_beyond_32_bits(axis: int, data_format: str) -> None:
    case = make_case((1, 2, 3, 3), (3, 2, 1, 3), {}, data_format)
    stride, padding = [1, 1], [0, 1]
    stride[axis] = padding[axis] = 2**32
    geometry = conv2d_geometry("test", case.x.shape, case.w.shape, stride=stride, padding=padding, data_format=data_format)
    # The windows in the middle begin with the first pixel of the axis; those before and behind see zeros alone.
    near = {"stride": [1, 1], "padding": [0, 1], "data_format": data_format}
    near["stride"][axis], near["padding"][axis] = 9, 9
    assert geometry.output_size[axis] == 3
    dy = make_case(geometry.y_shape, (1, geometry.y_shape[1], 1, 1), {}, "channels_first").x
    y = correlation.forward(case.x, case.w, case.b, geometry)
    dx = correlation.backward_input(dy, case.w, geometry)
    assert_close(y, reference.conv2d(case.x, case.w, case.b, **near), np.float64)
    assert_close(dx, reference.conv2d_backward_input(dy, case.w, case.x.shape, **near), np.float64)


# ----------------------------------------------------------------------------------------------------------------------
# What a card would be given to do
# ----------------------------------------------------------------------------------------------------------------------


def planned(compute: Callable[[], object], multiprocessors: int = 108) -> list[runtime.Launch]:
    """The launches that a card with this many multiprocessors would get."""
    with runtime.planning(80, multiprocessors, 163 << 10) as launches:
        compute()
    return launches


def template_arguments(launch: runtime.Launch) -> list[str]:
    return launch.name.partition("<")[2].rstrip(">").split(", ")


def shape_of(launch: runtime.Launch) -> tuple[int, int]:
    rows, columns = template_arguments(launch)[4:6]
    return int(rows), int(columns)


def test_large_problems_take_large_tiles_and_small_ones_small_tiles() -> None:
    for x_shape, w_shape, expected in (
        ((64, 128, 56, 56), (128, 128, 3, 3), (128, 128)),
        ((64, 64, 56, 56), (64, 64, 3, 3), (64, 128)),
        ((256, 32, 28, 28), (30, 32, 5, 5), (32, 128)),
        ((1, 16, 8, 8), (16, 16, 3, 3), (16, 128)),
    ):
        x, w = np.empty(x_shape, np.float32), np.empty(w_shape, np.float32)
        geometry = conv2d_geometry("test", x_shape, w_shape, padding=1)
        launch = planned(lambda: correlation.forward(x, w, None, geometry))[1]  # noqa: B023
        if expected == (16, 128):
            assert np.prod(shape_of(launch)) <= 2048
        else:
            assert shape_of(launch) == expected


def test_the_environment_names_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case((1, 4, 5, 5), (4, 4, 3, 3), {}, "channels_first").astype(np.float32)
    for name, expected in (("64x32", ["64", "32", "16"]), ("64x64x8", ["64", "64", "8"])):
        monkeypatch.setenv("XPCONV_CUDA_TILE", name)
        launch = planned(lambda: correlation.forward(case.x, case.w, None, geometry_of(case)))[1]
        assert template_arguments(launch)[4:7] == expected
    monkeypatch.delenv("XPCONV_CUDA_TILE")
    half = make_case((1, 4, 5, 5), (4, 4, 3, 3), {}, "channels_first", np.float16)
    free = planned(lambda: correlation.forward(half.x, half.w, None, geometry_of(half)))[1]
    monkeypatch.setenv("XPCONV_CUDA_TILE", "64x32")  # tensor cores have no such tile
    assert planned(lambda: correlation.forward(half.x, half.w, None, geometry_of(half)))[1].name == free.name
    monkeypatch.setenv("XPCONV_CUDA_TILE", "7x7")
    with pytest.raises(ValueError, match=r"XPCONV_CUDA_TILE must be one of 128x128x16, .* got '7x7'"):
        planned(lambda: correlation.forward(case.x, case.w, None, geometry_of(case)))


@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_tiles_fit_the_shared_memory_of_every_card(name: str) -> None:
    engine: tiles.Engine = "tensor" if name == "float16" else "cores"
    for shape in tiles.tile_shapes(engine, name):
        for along in (False, True):
            assert tiles.shared_bytes(shape, name, engine, rows_along_depth=along) <= 64 << 10


def test_the_environment_names_an_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    few = conv2d_geometry("test", (2, 1, 28, 28), (30, 1, 5, 5))
    many = conv2d_geometry("test", (2, 64, 28, 28), (64, 64, 3, 3))
    depthwise = conv2d_geometry("test", (2, 8, 9, 9), (8, 1, 3, 3), groups=8)
    assert conv2d.choose_algorithm("forward", few, np.float32) == "direct"
    assert conv2d.choose_algorithm("forward", many, np.float32) == "implicit_gemm"
    assert conv2d.choose_algorithm("forward", depthwise, np.float32) == "depthwise"
    monkeypatch.setenv("XPCONV_CUDA_CONV2D", "implicit_gemm")
    assert {conv2d.choose_algorithm("forward", geometry, np.float32) for geometry in (few, many, depthwise)} == {
        "implicit_gemm"
    }
    monkeypatch.setenv("XPCONV_CUDA_CONV2D", "depthwise")
    assert conv2d.choose_algorithm("forward", depthwise, np.float32) == "depthwise"
    assert conv2d.choose_algorithm("forward", many, np.float32) == "implicit_gemm"
    monkeypatch.setenv("XPCONV_CUDA_CONV2D", "winograd")
    with pytest.raises(ValueError, match="XPCONV_CUDA_CONV2D must be one of 'implicit_gemm', 'direct', 'depthwise', got 'win"):
        conv2d.choose_algorithm("forward", many, np.float32)


@pytest.mark.parametrize("algorithm", conv2d.ALGORITHMS)
@pytest.mark.parametrize("groups", [1, 4])
def test_every_algorithm_through_the_contract(
    algorithm: str, groups: int, monkeypatch: pytest.MonkeyPatch, data_format: str
) -> None:
    monkeypatch.setenv("XPCONV_CUDA_CONV2D", algorithm)
    case = make_case((2, 4, 6, 7), (8, 4 // groups, 3, 3), {"padding": 1, "groups": groups}, data_format)
    x, w, b, dy, options = case.astype(np.float32)
    geometry = geometry_of(case)
    assert_close(conv2d.conv2d_forward(x, w, b, geometry), reference.conv2d(x, w, b, **options), np.float32)
    y = conv2d.forward_with_activation(x, w, b, geometry, relu=True)
    assert_close(y, np.maximum(reference.conv2d(x, w, b, **options), 0), np.float32)
    expected = reference.conv2d_backward_input(dy, w, x.shape, **options)
    assert_close(conv2d.conv2d_backward_input(dy, w, geometry), expected, np.float32)
    dw, db = conv2d.conv2d_backward_weight(x, dy, geometry)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    assert_close(dw, expected_dw, np.float32, terms=16)
    assert_close(db, expected_db, np.float32, terms=16)


# ----------------------------------------------------------------------------------------------------------------------
# Measured tiles
# ----------------------------------------------------------------------------------------------------------------------


class FakeCard:
    """The simulator, which says that it is a card, and that a product of some shapes takes as many seconds as it was told."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.launched: list[str] = []
        self.measured: list[str] = []
        properties = {"name": b"Imaginary 9000 (PCIe)"}
        cuda = SimpleNamespace(
            Event=lambda: SimpleNamespace(record=lambda: None, synchronize=lambda: None),
            get_elapsed_time=self.elapsed,
            runtime=SimpleNamespace(getDeviceProperties=lambda number: properties),
        )
        xp = SimpleNamespace(empty=np.empty, zeros=np.zeros, cuda=cuda)
        self.runtime = simulator(name="cuda:0", xp=xp, load=self.load, _kernels={})

    def load(self, **arguments: Any) -> Any:
        module = cudasim.Module(**arguments)
        (name,) = arguments["name_expressions"]
        kernel = module.get_function(name)

        def launch(*arguments: Any, **options: Any) -> None:
            self.launched.append(name)
            kernel(*arguments, **options)

        return SimpleNamespace(get_function=lambda name: launch)

    def elapsed(self, start: object, end: object) -> float:
        product = next(name for name in reversed(self.launched) if name.startswith("correlate<"))
        self.measured.append(product)
        return 1e3 * next((seconds for shape, seconds in self.seconds.items() if shape in product), 1.0)


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XPCONV_CUDA_AUTOTUNE", "1")
    monkeypatch.setenv("XPCONV_CUDA_AUTOTUNE_CACHE", str(tmp_path / "tiles"))
    autotune._memory.cache_clear()
    autotune.card_name.cache_clear()
    return tmp_path / "tiles" / "Imaginary-9000-PCIe.json"


def test_the_fastest_tile_is_measured_once_and_kept(tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case((2, 8, 9, 9), (20, 8, 3, 3), {"padding": 1}, "channels_first", np.float32)
    geometry = geometry_of(case)
    candidates = tiles.promising_tiles(20, 162, 8, 1, np.float32, "cores", runtime.runtime_of(case.x), 9)[:3]
    best = candidates[2].template_arguments()
    monkeypatch.setattr(autotune, "CANDIDATES", 3)

    def computed() -> FakeCard:
        card = FakeCard({best: 0.5})
        with runtime.computed_by(card.runtime):
            y = correlation.forward(case.x, case.w, case.b, geometry)
        assert_close(y, reference.conv2d(case.x, case.w, case.b, **case.options), np.float32, terms=72)
        assert best in next(name for name in reversed(card.launched) if name.startswith("correlate<"))
        return card

    assert len(computed().measured) == 3 * autotune.RUNS
    assert computed().measured == []
    (kept,) = json.loads(tuned.read_text(encoding="utf-8")).values()
    assert kept == best
    autotune._memory.cache_clear()  # as in another process
    assert computed().measured == []
    for rubbish in ("", "[1, 2]", '{"a": 3', json.dumps(dict.fromkeys(json.loads(tuned.read_text()), "7, 7"))):
        tuned.write_text(rubbish, encoding="utf-8")
        autotune._memory.cache_clear()
        assert len(computed().measured) == 3 * autotune.RUNS
    assert best in json.loads(tuned.read_text(encoding="utf-8")).values()


def test_choices_that_cannot_be_kept_are_remembered(tuned: Path) -> None:
    tuned.parent.parent.mkdir(exist_ok=True)
    tuned.parent.write_text("a file where the directory should be", encoding="utf-8")
    shapes = tiles.tile_shapes("cores", "float32")
    times = {shape: float(number) for number, shape in enumerate(reversed(shapes))}
    assert autotune.Choices(tuned).fastest("problem", shapes, times.__getitem__) == shapes[-1]

    def never(shape: TileShape) -> float:
        raise AssertionError(shape)

    assert autotune.Choices(tuned).fastest("problem", shapes, never) == shapes[-1]


def test_choices_of_two_processes_are_both_kept(tuned: Path) -> None:
    shapes = tiles.tile_shapes("cores", "float32")
    for number in (3, 5):
        autotune._memory.cache_clear()
        autotune.Choices(tuned).fastest(
            f"problem {number}", shapes, lambda shape, number=number: float(shape != shapes[number])
        )
    assert json.loads(tuned.read_text(encoding="utf-8")) == {
        f"problem {number}": shapes[number].template_arguments() for number in (3, 5)
    }


@pytest.mark.usefixtures("tuned")
def test_the_simulator_never_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not autotune.is_wanted(runtime.runtime_of(np.zeros(1)))
    card = FakeCard({})
    assert autotune.is_wanted(card.runtime)
    monkeypatch.delenv("XPCONV_CUDA_AUTOTUNE")
    assert not autotune.is_wanted(card.runtime)


def test_nothing_waits_for_the_card() -> None:
    source = inspect.getsource(correlation)
    assert ".get()" not in source
    assert "float(" not in source
