"""Checkpoints: a training that goes on from one must not be told from one that never stopped."""

import errno
import json
import signal

import numpy as np
import pytest
import safetensors.numpy

import xpconv as xc
from xpconv import files
from xpconv.errors import ParameterFileError
from xpconv.scratch import optimizer as book
from xpconv.scratch.multi_layer_net_extend import MultiLayerNetExtend
from xpconv.training import Progress

EPOCHS, BATCH_SIZE = 3, 32  # of 100 images: three steps of 32 and one of 4

OPTIMIZERS = {
    "SGD": lambda: xc.SGD(0.1),
    "SGD with momentum": lambda: xc.SGD(0.05, momentum=0.8),
    "Adagrad": lambda: xc.Adagrad(0.05),
    "RMSprop": lambda: xc.RMSprop(0.01, momentum=0.5, centered=True),
    "Adam": lambda: xc.Adam(xc.optimizers.schedules.CosineDecay(0.02, 12), amsgrad=True),
    "AdamW": lambda: xc.AdamW(0.01, global_clipnorm=1.0),
    "the book's AdaGrad": lambda: book.AdaGrad(0.05),
    "the book's Adam": lambda: book.Adam(0.01),
}


def convolutional(device="numpy", dtype=np.float32):
    return xc.SimpleConvNet(
        (1, 12, 12), {"filter_num": 3, "filter_size": 3}, hidden_size=8, output_size=4, seed=1, device=device, dtype=dtype
    )


def normalised(**options):
    return MultiLayerNetExtend(144, [8, 8], 4, use_dropout=True, use_batchnorm=True, seed=1, **options)


def of_the_global_generator(**options):
    np.random.seed(77)
    return MultiLayerNetExtend(144, [8, 8], 4, use_dropout=True, use_batchnorm=True, **options)


NETWORKS = {"convolutional": convolutional, "normalised": normalised, "of the global generator": of_the_global_generator}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(9)
    t = rng.integers(0, 4, 140)
    x = (rng.random((140, 1, 12, 12)) + t.reshape(-1, 1, 1, 1) * np.linspace(0, 0.2, 12)).astype(np.float32)
    return (x[:100], t[:100]), (x[100:], t[100:])


def trainer_of(data, network=None, **options):
    network = network or convolutional()
    if isinstance(network, MultiLayerNetExtend):
        data = [(x.reshape(len(x), -1), t) for x, t in data]
    defaults = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "optimizer": xc.Adam(0.01), "seed": 5, "progress": False}
    return xc.Trainer(network, *data, **{**defaults, **options})


def everything(trainer):
    """All that a training must have in common with one that never stopped; times are its own."""
    history = {name: column for name, column in trainer.history.items() if name not in ("seconds", "images_per_second")}
    state = trainer.network.state_arrays()
    arrays = {"params": trainer.network.params, "optimizer": trainer.optimizer.state_dict(), "state": state}
    return history, {group: {name: xc.to_numpy(a) for name, a in some.items()} for group, some in arrays.items()}


def assert_same(trainer, expected):
    np.testing.assert_equal(everything(trainer), expected)


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


# ----------------------------------------------------------------------------------------------------------------------
# Going on
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 8, 11, 12])
@pytest.mark.parametrize("network", NETWORKS)
def test_going_on_gives_the_same_bits(tmp_path, data, network, steps):
    uninterrupted = trainer_of(data, NETWORKS[network]())
    uninterrupted.run()
    expected = everything(uninterrupted)

    path = tmp_path / "checkpoint"
    stopped = trainer_of(data, NETWORKS[network]())
    for _ in range(steps):
        stopped.step()
    stopped.save_checkpoint(path)
    stopped.step()  # what happens after it is not in it

    continued = trainer_of(data, NETWORKS[network]())
    np.random.random(17)  # the process that goes on has drawn other numbers
    continued.load_checkpoint(path)
    assert (continued.epoch, continued.steps_done) == divmod(steps, 4)
    continued.run()
    assert_same(continued, expected)
    assert len(continued.history["seconds"]) == EPOCHS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_with_every_optimizer(tmp_path, data, device, dtype, optimizer):
    def new():
        return trainer_of(data, convolutional(device, dtype), optimizer=OPTIMIZERS[optimizer](), evaluate_samples=20)

    uninterrupted, stopped, continued = new(), new(), new()
    uninterrupted.run()
    for _ in range(6):
        stopped.step()
    stopped.save_checkpoint(tmp_path / "c")
    continued.load_checkpoint(tmp_path / "c")
    continued.run()
    assert_same(continued, everything(uninterrupted))


def test_going_on_without_a_seed(tmp_path, data):
    stopped, continued = trainer_of(data, seed=None), trainer_of(data, seed=None)
    for _ in range(6):
        stopped.step()
    stopped.save_checkpoint(tmp_path / "c")
    stopped.run()
    continued.load_checkpoint(tmp_path / "c")
    continued.run()
    assert_same(continued, everything(stopped))


def test_going_on_twice_and_in_one_trainer(tmp_path, data):
    trainer = trainer_of(data)
    trainer.step()
    trainer.save_checkpoint(tmp_path / "c")
    trainer.run()
    expected = everything(trainer)
    for _ in range(2):
        trainer.load_checkpoint(tmp_path / "c")
        assert (trainer.epoch, trainer.steps_done) == (0, 1)
        trainer.run()
        assert_same(trainer, expected)


def test_loading_keeps_the_networks_own_arrays(tmp_path, data):
    trainer = trainer_of(data)
    trainer.step()
    trainer.save_checkpoint(tmp_path / "c")
    other = trainer_of(data)
    before = dict(other.network.params)
    other.load_checkpoint(tmp_path / "c")
    assert all(other.network.params[name] is array for name, array in before.items())


def test_a_finished_training_can_be_given_more_epochs(tmp_path, data):
    short = trainer_of(data, epochs=1)
    short.run()
    short.save_checkpoint(tmp_path / "c")
    longer, whole = trainer_of(data), trainer_of(data)
    longer.load_checkpoint(tmp_path / "c")
    longer.run()
    whole.run()
    assert_same(longer, everything(whole))


def test_the_place_in_the_epoch_and_its_times_go_on(tmp_path, data):
    stopped = trainer_of(data)
    losses = [stopped.step() for _ in range(6)]
    stopped.save_checkpoint(tmp_path / "c")
    continued = trainer_of(data)
    continued.load_checkpoint(tmp_path / "c")
    assert continued.mean_loss == stopped.mean_loss == pytest.approx((losses[4] + losses[5]) / 2)
    assert continued.images_per_second == stopped.images_per_second
    assert continued.history == stopped.history


def test_a_checkpoint_is_written_after_every_epoch(tmp_path, data):
    path = tmp_path / "c"
    epochs = []

    class Looks(Progress):
        def run_started(self, trainer):
            epochs.append(path.exists())

        def step_finished(self, trainer, loss):
            if trainer.steps_done == 1 and trainer.epoch:
                _, metadata = files.load_parameters(path)
                epochs.append(json.loads(metadata["xpconv.checkpoint"])["standing"]["history"]["epoch"])

    trainer_of(data, checkpoint=path, progress=Looks()).run()
    assert epochs == [False, [1], [1, 2]]
    continued = trainer_of(data)
    continued.load_checkpoint(str(path))
    assert continued.epoch == EPOCHS
    assert names_in(tmp_path) == ["c"]


@pytest.fixture
def sigint():
    """SIGINT as a terminal's foreground job has it, however the tests were started."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize("moment", ["step", "evaluation"])
def test_ctrl_c_writes_the_checkpoint(sigint, tmp_path, data, moment):
    class PressesCtrlC(Progress):
        def step_finished(self, trainer, loss):
            if moment == "step" and (trainer.epoch, trainer.steps_done) == (1, 2):
                signal.raise_signal(signal.SIGINT)

        def evaluation_started(self, trainer):
            if moment == "evaluation" and trainer.epoch == 1:
                signal.raise_signal(signal.SIGINT)

    stopped = trainer_of(data, checkpoint=tmp_path / "c", progress=PressesCtrlC())
    stopped.run()
    continued, whole = trainer_of(data), trainer_of(data)
    continued.load_checkpoint(tmp_path / "c")
    assert (continued.epoch, continued.steps_done) == (1, 2 if moment == "step" else 4)
    continued.run()
    whole.run()
    assert_same(continued, everything(whole))


# ----------------------------------------------------------------------------------------------------------------------
# What it refuses
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, data):
    """A checkpoint after one epoch and two steps."""
    trainer = trainer_of(data)
    for _ in range(6):
        trainer.step()
    trainer.save_checkpoint(tmp_path / "c")
    return tmp_path / "c"


def assert_refused(trainer, path, *messages, error=ParameterFileError):
    for _ in range(3):
        trainer.step()
    before = everything(trainer), trainer.epoch, trainer.steps_done, trainer.mean_loss
    with pytest.raises(error) as caught:
        trainer.load_checkpoint(path)
    for message in (str(path), *messages):
        assert message in str(caught.value)
    np.testing.assert_equal((everything(trainer), trainer.epoch, trainer.steps_done, trainer.mean_loss), before)
    return str(caught.value)


def with_fewer_images(data):
    (x, t), test = data
    return (x[:90], t[:90]), test


def with_other_labels(data):
    (x, t), test = data
    return (x, (t + 1) % 4), test


class Elsewhere(type(convolutional())):
    pass


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("batch_size was 32, is 16", lambda data: trainer_of(data, batch_size=16)),
        ("seed was 5, is 6", lambda data: trainer_of(data, seed=6)),
        ("seed was 5, is none", lambda data: trainer_of(data, seed=None)),
        ("shuffle was True, is False", lambda data: trainer_of(data, shuffle=False)),
        ("evaluate_samples was none, is 7", lambda data: trainer_of(data, evaluate_samples=7)),
        ("learning_rate was 0.01, is 0.02", lambda data: trainer_of(data, optimizer=xc.Adam(0.02))),
        ("beta_2 was 0.999, is 0.99", lambda data: trainer_of(data, optimizer=xc.Adam(0.01, beta_2=0.99))),
        ("optimizer was Adam, is SGD", lambda data: trainer_of(data, optimizer=xc.SGD(0.01))),
        ("beta_1 was 0.9, is none", lambda data: trainer_of(data, optimizer=xc.SGD(0.01))),
        ("dtype was float32, is float64", lambda data: trainer_of(data, convolutional(dtype=np.float64))),
        ("network was SimpleConvNet, is MultiLayerNetExtend", lambda data: trainer_of(data, normalised())),
        ("shape of the training images was (100, 1, 12, 12), is (90, 1, 12, 12)",
         lambda data: trainer_of(with_fewer_images(data))),
        ("checksum of the training labels was", lambda data: trainer_of(with_other_labels(data))),
        ("shape of the test images was (40, 1, 12, 12), is none", lambda data: trainer_of(data[:1])),
        ("network was SimpleConvNet, is Elsewhere",
         lambda data: trainer_of(data, Elsewhere((1, 12, 12), {"filter_num": 3, "filter_size": 3}, 8, 4))),
        ("W1 has shape (3, 1, 3, 3), expected (5, 1, 3, 3)",
         lambda data: trainer_of(data, xc.SimpleConvNet((1, 12, 12), {"filter_num": 5, "filter_size": 3}, 8, 4))),
    ],
)  # fmt: skip
def test_the_checkpoint_of_another_training_is_refused(saved, data, message, change):
    assert_refused(change(data), saved, message)


def test_all_differences_are_told_at_once(saved, data):
    trainer = trainer_of(data, batch_size=16, seed=6, optimizer=xc.SGD(0.01))
    text = assert_refused(trainer, saved, "batch_size was", "seed was", "optimizer was")
    assert "shuffle" not in text


def test_batch_normalisation_on_one_side_only(tmp_path, data):
    plain = MultiLayerNetExtend(144, [8, 8], 4, use_dropout=True, seed=1)
    source = trainer_of(data, plain)
    source.save_checkpoint(tmp_path / "c")
    assert_refused(trainer_of(data, normalised()), tmp_path / "c", "is missing")


def test_dropout_on_one_side_only(tmp_path, data):
    trainer_of(data, MultiLayerNetExtend(144, [8, 8], 4, seed=1)).save_checkpoint(tmp_path / "c")
    assert_refused(
        trainer_of(data, MultiLayerNetExtend(144, [8, 8], 4, use_dropout=True, seed=1)),
        tmp_path / "c",
        "layers that draw random numbers was (), is (Dropout1, Dropout2)",
    )


def test_no_file(tmp_path, data):
    assert_refused(trainer_of(data), tmp_path / "c", error=FileNotFoundError)


def test_the_parameters_of_a_network_are_no_checkpoint(tmp_path, data):
    convolutional().save(tmp_path / "c")
    assert_refused(trainer_of(data), tmp_path / "c", "is no checkpoint")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_a_truncated_file(saved, data, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    assert_refused(trainer_of(data), saved)


def rewritten(path, change_text=None, change_arrays=None):
    """Change a checkpoint as a fault, or somebody, could: the file itself stays whole."""
    arrays, metadata = files.load_parameters(path)
    text = json.loads(metadata["xpconv.checkpoint"])
    if change_text:
        change_text(text)
    if change_arrays:
        change_arrays(arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"xpconv.checkpoint": json.dumps(text)}))


def test_rewriting_alone_changes_nothing(saved, data):
    rewritten(saved)
    trainer = trainer_of(data)
    trainer.load_checkpoint(saved)
    assert (trainer.epoch, trainer.steps_done) == (1, 2)


@pytest.mark.parametrize("value", [None, 3, [], "x", {"epoch": []}])
@pytest.mark.parametrize("name", ["history", "order", "generators"])
def test_damaged_tables(saved, data, name, value):
    rewritten(saved, lambda text: text["standing"].update({name: value}))
    assert_refused(trainer_of(data), saved, "damaged")


@pytest.mark.parametrize("value", [None, -1, 1.5, True, "2", 5, 10**30, [2]])
def test_damaged_steps(saved, data, value):
    rewritten(saved, lambda text: text["standing"].update(step=value))
    assert_refused(trainer_of(data), saved, "damaged", "step")


@pytest.mark.parametrize("name", ["loss_sum", "seconds"])
@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), [1.0], True])
def test_damaged_sums(saved, data, name, value):
    rewritten(saved, lambda text: text["standing"].update({name: value}))
    assert_refused(trainer_of(data), saved, "damaged")


@pytest.mark.parametrize(
    "change",
    [
        lambda history: history["loss"].clear(),
        lambda history: history["loss"].append(1.0),
        lambda history: history.pop("test_loss"),
        lambda history: history.update(more=[1]),
        lambda history: history.update(epoch=[2]),
        lambda history: history.update(loss=["0.1"]),
        lambda history: history.update(loss=[None]),
        lambda history: history.update(train_accuracy=[[0.5]]),
        lambda history: history.update(seconds=None),
    ],
)
def test_damaged_histories(saved, data, change):
    rewritten(saved, lambda text: change(text["standing"]["history"]))
    assert_refused(trainer_of(data), saved, "damaged", "history")


@pytest.mark.parametrize(
    "change",
    [
        lambda order: order.update(bit_generator="MT19937"),
        lambda order: order["state"].update(state=-1),
        lambda order: order["state"].update(state="1"),
        lambda order: order["state"].pop("inc"),
        lambda order: order.pop("state"),
        lambda order: order.update(state=10**60),
    ],
)
def test_damaged_generators(saved, data, change):
    rewritten(saved, lambda text: change(text["standing"]["order"]))
    assert_refused(trainer_of(data), saved, "damaged")


def test_a_damaged_generator_of_a_layer(tmp_path, data):
    for number, network in enumerate((normalised, of_the_global_generator)):
        path = tmp_path / str(number)
        trainer_of(data, network()).save_checkpoint(path)
        rewritten(path, lambda text: text["standing"]["generators"].update(Dropout1={"bit_generator": "PCG64"}))
        state = np.random.get_state(legacy=False)
        with pytest.raises(ParameterFileError, match="damaged"):
            trainer_of(data, normalised() if network is normalised else network()).load_checkpoint(path)
        if network is normalised:
            np.testing.assert_equal(np.random.get_state(legacy=False), state)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("optimizer/iteration"),
        lambda arrays: arrays.pop("optimizer/momentum/W1"),
        lambda arrays: arrays.pop("parameters/W1"),
        lambda arrays: arrays.update({"optimizer/iteration": np.array(-3)}),
        lambda arrays: arrays.update({"optimizer/iteration": np.array([3])}),
        lambda arrays: arrays.update({"optimizer/iteration": np.array(3.5)}),
        lambda arrays: arrays.update({"optimizer/momentum/W1": np.zeros((2, 2), np.float32)}),
        lambda arrays: arrays.update({"optimizer/velocity/W2": arrays["optimizer/velocity/W2"].astype(np.float64)}),
        lambda arrays: arrays.update({"optimizer/momentum/W9": np.zeros(2, np.float32)}),
        lambda arrays: arrays.update({"parameters/W1": np.zeros((2, 2), np.float32)}),
        lambda arrays: arrays.update({"parameters/W1": arrays["parameters/W1"].astype(np.float64)}),
        lambda arrays: arrays.update({"parameters/W9": np.zeros(2, np.float32)}),
        lambda arrays: arrays.update({"buffers/x": np.zeros(2, np.float32)}),
        lambda arrays: arrays.update({"other": np.zeros(2, np.float32)}),
    ],
)
def test_damaged_arrays(saved, data, change):
    rewritten(saved, change_arrays=change)
    assert_refused(trainer_of(data), saved)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"settings": {}}', '{"settings": [], "standing": {}}', "[" * 100000]
)
def test_a_text_that_is_none(saved, data, text):
    arrays, _ = files.load_parameters(saved)
    saved.write_bytes(safetensors.numpy.save(arrays, {"xpconv.checkpoint": text}))
    assert_refused(trainer_of(data), saved, "damaged")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_checkpoint(saved, data, monkeypatch, error):
    before = saved.read_bytes()

    def full(path):
        raise error

    monkeypatch.setattr(files, "_flush_to_disk", full)
    with pytest.raises(type(error)):
        trainer_of(data).save_checkpoint(saved)
    assert saved.read_bytes() == before
    assert names_in(saved.parent) == ["c"]


def test_the_file_is_plain_safetensors(saved):
    arrays = safetensors.numpy.load_file(saved)
    assert "parameters/W1" in arrays
    assert "optimizer/momentum/W1" in arrays
    assert arrays["optimizer/iteration"] == 6
