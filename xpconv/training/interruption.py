"""Ctrl-C as a request to stop at a good place."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """While it is entered, the first Ctrl-C (SIGINT) is noted only; a second one raises KeyboardInterrupt at once.

    Python delivers signals to the main thread; elsewhere, and where SIGINT is ignored (a job in the background), it does
    nothing. The handler that was there before is put back on leaving, however that happens.

    Attributes:
        requested: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if previous not in (None, signal.SIG_IGN):  # None: set by a host program in C, not to be put back from here
                self._previous = previous
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._restore()  # here, not only on leaving: the exception may strike before the with statement's end is reached
            raise KeyboardInterrupt
        self.requested = True

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
