"""What all layers of images share."""

from __future__ import annotations

from numpy.typing import DTypeLike

from xpconv.device import Device
from xpconv.geometry import check_data_format
from xpconv.layers.layer import Layer, Shape


class ImageLayer(Layer):
    """A layer that takes images of four axes, in one of two orders."""

    def __init__(
        self,
        data_format: str | None,
        *,
        name: str | None,
        dtype: DTypeLike | None,
        trainable: bool,
        device: str | Device | None,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable, device=device)
        self.data_format = check_data_format(type(self).__name__, "channels_last" if data_format is None else data_format)

    def build(self, input_shape: Shape) -> None:
        """See :meth:`Layer.build`."""
        self.expect(4)
