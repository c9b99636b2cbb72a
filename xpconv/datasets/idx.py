"""The idx file format, in which MNIST and its kin are published.

An idx file is one array. All numbers are big-endian:

    offset  bytes   meaning
    0       2       zero
    2       1       element type: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    3       1       number of dimensions D
    4       4 D     the sizes, one uint32 each
    4+4D    rest    the elements, the last dimension fastest

Source: the description at the foot of http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xpconv.errors import DataError

_ELEMENT_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 64  # NumPy's
_PIECE = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an idx file, plain or gzip-compressed, into a new array.

    Args:
        path: the file. A name that ends in ``.gz`` is read as gzip, any other as plain idx.

    Returns:
        The array, with the sizes that the file states, writable, in the machine's byte order.

    Raises:
        DataError: the file is missing, unreadable, not gzip, damaged, not idx, or shorter or longer than its header
            says. No memory is taken on the word of a header: the bytes must be there.

    Example:
        >>> import importlib.resources
        >>> import xpconv as xc
        >>> bundled = importlib.resources.files("xpconv.datasets.bundled")
        >>> with importlib.resources.as_file(bundled / "t10k-labels-idx1-ubyte.gz") as path:
        ...     labels = xc.datasets.read_idx(path)
        >>> labels.shape, labels.dtype, labels[:4]
        ((1000,), dtype('uint8'), array([7, 2, 1, 0], dtype=uint8))
    """
    path = Path(path)
    with open_content(path) as stream:
        content = read_at_most(stream, 4 + 4 * _MAX_DIMENSIONS)
        content += read_at_most(stream, _parse_header(content, str(path)).total + 1 - len(content))
    return decode_idx(content, str(path))


def decode_idx(content: bytes | bytearray, name: str) -> NDArray[Any]:
    """Turn the whole content of an idx file into a new array; `name` is the file's, for the error texts.

    Raises:
        DataError: the content is not idx, or not as long as its header says.
    """
    header = _parse_header(content, name)
    if len(content) != header.total:
        problem = "is truncated" if len(content) < header.total else "has trailing bytes"
        seen = f"{len(content):,}" if len(content) < header.total else f"more than {header.total:,}"
        raise DataError(
            f"{name} {problem}: its header says shape {header.shape} of {header.dtype.name}, "
            f"which makes {header.total:,} bytes, but it holds {seen}"
        )
    try:
        elements = np.frombuffer(content, header.dtype, offset=4 + 4 * len(header.shape)).reshape(header.shape)
    except ValueError as error:  # only sizes beyond any array's, beside a size of 0
        raise DataError(f"{name} states a shape that no array can have: {header.shape}") from error
    return elements.astype(header.dtype.newbyteorder("="))


@contextmanager
def open_content(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: also from within the ``with`` block, whatever goes wrong in reading; it names the file.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw) as content:
                    yield content
            else:
                yield raw
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except EOFError as error:
        raise DataError(f"{path} is truncated: the gzip data end before their end-of-stream mark") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a whole and undamaged gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def read_at_most(stream: io.BufferedIOBase, limit: int) -> bytearray:
    """Read up to `limit` bytes piece by piece, so that the memory taken is what the stream really holds."""
    content = bytearray()
    while len(content) < limit and (piece := stream.read(min(_PIECE, limit - len(content)))):
        content += piece
    return content


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    total: int  # bytes of the whole file: header and elements


def _parse_header(content: bytes | bytearray, name: str) -> _Header:
    if len(content) < 4:
        raise DataError(f"{name} is {'empty' if not content else f'{len(content)} bytes long'}, which is no idx file")
    zeros, element_type, dimensions = struct.unpack(">HBB", content[:4])
    if zeros != 0 or element_type not in _ELEMENT_TYPES:
        compressed = " (these are a gzip file's: give it a name that ends in .gz)" if content[:2] == b"\x1f\x8b" else ""
        raise DataError(
            f"{name} is no idx file: it starts with {bytes(content[:4])!r}{compressed}, where idx has two zero bytes "
            f"and one of the types {', '.join(f'{known:02X}' for known in _ELEMENT_TYPES)}"
        )
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise DataError(f"{name} states {dimensions} dimensions; 1 to {_MAX_DIMENSIONS} can be read")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(
            f"{name} is truncated: a header of {dimensions} dimensions takes {start} bytes, it holds {len(content)}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    dtype = np.dtype(_ELEMENT_TYPES[element_type])
    return _Header(dtype, shape, start + math.prod(shape) * dtype.itemsize)
