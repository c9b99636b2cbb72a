"""The data sets that the examples and tests train on: MNIST and Fashion-MNIST.

A part of MNIST is bundled, so that every example runs with no network. The full sets are read from a directory of
yours, or downloaded once, checked, into the user's cache.

    idx.py          the file format
    catalog.py      what the sets consist of: file names, sizes, checksums, addresses
    sources.py      where the files are found, how they are downloaded and checked
    loading.py      from checked files to the arrays that were asked for
    mnist.py, fashion_mnist.py    the loaders
"""

from xpconv.datasets.fashion_mnist import FASHION_MNIST_CLASSES, load_fashion_mnist
from xpconv.datasets.idx import read_idx
from xpconv.datasets.mnist import load_mnist
from xpconv.datasets.sources import full_set_available

__all__ = ["FASHION_MNIST_CLASSES", "full_set_available", "load_fashion_mnist", "load_mnist", "read_idx"]
