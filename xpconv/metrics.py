"""Metrics: numbers that tell how a model does, gathered batch by batch, with Keras' names and formulas.

A metric adds to its sums at every batch, and divides them when it is asked::

    metric.update_state(y_true, y_pred)      # sums stay where the arrays are, in float64; nobody waits for a card
    metric.result()                          # a float; the only place that waits
    metric.reset_state()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

from xpconv import losses
from xpconv.arguments import finite
from xpconv.arrays import real_array
from xpconv.configuration import Described, found
from xpconv.device import Device, asarray, card_of, fetch
from xpconv.geometry import integer
from xpconv.losses import broadcast_weights, predictions, same_rank
from xpconv.naming import resolve as resolve_name
from xpconv.naming import snake_case

Array: TypeAlias = Any


class Metric(Described):
    """What all metrics share. Derive from it for a metric of your own: override :meth:`update_state` and :meth:`result`.

    Sums are kept by :meth:`add` under names of ``sums``, and start from 0; :meth:`fetched` brings them to the host.

    Args:
        name: Name; None makes one of the class' name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> class ErrorRate(xpconv.metrics.Metric):
        ...     sums = ("wrong", "count")
        ...     def update_state(self, y_true, y_pred, sample_weight=None):
        ...         self.add("wrong", (y_true != y_pred).sum())
        ...         self.add("count", y_pred.size)
        ...     def result(self):
        ...         wrong, count = self.fetched()
        ...         return wrong / count
        >>> rate = ErrorRate()
        >>> rate(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])), rate.name
        (0.25, 'error_rate')
    """

    #: Names of the sums.
    sums: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str | None = None) -> None:
        self.name = snake_case(type(self).__name__) if name is None else name
        self._state: dict[str, Any] = {}
        self.reset_state()

    def update_state(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> None:
        """Take a batch into account.

        Args:
            y_true: Labels.
            y_pred: Predictions.
            sample_weight: What each sample counts: a number, or an array along the first axes of the samples' values. None: 1.

        Raises:
            TypeError: No arrays of real numbers.
            ValueError: Shapes that do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} must override update_state")

    def result(self) -> float:
        """The metric of all batches since the last reset; 0 if there were none. On a card this waits."""
        raise NotImplementedError(f"{type(self).__name__} must override result")

    def reset_state(self) -> None:
        """Forget all batches."""
        self._state = dict.fromkeys(self.sums, 0.0)

    def add(self, name: str, value: Any) -> None:
        """Add a number, or an array without axes, to a sum."""
        self._state[name] = self._state[name] + value

    def fetched(self) -> list[float]:
        """The sums, in the order of ``sums``. On a card this waits."""
        return fetch(*(self._state[name] for name in self.sums))

    def __call__(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> float:
        """Take a batch into account and give the result so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()


class _WeightedMean(Metric):
    """Sum of weighted values by sum of weights; a sample that has several values counts by their mean."""

    sums = ("total", "count")

    def _take(self, place: Device, values: Array, sample_weight: Array | None) -> None:
        samples = values.shape[0] if values.ndim else 1
        each = max(values.size // samples, 1) if samples else 1  # values of a sample
        with place.current(), np.errstate(all="ignore"):
            if sample_weight is None:
                total, count = values.sum(dtype=np.float64), float(samples)
            elif isinstance(sample_weight, (int, float)):  # a model's, at every step: nothing goes to the card for it
                total, count = values.sum(dtype=np.float64) * sample_weight, float(samples * sample_weight)
            else:
                weights = broadcast_weights(self.name, sample_weight, values.shape, place, np.float64)
                total = (values * weights).sum(dtype=np.float64)
                # Every weight stands for as many values, where it was broadcast.
                count = weights.sum() * (values.size / max(weights.size, 1) / each)
            self.add("total", total / each)
            self.add("count", count)

    def result(self) -> float:
        """The weighted mean of all batches since the last reset; 0 if there were none, or their weights sum to 0."""
        total, count = self.fetched()
        return total / count if count else 0.0


class Mean(_WeightedMean):
    """Weighted mean of values.

    Args:
        name: Name.

    Notes:
        A single number as ``sample_weight`` is the weight of each sample. In Keras it is that of the batch, however large.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> mean = xpconv.metrics.Mean()
        >>> mean.update_state(np.array([1.0, 3.0, 5.0, 7.0]))
        >>> mean.result()
        4.0
        >>> mean.reset_state()
        >>> mean([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
        2.0
    """

    def update_state(self, values: Array, sample_weight: Array | None = None) -> None:  # type: ignore[override]
        """Take values into account.

        Args:
            values: A number, or one value a sample, or several, of which the mean counts.
            sample_weight: As for :meth:`Metric.update_state`.

        Raises:
            TypeError: No arrays of real numbers.
            ValueError: Weights that do not fit the values.
        """
        self._take(*predictions(self.name, values), sample_weight)

    def __call__(self, values: Array, sample_weight: Array | None = None) -> float:  # type: ignore[override]
        """Take values into account and give the mean so far."""
        self.update_state(values, sample_weight)
        return self.result()


class MeanMetricWrapper(_WeightedMean):
    """Weighted mean of what a function makes of labels and predictions.

    Args:
        fn: ``fn(y_true, y_pred, **options)``, which gives one value a sample, or several. It gets arrays on one device.
        name: Name; None takes that of the function.
        **options: Handed on to ``fn``.

    Raises:
        TypeError: ``fn`` is no function.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> metric = xpconv.metrics.MeanMetricWrapper(lambda y_true, y_pred: abs(y_true - y_pred).max(axis=-1), name="worst")
        >>> metric(np.array([[1.0, 2.0]]), np.array([[1.5, 4.0]]))
        2.0
    """

    def __init__(self, fn: Callable[..., Array], name: str | None = None, **options: Any) -> None:
        if not callable(fn):
            raise TypeError(f"{type(self).__name__}: fn must be a function, got {fn!r}")
        super().__init__(getattr(fn, "__name__", None) if name is None else name)
        self.fn, self.options = fn, options
        of_loss = losses.of_function(fn)
        self._loss = None if of_loss is None else of_loss(**options)

    def update_state(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> None:
        """Take a batch into account; see :meth:`Metric.update_state`."""
        place, y_pred = predictions(self.name, y_pred)
        if self._loss is None:
            with place.current():
                values = self.fn(_labels(self.name, y_true, place), y_pred, **self.options)
        else:
            values = _values_of(self._loss, y_true, y_pred)
        shape = np.shape(values)
        if shape[:1] != y_pred.shape[:1]:
            raise ValueError(f"{self.name}: fn must give values for the {len(y_pred)} samples of y_pred, got the shape {shape}")
        self._take(place, values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, by name; ``fn`` is the function itself."""
        return {"fn": self.fn, **self.options, "name": self.name}


# ---- accuracies ----------------------------------------------------------------------------------------------------------


class _Accuracy(_WeightedMean):
    """Share of what is right."""

    def update_state(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> None:
        """Take a batch into account; see :meth:`Metric.update_state`."""
        place, y_pred = predictions(self.name, y_pred)
        with place.current():
            right = self._right(place.xp, _labels(self.name, y_true, place), y_pred)
        self._take(place, right, sample_weight)

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        raise NotImplementedError


class Accuracy(_Accuracy):
    """How often predictions equal labels.

    Args:
        name: Name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.Accuracy()(np.array([1, 2, 3, 4]), np.array([0, 2, 3, 4]))
        0.75
    """

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred = _alike(self.name, y_true, y_pred)
        return y_true == y_pred


class BinaryAccuracy(_Accuracy):
    """How often predictions are on the labels' side of a threshold.

    Args:
        name: Name.
        threshold: Predictions larger than this stand for 1, others for 0, and NaN for neither.

    Raises:
        TypeError, ValueError: ``threshold`` is no finite number.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.BinaryAccuracy()(np.array([[1], [1], [0], [0]]), np.array([[0.98], [1], [0], [0.6]]))
        0.75
    """

    def __init__(self, name: str | None = None, *, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = finite(type(self).__name__, "threshold", threshold)

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        y_true, y_pred = _alike(self.name, y_true, y_pred)
        return ((y_pred > self.threshold) == y_true) & ~xp.isnan(y_pred)


class CategoricalAccuracy(_Accuracy):
    """How often the likeliest class is the labels', which are rows of probabilities or one-hot.

    The first of equals is the likeliest. A row with NaN has none, and is wrong.

    Args:
        name: Name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.CategoricalAccuracy()(np.array([[0, 0, 1], [0, 1, 0]]), np.array([[0.1, 0.9, 0.8], [0.1, 0.9, 0]]))
        0.5
    """

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        _check_rows(self.name, y_true, y_pred)
        return _likeliest_is(xp, y_true.argmax(axis=-1), y_pred) & ~_has_nan(xp, y_true)


class SparseCategoricalAccuracy(_Accuracy):
    """How often the likeliest class is the labels', which are class numbers.

    The first of equals is the likeliest. A row with NaN has none, and is wrong.

    Args:
        name: Name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.SparseCategoricalAccuracy()(np.array([2, 1]), np.array([[0.1, 0.6, 0.3], [0.05, 0.95, 0]]))
        0.5
    """

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        return _likeliest_is(xp, _class_numbers(self.name, y_true, y_pred), y_pred)


class _TopK(_Accuracy):
    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = integer(type(self).__name__, "k", k, 1)

    def _among(self, xp: Any, numbers: Array, y_pred: Array) -> Array:
        asked = numbers[..., None] == xp.arange(y_pred.shape[-1])
        score = xp.where(asked, y_pred, 0).sum(axis=-1, keepdims=True)
        return ((y_pred > score).sum(axis=-1) < self.k) & asked.any(axis=-1) & ~_has_nan(xp, y_pred)


class TopKCategoricalAccuracy(_TopK):
    """How often the labels' class is among the k likeliest; labels are rows of probabilities or one-hot.

    A class is among them if fewer than k have a larger score: all of those that are equal at the border are. A row with NaN
    is wrong.

    Args:
        k: How many.
        name: Name.

    Raises:
        TypeError, ValueError: ``k`` is no integer of at least 1.

    Notes:
        Keras on TensorFlow takes a row with infinity for wrong, too; here infinity is a score like others.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> metric = xpconv.metrics.TopKCategoricalAccuracy(k=2)
        >>> metric(np.array([[0, 0, 1], [0, 1, 0]]), np.array([[0.9, 0.8, 0.1], [0.05, 0.95, 0]]))
        0.5
    """

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        _check_rows(self.name, y_true, y_pred)
        return self._among(xp, y_true.argmax(axis=-1), y_pred) & ~_has_nan(xp, y_true)


class SparseTopKCategoricalAccuracy(_TopK):
    """How often the labels' class is among the k likeliest; labels are class numbers.

    A class is among them if fewer than k have a larger score: all of those that are equal at the border are. A row with NaN
    is wrong.

    Args:
        k: How many.
        name: Name.

    Raises:
        TypeError, ValueError: ``k`` is no integer of at least 1.

    Notes:
        Keras on TensorFlow takes a row with infinity for wrong, too; here infinity is a score like others. Keras' argument
        ``from_sorted_ids`` is left out.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.SparseTopKCategoricalAccuracy(k=2)(np.array([2, 1]), np.array([[0.9, 0.8, 0.1], [0.05, 0.95, 0]]))
        0.5
    """

    def _right(self, xp: Any, y_true: Array, y_pred: Array) -> Array:
        return self._among(xp, _class_numbers(self.name, y_true, y_pred), y_pred)


# ---- losses as metrics ---------------------------------------------------------------------------------------------------


class _MeanOfLoss(_WeightedMean):
    """Weighted mean of the samples' losses."""

    _loss: losses.Loss

    def update_state(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> None:
        """Take a batch into account; see :meth:`Metric.update_state`. Labels on a card are not looked at."""
        place, y_pred = predictions(self.name, y_pred)
        self._take(place, _values_of(self._loss, y_true, y_pred), sample_weight)


class MeanSquaredError(_MeanOfLoss):
    """Mean of the squared differences; see :class:`xpconv.losses.MeanSquaredError`.

    Args:
        name: Name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.MeanSquaredError()(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0]]))
        0.5
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._loss = losses.MeanSquaredError(name=self.name)


class RootMeanSquaredError(MeanSquaredError):
    """Root of the mean of the squared differences.

    Args:
        name: Name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.RootMeanSquaredError()(np.array([[0.0, 0.0]]), np.array([[2.0, 2.0]]))
        2.0
    """

    def result(self) -> float:
        """The root of the weighted mean."""
        return float(np.sqrt(super().result()))


class MeanAbsoluteError(_MeanOfLoss):
    """Mean of the absolute differences; see :class:`xpconv.losses.MeanAbsoluteError`.

    Args:
        name: Name.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.MeanAbsoluteError()(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[3.0, 1.0], [-1.0, 0.0]]))
        1.0
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._loss = losses.MeanAbsoluteError(name=self.name)


class BinaryCrossentropy(_MeanOfLoss):
    """Cross-entropy of yes or no; see :class:`xpconv.losses.BinaryCrossentropy`.

    Args:
        name: Name.
        from_logits: As for the loss.
        label_smoothing: As for the loss.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> round(xpconv.metrics.BinaryCrossentropy()(np.array([[0], [1]]), np.array([[0.5], [0.5]])), 6)
        0.693147
    """

    def __init__(self, name: str | None = None, *, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        super().__init__(name)
        self._loss = losses.BinaryCrossentropy(from_logits, label_smoothing, name=self.name)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


class CategoricalCrossentropy(_MeanOfLoss):
    """Cross-entropy of classes, labels being rows; see :class:`xpconv.losses.CategoricalCrossentropy`.

    Args:
        name: Name.
        from_logits: As for the loss.
        label_smoothing: As for the loss.
        axis: As for the loss.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> round(xpconv.metrics.CategoricalCrossentropy()(np.array([[0, 1]]), np.array([[0.5, 0.5]])), 6)
        0.693147
    """

    def __init__(
        self, name: str | None = None, *, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
    ) -> None:
        super().__init__(name)
        self._loss = losses.CategoricalCrossentropy(from_logits, label_smoothing, axis, name=self.name)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(_MeanOfLoss):
    """Cross-entropy of classes, labels being class numbers; see :class:`xpconv.losses.SparseCategoricalCrossentropy`.

    Args:
        name: Name.
        from_logits: As for the loss.
        ignore_class: As for the loss; such samples count nothing.
        axis: As for the loss.

    Notes:
        Keras leaves ignored samples out only where there are weights; here they never count, as in the loss.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> round(xpconv.metrics.SparseCategoricalCrossentropy()(np.array([1]), np.array([[0.5, 0.5]])), 6)
        0.693147
    """

    def __init__(
        self, name: str | None = None, *, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
    ) -> None:
        super().__init__(name)
        self._loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis, name=self.name)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def update_state(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> None:
        """Take a batch into account; see :meth:`Metric.update_state`. Labels on a card are not looked at."""
        if self.ignore_class is None:
            super().update_state(y_true, y_pred, sample_weight)
            return
        place, y_pred = predictions(self.name, y_pred)
        labels = self._loss.check(y_true, y_pred.shape, values=card_of(y_true) is None)
        values = self._loss.values(labels, y_pred, checked=True)
        with place.current():
            weights = (asarray(labels, device=place) != self.ignore_class).astype(np.float64)
            if sample_weight is not None:
                weights = weights * broadcast_weights(self.name, sample_weight, values.shape, place, np.float64)
        self._take(place, values, weights)


# ---- precision and recall ------------------------------------------------------------------------------------------------


class _Confusion(Metric):
    """Of positive predictions and positive labels."""

    sums = ("true_positives", "others")

    def __init__(self, thresholds: float | None = None, *, class_id: int | None = None, name: str | None = None) -> None:
        super().__init__(name)
        op = type(self).__name__
        self.thresholds = None if thresholds is None else finite(op, "thresholds", thresholds)
        self.class_id = None if class_id is None else integer(op, "class_id", class_id)

    def update_state(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> None:
        """Take a batch into account; see :meth:`Metric.update_state`."""
        place, y_pred = predictions(self.name, y_pred)
        with place.current():
            y_true, y_pred = _alike(self.name, _labels(self.name, y_true, place), y_pred)
            if self.class_id is not None:
                if not 0 <= self.class_id < y_pred.shape[-1]:
                    raise ValueError(f"{self.name}: there is no class {self.class_id}, got y_pred.shape={y_pred.shape}")
                y_true, y_pred = y_true[..., self.class_id], y_pred[..., self.class_id]
            told, true = y_pred > (0.5 if self.thresholds is None else self.thresholds), y_true != 0
            weights: Any = 1
            if sample_weight is not None:
                weights = broadcast_weights(self.name, sample_weight, y_pred.shape, place, np.float64)
            self.add("true_positives", ((told & true) * weights).sum(dtype=np.float64))
            self.add("others", (self._other(told, true) * weights).sum(dtype=np.float64))

    def result(self) -> float:
        """The share, of all batches since the last reset; 0 if there is nothing to have a share of."""
        right, others = self.fetched()
        return right / (right + others) if right + others else 0.0

    def _other(self, told: Array, true: Array) -> Array:
        raise NotImplementedError


class Precision(_Confusion):
    """Share of the positive predictions that are right: true positives by true and false positives.

    Args:
        thresholds: Predictions larger than this are positive; None: 0.5.
        class_id: The class, an index of the last axis, that alone is looked at. None: all.
        name: Name.

    Notes:
        One threshold; Keras also takes several, and ``top_k``.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.Precision()(np.array([0, 1, 1, 1]), np.array([0.9, 0.1, 0.8, 0.7]))
        0.6666666666666666
    """

    def _other(self, told: Array, true: Array) -> Array:
        return told & ~true


class Recall(_Confusion):
    """Share of the positive labels that are found: true positives by true positives and false negatives.

    Args:
        thresholds: Predictions larger than this are positive; None: 0.5.
        class_id: The class, an index of the last axis, that alone is looked at. None: all.
        name: Name.

    Notes:
        One threshold; Keras also takes several, and ``top_k``.

    Example:
        >>> import numpy as np, xpconv.metrics
        >>> xpconv.metrics.Recall()(np.array([0, 1, 1, 1, 1]), np.array([0.9, 0.1, 0.8, 0.7, 0.2]))
        0.5
    """

    def _other(self, told: Array, true: Array) -> Array:
        return ~told & true


# ---- by name -------------------------------------------------------------------------------------------------------------

_BY_CLASS_NAME: dict[str, type[Metric]] = {
    cls.__name__: cls
    for cls in (
        Accuracy,
        BinaryAccuracy,
        BinaryCrossentropy,
        CategoricalAccuracy,
        CategoricalCrossentropy,
        Mean,
        MeanAbsoluteError,
        MeanMetricWrapper,
        MeanSquaredError,
        Precision,
        Recall,
        RootMeanSquaredError,
        SparseCategoricalAccuracy,
        SparseCategoricalCrossentropy,
        SparseTopKCategoricalAccuracy,
        TopKCategoricalAccuracy,
    )
}
_SHORT: dict[str, type[Metric]] = {"mse": MeanSquaredError, "mae": MeanAbsoluteError, "bce": BinaryCrossentropy}
# Those that make something of labels and predictions, and need no argument.
_BY_NAME: dict[str, type[Metric]] = {
    name: cls
    for name, cls in {
        **{snake_case(name): cls for name, cls in _BY_CLASS_NAME.items()},
        **_BY_CLASS_NAME,
        **_SHORT,
        **{name.upper(): cls for name, cls in _SHORT.items()},
    }.items()
    if cls not in (Mean, MeanMetricWrapper)
}
# Names whose meaning hangs on the shapes: for yes or no, for class numbers, for rows of probabilities.
_ACCURACIES: tuple[type[Metric], ...] = (BinaryAccuracy, SparseCategoricalAccuracy, CategoricalAccuracy)
_CROSSENTROPIES: tuple[type[Metric], ...] = (BinaryCrossentropy, SparseCategoricalCrossentropy, CategoricalCrossentropy)
_EXPECTED = "a name such as 'accuracy', a Metric, a dictionary or a function"
_BY_SHAPES = {"accuracy": _ACCURACIES, "acc": _ACCURACIES, "crossentropy": _CROSSENTROPIES, "ce": _CROSSENTROPIES}


def get(identifier: Any, op: str = "metrics.get") -> Metric | None:
    """Find the metric that something stands for.

    Args:
        identifier: A name (``"mse"``, ``"mean_squared_error"``, ``"MeanSquaredError"`` ...), a :class:`Metric`, a class of one,
            a dictionary of ``"class_name"`` and ``"config"``, a function for :class:`MeanMetricWrapper`, or None.
        op: Name of the public function, for messages.

    Returns:
        The metric; None for None. ``"accuracy"`` is :class:`Accuracy` here, see :func:`resolve`.

    Raises:
        ValueError: There is no metric of this name.
        TypeError: Something else.

    Example:
        >>> import xpconv.metrics
        >>> xpconv.metrics.get("top_k_categorical_accuracy")
        TopKCategoricalAccuracy(k=5, name='top_k_categorical_accuracy')
    """
    if identifier is None:
        return None
    if callable(identifier) and not isinstance(identifier, (Metric, type)):
        return MeanMetricWrapper(identifier)
    return found(op, "metric", identifier, Metric, _BY_CLASS_NAME, _EXPECTED, by_name=_BY_NAME)


def resolve(
    identifier: Any,
    y_true_shape: tuple[int | None, ...],
    y_pred_shape: tuple[int | None, ...],
    op: str = "metrics.resolve",
) -> Metric:
    """Find the metric that something stands for in a model whose labels and predictions have these shapes.

    ``"accuracy"`` (``"acc"``) and ``"crossentropy"`` (``"ce"``) are, as in Keras, the binary one if predictions have a last
    axis of 1; otherwise the sparse one if labels have fewer axes, or a last one of 1; otherwise the categorical one. A metric
    that is given by a name is called by that name.

    Args:
        identifier: As for :func:`get`, but not None.
        y_true_shape: Shape of the labels.
        y_pred_shape: Shape of the predictions.
        op: Name of the public function, for messages.

    Returns:
        The metric.

    Raises:
        ValueError, TypeError: As :func:`get`.

    Example:
        >>> import xpconv.metrics
        >>> xpconv.metrics.resolve("accuracy", (32,), (32, 10))
        SparseCategoricalAccuracy(name='accuracy')
    """
    if isinstance(identifier, str):
        choice = _BY_SHAPES.get(identifier.lower())
        if choice is None:
            known: dict[str, type[Metric]] = {**_BY_NAME, **dict.fromkeys(_BY_SHAPES, Accuracy)}
            return resolve_name(op, "metric", identifier, known)(name=identifier)
        return choice[_kind(y_true_shape, y_pred_shape)](name=identifier)
    metric = get(identifier, op)
    if metric is None:
        raise TypeError(f"{op}: metric must be {_EXPECTED}, got None")
    return metric


def _kind(y_true_shape: tuple[int | None, ...], y_pred_shape: tuple[int | None, ...]) -> int:
    if not y_pred_shape or y_pred_shape[-1] == 1:
        return 0
    return 1 if len(y_true_shape) < len(y_pred_shape) or y_true_shape[-1] == 1 else 2


def bring_to_host(measured: Sequence[Metric]) -> None:
    """Bring the sums of several metrics to the host at once, so that all their results together wait for a card once.

    Args:
        measured: The metrics; they go on from there.
    """
    entries = [(metric._state, name) for metric in measured for name in metric.sums]
    for (state, name), value in zip(entries, fetch(*(state[name] for state, name in entries)), strict=True):
        state[name] = value


# ---- helpers -------------------------------------------------------------------------------------------------------------


def _values_of(loss: losses.Loss, y_true: Array, y_pred: Array) -> Array:
    # Labels on a card are not looked at: that would wait for them.
    labels = loss.check(y_true, y_pred.shape, values=card_of(y_true) is None)
    return loss.values(labels, y_pred, checked=True)


def _labels(op: str, y_true: Array, place: Device) -> Array:
    return asarray(real_array(op, "y_true", y_true), device=place)


def _alike(op: str, y_true: Array, y_pred: Array) -> tuple[Array, Array]:
    labels, shape = same_rank(y_true, y_pred.shape)
    if labels.shape != shape:
        raise ValueError(
            f"{op}: y_true and y_pred must have the same shape, got y_true.shape={y_true.shape} and y_pred.shape={y_pred.shape}"
        )
    return labels.astype(y_pred.dtype, copy=False), y_pred.reshape(shape)


def _check_rows(op: str, y_true: Array, y_pred: Array) -> None:
    _check_classes(op, y_pred)
    if y_true.shape != y_pred.shape:
        bare = y_true.shape in (y_pred.shape[:-1], (*y_pred.shape[:-1], 1))
        hint = "; for class numbers use the sparse metric of this name" if bare else ""
        raise ValueError(
            f"{op}: y_true and y_pred must have the same shape, got y_true.shape={y_true.shape} and "
            f"y_pred.shape={y_pred.shape}{hint}"
        )


def _class_numbers(op: str, y_true: Array, y_pred: Array) -> Array:
    _check_classes(op, y_pred)
    bare = y_pred.shape[:-1]
    if y_true.shape not in (bare, (*bare, 1)):
        hint = "; for rows of probabilities use the metric without sparse in its name" if y_true.shape == y_pred.shape else ""
        raise ValueError(
            f"{op}: y_true must hold class numbers and have the shape of y_pred without its last axis, got "
            f"y_true.shape={y_true.shape} and y_pred.shape={y_pred.shape}{hint}"
        )
    return y_true.reshape(bare)


def _check_classes(op: str, y_pred: Array) -> None:
    if y_pred.ndim == 0 or y_pred.shape[-1] < 2:
        raise ValueError(
            f"{op}: needs at least two classes, got y_pred.shape={y_pred.shape}; use binary_accuracy for yes or no"
        )


def _likeliest_is(xp: Any, numbers: Array, y_pred: Array) -> Array:
    # argmax takes NaN for the largest.
    return (y_pred.argmax(axis=-1) == numbers) & ~_has_nan(xp, y_pred)


def _has_nan(xp: Any, rows: Array) -> Array:
    # A maximum keeps NaN, and is one pass without a temporary.
    return xp.isnan(rows.max(axis=-1))
