"""TensorFlow: each operation as a ``tf.function``, in channels_last order, the only one of its CPU kernels."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.peers import base
from xpconv.bench.workloads import Convolution, ConvolutionReluPooling, Pooling


def start(threads: int) -> Any:
    """Import TensorFlow, without its messages, with this number of threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    tensorflow: Any = importlib.import_module("tensorflow")
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow


class Peer(base.Peer):
    """TensorFlow on the CPU. Its training step is Keras', a peer of its own."""

    def __init__(self, variant: str, threads: int) -> None:
        self.tf = start(threads)

    def versions(self) -> dict[str, str]:
        """Version of TensorFlow."""
        return {"tensorflow": str(self.tf.__version__)}

    def convolution(self, workload: Convolution) -> dict[str, base.Operation]:
        """``tf.nn.conv2d`` or ``depthwise_conv2d``, and the gradients of a tape."""
        tf = self.tf
        inputs = workload.inputs()
        depthwise = workload.groups > 1
        if depthwise and not workload.groups == workload.channels == workload.filters:
            return {}
        filters = base.filters_last(inputs["w"])  # (KH, KW, C/groups, F)
        x, dy = tf.constant(base.channels_last(inputs["x"])), tf.constant(base.channels_last(inputs["dy"]))
        w, b = tf.constant(filters.transpose(0, 1, 3, 2) if depthwise else filters), tf.constant(inputs["b"])
        stride, pads = workload.stride, _padding(workload.kernel_size, workload.stride, workload.padding)

        def convolve(x: Any, w: Any, b: Any) -> Any:
            if depthwise:
                return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, w, [1, stride, stride, 1], pads), b)
            return tf.nn.bias_add(tf.nn.conv2d(x, w, stride, pads), b)

        everything = {"fwd": (), "dx": (0,), "dw": (1, 2), "tot": (0, 1, 2)}
        runs = {
            name: self._compiled(convolve, (x, w, b), dy, wanted, name in ("fwd", "tot")) for name, wanted in everything.items()
        }

        def to_numpy(name: str, tensor: Any) -> base.Array:
            array: base.Array = tensor.numpy()
            if name == "dw":
                return base.filters_first(array.transpose(0, 1, 3, 2) if depthwise else array)
            return base.channels_first(array) if array.ndim == 4 else array

        return base.operations(runs, base.CONVOLUTION_RESULTS, to_numpy)

    def convolution_relu_pooling(self, workload: ConvolutionReluPooling) -> dict[str, base.Operation]:
        """One function of all of it."""
        tf = self.tf
        inputs = workload.inputs()
        x, w = tf.constant(base.channels_last(inputs["x"])), tf.constant(base.filters_last(inputs["w"]))

        def block(x: Any, w: Any, b: Any) -> Any:
            convolved = tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "VALID"), b)
            return tf.nn.max_pool2d(tf.nn.relu(convolved), 2, 2, "VALID")

        runs = {"fwd": self._compiled(block, (x, w, tf.constant(inputs["b"])), None, (), True)}
        return base.operations(runs, {"fwd": ("y",)}, _images_to_numpy)

    def pooling(self, workload: Pooling) -> dict[str, base.Operation]:
        """``tf.nn.max_pool2d`` or ``avg_pool2d``, and the gradient of a tape."""
        tf = self.tf
        x, dy = (tf.constant(base.channels_last(array)) for array in workload.inputs().values())
        size, stride = workload.pool_size, workload.stride
        pads = _padding(size, stride, workload.padding)

        def pool(x: Any) -> Any:
            if workload.kind == "max":
                return tf.nn.max_pool2d(x, size, stride, pads)
            if workload.padding:  # avg_pool2d takes names alone, and leaves the padding out of the mean
                x = tf.pad(x, _pads(workload.padding))
            return tf.nn.avg_pool2d(x, size, stride, "VALID")

        runs = {
            "fwd": self._compiled(pool, (x,), dy, (), True),
            "bwd": self._compiled(pool, (x,), dy, (0,), False),
            "tot": self._compiled(pool, (x,), dy, (0,), True),
        }
        return base.operations(runs, base.POOLING_RESULTS, _images_to_numpy)

    def _compiled(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], dy: Any, wanted: tuple[int, ...], with_result: bool
    ) -> Callable[[], Any]:
        """The function's result, if asked for, and its gradients with respect to some arguments, as one graph."""
        tf = self.tf

        def compute(*given: Any) -> Any:
            sources = [given[index] for index in wanted]
            with tf.GradientTape() as tape:
                tape.watch(sources)
                y = function(*given[: len(arguments)])
            gradients = tape.gradient(y, sources, given[-1]) if wanted else []
            return ([y] if with_result else []) + gradients

        compiled = tf.function(compute)
        given = (*arguments, dy) if wanted else arguments
        return lambda: compiled(*given)


def _padding(size: int, stride: int, padding: int) -> Any:
    """By name where it has one: TensorFlow 2.21 aborts where it fuses depthwise_conv2d with numbers and a bias."""
    if not padding:
        return "VALID"
    return "SAME" if stride == 1 and 2 * padding == size - 1 else _pads(padding)


def _pads(padding: int) -> list[list[int]]:
    return [[0, 0], [padding, padding], [padding, padding], [0, 0]]


def _images_to_numpy(_: str, tensor: Any) -> base.Array:
    return base.channels_first(np.asarray(tensor.numpy()))
