"""The run: every peer in a process of its own; for each workload first the results are checked, then all take turns.

What it guards against, and how:

* A machine that gets faster and slower: peers take turns within each round, and ratios are taken within a round.
* Who comes first: the order moves on by one with each round.
* Wrong results that are fast: nothing is timed before it was compared with a reference in float64.
* Other processes: it waits for a quiet moment, notes what others used, and measures again what was disturbed.
* A library that crashes or hangs: it is told, and the others go on.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xpconv
from xpconv.bench.machine import cpu_name
from xpconv.bench.peers import REFERENCE, PeerSpec
from xpconv.bench.processes import Worker, WorkerError, stopping
from xpconv.bench.quiet import Patience, cores_used_by_others, sample
from xpconv.bench.results import MachineReport, Measurement, Outcome, PeerReport, Report, Row
from xpconv.bench.settings import TIMEOUT_SECONDS, Settings
from xpconv.bench.workloads import Workload
from xpconv.errors import XpconvError
from xpconv.kernels.numpy.threads import usable_cores

SETTLE_SECONDS = 0.05  # the last peer's threads wait actively for a while before they sleep
DISTURBED_CORES = 0.15  # used by others during a turn: worth another try
MOST_TRIES = 3
MOST_FAILURES = 2  # of its process: then a peer isn't started again


class BenchError(XpconvError, RuntimeError):
    """Nothing can be measured: there is nothing to compare with."""


def run(settings: Settings, say: Callable[[str, str], None] = lambda stage, detail: None) -> Report:
    """Run the benchmark.

    Args:
        settings: What to run.
        say: Called with a stage of the run, and with what happens in it.

    Returns:
        What was found. Ctrl-C ends the run, and gives what was found until then, once there is anything.

    Raises:
        BenchError: The reference failed.
        KeyboardInterrupt: Ctrl-C before anything was found.
    """
    with tempfile.TemporaryDirectory(prefix="xpconv-bench-", ignore_cleanup_errors=True) as folder:
        return _Run(settings, say, Path(folder)).run()


class _Run:
    def __init__(self, settings: Settings, say: Callable[[str, str], None], folder: Path) -> None:
        self.settings = settings
        self.say = say
        self.folder = folder
        self.specs = {spec.name: spec for spec in (*settings.ours, *settings.peers)}
        self.patience = Patience(settings.patience)
        self.process_failures: dict[str, int] = {}

    def run(self) -> Report:
        with stopping({}) as workers:
            self.workers = workers
            self.say("starting", "")
            self._start(REFERENCE)
            peers = self._start_peers()
            self._greet_reference()
            self.say("measuring the machine", "")
            report = self._report(peers, self._limits())
            try:
                for workload in self.settings.workloads:
                    self._run_workload(workload, report.rows)
                # Again, some time later: a machine that was busy at the start would seem to have been surpassed.
                self.say("measuring the machine", "")
                with contextlib.suppress(BenchError):
                    report.machine = report.machine.or_faster(**self._limits())
            except KeyboardInterrupt:
                if not any(outcome.rounds for row in report.rows for outcome in row.outcomes.values()):
                    raise
                report.interrupted = True
                # Peers that had no turn yet have nothing to tell.
                for row in report.rows:
                    row.outcomes = {
                        name: outcome for name, outcome in row.outcomes.items() if outcome.rounds or outcome.failure
                    }
                report.rows = [row for row in report.rows if row.outcomes]
            return report

    # ---- starting ----

    def _start_peers(self) -> list[PeerReport]:
        for spec in self.specs.values():  # all at once: importing a library takes seconds
            self._start(spec)
        return [self._greet(spec) for spec in self.specs.values()]

    def _start(self, spec: PeerSpec) -> Worker:
        python = self.settings.pythons.get(spec.library)
        cards = self.settings.card is not None
        worker = self.workers[spec.name] = Worker(spec, self.settings.threads, self.folder, python, cards=cards)
        return worker

    def _greet_reference(self) -> None:
        skipped = self._greet(REFERENCE).skipped
        if skipped:
            raise BenchError(f"the reference, xpconv on numpy in float64, does not run: {skipped}")

    def _limits(self) -> dict[str, Any]:
        # Of the processor the reference knows what it can do, of a card whoever computes on it.
        name = REFERENCE.name if self.settings.card is None else self.settings.ours[0].name
        worker = self._worker(name)
        if worker is None:
            raise BenchError(f"what the machine can do could not be measured: the process of {name} is lost")
        self.patience.wait(self._processes())
        try:
            answer = worker.ask(TIMEOUT_SECONDS, do="limits")
        except WorkerError as error:
            answer = {"failed": str(error)}
        if "failed" in answer:
            raise BenchError(f"what the machine can do could not be measured: {answer['failed']}")
        return answer

    def _processes(self) -> list[int]:
        return [os.getpid(), *(worker.id for worker in self.workers.values())]

    def _greet(self, spec: PeerSpec) -> PeerReport:
        try:
            hello = self.workers[spec.name].ask(TIMEOUT_SECONDS)
            skipped = hello.get("unavailable", "")
        except WorkerError as error:
            hello, skipped = {}, f"its process {error.kind}: {error}"
        if skipped:
            self._give_up(spec.name)
            return PeerReport(spec.name, spec.label, skipped=skipped)
        return PeerReport(spec.name, spec.label, hello["versions"], hello["python"])

    def _give_up(self, name: str) -> None:
        self.workers.pop(name).stop()

    def _report(self, peers: list[PeerReport], limits: dict[str, Any]) -> Report:
        settings = self.settings
        return Report(
            command=settings.command,
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            threads=settings.threads,
            rounds=settings.rounds,
            seconds=settings.seconds,
            xpconv=xpconv.__version__,
            python=platform.python_version(),
            machine=MachineReport(cpu=cpu_name(), cores=usable_cores(), platform=platform.platform(), **limits),
            peers=peers,
        )

    # ---- one workload ----

    def _run_workload(self, workload: Workload, rows: list[Row]) -> None:
        wanted = [operation for operation in workload.operations if operation in self.settings.operations]
        if not wanted:
            return
        stage = f"{workload.id} {workload.title}"
        self.say(stage, "checking the results")
        own_rows = {
            operation: Row(workload.id, workload.title, operation, workload.unit, workload.work(operation))
            for operation in wanted
        }
        rows += own_rows.values()
        with tempfile.TemporaryDirectory(dir=self.folder) as expected:
            if reason := self._write_expected(workload, expected):
                for row in own_rows.values():
                    row.outcomes = {spec.name: Outcome(failure="failed", reason=reason) for spec in self.settings.ours}
                return
            for name in self.specs:
                self._prepare_and_check(name, workload, own_rows, expected)
        for number in range(self.settings.rounds):
            self.say(stage, f"round {number + 1} of {self.settings.rounds}")
            names = list(self.specs)
            names = names[number % len(names) :] + names[: number % len(names)]
            for row in own_rows.values():
                for name in names:
                    self._take_turn(name, row, own_rows)

    def _write_expected(self, workload: Workload, folder: str) -> str:
        """Let the reference write what is expected; tell why it could not."""
        worker = self._worker(REFERENCE.name)
        if worker is None:
            return "the reference, xpconv on numpy in float64, is lost"
        try:
            for request in ({"do": "prepare", "workload": workload.id}, {"do": "expect", "folder": folder}):
                answer = worker.ask(TIMEOUT_SECONDS, **request)
                if "failed" in answer:
                    return f"the reference, xpconv on numpy in float64, failed: {answer['failed']}"
        except WorkerError as error:
            self._lost(REFERENCE.name, error, [])
            return f"the reference, xpconv on numpy in float64, {error.kind}: {error}"
        return ""

    def _prepare_and_check(self, name: str, workload: Workload, rows: dict[str, Row], expected: str) -> None:
        worker = self._worker(name)
        if worker is None:
            if self.process_failures.get(name):
                for row in rows.values():
                    row.outcomes[name] = Outcome(failure="died", reason="its process was lost too often to be started again")
            return
        remaining = list(rows)
        try:
            prepared = worker.ask(self.settings.timeout, do="prepare", workload=workload.id)
            if "failed" in prepared:
                for operation in remaining:
                    rows[operation].outcomes[name] = Outcome(failure="failed", reason=prepared["failed"])
                return
            remaining = [operation for operation in remaining if operation in prepared["operations"]]
            while remaining:
                operation = remaining[0]
                outcome = rows[operation].outcomes[name] = Outcome()
                answer = worker.ask(self.settings.timeout, do="check", operation=operation, folder=expected)
                outcome.error = answer.get("error")
                if "failed" in answer:
                    outcome.fail("failed", answer["failed"])
                elif "wrong" in answer:
                    outcome.fail("wrong", answer["wrong"])
                # Written so that NaN is wrong, too.
                elif not answer["error"] <= workload.tolerance:
                    outcome.fail(
                        "wrong",
                        f"{answer['where']} is off by {answer['error']:.1e} of its largest value, "
                        f"{workload.tolerance:.0e} is tolerated",
                    )
                remaining.pop(0)
        except WorkerError as error:
            self._lost(name, error, [rows[operation] for operation in remaining])

    def _take_turn(self, name: str, row: Row, rows: dict[str, Row]) -> None:
        outcome = row.outcomes.get(name)
        worker = self.workers.get(name)
        if outcome is None or outcome.failure is not None or worker is None:
            return
        best: Measurement | None = None
        for _ in range(MOST_TRIES):
            time.sleep(SETTLE_SECONDS)
            processes = self._processes()
            self.patience.wait(processes)
            before = sample(processes)
            try:
                answer = worker.ask(self.settings.timeout, do="time", operation=row.operation, seconds=self.settings.seconds)
            except WorkerError as error:
                untimed = [other for other in rows.values() if name in other.outcomes and not other.outcomes[name].rounds]
                self._lost(name, error, [row, *untimed])
                return
            if "failed" in answer:
                outcome.fail("failed", answer["failed"])
                return
            calls = answer["milliseconds"]
            others = cores_used_by_others(before, sample(processes))
            turn = Measurement(statistics.median(calls), min(calls), len(calls), others)
            if best is None or (others or 0.0) < (best.other_cores or 0.0):
                best = turn
            if others is None or others <= DISTURBED_CORES or self.patience.left <= 0:
                break
            self.patience.left -= self.settings.seconds
        assert best is not None
        outcome.rounds.append(best)

    def _worker(self, name: str) -> Worker | None:
        """The peer's worker, started anew where it was lost in an earlier workload."""
        if name not in self.workers and 0 < self.process_failures.get(name, 0) < MOST_FAILURES:
            spec = self.specs.get(name, REFERENCE)
            self._start(spec)
            if self._greet(spec).skipped:
                self.process_failures[name] = MOST_FAILURES
        return self.workers.get(name)

    def _lost(self, name: str, error: WorkerError, rows: list[Row]) -> None:
        """Note a process that is gone, in the operations where that has to be told."""
        self._give_up(name)
        self.process_failures[name] = self.process_failures.get(name, 0) + 1
        for row in rows:
            outcome = row.outcomes.setdefault(name, Outcome())
            if outcome.failure is None:
                outcome.fail(error.kind, str(error))
