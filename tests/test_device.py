"""Which devices there are, what is said about those that are not, and that asking costs nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


def test_a_default_device_that_is_not_there_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = next(status for status in xc.devices() if not status.available)
    monkeypatch.setenv("XPCONV_DEVICE", missing.name)
    expected = f"device '{missing.name}' cannot be used here: {missing.reason}; {missing.remedy} (named by the environment"
    with pytest.raises(xc.errors.DeviceUnavailableError, match=re.escape(expected)):
        xc.default_device()


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
