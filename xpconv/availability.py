"""Which devices can be used here, why the others cannot, and what to do about it.

Looks without importing where looking is enough: Numba takes half a second to import, CuPy a third.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

DEVICE_NAMES: tuple[str, ...] = ("numpy", "numba", "cuda", "cudasim")

# What the sources of the kernels include. Without a toolkit, CuPy finds these in wheels that the extras of xpconv install.
CUDA_HEADERS = ("cuda_bf16.h", "cuda_fp16.h", "cuda_pipeline.h", "mma.h")
# Matrix instructions came with 7.0; CUDA 13 begins at 7.5.
OLDEST_CARD = 70
# The releases that wheels of CuPy are built for, with the extra that installs each.
CUDA_EXTRAS = {12: "xpconv[cuda12]", 13: "xpconv[cuda13]"}

_failed_imports: dict[str, str] = {}


@dataclass(frozen=True)
class DeviceStatus:
    """Whether a device can be used here.

    Attributes:
        name: The device's name.
        available: Whether ``device=name`` works.
        reason: Why, or why not.
        remedy: What to do about it; empty when it is available.
    """

    name: str
    available: bool
    reason: str
    remedy: str = ""


def status_of(kind: str) -> DeviceStatus:
    """The status of one of :data:`DEVICE_NAMES`."""
    if kind in _failed_imports:
        remedy = {"numba": "pip install -U numba"}.get(kind, "pip install -U --force-reinstall xpconv")
        return DeviceStatus(kind, False, _failed_imports[kind], remedy)
    return {"numpy": _numpy_status, "numba": _numba_status, "cuda": _cuda_status, "cudasim": _cudasim_status}[kind]()


def note_failed_import(kind: str, error: Exception) -> None:
    """Remember that a device's kernels cannot be imported, although all that they need seemed to be there."""
    _failed_imports[kind] = f"its kernels cannot be imported ({_one_line(error)})"


def card_count() -> int:
    """Number of CUDA cards that this process sees; CuPy and a driver must be there."""
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


def _numpy_status() -> DeviceStatus:
    return DeviceStatus("numpy", True, "always there")


def _numba_status() -> DeviceStatus:
    if importlib.util.find_spec("numba") is None:
        return DeviceStatus("numba", False, "Numba is not installed", "pip install numba")
    if "xpconv.kernels.numba" not in sys.modules and _jit_is_disabled():
        reason = "Numba is told to compile nothing (NUMBA_DISABLE_JIT)"
        return DeviceStatus("numba", False, reason, "unset NUMBA_DISABLE_JIT before Python starts")
    return DeviceStatus("numba", True, "Numba is installed")


def _jit_is_disabled() -> bool:
    config = getattr(sys.modules.get("numba"), "config", None)
    if config is not None:
        return bool(config.DISABLE_JIT)
    try:
        return int(os.environ.get("NUMBA_DISABLE_JIT", "0")) != 0
    except ValueError:  # Numba warns and goes on without it
        return False


def _cudasim_status() -> DeviceStatus:
    from xpconv import cudasim

    available, reason, remedy = cudasim.status()
    return DeviceStatus("cudasim", available, "g++ compiles the CUDA kernels for it" if available else reason, remedy)


# ---- CUDA: CuPy, the driver, a card, the compiler, its headers; each is the ground of the next --------------------------


def _cuda_status() -> DeviceStatus:
    if importlib.util.find_spec("cupy") is None:
        remedy = _install(13) + " (with a driver older than CUDA 13: 'xpconv[cuda12]')"
        return DeviceStatus("cuda", False, "CuPy is not installed", remedy)
    try:
        import cupy
    except (ImportError, OSError, RuntimeError) as error:  # a NumPy that it does not know, a library that is missing
        return DeviceStatus("cuda", False, f"CuPy cannot be imported ({_one_line(error)})", _install(13))
    trouble = _driver_trouble(cupy) or _compiler_trouble(cupy)
    if trouble:
        return DeviceStatus("cuda", False, *trouble)
    names = [cupy.cuda.runtime.getDeviceProperties(number)["name"].decode() for number in range(card_count())]
    return DeviceStatus("cuda", True, ", ".join(f"cuda:{number} is {name}" for number, name in enumerate(names)))


def _driver_trouble(cupy: Any) -> tuple[str, str] | None:
    runtime = cupy.cuda.runtime
    if runtime.is_hip:
        return "CuPy is built for ROCm, and the kernels are CUDA C++", _install(13)
    driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return (
            "there is no NVIDIA driver",
            "install the driver of your card, https://www.nvidia.com/drivers; without a card device='cudasim' runs its kernels",
        )
    if driver // 1000 < built_for // 1000:
        older = driver // 1000 in CUDA_EXTRAS
        return (
            f"the NVIDIA driver knows CUDA up to {release(driver)}, and CuPy is built for CUDA {release(built_for)}",
            "update the driver" + (f", or replace CuPy: {_install(driver // 1000)}" if older else ""),
        )
    try:
        cards = card_count()
    except runtime.CUDARuntimeError as error:
        if "cudaErrorNoDevice" not in str(error):
            return f"CUDA does not start ({_one_line(error)})", "run nvidia-smi; it shows whether driver and cards are sound"
        cards = 0
    if cards == 0:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            return f"no CUDA card is visible (CUDA_VISIBLE_DEVICES={hidden})", "unset CUDA_VISIBLE_DEVICES before Python starts"
        return "there is no CUDA card", "device='cudasim' runs the kernels of the cuda device without one"
    oldest = min(int(cupy.cuda.Device(number).compute_capability) for number in range(cards))
    if oldest < OLDEST_CARD:
        return (
            f"a card has the compute capability {oldest / 10}, and the kernels need {OLDEST_CARD / 10}",
            "hide that card: set CUDA_VISIBLE_DEVICES to the numbers of the others",
        )
    return None


def _compiler_trouble(cupy: Any) -> tuple[str, str] | None:
    remedy = _install(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    try:
        cupy.cuda.nvrtc.getVersion()
    except (RuntimeError, ImportError, OSError) as error:
        return f"the compiler NVRTC is not installed ({_one_line(error)})", remedy
    try:
        _compile_probe()
    except cupy.cuda.compiler.CompileException as error:
        missing = re.search(r'cannot open source file "([^"]+)"', str(error))
        if missing is None:
            return f"NVRTC does not compile ({_one_line(error)})", remedy
        return f"the CUDA header {missing[1]} is not installed", remedy
    return None


@functools.cache  # where it succeeded
def _compile_probe() -> None:
    from xpconv.kernels.cuda.runtime import load_on_card

    source = "".join(f"#include <{header}>\n" for header in CUDA_HEADERS) + 'extern "C" __global__ void probe() {}\n'
    load_on_card(code=source).get_function("probe")


def _install(release: int) -> str:
    return f"pip install '{CUDA_EXTRAS.get(release, CUDA_EXTRAS[13])}'"


def release(version: int) -> str:
    """A release of CUDA as it is written: 12040 is ``12.4``."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
