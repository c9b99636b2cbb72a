"""Seed 001, a notebook on Keras' MaxPool2D and Conv2D: every printed number, computed by xpconv from the printed inputs.

Left out is what a training decided: losses and accuracies. Everything is channels_last, Keras' order.
"""

import numpy as np
import pytest

import xpconv as xc
from xpconv import training
from xpconv.scratch.functions import relu
from xpconv.scratch.layers import Affine
from xpconv.scratch.multi_layer_net import MultiLayerNet

EPSILON = np.finfo(np.float32).eps


def conv(x, w, b=None, device=None):
    """What the notebook's layers do: in float32, whatever the dtype of the image."""
    w = np.asarray(w, np.float32)
    b = np.zeros(w.shape[-1], np.float32) if b is None else np.asarray(b, np.float32)
    x = np.asarray(x, np.float32)
    return xc.to_numpy(xc.conv2d(x, w, b, data_format="channels_last", device=device)), x, w


def assert_printed(result, printed):
    """Fail unless a convolution gave the printed numbers, up to what float32 loses in its sums and its eight digits."""
    y, x, w = result
    printed = np.array(printed)
    size_of_sums = xc.to_numpy(xc.conv2d(abs(x), abs(w), data_format="channels_last"))
    assert y.shape == size_of_sums.shape
    assert y.dtype == np.float32
    error = abs(y.reshape(printed.shape) - printed)
    assert (error <= 4 * EPSILON * size_of_sums.reshape(printed.shape)).all(), f"{y} is not {printed}: off by {error}"


def pool(x, pool_size=2, device=None, **options):
    return xc.to_numpy(xc.max_pool2d(x, pool_size, data_format="channels_last", device=device, **options))


# ----------------------------------------------------------------------------------------------------------------------
# The two networks: sizes and numbers of parameters
# ----------------------------------------------------------------------------------------------------------------------


def test_first_try_its_summary():
    net = MultiLayerNet(784, [500, 500, 500, 500], 10)
    sizes = {name: value.size for name, value in net.params.items()}
    per_layer = [sizes[f"W{index}"] + sizes[f"b{index}"] for index in range(1, 6)]
    assert per_layer == [392500, 250500, 250500, 250500, 5010]
    assert sum(per_layer) == 1_149_010
    assert [net.params[f"b{index}"].shape for index in range(1, 6)] == [(500,)] * 4 + [(10,)]
    assert net.predict(np.zeros((3, 28 * 28))).shape == (3, 10)


def test_second_try_its_summary(device):
    x = np.zeros((2, 28, 28, 1), np.float32)
    w1, w2 = np.zeros((2, 2, 1, 30), np.float32), np.zeros((2, 2, 30, 30), np.float32)
    b = np.zeros(30, np.float32)
    shapes = []
    for w in (w1, w2):
        x = relu(xc.to_numpy(xc.conv2d(x, w, b, data_format="channels_last", device=device)))
        shapes.append(x.shape)
        x = pool(x, device=device)
        shapes.append(x.shape)
    dense = Affine(np.zeros((6 * 6 * 30, 10), np.float32), np.zeros(10, np.float32))
    assert shapes == [(2, 27, 27, 30), (2, 13, 13, 30), (2, 12, 12, 30), (2, 6, 6, 30)]
    assert x.reshape(2, -1).shape == (2, 1080)
    assert dense.forward(x).shape == (2, 10)
    per_layer = [w1.size + b.size, w2.size + b.size, dense.W.size + dense.b.size]
    assert per_layer == [150, 3630, 10810]
    assert sum(per_layer) == 14_590
    assert sum(per_layer) / 1149010 == 0.012697887746842934


def test_batches_of_32_make_1875_steps_for_learning_and_313_for_testing():
    net = MultiLayerNet(1, [], 10)
    for images, steps in ((60000, 1875), (10000, 313)):
        x, t = np.zeros((images, 1), np.float32), np.zeros(images, int)
        assert training.Trainer(net, (x, t), batch_size=32, progress=False).steps_per_epoch == steps


# ----------------------------------------------------------------------------------------------------------------------
# MaxPool2D
# ----------------------------------------------------------------------------------------------------------------------


def test_max_pool_test_1(device):
    x = np.arange(1 * 4 * 4 * 1).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(pool(x, device=device).reshape(1, 2, 2), [[[5, 7], [13, 15]]])


def test_max_pool_test_2(device):
    x = np.arange(1 * 6 * 6 * 1).reshape(1, 6, 6, 1)
    expected = [[[7, 9, 11], [19, 21, 23], [31, 33, 35]]]
    np.testing.assert_array_equal(pool(x, device=device).reshape(1, 3, 3), expected)


def test_max_pool_test_3(device):
    x = np.arange(1 * 6 * 6 * 1).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(pool(x, (3, 3), device=device).reshape(1, 2, 2), [[[14, 17], [32, 35]]])


def test_max_pool_test_4(device):
    x = np.arange(1 * 5 * 5 * 1).reshape(1, 5, 5, 1)
    np.testing.assert_array_equal(pool(x, (2, 2), device=device).reshape(1, 2, 2), [[[6, 8], [16, 18]]])
    same = pool(x, (2, 2), padding="same", device=device)
    np.testing.assert_array_equal(same.reshape(1, 3, 3), [[[6, 8, 9], [16, 18, 19], [21, 23, 24]]])


def test_max_pool_test_5(device):
    x = np.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1)
    # The layer is still the one of test 4, with padding="same": for an even size it pads nothing.
    y = pool(x, (2, 2), padding="same", device=device)
    np.testing.assert_array_equal(y.reshape(2, 2, 2), [[[5, 7], [13, 15]], [[21, 23], [29, 31]]])


def test_max_pool_test_6(device):
    x = np.arange(1 * 4 * 4 * 3).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(x[..., 0], [[[0, 3, 6, 9], [12, 15, 18, 21], [24, 27, 30, 33], [36, 39, 42, 45]]])
    np.testing.assert_array_equal(pool(x, (2, 2), padding="same", device=device)[..., 0], [[[15, 21], [39, 45]]])


# ----------------------------------------------------------------------------------------------------------------------
# Conv2D
# ----------------------------------------------------------------------------------------------------------------------

ARANGE_4 = np.arange(1 * 4 * 4 * 1, dtype=np.float64).reshape(1, 4, 4, 1)
ARANGE_5 = np.arange(1 * 5 * 5 * 1, dtype=np.float64).reshape(1, 5, 5, 1)
QUARTERS = np.full((2, 2, 1, 1), 1 / 4)
THREE = np.array([3])


def test_conv_test_1_before_the_weights_were_looked_at(device):
    printed = np.array(
        [[-2.8128474, -3.2847993, -3.756751], [-4.7006545, -5.172607, -5.6445584], [-6.588462, -7.060414, -7.532366]]
    )
    # These weights were not printed: some that give the first and the last two numbers have to give the six others.
    windows = xc.to_numpy(xc.im2col(ARANGE_4, 2, data_format="channels_last"))
    weights = np.linalg.lstsq(windows[[0, 7, 8]], printed.ravel()[[0, 7, 8]])[0]
    assert_printed(conv(ARANGE_4, weights.reshape(2, 2, 1, 1), device=device), printed)


def test_conv_test_1_with_its_weights(device):
    weights = np.array([[-0.13014299, -0.23927206], [-0.20175874, -0.6158894]])
    printed = [
        [-4.125754, -5.312817, -6.4998803],
        [-8.874006, -10.0610695, -11.248133],
        [-13.622259, -14.809322, -15.996386],
    ]
    assert_printed(conv(ARANGE_4, weights.reshape(2, 2, 1, 1), device=device), printed)
    by_hand = 0 * -0.13014299 + 1 * -0.23927206 + 4 * -0.20175874 + 5 * -0.6158894 + 0
    assert by_hand == -4.1257540200000005
    exact = xc.conv2d(ARANGE_4, weights.reshape(2, 2, 1, 1), data_format="channels_last", device=device)
    assert xc.to_numpy(exact)[0, 0, 0, 0] == pytest.approx(by_hand, rel=1e-15)


def test_conv_test_1_with_quarters(device):
    printed = [[5.5, 6.5, 7.5], [9.5, 10.5, 11.5], [13.5, 14.5, 15.5]]
    y = conv(ARANGE_4, QUARTERS, THREE, device)[0]
    np.testing.assert_array_equal(y.reshape(3, 3), printed)
    means = np.mean([0, 1, 4, 5]) + 3, np.mean([1, 2, 5, 6]) + 3, np.mean([2, 3, 6, 7]) + 3
    assert means == (5.5, 6.5, 7.5) == tuple(y[0, 0, :, 0])


WEIGHTS_2 = np.array(
    [
        [-0.08676198, -0.1595147, -0.13450584],
        [-0.4105929, -0.38366908, 0.07744962],
        [-0.09255642, 0.4915564, 0.20828158],
    ]
)


def test_conv_test_2(device):
    printed = [
        [2.7395768, 2.2492635, 1.7589504],
        [0.28801066, -0.20230258, -0.6926158],
        [-2.1635566, -2.6538715, -3.1441827],
    ]
    assert_printed(conv(ARANGE_5, WEIGHTS_2.reshape(3, 3, 1, 1), device=device), printed)
    # The notebook's float64 sum of the window at the corner, with the weights in float32.
    w = WEIGHTS_2.astype(np.float32).astype(np.float64).reshape(3, 3, 1, 1)
    exact = xc.conv2d(ARANGE_5, w, data_format="channels_last", device=device)
    assert xc.to_numpy(exact)[0, 0, 0, 0] == pytest.approx(2.739577144384384, rel=1e-14)


IMAGE_3 = np.array([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]], np.float64).reshape(
    1, 5, 5, 1
)


def test_conv_test_3(device):
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
    assert_printed(conv(IMAGE_3, np.reshape(weights, (3, 3, 1, 1)), device=device), printed)
    w = np.array([[0, 1, 2], [2, 2, 0], [0, 1, 2]]).reshape(3, 3, 1, 1)
    printed = [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
    np.testing.assert_array_equal(conv(IMAGE_3, w, [0], device)[0].reshape(3, 3), printed)


def test_conv_test_4(device):
    x = np.arange(2 * 5 * 5 * 1, dtype=np.float64).reshape(2, 5, 5, 1)
    printed = [
        [[6, 7, 8, 9], [11, 12, 13, 14], [16, 17, 18, 19], [21, 22, 23, 24]],
        [[31, 32, 33, 34], [36, 37, 38, 39], [41, 42, 43, 44], [46, 47, 48, 49]],
    ]
    y = conv(x, QUARTERS, THREE, device)[0].reshape(2, 4, 4)
    np.testing.assert_array_equal(y, printed)
    assert (np.mean([0, 1, 5, 6]) + 3, np.mean([25, 26, 30, 31]) + 3) == (6.0, 31.0) == tuple(y[:, 0, 0])


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


def test_conv_test_5_with_relu(device):
    x = np.arange(1 * 2 * 2 * 1, dtype=np.float64).reshape(1, 2, 2, 1)
    y, x, w = conv(x, WEIGHTS_5, device=device)
    assert (y[..., 1:] < 0).all()
    assert_printed((relu(y), x, w), [[[[1.048703, 0, 0, 0]]]])
    exact = xc.conv2d(x.astype(np.float64), WEIGHTS_5[..., :1].astype(np.float64), data_format="channels_last", device=device)
    assert xc.to_numpy(exact).item() == pytest.approx(1.0487029552459717, rel=1e-15)


def test_conv_test_5_of_ones_gives_the_sums_of_the_weights(device):
    result = conv(np.ones((1, 2, 2, 1)), WEIGHTS_5, device=device)
    assert_printed(result, [[[[0.09046876, -0.6207628, -0.25241536, -0.7710641]]]])
    assert_printed(conv(np.ones((1, 2, 2, 1)), WEIGHTS_5[..., :1], device=device), [0.090468764])
    np.testing.assert_array_equal(
        WEIGHTS_5[..., 0].reshape(2, 2), np.float32([[-0.08230966, -0.36398047], [0.19759327, 0.33916563]])
    )


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


def test_conv_test_6_of_a_colour_image(device):
    x = np.ones((1, 2, 2, 3))
    assert_printed(conv(x, WEIGHTS_6, device=device), [[[[0.3297621, -0.4498347, -1.0487393, -1.580095]]]])
    for channel, printed in enumerate([0.32976213, -0.44983464, -1.0487392, -1.5800952]):
        assert_printed(conv(x, WEIGHTS_6[..., channel : channel + 1], device=device), [printed])
    # The notebook's float64 sum over red, green and blue. Of weights below 0.1 too only eight decimals were printed.
    w = WEIGHTS_6[..., :1].astype(np.float64)
    red, green, blue = (
        xc.conv2d(x[..., c : c + 1], w[:, :, c : c + 1], data_format="channels_last", device=device) for c in range(3)
    )
    assert xc.to_numpy(red + green + blue).item() == pytest.approx(0.32976213097572327, abs=1e-8)


IMAGE_OF_THE_HOMEWORK = np.array([[0, 0, 0, 1, 1, 1]] * 6, np.float64).reshape(1, 6, 6, 1)


def test_homework(device):
    weights = np.reshape([-0.51669824, 0.6782736, 0.3544441, 0.8206125], (2, 2, 1, 1))
    assert_printed(conv(IMAGE_OF_THE_HOMEWORK, weights, device=device), [[0, 0, 1.4988861, 1.336632, 1.336632]] * 5)
    edge = np.array([[-1, 1], [-1, 1]]).reshape(2, 2, 1, 1)
    y = conv(IMAGE_OF_THE_HOMEWORK, edge, [0], device)[0]
    np.testing.assert_array_equal(y.reshape(5, 5), [[0, 0, 2, 0, 0]] * 5)
