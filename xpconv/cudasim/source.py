"""From the source of a kernel, as NVRTC takes it, to what g++ takes.

All of CUDA C++ that is a word or a function is the business of the headers in ``include``. Two things are not: a
``__shared__`` variable belongs to the block that runs, which no storage class of C++ says, and <cmath> would take longer to
compile than the kernel. Lines keep their numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from xpconv.cudasim.errors import CompileError

_TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* | /\*.*?\*/ | \\\n )
  | (?P<raw> (?:u8|[uUL])?R"(?P<delimiter>[^()\s\\]{0,16})\(.*?\)(?P=delimiter)" )
  | (?P<string> (?:u8|[uUL])?"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])+' )
  | (?P<name> [A-Za-z_]\w* )
  | (?P<number> \.?\d(?:[eEpP][+-]|[\w.']) * )
  | (?P<sign> :: | -> | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_SHARED = re.compile(r"\b__shared__\b")
_INCLUDE = re.compile(r'^(?P<directive>[ \t]*#[ \t]*include[ \t]*)(?P<name><[^>\n]+>|"[^"\n]+")', re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*", re.MULTILINE | re.DOTALL)
_KERNEL_WORD, _KERNEL_ATTRIBUTE = "__global__", "cudasim_kernel"  # before and after the preprocessor
_MARKER = re.compile(r'^# (\d+) "([^"\n]*)".*\n', re.MULTILINE)  # of the preprocessor: line and file

# Headers of the C library, and the simulator's that have the same functions.
_REPLACED = {
    "<cmath>": '"cudasim/std_math.h"',
    "<math.h>": '"cudasim/std_math.h"',
    "<cassert>": '"cudasim/language.h"',
    "<assert.h>": '"cudasim/language.h"',
}


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


@functools.lru_cache(maxsize=64)
def translate(code: str, filename: str) -> str:
    """The source with ``__shared__`` variables and some headers replaced; what stands in a macro stays.

    Args:
        code: CUDA C++.
        filename: Its name in messages.

    Returns:
        C++ of the same number of lines.

    Raises:
        CompileError: A ``__shared__`` variable is declared in a way that is not understood.
    """
    code = _INCLUDE.sub(lambda match: match["directive"] + _REPLACED.get(match["name"], match["name"]), code)
    if not _SHARED.search(code):
        return code
    tokens = list(_tokens(code))
    pieces, done, index = [], 0, 0
    scopes: list[bool] = []  # of each open brace: whether it is the body of a function, or inside of one
    number = 0
    while index < len(tokens):
        token = tokens[index]
        if token.text == "{":
            scopes.append(bool(scopes and scopes[-1]) or not _opens_namespace_or_class(tokens, index))
        elif token.text == "}" and scopes:
            scopes.pop()
        elif token.text == "__shared__" and not _is_directive(code, token.start):
            if not (scopes and scopes[-1]):
                raise _not_understood(code, filename, token, "is declared outside of a function; declare it in the kernel")
            first, last = _statement(tokens, index, code, filename)
            start = tokens[first].start
            # A source may be translated again after the preprocessor has put it into a longer one.
            declaration = _declaration(tokens[first : last + 1], code, filename, f"{len(code)}_{number}")
            number += 1
            pieces += [code[done:start], declaration, "\n" * code.count("\n", start, tokens[last].end)]
            done = tokens[last].end
            index = last
        index += 1
    return "".join([*pieces, code[done:]])


@functools.lru_cache(maxsize=64)
def kernel_names(code: str) -> dict[str, bool]:
    """The kernels that are not templates: their names, and whether each has C linkage.

    Args:
        code: CUDA C++, or what the preprocessor makes of it.

    Returns:
        Names in the order of the source.
    """
    tokens = list(_tokens(_DIRECTIVE.sub("", code)))
    names: dict[str, bool] = {}
    braces: list[bool] = []  # of each open brace: whether it is that of extern "C"
    for index, token in enumerate(tokens):
        if token.text == "{":
            braces.append([other.text for other in tokens[max(0, index - 2) : index]] == ["extern", '"C"'])
        elif token.text == "}" and braces:
            braces.pop()
        elif token.text in (_KERNEL_WORD, _KERNEL_ATTRIBUTE) and all(braces):
            name = _declared_name(tokens, index)
            before = _words_before(tokens, index)
            if name is not None and "template" not in before:
                names[name] = names.get(name, False) or any(braces) or '"C"' in before
    return names


def stands_in_macro(word: str, code: str) -> bool:
    """Whether a word is a part of what a macro stands for, so that only the preprocessor knows where it is."""
    return any(_is_directive(code, match.start()) for match in re.finditer(rf"\b{word}\b", code))


# ---- tokens --------------------------------------------------------------------------------------------------------------


def _tokens(code: str) -> Iterator[_Token]:
    position = 0
    while position < len(code):
        match = _TOKEN.match(code, position)
        if match is None:  # an unfinished string or comment: the compiler says so
            return
        kind = match.lastgroup or "sign"
        if match["skip"] is None:
            yield _Token("raw" if match["raw"] else kind, match[0], match.start(), match.end())
        position = match.end()


def _not_understood(code: str, filename: str, token: _Token, why: str) -> CompileError:
    line, start = 1, 0
    for marker in _MARKER.finditer(code, 0, token.start):
        line, filename, start = int(marker[1]), marker[2], marker.end()
    line += code.count("\n", start, token.start)
    text = code[code.rfind("\n", 0, token.start) + 1 :].partition("\n")[0].strip()
    return CompileError(f"{filename}:{line}: a __shared__ variable {why} ({text})")


def _is_directive(code: str, position: int) -> bool:
    """Whether a position lies in a preprocessor directive, backslashes at the ends of lines included."""
    start = code.rfind("\n", 0, position) + 1
    while start >= 2 and code[: start - 1].endswith("\\"):
        start = code.rfind("\n", 0, start - 1) + 1
    return code[start:].lstrip(" \t").startswith("#")


def _opens_namespace_or_class(tokens: list[_Token], brace: int) -> bool:
    words = _words_before(tokens, brace)
    if '"C"' in words and "(" not in words:
        return True
    return bool({"namespace", "struct", "class", "union", "enum"} & set(words)) and "(" not in words


def _words_before(tokens: list[_Token], index: int) -> list[str]:
    """What stands between the statement before and a token."""
    first = index
    while first > 0 and tokens[first - 1].text not in ("{", "}", ";"):
        first -= 1
    return [token.text for token in tokens[first:index]]


def _declared_name(tokens: list[_Token], kernel: int) -> str | None:
    """The name of a kernel: the last before its parameters, which are the first parentheses that follow a plain name."""
    index = kernel + 1
    while index < len(tokens) and tokens[index].text not in (";", "{"):
        token = tokens[index]
        if token.text == "(" and tokens[index - 1].kind == "name":
            if tokens[index - 1].text in ("__launch_bounds__", "__attribute__", "__maxnreg__", "alignas", "__cluster_dims__"):
                index = _closing(tokens, index) + 1
                continue
            return tokens[index - 1].text
        index += 1
    return None


_CLOSING = {"(": ")", "[": "]", "{": "}"}
_KEY = "[] { static char key; return static_cast<const void*>(&key); }()"  # another one at each place and in each instantiation
_EXPECTED = "is not understood; write `__shared__ type name[size];`"
_ALIGNMENT = ("alignas", "__align__", "__builtin_align__")


def _closing(tokens: list[_Token], opening: int) -> int:
    depth, index = 0, opening
    while index < len(tokens):
        if tokens[index].text in _CLOSING:
            depth += 1
        elif tokens[index].text in _CLOSING.values():
            depth -= 1
            if depth == 0:
                return index
        index += 1
    return len(tokens) - 1


def _opening(tokens: list[_Token], closing: int) -> int:
    depth, index = 0, closing
    while index >= 0:
        if tokens[index].text in _CLOSING.values():
            depth += 1
        elif tokens[index].text in _CLOSING:
            depth -= 1
            if depth == 0:
                return index
        index -= 1
    return 0


# ---- declarations of shared variables ------------------------------------------------------------------------------------


def _statement(tokens: list[_Token], index: int, code: str, filename: str) -> tuple[int, int]:
    """First and last token of the declaration that a ``__shared__`` stands in."""
    first = index
    while first > 0:
        before = tokens[first - 1]
        if before.text in ("extern", "static", "volatile", "const"):
            first -= 1
        elif before.text == ")" and (opening := _opening(tokens, first - 1)) > 0 and tokens[opening - 1].text in _ALIGNMENT:
            first = opening - 1
        else:
            break
    last = index
    while last < len(tokens) and tokens[last].text != ";":
        last = _closing(tokens, last) if tokens[last].text in _CLOSING else last
        last += 1
    if last >= len(tokens):
        raise _not_understood(code, filename, tokens[index], "has no end: a semicolon is missing")
    return first, last


def _declaration(tokens: list[_Token], code: str, filename: str, label: str) -> str:
    """C++ for a declaration of shared variables, from its first token to its semicolon."""
    where = next(token for token in tokens if token.text == "__shared__")
    rest = [token for token in tokens[:-1] if token.text not in ("__shared__", "extern", "static", "inline")]
    is_dynamic = any(token.text == "extern" for token in tokens)
    alignments, rest = _take_alignments(rest)
    declarators = _split(rest, ",")
    specifiers, own = _specifiers(declarators[0])
    type_text = _text(specifiers)
    defined, alignment = "", "0"
    if alignments:
        attributes = " ".join(f"alignas({inner})" for inner in alignments)
        defined = f"struct {attributes} cudasim_alignment_{label} {{ char byte; }}; "
        alignment = f"alignof(cudasim_alignment_{label})"
    body = next((i for i, token in enumerate(specifiers) if token.text == "{"), None)
    if body is not None:  # struct { ... }: it gets a name and is defined before
        end = _closing(specifiers, body)
        tag = specifiers[body - 1].text if body > 0 else ""
        if tag in ("struct", "union", "class"):
            tag = f"cudasim_shared_type_{label}"
            head = _text(specifiers[:body]) + f" {tag} "
        else:
            head = _text(specifiers[:body])
        defined += head + _text(specifiers[body : end + 1]) + "; "
        type_text = tag
    result = []
    for declarator in [own, *declarators[1:]]:
        name_at = next((i for i, token in enumerate(declarator) if token.kind == "name"), None)
        if name_at is None or not type_text:
            raise _not_understood(code, filename, where, _EXPECTED)
        name = declarator[name_at].text
        pointers, dimensions = declarator[:name_at], declarator[name_at + 1 :]
        if any(token.text not in ("*", "const", "volatile", "__restrict__") for token in pointers):
            raise _not_understood(code, filename, where, _EXPECTED)
        if any(token.text in ("=", "{") for token in dimensions[:1]):
            raise _not_understood(code, filename, where, f"`{name}` has an initial value, which CUDA does not allow")
        if dimensions and dimensions[0].text != "[":
            raise _not_understood(code, filename, where, _EXPECTED)
        full = " ".join(filter(None, [type_text, _text(pointers)]))
        if is_dynamic:
            if [token.text for token in dimensions[:2]] != ["[", "]"]:
                raise _not_understood(
                    code, filename, where, f"`{name}` is extern, so it must be an array of open size: {name}[]"
                )
            inner = _text(dimensions[2:])
            if inner:
                result.append(f"auto* const {name} = cudasim::dynamic_shared<{full}{inner}>();")
            else:
                result.append(f"{full}* const {name} = cudasim::dynamic_shared<{full}>();")
            continue
        shape = full + _text(dimensions).replace("[", "[(").replace("]", ")]")  # [N >> 1] must not end the template's arguments
        result.append(f'auto& {name} = cudasim::shared<{shape}>({_KEY}, "{name}", {alignment});')
    return defined + " ".join(result)


def _take_alignments(tokens: list[_Token]) -> tuple[list[str], list[_Token]]:
    """The insides of alignas(...) and __align__(...), and all other tokens."""
    alignments, rest, index = [], [], 0
    while index < len(tokens):
        if tokens[index].text in _ALIGNMENT and index + 1 < len(tokens):
            end = _closing(tokens, index + 1)
            alignments.append(_text(tokens[index + 2 : end]))
            index = end
        else:
            rest.append(tokens[index])
        index += 1
    return alignments, rest


def _split(tokens: list[_Token], separator: str) -> list[list[_Token]]:
    """Split at commas that are not within brackets; those of a template's arguments end with the first name after them."""
    parts: list[list[_Token]] = [[]]
    depth = angles = 0
    for token in tokens:
        if token.text in _CLOSING:
            depth += 1
        elif token.text in _CLOSING.values():
            depth -= 1
        elif depth == 0 and token.text == "<":
            angles += 1
        elif depth == 0 and token.text == ">":
            angles -= 1
        if token.text == separator and depth == 0 and angles == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _specifiers(tokens: list[_Token]) -> tuple[list[_Token], list[_Token]]:
    """The type of a declaration, and its first declarator: the last plain name, the stars before it and what follows."""
    angles = 0
    name_at = 0
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.text == "<":
            angles += 1
        elif token.text == ">":
            angles -= 1
        elif token.text == "{":
            index = _closing(tokens, index)
        elif angles == 0 and token.text in ("[", "(", "="):
            break
        elif angles == 0 and token.kind == "name":
            name_at = index
        index += 1
    start = name_at
    while start > 0 and tokens[start - 1].text in ("*", "__restrict__"):
        start -= 1
    return tokens[:start], tokens[start:]


def _text(tokens: list[_Token]) -> str:
    """The source of some tokens on one line, without comments."""
    pieces: list[str] = []
    for i, token in enumerate(tokens):
        if i > 0 and tokens[i - 1].end != token.start:
            pieces.append(" ")
        pieces.append(token.text)
    return "".join(pieces)
