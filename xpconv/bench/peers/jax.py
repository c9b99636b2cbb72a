"""JAX: everything under ``jax.jit``, in channels_last order, which its CPU backend likes better."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.peers import base
from xpconv.bench.workloads import Convolution, ConvolutionReluPooling, Pooling, TrainingStep

LAYOUTS = ("NHWC", "HWIO", "NHWC")


class Peer(base.Peer):
    """JAX on the CPU."""

    def __init__(self, variant: str, threads: int) -> None:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["PJRT_NPROC"] = str(threads)  # read when the backend starts; there is no function for it
        self.jax: Any = importlib.import_module("jax")

    def versions(self) -> dict[str, str]:
        """Version of JAX."""
        return {"jax": str(self.jax.__version__)}

    def convolution(self, workload: Convolution) -> dict[str, base.Operation]:
        """``conv_general_dilated`` and its derivatives by ``jax.vjp``."""
        jax = self.jax
        inputs = workload.inputs()
        x, dy = jax.numpy.asarray(base.channels_last(inputs["x"])), jax.numpy.asarray(base.channels_last(inputs["dy"]))
        w, b = jax.numpy.asarray(base.filters_last(inputs["w"])), jax.numpy.asarray(inputs["b"])
        pads = [(workload.padding, workload.padding)] * 2

        def convolve(x: Any, w: Any, b: Any) -> Any:
            strides = (workload.stride, workload.stride)
            groups = workload.groups
            y = jax.lax.conv_general_dilated(x, w, strides, pads, dimension_numbers=LAYOUTS, feature_group_count=groups)
            return y + b

        def total(x: Any, w: Any, b: Any, dy: Any) -> Any:
            y, gradients = jax.vjp(convolve, x, w, b)
            return y, *gradients(dy)

        runs = {
            "fwd": self._compiled(convolve, x, w, b),
            "dx": self._compiled(lambda x, w, b, dy: jax.vjp(lambda x: convolve(x, w, b), x)[1](dy)[0], x, w, b, dy),
            "dw": self._compiled(lambda x, w, b, dy: jax.vjp(lambda w, b: convolve(x, w, b), w, b)[1](dy), x, w, b, dy),
            "tot": self._compiled(total, x, w, b, dy),
        }
        return base.operations(runs, base.CONVOLUTION_RESULTS, _to_numpy)

    def convolution_relu_pooling(self, workload: ConvolutionReluPooling) -> dict[str, base.Operation]:
        """One jitted function of all of it."""
        jax = self.jax
        inputs = workload.inputs()
        x, w = jax.numpy.asarray(base.channels_last(inputs["x"])), jax.numpy.asarray(base.filters_last(inputs["w"]))
        b = jax.numpy.asarray(inputs["b"])
        return base.operations({"fwd": self._compiled(self._block, x, w, b)}, {"fwd": ("y",)}, _to_numpy)

    def pooling(self, workload: Pooling) -> dict[str, base.Operation]:
        """``reduce_window`` and its derivative."""
        jax = self.jax
        x, dy = (jax.numpy.asarray(base.channels_last(array)) for array in workload.inputs().values())
        size, pad = workload.pool_size, (workload.padding, workload.padding)
        window, strides = (1, size, size, 1), (1, workload.stride, workload.stride, 1)
        pads = ((0, 0), pad, pad, (0, 0))

        def pool(x: Any) -> Any:
            if workload.kind == "max":
                return jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, strides, pads)
            return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, pads) / size**2

        def total(x: Any, dy: Any) -> Any:
            y, gradient = jax.vjp(pool, x)
            return y, *gradient(dy)

        runs = {
            "fwd": self._compiled(pool, x),
            "bwd": self._compiled(lambda x, dy: jax.vjp(pool, x)[1](dy)[0], x, dy),
            "tot": self._compiled(total, x, dy),
        }
        return base.operations(runs, base.POOLING_RESULTS, _to_numpy)

    def training_step(self, workload: TrainingStep) -> dict[str, base.Operation]:
        """The whole update, Adam included, as one jitted function that writes over the old parameters."""
        jax = self.jax
        jnp = jax.numpy
        inputs = workload.inputs()
        params = jax.tree.map(jnp.asarray, base.parameters_last(workload, inputs))
        images, labels = base.channels_last(inputs["images"]), inputs["labels"]
        random = np.random.default_rng(0)

        def loss_of(params: Any, x: Any, t: Any) -> Any:
            pooled = self._block(x, params["W1"], params["b1"])
            hidden = jnp.maximum(pooled.reshape(len(x), -1) @ params["W2"] + params["b2"], 0)
            scores = hidden @ params["W3"] + params["b3"]
            return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(len(x)), t])

        def update(state: Any, x: Any, t: Any) -> Any:
            params, means, squares, updates = state
            loss, gradients = jax.value_and_grad(loss_of)(params, x, t)
            updates = updates + 1
            means = jax.tree.map(lambda mean, gradient: 0.9 * mean + 0.1 * gradient, means, gradients)
            squares = jax.tree.map(lambda square, gradient: 0.999 * square + 0.001 * gradient**2, squares, gradients)
            lr = workload.lr * jnp.sqrt(1 - 0.999**updates) / (1 - 0.9**updates)
            params = jax.tree.map(
                lambda param, mean, square: param - lr * mean / (jnp.sqrt(square) + 1e-7), params, means, squares
            )
            return (params, means, squares, updates), loss

        compiled = jax.jit(update, donate_argnums=0)
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = (jax.tree.map(jnp.copy, params), zeros, jax.tree.map(jnp.copy, zeros), jnp.float32(0))

        def step(chosen: Any) -> float:
            nonlocal state
            state, loss = compiled(state, images[chosen], labels[chosen])
            return float(loss)

        def outcome() -> dict[str, base.Array]:
            first = workload.first_batch
            gradients = jax.jit(jax.grad(loss_of))(params, images[first], labels[first])
            named = {name: np.asarray(gradient) for name, gradient in gradients.items()}
            return {"loss": np.asarray(step(first)), **base.gradients_first(workload, named)}

        return {"step": base.Operation(lambda: step(workload.draw(random)), outcome)}

    def _block(self, x: Any, w: Any, b: Any) -> Any:
        lax, window = self.jax.lax, (1, 2, 2, 1)
        convolved = lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=LAYOUTS) + b
        return lax.reduce_window(self.jax.numpy.maximum(convolved, 0), -np.inf, lax.max, window, window, "VALID")

    def _compiled(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        compiled = self.jax.jit(function)
        return lambda: self.jax.block_until_ready(compiled(*arguments))


def _to_numpy(name: str, value: Any) -> base.Array:
    array = np.asarray(value)
    if array.ndim != 4:
        return array
    return base.filters_first(array) if name == "dw" else base.channels_first(array)
