"""A correlation by its definition, term by term: the reference of the other paths, and their last resort.

It multiplies nothing that is not there, so that infinite weights meet no zeros of the padding.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from xpconv.kernels.numba.compiler import Arguments, CompiledFunction, task
from xpconv.kernels.numba.correlation import Correlation
from xpconv.kernels.numba.intrinsics import pointer, size_of
from xpconv.kernels.numba.memory import Array, address
from xpconv.kernels.numba.threads import run, thread_count


class _ExactArguments(Arguments):
    source: int
    weight: int
    target: int
    batch: int
    groups: int
    channels: int
    filters: int
    height: int
    width: int
    rows: int
    columns: int
    step_h: int
    step_w: int
    source_image: int
    source_group: int
    source_channel: int
    source_row: int
    source_column: int
    target_image: int
    target_channel: int
    target_row: int
    target_column: int
    weight_filter: int
    weight_group: int
    weight_channel: int
    weight_taps: int
    row_places: int
    column_places: int
    taps_h: int
    taps_w: int


def correlate_exactly(problem: Correlation, source: Array, weight: Array, target: Array) -> None:
    """Compute a correlation without a bias."""
    taps = np.array(problem.weight_taps, np.int64)
    rows, columns = np.array(problem.rows, np.int64), np.array(problem.columns, np.int64)
    arguments = _ExactArguments(
        source=address(source),
        weight=address(weight),
        target=address(target) + problem.target.first * target.itemsize,
        batch=problem.batch,
        groups=problem.groups,
        channels=problem.channels,
        filters=problem.filters,
        height=problem.size[0],
        width=problem.size[1],
        rows=problem.grid[0],
        columns=problem.grid[1],
        step_h=problem.step[0],
        step_w=problem.step[1],
        source_image=problem.source.image,
        source_group=problem.source_group,
        source_channel=problem.source.channel,
        source_row=problem.source.row,
        source_column=problem.source.column,
        target_image=problem.target.image,
        target_channel=problem.target.channel,
        target_row=problem.target.row,
        target_column=problem.target.column,
        weight_filter=problem.weight_filter,
        weight_group=problem.weight_group,
        weight_channel=problem.weight_channel,
        weight_taps=address(taps),
        row_places=address(rows),
        column_places=address(columns),
        taps_h=rows.size,
        taps_w=columns.size,
    )
    run(_correlate_exactly(numba.from_dtype(target.dtype)), arguments, thread_count())


@functools.cache
def _correlate_exactly(real: Any) -> CompiledFunction:
    @task(_ExactArguments)
    def correlate_exactly(worker: int, workers: int, a: Any) -> None:
        size = size_of(real)
        taps, rows = pointer(a.weight_taps, numba.int64), pointer(a.row_places, numba.int64)
        columns = pointer(a.column_places, numba.int64)
        units = a.batch * a.groups * a.filters
        for unit in range(worker * units // workers, (worker + 1) * units // workers):
            image, group, f = unit // (a.groups * a.filters), unit // a.filters % a.groups, unit % a.filters
            source = pointer(a.source + (image * a.source_image + group * a.source_group) * size, real)
            weight = pointer(a.weight + (group * a.weight_group + f * a.weight_filter) * size, real)
            to = image * a.target_image + (group * a.filters + f) * a.target_channel
            target = pointer(a.target + to * size, real)
            for i in range(a.rows):
                for j in range(a.columns):
                    total = real(0)
                    for r in range(a.taps_h):
                        row = i * a.step_h + rows[r]
                        if row < 0 or row >= a.height:
                            continue
                        for s in range(a.taps_w):
                            column = j * a.step_w + columns[s]
                            if column < 0 or column >= a.width:
                                continue
                            place, tap = row * a.source_row + column * a.source_column, taps[r * a.taps_w + s]
                            for c in range(a.channels):
                                total += source[place + c * a.source_channel] * weight[tap + c * a.weight_channel]
                    target[i * a.target_row + j * a.target_column] = total

    return correlate_exactly
