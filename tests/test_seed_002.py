"""Seed 002, a notebook on Keras' layers from Dense to pooling: its printed numbers, and its loops against xpconv.

Dense is ``x @ W + b``, :class:`xpconv.scratch.layers.Affine` here. Where a cell has no recorded output, the cell's own
loop is the expectation, on images and weights of ours. Everything is channels_last, Keras' order.
"""

import math

import numpy as np
import pytest
from conftest import assert_close

import xpconv as xc
from xpconv.scratch.functions import cross_entropy_error, relu, sigmoid, softmax, softmax_loss, sum_squared_error
from xpconv.scratch.layers import Affine, SoftmaxWithLoss
from xpconv.scratch.multi_layer_net import MultiLayerNet

LAST = {"data_format": "channels_last"}


def dense(x, W, b):
    return Affine(np.asarray(W, np.float32), np.asarray(b, np.float32)).forward(np.asarray(x, np.float32))


def assert_printed(actual, printed, rtol=1e-6, atol=0.0):
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, printed, rtol=rtol, atol=atol)


# ----------------------------------------------------------------------------------------------------------------------
# 1 to 3: affine transforms, batches, layers
# ----------------------------------------------------------------------------------------------------------------------


def test_a_batch_and_several_neurons():
    x = [[0, 2, 0], [0, 1, 0], [1, 2, 0]]
    W = [
        [2.5851223, 2.7393, 0.8288884, 0.766943],
        [1.8277302, 0.34176064, 0.86527026, 2.2301023],
        [0.7015815, 2.6197593, 2.0963602, 0.47183955],
    ]
    b = [2.8081748, 0.59560454, 1.3720304, 1.5374794]
    assert_printed(
        dense(x, W, b),
        [
            [6.4636354, 1.2791258, 3.102571, 5.997684],
            [4.6359053, 0.9373652, 2.2373006, 3.7675817],
            [9.048758, 4.018426, 3.9314594, 6.764627],
        ],
    )


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


def test_a_dense_layer_with_sigmoid():
    y = sigmoid(dense(X_3, W_3, np.zeros(3)))
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


def test_a_dense_layer_with_sigmoid_in_float64():
    of_its_dot_products = [  # float64, of float32 sums; the last row of the output is cut off
        [0.32650944, 0.61617258, 0.45306734],
        [0.56763829, 0.48465988, 0.41063043],
        [0.68718124, 0.50304253, 0.67808955],
    ]
    y = sigmoid(Affine(W_3, np.zeros(3)).forward(X_3))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y[:3], of_its_dot_products, rtol=1e-7)
    assert y[3, 0] == pytest.approx(0.649798, abs=1e-6)


def test_layers_one_behind_the_other(rng):
    # The notebook's last cell of the chapter: 10 inputs, layers of 3, 4 and 5 neurons, sigmoid behind each.
    net = MultiLayerNet(10, [3, 4, 5], 2, "sigmoid", 1.0, dtype=np.float64, seed=0)
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


def test_logistic_regression():
    x = [
        [0.07885586, 1.2067411, 0.69738185, 1.1121552, 0.17453901],
        [-0.05307293, 0.19124863, -1.4629031, -0.2412481, -0.24293447],
        [-0.07027663, 0.7556984, -1.175209, 0.39808595, 0.9123695],
    ]
    W = [[0.7188616], [-0.02032185], [-0.46848083], [-0.30328465], [-0.66729736]]
    assert_printed(sigmoid(dense(x, W, [0])), [[0.3211884], [0.7065278], [0.43908694]], rtol=5e-7)


def test_a_binary_classifier_its_summary(rng):
    net = MultiLayerNet(5, [10, 5], 1)
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


def test_softmax():
    logits = np.array(
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
    probabilities = softmax(logits)
    assert_printed(probabilities, printed, rtol=2e-6)
    # 0.99999994 is the number before 1 in float32.
    assert_printed(probabilities.sum(axis=1), [0.99999994, 1.0, 0.99999994, 1.0, 1.0], rtol=0, atol=1.2e-7)


def test_softmax_behind_dense_layers_sums_to_1(rng):
    scores = MultiLayerNet(5, [8, 5], 3, seed=0).predict(rng.uniform(-10, 10, size=(8, 5)))
    assert scores.shape == (8, 3)
    np.testing.assert_allclose(softmax(xc.to_numpy(scores)).sum(axis=1), np.ones(8), rtol=5e-7)


# ----------------------------------------------------------------------------------------------------------------------
# 6: losses
# ----------------------------------------------------------------------------------------------------------------------


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


def test_categorical_cross_entropy_is_the_mean_over_the_samples(rng):
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
def test_convolutions(images, n_filter, y_shape, rng, device, dtype):
    x = rng.uniform(size=images).astype(dtype)
    W, B = rng.normal(size=(3, 3, images[3], n_filter)).astype(dtype), rng.normal(size=n_filter).astype(dtype)
    y = xc.to_numpy(xc.conv2d(x, W, B, **LAST, device=device))
    assert y.shape == y_shape
    assert_close(y, convolved_by_the_notebook(x.astype(np.float64), W, B), dtype, terms=9 * images[3])


def test_a_model_of_three_convolutions(rng, device):
    x = rng.normal(size=(32, 28, 28, 3)).astype(np.float32)
    for channels, n_neurons, size in ((3, 10, 26), (10, 20, 24), (20, 30, 22)):
        W = rng.normal(size=(3, 3, channels, n_neurons)).astype(np.float32) / 10
        x = relu(xc.to_numpy(xc.conv2d(x, W, **LAST, device=device)))
        assert x.shape == (32, size, size, n_neurons)


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


@pytest.mark.parametrize(("channel", "stride_size", "shape"), [(1, 1, (1, 4, 4, 1)), (3, 2, (1, 2, 2, 3))])
def test_max_pooling(channel, stride_size, shape, rng, device, dtype):
    x = rng.normal(size=(1, 5, 5, channel)).astype(dtype)
    y = xc.to_numpy(xc.max_pool2d(x, 2, stride=stride_size, **LAST, device=device))
    assert y.shape == shape
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, pooled_by_the_notebook(x, 2, stride_size, np.max))


def test_average_pooling(rng, device, dtype):
    x = rng.normal(size=(1, 5, 5, 1)).astype(dtype)
    y = xc.avg_pool2d(x, 2, stride=1, **LAST, device=device)
    assert_close(y, pooled_by_the_notebook(x.astype(np.float64), 2, 1, np.mean), dtype)


# ----------------------------------------------------------------------------------------------------------------------
# 9: padding and stride
# ----------------------------------------------------------------------------------------------------------------------


def test_zero_padding(rng, device):
    images = rng.normal(size=(1, 3, 3, 3))
    padded = np.zeros((1, 5, 5, 3))
    padded[:, 1:4, 1:4] = images
    W = rng.normal(size=(3, 3, 3, 2))
    y = xc.to_numpy(xc.conv2d(images, W, padding=1, **LAST, device=device))
    assert_close(y, convolved_by_the_notebook(padded, W, np.zeros(2)), np.float64)


def test_same_padding_keeps_the_size(rng, device):
    y = xc.conv2d(rng.normal(size=(1, 28, 28, 3)), rng.normal(size=(3, 3, 3, 1)), padding="same", **LAST, device=device)
    assert y.shape == (1, 28, 28, 1)


def test_a_stride_of_2_makes_the_image_smaller(rng, device):
    images, W = rng.normal(size=(1, 28, 28, 3)), rng.normal(size=(3, 3, 3, 1))
    y = xc.to_numpy(xc.conv2d(images, W, stride=2, padding="valid", **LAST, device=device))
    assert y.shape == (1, 13, 13, 1)
    assert_close(y, convolved_by_the_notebook(images, W, [0])[:, ::2, ::2], np.float64)
