"""The activations: their values and gradients, at every size of the input."""

import math
from typing import Any

import numpy as np
import pytest

import xpconv as xc
from xpconv import activations

Array = np.ndarray[Any, np.dtype[Any]]

# The formulas as they are written, for numbers of a size where they can be computed so.
FORMULAS: dict[str, Any] = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "hard_sigmoid": lambda x: min(max(x + 3, 0.0), 6.0) / 6,
    "tanh": math.tanh,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "softsign": lambda x: x / (1 + abs(x)),
    "exponential": math.exp,
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "hard_silu": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "hard_swish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "mish": lambda x: x * math.tanh(math.log(1 + math.exp(x))),
}
ROWWISE = ("softmax", "log_softmax")

# What they tend to at minus and plus infinity, and their slopes there.
LIMITS: dict[str, tuple[float, float, float, float]] = {
    "relu": (0, math.inf, 0, 1),
    "relu6": (0, 6, 0, 0),
    "leaky_relu": (-math.inf, math.inf, 0.2, 1),
    "elu": (-1, math.inf, 0, 1),
    "selu": (-1.7580993408473766, math.inf, 0, 1.0507009873554805),
    "sigmoid": (0, 1, 0, 0),
    "hard_sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "softplus": (0, math.inf, 0, 1),
    "softsign": (-1, 1, 0, 0),
    "gelu": (0, math.inf, 0, 1),
    "silu": (0, math.inf, 0, 1),
    "hard_silu": (0, math.inf, 0, 1),
    "mish": (0, math.inf, 0, 1),
}

VARIANTS: list[activations.Activation] = [
    activations.ReLU(negative_slope=0.3),
    activations.ReLU(max_value=1.5),
    activations.ReLU(threshold=0.5),
    activations.ReLU(negative_slope=0.25, max_value=2.0, threshold=0.75),
    activations.LeakyReLU(0.0),
    activations.LeakyReLU(1.5),
    activations.ELU(0.7),
    activations.GELU(approximate=True),
    activations.Softmax(axis=0),
    activations.Softmax(axis=(0, 1)),
    activations.LogSoftmax(axis=0),
]


def _tolerance(dtype: np.dtype[Any]) -> float:
    return 16 * float(np.finfo(dtype).eps)


def _forward(name: str, x: Array, device: str) -> Array:
    return xc.to_numpy(activations.get(name)(xc.asarray(x, device=device), device=device))


def _backward(activation: activations.Activation, dy: Array, x: Array, device: str) -> Array:
    place = xc.get_device(device)
    x, dy = (xc.asarray(array, device=device) for array in (x, dy))
    y = activation.forward(x, place)
    return xc.to_numpy(activation.backward(dy, x if activation.keeps_input else None, y, place))


@pytest.mark.parametrize("name", FORMULAS)
def test_the_values_are_those_of_the_formula(name: str, device: str, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(scale=3, size=200), [0.0, -0.0]]).astype(dtype).reshape(2, 101)
    y = _forward(name, x, device)
    expected = np.array([FORMULAS[name](value) for value in x.ravel().tolist()]).reshape(x.shape)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=_tolerance(dtype), atol=_tolerance(dtype), equal_nan=False)


@pytest.mark.parametrize("name", ROWWISE)
def test_the_values_along_an_axis_are_those_of_the_formula(name: str, dtype: np.dtype[Any], rng: np.random.Generator) -> None:
    x = rng.normal(scale=3, size=(4, 5, 6)).astype(dtype)
    for axis in (-1, 0, 1, (0, 2)):
        cls = type(activations.get(name))
        weights = np.exp(x.astype(np.float64))
        expected = weights / weights.sum(axis=axis, keepdims=True)
        y = cls(axis)(x)
        assert y.dtype == dtype
        if name == "log_softmax":
            expected = np.log(expected)
        np.testing.assert_allclose(y, expected, rtol=2 * _tolerance(dtype), atol=_tolerance(dtype), equal_nan=False)


@pytest.mark.parametrize("activation", [*map(activations.get, (*FORMULAS, *ROWWISE)), *VARIANTS], ids=repr)
def test_the_gradient_is_the_central_difference(activation: activations.Activation, rng: np.random.Generator) -> None:
    x, dy = rng.normal(scale=2, size=(2, 6, 7))
    x[np.abs(x - np.round(x * 4) / 4) < 1e-3] += 0.01  # away from the corners
    before = x.copy(), dy.copy()
    dx = _backward(activation, dy, x, "numpy")
    expected = np.empty_like(x)
    for position in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[position] = 1e-6
        expected[position] = ((activation(x + step) - activation(x - step)) * dy).sum() / 2e-6
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-8, equal_nan=False)
    np.testing.assert_array_equal((x, dy), before)


@pytest.mark.parametrize("name", [*FORMULAS, *ROWWISE])
def test_the_gradient_keeps_the_dtype_and_is_the_same_on_every_device(
    name: str, device: str, dtype: np.dtype[Any], rng: np.random.Generator
) -> None:
    x, dy = rng.normal(scale=2, size=(2, 6, 7))
    expected = _backward(activations.get(name), dy.astype(dtype).astype(float), x.astype(dtype).astype(float), "numpy")
    dx = _backward(activations.get(name), dy.astype(dtype), x.astype(dtype), device)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, expected, rtol=2e-6, atol=2e-6, equal_nan=False)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("large", [1e5, 1e30, 3e38, math.inf])
def test_huge_inputs_give_the_limits_without_a_warning(name: str, large: float, dtype: np.dtype[Any]) -> None:
    activation = activations.get(name)
    x = np.array([[-large, large]], dtype)
    below, above, slope_below, slope_above = LIMITS[name]
    expected = [below if math.isfinite(below) else slope_below * -large, above if math.isfinite(above) else slope_above * large]
    np.testing.assert_allclose(activation(x), [expected], rtol=1e-4, atol=1e-4, equal_nan=False)
    dx = _backward(activation, np.ones_like(x), x, "numpy")
    np.testing.assert_allclose(dx, [[slope_below, slope_above]], rtol=1e-4, atol=1e-4, equal_nan=False)


def test_exponential_of_huge_inputs_is_infinite_or_zero(dtype: np.dtype[Any]) -> None:
    np.testing.assert_array_equal(activations.exponential(np.array([-1e30, 1e30], dtype)), [0, np.inf])


def test_softmax_of_huge_inputs_is_that_of_their_differences(dtype: np.dtype[Any]) -> None:
    x = np.array([[3e38, -3e38, -np.inf], [1e30, 1e30, 0]], dtype)
    np.testing.assert_array_equal(activations.softmax(x), [[1, 0, 0], [0.5, 0.5, 0]])
    with_logarithm = activations.log_softmax(np.array([[1e5, 0.0]], dtype))
    np.testing.assert_array_equal(with_logarithm, [[0, -1e5]])
    assert np.isnan(activations.softmax(np.array([[np.inf, 0.0]], dtype))).all()


@pytest.mark.parametrize("name", [*FORMULAS, *ROWWISE])
def test_nan_stays_nan(name: str, device: str, dtype: np.dtype[Any]) -> None:
    y = _forward(name, np.array([[np.nan], [1.0]], dtype), device)
    np.testing.assert_array_equal(np.isnan(y), [[True], [False]])


@pytest.mark.parametrize("name", [*FORMULAS, *ROWWISE])
def test_an_empty_batch_gives_an_empty_result(name: str, dtype: np.dtype[Any]) -> None:
    x = np.empty((0, 3), dtype)
    assert activations.get(name)(x).shape == (0, 3)
    assert _backward(activations.get(name), x, x, "numpy").shape == (0, 3)


@pytest.mark.parametrize("name", [*FORMULAS, *ROWWISE])
def test_any_memory_layout_will_do(name: str, device: str, rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(2, 6, 8)).astype(np.float32)
    expected, gradient = _forward(name, x, device), _backward(activations.get(name), dy, x, device)
    for change in (
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array[::-1].copy()[::-1],
    ):
        found = activations.get(name).forward(xc.asarray(change(x), device=device), xc.get_device(device))
        np.testing.assert_allclose(xc.to_numpy(found), expected, rtol=1e-6)
        np.testing.assert_allclose(
            _backward(activations.get(name), change(dy), change(x), device), gradient, rtol=1e-5, atol=1e-6
        )


def test_gelu_is_exact_to_the_dtype_in_both_tails() -> None:
    for dtype, lowest, tolerance in ((np.float64, -37.0, 4e-15), (np.float32, -12.0, 2e-6)):
        x = np.linspace(lowest, 9, 2001).astype(dtype)
        # erfc itself takes the rounding of x / sqrt(2) as exact: its own error is up to x**2 times the precision of float64
        expected = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
        of_reference = np.finfo(np.float64).eps * x.astype(float) ** 2
        np.testing.assert_array_less(
            np.abs(activations.gelu(x) - expected), (tolerance + of_reference) * np.abs(expected) + 1e-300
        )


def test_gelu_of_many_numbers_is_that_of_each() -> None:
    x = np.linspace(-5, 5, 20_011).reshape(1, -1)
    np.testing.assert_array_equal(activations.gelu(x)[:, 12_345:], activations.gelu(x[:, 12_345:]))


@pytest.mark.parametrize("name", [*FORMULAS, *ROWWISE])
def test_torch_agrees(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    functions = torch.nn.functional
    if name == "hard_sigmoid":
        pytest.skip("PyTorch's gradient is rounded to float32")
    theirs = {
        "linear": lambda x: x,
        "leaky_relu": lambda x: functions.leaky_relu(x, 0.2),
        "softmax": lambda x: functions.softmax(x, -1),
        "log_softmax": lambda x: functions.log_softmax(x, -1),
        "exponential": torch.exp,
        "swish": functions.silu,
        "hard_silu": functions.hardswish,
        "hard_swish": functions.hardswish,
    }
    x, dy = rng.normal(scale=3, size=(2, 5, 7))
    their_x = torch.tensor(x, requires_grad=True)
    their_y = (theirs.get(name) or getattr(functions, name))(their_x)
    their_y.backward(torch.tensor(dy))
    np.testing.assert_allclose(activations.get(name)(x), their_y.detach().numpy(), rtol=1e-12, atol=1e-14, equal_nan=False)
    dx = _backward(activations.get(name), dy, x, "numpy")
    np.testing.assert_allclose(dx, their_x.grad.numpy(), rtol=1e-11, atol=1e-13, equal_nan=False)


def test_names_classes_and_configurations_stand_for_activations() -> None:
    assert activations.get(None) is activations.linear
    assert activations.get("swish") is activations.silu
    assert activations.get(activations.tanh) is activations.tanh
    assert isinstance(activations.get(activations.ELU), activations.ELU)
    for activation in [*map(activations.get, (*FORMULAS, *ROWWISE)), *VARIANTS]:
        again = activations.get({"class_name": type(activation).__name__, "config": activation.get_config()})
        assert repr(again) == repr(activation)
        assert again.name == activation.name


def test_only_softmax_along_the_last_axis_and_sigmoid_are_told_to_a_loss() -> None:
    x = np.zeros((2, 3))
    told = activations.for_loss(activations.softmax, x)
    assert told is not None
    assert told[0] == "softmax"
    assert told[1] is x
    assert activations.for_loss(activations.sigmoid, x) is not None
    assert activations.for_loss(activations.Softmax(axis=0), x) is None
    assert activations.for_loss(activations.relu, x) is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: activations.get("rellu", op="Dense"), ValueError, "Dense: activation 'rellu' is unknown; did you mean 'relu'"),
        (lambda: activations.get(np.tanh, op="Dense"), TypeError, "Dense: activation must be a name .* derive a class"),
        (lambda: activations.get(3), TypeError, "got 3"),
        (
            lambda: activations.get({"config": {}}),
            ValueError,
            "activation must have 'class_name' and 'config', got {'config': {}}",
        ),
        (lambda: activations.GELU("no"), TypeError, "GELU: approximate must be True or False, got 'no'"),  # type: ignore[arg-type]
        (lambda: activations.ReLU(max_value=-1.0), ValueError, r"ReLU: max_value must be at least 0 and finite, got -1\.0"),
        (lambda: activations.ReLU(negative_slope=math.nan), ValueError, "negative_slope .* got nan"),
        (lambda: activations.LeakyReLU("steep"), TypeError, "LeakyReLU: negative_slope must be a number, got 'steep'"),  # type: ignore[arg-type]
        (lambda: activations.ELU(math.inf), ValueError, "ELU: alpha must be finite, got inf"),
        (lambda: activations.Softmax(axis=0.5), TypeError, r"Softmax: axis must be an integer or several, got 0\.5"),  # type: ignore[arg-type]
        (lambda: activations.softmax(1.0), ValueError, "axis -1 is not there in an input of 0 axes"),
        (lambda: activations.relu(np.array(["a"])), TypeError, "relu: x must be float32"),
    ],
)
def test_wrong_arguments_are_told(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
