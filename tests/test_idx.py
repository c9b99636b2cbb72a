"""idx files: read right, or refused with a text that names the file."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from xpconv.datasets import read_idx
from xpconv.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(shape, body, code=0x08):
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + body


@pytest.fixture
def refused(tmp_path):
    """Write the content to a file, and return the text with which read_idx refuses it."""

    def check(content, name="images-idx3-ubyte"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_idx(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return check


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("stored", CODES)
def test_every_element_type(tmp_path, stored, suffix):
    values = np.array([[0, 1, 2], [100, 101, 127]])
    content = idx_bytes((2, 3), values.astype(stored).tobytes(), CODES[stored])
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    array = read_idx(path)
    np.testing.assert_array_equal(array, values)
    assert array.dtype == np.dtype(stored).newbyteorder("=")
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.flags.owndata
    assert read_idx(str(path)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(0,), (0, 28, 28), (5, 0), (1, 2, 3, 4), (1,) * 64])
def test_shapes(tmp_path, shape):
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(shape, bytes(range(np.prod(shape, dtype=int)))))
    array = read_idx(path)
    assert array.shape == shape
    np.testing.assert_array_equal(array.ravel(), np.arange(array.size))


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(DataError, match=r"nowhere-idx1-ubyte.* does not exist"):
        read_idx(tmp_path / "nowhere-idx1-ubyte.gz")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


def test_empty(refused):
    assert "is empty" in refused(b"")
    assert "is empty" in refused(b"", "a.gz")
    assert "is empty" in refused(gzip.compress(b""), "a.gz")
    assert "3 bytes long" in refused(b"\0\0\x08")


@pytest.mark.parametrize("start", [b"\x00\x00\x08", b"\x00\x00\x08\x03", b"\x00\x00\x08\x03\x00\x00\x00\x01\x00"])
def test_header_cut_short(refused, start):
    assert "bytes" in refused(start)


def test_wrong_magic(refused):
    assert "<htm" in refused(b"<html>not found</html>")
    assert "08, 09, 0B, 0C, 0D, 0E" in refused(idx_bytes((1,), b"x", code=0x0A))
    assert "starts with" in refused(b"\x01" + idx_bytes((1,), b"x")[1:])
    assert "ends in .gz" in refused(gzip.compress(idx_bytes((1,), b"x")))


@pytest.mark.parametrize("dimensions", [0, 65, 255])
def test_number_of_dimensions(refused, dimensions):
    text = refused(idx_bytes((1,) * dimensions, b"x"))
    assert f"states {dimensions} dimensions" in text


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_length(refused, suffix):
    def packed(content):
        return gzip.compress(content) if suffix else content

    for shape, size in (((2, 3), 6), ((30, 30), 900)):
        total = 12 + size
        text = refused(packed(idx_bytes(shape, bytes(size - 1))), f"a{suffix}")
        assert f"is truncated: its header says shape {shape} of uint8" in text
        assert f"makes {total} bytes, but it holds {total - 1}" in text
        for excess in (1, 1000):
            text = refused(packed(idx_bytes(shape, bytes(size + excess))), f"a{suffix}")
            assert f"has trailing bytes: its header says shape {shape} of uint8" in text
            assert f"makes {total} bytes, but it holds more than {total}" in text


def test_damaged_gzip(refused):
    content = idx_bytes((200,), np.random.default_rng(0).integers(0, 256, 200, np.uint8).tobytes())
    packed = gzip.compress(content)
    assert "not a whole and undamaged gzip file" in refused(content, "a.gz")
    assert "is truncated" in refused(packed[:-20], "a.gz")
    assert "is truncated" in refused(packed[:-4], "a.gz")
    assert "is truncated" in refused(packed[:12], "a.gz")
    assert "CRC" in refused(packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:], "a.gz")
    assert "not a whole and undamaged gzip file" in refused(packed + b"junk", "a.gz")
    for position in range(10, len(packed)):  # the ten bytes before hold the time, which is of no matter
        damaged = bytearray(packed)
        damaged[position] ^= 0xFF
        refused(bytes(damaged), "a.gz")


@pytest.mark.parametrize("shape", [(2**32 - 1,), (2**32 - 1,) * 3, (2**32 - 1,) * 64, (2**32 - 1, 0, 2**32 - 1, 2**32 - 1)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_lying_header_takes_no_memory(refused, shape, suffix):
    content = idx_bytes(shape, b"a few bytes" if 0 not in shape else b"")
    tracemalloc.start()
    try:
        text = refused(gzip.compress(content) if suffix else content, f"a{suffix}")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "truncated" in text or "no array can have" in text
    assert peak < 1 << 23


def test_trailing_bytes_are_not_unpacked(refused):
    bomb = gzip.compress(idx_bytes((3,), bytes(1 << 26)), 1)
    tracemalloc.start()
    try:
        refused(bomb, "a.gz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24
