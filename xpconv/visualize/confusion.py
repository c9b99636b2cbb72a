"""Confusion matrices: how often each class was taken for each, counted and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xpconv.geometry import integer
from xpconv.visualize.classes import classes_of
from xpconv.visualize.figures import BAR, LINE_COLOR, MARGIN, TEXT_COLOR, new_figure, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In inches:
_MATRIX, _SMALLEST_CELL, _LARGEST_CELL = 8.0, 0.1, 0.55
_SMALLEST_FONT = 5.0  # points


def confusion_counts(labels: Any, predictions: Any, classes: int | None = None) -> NDArray[np.int64]:
    """Count how often each class was taken for each.

    Args:
        labels: N class numbers, or N rows of which the greatest entry is the class, as one-hot rows are.
        predictions: The same for what was predicted: class numbers, or scores, (N, classes).
        classes: Number of classes; None takes what the rows or else the greatest class number tell.

    Returns:
        int64 (classes, classes): a row a true class, a column a predicted one.

    Raises:
        ValueError: Different numbers of samples, or none; class numbers that are negative, too large or no whole numbers; NaN.
        TypeError: No array of real numbers.

    Example:
        >>> import xpconv as xc
        >>> xc.visualize.confusion_counts([0, 0, 1, 2], [0, 1, 1, 2])
        array([[1, 1, 0],
               [0, 1, 0],
               [0, 0, 1]])
    """
    return _counted("confusion_counts", labels, predictions, None if classes is None else ("classes", classes))


def confusion_matrix(
    labels: Any,
    predictions: Any,
    *,
    classes: Sequence[str] | int | None = None,
    normalize: bool = False,
    title: str = "Confusion matrix",
) -> Figure:
    """Draw how often each class was taken for each: a row a true class, a column a predicted one.

    Args:
        labels: N class numbers, or N rows of which the greatest entry is the class, as one-hot rows are.
        predictions: The same for what was predicted: class numbers, or scores, (N, classes).
        classes: Names of the classes, or their number; None takes what the rows or else the greatest class number tell.
        normalize: Whether the numbers are percentages of the row, instead of counts.
        title: Drawn above, and beneath it the accuracy.

    Returns:
        The figure. The colour of a cell is its share of the row, in either case; few are told apart better than many.

    Raises:
        ValueError: Different numbers of samples, or none; class numbers that are negative, too large or no whole numbers; NaN.
        TypeError: No array of real numbers.
        ImportError: matplotlib is not installed.

    Example:
        >>> import xpconv as xc
        >>> figure = xc.visualize.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], classes=["cat", "dog"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1', '1', '0', '2']
    """
    op = "confusion_matrix"
    names = None if classes is None or isinstance(classes, (int, np.integer)) else [str(name) for name in classes]
    known = None if classes is None else ("classes", classes if names is None else len(names))
    counts = _counted(op, labels, predictions, known)
    size = len(counts)
    names = names or [str(number) for number in range(size)]
    with np.errstate(invalid="ignore"):
        shares = np.nan_to_num(counts / counts.sum(axis=1, keepdims=True))
    texts = [
        [f"{100 * share:.1f}" if normalize else str(count) for share, count in zip(*row, strict=True)]
        for row in zip(shares, counts, strict=True)
    ]

    longest = max(len(text) for row in texts for text in row)
    cell = min(max(_MATRIX / size, _SMALLEST_CELL), _LARGEST_CELL)
    font = min(10.0, 72 * cell * 0.65, 72 * cell * 0.9 / (0.62 * longest))
    name_font = min(9.0, 72 * cell * 0.75)
    numbered = font >= _SMALLEST_FONT
    named = name_font >= _SMALLEST_FONT
    name_width = max(text_width(name, name_font) for name in names) if named else 0.0
    slanted = name_width > cell * 0.85
    matrix = cell * size
    beside, beneath = name_width + 0.4, (0.71 * name_width + 0.1 if slanted else name_font / 72) + 0.4
    right = sum(counts.diagonal())
    subtitle = f"accuracy {right / counts.sum():.1%}, {right:,} of {counts.sum():,}" + (
        "; per cent of the row" if normalize else ""
    )
    head = 0.75
    bar = 0.0 if numbered else BAR
    width = max(
        MARGIN + beside + matrix + bar + MARGIN + (0.3 if slanted else 0.0),
        2 * MARGIN + max(text_width(title, 12), text_width(subtitle, 9)),
    )
    height = head + matrix + beneath + 0.1

    figure = new_figure(width, height)
    figure.text(MARGIN / width, 1 - 0.16 / height, title, color=TEXT_COLOR, fontsize=12, va="top")
    figure.text(MARGIN / width, 1 - 0.42 / height, subtitle, color=TEXT_COLOR, fontsize=9, va="top")
    axes = figure.add_axes(((MARGIN + beside) / width, (beneath + 0.1) / height, matrix / width, matrix / height))
    from matplotlib.colors import PowerNorm

    drawn = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
    if numbered:
        for row in range(size):
            for column in range(size):
                color = "white" if shares[row, column] > 0.4 else LINE_COLOR if counts[row, column] == 0 else TEXT_COLOR
                axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=font, color=color)
    else:
        bar_height = min(2.25, matrix)
        bottom = beneath + 0.1 + matrix - bar_height
        place = ((MARGIN + beside + matrix + 0.15) / width, bottom / height, 0.12 / width, bar_height / height)
        scale = figure.add_axes(place)
        figure.colorbar(drawn, cax=scale).outline.set_edgecolor(LINE_COLOR)
        scale.tick_params(labelsize=7, length=2, color=LINE_COLOR, labelcolor=TEXT_COLOR)
        scale.set_ylabel("share of the row", fontsize=8, color=TEXT_COLOR)
    if named:
        style: dict[str, Any] = {"fontsize": name_font, "color": TEXT_COLOR, "parse_math": False}
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        axes.set_xticks(range(size), names, **style, **turned)
        axes.set_yticks(range(size), names, **style)
    axes.tick_params(length=0)
    axes.spines[:].set_color(LINE_COLOR)
    # One inch of the figure is one unit along the axes: the names' widths are known, and the axes' titles lie beyond them.
    figure.text(
        (MARGIN + 0.12) / width,
        (beneath + 0.1 + matrix / 2) / height,
        "true",
        rotation=90,
        fontsize=9,
        color=TEXT_COLOR,
        ha="center",
        va="center",
    )
    figure.text(
        (MARGIN + beside + matrix / 2) / width,
        0.18 / height,
        "predicted",
        fontsize=9,
        color=TEXT_COLOR,
        ha="center",
        va="center",
    )
    return figure


def _counted(op: str, labels: Any, predictions: Any, known: tuple[str, Any] | None) -> NDArray[np.int64]:
    true, taken = classes_of(op, "labels", labels), classes_of(op, "predictions", predictions)
    if len(true) != len(taken):
        raise ValueError(f"{op}: there are {len(true)} labels but {len(taken)} predictions")
    widths = [np.shape(given)[1] for given in (labels, predictions) if np.ndim(given) == 2]
    least = max([int(true.max()) + 1, int(taken.max()) + 1, *widths])
    size = least if known is None else integer(op, *known, 1)
    if least > size:
        what = f"{least} columns" if least in widths else f"class number {least - 1}"
        raise ValueError(f"{op}: there are {size} classes, but {what} among labels and predictions")
    return np.bincount(true * size + taken, minlength=size * size).reshape(size, size)
