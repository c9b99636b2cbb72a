"""A report as a picture: how many times as fast as PyTorch each peer is, workload by workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpconv.bench.results import BOOK, PeerReport, Report, Row
from xpconv.visualize.figures import LINE_COLOR, TEXT_COLOR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE = "torch:eager"
WHOLE = ("tot", "step")
BAR_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7")  # Okabe and Ito's, which colour-blind people tell apart too
# Marks of different shapes, so that colours alone need not tell the peers apart.
MARKS = {
    "torch:channels_last": ("D", "#D55E00", "#D55E00"),
    "torch:compile": ("D", "white", "#D55E00"),
    "jax": ("s", "#222222", "#222222"),
    "tensorflow": ("^", "#E69F00", "#B37C00"),
    "keras": ("v", "#E69F00", "#B37C00"),
    "onnxruntime": ("o", "white", "#222222"),
    "book:float32": ("x", "#888888", "#888888"),
    "book:float64": ("+", "#888888", "#888888"),
    BASELINE: ("|", "#D55E00", "#D55E00"),
}
# In inches:
WIDTH, ROW, MARGINS = 9.0, 0.34, 1.7


def figure(report: Report) -> Figure:
    """Draw each workload as a row: bars for xpconv's devices, marks for the others.

    Drawn is the operation of each workload that computes everything: all gradients of a layer, a step of a network.

    Args:
        report: What a run found.

    Raises:
        ValueError: There is nothing to draw.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    baseline = _baseline(report)
    rows = [row for row in _whole(report) if row.milliseconds(baseline.name) is not None]
    devices = report.devices()
    bar = 0.8 / max(1, len(devices))
    height = MARGINS + ROW * len(rows) * max(1.0, 0.65 * len(devices))
    drawing = Figure(figsize=(WIDTH, height), facecolor="white")
    drawing.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    axes = drawing.subplots()
    shown: list[float] = []
    for peer in report.measured():
        points = [
            (number, ratio.median)
            for number, row in enumerate(rows)
            if (ratio := row.ratio(baseline.name, peer.name)) is not None
        ]
        if not points or peer == baseline:
            continue
        shown += [speed for _, speed in points]
        if peer in devices:
            _draw_bars(axes, peer, points, devices.index(peer), bar, (len(devices) - 1) / 2)
        else:
            _draw_marks(axes, peer, points)
    low, high = min([0.5, *shown]), max([2.0, *shown])
    axes.set_xscale("log")
    axes.set_xlim(low / 1.15, high * 1.15)
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low / 1.15 <= tick <= high * 1.15]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda speed, _: f"{speed:g}×"))
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.axvline(1, color=TEXT_COLOR, linewidth=1.0, zorder=2.5)
    axes.grid(axis="x", color=LINE_COLOR, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE_COLOR)
    axes.tick_params(labelsize=8, color=LINE_COLOR, labelcolor=TEXT_COLOR)
    axes.tick_params(axis="y", length=0)
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    where = report.machine.card or f"{report.machine.cpu}, {threads}"
    versions = next(iter(baseline.versions.values()), "")
    axes.set_xlabel(
        f"times as fast as {baseline.label} {versions} (faster to the right; {where})",
        fontsize=8,
        color=TEXT_COLOR,
    )
    drawing.suptitle("Result and all gradients, float32", color=TEXT_COLOR, fontsize=12, x=0.015, ha="left")
    drawing.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8, labelcolor=TEXT_COLOR)
    return drawing


def _draw_bars(axes: Axes, peer: PeerReport, points: list[tuple[int, float]], index: int, bar: float, middle: float) -> None:
    places = [number + (index - middle) * bar for number, _ in points]
    speeds = [speed for _, speed in points]
    color = BAR_COLORS[index % len(BAR_COLORS)]
    # From 1 to the right where faster, from 1 to the left where slower.
    axes.barh(places, [speed - 1 for speed in speeds], bar * 0.9, left=1, color=color, label=peer.label, zorder=2)
    for place, speed in zip(places, speeds, strict=True):
        axes.annotate(
            f"{speed:.2f}×" if speed < 10 else f"{speed:.0f}×",
            (1.01, place),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=TEXT_COLOR,
        )


def _draw_marks(axes: Axes, peer: PeerReport, points: list[tuple[int, float]]) -> None:
    from matplotlib.patheffects import withStroke

    marker, face, edge = MARKS.get(peer.name, ("*", "white", "#222222"))
    options: dict[str, Any] = {"c": edge} if marker in "x+|" else {"facecolor": face, "edgecolor": edge}
    axes.scatter(
        [speed for _, speed in points],
        [number for number, _ in points],
        s=26,
        marker=marker,
        linewidths=1.0,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        label=peer.label,
        zorder=3,
        **options,
    )


def _label(row: Row) -> str:
    part = "" if row.operation in WHOLE else f" ({row.operation} alone)"
    return f"{row.workload}  {row.title}{part}"


def _whole(report: Report) -> list[Row]:
    """One row of each workload: the operation that computes everything, or the last one where that wasn't measured."""
    rows: dict[str, Row] = {}
    for row in report.rows:
        if row.workload not in rows or rows[row.workload].operation not in WHOLE:
            rows[row.workload] = row
    return list(rows.values())


def _baseline(report: Report) -> PeerReport:
    """PyTorch eager; where it wasn't measured the first other library, else xpconv's first device."""
    timed = [peer for peer in report.peers if any(row.milliseconds(peer.name) is not None for row in _whole(report))]
    if not timed:
        raise ValueError("no operation was measured, there is nothing to draw")
    others = [peer for peer in timed if peer not in report.devices() and not peer.name.startswith(BOOK)]
    return next((peer for peer in timed if peer.name == BASELINE), others[0] if others else timed[0])
