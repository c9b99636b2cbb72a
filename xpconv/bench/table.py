"""A report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xpconv.bench.results import PeerReport, Report, Row

UNITS = {"flop": "GFLOP/s", "byte": "GB/s"}
GAP = 3  # between columns
NARROW = 120  # below this, workloads are told by their id alone


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: list[Text]

    @property
    def width(self) -> int:
        return max(len(line) for text in (self.heading, *map(str, self.cells)) for line in text.split("\n"))


def print_report(report: Report, console: Console) -> None:
    """Print the figures, who took part, what failed, and where the run took place.

    Args:
        report: What a run found.
        console: Where to print; figures that it is too narrow for go on in further tables.
    """
    names = [row.workload if console.width < NARROW else f"{row.workload} {row.title}" for row in report.rows]
    keys = [
        _Column("workload", [Text(name) for name in names]),
        _Column("op", [Text(row.operation) for row in report.rows]),
    ]
    for part in _parts(keys, _groups(report), console.width):
        table = Table(title="Milliseconds; the fastest in bold", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in part:
            table.add_column(Text(column.heading), justify="left" if column in keys else "right", no_wrap=True)
        for number, row in enumerate(report.rows):
            ends = number + 1 == len(report.rows) or report.rows[number + 1].workload != row.workload
            table.add_row(*(column.cells[number] for column in part), end_section=ends)
        console.print(table)
    console.print(_peers(report))
    for line in notes(report):
        console.print(Text(line))


def notes(report: Report) -> list[str]:
    """Lines that tell what failed, and where the run took place."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for peer, row, outcome in report.failures():
        told.setdefault((peer.label, row.workload, f"{outcome.failure}: {outcome.reason}"), []).append(row.operation)
    lines = [f"{label}, {workload} {', '.join(names)}: {what}" for (label, workload, what), names in told.items()]
    if disturbed := _disturbance(report):
        lines.append(disturbed)
    if report.interrupted:
        lines.append("The run was interrupted: the last workload has fewer rounds, others are missing.")
    return [*lines, machine_line(report), report.command]


def machine_line(report: Report) -> str:
    """Where the run took place, and the limits that the shares are shares of."""
    machine = report.machine
    if machine.card:
        return (
            f"{machine.card}; limits: {machine.gflops:.0f} GFLOP/s of float32, copy {machine.gigabytes_per_second:.0f} GB/s; "
            f"{machine.cpu}, {machine.platform}, {report.started[:10]}"
        )
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    threads = "1 thread" if report.threads == 1 else f"{report.threads} threads"
    return (
        f"{machine.cpu}, {cores}, {threads} for each library; limits: matrix product {machine.gflops:.0f} GFLOP/s "
        f"({machine.blas}), copy {machine.gigabytes_per_second:.0f} GB/s; {machine.platform}, {report.started[:10]}"
    )


def three_digits(value: float) -> str:
    """Three digits, or all that stand before the point.

    Example:
        >>> from xpconv.bench.table import three_digits
        >>> [three_digits(value) for value in (0.0512, 1.234, 12.34, 123.4)]
        ['0.051', '1.23', '12.3', '123']
    """
    for limit, decimals in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


def quickest(row: Row) -> str | None:
    """The fastest of all, xpconv among them."""
    times = {name: milliseconds for name in row.outcomes if (milliseconds := row.milliseconds(name)) is not None}
    return min(times, key=times.__getitem__, default=None)


def _groups(report: Report) -> Iterable[list[_Column]]:
    """Columns that stay together: those of each device of xpconv, and one for each other peer."""
    ours = report.devices()
    for device in ours:
        yield [
            _Column(device.label.replace(" ", "\n"), [_time(row, device) for row in report.rows]),
            _Column("× fastest\nother", [_ratio(row, device) for row in report.rows]),
            _Column("rate", [_rate(row, device) for row in report.rows]),
            _Column("of\nlimit", [_share(report, row, device) for row in report.rows]),
        ]
    for peer in report.measured():
        if peer not in ours:
            yield [_Column(peer.label.replace(" ", "\n"), [_time(row, peer) for row in report.rows])]


def _time(row: Row, peer: PeerReport) -> Text:
    outcome = row.outcomes.get(peer.name)
    if outcome is None:
        return Text("–", "dim")
    if outcome.failure is not None:
        return Text(outcome.failure.upper(), "red")
    milliseconds = outcome.milliseconds
    if milliseconds is None:
        return Text("–", "dim")
    return Text(three_digits(milliseconds), "bold" if quickest(row) == peer.name else "")


def _ratio(row: Row, device: PeerReport) -> Text:
    fastest = row.fastest()
    ratio = row.ratio(fastest, device.name) if fastest is not None else None
    if ratio is None:
        return Text("–", "dim")
    style = "green" if ratio.median > 1 else "yellow"
    return Text(f"{ratio.median:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})", style)


def _rate(row: Row, device: PeerReport) -> Text:
    rate = row.rate(device.name)
    return Text("–", "dim") if rate is None else Text(f"{three_digits(rate)} {UNITS[row.unit]}")


def _share(report: Report, row: Row, device: PeerReport) -> Text:
    rate = row.rate(device.name)
    return Text("–", "dim") if rate is None else Text(f"{rate / report.machine.limit(row.unit):.0%}")


def _parts(keys: list[_Column], groups: Iterable[list[_Column]], width: int) -> Iterable[list[_Column]]:
    """Cut the columns into tables that fit, each with the columns that name its rows."""
    part = list(keys)
    for group in groups:
        if len(part) > len(keys) and sum(column.width + GAP for column in (*part, *group)) > width:
            yield part
            part = list(keys)
        part += group
    if len(part) > len(keys):
        yield part


def _peers(report: Report) -> Table:
    table = Table(title="Who took part", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "versions", "Python", "largest error"):
        table.add_column(heading)
    measured = report.measured()
    for peer in report.peers:
        error = report.largest_error(peer.name)
        if peer.skipped:
            told = Text(f"skipped: {peer.skipped}", "yellow")
        elif peer in measured:
            told = Text("no right result" if error is None else f"{error:.1e}")
        else:
            told = Text("has none of these operations", "dim")
        table.add_row(
            Text(peer.label),
            Text(", ".join(f"{name} {version}" for name, version in peer.versions.items())),
            Text(peer.python),
            told,
        )
    return table


def _disturbance(report: Report) -> str:
    turns = [
        turn.other_cores
        for row in report.rows
        for outcome in row.outcomes.values()
        for turn in outcome.rounds
        if turn.other_cores is not None
    ]
    disturbed = sum(others > 0.25 for others in turns)
    if not disturbed:
        return ""
    return f"Other processes used more than a quarter of a core during {disturbed} of {len(turns)} turns."
