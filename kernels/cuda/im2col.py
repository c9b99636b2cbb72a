"""The columns of a batch as one matrix, and back: the host side of ``im2col.cu``."""

from __future__ import annotations

import math

from xpconv.geometry import Window2d
from xpconv.kernels.cuda.runtime import Array, Runtime, ceil_div, index_type, runtime_of, type_name
from xpconv.kernels.cuda.source import Record, record

_THREADS = 256
# Blocks for each multiprocessor, whose threads take one element after another.
_BLOCKS = 32


def im2col(x: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.im2col`."""
    runtime = runtime_of(x)
    rows, columns = _shape(geometry)
    col = runtime.xp.empty((rows, columns), x.dtype)
    # Lanes lie along the columns, so many as there are at least, rounded up to a power of two.
    lanes = min(_THREADS, 1 << (columns - 1).bit_length())
    height = _THREADS // lanes
    blocks = ceil_div(columns, lanes)
    most = max(1, _BLOCKS * runtime.multiprocessors // blocks)
    runtime.launch(
        "im2col.cu",
        f"im2col<{_template_arguments(x, col, geometry)}>",
        (blocks, min(ceil_div(rows, height), most)),
        (lanes, height),
        (x, col, _windows(x, geometry)),
    )
    return col


def col2im(col: Array, geometry: Window2d) -> Array:
    """See :func:`xpconv.functional.col2im`."""
    runtime = runtime_of(col)
    x = runtime.xp.empty(geometry.x_shape, col.dtype)
    runtime.launch(
        "im2col.cu",
        f"col2im<{_template_arguments(x, col, geometry)}>",
        (_grid(x.size, runtime),),
        (_THREADS,),
        (col, x, _windows(x, geometry)),
    )
    return x


def _shape(geometry: Window2d) -> tuple[int, int]:
    return geometry.batch * math.prod(geometry.output_size), geometry.channels * geometry.taps


def _grid(elements: int, runtime: Runtime) -> int:
    return min(ceil_div(elements, _THREADS), _BLOCKS * runtime.multiprocessors)


def _template_arguments(x: Array, col: Array, geometry: Window2d) -> str:
    return f"{type_name(x.dtype)}, {index_type(x, col)}, {str(geometry.data_format == 'channels_last').lower()}"


def _windows(x: Array, geometry: Window2d) -> Record:
    rows, columns = _shape(geometry)
    return record(
        "im2col.cu",
        "Windows",
        channels=geometry.channels,
        height=geometry.size[0],
        width=geometry.size[1],
        out_height=geometry.output_size[0],
        out_width=geometry.output_size[1],
        kernel_height=geometry.kernel_size[0],
        kernel_width=geometry.kernel_size[1],
        stride_height=geometry.stride[0],
        stride_width=geometry.stride[1],
        top=geometry.padding[0][0],
        left=geometry.padding[1][0],
        dilation_height=geometry.dilation[0],
        dilation_width=geometry.dilation[1],
        rows=rows,
        columns=columns,
        elements=x.size,
    )
