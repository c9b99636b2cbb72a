"""The arguments that optimizers and schedules are made with: checked, and told again."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import numpy as np


def number(op: str, name: str, value: Any) -> float:
    """A number as a float; it may be infinite, or NaN.

    Raises:
        TypeError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}")
    return float(value)


def positive(op: str, name: str, value: Any) -> float:
    """A finite number above zero."""
    if not 0 < number(op, name, value) < math.inf:
        raise ValueError(f"{op}: {name} must be a positive number, got {value!r}")
    return float(value)


def not_negative(op: str, name: str, value: Any) -> float:
    """A finite number that is zero or more."""
    if not 0 <= number(op, name, value) < math.inf:
        raise ValueError(f"{op}: {name} must be a number of at least 0, got {value!r}")
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


def constructor_arguments(made: Any) -> dict[str, Any]:
    """What an object was made with, by name, as it stands now: it has an attribute of the name of each argument.

    Raises:
        NotImplementedError: It has not, and must tell by a ``get_config`` of its own.
    """
    cls: Any = type(made)
    try:
        return {name: getattr(made, name) for name in argument_names(cls)}
    except AttributeError as error:
        raise NotImplementedError(
            f"{cls.__name__}: keep each argument of __init__ as an attribute of its name, or override get_config ({error})"
        ) from None


@functools.cache
def argument_names(cls: Any) -> tuple[str, ...]:
    """The names of the arguments that a class is made with."""
    return tuple(inspect.signature(cls).parameters)
