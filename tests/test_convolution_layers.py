"""Conv2D, DepthwiseConv2D, SeparableConv2D, Conv2DTranspose: against the loops of reference.py, PyTorch, and Keras' numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from conftest import MEMORY_LAYOUTS, assert_close, normal
from hypothesis import given
from hypothesis import strategies as st

import xpconv as xc
from xpconv.layers.convolution import Conv2D, Conv2DTranspose, DepthwiseConv2D, SeparableConv2D
from xpconv.layers.tape import Run

Array = np.ndarray[Any, np.dtype[Any]]


def filled(layer: Any, input_shape: tuple[int, ...]) -> Any:
    """Build a layer and put random numbers into its weights, the bias too."""
    layer.build(input_shape)
    layer.set_weights([normal(10 + position, weight.shape) for position, weight in enumerate(layer.get_weights())])
    return layer


def on(device: str, array: Array) -> Any:
    return xc.asarray(array, device=device)


def as_reference(layer: Any, x: Array, kernel: Array) -> tuple[Array, Array, dict[str, Any]]:
    """Images and kernel in channels_first, and the options, for the functions of reference.py."""
    options = {"stride": layer.strides, "padding": layer.padding, "dilation": layer.dilation_rate}
    first = reference.to_channels_first(x, layer.data_format)
    return first, reference.weight_to_channels_first(kernel, "channels_last"), options


def images(shape: tuple[int, int, int, int], data_format: str, seed: int = 1, dtype: Any = np.float64) -> Array:
    """Images of (N, C, H, W), in a data format."""
    return np.ascontiguousarray(reference.from_channels_first(normal(seed, shape, dtype), data_format))


# ---- Conv2D ------------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [
    pytest.param({"kernel_size": (3, 2)}, id="valid"),
    pytest.param({"kernel_size": 3, "strides": (2, 3), "padding": "same"}, id="same, strides"),
    pytest.param({"kernel_size": (2, 3), "dilation_rate": (3, 2), "groups": 2, "use_bias": False}, id="dilation, groups"),
]


def check_conv2d(device: str, dtype: Any, data_format: str, options: dict[str, Any]) -> None:
    x = images((2, 4, 8, 9), data_format, dtype=dtype)
    layer = filled(Conv2D(6, data_format=data_format, dtype=dtype, device=device, **options), x.shape)
    kernel, *bias = layer.get_weights()
    first, w, known = as_reference(layer, x, kernel)
    known["groups"] = layer.groups
    expected = reference.conv2d(first, w, bias[0] if bias else None, **known)
    y = layer(on(device, x))
    assert_close(y, reference.from_channels_first(expected, data_format), dtype)
    r = normal(5, expected.shape, dtype)
    dx = layer.backward(on(device, np.ascontiguousarray(reference.from_channels_first(r, data_format))))
    dw, db = reference.conv2d_backward_weight(first, r, w.shape, **known)
    expected_dx = reference.conv2d_backward_input(r, w, first.shape, **known)
    assert_close(dx, reference.from_channels_first(expected_dx, data_format), dtype, terms=4)
    assert len(layer.gradients) == 1 + len(bias)
    assert_close(layer.gradients[0], reference.weight_from_channels_first(dw, "channels_last"), dtype, terms=9)
    if bias:
        assert_close(layer.gradients[1], db, dtype, terms=9)


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_conv2d(options: dict[str, Any], device: str, data_format: str) -> None:
    check_conv2d(device, np.dtype(np.float32), data_format, options)


def test_conv2d_in_float64(device: str) -> None:
    check_conv2d(device, np.dtype(np.float64), "channels_last", {"kernel_size": 3, "padding": "same"})


def test_conv2d_of_torch(data_format: str) -> None:
    torch = pytest.importorskip("torch")
    x = images((2, 3, 7, 8), data_format)
    layer = filled(Conv2D(4, (3, 2), strides=(2, 1), data_format=data_format, activation="relu", dtype="float64"), x.shape)
    kernel, bias = (torch.tensor(weight, requires_grad=True) for weight in layer.get_weights())
    first = torch.tensor(reference.to_channels_first(x, data_format).copy(), requires_grad=True)
    expected = torch.relu(torch.nn.functional.conv2d(first, kernel.permute(3, 2, 0, 1), bias, stride=(2, 1)))
    assert_close(layer(x), reference.from_channels_first(expected.detach().numpy(), data_format), "float64")
    r = normal(5, tuple(expected.shape))
    expected.backward(torch.tensor(r))
    dx = layer.backward(reference.from_channels_first(r, data_format))
    assert_close(dx, reference.from_channels_first(first.grad.numpy(), data_format), "float64")
    for gradient, weight in zip(layer.gradients, (kernel, bias), strict=True):
        assert_close(gradient, weight.grad.numpy(), "float64")


def test_geometry_is_worked_out_once_a_shape() -> None:
    layer = filled(Conv2D(2, 3, padding="same"), (None, 8, 8, 1))
    geometry = layer.geometry_for((4, 8, 8, 1))
    assert (geometry.y_shape, geometry.groups, geometry.data_format) == ((4, 8, 8, 2), 1, "channels_last")
    layer(np.zeros((4, 8, 8, 1), np.float32))
    layer(np.zeros((3, 9, 7, 1), np.float32))
    assert layer.geometry_for((4, 8, 8, 1)) is geometry
    for batch in range(1000):
        layer.geometry_for((batch, 8, 8, 1))
    assert len(layer._geometries) < 1000


# ---- DepthwiseConv2D and SeparableConv2D -------------------------------------------------------------------------------


def depthwise(x: Array, kernel: Array, **options: Any) -> Array:
    """Channel by channel, kernel by kernel; x is (N, C, H, W) and the kernel Keras'."""
    maps = [
        reference.conv2d(x[:, c : c + 1], kernel[None, None, :, :, c, m], **options)
        for c in range(kernel.shape[2])
        for m in range(kernel.shape[3])
    ]
    return np.concatenate(maps, axis=1)


@pytest.mark.parametrize("options", [{}, {"strides": (1, 2), "padding": "same"}, {"dilation_rate": 2, "use_bias": False}])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise(multiplier: int, options: dict[str, Any], device: str, data_format: str) -> None:
    x = images((2, 3, 7, 6), data_format, dtype=np.float32)
    layer = DepthwiseConv2D((3, 2), depth_multiplier=multiplier, data_format=data_format, device=device, **options)
    kernel, *bias = filled(layer, x.shape).get_weights()
    assert kernel.shape == (3, 2, 3, multiplier)
    first, _, known = as_reference(layer, x, kernel)
    expected = depthwise(first, kernel, **known) + (bias[0][:, None, None] if bias else 0.0)
    assert_close(layer(on(device, x)), reference.from_channels_first(expected, data_format), "float32")


@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "same", "depth_multiplier": 2}, {"use_bias": False}])
def test_separable(options: dict[str, Any], device: str, data_format: str) -> None:
    x = images((2, 3, 7, 6), data_format, dtype=np.float32)
    layer = filled(SeparableConv2D(4, (3, 2), data_format=data_format, device=device, **options), x.shape)
    of_depth, of_points, *bias = layer.get_weights()
    first, _, known = as_reference(layer, x, of_depth)
    expected = np.einsum("ncij,cf->nfij", depthwise(first, of_depth, **known), of_points[0, 0])
    expected = expected + (bias[0][:, None, None] if bias else 0.0)
    assert_close(layer(on(device, x)), reference.from_channels_first(expected, data_format), "float32")


# ---- Conv2DTranspose ---------------------------------------------------------------------------------------------------

KERAS_NUMBERS = [
    # What Keras 3.15 on TensorFlow makes of the pixels 1, 2 ... with the kernel 1, 10, 100 ...:
    # pixels, kernel, strides, padding, output_padding, dilation_rate
    (3, 3, 1, "valid", None, 1, [1, 12, 123, 230, 300]),
    (3, 2, 3, "valid", None, 1, [1, 10, 0, 2, 20, 0, 3, 30, 0]),
    (3, 4, 2, "valid", None, 1, [1, 10, 102, 1020, 203, 2030, 300, 3000]),
    (3, 3, 2, "valid", 1, 1, [1, 10, 102, 20, 203, 30, 300, 0]),
    (3, 3, 1, "same", None, 1, [12, 123, 230]),
    (3, 3, 2, "same", None, 1, [1, 10, 102, 20, 203, 30]),
    (3, 4, 2, "same", None, 1, [10, 102, 1020, 203, 2030, 300]),
    (3, 2, 3, "same", None, 1, [1, 10, 0, 2, 20, 0, 3, 30, 0]),
    (3, 3, 2, "same", 0, 1, [10, 102, 20, 203, 30]),
    (3, 3, 2, "same", 1, 1, [1, 10, 102, 20, 203, 30]),
    (3, 4, 3, "same", 1, 1, [10, 100, 1002, 20, 200, 2003, 30]),
    (3, 4, 3, "same", 2, 1, [10, 100, 1002, 20, 200, 2003, 30, 300]),
    (3, 5, 4, "same", 3, 1, [1, 10, 100, 1000, 10002, 20, 200, 2000, 20003, 30, 300, 3000]),
    (1, 5, 2, "same", None, 1, [10, 100]),
    (3, 3, 1, "same", None, 2, [13, 20, 130]),
    (3, 2, 1, "valid", None, 3, [1, 2, 3, 10, 20, 30]),
]


@pytest.mark.parametrize(("pixels", "kernel", "strides", "padding", "output_padding", "dilation", "expected"), KERAS_NUMBERS)
def test_transposed_numbers_of_keras(
    pixels: int, kernel: int, strides: int, padding: str, output_padding: int | None, dilation: int, expected: list[int]
) -> None:
    x = np.arange(1.0, pixels + 1)
    for across in (True, False):
        shape, kernel_shape = ((1, 1, pixels, 1), (1, kernel)) if across else ((1, pixels, 1, 1), (kernel, 1))
        order = 1 if across else -1
        layer = Conv2DTranspose(
            1,
            kernel_shape,
            (1, strides)[::order],
            padding,
            output_padding=None if output_padding is None else (0, output_padding)[::order],
            dilation_rate=(1, dilation)[::order],
            use_bias=False,
            dtype="float64",
        )
        layer.build(shape)
        layer.set_weights([10.0 ** np.arange(kernel).reshape(*kernel_shape, 1, 1)])
        assert layer(x.reshape(shape)).ravel().tolist() == expected


TRANSPOSED = [
    pytest.param({"kernel_size": (3, 2), "strides": (2, 1)}, id="valid"),
    pytest.param({"kernel_size": (2, 3), "strides": (3, 2), "padding": "same"}, id="same"),
    pytest.param({"kernel_size": 3, "strides": (2, 3), "padding": "same", "output_padding": (1, 0)}, id="output_padding"),
    pytest.param({"kernel_size": 2, "dilation_rate": (3, 2), "use_bias": False}, id="dilation"),
]


def stamped(layer: Conv2DTranspose, x: Array, kernel: Array) -> Array:
    """Stamp the kernel into a large plane for each pixel, and cut the output out of it; x is (N, C, H, W)."""
    n_images, _, *size = x.shape
    strides, rates, height_and_width = layer.strides, layer.dilation_rate, kernel.shape[:2]
    spans = [reference.span(height_and_width[a], rates[a]) for a in (0, 1)]
    plane = np.zeros((n_images, kernel.shape[2], *((size[a] - 1) * strides[a] + spans[a] + 9 for a in (0, 1))))
    for i, j, tap_row, tap_column in np.ndindex(*size, *height_and_width):
        row, column = i * strides[0] + tap_row * rates[0], j * strides[1] + tap_column * rates[1]
        plane[:, :, row, column] += x[:, :, i, j] @ kernel[tap_row, tap_column].T
    cut = []
    for a in (0, 1):
        if layer.padding == "valid":
            start, length = 0, size[a] * strides[a] + max(spans[a] - strides[a], 0)
        elif layer.output_padding is None:
            start, length = max(spans[a] - strides[a], 0) // 2, size[a] * strides[a]
        else:
            length = (size[a] - 1) * strides[a] + spans[a] % 2 + layer.output_padding[a]
            start = max(spans[a] - spans[a] % 2 - layer.output_padding[a], 0) // 2
        cut.append(slice(start, start + length))
    return plane[:, :, cut[0], cut[1]]


@pytest.mark.parametrize("options", TRANSPOSED)
def test_transposed(options: dict[str, Any], device: str, data_format: str) -> None:
    x = images((2, 3, 4, 5), data_format, dtype=np.float32)
    layer = filled(Conv2DTranspose(4, data_format=data_format, device=device, **options), x.shape)
    kernel, *bias = layer.get_weights()
    assert kernel.shape[2:] == (4, 3)
    expected = stamped(layer, reference.to_channels_first(x, data_format).astype(np.float64), kernel.astype(np.float64))
    expected = expected + (bias[0][:, None, None] if bias else 0.0)
    assert_close(layer(on(device, x)), reference.from_channels_first(expected, data_format), "float32")


@pytest.mark.parametrize("strides", [1, 2, 3])
def test_transposed_of_torch(strides: int) -> None:
    torch = pytest.importorskip("torch")
    x = normal(1, (2, 3, 4, 5))
    layer = filled(Conv2DTranspose(4, 3, strides, data_format="channels_first", dtype="float64"), x.shape)
    kernel, bias = (torch.tensor(weight, requires_grad=True) for weight in layer.get_weights())
    images_ = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.conv_transpose2d(images_, kernel.permute(3, 2, 0, 1), bias, stride=strides)
    assert_close(layer(x), expected.detach().numpy(), "float64")
    r = normal(5, tuple(expected.shape))
    expected.backward(torch.tensor(r))
    assert_close(layer.backward(r), images_.grad.numpy(), "float64")
    for gradient, weight in zip(layer.gradients, (kernel, bias), strict=True):
        assert_close(gradient, weight.grad.numpy(), "float64")


def test_transposed_bias_gradient_of_many_pixels() -> None:
    # Half a million terms: a sum of them one by one would be off by a thousandth.
    layer = Conv2DTranspose(3, 1)
    layer(np.zeros((8, 256, 256, 1), np.float32))
    dy = np.full((8, 256, 256, 3), 0.1, np.float32)
    layer.backward(dy)
    np.testing.assert_allclose(layer.gradients[1], dy.astype(np.float64).sum(axis=(0, 1, 2)), rtol=1e-5)


# ---- gradients of all of them ------------------------------------------------------------------------------------------

LAYERS: list[tuple[type[Any], dict[str, Any]]] = [
    (Conv2D, {"filters": 4, "kernel_size": (3, 2), "strides": (1, 2), "padding": "same"}),
    (Conv2D, {"filters": 4, "kernel_size": 2, "groups": 2, "dilation_rate": (2, 1), "use_bias": False}),
    (DepthwiseConv2D, {"kernel_size": (2, 3), "depth_multiplier": 2, "strides": 2}),
    (SeparableConv2D, {"filters": 3, "kernel_size": 2, "depth_multiplier": 2, "padding": "same"}),
    (SeparableConv2D, {"filters": 3, "kernel_size": 3, "use_bias": False}),
    (Conv2DTranspose, {"filters": 3, "kernel_size": (3, 2), "strides": 2, "padding": "same"}),
    (Conv2DTranspose, {"filters": 3, "kernel_size": 3, "strides": (2, 3), "padding": "same", "output_padding": (0, 1)}),
    (Conv2DTranspose, {"filters": 2, "kernel_size": (1, 3), "strides": (3, 2), "output_padding": (2, 1)}),
    (Conv2DTranspose, {"filters": 2, "kernel_size": 2, "padding": "same", "dilation_rate": 2, "use_bias": False}),
]


def one_name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else " ".join(map(str, value.values()))


@pytest.mark.parametrize(("cls", "options"), LAYERS, ids=one_name)
@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid"])
def test_gradients_are_derivatives(cls: type[Any], options: dict[str, Any], activation: str | None, data_format: str) -> None:
    x = images((2, 4, 4, 5), data_format)
    layer = filled(cls(activation=activation, data_format=data_format, dtype="float64", **options), x.shape)
    weights = [weight / 4 for weight in layer.get_weights()]
    layer.set_weights(weights)
    r = normal(3, layer(x).shape)
    found = [layer.backward(r), *layer.gradients]
    assert len(found) == 1 + len(weights)

    def value(x: Array, *weights: Array) -> float:
        layer.set_weights(weights)
        return float(np.sum(layer(x) * r))

    arguments = [x, *weights]
    for position, (argument, gradient) in enumerate(zip(arguments, found, strict=True)):
        assert gradient.shape == argument.shape
        for seed in range(2):
            step = normal(100 + seed, argument.shape)
            step *= 1e-4 / np.linalg.norm(step)
            up, down = ([*arguments[:position], argument + sign * step, *arguments[position + 1 :]] for sign in (1, -1))
            difference = (value(*up) - value(*down)) / 2
            np.testing.assert_allclose(difference / 1e-4, np.sum(gradient * step) / 1e-4, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("cls", "options"), LAYERS, ids=one_name)
def test_gradients_on_each_device(cls: type[Any], options: dict[str, Any], device: str) -> None:
    def gradients(device: str) -> list[Array]:
        x = normal(1, (2, 4, 4, 5), np.float32)
        layer = filled(cls(data_format="channels_first", activation="relu", device=device, **options), x.shape)
        y = layer(on(device, x))
        dx = layer.backward(on(device, normal(2, y.shape, np.float32)))
        return [xc.to_numpy(gradient) for gradient in (dx, *layer.gradients)]

    for actual, expected in zip(gradients(device), gradients("numpy"), strict=True):
        assert_close(actual, expected, "float32", terms=25)


@pytest.mark.parametrize(("cls", "options"), LAYERS, ids=one_name)
def test_frozen_layers_have_no_gradients_but_go_back(cls: type[Any], options: dict[str, Any]) -> None:
    x = normal(1, (2, 4, 5, 4))
    free, frozen = (filled(cls(dtype="float64", trainable=trainable, **options), x.shape) for trainable in (True, False))
    r = normal(2, free(x).shape)
    frozen(x)
    assert_close(frozen.backward(r), free.backward(r), "float64")
    assert len(free.gradients) > 0
    assert frozen.gradients == []


@pytest.mark.parametrize(("cls", "options"), LAYERS, ids=one_name)
def test_only_what_is_asked_for(cls: type[Any], options: dict[str, Any]) -> None:
    x = normal(1, (2, 4, 5, 4))
    layer = filled(cls(dtype="float64", activation="softmax", **options), x.shape)
    forgetful = Run(xc.get_device("numpy"), np.dtype(np.float64), np.random, training=False, remember=False)
    remembering = Run(xc.get_device("numpy"), np.dtype(np.float64), np.random, training=True, remember=True)
    y, nothing = layer.compute(x, forgetful)
    assert nothing is None
    _, saved = layer.compute(x, remembering)
    r = normal(2, y.shape)
    without, some = layer.differentiate(saved, r, remembering, False)
    dx, gradients = layer.differentiate(saved, r, remembering, True)
    assert without is None
    assert dx.shape == x.shape
    for one, other in zip(some, gradients, strict=True):
        np.testing.assert_array_equal(one, other)
    # From the gradient of what the activation was given.
    name, z = layer.before_activation(saved)
    assert name == "softmax"
    assert_close(np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True), y, "float64")
    dz = y * (r - (r * y).sum(axis=-1, keepdims=True))
    other_dx, other_gradients = layer.differentiate_before_activation(saved, dz, remembering, True)
    for one, other in zip([other_dx, *other_gradients], [dx, *gradients], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_no_loss_starts_before_relu() -> None:
    x = normal(1, (1, 4, 4, 2), np.float32)
    run = Run(xc.get_device("numpy"), np.dtype(np.float32), np.random, training=True, remember=True)
    for activation in (None, "relu", "tanh"):
        layer = filled(Conv2D(2, 3, activation=activation), x.shape)
        assert layer.before_activation(layer.compute(x, run)[1]) is None


# ---- shapes ------------------------------------------------------------------------------------------------------------


@st.composite
def layers_and_shapes(draw: st.DrawFn) -> tuple[Any, tuple[int, ...]]:
    """A layer of any kind, and images that it may or may not fit."""
    two = st.integers(1, 4) | st.tuples(st.integers(1, 4), st.integers(1, 4))
    options: dict[str, Any] = {
        "kernel_size": draw(two),
        "padding": draw(st.sampled_from(["valid", "same", "SAME"])),
        "data_format": draw(st.sampled_from(["channels_first", "channels_last", None])),
    }
    options[draw(st.sampled_from(["strides", "dilation_rate"]))] = draw(two)
    cls = draw(st.sampled_from([Conv2D, DepthwiseConv2D, SeparableConv2D, Conv2DTranspose]))
    if cls is not DepthwiseConv2D:
        options["filters"] = 2 * draw(st.integers(1, 2))
    if cls is Conv2D:
        options["groups"] = draw(st.sampled_from([1, 2]))
    elif cls is not Conv2DTranspose:
        options["depth_multiplier"] = draw(st.integers(1, 2))
    elif draw(st.booleans()):
        rows, columns = reference.pair(options.get("strides", 1))
        options["output_padding"] = (draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1)))
    shape = (draw(st.integers(0, 2)), 2, draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    return cls(**options), shape if options["data_format"] == "channels_first" else (shape[0], *shape[2:], 2)


@given(layers_and_shapes())
def test_output_shape_is_that_of_the_output(case: tuple[Any, tuple[int, ...]]) -> None:
    layer, shape = case
    try:
        expected = layer.compute_output_shape(shape)
    except ValueError:
        with pytest.raises(ValueError, match=f"layer '{layer.name}'"):
            layer(np.zeros(shape, np.float32))
        return
    y = layer(np.zeros(shape, np.float32))
    assert y.shape == expected
    assert min(y.shape[1:]) > 0
    assert layer.backward(y).shape == shape
    for unknown in range(4):
        partly = tuple(None if axis == unknown else length for axis, length in enumerate(shape))
        found = layer.compute_output_shape(partly)
        assert all(length in (None, known) for length, known in zip(found, expected, strict=True))
        assert sum(length is None for length in found) <= 1
        assert found[0] is None if unknown == 0 else found[0] == shape[0]


@pytest.mark.parametrize("cls", [Conv2D, SeparableConv2D, Conv2DTranspose])
def test_sizes_that_are_not_known(cls: type[Any]) -> None:
    assert cls(5, 3).compute_output_shape((None, None, None, None)) == (None, None, None, 5)
    assert cls(5, 3, data_format="channels_first").compute_output_shape((None, 3, None, 8))[:3] == (None, 5, None)
    layer = cls(5, 3)
    layer.build((None, None, None, 2))
    assert layer(np.zeros((1, 4, 6, 2), np.float32)).shape == layer.compute_output_shape((1, 4, 6, 2))


# ---- weights and inputs ------------------------------------------------------------------------------------------------


def test_weights_are_laid_out_as_in_keras(data_format: str) -> None:
    shape = (2, 6, 9, 9) if data_format == "channels_first" else (2, 9, 9, 6)

    def shapes(layer: Any) -> list[tuple[int, ...]]:
        layer.build(shape)
        return [weight.shape for weight in layer.get_weights()]

    assert shapes(Conv2D(4, (3, 2), groups=2, data_format=data_format)) == [(3, 2, 3, 4), (4,)]
    assert shapes(Conv2D(4, (3, 2), use_bias=False, data_format=data_format)) == [(3, 2, 6, 4)]
    assert shapes(DepthwiseConv2D((3, 2), depth_multiplier=5, data_format=data_format)) == [(3, 2, 6, 5), (30,)]
    assert shapes(Conv2DTranspose(4, (3, 2), data_format=data_format)) == [(3, 2, 4, 6), (4,)]
    separable = SeparableConv2D(4, (3, 2), depth_multiplier=2, data_format=data_format)
    assert shapes(separable) == [(3, 2, 6, 2), (1, 1, 12, 4), (4,)]


def test_initializers_and_regularizers_reach_their_weights() -> None:
    layer = SeparableConv2D(
        3, 2, depthwise_initializer="ones", pointwise_initializer="zeros", bias_initializer="ones", pointwise_regularizer="l2"
    )
    layer.build((1, 4, 4, 2))
    assert [float(weight.mean()) for weight in layer.get_weights()] == [1.0, 0.0, 1.0]
    assert [weight.regularizer is not None for weight in layer.trained()] == [False, True, False]
    for cls, name in ((Conv2D, "kernel"), (Conv2DTranspose, "kernel"), (DepthwiseConv2D, "depthwise")):
        sizes = {"kernel_size": 2} if cls is DepthwiseConv2D else {"filters": 2, "kernel_size": 2}
        chosen = {f"{name}_initializer": "ones", f"{name}_regularizer": "l1", "bias_regularizer": "l2"}
        layer = cls(**sizes, **chosen)
        layer.build((1, 4, 4, 2))
        assert float(layer.kernel.min()) == 1.0
        assert [weight.regularizer is not None for weight in layer.trained()] == [True, True]


@pytest.mark.parametrize("layout", MEMORY_LAYOUTS)
@pytest.mark.parametrize("cls", [Conv2D, Conv2DTranspose])
def test_memory_of_any_layout(cls: type[Any], layout: str, device: str) -> None:
    if device == "cuda":
        pytest.skip("CuPy arrays are aligned, and native")
    x = normal(1, (2, 5, 6, 3), np.float32)
    layer = filled(cls(4, 3, strides=2, device=device), x.shape)
    y = layer(x)
    r = normal(2, y.shape, np.float32)
    expected = [y, layer.backward(r), *layer.gradients]
    stored = MEMORY_LAYOUTS[layout](x), MEMORY_LAYOUTS[layout](r)
    before = [array.tobytes() for array in stored]
    found = [layer(stored[0]), layer.backward(stored[1]), *layer.gradients]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [array.tobytes() for array in stored] == before


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_integers_become_floats(dtype: Any) -> None:
    x = np.random.default_rng(1).integers(0, 2, (2, 5, 5, 1)).astype(dtype)
    layer = filled(Conv2D(2, 3), x.shape)
    assert_close(layer(x), layer(x.astype(np.float32)), np.float32)


def test_empty_batch(device: str) -> None:
    for cls in (Conv2D, SeparableConv2D, Conv2DTranspose):
        layer = filled(cls(2, 3, device=device, activation="relu"), (None, 5, 5, 2))
        y = layer(on(device, np.zeros((0, 5, 5, 2), np.float32)))
        assert y.shape == layer.compute_output_shape((0, 5, 5, 2))
        assert layer.backward(y).shape == (0, 5, 5, 2)
        assert all(not xc.to_numpy(gradient).any() for gradient in layer.gradients)


def test_nan_and_infinity_come_through() -> None:
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 0, 0, 0], x[0, 4, 4, 0] = np.nan, np.inf
    y = filled(Conv2D(1, 3, kernel_initializer="ones"), x.shape)(x)
    assert np.isnan(y[0, 0, 0, 0])
    assert np.isinf(y[0, 2, 2, 0])
    assert np.isfinite(y[0, 1, 1, 0])


@pytest.mark.parametrize(("cls", "options"), LAYERS, ids=one_name)
def test_the_arguments_make_the_layer_again(cls: type[Any], options: dict[str, Any]) -> None:
    layer = cls(activation="relu", name="again", **options)
    copy = cls.from_config(json.loads(json.dumps(layer.get_config())))
    assert copy.compute_output_shape((3, 8, 9, 4)) == layer.compute_output_shape((3, 8, 9, 4))
    assert copy.get_config() == layer.get_config()
    assert copy.activation.name == "relu"


# ---- bad input ---------------------------------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Conv2D(0, 3), ValueError, "Conv2D: filters must be at least 1, got 0"),
    (lambda: Conv2D(2.5, 3), TypeError, "Conv2D: filters must be an integer, got 2.5"),
    (lambda: Conv2D(2, 0), ValueError, "kernel_size must be at least 1, got 0"),
    (lambda: Conv2D(2, (3, 3, 3)), ValueError, r"kernel_size must be an integer or a \(height, width\) pair, got \(3, 3, 3\)"),
    (lambda: Conv2D(2, 3, strides=0), ValueError, "strides must be at least 1, got 0"),
    (lambda: Conv2D(2, 3, strides=(1, -1)), ValueError, r"strides must be at least 1, got -1 in strides=\(1, -1\)"),
    (lambda: Conv2D(2, 3, padding="full"), ValueError, "padding 'full' is unknown.*'same', 'valid'"),
    (lambda: Conv2D(2, 3, padding="vaild"), ValueError, "did you mean 'valid'"),
    (lambda: Conv2D(2, 3, padding=1), TypeError, "padding must be a name such as 'valid', got 1"),
    (
        lambda: Conv2D(2, 3, data_format="NCHW"),
        ValueError,
        "data_format must be 'channels_first' or 'channels_last', got 'NCHW'",
    ),
    (lambda: Conv2D(2, 3, data_format=""), ValueError, "data_format must be 'channels_first' or 'channels_last', got ''"),
    (lambda: Conv2D(2, 3, dilation_rate=0), ValueError, "dilation_rate must be at least 1, got 0"),
    (lambda: Conv2D(2, 3, strides=2, dilation_rate=(1, 2)), ValueError, r"strides=\(2, 2\), dilation_rate=\(1, 2\)"),
    (lambda: Conv2D(5, 3, groups=2), ValueError, "filters must be divisible by groups, got filters=5, groups=2"),
    (lambda: Conv2D(5, 3, groups=0), ValueError, "groups must be at least 1, got 0"),
    (lambda: Conv2D(2, 3, activation="rellu"), ValueError, "Conv2D: activation 'rellu' is unknown; did you mean 'relu'"),
    (lambda: Conv2D(2, 3, use_bias=None), TypeError, "use_bias must be True or False, got None"),
    (lambda: Conv2D(2, 3, kernel_initializer="he"), ValueError, "Conv2D.*'he'"),
    (lambda: Conv2D(2, 3, bias_regularizer="l3"), ValueError, "Conv2D.*'l3'"),
    (lambda: Conv2D(2, 3, kernal_regularizer="l2"), TypeError, "Conv2D.*kernal_regularizer"),
    (lambda: Conv2D(2), TypeError, "Conv2D.*kernel_size"),
    (lambda: DepthwiseConv2D(3, depth_multiplier=0), ValueError, "DepthwiseConv2D: depth_multiplier must be at least 1, got 0"),
    (lambda: SeparableConv2D(3, 3, depth_multiplier=0), ValueError, "SeparableConv2D: depth_multiplier must be at least 1"),
    (lambda: SeparableConv2D(0, 3), ValueError, "SeparableConv2D: filters must be at least 1, got 0"),
    (lambda: Conv2DTranspose(2, 3, strides=2, output_padding=2), ValueError, r"output_padding=2, strides=\(2, 2\)"),
    (lambda: Conv2DTranspose(2, 3, output_padding=(0, -1)), ValueError, "output_padding must be at least 0, got -1"),
    (lambda: Conv2DTranspose(2, 3, strides=2, dilation_rate=2), ValueError, "must not both be above 1"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


BAD_SHAPES: list[tuple[Any, Any, str]] = [
    (lambda: Conv2D(2, 7, name="c"), (None, 5, 9, 3), r"layer 'c' \(Conv2D\): images of \(5, 9\) pixels.*\(None, 5, 9, 3\)"),
    (lambda: Conv2D(2, 3, dilation_rate=4), (None, 8, 9, 3), r"dilation_rate=\(4, 4\)"),
    (lambda: Conv2D(4, 3, groups=2), (None, 8, 8, 3), "channels must be divisible by groups, got 3 channels, groups=2"),
    (lambda: Conv2D(4, 3), (8, 8, 3), r"4 axes \(batch, height, width, channels\), got 3: \(8, 8, 3\)"),
    (lambda: Conv2D(4, 3, data_format="channels_first"), (8, 3), r"4 axes \(batch, channels, height, width\), got 2"),
    (lambda: Conv2D(4, 3), (None, 8, 8, None), "number of channels must be known"),
    (lambda: Conv2D(4, 3), (None, 8, 8, 0), "number of channels must be known, and positive.*it is 0"),
    (lambda: Conv2D(4, 3, padding="same"), (None, 0, 8, 1), r"images of \(0, 8\) pixels"),
    (lambda: DepthwiseConv2D(5), (2, 8, 4, 3), r"images of \(8, 4\) pixels"),
    (lambda: SeparableConv2D(4, 5), (2, 8, 4, 3), r"images of \(8, 4\) pixels"),
    (lambda: Conv2DTranspose(4, 3), (2, 0, 4, 3), r"images of \(0, 4\) pixels"),
    (lambda: Conv2DTranspose(4, 2, padding="same", output_padding=0), (2, 1, 4, 3), r"would give \(0, 3\)"),
]


@pytest.mark.parametrize(("make", "shape", "text"), BAD_SHAPES)
def test_bad_shapes_are_told_when_the_layer_is_built(make: Callable[[], Any], shape: Any, text: str) -> None:
    layer = make()
    with pytest.raises(ValueError, match=text):
        layer.build(shape)
    assert not layer.built
    assert layer.get_weights() == []


def test_later_inputs_that_do_not_fit() -> None:
    layer = filled(Conv2D(2, 4, name="c"), (None, 8, 8, 3))
    with pytest.raises(ValueError, match=r"layer 'c' \(Conv2D\): .*\(None, None, None, 3\).*got \(1, 8, 8, 4\)"):
        layer(np.zeros((1, 8, 8, 4), np.float32))
    with pytest.raises(ValueError, match=r"layer 'c' \(Conv2D\): images of \(8, 3\) pixels.*\(1, 8, 3, 3\)"):
        layer(np.zeros((1, 8, 3, 3), np.float32))
    with pytest.raises(ValueError, match=r"got \(8, 8, 3\)"):
        layer(np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize(("cls", "options"), LAYERS, ids=one_name)
def test_a_gradient_of_another_shape_is_refused(cls: type[Any], options: dict[str, Any]) -> None:
    layer = cls(name="c", **options)
    y = layer(np.zeros((2, 6, 6, 4), np.float32))
    for shape in ((1, *y.shape[1:]), y.shape[1:], (*y.shape[:-1], y.shape[-1] + 1)):
        with pytest.raises(ValueError, match="layer 'c'"):
            layer.backward(np.ones(shape, np.float32))
