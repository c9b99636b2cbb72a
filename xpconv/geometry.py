"""Where a sliding window stands on an image: sizes and paddings, computed and checked once for every device.

Each public function of :mod:`xpconv.functional` turns the caller's arguments into one of the two frozen records below and
hands it to the kernels. A kernel trusts the record: whatever a caller can get wrong is refused here, in the caller's words.

The window along one axis (``kernel=3, dilation=2, stride=2, padding=(1, 1)``)::

      padding      image (size 6)      padding
        p     0   1   2   3   4   5      p
        x         x       x                     output 0 reads positions -1, 1, 3
                  x       x       x             output 1 reads positions  1, 3, 5

      span   = dilation * (kernel - 1) + 1                         = 5
      output = floor((size + pads - span) / stride) + 1            = 2
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from xpconv.arguments import boolean

DataFormat: TypeAlias = Literal["channels_first", "channels_last"]
Pair: TypeAlias = tuple[int, int]
IntOrPair: TypeAlias = int | Sequence[int]
OpenSize: TypeAlias = tuple[int | None, int | None]  # of images whose height or width is not known yet
Padding: TypeAlias = int | str | Sequence[int] | Sequence[Sequence[int]]

# Elements of 8 bytes that an array can have at most.
LARGEST_ARRAY = 2**60

# A length that is known, or one that may not be.
Length = TypeVar("Length", int, int | None)

DATA_FORMATS: tuple[DataFormat, ...] = ("channels_first", "channels_last")


@dataclass(frozen=True, slots=True)
class Window2d:
    """A window that slides over every image of a batch: what pooling and im2col need to know.

    Attributes:
        batch: Number of images N.
        channels: Channels C of the images.
        size: Height and width of the images, without padding.
        kernel_size: Height and width of the window, in taps.
        stride: Step between neighbouring windows.
        padding: ``((top, bottom), (left, right))``.
        dilation: Step between neighbouring taps of one window.
        output_size: Height and width of the result.
        data_format: ``"channels_first"`` (N, C, H, W) or ``"channels_last"`` (N, H, W, C).
    """

    batch: int
    channels: int
    size: Pair
    kernel_size: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    output_size: Pair
    data_format: DataFormat

    @property
    def taps(self) -> int:
        """Number of positions that one window reads in one channel."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def span(self) -> Pair:
        """Height and width that one window covers, dilation included."""
        return (
            window_span(self.kernel_size[0], self.dilation[0]),
            window_span(self.kernel_size[1], self.dilation[1]),
        )

    @property
    def swept_size(self) -> Pair:
        """Height and width of the padded region that the windows really visit.

        It starts ``padding[axis][0]`` before the image. Rows past the last window are left out; with ``ceil_mode`` it can
        reach past the padding.
        """
        (out_height, out_width), (stride_h, stride_w), (span_h, span_w) = self.output_size, self.stride, self.span
        return (out_height - 1) * stride_h + span_h, (out_width - 1) * stride_w + span_w

    @property
    def inside(self) -> bool:
        """Whether no window ever leaves the image."""
        (top, _), (left, _) = self.padding
        swept_height, swept_width = self.swept_size
        return top == left == 0 and swept_height <= self.size[0] and swept_width <= self.size[1]

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the batch of images."""
        return batch_shape(self.batch, self.channels, self.size, self.data_format)

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the result of pooling."""
        return batch_shape(self.batch, self.channels, self.output_size, self.data_format)


@dataclass(frozen=True, slots=True)
class Conv2dGeometry(Window2d):
    """A convolution: the window, and how channels become filters.

    Attributes:
        filters: Number of filters F, the channels of the result.
        groups: Number of groups; each filter reads ``channels // groups`` channels.
    """

    filters: int
    groups: int

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the result."""
        return batch_shape(self.batch, self.filters, self.output_size, self.data_format)

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight: (F, C/groups, KH, KW), or (KH, KW, C/groups, F) for ``channels_last``."""
        per_group = self.channels // self.groups
        if self.data_format == "channels_first":
            return self.filters, per_group, *self.kernel_size
        return *self.kernel_size, per_group, self.filters


def batch_shape(
    batch: Length, channels: Length, size: tuple[Length, Length], data_format: DataFormat
) -> tuple[Length, Length, Length, Length]:
    """Shape of a batch of images in the given data format; None stands for what is not known."""
    height, width = size
    return (batch, channels, height, width) if data_format == "channels_first" else (batch, height, width, channels)


def image_entries(shape: Sequence[int | None], data_format: DataFormat) -> tuple[int | None, int | None, OpenSize]:
    """Take apart what :func:`batch_shape` puts together: the batch, the channels, and (height, width); each may be None.

    Raises:
        ValueError: There are not four axes.
    """
    if len(shape) != 4:
        axes = "(batch, channels, height, width)" if data_format == "channels_first" else "(batch, height, width, channels)"
        raise ValueError(f"the input must have the 4 axes {axes}, got {len(shape)}: {tuple(shape)}")
    if data_format == "channels_first":
        return shape[0], shape[1], (shape[2], shape[3])
    return shape[0], shape[3], (shape[1], shape[2])


def check_data_format(op: str, data_format: str) -> DataFormat:
    """Return ``data_format`` if it is one of the two, else raise ValueError."""
    if data_format not in DATA_FORMATS:
        expected = " or ".join(map(repr, DATA_FORMATS))
        raise ValueError(f"{op}: data_format must be {expected}, got {data_format!r}")
    return data_format


def integer(op: str, name: str, value: Any, minimum: int | None = None) -> int:
    """Return ``value`` as int; refuse booleans, fractions and, if there is one, anything below ``minimum``."""
    if isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be an integer, got {value!r}")
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an integer, got {value!r}") from None
    if minimum is not None and result < minimum:
        raise ValueError(f"{op}: {name} must be at least {minimum}, got {value!r}")
    return result


def pair(op: str, name: str, value: Any, minimum: int) -> Pair:
    """Turn an int or a (height, width) pair into a pair of ints; the only place that does so.

    Args:
        op: Name of the public function, for the message.
        name: Name of the argument, for the message.
        value: One integer for both axes, or a sequence of two.
        minimum: The smallest value allowed.

    Raises:
        TypeError: ``value`` is neither an integer nor two of them.
        ValueError: It has not two entries, or one is below ``minimum``.
    """
    if not _is_sequence(value):
        try:
            single = integer(op, name, value, minimum)
        except TypeError:
            raise TypeError(f"{op}: {name} must be an integer or a (height, width) pair, got {value!r}") from None
        return single, single
    if len(value) != 2:
        raise ValueError(f"{op}: {name} must be an integer or a (height, width) pair, got {value!r}")
    try:
        return integer(op, name, value[0], minimum), integer(op, name, value[1], minimum)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} in {name}={value!r}") from None


def window_span(kernel: int, dilation: int) -> int:
    """Positions that a window of ``kernel`` taps covers along one axis."""
    return dilation * (kernel - 1) + 1


def window_2d(
    op: str,
    shape: tuple[int, ...],
    kernel_size: Any,
    *,
    kernel_name: str = "kernel_size",
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_first",
    shape_name: str = "x.shape",
) -> Window2d:
    """Check the arguments of a sliding window and compute its output size.

    Args:
        op: Name of the public function, for messages.
        shape: Shape of the batch of images, or of one image without the axis N.
        kernel_size: Height and width of the window.
        kernel_name: What the public function calls ``kernel_size``.
        stride: Step of the window.
        padding: An integer, (height, width), ((top, bottom), (left, right)), ``"same"`` or ``"valid"``.
        dilation: Step between the taps of the window.
        ceil_mode: Round the output size up instead of down, but let no window start behind the image and its leading
            padding (PyTorch's rule).
        data_format: Order of the axes.
        shape_name: What the public function calls ``shape``.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind, or the window doesn't fit into the padded image.
    """
    data_format = check_data_format(op, data_format)
    if len(shape) not in (3, 4):
        axes = "(N, C, H, W) or (C, H, W)" if data_format == "channels_first" else "(N, H, W, C) or (H, W, C)"
        raise ValueError(f"{op}: images must have the axes {axes}, got {shape_name}={shape}")
    batch, *image = shape if len(shape) == 4 else (1, *shape)
    channels, size = (image[0], (image[1], image[2])) if data_format == "channels_first" else (image[2], (image[0], image[1]))
    if channels < 1 or min(size) < 1:
        raise ValueError(f"{op}: an image needs at least one channel and one pixel ({shape_name}={shape}, {data_format})")
    kernel = pair(op, kernel_name, kernel_size, 1)
    steps = pair(op, "stride", stride, 1)
    # Between the taps of a window of one there is no step: a huge one would only overflow an address.
    rows, columns = pair(op, "dilation", dilation, 1)
    dilations = (1 if kernel[0] == 1 else rows, 1 if kernel[1] == 1 else columns)
    ceil_mode = boolean(op, "ceil_mode", ceil_mode)
    pads = _paddings(op, padding, size, kernel, steps, dilations)
    padded = (size[0] + sum(pads[0]), size[1] + sum(pads[1]))
    span = (window_span(kernel[0], dilations[0]), window_span(kernel[1], dilations[1]))
    if span[0] > padded[0] or span[1] > padded[1]:
        raise ValueError(
            f"{op}: the window covers {span} but the padded image is only {padded} "
            f"({kernel_name}={kernel}, dilation={dilations}, padding={padding!r}, {shape_name}={shape}, {data_format})"
        )
    # A longer step than the padded image makes no difference, but could overflow an address.
    steps = (min(steps[0], padded[0]), min(steps[1], padded[1]))
    check_memory(op, batch * channels * padded[0] * padded[1], f"the padded images, {padded} pixels each")
    output = (
        _output_size(size[0], pads[0], span[0], steps[0], ceil_mode),
        _output_size(size[1], pads[1], span[1], steps[1], ceil_mode),
    )
    return Window2d(batch, channels, size, kernel, steps, pads, dilations, output, data_format)


def conv2d_geometry(
    op: str,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
    data_format: str = "channels_first",
    x_name: str = "x",
    w_name: str = "w",
    x_shape_name: str = "x.shape",
    w_shape_name: str = "w.shape",
) -> Conv2dGeometry:
    """Check the arguments of a convolution and compute its output size.

    Args:
        op: Name of the public function, for messages.
        x_shape: Shape of the batch of images, or of one image without the axis N.
        w_shape: Shape of the weight: (F, C/groups, KH, KW), or (KH, KW, C/groups, F) for ``channels_last``.
        stride: Step of the window.
        padding: As in :func:`window_2d`.
        dilation: Step between the taps of the window.
        groups: Number of groups; divides both channels and filters.
        data_format: Order of the axes of both arrays.
        x_name: What the public function calls the images.
        w_name: What the public function calls the weight.
        x_shape_name: What it calls their shape.
        w_shape_name: What it calls its shape.

    Raises:
        TypeError, ValueError: As :func:`window_2d`, or channels, filters and groups do not fit together.
    """
    data_format = check_data_format(op, data_format)
    check_weight_shape(op, w_shape, w_name, w_shape_name, data_format)
    if data_format == "channels_first":
        filters, per_group, *kernel = w_shape
    else:
        *kernel, per_group, filters = w_shape
    window = window_2d(
        op,
        x_shape,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        data_format=data_format,
        shape_name=x_shape_name,
    )
    group_count = integer(op, "groups", groups, 1)
    shapes = f"({x_shape_name}={x_shape}, {w_shape_name}={w_shape}, groups={group_count})"
    if window.channels != per_group * group_count:
        raise ValueError(f"{op}: {x_name} has {window.channels} channels but {w_name} expects {per_group} per group {shapes}")
    if filters % group_count:
        raise ValueError(f"{op}: {filters} filters cannot be split into {group_count} groups {shapes}")
    out_height, out_width = window.output_size
    check_memory(op, window.batch * filters * out_height * out_width, f"the result, {window.output_size} pixels each")
    return Conv2dGeometry(
        window.batch,
        window.channels,
        window.size,
        window.kernel_size,
        window.stride,
        window.padding,
        window.dilation,
        window.output_size,
        data_format,
        filters,
        group_count,
    )


def check_weight_shape(
    op: str,
    w_shape: tuple[int, ...],
    w_name: str,
    w_shape_name: str,
    data_format: DataFormat,
    axes: tuple[str, str] = ("F", "C/groups"),
) -> None:
    """Refuse a weight that has not four axes, or an empty one; ``axes`` names the first two of ``channels_first``."""
    if len(w_shape) != 4 or min(w_shape) < 1:
        names = (*axes, "KH", "KW") if data_format == "channels_first" else ("KH", "KW", *reversed(axes))
        raise ValueError(
            f"{op}: {w_name} must have 4 axes ({', '.join(names)}), none of them empty, got {w_shape_name}={w_shape}"
        )


def check_pooling_window(op: str, window: Window2d) -> None:
    """Refuse a pooling window that covers no pixel of the image, since it would have no maximum and no mean."""
    for axis, axis_name in enumerate(("height", "width")):
        size, kernel, stride = window.size[axis], window.kernel_size[axis], window.stride[axis]
        dilation, before, outputs = window.dilation[axis], window.padding[axis][0], window.output_size[axis]
        for output in _windows_that_can_miss(size, stride, before, outputs, window_span(kernel, dilation)):
            start = output * stride - before
            first_inside = max(0, -(start // dilation))  # the first tap at or behind pixel 0
            if first_inside >= kernel or start + first_inside * dilation >= size:
                raise ValueError(
                    f"{op}: window {output} along the {axis_name} lies wholly in the padding "
                    f"(pool_size={window.kernel_size}, stride={window.stride}, padding={window.padding}, "
                    f"dilation={window.dilation}, image size {window.size})"
                )


def transposed_size(
    op: str, size: Pair, kernel_size: Pair, stride: Pair, padding: Any, dilation: Pair, output_padding: Pair
) -> Pair:
    """Output size of a transposed convolution.

    ``(size - 1) * stride - pads + span + output_padding``, and with ``padding="same"`` simply ``size * stride``, Keras' rule
    (``"valid"`` is ``max(span - stride, 0)`` more than that).

    Raises:
        ValueError: The size would not be positive, or ``output_padding`` is not smaller than stride or dilation.
    """
    if padding == "same" and any(output_padding):
        raise ValueError(
            f"{op}: padding='same' settles the output size, output_padding={output_padding} would contradict it; "
            "give the padding in numbers"
        )
    for axis, extra in enumerate(output_padding):
        if extra >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f"{op}: output_padding must be smaller than stride or dilation "
                f"(output_padding={output_padding}, stride={stride}, dilation={dilation})"
            )
    result = []
    for axis in (0, 1):
        span = window_span(kernel_size[axis], dilation[axis])
        if padding == "same":
            full = size[axis] * stride[axis]
        elif padding == "valid":
            full = size[axis] * stride[axis] + max(span - stride[axis], 0)
        else:
            pads = _paddings(op, padding, size, kernel_size, stride, dilation)[axis]
            full = (size[axis] - 1) * stride[axis] - sum(pads) + span
        result.append(full + output_padding[axis])
    if min(result) < 1:
        raise ValueError(
            f"{op}: the output would be {tuple(result)} pixels "
            f"(input size {size}, kernel_size={kernel_size}, stride={stride}, padding={padding!r})"
        )
    return result[0], result[1]


def check_memory(op: str, elements: int, what: str) -> None:
    """Refuse an array that no address space holds; one that is merely too large for this machine is a MemoryError."""
    if elements > LARGEST_ARRAY:
        raise ValueError(f"{op}: {what}, would have {elements:.1e} elements, more than any memory holds")


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (tuple, list)) or getattr(value, "ndim", 0) > 0


def _output_size(size: int, pads: Pair, span: int, stride: int, ceil_mode: bool) -> int:
    room = size + sum(pads) - span
    if not ceil_mode:
        return room // stride + 1
    outputs = -(-room // stride) + 1
    return outputs - 1 if (outputs - 1) * stride >= size + pads[0] else outputs


def _paddings(op: str, padding: Any, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding == "same":
            top_bottom, left_right = (
                _same_padding(size[axis], window_span(kernel[axis], dilation[axis]), stride[axis]) for axis in (0, 1)
            )
            return top_bottom, left_right
        raise ValueError(f"{op}: padding must be 'same', 'valid' or numbers, got {padding!r}")
    if _is_sequence(padding) and len(padding) == 2 and all(_is_sequence(entry) for entry in padding):
        return pair(op, "padding", padding[0], 0), pair(op, "padding", padding[1], 0)
    if _is_sequence(padding) and any(_is_sequence(entry) for entry in padding):
        raise ValueError(f"{op}: padding must be p, (height, width) or ((top, bottom), (left, right)), got {padding!r}")
    vertical, horizontal = pair(op, "padding", padding, 0)
    return (vertical, vertical), (horizontal, horizontal)


def _same_padding(size: int, span: int, stride: int) -> Pair:
    # TensorFlow's rule: ceil(size / stride) outputs; of the padding that this needs, the odd one goes to the end.
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


def _windows_that_can_miss(size: int, stride: int, before: int, outputs: int, span: int) -> list[int]:
    # A window wholly inside the image cannot miss it; those that stick out lie at the two ends. If the very first or last
    # lies beside the image that is enough to know, and else there are no more of them than a window is wide.
    if before >= span:
        return [0]
    if (outputs - 1) * stride - before >= size:
        return [outputs - 1]
    leading = min(-(-before // stride), outputs)
    trailing = min(max(0, (size - span + before) // stride + 1), outputs)
    return sorted({*range(leading), *range(trailing, outputs)})


@dataclass(frozen=True, slots=True)
class AdaptiveWindows:
    """Windows of adaptive pooling along one axis that have the same length.

    Attributes:
        length: Pixels of each window.
        outputs: Which outputs they give.
        cells: The pixels that they read, window after window: laid out in this order the windows lie side by side.
    """

    length: int
    outputs: np.ndarray[Any, np.dtype[np.int64]]
    cells: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def starts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The first pixel of each window."""
        return self.cells[:: self.length]

    @property
    def first_cells(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Where each window begins among the cells."""
        return np.arange(self.outputs.size) * self.length


def adaptive_windows(size: int, outputs: int) -> list[AdaptiveWindows]:
    """Windows of adaptive pooling along one axis, by their length; there are at most a few lengths.

    Output i reads from ``floor(i * size / outputs)`` to ``ceil((i + 1) * size / outputs)``, PyTorch's rule.
    """
    numbers = np.arange(outputs, dtype=np.int64)
    starts = numbers * size // outputs
    lengths = -(-(numbers + 1) * size // outputs) - starts
    return [
        AdaptiveWindows(
            int(length),
            numbers[lengths == length],
            (starts[lengths == length][:, None] + np.arange(length)).reshape(-1),
        )
        for length in np.unique(lengths)
    ]
