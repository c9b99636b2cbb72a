"""ZeroPadding2D, Cropping2D and UpSampling2D: against np.pad, slices, np.kron, pixel by pixel, and PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from conftest import MEMORY_LAYOUTS, assert_close, normal
from hypothesis import given
from hypothesis import strategies as st

import xpconv as xc
from xpconv.layers.resampling import Cropping2D, UpSampling2D, ZeroPadding2D

Array = np.ndarray[Any, np.dtype[Any]]

EDGES = [
    # as given, and what it stands for
    (2, ((2, 2), (2, 2))),
    ((1, 2), ((1, 1), (2, 2))),
    (((1, 2), (3, 0)), ((1, 2), (3, 0))),
    (((0, 1), 2), ((0, 1), (2, 2))),
    ([[0, 0], [0, 3]], ((0, 0), (0, 3))),
]


def images(shape: tuple[int, int, int, int], data_format: str, dtype: Any = np.float64, seed: int = 1) -> Array:
    """Images of (N, C, H, W), in a data format."""
    return np.ascontiguousarray(reference.from_channels_first(normal(seed, shape, dtype), data_format))


def widths(edges: Any, data_format: str) -> list[tuple[int, int]]:
    """Edges of all four axes, as np.pad takes them."""
    return [(0, 0), (0, 0), *edges] if data_format == "channels_first" else [(0, 0), *edges, (0, 0)]


def run(layer: Any, x: Array, device: str) -> Array:
    return xc.to_numpy(layer(xc.asarray(x, device=device)))


def check_adjoint(layer: Any, x: Array, device: str) -> None:
    """<layer(x), r> = <x, what goes back of r>, for a layer that is linear."""
    y = run(layer, x, device)
    for seed in range(3):
        r = normal(20 + seed, y.shape, x.dtype)
        dx = xc.to_numpy(layer.backward(xc.asarray(r, device=device)))
        assert dx.dtype == x.dtype
        assert dx.shape == x.shape
        assert layer.gradients == []
        left, right = np.sum(y * r, dtype=np.float64), np.sum(x * dx, dtype=np.float64)
        np.testing.assert_allclose(
            left, right, rtol=1e-5 if x.itemsize == 4 else 1e-12, atol=1e-4 if x.itemsize == 4 else 1e-12
        )


# ---- padding and cropping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given_as", "edges"), EDGES)
def test_zero_padding(given_as: Any, edges: Any, device: str, data_format: str) -> None:
    x = images((2, 3, 5, 6), data_format, np.float32)
    layer = ZeroPadding2D(given_as, data_format, device=device)
    assert_close(run(layer, x, device), np.pad(x, widths(edges, data_format)), "float32")
    check_adjoint(layer, x, device)


@pytest.mark.parametrize(("given_as", "edges"), EDGES)
def test_cropping(given_as: Any, edges: Any, device: str, data_format: str) -> None:
    whole = images((2, 3, 6, 7), data_format, np.float32)
    layer = Cropping2D(given_as, data_format, device=device)
    cut = tuple(slice(before, whole.shape[a] - after) for a, (before, after) in enumerate(widths(edges, data_format)))
    assert_close(run(layer, whole, device), whole[cut], "float32")
    check_adjoint(layer, whole, device)
    inside = whole[cut].copy()
    undone = run(layer, run(ZeroPadding2D(given_as, data_format, device=device), inside, device), device)
    np.testing.assert_array_equal(undone, inside)


def test_defaults() -> None:
    x = normal(1, (1, 3, 4, 2), np.float32)
    assert ZeroPadding2D()(x).shape == (1, 5, 6, 2)
    np.testing.assert_array_equal(Cropping2D()(x), x)
    np.testing.assert_array_equal(UpSampling2D()(x), np.kron(x, np.ones((1, 2, 2, 1), np.float32)))


# ---- upsampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, (2, 1), (1, 4), 1])
def test_nearest(size: Any, device: str, data_format: str) -> None:
    x = images((2, 3, 3, 4), data_format, np.float32)
    rows, columns = reference.pair(size)
    block = np.ones((1, 1, rows, columns) if data_format == "channels_first" else (1, rows, columns, 1), np.float32)
    layer = UpSampling2D(size, data_format, device=device)
    assert_close(run(layer, x, device), np.kron(x, block), "float32")
    check_adjoint(layer, x, device)


def bilinear(x: Array, size: tuple[int, int]) -> Array:
    """Pixel by pixel: where its centre lies among the centres of (N, C, H, W), and the four around it."""
    height, width = x.shape[2:]
    y = np.zeros((*x.shape[:2], height * size[0], width * size[1]))
    for i, j in np.ndindex(*y.shape[2:]):
        row, column = (i + 0.5) / size[0] - 0.5, (j + 0.5) / size[1] - 0.5
        top, left = int(np.floor(row)), int(np.floor(column))
        for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            share = (1 - abs(row - r)) * (1 - abs(column - c))
            y[:, :, i, j] += share * x[:, :, min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
    return y


@pytest.mark.parametrize("size", [2, 3, (1, 4), (5, 2)])
def test_bilinear(size: Any, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    for shape in ((2, 3, 3, 4), (1, 2, 1, 2)):
        x = images(shape, data_format, dtype)
        layer = UpSampling2D(size, data_format, "bilinear", device=device, dtype=dtype)
        expected = bilinear(reference.to_channels_first(x, data_format).astype(np.float64), reference.pair(size))
        assert_close(run(layer, x, device), reference.from_channels_first(expected, data_format), dtype)
        check_adjoint(layer, x, device)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_of_torch(mode: str) -> None:
    torch = pytest.importorskip("torch")
    x = normal(1, (2, 3, 4, 5))
    layer = UpSampling2D((3, 2), "channels_first", mode, dtype="float64")
    pixels = torch.tensor(x, requires_grad=True)
    options = {"align_corners": False} if mode == "bilinear" else {}
    expected = torch.nn.functional.interpolate(pixels, scale_factor=(3, 2), mode=mode, **options)
    assert_close(layer(x), expected.detach().numpy(), "float64")
    r = normal(2, tuple(expected.shape))
    expected.backward(torch.tensor(r))
    assert_close(layer.backward(r), pixels.grad.numpy(), "float64")


def test_bilinear_numbers_of_keras() -> None:
    # Keras 3.15 on TensorFlow.
    x = np.array([4.0, 8.0, 0.0], np.float32).reshape(1, 1, 3, 1)
    twice = UpSampling2D((1, 2), interpolation="bilinear")(x).ravel()
    np.testing.assert_array_equal(twice, [4, 5, 7, 6, 2, 0])
    four_times = UpSampling2D((1, 4), interpolation="bilinear")(x).ravel()
    np.testing.assert_array_equal(four_times, [4, 4, 4.5, 5.5, 6.5, 7.5, 7, 5, 3, 1, 0, 0])


def test_infinity_stays_where_no_other_pixel_has_a_share() -> None:
    x = np.array([1.0, np.inf, 2.0], np.float32).reshape(1, 1, 3, 1)
    y = UpSampling2D((1, 3), interpolation="bilinear")(x).ravel()
    np.testing.assert_array_equal(y, [1, 1, np.inf, np.inf, np.inf, np.inf, np.inf, 2, 2])


# ---- all of them -------------------------------------------------------------------------------------------------------

LAYERS: list[Callable[..., Any]] = [
    lambda **options: ZeroPadding2D(((1, 2), (0, 1)), **options),
    lambda **options: Cropping2D(((1, 0), (0, 2)), **options),
    lambda **options: UpSampling2D((2, 3), **options),
    lambda **options: UpSampling2D((2, 3), interpolation="bilinear", **options),
]
NAMES = ["padding", "cropping", "nearest", "bilinear"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_integers(make: Callable[..., Any], dtype: Any, device: str) -> None:
    x = np.random.default_rng(1).integers(0, 9, (2, 3, 4, 2)).astype(dtype)
    layer = make(device=device)
    y = run(layer, x, device)
    bilinear_one = getattr(layer, "interpolation", None) == "bilinear"
    assert y.dtype == (np.float32 if bilinear_one else dtype)
    np.testing.assert_array_equal(y, run(layer, x.astype(np.float32), device).astype(y.dtype))


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_inputs_stay_as_they_are_and_results_are_memory_of_their_own(make: Callable[..., Any]) -> None:
    for layout in MEMORY_LAYOUTS.values():
        x = layout(normal(1, (1, 4, 5, 2), np.float32))
        before = x.tobytes()
        layer = make()
        y = layer(x)
        np.testing.assert_array_equal(y, make()(np.array(x, np.float32)))
        dy = layout(normal(2, y.shape, np.float32))
        dx = layer.backward(dy)
        assert y.flags.writeable
        assert dx.flags.writeable
        y[...], dx[...] = 7, 7
        assert x.tobytes() == before
        assert dy.tobytes() == layout(normal(2, y.shape, np.float32)).tobytes()


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_empty_batch(make: Callable[..., Any], device: str, data_format: str) -> None:
    layer = make(device=device, data_format=data_format)
    x = images((0, 2, 4, 5), data_format, np.float32)
    y = run(layer, x, device)
    assert y.shape == layer.compute_output_shape(x.shape)
    assert layer.backward(xc.asarray(y, device=device)).shape == x.shape


@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)),
    edges=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    data_format=st.sampled_from(["channels_first", "channels_last", None]),
)
def test_output_shape_is_that_of_the_output(shape: Any, edges: Any, size: Any, data_format: Any) -> None:
    layers = [ZeroPadding2D(edges, data_format), Cropping2D(edges, data_format), UpSampling2D(size, data_format)]
    for layer in [*layers, UpSampling2D(size, data_format, "bilinear")]:
        try:
            expected = layer.compute_output_shape(shape)
        except ValueError:
            assert isinstance(layer, Cropping2D)
            with pytest.raises(ValueError, match="nothing would be left"):
                layer(np.zeros(shape, np.float32))
            continue
        y = layer(np.zeros(shape, np.float32))
        assert y.shape == expected
        assert layer.backward(y).shape == shape
        for unknown in range(4):
            partly = tuple(None if axis == unknown else length for axis, length in enumerate(shape))
            known = tuple(None if axis == unknown else length for axis, length in enumerate(expected))
            assert layer.compute_output_shape(partly) == known


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_the_arguments_make_the_layer_again(make: Callable[..., Any]) -> None:
    layer = make(name="again")
    copy = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    x = normal(1, (1, 4, 5, 2), np.float32)
    np.testing.assert_array_equal(copy(x), layer(x))


BAD_ARGUMENTS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ZeroPadding2D(-1), ValueError, "ZeroPadding2D: padding must be at least 0, got -1"),
    (lambda: ZeroPadding2D(1.5), TypeError, r"ZeroPadding2D: padding must be an integer, \(height, width\), or .* got 1.5"),
    (lambda: ZeroPadding2D((1, 2, 3)), ValueError, r"got \(1, 2, 3\)"),
    (lambda: ZeroPadding2D(((1, 2, 3), 1)), ValueError, r"got \(\(1, 2, 3\), 1\)"),
    (lambda: ZeroPadding2D((1, "2")), TypeError, r"got \(1, '2'\)"),
    (lambda: ZeroPadding2D("same"), TypeError, "got 'same'"),
    (lambda: ZeroPadding2D(True), TypeError, "got True"),
    (lambda: Cropping2D(((1, -2), 0)), ValueError, "Cropping2D: cropping must be at least 0, got -2"),
    (lambda: Cropping2D(None), TypeError, "Cropping2D: cropping must be .* got None"),
    (lambda: Cropping2D(1, data_format="NHWC"), ValueError, "data_format must be .* got 'NHWC'"),
    (lambda: UpSampling2D(0), ValueError, "UpSampling2D: size must be at least 1, got 0"),
    (lambda: UpSampling2D(1.5), TypeError, "UpSampling2D: size must be an integer or .* got 1.5"),
    (lambda: UpSampling2D(2, interpolation="bilinaer"), ValueError, "did you mean 'bilinear'"),
    (lambda: UpSampling2D(2, interpolation="bicubic"), ValueError, "interpolation 'bicubic' is unknown.*'bilinear', 'nearest'"),
    (lambda: UpSampling2D(2, interpolation=1), TypeError, "interpolation must be a name such as 'nearest', got 1"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD_ARGUMENTS)
def test_bad_arguments(make: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("make", LAYERS, ids=NAMES)
def test_bad_inputs(make: Callable[..., Any]) -> None:
    layer = make(name="r")
    with pytest.raises(ValueError, match=r"layer 'r' .*4 axes \(batch, height, width, channels\), got 3: \(4, 5, 2\)"):
        layer(np.zeros((4, 5, 2), np.float32))
    y = layer(np.zeros((1, 4, 5, 2), np.float32))
    with pytest.raises(ValueError, match="layer 'r'"):
        layer(np.zeros((1, 4, 5, 2, 1), np.float32))
    with pytest.raises(ValueError, match="layer 'r'"):
        layer.backward(np.zeros((2, *y.shape[1:]), np.float32))


def test_cropping_everything_is_refused() -> None:
    layer = Cropping2D(((2, 2), (0, 0)), name="r")
    with pytest.raises(ValueError, match=r"layer 'r' \(Cropping2D\): nothing would be left of images of \(4, 9\) pixels"):
        layer.build((None, 4, 9, 1))
    layer.build((None, None, 9, 1))
    with pytest.raises(ValueError, match=r"layer 'r' \(Cropping2D\): nothing would be left of images of \(3, 9\) pixels"):
        layer(np.zeros((1, 3, 9, 1), np.float32))
