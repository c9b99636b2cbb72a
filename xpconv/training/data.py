"""Images and labels of one set: checked once, then handed out in batches on the network's device."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from xpconv.device import asarray, to_numpy
from xpconv.errors import TrainingError
from xpconv.labels import check_labels

Array = Any  # a NumPy or a CuPy array
Selection = slice | np.ndarray[Any, np.dtype[np.int64]]


class LabelledImages:
    """One set of images with their labels.

    The images stay where they are, in memory or in a file; a batch is read, converted and moved when it is asked for.

    Args:
        name: What the caller calls the set, ``"train"`` or ``"test"``, for messages.
        data: The pair ``(images, labels)``.
        network: The network that is to take them; it tells device, dtype and number of classes.

    Attributes:
        images: The images, as given.
        labels: int64 (N,) classes, or (N, classes) rows of probabilities.

    Raises:
        TypeError: No such pair, or not arrays of real numbers.
        ValueError: No images, images that the network does not take, or labels that do not fit.
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
        self.labels = check_labels(f"Trainer: {name}", labels, len(self), self._classes())

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def batch(self, selection: Selection) -> tuple[Array, Array]:
        """Bring some images and labels to the network's device.

        Raises:
            TrainingError: An image holds NaN or infinity.
        """
        device, dtype = self.network.device, self.network.dtype
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is refused below
            x = asarray(self.images[selection], device=device, dtype=dtype)
        finite = device.xp.isfinite(x)
        if not finite.all():
            self._refuse(selection, to_numpy(finite), x.dtype)
        return x, asarray(self.labels[selection], device=device)

    def fingerprint(self) -> str:
        """A short text that differs for other labels: a cheap way to tell data sets apart."""
        return hashlib.sha256(np.ascontiguousarray(self.labels).tobytes()).hexdigest()[:16]

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

    def _refuse(self, selection: Selection, finite: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> None:
        bad = np.arange(len(self))[selection][~finite.reshape(len(finite), -1).all(axis=1)]
        others = f" (and {len(bad) - 1} more of its batch)" if len(bad) > 1 else ""
        raise TrainingError(f"Trainer: image {bad.min()} of {self.name}{others} holds NaN, or infinity in {dtype}")
