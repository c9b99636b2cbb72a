"""Models in files: what they are made of as JSON, their weights as safetensors; nothing in a file is run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xpconv.arrays import is_floating
from xpconv.configuration import plain
from xpconv.device import Device, asarray, get_device, to_numpy
from xpconv.errors import ParameterFileError
from xpconv.files import check_parameters, load_parameters, save_parameters
from xpconv.naming import resolve

if TYPE_CHECKING:
    from xpconv.layers.layer import Layer
    from xpconv.models.model import Model

_METADATA_KEY = "xpconv.model"
_WEIGHTS, _OPTIMIZER = "weights/", "optimizer/"


def write_model(path: str | os.PathLike[str], model: Model, *, whole: bool) -> None:
    """Write a model: its weights, or all of it."""
    arrays = {f"{_WEIGHTS}{name}": to_numpy(array) for name, array in model.parameters().items()}
    if not whole:
        save_parameters(path, arrays)
        return
    text: dict[str, Any] = {
        "class_name": type(model).__name__,
        "config": model.get_config(),
        "dtype": model.compute_dtype_name,
        "input_shape": plain(model.input_shape),
    }
    if model.optimizer is not None:
        text["compiled"] = plain(model.compiled, name_functions=True)
        arrays |= {f"{_OPTIMIZER}{key}": to_numpy(array) for key, array in model.optimizer.state_dict().items()}
    save_parameters(path, arrays, {_METADATA_KEY: json.dumps(text)})


def read_weights(path: str | os.PathLike[str], model: Model) -> None:
    """Take over the weights in a file, and the optimizer's state if it and an optimizer are there.

    Raises:
        FileNotFoundError: There is no such file.
        ParameterFileError: It is damaged, or of another model; nothing is changed then.
    """
    arrays, metadata = load_parameters(path)
    _take(path, model, arrays, _described(path, metadata) if _METADATA_KEY in metadata else {})


def load_model(
    path: str | os.PathLike[str],
    custom_objects: Mapping[str, type[Any]] | None = None,
    *,
    compile: bool = True,
    device: str | Device | None = "auto",
) -> Any:
    """Make a model of a file that ``model.save`` wrote: its layers, weights, and the optimizer where it stood.

    Args:
        path: The file.
        custom_objects: Classes of one's own that the model is made of, by name: layers, and the model's own class if it is
            not :class:`Sequential`. They are made again from the arguments that they were made with.
        compile: Whether to compile the model as it was, so that ``fit`` goes on; False for one with a loss, metric or optimizer
            of one's own.
        device: Where the model is to compute.

    Raises:
        FileNotFoundError: There is no such file.
        ParameterFileError: The file is damaged, or holds no model, or one that cannot be made again.
        ValueError: A class that is not known; the text tells its name.
        TypeError: ``custom_objects`` holds something else than classes of layers.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np, xpconv as xc
        >>> model = xc.Sequential([xc.layers.Dense(3, activation="relu"), xc.layers.Dense(1)], device="numpy", seed=0)
        >>> x = np.ones((2, 4), np.float32)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "model.safetensors")
        ...     before = model.predict(x, verbose=0)
        ...     model.save(path)
        ...     after = xc.models.load_model(path, device="numpy").predict(x, verbose=0)
        >>> bool((before == after).all())
        True
    """
    from xpconv import layers
    from xpconv.layers.layer import Layer
    from xpconv.models.sequential import Sequential

    arrays, metadata = load_parameters(path)
    if _METADATA_KEY not in metadata:
        raise ParameterFileError(f"{path} holds weights but no model; make the model, and load them with load_weights")
    described = _described(path, metadata)
    own = dict(custom_objects or {})
    known: dict[str, Any] = {name: getattr(layers, name) for name in layers.__all__} | {"Sequential": Sequential} | own
    for value in own.values():
        if not (isinstance(value, type) and issubclass(value, Layer)):
            raise TypeError(f"load_model: custom_objects must hold classes of layers and models, got {value!r}")
    place = get_device(device)
    try:
        model: Any = layer_from_config(described, known)
        model.to(place)
        if model.dtype is None and described.get("dtype"):
            model.dtype = np.dtype(described["dtype"])
        if described.get("input_shape") is not None:
            model.build(_shape(described["input_shape"]))
        if compile and described.get("compiled") is not None:
            model.compile(**described["compiled"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ParameterFileError(f"{path} describes a model that cannot be made: {error}") from error
    _take(path, model, arrays, described)
    return model


def layer_from_config(entry: Any, known: Mapping[str, Any]) -> Layer:
    """Make a layer of what :func:`plain` made of one."""
    from xpconv.layers.input import Input
    from xpconv.models.sequential import Sequential

    name, config = entry["class_name"], dict(entry["config"])
    if name == "Input":
        return Input(**config)  # type: ignore[return-value]
    cls = resolve("load_model", "class (give your own in custom_objects)", name, known)
    if issubclass(cls, Sequential):
        config["layers"] = [layer_from_config(inner, known) for inner in config.get("layers") or []]
    layer: Layer = cls.from_config(config)
    return layer


def _described(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        described = json.loads(metadata[_METADATA_KEY])
        if not (isinstance(described["class_name"], str) and isinstance(described["config"], dict)):
            raise TypeError("class_name and config must be a text and a table")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ParameterFileError(f"{path} holds a damaged description of a model: {error!r}") from error
    return dict(described)


def _take(path: str | os.PathLike[str], model: Model, arrays: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    if not model.built:
        if described.get("input_shape") is None:
            raise ValueError(
                f"{model.title}: the weights of {path} need a model that is built; call it or its method build first"
            )
        model.build(_shape(described["input_shape"]))
    weights = {key.removeprefix(_WEIGHTS): array for key, array in arrays.items() if key.startswith(_WEIGHTS)}
    state = {key.removeprefix(_OPTIMIZER): array for key, array in arrays.items() if key.startswith(_OPTIMIZER)}
    if not weights and arrays:
        raise ParameterFileError(f"{path} holds no weights of a model")
    targets = model.parameters()
    check_parameters(path, weights, {name: tuple(array.shape) for name, array in targets.items()})
    for name, array in weights.items():
        if not is_floating(array.dtype):
            raise ParameterFileError(f"{path}: {name} must hold floats, it has the dtype {array.dtype}")
    if state and model.optimizer is not None:
        try:
            with model.device.current():
                model.optimizer.load_state_dict({key: asarray(array, device=model.device) for key, array in state.items()})
        except (ValueError, TypeError, KeyError) as error:
            raise ParameterFileError(f"{path} is of a model with another optimizer: {error}") from error
    with model.device.current():
        for name, target in targets.items():
            target[...] = asarray(weights[name], device=model.device, dtype=target.dtype)


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shape(entry) for name, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, list) for entry in value):
        return [_shape(entry) for entry in value]
    return tuple(value)
