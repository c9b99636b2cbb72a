"""Compiling ahead: every kernel of a device before somebody waits for it, in an image of a container or ahead of a lesson.

A kernel is compiled when it is first called, so this calls: every public function and a training step with every optimizer,
on small arrays, in all dtypes and both layouts. What is compiled is kept on disk, where later processes find it. (A card takes
other kernels for larger problems; those of some usual sizes are compiled, too.)
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import xpconv as xc
from xpconv.arrays import DEVICES_WITH_HALF_DTYPES, FLOAT_DTYPES, HALF_DTYPES
from xpconv.device import Device, asarray, get_device
from xpconv.geometry import DATA_FORMATS, conv2d_geometry
from xpconv.scratch.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Compilation:
    """What :func:`compile` did.

    Attributes:
        device: Name of the device.
        kernels: Number of kernels that are ready now.
        compiled: How many of them were compiled by this call; the others were at hand.
        seconds: Time that compiling them took.
        directory: Where they are kept for later processes; None where there is nothing to keep.
        trouble: Why they cannot be kept there; empty where they are.
    """

    device: str
    kernels: int = 0
    compiled: int = 0
    seconds: float = 0.0
    directory: Path | None = None
    trouble: str = ""

    def __str__(self) -> str:
        if self.directory is None:
            return f"device {self.device} has nothing to compile"
        done = f"{self.compiled} of them compiled in {self.seconds:.1f} s" if self.compiled else "all of them were at hand"
        kept = f"not kept: {self.trouble}" if self.trouble else f"kept in {self.directory}"
        return f"device {self.device}: {self.kernels} kernels are ready, {done}; {kept}"


def compile(device: str | Device | None = "auto", *, progress: bool = True) -> Compilation:
    """Compile all kernels of a device ahead, so that no later call waits for it.

    What is found on disk from an earlier call or process is not compiled again. ``xpconv doctor --compile`` does the same.

    Args:
        device: The device; ``"auto"`` takes the best there is. ``numpy`` has nothing to compile.
        progress: Whether to show on standard output how far it is: a bar in a terminal, lines in a file.

    Returns:
        Number of kernels, seconds, and where they are kept.

    Raises:
        ValueError: The name is unknown.
        DeviceUnavailableError: The device is not there.

    Example:
        >>> import xpconv as xc
        >>> print(xc.compile("numpy", progress=False))
        device numpy has nothing to compile
    """
    place = get_device(device)
    if place.kind == "numba":
        done = _compile_numba(place, progress)
    elif place.kind in ("cuda", "cudasim"):
        done = _compile_cuda(place, progress)
    else:
        done = Compilation(place.name)
    if progress:
        print(done, flush=True)
    return done


def _compile_numba(place: Device, progress: bool) -> Compilation:
    from xpconv.kernels.numba import compiler

    compiler.keep_quiet()
    before = len(compiler.compiled_functions())
    seconds = compiler.compiled_seconds()
    _make(list(_steps(place)), progress)
    ready = compiler.compiled_functions()
    return Compilation(
        place.name,
        kernels=len(ready),
        compiled=sum(function.seconds > 0 for function in ready[before:]),
        seconds=compiler.compiled_seconds() - seconds,
        directory=compiler.cache_directory(),
        trouble=compiler.cache_trouble() or "",
    )


def _compile_cuda(place: Device, progress: bool) -> Compilation:
    from xpconv.kernels.cuda.runtime import runtime_of

    directory = _kernel_directory(place)
    with place.current():
        runtime = runtime_of(place.xp.empty(0))
        _, seconds = runtime.loaded
        at_hand = _compiled_files(directory)
        steps = list(_steps(place))
        if place.kind == "cuda":  # larger problems are cut into larger tiles; the simulator is seldom given any
            steps += [(f"larger images, {dtype}", functools.partial(_load_planned, runtime, dtype)) for dtype in _dtypes(place)]
        _make(steps, progress)
        kernels, seconds_now = runtime.loaded
    new = len(_compiled_files(directory) - at_hand)
    return Compilation(place.name, kernels, compiled=min(new, kernels), seconds=seconds_now - seconds, directory=directory)


def _kernel_directory(place: Device) -> Path:
    if place.kind == "cudasim":
        from xpconv.cudasim.toolchain import cache_directory

        return cache_directory()
    return Path(os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache").expanduser()


def _compiled_files(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("*") if path.suffix in (".so", ".cubin")}


def _make(steps: list[tuple[str, Callable[[], None]]], progress: bool) -> None:
    with _display(len(steps)) if progress else contextlib.nullcontext(lambda step: None) as tell:
        for name, step in steps:
            tell(name)
            step()


# ---- the calls that reach every kernel ---------------------------------------------------------------------------------


def _dtypes(place: Device) -> list[np.dtype[Any]]:
    if place.kind not in DEVICES_WITH_HALF_DTYPES:
        return list(FLOAT_DTYPES)
    with contextlib.suppress(ImportError):
        import ml_dtypes  # noqa: F401 - lets NumPy know bfloat16

        return [*FLOAT_DTYPES, *map(np.dtype, HALF_DTYPES)]
    return [*FLOAT_DTYPES, np.dtype(np.float16)]


def _steps(place: Device) -> Iterator[tuple[str, Callable[[], None]]]:
    families = {"convolution": _convolve, "pooling": _pool, "columns": _columns}
    for dtype in _dtypes(place):
        for data_format in DATA_FORMATS:
            for name, family in families.items():
                images = asarray(_images(data_format, dtype), device=place)
                options = {"data_format": data_format, "device": place}
                yield f"{name}, {data_format}, {dtype}", functools.partial(family, images, options)
        if dtype in FLOAT_DTYPES:  # networks compute in no others
            yield f"training, {dtype}", functools.partial(_train, place, dtype)


def _images(data_format: str, dtype: np.dtype[Any]) -> Any:
    x = np.random.default_rng(0).standard_normal((2, 32, 12, 14)).astype(dtype)
    return x if data_format == "channels_first" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _convolve(x: Any, options: dict[str, Any]) -> None:
    first = options["data_format"] == "channels_first"
    channels = x.shape[1] if first else x.shape[3]
    finite, infinite = 1.0, np.inf  # what an infinite weight meets in the padding is no gradient: it takes another way
    for groups, weight, kernel, geometry in (
        (1, finite, (3, 3), {"padding": 1}),
        (1, infinite, (3, 3), {"padding": 1}),
        (1, finite, (5, 5), {}),
        (1, finite, (1, 1), {}),
        (1, finite, (3, 2), {"stride": 2, "padding": "same"}),
        (2, finite, (3, 3), {"dilation": 2}),
        (channels, finite, (3, 3), {"padding": 1}),
    ):
        per_group = channels // groups
        xp = get_device(options["device"]).xp
        w = xp.full((channels, per_group, *kernel) if first else (*kernel, per_group, channels), weight, x.dtype)
        b = xp.ones(channels, x.dtype)
        arguments = {**options, **geometry, "groups": groups}
        y = xc.conv2d(x, w, b, **arguments)
        xc.conv2d(x, w, **arguments)
        xc.conv2d_backward_input(y, w, x.shape, **arguments)
        xc.conv2d_backward_weight(x, y, w.shape, **arguments)
        xc.conv_transpose2d(y, w, b, **arguments)

    # Few filters of a group: a tile of them has 1 to 4, and 2 x 2 taps are few terms.
    for filters, taps in itertools.product((1, 2, 3, 4), (2, 3)):
        for groups, arguments in ((1, options), (channels, {**options, "groups": channels})):
            per_group = channels // groups
            shape = (filters * groups, per_group, taps, taps) if first else (taps, taps, per_group, filters * groups)
            w = get_device(options["device"]).xp.ones(shape, x.dtype)
            y = xc.conv2d(x, w, **arguments)
            xc.conv2d_backward_input(y, w, x.shape, **arguments)
            xc.conv2d_backward_weight(x, y, w.shape, **arguments)


def _pool(x: Any, options: dict[str, Any]) -> None:
    # Widths and strides of 1, 2 and 3 may be constants of the machine code; of two heights, one meets no special case.
    for height, width, stride in itertools.product((2, 3), (2, 3, 4), (1, 2, 3)):
        arguments = {**options, "pool_size": (height, width), "stride": stride}
        xc.max_pool2d(x, **arguments)
        y, indices = xc.max_pool2d(x, return_indices=True, **arguments)
        xc.max_pool2d_backward(y, indices, x.shape, **arguments)
        xc.avg_pool2d_backward(xc.avg_pool2d(x, **arguments), x.shape, **arguments)
    y, indices = xc.max_pool2d(x, return_indices=True, **options)
    xc.max_unpool2d(y, indices, **options)
    xc.global_max_pool2d(x, **options)
    y, indices = xc.global_max_pool2d(x, return_indices=True, **options)
    xc.global_max_pool2d_backward(y, indices, x.shape, **options)
    xc.global_avg_pool2d_backward(xc.global_avg_pool2d(x, **options), x.shape, **options)
    y, indices = xc.adaptive_max_pool2d(x, 5, return_indices=True, **options)
    xc.adaptive_max_pool2d_backward(y, indices, x.shape, **options)
    xc.adaptive_avg_pool2d_backward(xc.adaptive_avg_pool2d(x, 5, **options), x.shape, **options)


def _columns(x: Any, options: dict[str, Any]) -> None:
    xc.col2im(xc.im2col(x, 3, **options), x.shape, 3, **options)


def _train(place: Device, dtype: np.dtype[Any]) -> None:
    x, labels = np.ones((8, 1, 12, 12), dtype), np.arange(8) % 3
    simple = xc.SimpleConvNet((1, 12, 12), {"filter_num": 6}, 10, 3, device=place, dtype=dtype, seed=0)
    deep = xc.DeepConvNet((1, 12, 12), hidden_size=10, output_size=3, device=place, dtype=dtype, seed=0)
    place.kernels.all_finite(asarray(x, device=place))
    for network in (simple, deep):
        network.gradient(x, np.eye(3, dtype=dtype)[labels])  # one-hot
        for optimizer in (SGD(), Momentum(), Nesterov(), AdaGrad(), RMSprop(), Adam()):
            _, gradients = network.loss_and_gradient(x, labels)
            optimizer.update(network.params, gradients, device=place)
        network.accuracy(x, labels)


# Problems as networks have them: images (N, C, H, W), filters and groups.
_LARGER = (
    ((100, 1, 28, 28), (30, 1, 5, 5), 1),
    ((32, 64, 56, 56), (64, 64, 3, 3), 1),
    ((32, 256, 14, 14), (512, 256, 3, 3), 1),
    ((32, 256, 28, 28), (64, 256, 1, 1), 1),
    ((32, 64, 56, 56), (64, 1, 3, 3), 64),
)
_LARGER_PRODUCTS = ((100, 4320, 100), (256, 4096, 1000), (4096, 4096, 4096))


def _load_planned(runtime: Any, dtype: np.dtype[Any]) -> None:
    # The kernels that these would be computed by are noted, not run: the arrays are never touched.
    from xpconv.kernels import cuda as kernels
    from xpconv.kernels.cuda.runtime import planning

    with planning(runtime.compute_capability, runtime.multiprocessors, runtime.shared_memory_limit) as launches:
        for (images, filters, groups), data_format in itertools.product(_LARGER, DATA_FORMATS):
            first = data_format == "channels_first"
            x_shape = images if first else _reordered(images, 0, 2, 3, 1)
            w_shape = filters if first else _reordered(filters, 2, 3, 1, 0)
            geometry = conv2d_geometry("compile", x_shape, w_shape, padding="same", groups=groups, data_format=data_format)
            x, w, dy = (np.empty(shape, dtype) for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape))
            kernels.conv2d_forward(x, w, np.empty(geometry.filters, dtype), geometry)
            kernels.conv2d_forward(x, w, None, geometry)
            kernels.conv2d_backward_input(dy, w, geometry)
            kernels.conv2d_backward_weight(x, dy, geometry)
        for rows, terms, columns in _LARGER_PRODUCTS:
            x, w, dy = (np.empty(shape, dtype) for shape in ((rows, terms), (terms, columns), (rows, columns)))
            kernels.matmul(x, w)
            kernels.matmul(x.T, dy)
            kernels.matmul(dy, w.T)
    for file, name in dict.fromkeys((launch.file, launch.name) for launch in launches):
        runtime.kernel(file, name)


def _reordered(shape: tuple[int, ...], *axes: int) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in axes)


# ---- what is shown -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _display(steps: int) -> Iterator[Tell]:
    """A function that is told each step when it begins: a bar in a terminal, a line a step in a file."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(file=sys.stdout)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda step: print(f"compiling: {step}", flush=True)
        return
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps, completed=-1)  # the first step begins, none is done
        yield lambda step: bar.update(task, advance=1, description=f"compiling: {step}")
