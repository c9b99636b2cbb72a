"""Every activation, initializer and regularizer beside Keras'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from comparison import ROUGH, TOLERANCE, Case, Checks, keras_gradients, keras_in

import xpconv as xc

# ---- activations ---------------------------------------------------------------------------------------------------------

GRID = np.concatenate([np.linspace(-9, 9, 145), [-1e4, -90, -1e-5, 0.0, 1e-5, 90, 1e4, np.nan]])
ROWS = np.concatenate([np.random.default_rng(0).normal(size=(5, 6)) * 3, [[0.0, 0, 0, 0, 0, 90], [-90, 0, 1, 2, 3, 4]]])


def activation(
    name: str,
    function: str,
    *settings: Mapping[str, Any],
    x: Any = GRID,
    rough: str = "",
    kink: float = np.nan,
    why_at_kink: str = "",
    compared: str = "values and gradients, at 0, huge numbers and (values alone) NaN, too; arguments; `get`",
    **known: Any,
) -> Case:
    """The case of an activation.

    Args:
        name: Its class.
        function: Keras' function.
        settings: Arguments.
        x: What it is given.
        rough: Why Keras' float64 is not exact, where it is not.
        kink: Where the gradients may differ, since there is none.
        why_at_kink: How.
        compared: What is compared.
        known: What is known of its arguments.
    """

    def run(checks: Checks) -> None:
        cls = getattr(xc.activations, name)
        with keras_in("float32") as keras:
            checks.signature(
                cls.__init__ if "__init__" in vars(cls) else lambda: None,
                _without_x(getattr(keras.activations, function)),
                **known,
            )
            checks.same(f"get({function!r})", type(xc.activations.get(function)).__name__, name)
            checks.same(f"activations.{function}", getattr(xc.activations, function).name, function)
        for dtype in TOLERANCE:
            times = ROUGH if rough and dtype == "float64" else 1
            for arguments in settings or ({},):
                given = x.astype(dtype)
                dy = np.linspace(0.5, 1.5, given.size).reshape(given.shape).astype(dtype)
                layer = xc.layers.Activation(cls(**arguments), dtype=dtype, device=checks.device)
                y = layer(given)
                dx = xc.to_numpy(layer.backward(dy))
                with keras_in(dtype) as keras:
                    theirs, (gradient,), _ = keras_gradients(
                        lambda tensor, given=arguments: getattr(keras.activations, function)(tensor, **given), [given], [], dy
                    )
                what = f"{name}({dict(arguments)})"
                called = xc.to_numpy(cls(**arguments)(given, device=checks.device))
                _close(checks, f"{what}: values", given, xc.to_numpy(y), theirs, dtype, times)
                _close(checks, f"{what}: values, called", given, called, theirs, dtype, times)
                at_kink = np.isclose(given, kink)
                part = ~np.isnan(given) & ~at_kink if given.ndim == 1 else ...
                _close(checks, f"{what}: gradient", given[part], dx[part], gradient[part], dtype, times)
                if at_kink.any() and why_at_kink not in checks.differences:
                    checks.differs(why_at_kink, not np.allclose(dx[at_kink], gradient[at_kink], rtol=1e-3))
        checks.settings = max(len(settings), 1)
        if rough:
            checks.differs(rough, checks.largest["float64"] > TOLERANCE["float64"])

    return Case("activation", (name,), run, compared)


def _close(checks: Checks, what: str, x: Any, ours: Any, theirs: Any, dtype: str, times: float) -> None:
    # Huge numbers apart from the others, whose differences would be small beside them.
    if x.ndim > 1:
        checks.close(what, ours, theirs, dtype, times=times)
        return
    is_huge = ~(np.abs(x) <= 9)
    for part in (is_huge, ~is_huge):
        checks.close(what, ours[part], theirs[part], dtype, times=times)


def _without_x(function: Callable[..., Any]) -> Callable[..., Any]:
    # The array is what the object is called on, the rest its arguments.
    import inspect

    def stands_for() -> None: ...

    stands_for.__signature__ = inspect.Signature(list(inspect.signature(function).parameters.values())[1:])  # type: ignore[attr-defined]
    return stands_for


def _own_activation(checks: Checks) -> None:
    class Square(xc.activations.Activation):
        name = "square"

        def forward(self, x: Any, place: Any) -> Any:
            return x * x

        def backward(self, dy: Any, x: Any, y: Any, place: Any) -> Any:
            return 2 * x * dy

    for dtype in TOLERANCE:
        x = ROWS.astype(dtype)
        with keras_in(dtype) as keras:
            theirs = keras.layers.Dense(3, activation=lambda z: z * z, dtype=dtype)
            ours = xc.layers.Dense(3, activation=Square(), dtype=dtype, device=checks.device)
            theirs.build(x.shape)
            ours.build(x.shape)
            ours.set_weights(theirs.get_weights())
            y = ours(x)
            dy = np.ones(y.shape, dtype)
            expected, (dx,), _ = keras_gradients(theirs, [x], [], dy)
        checks.close("an activation of one's own: values", xc.to_numpy(y), expected, dtype)
        checks.close("an activation of one's own: gradients", xc.to_numpy(ours.backward(dy)), dx, dtype)
    try:
        xc.layers.Dense(3, activation=lambda z: z * z)
        refused = False
    except TypeError:
        refused = True
    checks.differs("an activation of one's own is a class with `forward` and `backward`, in Keras a function", refused)
    checks.settings = 1


# ---- initializers --------------------------------------------------------------------------------------------------------

SHAPES = ((50, 80), (3, 4, 20, 30), (4000,))


def exact(name: str, *settings: Mapping[str, Any], shapes: tuple[tuple[int, ...], ...] = SHAPES) -> Case:
    """The case of an initializer that draws nothing."""

    def run(checks: Checks) -> None:
        for dtype in TOLERANCE:
            with keras_in(dtype) as keras:
                mine, other = getattr(xc.initializers, name), getattr(keras.initializers, name)
                if dtype == "float32":
                    _compare_initializer(checks, name, mine, other)
                for arguments in settings:
                    for shape in shapes:
                        theirs = np.asarray(other(**arguments)(shape, dtype=dtype))
                        checks.close(
                            f"{name}({dict(arguments)}) of {shape}", mine(**arguments)(shape, dtype=dtype), theirs, dtype
                        )
        checks.settings = len(settings)

    return Case("initializer", (name,), run, "values; arguments; `get`")


def drawn(name: str, *settings: Mapping[str, Any], shapes: tuple[tuple[int, ...], ...] = SHAPES, **known: Any) -> Case:
    """The case of an initializer of random numbers: their distribution is the same, they are not."""

    def run(checks: Checks) -> None:
        with keras_in("float32") as keras:
            mine, other = getattr(xc.initializers, name), getattr(keras.initializers, name)
            _compare_initializer(checks, name, mine, other, **known)
            are_other = False
            for arguments in settings:
                for shape in shapes:
                    draws = range(1 if name == "Orthogonal" else max(1, 20000 // int(np.prod(shape))))
                    ours = np.concatenate([mine(**arguments, seed=seed)(shape).ravel() for seed in draws])
                    theirs = np.concatenate([np.asarray(other(**arguments, seed=seed)(shape)).ravel() for seed in draws])
                    _same_distribution(checks, f"{name}({dict(arguments)}) of {shape}", ours, theirs)
                    are_other |= not np.array_equal(ours, theirs)
                if name == "Orthogonal":
                    w = mine(**arguments, seed=0)(shapes[0])
                    gain = arguments.get("gain", 1.0)
                    checks.close("orthogonal rows", w @ w.T, gain**2 * np.eye(shapes[0][0], dtype=np.float32), "float32")
            checks.same(
                f"{name}: a seed gives the same numbers", bool((mine(seed=1)(shapes[0]) == mine(seed=1)(shapes[0])).all()), True
            )
            checks.differs("the numbers are NumPy's, a seed does not give those of Keras", are_other)
        checks.settings = len(settings)

    return Case("initializer", (name,), run, "the distribution: mean, standard deviation, quantiles, bounds; arguments; `get`")


def _compare_initializer(checks: Checks, name: str, mine: Any, other: Any, **known: Any) -> None:
    checks.signature(
        mine.__init__ if "__init__" in vars(mine) or mine.__init__ is not object.__init__ else (lambda: None),
        _maker(other),
        **known,
    )
    checks.same(f"get({name!r})", type(xc.initializers.get(name)).__name__, name)


def _maker(cls: Any) -> Any:
    return (lambda: None) if cls.__init__ is object.__init__ else cls.__init__


def _same_distribution(checks: Checks, what: str, ours: Any, theirs: Any) -> None:
    # Twenty thousand numbers: a quantile of them is within a few hundredths of a standard deviation.
    scale = float(theirs.std())
    checks.same(f"{what}: dtype", str(ours.dtype), str(theirs.dtype))
    few = 3 / np.sqrt(ours.size) * 2
    for title, of in (("mean", np.mean), ("standard deviation", np.std)):
        if not abs(float(of(ours)) - float(of(theirs))) < few * scale:
            checks.unexpected.append(f"{what}: {title} {of(ours):.4g}, Keras {of(theirs):.4g}")
    for quantile in (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98):
        mine, other = float(np.quantile(ours, quantile)), float(np.quantile(theirs, quantile))
        if not abs(mine - other) < 3 * few * scale:
            checks.unexpected.append(f"{what}: quantile {quantile} is {mine:.4g}, Keras {other:.4g}")
    for title, of in (("smallest", np.min), ("largest", np.max)):
        if not abs(float(of(ours)) - float(of(theirs))) < 1.0 * scale:
            checks.unexpected.append(f"{what}: {title} {of(ours):.4g}, Keras {of(theirs):.4g}")


def _own_initializer(checks: Checks) -> None:
    class Ours(xc.initializers.Initializer):
        def values(self, shape: Any, random: Any) -> Any:
            return np.full(shape, 0.25)

    with keras_in("float32") as keras:

        class Theirs(keras.initializers.Initializer):
            def __call__(self, shape: Any, dtype: Any = None) -> Any:
                return keras.ops.full(shape, 0.25, dtype=dtype)

        for function in (Ours(), lambda shape, dtype: np.full(shape, 0.25, dtype)):
            ours = xc.layers.Dense(3, kernel_initializer=function, device=checks.device)
            theirs = keras.layers.Dense(3, kernel_initializer=Theirs())
            ours.build((None, 4))
            theirs.build((None, 4))
            checks.close("an initializer of one's own", ours.get_weights()[0], theirs.get_weights()[0], "float32")
        checks.differs(
            "an initializer of one's own overrides `values`, in Keras `__call__`; a function does in both",
            hasattr(Ours, "values") and not hasattr(Theirs, "values"),
        )
    checks.settings = 2


def _random_base(checks: Checks) -> None:
    with keras_in("float32") as keras:
        from keras.src.initializers.random_initializers import RandomInitializer

        checks.signature(xc.initializers.RandomInitializer.__init__, RandomInitializer.__init__)
        ours, theirs = xc.initializers.RandomNormal(), keras.initializers.RandomNormal()
        is_repeated = np.array_equal(np.asarray(theirs((5,))), np.asarray(theirs((5,))))
        checks.differs(
            "without a `seed`, each call draws new numbers, from the model's generator or NumPy's global one; in Keras an "
            "initializer gives the same numbers at every call",
            is_repeated and not np.array_equal(ours((5,)), ours((5,))),
        )


# ---- regularizers --------------------------------------------------------------------------------------------------------


def regularizer(name: str, *settings: Mapping[str, Any]) -> Case:
    """The case of a regularizer; the factors are numbers of float32, which Keras keeps them in."""

    def run(checks: Checks) -> None:
        rng = np.random.default_rng(0)
        for dtype in TOLERANCE:
            w = rng.normal(size=(3, 4)).astype(dtype)
            w[0, 0] = 0
            with keras_in(dtype) as keras:
                mine, other = getattr(xc.regularizers, name), getattr(keras.regularizers, name)
                if dtype == "float32":
                    checks.signature(mine.__init__, other.__init__)
                    checks.same(f"get({name!r})", type(xc.regularizers.get(name)).__name__, name)
                for arguments in [*settings, *([{}] if dtype == "float32" else [])]:
                    theirs = other(**arguments)
                    penalty, (gradient,), _ = keras_gradients(theirs, [w])
                    ours = mine(**arguments)
                    checks.close(f"{name}({dict(arguments)}): penalty", np.asarray(ours(w)), penalty, dtype)
                    checks.close(f"{name}({dict(arguments)}): gradient", ours.gradient(w), gradient, dtype)
                    if arguments:
                        checks.same(f"{name}: get_config", ours.get_config(), theirs.get_config())
        checks.settings = len(settings) + 1

    return Case("regularizer", (name,), run, "penalties and gradients; arguments; `get_config`; `get`")


def _own_regularizer(checks: Checks) -> None:
    class Ours(xc.regularizers.Regularizer):
        def __call__(self, w: Any) -> Any:
            return 0.5 * ((w - 1) ** 2).sum()

        def gradient(self, w: Any) -> Any:
            return w - 1

    with keras_in("float64") as keras:

        class Theirs(keras.regularizers.Regularizer):
            def __call__(self, w: Any) -> Any:
                return 0.5 * keras.ops.sum((w - 1) ** 2)

        w = np.random.default_rng(0).normal(size=5)
        penalty, (gradient,), _ = keras_gradients(Theirs(), [w])
        checks.close("penalty", Ours()(w), penalty, "float64")
        checks.close("gradient", Ours().gradient(w), gradient, "float64")
    checks.differs(
        "a regularizer of one's own writes its derivative in `gradient`",
        hasattr(Ours, "gradient") and not hasattr(Theirs, "gradient"),
    )
    checks.settings = 1


SCALED = {"scale": 2.0, "mode": "fan_avg", "distribution": "uniform"}

CASES = [
    Case("activation", ("Activation",), _own_activation, "an activation of one's own: values and gradients"),
    activation("Linear", "linear"),
    activation(
        "ReLU",
        "relu",
        {"threshold": 1.0, "negative_slope": 0.25},
        {},
        {"negative_slope": 0.25},
        {"max_value": 6.0},
        kink=1.0,
        why_at_kink="at the threshold the gradient is that below it, in Keras 0",
    ),
    activation("ReLU6", "relu6"),
    activation(
        "LeakyReLU",
        "leaky_relu",
        {},
        {"negative_slope": 0.25},
        rough="TensorFlow keeps the slope in float32, in float64 too",
    ),
    activation("ELU", "elu", {}, {"alpha": 0.5}),
    activation("SELU", "selu", kink=0.0, why_at_kink="at 0 the gradient is that below it, in TensorFlow that above it"),
    activation("Sigmoid", "sigmoid"),
    activation("HardSigmoid", "hard_sigmoid"),
    activation("Tanh", "tanh"),
    activation("Softplus", "softplus"),
    activation("Softsign", "softsign"),
    activation("Exponential", "exponential"),
    activation("GELU", "gelu", {}, {"approximate": True}, rough="TensorFlow has its constants in float32, in float64 too"),
    activation("SiLU", "silu"),
    activation("HardSiLU", "hard_silu"),
    activation("Mish", "mish"),
    activation("Softmax", "softmax", {}, {"axis": 0}, x=ROWS),
    activation("LogSoftmax", "log_softmax", {}, {"axis": 0}, x=ROWS),
    Case("initializer", ("Initializer",), _own_initializer, "an initializer of one's own, and a function"),
    Case("initializer", ("RandomInitializer",), _random_base, "what a seed does; arguments"),
    exact("Zeros", {}),
    exact("Ones", {}),
    exact("Constant", {}, {"value": 0.5}),
    exact("Identity", {}, {"gain": 2.0}, shapes=((5, 5), (3, 5))),
    drawn("RandomUniform", {}, {"minval": 0.0, "maxval": 2.0}),
    drawn("RandomNormal", {}, {"mean": 1.0, "stddev": 2.0}),
    drawn("TruncatedNormal", {}, {"mean": 1.0, "stddev": 2.0}),
    drawn("VarianceScaling", {}, SCALED, {**SCALED, "distribution": "untruncated_normal", "mode": "fan_out"}),
    *(drawn(name, {}) for name in ("GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal")),
    drawn("Orthogonal", {}, {"gain": 2.0}, shapes=((50, 80), (3, 4, 20, 30))),
    Case("regularizer", ("Regularizer",), _own_regularizer, "a regularizer of one's own: penalty and gradient"),
    regularizer("L1", {"l1": 0.5}),
    regularizer("L2", {"l2": 0.5}),
    regularizer("L1L2", {"l1": 0.5, "l2": 0.25}),
]
