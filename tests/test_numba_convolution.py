"""The numba device's algorithms: each where it applies, beyond the sizes of its blocks, and against the numpy device."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import WindowCase, assert_close, normal, smallest_numba_parts, window_cases
from hypothesis import given
from hypothesis import strategies as st

import xpconv as xc
from xpconv.geometry import conv2d_geometry, window_2d

numba = pytest.importorskip("numba")

from xpconv.kernels import numpy as numpy_kernels  # noqa: E402
from xpconv.kernels.numba import conv2d, fused  # noqa: E402

Array = np.ndarray[Any, np.dtype[Any]]


def images_and_filters(
    images: tuple[int, ...], filters: tuple[int, ...], data_format: str, dtype: Any = np.float64
) -> tuple[Array, Array, Array]:
    """A case in one data format; the shapes are given for channels_first."""
    x, w, b = normal(1, images, dtype), normal(2, filters, dtype), normal(3, filters[:1], dtype)
    if data_format == "channels_last":
        x, w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    return x, w, b


def check_against_numpy(x: Array, w: Array, b: Array, dtype: Any, terms: int = 1, **options: Any) -> None:
    """Hold the three convolutions against the numpy device in float64."""
    y = xc.conv2d(x, w, b, device="numpy", **options)
    dy = normal(4, y.shape)
    dx = xc.conv2d_backward_input(dy, w, x.shape, device="numpy", **options)
    dw, db = xc.conv2d_backward_weight(x, dy, w.shape, device="numpy", **options)
    x, w, b, dy = (array.astype(dtype) for array in (x, w, b, dy))
    assert_close(xc.conv2d(x, w, b, device="numba", **options), y, dtype, terms=terms)
    assert_close(xc.conv2d_backward_input(dy, w, x.shape, device="numba", **options), dx, dtype, terms=terms)
    actual_dw, actual_db = xc.conv2d_backward_weight(x, dy, w.shape, device="numba", **options)
    pixels = y.size // y.shape[1 if options.get("data_format", "channels_first") == "channels_first" else 3]
    assert_close(actual_dw, dw, dtype, terms=pixels)
    assert_close(actual_db, db, dtype, terms=pixels)


@given(
    case=window_cases(),
    groups=st.integers(1, 3),
    channels=st.integers(1, 5),
    filters=st.integers(1, 40),
    batch=st.integers(1, 5),
)
def test_it_agrees_with_the_numpy_device_on_random_geometries(
    case: WindowCase, groups: int, channels: int, filters: int, batch: int, data_format: str, dtype: np.dtype[Any]
) -> None:
    x, w, b = images_and_filters(
        (batch, groups * channels, *case.size), (groups * filters, channels, *case.kernel), data_format
    )
    terms = case.kernel[0] * case.kernel[1] * max(channels, filters)
    check_against_numpy(x, w, b, dtype, terms=terms, groups=groups, data_format=data_format, **case.options)


LARGE = {
    "bands of rows, and several blocks of filters": ((1, 70, 61, 67), (113, 70, 3, 3), {"padding": 1}),
    "several images a unit": ((41, 130, 7, 7), (150, 130, 3, 3), {"padding": 1}),
    "wide rows": ((1, 3, 12, 1500), (20, 3, 5, 5), {"padding": 2, "stride": (2, 1)}),
    "deep sums": ((2, 700, 6, 6), (40, 700, 3, 3), {}),
    "1x1 with planes on pages of their own": ((3, 300, 40, 40), (65, 300, 1, 1), {}),
    "stride 2": ((2, 65, 57, 57), (129, 65, 3, 3), {"padding": 1, "stride": 2}),
    "few channels": ((2, 3, 225, 223), (64, 3, 7, 7), {"padding": 3, "stride": 2}),
    "depthwise": ((2, 96, 57, 55), (96, 1, 5, 5), {"padding": 2, "groups": 96}),
    "depthwise, stride 2, two filters a channel": ((2, 33, 57, 55), (66, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 33}),
    "one filter": ((3, 64, 60, 60), (1, 64, 5, 5), {"padding": 2}),
    "groups": ((2, 96, 40, 40), (120, 24, 3, 3), {"padding": 1, "groups": 4}),
    "dilation": ((2, 20, 90, 90), (35, 20, 3, 3), {"dilation": 7, "padding": 7}),
    "a stride longer than the filter": ((2, 20, 90, 90), (35, 20, 2, 2), {"stride": 3}),
}


@pytest.mark.parametrize("case", LARGE)
def test_shapes_beyond_the_sizes_of_its_blocks(case: str, data_format: str) -> None:
    images, filters, options = LARGE[case]
    x, w, b = images_and_filters(images, filters, data_format)
    terms = int(np.prod(filters[1:]))
    check_against_numpy(x, w, b, np.float32, terms=terms, data_format=data_format, **options)


@pytest.fixture
def smallest_units(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cut all work as small as it can be cut."""
    yield from smallest_numba_parts(monkeypatch)


@pytest.mark.usefixtures("smallest_units")
@pytest.mark.parametrize("name", conv2d.ALGORITHMS)
@given(case=window_cases(), groups=st.integers(1, 2), batch=st.integers(1, 3))
def test_the_cut_into_units_changes_nothing(
    name: str, case: WindowCase, groups: int, batch: int, data_format: str, dtype: np.dtype[Any]
) -> None:
    x, w, b = images_and_filters((batch, 3 * groups, *case.size), (5 * groups, 3, *case.kernel), data_format)
    with conv2d.forced_algorithm(name):
        check_against_numpy(x, w, b, dtype, groups=groups, data_format=data_format, **case.options)


@pytest.mark.parametrize("cut", ["whole", "smallest"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_block_with_pooling_agrees_with_the_numpy_device(
    cut: str, groups: int, data_format: str, request: pytest.FixtureRequest
) -> None:
    if cut == "smallest":
        request.getfixturevalue("smallest_units")
    x, w, b = images_and_filters((5, 6, 37, 40), (50 * groups, 6 // groups, 3, 3), data_format)
    block = conv2d_geometry("test", x.shape, w.shape, padding=1, groups=groups, data_format=data_format)
    window = window_2d("test", block.y_shape, (2, 3), stride=(2, 3), data_format=data_format)
    expected, winners = numpy_kernels.conv2d_max_pool2d_forward(x, w, b, block, window, True)
    dy = normal(5, expected.shape)
    gradients = numpy_kernels.conv2d_max_pool2d_backward(x, w, expected, winners, dy, block, window, True, True)
    x, w, b, dy = (array.astype(np.float32) for array in (x, w, b, dy))
    y, winners = fused.conv2d_max_pool2d_forward(x, w, b, block, window, True)
    assert_close(y, expected, np.float32, terms=54)
    actual = fused.conv2d_max_pool2d_backward(x, w, y, winners, dy, block, window, True, True)
    for array, reference in zip(actual, gradients, strict=True):
        assert_close(array, reference, np.float32, terms=500)


@pytest.mark.parametrize("name", conv2d.ALGORITHMS)
@pytest.mark.parametrize("case", LARGE)
def test_every_algorithm_gives_the_same_result_where_it_applies(name: str, case: str, data_format: str) -> None:
    images, filters, options = LARGE[case]
    x, w, b = images_and_filters(images, filters, data_format, np.float32)
    with conv2d.forced_algorithm("direct"):
        expected = xc.conv2d(x, w, b, device="numba", data_format=data_format, **options)
    with conv2d.forced_algorithm(name):
        actual = xc.conv2d(x, w, b, device="numba", data_format=data_format, **options)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_an_algorithm_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of 'direct'.*got 'fft'"), conv2d.forced_algorithm("fft"):
        pass


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_at_every_run(threads: int, data_format: str) -> None:
    threads = min(threads, numba.config.NUMBA_NUM_THREADS)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        for images, filters, options in (LARGE["stride 2"], LARGE["several images a unit"], LARGE["depthwise"]):
            x, w, b = images_and_filters(images, filters, data_format, np.float32)
            runs = []
            for _ in range(2):
                y = xc.conv2d(x, w, b, device="numba", data_format=data_format, **options)
                dx = xc.conv2d_backward_input(y, w, x.shape, device="numba", data_format=data_format, **options)
                dw, db = xc.conv2d_backward_weight(x, y, w.shape, device="numba", data_format=data_format, **options)
                runs.append([array.tobytes() for array in (y, dx, dw, db)])
            assert runs[0] == runs[1]
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("case", ["few channels", "deep sums", "1x1 with planes on pages of their own", "depthwise"])
def test_memory_beyond_inputs_and_outputs_is_bounded(case: str, data_format: str) -> None:
    _, filters, options = LARGE[case]
    images = (24, *LARGE[case][0][1:])
    x, w, b = images_and_filters(images, filters, data_format, np.float32)
    y = xc.conv2d(x, w, b, device="numba", data_format=data_format, **options)
    xc.conv2d_backward_input(y, w, x.shape, device="numba", data_format=data_format, **options)
    xc.conv2d_backward_weight(x, y, w.shape, device="numba", data_format=data_format, **options)
    tracemalloc.start()
    try:
        y = xc.conv2d(x, w, b, device="numba", data_format=data_format, **options)
        dx = xc.conv2d_backward_input(y, w, x.shape, device="numba", data_format=data_format, **options)
        dw, _ = xc.conv2d_backward_weight(x, y, w.shape, device="numba", data_format=data_format, **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - y.nbytes - dx.nbytes - dw.nbytes < 64 << 20


def test_the_environment_turns_winograd_off() -> None:
    code = (
        "import numpy as np; from xpconv.geometry import conv2d_geometry; from xpconv.kernels.numba import conv2d, correlation;"
        "g = conv2d_geometry('t', (16, 64, 56, 56), (64, 64, 3, 3), padding=1);"
        "print(conv2d.choose_algorithm(correlation.forward_correlation(g), np.dtype('float32')),"
        "conv2d.choose_algorithm(correlation.forward_correlation(g), np.dtype('float64')))"
    )
    chosen = []
    for setting in ({}, {"XPCONV_CONV2D": "direct"}):
        environment = {name: value for name, value in os.environ.items() if name != "XPCONV_CONV2D"} | setting
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        chosen.append(done.stdout.split())
    assert chosen == [["winograd", "direct"], ["direct", "direct"]]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["x", "w"])
def test_what_is_not_finite_reaches_only_what_sees_it(bad: float, where: str, data_format: str) -> None:
    """As by the definition, also where an algorithm mixes pixels that do not see each other."""
    x, w, b = images_and_filters((2, 40, 20, 20), (40, 40, 3, 3), data_format, np.float32)
    {"x": x, "w": w}[where].flat[1234] = bad
    options: dict[str, Any] = {"padding": 1, "data_format": data_format}
    y = xc.conv2d(x, w, b, device="numba", **options)
    with np.errstate(invalid="ignore"):
        expected = xc.conv2d(x.astype(np.float64), w.astype(np.float64), b.astype(np.float64), device="numpy", **options)
    assert_close(y, expected, np.float32, terms=360)
    dy = normal(7, y.shape, np.float32)
    if where == "x":
        dy.flat[1234] = bad
    dx = xc.conv2d_backward_input(dy, w, x.shape, device="numba", **options)
    with np.errstate(invalid="ignore"):
        expected = xc.conv2d_backward_input(dy.astype(np.float64), w.astype(np.float64), x.shape, device="numpy", **options)
    assert_close(dx, expected, np.float32, terms=360)


def test_an_unknown_algorithm_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPCONV_CONV2D", "fft")
    with pytest.raises(ValueError, match=r"XPCONV_CONV2D must be one of 'direct', .*got 'fft'"):
        xc.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), device="numba")
