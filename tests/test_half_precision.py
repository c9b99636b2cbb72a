"""float16 and bfloat16: the devices that compute in them sum in float32 and round once; the others say who does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import xpconv as xc

HALF_DEVICES = {"cudasim", "cuda"}


def half(name: str) -> np.dtype[Any]:
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@pytest.fixture(params=["float16", "bfloat16"])
def narrow(request: pytest.FixtureRequest) -> np.dtype[Any]:
    return half(request.param)


@pytest.fixture
def half_device(device: str) -> str:
    if device not in HALF_DEVICES:
        pytest.skip("this device takes none")
    return device


# Largest relative error of one rounding.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}

RANDOM = np.random.default_rng(0)


def quarters(*shape: int) -> Any:
    """Numbers that every dtype holds exactly."""
    return RANDOM.integers(-8, 9, shape) / 4


X, W, B, DY = quarters(2, 4, 7, 6), quarters(6, 2, 3, 2), quarters(6), quarters(2, 6, 5, 5)
POOLED, ADAPTED = quarters(2, 4, 3, 3), quarters(2, 4, 5, 5)


def pooled_and_back(to: Callable[[Any], Any], device: str) -> Any:
    y, indices = xc.max_pool2d(to(X), 2, return_indices=True, device=device)
    dx = xc.max_pool2d_backward(to(POOLED), indices, X.shape, 2, device=device)
    return y, dx, xc.max_unpool2d(y, indices, 2, output_size=(7, 6), device=device)


def adapted_and_back(to: Callable[[Any], Any], device: str) -> Any:
    y, indices = xc.adaptive_max_pool2d(to(X), 5, return_indices=True, device=device)
    return y, xc.adaptive_max_pool2d_backward(to(ADAPTED), indices, X.shape, device=device)


CALLS: dict[str, Callable[[Callable[[Any], Any], str], Any]] = {
    "conv2d": lambda to, at: xc.conv2d(to(X), to(W), to(B), groups=2, device=at),
    "conv2d_backward_input": lambda to, at: xc.conv2d_backward_input(to(DY), to(W), X.shape, groups=2, device=at),
    "conv2d_backward_weight": lambda to, at: xc.conv2d_backward_weight(to(X), to(DY), W.shape, groups=2, device=at),
    "conv_transpose2d": lambda to, at: xc.conv_transpose2d(to(DY), to(W), to(B[:4]), groups=2, device=at),
    "max_pool2d": pooled_and_back,
    "avg_pool2d": lambda to, at: xc.avg_pool2d(to(X), 3, stride=2, padding=1, device=at),
    "avg_pool2d_backward": lambda to, at: xc.avg_pool2d_backward(to(POOLED), X.shape, device=at),
    "adaptive_avg_pool2d": lambda to, at: xc.adaptive_avg_pool2d(to(X), (5, 4), device=at),
    "adaptive_avg_pool2d_backward": lambda to, at: xc.adaptive_avg_pool2d_backward(to(ADAPTED), X.shape, device=at),
    "adaptive_max_pool2d": adapted_and_back,
    "global_avg_pool2d": lambda to, at: xc.global_avg_pool2d(to(X), device=at),
    "global_max_pool2d": lambda to, at: xc.global_max_pool2d(to(X), device=at),
    "im2col": lambda to, at: xc.im2col(to(X), 2, device=at),
    "col2im": lambda to, at: xc.col2im(to(quarters(60, 16) * 0 + 0.25), X.shape, 2, device=at),
}


@pytest.mark.parametrize("name", CALLS)
def test_sums_are_rounded_once(name: str, narrow: np.dtype[Any], half_device: str) -> None:
    given = CALLS[name](lambda values: xc.asarray(values.astype(narrow), device=half_device), half_device)
    exact = CALLS[name](lambda values: values, "numpy")  # float64
    for part, wanted in zip(*(part if isinstance(part, tuple) else (part,) for part in (given, exact)), strict=True):
        host = xc.to_numpy(part)
        assert host.dtype == narrow
        # What is averaged or added up in float32 first may be rounded twice where the second rounding barely matters.
        rtol = ROUNDING[narrow.name] * (2 if name in ("conv_transpose2d", "adaptive_avg_pool2d_backward") else 1.001)
        np.testing.assert_allclose(host.astype(np.float64), wanted, rtol=rtol, atol=rtol / 4)


def test_what_is_too_large_becomes_infinite(half_device: str) -> None:
    x = np.array([[[[60000, 5000, 5519, 5520]]]], np.float16)
    weight = np.array([[[[1, 1]]]], np.float16)
    y = xc.to_numpy(xc.conv2d(xc.asarray(x, device=half_device), xc.asarray(weight, device=half_device), device=half_device))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.array([[[[65000, 10519, 11039]]]], np.float16))
    x[..., 1] = 6000
    y = xc.to_numpy(xc.conv2d(xc.asarray(x, device=half_device), xc.asarray(weight, device=half_device), device=half_device))
    np.testing.assert_array_equal(y, np.array([[[[np.inf, 11519, 11039]]]], np.float16))
    negative = xc.asarray(np.full((1, 1, 1, 2), -60000, np.float16), device=half_device)
    y = xc.to_numpy(xc.conv2d(negative, xc.asarray(weight, device=half_device), device=half_device))
    np.testing.assert_array_equal(y, [[[[-np.inf]]]])
    # Only the sum overflows, not what leads to it.
    y = xc.to_numpy(xc.avg_pool2d(negative, (1, 2), device=half_device))
    np.testing.assert_array_equal(y, [[[[-60000]]]])


@pytest.mark.parametrize(
    ("one", "other", "result"),
    [
        ("float16", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("float64", "float16", "float64"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float16", "bfloat16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "uint8", "bfloat16"),
        ("bool", "float16", "float16"),
        ("float16", "int64", "float16"),
    ],
)
def test_what_dtype_the_result_has(one: str, other: str, result: str, half_device: str) -> None:
    x, w = np.ones((1, 1, 3, 3)).astype(half(one)), np.ones((1, 1, 2, 2)).astype(half(other))
    y = xc.conv2d(xc.asarray(x, device=half_device), xc.asarray(w, device=half_device), device=half_device)
    assert y.dtype == half(result)
    np.testing.assert_array_equal(xc.to_numpy(y).astype(float), np.full((1, 1, 2, 2), 4.0))


@pytest.mark.parametrize(
    ("dtype", "integer", "advice"),
    [
        ("float16", 2049, "float16 is exact only up to 2048; pass w.astype('float32')"),
        ("float16", -(2**24) - 1, "float16 is exact only up to 2048; pass w.astype('float64')"),
        ("bfloat16", 257, "bfloat16 is exact only up to 256; pass w.astype('float32')"),
        ("float32", 2**24 + 1, "float32 is exact only up to 16777216; pass w.astype('float64')"),
        ("float64", 2**53 + 1, "float64 is exact only up to 9007199254740992; pass w.astype('float64'), knowing that it"),
    ],
)
def test_integers_that_would_be_rounded(dtype: str, integer: int, advice: str, half_device: str) -> None:
    x = xc.asarray(np.ones((1, 1, 2, 2)).astype(half(dtype)), device=half_device)
    w = xc.asarray(np.full((1, 1, 1, 1), integer), device=half_device)
    with pytest.raises(ValueError) as caught:
        xc.conv2d(x, w, device=half_device)
    assert advice in str(caught.value)


@pytest.mark.parametrize(("dtype", "integer"), [("float16", -2048), ("bfloat16", 256), ("float32", 2**24), ("float64", 2**53)])
def test_integers_that_are_kept(dtype: str, integer: int, half_device: str) -> None:
    x = xc.asarray(np.ones((1, 1, 1, 1)).astype(half(dtype)), device=half_device)
    y = xc.conv2d(x, xc.asarray(np.full((1, 1, 1, 1), integer), device=half_device), device=half_device)
    assert float(y[0, 0, 0, 0]) == integer


def test_other_devices_say_who_computes_in_them(narrow: np.dtype[Any], device: str) -> None:
    if device in HALF_DEVICES:
        pytest.skip("this device computes in them")
    x = np.ones((1, 1, 3, 3), narrow)
    message = (
        f"max_pool2d: x must be float32, float64, integer or boolean, got {narrow.name} (the devices cuda and cudasim compute "
        f"in it, {device} does not); convert it: x.astype('float32')"
    )
    with pytest.raises(TypeError) as caught:
        xc.max_pool2d(x, device=device)
    assert str(caught.value) == message


def test_layers_and_optimizers_take_them(narrow: np.dtype[Any], half_device: str) -> None:
    from xpconv.scratch.layers import Affine, BatchNormalization, Relu, Sigmoid, SoftmaxWithLoss

    x, w, b = (
        xc.asarray(values.astype(narrow), device=half_device) for values in (quarters(5, 4), quarters(4, 3), quarters(3))
    )
    ones = xc.asarray(np.ones(3, narrow), device=half_device)
    chain = [Affine(w, b), BatchNormalization(ones, ones * 0), Sigmoid(), Relu()]
    for layer in chain:
        layer.device = half_device
        x = layer.forward(x)
        assert x.dtype == narrow
    last = SoftmaxWithLoss(half_device)
    assert 0 < float(last.forward(x, np.arange(5) % 3)) < 3
    dx = last.backward()
    for layer in reversed(chain):
        dx = layer.backward(dx)
        assert dx.dtype == narrow
    before = xc.to_numpy(w).astype(float)
    xc.Adam(0.5).update({"W": w}, {"W": chain[0].dW}, device=half_device)
    assert w.dtype == narrow
    moved = xc.to_numpy(w).astype(float) - before
    np.testing.assert_allclose(np.abs(moved)[np.abs(moved) > 0], 0.5, rtol=0.05)
    assert np.count_nonzero(moved) > 6
