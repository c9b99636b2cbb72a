"""Tiles chosen by measuring them on the card: only where there is one, and only where ``XPCONV_CUDA_AUTOTUNE=1`` asks for it.

:func:`~xpconv.kernels.cuda.tiles.choose_tile` counts instructions. Here the best of its candidates run a few times each, once
for each problem and kind of card; what was fastest is kept as JSON in the cache directory of the user, or in the directory that
``XPCONV_CUDA_AUTOTUNE_CACHE`` names. Another choice changes the order in which numbers are added up where blocks share a tile,
and so the last bits of results: between machines, never between runs of one machine with one cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import statistics
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from xpconv.kernels.cuda.runtime import Runtime
from xpconv.kernels.cuda.source import source_of
from xpconv.kernels.cuda.tiles import TileShape, environment_flag

ENVIRONMENT_VARIABLE = "XPCONV_CUDA_AUTOTUNE"
CACHE_VARIABLE = "XPCONV_CUDA_AUTOTUNE_CACHE"
# Candidates that are measured, and how often each is.
CANDIDATES = 6
RUNS = 5

_lock = threading.Lock()


def is_wanted(runtime: Runtime) -> bool:
    """Whether tiles are to be measured: the user asked for it, and there is a card to measure them on."""
    return runtime.name.startswith("cuda:") and environment_flag(ENVIRONMENT_VARIABLE)


def fastest_tile(
    runtime: Runtime, file: str, problem: str, candidates: Sequence[TileShape], run: Callable[[TileShape], None]
) -> TileShape:
    """The fastest of the candidates, measured now or remembered.

    Args:
        runtime: The card.
        file: Source of the kernel: what was measured with another text of it is forgotten.
        problem: What tells this problem from others: sizes and dtype.
        candidates: Shapes, the most promising first.
        run: Computes the problem with a tile of this shape.
    """
    source = hashlib.sha256(source_of(file).encode()).hexdigest()[:16]
    choices = Choices(cache_directory() / f"{card_name(runtime)}.json")
    return choices.fastest(f"{source} {problem}", candidates[:CANDIDATES], lambda shape: seconds_of(runtime, run, shape))


def seconds_of(runtime: Runtime, run: Callable[[TileShape], None], shape: TileShape) -> float:
    """Median time on the card, after a run that compiles the kernel and fills the caches."""
    with runtime.current():
        event = runtime.xp.cuda.Event
        run(shape)
        times: list[float] = []
        for _ in range(RUNS):
            start, end = event(), event()
            start.record()
            run(shape)
            end.record()
            end.synchronize()
            times.append(runtime.xp.cuda.get_elapsed_time(start, end) / 1e3)
    return statistics.median(times)


class Choices:
    """Choices that were measured once and are kept in a file of JSON: ``{"problem": "128, 64, 16, 4, 1, 8, 8, 2"}``.

    A file that cannot be read is taken for an empty one, and one that cannot be written is kept in memory alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def fastest(self, problem: str, candidates: Sequence[TileShape], seconds: Callable[[TileShape], float]) -> TileShape:
        """The candidate that takes the fewest ``seconds``, from the file if it is there."""
        by_name = {shape.template_arguments(): shape for shape in candidates}
        with _lock:
            known = _memory(self.path)
            if known.get(problem) not in by_name:
                known.update(self._read())
            if known.get(problem) not in by_name:
                known[problem] = min(candidates, key=seconds).template_arguments()
                self._write({**self._read(), **known})
            return by_name[known[problem]]

    def _read(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            content: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return {key: value for key, value in content.items() if isinstance(value, str)}
        return {}

    def _write(self, choices: dict[str, str]) -> None:
        # Whoever reads meanwhile sees the old file or the new one.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".json")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(choices, file, indent=0, sort_keys=True)
                Path(name).replace(self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise


def cache_directory() -> Path:
    """Where choices are kept."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("xpconv") / "tiles"


@functools.cache
def card_name(runtime: Runtime) -> str:
    """Name of the card's model, as a file name."""
    number = int(runtime.name.partition(":")[2])
    name = runtime.xp.cuda.runtime.getDeviceProperties(number)["name"].decode()
    return re.sub(r"\W+", "-", name).strip("-")


@functools.cache
def _memory(path: Path) -> dict[str, str]:
    return {}
