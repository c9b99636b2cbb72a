"""Values and gradients against PyTorch, where it is installed, on every device."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import reference
from conftest import assert_close, call, normal

import xpconv as xc

torch = pytest.importorskip("torch")
F = torch.nn.functional

Array = np.ndarray[Any, np.dtype[Any]]


def tensor(array: Array) -> Any:
    return torch.tensor(np.ascontiguousarray(array), requires_grad=array.dtype.kind == "f")


def to_format(array: Any, data_format: str) -> Array:
    """A PyTorch tensor of images, or an array in its order, in the order of ``data_format``."""
    if not isinstance(array, np.ndarray):
        array = array.detach().numpy()
    return reference.from_channels_first(array, data_format)


def weight_to_format(array: Any, data_format: str) -> Array:
    if not isinstance(array, np.ndarray):
        array = array.detach().numpy()
    return reference.weight_from_channels_first(array, data_format)


def product(**values: list[Any]) -> list[Any]:
    """Every combination of option values, as parameters with readable names."""
    combinations = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    return [pytest.param(c, id=" ".join(f"{name}={value}" for name, value in c.items())) for c in combinations]


# ----------------------------------------------------------------------------------------------------------------------
# Convolution
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)], ids=str)
@pytest.mark.parametrize("options", product(stride=[1, (2, 3)], padding=[0, (2, 1)], dilation=[1, (1, 2)], groups=[1, 2, 4]))
def test_conv2d(options: dict[str, Any], kernel: tuple[int, int], device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x, w = normal(1, (3, 4, 11, 12), dtype), normal(2, (8, 4 // options["groups"], *kernel), dtype)
    b = normal(3, (8,), dtype)
    x_tensor, w_tensor, b_tensor = tensor(x), tensor(w), tensor(b)
    expected = F.conv2d(x_tensor, w_tensor, b_tensor, **options)
    dy = normal(4, tuple(expected.shape), dtype)
    expected.backward(torch.tensor(dy))

    x, dy, w = to_format(x, data_format), to_format(dy, data_format), weight_to_format(w, data_format)
    options = {**options, "data_format": data_format, "device": device}
    y = call(xc.conv2d, x, w, b, **options)
    dx = call(xc.conv2d_backward_input, dy, w, x.shape, **options)
    dw, db = call(xc.conv2d_backward_weight, x, dy, w.shape, **options)
    terms = dy.size // len(b)
    assert_close(y, to_format(expected, data_format), dtype, terms=10)
    assert_close(dx, to_format(x_tensor.grad, data_format), dtype, terms=10)
    assert_close(dw, weight_to_format(w_tensor.grad, data_format), dtype, terms=terms)
    assert_close(db, b_tensor.grad.numpy(), dtype, terms=terms)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv2d_with_padding_by_name(padding: str, dilation: int, device: str, dtype: np.dtype[Any]) -> None:
    x, w = normal(1, (2, 3, 9, 10), dtype), normal(2, (4, 3, 3, 5), dtype)
    expected = F.conv2d(tensor(x), tensor(w), padding=padding, dilation=dilation)
    y = call(xc.conv2d, x, w, padding=padding, dilation=dilation, device=device)
    assert_close(y, expected.detach().numpy(), dtype, terms=10)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options.values[0], id=options.id)
        for options in product(
            stride=[1, (3, 2)], padding=[0, (1, 2)], output_padding=[0, (1, 0)], dilation=[1, (2, 3)], groups=[1, 2]
        )
        if options.values[0]["output_padding"] == 0 or options.values[0]["stride"] != 1
    ],
)
def test_conv_transpose2d(options: dict[str, Any], device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x, w = normal(1, (2, 4, 5, 6), dtype), normal(2, (4, 3, 3, 2), dtype)
    b = normal(3, (3 * options["groups"],), dtype)
    x_tensor, w_tensor = tensor(x), tensor(w)
    expected = F.conv_transpose2d(x_tensor, w_tensor, tensor(b), **options)
    dy = normal(4, tuple(expected.shape), dtype)
    expected.backward(torch.tensor(dy))

    x, dy, w = to_format(x, data_format), to_format(dy, data_format), weight_to_format(w, data_format)
    options = {**options, "data_format": data_format, "device": device}
    y = call(xc.conv_transpose2d, x, w, b, **options)
    assert_close(y, to_format(expected, data_format), dtype, terms=10)
    # The gradients of a transposed convolution are a convolution.
    del options["output_padding"]
    dx = call(xc.conv2d, dy, w, **options)
    dw, _ = call(xc.conv2d_backward_weight, dy, x, w.shape, **options)
    assert_close(dx, to_format(x_tensor.grad, data_format), dtype, terms=10)
    assert_close(dw, weight_to_format(w_tensor.grad, data_format), dtype, terms=100)


# ----------------------------------------------------------------------------------------------------------------------
# Pooling
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_size", [2, 3, (4, 2)], ids=str)
@pytest.mark.parametrize("options", product(stride=[None, 1, (2, 3)], padding=[0, 1], dilation=[1, 2], ceil_mode=[False, True]))
def test_max_pool2d(options: dict[str, Any], pool_size: Any, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x = np.random.default_rng(1).integers(-4, 5, (3, 4, 11, 12)).astype(dtype)  # many ties
    x_tensor = tensor(x)
    expected, expected_indices = F.max_pool2d(x_tensor, pool_size, **options, return_indices=True)
    dy = normal(2, tuple(expected.shape), dtype)
    expected.backward(torch.tensor(dy))

    x, dy = to_format(x, data_format), to_format(dy, data_format)
    options = {**options, "data_format": data_format, "device": device}
    y, indices = call(xc.max_pool2d, x, pool_size, return_indices=True, **options)
    dx = call(xc.max_pool2d_backward, dy, indices, x.shape, pool_size, **options)
    assert_close(y, to_format(expected, data_format), dtype)
    np.testing.assert_array_equal(indices, to_format(expected_indices, data_format), strict=True)
    assert_close(dx, to_format(x_tensor.grad, data_format), dtype)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(("pool_size", "padding"), [(2, 1), (3, 1), (4, 2)])
def test_max_pool2d_of_nan_and_minus_infinity(value: float, pool_size: int, padding: int, device: str) -> None:
    x = normal(1, (3, 2, 9, 8))
    x[0, 0, ::4, ::4] = value  # no more than one in a window: of several NaN PyTorch takes the last
    if value == -np.inf:
        x[1] = value
    expected, expected_indices = F.max_pool2d(torch.tensor(x), pool_size, 2, padding, return_indices=True)
    options = {"stride": 2, "padding": padding, "device": device}
    y, indices = call(xc.max_pool2d, x, pool_size, return_indices=True, **options)
    np.testing.assert_array_equal(y, expected.numpy())
    np.testing.assert_array_equal(indices, expected_indices.numpy())


@pytest.mark.parametrize("pool_size", [2, 3, (4, 2)], ids=str)
@pytest.mark.parametrize(
    "options",
    product(stride=[None, 1, (2, 3)], padding=[0, 1], ceil_mode=[False, True], count_include_pad=[False, True]),
)
def test_avg_pool2d(options: dict[str, Any], pool_size: Any, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x = normal(1, (3, 4, 11, 12), dtype)
    x_tensor = tensor(x)
    expected = F.avg_pool2d(x_tensor, pool_size, **options)
    dy = normal(2, tuple(expected.shape), dtype)
    expected.backward(torch.tensor(dy))

    x, dy = to_format(x, data_format), to_format(dy, data_format)
    options = {**options, "data_format": data_format, "device": device}
    y = call(xc.avg_pool2d, x, pool_size, **options)
    dx = call(xc.avg_pool2d_backward, dy, x.shape, pool_size, **options)
    assert_close(y, to_format(expected, data_format), dtype)
    assert_close(dx, to_format(x_tensor.grad, data_format), dtype)


@pytest.mark.parametrize("output_size", [1, (3, 4), (11, 12), (7, 5), (13, 20)], ids=str)
def test_adaptive_pooling(output_size: Any, device: str, dtype: np.dtype[Any], data_format: str) -> None:
    x = np.random.default_rng(1).integers(-4, 5, (3, 4, 11, 12)).astype(dtype)
    layout = {"data_format": data_format, "device": device}
    x_laid_out = to_format(x, data_format)

    x_tensor = tensor(x)
    expected = F.adaptive_avg_pool2d(x_tensor, output_size)
    dy = normal(2, tuple(expected.shape), dtype)
    expected.backward(torch.tensor(dy))
    dy_laid_out = to_format(dy, data_format)
    y = call(xc.adaptive_avg_pool2d, x_laid_out, output_size, **layout)
    assert_close(y, to_format(expected, data_format), dtype)
    dx = call(xc.adaptive_avg_pool2d_backward, dy_laid_out, x_laid_out.shape, **layout)
    assert_close(dx, to_format(x_tensor.grad, data_format), dtype)

    x_tensor = tensor(x)
    expected, expected_indices = F.adaptive_max_pool2d(x_tensor, output_size, return_indices=True)
    expected.backward(torch.tensor(dy))
    y, indices = call(xc.adaptive_max_pool2d, x_laid_out, output_size, return_indices=True, **layout)
    assert_close(y, to_format(expected, data_format), dtype)
    np.testing.assert_array_equal(indices, to_format(expected_indices, data_format))
    dx = call(xc.adaptive_max_pool2d_backward, dy_laid_out, indices, x_laid_out.shape, **layout)
    assert_close(dx, to_format(x_tensor.grad, data_format), dtype)


@pytest.mark.parametrize(
    ("size", "pool_size", "options", "output_size"),
    [
        ((8, 6), 2, {}, None),
        ((9, 7), 2, {}, (9, 7)),
        ((9, 9), (2, 3), {"stride": (2, 3), "padding": (0, 1)}, (9, 9)),
        ((8, 8), 2, {"stride": 3}, None),
    ],
)
def test_max_unpool2d(
    size: tuple[int, int],
    pool_size: Any,
    options: dict[str, Any],
    output_size: Any,
    device: str,
    dtype: np.dtype[Any],
    data_format: str,
) -> None:
    x = normal(1, (2, 3, *size), dtype)
    y, indices = F.max_pool2d(torch.tensor(x), pool_size, **options, return_indices=True)
    expected = F.max_unpool2d(y, indices, pool_size, **options, output_size=output_size)
    unpooled = call(
        xc.max_unpool2d,
        to_format(y, data_format),
        to_format(indices, data_format),
        pool_size,
        **options,
        output_size=output_size,
        data_format=data_format,
        device=device,
    )
    assert_close(unpooled, to_format(expected, data_format), dtype)


# ----------------------------------------------------------------------------------------------------------------------
# im2col
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 3, (2, 4)], ids=str)
@pytest.mark.parametrize("options", product(stride=[1, (2, 3)], padding=[0, (1, 2)], dilation=[1, (3, 2)]))
def test_im2col_and_col2im(options: dict[str, Any], kernel_size: Any, device: str, dtype: np.dtype[Any]) -> None:
    x = normal(1, (2, 3, 9, 10), dtype)
    kernel = reference.pair(kernel_size)
    unfolded = F.unfold(torch.tensor(x), kernel_size, **options)  # (N, C*KH*KW, OH*OW)
    expected = unfolded.permute(0, 2, 1).reshape(-1, 3 * kernel[0] * kernel[1])
    col = call(xc.im2col, x, kernel_size, device=device, **options)
    assert_close(col, expected.numpy(), dtype)
    folded = F.fold(unfolded, (9, 10), kernel_size, **options)
    assert_close(call(xc.col2im, col, x.shape, kernel_size, device=device, **options), folded.numpy(), dtype)
