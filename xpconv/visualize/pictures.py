"""Arrays as pictures side by side: filters, feature maps, images, and the grid that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xpconv.arguments import not_negative, positive
from xpconv.arrays import as_array
from xpconv.device import to_numpy
from xpconv.geometry import check_data_format, integer
from xpconv.visualize.classes import classes_of
from xpconv.visualize.figures import BAR, DPI, LINE_COLOR, MARGIN, TEST_COLOR, TEXT_COLOR, TITLE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK_COLOR = TEST_COLOR
SIGNED_COLORS, UNSIGNED_COLORS, IMAGE_COLORS = "RdBu_r", "viridis", "gray"

_MOST_LABELS = 150
_GAP = 0.1  # between pictures, as a part of their width
# In inches:
_WIDTH, _HEIGHT = 8.0, 10.0
_SMALLEST_TILE, _LARGEST_TILE = 0.3, 1.4
_LABEL, _LABEL_BASELINE = 0.18, 0.055  # above a picture: room for a label, and where its last line stands
_LABEL_LINE = 0.12  # of each further line of a label


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
    tile = None if scale is None else positive(op, "scale", scale) * weights.shape[3] / DPI
    grid = _Grid(
        weights.shape[2:],
        integer(op, "columns", columns, 1),
        tile,
        None if margin is None else not_negative(op, "margin", margin) / DPI,
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
        None if given is None else classes_of(op, name, given, len(pictures))
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
        width = 2 * MARGIN + max(grid_width + (BAR if shared_scale else 0), 0.1 * len(title))
        height = TITLE + grid_height + MARGIN

        figure = new_figure(width, height)
        figure.text(MARGIN / width, 1 - 0.16 / height, title, color=TEXT_COLOR, fontsize=12, va="top")
        # One inch of the figure is one unit along the axes.
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), frame_on=False, xticks=[], yticks=[])
        corners = [
            (MARGIN + place % columns * step[0], TITLE + place // columns * step[1] + above)
            for place in range(len(self.pictures))
        ]
        drawn = self._draw_pictures(axes, corners, tile, shared_scale)
        if labelled:
            for index, ((x, y), label) in enumerate(zip(corners, labels, strict=True)):
                color = MARK_COLOR if index in self.marked else TEXT_COLOR
                style: dict[str, Any] = {"fontsize": 7, "linespacing": 1.1, "parse_math": False}
                axes.text(x + tile / 2, y - _LABEL_BASELINE, label, color=color, ha="center", va="baseline", **style)
        if shared_scale:
            top, bar_height = TITLE + above, min(2.25, grid_height - above)
            left = MARGIN + grid_width + 0.2
            bar = figure.add_axes((left / width, 1 - (top + bar_height) / height, 0.12 / width, bar_height / height))
            figure.colorbar(drawn, cax=bar).outline.set_edgecolor(LINE_COLOR)
            bar.tick_params(labelsize=7, length=2, color=LINE_COLOR, labelcolor=TEXT_COLOR)
            bar.set_ylabel(quantity, fontsize=8, color=TEXT_COLOR)
        return figure

    def _fitting_tile(self, rows: int, columns: int, above: float) -> float:
        # As large as the width allows; many rows make pictures smaller too, but not too small to be seen.
        of_width = (_WIDTH - 2 * MARGIN - BAR) / (columns * (1 + _GAP))
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


def _name_of(op: str, number: int, classes: Sequence[str] | None) -> str:
    if classes is None:
        return str(number)
    if number >= len(classes):
        raise ValueError(f"{op}: there are {len(classes)} classes, got class number {number}")
    return str(classes[number])
