"""The base of all layers: names, weights, building at the first call, calling, and going back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xpconv import initializers, regularizers
from xpconv.arrays import FLOAT_DTYPES, aligned, as_array, inexact_range, is_floating, is_real, real_array
from xpconv.configuration import plain_arguments
from xpconv.device import Device, asarray, get_device, to_numpy
from xpconv.layers.tape import Run, Tape, current_run, running
from xpconv.naming import snake_case, unique_name

Array = Any
Shape: TypeAlias = tuple[int | None, ...]

# Attributes of every layer, in which no layers are looked for.
_NOT_CHILDREN = frozenset(("_arguments", "_own_weights", "_saved", "_run", "_tape", "_output", "gradients", "input_shape"))


class Weight(NamedTuple):
    """One array that a layer computes with.

    Attributes:
        name: Its name within the layer, ``"kernel"``; the layer has it as an attribute of that name.
        array: The array; updates are made in place.
        trainable: Whether training changes it by its gradient.
        regularizer: What its size adds to the loss, or None.
    """

    name: str
    array: Array
    trainable: bool
    regularizer: regularizers.Regularizer | None


def _building(build: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(build)
    def built(self: Layer, input_shape: Any) -> None:
        self._own_weights.clear()
        try:
            build(self, input_shape)
            if not self.is_composite:
                self.compute_output_shape(input_shape)
        except ValueError as error:
            raise self._in_its_name(error, input_shape) from None
        self.built, self.input_shape = True, input_shape

    return built


class Layer:
    """What all layers share. Derive from it for a layer of your own.

    A layer that is made of other layers overrides :meth:`call` alone. A layer that computes something itself overrides
    :meth:`compute` and :meth:`differentiate`, :meth:`build` if it has weights, and :meth:`compute_output_shape` if the shape
    changes.

    Args:
        name: Name of the layer; None makes one of the class' name.
        dtype: float32 or float64, what it computes in and keeps its weights in. None takes the model's, or float32. Floating
            inputs of another dtype are converted, as in Keras.
        trainable: Whether training changes its weights.
        device: Where to compute; inputs are brought there. None follows the model, or the input.

    Attributes:
        name: The name.
        built: Whether the weights are there.
        gradients: After :meth:`backward`, the gradients of ``trainable_weights``.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> class Scale(xc.layers.Layer):
        ...     def build(self, input_shape):
        ...         self.add_weight("scale", input_shape[-1:], "ones")
        ...     def compute(self, x, run):
        ...         return x * self.scale, x
        ...     def differentiate(self, x, dy, run, input_gradient):
        ...         return dy * self.scale, [(dy * x).sum(axis=0)]
        >>> layer = Scale()
        >>> layer(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
        array([[1., 2.],
               [3., 4.]], dtype=float32)
        >>> layer.backward(np.ones((2, 2), np.float32)), layer.gradients
        (array([[1., 1.],
               [1., 1.]], dtype=float32), [array([4., 6.], dtype=float32)])
    """

    #: Whether integers go into ``compute`` as they are, as pooling and reshaping take them; else they become floats.
    keeps_integers = False
    #: How many inputs at least: 0 for one array, otherwise a list of so many.
    least_inputs = 0

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Layer:
        """Remember the arguments, for :meth:`get_config`."""
        layer = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(layer, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}") from None
        given = dict(list(bound.arguments.items())[1:])
        for parameter in inspect.signature(cls.__init__).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(parameter.name, {}))
        layer._arguments = given
        return layer

    def __init_subclass__(cls, **options: Any) -> None:
        """Let ``build`` of the class mark the layer as built, and tell the layer's name where it fails."""
        super().__init_subclass__(**options)
        if "build" in vars(cls):
            cls.build = _building(vars(cls)["build"])  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        name: str | None = None,
        dtype: DTypeLike | None = None,
        trainable: bool = True,
        device: str | Device | None = None,
    ) -> None:
        cls = type(self).__name__
        if name is not None and not (isinstance(name, str) and name and "/" not in name):
            raise ValueError(f"{cls}: name must be a text without '/', got {name!r}")
        self.name = unique_name(snake_case(cls)) if name is None else name
        self.dtype: np.dtype[Any] | None = None if dtype is None else floating_dtype(cls, dtype)
        self._trainable = trainable
        self.device = device
        self.built = False
        self.input_shape: Any = None
        self.gradients: list[Array] = []
        self._own_weights: list[Weight] = []
        self._expected: tuple[int | None, dict[int, int]] | None = None
        self._saved: Any = None
        self._run: Run | None = None
        self._tape: Tape | None = None
        self._output: Array = None

    # ---- what a layer overrides -----------------------------------------------------------------------------------------

    @_building
    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape; None stands for the size of the batch. For several inputs, a list.

        Raises:
            ValueError: The layer cannot take such inputs.
        """

    def call(self, inputs: Any) -> Any:
        """Compute by calling other layers. May have an argument ``training``.

        For a layer made of layers; others override :meth:`compute`.
        """
        raise NotImplementedError(f"{type(self).__name__} must override call, or compute and differentiate")

    def compute(self, inputs: Any, run: Run) -> tuple[Array, Any]:
        """Compute the output, and what :meth:`differentiate` will need.

        Args:
            inputs: An array, or a list of them; on the run's device, floats of the layer's dtype.
            run: Device, random numbers, ``training``, and whether to ``remember``.

        Returns:
            The output, a new array or one of the inputs as it is; and anything (None unless ``run.remember``).
        """
        raise NotImplementedError(f"{type(self).__name__} must override compute and differentiate, or call")

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Any, list[Array]]:
        """Go back from the gradient of the output.

        Args:
            saved: What :meth:`compute` saved.
            dy: Gradient of the output.
            run: As :meth:`compute` was given.
            input_gradient: Whether the gradient of the inputs is asked for.

        Returns:
            The gradient of the input (a list for several; None if not asked for), and those of ``trainable_weights``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override differentiate, or call")

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Shape of the output for an input of this shape, None standing for what is not known; here: the same.

        A layer made of layers is run on zeros to find out.

        Raises:
            ValueError: The layer cannot take such inputs.
        """
        if not self.is_composite:
            return tuple(input_shape)
        run = current_run() or self._new_run(np.zeros(0), False)
        any_batch = flat_shapes(input_shape)[0][0] is None
        with running(dataclasses.replace(run, training=False, remember=False, tape=None, fuse=False)) as dry:
            output = self._composed(zeros_of(input_shape, dry), dry)
            shapes: Shape = in_structure(lambda array: shape_of(array, any_batch), output)
            return shapes

    def shape_after(self, input_shape: Any) -> Any:
        """As :meth:`compute_output_shape`, with the layer's name in the errors."""
        try:
            return self.compute_output_shape(input_shape)
        except ValueError as error:
            raise self._in_its_name(error, input_shape) from None

    def differentiate_before_activation(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Any, list[Array]]:
        """As :meth:`differentiate`, from the gradient of what the activation was given; see :meth:`before_activation`."""
        raise NotImplementedError

    def before_activation(self, saved: Any) -> tuple[str, Array] | None:
        """Name of the layer's activation and what it was given, where a loss can make use of that; else None."""
        return None

    # ---- calling ---------------------------------------------------------------------------------------------------------

    @property
    def is_composite(self) -> bool:
        """Whether the layer is made of other layers, which :meth:`call` calls."""
        return type(self).call is not Layer.call

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """Compute the output for a batch; the weights are made at the first call.

        Args:
            inputs: An array, or for layers that take several, a list of arrays.
            training: Whether layers that differ in training do as in training. None: as the model that is running does,
                otherwise no.

        Returns:
            The output. A layer that is called by itself, not in a model, remembers what :meth:`backward` needs.

        Raises:
            ValueError: Inputs of a shape that the layer does not take; the text has its name and both shapes.
            TypeError: No array of real numbers.
            BrokenChainError: In a training, an input that no layer has made.
        """
        run = current_run()
        if run is not None:
            if training is not None and training != run.training:
                with running(dataclasses.replace(run, training=training)) as changed:
                    return self._computed(inputs, changed)
            return self._computed(inputs, run)
        run = self._new_run(inputs, bool(training))
        with running(run):
            if not self.is_composite:
                output, self._saved = self._computed_alone(self._accept(inputs, run), run)
                self._run, self._tape, self._output = run, None, output
                return output
            run.remember = run.training
            sources = self._sources(inputs, run)
            if run.remember:
                run.tape = Tape(tuple(flat(sources)), input_gradient=True)
            output = self._composed(sources, run)
            self._run, self._tape, self._output = run, run.tape, output
            return output

    def backward(self, dy: Array) -> Any:
        """Go back from the gradient of the output of the last call; leaves those of the weights in ``gradients``.

        A layer made of layers, and a model, must have been called with ``training=True``.

        Args:
            dy: Gradient of the output, of its shape.

        Returns:
            Gradient of the input; a list if there were several.

        Raises:
            RuntimeError: The layer has not been called.
            ValueError: ``dy`` is not of the output's shape.
        """
        run = self._run
        if run is None or (self.is_composite and self._tape is None):
            how = " with training=True" if self.is_composite else ""
            raise RuntimeError(f"{self.title}: backward needs what a call computed; call the layer first{how}")
        gradient = as_array(self.title, "dy", dy)
        with running(run):
            gradient = aligned(asarray(gradient, device=run.device, dtype=self.compute_dtype(run)))
            if gradient.shape != self._output.shape:
                raise ValueError(
                    f"{self.title}: dy.shape must be {self._output.shape}, the shape of the output, got {gradient.shape}"
                )
            if self._tape is not None:
                found = self._tape.backward(self._output, gradient, run)
                self.gradients = [
                    run.device.xp.zeros_like(weight) if (grad := found.of(weight)) is None else grad
                    for weight in self.trainable_weights
                ]
                shares = [
                    run.device.xp.zeros_like(source) if share is None else share
                    for source, share in zip(self._tape.sources, found.of_sources, strict=True)
                ]
                return shares[0] if len(shares) == 1 else shares
            dx, self.gradients = self.differentiate(self._saved, gradient, run, True)
            return dx

    def _computed(self, inputs: Any, run: Run) -> Any:
        if self.is_composite:
            return self._composed(inputs, run)
        accepted = self._accept(inputs, run)
        output, saved = self._computed_alone(accepted, run)
        if run.tape is not None:
            given = tuple(accepted) if isinstance(accepted, list) else (accepted,)
            run.tape.note(self, given, output, saved)
        return output

    def _computed_alone(self, accepted: Any, run: Run) -> tuple[Array, Any]:
        if not self.built:
            self._build_for(accepted)
        elif self._expected is not None:
            self.check_expected(accepted.shape)
        try:
            return self.compute(accepted, run)
        except ValueError as error:
            raise self._in_its_name(error, in_structure(shape_of, accepted)) from None

    def _composed(self, inputs: Any, run: Run) -> Any:
        with self._in_its_own_way(run) as run:
            self._build_for(inputs)
            call: Callable[..., Any] = self.call
            return call(inputs, training=run.training) if _takes_training(type(self).call) else call(inputs)

    def _in_its_own_way(self, run: Run) -> contextlib.AbstractContextManager[Run]:
        own = self._own_settings(run)
        return running(dataclasses.replace(run, **own)) if own else contextlib.nullcontext(run)

    def _own_settings(self, run: Run) -> dict[str, Any]:
        # What a layer made of layers was told otherwise than the model that runs.
        return {} if self.dtype is None or self.dtype == run.dtype else {"dtype": self.dtype}

    def _build_for(self, inputs: Any) -> None:
        if not self.built:
            run = current_run()
            any_batch = run is not None and run.any_batch
            self.build(in_structure(lambda array: shape_of(array, any_batch), inputs))

    def expect(self, ndim: int | None = None, axes: Mapping[int, int] | None = None) -> None:
        """Say, in :meth:`build`, what all later inputs must have: so many axes, and these sizes along some of them."""
        self._expected = (ndim, dict(axes or {}))

    def check_expected(self, shape: Shape) -> None:
        """Refuse an input of another shape than :meth:`expect` said.

        Raises:
            ValueError: The text has the layer's name and both shapes.
        """
        ndim, axes = self._expected or (None, {})
        rank = ndim or len(self.input_shape)
        if (ndim is not None and len(shape) != ndim) or any(
            not -len(shape) <= axis < len(shape) or shape[axis] != size for axis, size in axes.items()
        ):
            sizes: list[Any] = [None] * rank
            for axis, size in axes.items():
                sizes[axis] = size
            raise ValueError(
                f"{self.title}: the input must have the shape ({', '.join(map(str, sizes))}), as when it was built, got {shape}"
            )

    def _in_its_name(self, error: ValueError, shape: Any) -> ValueError:
        text = str(error)
        return error if text.startswith("layer ") else type(error)(f"{self.title}: {text} (input shape {shape})")

    def _new_run(self, inputs: Any, training: bool) -> Run:
        if self.device is None:
            place = get_device(None, *(array for array in flat(inputs) if hasattr(array, "dtype")))
        else:
            place = get_device(self.device)
        dtype = self.dtype or FLOAT_DTYPES[0]
        return Run(place, dtype, np.random, training, remember=True)

    # ---- inputs ----------------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """How messages call the layer: its name and its class."""
        return f"layer {self.name!r} ({type(self).__name__})"

    def compute_dtype(self, run: Run) -> np.dtype[Any]:
        """The dtype that the layer computes in."""
        return run.dtype if self.dtype is None else self.dtype

    def _accept(self, inputs: Any, run: Run) -> Any:
        if self.least_inputs:
            if not isinstance(inputs, (list, tuple)) or len(inputs) < self.least_inputs:
                raise ValueError(
                    f"{self.title}: inputs must be a list of at least {self.least_inputs} arrays, got {_described(inputs)}"
                )
            return [self._accepted(f"inputs[{position}]", array, run) for position, array in enumerate(inputs)]
        return self._accepted("the input", inputs, run)

    def _accepted(self, name: str, value: Any, run: Run) -> Array:
        is_known = run.tape is not None and run.tape.knows(value)
        if is_known and value.dtype == self.compute_dtype(run):
            return value
        array = real_array(self.title, name, value)
        if is_known:
            return self._converted_in_run(name, array, run)
        return self._converted(name, array, run)

    def _converted(self, name: str, array: Array, run: Run) -> Array:
        if not is_floating(array.dtype):
            if self.keeps_integers:
                return asarray(array, device=run.device)
            computed = self.compute_dtype(run)
            if computed.itemsize < 8 and (found := inexact_range(array, computed)) is not None:
                low, high, exact = found
                raise ValueError(
                    f"{self.title}: {name} holds integers up to {max(-low, high)}, and {computed} is exact only up to {exact}; "
                    "pass floats, or make the layer with dtype='float64'"
                )
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity
            return aligned(asarray(array, device=run.device, dtype=self.compute_dtype(run)))

    def _converted_in_run(self, name: str, array: Array, run: Run) -> Array:
        # Between layers of different dtypes the conversion is a step of its own, with a way back.
        assert run.tape is not None
        converted = self._converted(name, array, run)
        if converted is not array:
            run.tape.note(_CAST, (array,), converted, array.dtype)
        return converted

    def _sources(self, inputs: Any, run: Run) -> Any:
        # Views: a tape makes what it knows read-only, and these may be the caller's own.
        return in_structure(lambda value: self._moved(value, run).view(), inputs)

    def _moved(self, value: Any, run: Run) -> Array:
        # For a layer made of layers: to the device and, if floating, to the dtype. The layers within do the rest.
        array = real_array(self.title, "the input", value)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity
            return aligned(asarray(array, run.device, self.compute_dtype(run) if is_floating(array.dtype) else None))

    # ---- weights ---------------------------------------------------------------------------------------------------------

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights. To set it sets it for the layers within, too."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = trainable
        for layer in self.layers_within:
            layer.trainable = trainable

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        *,
        trainable: bool = True,
        regularizer: Any = None,
    ) -> Array:
        """Make a weight, in :meth:`build`.

        Args:
            name: The attribute that it becomes.
            shape: Its shape.
            initializer: A name or an object of :mod:`xpconv.initializers`.
            trainable: Whether training changes it by its gradient.
            regularizer: A name or an object of :mod:`xpconv.regularizers`, or None.

        Returns:
            The array, on the device of the run, or of the layer.
        """
        run = current_run()
        place = get_device(self.device) if run is None else run.device
        dtype = self.dtype or (FLOAT_DTYPES[0] if run is None else run.dtype)
        drawn = initializers.get(initializer, op=type(self).__name__)(
            tuple(shape), dtype, random=np.random if run is None else run.random
        )
        array = asarray(np.ascontiguousarray(drawn), device=place, dtype=dtype)
        setattr(self, name, array)
        self._own_weights.append(Weight(name, array, trainable, regularizers.get(regularizer, op=type(self).__name__)))
        return array

    def children(self) -> list[tuple[str, Layer]]:
        """The layers that this one is made of, by name: its attributes, also those in lists and dictionaries, in order."""
        if not self.is_composite:
            return []
        found: dict[int, tuple[str, Layer]] = {}
        for attribute, value in list(vars(self).items()):
            if attribute not in _NOT_CHILDREN:
                for name, layer in _layers_in(attribute, value):
                    found.setdefault(id(layer), (name, layer))
        return list(found.values())

    @property
    def layers_within(self) -> list[Layer]:
        """The layers that this one is made of, in order."""
        return [layer for _, layer in self.children()]

    @property
    def output_shape(self) -> Any:
        """Shape of the output, for the input that the layer was built for.

        Raises:
            AttributeError: The layer is not built.
        """
        if not self.built:
            raise AttributeError(f"{self.title} is not built, its output has no shape yet")
        return self.compute_output_shape(self.input_shape)

    def all_weights(self) -> list[tuple[Layer, Weight]]:
        """Every weight of this layer and of those within, with the layer that it belongs to; each once."""
        found: dict[int, tuple[Layer, Weight]] = {}
        for weight in sorted(self._own_weights, key=lambda weight: not weight.trainable):
            found.setdefault(id(weight.array), (self, weight))
        for layer in self.layers_within:
            for owner, weight in layer.all_weights():
                found.setdefault(id(weight.array), (owner, weight))
        return list(found.values())

    @property
    def weights(self) -> list[Array]:
        """The arrays in Keras' order: the layer's own, trainable ones first, then likewise those of the layers within."""
        return [weight.array for _, weight in self.all_weights()]

    @property
    def trainable_weights(self) -> list[Array]:
        """The arrays that training changes by their gradients."""
        return [weight.array for weight in self.trained()]

    def trained(self) -> list[Weight]:
        """The weights that training changes by their gradients."""
        if not self.trainable:
            return []
        own = [weight for weight in self._own_weights if weight.trainable]
        if not self.is_composite:
            return own
        known = {id(weight.array) for weight in own}
        for layer in self.layers_within:
            for weight in layer.trained():
                if id(weight.array) not in known:
                    known.add(id(weight.array))
                    own.append(weight)
        return own

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The arrays that training does not change by gradients: running means, and all of a layer that is frozen."""
        trained = {id(array) for array in self.trainable_weights}
        return [weight.array for _, weight in self.all_weights() if id(weight.array) not in trained]

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of the weights as NumPy arrays, in the order and layout that Keras has.

        Example:
            >>> import numpy as np, xpconv as xc
            >>> layer = xc.layers.Conv2D(30, (2, 2))
            >>> _ = layer(np.zeros((1, 4, 4, 3)))
            >>> [weight.shape for weight in layer.get_weights()]
            [(2, 2, 3, 30), (30,)]
        """
        return [to_numpy(array).copy() for array in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Put numbers into the weights.

        Args:
            weights: One array a weight, as :meth:`get_weights` returns them.

        Raises:
            ValueError: Not as many as the layer has, or one of another shape; nothing is changed then.
        """
        arrays = self.weights
        names = {id(weight.array): weight.name for _, weight in self.all_weights()}
        if len(weights) != len(arrays):
            before = "" if self.built else "; it is not built yet, call it or its method build first"
            raise ValueError(
                f"{self.title}: set_weights was given {len(weights)} arrays, and the layer has {len(arrays)} weights{before}"
            )
        checked = []
        for position, (array, given) in enumerate(zip(arrays, weights, strict=True)):
            value = to_numpy(as_array(self.title, f"weights[{position}]", given))
            if value.shape != array.shape:
                raise ValueError(
                    f"{self.title}: weights[{position}] ({names[id(array)]}) must have the shape {array.shape}, "
                    f"got {value.shape}"
                )
            if not is_real(value.dtype):
                raise TypeError(f"{self.title}: weights[{position}] must hold real numbers, got dtype {value.dtype}")
            checked.append(value)
        for array, value in zip(arrays, checked, strict=True):
            place = device_of(array)
            with place.current():
                array[...] = asarray(value, device=place, dtype=array.dtype)

    def count_params(self) -> int:
        """Number of numbers in the weights.

        Raises:
            ValueError: The layer is not built.
        """
        if not self.built:
            raise ValueError(f"{self.title}: count_params needs the weights; call the layer or its method build first")
        return sum(int(array.size) for array in self.weights)

    def move(self, place: Device) -> None:
        """Bring the weights, of this layer and of those within, to a device."""
        moved: dict[int, Array] = {}
        self._move(place, moved)

    def _move(self, place: Device, moved: dict[int, Array]) -> None:
        for position, weight in enumerate(self._own_weights):
            key = id(weight.array)
            if key not in moved:
                moved[key] = asarray(weight.array, device=place)
            self._own_weights[position] = weight._replace(array=moved[key])
            setattr(self, weight.name, moved[key])
        self._saved = self._run = self._tape = self._output = None
        self.gradients = []
        for layer in self.layers_within:
            layer._move(place, moved)

    # ---- configuration ---------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make such a layer again, in values that JSON has.

        Example:
            >>> import xpconv as xc
            >>> xc.layers.Dense(10, activation="relu", name="hidden").get_config()
            {'units': 10, 'activation': 'relu', 'name': 'hidden'}
        """
        arguments = {name: value for name, value in self._arguments.items() if name != "device"}
        return {**plain_arguments(self.title, arguments), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a layer of what :meth:`get_config` returned; without weights."""
        return cls(**config)

    def __getattr__(self, name: str) -> Any:
        """Tell what is wrong where a class of one's own has not called ``super().__init__()``."""
        if name in ("name", "built", "_own_weights", "dtype", "device", "_trainable"):
            raise RuntimeError(f"{type(self).__name__}.__init__ must call super().__init__() before anything else")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle a layer without what the last call left behind."""
        return _bare, (type(self),), {**vars(self), "_saved": None, "_run": None, "_tape": None, "_output": None}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def _bare(cls: type[Layer]) -> Layer:
    return object.__new__(cls)


class _Cast(Layer):
    """The conversion between layers of different dtypes."""

    def differentiate(self, saved: Any, dy: Array, run: Run, input_gradient: bool) -> tuple[Any, list[Array]]:
        return (dy.astype(saved) if is_floating(saved) else dy), []


_CAST = _Cast(name="cast")


def floating_dtype(op: str, dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype of a layer or model.

    Raises:
        ValueError, TypeError: It is neither float32 nor float64.
    """
    try:
        chosen: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {dtype!r}") from None
    if chosen not in FLOAT_DTYPES:
        raise ValueError(f"{op}: dtype must be float32 or float64, got {chosen}")
    return chosen


def device_of(array: Array) -> Device:
    """The device that an array's content can be written on."""
    return get_device(None if not isinstance(array, np.ndarray) else "numpy", array)


def shape_of(array: Any, any_batch: bool = False) -> Shape:
    """The shape of an array, with None for the size of the batch where that may be any."""
    shape = tuple(array.shape) if hasattr(array, "shape") else np.shape(array)
    return (None, *shape[1:]) if any_batch else shape


def in_structure(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Apply a function to an array, or to each of the arrays in lists and dictionaries."""
    if isinstance(inputs, dict):
        return {name: in_structure(function, value) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return [in_structure(function, value) for value in inputs]
    return function(inputs)


def flat(inputs: Any) -> list[Any]:
    """The arrays of a structure, in order."""
    found: list[Any] = []
    in_structure(found.append, inputs)
    return found


def flat_shapes(shape: Any) -> list[Shape]:
    """The shapes of a structure of arrays, in order."""
    if isinstance(shape, dict):
        return [found for entry in shape.values() for found in flat_shapes(entry)]
    if isinstance(shape, (list, tuple)) and shape and isinstance(shape[0], (list, tuple, dict)):
        return [found for entry in shape for found in flat_shapes(entry)]
    return [tuple(shape)]


def zeros_of(shape: Any, run: Run) -> Any:
    """Zeros of a shape, or of each shape of a structure; a batch of one where its size is None.

    Raises:
        ValueError: Another size is None.
    """
    if isinstance(shape, dict):
        return {name: zeros_of(entry, run) for name, entry in shape.items()}
    if isinstance(shape, (list, tuple)) and shape and isinstance(shape[0], (list, tuple, dict)):
        return [zeros_of(entry, run) for entry in shape]
    if not shape or any(size is None for size in shape[1:]):
        raise ValueError(f"only the size of the batch can be left open, got the shape {shape}")
    return run.device.xp.zeros((1 if shape[0] is None else shape[0], *shape[1:]), run.dtype)


@functools.cache
def _takes_training(call: Callable[..., Any]) -> bool:
    return "training" in inspect.signature(call).parameters


def _layers_in(name: str, value: Any) -> list[tuple[str, Layer]]:
    if isinstance(value, Layer):
        return [(name, value)]
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return [found for key, entry in value.items() for found in _layers_in(f"{name}.{key}", entry)]
    return []


def _described(inputs: Any) -> str:
    if isinstance(inputs, (list, tuple)):
        return f"{len(inputs)}"
    return f"{type(inputs).__name__}" + (f" of shape {inputs.shape}" if hasattr(inputs, "shape") else "")
