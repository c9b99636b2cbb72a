"""Arguments that are a number or a yes or no, checked in one place, and in the words of the caller.

Those that are integers, sizes or positions are checked by :mod:`xpconv.geometry`, those that are names by :mod:`xpconv.naming`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def number(op: str, name: str, value: Any) -> float:
    """A number as a float; it may be infinite, or NaN.

    Args:
        op: Name of the public function or class, for messages; here and below.
        name: Name of the argument.
        value: What was given for it.

    Raises:
        TypeError: It is none. The functions below raise this too, and a ValueError for a number that is out of range.

    Example:
        >>> from xpconv.arguments import number
        >>> number("L2", "l2", "0.1")
        Traceback (most recent call last):
        TypeError: L2: l2 must be a number, got '0.1'
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    return float(value)


def finite(op: str, name: str, value: Any) -> float:
    """A number that is neither infinite nor NaN."""
    if not math.isfinite(number(op, name, value)):
        raise ValueError(f"{op}: {name} must be finite, got {value!r}")
    return float(value)


def positive(op: str, name: str, value: Any) -> float:
    """A finite number above zero."""
    if not 0 < number(op, name, value) < math.inf:
        raise ValueError(f"{op}: {name} must be a positive number, got {value!r}")
    return float(value)


def not_negative(op: str, name: str, value: Any) -> float:
    """A finite number that is zero or more."""
    if not 0 <= number(op, name, value) < math.inf:
        raise ValueError(f"{op}: {name} must be at least 0 and finite, got {value!r}")
    return float(value)


def fraction(op: str, name: str, value: Any) -> float:
    """A number from 0 up to 1, and not 1 itself."""
    if not 0 <= number(op, name, value) < 1:
        raise ValueError(f"{op}: {name} must be at least 0 and less than 1, got {value!r}")
    return float(value)


def fraction_or_one(op: str, name: str, value: Any) -> float:
    """A number from 0 to 1."""
    if not 0 <= number(op, name, value) <= 1:
        raise ValueError(f"{op}: {name} must be from 0 to 1, got {value!r}")
    return float(value)


def boolean(op: str, name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be True or False, got {value!r}")
    return bool(value)
