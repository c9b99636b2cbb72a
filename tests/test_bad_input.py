"""Every mistake that a caller can make: the class of the error, and a text that names the function and the values."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpconv as xc


class Mistake(NamedTuple):
    """A call that must be refused.

    Attributes:
        function: Name of the public function; the text of the error starts with it.
        arguments: Positional arguments.
        options: Keyword arguments.
        error: The class of the error.
        says: What its text must hold, in any order: words, and the values seen.
    """

    function: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    error: type[Exception]
    says: tuple[str, ...]


def wrong(function: str, *arguments: Any, error: type[Exception] = ValueError, says: Any, **options: Any) -> Any:
    """A mistake as a pytest parameter."""
    texts = (says,) if isinstance(says, str) else tuple(says)
    name = f"{function}: {', '.join(texts)}".encode("ascii", "replace").decode()
    return pytest.param(Mistake(function, arguments, options, error, texts), id=name)


def array(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


# Right arguments, that each line below spoils in one way.
X = array(2, 3, 6, 7)
W = array(4, 3, 3, 2)
DY = array(2, 4, 4, 6)
POOLED = array(2, 3, 3, 3)
INDICES = np.broadcast_to(np.array([[0, 2, 4], [14, 16, 18], [28, 30, 32]]), POOLED.shape)  # each window's first pixel


# The values that no argument of integers takes, whatever it is called.
def wrong_integers(function: str, *arguments: Any, name: str, minimum: int, pair: bool, **options: Any) -> list[Any]:
    """Every way to spoil an integer, or a pair of them."""
    below = minimum - 1
    mistakes: list[tuple[Any, type[Exception], tuple[str, ...]]] = [
        (below, ValueError, (name, str(below))),
        (-(10**30), ValueError, (name, str(-(10**30)))),
        (1.0, TypeError, (name, "1.0")),
        (np.nan, TypeError, (name, "nan")),
        (True, TypeError, (name, "True")),
        (np.True_, TypeError, (name, "np.True_")),
        ("2", TypeError, (name, "'2'")),
        (1j, TypeError, (name, "1j")),
        (np.float32(2), TypeError, (name, "2.0")),
        ({1: 1, 2: 2}, TypeError, (name, "{1: 1, 2: 2}")),
        (array(), TypeError, (name,)),
    ]
    if pair:
        mistakes += [
            ((1, below), ValueError, (name, str(below))),
            ((1, 2, 3), ValueError, (name, "(1, 2, 3)")),
            ((1,), ValueError, (name, "(1,)")),
            ((), ValueError, (name, "()")),
            ((1, 1.5), TypeError, (name, "1.5")),
            ((True, 1), TypeError, (name, "True")),
            ((1, None), TypeError, (name, "None")),
            ([1, "2"], TypeError, (name, "'2'")),
        ]
    else:
        mistakes += [((1, 1), TypeError, (name, "(1, 1)")), (None, TypeError, (name, "None"))]
    return [
        wrong(function, *arguments, **options, **{name: value}, error=error, says=texts) for value, error, texts in mistakes
    ]


def wrong_paddings(function: str, *arguments: Any, **options: Any) -> list[Any]:
    """Every way to spoil a padding."""
    mistakes: list[tuple[Any, type[Exception], str]] = [
        ("full", ValueError, "'full'"),
        ("SAME", ValueError, "'SAME'"),
        ("", ValueError, "''"),
        (b"same", TypeError, "b'same'"),
        (-1, ValueError, "-1"),
        ((0, -2), ValueError, "-2"),
        (((0, 1), (2, -3)), ValueError, "-3"),
        ((1, 2, 3), ValueError, "(1, 2, 3)"),
        ((1, 2, 3, 4), ValueError, "(1, 2, 3, 4)"),
        (((1, 2), 3), ValueError, "((1, 2), 3)"),
        (((1, 2),), ValueError, "((1, 2),)"),
        (((1, 2, 3), (4, 5, 6)), ValueError, "(1, 2, 3)"),
        (((1, 2), (3, 4), (5, 6)), ValueError, "((1, 2), (3, 4), (5, 6))"),
        (1.5, TypeError, "1.5"),
        ((1, 1.5), TypeError, "1.5"),
        (True, TypeError, "True"),
        (None, TypeError, "None"),
        ((None, 1), TypeError, "None"),
    ]
    return [
        wrong(function, *arguments, **options, padding=value, error=error, says=("padding", text))
        for value, error, text in mistakes
    ]


def wrong_arrays(function: str, before: tuple[Any, ...], good: Any, after: tuple[Any, ...], name: str) -> list[Any]:
    """Every way to spoil an array of floats: what is no array, and what is not made of real numbers."""
    mistakes: list[tuple[Any, type[Exception], tuple[str, ...]]] = [
        (None, TypeError, (name, "NoneType")),
        ("image", TypeError, (name, "str")),
        (good.tobytes(), TypeError, (name, "bytes")),
        ([["a", "b"], ["c", "d"]], TypeError, (name,)),
        ([[1.0, 2.0], [3.0]], TypeError, (name,)),
        ({"x": 1}, TypeError, (name, "dict")),
        (good.astype(np.complex64), TypeError, (name, "complex64")),
        (good.astype(np.complex128), TypeError, (name, "complex128")),
        (good.astype(np.longdouble), TypeError, (name, str(np.dtype(np.longdouble)))),
        (good.astype(object), TypeError, (name, "object")),
        (good.astype("U1"), TypeError, (name, "<U1")),
        (good.astype("S1"), TypeError, (name, "S1")),
        (np.zeros(good.shape, "M8[s]"), TypeError, (name, "datetime64")),
        (np.zeros(good.shape, "m8[s]"), TypeError, (name, "timedelta64")),
        (np.zeros(good.shape, [("re", "f4"), ("im", "f4")]), TypeError, (name,)),
    ]
    return [wrong(function, *before, value, *after, error=error, says=texts) for value, error, texts in mistakes]


MISTAKES: dict[str, list[Any]] = {
    "conv2d": [
        *wrong_arrays("conv2d", (), X, (W,), "x"),
        *wrong_arrays("conv2d", (X,), W, (), "w"),
        *wrong_arrays("conv2d", (X, W), array(4), (), "b")[1:],  # None is right
        wrong("conv2d", array(), W, says=("x", "()")),
        wrong("conv2d", array(6), W, says=("x", "(6,)")),
        wrong("conv2d", array(6, 7), W, says=("x", "(6, 7)")),
        wrong("conv2d", array(1, 2, 3, 6, 7), W, says=("x", "(1, 2, 3, 6, 7)")),
        wrong("conv2d", X, array(3, 3, 2), says=("w", "(3, 3, 2)")),
        wrong("conv2d", X, array(4, 3, 3, 2, 1), says=("w", "(4, 3, 3, 2, 1)")),
        wrong(
            "conv2d",
            array(8, 3, 28, 28),
            array(30, 4, 5, 5),
            says=("x has 3 channels", "w expects 4 per group", "x.shape=(8, 3, 28, 28)", "w.shape=(30, 4, 5, 5)", "groups=1"),
        ),
        wrong("conv2d", array(3, 6, 7), array(4, 2, 3, 3), says=("3 channels", "2 per group", "x.shape=(3, 6, 7)")),
        wrong(
            "conv2d",
            array(8, 28, 28, 3),
            array(5, 5, 4, 30),
            data_format="channels_last",
            says=("x has 3 channels", "w expects 4 per group", "(8, 28, 28, 3)", "(5, 5, 4, 30)"),
        ),
        wrong("conv2d", X, W, groups=3, says=("3 channels", "3 per group", "groups=3")),
        wrong("conv2d", array(2, 6, 6, 7), W, groups=4, says=("6 channels", "3 per group", "groups=4")),
        wrong("conv2d", array(2, 9, 6, 7), W, groups=3, says=("4 filters", "3 groups", "(4, 3, 3, 2)")),
        *wrong_integers("conv2d", X, W, name="groups", minimum=1, pair=False),
        *wrong_integers("conv2d", X, W, name="stride", minimum=1, pair=True),
        *wrong_integers("conv2d", X, W, name="dilation", minimum=1, pair=True),
        wrong("conv2d", X, W, stride=None, error=TypeError, says=("stride", "None")),
        wrong("conv2d", X, W, dilation=None, error=TypeError, says=("dilation", "None")),
        *wrong_paddings("conv2d", X, W),
        wrong("conv2d", X, array(4, 3, 7, 2), says=("(7, 2)", "(6, 7)", "(2, 3, 6, 7)")),
        wrong("conv2d", X, array(4, 3, 3, 10), padding=1, says=("(3, 10)", "(8, 9)")),
        wrong("conv2d", X, W, dilation=3, says=("(7, 4)", "(6, 7)", "dilation=(3, 3)")),
        wrong("conv2d", array(2, 3, 0, 7), W, says="(2, 3, 0, 7)"),
        wrong("conv2d", array(2, 3, 6, 0), W, padding=9, says="(2, 3, 6, 0)"),
        wrong("conv2d", array(2, 0, 6, 7), array(4, 0, 3, 2), says="(4, 0, 3, 2)"),
        wrong("conv2d", X, array(0, 3, 3, 2), says="(0, 3, 3, 2)"),
        wrong("conv2d", X, array(4, 3, 0, 2), says="(4, 3, 0, 2)"),
        wrong("conv2d", X, W, array(3), says=("b", "(3,)", "4")),
        wrong("conv2d", X, W, array(1), says=("b", "(1,)", "4")),
        wrong("conv2d", X, W, array(0), says=("b", "(0,)", "4")),
        wrong("conv2d", X, W, array(), says=("b", "()", "4")),
        wrong("conv2d", X, W, array(1, 4), says=("b", "(1, 4)")),
        wrong("conv2d", X, W, array(1, 4, 1, 1), says=("b", "(1, 4, 1, 1)")),
        wrong("conv2d", X, W, data_format="NCHW", says=("'NCHW'", "'channels_first'", "'channels_last'")),
        wrong("conv2d", X, W, data_format="", says=("data_format", "''")),
        wrong("conv2d", X, W, data_format=None, says=("data_format", "None")),
        wrong("conv2d", X, W, data_format=["channels_first"], says=("data_format", "['channels_first']")),
        wrong("conv2d", np.full((2, 3, 6, 7), 2**24 + 1), W, says=("x", "float32", "16777217")),
        wrong("conv2d", np.full((2, 3, 6, 7), -(2**24) - 1), W, says=("x", "float32", "-16777217")),
        wrong("conv2d", X, np.full((4, 3, 3, 2), 2**31 - 1), says=("w", "float32", "2147483647")),
        wrong("conv2d", X, W, np.full(4, 2**25 + 1, np.uint32), says=("b", "float32", "33554433")),
        wrong("conv2d", np.full((2, 3, 6, 7), 2**53 + 1), W.astype("f8"), says=("x", "float64", str(2**53 + 1))),
        wrong("conv2d", np.full((2, 3, 6, 7), 2**64 - 1, np.uint64), W.astype("f8"), says=("float64", str(2**64 - 1))),
    ],
    "conv2d_backward_input": [
        *wrong_arrays("conv2d_backward_input", (), DY, (W, X.shape), "dy"),
        *wrong_arrays("conv2d_backward_input", (DY,), W, (X.shape,), "w"),
        wrong("conv2d_backward_input", array(2, 4, 4, 5), W, X.shape, says=("dy", "(2, 4, 4, 5)", "(2, 4, 4, 6)")),
        wrong("conv2d_backward_input", array(2, 5, 4, 6), W, X.shape, says=("dy", "(2, 5, 4, 6)", "(2, 4, 4, 6)")),
        wrong("conv2d_backward_input", array(1, 4, 4, 6), W, X.shape, says=("dy", "(1, 4, 4, 6)", "(2, 4, 4, 6)")),
        wrong("conv2d_backward_input", DY, W, X.shape, stride=2, says=("dy", "(2, 4, 4, 6)", "(2, 4, 2, 3)")),
        wrong("conv2d_backward_input", array(4, 4, 6), W, X.shape, says=("dy", "(4, 4, 6)")),
        wrong("conv2d_backward_input", DY, W, (3, 6, 7), says=("dy", "(2, 4, 4, 6)", "(4, 4, 6)")),
        wrong("conv2d_backward_input", array(4, 6), W, (3, 6, 7), says=("dy", "(4, 6)")),
        wrong("conv2d_backward_input", DY, W, (6, 7), says=("input_shape", "(6, 7)")),
        wrong("conv2d_backward_input", DY, W, (2, 5, 6, 7), says=("5 channels", "3 per group", "(2, 5, 6, 7)")),
        wrong("conv2d_backward_input", DY, W, (-2, 3, 6, 7), says=("input_shape", "-2")),
        wrong("conv2d_backward_input", DY, W, (2, 3, 6.0, 7), error=TypeError, says=("input_shape", "6.0")),
        wrong("conv2d_backward_input", DY, W, (2, 3, None, 7), error=TypeError, says=("input_shape", "None")),
        wrong("conv2d_backward_input", DY, W, (True, 3, 6, 7), error=TypeError, says=("input_shape", "True")),
        wrong("conv2d_backward_input", DY, W, None, error=TypeError, says=("input_shape", "None")),
        wrong("conv2d_backward_input", DY, W, 6, error=TypeError, says=("input_shape", "6")),
        wrong("conv2d_backward_input", DY, W, "2367", error=TypeError, says=("input_shape", "'2367'")),
        wrong("conv2d_backward_input", DY, array(4, 3, 7, 2), X.shape, says=("(7, 2)", "(6, 7)")),
        wrong("conv2d_backward_input", DY, W, X.shape, stride=0, says=("stride", "0")),
        wrong("conv2d_backward_input", DY, W, X.shape, padding="full", says=("padding", "'full'")),
        wrong("conv2d_backward_input", DY, W, X.shape, dilation=-1, says=("dilation", "-1")),
        wrong("conv2d_backward_input", DY, W, X.shape, groups=2, says=("3 channels", "groups=2")),
        wrong("conv2d_backward_input", DY, W, X.shape, data_format="NHWC", says=("data_format", "'NHWC'")),
    ],
    "conv2d_backward_weight": [
        *wrong_arrays("conv2d_backward_weight", (), X, (DY, W.shape), "x"),
        *wrong_arrays("conv2d_backward_weight", (X,), DY, (W.shape,), "dy"),
        wrong("conv2d_backward_weight", X, array(2, 4, 4, 5), W.shape, says=("dy", "(2, 4, 4, 5)", "(2, 4, 4, 6)")),
        wrong("conv2d_backward_weight", X, array(3, 4, 4, 6), W.shape, says=("dy", "(3, 4, 4, 6)", "(2, 4, 4, 6)")),
        wrong("conv2d_backward_weight", X, array(4, 4, 6), W.shape, says=("dy", "(4, 4, 6)")),
        wrong("conv2d_backward_weight", X[0], DY, W.shape, says=("dy", "(2, 4, 4, 6)")),
        wrong("conv2d_backward_weight", X, DY, (5, 3, 3, 2), says=("dy", "(2, 4, 4, 6)", "(2, 5, 4, 6)")),
        wrong("conv2d_backward_weight", X, DY, (4, 3, 3), says=("weight_shape", "(4, 3, 3)")),
        wrong("conv2d_backward_weight", X, DY, (4, 2, 3, 2), says=("3 channels", "2 per group", "(4, 2, 3, 2)")),
        wrong("conv2d_backward_weight", X, DY, (4, 3, 0, 2), says=("weight_shape", "(4, 3, 0, 2)")),
        wrong("conv2d_backward_weight", X, DY, (4, 3, -3, 2), says=("weight_shape", "-3")),
        wrong("conv2d_backward_weight", X, DY, (4, 3, 3.0, 2), error=TypeError, says=("weight_shape", "3.0")),
        wrong("conv2d_backward_weight", X, DY, None, error=TypeError, says=("weight_shape", "None")),
        wrong("conv2d_backward_weight", X, DY, W.shape, stride=(1, 0), says=("stride", "0")),
        wrong("conv2d_backward_weight", X, DY, W.shape, groups=0, says=("groups", "0")),
        wrong("conv2d_backward_weight", X, DY, W.shape, padding=(0, -1), says=("padding", "-1")),
    ],
    "conv_transpose2d": [
        *wrong_arrays("conv_transpose2d", (), DY, (W,), "x"),
        *wrong_arrays("conv_transpose2d", (DY,), W, (), "w"),
        wrong("conv_transpose2d", array(4, 6), W, says=("x", "(4, 6)")),
        wrong("conv_transpose2d", DY, array(3, 3, 2), says=("w", "(3, 3, 2)")),
        wrong("conv_transpose2d", X, W, says=("3", "4", "(2, 3, 6, 7)", "(4, 3, 3, 2)")),
        wrong("conv_transpose2d", DY, W, groups=3, says=("4", "3", "(2, 4, 4, 6)", "(4, 3, 3, 2)")),
        wrong("conv_transpose2d", DY, W, array(4), says=("b", "(4,)", "3")),
        wrong("conv_transpose2d", DY, W, array(3), groups=2, says=("b", "(3,)", "6")),
        *wrong_integers("conv_transpose2d", DY, W, name="stride", minimum=1, pair=True),
        *wrong_integers("conv_transpose2d", DY, W, name="output_padding", minimum=0, pair=True),
        *wrong_integers("conv_transpose2d", DY, W, name="groups", minimum=1, pair=False),
        *wrong_paddings("conv_transpose2d", DY, W),
        wrong("conv_transpose2d", DY, W, output_padding=1, says=("output_padding", "(1, 1)", "stride=(1, 1)")),
        wrong("conv_transpose2d", DY, W, stride=(3, 2), output_padding=2, says=("(2, 2)", "(3, 2)")),
        wrong("conv_transpose2d", DY, W, padding=3, says=("(0, 1)", "(4, 6)", "padding=3")),
        wrong("conv_transpose2d", array(2, 4, 0, 6), W, says="(2, 4, 0, 6)"),
        wrong("conv_transpose2d", DY, W, data_format="NHWC", says=("data_format", "'NHWC'")),
    ],
    "max_pool2d": [
        *wrong_arrays("max_pool2d", (), X, (), "x"),
        *wrong_integers("max_pool2d", X, name="pool_size", minimum=1, pair=True),
        *wrong_integers("max_pool2d", X, name="stride", minimum=1, pair=True),
        *wrong_integers("max_pool2d", X, name="dilation", minimum=1, pair=True),
        wrong("max_pool2d", X, None, error=TypeError, says=("pool_size", "None")),
        *wrong_paddings("max_pool2d", X),
        wrong("max_pool2d", array(6, 7), says="(6, 7)"),
        wrong("max_pool2d", array(1, 2, 3, 6, 7), says="(1, 2, 3, 6, 7)"),
        wrong("max_pool2d", array(2, 3, 0, 7), says="(2, 3, 0, 7)"),
        wrong("max_pool2d", X, 7, says=("(7, 7)", "(6, 7)", "(2, 3, 6, 7)")),
        wrong("max_pool2d", X, (3, 2), dilation=3, says=("(7, 4)", "(6, 7)")),
        wrong("max_pool2d", X, 2, padding=2, says=("height", "padding", "(2, 2)", "(6, 7)")),
        wrong("max_pool2d", X, 2, padding=((0, 2), (0, 0)), says=("height", "((0, 2), (0, 0))")),
        wrong("max_pool2d", X, 3, stride=1, padding=((0, 0), (3, 0)), says=("width", "((0, 0), (3, 0))")),
        wrong("max_pool2d", array(1, 1, 2, 2), 2, padding=1, dilation=3, says=("(3, 3)", "(2, 2)")),
        wrong("max_pool2d", X, ceil_mode=1, error=TypeError, says=("ceil_mode", "1")),
        wrong("max_pool2d", X, ceil_mode="yes", error=TypeError, says=("ceil_mode", "'yes'")),
        wrong("max_pool2d", X, return_indices=None, error=TypeError, says=("return_indices", "None")),
        wrong("max_pool2d", X, data_format="NCHW", says=("data_format", "'NCHW'")),
        wrong("max_pool2d", np.full((2, 3, 6, 7), 2**24 + 1), says=("x", "float32", "16777217")),
    ],
    "max_pool2d_backward": [
        *wrong_arrays("max_pool2d_backward", (), POOLED, (INDICES, X.shape), "dy"),
        wrong("max_pool2d_backward", array(2, 3, 3, 4), INDICES, X.shape, says=("dy", "(2, 3, 3, 4)", "(2, 3, 3, 3)")),
        wrong("max_pool2d_backward", POOLED, INDICES[:1], X.shape, says=("indices", "(1, 3, 3, 3)", "(2, 3, 3, 3)")),
        wrong("max_pool2d_backward", POOLED, INDICES, (2, 3, 8, 7), says=("(2, 3, 3, 3)", "(2, 3, 4, 3)")),
        wrong("max_pool2d_backward", POOLED, INDICES, (3, 6, 7), says=("dy", "(2, 3, 3, 3)", "(3, 3, 3)")),
        wrong("max_pool2d_backward", POOLED, INDICES, None, error=TypeError, says=("input_shape", "None")),
        wrong("max_pool2d_backward", POOLED, INDICES, X.shape, 3, says=("(2, 3, 3, 3)", "(2, 3, 2, 2)")),
        wrong("max_pool2d_backward", POOLED, INDICES, X.shape, stride=0, says=("stride", "0")),
        wrong("max_pool2d_backward", POOLED, INDICES, X.shape, padding="full", says=("padding", "'full'")),
        wrong("max_pool2d_backward", POOLED, INDICES - 1, X.shape, says=("indices", "-1", "42")),
        wrong("max_pool2d_backward", POOLED, INDICES + 42, X.shape, says=("indices", "42")),
        wrong("max_pool2d_backward", POOLED, INDICES + 2**40, X.shape, says=("indices", str(2**40))),
        wrong("max_pool2d_backward", POOLED, INDICES + 2, X.shape, says=("indices", "windows", "54")),
        wrong("max_pool2d_backward", POOLED, INDICES[..., ::-1], X.shape, says=("indices", "windows", "36")),
        wrong(  # between the taps of its window
            "max_pool2d_backward",
            array(1, 1, 1, 1),
            array(1, 1, 1, 1, dtype=int) + 1,
            (1, 1, 4, 4),
            dilation=3,
            says=("indices", "windows", "dilation=(3, 3)"),
        ),
        wrong("max_pool2d_backward", POOLED, POOLED, X.shape, error=TypeError, says=("indices", "float32")),
        wrong("max_pool2d_backward", POOLED, INDICES == 0, X.shape, error=TypeError, says=("indices", "bool")),
        wrong("max_pool2d_backward", POOLED, INDICES.astype(object), X.shape, error=TypeError, says=("indices", "object")),
        wrong("max_pool2d_backward", POOLED, None, X.shape, error=TypeError, says=("indices", "NoneType")),
    ],
    "max_unpool2d": [
        *wrong_arrays("max_unpool2d", (), POOLED, (INDICES,), "x"),
        wrong("max_unpool2d", POOLED, INDICES[:1], says=("indices", "(1, 3, 3, 3)", "(2, 3, 3, 3)")),
        wrong("max_unpool2d", POOLED, POOLED, error=TypeError, says=("indices", "float32")),
        wrong("max_unpool2d", POOLED, None, error=TypeError, says=("indices", "NoneType")),
        wrong("max_unpool2d", POOLED, INDICES - 1, says=("indices", "-1", "36")),
        wrong("max_unpool2d", POOLED, INDICES + 36, says=("indices", "36")),
        wrong("max_unpool2d", array(3, 3), INDICES[0, 0], says="(3, 3)"),
        *wrong_integers("max_unpool2d", POOLED, INDICES, name="pool_size", minimum=1, pair=True),
        *wrong_integers("max_unpool2d", POOLED, INDICES, name="stride", minimum=1, pair=True),
        wrong("max_unpool2d", POOLED, INDICES, output_size=(6, 7, 8), says=("output_size", "(6, 7, 8)")),
        wrong("max_unpool2d", POOLED, INDICES, output_size=(6.0, 7), error=TypeError, says=("output_size", "6.0")),
        wrong("max_unpool2d", POOLED, INDICES, output_size=(0, 7), says=("output_size", "0")),
        wrong("max_unpool2d", POOLED, INDICES, padding=-1, says=("padding", "-1")),
        wrong("max_unpool2d", POOLED, INDICES, data_format="NCHW", says=("data_format", "'NCHW'")),
    ],
    "avg_pool2d": [
        *wrong_arrays("avg_pool2d", (), X, (), "x"),
        *wrong_integers("avg_pool2d", X, name="pool_size", minimum=1, pair=True),
        *wrong_integers("avg_pool2d", X, name="stride", minimum=1, pair=True),
        *wrong_paddings("avg_pool2d", X),
        wrong("avg_pool2d", array(6, 7), says="(6, 7)"),
        wrong("avg_pool2d", X, 7, says=("(7, 7)", "(6, 7)")),
        wrong("avg_pool2d", X, 2, padding=2, says=("height", "padding", "(2, 2)")),
        wrong("avg_pool2d", X, 2, padding=2, count_include_pad=False, says=("height", "padding", "(2, 2)")),
        wrong("avg_pool2d", X, ceil_mode=0, error=TypeError, says=("ceil_mode", "0")),
        wrong("avg_pool2d", X, count_include_pad=1, error=TypeError, says=("count_include_pad", "1")),
        wrong("avg_pool2d", X, data_format="NCHW", says=("data_format", "'NCHW'")),
    ],
    "avg_pool2d_backward": [
        *wrong_arrays("avg_pool2d_backward", (), POOLED, (X.shape,), "dy"),
        wrong("avg_pool2d_backward", array(2, 3, 3, 4), X.shape, says=("dy", "(2, 3, 3, 4)", "(2, 3, 3, 3)")),
        wrong("avg_pool2d_backward", POOLED, (2, 3, 8, 7), says=("(2, 3, 3, 3)", "(2, 3, 4, 3)")),
        wrong("avg_pool2d_backward", POOLED, X.shape, 3, says=("(2, 3, 3, 3)", "(2, 3, 2, 2)")),
        wrong("avg_pool2d_backward", POOLED, None, error=TypeError, says=("input_shape", "None")),
        wrong("avg_pool2d_backward", POOLED, X.shape, ceil_mode=True, says=("(2, 3, 3, 3)", "(2, 3, 3, 4)")),
        wrong("avg_pool2d_backward", POOLED, X.shape, 2, padding=2, says=("height", "padding", "(2, 2)")),
        wrong("avg_pool2d_backward", POOLED, X.shape, count_include_pad=None, error=TypeError, says="count_include_pad"),
    ],
    "global_max_pool2d": [
        *wrong_arrays("global_max_pool2d", (), X, (), "x"),
        wrong("global_max_pool2d", array(6, 7), says="(6, 7)"),
        wrong("global_max_pool2d", array(2, 3, 0, 7), says="(2, 3, 0, 7)"),
        wrong("global_max_pool2d", X, keepdims=1, error=TypeError, says=("keepdims", "1")),
        wrong("global_max_pool2d", X, data_format="NCHW", says=("data_format", "'NCHW'")),
    ],
    "global_avg_pool2d": [
        *wrong_arrays("global_avg_pool2d", (), X, (), "x"),
        wrong("global_avg_pool2d", array(6, 7), says="(6, 7)"),
        wrong("global_avg_pool2d", array(2, 3, 6, 0), says="(2, 3, 6, 0)"),
        wrong("global_avg_pool2d", X, keepdims="no", error=TypeError, says=("keepdims", "'no'")),
        wrong("global_avg_pool2d", X, data_format="NCHW", says=("data_format", "'NCHW'")),
    ],
    "global_max_pool2d_backward": [
        *wrong_arrays("global_max_pool2d_backward", (), array(2, 3), (INDICES[..., 0, 0], X.shape), "dy"),
        wrong("global_max_pool2d_backward", array(2, 4), INDICES[..., 0, 0], X.shape, says=("dy", "(2, 4)", "(2, 3)")),
        wrong("global_max_pool2d_backward", array(2, 3), INDICES[:1, :, 0, 0], X.shape, says=("indices", "(1, 3)")),
        wrong("global_max_pool2d_backward", array(2, 3), INDICES[..., 0, 0] + 42, X.shape, says=("indices", "42")),
        wrong("global_max_pool2d_backward", POOLED, INDICES, X.shape, says=("dy", "(2, 3, 3, 3)")),
        wrong(
            "global_max_pool2d_backward",
            array(2, 3),
            INDICES[..., 0, 0],
            None,
            error=TypeError,
            says=("input_shape", "None"),
        ),
    ],
    "global_avg_pool2d_backward": [
        *wrong_arrays("global_avg_pool2d_backward", (), array(2, 3), (X.shape,), "dy"),
        wrong("global_avg_pool2d_backward", array(2, 4), X.shape, says=("dy", "(2, 4)", "(2, 3)")),
        wrong("global_avg_pool2d_backward", array(3), X.shape, says=("dy", "(3,)", "(2, 3)")),
        wrong("global_avg_pool2d_backward", POOLED, X.shape, says=("dy", "(2, 3, 3, 3)")),
        wrong("global_avg_pool2d_backward", array(2, 3), None, error=TypeError, says=("input_shape", "None")),
        wrong("global_avg_pool2d_backward", array(2, 3), (2, 3.5, 6, 7), error=TypeError, says=("input_shape", "3.5")),
    ],
    "adaptive_avg_pool2d": [
        *wrong_arrays("adaptive_avg_pool2d", (), X, (2,), "x"),
        *wrong_integers("adaptive_avg_pool2d", X, name="output_size", minimum=1, pair=True),
        wrong("adaptive_avg_pool2d", X, None, error=TypeError, says=("output_size", "None")),
        wrong("adaptive_avg_pool2d", array(6, 7), 2, says="(6, 7)"),
        wrong("adaptive_avg_pool2d", array(2, 3, 6, 0), 2, says="(2, 3, 6, 0)"),
    ],
    "adaptive_max_pool2d": [
        *wrong_arrays("adaptive_max_pool2d", (), X, (2,), "x"),
        *wrong_integers("adaptive_max_pool2d", X, name="output_size", minimum=1, pair=True),
        wrong("adaptive_max_pool2d", array(6, 7), 2, says="(6, 7)"),
        wrong("adaptive_max_pool2d", X, 2, return_indices=1, error=TypeError, says=("return_indices", "1")),
    ],
    "adaptive_avg_pool2d_backward": [
        *wrong_arrays("adaptive_avg_pool2d_backward", (), POOLED, (X.shape,), "dy"),
        wrong("adaptive_avg_pool2d_backward", POOLED, (2, 4, 6, 7), says=("dy", "(2, 3, 3, 3)", "(2, 4, 6, 7)")),
        wrong("adaptive_avg_pool2d_backward", POOLED, (3, 6, 7), says=("(2, 3, 3, 3)", "(3, 6, 7)")),
        wrong("adaptive_avg_pool2d_backward", POOLED, None, error=TypeError, says=("input_shape", "None")),
        wrong("adaptive_avg_pool2d_backward", array(3, 3), X.shape, says="(3, 3)"),
    ],
    "adaptive_max_pool2d_backward": [
        *wrong_arrays("adaptive_max_pool2d_backward", (), POOLED, (INDICES, X.shape), "dy"),
        wrong("adaptive_max_pool2d_backward", POOLED, INDICES[:1], X.shape, says=("(1, 3, 3, 3)", "(2, 3, 3, 3)")),
        wrong("adaptive_max_pool2d_backward", POOLED, INDICES, (2, 4, 6, 7), says=("(2, 3, 3, 3)", "(2, 4, 6, 7)")),
        wrong("adaptive_max_pool2d_backward", POOLED, INDICES + 42, X.shape, says=("indices", "42")),
        wrong("adaptive_max_pool2d_backward", POOLED, INDICES - 1, X.shape, says=("indices", "-1", "42")),
        wrong("adaptive_max_pool2d_backward", POOLED, INDICES[..., ::-1], X.shape, says=("indices", "windows")),
        wrong("adaptive_max_pool2d_backward", POOLED, POOLED, X.shape, error=TypeError, says=("indices", "float32")),
    ],
    "im2col": [
        *wrong_arrays("im2col", (), X, (2,), "x"),
        *wrong_integers("im2col", X, name="kernel_size", minimum=1, pair=True),
        *wrong_integers("im2col", X, 2, name="stride", minimum=1, pair=True),
        *wrong_integers("im2col", X, 2, name="dilation", minimum=1, pair=True),
        *wrong_paddings("im2col", X, 2),
        wrong("im2col", array(6, 7), 2, says="(6, 7)"),
        wrong("im2col", X, 7, says=("(7, 7)", "(6, 7)")),
        wrong("im2col", X, None, error=TypeError, says=("kernel_size", "None")),
        wrong("im2col", X, 2, data_format="NCHW", says=("data_format", "'NCHW'")),
    ],
    "col2im": [
        *wrong_arrays("col2im", (), array(60, 12), (X.shape, 2), "col"),
        wrong("col2im", array(60, 13), X.shape, 2, says=("col", "(60, 13)", "(60, 12)")),
        wrong("col2im", array(61, 12), X.shape, 2, says=("col", "(61, 12)", "(60, 12)")),
        wrong("col2im", array(2, 30, 12), X.shape, 2, says=("col", "(2, 30, 12)", "(60, 12)")),
        wrong("col2im", array(60, 12), (2, 3, 5, 7), 2, says=("col", "(60, 12)", "(48, 12)")),
        wrong("col2im", array(60, 12), (6, 7), 2, says="(6, 7)"),
        wrong("col2im", array(60, 12), (2, 3, 6.0, 7), 2, error=TypeError, says=("input_shape", "6.0")),
        wrong("col2im", array(60, 12), X.shape, 7, says=("(7, 7)", "(6, 7)")),
        wrong("col2im", array(60, 12), X.shape, 2, stride=0, says=("stride", "0")),
        wrong("col2im", array(60, 12), X.shape, 2, padding="full", says=("padding", "'full'")),
    ],
}


@pytest.mark.parametrize("mistake", [mistake for mistakes in MISTAKES.values() for mistake in mistakes])
def test_refused(mistake: Mistake, device: str) -> None:
    arguments = [xc.asarray(a, device=device) if isinstance(a, np.ndarray) else a for a in mistake.arguments]
    with pytest.raises(mistake.error) as caught:
        getattr(xc, mistake.function)(*arguments, device=device, **mistake.options)
    message = str(caught.value)
    assert caught.type is mistake.error, message
    assert message.startswith(f"{mistake.function}: ")
    for text in mistake.says:
        assert re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message), f"{text!r} is missing in: {message}"


def test_every_function_is_here() -> None:
    taken = {name for name in xc.functional.__all__ if callable(getattr(xc, name))}
    assert taken == set(MISTAKES)


# The arguments of one right call of every function.
RIGHT: dict[str, tuple[Any, ...]] = {
    "conv2d": (X, W),
    "conv2d_backward_input": (DY, W, X.shape),
    "conv2d_backward_weight": (X, DY, W.shape),
    "conv_transpose2d": (DY, W),
    "max_pool2d": (X,),
    "max_pool2d_backward": (POOLED, INDICES, X.shape),
    "max_unpool2d": (POOLED, INDICES),
    "avg_pool2d": (X,),
    "avg_pool2d_backward": (POOLED, X.shape),
    "global_max_pool2d": (X,),
    "global_max_pool2d_backward": (POOLED[:, :, 0, 0], INDICES[:, :, 0, 0], X.shape),
    "global_avg_pool2d": (X,),
    "global_avg_pool2d_backward": (POOLED[:, :, 0, 0], X.shape),
    "adaptive_avg_pool2d": (X, 2),
    "adaptive_avg_pool2d_backward": (POOLED, X.shape),
    "adaptive_max_pool2d": (X, 2),
    "adaptive_max_pool2d_backward": (POOLED, INDICES, X.shape),
    "im2col": (X, 2),
    "col2im": (array(60, 12), X.shape, 2),
}


@pytest.mark.parametrize("function", RIGHT)
def test_devices(function: str) -> None:
    call, arguments = getattr(xc, function), RIGHT[function]
    call(*arguments)
    call(*arguments, device="numpy")
    for unknown in ("gpu", "", "Numpy", "numpy:0", "cuda:", "cuda:x"):
        with pytest.raises(ValueError, match=rf"^{function}: .*{unknown!r}.*'numpy'"):
            call(*arguments, device=unknown)
    for no_name in (0, True, b"numpy", ["numpy"], np):
        with pytest.raises(TypeError, match=rf"^{function}: .*device"):
            call(*arguments, device=no_name)
    for status in xc.devices():
        if not status.available:
            with pytest.raises(xc.errors.DeviceUnavailableError, match=re.escape(f"{status.name!r}")) as caught:
                call(*arguments, device=status.name)
            assert status.reason in str(caught.value)
            assert status.remedy in str(caught.value)


@pytest.mark.parametrize("function", RIGHT)
def test_masked_arrays(function: str) -> None:
    first, *others = RIGHT[function]
    with pytest.raises(TypeError, match=rf"^{function}: .*mask"):
        getattr(xc, function)(np.ma.masked_less(first, 1), *others)


@pytest.mark.parametrize("function", RIGHT)
def test_tensors_of_pytorch(function: str) -> None:
    torch = pytest.importorskip("torch")
    first, *others = RIGHT[function]
    with pytest.raises(TypeError, match=rf"^{function}: .*torch"):
        getattr(xc, function)(torch.tensor(first), *others)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of memory")
def test_a_huge_padding_is_refused_before_it_takes_memory() -> None:
    program = """
import resource
import numpy as np, xpconv as xc
x = np.zeros((1, 1, 4, 4))
xc.max_pool2d(x)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for pool in (xc.max_pool2d, xc.avg_pool2d):
    try:
        pool(x, 2, padding=10**9)
    except ValueError as error:
        print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread would reserve memory of its own
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("max_pool2d: ")
    assert second.startswith("avg_pool2d: ")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: xc.conv2d(X, W, padding=10**9), "conv2d"),
        (lambda: xc.conv2d_backward_input(DY, W, X.shape, padding=10**9), "conv2d_backward_input"),
        (lambda: xc.conv_transpose2d(array(2, 4, 6, 7), W, stride=10**9), "conv_transpose2d"),
        (lambda: xc.im2col(X, 2, padding=10**9), "im2col"),
        (lambda: xc.adaptive_avg_pool2d(X, 10**9), "adaptive_avg_pool2d"),
        (lambda: xc.adaptive_max_pool2d(X, 10**9), "adaptive_max_pool2d"),
    ],
)
def test_what_no_memory_holds_is_refused_by_name(call: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .*more than any memory holds"):
        call()


@pytest.mark.parametrize("stride", [2**62, 10**30])
def test_a_stride_beyond_the_image_is_as_good_as_one_that_just_leaves_it(stride: int) -> None:
    x, w = np.random.default_rng(0).standard_normal((2, 3, 6, 7)), np.ones((4, 3, 3, 2))
    y = xc.conv2d(x, w, stride=stride)
    np.testing.assert_allclose(y, xc.conv2d(x, w)[:, :, :1, :1], rtol=1e-12)
    np.testing.assert_array_equal(
        xc.conv2d_backward_input(y, w, x.shape, stride=stride), xc.conv2d_backward_input(y, w, x.shape, stride=7)
    )
    np.testing.assert_array_equal(xc.max_pool2d(x, stride=stride), xc.max_pool2d(x)[:, :, :1, :1])
    np.testing.assert_array_equal(xc.im2col(x, 2, stride=stride), xc.im2col(x, 2, stride=7))


def test_same_padding_with_output_padding_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match=r"^conv_transpose2d: padding='same' settles the output size, output_padding=\(1, 1\)"):
        xc.conv_transpose2d(array(2, 4, 6, 7), W, stride=2, padding="same", output_padding=1)


def test_a_dilation_between_no_taps_makes_no_difference() -> None:
    x, w = np.random.default_rng(0).standard_normal((2, 3, 6, 7)), np.ones((4, 3, 1, 1))
    np.testing.assert_array_equal(xc.conv2d(x, w, dilation=2**62), xc.conv2d(x, w))
    np.testing.assert_array_equal(xc.max_pool2d(x, 1, dilation=2**63), x)
