"""Workers: processes that compute for the benchmark, each with one peer, and that may die or hang without ending the run."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import xpconv
from xpconv.bench.peers import PeerSpec

# They make NumPy's BLAS run kernels for another processor than this one.
REMOVED_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


POLL_SECONDS = 0.5


class WorkerError(Exception):
    """A worker gave no answer; the text tells what became of it.

    Attributes:
        kind: ``"died"`` or ``"hung"``.
    """

    def __init__(self, kind: Literal["died", "hung"], message: str) -> None:
        super().__init__(message)
        self.kind: Literal["died", "hung"] = kind


class Worker:
    """A process with one peer.

    Args:
        spec: The peer.
        threads: Number of threads it computes with.
        folder: Directory for its files: what it prints, and the link that lets another Python import xpconv alone.
        python: Another Python to run it with, or None for this one.
        cards: Whether it sees the cards of this machine.
    """

    def __init__(self, spec: PeerSpec, threads: int, folder: Path, python: str | None = None, *, cards: bool = False) -> None:
        self._printed = folder / f"{spec.name.replace(':', '-')}.log"
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, in the Python that the user named
                [python or sys.executable, "-m", "xpconv.bench.worker", spec.module, spec.variant, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env=_environment(threads, folder, python, cards=cards),
                start_new_session=True,  # Ctrl-C is for the runner, which ends them all
            )
        assert self._process.stdout is not None
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    @property
    def id(self) -> int:
        """Id of the process."""
        return self._process.pid

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer; without a request, wait for what the worker says at its start.

        Raises:
            WorkerError: It died, or did not answer within ``timeout`` seconds. It is gone then.
        """
        if request:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # it is dead: told below
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
        line = self._next_answer(timeout)
        if line is None:
            reason = self._how_it_ended()
            self.stop()
            raise WorkerError("died", reason)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process, and those that it started, at once."""
        with contextlib.suppress(OSError):  # there may be none left
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what it was not told
            self._process.stdin.close()

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                self._answers.put(line)
        self._answers.put(None)

    def _next_answer(self, timeout: float) -> bytes | None:
        """The next line; None where none will come any more, which a child of the dead may keep from being seen."""
        end = time.monotonic() + timeout
        while True:
            try:
                return self._answers.get(timeout=min(POLL_SECONDS, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if self._process.poll() is not None:
                    return None if self._answers.empty() else self._answers.get()
                if time.monotonic() >= end:
                    self.stop()
                    raise WorkerError("hung", f"no answer within {timeout:g} seconds") from None

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):  # a signal without a name
                how = signal.Signals(-code).name
        printed = self._printed.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line.strip() for line in printed if line.strip()]
        telling = [line for line in lines if re.search(r"error|exception|check failed|fatal", line, re.IGNORECASE)]
        return ": ".join([how, *(telling or lines)[-1:]])


def _environment(threads: int, folder: Path, python: str | None, *, cards: bool = False) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    if not cards:  # some libraries compute on one without being asked
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment["PYTHONSAFEPATH"] = "1"  # a file numpy.py in the working directory is not NumPy
    if python is None:
        paths = [str(_package().parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    else:
        environment["PYTHONPATH"] = str(_package_alone(folder))
        environment.pop("PYTHONHOME", None)
    return environment


def _package() -> Path:
    return Path(xpconv.__file__).resolve().parent


def _package_alone(folder: Path) -> Path:
    """A directory that holds xpconv and nothing else: what lies beside it was installed for another Python."""
    alone = folder / "path"
    link = alone / "xpconv"
    if not link.exists():
        alone.mkdir(exist_ok=True)
        try:
            link.symlink_to(_package(), target_is_directory=True)
        except OSError:  # Windows allows it to some only
            shutil.copytree(_package(), link)
    return alone


@contextlib.contextmanager
def stopping(workers: dict[str, Worker]) -> Iterator[dict[str, Worker]]:
    """End all workers of a dictionary at the end of the block, those too that were added in it."""
    try:
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()
