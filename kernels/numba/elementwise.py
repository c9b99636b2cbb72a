"""Passes that touch every element: ReLU, softmax with its loss, and the updates of the optimizers, each in one loop.

Such a pass is as fast as memory is, if two things hold: every array is read and written once, and the loop is vectorised. LLVM
vectorises all loops here by itself. In a softmax that takes three pieces that it would not make of ordinary code: an
exponential in plain arithmetic, the larger of two numbers with NaN kept, and a sum that may be taken in any order.

An optimizer rounds where its formula does, as NumPy would: both devices give the same bits, but for numbers too small to be
told from zero. What no loop is compiled for,
strided parameters and unusual dtypes, goes the way of the numpy device.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.intrinsics import pointer, size_of
from xpconv.kernels.numba.memory import Array, address, empty
from xpconv.kernels.numba.threads import run, thread_count
from xpconv.kernels.numpy import elementwise as shared

# Elements below which a second thread costs more than it saves: a pass over as many takes 3 to 10 us.
SMALL = 1 << 14
# Bytes of scores that are brought through all steps of a softmax while they stay in the first cache.
SOFTMAX_BYTES = 16 << 10
_COMPILED_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def _workers(size: int) -> int:
    return thread_count() if size > SMALL else 1


@inline
def _bound(worker: int, workers: int, size: int) -> int:
    # Where the share of a worker begins, and that of the one before ends: a multiple of a cache line of elements.
    return size if worker == workers else worker * size // workers & -16


# ---- ReLU ----------------------------------------------------------------------------------------------------------------


class _ReluForward(Arguments):
    x: int
    y: int
    size: int


@functools.cache
def _relu_forward(dtype: np.dtype[Any]) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_ReluForward)
    def relu_forward(worker: int, workers: int, a: Any) -> None:
        x, y = pointer(a.x, real), pointer(a.y, real)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            y[i] = real(0) if x[i] <= real(0) else x[i]  # in this order, since a comparison with NaN is false

    return relu_forward


def relu_forward(x: Array) -> Array:
    """``max(x, 0)``, NaN kept."""
    y = empty(x.shape, x.dtype)
    run(_relu_forward(x.dtype), _ReluForward(x=address(x), y=address(y), size=x.size), _workers(x.size))
    return y


class _ReluBackward(Arguments):
    dy: int
    y: int
    dx: int
    size: int


@functools.cache
def _relu_backward(dtype: np.dtype[Any]) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_ReluBackward)
    def relu_backward(worker: int, workers: int, a: Any) -> None:
        dy, y, dx = pointer(a.dy, real), pointer(a.y, real), pointer(a.dx, real)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            gradient = dy[i]  # read whether it passes or not, so that no lane of a register has to be masked
            dx[i] = gradient if y[i] > real(0) else real(0)

    return relu_backward


def relu_backward(dy: Array, y: Array) -> Array:
    """``dy`` where ReLU let its input through, else zero."""
    dx = empty(dy.shape, dy.dtype)
    arguments = _ReluBackward(dy=address(dy), y=address(y), dx=address(dx), size=dy.size)
    run(_relu_backward(dy.dtype), arguments, _workers(dy.size))
    return dx


# ---- a look at every element ---------------------------------------------------------------------------------------------


class _AllFinite(Arguments):
    x: int
    size: int
    found: int


@functools.cache
def _all_finite(dtype: np.dtype[Any]) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_AllFinite)
    def all_finite(worker: int, workers: int, a: Any) -> None:
        x, bad = pointer(a.x, real), 0
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            bad |= x[i] - x[i] != real(0)  # NaN for NaN and for infinities
        pointer(a.found, numba.int64)[worker] = bad

    return all_finite


def all_finite(x: Array) -> bool:
    """Whether no element is NaN or infinite."""
    if x.dtype not in _COMPILED_DTYPES or not _are_plain(x):
        return shared.all_finite(x)
    workers = _workers(x.size)
    found = np.zeros(workers, np.int64)
    run(_all_finite(x.dtype), _AllFinite(x=address(x), size=x.size, found=address(found)), workers)
    return not found.any()


# ---- softmax and its loss ------------------------------------------------------------------------------------------------


@intrinsic  # type: ignore[misc]
def _exponential(typing_context, x):  # type: ignore[no-untyped-def]
    """``exp(x)`` for x up to 0, within two units in the last place; NaN stays NaN.

    ``x = n * log(2) + r`` with r from ``-log(2) / 2`` to ``log(2) / 2``, so that ``exp(x)`` is 2 ** n times a polynomial of r.
    No table, no branch and no call: a loop of these is vectorised.
    """
    is_float = x.bitwidth == 32
    digits, bias, lowest = (23, 127, -104.0) if is_float else (52, 1023, -746.0)  # below the lowest all is 0
    # The upper part of log(2) has so few digits that its product with n is exact.
    upper, lower = (0.693359375, -2.12194440e-4) if is_float else (6.93147180369123816490e-01, 1.90821492927058770002e-10)
    terms = 8 if is_float else 14
    scalar, integer = (ir.FloatType(), ir.IntType(32)) if is_float else (ir.DoubleType(), ir.IntType(64))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(scalar, [scalar] * 3)
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.f{x.bitwidth}")

        def power_of_two(exponent: Any) -> Any:
            return builder.bitcast(builder.shl(builder.add(exponent, integer(bias)), integer(digits)), scalar)

        value = builder.select(builder.fcmp_ordered("<", arguments[0], scalar(lowest)), scalar(lowest), arguments[0])
        # A number this large has no room for fractions: the sum is rounded, and n stands in its last digits.
        large = 1.5 * 2.0**digits
        sum_ = builder.fadd(builder.fmul(value, scalar(1 / math.log(2))), scalar(large))
        n = builder.fsub(sum_, scalar(large))
        exponent = builder.sub(builder.bitcast(sum_, integer), builder.bitcast(scalar(large), integer))
        r = builder.call(multiply_add, [n, scalar(-upper), value])
        r = builder.call(multiply_add, [n, scalar(-lower), r])
        result = scalar(1 / math.factorial(terms - 1))
        for term in reversed(range(terms - 1)):
            result = builder.call(multiply_add, [result, r, scalar(1 / math.factorial(term))])
        # In two steps, since 2 ** n alone can be too small for a normal number.
        half = builder.ashr(exponent, integer(1))
        result = builder.fmul(result, power_of_two(half))
        return builder.fmul(result, power_of_two(builder.sub(exponent, half)))

    return x(x), generate


@intrinsic  # type: ignore[misc]
def _larger(typing_context, x, y):  # type: ignore[no-untyped-def]
    """The larger of two numbers, NaN if one of them is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        scalar = arguments[0].type
        kind = ir.FunctionType(scalar, [scalar, scalar])
        name = f"llvm.maximum.f{x.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    return x(x, x), generate


@intrinsic  # type: ignore[misc]
def _add_in_any_order(typing_context, x, y):  # type: ignore[no-untyped-def]
    """``x + y``, one of many additions that may be grouped by the lanes of a register."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc",))

    return x(x, x), generate


class _SoftmaxForward(Arguments):
    x: int
    y: int
    labels: int
    losses: int  # one a sample, always double
    samples: int
    classes: int
    block: int  # samples to take at a time


@functools.cache
def _softmax_forward(dtype: np.dtype[Any], label_axes: int) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_SoftmaxForward)
    def softmax_forward(worker: int, workers: int, a: Any) -> None:
        classes, row = a.classes, a.classes * size_of(real)
        losses = pointer(a.losses, types.float64)
        end = (worker + 1) * a.samples // workers
        for first in range(worker * a.samples // workers, end, a.block):
            last = min(first + a.block, end)
            for sample in range(first, last):
                x, y = pointer(a.x + sample * row, real), pointer(a.y + sample * row, real)
                largest = x[0]
                for j in range(classes):
                    largest = _larger(largest, x[j])
                for j in range(classes):
                    y[j] = x[j] - largest
                losses[sample] = largest  # kept there until the loss is known
            # All samples of the block as one: a row of ten classes would not fill a register.
            block = pointer(a.y + first * row, real)
            for i in range((last - first) * classes):
                block[i] = _exponential(block[i])
            for sample in range(first, last):
                x, y = pointer(a.x + sample * row, real), pointer(a.y + sample * row, real)
                total = real(0)
                for j in range(classes):
                    total = _add_in_any_order(total, y[j])
                for j in range(classes):
                    y[j] /= total
                largest, logarithm = real(losses[sample]), math.log(total)
                if label_axes == 1:
                    losses[sample] = logarithm - (x[pointer(a.labels, types.int64)[sample]] - largest)
                else:
                    labels = pointer(a.labels + sample * row, real)
                    loss = 0.0
                    for j in range(classes):
                        if labels[j] > real(0):  # an impossible class that no label asks for costs nothing
                            loss += labels[j] * (logarithm - (x[j] - largest))
                    losses[sample] = loss

    return softmax_forward


def softmax_cross_entropy_forward(x: Array, labels: Array) -> tuple[float, Array]:
    """The mean cross-entropy loss of scores (N, classes), N at least 1, and their softmax.

    Args:
        x: Scores.
        labels: int64 (N,) classes, or (N, classes) rows of probabilities.
    """
    samples, classes = x.shape
    y, losses = empty(x.shape, x.dtype), np.empty(samples)
    labels = _plain_labels(labels, x.dtype)
    arguments = _SoftmaxForward(
        x=address(x),
        y=address(y),
        labels=address(labels),
        losses=address(losses),
        samples=samples,
        classes=classes,
        block=max(1, SOFTMAX_BYTES // (classes * x.itemsize)),
    )
    # An exponential takes as long as some ten updates of an optimizer.
    run(_softmax_forward(x.dtype, labels.ndim), arguments, _workers(10 * x.size))
    return float(losses.sum()) / samples, y


class _SoftmaxBackward(Arguments):
    y: int
    labels: int
    dx: int
    samples: int
    classes: int
    scale: float


@functools.cache
def _softmax_backward(dtype: np.dtype[Any], label_axes: int) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_SoftmaxBackward)
    def softmax_backward(worker: int, workers: int, a: Any) -> None:
        classes, row, scale = a.classes, a.classes * size_of(real), real(a.scale)
        first, last = worker * a.samples // workers, (worker + 1) * a.samples // workers
        if label_axes == 1:
            y, dx = pointer(a.y + first * row, real), pointer(a.dx + first * row, real)
            for i in range((last - first) * classes):
                dx[i] = y[i] * scale
            for sample in range(first, last):
                label = sample * classes + pointer(a.labels, types.int64)[sample]
                pointer(a.dx, real)[label] = (pointer(a.y, real)[label] - real(1)) * scale
        else:
            for sample in range(first, last):
                y, dx = pointer(a.y + sample * row, real), pointer(a.dx + sample * row, real)
                labels = pointer(a.labels + sample * row, real)
                total = real(0)
                for j in range(classes):
                    total = _add_in_any_order(total, labels[j])
                for j in range(classes):
                    dx[j] = (y[j] * total - labels[j]) * scale

    return softmax_backward


def softmax_cross_entropy_backward(y: Array, labels: Array, dloss: float) -> Array:
    """The gradient of the scores, ``dloss * (y - labels) / N``, from the softmax ``y`` and labels as in the forward pass."""
    samples, classes = y.shape
    dx = empty(y.shape, y.dtype)
    labels = _plain_labels(labels, y.dtype)
    arguments = _SoftmaxBackward(
        y=address(y), labels=address(labels), dx=address(dx), samples=samples, classes=classes, scale=dloss / samples
    )
    run(_softmax_backward(y.dtype, labels.ndim), arguments, _workers(y.size))
    return dx


def _plain_labels(labels: Array, dtype: np.dtype[Any]) -> Array:
    return np.ascontiguousarray(labels, dtype=np.int64 if labels.ndim == 1 else dtype)


# ---- updates of the optimizers -------------------------------------------------------------------------------------------


def _are_plain(param: Array, *others: Array) -> bool:
    # Whether all can be seen as one long row of numbers of one dtype that kernels are compiled for.
    return param.dtype in _COMPILED_DTYPES and all(
        array.dtype == param.dtype and array.flags.c_contiguous and array.flags.aligned for array in (param, *others)
    )


@inline
def _decayed(value: float, smallest: float) -> float:
    # What decays and gets nothing new, the mean gradient of a weight behind a dead unit, ends in the range of denormal numbers,
    # where each operation takes the processor a hundred times as long: Adam was ten times as slow after 900 steps. Here it
    # ends at zero.
    return value - value if abs(value) < smallest else value


class _Sgd(Arguments):
    param: int
    grad: int
    size: int
    lr: float


@functools.cache
def _sgd(dtype: np.dtype[Any]) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_Sgd)
    def sgd(worker: int, workers: int, a: Any) -> None:
        param, grad, lr = pointer(a.param, real), pointer(a.grad, real), real(a.lr)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            param[i] -= grad[i] * lr

    return sgd


def sgd_update(param: Array, grad: Array, lr: float) -> None:
    """``param -= lr * grad``, in place."""
    if not _are_plain(param, grad):
        return shared.sgd_update(param, grad, lr)
    arguments = _Sgd(param=address(param), grad=address(grad), size=param.size, lr=lr)
    return run(_sgd(param.dtype), arguments, _workers(param.size))


class _Momentum(Arguments):
    param: int
    grad: int
    velocity: int
    size: int
    lr: float
    momentum: float


@functools.cache
def _momentum(dtype: np.dtype[Any]) -> CompiledFunction:
    real, tiny = numba.from_dtype(dtype), float(np.finfo(dtype).tiny)

    @task(_Momentum)
    def momentum(worker: int, workers: int, a: Any) -> None:
        param, grad, velocity = pointer(a.param, real), pointer(a.grad, real), pointer(a.velocity, real)
        lr, kept, smallest = real(a.lr), real(a.momentum), real(tiny)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            velocity[i] = _decayed(velocity[i] * kept - grad[i] * lr, smallest)
            param[i] += velocity[i]

    return momentum


def momentum_update(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
    """``velocity = momentum * velocity - lr * grad; param += velocity``, in place."""
    if not _are_plain(param, grad, velocity):
        return shared.momentum_update(param, grad, velocity, lr, momentum)
    return run(_momentum(param.dtype), _of_momentum(param, grad, velocity, lr, momentum), _workers(param.size))


@functools.cache
def _nesterov(dtype: np.dtype[Any]) -> CompiledFunction:
    real, tiny = numba.from_dtype(dtype), float(np.finfo(dtype).tiny)

    @task(_Momentum)
    def nesterov(worker: int, workers: int, a: Any) -> None:
        param, grad, velocity = pointer(a.param, real), pointer(a.grad, real), pointer(a.velocity, real)
        lr, kept, smallest = real(a.lr), real(a.momentum), real(tiny)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            step = grad[i] * lr
            velocity[i] = _decayed(velocity[i] * kept - step, smallest)
            param[i] = param[i] - step + velocity[i] * kept

    return nesterov


def nesterov_update(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> None:
    """``velocity = momentum * velocity - lr * grad; param += momentum * velocity - lr * grad``, in place."""
    if not _are_plain(param, grad, velocity):
        return shared.nesterov_update(param, grad, velocity, lr, momentum)
    return run(_nesterov(param.dtype), _of_momentum(param, grad, velocity, lr, momentum), _workers(param.size))


def _of_momentum(param: Array, grad: Array, velocity: Array, lr: float, momentum: float) -> _Momentum:
    addresses = {"param": address(param), "grad": address(grad), "velocity": address(velocity)}
    return _Momentum(**addresses, size=param.size, lr=lr, momentum=momentum)


class _AdaGrad(Arguments):
    param: int
    grad: int
    squares: int
    size: int
    lr: float
    epsilon: float


@functools.cache
def _adagrad(dtype: np.dtype[Any]) -> CompiledFunction:
    real = numba.from_dtype(dtype)

    @task(_AdaGrad)
    def adagrad(worker: int, workers: int, a: Any) -> None:
        param, grad, squares = pointer(a.param, real), pointer(a.grad, real), pointer(a.squares, real)
        lr, epsilon = real(a.lr), real(a.epsilon)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            squares[i] += grad[i] * grad[i]
            param[i] -= grad[i] / (math.sqrt(squares[i]) + epsilon) * lr

    return adagrad


def adagrad_update(param: Array, grad: Array, squares: Array, lr: float, epsilon: float) -> None:
    """``squares += grad ** 2; param -= lr * grad / (sqrt(squares) + epsilon)``, in place."""
    if not _are_plain(param, grad, squares):
        return shared.adagrad_update(param, grad, squares, lr, epsilon)
    addresses = {"param": address(param), "grad": address(grad), "squares": address(squares)}
    return run(_adagrad(param.dtype), _AdaGrad(**addresses, size=param.size, lr=lr, epsilon=epsilon), _workers(param.size))


class _RmsProp(Arguments):
    param: int
    grad: int
    squares: int
    size: int
    lr: float
    kept: float
    added: float
    epsilon: float


@functools.cache
def _rmsprop(dtype: np.dtype[Any]) -> CompiledFunction:
    real, tiny = numba.from_dtype(dtype), float(np.finfo(dtype).tiny)

    @task(_RmsProp)
    def rmsprop(worker: int, workers: int, a: Any) -> None:
        param, grad, squares = pointer(a.param, real), pointer(a.grad, real), pointer(a.squares, real)
        lr, kept, added, epsilon = real(a.lr), real(a.kept), real(a.added), real(a.epsilon)
        smallest = real(tiny)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            squares[i] = _decayed(squares[i] * kept + grad[i] * grad[i] * added, smallest)
            param[i] -= grad[i] / (math.sqrt(squares[i]) + epsilon) * lr

    return rmsprop


def rmsprop_update(param: Array, grad: Array, squares: Array, lr: float, decay_rate: float, epsilon: float) -> None:
    """``squares`` decays towards ``grad ** 2``; ``param -= lr * grad / (sqrt(squares) + epsilon)``, in place."""
    if not _are_plain(param, grad, squares):
        return shared.rmsprop_update(param, grad, squares, lr, decay_rate, epsilon)
    addresses = {"param": address(param), "grad": address(grad), "squares": address(squares)}
    # 1 - decay_rate is rounded once, from double.
    arguments = _RmsProp(**addresses, size=param.size, lr=lr, kept=decay_rate, added=1 - decay_rate, epsilon=epsilon)
    return run(_rmsprop(param.dtype), arguments, _workers(param.size))


class _Adam(Arguments):
    param: int
    grad: int
    mean: int
    squares: int
    size: int
    lr: float
    of_grad: float
    of_square: float
    epsilon: float


@functools.cache
def _adam(dtype: np.dtype[Any]) -> CompiledFunction:
    real, tiny = numba.from_dtype(dtype), float(np.finfo(dtype).tiny)

    @task(_Adam)
    def adam(worker: int, workers: int, a: Any) -> None:
        param, grad, mean, squares = (
            pointer(a.param, real),
            pointer(a.grad, real),
            pointer(a.mean, real),
            pointer(a.squares, real),
        )
        lr, of_grad, of_square, epsilon = real(a.lr), real(a.of_grad), real(a.of_square), real(a.epsilon)
        smallest = real(tiny)
        for i in range(_bound(worker, workers, a.size), _bound(worker + 1, workers, a.size)):
            mean[i] = _decayed(mean[i] + (grad[i] - mean[i]) * of_grad, smallest)
            squares[i] = _decayed(squares[i] + (grad[i] * grad[i] - squares[i]) * of_square, smallest)
            param[i] -= mean[i] / (math.sqrt(squares[i]) + epsilon) * lr

    return adam


def adam_update(
    param: Array, grad: Array, mean: Array, squares: Array, lr: float, beta1: float, beta2: float, epsilon: float
) -> None:
    """One step of Adam with the bias correction already in ``lr``, in place.

    ``mean`` and ``squares`` decay towards ``grad`` and ``grad ** 2``; ``param -= lr * mean / (sqrt(squares) + epsilon)``.
    """
    if not _are_plain(param, grad, mean, squares):
        return shared.adam_update(param, grad, mean, squares, lr, beta1, beta2, epsilon)
    addresses = {"param": address(param), "grad": address(grad), "mean": address(mean), "squares": address(squares)}
    # 1 - beta1 and 1 - beta2 are rounded once, from double.
    arguments = _Adam(**addresses, size=param.size, lr=lr, of_grad=1 - beta1, of_square=1 - beta2, epsilon=epsilon)
    return run(_adam(param.dtype), arguments, _workers(param.size))
