"""The layers without windows: Dense, activations, Flatten, Reshape and Dropout."""

from typing import Any

import numpy as np
import pytest

import xpconv as xc
from xpconv import layers

Array = np.ndarray[Any, np.dtype[Any]]


def _central_differences(function: Any, at: Array) -> Array:
    slopes = np.empty_like(at)
    for position in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[position] = 1e-6
        slopes[position] = (function(at + step) - function(at - step)) / 2e-6
    return slopes


def _dense(rng: np.random.Generator, x: Array, **options: Any) -> layers.Dense:
    layer = layers.Dense(4, dtype=x.dtype, **options)
    layer.build(x.shape)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    return layer


def _called(layer: layers.Layer, x: Array, device: str, **options: Any) -> Array:
    return xc.to_numpy(layer(xc.asarray(x, device=device), **options))


# ----------------------------------------------------------------------------------------------------------------------
# Dense
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 1, 5, 3), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_is_the_product_along_the_last_axis(
    shape: tuple[int, ...], use_bias: bool, device: str, dtype: np.dtype[Any], rng: np.random.Generator
) -> None:
    x = rng.normal(size=shape).astype(dtype)
    layer = _dense(rng, x, use_bias=use_bias, device=device)
    kernel = layer.get_weights()[0].astype(float)
    expected = np.zeros((*shape[:-1], 4))
    for position in np.ndindex(*shape[:-1]):
        for unit in range(4):
            expected[(*position, unit)] = sum(x[(*position, i)] * kernel[i, unit] for i in range(3))
            if use_bias:
                expected[(*position, unit)] += layer.get_weights()[1][unit]
    y = _called(layer, x, device)
    assert y.dtype == dtype
    assert y.shape == layer.compute_output_shape(shape) == (*shape[:-1], 4)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6 if dtype == np.float32 else 1e-14, equal_nan=False)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "softmax", "gelu"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_goes_back(
    shape: tuple[int, ...], activation: str | None, use_bias: bool, device: str, rng: np.random.Generator
) -> None:
    x = rng.normal(size=shape)
    layer = _dense(rng, x, activation=activation, use_bias=use_bias, device=device)
    dy = rng.normal(size=_called(layer, x, device).shape)
    dx = xc.to_numpy(layer.backward(dy))
    gradients, weights = [xc.to_numpy(gradient) for gradient in layer.gradients], layer.get_weights()
    assert len(gradients) == len(weights) == (2 if use_bias else 1)
    expected = _central_differences(lambda at: float((_called(layer, at, device) * dy).sum()), x)
    np.testing.assert_allclose(dx, expected, rtol=1e-5, atol=1e-7, equal_nan=False)
    for number, gradient in enumerate(gradients):

        def loss(at: Array, number: int = number) -> float:
            layer.set_weights([at if other == number else weight for other, weight in enumerate(weights)])
            return float((_called(layer, x, device) * dy).sum())

        expected = _central_differences(loss, weights[number])
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7, equal_nan=False)


def test_dense_and_torch_agree(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(6, 3))
    layer = _dense(rng, x, activation="sigmoid")
    theirs = torch.nn.Linear(3, 4).double()
    kernel, bias = layer.get_weights()
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(kernel.T.copy()))
        theirs.bias.copy_(torch.tensor(bias))
    their_x = torch.tensor(x, requires_grad=True)
    their_y = torch.sigmoid(theirs(their_x))
    dy = rng.normal(size=(6, 4))
    their_y.backward(torch.tensor(dy))
    np.testing.assert_allclose(layer(x), their_y.detach().numpy(), rtol=1e-13, equal_nan=False)
    np.testing.assert_allclose(layer.backward(dy), their_x.grad.numpy(), rtol=1e-11, atol=1e-14, equal_nan=False)
    np.testing.assert_allclose(layer.gradients[0], theirs.weight.grad.numpy().T, rtol=1e-11, atol=1e-14, equal_nan=False)
    np.testing.assert_allclose(layer.gradients[1], theirs.bias.grad.numpy(), rtol=1e-11, atol=1e-14, equal_nan=False)


@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2], lambda x: x[::-1].copy()[::-1]])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_dense_takes_any_memory_layout(make: Any, activation: str | None, device: str, rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 4)).astype(np.float32)
    layer = _dense(rng, x, activation=activation, device=device)
    expected = _called(layer, x, device), layer.backward(dy), *layer.gradients
    given, given_dy = make(x), make(dy)
    given.flags.writeable = given_dy.flags.writeable = False
    found = _called(layer, given, device), layer.backward(given_dy), *layer.gradients
    for one, other in zip(map(xc.to_numpy, found), map(xc.to_numpy, expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=False)


@pytest.mark.parametrize(
    ("activation", "x", "kernel", "bias", "printed"),
    [
        (
            "linear",
            [[0, 2, 0], [0, 1, 0], [1, 2, 0]],
            [
                [2.5851223, 2.7393, 0.8288884, 0.766943],
                [1.8277302, 0.34176064, 0.86527026, 2.2301023],
                [0.7015815, 2.6197593, 2.0963602, 0.47183955],
            ],
            [2.8081748, 0.59560454, 1.3720304, 1.5374794],
            [
                [6.4636354, 1.2791258, 3.102571, 5.997684],
                [4.6359053, 0.9373652, 2.2373006, 3.7675817],
                [9.048758, 4.018426, 3.9314594, 6.764627],
            ],
        ),
        (
            "sigmoid",
            [
                [-0.65928537, -0.2480974, 0.43367472, 1.3678365, -0.1264271],
                [0.17658404, -0.09584612, -1.0973, -0.40444714, 0.23457985],
                [-0.00544956, 0.70416385, 1.2003565, -1.6772876, 0.97837424],
                [-0.01508621, 0.75583154, 1.0752207, -0.82584643, -0.1614769],
            ],
            [
                [-0.33535814, -0.76547253, -0.06815624],
                [0.33101016, 0.7737184, 0.52242225],
                [-0.16563344, -0.20004046, 0.2815867],
                [-0.60301554, 0.18159968, -0.19174463],
                [-0.26630932, 0.00806332, -0.2891037],
            ],
            [0.0, 0.0, 0.0],
            [
                [0.32650948, 0.6161726, 0.45306733],
                [0.5676383, 0.48465988, 0.41063043],
                [0.68718123, 0.50304246, 0.67808956],
                [0.649799, 0.5572443, 0.7117081],
            ],
        ),
    ],
)
def test_dense_gives_what_keras_printed(activation: str, x: Any, kernel: Any, bias: Any, printed: Any, device: str) -> None:
    layer = layers.Dense(len(bias), activation=activation, device=device)
    layer.build(np.shape(x))
    layer.set_weights([kernel, bias])
    np.testing.assert_allclose(_called(layer, np.array(x), device), printed, rtol=5e-7, equal_nan=False)


def test_a_frozen_dense_has_no_gradients_of_weights(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3))
    layer = _dense(rng, x, trainable=False)
    dy = rng.normal(size=(2, 4))
    layer(x)
    np.testing.assert_allclose(layer.backward(dy), dy @ layer.get_weights()[0].T, rtol=1e-13, equal_nan=False)
    assert layer.gradients == []


def test_dense_starts_from_its_initializers_and_keeps_its_regularizers() -> None:
    layer = layers.Dense(2, kernel_initializer="ones", bias_initializer=xc.initializers.Constant(0.5), kernel_regularizer="l2")
    np.testing.assert_array_equal(layer(np.array([[1.0, 2.0]])), [[3.5, 3.5]])
    assert [repr(weight.regularizer) for weight in layer.trained()] == ["L2(l2=0.01)", "None"]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_dense_tells_a_loss_what_the_activation_was_given(activation: str, rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 3)), rng.normal(size=(2, 4))
    layer, plain = _dense(rng, x, activation=activation), layers.Dense(4, dtype="float64")
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    layer(x)
    told = layer.before_activation(layer._saved)
    assert told is not None
    assert told[0] == activation
    np.testing.assert_array_equal(told[1], plain(x))
    assert layer._run is not None
    dx, gradients = layer.differentiate_before_activation(layer._saved, dy, layer._run, True)
    np.testing.assert_array_equal(dx, plain.backward(dy))
    for one, other in zip(gradients, plain.gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_dense_without_such_an_activation_tells_a_loss_nothing(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3))
    for activation in (None, "relu", xc.activations.Softmax(axis=0)):
        layer = _dense(rng, x, activation=activation)
        layer(x)
        assert layer.before_activation(layer._saved) is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: layers.Dense(0), ValueError, "Dense: units must be at least 1, got 0"),
        (lambda: layers.Dense(2.5), TypeError, r"Dense: units must be an integer, got 2\.5"),  # type: ignore[arg-type]
        (lambda: layers.Dense(2, use_bias="no"), TypeError, "Dense: use_bias must be True or False, got 'no'"),  # type: ignore[arg-type]
        (lambda: layers.Dense(2, activation="rellu"), ValueError, "Dense: activation 'rellu' is unknown; did you mean 'relu'"),
        (lambda: layers.Dense(2, bias_initializer="zeroes"), ValueError, "Dense: bias_initializer 'zeroes' is unknown"),
        (lambda: layers.Dense(2, kernel_regularizer="l3"), ValueError, "Dense: kernel_regularizer 'l3' is unknown"),
        (lambda: layers.Dense(2, name="d")(np.zeros(3)), ValueError, r"layer 'd' .*at least two axes.* got \(3,\)"),
        (lambda: layers.Dense(2).build((None, None)), ValueError, "size of the last axis must be known"),
    ],
)
def test_dense_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_dense_refuses_another_size_than_it_was_built_with() -> None:
    layer = layers.Dense(2, name="d")
    layer(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"layer 'd' \(Dense\).*got \(1, 4\)"):
        layer(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="layer 'd'"):
        layer(np.zeros(3))


# ----------------------------------------------------------------------------------------------------------------------
# Activations as layers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda **options: layers.Activation("relu", **options), [0.0, 0, 0, 1.5, 9]),
        (lambda **options: layers.Activation(None, **options), [-4.0, -1, 0, 1.5, 9]),
        (lambda **options: layers.ReLU(**options), [0.0, 0, 0, 1.5, 9]),
        (lambda **options: layers.ReLU(6, 0.5, **options), [-2.0, -0.5, 0, 1.5, 6]),
        (lambda **options: layers.ReLU(8, 0.5, 2, **options), [-3.0, -1.5, -1, -0.25, 8]),
        (lambda **options: layers.LeakyReLU(**options), [-1.2, -0.3, 0, 1.5, 9]),
        (lambda **options: layers.ELU(0.5, **options), [0.5 * np.expm1(-4), 0.5 * np.expm1(-1), 0, 1.5, 9]),
        (lambda **options: layers.Softmax(**options), np.exp([-4.0, -1, 0, 1.5, 9]) / np.exp([-4.0, -1, 0, 1.5, 9]).sum()),
        (
            lambda **options: layers.Softmax([0, 1], **options),
            np.exp([-4.0, -1, 0, 1.5, 9]) / np.exp([-4.0, -1, 0, 1.5, 9]).sum(),
        ),
        (lambda **options: layers.Softmax(0, **options), [1.0, 1, 1, 1, 1]),
    ],
)
def test_activation_layers(layer: Any, expected: Any, device: str, rng: np.random.Generator) -> None:
    x = np.array([[-4.0, -1.0, 0.0, 1.5, 9.0]])
    made = layer(dtype="float64", device=device)
    y = _called(made, x, device)
    np.testing.assert_allclose(y, [expected], rtol=1e-13, equal_nan=False)
    assert made.compute_output_shape((None, 5)) == (None, 5)
    dy = rng.normal(size=(1, 5))
    dx, smooth = xc.to_numpy(made.backward(dy)), x != 0
    differences = _central_differences(lambda at: float((_called(made, at, device) * dy).sum()), x)
    np.testing.assert_allclose(dx[smooth], differences[smooth], rtol=1e-6, atol=1e-8, equal_nan=False)
    assert made.gradients == []


def test_activation_layers_tell_a_loss_what_they_were_given() -> None:
    x, dz = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])
    for layer in (layers.Activation("softmax", dtype="float64"), layers.Softmax(dtype="float64"), layers.Activation("sigmoid")):
        layer(x)
        told = layer.before_activation(layer._saved)
        assert told is not None
        np.testing.assert_array_equal(told[1], x)
        assert layer._run is not None
        assert layer.differentiate_before_activation(layer._saved, dz, layer._run, True)[0] is dz
    last = layers.Softmax(axis=0)
    last(x)
    assert last.before_activation(last._saved) is None


@pytest.mark.parametrize(("name", "keeps"), [("relu", False), ("tanh", False), ("gelu", True), ("softmax", True)])
def test_only_what_is_needed_again_is_kept(name: str, keeps: bool, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3))
    activation, dense = layers.Activation(name), _dense(rng, x, activation=name)
    activation(x)
    dense(x)
    assert (activation._saved[0] is not None) == keeps
    assert (dense._saved[2] is not None) == keeps


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: layers.Activation("tan"), ValueError, "Activation: activation 'tan' is unknown; did you mean 'tanh'"),
        (lambda: layers.ReLU(max_value=-1), ValueError, "ReLU: max_value must be at least 0"),
        (lambda: layers.LeakyReLU(-0.1), ValueError, "LeakyReLU: negative_slope must be at least 0"),
        (lambda: layers.Softmax(axis=2)(np.zeros((2, 3))), ValueError, "axis 2 is not there in an input of 2 axes"),
    ],
)
def test_activation_layers_refuse(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


# ----------------------------------------------------------------------------------------------------------------------
# Flatten and Reshape
# ----------------------------------------------------------------------------------------------------------------------


def test_flatten_keeps_the_order_of_channels_last(data_format: str, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    last = rng.normal(size=(2, 3, 4, 5)).astype(dtype)
    x = last if data_format == "channels_last" else last.transpose(0, 3, 1, 2)
    layer = layers.Flatten(data_format, dtype=dtype)
    y = layer(x)
    np.testing.assert_array_equal(y, [[*sample.ravel()] for sample in last])
    assert layer.compute_output_shape(x.shape) == y.shape == (2, 60)
    dx = layer.backward(y)
    np.testing.assert_array_equal(dx, x)


def test_flatten_copies_nothing() -> None:
    x = np.zeros((2, 3, 4), np.float32)
    assert np.shares_memory(layers.Flatten()(x), x)


@pytest.mark.parametrize(
    ("shape", "expected"), [((5,), (5, 1)), ((5, 2), (5, 2)), ((0, 2, 3), (0, 6)), ((5, 0, 3), (5, 0)), ((5, 2, 3), (5, 6))]
)
def test_flatten_of_any_rank(shape: tuple[int, ...], expected: tuple[int, ...], data_format: str) -> None:
    layer = layers.Flatten(data_format)
    y = layer(np.zeros(shape, np.float32))
    assert y.shape == layer.compute_output_shape(shape) == expected
    assert layer.backward(y).shape == shape


def test_flatten_of_unknown_sizes() -> None:
    assert layers.Flatten().compute_output_shape((None, 3, 4)) == (None, 12)
    assert layers.Flatten().compute_output_shape((None, None, 4)) == (None, None)


@pytest.mark.parametrize("layer", [layers.Flatten, lambda: layers.Reshape((3, -1))])
def test_reshaping_keeps_integers(layer: Any) -> None:
    x = np.arange(2**30, 2**30 + 12, dtype=np.int64).reshape(2, 2, 3)
    y = layer()(x)
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y.ravel(), x.ravel())


@pytest.mark.parametrize(
    ("target", "shape", "expected"),
    [
        ((3, 4), (2, 12), (2, 3, 4)),
        ((-1,), (2, 3, 4), (2, 12)),
        ((2, -1, 3), (2, 12), (2, 2, 2, 3)),
        ((-1, 4), (0, 12), (0, 3, 4)),
        ((3, 4), (None, 12), (None, 3, 4)),
        ((-1, 4), (None, None, 2), (None, None, 4)),
        ((), (2, 1), (2,)),
        ((1,), (2,), (2, 1)),
    ],
)
def test_reshape(target: tuple[int, ...], shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> None:
    layer = layers.Reshape(target, dtype="float64")
    assert layer.compute_output_shape(shape) == expected
    if None not in shape:
        x = np.arange(float(np.prod([size or 0 for size in shape]))).reshape([size or 0 for size in shape])
        y = layer(x)
        assert y.shape == expected
        assert x.size == 0 or np.shares_memory(y, x)
        np.testing.assert_array_equal(y.ravel(), x.ravel())
        np.testing.assert_array_equal(layer.backward(y), x)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: layers.Flatten("channels"), ValueError, "Flatten: data_format must be .* got 'channels'"),
        (lambda: layers.Reshape((-1, -1)), ValueError, r"only one size of target_shape may be -1, got \(-1, -1\)"),
        (lambda: layers.Reshape((2, -2)), ValueError, "must be at least -1, got -2"),
        (lambda: layers.Reshape((2, 1.5)), TypeError, r"must be an integer, got 1\.5"),  # type: ignore[arg-type]
        (lambda: layers.Reshape(3), TypeError, "must be a tuple of integers, got 3"),  # type: ignore[arg-type]
        (lambda: layers.Reshape((5,))(np.zeros((2, 6))), ValueError, r"\(5,\) holds 5 numbers a sample, and the input has 6"),
        (lambda: layers.Reshape((-1, 4))(np.zeros((2, 6))), ValueError, "holds a multiple of 4 numbers a sample"),
        (lambda: layers.Reshape((-1, 0))(np.zeros((2, 6))), ValueError, "holds a multiple of 0 numbers a sample"),
    ],
)
def test_reshaping_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


# ----------------------------------------------------------------------------------------------------------------------
# Dropout
# ----------------------------------------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean(dtype: np.dtype[Any]) -> None:
    layer = layers.Dropout(0.25, seed=0, dtype=dtype)
    x = np.full((200, 200), 3.0, dtype)
    y = layer(x, training=True)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.unique(y), [0, 4], rtol=1e-6, equal_nan=False)
    np.testing.assert_allclose((y == 0).mean(), 0.25, atol=0.01, equal_nan=False)
    np.testing.assert_array_equal(layer.backward(x), y)
    assert not np.array_equal(layer(x, training=True), y)


def test_dropout_outside_training_does_nothing(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4)).astype(np.float32)
    for layer, training in ((layers.Dropout(0.5), False), (layers.Dropout(0.0), True)):
        assert layer(x, training=training) is x
        np.testing.assert_array_equal(layer.backward(x), x)


def test_dropout_of_everything_gives_zeros() -> None:
    x = np.array([[1.0, np.inf]], np.float32)
    layer = layers.Dropout(1.0)
    np.testing.assert_array_equal(layer(x, training=True), [[0, 0]])
    np.testing.assert_array_equal(layer.backward(x), [[0, 0]])


def test_dropout_of_infinity_is_zero_or_infinity() -> None:
    y = layers.Dropout(0.5, seed=0)(np.full((1, 100), np.inf), training=True)
    assert set(y.ravel().tolist()) == {0.0, np.inf}


def test_dropout_drops_the_same_on_every_device_and_in_every_dtype(device: str, dtype: np.dtype[Any]) -> None:
    y = _called(layers.Dropout(0.5, seed=5, device=device), np.ones((4, 6), dtype), device, training=True)
    np.testing.assert_array_equal(y, 2.0 * (np.random.default_rng(5).random((4, 6)) >= 0.5))


def test_dropout_without_a_seed_follows_numpys() -> None:
    state = np.random.get_state()
    try:
        np.random.seed(1)
        first = layers.Dropout(0.5)(np.ones((4, 6)), training=True)
        np.random.seed(1)
        np.testing.assert_array_equal(layers.Dropout(0.5)(np.ones((4, 6)), training=True), first)
    finally:
        np.random.set_state(state)


def test_dropout_of_whole_channels() -> None:
    layer = layers.Dropout(0.5, noise_shape=(None, 1, 1, None), seed=0)
    y = layer(np.ones((4, 3, 3, 8)), training=True)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert set(y.ravel().tolist()) == {0.0, 2.0}
    np.testing.assert_array_equal(layer.backward(np.ones((4, 3, 3, 8))), y)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: layers.Dropout(1.5), ValueError, r"Dropout: rate must be from 0 to 1, got 1\.5"),
        (lambda: layers.Dropout(np.nan), ValueError, "got nan"),
        (lambda: layers.Dropout("half"), TypeError, "Dropout: rate must be a number, got 'half'"),  # type: ignore[arg-type]
        (lambda: layers.Dropout(0.5, seed=-1), ValueError, "Dropout: seed must be at least 0"),
        (lambda: layers.Dropout(0.5, noise_shape=(0, 1)), ValueError, "must be at least 1, got 0"),
        (lambda: layers.Dropout(0.5, noise_shape=3), TypeError, "must be a tuple of integers and None, got 3"),  # type: ignore[arg-type]
        (lambda: layers.Dropout(0.5, (None, 2))(np.zeros((2, 3)), training=True), ValueError, r"\(None, 2\) does not fit"),
        (lambda: layers.Dropout(0.5, (1,))(np.zeros((2, 3)), training=True), ValueError, r"\(1,\) does not fit"),
    ],
)
def test_dropout_refuses(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
