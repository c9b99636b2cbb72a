"""What is built for users holds every kernel and every data file, under the names that they import."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {".py", ".cu", ".cuh", ".h", ".cpp"}

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")


def shipped_files() -> set[str]:
    """Every file that users need, by the path that it has in a wheel."""
    files = set()
    for folder, name in ((ROOT / "xpconv", "xpconv"), (ROOT / "kernels", "xpconv/kernels")):
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            if inside.parts[0] == "kernels" and name == "xpconv":
                continue
            if path.suffix in SOURCES or path.parent.name == "bundled" or path.name == "py.typed":
                files.add(f"{name}/{inside.as_posix()}")
    return {name for name in files if "__pycache__" not in name}


def test_the_tree_has_what_the_tests_below_look_for() -> None:
    files = shipped_files()
    assert "xpconv/kernels/numpy/conv2d.py" in files
    assert "xpconv/datasets/bundled/train-images-idx3-ubyte.gz" in files
    assert "xpconv/kernels/cuda/common.cuh" in files
    assert "xpconv/cudasim/include/cudasim/entry.h" in files
    assert "xpconv/py.typed" in files


def test_the_list_of_packages_names_every_folder_with_code() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {Path(name).parent.as_posix().replace("/", ".") for name in shipped_files() if name.endswith((".py", ".gz"))}
    assert set(settings["packages"]) == folders


def test_the_link_to_the_kernels_is_committed() -> None:
    link = ROOT / "xpconv" / "kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../kernels")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_wheel_holds_every_file(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        assert shipped_files() <= set(archive.namelist())


def test_the_sdist_holds_every_file(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in shipped_files():
        assert name in names or name.replace("xpconv/kernels", "kernels") in names, name


def test_the_installed_wheel_computes(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = """
import numpy as np, xpconv as xc
print(xc.__file__)
print(xc.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.startswith(str(tmp_path))
    assert "4. 4." in result.stdout
