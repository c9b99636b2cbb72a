"""xpconv itself, on one of its devices: the public functions, as a user calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import xpconv as xc
from xpconv.bench.peers import base
from xpconv.bench.workloads import Convolution, ConvolutionReluPooling, Pooling, TrainingStep

Array = Any


class Peer(base.Peer):
    """Xpconv; the variant is ``device:dtype``, where the device may be ``cuda:1``."""

    def __init__(self, variant: str, threads: int) -> None:
        # Threads: BLAS and Numba take them from the environment, which the runner sets.
        device, _, dtype = variant.rpartition(":")
        self.device, self.dtype = xc.get_device(device), np.dtype(dtype)
        self.device.kernels  # noqa: B018 - to fail here, where it is told, if they cannot be imported
        if self.device.kind == "cuda":
            self.clock = _card_clock(self.device)

    def versions(self) -> dict[str, str]:
        """Versions of xpconv, its arrays and what compiles."""
        if self.device.kind == "cuda":
            runtime = self.device.xp.cuda.runtime.runtimeGetVersion()
            return {"xpconv": xc.__version__, "cupy": str(self.device.xp.__version__), "CUDA": _dotted(runtime)}
        versions = {"xpconv": xc.__version__, "numpy": np.__version__}
        if self.device.kind == "numba":
            import numba

            versions["numba"] = numba.__version__
        return versions

    def milliseconds(self, run: Callable[[], Any]) -> float:
        """Time one call."""
        return self.clock.milliseconds(run) if self.device.kind == "cuda" else super().milliseconds(run)

    def limits(self, threads: int) -> dict[str, Any]:
        """What the device can do at most."""
        if self.device.kind != "cuda":
            return super().limits(threads)
        from xpconv.bench.machine import measure_card_limits

        return measure_card_limits(self.device, self.clock)

    def convolution(self, workload: Convolution) -> dict[str, base.Operation]:
        """``conv2d`` and the functions of its gradients."""
        x, w, b, dy = (self._here(array) for array in workload.inputs().values())
        how: dict[str, Any] = {
            "stride": workload.stride,
            "padding": workload.padding,
            "groups": workload.groups,
            "device": self.device,
        }
        runs: dict[str, Callable[[], Any]] = {
            "fwd": lambda: xc.conv2d(x, w, b, **how),
            "dx": lambda: xc.conv2d_backward_input(dy, w, x.shape, **how),
            "dw": lambda: xc.conv2d_backward_weight(x, dy, w.shape, **how),
        }
        runs["tot"] = lambda: (runs["fwd"](), runs["dx"](), *runs["dw"]())
        return self._operations(runs, base.CONVOLUTION_RESULTS)

    def convolution_relu_pooling(self, workload: ConvolutionReluPooling) -> dict[str, base.Operation]:
        """The block that a network makes of these layers."""
        from xpconv.fusion import blocks
        from xpconv.scratch import layers

        x, w, b = (self._here(array) for array in workload.inputs().values())
        chain = list(
            blocks(
                [
                    layers.Convolution(w, b, device=self.device),
                    layers.Relu(device=self.device),
                    layers.Pooling(2, 2, stride=2, device=self.device),
                ]
            )
        )

        def forward() -> Array:
            y = x
            for block in chain:
                y = block.forward(y, False)
            return y

        return self._operations({"fwd": forward}, {"fwd": ("y",)})

    def pooling(self, workload: Pooling) -> dict[str, base.Operation]:
        """``max_pool2d`` or ``avg_pool2d``, and the function of its gradient."""
        x, dy = (self._here(array) for array in workload.inputs().values())
        size, shape = workload.pool_size, x.shape
        how: dict[str, Any] = {"stride": workload.stride, "padding": workload.padding, "device": self.device}

        def max_total() -> tuple[Array, Array]:
            y, indices = xc.max_pool2d(x, size, return_indices=True, **how)
            return y, xc.max_pool2d_backward(dy, indices, shape, size, **how)

        runs: dict[str, Callable[[], Any]]
        if workload.kind == "max":
            _, winners = xc.max_pool2d(x, size, return_indices=True, **how)
            runs = {
                "fwd": lambda: xc.max_pool2d(x, size, **how),
                "bwd": lambda: xc.max_pool2d_backward(dy, winners, shape, size, **how),
                "tot": max_total,
            }
        else:
            runs = {
                "fwd": lambda: xc.avg_pool2d(x, size, **how),
                "bwd": lambda: xc.avg_pool2d_backward(dy, shape, size, **how),
                "tot": lambda: (xc.avg_pool2d(x, size, **how), xc.avg_pool2d_backward(dy, shape, size, **how)),
            }
        return self._operations(runs, base.POOLING_RESULTS)

    def training_step(self, workload: TrainingStep) -> dict[str, base.Operation]:
        """SimpleConvNet and Adam, as the Trainer makes its steps."""
        inputs = workload.inputs()
        net = xc.SimpleConvNet(
            input_dim=(1, workload.size, workload.size),
            conv_param={"filter_num": workload.filters, "filter_size": workload.kernel_size},
            hidden_size=workload.hidden,
            output_size=workload.classes,
            device=self.device,
            dtype=self.dtype,
            seed=0,
        )
        for name, parameter in net.params.items():
            parameter[...] = self._here(inputs[name])
        images, labels = self._here(inputs["images"]), xc.asarray(inputs["labels"], device=self.device)
        optimizer = xc.Adam(workload.lr)
        random = np.random.default_rng(0)

        def step(chosen: Array) -> tuple[Array, dict[str, Array]]:
            loss, gradients = net.loss_and_gradient(images[chosen], labels[chosen])
            optimizer.update(net.params, gradients, device=self.device)
            return loss, gradients

        def outcome() -> dict[str, Any]:
            loss, gradients = step(workload.first_batch)
            arrays = {f"d{name}": xc.to_numpy(gradient) for name, gradient in gradients.items()}
            return {"loss": xc.to_numpy(loss), **arrays}

        return {"step": base.Operation(lambda: step(workload.draw(random)), outcome)}

    def _here(self, array: Array) -> Array:
        return xc.asarray(array, device=self.device, dtype=self.dtype)

    def _operations(self, runs: dict[str, Callable[[], Any]], results: dict[str, tuple[str, ...]]) -> dict[str, base.Operation]:
        return base.operations(runs, results, lambda _, value: xc.to_numpy(value))


def _card_clock(device: xc.Device) -> base.EventClock:
    cupy = device.xp
    cupy.cuda.Device(device.card).use()
    flushed = cupy.empty(base.FLUSHED_BYTES, np.uint8)
    return base.EventClock(lambda: flushed.fill(0), cupy.cuda.Event, cupy.cuda.get_elapsed_time)


def _dotted(version: int) -> str:
    """CUDA counts 12.4 as 12040."""
    return f"{version // 1000}.{version % 1000 // 10}"
