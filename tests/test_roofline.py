"""The predictions of ``xpconv bench --roofline``: what they are computed from, against hand counts and NVIDIA's own rules."""

from __future__ import annotations

import importlib.util
import itertools
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import xpconv as xc
from xpconv import cli
from xpconv.bench import cubin, roofline
from xpconv.bench.cards import ARCHITECTURES, CARDS, H100, Card
from xpconv.bench.cubin import CompiledKernel, missing_tools
from xpconv.bench.workloads import TINY_WORKLOADS, WORKLOADS, ConvolutionReluPooling
from xpconv.kernels.cuda.runtime import Launch, planning

PAGE = Path(__file__).parents[1] / "docs" / "roofline.md"

needs_the_simulators_arrays = pytest.mark.skipif(not xc.cudasim.status().available, reason="the device cudasim is not there")


def kernel(registers: int = 32, shared_memory: int = 0, loop: dict[str, int] | None = None) -> CompiledKernel:
    return CompiledKernel(registers, 0, shared_memory, loop or {}, loop or {})


def launch(name: str, blocks: int, threads: int, *arguments: object, shared_memory: int = 0) -> Launch:
    return Launch("made_up.cu", name, (blocks,), (threads,), arguments, shared_memory)


# ----------------------------------------------------------------------------------------------------------------------
# Cards
# ----------------------------------------------------------------------------------------------------------------------


def test_the_figures_of_the_data_sheets() -> None:
    assert [round(card.gflops / 1e3, 1) for card in CARDS] == [8.1, 19.5, 66.9, 74.4, 104.8]
    assert [card.shared_memory_limit >> 10 for card in CARDS] == [64, 163, 227, 227, 99]


@pytest.mark.parametrize(
    ("card", "registers", "threads", "shared_memory", "blocks"),
    [
        (H100, 128, 256, 0, 2),
        (H100, 129, 256, 0, 1),
        (H100, 32, 256, 0, 8),
        (H100, 32, 64, 0, 32),
        (H100, 64, 128, 60 << 10, 3),
        (H100, 255, 1024, 0, 0),
        (H100, 32, 128, 227 << 10, 1),
        (H100, 32, 128, 228 << 10, 0),
        (CARDS[0], 32, 1024, 0, 1),
        (CARDS[0], 32, 32, 0, 16),
        (CARDS[0], 32, 128, 32 << 10, 2),
        (CARDS[4], 32, 256, 0, 6),
    ],
)
def test_how_many_blocks_a_multiprocessor_holds(
    card: Card, registers: int, threads: int, shared_memory: int, blocks: int
) -> None:
    assert card.blocks_at_once(kernel(registers), threads, shared_memory) == blocks
    assert card.blocks_at_once(kernel(registers, shared_memory), threads, 0) == blocks


def test_a_card_that_is_not_listed_is_taken_for_the_latest_before_it() -> None:
    assert Card("?", 103, 1, 1, 1).architecture is ARCHITECTURES[100]
    assert Card("?", 70, 1, 1, 1).architecture is ARCHITECTURES[75]


OCCUPANCY = """
#include <cstdio>
#include "cuda_occupancy.h"
int main() {
    int cc, warps, shared, registers, threads, fixed, dynamic;
    while (std::scanf("%d %d %d %d %d %d %d", &cc, &warps, &shared, &registers, &threads, &fixed, &dynamic) == 7) {
        cudaOccDeviceProp card = {};
        card.computeMajor = cc / 10, card.computeMinor = cc % 10;
        card.maxThreadsPerBlock = 1024, card.maxThreadsPerMultiprocessor = 32 * warps;
        card.regsPerBlock = card.regsPerMultiprocessor = 65536, card.warpSize = 32;
        card.sharedMemPerMultiprocessor = shared, card.sharedMemPerBlock = 48 << 10, card.numSms = 100;
        card.reservedSharedMemPerBlock = cc >= 80 ? 1024 : 0;
        card.sharedMemPerBlockOptin = shared - card.reservedSharedMemPerBlock;
        cudaOccFuncAttributes kernel = {};
        kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = fixed;
        kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = card.sharedMemPerBlockOptin - fixed;
        cudaOccDeviceState state = {};
        cudaOccResult result;
        const auto error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &card, &kernel, &state, threads, dynamic);
        std::printf("%d\\n", error ? -int(error) : result.activeBlocksPerMultiprocessor);
    }
}
"""


def test_occupancy_is_what_nvidias_calculator_says(tmp_path: Path) -> None:
    package = importlib.util.find_spec("nvidia")
    folders = list(package.submodule_search_locations or ()) if package is not None else []
    headers = [header for folder in folders for header in Path(folder).glob("*/include/cuda_occupancy.h")]
    compiler = shutil.which("g++")
    if not headers or compiler is None:
        pytest.skip("cuda_occupancy.h (nvidia-cuda-runtime) or g++ is not here")
    (tmp_path / "occupancy.cpp").write_text(OCCUPANCY)
    program = tmp_path / "occupancy"
    subprocess.run([compiler, "-I", headers[0].parent, "-o", program, tmp_path / "occupancy.cpp"], check=True)
    cases = list(
        itertools.product(
            CARDS, (16, 33, 64, 96, 127, 128, 168, 255), (32, 64, 160, 256, 512, 1024), (0, 4100), (0, 20_000, 49_152)
        )
    )
    lines = [
        " ".join(map(str, (card.compute_capability, card.architecture.warps, card.architecture.shared_memory, *numbers)))
        for card, *numbers in cases
    ]
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    expected = list(map(int, done.stdout.split()))
    assert len(expected) == len(cases)
    found = [
        card.blocks_at_once(kernel(registers, fixed), threads, dynamic) for card, registers, threads, fixed, dynamic in cases
    ]
    assert found == expected
    assert len(set(expected)) > 10


# ----------------------------------------------------------------------------------------------------------------------
# Launches
# ----------------------------------------------------------------------------------------------------------------------


def test_what_is_bound_by_memory() -> None:
    x, y = np.empty(10**6, np.float32), np.empty(10**6, np.float32)
    each = roofline.Prediction(launch("relu_forward<float, 4>", 1000, 256, x, y, x, np.int64(5)), kernel(), H100)
    assert each.memory_microseconds == pytest.approx(8e6 / 3.35e12 * 1e6)  # x is read once
    assert each.compute_microseconds == 0
    assert each.bound == "memory"
    assert each.microseconds == pytest.approx(2 + 8e6 / 3.35e6)


def test_what_is_bound_by_arithmetic() -> None:
    """A product of 4096 x 4096 x 4096 in tiles of 128 x 128, whose main loop multiplies in 80 of 100 instructions."""
    shape = np.array((4096, 0), [("depth", "i8"), ("steps", "i4")])[()]
    name = "matmul<float, float, int, ALONG_DEPTH, ALONG_ROWS, 4, 4, 128, 128, 16, 4, 2, 8, 8, 2>"
    compiled = kernel(128, loop={"FFMA": 80, "LDS.128": 20})
    each = roofline.Prediction(launch(name, 1024, 256, shape), compiled, H100)
    assert (each.blocks_at_once, each.waves) == (2, pytest.approx(1024 / 264))
    # One multiprocessor has 8 of 1024 blocks, each with 128 * 128 * 4096 multiplications, 128 lanes at 1.98 GHz.
    seconds = 8 * 128 * 128 * 4096 / (128 * 1.98e9) / 0.8
    assert each.compute_microseconds == pytest.approx(seconds * 1e6)
    assert each.bound == "arithmetic"


def test_few_warps_take_longer() -> None:
    shape = np.array((4096, 0), [("depth", "i8"), ("steps", "i4")])[()]
    name = "matmul<float, float, int, ALONG_DEPTH, ALONG_ROWS, 4, 4, 32, 32, 16, 2, 1, 4, 4, 3>"
    full, few = (
        roofline.Prediction(launch(name, blocks, 64, shape), kernel(64, loop={"FFMA": 1}), H100) for blocks in (4 * 132, 132)
    )
    assert full.compute_microseconds == pytest.approx(few.compute_microseconds)  # a quarter of the work with 2 of 8 warps


def test_what_is_launched_for_nothing_takes_a_launch() -> None:
    each = roofline.Prediction(launch("correct_backward_input<float, int, true>", 9, 256, np.empty(10**8)), kernel(), H100)
    assert (each.microseconds, each.bound) == (2, "launch")


@needs_the_simulators_arrays
@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "W5"] + ["tiny-step"])
def test_every_product_of_a_workload_is_launched(name: str) -> None:
    """What the tiles multiply is never less than what the operation needs, and seldom many times as much."""
    workload = {**WORKLOADS, **TINY_WORKLOADS}[name]
    plans = roofline.plan(workload, H100)
    assert list(plans) == list(workload.operations)
    for operation, launches in plans.items():
        assert launches
        planned = 2 * sum(map(roofline._multiplications, launches))
        needed = workload.work(operation) if workload.unit == "flop" else 0
        assert planned >= needed
        assert planned <= 20 * needed or not needed or name.startswith("tiny")
        moved = sum(map(roofline._bytes_of, launches))
        assert moved >= roofline.compulsory_bytes(workload, operation)


@needs_the_simulators_arrays
def test_planning_leaves_nothing_behind() -> None:
    roofline.plan(TINY_WORKLOADS["tiny-max"], H100)
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(xc.max_pool2d(x, 2, device="cudasim"), [[[[5, 7], [13, 15]]]])
    with planning(90, 132, 227 << 10) as noted:
        pass
    assert noted == []


@pytest.mark.parametrize(
    ("name", "operation", "numbers"),
    [
        ("W1", "fwd", 100 * 28 * 28 + 30 * 25 + 30 + 100 * 30 * 24 * 24),
        ("W1", "dx", 100 * 28 * 28 + 30 * 25 + 100 * 30 * 24 * 24),
        ("W3f", "dw", 2 * 16 * 64 * 56 * 56 + 64 * 9 + 64),
        ("W1F", "fwd", 100 * 28 * 28 + 30 * 25 + 30 + 100 * 30 * 12 * 12),
        ("W4a", "bwd", 100 * 30 * (24 * 24 + 12 * 12)),
        ("W5", "step", 10 * (30 * 25 + 30 + 4320 * 100 + 100 + 1000 + 10) + 100 * 28 * 28),
    ],
)
def test_bytes_counted_by_hand(name: str, operation: str, numbers: int) -> None:
    assert roofline.compulsory_bytes(WORKLOADS[name], operation) == 4 * numbers


def test_the_floor() -> None:
    row = roofline.Row(WORKLOADS["W3a"], "fwd", ())
    assert row.floor_microseconds == pytest.approx(3_699_376_128 / 66_908.16e9 * 1e6)
    row = roofline.Row(WORKLOADS["W4b"], "fwd", ())
    assert row.floor_microseconds == pytest.approx(64_225_280 / 3.35e12 * 1e6)
    assert isinstance(WORKLOADS["W1F"], ConvolutionReluPooling)


# ----------------------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert "**These are predictions. Nothing on this page was measured on a card.**" in text
    assert "`xpconv bench --roofline docs/roofline.md`" in text
    assert all(len(line) <= 128 for line in text.splitlines() if not line.startswith("|"))
    for workload in WORKLOADS.values():
        for operation in workload.operations:
            assert (f"| {workload.id} {workload.title} | {operation} |" in text) == (operation != "tot")


@needs_the_simulators_arrays
@pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())
def test_the_page_is_what_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    if f"as NVRTC {cubin.nvrtc_version()} compiles them" not in text:
        pytest.skip(f"the page was written with another NVRTC than {cubin.nvrtc_version()}")
    assert cli.main(("bench", "--roofline", str(tmp_path / "roofline.md"))) == 0
    assert capsys.readouterr().out == f"predictions written to {tmp_path / 'roofline.md'}\n"
    assert (tmp_path / "roofline.md").read_text(encoding="utf-8") == text, (
        "write it anew: xpconv bench --roofline docs/roofline.md"
    )


def test_without_a_compiler_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cubin, "missing_tools", lambda: "CuPy is not installed: pip install 'xpconv[cuda13]'")
    monkeypatch.setattr(roofline, "plan", lambda *_: pytest.fail("known before anything is planned"))
    assert cli.main(("bench", "--roofline", str(tmp_path / "roofline.md"))) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: CuPy is not installed: pip install 'xpconv[cuda13]'\n")
    assert not any(tmp_path.iterdir())


def test_shares_and_counts_of_instructions() -> None:
    compiled = kernel(loop={"FFMA.FTZ": 6, "LDS.128": 2, "FFMA2": 1, "IADD3": 1})
    assert math.isclose(compiled.multiply_add_share, 0.7)
    assert kernel().multiply_add_share == 0
    assert compiled.count("LDS") == 2
    assert compiled.count("LDS.64", "FFMA") == 6
