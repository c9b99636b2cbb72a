"""How an object is told and made again: by its class' name and the arguments that it was made with, as Keras does.

Activations, initializers, regularizers, losses, metrics, schedules: an argument that takes one takes a name, a configuration
``{"class_name": ..., "config": ...}``, a class or an object, and :func:`found` makes an object of any of these.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from xpconv.naming import resolve

T = TypeVar("T")


class Described:
    """An object that tells what it was made with: it keeps each argument of ``__init__`` as an attribute of its name."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such an object again, by name.

        Raises:
            NotImplementedError: An argument was not kept as an attribute of its name; override this method then.
        """
        return constructor_arguments(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object of what :meth:`get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        return as_call(self, self.get_config())


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


def as_call(made: Any, arguments: Mapping[str, Any]) -> str:
    """The call that makes an object of these arguments, as text."""
    return f"{type(made).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"


def described(made: Any) -> dict[str, Any]:
    """The configuration that :func:`found` makes such an object of, in values that JSON has."""
    return {"class_name": type(made).__name__, "config": plain(made.get_config())}


def found(
    op: str,
    argument: str,
    identifier: Any,
    base: type[Any],
    known: Mapping[str, type[T]],
    expected: str,
    by_name: Mapping[str, Callable[[], T]] | None = None,
) -> T:
    """Find the object that a name, a configuration, a class or an object stands for.

    Args:
        op: Name of the public function or class, for messages.
        argument: Name of the argument that it was given for.
        identifier: A name; a mapping with ``"class_name"`` and, unless all defaults are meant, ``"config"``; a class derived
            from ``base``; or an object of one.
        base: What all such objects are derived from.
        known: Classes by the names that configurations have for them.
        expected: What the argument takes, for messages.
        by_name: What makes an object by a name alone, if that differs from ``known``.

    Raises:
        ValueError: An unknown name, whose nearest ones the text tells, or a configuration without a name.
        TypeError: None of these.

    Example:
        >>> from xpconv.configuration import found
        >>> from xpconv.regularizers import L2, Regularizer
        >>> found("Dense", "kernel_regularizer", {"class_name": "L2", "config": {"l2": 0.5}}, Regularizer, {"L2": L2}, "a name")
        L2(l2=0.5)
    """
    made: T
    if isinstance(identifier, base):
        made = identifier
        return made
    if isinstance(identifier, str):
        names: Mapping[str, Callable[[], T]] = known if by_name is None else by_name
        return resolve(op, argument, identifier, names)()
    if isinstance(identifier, Mapping):
        config = identifier.get("config") or {}
        if "class_name" not in identifier or not isinstance(config, Mapping):
            raise ValueError(f"{op}: {argument} must have 'class_name' and 'config', got {dict(identifier)!r}")
        cls: Any = resolve(op, argument, identifier["class_name"], known)
        made = cls.from_config(config)
        return made
    if isinstance(identifier, type) and issubclass(identifier, base):
        made = identifier()
        return made
    raise TypeError(f"{op}: {argument} must be {expected}, got {identifier!r}")


def plain(value: Any, *, name_functions: bool = False) -> Any:
    """Turn an argument into values that JSON has.

    Args:
        value: The argument.
        name_functions: Whether a function may be told by its name. Only some names lead back to a function, such as those of
            :mod:`xpconv.losses`.

    Raises:
        TypeError: It is nothing that can be written down.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(value).name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [plain(entry, name_functions=name_functions) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): plain(entry, name_functions=name_functions) for key, entry in value.items()}
    if callable(getattr(value, "get_config", None)):
        return {"class_name": value.__name__, "config": {}} if isinstance(value, type) else described(value)
    if name_functions and callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if isinstance(value, np.ndarray):
        hint = f"an array, here of shape {value.shape}; for an initializer, give xpconv.initializers.Constant(array)"
    elif callable(value):
        hint = f"the function {value!r}; instead, derive a class (from xpconv.initializers.Initializer, for an initializer)"
    else:
        hint = f"{value!r}, which has no get_config"
    raise TypeError(f"a configuration cannot hold {hint}")


def plain_arguments(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments in values that JSON has, as :func:`plain` makes them; the error tells which one cannot be."""
    made = {}
    for name, value in arguments.items():
        try:
            made[name] = plain(value)
        except TypeError as error:
            raise TypeError(f"{op}: {name}: {error}") from None
    return made
