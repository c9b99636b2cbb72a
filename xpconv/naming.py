"""Names: those that stand for something (``activation="relu"``), and those that layers are given (``conv2d_1``)."""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_given: Counter[str] = Counter()


def resolve(op: str, argument: str, name: object, known: Mapping[str, T]) -> T:
    """Find what a name stands for.

    Args:
        op: Name of the public function or class, for messages.
        argument: Name of the argument that the name was given for.
        name: The name.
        known: What there is, by name.

    Raises:
        ValueError: There is nothing of this name; the text tells the nearest ones.
        TypeError: ``name`` is no str.

    Example:
        >>> from xpconv.naming import resolve
        >>> resolve("Dense", "activation", "rellu", {"relu": max, "tanh": min})
        Traceback (most recent call last):
        ValueError: Dense: activation 'rellu' is unknown; did you mean 'relu'? Known are 'relu', 'tanh'
    """
    if not isinstance(name, str):
        raise TypeError(f"{op}: {argument} must be a name such as {next(iter(known))!r}, got {name!r}")
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.lower(), {key.lower(): None for key in known}, n=3, cutoff=0.6)
    meant = [key for key in known if key.lower() in near]
    hint = f"did you mean {' or '.join(map(repr, meant))}? " if meant else ""
    raise ValueError(f"{op}: {argument} {name!r} is unknown; {hint}Known are {', '.join(map(repr, sorted(known)))}")


def resolve_word(op: str, argument: str, word: object, *known: str) -> str:
    """Return the word of those known that ``word`` is, in whatever case; errors are those of :func:`resolve`.

    Example:
        >>> from xpconv.naming import resolve_word
        >>> resolve_word("Conv2D", "padding", "SAME", "valid", "same")
        'same'
    """
    return resolve(op, argument, word.lower() if isinstance(word, str) else word, {name: name for name in known})


@functools.cache
def snake_case(name: str) -> str:
    """A class' name as Keras makes a layer's name of it.

    Example:
        >>> from xpconv.naming import snake_case
        >>> snake_case("Conv2D"), snake_case("MaxPooling2D"), snake_case("BatchNormalization")
        ('conv2d', 'max_pooling2d', 'batch_normalization')
    """
    words = re.sub(r"\W+", "", name)
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", words)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()


def unique_name(prefix: str) -> str:
    """``prefix`` at first, then ``prefix_1``, ``prefix_2`` and so on."""
    count = _given[prefix]
    _given[prefix] += 1
    return f"{prefix}_{count}" if count else prefix


def reset_names() -> None:
    """Count the names of layers and models from the beginning again, as in a new program.

    Example:
        >>> import xpconv as xc
        >>> xc.reset_names()
        >>> xc.layers.Dense(1).name, xc.layers.Dense(1).name
        ('dense', 'dense_1')
    """
    _given.clear()
