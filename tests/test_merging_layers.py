"""Keras' merging layers: against NumPy, PyTorch and central differences."""

import json

import numpy as np
import pytest
from conftest import assert_close, normal

import xpconv as xc
from xpconv.layers import merging

ELEMENTWISE = [merging.Add, merging.Subtract, merging.Multiply, merging.Average, merging.Maximum, merging.Minimum]
EACH = pytest.mark.parametrize("cls", ELEMENTWISE)
SHAPES = [
    [(2, 3), (2, 3)],
    [(2, 3, 4), (2, 1, 4)],
    [(2, 3, 1), (2, 1, 4)],
    [(2, 3, 4), (2, 4)],
    [(2, 4), (2, 3, 4)],
    [(2, 3, 4, 2), (2, 2)],
    [(2, 3), (2,)],
]
SHAPES_OF_THREE = [[(2, 3), (2, 3), (2, 3)], [(2, 3, 4), (2, 1, 1), (2, 4)], [(2, 1), (2, 3), (2, 1), (2, 3)]]


def expected(cls, arrays):
    """What Keras says: all in float64, missing axes behind the batch's."""
    ndim = max(x.ndim for x in arrays)
    arrays = [np.asarray(x, np.float64).reshape(x.shape[:1] + (1,) * (ndim - x.ndim) + x.shape[1:]) for x in arrays]
    if cls is merging.Average:
        return sum(arrays) / len(arrays)
    function = {
        merging.Add: np.add,
        merging.Subtract: np.subtract,
        merging.Multiply: np.multiply,
        merging.Maximum: np.maximum,
        merging.Minimum: np.minimum,
    }[cls]
    result = arrays[0]
    for x in arrays[1:]:
        result = function(result, x)
    return result


def cases(cls):
    return SHAPES if cls is merging.Subtract else SHAPES + SHAPES_OF_THREE


def inputs_of(shapes, dtype=np.float64):
    return [normal(seed, shape, dtype) for seed, shape in enumerate(shapes, 1)]


def assert_gradients_are_the_slopes(layer, arrays, dy):
    layer(arrays)
    gradients = layer.backward(dy)
    assert isinstance(gradients, list)
    for position, gradient in enumerate(gradients):
        slopes = np.zeros_like(arrays[position])
        for index in np.ndindex(slopes.shape):
            around = []
            for step in (1e-5, -1e-5):
                moved = [x.copy() for x in arrays]
                moved[position][index] += step
                around.append(float((layer(moved) * dy).sum()))
            slopes[index] = (around[0] - around[1]) / 2e-5
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-8, equal_nan=False)


@EACH
def test_values_shapes_and_dtypes(cls, dtype):
    for shapes in cases(cls):
        arrays = inputs_of(shapes, dtype)
        layer = cls(dtype=dtype, device="numpy")
        y = layer(arrays)
        assert_close(y, expected(cls, arrays), dtype)
        assert layer.compute_output_shape(shapes) == y.shape
        assert layer.compute_output_shape([(None, *shape[1:]) for shape in shapes]) == (None, *y.shape[1:])
        for gradient, shape in zip(layer.backward(np.ones_like(y)), shapes, strict=True):
            assert gradient.shape == shape
            assert gradient.dtype == dtype


@EACH
def test_gradients_are_the_slopes(cls, rng):
    for shapes in cases(cls):
        layer = cls(dtype="float64", device="numpy")
        arrays = inputs_of(shapes)
        assert_gradients_are_the_slopes(layer, arrays, rng.standard_normal(layer(arrays).shape))


@EACH
def test_every_device(cls, device):
    arrays = inputs_of([(2, 3, 4), (2, 4)], np.float32)
    layer = cls(device=device)
    there = [xc.asarray(x, device=device) for x in arrays]
    y = layer(there)
    assert_close(y, expected(cls, arrays), np.float32)
    on_host = cls(device="numpy")
    on_host(arrays)
    dy = normal(9, y.shape, np.float32)
    for ours, theirs in zip(layer.backward(xc.asarray(dy, device=device)), on_host.backward(dy), strict=True):
        assert_close(ours, theirs, np.float32)


def test_against_torch():
    torch = pytest.importorskip("torch")
    shapes = [(2, 3, 4), (2, 1, 4), (2, 3, 1)]
    arrays = inputs_of(shapes)
    dy = normal(8, (2, 3, 4))
    for cls, function in (
        (merging.Add, lambda a, b, c: a + b + c),
        (merging.Multiply, lambda a, b, c: a * b * c),
        (merging.Average, lambda a, b, c: (a + b + c) / 3),
        (merging.Maximum, lambda a, b, c: torch.maximum(torch.maximum(a, b), c)),
        (merging.Minimum, lambda a, b, c: torch.minimum(torch.minimum(a, b), c)),
    ):
        tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
        theirs = function(*tensors)
        layer = cls(dtype="float64", device="numpy")
        assert_close(layer(arrays), theirs.detach().numpy(), np.float64)
        for ours, gradient in zip(layer.backward(dy), torch.autograd.grad(theirs, tensors, torch.tensor(dy)), strict=True):
            assert_close(ours, gradient.numpy(), np.float64)


def test_the_product_of_zeros_has_a_gradient():
    layer = merging.Multiply(dtype="float64", device="numpy")
    layer([np.array([[0.0, 0.0]]), np.array([[2.0, 0.0]]), np.array([[3.0, 5.0]])])
    gradients = layer.backward(np.array([[1.0, 1.0]]))
    np.testing.assert_array_equal(np.concatenate(gradients), [[6, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize("cls", [merging.Maximum, merging.Minimum])
def test_of_equals_the_first_is_given_the_gradient_and_nan_wins(cls):
    layer = cls(dtype="float64", device="numpy")
    sign = 1 if cls is merging.Maximum else -1
    a, b = np.array([[1.0, 2.0, 3.0, np.nan, 1.0, np.nan]]) * sign, np.array([[1.0, 3.0, 2.0, 1.0, np.nan, np.nan]]) * sign
    np.testing.assert_array_equal(layer([a, b]), np.array([[1, 3, 3, np.nan, np.nan, np.nan]]) * sign)
    dy = np.array([[1.0, 2.0, np.inf, 4.0, 5.0, 6.0]])
    da, db = layer.backward(dy)
    np.testing.assert_array_equal(da, [[1, 0, np.inf, 4, 0, 6]])
    np.testing.assert_array_equal(db, [[0, 2, 0, 0, 5, 0]])


# ----------------------------------------------------------------------------------------------------------------------
# Integers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [*(cls for cls in ELEMENTWISE if cls is not merging.Average), merging.Concatenate])
def test_integers_stay_integers(cls):
    a, b = np.array([[100, 3]], np.int8), np.array([[200, 5]], np.uint8)
    y = cls()([a, b])
    assert y.dtype == np.int16  # as NumPy and Keras promote them, before anything is computed
    wide = [a.astype(np.int16), b.astype(np.int16)]
    np.testing.assert_array_equal(y, np.concatenate(wide, axis=1) if cls is merging.Concatenate else expected(cls, wide))
    large = np.array([[2**60 + 1, 3]])
    assert cls()([large, large * 0 + 1]).dtype == np.int64
    assert merging.Add()([large, large * 0 + 1])[0, 0] == 2**60 + 2


@EACH
def test_integers_beside_floats_become_floats(cls):
    a, b = np.array([[1, 2]]), np.array([[1.5, 2.5]])
    layer = cls(device="numpy")
    assert_close(layer([a, b]), expected(cls, [a, b]), np.float32)
    assert [gradient.dtype for gradient in layer.backward(np.ones((1, 2), np.float32))] == [np.float32] * 2
    with pytest.raises(ValueError, match=r"integers (up to|from).*float32"):
        layer([a + 2**40, b])


def test_gradients_of_integers_are_floats_of_the_layers_dtype():
    layer = merging.Multiply(device="numpy")
    layer([np.array([[2, 3]]), np.array([[5, 7]])])
    for gradient, other in zip(layer.backward(np.ones((1, 2))), [[[5, 7]], [[2, 3]]], strict=True):
        assert_close(gradient, other, np.float32)


def test_the_mean_of_integers_is_a_float():
    y = merging.Average()([np.array([[1, 2]]), np.array([[2, 2]])])
    assert_close(y, [[1.5, 2]], np.float32)


def test_booleans():
    a, b = np.array([[True, True]]), np.array([[True, False]])
    assert_close(merging.Add()([a, b]), [[2, 1]], np.float32)
    assert_close(merging.Subtract()([b, a]), [[0, -1]], np.float32)
    for cls in (merging.Maximum, merging.Minimum, merging.Concatenate):
        assert cls()([a, b]).dtype == bool


# ----------------------------------------------------------------------------------------------------------------------
# Concatenate
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 1, 2, -2, 0])
def test_concatenate(axis, dtype, device):
    shapes = []
    for size in (3, 1, 2):
        shape = [2, 3, 4]
        shape[axis] = size
        shapes.append(tuple(shape))
    arrays = inputs_of(shapes, dtype)
    layer = merging.Concatenate(axis, dtype=dtype, device=device)
    y = layer([xc.asarray(x, device=device) for x in arrays])
    assert_close(y, np.concatenate(arrays, axis=axis), dtype)
    assert layer.compute_output_shape(shapes) == y.shape
    back = layer.backward(y)  # as a gradient that tells where each part goes
    for gradient, x in zip(back, arrays, strict=True):
        assert_close(gradient, x, dtype)
        assert gradient.flags.c_contiguous


def test_concatenate_what_is_not_known():
    layer = merging.Concatenate()
    assert layer.compute_output_shape([(None, 3, 4), (None, 3, 5)]) == (None, 3, 9)
    assert layer.compute_output_shape([(None, 3, None), (None, 3, 5)]) == (None, 3, None)
    assert layer.compute_output_shape([(None, None, 4), (8, 3, 5)]) == (8, 3, 9)


def test_elementwise_what_is_not_known():
    layer = merging.Add()
    assert layer.compute_output_shape([(None, None, 4), (8, 3, 4)]) == (8, None, 4)
    assert layer.compute_output_shape([(None, 3, 4), (None, None, 1)]) == (None, None, 4)
    assert layer.compute_output_shape([(None, None, 4), (None, 4)]) == (None, None, 4)


# ----------------------------------------------------------------------------------------------------------------------
# What all of them owe
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [cls for cls in [*ELEMENTWISE, merging.Concatenate] if cls is not merging.Subtract])
def test_one_input_is_the_output(cls):
    x = normal(1, (2, 3), np.float32)
    layer = cls(device="numpy")
    np.testing.assert_array_equal(layer([x]), x)
    np.testing.assert_array_equal(layer.backward(x)[0], x)


@pytest.mark.parametrize("cls", [*ELEMENTWISE, merging.Concatenate])
def test_inputs_may_be_read_only_and_are_not_written_to(cls):
    arrays = inputs_of([(2, 3, 4), (2, 3, 4)], np.float32)
    before = [x.copy() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    layer = cls(device="numpy")
    y = layer([arrays[0], arrays[1][:, ::-1][:, ::-1]])
    dy = np.ones_like(y)
    dy.flags.writeable = False
    layer.backward(dy)
    np.testing.assert_array_equal(arrays, before)
    assert not any(np.may_share_memory(y, x) for x in arrays)


@pytest.mark.parametrize("cls", [*ELEMENTWISE, merging.Concatenate])
def test_an_empty_batch(cls):
    x = np.zeros((0, 3), np.float32)
    layer = cls(device="numpy")
    y = layer([x, x])
    assert y.shape == layer.compute_output_shape([(0, 3), (0, 3)])
    assert [gradient.shape for gradient in layer.backward(y)] == [(0, 3), (0, 3)]


@pytest.mark.parametrize("cls", [*ELEMENTWISE, merging.Concatenate])
def test_made_again_from_its_configuration(cls):
    layer = cls(name="merge", dtype="float64")
    again = cls.from_config(json.loads(json.dumps(layer.get_config())))
    assert (again.name, again.dtype) == ("merge", np.float64)
    assert merging.Concatenate.from_config(merging.Concatenate(1).get_config()).axis == 1


@EACH
def test_shapes_that_do_not_fit_are_refused_when_built(cls):
    layer = cls(name="merge")
    with pytest.raises(ValueError, match=r"layer 'merge' .*\(2, 3\) and \(2, 4\) do not fit"):
        layer([np.zeros((2, 3)), np.zeros((2, 4))])
    assert not layer.built
    with pytest.raises(ValueError, match=r"layer 'merge' .*\(None, 3\) and \(None, 5, 4\) do not fit"):
        layer.build([(None, 3), (None, 5, 4)])
    with pytest.raises(ValueError, match=r"same batch size, got the shapes \(2, 3\) and \(1, 3\)"):
        layer([np.zeros((2, 3)), np.zeros((1, 3))])
    with pytest.raises(ValueError, match=r"layer 'merge' .*list of inputs"):
        layer.build((None, 3))
    with pytest.raises(ValueError, match=r"layer 'merge' .*list of at least"):
        layer(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="axis for the batch"):
        layer([np.zeros((2, 3)), np.zeros(())])


@EACH
def test_shapes_are_looked_at_in_later_calls_too(cls):
    layer = cls(name="merge")
    layer([np.zeros((2, 3)), np.zeros((2, 3))])
    with pytest.raises(ValueError, match=r"layer 'merge' .*same batch size, got the shapes \(4, 3\) and \(1, 3\)"):
        layer([np.zeros((4, 3)), np.zeros((1, 3))])
    assert layer([np.zeros((4, 3)), np.zeros((4, 1))]).shape == (4, 3)


def test_the_shapes_named_are_the_two_that_clash():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\) do not fit"):
        merging.Add().compute_output_shape([(2, 1), (2, 3), (2, 4)])


def test_subtract_takes_two():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="exactly 2 inputs, got 3"):
        merging.Subtract()([x, x, x])
    with pytest.raises(ValueError, match="at least 2"):
        merging.Subtract()([x])
    layer = merging.Subtract()
    layer([x, x])
    with pytest.raises(ValueError, match="exactly 2 inputs, got 3"):
        layer([x, x, x])


def test_concatenate_refuses():
    x = np.zeros((2, 3))
    with pytest.raises(TypeError, match=r"Concatenate: axis must be an integer, got 1\.5"):
        merging.Concatenate(1.5)
    with pytest.raises(ValueError, match="axis=2 is not there in inputs of 2 axes"):
        merging.Concatenate(2)([x, x])
    with pytest.raises(ValueError, match=r"but along axis=-1, got the shapes \(2, 3\) and \(4, 3\)"):
        merging.Concatenate()([x, np.zeros((4, 3))])
    with pytest.raises(ValueError, match="equally many axes"):
        merging.Concatenate()([x, np.zeros((2, 3, 4))])
    layer = merging.Concatenate()
    layer([x, x])
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(4, 3\)"):
        layer([x, np.zeros((4, 3))])
