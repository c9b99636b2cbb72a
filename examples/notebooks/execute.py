"""Execute the notebooks of this folder in place, each in a fresh kernel of the Python that runs this script.

python examples/notebooks/execute.py                          # all of them
python examples/notebooks/execute.py 000_convolution_by_hand.ipynb --output results/
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parent
SECONDS_PER_CELL = 600

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of tracebacks

# What is told once on a machine that is new to xpconv or to matplotlib, and is no part of a notebook.
TOLD_ONCE = re.compile(r"^(xpconv: compiling the kernels |Matplotlib is building the font cache).*\n?", re.MULTILINE)


class ThisPython(KernelSpecManager):
    """Knows one kernel, whatever is installed elsewhere: the Python that runs this script."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells and put what they gave into the notebook; the first error ends it."""
    nbformat.validate(notebook)
    with tempfile.TemporaryDirectory() as directory:
        # The kernel knows this checkout, and nobody's settings or installed kernels.
        paths = [str(FOLDER.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "IPYTHONDIR": directory}
        environment.pop("MPLBACKEND", None)  # the notebooks' own: pictures below the cell
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(
                kernel_name="python3",
                kernel_spec_manager=ThisPython(),
                connection_file=str(Path(directory, "kernel.json")),
                **({"transport": "ipc", "ip": str(Path(directory, "kernel"))} if os.name == "posix" else {}),  # no network
            ),
            timeout=SECONDS_PER_CELL,
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute(cwd=directory, env=environment)
    tidy(notebook)
    nbformat.validate(notebook)


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave nothing in the notebook that tells of the machine or the moment."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type == "code":
            cell.outputs = tidied(cell.outputs)


def tidied(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs without what was told once, text in one piece, and pictures without a description of the object."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                output.text = TOLD_ONCE.sub("", output.text)
            if not output.text:
                continue
            if kept and kept[-1].output_type == "stream" and kept[-1].name == output.name:
                kept[-1].text += output.text
                continue
        elif "image/png" in output.get("data", ()):
            output.data.pop("text/plain", None)
            output.metadata = {}
        kept.append(output)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute notebooks, each in a fresh kernel of this Python.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="files (default: all in the folder of this script)")
    parser.add_argument("--output", type=Path, help="folder to write the executed notebooks to (default: in place)")
    args = parser.parse_args()
    for path in args.notebooks or sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        try:
            execute(notebook)
        except CellExecutionError as error:
            traceback = COLOURS.sub("", str(error))
            sys.exit(f"{path.name}: {traceback}")
        written = path if args.output is None else args.output / path.name
        nbformat.write(notebook, written)
        print(f"{written} executed", flush=True)


if __name__ == "__main__":
    main()
