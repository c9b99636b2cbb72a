"""From the files of a set to the arrays that the caller asked for."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xpconv.datasets.catalog import ImageSet
from xpconv.datasets.sources import read_bundled, read_directory, read_full

Split = tuple[NDArray[Any], NDArray[Any]]  # images, labels


def load_image_set(
    function: str,
    image_set: ImageSet,
    data: str | os.PathLike[str],
    *,
    normalize: bool,
    flatten: bool,
    one_hot: bool,
    dtype: DTypeLike | None,
) -> tuple[Split, Split]:
    """Load a set; `function` is the public one that was called, for the error texts. See `load_mnist`."""
    image_dtype, label_dtype = _dtypes(function, dtype, normalize)
    train_images, train_labels, test_images, test_labels = _read(function, image_set, data)

    def finish(images: NDArray[Any], labels: NDArray[Any]) -> Split:
        images = images.reshape(len(images), -1) if flatten else images[:, np.newaxis]
        images = np.divide(images, 255, dtype=image_dtype) if normalize else images.astype(image_dtype, copy=False)
        labels = labels.astype(np.int64)
        return images, np.eye(image_set.classes, dtype=label_dtype)[labels] if one_hot else labels

    return finish(train_images, train_labels), finish(test_images, test_labels)


def _dtypes(function: str, dtype: DTypeLike | None, normalize: bool) -> tuple[np.dtype[Any], np.dtype[Any]]:
    if dtype is None:
        return np.dtype(np.float32 if normalize else np.uint8), np.dtype(np.float32)
    allowed = ["float32", "float64"] if normalize else ["float32", "float64", "uint8"]
    try:
        chosen: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{function}: dtype must be one of {', '.join(allowed)}, got {dtype!r}") from error
    if chosen not in map(np.dtype, allowed):
        raise ValueError(f"{function}: dtype must be one of {', '.join(allowed)} with normalize={normalize}, got {chosen}")
    return chosen, chosen


def _read(function: str, image_set: ImageSet, data: str | os.PathLike[str]) -> list[NDArray[Any]]:
    if not isinstance(data, str | os.PathLike):
        raise TypeError(f"{function}: data must be a str or a path, got {type(data).__name__}")
    if data == "bundled":
        if image_set.bundled is None:
            raise ValueError(
                f'{function}: no part of {image_set.title} comes with xpconv; data must be "full" or a directory, got "bundled"'
            )
        return read_bundled(image_set)
    if data == "full":
        return read_full(image_set)
    if data == "":
        raise ValueError(f'{function}: data must be "bundled", "full" or a directory, got ""')
    return read_directory(image_set, Path(data).expanduser(), ' (data is neither "bundled" nor "full")')
