"""Matrix products of the cuda device: every order, tile and split, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_close, normal
from hypothesis import given
from hypothesis import strategies as st
from simulated_cards import MODES, Array, moved, needs_simulator, simulated_card

from xpconv.kernels.cuda.dense import matmul, matrix_product
from xpconv.kernels.cuda.runtime import computed_by, planning
from xpconv.kernels.cuda.tiles import TileShape, tile_shapes

pytestmark = needs_simulator

SMALL = {np.dtype(dtype): tile_shapes("cores", dtype)[8] for dtype in (np.float32, np.float64)}
ORDERS = [(False, False), (False, True), (True, False), (True, True)]


def matrices(
    rows: int, depth: int, columns: int, dtype: Any, transposed: tuple[bool, bool] = (False, False)
) -> tuple[Array, Array]:
    """Two matrices, each of them the transpose of what lies in memory if asked for."""
    a, b = normal(1, (rows, depth)).astype(dtype), normal(2, (depth, columns)).astype(dtype)
    return np.asfortranarray(a) if transposed[0] else a, np.asfortranarray(b) if transposed[1] else b


def check(a: Array, b: Array, tile: TileShape | None = None, splits: int | None = None) -> None:
    """Hold a product against float64."""
    product = matrix_product(a, b, tile, splits)
    assert product.flags.c_contiguous
    expected = a.astype(np.float64) @ b.astype(np.float64)
    if a.dtype.itemsize > 2:
        assert_close(product, expected, a.dtype, terms=max(1, a.shape[1]))
        return
    # Summed in float32, which is as good as exact here, and rounded once: to 11 bits, or 8.
    assert product.dtype == a.dtype
    half_a_bit = 2.0**-11 if a.dtype == np.float16 else 2.0**-8
    np.testing.assert_allclose(product.astype(np.float64), expected, rtol=1.01 * half_a_bit, atol=1e-5 * a.shape[1] ** 0.5)


@pytest.mark.parametrize("transposed", ORDERS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 7, 3), (40, 33, 37), (8, 16, 12), (64, 100, 8), (1, 50, 1), (33, 1, 34)])
def test_sizes_and_orders(sizes: tuple[int, int, int], transposed: tuple[bool, bool], dtype: np.dtype[Any]) -> None:
    check(*matrices(*sizes, dtype, transposed), SMALL[dtype])


@given(
    rows=st.integers(0, 40),
    depth=st.integers(0, 70),
    columns=st.integers(0, 40),
    transposed=st.sampled_from(ORDERS),
    splits=st.integers(1, 5),
)
def test_any_size(rows: int, depth: int, columns: int, transposed: tuple[bool, bool], splits: int) -> None:
    check(*matrices(rows, depth, columns, np.float64, transposed), SMALL[np.dtype(np.float64)], splits)


@pytest.mark.parametrize(
    ("dtype", "tile", "transposed"),
    [
        pytest.param(dtype, tile, ORDERS[number % 4], id=f"{np.dtype(dtype)}-{tile.rows}x{tile.columns}")
        for engine, dtype in (("cores", np.float32), ("cores", np.float64), ("tensor", np.float16))
        for number, tile in enumerate(tile_shapes(engine, dtype))  # type: ignore[arg-type]
        if tile.depth == max(shape.depth for shape in tile_shapes(engine, dtype))  # type: ignore[arg-type]
    ],
)
def test_every_tile_gives_the_same(dtype: Any, tile: TileShape, transposed: tuple[bool, bool]) -> None:
    check(*matrices(136, 72, 144, dtype, transposed), tile, splits=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("splits", [1, 3, 1000])
def test_splits(splits: int, dtype: Any) -> None:
    a, b = matrices(9, 200, 11, dtype)
    check(a, b, splits=splits)
    assert matrix_product(a, b, splits=splits).tobytes() == matrix_product(a, b, splits=splits).tobytes()


@pytest.mark.parametrize("compute_capability", [75, 80])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_types(name: str, compute_capability: int) -> None:
    dtype = np.float16 if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    with computed_by(simulated_card("fast", compute_capability)):
        check(*matrices(20, 40, 24, dtype, (False, True)))
        check(*matrices(7, 33, 5, dtype, (True, False)))


@pytest.mark.parametrize("transposed", [(False, False), (True, True)])
def test_tf32_on_request(transposed: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPCONV_TF32", "1")
    a, b = matrices(20, 40, 24, np.float32, transposed)
    error = np.abs(matmul(a, b) - a.astype(np.float64) @ b)
    assert (error <= 2.0**-10 * (np.abs(a).astype(np.float64) @ np.abs(b))).all()
    assert error.max() > 1e-4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("transposed", ORDERS)
def test_both_modes_of_the_simulator(mode: str, dtype: Any, transposed: tuple[bool, bool]) -> None:
    with computed_by(simulated_card(mode)):
        check(*matrices(21, 50, 18, dtype, transposed), splits=2)


def test_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpconv.kernels.cuda.runtime.INT_REACH", 1)
    with computed_by(simulated_card("check")):
        check(*matrices(21, 50, 18, np.float32), splits=2)


@pytest.mark.parametrize("offset", [1, 2])
def test_matrices_that_start_anywhere(offset: int) -> None:
    a, b = matrices(8, 16, 12, np.float32)
    check(moved(a, offset), moved(b, offset))


def test_other_strides_are_refused() -> None:
    a, b = matrices(8, 16, 12, np.float32)
    with pytest.raises(ValueError, match="not C-contiguous"):
        matmul(a[::2], b)


@pytest.mark.parametrize("sizes", [(0, 4, 5), (4, 0, 5), (4, 5, 0)])
def test_nothing_to_sum(sizes: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    assert_close(matmul(*matrices(*sizes, dtype)), np.zeros((sizes[0], sizes[2])), dtype)


@pytest.mark.parametrize("transposed", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_not_finite_stays_in_its_row_and_column(dtype: Any, transposed: tuple[bool, bool]) -> None:
    # Steps and tiles reach beyond the matrices: infinity there, times zero, would be NaN.
    a, b = matrices(9, 19, 7, dtype, transposed)
    a[4], b[:, 2] = np.inf, np.nan
    b[:, [0, 1, 3, 4, 5, 6]] = 1
    product = matrix_product(a, b, splits=2)
    nan = np.zeros((9, 7), bool)
    nan[:, 2] = True
    infinite = np.zeros((9, 7), bool)
    infinite[4] = True
    np.testing.assert_array_equal(np.isnan(product), nan)
    np.testing.assert_array_equal(np.isposinf(product), infinite & ~nan)


def test_cublas_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = matrices(5, 6, 7, np.float64)
    monkeypatch.setenv("XPCONV_CUDA_MATMUL", "cublas")
    with planning(80, 108, 163 << 10) as launches:
        assert_close(matmul(a, b), a @ b, np.float64)
    assert launches == []
    monkeypatch.setenv("XPCONV_CUDA_MATMUL", "mine")
    with pytest.raises(ValueError, match="XPCONV_CUDA_MATMUL must be 'own' or 'cublas', got 'mine'"):
        matmul(a, b)


def test_long_products_are_split_and_large_ones_are_not() -> None:
    with planning(90, 132, 227 << 10) as launches:
        matmul(np.empty((100, 1 << 16), np.float32), np.empty((1 << 16, 10), np.float32))
        assert launches[0].grid[0] * launches[0].grid[1] >= 100
        assert launches[1].name == "add_splits<float>"
        launches.clear()
        matmul(np.empty((4096, 512), np.float32), np.empty((512, 4096), np.float32))
        (launch,) = launches
        assert launch.grid[1] == 1
        assert " 128, 128, " in launch.name
