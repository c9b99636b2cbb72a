"""What losses and accuracies accept as labels: class numbers or one row of probabilities a sample, told apart by shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpconv.arrays import CheckedArrays, aligned, as_array, is_floating, is_real
from xpconv.device import asarray, card_of, to_numpy
from xpconv.geometry import integer

# How far the probabilities of a row may be from summing to one.
ROW_SUM_TOLERANCE = 1e-3

# Labels on a card that were checked on the host, for so many classes.
_checked = CheckedArrays()


def is_distribution(t: Any, classes: int) -> bool:
    """Whether labels are rows of probabilities, one-hot or soft; a single column is taken for class numbers."""
    return t.ndim == 2 and t.shape[1] == classes and classes > 1


def note_checked(labels: Any, classes: int) -> None:
    """Remember that labels on a card, in a form that :func:`check_labels` gave, are good for this number of classes."""
    _checked.note(labels, classes)


def check_labels(op: str, t: Any, samples: int, classes: int) -> Any:
    """Check labels and bring them to one of two forms.

    Labels on a card are brought to the host for that, unless they were noted (:func:`note_checked`); those stay there.

    Args:
        op: Name of the public function, for messages.
        t: Class numbers, (N,) or (N, 1), or rows of probabilities, (N, classes).
        samples: N.
        classes: Number of classes.

    Returns:
        int64 (N,) class numbers, or float (N, classes) rows.

    Raises:
        TypeError: Not an array of numbers.
        ValueError: Another shape; a class number that is no integer, negative or too large; a row that is no distribution.

    Example:
        >>> from xpconv.labels import check_labels
        >>> check_labels("loss", [[2], [0]], samples=2, classes=3)
        array([2, 0])
    """
    if card_of(t) is not None and _checked.purpose(t) == classes and t.shape[0] == samples:
        return t
    labels = to_numpy(as_array(op, "t", t))
    if not is_real(labels.dtype):
        raise TypeError(f"{op}: labels must be numbers, got dtype {labels.dtype}")
    if is_distribution(labels, classes):
        return _checked_rows(op, labels, samples)
    if labels.shape not in ((samples,), (samples, 1)):
        raise ValueError(
            f"{op}: labels must have the shape ({samples},), ({samples}, 1) or ({samples}, {classes}) "
            f"for {samples} samples and {classes} classes, got {labels.shape}"
        )
    labels = labels.reshape(samples)
    with np.errstate(invalid="ignore"):
        numbers = labels.astype(np.int64)
    wrong = np.flatnonzero((numbers != labels) | (numbers < 0) | (numbers >= classes))
    if wrong.size:
        first = int(wrong[0])
        raise ValueError(
            f"{op}: labels must be whole numbers from 0 to {classes - 1}, got {labels[first]} at sample {first} "
            f"({wrong.size} of {samples} are wrong)"
        )
    return numbers


def class_indices(op: str, t: Any, samples: int, classes: int) -> Any:
    """Check labels and return the class of each sample, the likeliest one where ``t`` holds probabilities.

    Args:
        op: Name of the public function, for messages.
        t: As for :func:`check_labels`.
        samples: N.
        classes: Number of classes.

    Returns:
        int64 (N,).

    Raises:
        TypeError, ValueError: As :func:`check_labels`.

    Example:
        >>> from xpconv.labels import class_indices
        >>> class_indices("accuracy", [[0, 0, 1], [1, 0, 0]], samples=2, classes=3)
        array([2, 0])
    """
    labels = check_labels(op, t, samples, classes)
    return labels if labels.ndim == 1 else labels.argmax(axis=1)


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Turn class numbers into rows with a one at the class and zeros elsewhere, as ``keras.utils.to_categorical`` does.

    Args:
        x: Class numbers, whole and at least 0, of any shape; a last axis of size 1 is dropped.
        num_classes: Length of the rows; None takes the largest number plus 1.

    Returns:
        float64, the shape of ``x`` followed by ``num_classes``; on the card of ``x``, if it is on one.

    Raises:
        TypeError: Not an array of numbers, or ``num_classes`` is no integer.
        ValueError: A number that is no class, or no numbers to take the largest of.

    Notes:
        Keras takes -1 for the last class and cuts off fractions; here both are errors.

    Example:
        >>> from xpconv.labels import to_categorical
        >>> to_categorical([0, 2], 3)
        array([[1., 0., 0.],
               [0., 0., 1.]])
    """
    given = as_array("to_categorical", "x", x)
    if not is_real(given.dtype):
        raise TypeError(f"to_categorical: x must hold class numbers, got dtype {given.dtype}")
    labels = to_numpy(given)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if num_classes is None:
        if not labels.size:
            raise ValueError(f"to_categorical: x holds no class numbers (x.shape={labels.shape}); tell num_classes")
        largest = labels.max()
        classes = int(largest) + 1 if np.isfinite(largest) else 1
    else:
        classes = integer("to_categorical", "num_classes", num_classes, 1)
    wrong = ~((labels >= 0) & (labels < classes) & (np.floor(labels) == labels))
    if wrong.any():
        first = tuple(int(at) for at in np.unravel_index(int(wrong.argmax()), wrong.shape))
        raise ValueError(
            f"to_categorical: x must hold whole numbers, at least 0 and less than num_classes={num_classes}, got "
            f"{labels[first]} at {list(first)} ({np.count_nonzero(wrong)} of {wrong.size} are wrong)"
        )
    rows = np.zeros((labels.size, classes))
    rows[np.arange(labels.size), labels.reshape(-1).astype(np.int64)] = 1
    rows = rows.reshape(*labels.shape, classes)
    card = card_of(given)
    return rows if card is None else asarray(rows, device=card)


def _checked_rows(op: str, labels: np.ndarray[Any, Any], samples: int) -> np.ndarray[Any, Any]:
    if labels.shape[0] != samples:
        raise ValueError(f"{op}: there are {samples} samples but {labels.shape[0]} rows of labels (t.shape={labels.shape})")
    rows = aligned(labels) if is_floating(labels.dtype) else labels.astype(np.float32)
    with np.errstate(invalid="ignore"):
        sums = rows.sum(axis=1)
    wrong = np.flatnonzero(~((rows >= 0).all(axis=1) & (abs(sums - 1) <= ROW_SUM_TOLERANCE)))
    if wrong.size:
        first = int(wrong[0])
        raise ValueError(
            f"{op}: each row of labels must hold probabilities that sum to 1, got {labels[first].tolist()} at sample {first} "
            f"({wrong.size} of {samples} are wrong)"
        )
    return rows
