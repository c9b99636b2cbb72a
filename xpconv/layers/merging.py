"""Layers that make one array of several: sums, products, maxima, and laying them side by side."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv.arrays import float_arrays
from xpconv.device import Device
from xpconv.geometry import integer
from xpconv.layers.layer import Array, Layer, Shape
from xpconv.layers.tape import Run


class _Merging(Layer):
    """What all layers of several inputs share.

    Integers stay integers where all inputs are; together with floats they become floats of the layer's dtype.
    """

    keeps_integers = True
    least_inputs = 1
    #: Kinds of dtypes that are computed in as they are; others become floats.
    kept_kinds = "iu"

    def compute(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`Layer.compute`."""
        shapes = [tuple(x.shape) for x in inputs]
        if len(set(shapes)) > 1:
            self.compute_output_shape(shapes)
        if len(inputs) == 1:
            return inputs[0], None
        arrays = self._of_one_dtype(inputs, run)
        y, saved = self.merge(arrays, run)
        return y, (shapes, saved) if run.remember else None

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[list[Array], list[Array]]:
        """See :meth:`Layer.differentiate`."""
        if saved is None:  # one input, which is the output
            return [dy], []
        shapes, of_merge = saved
        return self.shares(of_merge, dy, shapes, run), []

    def merge(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """Make one array of two at least, all of one dtype; and what :meth:`shares` will need."""
        raise NotImplementedError

    def shares(self, saved: Any, dy: Array, shapes: list[tuple[int, ...]], run: Run) -> list[Array]:
        """The gradients of the inputs, of these shapes, from that of the output."""
        raise NotImplementedError

    def _of_one_dtype(self, inputs: list[Array], run: Run) -> list[Array]:
        common = np.result_type(*(x.dtype for x in inputs))
        if common.kind not in self.kept_kinds:
            common = self.compute_dtype(run)
            if any(x.dtype.kind in "iu" for x in inputs):
                named = {f"inputs[{position}]": x for position, x in enumerate(inputs)}
                inputs = list(float_arrays(self.title, run.device, **named)[1])
        return [x.astype(common, copy=False) for x in inputs]


class _Elementwise(_Merging):
    """Element by element, after broadcasting: axes of length 1 are stretched, and missing axes stand behind the batch's."""

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: the shape that the inputs are broadcast to."""
        shapes = _shapes_of_inputs(input_shape)
        batches = {shape[0] for shape in shapes} - {None}
        if len(batches) > 1:
            raise ValueError(f"all inputs must have the same batch size, got the shapes {_listed(shapes)}")
        sizes = shapes[0][1:]
        for shape in shapes[1:]:
            merged = _broadcast(sizes, shape[1:])
            if merged is None:
                others = [earlier for earlier in shapes if _broadcast(earlier[1:], shape[1:]) is None]
                raise ValueError(
                    f"the shapes {others[0]} and {shape} do not fit together: behind the batch, sizes must be equal or 1"
                )
            sizes = merged
        return (batches.pop() if batches else None, *sizes)

    def merge(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Merging.merge`."""
        if len({x.ndim for x in inputs}) > 1:
            ndim = max(x.ndim for x in inputs)
            inputs = [x.reshape(_stretched(x.shape, ndim)) for x in inputs]
        return self.combine(inputs, run)

    def shares(self, saved: Any, dy: Array, shapes: list[tuple[int, ...]], run: Run) -> list[Array]:
        """See :meth:`_Merging.shares`."""
        gradients = self.broadcast_shares(saved, dy, len(shapes), run)
        return [_summed_to(gradient, shape) for gradient, shape in zip(gradients, shapes, strict=True)]

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """The result of inputs of equally many axes; and what :meth:`broadcast_shares` will need."""
        raise NotImplementedError

    def broadcast_shares(self, saved: Any, dy: Array, count: int, run: Run) -> list[Array]:
        """The gradients of the inputs, as if all had the shape of the output."""
        raise NotImplementedError


class Add(_Elementwise):
    """Sum of the inputs.

    Args:
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of arrays, an array of the shape that they are broadcast to. Their batch sizes must be equal;
        behind the batch, axes of length 1 are stretched, and an array of fewer axes is given some behind the batch's. Integers
        stay integers where all inputs are, and become floats together with floats.

    Raises:
        ValueError: No list, shapes that do not fit together, or integers that the floats beside them cannot hold.

    Notes:
        Differences from Keras on TensorFlow: booleans are taken, as floats.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Add()([np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]]), np.array([[100.0]])])
        array([[111., 122.]], dtype=float32)
    """

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Elementwise.combine`."""
        return functools.reduce(operator.add, inputs), None

    def broadcast_shares(self, saved: Any, dy: Array, count: int, run: Run) -> list[Array]:
        """See :meth:`_Elementwise.broadcast_shares`."""
        return [dy] * count


class Subtract(_Elementwise):
    """The first of two inputs less the second.

    Args:
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of two arrays, their difference; shapes and dtypes as :class:`Add`.

    Raises:
        ValueError: Not two inputs; and as :class:`Add`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Subtract()([np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])])
        array([[ -9., -18.]], dtype=float32)
    """

    least_inputs = 2

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: the shape that the inputs are broadcast to."""
        shape = super().compute_output_shape(input_shape)
        if len(input_shape) != 2:
            raise ValueError(f"there must be exactly 2 inputs, got {len(input_shape)}")
        return shape

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Elementwise.combine`."""
        if len(inputs) != 2:
            raise ValueError(f"there must be exactly 2 inputs, got {len(inputs)}")
        return inputs[0] - inputs[1], None

    def broadcast_shares(self, saved: Any, dy: Array, count: int, run: Run) -> list[Array]:
        """See :meth:`_Elementwise.broadcast_shares`."""
        return [dy, -dy]


class Multiply(_Elementwise):
    """Product of the inputs.

    Args:
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of arrays, their product; shapes and dtypes as :class:`Add`.

    Raises:
        ValueError: As :class:`Add`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Multiply()([np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])])
        array([[10., 40.]], dtype=float32)
    """

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Elementwise.combine`."""
        return functools.reduce(operator.mul, inputs), inputs

    def broadcast_shares(self, saved: Any, dy: Array, count: int, run: Run) -> list[Array]:
        """See :meth:`_Elementwise.broadcast_shares`."""
        factors = [x.astype(dy.dtype, copy=False) for x in saved]
        # Products of all before, and of all after: without a division, which a zero would spoil.
        before = list(itertools.accumulate(factors[:-1], operator.mul, initial=dy))
        after = list(itertools.accumulate(reversed(factors[1:]), operator.mul))[::-1]
        return [*(first * last for first, last in zip(before[:-1], after, strict=True)), before[-1]]


class Average(_Elementwise):
    """Mean of the inputs.

    Args:
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of arrays, their mean; shapes as :class:`Add`. Integers become floats.

    Raises:
        ValueError: As :class:`Add`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Average()([np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])])
        array([[ 5.5, 11. ]], dtype=float32)
    """

    keeps_integers = False

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Elementwise.combine`."""
        total = functools.reduce(operator.add, inputs)
        total /= len(inputs)
        return total, None

    def broadcast_shares(self, saved: Any, dy: Array, count: int, run: Run) -> list[Array]:
        """See :meth:`_Elementwise.broadcast_shares`."""
        return [dy / count] * count


class _Extremum(_Elementwise):
    """The largest or the smallest of the inputs."""

    kept_kinds = "biu"

    def broadcast_shares(self, saved: Any, dy: Array, count: int, run: Run) -> list[Array]:
        """See :meth:`_Elementwise.broadcast_shares`: all of it to the first of those that are equal, NaN to NaN."""
        inputs, y = saved
        xp, nothing = run.device.xp, dy.dtype.type(0)
        is_nan = y != y
        free, gradients = xp.ones(y.shape, bool), []
        for x in inputs:
            won = ((x == y) | (is_nan & (x != x))) & free
            free &= ~won
            gradients.append(xp.where(won, dy, nothing))
        return gradients


class Maximum(_Extremum):
    """The largest of the inputs, element by element.

    Args:
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of arrays, their maximum; shapes and dtypes as :class:`Add`, and booleans stay booleans. NaN
        wins. The gradient goes to the first of those that are equal.

    Raises:
        ValueError: As :class:`Add`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Maximum()([np.array([[1.0, 20.0]]), np.array([[10.0, 2.0]])])
        array([[10., 20.]], dtype=float32)
    """

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Elementwise.combine`."""
        y = functools.reduce(run.device.xp.maximum, inputs)
        return y, (inputs, y)


class Minimum(_Extremum):
    """The smallest of the inputs, element by element.

    Args:
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of arrays, their minimum; all else as :class:`Maximum`.

    Raises:
        ValueError: As :class:`Add`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Minimum()([np.array([[1.0, 20.0]]), np.array([[10.0, 2.0]])])
        array([[1., 2.]], dtype=float32)
    """

    def combine(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Elementwise.combine`."""
        y = functools.reduce(run.device.xp.minimum, inputs)
        return y, (inputs, y)


class Concatenate(_Merging):
    """The inputs side by side.

    Args:
        axis: The axis along which they follow each other; -1 puts the channels of ``channels_last`` images together.
        name: Name of the layer; None makes one.
        dtype: float32 or float64; None takes the model's.
        trainable: Has no effect, there are no weights.
        device: Where to compute; None follows the model, or the inputs.

    Returns:
        When called with a list of arrays, one array; its size along the axis is the sum of theirs. Integers and booleans stay
        what they are where all inputs are, and become floats together with floats.

    Raises:
        ValueError: No list, an axis that the inputs do not have, or sizes that differ along another axis.
        TypeError: ``axis`` is no integer.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> xc.layers.Concatenate()([np.array([[1.0, 2.0]]), np.array([[10.0]])])
        array([[ 1.,  2., 10.]], dtype=float32)
    """

    kept_kinds = "biu"

    def __init__(
        self,
        axis: int = -1,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        self.axis = integer(type(self).__name__, "axis", axis)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """See :meth:`Layer.compute_output_shape`: the sum of the sizes along the axis."""
        shapes = _shapes_of_inputs(input_shape)
        ndim = len(shapes[0])
        if any(len(shape) != ndim for shape in shapes):
            raise ValueError(f"all inputs must have equally many axes, got the shapes {_listed(shapes)}")
        if not -ndim <= self.axis < ndim:
            raise ValueError(f"axis={self.axis} is not there in inputs of {ndim} axes, of the shapes {_listed(shapes)}")
        result: list[int | None] = []
        for position, sizes in enumerate(zip(*shapes, strict=True)):
            known = [size for size in sizes if size is not None]
            if position == self.axis % ndim:
                result.append(sum(known) if len(known) == len(sizes) else None)
                continue
            if len(set(known)) > 1:
                raise ValueError(
                    f"all inputs must have the same sizes but along axis={self.axis}, got the shapes {_listed(shapes)}"
                )
            result.append(known[0] if known else None)
        return tuple(result)

    def merge(self, inputs: list[Array], run: Run) -> tuple[Array, Any]:
        """See :meth:`_Merging.merge`."""
        return run.device.xp.concatenate(inputs, axis=self.axis), None

    def shares(self, saved: Any, dy: Array, shapes: list[tuple[int, ...]], run: Run) -> list[Array]:
        """See :meth:`_Merging.shares`."""
        ends = list(itertools.accumulate(shape[self.axis] for shape in shapes))
        before = (slice(None),) * (self.axis % dy.ndim)
        return [
            run.device.xp.ascontiguousarray(dy[(*before, slice(start, end))]) for start, end in itertools.pairwise([0, *ends])
        ]


def _shapes_of_inputs(input_shape: Any) -> list[Shape]:
    if not isinstance(input_shape, (list, tuple)) or not all(isinstance(shape, (list, tuple)) for shape in input_shape):
        raise ValueError(f"it takes a list of inputs, not one of shape {input_shape}")
    if not input_shape:
        raise ValueError("there must be at least one input, got none")
    shapes = [tuple(shape) for shape in input_shape]
    if not all(shapes):
        raise ValueError(f"every input must have an axis for the batch, got the shapes {_listed(shapes)}")
    return shapes


def _listed(shapes: list[Shape]) -> str:
    return " and ".join(map(str, shapes))


def _broadcast(sizes: Shape, others: Shape) -> Shape | None:
    # The sizes that both are stretched to, aligned at the end; None where they do not fit.
    if len(sizes) < len(others):
        sizes, others = others, sizes
    start = len(sizes) - len(others)
    result = list(sizes[:start])
    for size, other in zip(sizes[start:], others, strict=True):
        if size is not None and other is not None and size != other and 1 not in (size, other):
            return None
        result.append(None if None in (size, other) else other if size == 1 else size)
    return tuple(result)


def _stretched(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return (shape[0], *(1,) * (ndim - len(shape)), *shape[1:])


def _summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    # What was stretched is given the sum of the gradients of all its copies.
    if gradient.shape == shape:
        return gradient
    stretched = _stretched(shape, gradient.ndim)
    axes = tuple(axis for axis, size in enumerate(stretched) if size == 1 != gradient.shape[axis])
    return gradient.sum(axis=axes, keepdims=True).reshape(shape)
