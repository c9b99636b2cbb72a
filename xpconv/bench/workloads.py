"""What the benchmark computes: each workload's shapes, its inputs, and how much work it is. Nothing here but NumPy.

Everything is float32 in the order channels_first; a peer that likes another order better converts before the clock starts.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Inputs = dict[str, Array]

OPERATIONS = {
    "fwd": "the result",
    "dx": "a convolution's gradient with respect to its images",
    "dw": "a convolution's gradients with respect to its filters and its bias",
    "bwd": "a pooling's gradient with respect to its images, with what the forward pass left",
    "tot": "the result and every gradient",
    "step": "one update of a network: result, gradients, optimizer",
}
FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """One thing to compute, in one or more operations.

    Attributes:
        id: Short name, which ``--workloads`` takes.
        title: What it is, in a few words.
        operations: Names of its operations; the last one computes everything that the others do.
        unit: What :meth:`work` counts.
        tolerance: Largest error that a float32 result may have, relative to the largest value of the array it is in. It lets
            pass sums of some ten thousand products in any order, and Winograd's transforms; a wrong pixel, TF32 or bfloat16
            exceed it by far.
    """

    id: str
    title: str
    operations: ClassVar[tuple[str, ...]]
    unit: ClassVar[Literal["flop", "byte"]]
    tolerance: ClassVar[float] = 2e-5

    @abstractmethod
    def inputs(self) -> Inputs:
        """Arrays to start from, the same in every process and with every release of NumPy."""

    @abstractmethod
    def work(self, operation: str) -> int:
        """Additions and multiplications, or bytes that have to be read and written, of one operation."""


@dataclass(frozen=True, kw_only=True)
class Convolution(Workload):
    """A convolution with bias, and its gradients."""

    batch: int
    channels: int
    size: int
    filters: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    operations = ("fwd", "dx", "dw", "tot")
    unit = "flop"

    @property
    def output_size(self) -> int:
        """Height and width of the result."""
        return (self.size + 2 * self.padding - self.kernel_size) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the images."""
        return self.batch, self.channels, self.size, self.size

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        """Shape of the filters."""
        return self.filters, self.channels // self.groups, self.kernel_size, self.kernel_size

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the result."""
        return self.batch, self.filters, self.output_size, self.output_size

    def inputs(self) -> Inputs:
        """Images ``x``, filters ``w``, bias ``b``, and the result's gradient ``dy``."""
        return {
            "x": numbers("x", self.x_shape),
            "w": numbers("w", self.w_shape),
            "b": numbers("b", (self.filters,)),
            "dy": numbers("dy", self.y_shape),
        }

    def work(self, operation: str) -> int:
        """Each pass multiplies and adds once for every output, channel of its group and tap; ``tot`` is three passes."""
        one_pass = 2 * math.prod(self.y_shape) * math.prod(self.w_shape[1:])
        return 3 * one_pass if operation == "tot" else one_pass


@dataclass(frozen=True, kw_only=True)
class ConvolutionReluPooling(Workload):
    """Convolution, bias, ReLU and max pooling 2x2 in one go, forward."""

    convolution: Convolution
    operations = ("fwd",)
    unit = "flop"

    def inputs(self) -> Inputs:
        """Images ``x``, filters ``w``, bias ``b``."""
        inputs = self.convolution.inputs()
        return {name: inputs[name] for name in ("x", "w", "b")}

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the result."""
        batch, filters, height, width = self.convolution.y_shape
        return batch, filters, height // 2, width // 2

    def work(self, operation: str) -> int:
        """That of the convolution alone."""
        return self.convolution.work(operation)


@dataclass(frozen=True, kw_only=True)
class Pooling(Workload):
    """Max or average pooling, where zeros of the padding count in the mean."""

    kind: Literal["max", "average"]
    batch: int
    channels: int
    size: int
    pool_size: int
    stride: int
    padding: int = 0
    operations = ("fwd", "bwd", "tot")
    unit = "byte"

    @property
    def output_size(self) -> int:
        """Height and width of the result."""
        return (self.size + 2 * self.padding - self.pool_size) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Shape of the images."""
        return self.batch, self.channels, self.size, self.size

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """Shape of the result."""
        return self.batch, self.channels, self.output_size, self.output_size

    def inputs(self) -> Inputs:
        """Images ``x``, no two numbers of them equal so that each maximum is in one place, and the result's gradient ``dy``."""
        return {"x": numbers("x", self.x_shape), "dy": numbers("dy", self.y_shape)}

    def work(self, operation: str) -> int:
        """Each pass reads one of the two arrays and writes the other; what is kept in between isn't counted."""
        one_pass = FLOAT32_BYTES * (math.prod(self.x_shape) + math.prod(self.y_shape))
        return 2 * one_pass if operation == "tot" else one_pass


@dataclass(frozen=True, kw_only=True)
class TrainingStep(Workload):
    """One step of the book's SimpleConvNet.

    A batch drawn at random from many images; convolution 5x5, ReLU, max pooling 2x2, affine, ReLU, affine, softmax
    cross-entropy; the gradients of all parameters, not of the images; Adam.
    """

    batch: int
    images: int
    size: int
    filters: int
    hidden: int
    classes: int = 10
    kernel_size: int = 5
    lr: float = 0.001
    operations = ("step",)
    unit = "flop"

    @property
    def pooled_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what reaches the first affine layer."""
        pooled = (self.size - self.kernel_size + 1) // 2
        return self.filters, pooled, pooled

    def inputs(self) -> Inputs:
        """The parameters ``W1`` to ``b3`` as SimpleConvNet has them, ``images`` and ``labels``.

        Images and filters have so few bits that every convolution of them is exact in float32, and of several draws this one
        has no two equal maxima in a window and no value near ReLU's edge. So all peers see the same maxima and the same
        signs: one pixel that wins its window in one and not in another would change a gradient far more than rounding does.
        """
        pixels = math.prod(self.pooled_shape)
        return {
            "W1": numbers("W1 of draw 10", (self.filters, 1, self.kernel_size, self.kernel_size), bits=13) / 2,
            "b1": np.zeros(self.filters, np.float32),
            "W2": numbers("W2 of draw 10", (pixels, self.hidden)) * np.float32(math.sqrt(6 / pixels)),
            "b2": np.zeros(self.hidden, np.float32),
            "W3": numbers("W3", (self.hidden, self.classes)) * np.float32(math.sqrt(6 / self.hidden)),
            "b3": np.zeros(self.classes, np.float32),
            "images": numbers("images of draw 10", (self.images, 1, self.size, self.size), bits=6),
            "labels": (_scrambled("labels", self.images) % self.classes).astype(np.int64),
        }

    @property
    def first_batch(self) -> Array:
        """Positions of the images whose loss and gradients are compared."""
        return np.arange(self.batch)

    def draw(self, random: np.random.Generator) -> Array:
        """Positions of the images of one batch."""
        return random.integers(0, self.images, self.batch)

    def work(self, operation: str) -> int:
        """Every product of the layers: forward and two gradients, but only one gradient for the convolution.

        Counted as if dense: that pooling lets only one gradient of four through to the convolution may be used, and isn't
        taken off.
        """
        convolved = self.filters * (self.size - self.kernel_size + 1) ** 2 * self.kernel_size**2
        pixels = math.prod(self.pooled_shape)
        return 2 * self.batch * (2 * convolved + 3 * (pixels * self.hidden + self.hidden * self.classes))


def numbers(name: str, shape: tuple[int, ...], bits: int = 23) -> Array:
    """Float32 numbers evenly spread over [-1, 1), other ones for each name.

    They are multiples of ``2**-bits``. With 23 bits no two of the first ``2**24`` are equal.
    """
    scrambled = _scrambled(name, math.prod(shape))
    scrambled >>= np.uint32(23 - bits)
    values: Array = scrambled.astype(np.float32)
    values -= 2**bits
    values /= 2**bits
    return values.reshape(shape)


def _scrambled(name: str, count: int) -> Array:
    # Integers of 24 bits, which float32 holds exactly. Each line maps 24 bits to 24 bits one to one, so nothing repeats
    # before 2**24; and unlike a random generator's, these numbers will be the same in every release of NumPy.
    k = np.arange(min(count, 2**24), dtype=np.uint32)
    for factor, shift, salt in ((0x9E3779, 11, zlib.crc32(name.encode())), (0xC2B2AF, 13, 0), (0xEBCA6B, 10, 0)):
        k *= np.uint32(factor)
        k ^= np.uint32(salt)
        k &= np.uint32(2**24 - 1)
        k ^= k >> np.uint32(shift)
    return np.resize(k, count)


def _small(name: str, title: str, batch: int, channels: int, size: int) -> Convolution:
    return Convolution(id=name, title=title, batch=batch, channels=channels, size=size, filters=30, kernel_size=2)


_MNIST = Convolution(id="W1", title="MNIST, 30@5x5", batch=100, channels=1, size=28, filters=30, kernel_size=5)

_REAL: list[Workload] = [
    _MNIST,
    ConvolutionReluPooling(id="W1F", title="MNIST, 30@5x5 + ReLU + max 2x2", convolution=_MNIST),
    _small("W2a-32", "MNIST, 30@2x2, batch 32", 32, 1, 28),
    _small("W2a-100", "MNIST, 30@2x2, batch 100", 100, 1, 28),
    _small("W2b-32", "second layer, 30@2x2, batch 32", 32, 30, 13),
    _small("W2b-100", "second layer, 30@2x2, batch 100", 100, 30, 13),
    Convolution(id="W3a", title="64@3x3 at 56x56", batch=16, channels=64, size=56, filters=64, kernel_size=3, padding=1),
    Convolution(id="W3b", title="128@3x3 at 28x28", batch=16, channels=128, size=28, filters=128, kernel_size=3, padding=1),
    Convolution(id="W3c", title="1x1, 256 to 64", batch=16, channels=256, size=56, filters=64, kernel_size=1),
    Convolution(
        id="W3d", title="128@3x3, stride 2", batch=16, channels=64, size=56, filters=128, kernel_size=3, stride=2, padding=1
    ),
    Convolution(
        id="W3e", title="64@7x7, stride 2, RGB", batch=8, channels=3, size=224, filters=64, kernel_size=7, stride=2, padding=3
    ),
    Convolution(
        id="W3f", title="3x3 depthwise", batch=16, channels=64, size=56, filters=64, kernel_size=3, padding=1, groups=64
    ),
    Pooling(id="W4a", title="max 2x2", kind="max", batch=100, channels=30, size=24, pool_size=2, stride=2),
    Pooling(id="W4b", title="max 3x3, stride 2", kind="max", batch=16, channels=64, size=112, pool_size=3, stride=2, padding=1),
    Pooling(id="W4c", title="average 2x2", kind="average", batch=100, channels=30, size=24, pool_size=2, stride=2),
    Pooling(
        id="W4d",
        title="average 3x3, stride 2",
        kind="average",
        batch=16,
        channels=64,
        size=112,
        pool_size=3,
        stride=2,
        padding=1,
    ),
    TrainingStep(id="W5", title="SimpleConvNet, batch 100", batch=100, images=60_000, size=28, filters=30, hidden=100),
]

_TINY_CONVOLUTION = Convolution(
    id="tiny-conv", title="tiny convolution", batch=2, channels=4, size=9, filters=6, kernel_size=3, stride=2, padding=1
)
_TINY: list[Workload] = [
    _TINY_CONVOLUTION,
    Convolution(id="tiny-depthwise", title="tiny depthwise", batch=2, channels=4, size=8, filters=4, kernel_size=3, groups=4),
    ConvolutionReluPooling(
        id="tiny-fused",
        title="tiny fused",
        convolution=Convolution(id="tiny-fused", title="tiny fused", batch=2, channels=1, size=12, filters=4, kernel_size=5),
    ),
    Pooling(id="tiny-max", title="tiny max", kind="max", batch=2, channels=3, size=8, pool_size=3, stride=2, padding=1),
    Pooling(id="tiny-average", title="tiny average", kind="average", batch=2, channels=3, size=8, pool_size=2, stride=2),
    TrainingStep(id="tiny-step", title="tiny training step", batch=10, images=50, size=12, filters=4, hidden=8),
]

WORKLOADS: dict[str, Workload] = {workload.id: workload for workload in _REAL}
"""What is measured, by id."""

TINY_WORKLOADS: dict[str, Workload] = {workload.id: workload for workload in _TINY}
"""One of each kind that takes no time, to try the machinery with; run only when asked for."""

ALL_WORKLOADS = {**WORKLOADS, **TINY_WORKLOADS}
