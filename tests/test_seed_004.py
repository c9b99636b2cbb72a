"""Seed 004, a notebook that builds Keras' Conv2D and MaxPool2D by hand: its printed numbers, and its functions as oracles.

Its convolutions and poolings are computed twice: by the functions, and by the layers, called as the notebook does.
Everything is channels_last, Keras' order.
"""

import numpy as np
import pytest
from conftest import assert_close

import xpconv as xc
from xpconv.layers import Conv2D, MaxPool2D

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


@pytest.fixture(params=["functions", "layers"])
def through(request):
    """What computes."""
    return request.param


@pytest.fixture
def convolved(through, rng, device):
    """Convolves with random kernels, and gives ``(feature_maps, kernels)``."""

    def through_functions(input_batch, filters, dtype):
        kernels = rng.normal(size=(2, 2, input_batch.shape[-1], filters)).astype(dtype)
        x, w = xc.asarray(input_batch, device=device), xc.asarray(kernels, device=device)
        return xc.to_numpy(xc.conv2d(x, w, **LAST, device=device)), kernels

    def through_layers(input_batch, filters, dtype):
        conv_layer = Conv2D(filters=filters, kernel_size=(2, 2), use_bias=False, dtype=dtype, device=device)
        feature_maps = conv_layer(xc.asarray(input_batch, device=device))
        (kernels,) = conv_layer.get_weights()
        return xc.to_numpy(feature_maps), kernels

    return {"functions": through_functions, "layers": through_layers}[through]


@pytest.fixture
def pooled(through, device):
    """Takes the maxima of the windows of a batch."""

    def through_functions(x, pool_size=(2, 2), strides=None):
        return xc.to_numpy(xc.max_pool2d(xc.asarray(x, device=device), pool_size, stride=strides, **LAST, device=device))

    def through_layers(x, pool_size=(2, 2), strides=None):
        pooling_layer = MaxPool2D(pool_size=pool_size, strides=strides, dtype=x.dtype, device=device)
        return xc.to_numpy(pooling_layer(xc.asarray(x, device=device)))

    return {"functions": through_functions, "layers": through_layers}[through]


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


def test_cells_231_to_237_and_304_the_shapes(convolved, rng):
    input_image = rng.normal(size=(4, 4, 3))
    input_batch = input_image[None, :, :, :]
    feature_maps, kernels = convolved(input_batch, filters=2, dtype=np.float64)
    assert input_batch.shape == (1, 4, 4, 3)
    assert feature_maps.shape == (1, 3, 3, 2)
    assert f"w shape = {kernels.shape}" == "w shape = (2, 2, 3, 2)"


def test_cell_233_without_the_axis_of_the_batch_the_maps_are_the_same(rng, device):
    """A layer takes batches only, as the notebook says; the function takes an image, too."""
    input_image, kernels = (xc.asarray(rng.normal(size=shape), device=device) for shape in ((4, 4, 3), (2, 2, 3, 2)))
    feature_maps = xc.conv2d(input_image[None, :, :, :], kernels, **LAST, device=device)
    np.testing.assert_array_equal(
        xc.to_numpy(xc.conv2d(input_image, kernels, **LAST, device=device)), xc.to_numpy(feature_maps)[0]
    )
    conv_layer = Conv2D(filters=2, kernel_size=(2, 2), use_bias=False, device=device)
    with pytest.raises(ValueError, match=r"\(4, 4, 3\)"):
        conv_layer(input_image)


def test_cells_340_and_341_the_layer_is_the_notebooks_function(convolved, rng, dtype):
    input_image = rng.normal(size=(4, 4, 3)).astype(dtype)
    feature_maps, kernels = convolved(input_image[None, :, :, :], filters=2, dtype=dtype)
    features_ = convolve(input_image.astype(np.float64), kernels.astype(np.float64))[None, :, :, :]
    assert_close(feature_maps, features_, dtype)
    assert np.all(np.isclose(feature_maps, features_))  # the notebook's own check


def test_cell_341_for_a_float64_image_in_float32(rng, device):
    """The notebook's image is float64, and its layer computes in float32."""
    input_image = rng.normal(size=(4, 4, 3))
    conv_layer = Conv2D(filters=2, kernel_size=(2, 2), use_bias=False, device=device)
    feature_maps = conv_layer(xc.asarray(input_image[None, :, :, :], device=device))
    kernels = conv_layer.get_weights()[0]
    assert_close(feature_maps, convolve(input_image, kernels)[None, :, :, :], np.float32)


def test_cell_238_the_nine_windows(convolved, rng):
    image = rng.normal(size=(4, 4))
    feature_maps, kernels = convolved(image[None, :, :, None], filters=1, dtype=np.float64)
    assert_close(feature_maps[0, :, :, 0], conv2d(kernels[:, :, 0, 0], image), np.float64)


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


def pool2D_(x, pool_size=(2, 2), strides=(1, 1)):
    """In [531]: with strides, into an array that has room for the windows of stride 1."""
    xm, xn = x.shape
    pm, pn = pool_size
    sm, sn = strides

    y = np.zeros((xm - pm + 1, xn - pn + 1))

    for ii, i in enumerate(range(0, xm - pm + 1, sm)):
        for jj, j in enumerate(range(0, xn - pn + 1, sn)):
            y[ii, jj] = np.max(x[i : i + pm, j : j + pn])
    return y


def pooling(features, pool_size=(2, 2), strides=(3, 3)):
    """In [536]: each channel by itself."""
    px, py = pool_size
    width, height, chans = features.shape
    features_ = np.zeros((width - px + 1, height - py + 1, chans))
    for chan in range(chans):
        features_[:, :, chan] = pool2D_(features[:, :, chan], pool_size, strides)
    return features_


def test_cells_538_to_540_max_pooling(pooled):
    yy = pooled(FEATURE_MAPS, pool_size=(2, 2), strides=(2, 2))
    assert f"{FEATURE_MAPS.shape} -> {yy.shape}" == "(1, 3, 3, 2) -> (1, 1, 1, 2)"
    assert yy.dtype == np.float32
    np.testing.assert_array_equal(yy, np.float32([[[[0.9654248, 1.2988867]]]]))


def test_cells_275_to_280_max_pooling_with_stride_1(pooled):
    yy = pooled(FEATURE_MAPS, pool_size=(2, 2), strides=(1, 1))
    assert (yy.shape, yy.dtype) == ((1, 2, 2, 2), np.float32)
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
    falling = xc.asarray(np.arange(10.0, 0.0, -1.0).reshape(1, 1, 10, 1), device=device)
    _, indices = xc.max_pool2d(falling, (1, 2), return_indices=True, **LAST, device=device)
    assert xc.to_numpy(indices).ravel().tolist() == list(range(0, 10, 2)) == [0, 2, 4, 6, 8]


X_534 = np.array(
    [
        [-1.25540847, 0.30410219, -0.13907104],
        [0.41550751, 0.01748251, -0.22689558],
        [0.41602673, -1.1301399, -0.82329309],
    ]
)


def test_cell_534_pooling_by_hand(pooled):
    b = pooled(X_534[None, :, :, None], pool_size=(2, 2), strides=(1, 1))[0, :, :, 0]
    np.testing.assert_array_equal(b, [[0.41550751, 0.30410219], [0.41602673, 0.01748251]])
    np.testing.assert_array_equal(b, pool2D(X_534))
    # The first function had stride 2 when the cell ran: its array has room for more windows than there are, left at 0.
    a = pool2D_(X_534, strides=(2, 2))
    np.testing.assert_array_equal(a, [[0.41550751, 0.0], [0.0, 0.0]])
    stride_2 = pooled(X_534[None, :, :, None], pool_size=(2, 2))
    assert stride_2.shape == (1, 1, 1, 1)
    np.testing.assert_array_equal(stride_2[0, :, :, 0], a[:1, :1])


def test_cell_537_pooling_with_stride_3(pooled):
    # Here too the zeros are room without windows: at stride 3 there is one, and it gives the two numbers.
    printed = np.array([[[0.96542478, 1.29888666], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(pooling(FEATURE_MAPS[0, :, :, :]), printed, rtol=1e-8)
    y = pooled(FEATURE_MAPS, pool_size=(2, 2), strides=(3, 3))
    assert y.shape == (1, 1, 1, 2)
    np.testing.assert_allclose(y[0, 0, 0], printed[0, 0], rtol=1e-8)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("pool_size", [(2, 2), (3, 2), (1, 4)])
def test_cells_531_and_532_on_other_images(pool_size, strides, pooled, rng):
    x = rng.normal(size=(5, 7))
    y = pooled(x[None, :, :, None], pool_size, strides)[0, :, :, 0]
    rows, columns = y.shape
    assert (rows, columns) == tuple(
        len(range(0, size - pool + 1, stride)) for size, pool, stride in zip(x.shape, pool_size, strides, strict=True)
    )
    np.testing.assert_array_equal(y, pool2D_(x, pool_size, strides)[:rows, :columns])
    if strides == (1, 1):
        np.testing.assert_array_equal(y, pool2D(x, pool_size))
