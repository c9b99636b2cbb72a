"""MNIST and Fashion-MNIST: the bundled part, the full sets from a directory or a download, and what is refused.

Where the full sets are not at hand, a tiny set with checksums of its own goes through the same code. The tests of the
real full sets run when XPCONV_DATA names a directory that has them.
"""

import dataclasses
import gzip
import hashlib
import http.server
import importlib.resources
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pooch
import pytest

import xpconv.datasets.catalog
from xpconv.datasets import FASHION_MNIST_CLASSES, full_set_available, load_fashion_mnist, load_mnist, read_idx
from xpconv.datasets.catalog import FASHION_MNIST, IMAGE_SETS, MNIST, IdxFile, ImageSet
from xpconv.datasets.loading import load_image_set
from xpconv.datasets.sources import _cache_directory, _find_files
from xpconv.errors import DataError

DATA = os.environ.get("XPCONV_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="XPCONV_DATA names no directory with the full MNIST and Fashion-MNIST")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No directory of data, an empty cache, and no proxy between the tests and their own server."""
    monkeypatch.delenv("XPCONV_DATA", raising=False)
    monkeypatch.setenv("XPCONV_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    level = pooch.get_logger().level
    pooch.get_logger().setLevel("ERROR")
    yield
    pooch.get_logger().setLevel(level)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("the network is out of bounds")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ----------------------------------------------------------------------------------------------------------------------
# The bundled part of MNIST
# ----------------------------------------------------------------------------------------------------------------------


def test_bundled_mnist(no_network):
    (x_train, t_train), (x_test, t_test) = load_mnist()
    assert x_train.shape == (5000, 1, 28, 28)
    assert x_test.shape == (1000, 1, 28, 28)
    assert t_train.shape == (5000,)
    assert t_test.shape == (1000,)
    assert x_train.dtype == x_test.dtype == np.float32
    assert t_train.dtype == t_test.dtype == np.int64
    # from what is published about the set: its first labels, and a row of the first "5"
    assert t_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert t_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    row = [3, 18, 18, 18, 126, 136, 175, 26, 166, 255, 247, 127]
    np.testing.assert_array_equal(x_train[0, 0, 5, 12:24], np.array(row, np.float32) / np.float32(255))
    assert not x_train[0, 0, 5, :12].any()
    for x in (x_train, x_test):
        assert x.min() == 0
        assert x.max() == 1
    for t in (t_train, t_test):
        assert np.unique(t).tolist() == list(range(10))


def test_each_call_gives_new_writable_arrays():
    (first, labels), _ = load_mnist()
    first[:] = 7
    labels[:] = 7
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False)
    assert x_train.max() == 255
    assert t_train[0] == 5
    for array in (x_train, t_train, x_test, t_test):
        assert array.flags.writeable
        assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("arguments", "images", "labels"),
    [
        ({}, "float32", "int64"),
        ({"dtype": np.float64}, "float64", "int64"),
        ({"dtype": "float64", "one_hot": True}, "float64", "float64"),
        ({"one_hot": True}, "float32", "float32"),
        ({"normalize": False}, "uint8", "int64"),
        ({"normalize": False, "one_hot": True}, "uint8", "float32"),
        ({"normalize": False, "dtype": np.float32}, "float32", "int64"),
        ({"normalize": False, "dtype": np.uint8, "one_hot": True}, "uint8", "uint8"),
    ],
)
@pytest.mark.parametrize("flatten", [False, True])
def test_options(arguments, images, labels, flatten):
    pixels = read_bundled("t10k-images-idx3-ubyte")
    classes = read_bundled("t10k-labels-idx1-ubyte")
    _, (x, t) = load_mnist(flatten=flatten, **arguments)
    expected = pixels.astype(images) / np.dtype(images).type(255) if arguments.get("normalize", True) else pixels.astype(images)
    np.testing.assert_array_equal(x, expected.reshape((1000, 784) if flatten else (1000, 1, 28, 28)), strict=True)
    if arguments.get("one_hot"):
        assert t.shape == (1000, 10)
        np.testing.assert_array_equal(np.flatnonzero(t), np.arange(1000) * 10 + classes)
        assert (t.sum(axis=1) == 1).all()
    else:
        np.testing.assert_array_equal(t, classes)
    assert t.dtype == labels


def read_bundled(name):
    resource = importlib.resources.files("xpconv.datasets.bundled") / f"{name}.gz"
    with importlib.resources.as_file(resource) as path:
        return read_idx(path)


def test_bundled_files_are_those_of_the_catalog():
    for file in MNIST.bundled:
        content = (importlib.resources.files("xpconv.datasets.bundled") / f"{file.name}.gz").read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.gzip_sha256
        assert content[3:8] == bytes(5)  # neither name nor time in the gzip header
        content = gzip.decompress(content)
        assert len(content) == file.size
        assert hashlib.sha256(content).hexdigest() == file.sha256
    notice = (importlib.resources.files("xpconv.datasets.bundled") / "NOTICE").read_text()
    assert "https://creativecommons.org/licenses/by-sa/3.0/" in notice
    assert all(file.sha256 in notice for file in MNIST.bundled)


def test_fashion_mnist_classes():
    assert len(FASHION_MNIST_CLASSES) == len(set(FASHION_MNIST_CLASSES)) == 10
    assert FASHION_MNIST_CLASSES[0] == "T-shirt/top"
    assert FASHION_MNIST_CLASSES[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"dtype": np.uint8}, ValueError, "float32, float64 with normalize=True, got uint8"),
        ({"dtype": np.float16}, ValueError, "got float16"),
        ({"dtype": int, "normalize": False}, ValueError, "float32, float64, uint8 with normalize=False, got int64"),
        ({"dtype": ">f4"}, ValueError, "got >f4"),
        ({"dtype": "pixels"}, TypeError, "got 'pixels'"),
        ({"data": 5000}, TypeError, "must be a str or a path, got int"),
        ({"data": None}, TypeError, "got NoneType"),
        ({"data": ""}, ValueError, 'got ""'),
    ],
)
def test_bad_arguments(arguments, error, text):
    for load in (load_mnist, load_fashion_mnist):
        with pytest.raises(error, match=re.escape(text)) as caught:
            load(**arguments)
        assert str(caught.value).startswith(f"{load.__name__}: ")
        assert not isinstance(caught.value, DataError)


def test_no_part_of_fashion_mnist_is_bundled():
    with pytest.raises(ValueError, match=r'load_fashion_mnist: .*got "bundled"'):
        load_fashion_mnist("bundled")


def test_importing_the_data_sets_imports_nothing_heavy():
    code = (
        "import sys, xpconv.datasets, xpconv.files, xpconv.errors; xpconv.datasets.load_mnist(); "
        "print([name for name in ('pooch', 'requests', 'safetensors', 'pickletools') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ----------------------------------------------------------------------------------------------------------------------
# A full set in a directory
# ----------------------------------------------------------------------------------------------------------------------

NAMES = [file.name for file in MNIST.full]


def make_set(name, seed):
    """Return a tiny set of 30 and 20 images, and the contents of its files by name."""
    generator = np.random.default_rng(seed)
    contents = {}
    for file, count in zip(MNIST.full, (30, 30, 20, 20), strict=True):
        shape = (count, 28, 28) if "images" in file.name else (count,)
        values = generator.integers(0, 256 if "images" in file.name else 10, shape, np.uint8)
        contents[file.name] = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values.tobytes()
    files = tuple(
        IdxFile(
            name=file.name,
            contents=file.contents,
            size=len(contents[file.name]),
            sha256=hashlib.sha256(contents[file.name]).hexdigest(),
            gzip_sha256=hashlib.sha256(gzip.compress(contents[file.name], mtime=0)).hexdigest(),
        )
        for file in MNIST.full
    )
    return ImageSet(name=name, title=name.title(), directory=f"{name}-dir", classes=10, full=files, mirrors=()), contents


TINY, TINY_CONTENTS = make_set("tiny", 1)
OTHER, OTHER_CONTENTS = make_set("other", 2)


@pytest.fixture(autouse=True)
def tiny_sets(monkeypatch):
    monkeypatch.setattr("xpconv.datasets.sources.IMAGE_SETS", (*IMAGE_SETS, TINY, OTHER))


def load_tiny(data, image_set=TINY):
    return load_image_set("load_tiny", image_set, data, normalize=False, flatten=False, one_hot=False, dtype=None)


def assert_tiny(loaded, contents=TINY_CONTENTS):
    arrays = [array for part in loaded for array in part]
    for name, array in zip(NAMES, arrays, strict=True):
        assert array.astype(np.uint8).tobytes() == contents[name][16 if "images" in name else 8 :]
    assert arrays[0].shape == (30, 1, 28, 28)
    assert arrays[3].shape == (20,)


def fill(directory, contents=TINY_CONTENTS, dot=False, suffix=".gz", level=9):
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = directory / f"{name.replace('-idx', '.idx') if dot else name}{suffix}"
        path.write_bytes(gzip.compress(content, level) if suffix else content)
    return directory


@pytest.mark.parametrize("place", ["", "tiny-dir"])
@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize(("suffix", "level"), [("", 0), (".gz", 1), (".gz", 9)])
def test_directory(tmp_path, monkeypatch, place, dot, suffix, level, no_network):
    fill(tmp_path / "data" / place, dot=dot, suffix=suffix, level=level)
    assert_tiny(load_tiny(tmp_path / "data"))
    assert_tiny(load_tiny(str(tmp_path / "data")))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_tiny(load_tiny("~/data"))
    monkeypatch.setenv("XPCONV_DATA", "~/data")
    assert_tiny(load_tiny("full"))


def test_directory_with_files_of_each_kind(tmp_path):
    for position, name in enumerate(NAMES):
        fill(tmp_path, {name: TINY_CONTENTS[name]}, dot=position % 2 == 1, suffix=".gz" if position < 2 else "")
    assert_tiny(load_tiny(tmp_path))


def test_directory_of_several_sets(tmp_path):
    fill(tmp_path, OTHER_CONTENTS)
    fill(tmp_path / "tiny-dir")
    assert_tiny(load_tiny(tmp_path))
    assert_tiny(load_tiny(tmp_path, OTHER), OTHER_CONTENTS)
    (tmp_path / "tiny-dir" / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(DataError, match="it holds the Other training images"):
        load_tiny(tmp_path)


def test_directory_called_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "full")
    assert_tiny(load_tiny("./full"))


def test_no_directory(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="does not exist") as caught:
        load_mnist("bundeld")
    assert 'the directory bundeld (data is neither "bundled" nor "full")' in str(caught.value)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="is not a directory") as caught:
        load_tiny(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)
    monkeypatch.setenv("XPCONV_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="environment variable XPCONV_DATA") as caught:
        load_mnist("full")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_missing_files_are_all_named(tmp_path):
    fill(tmp_path, dict(list(TINY_CONTENTS.items())[:3]), suffix="")
    with pytest.raises(DataError) as caught:
        load_tiny(tmp_path)
    lines = str(caught.value).splitlines()
    assert str(tmp_path) in lines[0]
    expected = [f"  {tmp_path / 'tiny-dir' / name}.gz: missing" for name in NAMES]
    expected += [f"  {tmp_path / name}.gz: {'missing' if name == NAMES[3] else 'found'}" for name in NAMES]
    assert lines[1:] == expected


def tampered(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", NAMES)
def test_wrong_files_are_named(tmp_path, name, suffix):
    kind = next(file.contents for file in TINY.full if file.name == name)
    twin = name.replace("train", "t10k") if "train" in name else name.replace("t10k", "train")
    start = 16 if "images" in name else 8
    item = 784 if "images" in name else 1
    subset = TINY_CONTENTS[name][:4] + struct.pack(">I", 5) + TINY_CONTENTS[name][8 : start + 5 * item]
    for content, text in (
        (tampered(TINY_CONTENTS[name]), "the size is right but bytes differ"),
        (TINY_CONTENTS[name][:-1], "it is truncated"),
        (TINY_CONTENTS[name] + b"\0", f"it holds more than their {len(TINY_CONTENTS[name]):,} bytes"),
        (subset, "it holds an array of shape (5"),
        (TINY_CONTENTS[twin], f"it holds the Tiny {'test' if 'train' in name else 'training'}"),
        (OTHER_CONTENTS[name], f"it holds the Other {kind}"),
        (b"", "it is empty"),
        (b"<htm", "it is no idx file"),
    ):
        directory = fill(tmp_path / "data", {**TINY_CONTENTS, name: content}, suffix=suffix)
        with pytest.raises(DataError) as caught:
            load_tiny(directory)
        path = directory / f"{name}{suffix}"
        assert str(caught.value).startswith(f"{path} does not hold the Tiny {kind}: ")
        assert text in str(caught.value)
        assert str(caught.value).count(str(path)) == 1


def test_damaged_gzip_files_are_named(tmp_path):
    fill(tmp_path)
    path = tmp_path / f"{NAMES[1]}.gz"
    content = path.read_bytes()
    for damaged, text in ((content[:-9], "truncated"), (TINY_CONTENTS[NAMES[1]], "gzip"), (content + b"x", "gzip")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=text) as caught:
            load_tiny(tmp_path)
        assert str(path) in str(caught.value)


def test_full_set_available_in_a_directory(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("XPCONV_DATA", str(tmp_path))
    assert full_set_available("tiny") is False
    fill(tmp_path)
    assert full_set_available("tiny") is True
    assert full_set_available("other") is True  # by the names of the files; loading tells that they are not
    (tmp_path / f"{NAMES[0]}.gz").unlink()
    assert full_set_available("tiny") is False
    monkeypatch.setenv("XPCONV_DATA", str(tmp_path / "nowhere"))
    assert full_set_available("mnist") is False
    monkeypatch.setenv("XPCONV_DATA", "")  # as if not set
    assert full_set_available("fashion_mnist") is False


def test_full_set_available_of_an_unknown_set():
    with pytest.raises(ValueError, match=r"full_set_available: name must be one of 'mnist', 'fashion_mnist'.* got 'MNIST'"):
        full_set_available("MNIST")


# ----------------------------------------------------------------------------------------------------------------------
# A full set by download
# ----------------------------------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        status, body, length = self.server.answers.get(self.path, (404, b"not found", None))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.answers = [], {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def serve(server, folder, contents=TINY_CONTENTS, change=lambda packed: (200, packed, None)):
    for name, content in contents.items():
        server.answers[f"/{folder}/{name}.gz"] = change(gzip.compress(content, mtime=0))


def mirrored(server, *folders):
    mirrors = tuple(f"http://127.0.0.1:{server.server_port}/{folder}/" for folder in folders)
    return dataclasses.replace(TINY, mirrors=mirrors)


def files_below(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


CACHED = sorted(f"tiny-dir/{name}.gz" for name in NAMES)


def test_download_once(server, tmp_path):
    serve(server, "a")
    image_set = mirrored(server, "a")
    assert full_set_available("tiny") is False
    assert_tiny(load_tiny("full", image_set))
    assert server.requests == [f"/a/{name}.gz" for name in NAMES]
    assert files_below(tmp_path / "cache") == CACHED
    assert full_set_available("tiny") is True
    server.answers.clear()
    assert_tiny(load_tiny("full", image_set))
    assert len(server.requests) == 4


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_shared_cache_can_be_read_by_others(server, tmp_path):
    serve(server, "a")
    old = os.umask(0o022)
    try:
        load_tiny("full", mirrored(server, "a"))
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").rglob("*.gz")} == {0o644}


@pytest.mark.parametrize(
    "change",
    [
        lambda packed: (404, b"not found", None),
        lambda packed: (503, packed, None),
        lambda packed: (200, b"<html>sign in to the network</html>", None),
        lambda packed: (200, tampered(packed), None),
        lambda packed: (200, packed[: len(packed) // 2], None),
        lambda packed: (200, packed[: len(packed) // 2], len(packed)),
        lambda packed: (200, gzip.decompress(packed), None),
        lambda packed: (200, b"", None),
    ],
)
def test_the_next_mirror_is_tried(server, tmp_path, change):
    serve(server, "bad", change=change)
    image_set = mirrored(server, "bad", "good")
    with pytest.raises(DataError) as caught:
        load_tiny("full", image_set)
    text = str(caught.value)
    assert str(tmp_path / "cache" / "tiny-dir" / f"{NAMES[0]}.gz") in text
    assert f"{image_set.mirrors[0]}{NAMES[0]}.gz: " in text
    assert f"{image_set.mirrors[1]}{NAMES[0]}.gz: " in text
    assert "XPCONV_DATA" in text
    assert "data=DIRECTORY" in text
    assert files_below(tmp_path / "cache") == []
    assert full_set_available("tiny") is False
    serve(server, "good")
    assert_tiny(load_tiny("full", image_set))
    assert files_below(tmp_path / "cache") == CACHED


def test_a_damaged_file_in_the_cache_is_replaced(server, tmp_path):
    serve(server, "a")
    load_tiny("full", mirrored(server, "a"))
    for damage in (tampered, lambda content: content[:-10], lambda content: b""):
        path = tmp_path / "cache" / CACHED[2]
        path.write_bytes(damage(path.read_bytes()))
        assert full_set_available("tiny") is False
        del server.requests[:]
        assert_tiny(load_tiny("full", mirrored(server, "a")))
        assert server.requests == [f"/a/{path.name}"]


def test_an_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch):
    serve(server, "a")
    fetch = pooch.HTTPDownloader.__call__

    def interrupted(self, url, output_file, *args, **kwargs):
        fetch(self, url, output_file, *args, **kwargs)
        if NAMES[1] in url:
            raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tiny("full", mirrored(server, "a"))
    assert files_below(tmp_path / "cache") == [f"tiny-dir/{NAMES[0]}.gz"]


def test_no_network(no_network, tmp_path):
    for load, image_set in ((load_mnist, MNIST), (load_fashion_mnist, FASHION_MNIST)):
        with pytest.raises(DataError, match="could not be downloaded") as caught:
            load("full")
        text = str(caught.value)
        assert all(f"{mirror}train-images-idx3-ubyte.gz" in text for mirror in image_set.mirrors)
        assert ('data="bundled"' in text) == (image_set is MNIST)
        assert "XPCONV_DATA" in text
    assert files_below(tmp_path) == []
    assert load_mnist()[0][0].shape == (5000, 1, 28, 28)


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    serve(server, "a")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XPCONV_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        load_tiny("full", mirrored(server, "a"))
    assert str(tmp_path / "file") in str(caught.value)


def test_the_cache_is_the_system_s_unless_told(monkeypatch, tmp_path):
    assert _cache_directory(FASHION_MNIST) == tmp_path / "cache" / "fashion-mnist"
    monkeypatch.delenv("XPCONV_CACHE")
    assert _cache_directory(MNIST) == pooch.os_cache("xpconv") / "mnist"


def test_catalog():
    checksums = [c for s in IMAGE_SETS for f in (*s.full, *(s.bundled or ())) for c in (f.sha256, f.gzip_sha256)]
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in checksums)
    assert len(set(checksums)) == len(checksums) == 24
    assert len({image_set.directory for image_set in IMAGE_SETS}) == 2
    for image_set in xpconv.datasets.catalog.IMAGE_SETS:
        assert [file.size for file in image_set.full] == [16 + 60000 * 784, 8 + 60000, 16 + 10000 * 784, 8 + 10000]
        assert all(re.fullmatch(r"https?://\S+/", mirror) for mirror in image_set.mirrors)


# ----------------------------------------------------------------------------------------------------------------------
# The full sets themselves
# ----------------------------------------------------------------------------------------------------------------------


@needs_data
def test_full_mnist(monkeypatch):
    monkeypatch.setenv("XPCONV_DATA", DATA)
    assert full_set_available("mnist")
    (x_train, t_train), (x_test, t_test) = load_mnist("full", normalize=False)
    assert x_train.shape == (60000, 1, 28, 28)
    assert x_test.shape == (10000, 1, 28, 28)
    # counts and moments as they are published
    assert np.bincount(t_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(t_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_allclose([x_train.mean(), x_train.std()], [33.318421, 78.567490], rtol=1e-7)
    np.testing.assert_allclose([x_test.mean(), x_test.std()], [33.791224, 79.172463], rtol=1e-7)
    (x_part, t_part), (x_part_test, t_part_test) = load_mnist("bundled", normalize=False)
    np.testing.assert_array_equal(x_part, x_train[:5000], strict=True)
    np.testing.assert_array_equal(t_part, t_train[:5000], strict=True)
    np.testing.assert_array_equal(x_part_test, x_test[:1000], strict=True)
    np.testing.assert_array_equal(t_part_test, t_test[:1000], strict=True)


@needs_data
def test_full_fashion_mnist(monkeypatch):
    monkeypatch.setenv("XPCONV_DATA", DATA)
    assert full_set_available("fashion_mnist")
    (x_train, t_train), (x_test, t_test) = load_fashion_mnist(normalize=False, flatten=True)
    assert x_train.shape == (60000, 784)
    assert x_test.shape == (10000, 784)
    assert np.bincount(t_train).tolist() == [6000] * 10
    assert np.bincount(t_test).tolist() == [1000] * 10
    np.testing.assert_allclose([x_train.mean(), x_train.std()], [72.940352, 90.021182], rtol=1e-7)
    np.testing.assert_allclose([x_test.mean(), x_test.std()], [73.146567, 89.873259], rtol=1e-7)


@needs_data
def test_the_full_sets_in_each_other_s_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XPCONV_DATA", DATA)
    for path in _find_files(FASHION_MNIST, Path(DATA)):
        shutil.copy(path, tmp_path)
    with pytest.raises(DataError, match="does not hold the MNIST training images: it holds the Fashion-MNIST training images"):
        load_mnist(tmp_path)
    assert load_fashion_mnist(tmp_path)[0][0].shape == (60000, 1, 28, 28)


def test_the_bundled_part_is_not_taken_for_the_full_set():
    directory = Path(xpconv.datasets.__file__).parent / "bundled"
    with pytest.raises(DataError, match=r"does not hold the MNIST training images: .* shape \(5000, 28, 28\)"):
        load_mnist(directory)
