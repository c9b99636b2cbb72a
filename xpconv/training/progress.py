"""What is shown while a network trains: a live bar in a terminal, one plain line an epoch in a file or a pipe."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpconv.training.trainer import Trainer

REFRESH_SECONDS = 0.1


class Progress:
    """What a :class:`~xpconv.Trainer` tells while it runs; does nothing, and is the base of what shows or records it.

    Derive from it to be called, and pass an object of that class as ``progress=``. The trainer's attributes hold what
    there is to tell: ``history``, ``epoch``, ``steps_done``, ``mean_loss`` and so on.

    Example:
        >>> import xpconv as xc
        >>> from xpconv.training import Progress
        >>> class Losses(Progress):
        ...     def __init__(self):
        ...         self.losses = []
        ...     def step_finished(self, trainer, loss):
        ...         self.losses.append(loss)
        >>> (x, t), _ = xc.datasets.load_mnist()
        >>> losses = Losses()
        >>> net = xc.SimpleConvNet(conv_param={"filter_num": 2}, hidden_size=10, device="numpy")
        >>> _ = xc.Trainer(net, (x[:200], t[:200]), epochs=1, progress=losses).run()
        >>> len(losses.losses)
        2
    """

    def run_started(self, trainer: Trainer) -> None:
        """A run begins, or goes on."""

    def step_finished(self, trainer: Trainer, loss: float) -> None:
        """One more update was made, from a batch with this loss.

        On a card ``loss`` is an array without axes, and neither it nor the step need be computed yet: ``float(loss)`` waits for
        them, and so does reading ``trainer.mean_loss``. What is shown ten times a second should not be read at every step.
        """

    def evaluation_started(self, trainer: Trainer) -> None:
        """All updates of an epoch are made, its evaluation begins."""

    def epoch_finished(self, trainer: Trainer) -> None:
        """An epoch is over: ``trainer.history`` has its row."""

    def run_finished(self, trainer: Trainer) -> None:
        """The run is over, whether all epochs are done, it was interrupted, or an error ended it."""


class Lines(Progress):
    """One plain line an epoch on standard output."""

    def epoch_finished(self, trainer: Trainer) -> None:
        """Print the epoch's line."""
        print(epoch_line(trainer), flush=True)

    def run_finished(self, trainer: Trainer) -> None:
        """Tell where an interrupted run stopped."""
        if trainer.interrupted:
            print(interruption_line(trainer), flush=True)


class LiveBar(Progress):
    """A bar for the epoch that is under way, below the lines of those that are finished."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._next_refresh = 0.0

    def run_started(self, trainer: Trainer) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        def text(field: str) -> TextColumn:
            return TextColumn(f"{{task.fields[{field}]}}", markup=False, table_column=Column(no_wrap=True))

        # No thread of its own to refresh it: training needs the cores, and it is redrawn between two steps.
        self._bar = RichProgress(
            text("epoch"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            text("numbers"),
            console=Console(file=sys.stdout),
            auto_refresh=False,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=trainer.steps_per_epoch, epoch="", numbers="")
        self._show(trainer, "")

    def step_finished(self, trainer: Trainer, loss: float) -> None:
        """Redraw the bar, unless that was done a moment ago."""
        if time.monotonic() >= self._next_refresh:
            self._show(trainer, f"loss {trainer.mean_loss:.4f}  {trainer.images_per_second:,.0f} images/s")

    def evaluation_started(self, trainer: Trainer) -> None:
        """Say so."""
        self._show(trainer, f"loss {trainer.mean_loss:.4f}  evaluating")

    def epoch_finished(self, trainer: Trainer) -> None:
        """Print the epoch's line above the bar."""
        self._print(epoch_line(trainer))

    def run_finished(self, trainer: Trainer) -> None:
        """Take the bar away."""
        if trainer.interrupted:
            self._print(interruption_line(trainer))
        self._bar.stop()

    def _show(self, trainer: Trainer, numbers: str) -> None:
        epoch = f"epoch {min(trainer.epoch + 1, trainer.epochs):{len(str(trainer.epochs))}}/{trainer.epochs}"
        self._bar.update(self._task, completed=trainer.steps_done, epoch=epoch, numbers=numbers)
        self._bar.refresh()
        self._next_refresh = time.monotonic() + REFRESH_SECONDS

    def _print(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def choose_progress(progress: bool | Progress) -> Progress:
    """Turn the argument ``progress`` of a trainer into the object that it tells.

    Raises:
        TypeError: Neither a bool nor a :class:`Progress`.
    """
    if isinstance(progress, Progress):
        return progress
    if not isinstance(progress, bool):
        raise TypeError(f"Trainer: progress must be True, False or a Progress, got {progress!r}")
    if not progress:
        return Progress()
    return LiveBar() if is_live_terminal() else Lines()


def epoch_line(trainer: Trainer) -> str:
    """The last finished epoch in one line, ASCII alone: it may go to a file of any encoding."""
    row = {name: column[-1] for name, column in trainer.history.items()}
    parts = [
        f"epoch {row['epoch']:{len(str(trainer.epochs))}}/{trainer.epochs}",
        f"loss {row['loss']:.4f}",
        f"train accuracy {percent(row['train_accuracy'])}",
    ]
    if row["test_accuracy"] is not None:
        parts.append(f"test accuracy {percent(row['test_accuracy'])}")
    return "  ".join([*parts, f"{row['images_per_second']:,.0f} images/s"])


def interruption_line(trainer: Trainer) -> str:
    """Where an interrupted run stopped."""
    return (
        f"interrupted after {trainer.epoch} of {trainer.epochs} epochs"
        + (f" and {trainer.steps_done} of {trainer.steps_per_epoch} steps" if trainer.steps_done else "")
        + "; what was learnt is kept"
    )


def percent(share: float) -> str:
    """A share of one as per cent, with one decimal: 0.971 is ``97.1 %``."""
    return f"{100 * share:.1f} %"


def is_live_terminal() -> bool:
    """Whether standard output is a terminal that lines can be redrawn in."""
    # sys.stdout is None where a program has no console (pythonw).
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
