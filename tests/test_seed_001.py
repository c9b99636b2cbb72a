"""Seed 001, a notebook on Keras' MaxPool2D and Conv2D: every printed number, computed by xpconv from the printed inputs.

Every convolution and pooling is computed twice: by the functions, and by the layers, called as the notebook does. Left out
is what a training decided: losses and accuracies. Everything is channels_last, Keras' order.
"""

import re

import numpy as np
import pytest

import xpconv as xc
from xpconv.scratch.functions import relu
from xpconv.scratch.layers import Affine
from xpconv.scratch.multi_layer_net import MultiLayerNet

EPSILON = float(np.finfo(np.float32).eps)


@pytest.fixture(params=["functions", "layers"])
def through(request):
    """What computes."""
    return request.param


@pytest.fixture
def conv(through, device):
    """Convolves float64 images as the notebook's layers do, in float32; gives the output, the image and the weights."""

    def through_functions(x, w, b, activation):
        x, w, b = (xc.asarray(array, device=device) for array in (x, w, b))
        y = xc.to_numpy(xc.conv2d(x, w, b, data_format="channels_last", device=device))
        return relu(y) if activation == "relu" else y

    def through_layers(x, w, b, activation):
        x = xc.asarray(x, device=device)
        dtype = None if w.dtype == np.float32 else w.dtype
        cnv = xc.layers.Conv2D(w.shape[3], w.shape[:2], activation=activation, dtype=dtype, device=device)
        cnv(x)
        cnv.set_weights([w, b])
        return xc.to_numpy(cnv(x))

    def convolve(x, w, b=None, activation=None, dtype=np.float32):
        x, w = np.asarray(x, np.float64), np.asarray(w, dtype)
        b = np.zeros(w.shape[3], dtype) if b is None else np.asarray(b, dtype)
        if through == "layers":
            return through_layers(x, w, b, activation), x, w
        return through_functions(x.astype(dtype), w, b, activation), x, w

    return convolve


@pytest.fixture
def pool(through, device):
    """Takes the maxima of the windows of int64 images."""

    def through_functions(x, pool_size=(2, 2), **options):
        y = xc.max_pool2d(xc.asarray(x, device=device), pool_size, data_format="channels_last", device=device, **options)
        assert y.dtype == np.float32  # what functions make of integers; layers keep them
        return xc.to_numpy(y).astype(np.int64)

    def through_layers(x, **options):
        m = xc.layers.MaxPool2D(**options, device=device)
        return xc.to_numpy(m(xc.asarray(x, device=device)))

    return {"functions": through_functions, "layers": through_layers}[through]


def assert_printed(result, printed):
    """Fail unless a convolution gave the printed numbers, up to what float32 loses in its sums and its eight digits."""
    y, x, w = result
    printed = np.array(printed)
    size_of_sums = xc.to_numpy(xc.conv2d(abs(x), abs(w), data_format="channels_last", device="numpy"))
    assert y.shape == size_of_sums.shape
    assert y.dtype == np.float32
    error = abs(y.reshape(printed.shape) - printed)
    assert (error <= 4 * EPSILON * size_of_sums.reshape(printed.shape)).all(), f"{y} is not {printed}: off by {error}"


def assert_integers(y, printed):
    """Fail unless a pooling gave the printed numbers as the printed dtype, int64."""
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, printed, strict=True)


# ----------------------------------------------------------------------------------------------------------------------
# The two networks: names, sizes and numbers of parameters
# ----------------------------------------------------------------------------------------------------------------------

FIRST_SUMMARY = [
    ["flatten (Flatten)", "(None, 784)", "0"],
    ["dense (Dense)", "(None, 500)", "392500"],
    ["dense_1 (Dense)", "(None, 500)", "250500"],
    ["dense_2 (Dense)", "(None, 500)", "250500"],
    ["dense_3 (Dense)", "(None, 500)", "250500"],
    ["dense_4 (Dense)", "(None, 10)", "5010"],
]
SECOND_SUMMARY = [
    ["conv2d (Conv2D)", "(None, 27, 27, 30)", "150"],
    ["max_pooling2d (MaxPooling2D)", "(None, 13, 13, 30)", "0"],
    ["conv2d_1 (Conv2D)", "(None, 12, 12, 30)", "3630"],
    ["max_pooling2d_1 (MaxPooling2D)", "(None, 6, 6, 30)", "0"],
    ["flatten_1 (Flatten)", "(None, 1080)", "0"],
    ["dense_5 (Dense)", "(None, 10)", "10810"],
]


def the_notebooks_networks(**options):
    net1 = xc.Sequential(**options)
    net1.add(xc.layers.Flatten())
    net1.add(xc.layers.Dense(500, activation="relu"))
    net1.add(xc.layers.Dense(500, activation="relu"))
    net1.add(xc.layers.Dense(500, activation="relu"))
    net1.add(xc.layers.Dense(500, activation="relu"))
    net1.add(xc.layers.Dense(10, activation="softmax"))
    net1.compile(optimizer="adam", loss=xc.losses.categorical_crossentropy, metrics="accuracy")
    net2 = xc.Sequential(**options)
    net2.add(xc.layers.Conv2D(30, (2, 2), activation="relu"))
    net2.add(xc.layers.MaxPool2D())
    net2.add(xc.layers.Conv2D(30, (2, 2), activation="relu"))
    net2.add(xc.layers.MaxPool2D())
    net2.add(xc.layers.Flatten())
    net2.add(xc.layers.Dense(10, activation="softmax"))
    net2.compile(optimizer="adam", loss=xc.losses.categorical_crossentropy, metrics="accuracy")
    return net1, net2


def two_garments():
    """Images and labels in the notebook's dtypes."""
    return np.linspace(0, 255, 2 * 28 * 28).reshape(-1, 28, 28, 1), xc.to_categorical(np.array([9, 0]), 10)


def summary_of(net, capsys):
    """What is printed: the title, the rows, and the lines below."""
    capsys.readouterr()
    net.summary()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in re.split(r"[│|]", line)[1:-1]] for line in lines if re.match(r"[│|]", line)]
    rows = [[name, shape, count.replace(",", "")] for name, shape, count in rows if name != "Layer (type)"]
    return lines[0], rows, dict(re.findall(r"^ ?(.* params): ([\d,]+)", "\n".join(lines), re.MULTILINE))


@pytest.mark.parametrize("is_trained", [False, True], ids=["built", "trained"])
def test_first_and_second_try_their_summaries(is_trained, capsys):
    """The names, shapes and numbers of both tables, and what stands below them."""
    xc.reset_names()
    nets = the_notebooks_networks()
    X, y = two_garments()
    for net in nets:
        if is_trained:
            net.fit(X, y, epochs=5)
            assert "Epoch 5/5" in capsys.readouterr().out
            assert len(net.evaluate(X, y)) == 2
        else:
            net.build((None, 28, 28, 1))
    tables = (('Model: "sequential"', FIRST_SUMMARY, 1_149_010), ('Model: "sequential_1"', SECOND_SUMMARY, 14_590))
    for net, (title, printed, total) in zip(nets, tables, strict=True):
        heading, rows, sums = summary_of(net, capsys)
        assert heading == title
        assert rows == printed
        assert sums["Trainable params"] == f"{total:,}"
        assert sums["Non-trainable params"] == "0"
        assert sum(int(row[2]) for row in rows) == net.count_params() == total
        assert sums["Total params"] == f"{total:,}"
    assert nets[1].count_params() / nets[0].count_params() == 0.012697887746842934


def test_second_try_its_layers_are_taken_apart(device):
    _, net2 = the_notebooks_networks(device=device)
    X, _ = two_garments()
    y = net2(X)
    c1, m1, c2, m2, flttn, dns = net2.layers
    x = xc.asarray(X, device=device)
    shapes = []
    for layer in (c1, m1, c2, m2, flttn, dns):
        x = layer(x)
        shapes.append(x.shape)
    assert shapes == [(2, 27, 27, 30), (2, 13, 13, 30), (2, 12, 12, 30), (2, 6, 6, 30), (2, 1080), (2, 10)]
    np.testing.assert_allclose(xc.to_numpy(x), xc.to_numpy(y), rtol=1e-5, atol=1e-6)


def test_first_try_as_the_books_network():
    net = MultiLayerNet(784, [500, 500, 500, 500], 10)
    sizes = {name: value.size for name, value in net.params.items()}
    per_layer = [sizes[f"W{index}"] + sizes[f"b{index}"] for index in range(1, 6)]
    assert per_layer == [392500, 250500, 250500, 250500, 5010]
    assert sum(per_layer) == 1_149_010
    assert [net.params[f"b{index}"].shape for index in range(1, 6)] == [(500,)] * 4 + [(10,)]
    assert net.predict(np.zeros((3, 28 * 28))).shape == (3, 10)


def test_second_try_by_functions(device):
    x = xc.asarray(np.zeros((2, 28, 28, 1), np.float32), device=device)
    w1, w2 = np.zeros((2, 2, 1, 30), np.float32), np.zeros((2, 2, 30, 30), np.float32)
    b = np.zeros(30, np.float32)
    shapes = []
    for w in (w1, w2):
        w_here, b_here = xc.asarray(w, device=device), xc.asarray(b, device=device)
        x = relu(xc.conv2d(x, w_here, b_here, data_format="channels_last", device=device))
        shapes.append(x.shape)
        x = xc.max_pool2d(x, 2, data_format="channels_last", device=device)
        shapes.append(x.shape)
    dense = Affine(np.zeros((6 * 6 * 30, 10), np.float32), np.zeros(10, np.float32))
    assert shapes == [(2, 27, 27, 30), (2, 13, 13, 30), (2, 12, 12, 30), (2, 6, 6, 30)]
    assert x.reshape(2, -1).shape == (2, 1080)
    assert dense.forward(xc.to_numpy(x)).shape == (2, 10)
    per_layer = [w1.size + b.size, w2.size + b.size, dense.W.size + dense.b.size]
    assert per_layer == [150, 3630, 10810]
    assert sum(per_layer) == 14_590


def test_batches_of_32_make_1875_steps_for_learning_and_313_for_testing(capsys):
    """As the bars of ``fit`` and ``evaluate`` say; on samples of one number, and in one epoch of the notebook's five."""

    class Count(xc.callbacks.Callback):
        learning = testing = 0

        def on_train_batch_end(self, batch, logs=None):
            self.learning += 1

        def on_test_batch_end(self, batch, logs=None):
            self.testing += 1

    net, count = xc.Sequential([xc.layers.Dense(2, activation="softmax")], device="numpy"), Count()
    net.compile(optimizer="adam", loss=xc.losses.categorical_crossentropy, metrics="accuracy")
    X, y = np.zeros((60000, 1)), xc.to_categorical(np.zeros(60000, int), 2)
    net.fit(X, y, callbacks=[count])
    assert "Epoch 1/1  1875/1875" in capsys.readouterr().out
    net.evaluate(X[:10000], y[:10000], callbacks=[count])
    assert "313/313" in capsys.readouterr().out
    assert (count.learning, count.testing) == (1875, 313)


# ----------------------------------------------------------------------------------------------------------------------
# MaxPool2D
# ----------------------------------------------------------------------------------------------------------------------


def test_max_pool_test_1(pool):
    XXX = np.arange(1 * 4 * 4 * 1).reshape(1, 4, 4, 1)
    assert_integers(pool(XXX).reshape(1, 2, 2), [[[5, 7], [13, 15]]])


def test_max_pool_test_2(pool):
    XXX = np.arange(1 * 6 * 6 * 1).reshape(1, 6, 6, 1)
    assert_integers(pool(XXX).reshape(1, 3, 3), [[[7, 9, 11], [19, 21, 23], [31, 33, 35]]])


def test_max_pool_test_3(pool):
    XXX = np.arange(1 * 6 * 6 * 1).reshape(1, 6, 6, 1)
    assert_integers(pool(XXX, pool_size=(3, 3)).reshape(1, 2, 2), [[[14, 17], [32, 35]]])


def test_max_pool_test_4(pool):
    XXX = np.arange(1 * 5 * 5 * 1).reshape(1, 5, 5, 1)
    assert_integers(pool(XXX, pool_size=(2, 2)).reshape(1, 2, 2), [[[6, 8], [16, 18]]])
    same = pool(XXX, pool_size=(2, 2), padding="same")
    assert_integers(same.reshape(1, 3, 3), [[[6, 8, 9], [16, 18, 19], [21, 23, 24]]])


def test_max_pool_test_5(pool):
    XXX = np.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1)
    # The layer is still the one of test 4, with padding="same": for an even size it pads nothing.
    y = pool(XXX, pool_size=(2, 2), padding="same")
    assert_integers(y.reshape(2, 2, 2), [[[5, 7], [13, 15]], [[21, 23], [29, 31]]])


def test_max_pool_test_6(pool):
    XXX = np.arange(1 * 4 * 4 * 3).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(XXX[..., 0], [[[0, 3, 6, 9], [12, 15, 18, 21], [24, 27, 30, 33], [36, 39, 42, 45]]])
    assert_integers(pool(XXX, pool_size=(2, 2), padding="same")[..., 0], [[[15, 21], [39, 45]]])


def test_max_pool_tests_4_to_6_by_one_layer(device):
    """The notebook makes the layer once, and feeds it images of another size, number and number of channels."""
    m = xc.layers.MaxPool2D(pool_size=(2, 2), padding="same", device=device)
    images = [np.arange(np.prod(shape)).reshape(shape) for shape in ((1, 5, 5, 1), (2, 4, 4, 1), (1, 4, 4, 3))]
    test_4, test_5, test_6 = (xc.to_numpy(m(xc.asarray(XXX, device=device))) for XXX in images)
    assert_integers(test_4.reshape(1, 3, 3), [[[6, 8, 9], [16, 18, 19], [21, 23, 24]]])
    assert_integers(test_5.reshape(2, 2, 2), [[[5, 7], [13, 15]], [[21, 23], [29, 31]]])
    assert_integers(test_6[..., 0], [[[15, 21], [39, 45]]])


# ----------------------------------------------------------------------------------------------------------------------
# Conv2D
# ----------------------------------------------------------------------------------------------------------------------

ARANGE_4 = np.arange(1 * 4 * 4 * 1, dtype=np.float64).reshape(1, 4, 4, 1)
ARANGE_5 = np.arange(1 * 5 * 5 * 1, dtype=np.float64).reshape(1, 5, 5, 1)
QUARTERS = np.full((2, 2, 1, 1), 1 / 4)
THREE = np.array([3])


def test_conv_test_1_before_the_weights_were_looked_at(conv):
    printed = np.array(
        [[-2.8128474, -3.2847993, -3.756751], [-4.7006545, -5.172607, -5.6445584], [-6.588462, -7.060414, -7.532366]]
    )
    # These weights were not printed: some that give the first and the last two numbers have to give the six others.
    windows = xc.to_numpy(xc.im2col(ARANGE_4, 2, data_format="channels_last", device="numpy"))
    weights = np.linalg.lstsq(windows[[0, 7, 8]], printed.ravel()[[0, 7, 8]])[0]
    assert_printed(conv(ARANGE_4, weights.reshape(2, 2, 1, 1)), printed)


def test_conv_test_1_with_its_weights(conv):
    weights = np.array([[-0.13014299, -0.23927206], [-0.20175874, -0.6158894]])
    printed = [
        [-4.125754, -5.312817, -6.4998803],
        [-8.874006, -10.0610695, -11.248133],
        [-13.622259, -14.809322, -15.996386],
    ]
    assert_printed(conv(ARANGE_4, weights.reshape(2, 2, 1, 1)), printed)
    by_hand = 0 * -0.13014299 + 1 * -0.23927206 + 4 * -0.20175874 + 5 * -0.6158894 + 0
    assert by_hand == -4.1257540200000005
    exact, _, _ = conv(ARANGE_4, weights.reshape(2, 2, 1, 1), dtype=np.float64)
    assert exact[0, 0, 0, 0] == pytest.approx(by_hand, rel=1e-15)


def test_conv_test_1_with_quarters(conv):
    printed = [[5.5, 6.5, 7.5], [9.5, 10.5, 11.5], [13.5, 14.5, 15.5]]
    y, _, _ = conv(ARANGE_4, QUARTERS, THREE)
    np.testing.assert_array_equal(y.reshape(3, 3), np.float32(printed), strict=True)
    means = np.mean([0, 1, 4, 5]) + 3, np.mean([1, 2, 5, 6]) + 3, np.mean([2, 3, 6, 7]) + 3
    assert means == (5.5, 6.5, 7.5) == tuple(y[0, 0, :, 0])


def test_conv_test_1_the_layer_and_its_weights(device):
    """``get_weights()[0].shape``, and other weights for a layer that has been called."""
    XXX = xc.asarray(ARANGE_4, device=device)
    cnv = xc.layers.Conv2D(1, (2, 2), device=device)
    y = cnv(XXX)
    assert (y.shape, y.dtype) == ((1, 3, 3, 1), np.float32)
    w = np.array([1 / 4, 1 / 4, 1 / 4, 1 / 4], dtype=np.float32).reshape(2, 2, 1, 1)
    b = np.array([3], dtype=np.float32)
    assert cnv.get_weights()[0].shape == (2, 2, 1, 1)
    cnv.set_weights([w, b])
    printed = [[[5.5, 6.5, 7.5], [9.5, 10.5, 11.5], [13.5, 14.5, 15.5]]]
    np.testing.assert_array_equal(xc.to_numpy(cnv(XXX)).reshape(1, 3, 3), np.float32(printed), strict=True)


WEIGHTS_2 = np.array(
    [
        [-0.08676198, -0.1595147, -0.13450584],
        [-0.4105929, -0.38366908, 0.07744962],
        [-0.09255642, 0.4915564, 0.20828158],
    ]
)


def test_conv_test_2(conv):
    printed = [
        [2.7395768, 2.2492635, 1.7589504],
        [0.28801066, -0.20230258, -0.6926158],
        [-2.1635566, -2.6538715, -3.1441827],
    ]
    assert_printed(conv(ARANGE_5, WEIGHTS_2.reshape(3, 3, 1, 1)), printed)
    # The notebook's float64 sum of the window at the corner, with the weights in float32.
    w = WEIGHTS_2.astype(np.float32).reshape(3, 3, 1, 1)
    exact, _, _ = conv(ARANGE_5, w, dtype=np.float64)
    assert exact[0, 0, 0, 0] == pytest.approx(2.739577144384384, rel=1e-14)


def test_conv_test_2_the_corner_by_the_layers_weights(device):
    XXX = ARANGE_5
    cnv = xc.layers.Conv2D(1, (3, 3), device=device)
    cnv(xc.asarray(XXX, device=device))
    cnv.set_weights([WEIGHTS_2.reshape(3, 3, 1, 1), [0]])
    weights = xc.to_numpy(cnv.weights[0])
    np.testing.assert_array_equal(weights.reshape(3, 3), WEIGHTS_2.astype(np.float32), strict=True)
    corner = np.sum(XXX.reshape(1, 5, 5)[0, :3, :3] * weights.reshape(3, 3))
    assert corner == pytest.approx(2.739577144384384, rel=1e-14)


IMAGE_3 = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]], np.float64).reshape(
    1, 5, 5, 1
)
EDGES_3 = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]], np.float64).reshape(3, 3, 1, 1)


def test_conv_test_3(conv):
    weights = [
        [-0.3444655, 0.4521824, 0.236296],
        [0.54707503, 0.19746327, 0.20471048],
        [-0.1245549, -0.25237298, -0.4904977],
    ]
    printed = [
        [-0.6065799, -0.69143724, -1.1179221],
        [2.2352955, 1.5314975, 1.8658445],
        [0.7364182, 1.4419123, 1.2381717],
    ]
    assert_printed(conv(IMAGE_3, np.reshape(weights, (3, 3, 1, 1))), printed)
    y, _, _ = conv(IMAGE_3, EDGES_3, [0])
    np.testing.assert_array_equal(y.reshape(3, 3), np.float32([[12, 12, 17], [10, 17, 19], [9, 6, 14]]), strict=True)


def test_conv_test_3_weights_before_and_after_the_first_call(device):
    """``[]``, then a kernel (3, 3, 1, 1) of float32, which float64 weights are put into."""
    cnv = xc.layers.Conv2D(1, (3, 3), device=device)
    assert cnv.weights == []
    XXX = xc.asarray(IMAGE_3, device=device)
    assert cnv(XXX).reshape(1, 3, 3).dtype == np.float32
    assert (cnv.weights[0].shape, cnv.weights[0].dtype) == ((3, 3, 1, 1), np.float32)
    cnv.set_weights([EDGES_3, np.zeros(1)])
    y = xc.to_numpy(cnv(XXX)).reshape(1, 3, 3)
    np.testing.assert_array_equal(y, np.float32([[[12, 12, 17], [10, 17, 19], [9, 6, 14]]]), strict=True)


def test_conv_test_4(conv):
    XXX = np.arange(2 * 5 * 5 * 1, dtype=np.float64).reshape(2, 5, 5, 1)
    printed = [
        [[6, 7, 8, 9], [11, 12, 13, 14], [16, 17, 18, 19], [21, 22, 23, 24]],
        [[31, 32, 33, 34], [36, 37, 38, 39], [41, 42, 43, 44], [46, 47, 48, 49]],
    ]
    y, _, _ = conv(XXX, QUARTERS, THREE)
    np.testing.assert_array_equal(y.reshape(2, 4, 4), np.float32(printed), strict=True)
    assert (np.mean([0, 1, 5, 6]) + 3, np.mean([25, 26, 30, 31]) + 3) == (6.0, 31.0) == tuple(y[:, 0, 0, 0])


WEIGHTS_5 = np.array(
    [
        [
            [[-0.08230966, -0.15132892, -0.12760344, -0.38952267]],
            [[-0.36398047, 0.07347518, -0.08780673, 0.46633136]],
        ],
        [
            [[0.19759327, -0.46042526, -0.15406173, -0.34838456]],
            [[0.33916563, -0.08248386, 0.11705655, -0.49948823]],
        ],
    ],
    np.float32,
)


def test_conv_test_5_with_relu(conv):
    XXX = np.arange(1 * 2 * 2 * 1, dtype=np.float64).reshape(1, 2, 2, 1)
    before, _, _ = conv(XXX, WEIGHTS_5)
    assert (before[..., 1:] < 0).all()
    assert_printed(conv(XXX, WEIGHTS_5, activation="relu"), [[[[1.048703, 0, 0, 0]]]])
    exact, _, _ = conv(XXX, WEIGHTS_5[..., :1], dtype=np.float64)
    assert exact.item() == pytest.approx(1.0487029552459717, rel=1e-15)


def test_conv_test_5_of_ones_gives_the_sums_of_the_weights(conv):
    XXX = np.array([1] * 1 * 2 * 2 * 1, dtype=np.float64).reshape(1, 2, 2, 1)
    assert_printed(conv(XXX, WEIGHTS_5), [[[[0.09046876, -0.6207628, -0.25241536, -0.7710641]]]])
    assert_printed(conv(XXX, WEIGHTS_5[..., :1]), [0.090468764])


def test_conv_test_5_the_weights_of_one_channel(device):
    """``cnv.weights[0][..., 0]``, what the first channel of the output is made with."""
    XXX = np.arange(1 * 2 * 2 * 1, dtype=np.float64).reshape(1, 2, 2, 1)
    cnv = xc.layers.Conv2D(4, (2, 2), activation="relu", device=device)
    cnv(xc.asarray(XXX, device=device))
    cnv.set_weights([WEIGHTS_5, np.zeros(4)])
    assert (cnv.weights[0].shape, cnv.weights[0].dtype) == ((2, 2, 1, 4), np.float32)
    first = xc.to_numpy(cnv.weights[0][..., 0].reshape(2, 2))
    np.testing.assert_array_equal(first, np.float32([[-0.08230966, -0.36398047], [0.19759327, 0.33916563]]), strict=True)
    assert np.sum(XXX.reshape(1, 2, 2) * first) == pytest.approx(1.0487029552459717, rel=1e-15)
    assert np.sum(first) == pytest.approx(0.090468764, rel=EPSILON)


WEIGHTS_6 = np.array(
    [
        [
            [
                [-0.06956434, -0.12789628, -0.10784459, -0.32920673],
                [-0.30761963, 0.06209785, -0.07421023, 0.3941219],
                [0.16699678, -0.38913035, -0.13020593, -0.29443866],
            ],
            [
                [0.28664726, -0.0697116, 0.09893084, -0.4221446],
                [-0.23161241, -0.16410837, -0.36420006, 0.12424195],
                [-0.14245945, 0.36286396, -0.10751781, 0.1733647],
            ],
        ],
        [
            [
                [0.02764335, 0.15547717, -0.42024496, -0.31893867],
                [0.22414821, 0.3619454, -0.00282967, -0.3503708],
                [0.4610079, -0.17417148, 0.00401336, -0.29777044],
            ],
            [
                [-0.1620284, -0.42066965, -0.01578814, -0.4240524],
                [0.37925082, 0.24236053, 0.3949356, -0.20996472],
                [-0.30264795, -0.28889188, -0.3237777, 0.37506342],
            ],
        ],
    ],
    np.float32,
)


def test_conv_test_6_of_a_colour_image(conv):
    XXX = np.array([1] * 1 * 2 * 2 * 3, dtype=np.float64).reshape(1, 2, 2, 3)
    assert_printed(conv(XXX, WEIGHTS_6), [[[[0.3297621, -0.4498347, -1.0487393, -1.580095]]]])
    for channel, printed in enumerate([0.32976213, -0.44983464, -1.0487392, -1.5800952]):
        assert_printed(conv(XXX, WEIGHTS_6[..., channel : channel + 1]), [printed])
    # The notebook's float64 sum over red, green and blue. Of weights below 0.1 too only eight decimals were printed.
    red, green, blue = (conv(XXX[..., c : c + 1], WEIGHTS_6[:, :, c : c + 1, :1], dtype=np.float64)[0] for c in range(3))
    assert (red + green + blue).item() == pytest.approx(0.32976213097572327, abs=1e-8)


def test_conv_test_6_the_weights_of_one_channel(device):
    """The sums of ``cnv.weights[0][..., channel]``, and the first one's three colours."""
    XXX = np.array([1] * 1 * 2 * 2 * 3, dtype=np.float64).reshape(1, 2, 2, 3)
    cnv = xc.layers.Conv2D(4, (2, 2), device=device)
    cnv(xc.asarray(XXX, device=device))
    cnv.set_weights([WEIGHTS_6, np.zeros(4)])
    assert (cnv.weights[0].shape, cnv.weights[0].dtype) == ((2, 2, 3, 4), np.float32)
    weights = xc.to_numpy(cnv.weights[0])
    printed = [
        [[-0.06956434, -0.30761963, 0.16699678], [0.28664726, -0.23161241, -0.14245945]],
        [[0.02764335, 0.22414821, 0.4610079], [-0.1620284, 0.37925082, -0.30264795]],
    ]
    np.testing.assert_array_equal(weights[..., 0], np.float32(printed), strict=True)
    for channel, total in enumerate([0.32976213, -0.44983464, -1.0487392, -1.5800952]):
        allowed = 2 * EPSILON * float(np.sum(abs(weights[..., channel])))
        assert np.sum(weights[..., channel]) == pytest.approx(total, rel=0, abs=allowed)
    w_red, w_green, w_blue = (weights[..., 0][..., colour] for colour in range(3))
    total = np.sum(XXX[..., 0] * w_red + XXX[..., 1] * w_green + XXX[..., 2] * w_blue)
    assert total == pytest.approx(0.32976213097572327, abs=1e-8)


IMAGE_OF_THE_HOMEWORK = np.array([[0, 0, 0, 1, 1, 1]] * 6, np.float64).reshape(1, 6, 6, 1)
EDGE = np.array([[-1, 1], [-1, 1]], np.float64).reshape(2, 2, 1, 1)


def test_homework(conv):
    weights = np.reshape([-0.51669824, 0.6782736, 0.3544441, 0.8206125], (2, 2, 1, 1))
    assert_printed(conv(IMAGE_OF_THE_HOMEWORK, weights), [[0, 0, 1.4988861, 1.336632, 1.336632]] * 5)
    y, _, _ = conv(IMAGE_OF_THE_HOMEWORK, EDGE, [0])
    np.testing.assert_array_equal(y.reshape(5, 5), np.float32([[0, 0, 2, 0, 0]] * 5), strict=True)


def test_homework_the_weights_that_were_set(device):
    XXX = xc.asarray(IMAGE_OF_THE_HOMEWORK, device=device)
    cnv = xc.layers.Conv2D(1, (2, 2), device=device)
    cnv(XXX)
    cnv.set_weights([EDGE, np.zeros(1)])
    kernel, bias = (xc.to_numpy(weight) for weight in cnv.weights)
    np.testing.assert_array_equal(kernel, np.float32([[[[-1]], [[1]]], [[[-1]], [[1]]]]), strict=True)
    np.testing.assert_array_equal(bias, np.float32([0]), strict=True)
    y = xc.to_numpy(cnv(XXX)).reshape(1, 5, 5)
    np.testing.assert_array_equal(y, np.float32([[[0, 0, 2, 0, 0]] * 5]), strict=True)


def test_conv_tests_3_to_6_and_homework_the_names_that_are_printed():
    """``conv2d_6`` to ``conv2d_11``. Six come before: two of the network, three of tests 1 and 2, one of a cell run again."""
    xc.reset_names()
    the_notebooks_networks()
    for kernel_size in ((2, 2), (2, 2), (3, 3), (3, 3)):
        xc.layers.Conv2D(1, kernel_size)
    test_3, test_4 = xc.layers.Conv2D(1, (3, 3)), xc.layers.Conv2D(1, (2, 2))
    test_5, test_5_of_ones = xc.layers.Conv2D(4, (2, 2), activation="relu"), xc.layers.Conv2D(4, (2, 2))
    test_6, homework = xc.layers.Conv2D(4, (2, 2)), xc.layers.Conv2D(1, (2, 2))
    names = [layer.name for layer in (test_3, test_4, test_5, test_5_of_ones, test_6, homework)]
    assert names == ["conv2d_6", "conv2d_7", "conv2d_8", "conv2d_9", "conv2d_10", "conv2d_11"]
