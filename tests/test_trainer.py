"""The trainer: which images it visits, what it measures, what it refuses, how it stops, and the book's front end to it."""

import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import xpconv as xc
from xpconv.errors import TrainingError
from xpconv.scratch import optimizer as book
from xpconv.scratch.multi_layer_net_extend import MultiLayerNetExtend
from xpconv.scratch.trainer import Trainer as BookTrainer
from xpconv.training import Progress, progress
from xpconv.training.interruption import Interruption

HISTORY_KEYS = ["epoch", "loss", "train_accuracy", "test_loss", "test_accuracy", "seconds", "images_per_second"]


class Spy:
    """A network whose every answer can be worked out by hand, and which remembers what it was given.

    Of an image it reads the first pixel, its number. It answers with the class ``number % 3``. The loss of a batch is the
    mean of its numbers, and each step lowers W by the number of images, if the optimizer is SGD(1).
    """

    device = xc.get_device("numpy")
    dtype = np.dtype(np.float32)

    def __init__(self, gradient=None, loss=None):
        self.params = {"W": np.zeros(1, np.float32)}
        self.batches = []
        self.gradient, self.fixed_loss = gradient, loss

    def predict(self, x):
        return np.eye(3, dtype=np.float32)[x.reshape(len(x), -1)[:, 0].astype(int) % 3]

    def loss(self, x, t):
        return x.reshape(len(x), -1)[:, 0].mean(dtype=np.float64)

    def loss_and_gradient(self, x, t):
        self.batches.append((x.copy(), np.array(t)))
        loss = self.loss(x, t) if self.fixed_loss is None else self.fixed_loss
        return loss, {"W": np.full(1, len(x), np.float32) if self.gradient is None else self.gradient}


def numbered(count, wrong=(), dtype=np.float32):
    """Images with their number in the first pixel, and the labels that Spy gives them, except for those in ``wrong``."""
    images = np.zeros((count, 1, 2, 2), dtype)
    images[:, 0, 0, 0] = np.arange(count)
    labels = np.arange(count) % 3
    labels[list(wrong)] = (labels[list(wrong)] + 1) % 3
    return images, labels


def visited(network):
    return [x[:, 0, 0, 0].astype(int).tolist() for x, _ in network.batches]


def quiet(network, *data, **options):
    return xc.Trainer(network, *data, **{"progress": False, **options})


@pytest.fixture(scope="module")
def digits():
    (x_train, t_train), (x_test, t_test) = xc.datasets.load_mnist()
    return (x_train[:250], t_train[:250]), (x_test[:70], t_test[:70])


def small_net(**options):
    return xc.SimpleConvNet(conv_param={"filter_num": 4}, hidden_size=20, seed=3, **options)


@pytest.fixture
def sigint():
    """SIGINT as a terminal's foreground job has it, however the tests were started."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, old)


# ----------------------------------------------------------------------------------------------------------------------
# Which images a training visits
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "batch_size", "sizes"), [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 100, [3]), (2, 1, [1, 1])])
def test_each_epoch_visits_every_image_once(images, batch_size, sizes):
    network = Spy()
    trainer = quiet(network, numbered(images), epochs=3, batch_size=batch_size, seed=1)
    trainer.run()
    batches = visited(network)
    assert [len(batch) for batch in batches] == 3 * sizes
    per_epoch = len(sizes)
    for epoch in range(3):
        assert sorted(itertools.chain(*batches[epoch * per_epoch : (epoch + 1) * per_epoch])) == list(range(images))
    for x, t in network.batches:
        np.testing.assert_array_equal(t, x[:, 0, 0, 0].astype(int) % 3)  # each with its own label


def orders(**options):
    network = Spy()
    quiet(network, numbered(40), epochs=2, batch_size=40, **options).run()
    return visited(network)


def test_the_order_is_new_in_each_epoch_and_the_seed_decides_it():
    first, second = orders(seed=5)
    assert first != second
    assert first != list(range(40))
    assert orders(seed=5) == [first, second]
    assert orders(seed=6)[0] != first
    assert orders(seed=None) != orders(seed=None)


def test_the_order_is_the_documented_generators():
    rng = np.random.Generator(np.random.PCG64(5))
    assert orders(seed=5) == [rng.permutation(40).tolist(), rng.permutation(40).tolist()]


def test_without_shuffling_the_images_come_as_they_stand():
    assert orders(shuffle=False) == [list(range(40))] * 2


def test_a_run_does_not_touch_the_global_generator():
    before = np.random.get_state(legacy=False)
    orders(seed=None)
    np.testing.assert_equal(np.random.get_state(legacy=False), before)


class OnDisk:
    """What could be a file larger than the memory: it gives a few images at a time, and never all of them."""

    def __init__(self, images, most):
        self.shape, self.dtype, self._images, self._most = images.shape, images.dtype, images, most

    def __getitem__(self, selection):
        assert isinstance(selection, slice | np.ndarray)
        part = self._images[selection]
        assert len(part) <= self._most
        return part

    def __array__(self, *arguments, **options):
        raise AssertionError("all images at once")

    def __len__(self):
        raise AssertionError("the shape tells")


def test_never_more_than_a_batch_is_read():
    images, labels = numbered(23)
    network = Spy()
    history = quiet(network, (OnDisk(images, 5), labels), (OnDisk(images, 5), labels), epochs=2, batch_size=5).run()
    assert history["train_accuracy"] == history["test_accuracy"] == [1.0, 1.0]
    assert max(len(x) for x, _ in network.batches) == 5


def test_images_in_a_file(tmp_path):
    images, labels = numbered(11)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    network = Spy()
    quiet(network, (mapped, labels), epochs=1, batch_size=4, seed=0).run()
    assert sorted(itertools.chain(*visited(network))) == list(range(11))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16, np.bool_])
@pytest.mark.parametrize("network_dtype", [np.float32, np.float64])
def test_batches_are_converted_to_the_networks_dtype_and_not_scaled(dtype, network_dtype):
    network = Spy()
    network.dtype = np.dtype(network_dtype)
    images = np.full((4, 1, 2, 2), 200 if dtype is not np.bool_ else True, dtype)
    quiet(network, (images, np.zeros(4)), epochs=1).run()
    ((x, _),) = network.batches
    assert x.dtype == network_dtype
    assert (x == images).all()


@pytest.mark.parametrize("labels", [np.array([[0], [1], [2]]), np.eye(3), np.eye(3, dtype=np.uint8), [0, 1, 2], np.arange(3.0)])
def test_labels_of_every_form(labels):
    history = quiet(Spy(), numbered(3), (numbered(3)[0], labels), epochs=1).run()
    assert history["test_accuracy"] == [1.0]


def test_rows_of_probabilities_reach_the_loss_as_they_are():
    soft = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    network = Spy()
    quiet(network, (numbered(2)[0], soft), epochs=1, shuffle=False).run()
    np.testing.assert_array_equal(network.batches[0][1], soft)


# ----------------------------------------------------------------------------------------------------------------------
# What it measures
# ----------------------------------------------------------------------------------------------------------------------


def test_history_is_exact():
    network = Spy()
    trainer = quiet(network, numbered(7, wrong=[0, 6]), numbered(5, wrong=[4]), epochs=2, batch_size=3, seed=0)
    history = trainer.run()
    assert list(history) == HISTORY_KEYS
    assert history["epoch"] == [1, 2]
    # The mean over images: that of three batches' means would count the single image of the last one three times.
    np.testing.assert_allclose(history["loss"], [3.0, 3.0], rtol=1e-15)
    assert history["train_accuracy"] == [5 / 7, 5 / 7]
    assert history["test_accuracy"] == [4 / 5, 4 / 5]
    np.testing.assert_allclose(history["test_loss"], [2.0, 2.0], rtol=1e-15)
    assert all(seconds > 0 for seconds in history["seconds"])
    for seconds, speed in zip(history["seconds"], history["images_per_second"], strict=True):
        assert speed >= 7 / seconds  # evaluation takes part of the seconds, but not of the speed
    assert json.loads(json.dumps(history, allow_nan=False)) == history
    assert trainer.history == history
    assert trainer.interrupted is False


def test_history_without_a_test_set():
    history = quiet(Spy(), numbered(4), epochs=2).run()
    assert history["test_accuracy"] == history["test_loss"] == [None, None]
    assert history["train_accuracy"] == [1.0, 1.0]


@pytest.mark.parametrize(("samples", "train", "test"), [(4, 3 / 4, 1.0), (5, 4 / 5, 4 / 5), (100, 6 / 7, 4 / 5), (1, 0.0, 1.0)])
def test_evaluation_on_the_first_images(samples, train, test):
    history = quiet(
        Spy(), numbered(7, wrong=[0]), numbered(5, wrong=[4]), epochs=1, batch_size=3, evaluate_samples=samples
    ).run()
    assert (history["train_accuracy"], history["test_accuracy"]) == ([train], [test])


def test_accuracy_is_measured_after_the_epoch():
    class Learner(Spy):  # answers class 1 from the third step on
        def predict(self, x):
            return np.eye(3)[np.full(len(x), 1 if len(self.batches) >= 3 else 0)]

    history = quiet(Learner(), (numbered(6)[0], np.ones(6)), epochs=2, batch_size=2).run()
    assert history["train_accuracy"] == [1.0, 1.0]


def test_evaluate_measures_without_training():
    network = Spy()
    trainer = quiet(network, numbered(7, wrong=[0]), numbered(5, wrong=[4]), batch_size=3)
    assert trainer.evaluate() == {"train_accuracy": 6 / 7, "test_loss": 2.0, "test_accuracy": 4 / 5}
    assert (network.batches, trainer.epoch) == ([], 0)


def test_each_step_updates_the_parameters_in_place():
    network = Spy()
    W = network.params["W"]
    trainer = quiet(network, numbered(7), batch_size=3, optimizer=xc.SGD(1))
    losses = [trainer.step() for _ in range(4)]
    assert network.params["W"] is W
    assert W.tolist() == [-10.0]  # batches of 3, 3, 1 and 3 images
    np.testing.assert_allclose((3 * losses[0] + 3 * losses[1] + losses[2]) / 7, trainer.history["loss"][0], rtol=1e-15)
    assert (trainer.epoch, trainer.steps_done, trainer.steps_per_epoch) == (1, 1, 3)
    assert trainer.mean_loss == losses[3]


def test_run_goes_on_where_steps_ended_and_ends_at_epochs():
    network = Spy()
    trainer = quiet(network, numbered(6), batch_size=2, epochs=2, seed=0)
    trainer.step()
    assert trainer.run()["epoch"] == [1, 2]
    assert len(network.batches) == 6
    trainer.run()
    assert len(network.batches) == 6


def test_the_default_optimizer():
    trainer = quiet(Spy(), numbered(2))
    assert repr(trainer.optimizer) == "Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07, amsgrad=False)"


def test_digits_are_learnt(device):
    (x_train, t_train), (x_test, t_test) = xc.datasets.load_mnist()
    network = small_net(device=device)
    trainer = quiet(
        network, (x_train[:1000], t_train[:1000]), (x_test[:200], t_test[:200]), epochs=6, batch_size=50, seed=0,
        optimizer=xc.Adam(0.005),
    )  # fmt: skip
    history = trainer.run()
    assert history["loss"][-1] < 0.5 < history["loss"][0]
    assert history["test_accuracy"][-1] > 0.8
    right = xc.to_numpy(network.predict(x_test[:200])).argmax(axis=1) == t_test[:200]
    assert history["test_accuracy"][-1] == right.mean()


def test_two_runs_give_the_same_bits(digits, device, dtype):
    results = []
    for _ in range(2):
        network = small_net(device=device, dtype=dtype)
        history = quiet(network, *digits, epochs=2, batch_size=100, seed=4).run()
        results.append((history["loss"], history["test_loss"], {n: xc.to_numpy(a) for n, a in network.params.items()}))
    np.testing.assert_equal(results[0], results[1])
    assert all(array.dtype == dtype for array in results[0][2].values())


# ----------------------------------------------------------------------------------------------------------------------
# What it refuses
# ----------------------------------------------------------------------------------------------------------------------

GOOD = numbered(4)


# Largest relative difference of any loss from one computed in float64; Adam's first steps have the size of the learning rate
# however small the gradient is, so that rounding shows in the last digits of the next loss.
LOSS_TOLERANCES = {"float32": 1e-4, "float64": 1e-9}


def test_all_devices_learn_alike(digits, device, dtype):
    def losses(**options):
        train, _ = digits
        net = xc.SimpleConvNet(conv_param={"filter_num": 5}, hidden_size=12, weight_init_std="he", seed=2, **options)
        trainer = quiet(net, train, batch_size=20, optimizer=xc.Adam(0.003), seed=4)
        return [trainer.step() for _ in range(8)]

    expected = losses(device="numpy", dtype=np.float64)
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(losses(device=device, dtype=dtype), expected, rtol=LOSS_TOLERANCES[dtype.name], atol=0)


@pytest.mark.parametrize(
    ("error", "message", "data", "options"),
    [
        (TypeError, r"train must be a pair \(images, labels\), got ndarray", [GOOD[0]], {}),
        (TypeError, r"train must be a pair \(images, labels\), got 3 of them", [(*GOOD, 1)], {}),
        (TypeError, r"test must be a pair \(images, labels\), got str", [GOOD, "test"], {}),
        (TypeError, r"images of train must be an array, got list", [([[1.0]], [0])], {}),
        (TypeError, r"images of train must be real numbers, got dtype complex128", [(GOOD[0].astype(complex), GOOD[1])], {}),
        (TypeError, r"images of test must be real numbers, got dtype object", [GOOD, (GOOD[0].astype(object), GOOD[1])], {}),
        (ValueError, r"train holds no images \(images.shape=\(0, 1, 2, 2\)\)", [(GOOD[0][:0], GOOD[1][:0])], {}),
        (ValueError, r"test holds no images", [GOOD, (GOOD[0][:0], GOOD[1][:0])], {}),
        (ValueError, r"train: labels must have the shape \(4,\).*got \(3,\)", [(GOOD[0], GOOD[1][:3])], {}),
        (ValueError, r"test: labels must be whole numbers from 0 to 2, got 3 at sample 1", [GOOD, (GOOD[0], [0, 3, 0, 0])], {}),
        (ValueError, r"train: labels must be whole numbers from 0 to 2, got -1", [(GOOD[0], [0, 0, 0, -1])], {}),
        (ValueError, r"train: labels must be whole numbers from 0 to 2, got 0.5", [(GOOD[0], [0, 0.5, 0, 0])], {}),
        (ValueError, r"train: labels must be whole numbers from 0 to 2, got nan", [(GOOD[0], [0, 0, np.nan, 0])], {}),
        (TypeError, r"train: labels must be numbers", [(GOOD[0], np.array(list("abcd")))], {}),
        (ValueError, r"epochs must be at least 1, got 0", [GOOD], {"epochs": 0}),
        (TypeError, r"epochs must be an integer, got 2.0", [GOOD], {"epochs": 2.0}),
        (TypeError, r"epochs must be an integer, got True", [GOOD], {"epochs": True}),
        (ValueError, r"batch_size must be at least 1, got -5", [GOOD], {"batch_size": -5}),
        (TypeError, r"batch_size must be an integer, got None", [GOOD], {"batch_size": None}),
        (ValueError, r"seed must be at least 0, got -1", [GOOD], {"seed": -1}),
        (TypeError, r"seed must be an integer, got 'x'", [GOOD], {"seed": "x"}),
        (ValueError, r"evaluate_samples must be at least 1, got 0", [GOOD], {"evaluate_samples": 0}),
        (TypeError, r"shuffle must be True or False, got 1", [GOOD], {"shuffle": 1}),
        (TypeError, r"optimizer must be an object such as xpconv.Adam.*got 'adam'", [GOOD], {"optimizer": "adam"}),
        (TypeError, r"optimizer must be an object such as xpconv.Adam", [GOOD], {"optimizer": xc.Adam}),
        (TypeError, r"progress must be True, False or a Progress, got 'bar'", [GOOD], {"progress": "bar"}),
    ],
)  # fmt: skip
def test_bad_arguments(error, message, data, options):
    network = Spy()
    with pytest.raises(error, match=f"Trainer: .*{message}"):
        quiet(network, *data, **options)
    assert network.batches == []


def test_a_network_that_is_none():
    with pytest.raises(
        TypeError, match=r"Trainer: network has no predict, loss, loss_and_gradient \(it is of the class list\)"
    ):
        xc.Trainer([], GOOD)


def test_images_that_the_network_does_not_take():
    with pytest.raises(ValueError, match=r"SimpleConvNet: x must have the shape \(N, 1, 28, 28\), got \(1, 784\)"):
        quiet(small_net(), (np.zeros((5, 784)), np.zeros(5)))


def test_a_network_that_gives_no_scores():
    class Flat(Spy):
        def predict(self, x):
            return np.zeros(len(x))

    with pytest.raises(ValueError, match=r"Trainer: network.predict must give scores of the shape .* got \(1,\)"):
        quiet(Flat(), GOOD)


@pytest.mark.parametrize("checkpoint", ["no directory/c", ".", "directory"])
def test_a_checkpoint_that_cannot_be_written_is_known_before_training(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        quiet(Spy(), GOOD, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


def test_asking_whether_a_checkpoint_can_be_written_leaves_no_trace(tmp_path):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        quiet(Spy(), GOOD, checkpoint=tmp_path / name)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "old")]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_an_image_that_is_not_finite_is_named_before_anything_is_learnt_from_it(bad):
    images, labels = numbered(9, dtype=np.float64)
    images[[5, 7], 0, 1, 1] = bad
    network = Spy()
    trainer = quiet(network, (images, labels), batch_size=2, shuffle=False, optimizer=xc.SGD(1))
    with pytest.raises(TrainingError, match=r"Trainer: image 5 of train holds NaN, or infinity in float32"):
        trainer.run()
    assert visited(network) == [[0, 1], [2, 3]]
    assert network.params["W"].tolist() == [-4.0]
    assert trainer.steps_done == 2


def test_the_image_is_named_by_its_place_in_the_set_not_in_the_batch():
    images, labels = numbered(30)
    images[[11, 23], 0, 1, 1] = np.nan
    trainer = quiet(Spy(), (images, labels), batch_size=30, seed=1)
    with pytest.raises(TrainingError, match=r"image 11 of train \(and 1 more of its batch\) holds NaN"):
        trainer.run()


def test_a_test_image_that_is_not_finite_is_named():
    images, labels = numbered(9)
    images[8, 0, 1, 1] = np.nan
    with pytest.raises(TrainingError, match="image 8 of test holds NaN"):
        quiet(Spy(), GOOD, (images, labels), batch_size=4).run()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_before_the_update(loss):
    class Diverges(Spy):
        def loss(self, x, t):
            return loss if len(self.batches) == 5 else 1.0

    network = Diverges()
    trainer = quiet(network, numbered(6), batch_size=2, optimizer=xc.SGD(1))
    message = rf"Trainer: the loss is {loss} in epoch 2, step 2 of 3; the parameters are those before this step.*SGD\(learning"
    with pytest.raises(TrainingError, match=message):
        trainer.run()
    assert network.params["W"].tolist() == [-8.0]
    assert trainer.history["epoch"] == [1]
    assert (trainer.optimizer.iteration, trainer.steps_done) == (4, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_ends_the_training_before_the_update(bad):
    network = Spy(gradient=np.array([bad], np.float32))
    with pytest.raises(TrainingError, match="the gradient of W is not finite in epoch 1, step 1 of 1"):
        quiet(network, GOOD).run()
    assert network.params["W"].tolist() == [0.0]


def test_a_gradient_whose_square_overflows_is_finite():
    network = Spy(gradient=np.array([1e30], np.float32))
    quiet(network, GOOD, epochs=1, optimizer=xc.SGD(1e-30)).run()
    np.testing.assert_allclose(network.params["W"], [-1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("test", [None, numbered(3)])
def test_scores_that_are_not_finite_are_no_accuracy(bad, test):
    class Diverges(Spy):
        def predict(self, x):
            scores = super().predict(x)
            if len(self.batches) == 4:  # after the second epoch
                scores[-1, 1] = bad
            return scores

    network = Diverges()
    trainer = quiet(network, numbered(4), test, epochs=3, batch_size=2, optimizer=xc.SGD(1))
    message = r"Trainer: the network's scores hold NaN or infinity after epoch 2 \(learning rate too large\?.*SGD\(learning"
    with pytest.raises(TrainingError, match=message):
        trainer.run()
    assert network.params["W"].tolist() == [-8.0]
    assert trainer.history["epoch"] == [1]
    assert [len(column) for column in trainer.history.values()] == [1] * len(HISTORY_KEYS)


@pytest.mark.parametrize(
    ("steps", "moment"), [(0, "before epoch 1"), (1, "after step 1 of 2 of epoch 1"), (2, "after epoch 1")]
)
def test_scores_that_are_not_finite_are_told_with_their_moment(steps, moment):
    network = Spy()
    trainer = quiet(network, numbered(4), batch_size=2)
    for _ in range(steps):
        trainer.step()
    network.predict = lambda x: np.full((len(x), 3), np.nan, np.float32)
    with pytest.raises(TrainingError, match=f"NaN or infinity {moment} "):
        trainer.evaluate()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow
def test_a_step_that_fails_leaves_running_statistics_as_they_were():
    network = MultiLayerNetExtend(4, [5], 3, use_batchnorm=True, seed=0)
    trainer = quiet(network, (np.random.default_rng(0).random((8, 4)), np.arange(8) % 3), batch_size=4, seed=0)
    trainer.step()
    before = {name: array.copy() for name, array in network.state_arrays().items()}
    network.params["W2"][...] = 1e38  # scores overflow, the loss is not finite
    with pytest.raises(TrainingError, match="the loss is"):
        trainer.step()
    assert before
    np.testing.assert_equal(network.state_arrays(), before)


# ----------------------------------------------------------------------------------------------------------------------
# Ctrl-C
# ----------------------------------------------------------------------------------------------------------------------


class PressesCtrlC(Progress):
    """Raises SIGINT ``times`` times after some step, or when an epoch's evaluation begins."""

    def __init__(self, step=None, evaluation=None, times=1):
        self.step, self.evaluation, self.times, self.seen = step, evaluation, times, []

    def step_finished(self, trainer, loss):
        self.seen.append("step")
        if self.seen.count("step") == self.step:
            self.press()

    def evaluation_started(self, trainer):
        self.seen.append("evaluation")
        if self.seen.count("evaluation") == self.evaluation:
            self.press()

    def run_finished(self, trainer):
        self.seen.append("end")

    def press(self):
        for _ in range(self.times):
            signal.raise_signal(signal.SIGINT)


def reference(digits):
    network = small_net()
    trainer = quiet(network, *digits, epochs=3, batch_size=100, seed=4)
    return network, trainer.run()


TIMES = ("seconds", "images_per_second")


def without_times(history):
    return {name: column for name, column in history.items() if name not in TIMES}


@pytest.mark.parametrize(("step", "epochs"), [(1, 0), (3, 0), (4, 1), (7, 2)])
def test_ctrl_c_ends_the_run_after_the_step(sigint, digits, step, epochs):
    network = small_net()
    keys = PressesCtrlC(step=step)
    trainer = quiet(network, *digits, epochs=3, batch_size=100, seed=4, progress=keys)
    history = trainer.run()
    assert trainer.interrupted
    assert keys.seen.count("step") == step
    assert keys.seen[-1] == "end"
    assert history["epoch"] == list(range(1, epochs + 1))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    trainer.run()  # the rest, as if nothing had been
    expected_network, expected = reference(digits)
    assert not trainer.interrupted
    assert without_times(trainer.history) == without_times(expected)
    np.testing.assert_equal(network.params, expected_network.params)


def test_ctrl_c_during_an_evaluation_does_not_wait_for_it(sigint, digits):
    class Counts(type(small_net())):
        predictions = 0

        def predict(self, x, train_flg=False):
            type(self).predictions += 1
            return super().predict(x, train_flg)

    network = Counts(conv_param={"filter_num": 4}, hidden_size=20, seed=3)
    trainer = quiet(network, *digits, epochs=3, batch_size=100, seed=4, progress=PressesCtrlC(evaluation=2))
    asked = Counts.predictions
    history = trainer.run()
    assert trainer.interrupted
    assert history["epoch"] == [1]
    assert Counts.predictions == asked + 3 + 2  # the first epoch's: 250 training images, then predict and loss of 70
    assert trainer.steps_done == trainer.steps_per_epoch

    trainer.run()
    expected_network, expected = reference(digits)
    assert without_times(trainer.history) == without_times(expected)
    np.testing.assert_equal(network.params, expected_network.params)


def test_a_step_after_an_interrupted_evaluation_finishes_the_epoch_first(sigint):
    trainer = quiet(Spy(), numbered(4), epochs=3, batch_size=2, progress=PressesCtrlC(evaluation=1))
    trainer.run()
    assert (trainer.epoch, trainer.steps_done) == (0, 2)
    trainer.step()
    assert (trainer.epoch, trainer.steps_done) == (1, 1)


def test_a_second_ctrl_c_ends_at_once(sigint):
    keys = PressesCtrlC(step=2, times=2)
    trainer = quiet(Spy(), numbered(10), batch_size=2, progress=keys)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert keys.seen[-1] == "end"
    assert trainer.interrupted


def test_a_second_ctrl_c_puts_the_handler_back_before_it_strikes(sigint):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_put_back_whatever_happens(sigint):
    handlers = []

    class Sees(Progress):
        def step_finished(self, trainer, loss):
            handlers.append(signal.getsignal(signal.SIGINT))
            raise OSError("stop")

    with pytest.raises(OSError, match="stop"):
        quiet(Spy(), GOOD, progress=Sees()).run()
    assert handlers[0] is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = quiet(Spy(), numbered(4), epochs=2, batch_size=2, progress=PressesCtrlC(step=1))
        assert trainer.run()["epoch"] == [1, 2]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


def test_other_threads_train_without_handling_ctrl_c(sigint):
    handlers = []

    class Sees(Progress):
        def step_finished(self, trainer, loss):
            handlers.append(signal.getsignal(signal.SIGINT))

    trainer = quiet(Spy(), GOOD, epochs=1, progress=Sees())
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert trainer.epoch == 1
    assert handlers == [signal.default_int_handler]


# ----------------------------------------------------------------------------------------------------------------------
# Progress
# ----------------------------------------------------------------------------------------------------------------------


def test_plain_lines_where_there_is_no_terminal(capsys):
    xc.Trainer(Spy(), numbered(7, wrong=[0]), numbered(5, wrong=[4]), epochs=12, batch_size=3).run()
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("epoch  1/12  loss 3.0000  train accuracy 85.7 %  test accuracy 80.0 %  ")
    assert lines[0].endswith(" images/s")
    assert out.isascii()
    assert "\x1b" not in out
    assert err == ""


def test_lines_without_a_test_set(capsys):
    xc.Trainer(Spy(), numbered(3), epochs=1).run()
    assert "train accuracy 100.0 %  " in (out := capsys.readouterr().out)
    assert "test" not in out


def test_silence(capsys):
    xc.Trainer(Spy(), numbered(3), epochs=2, progress=False).run()
    assert capsys.readouterr() == ("", "")


def test_lines_tell_of_an_interruption(sigint, capsys, monkeypatch):
    class Lines(progress.Lines):
        def step_finished(self, trainer, loss):
            if (trainer.epoch, trainer.steps_done) == (1, 2):
                signal.raise_signal(signal.SIGINT)

    xc.Trainer(Spy(), numbered(9), epochs=4, batch_size=3, progress=Lines()).run()
    assert capsys.readouterr().out.splitlines()[-1] == (
        "interrupted after 1 of 4 epochs and 2 of 3 steps; what was learnt is kept"
    )


def test_a_progress_of_ones_own_is_told_everything():
    told = []

    class Tells(Progress):
        def run_started(self, trainer):
            told.append("start")

        def step_finished(self, trainer, loss):
            told.append((trainer.epoch, trainer.steps_done, trainer.mean_loss, loss))

        def evaluation_started(self, trainer):
            told.append("evaluation")

        def epoch_finished(self, trainer):
            told.append(trainer.history["epoch"][-1])

        def run_finished(self, trainer):
            told.append("end")

    quiet(Spy(), numbered(4), epochs=2, batch_size=2, shuffle=False, progress=Tells()).run()
    steps = [(1, 0.5, 0.5), (2, 1.5, 2.5)]
    assert told == [
        "start",
        *[(0, *step) for step in steps], "evaluation", 1,
        *[(1, *step) for step in steps], "evaluation", 2,
        "end",
    ]  # fmt: skip


SCRIPT = """
    import numpy as np, xpconv as xc
    (x, t), _ = xc.datasets.load_mnist()
    net = xc.SimpleConvNet(conv_param={"filter_num": 2}, hidden_size=10, seed=0, device="numpy")  # nothing to compile
    xc.Trainer(net, (x[:200], t[:200]), (x[:50], t[:50]), epochs=3, batch_size=20, seed=0).run()
    print("done")
"""


def run_script(**options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **options.pop("env", {})}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT)]
    return subprocess.run(command, check=True, timeout=120, env=environment, **options)


def test_a_pipe_gets_plain_lines_even_where_colours_are_forced():
    result = run_script(capture_output=True, env={"FORCE_COLOR": "1", "PYTHONIOENCODING": "ascii"})
    assert b"\x1b" not in result.stdout
    assert b"\r" not in result.stdout
    assert [line.split(b"  ")[0] for line in result.stdout.splitlines()] == [b"epoch 1/3", b"epoch 2/3", b"epoch 3/3", b"done"]
    assert result.stderr == b""


def run_in_terminal(**env):
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    chunks = []

    def read():
        try:
            while chunk := os.read(main, 1 << 16):
                chunks.append(chunk)
        except OSError:  # Linux: the last writer has closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        run_script(stdout=terminal, stderr=terminal, env=env)
    finally:
        os.close(terminal)
        reader.join()
        os.close(main)
    return b"".join(chunks).decode()


def test_a_terminal_gets_a_live_bar_and_keeps_the_lines():
    out = run_in_terminal(TERM="xterm-256color", COLUMNS="100")
    assert "\x1b[2K" in out  # the bar is redrawn in its place
    assert "images/s" in out
    assert "100%" in out
    for epoch in (1, 2, 3):
        assert out.count(f"epoch {epoch}/3  loss ") == 1  # its line, with two blanks; the bar's has one
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1  # the cursor comes back
    assert out.splitlines()[-1].endswith("done")


def test_a_dumb_terminal_gets_plain_lines():
    out = run_in_terminal(TERM="dumb")
    assert "\x1b" not in out
    assert len(out.splitlines()) == 4


def test_the_bar_is_redrawn_ten_times_a_second_at_most(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    shown = []

    class Bar(progress.LiveBar):
        def _show(self, trainer, numbers):
            super()._show(trainer, numbers)
            shown.append(clock[0])

        def step_finished(self, trainer, loss):
            clock[0] += 0.003
            super().step_finished(trainer, loss)

    xc.Trainer(Spy(), numbered(1000), epochs=1, batch_size=1, progress=Bar()).run()
    gaps = np.diff(shown[:-1])  # the last one tells that the evaluation begins
    assert len(gaps) > 20
    assert gaps.min() >= 0.1
    assert gaps.max() < 0.11


# ----------------------------------------------------------------------------------------------------------------------
# The book's trainer
# ----------------------------------------------------------------------------------------------------------------------


def book_trainer(digits, network=None, **options):
    (x_train, t_train), (x_test, t_test) = digits
    return BookTrainer(network or small_net(), x_train, t_train, x_test, t_test, **{"verbose": False, **options})


@pytest.mark.parametrize(("mini_batch_size", "steps"), [(100, 3), (128, 2), (30, 9), (1000, 1)])
def test_the_books_lists_have_one_entry_a_step_and_one_an_epoch(digits, mini_batch_size, steps):
    trainer = book_trainer(digits, epochs=3, mini_batch_size=mini_batch_size)
    trainer.train()
    assert len(trainer.train_loss_list) == 3 * steps
    assert len(trainer.train_acc_list) == len(trainer.test_acc_list) == 3
    assert (trainer.iter_per_epoch, trainer.max_iter) == (steps, 3 * steps)
    assert (trainer.current_iter, trainer.current_epoch, trainer.train_size) == (3 * steps, 3, 250)
    assert trainer.test_acc_list[-1] == trainer.network.accuracy(*digits[1])


def test_the_book_trains_as_the_engine_does(digits):
    book_network, network = small_net(), small_net()
    np.random.seed(8)
    trainer = book_trainer(
        digits, book_network, epochs=2, optimizer="Adam", optimizer_param={"lr": 0.002}, evaluate_sample_num_per_epoch=40
    )
    trainer.train()
    np.random.seed(8)
    seed = int(np.random.randint(2**31))
    history = quiet(network, *digits, epochs=2, optimizer=xc.Adam(0.002), evaluate_samples=40, seed=seed).run()
    np.testing.assert_equal(book_network.params, network.params)
    assert trainer.train_acc_list == history["train_accuracy"]
    assert trainer.test_acc_list == history["test_accuracy"]


def test_steps_one_by_one(digits):
    trainer = book_trainer(digits, epochs=1)
    for done in (1, 2):
        trainer.train_step()
        assert (trainer.current_iter, trainer.train_acc_list) == (done, [])
    trainer.train_step()
    assert (trainer.current_epoch, len(trainer.train_acc_list)) == (1, 1)
    trainer.train()  # nothing is left
    assert trainer.current_iter == 3


def test_what_the_book_prints(digits, capsys):
    trainer = book_trainer(digits, epochs=2, mini_batch_size=200, verbose=True)
    trainer.train()
    losses, train, test = trainer.train_loss_list, trainer.train_acc_list, trainer.test_acc_list
    assert capsys.readouterr().out.splitlines() == [
        f"train loss:{losses[0]}",
        f"train loss:{losses[1]}",
        f"=== epoch:1, train acc:{train[0]}, test acc:{test[0]} ===",
        f"train loss:{losses[2]}",
        f"train loss:{losses[3]}",
        f"=== epoch:2, train acc:{train[1]}, test acc:{test[1]} ===",
        "=============== Final Test Accuracy ===============",
        f"test acc:{test[1]}",
    ]


def test_quiet_is_quiet(digits, capsys):
    book_trainer(digits, epochs=1).train()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("SGD", book.SGD), ("sgd", book.SGD), ("Momentum", book.Momentum), ("nesterov", book.Nesterov),
        ("AdaGrad", book.AdaGrad), ("ADAGRAD", book.AdaGrad), ("RMSprop", book.RMSprop), ("rmsprop", book.RMSprop),
        ("Adam", book.Adam), ("aDaM", book.Adam),
    ],
)  # fmt: skip
def test_optimizers_by_name(digits, name, optimizer):
    arguments = {"lr": 0.25}
    trainer = book_trainer(digits, optimizer=name, optimizer_param=arguments)
    assert type(trainer.optimizer) is optimizer
    assert trainer.optimizer.lr == 0.25
    assert arguments == {"lr": 0.25}


def test_the_default_rate_is_the_books(digits):
    assert repr(book_trainer(digits).optimizer) == "SGD(lr=0.01)"


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "optimizer must be one of sgd, momentum, nesterov, adagrad, rmsprop, adam .*got 'rmsprpo'",
         {"optimizer": "rmsprpo"}),
        (TypeError, "optimizer must be a name", {"optimizer": xc.SGD()}),
        (TypeError, "optimizer_param=.* does not fit SGD: .*beta", {"optimizer_param": {"beta": 1}}),
        (ValueError, "lr must be a positive number", {"optimizer_param": {"lr": -1}}),
        (ValueError, "epochs must be at least 1, got 0", {"epochs": 0}),
        (ValueError, "mini_batch_size must be at least 1, got 0", {"mini_batch_size": 0}),
        (TypeError, "mini_batch_size must be an integer, got 2.5", {"mini_batch_size": 2.5}),
        (ValueError, "evaluate_sample_num_per_epoch must be at least 1", {"evaluate_sample_num_per_epoch": 0}),
        (TypeError, "verbose must be True or False", {"verbose": "no"}),
    ],
)  # fmt: skip
def test_bad_arguments_of_the_books_trainer(digits, error, message, options):
    with pytest.raises(error, match=message):
        book_trainer(digits, **options)


def test_a_network_of_the_reader_with_the_books_methods_alone():
    class Logistic:
        def __init__(self):
            self.params = {"W": np.zeros((4, 3)), "b": np.zeros(3)}

        def predict(self, x):
            return x @ self.params["W"] + self.params["b"]

        def loss(self, x, t):
            return -np.log(self.probabilities(x)[np.arange(len(x)), t]).mean()

        def probabilities(self, x):
            exponentials = np.exp(self.predict(x))
            return exponentials / exponentials.sum(axis=1, keepdims=True)

        def gradient(self, x, t):
            slope = (self.probabilities(x) - np.eye(3)[t]) / len(x)
            return {"W": x.T @ slope, "b": slope.sum(axis=0)}

        def accuracy(self, x, t):
            return (self.predict(x).argmax(axis=1) == t).mean()

    rng = np.random.default_rng(0)
    t = np.arange(90) % 3
    x = rng.standard_normal((90, 4)) + 3 * np.eye(3, 4)[t]
    trainer = BookTrainer(Logistic(), x, t, x, t, epochs=5, mini_batch_size=8, optimizer_param={"lr": 0.5}, verbose=False)
    trainer.train()
    assert len(trainer.train_loss_list) == 5 * 12
    np.testing.assert_allclose(trainer.train_loss_list[0], np.log(3))  # of the first batch, before the first update
    assert trainer.test_acc_list[-1] > 0.9
    assert trainer.network.params["W"].dtype == np.float64


def test_numpys_seed_decides_the_books_order(digits):
    losses = []
    for _ in range(2):
        np.random.seed(11)
        trainer = book_trainer(digits, epochs=1, mini_batch_size=50)
        trainer.train()
        losses.append(trainer.train_loss_list)
    assert losses[0] == losses[1]
