"""What weights are before training: Keras' initializers, and how large the book's initial weights are.

The distributions are Keras', with the same limits and standard deviations; the random numbers are NumPy's, so a seed does not
give the numbers that it gives in Keras. They are drawn on the host in float64, so that every device and dtype starts from the
same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from xpconv.arguments import finite, not_negative, positive
from xpconv.configuration import Described, found
from xpconv.geometry import integer
from xpconv.naming import resolve

# Name of a rule -> the variance that it gives to each of n inputs, times n.
VARIANCES = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}


def initial_std(op: str, weight_init_std: float | str, inputs: int) -> float:
    """Standard deviation of the initial weights of a layer.

    Args:
        op: Name of the public class, for messages.
        weight_init_std: The standard deviation itself; or ``"relu"`` or ``"he"`` for ``sqrt(2 / inputs)`` (He et al.,
            arXiv:1502.01852), ``"sigmoid"`` or ``"xavier"`` for ``sqrt(1 / inputs)`` (the book's form of Glorot and Bengio's
            rule).
        inputs: Number of inputs that each output of the layer sums.

    Raises:
        TypeError: Neither a number nor a name.
        ValueError: A negative or infinite number, or an unknown name.

    Example:
        >>> from xpconv.initializers import initial_std
        >>> initial_std("SimpleConvNet", "he", inputs=200)
        0.1
    """
    if isinstance(weight_init_std, str):
        if weight_init_std.lower() not in VARIANCES:
            raise ValueError(
                f"{op}: weight_init_std must be a number or one of {', '.join(map(repr, VARIANCES))}, got {weight_init_std!r}"
            )
        return math.sqrt(VARIANCES[weight_init_std.lower()] / inputs)
    try:
        return not_negative(op, "weight_init_std", weight_init_std)
    except TypeError:
        raise TypeError(f"{op}: weight_init_std must be a number or a name, got {weight_init_std!r}") from None


class Initializer(Described):
    """What all initializers share. Derive from it for one of your own, and override :meth:`values`.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> class Ramp(xc.initializers.Initializer):
        ...     def values(self, shape, random):
        ...         return np.linspace(0, 1, math.prod(shape)).reshape(shape)
        >>> Ramp()((1, 3))
        array([[0. , 0.5, 1. ]], dtype=float32)
    """

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = "float32", random: Any = None) -> NDArray[Any]:
        """Make the initial value of a weight.

        Args:
            shape: Shape of the weight.
            dtype: A floating dtype.
            random: A :class:`numpy.random.Generator`, or the module ``numpy.random`` for its global generator, which None
                stands for. An initializer with a seed of its own does not ask it.

        Returns:
            A new NumPy array.

        Raises:
            TypeError: ``dtype`` is no floating dtype.
            ValueError: A shape that this initializer has no values for.
        """
        chosen = np.dtype(dtype)
        if chosen.kind != "f":
            raise TypeError(f"{type(self).__name__}: dtype must be a floating dtype, got {chosen}")
        values = self.values(tuple(shape), np.random if random is None else random)
        with np.errstate(over="ignore"):  # beyond the dtype's range is infinite
            return np.array(values, dtype=chosen, order="C")

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """The values, of this shape, in float64."""
        raise NotImplementedError(f"{type(self).__name__} must override values")


class Zeros(Initializer):
    """All 0.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.Zeros()((2,))
        array([0., 0.], dtype=float32)
    """

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """The values, of this shape."""
        return np.zeros(shape)


class Ones(Initializer):
    """All 1.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.Ones()((2,))
        array([1., 1.], dtype=float32)
    """

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """The values, of this shape."""
        return np.ones(shape)


class Constant(Initializer):
    """A number everywhere, or given numbers.

    Args:
        value: The number; or an array, of the very shape of the weight: nothing is broadcast.

    Raises:
        TypeError: ``value`` is neither.

    Notes:
        Keras 3 documents numbers alone, and takes an array in place of an initializer; both work here.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.Constant(0.1)((2,), "float64"), xc.initializers.Constant([1, 2])((2,), "float64")
        (array([0.1, 0.1]), array([1., 2.]))
    """

    def __init__(self, value: ArrayLike = 0.0) -> None:
        try:
            self.value = np.array(value, np.float64).tolist()
        except (TypeError, ValueError):
            raise TypeError(f"Constant: value must be a number or an array of numbers, got {value!r}") from None

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """The values, of this shape."""
        value = np.array(self.value)
        if value.ndim and value.shape != shape:
            raise ValueError(f"Constant: value has the shape {value.shape}, and the weight {shape}")
        return np.broadcast_to(value, shape)


class Identity(Initializer):
    """The identity matrix, times a factor.

    Args:
        gain: The factor.

    Raises:
        TypeError, ValueError: ``gain`` is no finite number.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.Identity(2.0)((2, 3))
        array([[2., 0., 0.],
               [0., 2., 0.]], dtype=float32)
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = finite("Identity", "gain", gain)

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """The values, of this shape."""
        if len(shape) != 2:
            raise ValueError(f"Identity: the weight must be a matrix, got shape {shape}")
        return self.gain * np.eye(*shape)


class RandomInitializer(Initializer):
    """What the random initializers share.

    Args:
        seed: An integer of at least 0, for the same numbers at every call; None for numbers of the model's, or of NumPy's
            global generator, others at every call.

    Raises:
        TypeError, ValueError: ``seed`` is neither.

    Notes:
        In Keras an initializer without a seed picks one when it is made, and also gives the same numbers at every call.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = None if seed is None else integer(type(self).__name__, "seed", seed, 0)

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """The values, of this shape."""
        return self.draw(shape, random if self.seed is None else np.random.default_rng(self.seed))

    def draw(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """Draw the values, of this shape, in float64."""
        raise NotImplementedError(f"{type(self).__name__} must override draw")


class RandomUniform(RandomInitializer):
    """Numbers between two limits, each as likely as any other.

    Args:
        minval: The lower limit.
        maxval: The upper limit.
        seed: See :class:`RandomInitializer`.

    Raises:
        TypeError, ValueError: Limits that are not finite numbers, or in the wrong order; a wrong ``seed``.

    Example:
        >>> import xpconv as xc
        >>> abs(xc.initializers.RandomUniform(-0.1, 0.1)((1000,))).max() <= 0.1
        np.True_
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = finite("RandomUniform", "minval", minval), finite("RandomUniform", "maxval", maxval)
        if self.minval > self.maxval:
            raise ValueError(f"RandomUniform: minval must not be above maxval, got minval={minval!r}, maxval={maxval!r}")

    def draw(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """Draw the values."""
        return _uniform(shape, self.minval, self.maxval, random)


class RandomNormal(RandomInitializer):
    """Numbers of a normal distribution.

    Args:
        mean: Its mean.
        stddev: Its standard deviation, at least 0.
        seed: See :class:`RandomInitializer`.

    Raises:
        TypeError, ValueError: A mean or standard deviation that is no such number; a wrong ``seed``.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.RandomNormal(stddev=0.01)((3, 3, 1, 8)).shape
        (3, 3, 1, 8)
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = finite("RandomNormal", "mean", mean)
        self.stddev = not_negative("RandomNormal", "stddev", stddev)

    def draw(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """Draw the values."""
        return np.asarray(self.mean + self.stddev * random.standard_normal(shape))


class TruncatedNormal(RandomInitializer):
    """Numbers of a normal distribution; those further than two standard deviations from the mean are drawn again.

    Args:
        mean: Its mean.
        stddev: Its standard deviation, at least 0; that of what is drawn is 0.8796 times as large.
        seed: See :class:`RandomInitializer`.

    Raises:
        TypeError, ValueError: A mean or standard deviation that is no such number; a wrong ``seed``.

    Example:
        >>> import xpconv as xc
        >>> abs(xc.initializers.TruncatedNormal(stddev=0.05)((1000,))).max() <= 0.1
        np.True_
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = finite("TruncatedNormal", "mean", mean)
        self.stddev = not_negative("TruncatedNormal", "stddev", stddev)

    def draw(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """Draw the values."""
        return self.mean + self.stddev * _truncated_normal(shape, random)


class VarianceScaling(RandomInitializer):
    """Random numbers whose variance is ``scale / n``, where n depends on how many inputs and outputs the weight joins.

    Of a matrix (inputs, outputs) and of a convolution's kernel (height, width, inputs, outputs), *fan in* is height * width *
    inputs and *fan out* height * width * outputs.

    Args:
        scale: The variance times n, above 0.
        mode: What n is: ``"fan_in"``, ``"fan_out"``, or ``"fan_avg"``, the mean of the two; at least 1.
        distribution: ``"truncated_normal"`` (or ``"normal"``), cut off at two standard deviations of the normal distribution
            it is made of; ``"untruncated_normal"``; or ``"uniform"``, within ``sqrt(3 * scale / n)`` of 0.
        seed: See :class:`RandomInitializer`.
        input_axes: Axes of the weight whose sizes multiply to fan in, given together with ``output_axes``; None for those
            above.
        output_axes: Axes of the weight whose sizes multiply to fan out.

    Raises:
        TypeError, ValueError: A wrong argument.

    Example:
        >>> import xpconv as xc
        >>> he = xc.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed=0)
        >>> round(float(he((3, 3, 8, 500)).std() ** 2 * 3 * 3 * 8), 1)
        2.0
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        op = type(self).__name__
        self.scale = positive(op, "scale", scale)
        self.mode = mode
        self._fan = resolve(op, "mode", mode, _MODES)
        self.distribution = distribution
        self._draw = resolve(op, "distribution", distribution, _DISTRIBUTIONS)
        if (input_axes is None) != (output_axes is None):
            raise ValueError(
                f"{op}: input_axes and output_axes must be given together, got input_axes={input_axes!r}, "
                f"output_axes={output_axes!r}"
            )
        self.input_axes = None if input_axes is None else [int(axis) for axis in input_axes]
        self.output_axes = None if output_axes is None else [int(axis) for axis in output_axes]

    def draw(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """Draw the values."""
        if self.input_axes is None or self.output_axes is None:
            fan_in, fan_out = _fans(shape)
        else:
            op = type(self).__name__
            fan_in, fan_out = _product(op, shape, self.input_axes), _product(op, shape, self.output_axes)
        return self._draw(shape, math.sqrt(self.scale / max(1.0, self._fan(fan_in, fan_out))), random)


class _Rule(VarianceScaling):
    """A rule with a name of its own: variance scaling with these three."""

    rule: tuple[float, str, str]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self.rule, seed, input_axes, output_axes)


class GlorotUniform(_Rule):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))`` of 0 (Glorot and Bengio, AISTATS 2010); Keras' default for kernels.

    Args:
        seed: See :class:`RandomInitializer`.
        input_axes: See :class:`VarianceScaling`.
        output_axes: See :class:`VarianceScaling`.

    Example:
        >>> import xpconv as xc
        >>> abs(xc.initializers.GlorotUniform()((200, 400))).max() <= 0.1
        np.True_
    """

    rule = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Rule):
    """Truncated normal with the variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio, AISTATS 2010).

    Args:
        seed: See :class:`RandomInitializer`.
        input_axes: See :class:`VarianceScaling`.
        output_axes: See :class:`VarianceScaling`.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.GlorotNormal(seed=0)((20, 40)).shape
        (20, 40)
    """

    rule = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Rule):
    """Uniform within ``sqrt(6 / fan_in)`` of 0 (He et al., arXiv:1502.01852); for layers followed by ReLU.

    Args:
        seed: See :class:`RandomInitializer`.
        input_axes: See :class:`VarianceScaling`.
        output_axes: See :class:`VarianceScaling`.

    Example:
        >>> import xpconv as xc
        >>> abs(xc.initializers.HeUniform()((600, 10))).max() <= 0.1
        np.True_
    """

    rule = (2.0, "fan_in", "uniform")


class HeNormal(_Rule):
    """Truncated normal with the variance ``2 / fan_in`` (He et al., arXiv:1502.01852); for layers followed by ReLU.

    Args:
        seed: See :class:`RandomInitializer`.
        input_axes: See :class:`VarianceScaling`.
        output_axes: See :class:`VarianceScaling`.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.HeNormal(seed=0)((3, 3, 8, 16)).shape
        (3, 3, 8, 16)
    """

    rule = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Rule):
    """Uniform within ``sqrt(3 / fan_in)`` of 0 (LeCun et al., Efficient BackProp, 1998).

    Args:
        seed: See :class:`RandomInitializer`.
        input_axes: See :class:`VarianceScaling`.
        output_axes: See :class:`VarianceScaling`.

    Example:
        >>> import xpconv as xc
        >>> abs(xc.initializers.LecunUniform()((300, 10))).max() <= 0.1
        np.True_
    """

    rule = (1.0, "fan_in", "uniform")


class LecunNormal(_Rule):
    """Truncated normal with the variance ``1 / fan_in`` (LeCun et al., Efficient BackProp, 1998); for layers followed by SELU.

    Args:
        seed: See :class:`RandomInitializer`.
        input_axes: See :class:`VarianceScaling`.
        output_axes: See :class:`VarianceScaling`.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.LecunNormal(seed=0)((20, 40)).shape
        (20, 40)
    """

    rule = (1.0, "fan_in", "truncated_normal")


class Orthogonal(RandomInitializer):
    """A random matrix whose columns are orthonormal, or its rows if there are fewer (Saxe et al., arXiv:1312.6120).

    Of a weight of more axes, all but the last make up the rows.

    Args:
        gain: A factor.
        seed: See :class:`RandomInitializer`.

    Raises:
        TypeError, ValueError: ``gain`` is no finite number; a wrong ``seed``.

    Example:
        >>> import xpconv as xc
        >>> q = xc.initializers.Orthogonal()((5, 2), "float64")
        >>> abs((q.T @ q).round(12))
        array([[1., 0.],
               [0., 1.]])
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = finite("Orthogonal", "gain", gain)

    def draw(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        """Draw the values."""
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: the weight must have at least two axes, got shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(random.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # makes every orthogonal matrix as likely as any other
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


# Keras' other names of the classes.
zeros, ones, constant, identity = Zeros, Ones, Constant, Identity
random_uniform, random_normal, truncated_normal = RandomUniform, RandomNormal, TruncatedNormal
variance_scaling, orthogonal = VarianceScaling, Orthogonal
glorot_uniform, glorot_normal = GlorotUniform, GlorotNormal
he_uniform, he_normal = HeUniform, HeNormal
lecun_uniform, lecun_normal = LecunUniform, LecunNormal

_KNOWN: dict[str, type[Initializer]] = {
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "zeros": Zeros,
    "zero": Zeros,
    "ones": Ones,
    "one": Ones,
    "constant": Constant,
    "identity": Identity,
    "random_uniform": RandomUniform,
    "uniform": RandomUniform,
    "random_normal": RandomNormal,
    "normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "orthogonal": Orthogonal,
}
_KNOWN |= {"IdentityInitializer": Identity, "OrthogonalInitializer": Orthogonal}
_KNOWN |= {known.__name__: known for known in list(_KNOWN.values())}


def get(identifier: Any, op: str = "get", argument: str = "initializer") -> Initializer:
    """Find the initializer that a name, a configuration or an object stands for.

    Args:
        identifier: A name such as ``"he_normal"`` or ``"HeNormal"``; a class; a dictionary with ``"class_name"`` and
            ``"config"``; an :class:`Initializer`; an array, for that very value; or a function of a shape and a dtype.
        op: Name of the caller, for messages.
        argument: Name of its argument, for messages.

    Raises:
        ValueError: An unknown name; the text tells the nearest ones.
        TypeError: Nothing that stands for an initializer.

    Notes:
        Keras takes None for the layer's default; here it is refused.

    Example:
        >>> import xpconv as xc
        >>> xc.initializers.get("zeros"), xc.initializers.get({"class_name": "Constant", "config": {"value": 2.0}})
        (Zeros(), Constant(value=2.0))
    """
    if isinstance(identifier, np.ndarray):
        return Constant(identifier)
    if callable(identifier) and not isinstance(identifier, (Initializer, type)):
        return _Function(identifier)
    return found(op, argument, identifier, Initializer, _KNOWN, "a name such as 'he_normal' or an Initializer")


class _Function(Initializer):
    """A function of a shape and a dtype, as Keras takes them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def values(self, shape: tuple[int, ...], random: Any) -> NDArray[Any]:
        values = np.asarray(self.function(shape, dtype="float64"))
        if values.shape != shape:
            raise ValueError(f"the initializer {self.function!r} returned the shape {values.shape}, and the weight has {shape}")
        return values


def _uniform(shape: tuple[int, ...], low: float, high: float, random: Any) -> NDArray[Any]:
    # Not random.uniform: high - low may be beyond float64.
    u = random.random(shape)
    return np.asarray(low * (1 - u) + high * u)


def _truncated_normal(shape: tuple[int, ...], random: Any) -> NDArray[Any]:
    values = np.asarray(random.standard_normal(shape))
    while (far := np.flatnonzero(np.abs(values) > 2)).size:
        values.flat[far] = random.standard_normal(far.size)
    return values


# The standard deviation of a standard normal distribution that is cut off at -2 and 2, to Keras' digits.
_TRUNCATED_STD = 0.87962566103423978


def _scaled_truncated_normal(shape: tuple[int, ...], std: float, random: Any) -> NDArray[Any]:
    return std / _TRUNCATED_STD * _truncated_normal(shape, random)


def _scaled_normal(shape: tuple[int, ...], std: float, random: Any) -> NDArray[Any]:
    return np.asarray(std * random.standard_normal(shape))


def _scaled_uniform(shape: tuple[int, ...], std: float, random: Any) -> NDArray[Any]:
    return _uniform(shape, -math.sqrt(3) * std, math.sqrt(3) * std, random)


_DISTRIBUTIONS: dict[str, Callable[[tuple[int, ...], float, Any], NDArray[Any]]] = {
    "normal": _scaled_truncated_normal,
    "truncated_normal": _scaled_truncated_normal,
    "untruncated_normal": _scaled_normal,
    "uniform": _scaled_uniform,
}


def _fan_in(fan_in: int, fan_out: int) -> float:
    return fan_in


def _fan_out(fan_in: int, fan_out: int) -> float:
    return fan_out


def _fan_avg(fan_in: int, fan_out: int) -> float:
    return (fan_in + fan_out) / 2


_MODES: dict[str, Callable[[int, int], float]] = {"fan_in": _fan_in, "fan_out": _fan_out, "fan_avg": _fan_avg}


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    # A number joins one input to one output; of a vector, Keras takes the length for both.
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _product(op: str, shape: tuple[int, ...], axes: Sequence[int]) -> int:
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise ValueError(f"{op}: the axes {list(axes)} are not all there in a weight of shape {shape}")
    return math.prod(shape[axis] for axis in axes)
