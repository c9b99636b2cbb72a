"""Importing xpconv is light, and its public names are what they claim to be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import xpconv as xc

PACKAGE = Path(xc.__file__).parent


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(result.stdout.split())


def test_importing_xpconv_imports_numpy_and_nothing_heavier() -> None:
    added = modules_after("import xpconv") - modules_after("import numpy")
    packages = {name.partition(".")[0] for name in added}
    assert "xpconv" in packages
    assert packages - set(sys.stdlib_module_names) == {"xpconv"}


def test_computing_loads_no_library_of_the_front_ends() -> None:
    added = modules_after("import numpy, xpconv; xpconv.max_pool2d(numpy.ones((1, 1, 2, 2)))")
    assert "xpconv.kernels.numpy.pool2d" in added
    assert not added & {"rich", "safetensors", "pooch", "typer", "click", "matplotlib", "torch", "cupy", "numba"}


@pytest.mark.parametrize("name", xc.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(xc, name) is getattr(xc, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'xpconv' has no attribute 'conv3d'"):
        xc.conv3d  # noqa: B018


def test_the_names_that_type_checkers_see_are_the_names_that_are_loaded() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert seen == set(xc.__all__) - {"__version__"}


def test_functional_exports_every_public_function() -> None:
    assert set(xc.functional.__all__) <= set(xc.__all__)
