"""A report as Markdown tables, put into a file between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xpconv.files import split_at_markers, write_between_markers
from xpconv.sanitizer.checks import Report
from xpconv.sanitizer.table import ACCESSES, cell_of

MARKER = "sanitize"


def check(path: Path, marker: str = MARKER) -> None:
    """Find out whether the file has the markers ``<!-- NAME -->`` and ``<!-- /NAME -->``, each once and in order.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has not; the text says what to write.
    """
    _around(path, marker)


def update(path: Path, text: str, marker: str = MARKER) -> None:
    """Replace what stands between the markers; everything else stays as it is.

    Raises:
        OSError: The file cannot be read or written.
        ValueError: The markers are missing.
    """
    write_between_markers(path, marker, text, _around(path, marker))


def markdown(report: Report) -> str:
    """What became of every kernel, and how it uses memory, as two tables."""
    lines = table(
        ["file", "kernel", "instantiations", "launches", "findings"],
        [
            [kernel.file, kernel.template, str(len(kernel.instantiations)), str(kernel.launches), str(len(kernel.findings))]
            for kernel in report.kernels
        ],
        text_columns=2,
    )
    launches = sum(kernel.launches for kernel in report.kernels)
    lines += ["", f"{report.cases} cases, {launches} launches, {len(report.failures)} findings."]
    profiled = [kernel for kernel in report.kernels if kernel.accesses]
    if profiled:
        rows = [
            [kernel.file, kernel.template, *(cell_of(kernel, space, operation) for _, space, operation in ACCESSES)]
            for kernel in profiled
        ]
        lines += ["", *table(["file", "kernel", *(heading for heading, _, _ in ACCESSES)], rows, text_columns=2)]
        lines += ["", "Sectors of 32 bytes a request, of shared memory passes; and the share of them that would do."]
    return "\n".join([*lines, ""])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int) -> list[str]:
    """Lines of a table; all columns but the first few are numbers."""
    rule = ["---"] * text_columns + ["---:"] * (len(headings) - text_columns)
    return [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]


def _around(path: Path, marker: str) -> tuple[str, str]:
    around = split_at_markers(path, marker)
    if around is None:
        raise ValueError(f"{path} needs the lines <!-- {marker} --> and <!-- /{marker} -->, each once and in this order")
    return around
