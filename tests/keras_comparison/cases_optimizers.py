"""Every optimizer and schedule: the same weights after the same gradients as Keras'."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from comparison import TOLERANCE, Case, Checks, keras_in

import xpconv as xc

UPDATES = 12
# A rounding of the first update is carried through the others.
TIMES = 5

# Keras takes the numbers of an optimizer by way of float32, in float64 too: those of the settings here are numbers of float32,
# and what is not (the defaults, the rates of a schedule) is compared in float32 alone.
RATE = 0.125
DECAY = {"learning_rate": RATE, "weight_decay": 0.25}
CLIPPED = (
    {"learning_rate": RATE, "clipnorm": 0.75},
    {"learning_rate": RATE, "clipvalue": 0.25},
    {"learning_rate": RATE, "global_clipnorm": 0.75},
)


def compare_optimizer(checks: Checks, name: str, arguments: Mapping[str, Any], dtype: str, *, excluded: bool = False) -> None:
    """All weights after each of some updates; the second is of zeros alone, and some elements never have a gradient."""
    rng = np.random.default_rng(len(name))
    with keras_in(dtype) as keras:
        ours = getattr(xc.optimizers, name)(**_with_schedule(arguments, xc.optimizers.schedules))
        theirs = getattr(keras.optimizers, name)(**_with_schedule(arguments, keras.optimizers.schedules))
        if excluded:
            ours.exclude_from_weight_decay(var_names=["bias"])
            theirs.exclude_from_weight_decay(var_names=["bias"])
        start = {"kernel": rng.normal(size=(4, 3)).astype(dtype), "bias": rng.normal(size=3).astype(dtype)}
        params = {key: xc.asarray(value.copy(), device=checks.device) for key, value in start.items()}
        variables = [keras.Variable(value, dtype=dtype, name=key) for key, value in start.items()]
        theirs.build(variables)
        for update in range(UPDATES):
            grads = {key: (rng.normal(size=value.shape) * (update != 1)).astype(dtype) for key, value in start.items()}
            grads["bias"][0] = 0
            ours.update(params, {key: xc.asarray(value, device=checks.device) for key, value in grads.items()})
            theirs.apply([keras.ops.convert_to_tensor(value) for value in grads.values()], variables)
            for key, variable in zip(start, variables, strict=True):
                what = f"{name}({_told(arguments)}): {key} after update {update + 1}"
                checks.close(what, xc.to_numpy(params[key]), np.asarray(variable), dtype, times=TIMES)
            checks.close(
                f"{name}: learning rate", ours.learning_rate, np.asarray(theirs.learning_rate), dtype, same_dtype=False
            )
        checks.same(f"{name}: iterations", int(ours.iterations), int(np.asarray(theirs.iterations)))


def _with_schedule(arguments: Mapping[str, Any], schedules: Any) -> dict[str, Any]:
    made = dict(arguments)
    if made.get("learning_rate") == "schedule":
        made["learning_rate"] = schedules.ExponentialDecay(0.1, 3, 0.5)
    return made


def _told(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def optimizer(
    name: str,
    *settings: Mapping[str, Any],
    always: Mapping[str, Any] | None = None,
    more: Callable[[Checks], None] | None = None,
    **known: Any,
) -> Case:
    """The case of an optimizer: each of the settings with the arguments ``always``."""
    always = dict(always or {})
    in_float32 = ({}, {"learning_rate": "schedule"})
    all_settings = [{**given, **always} for given in (*settings, DECAY, *CLIPPED)]

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            mine, other = getattr(xc.optimizers, name), getattr(keras.optimizers, name)
            checks.signature(mine.__init__, other.__init__, **known)
            checks.same(f"{name}: name", mine().name, other().name)
            checks.same(f"get({name.lower()!r})", type(xc.optimizers.get(name.lower())).__name__, name)
        for dtype in TOLERANCE:
            for arguments in [*(in_float32 if dtype == "float32" else ()), *all_settings]:
                compare_optimizer(checks, name, arguments, dtype)
            compare_optimizer(checks, name, {**DECAY, **always}, dtype, excluded=True)
        checks.settings = len(in_float32) + len(all_settings) + 1
        if more is not None:
            more(checks)

    return Case("optimizer", (name,), run, f"weights and learning rate after each of {UPDATES} updates; arguments")


def _own_optimizer(checks: Checks) -> None:
    class Ours(xc.optimizers.Optimizer):
        def update_array(self, param: Any, grad: Any, state: Any, rate: float, place: Any) -> None:
            param -= rate * place.xp.sign(grad)

    rng = np.random.default_rng(0)
    start = rng.normal(size=4)
    params = {"w": start.copy()}
    with keras_in("float64") as keras:

        class Theirs(keras.optimizers.Optimizer):
            def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
                self.assign_sub(variable, learning_rate * keras.ops.sign(gradient))

        variable = keras.Variable(start, dtype="float64")
        ours, theirs = (cls(RATE, clipnorm=1.0, weight_decay=0.25) for cls in (Ours, Theirs))
        theirs.build([variable])
        for _ in range(UPDATES):
            grad = rng.normal(size=4)
            ours.update(params, {"w": grad})
            theirs.apply([keras.ops.convert_to_tensor(grad)], [variable])
            checks.close("an optimizer of one's own", params["w"], np.asarray(variable), "float64", times=TIMES)
        checks.signature(xc.optimizers.Optimizer.__init__, _base_of(keras), added=None)
    checks.differs(
        "`update(params, grads)` takes dictionaries of arrays, Keras' `apply` lists of gradients and variables; an optimizer "
        "of one's own overrides `update_array`, in Keras `update_step`",
        not hasattr(ours, "apply"),
    )
    checks.settings = 1


def _base_of(keras: Any) -> Any:
    # keras.optimizers.Optimizer itself takes anything and hands it on.
    makers = (vars(cls).get("__init__") for cls in keras.optimizers.Optimizer.__mro__)
    return next(maker for maker in makers if maker and "learning_rate" in inspect.signature(maker).parameters)


def _constant_gradient(checks: Checks) -> None:
    # A variance that rounding makes negative.
    grad = np.linspace(0.1, 1, 50, dtype=np.float32)
    params = {"w": np.ones(50, np.float32)}
    with keras_in("float32") as keras:
        arguments = {"learning_rate": 1e-3, "centered": True, "epsilon": 1e-12}
        ours, theirs = xc.optimizers.RMSprop(**arguments), keras.optimizers.RMSprop(**arguments)
        variable = keras.Variable(params["w"].copy())
        theirs.build([variable])
        for _ in range(300):
            ours.update(params, {"w": grad})
            theirs.apply([keras.ops.convert_to_tensor(grad)], [variable])
    checks.differs(
        "with `centered=True` a variance that rounding makes negative counts as 0; Keras takes its root, and the weight "
        "becomes NaN",
        bool(np.isfinite(params["w"]).all()) and not bool(np.isfinite(np.asarray(variable)).all()),
    )


# ---- schedules -----------------------------------------------------------------------------------------------------------


def schedule(
    name: str, *settings: Mapping[str, Any], rough: str = "", skipped: Callable[[float], bool] | None = None, **known: Any
) -> Case:
    """The case of a schedule: the rate of many steps, and far beyond the end."""

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            checks.signature(
                getattr(xc.optimizers.schedules, name).__init__, getattr(keras.optimizers.schedules, name).__init__, **known
            )
        for arguments in settings:
            with keras_in("float64") as keras:
                ours = getattr(xc.optimizers.schedules, name)(**arguments)
                theirs = getattr(keras.optimizers.schedules, name)(**arguments)
                checks.same(f"{name}: name", ours.name, theirs.name)
                mine, other = ours.get_config(), theirs.get_config()
                checks.same(
                    f"{name}: arguments told",
                    {key: _plain(value) for key, value in mine.items()},
                    {key: _plain(value) for key, value in other.items()},
                )
                for step in [*range(60), 1000]:
                    if skipped is None or not skipped(step):
                        rate = np.asarray(theirs(np.int64(step)))
                        # Keras' rates are float32 or float64, as its steps and arguments happen to be.
                        checks.close(f"{name}({_told(arguments)})({step})", ours(step), rate, "float32", same_dtype=False)
        checks.settings = len(settings)

    return Case("schedule", (name,), run, "the rate of 61 steps, in float32 as Keras computes it; arguments; `get_config`")


def _plain(value: Any) -> Any:
    return [float(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _own_schedule(checks: Checks) -> None:
    with keras_in("float32") as keras:

        class Ours(xc.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step: float) -> float:
                return 0.5 / (step + 1)

        class Theirs(keras.optimizers.schedules.LearningRateSchedule):
            def __call__(self, step: Any) -> Any:
                return 0.5 / (keras.ops.cast(step, "float32") + 1)

        ours, theirs = xc.optimizers.SGD(Ours()), keras.optimizers.SGD(Theirs())
        variable = keras.Variable(np.ones(1, np.float32))
        theirs.build([variable])
        params = {"w": np.ones(1, np.float32)}
        for _ in range(5):
            ours.update(params, {"w": np.ones(1, np.float32)})
            theirs.apply([keras.ops.ones((1,))], [variable])
            checks.close("a schedule of one's own: weight", params["w"], np.asarray(variable), "float32")
            checks.close(
                "a schedule of one's own: rate",
                ours.learning_rate,
                np.asarray(theirs.learning_rate),
                "float32",
                same_dtype=False,
            )
    checks.settings = 1


def _warmup(checks: Checks) -> None:
    # What it does, Keras' CosineDecay alone can do.
    with keras_in("float32") as keras:
        ours = xc.optimizers.schedules.Warmup(xc.optimizers.schedules.CosineDecay(0.5, 20), 10, 0.1)
        theirs = keras.optimizers.schedules.CosineDecay(0.1, 20, warmup_target=0.5, warmup_steps=10)
        for step in range(40):
            checks.close("Warmup", ours(step), np.asarray(theirs(step)), "float32", same_dtype=False)
        checks.differs(
            "not in Keras: a rise before any schedule; compared with `CosineDecay(warmup_steps=...)`",
            not hasattr(keras.optimizers.schedules, "Warmup"),
        )
    checks.settings = 1


CASES = [
    Case(
        "optimizer",
        ("Optimizer",),
        _own_optimizer,
        f"an optimizer of one's own: weights after each of {UPDATES} updates; arguments",
    ),
    optimizer("SGD", {"learning_rate": RATE, "momentum": 0.875}, {"learning_rate": RATE, "momentum": 0.875, "nesterov": True}),
    optimizer(
        "RMSprop",
        {},
        {"momentum": 0.875},
        {"centered": True},
        {"momentum": 0.875, "centered": True, "epsilon": 2**-10},
        always={"learning_rate": RATE, "rho": 0.75},
        more=_constant_gradient,
    ),
    optimizer("Adagrad", {}, {"epsilon": 2**-10}, always={"learning_rate": RATE, "initial_accumulator_value": 0.5}),
    optimizer(
        "Adam",
        {},
        {"amsgrad": True},
        {"epsilon": 2**-10},
        always={"learning_rate": RATE, "beta_1": 0.875, "beta_2": 0.96875},
    ),
    optimizer(
        "AdamW",
        {},
        {"amsgrad": True},
        {"weight_decay": 0.5},
        always={"learning_rate": RATE, "beta_1": 0.875, "beta_2": 0.96875, "weight_decay": 0.25},
    ),
    Case("schedule", ("LearningRateSchedule",), _own_schedule, "a schedule of one's own: rates and weights of 5 updates"),
    schedule(
        "ExponentialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5},
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True},
    ),
    schedule(
        "InverseTimeDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5},
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True},
    ),
    schedule("PiecewiseConstantDecay", {"boundaries": [5, 20], "values": [0.1, 0.05, 0.01]}),
    schedule(
        "PolynomialDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 20},
        {"initial_learning_rate": 0.1, "decay_steps": 20, "end_learning_rate": 0.01, "power": 2.0},
        {"initial_learning_rate": 0.1, "decay_steps": 20, "cycle": True},
    ),
    schedule(
        "CosineDecay",
        {"initial_learning_rate": 0.1, "decay_steps": 20},
        {"initial_learning_rate": 0.1, "decay_steps": 20, "alpha": 0.1},
        {"initial_learning_rate": 0.1, "decay_steps": 20, "warmup_target": 0.5, "warmup_steps": 10},
    ),
    schedule(
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 10},
        {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.5, "m_mul": 0.5, "alpha": 0.1},
        {"initial_learning_rate": 0.1, "first_decay_steps": 10, "t_mul": 1.0},
    ),
    Case("schedule", ("Warmup",), _warmup, "the rate of 40 steps"),
]
