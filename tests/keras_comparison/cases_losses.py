"""Every loss and metric: values, gradients, reductions and weights, on the same labels and predictions as Keras'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from comparison import ROUGH, TOLERANCE, Case, Checks, keras_gradients, keras_in

import xpconv as xc

CLASSES = 5
SHAPES = ((6, CLASSES), (2, 3, 4, CLASSES))
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "none", None)

Made = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]  # labels and predictions
Maker = Callable[[tuple[int, ...], np.random.Generator], Made]


# ---- labels and predictions ----------------------------------------------------------------------------------------------


def real(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Any numbers, some of them equal."""
    y_true, y_pred = rng.normal(size=shape), rng.normal(size=shape)
    y_pred[0] = y_true[0]
    return y_true, y_pred


def far(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Differences of some size: Keras loses small ones to rounding in the logarithm of a cosh."""
    y_true = rng.normal(size=shape)
    return y_true, y_true + rng.choice([-1, 1], shape) * rng.uniform(1, 30, size=shape)


def positive(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Numbers above zero."""
    return rng.uniform(0.1, 3, size=shape), rng.uniform(0.1, 3, size=shape)


def signs(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Labels of -1 and 1."""
    return rng.choice([-1.0, 1.0], shape), rng.normal(size=shape)


def binary(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Labels of 0 and 1, and probabilities, of which some are 0 and 1."""
    y_pred = rng.uniform(size=shape)
    y_pred[0, 0], y_pred[0, 1] = 0, 1
    return rng.integers(0, 2, shape).astype(float), y_pred


def binary_logits(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Labels of 0 and 1, and what a sigmoid is given, large numbers among it."""
    y_pred = rng.normal(size=shape) * 3
    y_pred[0, 0], y_pred[0, 1] = 90, -90
    return rng.integers(0, 2, shape).astype(float), y_pred


def one_hot(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Labels of one row a class, and probabilities, of which some are 0."""
    y_pred = rng.uniform(size=shape)
    y_pred[0, ..., 0] = 0
    return np.eye(CLASSES)[rng.integers(0, CLASSES, shape[:-1])], y_pred / y_pred.sum(axis=-1, keepdims=True)


def one_hot_logits(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Labels of one row a class, and what a softmax is given, large numbers among it."""
    y_pred = rng.normal(size=shape) * 3
    y_pred[0, ..., 0] = 90
    return np.eye(CLASSES)[rng.integers(0, CLASSES, shape[:-1])], y_pred


def distributions(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Labels that are distributions, and probabilities."""
    y_true, y_pred = rng.uniform(size=shape), rng.uniform(size=shape)
    return y_true / y_true.sum(axis=-1, keepdims=True), y_pred / y_pred.sum(axis=-1, keepdims=True)


def sparse(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Class numbers, and probabilities."""
    return rng.integers(0, CLASSES, shape[:-1]), one_hot(shape, rng)[1]


def sparse_logits(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Class numbers, and what a softmax is given."""
    return rng.integers(0, CLASSES, shape[:-1]), one_hot_logits(shape, rng)[1]


def counted(shape: tuple[int, ...], rng: np.random.Generator) -> Made:
    """Small integers on both sides."""
    return rng.integers(0, 3, shape).astype(float), rng.integers(0, 3, shape).astype(float)


def _in(dtype: str, made: Made) -> Made:
    return made[0] if made[0].dtype.kind == "i" else made[0].astype(dtype), made[1].astype(dtype)


def _weights(shape: tuple[int, ...], rng: np.random.Generator, dtype: str) -> list[Any]:
    # None, one a sample, one a value.
    each = rng.uniform(size=shape).astype(dtype)
    each.reshape(-1)[0] = 0
    return [None, each[(slice(None), *(slice(1),) * (len(shape) - 1))], each]


# ---- losses --------------------------------------------------------------------------------------------------------------


def compare_loss(checks: Checks, name: str, arguments: Mapping[str, Any], make: Maker, rough: str = "") -> None:
    """Values and gradients for each reduction, shape and kind of weights."""
    for dtype in TOLERANCE:
        times = ROUGH if rough and dtype == "float64" else 1
        for shape in SHAPES:
            rng = np.random.default_rng(len(name))
            y_true, y_pred = _in(dtype, make(shape, rng))
            for weights in _weights(shape[:-1], rng, dtype):
                for reduction in REDUCTIONS:
                    kind = "no weights" if weights is None else f"weights {weights.shape}"
                    what = f"{name}({dict(arguments)}, reduction={reduction!r}) on {shape}, {kind}"
                    with keras_in(dtype) as keras:
                        theirs = getattr(keras.losses, name)(**arguments, reduction=reduction)
                        ours = getattr(xc.losses, name)(**arguments, reduction=reduction)
                        expected, (gradient,), _ = keras_gradients(
                            lambda tensor, loss=theirs, y=y_true, w=weights: loss(y, tensor, sample_weight=w), [y_pred]
                        )
                    here = [xc.asarray(array, device=checks.device) for array in (y_true, y_pred)]
                    there = None if weights is None else xc.asarray(weights, device=checks.device)
                    value, dy = ours.value_and_gradient(*here, there)
                    checks.close(f"{what}: value", _number(value), expected, dtype, times=times, same_dtype=False)
                    checks.close(
                        f"{what}: value alone", _number(ours(*here, there)), expected, dtype, times=times, same_dtype=False
                    )
                    checks.close(f"{what}: gradient", xc.to_numpy(dy), gradient, dtype)
    with keras_in("float32") as keras:
        checks.same(f"{name}: name", ours.name, getattr(keras.losses, name)().name)


def _number(value: Any) -> Any:
    return value if isinstance(value, float) else xc.to_numpy(value)


def loss(
    name: str,
    function: str,
    *settings: tuple[Mapping[str, Any], Maker],
    more: Callable[[Checks], None] | None = None,
    rough: str = "",
    **known: Any,
) -> Case:
    """The case of a loss, and of the function of its formula."""

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            checks.signature(getattr(xc.losses, name).__init__, getattr(keras.losses, name).__init__, **known)
            for short in (function, name):
                checks.same(f"get({short!r})", type(xc.losses.get(short)).__name__, name)
        for arguments, make in settings:
            compare_loss(checks, name, arguments, make, rough)
            y_true, y_pred = make(SHAPES[0], np.random.default_rng(1))
            with keras_in("float64") as keras:
                expected = np.asarray(getattr(keras.losses, function)(y_true, y_pred, **arguments))
            checks.close(
                function,
                getattr(xc.losses, function)(y_true, y_pred, **arguments),
                expected,
                "float64",
                times=ROUGH if rough else 1,
            )
        checks.settings = len(settings)
        if rough:
            checks.differs(rough, checks.largest["float64"] > TOLERANCE["float64"])
        if more is not None:
            more(checks)

    return Case(
        "loss", (name,), run, "values and gradients with each reduction, without and with weights of both kinds; arguments"
    )


def _own_loss(checks: Checks) -> None:
    class Ours(xc.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return ((y_pred - y_true) ** 4).mean(axis=-1)

        def gradient(self, y_true: Any, y_pred: Any) -> Any:
            return 4 * (y_pred - y_true) ** 3 / y_pred.shape[-1]

    rng = np.random.default_rng(0)
    y_true, y_pred = real(SHAPES[0], rng)
    weights = rng.uniform(size=SHAPES[0][0])
    with keras_in("float64") as keras:

        class Theirs(keras.losses.Loss):
            def call(self, y_true: Any, y_pred: Any) -> Any:
                return keras.ops.mean((y_pred - y_true) ** 4, axis=-1)

        for reduction in REDUCTIONS:
            theirs = Theirs(reduction=reduction)
            expected, (gradient,), _ = keras_gradients(
                lambda tensor, loss=theirs: loss(y_true, tensor, sample_weight=weights), [y_pred]
            )
            value, dy = Ours(reduction=reduction).value_and_gradient(y_true, y_pred, weights)
            checks.close(f"a loss of one's own, reduction={reduction!r}: value", value, expected, "float64")
            checks.close(f"a loss of one's own, reduction={reduction!r}: gradient", dy, gradient, "float64")
        checks.differs(
            "a loss of one's own writes its derivative in `gradient`, beside `call`",
            hasattr(xc.losses.Loss, "gradient") and not hasattr(keras.losses.Loss, "gradient"),
        )
        checks.signature(
            xc.losses.Loss.__init__,
            keras.losses.Loss.__init__,
            order="`reduction` stands before `name`, as in every other loss",
        )
    checks.settings = 1


def _log_cosh_of_little(checks: Checks) -> None:
    y_true, y_pred = np.zeros((1, 1), np.float32), np.full((1, 1), 1e-5, np.float32)
    with keras_in("float32") as keras:
        theirs = float(keras.losses.LogCosh()(y_true, y_pred))
    value = xc.losses.LogCosh()(y_true, y_pred)
    checks.differs(
        "differences that are small against 1 keep all their digits, of which Keras loses some to rounding",
        abs(value / 5e-11 - 1) < 1e-3 and not abs(theirs / 5e-11 - 1) < 0.1,
    )


def _rows_that_do_not_sum_to_one(checks: Checks) -> None:
    with keras_in("float32") as keras:
        taken = float(keras.losses.CategoricalCrossentropy()(np.full((1, 2), 0.9), np.full((1, 2), 0.5)))
    checks.differs(
        "rows of labels that do not sum to 1 are refused, Keras computes something",
        np.isfinite(taken) and _refused(xc.losses.CategoricalCrossentropy(), np.full((1, 2), 0.9), np.full((1, 2), 0.5)),
    )


def _other_signs(checks: Checks) -> None:
    labels, y_pred = np.array([[0.5]], np.float32), np.array([[2.0]], np.float32)
    with keras_in("float32") as keras:
        taken = float(keras.losses.Hinge()(labels, y_pred))
    checks.differs(
        "labels that are neither -1, 0 nor 1 are refused", np.isfinite(taken) and _refused(xc.losses.Hinge(), labels, y_pred)
    )


def _refused(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        function(*arguments)
    except ValueError:
        return True
    return False


# ---- metrics -------------------------------------------------------------------------------------------------------------


def compare_metric(
    checks: Checks, name: str, arguments: Mapping[str, Any], make: Maker, shapes: Sequence[tuple[int, ...]], dtype: str
) -> None:
    """The result after each of three batches, without and with weights, and after a reset."""
    for shape in shapes:
        for weighted in range(3):
            rng = np.random.default_rng(len(name))
            with keras_in(dtype) as keras:
                theirs = getattr(keras.metrics, name)(**arguments)
                ours = getattr(xc.metrics, name)(**arguments)
                for batch in range(3):
                    y_true, y_pred = _in(dtype, make(shape, rng))
                    weights = _weights(shape if make is counted else shape[:-1], rng, dtype)[weighted]
                    ours.update_state(
                        *(xc.asarray(array, device=checks.device) for array in (y_true, y_pred)),
                        sample_weight=None if weights is None else xc.asarray(weights, device=checks.device),
                    )
                    theirs.update_state(y_true, y_pred, sample_weight=weights)
                    kind = "no weights" if weights is None else f"weights {weights.shape}"
                    what = f"{name}({dict(arguments)}) on {shape}, {kind}: after batch {batch + 1}"
                    checks.close(what, ours.result(), np.asarray(theirs.result()), dtype, same_dtype=False)
                ours.reset_state()
                theirs.reset_state()
                checks.close(f"{name}: after a reset", ours.result(), np.asarray(theirs.result()), dtype, same_dtype=False)


def metric(
    name: str,
    *settings: tuple[Mapping[str, Any], Maker],
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    dtypes: Sequence[str] = tuple(TOLERANCE),
    more: Callable[[Checks], None] | None = None,
    **known: Any,
) -> Case:
    """The case of a metric."""

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            checks.signature(getattr(xc.metrics, name).__init__, getattr(keras.metrics, name).__init__, **known)
            keras.utils.clear_session()
            checks.same(f"{name}: name", getattr(xc.metrics, name)().name, getattr(keras.metrics, name)().name)
        for arguments, make in settings:
            for dtype in dtypes:
                compare_metric(checks, name, arguments, make, shapes, dtype)
        checks.settings = len(settings)
        if more is not None:
            more(checks)

    return Case(
        "metric", (name,), run, "the result after each of three batches, without and with weights, and after a reset; arguments"
    )


def _mean(checks: Checks) -> None:
    for dtype in ("float32", "float64"):
        with keras_in(dtype) as keras:
            theirs, ours = keras.metrics.Mean(), xc.metrics.Mean()
            rng = np.random.default_rng(0)
            for values, weights in ((3.5, None), (2.0, 4), (rng.normal(size=4), None), (rng.normal(size=(3, 2)), [1, 0, 2])):
                values = np.asarray(values, dtype)
                ours.update_state(values, sample_weight=weights)
                theirs.update_state(values, sample_weight=weights)
                checks.close("Mean", ours.result(), np.asarray(theirs.result()), dtype, same_dtype=False)
            if dtype == "float32":
                checks.signature(xc.metrics.Mean.__init__, keras.metrics.Mean.__init__)
    checks.settings = 1


def _wrapper(checks: Checks) -> None:
    def worst(y_true: Any, y_pred: Any, factor: float = 1.0) -> Any:
        return factor * abs(y_true - y_pred)[..., 0]

    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        with keras_in(dtype) as keras:
            theirs, ours = keras.metrics.MeanMetricWrapper(worst, factor=2.0), xc.metrics.MeanMetricWrapper(worst, factor=2.0)
            for weights in (None, rng.uniform(size=6).astype(dtype)):
                y_true, y_pred = _in(dtype, real(SHAPES[0], rng))
                ours.update_state(y_true, y_pred, weights)
                theirs.update_state(y_true, y_pred, weights)
                checks.close("MeanMetricWrapper", ours.result(), np.asarray(theirs.result()), dtype, same_dtype=False)
            if dtype == "float32":
                checks.signature(xc.metrics.MeanMetricWrapper.__init__, keras.metrics.MeanMetricWrapper.__init__)
                checks.differs(
                    "without a `name` it is called as its function, in Keras `mean_metric_wrapper`",
                    ours.name == "worst" != theirs.name,
                )
    checks.settings = 1


def _own_metric(checks: Checks) -> None:
    class Ours(xc.metrics.Metric):
        sums = ("wrong", "count")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.add("wrong", (y_true != y_pred).sum())
            self.add("count", y_pred.size)

        def result(self) -> float:
            wrong, count = self.fetched()
            return wrong / count

    with keras_in("float64") as keras:

        class Theirs(keras.metrics.Metric):
            def __init__(self) -> None:
                super().__init__()
                self.wrong = self.add_variable((), "zeros", name="wrong")
                self.count = self.add_variable((), "zeros", name="count")

            def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
                self.wrong.assign_add((y_true != y_pred).sum())
                self.count.assign_add(y_pred.size)

            def result(self) -> Any:
                return self.wrong / self.count

        ours, theirs = Ours(), Theirs()
        for seed in range(3):
            y_true, y_pred = counted(SHAPES[0], np.random.default_rng(seed))
            ours.update_state(y_true, y_pred)
            theirs.update_state(y_true, y_pred)
            checks.close("a metric of one's own", ours.result(), np.asarray(theirs.result()), "float64")
    checks.differs(
        "the sums of a metric of one's own are named in `sums` and added to by `add`; Keras has variables",
        hasattr(Ours, "add") and not hasattr(Theirs, "add"),
    )
    checks.settings = 1


def _counted_names(checks: Checks) -> None:
    with keras_in("float32") as keras:
        names = [keras.metrics.Precision().name for _ in range(2)]
    checks.differs(
        "each one has the same name, of which Keras counts `precision_1` and so on",
        names[0] != names[1] and xc.metrics.Precision().name == xc.metrics.Precision().name,
    )


CASES = [
    Case("loss", ("Loss",), _own_loss, "a loss of one's own: values and gradients with each reduction; arguments"),
    loss("MeanSquaredError", "mean_squared_error", ({}, real)),
    loss("MeanAbsoluteError", "mean_absolute_error", ({}, real)),
    loss("MeanAbsolutePercentageError", "mean_absolute_percentage_error", ({}, real)),
    loss("Huber", "huber", ({}, real), ({"delta": 0.3}, real)),
    loss(
        "LogCosh",
        "log_cosh",
        ({}, far),
        more=_log_cosh_of_little,
        rough="Keras subtracts the log(2) of float32, in float64 too",
    ),
    loss("Poisson", "poisson", ({}, positive)),
    loss("Hinge", "hinge", ({}, signs), ({}, binary), more=_other_signs),
    loss("KLDivergence", "kl_divergence", ({}, distributions)),
    loss(
        "BinaryCrossentropy",
        "binary_crossentropy",
        ({}, binary),
        ({"label_smoothing": 0.2}, binary),
        ({"from_logits": True}, binary_logits),
        ({"from_logits": True, "label_smoothing": 0.2}, binary_logits),
    ),
    loss(
        "CategoricalCrossentropy",
        "categorical_crossentropy",
        ({}, one_hot),
        ({}, distributions),
        ({"label_smoothing": 0.2}, one_hot),
        ({"from_logits": True}, one_hot_logits),
        ({"from_logits": True, "label_smoothing": 0.2}, one_hot_logits),
        more=_rows_that_do_not_sum_to_one,
    ),
    loss(
        "SparseCategoricalCrossentropy",
        "sparse_categorical_crossentropy",
        ({}, sparse),
        ({"from_logits": True}, sparse_logits),
        ({"ignore_class": 2}, sparse),
        ({"ignore_class": 2, "from_logits": True}, sparse_logits),
    ),
    Case("metric", ("Metric",), _own_metric, "a metric of one's own: the result after each of three batches"),
    Case("metric", ("Mean",), _mean, "the result after each batch, without and with weights; arguments"),
    Case("metric", ("MeanMetricWrapper",), _wrapper, "the result after each batch, without and with weights; arguments"),
    metric("Accuracy", ({}, counted), shapes=((6,), (4, 3))),
    metric("BinaryAccuracy", ({}, binary), ({"threshold": 0.2}, binary)),
    metric("CategoricalAccuracy", ({}, one_hot)),
    metric("SparseCategoricalAccuracy", ({}, sparse)),
    metric("TopKCategoricalAccuracy", ({"k": 2}, one_hot), ({"k": 3}, one_hot_logits), shapes=SHAPES[:1], dtypes=("float32",)),
    metric(
        "SparseTopKCategoricalAccuracy",
        ({"k": 2}, sparse),
        ({"k": 3}, sparse_logits),
        shapes=SHAPES[:1],
        dtypes=("float32",),
        left_out={"from_sorted_ids": "predictions are scores of the classes"},
    ),
    metric("MeanSquaredError", ({}, real)),
    metric("RootMeanSquaredError", ({}, real)),
    metric("MeanAbsoluteError", ({}, real)),
    metric("BinaryCrossentropy", ({}, binary), ({"from_logits": True, "label_smoothing": 0.1}, binary_logits)),
    metric(
        "CategoricalCrossentropy",
        ({}, one_hot),
        ({"from_logits": True, "label_smoothing": 0.1}, one_hot_logits),
    ),
    metric("SparseCategoricalCrossentropy", ({}, sparse), ({"from_logits": True}, sparse_logits)),
    *(
        metric(
            name,
            ({}, binary),
            ({"thresholds": 0.8}, binary),
            ({"class_id": 1}, binary),
            shapes=SHAPES[:1],
            left_out={"top_k": "the threshold decides"},
            more=_counted_names,
        )
        for name in ("Precision", "Recall")
    ),
]
