"""Runs every kernel of the cuda device in the checking simulator, and compares what comes out with the numpy device."""

from __future__ import annotations

import fnmatch
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import Any

import numpy as np

from xpconv import cudasim
from xpconv.kernels import cuda, numpy
from xpconv.kernels.cuda import runtime
from xpconv.kernels.cuda.source import source_of
from xpconv.kernels.numpy.threads import usable_cores
from xpconv.sanitizer.cases import Array, Case, all_cases, profile_cases

# What the simulator stands for: (compute capability, multiprocessors, bytes of shared memory a block can have).
CARDS = ((80, 8, 99 << 10), (75, 8, 64 << 10))
# Instantiations that are compiled together: few, so that all cores compile, but not so few that each reads the headers.
TOGETHER = 6
# How far results may be off, in units of the last place of their dtype.
ULPS = 32

Say = Callable[[str, str], None]
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(r"\b__global__\b([^;{]*)[;{]")
_BRACKETS = re.compile(r"\([^()]*\)")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        case: The case that showed it.
        message: What the checker says, or how the result differs.
    """

    case: str
    message: str


@dataclass
class KernelReport:
    """What became of one kernel template.

    Attributes:
        file: The file that declares it.
        template: Its name.
        instantiations: The name expressions that were run.
        launches: How often it was launched.
        seconds: How long that took in the simulator.
        findings: What is wrong with it.
        accesses: How it uses memory, where that was asked for: a row for each space and operation, added up over the
            launches of :func:`~xpconv.sanitizer.cases.profile_cases`.
        lines: The same by line of the source.
    """

    file: str
    template: str
    instantiations: set[str] = field(default_factory=set)
    launches: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    accesses: list[cudasim.Profile] = field(default_factory=list)
    lines: list[cudasim.Profile] = field(default_factory=list)

    def access(self, space: str, operation: str) -> cudasim.Profile | None:
        """How it reads or writes global or shared memory; None where it does not, or was not profiled."""
        return next((row for row in self.accesses if (row.space, row.operation) == (space, operation)), None)


@dataclass
class Report:
    """What a run found.

    Attributes:
        kernels: Every kernel template that was wanted.
        findings: What is wrong and cannot be told of one kernel: results that differ, errors of the host code.
        cases: Number of cases.
        compile_seconds: How long compiling took; nothing where all was kept from an earlier run.
        seconds: How long the run took in all.
    """

    kernels: list[KernelReport]
    findings: list[Finding]
    cases: int
    compile_seconds: float
    seconds: float

    @property
    def never_run(self) -> list[str]:
        """Kernels that no case comes by: they are as good as unchecked."""
        return [f"{kernel.file}: {kernel.template}" for kernel in self.kernels if not kernel.launches]

    @property
    def failures(self) -> list[str]:
        """All that is wrong, a text each."""
        told = [
            f"{kernel.file}: {kernel.template}: {finding.message} ({finding.case})"
            for kernel in self.kernels
            for finding in kernel.findings
        ]
        told += [f"{finding.message} ({finding.case})" for finding in self.findings]
        return told + [f"{name} is never run by a case" for name in self.never_run]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        kernels = [{**asdict(kernel), "instantiations": sorted(kernel.instantiations)} for kernel in self.kernels]
        return {
            "kernels": kernels,
            "findings": [asdict(finding) for finding in self.findings],
            "never_run": self.never_run,
            "cases": self.cases,
            "compile_seconds": self.compile_seconds,
            "seconds": self.seconds,
        }


def kernel_templates() -> dict[tuple[str, str], None]:
    """Every kernel that the sources of the cuda device declare: (file, name)."""
    folder = resources.files("xpconv.kernels.cuda")
    found: dict[tuple[str, str], None] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".cu"):
            for name in kernels_in(path.read_text(encoding="utf-8")):
                found[path.name, name] = None
    return found


def kernels_in(code: str) -> list[str]:
    """Names of the kernels that a source declares."""
    heads = _KERNEL.findall(_COMMENT.sub("", code))
    return [_name_in(head) for head in heads]


def _name_in(head: str) -> str:
    # "void __launch_bounds__(32 * (A + B)) name(const T* x)": what stands before the last brackets.
    while _BRACKETS.search(inner := head.strip()[:-1]):
        head = _BRACKETS.sub(lambda match: " " * len(match.group()), inner) + ")"
    return str(re.findall(r"\w+", head.partition("(")[0])[-1])


def matches(pattern: str, file: str, template: str) -> bool:
    """Whether a kernel is meant: by a part of its name or its file's, or by a pattern with ``*`` for either."""
    names = template, file, f"{file}:{template}"
    return any(pattern in name or fnmatch.fnmatch(name, pattern) for name in names)


@dataclass(frozen=True, eq=False)
class CheckedRuntime(runtime.Runtime):
    """The simulator in check mode, with an account of what was launched.

    Attributes:
        profile: Whether to note how memory is used.
        launched: Called with every launch: file, name, how long it took, and what went wrong.
        profiled: Called with what was noted: file, name, totals, and rows by line.
    """

    profile: bool = False
    launched: Callable[[str, str, float, Exception | None], None] = lambda *_: None
    profiled: Callable[[str, str, list[cudasim.Profile], list[cudasim.Profile]], None] = lambda *_: None

    def kernel(self, file: str, name: str) -> Any:
        """As :meth:`Runtime.kernel`."""
        kernel = super().kernel(file, name)
        kernel.profile = self.profile
        return kernel

    def launch(
        self,
        file: str,
        name: str,
        grid: runtime.Grid,
        block: runtime.Grid,
        arguments: Sequence[Any],
        *,
        shared_memory: int = 0,
    ) -> None:
        """As :meth:`Runtime.launch`."""
        start = time.perf_counter()
        try:
            super().launch(file, name, grid, block, arguments, shared_memory=shared_memory)
        except cudasim.KernelError as error:
            self.launched(file, name, 0.0, error)
            raise
        if 0 in grid:
            return
        self.launched(file, name, time.perf_counter() - start, None)
        if self.profile:
            kernel = self.kernel(file, name)
            self.profiled(file, name, kernel.totals, kernel.report)


def run(pattern: str = "", *, profile: bool = False, say: Say = lambda stage, detail: None) -> Report:
    """Check kernels.

    Args:
        pattern: Which kernels: a part of a name, or a pattern with ``*``. Empty takes all.
        profile: Note as well how they use memory.
        say: Told where the run is.
    """
    start = time.perf_counter()
    wanted = {key: KernelReport(*key) for key in kernel_templates() if matches(pattern, *key)}

    def planned_for(cases: Iterable[Case]) -> list[tuple[Case, Card, set[Name]]]:
        return [
            (case, card, names)
            for case, card, names in planned(cases)
            if any((file, template_of(name)) in wanted for file, name in names)
        ]

    plans = planned_for(all_cases())
    to_profile = [(case, names) for case, card, names in planned_for(profile_cases()) if card == CARDS[0]] if profile else []
    compiling = time.perf_counter()
    every_name = {name for _, _, names in plans for name in names} | {name for _, names in to_profile for name in names}
    kernels, failures = compiled(every_name, say)
    compiling = time.perf_counter() - compiling
    findings = [Finding(f"{file}: {name}", message) for (file, name), message in failures.items()]
    runtimes = {card: checked_runtime(card, kernels) for card in CARDS}
    for number, (case, card, names) in enumerate(plans, 1):
        say("checking", f"case {number} of {len(plans)}, {case}")
        if not names & failures.keys():
            findings += _check(case, runtimes[card], wanted)
    for number, (case, names) in enumerate(to_profile, 1):
        say("profiling", f"case {number} of {len(to_profile)}, {case}")
        if not names & failures.keys():
            findings += _profile(case, replace(runtimes[CARDS[0]], profile=True), wanted)
    count = len({id(case) for case, _, _ in plans})
    return Report(list(wanted.values()), findings, count, compiling, time.perf_counter() - start)


def template_of(name: str) -> str:
    """The template that a name expression instantiates."""
    return name.partition("<")[0]


Name = tuple[str, str]  # file and name expression of an instantiation
Card = tuple[int, int, int]


def planned(cases: Iterable[Case]) -> Iterator[tuple[Case, Card, set[Name]]]:
    """Which instantiations each case launches on each card; a card that launches the same ones as the first is left out."""
    for case in cases:
        first: set[Name] | None = None
        for card in CARDS:
            with runtime.planning(*card) as launches:
                case.compute(cuda)
            names = {(launch.file, launch.name) for launch in launches}
            if names != first:
                yield case, card, names
            first = names if first is None else first


def compiled(names: Iterable[Name], say: Say) -> tuple[dict[Name, Any], dict[Name, str]]:
    """Kernels of these instantiations for check mode, compiled on all cores; and what the compiler says of those that fail."""
    groups = []
    for file, of_file in itertools.groupby(sorted(names), key=lambda name: name[0]):
        expressions = [name for _, name in of_file]
        groups += [(file, tuple(expressions[i : i + TOGETHER])) for i in range(0, len(expressions), TOGETHER)]
    kernels: dict[Name, Any] = {}
    failures: dict[Name, str] = {}

    def build(group: tuple[str, tuple[str, ...]]) -> None:
        file, expressions = group
        try:
            module = cudasim.Module(
                code=source_of(file), options=runtime.OPTIONS, name_expressions=expressions, mode="check", filename=file
            )
            kernels.update({(file, expression): module.get_function(expression) for expression in expressions})
        except cudasim.CompileError as error:
            failures.update(dict.fromkeys(((file, expression) for expression in expressions), str(error)))
        say("compiling", f"{len(kernels)} kernels of {sum(len(names) for _, names in groups)}")

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(build, groups))
    return kernels, failures


def checked_runtime(card: Card, kernels: dict[Name, Any]) -> CheckedRuntime:
    """The simulator as a card of this kind, in check mode, with these kernels compiled already."""
    capability, multiprocessors, shared_memory = card

    def load(**options: Any) -> Any:
        return cudasim.Module(mode="check", **options)

    return CheckedRuntime(
        f"cudasim as sm_{capability}",
        np,
        load,
        np.ndarray,
        nullcontext,
        capability,
        multiprocessors,
        shared_memory,
        None,
        dict(kernels),
    )


def _check(case: Case, checked: CheckedRuntime, wanted: dict[Name, KernelReport]) -> list[Finding]:
    told = f"{case}, {checked.name}"

    def launched(file: str, name: str, seconds: float, error: Exception | None) -> None:
        report = wanted.get((file, template_of(name)))
        if report is None:
            return
        report.launches += 1
        report.seconds += seconds
        report.instantiations.add(name)
        if error is not None:
            report.findings.append(Finding(told, str(error)))

    try:
        with runtime.computed_by(replace(checked, launched=launched)):
            results = case.compute(cuda)
    except cudasim.KernelError:
        return []  # told above
    except Exception as error:
        return [Finding(told, f"{type(error).__name__}: {error}")]
    return [Finding(told, text) for text in differences(results, case.compute(numpy, np.float64), case.dtype)]


def _profile(case: Case, checked: CheckedRuntime, wanted: dict[Name, KernelReport]) -> list[Finding]:
    def profiled(file: str, name: str, totals: list[cudasim.Profile], lines: list[cudasim.Profile]) -> None:
        report = wanted.get((file, template_of(name)))
        if report is not None:
            report.accesses = _added(report.accesses, totals)
            report.lines = _added(report.lines, lines)

    try:
        with runtime.computed_by(replace(checked, profiled=profiled)):
            case.compute(cuda)
    except cudasim.KernelError as error:
        return [Finding(str(case), str(error))]
    return []


def _added(rows: Iterable[cudasim.Profile], more: Iterable[cudasim.Profile]) -> list[cudasim.Profile]:
    sums: dict[tuple[str, int, str, str], cudasim.Profile] = {}
    for row in (*rows, *more):
        key = row.file, row.line, row.space, row.operation
        one = sums.get(key)
        sums[key] = (
            row
            if one is None
            else cudasim.Profile(*key, one.requests + row.requests, one.transactions + row.transactions, one.least + row.least)
        )
    return [sums[key] for key in sorted(sums)]


def differences(results: Sequence[Any], expected: Sequence[Any], dtype: np.dtype[Any]) -> list[str]:
    """How results differ from what is expected, in float64, of a computation in ``dtype``."""
    if len(results) != len(expected):
        return [f"{len(results)} results, not {len(expected)}"]
    texts = (_difference(np.asarray(a), np.asarray(b), dtype) for a, b in zip(results, expected, strict=True))
    return [f"result {number}: {text}" for number, text in enumerate(texts) if text]


def _difference(result: Array, expected: Array, dtype: np.dtype[Any]) -> str:
    if result.shape != expected.shape:
        return f"shape {result.shape}, not {expected.shape}"
    if expected.dtype.kind in "iub":
        wrong = result != expected
    else:
        result, expected = result.astype(np.float64), expected.astype(np.float64)
        finite = expected[np.isfinite(expected)]
        tolerance = ULPS * machine_epsilon(dtype) * float(np.abs(finite).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            close = (np.abs(result - expected) <= tolerance) | (result == expected)
        wrong = ~(close | (np.isnan(result) & np.isnan(expected)))
    if not wrong.any():
        return ""
    first = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{np.count_nonzero(wrong)} of {wrong.size} elements differ, at {first} {result[first]} is not {expected[first]}"


def machine_epsilon(dtype: np.dtype[Any]) -> float:
    """Distance from 1 to the next number of a dtype."""
    return 2.0**-7 if dtype.name == "bfloat16" else float(np.finfo(dtype).eps)
