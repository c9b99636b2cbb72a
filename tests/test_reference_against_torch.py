"""The oracle of this suite on trial: reference.py against PyTorch, and assert_close against what it must refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
from conftest import TOLERANCES, assert_close, normal

torch = pytest.importorskip("torch")
F = torch.nn.functional

FORMATS = ["channels_first", "channels_last"]


def tensor(array: Any, *, grad: bool = False) -> Any:
    return torch.tensor(np.ascontiguousarray(array), requires_grad=grad)


def close(actual: Any, expected: Any) -> None:
    """The reference against a tensor."""
    assert_close(actual, expected.detach().numpy(), np.float64)


def torch_padded(x: Any, pads: reference.Pads, value: float = 0.0) -> Any:
    (top, bottom), (left, right) = pads
    return F.pad(x, (left, right, top, bottom), value=value)


# ----------------------------------------------------------------------------------------------------------------------
# assert_close
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ([1.0, np.nan], [1.0, 2.0], r"1 of 2 .* \[1\]: .*nan.* expected .*2\.0"),
        ([1.0, 2.0], [1.0, np.nan], r"1 of 2 .* \[1\]: .*2\.0.* expected .*nan"),
        ([1.0, np.inf], [1.0, 2.0], r"1 of 2 .* \[1\]: .*inf.* expected .*2\.0"),
        ([1.0, 2.0], [1.0, np.inf], r"1 of 2 .* \[1\]"),
        ([-np.inf, 2.0], [np.inf, 2.0], r"1 of 2 .* \[0\]"),
        ([np.nan, 2.0], [np.inf, 2.0], r"1 of 2 .* \[0\]"),
        ([1.1, 2.0, 3.5], [1.0, 2.0, 3.0], r"2 of 3 .* \[2\]: .*3\.5.* error 0\.5"),
        ([1.0, 2.0 + 1e-11], [1.0, 2.0], r"1 of 2 .* \[1\]"),
        ([1.0], [1.0, 1.0], r"shape \(1,\), expected \(2,\)"),
        ([[1.0]], [1.0], r"shape \(1, 1\), expected \(1,\)"),
    ],
)
def test_assert_close_refuses(actual: list[float], expected: list[float], message: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        assert_close(np.array(actual), np.array(expected), np.float64)


@pytest.mark.parametrize("wrong", ["float64", "int32", ">f4"])
def test_assert_close_refuses_another_dtype(wrong: str) -> None:
    with pytest.raises(AssertionError, match="expected float32"):
        assert_close(np.ones(2, wrong), np.ones(2), np.float32)


def test_assert_close_accepts_what_is_near() -> None:
    for dtype, (rtol, _) in TOLERANCES.items():
        expected = np.array([1.0, -1000.0, 0.0, np.nan, np.inf, -np.inf])
        assert_close((expected * (1 + rtol)).astype(dtype), expected, dtype)
        with pytest.raises(pytest.fail.Exception):
            assert_close((expected * (1 + 3 * rtol)).astype(dtype), expected, dtype)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), np.float64)


# ----------------------------------------------------------------------------------------------------------------------
# Sizes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        # What TensorFlow's documentation of SAME gives, worked out by hand.
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),
        (5, 4, 1, 1, (1, 2)),
        (5, 3, 2, 1, (1, 1)),
        (6, 3, 2, 1, (0, 1)),
        (7, 2, 3, 1, (0, 1)),
        (224, 7, 2, 1, (2, 3)),
        (8, 3, 1, 2, (2, 2)),
        (8, 2, 1, 3, (1, 2)),
        (9, 1, 4, 1, (0, 0)),
        (10, 2, 5, 1, (0, 0)),
        (1, 5, 1, 1, (2, 2)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]) -> None:
    assert reference.same_padding(size, kernel, stride, dilation) == expected
    outputs = reference.output_size(size, kernel, stride, expected, dilation, ceil_mode=False)
    assert outputs == -(-size // stride)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_pads_as_torch(kernel: int, dilation: int) -> None:
    x, w = normal(1, (1, 1, 9, 9)), normal(2, (1, 1, kernel, kernel))
    expected = F.conv2d(tensor(x), tensor(w), padding="same", dilation=dilation)
    close(reference.conv2d(x, w, padding="same", dilation=dilation), expected)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_size_of_every_small_window(ceil_mode: bool) -> None:
    checked = 0
    for size in range(1, 10):
        for kernel in range(1, 5):
            for stride in range(1, 6):
                for dilation in range(1, 4):
                    for padding in range(kernel // 2 + 1):
                        if reference.span(kernel, dilation) > size + 2 * padding:
                            continue
                        y = F.max_pool2d(torch.zeros(1, 1, size, size), kernel, stride, padding, dilation, ceil_mode=ceil_mode)
                        pads = (padding, padding)
                        expected = reference.output_size(size, kernel, stride, pads, dilation, ceil_mode)
                        assert y.shape[2] == expected, (size, kernel, stride, dilation, padding)
                        checked += 1
    assert checked == 770


# ----------------------------------------------------------------------------------------------------------------------
# Convolution
# ----------------------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [
    pytest.param((2, 3, 7, 6), (4, 3, 3, 2), {}, id="plain"),
    pytest.param((2, 3, 7, 6), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 2)}, id="stride and padding"),
    pytest.param((1, 2, 9, 8), (3, 2, 2, 3), {"dilation": (3, 2), "stride": 2}, id="dilation"),
    pytest.param((2, 4, 6, 5), (6, 2, 3, 3), {"groups": 2, "padding": ((2, 0), (0, 3))}, id="groups, asymmetric"),
    pytest.param((2, 3, 6, 5), (6, 1, 2, 4), {"groups": 3, "padding": "same", "stride": (1, 2)}, id="depthwise, same"),
    pytest.param((3, 2, 3, 4), (2, 2, 3, 4), {}, id="kernel as large as the image"),
    pytest.param((2, 5, 4, 4), (3, 5, 1, 1), {"stride": 2}, id="1x1"),
    pytest.param((0, 2, 4, 4), (3, 2, 2, 2), {}, id="empty batch"),
]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
def test_convolution(x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str) -> None:
    x, w, b = normal(1, x_shape), normal(2, w_shape), normal(3, w_shape[:1])
    x_tensor, w_tensor, b_tensor = tensor(x, grad=True), tensor(w, grad=True), tensor(b, grad=True)
    settings = {"stride": 1, "dilation": 1, "padding": 0, **options}
    pads = reference.paddings(settings.pop("padding"), x_shape[2:], w_shape[2:], settings["stride"], settings["dilation"])
    y = F.conv2d(torch_padded(x_tensor, pads), w_tensor, b_tensor, **settings)
    dy = normal(4, tuple(y.shape))
    y.backward(tensor(dy))

    options = {**options, "data_format": data_format}
    x, dy = reference.from_channels_first(x, data_format), reference.from_channels_first(dy, data_format)
    w = reference.weight_from_channels_first(w, data_format)
    actual = reference.conv2d(x, w, b, **options)
    dx = reference.conv2d_backward_input(dy, w, x.shape, **options)
    dw, db = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    close(reference.to_channels_first(actual, data_format), y)
    close(reference.to_channels_first(dx, data_format), x_tensor.grad)
    close(reference.weight_to_channels_first(dw, data_format), w_tensor.grad)
    close(db, b_tensor.grad)


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
def test_large_convolution(x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any]) -> None:
    x, w, b = normal(1, x_shape), normal(2, w_shape), normal(3, w_shape[:1])
    y = reference.conv2d(x, w, b, **options)
    dy = normal(4, y.shape)
    assert_close(reference.large_conv2d(x, w, b, **options), y, np.float64)
    dx, dw, db = reference.large_conv2d_backward(x, w, dy, **options)
    assert_close(dx, reference.conv2d_backward_input(dy, w, x.shape, **options), np.float64)
    expected_dw, expected_db = reference.conv2d_backward_weight(x, dy, w.shape, **options)
    assert_close(dw, expected_dw, np.float64)
    assert_close(db, expected_db, np.float64)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        pytest.param((2, 3, 4, 3), (3, 4, 3, 2), {}, id="plain"),
        pytest.param((2, 3, 4, 3), (3, 2, 3, 2), {"stride": (2, 3), "padding": (1, 0)}, id="stride and padding"),
        pytest.param((1, 2, 3, 4), (2, 3, 3, 3), {"stride": 3, "output_padding": (2, 1), "padding": 1}, id="output_padding"),
        pytest.param((2, 4, 3, 3), (4, 3, 2, 3), {"groups": 2, "dilation": (2, 3)}, id="groups and dilation"),
        pytest.param((2, 3, 3, 3), (3, 1, 2, 2), {"groups": 3, "stride": 2}, id="depthwise"),
        pytest.param((1, 2, 3, 3), (2, 2, 2, 2), {"stride": 3, "output_padding": 1}, id="gaps"),
        pytest.param((0, 2, 3, 3), (2, 2, 2, 2), {}, id="empty batch"),
    ],
)
def test_transposed_convolution(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data_format: str
) -> None:
    x, w = normal(1, x_shape), normal(2, w_shape)
    b = normal(3, (w_shape[1] * options.get("groups", 1),))
    expected = F.conv_transpose2d(tensor(x), tensor(w), tensor(b), **options)
    actual = reference.conv_transpose2d(
        reference.from_channels_first(x, data_format),
        reference.weight_from_channels_first(w, data_format),
        b,
        **options,
        data_format=data_format,
    )
    close(reference.to_channels_first(actual, data_format), expected)


@pytest.mark.parametrize("stride", [1, 2, (3, 2)])
@pytest.mark.parametrize("padding", [0, (1, 2), "same", "valid", ((1, 0), (0, 2))])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (4, 2)])
def test_transposed_convolution_is_the_adjoint_of_convolution(stride: Any, padding: Any, kernel: tuple[int, int]) -> None:
    w = normal(2, (3, 2, *kernel))
    options = {"stride": stride, "padding": padding}
    dy = normal(1, (1, 3, 3, 4))
    actual = reference.conv_transpose2d(dy, w, **options)
    size = actual.shape[2:]
    assert reference.Windows(size, kernel, stride, padding).outputs == dy.shape[2:]
    assert_close(actual, reference.conv2d_backward_input(dy, w, (1, 2, *size), **options), np.float64)


# ----------------------------------------------------------------------------------------------------------------------
# Pooling
# ----------------------------------------------------------------------------------------------------------------------

MAX_POOLINGS = [
    pytest.param((2, 3, 6, 7), 2, {}, id="plain"),
    pytest.param((2, 2, 7, 8), (3, 2), {"stride": (2, 1), "padding": (1, 1)}, id="stride and padding"),
    pytest.param((1, 2, 9, 9), (2, 3), {"dilation": (3, 2), "padding": (0, 1), "stride": 1}, id="dilation"),
    pytest.param((3, 2, 4, 5), (4, 5), {}, id="whole image"),
    pytest.param((0, 2, 4, 4), 2, {}, id="empty batch"),
]
CEIL_MODE = [
    pytest.param((2, 2, 9, 8), 3, {"stride": 2, "padding": 1, "ceil_mode": True}, id="ceil_mode"),
    pytest.param((1, 2, 8, 7), 2, {"stride": 3, "padding": 1, "ceil_mode": True}, id="ceil_mode, dropped window"),
]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(("shape", "pool_size", "options"), [*MAX_POOLINGS, *CEIL_MODE])
def test_max_pooling(shape: tuple[int, ...], pool_size: Any, options: dict[str, Any], data_format: str) -> None:
    x = np.random.default_rng(1).integers(-3, 3, shape).astype(np.float64)  # many ties
    x_tensor = tensor(x, grad=True)
    y, indices = F.max_pool2d(x_tensor, pool_size, **options, return_indices=True)
    dy = normal(2, tuple(y.shape))
    y.backward(tensor(dy))
    x_laid_out = reference.from_channels_first(x, data_format)
    actual, actual_indices = reference.max_pool2d(x_laid_out, pool_size, **options, data_format=data_format)
    dx = reference.scatter_add(reference.from_channels_first(dy, data_format), actual_indices, x_laid_out.shape, data_format)
    close(reference.to_channels_first(actual, data_format), y)
    np.testing.assert_array_equal(reference.to_channels_first(actual_indices, data_format), indices.numpy())
    close(reference.to_channels_first(dx, data_format), x_tensor.grad)


@pytest.mark.parametrize(("shape", "pool_size", "options"), MAX_POOLINGS)
def test_large_max_pooling(shape: tuple[int, ...], pool_size: Any, options: dict[str, Any]) -> None:
    options = {"stride": pool_size, **options}
    x = np.random.default_rng(1).integers(-3, 3, shape).astype(np.float64)
    y, indices = reference.max_pool2d(x, pool_size, **options)
    large_y, large_indices = reference.large_max_pool2d(x, pool_size, **options)
    assert_close(large_y, y, np.float64)
    np.testing.assert_array_equal(large_indices, indices)
    dy = normal(2, y.shape)
    expected = reference.scatter_add(dy, indices, x.shape)
    assert_close(reference.large_scatter_add(dy, indices, x.shape), expected, np.float64)


@pytest.mark.parametrize("padding", [((0, 2), (1, 0)), ((1, 1), (2, 0)), "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pooling_with_asymmetric_padding(padding: Any, stride: int) -> None:
    x = -1 - np.abs(normal(1, (2, 2, 6, 7)))  # all negative: a padding of zeros would win
    pads = reference.paddings(padding, (6, 7), 3, stride, 1)
    expected = F.max_pool2d(torch_padded(tensor(x), pads, -np.inf), 3, stride)
    close(reference.max_pool2d(x, 3, stride=stride, padding=padding)[0], expected)


def test_max_pooling_of_nan_and_of_minus_infinity() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6))
    x[0, 0, 2, 3] = np.nan
    x[0, 1] = -np.inf
    x[1, 2, :3] = -np.inf
    y, indices = F.max_pool2d(tensor(x), 3, 2, 1, return_indices=True)
    actual, actual_indices = reference.max_pool2d(x, 3, stride=2, padding=1)
    close(actual, y)
    np.testing.assert_array_equal(actual_indices, indices.numpy())


def test_max_pooling_of_nan_alone_chooses_the_first() -> None:
    # PyTorch gives the last NaN of a window, here the rule is the one of np.argmax.
    y, indices = reference.max_pool2d(np.full((1, 1, 4, 4), np.nan), 2)
    assert np.isnan(y).all()
    assert indices.ravel().tolist() == [0, 2, 8, 10]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize(
    ("shape", "pool_size", "options"),
    [
        pytest.param((2, 3, 6, 7), 2, {}, id="plain"),
        pytest.param((2, 2, 7, 8), (3, 2), {"stride": (2, 1), "padding": (1, 1)}, id="stride and padding"),
        pytest.param((2, 2, 8, 9), 3, {"stride": 2, "padding": 1}, id="overhang"),
        pytest.param((1, 2, 7, 5), (4, 3), {"stride": 3, "padding": (2, 1)}, id="large overhang"),
        pytest.param((1, 2, 8, 7), 2, {"stride": 3, "padding": 1}, id="dropped window"),
        pytest.param((0, 2, 4, 4), 2, {}, id="empty batch"),
    ],
)
def test_average_pooling(
    shape: tuple[int, ...],
    pool_size: Any,
    options: dict[str, Any],
    ceil_mode: bool,
    count_include_pad: bool,
    data_format: str,
) -> None:
    options = {**options, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    x = normal(1, shape)
    x_tensor = tensor(x, grad=True)
    y = F.avg_pool2d(x_tensor, pool_size, **options)
    dy = normal(2, tuple(y.shape))
    y.backward(tensor(dy))
    x, dy = reference.from_channels_first(x, data_format), reference.from_channels_first(dy, data_format)
    actual = reference.avg_pool2d(x, pool_size, **options, data_format=data_format)
    dx = reference.avg_pool2d_backward(dy, x.shape, pool_size, **options, data_format=data_format)
    close(reference.to_channels_first(actual, data_format), y)
    close(reference.to_channels_first(dx, data_format), x_tensor.grad)


@pytest.mark.parametrize("padding", [((0, 2), (1, 0)), ((1, 1), (2, 0)), "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_average_pooling_with_asymmetric_padding(padding: Any, stride: int) -> None:
    x = normal(1, (2, 2, 6, 7))
    pads = reference.paddings(padding, (6, 7), 3, stride, 1)
    sums = 9 * F.avg_pool2d(torch_padded(tensor(x), pads), 3, stride)
    pixels = 9 * F.avg_pool2d(torch_padded(tensor(np.ones_like(x)), pads), 3, stride)
    close(reference.avg_pool2d(x, 3, stride=stride, padding=padding), sums / 9)
    close(reference.avg_pool2d(x, 3, stride=stride, padding=padding, count_include_pad=False), sums / pixels)
    close(reference.large_sum_pool2d(x, 3, stride=stride, padding=padding), sums)
    dy = normal(2, tuple(sums.shape))
    dx = reference.large_sum_pool2d_backward(dy / 9, x.shape, 3, stride=stride, padding=padding)
    expected = reference.avg_pool2d_backward(dy, x.shape, 3, stride=stride, padding=padding)
    assert_close(dx, expected, np.float64)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("output_size", [1, (2, 3), (6, 7), (5, 4), (9, 2)])
def test_adaptive_pooling(output_size: Any, data_format: str) -> None:
    x = np.random.default_rng(1).integers(-3, 3, (2, 3, 6, 7)).astype(np.float64)
    laid_out = reference.from_channels_first(x, data_format)
    x_tensor = tensor(x, grad=True)
    y = F.adaptive_avg_pool2d(x_tensor, output_size)
    dy = normal(2, tuple(y.shape))
    y.backward(tensor(dy))
    dy_laid_out = reference.from_channels_first(dy, data_format)
    actual = reference.adaptive_avg_pool2d(laid_out, output_size, data_format=data_format)
    dx = reference.adaptive_avg_pool2d_backward(dy_laid_out, laid_out.shape, data_format=data_format)
    close(reference.to_channels_first(actual, data_format), y)
    close(reference.to_channels_first(dx, data_format), x_tensor.grad)

    y, indices = F.adaptive_max_pool2d(tensor(x), output_size, return_indices=True)
    actual, actual_indices = reference.adaptive_max_pool2d(laid_out, output_size, data_format=data_format)
    close(reference.to_channels_first(actual, data_format), y)
    np.testing.assert_array_equal(reference.to_channels_first(actual_indices, data_format), indices.numpy())


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("output_size", [None, (7, 6)])
def test_unpooling(output_size: Any, data_format: str) -> None:
    x = normal(1, (2, 3, 6, 6))
    y, indices = F.max_pool2d(tensor(x), 2, return_indices=True)
    if output_size is not None:
        indices = indices // 6 * output_size[1] + indices % 6
    expected = F.max_unpool2d(y, indices, 2, output_size=output_size)
    actual = reference.max_unpool2d(
        reference.from_channels_first(y.numpy(), data_format),
        reference.from_channels_first(indices.numpy(), data_format),
        2,
        output_size=output_size,
        data_format=data_format,
    )
    close(reference.to_channels_first(actual, data_format), expected)


# ----------------------------------------------------------------------------------------------------------------------
# im2col
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    ("kernel_size", "options"),
    [
        pytest.param(2, {}, id="plain"),
        pytest.param((3, 2), {"stride": (2, 1), "padding": (1, 2)}, id="stride and padding"),
        pytest.param((2, 3), {"dilation": (3, 1), "stride": 2}, id="dilation"),
        pytest.param((6, 7), {}, id="whole image"),
    ],
)
def test_im2col_and_col2im(kernel_size: Any, options: dict[str, Any], data_format: str) -> None:
    x = normal(1, (2, 3, 6, 7))
    kernel = reference.pair(kernel_size)

    def rows(unfolded: Any) -> Any:
        """(N, C*KH*KW, OH*OW) as PyTorch has it -> one row per window."""
        windows = unfolded.reshape(2, 3, *kernel, -1)
        order = (0, 4, 1, 2, 3) if data_format == "channels_first" else (0, 4, 2, 3, 1)
        return windows.permute(order).reshape(-1, 3 * kernel[0] * kernel[1])

    laid_out = reference.from_channels_first(x, data_format)
    x_tensor = tensor(x, grad=True)
    expected = rows(F.unfold(x_tensor, kernel_size, **options))
    col = reference.im2col(laid_out, kernel_size, **options, data_format=data_format)
    close(col, expected)
    dcol = normal(2, col.shape)
    expected.backward(tensor(dcol))
    dx = reference.col2im(dcol, laid_out.shape, kernel_size, **options, data_format=data_format)
    close(reference.to_channels_first(dx, data_format), x_tensor.grad)
