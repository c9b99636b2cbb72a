"""The book's layers: each computes its output in ``forward`` and its gradients in ``backward``.

A layer keeps from ``forward`` what ``backward`` needs, so the two are called in turn. ``backward`` takes the gradient of
the loss with respect to the layer's output and returns the one with respect to its input; gradients of parameters are left
in attributes (``dW``, ``db``). Layers with a parameter take ``input_gradient=False`` where nobody needs what they would
return: the first layer of a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from xpconv.arguments import fraction
from xpconv.arrays import as_array, float_arrays
from xpconv.device import Device, asarray, card_of, get_device, number, on_its_card
from xpconv.functional import (
    conv2d,
    conv2d_backward_input,
    conv2d_backward_weight,
    max_pool2d,
    max_pool2d_backward,
)
from xpconv.geometry import IntOrPair, Padding
from xpconv.labels import check_labels
from xpconv.scratch.functions import sigmoid

Array = Any

# Added to the variance in batch normalisation: the book's value.
VARIANCE_EPSILON = 1e-6


class Layer(Protocol):
    """What a network asks of its layers."""

    def forward(self, x: Array) -> Array:
        """Compute the output."""

    def backward(self, dout: Array) -> Array:
        """Compute the gradient of the input from the gradient of the output."""


class Fusible:
    """A layer that can run as part of a block (:mod:`xpconv.fusion`), which remembers nothing for it.

    Attributes:
        replay: Set by the block: runs its layers one by one on the input that the block had, so that each remembers what
            its own ``backward`` needs, should somebody call that.
    """

    replay: Callable[[], object] | None = None

    def recall(self, name: str) -> Array:
        """What ``forward`` left in the attribute ``name``, replayed if the layer ran in a block."""
        if getattr(self, name) is None and self.replay is not None:
            self.replay()
        return _remembered(type(self).__name__, getattr(self, name))


class Relu(Fusible):
    """Rectified linear unit: ``max(x, 0)``, with gradient 0 at 0.

    Args:
        device: Where to compute; None follows the arrays.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import Relu
        >>> relu = Relu()
        >>> relu.forward(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 2.])
        >>> relu.backward(np.array([5.0, 5.0, 5.0]))
        array([0., 0., 5.])
    """

    def __init__(self, device: str | Device | None = None) -> None:
        self.device = device
        self.out: Array = None

    @on_its_card
    def forward(self, x: Array) -> Array:
        """Compute ``max(x, 0)``; NaN stays NaN."""
        place, (x,) = float_arrays("Relu.forward", self.device, x=x)
        self.replay = None
        self.out = place.kernels.relu_forward(x)
        return self.out

    @on_its_card
    def backward(self, dout: Array) -> Array:
        """Let the gradient through where the output is positive; ``dout`` itself is not changed."""
        out = self.recall("out")
        place, (dout, out) = float_arrays("Relu.backward", self.device, dout=dout, out=out)
        _check_gradient("Relu", dout, out.shape)
        return place.kernels.relu_backward(dout, out)


class Sigmoid:
    """Logistic function ``1 / (1 + exp(-x))``, without overflow.

    Args:
        device: Where to compute; None follows the arrays.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import Sigmoid
        >>> Sigmoid().forward(np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """

    def __init__(self, device: str | Device | None = None) -> None:
        self.device = device
        self.out: Array = None

    @on_its_card
    def forward(self, x: Array) -> Array:
        """Compute ``1 / (1 + exp(-x))``."""
        place, (x,) = float_arrays("Sigmoid.forward", self.device, x=x)
        self.out = sigmoid(x, place)
        return self.out

    @on_its_card
    def backward(self, dout: Array) -> Array:
        """Multiply the gradient with ``out * (1 - out)``."""
        out = _remembered("Sigmoid", self.out)
        _, (dout,) = float_arrays("Sigmoid.backward", self.device, dout=dout)
        _check_gradient("Sigmoid", dout, out.shape)
        return dout * (1 - out) * out


class Affine:
    """Fully connected layer: ``x @ W + b``, the axes behind the first flattened.

    Args:
        W: Weight, (inputs, outputs).
        b: Bias, (outputs,).
        device: Where to compute; None follows the arrays.

    Attributes:
        dW: Gradient of W, after ``backward``.
        db: Gradient of b, after ``backward``.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import Affine
        >>> affine = Affine(np.ones((4, 2)), np.array([0.0, 1.0]))
        >>> affine.forward(np.arange(8.0).reshape(2, 2, 2))
        array([[ 6.,  7.],
               [22., 23.]])
    """

    def __init__(self, W: Array, b: Array, device: str | Device | None = None) -> None:
        self.W, self.b = W, b
        self.device = device
        self.x: Array = None
        self.original_x_shape: tuple[int, ...] = ()
        self.dW: Array = None
        self.db: Array = None

    @on_its_card
    def forward(self, x: Array) -> Array:
        """Compute ``x @ W + b``.

        Raises:
            ValueError: The number of inputs or the shape of the bias doesn't fit W.
        """
        place, (x, W, b) = float_arrays("Affine.forward", self.device, x=x, W=self.W, b=self.b)
        if W.ndim != 2 or b.shape != (W.shape[1],):
            raise ValueError(f"Affine: W must be (inputs, outputs) and b (outputs,), got W.shape={W.shape}, b.shape={b.shape}")
        inputs = math.prod(x.shape[1:])
        if x.ndim < 2 or inputs != W.shape[0]:
            raise ValueError(
                f"Affine: x has {inputs} inputs a sample but W expects {W.shape[0]} (x.shape={x.shape}, W.shape={W.shape})"
            )
        self.original_x_shape = x.shape
        self.x = x.reshape(x.shape[0], inputs)
        out = place.kernels.matmul(self.x, W)
        out += b
        return out

    @on_its_card
    def backward(self, dout: Array, input_gradient: bool = True) -> Array:
        """Compute ``dW = x.T @ dout``, ``db`` and, unless not asked for, ``dout @ W.T`` in the shape of x."""
        x = _remembered("Affine", self.x)
        place, (dout, W, x) = float_arrays("Affine.backward", self.device, dout=dout, W=self.W, x=x)
        _check_gradient("Affine", dout, (x.shape[0], W.shape[1]))
        self.dW = place.kernels.matmul(x.T, dout)
        self.db = dout.sum(axis=0)
        return place.kernels.matmul(dout, W.T).reshape(self.original_x_shape) if input_gradient else None


class SoftmaxWithLoss:
    """Softmax and the mean cross-entropy loss in one: ``mean(-log(softmax(x)[t]))``.

    The loss is computed from the scores through log-sum-exp, so it is exact however unlikely the right class is.

    Args:
        device: Where to compute; None follows the arrays.

    Attributes:
        loss: The loss, after ``forward``; on a card an array without axes.
        y: The probabilities, after ``forward``.
        t: The labels, after ``forward``.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import SoftmaxWithLoss
        >>> last = SoftmaxWithLoss()
        >>> last.forward(np.array([[0.0, 0.0], [0.0, 1000.0]]), np.array([0, 0]))  # (log(2) + 1000) / 2
        500.34657359027995
        >>> last.backward()
        array([[-0.25,  0.25],
               [-0.5 ,  0.5 ]])
    """

    def __init__(self, device: str | Device | None = None) -> None:
        self.device = device
        self.loss: Any = None
        self.y: Array = None
        self.t: Array = None

    @on_its_card
    def forward(self, x: Array, t: Array) -> Any:
        """Compute the mean loss of scores (N, classes) and labels (N,), (N, 1) or one-hot (N, classes).

        On a card it is an array without axes, which ``float()`` waits for. Labels on a card are looked at on the host.

        Raises:
            ValueError: Scores that are not (N, classes) with N at least 1, or labels that do not fit them.
        """
        place, (x,) = float_arrays("SoftmaxWithLoss.forward", self.device, x=x)
        if x.ndim != 2 or 0 in x.shape:
            raise ValueError(f"SoftmaxWithLoss: the scores must be (N, classes), none of them 0, got x.shape={x.shape}")
        self.t = place.xp.asarray(check_labels("SoftmaxWithLoss", t, *x.shape))
        loss, self.y = place.kernels.softmax_cross_entropy_forward(x, self.t)
        self.loss = number(place, loss)
        return self.loss

    @on_its_card
    def backward(self, dout: float = 1) -> Array:
        """Gradient of ``dout * loss`` with respect to the scores: ``dout * (y - t) / N``."""
        y = _remembered("SoftmaxWithLoss", self.y)
        place = get_device(self.device, y)
        return place.kernels.softmax_cross_entropy_backward(y, self.t, float(dout))


class Dropout:
    """Switch off random inputs in training, and scale the others so that the mean stays (inverted dropout).

    Args:
        dropout_ratio: Share of the inputs that is switched off, at least 0 and less than 1.
        seed: Seed of the random numbers, or None for NumPy's global generator, as in the book.
        device: Where to compute; None follows the arrays.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import Dropout
        >>> Dropout(0.5, seed=0).forward(np.ones((1, 6)))
        array([[2., 0., 0., 0., 2., 2.]])
        >>> Dropout(0.5).forward(np.ones((1, 3)), train_flg=False)
        array([[1., 1., 1.]])
    """

    def __init__(self, dropout_ratio: float = 0.5, seed: int | None = None, device: str | Device | None = None) -> None:
        self.dropout_ratio = fraction("Dropout", "dropout_ratio", dropout_ratio)
        self.device = device
        self.random: Any = np.random if seed is None else np.random.default_rng(seed)
        self.mask: Array = None

    @on_its_card
    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Drop in training; return ``x`` as it is otherwise."""
        place, (x,) = float_arrays("Dropout.forward", self.device, x=x)
        if not train_flg:
            self.mask = place.xp.ones((), x.dtype)
            return x
        kept = asarray(self.random.random(x.shape) > self.dropout_ratio, device=place)
        self.mask = kept.astype(x.dtype) / x.dtype.type(1 - self.dropout_ratio)
        return x * self.mask

    @on_its_card
    def backward(self, dout: Array) -> Array:
        """Let the gradient through where the input got through, scaled likewise."""
        mask = _remembered("Dropout", self.mask)
        _, (dout,) = float_arrays("Dropout.backward", self.device, dout=dout)
        if mask.ndim:
            _check_gradient("Dropout", dout, mask.shape)
        return dout * mask


class BatchNormalization:
    """Bring each feature to mean 0 and variance 1 over the batch, then scale and shift it (arXiv:1502.03167).

    Of images (N, C, H, W) a feature is a channel: one mean and one variance over batch, height and width.

    Args:
        gamma: Scale, one a feature, or a number.
        beta: Shift, one a feature, or a number.
        momentum: How much of the running mean and variance is kept at each training batch.
        running_mean: Mean to use outside training, one a feature; None starts at 0.
        running_var: Variance to use outside training, one a feature; None starts at 1.
        device: Where to compute; None follows the arrays.

    Attributes:
        dgamma: Gradient of gamma, after ``backward``.
        dbeta: Gradient of beta, after ``backward``.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import BatchNormalization
        >>> BatchNormalization(np.ones(1), np.zeros(1)).forward(np.array([[1.0], [3.0]])).round(3)
        array([[-1.],
               [ 1.]])
    """

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array = None,
        running_var: Array = None,
        device: str | Device | None = None,
    ) -> None:
        self.momentum = fraction("BatchNormalization", "momentum", momentum)
        self.gamma, self.beta = gamma, beta
        self.running_mean, self.running_var = running_mean, running_var
        self.device = device
        self.dgamma: Array = None
        self.dbeta: Array = None
        self._normalised: Array = None
        self._std: Array = None
        self._trained = False

    @on_its_card
    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Normalise with the batch's statistics in training, with the running ones otherwise."""
        place, (x, gamma, beta) = float_arrays("BatchNormalization.forward", self.device, x=x, gamma=self.gamma, beta=self.beta)
        if x.ndim not in (2, 4):
            raise ValueError(f"BatchNormalization: x must be (N, features) or (N, C, H, W), got x.shape={x.shape}")
        features = x.shape[1]
        for name, array in (("gamma", gamma), ("beta", beta)):
            if array.ndim and array.shape != (features,):
                raise ValueError(
                    f"BatchNormalization: {name} must have one entry for each of {features} features, "
                    f"got {name}.shape={array.shape} (x.shape={x.shape})"
                )
        if self.running_mean is None:
            self.running_mean = place.xp.zeros(features, x.dtype)
        if self.running_var is None:
            self.running_var = place.xp.ones(features, x.dtype)
        axes, per_feature = self._layout(x)
        if train_flg:
            if x.size // max(features, 1) == 0:
                raise ValueError(f"BatchNormalization: a batch to train on must not be empty, got x.shape={x.shape}")
            mean, variance = x.mean(axis=axes), x.var(axis=axes)
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mean
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * variance
        else:
            mean, variance = self.running_mean, self.running_var
        self._std = place.xp.sqrt(variance + VARIANCE_EPSILON).astype(x.dtype)
        self._normalised = (x - mean.reshape(per_feature).astype(x.dtype)) / self._std.reshape(per_feature)
        self._trained = train_flg
        return gamma.reshape(per_feature) * self._normalised + beta.reshape(per_feature)

    @on_its_card
    def backward(self, dout: Array) -> Array:
        """Compute ``dgamma``, ``dbeta`` and the gradient of the input, of whichever ``forward`` ran last."""
        normalised = _remembered("BatchNormalization", self._normalised)
        _, (dout, gamma) = float_arrays("BatchNormalization.backward", self.device, dout=dout, gamma=self.gamma)
        _check_gradient("BatchNormalization", dout, normalised.shape)
        axes, per_feature = self._layout(dout)
        dbeta, dgamma = dout.sum(axis=axes), (dout * normalised).sum(axis=axes)
        self.dbeta = dbeta if as_array("BatchNormalization", "beta", self.beta).ndim else dbeta.sum()
        self.dgamma = dgamma if gamma.ndim else dgamma.sum()
        scale = gamma.reshape(per_feature) / self._std.reshape(per_feature)
        if not self._trained:
            return dout * scale
        count = dout.size // dout.shape[1]
        centred = dout - dbeta.reshape(per_feature) / count - normalised * (dgamma.reshape(per_feature) / count)
        return centred * scale

    @staticmethod
    def _layout(x: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
        # The axes that a feature's statistics run over, and the shape that puts features beside x.
        return ((0,), (1, -1)) if x.ndim == 2 else ((0, 2, 3), (1, -1, 1, 1))


class Convolution(Fusible):
    """Convolution of images (N, C, H, W), with the book's arguments.

    Args:
        W: Filters, (FN, C, FH, FW).
        b: Bias: one a filter, or a single number for all of them.
        stride: Step of the filters; an integer or a (height, width) pair.
        pad: Zeros around the images; an integer, a pair, ((top, bottom), (left, right)), ``"same"`` or ``"valid"``.
        device: Where to compute; None follows the arrays.

    Attributes:
        dW: Gradient of W, after ``backward``.
        db: Gradient of b, after ``backward``, one a filter.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import Convolution
        >>> conv = Convolution(np.ones((1, 1, 2, 2)), np.full((1,), 3))
        >>> conv.forward(np.arange(16).reshape(1, 1, 4, 4))
        array([[[[13., 17., 21.],
                 [29., 33., 37.],
                 [45., 49., 53.]]]])
    """

    def __init__(self, W: Array, b: Array, stride: IntOrPair = 1, pad: Padding = 0, device: str | Device | None = None) -> None:
        self.W, self.b = W, b
        self.stride, self.pad = stride, pad
        self.device = device
        self.x: Array = None
        self.dW: Array = None
        self.db: Array = None

    @on_its_card
    def forward(self, x: Array) -> Array:
        """Convolve; see :func:`xpconv.conv2d`."""
        y = conv2d(x, self.W, self.bias(), stride=self.stride, padding=self.pad, device=self.device)
        self.x, self.replay = x, None
        return y

    @on_its_card
    def backward(self, dout: Array, input_gradient: bool = True) -> Array:
        """Compute ``dW``, ``db`` and, unless not asked for, the gradient of the images."""
        x, W = as_array("Convolution", "x", self.recall("x")), as_array("Convolution", "W", self.W)
        self.dW, self.db = conv2d_backward_weight(x, dout, W.shape, stride=self.stride, padding=self.pad, device=self.device)
        if not input_gradient:
            return None
        return conv2d_backward_input(dout, W, x.shape, stride=self.stride, padding=self.pad, device=self.device)

    def bias(self) -> Array:
        """The bias as one number a filter: the book's notebooks also give a single one for all filters."""
        b, W = as_array("Convolution", "b", self.b), as_array("Convolution", "W", self.W)
        if b.shape not in ((), (1,)):
            return b
        card = card_of(W)
        if b.ndim == 0 and card is not None:  # a number follows the filters
            b = asarray(b, device=card)
        return b.reshape(-1).repeat(len(W) if W.ndim else 1)


class Pooling(Fusible):
    """Maximum pooling of images (N, C, H, W), with the book's arguments.

    Args:
        pool_h: Height of the window.
        pool_w: Width of the window.
        stride: Step of the window; an integer or a (height, width) pair.
        pad: Room around the images that no maximum is ever taken from; see :class:`Convolution`.
        device: Where to compute; None follows the arrays.

    Example:
        >>> import numpy as np
        >>> from xpconv.scratch.layers import Pooling
        >>> pool = Pooling(2, 2)
        >>> pool.forward(np.array([[[[7, 11, 13, 15], [3, 4, 5, 14]]]]))
        array([[[[11., 15.]]]], dtype=float32)
        >>> pool.backward(np.array([[[[1.0, 2.0]]]]))
        array([[[[0., 1., 0., 2.],
                 [0., 0., 0., 0.]]]])
    """

    def __init__(
        self, pool_h: int, pool_w: int, stride: IntOrPair = 2, pad: Padding = 0, device: str | Device | None = None
    ) -> None:
        self.pool_h, self.pool_w = pool_h, pool_w
        self.stride, self.pad = stride, pad
        self.device = device
        self.arg_max: Array = None
        self.x_shape: tuple[int, ...] = ()

    @on_its_card
    def forward(self, x: Array) -> Array:
        """Pool; see :func:`xpconv.max_pool2d`."""
        y, self.arg_max = max_pool2d(
            x,
            (self.pool_h, self.pool_w),
            stride=self.stride,
            padding=self.pad,
            return_indices=True,
            device=self.device,
        )
        self.x_shape, self.replay = as_array("Pooling", "x", x).shape, None
        return y

    @on_its_card
    def backward(self, dout: Array) -> Array:
        """Give each gradient to the pixel that its maximum came from."""
        arg_max = self.recall("arg_max")
        return max_pool2d_backward(
            dout,
            arg_max,
            self.x_shape,
            (self.pool_h, self.pool_w),
            stride=self.stride,
            padding=self.pad,
            device=self.device,
        )


def _remembered(layer: str, value: Array) -> Array:
    if value is None:
        raise RuntimeError(f"{layer}: backward needs what forward computed; call forward first")
    return value


def _check_gradient(layer: str, dout: Array, expected: tuple[int, ...]) -> None:
    if dout.shape != expected:
        raise ValueError(f"{layer}: dout.shape must be {expected}, the shape of the output, got {dout.shape}")
