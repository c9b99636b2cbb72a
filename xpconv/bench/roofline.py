"""What the kernels should take on an H100, by their compiled code: a prediction, for want of a card to measure it on.

Every workload is called as the benchmark calls it, but the launches are noted instead of made. Each kernel is compiled for the
card, and from its registers, its instructions and the sizes of its arrays follows how long it should take: :class:`Prediction`
computes that, and the page that :func:`page` writes says how.
"""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.bench.cards import H100, WARP, Card
from xpconv.bench.cubin import CompiledKernel, check_tools, compile_kernels, nvrtc_version
from xpconv.bench.workloads import (
    FLOAT32_BYTES,
    WORKLOADS,
    Convolution,
    ConvolutionReluPooling,
    Pooling,
    TrainingStep,
    Workload,
)
from xpconv.files import atomic_write
from xpconv.kernels.cuda.runtime import Launch, ceil_div, planning
from xpconv.kernels.numpy.threads import usable_cores

CARD = H100
WIDTH = 120  # of the page's lines, but for its tables
# From one kernel to the next in a stream; NVIDIA and others measure 2 to 4 microseconds for a launch, of which some overlap.
LAUNCH_MICROSECONDS = 2.0
BUSY_WARPS = 8
# Numbers that a tile of a matrix product is told by: rows, columns, depth, warps and lanes along both, and stages.
TILE_ARGUMENTS = 8
# It looks at one flag and ends, unless a weight is not finite.
ENDS_AT_ONCE = ("correct_backward_input",)
# On a card, indices that come from xpconv's own pooling are not looked at again.
NOT_ON_A_CARD = ("count_misplaced",)
# Numbers that Adam reads and writes for each parameter, and those that the passes forward and back do.
ADAM_TRAFFIC, PASSES_TRAFFIC = 7, 3


@dataclass(frozen=True)
class Prediction:
    """One launch on the card.

    Attributes:
        launch: What is launched.
        kernel: What it was compiled to.
        card: Where.
    """

    launch: Launch
    kernel: CompiledKernel
    card: Card

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return math.prod(self.launch.grid)

    @property
    def blocks_at_once(self) -> int:
        """Blocks that a multiprocessor holds."""
        return self.card.blocks_at_once(self.kernel, math.prod(self.launch.block), self.launch.shared_memory)

    @property
    def waves(self) -> float:
        """How many times all multiprocessors are filled; what exceeds a whole number is a wave that doesn't fill them."""
        return self.blocks / (self.blocks_at_once * self.card.multiprocessors)

    @property
    def memory_microseconds(self) -> float:
        """To read or write each array once."""
        return _bytes_of(self.launch) / self.card.gigabytes_per_second / 1e3

    @property
    def compute_microseconds(self) -> float:
        """To multiply, as the waves are filled."""
        multiplications = _multiplications(self.launch)
        share = self.kernel.multiply_add_share
        if not multiplications or not share:
            return 0.0
        # A multiprocessor computes its blocks one by one or several at a time: as long as there are warps enough, that is the
        # same. What is waited for is the one that has the most blocks.
        most = ceil_div(self.blocks, self.card.multiprocessors)
        warps = min(most, self.blocks_at_once) * ceil_div(math.prod(self.launch.block), WARP)
        one_block = 2 * multiplications / self.blocks / (self.card.gflops / self.card.multiprocessors) / 1e3 / share
        return most * one_block * max(1.0, BUSY_WARPS / warps)

    @property
    def microseconds(self) -> float:
        """Everything together."""
        return LAUNCH_MICROSECONDS + max(self.memory_microseconds, self.compute_microseconds)

    @property
    def bound(self) -> str:
        """What it waits for most."""
        parts = {"launch": LAUNCH_MICROSECONDS, "memory": self.memory_microseconds, "arithmetic": self.compute_microseconds}
        return max(parts, key=parts.__getitem__)


@dataclass(frozen=True)
class Row:
    """One operation of a workload, with what it launches."""

    workload: Workload
    operation: str
    predictions: tuple[Prediction, ...]

    @property
    def flops(self) -> int:
        """Additions and multiplications that the result needs; of a pooling none that count."""
        return self.workload.work(self.operation) if self.workload.unit == "flop" else 0

    @property
    def bytes(self) -> int:
        """Bytes of what is given and of what results."""
        return compulsory_bytes(self.workload, self.operation)

    @property
    def floor_microseconds(self) -> float:
        """No kernel of float32 can be faster on this card: all lanes multiply all the time, or all bytes move once."""
        return max(self.flops / CARD.gflops, self.bytes / CARD.gigabytes_per_second) / 1e3

    @property
    def microseconds(self) -> float:
        """Of all launches."""
        return sum(each.microseconds for each in self.predictions)

    @property
    def main(self) -> Prediction:
        """The launch that takes longest."""
        return max(self.predictions, key=lambda each: each.microseconds)


def predict() -> list[Row]:
    """Plan and compile every operation of every workload; ``tot``, the sum of the others, is left out.

    Raises:
        CubinError: NVRTC or nvdisasm is missing.
    """
    check_tools()
    planned = [
        (workload, operation, launches)
        for workload in WORKLOADS.values()
        for operation, launches in plan(workload, CARD).items()
        if operation != "tot"
    ]
    names = {(launch.file, launch.name) for _, _, launches in planned for launch in launches}
    kernels = compile_kernels(names, [CARD.compute_capability], processes=usable_cores())
    return [
        Row(
            workload,
            operation,
            tuple(Prediction(launch, kernels[launch.file, launch.name, CARD.compute_capability], CARD) for launch in launches),
        )
        for workload, operation, launches in planned
    ]


def plan(workload: Workload, card: Card) -> dict[str, list[Launch]]:
    """What the benchmark's own calls of xpconv would launch on a card, by operation."""
    from xpconv.bench.peers.xpconv import Peer

    if isinstance(workload, TrainingStep):  # the step takes as long however many images its batch is drawn from
        workload = dataclasses.replace(workload, images=workload.batch)
    found = {}
    with planning(card.compute_capability, card.multiprocessors, card.shared_memory_limit) as noted, np.errstate(all="ignore"):
        for name, operation in Peer("cudasim:float32", 1).operations(workload).items():
            operation.run()  # once before, as the benchmark does: what is made once and kept is there then
            noted.clear()
            operation.run()
            found[name] = [launch for launch in noted if _template(launch) not in NOT_ON_A_CARD]
    return found


def compulsory_bytes(workload: Workload, operation: str) -> int:
    """Bytes that an operation has to read and write, each once, however clever it is."""
    match workload:
        case Convolution():
            x, w, y = (math.prod(shape) for shape in (workload.x_shape, workload.w_shape, workload.y_shape))
            passes = {"fwd": x + w + workload.filters + y, "dx": y + w + x, "dw": x + y + w + workload.filters}
            return FLOAT32_BYTES * (sum(passes.values()) if operation == "tot" else passes[operation])
        case ConvolutionReluPooling(convolution=inner):
            return FLOAT32_BYTES * sum(
                math.prod(shape) for shape in (inner.x_shape, inner.w_shape, (inner.filters,), workload.y_shape)
            )
        case Pooling():
            return workload.work(operation)
        case TrainingStep():
            inputs = workload.inputs()
            parameters = sum(array.size for name, array in inputs.items() if name not in ("images", "labels"))
            images = workload.batch * workload.size**2
            return FLOAT32_BYTES * ((ADAM_TRAFFIC + PASSES_TRAFFIC) * parameters + images)
        case _:
            raise TypeError(f"no bytes are known of the workload {workload!r}")


def page() -> str:
    """The predictions as a page of Markdown.

    Raises:
        CubinError: NVRTC or nvdisasm is missing.
    """
    rows = predict()
    introduction, kernels = _wrapped(_INTRODUCTION), _wrapped(_KERNELS_TEXT)
    parts = [introduction, _table(_ROWS, rows), "", kernels, _table(_KERNELS, _kernels_of(rows)), ""]
    return "\n".join(line for part in parts for line in ([part] if isinstance(part, str) else part))


def write(path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        CubinError: NVRTC or nvdisasm is missing.
        OSError: The file cannot be written.
    """
    text = page()
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# ---- what a launch does ------------------------------------------------------------------------------------------------


def _bytes_of(launch: Launch) -> int:
    if _template(launch) in ENDS_AT_ONCE:
        return 0
    arrays = {argument.ctypes.data: argument.nbytes for argument in launch.arguments if isinstance(argument, np.ndarray)}
    return sum(arrays.values())


def _multiplications(launch: Launch) -> int:
    """Multiplications that the card executes, whether or not anything comes of them; 0 of a kernel that has no such loop."""
    fields = {name: record[name] for record in launch.arguments for name in getattr(record.dtype, "names", None) or ()}
    match _template(launch):
        case "correlate" | "correlate_tensor":
            rows, columns, _ = _tile(launch)
            # Each tap is one of a single phase.
            phases = math.prod(map(int, fields["phases"]))
            terms = int(fields["packed_channels"]) * math.prod(map(int, fields["taps"]))
            return launch.grid[0] // phases * rows * columns * terms
        case "matmul" | "matmul_tensor":
            rows, columns, depth = _tile(launch)
            return launch.grid[0] * rows * columns * ceil_div(int(fields["depth"]), depth) * depth
        case "weight_gradient" | "weight_gradient_tensor":
            rows, columns, depth = _tile(launch)
            return launch.grid[0] * rows * columns * ceil_div(int(fields["pixels"]), depth) * depth
        case "direct_correlate" | "direct_weight_gradient" | "correlate_planes" | "plane_gradients":
            # The gradients have the same products as the convolution, a pair of channels and a tap at each of its pixels;
            # back to the input, the pixels of the convolution are those that are read.
            names = ("batch", "groups", "in_channels", "out_channels")
            pairs = math.prod(int(fields[name]) for name in names) * math.prod(map(int, fields["taps"]))
            sizes = [math.prod(map(int, fields[name])) for name in ("in_size", "out_size")]
            return pairs * min(sizes)
        case _:
            return 0


def _tile(launch: Launch) -> tuple[int, int, int]:
    """Rows, columns and depth: of the whole numbers among a product's arguments, the last eight are its tile."""
    arguments = (argument.strip() for argument in launch.name.partition("<")[2].removesuffix(">").split(","))
    numbers = [int(argument) for argument in arguments if argument.isdigit()]
    rows, columns, depth = numbers[-TILE_ARGUMENTS:][:3]
    return rows, columns, depth


def _template(launch: Launch) -> str:
    return launch.name.partition("<")[0]


# ---- the page ----------------------------------------------------------------------------------------------------------

Columns = Sequence[tuple[str, Callable[[Any], str]]]

_WORDS = ("workload", "op", "main kernel", "bound by", "kernel")  # columns that hold no numbers


def _table(columns: Columns, rows: Sequence[Any]) -> list[str]:
    lines = [[heading for heading, _ in columns], ["---" if heading in _WORDS else "---:" for heading, _ in columns]]
    lines += [[cell(row) for _, cell in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


_INTRODUCTION = """\
# What the CUDA kernels should take on an H100

**These are predictions. Nothing on this page was measured on a card.** `xpconv bench --roofline docs/roofline.md` computes it
from the kernels as NVRTC {nvrtc} compiles them for sm_{card.compute_capability}, which needs no card; on a card,
`xpconv bench --device cuda` measures.

The card is an {card.name}: {card.multiprocessors} multiprocessors of {card.architecture.float32_lanes} float32 lanes at
{card.gigahertz:g} GHz, which is {teraflops:.0f} TFLOP/s, and {terabytes:g} TB/s of memory
([data sheet](https://www.nvidia.com/en-us/data-center/h100/)). All of it is float32 without TF32, as xpconv computes unless
told otherwise. `floor` is what no kernel can beat that multiplies as often as the textbook: every lane multiplies all the time,
or every byte of what is given and of what results moves once, whichever takes longer.

`predicted` adds up the launches. Of each:

* its blocks are dealt out to the multiprocessors, and the one that has the most is waited for;
* its multiplications, those with the zeros of unfilled tiles among them, take the share of the issue slots that they have of
  the main loop's instructions, and all of it only where a multiprocessor holds two warps for each of its four schedulers;
* or, where that takes longer, its arrays are read and written once at the memory's full speed;
* and each launch takes {launch:g} microseconds itself.

It knows nothing of latencies, of caches that keep what was just written, or of memory that is read with gaps, so it errs to the
low side more often than not. What it shows is what costs most, and how far a kernel is from the floor for reasons that can be
read from its code. `main kernel` is the launch that takes longest, with its tile, its blocks and what bounds it. The training
step leaves out what CuPy's own kernels do in it.
"""
_KERNELS_TEXT = """\
## The kernels

Registers are those of a thread, shared memory is that of a block, and `warps` are those that a multiprocessor holds at once,
of the {card.architecture.warps} that it has room for. `multiply-add` is the share of such instructions in the main loop, as it
stands in the machine code.
"""


def _wrapped(text: str) -> str:
    """The text with its figures, paragraph by paragraph and term by term in lines of one width."""
    told = text.format(
        nvrtc=nvrtc_version(),
        card=CARD,
        teraflops=CARD.gflops / 1e3,
        terabytes=CARD.gigabytes_per_second / 1e3,
        launch=LAUNCH_MICROSECONDS,
    )
    wrap = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = []
    for part in re.split(r"(\n\n|\n(?=\* ))", told.rstrip()):
        wrap.subsequent_indent = "  " if part.startswith("* ") else ""
        lines.append(part if part.isspace() else wrap.fill(" ".join(part.split())))
    return "".join([*lines, "\n"])


_ROWS: Columns = (
    ("workload", lambda row: f"{row.workload.id} {row.workload.title}"),
    ("op", lambda row: row.operation),
    ("main kernel", lambda row: f"`{_short(row.main.launch)}`"),
    ("launches", lambda row: f"{len(row.predictions)}"),
    ("MB", lambda row: f"{row.bytes / 1e6:.1f}"),
    ("GFLOP", lambda row: f"{row.flops / 1e9:.3f}" if row.flops else ""),
    ("blocks", lambda row: f"{row.main.blocks}"),
    ("waves", lambda row: f"{row.main.waves:.1f}"),
    ("floor µs", lambda row: f"{row.floor_microseconds:.1f}"),
    ("predicted µs", lambda row: f"{row.microseconds:.1f}"),
    ("floor / predicted", lambda row: f"{row.floor_microseconds / row.microseconds:.0%}"),
    ("bound by", lambda row: row.main.bound),
)

_KERNELS: Columns = (
    ("kernel", lambda each: f"`{each.launch.name}`"),
    ("threads", lambda each: f"{math.prod(each.launch.block)}"),
    ("registers", lambda each: f"{each.kernel.registers}"),
    ("shared memory", lambda each: f"{each.kernel.shared_memory + each.launch.shared_memory}"),
    ("warps", lambda each: f"{each.blocks_at_once * ceil_div(math.prod(each.launch.block), WARP)}"),
    ("multiply-add", lambda each: f"{each.kernel.multiply_add_share:.0%}" if each.kernel.main_loop else ""),
)


def _kernels_of(rows: Sequence[Row]) -> list[Prediction]:
    """Each kernel once, with the most shared memory that it is launched with."""
    found: dict[str, Prediction] = {}
    for each in sorted((each for row in rows for each in row.predictions), key=lambda each: each.launch.shared_memory):
        found[each.launch.name] = each
    return [found[name] for name in sorted(found)]


def _short(launch: Launch) -> str:
    """A kernel with its tile: the rest of its arguments is in the second table."""
    template = _template(launch)
    if template in ("correlate", "matmul", "weight_gradient"):
        return f"{template} {'x'.join(map(str, _tile(launch)))}"
    return template
