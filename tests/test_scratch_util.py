"""The book's helpers: smoothing, shuffling, sizes, and columns of images."""

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import example, given
from hypothesis import strategies as st

from xpconv.scratch.layers import Convolution
from xpconv.scratch.util import col2im, conv_output_size, im2col, shuffle_dataset, smooth_curve

# ----------------------------------------------------------------------------------------------------------------------
# smooth_curve
# ----------------------------------------------------------------------------------------------------------------------


def value_beyond_the_ends(curve, index):
    """The curve, continued: the first value is the axis of its mirror image, the last one is repeated in it."""
    while not 0 <= index < len(curve):
        if len(curve) == 1:
            return curve[0]
        index = -index if index < 0 else 2 * len(curve) - 1 - index
    return curve[index]


def smoothed(curve):
    window = np.kaiser(11, 2)
    return [
        sum(window[5 + shift] * value_beyond_the_ends(curve, index + shift) for shift in range(-5, 6)) / window.sum()
        for index in range(len(curve))
    ]


@pytest.mark.parametrize("length", [6, 7, 10, 11, 12, 100])
def test_smooth_curve(length, dtype):
    curve = np.random.default_rng(length).normal(size=length).astype(dtype)
    assert_close(smooth_curve(curve), smoothed(curve.astype(np.float64)), dtype)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5])
def test_smooth_curve_of_a_short_curve_keeps_its_length_and_range(length):
    curve = np.random.default_rng(length).normal(size=length)
    smooth = smooth_curve(curve)
    assert smooth.shape == (length,)
    assert ((smooth >= curve.min(initial=np.inf) - 1e-12) & (smooth <= curve.max(initial=-np.inf) + 1e-12)).all()


@pytest.mark.parametrize("length", [1, 3, 11, 30])
def test_smooth_curve_leaves_a_constant_alone(length):
    assert_close(smooth_curve(np.full(length, 3.0)), np.full(length, 3.0), np.float64)


def test_smooth_curve_takes_the_list_of_a_trainer():
    losses = [2.3, 2.1, 1.7, 1.9, 0.8, 0.5, 0.6]
    np.testing.assert_array_equal(smooth_curve(losses), smooth_curve(np.array(losses)))


def test_smooth_curve_of_nan():
    assert np.isnan(smooth_curve([1.0] * 20 + [np.nan])).tolist() == [False] * 15 + [True] * 6


def test_smooth_curve_refuses_a_matrix():
    with pytest.raises(ValueError, match=r"^smooth_curve: x must have one axis, got x.shape=\(2, 3\)"):
        smooth_curve(np.ones((2, 3)))


# ----------------------------------------------------------------------------------------------------------------------
# shuffle_dataset
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (7,), (28, 28), (1, 28, 28), (2, 3, 4, 5)])
@pytest.mark.parametrize("one_hot", [False, True])
def test_shuffle_dataset_keeps_images_and_labels_together(shape, one_hot):
    numbers = np.arange(50)
    x = numbers.reshape(-1, *[1] * len(shape)) + np.zeros(shape, int)
    t = np.eye(50)[numbers] if one_hot else numbers
    shuffled_x, shuffled_t = shuffle_dataset(x, t, seed=3)
    order = shuffled_t.argmax(axis=1) if one_hot else shuffled_t
    assert sorted(order) == list(numbers)
    assert list(order) != list(numbers)
    assert shuffled_x.shape == x.shape
    np.testing.assert_array_equal(shuffled_x, x[order])
    np.testing.assert_array_equal(x[:, *[0] * len(shape)], numbers)


def test_shuffle_dataset_draws_from_the_seed_or_from_numpys_generator():
    x = np.arange(100)
    first, again, other = (shuffle_dataset(x, x, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.random.seed(5)
    first = shuffle_dataset(x, x)[0]
    next_one = shuffle_dataset(x, x)[0]
    np.random.seed(5)
    np.testing.assert_array_equal(shuffle_dataset(x, x)[0], first)
    assert (first != next_one).any()


@pytest.mark.parametrize(("x", "t"), [(np.ones((3, 2)), np.ones(4)), (np.ones(()), np.ones(()))])
def test_shuffle_dataset_refuses_images_without_labels(x, t):
    with pytest.raises(ValueError, match=r"^shuffle_dataset: x and t must be equally many, got x.shape=\("):
        shuffle_dataset(x, t)


# ----------------------------------------------------------------------------------------------------------------------
# conv_output_size, im2col, col2im
# ----------------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 4))
@example(4, 7, 1, 1)
@example(4, 6, 1, 1)
def test_conv_output_size_counts_the_places(input_size, filter_size, stride, pad):
    places = range(0, input_size + 2 * pad - filter_size + 1, stride)
    if not places:
        with pytest.raises(ValueError, match=r"^conv_output_size: the filter is larger than the padded image"):
            conv_output_size(input_size, filter_size, stride, pad)
        return
    size = conv_output_size(input_size, filter_size, stride, pad)
    assert type(size) is int
    assert size == len(places)
    convolution = Convolution(np.ones((1, 1, filter_size, filter_size)), 0, stride, pad)
    assert convolution.forward(np.ones((1, 1, input_size, input_size))).shape == (1, 1, size, size)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 1), ValueError),
        ((4, 0), ValueError),
        ((4, 2, 0), ValueError),
        ((4, 2, 1, -1), ValueError),
        ((4.0, 2), TypeError),
        ((4, "2"), TypeError),
        ((4, 2, True), TypeError),
    ],
)
def test_conv_output_size_refuses_nonsense(arguments, error):
    with pytest.raises(error, match=r"^conv_output_size: (input_size|filter_size|stride|pad) must be"):
        conv_output_size(*arguments)


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (2, 1), ((2, 1), (0, 2))])
def test_im2col(stride, pad, dtype):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(dtype)
    (stride_h, stride_w), (pad_h, pad_w) = (v if isinstance(v, tuple) else (v, v) for v in (stride, pad))
    padded = np.zeros((2, 3, 5 + 2 * pad_h, 6 + 2 * pad_w), dtype)
    padded[:, :, pad_h : pad_h + 5, pad_w : pad_w + 6] = x
    rows = [
        image[:, top : top + 2, left : left + 3].ravel()
        for image in padded
        for top in range(0, padded.shape[2] - 1, stride_h)
        for left in range(0, padded.shape[3] - 2, stride_w)
    ]
    col = im2col(x, 2, 3, stride, pad)
    assert_close(col, rows, dtype)
    # The adjoint: <im2col(x), c> = <x, col2im(c)>
    c = np.random.default_rng(1).normal(size=col.shape).astype(dtype)
    back = col2im(c, x.shape, 2, 3, stride, pad)
    assert back.dtype == dtype
    assert back.shape == x.shape
    assert np.vdot(col, c) == pytest.approx(np.vdot(x, back), rel=1e-5)


def test_columns_of_integers_are_floats():
    assert im2col(np.arange(9).reshape(1, 1, 3, 3), 2, 2).dtype == np.float32
    assert col2im(np.ones((4, 4), int), (1, 1, 3, 3), 2, 2).dtype == np.float32


def test_columns_name_the_device(device):
    col = im2col(np.ones((1, 1, 3, 3)), 2, 2, device=device)
    assert_close(col2im(col, (1, 1, 3, 3), 2, 2, device=device), [[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]], np.float64)
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        im2col(np.ones((1, 1, 3, 3)), 2, 2, device="tpu")
