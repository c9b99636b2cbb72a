"""The public functions: what each computes, what it takes and what it refuses. THE contract of xpconv.

Every function checks its arguments, computes the geometry and hands contiguous arrays of one dtype to the kernel of the
same name in ``kernels/<device>``. Four words hold for all of them:

* **Layout.** Images are (N, C, H, W) with ``data_format="channels_first"`` (PyTorch's order, and the default) or
  (N, H, W, C) with ``"channels_last"`` (Keras' order). A single image without the axis N is taken too, and gives a result
  without it. Weights follow: (F, C/groups, KH, KW), or (KH, KW, C/groups, F).
* **Geometry.** ``stride``, ``dilation`` and sizes are an integer or a (height, width) pair. ``padding`` is an integer, a
  pair, ``((top, bottom), (left, right))``, ``"valid"`` (none) or ``"same"`` (``ceil(size / stride)`` outputs, the odd pixel
  of padding at the end, as TensorFlow does). Along each axis the result has
  ``floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1`` positions.
* **dtype.** float32 and float64 are kept; mixed, the result is float64. The devices cuda and cudasim keep float16 and
  bfloat16, too, and sum in float32; float16 and bfloat16 give float32. Booleans and integers take the dtype of the
  floating arrays of the call, or float32 where there is none, and are refused where it cannot hold them exactly.
* **Inputs** are never changed, and may be read-only or of any strides. An empty batch gives an empty result.

On a card a call returns before its result is computed, as CuPy's functions do, and uses the caller's current stream. Two checks
wait for what they look at: that integers wider than the floating dtype fit into it, and that indices which were not
returned by the pooling function itself lie in their windows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from xpconv.arguments import boolean
from xpconv.arrays import CheckedArrays, as_array, float_arrays, index_array
from xpconv.device import Device, on_its_card
from xpconv.geometry import (
    AdaptiveWindows,
    Conv2dGeometry,
    IntOrPair,
    Padding,
    Pair,
    Window2d,
    adaptive_windows,
    batch_shape,
    check_memory,
    check_pooling_window,
    check_weight_shape,
    conv2d_geometry,
    integer,
    pair,
    transposed_size,
    window_2d,
)

Array = Any  # a NumPy or a CuPy array: CuPy cannot be named in an annotation without importing it

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv_transpose2d",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_max_pool2d",
    "global_max_pool2d_backward",
    "im2col",
    "max_pool2d",
    "max_pool2d_backward",
    "max_unpool2d",
]


# ---- convolution -------------------------------------------------------------------------------------------------------


@on_its_card
def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Convolve images with filters, as neural networks mean it: cross-correlation, the filter is not turned.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        w: Filters, (F, C/groups, KH, KW), or (KH, KW, C/groups, F) for ``channels_last``.
        b: One bias a filter, (F,), or None.
        stride: Step of the window.
        padding: Zeros around the images; see the module.
        dilation: Step between the taps of a filter.
        groups: Channels and filters are split into this many groups, and each filter reads its own group; with
            ``groups=C`` the convolution is depthwise.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        (N, F, OH, OW) or (N, OH, OW, F), with ``OH = floor((H + pads - dilation * (KH - 1) - 1) / stride) + 1``.

    Raises:
        ValueError: Shapes, sizes or names that do not fit; the text echoes them.
        TypeError: Something that is no array of numbers, or arrays of different devices.
        DeviceUnavailableError: The device is not there.

    Notes:
        Sums are rounded in the dtype of the result. On ``numpy`` the extra memory is some MiB a thread, whatever the batch.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> image = np.arange(16.0).reshape(1, 1, 4, 4)
        >>> xc.conv2d(image, np.ones((1, 1, 2, 2)), np.array([3.0]))
        array([[[[13., 17., 21.],
                 [29., 33., 37.],
                 [45., 49., 53.]]]])
        >>> xc.conv2d(image, np.ones((1, 1, 3, 3)), stride=2, padding="same").shape
        (1, 1, 2, 2)
    """
    op = "conv2d"
    place, (x, w, b) = float_arrays(op, device, optional=("b",), x=x, w=w, b=b)
    geometry = conv2d_geometry(
        op, x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, groups=groups, data_format=data_format
    )
    _check_bias(op, b, geometry.filters, w)
    y = place.kernels.conv2d_forward(x.reshape(geometry.x_shape), w, b, geometry)
    return _as_given(y, x.ndim)


@on_its_card
def conv2d_backward_input(
    dy: Array,
    w: Array,
    input_shape: Sequence[int],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Gradient of :func:`conv2d` with respect to its images.

    Args:
        dy: Gradient of the result, of the result's shape.
        w: Filters, as given to :func:`conv2d`.
        input_shape: Shape of the images; several sizes lead to the same result, so it has to be told.
        stride: As given to :func:`conv2d`; likewise the arguments that follow.
        padding: Padding.
        dilation: Dilation.
        groups: Groups.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        An array of ``input_shape``. Every sum runs in a fixed order: the same bits at every run.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`conv2d`, or ``dy`` is not of the result's shape.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> dy = np.arange(9.0).reshape(1, 1, 3, 3)
        >>> xc.conv2d_backward_input(dy, np.ones((1, 1, 2, 2)), (1, 1, 4, 4))
        array([[[[ 0.,  1.,  3.,  2.],
                 [ 3.,  8., 12.,  7.],
                 [ 9., 20., 24., 13.],
                 [ 6., 13., 15.,  8.]]]])
    """
    op = "conv2d_backward_input"
    place, (dy, w) = float_arrays(op, device, dy=dy, w=w)
    x_shape = _shape(op, "input_shape", input_shape)
    geometry = conv2d_geometry(
        op,
        x_shape,
        w.shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        x_name="the input",
        x_shape_name="input_shape",
    )
    dy = _gradient(op, dy, geometry, len(x_shape))
    return _as_given(place.kernels.conv2d_backward_input(dy, w, geometry), len(x_shape))


@on_its_card
def conv2d_backward_weight(
    x: Array,
    dy: Array,
    weight_shape: Sequence[int],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> tuple[Array, Array]:
    """Gradients of :func:`conv2d` with respect to its filters and its bias.

    Args:
        x: Images, as given to :func:`conv2d`.
        dy: Gradient of the result, of the result's shape.
        weight_shape: Shape of the filters.
        stride: As given to :func:`conv2d`; likewise the arguments that follow.
        padding: Padding.
        dilation: Dilation.
        groups: Groups.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        ``(dw, db)``: the gradient of the filters, of ``weight_shape``, and of the bias, (F,). An empty batch gives zeros.
        The same bits at every run with the same number of threads. (On ``numpy`` BLAS gets one thread while another Python
        thread computes, so that calls side by side may differ in the last bit.)

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`conv2d`, or ``dy`` is not of the result's shape.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> x, dy = np.arange(16.0).reshape(1, 1, 4, 4), np.arange(9.0).reshape(1, 1, 3, 3)
        >>> dw, db = xc.conv2d_backward_weight(x, dy, (1, 1, 2, 2))
        >>> dw
        array([[[[258., 294.],
                 [402., 438.]]]])
        >>> db
        array([36.])
    """
    op = "conv2d_backward_weight"
    place, (x, dy) = float_arrays(op, device, x=x, dy=dy)
    w_shape = _shape(op, "weight_shape", weight_shape)
    geometry = conv2d_geometry(
        op,
        x.shape,
        w_shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        w_name="the weight",
        w_shape_name="weight_shape",
    )
    dy = _gradient(op, dy, geometry, x.ndim)
    dw, db = place.kernels.conv2d_backward_weight(x.reshape(geometry.x_shape), dy, geometry)
    return dw, db


@on_its_card
def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    output_padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Transposed convolution: each pixel of ``x`` adds its multiple of the filter to the result.

    It is :func:`conv2d_backward_input` with a name of its own, and a bias.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        w: Filters, (C, F/groups, KH, KW) as in PyTorch, or (KH, KW, F/groups, C) as in Keras for ``channels_last``.
        b: One bias a channel of the result, (F,), or None.
        stride: Step between the places where neighbouring pixels add theirs.
        padding: What is cut off the result, in the notations of :func:`conv2d`. ``"same"`` makes the result ``H * stride``
            high, ``"valid"`` cuts nothing (and adds what a stride larger than the filter leaves out), as in Keras.
        output_padding: Added to the size at the bottom and the right, to choose among the sizes that :func:`conv2d` maps to
            the same result.
        dilation: Step between the taps of a filter.
        groups: Number of groups.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        (N, F, OH, OW) or (N, OH, OW, F), with
        ``OH = (H - 1) * stride - pads + dilation * (KH - 1) + output_padding + 1``.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`conv2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.conv_transpose2d(np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 2, 2)), stride=2)
        array([[[[1., 1., 2., 2.],
                 [1., 1., 2., 2.]]]])
    """
    op = "conv_transpose2d"
    place, (x, w, b) = float_arrays(op, device, optional=("b",), x=x, w=w, b=b)
    pixels = window_2d(op, x.shape, 1, data_format=data_format)
    check_weight_shape(op, w.shape, "w", "w.shape", pixels.data_format, ("C", "F/groups"))
    first = pixels.data_format == "channels_first"
    kernel_size: Pair = w.shape[2:] if first else w.shape[:2]
    w_channels, per_group = (w.shape[0], w.shape[1]) if first else (w.shape[3], w.shape[2])
    group_count = integer(op, "groups", groups, 1)
    if pixels.channels != w_channels or w_channels % group_count:
        raise ValueError(
            f"{op}: x has {pixels.channels} channels and w expects {w_channels}; they must be equal, and groups must divide "
            f"them (x.shape={x.shape}, w.shape={w.shape}, groups={group_count})"
        )
    steps, dilations = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    extra = pair(op, "output_padding", output_padding, 0)
    out_size = transposed_size(op, pixels.size, kernel_size, steps, padding, dilations, extra)
    geometry = conv2d_geometry(
        op,
        batch_shape(pixels.batch, per_group * group_count, out_size, pixels.data_format),
        w.shape,
        stride=steps,
        padding=padding,
        dilation=dilations,
        groups=group_count,
        data_format=data_format,
        x_name="the result",
        x_shape_name="its shape",
    )
    # output_padding can leave room for one more window at the end; no pixel of x belongs to it.
    geometry = dataclasses.replace(geometry, output_size=pixels.size)
    _check_bias(op, b, geometry.channels, w)
    y = place.kernels.conv2d_backward_input(x.reshape(geometry.y_shape), w, geometry)
    if b is not None:
        y += b.reshape(-1, 1, 1) if first else b
    return _as_given(y, x.ndim)


# ---- pooling -----------------------------------------------------------------------------------------------------------


@overload
def max_pool2d(
    x: Array,
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array: ...
@overload
def max_pool2d(
    x: Array,
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[True],
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> tuple[Array, Array]: ...
@on_its_card
def max_pool2d(
    x: Array,
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array | tuple[Array, Array]:
    """Maximum of each window.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        pool_size: Height and width of the window.
        stride: Step of the window; None takes ``pool_size``, so that windows lie side by side.
        padding: Room around the images that no maximum is ever taken from.
        dilation: Step between the taps of a window.
        ceil_mode: Round the output size up, so that the last pixels are not left out; a window that would start behind the
            image and its leading padding is dropped (PyTorch's rule).
        return_indices: Return also where each maximum was.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        The maxima, (N, C, OH, OW) or (N, OH, OW, C), or with ``return_indices`` a pair of them and of the positions: int64,
        the same shape, ``row * W + column`` in the image without padding (PyTorch's convention). NaN wins every
        comparison; among equals the first in row-major order wins.

    Raises:
        ValueError: As :func:`conv2d`; or a window lies wholly in the padding and has no maximum.
        TypeError, DeviceUnavailableError: As :func:`conv2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> x = np.array([[[[7, 11, 13, 15], [3, 4, 5, 14], [1, 2, 16, 9], [12, 8, 6, 10.0]]]])
        >>> y, indices = xc.max_pool2d(x, 2, return_indices=True)
        >>> y
        array([[[[11., 15.],
                 [12., 16.]]]])
        >>> indices
        array([[[[ 1,  3],
                 [12, 10]]]])
    """
    op = "max_pool2d"
    place, (x,) = float_arrays(op, device, x=x)
    geometry = _pooling(op, x.shape, "x.shape", pool_size, stride, padding, dilation, ceil_mode, data_format)
    wanted = boolean(op, "return_indices", return_indices)
    y, indices = place.kernels.max_pool2d_forward(x.reshape(geometry.x_shape), geometry, wanted)
    if not wanted:
        return _as_given(y, x.ndim)
    return _as_given(y, x.ndim), _given_out(_as_given(indices, x.ndim), geometry, place)


@on_its_card
def max_pool2d_backward(
    dy: Array,
    indices: Array,
    input_shape: Sequence[int],
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Gradient of :func:`max_pool2d`: the gradient of each maximum goes to where the maximum was.

    Args:
        dy: Gradient of the maxima, of their shape.
        indices: Where they were, as :func:`max_pool2d` returns it.
        input_shape: Shape of the images.
        pool_size: As given to :func:`max_pool2d`; likewise the arguments that follow.
        stride: Stride.
        padding: Padding.
        dilation: Dilation.
        ceil_mode: Whether the output size was rounded up.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        An array of ``input_shape``. Where windows overlap their gradients are summed, in a fixed order.

    Raises:
        ValueError: As :func:`max_pool2d`; or ``dy`` or ``indices`` are not of its shape, or an index lies outside the image.
        TypeError, DeviceUnavailableError: As :func:`conv2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> dy, indices = np.array([[[[1.0, 2.0]]]]), np.array([[[[1, 6]]]])
        >>> xc.max_pool2d_backward(dy, indices, (1, 1, 2, 4))
        array([[[[0., 1., 0., 0.],
                 [0., 0., 2., 0.]]]])
    """
    op = "max_pool2d_backward"
    place, (dy,) = float_arrays(op, device, dy=dy)
    x_shape = _shape(op, "input_shape", input_shape)
    geometry = _pooling(op, x_shape, "input_shape", pool_size, stride, padding, dilation, ceil_mode, data_format)
    dy = _gradient(op, dy, geometry, len(x_shape))
    winners = _indices(op, indices, geometry, len(x_shape), place)
    return _as_given(place.kernels.max_pool2d_backward(dy, winners, geometry), len(x_shape))


@on_its_card
def max_unpool2d(
    x: Array,
    indices: Array,
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    output_size: IntOrPair | None = None,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Put maxima back where :func:`max_pool2d` found them, zeros elsewhere.

    Args:
        x: Maxima, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        indices: Where they were, as :func:`max_pool2d` returns it; of the shape of ``x``.
        pool_size: As given to :func:`max_pool2d`.
        stride: Stride; None takes ``pool_size``.
        padding: Padding, an integer or a (height, width) pair.
        output_size: Height and width of the result; None takes ``(H - 1) * stride - 2 * padding + pool_size``.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        (N, C, OH, OW) or (N, OH, OW, C). Where several maxima name one position, the last in row-major order is kept.

    Raises:
        ValueError: Shapes that do not fit, or an index outside the result.
        TypeError, DeviceUnavailableError: As :func:`conv2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.max_unpool2d(np.array([[[[5.0, 7.0]]]]), np.array([[[[1, 6]]]]))
        array([[[[0., 5., 0., 0.],
                 [0., 0., 7., 0.]]]])
    """
    op = "max_unpool2d"
    place, (x,) = float_arrays(op, device, x=x)
    window = window_2d(op, x.shape, 1, data_format=data_format)
    pool = pair(op, "pool_size", pool_size, 1)
    steps = pool if stride is None else pair(op, "stride", stride, 1)
    pads = pair(op, "padding", padding, 0)
    if output_size is None:
        size = (
            (window.size[0] - 1) * steps[0] - 2 * pads[0] + pool[0],
            (window.size[1] - 1) * steps[1] - 2 * pads[1] + pool[1],
        )
        if min(size) < 1:
            raise ValueError(f"{op}: the output would be {size} pixels (x.shape={x.shape}, padding={padding!r})")
    else:
        size = pair(op, "output_size", output_size, 1)
    windows = _own_indices.purpose(indices)
    if windows is None or indices.shape != x.shape or math.prod(windows.size) > math.prod(size):
        indices = index_array(op, "indices", indices, x.shape, size[0] * size[1], place)
    positions = indices.reshape(window.x_shape)
    return _as_given(place.kernels.max_unpool2d(x.reshape(window.x_shape), positions, size, window), x.ndim)


@on_its_card
def avg_pool2d(
    x: Array,
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Mean of each window.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        pool_size: Height and width of the window.
        stride: Step of the window; None takes ``pool_size``.
        padding: Zeros around the images.
        ceil_mode: Round the output size up; see :func:`max_pool2d`.
        count_include_pad: Whether the zeros of the padding count in the mean (PyTorch's default) or not (as Keras has it).
            What a window of ``ceil_mode`` reaches beyond the padding never counts.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        The means, (N, C, OH, OW) or (N, OH, OW, C).

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.avg_pool2d(np.arange(8.0).reshape(1, 1, 2, 4))
        array([[[[2.5, 4.5]]]])
    """
    op = "avg_pool2d"
    place, (x,) = float_arrays(op, device, x=x)
    geometry = _pooling(op, x.shape, "x.shape", pool_size, stride, padding, 1, ceil_mode, data_format)
    include = boolean(op, "count_include_pad", count_include_pad)
    y = place.kernels.avg_pool2d_forward(x.reshape(geometry.x_shape), geometry, include)
    return _as_given(y, x.ndim)


@on_its_card
def avg_pool2d_backward(
    dy: Array,
    input_shape: Sequence[int],
    pool_size: IntOrPair = 2,
    *,
    stride: IntOrPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Gradient of :func:`avg_pool2d`: each pixel of a window gets an equal share.

    Args:
        dy: Gradient of the means, of their shape.
        input_shape: Shape of the images.
        pool_size: As given to :func:`avg_pool2d`; likewise the arguments that follow.
        stride: Stride.
        padding: Padding.
        ceil_mode: Whether the output size was rounded up.
        count_include_pad: Whether the padding counted.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        An array of ``input_shape``.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`, or ``dy`` is not of the result's shape.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.avg_pool2d_backward(np.array([[[[4.0, 8.0]]]]), (1, 1, 2, 4))
        array([[[[1., 1., 2., 2.],
                 [1., 1., 2., 2.]]]])
    """
    op = "avg_pool2d_backward"
    place, (dy,) = float_arrays(op, device, dy=dy)
    x_shape = _shape(op, "input_shape", input_shape)
    geometry = _pooling(op, x_shape, "input_shape", pool_size, stride, padding, 1, ceil_mode, data_format)
    dy = _gradient(op, dy, geometry, len(x_shape))
    include = boolean(op, "count_include_pad", count_include_pad)
    return _as_given(place.kernels.avg_pool2d_backward(dy, geometry, include), len(x_shape))


# ---- global and adaptive pooling ---------------------------------------------------------------------------------------


@on_its_card
def adaptive_avg_pool2d(
    x: Array, output_size: IntOrPair, *, data_format: str = "channels_first", device: str | Device | None = None
) -> Array:
    """Mean of windows that are laid out to give the output size asked for.

    Window i of OH along an axis of H pixels runs from ``floor(i * H / OH)`` to ``ceil((i + 1) * H / OH)``, PyTorch's rule;
    where OH does not divide H the windows overlap.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        output_size: Height and width of the result; may be larger than the image.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        The means, (N, C, *output_size) or (N, *output_size, C).

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.adaptive_avg_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 2))
        array([[[[1., 3.]]]])
    """
    return _adaptive_avg("adaptive_avg_pool2d", x, output_size, data_format, device)


@on_its_card
def adaptive_avg_pool2d_backward(
    dy: Array, input_shape: Sequence[int], *, data_format: str = "channels_first", device: str | Device | None = None
) -> Array:
    """Gradient of :func:`adaptive_avg_pool2d`.

    Args:
        dy: Gradient of the means; its height and width are the ``output_size``.
        input_shape: Shape of the images.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        An array of ``input_shape``.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`, or ``dy`` is not of a result's shape.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.adaptive_avg_pool2d_backward(np.array([[[[3.0, 6.0]]]]), (1, 1, 1, 5))
        array([[[[1., 1., 3., 2., 2.]]]])
    """
    return _adaptive_avg_backward("adaptive_avg_pool2d_backward", dy, input_shape, data_format, device)


@overload
def adaptive_max_pool2d(
    x: Array,
    output_size: IntOrPair,
    *,
    return_indices: Literal[False] = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array: ...
@overload
def adaptive_max_pool2d(
    x: Array,
    output_size: IntOrPair,
    *,
    return_indices: Literal[True],
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> tuple[Array, Array]: ...
@on_its_card
def adaptive_max_pool2d(
    x: Array,
    output_size: IntOrPair,
    *,
    return_indices: bool = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array | tuple[Array, Array]:
    """Maximum of windows that are laid out to give the output size asked for.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        output_size: Height and width of the result; the windows are those of :func:`adaptive_avg_pool2d`.
        return_indices: Return also where each maximum was, as :func:`max_pool2d` does.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        The maxima, (N, C, *output_size) or (N, *output_size, C), or a pair of them and of their positions.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.adaptive_max_pool2d(np.arange(5.0).reshape(1, 1, 1, 5), (1, 2))
        array([[[[2., 4.]]]])
    """
    place, whole, y, indices = _adaptive_max("adaptive_max_pool2d", x, output_size, return_indices, data_format, device)
    return y if indices is None else (y, _given_out(indices, whole, place))


@on_its_card
def adaptive_max_pool2d_backward(
    dy: Array,
    indices: Array,
    input_shape: Sequence[int],
    *,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Gradient of :func:`adaptive_max_pool2d`.

    Args:
        dy: Gradient of the maxima; its height and width are the ``output_size``.
        indices: Where they were, as :func:`adaptive_max_pool2d` returns it.
        input_shape: Shape of the images.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        An array of ``input_shape``.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d_backward`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> dy, indices = np.array([[[[3.0, 6.0]]]]), np.array([[[[2, 4]]]])
        >>> xc.adaptive_max_pool2d_backward(dy, indices, (1, 1, 1, 5))
        array([[[[0., 0., 3., 0., 6.]]]])
    """
    return _adaptive_max_backward("adaptive_max_pool2d_backward", dy, indices, indices, input_shape, data_format, device)


@on_its_card
def global_avg_pool2d(
    x: Array, *, keepdims: bool = False, data_format: str = "channels_first", device: str | Device | None = None
) -> Array:
    """Mean of each channel over the whole image.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        keepdims: Keep height and width, as axes of length 1.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        (N, C), or with ``keepdims`` (N, C, 1, 1) or (N, 1, 1, C).

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.global_avg_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
        array([[1.5, 5.5]])
    """
    op = "global_avg_pool2d"
    return _without_plane(op, _adaptive_avg(op, x, 1, data_format, device), keepdims, data_format)


@on_its_card
def global_avg_pool2d_backward(
    dy: Array, input_shape: Sequence[int], *, data_format: str = "channels_first", device: str | Device | None = None
) -> Array:
    """Gradient of :func:`global_avg_pool2d`.

    Args:
        dy: Gradient of the means, with or without the axes of length 1.
        input_shape: Shape of the images.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        An array of ``input_shape``.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`adaptive_avg_pool2d_backward`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.global_avg_pool2d_backward(np.array([[4.0]]), (1, 1, 2, 2))
        array([[[[1., 1.],
                 [1., 1.]]]])
    """
    op = "global_avg_pool2d_backward"
    _, (dy,) = float_arrays(op, device, dy=dy)
    dy = _with_plane(op, "dy", dy, input_shape, data_format)
    return _adaptive_avg_backward(op, dy, input_shape, data_format, device)


@overload
def global_max_pool2d(
    x: Array,
    *,
    keepdims: bool = False,
    return_indices: Literal[False] = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array: ...
@overload
def global_max_pool2d(
    x: Array,
    *,
    keepdims: bool = False,
    return_indices: Literal[True],
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> tuple[Array, Array]: ...
@on_its_card
def global_max_pool2d(
    x: Array,
    *,
    keepdims: bool = False,
    return_indices: bool = False,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array | tuple[Array, Array]:
    """Maximum of each channel over the whole image.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        keepdims: Keep height and width, as axes of length 1.
        return_indices: Return also where each maximum was, as :func:`max_pool2d` does.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        (N, C), or with ``keepdims`` (N, C, 1, 1) or (N, 1, 1, C); with ``return_indices`` a pair.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`max_pool2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.global_max_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
        array([[3., 7.]])
    """
    op = "global_max_pool2d"
    place, whole, y, indices = _adaptive_max(op, x, 1, return_indices, data_format, device)
    y = _without_plane(op, y, keepdims, data_format)
    if indices is None:
        return y
    return y, _given_out(_without_plane(op, indices, keepdims, data_format), whole, place)


@on_its_card
def global_max_pool2d_backward(
    dy: Array,
    indices: Array,
    input_shape: Sequence[int],
    *,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Gradient of :func:`global_max_pool2d`.

    Args:
        dy: Gradient of the maxima, with or without the axes of length 1.
        indices: Where they were, as :func:`global_max_pool2d` returns it.
        input_shape: Shape of the images.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the arrays.

    Returns:
        An array of ``input_shape``.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`adaptive_max_pool2d_backward`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.global_max_pool2d_backward(np.array([[4.0]]), np.array([[2]]), (1, 1, 2, 2))
        array([[[[0., 0.],
                 [4., 0.]]]])
    """
    op = "global_max_pool2d_backward"
    _, (dy,) = float_arrays(op, device, dy=dy)
    dy = _with_plane(op, "dy", dy, input_shape, data_format)
    with_plane = _with_plane(op, "indices", indices, input_shape, data_format)
    return _adaptive_max_backward(op, dy, with_plane, indices, input_shape, data_format, device)


def _adaptive_avg(op: str, x: Array, output_size: IntOrPair, data_format: str, device: str | Device | None) -> Array:
    place, (x,) = float_arrays(op, device, x=x)
    whole, y_shape, parts = _adaptive(op, x.shape, "x.shape", output_size, data_format)
    images, y = x.reshape(whole.x_shape), place.xp.empty(y_shape, x.dtype)
    for part in parts:
        y[part.outputs(place.xp)] = place.kernels.avg_pool2d_forward(part.gathered(images, place.xp), part.window, True)
    return _as_given(y, x.ndim)


def _adaptive_avg_backward(
    op: str, dy: Array, input_shape: Sequence[int], data_format: str, device: str | Device | None
) -> Array:
    place, (dy,) = float_arrays(op, device, dy=dy)
    whole, parts, gradient = _adaptive_gradient(op, dy, input_shape, data_format)
    shares = []
    for part in parts:
        share = place.xp.ascontiguousarray(gradient[part.outputs(place.xp)])
        shares.append(place.kernels.avg_pool2d_backward(share, part.window, True))
    return _as_given(_added_up(shares, parts, whole, place), dy.ndim)


def _adaptive_max(
    op: str, x: Array, output_size: IntOrPair, return_indices: bool, data_format: str, device: str | Device | None
) -> tuple[Device, Window2d, Array, Array | None]:
    # Where it was computed, the geometry of the images, the maxima, and where they are if that is wanted.
    place, (x,) = float_arrays(op, device, x=x)
    whole, y_shape, parts = _adaptive(op, x.shape, "x.shape", output_size, data_format)
    wanted = boolean(op, "return_indices", return_indices)
    xp, images = place.xp, x.reshape(whole.x_shape)
    y, indices = xp.empty(y_shape, x.dtype), xp.empty(y_shape, np.int64) if wanted else None
    for part in parts:
        maxima, local = place.kernels.max_pool2d_forward(part.gathered(images, xp), part.window, wanted)
        y[part.outputs(xp)] = maxima
        if indices is not None:
            rows, columns = xp.asarray(part.rows.cells), xp.asarray(part.columns.cells)
            width = part.window.size[1]
            indices[part.outputs(xp)] = rows[local // width] * whole.size[1] + columns[local % width]
    return place, whole, _as_given(y, x.ndim), None if indices is None else _as_given(indices, x.ndim)


def _adaptive_max_backward(
    op: str,
    dy: Array,
    indices: Array,
    given_indices: Array,
    input_shape: Sequence[int],
    data_format: str,
    device: str | Device | None,
) -> Array:
    place, (dy,) = float_arrays(op, device, dy=dy)
    xp = place.xp
    whole, parts, gradient = _adaptive_gradient(op, dy, input_shape, data_format)
    checked = _own_indices.purpose(given_indices) == whole and indices.shape == dy.shape
    if not checked:
        indices = index_array(op, "indices", indices, dy.shape, whole.size[0] * whole.size[1], place)
    positions = indices.reshape(gradient.shape)
    rows, columns = positions // whole.size[1], positions % whole.size[1]
    shares = []
    for part in parts:
        # Where each winner is among the cells, which hold the windows side by side.
        row_starts, column_starts = _along_plane(xp.asarray(part.rows.starts), xp.asarray(part.columns.starts), data_format)
        row_cells, column_cells = _along_plane(
            xp.asarray(part.rows.first_cells), xp.asarray(part.columns.first_cells), data_format
        )
        outputs = part.outputs(xp)
        local_rows = rows[outputs] - row_starts + row_cells
        local_columns = columns[outputs] - column_starts + column_cells
        height, width = part.window.size
        within = (local_rows >= 0) & (local_rows < height) & (local_columns >= 0) & (local_columns < width)
        local = xp.ascontiguousarray(xp.where(within, local_rows * width + local_columns, -1))
        if not checked:
            _check_winners(op, local, part.window, place)
        share = xp.ascontiguousarray(gradient[outputs])
        shares.append(place.kernels.max_pool2d_backward(share, local, part.window))
    return _as_given(_added_up(shares, parts, whole, place), dy.ndim)


# ---- columns -----------------------------------------------------------------------------------------------------------


@on_its_card
def im2col(
    x: Array,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Lay out what a convolution reads as the rows of a matrix, one row a position of the window.

    ``im2col(x, (KH, KW)) @ w.reshape(F, -1).T`` is the convolution, one row a pixel of the result. To convolve, call
    :func:`conv2d`: it never builds this matrix, which has about KH * KW times the size of the images.

    Args:
        x: Images, (N, C, H, W) or (N, H, W, C), or one image of three axes.
        kernel_size: Height and width of the window.
        stride: Step of the window.
        padding: Zeros around the images.
        dilation: Step between the taps of the window.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        (N * OH * OW, C * KH * KW), rows ordered by image, row and column; the columns by channel and tap, or for
        ``channels_last`` by tap and channel.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`conv2d`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.im2col(np.arange(6.0).reshape(1, 1, 2, 3), 2)
        array([[0., 1., 3., 4.],
               [1., 2., 4., 5.]])
    """
    op = "im2col"
    place, (x,) = float_arrays(op, device, x=x)
    window = window_2d(op, x.shape, kernel_size, stride=stride, padding=padding, dilation=dilation, data_format=data_format)
    return place.kernels.im2col(x.reshape(window.x_shape), window)


@on_its_card
def col2im(
    col: Array,
    input_shape: Sequence[int],
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    data_format: str = "channels_first",
    device: str | Device | None = None,
) -> Array:
    """Add the rows of a matrix of columns back into images: the adjoint of :func:`im2col`, not its inverse.

    Args:
        col: (N * OH * OW, C * KH * KW), as :func:`im2col` returns it.
        input_shape: Shape of the images.
        kernel_size: As given to :func:`im2col`; likewise the arguments that follow.
        stride: Stride.
        padding: Padding; what falls there is dropped.
        dilation: Dilation.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        device: Where to compute; None follows the array.

    Returns:
        An array of ``input_shape``; where windows overlap their values are summed.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`conv2d`, or ``col`` is not of the shape above.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.col2im(np.ones((2, 4)), (1, 1, 2, 3), 2)
        array([[[[1., 2., 1.],
                 [1., 2., 1.]]]])
    """
    op = "col2im"
    place, (col,) = float_arrays(op, device, col=col)
    x_shape = _shape(op, "input_shape", input_shape)
    window = window_2d(
        op,
        x_shape,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        data_format=data_format,
        shape_name="input_shape",
    )
    expected = (window.batch * window.output_size[0] * window.output_size[1], window.channels * window.taps)
    if col.shape != expected:
        raise ValueError(f"{op}: col.shape must be {expected} for input_shape={tuple(input_shape)}, got {col.shape}")
    return _as_given(place.kernels.col2im(col, window), len(x_shape))


# ---- what the functions share ------------------------------------------------------------------------------------------


def _as_given(batch: Array, rank: int) -> Array:
    # One image was given without the axis N: it is returned without it.
    return batch[0] if rank == 3 else batch


def _shape(op: str, name: str, value: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(int(np.asarray(length).__index__()) for length in value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be a sequence of integers, got {value!r}") from None
    if any(length < 0 for length in shape):
        raise ValueError(f"{op}: {name} must not be negative, got {value!r}")
    return shape


def _check_bias(op: str, b: Array | None, filters: int, w: Array) -> None:
    if b is not None and b.shape != (filters,):
        raise ValueError(f"{op}: b.shape must be ({filters},), one bias a filter, got {b.shape} (w.shape={w.shape})")


def _gradient(op: str, dy: Array, geometry: Window2d | Conv2dGeometry, rank: int) -> Array:
    expected = geometry.y_shape[-rank:]
    if dy.shape != expected:
        raise ValueError(
            f"{op}: dy.shape must be {expected}, the shape of the result, got {dy.shape} "
            f"(image size {geometry.size}, kernel_size={geometry.kernel_size}, stride={geometry.stride}, "
            f"padding={geometry.padding}, dilation={geometry.dilation})"
        )
    return dy.reshape(geometry.y_shape)


# The indices that max_pool2d and its kin gave out for arrays on a card, with the windows that they were made for.
_own_indices = CheckedArrays()


def _given_out(indices: Array, windows: Window2d, place: Device) -> Array:
    if place.kind == "cuda":
        _own_indices.note(indices, windows)
    return indices


def _indices(op: str, indices: Array, geometry: Window2d, rank: int, place: Device) -> Array:
    shape, limit = geometry.y_shape[-rank:], geometry.size[0] * geometry.size[1]
    if _own_indices.purpose(indices) == geometry:
        return indices.reshape(geometry.y_shape)
    if (
        place.kind != "cuda"
        and isinstance(indices, np.ndarray)
        and indices.dtype == np.int64
        and indices.shape == shape
        and indices.flags.c_contiguous
        and indices.flags.aligned
    ):
        # As max_pool2d returned them: one look tells that all is well, and only what isn't is looked at more closely.
        positions = indices.reshape(geometry.y_shape)
        if int(place.kernels.count_misplaced(positions, geometry)) == 0:
            return positions
    positions = index_array(op, "indices", indices, shape, limit, place).reshape(geometry.y_shape)
    _check_winners(op, positions, geometry, place)
    return positions


def _check_winners(op: str, positions: Array, geometry: Window2d, place: Device) -> None:
    # A position that its own window doesn't read would be given no gradient by any kernel.
    misplaced = int(place.kernels.count_misplaced(positions, geometry))
    if misplaced:
        raise ValueError(
            f"{op}: indices must lie inside their windows; {misplaced} of them do not "
            f"(image size {geometry.size}, pool_size={geometry.kernel_size}, stride={geometry.stride}, "
            f"padding={geometry.padding}, dilation={geometry.dilation})"
        )


def _pooling(
    op: str,
    shape: tuple[int, ...],
    shape_name: str,
    pool_size: IntOrPair,
    stride: IntOrPair | None,
    padding: Padding,
    dilation: IntOrPair,
    ceil_mode: bool,
    data_format: str,
) -> Window2d:
    window = window_2d(
        op,
        shape,
        pool_size,
        kernel_name="pool_size",
        stride=pool_size if stride is None else stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
        data_format=data_format,
        shape_name=shape_name,
    )
    check_pooling_window(op, window)
    return window


class _AdaptivePart(NamedTuple):
    # Windows of one height and one width. Their pixels, gathered side by side, are pooled by an ordinary window.
    rows: AdaptiveWindows
    columns: AdaptiveWindows
    window: Window2d

    def gathered(self, images: Array, xp: Any) -> Array:
        cells = _plane_index(self.rows.cells, self.columns.cells, self.window.data_format, xp)
        return xp.ascontiguousarray(images[cells])

    def outputs(self, xp: Any) -> tuple[Any, ...]:
        return _plane_index(self.rows.outputs, self.columns.outputs, self.window.data_format, xp)


def _adaptive(
    op: str, shape: tuple[int, ...], shape_name: str, output_size: IntOrPair, data_format: str
) -> tuple[Window2d, tuple[int, ...], list[_AdaptivePart]]:
    whole = window_2d(op, shape, 1, data_format=data_format, shape_name=shape_name)
    outputs = pair(op, "output_size", output_size, 1)
    check_memory(op, whole.batch * whole.channels * outputs[0] * outputs[1], f"the result, {outputs} pixels each")
    parts = []
    for rows in adaptive_windows(whole.size[0], outputs[0]):
        for columns in adaptive_windows(whole.size[1], outputs[1]):
            pool = (rows.length, columns.length)
            gathered = batch_shape(whole.batch, whole.channels, (rows.cells.size, columns.cells.size), whole.data_format)
            parts.append(_AdaptivePart(rows, columns, window_2d(op, gathered, pool, stride=pool, data_format=data_format)))
    return whole, batch_shape(whole.batch, whole.channels, outputs, whole.data_format), parts


def _adaptive_gradient(
    op: str, dy: Array, input_shape: Sequence[int], data_format: str
) -> tuple[Window2d, list[_AdaptivePart], Array]:
    x_shape = _shape(op, "input_shape", input_shape)
    given = window_2d(op, dy.shape, 1, data_format=data_format, shape_name="dy.shape")
    whole, y_shape, parts = _adaptive(op, x_shape, "input_shape", given.size, data_format)
    if dy.ndim != len(x_shape) or given.x_shape != y_shape:
        raise ValueError(f"{op}: dy.shape must be {y_shape[-len(x_shape) :]} for input_shape={x_shape}, got {dy.shape}")
    return whole, parts, dy.reshape(y_shape)


def _along_plane(rows: Array, columns: Array, data_format: str) -> tuple[Array, Array]:
    # One value a row and one a column, shaped so that they broadcast against images.
    if data_format == "channels_first":
        return rows[:, None], columns
    return rows[:, None, None], columns[:, None]


def _plane_index(rows: Array, columns: Array, data_format: str, xp: Any) -> tuple[Any, ...]:
    # Indexes images at the given rows and columns; the axes stay where they are. Neighbours are a slice: a view, no copy.
    down, across = _neighbours(rows), _neighbours(columns)
    if down is None and across is None:
        down, across = xp.asarray(rows)[:, None], xp.asarray(columns)
    elif down is None:
        down = xp.asarray(rows)
    elif across is None:
        across = xp.asarray(columns)
    everything = slice(None)
    return (everything, everything, down, across) if data_format == "channels_first" else (everything, down, across)


def _neighbours(numbers: Array) -> Any:
    # The slice that takes these rows or columns, or None where they do not follow each other.
    if numbers.size and not (np.diff(numbers) == 1).all():
        return None
    return slice(int(numbers[0]), int(numbers[-1]) + 1) if numbers.size else slice(0)


def _added_up(shares: list[Array], parts: list[_AdaptivePart], whole: Window2d, place: Device) -> Array:
    # Every pixel is given the sum of what the windows that read it have for it: along the rows, then along the columns.
    row_axis = 2 if whole.data_format == "channels_first" else 1
    dtype = shares[0].dtype
    total = place.xp.zeros(whole.x_shape, np.float32 if dtype.itemsize == 2 else dtype)
    for share, part in zip(shares, parts, strict=True):
        share = _added_along(share, part.rows.cells, whole.size[0], row_axis, total.dtype, place.xp)
        total += _added_along(share, part.columns.cells, whole.size[1], row_axis + 1, total.dtype, place.xp)
    return total.astype(dtype, copy=False)


def _added_along(values: Array, targets: Array, length: int, axis: int, dtype: Any, xp: Any) -> Array:
    # An axis of this length, in which entry targets[i] is the sum of the values[i]. Each round adds to no entry twice, so
    # that the sums have one order on every device.
    before = (slice(None),) * axis
    total = xp.zeros((*values.shape[:axis], length, *values.shape[axis + 1 :]), dtype)
    run = _neighbours(targets)
    if run is not None:
        total[(*before, run)] = values
        return total
    order = np.argsort(targets, kind="stable")
    ordered = targets[order]
    occurrences = np.arange(order.size) - np.searchsorted(ordered, ordered)
    for occurrence in range(int(occurrences.max()) + 1):
        sources = order[occurrences == occurrence]
        total[(*before, xp.asarray(targets[sources]))] += values[(*before, xp.asarray(sources))]
    return total


def _plane_axes(data_format: str) -> Pair:
    return (-2, -1) if data_format == "channels_first" else (-3, -2)


def _without_plane(op: str, y: Array, keepdims: bool, data_format: str) -> Array:
    return y if boolean(op, "keepdims", keepdims) else y.squeeze(_plane_axes(data_format))


def _with_plane(op: str, name: str, value: Array, input_shape: Sequence[int], data_format: str) -> Array:
    window = window_2d(op, _shape(op, "input_shape", input_shape), 1, data_format=data_format, shape_name="input_shape")
    array = as_array(op, name, value)
    kept = batch_shape(window.batch, window.channels, (1, 1), window.data_format)[-len(tuple(input_shape)) :]
    dropped = (window.batch, window.channels)[-(len(kept) - 2) :]
    if array.shape not in (kept, dropped):
        raise ValueError(f"{op}: {name}.shape must be {dropped} or {kept} for input_shape={input_shape}, got {array.shape}")
    return array.reshape(kept)
