"""Keras on TensorFlow: the training step by ``train_on_batch``."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from xpconv.bench.peers import base
from xpconv.bench.peers.tensorflow import start
from xpconv.bench.workloads import TrainingStep

NAMES = ("W1", "b1", "W2", "b2", "W3", "b3")


class Peer(base.Peer):
    """Keras with TensorFlow as its backend, compiled as Keras itself sees fit."""

    def __init__(self, variant: str, threads: int) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        self.tf = start(threads)
        self.keras: Any = importlib.import_module("keras")

    def versions(self) -> dict[str, str]:
        """Versions of Keras and TensorFlow."""
        return {"keras": str(self.keras.__version__), "tensorflow": str(self.tf.__version__)}

    def training_step(self, workload: TrainingStep) -> dict[str, base.Operation]:
        """A ``Sequential`` model; ``train_on_batch`` is faster than ``fit``."""
        tf, keras = self.tf, self.keras
        inputs = workload.inputs()
        net = keras.Sequential(
            [
                keras.layers.Input((workload.size, workload.size, 1)),
                keras.layers.Conv2D(workload.filters, workload.kernel_size, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Flatten(),
                keras.layers.Dense(workload.hidden, activation="relu"),
                keras.layers.Dense(workload.classes),
            ]
        )
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile(keras.optimizers.Adam(workload.lr), loss_of)
        params = base.parameters_last(workload, inputs)
        net.set_weights([params[name] for name in NAMES])
        images, labels = base.channels_last(inputs["images"]), inputs["labels"]
        random = np.random.default_rng(0)

        def step(chosen: Any) -> float:
            # The loss of the first call; later ones return the mean of all so far, which nobody looks at.
            return float(net.train_on_batch(images[chosen], labels[chosen]))

        def outcome() -> dict[str, base.Array]:
            first = workload.first_batch
            with tf.GradientTape() as tape:
                loss = loss_of(labels[first], net(images[first], training=True))
            gradients = tape.gradient(loss, [variable.value for variable in net.trainable_variables])
            named = {name: gradient.numpy() for name, gradient in zip(NAMES, gradients, strict=True)}
            return {"loss": np.asarray(step(first)), **base.gradients_first(workload, named)}

        return {"step": base.Operation(lambda: step(workload.draw(random)), outcome)}
