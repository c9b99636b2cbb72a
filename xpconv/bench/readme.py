"""A report as a Markdown table, put into a file between two markers."""

from __future__ import annotations

import re
from pathlib import Path

from xpconv.bench.results import PeerReport, Report, Row
from xpconv.bench.table import machine_line, quickest, three_digits
from xpconv.files import split_at_markers, write_between_markers

MARKER = "benchmark"


def check(path: Path) -> None:
    """Find out whether the file has the markers, each once and in order.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has not; the text says what to write.
    """
    _around(path)


def update(path: Path, report: Report) -> None:
    """Replace what stands between the markers; everything else stays as it is.

    Raises:
        OSError: The file cannot be read or written.
        ValueError: The markers are missing.
    """
    write_between_markers(path, MARKER, markdown(report), _around(path))


def markdown(report: Report) -> str:
    """The figures as a Markdown table, and below it where and how they were measured."""
    ours = report.devices()
    peers = [*ours, *(peer for peer in report.measured() if peer not in ours)]
    headings = ["workload", "op", *(_escaped(peer.label) for peer in peers)]
    headings += [f"{_escaped(device.label)} is … times as fast as the fastest other" for device in ours]
    lines = [
        _line(headings),
        _line(["---", "---", *["---:"] * (len(headings) - 2)]),
        *(_line(_cells(row, peers, ours)) for row in report.rows),
    ]
    versions = dict.fromkeys(f"{name} {version}" for peer in report.measured() for name, version in peer.versions.items())
    text = [
        *lines,
        "",
        f"Milliseconds, the median of {report.rounds} rounds, the fastest in bold; in parentheses the range of the rounds.",
        f"{_escaped(machine_line(report))}; Python {report.python}; {_escaped(', '.join(versions))}.",
        "",
        "```sh",
        report.command,
        "```",
    ]
    return "\n".join(text) + "\n"


def _cells(row: Row, peers: list[PeerReport], ours: list[PeerReport]) -> list[str]:
    cells = [_escaped(f"{row.workload} {row.title}"), row.operation]
    for peer in peers:
        outcome = row.outcomes.get(peer.name)
        milliseconds = row.milliseconds(peer.name)
        if outcome is not None and outcome.failure is not None:
            cells.append(outcome.failure)
        elif milliseconds is None:
            cells.append("")
        else:
            number = three_digits(milliseconds)
            cells.append(f"**{number}**" if quickest(row) == peer.name else number)
    fastest = row.fastest()
    for device in ours:
        ratio = row.ratio(fastest, device.name) if fastest is not None else None
        cells.append("" if ratio is None else f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})")
    return cells


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return re.sub(r"([|*_<`])", r"\\\1", " ".join(text.split()))


def _around(path: Path) -> tuple[str, str]:
    around = split_at_markers(path, MARKER)
    if around is None:
        raise ValueError(
            f"{path} must have the lines <!-- {MARKER} --> and <!-- /{MARKER} --> once each, in this order; "
            "the table goes between them"
        )
    return around
