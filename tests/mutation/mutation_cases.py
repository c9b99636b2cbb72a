"""The cases that mutants are tried on: few and small, but every line of every kernel is on the way of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from xpconv.kernels.cuda import direct
from xpconv.sanitizer import cases
from xpconv.sanitizer.cases import DATA_FORMATS, Case

SINGLE, HALF = np.dtype(np.float32), np.dtype(np.float16)


class InNarrowGrids(Case):
    """On a card whose grids have two blocks at most along their second and third axis, in the place of thousands."""

    def compute(self, kernels: ModuleType, dtype: Any = None) -> list[Any]:
        with mock.patch.object(direct, "GRID_LIMIT", 2):
            return super().compute(kernels, dtype)


def elementwise() -> Iterator[Case]:
    yield from cases.elementwise_cases(37, HALF, "37 elements")
    yield from cases.elementwise_cases(1029, SINGLE, "two blocks and a rest")
    x = cases.with_special(cases.numbers((37,), SINGLE))
    yield Case("relu_forward", (x,), "NaN and infinities")
    yield Case("relu_backward", (cases.numbers((37,), SINGLE), x), "NaN and infinities")
    yield Case("relu_forward", (np.full(5, -0.0, SINGLE),), "-0")
    for place in (0, 130, 260):
        x = cases.numbers((261,), SINGLE)
        x[place] = (np.nan, np.inf, -np.inf)[place % 3]
        yield Case("all_finite", (x,), f"element {place} is {x[place]}")
    for dtype in (SINGLE, np.dtype(np.float64)):
        # Below, at, and above the smallest normal number, when the step is made.
        dying = np.array([0.5, 0.999, 1, 1.5, -0.5, -1, 0], dtype) * np.finfo(dtype).tiny
        ones, zeros = np.ones(7, dtype), np.zeros(7, dtype)
        yield Case("momentum_update", (ones, zeros, dying, 0.1, 1.0), "velocity dies", changed=(0, 2))
        yield Case("momentum_update", (ones, zeros, 2 * dying, 0.1, 0.5), "velocity dies", changed=(0, 2))
    for rows, classes in ((3, 10), (33, 9), (5, 70), (2, 1100), (1, 1)):
        yield from cases.loss_cases(rows, classes, SINGLE)
    yield from cases.loss_cases(3, 10, HALF)
    for wide in ([-900, -1000, -1000], [0, 500, -500], [500, 0, -500], [-500, 0, 500]):
        yield Case("softmax_cross_entropy_forward", (np.array([wide], SINGLE), np.array([0])), f"scores {wide}")
    scores = cases.numbers((3, 10), SINGLE)
    scores[1, 7] = np.nan
    scores[2, 3] = -np.inf
    labels = np.zeros((3, 10), SINGLE)
    labels[:, 1] = 1
    yield Case("softmax_cross_entropy_forward", (scores[[0, 2]], labels[[0, 2]]), "an impossible class")
    yield Case("softmax_cross_entropy_forward", (scores, np.array([1, 2, 4])), "a score is NaN")


def pooling() -> Iterator[Case]:
    windows = [
        ((2, 3, 7, 9), 2, {"stride": 2}, "2x2 side by side, odd sizes"),
        ((2, 4, 8, 8), 2, {"stride": 2}, "2x2 side by side, whole vectors"),
        ((2, 3, 10, 8), 2, {"stride": (3, 2)}, "2x2 side by side, with gaps between their rows"),
        ((1, 5, 9, 7), 3, {"stride": 2, "padding": 1}, "3x3 that overlap, padding"),
        ((1, 3, 7, 8), 3, {"stride": 2}, "3x3 that overlap"),
        ((2, 3, 8, 9), (2, 3), {"stride": (3, 4), "padding": 1}, "windows with gaps between them"),
        ((1, 2, 7, 8), 2, {"stride": 2, "padding": 1}, "2x2 side by side, padding"),
        ((2, 3, 6, 8), (2, 3), {"stride": (3, 1), "padding": ((1, 1), (0, 1))}, "strides and paddings that differ"),
        ((1, 2, 7, 8), 2, {"stride": 1, "dilation": (3, 2), "padding": (0, 1)}, "dilation"),
        ((1, 2, 11, 12), 2, {"stride": 2, "dilation": 3}, "dilation that the stride does not divide"),
        ((1, 2, 8, 7), 3, {"stride": 3, "padding": (1, 0), "ceil_mode": True}, "ceil_mode"),
        ((1, 3, 21, 21), 2, {"stride": 2}, "2x2, more of them than a block has threads"),
        ((1, 33, 9, 8), (9, 8), {"stride": 1, "padding": ((2, 1), (0, 2))}, "large windows, few of them"),
        ((1, 3, 19, 20), (8, 9), {"stride": (3, 5), "dilation": (2, 2), "padding": (0, 2)}, "large windows with dilation"),
    ]
    for data_format in DATA_FORMATS:
        for images, kernel, options, note in windows:
            geometry = cases.pooling(images, kernel, options, data_format)
            for special in (False, True):
                yield from cases.pooling_cases(geometry, SINGLE, note, special)
            yield cases.misplaced_case(geometry, note)
            for position in (-1, geometry.size[0] * geometry.size[1]):
                indices = np.full(geometry.y_shape, position)
                yield Case("count_misplaced", (indices, geometry), f"{note}, all at {position}, {data_format}")
        for images, kernel in (((2, 3, 7, 9), 2), ((1, 5, 9, 9), (9, 8))):
            geometry = cases.pooling(images, kernel, {"stride": 2, "padding": 1}, data_format)
            for value in (-np.inf, np.nan, 1):
                x = np.full(geometry.x_shape, value, SINGLE)
                yield Case("max_pool2d_forward", (x, geometry, True), f"all is {value}, {data_format}")
            x = np.where(np.random.default_rng(5).random(geometry.x_shape) < 0.5, np.nan, 1).astype(SINGLE)
            yield Case("max_pool2d_forward", (x, geometry, True), f"many are NaN, {data_format}")
        # Most threads of a team have no tap on the image.
        geometry = cases.pooling((1, 5, 2, 2), (9, 8), {"stride": 2, "padding": 4}, data_format)
        x = np.full(geometry.x_shape, -np.inf, SINGLE)
        yield Case("max_pool2d_forward", (x, geometry, True), f"large windows on a small image, all is -inf, {data_format}")
        yield from cases.pooling_cases(cases.pooling((2, 8, 4, 8), 2, {"stride": 2}, data_format), HALF, "2x2")
        unpooling = cases.unpooling_case((2, 3, 5, 4), SINGLE, data_format)
        yield unpooling
        yield cases.unpooling_case((1, 3, 18, 17), SINGLE, data_format)
        x, indices, *rest = unpooling.arguments
        for position in (-1, 5 * 4):
            outside = np.where(indices % 3 == 0, position, indices)
            yield Case("max_unpool2d", (x, outside, *rest), f"some positions are {position}, {data_format}")
        # Offsets that 32 bits do not reach: the second tap of each window is on the image, the first far above.
        far = {"stride": 1, "dilation": (2**31, 1), "padding": ((2**31, 0), (0, 1))}
        geometry = cases.pooling((1, 2, 3, 4), 2, far, data_format)
        yield Case("max_pool2d_forward", (cases.numbers(geometry.x_shape, SINGLE), geometry, True), f"far taps, {data_format}")
        yield from cases.columns_cases(
            cases.pooling((2, 3, 6, 8), (2, 3), {"stride": (3, 1), "padding": ((1, 0), (0, 1))}, data_format), SINGLE, "2x3"
        )
        yield from cases.columns_cases(
            cases.pooling((1, 2, 7, 8), 2, {"stride": 1, "dilation": 3}, data_format), SINGLE, "dilation"
        )
        wide = cases.pooling((1, 33, 4, 5), 3, {"stride": (2, 3), "padding": ((0, 1), (2, 1))}, data_format)
        yield from cases.columns_cases(wide, SINGLE, "more columns than a block has threads")


def convolution() -> Iterator[Case]:
    general = [
        ((2, 3, 7, 9), (5, 3, 3, 3), {"padding": 1}, "odd sizes"),
        ((2, 3, 8, 6), (4, 3, 3, 2), {"stride": (2, 3), "padding": ((1, 0), (0, 2))}, "strides and paddings that differ"),
        ((2, 4, 9, 8), (6, 2, 3, 3), {"groups": 2, "dilation": (2, 3), "padding": (2, 3)}, "groups and dilation"),
        ((2, 3, 9, 11), (4, 3, 3, 3), {"stride": (4, 3), "dilation": (2, 3), "padding": 3}, "common factors"),
        ((1, 2, 14, 15), (2, 2, 4, 4), {"stride": (4, 5), "dilation": 3, "padding": 2}, "no common factors"),
        ((1, 2, 5, 7), (3, 2, 2, 2), {"stride": 3}, "stride beyond the kernel"),
        ((1, 4, 70, 6), (6, 2, 3, 2), {"groups": 2}, "groups, more rows than columns"),
    ]
    for data_format in DATA_FORMATS:
        for images, filters, options, note in general:
            geometry = cases.convolution(images, filters, options, data_format)
            for algorithm in ("implicit_gemm", "direct", "depthwise"):  # the last one computes what has no tile for the second
                yield from cases.convolution_cases(geometry, SINGLE, note, algorithm=algorithm)
                special = f"{note}, NaN and infinities"
                yield from cases.convolution_cases(geometry, SINGLE, special, special=True, algorithm=algorithm)
        geometry = cases.convolution((2, 3, 7, 9), (5, 3, 3, 3), {"padding": 1}, data_format)
        yield from cases.convolution_cases(geometry, HALF, "odd sizes", algorithm="implicit_gemm")
        yield from cases.convolution_cases(geometry, HALF, "odd sizes", algorithm="direct")
        for images, filters, options, note in (
            ((2, 35, 4, 5), (37, 35, 1, 1), {}, "one tap, tails everywhere"),
            ((2, 32, 4, 4), (48, 16, 3, 3), {"padding": 1, "groups": 2}, "whole vectors of channels"),
            ((2, 16, 4, 4), (24, 16, 1, 1), {}, "one tap, whole vectors"),
        ):
            geometry = cases.convolution(images, filters, options, data_format)
            forced = {"algorithm": "implicit_gemm"}
            yield from cases.convolution_cases(geometry, SINGLE, note, **forced)
            yield from cases.convolution_cases(geometry, HALF, note, **forced)
            for tile in ("64x64", "128x16", "16x128"):
                yield from cases.convolution_cases(geometry, SINGLE, note, **forced, settings={"XPCONV_CUDA_TILE": tile})
            for tile in ("128x16", "16x128"):
                yield from cases.convolution_cases(geometry, HALF, note, **forced, settings={"XPCONV_CUDA_TILE": tile})
            for splits in (1, 3, 4):
                yield from cases.convolution_cases(geometry, SINGLE, note, **forced, options={"splits": splits})
        small = cases.convolution((20, 3, 4, 2), (5, 3, 2, 2), {}, data_format)
        yield from cases.convolution_cases(small, SINGLE, "many small images", **forced)
        deep = cases.convolution((1, 35, 5, 4), (37, 35, 3, 3), {"padding": 1, "stride": (2, 1)}, data_format)
        for splits in (1, 2, 4, 5, 30):  # with 2 of them, one has no step at all of a phase with few taps
            yield from cases.convolution_cases(deep, SINGLE, "splits within a tap", **forced, options={"splits": splits})
        for images, filters, options, note in (
            ((1, 2, 5, 6), (3, 2, 1, 3), {"stride": (1, 2), "padding": (0, 1)}, "several taps of a phase along columns"),
            ((1, 1, 4, 3), (1, 1, 2, 1), {"dilation": (66, 1), "padding": (40, 0)}, "a tap far below the start of its window"),
        ):
            yield from cases.convolution_cases(cases.convolution(images, filters, options, data_format), SINGLE, note, **forced)
        for images, filters, options, note in (
            ((2, 6, 5, 7), (12, 1, 3, 3), {"groups": 6, "padding": 1}, "depthwise, two filters a channel"),
            ((2, 7, 6, 9), (7, 1, 2, 3), {"groups": 7, "stride": (2, 3), "padding": (1, 2)}, "depthwise, strides"),
            ((2, 3, 9, 11), (3, 1, 3, 3), {"groups": 3, "stride": 2, "padding": 1}, "depthwise, 3x3, stride 2"),
            ((2, 3, 7, 10), (3, 1, 3, 3), {"groups": 3, "stride": (2, 3), "padding": 1}, "depthwise, phases of unequal size"),
            ((1, 8, 9, 8), (8, 1, 3, 2), {"groups": 8, "dilation": (2, 3), "stride": 2, "padding": 2}, "depthwise, dilation"),
        ):
            geometry = cases.convolution(images, filters, options, data_format)
            for algorithm in ("depthwise", "direct"):
                yield from cases.convolution_cases(geometry, SINGLE, note, algorithm=algorithm)
            special = f"{note}, NaN and infinities"
            yield from cases.convolution_cases(geometry, SINGLE, special, special=True, algorithm="depthwise")
            yield from cases.convolution_cases(geometry, HALF, note, algorithm="depthwise")
        # Behind the last row of dy there is nothing, not a zero that makes a NaN of the image's last row.
        for filters in ((3, 1, 3, 3), (3, 1, 3, 2)):
            geometry = cases.convolution((1, 3, 5, 6), filters, {"groups": 3, "padding": 1}, data_format)
            x, dy = cases.numbers(geometry.x_shape, SINGLE), cases.numbers(geometry.y_shape, SINGLE, 1)
            x[(0, -1) if geometry.data_format == "channels_last" else (0, 0, -1)] = np.nan
            note = f"the last row is NaN, {data_format}"
            yield Case("conv2d_backward_weight", (x, dy, geometry), note, algorithm="depthwise")
        # A stride so long that offsets may need 64 bits.
        steps = {"groups": 2, "stride": (1, 50000), "padding": ((1, 1), (1, 50000))}
        far = cases.convolution((1, 2, 5, 2), (2, 1, 3, 3), steps, data_format)
        yield from cases.convolution_cases(far, SINGLE, "a long stride", algorithm="depthwise")
        # Padding, times the inverse of the dilation modulo the stride, is more than 32 bits hold.
        padding = ((0, 0), (256 * 4095 - 4, 256 * 4095 - 4))
        wide = {"stride": (1, 4095), "dilation": (1, 4094), "padding": padding}
        geometry = cases.convolution((1, 1, 1, 8), (1, 1, 1, 2), wide, data_format)
        w, dy = cases.numbers(geometry.w_shape, SINGLE), cases.numbers(geometry.y_shape, SINGLE, 1)
        yield Case("conv2d_backward_input", (dy, w, geometry), f"wide padding, {data_format}", algorithm="depthwise")


def tiled_convolution() -> Iterator[Case]:
    # Images and numbers of channels that take several tiles.
    for data_format in DATA_FORMATS:
        for images, filters, options, note in (
            ((1, 13, 18, 70), (9, 13, 3, 3), {"padding": 1}, "several tiles, channels in two turns"),
            ((2, 2, 6, 6), (131, 2, 3, 3), {}, "many filters"),
            ((1, 13, 6, 7), (20, 13, 3, 3), {"padding": 1}, "many channels"),
            ((2, 3, 33, 70), (5, 3, 3, 3), {"stride": 2, "padding": 1}, "several tiles, stride 2"),
            ((60, 2, 9, 9), (5, 2, 3, 3), {"padding": 1}, "many images"),
            ((5, 2, 70, 17), (3, 2, 3, 3), {}, "several tiles, more rows than columns"),
        ):
            geometry = cases.convolution(images, filters, options, data_format)
            yield from cases.convolution_cases(geometry, SINGLE, note, algorithm="direct")
            special = f"{note}, NaN and infinities"
            yield from cases.convolution_cases(geometry, SINGLE, special, special=True, algorithm="direct")
        for images, filters, options, note in (
            ((2, 3, 40, 70), (3, 1, 3, 3), {"groups": 3, "padding": 1}, "several blocks"),
            ((2, 40, 5, 6), (80, 1, 3, 3), {"groups": 40, "padding": 1}, "many channels"),
            ((40, 3, 16, 16), (3, 1, 3, 3), {"groups": 3}, "many images"),
            ((2, 3, 21, 22), (6, 1, 5, 4), {"groups": 3, "stride": 2, "padding": 2}, "large kernel, stride 2"),
        ):
            geometry = cases.convolution(images, filters, options, data_format)
            yield from cases.convolution_cases(geometry, SINGLE, note, algorithm="depthwise")
        geometry = cases.convolution((2, 9, 7, 9), (20, 9, 3, 3), {"padding": 1}, data_format)
        rounded = {"XPCONV_TF32": "1"}  # of what is rounded to few bits nothing is lost here
        yield from cases.convolution_cases(geometry, SINGLE, "TF32", algorithm="implicit_gemm", settings=rounded)


def direct_convolution() -> Iterator[Case]:
    # What only the tiles of direct.cu come by.
    for data_format in DATA_FORMATS:
        for images, kernels, options, note in (
            ((8, 1, 19, 5), (1, 1, 3, 3), {"stride": 2}, "several threads and cells below each other, stride 2"),
            ((1, 1, 3, 131), (1, 1, 3, 3), {"stride": 2}, "tiles side by side, stride 2"),
            ((2, 4, 5, 6), (12, 2, 3, 3), {"groups": 2, "padding": (2, 1)}, "groups, paddings that differ"),
            ((0, 2, 4, 4), (3, 2, 3, 3), {}, "empty batch"),
        ):
            geometry = cases.convolution(images, kernels, options, data_format)
            yield from cases.convolution_cases(geometry, SINGLE, note, algorithm="direct")
        geometry = cases.convolution((1, 2, 7, 7), (3, 2, 3, 3), {}, data_format)
        yield from cases.convolution_cases(geometry, np.dtype(np.float64), "vectors of two", algorithm="direct")
        geometry = cases.convolution((5, 1, 4, 5), (2, 1, 2, 2), {}, data_format)
        for case in cases.convolution_cases(geometry, SINGLE, "grids of two along each axis", algorithm="direct"):
            yield InNarrowGrids(**vars(case))
        # An infinite pixel that only the last windows of a plane see: behind them there is no gradient, not one of zero.
        for rows, columns, filters in ((10, 67, 1), (15, 18, 24), (7, 67, 16)):  # tiles in a row, in a column, both
            geometry = cases.convolution((1, 1, rows, columns), (filters, 1, 3, 3), {}, data_format)
            x, dy = cases.numbers(geometry.x_shape, SINGLE), cases.numbers(geometry.y_shape, SINGLE, 1)
            x.reshape(rows, columns)[-1, -1] = np.inf
            note = f"the last pixel of {rows} x {columns} is infinite, {data_format}"
            yield Case("conv2d_backward_weight", (x, dy, geometry), note, algorithm="direct")


def matrices() -> Iterator[Case]:
    for turned in ((False, False), (True, False), (False, True), (True, True)):
        for sizes in ((5, 7, 3), (33, 65, 17), (32, 64, 36), (4, 300, 4)):
            yield cases.matrix_case(*sizes, SINGLE, turned)
        yield cases.matrix_case(33, 72, 40, HALF, turned)
        yield cases.matrix_case(33, 72, 40, SINGLE, turned, {"XPCONV_TF32": "1"})
        yield cases.matrix_case(70, 40, 68, SINGLE, turned, {"XPCONV_CUDA_TILE": "64x64"})
        yield cases.matrix_case(33, 37, 35, SINGLE, turned, {"XPCONV_CUDA_TILE": "32x32"})  # rows that lie unevenly apart
        yield cases.matrix_case(5, 52, 4, SINGLE, turned, {"XPCONV_CUDA_TILE": "64x128"})  # a ring of two tiles


def fused() -> Iterator[Case]:
    for data_format in DATA_FORMATS:
        for images, filters, kernel, note in (
            ((2, 1, 9, 9), (5, 1, 2, 2), 2, "windows of 2x2"),
            ((2, 1, 8, 9), (5, 1, 2, 2), 2, "windows of 2x2, and a row below them"),
            ((2, 4, 8, 11), (4, 4, 3, 3), (2, 3), "windows of 2x3"),
            ((1, 2, 19, 18), (3, 2, 1, 1), 9, "large windows"),
            ((2, 9, 8, 8), (6, 9, 3, 3), 2, "many channels"),
        ):
            for relu in (True, False):
                geometry = cases.convolution(images, filters, {}, data_format)
                yield cases.fused_case(geometry, kernel, SINGLE, relu, note)


FAMILIES = (elementwise, pooling, convolution, tiled_convolution, direct_convolution, matrices, fused)


def all_cases() -> list[Case]:
    return [case for family in FAMILIES for case in family()]
