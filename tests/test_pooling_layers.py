"""Keras' pooling layers: against the naive loops of reference.py, PyTorch, and what the notebook of seed 001 printed."""

import json

import numpy as np
import pytest
import reference
from conftest import assert_close, normal

import xpconv as xc
from xpconv.layers import pooling

ALL = [
    lambda **options: pooling.MaxPooling2D(3, 2, "same", **options),
    lambda **options: pooling.AveragePooling2D(3, 2, "same", **options),
    lambda **options: pooling.GlobalAveragePooling2D(**options),
    lambda **options: pooling.GlobalMaxPooling2D(keepdims=True, **options),
    lambda **options: pooling.AdaptiveAveragePooling2D((3, 2), **options),
    lambda **options: pooling.AdaptiveMaxPooling2D((3, 2), **options),
]
NAMES = [
    "MaxPooling2D",
    "AveragePooling2D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "AdaptiveAveragePooling2D",
    "AdaptiveMaxPooling2D",
]
WINDOWS = [
    (2, None, "valid"),
    (3, 2, "same"),
    ((2, 3), (1, 2), "same"),
    ((3, 1), 1, "valid"),
    (2, 3, "same"),
    (1, (2, 3), "valid"),
]
EACH_WINDOW = pytest.mark.parametrize(("pool_size", "strides", "padding"), WINDOWS)
EACH_LAYER = pytest.mark.parametrize("make", ALL, ids=NAMES)


def images(data_format, dtype=np.float64, size=(7, 6), channels=3, batch=2, seed=1):
    shape = (batch, channels, *size) if data_format == "channels_first" else (batch, *size, channels)
    return normal(seed, shape, dtype)


def assert_gradient_is_the_slope(layer, x, dy):
    """Hold the gradient against central differences; in float64, where none of them crosses a tie."""
    layer(x)
    dx = layer.backward(dy)
    slopes = np.zeros_like(x)
    step = 1e-5
    for index in np.ndindex(x.shape):
        around = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            around.append(float((layer(moved) * dy).sum()))
        slopes[index] = (around[0] - around[1]) / (2 * step)
    np.testing.assert_allclose(dx, slopes, rtol=1e-6, atol=1e-8, equal_nan=False)


# ----------------------------------------------------------------------------------------------------------------------
# Windows
# ----------------------------------------------------------------------------------------------------------------------


@EACH_WINDOW
def test_max_pooling_and_its_gradient(pool_size, strides, padding, data_format, dtype):
    x = images(data_format, dtype)
    layer = pooling.MaxPooling2D(pool_size, strides, padding, data_format, dtype=dtype, device="numpy")
    y, winners = reference.max_pool2d(x, pool_size, stride=strides, padding=padding, data_format=data_format)
    dy = normal(2, y.shape, dtype)
    assert_close(layer(x), y, dtype)
    assert_close(layer.backward(dy), reference.scatter_add(dy, winners, x.shape, data_format), dtype)
    assert layer.gradients == []


@EACH_WINDOW
def test_average_pooling_and_its_gradient(pool_size, strides, padding, data_format, dtype):
    x = images(data_format, dtype)
    layer = pooling.AveragePooling2D(pool_size, strides, padding, data_format, dtype=dtype, device="numpy")
    options = {"stride": strides, "padding": padding, "count_include_pad": False, "data_format": data_format}
    y = reference.avg_pool2d(x, pool_size, **options)
    dy = normal(2, y.shape, dtype)
    assert_close(layer(x), y, dtype)
    assert_close(layer.backward(dy), reference.avg_pool2d_backward(dy, x.shape, pool_size, **options), dtype)


def test_every_device(device, data_format):
    x = images(data_format, np.float32)
    y, winners = reference.max_pool2d(x, 2, data_format=data_format)
    layer = pooling.MaxPooling2D(data_format=data_format, device=device)
    dy, there = normal(2, y.shape, np.float32), xc.asarray(x, device=device)
    assert_close(layer(there), y, np.float32)
    dx = reference.scatter_add(dy, winners, x.shape, data_format)
    assert_close(layer.backward(xc.asarray(dy, device=device)), dx, np.float32)
    mean = pooling.AveragePooling2D(data_format=data_format, device=device)
    assert_close(mean(there), reference.avg_pool2d(x, 2, data_format=data_format), np.float32)
    dx = reference.avg_pool2d_backward(dy, x.shape, 2, data_format=data_format)
    assert_close(mean.backward(xc.asarray(dy, device=device)), dx, np.float32)


@pytest.mark.parametrize(("pool_size", "strides"), [(2, None), (3, 2), ((1, 3), (2, 1))])
def test_against_torch(pool_size, strides, data_format):
    torch = pytest.importorskip("torch")
    x = images(data_format)
    first = torch.tensor(reference.to_channels_first(x, data_format), requires_grad=True)
    for layer, function in (
        (pooling.MaxPooling2D, torch.nn.functional.max_pool2d),
        (pooling.AveragePooling2D, torch.nn.functional.avg_pool2d),
    ):
        ours = layer(pool_size, strides, data_format=data_format, dtype="float64", device="numpy")
        theirs = function(first, pool_size, strides)
        dy = normal(3, tuple(theirs.shape))
        (dx,) = torch.autograd.grad(theirs, first, torch.tensor(dy))
        assert_close(ours(x), reference.from_channels_first(theirs.detach().numpy(), data_format), np.float64)
        dy = np.ascontiguousarray(reference.from_channels_first(dy, data_format))
        assert_close(ours.backward(dy), reference.from_channels_first(dx.numpy(), data_format), np.float64)


# ----------------------------------------------------------------------------------------------------------------------
# The whole image, and sizes of the result
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling(keepdims, data_format, dtype, device):
    x = images(data_format, dtype)
    plane = (2, 3) if data_format == "channels_first" else (1, 2)
    mean = pooling.GlobalAveragePooling2D(data_format, keepdims, dtype=dtype, device=device)
    y = x.mean(axis=plane, keepdims=keepdims, dtype=np.float64)
    there = xc.asarray(x, device=device)
    assert_close(mean(there), y, dtype)
    dy = normal(2, y.shape, dtype)
    share = np.expand_dims(dy, plane) if not keepdims else dy
    given = xc.asarray(dy, device=device)
    assert_close(mean.backward(given), np.broadcast_to(share / 42.0, x.shape), dtype)
    largest = pooling.GlobalMaxPooling2D(data_format, keepdims, dtype=dtype, device=device)
    assert_close(largest(there), x.max(axis=plane, keepdims=keepdims), dtype)
    won = x == x.max(axis=plane, keepdims=True)
    assert_close(largest.backward(given), np.where(won, share, 0), dtype)


@pytest.mark.parametrize("output_size", [1, (3, 2), (7, 6), (9, 4)])
def test_adaptive_pooling(output_size, data_format, dtype):
    x = images(data_format, dtype)
    mean = pooling.AdaptiveAveragePooling2D(output_size, data_format, dtype=dtype, device="numpy")
    y = reference.adaptive_avg_pool2d(x, output_size, data_format=data_format)
    dy = normal(2, y.shape, dtype)
    assert_close(mean(x), y, dtype)
    assert_close(mean.backward(dy), reference.adaptive_avg_pool2d_backward(dy, x.shape, data_format=data_format), dtype)
    largest = pooling.AdaptiveMaxPooling2D(output_size, data_format, dtype=dtype, device="numpy")
    y, winners = reference.adaptive_max_pool2d(x, output_size, data_format=data_format)
    assert_close(largest(x), y, dtype)
    assert_close(largest.backward(dy), reference.scatter_add(dy, winners, x.shape, data_format), dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Integers
# ----------------------------------------------------------------------------------------------------------------------


def printed(layer, x):
    assert x.dtype == np.int64
    y = xc.to_numpy(layer(xc.asarray(x, device=layer.device)))
    assert y.dtype == np.int64
    return y


def test_the_notebooks_max_pooling(device):
    m = pooling.MaxPooling2D(device=device)
    x = np.arange(1 * 4 * 4 * 1, dtype=np.int64).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(printed(m, x).reshape(1, 2, 2), [[[5, 7], [13, 15]]])
    x = np.arange(1 * 6 * 6 * 1, dtype=np.int64).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(printed(m, x).reshape(1, 3, 3), [[[7, 9, 11], [19, 21, 23], [31, 33, 35]]])
    m = pooling.MaxPooling2D(pool_size=(3, 3), device=device)
    np.testing.assert_array_equal(printed(m, x).reshape(1, 2, 2), [[[14, 17], [32, 35]]])
    m = pooling.MaxPooling2D(pool_size=(2, 2), device=device)
    x = np.arange(1 * 5 * 5 * 1, dtype=np.int64).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(printed(m, x).reshape(1, 2, 2), [[[6, 8], [16, 18]]])
    m = pooling.MaxPooling2D(pool_size=(2, 2), padding="same", device=device)
    np.testing.assert_array_equal(printed(m, x).reshape(1, 3, 3), [[[6, 8, 9], [16, 18, 19], [21, 23, 24]]])
    x = np.arange(2 * 4 * 4 * 1, dtype=np.int64).reshape(2, 4, 4, 1)
    np.testing.assert_array_equal(printed(m, x).reshape(2, 2, 2), [[[5, 7], [13, 15]], [[21, 23], [29, 31]]])
    x = np.arange(1 * 4 * 4 * 3, dtype=np.int64).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(printed(m, x)[..., 0], [[[15, 21], [39, 45]]])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("make", [ALL[0], ALL[3], ALL[5]], ids=["window", "global", "adaptive"])
def test_maxima_of_integers_are_exact(make, dtype, rng, data_format):
    dtype = np.dtype(dtype)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = images(data_format)
    # Neighbours near both ends of the range, which no float tells apart.
    near = rng.integers(0, 2 if dtype.kind == "b" else 50, x.shape).astype(dtype)
    large = rng.random(x.shape) < 0.2
    x = near if dtype.kind == "b" else np.where(large, np.asarray(high, dtype) - near, np.asarray(low, dtype) + near)
    assert x.dtype == dtype
    layer = make(data_format=data_format, device="numpy")
    y = layer(x)
    assert y.dtype == dtype
    # The same numbers by their places in the order, which are small enough for the loops in float64.
    values, order = np.unique(x, return_inverse=True)
    order = order.reshape(x.shape)
    if isinstance(layer, pooling.MaxPooling2D):
        best, winners = reference.max_pool2d(order, 3, stride=2, padding="same", data_format=data_format)
    else:
        size = layer.output_size if isinstance(layer, pooling.AdaptiveMaxPooling2D) else 1
        best, winners = reference.adaptive_max_pool2d(order, size, data_format=data_format)
    np.testing.assert_array_equal(y, values[best.astype(int)])
    dy = normal(4, y.shape, np.float32)
    assert_close(layer.backward(dy), reference.scatter_add(dy, winners, x.shape, data_format), np.float32)


@pytest.mark.parametrize("large", [2**62, -(2**62)])
def test_large_integers_at_one_end_alone(large):
    x = np.array([large, large + 1, large + 2, large + 1]).reshape(1, 2, 2, 1)
    assert pooling.MaxPooling2D(device="numpy")(x).item() == large + 2


@pytest.mark.parametrize("make", [ALL[1], ALL[2], ALL[4]], ids=["window", "global", "adaptive"])
def test_means_of_integers_are_floats(make):
    x = np.arange(2 * 5 * 4 * 3).reshape(2, 5, 4, 3)
    y = make(device="numpy")(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, make(device="numpy")(x.astype(np.float32)))
    with pytest.raises(ValueError, match="integers up to"):
        make(device="numpy")(x + 2**30)


# ----------------------------------------------------------------------------------------------------------------------
# What all of them owe
# ----------------------------------------------------------------------------------------------------------------------


@EACH_LAYER
def test_gradients_are_the_slopes(make, data_format, rng):
    layer = make(data_format=data_format, dtype="float64", device="numpy")
    x = images(data_format, size=(5, 4), channels=2)
    x += np.arange(x.size).reshape(x.shape) * 1e-3  # no ties
    assert_gradient_is_the_slope(layer, x, rng.standard_normal(layer(x).shape))


@EACH_LAYER
def test_shapes_are_told_in_advance(make, data_format):
    layer = make(data_format=data_format, device="numpy")
    x = images(data_format)
    y = layer(x)
    assert layer.compute_output_shape(x.shape) == y.shape
    without_batch = layer.compute_output_shape((None, *x.shape[1:]))
    assert without_batch == (None, *y.shape[1:])
    channels = y.ndim - 1 if data_format == "channels_last" else 1
    given = layer.compute_output_shape([None] * 4)
    assert given[0] is given[channels] is None
    window = isinstance(layer, (pooling.MaxPooling2D, pooling.AveragePooling2D))
    assert [size for axis, size in enumerate(given) if axis not in (0, channels)] == [
        None if window else size for axis, size in enumerate(y.shape) if axis not in (0, channels)
    ]


def test_one_unknown_size_leaves_the_other_known():
    layer = pooling.MaxPooling2D(2)
    assert layer.compute_output_shape((None, None, 28, 3)) == (None, None, 14, 3)
    assert layer.compute_output_shape((8, 27, None, None)) == (8, 13, None, None)


@EACH_LAYER
def test_an_empty_batch_gives_an_empty_result(make, data_format):
    layer = make(data_format=data_format, device="numpy")
    x = images(data_format, np.float32, batch=0)
    y = layer(x)
    assert y.shape == layer.compute_output_shape(x.shape)
    assert layer.backward(y).shape == x.shape


@EACH_LAYER
def test_any_memory_and_nothing_written(make, device):
    x = np.asfortranarray(images("channels_last", np.float32))
    x.flags.writeable = False
    layer, same = make(device=device), make(device=device)
    expected = same(xc.asarray(x.copy(order="C"), device=device))
    y = layer(xc.asarray(x, device=device))
    np.testing.assert_array_equal(xc.to_numpy(y), xc.to_numpy(expected))
    dy = np.asfortranarray(normal(5, y.shape, np.float32))
    dy.flags.writeable = False
    dx = xc.to_numpy(layer.backward(xc.asarray(dy, device=device)))
    np.testing.assert_array_equal(dx, xc.to_numpy(same.backward(xc.asarray(dy.copy(order="C"), device=device))))


@EACH_LAYER
def test_made_again_from_its_configuration(make):
    layer = make(data_format="channels_first", name="pool", dtype="float64", device="numpy")
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    x = images("channels_first")
    assert again.name == "pool"
    np.testing.assert_array_equal(again(x), layer(x))


def test_other_names():
    assert pooling.MaxPool2D is pooling.MaxPooling2D
    assert pooling.AvgPool2D is pooling.AveragePooling2D
    assert pooling.GlobalAvgPool2D is pooling.GlobalAveragePooling2D
    assert pooling.GlobalMaxPool2D is pooling.GlobalMaxPooling2D
    xc.reset_names()
    assert [pooling.MaxPool2D().name, pooling.MaxPooling2D().name] == ["max_pooling2d", "max_pooling2d_1"]


def test_nan_wins_and_ties_go_to_the_first():
    x = np.array([[1, 2, 5, 5], [np.nan, 3, 5, 5]]).reshape(1, 2, 4, 1)
    layer = pooling.MaxPooling2D(device="numpy", dtype="float64")
    np.testing.assert_array_equal(layer(x).ravel(), [np.nan, 5])
    dx = layer.backward(np.array([1.0, 2.0]).reshape(1, 1, 2, 1))
    np.testing.assert_array_equal(dx.reshape(2, 4), [[0, 0, 2, 0], [1, 0, 0, 0]])


def test_padding_never_wins():
    x = np.full((1, 3, 3, 1), -7)
    np.testing.assert_array_equal(pooling.MaxPooling2D(3, 1, "same", device="numpy")(x), x)
    np.testing.assert_array_equal(pooling.AveragePooling2D(3, 1, "same", device="numpy")(x), x)


def test_windows_are_worked_out_once_for_each_shape():
    layer = pooling.MaxPooling2D()
    window = layer.window_for((2, 4, 4, 3))
    assert layer.window_for((2, 4, 4, 3)) is window
    assert window.y_shape == (2, 2, 2, 3)
    assert layer.window_for((1, 4, 4, 3)).y_shape == (1, 2, 2, 3)
    for height in range(2, 200):  # images of ever new sizes do not fill the memory
        layer.window_for((1, height, 4, 3))
    assert len(layer._windows) <= pooling._SHAPES_KEPT


def test_padding_in_capitals_as_keras_takes_it():
    assert pooling.MaxPooling2D(padding="SAME").compute_output_shape((1, 5, 5, 1)) == (1, 3, 3, 1)


@pytest.mark.parametrize("cls", [pooling.MaxPooling2D, pooling.AveragePooling2D])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"pool_size": 0}, ValueError, "pool_size must be at least 1, got 0"),
        ({"pool_size": (2, 2, 2)}, ValueError, "pool_size must be an integer or a"),
        ({"pool_size": 2.5}, TypeError, "pool_size must be an integer"),
        ({"strides": 0}, ValueError, "strides must be at least 1, got 0"),
        ({"strides": "2"}, TypeError, "strides must be an integer"),
        ({"padding": "smae"}, ValueError, "did you mean 'same'"),
        ({"padding": 1}, TypeError, "padding must be a name"),
        ({"data_format": "NHWC"}, ValueError, "data_format must be 'channels_first' or 'channels_last', got 'NHWC'"),
        ({"dtype": "float16"}, ValueError, "dtype must be float32 or float64"),
        ({"pool": 3}, TypeError, "unexpected keyword argument 'pool'"),
    ],
)
def test_bad_arguments(cls, options, error, text):
    with pytest.raises(error, match=text) as caught:
        cls(**options)
    assert str(caught.value).startswith(cls.__name__)


def test_bad_arguments_of_the_others():
    with pytest.raises(TypeError, match="GlobalMaxPooling2D: keepdims must be True or False, got 1"):
        pooling.GlobalMaxPooling2D(keepdims=1)
    with pytest.raises(ValueError, match="AdaptiveMaxPooling2D: output_size must be at least 1"):
        pooling.AdaptiveMaxPooling2D((0, 2))
    with pytest.raises(TypeError, match="output_size"):
        pooling.AdaptiveAveragePooling2D()


@EACH_LAYER
def test_images_that_do_not_fit_are_refused_when_built(make):
    layer = make(name="pool")
    with pytest.raises(ValueError, match=r"layer 'pool' .*4 axes .*\(4, 4, 1\)"):
        layer(np.zeros((4, 4, 1)))
    assert not layer.built
    with pytest.raises(ValueError, match=r"layer 'pool' .*at least one channel and one pixel .*\(2, 0, 4, 3\)"):
        layer.build((2, 0, 4, 3))
    layer.build((None, 6, 6, 3))
    with pytest.raises(ValueError, match=r"layer 'pool' .*shape .*\(6, 6, 3\)"):
        layer(np.zeros((6, 6, 3)))


def test_a_window_larger_than_the_image_is_refused():
    for cls in (pooling.MaxPooling2D, pooling.AveragePooling2D):
        layer = cls(5, name="pool")
        with pytest.raises(ValueError, match=r"layer 'pool' .*pool_size=\(5, 5\).*\(2, 4, 8, 3\)"):
            layer(np.zeros((2, 4, 8, 3)))
        with pytest.raises(ValueError, match=r"pool_size=\(5, 5\)"):
            layer.build((None, 4, None, 3))


@EACH_LAYER
def test_a_gradient_of_another_shape_is_refused(make):
    layer = make(name="pool", device="numpy")
    y = layer(images("channels_last", np.float32))
    with pytest.raises(ValueError, match=r"layer 'pool' .*dy.shape must be"):
        layer.backward(np.zeros((1, *y.shape[1:]), np.float32))
