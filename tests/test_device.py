"""Which devices there are, what is said about those that are not, and that asking costs nothing."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import xpconv as xc

ROOT = Path(__file__).parent.parent

ASK = """
import sys
import numpy as np, xpconv as xc
status = {status.name: status for status in xc.devices()}["numba"]
print(status.available, "numba" in sys.modules)
print(status.reason)
print(status.remedy)
for call in (
    lambda: xc.conv2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), device="numba"),
    lambda: xc.get_device("numba"),
    lambda: xc.set_default_device("numba"),
):
    try:
        call()
        print("computed")
    except xc.errors.DeviceUnavailableError as error:
        print(error)
print(xc.get_device("auto"))
print({status.name: status for status in xc.devices()}["numba"].reason)
"""


def ask(begin: str = "", path: Path = ROOT, **environment: str) -> list[str]:
    """Ask for the numba device in a process of its own: whether it is there, what is said of it, and which is the best."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XPCONV_"))}
    result = subprocess.run(
        [sys.executable, "-P", "-c", begin + ASK],
        capture_output=True,
        text=True,
        timeout=100,
        env={**kept, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}", **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_numba_is_there_and_asking_does_not_import_it() -> None:
    assert ask() == ["True False", "Numba is installed", "", *["computed"] * 3, "numba", "Numba is installed"]


@pytest.mark.parametrize("value", ["0", "", "no"])
def test_a_setting_that_disables_nothing(value: str) -> None:
    assert ask(NUMBA_DISABLE_JIT=value)[0] == "True False"


def test_numba_that_is_not_installed() -> None:
    reason, remedy = "Numba is not installed", "pip install numba"
    refusal = f"device 'numba' cannot be used here: {reason}; {remedy}"
    assert ask("import sys; sys.modules['numba'] = None") == [
        "False True",  # the None above
        *(reason, remedy),
        *(f"conv2d: {refusal}", refusal, refusal),
        *("numpy", reason),
    ]


@pytest.mark.parametrize("begin", ["", "import numba"])
def test_numba_that_is_told_to_compile_nothing(begin: str) -> None:
    answer = ask(begin, NUMBA_DISABLE_JIT="1")
    reason = "Numba is told to compile nothing (NUMBA_DISABLE_JIT)"
    refusal = f"device 'numba' cannot be used here: {reason}; unset NUMBA_DISABLE_JIT before Python starts"
    assert answer[1:] == [
        *(reason, "unset NUMBA_DISABLE_JIT before Python starts"),
        *(f"conv2d: {refusal}", refusal, refusal),
        *("numpy", reason),
    ]


def test_numba_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text('raise ImportError("Numba needs NumPy 1.9 or less.\\n  Got NumPy 2.0.")')
    answer = ask(path=tmp_path)
    reason = "its kernels cannot be imported (Numba needs NumPy 1.9 or less. Got NumPy 2.0.)"
    refusal = f"device 'numba' cannot be used here: {reason}; pip install -U numba"
    assert answer == [
        *("True False", "Numba is installed", ""),  # importing it is what would tell
        *(f"conv2d: {refusal}", refusal, refusal),
        *("numpy", reason),
    ]


def test_the_best_device_is_one_that_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text('raise OSError("libLLVM.so: no such file")')
    best, *answer = ask("import xpconv; print(xpconv.get_device('auto'))", path=tmp_path)
    assert best == "numpy"
    assert answer[:2] == ["False False", "its kernels cannot be imported (libLLVM.so: no such file)"]


@pytest.mark.usefixtures("without_cupy")
def test_a_default_device_that_is_not_there_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = next(status for status in xc.devices() if not status.available)
    monkeypatch.setenv("XPCONV_DEVICE", missing.name)
    expected = f"device '{missing.name}' cannot be used here: {missing.reason}; {missing.remedy} (named by the environment"
    with pytest.raises(xc.errors.DeviceUnavailableError, match=re.escape(expected)):
        xc.default_device()


# ---- cuda --------------------------------------------------------------------------------------------------------------


def cuda_status() -> xc.DeviceStatus:
    return next(status for status in xc.devices() if status.name == "cuda")


def assert_refused(reason: str, remedy: str) -> None:
    assert cuda_status() == xc.DeviceStatus("cuda", False, reason, remedy)
    for name in ("cuda", "cuda:1"):
        with pytest.raises(xc.errors.DeviceUnavailableError) as caught:
            xc.get_device(name)
        assert str(caught.value) == f"device '{name}' cannot be used here: {reason}; {remedy}"
    assert xc.get_device("auto").name == "numba"


def test_cards_are_named_and_the_best_device_is_the_first(cupy: Any) -> None:
    assert cuda_status() == xc.DeviceStatus("cuda", True, "cuda:0 is Stand-in, cuda:1 is Stand-in")
    assert [xc.get_device(name).name for name in ("auto", "cuda", "cuda:0", "cuda:1")] == [
        "cuda:0",
        "cuda:0",
        "cuda:0",
        "cuda:1",
    ]
    assert xc.get_device("cuda").kernels is xc.get_device("cudasim").kernels
    assert xc.get_device("cuda").xp is cupy
    assert [xc.get_device(name).asynchronous for name in ("cuda", "cudasim", "numpy")] == [True, False, False]


@pytest.mark.parametrize(("cards", "there"), [(1, "the only card is 'cuda:0'"), (2, "the cards are 'cuda:0' to 'cuda:1'")])
def test_a_card_too_many(cards: int, there: str, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy.runtime, "getDeviceCount", lambda: cards)
    for name in ("cuda:7", f"cuda:{cards}"):
        with pytest.raises(xc.errors.DeviceUnavailableError, match=f"device '{name}' cannot be used here: {there}"):
            xc.get_device(name)


@pytest.mark.usefixtures("without_cupy")
def test_cupy_that_is_not_installed() -> None:
    assert_refused("CuPy is not installed", "pip install 'xpconv[cuda13]' (with a driver older than CUDA 13: 'xpconv[cuda12]')")


@pytest.mark.usefixtures("cupy")
def test_cupy_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text('raise ImportError("libcudart.so:\\n  no such file")')
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "cupy")
        patch.syspath_prepend(tmp_path)
        assert_refused("CuPy cannot be imported (libcudart.so: no such file)", "pip install 'xpconv[cuda13]'")


def broken(error: Exception) -> Any:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("names", "value", "reason", "remedy"),
    [
        (["runtime.is_hip"], True, "CuPy is built for ROCm, and the kernels are CUDA C++", "pip install 'xpconv[cuda13]'"),
        (
            ["runtime.driverGetVersion"],
            lambda: 0,
            "there is no NVIDIA driver",
            "install the driver of your card, https://www.nvidia.com/drivers; without a card device='cudasim' runs its kernels",
        ),
        (
            ["runtime.driverGetVersion"],
            lambda: 12040,
            "the NVIDIA driver knows CUDA up to 12.4, and CuPy is built for CUDA 13.2",
            "update the driver, or replace CuPy: pip install 'xpconv[cuda12]'",
        ),
        (
            ["runtime.driverGetVersion"],
            lambda: 11080,
            "the NVIDIA driver knows CUDA up to 11.8, and CuPy is built for CUDA 13.2",
            "update the driver",
        ),
        (
            ["runtime.getDeviceCount"],
            lambda: 0,
            "there is no CUDA card",
            "device='cudasim' runs the kernels of the cuda device without one",
        ),
        (
            ["Device"],
            lambda number: SimpleNamespace(compute_capability="61"),
            "a card has the compute capability 6.1, and the kernels need 7.0",
            "hide that card: set CUDA_VISIBLE_DEVICES to the numbers of the others",
        ),
        (
            ["nvrtc.getVersion"],
            broken(RuntimeError("no libnvrtc.so.13\n")),
            "the compiler NVRTC is not installed (no libnvrtc.so.13)",
            "pip install 'xpconv[cuda13]'",
        ),
    ],
    ids=["ROCm", "no driver", "old driver", "older driver", "no card", "old card", "no NVRTC"],
)
def test_what_the_cuda_device_lacks(
    names: list[str], value: Any, reason: str, remedy: str, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    *path, name = names[0].split(".")
    monkeypatch.setattr(functools.reduce(getattr, path, cupy.cuda), name, value)
    assert_refused(reason, remedy)


def test_cards_that_are_hidden(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    error = cupy.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    monkeypatch.setattr(cupy.runtime, "getDeviceCount", broken(error))
    assert_refused("no CUDA card is visible (CUDA_VISIBLE_DEVICES=-1)", "unset CUDA_VISIBLE_DEVICES before Python starts")


def test_cuda_that_does_not_start(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = cupy.CUDARuntimeError("cudaErrorSystemDriverMismatch: driver and library differ")
    monkeypatch.setattr(cupy.runtime, "getDeviceCount", broken(error))
    assert_refused(
        "CUDA does not start (cudaErrorSystemDriverMismatch: driver and library differ)",
        "run nvidia-smi; it shows whether driver and cards are sound",
    )


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ('probe.cu(4): catastrophic error: cannot open source file "crt/mma.h"', "the CUDA header crt/mma.h is not installed"),
        ("nvrtc: error: invalid value\nfor -arch", "NVRTC does not compile (nvrtc: error: invalid value for -arch)"),
    ],
)
def test_a_compiler_that_compiles_nothing(log: str, reason: str, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy, "RawModule", broken(cupy.CompileException(log)))
    assert_refused(reason, "pip install 'xpconv[cuda13]'")


def test_a_kernel_that_does_not_compile_is_told_of(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = xc.asarray(np.ones((1, 1, 3, 3), np.float32), device="cuda")
    monkeypatch.setattr(cupy, "RawModule", broken(cupy.CompileException("error: no such thing")))
    with pytest.raises(cupy.CompileException, match="no such thing"):
        xc.max_pool2d(x)


def test_memory_that_runs_out_is_a_memory_error(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = xc.asarray(np.ones((1, 1, 3, 3), np.float32), device="cuda")
    monkeypatch.setattr(cupy, "empty", broken(cupy.OutOfMemoryError("Out of memory allocating 64 bytes")))
    with pytest.raises(MemoryError, match="64 bytes"):
        xc.max_pool2d(x)


def test_the_cupy_that_is_installed_here_is_understood() -> None:
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.runtime.driverGetVersion():
        assert cuda_status().available, cuda_status()
    else:
        assert cuda_status().reason == "there is no NVIDIA driver"


def test_the_default_device_is_what_was_set_then_the_variable_then_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XPCONV_DEVICE", raising=False)
    assert xc.default_device() == "numpy"
    monkeypatch.setenv("XPCONV_DEVICE", "numba")
    assert (xc.default_device(), xc.get_device().name) == ("numba", "numba")
    xc.set_default_device("numpy")
    try:
        assert (xc.default_device(), xc.get_device().name) == ("numpy", "numpy")
    finally:
        xc.set_default_device(None)
    assert xc.default_device() == "numba"
