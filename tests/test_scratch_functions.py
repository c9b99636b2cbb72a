"""The book's activations and losses, against formulas in exact arithmetic."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from conftest import assert_close

from xpconv.scratch import functions
from xpconv.scratch.functions import (
    cross_entropy_error,
    identity_function,
    mean_squared_error,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)

ARGUMENTS = [-800.0, -90.0, -20.0, -1.5, -1e-4, 0.0, 1e-4, 1.5, 20.0, 90.0, 800.0]


def exact(formula, *values):
    """A formula of numbers, with 60 digits and exponents without end."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -(10**9), 10**9
        return float(formula(*map(Decimal, values)))


def exact_softmax(row):
    return [exact(lambda a, *others: 1 / sum((o - a).exp() for o in others), value, *row) for value in row]


# ----------------------------------------------------------------------------------------------------------------------
# Activations
# ----------------------------------------------------------------------------------------------------------------------


def test_sigmoid(dtype):
    x = np.array(ARGUMENTS, dtype)
    expected = np.array([exact(lambda a: 1 / (1 + (-a).exp()), float(a)) for a in x])
    np.testing.assert_allclose(sigmoid(x), expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    assert sigmoid(x).dtype == dtype


def test_sigmoid_grad_keeps_its_digits_where_the_sigmoid_is_1(dtype):
    x = np.array(ARGUMENTS, dtype)
    expected = np.array([exact(lambda a: (-a).exp() / (1 + (-a).exp()) ** 2, float(a)) for a in x])
    np.testing.assert_allclose(sigmoid_grad(x), expected, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
    assert sigmoid_grad(x).dtype == dtype


def test_relu_and_its_gradient(dtype):
    x = np.array([-np.inf, -2.0, -0.0, 0.0, 3.0, np.inf], dtype)
    assert_close(relu(x), [0, 0, 0, 0, 3, np.inf], dtype)
    assert_close(relu_grad(x), [0, 0, 0, 0, 1, 1], dtype)


def test_step_function():
    y = step_function(np.array([-1.0, 0.0, 2.0, np.nan]))
    np.testing.assert_array_equal(y, [0, 0, 1, 0])
    assert y.dtype == np.int64


def test_identity_function_returns_its_argument():
    x = np.ones(3)
    assert identity_function(x) is x


def test_softmax(dtype):
    x = np.array([[1.0, 2.0, 3.0], [-900.0, 0.0, 1.0], [5.0, 5.0, 5.0], [1e4, -1e4, 0.0]], dtype)
    assert_close(softmax(x), [exact_softmax([float(a) for a in row]) for row in x], dtype)


def test_softmax_takes_the_last_axis_of_any_array():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    y = softmax(x)
    assert_close(y, [[exact_softmax(row) for row in plane] for plane in x.tolist()], np.float64)
    assert_close(softmax(x[0, 0]), y[0, 0], np.float64)


def test_softmax_of_an_empty_batch():
    assert softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_impossible_classes_get_nothing():
    assert_close(softmax(np.array([0.0, -np.inf, 0.0])), [0.5, 0, 0.5], np.float64)


ELEMENTWISE = [relu, relu_grad, sigmoid, sigmoid_grad, softmax]


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_nan_stays_nan(function):
    y = function(np.array([np.nan, np.nan]))
    np.testing.assert_array_equal(y, [0, 0] if function is relu_grad else [np.nan, np.nan])


@pytest.mark.parametrize("function", [*ELEMENTWISE, step_function])
def test_arguments_are_not_changed_and_may_be_of_any_strides(function):
    base = np.random.default_rng(0).normal(size=(6, 8))
    view = base[::2, ::-2]
    expected, before = function(view.copy()), base.copy()
    base.flags.writeable = False
    np.testing.assert_array_equal(function(view), expected)
    np.testing.assert_array_equal(base, before)
    assert not np.may_share_memory(function(base), base)


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_integers_become_float32_and_fractions_float64(function):
    assert function(np.array([1, 2])).dtype == np.float32
    assert function([1.5, 2.0]).dtype == np.float64


@pytest.mark.parametrize("function", [relu, relu_grad, sigmoid, sigmoid_grad, step_function])
def test_a_number_is_an_array_without_axes(function):
    assert np.shape(function(2.0)) == ()
    assert function(2.0) == function(np.array([2.0]))[0]


@pytest.mark.parametrize("function", [*ELEMENTWISE, step_function])
@pytest.mark.parametrize("x", [np.array([1j]), np.array(["a"]), np.array([None]), np.ones(2, np.float16), "text", None])
def test_what_holds_no_real_numbers_is_refused(function, x):
    with pytest.raises(TypeError, match=rf"^{function.__name__}: x must be"):
        function(x)


@pytest.mark.parametrize("x", [np.float64(1.0), np.zeros((3, 0))])
def test_softmax_without_classes_is_refused(x):
    with pytest.raises(ValueError, match=r"^softmax: the last axis of x must hold the classes, got x.shape=\("):
        softmax(x)


# ----------------------------------------------------------------------------------------------------------------------
# Squared error
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [sum_squared_error, mean_squared_error])
def test_squared_error_is_half_the_sum(function):
    y, t = np.array([[0.1, 0.6, 0.3], [1.0, 0.0, 0.0]]), np.array([[0, 1, 0], [0, 1, 0]])
    assert function(y, t) == pytest.approx(0.5 * (0.01 + 0.16 + 0.09 + 1 + 1), rel=1e-15)
    assert isinstance(function(y, t), float)


@pytest.mark.parametrize("function", [sum_squared_error, mean_squared_error])
def test_squared_error_broadcasts_nothing(function):
    with pytest.raises(ValueError, match=rf"^{function.__name__}: y and t must have the same shape, .*\(3, 1\).*\(3,\)"):
        function(np.ones((3, 1)), np.ones(3))


# ----------------------------------------------------------------------------------------------------------------------
# Cross entropy
# ----------------------------------------------------------------------------------------------------------------------

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25], [0.05, 0.9, 0.05]])
CLASSES = np.array([0, 2, 0, 2])
CROSS_ENTROPY = -(math.log(0.7) + math.log(0.8) + math.log(0.25) + math.log(0.05)) / 4

LABELS = {
    "classes": CLASSES,
    "uint8": CLASSES.astype(np.uint8),
    "float classes": CLASSES.astype(np.float64),
    "a column": CLASSES[:, None],
    "one-hot": np.eye(3)[CLASSES],
    "one-hot integers": np.eye(3, dtype=int)[CLASSES],
    "a list": CLASSES.tolist(),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_cross_entropy_takes_every_form_of_labels(labels, dtype):
    assert cross_entropy_error(PROBABILITIES.astype(dtype), labels) == pytest.approx(CROSS_ENTROPY, rel=1e-6)
    assert softmax_loss(np.log(PROBABILITIES).astype(dtype), labels) == pytest.approx(CROSS_ENTROPY, rel=1e-6)


def test_labels_that_are_probabilities():
    t = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.9, 0.0]])
    expected = -(t * np.log(PROBABILITIES)).sum() / 4
    assert cross_entropy_error(PROBABILITIES, t) == pytest.approx(expected, rel=1e-14)
    assert softmax_loss(np.log(PROBABILITIES) + 3, t) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("label", [2, [2], [0, 0, 1], np.int64(2), np.array([0.0, 0.0, 1.0])])
def test_one_sample_without_the_axis_of_the_batch(label):
    y = PROBABILITIES[1]
    assert cross_entropy_error(y, label) == pytest.approx(-math.log(0.8), rel=1e-15)
    assert softmax_loss(np.log(y), label) == pytest.approx(-math.log(0.8), rel=1e-15)


@pytest.mark.parametrize("probability", [1e-7, 1e-20, 1e-37])
def test_cross_entropy_of_tiny_probabilities(probability, dtype):
    y = np.array([[probability, 1 - probability]], dtype)
    assert cross_entropy_error(y, [0]) == pytest.approx(-math.log(probability), rel=1e-6)


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 87.3365447), (np.float64, 708.3964185)])
def test_a_probability_of_0_costs_the_logarithm_of_the_smallest_normal_number(dtype, limit):
    assert cross_entropy_error(np.array([[0, 1]], dtype), [0]) == pytest.approx(limit, rel=1e-7)
    assert cross_entropy_error(np.array([[0, 1]], dtype), [[0, 1]]) == 0


def test_softmax_loss_has_no_limit(dtype):
    scores = np.array([[0.0, 30000.0], [0.0, 20.0]], dtype)
    assert softmax_loss(scores, [0, 0]) == pytest.approx((30000 + 20 + math.log1p(math.exp(-20))) / 2, rel=1e-6)
    assert softmax_loss(scores, [1, 1]) == pytest.approx(math.log1p(math.exp(-20)) / 2, rel=1e-6, abs=1e-7)


def test_an_impossible_class_costs_nothing_where_no_label_asks_for_it():
    scores = np.array([[0.0, -np.inf, 0.0]])
    assert softmax_loss(scores, [[1, 0, 0]]) == pytest.approx(math.log(2), rel=1e-15)
    assert softmax_loss(scores, [0]) == pytest.approx(math.log(2), rel=1e-15)


def test_the_mean_of_many_float32_losses_is_exact():
    y = np.full((1_000_000, 2), 0.5, np.float32)
    assert cross_entropy_error(y, np.zeros(1_000_000, int)) == pytest.approx(float(np.float32(math.log(2))), rel=1e-12)


def test_nan_probabilities_give_nan():
    assert math.isnan(cross_entropy_error(np.array([[np.nan, 0.5]]), [0]))
    assert math.isnan(softmax_loss(np.array([[np.nan, 0.5]]), [0]))


LOSSES = [(cross_entropy_error, "y"), (softmax_loss, "X")]


@pytest.mark.parametrize(("loss", "name"), LOSSES)
@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, -1], [0, 1, 2, 0.5], np.ones((4, 3)), np.eye(4)[:, :2]])
def test_labels_that_do_not_fit_are_refused(loss, name, labels):
    with pytest.raises(ValueError, match=rf"^{loss.__name__}: "):
        loss(PROBABILITIES, labels)


@pytest.mark.parametrize(("loss", "name"), LOSSES)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3, 4), ()])
def test_scores_without_samples_or_classes_are_refused(loss, name, shape):
    with pytest.raises(ValueError, match=rf"^{loss.__name__}: {name} must be \(N, classes\), .*got {name}.shape="):
        loss(np.ones(shape), np.zeros(shape[:1], int))


@pytest.mark.parametrize("y", [[[2.0, -1.0]], [[0.5, 1.5]], [[-0.1, 0.9]]])
def test_cross_entropy_of_what_are_no_probabilities_is_refused(y):
    with pytest.raises(ValueError, match=r"^cross_entropy_error: y must be probabilities, got values from .*softmax_loss"):
        cross_entropy_error(y, [0])


def test_every_function_is_listed():
    public = {name for name, value in vars(functions).items() if getattr(value, "__module__", "") == functions.__name__}
    assert {name for name in public if not name.startswith("_")} == set(functions.__all__)
