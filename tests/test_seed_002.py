"""Seed 002, a notebook on Keras' layers from Dense to pooling: its printed numbers, and its loops against xpconv.

What has both is computed twice: by functions (Dense is ``x @ W + b``, :class:`xpconv.scratch.layers.Affine`), and by the
layers, called as the notebook does. Where a cell has no recorded output, the cell's own formula or loop is the expectation,
on images and weights of ours. Everything is channels_last, Keras' order.
"""

import math
import re

import numpy as np
import pytest
from conftest import assert_close, normal

import xpconv as xc
from xpconv.initializers import RandomUniform
from xpconv.layers import Activation, AveragePooling2D, Conv2D, Dense, MaxPooling2D, ZeroPadding2D
from xpconv.scratch.functions import cross_entropy_error, relu, sigmoid, softmax, softmax_loss, sum_squared_error
from xpconv.scratch.layers import Affine, SoftmaxWithLoss
from xpconv.scratch.multi_layer_net import MultiLayerNet

LAST = {"data_format": "channels_last"}
ACTIVATIONS = {"linear": lambda z: z, "relu": relu, "sigmoid": sigmoid, "softmax": softmax}


@pytest.fixture(params=["functions", "layers"])
def through(request):
    """What computes."""
    return request.param


@pytest.fixture
def here(device):
    """Brings an array to the device, which computes wherever a call names none: the notebook's name none."""
    xc.set_default_device(device)
    yield lambda array: xc.asarray(array, device=device)
    xc.set_default_device(None)


@pytest.fixture
def dense(through, here):
    """Computes a dense layer of these weights, in their dtype."""

    def through_functions(x, W, b, activation="linear"):
        z = Affine(here(W), here(b)).forward(here(np.asarray(x, W.dtype)))
        return xc.to_numpy(ACTIVATIONS[activation](z))

    def through_layers(x, W, b, activation="linear"):
        layer = Dense(units=W.shape[1], activation=activation, dtype=W.dtype)
        layer(here(x))
        layer.set_weights([W, b])
        return xc.to_numpy(layer(here(x)))

    return {"functions": through_functions, "layers": through_layers}[through]


@pytest.fixture
def activated(through, here):
    """Applies an activation, by its name."""

    def through_functions(activation, z):
        return xc.to_numpy(ACTIVATIONS[activation](here(z)))

    def through_layers(activation, z):
        return xc.to_numpy(Activation(activation, dtype=z.dtype)(here(z)))

    return {"functions": through_functions, "layers": through_layers}[through]


@pytest.fixture
def convolved(through, here, rng):
    """Convolves with random weights, and gives ``(y, W, B)``."""

    def through_functions(images, n_filter, strides=1, padding="valid"):
        W = rng.normal(size=(3, 3, images.shape[3], n_filter)).astype(images.dtype)
        B = rng.normal(size=n_filter).astype(images.dtype)
        y = xc.conv2d(here(images), here(W), here(B), stride=strides, padding=padding, **LAST)
        return xc.to_numpy(y), W, B

    def through_layers(images, n_filter, strides=1, padding="valid"):
        conv = Conv2D(filters=n_filter, kernel_size=3, strides=strides, padding=padding, dtype=images.dtype)
        conv(here(images))
        W, B = conv.get_weights()
        np.testing.assert_array_equal(B, np.zeros(n_filter))
        conv.set_weights([W, rng.normal(size=n_filter)])  # else it would not matter whether B is added
        return xc.to_numpy(conv(here(images))), *conv.get_weights()

    return {"functions": through_functions, "layers": through_layers}[through]


@pytest.fixture
def pooled(through, here):
    """Pools images, with ``"max"`` or ``"average"`` of the windows."""

    def through_functions(kind, x, pool_size, strides):
        function = {"max": xc.max_pool2d, "average": xc.avg_pool2d}[kind]
        return xc.to_numpy(function(here(x), pool_size, stride=strides, **LAST))

    def through_layers(kind, x, pool_size, strides):
        layer = {"max": MaxPooling2D, "average": AveragePooling2D}[kind]
        return xc.to_numpy(layer(pool_size=pool_size, strides=strides, dtype=x.dtype)(here(x)))

    return {"functions": through_functions, "layers": through_layers}[through]


def assert_printed(actual, printed, rtol=1e-6, atol=0.0):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, printed, rtol=rtol, atol=atol)


# ----------------------------------------------------------------------------------------------------------------------
# 1 to 3: affine transforms, batches, layers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "x_shape", "activation"),
    [
        ("1: one number", (1, 1), "linear"),
        ("1: a row of three", (1, 3), "linear"),
        ("1: a row of ten features", (1, 10), "linear"),
        ("2: a batch of three", (3, 5), "sigmoid"),
    ],
)
def test_one_neuron(cell, x_shape, activation, dense, rng, dtype):
    x, W, B = (rng.normal(size=shape).astype(dtype) for shape in (x_shape, (x_shape[1], 1), (1,)))
    y_manual = np.matmul(x.astype(np.float64), W) + B
    if activation == "sigmoid":
        y_manual = 1 / (1 + np.exp(-y_manual))
    assert_close(dense(x, W, B, activation), y_manual, dtype)


def test_the_weights_are_made_when_the_layer_is_called(here):
    """The first cell: an input of one number, and weights of the shapes that it needs."""
    dense = Dense(units=1, activation="linear")
    assert dense.weights == []
    y = dense(here(np.array([[10.0]], np.float32)))
    W, B = dense.get_weights()
    assert (W.shape, B.shape, y.shape) == ((1, 1), (1,), (1, 1))
    assert_printed(xc.to_numpy(y), np.matmul([[10.0]], W) + B)


X_2 = np.array([[0, 2, 0], [0, 1, 0], [1, 2, 0]], np.int32)


def test_a_batch_and_several_neurons(dense):
    W = [
        [2.5851223, 2.7393, 0.8288884, 0.766943],
        [1.8277302, 0.34176064, 0.86527026, 2.2301023],
        [0.7015815, 2.6197593, 2.0963602, 0.47183955],
    ]
    b = [2.8081748, 0.59560454, 1.3720304, 1.5374794]
    assert_printed(
        dense(X_2, np.float32(W), np.float32(b)),
        [
            [6.4636354, 1.2791258, 3.102571, 5.997684],
            [4.6359053, 0.9373652, 2.2373006, 3.7675817],
            [9.048758, 4.018426, 3.9314594, 6.764627],
        ],
    )


def test_a_batch_and_several_neurons_their_initializers(here):
    """The cell's layer as it is: integers go in, the weights are drawn from 0 to 3."""
    w_init, b_init = RandomUniform(minval=0, maxval=3), RandomUniform(minval=0, maxval=3)
    dense = Dense(units=4, activation="linear", kernel_initializer=w_init, bias_initializer=b_init)
    Y = xc.to_numpy(dense(here(X_2)))
    W, B = dense.get_weights()
    assert (X_2.shape, W.shape, B.shape, Y.shape) == ((3, 3), (3, 4), (4,), (3, 4))
    for weights in (W, B):
        assert ((weights >= 0) & (weights <= 3)).all()
        assert len(np.unique(weights)) == weights.size
    assert W.max() > 2  # twelve numbers of the wrong limits, -0.05 and 0.05 or 0 and 1, would not be
    assert_printed(Y, np.matmul(X_2, W.astype(np.float64)) + B)


X_3 = np.array(
    [
        [-0.65928537, -0.2480974, 0.43367472, 1.3678365, -0.1264271],
        [0.17658404, -0.09584612, -1.0973, -0.40444714, 0.23457985],
        [-0.00544956, 0.70416385, 1.2003565, -1.6772876, 0.97837424],
        [-0.01508621, 0.75583154, 1.0752207, -0.82584643, -0.1614769],
    ]
)
W_3 = np.array(
    [
        [-0.33535814, -0.76547253, -0.06815624],
        [0.33101016, 0.7737184, 0.52242225],
        [-0.16563344, -0.20004046, 0.2815867],
        [-0.60301554, 0.18159968, -0.19174463],
        [-0.26630932, 0.00806332, -0.2891037],
    ]
)


def test_a_dense_layer_with_sigmoid(dense):
    y = dense(X_3.astype(np.float32), W_3.astype(np.float32), np.zeros(3, np.float32), "sigmoid")
    of_tensorflow = [
        [0.32650948, 0.6161726, 0.45306733],
        [0.5676383, 0.48465988, 0.41063043],
        [0.68718123, 0.50304246, 0.67808956],
        [0.649799, 0.5572443, 0.7117081],
    ]
    of_its_matrix_product = [
        [0.32650945, 0.61617255, 0.45306733],
        [0.5676383, 0.4846599, 0.41063043],
        [0.68718123, 0.5030425, 0.67808956],
        [0.649799, 0.55724436, 0.7117082],
    ]
    assert_printed(y, of_tensorflow, rtol=5e-7)
    assert_printed(y, of_its_matrix_product, rtol=5e-7)


def test_a_dense_layer_with_sigmoid_in_float64(dense):
    of_its_dot_products = [  # float64, of float32 sums; the last row of the output is cut off
        [0.32650944, 0.61617258, 0.45306734],
        [0.56763829, 0.48465988, 0.41063043],
        [0.68718124, 0.50304253, 0.67808955],
    ]
    y = dense(X_3, W_3, np.zeros(3), "sigmoid")
    assert y.dtype == np.float64
    np.testing.assert_allclose(y[:3], of_its_dot_products, rtol=1e-7)
    assert y[3, 0] == pytest.approx(0.649798, abs=1e-6)


def test_layers_one_behind_the_other(rng, here):
    """The last cell of the chapter: 10 inputs, layers of 3, 4 and 5 neurons, sigmoid behind each."""
    X = rng.normal(size=(4, 10)).astype(np.float32)
    X_copy = X.astype(np.float64)
    n_neurons = [3, 4, 5]
    dense_layers = []
    for n_neuron in n_neurons:
        dense_layers.append(Dense(units=n_neuron, activation="sigmoid"))
    X = here(X)
    W, B = [], []
    for dense in dense_layers:
        X = dense(X)
        w, b = dense.get_weights()
        W.append(w)
        B.append(b)
    for w, b in zip(W, B, strict=True):
        X_copy = 1 / (1 + np.exp(-(np.matmul(X_copy, w) + b)))
    assert [w.shape for w in W] == [(10, 3), (3, 4), (4, 5)]
    assert_close(X, X_copy, np.float32)


def test_layers_one_behind_the_other_as_the_books_network(rng):
    net = MultiLayerNet(10, [3, 4, 5], 2, "sigmoid", 1.0, dtype=np.float64, seed=0, device="numpy")
    x = rng.normal(size=(4, 10))
    expected = x
    for index in (1, 2, 3):
        expected = 1 / (1 + np.exp(-(expected @ xc.to_numpy(net.params[f"W{index}"]) + xc.to_numpy(net.params[f"b{index}"]))))
    hidden = x
    for name in list(net.layers)[:6]:
        hidden = net.layers[name].forward(hidden)
    assert hidden.shape == (4, 5)
    np.testing.assert_allclose(hidden, expected, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------------------------
# 4: sigmoid
# ----------------------------------------------------------------------------------------------------------------------


def test_logistic_regression(dense):
    X = [
        [0.07885586, 1.2067411, 0.69738185, 1.1121552, 0.17453901],
        [-0.05307293, 0.19124863, -1.4629031, -0.2412481, -0.24293447],
        [-0.07027663, 0.7556984, -1.175209, 0.39808595, 0.9123695],
    ]
    W = [[0.7188616], [-0.02032185], [-0.46848083], [-0.30328465], [-0.66729736]]
    Y = dense(np.float32(X), np.float32(W), np.zeros(1, np.float32), "sigmoid")
    assert_printed(Y, [[0.3211884], [0.7065278], [0.43908694]], rtol=5e-7)


def test_logistic_regression_the_shapes(here, rng):
    dense = Dense(units=1, activation="sigmoid")
    Y = dense(here(rng.normal(size=(100, 5)).astype(np.float32)))
    W, B = dense.get_weights()
    assert (W.shape, B.shape, Y.shape) == ((5, 1), (1,), (100, 1))
    np.testing.assert_array_equal(B, np.float32([0]), strict=True)  # printed: [0.]


def test_a_binary_classifier_its_summary(rng, capsys):
    """Called with 100 samples, it is those 100 that the table shows; 14 layers and a model were there before."""
    xc.reset_names()
    for _ in range(14):
        Dense(units=1)
    xc.models.Sequential()
    X = rng.normal(size=(100, 5)).astype(np.float32)

    model = xc.models.Sequential()
    model.add(Dense(units=10, activation="relu"))
    model.add(Dense(units=5, activation="relu"))
    model.add(Dense(units=1, activation="relu"))
    model.add(Activation("sigmoid"))
    Y = xc.to_numpy(model(X))
    model.summary()

    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == 'Model: "sequential_1"'
    rows = [[cell.strip() for cell in re.split(r"[│|]", line)[1:-1]] for line in printed.splitlines()]
    assert [row for row in rows if len(row) == 3 and row[0] != "Layer (type)"] == [
        ["dense_14 (Dense)", "(100, 10)", "60"],
        ["dense_15 (Dense)", "(100, 5)", "55"],
        ["dense_16 (Dense)", "(100, 1)", "6"],
        ["activation (Activation)", "(100, 1)", "0"],
    ]
    assert re.findall(r"(\S+) params: (\d+) ", printed) == [("Total", "121"), ("Trainable", "121"), ("Non-trainable", "0")]

    W1, B1, W2, B2, W3, B3 = model.get_weights()
    hidden = np.maximum(np.maximum(X @ W1 + B1, 0) @ W2 + B2, 0)
    assert_close(Y, 1 / (1 + np.exp(-np.maximum(hidden @ W3 + B3, 0))), np.float32)


def test_a_binary_classifier_as_the_books_network(rng):
    net = MultiLayerNet(5, [10, 5], 1, device="numpy")
    sizes = [net.params[f"W{index}"].size + net.params[f"b{index}"].size for index in (1, 2, 3)]
    assert sizes == [60, 55, 6]
    assert sum(sizes) == sum(value.size for value in net.params.values()) == 121
    x = rng.normal(size=(100, 5))
    shapes = []
    for name, layer in net.layers.items():
        x = layer.forward(x)
        if name.startswith("Affine"):
            shapes.append(x.shape)
    assert shapes == [(100, 10), (100, 5), (100, 1)]
    assert sigmoid(relu(x)).shape == (100, 1)


# ----------------------------------------------------------------------------------------------------------------------
# 5: softmax
# ----------------------------------------------------------------------------------------------------------------------


def test_softmax(activated):
    logit = np.array(
        [
            [0.88398457, -3.945303, -7.8322077],
            [4.4274254, 4.337284, -6.25705],
            [5.1670504, 2.4240227, -7.380731],
            [-6.0878897, 2.852028, 4.2614384],
            [-5.7236433, -5.4685473, -4.6333027],
        ],
        np.float32,
    )
    printed = [
        [9.9190980e-01, 7.9275547e-03, 1.6258407e-04],
        [5.2251381e-01, 4.7747421e-01, 1.1964355e-05],
        [9.3951517e-01, 6.0481429e-02, 3.3378881e-06],
        [2.5728361e-05, 1.9632201e-01, 8.0365229e-01],
        [1.8990204e-01, 2.4508482e-01, 5.6501317e-01],
    ]
    softmax_value = activated("softmax", logit)
    assert_printed(softmax_value, printed, rtol=2e-6)
    # 0.99999994 is the number before 1 in float32.
    assert_printed(softmax_value.sum(axis=1), [0.99999994, 1.0, 0.99999994, 1.0, 1.0], rtol=0, atol=1.2e-7)


def test_softmax_behind_a_dense_layer_sums_to_1(dense, rng):
    logit, W = rng.uniform(-10, 10, size=(8, 5)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    Y = dense(logit, W, np.zeros(8, np.float32), "softmax")
    assert Y.shape == (8, 8)
    np.testing.assert_allclose(Y.sum(axis=1), np.ones(8), rtol=5e-7)


def test_a_multiclass_classifier(rng, device, capsys):
    """The model that prints what its layers give. It returns the last, which the notebook's forgets to."""

    class TestModel(xc.models.Model):
        def __init__(self):
            super(TestModel, self).__init__()  # noqa: UP008 - as the notebook writes it

            self.dense1 = Dense(units=8, activation="relu")
            self.dense2 = Dense(units=5, activation="relu")
            self.dense3 = Dense(units=3, activation="softmax")

        def call(self, x):
            print(f"X : {x.shape}")
            x = self.dense1(x)
            print(f"A1 : {x.shape}")
            x = self.dense2(x)
            print(f"A2 : {x.shape}")
            x = self.dense3(x)
            print(f"Y : {x.shape}")
            print(f"Sum of Y : {x.shape} {xc.to_numpy(x).sum(axis=1).round(6)}")
            return x

    model = TestModel()
    model.to(device)
    X = rng.uniform(-10, 10, size=(8, 5)).astype(np.float32)
    Y = xc.to_numpy(model(X))
    assert capsys.readouterr().out.splitlines() == [
        "X : (8, 5)",
        "A1 : (8, 8)",
        "A2 : (8, 5)",
        "Y : (8, 3)",
        "Sum of Y : (8, 3) [1. 1. 1. 1. 1. 1. 1. 1.]",
    ]
    np.testing.assert_allclose(Y.sum(axis=1), np.ones(8), rtol=5e-7)
    W1, B1, W2, B2, W3, B3 = model.get_weights()
    exponentials = np.exp(np.maximum(np.maximum(X @ W1 + B1, 0) @ W2 + B2, 0).astype(np.float64) @ W3 + B3)
    np.testing.assert_allclose(Y, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=2e-5)


# ----------------------------------------------------------------------------------------------------------------------
# 6: losses
# ----------------------------------------------------------------------------------------------------------------------


def test_mean_squared_error(here, rng, dtype):
    loss_object = xc.losses.MeanSquaredError()
    predictions, labels = rng.normal(size=(32, 1)).astype(dtype), rng.normal(size=(32, 1)).astype(dtype)
    mse = loss_object(here(labels), here(predictions))
    mse_man = np.mean(np.power(labels.astype(np.float64) - predictions, 2))
    assert_close(np.asarray(xc.to_numpy(mse), dtype), mse_man, dtype)


def batches_of(X, Y, batch_size):
    """What ``Dataset.from_tensor_slices((X, Y)).batch(batch_size)`` gives."""
    return [(X[first : first + batch_size], Y[first : first + batch_size]) for first in range(0, len(X), batch_size)]


def test_mean_squared_error_with_a_model(here, rng):
    """100 samples in batches of 32: the last has 4."""
    X, Y = rng.normal(size=(100, 5)).astype(np.float32), rng.normal(size=(100, 1)).astype(np.float32)
    dataset = batches_of(X, Y, batch_size=32)
    assert [len(x) for x, _ in dataset] == [32, 32, 32, 4]
    dense = Dense(units=1, activation="linear")
    loss_object = xc.losses.MeanSquaredError()
    for x, y in dataset:
        predictions = dense(here(x))
        loss = loss_object(here(y), predictions)
        W, B = dense.get_weights()
        assert predictions.shape == (len(x), 1)
        expected = np.mean((y - (x.astype(np.float64) @ W + B)) ** 2)
        np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def binary_cross_entropy(labels, predictions):
    """The cell's formula, in float64."""
    labels, predictions = labels.astype(np.float64), predictions.astype(np.float64)
    return np.mean(-(labels * np.log(predictions) + (1 - labels) * np.log(1 - predictions)))


def test_binary_cross_entropy(here, rng, dtype):
    predictions = rng.uniform(size=(10, 1)).astype(dtype)
    labels = rng.integers(0, 2, size=(10, 1), dtype=np.int32)
    assert 0 < labels.sum() < 10
    loss_object = xc.losses.BinaryCrossentropy()
    loss = loss_object(here(labels), here(predictions))
    np.testing.assert_allclose(float(loss), binary_cross_entropy(labels, predictions), rtol=1e-5)


def test_binary_cross_entropy_with_a_model(here):
    """Labels (8,), predictions (8, 1): each label is that of its row."""
    target_weights = np.array([1, 2, 3, 4, 5], np.float32)
    X = normal(1, (8, 5), np.float32)
    Y = (np.sum(target_weights * X, axis=1) > 5).astype(np.int32)
    assert 0 < Y.sum() < 8
    dataset = batches_of(X, Y, batch_size=10)
    assert [x.shape for x, _ in dataset] == [(8, 5)]
    dense = Dense(units=1, activation="sigmoid")
    loss_object = xc.losses.BinaryCrossentropy()
    for x, y in dataset:
        predictions = dense(here(x))
        assert predictions.shape == (8, 1)
        loss = loss_object(here(y), predictions)
        expected = binary_cross_entropy(y[:, None], xc.to_numpy(predictions))
        np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_categorical_cross_entropy(here, rng, dtype):
    """The chapter's sum of -log over the classes of a row, and its mean over the rows."""
    y_hat, y = rng.dirichlet(np.ones(4), size=7).astype(dtype), np.eye(4, dtype=dtype)[rng.integers(0, 4, 7)]
    rows = -np.log((y * y_hat.astype(np.float64)).sum(axis=1))
    np.testing.assert_allclose(
        xc.to_numpy(xc.losses.categorical_crossentropy(here(y), here(y_hat))), rows, rtol=1e-5, equal_nan=False
    )
    loss = xc.losses.CategoricalCrossentropy()(here(y), here(y_hat))
    np.testing.assert_allclose(float(loss), rows.mean(), rtol=1e-5)


def test_mean_squared_error_is_two_nths_of_the_books(rng):
    predictions, labels = rng.normal(size=(32, 1)), rng.normal(size=(32, 1))
    mse_man = np.mean(np.power(labels - predictions, 2))
    assert sum_squared_error(predictions, labels) * 2 / 32 == pytest.approx(mse_man, rel=1e-14)


def test_binary_cross_entropy_is_cross_entropy_with_two_classes(rng):
    predictions, labels = rng.uniform(size=(10, 1)), rng.integers(0, 2, size=(10, 1))
    bce_man = np.mean(-(labels * np.log(predictions) + (1 - labels) * np.log(1 - predictions)))
    both = np.concatenate([1 - predictions, predictions], axis=1)
    assert cross_entropy_error(both, labels) == pytest.approx(bce_man, rel=1e-14)
    # The sigmoid of a score is the softmax of that score and 0.
    scores = np.log(predictions / (1 - predictions))
    assert softmax_loss(np.concatenate([np.zeros((10, 1)), scores], axis=1), labels) == pytest.approx(bce_man, rel=1e-12)


def test_the_books_cross_entropy_is_the_mean_over_the_samples(rng):
    y, t = softmax(rng.normal(size=(7, 4))), np.eye(4)[rng.integers(0, 4, 7)]
    expected = sum(-math.log(y[n, k]) for n in range(7) for k in range(4) if t[n, k]) / 7
    assert cross_entropy_error(y, t) == pytest.approx(expected, rel=1e-14)
    assert SoftmaxWithLoss().forward(np.log(y), t) == pytest.approx(expected, rel=1e-12)


# ----------------------------------------------------------------------------------------------------------------------
# 7: convolution
# ----------------------------------------------------------------------------------------------------------------------


def convolved_by_the_notebook(images, W, B):
    """The manual cells of the chapter, for every image of a batch."""
    k_size, _, _, n_filter = W.shape
    N, n_H, n_W, _ = images.shape
    y_man = np.zeros(shape=(N, n_H - k_size + 1, n_W - k_size + 1, n_filter))
    for n in range(N):
        for c in range(n_filter):
            for h in range(n_H - k_size + 1):
                for w in range(n_W - k_size + 1):
                    window = images[n, h : h + k_size, w : w + k_size, :]
                    y_man[n, h, w, c] = np.sum(window * W[:, :, :, c]) + B[c]
    return y_man


@pytest.mark.parametrize(
    ("images", "n_filter", "y_shape"),
    [
        ((1, 28, 28, 1), 1, (1, 26, 26, 1)),
        ((1, 5, 5, 1), 1, (1, 3, 3, 1)),
        ((1, 28, 28, 3), 1, (1, 26, 26, 1)),
        ((1, 5, 5, 3), 1, (1, 3, 3, 1)),
        ((10, 28, 28, 3), 5, (10, 26, 26, 5)),
        ((1, 5, 5, 3), 5, (1, 3, 3, 5)),
    ],
)
def test_convolutions(images, n_filter, y_shape, convolved, rng, dtype):
    x = rng.uniform(size=images).astype(dtype)
    y, W, B = convolved(x, n_filter)
    assert (W.shape, B.shape, y.shape) == ((3, 3, images[3], n_filter), (n_filter,), y_shape)
    assert_close(y, convolved_by_the_notebook(x.astype(np.float64), W, B), dtype, terms=9 * images[3])


def test_a_model_of_three_convolutions(rng, device):
    """The model of the chapter's last cell, against the functions with its weights."""
    n_neurons = [10, 20, 30]

    class TestModel(xc.models.Model):
        def __init__(self):
            super(TestModel, self).__init__()  # noqa: UP008 - as the notebook writes it

            self.conv1 = Conv2D(filters=n_neurons[0], kernel_size=3, activation="relu")
            self.conv2 = Conv2D(filters=n_neurons[1], kernel_size=3, activation="relu")
            self.conv3 = Conv2D(filters=n_neurons[2], kernel_size=3, activation="relu")

        def call(self, x):
            x = self.conv1(x)
            x = self.conv2(x)
            return self.conv3(x)

    model = TestModel()
    model.to(device)
    x = rng.normal(size=(32, 28, 28, 3)).astype(np.float32)
    predictions = model(x)
    assert predictions.shape == (32, 22, 22, 30)
    weights = model.get_weights()
    for W, B, size in zip(weights[::2], weights[1::2], (26, 24, 22), strict=True):
        x = relu(xc.conv2d(x, W, B, **LAST, device="numpy"))
        assert x.shape == (32, size, size, B.size)
    assert_close(predictions, x, np.float32)


# ----------------------------------------------------------------------------------------------------------------------
# 8: pooling
# ----------------------------------------------------------------------------------------------------------------------


def pooled_by_the_notebook(x, pool_size, stride_size, of_window):
    """The manual cells of the chapter: a value of each window of each channel."""
    _, height, width, channel = x.shape
    output_h = math.floor((height - pool_size) / stride_size + 1)
    output_w = math.floor((width - pool_size) / stride_size + 1)
    result = np.zeros(shape=(1, output_h, output_w, channel))
    for c in range(channel):
        for row, i in enumerate(range(0, height - pool_size + 1, stride_size)):
            for column, j in enumerate(range(0, width - pool_size + 1, stride_size)):
                result[0, row, column, c] = of_window(x[0, i : i + pool_size, j : j + pool_size, c])
    return result


@pytest.mark.parametrize(("channel", "strides", "shape"), [(1, 1, (1, 4, 4, 1)), (3, 2, (1, 2, 2, 3))])
def test_max_pooling(channel, strides, shape, pooled, rng, dtype):
    x = rng.normal(size=(1, 5, 5, channel)).astype(dtype)
    y = pooled("max", x, pool_size=2, strides=strides)
    assert (y.shape, y.dtype) == (shape, dtype)
    np.testing.assert_array_equal(y, pooled_by_the_notebook(x, 2, strides, np.max))


def test_average_pooling(pooled, rng, dtype):
    x = rng.normal(size=(1, 5, 5, 1)).astype(dtype)
    y = pooled("average", x, pool_size=2, strides=1)
    assert_close(y, pooled_by_the_notebook(x.astype(np.float64), 2, 1, np.mean), dtype)


# ----------------------------------------------------------------------------------------------------------------------
# 9: padding and stride
# ----------------------------------------------------------------------------------------------------------------------


def surrounded(images):
    padded = np.zeros((1, 5, 5, 3))
    padded[:, 1:4, 1:4] = images
    return padded


def test_zero_padding(here, rng, dtype):
    images = rng.normal(size=(1, 3, 3, 3)).astype(dtype)
    y = ZeroPadding2D(padding=1, dtype=dtype)(here(images))
    assert y.shape == (1, 5, 5, 3)
    np.testing.assert_array_equal(xc.to_numpy(y), surrounded(images).astype(dtype), strict=True)


def test_zero_padding_before_a_convolution(here, rng):
    images, W = rng.normal(size=(1, 3, 3, 3)), rng.normal(size=(3, 3, 3, 2))
    y = xc.conv2d(here(images), here(W), padding=1, **LAST)
    assert_close(y, convolved_by_the_notebook(surrounded(images), W, np.zeros(2)), np.float64)


def test_same_padding_keeps_the_size(convolved, rng, dtype):
    images = rng.normal(size=(1, 28, 28, 3)).astype(dtype)
    y, W, B = convolved(images, n_filter=1, padding="same")
    assert y.shape == (1, 28, 28, 1)
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    assert_close(y, convolved_by_the_notebook(padded, W, B), dtype, terms=27)


def test_a_stride_of_2_makes_the_image_smaller(convolved, rng, dtype):
    images = rng.normal(size=(1, 28, 28, 3)).astype(dtype)
    y, W, B = convolved(images, n_filter=1, padding="valid", strides=2)
    assert y.shape == (1, 13, 13, 1)
    assert_close(y, convolved_by_the_notebook(images.astype(np.float64), W, B)[:, ::2, ::2], dtype, terms=27)
