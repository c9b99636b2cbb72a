"""What works on this machine and what does not: the report of ``xpconv doctor``, as plain data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import xpconv
from xpconv.availability import release
from xpconv.datasets import full_set_available, load_mnist
from xpconv.datasets.sources import CACHE_VARIABLE, DATA_VARIABLE
from xpconv.device import ENVIRONMENT_VARIABLE, default_device, devices, get_device
from xpconv.errors import DataError, DeviceUnavailableError
from xpconv.kernels.numpy.threads import usable_cores

PACKAGES = ("numpy", "pooch", "rich", "safetensors", "threadpoolctl", "typer", "matplotlib", "numba", "cupy", "ml_dtypes")
# The kernels read the later ones: kernels/numba/conv2d.py, kernels/cuda and xpconv/cudasim.
VARIABLES = (
    ENVIRONMENT_VARIABLE,
    DATA_VARIABLE,
    CACHE_VARIABLE,
    "XPCONV_CONV2D",
    "XPCONV_CUDA_AUTOTUNE",
    "XPCONV_CUDA_AUTOTUNE_CACHE",
    "XPCONV_CUDA_CONV2D",
    "XPCONV_CUDA_MATMUL",
    "XPCONV_CUDA_TILE",
    "XPCONV_TF32",
    "XPCONV_CUDASIM_CACHE",
    "XPCONV_CUDASIM_MODE",
)

# CuPy is published under the name of the CUDA release that it was built for.
_DISTRIBUTIONS = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy")}


def examine() -> dict[str, Any]:
    """Look at everything that a network's speed or a strange error may come from.

    Returns:
        Plain values, ready for JSON: ``xpconv``, ``python``, ``platform``, ``packages`` (version or None), ``devices``,
        ``default_device``, ``blas``, ``numba``, ``cuda`` and ``cudasim`` (how these devices compute, or None), ``cores``,
        ``environment`` and ``data``; and ``problems``, a list of texts, empty on a sound machine. A device that is not there is
        no problem.

    Example:
        >>> from xpconv.doctor import examine
        >>> report = examine()
        >>> report["devices"][0]["name"], report["data"]["bundled"]
        ('numpy', 'intact')
    """
    problems = []
    try:
        default = default_device()
    except (ValueError, DeviceUnavailableError) as error:
        default = None
        problems.append(str(error))
    try:
        load_mnist("bundled")
        bundled = "intact"
    except (DataError, OSError) as error:
        bundled = "damaged"
        problems.append(str(error))
    numba = _numba()  # before the devices are asked: their kernels may be there and not work
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith("XPCONV_")}
    problems += [
        f"the environment variable {name} is set, but xpconv reads {', '.join(VARIABLES)} only"
        for name in environment
        if name not in VARIABLES
    ]
    return {
        "xpconv": xpconv.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": [asdict(status) for status in devices()],
        "default_device": default,
        "blas": _blas(),
        "numba": numba,
        "cuda": _cuda(),
        "cudasim": _cudasim(),
        "cores": {"usable": usable_cores(), "physical": physical_cores()},
        "environment": environment,
        "data": {
            "bundled": bundled,
            **{name: "at hand" if full_set_available(name) else "not here" for name in ("mnist", "fashion_mnist")},
        },
        "problems": problems,
    }


def physical_cores() -> int | None:
    """Number of physical cores of this machine, or None where it cannot be told without further packages."""
    if sys.platform == "darwin":
        try:
            return int(subprocess.run(["/usr/sbin/sysctl", "-n", "hw.physicalcpu"], capture_output=True, check=True).stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    fields = re.findall(r"^(physical id|core id)\s*:\s*(\d+)", text, re.MULTILINE)
    packages = [number for name, number in fields if name == "physical id"]
    cores = [number for name, number in fields if name == "core id"]
    return len(set(zip(packages, cores, strict=True))) or None if len(packages) == len(cores) else None


def _version(package: str) -> str | None:
    for distribution in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _numba() -> dict[str, Any] | None:
    try:
        get_device("numba")
    except DeviceUnavailableError:
        return None
    from xpconv.kernels.numba import compiler, target, threads

    return {
        "threads": threads.thread_count(),
        "vector_bits": 8 * target.vector_bytes(),
        "cache": str(compiler.cache_directory()),
        "cache_trouble": compiler.cache_trouble(),
    }


def _cuda() -> dict[str, Any] | None:
    try:
        get_device("cuda")
    except DeviceUnavailableError:
        return None
    import cupy

    runtime = cupy.cuda.runtime
    cards = [runtime.getDeviceProperties(number) for number in range(runtime.getDeviceCount())]
    return {
        "cards": [
            {
                "name": card["name"].decode(),
                "compute_capability": f"{card['major']}.{card['minor']}",
                "memory_bytes": int(card["totalGlobalMem"]),
                "multiprocessors": int(card["multiProcessorCount"]),
            }
            for card in cards
        ],
        "driver": release(runtime.driverGetVersion()),
        "runtime": release(runtime.runtimeGetVersion()),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
    }


def _cudasim() -> dict[str, Any] | None:
    try:
        get_device("cudasim")
    except DeviceUnavailableError:
        return None
    from xpconv.cudasim import toolchain

    return {"mode": os.environ.get("XPCONV_CUDASIM_MODE") or "fast", "cache": str(toolchain.cache_directory())}


def _blas() -> list[dict[str, Any]]:
    import threadpoolctl

    loaded = [
        {
            "name": library["internal_api"],
            "version": library["version"],
            "threads": library["num_threads"],
            "architecture": library.get("architecture"),
        }
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]
    if loaded:
        return loaded
    # One that cannot be asked, such as Accelerate: what NumPy was built with.
    built: Any = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"]
    return [{"name": blas.get("name"), "version": blas.get("version"), "threads": None, "architecture": None}]
