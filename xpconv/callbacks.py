"""What is called while a model trains, evaluates and predicts: Keras' callbacks, and a picture that grows with the training.

A callback is an object with a method for each moment; :class:`Callback` has them all and does nothing::

    model.fit(x, t, epochs=20, validation_split=0.1, callbacks=[EarlyStopping(patience=3, restore_best_weights=True)])

``logs`` of an epoch is a dictionary of floats, which callbacks may add to: those after them see it, the history too. ``logs``
of a batch is a mapping whose values are worked out when they are read, which on a card waits for the batch to be done.
"""

from __future__ import annotations

import csv
import inspect
import io
import math
import os
import string
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from xpconv.arguments import finite, fraction, not_negative
from xpconv.files import atomic_write, check_writable
from xpconv.geometry import integer
from xpconv.training.progress import REFRESH_SECONDS, is_live_terminal

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "LivePlot",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]

Logs = dict[str, Any]
BatchLogs = Mapping[str, Any]


class Callback:
    """What is called at the moments of a training, an evaluation and a prediction; does nothing.

    Derive from it and override what is needed.

    Attributes:
        model: The model, from the moment on that it is given to one of its methods.
        params: ``{"verbose": ..., "epochs": ..., "steps": ...}``; steps is None where the number of batches isn't known.

    Example:
        >>> import xpconv as xc
        >>> class Epochs(xc.callbacks.Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         print(epoch, logs)
        >>> callbacks = xc.callbacks.CallbackList([Epochs()], epochs=1, steps=1, verbose=0)
        >>> callbacks.on_epoch_end(0, {"loss": 0.5})
        0 {'loss': 0.5}
    """

    model: Any = None
    params: dict[str, Any] | None = None

    def set_params(self, params: dict[str, Any]) -> None:
        """Be told ``verbose``, ``epochs`` and ``steps``."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Be told the model."""
        self.model = model

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """A training begins."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """A training is over; ``logs`` are those of its last epoch. Not called if an error ended it: see :meth:`close`."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch begins; the first is 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch is over, its validation too: ``logs`` has ``loss``, the metrics, and all of them as ``val_...``."""

    def on_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Another name of :meth:`on_train_batch_begin`, which calls it."""

    def on_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Another name of :meth:`on_train_batch_end`, which calls it."""

    def on_train_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """A step of the training begins; the first of each epoch is 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """A step of the training is made; ``logs`` has the means of the epoch up to here."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """An evaluation begins, by ``evaluate`` or as the validation of an epoch."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """An evaluation is over; ``logs`` has its loss and metrics."""

    def on_test_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """A batch is going to be evaluated."""

    def on_test_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """A batch was evaluated; ``logs`` has the means up to here."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """A prediction begins."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """A prediction is over."""

    def on_predict_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """A batch is going to be predicted."""

    def on_predict_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """A batch was predicted; ``logs`` has its ``outputs``."""

    def close(self) -> None:
        """Give back what is held, such as the terminal: called last of all, also where an error ended the run.

        Keras' callbacks have no such method.
        """


class CallbackList(Callback):
    """Callbacks that are called as one, in their order; a :class:`History` last, to record what others add to the logs.

    Args:
        callbacks: One, or a list of them, lists within it included; or None.
        add_history: Whether to add a :class:`History`, unless there is one.
        add_progbar: Whether to add a :class:`ProgressBar`, unless there is one.
        model: The model that they are told.
        **params: ``verbose``, ``epochs`` and ``steps``, that they are told.

    Attributes:
        callbacks: The list.
        history: The :class:`History` among them, or None.

    Raises:
        TypeError: One of them is no :class:`Callback`.

    Notes:
        Used in a ``with`` statement, it lets every callback give back what it holds, whatever happens::

            with CallbackList([EarlyStopping()], model=model, epochs=5, steps=100, verbose=1) as callbacks:
                callbacks.on_train_begin()
                ...

    Example:
        >>> import xpconv as xc
        >>> callbacks = xc.callbacks.CallbackList(add_history=True, epochs=1, steps=1, verbose=0)
        >>> callbacks.on_train_begin()
        >>> callbacks.on_epoch_end(0, {"loss": 0.5, "accuracy": 0.75})
        >>> callbacks.history.history
        {'accuracy': [0.75], 'loss': [0.5]}
    """

    def __init__(
        self,
        callbacks: Callback | Iterable[Any] | None = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        self.callbacks = _ordered(_flat(callbacks))
        if add_progbar and not any(isinstance(callback, ProgressBar) for callback in self.callbacks):
            self.append(ProgressBar())
        if add_history and self.history is None:
            self.append(History())
        self.set_model(model)
        self.set_params(params)

    @property
    def history(self) -> History | None:
        """The history among the callbacks."""
        return next((callback for callback in self.callbacks if isinstance(callback, History)), None)

    def append(self, callback: Callback) -> None:
        """Add a callback at the end, or before the history."""
        self.callbacks = _ordered([*self.callbacks, *_flat(callback)])

    def set_params(self, params: dict[str, Any]) -> None:
        """Tell all of them ``verbose``, ``epochs`` and ``steps``."""
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Tell all of them the model."""
        self.model = model
        for callback in self.callbacks:
            callback.set_model(model)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_train_begin(logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Pass it on."""
        shared = _numbers(logs)
        for callback in self.callbacks:
            callback.on_train_end(shared)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Pass on a dictionary of floats, sorted by name as Keras does; one for all of them."""
        shared = _numbers(logs)
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, shared)

    def on_train_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Pass it on, reading nothing."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_test_begin(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Pass it on."""
        shared = _numbers(logs)
        for callback in self.callbacks:
            callback.on_test_end(shared)

    def on_test_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Pass it on, reading nothing."""
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_predict_begin(logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_predict_end(logs)

    def on_predict_batch_begin(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_predict_batch_begin(batch, logs)

    def on_predict_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Pass it on."""
        for callback in self.callbacks:
            callback.on_predict_batch_end(batch, logs)

    def close(self) -> None:
        """Let all of them give back what they hold."""
        for callback in self.callbacks:
            callback.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


# ----------------------------------------------------------------------------------------------------------------------
# Recording
# ----------------------------------------------------------------------------------------------------------------------


class History(Callback):
    """Keeps what every epoch had to tell; ``fit`` returns one.

    Attributes:
        epoch: The epochs that were made, the first of all being 0.
        history: Name to the list of its values: ``loss``, the metrics, ``val_...`` of all of these where there was
            validation, and ``learning_rate`` where a callback changes it. With a ``validation_freq`` the lists of ``val_...``
            are shorter.

    Notes:
        Differences from Keras: at the beginning of a training ``history`` is emptied too, not ``epoch`` alone.

    Example:
        >>> import xpconv as xc
        >>> history = xc.callbacks.History()
        >>> history.on_train_begin()
        >>> history.on_epoch_end(0, {"loss": 0.5})
        >>> history.epoch, history.history
        ([0], {'loss': [0.5]})
    """

    def __init__(self) -> None:
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}
        self._epochs_of: dict[str, list[int]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Keep the epoch's numbers, and become the model's ``history``."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self._epochs_of.setdefault(name, []).append(epoch)
        if self.model is not None:
            self.model.history = self

    def epochs_of(self, name: str) -> list[int]:
        """The epochs that have a value of this name, one for each entry of ``history[name]``.

        Raises:
            KeyError: There is none.
        """
        return list(self._epochs_of[name])


class CSVLogger(Callback):
    """Writes a row an epoch to a file of comma-separated values.

    The file is written anew after each epoch, and put in its place in one step: it holds complete rows at any moment.

    Args:
        filename: The file; its directory must exist.
        separator: Character between the values.
        append: Whether to keep the rows that the file has, and to add to them; columns that are new get ``NA`` there. A last
            row that was not written to its end is left out.

    Raises:
        OSError: When the training begins, the file cannot be written.
        ValueError: ``separator`` is no single character; ``append`` and the file is no such table.

    Notes:
        The columns are ``epoch``, the first being 0, and the names in the logs, sorted; ``NA`` stands for what an epoch lacks.
        Differences from Keras: columns of ``val_...`` are there if there is validation, and not otherwise.

    Example:
        >>> import pathlib, tempfile
        >>> import xpconv as xc
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "log.csv")
        ...     callbacks = xc.callbacks.CallbackList([xc.callbacks.CSVLogger(path)])
        ...     callbacks.on_train_begin()
        ...     callbacks.on_epoch_end(0, {"loss": 0.5, "accuracy": 0.75})
        ...     print(path.read_text())
        epoch,accuracy,loss
        0,0.75,0.5
        <BLANKLINE>
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
            raise ValueError(f"CSVLogger: separator must be one character, no quote and no line end, got {separator!r}")
        self.filename = os.fspath(filename)
        self.separator = separator
        self.append = append
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Find out whether the file can be written, and read what it has."""
        check_writable(self.filename)
        self._columns, self._rows = [], []
        if self.append and Path(self.filename).exists():
            self._read()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the epoch's row."""
        logs = logs or {}
        known = self._columns or ["epoch"]
        self._columns = [*known, *sorted(logs.keys() - set(known))]
        self._rows.append({"epoch": epoch, **{name: _one_cell(value) for name, value in logs.items()}})
        # The table may hold any character, and what opens it may not tell the encoding: UTF-8, as everywhere.
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="NA", delimiter=self.separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        with atomic_write(self.filename) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8", newline="")

    def _read(self) -> None:
        with Path(self.filename).open(encoding="utf-8", newline="") as file:
            try:
                header, *rows = list(csv.reader(file, delimiter=self.separator)) or [[]]
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"CSVLogger: {self.filename} is no table that can be appended to: {error}") from error
        if not header:
            return
        if rows and len(rows[-1]) < len(header):
            rows.pop()
        if header[0] != "epoch" or len(set(header)) != len(header) or any(len(row) != len(header) for row in rows):
            raise ValueError(
                f"CSVLogger: {self.filename} is no table that can be appended to: it must have the columns 'epoch' and others "
                f"separated by {self.separator!r}, and its first line has {header}"
            )
        self._columns = header
        self._rows = [dict(zip(header, row, strict=True)) for row in rows]


class LivePlot(Callback):
    """Draws loss and accuracy into a file after every epoch, for a training that can be watched.

    Args:
        path: The picture, ``.png``, ``.svg``, ``.pdf`` ...; written whole after every epoch.
        title: Drawn above.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib writes no format of that suffix.
        OSError: When the training begins, the file cannot be written.

    Notes:
        Keras has none. A picture takes some tenths of a second an epoch; see :func:`xpconv.visualize.training_curves`.

    Example:
        >>> import pathlib, tempfile
        >>> import xpconv as xc
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "training.png")
        ...     callbacks = xc.callbacks.CallbackList([xc.callbacks.LivePlot(path)])
        ...     callbacks.on_train_begin()
        ...     callbacks.on_epoch_end(0, {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.6, "val_accuracy": 0.7})
        ...     path.read_bytes()[1:4]
        b'PNG'
    """

    def __init__(self, path: str | os.PathLike[str], *, title: str = "Training") -> None:
        from xpconv.visualize.figures import check_suffix

        check_suffix("LivePlot", path)
        self.path = os.fspath(path)
        self.title = title
        self._history = History()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Find out whether the file can be written."""
        check_writable(self.path)
        self._history.on_train_begin()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Draw the epochs up to this one."""
        from xpconv import visualize

        self._history.on_epoch_end(epoch, logs)
        visualize.save(visualize.training_curves(self._history, title=self.title), self.path)


# ----------------------------------------------------------------------------------------------------------------------
# Watching a number
# ----------------------------------------------------------------------------------------------------------------------


class _Monitor(Callback):
    """A callback that looks at one number of every epoch, and knows which of two is better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        self._op = type(self).__name__
        if not isinstance(monitor, str):
            raise TypeError(f"{self._op}: monitor must be a name such as 'val_loss', got {monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{self._op}: mode must be 'auto', 'min' or 'max', got {mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(finite(self._op, "min_delta", min_delta))
        self.best: float | None = None
        self._warned = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        self._warned = False

    def _monitored(self, logs: BatchLogs, otherwise: str) -> float | None:
        """The number, or None and once a warning that it isn't there."""
        value = logs.get(self.monitor)
        if value is None:
            if not self._warned:
                # At the place of the call of fit there is nothing to point at: the text tells which callback it is.
                warnings.warn(
                    f"{self._op}: monitor {self.monitor!r} is not among what the epoch tells, so {otherwise}; "
                    f"there are {', '.join(map(repr, sorted(logs))) or 'no numbers'}"
                    + ("; val_... needs validation_data or validation_split" if self._lacks_validation(logs) else ""),
                    stacklevel=2,
                )
                self._warned = True
            return None
        return float(value)

    def _lacks_validation(self, logs: BatchLogs) -> bool:
        return self.monitor.startswith("val_") and not any(name.startswith("val_") for name in logs)

    def _improves(self, value: float, reference: float | None) -> bool:
        """Whether a number is better than another by more than ``min_delta``; NaN is never better."""
        if math.isnan(value):
            return False
        if reference is None or math.isnan(reference):
            return True
        if self._is_lower_better():
            return value + self.min_delta < reference
        return value - self.min_delta > reference

    def _is_lower_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "min"
        name = self.monitor.removeprefix("val_")
        for metric in getattr(self.model, "metrics", None) or ():
            direction = getattr(metric, "direction", None)
            if getattr(metric, "name", None) == name and direction in ("up", "down"):
                return bool(direction == "down")
        for parts, is_lower in ((_LOWER_IS_BETTER, True), (_HIGHER_IS_BETTER, False)):
            if any(part in f"_{name.lower()}_" for part in parts):
                return is_lower
        raise ValueError(
            f"{self._op}: whether {self.monitor!r} should be low or high cannot be told from its name; "
            "pass mode='min' or mode='max'"
        )


# Parts of names, with their underscores where they would otherwise be parts of other words.
_LOWER_IS_BETTER = (
    "loss",
    "error",
    "_mse_",
    "_mae_",
    "_mape_",
    "_msle_",
    "_rmse_",
    "entropy",
    "hinge",
    "diverge",
    "_poisson_",
    "_logcosh_",
)
_HIGHER_IS_BETTER = (
    "accuracy",
    "_acc_",
    "precision",
    "recall",
    "_auc_",
    "_f1_",
    "score",
    "_iou_",
    "_io_u_",
    "_similarity_",
    "correlation",
    "_sensitivity_",
    "_specificity_",
    "_r2_",
)


class EarlyStopping(_Monitor):
    """Ends the training when a number no longer gets better.

    Args:
        monitor: The number, of those that an epoch tells: ``"val_loss"``, ``"accuracy"`` ...
        min_delta: By how much it must be better to count as better.
        patience: After so many epochs in which it didn't get better, the training ends.
        verbose: 1 tells when that happens, 0 doesn't.
        mode: ``"min"`` if low is good, ``"max"`` if high is, ``"auto"`` to go by the name.
        baseline: A number that it must be better than, too, for the epochs of patience to begin anew.
        restore_best_weights: Whether the model gets back the weights of its best epoch at the end, however the training ended.
        start_from_epoch: Epochs at the beginning that are not looked at.

    Attributes:
        best: The best number.
        best_epoch: Its epoch, the first being 0.
        stopped_epoch: The epoch after which the training was ended, or 0.

    Raises:
        ValueError: An argument out of range; at the end of an epoch, ``mode="auto"`` for a name that doesn't tell.

    Notes:
        Differences from Keras: NaN never counts as better, not at first either; a ``monitor`` that isn't there is warned of
        once, and an unknown ``mode`` is an error.

    Example:
        >>> import types
        >>> import xpconv as xc
        >>> model = types.SimpleNamespace(stop_training=False)
        >>> callbacks = xc.callbacks.CallbackList([xc.callbacks.EarlyStopping("loss", patience=2)], model=model)
        >>> callbacks.on_train_begin()
        >>> for epoch, loss in enumerate([0.5, 0.4, 0.45, 0.41]):
        ...     callbacks.on_epoch_end(epoch, {"loss": loss})
        >>> model.stop_training
        True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = integer(self._op, "patience", patience, 0)
        self.verbose = verbose
        self.baseline = None if baseline is None else finite(self._op, "baseline", baseline)
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = integer(self._op, "start_from_epoch", start_from_epoch, 0)
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        super().on_train_begin(logs)
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Look at the number, and stop the model if it's time."""
        value = self._monitored(logs or {}, "the training is not ended early")
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self._improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Give back the best weights."""
        if self.stopped_epoch > 0 and self.verbose:
            _tell(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                _tell(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """Saves the model during the training, after every epoch or every so many batches.

    Args:
        filepath: The file, which ends in ``.safetensors``. ``{epoch:02d}`` stands for the epoch, the first being 1,
            ``{batch}`` for the batch, and the names in the logs for their values: ``"{epoch:02d}-{val_loss:.2f}.safetensors"``.
            Directories that are missing are made.
        monitor: The number that tells what is best.
        verbose: 1 tells what is saved, 0 doesn't.
        save_best_only: Whether to save only when ``monitor`` is better than it ever was.
        save_weights_only: Whether to save by ``model.save_weights``; otherwise by ``model.save``, from which the model is made
            again.
        mode: ``"min"`` if low is good, ``"max"`` if high is, ``"auto"`` to go by the name.
        save_freq: ``"epoch"``, or the number of batches after which to save.
        initial_value_threshold: What ``monitor`` must be better than to be saved at all.

    Raises:
        ValueError: An argument out of range; when saving, a name in ``filepath`` that isn't in the logs.
        OSError: When saving, the file cannot be written. One that was there stays as it was.

    Notes:
        A file is written whole or not at all. ``save_best_only`` where ``monitor`` isn't there warns, and saves, as in Keras.
        Differences from Keras: the format; NaN is never the best; ``best`` lives on into another ``fit``, as there.

    Example:
        >>> import pathlib, tempfile, types
        >>> import xpconv as xc
        >>> model = types.SimpleNamespace(save=lambda path: print(pathlib.Path(path).name))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "{epoch:02d}-{val_loss:.2f}.safetensors")
        ...     callbacks = xc.callbacks.CallbackList([xc.callbacks.ModelCheckpoint(path, save_best_only=True)], model=model)
        ...     callbacks.on_train_begin()
        ...     for epoch, loss in enumerate([0.5, 0.6, 0.4]):
        ...         callbacks.on_epoch_end(epoch, {"val_loss": loss})
        01-0.50.safetensors
        03-0.40.safetensors
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: int | Literal["epoch"] = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.filepath = os.fspath(filepath)
        if not self.filepath.endswith(".safetensors"):
            raise ValueError(f"{self._op}: filepath must end in '.safetensors', got {self.filepath!r}")
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(self.filepath)]
        except ValueError as error:
            raise ValueError(f"{self._op}: filepath {self.filepath!r} cannot be filled in: {error}") from None
        if any(field == "" or (field or "").isdigit() for field in fields):
            raise ValueError(f"{self._op}: braces in filepath must hold a name such as {{epoch}}, got {self.filepath!r}")
        if isinstance(save_freq, str):
            if save_freq != "epoch":
                raise ValueError(f"{self._op}: save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        else:
            integer(self._op, "save_freq", save_freq, 1)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        if initial_value_threshold is not None:
            self.best = finite(self._op, "initial_value_threshold", initial_value_threshold)
        self._epoch = self._unsaved = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin to count batches anew."""
        super().on_train_begin(logs)
        self._unsaved = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Know the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Save, if so many batches are made."""
        if self.save_freq != "epoch":
            self._unsaved += 1
            if self._unsaved >= self.save_freq:
                self._unsaved = 0
                self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save, if it is to be after every epoch."""
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: BatchLogs) -> None:
        path = self._filled_in(epoch, batch, logs)
        if not self._is_worth_saving(epoch, path, logs):
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            _tell(f"Epoch {epoch + 1}: finished saving model to {path}")

    def _is_worth_saving(self, epoch: int, path: str, logs: BatchLogs) -> bool:
        if not self.save_best_only:
            told = f"saving model to {path}"
            worth = True
        else:
            value = self._monitored(logs, "every model is saved, not the best only")
            if value is None:
                return True
            before = "None" if self.best is None else f"{self.best:.5f}"
            worth = self._improves(value, self.best)
            if worth:
                told = f"{self.monitor} improved from {before} to {value:.5f}, saving model to {path}"
                self.best = value
            else:
                told = f"{self.monitor} did not improve from {before}"
        if self.verbose:
            _tell(f"Epoch {epoch + 1}: {told}")
        return worth

    def _filled_in(self, epoch: int, batch: int | None, logs: BatchLogs) -> str:
        if "{" not in self.filepath and "}" not in self.filepath:  # nothing is read from the logs
            return self.filepath
        values = {**logs, "epoch": epoch + 1, **({} if batch is None else {"batch": batch + 1})}
        try:
            return self.filepath.format(**values)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            told = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"{self._op}: filepath {self.filepath!r} cannot be filled in: {told}; there are {sorted(values)}"
            ) from None


class ReduceLROnPlateau(_Monitor):
    """Makes the learning rate smaller when a number no longer gets better.

    Args:
        monitor: The number, of those that an epoch tells.
        factor: What the learning rate is multiplied by, below 1.
        patience: After so many epochs in which the number didn't get better, the learning rate is made smaller.
        verbose: 1 tells when that happens, 0 doesn't.
        mode: ``"min"`` if low is good, ``"max"`` if high is, ``"auto"`` to go by the name.
        min_delta: By how much the number must be better to count as better.
        cooldown: Epochs after a change of the learning rate that don't count.
        min_lr: What the learning rate doesn't fall below.

    Raises:
        ValueError: An argument out of range.
        TypeError: At the end of an epoch: the optimizer's learning rate is a schedule, which says itself what it is.

    Notes:
        The learning rate of each epoch is in the history, as ``learning_rate``.
        Differences from Keras: those of :class:`EarlyStopping`.

    Example:
        >>> import types
        >>> import xpconv as xc
        >>> model = types.SimpleNamespace(optimizer=types.SimpleNamespace(learning_rate=0.5))
        >>> callbacks = xc.callbacks.CallbackList([xc.callbacks.ReduceLROnPlateau("loss", patience=2)], model=model)
        >>> callbacks.on_train_begin()
        >>> for epoch, loss in enumerate([0.5, 0.4, 0.45, 0.41]):
        ...     callbacks.on_epoch_end(epoch, {"loss": loss})
        >>> model.optimizer.learning_rate
        0.05
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = fraction(self._op, "factor", factor)
        self.patience = integer(self._op, "patience", patience, 0)
        self.verbose = verbose
        self.cooldown = integer(self._op, "cooldown", cooldown, 0)
        self.min_lr = not_negative(self._op, "min_lr", min_lr)
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Begin anew."""
        super().on_train_begin(logs)
        self.wait = self.cooldown_counter = 0
        self.best = None

    def in_cooldown(self) -> bool:
        """Whether the learning rate was changed so short a time ago that epochs don't count."""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Look at the number, and change the learning rate if it's time."""
        logs = {} if logs is None else logs
        logs["learning_rate"] = rate = float(self.model.optimizer.learning_rate)
        value = self._monitored(logs, "the learning rate is not changed")
        if value is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                smaller = max(rate * self.factor, self.min_lr)
                _set_learning_rate(self._op, self.model.optimizer, smaller)
                if self.verbose:
                    _tell(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {smaller}.")
                self.cooldown_counter, self.wait = self.cooldown, 0


# ----------------------------------------------------------------------------------------------------------------------
# Others
# ----------------------------------------------------------------------------------------------------------------------


class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of every epoch.

    Args:
        schedule: Function of the epoch, the first being 0, and of the learning rate as it is; returns the new one. One that
            takes the epoch alone will do.
        verbose: 1 tells the learning rate, 0 doesn't.

    Raises:
        TypeError: ``schedule`` is no function; when it's called, it returns no number; or the optimizer's learning rate is a
            schedule, which says itself what it is.
        ValueError: When it's called, it returns a number below 0, or one that isn't finite.

    Notes:
        The learning rate of each epoch is in the history, as ``learning_rate``.
        Differences from Keras: integers are taken, too.

    Example:
        >>> import types
        >>> import xpconv as xc
        >>> model = types.SimpleNamespace(optimizer=types.SimpleNamespace(learning_rate=0.5))
        >>> halving = xc.callbacks.LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
        >>> callbacks = xc.callbacks.CallbackList([halving], model=model)
        >>> for epoch in range(3):
        ...     callbacks.on_epoch_begin(epoch)
        >>> model.optimizer.learning_rate
        0.125
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: schedule must be a function of epoch and learning rate, got {schedule!r}")
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = _takes_two(schedule)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Set the learning rate."""
        op = "LearningRateScheduler"
        optimizer = self.model.optimizer
        given: Any = self.schedule(epoch, float(optimizer.learning_rate)) if self._takes_rate else self.schedule(epoch)
        given = given.item() if getattr(given, "ndim", None) == 0 else given  # an array without axes will do, too
        rate = not_negative(op, f"what schedule returns for epoch {epoch}", given)
        _set_learning_rate(op, optimizer, rate)
        if self.verbose:
            _tell(f"Epoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Tell it."""
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class TerminateOnNaN(Callback):
    """Ends the training after a batch that left a loss which is NaN or infinite.

    Args:
        raise_error: Whether to raise an error then; otherwise the training ends as others do.

    Raises:
        RuntimeError: At the end of such a batch, with ``raise_error``.

    Notes:
        The loss is read after every batch. On a card each read waits for the batch to be done, where the next ones would
        have been handed over meanwhile.

    Example:
        >>> import types
        >>> import xpconv as xc
        >>> model = types.SimpleNamespace(stop_training=False)
        >>> callbacks = xc.callbacks.CallbackList([xc.callbacks.TerminateOnNaN()], model=model)
        >>> callbacks.on_train_batch_end(7, {"loss": float("nan")})
        Batch 7: Invalid loss, terminating training
        >>> model.stop_training
        True
    """

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(f"TerminateOnNaN: the loss is {float(loss)} after batch {batch}")
        _tell(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True


class LambdaCallback(Callback):
    """A callback made of functions, one for each moment that is of interest.

    Args:
        on_epoch_begin: Called as the method of this name is, with ``epoch, logs``.
        on_epoch_end: Likewise.
        on_train_begin: Likewise, with ``logs``.
        on_train_end: Likewise.
        on_train_batch_begin: Likewise, with ``batch, logs``.
        on_train_batch_end: Likewise.
        **others: The other methods whose names begin with ``on_``.

    Raises:
        TypeError: There is no moment of that name, or no function is given for it.

    Notes:
        Differences from Keras: names that nothing would ever call are refused.

    Example:
        >>> import xpconv as xc
        >>> tell = xc.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
        >>> xc.callbacks.CallbackList([tell]).on_epoch_end(0, {"loss": 0.5})
        0 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Any], object] | None = None,
        on_epoch_end: Callable[[int, Any], object] | None = None,
        on_train_begin: Callable[[Any], object] | None = None,
        on_train_end: Callable[[Any], object] | None = None,
        on_train_batch_begin: Callable[[int, Any], object] | None = None,
        on_train_batch_end: Callable[[int, Any], object] | None = None,
        **others: Callable[..., object] | None,
    ) -> None:
        given: dict[str, Callable[..., object] | None] = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **others,
        }
        for name, function in given.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                known = ", ".join(sorted(known for known in vars(Callback) if known.startswith("on_")))
                raise TypeError(f"LambdaCallback: there is no {name!r}; there are {known}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {name} must be a function, got {function!r}")
            setattr(self, name, function)


class ProgressBar(Callback):
    """Tells how far a training, an evaluation or a prediction is: a live bar in a terminal, plain lines elsewhere.

    In a terminal, ``verbose=1`` shows a bar that is redrawn at most ten times a second, and in its place one line when the
    epoch is over. ``verbose=2``, and everything that is no terminal, gets this line alone, in ASCII::

        Epoch 1/5  1875/1875 steps  3s 2ms/step  accuracy: 0.8065  loss: 0.7357  val_accuracy: 0.8321  val_loss: 0.5021

    Args:
        verbose: 0 for nothing, 1 (or ``"auto"``) and 2 as above; None for what the model's method was given.

    Raises:
        ValueError: Another ``verbose``.

    Notes:
        The seconds are those of the whole epoch; the time of a step is the mean without the first and without the validation.
        Numbers are read from the logs when the bar is drawn, and at the last step of an epoch, not at others: on a card,
        reading waits. Keras calls it ProgbarLogger.

    Example:
        >>> import xpconv as xc
        >>> callbacks = xc.callbacks.CallbackList(add_progbar=True, epochs=5, steps=1875, verbose=0)
        >>> callbacks.on_epoch_begin(0)
        >>> callbacks.on_epoch_end(0, {"loss": 0.7357})
    """

    # One at a time: a model may be evaluated by a callback while another trains.
    _live: ClassVar[ProgressBar | None] = None

    def __init__(self, verbose: int | str | None = None) -> None:
        self.verbose = None if verbose is None else self.level("ProgressBar", verbose)
        self._is_training = False
        self._title = ""
        self._steps: int | None = None
        self._seen = 0
        self._mode: Literal["bar", "line", "nothing"] = "nothing"
        self._started = self._first_step_ended = self._last_step_ended = self._next_refresh = 0.0
        self._bar: Any = None
        self._task: Any = None

    @staticmethod
    def level(op: str, verbose: int | str) -> int:
        """Turn ``verbose`` into 0, 1 or 2.

        Raises:
            ValueError: It is something else.
        """
        for known, level in (("auto", 1), (0, 0), (1, 1), (2, 2)):
            if verbose == known:
                return level
        raise ValueError(f"{op}: verbose must be 'auto', 0, 1 or 2, got {verbose!r}")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Know that evaluations from now on are validations."""
        self._is_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Take the bar away."""
        self.close()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Show the bar of an epoch."""
        self._begin(f"Epoch {epoch + 1}/{(self.params or {}).get('epochs', epoch + 1)}")

    def on_train_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Redraw the bar, unless that was done a moment ago."""
        self._step(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Print the line of the epoch."""
        self._end(logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Show a bar, or that it is the validation that runs."""
        if not self._is_training:
            self._begin("")
        elif self._mode == "bar":
            self._draw("validating")

    def on_test_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Redraw the bar, unless that was done a moment ago."""
        if not self._is_training:
            self._step(batch, logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Print the line of the evaluation."""
        if not self._is_training:
            self._end(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Show a bar."""
        self._begin("")

    def on_predict_batch_end(self, batch: int, logs: BatchLogs | None = None) -> None:
        """Redraw the bar, unless that was done a moment ago."""
        self._step(batch, None)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Print the line of the prediction."""
        self._end(None)

    def close(self) -> None:
        """Take the bar away, and leave the terminal as it was."""
        self._is_training = False
        self._stop_bar()

    # ------------------------------------------------------------------------------------------------------------------

    def _begin(self, title: str) -> None:
        params = self.params or {}
        verbose = self.level("ProgressBar", params.get("verbose", 1)) if self.verbose is None else self.verbose
        self._title, self._steps, self._seen = title, params.get("steps"), 0
        self._started = self._first_step_ended = self._last_step_ended = time.monotonic()
        if verbose == 0:
            self._mode = "nothing"
        elif verbose == 1 and ProgressBar._live in (None, self) and is_live_terminal():
            self._mode = "bar"
            self._start_bar()
        else:
            self._mode = "line"

    def _step(self, batch: int, logs: BatchLogs | None) -> None:
        self._seen = batch + 1
        if self._mode == "nothing":
            return
        now = time.monotonic()
        is_last = self._seen == self._steps
        numbers = ""
        if is_last or (self._mode == "bar" and now >= self._next_refresh):
            numbers = _listed(logs)
            now = time.monotonic()  # reading them may have waited for the step
        if self._seen == 1:
            self._first_step_ended = now
        self._last_step_ended = now
        if self._mode == "bar" and now >= self._next_refresh:
            self._draw(numbers)

    def _end(self, logs: BatchLogs | None) -> None:
        if self._mode == "nothing":
            return
        self._stop_bar()
        seconds = f"{time.monotonic() - self._started:.0f}s"
        steps = f"{self._seen}/{self._steps or self._seen} steps"
        _tell("  ".join(part for part in (self._title, steps, f"{seconds} {self._step_time()}", _listed(logs)) if part))

    def _step_time(self) -> str:
        # The first step isn't like the others: kernels are compiled in it, and memory is asked for.
        if self._seen > 1:
            seconds = (self._last_step_ended - self._first_step_ended) / (self._seen - 1)
        else:
            seconds = self._last_step_ended - self._started
        if seconds >= 1:
            return f"{seconds:.0f}s/step"
        return f"{seconds * 1e3:.0f}ms/step" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/step"

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        def text(field: str) -> TextColumn:
            return TextColumn(f"{{task.fields[{field}]}}", markup=False, table_column=Column(no_wrap=True))

        self._stop_bar()
        # No thread of its own to refresh it: training needs the cores, and it is redrawn between two steps.
        self._bar = Progress(
            text("title"),
            BarColumn(bar_width=20),
            text("numbers"),
            console=Console(file=sys.stdout),
            auto_refresh=False,
            transient=True,
        )
        self._bar.start()
        ProgressBar._live = self
        self._task = self._bar.add_task("", total=self._steps, title=self._title, numbers="")
        self._draw("")

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = ProgressBar._live = None

    def _draw(self, numbers: str) -> None:
        parts = [f"{self._seen}/{'?' if self._steps is None else self._steps}"]
        if self._seen:
            parts.append(self._step_time())
        if self._seen and self._steps:
            remaining = (self._steps - self._seen) * (time.monotonic() - self._started) / self._seen
            parts.append(f"{remaining:.0f}s left")
        self._bar.update(self._task, completed=self._seen, numbers="  ".join([*parts, numbers]))
        self._bar.refresh()
        self._next_refresh = time.monotonic() + REFRESH_SECONDS


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def _flat(callbacks: Any) -> Iterable[Callback]:
    if callbacks is None:
        return
    if isinstance(callbacks, (list, tuple)):
        for entry in callbacks:
            yield from _flat(entry)
    elif isinstance(callbacks, Callback):
        yield callbacks
    else:
        hint = f"; did you mean {callbacks.__name__}(...)?" if isinstance(callbacks, type) else ""
        raise TypeError(f"callbacks must be objects of classes derived from xpconv.callbacks.Callback, got {callbacks!r}{hint}")


def _ordered(callbacks: Iterable[Callback]) -> list[Callback]:
    return sorted(callbacks, key=lambda callback: isinstance(callback, History))


def _numbers(logs: BatchLogs | None) -> Logs:
    return {name: _number(value) for name, value in sorted((logs or {}).items())}


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value  # what a model of the user's own tells: a text, several numbers


def _listed(logs: BatchLogs | None) -> str:
    """Names and numbers in Keras' order and digits."""
    parts = []
    for name, value in _numbers(logs).items():
        if isinstance(value, float):
            parts.append(f"{name}: {value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{name}: {value:.4e}")
        else:
            parts.append(f"{name}: {value}")
    return "  ".join(parts)


def _one_cell(value: Any) -> Any:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, Sequence) and not isinstance(value, str) else value


def _tell(line: str) -> None:
    print(line, flush=True)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions in C have none
        return True
    try:
        signature.bind(0, 0.0)
    except TypeError:
        return False
    return True


def _set_learning_rate(op: str, optimizer: Any, rate: float) -> None:
    try:
        optimizer.learning_rate = rate
    except TypeError as error:
        raise TypeError(
            f"{op} sets the learning rate, and the optimizer's follows a schedule, which says itself what it is at every step; "
            f"compile the model with a number as learning_rate, or leave {op} out ({error})"
        ) from error
