"""conv2d, its two gradients, and conv_transpose2d, on every device, against the loops of reference.py."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

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


class Case(NamedTuple):
    """Arguments of a convolution in one data format, in float64."""

    x: Array
    w: Array
    b: Array
    dy: Array
    options: dict[str, Any]

    def astype(self, dtype: Any) -> Case:
        return Case(*(array.astype(dtype) for array in self[:4]), self.options)


def make_case(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str, seed: int = 0
) -> Case:
    """Draw a case; the shapes are given for channels_first."""
    settings = {"stride": 1, "padding": 0, "dilation": 1, **options}
    settings.pop("groups", None)
    outputs = reference.Windows(x_shape[2:], w_shape[2:], **settings).outputs
    return Case(
        reference.from_channels_first(normal(seed, x_shape), data_format),
        reference.weight_from_channels_first(normal(seed + 1, w_shape), data_format),
        normal(seed + 2, w_shape[:1]),
        reference.from_channels_first(normal(seed + 3, (x_shape[0], w_shape[0], *outputs)), data_format),
        {**options, "data_format": data_format},
    )


def check(case: Case, dtype: Any, device: str) -> None:
    """Hold all three convolutions against the reference."""
    x, w, b, dy, options = case.astype(dtype)
    y = call(xc.conv2d, x, w, b, device=device, **options)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device, **options)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device, **options)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    assert_close(y, reference.conv2d(x, w, b, **options), dtype)
    assert_close(dx, reference.conv2d_backward_input(dy, w, x.shape, **options), dtype)
    assert_close(dw, expected_dw, dtype)
    assert_close(db, expected_db, dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Geometry
# ----------------------------------------------------------------------------------------------------------------------

GEOMETRIES = [
    # x.shape, w.shape, options
    pytest.param((2, 3, 6, 7), (4, 3, 3, 2), {}, id="plain"),
    pytest.param((1, 1, 1, 1), (1, 1, 1, 1), {}, id="one of everything"),
    pytest.param((1, 1, 1, 1), (1, 1, 3, 3), {"padding": 1}, id="one pixel, 3x3"),
    pytest.param((2, 3, 5, 5), (4, 3, 1, 1), {}, id="1x1"),
    pytest.param((2, 3, 5, 6), (4, 3, 1, 1), {"stride": (2, 3)}, id="1x1 with stride"),
    pytest.param((2, 3, 5, 6), (4, 3, 1, 1), {"padding": (1, 2)}, id="1x1 with padding"),
    pytest.param((2, 4, 5, 6), (6, 2, 1, 1), {"groups": 2}, id="1x1 with groups"),
    pytest.param((3, 2, 5, 4), (3, 2, 5, 4), {}, id="kernel as large as the image"),
    pytest.param((2, 2, 3, 2), (3, 2, 5, 4), {"padding": 1}, id="kernel as large as the padded image"),
    pytest.param((2, 2, 1, 1), (3, 2, 4, 5), {"padding": ((3, 0), (0, 4))}, id="one pixel in the far corner"),
    pytest.param((1, 2, 1, 9), (3, 2, 1, 3), {"padding": (0, 1)}, id="one row"),
    pytest.param((1, 2, 9, 1), (3, 2, 3, 1), {"padding": (1, 0)}, id="one column"),
    pytest.param((2, 2, 7, 8), (3, 2, 3, 3), {"stride": (3, 2)}, id="unequal strides with a rest"),
    pytest.param((2, 2, 7, 1), (3, 2, 4, 1), {"stride": 2, "padding": (0, 2)}, id="one column with a stride"),
    pytest.param((2, 2, 1, 7), (3, 2, 1, 4), {"stride": 2, "padding": (2, 0)}, id="one row with a stride"),
    pytest.param((2, 2, 9, 9), (3, 2, 2, 2), {"stride": 4}, id="stride larger than the kernel"),
    pytest.param((2, 2, 5, 5), (3, 2, 2, 2), {"stride": 9}, id="stride larger than the image"),
    pytest.param((2, 2, 5, 5), (3, 2, 3, 3), {"padding": (2, 1)}, id="padding"),
    pytest.param((2, 2, 5, 4), (3, 2, 3, 3), {"padding": ((0, 2), (3, 1))}, id="asymmetric padding"),
    pytest.param((2, 2, 3, 3), (3, 2, 2, 2), {"padding": 5, "stride": 2}, id="padding larger than kernel and image"),
    pytest.param((2, 2, 4, 4), (3, 2, 3, 3), {"padding": ((0, 0), (6, 0)), "stride": 3}, id="windows in the padding"),
    pytest.param((2, 2, 5, 5), (3, 2, 3, 3), {"padding": ((0, 0), (6, 0)), "stride": 9}, id="nothing but padding, left"),
    pytest.param((2, 2, 5, 5), (3, 2, 3, 3), {"padding": ((7, 1), (0, 0)), "stride": 9}, id="nothing but padding, top"),
    pytest.param((2, 2, 9, 8), (3, 2, 3, 2), {"dilation": (2, 3)}, id="dilation"),
    pytest.param((2, 2, 9, 8), (3, 2, 2, 3), {"dilation": 3, "stride": 2, "padding": 3}, id="dilation and stride"),
    pytest.param((1, 2, 5, 5), (3, 2, 2, 2), {"dilation": 6, "padding": 3}, id="taps around a small image"),
    pytest.param((2, 2, 6, 7), (3, 2, 3, 3), {"padding": "same"}, id="same"),
    pytest.param((2, 2, 6, 7), (3, 2, 4, 2), {"padding": "same"}, id="same, even kernel"),
    pytest.param((2, 2, 8, 7), (3, 2, 3, 4), {"padding": "same", "stride": (2, 3)}, id="same with stride"),
    pytest.param((2, 2, 9, 8), (3, 2, 2, 3), {"padding": "same", "dilation": (3, 2)}, id="same with dilation"),
    pytest.param((2, 2, 6, 7), (3, 2, 3, 3), {"padding": "valid", "stride": 2}, id="valid"),
    pytest.param((2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "padding": 1}, id="groups"),
    pytest.param((2, 6, 5, 5), (9, 2, 3, 2), {"groups": 3, "stride": 2}, id="groups with stride"),
    pytest.param((2, 4, 6, 5), (4, 1, 3, 3), {"groups": 4, "padding": 1}, id="depthwise"),
    pytest.param((2, 3, 7, 6), (6, 1, 3, 2), {"groups": 3, "stride": (2, 1), "dilation": 2}, id="depthwise, two filters"),
    pytest.param((2, 4, 4, 4), (4, 1, 2, 2), {"groups": 4, "padding": ((1, 0), (0, 2))}, id="depthwise, asymmetric"),
    pytest.param((2, 4, 4, 4), (8, 1, 1, 1), {"groups": 4}, id="depthwise 1x1"),
    pytest.param((2, 1, 5, 5), (5, 1, 3, 3), {"padding": 1}, id="one channel"),
    pytest.param((2, 5, 5, 5), (1, 5, 3, 3), {"padding": 1}, id="one filter"),
    pytest.param((2, 13, 4, 4), (2, 13, 3, 3), {"padding": 1}, id="many channels to few filters"),
    pytest.param((2, 2, 4, 4), (13, 2, 3, 3), {"padding": 1}, id="few channels to many filters"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), GEOMETRIES)
def test_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    check(make_case(x_shape, w_shape, options, data_format), dtype, device)


@pytest.mark.usefixtures("smallest_parts")
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), GEOMETRIES)
def test_geometry_in_the_smallest_parts(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], device: str, data_format: str
) -> None:
    check(make_case((5, *x_shape[1:]), w_shape, options, data_format), np.float64, device)


@given(
    window=window_cases(),
    batch=st.integers(0, 3),
    groups=st.integers(1, 3),
    channels_per_group=st.integers(1, 3),
    filters_per_group=st.integers(1, 3),
    of=st.tuples(st.sampled_from(["float32", "float64"]), st.sampled_from(FORMATS), st.integers(0, 1000)),
)
def test_any_geometry(
    window: WindowCase,
    batch: int,
    groups: int,
    channels_per_group: int,
    filters_per_group: int,
    of: tuple[str, str, int],
    device: str,
) -> None:
    dtype, data_format, seed = of
    x_shape = (batch, groups * channels_per_group, *window.size)
    w_shape = (groups * filters_per_group, channels_per_group, *window.kernel)
    check(make_case(x_shape, w_shape, {**window.options, "groups": groups}, data_format, seed), dtype, device)


@pytest.mark.parametrize("batch", range(10))
@pytest.mark.parametrize("size", [(3, 3), (1, 4)])
def test_batches_smaller_and_larger_than_the_number_of_threads(
    batch: int, size: tuple[int, int], device: str, data_format: str
) -> None:
    check(make_case((batch, 2, *size), (3, 2, *size), {"padding": 1}, data_format), np.float32, device)


@pytest.mark.parametrize("threads", [1, 3, 7])
def test_any_number_of_threads(threads: int, device: str, data_format: str) -> None:
    with threadpoolctl.threadpool_limits(threads):
        for batch in (1, 2, 5, 16):
            check(make_case((batch, 2, 5, 4), (3, 2, 3, 3), {"padding": 1}, data_format), np.float32, device)
            options = {"groups": 3, "stride": 2}
            check(make_case((batch, 3, 5, 4), (3, 1, 3, 3), options, data_format), np.float32, device)
        check_large("bands of one image", device, data_format)
        check_large("depthwise", device, data_format)


def test_an_empty_batch_gives_an_empty_result(device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x, w, b, dy, options = make_case((0, 2, 5, 6), (3, 2, 2, 3), {}, data_format).astype(dtype)
    y = call(xc.conv2d, x, w, b, device=device, **options)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device, **options)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device, **options)
    assert y.shape == ((0, 3, 4, 4) if data_format == "channels_first" else (0, 4, 4, 3))
    assert (y.dtype, dx.shape, dx.dtype) == (dtype, x.shape, dtype)
    assert_close(dw, np.zeros(w.shape), dtype)
    assert_close(db, np.zeros(3), dtype)


def test_a_single_image_needs_no_batch_axis(device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x, w, b, dy, options = make_case((1, 2, 5, 6), (4, 1, 2, 3), {"groups": 2, "padding": 1}, data_format).astype(dtype)
    y = call(xc.conv2d, x[0], w, b, device=device, **options)
    dx = call(xc.conv2d_backward_input, dy[0], w, x.shape[1:], device=device, **options)
    dw, db = call(xc.conv2d_backward_weight, x[0], dy[0], w.shape, device=device, **options)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    assert_close(y, reference.conv2d(x, w, b, **options)[0], dtype)
    assert_close(dx, reference.conv2d_backward_input(dy, w, x.shape, **options)[0], dtype)
    assert_close(dw, expected_dw, dtype)
    assert_close(db, expected_db, dtype)


def test_the_defaults(device: str) -> None:
    x, w, b, dy, _ = make_case((2, 3, 6, 5), (4, 3, 3, 2), {}, "channels_first")
    assert_close(call(xc.conv2d, x, w, device=device), reference.conv2d(x, w), np.float64)
    assert_close(call(xc.conv2d, x, w, None, device=device), reference.conv2d(x, w), np.float64)
    assert_close(call(xc.conv2d, x, w, b, device=device), reference.conv2d(x, w, b), np.float64)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape)
    assert_close(dx, reference.conv2d_backward_input(dy, w, x.shape), np.float64)
    assert_close(dw, expected_dw, np.float64)
    assert_close(db, expected_db, np.float64)


def test_no_device_follows_the_arrays() -> None:
    x, w, b, _, options = make_case((2, 3, 6, 5), (4, 3, 3, 2), {}, "channels_first")
    y = xc.conv2d(x, w, b, **options)
    assert isinstance(y, np.ndarray)
    assert_close(y, reference.conv2d(x, w, b, **options), np.float64)
    assert_close(xc.conv2d(x, w, b, device=None, **options), y, np.float64)


def test_a_device_is_a_name_or_an_object(device: str) -> None:
    x, w, b, _, options = make_case((2, 3, 6, 5), (4, 3, 3, 2), {}, "channels_first")
    place = xc.get_device(device)
    moved = [xc.asarray(array, device=place) for array in (x, w, b)]
    assert_close(xc.conv2d(*moved, device=place, **options), reference.conv2d(x, w, b, **options), np.float64)


@pytest.mark.parametrize("form", [int, np.int8, np.uint64], ids=lambda form: form.__name__)
def test_integers_may_come_in_any_form(form: Any, device: str) -> None:
    x, w, b, _, options = make_case((2, 4, 9, 8), (4, 2, 2, 2), {"stride": 2, "dilation": 3, "groups": 2}, "channels_first")
    expected = reference.conv2d(x, w, b, **options)
    options = {name: form(value) for name, value in options.items() if name != "data_format"}
    assert_close(call(xc.conv2d, x, w, b, device=device, **options), expected, np.float64)


def test_pairs_may_come_in_any_form(device: str) -> None:
    x, w, b, dy, options = make_case(
        (2, 3, 9, 8), (4, 3, 2, 2), {"stride": (2, 1), "padding": ((1, 2), (0, 3))}, "channels_first"
    )
    expected = reference.conv2d(x, w, b, **options)
    expected_dx = reference.conv2d_backward_input(dy, w, x.shape, **options)
    expected_dw, _ = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    for sequence in (tuple, list, np.array):
        padding = sequence([sequence([1, 2]), sequence([0, 3])])
        options = {"stride": sequence([2, 1]), "padding": padding, "device": device}
        assert_close(call(xc.conv2d, x, w, b, **options), expected, np.float64)
        dx = call(xc.conv2d_backward_input, dy, w, input_shape=sequence(x.shape), **options)
        assert_close(dx, expected_dx, np.float64)
        dw, _ = call(xc.conv2d_backward_weight, x, dy, weight_shape=sequence(w.shape), **options)
        assert_close(dw, expected_dw, np.float64)
    one = np.array([1, 1])
    for padding in (1, (1, 1), [1, 1], one, ((1, 1), (1, 1)), [(1, 1), [1, 1]], [one, one], np.ones((2, 2), int)):
        y = call(xc.conv2d, x, w, b, padding=padding, device=device)
        assert_close(y, reference.conv2d(x, w, b, padding=1), np.float64)


# Sizes beyond the caches, so that every device must cut the work into parts: several images, bands of an image, a rest.
LARGE = {
    "parts of a batch": ((7, 16, 64, 64), (24, 16, 3, 3), {"padding": 1}),
    "bands of one image": ((1, 3, 517, 389), (8, 3, 7, 7), {"padding": 3, "stride": 2}),
    "many small images": ((513, 8, 12, 12), (16, 8, 5, 5), {}),
    "many small images with stride": ((700, 6, 13, 12), (10, 6, 4, 3), {"stride": 2, "padding": "same"}),
    "few channels to many filters": ((2, 3, 150, 141), (16, 3, 3, 3), {"padding": 1}),
    "1x1": ((3, 128, 56, 57), (64, 128, 1, 1), {}),
    "depthwise": ((13, 48, 71, 70), (48, 1, 3, 3), {"groups": 48, "padding": "same", "stride": 2}),
    "depthwise at stride 1": ((9, 40, 57, 60), (40, 1, 3, 3), {"groups": 40, "padding": 1}),
    "padding beyond whole parts": ((1, 6, 60, 150), (6, 6, 3, 3), {"padding": ((90, 80), (0, 100))}),
    "groups, dilation, asymmetric padding": (
        (2, 12, 120, 81),
        (10, 6, 3, 2),
        {"groups": 2, "dilation": (3, 2), "padding": ((5, 1), (0, 2))},
    ),
}


@functools.cache
def large_case(name: str) -> tuple[Case, Array, tuple[Array, Array, Array]]:
    x_shape, w_shape, options = LARGE[name]
    case = make_case(x_shape, w_shape, options, "channels_first")
    y = reference.large_conv2d(case.x, case.w, case.b, **options)
    return case, y, reference.large_conv2d_backward(case.x, case.w, case.dy, **options)


def check_large(name: str, device: str, data_format: str) -> None:
    case, expected_y, (expected_dx, expected_dw, expected_db) = large_case(name)
    x, dy, expected_y, expected_dx = (
        reference.from_channels_first(array, data_format) for array in (case.x, case.dy, expected_y, expected_dx)
    )
    w, expected_dw = (reference.weight_from_channels_first(array, data_format) for array in (case.w, expected_dw))
    options = {**case.options, "data_format": data_format}
    x, w, b, dy = (array.astype(np.float32) for array in (x, w, case.b, dy))
    y = call(xc.conv2d, x, w, b, device=device, **options)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device, **options)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device, **options)
    terms = dy.size // len(b)
    assert_close(y, expected_y, np.float32, terms=w.size // len(b))
    assert_close(dx, expected_dx, np.float32, terms=w.size // len(b))
    assert_close(dw, expected_dw, np.float32, terms=terms)
    assert_close(db, expected_db, np.float32, terms=terms)


@pytest.mark.parametrize("name", LARGE)
def test_large_images(name: str, device: str, data_format: str) -> None:
    check_large(name, device, data_format)


def test_large_images_in_float64(device: str) -> None:
    case, expected_y, (expected_dx, expected_dw, expected_db) = large_case("parts of a batch")
    x, w, b, dy, options = case
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device, **options)
    terms = dy.size // len(b)
    assert_close(call(xc.conv2d, x, w, b, device=device, **options), expected_y, np.float64, terms=144)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device, **options)
    assert_close(dx, expected_dx, np.float64, terms=216)
    assert_close(dw, expected_dw, np.float64, terms=terms)
    assert_close(db, expected_db, np.float64, terms=terms)


# ----------------------------------------------------------------------------------------------------------------------
# Memory
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORY_LAYOUTS)
@pytest.mark.parametrize("argument", ["x", "w", "b", "dy"])
def test_arrays_in_unusual_memory(memory: str, argument: str, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    options = {"groups": 2, "padding": ((1, 0), (2, 1)), "stride": (1, 2)}
    x, w, b, dy, options = make_case((3, 4, 5, 6), (6, 2, 3, 2), options, data_format).astype(dtype)
    store = MEMORY_LAYOUTS[memory] if not (argument == "b" and memory == "other axis order") else np.array
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    if argument in "xwb":
        expected = reference.conv2d(x, w, b, **options)
        stored = {"x": x, "w": w, "b": b}
        stored[argument] = store(stored[argument])
        assert_close(call(xc.conv2d, *stored.values(), device=device, **options), expected, dtype)
    if argument in ("dy", "w"):
        expected = reference.conv2d_backward_input(dy, w, x.shape, **options)
        stored = {"dy": dy, "w": w}
        stored[argument] = store(stored[argument])
        dx = call(xc.conv2d_backward_input, *stored.values(), x.shape, device=device, **options)
        assert_close(dx, expected, dtype)
    if argument in ("x", "dy"):
        stored = {"x": x, "dy": dy}
        stored[argument] = store(stored[argument])
        dw, db = call(xc.conv2d_backward_weight, *stored.values(), w.shape, device=device, **options)
        assert_close(dw, expected_dw, dtype)
        assert_close(db, expected_db, dtype)


def test_one_image_broadcast_to_a_batch(device: str, data_format: str) -> None:
    x, w, b, _, options = make_case((1, 2, 5, 6), (3, 2, 2, 3), {"padding": 1}, data_format)
    batch = np.broadcast_to(x, (4, *x.shape[1:]))
    expected = reference.conv2d(batch, w, b, **options)
    assert_close(call(xc.conv2d, batch, w, b, device=device, **options), expected, np.float64)


def test_the_same_array_as_image_and_weight(device: str) -> None:
    x = normal(1, (3, 3, 4, 4))
    assert_close(call(xc.conv2d, x, x, padding=2, device=device), reference.conv2d(x, x, padding=2), np.float64)


DETERMINED = {
    "bands and parts": ((5, 8, 90, 90), (12, 8, 3, 3), {"padding": 1}),
    "stride": ((5, 8, 61, 60), (12, 8, 3, 3), {"stride": 2}),
    "depthwise": ((7, 24, 40, 40), (24, 1, 3, 3), {"groups": 24, "padding": 1}),
}


def all_three(case: Case, device: str) -> list[bytes]:
    x, w, b, dy, options = case
    y = call(xc.conv2d, x, w, b, device=device, **options)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device, **options)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device, **options)
    return [array.tobytes() for array in (y, dx, dw, db)]


@pytest.mark.parametrize("name", DETERMINED)
def test_the_same_input_gives_the_same_bits(name: str, device: str, data_format: str) -> None:
    case = make_case(*DETERMINED[name], data_format).astype(np.float32)
    first = all_three(case, device)
    for _ in range(3):
        assert all_three(case, device) == first


def test_a_result_stays_as_it_is_when_the_function_is_called_again(device: str, data_format: str) -> None:
    case = make_case((2, 3, 6, 7), (4, 3, 3, 2), {"padding": 1}, data_format)
    other = make_case((2, 3, 6, 7), (4, 3, 3, 2), {"padding": 1}, data_format, seed=9)
    y = call(xc.conv2d, *case[:3], device=device, **case.options)
    dx = call(xc.conv2d_backward_input, case.dy, case.w, case.x.shape, device=device, **case.options)
    dw, db = call(xc.conv2d_backward_weight, case.x, case.dy, case.w.shape, device=device, **case.options)
    before = [array.copy() for array in (y, dx, dw, db)]
    check(other, np.float64, device)
    for array, copy in zip((y, dx, dw, db), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_calls_from_several_threads_do_not_disturb_each_other(device: str, data_format: str) -> None:
    cases = [
        make_case((3, 4, 20 + n, 30 - n), (6, 4, 3, 3), {"padding": 1, "stride": 1 + n % 2}, data_format).astype("f4")
        for n in range(8)
    ]
    expected = [all_three(case, device) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(lambda case: all_three(case, device), cases)) == expected


# ----------------------------------------------------------------------------------------------------------------------
# Dtypes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "b_dtype", "expected"),
    [
        ("float32", "float32", "float32", "float32"),
        ("float64", "float64", "float64", "float64"),
        ("float32", "float64", "float32", "float64"),
        ("float64", "float32", "float32", "float64"),
        ("float32", "float32", "float64", "float64"),
        (">f4", "<f4", "<f4", "float32"),
        (">f8", "float32", "int16", "float64"),
        ("uint8", "float32", "float32", "float32"),
        ("uint8", "float64", "float32", "float64"),
        ("float32", "int64", "bool", "float32"),
        ("bool", "float64", "int8", "float64"),
        ("uint8", "int8", "int64", "float32"),
        ("bool", "bool", "bool", "float32"),
        ("int64", "uint64", "int32", "float32"),
    ],
)
def test_dtype_of_the_result(x_dtype: str, w_dtype: str, b_dtype: str, expected: str, device: str) -> None:
    rng = np.random.default_rng(1)
    x, w, b = (
        rng.integers(0, 2 if of == "bool" else 100, shape).astype(of)
        for shape, of in (((2, 3, 5, 5), x_dtype), ((4, 3, 2, 2), w_dtype), ((4,), b_dtype))
    )
    assert_close(call(xc.conv2d, x, w, b, device=device), reference.conv2d(x, w, b), expected)


@pytest.mark.parametrize(("x_dtype", "dy_dtype"), [("float32", "float64"), ("float64", "float32"), ("uint8", "float64")])
def test_the_wider_dtype_decides_the_precision_of_gradients(x_dtype: str, dy_dtype: str, device: str) -> None:
    x = (10 * np.abs(normal(1, (2, 3, 5, 5)))).astype(x_dtype)
    dy, w = normal(2, (2, 4, 4, 4)).astype(dy_dtype) / 3, normal(3, (4, 3, 2, 2)).astype(np.float32)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, device=device)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape)
    assert_close(dw, expected_dw, np.float64)
    assert_close(db, expected_db, np.float64)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, device=device)
    assert_close(dx, reference.conv2d_backward_input(dy, w, x.shape), dy_dtype)


def test_integers_up_to_what_the_float_holds(device: str) -> None:
    x = np.array([[[[2**24, -(2**24)], [2**24 - 1, 0]]]])
    one = np.ones((1, 1, 1, 1), np.float32)
    y = call(xc.conv2d, x, one, device=device)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, x)
    x = np.array([[[[2**53, -(2**53)], [2**53 - 1, 2**24 + 1]]]])
    y = call(xc.conv2d, x, one.astype(np.float64), device=device)
    np.testing.assert_array_equal(y, x)


# ----------------------------------------------------------------------------------------------------------------------
# NaN and infinity: what IEEE arithmetic gives, in exactly the outputs that read them
# ----------------------------------------------------------------------------------------------------------------------

ieee = pytest.mark.filterwarnings("ignore:(invalid|overflow):RuntimeWarning")
IEEE_GEOMETRIES = [
    pytest.param((4, 3, 7, 8), (4, 3, 3, 3), {"padding": 1}, id="3x3"),
    pytest.param((4, 3, 7, 8), (4, 3, 3, 2), {"stride": (2, 3), "padding": ((0, 2), (1, 0))}, id="stride"),
    pytest.param((4, 3, 7, 8), (4, 3, 1, 1), {}, id="1x1"),
    pytest.param((4, 4, 7, 8), (4, 1, 3, 3), {"groups": 4, "padding": 1}, id="depthwise"),
    pytest.param((4, 4, 7, 8), (6, 2, 2, 2), {"groups": 2, "dilation": 2}, id="groups"),
]


@ieee
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), IEEE_GEOMETRIES)
def test_nan_and_infinity_reach_the_outputs_that_read_them_and_no_others(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    value: float,
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    case = make_case(x_shape, w_shape, options, data_format)
    clean = case.x.copy()
    reference.to_channels_first(case.x, data_format)[1, 1, 3, 3] = value
    for finite, array in ((True, clean), (False, case.x)):
        y = call(xc.conv2d, array.astype(dtype), case.w.astype(dtype), device=device, **case.options)
        assert np.isfinite(y[[0, 2, 3]]).all()
        assert np.isfinite(y[1]).all() == finite
    check(case, dtype, device)


@ieee
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), IEEE_GEOMETRIES)
def test_nan_and_infinity_in_gradients(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    case = make_case(x_shape, w_shape, options, data_format)
    dy = reference.to_channels_first(case.dy, data_format)
    dy[0, 1, 1, 1], dy[2, 0, 0, 0], dy[3, 2, 1, 0] = np.nan, np.inf, -np.inf
    check(case, dtype, device)


@ieee
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), IEEE_GEOMETRIES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_weights(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    value: float,
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    # An infinite weight over the padding: the padding is a zero, and 0 * inf is NaN. PyTorch gives NaN with its own
    # loops and leaves the padding out with oneDNN; here it is the definition on every device.
    case = make_case(x_shape, w_shape, options, data_format)
    reference.weight_to_channels_first(case.w, data_format)[1, 0, 0, 0] = value
    case.b[0] = value
    check(case, dtype, device)


@ieee
def test_zero_times_nan_and_infinity_is_nan(device: str, dtype: np.dtype[Any], data_format: str) -> None:
    case = make_case((2, 2, 5, 5), (3, 2, 3, 3), {"padding": 1}, data_format)
    case.w[...] = 0
    case.x[0, 1, 1, 1], case.x[1, 0, 0, 0] = np.nan, np.inf
    y = call(xc.conv2d, case.x.astype(dtype), case.w.astype(dtype), device=device, **case.options)
    assert np.isnan(y).any()
    check(case, dtype, device)


# ----------------------------------------------------------------------------------------------------------------------
# conv_transpose2d
# ----------------------------------------------------------------------------------------------------------------------


def transposed_case(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int, data_format: str, dtype: Any, seed: int = 0
) -> tuple[Array, Array, Array]:
    return (
        reference.from_channels_first(normal(seed, x_shape, dtype), data_format),
        reference.weight_from_channels_first(normal(seed + 1, w_shape, dtype), data_format),
        normal(seed + 2, (w_shape[1] * groups,), dtype),
    )


TRANSPOSED = [
    # x.shape, w.shape (C_in, C_out/groups, KH, KW), options
    pytest.param((2, 3, 4, 5), (3, 4, 3, 2), {}, id="plain"),
    pytest.param((2, 3, 4, 5), (3, 4, 1, 1), {}, id="1x1"),
    pytest.param((1, 1, 1, 1), (1, 1, 3, 4), {}, id="one pixel"),
    pytest.param((2, 3, 3, 4), (3, 2, 3, 3), {"stride": (2, 3), "padding": 1}, id="stride"),
    pytest.param((2, 3, 3, 4), (3, 2, 2, 2), {"stride": 3}, id="gaps between the windows"),
    pytest.param((2, 3, 3, 4), (3, 2, 2, 2), {"stride": 3, "output_padding": (2, 1)}, id="output_padding"),
    pytest.param((2, 3, 3, 4), (3, 2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}, id="double the size"),
    pytest.param((2, 3, 3, 4), (3, 2, 3, 2), {"dilation": (2, 3), "stride": 2}, id="dilation"),
    pytest.param((2, 3, 3, 4), (3, 2, 2, 2), {"dilation": 3, "output_padding": 2}, id="output_padding and dilation"),
    pytest.param((2, 3, 4, 4), (3, 2, 3, 3), {"padding": ((0, 2), (1, 0))}, id="asymmetric padding"),
    pytest.param((2, 3, 6, 6), (3, 2, 2, 2), {"padding": 2}, id="padding larger than the kernel"),
    pytest.param((2, 6, 3, 4), (6, 2, 3, 3), {"groups": 3, "stride": 2}, id="groups"),
    pytest.param((2, 4, 3, 4), (4, 1, 3, 3), {"groups": 4, "stride": 2, "padding": 1}, id="depthwise"),
    pytest.param((2, 3, 3, 4), (3, 2, 3, 3), {"padding": "valid", "stride": 2}, id="valid"),
    pytest.param((2, 3, 3, 4), (3, 2, 2, 2), {"padding": "valid", "stride": 3}, id="valid with gaps"),
    pytest.param((2, 3, 3, 4), (3, 2, 4, 3), {"padding": "same", "stride": 2}, id="same"),
    pytest.param((2, 3, 3, 4), (3, 2, 2, 2), {"padding": "same", "stride": 3}, id="same with gaps"),
    pytest.param((2, 3, 4, 4), (3, 2, 3, 2), {"padding": "same", "dilation": 2}, id="same with dilation"),
    pytest.param((0, 3, 3, 4), (3, 2, 3, 3), {}, id="empty batch"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), TRANSPOSED)
def test_transposed_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    x, w, b = transposed_case(x_shape, w_shape, options.get("groups", 1), data_format, dtype)
    options = {**options, "data_format": data_format}
    y = call(xc.conv_transpose2d, x, w, b, device=device, **options)
    assert_close(y, reference.conv_transpose2d(x, w, b, **options), dtype)


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
    of=st.tuples(st.sampled_from(["float32", "float64"]), st.sampled_from(FORMATS), st.integers(0, 1000)),
    data=st.data(),
)
def test_any_transposed_geometry(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    channels: tuple[int, int, int, int],
    of: tuple[str, str, int],
    data: st.DataObject,
    device: str,
) -> None:
    batch, groups, channels_in, channels_out = channels
    dtype, data_format, seed = of
    padding, output_padding = [], []
    for axis in (0, 1):
        full = (size[axis] - 1) * stride[axis] + reference.span(kernel[axis], dilation[axis])
        before = data.draw(st.integers(0, min(3, full - 1)))
        padding.append((before, data.draw(st.integers(0, min(3, full - 1 - before)))))
        output_padding.append(data.draw(st.integers(0, max(stride[axis], dilation[axis]) - 1)))
    x, w, b = transposed_case(
        (batch, groups * channels_in, *size),
        (groups * channels_in, channels_out, *kernel),
        groups,
        data_format,
        dtype,
        seed,
    )
    options = {
        "stride": stride,
        "padding": tuple(padding),
        "output_padding": tuple(output_padding),
        "dilation": dilation,
        "groups": groups,
        "data_format": data_format,
    }
    y = call(xc.conv_transpose2d, x, w, b, device=device, **options)
    assert_close(y, reference.conv_transpose2d(x, w, b, **options), dtype)


def test_transposed_defaults_and_single_image(device: str, data_format: str) -> None:
    x, w, b = transposed_case((1, 3, 4, 5), (3, 2, 3, 2), 1, data_format, np.float64)
    expected = reference.conv_transpose2d(x, w, b, data_format=data_format)
    y = call(xc.conv_transpose2d, x[0], w, b, device=device, data_format=data_format)
    assert_close(y, expected[0], np.float64)
    y = call(xc.conv_transpose2d, x, w, device=device, data_format=data_format)
    assert_close(y, reference.conv_transpose2d(x, w, data_format=data_format), np.float64)


@pytest.mark.parametrize("memory", MEMORY_LAYOUTS)
def test_transposed_with_arrays_in_unusual_memory(memory: str, device: str, data_format: str) -> None:
    x, w, b = transposed_case((2, 4, 3, 4), (4, 3, 3, 2), 2, data_format, np.float32)
    options = {"groups": 2, "stride": 2, "data_format": data_format}
    expected = reference.conv_transpose2d(x, w, b, **options)
    store = MEMORY_LAYOUTS[memory]
    stored_b = b if memory == "other axis order" else store(b)
    y = call(xc.conv_transpose2d, store(x), store(w), stored_b, device=device, **options)
    assert_close(y, expected, np.float32)


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "expected"),
    [("float32", "float64", "float64"), ("uint8", "float64", "float64"), ("int8", "uint8", "float32")],
)
def test_dtype_of_the_transposed_result(x_dtype: str, w_dtype: str, expected: str, device: str) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.integers(0, 100, (2, 3, 4, 4)).astype(x_dtype), rng.integers(0, 100, (3, 2, 2, 2)).astype(w_dtype)
    assert_close(call(xc.conv_transpose2d, x, w, device=device), reference.conv_transpose2d(x, w), expected)


@ieee
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_the_transposed_convolution(value: float, device: str, data_format: str) -> None:
    x, w, b = transposed_case((2, 3, 4, 5), (3, 2, 3, 2), 1, data_format, np.float64)
    x[1, 1, 2, 2] = value
    options = {"stride": 2, "padding": 1, "data_format": data_format}
    y = call(xc.conv_transpose2d, x, w, b, device=device, **options)
    assert np.isfinite(y[0]).all()
    assert not np.isfinite(y[1]).all()
    assert_close(y, reference.conv_transpose2d(x, w, b, **options), np.float64)
