"""The book's ``common/trainer.py``: its arguments, lists and printed lines, over the engine of :class:`xpconv.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from xpconv import training
from xpconv.arguments import boolean
from xpconv.device import fetch, get_device
from xpconv.geometry import integer
from xpconv.optimizers import Optimizer
from xpconv.scratch.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

Array = Any

OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = MappingProxyType(
    {"sgd": SGD, "momentum": Momentum, "nesterov": Nesterov, "adagrad": AdaGrad, "rmsprop": RMSprop, "adam": Adam}
)
OPTIMIZER_PARAM: Mapping[str, float] = MappingProxyType({"lr": 0.01})


class Trainer:
    """Trains a network as the book's trainer does, and keeps the loss of every step and the accuracies of every epoch.

    An epoch visits every image once, in a random order drawn from NumPy's global generator (``numpy.random.seed`` sets it),
    and its accuracies are measured when it is over: after ``train`` the lists of accuracies have ``epochs`` entries.

    Args:
        network: A network of :mod:`xpconv.scratch`, or one of your own with the book's ``params``, ``predict``, ``loss``,
            ``gradient`` and ``accuracy``.
        x_train: Images to learn from, (N, *input shape).
        t_train: Their labels, (N,) or one-hot (N, classes).
        x_test: Images to test on.
        t_test: Their labels.
        epochs: How often to visit every image.
        mini_batch_size: Images for each update; the last batch of an epoch may have fewer.
        optimizer: ``"SGD"``, ``"Momentum"``, ``"Nesterov"``, ``"AdaGrad"``, ``"RMSprop"`` or ``"Adam"``, in any case.
        optimizer_param: Its arguments.
        evaluate_sample_num_per_epoch: Measure the accuracies on so many images from the beginning of each set; None for
            all of them.
        verbose: Whether to print the loss of every step, the accuracies of every epoch and the final one.

    Attributes:
        train_loss_list: Loss of every step, before its update.
        train_acc_list: Accuracy on the training images after every epoch.
        test_acc_list: Accuracy on the test images after every epoch.
        optimizer: The optimizer, an object of :mod:`xpconv.scratch.optimizer`.

    Raises:
        ValueError: The optimizer is unknown, a number is out of range, or images and labels do not fit.
        TypeError: An argument of the wrong kind.

    Example:
        >>> import xpconv as xc
        >>> from xpconv.scratch.trainer import Trainer
        >>> (x_train, t_train), (x_test, t_test) = xc.datasets.load_mnist()
        >>> net = xc.SimpleConvNet(conv_param={"filter_num": 2}, hidden_size=10, device="numpy")
        >>> trainer = Trainer(net, x_train[:150], t_train[:150], x_test[:50], t_test[:50], epochs=3,
        ...                   optimizer="Adam", optimizer_param={"lr": 0.001}, verbose=False)
        >>> trainer.train()
        >>> len(trainer.train_loss_list), len(trainer.test_acc_list)
        (6, 3)
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] = OPTIMIZER_PARAM,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        op = "Trainer"
        samples = evaluate_sample_num_per_epoch
        self.network = network
        self.x_train, self.t_train = x_train, t_train
        self.x_test, self.t_test = x_test, t_test
        self.epochs = integer(op, "epochs", epochs, 1)
        self.batch_size = integer(op, "mini_batch_size", mini_batch_size, 1)
        self.evaluate_sample_num_per_epoch = (
            None if samples is None else integer(op, "evaluate_sample_num_per_epoch", samples, 1)
        )
        self.verbose = boolean(op, "verbose", verbose)
        self.optimizer = _optimizer(op, optimizer, optimizer_param)
        self.train_loss_list: list[float] = []
        self.train_acc_list: list[float] = []
        self.test_acc_list: list[float] = []
        self._engine = training.Trainer(
            network if hasattr(network, "loss_and_gradient") else _BookNetwork(network),
            (x_train, t_train),
            (x_test, t_test),
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            seed=int(np.random.randint(2**31)),
            evaluate_samples=self.evaluate_sample_num_per_epoch,
            progress=_Record(self),
        )

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.x_train)

    @property
    def iter_per_epoch(self) -> int:
        """Number of updates in an epoch."""
        return self._engine.steps_per_epoch

    @property
    def max_iter(self) -> int:
        """Number of updates that :meth:`train` makes."""
        return self.epochs * self.iter_per_epoch

    @property
    def current_iter(self) -> int:
        """Number of updates made so far."""
        return len(self.train_loss_list)

    @property
    def current_epoch(self) -> int:
        """Number of epochs finished so far."""
        return self._engine.epoch

    def train_step(self) -> None:
        """Make one update with the next batch and, after the last batch of an epoch, measure the accuracies.

        Raises:
            TrainingError: An image holds NaN or infinity, or the loss is not finite; the parameters stay as they were.
        """
        self._engine.step()

    def train(self) -> None:
        """Make all updates that are left of ``epochs`` epochs; Ctrl-C stops after the update that is running.

        Raises:
            TrainingError: As :meth:`train_step`.
        """
        self._engine.run()
        if self.verbose:
            print("=============== Final Test Accuracy ===============")
            print(f"test acc:{self.network.accuracy(self.x_test, self.t_test)}")


class _Record(training.Progress):
    """Keeps the book's lists and prints the book's lines."""

    def __init__(self, book: Trainer) -> None:
        self.book = book
        self.read = 0

    def step_finished(self, trainer: training.Trainer, loss: float) -> None:
        if self.book.verbose:
            loss = float(loss)
            print(f"train loss:{loss}")
        self.book.train_loss_list.append(loss)

    def epoch_finished(self, trainer: training.Trainer) -> None:
        self._read()
        train_acc, test_acc = trainer.history["train_accuracy"][-1], trainer.history["test_accuracy"][-1]
        self.book.train_acc_list.append(train_acc)
        self.book.test_acc_list.append(test_acc)
        if self.book.verbose:
            print(f"=== epoch:{trainer.epoch}, train acc:{train_acc}, test acc:{test_acc} ===")

    def run_finished(self, trainer: training.Trainer) -> None:
        # What a card computed after a step that went wrong was taken back.
        del self.book.train_loss_list[trainer.epoch * trainer.steps_per_epoch + trainer.steps_done :]
        self._read()

    def _read(self) -> None:
        # The losses of a card wait there until the end of the epoch.
        losses = self.book.train_loss_list
        self.book.train_loss_list[:] = [*losses[: self.read], *fetch(*losses[self.read :])]
        self.read = len(losses)


class _BookNetwork:
    """A network with the book's methods alone, as the engine asks for them: NumPy arrays, of whatever dtype they are."""

    dtype = None

    def __init__(self, network: Any) -> None:
        self.network = network
        self.device = get_device("numpy")
        self.predict = network.predict
        self.loss = network.loss

    @property
    def params(self) -> dict[str, Array]:
        return dict(self.network.params)

    def loss_and_gradient(self, x: Array, t: Array) -> tuple[float, dict[str, Array]]:
        loss = self.network.loss(x, t)
        return loss, self.network.gradient(x, t)


def _optimizer(op: str, name: str, arguments: Mapping[str, float]) -> Optimizer:
    if not isinstance(name, str):
        raise TypeError(f"{op}: optimizer must be a name, got {name!r}")
    if name.lower() not in OPTIMIZERS:
        raise ValueError(f"{op}: optimizer must be one of {', '.join(OPTIMIZERS)} (in any case), got {name!r}")
    try:
        return OPTIMIZERS[name.lower()](**arguments)
    except TypeError as error:
        raise TypeError(f"{op}: optimizer_param={dict(arguments)} does not fit {name}: {error}") from None
