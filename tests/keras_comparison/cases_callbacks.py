"""Every callback: told of the same epochs as Keras', and in the same trainings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases_training import PERCEPTRON, SPARSE, TIMES, both, data, quiet
from comparison import Case, Checks, keras_in

import xpconv as xc

TOLD = [
    {"loss": 1.0, "val_loss": 1.0, "accuracy": 0.5},
    {"loss": 0.8, "val_loss": 0.7, "accuracy": 0.6},
    {"loss": 0.7, "val_loss": 0.71, "accuracy": 0.6},
    {"loss": 0.6, "val_loss": 0.69, "accuracy": 0.7},
    {"loss": 0.5, "val_loss": 0.9, "accuracy": 0.8},
    {"loss": 0.4, "val_loss": 0.95, "accuracy": 0.8},
    {"loss": 0.3, "val_loss": 0.91, "accuracy": 0.8},
    {"loss": 0.2, "val_loss": 0.92, "accuracy": 0.75},
    {"loss": 0.1, "val_loss": 0.3, "accuracy": 0.9},
]


def driven(
    name: str,
    settings: Sequence[Mapping[str, Any]],
    told: Callable[[Any, Any], Any],
    compared: str,
    more: Callable[[Checks], None] | None = None,
    **known: Any,
) -> Case:
    """The case of a callback that is told of the same epochs: what it has done to its model after each of them."""

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras, quiet():
            checks.signature(getattr(xc.callbacks, name).__init__, getattr(keras.callbacks, name).__init__, **known)
            for given in settings:
                pair = both(keras, (("Dense", {"units": 1}),), (2,), "float32", checks.device)
                seen = []
                for module, model in zip((xc, keras), pair, strict=True):
                    model.compile(optimizer=module.optimizers.SGD(0.5), loss="mse")
                    callback = getattr(module.callbacks, name)(**given)
                    callback.set_model(model)
                    callback.set_params({"epochs": len(TOLD), "steps": 1, "verbose": 0})
                    model.stop_training = False
                    noted = []
                    callback.on_train_begin()
                    for epoch, logs in enumerate(TOLD):
                        model.set_weights([np.full((2, 1), epoch, np.float32), np.zeros(1, np.float32)])
                        callback.on_epoch_begin(epoch)
                        callback.on_epoch_end(epoch, dict(logs))
                        noted.append(told(callback, model))
                        if model.stop_training:
                            break
                    callback.on_train_end()
                    noted.append(told(callback, model))
                    seen.append(noted)
                checks.same(f"{name}({dict(given)})", *seen)
        checks.settings = len(settings)
        if more is not None:
            more(checks)

    return Case("callback", (name,), run, compared)


def _of_stopping(callback: Any, model: Any) -> Any:
    best = None if callback.best is None or not np.isfinite(callback.best) else float(callback.best)
    return [
        bool(model.stop_training),
        int(callback.stopped_epoch),
        int(callback.wait),
        best,
        float(model.get_weights()[0][0, 0]),
    ]


def _of_rate(callback: Any, model: Any) -> Any:
    return round(float(np.asarray(model.optimizer.learning_rate)), 7)


def _no_best(checks: Checks) -> None:
    # NaN at first: for Keras the first number is the best whatever it is.
    with keras_in("float32") as keras, quiet():
        stopped = []
        for module, model in zip(
            (xc, keras), both(keras, (("Dense", {"units": 1}),), (2,), "float32", checks.device), strict=True
        ):
            model.compile(optimizer=module.optimizers.SGD(0.5), loss="mse")
            callback = module.callbacks.EarlyStopping("loss", patience=2)
            callback.set_model(model)
            callback.on_train_begin()
            for epoch, loss in enumerate([np.nan, 0.5, 0.4, 0.3, 0.2]):
                if not model.stop_training:
                    callback.on_epoch_end(epoch, {"loss": loss})
            stopped.append(bool(model.stop_training))
    checks.differs("NaN is never the best, not at first either", stopped == [False, True])


def _real_stop(checks: Checks) -> None:
    # A training that overfits: the same last epoch, and the same weights again.
    x, y = data("sparse", 40, (12,), "float64")
    y = np.random.default_rng(5).permutation(y)
    with keras_in("float64") as keras, quiet():
        pair = both(keras, PERCEPTRON, (12,), "float64", checks.device)
        epochs = []
        for module, model in zip((xc, keras), pair, strict=True):
            model.compile(optimizer=module.optimizers.SGD(0.25, momentum=0.875), **SPARSE)
            stopping = module.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
            history = model.fit(
                x, y, epochs=60, batch_size=8, shuffle=False, validation_split=0.25, callbacks=[stopping], verbose=0
            )
            epochs.append((len(history.epoch), int(stopping.stopped_epoch)))
        checks.same("EarlyStopping: the last epoch", *epochs)
        if not epochs[0][0] < 60:
            checks.unexpected.append("EarlyStopping: the training did not end early, nothing was compared")
        for mine, other in zip(pair[0].get_weights(), pair[1].get_weights(), strict=True):
            checks.close("EarlyStopping: weights of the best epoch", mine, other, "float64", times=TIMES)
    _no_best(checks)


def _order_of_calls(checks: Checks) -> None:
    moments = [
        name for name in dir(xc.callbacks.Callback) if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end")
    ]
    with keras_in("float32") as keras, quiet():
        checks.same(
            "moments",
            moments,
            [
                name
                for name in dir(keras.callbacks.Callback)
                if name.startswith("on_") and name not in ("on_batch_begin", "on_batch_end")
            ],
        )
        x, y = data("sparse", 20, (12,), "float32")
        seen = []
        for module, model in zip((xc, keras), both(keras, PERCEPTRON, (12,), "float32", checks.device), strict=True):
            calls: list[Any] = []

            def noting(name: str, calls: list[Any]) -> Callable[..., None]:
                def noted(self: Any, *given: Any, logs: Any = None) -> None:
                    first = [value for value in given if isinstance(value, (int, np.integer))][:1]
                    last = next((value for value in (*given, logs) if isinstance(value, dict)), None)
                    is_of_epoch = name in ("on_epoch_end", "on_train_end", "on_test_end")
                    calls.append((name, *map(int, first), sorted(last) if is_of_epoch and last else None))

                return noted

            listener = type("Listener", (module.callbacks.Callback,), {name: noting(name, calls) for name in moments})()
            model.compile(optimizer="sgd", **SPARSE)
            model.fit(x, y, batch_size=8, epochs=2, validation_split=0.4, shuffle=False, callbacks=[listener], verbose=0)
            model.evaluate(x, y, batch_size=8, callbacks=[listener], verbose=0)
            model.predict(x, batch_size=8, callbacks=[listener], verbose=0)
            seen.append(calls)
        checks.same("calls in their order", *seen)
    checks.settings = 1


def _lambda(checks: Checks) -> None:
    with keras_in("float32") as keras:
        checks.signature(xc.callbacks.LambdaCallback.__init__, keras.callbacks.LambdaCallback.__init__)
        for module in (xc, keras):
            noted: list[Any] = []
            callback = module.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs, noted=noted: noted.append((epoch, logs))
            )
            callback.on_epoch_end(3, {"loss": 0.5})
            checks.same(f"{module.__name__}: what the function was told", noted, [(3, {"loss": 0.5})])
    checks.settings = 1


def _files(checks: Checks) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"save_best_only": True},
        {"save_best_only": True, "monitor": "accuracy", "mode": "max"},
        {"save_best_only": True, "initial_value_threshold": 0.7},
        {"save_weights_only": True},
    ]
    with keras_in("float32") as keras, quiet():
        checks.signature(xc.callbacks.ModelCheckpoint.__init__, keras.callbacks.ModelCheckpoint.__init__)
        for given in settings:
            names = []
            for module, model in zip(
                (xc, keras), both(keras, (("Dense", {"units": 1}),), (2,), "float32", checks.device), strict=True
            ):
                model.compile(optimizer="sgd", loss="mse")
                suffix = ".safetensors" if module is xc else ".weights.h5" if given.get("save_weights_only") else ".keras"
                with tempfile.TemporaryDirectory() as folder:
                    callback = module.callbacks.ModelCheckpoint(
                        str(Path(folder, "{epoch:02d}-{val_loss:.2f}" + suffix)), **given
                    )
                    callback.set_model(model)
                    callback.on_train_begin()
                    for epoch, logs in enumerate(TOLD):
                        callback.on_epoch_begin(epoch)
                        callback.on_epoch_end(epoch, dict(logs))
                    names.append(sorted(path.name.removesuffix(suffix) for path in Path(folder).iterdir()))
            checks.same(f"ModelCheckpoint({given}): files", *names)
    checks.settings = len(settings)


def _csv(checks: Checks) -> None:
    with keras_in("float32") as keras, quiet(), tempfile.TemporaryDirectory() as folder:
        checks.signature(xc.callbacks.CSVLogger.__init__, keras.callbacks.CSVLogger.__init__)
        texts = []
        for module, model in zip(
            (xc, keras), both(keras, (("Dense", {"units": 1}),), (2,), "float32", checks.device), strict=True
        ):
            path = Path(folder, f"{module.__name__}.csv")
            for append in (False, True):
                callback = module.callbacks.CSVLogger(str(path), separator=";", append=append)
                callback.set_model(model)
                callback.on_train_begin()
                for epoch, logs in enumerate(TOLD):
                    callback.on_epoch_end(epoch, dict(logs))
                callback.on_train_end()
            texts.append(path.read_text().splitlines())
        checks.same("the file", *texts)
    checks.settings = 2


def _terminate(checks: Checks) -> None:
    x, y = data("sparse", 32, (12,), "float32")
    x[20] = np.nan
    with keras_in("float32") as keras, quiet():
        checks.signature(xc.callbacks.TerminateOnNaN.__init__, keras.callbacks.TerminateOnNaN.__init__)
        steps = []
        for module, model in zip((xc, keras), both(keras, PERCEPTRON, (12,), "float32", checks.device), strict=True):
            model.compile(optimizer="sgd", **SPARSE)
            count: list[int] = []
            counting = module.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs, count=count: count.append(batch))
            model.fit(
                x, y, batch_size=8, epochs=3, shuffle=False, callbacks=[module.callbacks.TerminateOnNaN(), counting], verbose=0
            )
            steps.append(count)
        checks.same("steps until the end", *steps)
    checks.settings = 1


def _history(checks: Checks) -> None:
    with keras_in("float32") as keras:
        found = []
        for module in (xc, keras):
            history = module.callbacks.History()
            history.set_model(module.Sequential())
            history.on_train_begin()
            for epoch, logs in enumerate(TOLD):
                history.on_epoch_end(epoch, dict(logs))
            found.append((list(history.epoch), {name: list(values) for name, values in history.history.items()}))
        checks.same("epochs and history", *found)
    checks.settings = 1


def _list(checks: Checks) -> None:
    with keras_in("float32") as keras:
        checks.signature(xc.callbacks.CallbackList.__init__, keras.callbacks.CallbackList.__init__)
        found = []
        for module in (xc, keras):
            noted: list[Any] = []
            callbacks = module.callbacks.CallbackList(
                [
                    module.callbacks.LambdaCallback(
                        on_epoch_end=lambda epoch, logs, noted=noted: noted.append((epoch, dict(logs)))
                    )
                ],
                add_history=True,
                model=module.Sequential(),
                epochs=2,
                steps=1,
            )
            callbacks.on_train_begin()
            callbacks.on_epoch_end(0, dict(TOLD[0]))
            kinds = sorted(type(callback).__name__ for callback in callbacks.callbacks)
            found.append((noted, kinds, callbacks.params))
        checks.same("what it passes on and holds", *found)
    checks.settings = 1


def _not_in_keras(reason: str, name: str) -> Callable[[Checks], None]:
    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            checks.differs(reason, not hasattr(keras.callbacks, name))

    return run


CASES = [
    Case("callback", ("Callback",), _order_of_calls, "moments, and the order in which fit, evaluate and predict call them"),
    Case("callback", ("CallbackList",), _list, "what it holds and passes on; arguments"),
    driven(
        "EarlyStopping",
        [
            {},
            {"patience": 2},
            {"patience": 2, "restore_best_weights": True},
            {"monitor": "accuracy", "mode": "max", "patience": 1},
            {"monitor": "accuracy", "mode": "min", "patience": 1, "restore_best_weights": True},
            {"min_delta": 0.05, "patience": 2},
            {"baseline": 0.5, "patience": 3},
            {"patience": 1, "start_from_epoch": 4},
            {"monitor": "loss", "mode": "min"},
        ],
        _of_stopping,
        "when it stops, the best number, the weights, after each epoch that it is told of; a training that overfits; arguments",
        more=_real_stop,
    ),
    driven(
        "ReduceLROnPlateau",
        [
            {"patience": 2},
            {"patience": 1, "factor": 0.5, "cooldown": 2},
            {"patience": 1, "min_delta": 0.1, "min_lr": 0.2, "factor": 0.5},
            {"monitor": "accuracy", "mode": "max", "patience": 1},
        ],
        _of_rate,
        "the learning rate after each epoch that it is told of; arguments",
    ),
    driven(
        "LearningRateScheduler",
        [{"schedule": lambda epoch: 0.5 / (epoch + 1)}, {"schedule": lambda epoch, rate: rate * 0.5}],
        _of_rate,
        "the learning rate after each epoch; arguments",
    ),
    Case("callback", ("ModelCheckpoint",), _files, "which epochs are saved, under which names; arguments"),
    Case("callback", ("CSVLogger",), _csv, "the file; arguments"),
    Case("callback", ("History",), _history, "epochs and history"),
    Case("callback", ("LambdaCallback",), _lambda, "what the functions are told; arguments"),
    Case("callback", ("TerminateOnNaN",), _terminate, "the step that a training ends at; arguments"),
    Case(
        "callback",
        ("ProgressBar",),
        _not_in_keras(
            "Keras calls it `ProgbarLogger`; what it shows has the same names and numbers in another layout", "ProgressBar"
        ),
    ),
    Case("callback", ("LivePlot",), _not_in_keras("not in Keras: draws the training into a file", "LivePlot")),
]
