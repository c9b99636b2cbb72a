"""Models: the same training, step by step, from the same initial weights; what models tell of themselves."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from comparison import TOLERANCE, Case, Checks, keras_in

import xpconv as xc

# A training adds up the rounding of its steps.
TIMES = 100

Rows = Sequence[tuple[str, Mapping[str, Any]]]

# A notebook's network for MNIST: two convolutions, two poolings.
IMAGES = (28, 28, 1)
CONVOLUTIONS: Rows = (
    ("Conv2D", {"filters": 30, "kernel_size": (2, 2), "activation": "relu"}),
    ("MaxPool2D", {}),
    ("Conv2D", {"filters": 30, "kernel_size": (2, 2), "activation": "relu"}),
    ("MaxPool2D", {}),
    ("Flatten", {}),
    ("Dense", {"units": 10, "activation": "softmax"}),
)
NORMALIZED: Rows = (
    ("Conv2D", {"filters": 3, "kernel_size": 3, "use_bias": False, "padding": "same"}),
    ("BatchNormalization", {}),
    ("ReLU", {}),
    ("GlobalAveragePooling2D", {}),
    ("LayerNormalization", {}),
    ("Dense", {"units": 4}),
)
PERCEPTRON: Rows = (("Dense", {"units": 16, "activation": "relu"}), ("Dense", {"units": 4, "activation": "softmax"}))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and progress."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def both(keras: Any, rows: Rows, shape: tuple[int, ...], dtype: str, device: str, seed: int = 0) -> tuple[Any, Any]:
    """A model of each, of the same layers with the same weights."""
    keras.utils.set_random_seed(seed)
    theirs = keras.Sequential([keras.Input(shape), *(getattr(keras.layers, name)(**given) for name, given in rows)])
    ours = xc.Sequential(
        [xc.Input(shape), *(getattr(xc.layers, name)(**given) for name, given in rows)], device=device, dtype=dtype, seed=seed
    )
    ours.set_weights(theirs.get_weights())
    return ours, theirs


def data(kind: str, samples: int, shape: tuple[int, ...], dtype: str) -> tuple[Any, Any]:
    """Samples and labels with something to learn."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(samples, *shape)).astype(dtype)
    scores = x.reshape(samples, -1)[:, :10]
    if kind == "regression":
        return x, (scores[:, :2] * 2 + 1).astype(dtype)
    if kind == "binary":
        return x, (scores[:, :1] > 0).astype(dtype)
    if kind == "column":
        return x, scores[:, :4].argmax(axis=1)[:, None]
    if kind == "flat binary":
        return x, (scores[:, 0] > 0).astype(int)
    classes = scores.argmax(axis=1) if kind.endswith("10") else scores[:, :4].argmax(axis=1)
    return x, np.eye(10 if kind.endswith("10") else 4, dtype=dtype)[classes] if kind.startswith("one-hot") else classes


@dataclass(frozen=True)
class Training:
    """One way to train: the layers, the data, and the arguments of ``compile`` and ``fit``.

    Attributes:
        title: For messages.
        rows: Layers.
        kind: Of the labels; see :func:`data`.
        shape: Of a sample.
        compiled: Arguments of ``compile``; those that are functions are called with ``keras`` or ``xpconv``.
        fitted: Arguments of ``fit``; those that are functions are called with the number of samples and the dtype.
        samples: How many.
        dtypes: What it is computed in.
        times: How many tolerances the results may be apart.
    """

    title: str
    rows: Rows
    kind: str
    compiled: Mapping[str, Any]
    fitted: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (12,)
    samples: int = 50
    dtypes: tuple[str, ...] = tuple(TOLERANCE)
    times: float = TIMES


def compare_training(checks: Checks, training: Training, dtype: str) -> None:
    """Every step's losses and metrics, the history, the weights in the end, evaluation and predictions."""
    title = f"{training.title} in {dtype}"
    x, y = data(training.kind, training.samples, training.shape, dtype)
    with keras_in(dtype) as keras, quiet():
        keras.utils.clear_session()
        pair = both(keras, training.rows, training.shape, dtype, checks.device)
        told: list[list[tuple[int, dict[str, float]]]] = [[], []]
        histories = []
        for module, model, steps in zip((xc, keras), pair, told, strict=True):
            compiled = {key: value(module) if callable(value) else value for key, value in training.compiled.items()}
            fitted = {
                key: value(training.samples, dtype) if callable(value) else value for key, value in training.fitted.items()
            }
            model.compile(**compiled)

            def note(batch: int, logs: Any, steps: list[Any] = steps) -> None:
                steps.append((batch, {name: float(value) for name, value in logs.items()}))

            callback = module.callbacks.LambdaCallback(on_train_batch_end=note)
            given = {"epochs": 3, "batch_size": 16, "shuffle": False, "verbose": 0, **fitted}
            histories.append(model.fit(x, y, callbacks=[callback], **given))
        ours, theirs = pair
        results = [model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True) for model in pair]
        listed = [model.evaluate(x, y, batch_size=16, verbose=0) for model in pair]
        predicted = [np.asarray(model.predict(x, batch_size=16, verbose=0)) for model in pair]
        for model in pair:
            model.reset_metrics()
        on_batch = [model.test_on_batch(x[:8], y[:8], return_dict=True) for model in pair]
        for model in pair:
            model.reset_metrics()
        trained = [model.train_on_batch(x[:8], y[:8], return_dict=True) for model in pair]
    checks.same(f"{title}: steps", [batch for batch, _ in told[0]], [batch for batch, _ in told[1]])
    for (batch, mine), (_, other) in zip(*told, strict=True):
        checks.same(f"{title}: what step {batch} tells", sorted(mine), sorted(other))
        for name in other:
            _near(checks, f"{title}: {name} of step {batch}", mine.get(name), other[name], dtype, training.times)
    checks.same(f"{title}: keys of the history", list(histories[0].history), list(histories[1].history))
    checks.same(f"{title}: epochs", list(histories[0].epoch), list(histories[1].epoch))
    for name, values in histories[1].history.items():
        _near(checks, f"{title}: {name} of the epochs", histories[0].history.get(name), values, dtype, training.times)
    for position, (mine, other) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
        checks.close(f"{title}: weight {position} in the end", mine, other, dtype, times=training.times)
    for what, (mine, other) in (("evaluate", results), ("test_on_batch", on_batch), ("train_on_batch", trained)):
        checks.same(f"{title}: keys of {what}", sorted(mine), sorted(other))
        for name in other:
            _near(checks, f"{title}: {name} of {what}", mine.get(name), float(other[name]), dtype, training.times)
    _near(checks, f"{title}: evaluate's list", listed[0], listed[1], dtype, training.times)
    checks.close(f"{title}: predict", predicted[0], predicted[1], dtype, times=training.times)


def _near(checks: Checks, what: str, ours: Any, theirs: Any, dtype: str, times: float) -> None:
    checks.close(what, np.asarray(np.nan if ours is None else ours, float), np.asarray(theirs, float), dtype, times=times)


def _weights_of_samples(samples: int, dtype: str) -> Any:
    return np.random.default_rng(3).uniform(0, 2, samples).astype(dtype)


def _validation_data(samples: int, dtype: str) -> Any:
    x, y = data("one-hot", 30, (12,), dtype)
    return x, y, _weights_of_samples(30, dtype)


def _regularized(units: int, activation: str) -> dict[str, Any]:
    return {"units": units, "activation": activation, "kernel_regularizer": "l2", "bias_regularizer": "l1"}


# Rates and factors are numbers of float32, which Keras' optimizers take them by way of.
SGD = {"optimizer": lambda module: module.optimizers.SGD(0.125, momentum=0.875)}
SPARSE = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}

TRAININGS = [
    Training("a perceptron", PERCEPTRON, "sparse", {**SGD, **SPARSE}),
    Training(
        "one-hot labels, two metrics",
        PERCEPTRON,
        "one-hot",
        {**SGD, "loss": "categorical_crossentropy", "metrics": ["accuracy", "mse"]},
        {"batch_size": 7, "epochs": 2},
    ),
    Training(
        "a notebook's network for MNIST, with Adam",
        CONVOLUTIONS,
        "one-hot10",
        {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": ["accuracy"]},
        {"batch_size": 32, "epochs": 2},
        shape=IMAGES,
        samples=80,
        dtypes=("float32",),
    ),
    Training(
        "the same with SGD",
        CONVOLUTIONS,
        "sparse10",
        {"optimizer": lambda module: module.optimizers.SGD(0.125), **SPARSE},
        {"batch_size": 32, "epochs": 1, "validation_split": 0.2},
        shape=IMAGES,
        samples=80,
    ),
    Training(
        "binary labels and class weights",
        (("Dense", {"units": 8, "activation": "tanh"}), ("Dense", {"units": 1, "activation": "sigmoid"})),
        "binary",
        {**SGD, "loss": "binary_crossentropy", "metrics": ["accuracy"]},
        {"class_weight": {0: 0.5, 1: 2.0}},
    ),
    Training(
        "labels in a column, and a number of steps",
        PERCEPTRON,
        "column",
        {**SGD, "loss": "sparse_categorical_crossentropy", "metrics": ["acc", "sparse_top_k_categorical_accuracy"]},
        {"steps_per_epoch": 2, "epochs": 4},
        dtypes=("float32",),
    ),
    Training(
        "flat binary labels for a column of predictions",
        (("Dense", {"units": 1, "activation": "sigmoid"}),),
        "flat binary",
        {**SGD, "loss": "binary_crossentropy", "metrics": ["accuracy", "binary_accuracy"]},
    ),
    Training(
        "class weights for one-hot labels, validation with weights",
        PERCEPTRON,
        "one-hot",
        {**SGD, "loss": "categorical_crossentropy", "metrics": ["accuracy"], "weighted_metrics": ["mse"]},
        {"class_weight": {0: 0.5, 2: 3.0}, "validation_data": _validation_data},
    ),
    Training(
        "Huber, and RMSprop with momentum",
        (("Dense", {"units": 8, "activation": "elu"}), ("Dense", {"units": 2})),
        "regression",
        {
            "optimizer": lambda module: module.optimizers.RMSprop(2.0**-7, rho=0.75, momentum=0.5),
            "loss": "huber",
            "metrics": ["mae"],
        },
    ),
    Training("class weights", PERCEPTRON, "sparse", {**SGD, **SPARSE}, {"class_weight": {0: 0.5, 2: 3.0}}),
    Training(
        "sample weights, a validation split and weighted metrics",
        (("Dense", {"units": 8, "activation": "gelu"}), ("Dense", {"units": 2})),
        "regression",
        {
            "optimizer": lambda module: module.optimizers.SGD(0.03125),
            "loss": "mse",
            "metrics": ["mae"],
            "weighted_metrics": ["mse"],
        },
        {"sample_weight": _weights_of_samples, "validation_split": 0.25},
        samples=60,
        dtypes=("float32",),
    ),
    Training(
        "regularizers",
        (("Dense", _regularized(8, "relu")), ("Dense", _regularized(4, "softmax"))),
        "sparse",
        {**SGD, **SPARSE},
        {"validation_split": 0.2, "validation_batch_size": 4},
        dtypes=("float32",),
    ),
    Training(
        "normalization, and logits",
        NORMALIZED,
        "sparse",
        {**SGD, "loss": lambda module: module.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]},
        {"epochs": 4, "initial_epoch": 1},
        shape=(6, 6, 2),
    ),
    Training(
        "the default optimizer, every second epoch validated",
        PERCEPTRON,
        "sparse",
        SPARSE,
        {"validation_split": 0.2, "validation_freq": 2, "epochs": 4},
        dtypes=("float32",),
    ),
    Training(
        "a frozen layer, a schedule and clipped gradients",
        (("Dense", {"units": 16, "activation": "relu", "trainable": False}), *PERCEPTRON[1:]),
        "sparse",
        {
            "optimizer": lambda module: module.optimizers.Adam(
                module.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5), global_clipnorm=0.5
            ),
            **SPARSE,
        },
        dtypes=("float32",),
    ),
]


def _trainings(checks: Checks) -> None:
    with keras_in("float32") as keras:
        checks.signature(
            xc.Sequential.__init__,
            keras.Sequential.__init__,
            added={
                "device": "where to compute",
                "dtype": "of all layers that were given none of their own",
                "seed": "of the initial weights, dropout and the order of the samples",
            },
        )
    for training in TRAININGS:
        for dtype in training.dtypes:
            compare_training(checks, training, dtype)
    checks.settings = len(TRAININGS)
    _told_of_itself(checks)


def _on_batches(checks: Checks, name: str) -> None:
    x, y = data("sparse", 40, (12,), "float32")
    with keras_in("float32") as keras, quiet():
        pair = both(keras, PERCEPTRON, (12,), "float32", checks.device)
        found = []
        for module, model in zip((xc, keras), pair, strict=True):
            model.compile(optimizer=module.optimizers.SGD(2.0**-30), **SPARSE)
            first = getattr(model, name)(x[:8], y[:8], return_dict=True)["loss"]
            second = getattr(model, name)(x[8:16], y[8:16], return_dict=True)["loss"]
            again = getattr(model, name)(x[:8], y[:8], return_dict=True)["loss"]
            found.append((first, second, again))
        for ours, theirs in zip(*found, strict=True):
            checks.close(f"{name}: loss of each batch", ours, np.asarray(theirs), "float32", same_dtype=False)


def _same_metric_weighted(checks: Checks, name: str) -> None:
    x, y = data("sparse", 20, (12,), "float32")
    compiled = {**SPARSE, "optimizer": "sgd", "weighted_metrics": ["accuracy"]}
    with keras_in("float32") as keras, quiet():
        ours, theirs = both(keras, PERCEPTRON, (12,), "float32", checks.device)
        theirs.compile(**compiled)
        ours.compile(**compiled)
        checks.same("keys", *(list(model.fit(x, y, verbose=0).history) for model in (ours, theirs)))


def _steps(checks: Checks, **fitted: Any) -> list[list[int]]:
    # The numbers of the steps that fit makes of 50 samples.
    x, y = data("sparse", 50, (12,), "float32")
    with keras_in("float32") as keras, quiet():
        found = []
        for module, model in zip((xc, keras), both(keras, PERCEPTRON, (12,), "float32", checks.device), strict=True):
            model.compile(optimizer="sgd", **SPARSE)
            steps: list[int] = []
            counting = module.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, steps=steps: steps.append(batch))
            model.fit(x, y, callbacks=[counting], verbose=0, **fitted)
            found.append(steps)
    return found


def _told_of_itself(checks: Checks) -> None:
    frozen: Rows = (("Dense", {"units": 8, "trainable": False}), ("BatchNormalization", {"trainable": False}))
    for rows, shape in ((CONVOLUTIONS, IMAGES), (NORMALIZED, (6, 6, 2)), ((*frozen, *PERCEPTRON), (5,))):
        _same_told(checks, rows, shape)


def _same_told(checks: Checks, rows: Rows, shape: tuple[int, ...]) -> None:
    with keras_in("float32") as keras:
        keras.utils.clear_session()
        xc.reset_names()
        ours, theirs = both(keras, rows, shape, "float32", checks.device)
        for model in (ours, theirs):
            model.compile(optimizer="sgd", loss="mse")
        checks.same("names of layers", [layer.name for layer in ours.layers], [layer.name for layer in theirs.layers])
        checks.same("name of the model", ours.name, theirs.name)
        checks.same("output shape", tuple(ours.output_shape), tuple(theirs.output_shape))
        checks.same(
            "shapes of the layers",
            [tuple(one.output_shape) for one in ours.layers],
            [tuple(one.output.shape) for one in theirs.layers],
        )
        checks.same("parameters", ours.count_params(), theirs.count_params())
        checks.same(
            "parameters of the layers",
            [one.count_params() for one in ours.layers],
            [one.count_params() for one in theirs.layers],
        )
        for what in ("weights", "trainable_weights", "non_trainable_weights"):
            checks.same(
                f"shapes of {what}",
                [tuple(array.shape) for array in getattr(ours, what)],
                [tuple(array.shape) for array in getattr(theirs, what)],
            )
        told: list[list[str]] = [[], []]
        for lines, model in zip(told, (ours, theirs), strict=True):
            model.summary(print_fn=lambda text, *_, lines=lines, **__: lines.extend(text.splitlines()))
        sums = [[line.strip() for line in lines if "params:" in line] for lines in told]
        checks.same("sums of the summary", sums[0][:3], sums[1][:3])
        counted = [[word for line in lines for word in line.split() if word.replace(",", "").isdigit()] for lines in told]
        checks.same(
            "numbers of the summary's rows",
            [word for word in counted[0] if word in counted[1]],
            [word for word in counted[1] if word in counted[0]],
        )


def _own_model(checks: Checks) -> None:
    # A model of one's own, with two ways through it.
    for dtype in TOLERANCE:
        with keras_in(dtype) as keras, quiet():

            def made(module: Any, layers: Any, **options: Any) -> Any:
                class Residual(module.Model):  # type: ignore[misc, name-defined]
                    def __init__(self) -> None:
                        super().__init__(**options)
                        self.first = layers.Dense(8, activation="tanh")
                        self.second = layers.Dense(8, activation="relu")
                        self.dropout = layers.Dropout(0.0)
                        self.add = layers.Add()
                        self.beside = layers.Concatenate()
                        self.last = layers.Dense(4, activation="softmax")

                    def call(self, inputs: Any, training: bool = False) -> Any:
                        first = self.first(inputs)
                        added = self.add([first, self.dropout(self.second(first), training=training)])
                        return self.last(self.beside([added, self.second(added)]))

                return Residual()

            x, y = data("sparse", 40, (12,), dtype)
            keras.utils.set_random_seed(0)
            ours, theirs = made(xc, xc.layers, device=checks.device, dtype=dtype), made(keras, keras.layers)
            theirs(x[:1])
            ours(x[:1])
            ours.set_weights(theirs.get_weights())
            histories = []
            for module, model in ((xc, ours), (keras, theirs)):
                model.compile(optimizer=module.optimizers.SGD(0.125, momentum=0.875), **SPARSE)
                histories.append(model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history)
        checks.same("a model of one's own: keys", list(histories[0]), list(histories[1]))
        for name in histories[1]:
            _near(checks, f"a model of one's own: {name}", histories[0][name], histories[1][name], dtype, TIMES)
        for position, (mine, other) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
            checks.close(f"a model of one's own: weight {position}", mine, other, dtype, times=TIMES)

    class Broken(xc.Model):
        def __init__(self) -> None:
            super().__init__(device="numpy")
            self.dense = xc.layers.Dense(4)

        def call(self, x: Any) -> Any:
            return self.dense(x) * 2

    broken = Broken()
    broken.compile(optimizer="sgd", loss="mse")
    checks.differs(
        "arrays are plain, and arithmetic on them in `call` leaves no trace: a training of such a model ends with a "
        "BrokenChainError that tells which layer to use",
        _raises(xc.errors.BrokenChainError, lambda: broken.fit(np.ones((4, 3), np.float32), np.ones((4, 4)), verbose=0)),
    )
    checks.differs(
        "a model is made of layers in a row, or is a class; there are no `Model(inputs, outputs)`",
        _raises(TypeError, lambda: xc.Model(inputs=1, outputs=2)),
    )
    checks.settings = 1


def _raises(kind: type[Exception], function: Callable[[], Any]) -> bool:
    try:
        function()
    except kind:
        return True
    return False


def method(name: str, more: Callable[[Checks, str], None] | None = None, **known: Any) -> Case:
    """The arguments of a method of models."""

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            checks.signature(getattr(xc.Sequential, name), getattr(keras.Sequential, name), **known)
        if more is not None:
            more(checks, name)

    return Case("model", (f"Model.{name}",), run, "arguments (what it does stands at `Sequential`)")


def _nan(checks: Checks) -> None:
    x, y = np.full((8, 3), np.nan, np.float32), np.zeros(8, int)
    with keras_in("float32") as keras, quiet():
        ours, theirs = both(keras, PERCEPTRON, (3,), "float32", checks.device)
        for model in (ours, theirs):
            model.compile(optimizer="sgd", **SPARSE)
        goes_on = np.isnan(theirs.fit(x, y, verbose=0).history["loss"][0])
        before = ours.get_weights()
        raised = _raises(xc.errors.TrainingError, lambda: ours.fit(x, y, verbose=0))
        kept = all(np.array_equal(one, other) for one, other in zip(before, ours.get_weights(), strict=True))
    checks.differs(
        "a loss that is NaN or infinite raises TrainingError before it reaches the weights, unless there is a TerminateOnNaN; "
        "Keras goes on",
        bool(goes_on and raised and kept),
    )


def _fit(checks: Checks) -> None:
    with keras_in("float32") as keras:
        checks.signature(xc.Sequential.fit, keras.Sequential.fit)
    _nan(checks)
    ours, theirs = _steps(checks, batch_size=1, validation_split=0.25)
    checks.same("samples that a validation split leaves", len(ours), len(theirs))
    ours, theirs = _steps(checks, batch_size=16, steps_per_epoch=3, epochs=2)
    checks.differs(
        "arrays that end before `steps_per_epoch` begin again, in Keras the epoch ends",
        ours == [0, 1, 2] * 2 and theirs == [0, 1, 2, 0],
    )


def _input(checks: Checks) -> None:
    with keras_in("float32") as keras, quiet():
        shapes = [(28, 28, 1), (5,)]
        for shape in shapes:
            ours = xc.Sequential([xc.Input(shape), xc.layers.Flatten(), xc.layers.Dense(2)], device=checks.device)
            theirs = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)])
            checks.same("output shape", tuple(ours.output_shape), tuple(theirs.output_shape))
            checks.same("parameters", ours.count_params(), theirs.count_params())
        checks.signature(
            xc.Input,
            keras.Input,
            defaults={"shape": "nothing else tells it"},
            left_out={
                "dtype": "floats of any dtype and integers are taken",
                "sparse": "arrays are dense",
                "ragged": "arrays are rectangular",
                "batch_shape": "`batch_size` and `shape` say it",
                "name": "the input of a row of layers needs none",
                "tensor": "there are no symbolic tensors",
                "optional": "every input is there",
            },
        )
        checks.settings = len(shapes)


def _load_model(checks: Checks) -> None:
    x = np.random.default_rng(0).normal(size=(8, 28, 28, 1)).astype(np.float32)
    y = np.arange(8)
    with keras_in("float32") as keras, quiet(), tempfile.TemporaryDirectory() as folder:
        pair = both(keras, CONVOLUTIONS, IMAGES, "float32", checks.device)
        results = []
        for module, model, file in zip((xc, keras), pair, ("model.safetensors", "model.keras"), strict=True):
            model.compile(optimizer=module.optimizers.SGD(0.125, momentum=0.875), **SPARSE)
            model.fit(x, y, shuffle=False, verbose=0)
            model.save(Path(folder, file))
            again = module.models.load_model(Path(folder, file))
            kept = model.predict(x, verbose=0)
            loaded = again.predict(x, verbose=0)
            checks.close(f"{module.__name__}: predictions after loading", loaded, kept, "float32")
            again.fit(x, y, shuffle=False, verbose=0)
            results.append(again.predict(x, verbose=0))
        checks.close("predictions, trained on after loading", *results, "float32", times=TIMES)
        refused = _raises(xc.errors.ParameterFileError, lambda: xc.models.load_model(Path(folder, "model.keras")))
    checks.differs(
        "the file is safetensors; Keras' files are not read, weights go over by `get_weights` and `set_weights`", refused
    )
    checks.settings = 1


# ---- the cases -----------------------------------------------------------------------------------------------------------

CASES = [
    Case(
        "model",
        ("Sequential",),
        _trainings,
        "loss and metrics of every step, history, weights in the end, `evaluate`, `predict`, `train_on_batch`, `test_on_batch` "
        "of different trainings; names, shapes and numbers of parameters, the summary's sums; arguments",
    ),
    Case("model", ("Model",), _own_model, "a model with two ways through it: history, weights in the end"),
    Case("layer", ("Input",), _input, "output shape, number of parameters; arguments"),
    Case("model", ("load_model",), _load_model, "predictions after loading, and after training on"),
    method(
        "compile",
        _same_metric_weighted,
        left_out={
            "loss_weights": "a model has one loss",
            "run_eagerly": "nothing is traced",
            "steps_per_execution": "nothing is traced",
            "jit_compile": "kernels are compiled, not models",
            "auto_scale_loss": "float32 and float64 need no scaling of the loss",
        },
        order="by position, `metrics` follows `loss`",
    ),
    Case("model", ("Model.fit",), _fit, "arguments, a loss that is NaN (what it does else stands at `Sequential`)"),
    method("evaluate"),
    method("predict"),
    method("train_on_batch", _on_batches),
    method("test_on_batch", _on_batches),
    method(
        "summary",
        left_out={"positions": "the table fits its width", "layer_range": "all layers are listed"},
        defaults={"print_fn": "which None means in Keras"},
        order="by position, `print_fn` follows `line_length`",
    ),
]
