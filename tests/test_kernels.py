"""Every device's kernels have the same functions with the same arguments, and keep to the rules of the folder."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import xpconv as xc
from xpconv.geometry import Window2d, conv2d_geometry, window_2d
from xpconv.kernels import numpy as reference_kernels
from xpconv.kernels.numpy import threads

KERNELS = Path(xc.__file__).parent / "kernels"
DEVICES = sorted(path.name for path in KERNELS.iterdir() if (path / "__init__.py").is_file())


def kernels_of(device: str) -> ModuleType:
    return importlib.import_module(f"xpconv.kernels.{device}")


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_has_the_same_functions_with_the_same_arguments(device: str) -> None:
    kernels = kernels_of(device)
    assert sorted(kernels.__all__) == sorted(reference_kernels.__all__)
    for name in reference_kernels.__all__:
        expected = inspect.signature(getattr(reference_kernels, name)).parameters
        actual = inspect.signature(getattr(kernels, name)).parameters
        assert list(actual) == list(expected), name


@pytest.mark.parametrize("path", sorted(KERNELS.rglob("*.py")), ids=lambda path: str(path.relative_to(KERNELS)))
def test_kernels_import_nothing_above_them(path: Path) -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("xpconv")
    }
    allowed = {"xpconv.geometry"} | ({"xpconv.cudasim"} if path.parent.name == "cuda" else set())
    assert all(name in allowed or name.startswith("xpconv.kernels") for name in imported), imported


@pytest.fixture
def two_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        yield


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()]


@pytest.mark.usefixtures("two_threads")
def test_blas_gets_its_threads_back_after_work_an_error_and_use_from_several_threads() -> None:
    before = blas_threads()
    x, w = np.ones((4, 2, 9, 9)), np.ones((3, 2, 3, 3))
    seen: list[list[int]] = []

    def failing(worker: int, start: int, stop: int) -> None:
        seen.append(blas_threads())
        raise ZeroDivisionError(worker)

    with pytest.raises(ZeroDivisionError):
        threads.parallel(failing, items=4, workers=2)
    assert seen == [[1] * len(before)] * 2
    assert blas_threads() == before
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: xc.conv2d(x, w), range(40)))
    assert all(np.array_equal(result, results[0]) for result in results)
    assert blas_threads() == before


@pytest.mark.usefixtures("two_threads")
def test_every_item_is_worked_on_once_by_fixed_stretches() -> None:
    for items in (0, 1, 2, 5, 7):
        done: list[tuple[int, int]] = []
        threads.parallel(lambda worker, start, stop, done=done: done.append((start, stop)), items, workers=3)
        covered = [item for start, stop in sorted(done) for item in range(start, stop)]
        assert covered == list(range(items))


@pytest.mark.usefixtures("two_threads")
def test_the_callers_error_state_holds_in_every_thread() -> None:
    x = np.full((8, 1, 9, 9), np.inf)
    with np.errstate(all="ignore"):
        assert np.isnan(xc.conv2d(x, np.zeros((1, 1, 3, 3)))).all()
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        threads.parallel(lambda worker, start, stop: None if worker == 0 else np.divide(0.0, np.zeros(2)), 2, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_computes(device: str) -> None:
    if device == "cuda":
        pytest.skip("CUDA cannot be used in a child that was forked")
    # Without a care for fork the child would wait for ever for threads that only the parent has.
    program = """
import os, sys, numpy as np, xpconv as xc
xc.set_default_device(sys.argv[1])
x, w = np.ones((8, 2, 9, 9)), np.ones((3, 2, 3, 3))
expected = xc.conv2d(x, w)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(xc.conv2d(x, w), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, device],
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    ("images", "filters", "convolution", "pool"),
    [
        ((100, 1, 28, 28), (30, 1, 5, 5), {}, 2),
        ((7, 4, 17, 19), (6, 2, 3, 3), {"padding": 1, "groups": 2}, (2, 3)),
        ((5, 3, 20, 15), (8, 3, 3, 3), {"stride": 2, "padding": ((1, 0), (2, 1)), "dilation": 2}, 3),
        ((1, 2, 6, 7), (4, 2, 1, 1), {}, 2),
    ],
)
def test_a_fused_block_is_its_layers_one_by_one(
    images: tuple[int, ...],
    filters: tuple[int, ...],
    convolution: dict[str, object],
    pool: int | tuple[int, int],
    relu: bool,
    data_format: str,
    device: str,
    dtype: np.dtype[np.floating],
) -> None:
    kernels = xc.get_device(device).kernels
    random = np.random.default_rng(0)
    to_last = data_format == "channels_last"
    x = random.integers(-3, 4, images).astype(dtype)  # few values, so that there are ties
    w = random.integers(-2, 3, filters).astype(dtype)
    b = random.integers(-2, 3, filters[0]).astype(dtype)
    if to_last:
        x, w = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    x, w, b = (xc.asarray(array, device=device) for array in (x, w, b))
    block = conv2d_geometry("test", x.shape, w.shape, data_format=data_format, **convolution)
    window = window_2d("test", block.y_shape, pool, stride=pool, data_format=data_format)
    assert kernels.fuses_conv2d_max_pool2d(block, window, x.itemsize)

    maps = xc.conv2d(x, w, b, data_format=data_format, device=device, **convolution)
    xp = xc.get_device(device).xp
    activated = xp.maximum(maps, 0) if relu else maps
    pooled, indices = xc.max_pool2d(activated, pool, return_indices=True, data_format=data_format, device=device)
    dy = xc.asarray(random.standard_normal(pooled.shape).astype(dtype), device=device)
    dmaps = xc.max_pool2d_backward(dy, indices, maps.shape, pool, data_format=data_format, device=device)
    if relu:
        dmaps = xp.where(maps > 0, dmaps, 0)
    options = {**convolution, "data_format": data_format, "device": device}
    dx = xc.conv2d_backward_input(dmaps, w, x.shape, **options)
    dw, db = xc.conv2d_backward_weight(x, dmaps, w.shape, **options)

    y, winners = kernels.conv2d_max_pool2d_forward(x, w, b, block, window, relu)
    np.testing.assert_array_equal(xc.to_numpy(y), xc.to_numpy(pooled))  # small integers: every sum is exact
    fused_dx, fused_dw, fused_db = kernels.conv2d_max_pool2d_backward(x, w, y, winners, dy, block, window, relu, True)
    tolerance = 200 * np.finfo(dtype).eps
    for actual, expected in ((fused_dx, dx), (fused_dw, dw), (fused_db, db)):
        actual, expected = xc.to_numpy(actual), xc.to_numpy(expected)
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    assert kernels.conv2d_max_pool2d_backward(x, w, y, winners, dy, block, window, relu, False)[0] is None


@pytest.mark.parametrize(
    "pooling", [{"kernel_size": 3, "stride": 2}, {"kernel_size": 2, "stride": 2, "padding": 1}], ids=["overlap", "padding"]
)
def test_what_cannot_be_fused_is_said(pooling: dict[str, object], device: str) -> None:
    block = conv2d_geometry("test", (2, 1, 9, 9), (3, 1, 2, 2))
    arguments = dict(pooling)
    window = window_2d("test", block.y_shape, arguments.pop("kernel_size"), **arguments)
    assert not xc.get_device(device).kernels.fuses_conv2d_max_pool2d(block, window, 4)


def test_nan_in_a_fused_block_reaches_its_window_only_and_gets_no_gradient_beside_it(device: str) -> None:
    kernels = xc.get_device(device).kernels
    x = np.zeros((2, 1, 4, 4), np.float32)
    x[1, 0, 3, 2] = np.nan
    w, b = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    x, w, b = (xc.asarray(array, device=device) for array in (x, w, b))
    block = conv2d_geometry("test", x.shape, w.shape)
    window = window_2d("test", block.y_shape, 2, stride=2)
    y, winners = kernels.conv2d_max_pool2d_forward(x, w, b, block, window, False)
    assert np.argwhere(np.isnan(xc.to_numpy(y))).tolist() == [[1, 0, 1, 1]]
    dy = xc.asarray(np.ones(y.shape, np.float32), device=device)
    dx, _, _ = kernels.conv2d_max_pool2d_backward(x, w, y, winners, dy, block, window, False, True)
    assert np.argwhere(xc.to_numpy(dx)[1, 0]).tolist() == [[0, 0], [0, 2], [2, 0], [3, 2]]


def test_memory_of_a_convolution_does_not_grow_with_the_batch(device: str) -> None:
    # Peak memory above inputs and outputs, at 8 and at 64 images: an im2col matrix of the batch would be 9 times the input.
    program = """
import resource, sys, numpy as np, xpconv as xc
images = int(sys.argv[1])
xc.set_default_device(sys.argv[2])
x, w = np.ones((images, 32, 56, 56), np.float32), np.ones((32, 32, 3, 3), np.float32)
y = xc.conv2d(x[:2], w, padding=1)
xc.conv2d_backward_weight(x[:2], y, w.shape, padding=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y = xc.conv2d(x, w, padding=1)
xc.conv2d_backward_weight(x, y, w.shape, padding=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before - y.nbytes // 1024)
"""
    pytest.importorskip("resource")
    extra = [
        int(
            subprocess.run([sys.executable, "-c", program, images, device], capture_output=True, check=True, timeout=120).stdout
        )
        for images in ("8", "64")
    ]
    assert extra[1] - extra[0] < 16 * 1024, extra  # KiB; the im2col matrix of 56 more images would take 1,480 MiB


@pytest.mark.parametrize("device", [status.name for status in xc.devices() if status.available])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    "options", [{"stride": 2}, {"stride": 1, "padding": (1, 1)}, {"stride": (2, 3), "dilation": (2, 3), "padding": (2, 1)}]
)
def test_misplaced_indices_are_counted(device: str, data_format: str, options: dict[str, object]) -> None:
    shape = (2, 3, 11, 13) if data_format == "channels_first" else (2, 11, 13, 3)
    geometry = window_2d("test", shape, (3, 2), data_format=data_format, **options)

    def count(indices: np.ndarray[Any, Any], geometry: Window2d) -> int:
        return int(xc.get_device(device).kernels.count_misplaced(xc.asarray(indices, device=device), geometry))

    _, right = reference_kernels.max_pool2d_forward(np.random.default_rng(0).standard_normal(shape), geometry, True)
    assert right is not None
    assert count(right, geometry) == 0
    random = np.random.default_rng(1)
    for _ in range(20):
        indices = np.where(random.random(right.shape) < 0.5, right, random.integers(-20, 170, right.shape))
        expected = 0
        for at in np.ndindex(indices.shape):
            row, column = divmod(int(indices[at]), 13)
            i, j = at[2:] if data_format == "channels_first" else at[1:3]
            taps = [
                (i * geometry.stride[0] - geometry.padding[0][0] + r * geometry.dilation[0],
                 j * geometry.stride[1] - geometry.padding[1][0] + c * geometry.dilation[1])
                for r in range(3)
                for c in range(2)
            ]  # fmt: skip
            expected += not (0 <= row < 11 and (row, column) in taps)
        assert count(np.ascontiguousarray(indices), geometry) == expected
    for huge in (2**62, -(2**62), np.iinfo(np.int64).max, np.iinfo(np.int64).min):
        assert count(np.full(right.shape, huge), geometry) == right.size
