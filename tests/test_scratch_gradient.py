"""Gradients by central differences."""

import numpy as np
import pytest

from xpconv.scratch.gradient import numerical_gradient, numerical_gradient_2d

TOLERANCES = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-9}


def cubic(x):
    return float((x.astype(np.float64) ** 3 / 3).sum())


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 1, 2, 3)])
def test_gradient_of_a_cubic(shape, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    gradient = numerical_gradient(cubic, x)
    assert gradient.shape == shape
    assert gradient.dtype == dtype
    # Its third derivative is 2, so central differences err by step**2 / 3.
    np.testing.assert_allclose(gradient, x.astype(np.float64) ** 2, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 4e-9)


@pytest.mark.parametrize("values", [[6, 800], [-3, 0], [1e-3, 3], [70000]])
def test_gradient_of_a_parabola_in_any_dtype(values, dtype):
    x = np.array(values, dtype)
    gradient = numerical_gradient(lambda x: float((x.astype(np.float64) ** 2).sum()), x)
    np.testing.assert_allclose(gradient, 2 * x.astype(np.float64), rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@pytest.mark.parametrize("value", [6, 800, 1e6])
def test_a_step_that_a_function_in_float32_can_resolve(value):
    np.testing.assert_allclose(numerical_gradient(lambda x: x[0] ** 2, np.array([value], np.float32)), [2 * value], rtol=1e-3)


def test_integers_are_worked_on_as_a_float64_copy():
    x, seen = np.array([6, 8]), []

    def f(y):
        seen.append(y)
        return (y**2).sum()

    gradient = numerical_gradient(f, x)
    np.testing.assert_allclose(gradient, [12, 16], rtol=1e-9)
    assert gradient.dtype == np.float64
    assert all(y.dtype == np.float64 for y in seen)
    np.testing.assert_array_equal(x, [6, 8])


@pytest.mark.parametrize("x", [[3.0, 4.0], [3, 4], (3.0, 4.0), np.array([True, False])])
def test_lists_and_booleans_too(x):
    np.testing.assert_allclose(numerical_gradient(lambda x: (x**2).sum(), x), 2 * np.array(x, float), atol=1e-9)


def test_the_function_may_ignore_its_argument_and_read_x_elsewhere(dtype):
    params = {"W": np.array([[1.0, -2.0], [0.5, 4.0]], dtype)}
    gradient = numerical_gradient(lambda _: cubic(params["W"]), params["W"])
    np.testing.assert_allclose(gradient, [[1, 4], [0.25, 16]], rtol=TOLERANCES[dtype] * 100)


def test_x_may_be_a_view():
    base = np.arange(24.0).reshape(4, 6)
    before = base.copy()
    np.testing.assert_allclose(numerical_gradient(lambda _: (base**2).sum(), base[::2, ::-3]), 2 * base[::2, ::-3], rtol=1e-6)
    np.testing.assert_array_equal(base, before)


ODD_VALUES = [0.1, -0.0, 1e-30, 3e8, 1 / 3]


@pytest.mark.parametrize("gradient_of", [numerical_gradient, numerical_gradient_2d])
def test_x_is_put_back_bit_for_bit(gradient_of, dtype):
    x = np.array(ODD_VALUES, dtype)
    before = x.tobytes()
    gradient_of(lambda x: x.sum(), x)
    assert x.tobytes() == before


@pytest.mark.parametrize("gradient_of", [numerical_gradient, numerical_gradient_2d])
@pytest.mark.parametrize("calls", range(1, 11))
def test_x_is_put_back_where_the_function_raises(gradient_of, calls, dtype):
    x = np.array(ODD_VALUES, dtype)
    before = x.tobytes()
    left = [calls]

    def f(x):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        gradient_of(f, x)
    assert x.tobytes() == before


def test_every_entry_is_moved_up_and_down_once():
    x, seen = np.array([1.0, 2.0]), []
    numerical_gradient(lambda x: seen.append(x.copy()) or 0.0, x)
    assert np.round(seen, 4).tolist() == [[1.0001, 2], [0.9999, 2], [1, 2.0001], [1, 1.9999]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_gradient_where_x_is_not_finite_is_nan(value, dtype):
    x = np.array([1, value, 2], dtype)
    before = x.tobytes()
    gradient = numerical_gradient(lambda x: float(x[0] + x[2]), x)
    np.testing.assert_allclose(gradient, [1, np.nan, 1], rtol=1e-3)
    assert x.tobytes() == before


def test_a_function_that_gives_nan_gives_nan():
    assert np.isnan(numerical_gradient(lambda x: np.nan, np.ones(2))).all()


@pytest.mark.parametrize("result", [np.float32(2), np.array(2.0), np.array([2.0]), 2, np.array([[2]])])
def test_one_number_in_any_form(result):
    assert numerical_gradient(lambda x: result, np.ones(2)).tolist() == [0, 0]


@pytest.mark.parametrize("result", [np.ones(3), None, "2", 1j, np.zeros(0)])
def test_what_is_no_number_is_refused(result):
    x = np.ones(3)
    with pytest.raises(TypeError, match=r"^numerical_gradient: f must return one real number, got "):
        numerical_gradient(lambda x: result, x)
    np.testing.assert_array_equal(x, 1)


@pytest.mark.parametrize("gradient_of", [numerical_gradient, numerical_gradient_2d])
def test_a_read_only_array_is_refused(gradient_of):
    x = np.ones(3)
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"^numerical_gradient(_2d)?: [xX] is read-only, .* pass [xX].copy\(\)"):
        gradient_of(np.sum, x)


@pytest.mark.parametrize("x", [np.ones(2, np.float16), np.ones(2, complex), np.array([None]), np.array(["a"]), None])
def test_what_holds_no_real_numbers_is_refused(x):
    with pytest.raises(TypeError, match=r"^numerical_gradient: x must be"):
        numerical_gradient(lambda x: 0.0, x)


def test_an_empty_array():
    assert numerical_gradient(lambda x: 0.0, np.zeros((0, 3))).shape == (0, 3)


# ----------------------------------------------------------------------------------------------------------------------
# Several points
# ----------------------------------------------------------------------------------------------------------------------


def test_gradients_at_several_points(dtype):
    X = np.random.default_rng(1).normal(size=(4, 3)).astype(dtype)

    def f(point):
        assert point.shape == (3,)
        return cubic(point)

    gradient = numerical_gradient_2d(f, X)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient, X.astype(np.float64) ** 2, rtol=1e-4, atol=1e-4 if dtype == np.float32 else 4e-9)


def test_gradient_at_one_point():
    np.testing.assert_allclose(numerical_gradient_2d(lambda x: (x**2).sum(), np.array([3, 4])), [6, 8], rtol=1e-9)


@pytest.mark.parametrize("shape", [(), (2, 3, 4)])
def test_points_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"^numerical_gradient_2d: X must be a matrix of points, or one point, got X.shape="):
        numerical_gradient_2d(np.sum, np.ones(shape))
