"""What a run through layers knows and writes down: where it computes, and which layer made which array of which.

Arrays are plain, so it is their identity that tells where they come from::

    x --conv2d--> a --max_pooling2d--> b --+
                                           add --> d          records: conv2d, max_pooling2d, dense, add
    x --dense---> c -----------------------+

Backwards through the records, the gradient of each array is the sum of what the layers that read it have for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpconv.device import Device
from xpconv.errors import BrokenChainError

if TYPE_CHECKING:
    from xpconv.layers.layer import Layer

Array = Any

_NO_TRACE = (
    "arithmetic on arrays inside call leaves no trace, and no gradient could go back through it. Use a layer for it (Add, "
    "Concatenate, Activation, Reshape ...), or write one that overrides compute and differentiate"
)


@dataclass
class Run:
    """One run through layers: what every layer in it is told.

    Attributes:
        device: Where it computes.
        dtype: The dtype of the model; layers that were given none of their own take it.
        random: Where random numbers come from: a generator, or ``numpy.random`` itself.
        training: Whether layers that differ in training, such as dropout, do what they do in training.
        remember: Whether what the way back needs is kept.
        tape: Where the layers are written down; None where each keeps its own.
        fuse: Whether layers may run as one (:mod:`xpconv.fusion`).
        any_batch: Whether what is built is built for batches of any size, and not for those of this size.
    """

    device: Device
    dtype: np.dtype[Any]
    random: Any
    training: bool
    remember: bool
    tape: Tape | None = None
    fuse: bool = True
    any_batch: bool = False


_current: ContextVar[Run | None] = ContextVar("run", default=None)


def current_run() -> Run | None:
    """The run that is under way in this thread, or None."""
    return _current.get()


@contextlib.contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make a run the one that is under way."""
    token = _current.set(run)
    try:
        with run.device.current():
            yield run
    finally:
        _current.reset(token)


class _Record(NamedTuple):
    layer: Layer
    inputs: tuple[Array, ...]
    output: Array
    saved: Any


class Tape:
    """Writes down what layers compute, and goes back through it for the gradients.

    Args:
        sources: The arrays that a run starts from.
        input_gradient: Whether their gradients are asked for, too.
    """

    def __init__(self, sources: tuple[Array, ...], input_gradient: bool = False) -> None:
        self.sources = sources
        self._wanted = {id(source): input_gradient for source in sources}  # by identity: is a gradient asked for?
        self._kept = list(sources)  # so that no identity is given to another array
        self._records: list[_Record] = []
        self._freeze(sources)

    def maker(self, array: Array) -> tuple[Layer, Any] | None:
        """The layer that ran last and what it saved, if it was this one that made the array."""
        if not self._records or self._records[-1].output is not array:
            return None
        return self._records[-1].layer, self._records[-1].saved

    def steps(self) -> Iterator[tuple[Layer, tuple[Array, ...], Array]]:
        """Each layer that ran and a gradient can go back through, what it was given and what it made, in order."""
        for record in self._records:
            yield record.layer, record.inputs, record.output

    def knows(self, array: Array) -> bool:
        """Whether an array is a source, or was made by a layer."""
        return id(array) in self._wanted

    def note(self, layer: Layer, inputs: tuple[Array, ...], output: Array, saved: Any) -> None:
        """Write down that a layer made ``output`` of ``inputs``.

        Raises:
            BrokenChainError: One of the inputs is no source, and no layer has made it.
        """
        for position, array in enumerate(inputs):
            if id(array) not in self._wanted:
                which = f"input {position} of" if len(inputs) > 1 else "the input of"
                raise BrokenChainError(
                    f"{which} layer {layer.name!r} ({type(layer).__name__}), of shape {tuple(array.shape)}, was made by no "
                    f"layer: {_NO_TRACE}"
                )
        if any(output is array for array in inputs):  # nothing was done
            return
        wanted = bool(layer.trainable_weights) or any(self._wanted[id(array)] for array in inputs)
        self._wanted[id(output)] = wanted
        self._kept.append(output)
        self._freeze((output,))
        if wanted:
            self._records.append(_Record(layer, inputs, output, saved))

    def backward(self, output: Array, doutput: Array, run: Run, *, skip_last: bool = False) -> _Gradients:
        """Go back from the gradient of an array to those of the weights and sources.

        Args:
            output: An array that a layer of the run made, or a source.
            doutput: Its gradient.
            run: The run.
            skip_last: Whether ``doutput`` is the gradient of what the last layer's activation was given.

        Raises:
            BrokenChainError: No layer has made ``output``.
        """
        if not self.knows(output):
            raise BrokenChainError(
                f"call returned an array of shape {tuple(output.shape)} that was made by no layer: {_NO_TRACE}"
            )
        gradients = _Gradients()
        of_array: dict[int, Array] = {id(output): doutput}
        for record in reversed(self._records):
            dy = of_array.pop(id(record.output), None)
            if dy is None:
                continue  # its result was not used
            asked = tuple(self._wanted[id(array)] for array in record.inputs)
            differentiate = record.layer.differentiate_before_activation if skip_last else record.layer.differentiate
            skip_last = False
            dx, grads = differentiate(record.saved, dy, run, any(asked))
            for weight, grad in zip(record.layer.trainable_weights, grads, strict=True):
                gradients.add(weight, grad)
            if any(asked):
                shares = dx if isinstance(dx, (list, tuple)) else (dx,)
                for array, share, is_asked in zip(record.inputs, shares, asked, strict=True):
                    if is_asked:
                        key = id(array)
                        of_array[key] = of_array[key] + share if key in of_array else share
        gradients.of_sources = [of_array.get(id(source)) for source in self.sources]
        return gradients

    @staticmethod
    def _freeze(arrays: tuple[Array, ...]) -> None:
        # An array that is changed in place after a layer has read it would give wrong gradients. (CuPy has no such flag.)
        for array in arrays:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False


class _Gradients:
    """Gradients of weights, by the identity of the weight, and of the sources of a run."""

    def __init__(self) -> None:
        self._of_weight: dict[int, Array] = {}
        self.of_sources: list[Array | None] = []

    def add(self, weight: Array, grad: Array) -> None:
        """Add to the gradient of a weight: a layer may run more than once."""
        key = id(weight)
        self._of_weight[key] = self._of_weight[key] + grad if key in self._of_weight else grad

    def of(self, weight: Array) -> Array | None:
        """The gradient of a weight, or None if nothing depends on it."""
        return self._of_weight.get(id(weight))
