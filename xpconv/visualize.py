"""Pictures of filters, of what they see in an image, and of a training: ``matplotlib`` figures, to be saved or shown.

matplotlib is imported by the functions that draw, and pyplot only by :func:`show`: no window, backend or global state is
touched by drawing. It comes with ``pip install 'xpconv[plot]'``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xpconv.arrays import as_array
from xpconv.device import to_numpy
from xpconv.files import atomic_write
from xpconv.geometry import check_data_format, integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["feature_maps", "filters", "save", "show", "training_curves"]

# Okabe and Ito's blue and vermilion, which colour-blind people tell apart too.
TRAIN_COLOR, TEST_COLOR = "#0072B2", "#D55E00"
TEXT_COLOR, LINE_COLOR = "#333333", "#B0B0B0"

SIGNED_COLORS, UNSIGNED_COLORS, IMAGE_COLORS = "RdBu_r", "viridis", "gray"

_FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # matplotlib's, which only write files

_DPI = 100
_GAP = 0.1  # between pictures, as a part of their width
# In inches:
_WIDTH, _HEIGHT, _MARGIN, _TITLE = 8.0, 10.0, 0.2, 0.5
_SMALLEST_TILE, _LARGEST_TILE, _LABEL, _BAR = 0.3, 1.4, 0.18, 0.85
_MOST_LABELS = 150
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8, "labelcolor": TEXT_COLOR}


def filters(
    w: Any,
    *,
    columns: int = 8,
    channel: int | None = None,
    shared_scale: bool = True,
    scale: float | None = None,
    margin: float | None = None,
    data_format: str = "channels_first",
    title: str = "Filters",
) -> Figure:
    """Draw the filters of a convolution: red where a weight is positive, blue where it is negative, grey where it is NaN.

    Args:
        w: Filters, (F, C, KH, KW), or (KH, KW, C, F) for ``channels_last``.
        columns: Filters in a row, where one channel of each is drawn.
        channel: The channel to draw. None draws the only one or, where there are several, all of them: a row a filter, a
            column a channel.
        shared_scale: Whether a colour means the same weight in every filter. Otherwise each filter has the colours scaled
            to its own largest weight.
        scale: Width and height of a weight in pixels, at 100 dots an inch. None chooses one for a figure of at most 8
            inches.
        margin: Pixels between the filters. None leaves room for a number above each.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        title: Drawn above.

    Returns:
        The figure.

    Raises:
        ValueError: ``w`` has not four axes or is empty, or has no such channel.
        TypeError: ``w`` is no array of real numbers.
        ImportError: matplotlib is not installed.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> figure = xc.visualize.filters(np.random.default_rng(0).normal(size=(30, 1, 5, 5)))
        >>> type(figure).__name__
        'Figure'
    """
    op = "filters"
    weights = _images(op, "w", w, 4)
    if check_data_format(op, data_format) == "channels_last":
        weights = weights.transpose(3, 2, 0, 1)
    count, channels = weights.shape[:2]
    if channel is not None and not 0 <= integer(op, "channel", channel, 0) < channels:
        raise ValueError(f"{op}: channel must be below {channels}, the number of channels, got {channel}")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"{op}: scale must be above 0 and finite, got {scale!r}")
    if margin is not None and not 0 <= margin < math.inf:
        raise ValueError(f"{op}: margin must be at least 0 and finite, got {margin!r}")
    tile = None if scale is None else scale * weights.shape[3] / _DPI
    grid = _Grid(weights.shape[2:], integer(op, "columns", columns, 1), tile, None if margin is None else margin / _DPI)
    if channels == 1 or channel is not None:
        for index in range(count):
            grid.add(weights[index, channel or 0], str(index), SIGNED_COLORS)
    else:
        grid.columns = channels
        for index in range(count):
            for number in range(channels):
                grid.add(weights[index, number], f"{index}, {number}", SIGNED_COLORS)
        title = f"{title} (row: filter, column: channel)"
    return grid.draw(title, "weight", shared_scale)


def feature_maps(
    maps: Any,
    *,
    image: Any = None,
    columns: int = 8,
    shared_scale: bool = True,
    data_format: str = "channels_first",
    title: str = "Feature maps",
) -> Figure:
    """Draw the channels of what a layer makes of one image.

    Args:
        maps: Output of a layer for one image, (C, H, W) or (1, C, H, W), or with the channels last for ``channels_last``.
            Drawn in red and blue around 0 where some of it is negative, and from dark to bright where nothing is.
        image: The image itself, (H, W), (1, H, W) or (H, W, 1), drawn before the maps in shades of grey; or None.
        columns: Pictures in a row.
        shared_scale: Whether a colour means the same value in every map. Otherwise each map has a scale of its own.
        data_format: ``"channels_first"`` or ``"channels_last"``.
        title: Drawn above.

    Returns:
        The figure.

    Raises:
        ValueError: ``maps`` or ``image`` is not of such a shape, or is empty.
        TypeError: One of them is no array of real numbers.
        ImportError: matplotlib is not installed.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> image = np.linspace(0, 1, 784).reshape(1, 28, 28)
        >>> maps = xc.conv2d(image, np.random.default_rng(0).normal(size=(12, 1, 5, 5)))
        >>> figure = xc.visualize.feature_maps(maps, image=image)
        >>> type(figure).__name__
        'Figure'
    """
    op = "feature_maps"
    planes = _images(op, "maps", maps, 3, 4)
    if planes.ndim == 4:
        if len(planes) != 1:
            raise ValueError(f"{op}: maps must be those of one image, got {len(planes)} (maps.shape={planes.shape})")
        planes = planes[0]
    if check_data_format(op, data_format) == "channels_last":
        planes = planes.transpose(2, 0, 1)
    colors = SIGNED_COLORS if (planes < 0).any() else UNSIGNED_COLORS
    grid = _Grid(planes.shape[1:], integer(op, "columns", columns, 1))
    if image is not None:
        picture = _images(op, "image", image, 2, 3)
        if picture.ndim == 3 and 1 not in (picture.shape[0], picture.shape[2]):
            raise ValueError(f"{op}: image must have one channel, got image.shape={picture.shape}")
        grid.add(picture if picture.ndim == 2 else picture.squeeze(0 if len(picture) == 1 else 2), "image", IMAGE_COLORS)
    for index, plane in enumerate(planes):
        grid.add(plane, str(index), colors)
    return grid.draw(title, "value", shared_scale)


def training_curves(history: Mapping[str, Sequence[float | None]], *, title: str = "Training") -> Figure:
    """Draw loss and accuracy over the epochs.

    Args:
        history: What :meth:`xpconv.Trainer.run` returns: lists of one length under ``epoch``, ``loss``,
            ``train_accuracy`` and, where there was a test set, ``test_loss`` and ``test_accuracy``; accuracies as
            fractions. Other entries are not drawn, nor are points that are None or not finite.
        title: Drawn above.

    Returns:
        The figure.

    Raises:
        ValueError: An entry is missing, the lists differ in length, or there is no epoch yet.
        ImportError: matplotlib is not installed.

    Example:
        >>> import xpconv as xc
        >>> history = {"epoch": [1, 2], "loss": [0.9, 0.3], "train_accuracy": [0.8, 0.9], "test_accuracy": [0.79, 0.88]}
        >>> type(xc.visualize.training_curves(history)).__name__
        'Figure'
    """
    op = "training_curves"
    missing = [name for name in ("epoch", "loss", "train_accuracy") if name not in history]
    if missing:
        raise ValueError(f"{op}: history lacks {', '.join(map(repr, missing))}; it has {sorted(history)}")
    names = ("epoch", "loss", "train_accuracy", "test_loss", "test_accuracy")
    lengths = {name: len(history[name]) for name in names if name in history}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{op}: the lists of history must have one length, got {lengths}")
    if not lengths["epoch"]:
        raise ValueError(f"{op}: history has no epoch yet")
    curves = {name: np.array(history.get(name, [None] * lengths["epoch"]), dtype=np.float64) for name in names}

    figure = _figure(8.0, 3.6)
    from matplotlib.ticker import PercentFormatter

    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    figure.suptitle(title, color=TEXT_COLOR, fontsize=12, x=0.015, ha="left")
    loss, accuracy = figure.subplots(1, 2)
    epochs, train, test = curves["epoch"], curves["train_accuracy"], curves["test_accuracy"]
    _draw_curves(loss, epochs, curves["loss"], curves["test_loss"], "loss", "{:.3f}")
    _draw_curves(accuracy, epochs, train, test, "accuracy", "{:.1%}")
    loss.set_ylim(bottom=0)
    loss.legend(loc="upper right", **_LEGEND)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.legend(loc="lower right", **_LEGEND)
    return figure


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
    formats = figure.canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        known = ", ".join(f".{suffix}" for suffix in sorted(formats))
        raise ValueError(f"save: the name of the file must end in one of {known}, got {str(path)!r}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def show(figure: Figure) -> None:
    """Show a figure in a window or a notebook, as ``pyplot.show`` does; where there is neither, do nothing.

    Args:
        figure: The figure.
    """
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() not in _FILE_BACKENDS:
        plt.figure(FigureClass=lambda *_, **__: figure)  # type: ignore[arg-type] # into pyplot's care
        plt.show()


class _Grid:
    """Pictures of one size side by side in rows, each in a frame.

    Args:
        size: Height and width of the pictures, in their own pixels.
        columns: Pictures in a row.
        tile: Width that a picture is drawn with, in inches; None chooses one.
        gap: Room between the pictures, in inches; None leaves room for a label above each.
    """

    def __init__(self, size: tuple[int, ...], columns: int, tile: float | None = None, gap: float | None = None) -> None:
        self.aspect = size[0] / size[1]
        self.columns = columns
        self.tile = tile
        self.gap = gap
        self.pictures: list[tuple[NDArray[Any], str, str]] = []

    def add(self, picture: NDArray[Any], label: str, colors: str) -> None:
        """Add a picture behind the others."""
        self.pictures.append((picture, label, colors))

    def draw(self, title: str, quantity: str, shared_scale: bool) -> Figure:
        """Draw the grid, with a bar that tells what the colours mean where they mean the same everywhere."""
        columns = min(self.columns, len(self.pictures))
        rows = math.ceil(len(self.pictures) / columns)
        labelled = self.gap is None and len(self.pictures) <= _MOST_LABELS
        tile = self.tile or self._fitting_tile(rows, columns, _LABEL if labelled else 0.0)
        gap = _GAP * tile if self.gap is None else self.gap
        above = _LABEL if labelled else 0.0
        step = (tile + gap, above + tile * self.aspect + gap)  # from one picture to the next, right and down
        grid_width, grid_height = columns * step[0] - gap, rows * step[1] - gap
        width = 2 * _MARGIN + max(grid_width + (_BAR if shared_scale else 0), 0.1 * len(title))
        height = _TITLE + grid_height + _MARGIN

        figure = _figure(width, height)
        figure.text(_MARGIN / width, 1 - 0.16 / height, title, color=TEXT_COLOR, fontsize=12, va="top")
        # One inch of the figure is one unit along the axes.
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), frame_on=False, xticks=[], yticks=[])
        corners = [
            (_MARGIN + place % columns * step[0], _TITLE + place // columns * step[1] + above)
            for place in range(len(self.pictures))
        ]
        drawn = self._draw_pictures(axes, corners, tile, shared_scale)
        if labelled:
            for (x, y), (_, label, _) in zip(corners, self.pictures, strict=True):
                axes.text(x + tile / 2, y - 0.03, label, fontsize=7, color=TEXT_COLOR, ha="center", va="bottom")
        if shared_scale:
            top, bar_height = _TITLE + above, min(2.25, grid_height - above)
            left = _MARGIN + grid_width + 0.2
            bar = figure.add_axes((left / width, 1 - (top + bar_height) / height, 0.12 / width, bar_height / height))
            figure.colorbar(drawn, cax=bar).outline.set_edgecolor(LINE_COLOR)
            bar.tick_params(labelsize=7, length=2, color=LINE_COLOR, labelcolor=TEXT_COLOR)
            bar.set_ylabel(quantity, fontsize=8, color=TEXT_COLOR)
        return figure

    def _fitting_tile(self, rows: int, columns: int, above: float) -> float:
        # As large as the width allows; many rows make pictures smaller too, but not too small to be seen.
        of_width = (_WIDTH - 2 * _MARGIN - _BAR) / (columns * (1 + _GAP))
        of_height = (_HEIGHT / rows - above) / ((1 + _GAP) * self.aspect)
        return min(_LARGEST_TILE, _LARGEST_TILE / self.aspect, of_width, max(of_height, _SMALLEST_TILE))

    def _draw_pictures(self, axes: Axes, corners: list[tuple[float, float]], tile: float, shared_scale: bool) -> Any:
        from matplotlib import colormaps
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Rectangle

        height = tile * self.aspect
        shared = _limits([picture for picture, _, colors in self.pictures if colors != IMAGE_COLORS])
        drawn = None
        for (x, y), (picture, _, colors) in zip(corners, self.pictures, strict=True):
            low, high = shared if shared_scale and colors != IMAGE_COLORS else _limits([picture])
            if colors == SIGNED_COLORS:
                high = max(abs(low), abs(high))
                low = -high
            image = axes.imshow(
                picture,
                cmap=colormaps[colors].with_extremes(bad=LINE_COLOR),
                vmin=low,
                vmax=high,
                interpolation="nearest",
                aspect="auto",
                extent=(x, x + tile, y + height, y),
            )
            drawn = image if colors != IMAGE_COLORS else drawn
        frames = [Rectangle(corner, tile, height) for corner in corners]
        axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=LINE_COLOR, linewidth=0.6), autolim=False)
        return drawn


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("xpconv.visualize draws with matplotlib, which is missing: pip install 'xpconv[plot]'") from error
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white")


def _images(op: str, name: str, value: Any, *axes: int) -> NDArray[Any]:
    array = to_numpy(as_array(op, name, value))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{op}: {name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in axes or 0 in array.shape:
        counts = " or ".join(map(str, axes))
        raise ValueError(f"{op}: {name} must have {counts} axes, none of them empty, got {name}.shape={array.shape}")
    return array.astype(np.float64)


def _limits(pictures: list[NDArray[Any]]) -> tuple[float, float]:
    finite = [picture[np.isfinite(picture)] for picture in pictures]
    low = min((float(part.min()) for part in finite if part.size), default=0.0)
    high = max((float(part.max()) for part in finite if part.size), default=1.0)
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _draw_curves(axes: Axes, epochs: NDArray[Any], train: NDArray[Any], test: NDArray[Any], name: str, number: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for values, label, color in ((train, "training", TRAIN_COLOR), (test, "test", TEST_COLOR)):
        shown = np.isfinite(values)
        if not shown.any():
            continue
        marker = "o" if shown.sum() <= 40 else ""
        label = f"{label}  {number.format(values[shown][-1])}"
        axes.plot(epochs[shown], values[shown], color=color, marker=marker, markersize=3.5, linewidth=1.6, label=label)
    axes.set_title(name, loc="left", fontsize=10, color=TEXT_COLOR)
    axes.set_xlabel("epoch", fontsize=9, color=TEXT_COLOR)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=LINE_COLOR, linewidth=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE_COLOR)
    axes.tick_params(labelsize=8, color=LINE_COLOR, labelcolor=TEXT_COLOR)
