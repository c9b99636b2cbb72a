"""Convolution and pooling networks on plain arrays, on the device that one argument names.

>>> import numpy as np, xpconv as xc
>>> x, w = np.ones((8, 3, 28, 28), np.float32), np.ones((30, 3, 5, 5), np.float32)
>>> xc.conv2d(x, w, padding="same", device="numpy").shape
(8, 30, 28, 28)

Importing xpconv imports NumPy and nothing heavier: the names below are loaded at their first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from xpconv import activations as activations
    from xpconv import callbacks as callbacks
    from xpconv import cudasim as cudasim
    from xpconv import datasets as datasets
    from xpconv import errors as errors
    from xpconv import functional as functional
    from xpconv import initializers as initializers
    from xpconv import layers as layers
    from xpconv import losses as losses
    from xpconv import metrics as metrics
    from xpconv import models as models
    from xpconv import optimizers as optimizers
    from xpconv import regularizers as regularizers
    from xpconv import scratch as scratch
    from xpconv import training as training
    from xpconv import visualize as visualize
    from xpconv.availability import DeviceStatus as DeviceStatus
    from xpconv.compilation import Compilation as Compilation
    from xpconv.compilation import compile as compile
    from xpconv.device import Device as Device
    from xpconv.device import asarray as asarray
    from xpconv.device import default_device as default_device
    from xpconv.device import devices as devices
    from xpconv.device import get_device as get_device
    from xpconv.device import set_default_device as set_default_device
    from xpconv.device import to_numpy as to_numpy
    from xpconv.functional import adaptive_avg_pool2d as adaptive_avg_pool2d
    from xpconv.functional import adaptive_avg_pool2d_backward as adaptive_avg_pool2d_backward
    from xpconv.functional import adaptive_max_pool2d as adaptive_max_pool2d
    from xpconv.functional import adaptive_max_pool2d_backward as adaptive_max_pool2d_backward
    from xpconv.functional import avg_pool2d as avg_pool2d
    from xpconv.functional import avg_pool2d_backward as avg_pool2d_backward
    from xpconv.functional import col2im as col2im
    from xpconv.functional import conv2d as conv2d
    from xpconv.functional import conv2d_backward_input as conv2d_backward_input
    from xpconv.functional import conv2d_backward_weight as conv2d_backward_weight
    from xpconv.functional import conv_transpose2d as conv_transpose2d
    from xpconv.functional import global_avg_pool2d as global_avg_pool2d
    from xpconv.functional import global_avg_pool2d_backward as global_avg_pool2d_backward
    from xpconv.functional import global_max_pool2d as global_max_pool2d
    from xpconv.functional import global_max_pool2d_backward as global_max_pool2d_backward
    from xpconv.functional import im2col as im2col
    from xpconv.functional import max_pool2d as max_pool2d
    from xpconv.functional import max_pool2d_backward as max_pool2d_backward
    from xpconv.functional import max_unpool2d as max_unpool2d
    from xpconv.labels import to_categorical as to_categorical
    from xpconv.layers import Input as Input
    from xpconv.models import Model as Model
    from xpconv.models import Sequential as Sequential
    from xpconv.naming import reset_names as reset_names
    from xpconv.optimizers import SGD as SGD
    from xpconv.optimizers import Adagrad as Adagrad
    from xpconv.optimizers import Adam as Adam
    from xpconv.optimizers import AdamW as AdamW
    from xpconv.optimizers import RMSprop as RMSprop
    from xpconv.scratch.deep_convnet import DeepConvNet as DeepConvNet
    from xpconv.scratch.simple_convnet import SimpleConvNet as SimpleConvNet
    from xpconv.training import Trainer as Trainer

_SUBMODULES = (
    "activations",
    "callbacks",
    "cudasim",
    "datasets",
    "errors",
    "functional",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "scratch",
    "training",
    "visualize",
)

# Where each public name lives; tests/test_import.py holds this against the imports above.
_HOMES = {
    "xpconv.availability": ("DeviceStatus",),
    "xpconv.compilation": ("Compilation", "compile"),
    "xpconv.device": (
        "Device",
        "asarray",
        "default_device",
        "devices",
        "get_device",
        "set_default_device",
        "to_numpy",
    ),
    "xpconv.functional": (
        "adaptive_avg_pool2d",
        "adaptive_avg_pool2d_backward",
        "adaptive_max_pool2d",
        "adaptive_max_pool2d_backward",
        "avg_pool2d",
        "avg_pool2d_backward",
        "col2im",
        "conv2d",
        "conv2d_backward_input",
        "conv2d_backward_weight",
        "conv_transpose2d",
        "global_avg_pool2d",
        "global_avg_pool2d_backward",
        "global_max_pool2d",
        "global_max_pool2d_backward",
        "im2col",
        "max_pool2d",
        "max_pool2d_backward",
        "max_unpool2d",
    ),
    "xpconv.labels": ("to_categorical",),
    "xpconv.layers": ("Input",),
    "xpconv.models": ("Model", "Sequential"),
    "xpconv.naming": ("reset_names",),
    "xpconv.optimizers": ("SGD", "Adagrad", "Adam", "AdamW", "RMSprop"),
    "xpconv.scratch.deep_convnet": ("DeepConvNet",),
    "xpconv.scratch.simple_convnet": ("SimpleConvNet",),
    "xpconv.training": ("Trainer",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted([*_SUBMODULES, *_MODULE_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
