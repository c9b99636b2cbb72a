"""Layers that change the size of images without any weights: padding, cropping, upsampling."""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.geometry import IntOrPair, OpenSize, Pair, batch_shape, image_entries, integer, pair
from xpconv.layers.images import ImageLayer
from xpconv.layers.layer import Shape
from xpconv.layers.tape import Run
from xpconv.naming import resolve_word

Array = Any
Edges: TypeAlias = tuple[Pair, Pair]


class _Resampling(ImageLayer):
    # What the layers here have in common: images in, images of another size out. A layer says which size, how, and the adjoint.

    keeps_integers = True

    def _size_out(self, size: OpenSize) -> OpenSize:
        raise NotImplementedError

    def _resampled(self, x: Array, xp: Any) -> Array:
        raise NotImplementedError

    def _spread_back(self, dy: Array, xp: Any) -> Array:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for an input of this shape; None stands for what is not known.

        Raises:
            ValueError: Not the four axes of images, or nothing would be left.
        """
        batch, channels, size = image_entries(input_shape, self.data_format)
        return batch_shape(batch, channels, self._size_out(size), self.data_format)

    def compute(self, x: Array, run: Run) -> tuple[Array, Any]:
        return self._resampled(x, run.device.xp), None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Any, list[Array]]:
        return (self._spread_back(dy, run.device.xp) if input_gradient else None), []

    @property
    def _row_axis(self) -> int:
        return 2 if self.data_format == "channels_first" else 1

    def _inside(self, shape: tuple[int, ...], edges: Edges) -> tuple[slice, ...]:
        """Indexes what lies within the edges of images of this shape."""
        index = [slice(None)] * 4
        for axis, (before, after) in enumerate(edges, self._row_axis):
            index[axis] = slice(before, shape[axis] - after)
        return tuple(index)

    def _surrounded(self, x: Array, edges: Edges, xp: Any) -> Array:
        shape = list(x.shape)
        for axis, edge in enumerate(edges, self._row_axis):
            shape[axis] += sum(edge)
        y = xp.zeros(tuple(shape), x.dtype)
        y[self._inside(y.shape, edges)] = x
        return y


class ZeroPadding2D(_Resampling):
    """Zeros around images.

    Args:
        padding: Rows above and below, columns to the left and the right: one integer for all four, a pair of the rows and the
            columns, or ``((top, bottom), (left, right))``.
        data_format: ``"channels_last"``, (N, H, W, C), which None means, or ``"channels_first"``, (N, C, H, W).
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model. Integers stay what they are.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        The layer; called with images it gives images of ``H + top + bottom`` by ``W + left + right`` pixels.

    Raises:
        ValueError, TypeError: An argument does not fit; or the input has not four axes.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.ZeroPadding2D(((0, 1), (1, 0)))(np.array([[[[1], [2]]]]))[..., 0]
        array([[[0, 1, 2],
                [0, 0, 0]]])
    """

    def __init__(
        self,
        padding: int | tuple[IntOrPair, IntOrPair] = (1, 1),
        data_format: str | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        self.padding = _edges(type(self).__name__, "padding", padding)

    def _size_out(self, size: OpenSize) -> OpenSize:
        (top, bottom), (left, right) = self.padding
        height, width = size
        return None if height is None else height + top + bottom, None if width is None else width + left + right

    def _resampled(self, x: Array, xp: Any) -> Array:
        return x if self.padding == _NO_EDGES else self._surrounded(x, self.padding, xp)

    def _spread_back(self, dy: Array, xp: Any) -> Array:
        return dy[self._inside(dy.shape, self.padding)].copy()


class Cropping2D(_Resampling):
    """Images without their outermost rows and columns.

    Args:
        cropping: Rows above and below, columns to the left and the right: one integer for all four, a pair of the rows and the
            columns, or ``((top, bottom), (left, right))``.
        data_format: ``"channels_last"``, (N, H, W, C), which None means, or ``"channels_first"``, (N, C, H, W).
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model. Integers stay what they are.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        The layer; called with images it gives images of ``H - top - bottom`` by ``W - left - right`` pixels.

    Raises:
        ValueError, TypeError: An argument does not fit; or the input has not four axes, or nothing would be left of it.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Cropping2D(((1, 0), (0, 1)))(np.arange(6).reshape(1, 2, 3, 1))[..., 0]
        array([[[3, 4]]])
    """

    def __init__(
        self,
        cropping: int | tuple[IntOrPair, IntOrPair] = ((0, 0), (0, 0)),
        data_format: str | None = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        self.cropping = _edges(type(self).__name__, "cropping", cropping)

    def _size_out(self, size: OpenSize) -> OpenSize:
        height, width = (
            None if length is None else length - sum(edge) for length, edge in zip(size, self.cropping, strict=True)
        )
        if any(length is not None and length < 1 for length in (height, width)):
            raise ValueError(f"nothing would be left of images of {size} pixels (cropping={self.cropping})")
        return height, width

    def _resampled(self, x: Array, xp: Any) -> Array:
        self.compute_output_shape(x.shape)  # refuses images that are smaller than those it was built for, and too small
        return x if self.cropping == _NO_EDGES else x[self._inside(x.shape, self.cropping)].copy()

    def _spread_back(self, dy: Array, xp: Any) -> Array:
        return self._surrounded(dy, self.cropping, xp)


class UpSampling2D(_Resampling):
    """Images enlarged by whole factors.

    Args:
        size: Factors of the height and the width, an integer or a pair.
        data_format: ``"channels_last"``, (N, H, W, C), which None means, or ``"channels_first"``, (N, C, H, W).
        interpolation: ``"nearest"`` repeats every pixel; ``"bilinear"`` takes the mean of the nearest pixels, weighted by the
            distances between the centres of the pixels, and at the edges the outermost pixel.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None follows the model. ``"nearest"`` leaves integers what they are.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the input.

    Returns:
        The layer; called with images it gives images of ``size[0] * H`` by ``size[1] * W`` pixels.

    Raises:
        ValueError, TypeError: An argument does not fit; or the input has not four axes.

    Notes:
        Differences from Keras: there is no ``"bicubic"``, ``"lanczos3"`` or ``"lanczos5"``; ``"bilinear"`` computes float64 in
        float64, and makes floats of integers.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> image = np.array([[[[1.0], [2.0]]]], np.float32)
        >>> xc.layers.UpSampling2D((1, 2))(image).ravel()
        array([1., 1., 2., 2.], dtype=float32)
        >>> xc.layers.UpSampling2D((1, 2), interpolation="bilinear")(image).ravel()
        array([1.  , 1.25, 1.75, 2.  ], dtype=float32)
    """

    def __init__(
        self,
        size: IntOrPair = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(data_format, name=name, dtype=dtype, trainable=trainable, device=device)
        op = type(self).__name__
        self.size = pair(op, "size", size, 1)
        self.interpolation = resolve_word(op, "interpolation", interpolation, "nearest", "bilinear")
        self.keeps_integers = self.interpolation == "nearest"

    def _size_out(self, size: OpenSize) -> OpenSize:
        height, width = (None if length is None else length * factor for length, factor in zip(size, self.size, strict=True))
        return height, width

    def _resampled(self, x: Array, xp: Any) -> Array:
        for axis, factor in enumerate(self.size, self._row_axis):
            if factor > 1:
                nearest = self.interpolation == "nearest"
                x = x.repeat(factor, axis=axis) if nearest else _interpolated(x, axis, factor, xp)
        return x

    def _spread_back(self, dy: Array, xp: Any) -> Array:
        for axis, factor in enumerate(self.size, self._row_axis):
            if factor > 1:
                split = dy.reshape(*dy.shape[:axis], dy.shape[axis] // factor, factor, *dy.shape[axis + 1 :])
                dy = split.sum(axis=axis + 1) if self.interpolation == "nearest" else _gathered(split, axis)
        return dy


_NO_EDGES: Edges = ((0, 0), (0, 0))


def _edges(op: str, name: str, value: Any) -> Edges:
    """((top, bottom), (left, right)) of an integer, a pair, or a pair of pairs, also mixed."""
    if not isinstance(value, (tuple, list)):
        try:
            edge = integer(op, name, value, 0)
        except TypeError:
            raise TypeError(f"{op}: {name} {_EDGES_EXPECTED}, got {value!r}") from None
        return (edge, edge), (edge, edge)
    if len(value) != 2 or any(isinstance(entry, (tuple, list)) and len(entry) != 2 for entry in value):
        raise ValueError(f"{op}: {name} {_EDGES_EXPECTED}, got {value!r}")
    try:
        return pair(op, name, value[0], 0), pair(op, name, value[1], 0)
    except TypeError:
        raise TypeError(f"{op}: {name} {_EDGES_EXPECTED}, got {value!r}") from None


_EDGES_EXPECTED = "must be an integer, (height, width), or ((top, bottom), (left, right))"


def _phases(factor: int) -> list[tuple[int, float]]:
    """Where the centres of the small pixels lie within a large one: which neighbour is nearer, and its share.

    Small pixel p of ``factor`` lies ``(p + 0.5) / factor - 0.5`` behind the centre of the large one.
    """
    phases = []
    for phase in range(factor):
        doubled = 2 * phase + 1 - factor
        phases.append(((doubled > 0) - (doubled < 0), abs(doubled) / (2 * factor)))
    return phases


def _along(axis: int, index: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, index)


def _interpolated(x: Array, axis: int, factor: int, xp: Any) -> Array:
    """Enlarge along one axis, linearly; beyond the ends lies the outermost entry once more."""
    neighbours = {
        0: x,
        -1: xp.concatenate((x[_along(axis, slice(1))], x[_along(axis, slice(-1))]), axis=axis),
        1: xp.concatenate((x[_along(axis, slice(1, None))], x[_along(axis, slice(-1, None))]), axis=axis),
    }
    y = xp.empty((*x.shape[: axis + 1], factor, *x.shape[axis + 1 :]), x.dtype)
    for phase, (side, share) in enumerate(_phases(factor)):
        # In the very middle the neighbour has no share: not even zero times it, which would be NaN for infinity.
        y[_along(axis + 1, phase)] = x * (1 - share) + neighbours[side] * share if side else x
    return y.reshape(*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1 :])


def _gathered(split: Array, axis: int) -> Array:
    """The adjoint of :func:`_interpolated`; the axis behind ``axis`` holds the small pixels of each large one."""
    own: Array = 0.0
    of_side: dict[int, Array] = {-1: 0.0, 1: 0.0}
    for phase, (side, share) in enumerate(_phases(split.shape[axis + 1])):
        small = split[_along(axis + 1, phase)]
        own = own + (small * (1 - share) if side else small)
        if side:
            of_side[side] = of_side[side] + small * share
    before, after = of_side[-1], of_side[1]
    own[_along(axis, slice(-1))] += before[_along(axis, slice(1, None))]
    own[_along(axis, slice(1))] += before[_along(axis, slice(1))]
    own[_along(axis, slice(1, None))] += after[_along(axis, slice(-1))]
    own[_along(axis, slice(-1, None))] += after[_along(axis, slice(-1, None))]
    return own
