"""Small faults planted into CUDA sources, to learn whether the tests of a kernel would notice them.

A mutant is the source with one fault: a barrier left out, a ``<`` that became ``<=``, a sign swapped. All mutants of a source
are compiled into one module, and a table says at run time which of them is alive, so that a thousand cost one
compilation. The fault is put in without taking expressions apart: ``a < b`` becomes ``a >= less<7> >= b``, two operators of
the same precedence, which together compare as ``<`` does until mutant 7 is selected.

What is settled at compile time (template arguments, ``constexpr`` variables, sizes of arrays, ``if constexpr``) is no mutant.

The module runs in the simulator only. In its check mode a fault that leaves the numbers right, such as a race, is found, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Calls that wait for other threads or for copies, and what can be left out of them.
_DROPPED = ("__syncthreads", "__syncwarp", "__pipeline_commit", "__pipeline_wait_prior")
_RELATIONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
_SUMS = {"+": "-", "-": "+"}
_FACTORS = ("*", "/", "%")
_ASSIGNMENTS = {"+=": "-=", "-=": "+="}
_NAMES = {"<": "less", "<=": "not_more", ">": "more", ">=": "not_less", "==": "equal", "!=": "unequal"} | {
    "+": "plus",
    "-": "minus",
    "*": "times",
    "/": "over",
    "%": "modulo",
}
_TOKEN = re.compile(
    r"""(?P<skip>^[ \t]*\#(?:[^\n\\]|\\.)*|[ \t\r]+|\n|//[^\n]*|/\*.*?\*/)
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<word>[A-Za-z_]\w*)
      | (?P<number>\.?\d(?:[\w.']|[eEpP][+-])*)
      | (?P<sign>\+\+|--|->|::|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_LINE = re.compile(r'^[ \t]*#[ \t]*(?:line[ \t]+)?(?P<number>\d+)[ \t]+"(?P<file>[^"]*)"')
_OPENING, _CLOSING = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
# What can stand before the operand on the left of a logical operator, and behind that on the right.
_LEFT_ENDS = {"(", "[", "{", "}", ";", ",", "?", ":", "=", "return", "&&", "||"}
_RIGHT_ENDS = {")", "]", "}", ";", ",", "?", ":", "&&", "||"}
# And of an arithmetic one or a comparison.
_FACTOR_ENDS = _LEFT_ENDS | _RIGHT_ENDS | {*_RELATIONS, *_SUMS, *_FACTORS, "<<", ">>", "&", "|"}
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")

PRELUDE = """\
#line 1 "mutation"
namespace mutation {
asm(".pushsection .bss\\n.local xpconv_mutation_state\\n.type xpconv_mutation_state, @object\\n"
    ".balign 16\\nxpconv_mutation_state: .zero SIZE\\n.size xpconv_mutation_state, SIZE\\n.popsection");
// What is asked at each place of a mutant: 0 no, otherwise decide(). Declared const, so that looking at it costs one load
// that the checker doesn't watch.
extern "C" __attribute__((visibility("hidden"))) const unsigned char xpconv_mutation_state[SIZE];
enum State : unsigned char { SLEEPS, LIVES, WATCHED, REACHED };

inline unsigned char* states() {
    unsigned char* table;
    asm volatile("" : "=r"(table) : "0"(xpconv_mutation_state));
    return table;
}
__attribute__((noinline, cold, no_sanitize_thread)) inline bool decide(int number) {
    unsigned char* const state = states() + number;
    if (*state == WATCHED) *state = REACHED;
    return *state == LIVES;
}
__attribute__((noinline, no_sanitize_thread)) inline void set_states(int first, int count, int state) {
    unsigned char* const table = states();
    for (int i = 0; i < count; ++i) table[first + i] = (unsigned char)state;
}
__attribute__((noinline, no_sanitize_thread)) inline void get_states(unsigned char* out) {
    const unsigned char* const table = states();
    for (int i = 0; i < SIZE; ++i) out[i] = table[i];
}

template <int NUMBER> __attribute__((always_inline)) constexpr bool lives() {
    if (__builtin_is_constant_evaluated()) return false;
    return __builtin_expect(xpconv_mutation_state[NUMBER], 0) && decide(NUMBER);
}
template <int NUMBER, typename T> __attribute__((always_inline)) constexpr T negated(T value) {
    return lives<NUMBER>() ? T(-value) : value;
}
template <int NUMBER, typename T> __attribute__((always_inline)) constexpr auto next(T index) {
    return lives<NUMBER>() ? index + 1 : index;
}

// An operator that waits for its right operand.
template <int NUMBER, int OPERATOR> struct Sign {};
template <int NUMBER, int OPERATOR, typename A> struct Half { A left; };
#define MUTATION_OPERATOR(SIGN)                                                                                   \\
    template <int NUMBER, int OPERATOR, typename A>                                                               \\
    __attribute__((always_inline)) constexpr Half<NUMBER, OPERATOR, A> operator SIGN(A left, Sign<NUMBER, OPERATOR>) { \\
        return {left};                                                                                            \\
    }                                                                                                             \\
    template <int NUMBER, int OPERATOR, typename A, typename B>                                                   \\
    __attribute__((always_inline)) constexpr auto operator SIGN(Half<NUMBER, OPERATOR, A> half, B right) {        \\
        return operate<NUMBER, OPERATOR>(half.left, right);                                                       \\
    }
template <typename T> constexpr bool IS_POINTER = false;
template <typename T> constexpr bool IS_POINTER<T*> = true;
enum Operator { LESS, NOT_MORE, MORE, NOT_LESS, EQUAL, UNEQUAL, PLUS, MINUS, TIMES, OVER, MODULO };

template <int NUMBER, int OPERATOR, typename A, typename B>
__attribute__((always_inline)) constexpr auto operate(A a, B b) {
    if constexpr (OPERATOR == LESS) return lives<NUMBER>() ? a <= b : a < b;
    if constexpr (OPERATOR == NOT_MORE) return lives<NUMBER>() ? a < b : a <= b;
    if constexpr (OPERATOR == MORE) return lives<NUMBER>() ? a >= b : a > b;
    if constexpr (OPERATOR == NOT_LESS) return lives<NUMBER>() ? a > b : a >= b;
    if constexpr (OPERATOR == EQUAL) return lives<NUMBER>() ? a != b : a == b;
    if constexpr (OPERATOR == UNEQUAL) return lives<NUMBER>() ? a == b : a != b;
    if constexpr (OPERATOR == PLUS) {
        using Result = decltype(a + b);
        if constexpr (IS_POINTER<B>) return lives<NUMBER>() ? Result(b - a) : a + b;
        else return lives<NUMBER>() ? Result(a - b) : a + b;
    }
    if constexpr (OPERATOR == MINUS) {
        if constexpr (IS_POINTER<B>) return lives<NUMBER>() ? b - a : a - b;
        else return lives<NUMBER>() ? decltype(a - b)(a + b) : a - b;
    }
    if constexpr (OPERATOR == TIMES) return lives<NUMBER>() ? decltype(a * b)(a) : a * b;
    if constexpr (OPERATOR == OVER) return lives<NUMBER>() ? decltype(a / b)(a) : a / b;
    if constexpr (OPERATOR == MODULO) return lives<NUMBER>() ? decltype(a % b)(a) : a % b;
}
MUTATION_OPERATOR(>=)
MUTATION_OPERATOR(==)
MUTATION_OPERATOR(+)
MUTATION_OPERATOR(*)
#undef MUTATION_OPERATOR
template <int NUMBER> inline constexpr Sign<NUMBER, LESS> less{};
template <int NUMBER> inline constexpr Sign<NUMBER, NOT_MORE> not_more{};
template <int NUMBER> inline constexpr Sign<NUMBER, MORE> more{};
template <int NUMBER> inline constexpr Sign<NUMBER, NOT_LESS> not_less{};
template <int NUMBER> inline constexpr Sign<NUMBER, EQUAL> equal{};
template <int NUMBER> inline constexpr Sign<NUMBER, UNEQUAL> unequal{};
template <int NUMBER> inline constexpr Sign<NUMBER, PLUS> plus{};
template <int NUMBER> inline constexpr Sign<NUMBER, MINUS> minus{};
template <int NUMBER> inline constexpr Sign<NUMBER, TIMES> times{};
template <int NUMBER> inline constexpr Sign<NUMBER, OVER> over{};
template <int NUMBER> inline constexpr Sign<NUMBER, MODULO> modulo{};
}  // namespace mutation
extern "C" __global__ void xpconv_mutation_set(int first, int count, int state) { mutation::set_states(first, count, state); }
extern "C" __global__ void xpconv_mutation_get(unsigned char* states) { mutation::get_states(states); }
"""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        number: Selects it.
        file: The file in which the fault is, after ``#line`` directives.
        line: Number of the line in that file.
        text: The line as it is without the fault.
        change: What the fault is: ``"< becomes <="``.
        occurrence: Which of several equal changes in lines of this text it is, from 1 on.
    """

    number: int
    file: str
    line: int
    text: str
    change: str
    occurrence: int

    def __str__(self) -> str:
        which = f" (no. {self.occurrence})" if self.occurrence > 1 else ""
        return f"{self.file}:{self.line}: {self.change}{which}: {self.text}"


@dataclass
class Register:
    """Numbers for mutants, the same ones wherever a header is included."""

    mutants: list[Mutant] = field(default_factory=list)
    _numbers: dict[tuple[str, int, int, str], int] = field(default_factory=dict)
    _seen: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def number(self, file: str, line: int, column: int, text: str, change: str) -> int:
        """The number of the mutant at this place, a new one at the first call for it."""
        key = file, line, column, change
        if key not in self._numbers:
            self._numbers[key] = len(self.mutants)
            occurrence = self._seen[file, text, change] = self._seen.get((file, text, change), 0) + 1
            self.mutants.append(Mutant(len(self.mutants), file, line, text, change, occurrence))
        return self._numbers[key]


def with_mutants(code: str, register: Register, files: Iterable[str] | None = None) -> str:
    """A source in which every mutant sleeps: it does what ``code`` does until :func:`select` wakes one.

    Args:
        code: CUDA C++ source, with ``#line`` directives where it was put together from several files.
        register: Takes the mutants up; the same one for all sources of which headers are shared.
        files: Plant faults in these files only; None takes all.

    Example:
        >>> from xpconv.sanitizer.mutation import Register, with_mutants
        >>> register = Register()
        >>> text = with_mutants("int f(int i, int n) { return i < n ? i : n; }", register)
        >>> [mutant.change for mutant in register.mutants]
        ['< becomes <=', 'i < n is taken for true', 'i < n is taken for false']
    """
    return _Planter(code, register, None if files is None else set(files)).text()


def prelude(register: Register) -> str:
    """What must stand before every source of :func:`with_mutants`; to be asked for when the register is complete."""
    return PRELUDE.replace("SIZE", str(max(1, len(register.mutants))))


# ---- the mutants of a compiled module ----------------------------------------------------------------------------------

SELECTORS = ("xpconv_mutation_set", "xpconv_mutation_get")
_SLEEPS, _LIVES, _WATCHED, _REACHED = range(4)


def select(module: Any, number: int | None, count: int) -> None:
    """Wake one mutant of a module, and put all others to sleep.

    Args:
        module: A module of the simulator whose ``name_expressions`` name :data:`SELECTORS`, too.
        number: The number of the mutant; None for the source as it is.
        count: Number of mutants in the register.
    """
    _set(module, 0, count, _SLEEPS)
    if number is not None:
        _set(module, number, 1, _LIVES)


def watch(module: Any, count: int) -> None:
    """Put all mutants to sleep, and begin to note which of them a kernel comes by."""
    _set(module, 0, count, _WATCHED)


def reached(module: Any, count: int) -> set[int]:
    """Numbers of the mutants that kernels have come by since :func:`watch`."""
    states = np.zeros(max(1, count), np.uint8)
    module.get_function("xpconv_mutation_get")((1,), (1,), (states,))
    return {int(number) for number in np.flatnonzero(states == _REACHED)}


def _set(module: Any, first: int, count: int, state: int) -> None:
    module.get_function("xpconv_mutation_set")((1,), (1,), (np.int32(first), np.int32(count), np.int32(state)))


# ---- planting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    file: str
    line: int


class _Planter:
    """Finds the places of mutants among the tokens of a source, and rewrites it."""

    def __init__(self, code: str, register: Register, files: set[str] | None) -> None:
        self.code = code
        self.register = register
        self.files = files
        self.tokens = list(_tokens(code))
        self.partner = self._partners()
        self.settled = self._settled()
        # (place, rank among what is put there, old end, new text)
        self.edits: list[tuple[int, tuple[int, int], int, str]] = []

    def text(self) -> str:
        handlers: dict[str, Callable[[int], None]] = {
            **dict.fromkeys(_DROPPED, self._plant_drop),
            **dict.fromkeys(_RELATIONS, self._plant_relation),
            **dict.fromkeys((*_SUMS, *_FACTORS), self._plant_arithmetic),
            **dict.fromkeys(_ASSIGNMENTS, self._plant_assignment),
            **dict.fromkeys(("&&", "||"), self._plant_logic),
            "?": self._plant_choice,
            "if": self._plant_if,
            "[": self._plant_subscript,
        }
        for i, token in enumerate(self.tokens):
            wanted = self.files is None or token.file in self.files
            if wanted and token.text in handlers and i not in self.settled:
                handlers[token.text](i)
        out, position = [], 0
        for start, _, end, new in sorted(self.edits):
            out += [self.code[position:start], new]
            position = end
        return "".join([*out, self.code[position:]])

    # -- what is known about the tokens --

    def _partners(self) -> dict[int, int]:
        # For every bracket the other one; those of template arguments, too: word< and template <.
        partner: dict[int, int] = {}
        open_brackets: list[int] = []
        for i, token in enumerate(self.tokens):
            last = self.tokens[open_brackets[-1]].text if open_brackets else ""
            if token.text in _OPENING or (token.text == "<" and self._opens_arguments(i)):
                open_brackets.append(i)
            elif token.text in _CLOSING:
                while open_brackets and self.tokens[open_brackets[-1]].text == "<":  # it was a comparison
                    open_brackets.pop()
                if open_brackets:
                    partner[i] = open_brackets.pop()
                    partner[partner[i]] = i
            elif token.text == ">" and last == "<":
                partner[i] = open_brackets.pop()
                partner[partner[i]] = i
        return partner

    def _opens_arguments(self, i: int) -> bool:
        before = self.tokens[i - 1] if i else None
        return (
            before is not None and before.kind == "word" and (before.end == self.tokens[i].start or before.text == "template")
        )

    def _settled(self) -> set[int]:
        # The tokens of what is settled at compile time.
        settled: set[int] = set()
        for i, token in enumerate(self.tokens):
            end = None
            if token.text == "<" and i in self.partner:
                end = self.partner[i]
            elif token.text in _COMPILE_TIME_CALLS and self._text(i + 1) == "(":
                end = self.partner[i + 1]
            elif token.text in ("using", "typedef"):
                end = self._find(i, {";"})
            elif token.text == "enum":
                end = self.partner.get(brace := self._find(i, {";", "{"}), brace)
            elif token.text == "constexpr" and self._text(i - 1) == "if":
                settled.add(i - 1)
                end = self.partner[i + 1]
            elif token.text == "constexpr":
                end = self._find(i, {"(", "=", "{", ";"})
                if self._text(end) != "(":
                    end = self._find(i, {";"})
            elif token.text == "[" and self._declares(i):
                end = self.partner[i]
            if end is not None:
                settled.update(range(i, end + 1))
        return settled

    def _declares(self, i: int) -> bool:
        # Whether a bracket is the size of an array that is declared, or the captures of a lambda.
        while self._text(i - 1) == "]":
            i = self.partner[i - 1]
        before = i - 1
        if self._text(before) == ")":  # T (&name)[SIZE]
            return self._text(self.partner[before] + 1) in ("&", "*")
        if before < 0 or self.tokens[before].kind != "word":
            return True
        type_end = self.tokens[before - 1] if before else None
        if type_end is None:
            return False
        if type_end.kind == "word":
            return type_end.text not in ("return", "else", "case")
        if type_end.text in ("*", "&", ">"):
            return type_end.end < self.tokens[before].start and self.tokens[before - 2].end == type_end.start
        if type_end.text == "," and self._text(before - 2) == "]":  # T a[2], b[3]
            return self._declares(self.partner[before - 2])
        return False

    def _text(self, i: int) -> str:
        return self.tokens[i].text if 0 <= i < len(self.tokens) else ""

    def _find(self, i: int, ends: set[str]) -> int:
        # The first of these tokens from i on, outside of brackets.
        while i < len(self.tokens) and self.tokens[i].text not in ends:
            i = self.partner[i] + 1 if self.partner.get(i, -1) > i else i + 1
        return min(i, len(self.tokens) - 1)

    def _operand(self, i: int, step: int, ends: set[str]) -> int:
        # The outermost token of the operand that lies beside token i.
        k = i + step
        while 0 <= k < len(self.tokens):
            other = self.partner.get(k)
            if other is not None and (other - k) * step > 0:
                k = other + step
                continue
            if self.tokens[k].text in ends or (step < 0 and self.tokens[k].text in _ASSIGNMENTS):
                break
            k += step
        return k - step

    def _is_constant(self, first: int, last: int) -> bool:
        # Whether an expression is made of numbers, names in capitals and types: it is settled at compile time.
        words = [token for token in self.tokens[first : last + 1] if token.kind == "word"]
        return all(_CONSTANT.fullmatch(token.text) or token.text in ("sizeof", "int", "float") for token in words)

    def _constant_operands(self, i: int) -> bool:
        return self._is_constant(self._operand(i, -1, _FACTOR_ENDS), self._operand(i, 1, _FACTOR_ENDS))

    # -- the places --

    def _number(self, i: int, change: str) -> int:
        token = self.tokens[i]
        start = self.code.rfind("\n", 0, token.start) + 1
        end = self.code.find("\n", token.start)
        text = self.code[start : end if end >= 0 else None].strip()
        return self.register.number(token.file, token.line, token.start - start, text, change)

    def _replace(self, i: int, new: str) -> None:
        token = self.tokens[i]
        self.edits.append((token.start, (1, 0), token.end, new))

    def _wrap(self, first: int, last: int, before: str, after: str) -> None:
        # Of what begins at one place the longest comes first, of what ends there the shortest.
        start, end = self.tokens[first].start, self.tokens[last].end
        self.edits.append((start, (0, -end), start, before))
        self.edits.append((end, (-1, -start), end, after))

    def _spaced(self, i: int) -> bool:
        # An operator between two operands has a space on both sides; that of a pointer type or a sign has not.
        before, token, after = self.tokens[i - 1], self.tokens[i], self.tokens[i + 1]
        operand = before.kind in ("word", "number") or before.text in (")", "]")
        spaced = operand and before.text != "return" and before.end < token.start and token.end < after.start
        return spaced and not self._constant_operands(i)

    def _plant_drop(self, i: int) -> None:
        if self._text(i + 1) != "(" or self._text(self.partner[i + 1] + 1) != ";":
            return
        end = self.partner[i + 1]
        number = self._number(i, f"no {self.tokens[i].text}")
        if self.tokens[i].text == "__pipeline_wait_prior":
            later = self._number(i, "one copy more stays under way")
            self._wrap(i + 2, end - 1, f"mutation::next<{later}>(", ")")
        self._wrap(i, end, f"(mutation::lives<{number}>() ? (void)0 : (void)", ")")

    def _plant_relation(self, i: int) -> None:
        if not self._spaced(i):
            return
        sign = self.tokens[i].text
        number = self._number(i, f"{sign} becomes {_RELATIONS[sign]}")
        carrier = "==" if sign in ("==", "!=") else ">="
        self._replace(i, f"{carrier} mutation::{_NAMES[sign]}<{number}> {carrier}")

    def _plant_arithmetic(self, i: int) -> None:
        if not self._spaced(i):
            return
        sign = self.tokens[i].text
        change = f"{sign} becomes {_SUMS[sign]}" if sign in _SUMS else f"no {sign} and what is behind it"
        carrier = "+" if sign in _SUMS else "*"
        self._replace(i, f"{carrier} mutation::{_NAMES[sign]}<{self._number(i, change)}> {carrier}")

    def _plant_assignment(self, i: int) -> None:
        end = self._operand(i, 1, _RIGHT_ENDS - {"?", ":", "&&", "||"})
        if self._text(end + 1) != ";":  # the step of a loop, which would never end
            return
        sign = self.tokens[i].text
        self._wrap(i + 1, end, f"mutation::negated<{self._number(i, f'{sign} becomes {_ASSIGNMENTS[sign]}')}>(", ")")

    def _plant_logic(self, i: int) -> None:
        left_end = _LEFT_ENDS - {"&&"} if self.tokens[i].text == "||" else _LEFT_ENDS
        right_end = _RIGHT_ENDS - {"&&"} if self.tokens[i].text == "||" else _RIGHT_ENDS
        first = self._operand(i, -1, left_end)
        if self._text(first - 1) != self.tokens[i].text:  # else that was the right operand of the one before
            self._plant_operand(i, first, i - 1)
        self._plant_operand(i, i + 1, self._operand(i, 1, right_end))

    def _plant_operand(self, i: int, first: int, last: int) -> None:
        if self._is_constant(first, last):
            return
        what = self.code[self.tokens[first].start : self.tokens[last].end]
        if self.tokens[i].text == "&&":
            number = self._number(first, f"{_short(what)} is taken for true")
            self._wrap(first, last, f"(mutation::lives<{number}>() || (", "))")
        else:
            number = self._number(first, f"{_short(what)} is taken for false")
            self._wrap(first, last, f"(!mutation::lives<{number}>() && (", "))")

    def _plant_choice(self, i: int) -> None:
        first = self._operand(i, -1, _LEFT_ENDS - {"&&", "||"})
        self._plant_condition(first, i - 1)

    def _plant_if(self, i: int) -> None:
        if self._text(i + 1) != "(":
            return
        first, last = i + 2, self.partner[i + 1] - 1
        if self._find(first, {"=", ";", ")"}) > last:  # else something is declared in it
            self._plant_condition(first, last)

    def _plant_condition(self, first: int, last: int) -> None:
        if self._is_constant(first, last):
            return
        what = _short(self.code[self.tokens[first].start : self.tokens[last].end])
        texts = self._outer(first, last)
        opening, closing = "", ""
        if "&&" not in texts or "||" in texts:
            opening += f"mutation::lives<{self._number(first, f'{what} is taken for true')}>() || "
        if "||" not in texts or "&&" in texts:
            opening += f"!mutation::lives<{self._number(first, f'{what} is taken for false')}>() && "
        self._wrap(first, last, f"({opening}(", f")){closing}")

    def _outer(self, first: int, last: int) -> set[str]:
        texts, k = set(), first
        while k <= last:
            texts.add(self.tokens[k].text)
            k = self.partner[k] + 1 if self.partner.get(k, -1) > k else k + 1
        return texts

    def _plant_subscript(self, i: int) -> None:
        end = self.partner[i]
        if end > i + 1:
            self._wrap(i + 1, end - 1, f"mutation::next<{self._number(i, '[i] becomes [i + 1]')}>(", ")")


_COMPILE_TIME_CALLS = {
    "static_assert",
    "sizeof",
    "alignas",
    "alignof",
    "decltype",
    "noexcept",
    "__launch_bounds__",
    "__align__",
}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tokens(code: str) -> Iterator[_Token]:
    file, line, position = "", 1, 0
    while position < len(code):
        found = _TOKEN.match(code, position)
        assert found is not None  # the last alternative takes any character
        assert found.lastgroup is not None
        text = found.group()
        directive = _LINE.match(text) if found.lastgroup == "skip" else None
        if found.lastgroup != "skip":
            yield _Token(found.lastgroup, text, position, found.end(), file, line)
        line += text.count("\n")
        if directive is not None:
            file, line = directive["file"], int(directive["number"]) - 1
        position = found.end()
