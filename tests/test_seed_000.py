"""Seed 000, a notebook on Keras' Conv2D: its windows, its shapes, and its loops against :func:`xpconv.conv2d`.

Its images and weights were drawn at random and not printed, so the loops of its cells run here on images and weights of
ours. Everything is channels_last, Keras' order.
"""

import numpy as np
import pytest
from conftest import assert_close

import xpconv as xc

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


def test_cell_2_and_3_the_windows_of_the_image(device):
    assert IMAGE.shape == (5, 5)
    columns = xc.im2col(IMAGE[None, :, :, None], 3, data_format="channels_last", device=device)
    np.testing.assert_array_equal(xc.to_numpy(columns).reshape(9, 3, 3), WINDOWS)


def test_cell_3_each_window_gives_one_value_of_the_convolution(device):
    weight = np.arange(1.0, 10.0).reshape(3, 3)
    expected = np.array([np.sum(np.array(window) * weight) for window in WINDOWS]).reshape(3, 3)
    y = xc.conv2d(IMAGE[None, :, :, None], weight[:, :, None, None], data_format="channels_last", device=device)
    np.testing.assert_array_equal(xc.to_numpy(y)[0, :, :, 0], expected)


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
    ("cells", "image_shape", "filters", "weight_shape", "output_shape"),
    [
        ("4 and 6: one filter, grey image", (1, 5, 5, 1), 1, (3, 3, 1, 1), (1, 3, 3, 1)),
        ("8 and 14: seven filters, grey image", (1, 5, 5, 1), 7, (3, 3, 1, 7), (1, 3, 3, 7)),
        ("15 and 20: one filter, colour image", (1, 5, 5, 3), 1, (3, 3, 3, 1), (1, 3, 3, 1)),
        ("21 and 24: ten filters, colour image", (1, 5, 5, 3), 10, (3, 3, 3, 10), (1, 3, 3, 10)),
        ("25: ten filters, ten colour images", (10, 5, 5, 3), 10, (3, 3, 3, 10), (10, 3, 3, 10)),
    ],
)
def test_the_convolutions_of_cells(cells, image_shape, filters, weight_shape, output_shape, rng, device, dtype):
    x = rng.uniform(0, 10, size=image_shape).astype(dtype)
    W, B = rng.normal(size=weight_shape).astype(dtype), rng.normal(size=filters).astype(dtype)
    output = xc.to_numpy(xc.conv2d(x, W, B, data_format="channels_last", device=device))
    assert output.shape == output_shape
    expected = [the_notebooks_loops(image, W.astype(np.float64), B.astype(np.float64), filters) for image in x]
    assert_close(output / 10, np.array(expected) / 10, dtype)
