"""The notebooks of examples/ run, each in a fresh kernel of this Python, and are kept with the outputs that they give."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpconv as xc

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 300_000
SECONDS = 900

# What only this machine or this run could have written: paths, addresses in memory, times.
MACHINE = re.compile(r"(?<![\w.:/])/(?!/)\w+/\w|\b[A-Za-z]:\\\w|site-packages|0x[0-9a-f]{6,}|\d\s?(ms|seconds)\b")

missing = [name for name in ("ipykernel", "matplotlib", "nbclient", "nbformat") if importlib.util.find_spec(name) is None]
needs_jupyter = pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def varies(cell):
    return "varies" in cell["metadata"].get("tags", ())


def texts(cell):
    """What the cell wrote, the outputs one after the other; a picture is told by its type alone."""
    found = []
    for output in cell.get("outputs", ()):
        if output["output_type"] == "stream":
            found.append((output["name"], "".join(output["text"])))
        elif output["output_type"] == "error":
            found.append(("error", output["evalue"]))
        elif "image/png" in output["data"]:
            found.append(("image/png", ""))
        else:
            found.append((output["output_type"], "".join(output["data"]["text/plain"])))
    return found


def execute(path, folder, **environment):
    """Run a notebook by the script that the folder's README names, in a process of its own: Jupyter's warnings stay there."""
    return subprocess.run(
        [sys.executable, str(FOLDER / "execute.py"), str(path), "--output", str(folder)],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def write(path, *sources):
    cells = [
        {"cell_type": "code", "id": f"cell-{index}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for index, source in enumerate(sources)
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


def runs():
    # The one that trains on what data it finds runs without any, too.
    for path in NOTEBOOKS:
        if path.name.startswith("001"):
            yield pytest.param(path, False, id=f"{path.stem}-bundled")
            here = xc.datasets.full_set_available("fashion_mnist")
            reason = "Fashion-MNIST is not here: XPCONV_DATA names no folder that has it"
            yield pytest.param(path, True, id=f"{path.stem}-full", marks=pytest.mark.skipif(not here, reason=reason))
        else:
            yield pytest.param(path, True, id=path.stem)


def test_there_are_notebooks_and_the_readme_has_each():
    assert [path.name[:3] for path in NOTEBOOKS] == ["000", "001", "002", "003", "004"]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\[\d{3}\]\((.+?)\)", readme) == [path.name for path in NOTEBOOKS]


@needs_jupyter
@pytest.mark.parametrize(("path", "with_data"), list(runs()))
def test_executed_it_gives_what_is_stored(path, with_data, tmp_path):
    without = {} if with_data else {"XPCONV_DATA": "", "XPCONV_CACHE": str(tmp_path / "cache")}
    run = execute(path, tmp_path, **without)
    assert run.returncode == 0, run.stderr

    stored, executed = code_cells(read(path)), code_cells(read(tmp_path / path.name))
    assert [cell["id"] for cell in stored] == [cell["id"] for cell in executed]
    for old, new in zip(stored, executed, strict=True):
        if varies(new):
            assert [kind for kind, _ in texts(old)] == [kind for kind, _ in texts(new)], new["id"]
        else:
            assert texts(old) == texts(new), f"cell {new['id']!r}: execute the notebook again, as {FOLDER / 'README.md'} tells"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert path.stat().st_size < MOST_BYTES
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert notebook["cells"][0]["cell_type"] == "markdown"

    cells = code_cells(notebook)
    # Run from top to bottom in one go.
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {kind for cell in cells for kind, _ in texts(cell)}
    assert kinds <= {"stdout", "image/png"}
    assert {"stdout", "image/png"} <= kinds
    for cell in notebook["cells"]:
        assert cell["metadata"] in ({}, {"tags": ["varies"]})
        for text in ["".join(cell["source"]), *(text for _, text in texts(cell))]:
            assert not MACHINE.search(text), MACHINE.search(text)

    # Loops beside layers, and assertions on both.
    sources = "\n".join("".join(cell["source"]) for cell in cells)
    assert sources.count("np.testing.assert_") >= 5
    assert "xc.layers." in sources
    assert re.search(r"^\s*for .+ in ", sources, re.MULTILINE)


@pytest.mark.parametrize(
    "text", ["read from /home/me/data", "'/tmp/x'", r"C:\Users", "<object at 0x7f21a0b3>", "took 13 ms", "in 4 seconds"]
)
def test_what_tells_of_a_machine_is_seen(text):
    assert MACHINE.search(text)


@needs_jupyter
def test_the_kernel_is_this_python_whatever_is_installed(tmp_path):
    # Another kernel of the usual name, and settings that would break every cell.
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "none", "language": "python"}))
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "0.py").write_text("import sys\nsys.executable = 'of the settings'\n")
    path = write(tmp_path / "which.ipynb", "import sys, xpconv\nprint(sys.executable)\nprint(xpconv.__file__)")

    (tmp_path / "out").mkdir()
    run = execute(path, tmp_path / "out", JUPYTER_PATH=str(tmp_path / "jupyter"), IPYTHONDIR=str(tmp_path / "ipython"))
    assert run.returncode == 0, run.stderr
    (cell,) = code_cells(read(tmp_path / "out" / "which.ipynb"))
    assert texts(cell) == [("stdout", f"{sys.executable}\n{xc.__file__}\n")]


@needs_jupyter
def test_a_cell_that_fails_is_told_with_its_traceback(tmp_path):
    path = write(tmp_path / "fails.ipynb", "import numpy as np", "np.testing.assert_allclose([1.0, np.nan], [1.0, 2.0])")
    (tmp_path / "out").mkdir()
    run = execute(path, tmp_path / "out")
    assert run.returncode == 1
    assert "fails.ipynb: " in run.stderr
    assert "np.testing.assert_allclose([1.0, np.nan], [1.0, 2.0])" in run.stderr
    assert "AssertionError" in run.stderr
    assert "\x1b" not in run.stderr
    assert not list((tmp_path / "out").iterdir())
