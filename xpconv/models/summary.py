"""The table of a model's layers."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpconv.layers.layer import Layer
    from xpconv.models.model import Model

WIDTH = 79


def summary_of(model: Model, width: int | None, nested: bool, show_trainable: bool) -> str:
    """What ``model.summary()`` prints: name, class, output shape and number of parameters of each layer, and sums."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.HEAVY_HEAD if _prints_lines() else box.ASCII, show_lines=True, width=width or WIDTH)
    for title, justify in (("Layer (type)", "left"), ("Output Shape", "left"), ("Param #", "right")):
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    if show_trainable:
        table.add_column("Trainable", justify="center")
    for depth, layer in _rows(model, nested, 0):
        cells = [f"{'  ' * depth}{layer.name} ({type(layer).__name__})", _shape_of(layer), _count_of(layer)]
        if show_trainable:
            cells.append("yes" if layer.trainable_weights else "no" if layer.built and layer.weights else "-")
        table.add_row(*(escape(cell) for cell in cells))
    text = io.StringIO()
    # In a notebook, too, the table is a part of the text, and no page of its own.
    console = Console(
        file=text, width=width or WIDTH, force_terminal=False, force_jupyter=False, color_system=None, legacy_windows=False
    )
    console.print(table)
    lines = [f'Model: "{model.name}"', text.getvalue().rstrip("\n")]
    trained, kept = model.trainable_weights, model.non_trainable_weights
    optimizer = [] if model.optimizer is None else [array for array in model.optimizer.state_dict().values() if array.ndim]
    lines.append(f" Total params: {_amount([*trained, *kept])}")
    lines.append(f" Trainable params: {_amount(trained)}")
    lines.append(f" Non-trainable params: {_amount(kept)}")
    if optimizer:
        lines.append(f" Optimizer params: {_amount(optimizer)}")
    return "\n".join(lines)


def _rows(model: Layer, nested: bool, depth: int) -> list[tuple[int, Layer]]:
    rows = []
    for layer in model.layers_within:
        rows.append((depth, layer))
        if nested:
            rows += _rows(layer, nested, depth + 1)
    return rows


def _shape_of(layer: Layer) -> str:
    if not layer.built:
        return "?"
    try:
        return str(layer.output_shape)
    except (AttributeError, NotImplementedError, TypeError):
        return "?"


def _count_of(layer: Layer) -> str:
    return f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"


def _amount(arrays: list[Any]) -> str:
    count, size = sum(int(array.size) for array in arrays), float(sum(int(array.nbytes) for array in arrays))
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{count:,} ({size:.2f} {unit})"
        size /= 1024
    raise AssertionError


def _prints_lines() -> bool:
    encoding = getattr(sys.stdout, "encoding", None)
    if encoding is None:  # no file of bytes: a text in memory
        return True
    try:
        "┃━".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
