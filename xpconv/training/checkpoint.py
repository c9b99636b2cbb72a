"""The file of a checkpoint: all that a training needs to go on as if it had never stopped.

One safetensors file. Its arrays are named ``parameters/W1``, ``optimizer/m/W1``, ``buffers/BatchNorm1/running_mean``; one
entry of its metadata holds the rest as JSON: the settings that must agree, the history and where the training stands.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from xpconv.device import to_numpy
from xpconv.errors import ParameterFileError
from xpconv.files import load_parameters, save_parameters

History: TypeAlias = dict[str, list[Any]]

HISTORY_KEYS = ("epoch", "loss", "train_accuracy", "test_loss", "test_accuracy", "seconds", "images_per_second")
_METADATA_KEY = "xpconv.checkpoint"
_GROUPS = ("parameters", "optimizer", "buffers")


@dataclass(frozen=True)
class Standing:
    """Where a training stands.

    Attributes:
        history: The finished epochs.
        step: Updates made in the epoch that is under way.
        loss_sum: Sum of the losses of its images so far.
        seconds: Time spent on them so far.
        order: State of the generator that draws the order of the images, as it was before this epoch's order was drawn.
        generators: States of the generators that layers draw from, by layer.
    """

    history: History
    step: int
    loss_sum: float
    seconds: float
    order: dict[str, Any]
    generators: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        settings: What must agree for a training to be continued; JSON values by name.
        standing: Where the training stands.
        parameters: The network's parameters.
        optimizer: The optimizer's state.
        buffers: What the network has learnt besides its parameters.
    """

    settings: dict[str, Any]
    standing: Standing
    parameters: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    buffers: Mapping[str, Any]


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: The file cannot be written; an older one stays as it was.
    """
    arrays = {f"{group}/{name}": to_numpy(array) for group in _GROUPS for name, array in getattr(checkpoint, group).items()}
    text = json.dumps({"settings": checkpoint.settings, "standing": asdict(checkpoint.standing)}, default=_plain)
    save_parameters(path, arrays, {_METADATA_KEY: text})


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ParameterFileError: The file is damaged, or no checkpoint.
    """
    arrays, metadata = load_parameters(path)
    if _METADATA_KEY not in metadata:
        raise ParameterFileError(f"{path} is no checkpoint: it holds arrays, but no training that could be continued")
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    try:
        text = json.loads(metadata[_METADATA_KEY])
        for key, array in arrays.items():
            group, _, name = key.partition("/")
            groups[group][name] = array
        settings, standing = text["settings"], Standing(**text["standing"])
        problem = None if isinstance(settings, dict) else "the settings are no table"
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ParameterFileError(f"{path} is a damaged checkpoint: {error!r}") from error
    problem = problem or _problem(standing)
    if problem:
        raise ParameterFileError(f"{path} is a damaged checkpoint: {problem}")
    return Checkpoint(settings, standing, **groups)


def check_settings(path: str | os.PathLike[str], found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse the checkpoint of another training.

    Raises:
        ParameterFileError: Lists every setting that differs.
    """
    differences = [
        f"{name} was {_word(found.get(name))}, is {_word(expected.get(name))}"
        for name in [*expected, *(name for name in found if name not in expected)]
        if found.get(name) != expected.get(name)
    ]
    if differences:
        raise ParameterFileError("\n  ".join([f"{path} is a checkpoint of another training:", *differences]))


def _word(setting: Any) -> str:
    if setting is None:
        return "none"
    return f"({', '.join(map(str, setting))})" if isinstance(setting, list) else str(setting)


def _problem(standing: Standing) -> str | None:
    # A file from elsewhere may hold anything in the place of each value.
    history = standing.history
    if not isinstance(history, dict) or set(history) != set(HISTORY_KEYS):
        return f"the history must have the entries {', '.join(HISTORY_KEYS)}"
    if not all(isinstance(column, list) for column in history.values()):
        return "the history must hold lists"
    epochs = len(history["epoch"])
    if any(len(column) != epochs for column in history.values()) or history["epoch"] != list(range(1, epochs + 1)):
        return "the history must have one entry for each epoch"
    numbers = [value for column in history.values() for value in column if value is not None]
    if not all(_is_number(value) for value in [*numbers, standing.loss_sum, standing.seconds]):
        return "the history must hold numbers"
    if any(None in history[name] for name in ("loss", "train_accuracy", "seconds", "images_per_second")):
        return "the history has gaps"
    if isinstance(standing.step, bool) or not isinstance(standing.step, int) or standing.step < 0:
        return f"step must be a count, got {standing.step!r}"
    if not math.isfinite(standing.loss_sum) or not 0 <= standing.seconds < math.inf:
        return "loss and seconds of the epoch must be finite"
    if not isinstance(standing.generators, dict):
        return "the states of the generators are no table"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    # The states of NumPy's generators hold arrays and NumPy's own integers.
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")
