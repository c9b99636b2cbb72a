"""What it takes to hold something of xpconv against the same thing of Keras: a case, what is checked, and what came of it.

Nothing here imports Keras before a case runs, so that the list of the cases can be read without it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# How far results may be apart and still count as equal, relative to the largest number of the array they are in: what
# sums in another order and other implementations of exp, log and tanh make of the last digits.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

# Where Keras computes with numbers of float32 in float64: how many tolerances that is.
ROUGH = 1e6

# Arguments that Keras has and xpconv leaves out, wherever they would stand.
LEFT_OUT = {
    "activity_regularizer": "only weights are regularized; a penalty on outputs belongs into a loss of one's own",
    "*_constraint": "weights are not constrained; a callback can put them back after each batch",
    "lora_*": "no low-rank adapters",
    "quantization_config": "no quantization",
    "use_ema": "no moving average of the weights; a callback can keep one",
    "ema_*": "as `use_ema`",
    "loss_scale_factor": "float32 and float64 need no scaling of the loss",
    "gradient_accumulation_steps": "a larger batch does the same",
    "dtype": "losses compute in the dtype of the predictions, metrics sum in float64",
}

# Arguments that every layer of xpconv takes by keyword: Keras has them among its **kwargs, but for the device.
OF_EVERY_LAYER = ("name", "dtype", "trainable", "device")


@dataclass
class Checks:
    """Gathers what came of a case.

    Attributes:
        device: The device of xpconv.
        settings: How many settings were tried.
        largest: By dtype, the largest relative difference of two numbers.
        unexpected: Differences that nobody has explained, or explanations of what is no difference any more.
        without: Arguments of Keras that xpconv leaves out.
        differences: Explained differences.
    """

    device: str = "numpy"
    settings: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def close(self, what: str, ours: Any, theirs: Any, dtype: str, *, times: float = 1, same_dtype: bool = True) -> None:
        """Compare numbers.

        Args:
            what: For the message.
            ours: Those of xpconv.
            theirs: Those of Keras.
            dtype: What they were computed in.
            times: How many tolerances they may be apart: a training adds up the rounding of its steps.
            same_dtype: Whether the arrays must be of one dtype, too.
        """
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape:
            self.unexpected.append(f"{what}: shape {ours.shape}, Keras {theirs.shape}")
            return
        if same_dtype and ours.dtype != theirs.dtype:
            self.unexpected.append(f"{what}: dtype {ours.dtype}, Keras {theirs.dtype}")
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        is_finite = np.isfinite(theirs)
        if not np.array_equal(ours[~is_finite], theirs[~is_finite], equal_nan=True):
            self.unexpected.append(f"{what}: where Keras gives {theirs[~is_finite][:4]}, xpconv gives {ours[~is_finite][:4]}")
            return
        if not is_finite.any():
            return
        scale = np.abs(theirs[is_finite]).max() or 1.0
        difference = np.abs(ours[is_finite] - theirs[is_finite]).max() / scale
        if not difference <= times * TOLERANCE[dtype]:  # NaN is no agreement
            self.unexpected.append(f"{what}: {difference:.1e} apart in {dtype}")
        else:
            self.largest[dtype] = max(self.largest.get(dtype, 0.0), float(difference))

    def same(self, what: str, ours: Any, theirs: Any) -> None:
        """Compare what must be the same: names, shapes, counts."""
        if type(ours) is not type(theirs) or ours != theirs:
            self.unexpected.append(f"{what}: {ours!r}, Keras {theirs!r}")

    def differs(self, reason: str, is_so: bool) -> None:
        """Tell a difference that is meant, with a reason, and whether it shows: what no longer shows must not be claimed."""
        if is_so:
            self.differences.append(reason)
        else:
            self.unexpected.append(f"is said to differ, and does not: {reason}")

    def signature(
        self,
        ours: Callable[..., Any],
        theirs: Callable[..., Any],
        *,
        left_out: Mapping[str, str] | None = None,
        added: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
        everywhere: Sequence[str] = (),
        order: str | None = None,
    ) -> None:
        """Compare names, order and defaults of arguments.

        Args:
            ours: Function or class of xpconv.
            theirs: Function or class of Keras.
            left_out: Arguments that only Keras has, and why.
            added: Arguments that only xpconv has, and why.
            defaults: Arguments of another default, and why.
            everywhere: Arguments that only xpconv spells out, and all of its kind have.
            order: Why the arguments stand in another order, if they do.
        """
        mine, keras_has = _arguments(ours), _arguments(theirs)
        left_out, added, defaults = dict(left_out or {}), dict(added or {}), dict(defaults or {})
        for reasons, is_in_mine, is_in_keras in ((left_out, False, True), (added, True, False), (defaults, True, True)):
            for name, reason in reasons.items():
                if (name in mine, name in keras_has) != (is_in_mine, is_in_keras):
                    self.unexpected.append(f"is said to differ, and does not: argument {name} ({reason})")
        for name in keras_has:
            if name in mine:
                continue
            if name in left_out:
                self.differences.append(f"`{name}` is left out: {left_out[name]}")
            elif (pattern := left_out_everywhere(name)) is not None:
                if pattern not in self.without:
                    self.without.append(pattern)
            else:
                self.unexpected.append(f"argument {name}={_told(keras_has[name])} of Keras is missing")
        for name, parameter in mine.items():
            if name not in keras_has:
                if name in added:
                    self.differences.append(f"`{name}` is added: {added[name]}")
                elif name not in everywhere:
                    self.unexpected.append(f"argument {name}={_told(parameter)}: Keras has no such")
                continue
            if name == "name" and parameter.default is None:
                continue  # which name is made of that is compared with the objects
            is_same = _default(parameter) == _default(keras_has[name])
            if name in defaults:
                self.differs(f"`{name}={_told(parameter)}`, in Keras `{_told(keras_has[name])}`: {defaults[name]}", not is_same)
            elif not is_same:
                self.unexpected.append(f"argument {name}={_told(parameter)}, Keras {_told(keras_has[name])}")
        by_position = [name for name, parameter in mine.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        is_start = by_position == list(keras_has)[: len(by_position)]
        if order is not None:
            self.differs(order, not is_start)
        elif not is_start:
            self.unexpected.append(f"arguments by position {by_position}, Keras {list(keras_has)[: len(by_position)]}")


@dataclass(frozen=True)
class Case:
    """Something of xpconv that is compared with the same thing of Keras.

    Attributes:
        group: ``"layer"``, ``"loss"`` and so on: a table of its own.
        names: Its public name; and others for the same thing.
        run: Compares.
        compared: What it compares, in words.
    """

    group: str
    names: tuple[str, ...]
    run: Callable[[Checks], None]
    compared: str = ""

    def __str__(self) -> str:
        return f"{self.group} {self.names[0]}"


def left_out_everywhere(name: str) -> str | None:
    """The entry of :data:`LEFT_OUT` that an argument falls under."""
    return next((pattern for pattern in LEFT_OUT if fnmatch.fnmatchcase(name, pattern)), None)


def _arguments(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    if inspect.isclass(function):
        function = function.__init__
    parameters = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {one.name: one for one in parameters if one.name != "self" and one.kind not in variable}


def _default(parameter: inspect.Parameter) -> Any:
    # "Zeros" and "zeros" are one initializer; 0 and 0.0 one number, but False is none.
    value = parameter.default
    return value.lower() if isinstance(value, str) else (type(value) is bool, value)


def _told(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "(must be given)"
    return getattr(parameter.default, "__name__", repr(parameter.default))


# ---- Keras ---------------------------------------------------------------------------------------------------------------


def load_keras() -> Any:
    """Keras on TensorFlow's CPU, without its messages.

    Raises:
        ImportError: It is not installed.
        RuntimeError: It runs on another backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # which tells of itself on stderr, and sums otherwise
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(f"gradients are asked of TensorFlow, and Keras runs on {keras.backend.backend()}")
    return keras


def versions() -> dict[str, str]:
    """Names and versions of what is compared."""
    import tensorflow

    import xpconv

    return {"xpconv": xpconv.__version__, "Keras": load_keras().__version__, "TensorFlow": tensorflow.__version__}


@contextlib.contextmanager
def keras_in(dtype: str) -> Iterator[Any]:
    """Keras, computing in a dtype: layers, losses, and the numbers of optimizers and metrics."""
    keras = load_keras()
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield keras
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def keras_gradients(
    function: Callable[..., Any], arrays: Sequence[Any], variables: Sequence[Any] = (), doutput: Any = None
) -> tuple[Any, list[Any], list[Any]]:
    """What a function of Keras gives, and its gradients, as NumPy arrays.

    Args:
        function: Takes tensors.
        arrays: What it is given; gradients are asked for those of floats.
        variables: Variables of Keras that gradients are asked for.
        doutput: Gradient of the output; None for ones.

    Returns:
        The output, the gradients of the arrays, and those of the variables.
    """
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch([tensor for tensor in tensors if tensor.dtype.is_floating])
        output = function(*tensors)
    wanted = [*tensors, *(variable.value for variable in variables)]
    found = tape.gradient(
        output,
        wanted,
        output_gradients=None if doutput is None else tf.convert_to_tensor(doutput),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    gradients = [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]
    return np.asarray(output), gradients[: len(arrays)], gradients[len(arrays) :]
