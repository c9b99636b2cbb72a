"""What a run found: the figures of each peer in each round, what follows from them, and the JSON file that keeps them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from xpconv.files import atomic_write

FORMAT = "xpconv bench 1"
Failure = Literal["wrong", "failed", "died", "hung"]
FAILURES: tuple[Failure, ...] = ("wrong", "failed", "died", "hung")
OURS = "xpconv:"
BOOK = "book:"


@dataclass(frozen=True)
class Measurement:
    """One peer's turn in one round.

    Attributes:
        milliseconds: Median of its calls.
        fastest: The fastest of them.
        calls: How many there were.
        other_cores: Cores that other processes kept busy meanwhile; None where the system doesn't tell.
    """

    milliseconds: float
    fastest: float
    calls: int
    other_cores: float | None


@dataclass
class Outcome:
    """How one peer did in one operation of one workload.

    Attributes:
        error: Largest error of its results, relative to the largest value of the array; None where there were none.
        failure: What went wrong, or None: ``"wrong"`` results, an error it ``"failed"`` with, or a process that ``"died"`` or
            ``"hung"``.
        reason: What there is to tell about a failure.
        rounds: Its turns, in order; a failure ends them.
    """

    error: float | None = None
    failure: Failure | None = None
    reason: str = ""
    rounds: list[Measurement] = field(default_factory=list)

    def fail(self, failure: Failure, reason: str) -> None:
        """Note what went wrong."""
        self.failure, self.reason = failure, reason

    @property
    def milliseconds(self) -> float | None:
        """Median over the rounds; None for a peer that failed or had no turn."""
        if self.failure is not None or not self.rounds:
            return None
        return statistics.median(turn.milliseconds for turn in self.rounds)


@dataclass(frozen=True)
class Ratio:
    """How many times as long one peer took as another, each time within one round.

    Attributes:
        median: Median of the rounds.
        lowest: The lowest of them.
        highest: The highest of them.
    """

    median: float
    lowest: float
    highest: float


@dataclass
class Row:
    """One operation of one workload.

    Attributes:
        workload: The workload's id.
        title: What it is.
        operation: The operation's name.
        unit: ``"flop"`` or ``"byte"``.
        work: How many of them it takes.
        outcomes: How each peer did, by name, without those that don't have the operation.
    """

    workload: str
    title: str
    operation: str
    unit: Literal["flop", "byte"]
    work: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def milliseconds(self, peer: str) -> float | None:
        """Median time of a peer; None where there is none."""
        outcome = self.outcomes.get(peer)
        return None if outcome is None else outcome.milliseconds

    def fastest(self) -> str | None:
        """The fastest of all that is not xpconv, or None."""
        times = {
            name: milliseconds
            for name in self.outcomes
            if not name.startswith(OURS) and (milliseconds := self.milliseconds(name)) is not None
        }
        return min(times, key=times.__getitem__, default=None)

    def ratio(self, peer: str, ours: str) -> Ratio | None:
        """How many times as long ``peer`` took as ``ours``: above 1, ours is faster.

        The two are compared within each round, where the machine was the same for both; a median of such ratios stays true
        when the machine is slower in one round than in the next, the ratio of two medians needn't.
        """
        if self.milliseconds(peer) is None or self.milliseconds(ours) is None:
            return None
        turns = zip(self.outcomes[peer].rounds, self.outcomes[ours].rounds, strict=False)  # an interrupted round is cut off
        ratios = [theirs.milliseconds / mine.milliseconds for theirs, mine in turns]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))

    def rate(self, peer: str) -> float | None:
        """GFLOP/s or GB/s of a peer."""
        milliseconds = self.milliseconds(peer)
        return None if milliseconds is None else self.work / milliseconds / 1e6


@dataclass(frozen=True)
class PeerReport:
    """Who took part.

    Attributes:
        name: Its name.
        label: Its name in tables.
        versions: Versions of its packages.
        python: Version of the Python that ran it.
        skipped: Why it took no part; empty where it did.
    """

    name: str
    label: str
    versions: dict[str, str] = field(default_factory=dict)
    python: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class MachineReport:
    """Where the run took place.

    Attributes:
        cpu: Name of the processor.
        cores: Cores that could be used.
        platform: System and release.
        blas: What NumPy multiplies with.
        gflops: The fastest matrix product; of a card, what all its lanes can do at its highest clock.
        gigabytes_per_second: The fastest copy, bytes read and written.
        card: The card that everything was computed on; empty where that was the processor.
    """

    cpu: str
    cores: int
    platform: str
    blas: str
    gflops: float
    gigabytes_per_second: float
    card: str = ""

    def or_faster(self, gflops: float, gigabytes_per_second: float, blas: str, card: str = "") -> MachineReport:
        """The same machine with the higher of two measured limits."""
        fastest = max(self.gflops, gflops), max(self.gigabytes_per_second, gigabytes_per_second)
        return MachineReport(self.cpu, self.cores, self.platform, blas, *fastest, card)

    def limit(self, unit: Literal["flop", "byte"]) -> float:
        """The most that the machine does of a unit, in billions a second."""
        return self.gflops if unit == "flop" else self.gigabytes_per_second


@dataclass
class Report:
    """All that a run found.

    Attributes:
        command: The command that repeats it.
        started: When it began, in UTC.
        threads: Number of threads of every peer.
        rounds: Number of rounds.
        seconds: Seconds of each turn.
        xpconv: Version of xpconv.
        python: Version of Python.
        machine: Where it took place.
        peers: Who took part, and who could not.
        rows: The figures.
        interrupted: Whether it was stopped before it was done.
    """

    command: str
    started: str
    threads: int
    rounds: int
    seconds: float
    xpconv: str
    python: str
    machine: MachineReport
    peers: list[PeerReport] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False

    def measured(self) -> list[PeerReport]:
        """The peers that have a figure or a failure in some row."""
        return [peer for peer in self.peers if any(peer.name in row.outcomes for row in self.rows)]

    def devices(self) -> list[PeerReport]:
        """Those of them that are xpconv."""
        return [peer for peer in self.measured() if peer.name.startswith(OURS)]

    def failures(self) -> Iterator[tuple[PeerReport, Row, Outcome]]:
        """Each failure."""
        for row in self.rows:
            for peer in self.peers:
                outcome = row.outcomes.get(peer.name)
                if outcome is not None and outcome.failure is not None:
                    yield peer, row, outcome

    def own_failures(self) -> list[str]:
        """What went wrong with xpconv itself, a line for each kind."""
        ours = [peer for peer in self.peers if peer.name.startswith(OURS)]
        lost = [f"{peer.label} was skipped: {peer.skipped}" for peer in ours if peer.skipped]
        lost += [
            f"{peer.label} {outcome.failure} in {row.workload} {row.operation}: {outcome.reason}"
            for peer, row, outcome in self.failures()
            if peer in ours
        ]
        return list(dict.fromkeys(lost))

    def largest_error(self, peer: str) -> float | None:
        """The largest error of a peer's results that were right."""
        errors = [
            outcome.error
            for row in self.rows
            if (outcome := row.outcomes.get(peer)) is not None and outcome.failure != "wrong" and outcome.error is not None
        ]
        return max(errors, default=None)

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False)
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Report:
    """Read a report that :meth:`Report.save` wrote.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such report; the text names the file and what is wrong with it.
    """
    content = path.read_bytes()
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError(f'"format" is not {FORMAT!r}')
        machine = MachineReport(**fields.pop("machine"))
        peers = [PeerReport(**peer) for peer in fields.pop("peers")]
        rows = [_row(**row) for row in fields.pop("rows")]
        report = Report(machine=machine, peers=peers, rows=rows, **fields)
        _check(report)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a report that xpconv bench --json wrote: {error}") from error
    return report


def _row(*, outcomes: dict[str, dict[str, Any]], **fields: Any) -> Row:
    row = Row(**fields)
    for name, outcome in outcomes.items():
        rounds = [Measurement(**turn) for turn in outcome.pop("rounds")]
        row.outcomes[name] = Outcome(rounds=rounds, **outcome)
    return row


def _check(report: Report) -> None:
    """Refuse what would end in an error or a wrong figure where it is shown."""
    machine = report.machine
    _positive("machine", machine.gflops, machine.gigabytes_per_second, machine.cores)
    _positive("run", report.threads, report.rounds, report.seconds)
    texts = [
        report.command,
        report.started,
        report.xpconv,
        report.python,
        machine.cpu,
        machine.platform,
        machine.blas,
        machine.card,
    ]
    known = set()
    for peer in report.peers:
        known.add(peer.name)
        texts += [peer.name, peer.label, peer.python, peer.skipped, *peer.versions, *peer.versions.values()]
    for row in report.rows:
        texts += [row.workload, row.title, row.operation]
        _positive(row.workload, row.work)
        if row.unit not in ("flop", "byte"):
            raise ValueError(f"the unit of {row.workload} is {row.unit!r}")
        for name, outcome in row.outcomes.items():
            texts.append(outcome.reason)
            if name not in known:
                raise ValueError(f"{row.workload} names the peer {name!r}, which is not among the peers")
            if outcome.failure not in (None, *FAILURES):
                raise ValueError(f"{name} has the unknown failure {outcome.failure!r}")
            if outcome.error is not None:
                _positive(name, outcome.error, zero=True)
            for turn in outcome.rounds:
                _positive(name, turn.milliseconds, turn.fastest, turn.calls)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise TypeError(f"{wrong[0]!r} should be a text")


def _positive(where: str, *numbers: Any, zero: bool = False) -> None:
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{where}: {number!r} should be a number")
        if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
            raise ValueError(f"{where}: {number!r} should be positive")
