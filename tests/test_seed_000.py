"""Seed 000, a notebook on Keras' Conv2D: its windows, its shapes, and its loops against xpconv.

Every convolution of the notebook is computed twice: by :func:`xpconv.conv2d`, and by the layer, called as the notebook does.
Its images and weights were drawn at random and not printed, so the loops of its cells run here on images and weights of
ours. Everything is channels_last, Keras' order.
"""

import numpy as np
import pytest
from conftest import assert_close

import xpconv as xc
from xpconv.layers import Conv2D

# In [2], the printed image, and In [3], the windows as they were printed.
IMAGE = np.array([[0, 6, 8, 0, 9], [5, 6, 2, 2, 7], [1, 1, 3, 0, 7], [3, 5, 1, 1, 5], [6, 0, 7, 3, 8]])
WINDOWS = [
    [[0, 6, 8], [5, 6, 2], [1, 1, 3]],
    [[6, 8, 0], [6, 2, 2], [1, 3, 0]],
    [[8, 0, 9], [2, 2, 7], [3, 0, 7]],
    [[5, 6, 2], [1, 1, 3], [3, 5, 1]],
    [[6, 2, 2], [1, 3, 0], [5, 1, 1]],
    [[2, 2, 7], [3, 0, 7], [1, 1, 5]],
    [[1, 1, 3], [3, 5, 1], [6, 0, 7]],
    [[1, 3, 0], [5, 1, 1], [0, 7, 3]],
    [[3, 0, 7], [1, 1, 5], [7, 3, 8]],
]


@pytest.fixture(params=["functions", "layers"])
def convolved(request, rng, device, dtype):
    """Convolves with random weights, and gives ``(output, W, B)``."""

    def through_functions(X, filters, kernel_size):
        W = rng.normal(size=(kernel_size, kernel_size, X.shape[3], filters)).astype(dtype)
        B = rng.normal(size=filters).astype(dtype)
        x, w, b = (xc.asarray(array, device=device) for array in (X, W, B))
        return xc.to_numpy(xc.conv2d(x, w, b, data_format="channels_last", device=device)), W, B

    def through_layers(X, filters, kernel_size):
        X = xc.asarray(X, device=device)
        conv_layer = Conv2D(filters=filters, kernel_size=kernel_size, dtype=dtype, device=device)
        conv_layer(X)
        W, B = conv_layer.get_weights()
        np.testing.assert_array_equal(B, np.zeros(filters))
        conv_layer.set_weights([W, rng.normal(size=filters)])  # else it would not matter whether B is added
        return xc.to_numpy(conv_layer(X)), *conv_layer.get_weights()

    return {"functions": through_functions, "layers": through_layers}[request.param]


def test_cell_2_and_3_the_windows_of_the_image(device):
    assert IMAGE.shape == (5, 5)
    image = xc.asarray(IMAGE[None, :, :, None], device=device)
    columns = xc.im2col(image, 3, data_format="channels_last", device=device)
    np.testing.assert_array_equal(xc.to_numpy(columns).reshape(9, 3, 3), WINDOWS)


def test_cell_3_each_window_gives_one_value_of_the_convolution(convolved, dtype):
    output, W, B = convolved(IMAGE[None, :, :, None].astype(dtype), filters=1, kernel_size=3)
    W, B = W.astype(np.float64), B.astype(np.float64)
    expected = np.array([np.sum(np.array(window) * W[:, :, 0, 0]) + B[0] for window in WINDOWS]).reshape(3, 3)
    assert_close(output[0, :, :, 0] / 10, expected / 10, dtype)


def the_notebooks_loops(image, W, B, filters, kernel_size=3):
    """What cells 6, 14, 20 and 24 compute for one image (H, W, C), value by value."""
    img_height, img_width, _ = image.shape
    output = np.zeros(shape=(img_height - kernel_size + 1, img_width - kernel_size + 1, filters))
    for filter in range(filters):
        for i in range(img_height - kernel_size + 1):
            for j in range(img_width - kernel_size + 1):
                current_window = image[i : i + kernel_size, j : j + kernel_size, :]
                output[i, j, filter] = np.sum(current_window * W[:, :, :, filter]) + B[filter]
    return output


@pytest.mark.parametrize(
    ("cells", "image_shape", "filters", "weight_shape", "output_shape", "loops_shape"),
    [
        ("4 and 6: one filter, grey image", (1, 5, 5, 1), 1, (3, 3, 1, 1), (1, 3, 3, 1), (3, 3)),
        ("8 and 14: seven filters, grey image", (1, 5, 5, 1), 7, (3, 3, 1, 7), (1, 3, 3, 7), (3, 3, 7)),
        ("15 and 20: one filter, colour image", (1, 5, 5, 3), 1, (3, 3, 3, 1), (1, 3, 3, 1), (3, 3)),
        ("21 and 24: ten filters, colour image", (1, 5, 5, 3), 10, (3, 3, 3, 10), (1, 3, 3, 10), (3, 3, 10)),
        ("25: ten filters, ten colour images", (10, 5, 5, 3), 10, (3, 3, 3, 10), (10, 3, 3, 10), (10, 3, 3, 10)),
    ],
)
def test_the_convolutions_of_cells(cells, image_shape, filters, weight_shape, output_shape, loops_shape, convolved, rng, dtype):
    X = rng.uniform(0, 10, size=image_shape).astype(dtype)
    output, W, B = convolved(X, filters=filters, kernel_size=3)
    assert (W.shape, B.shape, output.shape) == (weight_shape, (filters,), output_shape)
    expected = np.array([the_notebooks_loops(image, W.astype(np.float64), B.astype(np.float64), filters) for image in X])
    assert expected.squeeze().shape == loops_shape
    assert_close(output / 10, expected / 10, dtype)
