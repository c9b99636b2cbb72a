"""The base of all optimizers: what they are made with, the loop over the parameters, and what they remember."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpconv.arguments import not_negative, positive
from xpconv.arrays import as_array, is_floating, is_real
from xpconv.configuration import argument_names, as_call, constructor_arguments, plain
from xpconv.device import Device, get_device, on_its_card
from xpconv.naming import snake_case
from xpconv.optimizers.schedules import LearningRateSchedule, rate_or_schedule

# Keeps the divisions away from zero: the book's value, and Keras'.
EPSILON = 1e-7

_CLIPPINGS = ("clipnorm", "clipvalue", "global_clipnorm")

# What Keras writes into a configuration for what xpconv does not have, when it is off.
_OFF_IN_KERAS: dict[str, tuple[Any, ...]] = {
    "use_ema": (False,),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
}
_EMA_IN_KERAS = ("ema_momentum", "ema_overwrite_frequency")


class _Known(NamedTuple):
    """A parameter that has been checked, with what its updates need."""

    name: str
    param: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    state: dict[str, Any]
    decays: bool


class Optimizer(ABC):
    """What all optimizers share. Derive from it for a rule of your own, and override :meth:`update_array`.

    Each argument of ``__init__`` must be kept as an attribute of its name: :meth:`get_config` tells them.

    Args:
        learning_rate: Learning rate: a positive number, or a schedule of :mod:`xpconv.optimizers.schedules`.
        weight_decay: Before each step ``w -= learning_rate * weight_decay * w``, which gradients and slots know nothing of
            (Loshchilov and Hutter, arXiv:1711.05101). None for no decay.
        clipnorm: Scale each gradient whose norm is larger down to this norm.
        clipvalue: Bring each element of the gradients between minus this value and this value.
        global_clipnorm: Scale all gradients down together if the norm of all their elements is larger.
        name: Name of the optimizer; None makes one of the class' name.

    Attributes:
        learning_rate: Learning rate of the next update. It may be set, also to 0 for a while, unless a schedule tells it.
        iteration: Number of updates so far; ``iterations``, as Keras says, is the same.

    Raises:
        ValueError: A number is out of range, or there is more than one of ``clipnorm``, ``clipvalue`` and ``global_clipnorm``.
        TypeError: An argument of the wrong kind.

    Notes:
        Differences from Keras: a gradient that is not finite is never clipped to one that is, so that a training notices it; a
        norm is told right even where the squares of the elements are too large for the dtype; ``learning_rate`` may be no
        function without arguments; there is no exponential moving average, loss scaling and accumulation of gradients.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> class SignDescent(xc.optimizers.Optimizer):
        ...     def update_array(self, param, grad, state, rate, place):
        ...         param -= rate * place.xp.sign(grad)
        >>> params = {"W": np.array([1.0, 2.0])}
        >>> SignDescent(0.5, clipnorm=1.0).update(params, {"W": np.array([30.0, -40.0])})
        >>> params["W"]
        array([0.5, 2.5])
    """

    #: Names of the arrays that are remembered for each parameter.
    slots: tuple[str, ...] = ()
    #: What they are filled with at first.
    initial_slot_value: float = 0.0

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        op = type(self).__name__
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"{op}: name must be a text, got {name!r}")
        self.name = snake_case(op) if name is None else name
        self._learning_rate = rate_or_schedule(op, learning_rate)
        self.weight_decay = None if weight_decay is None else not_negative(op, "weight_decay", weight_decay)
        self.clipnorm = None if clipnorm is None else positive(op, "clipnorm", clipnorm)
        self.clipvalue = None if clipvalue is None else positive(op, "clipvalue", clipvalue)
        self.global_clipnorm = None if global_clipnorm is None else positive(op, "global_clipnorm", global_clipnorm)
        clippings = [f"{clipping}={getattr(self, clipping)}" for clipping in _CLIPPINGS if getattr(self, clipping) is not None]
        if len(clippings) > 1:
            raise ValueError(f"{op}: only one of {', '.join(_CLIPPINGS)} can be given, got {' and '.join(clippings)}")
        self.iteration = 0
        self._excluded: tuple[str, ...] = ()
        self._state: dict[str, dict[str, Any]] = {}
        self._known: list[_Known] = []

    # ---- the learning rate -----------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update.

        Raises:
            TypeError: Set to a number where a schedule tells the rate. Another schedule can be set.
            ValueError: Set to what is no rate.
        """
        learning_rate = self._learning_rate
        if type(learning_rate) is float:  # almost always; asking for an abstract class takes longer
            return learning_rate
        assert isinstance(learning_rate, LearningRateSchedule)
        rate = learning_rate(self.iteration)
        try:
            return not_negative("", "", rate)
        except (ValueError, TypeError):
            raise ValueError(
                f"{type(self).__name__}: the schedule {learning_rate!r} gave {rate!r} as the learning rate after "
                f"{self.iteration} updates, where a number of at least 0 was expected"
            ) from None

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | LearningRateSchedule) -> None:
        op = type(self).__name__
        if isinstance(learning_rate, LearningRateSchedule):
            self._learning_rate = learning_rate
        elif isinstance(self._learning_rate, LearningRateSchedule):
            raise TypeError(
                f"{op}: learning_rate cannot be set to {learning_rate!r}, it follows the schedule {self._learning_rate!r}; "
                "make the optimizer with a number to set it later"
            )
        else:
            self._learning_rate = not_negative(op, "learning_rate", learning_rate)

    @property
    def iterations(self) -> int:
        """Number of updates so far, as Keras calls it."""
        return self.iteration

    # ---- updates ---------------------------------------------------------------------------------------------------------

    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any], device: str | Device | None = None) -> None:
        """Update every parameter in place.

        Args:
            params: Parameters by name; writable float arrays, or plain numbers, whose entries are replaced.
            grads: Their gradients by the same names, of the same shapes.
            device: Where to compute; None follows the arrays.

        Raises:
            ValueError: A gradient is missing, left over or of another shape, or a parameter cannot be updated.
            TypeError: A gradient is no array of real numbers. Nothing has been updated then, either.

        Notes:
            Arrays that come again, as those of a network do at every step, are known by their identity: of them only what may
            have changed is looked at.
        """
        known = self._known if self._knows(params) else self._examined(params, device)
        if len(grads) != len(known):
            raise self._names_differ(params, grads)
        checked, on_host, homes, are_alike = [], None, [entry.param for entry in known[:1]], True
        for name, _, shape, dtype, _, _ in known:
            if name not in grads:
                raise self._names_differ(params, grads)
            grad = grads[name]
            if type(grad) is np.ndarray:
                on_host = grad
            else:
                grad = as_array(self._op, f"grads[{name!r}]", grad)
                homes.append(grad)
            if grad.dtype is not dtype:
                if not is_real(grad.dtype):
                    raise TypeError(f"{self._op}: grads[{name!r}] must hold real numbers, got dtype {grad.dtype}")
                are_alike = False
            if grad.shape != shape:
                raise ValueError(f"{self._op}: grads[{name!r}].shape must be {shape}, got {grad.shape}")
            checked.append(grad)
        place = get_device(device, *homes, *([] if on_host is None else [on_host]))  # one stands for all on the host
        rate = self.learning_rate
        if known is not self._known:
            self._remember(known, params)
        self.iteration += 1
        with place.current():
            if not are_alike:
                checked = [grad.astype(entry.dtype, copy=False) for grad, entry in zip(checked, known, strict=True)]
            self._apply(known, self._clipped(checked, place.xp), rate, place)
        if known is not self._known:  # there are plain numbers
            for entry in known:
                if entry.param is not params[entry.name]:
                    params[entry.name] = float(entry.param)

    def step_size(self, rate: float) -> float:
        """What :meth:`update_array` is given as the rate in this update, the ``iteration``-th; here: the learning rate."""
        return rate

    @abstractmethod
    def update_array(self, param: Any, grad: Any, state: dict[str, Any], rate: float, place: Device) -> None:
        """Update one parameter and what is remembered of it, in place.

        Args:
            param: The parameter.
            grad: Its gradient, of the same shape and dtype; it belongs to the caller and must not be written into.
            state: An array for each of ``slots``, of the same shape and dtype.
            rate: What :meth:`step_size` returned.
            place: The device: ``place.xp`` is its array module, ``place.kernels`` its kernels.
        """

    @property
    def _op(self) -> str:
        return f"{type(self).__name__}.update"

    def _names_differ(self, params: Mapping[str, Any], grads: Mapping[str, Any]) -> ValueError:
        missing, left_over = sorted(params.keys() - grads.keys()), sorted(grads.keys() - params.keys())
        return ValueError(
            f"{self._op}: params and grads must have the same names"
            + (f"; without a gradient: {', '.join(map(repr, missing))}" if missing else "")
            + (f"; without a parameter: {', '.join(map(repr, left_over))}" if left_over else "")
        )

    def _knows(self, params: Mapping[str, Any]) -> bool:
        if len(params) != len(self._known):
            return False
        for name, param, shape, dtype, _, _ in self._known:
            if param.shape != shape or param.dtype is not dtype or params.get(name) is not param:
                return False
            if type(param) is np.ndarray and not param.flags.writeable:
                return False
        return True

    def _examined(self, params: Mapping[str, Any], device: str | Device | None) -> list[_Known]:
        arrays = {name: param if _is_array(param) else np.array(param, dtype=np.float64) for name, param in params.items()}
        for name, param in arrays.items():
            if not is_floating(param.dtype) or not _is_writable(param):
                raise ValueError(f"{self._op}: params[{name!r}] must be a writable array of floats, got dtype {param.dtype}")
            for slot in self._state.get(name, {}).values():
                if slot.shape != param.shape:
                    raise ValueError(
                        f"{self._op}: {name!r} has the shape {param.shape}, at earlier updates it had {slot.shape}"
                    )
                if slot.dtype != param.dtype:
                    raise ValueError(f"{self._op}: {name!r} is {param.dtype}, at earlier updates it was {slot.dtype}")
        remembered = [slot for name in arrays for slot in self._state.get(name, {}).values()]
        place = get_device(device, *arrays.values(), *remembered)
        with place.current():
            return [
                _Known(
                    name,
                    param,
                    param.shape,
                    param.dtype,
                    self._state[name] if name in self._state else self._new_state(param, place.xp),
                    not any(part in name for part in self._excluded),
                )
                for name, param in arrays.items()
            ]

    def _new_state(self, param: Any, xp: Any) -> dict[str, Any]:
        state = {slot: xp.zeros_like(param) for slot in self.slots}
        if self.initial_slot_value:
            for array in state.values():
                array += self.initial_slot_value
        return state

    def _remember(self, known: list[_Known], params: Mapping[str, Any]) -> None:
        for entry in known:
            self._state[entry.name] = entry.state
        if all(entry.param is params[entry.name] for entry in known):
            self._known = known

    def _clipped(self, grads: list[Any], xp: Any) -> list[Any]:
        if self.clipnorm is not None:
            return [_scaled([grad], self.clipnorm, xp)[0] for grad in grads]
        if self.global_clipnorm is not None:
            return _scaled(grads, self.global_clipnorm, xp)
        if self.clipvalue is not None:
            return [_limited(grad, self.clipvalue, xp) for grad in grads]
        return grads

    def _apply(self, known: list[_Known], grads: list[Any], rate: float, place: Device) -> None:
        size = self.step_size(rate)
        decay = (self.weight_decay or 0.0) * rate
        for (_, param, _, _, state, decays), grad in zip(known, grads, strict=True):
            if decay and decays:
                grad = grad.copy() if place.xp.may_share_memory(grad, param) else grad
                param -= param * decay
            self.update_array(param, grad, state, size, place)

    def exclude_from_weight_decay(self, *, var_names: Sequence[str]) -> None:
        """Let parameters be without weight decay: biases, for instance, and what normalises.

        Args:
            var_names: Parts of names; a parameter whose name holds one of them does not decay. Replaces those given before.

        Raises:
            TypeError: Not a list of texts.

        Example:
            >>> import numpy as np, xpconv as xc
            >>> optimizer = xc.AdamW(learning_rate=0.5, weight_decay=0.5)
            >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
            >>> params = {"dense/kernel": np.ones(1), "dense/bias": np.ones(1)}
            >>> optimizer.update(params, {"dense/kernel": np.zeros(1), "dense/bias": np.zeros(1)})
            >>> params
            {'dense/kernel': array([0.75]), 'dense/bias': array([1.])}
        """
        names = () if isinstance(var_names, str) else tuple(var_names)
        if isinstance(var_names, str) or not all(isinstance(name, str) and name for name in names):
            raise TypeError(
                f"{type(self).__name__}.exclude_from_weight_decay: var_names must be a list of texts, got {var_names!r}"
            )
        self._excluded = names
        self._known = []

    # ---- configuration ---------------------------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Any]:
        """All that decides on the updates, by name, as it stands now, in values that JSON has.

        Example:
            >>> import xpconv as xc
            >>> xc.SGD(0.1, momentum=0.9, clipnorm=1.0).hyperparameters()["momentum"]
            0.9
        """
        values = {name: value for name, value in constructor_arguments(self).items() if name != "name"}
        if "learning_rate" in values:
            values["learning_rate"] = plain(self._learning_rate)
        return {**values, "exclude_from_weight_decay": list(self._excluded)} if self._excluded else values

    def get_config(self) -> dict[str, Any]:
        """What makes such an optimizer again, in values that JSON has; :meth:`state_dict` has what it remembers.

        Example:
            >>> import xpconv as xc
            >>> optimizer = xc.Adam(xc.optimizers.schedules.CosineDecay(0.1, 100))
            >>> xc.Adam.from_config(optimizer.get_config())
            Adam(learning_rate=CosineDecay(initial_learning_rate=0.1, decay_steps=100, alpha=0.0, warmup_target=None, \
warmup_steps=0), beta_1=0.9, beta_2=0.999, epsilon=1e-07, amsgrad=False)
        """
        named = {"name": self.name} if "name" in argument_names(type(self)) else {}
        return {**named, **self.hyperparameters()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """Make an optimizer of what :meth:`get_config` returned, here or in Keras.

        Raises:
            ValueError: The configuration has what this optimizer has not.
        """
        names = argument_names(cls)
        given = {name: value for name, value in config.items() if name in names}
        excluded = config.get("exclude_from_weight_decay", ())
        foreign = {
            name: value
            for name, value in config.items()
            if name not in given
            and name != "exclude_from_weight_decay"
            and value not in _OFF_IN_KERAS.get(name, ())
            and not (name in _EMA_IN_KERAS and not config.get("use_ema"))
        }
        if foreign:
            raise ValueError(f"{cls.__name__}.from_config: {cls.__name__} has no {', '.join(foreign)}, got {foreign}")
        paused = given.get("learning_rate") == 0
        made = cls(**({name: value for name, value in given.items() if name != "learning_rate"} if paused else given))
        if paused:
            made.learning_rate = 0.0
        if excluded:
            made.exclude_from_weight_decay(var_names=excluded)
        return made

    def __repr__(self) -> str:
        values = {name: value for name, value in self.hyperparameters().items() if value is not None}
        if "learning_rate" in values:
            values["learning_rate"] = self._learning_rate
        return as_call(self, values)

    # ---- what is remembered ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What the optimizer remembers, as arrays: ``"momentum/W1"`` for that slot of the parameter W1, and ``"iteration"``.

        Returns:
            Copies; a later update doesn't change them.

        Example:
            >>> import numpy as np, xpconv as xc
            >>> optimizer = xc.SGD(momentum=0.9)
            >>> optimizer.update({"W": np.ones(2)}, {"W": np.ones(2)})
            >>> optimizer.state_dict()
            {'iteration': array(1), 'momentum/W': array([-0.01, -0.01])}
        """
        arrays = {f"{slot}/{name}": _copied(array) for name, state in self._state.items() for slot, array in state.items()}
        return {"iteration": np.array(self.iteration), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` of an optimizer of the same class, and of the same slots, returned.

        Raises:
            ValueError: Entries of another class of optimizer, or of some slots only. Nothing is changed then.
        """
        op = f"{type(self).__name__}.load_state_dict"
        loaded: dict[str, dict[str, Any]] = {}
        for key, array in state.items():
            slot, _, name = key.partition("/")
            if key != "iteration":
                loaded.setdefault(name, {})[slot] = _copied(array)
        if "iteration" not in state or any(set(slots) != set(self.slots) for slots in loaded.values()):
            raise ValueError(f"{op}: expected 'iteration' and the slots {self.slots} of every parameter, got {sorted(state)}")
        iteration = int(state["iteration"])
        if iteration < 0:
            raise ValueError(f"{op}: iteration must be a number of updates, got {iteration}")
        self.iteration, self._state, self._known = iteration, loaded, []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": []}  # a copy of the optimizer meets copies of the parameters


def bias_corrected(rate: float, decay_of_mean: float, decay_of_squares: float, iteration: int) -> float:
    """Adam's rate, corrected for means that started at zero (the end of section 2 of arXiv:1412.6980)."""
    return rate * math.sqrt(1 - decay_of_squares**iteration) / (1 - decay_of_mean**iteration)


@on_its_card
def _copied(array: Any) -> Any:
    return array.copy()  # CuPy copies to the card that is the current one


def _is_array(param: Any) -> bool:
    return hasattr(param, "shape") and not isinstance(param, np.generic)


def _is_writable(param: Any) -> bool:
    return bool(getattr(param.flags, "writeable", True))  # CuPy's arrays cannot be locked


def _scaled(grads: list[Any], limit: float, xp: Any) -> list[Any]:
    # Down to a norm of `limit`, all together; never waits for a card. Relative to the largest element no square is too large.
    # What is not finite makes everything NaN: a maximum and a minimum keep it.
    filled = [grad for grad in grads if grad.size]
    if not filled:
        return grads
    with np.errstate(all="ignore"):
        largest = xp.abs(filled[0]).max()
        for grad in filled[1:]:
            largest = xp.maximum(largest, xp.abs(grad).max())
        unit = xp.where(largest == 0, xp.ones_like(largest), largest)
        squares = _sum_of_squares(filled[0], unit)
        for grad in filled[1:]:
            squares = squares + _sum_of_squares(grad, unit)
        factor = xp.minimum(limit / unit / xp.sqrt(xp.maximum(squares, 1)), 1)
        return [xp.asarray(grad * factor.astype(grad.dtype)) for grad in grads]  # NumPy makes a number of an array without axes


def _sum_of_squares(grad: Any, unit: Any) -> Any:
    part = grad / unit.astype(grad.dtype)
    part *= part
    return part.sum()


def _limited(grad: Any, limit: float, xp: Any) -> Any:
    clipped = xp.maximum(xp.minimum(grad, limit), -limit)
    return xp.where(xp.isfinite(grad), clipped, grad)
