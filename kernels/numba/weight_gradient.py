"""The gradient of the weights, as tiles of outer products over the same units as the convolution.

The terms of each sum are now the pixels, and a tile takes some taps of some channels (its rows) and some filters (its lanes)::

    dw[tap and channel, filter] += image[pixel + tap, channel] * dy[pixel, filter]

The tables of offsets are those of the convolution with their parts exchanged: its pixels are the terms, its terms the rows.
Each worker collects sums of its own over its units; a second kernel adds them up in the order of the workers, so that the
same number of threads gives the same bits. Where the sums of all workers would take too much memory, several workers share
one copy, each with some of its rows, and go over the same units.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from xpconv.geometry import Conv2dGeometry
from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, inline, task
from xpconv.kernels.numba.correlation import Plan, UnitArguments, source_of_unit, unit_at
from xpconv.kernels.numba.intrinsics import (
    add_rows,
    block_width,
    copy,
    fill,
    lane_count,
    multiply,
    padded_rows,
    pointer,
    size_of,
    transpose,
)
from xpconv.kernels.numba.memory import Array, address, borrowed
from xpconv.kernels.numba.target import lanes
from xpconv.kernels.numba.threads import run, run_with_scratch

# All workers' sums together.
SUMS_BYTES = 24 << 20
# Elements of the sums of one worker below which adding them up is not worth the other threads.
SMALL = 1 << 13


class _SumArguments(Arguments):
    sums: int
    bias_sums: int
    dw: int
    db: int
    parts: int
    slices: int
    worker_rows: int
    worker_elements: int
    worker_bias_elements: int
    groups: int
    filters: int
    vectors: int
    depth: int
    weight_filter: int
    weight_group: int
    weight_places: int


def weight_gradient(plan: Plan, x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[Array, Array]:
    """Gradients of the weight and of the bias of a convolution.

    Args:
        plan: The plan of the convolution itself.
        x: Images.
        dy: Gradient of the result.
        geometry: The convolution.
    """
    arguments = UnitArguments.from_buffer_copy(plan.template)
    arguments.source, arguments.target = address(x), address(dy)
    return collect_and_add(_collect(plan.real), plan, arguments, geometry)


def collect_and_add(
    collect: CompiledFunction, plan: Plan, arguments: UnitArguments, geometry: Conv2dGeometry
) -> tuple[Array, Array]:
    """Let each worker collect its sums, and add them up.

    Args:
        collect: The kernel that collects.
        plan: The plan whose units it goes over.
        arguments: Its arguments, but for those of the workers' sums.
        geometry: The convolution.

    Returns:
        The gradients of the weight and of the bias.
    """
    problem, dtype = plan.problem, plan.dtype
    dw, db = np.empty(geometry.w_shape, dtype), np.empty(geometry.filters, dtype)
    copy_bytes = problem.groups * problem.depth * plan.vectors * lanes(dtype) * dtype.itemsize
    parts = max(1, min(plan.workers, arguments.units, SUMS_BYTES // copy_bytes))
    slices = min(plan.workers // parts, problem.depth)
    worker_rows = padded_rows(-(-problem.depth // slices))
    elements = problem.groups * worker_rows * plan.vectors * lanes(dtype)
    bias_elements = problem.groups * plan.vectors * lanes(dtype)
    with borrowed(parts * slices * (elements + bias_elements) * dtype.itemsize) as sums:
        bias_sums = sums + parts * slices * elements * dtype.itemsize
        arguments.weights, arguments.bias = sums, bias_sums
        arguments.parts, arguments.slices, arguments.worker_rows = parts, slices, worker_rows
        arguments.worker_elements, arguments.worker_bias_elements = elements, bias_elements
        run_with_scratch(collect, arguments, parts * slices, plan.scratch)
        summing = _SumArguments(
            sums=sums,
            bias_sums=bias_sums,
            dw=address(dw),
            db=address(db),
            parts=parts,
            slices=slices,
            worker_rows=worker_rows,
            worker_elements=elements,
            worker_bias_elements=bias_elements,
            groups=problem.groups,
            filters=problem.filters,
            vectors=plan.vectors,
            depth=problem.depth,
            weight_filter=problem.weight_filter,
            weight_group=problem.weight_group,
            weight_places=address(plan.weight_places),
        )
        run(_add_up(plan.real), summing, plan.workers if elements > SMALL else 1)
    return dw, db


@functools.cache
def _collect(real: Any) -> CompiledFunction:
    @task(UnitArguments)
    def collect(worker: int, workers: int, a: Any) -> None:
        size, lanes = size_of(real), lane_count(real)
        part = worker % a.parts
        band = a.scratch + worker * a.scratch_pitch
        gradient = band + a.band_bytes
        square = gradient + 2 * a.sums_bytes
        clear_sums(real, a, worker)
        for unit in range(part * a.units // a.parts, (part + 1) * a.units // a.parts):
            group, image, images, row, rows = unit_at(a, unit)
            pixels = images * rows * a.columns
            source = source_of_unit(real, a, group, image, images, row, rows, band)
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done)
                pitch = width * lanes
                kept = min(pitch, a.filters - done * lanes)
                dy = a.target + (group * a.filters + done * lanes) * a.target_channel * size
                dy += (image * a.target_image + row * a.target_row) * size
                if kept == pitch and a.target_channel == 1:
                    lines, line_pitch = dy, a.target_column
                else:
                    lines, line_pitch = gradient, pitch
                    by_pixel(real, a, dy, images, rows * a.columns, kept, gradient, pitch, square)
                add_products(real, a, worker, width, pixels, source, lines, line_pitch, group * a.vectors + done)
                done += width

    return collect


@inline
def clear_sums(real: Any, a: Any, worker: int) -> None:
    """Set the sums of a worker to zero."""
    fill(real, a.weights + worker * a.worker_elements * size_of(real), a.worker_elements)
    fill(real, a.bias + worker * a.worker_bias_elements * size_of(real), a.worker_bias_elements)


@inline
def add_products(
    real: Any, a: Any, worker: int, width: int, pixels: int, source: int, lines: int, line_pitch: int, vector: int
) -> None:
    """Add what a unit contributes to the sums of a worker for a block of filters.

    Args:
        real: Dtype.
        a: The arguments.
        worker: The worker; it has the terms of its slice, and the first slice has the bias, too.
        width: Registers that the block is wide.
        pixels: Number of pixels of the unit.
        source: Address from which the tables count.
        lines: Address of the gradient, (pixels, lanes).
        line_pitch: Elements from one pixel of it to the next.
        vector: Number of the block's first register among those of all groups.
    """
    size, lanes = size_of(real), lane_count(real)
    share, pitch = worker // a.parts, width * lanes
    first, last = share * a.depth // a.slices, (share + 1) * a.depth // a.slices
    block = a.weights + (worker * a.worker_elements + vector * lanes * a.worker_rows) * size
    steps = a.step_places + first * 8
    multiply(real, width, last - first, pixels, source, steps, a.pixel_places, lines, line_pitch, block, pitch, block, pitch)
    if share == 0:
        for index in range(width):
            to = a.bias + (worker * a.worker_bias_elements + (vector + index) * lanes) * size
            add_rows(real, pixels, lines + index * lanes * size, line_pitch, to)


@inline
def by_pixel(real: Any, a: Any, dy: int, images: int, pixels: int, kept: int, gradient: int, pitch: int, square: int) -> None:
    """Bring the gradient of some filters to (images, pixels, lanes); missing filters are zeros."""
    size = size_of(real)
    if kept < pitch:
        fill(real, gradient, images * pixels * pitch)
    for image in range(images):
        from_image = dy + image * a.target_image * size
        to = gradient + image * pixels * pitch * size
        if a.target_channel == 1:
            for pixel in range(pixels):
                copy(real, from_image + pixel * a.target_column * size, to + pixel * pitch * size, kept)
        else:
            transpose(real, from_image, a.target_channel, kept, pixels, to, pitch, square, False)


@functools.cache
def _add_up(real: Any) -> CompiledFunction:
    @task(_SumArguments)
    def add_up(worker: int, workers: int, a: Any) -> None:
        lanes = lane_count(real)
        sums, dw, places = pointer(a.sums, real), pointer(a.dw, real), pointer(a.weight_places, numba.int64)
        for group in range(a.groups):
            done = 0
            while done < a.vectors:
                width = block_width(a.vectors - done) * lanes
                kept = min(width, a.filters - done * lanes)
                block = (group * a.vectors + done) * lanes * a.worker_rows
                to = group * a.weight_group + done * lanes * a.weight_filter
                for share in range(a.slices):
                    first, last = share * a.depth // a.slices, (share + 1) * a.depth // a.slices
                    start = share * a.parts * a.worker_elements + block
                    for k in range(
                        first + worker * (last - first) // workers, first + (worker + 1) * (last - first) // workers
                    ):
                        for lane in range(kept):
                            total = real(0)
                            for part in range(a.parts):
                                total += sums[start + part * a.worker_elements + (k - first) * width + lane]
                            dw[to + lane * a.weight_filter + places[k]] = total
                done += width // lanes
        if worker == 0:
            bias_sums, db = pointer(a.bias_sums, real), pointer(a.db, real)
            for group in range(a.groups):
                for lane in range(a.filters):
                    total = real(0)
                    for part in range(a.parts):
                        total += bias_sums[part * a.worker_bias_elements + group * a.vectors * lanes + lane]
                    db[group * a.filters + lane] = total

    return add_up
