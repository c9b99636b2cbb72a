"""What :file:`windows.cuh` needs to know of a convolution, for the kernels that slide windows over planes."""

from __future__ import annotations

import functools
import math

from xpconv.geometry import Conv2dGeometry, Pair
from xpconv.kernels.cuda.runtime import INT_REACH, Array, ceil_div, index_type
from xpconv.kernels.cuda.source import Record, record

# Blocks along the second and third axis of a grid.
GRID_LIMIT = 65535
# A tile of a kernel reaches at most so many pixels past the end of a plane.
OVERHANG = 2048


@functools.lru_cache(maxsize=256)
def windows_record(geometry: Conv2dGeometry, *, backward: bool = False, bias: bool = False, relu: bool = False) -> Record:
    """The struct ``Windows``: of the convolution itself, or of the way back to its input."""
    groups = geometry.groups
    channels, filters = geometry.channels // groups, geometry.filters // groups
    divisors = [math.gcd(stride, dilation) for stride, dilation in zip(geometry.stride, geometry.dilation, strict=True)]
    steps = [stride // divisor for stride, divisor in zip(geometry.stride, divisors, strict=True)]
    return record(
        "windows.cuh",
        "Windows",
        bias=bias,
        relu=relu,
        batch=geometry.batch,
        groups=groups,
        in_channels=filters if backward else channels,
        out_channels=channels if backward else filters,
        in_size=geometry.output_size if backward else geometry.size,
        out_size=geometry.size if backward else geometry.output_size,
        taps=geometry.kernel_size,
        stride=geometry.stride,
        dilation=geometry.dilation,
        padding=(geometry.padding[0][0], geometry.padding[1][0]),
        phases=phases(geometry, backward),
        tap_step=steps,
        inverse=[pow(geometry.dilation[axis] // divisors[axis], -1, steps[axis]) for axis in (0, 1)],
    )


def phases(geometry: Conv2dGeometry, backward: bool) -> Pair:
    """Into how many phases the rows and columns of the result fall."""
    if not backward:
        return 1, 1
    return min(geometry.stride[0], geometry.size[0]), min(geometry.stride[1], geometry.size[1])


def pixels_of_phase(geometry: Conv2dGeometry, backward: bool) -> Pair:
    """Rows and columns of the result that one phase has, at most."""
    size = geometry.size if backward else geometry.output_size
    rows, columns = (ceil_div(size[axis], geometry.stride[axis] if backward else 1) for axis in (0, 1))
    return rows, columns


def window_index_type(geometry: Conv2dGeometry, *arrays: Array) -> str:
    """The type of offsets into these arrays, and of positions in the padded images."""
    rows, columns = (
        geometry.size[axis]
        + sum(geometry.padding[axis])
        + geometry.span[axis]
        + (geometry.output_size[axis] + OVERHANG) * geometry.stride[axis]
        for axis in (0, 1)
    )
    widest = max(geometry.size[1], geometry.output_size[1]) * max(geometry.channels, geometry.filters)
    furthest = max(rows * widest, columns * max(geometry.channels, geometry.filters), *(step**2 for step in geometry.stride))
    return index_type(*arrays) if furthest < INT_REACH else "long long"
