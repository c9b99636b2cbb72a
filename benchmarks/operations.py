"""Single convolutions and poolings, xpconv's numpy device against PyTorch eager, side by side in one run.

Each workload is computed by both, compared, and then timed in turns; a row gives the medians and how many times as fast
xpconv is. float32, channels_first; the weight gradient includes the bias.

    python benchmarks/operations.py [--rounds 9]

Needs PyTorch: pip install torch. Leave OPENBLAS_CORETYPE unset: it makes NumPy's BLAS run kernels for another processor.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import xpconv as xc

# Images (N, C, H, W), filters (F, C/groups, KH, KW), options.
CONVOLUTIONS = {
    "5x5, MNIST": ((100, 1, 28, 28), (30, 1, 5, 5), {}),
    "3x3": ((16, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    "1x1": ((16, 256, 56, 56), (64, 256, 1, 1), {}),
    "3x3, stride 2": ((16, 64, 56, 56), (128, 64, 3, 3), {"stride": 2, "padding": 1}),
    "7x7, stride 2, RGB": ((8, 3, 224, 224), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    "3x3, depthwise": ((16, 64, 56, 56), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
}
# Images, pool_size, options.
POOLINGS = {
    "2x2": ((100, 30, 24, 24), 2, {"stride": 2}),
    "3x3, stride 2": ((16, 64, 112, 112), 3, {"stride": 2, "padding": 1}),
}
TOLERATED_DIFFERENCE = 1e-4

Operation = Callable[[], Any]


def convolutions() -> Iterator[tuple[str, Operation, Operation]]:
    """Name, xpconv's way and PyTorch's way of each pass of each convolution."""
    random = np.random.default_rng(0)
    for name, (images, filters, options) in CONVOLUTIONS.items():
        x, w = (random.standard_normal(shape, dtype=np.float32) for shape in (images, filters))
        b = random.standard_normal(filters[0], dtype=np.float32)
        dy = random.standard_normal(xc.conv2d(x, w, **options).shape, dtype=np.float32)
        tx, tw, tb, tdy = map(torch.from_numpy, (x, w, b, dy))
        stride, padding, groups = (options.get(key, value) for key, value in (("stride", 1), ("padding", 0), ("groups", 1)))

        def backward(*wanted: bool, given: Any = (tdy, tx, tw, stride, padding, groups, filters)) -> Any:
            tdy, tx, tw, stride, padding, groups, filters = given
            return torch.ops.aten.convolution_backward(
                tdy, tx, tw, [filters[0]], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, list(wanted)
            )

        given = {"x": x, "w": w, "b": b, "dy": dy, "options": options, "torch": (tx, tw, tb, stride, padding, groups)}
        yield (
            f"conv2d {name}",
            lambda g=given: xc.conv2d(g["x"], g["w"], g["b"], **g["options"]),
            lambda g=given: torch.nn.functional.conv2d(*g["torch"][:5], 1, g["torch"][5]),
        )
        yield (
            f"conv2d_backward_input {name}",
            lambda g=given: xc.conv2d_backward_input(g["dy"], g["w"], g["x"].shape, **g["options"]),
            lambda back=backward: back(True, False, False)[0],
        )
        yield (
            f"conv2d_backward_weight {name}",
            lambda g=given: xc.conv2d_backward_weight(g["x"], g["dy"], g["w"].shape, **g["options"])[0],
            lambda back=backward: back(False, True, True)[1],
        )


def poolings() -> Iterator[tuple[str, Operation, Operation]]:
    """Name, xpconv's way and PyTorch's way of each pass of each pooling."""
    random = np.random.default_rng(0)
    functions = torch.nn.functional
    for name, (images, size, options) in POOLINGS.items():
        x = random.standard_normal(images, dtype=np.float32)
        tx = torch.from_numpy(x)
        yield (
            f"max_pool2d {name}",
            lambda x=x, size=size, options=options: xc.max_pool2d(x, size, **options),
            lambda tx=tx, size=size, options=options: functions.max_pool2d(tx, size, **options),
        )
        yield (
            f"max_pool2d with indices {name}",
            lambda x=x, size=size, options=options: xc.max_pool2d(x, size, return_indices=True, **options)[0],
            lambda tx=tx, size=size, options=options: functions.max_pool2d(tx, size, return_indices=True, **options)[0],
        )
        yield (
            f"avg_pool2d {name}",
            lambda x=x, size=size, options=options: xc.avg_pool2d(x, size, **options),
            lambda tx=tx, size=size, options=options: functions.avg_pool2d(tx, size, **options),
        )


def milliseconds(operation: Operation) -> float:
    started = time.perf_counter()
    operation()
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    table = Table("operation", "xpconv numpy (ms)", "PyTorch eager (ms)", "times as fast")
    for name, ours, theirs in [*convolutions(), *poolings()]:
        result, expected = np.asarray(ours()), theirs().numpy()
        if not np.abs(result - expected).max() <= TOLERATED_DIFFERENCE * np.abs(expected).max():
            raise SystemExit(f"{name}: the results differ; nothing was timed")
        theirs()
        times = [(milliseconds(ours), milliseconds(theirs)) for _ in range(rounds)]
        mine, peer = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in times)
        table.add_row(name, f"{mine:.2f}", f"{peer:.2f}", f"{ratio:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
