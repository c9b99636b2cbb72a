"""What goes into a row of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpconv.geometry import integer


class Input:
    """What goes into a :class:`Sequential`, as its first entry: the weights are then there at once.

    Args:
        shape: Shape of one sample, without the axis of the batch.
        batch_size: Samples in a batch; None for any number.

    Example:
        >>> import xpconv as xc
        >>> model = xc.Sequential([xc.Input((28, 28, 1)), xc.layers.Conv2D(30, 2)], device="numpy")
        >>> model.output_shape, model.count_params()
        ((None, 27, 27, 30), 150)
    """

    def __init__(self, shape: Sequence[int], batch_size: int | None = None) -> None:
        self.shape = tuple(integer("Input", f"shape[{axis}]", size, 1) for axis, size in enumerate(shape))
        self.batch_size = None if batch_size is None else integer("Input", "batch_size", batch_size, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"shape": list(self.shape), "batch_size": self.batch_size}
