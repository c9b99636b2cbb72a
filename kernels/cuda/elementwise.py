"""Passes that touch every element: ReLU, softmax with its loss, and the updates of the optimizers, each in one kernel.

Nothing here waits for the card: what another device returns as a number, the loss and whether all is finite, is an array
without axes, and it is the caller who reads it who waits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.kernels.cuda.runtime import Array, address, ceil_div, runtime_of, type_name, vector_width

FILE = "elementwise.cu"
# As the sources have it: threads of a block.
THREADS = 256
# Threads that share a row of a softmax, fewest first, and the classes up to which each choice is taken: about eight a thread.
TEAMS = ((8, 64), (32, 1024))


def relu_forward(x: Array) -> Array:
    """``max(x, 0)``, NaN kept."""
    y = runtime_of(x).xp.empty(x.shape, x.dtype)
    _sweep("relu_forward", x, y)
    return y


def relu_backward(dy: Array, y: Array) -> Array:
    """``dy`` where ReLU let its input through, else zero."""
    dx = runtime_of(dy).xp.empty(dy.shape, dy.dtype)
    _sweep("relu_backward", dy, y, dx)
    return dx


def all_finite(x: Array) -> Array:
    """Whether no element is NaN or infinite: a boolean array without axes, on the device of ``x``."""
    runtime = runtime_of(x)
    x = runtime.xp.ascontiguousarray(x)
    finite = runtime.xp.ones(1, np.int32)
    width = vector_width(0, x)
    arguments = (x, finite, np.int64(x.size))
    runtime.launch(FILE, f"all_finite<{type_name(x.dtype)}, {width}>", _grid(x.size, width), (THREADS,), arguments)
    return finite.view(np.bool_)[:1].reshape(())  # the lowest byte of 0 or 1


def softmax_cross_entropy_forward(x: Array, labels: Array) -> tuple[Array, Array]:
    """The mean cross-entropy loss of scores (N, classes), N at least 1, and their softmax.

    Args:
        x: Scores.
        labels: int64 (N,) classes, or (N, classes) rows of probabilities.

    Returns:
        The loss, a float64 array without axes on the device of ``x``, and the softmax.
    """
    runtime = runtime_of(x)
    samples = x.shape[0]
    labels = runtime.xp.ascontiguousarray(labels)
    y = runtime.xp.empty(x.shape, x.dtype)
    losses = runtime.xp.empty(samples, _sum_dtype(x))
    loss = runtime.xp.empty((), np.float64)
    _over_rows("softmax_cross_entropy_forward", x, labels, y, losses)
    name = f"mean_of_losses<{type_name(losses.dtype)}>"
    runtime.launch(FILE, name, (1,), (THREADS,), (losses, loss, np.int64(samples)))
    return loss, y


def softmax_cross_entropy_backward(y: Array, labels: Array, dloss: float) -> Array:
    """The gradient of the scores, ``dloss * (y - labels) / N``, from the softmax ``y`` and labels as in the forward pass."""
    xp = runtime_of(y).xp
    dx = xp.empty(y.shape, y.dtype)
    scale = _sum_dtype(y).type(dloss / y.shape[0])
    _over_rows("softmax_cross_entropy_backward", y, xp.ascontiguousarray(labels), dx, scale)
    return dx


def sgd_update(param: Array, grad: Array, lr: float) -> None:
    """``param -= lr * grad``, in place."""
    _update("sgd_update", param, grad, (), lr)


def momentum_update(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
    """``velocity = momentum * velocity - lr * grad; param += velocity``, in place."""
    _update("momentum_update", param, grad, (velocity,), lr, momentum)


def nesterov_update(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
    """``velocity = momentum * velocity - lr * grad; param += momentum * velocity - lr * grad``, in place."""
    _update("nesterov_update", param, grad, (velocity,), lr, momentum)


def adagrad_update(param: Array, grad: Array, squares: Array, lr: float, epsilon: float) -> None:
    """``squares += grad ** 2; param -= lr * grad / (sqrt(squares) + epsilon)``, in place."""
    _update("adagrad_update", param, grad, (squares,), lr, epsilon)


def rmsprop_update(param: Array, grad: Array, squares: Array, lr: float, decay_rate: float, epsilon: float) -> None:
    """``squares`` decays towards ``grad ** 2``; ``param -= lr * grad / (sqrt(squares) + epsilon)``, in place."""
    _update("rmsprop_update", param, grad, (squares,), lr, decay_rate, 1 - decay_rate, epsilon)


def adam_update(
    param: Array, grad: Array, mean: Array, squares: Array, lr: float, beta1: float, beta2: float, epsilon: float
) -> None:
    """One step of Adam with the bias correction already in ``lr``, in place.

    ``mean`` and ``squares`` decay towards ``grad`` and ``grad ** 2``; ``param -= lr * mean / (sqrt(squares) + epsilon)``.
    """
    _update("adam_update", param, grad, (mean, squares), lr, 1 - beta1, 1 - beta2, epsilon)


def _update(name: str, param: Array, grad: Array, states: tuple[Array, ...], *numbers: float) -> None:
    # What is no plain row of aligned numbers, a parameter with strides, is updated in a copy and written back.
    changed = [param, *states]
    plain = [array if _is_plain(array, param.dtype) else array.astype(param.dtype, order="C") for array in changed]
    grad = grad if _is_plain(grad, param.dtype) else grad.astype(param.dtype, order="C")
    _sweep(name, plain[0], grad, *plain[1:], numbers=numbers)
    for array, updated in zip(changed, plain, strict=True):
        if updated is not array:
            array[...] = updated


def _is_plain(array: Array, dtype: np.dtype[Any]) -> bool:
    return bool(array.dtype == dtype and array.flags.c_contiguous and address(array) % dtype.itemsize == 0)


def _sweep(name: str, *arrays: Array, numbers: tuple[float, ...] = ()) -> None:
    # A kernel over all elements of arrays of one size and dtype; it computes with numbers of the type it sums in.
    first = arrays[0]
    width = vector_width(0, *arrays)
    scalars = (_sum_dtype(first).type(number) for number in numbers)
    runtime_of(first).launch(
        FILE,
        f"{name}<{type_name(first.dtype)}, {width}>",
        _grid(first.size, width),
        (THREADS,),
        (*arrays, np.int64(first.size), *scalars),
    )


def _over_rows(name: str, rows: Array, labels: Array, *others: Any) -> None:
    samples, classes = rows.shape
    team = next((team for team, most in TEAMS if classes <= most), THREADS)
    runtime_of(rows).launch(
        FILE,
        f"{name}<{type_name(rows.dtype)}, {type_name(labels.dtype)}, {team}>",
        (ceil_div(samples, THREADS // team),),
        (THREADS,),
        (rows, labels, *others, np.int64(samples), np.int32(classes)),
    )


def _grid(size: int, width: int) -> tuple[int]:
    return (ceil_div(size // width + size % width, THREADS),)


def _sum_dtype(array: Array) -> np.dtype[Any]:
    # The type that the kernels compute in: accumulator_t of the sources.
    return np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
