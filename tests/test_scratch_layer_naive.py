"""The nodes of the book's computational graphs, in its example of a purchase."""

import numpy as np
import pytest

from xpconv.scratch.layer_naive import AddLayer, MulLayer


def test_buying_apples_and_oranges():
    apples, oranges, fruit, taxed = MulLayer(), MulLayer(), AddLayer(), MulLayer()
    price = taxed.forward(fruit.forward(apples.forward(100, 2), oranges.forward(150, 3)), 1.1)
    assert price == pytest.approx(715)

    d_fruit, d_tax = taxed.backward(1)
    d_apples, d_oranges = fruit.backward(d_fruit)
    assert d_tax == 650
    assert apples.backward(d_apples) == pytest.approx((2.2, 110))
    assert oranges.backward(d_oranges) == pytest.approx((3.3, 165))


def test_arrays():
    x, y, dout = np.array([1.0, 2.0]), np.array([3.0, 5.0]), np.array([10.0, 100.0])
    product, total = MulLayer(), AddLayer()
    np.testing.assert_array_equal(product.forward(x, y), [3, 10])
    np.testing.assert_array_equal(product.backward(dout), [[30, 500], [10, 200]])
    np.testing.assert_array_equal(total.forward(x, y), [4, 7])
    dx, dy = total.backward(dout)
    dx[0] = 7
    np.testing.assert_array_equal(dy, dout)
    np.testing.assert_array_equal(dout, [10, 100])


def test_backward_needs_forward():
    with pytest.raises(RuntimeError, match=r"^MulLayer.backward: call forward first"):
        MulLayer().backward(1)
