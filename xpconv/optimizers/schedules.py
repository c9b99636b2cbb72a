"""Learning rates that change from update to update: an optimizer takes a schedule in the place of a number.

    >>> import xpconv as xc
    >>> schedule = xc.optimizers.schedules.ExponentialDecay(0.1, decay_steps=1000, decay_rate=0.5)
    >>> schedule(0), schedule(1000), schedule(2000)
    (0.1, 0.05, 0.025)
    >>> optimizer = xc.SGD(learning_rate=schedule)

A schedule is a function of the number of updates made so far, so a training that goes on from a checkpoint goes on with the
rate that it stopped with. The formulas and arguments are Keras'; they are computed in double precision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from xpconv.arguments import boolean, not_negative, number, positive
from xpconv.configuration import Described, as_call, found, plain
from xpconv.geometry import integer

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "Warmup",
    "get",
]


class LearningRateSchedule(Described, ABC):
    """A learning rate for every update. Derive from it for a schedule of your own, and override ``__call__``.

    Example:
        >>> import xpconv as xc
        >>> class Halving(xc.optimizers.schedules.LearningRateSchedule):
        ...     def __init__(self, first):
        ...         self.first = first
        ...     def __call__(self, step):
        ...         return self.first / 2**step
        >>> optimizer = xc.SGD(Halving(0.5))
        >>> optimizer.learning_rate
        0.5
        >>> optimizer.iteration = 3
        >>> optimizer.learning_rate
        0.0625
    """

    @abstractmethod
    def __call__(self, step: float) -> float:
        """The learning rate of an update.

        Args:
            step: Number of updates before it.
        """

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such a schedule again, in values that JSON has.

        Raises:
            NotImplementedError: An argument was not kept as an attribute of its name; override this method then.

        Example:
            >>> import xpconv as xc
            >>> xc.optimizers.schedules.PiecewiseConstantDecay([100], [0.1, 0.01]).get_config()
            {'boundaries': [100], 'values': [0.1, 0.01], 'name': 'PiecewiseConstant'}
        """
        return super().get_config()

    def __repr__(self) -> str:
        return as_call(self, {name: value for name, value in self.get_config().items() if name != "name"})


class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    Args:
        initial_learning_rate: The rate of the first update.
        decay_steps: Updates in which the rate is multiplied by ``decay_rate`` once.
        decay_rate: What it is multiplied by.
        staircase: Whether the exponent is rounded down, so that the rate falls in steps.
        name: A name for the schedule, which :meth:`get_config` tells.

    Raises:
        ValueError, TypeError: A rate or ``decay_steps`` is no positive number.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True)
        >>> schedule(9), schedule(10)
        (0.1, 0.05)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        op = type(self).__name__
        self.initial_learning_rate = positive(op, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _duration(op, "decay_steps", decay_steps)
        self.decay_rate = positive(op, "decay_rate", decay_rate)
        self.staircase = boolean(op, "staircase", staircase)
        self.name = name

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        periods = _checked(self, step) / self.decay_steps
        return self.initial_learning_rate * _power(self.decay_rate, math.floor(periods) if self.staircase else periods)


class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``.

    Args:
        initial_learning_rate: The rate of the first update.
        decay_steps: How many updates the divisor takes to grow by ``decay_rate``.
        decay_rate: How fast the divisor grows.
        staircase: Whether ``step / decay_steps`` is rounded down, so that the rate falls in steps.
        name: A name for the schedule, which :meth:`get_config` tells.

    Raises:
        ValueError, TypeError: ``initial_learning_rate`` or ``decay_steps`` is not positive, or ``decay_rate`` is negative.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.InverseTimeDecay(0.1, decay_steps=10, decay_rate=1)
        >>> schedule(0), schedule(10), schedule(30)
        (0.1, 0.05, 0.025)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        op = type(self).__name__
        self.initial_learning_rate = positive(op, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _duration(op, "decay_steps", decay_steps)
        self.decay_rate = not_negative(op, "decay_rate", decay_rate)
        self.staircase = boolean(op, "staircase", staircase)
        self.name = name

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        periods = _checked(self, step) / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (math.floor(periods) if self.staircase else periods))


class PiecewiseConstantDecay(LearningRateSchedule):
    """One rate up to each boundary, itself included, and one after the last.

    Args:
        boundaries: Numbers of updates, rising.
        values: The rates: one more than boundaries.
        name: A name for the schedule, which :meth:`get_config` tells.

    Raises:
        ValueError, TypeError: The numbers of entries do not fit, the boundaries do not rise, or a rate is negative.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.PiecewiseConstantDecay([100, 200], [0.1, 0.01, 0.001])
        >>> schedule(100), schedule(101), schedule(1000)
        (0.1, 0.01, 0.001)
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        op = type(self).__name__
        limits = [_whole(number(op, f"boundaries[{i}]", entry)) for i, entry in enumerate(boundaries)]
        self.values = [not_negative(op, f"values[{i}]", entry) for i, entry in enumerate(values)]
        if len(self.values) != len(limits) + 1:
            raise ValueError(
                f"{op}: values must have one entry more than boundaries, got {len(self.values)} values and "
                f"{len(limits)} boundaries"
            )
        if not all(0 <= limit < math.inf for limit in limits) or sorted(set(limits)) != limits:
            raise ValueError(f"{op}: boundaries must be numbers of updates that rise, got {list(boundaries)}")
        self.boundaries = limits
        self.name = name

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        passed = _checked(self, step)
        return self.values[sum(passed > limit for limit in self.boundaries)]


class PolynomialDecay(LearningRateSchedule):
    """``(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power + end_learning_rate``.

    Args:
        initial_learning_rate: The rate of the first update.
        decay_steps: Updates until ``end_learning_rate`` is reached, where the rate stays.
        end_learning_rate: The last rate.
        power: Exponent; 1 is a straight line.
        cycle: Whether the rate rises again then, and falls in twice as many updates as the first time, and so on:
            ``decay_steps`` is the first multiple of itself that ``step`` does not exceed.
        name: A name for the schedule, which :meth:`get_config` tells.

    Raises:
        ValueError, TypeError: ``initial_learning_rate`` or ``decay_steps`` is no positive number, or another one is negative.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.PolynomialDecay(0.5, decay_steps=100, end_learning_rate=0.25)
        >>> schedule(0), schedule(50), schedule(1000)
        (0.5, 0.375, 0.25)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        op = type(self).__name__
        self.initial_learning_rate = positive(op, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _duration(op, "decay_steps", decay_steps)
        self.end_learning_rate = not_negative(op, "end_learning_rate", end_learning_rate)
        self.power = not_negative(op, "power", power)
        self.cycle = boolean(op, "cycle", cycle)
        self.name = name

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        step, decay_steps = _checked(self, step), self.decay_steps
        if self.cycle:
            decay_steps *= max(1, math.ceil(step / decay_steps))
        left = 1 - min(step, decay_steps) / decay_steps
        return (self.initial_learning_rate - self.end_learning_rate) * math.pow(left, self.power) + self.end_learning_rate


class CosineDecay(LearningRateSchedule):
    """Half a wave of a cosine from the first rate down to ``alpha`` of it, after a straight rise if there is to be one.

    Without a warm-up, ``initial_learning_rate * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)``. With one the
    rate rises from ``initial_learning_rate`` to ``warmup_target`` in ``warmup_steps`` updates, and falls from there in
    ``decay_steps`` more (Loshchilov and Hutter, arXiv:1608.03983; Goyal et al., arXiv:1706.02677).

    Args:
        initial_learning_rate: The rate of the first update; 0 is possible where there is a warm-up.
        decay_steps: Updates of the decay.
        alpha: The last rate as a share of the highest one.
        name: A name for the schedule, which :meth:`get_config` tells.
        warmup_target: The rate that the warm-up leads to; None for no warm-up.
        warmup_steps: Updates of the warm-up.

    Raises:
        ValueError, TypeError: A number is out of range, or ``warmup_steps`` are given without a ``warmup_target``, which Keras
            lets pass and ignores.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.CosineDecay(0.0, decay_steps=100, warmup_target=0.5, warmup_steps=10)
        >>> schedule(0), schedule(5), schedule(10), round(schedule(60), 12), schedule(110)
        (0.0, 0.25, 0.5, 0.25, 0.0)
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        op = type(self).__name__
        first = positive if warmup_target is None else not_negative
        self.initial_learning_rate = first(op, "initial_learning_rate", initial_learning_rate)
        self.decay_steps = _duration(op, "decay_steps", decay_steps)
        self.alpha = not_negative(op, "alpha", alpha)
        self.name = name
        self.warmup_target = None if warmup_target is None else positive(op, "warmup_target", warmup_target)
        self.warmup_steps = integer(op, "warmup_steps", warmup_steps, 0)
        if warmup_target is None and self.warmup_steps:
            raise ValueError(f"{op}: warmup_steps={warmup_steps} needs warmup_target, the rate that the warm-up leads to")

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        step, first, highest = _checked(self, step), self.initial_learning_rate, self.warmup_target
        if highest is None:
            highest = first
        elif step < self.warmup_steps:
            return (highest - first) * (step / self.warmup_steps) + first
        share = min(step - self.warmup_steps, self.decay_steps) / self.decay_steps
        return highest * ((1 - self.alpha) * _half_wave(share) + self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decays one after the other, each ``t_mul`` times as long as the one before (SGDR, arXiv:1608.03983).

    Args:
        initial_learning_rate: The rate of the first update.
        first_decay_steps: Updates of the first decay.
        t_mul: How much longer each next decay is; at least 1.
        m_mul: What the rate of a restart is multiplied by, each time.
        alpha: The lowest rate as a share of ``initial_learning_rate``.
        name: A name for the schedule, which :meth:`get_config` tells.

    Raises:
        ValueError, TypeError: A number is out of range.

    Notes:
        Where a decay ends is computed exactly; Keras takes a logarithm in single precision, and may restart an update early or
        late. With ``t_mul`` below 1, which is refused here, Keras' rate becomes NaN.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.CosineDecayRestarts(0.5, first_decay_steps=10, m_mul=0.5)
        >>> [round(schedule(step), 12) for step in (0, 5, 10, 20, 30)]
        [0.5, 0.25, 0.25, 0.125, 0.125]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        op = type(self).__name__
        self.initial_learning_rate = positive(op, "initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = _duration(op, "first_decay_steps", first_decay_steps)
        self.t_mul = positive(op, "t_mul", t_mul)
        if self.t_mul < 1:
            raise ValueError(f"{op}: t_mul must be at least 1, or the restarts come to an end, got {t_mul!r}")
        self.m_mul = positive(op, "m_mul", m_mul)
        self.alpha = not_negative(op, "alpha", alpha)
        self.name = name

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        periods = _checked(self, step) / self.first_decay_steps
        restarts = self._restarts(periods)
        share = (periods - self._start(restarts)) / self.t_mul**restarts
        wave = _power(self.m_mul, restarts) * _half_wave(share)
        return self.initial_learning_rate * ((1 - self.alpha) * wave + self.alpha)

    def _start(self, restarts: int) -> float:
        # Of the decay after so many restarts, in lengths of the first one.
        return restarts if self.t_mul == 1 else (self.t_mul**restarts - 1) / (self.t_mul - 1)

    def _restarts(self, periods: float) -> int:
        if self.t_mul == 1:
            return math.floor(periods)
        # The logarithm may be rounded across a whole number.
        near = round(math.log1p(periods * (self.t_mul - 1)) / math.log(self.t_mul))
        return near if self._start(near) <= periods else near - 1


class Warmup(LearningRateSchedule):
    """A straight rise to the first rate of another schedule, which begins after it. Not in Keras.

    Args:
        learning_rate: The schedule that follows, or a number.
        warmup_steps: Updates of the rise.
        initial_learning_rate: The rate of the first update.
        name: A name for the schedule, which :meth:`get_config` tells.

    Raises:
        ValueError, TypeError: A number is out of range, or ``learning_rate`` is neither a number nor a schedule.

    Example:
        >>> import xpconv as xc
        >>> schedule = xc.optimizers.schedules.Warmup(0.5, warmup_steps=4)
        >>> [schedule(step) for step in range(6)]
        [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        warmup_steps: int,
        initial_learning_rate: float = 0.0,
        name: str = "Warmup",
    ) -> None:
        op = type(self).__name__
        self.learning_rate = rate_or_schedule(op, learning_rate)
        self.warmup_steps = integer(op, "warmup_steps", warmup_steps, 1)
        self.initial_learning_rate = not_negative(op, "initial_learning_rate", initial_learning_rate)
        self.name = name

    def __call__(self, step: float) -> float:
        """The learning rate after ``step`` updates."""
        step = _checked(self, step)
        later = step - self.warmup_steps
        after = self.learning_rate
        target = after(max(0, later)) if isinstance(after, LearningRateSchedule) else after
        if later >= 0:
            return target
        return (target - self.initial_learning_rate) * (step / self.warmup_steps) + self.initial_learning_rate

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such a schedule again, in values that JSON has."""
        return {**super().get_config(), "learning_rate": plain(self.learning_rate)}


_KNOWN: dict[str, type[LearningRateSchedule]] = {
    schedule.__name__: schedule
    for schedule in (
        CosineDecay,
        CosineDecayRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        Warmup,
    )
}


def get(identifier: Any, op: str = "get") -> LearningRateSchedule:
    """Find the schedule that an object or a configuration stands for.

    Args:
        identifier: A schedule, or ``{"class_name": ..., "config": ...}`` as :func:`xpconv.optimizers.get` takes it.
        op: Name of the public function or class, for messages.

    Raises:
        ValueError: There is no such class.
        TypeError: Neither a schedule nor a configuration.

    Example:
        >>> import xpconv as xc
        >>> config = {"initial_learning_rate": 0.1, "decay_steps": 100}
        >>> xc.optimizers.schedules.get({"class_name": "CosineDecay", "config": config})
        CosineDecay(initial_learning_rate=0.1, decay_steps=100, alpha=0.0, warmup_target=None, warmup_steps=0)
    """
    expected = "an object of xpconv.optimizers.schedules, or a dictionary of its 'class_name' and 'config'"
    if isinstance(identifier, (str, type)):  # without arguments there is none
        raise TypeError(f"{op}: a schedule must be {expected}, got {identifier!r}")
    return found(op, "schedule", identifier, LearningRateSchedule, _KNOWN, expected)


def rate_or_schedule(op: str, learning_rate: Any) -> float | LearningRateSchedule:
    """Check an argument ``learning_rate``: a positive number, a schedule or the configuration of one.

    Raises:
        ValueError, TypeError: It is none of these.
    """
    if isinstance(learning_rate, (LearningRateSchedule, dict)):
        return get(learning_rate, op)
    if callable(learning_rate):
        raise TypeError(
            f"{op}: learning_rate must be a number, or a schedule derived from "
            f"xpconv.optimizers.schedules.LearningRateSchedule, got {learning_rate!r}"
        )
    return positive(op, "learning_rate", learning_rate)


def _checked(schedule: LearningRateSchedule, step: float) -> float:
    if not 0 <= number(type(schedule).__name__, "step", step) < math.inf:
        raise ValueError(f"{type(schedule).__name__}: step must be a number of updates, got {step!r}")
    return step if type(step) is int else float(step)


def _duration(op: str, name: str, value: Any) -> float:
    return _whole(positive(op, name, value))


def _whole(value: float) -> float:
    # As whole numbers are written.
    return int(value) if math.isfinite(value) and value == int(value) else value


def _half_wave(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:  # the optimizer refuses it as a rate
        return math.inf
