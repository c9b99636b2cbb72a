"""The CUDA sources as text: headers put in where they are included, and the structs that Python fills declared once, in C++.

NVRTC and the simulator compile one text for each kernel. Putting it together here needs no include path on either side, and
what CuPy keeps on disk under a hash of the text is never older than a header.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Any

import numpy as np

Record = Any  # a NumPy scalar of a structured dtype

_INCLUDE = re.compile(r'^#include "(?P<header>\w+\.cuh)"$', re.MULTILINE)
_STRUCT = r"^struct {name} \{{$(?P<body>.*?)^\}};$"
_MEMBER = re.compile(r"^    (?P<type>int|unsigned|long long|float|double) (?P<names>[\w, \[\]]+);", re.MULTILINE)
_DTYPES = {"int": "i4", "unsigned": "u4", "long long": "i8", "float": "f4", "double": "f8"}


@functools.cache
def source_of(file: str) -> str:
    """The text of a ``.cu`` file with its headers, each of them once, in which every line still knows its file."""
    included: set[str] = set()

    def with_headers(name: str) -> str:
        lines = []
        for number, line in enumerate(_text(name).splitlines(), 1):
            header = _INCLUDE.match(line)
            if header is None:
                lines.append(line)
            elif header["header"] in included:
                lines.append("")
            else:
                included.add(header["header"])
                lines += [with_headers(header["header"]), f'#line {number + 1} "{name}"']
        return "\n".join([f'#line 1 "{name}"', *lines])

    return with_headers(file) + "\n"


def record(file: str, struct: str, /, **fields: Any) -> Record:
    """A struct to pass to a kernel by value, laid out as ``struct NAME { ... };`` in a source file says.

    Args:
        file: The ``.cu`` or ``.cuh`` file that declares the struct.
        struct: Its name.
        **fields: A value for every member; an array member takes a sequence.

    Raises:
        TypeError: A member has no value, or there is no such member.
        OverflowError: A value does not fit into its member.
    """
    dtype = _layout(file, struct)
    if fields.keys() != set(dtype.names or ()):
        raise TypeError(f"{struct} has the members {dtype.names}, got {tuple(fields)}")
    return np.array(tuple(fields[name] for name in dtype.names or ()), dtype)[()]


@functools.cache
def _layout(file: str, struct: str) -> np.dtype[Any]:
    declared = re.search(_STRUCT.format(name=struct), _text(file), re.MULTILINE | re.DOTALL)
    if declared is None:
        raise LookupError(f"{file} declares no struct {struct}")
    members: list[Any] = []
    for member in _MEMBER.finditer(declared["body"]):
        for declarator in member["names"].split(","):
            name, *lengths = re.findall(r"\w+", declarator)
            members.append((name, _DTYPES[member["type"]], tuple(map(int, lengths))))
    return np.dtype(members, align=True)


def _text(file: str) -> str:
    return resources.files("xpconv.kernels.cuda").joinpath(file).read_text(encoding="utf-8")
