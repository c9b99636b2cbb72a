"""Compiling ahead reaches every kernel, so that no call after it compiles anything."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpconv as xc
from xpconv import compilation

PACKAGE = Path(xc.__file__).parent
KERNELS = PACKAGE / "kernels" / "numba"


def kernels_in_the_sources() -> set[str]:
    """The names of all functions that are compiled, as ``file.function``."""
    found = set()
    for path in KERNELS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "task"
                for decorator in node.decorator_list
            ):
                found.add(f"{path.stem}.{node.name}")
    return found


# Every public function and every network, with sizes, windows and layouts that compiling ahead does not use.
EVERYTHING = """
import itertools, json, sys
import numpy as np, xpconv as xc
from xpconv.kernels.numba import compiler
from xpconv.scratch.deep_convnet import DeepConvNet
from xpconv.scratch.multi_layer_net import MultiLayerNet
from xpconv.scratch.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

def names():
    return [f"{f.function.__module__.rpartition('.')[2]}.{f.function.__name__}" for f in compiler.compiled_functions()]

first, second = xc.compile("numba", progress=False), xc.compile("numba", progress=False)
ahead = names()
random = np.random.default_rng(0)
options = {"device": "numba"}

def draw(*shape):
    return random.standard_normal(shape).astype(dtype)

def pick(*choices):
    return choices[random.integers(len(choices))]

for number, dtype, data_format in itertools.product(range(25), ("float32", "float64"), ("channels_first", "channels_last")):
    options["data_format"] = data_format
    is_first = data_format == "channels_first"
    groups, batch = pick(1, 1, 2, 3), pick(1, 2, 5, 0)
    per_group, filters = pick(1, 2, 5, 16, 33), groups * pick(1, 3, 8, 17, 40)
    height, width, kernel = pick(9, 14, 21), pick(8, 13, 28), (pick(1, 2, 3, 3, 5), pick(1, 3, 3, 4))
    convolution = {"stride": pick(1, 1, 2, (1, 3)), "padding": pick(0, 1, "same", ((0, 1), (2, 0))), "dilation": pick(1, 1, 2)}
    convolution["groups"] = groups
    x = draw(batch, per_group * groups, height, width) if is_first else draw(batch, height, width, per_group * groups)
    w = draw(filters, per_group, *kernel) if is_first else draw(*kernel, per_group, filters)
    b = pick(None, draw(filters))
    y = xc.conv2d(x, w, b, **convolution, **options)
    xc.conv2d_backward_input(y, w, x.shape, **convolution, **options)
    xc.conv2d_backward_weight(x, y, w.shape, **convolution, **options)
    xc.conv_transpose2d(y, w, None, **convolution, **options)
    window = {"pool_size": pick(2, 3, (2, 3), 4), "stride": pick(None, 1, 2, 3), "padding": pick(0, 1)}
    window["ceil_mode"] = pick(True, False)
    xc.max_pool2d(x, dilation=pick(1, 2), **window, **options)
    y, indices = xc.max_pool2d(x, return_indices=True, **window, **options)
    xc.max_pool2d_backward(y, indices, x.shape, **window, **options)
    included = pick(True, False)
    y = xc.avg_pool2d(x, count_include_pad=included, **window, **options)
    xc.avg_pool2d_backward(y, x.shape, count_include_pad=included, **window, **options)
    y, indices = xc.max_pool2d(x, 2, return_indices=True, **options)
    xc.max_unpool2d(y, indices, 2, output_size=(height, width), **options)
    y, indices = xc.adaptive_max_pool2d(x, pick(1, 3, (5, 4)), return_indices=True, **options)
    xc.adaptive_max_pool2d_backward(y, indices, x.shape, **options)
    y = xc.adaptive_avg_pool2d(x, pick(1, 3, (5, 4)), **options)
    xc.adaptive_avg_pool2d_backward(y, x.shape, **options)
    columns = {"kernel_size": pick(1, 2, (3, 2)), "stride": pick(1, 2), "padding": pick(0, "same"), "dilation": pick(1, 2)}
    xc.col2im(xc.im2col(x, **columns, **options), x.shape, **columns, **options)

for dtype in ("float32", "float64"):
    x, t = draw(20, 1, 28, 28), np.arange(20) % 10
    for network in (
        xc.SimpleConvNet(device="numba", dtype=dtype, seed=0),
        xc.SimpleConvNet(conv_param={"filter_num": 20, "filter_size": 3, "stride": 2}, device="numba", dtype=dtype, seed=0),
        DeepConvNet(device="numba", dtype=dtype, seed=0),
        MultiLayerNet(784, [30, 20], 10, activation="sigmoid", device="numba", dtype=dtype, seed=0),
    ):
        inputs = x if not isinstance(network, MultiLayerNet) else x.reshape(20, -1)
        for labels in (t, np.eye(10)[t], np.eye(10, dtype=int)[t].tolist()):
            gradients = network.gradient(inputs, labels)
        for optimizer in (SGD(), Momentum(), Nesterov(), AdaGrad(), RMSprop(), Adam()):
            optimizer.update(network.params, gradients, device="numba")
        network.accuracy(inputs, t)
    Adam().update({"W": draw(40, 30)[:, ::2]}, {"W": draw(40, 15)}, device="numba")  # strided
    Adam().update({"W": draw(4)}, {"W": np.arange(4)}, device="numba")

json.dump(
    {
        "kernels": [first.kernels, second.kernels], "compiled": second.compiled, "seconds": second.seconds,
        "functions": len(ahead), "ahead": sorted(set(ahead)), "later": names()[len(ahead):],
    },
    sys.stdout,
)
"""


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", EVERYTHING],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_kernel_is_compiled_ahead(everything: dict[str, Any]) -> None:
    kernels = kernels_in_the_sources()
    assert kernels  # or there is something wrong with how they are looked for
    assert kernels - set(everything["ahead"]) == set()


def test_no_call_compiles_anything_after_that(everything: dict[str, Any]) -> None:
    assert everything["later"] == []


def test_what_is_at_hand_is_not_compiled_again(everything: dict[str, Any]) -> None:
    assert everything["kernels"] == [everything["functions"]] * 2
    assert (everything["compiled"], everything["seconds"]) == (0, 0)


@pytest.mark.parametrize("progress", [True, False])
def test_numpy_has_nothing_to_compile(capsys: pytest.CaptureFixture[str], progress: bool) -> None:
    done = xc.compile("numpy", progress=progress)
    assert done == xc.Compilation("numpy")
    assert capsys.readouterr().out == ("device numpy has nothing to compile\n" if progress else "")


@pytest.mark.usefixtures("without_cupy")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(xc.errors.DeviceUnavailableError, match="device 'cuda' cannot be used here: CuPy is not installed"):
        xc.compile("cuda")
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        xc.compile("gpu")


def test_it_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compilation, "_steps", lambda place: iter([("pooling", lambda: None), ("training", lambda: None)]))
    done = xc.compile("numba")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["compiling: pooling", "compiling: training", str(done)]
    assert lines[-1].startswith(f"device numba: {done.kernels} kernels are ready, all of them were at hand; ")
    assert (done.compiled, done.seconds) == (0, 0)


@pytest.mark.parametrize(
    ("done", "told"),
    [
        (
            xc.Compilation("numba", 40, 12, 3.25, Path("cache")),
            "device numba: 40 kernels are ready, 12 of them compiled in 3.2 s; kept in cache",
        ),
        (
            xc.Compilation("numba", 40, 40, 9.0, Path("cache"), "cache cannot be written"),
            "device numba: 40 kernels are ready, 40 of them compiled in 9.0 s; not kept: cache cannot be written",
        ),
    ],
)
def test_what_was_done_is_told_in_a_line(done: xc.Compilation, told: str) -> None:
    assert str(done) == told


# ---- cuda and cudasim ----------------------------------------------------------------------------------------------------


def a_step(place: Any) -> Any:
    x = xc.asarray(np.ones((1, 1, 4, 4), np.float32), device=place)
    yield "pooling", lambda: xc.max_pool2d(x, device=place)


def test_the_simulators_kernels_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not xc.cudasim.status().available:
        pytest.skip("the simulator has no compiler here")
    program = """
import sys, xpconv as xc
from xpconv import compilation
sys.path.insert(0, "tests")
from test_compilation import a_step
compilation._steps = a_step
for _ in range(2):
    done = xc.compile("cudasim", progress=False)
    print(done.kernels, done.compiled, done.seconds > 0, done.directory)
"""
    environment = {**os.environ, "XPCONV_CUDASIM_CACHE": str(tmp_path)}
    answers = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, env=environment, check=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    first, again, later = f"1 1 True {tmp_path}", f"1 0 False {tmp_path}", f"1 0 True {tmp_path}"
    assert answers == [[first, again], [later, again]]


def test_a_card_compiles_its_larger_tiles_ahead(cupy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "_steps", a_step)
    names: list[str] = []

    class Module(cupy.RawModule):  # type: ignore[misc]
        def get_function(self, name: str) -> Any:
            names.append(name)
            (tmp_path / f"{len(names)}.cubin").touch()
            return super().get_function(name) if name.startswith(("max_pool2d", "probe")) else object()

    monkeypatch.setattr(cupy, "RawModule", Module)
    done = xc.compile("cuda:1", progress=False)
    assert (done.device, done.directory) == ("cuda:1", tmp_path)
    assert done.kernels == done.compiled == len(names) - 1 == len(set(names)) - 1  # but for the probe
    assert any(name.startswith("correlate") and "128, 128" in name for name in names)
    for number in ("float", "double", "__half"):
        assert any(f"<{number}" in name for name in names), number
    done = xc.compile("cuda:1", progress=False)
    assert (done.kernels, done.compiled, done.seconds) == (len(names) - 1, 0, 0)
