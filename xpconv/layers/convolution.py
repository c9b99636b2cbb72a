"""Layers that convolve images.

The kernels lie in memory as Keras has them, whatever the data format, so that ``get_weights`` and ``set_weights`` exchange them
with Keras as they are; for ``channels_first`` the devices are handed a transposed copy. What a convolution needs to know of its
shapes is worked out and checked once for each shape of the input, and remembered.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from numpy.typing import DTypeLike

from xpconv import activations, initializers, regularizers
from xpconv.arguments import boolean
from xpconv.arrays import contiguous
from xpconv.device import Device
from xpconv.geometry import (
    Conv2dGeometry,
    DataFormat,
    IntOrPair,
    Pair,
    batch_shape,
    conv2d_geometry,
    image_entries,
    integer,
    pair,
    window_span,
)
from xpconv.layers.images import ImageLayer
from xpconv.layers.layer import Shape
from xpconv.layers.tape import Run
from xpconv.naming import resolve_word

Array = Any

# Shapes of the input whose geometry a layer remembers: images of many sizes must not fill the memory.
_REMEMBERED = 256


class _Saved(NamedTuple):
    x: Array
    between: Array  # what lies between the two convolutions of a separable one
    z: Array  # what the activation was given; None where it does not want it back
    y: Array


class _Convolution(ImageLayer):
    # What the layers here have in common: arguments, bias, activation, and the geometry of each shape. A layer says how many
    # channels it gives, what its geometry is, and how it convolves and goes back.

    kernel: Array
    bias: Array | None

    def __init__(
        self,
        kernel_size: IntOrPair,
        strides: IntOrPair,
        padding: str,
        data_format: str | None,
        dilation_rate: IntOrPair,
        activation: Any,
        use_bias: bool,
        bias_initializer: Any,
        bias_regularizer: Any,
        *,
        name: str | None,
        dtype: DTypeLike | None,
        trainable: bool,
        device: str | Device | None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        op = type(self).__name__
        self.kernel_size = pair(op, "kernel_size", kernel_size, 1)
        self.strides = pair(op, "strides", strides, 1)
        self.padding = resolve_word(op, "padding", padding, "valid", "same")
        self.dilation_rate = pair(op, "dilation_rate", dilation_rate, 1)
        self.activation = activations.get(activation, op=op)
        self.use_bias = boolean(op, "use_bias", use_bias)
        self.bias_initializer = initializers.get(bias_initializer, op=op)
        self.bias_regularizer = regularizers.get(bias_regularizer, op=op)
        self.bias = None
        self._geometries: dict[tuple[int, ...], Conv2dGeometry] = {}

    # ---- what each layer says ------------------------------------------------------------------------------------------

    def _channels_out(self, channels: int | None) -> int | None:
        raise NotImplementedError

    def _add_kernels(self, channels: int) -> None:
        raise NotImplementedError

    def _size_out(self, size: int, axis: int) -> int:
        """Pixels of the output along an axis; not positive where the kernel does not fit."""
        span = window_span(self.kernel_size[axis], self.dilation_rate[axis])
        needed = 1 if self.padding == "same" else span
        return (size - needed) // self.strides[axis] + 1

    def _geometry(self, batch: int, channels: int, size: Pair, size_out: Pair) -> Conv2dGeometry:
        raise NotImplementedError

    def _weight(self) -> Array:
        """The kernel, (KH, KW, channels / groups, filters): a view, no copy."""
        return self.kernel

    def _convolve(self, x: Array, geometry: Conv2dGeometry, place: Device) -> tuple[Array, Array]:
        """What the activation is given, and what lies between two convolutions."""
        return place.kernels.conv2d_forward(x, self.kernel_for(place), self.bias, geometry), None

    def _go_back(
        self, saved: _Saved, dz: Array, geometry: Conv2dGeometry, place: Device, input_gradient: bool
    ) -> tuple[Array, list[Array]]:
        """Gradient of the input, if asked for, and those of the kernels and the bias, if they are trained."""
        dx, gradients = None, []
        if self.trainable:
            dw, db = place.kernels.conv2d_backward_weight(saved.x, dz, geometry)
            gradients = self._with_bias([self.gradient_for(dw, place)], db)
        if input_gradient:
            dx = place.kernels.conv2d_backward_input(dz, self.kernel_for(place), geometry)
        return dx, gradients

    # ---- what follows from it ------------------------------------------------------------------------------------------

    def build(self, input_shape: Shape) -> None:
        _, channels, _ = image_entries(input_shape, self.data_format)
        if channels is None or channels < 1:
            raise ValueError(f"the number of channels must be known, and positive, to make the kernel; it is {channels}")
        _, biases, _ = image_entries(self.compute_output_shape(input_shape), self.data_format)
        assert biases is not None
        self._geometries.clear()
        self._add_kernels(channels)
        if self.use_bias:
            self.add_weight("bias", (biases,), self.bias_initializer, regularizer=self.bias_regularizer)
        self.expect(4, {1 if self.data_format == "channels_first" else 3: channels})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for an input of this shape; None stands for what is not known.

        Raises:
            ValueError: Not the four axes of images, or images too small for the kernel.
        """
        batch, channels, size = image_entries(input_shape, self.data_format)
        size_out = [None if length is None else self._size_out(length, axis) for axis, length in enumerate(size)]
        if any(length is not None and length < 1 for length in (*size, *size_out)):
            raise ValueError(
                f"images of {tuple(size)} pixels would give {tuple(size_out)} (kernel_size={self.kernel_size}, "
                f"strides={self.strides}, padding={self.padding!r}, dilation_rate={self.dilation_rate}{self._more()})"
            )
        return batch_shape(batch, self._channels_out(channels), (size_out[0], size_out[1]), self.data_format)

    def _more(self) -> str:
        return ""

    def geometry_for(self, x_shape: tuple[int, ...]) -> Conv2dGeometry:
        """The geometry that the device's kernels take for an input of this shape; remembered.

        Raises:
            ValueError: The input does not fit.
        """
        geometry = self._geometries.get(x_shape)
        if geometry is None:
            batch, channels, size = image_entries(x_shape, self.data_format)
            _, _, size_out = image_entries(self.compute_output_shape(x_shape), self.data_format)
            if len(self._geometries) >= _REMEMBERED:
                self._geometries.clear()
            # A shape of an array has no None.
            geometry = self._geometries[x_shape] = self._geometry(batch, channels, size, size_out)  # type: ignore[arg-type]
        return geometry

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        x = contiguous(x, run.device.xp)
        z, between = self._convolve(x, self.geometry_for(x.shape), run.device)
        y = self.activation.forward(z, run.device)
        if not run.remember:
            return y, None
        return y, _Saved(x, between, z if self.activation.keeps_input else None, y)

    def differentiate(self, saved: _Saved, dy: Array, run: Run, input_gradient: bool) -> tuple[Any, list[Array]]:
        dz = self.activation.backward(contiguous(dy, run.device.xp), saved.z, saved.y, run.device)
        return self.differentiate_before_activation(saved, dz, run, input_gradient)

    def before_activation(self, saved: _Saved) -> tuple[str, Array] | None:
        return activations.for_loss(self.activation, saved.z)

    def differentiate_before_activation(
        self, saved: _Saved, dz: Array, run: Run, input_gradient: bool
    ) -> tuple[Any, list[Array]]:
        dz = contiguous(dz, run.device.xp)
        return self._go_back(saved, dz, self.geometry_for(saved.x.shape), run.device, input_gradient)

    def kernel_for(self, place: Device) -> Array:
        """The kernel as the device's kernels take it: (KH, KW, C / groups, F), or (F, C / groups, KH, KW)."""
        return _for_device(self._weight(), self.data_format, place)

    def gradient_for(self, dw: Array, place: Device) -> Array:
        """The gradient of what :meth:`kernel_for` gives, in the layout of the layer's kernel."""
        return _for_layer(dw, self.data_format, place).reshape(self.kernel.shape)

    def _with_bias(self, kernels: list[Array], db: Array) -> list[Array]:
        return [*kernels, db] if self.use_bias else kernels


class Conv2D(_Convolution):
    """Convolution of images, with a bias and an activation.

    Args:
        filters: Number of filters F, the channels of the output.
        kernel_size: Height and width of the kernel, an integer or a pair.
        strides: Step of the kernel, an integer or a pair.
        padding: ``"valid"``, none; or ``"same"``, as many zeros as give ``ceil(size / strides)`` pixels, the odd one at the
            end.
        data_format: ``"channels_last"``, (N, H, W, C), which None means, or ``"channels_first"``, (N, C, H, W).
        dilation_rate: Step between the taps of the kernel, an integer or a pair. Not together with ``strides`` above 1.
        groups: Channels and filters are split into this many groups, and each filter reads its own group.
        activation: Name or object of :mod:`xpconv.activations`; None for none.
        use_bias: Whether a bias is added to each filter's result.
        kernel_initializer: Name or object of :mod:`xpconv.initializers`.
        bias_initializer: Likewise, for the bias.
        kernel_regularizer: Name or object of :mod:`xpconv.regularizers`, or None.
        bias_regularizer: Likewise, for the bias.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model.
        trainable: Whether training changes the weights.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        kernel: (KH, KW, C / groups, F) in both data formats, as in Keras.
        bias: (F,), or None.

    Returns:
        The layer; called with images it gives (N, OH, OW, F), or (N, F, OH, OW). With ``"valid"``
        ``OH = floor((H - dilation_rate * (KH - 1) - 1) / strides) + 1``, with ``"same"`` ``OH = ceil(H / strides)``.

    Raises:
        ValueError, TypeError: An argument does not fit, told when the layer is made; or when it is built, that the images are
            smaller than the kernel, or their channels not divisible by ``groups``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> layer = xc.layers.Conv2D(30, 5, activation="relu")
        >>> layer(np.zeros((2, 28, 28, 1), np.float32)).shape
        (2, 24, 24, 30)
        >>> layer.kernel.shape, layer.bias.shape
        ((5, 5, 1, 30), (30,))
    """

    def __init__(
        self,
        filters: int,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
            device=device,
        )
        op = type(self).__name__
        self.filters = integer(op, "filters", filters, 1)
        self.groups = integer(op, "groups", groups, 1)
        if self.filters % self.groups:
            raise ValueError(f"{op}: filters must be divisible by groups, got filters={filters}, groups={groups}")
        _check_steps(self)
        self.kernel_initializer = initializers.get(kernel_initializer, op=op)
        self.kernel_regularizer = regularizers.get(kernel_regularizer, op=op)

    def _channels_out(self, channels: int | None) -> int | None:
        if channels is not None and channels % self.groups:
            raise ValueError(f"the channels must be divisible by groups, got {channels} channels, groups={self.groups}")
        return self.filters

    def _add_kernels(self, channels: int) -> None:
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)

    def _geometry(self, batch: int, channels: int, size: Pair, size_out: Pair) -> Conv2dGeometry:
        return _forward_geometry(self, batch, channels, size, self.filters, self.groups)


class DepthwiseConv2D(_Convolution):
    """Convolution of every channel with kernels of its own.

    Args:
        kernel_size: Height and width of the kernels, an integer or a pair.
        strides: Step of the kernels, an integer or a pair.
        padding: ``"valid"`` or ``"same"``, as in :class:`Conv2D`.
        depth_multiplier: Number of kernels M of each channel.
        data_format: ``"channels_last"``, which None means, or ``"channels_first"``.
        dilation_rate: Step between the taps of a kernel, an integer or a pair.
        activation: Name or object of :mod:`xpconv.activations`; None for none.
        use_bias: Whether a bias is added to each channel of the result.
        depthwise_initializer: Name or object of :mod:`xpconv.initializers`, for the kernels.
        bias_initializer: Likewise, for the bias.
        depthwise_regularizer: Name or object of :mod:`xpconv.regularizers`, for the kernels, or None.
        bias_regularizer: Likewise, for the bias.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model.
        trainable: Whether training changes the weights.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        kernel: (KH, KW, C, M) in both data formats, as in Keras.
        bias: (C * M,), or None.

    Returns:
        The layer; called with images it gives C * M channels, of which ``c * M + m`` is channel c convolved with its kernel m.
        The size is that of :class:`Conv2D`.

    Raises:
        ValueError, TypeError: As :class:`Conv2D`.

    Notes:
        Differences from Keras: strides that differ between the axes are computed; TensorFlow refuses them in most cases.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> layer = xc.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")
        >>> layer(np.zeros((1, 8, 8, 5), np.float32)).shape, layer.kernel.shape
        ((1, 8, 8, 10), (3, 3, 5, 2))
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
            device=device,
        )
        op = type(self).__name__
        self.depth_multiplier = integer(op, "depth_multiplier", depth_multiplier, 1)
        self.depthwise_initializer = initializers.get(depthwise_initializer, op=op)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer, op=op)

    def _channels_out(self, channels: int | None) -> int | None:
        return None if channels is None else channels * self.depth_multiplier

    def _add_kernels(self, channels: int) -> None:
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.add_weight("kernel", shape, self.depthwise_initializer, regularizer=self.depthwise_regularizer)

    def _geometry(self, batch: int, channels: int, size: Pair, size_out: Pair) -> Conv2dGeometry:
        return _forward_geometry(self, batch, channels, size, channels * self.depth_multiplier, channels)

    def _weight(self) -> Array:
        return _grouped(self.kernel)


class SeparableConv2D(_Convolution):
    """Convolution of every channel with kernels of its own, and then of all of them with kernels of one pixel.

    Args:
        filters: Number of filters F, the channels of the output.
        kernel_size: Height and width of the depthwise kernels, an integer or a pair.
        strides: Their step, an integer or a pair.
        padding: ``"valid"`` or ``"same"``, as in :class:`Conv2D`.
        data_format: ``"channels_last"``, which None means, or ``"channels_first"``.
        dilation_rate: Step between the taps of a depthwise kernel, an integer or a pair.
        depth_multiplier: Number of depthwise kernels M of each channel.
        activation: Name or object of :mod:`xpconv.activations`; None for none. There is none in between.
        use_bias: Whether a bias is added to each filter's result.
        depthwise_initializer: Name or object of :mod:`xpconv.initializers`.
        pointwise_initializer: Likewise.
        bias_initializer: Likewise.
        depthwise_regularizer: Name or object of :mod:`xpconv.regularizers`, or None.
        pointwise_regularizer: Likewise.
        bias_regularizer: Likewise.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model.
        trainable: Whether training changes the weights.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        depthwise_kernel: (KH, KW, C, M) in both data formats, as in Keras.
        pointwise_kernel: (1, 1, C * M, F).
        bias: (F,), or None.

    Returns:
        The layer; called with images it gives F channels, of the size of :class:`Conv2D`.

    Raises:
        ValueError, TypeError: As :class:`Conv2D`.

    Notes:
        Differences from Keras: as of :class:`DepthwiseConv2D`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> layer = xc.layers.SeparableConv2D(7, 3, depth_multiplier=2)
        >>> layer(np.zeros((1, 8, 8, 5), np.float32)).shape
        (1, 6, 6, 7)
        >>> [weight.shape for weight in layer.get_weights()]
        [(3, 3, 5, 2), (1, 1, 10, 7), (7,)]
    """

    depthwise_kernel: Array
    pointwise_kernel: Array

    def __init__(
        self,
        filters: int,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
            device=device,
        )
        op = type(self).__name__
        self.filters = integer(op, "filters", filters, 1)
        self.depth_multiplier = integer(op, "depth_multiplier", depth_multiplier, 1)
        self.depthwise_initializer = initializers.get(depthwise_initializer, op=op)
        self.pointwise_initializer = initializers.get(pointwise_initializer, op=op)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer, op=op)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer, op=op)

    def _channels_out(self, channels: int | None) -> int | None:
        return self.filters

    def _add_kernels(self, channels: int) -> None:
        between = channels * self.depth_multiplier
        self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        self.add_weight(
            "pointwise_kernel",
            (1, 1, between, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
        )

    def _geometry(self, batch: int, channels: int, size: Pair, size_out: Pair) -> Conv2dGeometry:
        return _forward_geometry(self, batch, channels, size, channels * self.depth_multiplier, channels)

    def _kernels_for(self, place: Device) -> tuple[Array, Array]:
        return (
            _for_device(_grouped(self.depthwise_kernel), self.data_format, place),
            _for_device(self.pointwise_kernel, self.data_format, place),
        )

    def _convolve(self, x: Array, geometry: Conv2dGeometry, place: Device) -> tuple[Array, Array]:
        depthwise, pointwise = self._kernels_for(place)
        between = place.kernels.conv2d_forward(x, depthwise, None, geometry)
        return place.kernels.conv2d_forward(between, pointwise, self.bias, _pointwise(geometry, self.filters)), between

    def _go_back(
        self, saved: _Saved, dz: Array, geometry: Conv2dGeometry, place: Device, input_gradient: bool
    ) -> tuple[Array, list[Array]]:
        if not (self.trainable or input_gradient):
            return None, []
        dx, gradients, second = None, [], _pointwise(geometry, self.filters)
        depthwise, pointwise = self._kernels_for(place)
        dbetween = place.kernels.conv2d_backward_input(dz, pointwise, second)
        if self.trainable:
            of_depthwise, _ = place.kernels.conv2d_backward_weight(saved.x, dbetween, geometry)
            of_pointwise, db = place.kernels.conv2d_backward_weight(saved.between, dz, second)
            kernels = [
                _for_layer(of_depthwise, self.data_format, place).reshape(self.depthwise_kernel.shape),
                _for_layer(of_pointwise, self.data_format, place),
            ]
            gradients = self._with_bias(kernels, db)
        if input_gradient:
            dx = place.kernels.conv2d_backward_input(dbetween, depthwise, geometry)
        return dx, gradients


class Conv2DTranspose(_Convolution):
    """Transposed convolution: each pixel adds its multiple of the kernel to the output, which is larger for strides above 1.

    It computes what the way back of :class:`Conv2D` computes, from the gradient of its output to that of its input.

    Args:
        filters: Number of filters F, the channels of the output.
        kernel_size: Height and width of the kernel, an integer or a pair.
        strides: Step between the places where neighbouring pixels add theirs, an integer or a pair.
        padding: ``"valid"``, nothing is cut off; or ``"same"``, the output is ``strides`` times as large as the input.
        output_padding: Pixels of the output beyond what the size formula gives, an integer or a pair, smaller than
            ``strides``. None takes the size that ``padding`` means.
        data_format: ``"channels_last"``, which None means, or ``"channels_first"``.
        dilation_rate: Step between the taps of the kernel, an integer or a pair. Not together with ``strides`` above 1.
        activation: Name or object of :mod:`xpconv.activations`; None for none.
        use_bias: Whether a bias is added to each filter's result.
        kernel_initializer: Name or object of :mod:`xpconv.initializers`.
        bias_initializer: Likewise, for the bias.
        kernel_regularizer: Name or object of :mod:`xpconv.regularizers`, or None.
        bias_regularizer: Likewise, for the bias.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model.
        trainable: Whether training changes the weights.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        kernel: (KH, KW, F, C) in both data formats, as in Keras.
        bias: (F,), or None.

    Returns:
        The layer; called with images it gives F channels. With ``span = dilation_rate * (KH - 1) + 1`` the height is

        ===========  ====================================  ====================================================
        padding      output_padding None                   else
        ===========  ====================================  ====================================================
        ``"valid"``  ``(H - 1) * strides +                 ``(H - 1) * strides + span + output_padding``
                     max(span, strides)``
        ``"same"``   ``H * strides``                       ``(H - 1) * strides + span % 2 + output_padding``
        ===========  ====================================  ====================================================

        Of what ``"same"`` cuts off, the odd pixel goes at the end.

    Raises:
        ValueError, TypeError: As :class:`Conv2D`.

    Notes:
        Differences from Keras: with ``"same"``, an even kernel and ``output_padding=0`` the result is that of Keras on JAX;
        on TensorFlow Keras refuses it.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> layer = xc.layers.Conv2DTranspose(4, 3, strides=2, padding="same")
        >>> layer(np.zeros((1, 7, 7, 8), np.float32)).shape, layer.kernel.shape
        ((1, 14, 14, 4), (3, 3, 4, 8))
    """

    def __init__(
        self,
        filters: int,
        kernel_size: IntOrPair,
        strides: IntOrPair = (1, 1),
        padding: str = "valid",
        output_padding: IntOrPair | None = None,
        data_format: str | None = None,
        dilation_rate: IntOrPair = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
            device=device,
        )
        op = type(self).__name__
        self.filters = integer(op, "filters", filters, 1)
        self.output_padding = None if output_padding is None else pair(op, "output_padding", output_padding, 0)
        if self.output_padding is not None and any(
            extra >= stride for extra, stride in zip(self.output_padding, self.strides, strict=True)
        ):
            raise ValueError(
                f"{op}: output_padding must be smaller than strides, "
                f"got output_padding={output_padding!r}, strides={self.strides}"
            )
        _check_steps(self)
        self.kernel_initializer = initializers.get(kernel_initializer, op=op)
        self.kernel_regularizer = regularizers.get(kernel_regularizer, op=op)

    def _channels_out(self, channels: int | None) -> int | None:
        return self.filters

    def _add_kernels(self, channels: int) -> None:
        shape = (*self.kernel_size, self.filters, channels)
        self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)

    def _size_out(self, size: int, axis: int) -> int:
        stride, span = self.strides[axis], window_span(self.kernel_size[axis], self.dilation_rate[axis])
        if self.output_padding is None:
            last = stride if self.padding == "same" else max(span, stride)
        else:
            last = (span % 2 if self.padding == "same" else span) + self.output_padding[axis]
        return (size - 1) * stride + last

    def _more(self) -> str:
        return f", output_padding={self.output_padding}"

    def _geometry(self, batch: int, channels: int, size: Pair, size_out: Pair) -> Conv2dGeometry:
        # Of the convolution that goes from the output to the input. What it pads is what is cut off here: all that sticks out
        # of the output, the odd pixel at the end.
        cuts = []
        for axis in (0, 1):
            span = window_span(self.kernel_size[axis], self.dilation_rate[axis])
            cut = max((size[axis] - 1) * self.strides[axis] + span - size_out[axis], 0)
            cuts.append((cut // 2, cut - cut // 2))
        return conv2d_geometry(
            type(self).__name__,
            batch_shape(batch, self.filters, size_out, self.data_format),
            _weight_shape(self, self.filters, channels),
            stride=self.strides,
            padding=tuple(cuts),
            dilation=self.dilation_rate,
            data_format=self.data_format,
            x_shape_name="the output's shape",
        )

    def _convolve(self, x: Array, geometry: Conv2dGeometry, place: Device) -> tuple[Array, Array]:
        z = place.kernels.conv2d_backward_input(x, self.kernel_for(place), geometry)
        if self.bias is not None:
            z += self.bias.reshape(-1, 1, 1) if self.data_format == "channels_first" else self.bias
        return z, None

    def _go_back(
        self, saved: _Saved, dz: Array, geometry: Conv2dGeometry, place: Device, input_gradient: bool
    ) -> tuple[Array, list[Array]]:
        dx, gradients = None, []
        if self.trainable:
            dw, _ = place.kernels.conv2d_backward_weight(dz, saved.x, geometry)
            gradients = [self.gradient_for(dw, place)]
            if self.use_bias:
                # One axis after the other: in one go NumPy would add up all pixels in one long, less exact sum.
                rows, columns = (2, 3) if self.data_format == "channels_first" else (1, 2)
                gradients.append(dz.sum(axis=columns).sum(axis=rows).sum(axis=0))
        if input_gradient:
            dx = place.kernels.conv2d_forward(dz, self.kernel_for(place), None, geometry)
        return dx, gradients


def _check_steps(layer: _Convolution) -> None:
    if max(layer.strides) > 1 and max(layer.dilation_rate) > 1:
        raise ValueError(
            f"{type(layer).__name__}: strides and dilation_rate must not both be above 1, as in Keras, got "
            f"strides={layer.strides}, dilation_rate={layer.dilation_rate}; xpconv.conv2d takes both"
        )


def _weight_shape(layer: _Convolution, channels: int, filters: int) -> tuple[int, ...]:
    if layer.data_format == "channels_first":
        return filters, channels, *layer.kernel_size
    return *layer.kernel_size, channels, filters


def _forward_geometry(layer: _Convolution, batch: int, channels: int, size: Pair, filters: int, groups: int) -> Conv2dGeometry:
    return conv2d_geometry(
        type(layer).__name__,
        batch_shape(batch, channels, size, layer.data_format),
        _weight_shape(layer, channels // groups, filters),
        stride=layer.strides,
        padding=layer.padding,
        dilation=layer.dilation_rate,
        groups=groups,
        data_format=layer.data_format,
        x_shape_name="the input's shape",
    )


@functools.lru_cache(maxsize=_REMEMBERED)
def _pointwise(depthwise: Conv2dGeometry, filters: int) -> Conv2dGeometry:
    """The geometry of the second convolution of a separable one."""
    channels = depthwise.filters
    return conv2d_geometry(
        "SeparableConv2D",
        depthwise.y_shape,
        (filters, channels, 1, 1) if depthwise.data_format == "channels_first" else (1, 1, channels, filters),
        data_format=depthwise.data_format,
    )


def _for_device(weight: Array, data_format: DataFormat, place: Device) -> Array:
    """(KH, KW, channels, filters) as the device's kernels take it."""
    return weight if data_format == "channels_last" else place.xp.ascontiguousarray(weight.transpose(3, 2, 0, 1))


def _for_layer(dw: Array, data_format: DataFormat, place: Device) -> Array:
    """The way back of :func:`_for_device`."""
    return dw if data_format == "channels_last" else place.xp.ascontiguousarray(dw.transpose(2, 3, 1, 0))


def _grouped(kernel: Array) -> Array:
    # Depthwise is a convolution of one group a channel. Its filters are counted group by group, as Keras counts channels.
    height, width, channels, multiplier = kernel.shape
    return kernel.reshape(height, width, 1, channels * multiplier)
