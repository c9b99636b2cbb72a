"""What other processes do meanwhile, and waiting for them to stop. Linux tells it in ``/proc``; elsewhere nothing is known."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

QUIET_CORES = 0.1  # what others may use while the machine counts as quiet, in cores
WINDOW_SECONDS = 0.1  # looked at to find out; the system counts in hundredths of a second
LONGEST_WAIT = 5.0  # at once, so that a machine that is never quiet doesn't hold everything up at its start
PROC = Path("/proc")


@dataclass(frozen=True)
class Sample:
    """Time that processes have taken so far, in seconds.

    Attributes:
        at: When this was.
        busy: Seconds that the usable cores have been busy, or taken away by the host of a virtual machine.
        ours: Seconds that our own processes have taken.
    """

    at: float
    busy: float
    ours: float


def sample(processes: Iterable[int]) -> Sample | None:
    """Look at what has been used so far.

    Args:
        processes: Ids of our own processes.

    Returns:
        A sample to compare with a later one, or None where the system doesn't tell.

    Example:
        >>> import os
        >>> from xpconv.bench.quiet import cores_used_by_others, sample
        >>> before, after = sample([os.getpid()]), sample([os.getpid()])
        >>> used = cores_used_by_others(before, after)
        >>> used is None or used >= 0
        True
    """
    try:
        text = (PROC / "stat").read_text(encoding="ascii")
        usable = os.sched_getaffinity(0)
        ticks_per_second = os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return None
    busy = 0
    for core, numbers in re.findall(r"^cpu(\d+) (.*)$", text, re.MULTILINE):
        if int(core) in usable:
            user, nice, system, _idle, _waiting, *rest = map(int, numbers.split())
            busy += user + nice + system + sum(rest[:3])  # interrupts, and what the host took
    ours = sum(map(_ticks_of, processes))
    return Sample(time.monotonic(), busy / ticks_per_second, ours / ticks_per_second)


def cores_used_by_others(before: Sample | None, after: Sample | None) -> float | None:
    """How many cores all processes but our own kept busy between two samples.

    Returns:
        A number of cores, 0 at least; None where it isn't known.

    Example:
        >>> from xpconv.bench.quiet import Sample, cores_used_by_others
        >>> cores_used_by_others(Sample(at=10, busy=50, ours=20), Sample(at=12, busy=53, ours=22))
        0.5
    """
    if before is None or after is None or after.at <= before.at:
        return None
    return max(0.0, (after.busy - before.busy - (after.ours - before.ours)) / (after.at - before.at))


class Patience:
    """Waits for the machine to be quiet, but for a limited time in all.

    Args:
        seconds: How long to wait, all waits taken together. 0 never waits.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def wait(self, processes: Iterable[int]) -> None:
        """Wait until other processes use next to nothing, or for some seconds, or until patience is at an end."""
        processes = list(processes)
        end = max(0.0, self.left - LONGEST_WAIT)
        while self.left > end:
            before = sample(processes)
            if before is None:
                return
            time.sleep(WINDOW_SECONDS)
            others = cores_used_by_others(before, sample(processes))
            if others is None or others <= QUIET_CORES:
                return
            self.left -= WINDOW_SECONDS


def _ticks_of(process: int) -> int:
    try:
        # The name, in parentheses, may hold anything; user and system time are the 12th and 13th number behind it.
        fields = (PROC / str(process) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, IndexError):
        return 0  # it has ended
