"""Images and labels of one set: checked once, then handed out in batches on the network's device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from xpconv.device import Device, asarray, card_of, fetch, to_numpy
from xpconv.errors import TrainingError
from xpconv.labels import check_labels, note_checked

Array = Any  # a NumPy or a CuPy array
HostArray = np.ndarray[Any, Any]
Selection = slice | np.ndarray[Any, np.dtype[np.int64]]

# Images on a card that are looked at together.
IMAGES_AT_ONCE = 1024


class LabelledImages:
    """One set of images with their labels.

    The images stay where they are, in memory or in a file; a batch is read, converted and moved when it is asked for, to a
    card one batch ahead. Images that are on a card already are looked at once, for NaN and infinity, when the set is made.

    Args:
        name: What the caller calls the set, ``"train"`` or ``"test"``, for messages.
        data: The pair ``(images, labels)``.
        network: The network that is to take them; it tells device, dtype and number of classes.

    Attributes:
        images: The images, as given.
        labels: int64 (N,) classes, or (N, classes) rows of probabilities.
        classes: Number of classes that the network tells apart.

    Raises:
        TypeError: No such pair, or not arrays of real numbers.
        ValueError: No images, images that the network does not take, or labels that do not fit.
        TrainingError: Images on a card hold NaN or infinity.
    """

    def __init__(self, name: str, data: tuple[Any, Any], network: Any) -> None:
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            what = f"{len(data)} of them" if isinstance(data, (tuple, list)) else type(data).__name__
            raise TypeError(f"Trainer: {name} must be a pair (images, labels), got {what}")
        images, labels = data
        kind = getattr(getattr(images, "dtype", None), "kind", None)
        if not hasattr(images, "shape") or kind is None:
            raise TypeError(f"Trainer: the images of {name} must be an array, got {type(images).__name__}")
        if kind not in "biuf":
            raise TypeError(f"Trainer: the images of {name} must be real numbers, got dtype {images.dtype}")
        if not images.shape or images.shape[0] == 0:
            raise ValueError(f"Trainer: {name} holds no images (images.shape={tuple(images.shape)})")
        self.name = name
        self.images = images
        self.network = network
        with network.device.current():
            self.classes = self._classes()
            self.labels = to_numpy(check_labels(f"Trainer: {name}", labels, len(self), self.classes))
            if self._are_on_the_card():
                self._look_at_all()

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def batches(self, selections: Iterable[Selection]) -> Iterator[tuple[Array, Array]]:
        """Bring some images and labels after others to the network's device.

        A card gets the next batch while it computes with the one before.

        Yields:
            Images and labels of each selection.

        Raises:
            TrainingError: An image holds NaN or infinity; the batches before it have been handed out.
        """
        if self.network.device.asynchronous and not self._are_on_the_card():
            return self._sent_ahead(selections)
        return map(self._batch, selections)

    def fingerprint(self) -> str:
        """A short text that differs for other labels: a cheap way to tell data sets apart."""
        return hashlib.sha256(np.ascontiguousarray(self.labels).tobytes()).hexdigest()[:16]

    def _are_on_the_card(self) -> bool:
        return bool(self.network.device.asynchronous) and card_of(self.images) is not None

    def _batch(self, selection: Selection) -> tuple[Array, Array]:
        device = self.network.device
        x = self._moved(selection)
        if not self._are_on_the_card() and not device.xp.isfinite(x).all():
            self._refuse(selection)
        return x, self._good_labels(asarray(self.labels[selection], device=device))

    def _sent_ahead(self, selections: Iterable[Selection]) -> Iterator[tuple[Array, Array]]:
        uploads = _Uploads(self.network.device)
        on_its_way: _Upload | None = None
        try:
            for selection in selections:
                following = self._send(uploads, selection)
                if on_its_way is not None:
                    yield self._received(on_its_way)
                on_its_way = following
            if on_its_way is not None:
                yield self._received(on_its_way)
        finally:
            uploads.wait_for_all()

    def _send(self, uploads: _Uploads, selection: Selection) -> _Upload:
        images, labels = self.images[selection], self.labels[selection]
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is refused
            return uploads.send(selection, images, np.dtype(self.network.dtype or images.dtype), labels)

    def _received(self, upload: _Upload) -> tuple[Array, Array]:
        if not upload.finite:
            self._refuse(upload.selection)
        upload.wait()
        return upload.images, self._good_labels(upload.labels)

    def _moved(self, selection: Selection) -> Array:
        device = self.network.device
        if self._are_on_the_card() and isinstance(selection, np.ndarray):
            selection = device.xp.asarray(selection)
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is refused
            return asarray(self.images[selection], device=device, dtype=self.network.dtype)

    def _good_labels(self, labels: Array) -> Array:
        if card_of(labels) is not None:
            note_checked(labels, self.classes)
        return labels

    def _look_at_all(self) -> None:
        parts = [slice(first, first + IMAGES_AT_ONCE) for first in range(0, len(self), IMAGES_AT_ONCE)]
        finite = [self.network.device.xp.isfinite(self._moved(part)).all() for part in parts]
        for part, good in zip(parts, fetch(*finite), strict=True):
            if not good:
                self._refuse(part)

    def _classes(self) -> int:
        # Asked with zeros: no image is read, and an image that the network doesn't take is refused before anything runs.
        dtype = self.network.dtype or self.images.dtype
        scores = self.network.predict(self.network.device.xp.zeros((1, *self.images.shape[1:]), dtype))
        if scores.ndim != 2 or scores.shape[0] != 1:
            raise ValueError(
                f"Trainer: network.predict must give scores of the shape (images, classes), "
                f"got {tuple(scores.shape)} for one image of {self.name}"
            )
        return int(scores.shape[1])

    def _refuse(self, selection: Selection) -> None:
        images = self.images[selection]
        with np.errstate(over="ignore"):
            x = to_numpy(images).astype(self.network.dtype or images.dtype)
        bad = np.arange(len(self))[selection][~np.isfinite(x).reshape(len(x), -1).all(axis=1)]
        others = f" (and {len(bad) - 1} more of its batch)" if len(bad) > 1 else ""
        raise TrainingError(f"Trainer: image {bad.min()} of {self.name}{others} holds NaN, or infinity in {x.dtype}")


class _Upload(NamedTuple):
    """A batch on its way to a card; ``finite`` tells whether its images are."""

    selection: Selection
    images: Array
    labels: Array
    finite: bool
    arrived: Any

    def wait(self) -> None:
        """Let what the current stream does from now on wait until the batch is there. The host does not wait."""
        import cupy

        cupy.cuda.get_current_stream().wait_event(self.arrived)


class _Uploads:
    """Copies batches to a card on a stream of their own, beside what the card computes.

    The card reads them from memory that is pinned for it, in two sets of buffers that take turns::

        host          fill A    fill B    fill A    ...
        own stream       copy A    copy B    copy A
        computing           batch A   batch B   batch A
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = device.xp.cuda.Stream(non_blocking=True)
        self._sets = (_Pinned(), _Pinned())

    def send(self, selection: Selection, images: Any, dtype: np.dtype[Any], labels: HostArray) -> _Upload:
        """Begin to copy images, converted to this dtype, and labels."""
        xp = self._device.xp
        self._sets = self._sets[::-1]
        buffers = self._sets[0]
        buffers.wait()
        hosts = buffers.filled("images", images, dtype), buffers.filled("labels", labels, labels.dtype)
        cards = xp.empty(hosts[0].shape, hosts[0].dtype), xp.empty(hosts[1].shape, hosts[1].dtype)
        # The memory comes from the pool of the current stream, which may still read what was there before.
        self._stream.wait_event(self._now(xp.cuda.get_current_stream()))
        for card, host in zip(cards, hosts, strict=True):
            card.set(host, stream=self._stream)
        buffers.read = self._now(self._stream)
        return _Upload(selection, *cards, bool(np.isfinite(hosts[0]).all()), buffers.read)

    def wait_for_all(self) -> None:
        """Let the current stream wait for what was sent and never used, whose memory it will be given again."""
        self._device.xp.cuda.get_current_stream().wait_event(self._now(self._stream))

    def _now(self, stream: Any) -> Any:
        return stream.record(self._device.xp.cuda.Event(disable_timing=True))


class _Pinned:
    """Buffers on the host that a card can read; ``read`` is the event after which it has done so."""

    def __init__(self) -> None:
        self.read: Any = None
        self._buffers: dict[str, HostArray] = {}

    def wait(self) -> None:
        """Wait until the card has read the buffers: they were sent two batches ago."""
        if self.read is not None:
            self.read.synchronize()

    def filled(self, name: str, values: Any, dtype: np.dtype[Any]) -> HostArray:
        """The values in the pinned memory that has this name, converted."""
        import cupyx

        shape = tuple(values.shape)
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < shape[0]:
            buffer = self._buffers[name] = cupyx.empty_pinned(shape, dtype)
        np.copyto(buffer[: shape[0]], values, casting="unsafe")
        return buffer[: shape[0]]
