"""Pooling of images: the maximum or the mean of windows, of the whole image, or of as many windows as are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv import functional
from xpconv.arguments import boolean
from xpconv.arrays import contiguous, is_floating
from xpconv.device import Device
from xpconv.geometry import (
    IntOrPair,
    Pair,
    Window2d,
    batch_shape,
    check_pooling_window,
    image_entries,
    pair,
    window_2d,
)
from xpconv.layers.images import ImageLayer
from xpconv.layers.layer import Array, Shape
from xpconv.layers.tape import Run
from xpconv.naming import resolve_word

# Input shapes whose windows are kept: a batch size for training, for its last batch, for evaluation ...
_SHAPES_KEPT = 64
# Up to here float64 holds every integer.
_LARGEST_EXACT = 2**53


class _Pooling2D(ImageLayer):
    """What all pooling layers share."""

    def _completed(self, input_shape: Any, size: Pair) -> tuple[int, ...]:
        # The shape with a number for everything that is not known: one image, one channel, and this size.
        image_entries(input_shape, self.data_format)  # raises where there are not four axes
        others = batch_shape(1, 1, size, self.data_format)
        return tuple(other if known is None else known for known, other in zip(input_shape, others, strict=True))


class _WindowPooling2D(_Pooling2D):
    """Pooling with windows of one size that lie a fixed step apart."""

    def __init__(
        self,
        pool_size: IntOrPair,
        strides: IntOrPair | None,
        padding: str,
        data_format: str | None,
        *,
        name: str | None,
        dtype: DTypeLike | None,
        trainable: bool,
        device: str | Device | None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        op = type(self).__name__
        self.pool_size = pair(op, "pool_size", pool_size, 1)
        self.strides = self.pool_size if strides is None else pair(op, "strides", strides, 1)
        self.padding = resolve_word(op, "padding", padding, "valid", "same")
        self._windows: dict[tuple[int, ...], Window2d] = {}

    def window_for(self, x_shape: tuple[int, ...]) -> Window2d:
        """The window for images of this shape, worked out once for each shape.

        Args:
            x_shape: Shape of the images, four numbers.

        Raises:
            ValueError: The window does not fit into the images.
        """
        window = self._windows.get(x_shape)
        if window is None:
            window = window_2d(
                self.title,
                x_shape,
                self.pool_size,
                kernel_name="pool_size",
                stride=self.strides,
                padding=self.padding,
                data_format=self.data_format,
                shape_name="the input's shape",
            )
            check_pooling_window(self.title, window)
            if len(self._windows) >= _SHAPES_KEPT:
                self._windows.clear()
            self._windows[x_shape] = window
        return window

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: along each axis ``ceil(size / stride)`` for ``padding="same"``.

        For ``"valid"`` it is ``floor((size - pool_size) / stride) + 1``.
        """
        window = self.window_for(self._completed(input_shape, self.pool_size))
        return tuple(None if known is None else size for known, size in zip(input_shape, window.y_shape, strict=True))


class MaxPooling2D(_WindowPooling2D):
    """Maximum of each window of the images; also known as ``MaxPool2D``.

    Args:
        pool_size: Height and width of the window; an integer or a pair.
        strides: Step of the window; None takes ``pool_size``, so that windows lie side by side.
        padding: ``"valid"`` for none, or ``"same"`` for ``ceil(size / stride)`` outputs; no maximum is ever taken from it.
        data_format: ``"channels_last"`` (N, H, W, C), which None stands for too, or ``"channels_first"`` (N, C, H, W).
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        When called, (N, OH, OW, C) or (N, C, OH, OW), with ``OH = floor((H - pool_size) / stride) + 1``, or
        ``ceil(H / stride)`` for ``padding="same"``. Integers and booleans stay what they are, and are exact however large.
        NaN wins; where several are equal the gradient goes to the first in row-major order.

    Raises:
        ValueError, TypeError: An argument that is no such thing, or when called, images that the window does not fit into.

    Notes:
        Differences from Keras: a window larger than the image is refused, where TensorFlow gives an empty result.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> x = np.arange(16).reshape(1, 4, 4, 1)
        >>> xc.layers.MaxPooling2D()(x).reshape(2, 2)
        array([[ 5,  7],
               [13, 15]])
    """

    keeps_integers = True

    def __init__(
        self,
        pool_size: IntOrPair = (2, 2),
        strides: IntOrPair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, name=name, dtype=dtype, trainable=trainable, device=device)

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        window, xp = self.window_for(inputs.shape), run.device.xp
        if is_floating(inputs.dtype):
            y, winners = run.device.kernels.max_pool2d_forward(contiguous(inputs, xp), window, run.remember)
        else:
            floats, integers = _ordered_floats(inputs, xp)
            y, winners = run.device.kernels.max_pool2d_forward(floats, window, run.remember)
            y = integers(y)
        return y, (winners, window) if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        winners, window = saved
        return run.device.kernels.max_pool2d_backward(contiguous(dy, run.device.xp), winners, window), []


class AveragePooling2D(_WindowPooling2D):
    """Mean of each window of the images; also known as ``AvgPool2D``.

    Args:
        pool_size: Height and width of the window; an integer or a pair.
        strides: Step of the window; None takes ``pool_size``.
        padding: ``"valid"`` for none, or ``"same"`` for ``ceil(size / stride)`` outputs; what lies in it does not count in the
            mean.
        data_format: ``"channels_last"`` (N, H, W, C), which None stands for too, or ``"channels_first"`` (N, C, H, W).
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        When called, the means; the shape is that of :class:`MaxPooling2D`.

    Raises:
        ValueError, TypeError: As :class:`MaxPooling2D`.

    Notes:
        Differences from Keras: ``pool_size`` has a default, and integers are taken, as floats.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.AveragePooling2D(2, padding="same")(np.arange(9.0).reshape(1, 3, 3, 1)).reshape(2, 2)
        array([[2. , 3.5],
               [6.5, 8. ]], dtype=float32)
    """

    def __init__(
        self,
        pool_size: IntOrPair = (2, 2),
        strides: IntOrPair | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, name=name, dtype=dtype, trainable=trainable, device=device)

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        window = self.window_for(inputs.shape)
        y = run.device.kernels.avg_pool2d_forward(contiguous(inputs, run.device.xp), window, False)
        return y, window if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        return run.device.kernels.avg_pool2d_backward(contiguous(dy, run.device.xp), saved, False), []


class _GlobalPooling2D(_Pooling2D):
    """Pooling of the whole image."""

    def __init__(
        self,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        self.keepdims = boolean(type(self).__name__, "keepdims", keepdims)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: (N, C), or with ``keepdims`` (N, 1, 1, C) or (N, C, 1, 1)."""
        completed = self._completed(input_shape, (1, 1))
        window_2d(self.title, completed, 1, data_format=self.data_format, shape_name="the input's shape")
        batch, channels, _ = image_entries(input_shape, self.data_format)
        return batch_shape(batch, channels, (1, 1), self.data_format) if self.keepdims else (batch, channels)


class GlobalAveragePooling2D(_GlobalPooling2D):
    """Mean of each channel over the whole image; also known as ``GlobalAvgPool2D``.

    Args:
        data_format: ``"channels_last"`` (N, H, W, C), which None stands for too, or ``"channels_first"`` (N, C, H, W).
        keepdims: Keep height and width, as axes of length 1.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        When called, (N, C), or with ``keepdims`` (N, 1, 1, C) or (N, C, 1, 1).

    Raises:
        ValueError, TypeError: An argument that is no such thing, or when called, something that is no batch of images.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.GlobalAveragePooling2D()(np.arange(8.0).reshape(1, 2, 2, 2))
        array([[3., 4.]], dtype=float32)
    """

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        y = functional.global_avg_pool2d(inputs, keepdims=self.keepdims, data_format=self.data_format, device=run.device)
        return y, inputs.shape if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        dx = functional.global_avg_pool2d_backward(dy, saved, data_format=self.data_format, device=run.device)
        return dx, []


class GlobalMaxPooling2D(_GlobalPooling2D):
    """Maximum of each channel over the whole image; also known as ``GlobalMaxPool2D``.

    Args:
        data_format: ``"channels_last"`` (N, H, W, C), which None stands for too, or ``"channels_first"`` (N, C, H, W).
        keepdims: Keep height and width, as axes of length 1.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        When called, (N, C), or with ``keepdims`` (N, 1, 1, C) or (N, C, 1, 1). Integers, NaN and ties as
        :class:`MaxPooling2D`.

    Raises:
        ValueError, TypeError: As :class:`GlobalAveragePooling2D`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.GlobalMaxPooling2D()(np.arange(8.0).reshape(1, 2, 2, 2))
        array([[6., 7.]], dtype=float32)
    """

    keeps_integers = True

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""

        def pooled(x: Array, return_indices: Any) -> Any:
            return functional.global_max_pool2d(
                x,
                keepdims=self.keepdims,
                return_indices=return_indices,
                data_format=self.data_format,
                device=run.device,
            )

        return _maximum(pooled, inputs, run)

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        winners, shape = saved
        dx = functional.global_max_pool2d_backward(dy, winners, shape, data_format=self.data_format, device=run.device)
        return dx, []


class _AdaptivePooling2D(_Pooling2D):
    """Pooling to a size of the result."""

    def __init__(
        self,
        output_size: IntOrPair,
        data_format: str | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        self.output_size = pair(type(self).__name__, "output_size", output_size, 1)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: the batch, the channels and the ``output_size``."""
        completed = self._completed(input_shape, (1, 1))
        window_2d(self.title, completed, 1, data_format=self.data_format, shape_name="the input's shape")
        batch, channels, _ = image_entries(input_shape, self.data_format)
        return batch_shape(batch, channels, self.output_size, self.data_format)


class AdaptiveAveragePooling2D(_AdaptivePooling2D):
    """Mean of windows that are laid out to give the output size asked for.

    Window i of OH along an axis of H pixels runs from ``floor(i * H / OH)`` to ``ceil((i + 1) * H / OH)``.

    Args:
        output_size: Height and width of the result, an integer or a pair; may be larger than the image.
        data_format: ``"channels_last"`` (N, H, W, C), which None stands for too, or ``"channels_first"`` (N, C, H, W).
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        When called, (N, *output_size, C) or (N, C, *output_size).

    Raises:
        ValueError, TypeError: An argument that is no such thing, or when called, something that is no batch of images.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.AdaptiveAveragePooling2D((1, 2))(np.arange(5.0).reshape(1, 1, 5, 1)).reshape(2)
        array([1., 3.], dtype=float32)
    """

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        y = functional.adaptive_avg_pool2d(inputs, self.output_size, data_format=self.data_format, device=run.device)
        return y, inputs.shape if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        dx = functional.adaptive_avg_pool2d_backward(dy, saved, data_format=self.data_format, device=run.device)
        return dx, []


class AdaptiveMaxPooling2D(_AdaptivePooling2D):
    """Maximum of windows that are laid out to give the output size asked for.

    Args:
        output_size: Height and width of the result, an integer or a pair; the windows are those of
            :class:`AdaptiveAveragePooling2D`.
        data_format: ``"channels_last"`` (N, H, W, C), which None stands for too, or ``"channels_first"`` (N, C, H, W).
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        When called, (N, *output_size, C) or (N, C, *output_size). Integers, NaN and ties as :class:`MaxPooling2D`.

    Raises:
        ValueError, TypeError: As :class:`AdaptiveAveragePooling2D`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.AdaptiveMaxPooling2D((1, 2))(np.arange(5.0).reshape(1, 1, 5, 1)).reshape(2)
        array([2., 4.], dtype=float32)
    """

    keeps_integers = True

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""

        def pooled(x: Array, return_indices: Any) -> Any:
            return functional.adaptive_max_pool2d(
                x, self.output_size, return_indices=return_indices, data_format=self.data_format, device=run.device
            )

        return _maximum(pooled, inputs, run)

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        winners, shape = saved
        dx = functional.adaptive_max_pool2d_backward(dy, winners, shape, data_format=self.data_format, device=run.device)
        return dx, []


# Keras' other names for the same classes.
MaxPool2D = MaxPooling2D
AvgPool2D = AveragePooling2D
GlobalAvgPool2D = GlobalAveragePooling2D
GlobalMaxPool2D = GlobalMaxPooling2D


def _maximum(pooled: Callable[[Array, bool], Any], x: Array, run: Run) -> tuple[Array, Any]:
    # The maxima by a function of xpconv.functional, and what its gradient needs.
    floats, integers = (x, None) if is_floating(x.dtype) else _ordered_floats(x, run.device.xp)
    y, winners = pooled(floats, True) if run.remember else (pooled(floats, False), None)
    return y if integers is None else integers(y), (winners, x.shape) if run.remember else None


def _ordered_floats(x: Array, xp: Any) -> tuple[Array, Callable[[Array], Array]]:
    # Floats in the same order as the integers, and what turns some of them back: exact, however large the integers are.
    dtype = x.dtype
    if dtype.itemsize <= 2:
        return xp.asarray(x, dtype=np.float32, order="C"), lambda y: y.astype(dtype)
    if dtype.itemsize == 8 and x.size and max(-int(x.min()), int(x.max())) > _LARGEST_EXACT:
        values, ranks = xp.unique(x, return_inverse=True)
        return ranks.reshape(x.shape).astype(np.float64), lambda y: values[y.astype(np.int64)]
    return xp.asarray(x, dtype=np.float64, order="C"), lambda y: y.astype(dtype)
