"""The trainer: a network, its data, and the loop over epochs and batches."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xpconv.arguments import boolean
from xpconv.device import asarray, fetch
from xpconv.errors import ParameterFileError, TrainingError
from xpconv.files import check_parameters, check_writable
from xpconv.geometry import integer
from xpconv.optimizers import Adam, Optimizer
from xpconv.training.checkpoint import (
    HISTORY_KEYS,
    Checkpoint,
    History,
    Standing,
    check_settings,
    read_checkpoint,
    write_checkpoint,
)
from xpconv.training.data import LabelledImages
from xpconv.training.interruption import Interruption
from xpconv.training.progress import Progress, choose_progress

# Steps that a card makes before the trainer looks whether all is well, if nobody looks before.
STEPS_BETWEEN_LOOKS = 100

_NETWORK_METHODS = ("predict", "loss", "loss_and_gradient")


@dataclass
class _Unseen:
    """Steps on a card that nobody has looked at yet, and what there was before them."""

    before: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    loss_sum: Any = 0.0  # of the whole epoch: however often somebody looks, the terms are added in one order


class _EvaluationStopped(Exception):  # noqa: N818 - no error: Ctrl-C
    """Ctrl-C came while an epoch was evaluated; the evaluation is made anew when the training goes on."""


class Trainer:
    """Trains a network on labelled images, evaluates it after every epoch, and can be stopped and continued.

    Each epoch visits every image exactly once, in a new random order; the last batch may be smaller than the others. Not
    more than a batch of images is converted or computed at a time, so sets larger than the memory can be given as
    ``np.memmap``.

    Args:
        network: The network to train: a book-style network such as :class:`xpconv.SimpleConvNet`, or any object with its
            ``params``, ``predict``, ``loss``, ``loss_and_gradient``, ``device`` and ``dtype``.
        train: The pair ``(images, labels)`` to learn from. Images: an array of the network's input shape behind the first
            axis (or what can be indexed like one), of any real dtype. A batch is converted to the network's dtype as it is:
            uint8 pixels stay 0 to 255, scaling them is up to you. Labels: (N,) or (N, 1) classes, or (N, classes) rows of
            probabilities.
        test: Such a pair to evaluate on after every epoch, or None.
        epochs: How often to visit every image.
        batch_size: Images for each update.
        optimizer: Rule of the updates; None for ``Adam(learning_rate=0.001)``.
        shuffle: Whether to visit the images in a new random order each epoch, or always as they stand.
        seed: Seed of that order; None for another order at every run.
        evaluate_samples: Evaluate on so many images from the beginning of ``train`` and of ``test``; None for all.
        progress: True shows a live bar in a terminal, and one line an epoch on any other output; False shows nothing. An
            object derived from :class:`xpconv.training.Progress` is told instead.
        checkpoint: File to write after every epoch and on Ctrl-C, to go on from with :meth:`load_checkpoint`; its directory
            must exist, an older file is replaced. None for no file.

    Attributes:
        history: What :meth:`run` returns, up to the last finished epoch.
        interrupted: Whether Ctrl-C ended the last :meth:`run`.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range, no images, images that the network does not take, labels that do not fit.
        OSError: ``checkpoint`` cannot be written: its directory does not exist, for instance.

    Example:
        >>> import xpconv as xc
        >>> (x_train, t_train), (x_test, t_test) = xc.datasets.load_mnist()
        >>> net = xc.SimpleConvNet(conv_param={"filter_num": 8}, hidden_size=30, device="numpy", seed=0)
        >>> trainer = xc.Trainer(
        ...     net, (x_train[:1000], t_train[:1000]), (x_test[:200], t_test[:200]), epochs=2, seed=0, progress=False
        ... )
        >>> history = trainer.run()
        >>> history["epoch"], history["loss"][1] < history["loss"][0]
        ([1, 2], True)
    """

    def __init__(
        self,
        network: Any,
        train: tuple[Any, Any],
        test: tuple[Any, Any] | None = None,
        *,
        epochs: int = 20,
        batch_size: int = 100,
        optimizer: Optimizer | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        evaluate_samples: int | None = None,
        progress: bool | Progress = True,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        missing = [name for name in _NETWORK_METHODS if not callable(getattr(network, name, None))]
        if missing:
            raise TypeError(f"Trainer: network has no {', '.join(missing)} (it is of the class {type(network).__name__})")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise TypeError(f"Trainer: optimizer must be an object such as xpconv.Adam(learning_rate=0.001), got {optimizer!r}")
        self.network = network
        self.optimizer = Adam(learning_rate=0.001) if optimizer is None else optimizer
        self.epochs = integer("Trainer", "epochs", epochs, 1)
        self.batch_size = integer("Trainer", "batch_size", batch_size, 1)
        self.shuffle = boolean("Trainer", "shuffle", shuffle)
        self.seed = None if seed is None else integer("Trainer", "seed", seed, 0)
        self.evaluate_samples = (
            None if evaluate_samples is None else integer("Trainer", "evaluate_samples", evaluate_samples, 1)
        )
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        if self.checkpoint is not None:
            check_writable(self.checkpoint)  # now, not after an hour's first epoch
        self._progress = choose_progress(progress)
        self._train = LabelledImages("train", train, network)
        self._test = None if test is None else LabelledImages("test", test, network)

        self.history: History = {name: [] for name in HISTORY_KEYS}
        self.interrupted = False
        self._random = np.random.Generator(np.random.PCG64(self.seed))
        self._order: np.ndarray[Any, np.dtype[np.int64]] | None = None
        self._order_state = self._random.bit_generator.state
        self._batches: Iterator[tuple[Any, Any]] | None = None
        self._step = 0
        self._loss_sum = 0.0
        self._seconds = 0.0
        self._unseen = _Unseen()

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history["epoch"])

    @property
    def steps_per_epoch(self) -> int:
        """Number of updates in an epoch."""
        return -(-len(self._train) // self.batch_size)

    @property
    def steps_done(self) -> int:
        """Number of updates made in the epoch that is under way."""
        return self._step

    @property
    def mean_loss(self) -> float:
        """Mean loss of the images visited so far in the epoch that is under way; NaN before the first.

        Raises:
            TrainingError: As :meth:`run`; on a card a step that went wrong is found when somebody looks.
        """
        self._look_back()
        return self._loss_sum / self._images_visited if self._step else math.nan

    @property
    def images_per_second(self) -> float:
        """Training speed in the epoch that is under way; 0 before its first step.

        Raises:
            TrainingError: As :attr:`mean_loss`.
        """
        self._look_back()
        return self._images_visited / self._seconds if self._seconds else 0.0

    def run(self) -> History:
        """Train until ``epochs`` epochs are finished; after an interruption or :meth:`load_checkpoint`, the rest of them.

        The first Ctrl-C lets the step that is running finish and then returns: the network keeps what it has learnt,
        ``interrupted`` is True, the checkpoint is written if there is to be one, and calling ``run`` again goes on where it
        stopped. A second Ctrl-C raises KeyboardInterrupt at once. (In threads other than the main one Ctrl-C is not seen.)

        Returns:
            One list for each of these, with one entry for each finished epoch; plain numbers, ready for JSON:

            - ``epoch``: 1, 2, ...
            - ``loss``: mean loss of the epoch's images, each computed before the update that it led to.
            - ``train_accuracy``, ``test_accuracy``: share of right answers after the epoch, from 0 to 1.
            - ``test_loss``: mean loss of the test images after the epoch.
            - ``seconds``: how long the epoch's updates and its evaluation took.
            - ``images_per_second``: training images by the time that the updates took; evaluation is not counted.

            Without a test set the entries of ``test_loss`` and ``test_accuracy`` are None.

        Raises:
            TrainingError: An image holds NaN or infinity, or a loss or gradient is not finite; the parameters are as they
                were before that step. Or the scores of an evaluation are not finite; the parameters stay as they are, and
                the history ends with the epoch before.
            OSError: The checkpoint cannot be written; an older one stays as it was.

        Notes:
            On one device, with the same number of threads, the same arguments and the same initial network give the same
            bits.

            A card is never waited for in a step: it is looked at when a progress reads :attr:`mean_loss`, every
            100 steps, and at the end of an epoch. Where something is not finite then, the training goes back to the last
            look and makes the steps since then anew, one by one, so that the error is the same as on any device.
        """
        self.interrupted = False
        with Interruption() as interruption:

            def stop_if_requested() -> None:
                if interruption.requested:
                    raise _EvaluationStopped

            self._progress.run_started(self)
            try:
                while self.epoch < self.epochs and not interruption.requested:
                    if self._step < self.steps_per_epoch:
                        self._make_step(looking=not self.network.device.asynchronous)
                    else:
                        self._finish_epoch(stop_if_requested)
                self._look_back()
            except _EvaluationStopped:
                pass
            finally:
                self.interrupted = interruption.requested
                self._progress.run_finished(self)
            if self.interrupted and self.checkpoint is not None:
                self.save_checkpoint(self.checkpoint)
        return self.history

    def step(self) -> float:
        """Make one update with the next batch; after the last batch of an epoch, evaluate. For loops of your own.

        ``epochs`` is no limit here.

        Returns:
            The loss of the batch, before the update.

        Raises:
            TrainingError: As :meth:`run`.

        Example:
            >>> import xpconv as xc
            >>> (x, t), _ = xc.datasets.load_mnist()
            >>> net = xc.SimpleConvNet(conv_param={"filter_num": 2}, hidden_size=10, device="numpy", seed=0)
            >>> trainer = xc.Trainer(net, (x[:100], t[:100]), batch_size=50, seed=0, progress=False)
            >>> losses = [trainer.step() for _ in range(3)]
            >>> trainer.epoch, trainer.steps_done
            (1, 1)
        """
        if self._step == self.steps_per_epoch:  # of a run that was stopped while it evaluated
            self._finish_epoch()
        self._look_back()
        loss = float(self._make_step(looking=True))
        if self._step == self.steps_per_epoch:
            self._finish_epoch()
        return loss

    def evaluate(self) -> dict[str, float | None]:
        """Measure the network as it is now, on what the epochs are evaluated on.

        Returns:
            ``train_accuracy``, ``test_loss`` and ``test_accuracy``, as in the history.

        Raises:
            TrainingError: An image, or the network's scores, hold NaN or infinity.
        """
        self._look_back()
        return self._evaluate(lambda: None)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write all that this training needs to go on, whole or not at all.

        Args:
            path: File to write, in the format of safetensors: parameters, the optimizer's state, running statistics, and as
                metadata the history, the place in the epoch and the states of the random generators.

        Raises:
            OSError: The file cannot be written; an older one stays as it was.
        """
        self._look_back()
        standing = Standing(
            history=self.history,
            step=self._step,
            loss_sum=self._loss_sum,
            seconds=self._seconds,
            order=dict(self._order_state),
            generators={name: _state_of(generator) for name, generator in self._generators().items()},
        )
        write_checkpoint(
            path,
            Checkpoint(self._settings(), standing, self.network.params, self.optimizer.state_dict(), self._buffers()),
        )

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint: bring this trainer, its network and its optimizer to where that training stood.

        :meth:`run` then gives the same parameters, losses and accuracies, bit for bit, as if the training had never
        stopped. The trainer must have been made with the same arguments as the one that wrote the file; ``epochs``,
        ``progress`` and ``checkpoint`` may differ.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: There is no such file.
            ParameterFileError: The file is damaged, or of a training with another network, optimizer, data set or settings;
                the text lists what differs. Nothing is changed then.

        Notes:
            A layer that draws from NumPy's global generator (dropout without a seed) has that generator's state restored.
        """
        saved = read_checkpoint(path)
        check_settings(path, saved.settings, self._settings())
        buffers = self._buffers()
        _check_arrays(path, saved.parameters, self.network.params)
        _check_arrays(path, saved.buffers, buffers)
        self._check_optimizer_state(path, saved)
        if saved.standing.step > self.steps_per_epoch:
            raise ParameterFileError(f"{path} is a damaged checkpoint: step {saved.standing.step} of {self.steps_per_epoch}")
        generators = self._generators()
        try:
            if set(generators) != set(saved.standing.generators):
                raise ValueError(f"it has the generators of {sorted(saved.standing.generators)}, not of {sorted(generators)}")
            order = np.random.Generator(np.random.PCG64())
            order.bit_generator.state = saved.standing.order
            for name, generator in generators.items():
                _check_state(generator, saved.standing.generators[name])
            self.optimizer.load_state_dict(self._on_device(saved.optimizer))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ParameterFileError(f"{path} is a damaged checkpoint: {error}") from error
        for name, array in self._on_device(saved.parameters).items():
            self.network.params[name][...] = array
        if buffers:
            self.network.load_state_arrays(self._on_device(saved.buffers))
        for name, generator in generators.items():
            _set_state(generator, saved.standing.generators[name])
        self.history = saved.standing.history
        self.interrupted = False
        self._step, self._loss_sum, self._seconds = saved.standing.step, saved.standing.loss_sum, saved.standing.seconds
        self._batches, self._unseen = None, _Unseen()
        self._random, self._order_state, self._order = order, order.bit_generator.state, None
        if self._step:
            self._order = self._draw_order()

    # ---- one step and one epoch -----------------------------------------------------------------------------------------

    @property
    def _images_visited(self) -> int:
        return min(self._step * self.batch_size, len(self._train))

    def _make_step(self, looking: bool) -> Any:
        started = time.perf_counter()
        with self.network.device.current():
            loss = self._train_batch(looking)
        self._seconds += time.perf_counter() - started
        if self._unseen.steps == STEPS_BETWEEN_LOOKS:
            self._look_back()
        self._progress.step_finished(self, loss)
        return loss

    def _train_batch(self, looking: bool) -> Any:
        # Looking at what a step gives before the parameters are updated means to wait for it. Unseen steps add up what there
        # is to see; whatever is not finite stays so in the sum, and in the parameters.
        if not looking and not self._unseen.steps:
            self._unseen = _Unseen(before=self._copies(), loss_sum=self._loss_sum)
        try:
            x, t = self._next_batch()
            buffers = self._buffers()
            loss, grads = self.network.loss_and_gradient(x, t)
            if looking:
                loss = float(loss)
                problem = self._not_finite(loss, grads)
                if problem:
                    if buffers:
                        self.network.load_state_arrays(buffers)
                    raise TrainingError(
                        f"Trainer: {problem} in epoch {self.epoch + 1}, step {self._step + 1} of {self.steps_per_epoch}; "
                        "the parameters are those before this step. A smaller learning rate may help "
                        f"(optimizer={self.optimizer!r})"
                    )
            self.optimizer.update(self.network.params, grads, device=self.network.device)
        except BaseException:
            self._batches = None  # the next attempt begins with this batch
            raise
        self._step += 1
        if looking:
            self._loss_sum += loss * len(x)
        else:
            self._unseen.steps += 1
            self._unseen.loss_sum = self._unseen.loss_sum + loss * len(x)
        return loss

    def _next_batch(self) -> tuple[Any, Any]:
        if self._order is None:
            self._order = self._draw_order()
        if self._batches is None:
            order = self._order
            firsts = range(self._step * self.batch_size, len(self._train), self.batch_size)
            self._batches = self._train.batches(order[first : first + self.batch_size] for first in firsts)
        return next(self._batches)

    def _look_back(self) -> None:
        # Look at what the steps since the last look have given; where it isn't finite, find out which of them it was.
        unseen, self._unseen = self._unseen, _Unseen()
        if not unseen.steps:
            return
        started = time.perf_counter()
        device = self.network.device
        with device.current():
            finite = [device.kernels.all_finite(param) for param in self.network.params.values()]
            loss_sum, *good = fetch(unseen.loss_sum, *finite)
            if math.isfinite(loss_sum) and all(good):
                self._loss_sum = loss_sum
            else:
                self._step -= unseen.steps
                self._batches = None
                self._put_back(unseen.before)
                for _ in range(unseen.steps):
                    self._train_batch(looking=True)
        self._seconds += time.perf_counter() - started

    def _copies(self) -> dict[str, Any]:
        return {
            "params": {name: param.copy() for name, param in self.network.params.items()},
            "buffers": {name: array.copy() for name, array in self._buffers().items()},
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: _state_of(generator) for name, generator in self._generators().items()},
        }

    def _put_back(self, copies: dict[str, Any]) -> None:
        for name, param in copies["params"].items():
            self.network.params[name][...] = param
        if copies["buffers"]:
            self.network.load_state_arrays(copies["buffers"])
        self.optimizer.load_state_dict(copies["optimizer"])
        for name, generator in self._generators().items():
            _set_state(generator, copies["generators"][name])

    def _finish_epoch(self, between_batches: Callable[[], None] = lambda: None) -> None:
        self._look_back()
        self._progress.evaluation_started(self)
        started = time.perf_counter()
        measured = self._evaluate(between_batches)
        row = {
            "epoch": self.epoch + 1,
            "loss": self.mean_loss,
            **measured,
            "seconds": self._seconds + time.perf_counter() - started,
            "images_per_second": self.images_per_second,
        }
        for name, value in row.items():
            self.history[name].append(value)
        self._order, self._order_state, self._batches = None, self._random.bit_generator.state, None
        self._step, self._loss_sum, self._seconds = 0, 0.0, 0.0
        self._progress.epoch_finished(self)
        if self.checkpoint is not None:
            self.save_checkpoint(self.checkpoint)

    def _draw_order(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return self._random.permutation(len(self._train)) if self.shuffle else np.arange(len(self._train))

    def _not_finite(self, loss: float, grads: dict[str, Any]) -> str | None:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        all_finite = self.network.device.kernels.all_finite
        bad = [name for name, grad in grads.items() if not all_finite(grad)]
        return f"the loss is {loss}, but the gradient of {', '.join(bad)} is not finite" if bad else None

    def _evaluate(self, between_batches: Callable[[], None]) -> dict[str, float | None]:
        train_accuracy, _ = self._measure(self._train, between_batches, with_loss=False)
        test_accuracy, test_loss = (
            (None, None) if self._test is None else self._measure(self._test, between_batches, with_loss=True)
        )
        return {"train_accuracy": train_accuracy, "test_loss": test_loss, "test_accuracy": test_accuracy}

    def _measure(self, data: LabelledImages, between_batches: Callable[[], None], *, with_loss: bool) -> tuple[float, float]:
        images = len(data) if self.evaluate_samples is None else min(self.evaluate_samples, len(data))
        device = self.network.device
        parts = (slice(first, min(first + self.batch_size, images)) for first in range(0, images, self.batch_size))
        finite: Any = True
        right: Any = 0
        loss_sum: Any = 0.0
        with device.current():
            for x, t in data.batches(parts):  # what is counted stays on the device until the end
                between_batches()
                scores = self.network.predict(x)
                finite = finite & device.xp.isfinite(scores).all()
                if not device.asynchronous and not finite:
                    break
                right = right + (scores.argmax(axis=1) == (t if t.ndim == 1 else t.argmax(axis=1))).sum()
                if with_loss:
                    loss_sum = loss_sum + self.network.loss(x, t) * len(x)
            all_finite, right, loss_sum = fetch(finite, right, loss_sum)
        if not all_finite:  # argmax takes a NaN for the right class
            raise TrainingError(
                f"Trainer: the network's scores hold NaN or infinity {self._moment()} "
                f"(learning rate too large? optimizer={self.optimizer!r})"
            )
        return right / images, loss_sum / images

    def _moment(self) -> str:
        if 0 < self._step < self.steps_per_epoch:
            return f"after step {self._step} of {self.steps_per_epoch} of epoch {self.epoch + 1}"
        finished = self.epoch + (self._step > 0)
        return f"after epoch {finished}" if finished else "before epoch 1"

    # ---- what a checkpoint holds ----------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        # Through JSON, so that they compare equal to what is read from a file.
        settings = {
            "network": type(self.network).__name__,
            "dtype": str(self.network.dtype),
            "optimizer": type(self.optimizer).__name__,
            **self.optimizer.hyperparameters(),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "evaluate_samples": self.evaluate_samples,
            "layers that draw random numbers": list(self._generators()),
            "shape of the training images": list(self._train.images.shape),
            "checksum of the training labels": self._train.fingerprint(),
            "shape of the test images": None if self._test is None else list(self._test.images.shape),
            "checksum of the test labels": None if self._test is None else self._test.fingerprint(),
        }
        return dict(json.loads(json.dumps(settings)))

    def _buffers(self) -> dict[str, Any]:
        return dict(self.network.state_arrays()) if hasattr(self.network, "state_arrays") else {}

    def _generators(self) -> dict[str, Any]:
        # The generators that the network's layers draw from (dropout): np.random itself, or one of the layer's own.
        layers = getattr(self.network, "layers", None)
        named = layers.items() if isinstance(layers, dict) else ()
        drawing = {name: getattr(layer, "random", None) for name, layer in named}
        kinds = (np.random.Generator, np.random.RandomState)
        return {name: random for name, random in drawing.items() if random is np.random or isinstance(random, kinds)}

    def _on_device(self, arrays: Any) -> dict[str, Any]:
        return {name: asarray(array, device=self.network.device) for name, array in arrays.items()}

    def _check_optimizer_state(self, path: str | os.PathLike[str], saved: Checkpoint) -> None:
        params = self.network.params
        for key, array in saved.optimizer.items():
            slot, _, name = key.partition("/")
            if key == "iteration":
                good = array.shape == () and array.dtype.kind in "iu" and int(array) >= 0
            else:
                good = name in params and (array.shape, array.dtype) == (params[name].shape, params[name].dtype)
            if not good:
                raise ParameterFileError(
                    f"{path} is a damaged checkpoint: {slot!r} of the optimizer, for {name or 'all parameters'}, "
                    f"has the shape {array.shape} and dtype {array.dtype}"
                )


def _check_arrays(path: str | os.PathLike[str], loaded: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    check_parameters(path, loaded, {name: array.shape for name, array in expected.items()})
    for name, array in expected.items():
        if loaded[name].dtype != array.dtype:
            raise ParameterFileError(
                f"{path} does not fit this network: {name} is of the dtype {loaded[name].dtype}, expected {array.dtype}"
            )


def _state_of(generator: Any) -> dict[str, Any]:
    if isinstance(generator, np.random.Generator):
        return dict(generator.bit_generator.state)
    return dict(generator.get_state(legacy=False))


def _set_state(generator: Any, state: dict[str, Any]) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def _check_state(generator: Any, state: dict[str, Any]) -> None:
    trial = (
        np.random.Generator(type(generator.bit_generator)())
        if isinstance(generator, np.random.Generator)
        else np.random.RandomState()
    )
    _set_state(trial, state)
