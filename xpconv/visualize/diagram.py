"""Models as diagrams: a box a layer, an arrow where its output goes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from xpconv.visualize.figures import (
    LINE_COLOR,
    MARGIN,
    TEXT_COLOR,
    TITLE,
    TRAIN_COLOR,
    needs_matplotlib,
    new_figure,
    text_width,
)
from xpconv.visualize.layout import layered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xpconv.models import Model

_WEIGHTED_COLOR, _PLAIN_COLOR, _ARROW_COLOR = "#E3F0F8", "#F7F7F7", "#666666"
_TALLEST = 300.0  # inches


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


def _draw_diagram(
    heads: list[tuple[str, str]], details: list[str], weighted: list[bool], edges: list[tuple[int, int]], title: str
) -> Figure:
    with needs_matplotlib():
        from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
        from matplotlib.path import Path as Curve

    edges = list(dict.fromkeys(edges))  # a layer may read one array twice
    name_size, text_size, padding, between = 9.0, 8.0, 0.14, 0.1
    name_widths = [text_width(name, name_size, "bold") for name, _ in heads]
    widths = [width + between + text_width(kind, text_size) for width, (_, kind) in zip(name_widths, heads, strict=True)]
    widths += [text_width(detail, text_size) for detail in details]
    box_width, box_height = max(widths) + 2 * padding, 0.5 if any(details) else 0.3
    step = box_height + 0.32
    places, passing = layered(len(heads), edges, box_width, 0.3)

    marks = [x for line in passing for _, x in line]
    left = min([x - box_width / 2 for _, x in places] + marks)
    right = max([x + box_width / 2 for _, x in places] + marks)
    top = TITLE + 0.1 if title else MARGIN
    width = 2 * MARGIN + max(right - left, text_width(title, 12))
    height = top + max(rank for rank, _ in places) * step + box_height + MARGIN
    shrink = min(1.0, _TALLEST / height)  # what has more ranks than pixels cannot be drawn at all

    figure = new_figure(width * shrink, height * shrink)
    if title:
        figure.text(MARGIN / width, 1 - 0.16 / height, title, color=TEXT_COLOR, fontsize=12 * shrink, va="top")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), frame_on=False, xticks=[], yticks=[])
    shift = MARGIN - left + max(0.0, width - 2 * MARGIN - (right - left)) / 2

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
                color=_ARROW_COLOR,
                shrinkA=0,
                shrinkB=0,
            )
        )
    for node, ((name, kind), detail) in enumerate(zip(heads, details, strict=True)):
        x, y = corner(node)
        face, edge_color = (_WEIGHTED_COLOR, TRAIN_COLOR) if weighted[node] else (_PLAIN_COLOR, LINE_COLOR)
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
