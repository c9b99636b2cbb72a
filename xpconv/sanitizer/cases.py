"""What the kernels are tried on: small images of every awkward kind, and the functions that compute with them.

A case calls one function of a device's kernels, so that the same case can be computed by two devices and compared.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from xpconv.geometry import Conv2dGeometry, Window2d, conv2d_geometry, window_2d
from xpconv.kernels import cuda
from xpconv.kernels.cuda import correlation, depthwise, direct, weight_gradient
from xpconv.kernels.cuda.tiles import ENVIRONMENT_VARIABLE as TILE_VARIABLE
from xpconv.kernels.cuda.tiles import TF32_VARIABLE, Engine, tile_shapes

Array = np.ndarray[Any, np.dtype[Any]]

DATA_FORMATS = ("channels_first", "channels_last")


@dataclass(frozen=True, eq=False)
class Case:
    """A call of one function of a device's kernels.

    Attributes:
        operation: Name of the function; or of one of the functions below, which call several.
        arguments: Its arguments.
        note: What is particular about them.
        settings: Environment variables that hold meanwhile, such as the one that forces a tile.
        algorithm: One of :data:`ALGORITHMS` that the cuda device must take; empty lets it choose.
        options: Further arguments for the functions of that algorithm.
        changed: Numbers of the arguments that are changed in place. They are results, too.
    """

    operation: str
    arguments: tuple[Any, ...]
    note: str
    settings: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that is computed in: that of the first array of numbers, or of the first array."""
        arrays = [argument for argument in self.arguments if isinstance(argument, np.ndarray)]
        dtype: np.dtype[Any] = next(filter(is_number_array, arrays), arrays[0]).dtype
        return dtype

    def __str__(self) -> str:
        forced = f", {self.algorithm}" if self.algorithm else ""
        forced += "".join(f", {name}={value}" for name, value in (*self.options.items(), *self.settings.items()))
        return f"{self.operation} {self.dtype}: {self.note}{forced}"

    def compute(self, kernels: ModuleType, dtype: Any = None) -> list[Any]:
        """Results of the case: arrays and numbers.

        Args:
            kernels: The kernels of a device.
            dtype: Compute in this dtype, not in that of the case.
        """
        arguments = [_copy(argument, dtype) for argument in self.arguments]
        if self.operation in COMPOSED:
            function = functools.partial(COMPOSED[self.operation], kernels)
        elif self.algorithm and kernels is cuda:
            module, name = ALGORITHMS[self.algorithm][self.operation]
            function = functools.partial(getattr(module, name), **self.options)
        else:
            function = getattr(kernels, self.operation)
        with environment(self.settings), np.errstate(all="ignore"):
            given = function(*arguments)
        results = list(given) if isinstance(given, tuple) else [given]
        return [result for result in results if result is not None] + [arguments[number] for number in self.changed]


def is_number_array(value: Any) -> bool:
    """Whether this is an array of numbers that a kernel computes with, and not of positions."""
    return isinstance(value, np.ndarray) and value.dtype.kind not in "iub"


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Let environment variables have these values meanwhile."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _copy(argument: Any, dtype: Any) -> Any:
    if not isinstance(argument, np.ndarray):
        return argument
    if dtype is not None and is_number_array(argument):
        return argument.astype(dtype)
    # The order of the axes and the alignment decide which kernel computes it.
    order = np.argsort([-stride for stride in argument.strides], kind="stable")
    plain = argument.transpose(order)
    copy = placed(plain.size, argument.dtype, argument.ctypes.data).reshape(plain.shape)
    copy[...] = plain
    return copy.transpose(np.argsort(order))


def placed(size: int, dtype: Any, address: int = 0) -> Array:
    """An array of this many elements that is aligned to 16 bytes as well, or as badly, as an address is."""
    raw = np.empty(size * np.dtype(dtype).itemsize + 32, np.uint8)
    start = (address - raw.ctypes.data) % 16
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)


# ---- functions that call several kernels -------------------------------------------------------------------------------


def pool_forward_and_backward(kernels: ModuleType, x: Array, dy: Array, geometry: Window2d) -> tuple[Any, ...]:
    """Maximum pooling and its gradient."""
    y, indices = kernels.max_pool2d_forward(x, geometry, True)
    assert indices is not None
    misplaced = kernels.count_misplaced(indices, geometry)
    return y, indices, misplaced, kernels.max_pool2d_backward(dy, indices, geometry)


def fused_block(
    kernels: ModuleType,
    x: Array,
    w: Array,
    b: Array,
    dy: Array,
    convolution: Conv2dGeometry,
    pooling: Window2d,
    relu: bool,
) -> tuple[Any, ...]:
    """Convolution, bias, ReLU and pooling at once, and the gradient. Which tap won is each device's own affair."""
    y, winners = kernels.conv2d_max_pool2d_forward(x, w, b, convolution, pooling, relu)
    return y, *kernels.conv2d_max_pool2d_backward(x, w, y, winners, dy, convolution, pooling, relu, True)


COMPOSED: dict[str, Any] = {"pool_forward_and_backward": pool_forward_and_backward, "fused_block": fused_block}


# Which functions of the cuda device compute a convolution by each algorithm.
ALGORITHMS: dict[str, dict[str, tuple[ModuleType, str]]] = {
    name: {
        "conv2d_forward": (forward, "forward"),
        "conv2d_backward_input": (forward, "backward_input"),
        "conv2d_backward_weight": (weight, "backward_weight"),
    }
    for name, forward, weight in (
        ("implicit_gemm", correlation, weight_gradient),
        ("direct", direct, direct),
        ("depthwise", depthwise, depthwise),
    )
}


# ---- numbers -----------------------------------------------------------------------------------------------------------


def dtypes() -> list[np.dtype[Any]]:
    """Every dtype that the kernels take; bfloat16 where ``ml_dtypes`` is installed."""
    known = [np.dtype(name) for name in ("float32", "float64", "float16")]
    if importlib.util.find_spec("ml_dtypes") is not None:
        import ml_dtypes

        known.append(np.dtype(ml_dtypes.bfloat16))
    return known


def numbers(shape: Sequence[int], dtype: Any, seed: int = 0) -> Array:
    """Multiples of 1/4 between -4 and 4, the same ones in every dtype: of a few of them, sums are exact in all."""
    random = np.random.default_rng((seed, *shape))
    return (random.integers(-16, 17, shape) / 4).astype(dtype)


def misaligned(array: Array) -> Array:
    """A copy that no vector of two elements can be read from."""
    copy = placed(array.size, array.dtype, array.itemsize).reshape(array.shape)
    copy[...] = array
    return copy


def with_special(array: Array) -> Array:
    """The array with a NaN and both infinities among its numbers, as far as there is room."""
    flat = array.reshape(-1)
    for number, value in enumerate((np.nan, np.inf, -np.inf)):
        if flat.size > 3 * number:
            flat[(7 * number + flat.size // 2) % flat.size] = value
    return array


# ---- convolution -------------------------------------------------------------------------------------------------------

# (images NCHW, filters FCKK, options, note)
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], str]] = [
    ((1, 1, 1, 1), (1, 1, 1, 1), {}, "one pixel"),
    ((2, 3, 7, 9), (5, 3, 3, 3), {"padding": 1}, "odd sizes"),
    ((2, 3, 8, 6), (4, 3, 3, 2), {"stride": (2, 3), "padding": ((1, 0), (0, 2))}, "strides and paddings that differ"),
    ((1, 4, 9, 7), (6, 2, 3, 3), {"groups": 2, "dilation": 2, "padding": 2}, "groups and dilation"),
    ((2, 6, 5, 5), (12, 1, 3, 3), {"groups": 6, "padding": 1}, "depthwise, two filters a channel"),
    ((1, 7, 6, 9), (7, 1, 2, 3), {"groups": 7, "stride": 2, "padding": 1}, "depthwise, stride 2"),
    ((3, 17, 4, 5), (19, 17, 1, 1), {}, "one tap, tails everywhere"),
    ((2, 16, 4, 4), (32, 16, 1, 1), {}, "one tap, whole vectors"),
    ((1, 2, 5, 7), (3, 2, 2, 2), {"stride": 3}, "stride beyond the kernel"),
    ((1, 3, 9, 9), (4, 3, 3, 3), {"stride": 4, "dilation": 2, "padding": 3}, "stride and dilation with a common factor"),
    ((1, 33, 3, 3), (65, 33, 3, 3), {"padding": 1}, "a tail behind every tile"),
    ((1, 16, 6, 6), (32, 16, 3, 3), {"padding": 1}, "whole vectors of channels"),
    ((2, 1, 14, 12), (8, 1, 5, 5), {}, "one channel"),
    ((60, 2, 9, 9), (5, 2, 3, 3), {"padding": 1}, "many images"),
    ((1, 1, 6, 67), (1, 1, 3, 3), {}, "one filter, wide and low"),
    ((40, 3, 16, 16), (3, 1, 3, 3), {"groups": 3}, "depthwise, many images"),
    ((0, 3, 6, 6), (2, 3, 3, 3), {}, "empty batch"),
]
# For forced tiles, which need no more than tails and whole vectors.
TILED = (
    "odd sizes",
    "one tap, tails everywhere",
    "a tail behind every tile",
    "whole vectors of channels",
    "groups and dilation",
)
# Channels of a group that the direct algorithm is meant for.
FEW = 4


def convolution(images: Sequence[int], filters: Sequence[int], options: Mapping[str, Any], data_format: str) -> Conv2dGeometry:
    """The geometry of a convolution told in the order of channels_first."""
    n, c, h, w = images
    f, per_group, kernel_h, kernel_w = filters
    last = data_format == "channels_last"
    x_shape = (n, h, w, c) if last else (n, c, h, w)
    w_shape = (kernel_h, kernel_w, per_group, f) if last else (f, per_group, kernel_h, kernel_w)
    return conv2d_geometry("sanitize", x_shape, w_shape, data_format=data_format, **options)


def convolution_cases(
    geometry: Conv2dGeometry, dtype: Any, note: str, *, special: bool = False, **forced: Any
) -> Iterator[Case]:
    """The forward pass and both gradients of one convolution; ``forced`` are further fields of the cases."""
    x, w, b, dy = (
        numbers(shape, dtype, seed)
        for seed, shape in enumerate((geometry.x_shape, geometry.w_shape, (geometry.filters,), geometry.y_shape))
    )
    if special:
        x, w, dy = with_special(x), with_special(w), with_special(dy)
    note = f"{note}, {geometry.data_format}"
    forward = {**forced.get("options", {}), **({"relu": False} if forced.get("algorithm") else {})}
    yield Case("conv2d_forward", (x, w, b, geometry), note, **{**forced, "options": forward})
    yield Case("conv2d_backward_input", (dy, w, geometry), note, **forced)
    yield Case("conv2d_backward_weight", (x, dy, geometry), note, **forced)


def algorithms_for(geometry: Conv2dGeometry) -> list[str]:
    """The algorithms that can be meant for a geometry, and none, which lets the device choose."""
    per_group = geometry.channels // geometry.groups
    return ["", "implicit_gemm", *["direct"] * (per_group <= FEW), *["depthwise"] * (per_group == 1)]


def _convolutions() -> Iterator[Case]:
    single, half = np.dtype(np.float32), np.dtype(np.float16)
    for data_format in DATA_FORMATS:
        for images, filters, options, note in CONVOLUTIONS:
            geometry = convolution(images, filters, options, data_format)
            for dtype in dtypes():
                for algorithm in algorithms_for(geometry):
                    yield from convolution_cases(geometry, dtype, note, algorithm=algorithm)
        images, filters, options, _ = CONVOLUTIONS[1]
        geometry = convolution(images, filters, options, data_format)
        for dtype in dtypes():
            for algorithm in algorithms_for(geometry):
                yield from convolution_cases(geometry, dtype, "NaN and infinities", special=True, algorithm=algorithm)
        rounded = {TF32_VARIABLE: "1"}  # the numbers here have few bits: nothing is lost
        yield from convolution_cases(geometry, single, "TF32", algorithm="implicit_gemm", settings=rounded)
        x, w = numbers(geometry.x_shape, single), numbers(geometry.w_shape, single, 1)
        yield Case("conv2d_forward", (x, w, None, geometry), f"no bias, {data_format}")
        for dtype in (single, half):
            for splits in (1, 3, 4):
                forced: dict[str, Any] = {"algorithm": "implicit_gemm", "options": {"splits": splits}}
                yield from convolution_cases(geometry, dtype, "odd sizes", **forced)
                deep = convolution((1, 33, 3, 3), (65, 33, 3, 3), {"padding": 1, "stride": 2}, data_format)
                yield from convolution_cases(deep, dtype, "a tail behind every tile, stride 2", **forced)
            for tile in sorted({f"{shape.rows}x{shape.columns}" for shape in tile_shapes(engine_of(dtype), dtype)}):
                forced = {"algorithm": "implicit_gemm", "settings": {TILE_VARIABLE: tile}}
                for images, filters, options, note in CONVOLUTIONS:
                    if note in TILED:
                        yield from convolution_cases(convolution(images, filters, options, data_format), dtype, note, **forced)


def engine_of(dtype: np.dtype[Any]) -> Engine:
    """What multiplies numbers of this dtype on the cards that the simulator stands for."""
    return "tensor" if dtype.itemsize == 2 else "cores"


# ---- pooling -----------------------------------------------------------------------------------------------------------

POOLINGS: list[tuple[tuple[int, ...], Any, dict[str, Any], str]] = [
    ((1, 1, 1, 1), 1, {}, "one pixel"),
    ((2, 3, 7, 9), 2, {"stride": 2}, "2x2 side by side, odd sizes"),
    ((2, 4, 8, 8), 2, {"stride": 2}, "2x2 side by side, whole vectors"),
    ((1, 5, 9, 7), 3, {"stride": 2, "padding": 1}, "3x3 that overlap, padding"),
    ((2, 3, 6, 8), (2, 3), {"stride": (3, 1), "padding": ((1, 0), (0, 1))}, "strides and paddings that differ"),
    ((1, 2, 7, 8), 2, {"stride": 1, "dilation": 3}, "dilation"),
    ((1, 2, 7, 7), 3, {"stride": 3, "ceil_mode": True}, "ceil_mode"),
    ((2, 33, 5, 3), (5, 3), {"stride": 1}, "the whole image"),
    ((2, 33, 9, 9), (9, 8), {"stride": 1, "padding": ((2, 1), (0, 3))}, "large windows, few of them"),
    ((1, 2, 19, 17), (8, 8), {"stride": (3, 5), "dilation": 2}, "large windows with dilation"),
    ((0, 2, 4, 4), 2, {"stride": 2}, "empty batch"),
]


def pooling(images: Sequence[int], kernel: Any, options: Mapping[str, Any], data_format: str) -> Window2d:
    """The geometry of a pooling told in the order of channels_first."""
    n, c, h, w = images
    shape = (n, h, w, c) if data_format == "channels_last" else (n, c, h, w)
    return window_2d("sanitize", shape, kernel, data_format=data_format, **options)


def pooling_cases(geometry: Window2d, dtype: Any, note: str, special: bool = False) -> Iterator[Case]:
    """Every kind of pooling with one window."""
    x, dy = numbers(geometry.x_shape, dtype, 0), numbers(geometry.y_shape, dtype, 1)
    if special:
        x = with_special(x)
    note = f"{note}, {geometry.data_format}"
    yield Case("pool_forward_and_backward", (x, dy, geometry), note)
    yield Case("max_pool2d_forward", (x, geometry, False), f"{note}, no indices")
    if geometry.dilation == (1, 1):
        for count_include_pad in (True, False):
            told = f"{note}, padding {'counts' if count_include_pad else 'does not count'}"
            yield Case("avg_pool2d_forward", (x, geometry, count_include_pad), told)
            yield Case("avg_pool2d_backward", (dy, geometry, count_include_pad), told)


def _poolings() -> Iterator[Case]:
    for data_format in DATA_FORMATS:
        for images, kernel, options, note in POOLINGS:
            geometry = pooling(images, kernel, options, data_format)
            for dtype in dtypes():
                yield from pooling_cases(geometry, dtype, note)
        geometry = pooling((2, 3, 7, 9), 2, {"stride": 1}, data_format)
        for dtype in dtypes():
            yield from pooling_cases(geometry, dtype, "NaN and infinities", special=True)
            yield unpooling_case((2, 3, 5, 4), dtype, data_format)
        for images, kernel, options, note in POOLINGS:
            yield misplaced_case(pooling(images, kernel, options, data_format), note)


def misplaced_case(geometry: Window2d, note: str) -> Case:
    """Positions of maxima of which some are not their window's."""
    random = np.random.default_rng(4)
    height, width = geometry.size
    indices = random.integers(-2, height * width + 2, geometry.y_shape)
    return Case("count_misplaced", (indices, geometry), f"{note}, {geometry.data_format}")


def unpooling_case(images: Sequence[int], dtype: Any, data_format: str) -> Case:
    """Maximum unpooling in which windows name the same pixel."""
    geometry = pooling(images, 2, {"stride": 1}, data_format)
    height, width = geometry.size
    indices = np.random.default_rng(2).integers(0, height * width, geometry.y_shape)
    x = numbers(geometry.y_shape, dtype)
    # What unpooling takes is what pooling gave: its geometry is that of the pooling's result.
    taken = replace(geometry, size=geometry.output_size)
    return Case("max_unpool2d", (x, indices, (height, width), taken), f"positions named twice, {data_format}")


# ---- the fused block, matrices, columns --------------------------------------------------------------------------------


def _fused() -> Iterator[Case]:
    blocks = [
        ((2, 1, 9, 9), (5, 1, 2, 2), {}, 2, "one channel"),
        ((2, 4, 8, 7), (6, 2, 3, 3), {"padding": 1, "groups": 2}, (2, 3), "groups, windows of 2x3"),
    ]
    for images, filters, options, kernel, note in blocks:
        for data_format in DATA_FORMATS:
            for dtype in dtypes():
                for relu in (True, False):
                    geometry = convolution(images, filters, options, data_format)
                    yield fused_case(geometry, kernel, dtype, relu, note)


def fused_case(geometry: Conv2dGeometry, kernel: Any, dtype: Any, relu: bool, note: str) -> Case:
    """A convolution with maximum pooling."""
    window = window_2d("sanitize", geometry.y_shape, kernel, stride=kernel, data_format=geometry.data_format)
    shapes = geometry.x_shape, geometry.w_shape, (geometry.filters,), window.y_shape
    # Small whole numbers: sums are exact in every dtype, so that no rounding decides which of a window's pixels wins.
    x, w, b, dy = (numbers(shape, np.float64, seed) for seed, shape in enumerate(shapes))
    arrays = [array.astype(dtype) for array in (np.round(x / 2), np.sign(w), np.round(b), dy)]
    told = f"{note}, {geometry.data_format}, {'ReLU' if relu else 'no ReLU'}"
    return Case("fused_block", (*arrays, geometry, window, relu), told)


def matrix_case(rows: int, inner: int, columns: int, dtype: Any, turned: tuple[bool, bool], settings: Any = ()) -> Case:
    """A matrix product; an operand that is ``turned`` is the transposed view of what lies in memory."""
    a = numbers((inner, rows), dtype, 0).T if turned[0] else numbers((rows, inner), dtype, 0)
    b = numbers((columns, inner), dtype, 1).T if turned[1] else numbers((inner, columns), dtype, 1)
    views = ", ".join(f"{name} transposed" for name, is_turned in zip("ab", turned, strict=True) if is_turned)
    return Case("matmul", (a, b), f"({rows}, {inner}) @ ({inner}, {columns}) {views}".strip(), dict(settings))


def _matrices() -> Iterator[Case]:
    yield matrix_case(33, 65, 17, np.dtype(np.float32), (False, True), {TF32_VARIABLE: "1"})
    for dtype in dtypes():
        for sizes in ((1, 1, 1), (5, 7, 3), (33, 65, 17), (64, 32, 64), (4, 300, 4), (0, 3, 2), (3, 0, 2)):
            for turned in ((False, False), (True, False), (False, True), (True, True)):
                yield matrix_case(*sizes, dtype, turned)


def columns_cases(geometry: Window2d, dtype: Any, note: str) -> Iterator[Case]:
    """The columns of images, and back."""
    pixels = geometry.batch * geometry.output_size[0] * geometry.output_size[1]
    told = f"{note}, {geometry.data_format}"
    yield Case("im2col", (numbers(geometry.x_shape, dtype), geometry), told)
    yield Case("col2im", (numbers((pixels, geometry.channels * geometry.taps), dtype), geometry), told)


def _columns() -> Iterator[Case]:
    for images, kernel, options, note in POOLINGS:
        if "ceil_mode" not in options:
            for data_format in DATA_FORMATS:
                for dtype in dtypes():
                    yield from columns_cases(pooling(images, kernel, options, data_format), dtype, note)


# ---- elementwise -------------------------------------------------------------------------------------------------------

UPDATES: dict[str, tuple[int, tuple[float, ...]]] = {
    # name: (arrays of state, numbers)
    "sgd_update": (0, (0.1,)),
    "momentum_update": (1, (0.1, 0.9)),
    "nesterov_update": (1, (0.1, 0.9)),
    "adagrad_update": (1, (0.1, 0.25)),  # as large that it counts
    "rmsprop_update": (1, (0.1, 0.75, 0.25)),
    "adam_update": (2, (0.1, 0.9, 0.75, 0.25)),
}


def elementwise_cases(size: int, dtype: Any, note: str, aligned: bool = True) -> Iterator[Case]:
    """ReLU, the test for finite numbers, and every update, on arrays of this many elements."""
    x, y = numbers((size,), dtype, 0), numbers((size,), dtype, 1)
    if not aligned:
        x = misaligned(x)
    yield Case("relu_forward", (x,), note)
    yield Case("relu_backward", (x, np.maximum(y, 0)), note)
    yield Case("all_finite", (x,), note)
    for name, (states, values) in UPDATES.items():
        state = [np.abs(numbers((size,), dtype, 2 + number)) for number in range(states)]
        yield Case(name, (x, y, *state, *values), note, changed=(0, *range(2, 2 + states)))


def loss_cases(rows: int, classes: int, dtype: np.dtype[Any]) -> Iterator[Case]:
    """Softmax with its loss, and the gradient, for labels of both kinds."""
    x, random = numbers((rows, classes), dtype), np.random.default_rng(3)
    y = np.exp(x.astype("f8"))
    y = (y / y.sum(axis=1, keepdims=True)).astype(dtype)
    numbered = random.integers(0, classes, rows)
    shares = random.integers(0, 5, (rows, classes)).astype(dtype) / dtype.type(4)  # of any sum, some of them 0
    for labels, told in ((numbered, "numbered labels"), (shares, "shares of labels")):
        yield Case("softmax_cross_entropy_forward", (x, labels), f"{rows} rows, {classes} classes, {told}")
        yield Case("softmax_cross_entropy_backward", (y, labels, 0.5), f"{rows} rows, {classes} classes, {told}")


def _elementwise() -> Iterator[Case]:
    for dtype in dtypes():
        for size in (0, 1, 31, 256, 1027):
            yield from elementwise_cases(size, dtype, f"{size} elements")
        yield from elementwise_cases(37, dtype, "37 elements, not aligned to vectors", aligned=False)
        yield Case("relu_forward", (with_special(numbers((37,), dtype)),), "NaN and infinities")
        yield Case("all_finite", (with_special(numbers((37,), dtype)),), "NaN and infinities")
        for rows, classes in ((1, 1), (3, 10), (5, 33), (2, 1030)):
            yield from loss_cases(rows, classes, dtype)


def all_cases() -> list[Case]:
    """Every case, the same ones at every call."""
    return [*_convolutions(), *_poolings(), *_fused(), *_matrices(), *_columns(), *_elementwise()]


# ---- profile -----------------------------------------------------------------------------------------------------------


def profile_cases() -> Iterator[Case]:
    """Shapes as networks have them, made small: whole tiles, many channels, so that only what always counts is seen."""
    single, half = np.dtype(np.float32), np.dtype(np.float16)
    for data_format in DATA_FORMATS:
        for dtype in (single, half):
            geometry = convolution((2, 32, 16, 16), (64, 32, 3, 3), {"padding": 1}, data_format)
            yield from convolution_cases(geometry, dtype, "3x3", algorithm="implicit_gemm")
            geometry = convolution((2, 64, 16, 16), (64, 64, 1, 1), {}, data_format)
            yield from convolution_cases(geometry, dtype, "1x1", algorithm="implicit_gemm")
        geometry = convolution((2, 1, 28, 28), (32, 1, 5, 5), {}, data_format)
        yield from convolution_cases(geometry, single, "one channel", algorithm="direct")
        geometry = convolution((2, 32, 16, 16), (32, 1, 3, 3), {"groups": 32, "padding": 1}, data_format)
        yield from convolution_cases(geometry, single, "depthwise", algorithm="depthwise")
        for kernel, options in ((2, {"stride": 2}), (3, {"stride": 2, "padding": 1})):
            yield from pooling_cases(pooling((2, 32, 32, 32), kernel, options, data_format), single, f"{kernel}x{kernel}")
        yield unpooling_case((2, 32, 17, 17), single, data_format)
        yield misplaced_case(pooling((2, 32, 32, 32), 2, {"stride": 2}, data_format), "2x2")
        yield from pooling_cases(pooling((2, 32, 16, 16), 16, {}, data_format), single, "the whole image")
        yield from columns_cases(pooling((2, 32, 16, 16), 3, {"padding": 1}, data_format), single, "3x3")
    for turned in ((False, False), (True, False), (False, True)):
        yield matrix_case(128, 128, 128, single, turned)
        yield matrix_case(128, 128, 128, half, turned)
    yield from elementwise_cases(1 << 14, single, "16384 elements")
    for rows, classes in ((256, 16), (32, 1024)):
        yield from loss_cases(rows, classes, single)
