"""Elementwise kernels of the cuda device beyond what test_elementwise.py asks of every device: both modes of the simulator,
16-bit types, arrays at odd addresses, many classes, and results that stay on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from simulated_cards import MODES, claimed, moved, needs_simulator, simulated_card

from xpconv.kernels.cuda import elementwise
from xpconv.kernels.cuda.runtime import computed_by, planning

pytestmark = needs_simulator

Array = np.ndarray[Any, np.dtype[Any]]

TYPES = ["float32", "float64", "float16", "bfloat16"]


def named(name: str) -> np.dtype[Any]:
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def epsilon(dtype: np.dtype[Any]) -> float:
    """Half the distance from 1 to the next number."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}[dtype.name]


def wide(array: Array) -> Array:
    return array.astype(np.float64)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    with computed_by(simulated_card(request.param)):
        yield request.param


# ----------------------------------------------------------------------------------------------------------------------
# ReLU, and whether all is finite
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("size", [0, 1, 7, 8, 1003])
def test_relu(name: str, size: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(size)
    x[::5] = np.resize([np.nan, np.inf, -np.inf, 0.0, -0.0], x[::5].shape)
    numbers = x.astype(named(name))
    y = elementwise.relu_forward(numbers)
    assert y.dtype == numbers.dtype
    np.testing.assert_array_equal(wide(y), [0 if value < 0 else value for value in wide(numbers).tolist()])
    dy = rng.standard_normal(size)
    dy[::3] = np.resize([np.inf, np.nan], dy[::3].shape)
    gradients = dy.astype(named(name))
    dx = elementwise.relu_backward(gradients, y)
    expected = [g if value > 0 else 0 for g, value in zip(wide(gradients).tolist(), wide(numbers).tolist(), strict=True)]
    np.testing.assert_array_equal(wide(dx), expected)


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("name", TYPES)
def test_all_finite_finds_one_among_many_wherever_it_is(name: str) -> None:
    x = np.full(1003, np.finfo(np.float16).max).astype(named(name))
    good = elementwise.all_finite(x)
    assert good.shape == ()
    assert good.dtype == np.bool_
    assert good
    for place in (0, 8, 500, 999, 1002):
        for value in (np.nan, np.inf, -np.inf):
            spoiled = x.copy()
            spoiled[place] = value
            assert not elementwise.all_finite(spoiled)
    assert elementwise.all_finite(x[:0])


def test_all_finite_of_a_transposed_array() -> None:
    x = np.ones((30, 20), np.float32)
    x[3, 4] = np.nan
    assert not elementwise.all_finite(x.T)
    assert elementwise.all_finite(x[4:].T)


# ----------------------------------------------------------------------------------------------------------------------
# Softmax with its loss
# ----------------------------------------------------------------------------------------------------------------------


def softmax_by_hand(x: Array, rows: Array) -> tuple[float, Array, Array]:
    """Loss, softmax and gradient in Python's floats."""
    losses, softmax, gradient = [], [], []
    for scores, row in zip(x.tolist(), rows.tolist(), strict=True):
        largest = max(scores)
        total = math.fsum(math.exp(s - largest) for s in scores)
        softmax.append([math.exp(s - largest) / total for s in scores])
        losses.append(math.fsum(t * (math.log(total) + (largest - s)) for t, s in zip(row, scores, strict=True) if t))
        mass = math.fsum(row)
        gradient.append([(y * mass - t) / len(rows) for y, t in zip(softmax[-1], row, strict=True)])
    return math.fsum(losses) / len(losses), np.array(softmax), np.array(gradient)


@pytest.mark.parametrize("label_name", ["int64", *TYPES])
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 10), (33, 9), (3, 70), (2, 1500)])
def test_softmax_cross_entropy(shape: tuple[int, int], name: str, label_name: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(-6, 6, shape).astype(named(name))
    if label_name == "int64":
        labels = rng.integers(0, shape[1], shape[0])
        rows = np.eye(shape[1])[labels]
    else:
        labels = (rng.random(shape) * 2 / shape[1]).astype(named(label_name))
        rows = wide(labels)
    expected_loss, expected_y, expected_dx = softmax_by_hand(wide(x), rows)
    summed_in = np.dtype(np.float64 if name == "float64" else np.float32)
    exact = (16 + math.sqrt(shape[1])) * epsilon(summed_in)
    loss, y = elementwise.softmax_cross_entropy_forward(x, labels)
    assert loss.shape == ()
    assert loss.dtype == np.float64
    assert y.dtype == x.dtype
    np.testing.assert_allclose(loss, expected_loss, rtol=exact, atol=exact)
    smallest = 2.0**-25 if name == "float16" else 0.0  # where float16 has fewer digits
    np.testing.assert_allclose(wide(y), expected_y, rtol=1.01 * epsilon(x.dtype) + exact, atol=smallest)
    dx = elementwise.softmax_cross_entropy_backward(y, labels, 1.0)
    assert dx.dtype == x.dtype
    np.testing.assert_allclose(wide(dx), expected_dx, rtol=2.1 * epsilon(x.dtype) + exact, atol=3 * epsilon(x.dtype) / shape[0])


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("labels", ["classes", "rows"])
@pytest.mark.parametrize("classes", [3, 65, 300, 1025])
def test_softmax_in_both_modes(classes: int, labels: str) -> None:
    rng = np.random.default_rng(3)
    x, numbers = rng.standard_normal((9, classes)), rng.integers(0, classes, 9)
    rows = np.eye(classes)[numbers]
    expected_loss, expected_y, expected_dx = softmax_by_hand(x, rows)
    given = numbers if labels == "classes" else rows
    loss, y = elementwise.softmax_cross_entropy_forward(x, given)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-13)
    np.testing.assert_allclose(y, expected_y, rtol=1e-13)
    dx = elementwise.softmax_cross_entropy_backward(y, given, 1.0)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-15)


def test_a_hundred_thousand_classes() -> None:
    x = np.zeros((2, 100_000), np.float32)
    x[0, 99_999], x[1, 0] = 20, np.nan
    loss, y = elementwise.softmax_cross_entropy_forward(x[:1], np.array([99_999]))
    leader = 1 / (1 + 99_999 * math.exp(-20))
    np.testing.assert_allclose(loss, -math.log(leader), atol=4 * 2.0**-24)  # the logarithm of a sum close to 1
    np.testing.assert_allclose(y[0, 99_999], leader, rtol=1e-6)
    loss, y = elementwise.softmax_cross_entropy_forward(x, np.array([99_999, 5]))
    assert np.isnan(loss)
    assert np.isnan(y[1]).all()
    assert np.isfinite(y[0]).all()


def test_losses_of_16_bit_scores_do_not_overflow() -> None:
    x = np.array([[-30000, 60000, 0]] * 2, np.float16)
    for labels in (np.array([0, 0]), np.eye(3, dtype=np.float16)[[0, 0]]):
        assert elementwise.softmax_cross_entropy_forward(x, labels)[0] == 90000


# ----------------------------------------------------------------------------------------------------------------------
# Updates of the optimizers
# ----------------------------------------------------------------------------------------------------------------------

LR, EPSILON = 0.125, 1e-7


def sgd(p: Array, g: Array) -> list[Array]:
    return [p - LR * g]


def momentum(p: Array, g: Array, v: Array) -> list[Array]:
    v = 0.9 * v - LR * g
    return [p + v, v]


def nesterov(p: Array, g: Array, v: Array) -> list[Array]:
    v = 0.9 * v - LR * g
    return [p + 0.9 * v - LR * g, v]


def adagrad(p: Array, g: Array, s: Array) -> list[Array]:
    s = s + g**2
    return [p - LR * g / (np.sqrt(s) + EPSILON), s]


def rmsprop(p: Array, g: Array, s: Array) -> list[Array]:
    s = 0.99 * s + 0.01 * g**2
    return [p - LR * g / (np.sqrt(s) + EPSILON), s]


def adam(p: Array, g: Array, m: Array, s: Array) -> list[Array]:
    m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
    return [p - LR * m / (np.sqrt(s) + EPSILON), m, s]


UPDATES: dict[str, tuple[Any, int, tuple[float, ...]]] = {  # the formula, arrays of state, and what the kernel is told
    "sgd_update": (sgd, 0, (LR,)),
    "momentum_update": (momentum, 1, (LR, 0.9)),
    "nesterov_update": (nesterov, 1, (LR, 0.9)),
    "adagrad_update": (adagrad, 1, (LR, EPSILON)),
    "rmsprop_update": (rmsprop, 1, (LR, 0.99, EPSILON)),
    "adam_update": (adam, 2, (LR, 0.9, 0.999, EPSILON)),
}


def check_update(name: str, arrays: list[Array]) -> None:
    """Hold an update against its formula in float64; the first array is the parameter, the second the gradient."""
    formula, _, numbers = UPDATES[name]
    expected = formula(*map(wide, arrays))
    gradient = arrays[1].tobytes()
    getattr(elementwise, name)(*arrays, *numbers)
    assert arrays[1].tobytes() == gradient
    for actual, exact in zip([arrays[0], *arrays[2:]], expected, strict=True):
        # The step is at most some units, and is rounded a few times where the type is not float64's equal.
        np.testing.assert_allclose(wide(actual), exact, rtol=8 * epsilon(actual.dtype), atol=8 * epsilon(actual.dtype))


def arrays_for(name: str, size: int, dtype: Any) -> list[Array]:
    rng = np.random.default_rng(7)
    arrays = [rng.uniform(-1, 1, size).astype(dtype) for _ in range(2)]
    return arrays + [rng.uniform(0.25, 1, size).astype(dtype) for _ in range(UPDATES[name][1])]


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_updates(name: str, type_name: str) -> None:
    for size in (0, 1, 11, 1003):
        check_update(name, arrays_for(name, size, named(type_name)))


@pytest.mark.parametrize("name", UPDATES)
def test_updates_at_odd_addresses(name: str) -> None:
    for odd in range(4):  # each array in its turn, so that the vectors of one alone do not fit
        arrays = arrays_for(name, 100, np.float32)
        check_update(name, [moved(array, 1) if position == odd else array for position, array in enumerate(arrays)])


@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_arrays_with_strides_or_of_another_type(name: str) -> None:
    arrays = [np.asfortranarray(array.reshape(10, 10)) for array in arrays_for(name, 100, np.float32)]
    check_update(name, arrays)
    arrays = arrays_for(name, 100, np.float32)
    check_update(name, [arrays[0], arrays[1].astype(np.float64), *arrays[2:]])
    row = np.full((2, 100), 7, np.float32)
    row[0] = arrays_for(name, 100, np.float32)[0]
    check_update(name, [row[0], *arrays_for(name, 100, np.float32)[1:]])
    np.testing.assert_array_equal(row[1], 7)


@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_what_decays_ends_at_zero(type_name: str) -> None:
    dtype = named(type_name)
    tiny = np.finfo(dtype).tiny
    zeros = np.zeros(5, dtype)
    for name, (_, states, numbers) in UPDATES.items():
        if name in ("sgd_update", "adagrad_update"):
            continue  # there nothing decays
        values = np.array([tiny, -tiny, tiny / 4, 0, 4 * tiny], dtype)
        state = [abs(values) if "rms" in name else values.copy() for _ in range(states)]
        getattr(elementwise, name)(np.ones(5, dtype), zeros, *state, *numbers)
        for array in state:
            np.testing.assert_array_equal(array[:4], np.zeros(4), err_msg=name)
            assert array[4] >= tiny, name


# ----------------------------------------------------------------------------------------------------------------------
# What a card is given to do
# ----------------------------------------------------------------------------------------------------------------------


def test_every_element_has_a_thread() -> None:
    for size, vectors in ((2**33 + 3, 2**31 + 3), (2**33, 2**31), (3, 3)):
        x = claimed((size,))
        with planning(90, 132, 227 << 10) as launches:
            elementwise.sgd_update(x, x, 0.1)
        (launch,) = launches
        assert launch.name == "sgd_update<float, 4>"
        assert int(launch.arguments[2]) == size
        assert vectors <= launch.grid[0] * launch.block[0] < vectors + launch.block[0]
        assert launch.grid[0] < 2**31


def test_the_team_of_a_row_grows_with_its_classes() -> None:
    def kernels(classes: int) -> list[str]:
        x = claimed((1000, classes))
        with planning(90, 132, 227 << 10) as launches:
            elementwise.softmax_cross_entropy_forward(x, np.zeros(1000, np.int64))
        assert launches[0].grid[0] * launches[0].block[0] >= 1000 * int(launches[0].name.rstrip(">").split(", ")[-1])
        return [launch.name for launch in launches]

    assert kernels(10) == ["softmax_cross_entropy_forward<float, long long, 8>", "mean_of_losses<float>"]
    assert kernels(1000)[0] == "softmax_cross_entropy_forward<float, long long, 32>"
    assert kernels(50_000)[0] == "softmax_cross_entropy_forward<float, long long, 256>"
