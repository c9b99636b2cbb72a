"""Files that are written whole or not at all, and files of parameters."""

import errno
import json
import os
import pathlib
import stat
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from xpconv.errors import ParameterFileError
from xpconv.files import atomic_write, check_parameters, load_parameters, save_parameters

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


# ----------------------------------------------------------------------------------------------------------------------
# atomic_write
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, b"old"])
def test_atomic_write(tmp_path, old):
    path = tmp_path / "file.bin"
    if old is not None:
        path.write_bytes(old)
    with atomic_write(str(path)) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".bin"
        assert temporary.read_bytes() == b""
        temporary.write_bytes(b"new")
        assert (path.read_bytes() if path.exists() else None) == old
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), SystemExit(1)])
def test_atomic_write_that_fails_in_the_block(tmp_path, old, error):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(type(error)) as caught, atomic_write(path) as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert caught.value is error
    assert (path.read_bytes() if path.exists() else None) == old
    assert names_in(tmp_path) == ([] if old is None else ["file"])


@pytest.mark.parametrize("step", ["open", "chmod", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_atomic_write_that_fails_at_any_step(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)), atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


def test_atomic_write_is_on_disk_before_it_is_in_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(stat.S_IFMT(os.fstat(fd).st_mode)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
    assert steps == [stat.S_IFREG, "replace"] + [stat.S_IFDIR] * (os.name == "posix")


def test_atomic_write_where_a_directory_cannot_be_flushed(tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@posix
def test_atomic_write_permissions(tmp_path, umask):
    path = tmp_path / "file"
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert path.read_bytes() == b"2"


@posix
def test_atomic_write_follows_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "epoch3", tmp_path / "latest"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with atomic_write(link) as temporary:
        temporary.write_bytes(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_atomic_write_into_no_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory") as caught, atomic_write(tmp_path / "no" / "file"):
        pytest.fail("the block must not run")
    assert str(tmp_path / "no") in str(caught.value)
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        pytest.fail("the block must not run")
    assert names_in(tmp_path) == []


@posix
def test_atomic_write_over_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"), atomic_write(tmp_path / "pipe"):
        pytest.fail("the block must not run")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names_in(tmp_path) == ["pipe"]


def test_atomic_write_over_a_protected_file(tmp_path, monkeypatch):
    path = tmp_path / "best"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root is refused nothing
    with pytest.raises(PermissionError, match="write-protected"), atomic_write(path):
        pytest.fail("the block must not run")
    assert path.read_bytes() == b"old"


def test_atomic_write_within_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write("file") as temporary:
        temporary.write_bytes(b"new")
        os.chdir("/")  # the place was settled before
    assert (tmp_path / "file").read_bytes() == b"new"


# ----------------------------------------------------------------------------------------------------------------------
# save_parameters and load_parameters
# ----------------------------------------------------------------------------------------------------------------------

DTYPES = ["bool", "float16", "float32", "float64"] + [f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 4)])
def test_round_trip(tmp_path, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    save_parameters(tmp_path / "p", {"W1": array, "m/W1": array})
    params, metadata = load_parameters(tmp_path / "p")
    assert metadata == {}
    assert sorted(params) == ["W1", "m/W1"]
    for loaded in params.values():
        np.testing.assert_array_equal(loaded, array, strict=True)
        assert loaded.flags.writeable
        assert loaded.flags.owndata
        assert loaded.dtype.isnative


def views():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    read_only = array.copy()
    read_only.flags.writeable = False
    return {
        "transposed": array.T,
        "fortran": np.asfortranarray(array),
        "strided": array[::2, 1::3],
        "negative": array[::-1, ::-1],
        "broadcast": np.broadcast_to(np.float32(3), (4, 6)),
        "offset": array[1:, 2:],
        "unaligned": np.frombuffer(b"x" + array.tobytes(), np.float32, offset=1).reshape(4, 6),
        "read-only": read_only,
        "big-endian": array.astype(">f4"),
        "big-endian, transposed": array.astype(">f8").T,
        "scalar": np.array(2.5),
        "NaN and infinity": np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0]),
    }


@pytest.mark.parametrize("kind", views())
def test_values_are_saved_whatever_the_strides(tmp_path, kind):
    array = views()[kind]
    before = array.copy()
    save_parameters(tmp_path / "p", {"W": array, "b": np.zeros(2)})
    loaded = load_parameters(tmp_path / "p")[0]["W"]
    assert loaded.tobytes() == before.astype(before.dtype.newbyteorder("=")).tobytes()
    assert loaded.shape == before.shape
    assert array.tobytes() == before.tobytes()
    # what others read from the file
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "p")["W"], before)


def test_metadata_and_names(tmp_path):
    params = {"W1": np.ones(3), "é/b.1 ": np.zeros(2), "": np.ones(1)}
    save_parameters(tmp_path / "p", params, {"epoch": "3", "ü": ""})
    loaded, metadata = load_parameters(tmp_path / "p")
    assert metadata == {"epoch": "3", "ü": ""}
    assert loaded.keys() == params.keys()
    save_parameters(tmp_path / "p", {}, {})
    assert load_parameters(str(tmp_path / "p")) == ({}, {})


class Matrix(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ({"W": np.array([None])}, TypeError, r"params\['W'\] has dtype object"),
        ({"W": np.zeros(2, complex)}, TypeError, "complex128"),
        ({"W": np.zeros(2, np.longdouble)}, TypeError, "can be saved"),
        ({"W": np.array(["a"])}, TypeError, "<U1"),
        ({"W": np.zeros(2, "M8[s]")}, TypeError, "datetime64"),
        ({"W": np.zeros(2, [("a", "f4")])}, TypeError, "can be saved"),
        ({"W": [1.0]}, TypeError, "must be a NumPy array, got list"),
        ({"W": 1.0}, TypeError, "must be a NumPy array, got float"),
        ({"W": np.ma.masked_array([1.0, 2.0], [0, 1])}, TypeError, "MaskedArray"),
        ({3: np.zeros(2)}, TypeError, "names must be str, got 3"),
        ({"__metadata__": np.zeros(2)}, ValueError, "__metadata__"),
        ({"\ud800": np.zeros(2)}, ValueError, "UTF-8"),
    ],
)
def test_what_cannot_be_saved(tmp_path, params, error, text):
    path = tmp_path / "p"
    path.write_bytes(b"old")
    with pytest.raises(error, match=text) as caught:
        save_parameters(path, {"b": np.zeros(2), **params})
    assert str(caught.value).startswith("save_parameters: ")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["p"]


def test_metadata_must_be_texts(tmp_path):
    for metadata in ({"epoch": 3}, {3: "epoch"}, {"a": None}):
        with pytest.raises(TypeError, match="metadata must be texts"):
            save_parameters(tmp_path / "p", {}, metadata)
    with pytest.raises(ValueError, match="save_parameters"):
        save_parameters(tmp_path / "p", {}, {"a": "\ud800"})
    assert names_in(tmp_path) == []


def test_a_subclass_is_saved_by_its_values(tmp_path):
    save_parameters(tmp_path / "p", {"W": np.arange(3.0).view(Matrix)})
    assert type(load_parameters(tmp_path / "p")[0]["W"]) is np.ndarray


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p"
    save_parameters(path, {"W": np.ones(3)})

    def fail(self, content):
        with self.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        save_parameters(path, {"W": np.zeros(1000)})
    monkeypatch.undo()
    np.testing.assert_array_equal(load_parameters(path)[0]["W"], np.ones(3))
    assert names_in(tmp_path) == ["p"]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load_parameters(tmp_path / "nowhere.safetensors")
    assert "nowhere.safetensors" in str(caught.value)


def file_with_header(header, body=b"", size=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04}\x94.",
        b"PK\x03\x04 a zip file of some length",
        file_with_header({}, size=2**40),
        file_with_header({}, size=2**64 - 1),
        file_with_header({}, size=10**8),
        file_with_header(b"{"),
        file_with_header(b"[]"),
        file_with_header(b"\xff\xfe"),
        file_with_header({}, b"trailing"),
        file_with_header({"W": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7)),
        file_with_header({"W": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        file_with_header({"W": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 8]}}, bytes(8)),
        file_with_header({"W": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, bytes(8)),
        file_with_header({"W": {"dtype": "F32", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]}}),
        file_with_header({"W": {"dtype": "F32", "shape": [0] + [2**33] * 3, "data_offsets": [0, 0]}}),
        file_with_header({"W": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, bytes(4)),
        file_with_header({"W": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        file_with_header({"W": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, bytes(2)),
        file_with_header({"W": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        file_with_header({"W": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        file_with_header({"__metadata__": {"epoch": 3}}),
    ],
)
def test_files_that_are_refused(tmp_path, content):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ParameterFileError) as caught:
        load_parameters(path)
    assert str(path) in str(caught.value)


GOOD = safetensors.numpy.save({"W": np.arange(3, dtype=np.float32), "n": np.array(True)}, {"epoch": "3"})


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_truncated_anywhere(tmp_path, length):
    path = tmp_path / "p"
    path.write_bytes(GOOD[:length])
    with pytest.raises(ParameterFileError):
        load_parameters(path)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_arrays_or_the_error(tmp_path_factory, damage):
    content = bytearray(GOOD)
    for position, byte in damage:
        content[position] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        params, metadata = load_parameters(path)
    except ParameterFileError:
        return
    assert all(array.dtype != bool or array.tobytes() in (b"\0", b"\1") for array in params.values())
    assert all(isinstance(value, str) for value in metadata.values())


# ----------------------------------------------------------------------------------------------------------------------
# check_parameters
# ----------------------------------------------------------------------------------------------------------------------


def test_check_parameters():
    expected = {"W1": (30, 1, 5, 5), "b1": (30,), "W2": (4, 2)}
    good = {name: np.zeros(shape) for name, shape in expected.items()}
    check_parameters("net", good, expected)
    check_parameters("net", {}, {})
    with pytest.raises(ParameterFileError) as caught:
        check_parameters(
            pathlib.Path("net.file"), {"W1": np.zeros((30, 25)), "W2": np.zeros((4, 2)), "g": np.zeros(3)}, expected
        )
    assert str(caught.value).splitlines() == [
        "net.file does not fit this network:",
        "  W1 has shape (30, 25), expected (30, 1, 5, 5)",
        "  b1 is missing, expected with shape (30,)",
        "  g is unexpected, of shape (3,)",
    ]
    for name in expected:
        for broken in ({k: v for k, v in good.items() if k != name}, {**good, name: np.zeros(7)}):
            with pytest.raises(ParameterFileError, match=f"  {name} "):
                check_parameters("net", broken, expected)
