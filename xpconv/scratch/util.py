"""The book's ``common/util.py``: columns of images, and small helpers around training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpconv import functional
from xpconv.arrays import as_array, float_arrays
from xpconv.device import Device, get_device
from xpconv.geometry import IntOrPair, Padding, integer

__all__ = ["col2im", "conv_output_size", "im2col", "shuffle_dataset", "smooth_curve"]

_SMOOTHING_WINDOW = 11
_SMOOTHING_SHAPE = 2.0  # beta of the Kaiser window


def smooth_curve(x: Any) -> Any:
    """Smooth a curve, such as the loss of every step, to be drawn.

    Each value becomes a mean of itself and its five neighbours on either side, weighted by a Kaiser window of 11 points
    with beta 2, as in the book. At the ends the curve is continued by its mirror image; one that is shorter than the
    window is mirrored again and again.

    Args:
        x: The curve, (N,): an array or a list.

    Returns:
        The smoothed curve, (N,); float32 for float32 and for integers, else float64.

    Raises:
        ValueError: ``x`` has not one axis.
        TypeError: ``x`` holds something else than real numbers.

    Example:
        >>> from xpconv.scratch.util import smooth_curve
        >>> smooth_curve([9.0, 6.0, 7.0, 4.0, 5.0, 2.0]).round(2)
        array([5.64, 5.55, 5.36, 5.12, 4.9 , 4.76])
    """
    op = "smooth_curve"
    place, (curve,) = float_arrays(op, None, x=x)
    xp = place.xp
    if curve.ndim != 1:
        raise ValueError(f"{op}: x must have one axis, got x.shape={curve.shape}")
    if not curve.size:
        return curve.copy()
    window = xp.kaiser(_SMOOTHING_WINDOW, _SMOOTHING_SHAPE).astype(curve.dtype)
    reach = _SMOOTHING_WINDOW // 2
    # The book's mirror images: the first value is not repeated, the last one is.
    before = xp.pad(curve, (reach, 0), mode="reflect")
    after = xp.pad(curve, (0, reach), mode="symmetric")[curve.size :]
    return xp.convolve(window / window.sum(), xp.concatenate([before, after]), mode="valid")


def shuffle_dataset(x: Any, t: Any, seed: int | None = None) -> tuple[Any, Any]:
    """Bring images and labels into one random order.

    Args:
        x: Images, of any shape whose first axis counts them.
        t: Labels, as many.
        seed: Of the order. None draws it from NumPy's global generator, which ``numpy.random.seed`` sets.

    Returns:
        ``(x, t)``: shuffled copies. Image and label stay together.

    Raises:
        ValueError: ``x`` and ``t`` are not equally many.
        TypeError: One of them is no array.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.util import shuffle_dataset
        >>> x, t = shuffle_dataset(np.array([[0, 0], [1, 1], [2, 2]]), np.array([0, 1, 2]), seed=0)
        >>> (x[:, 0] == t).all()
        np.True_
    """
    op = "shuffle_dataset"
    x, t = as_array(op, "x", x), as_array(op, "t", t)
    if x.ndim < 1 or t.ndim < 1 or len(x) != len(t):
        raise ValueError(f"{op}: x and t must be equally many, got x.shape={x.shape} and t.shape={t.shape}")
    xp = get_device(None, x, t).xp
    order = np.random.permutation(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    order = xp.asarray(order)
    return x[order], t[order]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> int:
    """Tell how many places a filter has along one axis of an image.

    Args:
        input_size: Size of the image.
        filter_size: Size of the filter.
        stride: Step of the filter.
        pad: Padding at each end.

    Returns:
        ``floor((input_size + 2 * pad - filter_size) / stride) + 1``: what :class:`~xpconv.scratch.layers.Convolution` and
        :class:`~xpconv.scratch.layers.Pooling` give.

    Raises:
        ValueError: A size or step below 1, a negative padding, or a filter larger than the padded image.
        TypeError: An argument is no integer.

    Example:
        >>> from xpconv.scratch.util import conv_output_size
        >>> conv_output_size(28, 5), conv_output_size(28, 5, stride=2, pad=2)
        (24, 14)
    """
    op = "conv_output_size"
    input_size, filter_size = integer(op, "input_size", input_size, 1), integer(op, "filter_size", filter_size, 1)
    stride, pad = integer(op, "stride", stride, 1), integer(op, "pad", pad, 0)
    room = input_size + 2 * pad - filter_size
    if room < 0:
        raise ValueError(
            f"{op}: the filter is larger than the padded image (input_size={input_size}, filter_size={filter_size}, pad={pad})"
        )
    return room // stride + 1


def im2col(
    input_data: Any,
    filter_h: int,
    filter_w: int,
    stride: IntOrPair = 1,
    pad: Padding = 0,
    device: str | Device | None = None,
) -> Any:
    """Lay out what a convolution reads as the rows of a matrix: :func:`xpconv.im2col` with the book's arguments.

    Args:
        input_data: Images, (N, C, H, W).
        filter_h: Height of the filter.
        filter_w: Width of the filter.
        stride: Step of the filter.
        pad: Zeros around the images.
        device: Where to compute; None follows the array.

    Returns:
        (N * OH * OW, C * filter_h * filter_w), with ``OH = floor((H + 2 * pad - filter_h) / stride) + 1``. float32 for
        float32 and for integers, else float64.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`xpconv.im2col`.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.util import im2col
        >>> im2col(np.arange(9).reshape(1, 1, 3, 3), 2, 2)
        array([[0., 1., 3., 4.],
               [1., 2., 4., 5.],
               [3., 4., 6., 7.],
               [4., 5., 7., 8.]], dtype=float32)
    """
    return functional.im2col(input_data, (filter_h, filter_w), stride=stride, padding=pad, device=device)


def col2im(
    col: Any,
    input_shape: Sequence[int],
    filter_h: int,
    filter_w: int,
    stride: IntOrPair = 1,
    pad: Padding = 0,
    device: str | Device | None = None,
) -> Any:
    """Add the rows of a matrix of columns back into images: :func:`xpconv.col2im` with the book's arguments.

    Args:
        col: (N * OH * OW, C * filter_h * filter_w), as :func:`im2col` returns it.
        input_shape: Shape of the images, (N, C, H, W).
        filter_h: Height of the filter.
        filter_w: Width of the filter.
        stride: Step of the filter.
        pad: Zeros around the images; what falls there is dropped.
        device: Where to compute; None follows the array.

    Returns:
        An array of ``input_shape``; where filters overlap their values are summed.

    Raises:
        ValueError, TypeError, DeviceUnavailableError: As :func:`xpconv.col2im`.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.util import col2im, im2col
        >>> image = np.arange(9.0).reshape(1, 1, 3, 3)
        >>> col2im(im2col(image, 2, 2), image.shape, 2, 2)
        array([[[[ 0.,  2.,  2.],
                 [ 6., 16., 10.],
                 [ 6., 14.,  8.]]]])
    """
    return functional.col2im(col, input_shape, (filter_h, filter_w), stride=stride, padding=pad, device=device)
