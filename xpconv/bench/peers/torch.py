"""PyTorch: eager, eager with memory in channels_last order, and torch.compile; on the CPU, or on a card with cuDNN."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from xpconv.bench.peers import base
from xpconv.bench.workloads import Convolution, ConvolutionReluPooling, Pooling, TrainingStep

Tensor = Any


class Peer(base.Peer):
    """PyTorch; the variant is ``eager``, ``channels_last`` or ``compile``, and on a card ``eager@cuda:0``."""

    def __init__(self, variant: str, threads: int) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(threads)
        way, _, card = variant.partition("@")
        self.compiled = way == "compile"
        last = way == "channels_last"
        self.memory_format = self.torch.channels_last if last else self.torch.contiguous_format
        self.device = self.torch.device(card or "cpu")
        if card:
            self.clock = self._card_clock()

    def versions(self) -> dict[str, str]:
        """Versions of PyTorch, and on a card of what it computes with."""
        versions = {"torch": str(self.torch.__version__)}
        if self.device.type == "cuda":
            versions |= {"cuDNN": str(self.torch.backends.cudnn.version()), "CUDA": str(self.torch.version.cuda)}
        return versions

    def milliseconds(self, run: Callable[[], Any]) -> float:
        """Time one call."""
        return self.clock.milliseconds(run) if self.device.type == "cuda" else super().milliseconds(run)

    def convolution(self, workload: Convolution) -> dict[str, base.Operation]:
        """``conv2d``; its gradients one by one from the operator that autograd calls, all of them through autograd."""
        torch = self.torch
        x, w, b, dy = map(self._tensor, workload.inputs().values())
        leaves = [tensor.clone().requires_grad_() for tensor in (x, w, b)]
        stride, padding, groups = workload.stride, workload.padding, workload.groups
        convolve = self._function(lambda x, w, b: torch.nn.functional.conv2d(x, w, b, stride, padding, 1, groups))

        def forward() -> Tensor:
            with torch.inference_mode():
                return convolve(x, w, b)

        def gradients(*wanted: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                dy, x, w, [len(b)], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, list(wanted)
            )

        runs: dict[str, Callable[[], Any]] = {"fwd": forward}
        if not self.compiled:  # there is nothing to compile in one operator
            runs["dx"] = lambda: gradients(True, False, False)[0]
            runs["dw"] = lambda: gradients(False, True, True)[1:]
        runs["tot"] = lambda: self._with_gradients(convolve, leaves, dy)
        return base.operations(runs, base.CONVOLUTION_RESULTS, self._to_numpy)

    def convolution_relu_pooling(self, workload: ConvolutionReluPooling) -> dict[str, base.Operation]:
        """The three functions one after the other; the compiler may fuse them."""
        torch = self.torch
        functions = torch.nn.functional
        x, w, b = map(self._tensor, workload.inputs().values())
        block = self._function(lambda x, w, b: functions.max_pool2d(functions.relu(functions.conv2d(x, w, b)), 2))

        def forward() -> Tensor:
            with torch.inference_mode():
                return block(x, w, b)

        return base.operations({"fwd": forward}, {"fwd": ("y",)}, self._to_numpy)

    def pooling(self, workload: Pooling) -> dict[str, base.Operation]:
        """``max_pool2d`` or ``avg_pool2d``; the gradient from the operator that autograd calls."""
        torch = self.torch
        functions, operators = torch.nn.functional, torch.ops.aten
        x, dy = map(self._tensor, workload.inputs().values())
        leaf = x.clone().requires_grad_()
        size, stride, padding = workload.pool_size, workload.stride, workload.padding
        window = [size] * 2, [stride] * 2, [padding] * 2
        backward: Callable[[], Tensor]
        if workload.kind == "max":
            pool = self._function(lambda x: functions.max_pool2d(x, size, stride, padding))
            indices = functions.max_pool2d(x, size, stride, padding, return_indices=True)[1]

            def backward() -> Tensor:
                return operators.max_pool2d_with_indices_backward(dy, x, *window, [1, 1], False, indices)
        else:
            pool = self._function(lambda x: functions.avg_pool2d(x, size, stride, padding))

            def backward() -> Tensor:
                return operators.avg_pool2d_backward(dy, x, *window, False, True, None)

        def forward() -> Tensor:
            with torch.inference_mode():
                return pool(x)

        runs: dict[str, Callable[[], Any]] = {"fwd": forward}
        if not self.compiled:
            runs["bwd"] = backward
        runs["tot"] = lambda: self._with_gradients(pool, [leaf], dy)
        return base.operations(runs, base.POOLING_RESULTS, self._to_numpy)

    def training_step(self, workload: TrainingStep) -> dict[str, base.Operation]:
        """The network of ``torch.nn`` layers, with the fused Adam, which is PyTorch's fastest."""
        torch = self.torch
        inputs = workload.inputs()
        pixels = len(inputs["W2"])
        layers = torch.nn
        net = layers.Sequential(
            layers.Conv2d(1, workload.filters, workload.kernel_size),
            layers.ReLU(),
            layers.MaxPool2d(2),
            layers.Flatten(),
            layers.Linear(pixels, workload.hidden),
            layers.ReLU(),
            layers.Linear(workload.hidden, workload.classes),
        ).to(device=self.device, memory_format=self.memory_format)
        names = ("W1", "b1", "W2", "b2", "W3", "b3")
        with torch.no_grad():
            for name, parameter in zip(names, net.parameters(), strict=True):
                parameter.copy_(torch.from_numpy(_as_linear(name, inputs[name])))
        images, labels = self._tensor(inputs["images"]), self._tensor(inputs["labels"])
        optimizer = torch.optim.Adam(net.parameters(), lr=workload.lr, fused=True)
        loss_of = self._function(lambda x, t: layers.functional.cross_entropy(net(x), t))
        random = np.random.default_rng(0)

        def step(chosen: Any) -> Tensor:
            positions = torch.from_numpy(chosen).to(self.device)
            x, t = images[positions], labels[positions]
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, t)
            loss.backward()
            optimizer.step()
            return loss.detach()

        def outcome() -> dict[str, base.Array]:
            loss = step(workload.first_batch)
            gradients = zip(names, net.parameters(), strict=True)
            return {
                "loss": self._to_numpy("loss", loss),
                **{f"d{name}": _as_linear(name, self._to_numpy(name, parameter.grad)) for name, parameter in gradients},
            }

        return {"step": base.Operation(lambda: step(workload.draw(random)), outcome)}

    def _tensor(self, array: base.Array) -> Tensor:
        tensor = self.torch.from_numpy(array).to(self.device)
        return tensor.contiguous(memory_format=self.memory_format) if array.ndim == 4 else tensor

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = self.torch.compile(function) if self.compiled else function
        return compiled

    def _with_gradients(self, function: Callable[..., Any], leaves: list[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
        for leaf in leaves:
            leaf.grad = None
        y = function(*leaves)
        y.backward(dy)
        return (y, *(leaf.grad for leaf in leaves))

    def _to_numpy(self, _: str, tensor: Tensor) -> base.Array:
        array: base.Array = tensor.detach().cpu().numpy()
        return array

    def _card_clock(self) -> base.EventClock:
        torch = self.torch
        if not torch.cuda.is_available():
            raise ImportError(f"PyTorch {torch.__version__} finds no card that it can use")
        torch.cuda.set_device(self.device)
        # All of float32, as xpconv, and the fastest of cuDNN's algorithms.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        flushed = torch.empty(base.FLUSHED_BYTES, dtype=torch.uint8, device=self.device)
        return base.EventClock(
            flushed.zero_,
            lambda: torch.cuda.Event(enable_timing=True),
            lambda started, finished: float(started.elapsed_time(finished)),
        )


def _as_linear(name: str, matrix: base.Array) -> base.Array:
    """PyTorch keeps the matrix of an affine layer the other way round."""
    return np.ascontiguousarray(matrix.T) if name in ("W2", "W3") else matrix
