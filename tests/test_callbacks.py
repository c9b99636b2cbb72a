"""The callbacks: what each does at which moment, and what is told while a model trains."""

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import xpconv as xc
from xpconv import callbacks as cb

NAN = float("nan")


class Optimizer:
    def __init__(self, learning_rate=0.5, schedule=None):
        self._rate = learning_rate
        self._schedule = schedule

    @property
    def learning_rate(self):
        return self._rate

    @learning_rate.setter
    def learning_rate(self, rate):
        if self._schedule is not None:
            raise TypeError("learning_rate is a schedule")
        self._rate = rate


class FakeModel:
    """What callbacks use of a model; its weights are the number of the epoch."""

    def __init__(self, **optimizer):
        self.stop_training = False
        self.weights = None
        self.optimizer = Optimizer(**optimizer)
        self.metrics = []
        self.saved = []
        self.history = None

    def get_weights(self):
        return [self.weights]

    def set_weights(self, weights):
        (self.weights,) = weights

    def save(self, path):
        self.saved.append(("model", path))

    def save_weights(self, path):
        self.saved.append(("weights", path))


class Watched(Mapping):
    """Logs of a batch that count how often they are read."""

    def __init__(self, **values):
        self.values_, self.reads = values, 0

    def __getitem__(self, name):
        self.reads += 1
        return self.values_[name]

    def __iter__(self):
        return iter(self.values_)

    def __len__(self):
        return len(self.values_)


def train(callbacks, epochs, model=None, batches=1, **params):
    """Call callbacks as fit does, with these logs of the epochs; returns the model and the epochs that were made."""
    model = model or FakeModel()
    params = {"verbose": 0, "epochs": len(epochs), "steps": batches, **params}
    made = 0
    with cb.CallbackList(callbacks, model=model, **params) as called:
        called.on_train_begin()
        for epoch, logs in enumerate(epochs):
            called.on_epoch_begin(epoch)
            for batch in range(batches):
                called.on_train_batch_begin(batch)
                called.on_train_batch_end(batch, dict(logs))
            model.weights = epoch
            called.on_epoch_end(epoch, dict(logs))
            made += 1
            if model.stop_training:
                break
        called.on_train_end()
    return model, made


def losses(*values, name="val_loss"):
    return [{name: value} for value in values]


# ----------------------------------------------------------------------------------------------------------------------
# Callback and CallbackList
# ----------------------------------------------------------------------------------------------------------------------

MOMENTS = sorted(name for name in vars(cb.Callback) if name.startswith("on_"))


class Recorder(cb.Callback):
    def __init__(self, calls, name):
        for moment in MOMENTS:
            setattr(self, moment, lambda *given, moment=moment: calls.append((name, moment, *given)))
        self.close = lambda: calls.append((name, "close"))


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment not in ("on_batch_begin", "on_batch_end")])
def test_a_list_calls_every_callback_in_order(moment):
    calls = []
    called = cb.CallbackList([Recorder(calls, "a"), [Recorder(calls, "b")]], model="model", epochs=2, steps=3, verbose=1)
    given = (4,) if "batch" in moment or "epoch" in moment else ()
    logs = {"loss": 0.5}
    getattr(called, moment)(*given, logs)
    assert calls == [("a", moment, *given, logs), ("b", moment, *given, logs)]
    for callback in called.callbacks:
        assert callback.model == "model"
        assert callback.params == {"epochs": 2, "steps": 3, "verbose": 1}


def test_logs_of_an_epoch_are_one_sorted_dictionary_of_floats():
    seen = []

    class Adds(cb.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((list(logs), dict(logs)))
            logs["more"] = 1.0

    given = {"val_loss": np.float32(0.5), "accuracy": np.array(0.25), "loss": 1, "text": "a"}
    history = cb.History()
    cb.CallbackList([history, Adds()]).on_epoch_end(0, given)
    (names, values), *_ = seen
    assert names == ["accuracy", "loss", "text", "val_loss"]
    assert values == {"accuracy": 0.25, "loss": 1.0, "text": "a", "val_loss": 0.5}
    assert {type(values[name]) for name in ("accuracy", "loss", "val_loss")} == {float}
    assert history.history["more"] == [1.0]
    assert "more" not in given


def test_logs_of_a_batch_are_passed_on_unread():
    logs = Watched(loss=1.0)
    called = cb.CallbackList([cb.Callback(), cb.History()], add_progbar=True, verbose=1, epochs=1, steps=9)
    called.on_epoch_begin(0)
    called.on_train_batch_end(0, logs)
    called.on_test_batch_end(0, logs)
    assert logs.reads == 0


def test_the_old_names_of_the_batch_methods_are_called():
    calls = []

    class Old(cb.Callback):
        def on_batch_begin(self, batch, logs=None):
            calls.append(("begin", batch))

        def on_batch_end(self, batch, logs=None):
            calls.append(("end", batch, logs))

    train([Old()], [{"loss": 1.0}])
    assert calls == [("begin", 0), ("end", 0, {"loss": 1.0})]


def test_history_and_bar_are_added_unless_they_are_there():
    added = cb.CallbackList([cb.Callback()], add_history=True, add_progbar=True).callbacks
    assert [type(callback) for callback in added] == [cb.Callback, cb.ProgressBar, cb.History]
    history = cb.History()
    called = cb.CallbackList([history, cb.ProgressBar(0)], add_history=True, add_progbar=True)
    assert len(called.callbacks) == 2
    assert called.history is history
    assert cb.CallbackList().history is None
    called.append(cb.Callback())
    assert [type(callback) for callback in called.callbacks] == [cb.ProgressBar, cb.Callback, cb.History]


def test_what_is_held_is_given_back_when_an_error_ends_the_run():
    calls = []
    with pytest.raises(ZeroDivisionError), cb.CallbackList([Recorder(calls, "a"), Recorder(calls, "b")]) as called:
        called.on_train_begin()
        raise ZeroDivisionError
    assert calls[-2:] == [("a", "close"), ("b", "close")]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (cb.EarlyStopping, r"got <class .*EarlyStopping'>; did you mean EarlyStopping\(...\)\?"),
        (print, "got <built-in function"),
    ],
)
def test_what_is_no_callback_is_refused(given, text):
    with pytest.raises(TypeError, match=f"^callbacks must be objects .*{text}"):
        cb.CallbackList([given])


# ----------------------------------------------------------------------------------------------------------------------
# History
# ----------------------------------------------------------------------------------------------------------------------


def test_history():
    history = cb.History()
    model, _ = train([history], [{"loss": 0.5}, {"loss": 0.4, "val_loss": 0.6}, {"loss": 0.3}])
    assert history.epoch == [0, 1, 2]
    assert history.history == {"loss": [0.5, 0.4, 0.3], "val_loss": [0.6]}
    assert (history.epochs_of("loss"), history.epochs_of("val_loss")) == ([0, 1, 2], [1])
    assert history.params == {"verbose": 0, "epochs": 3, "steps": 1}
    assert model.history is history
    train([history], [{"loss": 0.2}])
    assert (history.epoch, history.history) == ([0], {"loss": [0.2]})


# ----------------------------------------------------------------------------------------------------------------------
# EarlyStopping
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "made", "best"),
    [
        ({}, [3, 2, 1], 3, 2),
        ({}, [1, 2, 0], 2, 0),
        ({"patience": 2}, [3, 4, 2, 2.5, 2.1, 0], 5, 2),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.8, 2.6, 0], 3, 0),
        ({"patience": 2, "min_delta": -0.5}, [3, 2.8, 2.6, 0], 3, 0),
        ({"patience": 1, "mode": "max"}, [1, 2, 1.5, 9], 3, 1),
        ({"patience": 1, "monitor": "val_accuracy"}, [0.5, 0.6, 0.55, 0.9], 3, 1),
        ({"patience": 2, "baseline": 1.0}, [3, 2.5, 2.4, 2.45, 2.41, 0], 4, 2),  # better at every epoch: not stopped then
        ({"patience": 1, "baseline": 1.0}, [0.9, 0.95, 0.5], 2, 0),
        ({"patience": 1, "start_from_epoch": 2}, [1, 2, 3, 2.5, 2.6, 0], 5, 3),
        ({"patience": 1}, [NAN, 3, 2, 1], 4, 3),
        ({"patience": 2}, [3, NAN, NAN, 1], 3, 0),
    ],
)
def test_early_stopping(options, values, made, best):
    options = {"monitor": "val_loss", **options}
    callback = cb.EarlyStopping(restore_best_weights=True, **options)
    model, count = train([callback], losses(*values, name=options["monitor"]))
    assert count == made
    assert callback.best_epoch == best
    assert callback.best == values[best]
    assert model.weights == best
    assert callback.stopped_epoch == (made - 1 if model.stop_training else 0)


def test_weights_stay_the_last_ones_unless_the_best_are_asked_for():
    model, made = train([cb.EarlyStopping(patience=1)], losses(1, 2, 3))
    assert (made, model.weights) == (2, 1)


def test_the_best_weights_come_back_however_the_training_ended():
    model, made = train([cb.EarlyStopping(patience=5, restore_best_weights=True)], losses(3, 1, 2))
    assert (made, model.weights, model.stop_training) == (3, 1, False)


def test_early_stopping_tells_what_it_does(capsys):
    train([cb.EarlyStopping(patience=1, verbose=1, restore_best_weights=True)], losses(1, 2, 3))
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 2: early stopping",
        "Restoring model weights from the end of the best epoch: 1.",
    ]


def test_early_stopping_can_be_used_again():
    callback = cb.EarlyStopping(patience=1)
    assert train([callback], losses(1, 2, 3))[1] == 2
    assert train([callback], losses(5, 4, 3))[1] == 3


# ----------------------------------------------------------------------------------------------------------------------
# Which number, and which direction
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "consequence"),
    [
        (lambda: cb.EarlyStopping("val_acuracy"), "the training is not ended early"),
        (lambda: cb.ReduceLROnPlateau("val_acuracy"), "the learning rate is not changed"),
        (lambda: cb.ModelCheckpoint("a.safetensors", "val_acuracy", save_best_only=True), "every model is saved"),
    ],
)
def test_a_misspelt_monitor_is_warned_of_once_a_training(callback, consequence):
    callback = callback()
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"monitor 'val_acuracy' .*{consequence}") as caught:
            train([callback], [{"loss": 1.0, "val_accuracy": 0.5}] * 3)
        assert len(caught) == 1
        text = str(caught[0].message)
        assert text.startswith(type(callback).__name__)
        assert "'loss', 'val_accuracy'" in text
        assert "validation_split" not in text


def test_a_monitor_that_needs_validation_says_so():
    with pytest.warns(UserWarning, match=r"there are 'loss'; val_\.\.\. needs validation_data or validation_split$"):
        train([cb.EarlyStopping()], [{"loss": 1.0}])


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("loss", True),
        ("val_loss", True),
        ("mean_squared_error", True),
        ("mse", True),
        ("val_mae", True),
        ("sparse_categorical_crossentropy", True),
        ("categorical_hinge", True),
        ("kl_divergence", True),
        ("root_mean_squared_error", True),
        ("accuracy", False),
        ("val_sparse_categorical_accuracy", False),
        ("sparse_top_k_categorical_accuracy", False),
        ("acc", False),
        ("val_acc", False),
        ("precision_1", False),
        ("recall", False),
        ("auc", False),
        ("f1_score", False),
        ("r2_score", False),
        ("cosine_similarity", False),
        ("mean_io_u", False),
        ("AUC", False),
    ],
)
def test_names_tell_the_direction(name, lower):
    worse, better = (2.0, 1.0) if lower else (1.0, 2.0)
    assert train([cb.EarlyStopping(name, patience=1)], losses(worse, better, worse, worse, name=name))[1] == 3


def test_a_metric_tells_its_direction_itself():
    class Metric:
        name, direction = "loss_of_faith", "up"

    model = FakeModel()
    model.metrics = [Metric()]
    assert train([cb.EarlyStopping("val_loss_of_faith")], losses(1, 2, 1, name="val_loss_of_faith"), model)[1] == 3


@pytest.mark.parametrize("name", ["wibble", "placeholder", "macro"])
def test_a_name_that_does_not_tell_needs_a_mode(name):
    with pytest.raises(ValueError, match=f"EarlyStopping: whether '{name}' should be low or high .*mode='min'"):
        train([cb.EarlyStopping(name)], losses(1, 2, name=name))
    assert train([cb.EarlyStopping(name, mode="min")], losses(1, 2, 3, name=name))[1] == 2


# ----------------------------------------------------------------------------------------------------------------------
# ReduceLROnPlateau and LearningRateScheduler
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "rates"),
    [
        ({"patience": 2}, [3, 3, 3, 3, 3], [0.5, 0.5, 0.05, 0.05, 0.005]),
        ({"patience": 1, "factor": 0.5, "cooldown": 2}, [3] * 6, [0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]),
        ({"patience": 1, "factor": 0.5, "min_lr": 0.2}, [3] * 5, [0.5, 0.25, 0.2, 0.2, 0.2]),
        ({"patience": 1, "min_lr": 0.6}, [3, 3, 3], [0.5, 0.5, 0.5]),  # not made larger
        ({"patience": 1, "factor": 0.5}, [3, 2.99995, 2, 1, 1], [0.5, 0.25, 0.25, 0.25, 0.125]),
        ({"patience": 1, "factor": 0.5, "mode": "max"}, [1, 2, 3, 2], [0.5, 0.5, 0.5, 0.25]),
        ({"patience": 1, "factor": 0.5}, [NAN, 2, 1], [0.25, 0.25, 0.25]),
    ],
)
def test_reduce_lr_on_plateau(options, values, rates):
    seen = []
    watch = cb.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.optimizer.learning_rate))
    model, history = FakeModel(), cb.History()
    train([cb.ReduceLROnPlateau(**options), watch, history], losses(*values), model)
    np.testing.assert_allclose(seen, rates, rtol=1e-12)
    np.testing.assert_allclose(history.history["learning_rate"], [0.5, *rates[:-1]], rtol=1e-12)


def test_reduce_lr_on_plateau_tells_what_it_does(capsys):
    train([cb.ReduceLROnPlateau(patience=1, factor=0.5, verbose=1)], losses(3, 3))
    assert capsys.readouterr().out == "Epoch 2: ReduceLROnPlateau reducing learning rate to 0.25.\n"


def test_learning_rate_scheduler(capsys):
    model, history = FakeModel(), cb.History()
    schedule = cb.LearningRateScheduler(lambda epoch, lr: lr if epoch < 1 else lr / 2, verbose=1)
    train([schedule, history], losses(1, 1, 1), model)
    assert model.optimizer.learning_rate == 0.125
    assert history.history["learning_rate"] == [0.5, 0.25, 0.125]
    assert capsys.readouterr().out.splitlines()[2] == "Epoch 3: LearningRateScheduler setting learning rate to 0.125."


@pytest.mark.parametrize("schedule", [lambda epoch: 1 / (epoch + 1), lambda epoch, *, base=1: np.float32(base / (epoch + 1))])
def test_a_schedule_of_the_epoch_alone_will_do(schedule):
    model, _ = train([cb.LearningRateScheduler(schedule)], losses(1, 1))
    assert model.optimizer.learning_rate == 0.5


def test_an_error_inside_a_schedule_is_not_mistaken_for_another_signature():
    calls = []

    def schedule(epoch, lr):
        calls.append(epoch)
        return lr + None

    with pytest.raises(TypeError, match="NoneType"):
        train([cb.LearningRateScheduler(schedule)], losses(1))
    assert calls == [0]


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [
        (None, TypeError, "must be a number, got None"),
        ("1", TypeError, "must be a number, got '1'"),
        (NAN, ValueError, "must be at least 0 and finite, got nan"),
        (-1.0, ValueError, "must be at least 0 and finite, got -1.0"),
    ],
)
def test_what_a_schedule_must_not_return(result, error, text):
    with pytest.raises(error, match=f"^LearningRateScheduler: what schedule returns for epoch 0 {text}"):
        train([cb.LearningRateScheduler(lambda epoch, lr: result)], losses(1))


@pytest.mark.parametrize(
    "callback",
    [cb.ReduceLROnPlateau(patience=1), cb.LearningRateScheduler(lambda epoch, lr: lr)],
    ids=lambda c: type(c).__name__,
)
def test_a_learning_rate_that_follows_a_schedule_is_not_set(callback):
    with pytest.raises(TypeError, match=f"^{type(callback).__name__} sets the learning rate, and the optimizer's follows"):
        train([callback], losses(1, 1, 1), FakeModel(schedule="decay"))


# ----------------------------------------------------------------------------------------------------------------------
# ModelCheckpoint
# ----------------------------------------------------------------------------------------------------------------------


def names(model):
    return [(kind, Path(path).name) for kind, path in model.saved]


def test_a_checkpoint_after_every_epoch(tmp_path):
    path = tmp_path / "new" / "{epoch:02d}-{val_loss:.2f}.safetensors"
    model, _ = train([cb.ModelCheckpoint(path)], losses(0.5, 0.75))
    assert names(model) == [("model", "01-0.50.safetensors"), ("model", "02-0.75.safetensors")]
    assert (tmp_path / "new").is_dir()
    model, _ = train([cb.ModelCheckpoint(str(path), save_weights_only=True)], losses(0.5))
    assert names(model) == [("weights", "01-0.50.safetensors")]


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({}, ["01", "03", "05"]),
        ({"mode": "max"}, ["01", "02"]),
        ({"initial_value_threshold": 0.4}, ["03", "05"]),
        ({"monitor": "accuracy"}, ["01", "03"]),
    ],
)
def test_the_best_checkpoint_only(tmp_path, options, saved):
    epochs = [
        {"val_loss": loss, "accuracy": accuracy}
        for loss, accuracy in [(0.5, 0.1), (0.6, NAN), (0.3, 0.2), (NAN, 0.2), (0.2, 0.15)]
    ]
    model, _ = train([cb.ModelCheckpoint(tmp_path / "{epoch:02d}.safetensors", save_best_only=True, **options)], epochs)
    assert [name.partition(".")[0] for _, name in names(model)] == saved


def test_a_checkpoint_every_so_many_batches(tmp_path):
    path = tmp_path / "{epoch}-{batch}.safetensors"
    model, _ = train([cb.ModelCheckpoint(path, save_freq=2)], losses(1, 1), batches=3)
    assert [name for _, name in names(model)] == ["1-2.safetensors", "2-1.safetensors", "2-3.safetensors"]


def test_the_best_of_batches_can_be_kept_from_the_first_epoch_on(tmp_path):
    checkpoint = cb.ModelCheckpoint(tmp_path / "a.safetensors", "loss", save_best_only=True, save_freq=1)
    model, _ = train([checkpoint], losses(3, 4, 2, name="loss"), batches=2)
    assert len(model.saved) == 2
    assert checkpoint.best == 2


def test_batch_logs_are_read_only_if_they_are_needed(tmp_path):
    logs = Watched(loss=1.0)
    callback = cb.ModelCheckpoint(tmp_path / "a.safetensors", save_freq=1)
    callback.set_model(FakeModel())
    callback.on_train_batch_end(0, logs)
    assert logs.reads == 0
    assert len(callback.model.saved) == 1


def test_a_checkpoint_tells_what_it_does(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    train([cb.ModelCheckpoint(path, verbose=1, save_best_only=True)], losses(0.5, 0.75))
    assert capsys.readouterr().out.splitlines() == [
        f"Epoch 1: val_loss improved from None to 0.50000, saving model to {path}",
        f"Epoch 1: finished saving model to {path}",
        "Epoch 2: val_loss did not improve from 0.50000",
    ]


def test_a_file_name_that_asks_for_what_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"^ModelCheckpoint: filepath .* there is no 'val_loss'; there are \['epoch', 'loss'\]"
    ):
        train([cb.ModelCheckpoint(tmp_path / "{val_loss:.2f}.safetensors")], [{"loss": 1.0}])
    with pytest.raises(ValueError, match="cannot be filled in: Unknown format code"):
        train([cb.ModelCheckpoint(tmp_path / "{loss:d}.safetensors")], [{"loss": 1.0}])


# ----------------------------------------------------------------------------------------------------------------------
# CSVLogger
# ----------------------------------------------------------------------------------------------------------------------


def rows(path, separator=","):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old")
    seen = []
    watch = cb.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(rows(path)))
    train([cb.CSVLogger(path), watch], [{"loss": 0.1, "accuracy": 1 / 3}, {"loss": 1e-9, "accuracy": NAN}])
    assert rows(path) == [["epoch", "accuracy", "loss"], ["0", repr(1 / 3), "0.1"], ["1", "nan", "1e-09"]]
    assert [len(table) for table in seen] == [2, 3]
    assert b"\r" not in path.read_bytes()


def test_columns_that_come_later_and_a_separator(tmp_path):
    path = tmp_path / "log.csv"
    train([cb.CSVLogger(path, separator=";")], [{"loss": 3.0}, {"loss": 2.0, "val_loss": 2.5}, {"loss": 1.0}])
    assert rows(path, ";") == [["epoch", "loss", "val_loss"], ["0", "3.0", "NA"], ["1", "2.0", "2.5"], ["2", "1.0", "NA"]]


def test_a_log_can_be_appended_to(tmp_path):
    path = tmp_path / "log.csv"
    for _ in range(2):
        train([cb.CSVLogger(path, append=True)], [{"loss": 3.0}, {"loss": 2.0}])
    assert rows(path) == [["epoch", "loss"], *[["0", "3.0"], ["1", "2.0"]] * 2]
    train([cb.CSVLogger(path, append=True)], [{"loss": 1.0, "accuracy": 0.5}])
    assert rows(path)[0] == ["epoch", "loss", "accuracy"]
    assert rows(path)[1:][-2:] == [["1", "2.0", "NA"], ["0", "1.0", "0.5"]]
    train([cb.CSVLogger(path)], [{"loss": 9.0}])
    assert rows(path) == [["epoch", "loss"], ["0", "9.0"]]


def test_a_row_that_was_not_written_to_its_end_is_left_out(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,accuracy,loss\n0,0.5,1.0\n1,0.6")
    train([cb.CSVLogger(path, append=True)], [{"loss": 3.0, "accuracy": 0.7}])
    assert rows(path) == [["epoch", "accuracy", "loss"], ["0", "0.5", "1.0"], ["0", "0.7", "3.0"]]


@pytest.mark.parametrize("content", [b"not a table\n", b"epoch,loss\n1,2,3\n", b"epoch;loss\n1;2\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_log_is_not_appended_to(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^CSVLogger: .*log\.csv is no table that can be appended to"):
        train([cb.CSVLogger(path, append=True)], [{"loss": 3.0}])
    assert path.read_bytes() == content


def test_a_log_that_cannot_be_written_fails_before_the_training(tmp_path):
    with pytest.raises(FileNotFoundError):
        cb.CSVLogger(tmp_path / "no" / "log.csv").on_train_begin()


def test_a_disk_that_is_full_leaves_the_rows_that_were_there(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    callback = cb.CSVLogger(path)
    callback.on_train_begin()
    callback.on_epoch_end(0, {"loss": 1.0})

    def full(self, text, **_):
        self.write_bytes(text.encode()[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        callback.on_epoch_end(1, {"loss": 2.0})
    assert rows(path) == [["epoch", "loss"], ["0", "1.0"]]
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------------------------------
# TerminateOnNaN, LambdaCallback, LivePlot
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [NAN, float("inf"), -float("inf"), np.float32("nan")])
def test_terminate_on_nan(loss, capsys):
    model = FakeModel()
    callback = cb.TerminateOnNaN()
    callback.set_model(model)
    callback.on_train_batch_end(0, {"loss": 1e30})
    callback.on_train_batch_end(1, {"accuracy": NAN})
    callback.on_train_batch_end(2, None)
    assert not model.stop_training
    callback.on_train_batch_end(3, {"loss": loss})
    assert model.stop_training
    assert capsys.readouterr().out == "Batch 3: Invalid loss, terminating training\n"
    with pytest.raises(RuntimeError, match=r"^TerminateOnNaN: the loss is (nan|-?inf) after batch 3"):
        cb.TerminateOnNaN(raise_error=True).on_train_batch_end(3, {"loss": loss})


def test_lambda_callback():
    calls = []
    callback = cb.LambdaCallback(
        lambda epoch, logs: calls.append(("begin", epoch)),
        on_train_batch_end=lambda batch, logs: calls.append(("batch", batch, logs["loss"])),
        on_test_end=lambda logs: calls.append(("test", logs)),
    )
    train([callback], [{"loss": 1.0}], batches=2)
    cb.CallbackList([callback]).on_test_end({"loss": 2.0})
    assert calls == [("begin", 0), ("batch", 0, 1.0), ("batch", 1, 1.0), ("test", {"loss": 2.0})]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"on_epoch_ends": print}, "there is no 'on_epoch_ends'; there are .*on_epoch_begin, on_epoch_end,"),
        ({"close": print}, "there is no 'close'"),
        ({"on_epoch_end": 3}, "on_epoch_end must be a function, got 3"),
    ],
)
def test_what_a_lambda_callback_refuses(given, text):
    with pytest.raises(TypeError, match=f"^LambdaCallback: {text}"):
        cb.LambdaCallback(**given)


def test_live_plot(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    path = tmp_path / "training.png"
    drawn = []
    curves = xc.visualize.training_curves

    def watched(history, **options):
        drawn.append((list(history.epoch), options["title"]))
        return curves(history, **options)

    monkeypatch.setattr(xc.visualize, "training_curves", watched)
    sizes = []
    watch = cb.LambdaCallback(on_epoch_end=lambda epoch, logs: sizes.append(path.stat().st_size))
    train([cb.LivePlot(path, title="A run"), watch], [{"loss": 3.0}, {"loss": 2.0, "val_loss": 2.5}])
    assert drawn == [([0], "A run"), ([0, 1], "A run")]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(set(sizes)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_live_plot_refuses_before_the_training(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"^LivePlot: the name of the file must end in one of \."):
        cb.LivePlot(tmp_path / "a.doc")
    with pytest.raises(FileNotFoundError):
        cb.LivePlot(tmp_path / "no" / "a.png").on_train_begin()


# ----------------------------------------------------------------------------------------------------------------------
# Arguments
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: cb.EarlyStopping(mode="lowest"),
            ValueError,
            "EarlyStopping: mode must be 'auto', 'min' or 'max', got 'lowest'",
        ),
        (lambda: cb.EarlyStopping(monitor=3), TypeError, "EarlyStopping: monitor must be a name"),
        (lambda: cb.EarlyStopping(patience=-1), ValueError, "EarlyStopping: patience must be at least 0, got -1"),
        (lambda: cb.EarlyStopping(patience=1.5), TypeError, "EarlyStopping: patience must be an integer, got 1.5"),
        (lambda: cb.EarlyStopping(min_delta=NAN), ValueError, "EarlyStopping: min_delta must be finite, got nan"),
        (lambda: cb.EarlyStopping(baseline="0.5"), TypeError, "EarlyStopping: baseline must be a number, got '0.5'"),
        (lambda: cb.EarlyStopping(start_from_epoch=-1), ValueError, "EarlyStopping: start_from_epoch must be at least 0"),
        (
            lambda: cb.ReduceLROnPlateau(factor=1.0),
            ValueError,
            "ReduceLROnPlateau: factor must be at least 0 and less than 1, got 1.0",
        ),
        (lambda: cb.ReduceLROnPlateau(cooldown=-1), ValueError, "ReduceLROnPlateau: cooldown must be at least 0, got -1"),
        (lambda: cb.ReduceLROnPlateau(min_lr=-1), ValueError, "ReduceLROnPlateau: min_lr must be at least 0"),
        (
            lambda: cb.ModelCheckpoint("a.keras"),
            ValueError,
            r"ModelCheckpoint: filepath must end in '.safetensors', got 'a.keras'",
        ),
        (lambda: cb.ModelCheckpoint("{epoch.safetensors"), ValueError, "ModelCheckpoint: filepath .* cannot be filled in"),
        (lambda: cb.ModelCheckpoint("{}.safetensors"), ValueError, "ModelCheckpoint: braces in filepath must hold a name"),
        (
            lambda: cb.ModelCheckpoint("a.safetensors", save_freq="batch"),
            ValueError,
            "ModelCheckpoint: save_freq must be 'epoch'",
        ),
        (lambda: cb.ModelCheckpoint("a.safetensors", save_freq=0), ValueError, "ModelCheckpoint: save_freq must be at least 1"),
        (lambda: cb.LearningRateScheduler(0.1), TypeError, "LearningRateScheduler: schedule must be a function"),
        (lambda: cb.CSVLogger("a.csv", separator=", "), ValueError, "CSVLogger: separator must be one character"),
        (lambda: cb.ProgressBar(3), ValueError, "ProgressBar: verbose must be 'auto', 0, 1 or 2, got 3"),
    ],
)
def test_arguments_out_of_range_are_refused(make, error, text):
    with pytest.raises(error, match=f"^{text}"):
        make()


# ----------------------------------------------------------------------------------------------------------------------
# ProgressBar
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(cb.time, "monotonic", lambda: Clock.now)
    return Clock


def run_epoch(called, clock, steps, seconds, logs, epoch=0):
    called.on_epoch_begin(epoch)
    for step in range(steps):
        clock.now += 1.0 if step == 0 else seconds
        called.on_train_batch_end(step, logs)


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_one_plain_line_an_epoch_where_there_is_no_terminal(clock, capsys, verbose):
    called = cb.CallbackList(add_progbar=True, model=None, epochs=5, steps=11, verbose=verbose)
    called.on_train_begin()
    run_epoch(called, clock, 11, 0.002, {"loss": 9.0})
    clock.now += 2.5  # the validation
    assert capsys.readouterr().out == ""
    called.on_epoch_end(0, {"loss": 0.7357, "val_loss": 0.0005, "accuracy": 0.80654, "learning_rate": 0.001, "zero": 0.0})
    assert capsys.readouterr().out == (
        "Epoch 1/5  11/11 steps  4s 2ms/step  accuracy: 0.8065  learning_rate: 1.0000e-03  loss: 0.7357  "
        "val_loss: 5.0000e-04  zero: 0.0000\n"
    )


def test_nothing_is_told_with_verbose_0(capsys):
    train([cb.ProgressBar()], losses(1, 2), verbose=0)
    train([cb.ProgressBar(0)], losses(1, 2), verbose=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "text"), [(2e-5, "20us/step"), (0.25, "250ms/step"), (3.0, "3s/step")])
def test_the_time_of_a_step(clock, capsys, seconds, text):
    called = cb.CallbackList([cb.ProgressBar()], epochs=1, steps=3, verbose=2)
    run_epoch(called, clock, 3, seconds, {})
    called.on_epoch_end(0, {})
    assert f" {text}\n" in capsys.readouterr().out


def test_steps_that_are_not_known_are_counted(clock, capsys):
    called = cb.CallbackList([cb.ProgressBar()], epochs=1, steps=None, verbose=1)
    run_epoch(called, clock, 7, 0.5, {})
    called.on_epoch_end(0, {"loss": NAN})
    assert capsys.readouterr().out == "Epoch 1/1  7/7 steps  4s 500ms/step  loss: nan\n"


def test_logs_are_read_at_the_last_step_alone(clock):
    logs = Watched(loss=1.0)
    called = cb.CallbackList([cb.ProgressBar()], epochs=1, steps=5, verbose=1)
    run_epoch(called, clock, 4, 1.0, logs)
    assert logs.reads == 0
    called.on_train_batch_end(4, logs)
    assert logs.reads == 1


def test_evaluations_and_predictions_have_a_line_of_their_own_and_validations_none(clock, capsys):
    called = cb.CallbackList([cb.ProgressBar()], epochs=1, steps=2, verbose=1)
    called.on_test_begin()
    for step in range(2):
        called.on_test_batch_end(step, {"loss": 1.0})
    called.on_test_end({"loss": 0.5, "accuracy": 0.75})
    assert capsys.readouterr().out == "2/2 steps  0s 0us/step  accuracy: 0.7500  loss: 0.5000\n"
    called.on_predict_begin()
    for step in range(2):
        called.on_predict_batch_end(step, {"outputs": np.zeros(9)})
    called.on_predict_end()
    assert capsys.readouterr().out == "2/2 steps  0s 0us/step\n"
    called.on_train_begin()
    called.on_test_begin()
    called.on_test_batch_end(0, {"loss": 1.0})
    called.on_test_end({"loss": 1.0})
    assert capsys.readouterr().out == ""
    called.on_train_end()
    called.on_test_begin()
    called.on_test_end({"loss": 1.0})
    assert "loss: 1.0000" in capsys.readouterr().out


def test_lines_are_ascii(clock, capsys):
    train([cb.ProgressBar(1)], losses(1))
    assert capsys.readouterr().out.isascii()


PROGRAM = """
import sys
from xpconv import callbacks as cb

class Logs(dict):
    reads = 0
    def items(self):
        Logs.reads += 1
        return super().items()

def fit(called, epochs, steps):
    called.on_train_begin()
    for epoch in range(epochs):
        called.on_epoch_begin(epoch)
        for step in range(steps):
            called.on_train_batch_end(step, Logs(loss=0.25))
        called.on_test_begin()
        print("a message")
        with cb.CallbackList([cb.ProgressBar(1)], epochs=1, steps=1, verbose=1) as other:
            other.on_test_begin()
            other.on_test_batch_end(0, {})
            other.on_test_end({"other": 1.0})
        called.on_epoch_end(epoch, {"loss": 0.125, "val_loss": 0.0625})
    called.on_train_end()

with cb.CallbackList([cb.ProgressBar(1)], epochs=2, steps=2000, verbose=1) as called:
    fit(called, 2, 2000)
    print("reads", Logs.reads)
try:
    with cb.CallbackList([cb.ProgressBar(1)], epochs=2, steps=5, verbose=1) as called:
        called.on_train_begin()
        called.on_epoch_begin(0)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("interrupted")
"""


def run_in_terminal(**env):
    """What a terminal is sent."""
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=terminal, stderr=terminal, env={**os.environ, "COLUMNS": "100", **env}
        )
        os.close(terminal)
        sent = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # Linux says so that the other side has closed
                break
            if not part:
                break
            sent += part
        assert process.wait(60) == 0, sent.decode()
    finally:
        os.close(main)
    return sent.decode().replace("\r\n", "\n")


def test_a_terminal_gets_a_live_bar_and_keeps_the_lines():
    sent = run_in_terminal(TERM="xterm-256color")
    for epoch in (1, 2):
        assert f"Epoch {epoch}/2  2000/2000 steps" in sent
    assert "loss: 0.1250  val_loss: 0.0625\n" in sent
    assert "━" in sent
    assert "validating" in sent
    assert "a message\n" in sent
    assert sent.count("1/1 steps  0s") == 2, "the evaluation by a callback is told while another bar is shown"
    assert "interrupted" in sent
    # Reading may wait for a card: ten times a second, and once at the end of each epoch.
    reads = int(sent.partition("reads ")[2].split()[0])
    assert 2 <= reads < 400
    # A bar for each of two epochs and for the one that was interrupted, none within another; each shows the cursor again.
    assert sent.count("\x1b[?25l") == sent.count("\x1b[?25h") == 3


def test_a_dumb_terminal_gets_plain_lines():
    sent = run_in_terminal(TERM="dumb")
    assert "\x1b" not in sent
    assert sent.isascii()
    assert sent.count("loss: 0.1250") == 2


# ----------------------------------------------------------------------------------------------------------------------
# With models
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def problem(rng):
    x = rng.normal(size=(96, 6, 6, 1)).astype(np.float32)
    return x, (x.mean(axis=(1, 2, 3)) > 0).astype(np.int64)


def compiled(learning_rate=0.01):
    model = xc.models.Sequential(
        [
            xc.layers.Conv2D(3, (2, 2), activation="relu"),
            xc.layers.MaxPooling2D(),
            xc.layers.Flatten(),
            xc.layers.Dense(2, activation="softmax"),
        ]
    )
    adam = xc.optimizers.Adam(learning_rate=learning_rate)
    model.compile(optimizer=adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_fit_is_recorded_everywhere(problem, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    x, t = problem
    seen = []
    watch = cb.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append((batch, sorted(logs), logs["loss"])))
    log, picture = cb.CSVLogger(tmp_path / "log.csv"), cb.LivePlot(tmp_path / "training.png")
    history = compiled().fit(
        x, t, batch_size=24, epochs=2, validation_data=(x[:10], t[:10]), callbacks=[watch, log, picture], verbose=2
    )
    assert isinstance(history, cb.History)
    assert history.epoch == [0, 1]
    names = {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert set(history.history) == names
    table = rows(tmp_path / "log.csv")
    assert table[0] == ["epoch", *sorted(names)]
    for epoch, row in enumerate(table[1:]):
        assert [float(cell) for cell in row[1:]] == [history.history[name][epoch] for name in table[0][1:]]
    assert [batch for batch, *_ in seen] == [0, 1, 2, 3] * 2
    assert seen[3][1] == ["accuracy", "loss"]
    assert seen[3][2] == pytest.approx(history.history["loss"][0], rel=1e-6)
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Epoch 1/2  4/4 steps  ")
    assert second.endswith(f"val_loss: {history.history['val_loss'][1]:.4f}")


def test_the_best_weights_of_a_fit_come_back(problem):
    x, t = problem
    kept = []
    model = compiled(learning_rate=0.3)
    watch = cb.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append((logs["val_loss"], model.get_weights())))
    stop = cb.EarlyStopping(patience=3, restore_best_weights=True)
    model.fit(x[:60], t[:60], epochs=60, validation_data=(x[60:], t[60:]), callbacks=[watch, stop], verbose=0)
    best = min(range(len(kept)), key=lambda epoch: kept[epoch][0])
    assert len(kept) == best + 4
    assert stop.best_epoch == best
    for weight, expected in zip(model.get_weights(), kept[best][1], strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_the_best_checkpoint_of_a_fit_can_be_loaded(problem, tmp_path):
    x, t = problem
    model = compiled()
    path = tmp_path / "best-{epoch:02d}.safetensors"
    model.fit(x, t, epochs=2, callbacks=[cb.ModelCheckpoint(path, "loss", save_best_only=True)], verbose=0)
    best = xc.models.load_model(tmp_path / "best-02.safetensors")
    np.testing.assert_array_equal(best.predict(x, verbose=0), model.predict(x, verbose=0))


def test_the_learning_rate_of_a_fit_is_changed(problem):
    x, t = problem
    model = compiled(learning_rate=0.5)
    rates = cb.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(x, t, epochs=2, callbacks=[rates], verbose=0)
    assert model.optimizer.learning_rate == 0.125
    assert history.history["learning_rate"] == [0.25, 0.125]
    scheduled = compiled(xc.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))
    with pytest.raises(
        TypeError, match=r"^LearningRateScheduler sets the learning rate, and the optimizer's follows a schedule"
    ):
        scheduled.fit(x, t, epochs=1, callbacks=[rates], verbose=0)


def test_evaluate_and_predict_tell_a_line(problem, capsys):
    x, t = problem
    model = compiled()
    model.evaluate(x, t, verbose=1)
    assert capsys.readouterr().out.startswith("3/3 steps  ")
    model.predict(x, verbose=1)
    assert capsys.readouterr().out.startswith("3/3 steps  ")
    model.predict(x, verbose=0)
    assert capsys.readouterr().out == ""
