"""What can be given to ``fit``, ``evaluate`` and ``predict``, cut into batches.

Arrays stay where they are, in memory or in a file (``np.memmap``): a batch is read when its turn comes. Everything else
gives its batches by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpconv.arrays import is_real
from xpconv.device import asarray, card_of, on_its_card, to_numpy
from xpconv.geometry import integer
from xpconv.labels import class_indices
from xpconv.layers.layer import flat, in_structure

Array = Any

BATCH_SIZE = 32


class Batch(NamedTuple):
    """Samples, labels and weights of one batch; labels and weights may be None."""

    x: Any
    y: Any
    sample_weight: Any


class ArrayBatches:
    """Batches of arrays that are all there.

    Args:
        op: Name of the public function, for messages.
        x: An array, or a list or dictionary of arrays, with the samples along the first axis.
        y: Labels, or None.
        sample_weight: One weight a sample, or None.
        batch_size: Samples in a batch; the last one may have fewer.
        order: Makes the order of an epoch: a permutation of so many. None leaves the samples as they stand.

    Attributes:
        samples: Number of samples.
        steps: Number of batches in an epoch.
    """

    def __init__(
        self,
        op: str,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        order: Callable[[int], Any] | None = None,
    ) -> None:
        self.op = op
        self.x = in_structure(lambda array: _indexable(op, "x", array), x)
        self.y = None if y is None else _indexable(op, "y", y)
        self.sample_weight = None if sample_weight is None else _indexable(op, "sample_weight", sample_weight)
        self.batch_size = BATCH_SIZE if batch_size is None else integer(op, "batch_size", batch_size, 1)
        self.order = order
        arrays = flat(self.x)
        named = [("x" if len(arrays) == 1 else f"x[{position}]", array) for position, array in enumerate(arrays)]
        named += [("y", self.y)] * (y is not None) + [("sample_weight", self.sample_weight)] * (sample_weight is not None)
        if not arrays:
            raise ValueError(f"{op}: x holds no array, got {x!r}")
        if len({len(array) for _, array in named}) != 1:
            sizes = ", ".join(f"{len(array)} in {name}" for name, array in named)
            raise ValueError(f"{op}: all arrays must have as many samples, got {sizes}")
        self.samples = len(arrays[0])
        if self.samples == 0:
            raise ValueError(f"{op}: x has no samples (x.shape={tuple(arrays[0].shape)})")
        self.steps = -(-self.samples // self.batch_size)
        self._are_checked = False

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
        order = None if self.order is None else self.order(self.samples)
        for first in range(0, self.samples, self.batch_size):
            chosen: Any = slice(first, first + self.batch_size)
            if order is not None:
                chosen = order[chosen]
            yield Batch(
                in_structure(functools.partial(_part, chosen=chosen), self.x),
                None if self.y is None else _part(self.y, chosen),
                None if self.sample_weight is None else _part(self.sample_weight, chosen),
            )

    def split(self, share: float, batch_size: int | None) -> tuple[ArrayBatches, ArrayBatches]:
        """All but the last samples; and the last ones, this share of all, in batches of this size, or of the same."""
        at = math.floor(self.samples * (1 - share))
        if not 0 < at < self.samples:
            raise ValueError(
                f"{self.op}: validation_split={share} of {self.samples} samples leaves none "
                f"{'to learn from' if at <= 0 else 'for validation'}"
            )
        parts = (slice(None, at), slice(at, None))
        learnt, held = (
            ArrayBatches(
                self.op,
                in_structure(functools.partial(_part, chosen=part), self.x),
                None if self.y is None else self.y[part],
                None if self.sample_weight is None else self.sample_weight[part],
                batch_size=self.batch_size if part is parts[0] or batch_size is None else batch_size,
                order=self.order if part is parts[0] else None,
            )
            for part in parts
        )
        return learnt, held

    def check_labels(self, check: Callable[[Any], Any]) -> bool:
        """Check all labels at once, and take them in the form that the check gives; not those that are in a file.

        Returns:
            Whether they have been checked.
        """
        if self.y is None or isinstance(self.y, np.memmap) or not (isinstance(self.y, np.ndarray) or card_of(self.y)):
            return False
        if not self._are_checked:
            self.y, self._are_checked = check(self.y), True
        return True


class GivenBatches:
    """Batches that something else makes: a generator, a loader that can be gone through again, a sequence of batches.

    Args:
        op: Name of the public function, for messages.
        batches: What makes them. Each is x, or a tuple (x, y) or (x, y, sample_weight).
        steps: Batches in an epoch; None takes as many as there are. (Of a generator without an end, there is no end.)
        order: Makes the order of an epoch for a sequence, as for :class:`ArrayBatches`.

    Attributes:
        steps: Number of batches in an epoch; None as long as nobody knows.
    """

    def __init__(self, op: str, batches: Any, *, steps: int | None = None, order: Callable[[int], Any] | None = None) -> None:
        self.op, self.batches, self.order = op, batches, order
        known = len(batches) if hasattr(batches, "__len__") else None
        self.steps: int | None = known if steps is None else integer(op, "steps", steps, 1)
        self._under_way: Iterator[Any] | None = None
        self._limited = steps is not None

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one epoch."""
        if self._under_way is None or not self._limited:
            self._under_way = self._begun()
        count = 0
        while not self._limited or count < (self.steps or 0):
            try:
                given = next(self._under_way)
            except StopIteration:
                break
            count += 1
            yield self._batch(given)
        if self._limited and count < (self.steps or 0) and not isinstance(self.batches, Iterator):
            self._under_way = None  # the next epoch begins from the first batch again
        if count == 0:
            raise ValueError(f"{self.op}: {type(self.batches).__name__} has no more batches; a generator can be used once only")
        if not self._limited:
            self.steps = count
            self._under_way = None

    def _begun(self) -> Iterator[Any]:
        if hasattr(self.batches, "__getitem__") and hasattr(self.batches, "__len__"):
            order = range(len(self.batches)) if self.order is None else self.order(len(self.batches))
            return (self.batches[int(position)] for position in order)
        return iter(self.batches)

    def _batch(self, given: Any) -> Batch:
        parts = given if isinstance(given, tuple) else (given,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"{self.op}: a batch must be x, (x, y) or (x, y, sample_weight), got a tuple of {len(parts)} entries"
            )
        x, y, sample_weight = (*parts, None, None)[:3]
        x = in_structure(lambda array: _indexable(self.op, "x of a batch", array), x)
        return Batch(
            x,
            None if y is None else _indexable(self.op, "y of a batch", y),
            None if sample_weight is None else _indexable(self.op, "sample_weight of a batch", sample_weight),
        )

    def check_labels(self, check: Callable[[Any], Any]) -> bool:
        """These are checked batch by batch, unless they are those of arrays."""
        return isinstance(self.batches, _Endless) and self.batches.batches.check_labels(check)


def batches_of(
    op: str,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    order: Callable[[int], Any] | None = None,
) -> ArrayBatches | GivenBatches:
    """Tell what was given, and cut it into batches.

    Raises:
        ValueError: Arrays of different lengths, or none; labels beside a generator, which has its own.
        TypeError: Nothing that could be cut into batches.
    """
    if x is None:
        raise ValueError(f"{op}: x is None; it must be an array or something that gives batches")
    is_structure = isinstance(x, (list, tuple, dict))
    if is_structure or hasattr(x, "shape"):
        found = ArrayBatches(op, x, y, sample_weight, batch_size=batch_size, order=order)
        return found if steps is None else GivenBatches(op, _Endless(found), steps=steps)
    if not (hasattr(x, "__iter__") or hasattr(x, "__getitem__")):
        raise TypeError(f"{op}: x must be an array, a list of arrays or give batches, got {type(x).__name__}")
    for name, value in (("y", y), ("sample_weight", sample_weight), ("batch_size", batch_size)):
        if value is not None:
            raise ValueError(f"{op}: {name} must not be given beside {type(x).__name__}, whose batches have their own")
    return GivenBatches(op, x, steps=steps, order=order)


def weights_of_classes(op: str, y: Any, class_weight: Mapping[int, float], classes: int) -> NDArray[Any]:
    """Weight of each sample, by the class of its label.

    Args:
        op: Name of the public function, for messages.
        y: Labels: class numbers, or one row a sample.
        class_weight: Weight by class; a class that is left out has 1.
        classes: Number of classes; 1 for two classes told by one number.

    Raises:
        ValueError: A key that is no class, or labels that are none.
    """
    classes = max(classes, 2)
    wrong = [key for key in class_weight if not 0 <= integer(op, "class_weight", key, 0) < classes]
    if wrong:
        raise ValueError(f"{op}: class_weight has the keys {wrong}, and there are {classes} classes, 0 to {classes - 1}")
    table = np.ones(classes)
    for key, weight in class_weight.items():
        table[key] = float(weight)
    labels = to_numpy(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return np.asarray(table[class_indices(op, labels, len(labels), classes)])


class _Endless:
    """The epochs of some arrays, one after the other."""

    def __init__(self, batches: ArrayBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while True:
            yield from map(tuple, self.batches)


def _indexable(op: str, name: str, value: Any) -> Any:
    if isinstance(value, (list, tuple, int, float, np.generic)):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{op}: {name} is not a regular array of numbers: {error}") from None
    if not hasattr(value, "shape") or not hasattr(value, "__getitem__") or not hasattr(value, "dtype"):
        raise TypeError(f"{op}: {name} must be an array of NumPy or CuPy, got {type(value).__name__}")
    if not is_real(value.dtype):
        raise TypeError(f"{op}: {name} must hold real numbers, got dtype {value.dtype}")
    if len(value.shape) == 0:
        raise ValueError(f"{op}: {name} must have an axis of samples, got a single number")
    return value


@on_its_card
def _part(array: Any, chosen: Any) -> Any:
    card = card_of(array)
    return array[chosen if card is None or isinstance(chosen, slice) else asarray(chosen, device=card)]
