"""Losses against their formulas, written out sample by sample in float64, against PyTorch, and against central differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import MEMORY_LAYOUTS, Array, assert_close

import xpconv as xc
from xpconv import losses
from xpconv.labels import to_categorical
from xpconv.layers.tape import Run, running
from xpconv.losses import Loss

EPSILON = 1e-7


@pytest.fixture
def used(device: str) -> Iterator[str]:
    """The device, as the default one."""
    xc.set_default_device(device)
    yield device
    xc.set_default_device(None)


def moved(array: Any, device: str) -> Any:
    return xc.asarray(array, device=device) if isinstance(array, np.ndarray) else array


# ----------------------------------------------------------------------------------------------------------------------
# The formulas, for the predictions p (or scores) and labels t of one sample
# ----------------------------------------------------------------------------------------------------------------------


def mean(terms: list[float]) -> float:
    return math.fsum(terms) / len(terms)


def clipped(p: float) -> float:
    return min(max(p, EPSILON), 1 - EPSILON)


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def log_softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    total = math.log(math.fsum(math.exp(score - top) for score in scores))
    return [score - top - total for score in scores]


def huber(e: float, delta: float) -> float:
    return e * e / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2)


def binary(t: float, p: float) -> float:
    return -(t * math.log(clipped(p)) + (1 - t) * math.log(1 - clipped(p)))


def binary_scores(t: float, z: float) -> float:
    return max(z, 0) - z * t + math.log1p(math.exp(-abs(z)))


def categorical(t: list[float], p: list[float]) -> float:
    return -math.fsum(a * math.log(clipped(b / math.fsum(p))) for a, b in zip(t, p, strict=True))


def categorical_scores(t: list[float], z: list[float]) -> float:
    return -math.fsum(a * b for a, b in zip(t, log_softmax(z), strict=True))


def smooth(t: list[float], amount: float) -> list[float]:
    return [a * (1 - amount) + amount / len(t) for a in t]


def pairs(formula: Callable[[float, float], float]) -> Callable[[Any, Any], float]:
    return lambda t, p: mean([formula(a, b) for a, b in zip(t, p, strict=True)])


class Case(NamedTuple):
    loss: Callable[..., Loss]
    formula: Callable[[Any, Any], float]
    labels: str  # numbers, binary, signs, counts, rows, classes
    scores: bool  # whether predictions are any numbers; else they are from 0 to 1


CASES = {
    "mse": Case(losses.MeanSquaredError, pairs(lambda t, p: (t - p) ** 2), "numbers", True),
    "mae": Case(losses.MeanAbsoluteError, pairs(lambda t, p: abs(t - p)), "numbers", True),
    "mape": Case(
        losses.MeanAbsolutePercentageError, pairs(lambda t, p: 100 * abs(t - p) / max(abs(t), EPSILON)), "numbers", True
    ),
    "huber": Case(losses.Huber, pairs(lambda t, p: huber(p - t, 1)), "numbers", True),
    "huber 0.3": Case(lambda **o: losses.Huber(0.3, **o), pairs(lambda t, p: huber(p - t, 0.3)), "numbers", True),
    "log cosh": Case(losses.LogCosh, pairs(lambda t, p: math.log(math.cosh(p - t))), "numbers", True),
    "poisson": Case(losses.Poisson, pairs(lambda t, p: p - t * math.log(p + EPSILON)), "counts", False),
    "hinge": Case(losses.Hinge, pairs(lambda t, p: max(1 - t * p, 0)), "signs", True),
    "hinge of 0": Case(losses.Hinge, pairs(lambda t, p: max(1 - (2 * t - 1) * p, 0)), "binary", True),
    "kl": Case(
        losses.KLDivergence,
        lambda t, p: math.fsum(max(a, EPSILON) * math.log(max(a, EPSILON) / b) for a, b in zip(t, p, strict=True)),
        "rows",
        False,
    ),
    "binary": Case(losses.BinaryCrossentropy, pairs(binary), "binary", False),
    "binary scores": Case(lambda **o: losses.BinaryCrossentropy(from_logits=True, **o), pairs(binary_scores), "binary", True),
    "binary smooth": Case(
        lambda **o: losses.BinaryCrossentropy(label_smoothing=0.2, **o),
        pairs(lambda t, p: binary(0.8 * t + 0.1, p)),
        "binary",
        False,
    ),
    "binary scores smooth": Case(
        lambda **o: losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2, **o),
        pairs(lambda t, z: binary_scores(0.8 * t + 0.1, z)),
        "binary",
        True,
    ),
    "categorical": Case(losses.CategoricalCrossentropy, categorical, "rows", False),
    "categorical scores": Case(
        lambda **o: losses.CategoricalCrossentropy(from_logits=True, **o), categorical_scores, "rows", True
    ),
    "categorical smooth": Case(
        lambda **o: losses.CategoricalCrossentropy(label_smoothing=0.3, **o),
        lambda t, p: categorical(smooth(t, 0.3), p),
        "rows",
        False,
    ),
    "categorical scores smooth": Case(
        lambda **o: losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3, **o),
        lambda t, z: categorical_scores(smooth(t, 0.3), z),
        "rows",
        True,
    ),
    "sparse": Case(
        losses.SparseCategoricalCrossentropy,
        lambda t, p: -math.log(clipped(p[t]) / math.fsum(map(clipped, p))),
        "classes",
        False,
    ),
    "sparse scores": Case(
        lambda **o: losses.SparseCategoricalCrossentropy(from_logits=True, **o),
        lambda t, z: -log_softmax(z)[t],
        "classes",
        True,
    ),
}


def drawn(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    """Labels and predictions that float32 holds exactly."""
    classes = shape[-1]
    if case.labels == "numbers":
        labels: Array = rng.choice([-1.5, -0.75, 0.5, 1.25], shape)
    elif case.labels == "binary":
        labels = rng.integers(0, 2, shape)
    elif case.labels == "signs":
        labels = rng.choice([-1, 1], shape)
    elif case.labels == "counts":
        labels = rng.integers(0, 5, shape)
    elif case.labels == "classes":
        labels = rng.integers(0, classes, shape[:-1])
    else:
        labels = rng.integers(0, 17, shape) / 16
        labels[..., -1] = 1 - labels[..., :-1].sum(axis=-1) / classes
        labels[..., :-1] /= classes
    if case.scores:
        predictions = 2 * rng.standard_normal(shape, np.float32).astype(np.float64)
    else:
        predictions = rng.random(shape, np.float32).astype(np.float64) * 0.75 + 0.125
    return labels, predictions


def expected_losses(case: Case, labels: Array, predictions: Array) -> Array:
    classes = predictions.shape[-1]
    rows = predictions.reshape(-1, classes).tolist()
    of_rows = labels.reshape(-1).tolist() if case.labels == "classes" else labels.reshape(-1, classes).tolist()
    values = [case.formula(t, p) for t, p in zip(of_rows, rows, strict=True)]
    return np.array(values).reshape(predictions.shape[:-1])


def expected_value(of_samples: Array, weights: Any, reduction: str | None) -> Any:
    weights = np.asarray(1 if weights is None else weights, dtype=np.float64)
    weights = weights.reshape(weights.shape + (1,) * (of_samples.ndim - weights.ndim))
    weighted = of_samples * weights
    if reduction in (None, "none"):
        return weighted
    total = math.fsum(weighted.reshape(-1).tolist())
    return total if reduction == "sum" else total / of_samples.size


SHAPES = [(6, 4), (2, 3, 5)]
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "none", None]


def weights_for(shape: tuple[int, ...], rng: np.random.Generator) -> list[Any]:
    of_samples = shape[:-1]
    return [None, 2.0, rng.integers(0, 9, of_samples[:1]) / 8, rng.integers(0, 9, of_samples) / 8]


def central_differences(function: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    gradient = np.empty_like(x)
    for at in np.ndindex(x.shape):
        there, back = x.copy(), x.copy()
        there[at] += step
        back[at] -= step
        gradient[at] = (function(there) - function(back)) / (2 * step)
    return gradient


# ----------------------------------------------------------------------------------------------------------------------
# Values and gradients
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_values(name: str, shape: tuple[int, ...], used: str, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    case = CASES[name]
    labels, predictions = drawn(case, shape, rng)
    of_samples = expected_losses(case, labels, predictions)
    y_true, y_pred = moved(labels, used), moved(predictions.astype(dtype), used)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    assert_close(case.loss().values(y_true, y_pred), of_samples, dtype, terms=30)
    for weights in weights_for(shape, rng):
        for reduction in REDUCTIONS:
            value = case.loss(reduction=reduction)(y_true, y_pred, moved(weights, used))
            expected = expected_value(of_samples, weights, reduction)
            if reduction in (None, "none"):
                assert_close(value, expected, dtype, terms=30)
            else:
                if used != "cuda":
                    assert type(value) is float
                assert float(value) == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, shape: tuple[int, ...], used: str, rng: np.random.Generator) -> None:
    case = CASES[name]
    labels, predictions = drawn(case, shape, rng)
    y_true = moved(labels, used)
    for weights in weights_for(shape, rng):
        for reduction in ("mean", "sum", None):
            loss = case.loss(reduction=reduction)

            def value(x: Array, weights: Any = weights, reduction: str | None = reduction) -> float:
                return float(np.sum(expected_value(expected_losses(case, labels, x), weights, reduction)))

            got, gradient = loss.value_and_gradient(y_true, moved(predictions, used), moved(weights, used))
            assert float(np.sum(xc.to_numpy(got))) == pytest.approx(value(predictions), rel=1e-11, abs=1e-12)
            gradient = xc.to_numpy(gradient)
            assert gradient.dtype == np.float64
            assert gradient.shape == shape
            np.testing.assert_allclose(gradient, central_differences(value, predictions), rtol=2e-7, atol=2e-8, equal_nan=False)


@pytest.mark.parametrize("name", CASES)
def test_float32_gradient_is_that_of_float64(name: str, used: str, rng: np.random.Generator) -> None:
    case = CASES[name]
    labels, predictions = drawn(case, (5, 3), rng)
    weights = rng.random(5)
    for given in (None, weights):
        _, wide = case.loss().value_and_gradient(moved(labels, used), moved(predictions, used), moved(given, used))
        _, narrow = case.loss().value_and_gradient(
            moved(labels, used), moved(predictions.astype(np.float32), used), moved(given, used)
        )
        assert_close(narrow, xc.to_numpy(wide), np.float32, terms=30)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_against_torch(smoothing: float, reduction: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    scores = rng.normal(size=(7, 5))
    classes = rng.integers(0, 5, 7)
    rows = rng.dirichlet(np.ones(5), 7)
    binary_labels = rng.integers(0, 2, (7, 5)).astype(np.float64)

    def compared(loss: Loss, labels: Array, oracle: Callable[[Any], Any]) -> None:
        leaf = torch.tensor(scores, requires_grad=True)
        expected = oracle(leaf)
        expected.sum().backward()
        value, gradient = loss.value_and_gradient(labels, scores)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, equal_nan=False)
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-11, atol=1e-15, equal_nan=False)

    compared(
        losses.CategoricalCrossentropy(True, smoothing, reduction=reduction),
        rows,
        lambda z: functional.cross_entropy(z, torch.tensor(rows), label_smoothing=smoothing, reduction=reduction),
    )
    if smoothing:
        return
    compared(
        losses.SparseCategoricalCrossentropy(True, reduction=reduction),
        classes,
        lambda z: functional.cross_entropy(z, torch.tensor(classes), reduction=reduction),
    )
    # As torch takes its means over the samples that are not ignored, so does Keras.
    compared(
        losses.SparseCategoricalCrossentropy(True, ignore_class=2, reduction=reduction),
        classes,
        lambda z: functional.cross_entropy(z, torch.tensor(classes), ignore_index=2, reduction=reduction),
    )
    with_rows = {"mean": lambda x: x.mean(), "sum": lambda x: x.mean(1).sum(), "none": lambda x: x.mean(1)}[reduction]
    target = torch.tensor(binary_labels)
    for loss, oracle in [
        (losses.BinaryCrossentropy(True, reduction=reduction), functional.binary_cross_entropy_with_logits),
        (losses.MeanSquaredError(reduction=reduction), functional.mse_loss),
        (losses.MeanAbsoluteError(reduction=reduction), functional.l1_loss),
        (losses.Huber(0.7, reduction=reduction), lambda z, t, reduction: functional.huber_loss(z, t, reduction, 0.7)),
    ]:
        compared(loss, binary_labels, lambda z, oracle=oracle: with_rows(oracle(z, target, reduction="none")))


def test_formulas_of_the_tutorial(rng: np.random.Generator) -> None:
    predictions = rng.normal(size=(32, 1)).astype(np.float32)
    labels = rng.normal(size=(32, 1)).astype(np.float32)
    assert losses.MeanSquaredError()(labels, predictions) == pytest.approx(np.mean((labels - predictions) ** 2), rel=1e-6)
    predictions = rng.random((10, 1), np.float32)
    labels = rng.integers(0, 2, (10, 1), np.int32)
    manual = np.mean(-(labels * np.log(predictions) + (1 - labels) * np.log(1 - predictions)))
    assert losses.BinaryCrossentropy()(labels, predictions) == pytest.approx(manual, rel=1e-5)


@pytest.mark.parametrize("name", ["categorical scores", "sparse scores", "categorical scores smooth"])
def test_kernels_and_formulas_agree(name: str, used: str, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    # Weights of 1 take the other way through the code.
    case = CASES[name]
    labels, predictions = drawn(case, (9, 5), rng)
    y_true, y_pred = moved(labels, used), moved(predictions.astype(dtype), used)
    value, gradient = case.loss().value_and_gradient(y_true, y_pred)
    plain_value, plain_gradient = case.loss().value_and_gradient(y_true, y_pred, moved(np.ones(9), used))
    assert float(value) == pytest.approx(float(plain_value), rel=1e-5 if dtype == np.float32 else 1e-13)
    assert_close(gradient, xc.to_numpy(plain_gradient).astype(np.float64), dtype)


@pytest.mark.parametrize("layout", MEMORY_LAYOUTS)
def test_arrays_in_any_memory(layout: str, used: str, rng: np.random.Generator) -> None:
    if used == "cuda":
        pytest.skip("NumPy's memory")
    store = MEMORY_LAYOUTS[layout]
    classes, scores = rng.integers(0, 5, 8), rng.normal(size=(8, 5))
    for loss, labels in [
        (losses.CategoricalCrossentropy(from_logits=True), np.eye(5)[classes]),
        (losses.SparseCategoricalCrossentropy(from_logits=True), classes),
    ]:
        stored = labels[::-1].copy()[::-1] if labels.ndim == 1 and layout == "other axis order" else store(labels)
        value, gradient = loss.value_and_gradient(stored, store(scores))
        expected = loss.value_and_gradient(labels, scores)
        assert value == expected[0]
        np.testing.assert_array_equal(gradient, expected[1])


def test_inputs_are_not_changed(rng: np.random.Generator) -> None:
    for case in CASES.values():
        labels, predictions = drawn(case, (4, 3), rng)
        labels.flags.writeable = predictions.flags.writeable = False
        case.loss().value_and_gradient(labels, predictions)
        case.loss().value_and_gradient(labels, predictions, np.ones(4))


def test_sum_is_accurate() -> None:
    # Squares of 2 ** 24 and 1: float32 would lose every single 1.
    predictions = np.array([[4096], [1], [1], [1], [1]], np.float32)
    zeros = np.zeros((5, 1), np.float32)
    assert losses.MeanSquaredError(reduction="sum")(zeros, predictions) == 2**24 + 4
    assert losses.MeanSquaredError(reduction="sum")(zeros, predictions, np.ones(5)) == 2**24 + 4


def test_the_device_of_the_run_computes(used: str, rng: np.random.Generator) -> None:
    xc.set_default_device(None)
    place = xc.get_device(used)
    run = Run(place, np.dtype(np.float32), rng, training=True, remember=True)
    scores = moved(rng.normal(size=(3, 4)).astype(np.float32), used)
    with running(run):
        value, gradient = losses.SparseCategoricalCrossentropy(True).value_and_gradient(np.array([0, 1, 2]), scores)
        np.testing.assert_array_equal(
            xc.to_numpy(gradient),
            xc.to_numpy(
                place.kernels.softmax_cross_entropy_backward(
                    place.kernels.softmax_cross_entropy_forward(scores, moved(np.array([0, 1, 2]), used))[1],
                    moved(np.array([0, 1, 2]), used),
                    1.0,
                )
            ),
        )
    assert float(value) > 0


# ----------------------------------------------------------------------------------------------------------------------
# Extremes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, np.ones(2)], ids=["kernel", "formula"])
def test_extreme_scores(weights: Any, used: str, dtype: np.dtype[Any]) -> None:
    scores = moved(np.array([[1000, -1000], [1000, -1000]], dtype), used)
    weights = moved(weights, used)
    for loss, labels in [
        (losses.CategoricalCrossentropy(from_logits=True), np.array([[0, 1], [1, 0]])),
        (losses.SparseCategoricalCrossentropy(from_logits=True), np.array([1, 0])),
    ]:
        value, gradient = loss.value_and_gradient(moved(labels, used), scores, weights)
        assert float(value) == 1000
        np.testing.assert_array_equal(xc.to_numpy(gradient), [[0.5, -0.5], [0, 0]])
    labels = moved(np.array([[0, 0], [1, 0]]), used)
    value, gradient = losses.BinaryCrossentropy(from_logits=True).value_and_gradient(labels, scores, weights)
    assert float(value) == 250
    np.testing.assert_array_equal(xc.to_numpy(gradient), [[0.25, 0], [0, 0]])


def test_infinite_scores_of_impossible_classes() -> None:
    scores = np.array([[-np.inf, 0.0, 0.0]])
    for weights in (None, [1.0]):
        value, gradient = losses.SparseCategoricalCrossentropy(True).value_and_gradient([1], scores, weights)
        assert value == pytest.approx(math.log(2))
        np.testing.assert_allclose(gradient, [[0, -0.5, 0.5]], equal_nan=False)
    value, gradient = losses.BinaryCrossentropy(True).value_and_gradient([[1.0, 0.0]], [[np.inf, -np.inf]])
    assert value == 0
    np.testing.assert_array_equal(gradient, [[0, 0]])


@pytest.mark.parametrize("p", [0.0, 1e-9])
def test_extreme_probabilities(p: float, used: str) -> None:
    # As on TensorFlow: the value is clipped, and where it is, there is no slope.
    predictions = moved(np.array([[p, 1 - p]]), used)
    least = -math.log(EPSILON)
    for loss, labels, expected in [
        (losses.CategoricalCrossentropy(), np.array([[1, 0]]), least),
        (losses.SparseCategoricalCrossentropy(), np.array([0]), least),
        (losses.BinaryCrossentropy(), np.array([[1, 0]]), least),
        (losses.BinaryCrossentropy(), np.array([[0, 1]]), -math.log(1 - EPSILON)),
    ]:
        value, gradient = loss.value_and_gradient(moved(labels, used), predictions)
        assert float(value) == pytest.approx(expected, rel=1e-8)
        np.testing.assert_array_equal(xc.to_numpy(gradient), [[0, 0]])


def test_slope_at_the_border_of_clipping() -> None:
    p = np.array([[EPSILON, 1 - EPSILON]])
    _, gradient = losses.CategoricalCrossentropy().value_and_gradient([[1.0, 0.0]], p)
    np.testing.assert_allclose(gradient, [[-9.999999e6, 1.0]], rtol=1e-6, equal_nan=False)


@pytest.mark.parametrize("name", CASES)
def test_nan_is_told(name: str, rng: np.random.Generator) -> None:
    case = CASES[name]
    labels, predictions = drawn(case, (3, 4), rng)
    predictions[1, 2] = np.nan
    for weights in (None, np.ones(3)):
        value, gradient = case.loss().value_and_gradient(labels, predictions, weights)
        assert math.isnan(value)
        assert np.isnan(gradient[1, 2])
        assert np.isfinite(gradient[[0, 2]]).all()


def test_ties_have_the_slope_of_tensorflow() -> None:
    assert losses.MeanAbsoluteError().value_and_gradient([[1.0]], [[1.0]])[1] == 0
    assert losses.Hinge().value_and_gradient([[1.0]], [[1.0]])[1] == -1
    assert losses.Huber().value_and_gradient([[0.0]], [[1.0]])[1] == 1


def test_small_differences_of_log_cosh_survive() -> None:
    value = losses.LogCosh()(np.zeros((1, 1), np.float32), np.full((1, 1), 1e-4, np.float32))
    assert value == pytest.approx(5e-9, rel=1e-5)


def test_an_empty_batch() -> None:
    value, gradient = losses.CategoricalCrossentropy(from_logits=True).value_and_gradient(np.zeros((0, 3)), np.zeros((0, 3)))
    assert value == 0
    assert gradient.shape == (0, 3)


# ----------------------------------------------------------------------------------------------------------------------
# Shapes, axes, ignored classes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "predictions", "of_samples"),
    [((4,), (4, 1), (4,)), ((4, 1), (4,), (4,)), ((4, 3, 1), (4, 3), (4,)), ((4, 3), (4, 3, 1), (4,)), ((4,), (4,), ())],
    ids=str,
)
def test_one_axis_more(
    labels: tuple[int, ...], predictions: tuple[int, ...], of_samples: tuple[int, ...], rng: np.random.Generator
) -> None:
    t, p = rng.normal(size=labels), rng.normal(size=predictions)
    squares = (t.reshape(-1) - p.reshape(-1)) ** 2
    loss = losses.MeanSquaredError()
    assert loss.values(t, p).shape == of_samples
    value, gradient = loss.value_and_gradient(t, p)
    assert value == pytest.approx(squares.mean())
    assert gradient.shape == predictions
    np.testing.assert_allclose(gradient.reshape(-1), 2 * (p.reshape(-1) - t.reshape(-1)) / t.size, equal_nan=False)
    # What was checked once is taken as it is, and so is what was not brought to the shape.
    for known in (loss.check(t, p.shape), t):
        assert loss.value_and_gradient(known, p, checked=True)[0] == value


@pytest.mark.parametrize("from_logits", [False, True])
def test_classes_along_another_axis(from_logits: bool, rng: np.random.Generator) -> None:
    scores = rng.normal(size=(2, 4, 3)) if from_logits else rng.dirichlet(np.ones(4), (2, 3)).transpose(0, 2, 1)
    classes = rng.integers(0, 4, (2, 3))
    rows = np.moveaxis(np.eye(4)[classes], -1, 1)
    weights = rng.random((2, 3))
    last = np.moveaxis(scores, 1, -1)
    rows_last = np.moveaxis(rows, 1, -1)
    sparse, categorical_loss, binary_loss = (
        losses.SparseCategoricalCrossentropy,
        losses.CategoricalCrossentropy,
        losses.BinaryCrossentropy,
    )
    for there, here, t, u in [
        (sparse(from_logits, axis=1), sparse(from_logits), classes, classes),
        (categorical_loss(from_logits, 0.1, 1), categorical_loss(from_logits, 0.1), rows, rows_last),
        (binary_loss(from_logits, 0.1, 1), binary_loss(from_logits, 0.1), rows, rows_last),
    ]:
        value, gradient = there.value_and_gradient(t, scores, weights)
        expected, of_last = here.value_and_gradient(u, last, weights)
        assert value == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(np.moveaxis(gradient, 1, -1), of_last, rtol=1e-12, atol=1e-16, equal_nan=False)


@pytest.mark.parametrize("ignored", [-1, 1, 255])
def test_ignored_class(ignored: int, used: str, rng: np.random.Generator) -> None:
    classes = np.array([0, ignored, 2, ignored, 0])
    scores = rng.normal(size=(5, 3))
    scores[1] = np.nan  # says nothing, either
    counted = classes != ignored
    weights = rng.random(5)
    plain = losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    for given in (None, weights):
        kept = None if given is None else moved(given[counted], used)
        expected, of_counted = plain.value_and_gradient(moved(classes[counted], used), moved(scores[counted], used), kept)
        for reduction, divisor in (("sum", 1), ("mean", 3)):
            loss = losses.SparseCategoricalCrossentropy(True, ignored, reduction)
            value, gradient = loss.value_and_gradient(moved(classes, used), moved(scores, used), moved(given, used))
            assert float(value) == pytest.approx(float(expected) / divisor, rel=1e-12)
            gradient = xc.to_numpy(gradient)
            np.testing.assert_array_equal(gradient[~counted], 0)
            np.testing.assert_allclose(gradient[counted] * divisor, xc.to_numpy(of_counted), rtol=1e-12, equal_nan=False)
    nothing = losses.SparseCategoricalCrossentropy(True, ignored)
    assert float(nothing(moved(np.full(5, ignored), used), moved(scores, used))) == 0


def test_weights_of_other_shapes(rng: np.random.Generator) -> None:
    t, p = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))
    of_samples = ((t - p) ** 2).mean(axis=-1)
    loss = losses.MeanSquaredError()
    weights = rng.random(4)
    for given in (weights, weights[:, None], np.repeat(weights[:, None], 3, axis=1)[..., None]):
        assert loss(t, p, given) == pytest.approx((of_samples * weights[:, None]).sum() / 12)
    assert loss(t, p, np.array([[1, 0, 2]])) == pytest.approx((of_samples * [1, 0, 2]).sum() / 12)
    for wrong in ((3,), (4, 2), (4, 3, 2), (1, 4, 3)):
        with pytest.raises(ValueError, match=r"mean_squared_error: sample_weight must have the shape .*\(4, 3\)"):
            loss(t, p, np.ones(wrong))
    with pytest.raises(ValueError, match=r"single sample, make them \(N, 1\)"):
        loss(np.zeros(4), np.ones(4), np.ones(4))
    with pytest.raises(TypeError, match="sample_weight must hold real numbers"):
        loss(t, p, np.ones(4, complex))


# ----------------------------------------------------------------------------------------------------------------------
# What is refused
# ----------------------------------------------------------------------------------------------------------------------

HALF = np.full((3, 4), 0.25)
ROWS, CLASSES = "categorical_crossentropy", "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "text"),
    [
        ("mse", np.zeros((3, 5)), HALF, r"same shape, got y_true.shape=\(3, 5\) and y_pred.shape=\(3, 4\)"),
        ("mse", np.zeros((3, 1)), HALF, r"y_true.shape=\(3, 1\)"),
        ("mse", np.zeros((1, 4)), HALF, r"y_true.shape=\(1, 4\)"),
        ("mse", np.zeros(3), HALF, r"y_true.shape=\(3,\)"),
        ("mse", np.full((3, 4), np.nan), HALF, r"finite numbers, got y_true\[0, 0\] = nan \(12 of 12 are wrong"),
        ("mse", np.zeros((3, 0)), np.zeros((3, 0)), "must have values along axis -1"),
        (ROWS, np.array([0, 1, 2]), HALF, r"sparse_categorical_crossentropy, or to_categorical\(y_true, 4"),
        (ROWS, np.array([[0], [1], [2]]), HALF, r"sparse_categorical_crossentropy, or to_cat"),
        (ROWS, np.eye(4)[:2], HALF, r"y_true.shape=\(2, 4\)"),
        (ROWS, np.ones((3, 4)), HALF, r"sum to 1, got y_true\[0\] = \[1.0, 1.0, .*binary_cross"),
        (ROWS, np.eye(4)[:3] * np.nan, HALF, "probabilities that sum to 1, got"),
        (ROWS, [[2, -1, 0, 0]] * 3, HALF, "probabilities that sum to 1, got"),
        (ROWS, np.ones((3, 1)), np.ones((3, 1)), "at least two classes.*binary_crossentropy"),
        (CLASSES, np.eye(4)[:3], HALF, r"categorical_crossentropy, or class numbers y_true.argmax\(-1\)"),
        (CLASSES, [0, 1, 4], HALF, r"whole numbers from 0 to 3, got y_true\[2\] = 4 \(1 of 3"),
        (CLASSES, [0, -1, 3], HALF, r"y_true\[1\] = -1"),
        (CLASSES, [0, 1.5, 3], HALF, r"y_true\[1\] = 1.5"),
        (CLASSES, [0, np.nan, 3], HALF, r"y_true\[1\] = nan"),
        (CLASSES, [0, 1], HALF, r"y_true.shape=\(2,\) and y_pred.shape=\(3, 4\)"),
        (CLASSES, [0, 0, 0], np.ones((3, 1)), "at least two classes"),
        ("binary_crossentropy", np.full((3, 4), 2), HALF, r"from 0 to 1, got y_true\[0, 0\] = 2 .*sparse_categorical"),
        ("binary_crossentropy", np.full((3, 4), np.nan), HALF, "from 0 to 1, got"),
        ("binary_crossentropy", np.array([0, 1, 1]), HALF, "sparse_categorical_crossentropy, or to_categorical"),
        ("hinge", [[-1, 0, 1, 1]] * 3, HALF, "not both -1 and 0"),
        ("hinge", np.full((3, 4), 2), HALF, "-1 and 1, or 0 and 1"),
        ("poisson", np.full((3, 4), -1), HALF, "counts, at least 0"),
        ("kl_divergence", np.full((3, 4), 1.5), HALF, "probabilities from 0 to 1"),
    ],
)  # fmt: skip
def test_wrong_labels(name: str, labels: Any, predictions: Any, text: str) -> None:
    loss = losses.get(name)
    assert loss is not None
    with pytest.raises(ValueError, match=rf"^{loss.name}: .*{text}"):
        loss(labels, predictions)
    with pytest.raises(ValueError, match=text):
        loss.value_and_gradient(labels, predictions)


def test_a_whole_set_is_checked_once() -> None:
    rows = np.eye(10)[np.arange(1000) % 10]
    categorical_loss, sparse_loss = losses.CategoricalCrossentropy(), losses.SparseCategoricalCrossentropy()
    assert categorical_loss.check(rows, (None, 10)) is rows
    classes = sparse_loss.check(np.arange(1000.0)[:, None] % 10, (None, 10))
    assert (classes.shape, classes.dtype) == ((1000,), np.int64)
    with pytest.raises(ValueError, match="same samples"):
        categorical_loss.value_and_gradient(rows[:1], np.full((3, 10), 0.1), checked=True)
    with pytest.raises(ValueError, match="same samples"):
        sparse_loss.value_and_gradient(classes[:1], np.full((3, 10), 0.1), checked=True)
    rows[7] = 0
    with pytest.raises(ValueError, match=r"y_true\[7\]"):
        categorical_loss.check(rows, (None, 10))
    assert categorical_loss.check(rows, (None, 10), values=False) is rows


def test_wrong_types() -> None:
    loss = losses.MeanSquaredError()
    with pytest.raises(TypeError, match="y_true must hold real numbers"):
        loss(np.zeros((2, 1), complex), np.zeros((2, 1)))
    with pytest.raises(TypeError, match="y_pred"):
        loss(np.zeros((2, 1)), "text")
    with pytest.raises(ValueError, match="no axis"):
        loss(np.zeros(()), np.zeros(()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.MeanSquaredError(reduction="average"),
        lambda: losses.Huber(delta=0),
        lambda: losses.Huber(delta=math.nan),
        lambda: losses.BinaryCrossentropy(label_smoothing=1.5),
        lambda: losses.CategoricalCrossentropy(label_smoothing=math.nan),
        lambda: losses.get("mean_square_error"),
        lambda: losses.get({"config": {}}),
        lambda: losses.CategoricalCrossentropy(axis=3)(HALF, HALF),
    ],
)
def test_wrong_arguments(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.CategoricalCrossentropy(axis=True),
        lambda: losses.SparseCategoricalCrossentropy(ignore_class=1.5),
        lambda: losses.SparseCategoricalCrossentropy(from_logits="no"),  # type: ignore[arg-type]
        lambda: losses.BinaryCrossentropy(label_smoothing=True),
        lambda: losses.Huber(delta="1"),  # type: ignore[arg-type]
        lambda: losses.get(3),
    ],
)
def test_wrong_argument_types(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        make()


# ----------------------------------------------------------------------------------------------------------------------
# By name, and losses of one's own
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "cls"),
    [
        ("mse", losses.MeanSquaredError),
        ("MSE", losses.MeanSquaredError),
        ("MeanSquaredError", losses.MeanSquaredError),
        ("mean_absolute_error", losses.MeanAbsoluteError),
        ("huber", losses.Huber),
        ("binary_crossentropy", losses.BinaryCrossentropy),
        ("categorical_crossentropy", losses.CategoricalCrossentropy),
        ("sparse_categorical_crossentropy", losses.SparseCategoricalCrossentropy),
        (losses.categorical_crossentropy, losses.CategoricalCrossentropy),
        (losses.Huber, losses.Huber),
    ],
)
def test_get(identifier: Any, cls: type[Loss]) -> None:
    assert type(losses.get(identifier)) is cls


def test_get_the_rest() -> None:
    assert losses.get(None) is None
    loss = losses.Huber(2.0)
    assert losses.get(loss) is loss
    with pytest.raises(TypeError, match=r"compile: loss is 'own'.*derive a class from xpconv.losses.Loss"):

        def own(y_true: Array, y_pred: Array) -> Array:
            return y_true - y_pred

        losses.get(own, op="compile")
    with pytest.raises(ValueError, match="did you mean 'categorical_crossentropy'"):
        losses.get("categorical_crossentropie", op="compile")


@pytest.mark.parametrize("name", CASES)
def test_config(name: str, rng: np.random.Generator) -> None:
    case = CASES[name]
    loss = case.loss(reduction="sum", name="mine")
    config = loss.get_config()
    assert (config["name"], config["reduction"]) == ("mine", "sum")
    twin = losses.get({"class_name": type(loss).__name__, "config": config})
    assert twin is not None
    assert twin.get_config() == config
    labels, predictions = drawn(case, (4, 3), rng)
    assert twin(labels, predictions) == loss(labels, predictions)


@pytest.mark.parametrize("function", losses.OF_FUNCTION, ids=lambda function: function.__name__)
def test_functions(function: Callable[..., Any]) -> None:
    labels = np.array([0, 1]) if function is losses.sparse_categorical_crossentropy else np.array([[1, 0], [0, 1]])
    p = np.array([[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_array_equal(function(labels, p), losses.OF_FUNCTION[function]().values(labels, p))


@pytest.mark.parametrize(("activation", "kind"), [("softmax", "categorical"), ("softmax", "sparse"), ("sigmoid", "binary")])
def test_before_activation(activation: str, kind: str, rng: np.random.Generator) -> None:
    loss = CASES[kind].loss(reduction="sum")
    scores = rng.normal(size=(5, 3))
    labels, _ = drawn(CASES[kind], (5, 3), rng)
    p = np.array([softmax(row) for row in scores.tolist()]) if activation == "softmax" else 1 / (1 + np.exp(-scores))
    twin = loss.before_activation(activation)
    assert twin is not None
    assert twin(labels, scores) == pytest.approx(loss(labels, p), rel=1e-12)
    assert loss.get_config()["from_logits"] is False
    assert twin.before_activation(activation) is None
    assert loss.before_activation("relu") is None
    assert loss.before_activation({"softmax": "sigmoid", "sigmoid": "softmax"}[activation]) is None
    assert losses.CategoricalCrossentropy(axis=1).before_activation("softmax") is None
    assert losses.MeanSquaredError().before_activation("softmax") is None


class Quartic(Loss):
    def call(self, y_true: Array, y_pred: Array) -> Array:
        return np.asarray(((y_pred - y_true) ** 4).mean(axis=-1))

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        return 4 * (y_pred - y_true) ** 3 / y_pred.shape[-1]


def test_a_loss_of_ones_own(rng: np.random.Generator) -> None:
    t, p = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    weights = rng.random(4)
    value, gradient = Quartic().value_and_gradient(t, p, weights)
    assert value == pytest.approx((((p - t) ** 4).mean(axis=1) * weights).mean())
    np.testing.assert_allclose(gradient, 4 * (p - t) ** 3 / 12 * weights[:, None], rtol=1e-12, equal_nan=False)
    assert Quartic().name == "quartic"
    assert Quartic.from_config(Quartic(name="q").get_config()).name == "q"

    class Half(Loss):
        def call(self, y_true: Array, y_pred: Array) -> Array:
            return np.asarray((y_pred - y_true).mean(axis=-1))

    with pytest.raises(NotImplementedError, match="Half must override gradient"):
        Half().value_and_gradient(t, p)
    with pytest.raises(NotImplementedError, match="must override call"):
        Loss()(t, p)

    class Wrong(Quartic):
        def gradient(self, y_true: Array, y_pred: Array) -> Array:
            return np.asarray(super().gradient(y_true, y_pred).sum(axis=-1))

    with pytest.raises(ValueError, match=r"gradient must return the shape of y_pred, \(4, 3\)"):
        Wrong().value_and_gradient(t, p)


# ----------------------------------------------------------------------------------------------------------------------
# to_categorical
# ----------------------------------------------------------------------------------------------------------------------


def test_to_categorical() -> None:
    rows = to_categorical([0, 2])
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(to_categorical(np.array([[1], [0]], np.uint8), 2), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(to_categorical(np.array([[0, 1], [1, 1]])), [[[1, 0], [0, 1]], [[0, 1], [0, 1]]])
    np.testing.assert_array_equal(to_categorical(2, 4), [0, 0, 1, 0])
    np.testing.assert_array_equal(to_categorical([1.0, 0.0]), [[0, 1], [1, 0]])
    assert to_categorical(np.zeros(0, int), 3).shape == (0, 3)
    for wrong in ([-1, 0], [0.5], [3], [np.nan], [np.inf]):
        with pytest.raises(ValueError, match="whole numbers, at least 0 and less than num_classes=3"):
            to_categorical(wrong, 3)
    for unlimited in ([-1], [0.5], [np.nan], [np.inf], []):
        with pytest.raises(ValueError):
            to_categorical(unlimited)
    for classes in (0, -2):
        with pytest.raises(ValueError, match="num_classes must be at least 1"):
            to_categorical([0], classes)
    with pytest.raises(TypeError, match="num_classes must be an integer"):
        to_categorical([0], 2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="class numbers"):
        to_categorical(np.array(["a"]))
