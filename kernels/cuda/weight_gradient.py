"""The gradient of the weights and of the bias: the host side of ``weight_gradient.cuh``, which says how they are computed."""

from __future__ import annotations

import math

from xpconv.geometry import Conv2dGeometry
from xpconv.kernels.cuda.runtime import INT_REACH, Array, ceil_div, index_type, runtime_of, type_name, vector_width
from xpconv.kernels.cuda.source import Record, record
from xpconv.kernels.cuda.splits import SplitProduct, add_splits, split_product, sum_type_name, workspace
from xpconv.kernels.cuda.tiles import TileShape, choose_engine, shared_bytes


def backward_weight(
    x: Array, dy: Array, geometry: Conv2dGeometry, tile: TileShape | None = None, splits: int | None = None
) -> tuple[Array, Array]:
    """``(dw, db)`` of any geometry.

    Args:
        x: Images.
        dy: Gradient of the result.
        geometry: The convolution.
        tile: Shape of the tiles; None chooses.
        splits: Number of parts that the pixels are cut into; None chooses.
    """
    runtime, dtype = runtime_of(x), x.dtype
    pixels = geometry.batch * math.prod(geometry.output_size)
    if pixels == 0:
        return runtime.xp.zeros(geometry.w_shape, dtype), runtime.xp.zeros(geometry.filters, dtype)
    dw, db = runtime.xp.empty(geometry.w_shape, dtype), runtime.xp.empty(geometry.filters, dtype)
    last = geometry.data_format == "channels_last"
    channels, filters = geometry.channels // geometry.groups, geometry.filters // geometry.groups
    rows, columns = filters, channels * geometry.taps
    if last:
        rows, columns = columns, rows
    engine = choose_engine(dtype, runtime)
    plan = split_product(rows, columns, pixels, geometry.groups, dtype, engine, runtime, tile, splits)

    direct = plan.splits == 1
    sums = None if direct else workspace(runtime, plan.splits, dw.size + db.size, dtype)
    row_tiles, column_tiles = ceil_div(rows, plan.tile.rows), ceil_div(columns, plan.tile.columns)
    x_width, dy_width = _copy_widths(x, dy, geometry)
    file, kernel = "weight_gradient.cu", "weight_gradient"
    if engine == "tensor":
        file, kernel = "weight_gradient_tensor.cu", "weight_gradient_tensor"
    arguments = (
        type_name(dtype),
        type_name(dtype) if direct else sum_type_name(dtype),
        "long long" if _is_far(geometry) else index_type(x, dy),
        str(last).lower(),
        str(x_width),
        str(dy_width),
        plan.tile.template_arguments(),
    )
    runtime.launch(
        file,
        f"{kernel}<{', '.join(arguments)}>",
        (geometry.groups * row_tiles * column_tiles, plan.splits),
        (plan.tile.threads,),
        (x, dy, dw if direct else sums, db, _problem(geometry, plan, row_tiles, column_tiles, x_width)),
        shared_memory=shared_bytes(plan.tile, dtype, engine, columns_along_depth=not last, rows_along_depth=not last),
    )
    if sums is not None:
        add_splits(runtime, sums, dw, db)
    return dw, db


def _copy_widths(x: Array, dy: Array, geometry: Conv2dGeometry) -> tuple[int, int]:
    # Elements of x and of dy that a thread may copy at once: neighbouring channels and filters, or neighbouring pixels, which
    # for x they are only where a window is one pixel.
    if geometry.data_format == "channels_last":
        return (
            vector_width(geometry.channels // geometry.groups, x),
            vector_width(geometry.filters // geometry.groups, dy),
        )
    pixels = math.prod(geometry.output_size)
    pointwise = geometry.kernel_size == geometry.stride == (1, 1) and geometry.size == geometry.output_size
    pointwise = pointwise and geometry.padding == ((0, 0), (0, 0))
    return vector_width(pixels, x) if pointwise else 1, vector_width(pixels, dy)


def _is_far(geometry: Conv2dGeometry) -> bool:
    # Whether offsets need 64 bits, be the arrays as small as they may: those of windows and taps beside the images, too.
    swept = (
        size + sum(pads) + span + outputs * stride
        for size, pads, span, outputs, stride in zip(
            geometry.size, geometry.padding, geometry.span, geometry.output_size, geometry.stride, strict=True
        )
    )
    elements = (geometry.batch + 2) * math.prod(geometry.size) + 2 * math.prod(swept)
    return elements * geometry.channels >= INT_REACH


def _problem(geometry: Conv2dGeometry, plan: SplitProduct, row_tiles: int, column_tiles: int, x_width: int) -> Record:
    (height, width), (out_height, out_width) = geometry.size, geometry.output_size
    (stride_height, stride_width), channels, depth = geometry.stride, geometry.channels, plan.tile.depth
    weights, plane = math.prod(geometry.w_shape), out_height * out_width
    # The pixels from one that a thread copies to its next. It copies whole columns of the tile of x, or of channels_last one
    # vector of x_width elements of every so many lines, for all threads together take some lines at once.
    step, apart = depth, 1
    if geometry.data_format == "channels_last":
        step, apart = min(depth, plan.tile.threads * x_width // plan.tile.rows), channels
    images, rest = divmod(step, plane)
    step_rows, step_columns = rest // out_width * stride_height, rest % out_width * stride_width
    image, line = channels * height * width, width * apart
    x_next_image, dy_next_image = plane * (channels - 1), plane * (geometry.filters - 1)
    return record(
        "weight_gradient.cuh",
        "WeightGradient",
        channels=channels // geometry.groups,
        filters=geometry.filters // geometry.groups,
        groups=geometry.groups,
        taps=geometry.taps,
        kernel_width=geometry.kernel_size[1],
        height=height,
        width=width,
        out_width=out_width,
        stride_height=stride_height,
        stride_width=stride_width,
        top=geometry.padding[0][0],
        left=geometry.padding[1][0],
        dilation_height=geometry.dilation[0],
        dilation_width=geometry.dilation[1],
        row_tiles=row_tiles,
        column_tiles=column_tiles,
        steps=plan.steps,
        swept_rows=out_height * stride_height,
        swept_columns=out_width * stride_width,
        step_rows=step_rows,
        step_columns=step_columns,
        pixels=geometry.batch * plane,
        split_size=0 if plan.splits == 1 else weights + geometry.filters,
        bias_at=weights,
        step_offset=images * image + step_rows * line + step_columns * apart,
        next_line=stride_height * line - out_width * stride_width * apart,
        next_image=image - out_height * stride_height * line,
        plane=plane,
        plane_step=depth % plane,
        x_step=depth + depth // plane * x_next_image,
        x_next_image=x_next_image,
        dy_step=depth + depth // plane * dy_next_image,
        dy_next_image=dy_next_image,
    )
