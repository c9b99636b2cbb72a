"""Layers, losses, metrics, optimizers and models on the ``cuda`` device, on a stand-in for CuPy; see ``test_card.py``.

What is public must have a row in the tables here. Each row is computed on the second card, where everything must stay, and is
compared with the simulator's bits; nobody may wait for the card but who reads a number.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import xpconv as xc
from xpconv import activations, layers, losses, metrics, optimizers, regularizers
from xpconv.layers.tape import Run

CARD = "cuda:1"
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((3, 7, 6, 4), np.float32)
OTHER_IMAGES = np.where(RANDOM.random(IMAGES.shape) < 0.3, IMAGES, RANDOM.standard_normal(IMAGES.shape, np.float32))
ROWS = RANDOM.standard_normal((5, 8), np.float32)


def public_classes(module: ModuleType, base: type) -> set[type]:
    """What a module offers of a kind; a class of two names counts once."""
    found = {value for name, value in vars(module).items() if not name.startswith("_") and inspect.isclass(value)}
    return {cls for cls in found if issubclass(cls, base) and cls is not base}


def there(array: Any) -> Any:
    return xc.asarray(array, device=CARD)


def kept(array: Any) -> Any:
    return array


def assert_same(given: Any, expected: Any, *, rtol: float = 0.0) -> None:
    """Arrays on the card, and of the simulator: the same bits, or nearly so; NaN where NaN is."""
    __tracebackhide__ = True
    assert type(expected) is np.ndarray
    assert xc.device.card_of(given) == CARD
    assert (given.dtype, given.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(given.get(), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda cupy, x: cupy.maximum(x, ROWS), TypeError),
        (lambda cupy, x: x + ROWS, TypeError),
        (lambda cupy, x: ROWS * x, TypeError),
        (lambda cupy, x: cupy.where(ROWS > 0, x, 0), TypeError),
        (lambda cupy, x: np.asarray(x), TypeError),
        (lambda cupy, x: np.median(x), TypeError),
        (lambda cupy, x: x.sum(where=True), TypeError),
        (lambda cupy, x: x + there(ROWS), ValueError),
        (lambda cupy, x: there(ROWS)[x.argmax(axis=0)], ValueError),
        (lambda cupy, x: float(x.sum()), AssertionError),
        (lambda cupy, x: max(x[0, 0], 1), AssertionError),
        (lambda cupy, x: x[x > 0], AssertionError),
    ],
)
def test_the_stand_in_refuses_what_cupy_refuses(wrong: Any, error: type[Exception], cupy: Any) -> None:
    with cupy.traffic.forbid_waiting(), pytest.raises(error):
        wrong(cupy, cupy.asarray(ROWS))


# ----------------------------------------------------------------------------------------------------------------------
# Layers
# ----------------------------------------------------------------------------------------------------------------------

FIRST = {"data_format": "channels_first"}
PENALIZED = {"kernel_initializer": "he_normal", "kernel_regularizer": "l1_l2", "bias_initializer": "random_normal"}

LAYERS: dict[str, tuple[Callable[..., layers.Layer], Any]] = {
    "Activation": (partial(layers.Activation, "tanh"), IMAGES),
    "AdaptiveAveragePooling2D": (partial(layers.AdaptiveAveragePooling2D, (3, 4)), IMAGES),
    "AdaptiveMaxPooling2D": (partial(layers.AdaptiveMaxPooling2D, (3, 4)), IMAGES),
    "Add": (layers.Add, [IMAGES, OTHER_IMAGES, IMAGES[:, :1, :, :1]]),
    "Average": (layers.Average, [IMAGES, OTHER_IMAGES]),
    "AveragePooling2D": (partial(layers.AveragePooling2D, 3, 2, "same"), IMAGES),
    "BatchNormalization": (layers.BatchNormalization, IMAGES),
    "BatchNormalization of many rows": (layers.BatchNormalization, np.repeat(ROWS, 60, axis=0)),
    "BatchNormalization, channels_first": (partial(layers.BatchNormalization, axis=1, scale=False), IMAGES),
    "BatchNormalization, frozen": (partial(layers.BatchNormalization, trainable=False), IMAGES),
    "Concatenate": (partial(layers.Concatenate, axis=1), [IMAGES, OTHER_IMAGES[:, :2]]),
    "Conv2D": (partial(layers.Conv2D, 5, 3, activation="relu", **PENALIZED), IMAGES),
    "Conv2D, channels_first": (partial(layers.Conv2D, 4, (3, 2), (2, 1), "same", **FIRST), IMAGES),
    "Conv2D of groups": (partial(layers.Conv2D, 6, 2, dilation_rate=2, groups=2, activation="softmax"), IMAGES),
    "Conv2DTranspose": (partial(layers.Conv2DTranspose, 3, 3, 2, "same", activation="elu"), IMAGES),
    "Conv2DTranspose, channels_first": (partial(layers.Conv2DTranspose, 3, 3, 2, output_padding=1, **FIRST), IMAGES),
    "Cropping2D": (partial(layers.Cropping2D, ((1, 2), (0, 1))), IMAGES),
    "Dense": (partial(layers.Dense, 6, activation="sigmoid", **PENALIZED), ROWS),
    "Dense of images": (partial(layers.Dense, 3, use_bias=False), IMAGES),
    "DepthwiseConv2D": (partial(layers.DepthwiseConv2D, 3, padding="same", depth_multiplier=2), IMAGES),
    "DepthwiseConv2D, channels_first": (partial(layers.DepthwiseConv2D, 3, 2, activation="selu", **FIRST), IMAGES),
    "Dropout": (partial(layers.Dropout, 0.4), IMAGES),
    "Dropout of channels": (partial(layers.Dropout, 0.4, (None, 1, 1, None), seed=3), IMAGES),
    "ELU": (partial(layers.ELU, 2.0), IMAGES),
    "Flatten": (layers.Flatten, IMAGES),
    "Flatten, channels_first": (partial(layers.Flatten, "channels_first"), IMAGES),
    "GlobalAveragePooling2D": (layers.GlobalAveragePooling2D, IMAGES),
    "GlobalMaxPooling2D": (partial(layers.GlobalMaxPooling2D, "channels_first", True), IMAGES),
    "LayerNormalization": (layers.LayerNormalization, IMAGES),
    "LayerNormalization of two axes": (partial(layers.LayerNormalization, (1, -1)), IMAGES),
    "LeakyReLU": (layers.LeakyReLU, IMAGES),
    "MaxPooling2D": (layers.MaxPooling2D, IMAGES),
    "MaxPooling2D, channels_first": (partial(layers.MaxPooling2D, 3, 1, "same", **FIRST), IMAGES),
    "Maximum": (layers.Maximum, [IMAGES, OTHER_IMAGES]),
    "Minimum": (layers.Minimum, [IMAGES, OTHER_IMAGES]),
    "Multiply": (layers.Multiply, [IMAGES, OTHER_IMAGES, IMAGES[:, :1]]),
    "ReLU": (layers.ReLU, IMAGES),
    "ReLU with all its arguments": (partial(layers.ReLU, 1.5, 0.1, 0.2), IMAGES),
    "Reshape": (partial(layers.Reshape, (-1, 6)), IMAGES),
    "SeparableConv2D": (partial(layers.SeparableConv2D, 5, 3, depth_multiplier=2, activation="gelu"), IMAGES),
    "SeparableConv2D, channels_first": (partial(layers.SeparableConv2D, 5, 3, 2, "same", **FIRST), IMAGES),
    "Softmax": (partial(layers.Softmax, (1, 2)), IMAGES),
    "Subtract": (layers.Subtract, [IMAGES, OTHER_IMAGES]),
    "UpSampling2D": (partial(layers.UpSampling2D, (2, 3)), IMAGES),
    "UpSampling2D, bilinear": (partial(layers.UpSampling2D, (2, 3), interpolation="bilinear"), IMAGES),
    "ZeroPadding2D": (partial(layers.ZeroPadding2D, ((1, 2), (0, 1))), IMAGES),
}
INTEGERS = ("Add", "Concatenate", "Flatten", "GlobalMaxPooling2D", "MaxPooling2D", "Maximum", "Reshape", "UpSampling2D")
# The exact gelu is computed by the card's own erfc, and by a series of ours elsewhere.
GELU_TOLERANCE = 1e-5


def test_every_layer_has_a_row() -> None:
    assert {type(make()) for make, _ in LAYERS.values()} == public_classes(layers, layers.Layer)
    assert set(INTEGERS) <= LAYERS.keys()


def forward_and_back(name: str, to: Callable[[Any], Any], **options: Any) -> list[Any]:
    """All that a layer gives: outputs in training and otherwise, gradients, and weights, the moving statistics among them."""
    make, inputs = LAYERS[name]
    np.random.seed(5)
    layer = make(**options)
    moved = [to(x) for x in inputs] if isinstance(inputs, list) else to(inputs)
    y = layer(moved, training=True)
    dy = np.linspace(-1, 1, y.size, dtype=np.float32).reshape(y.shape)
    dx = layer.backward(to(dy.astype(y.dtype)))
    of_weights = layer.gradients
    return [y, *(dx if isinstance(dx, list) else [dx]), *of_weights, *layer.weights, layer(moved)]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "followed"])
def test_a_layer_waits_for_nothing_and_gives_the_bits_of_the_simulator(name: str, named: bool, cupy: Any) -> None:
    expected = forward_and_back(name, kept, device="cudasim")
    with cupy.traffic.forbid_waiting():
        given = forward_and_back(name, there, **({"device": CARD} if named else {}))
    assert len(given) == len(expected) >= 3
    for part, wanted in zip(given, expected, strict=True):
        assert_same(part, wanted, rtol=GELU_TOLERANCE if name == "SeparableConv2D" else 0)
    assert cupy._current.stack == [cupy.cuda.Device(0)]


@pytest.mark.parametrize("name", ["Conv2D", "Dense", "BatchNormalization", "LayerNormalization", "Multiply"])
def test_a_layer_in_float64(name: str, cupy: Any) -> None:
    def doubled(to: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda array: to(array.astype(np.float64))

    expected = forward_and_back(name, doubled(kept), dtype="float64", device="cudasim")
    given = forward_and_back(name, doubled(there), dtype="float64")
    for part, wanted in zip(given, expected, strict=True):
        assert wanted.dtype == np.float64
        assert_same(part, wanted)


@pytest.mark.parametrize("name", INTEGERS)
def test_a_layer_of_integers(name: str, cupy: Any) -> None:
    make, inputs = LAYERS[name]
    whole = [np.rint(x * 9).astype(np.int32) for x in (inputs if isinstance(inputs, list) else [inputs])]
    expected = make(device="cudasim")(whole if isinstance(inputs, list) else whole[0])
    with cupy.traffic.forbid_waiting():
        moved = [there(x) for x in whole]
        given = make()(moved if isinstance(inputs, list) else moved[0])
    assert given.dtype == np.int32
    assert_same(given, expected)


# ----------------------------------------------------------------------------------------------------------------------
# Activations and regularizers
# ----------------------------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, activations.Activation] = {
    **{name: value for name, value in vars(activations).items() if isinstance(value, activations.Activation)},
    "gelu by tanh": activations.GELU(approximate=True),
    "relu with all its arguments": activations.ReLU(0.1, 1.5, 0.2),
    "softmax of several axes": activations.Softmax((0, 1)),
}
FAR = np.array([[-np.inf, -1e30, -100, -20, -3, -1, -0.0], [0, 1e-6, 0.4, 2, 6, 7, 15], [50, 88, 1e4, 3e38, 1, np.inf, np.nan]])


def test_every_activation_has_a_row() -> None:
    assert {type(activation) for activation in ACTIVATIONS.values()} == public_classes(activations, activations.Activation)


def activated(activation: activations.Activation, x: Any, dy: Any, device: str) -> list[Any]:
    """The values, the gradient, and the values as whoever calls the activation gets them."""
    place = xc.get_device(device)
    with place.current(), np.errstate(all="ignore"):
        y = activation.forward(x, place)
        return [y, activation.backward(dy, x, y, place), activation(x, device)]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("values", [FAR, ROWS], ids=["far", "near"])
def test_an_activation_waits_for_nothing_and_gives_the_bits_of_the_simulator(
    name: str, values: Any, dtype: np.dtype[Any], cupy: Any
) -> None:
    activation = ACTIVATIONS[name]
    x = values.astype(dtype)
    dy = np.linspace(-2, 2, x.size).reshape(x.shape).astype(dtype)

    expected = activated(activation, x, dy, "cudasim")
    with cupy.traffic.forbid_waiting():
        given = activated(activation, there(x), there(dy), CARD)
    exactly = name != "gelu"
    for part, wanted in zip(given, expected, strict=True):
        assert_same(part, wanted, rtol=0 if exactly else 1e-6 if dtype == np.float32 else 1e-13)


REGULARIZERS = [regularizers.L1(0.1), regularizers.L2(0.2), regularizers.L1L2(0.1, 0.2)]


def test_every_regularizer_has_a_row() -> None:
    assert {type(regularizer) for regularizer in REGULARIZERS} == public_classes(regularizers, regularizers.Regularizer)


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=repr)
def test_a_regularizer(regularizer: regularizers.Regularizer, cupy: Any) -> None:
    with cupy.traffic.forbid_waiting():
        penalty, gradient = regularizer(there(ROWS)), regularizer.gradient(there(ROWS))
    assert_same(penalty, np.asarray(regularizer(ROWS)))
    assert_same(gradient, regularizer.gradient(ROWS))


# ----------------------------------------------------------------------------------------------------------------------
# Losses and metrics
# ----------------------------------------------------------------------------------------------------------------------

SCORES = RANDOM.standard_normal((6, 4), np.float32)
SHARES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
NUMBERS = np.array([0, 3, 1, 1, 2, 0])
ONE_HOT = np.eye(4, dtype=np.float32)[NUMBERS]
YES_OR_NO = (RANDOM.random((6, 4)) < 0.5).astype(np.float32)
WEIGHTS = np.array([0.0, 1, 2, 0.5, 1, 3])

LOSSES: dict[str, tuple[losses.Loss, Any, Any]] = {
    "BinaryCrossentropy": (losses.BinaryCrossentropy(label_smoothing=0.1), YES_OR_NO, SHARES),
    "BinaryCrossentropy of scores": (losses.BinaryCrossentropy(True), YES_OR_NO, SCORES),
    "CategoricalCrossentropy": (losses.CategoricalCrossentropy(), ONE_HOT, SHARES),
    "CategoricalCrossentropy of scores": (losses.CategoricalCrossentropy(True, 0.1), ONE_HOT, SCORES),
    "CategoricalCrossentropy of scores, summed": (losses.CategoricalCrossentropy(True, reduction="sum"), ONE_HOT, SCORES),
    "Hinge": (losses.Hinge(), YES_OR_NO, SCORES),
    "Huber": (losses.Huber(0.7), ONE_HOT, SCORES),
    "KLDivergence": (losses.KLDivergence(), ONE_HOT, SHARES),
    "LogCosh": (losses.LogCosh(), ONE_HOT, SCORES),
    "MeanAbsoluteError": (losses.MeanAbsoluteError(), ONE_HOT, SCORES),
    "MeanAbsolutePercentageError": (losses.MeanAbsolutePercentageError(), ONE_HOT + 1, SCORES),
    "MeanSquaredError": (losses.MeanSquaredError(), ONE_HOT, SCORES),
    "MeanSquaredError of integers": (losses.MeanSquaredError(), NUMBERS, SCORES[:, :1]),
    "Poisson": (losses.Poisson(), NUMBERS, SHARES[:, :1]),
    "SparseCategoricalCrossentropy": (losses.SparseCategoricalCrossentropy(), NUMBERS, SHARES),
    "SparseCategoricalCrossentropy of scores": (losses.SparseCategoricalCrossentropy(True), NUMBERS, SCORES),
    "SparseCategoricalCrossentropy, one ignored": (losses.SparseCategoricalCrossentropy(ignore_class=1), NUMBERS, SHARES),
}


def test_every_loss_has_a_row() -> None:
    assert {type(loss) for loss, _, _ in LOSSES.values()} == public_classes(losses, losses.Loss)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("labels_from", ["host", "card"])
def test_a_loss_waits_for_nothing_and_gives_the_bits_of_the_simulator(
    name: str, weight: Any, labels_from: str, cupy: Any
) -> None:
    loss, y_true, y_pred = LOSSES[name]
    labels = loss.check(y_true, y_pred.shape)
    place = xc.get_device("cudasim")
    with xc.layers.tape.running(Run(place, np.dtype(np.float32), np.random, True, True)):
        value, gradient = loss.value_and_gradient(labels, y_pred, weight, checked=True)
        values = loss.values(labels, y_pred, checked=True)
        alone = loss(y_true, y_pred, weight)
    with cupy.traffic.forbid_waiting():
        moved = labels if labels_from == "host" else there(labels)
        told, given = loss.value_and_gradient(moved, there(y_pred), weight, checked=True)
        of_samples = loss.values(moved, there(y_pred), checked=True)
        called = loss(y_true, there(y_pred), weight)
    assert_same(given, gradient)
    assert_same(of_samples, values)
    assert (told.shape, told.device.id) == ((), 1)
    assert float(told) == value
    assert float(called) == alone


def test_labels_of_a_card_are_looked_at_unless_they_were_checked(cupy: Any) -> None:
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    before = cupy.traffic.downloads
    loss(there(NUMBERS), there(SCORES))
    assert cupy.traffic.downloads == before + 1
    with pytest.raises(ValueError, match=r"y_true must hold whole numbers from 0 to 3, got y_true\[1\] = 4"):
        loss(there(NUMBERS + 1), there(SCORES))


METRICS: dict[str, tuple[Callable[[], metrics.Metric], Any, Any]] = {
    "Accuracy": (metrics.Accuracy, NUMBERS, NUMBERS[::-1].astype(np.float32).copy()),
    "BinaryAccuracy": (metrics.BinaryAccuracy, YES_OR_NO, SHARES),
    "BinaryCrossentropy": (metrics.BinaryCrossentropy, YES_OR_NO, SHARES),
    "CategoricalAccuracy": (metrics.CategoricalAccuracy, ONE_HOT, SHARES),
    "CategoricalCrossentropy": (metrics.CategoricalCrossentropy, ONE_HOT, SHARES),
    "MeanAbsoluteError": (metrics.MeanAbsoluteError, ONE_HOT, SCORES),
    "MeanMetricWrapper": (partial(metrics.MeanMetricWrapper, losses.huber, delta=0.3), ONE_HOT, SCORES),
    "MeanSquaredError": (metrics.MeanSquaredError, ONE_HOT, SCORES),
    "Precision": (metrics.Precision, YES_OR_NO, SHARES),
    "Precision of a class": (partial(metrics.Precision, 0.3, class_id=2), YES_OR_NO, SHARES),
    "Recall": (metrics.Recall, YES_OR_NO, SHARES),
    "RootMeanSquaredError": (metrics.RootMeanSquaredError, ONE_HOT, SCORES),
    "SparseCategoricalAccuracy": (metrics.SparseCategoricalAccuracy, NUMBERS, SHARES),
    "SparseCategoricalCrossentropy": (metrics.SparseCategoricalCrossentropy, NUMBERS, SHARES),
    "SparseCategoricalCrossentropy, one ignored": (
        partial(metrics.SparseCategoricalCrossentropy, ignore_class=1),
        NUMBERS,
        SHARES,
    ),
    "SparseTopKCategoricalAccuracy": (partial(metrics.SparseTopKCategoricalAccuracy, 2), NUMBERS, SHARES),
    "TopKCategoricalAccuracy": (partial(metrics.TopKCategoricalAccuracy, 2), ONE_HOT, SHARES),
}


def test_every_metric_has_a_row() -> None:
    of_one_array = {metrics.Mean}  # takes no labels; a test of its own
    assert {type(make()) for make, _, _ in METRICS.values()} | of_one_array == public_classes(metrics, metrics.Metric)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("labels_from", ["host", "card"])
def test_a_metric_reads_once_when_it_is_asked(name: str, weight: Any, labels_from: str, cupy: Any) -> None:
    make, y_true, y_pred = METRICS[name]
    here, metric = make(), make()
    for part in (slice(0, 4), slice(4, 6)):
        of_part = None if weight is None else weight[part]
        here.update_state(y_true[part], y_pred[part], of_part)
        with cupy.traffic.forbid_waiting():
            labels = y_true[part] if labels_from == "host" else there(y_true[part])
            metric.update_state(labels, there(y_pred[part]), of_part)
    before = cupy.traffic.downloads
    assert metric.result() == here.result()
    assert cupy.traffic.downloads == before + 1
    metric.reset_state()
    assert metric.result() == 0


def test_a_mean_of_values_on_a_card(cupy: Any) -> None:
    mean = metrics.Mean()
    with cupy.traffic.forbid_waiting():
        mean.update_state(there(np.float32([1, 2])))
        mean.update_state(there(np.float64(7.5)), sample_weight=2)
    assert mean.result() == 4.5


# ----------------------------------------------------------------------------------------------------------------------
# Optimizers
# ----------------------------------------------------------------------------------------------------------------------

RULES: dict[str, Callable[..., optimizers.Optimizer]] = {
    "SGD": optimizers.SGD,
    "SGD with momentum": partial(optimizers.SGD, momentum=0.9),
    "SGD with Nesterov's": partial(optimizers.SGD, momentum=0.9, nesterov=True),
    "Adam": optimizers.Adam,
    "Adam with amsgrad": partial(optimizers.Adam, amsgrad=True),
    "AdamW": partial(optimizers.AdamW, weight_decay=0.01),
    "RMSprop": optimizers.RMSprop,
    "RMSprop, centered": partial(optimizers.RMSprop, momentum=0.5, centered=True),
    "Adagrad": optimizers.Adagrad,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight_decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "a schedule": {"learning_rate": optimizers.schedules.CosineDecay(0.1, 4)},
}


def test_every_optimizer_has_a_row() -> None:
    assert {type(make()) for make in RULES.values()} == public_classes(optimizers, optimizers.Optimizer)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("chosen", OPTIONS)
def test_an_optimizer_waits_for_nothing_and_gives_the_bits_of_the_simulator(name: str, chosen: str, cupy: Any) -> None:
    here = {"W": ROWS.copy(), "b": ROWS[0].copy()}
    card = {"W": there(ROWS.copy()), "b": there(ROWS[0].copy())}
    first, second = (RULES[name](**OPTIONS[chosen]) for _ in range(2))
    for step in range(3):
        gradients = {"W": ROWS[::-1] * (step + 1), "b": ROWS[step].copy()}
        first.update(here, gradients, device="cudasim")
        moved = {key: there(value) for key, value in gradients.items()}
        with cupy.traffic.forbid_waiting():
            second.update(card, moved)
        if step == 1:  # what it remembers goes on elsewhere
            state = second.state_dict()
            assert all(xc.device.card_of(array) == CARD for key, array in state.items() if key != "iteration")
            second = RULES[name](**OPTIONS[chosen])
            second.load_state_dict(state)
    for key, param in card.items():
        assert_same(param, here[key])


# ----------------------------------------------------------------------------------------------------------------------
# Models
# ----------------------------------------------------------------------------------------------------------------------

SAMPLES = RANDOM.standard_normal((40, 8, 8, 1), np.float32)
CLASSES = RANDOM.integers(0, 3, 40)


def small(device: str) -> xc.Sequential:
    model = xc.Sequential(
        [
            xc.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
            layers.MaxPooling2D(),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax"),
        ],
        device=device,
        seed=0,
    )
    model.compile(optimizers.Adam(0.01, clipnorm=1.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Residual(xc.Model):
    """Branches that are added, multiplied and put side by side."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before = layers.Conv2D(3, 3, padding="same", activation="tanh")
        self.within = layers.SeparableConv2D(3, 3, padding="same", activation="silu")
        self.norm = layers.LayerNormalization()
        self.add, self.multiply, self.beside = layers.Add(), layers.Multiply(), layers.Concatenate()
        self.pool = layers.GlobalAveragePooling2D()
        self.scores = layers.Dense(3, kernel_regularizer="l1")

    def call(self, x: Any) -> Any:
        a = self.before(x)
        b = self.add([a, self.norm(self.within(a))])
        return self.scores(self.pool(self.beside([b, self.multiply([a, b]), x])))


def residual(device: str) -> Residual:
    model = Residual(device=device, seed=0)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)
    model.compile(optimizers.SGD(rate, momentum=0.9, global_clipnorm=1.0), loss, metrics=["accuracy"])
    return model


MODELS = {"Sequential": small, "branches": residual}
HELD = (SAMPLES[:10], CLASSES[:10])


class Guard(xc.callbacks.Callback):
    """Lets nobody wait from a step of each epoch to its last, the third."""

    def __init__(self, cupy: Any, first: int = 0) -> None:
        super().__init__()
        self.cupy, self.first = cupy, first
        self.guard = contextlib.ExitStack()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.first:
            self.guard.enter_context(self.cupy.traffic.forbid_waiting())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.guard.close()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("labels_from", ["host", "card"])
def test_no_step_of_fit_waits_and_all_are_those_of_the_simulator(make: Any, labels_from: str, cupy: Any) -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "verbose": 0}
    here = make("cudasim")
    expected = here.fit(SAMPLES, CLASSES, validation_data=HELD, **options)
    model = make(CARD)
    x, y, held, looks, guard = SAMPLES, CLASSES, HELD, 0, Guard(cupy)
    if labels_from == "card":  # labels are looked at once, at the first step
        x, y, held, looks, guard = there(x), there(y), (there(HELD[0]), there(HELD[1])), 2, Guard(cupy, first=1)
    before = cupy.traffic.downloads
    history = model.fit(x, y, validation_data=held, callbacks=guard, **options)
    read = cupy.traffic.downloads - before
    assert history.history == expected.history
    assert sorted(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    for array, wanted in zip(model.weights, here.weights, strict=True):
        assert_same(array, wanted)
    assert read == 2 * 2 + looks  # an epoch: its steps, and the evaluation


def test_how_often_fit_waits_does_not_hang_on_the_number_of_steps(cupy: Any) -> None:
    reads = set()
    for batch_size in (4, 8, 40):
        before = cupy.traffic.downloads
        small(CARD).fit(SAMPLES, CLASSES, epochs=3, batch_size=batch_size, validation_split=0.25, verbose=0)
        reads.add(cupy.traffic.downloads - before)
    assert len(reads) == 1


def test_nothing_but_the_batch_goes_to_the_card(cupy: Any) -> None:
    model = residual(CARD)
    model.train_on_batch(*HELD)
    before = cupy.traffic.uploads
    model.fit(SAMPLES, CLASSES, batch_size=8, verbose=0)
    assert cupy.traffic.uploads - before == 5 * 2  # samples and labels
    x, y = there(SAMPLES), there(CLASSES)
    before = cupy.traffic.uploads
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert cupy.traffic.uploads == before


@pytest.mark.parametrize("options", [{"sample_weight": np.linspace(0, 2, 40)}, {"class_weight": {0: 2.0}}], ids=str)
def test_weights_of_samples_and_classes(options: dict[str, Any], cupy: Any) -> None:
    expected = small("cudasim").fit(SAMPLES, CLASSES, batch_size=16, verbose=0, **options)
    history = small(CARD).fit(SAMPLES, CLASSES, batch_size=16, verbose=0, callbacks=Guard(cupy), **options)
    assert history.history == expected.history


def test_batches_that_something_else_makes(cupy: Any) -> None:
    def batches() -> list[tuple[Any, Any]]:
        return [(SAMPLES[first : first + 16], CLASSES[first : first + 16]) for first in range(0, 40, 16)]

    expected = small("cudasim").fit(iter(batches()), verbose=0)
    history = small(CARD).fit(iter(batches()), verbose=0, callbacks=Guard(cupy))
    assert history.history == expected.history


class Reader(xc.callbacks.Callback):
    """Keeps the losses of all steps, as whoever shows them does."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.told.append(logs["loss"])


def test_who_reads_the_logs_of_a_step_waits_for_it(cupy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lists: list[Sequence[float]] = []
    for device in ("cudasim", CARD):
        reader = Reader()
        model = small(device)
        stopping = xc.callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=100, restore_best_weights=True)
        called = [reader, stopping, xc.callbacks.ReduceLROnPlateau("loss"), xc.callbacks.TerminateOnNaN()]
        model.fit(SAMPLES, CLASSES, batch_size=16, epochs=3, validation_split=0.25, verbose=2, callbacks=called)
        assert all(type(value) is float for value in reader.told)
        lists.append(reader.told)
    assert lists[0] == lists[1]
    assert len(lists[1]) == 2 * 2  # no epoch is better by 100
    assert capsys.readouterr().out


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_evaluate_and_predict(make: Any, cupy: Any) -> None:
    here, model = make("cudasim"), make(CARD)
    assert model.evaluate(SAMPLES, CLASSES, verbose=0) == here.evaluate(SAMPLES, CLASSES, verbose=0)
    expected = here.predict(SAMPLES, batch_size=16, verbose=0)
    for x in (SAMPLES, there(SAMPLES)):
        scores = model.predict(x, batch_size=16, verbose=0)
        assert type(scores) is np.ndarray
        np.testing.assert_array_equal(scores, expected)
    with cupy.traffic.forbid_waiting():
        y = model(SAMPLES)
        model(there(SAMPLES), training=True)
        dx = model.backward(there(np.ones((40, 3), np.float32)))
    assert_same(y, here(SAMPLES))
    assert (dx.shape, dx.device.id) == (SAMPLES.shape, 1)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_is_saved_loaded_and_moved(make: Any, cupy: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "batch_size": 16, "verbose": 0, "shuffle": False}
    whole = make("cudasim")
    expected = [whole.fit(SAMPLES, CLASSES, **options).history["accuracy"] for _ in range(3)]
    model = make(CARD)
    given = [model.fit(SAMPLES, CLASSES, **options).history["accuracy"]]
    model.save(tmp_path / "model.safetensors")
    random = model._random
    model = xc.models.load_model(tmp_path / "model.safetensors", {"Residual": Residual}, device=CARD)
    model._random = random  # a file does not hold where the random numbers stand
    assert {array.device.id for array in model.weights} == {1}
    given.append(model.fit(SAMPLES, CLASSES, **options).history["accuracy"])
    model.to("cuda:0")
    assert {array.device.id for array in model.weights} == {0}
    given.append(model.fit(SAMPLES, CLASSES, **options).history["accuracy"])
    assert given == expected
    for array, wanted in zip(model.to("cudasim").weights, whole.weights, strict=True):
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_tells_of_itself(make: Any, cupy: Any) -> None:
    here, model = make("cudasim"), make(CARD)
    for each in (here, model):
        each.fit(SAMPLES, CLASSES, verbose=0)
    assert [node[1:] for node in model.graph()[0]] == [node[1:] for node in here.graph()[0]]
    assert model.graph()[1] == here.graph()[1]
    tables: list[list[str]] = [[], []]
    for each, lines in zip((here, model), tables, strict=True):
        each.summary(print_fn=lines.append)
    assert len(tables[0]) == len(tables[1]) > 0


def test_a_loss_that_is_not_finite_is_told_after_the_epoch(cupy: Any) -> None:
    model = small(CARD)
    with pytest.raises(xc.errors.TrainingError, match="the loss is nan in epoch 1"):
        model.fit(np.where(SAMPLES > 2, np.nan, SAMPLES), CLASSES, verbose=0)


def test_a_training_loop_of_ones_own(cupy: Any) -> None:
    here, model = small("cudasim"), small(CARD)
    for first in range(0, 40, 16):
        batch = SAMPLES[first : first + 16], CLASSES[first : first + 16]
        assert model.train_on_batch(*batch) == here.train_on_batch(*batch)
    assert model.test_on_batch(*HELD, return_dict=True) == here.test_on_batch(*HELD, return_dict=True)
    np.testing.assert_array_equal(model.predict_on_batch(HELD[0]), here.predict_on_batch(HELD[0]))
    assert [weight.tolist() for weight in model.get_weights()] == [weight.tolist() for weight in here.get_weights()]
