"""The book's params.pkl: every honest one is read, and no other pickle gets to do anything."""

import builtins
import collections
import decimal
import os
import pickle
import pickletools
import random
import struct
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpconv.errors import ParameterFileError
from xpconv.files import load_pickled_parameters

PROTOCOLS = range(6)


@pytest.fixture
def load(tmp_path):
    def load(content):
        path = tmp_path / "params.pkl"
        path.write_bytes(content)
        return load_pickled_parameters(path)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """Return the text with which a pickle is refused, which names the file."""

    def refused(content):
        with pytest.raises(ParameterFileError) as caught:
            load(content)
        assert str(caught.value).startswith(f"{tmp_path / 'params.pkl'} is not a pickled dictionary of NumPy arrays: ")
        return str(caught.value)

    return refused


def assert_same(loaded, expected):
    assert type(loaded) is dict
    assert list(loaded) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded[name], array.astype(array.dtype.newbyteorder("=")), strict=True)
        assert loaded[name].flags.writeable
        assert loaded[name].flags.owndata
        assert loaded[name].flags.c_contiguous
        assert loaded[name].dtype.isnative


# ----------------------------------------------------------------------------------------------------------------------
# What is read
# ----------------------------------------------------------------------------------------------------------------------


def arrays(dtype):
    values = np.random.default_rng(0).integers(0, 2, 60).astype(dtype)
    return {
        "W1": values.reshape(3, 4, 5),
        "transposed": values.reshape(3, 4, 5).T,
        "permuted": values.reshape(3, 4, 5).transpose(1, 0, 2),
        "strided": values.reshape(6, 10)[::2, ::-3],
        "scalar": values[7:8].reshape(()),
        "one": values[:1],
        "empty": values[:0].reshape(3, 0, 5),
        "é": values,
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">f8", ">i4"])
def test_dictionaries_of_arrays(load, dtype, protocol):
    params = arrays(dtype)
    assert_same(load(pickle.dumps(params, protocol)), params)
    params = {"W1": params["W1"]}
    assert_same(load(pickle.dumps(params, protocol)), params)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_bit_of_the_numbers(load, protocol):
    params = {
        "W1": np.random.default_rng(0).standard_normal((30, 1, 5, 5)),
        "b": np.array([np.nan, -np.inf, -0.0, 5e-324]),
    }
    loaded = load(pickle.dumps(params, protocol))
    assert {name: array.tobytes() for name, array in loaded.items()} == {n: a.tobytes() for n, a in params.items()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("write", [pickle._dumps, lambda *a: pickletools.optimize(pickle.dumps(*a)), pickle.dumps])
def test_other_writers_and_containers(load, write, protocol):
    read_only = np.arange(6.0)
    read_only.flags.writeable = False
    for params in (
        collections.OrderedDict(b=np.arange(3.0), a=read_only),
        {},
        {f"W{i}": np.ones(i) for i in range(300)},
    ):
        assert_same(load(write(params, protocol)), params)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_as_the_numpy_of_other_years_wrote_it(load, protocol):
    params = {"W1": np.arange(6, dtype=np.float32).reshape(2, 3), "b1": np.zeros(3)}
    content = pickle.dumps(params, protocol)
    if protocol >= 4:
        assert content[2:3] == b"\x95"  # a frame's length would no longer be right; pickles do without frames
        content = content[:2] + content[11:]
    today, yesterday = (b"numpy._core", b"numpy.core") if b"numpy._core" in content else (b"numpy.core", b"numpy._core")
    for module in (b".multiarray", b".numeric"):
        old, new = today + module, yesterday + module
        content = content.replace(b"\x8c" + bytes([len(old)]) + old, b"\x8c" + bytes([len(new)]) + new)
        content = content.replace(b"c" + old + b"\n", b"c" + new + b"\n")
    assert today not in content
    assert yesterday in content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        np.testing.assert_equal(pickle.loads(content), params)
    assert_same(load(content), params)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_array_under_two_names(load, protocol):
    weight = np.arange(3.0)
    loaded = load(pickle.dumps({"encoder": weight, "decoder": weight, "b": weight.copy()}, protocol))
    assert loaded["encoder"] is loaded["decoder"]
    assert not np.shares_memory(loaded["encoder"], loaded["b"])


def test_a_bool_is_true_or_false(load):
    content = pickle.dumps({"b": np.array([False, True])}, 3)
    assert content.count(b"\x00\x01") == 1
    assert_same(load(content.replace(b"\x00\x01", b"\x00\x02")), {"b": np.array([False, True])})


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl"):
        load_pickled_parameters(tmp_path / "nowhere.pkl")


# ----------------------------------------------------------------------------------------------------------------------
# What would run
# ----------------------------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"W1": bad}, lambda bad: {"W1": np.ones(2), "b1": (bad, {})}])
def test_nothing_runs(refused, tmp_path, protocol, wrap):
    trace = tmp_path / "trace"
    for function, arguments, name in (
        (os.system, (f"touch {trace}",), f"{os.name}.system"),
        (builtins.exec, (f"open({str(trace)!r}, 'w')",), "exec"),
        (builtins.eval, (f"open({str(trace)!r}, 'w')",), "eval"),
        (builtins.open, (str(trace), "w"), "open"),
        (builtins.getattr, (trace, "touch"), "getattr"),
        (np.save, (str(trace), 1), "save"),
        (np.load, (str(trace),), "numpy.load"),
        (np.memmap, (str(trace), "u1", "w+", 0, (5,)), "memmap"),
    ):
        content = pickle.dumps(wrap(Calls(function, *arguments)), protocol)
        assert "asks for '" in (text := refused(content))
        assert name in text or "pathlib" in text
        assert list(tmp_path.iterdir()) == [tmp_path / "params.pkl"]
    # the same pickle does run where pickles are trusted: the test would see it
    pickle.loads(pickle.dumps(wrap(Calls(os.system, f"touch {trace}")), protocol))
    assert trace.exists()


def test_nothing_is_imported(refused):
    assert "antigravity" not in sys.modules
    assert "'antigravity.fly'" in refused(b"cantigravity\nfly\n.")
    assert "'antigravity.fly'" in refused(b"\x80\x04\x8c\x0bantigravity\x8c\x03fly\x93.")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "numpy ndarray.__setstate__",
        "numpy ndarray.tofile",
        "numpy._core.multiarray scalar",
        "numpy._core._internal _reconstruct",
        "numpy frombuffer",
        "_codecs decode",
        "_codecs lookup",
        "builtins bytearray",
        "builtins type",
        "collections defaultdict",
        "xpconv.pickled_parameters _Array",
        "copyreg _reconstructor",
        " ",
        "numpy ",
        "numpy  ndarray",
    ],
)
def test_only_ten_names(refused, name):
    module, attribute = name.split(" ", 1)
    assert f"asks for '{module}.{attribute}'" in refused(f"c{module}\n{attribute}\n.".encode())


ARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(" + ARRAY + b"K\x00\x85C\x01btR"


STATE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def dtype(code=b"f8", state=STATE):
    return b"cnumpy\ndtype\n(X" + struct.pack("<I", len(code)) + code + b"\x89\x88tR" + state


F8 = dtype()


def array(shape=b"(K\x02t", dtype=F8, order=b"\x89", data=b"C\x10" + bytes(16), version=b"K\x01"):
    return RECONSTRUCT + b"(" + version + shape + dtype + order + data + b"tb"


def frombuffer(rest, data=b"C\x10" + bytes(16)):
    return b"cnumpy.core.numeric\n_frombuffer\n(" + data + F8 + rest + b"tR"


def integer(value, size):
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little")


def text(content):
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def dictionary(value, key=b"X\x01\x00\x00\x00W"):
    return b"\x80\x05}" + key + value + b"s."


def test_the_hand_made_pieces_are_right(load):
    expected = {"W": np.zeros(2)}
    assert_same(load(dictionary(array())), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert_same({k: v.copy() for k, v in pickle.loads(dictionary(array())).items()}, expected)


REFUSED = {
    # dtype state: what NumPy's own __setstate__ would take at its word
    "flags of an object": (array(dtype=dtype(state=STATE.replace(b"K\x00", b"K\x3f"))), "dtype that isn't"),
    "object": (array(dtype=dtype(b"O8")), "dtype 'O8'"),
    "object without state": (array(dtype=dtype(b"O8", b"")), "dtype 'O8'"),
    "fields": (array(dtype=dtype(state=STATE.replace(b"NNN", b"NN}"))), "dtype that isn't"),
    "names": (array(dtype=dtype(state=STATE.replace(b"NNN", b"N)N"))), "dtype that isn't"),
    "sub-array": (array(dtype=dtype(state=STATE.replace(b"NNN", b"K\x01K\x02\x86NN"))), "dtype that isn't"),
    "item size": (array(dtype=dtype(state=STATE.replace(b"NNNJ\xff\xff", b"NNNJ\x00\x01"))), "dtype that isn't"),
    "version": (array(dtype=dtype(state=STATE.replace(b"K\x03", b"K\x04"))), "dtype that isn't"),
    "metadata": (array(dtype=dtype(state=STATE.replace(b"K\x00t", b"K\x00}t"))), "dtype that isn't"),
    "state a dictionary": (array(dtype=dtype(state=b"}b")), "dtype that isn't"),
    "state twice": (array(dtype=F8 + STATE), "dtype that isn't"),
    "no state": (array(dtype=dtype(state=b"")), "without a byte order"),
    "byte order": (array(dtype=dtype(state=STATE.replace(b"<", b"x"))), "without a byte order"),
    "byte order a number": (array(dtype=dtype(state=STATE.replace(text("<"), b"K\x01"))), "without a byte order"),
    "void": (array(dtype=dtype(b"V8")), "dtype 'V8'"),
    "characters": (array(dtype=dtype(b"U2")), "dtype 'U2'"),
    "complex": (array(dtype=dtype(b"c8")), "dtype 'c8'"),
    "long double": (array(dtype=dtype(b"f16"), data=b"C\x20" + bytes(32)), "dtype 'f16'"),
    "datetime": (array(dtype=dtype(b"M8")), "dtype 'M8'"),
    "list of fields": (array(dtype=dtype(b"f4,f4")), "dtype 'f4,f4'"),
    "dtype, the class": (array(dtype=b"cnumpy\ndtype\n"), "without a dtype"),
    "dtype none": (array(dtype=b"N"), "without a dtype"),
    "dtype a text": (array(dtype=text("f8")), "without a dtype"),
    # array state
    "lying shape": (array(shape=integer(2**33, 5) + b"\x85"), "takes 68719476736 bytes, but 16 are there"),
    "size beyond any": (array(shape=integer(2**70, 10) + b"\x85"), "impossible shape"),
    "empty but too large": (array(shape=b"(K\x00" + integer(2**62, 8) * 2 + b"t", data=b"C\x00"), "too big"),
    "negative size": (array(shape=b"J\xfe\xff\xff\xff\x85"), "impossible shape"),
    "two negative sizes": (array(shape=b"J\xfe\xff\xff\xffJ\xff\xff\xff\xff\x86"), "impossible shape"),
    "bool in the shape": (array(shape=b"\x88K\x02\x86"), "impossible shape"),
    "text in the shape": (array(shape=text("2") + b"\x85"), "impossible shape"),
    "shape no tuple": (array(shape=b"K\x02"), "impossible shape"),
    "65 dimensions": (array(shape=b"(" + b"K\x01" * 64 + b"K\x02t"), "impossible shape"),
    "too few bytes": (array(data=b"C\x0f" + bytes(15)), "takes 16 bytes, but 15"),
    "too many bytes": (array(data=b"C\x11" + bytes(17)), "takes 16 bytes, but 17"),
    "data a tuple": (array(data=b"NN\x86"), "without bytes"),
    "data none": (array(data=b"N"), "without bytes"),
    "data a text": (array(data=text("\0" * 16)), "without bytes"),
    "data beyond latin1": (
        array(data=b"c_codecs\nencode\n(" + text("\u0100" * 16) + text("latin1") + b"tR"),
        "can't encode",
    ),
    "order a number": (array(order=b"K\x07"), "array whose state"),
    "order none": (array(order=b"N"), "array whose state"),
    "array version": (array(version=b"K\x02"), "array whose state"),
    "state of four": (RECONSTRUCT + b"(K\x02\x85" + F8 + b"\x89C\x10" + bytes(16) + b"tb", "array whose state"),
    "array state none": (RECONSTRUCT + b"Nb", "array whose state"),
    "array state a dictionary": (RECONSTRUCT + b"}b", "array whose state"),
    "filled twice": (array() + array()[len(RECONSTRUCT) :], "filled twice"),
    "filled twice, at first by frombuffer": (
        frombuffer(b"K\x02\x85" + text("C")) + array()[len(RECONSTRUCT) :],
        "filled twice",
    ),
    "never filled": (RECONSTRUCT, "'W' is no array"),
    "subclass": (RECONSTRUCT.replace(ARRAY, b"cnumpy\nmatrix\n"), "'numpy.matrix'"),
    "class of another kind": (RECONSTRUCT.replace(ARRAY, b"cnumpy\ndtype\n"), "_reconstruct with unusual"),
    # _frombuffer
    "frombuffer, few arguments": (frombuffer(b"K\x02\x85"), "_frombuffer with unusual"),
    "frombuffer, many arguments": (frombuffer(b"K\x02\x85" + text("C") + b"NN"), "_frombuffer with unusual"),
    "frombuffer, unknown order": (frombuffer(b"K\x02\x85" + text("A")), "unknown order"),
    "frombuffer, K alone": (frombuffer(b"K\x02\x85" + text("K")), "order of its axes"),
    "frombuffer, no such axis": (frombuffer(b"K\x02\x85" + text("K") + b"K\x01\x85"), "order of its axes"),
    "frombuffer, an axis twice": (
        frombuffer(b"K\x02K\x01\x86" + text("K") + b"K\x00K\x00\x86"),
        "order of its axes",
    ),
    "frombuffer, C and axes": (frombuffer(b"K\x02\x85" + text("C") + b"K\x00\x85"), "unknown order"),
    "frombuffer, shape": (frombuffer(b"K\x03\x85" + text("C")), "takes 24 bytes, but 16"),
    "out-of-band buffer": (frombuffer(b"K\x02\x85" + text("C"), b"\x97"), "NEXT_BUFFER"),
    # states for what has none: Python would set attributes of the globals
    "attribute of a global": (ARRAY + b"N}" + text("name") + b"Ns\x86b", "state for what has none"),
    "attributes of a dtype": (F8 + b"N}" + text("code") + b"Ns\x86b", "dtype that isn't"),
    "state of a dictionary": (b"}}b", "state for what has none"),
    "items of a global": (ARRAY + text("a") + b"Ns", "items for what is no dictionary"),
    # calls
    "call of a text": (text("a") + b")R", "call of what is no function"),
    "call of an array": (array() + b")R", "call of what is no function"),
    "call without a tuple": (b"cnumpy\ndtype\nNR", "call of what is no function"),
    "call of ndarray": (ARRAY + b"K\x02\x85\x85R", "ndarray with unusual"),
    "other codec": (b"c_codecs\nencode\n(" + text("a") + text("base64") + b"tR", "encode with unusual"),
    "bytes of a size": (b"cbuiltins\nbytes\n" + integer(2**40, 6) + b"\x85R", "bytes with unusual"),
    "dictionary of pairs": (b"ccollections\nOrderedDict\n)\x85R", "OrderedDict with unusual"),
    # other content
    "number": (b"K\x01", "'W' is no array"),
    "none": (b"N", "'W' is no array"),
    "dictionary": (b"}", "'W' is no array"),
    "tuple of arrays": (array() + b"\x85", "'W' is no array"),
    "global": (ARRAY, "'W' is no array"),
    "float": (b"G" + bytes(8), "opcode BINFLOAT"),
    "list of arrays": (b"]" + array() + b"a", "opcode EMPTY_LIST"),
    # opcodes that load, call or build other things
    "persistent name": (b"Pname\n", "opcode PERSID"),
    "persistent object": (b"NQ", "opcode BINPERSID"),
    "extension 1": (b"\x82\x01", "opcode EXT1"),
    "extension 2": (b"\x83\x01\x00", "opcode EXT2"),
    "extension 4": (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
    "instance": (b"(inumpy\nndarray\n", "opcode INST"),
    "object of a class": (b"(" + ARRAY + b"o", "opcode OBJ"),
    "new object": (ARRAY + b")\x81", "opcode NEWOBJ"),
    "new object, keywords": (ARRAY + b")}\x92", "opcode NEWOBJ_EX"),
    "set": (b"\x8f", "opcode EMPTY_SET"),
    "frozen set": (b"(\x91", "opcode FROZENSET"),
    "duplicate": (b"N2", "opcode DUP"),
    "taken back": (b"0", "opcode POP"),
    # an unsound stack
    "mark in a tuple": (b"(\x85", "finds nothing"),
    "mark as a value": (b"(", "finds nothing"),
    "no mark": (b"t", "finds no mark"),
    "memo of nothing": (b"h\x07", "reference to number 7"),
    "memo of a mark": (b"(q\x07", "finds nothing"),
    "global of numbers": (b"K\x01K\x02\x93", "asks for"),
    "protocol 6": (b"\x80\x06N", "protocol 6"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(refused, case):
    value, reason = REFUSED[case]
    assert reason in refused(dictionary(value))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "STOP"),
        (b"these are no parameters", ""),
        (b"PK\x03\x04", ""),
        (struct.pack("<Q", 2) + b"{}", ""),
        (b"\xff.", "unknown"),
        (b".", "finds nothing"),
        (b"\x80\x05" + array() + b".", "no dictionary"),
        (b"N.", "no dictionary"),
        (b"}}.", "no dictionary"),
        (b"(}.", "no dictionary"),
        (b"(.", "finds nothing"),
        (dictionary(array())[:-1], "STOP"),
        (dictionary(array()) + b"\n", "bytes follow"),
        (dictionary(array()) * 2, "bytes follow"),
        (dictionary(array(), b"K\x01"), "key that is no text"),
        (dictionary(array(), b"C\x01W"), "key that is no text"),
        (dictionary(array(), b")"), "key that is no text"),
        (b"}(" + array() + b"u.", "no dictionary"),
        (b"}(" + text("W") + b"u.", "no dictionary"),
        (b"(" + text("W") + b"d.", "no dictionary"),
        (b"X\x01\x00\x00\x00\xff.", "decode"),
    ],
)
def test_files_that_are_refused(refused, content, reason):
    assert reason in refused(content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.array([{}, []], object),
        np.zeros(2, complex),
        np.zeros(2, "U3"),
        np.zeros(2, "S3"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, np.longdouble),
        np.ma.masked_array([1.0, 2.0]),
        np.float64(3),
        np.dtype("f8"),
        np.ndarray,
        1.0,
        "text",
        [np.zeros(2)],
        (np.zeros(2),),
        {"W1": np.zeros(2)},
        None,
        decimal.Decimal(1),
    ],
    ids=repr,
)
def test_only_arrays_of_numbers(refused, value, protocol):
    refused(pickle.dumps({"b1": np.zeros(3), "W1": value}, protocol))


# ----------------------------------------------------------------------------------------------------------------------
# What would take memory, time or the stack
# ----------------------------------------------------------------------------------------------------------------------


def peak_of(function, *arguments):
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        dictionary(b"\x8e" + struct.pack("<Q", 2**62)),  # BINBYTES8
        dictionary(b"\x96" + struct.pack("<Q", 2**40)),  # BYTEARRAY8
        dictionary(b"B" + struct.pack("<I", 2**32 - 1)),
        dictionary(b"\x8d" + struct.pack("<Q", 2**63)),
        dictionary(b"\x8b" + struct.pack("<i", 2**31 - 1)),  # LONG4
        dictionary(b"Nr" + struct.pack("<I", 2**32 - 1)),  # LONG_BINPUT
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + dictionary(b"N")[2:],  # FRAME
        dictionary(array(shape=b"\x8a\x07" + (2**50).to_bytes(7, "little") + b"\x85")),
        dictionary(b"I" + b"9" * 5000 + b"\n"),
    ],
)
def test_lies_about_sizes_take_no_memory(refused, content):
    assert peak_of(refused, content) < 1 << 21


def test_nested_values_are_neither_hashed_nor_compared_nor_shown(refused):
    deep = b")" + b"\x85" * 200_000
    doubled = b")" + b"q\x00h\x00\x86" * 60  # 2**60 leaves
    for bomb in (deep, doubled):
        for content in (
            dictionary(array(), bomb),
            dictionary(bomb),
            dictionary(array(shape=bomb)),
            dictionary(array(data=bomb)),
            dictionary(array(order=bomb)),
            dictionary(array(version=bomb)),
            dictionary(dtype(state=bomb + b"b")),
            dictionary(dtype(state=b"(K\x03X\x01\x00\x00\x00<" + bomb + b"NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")),
            dictionary(b"cnumpy\ndtype\n" + bomb + b"R"),
            dictionary(b"cnumpy\ndtype\n" + bomb + b"\x89\x88\x87R"),
            dictionary(b"cnumpy.core.numeric\n_frombuffer\n(C\x10" + bytes(16) + F8 + b"K\x02\x85" + bomb + b"tR"),
            dictionary(bomb + b"X\x01\x00\x00\x00a\x93"),
            b"\x80\x05" + bomb + b".",
            b"\x80\x05" + bomb,
        ):
            assert len(refused(content)) < 500


def test_bytes_are_not_multiplied(refused):
    data = bytes(1 << 16)
    shared = b"B" + struct.pack("<I", len(data)) + data + b"q\x05"
    one = array(shape=b"M\x00\x20\x85", data=b"h\x05")
    content = b"\x80\x05" + shared + b"0}(" + b"".join(b"X\x04\x00\x00\x00%04d" % i + one for i in range(2000)) + b"u."
    assert "POP" in refused(content)
    content = b"\x80\x05}" + b"X\x01\x00\x00\x00W" + array(shape=b"M\x00\x20\x85", data=shared) + b"s("
    content += b"".join(b"X\x04\x00\x00\x00%04d" % i + one for i in range(2000)) + b"u."
    assert "more bytes than the file has" in refused(content)
    assert peak_of(refused, content) < 1 << 24
    # the same, by way of texts
    text = b"X" + struct.pack("<I", len(data)) + data + b"q\x05"
    encoded = b"c_codecs\nencode\n(%sX\x06\x00\x00\x00latin1tR"
    content = b"\x80\x05}X\x01\x00\x00\x00W" + array(shape=b"M\x00\x20\x85", data=encoded % text) + b"s("
    one = array(shape=b"M\x00\x20\x85", data=encoded % b"h\x05")
    content += b"".join(b"X\x04\x00\x00\x00%04d" % i + one for i in range(2000)) + b"u."
    assert "more bytes than the file has" in refused(content)
    assert peak_of(refused, content) < 1 << 24


def test_error_texts_are_short(refused):
    assert len(refused(dictionary(b"c" + b"a" * 10**6 + b"\nb\n"))) < 500
    assert len(refused(dictionary(b"N", b"X" + struct.pack("<I", 10**6) + b"a" * 10**6))) < 500
    assert len(refused(dictionary(dtype(b"f" * 10**6)))) < 500


# ----------------------------------------------------------------------------------------------------------------------
# Damage
# ----------------------------------------------------------------------------------------------------------------------

GOOD = {protocol: pickle.dumps({"W1": np.arange(2.0), "b1": np.zeros(1, "i2")}, protocol) for protocol in PROTOCOLS}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_truncated_anywhere(refused, protocol):
    for length in range(len(GOOD[protocol])):
        refused(GOOD[protocol][:length])


@given(
    st.sampled_from(PROTOCOLS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_gives_arrays_or_the_error(tmp_path_factory, protocol, damage):
    content = bytearray(GOOD[protocol])
    for place, byte in damage:
        content[int(place * len(content))] = byte
    assert_arrays_or_error(tmp_path_factory, content)


@given(st.integers(0, 2**32))
def test_opcodes_in_any_order_give_arrays_or_the_error(tmp_path_factory, seed):
    generator = random.Random(seed)
    pieces = [b"(", b"t", b"R", b"b", b"s", b"u", b"}", b"d", b")", b"\x85", b"\x86", b"\x87", b"N", b"\x88", b"K\x02"]
    pieces += [
        b"q\x01",
        b"h\x01",
        b"\x94",
        b"C\x10" + bytes(16),
        b"X\x01\x00\x00\x00W",
        ARRAY,
        RECONSTRUCT,
        dtype(),
        array(),
    ]
    content = b"\x80\x05}" + b"".join(generator.choices(pieces, k=generator.randrange(1, 12))) + b"."
    assert_arrays_or_error(tmp_path_factory, content)


def assert_arrays_or_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(content)
    try:
        loaded = load_pickled_parameters(path)
    except ParameterFileError:
        return
    for name, value in loaded.items():
        assert type(name) is str
        assert type(value) is np.ndarray
        assert value.dtype.kind in "biuf"
        assert value.nbytes <= len(content)
