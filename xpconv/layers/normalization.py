"""Normalization: numbers are brought to mean 0 and variance 1, then scaled and shifted by what is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv import initializers, regularizers
from xpconv.arguments import boolean, fraction_or_one, not_negative
from xpconv.device import Device
from xpconv.geometry import integer
from xpconv.layers.layer import Array, Layer, Shape
from xpconv.layers.tape import Run

# Rows that are summed one after the other; sums of so many are summed likewise. NumPy's own pairwise sums have this size, too.
_ROWS_AT_A_TIME = 128


class _Normalization(Layer):
    """What both layers share: the scale gamma and the shift beta."""

    def __init__(
        self,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        *,
        name: str | None,
        dtype: DTypeLike | None,
        trainable: bool,
        device: str | Device | None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        op = type(self).__name__
        self.epsilon = not_negative(op, "epsilon", epsilon)
        self.center, self.scale = boolean(op, "center", center), boolean(op, "scale", scale)
        self.beta_initializer = initializers.get(beta_initializer, op=op)
        self.gamma_initializer = initializers.get(gamma_initializer, op=op)
        self.beta_regularizer = regularizers.get(beta_regularizer, op=op)
        self.gamma_regularizer = regularizers.get(gamma_regularizer, op=op)
        self.gamma: Array | None = None
        self.beta: Array | None = None

    def _add_scale_and_shift(self, shape: tuple[int, ...]) -> None:
        if self.scale:
            self.add_weight("gamma", shape, self.gamma_initializer, regularizer=self.gamma_regularizer)
        if self.center:
            self.add_weight("beta", shape, self.beta_initializer, regularizer=self.beta_regularizer)

    def _scaled_and_shifted(self, normalized: Array, shape: tuple[int, ...], keep: bool) -> Array:
        # By weights of this shape. In place, unless the normalized numbers are to be kept.
        y = normalized
        if self.gamma is not None:
            gamma = self.gamma.reshape(shape)
            if keep:
                y = y * gamma
            else:
                y *= gamma
        if self.beta is not None:
            beta = self.beta.reshape(shape)
            if keep and y is normalized:
                y = y + beta
            else:
                y += beta
        return y

    def _gradients_of_weights(self, dgamma: Array, dbeta: Array) -> list[Array]:
        return [grad for grad, is_there in ((dgamma, self.scale), (dbeta, self.center)) if is_there]


class BatchNormalization(_Normalization):
    """Bring each feature to mean 0 and variance 1 over the batch, then scale and shift it (arXiv:1502.03167).

    In training, ``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with the mean and the variance of the batch, and
    the moving statistics follow: ``moving_mean = momentum * moving_mean + (1 - momentum) * mean``, likewise the variance.
    Otherwise, and always when the layer is not ``trainable``, the moving statistics are what is normalized with.

    Args:
        axis: The axis of the features; all others are summed over. After a convolution with
            ``data_format="channels_first"`` it is 1.
        momentum: How much of the moving statistics is kept at each training batch, 0 to 1.
        epsilon: Added to the variance, so that there is no division by zero.
        center: Whether there is a ``beta``.
        scale: Whether there is a ``gamma``.
        beta_initializer: What beta starts from; a name or an object of :mod:`xpconv.initializers`.
        gamma_initializer: What gamma starts from.
        moving_mean_initializer: What the moving mean starts from.
        moving_variance_initializer: What the moving variance starts from.
        beta_regularizer: What beta adds to the loss; a name or an object of :mod:`xpconv.regularizers`, or None.
        gamma_regularizer: What gamma adds to the loss.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Whether training changes the weights and the moving statistics; if not, the layer does as outside training.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        gamma: Scale, (features,), or None.
        beta: Shift, (features,), or None.
        moving_mean: Mean to use outside training, (features,).
        moving_variance: Variance to use outside training, (features,); of N numbers it is their squared distances from the mean
            divided by N, as in Keras (PyTorch divides the moving one by N - 1).

    Returns:
        When called, an array of the input's shape.

    Raises:
        ValueError, TypeError: An argument that is no such thing, an axis that the input does not have, or an empty batch to
            train on.

    Notes:
        Sums are made in blocks, so that many numbers are summed as exactly as NumPy's pairwise sums are, and the variance in a
        second pass, from the distances to the mean. Differences from Keras: there is no ``renorm`` and no ``synchronized``;
        an empty batch is refused in training, where Keras leaves NaN in the moving statistics.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> layer = xc.layers.BatchNormalization()
        >>> layer(np.array([[1.0], [3.0]]), training=True).round(3)
        array([[-1.],
               [ 1.]], dtype=float32)
        >>> layer.moving_mean, layer.moving_variance
        (array([0.02], dtype=float32), array([1.], dtype=float32))
    """

    moving_mean: Array
    moving_variance: Array

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
            device=device,
        )
        op = type(self).__name__
        self.axis = integer(op, "axis", axis)
        self.momentum = fraction_or_one(op, "momentum", momentum)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer, op=op)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer, op=op)

    def build(self, input_shape: Any) -> None:
        """See :meth:`Layer.build`."""
        axis, shape = _sizes_along((self.axis,), input_shape)
        self._add_scale_and_shift(shape)
        self.add_weight("moving_mean", shape, self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", shape, self.moving_variance_initializer, trainable=False)
        self.expect(len(input_shape), {axis[0]: shape[0]})

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: the same."""
        _sizes_along((self.axis,), input_shape)
        return tuple(input_shape)

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        x, xp = self._by_feature(inputs), run.device.xp
        of_batch = run.training and self.trainable
        if of_batch:
            count = x.shape[0] * x.shape[2]
            if count == 0:
                raise ValueError("a batch to train on must not be empty")
            mean = _sum_by_feature(x) / count
            y = x - mean[:, None]
            variance = _sum_by_feature(y * y) / count
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving *= self.momentum
                moving += value * (1 - self.momentum)
        else:
            variance = self.moving_variance
            y = x - self.moving_mean[:, None]
        factor = 1 / xp.sqrt(variance + self.epsilon)
        y *= factor[:, None]
        saved = (y, factor, of_batch) if run.remember else None
        return self._scaled_and_shifted(y, (-1, 1), run.remember).reshape(inputs.shape), saved

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array | None, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        normalized, factor, of_batch = saved
        gradient = self._by_feature(dy)
        grads: list[Array] = []
        if of_batch or self.trainable:
            dbeta, dgamma = _sum_by_feature(gradient), _sum_by_feature(gradient * normalized)
            grads = self._gradients_of_weights(dgamma, dbeta) if self.trainable else []
        if not input_gradient:
            return None, grads
        scale = factor if self.gamma is None else factor * self.gamma
        if not of_batch:
            return (gradient * scale[:, None]).reshape(dy.shape), grads
        count = gradient.shape[0] * gradient.shape[2]
        dx = normalized * (dgamma / -count)[:, None]
        dx += gradient
        dx -= (dbeta / count)[:, None]
        dx *= scale[:, None]
        return dx.reshape(dy.shape), grads

    def _by_feature(self, x: Array) -> Array:
        # (what comes before, features, what comes after): every axis of every array becomes the middle one of three.
        axis = self.axis % x.ndim
        return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


class LayerNormalization(_Normalization):
    """Bring the numbers of each sample to mean 0 and variance 1, then scale and shift them (arXiv:1607.06450).

    ``y = gamma * (x - mean) / sqrt(variance + epsilon) + beta``, in training and otherwise.

    Args:
        axis: The axis, or the list of axes, that mean and variance are taken over.
        epsilon: Added to the variance, so that there is no division by zero.
        center: Whether there is a ``beta``.
        scale: Whether there is a ``gamma``.
        beta_initializer: What beta starts from; a name or an object of :mod:`xpconv.initializers`.
        gamma_initializer: What gamma starts from.
        beta_regularizer: What beta adds to the loss; a name or an object of :mod:`xpconv.regularizers`, or None.
        gamma_regularizer: What gamma adds to the loss.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Whether training changes the weights.
        device: Where to compute; None follows the model, or the input.

    Attributes:
        gamma: Scale, of the sizes of the axes in their order in the input, or None.
        beta: Shift, of the same shape, or None.

    Returns:
        When called, an array of the input's shape.

    Raises:
        ValueError, TypeError: An argument that is no such thing, or axes that the input does not have.

    Notes:
        Differences from Keras: axes counted from the end are put in order with the others, so that ``axis=[1, -1]`` means what
        ``axis=[1, 2]`` does of three axes; an axis that is named twice, and an empty list, are refused.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.LayerNormalization()(np.array([[1.0, 3.0], [10.0, 30.0]])).round(3)
        array([[-1.,  1.],
               [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            name=name,
            dtype=dtype,
            trainable=trainable,
            device=device,
        )
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        if not axes:
            raise ValueError(f"LayerNormalization: axis must name one axis at least, got {axis!r}")
        self.axis = tuple(integer("LayerNormalization", "axis", entry) for entry in axes)

    def build(self, input_shape: Any) -> None:
        """See :meth:`Layer.build`."""
        axes, shape = _sizes_along(self.axis, input_shape)
        self._add_scale_and_shift(shape)
        self.expect(len(input_shape), dict(zip(axes, shape, strict=True)))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: the same."""
        _sizes_along(self.axis, input_shape)
        return tuple(input_shape)

    def compute(self, inputs: Array, run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        x, xp = self._by_sample(inputs, run.device.xp), run.device.xp
        y = x - _mean_of_rows(x)
        factor = 1 / xp.sqrt(_mean_of_rows(y * y) + self.epsilon)
        y *= factor
        saved = (y, factor) if run.remember else None
        return self._as_given(self._scaled_and_shifted(y, (-1,), run.remember), inputs.shape, xp), saved

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Array | None, list[Array]]:
        """See :meth:`Layer.differentiate`."""
        normalized, factor = saved
        gradient, xp = self._by_sample(dy, run.device.xp), run.device.xp
        grads: list[Array] = []
        if self.trainable:
            shape = tuple(dy.shape[axis] for axis in self._sorted_axes(dy.ndim))
            dbeta, dgamma = _sum_of_rows(gradient), _sum_of_rows(gradient * normalized)
            grads = self._gradients_of_weights(dgamma.reshape(shape), dbeta.reshape(shape))
        if not input_gradient:
            return None, grads
        scaled = gradient if self.gamma is None else gradient * self.gamma.reshape(-1)
        dx = normalized * -_mean_of_rows(scaled * normalized)
        dx += scaled
        dx -= _mean_of_rows(scaled)
        dx *= factor
        return self._as_given(dx, dy.shape, xp), grads

    def _sorted_axes(self, ndim: int) -> list[int]:
        return sorted(axis % ndim for axis in self.axis)

    def _order(self, ndim: int) -> list[int]:
        # The axes of the samples, then those that are normalized over.
        normalized = self._sorted_axes(ndim)
        return [axis for axis in range(ndim) if axis not in normalized] + normalized

    def _by_sample(self, x: Array, xp: Any) -> Array:
        # (samples, numbers of a sample), a sample side by side: so NumPy sums it pairwise.
        features = math.prod(x.shape[axis] for axis in self._sorted_axes(x.ndim))
        return xp.ascontiguousarray(x.transpose(self._order(x.ndim))).reshape(-1, features)

    def _as_given(self, rows: Array, shape: tuple[int, ...], xp: Any) -> Array:
        order = self._order(len(shape))
        return xp.ascontiguousarray(rows.reshape([shape[axis] for axis in order]).transpose(np.argsort(order).tolist()))


def _sizes_along(axes: tuple[int, ...], input_shape: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    # The axes, counted from the start and in order, and the sizes of the input along them.
    ndim = len(input_shape)
    named = f"axis={axes[0] if len(axes) == 1 else list(axes)}"
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(f"{named} is not there in an input of {ndim} axes")
    counted = tuple(sorted(axis % ndim for axis in axes))
    if len(set(counted)) < len(counted):
        raise ValueError(f"{named} names an axis twice in an input of {ndim} axes")
    sizes = []
    for axis in counted:
        size = input_shape[axis]
        if size is None or size < 1:
            raise ValueError(f"the size of the input along {named} must be known and at least 1")
        sizes.append(int(size))
    return counted, tuple(sizes)


def _sum_by_feature(x: Array) -> Array:
    # Of (before, features, after), (features,).
    return _sum_of_rows(x[:, :, 0] if x.shape[2] == 1 else x.sum(axis=2))


def _sum_of_rows(rows: Array) -> Array:
    # NumPy sums along the last axis pairwise, but adds rows to each other one after the other: their errors would add up.
    count, width = rows.shape
    if count <= _ROWS_AT_A_TIME:
        return rows.sum(axis=0)
    whole = count // _ROWS_AT_A_TIME * _ROWS_AT_A_TIME
    total = _sum_of_rows(rows[:whole].reshape(-1, _ROWS_AT_A_TIME, width).sum(axis=1))
    return total + rows[whole:].sum(axis=0)


def _mean_of_rows(rows: Array) -> Array:
    return rows.sum(axis=1, keepdims=True) / rows.shape[1]
