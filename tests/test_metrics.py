"""Metrics against what they are defined to be, counted sample by sample in float64, and against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Array

import xpconv as xc
from xpconv import losses, metrics
from xpconv.metrics import Metric


@pytest.fixture
def used(device: str) -> Iterator[str]:
    """The device, as the default one."""
    xc.set_default_device(device)
    yield device
    xc.set_default_device(None)


def moved(array: Any, device: str) -> Any:
    return xc.asarray(array, device=device) if isinstance(array, np.ndarray) else array


def gathered(metric: Metric, labels: Array, predictions: Array, weights: Array | None, device: str) -> float:
    """The metric of all samples, given in batches of unlike sizes."""
    for part in (slice(0, 2), slice(2, 3), slice(3, None)):
        given = None if weights is None else moved(weights[part], device)
        metric.update_state(moved(labels[part], device), moved(predictions[part], device), given)
    result = metric.result()
    assert type(result) is float
    return result


def weighted_mean(values: list[float], weights: Array | None) -> float:
    counts = [1.0] * len(values) if weights is None else weights.tolist()
    total = math.fsum(value * count for value, count in zip(values, counts, strict=True))
    return total / math.fsum(counts) if math.fsum(counts) else 0.0


def first_largest(row: list[float]) -> int:
    return next(place for place, score in enumerate(row) if all(score >= other for other in row))


def is_in_top(row: list[float], label: int, k: int) -> bool:
    return sum(score > row[label] for score in row) < k


SAMPLES, CLASSES = 9, 6


@pytest.fixture
def scores(rng: np.random.Generator) -> Array:
    # Whole numbers, so that many are equal.
    return rng.integers(0, 5, (SAMPLES, CLASSES)).astype(np.float64)


@pytest.fixture
def numbers(rng: np.random.Generator) -> Array:
    return rng.integers(0, CLASSES, SAMPLES)


@pytest.fixture(params=["no weights", "weights"])
def weights(request: pytest.FixtureRequest, rng: np.random.Generator) -> Array | None:
    return None if request.param == "no weights" else rng.integers(0, 5, SAMPLES) / 4


# ----------------------------------------------------------------------------------------------------------------------
# Accuracies
# ----------------------------------------------------------------------------------------------------------------------


def test_categorical(scores: Array, numbers: Array, weights: Array | None, used: str, dtype: np.dtype[Any]) -> None:
    right = [float(first_largest(row) == label) for row, label in zip(scores.tolist(), numbers.tolist(), strict=True)]
    expected = weighted_mean(right, weights)
    assert 0 < expected < 1
    predictions, rows = scores.astype(dtype), np.eye(CLASSES)[numbers]
    assert gathered(metrics.CategoricalAccuracy(), rows, predictions, weights, used) == pytest.approx(expected)
    for labels in (numbers, numbers[:, None], numbers.astype(np.float32)):
        assert gathered(metrics.SparseCategoricalAccuracy(), labels, predictions, weights, used) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 99])
def test_top_k(k: int, scores: Array, numbers: Array, weights: Array | None, used: str) -> None:
    right = [float(is_in_top(row, label, k)) for row, label in zip(scores.tolist(), numbers.tolist(), strict=True)]
    expected = weighted_mean(right, weights)
    rows = np.eye(CLASSES)[numbers]
    assert gathered(metrics.TopKCategoricalAccuracy(k), rows, scores, weights, used) == pytest.approx(expected)
    assert gathered(metrics.SparseTopKCategoricalAccuracy(k), numbers, scores, weights, used) == pytest.approx(expected)


def test_ties() -> None:
    # The first of equals is the likeliest, but all at the border are among the k likeliest, as in Keras.
    scores = np.zeros((4, 4))
    numbers = np.arange(4)
    assert metrics.SparseCategoricalAccuracy()(numbers, scores) == 0.25
    assert metrics.SparseTopKCategoricalAccuracy(k=1)(numbers, scores) == 1


@pytest.mark.parametrize("threshold", [0.5, 0.25])
def test_binary(threshold: float, weights: Array | None, used: str, rng: np.random.Generator) -> None:
    labels = rng.integers(0, 2, SAMPLES)
    predictions = rng.integers(0, 5, SAMPLES) / 4  # on the threshold, too
    right = [float((p > threshold) == bool(t)) for t, p in zip(labels.tolist(), predictions.tolist(), strict=True)]
    expected = weighted_mean(right, weights)
    for t in (labels, labels[:, None], labels.astype(bool)):
        metric = metrics.BinaryAccuracy(threshold=threshold)
        assert gathered(metric, t, predictions[:, None], weights, used) == pytest.approx(expected)


def test_equality(weights: Array | None, used: str, rng: np.random.Generator) -> None:
    labels, predictions = rng.integers(0, 3, SAMPLES), rng.integers(0, 3, SAMPLES)
    right = [float(t == p) for t, p in zip(labels.tolist(), predictions.tolist(), strict=True)]
    assert gathered(metrics.Accuracy(), labels, predictions, weights, used) == pytest.approx(weighted_mean(right, weights))
    # Labels are compared in the dtype of the predictions.
    assert metrics.Accuracy()(moved(np.array([0.1]), used), moved(np.array([0.1], np.float32), used)) == 1


def test_nan_is_never_right(used: str) -> None:
    nan = np.nan
    scores = moved(np.array([[nan, 1, 2], [0, nan, 2], [0, 1, nan], [nan, nan, nan], [0, 1, 2]]), used)
    numbers, rows = moved(np.array([0, 1, 2, 0, 2]), used), moved(np.eye(3)[[0, 1, 2, 0, 2]], used)
    assert metrics.SparseCategoricalAccuracy()(numbers, scores) == 0.2
    assert metrics.CategoricalAccuracy()(rows, scores) == 0.2
    assert metrics.SparseTopKCategoricalAccuracy(k=3)(numbers, scores) == 0.2
    assert metrics.TopKCategoricalAccuracy(k=3)(rows, scores) == 0.2
    ones, maybe = moved(np.array([[0.0], [1.0], [1.0]]), used), moved(np.array([[nan], [nan], [1.0]]), used)
    assert metrics.BinaryAccuracy()(ones, maybe) == pytest.approx(1 / 3)
    assert metrics.Accuracy()(maybe, maybe) == pytest.approx(1 / 3)
    known = moved(np.zeros((2, 3)), used)
    assert metrics.CategoricalAccuracy()(moved(np.array([[nan, 0, 0], [1, 0, 0]]), used), known) == 0.5
    assert metrics.TopKCategoricalAccuracy(k=3)(moved(np.array([[nan, 0, 0], [1, 0, 0]]), used), known) == 0.5
    assert metrics.SparseCategoricalAccuracy()(moved(np.array([nan, 0]), used), known) == 0.5


def test_labels_out_of_range_are_not_right() -> None:
    scores = np.array([[3.0, 1.0], [3.0, 1.0], [3.0, 1.0]])
    for metric in (metrics.SparseCategoricalAccuracy(), metrics.SparseTopKCategoricalAccuracy(k=2)):
        assert metric(np.array([-1, 2, 0]), scores) == pytest.approx(1 / 3)


def test_infinite_scores() -> None:
    scores = np.array([[-np.inf, 0, 1], [np.inf, 0, 1], [-np.inf, -np.inf, -np.inf]])
    assert metrics.SparseTopKCategoricalAccuracy(k=1)([2, 0, 1], scores) == 1
    assert metrics.SparseTopKCategoricalAccuracy(k=1)([1, 1, 1], scores) == pytest.approx(1 / 3)


# ----------------------------------------------------------------------------------------------------------------------
# Losses
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "formula"),
    [
        (metrics.MeanSquaredError, lambda t, p: (t - p) ** 2),
        (metrics.MeanAbsoluteError, lambda t, p: abs(t - p)),
        (metrics.BinaryCrossentropy, lambda t, p: -math.log(p if t else 1 - p)),
    ],
)
def test_differences(
    metric: Callable[[], Metric],
    formula: Callable[[float, float], float],
    weights: Array | None,
    used: str,
    dtype: np.dtype[Any],
    rng: np.random.Generator,
) -> None:
    labels = rng.integers(0, 2, (SAMPLES, 3))
    predictions = (rng.integers(1, 8, (SAMPLES, 3)) / 8).astype(dtype)
    of_samples = [
        math.fsum(formula(t, p) for t, p in zip(*rows, strict=True)) / 3
        for rows in zip(labels.tolist(), predictions.tolist(), strict=True)
    ]
    expected = weighted_mean(of_samples, weights)
    assert gathered(metric(), labels, predictions, weights, used) == pytest.approx(expected, rel=1e-6)
    if metric is metrics.MeanSquaredError:
        root = gathered(metrics.RootMeanSquaredError(), labels, predictions, weights, used)
        assert root == pytest.approx(math.sqrt(expected), rel=1e-6)


def test_crossentropies(numbers: Array, weights: Array | None, used: str, rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(CLASSES), SAMPLES)
    rows = np.eye(CLASSES)[numbers]
    expected = weighted_mean([-math.log(row[label]) for row, label in zip(p.tolist(), numbers.tolist(), strict=True)], weights)
    for metric, labels, predictions in [
        (metrics.CategoricalCrossentropy(), rows, p),
        (metrics.CategoricalCrossentropy(from_logits=True), rows, np.log(p) + 7),
        (metrics.SparseCategoricalCrossentropy(), numbers, p),
        (metrics.SparseCategoricalCrossentropy(from_logits=True), numbers, np.log(p) + 7),
        (metrics.CategoricalCrossentropy(axis=1), rows, p),
    ]:
        assert gathered(metric, labels, predictions, weights, used) == pytest.approx(expected, rel=1e-9)
    smooth = xc.to_numpy(losses.CategoricalCrossentropy(label_smoothing=0.1, reduction=None)(moved(rows, used), moved(p, used)))
    metric = metrics.CategoricalCrossentropy(label_smoothing=0.1)
    assert gathered(metric, rows, p, weights, used) == pytest.approx(weighted_mean(smooth.tolist(), weights))


def test_ignored_classes_count_nothing(numbers: Array, weights: Array | None, used: str, rng: np.random.Generator) -> None:
    p = rng.dirichlet(np.ones(CLASSES), SAMPLES)
    ignored = int(numbers[0])
    kept = numbers != ignored
    expected = weighted_mean(
        [-math.log(row[label]) for row, label in zip(p[kept].tolist(), numbers[kept].tolist(), strict=True)],
        None if weights is None else weights[kept],
    )
    metric = metrics.SparseCategoricalCrossentropy(ignore_class=ignored)
    assert gathered(metric, numbers, p, weights, used) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("class_id", [None, 1])
@pytest.mark.parametrize("threshold", [None, 0.25])
def test_precision_and_recall(
    threshold: float | None, class_id: int | None, weights: Array | None, used: str, rng: np.random.Generator
) -> None:
    labels = rng.integers(0, 2, (SAMPLES, 3))
    predictions = rng.integers(0, 5, (SAMPLES, 3)) / 4
    hits = told = true = 0.0
    for sample in range(SAMPLES):
        weight = 1.0 if weights is None else float(weights[sample])
        for place in range(3) if class_id is None else [class_id]:
            positive = predictions[sample, place] > (threshold or 0.5)
            hits += weight * (positive and labels[sample, place] == 1)
            told += weight * positive
            true += weight * (labels[sample, place] == 1)
    precision, recall = metrics.Precision(threshold, class_id=class_id), metrics.Recall(threshold, class_id=class_id)
    assert gathered(precision, labels, predictions, weights, used) == pytest.approx(hits / told)
    assert gathered(recall, labels, predictions, weights, used) == pytest.approx(hits / true)
    assert metrics.Precision()([[0]], [[0.1]]) == metrics.Recall()([[0]], [[0.1]]) == 0


# ----------------------------------------------------------------------------------------------------------------------
# State
# ----------------------------------------------------------------------------------------------------------------------


def test_mean(used: str) -> None:
    mean = metrics.Mean()
    assert mean.result() == 0
    mean.update_state(moved(np.array([1.0, 3.0]), used))
    mean.update_state(5.0, sample_weight=2)
    assert mean.result() == pytest.approx(14 / 4)
    mean.update_state(moved(np.array([[1.0, 3.0], [5.0, 7.0]]), used), moved(np.array([[1.0, 0.0], [1.0, 2.0]]), used))
    # A sample that has several values counts by their mean, and its weights, too.
    assert mean.result() == pytest.approx((14 + (1 + 5 + 14) / 2) / (4 + (1 + 1 + 2) / 2))
    mean.reset_state()
    assert mean.result() == 0
    mean.update_state(moved(np.ones(3), used), moved(np.zeros(3), used))
    assert mean.result() == 0
    mean.update_state(moved(np.ones(0), used))
    assert mean.result() == 0


def test_sums_are_float64() -> None:
    accuracy = metrics.Mean()
    accuracy.update_state(np.full(2**24, 1, np.float32))
    for _ in range(3):
        accuracy.update_state(np.ones(1, np.float32))
    assert accuracy.fetched() == [2**24 + 3, 2**24 + 3]
    mean = metrics.Mean()
    mean.update_state(np.full(10**6, 0.1, np.float32))
    assert mean.result() == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_one_weight_for_all(rng: np.random.Generator) -> None:
    t, p = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    metric = metrics.MeanSquaredError()
    metric.update_state(t[:2], p[:2], 3.0)
    metric.update_state(t[2:], p[2:], 1.0)
    of_samples = ((t - p) ** 2).mean(axis=1).tolist()
    assert metric.result() == pytest.approx(weighted_mean(of_samples, np.array([3.0, 3, 1, 1, 1, 1])))


def test_weights_of_pixels(rng: np.random.Generator) -> None:
    numbers, scores = rng.integers(0, 3, (4, 5)), rng.normal(size=(4, 5, 3))
    right = (scores.argmax(axis=-1) == numbers).astype(float)
    weights = rng.random((4, 5))
    rows = np.repeat(weights[:, :1], 5, axis=1)
    for given, each in ((weights, weights), (weights[:, :1], rows), (weights[:, 0], rows)):
        result = metrics.SparseCategoricalAccuracy()(numbers, scores, given)
        assert result == pytest.approx((right * each).sum() / each.sum())
    with pytest.raises(ValueError, match=r"sample_weight must have the shape"):
        metrics.SparseCategoricalAccuracy()(numbers, scores, np.ones(5))


def test_a_function(used: str) -> None:
    def largest(y_true: Array, y_pred: Array, power: int = 1) -> Any:
        return abs(y_true - y_pred).max(axis=-1) ** power

    metric = metrics.get(largest)
    assert metric is not None
    assert metric.name == "largest"
    labels, predictions = moved(np.zeros((2, 2)), used), moved(np.array([[1.0, 3.0], [2.0, 0.0]]), used)
    assert metric(labels, predictions) == 2.5
    assert metrics.MeanMetricWrapper(largest, power=2)(labels, predictions) == 6.5
    assert metrics.MeanMetricWrapper(losses.mean_squared_error)(labels, predictions) == 3.5
    with pytest.raises(ValueError, match="values for the 2 samples"):
        metrics.MeanMetricWrapper(lambda y_true, y_pred: 1.0, name="one")(labels, predictions)


# ----------------------------------------------------------------------------------------------------------------------
# By name
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y_true", "y_pred", "kind"),
    [
        ((4,), (4, 1), "Binary"),
        ((4, 1), (4, 1), "Binary"),
        ((4,), (4, 3), "SparseCategorical"),
        ((4, 1), (4, 3), "SparseCategorical"),
        ((None, 3), (None, 3), "Categorical"),
        ((4, 5), (4, 5, 3), "SparseCategorical"),
        ((4, 5, 1), (4, 5, 3), "SparseCategorical"),
        ((4, 5, 3), (4, 5, 3), "Categorical"),
        ((4, 5), (4, 5, 1), "Binary"),
    ],
)
def test_names_that_hang_on_shapes(y_true: tuple[int, ...], y_pred: tuple[int, ...], kind: str) -> None:
    for name, ending in (
        ("accuracy", "Accuracy"),
        ("acc", "Accuracy"),
        ("crossentropy", "Crossentropy"),
        ("ce", "Crossentropy"),
    ):
        metric = metrics.resolve(name, y_true, y_pred)
        assert (type(metric).__name__, metric.name) == (kind + ending, name)


def test_resolve_the_rest() -> None:
    shapes = (4, 3), (4, 3)
    assert metrics.resolve("mse", *shapes).name == "mse"
    metric = metrics.Precision()
    assert metrics.resolve(metric, *shapes) is metric
    with pytest.raises(ValueError, match=r"compile: metric 'acuracy' is unknown; did you mean 'accuracy'"):
        metrics.resolve("acuracy", *shapes, op="compile")
    for wrong in (None, 3, int):
        with pytest.raises(TypeError, match="compile: metric must be a name"):
            metrics.resolve(wrong, *shapes, op="compile")


@pytest.mark.parametrize(
    "metric",
    [
        metrics.Mean("m"),
        metrics.Accuracy("m"),
        metrics.BinaryAccuracy("m", threshold=0.3),
        metrics.CategoricalAccuracy("m"),
        metrics.SparseCategoricalAccuracy("m"),
        metrics.TopKCategoricalAccuracy(2, "m"),
        metrics.SparseTopKCategoricalAccuracy(2, "m"),
        metrics.MeanSquaredError("m"),
        metrics.MeanAbsoluteError("m"),
        metrics.RootMeanSquaredError("m"),
        metrics.BinaryCrossentropy("m", from_logits=True, label_smoothing=0.1),
        metrics.CategoricalCrossentropy("m", from_logits=True, label_smoothing=0.1, axis=1),
        metrics.SparseCategoricalCrossentropy("m", from_logits=True, ignore_class=0, axis=1),
        metrics.Precision(0.3, class_id=1, name="m"),
        metrics.Recall(0.3, class_id=1, name="m"),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_config(metric: Metric) -> None:
    twin = metrics.get({"class_name": type(metric).__name__, "config": metric.get_config()})
    assert type(twin) is type(metric)
    assert twin.get_config() == metric.get_config()
    assert twin.name == "m"
    by_class = metrics.get(type(metric))
    assert by_class is not None
    assert type(by_class) is type(metric)


def test_get() -> None:
    assert metrics.get(None) is None
    assert type(metrics.get("accuracy")) is metrics.Accuracy
    for name in ("sparse_categorical_accuracy", "SparseCategoricalAccuracy"):
        metric = metrics.get(name)
        assert type(metric) is metrics.SparseCategoricalAccuracy
        assert metric.name == "sparse_categorical_accuracy"
    for name in ("mean", "nonsense", "MeanMetricWrapper"):
        with pytest.raises(ValueError, match="is unknown"):
            metrics.get(name)
    with pytest.raises(ValueError, match="class_name"):
        metrics.get({"config": {}})


# ----------------------------------------------------------------------------------------------------------------------
# What is refused
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "labels", "predictions", "text"),
    [
        (metrics.CategoricalAccuracy(), np.zeros(4), np.zeros((4, 3)), r"y_true.shape=\(4,\) and y_pred.*sparse"),
        (metrics.CategoricalAccuracy(), np.zeros((4, 1)), np.zeros((4, 1)), "at least two classes.*binary_accuracy"),
        (metrics.SparseCategoricalAccuracy(), np.zeros((4, 3)), np.zeros((4, 3)), "class numbers.*without sparse"),
        (metrics.SparseCategoricalAccuracy(), np.zeros(3), np.zeros((4, 3)), r"y_true.shape=\(3,\)"),
        (metrics.TopKCategoricalAccuracy(), np.zeros((4, 2)), np.zeros((4, 3)), r"y_true.shape=\(4, 2\)"),
        (metrics.BinaryAccuracy(), np.zeros((4, 2)), np.zeros((4, 1)), "same shape"),
        (metrics.Accuracy(), np.zeros(1), np.zeros(4), "same shape"),
        (metrics.Precision(), np.zeros(3), np.zeros(4), "same shape"),
        (metrics.Recall(class_id=2), np.zeros((4, 2)), np.zeros((4, 2)), "there is no class 2"),
        (metrics.MeanSquaredError(), np.zeros((4, 2)), np.zeros((4, 3)), "same shape"),
        (metrics.SparseCategoricalCrossentropy(), np.full(4, 7), np.full((4, 3), 0.3), "whole numbers from 0 to 2"),
    ],
)  # fmt: skip
def test_wrong_shapes(metric: Metric, labels: Array, predictions: Array, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{metric.name}: .*{text}"):
        metric.update_state(labels, predictions)


def test_wrong_arguments() -> None:
    for make in (
        lambda: metrics.TopKCategoricalAccuracy(k=0),
        lambda: metrics.BinaryAccuracy(threshold=math.nan),
        lambda: metrics.Precision(thresholds=math.inf),
        lambda: metrics.CategoricalCrossentropy(label_smoothing=2),
    ):
        with pytest.raises(ValueError):
            make()
    for make_type in (
        lambda: metrics.SparseTopKCategoricalAccuracy(k=2.5),  # type: ignore[arg-type]
        lambda: metrics.Recall(class_id=0.5),  # type: ignore[arg-type]
        lambda: metrics.MeanMetricWrapper(3),  # type: ignore[arg-type]
        lambda: metrics.Accuracy()(np.array(["a"]), np.zeros(1)),
    ):
        with pytest.raises(TypeError):
            make_type()
    with pytest.raises(NotImplementedError, match="must override update_state"):
        Metric().update_state(1, 1)
    with pytest.raises(NotImplementedError, match="must override result"):
        Metric().result()
