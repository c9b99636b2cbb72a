"""From a Python function to the address of machine code: what is compiled, when, and where it is kept.

A kernel is a function of ``(worker, workers, a)``, ``a`` a record of addresses and numbers that a subclass of
:class:`Arguments` declares. It is compiled by ``numba.cfunc``, whose result takes a tenth of the time of a parallel
``njit`` function and is called by address. Nothing is compiled before it is first called.

The machine code is kept in a directory of the user, never beside the sources, so that a read-only installation works. The
name of that directory holds a hash of everything that the code depends on: all sources of this folder, the versions of Numba,
LLVM and Python, and the processor. A kernel's own file would not be enough: an edit of an intrinsic changes every kernel that
uses it, which Numba's own cache does not notice. Where no directory can be written, kernels are compiled anew in each process.
A file begins with a hash of the rest: LLVM would run, or die of, whatever a crash of the system left in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import llvmlite
import numba
import numpy as np
import platformdirs
from numba import types
from numba.core import caching, ccallback, config, registry
from numba.core.serialize import dumps

from xpconv.kernels.numba.target import vector_bytes

_F = TypeVar("_F", bound=Callable[..., Any])

_TOLD_AFTER = 1.0  # seconds of compiling
_FORGOTTEN_AFTER = 30 * 86400.0  # seconds since a directory of other sources was last written to

_lock = threading.RLock()
_seconds = 0.0
_told = False
_compiled: list[CompiledFunction] = []


if TYPE_CHECKING:
    from _ctypes import _PyCStructType as _StructureType  # its name for type checkers; at run time it has another
else:
    _StructureType = type(ctypes.Structure)

_FIELDS = {"int": ctypes.c_int64, "float": ctypes.c_double}


@dataclass_transform(kw_only_default=True)
class _WithFields(_StructureType):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        annotations = namespace.get("__annotations__", {})
        namespace["_fields_"] = [(field, _FIELDS[kind]) for field, kind in annotations.items()]
        return super().__new__(cls, name, bases, namespace)


class Arguments(ctypes.Structure, metaclass=_WithFields):
    """The arguments of a kernel: a subclass annotates its fields with int (addresses, sizes, strides) or float.

    Example:
        >>> class Scale(Arguments):
        ...     x: "int"
        ...     factor: "float"
        >>> Scale(x=16, factor=0.5).factor
        0.5
    """

    @property
    def location(self) -> int:
        """Address of the record itself."""
        return ctypes.addressof(self)


class CompiledFunction:
    """A function of C that is compiled when its address is first asked for.

    Attributes:
        seconds: Time that compiling it took; 0 where the machine code was at hand.
    """

    def __init__(self, function: Callable[..., Any], signature: tuple[tuple[Any, ...], Any]) -> None:
        self.function = function
        self.signature = signature
        self.seconds = 0.0
        self._address: int | None = None
        self._callback: Any = None

    @property
    def address(self) -> int:
        """Address of the machine code."""
        if self._address is None:
            with _lock:
                if self._address is None:
                    self._compile()
        assert self._address is not None
        return self._address

    @property
    def constants(self) -> tuple[Any, ...]:
        """What the function takes from the scope around it."""
        return tuple(cell.cell_contents for cell in self.function.__closure__ or ())

    def _compile(self) -> None:
        callback = ccallback.CFunc(self.function, self.signature, locals={}, options={"error_model": "numpy"})
        callback._cache = _Cache(self)
        callback._compile_uncached = functools.partial(_compile_and_tell, callback._compile_uncached)
        before = _seconds
        callback.compile()
        self.seconds = _seconds - before
        self._callback, self._address = callback, int(callback.address)
        _compiled.append(self)


def task(arguments: type[Arguments]) -> Callable[[Callable[[int, int, Any], None]], CompiledFunction]:
    """Make a kernel of a function ``f(worker, workers, a)``; ``a`` has the fields of ``arguments``.

    Numbers that the function takes from the scope around it are constants of the machine code.
    """

    def decorate(function: Callable[[int, int, Any], None]) -> CompiledFunction:
        record = numba.from_dtype(np.dtype(arguments))
        return CompiledFunction(function, ((types.int64, types.int64, record), types.void))

    return decorate


def inline(function: _F) -> _F:
    """Make a function that kernels call."""
    compiled: _F = numba.njit(function, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return compiled


def compiled_seconds() -> float:
    """Time that this process has spent compiling."""
    return _seconds


def compiled_functions() -> tuple[CompiledFunction, ...]:
    """All that has machine code in this process, compiled by it or read from the cache, in the order of first use."""
    return tuple(_compiled)


def keep_quiet() -> None:
    """Leave it to the caller to tell the user that kernels are being compiled."""
    global _told
    _told = True


def cache_directory() -> Path:
    """Where the machine code of these sources is kept, whether or not it can be written.

    Below ``NUMBA_CACHE_DIR`` if that is set, else in the user's cache directory.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    parent = Path(chosen) / "xpconv" if chosen else platformdirs.user_cache_path("xpconv") / "kernels"
    return parent / _fingerprint()


@functools.cache
def cache_trouble() -> str | None:
    """Why machine code cannot be kept, or None where it can."""
    directory = cache_directory()
    if directory.parts[0] == "~":
        return "the home directory of this user is unknown; NUMBA_CACHE_DIR names another directory"
    try:
        is_new = not directory.is_dir()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        return f"{directory} cannot be written ({error.strerror}); NUMBA_CACHE_DIR names another directory"
    if is_new:
        _forget_other_sources(directory)
    return None


class _Cache(caching._Cache):  # type: ignore[misc]
    """One file for each kernel and its constants, which a reader sees whole or not at all.

    Numba's own cache numbers the variants of a function in an index; two processes that write it at once can exchange them.
    """

    def __init__(self, compiled: CompiledFunction) -> None:
        function = compiled.function
        identity = hashlib.sha256(repr((function.__module__, function.__qualname__, compiled.constants)).encode())
        self._path = cache_directory() / f"{function.__name__}-{identity.hexdigest()[:16]}.bin"

    @property
    def cache_path(self) -> str:
        return str(self._path.parent)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        try:
            content = self._path.read_bytes()
            digest, code = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
            if digest != hashlib.sha256(code).digest():
                return None
            reduced = pickle.loads(code)  # noqa: S301 - a file of the user's own, written below
            return caching.CompileResultCacheImpl.rebuild(None, target_context, reduced)
        except Exception:  # whatever is wrong with the file, the answer is to compile
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if cache_trouble() is not None:
            return
        with contextlib.suppress(OSError):  # a full disk: compiled again next time
            handle, name = tempfile.mkstemp(dir=self._path.parent)
            try:
                code = dumps(caching.CompileResultCacheImpl.reduce(None, data))
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(code).digest() + code)
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def enable(self) -> None:
        """Nothing to do: it is always on."""

    def disable(self) -> None:
        """Nothing to do: see :meth:`enable`."""

    def flush(self) -> None:
        """Nothing is held back."""


def _compile_and_tell(compile_function: Callable[[], Any]) -> Any:
    global _seconds, _told
    if _seconds > _TOLD_AFTER and not _told:
        _told = True
        kept = cache_trouble() or f"kept in {cache_directory()}"
        message = "xpconv: compiling the kernels of the numba device, once for each that is called"
        with contextlib.suppress(OSError, ValueError):  # nobody reads standard error any more, or it is closed
            print(f"{message} ({kept}; xpconv doctor --compile does it ahead)", file=sys.stderr, flush=True)
    started = time.perf_counter()
    result = compile_function()
    _seconds += time.perf_counter() - started
    return result


@functools.cache
def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    processor = registry.cpu_target.target_context.codegen().magic_tuple()
    versions = (numba.__version__, llvmlite.__version__, sys.version_info[:2], sys.implementation.cache_tag)
    optimisation = (int(config.OPT), config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.DEBUGINFO_DEFAULT)
    digest.update(repr((versions, processor, vector_bytes(), optimisation)).encode())
    return digest.hexdigest()[:20]


def _forget_other_sources(directory: Path) -> None:
    for other in directory.parent.iterdir():
        with contextlib.suppress(OSError):
            if other != directory and time.time() - other.stat().st_mtime > _FORGOTTEN_AFTER:
                shutil.rmtree(other)
