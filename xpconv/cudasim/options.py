"""The options of NVRTC: those that mean something here, those that do not, and those that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from xpconv.cudasim.errors import CompileError

_ARCHITECTURE = 860  # the least card with 99 KiB of shared memory for a block

# The headers need C++17; what is asked for below that is compiled as C++17.
_STANDARDS = {"c++03": "c++17", "c++11": "c++17", "c++14": "c++17", "c++17": "c++17", "c++20": "c++20", "c++23": "c++23"}

# Of the machine code of a card, of messages, or of how fast NVRTC is: without effect on what a kernel computes here.
_WITHOUT_EFFECT = re.compile(
    r"--?(?:use_fast_math|extra-device-vectorization|restrict|lineinfo|generate-line-info|G|device-debug|dlto|dlink-time-opt"
    r"|device-c|rdc|relocatable-device-code|device-w|dw|extensible-whole-program|ewp|default-device|builtin-move-forward"
    r"|device-as-default-execution-space|disable-warnings|w|diag-\w+|display-error-number|no-display-error-number|err-no|optix-ir"
    r"|builtin-initializer-list|no-source-include|time|split-compile|minimal|modify-stack-limit|random-seed|device-stack-protector"
    r"|ftz|prec-div|prec-sqrt|fmad|maxrregcount|dopt|Ofast-compile|version-ident|jump-table-density|gen-opt-lto|pch|create-pch"
    r"|use-pch|pch-dir|pch-verbose|pch-messages|instantiate-templates-in-pch|fdevice-time-trace|ptxas-options|Xptxas)(?:=.*)?"
)
_TAKES_NEXT = {"-D", "-U", "-I", "-arch", "--gpu-architecture", "-std", "--std", "--define-macro", "--undefine-macro",
               "--include-path", "-include", "--pre-include", "-maxrregcount", "--maxrregcount", "-diag-suppress",
               "--diag-suppress", "--ptxas-options", "-Xptxas"}  # fmt: skip


class Options(NamedTuple):
    """Options as g++ takes them.

    Attributes:
        flags: All but the folders.
        folders: Folders of headers, in order.
    """

    flags: tuple[str, ...]
    folders: tuple[str, ...]


def translate_options(options: Iterable[str]) -> Options:
    """The options of NVRTC for g++.

    Args:
        options: As CuPy hands them to NVRTC: ``-DNAME=1``, ``-I/folder``, ``--std=c++17``, ...

    Returns:
        Options of g++.

    Raises:
        CompileError: An option is not one of NVRTC's.
        TypeError: An option is not a string.

    Example:
        >>> from xpconv.cudasim.options import translate_options
        >>> translate_options(("-DTILE=16", "--use_fast_math", "--std=c++14")).flags
        ('-DTILE=16', '-std=c++17', '-D__CUDA_ARCH__=860')
    """
    flags: list[str] = []
    folders: list[str] = []
    standard, architecture = "c++17", _ARCHITECTURE
    for name, value in _pairs(options):
        if name in ("-D", "--define-macro"):
            flags.append(f"-D{value}")
        elif name in ("-U", "--undefine-macro"):
            flags.append(f"-U{value}")
        elif name in ("-I", "--include-path"):
            folders.append(value)
        elif name in ("-include", "--pre-include"):
            flags += ["-include", value]
        elif name in ("-std", "--std"):
            if value not in _STANDARDS:
                raise CompileError(f"the standard {value!r} is not known; NVRTC takes {', '.join(_STANDARDS)}")
            standard = _STANDARDS[value]
        elif name in ("-arch", "--gpu-architecture"):
            match = re.fullmatch(r"(?:compute|sm|lto)_(\d+)[af]?", value)
            if match is None:
                raise CompileError(f"the architecture {value!r} is not one of NVRTC's, such as compute_80 or sm_90")
            architecture = int(match[1]) * 10
        else:
            option = f"{name}={value}" if value else name
            if not _WITHOUT_EFFECT.fullmatch(option):
                raise CompileError(f"the option {option!r} is not one of NVRTC's")
    own = [f"-std={standard}"]
    if not any(flag.startswith("-D__CUDA_ARCH__") for flag in flags):
        own.append(f"-D__CUDA_ARCH__={architecture}")
    return Options((*flags, *own), tuple(folders))


def _pairs(options: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each option, however they are joined."""
    remaining = iter(options)
    for option in remaining:
        if not isinstance(option, str):
            raise TypeError(f"an option is a string, not {type(option).__name__}: {option!r}")
        if option in _TAKES_NEXT:
            value = next(remaining, None)
            if value is None:
                raise CompileError(f"the option {option!r} needs a value")
            yield option, value
        elif not option.startswith("--") and option[:2] in ("-D", "-U", "-I"):
            yield option[:2], option[2:].removeprefix("=") if option[:2] == "-I" else option[2:]
        else:
            name, _, value = option.partition("=")
            yield name, value
