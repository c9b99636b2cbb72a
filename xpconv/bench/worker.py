"""The process that one peer runs in: ``python -m xpconv.bench.worker MODULE VARIANT THREADS``.

It reads requests from standard input and answers each on standard output, both as one line of JSON:

=========================================================== ============================================================
(at its start)                                              ``{"versions": {...}}``, or ``{"unavailable": "why"}`` and the end
``{"do": "prepare", "workload": "W1"}``                     ``{"operations": ["fwd", "dx", ...]}``
``{"do": "expect", "folder": "..."}``                       ``{}``: what all must give is in the folder, in float64
``{"do": "check", "operation": "fwd", "folder": "..."}``    ``{"error": 3e-7}`` of the largest value, or ``{"wrong": "how"}``
``{"do": "time", "operation": "fwd", "seconds": 0.4}``      ``{"milliseconds": [...]}`` of each call
``{"do": "limits"}``                                        what the machine can do: see `xpconv.bench.machine`
=========================================================== ============================================================

Whatever goes wrong is answered by ``{"failed": "why"}``. It imports nothing but NumPy, xpconv and the peer's library, so that
any Python that has the library can run it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from xpconv.bench.peers.base import Operation, Peer
from xpconv.bench.workloads import ALL_WORKLOADS, Workload

FEWEST_CALLS, MOST_CALLS = 3, 2000


def main(module: str, variant: str, threads: str) -> None:
    """Serve requests until there are no more."""
    answers = _take_over_standard_output()

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    _keep_to_cores(int(threads))
    try:
        peer: Peer = importlib.import_module(module).Peer(variant, int(threads))
        versions = peer.versions()
    except ImportError as error:
        answer({"unavailable": str(error)})
        return
    answer({"versions": versions, "python": sys.version.split()[0]})
    server = _Server(peer, int(threads))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # a library may raise what it likes; the run goes on without this operation
            traceback.print_exc()
            result = {"failed": f"{type(error).__name__}: {error}"}
        answer(result)


class _Server:
    """A method a request."""

    def __init__(self, peer: Peer, threads: int) -> None:
        self.peer = peer
        self.threads = threads
        self.workload: Workload | None = None
        self.operations: dict[str, Operation] = {}

    def prepare(self, workload: str) -> dict[str, Any]:
        self.operations = {}
        gc.collect()  # the arrays of the last workload, before there are new ones
        self.workload = ALL_WORKLOADS[workload]
        self.operations = self.peer.operations(self.workload)
        return {"operations": list(self.operations)}

    def expect(self, folder: str) -> dict[str, Any]:
        assert self.workload is not None
        everything = self.operations[self.workload.operations[-1]].outcome()
        for name, array in everything.items():
            np.save(Path(folder, f"{name}.npy"), array.astype(np.float64))
        return {}

    def check(self, operation: str, folder: str) -> dict[str, Any]:
        outcome = self.operations[operation].outcome()
        errors = {}
        for name, array in outcome.items():
            expected = np.load(Path(folder, f"{name}.npy"))
            if array.shape != expected.shape:
                return {"wrong": f"{name} has the shape {array.shape}, expected {expected.shape}"}
            errors[name] = relative_error(array, expected)
        name = max(errors, key=lambda key: (not np.isfinite(errors[key]), errors[key]))
        if not np.isfinite(errors[name]):
            return {"wrong": f"{name} holds NaN or infinity"}
        return {"error": errors[name], "where": name}

    def time(self, operation: str, seconds: float) -> dict[str, Any]:
        run, clock = self.operations[operation].run, self.peer.milliseconds
        clock(run)  # once outside the clock: another peer had the caches, the memory and the threads' attention
        milliseconds: list[float] = []
        gc.collect()
        gc.disable()
        try:
            end = time.perf_counter() + seconds
            while len(milliseconds) < FEWEST_CALLS or (time.perf_counter() < end and len(milliseconds) < MOST_CALLS):
                milliseconds.append(clock(run))
        finally:
            gc.enable()
        return {"milliseconds": milliseconds}

    def limits(self) -> dict[str, Any]:
        return self.peer.limits(self.threads)


def relative_error(result: Any, expected: Any) -> float:
    """Largest difference, relative to the largest value expected; NaN if anything is NaN.

    Example:
        >>> import numpy as np
        >>> from xpconv.bench.worker import relative_error
        >>> relative_error(np.array([1.0, 4.5]), np.array([1.0, 5.0]))
        0.1
    """
    difference = float(np.abs(result.astype(np.float64) - expected).max(initial=0.0))
    largest = float(np.abs(expected).max(initial=0.0))
    return difference / largest if largest else difference


def _take_over_standard_output() -> TextIO:
    # Libraries print what they like: to standard error with it, so that the answers have a channel of their own.
    channel = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(channel, "w", encoding="utf-8")


def _keep_to_cores(threads: int) -> None:
    # Some libraries ask the system for its cores and take no setting.
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        if threads < len(usable):
            os.sched_setaffinity(0, usable[:threads])


if __name__ == "__main__":
    main(*sys.argv[1:])
