"""Files that are written whole or not at all, and the files of parameters.

Parameters are kept as safetensors: names, shapes, types and numbers, nothing that could run. The one other format that
is read is the pickle that the book's programs write (`load_pickled_parameters`).
"""

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xpconv.errors import ParameterFileError

_FORMAT_DTYPES = {
    "BOOL": "?",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "<u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
_STORABLE = frozenset(np.dtype(code) for code in _FORMAT_DTYPES.values())


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all.

    The block writes to a temporary file in the directory of `path`. When it ends well, that file is put in the place of
    `path` in one step: whoever looks sees the old file or the new one, also after a crash or a power cut. When anything
    is raised, KeyboardInterrupt included, the temporary file is removed and `path` is as it was.

    Args:
        path: the file to write. Its directory must exist. A symbolic link is followed. An existing file keeps its
            permissions, a new one gets those of the umask.

    Yields:
        The path of the temporary file, which exists and is empty. It has the suffix of `path`.

    Raises:
        FileNotFoundError: the directory of `path` does not exist.
        IsADirectoryError: `path` is a directory.
        PermissionError: `path` exists and is write-protected, or its directory is.
        OSError: `path` is a pipe or a device.

    Example:
        >>> import pathlib, tempfile
        >>> from xpconv.files import atomic_write
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "log.txt")
        ...     with atomic_write(path) as temporary:
        ...         _ = temporary.write_text("epoch 1")
        ...     path.read_text()
        'epoch 1'
    """
    path = Path(os.path.realpath(path))
    mode = _mode_of_existing(path)
    temporary = path.with_name(f".xpconv-{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        if mode is not None:
            temporary.chmod(mode)
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        with contextlib.suppress(OSError):  # the file is in place; some file systems can't flush a directory
            _flush_to_disk(path.parent)


def split_at_markers(path: str | os.PathLike[str], marker: str) -> tuple[str, str] | None:
    """What stands before the line ``<!-- marker -->`` of a text file and after the line ``<!-- /marker -->``.

    None if the file doesn't have both of them once each, in this order.

    Raises:
        OSError: The file cannot be read.
    """
    text = Path(path).read_bytes().decode()
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        return None
    before, _, rest = text.partition(begin)
    return before, rest.partition(end)[2]


def write_between_markers(path: str | os.PathLike[str], marker: str, text: str, around: tuple[str, str]) -> None:
    """Replace what stands between two markers, in the file's own line endings.

    Args:
        path: The file.
        marker: The name in the markers.
        text: Whole lines.
        around: What :func:`split_at_markers` found, which stays as it is.

    Raises:
        OSError: The file cannot be written; it stays as it was.
    """
    before, after = around
    newline = "\r\n" if before.endswith("\r\n") or after.startswith("\r\n") else "\n"
    marked = f"<!-- {marker} -->\n{text}<!-- /{marker} -->".replace("\r\n", "\n").replace("\n", newline)
    with atomic_write(path) as temporary:
        temporary.write_bytes(f"{before}{marked}{after}".encode())


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out whether a file can be written, by beginning to write it and leaving it as it was.

    Args:
        path: the file.

    Raises:
        OSError: as `atomic_write`.

    Example:
        >>> from xpconv.files import check_writable
        >>> check_writable("/no/such/directory/mnist.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] cannot write: no such directory: '/no/such/directory'
    """
    with contextlib.suppress(_Abandoned), atomic_write(path):
        raise _Abandoned


class _Abandoned(Exception):  # noqa: N818 - no error
    """Ends a write that was only begun to see whether it can be."""


def _mode_of_existing(path: Path) -> int | None:
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "cannot write: no such directory", str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "cannot write: is a directory", str(path))
    if not path.exists():
        return None
    if not path.is_file():  # a pipe or a device, /dev/null say, must not be replaced by a file
        raise OSError(errno.EINVAL, "cannot write: is not a regular file", str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot write: the file is write-protected", str(path))
    return stat.S_IMODE(path.stat().st_mode)


def _flush_to_disk(path: Path) -> None:
    # Windows flushes only what is open for writing, POSIX opens a directory only for reading.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_WRONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_parameters(
    path: str | os.PathLike[str],
    params: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save named arrays as a safetensors file, written whole or not at all.

    Args:
        path: the file; its directory must exist. No suffix is added.
        params: name to NumPy array, of bool, an integer type, float16, float32 or float64; any shape, any strides.
        metadata: texts to keep with them.

    Raises:
        TypeError: a name or a metadatum is not a str, or a value is not a NumPy array of one of these types.
        ValueError: a name that the format can't hold.
        FileNotFoundError: the directory does not exist.

    Notes:
        An array that isn't contiguous is saved by its values, as every other; big-endian ones are saved little-endian.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from xpconv.files import load_parameters, save_parameters
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "net.safetensors")
        ...     save_parameters(path, {"W1": np.eye(2)}, {"epoch": "3"})
        ...     params, metadata = load_parameters(path)
        >>> params["W1"].shape, metadata
        ((2, 2), {'epoch': '3'})
    """
    import safetensors.numpy

    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"save_parameters: metadata must be texts, got {key!r}: {value!r}")
    stored = {name: _storable(name, array) for name, array in params.items()}
    try:
        content = safetensors.numpy.save(stored, dict(metadata) if metadata else None)
    except UnicodeEncodeError as error:
        raise ValueError(f"save_parameters: {error.object!r} cannot be written as UTF-8") from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(name, str):
        raise TypeError(f"save_parameters: names must be str, got {name!r} of type {type(name).__name__}")
    if name == "__metadata__":
        raise ValueError("save_parameters: the name '__metadata__' is taken by the file format")
    # np.ma.MaskedArray is an ndarray, but its mask would be lost without a word.
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"save_parameters: params[{name!r}] must be a NumPy array, got {type(array).__name__}")
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _STORABLE:
        raise TypeError(
            f"save_parameters: params[{name!r}] has dtype {array.dtype}; "
            "bool, integers of 8 to 64 bits, float16, float32 and float64 can be saved"
        )
    # safetensors takes the bytes from the array's first on, as if it were contiguous.
    return np.asarray(array, dtype, order="C")


def load_parameters(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Load a safetensors file.

    Args:
        path: the file.

    Returns:
        The arrays by name, each new and writable, and the metadata that was saved with them.

    Raises:
        FileNotFoundError: there is no such file.
        ParameterFileError: the file is not safetensors, is damaged or truncated, or holds a type that NumPy has not.

    Example:
        See `save_parameters`.
    """
    import safetensors

    content = Path(path).read_bytes()
    try:
        tensors: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        header_size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + header_size]).get("__metadata__") or {}
        params = {}
        for name, tensor in tensors:
            if tensor["dtype"] not in _FORMAT_DTYPES:
                known = ", ".join(_FORMAT_DTYPES)
                raise ValueError(f"{name!r} is of type {tensor['dtype']}, and these can be read: {known}")
            dtype = np.dtype(_FORMAT_DTYPES[tensor["dtype"]])
            params[name] = array_from_bytes(tensor["data"], dtype, tuple(tensor["shape"]))
    except (safetensors.SafetensorError, ValueError) as error:
        raise ParameterFileError(f"{path} is not a whole and undamaged safetensors file: {error}") from error
    return params, metadata


def array_from_bytes(
    data: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"] = "C"
) -> NDArray[Any]:
    """Make a new array of numbers from their bytes: contiguous, writable, in the machine's byte order."""
    # A byte other than 0 and 1 would make a bool that is neither.
    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype
    return np.frombuffer(data, stored).reshape(shape, order=order).astype(dtype.newbyteorder("="), order="C")


def check_parameters(
    path: str | os.PathLike[str],
    loaded: Mapping[str, NDArray[Any]],
    expected_shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Check that loaded parameters are those of a network, by name and shape.

    Args:
        path: the file that they came from, for the error text.
        loaded: name to array.
        expected_shapes: name to shape, of the network that is to take them.

    Raises:
        ParameterFileError: lists every parameter that is missing, unexpected or of another shape.

    Example:
        >>> import numpy as np
        >>> from xpconv.files import check_parameters
        >>> check_parameters("net.safetensors", {"W1": np.zeros((3, 4))}, {"W1": (3, 5), "b1": (5,)})
        Traceback (most recent call last):
        ...
        xpconv.errors.ParameterFileError: net.safetensors does not fit this network:
          W1 has shape (3, 4), expected (3, 5)
          b1 is missing, expected with shape (5,)
    """
    differences = []
    for name, shape in expected_shapes.items():
        if name not in loaded:
            differences.append(f"{name} is missing, expected with shape {tuple(shape)}")
        elif loaded[name].shape != tuple(shape):
            differences.append(f"{name} has shape {loaded[name].shape}, expected {tuple(shape)}")
    for name in sorted(loaded.keys() - expected_shapes.keys()):
        differences.append(f"{name} is unexpected, of shape {loaded[name].shape}")
    if differences:
        raise ParameterFileError("\n  ".join([f"{path} does not fit this network:", *differences]))


def load_pickled_parameters(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Load the parameters that the book's programs save: a pickled dictionary of NumPy arrays (``params.pkl``).

    Nothing in the file is run, and no object but such a dictionary is ever built from it: see
    `xpconv.pickled_parameters`.

    Args:
        path: the file, of any pickle protocol from 0 to 5, written with any version of NumPy.

    Returns:
        The arrays by name, each new and writable, in the machine's byte order; bool, integers and floats.

    Raises:
        FileNotFoundError: there is no such file.
        ParameterFileError: the file is anything else than such a pickle.

    Example:
        >>> import pathlib, pickle, tempfile
        >>> import numpy as np
        >>> from xpconv.files import load_pickled_parameters
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "params.pkl")
        ...     _ = path.write_bytes(pickle.dumps({"W1": np.zeros((2, 3))}))
        ...     load_pickled_parameters(path)["W1"].shape
        (2, 3)
    """
    from xpconv.pickled_parameters import read_pickled_parameters

    return read_pickled_parameters(Path(path).read_bytes(), str(path))
