"""What the book's networks share: prediction, loss, gradients, accuracy, and parameters in files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from xpconv.arrays import FLOAT_DTYPES, real_array
from xpconv.device import Device, asarray, fetch, get_device, number, to_numpy
from xpconv.errors import ParameterFileError, TrainingError
from xpconv.files import check_parameters, load_parameters, load_pickled_parameters, save_parameters
from xpconv.fusion import Block, blocks
from xpconv.geometry import integer
from xpconv.labels import class_indices
from xpconv.scratch.gradient import numerical_gradient
from xpconv.scratch.layers import BatchNormalization, Dropout, Layer, SoftmaxWithLoss

Array = Any


class Network:
    """A chain of layers with a softmax loss at its end; the base of the book's networks.

    A subclass fills ``params`` and ``layers`` and names in ``parameters_of`` which parameters each layer holds.

    Args:
        input_shape: Shape of one sample, to check inputs against.
        device: Where to compute; ``"auto"`` takes the best there is.
        dtype: float32 or float64: of the parameters and of everything computed. Inputs are converted to it.
        seed: Seed of the initial parameters, or None for NumPy's global generator, as in the book.

    Attributes:
        params: The parameters by name. Update them in place or replace them: the layers follow.
        layers: The layers by name, in the order they run in.
        last_layer: Softmax and loss.
        device: Where the network computes.
        dtype: Its dtype.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        *,
        device: str | Device | None = "auto",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        self.device = get_device(device)
        self.dtype = np.dtype(dtype)
        if self.dtype not in FLOAT_DTYPES:
            raise TypeError(f"{type(self).__name__}: dtype must be float32 or float64, got {self.dtype}")
        self.input_shape = tuple(input_shape)
        self.random: Any = np.random if seed is None else np.random.RandomState(seed)
        self.params: dict[str, Array] = {}
        self.layers: OrderedDict[str, Layer] = OrderedDict()
        # Layer name -> {attribute of the layer: name of the parameter}
        self.parameters_of: dict[str, dict[str, str]] = {}
        self.last_layer = SoftmaxWithLoss(device=self.device)
        self.weight_decay_lambda = 0.0

    def normal(self, *shape: int, std: float) -> Array:
        """Initial values from a normal distribution of mean 0, on the network's device."""
        return asarray(std * self.random.standard_normal(shape), device=self.device, dtype=self.dtype)

    def constant(self, *shape: int, value: float) -> Array:
        """Initial values that are all the same, on the network's device."""
        with self.device.current():
            return self.device.xp.full(shape, value, self.dtype)

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Compute the scores (N, classes) before softmax.

        Args:
            x: A batch of samples, (N, *input_shape). All of it is computed at once: pass large sets in batches.
            train_flg: Whether dropout drops and batch normalisation uses the batch's statistics.

        Raises:
            ValueError: x is not of that shape.
        """
        with self.device.current():
            return self._forward(x, train_flg)[0]

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Any:
        """Mean cross-entropy of a batch, and the weight decay if there is one.

        Args:
            x: A batch of samples, (N, *input_shape).
            t: Labels: (N,), (N, 1), or one-hot (N, classes).
            train_flg: As in :meth:`predict`.

        Returns:
            The loss; on a card an array without axes, which ``float()`` waits for and reads.

        Raises:
            ValueError: Samples or labels of another shape, or labels out of range.
        """
        with self.device.current():
            return self.last_layer.forward(self.predict(x, train_flg), t) + self._weight_decay()

    def loss_and_gradient(self, x: Array, t: Array) -> tuple[Any, dict[str, Array]]:
        """Loss of a training batch and the gradient of every parameter, from one pass forward and one back.

        Args:
            x: A batch of samples, (N, *input_shape).
            t: Labels, as in :meth:`loss`.

        Returns:
            The loss as :meth:`loss` gives it, and gradients under the names of ``params``.

        Raises:
            ValueError: As :meth:`loss`.
        """
        with self.device.current():
            return self._loss_and_gradient(x, t)

    def _loss_and_gradient(self, x: Array, t: Array) -> tuple[Any, dict[str, Array]]:
        scores, chain = self._forward(x, train_flg=True)
        loss = self.last_layer.forward(scores, t) + self._weight_decay()
        dout = self.last_layer.backward()
        for block in reversed(chain):
            dout = block.backward(dout, input_gradient=block is not chain[0])
        grads = {
            parameter: getattr(self.layers[layer], f"d{attribute}")
            for layer, attributes in self.parameters_of.items()
            for attribute, parameter in attributes.items()
        }
        if self.weight_decay_lambda:
            for name in self._decayed():
                grads[name] = grads[name] + self.weight_decay_lambda * self.params[name]
        return loss, grads

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Gradient of the loss of a training batch, by backpropagation; see :meth:`loss_and_gradient`."""
        return self.loss_and_gradient(x, t)[1]

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Gradient of the training loss by central differences, in float64: slow, and right, to check :meth:`gradient`.

        Batch normalisation uses the statistics of the batch, as :meth:`gradient` does, and keeps its running ones; dropout
        drops nothing.
        """
        params, dtype, layers, running = self.params, self.dtype, self.layers, self.state_arrays()
        self.params, self.dtype = {name: value.astype(np.float64) for name, value in params.items()}, np.dtype(np.float64)
        self.layers = OrderedDict((name, layer) for name, layer in layers.items() if not isinstance(layer, Dropout))
        try:
            return {
                name: numerical_gradient(lambda _: self.loss(x, t, train_flg=True), value)
                for name, value in self.params.items()
            }
        finally:
            self.params, self.dtype, self.layers = params, dtype, layers
            self.load_state_arrays(running)
            self._link()

    def accuracy(self, x: Array, t: Array, batch_size: int = 100) -> float:
        """Share of the samples whose highest score is at their label.

        Args:
            x: Samples, (N, *input_shape); computed in batches.
            t: Labels, as in :meth:`loss`.
            batch_size: Samples to compute at once.

        Raises:
            ValueError: No samples, or labels that do not fit.
            TrainingError: Scores that are NaN, which no label is right or wrong for.
        """
        op = f"{type(self).__name__}.accuracy"
        samples, batch_size = len(x), integer(op, "batch_size", batch_size, 1)
        if samples == 0:
            raise ValueError(f"{op}: needs at least one sample, got x.shape={np.shape(x)}")
        starts = range(0, samples, batch_size)
        labels, right, unordered = None, [], []
        with self.device.current():
            for start in starts:
                scores = self.predict(x[start : start + batch_size])
                if labels is None:
                    labels = asarray(class_indices(op, t, samples, scores.shape[1]), device=self.device)
                right.append((scores.argmax(axis=1) == labels[start : start + batch_size]).sum())
                unordered.append(self.device.xp.isnan(scores).any())
            counts = fetch(*right, *unordered)
        for start, holds_nan in zip(starts, counts[len(right) :], strict=True):
            if holds_nan:
                last = min(start + batch_size, samples) - 1
                raise TrainingError(f"{op}: the scores of samples {start} to {last} hold NaN")
        return sum(counts[: len(right)]) / samples

    def state_arrays(self) -> dict[str, Array]:
        """What the network has learnt besides its parameters: running means and variances, as ``"BatchNorm1/running_mean"``."""
        return {
            name: value
            for name in self._state_names()
            if (value := getattr(self.layers[name.partition("/")[0]], name.partition("/")[2])) is not None
        }

    def load_state_arrays(self, arrays: dict[str, Array]) -> None:
        """Take over what :meth:`state_arrays` returned."""
        for key, array in arrays.items():
            layer, _, attribute = key.partition("/")
            setattr(self.layers[layer], attribute, asarray(array, device=self.device).copy())

    def save(self, path: str | Path) -> None:
        """Write the parameters to a safetensors file, whole or not at all.

        Args:
            path: File to write.

        Raises:
            OSError: The file cannot be written; an older one stays as it was.
        """
        arrays = {name: to_numpy(value) for name, value in {**self.params, **self.state_arrays()}.items()}
        save_parameters(path, arrays, {"network": type(self).__name__})

    def load(self, path: str | Path) -> None:
        """Read the parameters from a file that :meth:`save` wrote.

        Args:
            path: File to read.

        Raises:
            FileNotFoundError: There is no such file.
            ParameterFileError: The file is damaged, or of a network of other shapes; nothing is changed then.
        """
        self._take(path, load_parameters(path)[0])

    def save_params(self, file_name: str | Path = "params.safetensors") -> None:
        """The book's name for :meth:`save`. The file is safetensors whatever its name: no pickle is written."""
        self.save(file_name)

    def load_params(self, file_name: str | Path = "params.safetensors") -> None:
        """The book's name for :meth:`load`; reads the book's own ``params.pkl`` too, through a reader that runs nothing."""
        with Path(file_name).open("rb") as file:
            # The header of safetensors, a JSON object, stands behind its length; no pickle of arrays has a brace there.
            is_safetensors = file.read(9)[8:] == b"{"
        if is_safetensors:
            self.load(file_name)
        else:
            self._take(file_name, self.from_the_book(load_pickled_parameters(file_name)))

    def from_the_book(self, params: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Turn the book's parameters into those that give the same scores here: for most networks the same."""
        return params

    def _forward(self, x: Array, train_flg: bool) -> tuple[Array, list[Block]]:
        op = type(self).__name__
        images = real_array(op, "x", x)
        if images.ndim == 0 or images.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, ("N", *self.input_shape)))
            raise ValueError(f"{op}: x must have the shape ({expected}), got {images.shape}{self._hint(images.shape)}")
        self._link()
        chain = list(blocks(list(self.layers.values())))
        out = asarray(images, device=self.device, dtype=self.dtype)
        for block in chain:
            out = block.forward(out, train_flg)
        return out, chain

    def _hint(self, shape: tuple[int, ...]) -> str:
        if shape == self.input_shape:
            return "; one sample needs an axis in front: x[None]"
        flat = 1 in (len(shape) - 1, len(self.input_shape))  # of either, the order of the pixels is clear
        if flat and shape and np.prod(shape[1:]) == np.prod(self.input_shape):
            return f"; reshape it: x.reshape(-1, {', '.join(map(str, self.input_shape))})"
        if len(shape) == 4 and (shape[3], *shape[1:3]) == self.input_shape:
            return "; its channels are last, move them: x.transpose(0, 3, 1, 2)"
        return ""

    def _link(self) -> None:
        # The layers compute with what is in params now, also where an entry was replaced.
        for layer, attributes in self.parameters_of.items():
            for attribute, parameter in attributes.items():
                setattr(self.layers[layer], attribute, self.params[parameter])

    def _decayed(self) -> list[str]:
        return [name for name in self.params if name.startswith("W")]

    def _weight_decay(self) -> Any:
        if not self.weight_decay_lambda:
            return 0.0
        squares = (number(self.device, (self.params[name] ** 2).sum().astype(np.float64)) for name in self._decayed())
        return 0.5 * self.weight_decay_lambda * sum(squares)

    def _state_names(self) -> list[str]:
        normalisations = [name for name, layer in self.layers.items() if isinstance(layer, BatchNormalization)]
        return [f"{name}/{attribute}" for name in normalisations for attribute in ("running_mean", "running_var")]

    def _take(self, path: str | Path, loaded: dict[str, np.ndarray[Any, Any]]) -> None:
        # A normalisation that has seen no batch has no statistics yet, and takes what the file has.
        state = {name: loaded[name] for name in self._state_names() if name in loaded} | self.state_arrays()
        expected = {name: value.shape for name, value in {**self.params, **state}.items()}
        check_parameters(path, loaded, expected)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is refused
            converted = {name: loaded[name].astype(self.dtype) for name in expected}
        for name, value in converted.items():
            if loaded[name].dtype.kind != "f" or not np.isfinite(value).all():
                raise ParameterFileError(
                    f"{path}: {name} must hold finite numbers of a floating dtype, for a network of {self.dtype}; "
                    f"it has the dtype {loaded[name].dtype}"
                )
        for name, value in self.params.items():
            value[...] = asarray(converted[name], device=self.device)
        self.load_state_arrays({name: converted[name] for name in state})
