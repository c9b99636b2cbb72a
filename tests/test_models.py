"""Models: what goes through them and back, training, evaluation, files and devices."""

from __future__ import annotations

import copy
import json
import pickle
import re
import signal
import threading

import numpy as np
import pytest
from conftest import assert_close, normal

import xpconv as xc
from xpconv import layers
from xpconv.errors import BrokenChainError, ParameterFileError, TrainingError
from xpconv.files import load_parameters, save_parameters


def images(samples=12, size=8, channels=1, seed=0):
    return normal(seed, (samples, size, size, channels), np.float32)


def classes_of(x, classes=3):
    return np.arange(len(x)) % classes


def small_network(device, **options):
    return xc.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ],
        device=device,
        **{"seed": 0, **options},
    )


def compiled(model, loss="sparse_categorical_crossentropy", optimizer=None, metrics=("accuracy",)):
    model.compile(optimizer=optimizer or xc.optimizers.SGD(0.1), loss=loss, metrics=list(metrics))
    return model


class Residual(xc.Model):
    """Two branches that are added, a third that is put beside them."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv1 = layers.Conv2D(3, 3, padding="same", activation="tanh")
        self.conv2 = layers.Conv2D(3, 3, padding="same", activation="tanh")
        self.add = layers.Add()
        self.beside = layers.Concatenate()
        self.flatten = layers.Flatten()
        self.scores = layers.Dense(3)

    def call(self, x):
        a = self.conv1(x)
        b = self.conv2(a)
        c = self.add([a, b])
        return self.scores(self.flatten(self.beside([c, a, x])))


# ----------------------------------------------------------------------------------------------------------------------
# Forward and back
# ----------------------------------------------------------------------------------------------------------------------


def numerical_gradients(model, loss, x, y, step=1e-6):
    """Central differences of the loss in every weight, through nothing but ``model(x)``."""
    gradients = []
    for array in model.trainable_weights:
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            middle = array[index]
            values = []
            for shift in (step, -step):
                array[index] = middle + shift
                values.append(float(loss(y, model(x))))
            array[index] = middle
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("make", [Residual, small_network], ids=["branches", "row"])
def test_gradients_are_those_of_central_differences(make):
    x, y = images(3, 4).astype(np.float64), np.array([0, 2, 1])
    model = make(device="numpy", dtype="float64", seed=1)
    softmax = make is small_network
    loss = xc.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    output = model(x, training=True)
    _, dy = loss.value_and_gradient(y, output)
    model.backward(dy)
    for gradient, expected in zip(model.gradients, numerical_gradients(model, loss, x, y), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_the_input():
    x = images(2, 4).astype(np.float64)
    model = Residual(device="numpy", dtype="float64", seed=1)
    dy = normal(3, (2, 3))
    model(x, training=True)
    dx = model.backward(dy)
    for index in [(0, 0, 0, 0), (0, 3, 2, 0), (1, 1, 1, 0)]:
        values = []
        for shift in (1e-6, -1e-6):
            moved = x.copy()
            moved[index] += shift
            values.append((model(moved) * dy).sum())
        assert dx[index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_one_step_is_the_same_on_every_device(device):
    x, y = images(), classes_of(images())
    found = {}
    for place in ("numpy", device):
        model = compiled(small_network(place))
        losses = [model.train_on_batch(x, y)[0] for _ in range(3)]
        found[place] = losses, model.get_weights()
    np.testing.assert_allclose(found[device][0], found["numpy"][0], rtol=1e-4)
    for weight, expected in zip(found[device][1], found["numpy"][1], strict=True):
        assert weight.dtype == np.float32
        np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-5)


def test_layers_that_run_as_one_give_what_they_give_one_by_one(device, data_format):
    x = images(5, 9, 2)
    x = x if data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    dy = normal(4, (5, 3), np.float32)

    def results(fuse):
        row = [
            layers.Conv2D(4, 3, activation="relu", data_format=data_format),
            layers.MaxPool2D(data_format=data_format),
            layers.Conv2D(3, 2, data_format=data_format),
            layers.MaxPool2D((2, 1), data_format=data_format),
            layers.Flatten(data_format=data_format),
            layers.Dense(3),
        ]
        model = xc.Sequential(row, device=device, seed=2)
        if not fuse:
            model._stages = row
        y = xc.to_numpy(model(x, training=True))
        dx = model.backward(dy)
        return [y, xc.to_numpy(dx), *map(xc.to_numpy, model.gradients)]

    fused, single = results(True), results(False)
    assert len(fused) == 8
    for one, other in zip(fused, single, strict=True):
        assert_close(one, other.astype(np.float64), np.float32, terms=30)


class Doubled(xc.activations.ReLU):
    """Of the name of ReLU, and another one."""

    def forward(self, x, place):
        return 2 * super().forward(x, place)

    def backward(self, dy, x, y, place):
        return 2 * super().backward(dy, x, y, place)


@pytest.mark.parametrize(
    ("activation", "options"),
    [
        (xc.activations.ReLU(negative_slope=0.5), {}),
        (xc.activations.ReLU(max_value=0.25), {}),
        (Doubled(), {}),
        ("tanh", {}),
        ("relu", {"use_bias": False}),
        ("relu", {"dtype": "float64"}),
    ],
    ids=["leaky", "with a maximum", "of one's own", "tanh", "no bias", "another dtype"],
)
def test_only_what_is_convolution_relu_and_pooling_runs_as_one(activation, options):
    x, dy = images(3, 6), normal(1, (3, 2, 2, 4), np.float32)
    row = [layers.Conv2D(4, 3, activation=activation, **options), layers.MaxPool2D()]
    model = xc.Sequential(row, device="numpy", seed=0)
    y = model(x, training=True)
    dx = model.backward(dy)
    maps = row[0](x)
    pooled = row[1](maps)
    np.testing.assert_array_equal(y, pooled)
    np.testing.assert_allclose(dx, row[0].backward(row[1].backward(dy)), rtol=1e-6)
    assert len(model._stages) == 2


def test_a_layer_that_runs_twice_gets_the_sum_of_its_gradients():
    class Twice(xc.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = layers.Dense(2, use_bias=False)

        def call(self, x):
            return self.dense(self.dense(x))

    model = Twice(device="numpy", dtype="float64", seed=0)
    x, dy = normal(0, (3, 2)), normal(1, (3, 2))
    model(x, training=True)
    model.backward(dy)
    w = model.dense.kernel
    np.testing.assert_allclose(model.gradients[0], x.T @ (dy @ w.T) + (x @ w).T @ dy)
    assert model.count_params() == 4


def test_a_weighted_metric_of_the_same_name_gets_one_of_its_own():
    x, y, w = images(), classes_of(images()), np.repeat([0.0, 1.0], 6)
    model = small_network("numpy")
    model.compile(xc.optimizers.SGD(1e-30), "sparse_categorical_crossentropy", ["accuracy"], ["accuracy"])
    history = model.fit(x, y, sample_weight=w, verbose=0).history
    right = model.predict(x, verbose=0).argmax(axis=1) == y
    assert history["accuracy"] == [pytest.approx(right.mean())]
    assert history["weighted_accuracy"] == [pytest.approx(right[6:].mean())]


def test_what_is_frozen_stays_and_lets_gradients_through():
    model = small_network("numpy")
    model.build((None, 8, 8, 1))
    model.layers[0].trainable = False
    model.layers[3].trainable = True
    before = model.get_weights()
    assert [array.shape for array in model.trainable_weights] == [(36, 3), (3,)]
    assert [array.shape for array in model.non_trainable_weights] == [(3, 3, 1, 4), (4,)]
    assert [array.shape for array in model.weights] == [(3, 3, 1, 4), (4,), (36, 3), (3,)]
    compiled(model).fit(images(), classes_of(images()), epochs=2, verbose=0)
    after = model.get_weights()
    assert all((one == other).all() for one, other in zip(before[:2], after[:2], strict=True))
    assert not (before[2] == after[2]).any()
    # The last layer alone is frozen: what lies before it still learns.
    model.layers[0].trainable, model.layers[3].trainable = True, False
    compiled(model).fit(images(), classes_of(images()), epochs=1, verbose=0)
    assert (model.layers[3].kernel == after[2]).all()
    assert not (model.layers[0].kernel == after[0]).all()


def test_a_frozen_model_freezes_what_is_in_it():
    inner = xc.Sequential([layers.Dense(4), layers.BatchNormalization()], device="numpy", name="inner")
    model = compiled(xc.Sequential([layers.Flatten(), inner, layers.Dense(3, activation="softmax")], device="numpy", seed=0))
    model.build((None, 8, 8, 1))
    inner.trainable = False
    before = inner.get_weights()
    model.fit(images(), classes_of(images()), epochs=2, verbose=0)
    assert len(before) == 6  # the running mean and variance, too
    assert all((one == other).all() for one, other in zip(before, inner.get_weights(), strict=True))
    inner.trainable = True
    model.fit(images(), classes_of(images()), epochs=1, verbose=0)
    assert not any((one == other).all() for one, other in zip(before, inner.get_weights(), strict=True))


def test_models_within_models():
    inner = xc.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(3)], device="numpy", name="inner")
    model = xc.Sequential([layers.Flatten(), inner, layers.Dense(3, activation="softmax")], device="numpy", seed=0)
    history = compiled(model).fit(images(), classes_of(images()), epochs=3, verbose=0)
    assert history.history["loss"][2] < history.history["loss"][0]
    assert model.count_params() == 64 * 4 + 4 + 4 * 3 + 3 + 3 * 3 + 3
    assert list(model.parameters()) == [
        "sequential/dense/kernel",
        "sequential/dense/bias",
        "sequential/dense_1/kernel",
        "sequential/dense_1/bias",
        "dense/kernel",
        "dense/bias",
    ]


def test_a_model_within_another_keeps_its_dtype_and_its_seed():
    def made(outer, inner_seed):
        inner = xc.Sequential([layers.Dense(4), layers.Dropout(0.5)], device="numpy", dtype="float64", seed=inner_seed)
        return xc.Sequential([layers.Flatten(), inner, layers.Dense(3, activation="softmax")], device="numpy", seed=outer)

    model = compiled(made(0, 5))
    history = model.fit(images(), classes_of(images()), epochs=5, verbose=0).history
    assert [array.dtype for array in model.weights] == ["float64"] * 2 + ["float32"] * 2
    assert history["loss"][-1] < history["loss"][0]
    first, second = made(0, 5), made(1, 5)
    for one in (first, second):
        one.build((None, 8, 8, 1))
    assert (first.layers[1].layers[0].kernel == second.layers[1].layers[0].kernel).all()
    assert not (first.layers[2].kernel == second.layers[2].kernel).any()


def test_inputs_are_neither_changed_nor_frozen():
    x, y = images(), classes_of(images())
    kept = x.copy(), y.copy()
    model = compiled(small_network("numpy"))
    model.fit(x, y, epochs=1, batch_size=12, shuffle=False, verbose=0)
    model(x, training=True)
    model.predict(x, verbose=0)
    assert x.flags.writeable
    assert y.flags.writeable
    assert (x == kept[0]).all()
    assert (y == kept[1]).all()


# ----------------------------------------------------------------------------------------------------------------------
# A broken chain
# ----------------------------------------------------------------------------------------------------------------------


def broken(how):
    class Broken(xc.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.flatten = layers.Flatten()
            self.first = layers.Dense(3, name="first")
            self.second = layers.Dense(3, name="second")

        def call(self, x):
            return how(self, self.first(self.flatten(x)))

    return compiled(Broken(device="numpy", seed=0), loss=xc.losses.SparseCategoricalCrossentropy(from_logits=True))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            lambda self, a: self.second(a * 2),
            r"the input of layer 'second' \(Dense\), of shape \(12, 3\), was made by no layer",
        ),
        (lambda self, a: self.second(a[:, :]), "the input of layer 'second'"),
        (lambda self, a: a + self.second(a), r"call returned an array of shape \(12, 3\) that was made by no layer"),
        (lambda self, a: layers.Add(name="sum")([a, a + 1]), "input 1 of layer 'sum'"),
    ],
    ids=["product", "slice", "returned", "one of two"],
)
def test_arithmetic_on_arrays_in_call_is_refused_in_training(how, message):
    model = broken(how)
    model.predict(images(), verbose=0)  # without a gradient it does no harm
    with pytest.raises(BrokenChainError, match=message):
        model.fit(images(), classes_of(images()), verbose=0)


def test_what_layers_made_cannot_be_changed_in_place():
    def how(self, a):
        a *= 2
        return self.second(a)

    with pytest.raises(ValueError, match="read-only"):
        broken(how).fit(images(), classes_of(images()), verbose=0)


def test_a_weight_that_nothing_depends_on_stays():
    model = broken(lambda self, a: a)
    model.build((None, 8, 8, 1))
    model.second.build((None, 3))
    before = model.second.get_weights()
    compiled(model, loss=xc.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images(), classes_of(images()), verbose=0)
    assert all((one == other).all() for one, other in zip(before, model.second.get_weights(), strict=True))


# ----------------------------------------------------------------------------------------------------------------------
# fit, evaluate, predict
# ----------------------------------------------------------------------------------------------------------------------


def test_history_is_weighted_by_the_size_of_the_batches():
    # A learning rate of almost nothing: every batch sees the same weights.
    x, y = images(10), classes_of(images(10))
    model = compiled(small_network("numpy"), optimizer=xc.optimizers.SGD(1e-30))
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    probabilities = model.predict(x, verbose=0).astype(np.float64)
    expected = -np.log(probabilities[np.arange(10), y]).mean()
    assert list(history.history) == ["loss", "accuracy"] or list(history.history) == ["accuracy", "loss"]
    np.testing.assert_allclose(history.history["loss"], [expected] * 2, rtol=1e-5)
    np.testing.assert_allclose(history.history["accuracy"], [(probabilities.argmax(axis=1) == y).mean()] * 2, rtol=1e-6)
    assert history.epoch == [0, 1]
    loss, accuracy = model.evaluate(x, y, batch_size=3, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == pytest.approx(history.history["accuracy"][0])
    assert model.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-5)


def test_a_model_without_metrics_evaluates_to_a_number():
    model = small_network("numpy")
    model.compile(loss="sparse_categorical_crossentropy")
    assert isinstance(model.evaluate(images(), classes_of(images()), verbose=0), float)


def test_validation_data_and_split_agree():
    x, y = images(20), classes_of(images(20))
    split = compiled(small_network("numpy")).fit(x, y, epochs=2, validation_split=0.25, verbose=0)
    given = compiled(small_network("numpy")).fit(x[:15], y[:15], epochs=2, validation_data=(x[15:], y[15:]), verbose=0)
    assert split.history == given.history
    assert {"val_loss", "val_accuracy"} < set(split.history)


def test_validation_frequency():
    x, y = images(), classes_of(images())
    model = compiled(small_network("numpy"))
    history = model.fit(x, y, epochs=5, validation_data=(x, y), validation_freq=2, verbose=0)
    assert len(history.history["val_loss"]) == 2
    history = model.fit(x, y, epochs=5, validation_data=(x, y), validation_freq=[1, 2, 5], verbose=0)
    assert len(history.history["val_loss"]) == 3


def test_class_weights_are_weights_of_samples():
    x, y = images(), classes_of(images())
    weights = {0: 2.0, 1: 0.5}
    by_class = compiled(small_network("numpy")).fit(x, y, epochs=2, class_weight=weights, verbose=0)
    each = np.array([weights.get(label, 1.0) for label in y])
    by_sample = compiled(small_network("numpy")).fit(x, y, epochs=2, sample_weight=each, verbose=0)
    plain = compiled(small_network("numpy")).fit(x, y, epochs=2, verbose=0)
    assert by_class.history == by_sample.history
    assert by_class.history["loss"] != plain.history["loss"]
    one_hot = compiled(small_network("numpy"), loss="categorical_crossentropy")
    history = one_hot.fit(x, xc.to_categorical(y), epochs=2, class_weight=weights, verbose=0)
    np.testing.assert_allclose(history.history["loss"], by_class.history["loss"], rtol=1e-5)


def test_the_loss_of_a_softmax_is_exact_however_wrong_it_is():
    # log(softmax) of float32 would be infinite, and clipped as of 1e-7 it would be 16.1.
    model = xc.Sequential([layers.Dense(2, activation="softmax", use_bias=False)], device="numpy")
    model.build((None, 2))
    model.set_weights([np.eye(2)])
    model.compile(loss="categorical_crossentropy")
    assert model.evaluate(np.array([[1000.0, 0.0]]), np.array([[0.0, 1.0]]), verbose=0) == pytest.approx(1000)


def test_regularizers_add_to_loss_and_gradient():
    x, y = images(), classes_of(images())

    def fitted(regularizer):
        row = [layers.Flatten(), layers.Dense(3, activation="softmax", kernel_regularizer=regularizer)]
        model = compiled(xc.Sequential(row, device="numpy", seed=0))
        model.build((None, 8, 8, 1))
        kernel = model.layers[1].kernel.copy()
        return model.fit(x, y, verbose=0).history["loss"][0], kernel, model.layers[1].kernel

    plain, before, after = fitted(None)
    penalised, same, regularized = fitted(xc.regularizers.L2(0.01))
    assert (before == same).all()
    assert penalised == pytest.approx(plain + 0.01 * (before.astype(np.float64) ** 2).sum(), rel=1e-5)
    np.testing.assert_allclose(regularized, after - 0.1 * 2 * 0.01 * before, rtol=1e-4, atol=1e-6)


def batches(x, y, size):
    for first in range(0, len(x), size):
        yield x[first : first + size], y[first : first + size]


def test_generators_loaders_and_sequences_give_what_arrays_give(tmp_path):
    x, y = images(20), classes_of(images(20))

    class Loader:
        def __iter__(self):
            return batches(x, y, 8)

    class Indexed:
        def __len__(self):
            return 3

        def __getitem__(self, position):
            return x[position * 8 : position * 8 + 8], y[position * 8 : position * 8 + 8]

    file = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=x.shape)
    file[:] = x
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    expected = compiled(small_network("numpy")).fit(x, y, batch_size=8, **options)
    for given in (Loader(), Indexed()):
        assert compiled(small_network("numpy")).fit(given, **options).history == expected.history
    assert compiled(small_network("numpy")).fit(file, y, batch_size=8, **options).history == expected.history

    def endless():
        while True:
            yield from batches(x, y, 8)

    assert compiled(small_network("numpy")).fit(endless(), steps_per_epoch=3, **options).history == expected.history
    once = compiled(small_network("numpy"))
    assert once.fit(batches(x, y, 8), epochs=1, verbose=0).history["loss"] == expected.history["loss"][:1]
    with pytest.raises(ValueError, match="a generator can be used once only"):
        spent = batches(x, y, 8)
        once.fit(spent, epochs=2, verbose=0)


def test_no_more_than_a_batch_is_ever_read():
    class OnDisk:
        """An array that tells how much of it was asked for at once."""

        def __init__(self, array):
            self.array, self.shape, self.dtype, self.largest = array, array.shape, array.dtype, 0

        def __len__(self):
            return len(self.array)

        def __getitem__(self, chosen):
            part = self.array[chosen]
            self.largest = max(self.largest, len(part))
            return part

    x, y = images(40), classes_of(images(40))
    model, disk = compiled(small_network("numpy")), (OnDisk(x), OnDisk(y))
    history = model.fit(*disk, batch_size=8, epochs=2, validation_data=(OnDisk(x), OnDisk(y)), verbose=0)
    assert (
        history.history
        == compiled(small_network("numpy")).fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0).history
    )
    assert (model.predict(disk[0], batch_size=8, verbose=0) == model.predict(x, batch_size=8, verbose=0)).all()
    assert (disk[0].largest, disk[1].largest) == (8, 8)


def test_weights_come_with_batches():
    x, y, w = images(16), classes_of(images(16)), np.linspace(0, 2, 16)
    expected = compiled(small_network("numpy")).fit(x, y, sample_weight=w, batch_size=8, shuffle=False, verbose=0)
    given = [(x[:8], y[:8], w[:8]), (x[8:], y[8:], w[8:])]
    loader = type("Loader", (), {"__iter__": lambda self: iter(given)})()
    assert compiled(small_network("numpy")).fit(loader, shuffle=False, verbose=0).history == expected.history


def test_several_inputs():
    class Two(xc.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.beside, self.dense = layers.Concatenate(), layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.dense(self.beside([inputs["left"], inputs["right"]]))

    x = {"left": normal(0, (12, 2), np.float32), "right": normal(1, (12, 4), np.float32)}
    model = compiled(Two(device="numpy", seed=0))
    history = model.fit(x, classes_of(x["left"]), epochs=4, verbose=0)
    assert history.history["loss"][3] < history.history["loss"][0]
    assert model.predict(x, verbose=0).shape == (12, 3)
    assert model.count_params() == 6 * 3 + 3


def test_predictions_come_in_batches_of_any_size(device):
    model = small_network(device)
    x = images(7)
    whole = model.predict(x, verbose=0)
    assert isinstance(whole, np.ndarray)
    assert whole.dtype == np.float32
    assert_close(model.predict(x, batch_size=3, verbose=0), whole.astype(np.float64), np.float32, terms=40)
    assert_close(xc.to_numpy(model(x)), whole.astype(np.float64), np.float32, terms=40)


def test_float64_is_float64_all_the_way(device):
    x, y = images().astype(np.float64), xc.to_categorical(classes_of(images()))
    model = compiled(small_network(device, dtype="float64"), loss="categorical_crossentropy", optimizer="adam")
    model.fit(x, y, epochs=2, verbose=0)
    assert {array.dtype for array in map(xc.to_numpy, model.weights)} == {np.dtype(np.float64)}
    assert {array.dtype for array in map(xc.to_numpy, model.optimizer.state_dict().values())} <= {
        np.dtype("f8"),
        np.dtype("i8"),
    }
    probabilities = model.predict(x, verbose=0)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-15)


def test_pixels_as_integers_are_taken_as_they_are():
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
    model = small_network("numpy")
    assert (model.predict(x, verbose=0) == model.predict(x.astype(np.float32), verbose=0)).all()


def test_the_same_seed_gives_the_same_training(device):
    def trained(seed):
        row = [layers.Flatten(), layers.Dense(8, activation="relu"), layers.Dropout(0.5), layers.Dense(3, activation="softmax")]
        model = compiled(xc.Sequential(row, device=device, seed=seed))
        return model.fit(images(40), classes_of(images(40)), batch_size=8, epochs=2, verbose=0).history, model.get_weights()

    (history, weights), (again, same), (other, _) = trained(3), trained(3), trained(4)
    assert history == again
    assert all((one == two).all() for one, two in zip(weights, same, strict=True))
    assert history != other


def test_without_a_seed_numpys_global_generator_decides():
    def trained():
        np.random.seed(7)
        model = compiled(small_network("numpy", seed=None))
        return model.fit(images(), classes_of(images()), epochs=2, batch_size=4, verbose=0).history

    assert trained() == trained()


def test_train_on_batch_and_test_on_batch():
    x, y = images(), classes_of(images())
    model = compiled(small_network("numpy"))
    first = model.train_on_batch(x, y, return_dict=True)
    assert set(first) == {"loss", "accuracy"}
    loss, accuracy = model.test_on_batch(x, y)
    assert (loss, accuracy) == pytest.approx(tuple(model.evaluate(x, y, verbose=0)))
    assert loss < first["loss"]


def test_a_callback_ends_the_training():
    class Stop(xc.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch, logs["loss"], set(logs)))
            self.model.stop_training = len(seen) == 2

    seen = []
    model = compiled(small_network("numpy"))
    history = model.fit(images(), classes_of(images()), batch_size=4, epochs=3, callbacks=[Stop()], verbose=0)
    assert [entry[0] for entry in seen] == [0, 1]
    assert seen[0][2] == {"loss", "accuracy"}
    assert history.epoch == [0]


def test_going_on_at_an_epoch():
    model = compiled(small_network("numpy"))
    history = model.fit(images(), classes_of(images()), initial_epoch=3, epochs=5, verbose=0)
    assert history.epoch == [3, 4]


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_ctrl_c_lets_the_step_finish():
    class Press(xc.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                signal.raise_signal(signal.SIGINT)

        def on_train_batch_end(self, batch, logs=None):
            finished.append(batch)

    finished = []
    model = compiled(small_network("numpy"))
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(images(), classes_of(images()), batch_size=4, callbacks=Press(), verbose=0)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert finished == [0, 1]
    assert model.optimizer.iteration == 2


# ----------------------------------------------------------------------------------------------------------------------
# What cannot be done
# ----------------------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_weights():
    x, y = images(), classes_of(images())
    model = compiled(small_network("numpy"))
    model.build((None, 8, 8, 1))
    before = model.get_weights()
    x[5, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match=r"fit: the loss is nan in epoch 1, step 2; the weights are those before this step"):
        model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    assert model.optimizer.iteration == 1
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert not (model.get_weights()[0] == before[0]).all()
    history = model.fit(x, y, batch_size=4, shuffle=False, epochs=3, callbacks=[xc.callbacks.TerminateOnNaN()], verbose=0)
    assert len(history.history["loss"]) <= 1


def test_a_loss_that_is_not_finite_leaves_running_means_alone():
    row = [layers.Flatten(), layers.BatchNormalization(), layers.Dense(3, activation="softmax")]
    model, x, y = compiled(xc.Sequential(row, device="numpy", seed=0)), images(), classes_of(images())
    model.fit(x, y, verbose=0)
    before = model.get_weights()
    x[5, 0, 0, 0] = np.inf
    with pytest.raises(TrainingError):
        model.fit(x, y, verbose=0)
    assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("row", "shape", "message"),
    [
        ([layers.Conv2D(4, 5, name="c")], (None, 3, 3, 1), r"layer 'c' \(Conv2D\): .*\(input shape \(None, 3, 3, 1\)\)"),
        ([layers.MaxPool2D(), layers.Conv2D(4, 3, name="d")], (None, 5, 5, 1), r"layer 'd' \(Conv2D\): .*\(None, 2, 2, 1\)"),
        ([layers.Flatten(), layers.MaxPool2D(name="q")], (None, 5, 5, 1), r"layer 'q' \(MaxPooling2D\): .*\(None, 25\)"),
        ([layers.Reshape((7,), name="r")], (None, 5), r"layer 'r' \(Reshape\): "),
    ],
)
def test_shapes_that_do_not_fit_are_told_when_the_model_is_built(row, shape, message):
    model = xc.Sequential(row, device="numpy")
    with pytest.raises(ValueError, match=message):
        model.build(shape)
    assert not model.built


def test_another_shape_than_it_was_built_for():
    model = small_network("numpy")
    model.build((None, 8, 8, 1))
    with pytest.raises(
        ValueError, match=r"the input must have the shape \(None, None, None, 1\), as when it was built, got \(2, 8, 8, 3\)"
    ):
        model(np.zeros((2, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match=r"layer 'dense\S*' \(Dense\): the input must have the shape \(None, 36\)"):
        model(np.zeros((2, 12, 12, 1), np.float32))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimizer": "adm"}, ValueError, "compile: optimizer 'adm' is unknown; did you mean 'adam'"),
        ({"loss": "categorical_crosentropy"}, ValueError, "did you mean 'categorical_crossentropy'"),
        ({"metrics": ["acuracy"]}, ValueError, "did you mean 'accuracy'"),
        ({"loss": lambda y, p: 0.0}, TypeError, "Loss"),
    ],
)
def test_unknown_names_are_told_with_the_near_ones(arguments, error, message):
    with pytest.raises(error, match=message):
        small_network("numpy").compile(**arguments)


def test_unknown_names_of_layers():
    with pytest.raises(ValueError, match="Dense: activation 'rellu' is unknown; did you mean 'relu'"):
        layers.Dense(3, activation="rellu")
    with pytest.raises(ValueError, match="did you mean 'glorot_uniform'"):
        layers.Conv2D(3, 3, kernel_initializer="glorot_unifrm")
    with pytest.raises(TypeError, match="Dense: got an unexpected keyword argument 'activatoin'"):
        layers.Dense(3, activatoin="relu")


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        (classes_of(images()), "categorical_crossentropy", "sparse_categorical_crossentropy"),
        (xc.to_categorical(classes_of(images())), "sparse_categorical_crossentropy", "categorical_crossentropy"),
        (classes_of(images()) + 1, "sparse_categorical_crossentropy", "3"),
        (classes_of(images())[:11], "sparse_categorical_crossentropy", "12 in x, 11 in y"),
        (None, "sparse_categorical_crossentropy", "labels"),
    ],
)
def test_labels_of_the_wrong_kind(labels, loss, message):
    model = compiled(small_network("numpy"), loss=loss)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(images(), labels, verbose=0)


def test_what_needs_weights_or_compiling():
    model = small_network("numpy")
    with pytest.raises(RuntimeError, match=r"fit: layer 'sequential\S*' \(Sequential\) must be compiled first"):
        model.fit(images(), classes_of(images()))
    model.compile()
    with pytest.raises(ValueError, match="was compiled without a loss"):
        model.evaluate(images(), classes_of(images()))
    with pytest.raises(ValueError, match="count_params needs the weights"):
        model.count_params()
    with pytest.raises(ValueError, match="has no weights yet"):
        model.save("nowhere.safetensors")
    with pytest.raises(RuntimeError, match="call the layer first with training=True"):
        model.backward(np.zeros((1, 3)))
    assert model.weights == []


def test_set_weights_refuses_the_wrong_count_and_shape():
    model = small_network("numpy")
    model.build((None, 8, 8, 1))
    before = model.get_weights()
    with pytest.raises(ValueError, match="was given 3 arrays, and the layer has 4 weights"):
        model.set_weights(before[:3])
    with pytest.raises(ValueError, match=r"weights\[3\] \(bias\) must have the shape \(3,\), got \(4,\)"):
        model.set_weights([weight + 1 for weight in before[:3]] + [np.zeros(4)])
    assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))


def test_a_class_that_forgets_its_base():
    class Forgetful(xc.Model):
        def __init__(self):
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    with pytest.raises(RuntimeError, match=r"Forgetful.__init__ must call super\(\).__init__\(\)"):
        Forgetful()(np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"validation_split": 1.0}, ValueError, "validation_split must be at least 0 and less than 1"),
        ({"validation_split": 0.99}, ValueError, "leaves none to learn from"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"class_weight": {7: 1.0}}, ValueError, "3 classes"),
        ({"class_weight": {0: 1.0}, "sample_weight": np.ones(12)}, ValueError, "class_weight or sample_weight, not both"),
        ({"sample_weight": np.ones(11)}, ValueError, "11 in sample_weight"),
        ({"callbacks": ["x"]}, TypeError, "callbacks must be objects of classes derived from"),
        ({"verbose": 7}, ValueError, "verbose"),
        ({"validation_data": (1, 2, 3, 4)}, ValueError, "validation_data must be"),
    ],
)
def test_arguments_of_fit_that_do_not_fit(arguments, error, message):
    model = compiled(small_network("numpy"))
    with pytest.raises(error, match=message):
        model.fit(images(), classes_of(images()), **{"verbose": 0, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (None, ValueError, "x is None"),
        (np.zeros((0, 8, 8, 1)), ValueError, "x has no samples"),
        (3, TypeError, "x must be an array"),
        (np.zeros((2, 8, 8, 1), complex), TypeError, "real numbers"),
        ([], ValueError, "no array"),
    ],
)
def test_samples_that_are_none(x, error, message):
    model = compiled(small_network("numpy"))
    with pytest.raises(error, match=message):
        model.predict(x, verbose=0)


def test_a_call_that_only_shows_something(capsys):
    class Shown(xc.Model):
        def __init__(self):
            super().__init__(device="numpy")
            self.dense = layers.Dense(3)

        def call(self, x):
            print(self.dense(x).shape)

    model = Shown()
    assert model(np.zeros((2, 4))) is None
    assert capsys.readouterr().out == "(2, 3)\n"
    assert model.count_params() == 15
    with pytest.raises(TypeError, match=r"fit: call of layer 'shown\S*' \(Shown\) must return one array, got NoneType"):
        compiled(model).fit(np.zeros((2, 4)), np.zeros(2, int), verbose=0)


def test_layers_of_one_name():
    with pytest.raises(ValueError, match="layer names must differ, and there are two of the name 'a'"):
        xc.Sequential([layers.Dense(1, name="a"), layers.Dense(2, name="a")], device="numpy")
    with pytest.raises(TypeError, match="an entry must be a layer"):
        xc.Sequential([np.zeros(3)], device="numpy")


# ----------------------------------------------------------------------------------------------------------------------
# Summary, graph, names
# ----------------------------------------------------------------------------------------------------------------------


def test_layers_are_added_and_taken_away():
    model = xc.Sequential([xc.Input((4,)), layers.Dense(3)], device="numpy")
    assert model.output_shape == (None, 3)
    model.add(layers.Dense(2))
    assert (model.output_shape, model.count_params()) == ((None, 2), 4 * 3 + 3 + 3 * 2 + 2)
    with pytest.raises(ValueError, match="MaxPooling2D"):
        model.add(layers.MaxPool2D())
    assert len(model.layers) == 2
    model.pop()
    assert model.output_shape == (None, 3)


def test_layers_by_name_and_position():
    model = xc.Sequential([layers.Flatten(), layers.Dense(3, name="scores")], device="numpy")
    assert model.get_layer("scores") is model.get_layer(index=1) is model.get_layer(index=-1) is model.layers[1]
    with pytest.raises(ValueError, match="layer 'score' is unknown; did you mean 'scores'"):
        model.get_layer("score")
    with pytest.raises(ValueError, match="there are 2 layers, and none at index 2"):
        model.get_layer(index=2)
    with pytest.raises(ValueError, match="takes name or index"):
        model.get_layer()


def rows_of(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in re.split(r"[│|]", line)[1:-1]] for line in lines if re.match(r"[│|]", line)]


def test_summary_counts_what_there_is(capsys):
    model = compiled(small_network("numpy"), optimizer="adam")
    model.summary()
    text = capsys.readouterr().out
    assert "0 (unbuilt)" in text
    model.fit(images(), classes_of(images()), verbose=0)
    model.summary()
    rows = rows_of(capsys)
    assert [row[1:] for row in rows] == [
        ["(None, 6, 6, 4)", "40"],
        ["(None, 3, 3, 4)", "0"],
        ["(None, 36)", "0"],
        ["(None, 3)", "111"],
    ]
    model.summary()
    # 151 numbers of 4 bytes; Adam keeps two more for each.
    assert capsys.readouterr().out.splitlines()[-4:] == [
        " Total params: 151 (604.00 B)",
        " Trainable params: 151 (604.00 B)",
        " Non-trainable params: 0 (0.00 B)",
        " Optimizer params: 302 (1.18 KB)",
    ]


def test_the_graph_of_branches():
    model = Residual(device="numpy", seed=0)
    model.build((None, 8, 8, 1))
    nodes, edges = model.graph()
    assert [node.kind for node in nodes] == ["Input", "Conv2D", "Conv2D", "Add", "Concatenate", "Flatten", "Dense"]
    assert edges == [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (1, 4), (0, 4), (4, 5), (5, 6)]
    assert nodes[1].parameters == 3 * 3 * 1 * 3 + 3
    assert nodes[4].output_shape == (None, 8, 8, 7)


# ----------------------------------------------------------------------------------------------------------------------
# Files and devices
# ----------------------------------------------------------------------------------------------------------------------


def test_a_saved_model_goes_on_as_if_nothing_had_been(tmp_path, device):
    x, y = images(), classes_of(images())
    path = tmp_path / "model.safetensors"
    model = compiled(small_network(device), optimizer="adam")
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    model.save(path)
    loaded = xc.models.load_model(path, device=device)
    assert (loaded.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    expected = model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    assert loaded.fit(x, y, epochs=2, shuffle=False, verbose=0).history == expected.history
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_go_into_a_model_of_the_same_layers(tmp_path):
    path = tmp_path / "weights.safetensors"
    model = Residual(device="numpy", seed=0)
    model.build((None, 8, 8, 1))
    model.save_weights(path)
    other = Residual(device="numpy", seed=1)
    with pytest.raises(ValueError, match="need a model that is built"):
        other.load_weights(path)
    other.build((None, 8, 8, 1))
    other.load_weights(path)
    assert all((one == two).all() for one, two in zip(model.get_weights(), other.get_weights(), strict=True))
    with pytest.raises(ParameterFileError, match="holds weights but no model"):
        xc.models.load_model(path)


def test_a_class_of_ones_own_is_made_again_where_it_is_known(tmp_path):
    path = tmp_path / "model.safetensors"
    model = compiled(Residual(device="numpy", seed=0), loss=xc.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images(), classes_of(images()), verbose=0)
    model.save(path)
    with pytest.raises(ValueError, match=r"class \(give your own in custom_objects\) 'Residual' is unknown"):
        xc.models.load_model(path)
    loaded = xc.models.load_model(path, {"Residual": Residual}, device="numpy")
    assert (loaded.predict(images(), verbose=0) == model.predict(images(), verbose=0)).all()


def test_the_file_of_another_model_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "model.safetensors"
    model = small_network("numpy")
    model.build((None, 8, 8, 1))
    model.save(path)
    other = xc.Sequential([xc.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)], device="numpy", seed=0)
    before = other.get_weights()
    with pytest.raises(ParameterFileError, match="does not fit this network"):
        other.load(path)
    assert all((one == two).all() for one, two in zip(before, other.get_weights(), strict=True))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ParameterFileError):
        xc.models.load_model(damaged)
    arrays, metadata = load_parameters(path)
    text = json.loads(metadata["xpconv.model"])
    text["class_name"] = "os.system"
    save_parameters(damaged, arrays, {"xpconv.model": json.dumps(text)})
    with pytest.raises(ValueError, match=r"'os.system' is unknown"):
        xc.models.load_model(damaged)
    good = json.loads(metadata["xpconv.model"])
    for wrong in (
        {**good, "config": {"layers": [{"config": {}}]}},
        {**good, "config": {"layers": [{"class_name": "Dense", "config": {"unit": 3}}]}},
        {**good, "config": {**good["config"], "depth": 3}},
        {**good, "input_shape": 7},
        {**good, "compiled": {"optimiser": "adam"}},
        {**good, "class_name": "Dense", "config": {"units": 3}},
    ):
        save_parameters(damaged, arrays, {"xpconv.model": json.dumps(wrong)})
        with pytest.raises(ParameterFileError, match=r"damaged.safetensors describes a model that cannot be made"):
            xc.models.load_model(damaged)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"])
def test_a_copy_learns_on_its_own(copied):
    x, y = images(), classes_of(images())
    model = compiled(small_network("numpy"), optimizer="adam")
    model.fit(x, y, shuffle=False, verbose=0)
    other = copied(model)
    assert (other.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    expected = model.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    before = other.get_weights()
    assert other.fit(x, y, epochs=2, shuffle=False, verbose=0).history == expected
    assert not (before[0] == other.get_weights()[0]).all()


def test_a_model_moves_with_its_optimizer(device):
    x, y = images(), classes_of(images())

    def losses(*places):
        model = compiled(small_network(places[0]), optimizer="adam")
        found = []
        for place in places:
            model.to(place)
            found += model.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
        return found

    np.testing.assert_allclose(losses("numpy", device, "numpy"), losses("numpy", "numpy", "numpy"), rtol=1e-4)


def test_on_a_card(cupy):
    x, y = images(), classes_of(images())
    expected = compiled(small_network("cudasim"), optimizer="adam").fit(x, y, epochs=2, batch_size=4, verbose=0)
    model = compiled(small_network("cuda:1"), optimizer="adam")
    history = model.fit(x, y, epochs=2, batch_size=4, verbose=0)
    assert history.history == expected.history
    assert all(isinstance(array, cupy.ndarray) and array.device.id == 1 for array in model.weights)
    assert isinstance(model.predict(x, verbose=0), np.ndarray)
    assert model.to("numpy").evaluate(x, y, verbose=0)[0] < history.history["loss"][0]


# ----------------------------------------------------------------------------------------------------------------------
# SimpleConvNet in these layers
# ----------------------------------------------------------------------------------------------------------------------


def simple_convnet_in_layers(net, device, dtype):
    """The book's network in Keras' layers, with the same weights."""
    first = {"data_format": "channels_first"}
    model = xc.Sequential(
        [
            xc.Input((1, 28, 28)),
            layers.Conv2D(30, 5, activation="relu", **first),
            layers.MaxPool2D(**first),
            layers.Reshape((30 * 12 * 12,)),  # Flatten would put the channels last, as Keras does
            layers.Dense(100, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        device=device,
        dtype=dtype,
    )
    book = {name: xc.to_numpy(value) for name, value in net.params.items()}
    weights = [book["W1"].transpose(2, 3, 1, 0), *(book[name] for name in ("b1", "W2", "b2", "W3", "b3"))]
    model.set_weights(weights)
    return model


@pytest.mark.parametrize("tolerance", [("float32", 2e-4), ("float64", 1e-10)], ids=["float32", "float64"])
def test_simple_convnet_in_these_layers_gives_the_books_losses_step_for_step(device, tolerance):
    dtype, rtol = tolerance
    (x, t), _ = xc.datasets.load_mnist()
    net = xc.SimpleConvNet(weight_init_std="he", device=device, dtype=dtype, seed=0)
    model = simple_convnet_in_layers(net, device, dtype)
    model.compile(optimizer=xc.optimizers.Adam(0.001), loss="sparse_categorical_crossentropy")
    book, ours = [], []
    optimizer = xc.Adam(0.001)
    for first in range(0, 8 * 20, 20):
        batch = x[first : first + 20], t[first : first + 20]
        loss, grads = net.loss_and_gradient(*batch)
        optimizer.update(net.params, grads, device=net.device)
        book.append(float(loss))
        ours.append(model.train_on_batch(*batch))
    assert book[-1] < book[0]
    np.testing.assert_allclose(ours, book, rtol=rtol)


# ----------------------------------------------------------------------------------------------------------------------
# What a file cannot hold
# ----------------------------------------------------------------------------------------------------------------------


class Ramp(xc.initializers.Initializer):
    def __init__(self, top=1):
        self.top = np.float32(top)

    def values(self, shape, random):
        return np.linspace(0, self.top, int(np.prod(shape))).reshape(shape)


def ones_of(shape, dtype):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        (ones_of, r"kernel_initializer: .* the function .*ones_of.*; instead, derive a class .*initializers\.Initializer"),
        (np.ones((4, 2)), r"kernel_initializer: .* an array, .*\(4, 2\); .* give xpconv\.initializers\.Constant\(array\)"),
    ],
    ids=["function", "array"],
)
def test_an_initializer_that_no_file_can_hold_is_told_when_the_model_is_saved(tmp_path, initializer, message):
    model = xc.Sequential([xc.Input((4,)), layers.Dense(2, kernel_initializer=initializer, name="hidden")], device="numpy")
    assert (model.get_weights()[0] == 1).all()
    with pytest.raises(TypeError, match=rf"^layer .*: layers: layer 'hidden' \(Dense\): {message}"):
        model.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    model.save_weights(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "initializer",
    [xc.initializers.Constant(np.ones((4, 2))), xc.initializers.Ones, {"class_name": "Ones"}, "ones"],
    ids=["object", "class", "configuration", "name"],
)
def test_initializers_that_a_file_can_hold(tmp_path, initializer):
    model = xc.Sequential([xc.Input((4,)), layers.Dense(2, kernel_initializer=initializer)], device="numpy")
    model.save(tmp_path / "model.safetensors")
    again = xc.models.load_model(tmp_path / "model.safetensors", device="numpy").layers[0]
    assert (again.kernel_initializer((4, 2)) == 1).all()


def test_numbers_of_numpy_in_an_objects_configuration_are_written_as_numbers():
    config = layers.Dense(2, kernel_initializer=Ramp()).get_config()
    assert json.loads(json.dumps(config))["kernel_initializer"] == {"class_name": "Ramp", "config": {"top": 1.0}}


def test_a_model_is_saved_with_a_metric_that_is_a_function(tmp_path):
    def worst(y_true, y_pred):
        return abs(y_true - y_pred).max(axis=-1)

    model = xc.Sequential([xc.Input((4,)), layers.Dense(2)], device="numpy")
    compiled(model, loss=xc.losses.mean_squared_error, metrics=[worst]).save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="metric 'worst' is unknown"):
        again = xc.models.load_model(tmp_path / "model.safetensors", device="numpy")
        again.fit(np.zeros((2, 4)), np.zeros((2, 2)), verbose=0)
    again = xc.models.load_model(tmp_path / "model.safetensors", compile=False, device="numpy")
    assert (again.get_weights()[0] == model.get_weights()[0]).all()
