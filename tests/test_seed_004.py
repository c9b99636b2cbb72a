"""Seed 004, a notebook that builds Keras' Conv2D and MaxPool2D by hand: its printed numbers, and its functions as oracles.

Everything is channels_last, Keras' order.
"""

import numpy as np
import pytest
from conftest import assert_close

import xpconv as xc

LAST = {"data_format": "channels_last"}

# In [274]: what the notebook's convolution gave, (1, 3, 3, 2).
FEATURE_MAPS = np.array(
    [
        [
            [[0.89900464, -1.0616233], [-0.10247962, 1.2988867], [-0.8515937, 0.6712394]],
            [[0.9654248, 0.23607667], [-0.43404913, 0.27193436], [-0.5712364, -0.73882663]],
            [[0.6847748, -0.8419535], [0.46285468, 0.7197448], [-1.3353215, 0.47066653]],
        ]
    ],
    np.float32,
)


# ----------------------------------------------------------------------------------------------------------------------
# Convolution
# ----------------------------------------------------------------------------------------------------------------------


def conv2d(kernel, x):
    """In [238]: nine windows, written out."""
    y = np.zeros((3, 3))

    y[0, 0] = np.sum(kernel * x[0:2, 0:2])
    y[0, 1] = np.sum(kernel * x[0:2, 1:3])
    y[0, 2] = np.sum(kernel * x[0:2, 2:4])
    y[1, 0] = np.sum(kernel * x[1:3, 0:2])
    y[1, 1] = np.sum(kernel * x[1:3, 1:3])
    y[1, 2] = np.sum(kernel * x[1:3, 2:4])
    y[2, 0] = np.sum(kernel * x[2:4, 0:2])
    y[2, 1] = np.sum(kernel * x[2:4, 1:3])
    y[2, 2] = np.sum(kernel * x[2:4, 2:4])

    return y


def conv2d_1(kernel, x):
    """In [301]: windows of any image."""
    xm, xn = x.shape
    km, kn = kernel.shape

    y = np.zeros((xm - km + 1, xn - kn + 1))

    ym, yn = y.shape
    for i in range(ym):
        for j in range(yn):
            y[i, j] = np.sum(kernel * x[i : i + km, j : j + kn])

    return y


def convolve(input_image, kernels):
    """In [343]: the sum over the input's channels, for each filter."""
    width, height, input_chans = input_image.shape
    km, kn, _, output_chans = kernels.shape

    width_ = width - km + 1
    height_ = height - kn + 1

    features = np.zeros((width_, height_, output_chans))

    for out_chan in range(output_chans):
        y = np.zeros((width_, height_))
        for in_chan in range(input_chans):
            y += conv2d_1(kernels[:, :, in_chan, out_chan], input_image[:, :, in_chan])

        features[:, :, out_chan] = y

    return features


def test_cells_231_to_237_the_shapes(rng, device):
    input_image = rng.normal(size=(4, 4, 3))
    input_batch = input_image[None, :, :, :]
    kernels = rng.normal(size=(2, 2, 3, 2))
    assert input_batch.shape == (1, 4, 4, 3)
    assert xc.conv2d(input_batch, kernels, **LAST, device=device).shape == (1, 3, 3, 2)
    # The same image without the axis of the batch gives the same maps without it.
    assert xc.conv2d(input_image, kernels, **LAST, device=device).shape == (3, 3, 2)


def test_cells_340_and_341_the_layer_is_the_notebooks_function(rng, device, dtype):
    input_image, kernels = rng.normal(size=(4, 4, 3)).astype(dtype), rng.normal(size=(2, 2, 3, 2)).astype(dtype)
    feature_maps = xc.conv2d(input_image[None], kernels, **LAST, device=device)
    features_ = convolve(input_image.astype(np.float64), kernels.astype(np.float64))[None, :, :, :]
    assert_close(feature_maps, features_, dtype)
    assert np.all(np.isclose(xc.to_numpy(feature_maps), features_))  # the notebook's own check


def test_cell_238_the_nine_windows(rng, device):
    image, kernel = rng.normal(size=(4, 4)), rng.normal(size=(2, 2))
    y = xc.conv2d(image[None, :, :, None], kernel[:, :, None, None], **LAST, device=device)
    assert_close(xc.to_numpy(y)[0, :, :, 0], conv2d(kernel, image), np.float64)


# ----------------------------------------------------------------------------------------------------------------------
# Pooling
# ----------------------------------------------------------------------------------------------------------------------


def pool2D(x, pool_size=(2, 2), strides=(1, 1)):
    """In [532]: windows side by side at stride 1; the argument ``strides`` is unused in the notebook."""
    xm, xn = x.shape
    pm, pn = pool_size

    y = np.zeros((xm - pm + 1, xn - pn + 1))

    ym, yn = y.shape

    for i in range(ym):
        for j in range(yn):
            y[i, j] = np.max(x[i : i + pm, j : j + pn])

    return y


def test_cells_539_and_540_max_pooling(device):
    yy = xc.to_numpy(xc.max_pool2d(FEATURE_MAPS, (2, 2), stride=(2, 2), **LAST, device=device))
    assert f"{FEATURE_MAPS.shape} -> {yy.shape}" == "(1, 3, 3, 2) -> (1, 1, 1, 2)"
    assert yy.dtype == np.float32
    np.testing.assert_array_equal(yy, np.float32([[[[0.9654248, 1.2988867]]]]))


def test_cells_275_and_280_max_pooling_with_stride_1(device):
    yy = xc.to_numpy(xc.max_pool2d(FEATURE_MAPS, 2, stride=1, **LAST, device=device))
    printed = [[[0.9654248, 1.2988867], [-0.10247962, 1.2988867]], [[0.9654248, 0.7197448], [0.46285468, 0.7197448]]]
    np.testing.assert_array_equal(yy, np.float32([printed]))
    np.testing.assert_array_equal(yy[0, :, :, 1], np.float32([[1.2988867, 1.2988867], [0.7197448, 0.7197448]]))
    np.testing.assert_array_equal(
        FEATURE_MAPS[0, :, :, 1],
        np.float32(
            [[-1.0616233, 1.2988867, 0.6712394], [0.23607667, 0.27193436, -0.73882663], [-0.8419535, 0.7197448, 0.47066653]]
        ),
    )


def test_cell_365_where_windows_of_stride_2_start(device):
    falling = np.arange(10.0, 0.0, -1.0).reshape(1, 1, 10, 1)
    _, indices = xc.max_pool2d(falling, (1, 2), return_indices=True, **LAST, device=device)
    assert xc.to_numpy(indices).ravel().tolist() == list(range(0, 10, 2)) == [0, 2, 4, 6, 8]


X_534 = np.array(
    [
        [-1.25540847, 0.30410219, -0.13907104],
        [0.41550751, 0.01748251, -0.22689558],
        [0.41602673, -1.1301399, -0.82329309],
    ]
)


def test_cell_534_pooling_by_hand(device):
    b = xc.to_numpy(xc.max_pool2d(X_534[None, :, :, None], 2, stride=1, **LAST, device=device))[0, :, :, 0]
    np.testing.assert_array_equal(b, [[0.41550751, 0.30410219], [0.41602673, 0.01748251]])
    np.testing.assert_array_equal(b, pool2D(X_534))
    # The first function had stride 2 when the cell ran: its array has room for more windows than there are, left at 0.
    a = [[0.41550751, 0.0], [0.0, 0.0]]
    stride_2 = xc.to_numpy(xc.max_pool2d(X_534[None, :, :, None], 2, **LAST, device=device))
    assert stride_2.shape == (1, 1, 1, 1)
    assert stride_2.item() == a[0][0]


def test_cell_537_pooling_with_stride_3(device):
    # Here too the zeros are room without windows: at stride 3 there is one, and it gives the two numbers.
    printed = np.array([[[0.96542478, 1.29888666], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    y = xc.to_numpy(xc.max_pool2d(FEATURE_MAPS[0], 2, stride=3, **LAST, device=device))
    assert y.shape == (1, 1, 2)
    np.testing.assert_allclose(y[0, 0], printed[0, 0], rtol=1e-8)


@pytest.mark.parametrize("pool_size", [(2, 2), (3, 2), (1, 4)])
def test_cell_532_on_other_images(pool_size, rng, device):
    x = rng.normal(size=(5, 7))
    y = xc.to_numpy(xc.max_pool2d(x[:, :, None], pool_size, stride=1, **LAST, device=device))
    np.testing.assert_array_equal(y[:, :, 0], pool2D(x, pool_size))
