"""Keras' normalization layers: against the formulas in float64, PyTorch and central differences."""

import json

import numpy as np
import pytest
from conftest import assert_close, normal

import xpconv as xc
from xpconv.layers import normalization
from xpconv.layers.normalization import BatchNormalization, LayerNormalization

AXES_OF_BATCHES = [((6, 3), -1), ((4, 5, 2, 3), -1), ((4, 3, 5, 2), 1), ((4, 3, 5, 2), -3), ((4, 3, 5), 2), ((4, 3), 0)]
EACH_BATCH = pytest.mark.parametrize(("shape", "axis"), AXES_OF_BATCHES)
AXES_OF_SAMPLES = [-1, 1, 0, [1, 2], [2, 1], [-1, 1], [1, 2, 3], (-2, -1), [0, 3]]
EACH_SAMPLE = pytest.mark.parametrize("axis", AXES_OF_SAMPLES, ids=str)


def beside(values, ndim, axis):
    """One value a feature, shaped so that it broadcasts along the axis."""
    shape = [1] * ndim
    shape[axis] = -1
    return np.asarray(values, np.float64).reshape(shape)


def moments(x, axes):
    x = np.asarray(x, np.float64)
    return x.mean(axis=axes), ((x - x.mean(axis=axes, keepdims=True)) ** 2).mean(axis=axes)


def with_weights(layer, shape, seed=3):
    """Build the layer and give it weights that are neither 0 nor 1."""
    layer.build(shape)
    layer.set_weights([abs(normal(seed + at, weight.shape)) + 0.5 for at, weight in enumerate(layer.weights)])
    return layer


def assert_gradients_are_the_slopes(layer, x, dy, training):
    """Of the input and of every trained weight, by central differences in float64."""
    kept = layer.get_weights()
    layer(x, training=training)
    dx = layer.backward(dy)
    given = [x.copy(), *(weight.copy() for weight in layer.trainable_weights)]
    for position, gradient in enumerate([dx, *layer.gradients]):
        slopes = np.zeros_like(given[position])
        for index in np.ndindex(slopes.shape):
            around = []
            for step in (1e-5, -1e-5):
                layer.set_weights(kept)
                moved = given[0].copy()
                target = moved if position == 0 else layer.trainable_weights[position - 1]
                target[index] += step
                around.append(float((layer(moved, training=training) * dy).sum()))
            slopes[index] = (around[0] - around[1]) / 2e-5
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7, equal_nan=False)
    assert len(layer.gradients) == len(layer.trainable_weights)


# ----------------------------------------------------------------------------------------------------------------------
# BatchNormalization
# ----------------------------------------------------------------------------------------------------------------------


@EACH_BATCH
def test_batch_normalization_in_training(shape, axis, dtype):
    x = normal(1, shape, dtype) * 3 + 2
    layer = with_weights(BatchNormalization(axis, momentum=0.7, dtype=dtype, device="numpy"), shape)
    gamma, beta, mean_before, variance_before = layer.get_weights()
    y = layer(x, training=True)
    axes = tuple(other for other in range(x.ndim) if other != axis % x.ndim)
    mean, variance = moments(x, axes)
    normalized = (x - beside(mean, x.ndim, axis)) / np.sqrt(beside(variance, x.ndim, axis) + 1e-3)
    assert_close(y, normalized * beside(gamma, x.ndim, axis) + beside(beta, x.ndim, axis), dtype)
    assert_close(layer.moving_mean, 0.7 * mean_before.astype(float) + 0.3 * mean, dtype)
    assert_close(layer.moving_variance, 0.7 * variance_before.astype(float) + 0.3 * variance, dtype)


@EACH_BATCH
def test_batch_normalization_outside_training(shape, axis, dtype):
    x = normal(1, shape, dtype)
    layer = with_weights(BatchNormalization(axis, epsilon=0.01, dtype=dtype, device="numpy"), shape)
    gamma, beta, mean, variance = (beside(weight, x.ndim, axis) for weight in layer.get_weights())
    before = layer.get_weights()
    assert_close(layer(x), (x - mean) / np.sqrt(variance + 0.01) * gamma + beta, dtype)
    np.testing.assert_array_equal(np.array(layer.get_weights()), np.array(before))


@pytest.mark.parametrize("training", [True, False])
@EACH_BATCH
def test_the_gradients_of_batch_normalization_are_the_slopes(shape, axis, training, rng):
    layer = with_weights(BatchNormalization(axis, dtype="float64", device="numpy"), shape)
    x = normal(2, shape)
    assert_gradients_are_the_slopes(layer, x, rng.standard_normal(shape), training)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("cls", [BatchNormalization, LayerNormalization])
def test_without_scale_or_shift(cls, center, scale, rng):
    layer = with_weights(cls(center=center, scale=scale, dtype="float64", device="numpy"), (5, 3))
    assert [layer.gamma is not None, layer.beta is not None] == [scale, center]
    assert len(layer.trainable_weights) == center + scale
    x = normal(2, (5, 3))
    for training in (True, False):
        assert_gradients_are_the_slopes(layer, x, rng.standard_normal((5, 3)), training)


def test_weights_are_in_keras_order():
    layer = BatchNormalization()
    layer.build((None, 4))
    assert [weight.name for _, weight in layer.all_weights()] == ["gamma", "beta", "moving_mean", "moving_variance"]
    for weight, value in zip(layer.get_weights(), (1, 0, 0, 1), strict=True):
        assert_close(weight, np.full(4, value), np.float32)
    assert layer.trainable_weights[0] is layer.gamma
    assert layer.trainable_weights[1] is layer.beta


def test_the_statistics_are_updated_in_place(device):
    layer = BatchNormalization(device=device)
    x = normal(4, (8, 3), np.float32)
    there = xc.asarray(x, device=device)
    layer(there)
    mean, variance = layer.moving_mean, layer.moving_variance
    for _ in range(3):
        layer(there, training=True)
    assert layer.moving_mean is mean
    assert layer.moving_variance is variance
    of_batch = moments(x, 0)
    assert_close(mean, (1 - 0.99**3) * of_batch[0], np.float32)
    assert_close(variance, 0.99**3 + (1 - 0.99**3) * of_batch[1], np.float32)


def test_a_frozen_layer_does_as_outside_training(rng):
    layer = with_weights(BatchNormalization(dtype="float64", device="numpy"), (5, 3))
    x, dy = normal(2, (5, 3)), rng.standard_normal((5, 3))
    outside, before = layer(x), layer.get_weights()
    dx = layer.backward(dy)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), outside)
    np.testing.assert_array_equal(np.array(layer.get_weights()), np.array(before))
    np.testing.assert_array_equal(layer.backward(dy), dx)
    assert layer.gradients == []
    # Frozen between the two passes: the way back is that of the training, and has no gradients of weights to hand on.
    layer.trainable = True
    layer(x, training=True)
    dx = layer.backward(dy)
    layer.trainable = False
    np.testing.assert_array_equal(layer.backward(dy), dx)
    assert layer.gradients == []


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization_against_torch(training, dtype):
    torch = pytest.importorskip("torch")
    x, dy = normal(5, (4, 3, 5, 2), dtype), normal(6, (4, 3, 5, 2), dtype)
    layer = with_weights(BatchNormalization(1, momentum=0.9, epsilon=1e-5, dtype=dtype, device="numpy"), x.shape)
    theirs = torch.nn.BatchNorm2d(3, eps=1e-5, momentum=0.1, dtype=torch.float64)
    with torch.no_grad():
        targets = (theirs.weight, theirs.bias, theirs.running_mean, theirs.running_var)
        for target, weight in zip(targets, layer.get_weights(), strict=True):
            target.copy_(torch.tensor(weight))
    before = layer.get_weights()[3].astype(np.float64)
    theirs.train(training)
    given = torch.tensor(x.astype(np.float64), requires_grad=True)
    result = theirs(given)
    result.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(layer(x, training=training), result.detach().numpy(), dtype)
    assert_close(layer.backward(dy), given.grad.numpy(), dtype)
    assert_close(layer.gradients[0], theirs.weight.grad.numpy(), dtype)
    assert_close(layer.gradients[1], theirs.bias.grad.numpy(), dtype)
    assert_close(layer.moving_mean, theirs.running_mean.numpy(), dtype)
    variance = theirs.running_var.numpy()
    if training:  # PyTorch's moving variance divides by N - 1, of N = 40 numbers here
        variance = 0.9 * before + (variance - 0.9 * before) * 39 / 40
    assert_close(layer.moving_variance, variance, dtype)


def test_an_empty_batch_is_refused_in_training_alone():
    layer = BatchNormalization(name="norm", device="numpy")
    layer.build((None, 3))
    before = layer.get_weights()
    with pytest.raises(ValueError, match=r"layer 'norm' .*must not be empty \(input shape \(0, 3\)\)"):
        layer(np.zeros((0, 3), np.float32), training=True)
    np.testing.assert_array_equal(np.array(layer.get_weights()), np.array(before))
    y = layer(np.zeros((0, 3), np.float32))
    assert y.shape == (0, 3)
    assert layer.backward(y).shape == (0, 3)


@pytest.mark.parametrize("axis", [-1, 1])
def test_sums_over_large_batches_are_exact(axis):
    # Far from zero, where float32 rounds each of a hundred thousand additions: they must not be made one after the other.
    shape = (100_000, 2) if axis == -1 else (100, 2, 1000)
    x = normal(7, shape, np.float32) + np.float32(100)
    layer = BatchNormalization(axis, momentum=0, device="numpy")
    layer(x, training=True)
    mean, variance = moments(x, 0 if axis == -1 else (0, 2))
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=3e-7, equal_nan=False)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=3e-7, equal_nan=False)
    dy = abs(normal(8, shape, np.float32))
    layer.backward(dy)
    np.testing.assert_allclose(layer.gradients[1], dy.sum(0 if axis == -1 else (0, 2), np.float64), rtol=3e-7, equal_nan=False)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 128 * 128, 128 * 128 + 130])
def test_the_sum_of_rows_leaves_none_out(count):
    rows = np.arange(2 * count, dtype=np.float64).reshape(count, 2)
    np.testing.assert_array_equal(normalization._sum_of_rows(rows), rows.sum(axis=0))


# ----------------------------------------------------------------------------------------------------------------------
# LayerNormalization
# ----------------------------------------------------------------------------------------------------------------------


@EACH_SAMPLE
def test_layer_normalization(axis, dtype):
    shape = (4, 3, 5, 2)
    x = normal(1, shape, dtype) * 3 + 2
    layer = with_weights(LayerNormalization(axis, dtype=dtype, device="numpy"), shape)
    axes = tuple(sorted(other % 4 for other in np.atleast_1d(axis)))
    assert layer.gamma.shape == layer.beta.shape == tuple(shape[other] for other in axes)
    gamma, beta = (np.expand_dims(w.astype(float), [at for at in range(4) if at not in axes]) for w in layer.get_weights())
    mean, variance = (np.expand_dims(value, axes) for value in moments(x, axes))
    y = layer(x)
    assert_close(y, (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, dtype)
    np.testing.assert_array_equal(layer(x, training=True), y)
    assert y.flags.c_contiguous


@EACH_SAMPLE
def test_the_gradients_of_layer_normalization_are_the_slopes(axis, rng):
    shape = (2, 3, 2, 2)
    layer = with_weights(LayerNormalization(axis, dtype="float64", device="numpy"), shape)
    assert_gradients_are_the_slopes(layer, normal(2, shape), rng.standard_normal(shape), False)


def test_layer_normalization_against_torch(dtype):
    torch = pytest.importorskip("torch")
    x, dy = normal(5, (4, 3, 5, 2), dtype), normal(6, (4, 3, 5, 2), dtype)
    layer = with_weights(LayerNormalization([-2, -1], dtype=dtype, device="numpy"), x.shape)
    gamma, beta = (torch.tensor(weight.astype(np.float64), requires_grad=True) for weight in layer.get_weights())
    given = torch.tensor(x.astype(np.float64), requires_grad=True)
    result = torch.nn.functional.layer_norm(given, (5, 2), gamma, beta, 1e-3)
    result.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(layer(x), result.detach().numpy(), dtype)
    assert_close(layer.backward(dy), given.grad.numpy(), dtype)
    assert_close(layer.gradients[0], gamma.grad.numpy(), dtype)
    assert_close(layer.gradients[1], beta.grad.numpy(), dtype)


def test_a_frozen_layer_normalization_has_no_gradients_of_weights():
    layer = LayerNormalization(trainable=False, device="numpy")
    x = normal(2, (5, 3), np.float32)
    layer(x)
    frozen = layer.backward(x)
    assert layer.gradients == []
    other = LayerNormalization(device="numpy")
    other(x)
    np.testing.assert_array_equal(frozen, other.backward(x))


# ----------------------------------------------------------------------------------------------------------------------
# What both owe
# ----------------------------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("cls", [BatchNormalization, LayerNormalization])


@BOTH
def test_every_device(cls, device):
    x, dy = normal(1, (4, 2, 3), np.float32), normal(2, (4, 2, 3), np.float32)
    there, here = (with_weights(cls(1, device=name), x.shape) for name in (device, "numpy"))
    assert_close(there(xc.asarray(x, device=device), training=True), here(x, training=True), np.float32)
    assert_close(there.backward(xc.asarray(dy, device=device)), here.backward(dy), np.float32)
    for ours, theirs in zip(there.gradients, here.gradients, strict=True):
        assert_close(ours, theirs, np.float32)
    for ours, theirs in zip(there.get_weights(), here.get_weights(), strict=True):
        assert_close(ours, theirs, np.float32)


@BOTH
def test_any_memory_and_nothing_written(cls):
    x = normal(1, (4, 3, 5), np.float32)
    odd = np.asfortranarray(x)
    odd.flags.writeable = False
    layer, same = cls(1, device="numpy"), cls(1, device="numpy")
    y = layer(odd, training=True)
    np.testing.assert_array_equal(y, same(x, training=True))
    assert not np.may_share_memory(y, odd)
    np.testing.assert_allclose(layer.backward(odd), same.backward(x), rtol=1e-5, atol=1e-6, equal_nan=False)


@BOTH
def test_what_is_not_remembered_changes_no_number(cls, dtype):
    from xpconv.layers.tape import Run, running

    x = normal(1, (4, 3), dtype)
    for options in ({}, {"scale": False}, {"center": False}, {"scale": False, "center": False}):
        layer = with_weights(cls(dtype=dtype, device="numpy", **options), x.shape)
        expected = layer(x)
        run = Run(xc.get_device("numpy"), dtype, np.random, training=False, remember=False)
        with running(run):
            np.testing.assert_array_equal(layer(x), expected)
        y, saved = layer.compute(x, run)
        assert saved is None
        np.testing.assert_array_equal(y, expected)


@BOTH
def test_only_the_gradients_that_are_asked_for(cls):
    x, dy = normal(1, (4, 3), np.float32), normal(2, (4, 3), np.float32)
    layer = with_weights(cls(device="numpy"), x.shape)
    layer(x, training=True)
    dx = layer.backward(dy)
    nothing, gradients = layer.differentiate(layer._saved, dy, layer._run, False)
    assert dx is not None
    assert nothing is None
    np.testing.assert_array_equal(np.array(gradients), np.array(layer.gradients))


@BOTH
def test_integers_are_taken_as_floats(cls):
    x = np.arange(12).reshape(4, 3)
    assert_close(cls(device="numpy")(x), cls(device="numpy")(x.astype(np.float32)), np.float32)


@BOTH
def test_regularizers_and_initializers(cls):
    layer = cls(gamma_initializer="zeros", beta_initializer="ones", gamma_regularizer="l2", beta_regularizer="l1")
    layer.build((None, 3))
    np.testing.assert_array_equal(np.array(layer.get_weights()[:2]), [[0] * 3, [1] * 3])
    assert [weight.regularizer is not None for weight in layer.trained()] == [True, True]


@BOTH
def test_made_again_from_its_configuration(cls):
    layer = cls(axis=1, epsilon=0.5, center=False, gamma_initializer="zeros", name="norm", dtype="float64")
    again = cls.from_config(json.loads(json.dumps(layer.get_config())))
    x = normal(1, (4, 3, 2))
    assert again.name == "norm"
    np.testing.assert_array_equal(again(x), layer(x))


@BOTH
def test_shapes_are_told_in_advance(cls):
    assert cls().compute_output_shape((None, None, 3)) == (None, None, 3)
    layer = cls(1)
    layer.build((None, 3, None))
    assert layer(np.zeros((2, 3, 5))).shape == (2, 3, 5)


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"axis": 1.5}, TypeError, r"axis must be an integer, got 1\.5"),
        ({"axis": True}, TypeError, "axis must be an integer, got True"),
        ({"epsilon": -1}, ValueError, "epsilon must be at least 0 and finite, got -1"),
        ({"epsilon": float("nan")}, ValueError, "epsilon .* got nan"),
        ({"epsilon": "small"}, TypeError, "epsilon must be a number, got 'small'"),
        ({"center": 1}, TypeError, "center must be True or False, got 1"),
        ({"scale": None}, TypeError, "scale must be True or False, got None"),
        ({"gamma_initializer": "onse"}, ValueError, "did you mean 'ones'"),
        ({"renorm": True}, TypeError, "unexpected keyword argument 'renorm'"),
    ],
)
def test_bad_arguments(cls, options, error, text):
    with pytest.raises(error, match=text) as caught:
        cls(**options)
    assert str(caught.value).startswith(cls.__name__)


def test_bad_arguments_of_one():
    for momentum in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="BatchNormalization: momentum must be from 0 to 1"):
            BatchNormalization(momentum=momentum)
    with pytest.raises(TypeError, match="axis must be an integer"):
        BatchNormalization([1, 2])
    with pytest.raises(ValueError, match="LayerNormalization: axis must name one axis at least"):
        LayerNormalization([])


@BOTH
def test_inputs_that_do_not_fit_are_refused(cls):
    layer = cls(3, name="norm")
    with pytest.raises(ValueError, match=r"layer 'norm' .*axis=3 is not there in an input of 3 axes .*\(2, 3, 4\)"):
        layer(np.zeros((2, 3, 4)))
    assert not layer.built
    with pytest.raises(ValueError, match="along axis=-1 must be known and at least 1"):
        cls().build((2, None))
    with pytest.raises(ValueError, match="along axis=-1 must be known and at least 1"):
        cls()(np.zeros((2, 0)))
    layer = cls(name="norm")
    layer(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"layer 'norm' .*\(None, 3\).*got \(2, 4\)"):
        layer(np.zeros((2, 4)))


def test_an_axis_is_named_once():
    with pytest.raises(ValueError, match=r"axis=\[1, -1\] names an axis twice in an input of 2 axes"):
        LayerNormalization([1, -1])(np.zeros((2, 3)))
