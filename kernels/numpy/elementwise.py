"""Passes that touch every element: ReLU, softmax with its loss, and the updates of the optimizers.

An update reads and writes three or four arrays of a parameter's size. Block by block the intermediate results stay in the
cache; large parameters are shared among the threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from xpconv.kernels.numpy.threads import buffer, parallel, thread_count
from xpconv.kernels.numpy.windows import Array

# Elements that a thread takes at a time, at most: of 16 Ki to 512 Ki this was the fastest with two threads. Smaller blocks lose
# to the GIL, larger ones to the cache.
BLOCK = 1 << 18
# Elements below which starting a thread costs more than it saves.
SMALL = 1 << 15


def relu_forward(x: Array) -> Array:
    """``max(x, 0)``, NaN kept."""
    y = np.empty_like(x)

    def sweep(x: Array, y: Array) -> None:
        np.maximum(x, 0, out=y)

    _in_blocks(sweep, x, y)
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """``dy`` where ReLU let its input through, else zero."""
    dx = np.empty_like(dy)
    bits = np.dtype(f"i{dy.itemsize}")

    def sweep(dy: Array, y: Array, dx: Array) -> None:
        # Masking the bits, not multiplying, keeps infinite gradients out of where they don't belong.
        passed = np.greater(y, 0, out=buffer("passed", y.shape, np.dtype(bool)))
        mask = np.negative(passed.view(np.int8), out=buffer("mask", y.shape, bits))
        np.bitwise_and(dy.view(bits), mask, out=dx.view(bits))

    _in_blocks(sweep, dy, y, dx)
    return dx


def all_finite(x: Array) -> bool:
    """Whether no element is NaN or infinite."""
    # A sum of squares is finite only if all terms are, and costs one pass without a temporary. It may overflow by itself.
    return math.isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())


def softmax_cross_entropy_forward(x: Array, labels: Array) -> tuple[float, Array]:
    """The mean cross-entropy loss of scores (N, classes), N at least 1, and their softmax.

    Both come from the scores: no logarithm is taken of a probability, so that no loss is too large to be told.

    Args:
        x: Scores.
        labels: int64 (N,) classes, or (N, classes) rows of probabilities.
    """
    below_maximum = x - x.max(axis=1, keepdims=True)
    y = np.exp(below_maximum)
    sums = y.sum(axis=1, keepdims=True)
    y /= sums
    logarithms = np.log(sums)
    if labels.ndim == 1:
        losses = logarithms[:, 0] - below_maximum[np.arange(len(labels)), labels]
    else:
        # 0 * infinity counts nothing: an impossible class that no label asks for.
        losses = (labels * np.where(labels > 0, logarithms - below_maximum, 0)).sum(axis=1)
    return float(losses.sum(dtype=np.float64)) / len(labels), y


def softmax_cross_entropy_backward(y: Array, labels: Array, dloss: float) -> Array:
    """The gradient of the scores, ``dloss * (y - labels) / N``, from the softmax ``y`` and labels as in the forward pass."""
    if labels.ndim == 1:
        dx = y.copy()
        dx[np.arange(len(labels)), labels] -= 1
    else:
        # Rows sum to 1 within the rounding of whoever made them; the gradient is that of the rows as they are.
        dx = y * labels.sum(axis=1, keepdims=True, dtype=y.dtype) - labels.astype(y.dtype)
    dx *= dloss / len(labels)
    return dx


def sgd_update(param: Array, grad: Array, lr: float) -> None:
    """``param -= lr * grad``, in place."""

    def sweep(param: Array, grad: Array) -> None:
        step = np.multiply(grad, lr, out=_scratch("step", param))
        np.subtract(param, step, out=param)

    _in_blocks(sweep, param, grad)


def momentum_update(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
    """``velocity = momentum * velocity - lr * grad; param += velocity``, in place."""

    def sweep(param: Array, grad: Array, velocity: Array) -> None:
        step = np.multiply(grad, lr, out=_scratch("step", param))
        np.multiply(velocity, momentum, out=velocity)
        np.subtract(velocity, step, out=velocity)
        np.add(param, velocity, out=param)

    _in_blocks(sweep, param, grad, velocity)


def nesterov_update(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
    """``velocity = momentum * velocity - lr * grad; param += momentum * velocity - lr * grad``, in place."""

    def sweep(param: Array, grad: Array, velocity: Array) -> None:
        step = np.multiply(grad, lr, out=_scratch("step", param))
        np.multiply(velocity, momentum, out=velocity)
        np.subtract(velocity, step, out=velocity)
        np.subtract(param, step, out=param)
        np.multiply(velocity, momentum, out=step)
        np.add(param, step, out=param)

    _in_blocks(sweep, param, grad, velocity)


def adagrad_update(param: Array, grad: Array, squares: Array, lr: float, epsilon: float) -> None:
    """``squares += grad ** 2; param -= lr * grad / (sqrt(squares) + epsilon)``, in place."""

    def sweep(param: Array, grad: Array, squares: Array) -> None:
        work = np.multiply(grad, grad, out=_scratch("work", param))
        np.add(squares, work, out=squares)
        _scaled_step(param, grad, squares, lr, epsilon)

    _in_blocks(sweep, param, grad, squares)


def rmsprop_update(param: Array, grad: Array, squares: Array, lr: float, decay_rate: float, epsilon: float) -> None:
    """``squares`` decays towards ``grad ** 2``; ``param -= lr * grad / (sqrt(squares) + epsilon)``, in place."""

    def sweep(param: Array, grad: Array, squares: Array) -> None:
        work = np.multiply(grad, grad, out=_scratch("work", param))
        np.multiply(work, 1 - decay_rate, out=work)
        np.multiply(squares, decay_rate, out=squares)
        np.add(squares, work, out=squares)
        _scaled_step(param, grad, squares, lr, epsilon)

    _in_blocks(sweep, param, grad, squares)


def adam_update(
    param: Array, grad: Array, mean: Array, squares: Array, lr: float, beta1: float, beta2: float, epsilon: float
) -> None:
    """One step of Adam with the bias correction already in ``lr``, in place.

    ``mean`` and ``squares`` decay towards ``grad`` and ``grad ** 2``; ``param -= lr * mean / (sqrt(squares) + epsilon)``.
    """

    def sweep(param: Array, grad: Array, mean: Array, squares: Array) -> None:
        work = np.subtract(grad, mean, out=_scratch("work", param))
        np.multiply(work, 1 - beta1, out=work)
        np.add(mean, work, out=mean)
        np.multiply(grad, grad, out=work)
        np.subtract(work, squares, out=work)
        np.multiply(work, 1 - beta2, out=work)
        np.add(squares, work, out=squares)
        _scaled_step(param, mean, squares, lr, epsilon)

    _in_blocks(sweep, param, grad, mean, squares)


def _scaled_step(param: Array, direction: Array, squares: Array, lr: float, epsilon: float) -> None:
    # param -= lr * direction / (sqrt(squares) + epsilon)
    scale = np.sqrt(squares, out=_scratch("scale", param))
    np.add(scale, epsilon, out=scale)
    np.divide(direction, scale, out=scale)
    np.multiply(scale, lr, out=scale)
    np.subtract(param, scale, out=param)


def _scratch(name: str, like: Array) -> Array:
    return buffer(name, like.shape, like.dtype)


def _in_blocks(sweep: Callable[..., None], *arrays: Array) -> None:
    if not all(array.flags.c_contiguous for array in arrays):
        sweep(*arrays)  # a strided parameter: reshaping it would update a copy
        return
    flat = [array.reshape(-1) for array in arrays]
    size = flat[0].size
    workers = thread_count() if size > SMALL else 1
    step = -(-size // max(-(-size // BLOCK), workers)) or 1
    starts = range(0, size, step)

    def work(worker: int, first: int, last: int) -> None:
        for start in starts[first:last]:
            sweep(*(array[start : start + step] for array in flat))

    parallel(work, len(starts), workers)
