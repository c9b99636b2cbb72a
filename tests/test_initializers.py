"""What weights start from, and what their size adds to the loss."""

import math
from typing import Any

import numpy as np
import pytest

import xpconv as xc
from xpconv import initializers, regularizers

MANY = (200, 500)
RANDOM = [
    initializers.RandomUniform,
    initializers.RandomNormal,
    initializers.TruncatedNormal,
    initializers.VarianceScaling,
    initializers.GlorotUniform,
    initializers.GlorotNormal,
    initializers.HeUniform,
    initializers.HeNormal,
    initializers.LecunUniform,
    initializers.LecunNormal,
    initializers.Orthogonal,
]

# Name -> the variance that Keras documents, for a fan in of 200 and a fan out of 500, and the largest value.
DISTRIBUTIONS = {
    "glorot_uniform": (2 / 700, math.sqrt(6 / 700)),
    "glorot_normal": (2 / 700, 2 * math.sqrt(2 / 700) / 0.87962566103423978),
    "he_uniform": (2 / 200, math.sqrt(6 / 200)),
    "he_normal": (2 / 200, 2 * math.sqrt(2 / 200) / 0.87962566103423978),
    "lecun_uniform": (1 / 200, math.sqrt(3 / 200)),
    "lecun_normal": (1 / 200, 2 * math.sqrt(1 / 200) / 0.87962566103423978),
    "random_uniform": (0.1**2 / 12, 0.05),
    "random_normal": (0.05**2, math.inf),
    "truncated_normal": ((0.05 * 0.87962566103423978) ** 2, 0.1),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_distribution_has_keras_variance_and_limits(name: str, rng: np.random.Generator) -> None:
    variance, largest = DISTRIBUTIONS[name]
    values = initializers.get(name)(MANY, "float64", random=rng)
    assert values.shape == MANY
    np.testing.assert_allclose(values.var(), variance, rtol=0.02, equal_nan=False)
    np.testing.assert_allclose(values.mean(), 0, atol=5 * math.sqrt(variance / values.size), equal_nan=False)
    assert np.abs(values).max() <= largest
    if math.isfinite(largest):
        assert np.abs(values).max() > 0.99 * largest


@pytest.mark.parametrize("name", [name for name in DISTRIBUTIONS if "uniform" in name])
def test_uniform_numbers_fill_every_part_alike(name: str, rng: np.random.Generator) -> None:
    largest = DISTRIBUTIONS[name][1]
    counts, _ = np.histogram(initializers.get(name)(MANY, "float64", random=rng), bins=10, range=(-largest, largest))
    np.testing.assert_allclose(counts, math.prod(MANY) / 10, rtol=0.05, equal_nan=False)


def test_a_truncated_normal_distribution_has_the_density_of_the_normal_one(rng: np.random.Generator) -> None:
    values = initializers.TruncatedNormal(mean=1.0, stddev=2.0)(MANY, "float64", random=rng)
    edges = np.linspace(-2, 2, 9)
    share = [math.erf(edge / math.sqrt(2)) / 2 for edge in edges.tolist()]
    expected = np.diff(share) / (share[-1] - share[0])
    counts, _ = np.histogram((values - 1) / 2, bins=edges)
    assert counts.sum() == values.size
    np.testing.assert_allclose(counts / values.size, expected, rtol=0.05, equal_nan=False)


@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [((), 1, 1), ((7,), 7, 7), ((6, 8), 6, 8), ((3, 5, 6, 8), 90, 120), ((3, 6, 8), 18, 24)],
)
def test_fans_are_those_of_keras(shape: tuple[int, ...], fan_in: int, fan_out: int) -> None:
    for mode, count in (("fan_in", fan_in), ("fan_out", fan_out), ("fan_avg", (fan_in + fan_out) / 2)):
        values = initializers.VarianceScaling(2.0, mode, "untruncated_normal", seed=1)(shape, "float64")
        np.testing.assert_allclose(
            values, math.sqrt(2 / count) * np.random.default_rng(1).standard_normal(shape), rtol=1e-14, equal_nan=False
        )


def test_fans_can_be_told_by_axes() -> None:
    there = initializers.VarianceScaling(1.0, "fan_in", "uniform", seed=0, input_axes=[0, 1], output_axes=[2])((4, 5, 6))
    np.testing.assert_array_equal(
        there, initializers.VarianceScaling(1.0, "fan_in", "uniform", seed=0)((20, 6)).reshape(4, 5, 6)
    )


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (3, 2, 4), (1, 6)])
def test_an_orthogonal_matrix_is_orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    q = initializers.Orthogonal(gain=3.0)(shape, "float64", random=rng).reshape(-1, shape[-1]) / 3
    small = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-14, equal_nan=False)


def test_orthogonal_matrices_have_no_preferred_sign(rng: np.random.Generator) -> None:
    draws = np.array([initializers.Orthogonal()((2, 2), "float64", random=rng) for _ in range(400)])
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.2, equal_nan=False)


def test_constants() -> None:
    np.testing.assert_array_equal(initializers.Zeros()((2, 3)), np.zeros((2, 3)))
    np.testing.assert_array_equal(initializers.Ones()((2, 3)), np.ones((2, 3)))
    np.testing.assert_array_equal(initializers.Constant(2.5)((2, 3)), np.full((2, 3), 2.5))
    np.testing.assert_array_equal(initializers.Identity(2.0)((3, 2)), 2 * np.eye(3, 2))
    given = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(initializers.get(given)((2, 3)), given)
    with pytest.raises(ValueError, match=r"Constant: value has the shape \(2, 3\), and the weight \(3, 3\)"):
        initializers.get(given)((3, 3))
    np.testing.assert_array_equal(initializers.Constant(1e300)((1,), "float32"), [np.inf])


@pytest.mark.parametrize("initializer", [*RANDOM, initializers.Zeros, initializers.Ones, initializers.Identity])
@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_the_dtype_is_the_one_asked_for(initializer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    values = initializer()(shape, dtype)
    assert values.dtype == dtype
    assert values.shape == shape
    assert values.flags.c_contiguous
    assert values.flags.writeable


@pytest.mark.parametrize("initializer", RANDOM)
def test_random_numbers_come_from_the_seed_the_generator_or_numpy(initializer: Any) -> None:
    seeded = initializer(seed=3)
    np.testing.assert_array_equal(seeded((4, 5)), seeded((4, 5)))
    np.testing.assert_array_equal(seeded((4, 5), "float64").astype("float32"), seeded((4, 5), "float32"))
    generator = np.random.default_rng(3)
    np.testing.assert_array_equal(initializer()((4, 5), random=generator), seeded((4, 5)))
    assert not np.array_equal(initializer()((4, 5), random=generator), seeded((4, 5)))
    state = np.random.get_state()
    try:
        np.random.seed(0)
        first = initializer()((4, 5))
        assert not np.array_equal(initializer()((4, 5)), first)
        np.random.seed(0)
        np.testing.assert_array_equal(initializer()((4, 5)), first)
    finally:
        np.random.set_state(state)


@pytest.mark.parametrize("name", ["GlorotUniform", "glorot_uniform", "zero", "normal", "uniform", "OrthogonalInitializer"])
def test_keras_names_stand_for_initializers(name: str) -> None:
    assert initializers.get(name)((2, 3)).shape == (2, 3)


def test_configurations_stand_for_initializers() -> None:
    for made in (
        initializers.VarianceScaling(0.5, "fan_out", "uniform", seed=4, input_axes=(0,), output_axes=(1,)),
        initializers.HeNormal(seed=2),
        initializers.Constant([[1.0, 2.0]]),
        initializers.RandomUniform(-1, 2, seed=0),
    ):
        again = initializers.get({"class_name": type(made).__name__, "config": made.get_config()})
        assert repr(again) == repr(made)
        np.testing.assert_array_equal(again((1, 2)), made((1, 2)))
    assert isinstance(initializers.get(initializers.Zeros), initializers.Zeros)
    np.testing.assert_array_equal(initializers.get(lambda shape, dtype: np.full(shape, 4, dtype))((2,)), [4, 4])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: initializers.get("he_norml", op="Dense", argument="bias_initializer"),
            ValueError,
            "Dense: bias_initializer .*'he_normal'",
        ),
        (lambda: initializers.get(None), TypeError, "got None"),
        (
            lambda: initializers.RandomNormal(stddev=-1.0),
            ValueError,
            r"RandomNormal: stddev must be at least 0 and finite, got -1\.0",
        ),
        (lambda: initializers.RandomUniform(1.0, 0.0), ValueError, "minval must not be above maxval"),
        (lambda: initializers.HeNormal(seed=-1), ValueError, "HeNormal: seed must be at least 0, got -1"),
        (lambda: initializers.HeNormal(seed=1.5), TypeError, r"HeNormal: seed must be an integer, got 1\.5"),  # type: ignore[arg-type]
        (lambda: initializers.VarianceScaling(0.0), ValueError, "scale must be a positive number"),
        (lambda: initializers.VarianceScaling(1.0, "fan_inn"), ValueError, "mode 'fan_inn' is unknown; did you mean 'fan_in'"),
        (lambda: initializers.VarianceScaling(input_axes=[0]), ValueError, "must be given together"),
        (lambda: initializers.VarianceScaling(input_axes=[3], output_axes=[0])((2, 2)), ValueError, "not all there"),
        (lambda: initializers.Orthogonal()((3,)), ValueError, r"at least two axes, got shape \(3,\)"),
        (lambda: initializers.Identity()((3,)), ValueError, r"must be a matrix, got shape \(3,\)"),
        (lambda: initializers.Constant("one"), TypeError, "Constant: value must be a number"),
        (lambda: initializers.Zeros()((3,), "int32"), TypeError, "must be a floating dtype, got int32"),
        (lambda: initializers.get(lambda shape, dtype: np.zeros(2))((3,)), ValueError, r"returned the shape \(2,\)"),
    ],
)
def test_wrong_arguments_are_told(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


# ----------------------------------------------------------------------------------------------------------------------
# Regularizers
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regularizer", "l1", "l2"),
    [
        (regularizers.L1(0.3), 0.3, 0),
        (regularizers.L2(0.2), 0, 0.2),
        (regularizers.L1L2(0.3, 0.2), 0.3, 0.2),
        (regularizers.L1L2(), 0, 0),
        (regularizers.get("l1"), 0.01, 0),
        (regularizers.get("l2"), 0, 0.01),
        (regularizers.get("l1_l2"), 0.01, 0.01),
        (regularizers.l2(1e-4), 0, 1e-4),
    ],
    ids=repr,
)
def test_penalties_and_their_gradients(
    regularizer: regularizers.Regularizer, l1: float, l2: float, dtype: np.dtype[Any], rng: np.random.Generator
) -> None:
    w = rng.normal(size=(4, 5)).astype(dtype)
    exact = w.astype(np.float64)
    penalty, gradient = regularizer(w), regularizer.gradient(w)
    assert penalty.dtype == dtype
    assert gradient.dtype == dtype
    expected = sum(l1 * abs(value) + l2 * value * value for value in exact.ravel().tolist())
    np.testing.assert_allclose(penalty, expected, rtol=1e-6, equal_nan=False)
    differences = np.empty_like(exact)
    for position in np.ndindex(exact.shape):
        step = np.zeros_like(exact)
        step[position] = 1e-6
        differences[position] = (regularizer(exact + step) - regularizer(exact - step)) / 2e-6
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-8, equal_nan=False)
    assert repr(regularizers.get({"class_name": type(regularizer).__name__, "config": regularizer.get_config()})) == repr(
        regularizer
    )


def test_the_gradient_at_zero_is_zero_and_nan_stays() -> None:
    w = np.array([0.0, np.nan])
    for regularizer in (regularizers.L1(1.0), regularizers.L2(1.0), regularizers.L1L2(1.0, 1.0)):
        np.testing.assert_array_equal(regularizer.gradient(w), [0, np.nan])
        assert np.isnan(regularizer(w))
    assert regularizers.L2(1.0)(np.array([1e30], np.float32)) == np.inf


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: regularizers.get("l3", op="Dense", argument="kernel_regularizer"),
            ValueError,
            "Dense: kernel_regularizer 'l3' is unknown",
        ),
        (lambda: regularizers.get(0.01), TypeError, r"got 0\.01"),
        (lambda: regularizers.L2(-0.1), ValueError, r"L2: l2 must be at least 0 and finite, got -0\.1"),
        (lambda: regularizers.L1(math.nan), ValueError, "got nan"),
        (lambda: regularizers.L1L2(l2="much"), TypeError, "L1L2: l2 must be a number, got 'much'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_regularizers_are_told(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_no_regularizer() -> None:
    assert regularizers.get(None) is None
    assert xc.regularizers is regularizers
