"""Fashion-MNIST: articles of clothing, in the format of MNIST."""

import os
from typing import Any

from numpy.typing import DTypeLike, NDArray

from xpconv.datasets.catalog import FASHION_MNIST
from xpconv.datasets.loading import load_image_set

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_fashion_mnist(
    data: str | os.PathLike[str] = "full",
    *,
    normalize: bool = True,
    flatten: bool = False,
    one_hot: bool = False,
    dtype: DTypeLike | None = None,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Load the images and labels of Fashion-MNIST: 60,000 and 10,000 of 28 by 28 grey pixels, in ten classes.

    Args:
        data: "full" or a directory, as for `load_mnist`; the folder's name is ``fashion-mnist``. No part of this set
            comes with xpconv.
        normalize: divide the pixels by 255, to lie in [0, 1]; otherwise they are 0 to 255.
        flatten: give each image as a vector of 784 pixels, rather than as an image of one channel.
        one_hot: give each label as a vector with a 1 at its class, rather than as the class.
        dtype: of the images and of one-hot labels: float32, float64 or, without `normalize`, uint8. None stands for
            float32, but for uint8 in images that are not normalized. Labels that are not one-hot are int64.

    Returns:
        ``((x_train, t_train), (x_test, t_test))``, new writable NumPy arrays: images of shape (N, 1, 28, 28), or
        (N, 784) with `flatten`; labels of shape (N,), or (N, 10) with `one_hot`. ``FASHION_MNIST_CLASSES[label]`` is
        the name of a class.

    Raises:
        DataError: a file is missing, damaged, not the original, or can't be downloaded. Every file's uncompressed
            content must have the known SHA-256; the text names the file and tells what is wrong with it.
        ValueError: `dtype` or `data` is none of the above.
        TypeError: `data` is neither a str nor a path.

    Notes:
        H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747, https://github.com/zalandoresearch/fashion-mnist, under
        the MIT licence.

    Example:
        >>> import xpconv as xc
        >>> xc.datasets.FASHION_MNIST_CLASSES[9]
        'Ankle boot'
        >>> (x_train, t_train), _ = xc.datasets.load_fashion_mnist()  # doctest: +SKIP
        >>> x_train.shape  # doctest: +SKIP
        (60000, 1, 28, 28)
    """
    return load_image_set(
        "load_fashion_mnist",
        FASHION_MNIST,
        data,
        normalize=normalize,
        flatten=flatten,
        one_hot=one_hot,
        dtype=dtype,
    )
