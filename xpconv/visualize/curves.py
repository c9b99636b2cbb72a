"""Trainings as curves: loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xpconv.visualize.figures import LINE_COLOR, TEST_COLOR, TEXT_COLOR, TRAIN_COLOR, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xpconv.callbacks import History

_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 8, "labelcolor": TEXT_COLOR}

# The points of one curve: what it is called, its epochs, its values.
_Curve = tuple[str, NDArray[Any], NDArray[Any]]


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
    figure = new_figure(4.0 * len(panels), 3.6)
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
