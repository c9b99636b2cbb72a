"""What NVRTC makes of the kernels: registers, stack, shared memory and instructions, for any card, on a machine that has none.

Compiled is what ``cupy.RawModule`` would compile, with the same options; NVRTC needs no driver. Instructions are read by
``nvdisasm``, which comes with the CUDA toolkit or by ``pip install nvidia-cuda-nvdisasm``.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.util
import json
import multiprocessing
import re
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from xpconv.errors import XpconvError

# Instructions that multiply and add; FFMA2 does so twice.
MULTIPLY_ADD = ("FFMA", "FFMA2", "DFMA", "HMMA")
# What the system keeps of a block's shared memory since sm_80; in the file it is counted since sm_90.
RESERVED_SHARED_MEMORY = 1024
INSTRUCTION_BYTES = 16  # of every architecture since sm_70
# Template instantiations that one program is made of: enough for the headers not to count, few enough for a fair share.
NAMES_PER_PROGRAM = 12

# Of an ELF file, and of NVIDIA's sections in it.
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL_TABLE = 2
_SYMBOL = struct.Struct("<IBBHQQ")
_REGISTERS, _FRAME_SIZE, _MINIMUM_STACK = 0x2F, 0x11, 0x12
_SIZED_ATTRIBUTE = 4


class CubinError(XpconvError, RuntimeError):
    """NVRTC refused a kernel, or a tool is missing; the text tells which."""


class Job(NamedTuple):
    """Template instantiations of one file, for one architecture: 80 is sm_80."""

    file: str
    names: tuple[str, ...]
    architecture: int


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel as one architecture runs it.

    Attributes:
        registers: Of each thread.
        stack: Bytes of local memory of each thread: spilled registers, and arrays that no register can hold.
        shared_memory: Bytes of static shared memory of a block.
        opcodes: How often each instruction stands in the kernel, with its modifiers: ``"LDS.128"``.
        main_loop: The same for the loop that multiplies most; empty where none does.
        warnings: What the compiler had to say about the program that this kernel is in.
    """

    registers: int
    stack: int
    shared_memory: int
    opcodes: Mapping[str, int]
    main_loop: Mapping[str, int]
    warnings: str = ""

    def count(self, *opcodes: str) -> int:
        """Number of instructions that begin so: ``"LDS"`` counts ``LDS`` and ``LDS.128``, not ``LDSM``."""
        return count(self.opcodes, *opcodes)

    @property
    def multiply_add_share(self) -> float:
        """Share of the main loop's instructions that multiply and add; 0 where there is no such loop."""
        total = sum(self.main_loop.values())
        return count(self.main_loop, *MULTIPLY_ADD) / total if total else 0.0


def count(histogram: Mapping[str, int], *opcodes: str) -> int:
    """Number of instructions in a histogram that begin so.

    Example:
        >>> from xpconv.bench.cubin import count
        >>> count({"LDS.128": 2, "LDS": 1, "LDSM.16": 4, "FFMA": 8}, "LDS")
        3
    """
    words = [opcode.split(".") for opcode in opcodes]
    return sum(number for name, number in histogram.items() if any(name.split(".")[: len(word)] == word for word in words))


def missing_tools() -> str:
    """Why nothing can be compiled and read here; empty where it can."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed: pip install 'xpconv[cuda13]'"
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # CuPy raises what it likes where a library is missing
        return f"NVRTC cannot be loaded ({' '.join(str(error).split())}): pip install nvidia-cuda-nvrtc"
    if _nvdisasm() is None:
        return "nvdisasm is not installed: pip install nvidia-cuda-nvdisasm"
    return ""


def check_tools() -> None:
    """Raise unless kernels can be compiled and read here.

    Raises:
        CubinError: Something is missing; the text says what to install.
    """
    if reason := missing_tools():
        raise CubinError(reason)


def nvrtc_version() -> str:
    """The version of the compiler: ``"13.1"``."""
    from cupy.cuda import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def compile_kernels(
    kernels: Iterable[tuple[str, str]], architectures: Sequence[int], *, processes: int = 1
) -> dict[tuple[str, str, int], CompiledKernel]:
    """Compile template instantiations for some architectures.

    Args:
        kernels: Files and name expressions: ``("pool2d.cu", "max_pool2d_forward<float, int>")``.
        architectures: Ten times the compute capability: 80 is sm_80.
        processes: How many processes share the work.

    Returns:
        A kernel by file, name and architecture.

    Raises:
        CubinError: NVRTC refuses something, in its own words; or a tool is missing.
    """
    wanted = {(file, name, architecture) for file, name in kernels for architecture in architectures}
    compiled, refused = compile_jobs(jobs_of(wanted), processes=processes)
    if refused:
        raise CubinError("\n".join(refused))
    return compiled


def jobs_of(kernels: Iterable[tuple[str, str, int]]) -> list[Job]:
    """Gather kernels, each a file, a name and an architecture, into programs; those that take longest come first."""
    names: dict[tuple[str, int], list[str]] = {}
    for file, name, architecture in sorted(set(kernels)):
        names.setdefault((file, architecture), []).append(name)
    jobs = [
        Job(file, tuple(some[start :: -(-len(some) // NAMES_PER_PROGRAM)]), architecture)
        for (file, architecture), some in names.items()
        for start in range(-(-len(some) // NAMES_PER_PROGRAM))
    ]
    return sorted(jobs, key=lambda job: -len(job.names))


def compile_jobs(jobs: Sequence[Job], *, processes: int = 1) -> tuple[dict[tuple[str, str, int], CompiledKernel], list[str]]:
    """As :func:`compile_kernels`, of programs that are put together already, with what NVRTC says about those it refuses."""
    check_tools()
    if processes == 1 or len(jobs) < 2:
        parts = list(map(_compiled_or_refused, jobs))
    else:
        context = multiprocessing.get_context("spawn")  # a forked process would hold locks of threads that it has not
        with concurrent.futures.ProcessPoolExecutor(min(processes, len(jobs)), context) as pool:
            parts = list(pool.map(_compiled_or_refused, jobs))
    compiled = {
        (job.file, name, job.architecture): kernel
        for job, part in zip(jobs, parts, strict=True)
        if not isinstance(part, str)
        for name, kernel in part.items()
    }
    return compiled, [part for part in parts if isinstance(part, str)]


def nvrtc_options(architecture: int) -> tuple[str, ...]:
    """The options that ``cupy.RawModule`` hands to NVRTC for our kernels on a card of this architecture."""
    from cupy._core import core

    from xpconv.kernels.cuda.runtime import OPTIONS

    assembled: tuple[str, ...] = core.assemble_cupy_compiler_options(OPTIONS)
    return (*assembled, "-ftz=true", f"-arch=sm_{architecture}", "--device-as-default-execution-space")


def _compiled_or_refused(job: Job) -> dict[str, CompiledKernel] | str:
    try:
        return _compile_job(job)
    except CubinError as error:  # the other programs are worth knowing, too
        return str(error)


def _compile_job(job: Job) -> dict[str, CompiledKernel]:
    from xpconv.kernels.cuda.source import source_of

    cubin, lowered, log = _cubin_of(source_of(job.file), job)
    usage = dict(_usage_of(cubin, job.architecture))
    instructions = _disassembled(cubin)
    return {
        name: CompiledKernel(
            **usage[symbol], opcodes=_histogram(instructions[symbol]), main_loop=_main_loop(instructions[symbol]), warnings=log
        )
        for name, symbol in lowered.items()
    }


def _cubin_of(code: str, job: Job) -> tuple[bytes, dict[str, str], str]:
    """The machine code, the names that the kernels have in it, and what the compiler said."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(code, job.file, (), ())
    try:
        for name in job.names:
            nvrtc.addNameExpression(program, name)
        try:
            nvrtc.compileProgram(program, nvrtc_options(job.architecture))
        except nvrtc.NVRTCError:
            log = nvrtc.getProgramLog(program)
            raise CubinError(f"sm_{job.architecture}: NVRTC refuses one of {', '.join(job.names)}:\n{log}") from None
        lowered = {name: nvrtc.getLoweredName(program, name) for name in job.names}
        # CuPy takes the last byte for the end of a text.
        return nvrtc.getCUBIN(program) + b"\0", lowered, nvrtc.getProgramLog(program).strip()
    finally:
        nvrtc.destroyProgram(program)


# ---- what the file says about each kernel ------------------------------------------------------------------------------


def _usage_of(cubin: bytes, architecture: int) -> Iterator[tuple[str, dict[str, int]]]:
    sections = list(_sections_of(cubin))
    by_name = {name: content for name, _, content in sections}
    (symbols,) = (content for _, kind, content in sections if kind == _SYMBOL_TABLE)
    names = [_text_at(by_name[".strtab"], _SYMBOL.unpack_from(symbols, at)[0]) for at in range(0, len(symbols), _SYMBOL.size)]
    attributes = {(attribute, names[symbol]): value for attribute, symbol, value in _attributes_of(by_name[".nv.info"])}
    for name in names:
        if f".text.{name}" in by_name:
            stack = max(attributes.get((kind, name), 0) for kind in (_FRAME_SIZE, _MINIMUM_STACK))
            shared_memory = next((size for section, size in _sizes_of(cubin) if section == f".nv.shared.{name}"), 0)
            if shared_memory and architecture >= 90:
                shared_memory -= RESERVED_SHARED_MEMORY
            yield name, {"registers": attributes[_REGISTERS, name], "stack": stack, "shared_memory": shared_memory}


def _headers_of(cubin: bytes) -> list[tuple[int, ...]]:
    if cubin[:5] != b"\x7fELF\x02":
        raise CubinError("the compiler gave no 64-bit ELF file")
    (offset,) = struct.unpack_from("<Q", cubin, 0x28)
    size, number, texts = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [_SECTION.unpack_from(cubin, offset + index * size) for index in range(number)]
    return [headers[texts], *headers]


def _sizes_of(cubin: bytes) -> Iterator[tuple[str, int]]:
    texts, *headers = _headers_of(cubin)
    for header in headers:
        yield _text_at(cubin, texts[4] + header[0]), header[5]


def _sections_of(cubin: bytes) -> Iterator[tuple[str, int, bytes]]:
    texts, *headers = _headers_of(cubin)
    for header in headers:
        yield _text_at(cubin, texts[4] + header[0]), header[1], cubin[header[4] : header[4] + header[5]]


def _text_at(memory: bytes, start: int) -> str:
    return memory[start : memory.index(b"\0", start)].decode()


def _attributes_of(info: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, symbol and value of each attribute that belongs to a symbol."""
    at = 0
    while at < len(info):
        layout, kind, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if layout != _SIZED_ATTRIBUTE:
            continue  # the size is the value
        if size == 8:
            yield (kind, *struct.unpack_from("<II", info, at))
        at += size


# ---- instructions ------------------------------------------------------------------------------------------------------


def _disassembled(cubin: bytes) -> dict[str, list[dict[str, Any]]]:
    program = _nvdisasm()
    if program is None:
        raise CubinError("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory(prefix="xpconv-cubin-") as folder:
        file = Path(folder, "kernels.cubin")
        file.write_bytes(cubin)
        done = subprocess.run([program, "-json", "-c", str(file)], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CubinError(f"nvdisasm failed: {done.stderr.strip()}")
    _, functions = json.loads(done.stdout)
    return {function["function-name"]: function["sass-instructions"] for function in functions}


def _histogram(instructions: Iterable[dict[str, Any]]) -> dict[str, int]:
    # What is never executed stands there to keep others apart.
    kept = (entry["opcode"] for entry in instructions if entry.get("predicate") != "@!PT" and entry["opcode"] != "NOP")
    return dict(Counter(kept))


def _main_loop(instructions: list[dict[str, Any]]) -> dict[str, int]:
    """The innermost loop with the most multiplications: everything from where a branch leads back to, up to the branch."""
    loops = []
    for index, entry in enumerate(instructions):
        target = re.search(r"0x[0-9a-f]+$", entry.get("operands", "")) if entry["opcode"].startswith("BRA") else None
        if target is not None and (start := int(target[0], 16) // INSTRUCTION_BYTES) < index:
            loops.append((start, index + 1))
    work = {loop: count(_histogram(instructions[slice(*loop)]), *MULTIPLY_ADD) for loop in loops}
    working = [loop for loop in loops if work[loop]]
    innermost = [
        (start, stop)
        for start, stop in working
        if not any(start <= a and b <= stop and (a, b) != (start, stop) for a, b in working)
    ]
    if not innermost:
        return {}
    return _histogram(instructions[slice(*max(innermost, key=work.__getitem__))])


@functools.cache
def _nvdisasm() -> str | None:
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations or () if package is not None else ():
        for program in sorted(Path(folder).glob("*/bin/nvdisasm*"), reverse=True):
            return str(program)
    return shutil.which("nvdisasm")
