"""One training step of SimpleConvNet, xpconv's numpy device against PyTorch eager, side by side in one run.

The step is the book's: 100 images drawn at random, convolution 30@5x5, ReLU, pooling 2x2, affine 100, ReLU, affine 10,
softmax cross-entropy, all gradients, Adam. Both start from the same parameters, and their loss and gradients of one batch
are compared before anything is timed (later steps drift apart: the two place Adam's epsilon differently). The two take
turns, so that a machine that slows down slows both; read the ratio.

    python benchmarks/training_step.py [--rounds 15] [--steps 20] [--json results.json]

Needs PyTorch: pip install torch. Leave OPENBLAS_CORETYPE unset: it makes NumPy's BLAS run kernels for another processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_info

import xpconv as xc

BATCH = 100
# Of the largest gradient of each parameter.
TOLERATED_DIFFERENCE = 1e-5

Step = Callable[[np.ndarray, np.ndarray], float]


def xpconv_step(net: xc.SimpleConvNet) -> Step:
    """A function that makes one update with a batch and returns its loss."""
    optimizer = xc.Adam(lr=0.001)

    def step(x: np.ndarray, t: np.ndarray) -> float:
        loss, grads = net.loss_and_gradient(x, t)
        optimizer.update(net.params, grads)
        return loss

    return step


def pytorch_net(params: dict[str, np.ndarray]) -> torch.nn.Sequential:
    """The same network in PyTorch, with the same parameters."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 30, 5),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(4320, 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 10),
    )
    given = [params["W1"], params["b1"], params["W2"].T, params["b2"], params["W3"].T, params["b3"]]
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), given, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return net


def pytorch_step(net: torch.nn.Sequential) -> Step:
    """A function that makes one update with a batch and returns its loss."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)

    def step(x: np.ndarray, t: np.ndarray) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(t))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def check(net: xc.SimpleConvNet, peer: torch.nn.Sequential, x: np.ndarray, t: np.ndarray) -> None:
    """Stop where loss or gradients of the two differ."""
    loss, grads = net.loss_and_gradient(x, t)
    expected = torch.nn.functional.cross_entropy(peer(torch.from_numpy(x)), torch.from_numpy(t))
    expected.backward()
    pairs = {"loss": (np.float32(loss), expected.detach().numpy())}
    for (name, grad), parameter in zip(grads.items(), peer.parameters(), strict=True):
        theirs = parameter.grad.numpy()
        pairs[name] = (grad, theirs if theirs.shape == grad.shape else theirs.T)
    for name, (ours, theirs) in pairs.items():
        if not np.abs(ours - theirs).max() <= TOLERATED_DIFFERENCE * np.abs(theirs).max():
            raise SystemExit(f"{name} differs by {np.abs(ours - theirs).max()}; nothing was timed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20, help="steps a round, of each")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()

    (images, labels), _ = xc.datasets.load_mnist("bundled")
    random = np.random.default_rng(0)
    net = xc.SimpleConvNet(device="numpy", seed=0)
    peer = pytorch_net(net.params)

    def batch() -> tuple[np.ndarray, np.ndarray]:
        chosen = random.integers(0, len(images), BATCH)
        return images[chosen], labels[chosen]

    check(net, peer, *batch())
    steps = {"xpconv numpy": xpconv_step(net), "PyTorch eager": pytorch_step(peer)}
    for step in steps.values():
        for _ in range(20):  # warm up
            step(*batch())

    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            times = []
            for _ in range(arguments.steps):
                x, t = batch()
                started = time.perf_counter()
                step(x, t)
                times.append(time.perf_counter() - started)
            rounds[name].append(1e3 * statistics.median(times))
    ratios = [theirs / ours for ours, theirs in zip(*rounds.values(), strict=True)]
    blas = ", ".join(f"{library['internal_api']} {library['num_threads']} threads" for library in threadpool_info())
    print(f"{BATCH} images a step, {torch.get_num_threads()} threads of PyTorch, {blas}")
    for name, times in rounds.items():
        print(f"{name:14s} {statistics.median(times):6.2f} ms a step (rounds from {min(times):.2f} to {max(times):.2f})")
    print(f"xpconv is {statistics.median(ratios):.2f} times as fast (rounds from {min(ratios):.2f} to {max(ratios):.2f})")
    if arguments.json:
        figures = {"milliseconds": rounds, "times_as_fast": statistics.median(ratios), "torch": torch.__version__}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
