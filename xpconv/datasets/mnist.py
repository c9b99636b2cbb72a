"""MNIST: handwritten digits."""

import os
from typing import Any

from numpy.typing import DTypeLike, NDArray

from xpconv.datasets.catalog import MNIST
from xpconv.datasets.loading import load_image_set


def load_mnist(
    data: str | os.PathLike[str] = "bundled",
    *,
    normalize: bool = True,
    flatten: bool = False,
    one_hot: bool = False,
    dtype: DTypeLike | None = None,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Load the images and labels of MNIST, 28 by 28 grey pixels of a handwritten digit each.

    Args:
        data: which images, and from where.

            - "bundled": the first 5,000 training and 1,000 test images, which come with xpconv; no network is needed.
            - "full": all 60,000 and 10,000. From the directory that the environment variable XPCONV_DATA names, else
              from the user's cache (XPCONV_CACHE overrides where), where they are downloaded the first time.
            - a directory: the full set from the four files in it, or in its folder ``mnist``; compressed or not,
              ``train-images-idx3-ubyte.gz`` or ``train-images.idx3-ubyte`` and so on. A directory that is itself
              called "full" is written "./full".
        normalize: divide the pixels by 255, to lie in [0, 1]; otherwise they are 0 to 255.
        flatten: give each image as a vector of 784 pixels, rather than as an image of one channel.
        one_hot: give each label as a vector with a 1 at its class, rather than as the class.
        dtype: of the images and of one-hot labels: float32, float64 or, without `normalize`, uint8. None stands for
            float32, but for uint8 in images that are not normalized. Labels that are not one-hot are int64.

    Returns:
        ``((x_train, t_train), (x_test, t_test))``, new writable NumPy arrays: images of shape (N, 1, 28, 28), or
        (N, 784) with `flatten`; labels of shape (N,), or (N, 10) with `one_hot`.

    Raises:
        DataError: a file is missing, damaged, not the original, or can't be downloaded. Every file's uncompressed
            content must have the known SHA-256; the text names the file and tells what is wrong with it.
        ValueError: `dtype` or `data` is none of the above.
        TypeError: `data` is neither a str nor a path.

    Notes:
        Y. LeCun, C. Cortes and C. J. C. Burges, http://yann.lecun.com/exdb/mnist/, under the licence CC BY-SA 3.0.

    Example:
        >>> import xpconv as xc
        >>> (x_train, t_train), (x_test, t_test) = xc.datasets.load_mnist()
        >>> x_train.shape, x_train.dtype, x_test.shape
        ((5000, 1, 28, 28), dtype('float32'), (1000, 1, 28, 28))
        >>> t_train[:5]
        array([5, 0, 4, 1, 9])
    """
    return load_image_set("load_mnist", MNIST, data, normalize=normalize, flatten=flatten, one_hot=one_hot, dtype=dtype)
