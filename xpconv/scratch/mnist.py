"""The book's ``dataset/mnist.py`` over :mod:`xpconv.datasets`: nothing is written beside the source, no pickle is read."""

from __future__ import annotations

import os
import warnings
from typing import Any

from numpy.typing import NDArray

from xpconv import datasets

__all__ = ["download_mnist", "img_dim", "img_size", "init_mnist", "load_mnist", "test_num", "train_num"]

train_num = 60000
test_num = 10000
img_dim = (1, 28, 28)
img_size = 784


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    data: str | os.PathLike[str] | None = None,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Load the images and labels of MNIST.

    Args:
        normalize: Divide the pixels by 255, to lie in [0, 1], as float32; otherwise they are 0 to 255, as uint8.
        flatten: Give each image as a vector of 784 pixels, rather than as an image of one channel.
        one_hot_label: Give each label as a vector with a 1 at its class, rather than as the class.
        data: Which images, and from where: ``"full"``, ``"bundled"`` or a directory, as in
            :func:`xpconv.datasets.load_mnist`. None takes the full set where it is on this machine, and otherwise the
            5,000 and 1,000 images that come with xpconv; a UserWarning says so then.

    Returns:
        ``((x_train, t_train), (x_test, t_test))``: images of shape (N, 784), or (N, 1, 28, 28) without ``flatten``;
        labels of shape (N,), or (N, 10) with ``one_hot_label``.

    Raises:
        DataError: A file is missing, damaged, or can't be downloaded; see :func:`xpconv.datasets.load_mnist`.

    Example:
        >>> from xpconv.scratch.mnist import load_mnist
        >>> (x_train, t_train), (x_test, t_test) = load_mnist(flatten=False, data="bundled")
        >>> x_train.shape, t_train.shape, x_test.shape
        ((5000, 1, 28, 28), (5000,), (1000, 1, 28, 28))
    """
    if data is None:
        data = "full" if datasets.full_set_available("mnist") else "bundled"
        if data == "bundled":
            warnings.warn(
                "load_mnist: the full MNIST is not on this machine, so the bundled 5,000 training and 1,000 test images are "
                'loaded; download_mnist() fetches all 70,000, and data="bundled" asks for this part without a warning',
                UserWarning,
                stacklevel=2,
            )
    return datasets.load_mnist(data, normalize=normalize, flatten=flatten, one_hot=one_hot_label)


def download_mnist() -> None:
    """Fetch the full set into the user's cache, unless it is on this machine, and check it.

    Raises:
        DataError: It cannot be downloaded, or a file is damaged; see :func:`xpconv.datasets.load_mnist`.
    """
    datasets.load_mnist("full")


def init_mnist() -> None:
    """Make :func:`load_mnist` load the full set from now on: :func:`download_mnist` by the book's other name.

    Raises:
        DataError: As :func:`download_mnist`.
    """
    download_mnist()
