"""Module: the source of kernels, compiled when one of them is first asked for."""

from __future__ import annotations

import ctypes
import functools
import os
import posixpath
import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from xpconv.cudasim import toolchain
from xpconv.cudasim.errors import CompileError
from xpconv.cudasim.kernel import SHARED_MEMORY_LIMIT, Kernel, Parameter
from xpconv.cudasim.options import translate_options
from xpconv.cudasim.source import kernel_names, stands_in_macro, translate

MODES = ("fast", "check")
_LEAST_SHARED_MEMORY, _MOST_SHARED_MEMORY = 48 << 10, 227 << 10

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:<([^>\n]+)>|"([^"\n]+)")', re.MULTILINE)


class Module:
    """Kernels of CUDA C++ that run on the processor, in the shape of ``cupy.RawModule``.

    Compiled code is kept on disk: below ``XPCONV_CUDASIM_CACHE``, else in the user's cache directory.

    Args:
        code: CUDA C++, as NVRTC takes it.
        options: Options of NVRTC. ``-D``, ``-U``, ``-I``, ``-std``, ``-arch`` (which sets ``__CUDA_ARCH__``) and ``-include``
            are honoured; those that concern the machine code of a card or messages have no effect; others are refused.
        name_expressions: Instantiations of templates to compile, such as ``"scale<float>"``. Without them the kernels are
            those with ``extern "C"``.
        mode: "fast" to compute, "check" to have every access checked; None takes ``XPCONV_CUDASIM_MODE``, else "fast".
        filename: Name of the source in messages.
        shared_memory_limit: Bytes of shared memory that a block may have at most: 64 KiB on sm_75, 163 KiB on sm_80, 227 KiB
            on sm_90 and sm_100, 99 KiB on sm_86, sm_89 and sm_120.

    Raises:
        ValueError: The mode is neither "fast" nor "check", or no card has such a limit of shared memory.
        TypeError: An argument has the wrong type.
        CompileError: An option is not one of NVRTC's.

    Example:
        >>> import numpy as np
        >>> from xpconv import cudasim
        >>> code = '''extern "C" __global__ void twice(const float* x, float* y, int n) {
        ...     int i = blockIdx.x * blockDim.x + threadIdx.x;
        ...     if (i < n) y[i] = 2 * x[i];
        ... }'''
        >>> x, y = np.arange(3, dtype=np.float32), np.empty(3, np.float32)
        >>> if cudasim.status().available:
        ...     cudasim.Module(code=code).get_function("twice")((1,), (32,), (x, y, np.int32(3)))
        ... else:
        ...     y = 2 * x
        >>> y.tolist()
        [0.0, 2.0, 4.0]
    """

    def __init__(
        self,
        *,
        code: str,
        options: Iterable[str] = (),
        name_expressions: Sequence[str] | None = None,
        mode: str | None = None,
        filename: str = "kernel.cu",
        shared_memory_limit: int = SHARED_MEMORY_LIMIT,
    ) -> None:
        if not isinstance(code, str):
            raise TypeError(f"code is a string of CUDA C++, not {type(code).__name__}")
        if isinstance(options, str):
            raise TypeError(f"options is a sequence of strings, not one string: {options!r}")
        if isinstance(name_expressions, str):
            raise TypeError(f"name_expressions is a sequence of strings, not one string: {name_expressions!r}")
        if not _LEAST_SHARED_MEMORY <= shared_memory_limit <= _MOST_SHARED_MEMORY:
            bounds = f"from {_LEAST_SHARED_MEMORY} to {_MOST_SHARED_MEMORY}"
            raise ValueError(f"shared_memory_limit is {shared_memory_limit}, but a block of a card can have {bounds} bytes")
        self.code = code
        self.options = tuple(options)
        self.mode = _chosen_mode(mode)
        self.filename = filename
        self.shared_memory_limit = shared_memory_limit
        self._options = translate_options(self.options)
        self._chosen = None if name_expressions is None else tuple(name_expressions)
        self._lock = threading.Lock()
        self._library: ctypes.CDLL | None = None
        self._path = Path()

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """What :meth:`get_function` takes: ``name_expressions``, or the names of all kernels with C linkage."""
        if self._chosen is not None:
            return self._chosen
        return tuple(name for name, has_c_linkage in self._declared.items() if has_c_linkage)

    def compile(self) -> None:
        """Compile now what :meth:`get_function` would compile at its first call.

        Raises:
            CompileError: There is no compiler, or it refuses the source.
        """
        with self._lock:
            if self._library is None:
                source = self._with_entries()
                self._library, self._path = toolchain.load(source, self._headers, self._flags, self.mode)

    def get_function(self, name: str) -> Kernel:
        """A kernel of the module.

        Args:
            name: Its name, or one of ``name_expressions`` to the letter.

        Returns:
            The kernel: call it as ``kernel(grid, block, args, shared_mem=0)``.

        Raises:
            ValueError: There is no kernel of that name.
            CompileError: There is no compiler, or it refuses the source.
        """
        if name not in self.names:
            if self._declared.get(name) is False:
                raise ValueError(f'get_function: {name!r} is not declared extern "C", and not one of name_expressions')
            raise ValueError(
                f"get_function: there is no kernel {name!r} here, but {', '.join(map(repr, self.names)) or 'none'}"
            )
        self.compile()
        assert self._library is not None
        index = self.names.index(name)
        entry = getattr(self._library, f"cudasim_run_{index}")
        signature = getattr(self._library, f"cudasim_signature_{index}")
        signature.restype = ctypes.POINTER(Parameter)
        return Kernel(name, entry, signature(), self._path, mode=self.mode, shared_memory_limit=self.shared_memory_limit)

    def _with_entries(self) -> str:
        """C++ of the kernels and of what Python calls."""
        entries = "".join(f"CUDASIM_ENTRY({index}, {name})\n" for index, name in enumerate(self.names))
        source = f'{self._source}\n#line 1 "name_expressions"\n#include "cudasim/entry.h"\n{entries}'
        texts = (self.code, *(text for _, files in self._headers for _, text in files))
        if any(stands_in_macro("__shared__", text) for text in texts):
            return translate(toolchain.preprocessed(source, self._headers, self._flags), self.filename)
        return source

    @functools.cached_property
    def _source(self) -> str:
        translated = translate(self.code, self.filename)
        return f'#include "cudasim.h"\n#line 1 {_quoted(self.filename)}\n{translated}\n'

    @functools.cached_property
    def _flags(self) -> tuple[str, ...]:
        return (*self._options.flags, *toolchain.MODE_MACROS[self.mode])

    @functools.cached_property
    def _declared(self) -> dict[str, bool]:
        """The kernels that are not templates, and whether each has C linkage."""
        if not stands_in_macro("__global__", self.code):
            return kernel_names(self.code)
        return kernel_names(toolchain.preprocessed(self._source, self._headers, self._flags))

    @functools.cached_property
    def _headers(self) -> toolchain.Headers:
        """Of each folder of ``-I``, the headers that the source may include from it, translated."""
        found: dict[str, dict[str, str]] = {folder: {} for folder in self._options.folders}
        waiting = [(name, folder, "") for name in _included(self.code) for folder in found]
        while waiting:
            name, folder, beside = waiting.pop()
            relative = posixpath.normpath(posixpath.join(beside, name))
            path = Path(folder) / relative
            if relative in found[folder] or relative.startswith("..") or not path.is_file():
                continue
            try:
                text = path.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise CompileError(f"{path} cannot be read: {error}") from error
            found[folder][relative] = f"#line 1 {_quoted(str(path))}\n{translate(text, str(path))}\n"
            for other in _included(text):
                waiting += [(other, folder, posixpath.dirname(relative))] + [(other, any_folder, "") for any_folder in found]
        return tuple((folder, tuple(sorted(files.items()))) for folder, files in found.items())


def _chosen_mode(mode: str | None) -> str:
    source = "mode" if mode is not None else "XPCONV_CUDASIM_MODE"
    chosen = mode if mode is not None else os.environ.get("XPCONV_CUDASIM_MODE") or "fast"
    if chosen not in MODES:
        raise ValueError(f"{source} is {chosen!r}, but it is 'fast' or 'check'")
    return chosen


def _included(text: str) -> list[str]:
    return [match[1] or match[2] for match in _INCLUDE.finditer(text)]


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
