"""The from-scratch book's way in plain NumPy: im2col, one matrix product, col2im; pooling by columns and argmax.

Written anew from the algorithm, not taken from the book, and kept apart from xpconv's own code on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.peers import base
from xpconv.bench.workloads import Convolution, Pooling, TrainingStep

Array = base.Array


class Peer(base.Peer):
    """The book; the variant is the dtype. Its own code computes in float64."""

    def __init__(self, variant: str, threads: int) -> None:
        # Threads: BLAS takes them from the environment, which the runner sets.
        self.dtype = np.dtype(variant)

    def versions(self) -> dict[str, str]:
        """Version of NumPy."""
        return {"numpy": np.__version__}

    def convolution(self, workload: Convolution) -> dict[str, base.Operation]:
        """Convolution by columns; the book knows no groups."""
        if workload.groups != 1:
            return {}
        x, w, b, dy = (array.astype(self.dtype) for array in workload.inputs().values())
        layer = _Convolution(w, b, workload.stride, workload.padding)
        layer.forward(x)

        def total() -> tuple[Array, ...]:
            y = layer.forward(x)
            dw, db = layer.weight_gradients(dy)
            return y, layer.input_gradient(dy), dw, db

        runs: dict[str, Callable[[], Any]] = {
            "fwd": lambda: layer.forward(x),
            "dx": lambda: layer.input_gradient(dy),
            "dw": lambda: layer.weight_gradients(dy),
            "tot": total,
        }
        return base.operations(runs, base.CONVOLUTION_RESULTS, lambda _, value: value)

    def pooling(self, workload: Pooling) -> dict[str, base.Operation]:
        """Max pooling by columns; the book knows no average and pads with zeros, which would win over negative numbers."""
        if workload.kind != "max" or workload.padding:
            return {}
        x, dy = (array.astype(self.dtype) for array in workload.inputs().values())
        layer = _MaxPooling(workload.pool_size, workload.stride)
        layer.forward(x)
        runs: dict[str, Callable[[], Any]] = {
            "fwd": lambda: layer.forward(x),
            "bwd": lambda: layer.backward(dy),
            "tot": lambda: (layer.forward(x), layer.backward(dy)),
        }
        return base.operations(runs, base.POOLING_RESULTS, lambda _, value: value)

    def training_step(self, workload: TrainingStep) -> dict[str, base.Operation]:
        """The network layer by layer, and Adam as the book writes it."""
        inputs = workload.inputs()
        params = {name: inputs[name].astype(self.dtype) for name in ("W1", "b1", "W2", "b2", "W3", "b3")}
        images, labels = inputs["images"].astype(self.dtype), inputs["labels"]
        means = {name: np.zeros_like(array) for name, array in params.items()}
        squares = {name: np.zeros_like(array) for name, array in params.items()}
        convolution, pooling = _Convolution(params["W1"], params["b1"], 1, 0), _MaxPooling(2, 2)
        rows = np.arange(workload.batch)
        random = np.random.default_rng(0)
        updates = 0

        def loss_and_gradients(x: Array, t: Array) -> tuple[float, dict[str, Array]]:
            convolved = convolution.forward(x)
            off1 = convolved <= 0
            convolved[off1] = 0
            pooled = pooling.forward(convolved)
            flat = pooled.reshape(len(x), -1)
            hidden = flat @ params["W2"] + params["b2"]
            off2 = hidden <= 0
            hidden[off2] = 0
            scores = hidden @ params["W3"] + params["b3"]
            exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
            probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
            loss = float(-np.log(probabilities[rows, t] + 1e-7).mean())

            d_scores = probabilities.copy()
            d_scores[rows, t] -= 1
            d_scores /= len(x)
            gradients = {"W3": hidden.T @ d_scores, "b3": d_scores.sum(axis=0)}
            d_hidden = d_scores @ params["W3"].T
            d_hidden[off2] = 0
            gradients |= {"W2": flat.T @ d_hidden, "b2": d_hidden.sum(axis=0)}
            d_convolved = pooling.backward((d_hidden @ params["W2"].T).reshape(pooled.shape))
            d_convolved[off1] = 0
            gradients["W1"], gradients["b1"] = convolution.weight_gradients(d_convolved)
            convolution.input_gradient(d_convolved)  # of the images, which nobody needs: the book's layers always compute it
            return loss, gradients

        def step(chosen: Array) -> tuple[float, dict[str, Array]]:
            nonlocal updates
            loss, gradients = loss_and_gradients(images[chosen], labels[chosen])
            updates += 1
            lr = workload.lr * np.sqrt(1 - 0.999**updates) / (1 - 0.9**updates)
            for name, param in params.items():
                means[name] += (1 - 0.9) * (gradients[name] - means[name])
                squares[name] += (1 - 0.999) * (gradients[name] ** 2 - squares[name])
                param -= lr.astype(self.dtype) * means[name] / (np.sqrt(squares[name]) + 1e-7)
            return loss, gradients

        def outcome() -> dict[str, Array]:
            loss, gradients = step(workload.first_batch)
            return {"loss": np.asarray(loss), **{f"d{name}": gradient for name, gradient in gradients.items()}}

        return {"step": base.Operation(lambda: step(workload.draw(random)), outcome)}


class _Convolution:
    def __init__(self, w: Array, b: Array, stride: int, padding: int) -> None:
        self.w, self.b, self.stride, self.padding = w, b, stride, padding
        self.matrix = w.reshape(len(w), -1).T
        self.x_shape: tuple[int, ...] = ()
        self.columns = np.empty(0)

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        kernel_size = self.w.shape[2]
        self.columns = _im2col(x, kernel_size, self.stride, self.padding)
        size = (x.shape[2] + 2 * self.padding - kernel_size) // self.stride + 1
        return (self.columns @ self.matrix + self.b).reshape(len(x), size, size, -1).transpose(0, 3, 1, 2)

    def weight_gradients(self, dy: Array) -> tuple[Array, Array]:
        rows = _rows(dy)
        return (self.columns.T @ rows).T.reshape(self.w.shape), rows.sum(axis=0)

    def input_gradient(self, dy: Array) -> Array:
        return _col2im(_rows(dy) @ self.matrix.T, self.x_shape, self.w.shape[2], self.stride, self.padding)


class _MaxPooling:
    def __init__(self, pool_size: int, stride: int) -> None:
        self.pool_size, self.stride = pool_size, stride
        self.x_shape: tuple[int, ...] = ()
        self.winners = np.empty(0, np.intp)

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        windows = _im2col(x, self.pool_size, self.stride, 0).reshape(-1, self.pool_size**2)
        self.winners = windows.argmax(axis=1)
        size = (x.shape[2] - self.pool_size) // self.stride + 1
        pooled: Array = windows.max(axis=1).reshape(len(x), size, size, -1).transpose(0, 3, 1, 2)
        return pooled

    def backward(self, dy: Array) -> Array:
        windows = np.zeros((dy.size, self.pool_size**2), dy.dtype)
        windows[np.arange(dy.size), self.winners] = dy.transpose(0, 2, 3, 1).ravel()
        columns = windows.reshape(dy.size // dy.shape[1], -1)
        return _col2im(columns, self.x_shape, self.pool_size, self.stride, 0)


def _rows(dy: Array) -> Array:
    """A row a pixel, a column a filter."""
    return dy.transpose(0, 2, 3, 1).reshape(-1, dy.shape[1])


def _im2col(x: Array, kernel_size: int, stride: int, padding: int) -> Array:
    """A row a window, a column a tap of a channel."""
    batch, channels, height, width = x.shape
    rows = (height + 2 * padding - kernel_size) // stride + 1
    columns = (width + 2 * padding - kernel_size) // stride + 1
    padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    taps = np.zeros((batch, channels, kernel_size, kernel_size, rows, columns), x.dtype)
    for i in range(kernel_size):
        for j in range(kernel_size):
            taps[:, :, i, j] = padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
    return taps.transpose(0, 4, 5, 1, 2, 3).reshape(batch * rows * columns, -1)


def _col2im(windows: Array, x_shape: tuple[int, ...], kernel_size: int, stride: int, padding: int) -> Array:
    """Add every tap to the pixel it was taken from."""
    batch, channels, height, width = x_shape
    rows = (height + 2 * padding - kernel_size) // stride + 1
    columns = (width + 2 * padding - kernel_size) // stride + 1
    taps = windows.reshape(batch, rows, columns, channels, kernel_size, kernel_size).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding), windows.dtype)
    for i in range(kernel_size):
        for j in range(kernel_size):
            padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride] += taps[:, :, i, j]
    return padded[:, :, padding : padding + height, padding : padding + width]
