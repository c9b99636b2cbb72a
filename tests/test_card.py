"""The ``cuda`` device on a stand-in for CuPy: nothing is moved or waited for that need not be, and all results are those of
``cudasim``, bit for bit.

The stand-in (``stand_in/cupy``) has arrays that never turn into NumPy arrays by themselves, counts what is read from a card
and can forbid it, copies on other streams as late as it may, and has two cards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpconv as xc
from xpconv.scratch import functions, layers
from xpconv.scratch import optimizer as book
from xpconv.training import trainer as training

# ----------------------------------------------------------------------------------------------------------------------
# Public functions
# ----------------------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 4, 7, 6), np.float32)
W = RANDOM.standard_normal((6, 2, 3, 2), np.float32)
B = RANDOM.standard_normal(6, np.float32)
DY = RANDOM.standard_normal((2, 6, 5, 5), np.float32)
POOLED = RANDOM.standard_normal((2, 4, 3, 3), np.float32)
ADAPTED = RANDOM.standard_normal((2, 4, 5, 5), np.float32)


def pooled_and_back(x: Any, dy: Any, device: str) -> Any:
    y, indices = xc.max_pool2d(x, 2, return_indices=True, device=device)
    dx = xc.max_pool2d_backward(dy, indices, x.shape, 2, device=device)
    return y, indices, dx, xc.max_unpool2d(y, indices, 2, output_size=x.shape[-2:], device=device)


def adapted_and_back(x: Any, dy: Any, device: str) -> Any:
    y, indices = xc.adaptive_max_pool2d(x, 5, return_indices=True, device=device)
    return y, indices, xc.adaptive_max_pool2d_backward(dy, indices, x.shape, device=device)


def globally_and_back(x: Any, device: str) -> Any:
    y, indices = xc.global_max_pool2d(x, return_indices=True, device=device)
    return y, indices, xc.global_max_pool2d_backward(y, indices, x.shape, device=device)


CALLS: dict[str, Callable[..., Any]] = {
    "conv2d": lambda at, to: xc.conv2d(to(X), to(W), to(B), groups=2, device=at),
    "conv2d of bytes": lambda at, to: xc.conv2d(to(np.abs(X * 9).astype(np.uint8)), to(W), groups=2, device=at),
    "conv2d of lists": lambda at, to: xc.conv2d(to(X), to(W), to(np.arange(6) % 2 == 0), groups=2, device=at),
    "conv2d_backward_input": lambda at, to: xc.conv2d_backward_input(to(DY), to(W), X.shape, groups=2, device=at),
    "conv2d_backward_weight": lambda at, to: xc.conv2d_backward_weight(to(X), to(DY), W.shape, groups=2, device=at),
    "conv_transpose2d": lambda at, to: xc.conv_transpose2d(to(DY), to(W), to(B[:4]), groups=2, device=at),
    "max_pool2d": lambda at, to: xc.max_pool2d(to(X), device=at),
    "max_pool2d and back": lambda at, to: pooled_and_back(to(X), to(POOLED), at),
    "max_pool2d of one image": lambda at, to: pooled_and_back(to(X[0]), to(POOLED[0]), at),
    "avg_pool2d": lambda at, to: xc.avg_pool2d(to(X), 3, stride=2, padding=1, device=at),
    "avg_pool2d_backward": lambda at, to: xc.avg_pool2d_backward(to(POOLED), X.shape, device=at),
    "adaptive_avg_pool2d": lambda at, to: xc.adaptive_avg_pool2d(to(X), (5, 4), device=at),
    "adaptive_avg_pool2d_backward": lambda at, to: xc.adaptive_avg_pool2d_backward(to(ADAPTED), X.shape, device=at),
    "adaptive_max_pool2d and back": lambda at, to: adapted_and_back(to(X), to(ADAPTED), at),
    "global_avg_pool2d": lambda at, to: xc.global_avg_pool2d(to(X), device=at),
    "global_avg_pool2d_backward": lambda at, to: xc.global_avg_pool2d_backward(to(X[..., 0, 0]), X.shape, device=at),
    "global_max_pool2d and back": lambda at, to: globally_and_back(to(X), at),
    "im2col": lambda at, to: xc.im2col(to(X), 2, device=at),
    "col2im": lambda at, to: xc.col2im(to(np.ones((60, 16), np.float32)), X.shape, 2, device=at),
}


def test_every_public_function_is_called() -> None:
    called = {name.partition(" ")[0] for name in CALLS} | {"max_pool2d_backward", "max_unpool2d"}
    called |= {"adaptive_max_pool2d_backward", "global_max_pool2d_backward"}
    assert called == {name for name in xc.functional.__all__ if callable(getattr(xc, name))}


def as_parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", CALLS)
def test_a_function_waits_for_nothing_and_gives_the_bits_of_the_simulator(name: str, cupy: Any) -> None:
    expected = as_parts(CALLS[name]("cudasim", lambda x: x))
    with cupy.traffic.forbid_waiting():
        given = as_parts(CALLS[name]("cuda", cupy.asarray))
        followed = as_parts(CALLS[name](None, cupy.asarray))
    for parts in (given, followed):
        assert all(type(part) is cupy.ndarray and part.device.id == 0 for part in parts)
        for part, wanted in zip(parts, expected, strict=True):
            np.testing.assert_array_equal(part.get(), wanted, strict=True)


@pytest.mark.parametrize("name", CALLS)
def test_a_function_computes_on_the_card_of_its_arrays(name: str, cupy: Any) -> None:
    def on_the_second(x: Any) -> Any:
        with cupy.cuda.Device(1):
            return cupy.asarray(x)

    assert all(part.device.id == 1 for part in as_parts(CALLS[name](None, on_the_second)))
    assert cupy._current.stack == [cupy.cuda.Device(0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cupy, indices: indices * 0 + 41, "indices must lie inside their windows; 72 of them do not"),
        (lambda cupy, indices: indices - 9, "indices must lie in an image of 42 pixels, 0 to 41, got values from -9 to"),
        (
            lambda cupy, indices: xc.max_pool2d(cupy.asarray(X), (3, 2), stride=2, return_indices=True)[1],
            "indices must lie inside their windows",
        ),
    ],
    ids=["of the last pixel", "outside", "of another pooling"],
)
def test_indices_of_someone_else_are_looked_at(change: Callable[[Any, Any], Any], message: str, cupy: Any) -> None:
    x = X.copy()
    x[0, 0, 2] = 9  # the other pooling's winners lie in the third row
    _, indices = xc.max_pool2d(cupy.asarray(x), 2, return_indices=True)
    dy = cupy.asarray(POOLED)
    before = cupy.traffic.downloads
    expected = xc.max_pool2d_backward(dy, indices, X.shape, 2)
    assert cupy.traffic.downloads == before
    np.testing.assert_array_equal(xc.max_pool2d_backward(dy, indices.copy(), X.shape, 2).get(), expected.get())
    with pytest.raises(ValueError, match=message):
        xc.max_pool2d_backward(dy, change(cupy, indices), X.shape, 2)


def test_indices_that_may_lie_outside_the_result_are_looked_at(cupy: Any) -> None:
    x = np.zeros((1, 1, 3, 5), np.float32)
    x[0, 0, 1, 3] = 1
    y, indices = xc.max_pool2d(cupy.asarray(x), 2, return_indices=True)
    with pytest.raises(ValueError, match="indices must lie in an image of 8 pixels, 0 to 7, got values from 0 to 8"):
        xc.max_unpool2d(y, indices, 2)


def test_indices_are_forgotten_with_their_array(cupy: Any) -> None:
    _, indices = xc.max_pool2d(cupy.asarray(X), 2, return_indices=True)
    known = len(xc.functional._own_indices._known)
    del indices
    assert len(xc.functional._own_indices._known) == known - 1


def test_integers_too_wide_for_the_dtype_are_looked_at(cupy: Any) -> None:
    with pytest.raises(ValueError, match="w holds integers from 1 to 16777217"):
        xc.conv2d(cupy.asarray(X), cupy.asarray(np.array([[[[1]], [[2**24 + 1]]]] * 2)), groups=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cupy: xc.conv2d(cupy.asarray(X), W), "conv2d: the arrays live on different devices: cuda:0 and numpy"),
        (lambda cupy: xc.conv2d(X, W, device="cuda"), "device 'cuda:0' computes on CuPy arrays but was given a NumPy array"),
        (lambda cupy: xc.max_pool2d(cupy.asarray(X), device="numpy"), "live on 'cuda:0'"),
        (lambda cupy: xc.max_pool2d(cupy.asarray(X), device="cudasim"), "device='cudasim' was named but the arrays live on"),
        (lambda cupy: xc.max_pool2d(cupy.asarray(X), device="cuda:1"), "device='cuda:1' was named but the arrays live on"),
        (
            lambda cupy: xc.max_pool2d_backward(cupy.asarray(POOLED), np.zeros(POOLED.shape, int), X.shape),
            "max_pool2d_backward: indices: device 'cuda:0' computes on CuPy arrays",
        ),
        (
            lambda cupy: xc.SGD().update({"W": cupy.asarray(W)}, {"W": W}),
            "the arrays live on different devices: cuda:0 and numpy",
        ),
    ],
)
def test_nothing_is_moved_silently(call: Callable[[Any], Any], message: str, cupy: Any) -> None:
    with pytest.raises(TypeError, match=message):
        call(cupy)


def test_arrays_are_moved_where_that_is_asked_for(cupy: Any) -> None:
    there = xc.asarray(X, device="cuda:1")
    assert (type(there), there.device.id) == (cupy.ndarray, 1)
    assert xc.asarray(there) is there
    assert xc.asarray(there, device="cuda:1") is there
    back = xc.asarray(there, device="cuda:0", dtype=np.float64)
    assert (back.device.id, back.dtype) == (0, np.float64)
    for host in (xc.to_numpy(back), xc.asarray(there, device="cudasim"), xc.asarray(there, device="numpy")):
        assert type(host) is np.ndarray
        np.testing.assert_array_equal(host, X)


# ----------------------------------------------------------------------------------------------------------------------
# Layers and networks
# ----------------------------------------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Callable[..., Any], np.ndarray[Any, Any]]] = {
    "Relu": (lambda to, device: layers.Relu(device), X),
    "Sigmoid": (lambda to, device: layers.Sigmoid(device), X),
    "Affine": (lambda to, device: layers.Affine(to(W.reshape(36, 2)[:28]), to(B[:2]), device), X[:, :1, :, :4]),
    "Dropout": (lambda to, device: layers.Dropout(0.5, seed=3, device=device), X),
    "BatchNormalization": (lambda to, device: layers.BatchNormalization(to(B[:4]), to(B[1:5]), device=device), X),
    "BatchNormalization of numbers": (lambda to, device: layers.BatchNormalization(1.5, 0.5, device=device), X[:, :, 0, 0]),
    "Convolution": (lambda to, device: layers.Convolution(to(W), to(B), pad=1, device=device), X[:, :2]),
    "Convolution with one bias": (lambda to, device: layers.Convolution(to(W), to(B[:1]), device=device), X[:, :2]),
    "Convolution with a number": (lambda to, device: layers.Convolution(to(W), 0.5, device=device), X[:, :2]),
    "Pooling": (lambda to, device: layers.Pooling(2, 2, device=device), X),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "followed"])
def test_a_layer_waits_for_nothing_and_gives_the_bits_of_the_simulator(name: str, named: bool, cupy: Any) -> None:
    make, x = LAYERS[name]

    def run(to: Callable[[Any], Any], device: str | None) -> list[Any]:
        layer = make(to, device)
        y = layer.forward(to(x))
        dy = to(np.linspace(-1, 1, math.prod(y.shape), dtype=np.float32).reshape(y.shape))
        parts = [y, layer.backward(dy)]
        return parts + [value for key in ("dW", "db", "dgamma", "dbeta") if (value := getattr(layer, key, None)) is not None]

    expected = run(lambda values: values, "cudasim")
    with cupy.traffic.forbid_waiting():
        given = run(cupy.asarray, "cuda" if named else None)
    for part, wanted in zip(given, expected, strict=True):
        assert type(part) is cupy.ndarray
        np.testing.assert_array_equal(part.get(), wanted)


def test_the_loss_is_read_by_who_wants_it(cupy: Any) -> None:
    scores, labels = RANDOM.standard_normal((5, 3), np.float32), np.arange(5) % 3
    for t in (labels, np.eye(3, dtype=np.float32)[labels]):
        last = layers.SoftmaxWithLoss()
        with cupy.traffic.forbid_waiting():
            loss = last.forward(cupy.asarray(scores), t)
            dx = last.backward()
        host = layers.SoftmaxWithLoss("cudasim")
        assert float(loss) == host.forward(scores, t) == functions.softmax_loss(cupy.asarray(scores), t)
        np.testing.assert_array_equal(dx.get(), host.backward())


def test_labels_of_a_card_are_looked_at(cupy: Any) -> None:
    scores = cupy.asarray(np.zeros((5, 3), np.float32))
    assert float(layers.SoftmaxWithLoss().forward(scores, cupy.asarray(np.arange(5) % 3))) == pytest.approx(math.log(3))
    with pytest.raises(ValueError, match="labels must be whole numbers from 0 to 2, got 3 at sample 3"):
        layers.SoftmaxWithLoss().forward(scores, cupy.asarray(np.arange(5)))


FUNCTIONS = ("relu", "relu_grad", "sigmoid", "sigmoid_grad", "softmax", "step_function", "cross_entropy_error")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_book(name: str, cupy: Any) -> None:
    x = np.abs(X[:, :, 0, 0]) / 9
    arguments = (np.array([0, 3]),) if name == "cross_entropy_error" else ()
    expected = getattr(functions, name)(x, *arguments, device="numpy")
    given = getattr(functions, name)(cupy.asarray(x), *arguments)
    np.testing.assert_allclose(xc.to_numpy(given), expected, rtol=1e-6)


def test_an_optimizer_waits_for_nothing(cupy: Any) -> None:
    rules = [
        *(book.SGD, book.Momentum, book.Nesterov, book.AdaGrad, book.RMSprop, book.Adam),
        partial(xc.SGD, momentum=0.9, nesterov=True, clipnorm=1.0),
        partial(xc.Adam, amsgrad=True, clipvalue=0.1),
        partial(xc.AdamW, xc.optimizers.schedules.CosineDecay(0.1, 10), global_clipnorm=1.0),
        partial(xc.RMSprop, momentum=0.5, centered=True),
        xc.Adagrad,
    ]
    for rule in rules:
        host, card = {"W": W.copy()}, {"W": xc.asarray(W.copy(), "cuda:1")}
        first, second = rule(), rule()
        for _ in range(2):
            first.update(host, {"W": W}, device="cudasim")
            gradient = xc.asarray(W, "cuda:1")
            with cupy.traffic.forbid_waiting():
                second.update(card, {"W": gradient})
        np.testing.assert_array_equal(xc.to_numpy(card["W"]), host["W"])


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------

IMAGES, LABELS = RANDOM.standard_normal((70, 1, 8, 8), np.float32), RANDOM.integers(0, 4, 70)


def convnet(device: str) -> xc.SimpleConvNet:
    return xc.SimpleConvNet((1, 8, 8), {"filter_num": 3, "filter_size": 3}, 6, 4, device=device, seed=1)


def normalised(device: str) -> Any:
    from xpconv.scratch.multi_layer_net_extend import MultiLayerNetExtend

    return MultiLayerNetExtend(
        4, [6, 5], 4, weight_decay_lambda=0.1, use_dropout=True, use_batchnorm=True, device=device, seed=1
    )


class Recorder(xc.training.Progress):
    """Keeps the losses as they are given, and lets nobody wait from the second step of an epoch to its last."""

    def __init__(self, cupy: Any) -> None:
        self.losses: list[Any] = []
        self.cupy, self.guard = cupy, None

    def step_finished(self, trainer: xc.Trainer, loss: Any) -> None:
        self.losses.append(loss)
        if trainer.steps_done == 1:
            self.guard = self.cupy.traffic.forbid_waiting()
            self.guard.__enter__()
        if trainer.steps_done == trainer.steps_per_epoch:
            self.release()

    def release(self) -> None:
        if self.guard is not None:
            self.guard.__exit__(None, None, None)
            self.guard = None

    def run_finished(self, trainer: xc.Trainer) -> None:
        self.release()


def trained(device: str, cupy: Any, make: Callable[[str], Any] = convnet, images: Any = IMAGES, **options: Any) -> Any:
    if make is normalised:
        images = images.reshape(70, -1)[:, :4]
    recorder = Recorder(cupy)
    options = {"epochs": 2, "batch_size": 16, "seed": 5, "progress": recorder, **options}
    trainer = xc.Trainer(make(device), (images, LABELS), (images[:20], LABELS[:20]), **options)
    return trainer, recorder


def timeless(history: dict[str, Any]) -> dict[str, Any]:
    return {name: column for name, column in history.items() if name not in ("seconds", "images_per_second")}


def assert_same_parameters(network: Any, other: Any) -> None:
    for name, value in {**other.params, **other.state_arrays()}.items():
        mine = {**network.params, **network.state_arrays()}[name]
        np.testing.assert_array_equal(xc.to_numpy(mine), xc.to_numpy(value), err_msg=name)


@pytest.mark.parametrize("make", [convnet, normalised])
def test_no_step_of_a_training_waits_and_all_are_those_of_the_simulator(make: Callable[[str], Any], cupy: Any) -> None:
    there, told = trained("cuda:1", cupy, make)
    before = cupy.traffic.downloads
    there.run()
    assert cupy.traffic.downloads - before == 3 * 2  # an epoch: its steps, and both evaluations
    here, expected = trained("cudasim", cupy, make)
    here.run()
    assert timeless(there.history) == timeless(here.history)
    assert [float(loss) for loss in told.losses] == expected.losses
    assert all(type(loss) is float for loss in expected.losses)
    assert_same_parameters(there.network, here.network)
    assert all(param.device.id == 1 for param in there.network.params.values())


def test_a_long_epoch_is_looked_at_in_between(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seldom, _ = trained("cuda", cupy, progress=False)
    seldom.run()
    monkeypatch.setattr(training, "STEPS_BETWEEN_LOOKS", 2)
    often, _ = trained("cuda", cupy, progress=False)
    before = cupy.traffic.downloads
    often.run()
    assert cupy.traffic.downloads - before == 2 * (3 + 2)  # after steps 2, 4 and 5, and both evaluations
    assert timeless(often.history) == timeless(seldom.history)
    assert_same_parameters(often.network, seldom.network)


@pytest.mark.parametrize("images", ["uint8", "float64", "a file", "a card"])
def test_images_from_anywhere(images: str, cupy: Any, tmp_path: Path) -> None:
    pixels = (np.abs(IMAGES) * 50).astype(np.uint8)
    kept: Any = {"uint8": pixels, "float64": pixels.astype(np.float64)}.get(images)
    if images == "a file":
        kept = np.memmap(tmp_path / "images", np.uint8, "w+", shape=pixels.shape)
        kept[...] = pixels
    if images == "a card":
        kept = cupy.asarray(pixels)
    there, _ = trained("cuda", cupy, images=kept)
    here, _ = trained("cudasim", cupy, images=pixels)
    there.run()
    here.run()
    assert timeless(there.history) == timeless(here.history)
    assert_same_parameters(there.network, here.network)


def test_a_step_of_ones_own_loop_gives_its_loss_and_raises_at_once(cupy: Any) -> None:
    there, _ = trained("cuda", cupy, progress=False)
    here, _ = trained("cudasim", cupy, progress=False)
    for _ in range(7):
        loss = there.step()
        assert type(loss) is float
        assert loss == here.step()
    there.network.params["W1"][...] = np.float32(np.nan)
    with pytest.raises(xc.errors.TrainingError, match="the loss is nan in epoch 2, step 3 of 5"):
        there.step()


@pytest.mark.parametrize("make", [convnet, normalised])
@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_a_step_that_goes_wrong_is_found_and_named_as_anywhere(
    every: int, make: Callable[[str], Any], cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "STEPS_BETWEEN_LOOKS", every)
    images = IMAGES.copy()
    images[37] = 3e38
    answers = []
    for device in ("cuda", "cudasim"):
        trainer, _ = trained(device, cupy, make, images, progress=False, optimizer=xc.Adam(0.01))
        with np.errstate(all="ignore"), pytest.raises(xc.errors.TrainingError) as caught:
            trainer.run()
        answers.append((trainer, str(caught.value)))
    (there, message), (here, expected) = answers
    assert message == expected
    assert "step" in message
    assert (there.epoch, there.steps_done) == (here.epoch, here.steps_done)
    assert there.steps_done > 0
    assert there.mean_loss == here.mean_loss
    assert_same_parameters(there.network, here.network)
    state, wanted = there.optimizer.state_dict(), here.optimizer.state_dict()
    assert state.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(xc.to_numpy(state[name]), value)


def test_whoever_reads_the_mean_loss_is_told_what_went_wrong(cupy: Any) -> None:
    images = IMAGES.copy()
    images[37] = 3e38

    class Looking(xc.training.Progress):
        def step_finished(self, trainer: xc.Trainer, loss: Any) -> None:
            assert math.isfinite(trainer.mean_loss)
            assert trainer.images_per_second > 0

    trainer, _ = trained("cuda", cupy, images=images, progress=Looking())
    with pytest.raises(xc.errors.TrainingError, match=r"the parameters are those before this step"):
        trainer.run()


@pytest.mark.parametrize("on_a_card", [False, True])
def test_an_image_that_is_not_finite_is_refused_in_its_turn(on_a_card: bool, cupy: Any) -> None:
    images = IMAGES.copy()
    images[33, 0, 2, 1] = np.inf
    if on_a_card:  # looked at when the trainer is made
        with pytest.raises(xc.errors.TrainingError, match="image 33 of train holds NaN, or infinity in float32"):
            trained("cuda", cupy, images=cupy.asarray(images))
        return
    there, _ = trained("cuda", cupy, images=images, shuffle=False)
    here, _ = trained("cudasim", cupy, images=images, shuffle=False)
    for trainer in (there, here):
        with pytest.raises(xc.errors.TrainingError, match="image 33 of train holds NaN, or infinity in float32"):
            trainer.run()
        assert trainer.steps_done == 2
    assert_same_parameters(there.network, here.network)


def test_an_evaluation_that_is_not_finite_is_told(cupy: Any) -> None:
    trainer, _ = trained("cuda", cupy)
    trainer.network.params["b3"][...] = np.float32(np.nan)
    with pytest.raises(xc.errors.TrainingError, match="the network's scores hold NaN or infinity before epoch 1"):
        trainer.evaluate()


def test_accuracy_reads_once(cupy: Any) -> None:
    network = convnet("cuda")
    before = cupy.traffic.downloads
    accuracy = network.accuracy(IMAGES, LABELS, batch_size=9)
    assert cupy.traffic.downloads == before + 1
    assert accuracy == convnet("cudasim").accuracy(IMAGES, LABELS, batch_size=70)
    network.params["b3"][...] = np.float32(np.nan)
    with pytest.raises(xc.errors.TrainingError, match="the scores of samples 0 to 8 hold NaN"):
        network.accuracy(IMAGES, LABELS, batch_size=9)


@pytest.mark.parametrize("make", [convnet, normalised])
def test_a_training_goes_on_from_a_checkpoint(make: Callable[[str], Any], cupy: Any, tmp_path: Path) -> None:
    whole, _ = trained("cuda", cupy, make)
    whole.run()
    first, _ = trained("cuda", cupy, make, progress=False)
    for _ in range(7):
        first.step()
    first.save_checkpoint(tmp_path / "half")
    second, _ = trained("cuda", cupy, make)
    second.load_checkpoint(tmp_path / "half")
    second.run()
    assert timeless(second.history) == timeless(whole.history)
    assert_same_parameters(second.network, whole.network)


def test_a_network_is_saved_and_loaded(cupy: Any, tmp_path: Path) -> None:
    network, other = normalised("cuda:1"), normalised("cudasim")
    network.gradient(IMAGES.reshape(70, -1)[:, :4], LABELS)
    network.save(tmp_path / "net.safetensors")
    other.load(tmp_path / "net.safetensors")
    assert_same_parameters(network, other)
    again = normalised("cuda")
    again.load(tmp_path / "net.safetensors")
    assert_same_parameters(again, network)


def test_the_books_trainer_keeps_plain_numbers(cupy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from xpconv.scratch.trainer import Trainer

    lists = []
    for device, verbose in (("cuda", False), ("cuda", True), ("cudasim", False)):
        np.random.seed(4)
        book = Trainer(convnet(device), IMAGES, LABELS, IMAGES[:20], LABELS[:20], epochs=2, mini_batch_size=16, verbose=verbose)
        book.train()
        assert all(type(loss) is float for loss in book.train_loss_list)
        lists.append((book.train_loss_list, book.train_acc_list, book.test_acc_list))
    assert lists[0] == lists[1] == lists[2]
    assert f"train loss:{lists[0][0][0]}\n" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [False, True], ids=["classes", "rows of probabilities"])
def test_prefetching_never_reads_a_buffer_too_early_or_too_late(rows: bool, cupy: Any) -> None:
    from xpconv.training.data import LabelledImages

    labels = np.eye(4, dtype=np.float32)[LABELS] if rows else LABELS
    data = LabelledImages("train", (IMAGES, labels), convnet("cuda"))
    selections = [slice(first, first + 16) for first in range(0, 70, 16)]
    kept = []
    uploads = cupy.traffic.uploads
    with cupy.traffic.forbid_waiting():
        for number, (x, t) in enumerate(data.batches(selections)):
            assert cupy.traffic.uploads - uploads == 2 * min(number + 2, 5)  # images and labels, one batch ahead
            kept.append((x, t))
    for (x, t), selection in zip(kept, selections, strict=True):
        np.testing.assert_array_equal(x.get(), IMAGES[selection])
        np.testing.assert_array_equal(t.get(), labels[selection])
