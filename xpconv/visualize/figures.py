"""What all figures share: how they begin, their colours and sizes, and how they are saved and shown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xpconv.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion, which colour-blind people tell apart too.
TRAIN_COLOR, TEST_COLOR = "#0072B2", "#D55E00"
TEXT_COLOR, LINE_COLOR = "#333333", "#B0B0B0"

DPI = 100
MARGIN, TITLE, BAR = 0.2, 0.5, 0.85  # inches; a bar tells what colours mean

_FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # matplotlib's, which only write files


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 150) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: The figure.
        path: The file; its suffix tells the format: ``.png``, ``.svg``, ``.pdf`` and what else matplotlib writes.
        dpi: Pixels an inch.

    Raises:
        ValueError: matplotlib has no format of that suffix.
        OSError: The file cannot be written; an older one stays as it was.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, xpconv as xc
        >>> figure = xc.visualize.filters(np.eye(5).reshape(1, 1, 5, 5))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "filters.png")
        ...     xc.visualize.save(figure, path)
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    check_suffix("save", path)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def check_suffix(op: str, path: str | os.PathLike[str]) -> None:
    """Find out whether matplotlib has a format of a file's suffix.

    Raises:
        ValueError: It has none.
        ImportError: matplotlib is not installed.
    """
    formats = new_figure(1.0, 1.0).canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        known = ", ".join(f".{suffix}" for suffix in sorted(formats))
        raise ValueError(f"{op}: the name of the file must end in one of {known}, got {str(path)!r}")


def show(figure: Figure) -> None:
    """Show a figure in a window or a notebook, as ``pyplot.show`` does; where there is neither, do nothing.

    Args:
        figure: The figure.
    """
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() not in _FILE_BACKENDS:
        plt.figure(FigureClass=lambda *_, **__: figure)  # type: ignore[arg-type] # into pyplot's care
        plt.show()


@contextlib.contextmanager
def needs_matplotlib() -> Iterator[None]:
    """Tell what to install where an import of matplotlib fails."""
    try:
        yield
    except ImportError as error:
        raise ImportError("xpconv.visualize draws with matplotlib, which is missing: pip install 'xpconv[plot]'") from error


def new_figure(width: float, height: float) -> Figure:
    """Begin a figure of this size in inches, which no window shows."""
    with needs_matplotlib():
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of a line of text, of which the size is given in points."""
    with needs_matplotlib():
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    # A dollar sign would begin a formula; here it is as wide as it looks.
    path = TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=FontProperties(weight=weight))
    return float(path.vertices[:, 0].max()) / 72
