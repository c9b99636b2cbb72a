"""A report as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xpconv.sanitizer.checks import KernelReport, Report

# Columns of the profile: heading, space, operation.
ACCESSES = (
    ("loads", "global", "read"),
    ("stores", "global", "write"),
    ("shared loads", "shared", "read"),
    ("shared stores", "shared", "write"),
)


def print_report(report: Report, console: Console) -> None:
    """Print what became of every kernel, how it uses memory where that was noted, and all that is wrong in full."""
    console.print(_kernels(report))
    profiled = [kernel for kernel in report.kernels if kernel.accesses]
    if profiled:
        console.print(_profile(profiled))
        for line in _worst_lines(profiled):
            console.print(Text(line), soft_wrap=True)
    for text in report.failures:
        console.print(Text(text, "red"), soft_wrap=True)
    launches = sum(kernel.launches for kernel in report.kernels)
    compiling = f", {report.compile_seconds:.0f} s of them compiling" if report.compile_seconds >= 1 else ""
    console.print(Text(f"{report.cases} cases, {launches} launches in {report.seconds:.0f} s{compiling}"))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _kernels(report: Report) -> Table:
    table = _table("Kernels in the checking simulator")
    for heading in ("file", "kernel"):
        table.add_column(heading, no_wrap=True)
    for heading in ("instantiations", "launches", "seconds", "findings"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, kernel in enumerate(report.kernels):
        count = len(kernel.findings)
        verdict = Text("never run", "red") if not kernel.launches else Text(str(count), "red" if count else "green")
        table.add_row(
            Text(kernel.file),
            Text(kernel.template),
            str(len(kernel.instantiations)),
            str(kernel.launches),
            f"{kernel.seconds:.1f}",
            verdict,
            end_section=number + 1 == len(report.kernels) or report.kernels[number + 1].file != kernel.file,
        )
    return table


def _profile(kernels: list[KernelReport]) -> Table:
    table = _table(
        "Use of memory: of global memory 32-byte sectors a request, of shared memory passes a request; and the share of them\n"
        "that would do"
    )
    for heading in ("file", "kernel"):
        table.add_column(heading, no_wrap=True)
    for heading, _, _ in ACCESSES:
        table.add_column(heading, justify="right", no_wrap=True)
    for kernel in kernels:
        cells = [cell_of(kernel, space, operation) for _, space, operation in ACCESSES]
        table.add_row(Text(kernel.file), Text(kernel.template), *cells)
    return table


def cell_of(kernel: KernelReport, space: str, operation: str) -> str:
    """Transactions a request, and the share of them that would do; empty where there is none."""
    row = kernel.access(space, operation)
    return "" if row is None else f"{row.transactions / row.requests:.2f} {row.efficiency:5.0%}"


def _worst_lines(kernels: list[KernelReport], count: int = 10) -> list[str]:
    # The lines that cost most beyond what would do.
    rows = {row for kernel in kernels for row in kernel.lines if row.transactions > row.least}
    worst = sorted(rows, key=lambda row: (row.least - row.transactions, str(row)))[:count]
    return ["Lines that cost most beyond that:", *(f"  {row}" for row in worst)] if worst else []
