"""Pictures of filters, images, models and trainings: ``matplotlib`` figures, to be saved or shown.

matplotlib is imported by the functions that draw, and pyplot only by :func:`show`: no window, backend or global state is
touched by drawing. It comes with ``pip install 'xpconv[plot]'``.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xpconv.arguments import not_negative, positive
from xpconv.arrays import as_array
from xpconv.device import to_numpy
from xpconv.files import atomic_write
from xpconv.geometry import check_data_format, integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xpconv.callbacks import History
    from xpconv.models import Model

__all__ = [
    "confusion_counts",
    "confusion_matrix",
    "feature_maps",
    "filters",
    "images",
    "model_diagram",
    "save",
    "show",
    "training_curves",
]

# Okabe and Ito's blue and vermilion, which colour-blind people tell apart too.
TRAIN_COLOR, TEST_COLOR = "#0072B2", "#D55E00"
MARK_COLOR = TEST_COLOR
TEXT_COLOR, LINE_COLOR = "#333333", "#B0B0B0"

WEIGHTED_COLOR, PLAIN_COLOR, ARROW_COLOR = "#E3F0F8", "#F7F7F7", "#666666"

SIGNED_COLORS, UNSIGNED_COLORS, IMAGE_COLORS = "RdBu_r", "viridis", "gray"

_FILE_BACKENDS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")  # matplotlib's, which only write files

_DPI = 100
_GAP = 0.1  # between pictures, as a part of their width
# In inches:
_WIDTH, _HEIGHT, _MARGIN, _TITLE = 8.0, 10.0, 0.2, 0.5
_SMALLEST_TILE, _LARGEST_TILE, _LABEL, _BAR = 0.3, 1.4, 0.18, 0.85
_MOST_LABELS = 150
_SMALLEST_FONT = 5.0  # points
_MATRIX, _SMALLEST_CELL, _LARGEST_CELL = 8.0, 0.1, 0.55
_TALLEST = 300.0
_LABEL_LINE = 0.12  # of each further line of a label
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
    tile = None if scale is None else positive(op, "scale", scale) * weights.shape[3] / _DPI
    grid = _Grid(
        weights.shape[2:],
        integer(op, "columns", columns, 1),
        tile,
        None if margin is None else not_negative(op, "margin", margin) / _DPI,
    )
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
        image: The image itself, (H, W), (C, H, W) or (H, W, C), drawn before the maps: in shades of grey, or with three
            channels in its colours; or None.
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
        if picture.ndim == 3:
            last = picture.shape[2] in (1, 3) and (data_format == "channels_last" or len(picture) not in (1, 3))
            if not last and len(picture) not in (1, 3):
                raise ValueError(f"{op}: image must have one channel or three, got image.shape={picture.shape}")
            picture = picture if last else picture.transpose(1, 2, 0)
            picture = _displayed(picture) if picture.shape[2] == 3 else picture[..., 0]
        grid.add(picture, "image", IMAGE_COLORS)
    for index, plane in enumerate(planes):
        grid.add(plane, str(index), colors)
    return grid.draw(title, "value", shared_scale)


def images(
    x: Any,
    labels: Any = None,
    predictions: Any = None,
    *,
    classes: Sequence[str] | None = None,
    columns: int = 8,
    data_format: str | None = None,
    title: str = "Images",
) -> Figure:
    r"""Draw images side by side, above each its class; where a prediction is wrong, in vermilion, that and what it is.

    Args:
        x: Images, (N, H, W), (N, H, W, C) or (N, C, H, W), of one channel or three, all on one scale: of 0 to 1 or 0 to 255
            where they lie in it, otherwise of their least to their greatest value.
        labels: What they show: N class numbers, or N rows of which the greatest entry is the class; or None.
        predictions: What they were taken for, likewise; or None.
        classes: Names of the classes; None for their numbers.
        columns: Images in a row.
        data_format: ``"channels_first"`` or ``"channels_last"``; None tells by the axis that is 1 or 3 long.
        title: Drawn above, and with both ``labels`` and ``predictions``, how many are right.

    Returns:
        The figure.

    Raises:
        ValueError: ``x`` is not of such a shape, or is empty; labels or predictions don't fit it, or are no classes.
        TypeError: One of them is no array of real numbers.
        ImportError: matplotlib is not installed.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> x = np.random.default_rng(0).uniform(size=(3, 28, 28, 1))
        >>> figure = xc.visualize.images(x, labels=[1, 0, 1], predictions=[1, 1, 1], classes=["cat", "dog"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['dog', 'dog\nis cat', 'dog']
    """
    op = "images"
    pictures = _images(op, "x", x, 3, 4)
    if data_format is not None:
        check_data_format(op, data_format)
    if pictures.ndim == 4:
        formats = [name for name, axis in (("channels_last", 3), ("channels_first", 1)) if pictures.shape[axis] in (1, 3)]
        chosen = data_format if data_format is not None else formats[0] if len(formats) == 1 else None
        if chosen is None and formats:
            raise ValueError(f"{op}: x.shape={pictures.shape} could have its channels first or last; pass data_format")
        if chosen not in formats:
            raise ValueError(f"{op}: x must have one channel or three, got x.shape={pictures.shape}")
        pictures = pictures if chosen == "channels_last" else pictures.transpose(0, 2, 3, 1)
    pictures = _displayed(pictures)
    true, taken = (
        None if given is None else _classes_of(op, name, given, len(pictures))
        for name, given in (("labels", labels), ("predictions", predictions))
    )
    texts = [[_name_of(op, number, classes) for number in numbers] for numbers in (taken, true) if numbers is not None]
    wrong = np.zeros(len(pictures), bool) if true is None or taken is None else true != taken
    grid = _Grid(pictures.shape[1:3], integer(op, "columns", columns, 1))
    grid.image_limits = (0.0, 1.0)
    for index, picture in enumerate(pictures):
        label = "" if not texts else f"{texts[0][index]}\nis {texts[1][index]}" if wrong[index] else texts[0][index]
        grid.add(picture, label, IMAGE_COLORS, marked=bool(wrong[index]))
    if true is not None and taken is not None:
        title = f"{title}: {len(wrong) - wrong.sum()} of {len(wrong)} right"
    return grid.draw(title, "", False)


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
    name_width = max(_text_width(name, name_font) for name in names) if named else 0.0
    slanted = name_width > cell * 0.85
    matrix = cell * size
    beside, beneath = name_width + 0.4, (0.71 * name_width + 0.1 if slanted else name_font / 72) + 0.4
    right = sum(counts.diagonal())
    subtitle = f"accuracy {right / counts.sum():.1%}, {right:,} of {counts.sum():,}" + (
        "; per cent of the row" if normalize else ""
    )
    head = 0.75
    bar = 0.0 if numbered else _BAR
    width = max(
        _MARGIN + beside + matrix + bar + _MARGIN + (0.3 if slanted else 0.0),
        2 * _MARGIN + max(_text_width(title, 12), _text_width(subtitle, 9)),
    )
    height = head + matrix + beneath + 0.1

    figure = _figure(width, height)
    figure.text(_MARGIN / width, 1 - 0.16 / height, title, color=TEXT_COLOR, fontsize=12, va="top")
    figure.text(_MARGIN / width, 1 - 0.42 / height, subtitle, color=TEXT_COLOR, fontsize=9, va="top")
    axes = figure.add_axes(((_MARGIN + beside) / width, (beneath + 0.1) / height, matrix / width, matrix / height))
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
        place = ((_MARGIN + beside + matrix + 0.15) / width, bottom / height, 0.12 / width, bar_height / height)
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
        (_MARGIN + 0.12) / width,
        (beneath + 0.1 + matrix / 2) / height,
        "true",
        rotation=90,
        fontsize=9,
        color=TEXT_COLOR,
        ha="center",
        va="center",
    )
    figure.text(
        (_MARGIN + beside + matrix / 2) / width,
        0.18 / height,
        "predicted",
        fontsize=9,
        color=TEXT_COLOR,
        ha="center",
        va="center",
    )
    return figure


def model_diagram(model: Model, *, show_shapes: bool = True, show_dtype: bool = False, title: str | None = None) -> Figure:
    """Draw the layers of a model from top to bottom, and what flows from which to which.

    Args:
        model: A model that is built. Of a class of one's own, what one run through ``call`` records is drawn.
        show_shapes: Whether to tell the shape of every layer's output.
        show_dtype: Whether to tell the dtype that it computes in.
        title: Drawn above. None tells the model's name and how many parameters it has.

    Returns:
        The figure. Layers with weights are in blue; an arrow that skips layers runs beside them.

    Raises:
        ValueError: The model is not built.
        ImportError: matplotlib is not installed.

    Example:
        >>> import xpconv as xc
        >>> model = xc.models.Sequential([xc.layers.Flatten(), xc.layers.Dense(10)])
        >>> model.build((None, 28, 28, 1))
        >>> type(xc.visualize.model_diagram(model)).__name__
        'Figure'
    """
    nodes, edges = model.graph()
    dtypes = {layer.name: str(layer.dtype) for layer in _layers_of(model) if layer.dtype is not None}
    heads, details = [], []
    for node in nodes:
        heads.append((node.name, "" if node.kind == "Input" else node.kind))
        parts = []
        if show_shapes:
            parts.append(str(tuple(node.output_shape)))
        if show_dtype:
            parts.append(dtypes.get(node.name, str(model.compute_dtype_name)))
        if node.parameters:
            parts.append(f"{node.parameters:,} parameter{'s' * (node.parameters != 1)}")
        details.append("   ".join(parts))
    if title is None:
        title = f"{model.name}: {model.count_params():,} parameters"
    return _draw_diagram(heads, details, [node.parameters > 0 for node in nodes], edges, title)


def training_curves(history: History | Mapping[str, Sequence[float | None]], *, title: str = "Training") -> Figure:
    """Draw loss and accuracy over the epochs.

    Args:
        history: What a training returns. Of ``fit`` of a model: the :class:`~xpconv.callbacks.History`, or its ``history``,
            lists under ``loss`` and, where there are such, ``accuracy``, ``val_loss``, ``val_accuracy``; ``epoch`` beside
            them tells the epochs, which otherwise are 1, 2, 3 ... Without an accuracy, the first other metric is drawn.
            Of :meth:`xpconv.Trainer.run`: lists of one length under ``epoch``, ``loss``, ``train_accuracy`` and, where there
            was a test set, ``test_loss`` and ``test_accuracy``. Accuracies are fractions. Other entries are not drawn, nor are
            points that are None or not finite.
        title: Drawn above.

    Returns:
        The figure.

    Raises:
        ValueError: An entry is missing, the lists differ in length, or there is no epoch yet.
        ImportError: matplotlib is not installed.

    Notes:
        Where validation took place after some of the epochs only, the lists differ in length: pass the History, which knows
        the epochs.

    Example:
        >>> import xpconv as xc
        >>> history = {"epoch": [1, 2], "loss": [0.9, 0.3], "train_accuracy": [0.8, 0.9], "test_accuracy": [0.79, 0.88]}
        >>> type(xc.visualize.training_curves(history)).__name__
        'Figure'
        >>> figure = xc.visualize.training_curves({"loss": [0.9, 0.3], "val_loss": [0.8, 0.5]})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['loss']
    """
    op = "training_curves"
    panels = _panels_of_trainer(op, history) if _is_of_trainer(history) else _panels_of_model(op, history)
    figure = _figure(4.0 * len(panels), 3.6)
    from matplotlib.ticker import PercentFormatter

    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    figure.suptitle(title, color=TEXT_COLOR, fontsize=12, x=0.12 / len(panels) / 4, ha="left")
    for axes, (name, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        is_share = "accuracy" in name or name == "acc"
        _draw_curves(axes, curves, name, "{:.1%}" if is_share else "{:.3f}" if _shown_well(curves) else "{:.3g}")
        if name == "loss" and axes.get_ylim()[1] > 0:
            axes.set_ylim(bottom=min(0.0, axes.dataLim.y0))
        if is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if axes.get_lines():
            axes.legend(loc="upper right" if name == "loss" else "lower right" if is_share else "best", **_LEGEND)
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
    check_suffix("save", path)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def check_suffix(op: str, path: str | os.PathLike[str]) -> None:
    """Find out whether matplotlib has a format of a file's suffix.

    Raises:
        ValueError: It has none.
        ImportError: matplotlib is not installed.
    """
    formats = _figure(1.0, 1.0).canvas.get_supported_filetypes()
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
        self.marked: set[int] = set()
        self.image_limits: tuple[float, float] | None = None

    def add(self, picture: NDArray[Any], label: str, colors: str, marked: bool = False) -> None:
        """Add a picture behind the others: (H, W), drawn in these colours, or (H, W, 3), from 0 to 1."""
        if marked:
            self.marked.add(len(self.pictures))
        self.pictures.append((picture, label, colors))

    def draw(self, title: str, quantity: str, shared_scale: bool) -> Figure:
        """Draw the grid, with a bar that tells what the colours mean where they mean the same everywhere."""
        columns = min(self.columns, len(self.pictures))
        rows = math.ceil(len(self.pictures) / columns)
        labels = [label for _, label, _ in self.pictures]
        labelled = self.gap is None and len(labels) <= _MOST_LABELS and any(labels)
        above = _LABEL + _LABEL_LINE * max(label.count("\n") for label in labels) if labelled else 0.0
        tile = self.tile or self._fitting_tile(rows, columns, above)
        gap = _GAP * tile if self.gap is None else self.gap
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
            for index, ((x, y), label) in enumerate(zip(corners, labels, strict=True)):
                color = MARK_COLOR if index in self.marked else TEXT_COLOR
                style: dict[str, Any] = {"fontsize": 7, "linespacing": 1.1, "parse_math": False}
                axes.text(x + tile / 2, y - 0.03, label, color=color, ha="center", va="bottom", **style)
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
            low, high = shared if shared_scale and colors != IMAGE_COLORS else self.image_limits or _limits([picture])
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
        for chosen, color, width in (
            ([frame for index, frame in enumerate(frames) if index not in self.marked], LINE_COLOR, 0.6),
            ([frame for index, frame in enumerate(frames) if index in self.marked], MARK_COLOR, 1.8),
        ):
            collection = PatchCollection(chosen, facecolor="none", edgecolor=color, linewidth=width)
            axes.add_collection(collection, autolim=False)
        return drawn


@contextlib.contextmanager
def _needs_matplotlib() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError("xpconv.visualize draws with matplotlib, which is missing: pip install 'xpconv[plot]'") from error


def _figure(width: float, height: float) -> Figure:
    with _needs_matplotlib():
        from matplotlib.figure import Figure
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


# The points of one curve: what it is called, its epochs, its values.
_Curve = tuple[str, NDArray[Any], NDArray[Any]]


def _is_of_trainer(history: Any) -> bool:
    return isinstance(history, Mapping) and any(name in history for name in ("train_accuracy", "test_accuracy", "test_loss"))


def _panels_of_trainer(op: str, history: Any) -> dict[str, list[_Curve]]:
    missing = [name for name in ("epoch", "loss", "train_accuracy") if name not in history]
    if missing:
        raise ValueError(f"{op}: history lacks {', '.join(map(repr, missing))}; it has {sorted(history)}")
    names = ("epoch", "loss", "train_accuracy", "test_loss", "test_accuracy")
    values = {name: history[name] for name in names if name in history}
    _check_lengths(op, {name: len(column) for name, column in values.items()})
    epochs = np.asarray(values["epoch"], dtype=np.float64)

    def curves(train: str, test: str) -> list[_Curve]:
        return [
            (label, epochs, np.array(values[name], dtype=np.float64))
            for label, name in (("training", train), ("test", test))
            if name in values
        ]

    return {"loss": curves("loss", "test_loss"), "accuracy": curves("train_accuracy", "test_accuracy")}


def _panels_of_model(op: str, history: Any) -> dict[str, list[_Curve]]:
    values = getattr(history, "history", history)
    if not isinstance(values, Mapping):
        raise TypeError(f"{op}: history must be what a training returns, got {type(history).__name__}")
    given = values.get("epoch") if values is history else [epoch + 1 for epoch in history.epoch]
    if given is not None and not len(given):
        raise ValueError(f"{op}: history has no epoch yet")
    if "loss" not in values:
        raise ValueError(f"{op}: history lacks 'loss'; it has {sorted(values)}")
    metrics = [name for name in values if not name.startswith("val_") and name not in ("epoch", "loss", "learning_rate", "lr")]
    second = sorted(metrics, key=lambda name: (name != "accuracy", "accuracy" not in name, name != "acc"))[:1]
    drawn = [prefix + name for name in ("loss", *second) for prefix in ("", "val_") if prefix + name in values]
    if hasattr(history, "epochs_of"):
        epochs = {name: [epoch + 1 for epoch in history.epochs_of(name)] for name in drawn}
    else:
        counted = list(range(1, len(values["loss"]) + 1)) if given is None else list(given)
        epochs = dict.fromkeys(drawn, counted)
        lengths = {name: len(values[name]) for name in drawn}
        _check_lengths(op, lengths if given is None else {"epoch": len(given), **lengths})
    return {
        name: [
            (label, np.array(epochs[key], dtype=np.float64), np.array(values[key], dtype=np.float64))
            for label, key in (("training", name), ("validation", f"val_{name}"))
            if key in values
        ]
        for name in ("loss", *second)
    }


def _check_lengths(op: str, lengths: dict[str, int]) -> None:
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{op}: the lists of history must have one length, got {lengths}")
    if not lengths["loss"]:
        raise ValueError(f"{op}: history has no epoch yet")


def _shown_well(curves: list[_Curve]) -> bool:
    """Whether three decimals tell what the last values are."""
    last = [abs(values[np.isfinite(values)][-1:]) for _, _, values in curves]
    return all(0.01 <= value < 1000 or value == 0 for values in last for value in values)


def _draw_curves(axes: Axes, curves: list[_Curve], name: str, number: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for (label, epochs, values), color in zip(curves, (TRAIN_COLOR, TEST_COLOR), strict=False):
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


def _displayed(pictures: NDArray[Any]) -> NDArray[Any]:
    """Bring images, with their channels last if at all, to the range from 0 to 1; the axis of a single channel goes away."""
    if pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    finite = np.isfinite(pictures)
    low, high = _limits([pictures])
    if low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    scaled = (pictures - low) / (high - low)
    # What has colours cannot be masked, and is grey where a number isn't finite.
    return np.where(finite, scaled, 0.69) if pictures.shape[-1] == 3 else np.where(finite, scaled, np.nan)


def _classes_of(op: str, name: str, value: Any, samples: int | None = None) -> NDArray[np.int64]:
    """Class numbers, given as such or as rows of which the greatest entry is the class."""
    array = to_numpy(as_array(op, name, value))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{op}: {name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{op}: {name} must be class numbers, (N,), or rows of scores, (N, classes), got shape {array.shape}")
    if samples is not None and len(array) != samples:
        raise ValueError(f"{op}: there are {samples} images but {len(array)} {name}")
    if np.isnan(array).any():
        raise ValueError(f"{op}: {name} hold NaN, which is of no class")
    if array.ndim == 2 and array.shape[1] > 1:
        return np.asarray(array.argmax(axis=1), np.int64)
    array = array.reshape(-1)
    with np.errstate(invalid="ignore"):
        numbers: NDArray[np.int64] = array.astype(np.int64)
    wrong = np.flatnonzero((numbers != array) | (numbers < 0))
    if wrong.size:
        hint = "; of a single score a sample, pass score > 0.5 or so" if name == "predictions" else ""
        raise ValueError(f"{op}: {name} must be whole numbers from 0 on, got {array[wrong[0]]} at sample {wrong[0]}{hint}")
    return numbers


def _counted(op: str, labels: Any, predictions: Any, known: tuple[str, Any] | None) -> NDArray[np.int64]:
    true, taken = _classes_of(op, "labels", labels), _classes_of(op, "predictions", predictions)
    if len(true) != len(taken):
        raise ValueError(f"{op}: there are {len(true)} labels but {len(taken)} predictions")
    widths = [np.shape(given)[1] for given in (labels, predictions) if np.ndim(given) == 2]
    least = max([int(true.max()) + 1, int(taken.max()) + 1, *widths])
    size = least if known is None else integer(op, *known, 1)
    if least > size:
        what = f"{least} columns" if least in widths else f"class number {least - 1}"
        raise ValueError(f"{op}: there are {size} classes, but {what} among labels and predictions")
    return np.bincount(true * size + taken, minlength=size * size).reshape(size, size)


def _name_of(op: str, number: int, classes: Sequence[str] | None) -> str:
    if classes is None:
        return str(number)
    if number >= len(classes):
        raise ValueError(f"{op}: there are {len(classes)} classes, got class number {number}")
    return str(classes[number])


def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches."""
    with _needs_matplotlib():
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    # A dollar sign would begin a formula; here it is as wide as it looks.
    path = TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=FontProperties(weight=weight))
    return float(path.vertices[:, 0].max()) / 72


# ----------------------------------------------------------------------------------------------------------------------
# Diagrams
# ----------------------------------------------------------------------------------------------------------------------


class _Item:
    """A node of a diagram, or a place where an edge goes past the nodes of a rank."""

    def __init__(self, rank: int, node: int | None) -> None:
        self.rank = rank
        self.node = node
        self.before: list[_Item] = []
        self.after: list[_Item] = []
        self.height = 0  # nodes on the longest way down from here
        self.x = 0.0

    @property
    def leaders(self) -> list[_Item]:
        """Of those before it the ones that it should stand below: on the longest ways from the top."""
        return [item for item in self.before if item.node is not None] or self.before

    @property
    def followers(self) -> list[_Item]:
        """Of those after it the ones that should stand below it: on the longest ways to the bottom."""
        farthest = max((item.height for item in self.after), default=0)
        return [item for item in self.after if item.height == farthest]


def layered(
    count: int, edges: Sequence[tuple[int, int]], width: float, gap: float
) -> tuple[list[tuple[int, float]], list[list[tuple[int, float]]]]:
    """Lay out a graph from top to bottom: which rank each node is in, and where along it.

    Args:
        count: Number of nodes.
        edges: Pairs of nodes, from and to; a node's edges come from nodes before it.
        width: Width of a node.
        gap: Room between two nodes, or between a node and an edge that goes past it.

    Returns:
        Rank and centre of each node; and for each edge the ranks and places where it goes past nodes, none for most.

    Notes:
        A node's rank is the longest way to it. Ranks are ordered by the mean place of a node's neighbours, which leaves few
        crossings (Sugiyama, Tagawa and Toda, 1981). A node stands below the one on the longest way to it, so that the main
        line of a network is straight, and what skips layers runs beside it.
    """
    ranks = [0] * count
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        ranks[end] = max(ranks[end], ranks[start] + 1)
    for node in range(count):  # an input that is used late stands right above where it is used
        if all(end != node for _, end in edges):
            ranks[node] = min((ranks[end] for start, end in edges if start == node), default=1) - 1
    nodes = [_Item(rank, node) for node, rank in enumerate(ranks)]
    rows: list[list[_Item]] = [[] for _ in range(max(ranks, default=0) + 1)]
    for item in nodes:
        rows[item.rank].append(item)
    passing: list[list[_Item]] = []
    for start, end in edges:
        line = [_Item(rank, None) for rank in range(ranks[start] + 1, ranks[end])]
        for item in line:
            rows[item.rank].append(item)
        chain = [nodes[start], *line, nodes[end]]
        for upper, lower in itertools.pairwise(chain):
            upper.after.append(lower)
            lower.before.append(upper)
        passing.append(line)
    for row in reversed(rows):
        for item in row:
            item.height = max((lower.height + (lower.node is not None) for lower in item.after), default=0)
    _order(rows)
    _place(rows, width, gap)
    return [(item.rank, item.x) for item in nodes], [[(item.rank, item.x) for item in line] for line in passing]


def _order(rows: list[list[_Item]]) -> None:
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(8):
        down = sweep % 2 == 0
        inwards = rows if down else rows[::-1]
        for beside, row in itertools.pairwise(inwards):
            places = {id(item): place for place, item in enumerate(beside)}
            own = {id(item): place for place, item in enumerate(row)}
            means: dict[int, float] = {}
            for item in row:
                near = [places[id(other)] for other in (item.before if down else item.after)]
                means[id(item)] = sum(near) / len(near) if near else own[id(item)]
            row.sort(key=lambda item, means=means: means[id(item)])  # type: ignore[misc]
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: list[list[_Item]]) -> int:
    crossings = 0
    for upper, lower in itertools.pairwise(rows):
        places = {id(item): place for place, item in enumerate(lower)}
        ends = [sorted(places[id(item)] for item in item_above.after) for item_above in upper]
        flat = [end for group in ends for end in group]
        crossings += sum(later < end for index, end in enumerate(flat) for later in flat[index + 1 :])
    return crossings


def _place(rows: list[list[_Item]], width: float, gap: float) -> None:
    for number, row in enumerate(rows):
        wishes, weights = [], []
        for item in row:
            leaders = item.leaders
            wishes.append(sum(leader.x for leader in leaders) / len(leaders) if leaders else 0.0)
            # Of several below one, that on the longest way stays where it wishes, and the others make room.
            leads = item.node is not None and (number == 0 or any(leader.followers == [item] for leader in leaders))
            weights.append(1e6 if leads else 1.0 if item.node is not None else 1e-3)
        distances = [
            gap + width * ((left.node is not None) + (right.node is not None)) / 2 for left, right in itertools.pairwise(row)
        ]
        for item, x in zip(row, _spread(wishes, weights, distances), strict=True):
            item.x = x
        if number == 0 and len(row) > 1:  # several inputs, around the middle
            middle = (row[0].x + row[-1].x) / 2
            for item in row:
                item.x -= middle
    for row in reversed(rows):  # inputs that are used late
        for item in row:
            if not item.before and item.rank and len(row) == 1:
                item.x = item.after[0].x


def _spread(wishes: list[float], weights: list[float], distances: list[float]) -> list[float]:
    """Places in this order, at least so far from each other, as near to the wishes as can be: least weighted squares."""
    offsets = np.concatenate([[0.0], np.cumsum(distances)])
    blocks: list[list[float]] = []  # weight, mean, how many: those that touch move together
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        blocks.append([weight, wish - float(offset), 1])
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            later, earlier = blocks.pop(), blocks.pop()
            total = earlier[0] + later[0]
            blocks.append([total, (earlier[0] * earlier[1] + later[0] * later[1]) / total, earlier[2] + later[2]])
    means = [mean for _, mean, many in blocks for _ in range(int(many))]
    return [mean + float(offset) for mean, offset in zip(means, offsets, strict=True)]


def _draw_diagram(
    heads: list[tuple[str, str]], details: list[str], weighted: list[bool], edges: list[tuple[int, int]], title: str
) -> Figure:
    with _needs_matplotlib():
        from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
        from matplotlib.path import Path as Curve

    edges = list(dict.fromkeys(edges))  # a layer may read one array twice
    name_size, text_size, padding, between = 9.0, 8.0, 0.14, 0.1
    name_widths = [_text_width(name, name_size, "bold") for name, _ in heads]
    widths = [width + between + _text_width(kind, text_size) for width, (_, kind) in zip(name_widths, heads, strict=True)]
    widths += [_text_width(detail, text_size) for detail in details]
    box_width, box_height = max(widths) + 2 * padding, 0.5 if any(details) else 0.3
    step = box_height + 0.32
    places, passing = layered(len(heads), edges, box_width, 0.3)

    marks = [x for line in passing for _, x in line]
    left = min([x - box_width / 2 for _, x in places] + marks)
    right = max([x + box_width / 2 for _, x in places] + marks)
    top = _TITLE + 0.1 if title else _MARGIN
    width = 2 * _MARGIN + max(right - left, _text_width(title, 12))
    height = top + max(rank for rank, _ in places) * step + box_height + _MARGIN
    shrink = min(1.0, _TALLEST / height)  # what has more ranks than pixels cannot be drawn at all

    figure = _figure(width * shrink, height * shrink)
    if title:
        figure.text(_MARGIN / width, 1 - 0.16 / height, title, color=TEXT_COLOR, fontsize=12 * shrink, va="top")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), frame_on=False, xticks=[], yticks=[])
    shift = _MARGIN - left + max(0.0, width - 2 * _MARGIN - (right - left)) / 2

    def corner(node: int) -> tuple[float, float]:
        rank, x = places[node]
        return x + shift - box_width / 2, top + rank * step

    # Arrows that end at one node, or begin at one, lie side by side in the order of where they come from, or go to; what comes
    # straight down stays straight.
    tips: dict[tuple[int, int], float] = {}
    starts: dict[tuple[int, int], float] = {}
    for node, (_, centre) in enumerate(places):
        for ends, found, side in ((tips, 1, -1), (starts, 0, 0)):
            ways = sorted(
                (passing[index][side][1] if passing[index] else places[edge[1 - found]][1], index)
                for index, edge in enumerate(edges)
                if edge[found] == node
            )
            spacing = min(0.28, 0.7 * box_width / max(len(ways), 1))
            straight = [place for place, (x, _) in enumerate(ways) if abs(x - centre) < 1e-3]
            middle = straight[0] if len(straight) == 1 else (len(ways) - 1) / 2
            for place, (_, index) in enumerate(ways):
                ends[edges[index]] = (place - middle) * spacing
    for edge, line in zip(edges, passing, strict=True):
        (x0, y0), (x1, y1) = corner(edge[0]), corner(edge[1])
        points = [(x0 + box_width / 2 + starts[edge], y0 + box_height)]
        for rank, x in line:
            points += [(x + shift, top + rank * step), (x + shift, top + rank * step + box_height)]
        points.append((x1 + box_width / 2 + tips[edge], y1))
        vertices: list[tuple[float, float]] = [points[0]]
        codes: list[Any] = [Curve.MOVETO]
        for index, (upper, lower) in enumerate(itertools.pairwise(points)):
            if index % 2:
                vertices.append(lower)
                codes.append(Curve.LINETO)
            else:
                halfway = (upper[1] + lower[1]) / 2
                vertices += [(upper[0], halfway), (lower[0], halfway), lower]
                codes += [Curve.CURVE4] * 3
        axes.add_artist(
            FancyArrowPatch(
                path=Curve(vertices, codes),
                arrowstyle="-|>",
                mutation_scale=8 * shrink,
                linewidth=shrink,
                color=ARROW_COLOR,
                shrinkA=0,
                shrinkB=0,
            )
        )
    for node, ((name, kind), detail) in enumerate(zip(heads, details, strict=True)):
        x, y = corner(node)
        face, edge_color = (WEIGHTED_COLOR, TRAIN_COLOR) if weighted[node] else (PLAIN_COLOR, LINE_COLOR)
        axes.add_artist(
            FancyBboxPatch(
                (x, y),
                box_width,
                box_height,
                boxstyle="round,pad=0,rounding_size=0.05",
                facecolor=face,
                edgecolor=edge_color,
                linewidth=0.8 * shrink,
            )
        )
        first = y + (0.16 if detail else box_height / 2)
        text: dict[str, Any] = {"va": "center_baseline", "color": TEXT_COLOR, "parse_math": False}
        axes.text(x + padding, first, name, fontsize=name_size * shrink, fontweight="bold", **text)
        if kind:
            kind_x = x + padding + name_widths[node] + between
            axes.text(kind_x, first, kind, fontsize=text_size * shrink, **text)
        if detail:
            axes.text(x + padding, y + 0.35, detail, fontsize=text_size * shrink, **text)
    return figure


def _layers_of(layer: Any) -> list[Any]:
    return [layer, *(found for within in layer.layers_within for found in _layers_of(within))]
