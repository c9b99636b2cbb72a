"""The compiler, and the folder in which what it made is kept.

Kernels are compiled by g++ and nothing else. A compiled kernel is a shared library; beside it lies the run time that it
calls, so that the folder can be moved. The name of each holds a hash of everything that it depends on: sources, options,
compiler and processor.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import platformdirs

from xpconv.cudasim.errors import CompileError

_HERE = Path(__file__).parent
INCLUDE = _HERE / "include"
_RUNTIME = _HERE / "runtime"
_runtime_lock = threading.Lock()

_OURS = "/simulator"  # what the debug information calls the folder of headers
_FORGOTTEN_AFTER = 30 * 86400.0  # seconds since a library was last used
_USED_AGAIN_AFTER = 86400.0  # seconds after which a use is noted

# -ffp-contract=off: the result of a * b + c does not depend on the processor. -ftls-model: one instruction finds the
# running thread. -w: what is to be said about a kernel's source, NVRTC says.
_COMMON = ("-fPIC", "-fvisibility=hidden", "-ftls-model=initial-exec", "-ffp-contract=off", "-pthread")
_KERNEL = (*_COMMON, "-fno-gnu-unique", "-fno-threadsafe-statics", "-fno-exceptions", "-w", "-nodefaultlibs")
_FAST = ("-O2",)
# The instrumentation is answered by the run time: neither libtsan nor libubsan is linked.
_CHECK = (
    "-O1",
    "-g1",
    "-fsanitize=thread",
    "-fsanitize=bounds,signed-integer-overflow,integer-divide-by-zero,shift,unreachable",
    "-fno-tree-vectorize",
    "-fno-tree-loop-distribute-patterns",
)


MODE_MACROS = {"fast": (), "check": ("-DCUDASIM_CHECK",)}

# For each folder of -I, the relative paths of headers in it, and their translations.
Headers = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


class Status(NamedTuple):
    """Whether kernels can be simulated here.

    Attributes:
        available: Whether they can.
        reason: Why they cannot; empty where they can.
        remedy: What to do about it; empty where there is nothing to do.

    Example:
        >>> from xpconv import cudasim
        >>> status = cudasim.status()
        >>> status.available == (status.reason == "")
        True
    """

    available: bool
    reason: str
    remedy: str


@functools.cache
def status() -> Status:
    """Whether kernels can be simulated on this machine: Linux on x86-64 or aarch64, with g++.

    Returns:
        Whether, and if not, why not and what to do.

    Example:
        >>> from xpconv import cudasim
        >>> cudasim.status() == cudasim.status()
        True
    """
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        system = f"{platform.system()} on {platform.machine()}"
        return Status(False, f"the simulator runs on Linux on x86-64 and aarch64, not on {system}", "use a Linux container")
    if shutil.which("g++") is None:
        return Status(
            False, "g++, which compiles the kernels, is not on the path", "apt-get install g++ (or dnf install gcc-c++)"
        )
    try:
        _compiler()
    except OSError as error:
        return Status(False, f"g++ does not work: {error}", "apt-get install --reinstall g++")
    return Status(True, "", "")


def require() -> None:
    """Raise CompileError with the remedy where kernels cannot be simulated."""
    found = status()
    if not found.available:
        raise CompileError(f"kernels cannot be simulated here: {found.reason}; {found.remedy}")


def build(source: str, headers: Headers, options: tuple[str, ...], mode: str) -> Path:
    """Compile a translated source to a shared library, unless it is at hand.

    Args:
        source: C++.
        headers: The translated headers; they come before those of the folder they are from.
        options: Further options of the compiler.
        mode: "fast" or "check".

    Returns:
        Path of the library.

    Raises:
        CompileError: There is no compiler, or it refuses the source.
    """
    require()
    runtime = _built_runtime()
    flags = (*_KERNEL, *(_CHECK if mode == "check" else _FAST), *_processor_flags(), *options)
    digest = hashlib.sha256(repr((_fingerprint(), flags, headers)).encode())
    digest.update(source.encode())
    library = runtime.parent / f"kernel-{digest.hexdigest()[:32]}.so"
    if _is_at_hand(library):
        return library
    with tempfile.TemporaryDirectory(dir=runtime.parent, prefix="building-") as name:
        folder = Path(name)
        made = folder / library.name
        linking = [str(runtime), "-Wl,-rpath,$ORIGIN", "-Wl,--no-undefined", "-lm", "-lc", "-lgcc"]
        _compile(["g++", *flags, *_written(source, headers, folder), "-shared", *linking, "-o", str(made)])
        made.replace(library)
    return library


@functools.lru_cache(maxsize=64)
def preprocessed(source: str, headers: Headers, options: tuple[str, ...]) -> str:
    """A translated source after the preprocessor; arguments and errors as those of :func:`build`."""
    require()
    with tempfile.TemporaryDirectory(prefix="xpconv-cudasim-") as name:
        output = Path(name) / "preprocessed"
        _compile(["g++", "-E", *options, *_written(source, headers, Path(name)), "-o", str(output)])
        return output.read_text()


def _written(source: str, headers: Headers, folder: Path) -> list[str]:
    """Write the sources into a folder; the compiler's arguments that name them."""
    # The last map that fits counts: the simulator may lie below the working directory.
    arguments = [f"-I{INCLUDE}", f"-fdebug-prefix-map={Path.cwd()}=.", f"-fdebug-prefix-map={INCLUDE}={_OURS}"]
    for number, (original, files) in enumerate(headers):
        for relative, text in files:
            path = folder / str(number) / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        arguments += [f"-I{folder / str(number)}", f"-I{original}"]
    (folder / "kernel.cpp").write_text(source)
    return [*arguments, str(folder / "kernel.cpp")]


def load(source: str, headers: Headers, options: tuple[str, ...], mode: str) -> tuple[ctypes.CDLL, Path]:
    """The library that :func:`build` makes, and its path; one that was damaged on disk is built anew."""
    library = build(source, headers, options, mode)
    try:
        return ctypes.CDLL(str(library)), library
    except OSError:
        library.unlink(missing_ok=True)
        return ctypes.CDLL(str(build(source, headers, options, mode))), library


def lines_of(library: Path, addresses: list[int]) -> list[tuple[str, int]]:
    """File and line of each address in a library: those of the kernel's source, not of the simulator's headers.

    Args:
        library: Path of a library in check mode.
        addresses: Offsets in it.

    Returns:
        ("", 0) where the line is not known.
    """
    if not addresses or shutil.which("addr2line") is None:
        return [("", 0)] * len(addresses)
    command = ["addr2line", "-e", str(library), "-i", "-a", *(hex(address) for address in addresses)]
    output = _run(command).stdout
    found: list[tuple[str, int]] = []
    for text in output.splitlines():
        if text.startswith("0x"):
            found.append(("", 0))
            continue
        file, _, line = text.partition(" ")[0].rpartition(":")
        is_known = line.isdigit() and int(line) > 0 and not file.startswith(("??", _OURS))
        if found and not found[-1][0] and is_known:
            found[-1] = (re.sub(r"^(?:\./)+", "", file), int(line))
    return found + [("", 0)] * (len(addresses) - len(found))


# ---- the folder ----------------------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where compiled kernels are kept: ``XPCONV_CUDASIM_CACHE``, else a folder in the user's cache directory."""
    chosen = os.environ.get("XPCONV_CUDASIM_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("xpconv") / "cudasim"


@functools.cache
def _writable(directory: Path) -> Path:
    """A folder that can be written: the one asked for, or one that lives as long as the process."""
    try:
        if directory.parts[:1] == ("~",):
            raise OSError("the home directory of this user is unknown")
        is_new = not directory.is_dir()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError:
        temporary = Path(tempfile.mkdtemp(prefix="xpconv-cudasim-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary
    if not is_new:
        _forget_unused(directory)
    return directory


def _forget_unused(directory: Path) -> None:
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _FORGOTTEN_AFTER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_at_hand(library: Path) -> bool:
    try:
        age = time.time() - library.stat().st_mtime
    except OSError:
        return False
    if age > _USED_AGAIN_AFTER:
        with contextlib.suppress(OSError):
            os.utime(library)
    return True


# ---- the compiler --------------------------------------------------------------------------------------------------------


@functools.cache
def _compiler() -> str:
    """What the compiler says of itself."""
    done = _run(["g++", "--version"])
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
    if "clang" in done.stdout:
        raise OSError("it is clang under the name of g++")
    return done.stdout


@functools.cache
def _processor_flags() -> tuple[str, ...]:
    """AVX2 and FMA where there are: `fmaf` is then an instruction instead of a call."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        line = next((line for line in text.splitlines() if line.startswith("flags")), "")
        if {"avx2", "fma", "bmi2"} <= set(line.split()):
            return ("-mavx2", "-mfma", "-mbmi2")
    return ()


@functools.cache
def _fingerprint() -> str:
    digest = hashlib.sha256(_compiler().encode())
    for path in sorted([*INCLUDE.rglob("*"), *_RUNTIME.glob("*"), Path(__file__)]):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _built_runtime() -> Path:
    directory = _writable(cache_directory())
    sources = sorted(str(path) for path in _RUNTIME.glob("*.cpp"))
    flags = ("-std=c++17", "-O2", *_COMMON)
    digest = hashlib.sha256(repr((_fingerprint(), flags)).encode()).hexdigest()[:32]
    library = directory / f"runtime-{digest}.so"
    with _runtime_lock:
        if _is_at_hand(library):
            return library
        with tempfile.TemporaryDirectory(dir=directory, prefix="building-") as folder:
            made = Path(folder) / library.name
            _compile(["g++", *flags, "-shared", f"-Wl,-soname,{library.name}", f"-I{INCLUDE}", *sources, "-o", str(made)])
            made.replace(library)
    return library


def _compile(command: list[str]) -> None:
    done = _run(command)
    if done.returncode != 0:
        is_ptx = re.search(r"\basm\b|Assembler", done.stderr)
        remedy = "\n(inline PTX is not simulated: put it under #ifndef XPCONV_CUDASIM)" if is_ptx else ""
        raise CompileError((done.stderr.strip()[:10000] or f"g++ failed with status {done.returncode}") + remedy)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - g++ or addr2line
