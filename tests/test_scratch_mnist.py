"""The book's loader of MNIST, over the data sets of xpconv."""

import os
import warnings

import numpy as np
import pytest

from xpconv import datasets
from xpconv.scratch import mnist


@pytest.fixture
def no_full_set(monkeypatch, tmp_path):
    monkeypatch.delenv("XPCONV_DATA", raising=False)
    monkeypatch.setenv("XPCONV_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked_for(monkeypatch):
    """What was asked of the data sets, in place of reading them."""
    calls = []
    monkeypatch.setattr(datasets, "load_mnist", lambda data, **options: calls.append((data, options)))
    return calls


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("one_hot_label", [True, False])
def test_every_option_of_the_book(normalize, flatten, one_hot_label):
    (x, t), (x_test, t_test) = mnist.load_mnist(normalize, flatten, one_hot_label, data="bundled")
    assert x.shape == (5000, *([784] if flatten else [1, 28, 28]))
    assert x_test.shape == (1000, *x.shape[1:])
    assert x.dtype == x_test.dtype == (np.float32 if normalize else np.uint8)
    assert (x.min(), x.max()) == (0, 1 if normalize else 255)
    classes = t.argmax(axis=1) if one_hot_label else t
    assert t_test.shape == (1000, *t.shape[1:])
    assert classes[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert not one_hot_label or (t.sum(axis=1) == 1).all()


def test_without_the_full_set_the_bundled_part_is_loaded_with_a_warning(no_full_set):
    with pytest.warns(UserWarning, match=r"^load_mnist: .*5,000 training and 1,000 test images.* download_mnist\(\)") as caught:
        (x, t), (x_test, t_test) = mnist.load_mnist()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (x.shape, t.shape, x_test.shape, t_test.shape) == ((5000, 784), (5000,), (1000, 784), (1000,))


def test_data_bundled_asks_for_it_without_a_warning(no_full_set):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(mnist.load_mnist(data="bundled")[0][0]) == 5000


def test_with_the_full_set_at_hand_it_is_loaded(monkeypatch, asked_for):
    monkeypatch.setattr(datasets, "full_set_available", lambda name: name == "mnist")
    mnist.load_mnist(normalize=False, one_hot_label=True)
    assert asked_for == [("full", {"normalize": False, "flatten": True, "one_hot": True})]


def test_a_directory_is_handed_on(asked_for, tmp_path):
    mnist.load_mnist(data=tmp_path)
    assert asked_for[0][0] is tmp_path


@pytest.mark.parametrize("download", [mnist.download_mnist, mnist.init_mnist])
def test_downloading_fetches_the_full_set(download, asked_for):
    assert download() is None
    assert [data for data, _ in asked_for] == ["full"]


@pytest.mark.skipif("XPCONV_DATA" not in os.environ, reason="XPCONV_DATA names no directory with the full set")
def test_the_books_constants_are_those_of_the_full_set():
    (x, t), (x_test, t_test) = mnist.load_mnist(flatten=False)
    assert x.shape == (mnist.train_num, *mnist.img_dim)
    assert x_test.shape == (mnist.test_num, *mnist.img_dim)
    assert len(t) == mnist.train_num
    assert len(t_test) == mnist.test_num
    assert mnist.img_size == x[0].size


def test_the_books_constants():
    assert (mnist.train_num, mnist.test_num, mnist.img_dim, mnist.img_size) == (60000, 10000, (1, 28, 28), 784)
