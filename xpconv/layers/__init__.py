"""Keras' layers on plain arrays: the same names, arguments, defaults and layouts, computed by xpconv's devices.

A layer is called with a batch and gives one; its weights are made at the first call. :class:`xpconv.Sequential` and
:class:`xpconv.Model` train layers together; a single one goes back by its ``backward``. docs/keras.md has what differs.
"""

from xpconv.layers.activation import ELU, Activation, LeakyReLU, ReLU, Softmax
from xpconv.layers.convolution import Conv2D, Conv2DTranspose, DepthwiseConv2D, SeparableConv2D
from xpconv.layers.dense import Dense
from xpconv.layers.dropout import Dropout
from xpconv.layers.input import Input
from xpconv.layers.layer import Layer
from xpconv.layers.merging import Add, Average, Concatenate, Maximum, Minimum, Multiply, Subtract
from xpconv.layers.normalization import BatchNormalization, LayerNormalization
from xpconv.layers.pooling import (
    AdaptiveAveragePooling2D,
    AdaptiveMaxPooling2D,
    AveragePooling2D,
    AvgPool2D,
    GlobalAveragePooling2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GlobalMaxPooling2D,
    MaxPool2D,
    MaxPooling2D,
)
from xpconv.layers.resampling import Cropping2D, UpSampling2D, ZeroPadding2D
from xpconv.layers.reshaping import Flatten, Reshape

__all__ = [
    "ELU",
    "Activation",
    "AdaptiveAveragePooling2D",
    "AdaptiveMaxPooling2D",
    "Add",
    "Average",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling2D",
    "Input",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPool2D",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "Multiply",
    "ReLU",
    "Reshape",
    "SeparableConv2D",
    "Softmax",
    "Subtract",
    "UpSampling2D",
    "ZeroPadding2D",
]
