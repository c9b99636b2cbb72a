"""Convolution on the cuda device: which algorithm computes which shape, and the three functions of the contract."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, Literal

from xpconv.geometry import Conv2dGeometry
from xpconv.kernels.cuda import correlation, depthwise, direct, weight_gradient
from xpconv.kernels.cuda.runtime import Array

Operation = Literal["forward", "backward_input", "backward_weight"]
Algorithm = Literal["implicit_gemm", "direct", "depthwise"]

ALGORITHMS: tuple[Algorithm, ...] = ("implicit_gemm", "direct", "depthwise")
ENVIRONMENT_VARIABLE = "XPCONV_CUDA_CONV2D"


def choose_algorithm(operation: Operation, geometry: Conv2dGeometry, dtype: Any) -> Algorithm:
    """Name of the algorithm that computes one of the three operations.

    ``depthwise`` and ``direct`` have no matrix product: with one channel a group there is nothing to multiply by it, and with
    a few the product's depth would be mostly zeros. Each says itself which geometries it is meant for. ``implicit_gemm``
    computes every geometry, and reads each number once for as many results as a tile has rows or columns.

    ``XPCONV_CUDA_CONV2D`` in the environment forces one of them; what that one is not meant for is an implicit GEMM then.

    Args:
        operation: Which of the three.
        geometry: The convolution.
        dtype: dtype of its arrays.

    Raises:
        ValueError: ``XPCONV_CUDA_CONV2D`` names no algorithm.
    """
    suits: dict[Algorithm, bool] = {
        "implicit_gemm": True,
        "direct": direct.suits(operation, geometry),
        "depthwise": depthwise.suits(operation, geometry),
    }
    if forced := os.environ.get(ENVIRONMENT_VARIABLE):
        for name in ALGORITHMS:
            if name == forced:
                return name if suits[name] else "implicit_gemm"
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(map(repr, ALGORITHMS))}, got {forced!r}")
    if suits["depthwise"]:
        return "depthwise"
    return "direct" if suits["direct"] else "implicit_gemm"


def conv2d_forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry) -> Array:
    """See :func:`xpconv.functional.conv2d`."""
    return forward_with_activation(x, w, b, geometry, relu=False)


def forward_with_activation(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, relu: bool) -> Array:
    """``conv2d(x, w) + b``, and ``max(y, 0)`` of it if ``relu``, in one pass over the result; a NaN stays."""
    y: Array = _module("forward", geometry, x.dtype).forward(x, w, b, geometry, relu)
    return y


def conv2d_backward_input(dy: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """See :func:`xpconv.functional.conv2d_backward_input`."""
    dx: Array = _module("backward_input", geometry, dy.dtype).backward_input(dy, w, geometry)
    return dx


def conv2d_backward_weight(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """See :func:`xpconv.functional.conv2d_backward_weight`."""
    gradients: tuple[Array, Array] = _module("backward_weight", geometry, x.dtype).backward_weight(x, dy, geometry)
    return gradients


def _module(operation: Operation, geometry: Conv2dGeometry, dtype: Any) -> ModuleType:
    algorithm = choose_algorithm(operation, geometry, dtype)
    if algorithm == "implicit_gemm":
        return weight_gradient if operation == "backward_weight" else correlation
    return direct if algorithm == "direct" else depthwise
