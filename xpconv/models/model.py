"""The model: layers that are trained, evaluated, asked and saved together."""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xpconv import losses, metrics, optimizers
from xpconv.arguments import fraction
from xpconv.arrays import FLOAT_DTYPES
from xpconv.callbacks import Callback, CallbackList, History, ProgressBar, TerminateOnNaN
from xpconv.device import Device, asarray, get_device, to_numpy
from xpconv.errors import TrainingError
from xpconv.geometry import integer
from xpconv.layers.layer import Layer, Shape, Weight, flat, in_structure, shape_of, zeros_of
from xpconv.layers.tape import Run, Tape, current_run, running
from xpconv.models.batches import ArrayBatches, Batch, GivenBatches, batches_of, weights_of_classes
from xpconv.models.saving import read_weights, write_model
from xpconv.models.summary import summary_of
from xpconv.naming import resolve
from xpconv.training.interruption import Interruption

Array = Any


class Node(NamedTuple):
    """One box of :meth:`Model.graph`: the input, or a layer.

    Attributes:
        name: Its name.
        kind: Its class; ``"Input"`` for what goes in.
        output_shape: Shape of what it gives.
        parameters: Numbers in its weights.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int


class _Step(NamedTuple):
    # What is known after the forward half of a step.
    loss: Any
    gradient: Array
    before_activation: bool


class Model(Layer):
    """A model of one's own: make layers in ``__init__``, call them in ``call``.

    ``call`` gets plain arrays and gives them to layers. What a layer returns goes into other layers: additions and
    concatenations are layers, too (:class:`xpconv.layers.Add`, :class:`~xpconv.layers.Concatenate`), since arithmetic on
    plain arrays leaves no trace that a gradient could follow. In a training those arrays are read-only; on a card, where CuPy
    has no such arrays, a change in place is not noticed, and gives wrong gradients.

    Args:
        name: Name of the model; None makes one of the class' name.
        device: Where to compute: ``"auto"`` takes the best there is; :meth:`to` changes it. A model within another one computes
            where that does.
        dtype: float32 or float64, for all layers that were given none of their own. None: float32.
        seed: Seed of the initial weights, of dropout and of the order of the samples; None draws from NumPy's global
            generator, which ``np.random.seed`` makes repeatable.
        trainable: Whether training changes the weights.

    Attributes:
        device: Where the model computes.
        optimizer: The optimizer, after :meth:`compile`.
        stop_training: Callbacks set it to end :meth:`fit` after the epoch.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> class Residual(xc.Model):
        ...     def __init__(self, **options):
        ...         super().__init__(**options)
        ...         self.first = xc.layers.Dense(8, activation="relu")
        ...         self.second = xc.layers.Dense(8)
        ...         self.add = xc.layers.Add()
        ...         self.last = xc.layers.Dense(2, activation="softmax")
        ...     def call(self, x):
        ...         x = self.first(x)
        ...         x = self.add([x, self.second(x)])
        ...         return self.last(x)
        >>> model = Residual(device="numpy", seed=0)
        >>> model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
        >>> history = model.fit(x, (x[:, 0] > 0).astype(int), epochs=3, verbose=0)
        >>> history.history["loss"][2] < history.history["loss"][0]
        True
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        device: str | Device | None = "auto",
        dtype: DTypeLike | None = None,
        seed: int | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        cls = type(self).__name__
        self.device: Device = get_device(device)
        self.seed = None if seed is None else integer(cls, "seed", seed, 0)
        self._random: Any = np.random if seed is None else np.random.Generator(np.random.PCG64(self.seed))
        self.stop_training = False
        self.optimizer: optimizers.Optimizer | None = None
        self.compiled: dict[str, Any] = {}
        self._loss: losses.Loss | None = None
        self._loss_mean = metrics.Mean(name="loss")
        self._metrics: list[metrics.Metric] | None = None
        self._weighted_metrics: list[metrics.Metric] = []
        self._output_shape: Any = None
        self._remembered: tuple[tuple[int, ...], list[str], list[Array]] = ((), [], [])
        self.history: History | None = None

    # ---- the model as a layer -------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers that the model is made of."""
        return self.layers_within

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by its name or its position.

        Raises:
            ValueError: There is no such layer, the text tells those that there are; or not just one of the two is given.
        """
        if (name is None) == (index is None):
            raise ValueError(f"{self.title}: get_layer takes name or index, got name={name!r}, index={index!r}")
        layers = self.layers
        if name is not None:
            return resolve(self.title, "layer", name, {layer.name: layer for layer in layers})
        try:
            return layers[operator.index(index)]  # type: ignore[arg-type]
        except IndexError:
            raise ValueError(f"{self.title}: there are {len(layers)} layers, and none at index {index}") from None

    @property
    def compute_dtype_name(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return (self.dtype or FLOAT_DTYPES[0]).name

    @property
    def output_shape(self) -> Any:
        """Shape of the output, for the input that the model was built for."""
        if self._output_shape is None:
            raise AttributeError(
                f"{self.title} {'returns nothing' if self.built else 'is not built'}, so its output has no shape"
            )
        return self._output_shape

    def parameters(self) -> dict[str, Array]:
        """All weights by the way to them, ``"conv1/kernel"``: what files, optimizers and gradients call them."""
        found: dict[str, Array] = {}
        for name, array in _paths(self):
            if name in found:
                raise ValueError(f"{self.title}: two weights are called {name!r}; give their layers different names")
            found[name] = array
        return found

    def build(self, input_shape: Any) -> None:
        """Make all weights, for inputs of this shape; None stands for the size of the batch.

        Raises:
            ValueError: Shapes that do not fit; the text has the layer's name.
        """
        if current_run() is None and not self.built:
            with self._running(training=False, any_batch=True) as run:
                run.fuse = False
                self._composed(zeros_of(input_shape, run), run)

    def _build_for(self, inputs: Any) -> None:
        # A model of one's own is built by what its layers are given: nobody else knows their shapes.
        pass

    def _composed(self, inputs: Any, run: Run) -> Any:
        output = super()._composed(inputs, run)
        if not self.built or self._output_shape is None:
            self.built = True
            self.input_shape = in_structure(lambda array: shape_of(array, run.any_batch), inputs)
            if output is not None:  # a call that only shows something returns nothing
                self._output_shape = in_structure(lambda array: shape_of(array, run.any_batch), output)
        return output

    def _own_settings(self, run: Run) -> dict[str, Any]:
        own = super()._own_settings(run)
        return own if self.seed is None or run.random is self._random else {**own, "random": self._random}

    def _new_run(self, inputs: Any, training: bool) -> Run:
        return self._new_model_run(training=training, remember=True)

    def _new_model_run(self, *, training: bool, remember: bool, any_batch: bool = False) -> Run:
        dtype = self.dtype or FLOAT_DTYPES[0]
        return Run(self.device, dtype, self._random, training, remember, any_batch=any_batch)

    @contextlib.contextmanager
    def _running(self, *, training: bool, remember: bool = False, any_batch: bool = False) -> Iterator[Run]:
        # What is not finite is told of the loss; NumPy's warnings would only say so once more.
        with (
            np.errstate(over="ignore", invalid="ignore"),
            running(self._new_model_run(training=training, remember=remember, any_batch=any_batch)) as run,
        ):
            yield run

    # ---- compile --------------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
    ) -> None:
        """Say how the model is trained and what is measured.

        Args:
            optimizer: A name or an object of :mod:`xpconv.optimizers`.
            loss: A name, an object or a function of :mod:`xpconv.losses`.
            metrics: A name, an object of :mod:`xpconv.metrics`, or a list of them. ``"accuracy"`` becomes the one that fits
                the labels.
            weighted_metrics: As ``metrics``; these count each sample by its weight.

        Raises:
            ValueError: An unknown name; the text tells the nearest ones.
            TypeError: Something else than the above.

        Example:
            >>> import xpconv as xc
            >>> model = xc.Sequential([xc.layers.Dense(10, activation="softmax")], device="numpy")
            >>> model.compile(optimizer="adm", loss="categorical_crossentropy")
            Traceback (most recent call last):
            ...
            ValueError: compile: optimizer 'adm' is unknown; did you mean 'adam' or 'adamw'? Known are ...
        """
        chosen = optimizers.get(optimizer, op="compile")
        self._loss = None if loss is None else losses.get(loss, op="compile")
        self.compiled = {
            "optimizer": chosen,
            "loss": loss if isinstance(loss, str) else self._loss,
            "metrics": _listed(metrics),
            "weighted_metrics": _listed(weighted_metrics),
        }
        for entry in (*_listed(metrics), *_listed(weighted_metrics)):
            _check_metric(entry)
        self.optimizer = chosen
        self._metrics = None
        self._loss_mean.reset_state()

    @property
    def loss(self) -> Any:
        """The loss that the model was compiled with."""
        return self._loss

    @property
    def metrics(self) -> list[metrics.Metric]:
        """The mean loss and what the model was compiled with; those that hang on the labels once these have been seen."""
        return [self._loss_mean, *(self._metrics or []), *self._weighted_metrics]

    @property
    def metrics_names(self) -> list[str]:
        """Their names."""
        return [metric.name for metric in self.metrics]

    def reset_metrics(self) -> None:
        """Let all metrics start again."""
        for metric in self.metrics:
            metric.reset_state()

    # ---- fit ------------------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[Callback] | Callback | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train for some epochs.

        Args:
            x: Samples: an array (``np.memmap`` is read batch by batch), a list or dictionary of arrays for a model of several
                inputs; or what gives batches ``(x, y)`` or ``(x, y, sample_weight)``: a generator, a loader, a sequence.
            y: Labels, as the loss takes them; not beside something that gives batches.
            batch_size: Samples for each update; None takes 32. The last batch of an epoch may be smaller.
            epochs: The epoch to stop after, counted from 1.
            verbose: 0 shows nothing; 1 a bar in a terminal; 2 a line an epoch; ``"auto"`` a bar in a terminal, else lines.
            callbacks: Objects of :mod:`xpconv.callbacks`.
            validation_split: This share of the samples, the last ones, is not trained on but evaluated after each epoch.
            validation_data: ``(x, y)``, ``(x, y, sample_weight)`` or what gives batches, to evaluate after each epoch.
            shuffle: Whether each epoch takes the samples in a new random order.
            class_weight: Weight of the samples of each class; a class that is left out has 1.
            sample_weight: Weight of each sample in the loss, (N,).
            initial_epoch: The epoch to begin with, counted from 0, to go on with a training.
            steps_per_epoch: Batches of an epoch; None takes as many as there are.
            validation_steps: Batches of an evaluation; None takes as many as there are.
            validation_batch_size: Samples at once in the evaluation; None takes ``batch_size``.
            validation_freq: Evaluate after every so many epochs, or after those in a list.

        Returns:
            The history: ``history.history["loss"]`` and so on, one number an epoch. Losses and metrics are means over the
            epoch's samples, each batch weighted by its size and measured before its update, as Keras does; ``val_...`` are
            those of the evaluation.

        Raises:
            ValueError: Arrays of different lengths, labels that do not fit the loss, shapes that do not fit the layers.
            BrokenChainError: ``call`` computes something that no layer has recorded.
            TrainingError: The loss is NaN or infinite, unless there is a :class:`~xpconv.callbacks.TerminateOnNaN`. The
                weights are those before that step (on a card, where the loss is looked at once an epoch, they are not).
            RuntimeError: The model is not compiled.

        Notes:
            Ctrl-C lets the step that is running finish, and raises KeyboardInterrupt; the model keeps what it has learnt.

        Example:
            >>> import numpy as np, xpconv as xc
            >>> x = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
            >>> y = x @ [1.0, 2.0, 3.0] + 10
            >>> model = xc.Sequential([xc.layers.Dense(1)], device="numpy", seed=0)
            >>> model.compile(optimizer=xc.optimizers.SGD(0.1), loss="mse")
            >>> history = model.fit(x, y, epochs=20, verbose=0)
            >>> [round(float(w), 2) for w in model.get_weights()[0][:, 0]]
            [1.0, 2.0, 3.0]
        """
        op = "fit"
        optimizer, loss = self._ready(op)
        order = self._order if shuffle else None
        validation: ArrayBatches | GivenBatches | None = None
        data = batches_of(op, x, y, sample_weight, batch_size=batch_size, steps=steps_per_epoch, order=order)
        share = fraction(op, "validation_split", validation_split)
        if validation_batch_size is not None:
            integer(op, "validation_batch_size", validation_batch_size, 1)
        if validation_data is not None:
            if validation_batch_size is None and isinstance(data, ArrayBatches):
                validation_batch_size = data.batch_size
            validation = _validation_batches(validation_data, validation_steps, validation_batch_size)
        elif share:
            if not isinstance(data, ArrayBatches):
                raise ValueError(f"{op}: validation_split needs arrays, of which the last samples can be held back")
            data, validation = data.split(share, validation_batch_size)
        _check_class_weight(op, class_weight, sample_weight)
        epochs = integer(op, "epochs", epochs, 1)
        first = integer(op, "initial_epoch", initial_epoch, 0)
        called = self._callbacks(op, callbacks, verbose, epochs, data.steps, with_history=True)
        tolerant = any(isinstance(callback, TerminateOnNaN) for callback in called.callbacks)
        self.stop_training = False
        logs: dict[str, float] = {}
        with called, Interruption() as interruption:
            called.on_train_begin()
            for epoch in range(first, epochs):
                self.reset_metrics()
                called.on_epoch_begin(epoch)
                checked = False
                for step, batch in enumerate(data):
                    called.on_train_batch_begin(step)
                    moment = f"epoch {epoch + 1}, step {step + 1}"
                    checked = self._train(op, optimizer, loss, batch, data, checked, class_weight, tolerant, moment)
                    called.on_train_batch_end(step, _Logs(self))
                    if interruption.requested:
                        raise KeyboardInterrupt
                    if self.stop_training:
                        break
                logs = self._results()
                if not tolerant and not math.isfinite(logs["loss"]):
                    raise TrainingError(f"{op}: the loss is {logs['loss']} in epoch {epoch + 1} (optimizer={optimizer!r})")
                if validation is not None and _is_due(validation_freq, epoch):
                    measured = self._evaluate(op, validation, called, interruption)
                    logs |= {f"val_{name}": value for name, value in measured.items()}
                called.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
            called.on_train_end(logs)
        assert self.history is not None
        return self.history

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Make one update with one batch, for loops of one's own.

        Args:
            x: Samples.
            y: Labels.
            sample_weight: Weight of each sample.
            class_weight: Weight of the samples of each class.
            return_dict: Whether to return a dictionary.

        Returns:
            The loss and the metrics of this batch: a number, a list, or a dictionary.

        Raises:
            ValueError, TrainingError, RuntimeError: As :meth:`fit`.
        """
        op = "train_on_batch"
        optimizer, loss = self._ready(op)
        _check_class_weight(op, class_weight, sample_weight)
        data = batches_of(op, x, y, sample_weight, batch_size=_length(x))
        (batch,) = data
        self.reset_metrics()
        self._train(op, optimizer, loss, batch, data, False, class_weight, False, "this step")
        return self._returned(return_dict)

    # ---- evaluate and predict ------------------------------------------------------------------------------------------

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Callback] | Callback | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Measure loss and metrics on some samples.

        Args:
            x: Samples, as for :meth:`fit`.
            y: Labels.
            batch_size: Samples at once; None takes 32.
            verbose: As for :meth:`fit`.
            sample_weight: Weight of each sample.
            steps: Batches to look at; None takes all.
            callbacks: Objects of :mod:`xpconv.callbacks`.
            return_dict: Whether to return a dictionary.

        Returns:
            The loss; with metrics a list, the loss first; or a dictionary.

        Raises:
            ValueError: Labels or shapes that do not fit.
            RuntimeError: The model is not compiled.
        """
        op = "evaluate"
        self._ready(op)
        data = batches_of(op, x, y, sample_weight, batch_size=batch_size, steps=steps)
        with self._callbacks(op, callbacks, verbose, 1, data.steps) as called:
            self._evaluate(op, data, called)
        return self._returned(return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Measure one batch, as :meth:`evaluate` does."""
        op = "test_on_batch"
        self._ready(op)
        data = batches_of(op, x, y, sample_weight, batch_size=_length(x))
        (batch,) = data
        self.reset_metrics()
        self._test(op, batch, data, False)
        return self._returned(return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Sequence[Callback] | Callback | None = None,
    ) -> Any:
        """Compute the outputs of some samples, batch by batch.

        Args:
            x: Samples, as for :meth:`fit`.
            batch_size: Samples at once; None takes 32.
            verbose: As for :meth:`fit`.
            steps: Batches to compute; None takes all.
            callbacks: Objects of :mod:`xpconv.callbacks`.

        Returns:
            The outputs as a NumPy array; in the structure that ``call`` returns, if that is a list or a dictionary.

        Raises:
            ValueError: Shapes that do not fit.
        """
        op = "predict"
        data = batches_of(op, x, batch_size=batch_size, steps=steps)
        outputs: list[Any] = []
        with self._callbacks(op, callbacks, verbose, 1, data.steps) as called:
            called.on_predict_begin()
            for step, batch in enumerate(data):
                called.on_predict_batch_begin(step)
                outputs.append(self.predict_on_batch(batch.x))
                called.on_predict_batch_end(step, {"outputs": outputs[-1]})
            called.on_predict_end()
        return _joined(outputs)

    def predict_on_batch(self, x: Any) -> Any:
        """Compute the outputs of one batch, as NumPy arrays."""
        with self._running(training=False, any_batch=True) as run:
            return in_structure(to_numpy, self._composed(self._sources(x, run), run))

    # ---- what a model tells of itself ----------------------------------------------------------------------------------

    def summary(
        self,
        line_length: int | None = None,
        print_fn: Callable[[str], object] = print,
        expand_nested: bool = False,
        show_trainable: bool = False,
    ) -> None:
        """Print the layers, the shapes of what they give, and how many parameters of how many bytes they have.

        Args:
            line_length: Width of the table.
            print_fn: Called with the text.
            expand_nested: Whether the layers of models within are listed, too.
            show_trainable: Whether to tell what is trained.

        Example:
            >>> import xpconv as xc
            >>> model = xc.Sequential([xc.layers.Dense(10, name="scores")], name="small", device="numpy")
            >>> model.build((None, 784))
            >>> model.summary(line_length=58)
            Model: "small"
            ┏━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┓
            ┃ Layer (type)          ┃ Output Shape      ┃    Param # ┃
            ┡━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━┩
            │ scores (Dense)        │ (None, 10)        │      7,850 │
            └───────────────────────┴───────────────────┴────────────┘
             Total params: 7,850 (30.66 KB)
             Trainable params: 7,850 (30.66 KB)
             Non-trainable params: 0 (0.00 B)
        """
        print_fn(summary_of(self, line_length, expand_nested, show_trainable))

    def graph(self) -> tuple[list[Node], list[tuple[int, int]]]:
        """What flows from where to where, as one run through the model records it.

        Returns:
            The inputs and the layers, in the order they run in; and pairs of positions in that list, from and to.

        Raises:
            ValueError: The model is not built.
        """
        if not self.built:
            raise ValueError(f"{self.title}: graph needs a model that is built; call it or its method build first")
        with self._running(training=False, remember=True, any_batch=True) as run:
            run.fuse = False
            inputs = zeros_of(self.input_shape, run)
            run.tape = Tape(tuple(flat(inputs)), input_gradient=True)
            self._composed(inputs, run)
            made = {id(array): position for position, array in enumerate(run.tape.sources)}
            nodes = [Node("input", "Input", (None, *array.shape[1:]), 0) for array in run.tape.sources]
            edges = []
            for layer, given, output in run.tape.steps():
                if type(layer).__name__ == "_Cast":
                    made[id(output)] = made[id(given[0])]
                    continue
                edges += [(made[id(array)], len(nodes)) for array in given]
                made[id(output)] = len(nodes)
                nodes.append(Node(layer.name, type(layer).__name__, (None, *output.shape[1:]), layer.count_params()))
        return nodes, edges

    # ---- files and devices ---------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole model to a safetensors file, whole or not at all.

        Weights, how the layers are made, how it was compiled, and where the optimizer stands: :func:`xpconv.models.load_model`
        makes the model again, and ``fit`` goes on. A model of one's own is made again from the arguments of its class.

        Args:
            path: File to write.

        Raises:
            ValueError: The model is not built.
            TypeError: An argument of a layer cannot be written down, such as an initializer without ``get_config``.
            OSError: The file cannot be written; an older one stays as it was.
        """
        self._check_built("save")
        write_model(path, self, whole=True)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over the weights of a file, and the optimizer's state if the file has one and the model is compiled.

        Args:
            path: A file that :meth:`save` or :meth:`save_weights` wrote, of a model of the same layers.

        Raises:
            FileNotFoundError: There is no such file.
            ParameterFileError: The file is damaged, or of another model; the text lists what differs. Nothing is changed then.
        """
        read_weights(path, self)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights alone; see :meth:`save`."""
        self._check_built("save_weights")
        write_model(path, self, whole=False)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Keras' name for :meth:`load`."""
        self.load(path)

    def to(self, device: str | Device | None) -> Model:
        """Move the model, its optimizer's state included, to another device.

        Args:
            device: The device.

        Returns:
            The model itself.

        Raises:
            ValueError, DeviceUnavailableError: As :func:`xpconv.get_device`; the model stays where it was.
        """
        place = get_device(device)
        self.move(place)
        self.device = place
        for _, layer in self.children():
            _set_device(layer, place)
        if self.optimizer is not None:
            with place.current():
                state = {name: asarray(array, device=place) for name, array in self.optimizer.state_dict().items()}
                self.optimizer.load_state_dict(state)
        self.reset_metrics()
        return self

    # ---- one step -------------------------------------------------------------------------------------------------------

    def _train(
        self,
        op: str,
        optimizer: optimizers.Optimizer,
        loss: losses.Loss,
        batch: Batch,
        data: Any,
        checked: bool,
        class_weight: Mapping[int, float] | None,
        tolerant: bool,
        moment: str,
    ) -> bool:
        # One update. Returns whether all labels of the epoch have been checked.
        with self._running(training=True, remember=True, any_batch=True) as run:
            weights = self.trained()
            names, buffers = self._known(weights)
            before = [buffer.copy() for buffer in buffers]
            tape, output = self._taped(batch.x, run)
            if class_weight is not None and batch.y is not None and hasattr(output, "shape"):
                batch = batch._replace(sample_weight=weights_of_classes(op, batch.y, class_weight, output.shape[-1]))
            y, weight, checked = self._labels(op, loss, output, batch, data, checked, run)
            step = self._loss_and_gradient(loss, tape, output, y, weight)
            if not names:  # this run has built the model
                weights = self.trained()
                names, _ = self._known(weights)
            total = self._with_penalty(step.loss, weights)
            if not run.device.asynchronous and not tolerant and not math.isfinite(total):
                for buffer, values in zip(buffers, before, strict=True):
                    buffer[...] = values
                raise TrainingError(
                    f"{op}: the loss is {float(total)} in {moment}; the weights are those before this step. "
                    f"A smaller learning rate may help (optimizer={optimizer!r})"
                )
            found = tape.backward(output, step.gradient, run, skip_last=step.before_activation)
            params, grads = {}, {}
            for name, trained in zip(names, weights, strict=True):
                grad = found.of(trained.array)
                if grad is None:
                    continue  # nothing depends on it
                params[name] = trained.array
                grads[name] = grad if trained.regularizer is None else grad + trained.regularizer.gradient(trained.array)
            if not params:
                raise ValueError(f"{op}: {self.title} has no weights that this loss could train")
            optimizer.update(params, grads, device=run.device)
            self._measure(output, y, weight, total)
        return checked

    def _test(self, op: str, batch: Batch, data: Any, checked: bool) -> bool:
        loss = self._loss
        assert loss is not None
        with self._running(training=False, remember=True, any_batch=True) as run:
            tape, output = self._taped(batch.x, run)
            y, weight, checked = self._labels(op, loss, output, batch, data, checked, run)
            value = self._loss_and_gradient(loss, tape, output, y, weight).loss
            self._measure(output, y, weight, self._with_penalty(value, self.trained()))
        return checked

    def _taped(self, x: Any, run: Run) -> tuple[Tape, Array]:
        # The output for a batch, and what is written down of how it came about.
        sources = self._sources(x, run)
        tape = run.tape = Tape(tuple(flat(sources)))
        return tape, self._composed(sources, run)

    def _labels(
        self, op: str, loss: losses.Loss, output: Array, batch: Batch, data: Any, checked: bool, run: Run
    ) -> tuple[Array, Array, bool]:
        if not hasattr(output, "shape"):
            raise TypeError(f"{op}: call of {self.title} must return one array, got {type(output).__name__}")
        if batch.y is None:
            raise ValueError(f"{op}: the loss {loss.name!r} needs labels, and y is None")
        y = batch.y
        if not checked:
            checked = bool(data.check_labels(lambda labels: loss.check(labels, (len(labels), *output.shape[1:]))))
            y = loss.check(y, tuple(output.shape), values=not checked)
        if self._metrics is None:
            self._choose_metrics(tuple(np.shape(y)), tuple(output.shape))
        weight = batch.sample_weight
        if weight is not None:
            weight = asarray(weight, device=run.device, dtype=output.dtype)
        return asarray(y, device=run.device), weight, checked

    def _loss_and_gradient(self, loss: losses.Loss, tape: Tape, output: Array, y: Array, weight: Array) -> _Step:
        # A softmax or sigmoid at the end and the logarithm in the loss cancel: the loss is computed from what went in.
        maker = tape.maker(output)
        if maker is not None:
            layer, saved = maker
            before = layer.before_activation(saved)
            twin = None if before is None else loss.before_activation(before[0])
            if before is not None and twin is not None:
                value, gradient = twin.value_and_gradient(y, before[1], weight, checked=True)
                return _Step(value, gradient, True)
        value, gradient = loss.value_and_gradient(y, output, weight, checked=True)
        return _Step(value, gradient, False)

    def _measure(self, output: Array, y: Array, weight: Array, total: Any) -> None:
        self._loss_mean.add("total", total * output.shape[0])
        self._loss_mean.add("count", output.shape[0])
        for metric in self._metrics or ():
            metric.update_state(y, output)
        for metric in self._weighted_metrics:
            metric.update_state(y, output, weight)

    def _known(self, weights: list[Weight]) -> tuple[list[str], list[Array]]:
        # The ways to the weights that are trained, and the arrays that layers change by themselves (running means). They are
        # looked for once, as long as the weights are the same ones.
        key = tuple(id(weight.array) for weight in weights)
        if self._remembered[0] != key:
            names = {id(array): name for name, array in self.parameters().items()}
            buffers = [weight.array for _, weight in self.all_weights() if not weight.trainable]
            self._remembered = key, [names[identity] for identity in key], buffers
        return self._remembered[1:]

    def _with_penalty(self, loss: Any, weights: list[Weight]) -> Any:
        penalties = [weight.regularizer(weight.array) for weight in weights if weight.regularizer is not None]
        if not penalties:
            return loss
        return loss + (sum(penalties) if self.device.asynchronous else float(sum(penalties)))

    # ---- what the public methods share ---------------------------------------------------------------------------------

    def _ready(self, op: str) -> tuple[optimizers.Optimizer, losses.Loss]:
        if self.optimizer is None:
            raise RuntimeError(f"{op}: {self.title} must be compiled first: model.compile(optimizer=..., loss=...)")
        if self._loss is None:
            raise ValueError(f"{op}: {self.title} was compiled without a loss: model.compile(loss=...)")
        return self.optimizer, self._loss

    def _check_built(self, op: str) -> None:
        if not self.built:
            raise ValueError(f"{op}: {self.title} has no weights yet; call it or its method build first")

    def _order(self, samples: int) -> NDArray[Any]:
        return np.asarray(self._random.permutation(samples))

    def _choose_metrics(self, y_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
        def chosen(entries: list[Any]) -> list[metrics.Metric]:
            return [metrics.resolve(entry, y_shape, output_shape, op="compile") for entry in entries]

        self._metrics = chosen(self.compiled["metrics"])
        self._weighted_metrics = chosen(self.compiled["weighted_metrics"])
        taken = {metric.name for metric in self._metrics}
        for metric in self._weighted_metrics:
            if metric.name in taken:
                metric.name = f"weighted_{metric.name}"
        names = self.metrics_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"compile: two metrics are called {repeated[0]!r}; give one of them another name")

    def _callbacks(
        self, op: str, given: Any, verbose: str | int, epochs: int, steps: int | None, with_history: bool = False
    ) -> CallbackList:
        shown = ProgressBar.level(op, verbose)
        callbacks = [given, ProgressBar(shown)] if shown else [given]
        called = CallbackList(callbacks, add_history=with_history, model=self, epochs=epochs, steps=steps, verbose=shown)
        if with_history:
            self.history = called.history
        return called

    def _evaluate(
        self,
        op: str,
        data: ArrayBatches | GivenBatches,
        called: CallbackList,
        interruption: Interruption | None = None,
    ) -> dict[str, float]:
        self.reset_metrics()
        called.on_test_begin()
        checked = False
        for step, batch in enumerate(data):
            called.on_test_batch_begin(step)
            checked = self._test(op, batch, data, checked)
            called.on_test_batch_end(step, _Logs(self))
            if interruption is not None and interruption.requested:
                raise KeyboardInterrupt
        results = self._results()
        called.on_test_end(results)
        return results

    def _results(self) -> dict[str, float]:
        measured = self.metrics
        metrics.bring_to_host(measured)
        return {metric.name: float(metric.result()) for metric in measured}

    def _returned(self, return_dict: bool) -> Any:
        results = self._results()
        if return_dict:
            return results
        return list(results.values()) if len(results) > 1 else results["loss"]


class _Logs(Mapping[str, float]):
    """The metrics as they stand, computed when they are read: on a card that waits."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getitem__(self, name: str) -> float:
        for metric in self._model.metrics:
            if metric.name == name:
                return float(metric.result())
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._model.metrics_names)

    def __len__(self) -> int:
        return len(self._model.metrics)


def _paths(model: Layer) -> Iterator[tuple[str, Array]]:
    # Every weight once, by the way to it.
    seen: set[int] = set()

    def within(layer: Layer, prefix: str) -> Iterator[tuple[str, Array]]:
        for weight in layer._own_weights:
            if id(weight.array) not in seen:
                seen.add(id(weight.array))
                yield prefix + weight.name, weight.array
        for name, child in layer.children():
            yield from within(child, f"{prefix}{name}/")

    return within(model, "")


def _set_device(layer: Layer, place: Device) -> None:
    if isinstance(layer, Model):
        layer.device = place
    for _, child in layer.children():
        _set_device(child, place)


def _length(x: Any) -> int | None:
    arrays = flat(x)
    return max(len(arrays[0]), 1) if arrays and hasattr(arrays[0], "__len__") else None


def _check_class_weight(op: str, class_weight: Any, sample_weight: Any) -> None:
    if class_weight is None:
        return
    if sample_weight is not None:
        raise ValueError(f"{op}: give class_weight or sample_weight, not both")
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"{op}: class_weight must be a dictionary from classes to weights, got {class_weight!r}")


def _validation_batches(given: Any, steps: int | None, batch_size: int | None) -> ArrayBatches | GivenBatches:
    op = "fit: validation_data"
    if not isinstance(given, (tuple, list)):
        return batches_of(op, given, steps=steps)
    if not 2 <= len(given) <= 3:
        raise ValueError(f"fit: validation_data must be (x, y) or (x, y, sample_weight), got {len(given)} entries")
    x, y, weight = (*given, None)[:3]
    return batches_of(op, x, y, weight, batch_size=batch_size, steps=steps)


def _listed(metrics: Any) -> list[Any]:
    if metrics is None:
        return []
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def _check_metric(entry: Any) -> None:
    # For labels and outputs of some shape; the ones that it hangs on are known at the first batch.
    metrics.resolve(entry, (1,), (1, 2), op="compile")


def _is_due(frequency: int | Sequence[int], epoch: int) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % integer("fit", "validation_freq", frequency, 1) == 0
    return epoch + 1 in frequency


def _joined(outputs: list[Any]) -> Any:
    if isinstance(outputs[0], dict):
        return {name: _joined([output[name] for output in outputs]) for name in outputs[0]}
    if isinstance(outputs[0], list):
        return [_joined([output[position] for output in outputs]) for position in range(len(outputs[0]))]
    return np.concatenate(outputs)
