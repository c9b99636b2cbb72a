"""Plants faults in the CUDA sources, one at a time, and counts how many the checker or the reference notices.

    python tests/mutation/mutate.py                    all mutants of all kernels
    python tests/mutation/mutate.py pool2d.cu tile.cuh those of some files
    python tests/mutation/mutate.py --sample 200       some of all, chosen by --seed

A mutant that nothing notices is either a gap in the tests, or no fault at all: it is then listed in equivalent.toml with the
reason. An entry there that is noticed, or no longer exists, is an error, too: the list cannot rot.

Each mutant runs in a process of its own, which ends at a time limit: a loop without end and a crash count as noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import gc
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import oracle  # noqa: E402 - beside this file
from mutation_cases import all_cases  # noqa: E402

from xpconv import cudasim  # noqa: E402
from xpconv.kernels import cuda  # noqa: E402
from xpconv.kernels.cuda import runtime  # noqa: E402
from xpconv.kernels.cuda.source import source_of  # noqa: E402
from xpconv.kernels.numpy.threads import usable_cores  # noqa: E402
from xpconv.sanitizer import mutation  # noqa: E402
from xpconv.sanitizer.cases import Case  # noqa: E402
from xpconv.sanitizer.checks import CARDS, checked_runtime, differences  # noqa: E402
from xpconv.sanitizer.readme import check, table, update  # noqa: E402

EQUIVALENT = HERE / "equivalent.toml"
# Seconds of processor time that a case gets, beyond this many times what it takes the sound kernels.
GRACE, PATIENCE = 0.5, 10
# Mutants that are tried in one process.
BATCH = 25

Place = tuple[str, str, str, int]  # what tells a mutant from all others: file, line of text, change, occurrence


def place_of(mutant: mutation.Mutant) -> Place:
    return mutant.file, mutant.text, mutant.change, mutant.occurrence


@dataclass
class Source:
    """A ``.cu`` file with its mutants, compiled."""

    file: str
    names: list[str]
    register: mutation.Register = field(default_factory=mutation.Register)
    module: Any = None

    def compile(self) -> None:
        text = mutation.with_mutants(source_of(self.file), self.register)
        self.module = cudasim.Module(
            code=mutation.prelude(self.register) + text,
            options=runtime.OPTIONS,
            name_expressions=(*self.names, *mutation.SELECTORS),
            mode="check",
            filename=self.file,
        )
        for name in (*self.names, *mutation.SELECTORS):
            self.module.get_function(name)

    @property
    def count(self) -> int:
        return len(self.register.mutants)


@dataclass
class Tried:
    """What became of a mutant: ``how`` it was noticed, or None."""

    mutant: mutation.Mutant
    how: str | None
    case: str = ""


@dataclass
class Outcome:
    """What a run found."""

    tried: list[Tried]
    not_reached: list[mutation.Mutant]
    problems: list[str]
    seconds: float
    compile_seconds: float

    @property
    def survivors(self) -> list[mutation.Mutant]:
        return [tried.mutant for tried in self.tried if tried.how is None] + self.not_reached

    @property
    def caught(self) -> int:
        return sum(tried.how is not None for tried in self.tried)


class Trial:
    """The cases, what they must give, and which mutants each of them comes by."""

    def __init__(self, cases: Sequence[Case], say: Callable[[str], None] = lambda text: None) -> None:
        self.cases = cases
        self.seconds = [0.0] * len(cases)  # of processor time that the sound kernels take
        self.noticed: dict[int, int] = {}  # cases that noticed a mutant; the larger the number the later
        self.expected = [oracle.expected(case) for case in cases]
        names: dict[str, set[str]] = {}
        with runtime.planning(*CARDS[0]) as launches:
            for case in cases:
                case.compute(cuda)
        for launch in launches:
            names.setdefault(launch.file, set()).add(launch.name)
        self.sources = {file: Source(file, sorted(of_file)) for file, of_file in sorted(names.items())}
        start = time.perf_counter()
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(Source.compile, self.sources.values()))
        self.compile_seconds = time.perf_counter() - start
        say(f"{len(cases)} cases, {sum(map(len, names.values()))} kernels compiled in {self.compile_seconds:.0f} s")
        kernels = {
            (file, name): source.module.get_function(name) for file, source in self.sources.items() for name in source.names
        }
        self.runtime = checked_runtime(CARDS[0], kernels)

    def mutants(self) -> dict[Place, tuple[mutation.Mutant, dict[str, int]]]:
        """Every mutant, and its number in each source that includes it."""
        found: dict[Place, tuple[mutation.Mutant, dict[str, int]]] = {}
        for file, source in self.sources.items():
            for mutant in source.register.mutants:
                found.setdefault(place_of(mutant), (mutant, {}))[1][file] = mutant.number
        return found

    def complaint(self, number: int) -> str:
        """What is wrong with the results of a case; empty where nothing is."""
        case = self.cases[number]
        try:
            with runtime.computed_by(self.runtime):
                results = case.compute(cuda)
        except cudasim.KernelError as error:
            return str(error) or type(error).__name__
        except Exception as error:  # what a mutant leaves behind may be more than the host code can bear
            return f"{type(error).__name__}: {error}"
        return "; ".join(differences(results, self.expected[number], case.dtype))

    def survey(self) -> list[tuple[float, str, dict[str, set[int]]]]:
        """Of each case of the sound kernels: processor time, complaint, and the mutants of each source on its way."""
        surveyed = []
        for number in range(len(self.cases)):
            for source in self.sources.values():
                mutation.watch(source.module, source.count)
            start = time.process_time()
            complaint = self.complaint(number)
            seconds = time.process_time() - start
            reached = {file: mutation.reached(source.module, source.count) for file, source in self.sources.items()}
            surveyed.append((seconds, complaint, reached))
        return surveyed

    def attempt(self, numbers: dict[str, int], cases: Sequence[int]) -> tuple[str | None, str]:
        """Wake a mutant, and compute cases until one complains: how it was noticed and by which case."""
        for file, number in numbers.items():
            mutation.select(self.sources[file].module, number, self.sources[file].count)
        try:
            # What noticed the mutants just before, its neighbours, is likely to notice this one.
            for case in sorted(cases, key=lambda case: -self.noticed.get(case, -1)):
                signal.setitimer(signal.ITIMER_PROF, GRACE + PATIENCE * self.seconds[case])
                if complaint := self.complaint(case):
                    self.noticed[case] = len(self.noticed) and max(self.noticed.values()) + 1
                    return complaint, str(self.cases[case])
            return None, ""
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            for file in numbers:
                mutation.select(self.sources[file].module, None, self.sources[file].count)


@dataclass
class Job:
    """A mutant to try: its number in each source that includes it, and the cases on whose way it is."""

    mutant: mutation.Mutant
    numbers: dict[str, int]
    cases: list[int]


_forking = threading.Lock()


class Child:
    """A process that does work one piece after the other, until it is done or a piece of work ends it.

    It ends early after work that left a mark on standard error, for memory may be damaged then.

    Args:
        work: Functions to call.
    """

    def __init__(self, work: Sequence[Callable[[], Any]]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        with _forking:  # no other child inherits the end of the pipe that tells by closing that this one has ended
            reading, writing = os.pipe()
            self.id = os.fork()
            if self.id:
                os.close(writing)
        if self.id:
            self._pipe = os.fdopen(reading, "rb")
            return
        os.close(reading)
        faulthandler.disable()  # that of pytest would tell of every crash
        os.dup2(self._errors.fileno(), 2)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with os.fdopen(writing, "wb") as pipe:
            for function in work:
                try:
                    result = function()
                except BaseException as error:
                    os.write(2, f"{type(error).__name__}: {error}".encode())
                    os._exit(1)
                pickle.dump(result, pipe)
                pipe.flush()
                if os.fstat(2).st_size:
                    os._exit(0)
        os._exit(0)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._errors.close()

    def results(self) -> Iterator[Any]:
        """What came of each piece of work, as far as the process got."""
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                yield pickle.load(self._pipe)

    def trouble(self) -> str:
        """How the process ended; empty where it did all its work and had nothing to say."""
        _, status = os.waitpid(self.id, 0)
        self.died = status != 0
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return "a loop without end" if number == signal.SIGPROF else f"crash: {signal.Signals(number).name}"
        self._errors.seek(0)
        told = self._errors.read().decode(errors="replace").strip()
        return told or (f"exit status {status}" if status else "")


def try_jobs(trial: Trial, jobs: Sequence[Job], tried: Callable[[Tried], None]) -> None:
    """Try mutants in child processes, as many in one as go well: each ends with the first that crashes or never ends."""
    done = 0
    while done < len(jobs):
        part = jobs[done : done + BATCH]
        work = [functools.partial(trial.attempt, job.numbers, job.cases) for job in part]
        # Last of all the kernels as they are: where they fail now, a mutant has left damage that outlived it.
        work.append(functools.partial(trial.attempt, {}, part[-1].cases[:5]))
        with Child(work) as child:
            results = list(child.results())
            trouble = child.trouble()
        outcomes = list(zip(part, results, strict=False))
        if trouble and len(results) < len(part) + (not child.died):
            # A process that died did so before there was a result of its work; else its last work left a mark.
            job = part[len(outcomes)] if child.died else outcomes.pop()[0]
            outcomes.append((job, (trouble, "")))
        elif len(results) < len(work) or results[-1][0] is not None:
            if len(part) > 1:
                for job in part:
                    try_jobs(trial, [job], tried)
                done += len(part)
                continue
            outcomes = [(part[0], ("what it leaves behind makes the sound kernels fail", ""))]
        for job, (how, case) in outcomes:
            tried(Tried(job.mutant, how, case))
        done += len(outcomes)


def run(
    files: Sequence[str] = (),
    sample: int | None = None,
    seed: str = "",
    say: Callable[[str], None] = print,
    cases: Sequence[Case] | None = None,
) -> Outcome:
    """Try the mutants.

    Args:
        files: Only the mutants of these files; empty takes all.
        sample: Only this many of them, chosen by ``seed``.
        seed: Any text, such as the name of a commit.
        say: Told where the run is.
        cases: Only these cases, and the mutants that they come by.
    """
    start = time.perf_counter()
    trial = Trial(all_cases() if cases is None else cases, say)
    with Child([trial.survey]) as child:
        (survey,) = list(child.results()) or [None]
        trouble = child.trouble()
    if survey is None or trouble:
        raise RuntimeError(f"the sound kernels do not pass: {trouble}")
    problems = [f"the sound kernels: {text} ({case})" for case, (_, text, _) in zip(trial.cases, survey, strict=True) if text]
    sound = [number for number, (_, text, _) in enumerate(survey) if not text]

    trial.seconds = [seconds for seconds, _, _ in survey]

    jobs, not_reached = [], []
    for mutant, numbers in trial.mutants().values():
        if files and mutant.file not in files:
            continue
        on_way = [case for case in sound if any(number in survey[case][2][file] for file, number in numbers.items())]
        on_way.sort(key=lambda case: survey[case][0])
        if on_way:
            jobs.append(Job(mutant, numbers, on_way))
        elif cases is None:
            not_reached.append(mutant)
    if sample is not None:
        jobs = random.Random(seed).sample(jobs, min(sample, len(jobs)))
    say(f"{len(jobs)} mutants to try, {len(not_reached)} that no case comes by")

    tried: list[Tried] = []
    excuses = excused()

    def note(result: Tried) -> None:
        tried.append(result)
        if result.how is None and place_of(result.mutant) not in excuses:
            say(f"not noticed: {result.mutant}")
        if len(tried) % 200 == 0:
            say(f"{len(tried)} of {len(jobs)}")

    gc.freeze()
    share = iter([jobs[i : i + BATCH] for i in range(0, len(jobs), BATCH)])
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(lambda part: try_jobs(trial, part, note), share):
            pass
    gc.unfreeze()
    return Outcome(tried, not_reached, problems, time.perf_counter() - start, trial.compile_seconds)


def excused() -> dict[Place, str]:
    """The mutants that are no faults, with the reason: entries of equivalent.toml."""
    if not EQUIVALENT.exists():
        return {}
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("mutant", [])
    return {(entry["file"], entry["line"], entry["change"], entry.get("occurrence", 1)): entry["reason"] for entry in entries}


def judge(outcome: Outcome, files: Sequence[str] = (), *, whole: bool) -> list[str]:
    """All that speaks against the tests: mutants that are neither noticed nor excused, and excuses that do not hold."""
    excuses = excused()
    survivors = {place_of(mutant): mutant for mutant in outcome.survivors}
    told = outcome.problems + [f"not noticed: {mutant}" for place, mutant in survivors.items() if place not in excuses]
    caught = {place_of(tried.mutant) for tried in outcome.tried if tried.how is not None}
    told += [f"equivalent.toml: is noticed: {place}" for place in excuses if place in caught]
    if whole:
        known = caught | set(survivors)
        told += [
            f"equivalent.toml: no such mutant: {place}"
            for place in excuses
            if place not in known and (not files or place[0] in files)
        ]
    return told


def score_by_file(outcome: Outcome) -> dict[str, tuple[int, int, int]]:
    """Mutants of each file: all, noticed, excused."""
    excuses, scores = excused(), {}
    for mutant, noticed in [
        *((tried.mutant, tried.how is not None) for tried in outcome.tried),
        *((mutant, False) for mutant in outcome.not_reached),
    ]:
        total, caught, equivalent = scores.get(mutant.file, (0, 0, 0))
        is_excused = not noticed and place_of(mutant) in excuses
        scores[mutant.file] = total + 1, caught + noticed, equivalent + is_excused
    return dict(sorted(scores.items()))


def as_entry(mutant: mutation.Mutant) -> str:
    """A mutant as an entry of equivalent.toml that only wants its reason."""
    lines = ["[[mutant]]", f"file = {json.dumps(mutant.file)}", f"line = {json.dumps(mutant.text)}"]
    lines.append(f"change = {json.dumps(mutant.change)}")
    if mutant.occurrence > 1:
        lines.append(f"occurrence = {mutant.occurrence}")
    return "\n".join([*lines, 'reason = ""', ""])


def markdown(outcome: Outcome) -> str:
    """The score as a Markdown table."""
    scores = score_by_file(outcome)
    totals = [sum(column) for column in zip(*scores.values(), strict=True)]
    rows = [
        [file, str(total), str(caught), str(equivalent), str(total - caught - equivalent)]
        for file, (total, caught, equivalent) in [*scores.items(), ("all", tuple(totals))]
    ]
    return "\n".join([*table(["file", "mutants", "noticed", "no faults", "open"], rows, text_columns=1), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="only the mutants of these files")
    parser.add_argument("--sample", type=int, metavar="N", help="try only N mutants")
    parser.add_argument("--seed", default="", help="any text: which ones a sample takes")
    parser.add_argument("--verbose", action="store_true", help="tell how each mutant was noticed")
    parser.add_argument("--entries", action="store_true", help="print survivors as entries of equivalent.toml")
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="put the score between <!-- mutants --> and <!-- /mutants -->"
    )
    options = parser.parse_args()
    if options.readme:
        check(options.readme, "mutants")
    outcome = run(options.files, options.sample, options.seed)
    if options.verbose:
        for tried in outcome.tried:
            if tried.how is not None:
                print(f"{tried.mutant}\n    {' '.join(tried.how.split())[:160]} ({tried.case})")
    if options.readme:
        update(options.readme, markdown(outcome), "mutants")
    complaints = judge(outcome, options.files, whole=options.sample is None)
    for text in complaints:
        print(text)
    if options.entries:
        excuses = excused()
        for mutant in sorted(outcome.survivors, key=lambda mutant: (mutant.file, mutant.line)):
            if place_of(mutant) not in excuses:
                print(f"# line {mutant.line}\n{as_entry(mutant)}")
    for file, (total, caught, equivalent) in score_by_file(outcome).items():
        print(
            f"{file:24} {total:5} mutants  {caught:5} noticed  {equivalent:4} no faults  {total - caught - equivalent:4} open"
        )
    total = len(outcome.tried) + len(outcome.not_reached)
    print(f"{outcome.caught} of {total} mutants noticed in {outcome.seconds:.0f} s ({outcome.compile_seconds:.0f} s compiling)")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
