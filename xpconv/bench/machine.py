"""What the machine is, and how fast it multiplies matrices and copies memory: what the figures are a share of."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.bench.cards import Card
from xpconv.bench.peers.base import EventClock
from xpconv.device import Device

MATRIX_SIZE = 2048
COPIED_BYTES = 1 << 28  # far beyond any cache
REPETITIONS = 5


def measure_limits(threads: int) -> dict[str, Any]:
    """Measure the fastest matrix product and the fastest copy of this machine.

    Args:
        threads: Threads to copy with; the product uses those of BLAS.

    Returns:
        ``gflops``: float32 GFLOP/s of NumPy's BLAS with large matrices, the best of some. The limit of the registers is some
        10 % higher, and Winograd's algorithm, which multiplies less than is counted, may surpass both.
        ``gigabytes_per_second``: bytes read and written by a copy, the best of some.
        ``blas``: What NumPy multiplies with.
    """
    from xpconv.kernels.numpy.threads import parallel

    a = np.full((MATRIX_SIZE, MATRIX_SIZE), 0.5, np.float32)
    b, c = a.copy(), np.empty_like(a)
    gflops = 2 * MATRIX_SIZE**3 / _shortest(lambda: np.matmul(a, b, out=c)) / 1e9

    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.ones_like(source)

    def copy(_: int, start: int, stop: int) -> None:
        np.copyto(target[start:stop], source[start:stop])

    copied = 2 * COPIED_BYTES / _shortest(lambda: parallel(copy, COPIED_BYTES, threads)) / 1e9
    return {"gflops": gflops, "gigabytes_per_second": copied, "blas": _blas()}


def measure_card_limits(device: Device, clock: EventClock) -> dict[str, Any]:
    """Find out what a card can do at most.

    Args:
        device: The card.
        clock: What times work on it.

    Returns:
        ``gflops``: float32 GFLOP/s of all its lanes at its highest clock.
        ``gigabytes_per_second``: bytes read and written by a copy, the best of some.
        ``blas``: Empty: there is nothing that multiplied.
        ``card``: What it is.
    """
    cupy = device.xp
    number = device.card
    attributes = cupy.cuda.Device(number).attributes
    capability = int(cupy.cuda.Device(number).compute_capability)
    driver = cupy.cuda.runtime.driverGetVersion()
    name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
    gigahertz = attributes["ClockRate"] / 1e6
    card = Card(name, capability, attributes["MultiProcessorCount"], gigahertz, 0)
    source = cupy.ones(COPIED_BYTES, np.uint8)
    target = cupy.empty_like(source)
    milliseconds = min(clock.milliseconds(lambda: cupy.copyto(target, source)) for _ in range(REPETITIONS))
    return {
        "gflops": card.gflops,
        "gigabytes_per_second": 2 * COPIED_BYTES / milliseconds / 1e6,
        "blas": "",
        "card": f"{name}, {card.multiprocessors} multiprocessors at {gigahertz:.3g} GHz, driver for CUDA {driver // 1000}",
    }


def cpu_name() -> str:
    """Name of the processor, as it calls itself.

    Example:
        >>> from xpconv.bench.machine import cpu_name
        >>> isinstance(cpu_name(), str)
        True
    """
    if sys.platform == "darwin":
        try:
            output = subprocess.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, check=True)
            return output.stdout.decode().strip()
        except (OSError, subprocess.SubprocessError):
            return platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _shortest(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _blas() -> str:
    from threadpoolctl import threadpool_info

    for library in threadpool_info():
        if library["user_api"] == "blas":
            kernels = f", kernels for {library['architecture']}" if library.get("architecture") else ""
            return f"{library['internal_api']} {library['version'] or ''}".strip() + kernels
    return "an unknown BLAS"
