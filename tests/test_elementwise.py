"""The kernels that touch every element, on every device, against Python's own floats one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpconv as xc

Array = np.ndarray[Any, np.dtype[Any]]

# From nothing over all remainders of a register to more than one thread's share.
SIZES = [*range(35), 100, 1000, 70_001]


def run(name: str, device: str, *arguments: Any) -> Any:
    """Call a kernel of a device with arrays that lie there, and hold it to leaving them alone."""
    moved = [xc.asarray(a.copy(), device=device) if isinstance(a, np.ndarray) else a for a in arguments]
    result = getattr(xc.get_device(device).kernels, name)(*moved)
    for given, after in zip(arguments, moved, strict=True):
        if isinstance(given, np.ndarray):
            assert xc.to_numpy(after).tobytes() == given.tobytes(), f"{name} changed its argument"
    parts = [
        xc.to_numpy(part) if hasattr(part, "shape") else part for part in (result if isinstance(result, tuple) else (result,))
    ]
    return tuple(parts) if isinstance(result, tuple) else parts[0]


def epsilon(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps)


# ----------------------------------------------------------------------------------------------------------------------
# ReLU
# ----------------------------------------------------------------------------------------------------------------------


def with_extremes(size: int, dtype: np.dtype[Any], seed: int) -> Array:
    x = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    x[::7] = np.resize(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype), x[::7].shape)
    return x


@pytest.mark.parametrize("size", SIZES)
def test_relu(size: int, device: str, dtype: np.dtype[Any]) -> None:
    x = with_extremes(size, dtype, 1)
    y = run("relu_forward", device, x)
    np.testing.assert_array_equal(y, [0 if value < 0 else value for value in x.tolist()])
    dy = with_extremes(size + 1, dtype, 2)[1:]
    dx = run("relu_backward", device, dy, y)
    np.testing.assert_array_equal(dx, [g if value > 0 else 0 for g, value in zip(dy.tolist(), x.tolist(), strict=True)])
    assert y.dtype == dx.dtype == dtype


# ----------------------------------------------------------------------------------------------------------------------
# Softmax with its loss
# ----------------------------------------------------------------------------------------------------------------------


def softmax_by_hand(x: Array, labels: Array) -> tuple[float, list[list[float]], list[list[float]]]:
    """Loss, probabilities and gradient, in Python's floats; rows of labels are taken as they are."""
    rows = labels.tolist() if labels.ndim == 2 else [[float(j == t) for j in range(x.shape[1])] for t in labels.tolist()]
    losses, softmax, gradient = [], [], []
    for scores, row in zip(x.tolist(), rows, strict=True):
        largest = max(scores)
        total = math.fsum(math.exp(s - largest) for s in scores)
        softmax.append([math.exp(s - largest) / total for s in scores])
        losses.append(math.fsum(t * (math.log(total) + (largest - s)) for t, s in zip(row, scores, strict=True) if t))
        mass = math.fsum(row)
        gradient.append([(y * mass - t) / len(rows) for y, t in zip(softmax[-1], row, strict=True)])
    return math.fsum(losses) / len(losses), softmax, gradient


def labels_of(kind: str, samples: int, classes: int) -> Array:
    rng = np.random.default_rng(5)
    if kind == "classes":
        return rng.integers(0, classes, samples)
    if kind == "one-hot":
        return np.eye(classes, dtype=np.float32)[rng.integers(0, classes, samples)]
    rows = rng.random((samples, classes))
    rows *= 1.0005 / rows.sum(axis=1, keepdims=True)  # as much beside 1 as labels may be
    return np.asfortranarray(rows)


@pytest.mark.parametrize("kind", ["classes", "one-hot", "probabilities"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 17), (3, 4), (100, 10), (9, 1000), (3, 5003), (2011, 3)])
def test_softmax_cross_entropy(shape: tuple[int, int], kind: str, device: str, dtype: np.dtype[Any]) -> None:
    # Scores with few digits, so that their differences are exact, and of a wide range.
    x = (np.random.default_rng(6).integers(-2000, 2000, shape) / 64).astype(dtype)
    labels = labels_of(kind, *shape)
    expected_loss, expected_y, expected_dx = softmax_by_hand(x, labels)
    loss, y = run("softmax_cross_entropy_forward", device, x, labels)
    tolerance = (4 + math.sqrt(shape[1])) * epsilon(dtype)
    assert np.shape(loss) == ()  # a float, or what a card keeps: an array without axes
    assert np.asarray(loss).dtype == np.float64
    assert loss == pytest.approx(expected_loss, rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(y, expected_y, rtol=tolerance)
    dx = run("softmax_cross_entropy_backward", device, y, labels, 1.0)
    np.testing.assert_allclose(dx, expected_dx, rtol=tolerance, atol=tolerance / shape[0])
    np.testing.assert_allclose(run("softmax_cross_entropy_backward", device, y, labels, -2.5), -2.5 * dx, rtol=tolerance)
    assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize("labels", [np.zeros(1, np.int64), np.array([[1.0] + [0.0] * 40])], ids=["classes", "rows"])
@pytest.mark.parametrize("distance", [0.0, 1e-6, 0.34, 0.35, 1.0, 80.0, 87.5, 100.0, 103.0, 104.5, 700.0, 740.0, 750.0, 1e30])
def test_softmax_of_a_leader_and_its_followers(distance: float, labels: Array, device: str, dtype: np.dtype[Any]) -> None:
    # Down to where the exponential has fewer digits, and beyond, where it is 0; in every lane of a register.
    x = np.zeros((1, 41), dtype)
    x[0, 1:] = -distance
    follower = math.exp(float(x[0, 1]))
    total = 1 + 40 * follower
    loss, y = run("softmax_cross_entropy_forward", device, x, labels)
    np.testing.assert_allclose(
        y[0, 1:], follower / total, rtol=8 * epsilon(dtype), atol=2 * float(np.finfo(dtype).smallest_subnormal)
    )
    assert y[0, 0] == pytest.approx(1 / total, rel=8 * epsilon(dtype))
    assert loss == pytest.approx(math.log(total), rel=8 * epsilon(dtype))


def test_no_loss_is_too_large(device: str, dtype: np.dtype[Any]) -> None:
    x = np.array([[0.0, 30000.0, 1.0]], dtype)
    assert run("softmax_cross_entropy_forward", device, x, np.array([0]))[0] == 30000
    assert run("softmax_cross_entropy_forward", device, x, np.array([[0.5, 0.5, 0.0]]))[0] == 15000


@pytest.mark.parametrize("labels", [np.array([0, 2]), np.eye(3)[[0, 2]]], ids=["classes", "rows"])
def test_an_impossible_class_costs_what_its_label_says(labels: Array, device: str, dtype: np.dtype[Any]) -> None:
    x = np.array([[0.0, -np.inf, 0.0], [1.0, -np.inf, 1.0]], dtype)
    loss, y = run("softmax_cross_entropy_forward", device, x, labels)
    assert loss == pytest.approx(math.log(2), rel=4 * epsilon(dtype))
    np.testing.assert_array_equal(y, [[0.5, 0, 0.5]] * 2)
    assert run("softmax_cross_entropy_forward", device, x, np.array([0, 1]))[0] == np.inf


@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("row", [[0, np.nan, 0], [np.nan, 0, 0], [0, np.inf, 0], [-np.inf] * 3], ids=str)
@pytest.mark.parametrize("labels", [np.array([0, 2]), np.eye(3)[[0, 2]]], ids=["classes", "rows"])
def test_scores_without_a_softmax_give_nan_in_their_row(
    row: list[float], labels: Array, device: str, dtype: np.dtype[Any]
) -> None:
    loss, y = run("softmax_cross_entropy_forward", device, np.array([row, [1, 1, 1]], dtype), labels)
    assert math.isnan(loss)
    np.testing.assert_array_equal(np.isnan(y), [[True] * 3, [False] * 3])


def test_the_mean_of_many_losses_is_not_rounded_to_their_dtype(device: str) -> None:
    loss, _ = run("softmax_cross_entropy_forward", device, np.zeros((300_000, 2), np.float32), np.zeros(300_000, np.int64))
    assert loss == pytest.approx(float(np.float32(math.log(2))), rel=1e-7)
    assert loss == run("softmax_cross_entropy_forward", device, np.zeros((1, 2), np.float32), np.zeros(1, np.int64))[0]


# ----------------------------------------------------------------------------------------------------------------------
# Updates of the optimizers: the formulas are tested in test_optimizers.py, here that every element gets its own
# ----------------------------------------------------------------------------------------------------------------------

UPDATES: dict[str, tuple[int, tuple[float, ...]]] = {  # arrays of state, and the numbers behind them
    "sgd_update": (0, (0.1,)),
    "momentum_update": (1, (0.1, 0.9)),
    "nesterov_update": (1, (0.1, 0.9)),
    "adagrad_update": (1, (0.1, 1e-7)),
    "rmsprop_update": (1, (0.1, 0.99, 1e-7)),
    "adam_update": (2, (0.1, 0.9, 0.999, 1e-7)),
}


def update(name: str, device: str, arrays: list[Array]) -> list[Array]:
    moved = [xc.asarray(array.copy(), device=device) for array in arrays]
    getattr(xc.get_device(device).kernels, name)(*moved, *UPDATES[name][1])
    assert xc.to_numpy(moved[1]).tobytes() == arrays[1].tobytes(), f"{name} changed the gradient"
    return [xc.to_numpy(array) for array in moved]


def arrays_for(name: str, size: int, dtype: np.dtype[Any]) -> list[Array]:
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(size).astype(dtype) for _ in range(2)]
    return arrays + [rng.random(size).astype(dtype) for _ in range(UPDATES[name][0])]


@pytest.mark.parametrize("name", UPDATES)
def test_every_element_is_updated_alike_wherever_it_lies(name: str, device: str, dtype: np.dtype[Any]) -> None:
    whole = arrays_for(name, SIZES[-1], dtype)
    updated = update(name, device, whole)
    assert (updated[0] != whole[0]).mean() > 0.99  # some steps are too small to be seen
    for size in SIZES[:-1]:
        for first in (0, 33_000):
            part = [array[first : first + size] for array in whole]
            for actual, expected in zip(update(name, device, part), updated, strict=True):
                np.testing.assert_array_equal(actual, expected[first : first + size])


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid:RuntimeWarning")
def test_a_gradient_that_is_not_finite_spoils_its_own_element_only(
    name: str, value: float, device: str, dtype: np.dtype[Any]
) -> None:
    arrays = arrays_for(name, 100, dtype)
    expected = update(name, device, arrays)[0]
    arrays[1][37] = value
    actual = update(name, device, arrays)[0]
    assert not np.isfinite(actual[37])
    np.testing.assert_array_equal(np.delete(actual, 37), np.delete(expected, 37))


def in_half_precision(array: Array) -> Array:
    return array.astype(np.float16)


def every_other(array: Array) -> Array:
    wide = np.full(2 * array.size, np.nan, array.dtype)
    wide[::2] = array
    return wide[::2]


def unaligned(array: Array) -> Array:
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype)
    view[...] = array
    return view


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("store", [in_half_precision, every_other, unaligned])
def test_parameters_in_unusual_memory(name: str, store: Callable[[Array], Array], dtype: np.dtype[Any], device: str) -> None:
    if xc.get_device(device).xp is not np:
        pytest.skip("these are NumPy's ways to store an array")
    arrays = arrays_for(name, 1000, dtype)
    expected = update(name, device, arrays)
    stored = [store(array) for array in arrays]
    getattr(xc.get_device(device).kernels, name)(*stored, *UPDATES[name][1])
    for actual, exact in zip(stored, expected, strict=True):
        tolerance = 4 * epsilon(actual.dtype)
        np.testing.assert_allclose(actual, exact, rtol=4 * tolerance, atol=tolerance)
