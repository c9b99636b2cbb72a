"""Would the tests notice a fault in a kernel? A sample of the mutants: ``python tests/mutation/mutate.py`` tries all."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterator
from typing import Any

import mutation_cases
import pytest

from xpconv import cudasim
from xpconv.kernels.cuda.source import source_of
from xpconv.sanitizer.checks import kernel_templates
from xpconv.sanitizer.mutation import Mutant

pytestmark = [
    pytest.mark.skipif(not cudasim.status().available, reason=f"no simulator: {cudasim.status().reason}"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
]

# How many mutants to try; the same ones until a source changes.
SAMPLE = 30


@pytest.fixture(scope="module")
def mutate() -> Any:
    import mutate

    return mutate


@pytest.fixture
def quiet_fork() -> Iterator[None]:
    """Without the warning of Python 3.12 that threads are not there in a forked child: those of BLAS compute nothing here."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.usefixtures("quiet_fork")
@pytest.mark.parametrize("family", [mutation_cases.elementwise], ids=lambda family: family.__name__)
def test_a_sample_of_the_mutants_is_noticed(family: Any, mutate: Any) -> None:
    seed = hashlib.sha256()
    for file, _ in kernel_templates():
        seed.update(source_of(file).encode())
    outcome = mutate.run(sample=SAMPLE, seed=seed.hexdigest(), cases=list(family()))
    assert outcome.problems == []
    assert len(outcome.tried) == SAMPLE
    assert mutate.judge(outcome, whole=False) == []


def test_every_excuse_has_a_reason_and_is_told_once(mutate: Any) -> None:
    entries = tomllib.loads(mutate.EQUIVALENT.read_text(encoding="utf-8"))["mutant"]
    assert len(mutate.excused()) == len(entries)
    assert all(len(entry["reason"].split()) >= 3 for entry in entries)


def outcome_of(mutate: Any, noticed: str | None) -> Any:
    mutant = Mutant(0, "a.cu", 7, "x = y + 1;", "+ becomes -", 1)
    return mutate.Outcome([mutate.Tried(mutant, noticed)], [], [], 1.0, 0.0)


def test_a_mutant_that_nothing_notices_is_told_unless_it_is_excused(mutate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = ("a.cu", "x = y + 1;", "+ becomes -", 1)
    monkeypatch.setattr(mutate, "excused", dict)
    assert mutate.judge(outcome_of(mutate, None), whole=True) == ["not noticed: a.cu:7: + becomes -: x = y + 1;"]
    assert mutate.judge(outcome_of(mutate, "race"), whole=True) == []
    monkeypatch.setattr(mutate, "excused", lambda: {place: "1 is 0 here"})
    assert mutate.judge(outcome_of(mutate, None), whole=True) == []
    assert mutate.score_by_file(outcome_of(mutate, None)) == {"a.cu": (1, 0, 1)}


def test_an_excuse_that_does_not_hold_is_told(mutate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, gone = ("a.cu", "x = y + 1;", "+ becomes -", 1), ("a.cu", "gone", "+ becomes -", 1)
    monkeypatch.setattr(mutate, "excused", lambda: {place: "a reason", gone: "a reason"})
    told = mutate.judge(outcome_of(mutate, "race"), whole=True)
    assert told == [f"equivalent.toml: is noticed: {place}", f"equivalent.toml: no such mutant: {gone}"]
    assert mutate.judge(outcome_of(mutate, "race"), ["b.cu"], whole=True) == told[:1]


@pytest.mark.usefixtures("quiet_fork")
def test_how_a_child_ends_is_told(mutate: Any) -> None:
    import signal
    import sys

    def spin() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.05)
        while True:
            pass

    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def say() -> str:
        os.write(2, b"memory is damaged")
        return "said"

    def stop() -> None:
        sys.exit(3)

    for work, results, trouble in (
        ([lambda: 1, lambda: 2], [1, 2], ""),
        ([lambda: 1, spin, lambda: 2], [1], "a loop without end"),
        ([crash, lambda: 2], [], "crash: SIGSEGV"),
        ([say, lambda: 2], ["said"], "memory is damaged"),
        ([lambda: 1, stop], [1], "SystemExit: 3"),
    ):
        with mutate.Child(work) as child:
            assert list(child.results()) == results
            assert child.trouble() == trouble
