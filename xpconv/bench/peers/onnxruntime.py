"""ONNX Runtime on the CPU: forward passes alone, it has no gradients. Its graphs are built with ``onnx``."""

from __future__ import annotations

import importlib
from typing import Any

from xpconv.bench.peers import base
from xpconv.bench.workloads import Convolution, ConvolutionReluPooling, Pooling

OPSET, IR_VERSION = 17, 9  # of 2023: what every release since then can read


class Peer(base.Peer):
    """ONNX Runtime with its default optimizations."""

    def __init__(self, variant: str, threads: int) -> None:
        self.onnx: Any = importlib.import_module("onnx")
        self.helper: Any = importlib.import_module("onnx.helper")
        self.numpy_helper: Any = importlib.import_module("onnx.numpy_helper")
        self.onnxruntime: Any = importlib.import_module("onnxruntime")
        self.threads = threads

    def versions(self) -> dict[str, str]:
        """Version of ONNX Runtime."""
        return {"onnxruntime": str(self.onnxruntime.__version__)}

    def convolution(self, workload: Convolution) -> dict[str, base.Operation]:
        """A graph of one node."""
        node = self._convolution_node(workload, "y")
        return self._forward([node], workload.inputs(), workload.y_shape)

    def convolution_relu_pooling(self, workload: ConvolutionReluPooling) -> dict[str, base.Operation]:
        """A graph of three nodes, which the runtime fuses as it can."""
        nodes = [
            self._convolution_node(workload.convolution, "convolved"),
            self.helper.make_node("Relu", ["convolved"], ["positive"]),
            self.helper.make_node("MaxPool", ["positive"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        return self._forward(nodes, workload.inputs(), workload.y_shape)

    def pooling(self, workload: Pooling) -> dict[str, base.Operation]:
        """A graph of one node."""
        window: dict[str, Any] = {
            "kernel_shape": [workload.pool_size] * 2,
            "strides": [workload.stride] * 2,
            "pads": [workload.padding] * 4,
        }
        if workload.kind == "max":
            node = self.helper.make_node("MaxPool", ["x"], ["y"], **window)
        else:
            node = self.helper.make_node("AveragePool", ["x"], ["y"], count_include_pad=1, **window)
        return self._forward([node], workload.inputs(), workload.y_shape)

    def _convolution_node(self, workload: Convolution, result: str) -> Any:
        strides, pads = [workload.stride] * 2, [workload.padding] * 4
        return self.helper.make_node("Conv", ["x", "w", "b"], [result], strides=strides, pads=pads, group=workload.groups)

    def _forward(self, nodes: list[Any], inputs: dict[str, Any], y_shape: tuple[int, ...]) -> dict[str, base.Operation]:
        helper, float32 = self.helper, self.onnx.TensorProto.FLOAT
        constants = [self.numpy_helper.from_array(inputs[name], name) for name in ("w", "b") if name in inputs]
        graph = helper.make_graph(
            nodes,
            "workload",
            [helper.make_tensor_value_info("x", float32, inputs["x"].shape)],
            [helper.make_tensor_value_info("y", float32, y_shape)],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        session = self.onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        given = {"x": inputs["x"]}
        return base.operations({"fwd": lambda: session.run(None, given)}, {"fwd": ("y",)}, lambda _, value: value)
