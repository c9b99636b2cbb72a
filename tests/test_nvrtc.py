"""The kernels as NVRTC compiles them for real cards, on a machine without one: what they take, and what they are made of.

Compiled is what the device asks for: its functions are called for the benchmark's workloads and for odd shapes, on one card of
each architecture, in all dtypes and both orders of axes. Of some thousand kernels those are compiled in which each argument of
each template has all its values; ``XPCONV_NVRTC=all`` compiles every single one.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from nvrtc_plans import covering, instantiations, launches, parts_of, sources

from xpconv.bench import cubin
from xpconv.bench.cards import CARDS, Card
from xpconv.bench.cubin import CompiledKernel, compile_jobs, jobs_of, missing_tools
from xpconv.kernels.cuda import runtime
from xpconv.kernels.cuda.runtime import Launch
from xpconv.kernels.numpy.threads import usable_cores

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())

# The architectures that tiles were shaped for; the others have to run, these to run well.
THOROUGH = (80, 90)
# Share of the multiplications in the main loop of a float32 product of 128 x 128: where copies are as wide as the order of the
# axes has them, and where odd numbers of channels make them narrow.
MULTIPLY_ADD_SHARE, NARROW_SHARE = 0.85, 0.75
# Warps that a multiprocessor should have at least: two for each of its four schedulers, which products with 64 sums a lane
# keep busy, one where there is so little shared memory; of kernels that wait for memory, half of all it can hold.
BUSY_WARPS, FEWEST_WARPS = 8, 4
WAITING = ("elementwise.cu", "pool2d.cu", "im2col.cu", "splits.cu")
PRODUCTS = ("correlate", "correlate_tensor", "matmul", "matmul_tensor", "weight_gradient", "weight_gradient_tensor")
# A thread that copies windows looks up row, column and offset of their taps, of 16 windows at most.
LOOKED_UP = 3 * 16
# How tensor cores multiply each type, in small steps or larger ones.
TENSOR_OPCODES = {
    "__half": ("HMMA.1688.F32", "HMMA.16816.F32"),
    "__nv_bfloat16": ("HMMA.1688.F32.BF16", "HMMA.16816.F32.BF16"),
    "float": ("HMMA.1684.F32.TF32", "HMMA.1688.F32.TF32"),
}
# Sums of losses are kept in float64, whatever the dtype.
USES_FLOAT64 = ("mean_of_losses",)
FLOAT64 = re.compile(r"^D(ADD|MUL|FMA|SETP|MMA|MNMX)\b|F64|64H")


class Compiled(NamedTuple):
    """A kernel on a card, and how it is launched there."""

    card: Card
    launch: Launch
    kernel: CompiledKernel

    @property
    def name(self) -> str:
        return f"{self.launch.file} {self.launch.name} on sm_{self.card.compute_capability}"

    @property
    def template(self) -> str:
        return parts_of(self.launch.name)[0]

    @property
    def numbers(self) -> str:
        """The type of the numbers, by every kernel's custom its first template argument."""
        return (*parts_of(self.launch.name)[1], "")[0]

    @property
    def threads(self) -> int:
        return int(np.prod(self.launch.block))

    @property
    def blocks(self) -> int:
        return self.card.blocks_at_once(self.kernel, self.threads, self.launch.shared_memory)


@pytest.fixture(scope="module")
def plans() -> dict[Card, dict[tuple[str, str], Launch]]:
    """What each card would be given to do."""
    return {card: instantiations(launches(card)) for card in CARDS}


@pytest.fixture(scope="module")
def outcome(plans: dict[Card, dict[tuple[str, str], Launch]]) -> tuple[list[Compiled], list[str]]:
    """All kernels that are compiled, for each card, and what the compiler refused."""
    chosen = []
    for card, plan in plans.items():
        thorough = card.compute_capability in THOROUGH
        names = list(plan)
        if os.environ.get("XPCONV_NVRTC") != "all":
            of_products = [key for key in plan if thorough and parts_of(key[1])[0] in PRODUCTS]
            large = [key for key in of_products if is_large(key[1])]
            names = list(dict.fromkeys([*covering(plan, thorough=False), *covering(of_products, thorough=True), *large]))
        chosen += [(card, plan[key]) for key in names]
    jobs = jobs_of((launch.file, launch.name, card.compute_capability) for card, launch in chosen)
    kernels, refused = compile_jobs(jobs, processes=usable_cores())
    compiled = [
        Compiled(card, launch, kernels[key])
        for card, launch in chosen
        if (key := (launch.file, launch.name, card.compute_capability)) in kernels
    ]
    print_table(compiled)
    return compiled, refused


@pytest.fixture(scope="module")
def everything(outcome: tuple[list[Compiled], list[str]]) -> list[Compiled]:
    """All kernels that the compiler took."""
    return outcome[0]


def print_table(compiled: list[Compiled]) -> None:
    """What was found: ``pytest -s`` shows it."""
    print(f"\n{'kernel':100} sm  registers shared  stack blocks multiply-add")
    for each in sorted(compiled, key=lambda each: each.name):
        share = f"{each.kernel.multiply_add_share:.1%}" if each.kernel.main_loop else ""
        shared = each.kernel.shared_memory + each.launch.shared_memory
        print(
            f"{each.launch.name:100} {each.card.compute_capability:3} {each.kernel.registers:9} {shared:6} "
            f"{each.kernel.stack:6} {each.blocks:6} {share:>12}"
        )


def is_large(name: str) -> bool:
    """Whether this is a product of float32 in tiles of 128 x 128."""
    kernel, arguments = parts_of(name)
    return kernel in PRODUCTS and "128, 128" in name and arguments[0] == "float" and "long long" not in arguments


def has_wide_copies(name: str) -> bool:
    """Whether a product of float32 copies four numbers at once, but for pixels of windows, which lie where they lie."""
    kernel, arguments = parts_of(name)
    match kernel:
        case "correlate":
            last, *widths = arguments[2:4]
        case "weight_gradient":
            last, *widths = arguments[3:6]
        case _:
            last, *widths = "true", *arguments[5:7]
    return all(width == "4" for width in (widths if last == "true" else widths[1:]))


def fail_with(found: list[str]) -> None:
    """Fail with all that was found at once."""
    __tracebackhide__ = True
    if found:
        pytest.fail(f"{len(found)} found:\n" + "\n".join(found), pytrace=False)


# ----------------------------------------------------------------------------------------------------------------------
# That it is the right thing that is compiled
# ----------------------------------------------------------------------------------------------------------------------


def test_every_kernel_of_the_sources_is_launched(plans: dict[Card, dict[tuple[str, str], Launch]]) -> None:
    launched = {(file, parts_of(name)[0]) for plan in plans.values() for file, name in plan}
    declared = {(file, kernel) for file, kernels in sources().items() for kernel in kernels}
    assert len(declared) > 20
    assert launched == declared


def test_all_types_and_both_widths_of_offsets_are_compiled(everything: list[Compiled]) -> None:
    for template in ("correlate", "weight_gradient", "max_pool2d_forward"):
        names = [each.launch.name for each in everything if each.template == template]
        for word in ("float", "double", "__nv_bfloat16", "long long", "int"):
            assert any(word in parts_of(name)[1] for name in names), (template, word)


def test_what_is_compiled_is_all_that_each_template_is_given(plans: dict[Card, dict[tuple[str, str], Launch]]) -> None:
    for plan in plans.values():
        chosen = covering(plan, thorough=False)
        assert len(chosen) < len(plan)
        assert shown(chosen) == shown(plan)


def shown(names: Any) -> set[tuple[str, str, int, str]]:
    split = [(file, *parts_of(name)) for file, name in names]
    return {(file, kernel, place, argument) for file, kernel, all_ in split for place, argument in enumerate(all_)}


def test_the_options_are_those_of_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CuPy compile a module for a card that is not there, and look at what it hands to NVRTC."""
    from cupy._core import core
    from cupy.cuda import compiler

    handed: list[tuple[str, ...]] = []

    def handed_over(program: Any, options: tuple[str, ...] = (), log_stream: Any = None) -> Any:
        if not program.name_expressions:  # an empty program, to find out what the compiler is
            return compile_(program, options, log_stream)
        handed.append(tuple(options))
        raise InterruptedError

    compile_ = compiler._NVRTCProgram.compile
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda arch=None: ("-arch=sm_90", "cubin"))
    monkeypatch.setattr(compiler, "_get_arch", lambda: "90")
    monkeypatch.setattr(compiler._NVRTCProgram, "compile", handed_over)
    with pytest.raises(InterruptedError):  # RawModule calls this, with its own arguments, for each card anew
        core.compile_with_cache("template <int> __global__ void none() {}", runtime.OPTIONS, name_expressions=("none<1>",))
    assert handed == [cubin.nvrtc_options(90)]


def test_the_reader_of_machine_code_on_a_kernel_whose_parts_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """152 bytes of local memory, 400 of shared, a loop of float64 inside one of float32."""
    code = """
    template <int N> __global__ void known(float* x, int n) {
        __shared__ float kept[N];
        float local[38];
        for (int i = 0; i < n; ++i) local[int(x[i])] = x[i];
        kept[threadIdx.x] = local[int(x[n])];
        __syncthreads();
        float sum = kept[N - 1 - threadIdx.x];
    #pragma unroll 1
        for (int i = 0; i < n; ++i) {
            float a = x[i];
    #pragma unroll
            for (int j = 0; j < 64; ++j) sum = sum * a + kept[j % N];
        }
        x[threadIdx.x] = sum;
    }
    template <int N> __global__ void wide(double* x, int n) {
        double sum = 0;
    #pragma unroll 1
        for (int i = 0; i < n; ++i) {
    #pragma unroll
            for (int j = 0; j < N; ++j) sum = sum * x[i] + x[i + j];
        }
        *x = sum;
    }
    """
    monkeypatch.setattr("xpconv.kernels.cuda.source.source_of", lambda file: code)
    for architecture in (75, 80, 90, 100, 120):
        job = cubin.Job("known.cu", ("known<100>", "wide<32>"), architecture)
        found, refused = compile_jobs([job])
        assert not refused
        known, wide = (found["known.cu", name, architecture] for name in job.names)
        assert (known.stack, known.shared_memory, wide.stack, wide.shared_memory) == (152, 400, 0, 0)
        assert 8 <= known.registers <= 255
        assert cubin.count(known.main_loop, "FFMA") == 64
        assert cubin.count(known.main_loop, "STL", "BAR") == 0
        assert known.count("STL") > 0
        assert known.count("BAR") == 1
        assert 0.25 < known.multiply_add_share < 1
        assert cubin.count(wide.main_loop, "DFMA") == wide.count("DFMA") == 32
        assert not any(FLOAT64.search(opcode) for opcode in known.opcodes)
        assert any(FLOAT64.search(opcode) for opcode in wide.opcodes)


def test_what_nvrtc_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "xpconv.kernels.cuda.source.source_of", lambda file: "template <int N> __global__ void bad() { mistake; }"
    )
    with pytest.raises(cubin.CubinError, match=r'(?s)sm_80: NVRTC refuses one of bad<1>.*identifier "mistake" is undefined'):
        cubin.compile_kernels([("bad.cu", "bad<1>")], [80])


# ----------------------------------------------------------------------------------------------------------------------
# What every kernel owes
# ----------------------------------------------------------------------------------------------------------------------


def test_every_kernel_compiles(outcome: tuple[list[Compiled], list[str]]) -> None:
    compiled, refused = outcome
    assert len(compiled) > 500 or refused
    fail_with(refused)


def test_no_warnings(everything: list[Compiled]) -> None:
    fail_with(sorted({f"{each.launch.file}: {each.kernel.warnings}" for each in everything if each.kernel.warnings}))


def test_no_local_memory(everything: list[Compiled]) -> None:
    """No register is spilled, and no array lies in memory for want of constant indices."""
    fail_with(
        [
            f"{each.name}: {each.kernel.stack} bytes of local memory a thread"
            for each in everything
            if each.kernel.stack or each.kernel.count("LDL", "STL")
        ]
    )


def test_shared_memory_fits(everything: list[Compiled]) -> None:
    fail_with(
        [
            f"{each.name}: {total} bytes of shared memory, of {each.card.shared_memory_limit}"
            for each in everything
            if (total := each.kernel.shared_memory + each.launch.shared_memory) > each.card.shared_memory_limit
        ]
    )


def test_enough_warps_at_once(everything: list[Compiled]) -> None:
    """By registers, and for products by the shared memory of their tiles; what others take follows from the images."""
    found = []
    for each in everything:
        in_block = -(-each.threads // 32)
        shared = each.launch.shared_memory if each.template in PRODUCTS else 0
        warps = in_block * each.card.blocks_at_once(each.kernel, each.threads, shared)
        well = each.card.compute_capability in THOROUGH and each.numbers != "double"
        wanted = each.card.architecture.warps // 2 if each.launch.file in WAITING else BUSY_WARPS if well else FEWEST_WARPS
        # A small block needs more of its kind than a multiprocessor may hold.
        if warps < min(wanted, in_block * each.card.architecture.blocks):
            found.append(
                f"{each.name}: {warps} warps a multiprocessor, {wanted} wanted ({each.kernel.registers} registers, "
                f"{each.threads} threads, {each.kernel.shared_memory + shared} bytes of shared memory)"
            )
    fail_with(found)


def test_no_float64_where_nobody_asked_for_it(everything: list[Compiled]) -> None:
    """A literal without an f, or a call of a function of double: 1/64 of the speed on most cards."""
    found = []
    for each in everything:
        if "double" in parts_of(each.launch.name)[1] or each.template in USES_FLOAT64:
            continue
        if wide := sorted(opcode for opcode in each.kernel.opcodes if FLOAT64.search(opcode)):
            found.append(f"{each.name}: {', '.join(wide)}")
    fail_with(found)


# ----------------------------------------------------------------------------------------------------------------------
# What matrix products are made of
# ----------------------------------------------------------------------------------------------------------------------


def products(everything: list[Compiled], *, tensor: bool) -> list[Compiled]:
    found = [each for each in everything if each.template in PRODUCTS and each.template.endswith("_tensor") == tensor]
    assert {each.template for each in found} == {name for name in PRODUCTS if name.endswith("_tensor") == tensor}
    return found


def test_products_read_shared_memory_by_128_bits(everything: list[Compiled]) -> None:
    found = []
    for each in products(everything, tensor=False):
        loop = each.kernel.main_loop
        wide, half = cubin.count(loop, "LDS.128", "LDS.U.128"), cubin.count(loop, "LDS.64", "LDS.U.64")
        narrow = cubin.count(loop, "LDS") - wide - half
        if each.template == "weight_gradient":
            narrow = max(0, narrow - LOOKED_UP)
        # A lane of only two columns reads them by 64 bits.
        if each.numbers in ("float", "double") and not (wide > 4 * narrow and wide >= half):
            found.append(f"{each.name}: {wide} loads of 128 bits, {half} of 64, {narrow} of less")
    fail_with(found)


def test_copies_go_past_the_registers(everything: list[Compiled]) -> None:
    """Those of 4 bytes or more; the packed weights of a convolution are copied by 16 bytes, whatever the type."""
    found = []
    for each in (*products(everything, tensor=False), *products(everything, tensor=True)):
        copied = each.numbers in ("float", "double") or each.template == "correlate_tensor"
        if each.card.compute_capability >= 80 and copied and not each.kernel.count("LDGSTS"):
            found.append(each.name)
    fail_with(found)


def test_tensor_cores_multiply_what_they_should(everything: list[Compiled]) -> None:
    found = []
    for each in products(everything, tensor=True):
        if not cubin.count(each.kernel.main_loop, *TENSOR_OPCODES[each.numbers]):
            found.append(f"{each.name}: {dict(each.kernel.main_loop)}")
    fail_with(found)
    cores = {(each.numbers, each.card.compute_capability) for each in products(everything, tensor=False)}
    assert {pair for pair in cores if pair[0] not in ("float", "double")} <= {("__nv_bfloat16", 75)}
    tensor = {(each.numbers, each.card.compute_capability) for each in products(everything, tensor=True)}
    assert {pair for pair in tensor if pair[1] == 75} <= {("__half", 75)}


@pytest.mark.parametrize("architecture", THOROUGH)
def test_products_of_float32_do_little_but_multiply(everything: list[Compiled], architecture: int) -> None:
    """In the largest tiles; each wants 1024 multiplications, 64 loads and some copies a step."""
    of_cores = products(everything, tensor=False)
    large = [each for each in of_cores if each.card.compute_capability == architecture and is_large(each.launch.name)]
    assert {each.template for each in large} == {"correlate", "matmul", "weight_gradient"}
    fail_with(
        [
            f"{each.name}: {each.kernel.multiply_add_share:.2%} of {sum(each.kernel.main_loop.values())} instructions"
            for each in large
            if not each.kernel.multiply_add_share >= (MULTIPLY_ADD_SHARE if has_wide_copies(each.launch.name) else NARROW_SHARE)
        ]
    )
