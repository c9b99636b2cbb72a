"""What the cuda device is asked to do by tests that compile for cards but have none: all its functions, noted as launches."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpconv.bench.cards import Card
from xpconv.bench.workloads import WORKLOADS, Convolution, ConvolutionReluPooling, Pooling, TrainingStep
from xpconv.geometry import Conv2dGeometry, Window2d, conv2d_geometry, window_2d
from xpconv.kernels.cuda import runtime
from xpconv.kernels.cuda.runtime import Launch
from xpconv.kernels.cuda.tiles import ENVIRONMENT_VARIABLE as TILE_VARIABLE
from xpconv.kernels.cuda.tiles import TF32_VARIABLE

LAYOUTS = ("channels_first", "channels_last")
DTYPES = ("float32", "float64", "float16", "bfloat16")

# Beside the workloads: images (N, C, H, W), filters (F, C / groups, KH, KW), and how they meet.
ODD_CONVOLUTIONS: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((3, 5, 17, 19), (7, 5, 3, 3), {"padding": 1}),
    ((2, 6, 33, 31), (9, 2, 3, 5), {"groups": 3, "stride": (2, 3), "padding": ((1, 2), (0, 1)), "dilation": (2, 1)}),
    ((2, 8, 20, 20), (16, 1, 5, 5), {"groups": 8, "padding": "same"}),
    ((5, 130, 9, 9), (259, 130, 1, 1), {"stride": 2}),
    ((64, 256, 14, 14), (256, 256, 3, 3), {"padding": 1}),
    ((256, 64, 112, 112), (128, 64, 3, 3), {"padding": 1}),
    ((64, 512, 28, 28), (1024, 512, 1, 1), {}),
    ((2, 3, 65, 65), (4, 3, 11, 11), {"stride": 4, "dilation": 3}),
    ((1, 16, 40, 40), (24, 16, 3, 3), {"stride": 4, "dilation": 2}),
    ((48, 64, 448, 448), (64, 64, 3, 3), {"padding": 1}),  # beyond the reach of 32 bits
)
ODD_POOLINGS: tuple[tuple[tuple[int, ...], tuple[int, int], dict[str, Any]], ...] = (
    ((1, 1, 1, 1), (1, 1), {}),
    ((2, 5, 17, 19), (3, 2), {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}),
    ((2, 8, 32, 32), (2, 2), {"stride": 2}),
    ((2, 8, 32, 32), (3, 3), {"stride": 1, "padding": 1}),
    ((4, 16, 7, 7), (7, 7), {}),
    ((4, 16, 56, 56), (56, 56), {}),
    ((4, 1, 56, 56), (56, 56), {}),
    ((48, 64, 448, 448), (2, 2), {"stride": 2}),
)
# Rows, terms and columns.
PRODUCTS = (
    (100, 4320, 100),
    (100, 100, 10),
    (1, 1, 1),
    (7, 65, 33),
    (4096, 4096, 4096),
    (10, 100_000, 10),
    (70_000, 1000, 8192),
)


def instantiations(noted: Iterable[Launch]) -> dict[tuple[str, str], Launch]:
    """Every kernel of these launches by file and name; of its launches, the one with the most shared memory."""
    found: dict[tuple[str, str], Launch] = {}
    for launch in noted:
        key = launch.file, launch.name
        if key not in found or found[key].shared_memory < launch.shared_memory:
            found[key] = launch
    return found


def covering(names: Iterable[tuple[str, str]], *, thorough: bool) -> list[tuple[str, str]]:
    """Some of these kernels, in which each argument of each template has every value that it has in all of them.

    Args:
        names: Files and name expressions.
        thorough: Whether together with each number type that it has there, too.
    """
    seen: set[tuple[str, ...]] = set()
    kept = []
    for file, name in sorted(names, key=lambda key: (key[0], -len(key[1]), key[1])):
        kernel, arguments = parts_of(name)
        numbers = arguments[0] if thorough and arguments else ""
        shown = {(file, kernel, numbers, str(place), argument) for place, argument in enumerate(arguments)}
        if not arguments or not shown <= seen:
            seen |= shown
            kept.append((file, name))
    return kept


def parts_of(name: str) -> tuple[str, tuple[str, ...]]:
    """``"relu_forward<float, 4>"`` as a name and its template arguments."""
    kernel, _, arguments = name.partition("<")
    return kernel, tuple(argument.strip() for argument in arguments.removesuffix(">").split(",")) if arguments else ()


def launches(card: Card) -> list[Launch]:
    """What a card is given to do for all functions of the device, dtypes and orders of axes."""
    kernels: Any = importlib.import_module("xpconv.kernels.cuda")
    with runtime.planning(card.compute_capability, card.multiprocessors, card.shared_memory_limit) as noted:
        for name in DTYPES:
            dtype = _dtype(name)
            for layout in LAYOUTS:
                for convolution in _convolutions(layout):
                    _convolve(kernels, convolution, dtype)
                for window in _windows(layout):
                    _pool(kernels, window, dtype)
                    _columns(kernels, window, dtype)
                _fuse(kernels, layout, dtype)
            _multiply(kernels, dtype)
            _sweep(kernels, dtype)
        # What is taken only by those who ask for it: tensor cores for float32, and a certain tile.
        for variable, value in ((TF32_VARIABLE, "1"), (TILE_VARIABLE, "128x128")):
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv(variable, value)
                for layout in LAYOUTS:
                    for convolution in _convolutions(layout):
                        _convolve(kernels, convolution, _dtype("float32"))
                _multiply(kernels, _dtype("float32"))
    return list(noted)


def _dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _empty(shape: Any, dtype: Any) -> Any:
    return np.empty(shape, dtype)  # never touched, so never there


def _convolutions(layout: str) -> Iterator[Conv2dGeometry]:
    for workload in WORKLOADS.values():
        if isinstance(workload, Convolution):
            how = {"stride": workload.stride, "padding": workload.padding, "groups": workload.groups}
            yield _convolution(workload.x_shape, workload.w_shape, how, layout)
    for x_shape, w_shape, how in ODD_CONVOLUTIONS:
        yield _convolution(x_shape, w_shape, how, layout)


def _convolution(x_shape: Any, w_shape: Any, how: dict[str, Any], layout: str) -> Conv2dGeometry:
    if layout == "channels_last":
        x_shape, w_shape = _last(x_shape), tuple(w_shape[axis] for axis in (2, 3, 1, 0))
    return conv2d_geometry("conv2d", x_shape, w_shape, data_format=layout, **how)


def _last(shape: Any) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in (0, 2, 3, 1))


def _windows(layout: str) -> Iterator[Window2d]:
    poolings = [workload for workload in WORKLOADS.values() if isinstance(workload, Pooling)]
    cases: list[tuple[Any, Any, dict[str, Any]]] = [
        (pooling.x_shape, (pooling.pool_size,) * 2, {"stride": pooling.stride, "padding": pooling.padding})
        for pooling in poolings
    ]
    for shape, size, how in itertools.chain(cases, ODD_POOLINGS):
        yield window_2d("pool", shape if layout == "channels_first" else _last(shape), size, data_format=layout, **how)


def _convolve(kernels: Any, geometry: Conv2dGeometry, dtype: Any) -> None:
    x, w, dy = (_empty(shape, dtype) for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape))
    for bias in (None, _empty(geometry.filters, dtype)):
        kernels.conv2d_forward(x, w, bias, geometry)
    kernels.conv2d_backward_input(dy, w, geometry)
    kernels.conv2d_backward_weight(x, dy, geometry)


def _pool(kernels: Any, window: Window2d, dtype: Any) -> None:
    x, dy = _empty(window.x_shape, dtype), _empty(window.y_shape, dtype)
    indices = np.zeros(window.y_shape, np.int64)
    for return_indices in (True, False):
        kernels.max_pool2d_forward(x, window, return_indices)
        kernels.avg_pool2d_forward(x, window, return_indices)
        kernels.avg_pool2d_backward(dy, window, return_indices)
    kernels.max_pool2d_backward(dy, indices, window)
    kernels.count_misplaced(indices, window)
    kernels.max_unpool2d(dy, indices, window.size, window)


def _columns(kernels: Any, window: Window2d, dtype: Any) -> None:
    if window.data_format == "channels_first" and window.batch < 16:
        columns = window.channels * window.taps
        kernels.im2col(_empty(window.x_shape, dtype), window)
        kernels.col2im(_empty((window.batch * window.output_size[0] * window.output_size[1], columns), dtype), window)


def _fuse(kernels: Any, layout: str, dtype: Any) -> None:
    step, fused = WORKLOADS["W5"], WORKLOADS["W1F"]
    assert isinstance(step, TrainingStep)
    assert isinstance(fused, ConvolutionReluPooling)
    convolution = _convolution(fused.convolution.x_shape, fused.convolution.w_shape, {}, layout)
    for size, relu, input_gradient in ((2, True, False), (3, False, True)):
        pooling = window_2d("pool", convolution.y_shape, size, stride=size, data_format=layout)
        assert kernels.fuses_conv2d_max_pool2d(convolution, pooling, dtype.itemsize)
        x, w, b = (_empty(shape, dtype) for shape in (convolution.x_shape, convolution.w_shape, convolution.filters))
        y, winners = kernels.conv2d_max_pool2d_forward(x, w, b, convolution, pooling, relu)
        dy = _empty(y.shape, dtype)
        kernels.conv2d_max_pool2d_backward(x, w, y, winners, dy, convolution, pooling, relu, input_gradient)


def _multiply(kernels: Any, dtype: Any) -> None:
    for rows, terms, columns in PRODUCTS:
        lefts = (_empty((rows, terms), dtype), _empty((terms, rows), dtype).T)
        rights = (_empty((terms, columns), dtype), _empty((columns, terms), dtype).T)
        for left, right in itertools.product(lefts, rights):
            kernels.matmul(left, right)


def _sweep(kernels: Any, dtype: Any) -> None:
    for size in (1, 4096, 4097):
        a, b, c, d = (_empty(size, dtype) for _ in range(4))
        kernels.relu_forward(a)
        kernels.relu_backward(a, b)
        kernels.all_finite(a)
        kernels.sgd_update(a, b, 0.1)
        kernels.momentum_update(a, b, c, 0.1, 0.9)
        kernels.nesterov_update(a, b, c, 0.1, 0.9)
        kernels.adagrad_update(a, b, c, 0.1, 1e-7)
        kernels.rmsprop_update(a, b, c, 0.1, 0.99, 1e-7)
        kernels.adam_update(a, b, c, d, 0.1, 0.9, 0.999, 1e-7)
    for classes in (2, 10, 1000, 100_000):
        x = _empty((8, classes), dtype)
        for labels in (np.zeros(8, np.int64), *(_empty(x.shape, _dtype(name)) for name in DTYPES)):
            kernels.softmax_cross_entropy_forward(x, labels)
            kernels.softmax_cross_entropy_backward(x, labels, 1.0)


def sources() -> dict[str, set[str]]:
    """The ``.cu`` files, and the names of the kernels that each declares."""
    folder = Path(runtime.__file__).parent
    declared = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\(")
    return {path.name: set(declared.findall(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.cu"))}
