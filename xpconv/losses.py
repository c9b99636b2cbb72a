"""Losses: how far predictions are from labels, and the gradient of that, with Keras' names, formulas and reductions.

A loss is an object. Called, it gives a number; :meth:`Loss.value_and_gradient` gives that and the gradient of the predictions,
where training starts its way back::

    y_true ── check ──┐
                      ├─ call ──── losses, one a sample ── × sample_weight ── reduction ── value
    y_pred ───────────┤
                      └─ gradient ── of each sample ────── × sample_weight / divisor ───── dy_pred

The functions of Keras' names (:func:`mean_squared_error` ...) give the losses of the samples, and stand for the loss itself
wherever one is asked for.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from xpconv.arguments import boolean, fraction_or_one, positive
from xpconv.arrays import FLOAT_DTYPES, aligned, float_arrays, is_floating, real_array
from xpconv.configuration import Described, found
from xpconv.device import Device, asarray, card_of, number, to_numpy
from xpconv.geometry import integer
from xpconv.labels import ROW_SUM_TOLERANCE
from xpconv.layers.tape import current_run
from xpconv.naming import snake_case

Array: TypeAlias = Any

# Keras' fuzz factor, ``keras.config.epsilon()``: how near to 0 and 1 a probability comes, at most.
EPSILON = 1e-7
REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "none", None)


class Loss(Described):
    """What all losses share. Derive from it for a loss of your own.

    Override :meth:`call` and :meth:`gradient`; :meth:`check`, too, if labels have not the shape of the predictions. There is
    no automatic differentiation: whoever writes the loss writes its gradient.

    Args:
        reduction: What becomes of the losses of the samples: ``"sum_over_batch_size"`` or ``"mean"``, their sum divided by
            their number (not by the sum of the weights); ``"sum"``; ``"none"`` or None, they stay as they are.
        name: Name, for messages; None makes one of the class' name.

    Raises:
        ValueError: An unknown ``reduction``.

    Notes:
        Weights (N,) belong to the samples whatever the shape of the losses. Keras lets NumPy's rules decide, by which they
        may come to stand along the last axis. Predictions of one axis are one sample, which has one weight.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> class Quartic(xpconv.losses.Loss):
        ...     def call(self, y_true, y_pred):
        ...         return ((y_pred - y_true) ** 4).mean(axis=-1)
        ...     def gradient(self, y_true, y_pred):
        ...         return 4 * (y_pred - y_true) ** 3 / y_pred.shape[-1]
        >>> Quartic().value_and_gradient(np.zeros((2, 1)), np.array([[1.0], [2.0]]))
        (8.5, array([[ 2.],
               [16.]]))
    """

    #: The axis of the predictions that the losses of the samples have not.
    axis: int = -1

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        if not any(reduction == known for known in REDUCTIONS):
            raise ValueError(f"{type(self).__name__}: reduction must be one of {REDUCTIONS}, got {reduction!r}")
        self.reduction = reduction
        self.name = snake_case(type(self).__name__) if name is None else name

    # ---- what a loss overrides -------------------------------------------------------------------------------------------

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples.

        Args:
            y_true: Labels as :meth:`check` gives them, of the dtype and on the device of ``y_pred``.
            y_pred: Predictions.

        Returns:
            The shape of ``y_pred`` without its last axis.
        """
        raise NotImplementedError(f"{type(self).__name__} must override call")

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss by its predictions, of the shape of ``y_pred``; arguments as for :meth:`call`."""
        raise NotImplementedError(f"{type(self).__name__} must override gradient: nothing differentiates call by itself")

    def check(self, y_true: Array, y_pred_shape: tuple[int | None, ...], values: bool = True) -> Array:
        """Check labels and bring them into the form that :meth:`call` wants; once for a whole training set is enough.

        Args:
            y_true: Labels of the shape of the predictions; one more or one fewer axis of size 1 at the end does no harm.
            y_pred_shape: Shape of the predictions; None stands for any size of the batch.
            values: Whether to look at the labels' values, and not at their shape alone. On a card, that waits for them.

        Returns:
            The labels, where they were.

        Raises:
            TypeError: No array of real numbers.
            ValueError: Another shape, or values that the loss is not made for.
        """
        labels = real_array(self.name, "y_true", y_true)
        labels, shape = same_rank(labels, tuple(y_pred_shape))
        if not _fits(labels.shape, shape):
            raise ValueError(
                f"{self.name}: y_true and y_pred must have the same shape, got y_true.shape={np.shape(y_true)} and "
                f"y_pred.shape={tuple(y_pred_shape)}{self._hint(labels.shape, shape)}"
            )
        if values:
            self._examine(to_numpy(labels))
        return labels

    def before_activation(self, name: str) -> Loss | None:
        """The loss of what the activation of this name was given, if that is better computed at once; else None."""
        return None

    # ---- calling ---------------------------------------------------------------------------------------------------------

    def __call__(self, y_true: Array, y_pred: Array, sample_weight: Array | None = None) -> Any:
        """Compute the loss.

        Args:
            y_true: Labels; they are converted to the dtype of ``y_pred``.
            y_pred: Predictions.
            sample_weight: What each sample counts: a number, or an array of the shape of the losses, axes of size 1
                standing for any size and missing axes at the end for all that belongs to a sample. None: 1.

        Returns:
            A float, summed in float64; on a card an array without axes. With ``reduction=None`` the array of the samples'
            losses, in the dtype of ``y_pred``. An empty batch has the loss 0.

        Raises:
            TypeError: No arrays of real numbers.
            ValueError: Shapes that do not fit, or labels that the loss is not made for.
        """
        place, y_pred = predictions(self.name, y_pred)
        with place.current(), np.errstate(all="ignore"):
            labels, y_pred = self._prepared(place, y_true, y_pred, checked=False)
            losses = place.xp.asarray(self.call(labels, y_pred))
            weights = _weights_or_none(self.name, sample_weight, losses, place)
            return self._reduced(place, losses, weights, self._divisor(labels, losses))

    def values(self, y_true: Array, y_pred: Array, checked: bool = False) -> Array:
        """Losses of the samples, whatever the ``reduction``; ``checked`` as for :meth:`value_and_gradient`."""
        place, y_pred = predictions(self.name, y_pred)
        with place.current(), np.errstate(all="ignore"):
            return place.xp.asarray(self.call(*self._prepared(place, y_true, y_pred, checked)))

    def value_and_gradient(
        self, y_true: Array, y_pred: Array, sample_weight: Array | None = None, checked: bool = False
    ) -> tuple[Any, Array]:
        """Compute the loss and its gradient with respect to the predictions.

        Args:
            y_true: As for :meth:`__call__`.
            y_pred: As for :meth:`__call__`.
            sample_weight: As for :meth:`__call__`.
            checked: Whether ``y_true`` is what :meth:`check` gave, or some samples of that, and need not be looked at again.

        Returns:
            The loss, and the gradient, of the shape and dtype of ``y_pred``; without a reduction, that of the sum.

        Raises:
            TypeError, ValueError: As :meth:`__call__`.

        Example:
            >>> import numpy as np, xpconv.losses
            >>> loss = xpconv.losses.MeanSquaredError()
            >>> loss.value_and_gradient(np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]]))
            (5.0, array([[1., 3.]]))
        """
        place, given = predictions(self.name, y_pred)
        with place.current(), np.errstate(all="ignore"):
            labels, y_pred = self._prepared(place, y_true, given, checked)
            if sample_weight is None and (fused := self._fused(place, labels, y_pred)) is not None:
                return fused
            losses = place.xp.asarray(self.call(labels, y_pred))
            weights = _weights_or_none(self.name, sample_weight, losses, place)
            divisor = self._divisor(labels, losses)
            dy = self.gradient(labels, y_pred)
            if dy.shape != y_pred.shape:
                raise ValueError(f"{self.name}: gradient must return the shape of y_pred, {y_pred.shape}, but it is {dy.shape}")
            share = 1 / divisor if weights is None else weights / divisor
            if type(share) is not float:
                share = share.astype(y_pred.dtype)
                share = place.xp.expand_dims(share, self.axis) if share.ndim else share
            dy = (dy * share).astype(y_pred.dtype, copy=False)
            return self._reduced(place, losses, weights, divisor), dy.reshape(given.shape)

    # ---- within ----------------------------------------------------------------------------------------------------------

    def _prepared(self, place: Device, y_true: Array, y_pred: Array, checked: bool) -> tuple[Array, Array]:
        if y_pred.shape[_axis_of(self, y_pred.shape)] == 0:
            raise ValueError(f"{self.name}: y_pred must have values along axis {self.axis}, got y_pred.shape={y_pred.shape}")
        labels = y_true if checked else self.check(y_true, y_pred.shape)
        labels = aligned(asarray(labels, device=place, dtype=self._label_dtype(y_pred.dtype)))
        return self._aligned(labels, y_pred)

    def _label_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtype

    def _aligned(self, labels: Array, y_pred: Array) -> tuple[Array, Array]:
        # Both with as many axes, and as many samples: what was checked may be another batch.
        labels, shape = same_rank(labels, y_pred.shape)
        y_pred = y_pred.reshape(shape)
        if labels.ndim and labels.shape[0] != y_pred.shape[0]:
            raise self._other_samples(labels, y_pred)
        return labels, y_pred

    def _other_samples(self, labels: Array, y_pred: Array) -> ValueError:
        return ValueError(
            f"{self.name}: y_true and y_pred must hold the same samples, got y_true.shape={labels.shape} and "
            f"y_pred.shape={y_pred.shape}"
        )

    def _examine(self, labels: np.ndarray[Any, Any]) -> None:
        if is_floating(labels.dtype):
            self._refuse(labels, ~np.isfinite(labels), "finite numbers")

    def _refuse(self, labels: np.ndarray[Any, Any], wrong: np.ndarray[Any, Any], expected: str, hint: str = "") -> None:
        count = np.count_nonzero(wrong)
        if count:
            first = tuple(int(at) for at in np.unravel_index(int(wrong.argmax()), wrong.shape))
            where = ", ".join(map(str, first))
            raise ValueError(
                f"{self.name}: y_true must hold {expected}, got y_true[{where}] = {labels[first].tolist()} "
                f"({count} of {wrong.size} are wrong, y_true.shape={labels.shape}){hint}"
            )

    def _hint(self, labels: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
        return ""

    def _fused(self, place: Device, labels: Array, y_pred: Array) -> tuple[Any, Array] | None:
        # The value and the gradient from the kernels of a device, where they have them.
        return None

    def _divisor(self, labels: Array, losses: Array) -> Any:
        return max(losses.size, 1) if self._is_mean else 1

    @property
    def _is_mean(self) -> bool:
        return self.reduction in ("sum_over_batch_size", "mean")

    def _reduced(self, place: Device, losses: Array, weights: Array | None, divisor: Any) -> Any:
        if weights is not None:
            losses = losses * weights
        if self.reduction in (None, "none"):
            return losses
        return number(place, losses.sum(dtype=np.float64) / divisor)


# ---- differences ---------------------------------------------------------------------------------------------------------


class MeanSquaredError(Loss):
    """Mean of the squared differences, ``mean((y_true - y_pred) ** 2)``.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.MeanSquaredError()(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0]]))
        0.5
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        difference = y_pred - y_true
        return (difference * difference).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        return (y_pred - y_true) * (2 / y_pred.shape[-1])


class MeanAbsoluteError(Loss):
    """Mean of the absolute differences, ``mean(|y_true - y_pred|)``; where there is none, the gradient is 0.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.MeanAbsoluteError()(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[3.0, 1.0], [-1.0, 0.0]]))
        1.0
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        return abs(y_pred - y_true).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        return _xp(y_pred).sign(y_pred - y_true) * (1 / y_pred.shape[-1])


class MeanAbsolutePercentageError(Loss):
    """Mean of the differences in percent of the labels, ``100 * mean(|y_true - y_pred| / max(|y_true|, 1e-7))``.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.MeanAbsolutePercentageError()(np.array([[4.0]]), np.array([[5.0]]))
        25.0
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        return 100 * abs((y_pred - y_true) / _xp(y_pred).maximum(abs(y_true), EPSILON)).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        xp = _xp(y_pred)
        return xp.sign(y_pred - y_true) / xp.maximum(abs(y_true), EPSILON) * (100 / y_pred.shape[-1])


class Huber(Loss):
    """Squares of small differences, absolute values of large ones.

    ``e ** 2 / 2`` where ``|e| <= delta``, else ``delta * |e| - delta ** 2 / 2``, with ``e = y_pred - y_true``; the mean of
    these (Huber 1964).

    Args:
        delta: Where small ends, more than 0.
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Raises:
        TypeError, ValueError: ``delta`` is no finite number more than 0.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.Huber()(np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]]))
        1.5
    """

    def __init__(
        self, delta: float = 1.0, reduction: str | None = "sum_over_batch_size", name: str | None = "huber_loss"
    ) -> None:
        super().__init__(reduction, name)
        self.delta = positive(type(self).__name__, "delta", delta)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        size, delta = abs(y_pred - y_true), self.delta
        return _xp(y_pred).where(size <= delta, size * size / 2, delta * size - delta * delta / 2).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        return _xp(y_pred).clip(y_pred - y_true, -self.delta, self.delta) * (1 / y_pred.shape[-1])


class LogCosh(Loss):
    """Mean of ``log(cosh(y_pred - y_true))``: as half the square for small differences, as the absolute value for large ones.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Notes:
        Keras loses small differences to rounding, this does not.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> round(xpconv.losses.LogCosh()(np.array([[0.0, 0.0]]), np.array([[1.0, 1000.0]])), 6)
        499.870317
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        xp = _xp(y_pred)
        size = abs(y_pred - y_true)
        near = xp.sinh(xp.minimum(size, 1) / 2)
        far = size + xp.log1p(xp.exp(-2 * size)) - math.log(2)
        return xp.where(size < 1, xp.log1p(2 * near * near), far).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        return _xp(y_pred).tanh(y_pred - y_true) * (1 / y_pred.shape[-1])


class Poisson(Loss):
    """Mean of ``y_pred - y_true * log(y_pred + 1e-7)``, for counts.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.Poisson()(np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]]))
        2.0
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        return (y_pred - y_true * _xp(y_pred).log(y_pred + EPSILON)).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        return (1 - y_true / (y_pred + EPSILON)) * (1 / y_pred.shape[-1])

    def _examine(self, labels: np.ndarray[Any, Any]) -> None:
        self._refuse(labels, ~((labels >= 0) & np.isfinite(labels)), "counts, at least 0")


class Hinge(Loss):
    """Mean of ``max(1 - y_true * y_pred, 0)``.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Notes:
        Labels are -1 and 1, or 0 and 1, where 0 stands for -1. Keras also takes other numbers.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.Hinge()(np.array([[0, 1]]), np.array([[0.5, 0.5]]))
        1.0
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        return _xp(y_pred).maximum(1 - _signs(y_true) * y_pred, 0).mean(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        xp, signs = _xp(y_pred), _signs(y_true)
        slope = xp.where(signs * y_pred > 1, 0, -signs) * (1 / y_pred.shape[-1])
        return xp.where(xp.isnan(y_pred), y_pred, slope)

    def _examine(self, labels: np.ndarray[Any, Any]) -> None:
        zero, minus = labels == 0, labels == -1
        self._refuse(labels, ~(zero | minus | (labels == 1)), "-1 and 1, or 0 and 1")
        if minus.any():
            self._refuse(labels, zero, "-1 and 1, or 0 and 1, but not both -1 and 0")


# ---- probabilities -------------------------------------------------------------------------------------------------------


class KLDivergence(Loss):
    """Sum of ``y_true * log(y_true / y_pred)``, both first brought to 1e-7 to 1.

    Args:
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.KLDivergence()(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]))
        0.0
    """

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        xp = _xp(y_pred)
        labels = xp.clip(y_true, EPSILON, 1)
        return (labels * xp.log(labels / xp.clip(y_pred, EPSILON, 1))).sum(axis=-1)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        xp = _xp(y_pred)
        return xp.where(_is_outside(y_pred, EPSILON, 1), 0, -xp.clip(y_true, EPSILON, 1) / y_pred)

    def _examine(self, labels: np.ndarray[Any, Any]) -> None:
        self._refuse(labels, ~((labels >= 0) & (labels <= 1)), "probabilities from 0 to 1")


class BinaryCrossentropy(Loss):
    """Cross-entropy of yes or no: mean of ``-(y * log(p) + (1 - y) * log(1 - p))``.

    Args:
        from_logits: Whether predictions are scores, of which ``p = sigmoid(score)``; else they are p, and are first brought
            to 1e-7 to 1 - 1e-7.
        label_smoothing: How far labels are moved towards 1/2, 0 to 1.
        axis: The axis that the mean is taken of.
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Raises:
        ValueError: A ``label_smoothing`` that is not from 0 to 1.
        TypeError: A ``from_logits`` that is not True or False, a ``label_smoothing`` that is no number, an ``axis`` that is no
            integer.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> loss = xpconv.losses.BinaryCrossentropy()
        >>> round(loss(np.array([[0], [1]]), np.array([[0.5], [0.5]])), 6)  # log(2)
        0.693147
        >>> xpconv.losses.BinaryCrossentropy(from_logits=True)(np.array([[0], [1]]), np.array([[1000.0], [1000.0]]))
        500.0
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        op = type(self).__name__
        self.from_logits = boolean(op, "from_logits", from_logits)
        self.label_smoothing = fraction_or_one(op, "label_smoothing", label_smoothing)
        self.axis = integer(op, "axis", axis)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        xp = _xp(y_pred)
        labels = self._smoothed(y_true)
        if self.from_logits:
            size = abs(y_pred)
            # How much of the other answer the labels have: 0 * infinity counts nothing.
            share = xp.where(y_pred < 0, labels, 1 - labels)
            return (xp.log1p(xp.exp(-size)) + xp.where(share > 0, share * size, 0)).mean(axis=self.axis)
        p = xp.clip(y_pred, EPSILON, 1 - EPSILON)
        return -(labels * xp.log(p) + (1 - labels) * xp.log(1 - p)).mean(axis=self.axis)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        xp = _xp(y_pred)
        labels = self._smoothed(y_true)
        part = 1 / y_pred.shape[self.axis]
        if self.from_logits:
            small = xp.exp(-abs(y_pred))
            return (xp.where(y_pred < 0, small, 1) / (1 + small) - labels) * part
        p = xp.clip(y_pred, EPSILON, 1 - EPSILON)
        return xp.where(_is_outside(y_pred, EPSILON, 1 - EPSILON), 0, ((1 - labels) / (1 - p) - labels / p) * part)

    def before_activation(self, name: str) -> Loss | None:
        """The twin of ``from_logits=True`` for what a sigmoid was given."""
        return _on_scores(self) if name == "sigmoid" and not self.from_logits else None

    def _smoothed(self, labels: Array) -> Array:
        return labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing if self.label_smoothing else labels

    def _examine(self, labels: np.ndarray[Any, Any]) -> None:
        hint = "; for the numbers of more than two classes use sparse_categorical_crossentropy"
        self._refuse(labels, ~((labels >= 0) & (labels <= 1)), "numbers from 0 to 1", hint)

    def _hint(self, labels: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
        if len(shape) == len(labels) + 1 and _fits(labels, shape[:-1]):
            return "; for class numbers use sparse_categorical_crossentropy, or to_categorical(y_true) as labels"
        return ""


class _SoftmaxLoss(Loss):
    """What the two cross-entropies of several classes share: all that starts from scores."""

    from_logits: bool

    def _rows(self, y_true: Array, y_pred: Array) -> Array:
        # Labels as probabilities, of the shape and dtype of y_pred.
        raise NotImplementedError

    def _kernel_labels(self, y_true: Array, y_pred: Array) -> Array | None:
        # Labels as the kernels take them; None if they don't.
        raise NotImplementedError

    def before_activation(self, name: str) -> Loss | None:
        """The twin of ``from_logits=True`` for what a softmax was given."""
        return _on_scores(self) if name == "softmax" and not self.from_logits and self.axis == -1 else None

    def _fused(self, place: Device, labels: Array, y_pred: Array) -> tuple[Any, Array] | None:
        if not (self.from_logits and self._is_mean and y_pred.ndim == 2 and y_pred.shape[0] and self.axis in (-1, 1)):
            return None
        kernel_labels = self._kernel_labels(labels, y_pred)
        if kernel_labels is None:
            return None
        value, y = place.kernels.softmax_cross_entropy_forward(y_pred, kernel_labels)
        return number(place, value), place.kernels.softmax_cross_entropy_backward(y, kernel_labels, 1.0)

    def _scores_losses(self, rows: Array, scores: Array) -> Array:
        xp = _xp(scores)
        below = scores - scores.max(axis=self.axis, keepdims=True)
        logarithms = xp.log(xp.exp(below).sum(axis=self.axis, keepdims=True))
        # 0 * infinity counts nothing: an impossible class that no label asks for.
        return xp.where(rows > 0, rows * (logarithms - below), 0).sum(axis=self.axis)

    def _scores_gradient(self, rows: Array, scores: Array) -> Array:
        y = _xp(scores).exp(scores - scores.max(axis=self.axis, keepdims=True))
        return y * (rows.sum(axis=self.axis, keepdims=True) / y.sum(axis=self.axis, keepdims=True)) - rows

    def _class_axis(self, shape: tuple[int | None, ...]) -> int:
        axis = _axis_of(self, shape)
        if shape[axis] == 1:
            raise ValueError(
                f"{self.name}: needs the probabilities of at least two classes, got y_pred.shape={shape} with 1 along axis "
                f"{self.axis}; use binary_crossentropy for yes or no"
            )
        return axis


class CategoricalCrossentropy(_SoftmaxLoss):
    """Cross-entropy of classes, with labels as rows of probabilities (one-hot, or soft): ``-sum(y * log(p))``.

    Args:
        from_logits: Whether predictions are scores, of which ``p = softmax(score)``, computed through log-sum-exp; else they
            are p: they are divided by their sum and brought to 1e-7 to 1 - 1e-7.
        label_smoothing: How much of each label is shared among all classes evenly, 0 to 1.
        axis: The axis of the classes.
        reduction: As for :class:`Loss`.
        name: As for :class:`Loss`.

    Raises:
        ValueError: A ``label_smoothing`` that is not from 0 to 1.
        TypeError: A ``from_logits`` that is not True or False, a ``label_smoothing`` that is no number, an ``axis`` that is no
            integer.

    Notes:
        Rows of labels must sum to 1, which Keras doesn't ask for, and there must be two classes at least, for fewer of which
        Keras warns.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> loss = xpconv.losses.CategoricalCrossentropy()
        >>> round(loss(np.array([[0, 1], [1, 0]]), np.array([[0.5, 0.5], [0.5, 0.5]])), 6)  # log(2)
        0.693147
        >>> loss(np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]]))
        Traceback (most recent call last):
        ValueError: categorical_crossentropy: y_true and y_pred must have the same shape, got y_true.shape=(2,) and \
y_pred.shape=(2, 2); for class numbers use sparse_categorical_crossentropy, or to_categorical(y_true, 2) as labels
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        op = type(self).__name__
        self.from_logits = boolean(op, "from_logits", from_logits)
        self.label_smoothing = fraction_or_one(op, "label_smoothing", label_smoothing)
        self.axis = integer(op, "axis", axis)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        rows = self._rows(y_true, y_pred)
        if self.from_logits:
            return self._scores_losses(rows, y_pred)
        xp = _xp(y_pred)
        p = xp.clip(y_pred / y_pred.sum(axis=self.axis, keepdims=True), EPSILON, 1 - EPSILON)
        return -(rows * xp.log(p)).sum(axis=self.axis)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        rows = self._rows(y_true, y_pred)
        if self.from_logits:
            return self._scores_gradient(rows, y_pred)
        sums = y_pred.sum(axis=self.axis, keepdims=True)
        p = y_pred / sums
        dp = _xp(y_pred).where(_is_outside(p, EPSILON, 1 - EPSILON), 0, -rows / p)
        return (dp - (dp * p).sum(axis=self.axis, keepdims=True)) / sums

    def check(self, y_true: Array, y_pred_shape: tuple[int | None, ...], values: bool = True) -> Array:
        """Check that labels are rows of probabilities; see :meth:`Loss.check`."""
        self._class_axis(tuple(y_pred_shape))
        return super().check(y_true, y_pred_shape, values)

    def _rows(self, y_true: Array, y_pred: Array) -> Array:
        if not self.label_smoothing:
            return y_true
        return y_true * (1 - self.label_smoothing) + self.label_smoothing / y_pred.shape[self.axis]

    def _kernel_labels(self, y_true: Array, y_pred: Array) -> Array | None:
        return self._rows(y_true, y_pred)

    def _examine(self, labels: np.ndarray[Any, Any]) -> None:
        rows = labels if is_floating(labels.dtype) else labels.astype(np.float32)
        with np.errstate(all="ignore"):
            sums = rows.sum(axis=self.axis)
        wrong = ~((rows.min(axis=self.axis) >= 0) & (abs(sums - 1) <= ROW_SUM_TOLERANCE))
        hint = "; if several classes can be right at once, use binary_crossentropy"
        self._refuse(np.moveaxis(labels, self.axis, -1), wrong, f"along axis {self.axis} probabilities that sum to 1", hint)

    def _hint(self, labels: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
        axis = _axis_of(self, shape)
        bare = (*shape[:axis], *shape[axis + 1 :])
        if _fits(labels, bare) or _fits(labels, (*shape[:axis], 1, *shape[axis + 1 :])):
            rows = f"to_categorical(y_true, {shape[axis]})"
            return f"; for class numbers use sparse_categorical_crossentropy, or {rows} as labels"
        return ""


class SparseCategoricalCrossentropy(_SoftmaxLoss):
    """Cross-entropy of classes, with class numbers as labels: ``-log(p[label])``.

    Args:
        from_logits: Whether predictions are scores, of which ``p = softmax(score)``, computed through log-sum-exp; else they
            are p: they are brought to 1e-7 to 1 - 1e-7 and divided by their sum.
        ignore_class: A label that says nothing: such a sample counts neither in the loss nor in its mean. None: there is none.
        reduction: As for :class:`Loss`.
        axis: The axis of the classes, which the labels have not.
        name: As for :class:`Loss`.

    Raises:
        TypeError: A ``from_logits`` that is not True or False, an ``ignore_class`` or ``axis`` that is no integer.

    Notes:
        On TensorFlow, Keras knows the last axis only.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> loss = xpconv.losses.SparseCategoricalCrossentropy()
        >>> round(loss(np.array([1, 0]), np.array([[0.5, 0.5], [0.5, 0.5]])), 6)  # log(2)
        0.693147
        >>> loss(np.array([1, 2]), np.array([[0.5, 0.5], [0.5, 0.5]]))
        Traceback (most recent call last):
        ValueError: sparse_categorical_crossentropy: y_true must hold whole numbers from 0 to 1, got y_true[1] = 2 \
(1 of 2 are wrong, y_true.shape=(2,))
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        op = type(self).__name__
        self.from_logits = boolean(op, "from_logits", from_logits)
        self.ignore_class = None if ignore_class is None else integer(op, "ignore_class", ignore_class)
        self.axis = integer(op, "axis", axis)

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """Losses of the samples."""
        xp = _xp(y_pred)
        rows = self._rows(y_true, y_pred)
        if self.from_logits:
            losses = self._scores_losses(rows, y_pred)
        else:
            p = xp.clip(y_pred, EPSILON, 1 - EPSILON)
            losses = xp.log(p.sum(axis=self.axis)) - (rows * xp.log(p)).sum(axis=self.axis)
        # Labels on a card that nobody has looked at may name no class; that has no loss.
        losses = xp.where((y_true >= 0) & (y_true < y_pred.shape[self.axis]), losses, math.nan)
        return losses if self.ignore_class is None else xp.where(y_true == self.ignore_class, 0, losses)

    def gradient(self, y_true: Array, y_pred: Array) -> Array:
        """Derivative of each sample's loss."""
        xp = _xp(y_pred)
        rows = self._rows(y_true, y_pred)
        if self.from_logits:
            dy = self._scores_gradient(rows, y_pred)
        else:
            p = xp.clip(y_pred, EPSILON, 1 - EPSILON)
            dy = 1 / p.sum(axis=self.axis, keepdims=True) - rows / p
            dy = xp.where(_is_outside(y_pred, EPSILON, 1 - EPSILON), 0, dy)
        return dy if self.ignore_class is None else xp.where(xp.expand_dims(y_true == self.ignore_class, self.axis), 0, dy)

    def check(self, y_true: Array, y_pred_shape: tuple[int | None, ...], values: bool = True) -> Array:
        """Check that labels are class numbers, of the predictions' shape without the axis of the classes, or 1 there.

        Returns:
            int64, without the axis of the classes. See :meth:`Loss.check`.
        """
        labels = real_array(self.name, "y_true", y_true)
        shape = tuple(y_pred_shape)
        axis = self._class_axis(shape)
        bare = (*shape[:axis], *shape[axis + 1 :])
        if _fits(labels.shape, (*shape[:axis], 1, *shape[axis + 1 :])):
            labels = labels.reshape(labels.shape[:axis] + labels.shape[axis + 1 :])
        elif not _fits(labels.shape, bare):
            hint = ""
            if _fits(labels.shape, shape):
                hint = f"; for rows of probabilities use categorical_crossentropy, or class numbers y_true.argmax({self.axis})"
            raise ValueError(
                f"{self.name}: y_true must hold class numbers and have the shape of y_pred without axis {self.axis}, got "
                f"y_true.shape={np.shape(y_true)} and y_pred.shape={shape}{hint}"
            )
        classes = shape[axis]
        if values and classes is not None:
            self._examine_numbers(to_numpy(labels), classes)
        return labels.astype(np.int64, copy=False)

    def _examine_numbers(self, labels: np.ndarray[Any, Any], classes: int) -> None:
        with np.errstate(invalid="ignore"):
            wrong = ~((labels >= 0) & (labels < classes) & (np.floor(labels) == labels))
        ignored = ""
        if self.ignore_class is not None:
            wrong &= labels != self.ignore_class
            ignored = f", or {self.ignore_class} to be ignored"
        self._refuse(labels, wrong, f"whole numbers from 0 to {classes - 1}{ignored}")

    def _label_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return np.dtype(np.int64)

    def _aligned(self, labels: Array, y_pred: Array) -> tuple[Array, Array]:
        axis = _axis_of(self, y_pred.shape)
        if labels.shape != y_pred.shape[:axis] + y_pred.shape[axis + 1 :]:
            raise self._other_samples(labels, y_pred)
        return labels, y_pred

    def _rows(self, y_true: Array, y_pred: Array) -> Array:
        xp = _xp(y_pred)
        axis = _axis_of(self, y_pred.shape)
        classes = xp.arange(y_pred.shape[axis]).reshape((-1,) + (1,) * (y_pred.ndim - 1 - axis))
        return (xp.expand_dims(y_true, axis) == classes).astype(y_pred.dtype)

    def _kernel_labels(self, y_true: Array, y_pred: Array) -> Array | None:
        return y_true if self.ignore_class is None else None

    def _divisor(self, labels: Array, losses: Array) -> Any:
        if self.ignore_class is None or not self._is_mean:
            return super()._divisor(labels, losses)
        return _xp(labels).maximum((labels != self.ignore_class).sum(), 1)


# ---- functions -----------------------------------------------------------------------------------------------------------


def mean_squared_error(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`MeanSquaredError`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.mean_squared_error(np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 3.0]]))
        array([1., 5.])
    """
    return MeanSquaredError().values(y_true, y_pred)


def mean_absolute_error(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`MeanAbsoluteError`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.mean_absolute_error(np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 3.0]]))
        array([1., 2.])
    """
    return MeanAbsoluteError().values(y_true, y_pred)


def mean_absolute_percentage_error(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`MeanAbsolutePercentageError`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.mean_absolute_percentage_error(np.array([[4.0, 2.0]]), np.array([[5.0, 2.0]]))
        array([12.5])
    """
    return MeanAbsolutePercentageError().values(y_true, y_pred)


def huber(y_true: Array, y_pred: Array, delta: float = 1.0) -> Array:
    """Losses of the samples of :class:`Huber`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.huber(np.array([[0.0], [0.0]]), np.array([[1.0], [3.0]]))
        array([0.5, 2.5])
    """
    return Huber(delta).values(y_true, y_pred)


def log_cosh(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`LogCosh`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.log_cosh(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0]]))
        array([0.])
    """
    return LogCosh().values(y_true, y_pred)


def poisson(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`Poisson`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.poisson(np.array([[0, 0]]), np.array([[1.0, 3.0]]))
        array([2.])
    """
    return Poisson().values(y_true, y_pred)


def hinge(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`Hinge`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.hinge(np.array([[-1], [1]]), np.array([[0.5], [0.5]]))
        array([1.5, 0.5])
    """
    return Hinge().values(y_true, y_pred)


def kl_divergence(y_true: Array, y_pred: Array) -> Array:
    """Losses of the samples of :class:`KLDivergence`, the shape of ``y_pred`` without its last axis.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.kl_divergence(np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]))
        array([0.])
    """
    return KLDivergence().values(y_true, y_pred)


def binary_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Losses of the samples of :class:`BinaryCrossentropy`, the shape of ``y_pred`` without ``axis``.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.binary_crossentropy(np.array([[0], [1]]), np.array([[800.0], [800.0]]), from_logits=True)
        array([800.,   0.])
    """
    return BinaryCrossentropy(from_logits, label_smoothing, axis).values(y_true, y_pred)


def categorical_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Array:
    """Losses of the samples of :class:`CategoricalCrossentropy`, the shape of ``y_pred`` without ``axis``.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.categorical_crossentropy(np.array([[0, 1]]), np.array([[500.0, 0.0]]), from_logits=True)
        array([500.])
    """
    return CategoricalCrossentropy(from_logits, label_smoothing, axis).values(y_true, y_pred)


def sparse_categorical_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Array:
    """Losses of the samples of :class:`SparseCategoricalCrossentropy`, the shape of ``y_pred`` without ``axis``.

    Example:
        >>> import numpy as np, xpconv.losses
        >>> xpconv.losses.sparse_categorical_crossentropy(np.array([1]), np.array([[500.0, 0.0]]), from_logits=True)
        array([500.])
    """
    return SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis).values(y_true, y_pred)


# The losses that Keras' functions stand for.
OF_FUNCTION: dict[Callable[..., Array], type[Loss]] = {
    mean_squared_error: MeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
    mean_absolute_percentage_error: MeanAbsolutePercentageError,
    huber: Huber,
    log_cosh: LogCosh,
    poisson: Poisson,
    hinge: Hinge,
    kl_divergence: KLDivergence,
    binary_crossentropy: BinaryCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
}
_BY_CLASS_NAME: dict[str, type[Loss]] = {cls.__name__: cls for cls in OF_FUNCTION.values()}
_SHORT: dict[str, type[Loss]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "kld": KLDivergence,
    "bce": BinaryCrossentropy,
}
_BY_NAME: dict[str, type[Loss]] = {
    **{function.__name__: cls for function, cls in OF_FUNCTION.items()},
    **_BY_CLASS_NAME,
    **_SHORT,
    **{name.upper(): cls for name, cls in _SHORT.items()},
}


def get(identifier: Any, op: str = "losses.get") -> Loss | None:
    """Find the loss that something stands for.

    Args:
        identifier: A name (``"mse"``, ``"mean_squared_error"``, ``"MeanSquaredError"`` ...), one of the functions of this
            module, a :class:`Loss`, a class of one, a dictionary of ``"class_name"`` and ``"config"``, or None.
        op: Name of the public function, for messages.

    Returns:
        The loss; None for None.

    Raises:
        ValueError: There is no loss of this name.
        TypeError: Something else; a function, too, since nothing could differentiate it.

    Example:
        >>> import xpconv.losses
        >>> xpconv.losses.get("mse").name
        'mean_squared_error'
        >>> xpconv.losses.get({"class_name": "Huber", "config": {"delta": 2.0}}).delta
        2.0
    """
    if identifier is None:
        return None
    if callable(identifier) and not isinstance(identifier, (Loss, type)):
        known = of_function(identifier)
        if known is not None:
            return known()
        name = getattr(identifier, "__name__", repr(identifier))
        raise TypeError(
            f"{op}: loss is {name!r}, and nothing differentiates a plain function; derive a class from xpconv.losses.Loss with "
            "call, its formula, and gradient, the formula's derivative"
        )
    expected = "a name such as 'mse', a Loss or a dictionary"
    return found(op, "loss", identifier, Loss, _BY_CLASS_NAME, expected, by_name=_BY_NAME)


# ---- shared with the metrics ---------------------------------------------------------------------------------------------


def of_function(function: Any) -> type[Loss] | None:
    """The loss that a function stands for, or None; it may be something that no dictionary takes as a key."""
    return next((cls for known, cls in OF_FUNCTION.items() if known is function), None)


def predictions(op: str, y_pred: Array) -> tuple[Device, Array]:
    """The device that a loss or a metric computes on, that of the run under way or of the array, and the predictions there.

    Args:
        op: Name of the loss or metric, for messages.
        y_pred: Predictions.

    Returns:
        The device, and floats, C-contiguous.
    """
    run = current_run()
    as_layers_make_them = run is not None and type(y_pred) is run.device.xp.ndarray and y_pred.flags.c_contiguous
    if run is not None and as_layers_make_them and y_pred.dtype in FLOAT_DTYPES:
        return run.device, y_pred
    place, (array,) = float_arrays(op, None if run is None else run.device, y_pred=y_pred)
    return place, array


def same_rank(y_true: Array, shape: tuple[int | None, ...]) -> tuple[Array, tuple[int | None, ...]]:
    """Bring labels and the shape of predictions to the same number of axes where that of one is 1 more, and is 1 at the end.

    As Keras does: of the two, the one of a single axis gets the other's 1; otherwise the 1 is dropped.
    """
    if y_true.ndim == len(shape) + 1 and y_true.shape[-1] == 1:
        return (y_true, (*shape, 1)) if len(shape) == 1 else (y_true[..., 0], shape)
    if len(shape) == y_true.ndim + 1 and shape[-1] == 1:
        return (y_true[:, None], shape) if y_true.ndim == 1 else (y_true, shape[:-1])
    return y_true, shape


def broadcast_weights(op: str, sample_weight: Array, shape: tuple[int, ...], place: Device, dtype: Any) -> Array:
    """Weights as an array that goes with values of a shape: no axes, or as many, each of the same size or 1.

    Args:
        op: Name of the loss or metric, for messages.
        sample_weight: A number, or weights along the first axes of the values; one axis of size 1 may follow.
        shape: Shape of the values.
        place: Where to.
        dtype: The dtype to convert to.

    Raises:
        TypeError: No array of real numbers.
        ValueError: Weights that do not go with the shape.
    """
    given = real_array(op, "sample_weight", sample_weight)
    weights = asarray(given, device=place, dtype=dtype)
    if weights.ndim == len(shape) + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if weights.ndim and weights.ndim < len(shape):
        weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    if weights.ndim and not (
        weights.ndim == len(shape) and all(size in (1, of_values) for size, of_values in zip(weights.shape, shape, strict=True))
    ):
        hint = "" if shape else "; predictions of one axis are a single sample, make them (N, 1)"
        raise ValueError(
            f"{op}: sample_weight must have the shape of the samples' values, {shape}, or of its first axes, "
            f"got sample_weight.shape={given.shape}{hint}"
        )
    return weights


def _weights_or_none(op: str, sample_weight: Array | None, losses: Array, place: Device) -> Array | None:
    return None if sample_weight is None else broadcast_weights(op, sample_weight, losses.shape, place, losses.dtype)


# ---- helpers -------------------------------------------------------------------------------------------------------------


def _xp(array: Array) -> Any:
    return np if card_of(array) is None else sys.modules["cupy"]


def _signs(labels: Array) -> Array:
    return _xp(labels).where(labels == 0, -1, labels)


def _is_outside(p: Array, low: float, high: float) -> Array:
    # Where clipping has no slope; NaN is not outside, and stays NaN.
    return (p < low) | (p > high)


def _on_scores(loss: Any) -> Loss:
    twin: Loss = copy.copy(loss)
    twin.from_logits = True  # type: ignore[attr-defined]
    return twin


def _fits(labels: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(labels) == len(shape) and all(size in (None, found) for size, found in zip(shape, labels, strict=True))


def _axis_of(loss: Loss, shape: tuple[int | None, ...]) -> int:
    if not -len(shape) <= loss.axis < len(shape):
        raise ValueError(f"{loss.name}: y_pred has no axis {loss.axis}, its shape is {shape}")
    return loss.axis % len(shape)
