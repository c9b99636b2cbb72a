"""The language that kernels are written in: every part of CUDA C++ that the simulator knows means what it means on a card."""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from xpconv import cudasim

pytestmark = pytest.mark.skipif(not cudasim.status().available, reason=cudasim.status().reason)

MODES = ("fast", "check")


@functools.cache
def module(code: str, mode: str, *names: str, options: tuple[str, ...] = ()) -> cudasim.Module:
    return cudasim.Module(code=code, name_expressions=names or None, mode=mode, options=options)


def run(
    code: str, name: str, arguments: tuple[Any, ...], grid: int = 1, block: int = 32, mode: str = "fast", **more: Any
) -> None:
    module(code, mode).get_function(name)((grid,), (block,), arguments, **more)


# ---- float16 and bfloat16 --------------------------------------------------------------------------------------------

HALF = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#define MAP(name, X, Y, expression)                                                  \
    extern "C" __global__ void name(const void* x, void* y, int n) {                 \
        for (int i = threadIdx.x; i < n; i += blockDim.x)                            \
            static_cast<Y*>(y)[i] = expression(static_cast<const X*>(x)[i]);         \
    }
#define MAP2(name, T, Y, expression)                                                 \
    extern "C" __global__ void name(const void* a, const void* b, Y* y, int n) {     \
        for (int i = threadIdx.x; i < n; i += blockDim.x)                            \
            y[i] = static_cast<const T*>(a)[i] expression static_cast<const T*>(b)[i]; \
    }
MAP(half_widen, __half, float, __half2float)
MAP(half_narrow, float, __half, __float2half_rn)
MAP(half_narrow_double, double, __half, __double2half)
MAP(half_truncate, __half, int, __half2int_rz)
MAP(half_round, __half, int, __half2int_rn)
MAP(half_isnan, __half, bool, __hisnan)
MAP(half_isinf, __half, int, __hisinf)
MAP(half_negate, __half, __half, -)
MAP(half_abs, __half, __half, __habs)
MAP(half_sqrt, __half, __half, hsqrt)
MAP(half_exp, __half, __half, hexp)
MAP(half_ceil, __half, __half, hceil)
MAP(bf16_widen, __nv_bfloat16, float, __bfloat162float)
MAP(bf16_narrow, float, __nv_bfloat16, __float2bfloat16_rn)
MAP(bf16_narrow_double, double, __nv_bfloat16, __double2bfloat16)
#define ARITHMETIC(prefix, T) \
    MAP2(prefix##_add, T, float, +) MAP2(prefix##_subtract, T, float, -) MAP2(prefix##_multiply, T, float, *) \
    MAP2(prefix##_divide, T, float, /) MAP2(prefix##_less, T, bool, <) MAP2(prefix##_equal, T, bool, ==) \
    MAP2(prefix##_at_least, T, bool, >=) MAP2(prefix##_differ, T, bool, !=)
ARITHMETIC(half, __half)
ARITHMETIC(bf16, __nv_bfloat16)
template <class T> __global__ void fused(const void* x, void* y, int n) {  // y = a * b + c, where x is a, b, c
    const T* a = static_cast<const T*>(x);
    for (int i = threadIdx.x; i < n; i += blockDim.x) static_cast<T*>(y)[i] = __hfma(a[i], a[n + i], a[2 * n + i]);
}
template <class T> __global__ void extrema(const void* x, void* y, int n) {
    const T *a = static_cast<const T*>(x), *b = a + n;
    T* r = static_cast<T*>(y);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        r[i] = __hmin(a[i], b[i]), r[n + i] = __hmax(a[i], b[i]), r[2 * n + i] = __hmax_nan(a[i], b[i]);
}
extern "C" __global__ void pairs(const __half2* a, const __half2* b, __half2* y, float2* wide) {
    y[0] = __hadd2(a[0], b[0]);
    y[1] = __hmul2(a[0], b[0]);
    y[2] = __hfma2(a[0], b[0], a[1]);
    y[3] = __halves2half2(__high2half(a[0]), __low2half(b[0]));
    y[4] = __floats2half2_rn(1.5f, -2.5f);
    y[5] = a[0] - b[0];
    wide[0] = __half22float2(a[0]);
    half mixed = 3;
    mixed += half(0.5);
    wide[1] = make_float2(mixed, float(mixed > half(3)));
}
extern "C" __global__ void sums(__half* h, __nv_bfloat16* b, __half2* two) {
    atomicAdd(h, __half(0.5f));
    atomicAdd(b, __nv_bfloat16(2.0f));
    atomicAdd(two, __half2(1.0f, 2.0f));
}
extern "C" __global__ void by_value(__half h, __nv_bfloat16 b, float* y) { y[0] = h, y[1] = b; }
"""

# Every pattern of 16 bits as a float64, by the definition of the format.
PATTERNS = np.arange(65536, dtype=np.uint16)


def decoded(fraction_bits: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    exponent_bits = 15 - fraction_bits
    sign = np.where(PATTERNS >> 15, -1.0, 1.0)
    exponent = (PATTERNS >> fraction_bits & (2**exponent_bits - 1)).astype(int)
    fraction = (PATTERNS & (2**fraction_bits - 1)).astype(float) / 2**fraction_bits
    bias = 2 ** (exponent_bits - 1) - 1
    value = np.where(exponent == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, exponent - bias))
    special = np.where(fraction == 0, np.inf, np.nan)
    return sign * np.where(exponent == 2**exponent_bits - 1, special, value)


VALUES = {"half": decoded(10), "bf16": decoded(7)}
TYPES = {"half": "__half", "bf16": "__nv_bfloat16"}
TEMPLATES = tuple(f"{template}<{name}>" for template in ("fused", "extrema") for name in TYPES.values())
FINITE = {name: np.sort(np.unique(values[np.isfinite(values)])) for name, values in VALUES.items()}


def rounded(exact: Fraction, name: str) -> float:
    """The nearest number of the format, the one with the even fraction of two: what IEEE 754 asks for."""
    table = FINITE[name]
    place = int(np.searchsorted(table, float(exact)))
    near = [float(table[i]) for i in range(max(place - 2, 0), min(place + 2, len(table)))]
    step = Fraction(float(table[-1])) - Fraction(float(table[-2]))
    beyond = Fraction(float(table[-1])) + step  # what the next number would be: from half way on it is infinity
    candidates = [(abs(exact - Fraction(value)), Fraction(value), value) for value in near]
    candidates += [(abs(exact - beyond), beyond, math.inf), (abs(exact + beyond), -beyond, -math.inf)]
    least = min(distance for distance, _, _ in candidates)
    ties = [(number, value) for distance, number, value in candidates if distance == least]
    if len(ties) == 1:
        return ties[0][1]
    unit = min(abs(a - b) for a, b in itertools.combinations([number for number, _ in ties], 2))
    return next(value for number, value in ties if number / unit % 2 == 0)


def bits_of(values: np.ndarray[Any, np.dtype[np.float64]], name: str) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The patterns of numbers of the format; NaN gives 0x7fff."""
    where = {
        float(value): int(pattern)
        for pattern, value in zip(PATTERNS, VALUES[name], strict=True)
        if value == value and value != 0
    }
    zeros = {1.0: 0, -1.0: 0x8000}
    found = [
        0x7FFF if value != value else zeros[float(np.copysign(1, value))] if value == 0 else where[float(value)]
        for value in values
    ]
    return np.array(found, np.uint16)


@pytest.mark.parametrize("name", ["half", "bf16"])
def test_every_pattern_widens_to_its_number(name: str) -> None:
    result = np.empty(65536, np.float32)
    run(HALF, f"{name}_widen", (PATTERNS, result, 65536))
    np.testing.assert_array_equal(result, VALUES[name].astype(np.float32))
    assert np.signbit(result[0x8000])


@pytest.mark.parametrize("name", ["half", "bf16"])
@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_numbers_round_to_the_nearest_pattern_ties_to_even(name: str, source: Any) -> None:
    # Every pattern, the middle above it, and the numbers next to that middle: rounding is decided nowhere else.
    finite = FINITE[name]
    middles = ((finite[1:] + finite[:-1]) / 2).astype(source)
    x = np.concatenate([finite.astype(source), middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
    with np.errstate(over="ignore"):
        extremes = np.array([np.inf, np.nan, -0.0, finite[-1] * 1.001, finite[-1] * 1.01, np.finfo(source).max, 1e-40], source)
    x = np.concatenate([x, -x, extremes])
    result = np.empty(len(x), np.uint16)
    run(HALF, f"{name}_narrow" + ("_double" if source is np.float64 else ""), (x, result, len(x)))

    wide = x.astype(np.float64)
    upper = np.clip(np.searchsorted(finite, wide), 1, len(finite) - 1)
    low, high = finite[upper - 1], finite[upper]
    middle = (low + high) / 2  # exact: both have few bits
    even_low = bits_of(low, name) % 2 == 0
    expected = np.where((wide < middle) | ((wide == middle) & even_low), low, high)
    beyond = finite[-1] + (finite[-1] - finite[-2]) / 2  # rounds to infinity: the greatest number is odd
    expected = np.where(np.abs(wide) >= beyond, np.copysign(np.inf, wide), expected)
    expected = np.where(expected == 0, np.copysign(0.0, wide), expected)
    expected = np.where(np.isnan(wide), np.nan, expected)
    np.testing.assert_array_equal(result, bits_of(expected, name))


@pytest.mark.parametrize("name", ["half", "bf16"])
def test_arithmetic_rounds_once(name: str, rng: np.random.Generator) -> None:
    count = 1500
    finite = PATTERNS[np.isfinite(VALUES[name])]
    a, b, c = (rng.choice(finite, count) for _ in range(3))
    # Sums whose terms are near one another in size decide the last bit more often than any two numbers do.
    b[: count // 2] = np.clip(a[: count // 2] & 0x7FFF, 0x100, 0x7000) + rng.integers(-0x80, 0x80, count // 2)
    x, y, z = (VALUES[name][patterns] for patterns in (a, b, c))
    results = {}
    for operation in ("add", "subtract", "multiply", "divide"):
        results[operation] = np.empty(count, np.float32)
        run(HALF, f"{name}_{operation}", (a, b, results[operation], count))
    fused_patterns = np.empty(count, np.uint16)
    instantiation = f"fused<{TYPES[name]}>"
    kernel = module(HALF, "fast", *TEMPLATES).get_function(instantiation)
    kernel((1,), (32,), (np.stack([a, b, c]), fused_patterns, count))
    fused = VALUES[name][fused_patterns]
    exact = [tuple(map(Fraction, map(float, numbers))) for numbers in zip(x, y, z, strict=True)]
    expected = {
        "add": [p + q for p, q, _ in exact],
        "subtract": [p - q for p, q, _ in exact],
        "multiply": [p * q for p, q, _ in exact],
        "divide": [p / q if q else None for p, q, _ in exact],
    }
    for operation, numbers in expected.items():
        for i, number in enumerate(numbers):
            if number is not None:
                assert float(results[operation][i]) == rounded(number, name), (operation, x[i], y[i])
    for i, (p, q, r) in enumerate(exact):
        assert float(fused[i]) == rounded(p * q + r, name), (x[i], y[i], z[i])


@pytest.mark.parametrize("name", ["half", "bf16"])
def test_comparisons(name: str) -> None:
    some = np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0x3F80, 0x7BFF, 0x7C00, 0x7F80, 0xFF80, 0xFC00, 0x7FFF, 0xFFFF], np.uint16)
    a, b = (pair.ravel() for pair in np.meshgrid(some, some))
    x, y = VALUES[name][a], VALUES[name][b]
    for operation, expected in {"less": x < y, "equal": x == y, "at_least": x >= y, "differ": x != y}.items():
        result = np.empty(len(a), bool)
        run(HALF, f"{name}_{operation}", (a, b, result, len(a)))
        np.testing.assert_array_equal(result, expected)
    result = np.empty((3, len(a)), np.uint16)
    kernel = module(HALF, "fast", *TEMPLATES).get_function(f"extrema<{TYPES[name]}>")
    kernel((1,), (32,), (np.stack([a, b]), result, len(a)))
    np.testing.assert_array_equal(VALUES[name][result], [np.fmin(x, y), np.fmax(x, y), np.maximum(x, y)])


def test_functions_of_half() -> None:
    values = VALUES["half"]
    finite = np.isfinite(values)

    def mapped(name: str, dtype: Any) -> Any:
        result = np.empty(65536, dtype)
        run(HALF, f"half_{name}", (PATTERNS, result, 65536))
        return result

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(mapped("isnan", bool), np.isnan(values))
        np.testing.assert_array_equal(mapped("isinf", np.int32), np.where(np.isinf(values), np.sign(values), 0))
        np.testing.assert_array_equal(mapped("truncate", np.int32)[finite], np.trunc(values[finite]))
        np.testing.assert_array_equal(mapped("round", np.int32)[finite], np.rint(values[finite]))
        np.testing.assert_array_equal(mapped("negate", np.float16).view(np.uint16), PATTERNS ^ 0x8000)
        np.testing.assert_array_equal(mapped("abs", np.float16).view(np.uint16), PATTERNS & 0x7FFF)
        np.testing.assert_array_equal(mapped("sqrt", np.float16), np.sqrt(values).astype(np.float16))
        np.testing.assert_array_equal(mapped("exp", np.float16), np.exp(values).astype(np.float16))
        np.testing.assert_array_equal(mapped("ceil", np.float16), np.ceil(values).astype(np.float16))


def test_pairs_of_half_and_mixed_expressions() -> None:
    a, b = np.array([1.5, -2, 0.25, 8], np.float16), np.array([4, 3], np.float16)
    y, wide = np.zeros(12, np.float16), np.zeros(4, np.float32)
    run(HALF, "pairs", (a, b, y, wide), block=1)
    np.testing.assert_array_equal(y, [5.5, 1, 6, -6, 6.25, 2, -2, 4, 1.5, -2.5, -2.5, -5])
    np.testing.assert_array_equal(wide, [1.5, -2, 3.5, 1])


def test_halves_by_value_and_in_atomics() -> None:
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    y = np.zeros(2, np.float32)
    run(HALF, "by_value", (np.float16(1.5), bfloat16.type(-3), y), block=1)
    np.testing.assert_array_equal(y, [1.5, -3])
    h, b, two = np.zeros(1, np.float16), np.zeros(1, bfloat16), np.zeros(2, np.float16)
    run(HALF, "sums", (h, b, two), grid=3)
    assert (float(h[0]), float(b[0]), two.tolist()) == (48, 192, [96, 192])


# ---- warps and blocks ------------------------------------------------------------------------------------------------

WARP = r"""
extern "C" __global__ void shuffles(const int* x, int* y, int width, int amount) {
    int i = threadIdx.x, n = blockDim.x, v = x[i];
    y[i] = __shfl_sync(0xffffffffu, v, amount, width);
    y[n + i] = __shfl_up_sync(0xffffffffu, v, amount, width);
    y[2 * n + i] = __shfl_down_sync(0xffffffffu, v, amount, width);
    y[3 * n + i] = __shfl_xor_sync(0xffffffffu, v, amount, width);
}
extern "C" __global__ void wide_shuffle(const double* x, double* y, long long* z) {
    y[threadIdx.x] = __shfl_down_sync(~0u, x[threadIdx.x], 1);
    z[threadIdx.x] = __shfl_xor_sync(~0u, (long long)threadIdx.x << 40, 1);
}
extern "C" __global__ void votes(const int* x, unsigned* y) {
    int i = threadIdx.x, v = x[i];
    unsigned* row = y + i * 16;
    row[0] = __ballot_sync(~0u, v > 3);
    row[1] = __any_sync(~0u, v > 3);
    row[2] = __all_sync(~0u, v > 3);
    row[3] = __reduce_add_sync(~0u, (unsigned)v);
    row[4] = __reduce_max_sync(~0u, (unsigned)v);
    row[5] = __reduce_min_sync(~0u, (unsigned)v);
    row[6] = __reduce_and_sync(~0u, (unsigned)v);
    row[7] = __reduce_or_sync(~0u, (unsigned)v);
    row[8] = __reduce_xor_sync(~0u, (unsigned)v);
    row[9] = __match_any_sync(~0u, v);
    int all;
    row[10] = __match_all_sync(~0u, v > -1, &all);
    row[11] = all;
    row[12] = (unsigned)__reduce_min_sync(~0u, -v);
    row[13] = (unsigned)__reduce_add_sync(~0u, -v);
}
extern "C" __global__ void halves_of_a_warp(int* y) {
    int lane = threadIdx.x;
    unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    int v = lane;
    if (lane < 16) v += __shfl_xor_sync(mask, v, 1);  // one collective more than the other half
    v += __shfl_xor_sync(mask, v, 8);
    __syncwarp();
    y[lane] = v + __shfl_xor_sync(~0u, v, 16);
}
extern "C" __global__ void block_votes(const int* x, int* y) {
    int i = threadIdx.x;
    y[i * 3] = __syncthreads_count(x[i]);
    y[i * 3 + 1] = __syncthreads_and(x[i]);
    y[i * 3 + 2] = __syncthreads_or(x[i]);
}
extern "C" __global__ void where_am_i(int* y) {
    int n = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int size = blockDim.x * blockDim.y * blockDim.z;
    y[n * size + t] = n * 1000 + t + warpSize - 32;
}
extern "C" __global__ void reversed(float* x) {
    extern __shared__ float all[];
    all[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    x[blockIdx.x * blockDim.x + threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [32, 16, 8, 1])
@pytest.mark.parametrize("amount", [0, 1, 5, 17, 31])
def test_shuffles(mode: str, width: int, amount: int) -> None:
    n = 64
    x = np.arange(100, 100 + n, dtype=np.int32)
    y = np.zeros((4, n), np.int32)
    run(WARP, "shuffles", (x, y, width, amount), block=n, mode=mode)
    for i in range(n):
        warp, lane = divmod(i, 32)
        segment, place = divmod(lane, width)
        first = warp * 32 + segment * width
        assert y[0, i] == x[first + amount % width]
        assert y[1, i] == (x[i - amount] if place - amount >= 0 else x[i])
        assert y[2, i] == (x[i + amount] if place + amount < width else x[i])
        partner = lane ^ amount
        assert y[3, i] == (x[warp * 32 + partner] if partner // width <= segment else x[i])


@pytest.mark.parametrize("mode", MODES)
def test_votes_matches_and_reductions(mode: str) -> None:
    x = np.arange(32, dtype=np.int32) % 7
    y = np.zeros((32, 16), np.uint32)
    run(WARP, "votes", (x, y), mode=mode)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    assert (y[:, 0] == bits[x > 3].sum()).all()
    expected = [1, 0, x.sum(), 6, 0, 0, 7, np.bitwise_xor.reduce(x)]
    np.testing.assert_array_equal(y[:, 1:9], np.tile(np.array(expected, np.uint32), (32, 1)))
    np.testing.assert_array_equal(y[:, 9], [bits[x == value].sum() for value in x])
    assert (y[:, 10] == 0xFFFFFFFF).all()
    assert (y[:, 11] == 1).all()
    np.testing.assert_array_equal(y[:, 12:14].astype(np.int32), np.tile([-6, -int(x.sum())], (32, 1)))
    values = np.random.default_rng(0).standard_normal(32)
    doubles, longs = np.zeros(32), np.zeros(32, np.int64)
    run(WARP, "wide_shuffle", (values, doubles, longs), mode=mode)
    np.testing.assert_array_equal(doubles, [*values[1:], values[-1]])
    np.testing.assert_array_equal(longs, (np.arange(32) ^ 1) << 40)


@pytest.mark.parametrize("mode", MODES)
def test_parts_of_a_warp_may_take_different_numbers_of_collectives(mode: str) -> None:
    y = np.zeros(32, np.int32)
    run(WARP, "halves_of_a_warp", (y,), mode=mode)
    v = np.arange(32)
    v[:16] += v[:16] ^ 1
    v = v + v[np.arange(32) ^ 8]
    np.testing.assert_array_equal(y, v + v[np.arange(32) ^ 16])


@pytest.mark.parametrize("mode", MODES)
def test_votes_of_a_block(mode: str) -> None:
    for x in (np.ones(70, np.int32), np.zeros(70, np.int32), (np.arange(70, dtype=np.int32) % 3) * 5):
        y = np.zeros((70, 3), np.int32)
        run(WARP, "block_votes", (x, y), block=70, mode=mode)
        np.testing.assert_array_equal(y, np.tile([np.count_nonzero(x), x.all(), x.any()], (70, 1)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_indices_and_orders(mode: str, order: str) -> None:
    kernel = module(WARP, mode).get_function("where_am_i")
    kernel.order, kernel.seed = order, 7
    y = np.full(2 * 3 * 2 * 30, -1, np.int32)
    kernel((2, 3, 2), (5, 3, 2), (y,))
    np.testing.assert_array_equal(y, [n * 1000 + t for n in range(12) for t in range(30)])
    x = np.arange(256, dtype=np.float32)
    kernel = module(WARP, mode).get_function("reversed")
    kernel.order, kernel.seed = order, 3
    kernel((4,), (64,), (x,), shared_mem=256)
    np.testing.assert_array_equal(x, np.arange(256).reshape(4, 64)[:, ::-1].ravel())


# ---- atomics ---------------------------------------------------------------------------------------------------------

ATOMICS = r"""
extern "C" __global__ void atomics(int* i, unsigned* u, float* f, double* d, unsigned long long* l, unsigned short* s) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&i[0], 1); atomicSub(&i[1], 2); atomicMax(&i[2], t - 50); atomicMin(&i[3], 50 - t);
    atomicAnd(&i[4], ~(1 << (t % 4))); atomicOr(&i[5], 1 << (t % 8)); atomicXor(&i[6], t); atomicExch(&i[7], 9);
    atomicAdd(&u[0], 3u); atomicMax(&u[1], (unsigned)t); atomicMin(&u[2], (unsigned)t);
    atomicInc(&u[3], 4u); atomicDec(&u[4], 4u);
    atomicAdd(&f[0], 0.5f); atomicAdd(&d[0], 0.25); atomicAdd(&l[0], 1ull << 33); atomicMax(&l[1], (unsigned long long)t << 40);
    atomicExch(&f[1], 2.5f);
    for (;;) {
        int old = i[8 + 0 * t] * 0 + atomicAdd(&i[8], 0);
        if (atomicCAS(&i[8], old, old + 1) == old) break;
    }
    for (unsigned short old = 0;;) {
        unsigned short now = atomicCAS(&s[0], old, (unsigned short)(old + 1));
        if (now == old) break;
        old = now;
    }
}
extern "C" __global__ void overflow(int* x) { atomicAdd(x, 1); }
extern "C" __global__ void lock(int* mutex, int* counter) {
    for (bool done = false; !done;) {
        if (atomicCAS(mutex, 0, 1) == 0) {
            atomicExch(counter, atomicAdd(counter, 0) + 1);
            __syncwarp(1u << (threadIdx.x & 31));  // others run while the lock is held
            __nanosleep(10);
            atomicExch(mutex, 0);
            done = true;
        }
    }
}
extern "C" __global__ void never(int* flag) { while (atomicAdd(flag, 0) == 0) {} }
"""


def test_atomics() -> None:
    i = np.array([0, 0, -99, 99, 0xFF, 0, 0, 0, 0], np.int32)
    u = np.array([0, 0, 99, 0, 0], np.uint32)
    f, d, l, s = np.zeros(2, np.float32), np.zeros(1), np.zeros(2, np.uint64), np.zeros(1, np.uint16)  # noqa: E741
    run(ATOMICS, "atomics", (i, u, f, d, l, s), grid=3, block=34)
    t = np.arange(102)
    assert i.tolist() == [102, -204, 51, -51, 0xF0, 0xFF, np.bitwise_xor.reduce(t), 9, 102]
    assert u[:3].tolist() == [306, 101, 0]
    assert u[3:].tolist() == [102 % 5, -102 % 5]
    assert (f.tolist(), d[0], l.tolist(), s[0]) == ([51, 2.5], 25.5, [102 << 33, 101 << 40], 102)
    x = np.array([2**31 - 1], np.int32)
    run(ATOMICS, "overflow", (x,), block=1, mode="check")
    assert x[0] == -(2**31)


def test_threads_that_spin_on_atomics_let_others_run() -> None:
    mutex, counter = np.zeros(1, np.int32), np.zeros(1, np.int32)
    run(ATOMICS, "lock", (mutex, counter), grid=2, block=40)
    assert (mutex[0], counter[0]) == (0, 80)
    with pytest.raises(cudasim.KernelError, match="nothing changes what they wait for") as caught:
        run(ATOMICS, "never", (mutex,), block=1)
    assert caught.value.kind == "deadlock"


# ---- functions -------------------------------------------------------------------------------------------------------

MATH = r"""
#define F(name, T, ...) extern "C" __global__ void name(const T* x, T* y, int n) {   \
    for (int i = threadIdx.x; i < n; i += blockDim.x) { const T v = x[i]; T* r = y + i * 16; __VA_ARGS__ } }
F(floats, float,
  r[0] = expf(v); r[1] = logf(fabsf(v)); r[2] = rsqrtf(fabsf(v)); r[3] = fmaf(v, v, 1.0f); r[4] = fmaxf(v, 0.5f);
  r[5] = max(v, 0.5f); r[6] = min(v, 0.5f); r[7] = __fdividef(v, 3.0f); r[8] = sqrt(fabs(v)); r[9] = tanhf(v);
  r[10] = erff(v); r[11] = pow(fabsf(v), 2.5f); r[12] = roundf(v); r[13] = __frcp_rn(v); r[14] = copysignf(2.0f, v);
  r[15] = fmodf(v, 0.75f);)
F(doubles, double,
  r[0] = exp(v); r[1] = log(fabs(v)); r[2] = rsqrt(fabs(v)); r[3] = fma(v, v, 1.0); r[4] = fmax(v, 0.5); r[5] = max(v, 0.5);
  r[6] = min(v, 0.5); r[7] = cbrt(v); r[8] = sqrt(fabs(v)); r[9] = tanh(v); r[10] = erf(v); r[11] = pow(fabs(v), 2.5);
  r[12] = rint(v); r[13] = __drcp_rn(v); r[14] = hypot(v, 1.0); r[15] = atan2(v, 2.0);)
extern "C" __global__ void classes(const float* x, int* y) {
    int i = threadIdx.x;
    y[4 * i] = isnan(x[i]); y[4 * i + 1] = isinf(x[i]); y[4 * i + 2] = isfinite(x[i]); y[4 * i + 3] = signbit(x[i]);
}
extern "C" __global__ void conversions(const float* x, int* y) {
    int i = threadIdx.x; int* r = y + i * 6;
    r[0] = __float2int_rn(x[i]); r[1] = __float2int_rz(x[i]); r[2] = __float2int_ru(x[i]); r[3] = __float2int_rd(x[i]);
    r[4] = (int)__float2uint_rn(x[i]); r[5] = __float_as_int(x[i]);
}
extern "C" __global__ void bits(const unsigned* x, unsigned* y) {
    int i = threadIdx.x; unsigned v = x[i], *r = y + i * 16;
    r[0] = __popc(v); r[1] = __clz((int)v); r[2] = __ffs((int)v); r[3] = __brev(v); r[4] = __umulhi(v, 0x9e3779b9u);
    r[5] = (unsigned)__mulhi((int)v, -77777777); r[6] = __byte_perm(v, 0x89abcdefu, 0x0527);
    r[7] = __funnelshift_l(v, 0x12345678u, 7);
    r[8] = __popcll((unsigned long long)v << 20 | v); r[9] = __clzll((long long)v); r[10] = __ffsll((long long)v << 9);
    r[11] = (unsigned)(__brevll(v) >> 32); r[12] = (unsigned)__umul64hi((unsigned long long)v << 32, 1ull << 33);
    r[13] = __usad(v, 1000u, 5u); r[14] = (unsigned)__dp4a((int)v, 0x01ff7f80, 10); r[15] = __float_as_uint(__uint_as_float(v));
}
"""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_of_numbers(dtype: Any) -> None:
    x = np.array([-3.5, -1.25, -0.5, -1e-3, 0.3, 0.5, 0.75, 1.0, 2.5, 7.25], dtype)
    y = np.zeros((len(x), 16), dtype)
    run(MATH, "floats" if dtype is np.float32 else "doubles", (x, y, len(x)))
    v = x.astype(np.float64)
    size = np.abs(v)
    erf = np.array([math.erf(value) for value in v])
    common = [np.exp(v), np.log(size), 1 / np.sqrt(size), v * v + 1, np.fmax(v, 0.5), np.fmax(v, 0.5), np.fmin(v, 0.5)]
    if dtype is np.float32:
        away = np.sign(v) * np.floor(size + 0.5)
        rest = [v / 3, np.sqrt(size), np.tanh(v), erf, size**2.5, away, 1 / v, np.copysign(2, v), np.fmod(v, 0.75)]
    else:
        rest = [np.cbrt(v), np.sqrt(size), np.tanh(v), erf, size**2.5, np.rint(v), 1 / v, np.hypot(v, 1), np.arctan2(v, 2)]
    np.testing.assert_allclose(y, np.stack([*common, *rest], 1), rtol=4 * np.finfo(dtype).eps)


def test_maximum_prefers_a_number_to_nan() -> None:
    y = np.zeros((1, 16), np.float32)
    run(MATH, "floats", (np.array([np.nan], np.float32), y, 1))
    assert y[0, 4:7].tolist() == [0.5, 0.5, 0.5]


def test_classes_and_conversions() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1.5, 2.5, -1.5, 3e9, -3e9, 5e9], np.float32)
    y = np.zeros((len(x), 4), np.int32)
    run(MATH, "classes", (x, y), block=len(x))
    np.testing.assert_array_equal(y.astype(bool), np.stack([np.isnan(x), np.isinf(x), np.isfinite(x), np.signbit(x)], 1))
    y = np.zeros((len(x), 6), np.int32)
    run(MATH, "conversions", (x, y), block=len(x))
    wide = np.nan_to_num(x.astype(float), posinf=1e300, neginf=-1e300)
    for column, rounding in enumerate((np.rint, np.trunc, np.ceil, np.floor)):
        np.testing.assert_array_equal(y[:, column], np.clip(rounding(wide), -(2**31), 2**31 - 1).astype(np.int64))
    np.testing.assert_array_equal(y[:, 4].view(np.uint32), np.clip(np.rint(wide), 0, 2**32 - 1).astype(np.uint64))
    np.testing.assert_array_equal(y[:, 5], x.view(np.int32))


def test_bits() -> None:
    x = np.array([0, 1, 0x80000000, 0xFFFFFFFF, 0x12345678, 0xDEADBEEF, 0x7F800001], np.uint32)
    y = np.zeros((len(x), 16), np.uint32)
    run(MATH, "bits", (x, y), block=len(x))

    def signed(value: int, width: int = 32) -> int:
        return value - (1 << width) if value >> (width - 1) else value

    for value, row in zip(map(int, x), y.tolist(), strict=True):
        low_bit = (value & -value).bit_length()
        chosen = [[value.to_bytes(4, "little"), (0x89ABCDEF).to_bytes(4, "little")][k >= 4][k % 4] for k in (7, 2, 5, 0)]
        dots = sum(signed(value >> 8 * k & 255, 8) * signed(0x01FF7F80 >> 8 * k & 255, 8) for k in range(4))
        expected = [
            value.bit_count(),
            32 - value.bit_length(),
            low_bit,
            int(f"{value:032b}"[::-1], 2),
            value * 0x9E3779B9 >> 32,
            signed(value) * -77777777 >> 32,
            int.from_bytes(bytes(chosen), "little"),
            (0x12345678 << 32 | value) << 7 >> 32,
            (value << 20 | value).bit_count(),
            64 - value.bit_length(),
            low_bit + 9 if value else 0,
            int(f"{value:064b}"[::-1], 2) >> 32,
            value << 65 >> 64,
            abs(value - 1000) + 5,
            dots + 10,
            value,
        ]
        assert row == [number & 0xFFFFFFFF for number in expected], hex(value)


# ---- declarations ----------------------------------------------------------------------------------------------------

DECLARATIONS = r"""
#include <math.h>
#include <cassert>
__constant__ float table[3] = {1.5f, 2.5f, 3.5f};
__device__ int counter = 5;
struct Pair { float a; int b; };
namespace outer { template <class T, int N> struct Box { T at[N]; }; }
__device__ __noinline__ float helper(float x) { return std::sqrt(x) + 1; }
template <class T> __device__ __forceinline__ T* scratch() { __shared__ T kept[4]; return kept; }
enum { ROWS = 3 };
#define TILE(name) __shared__ int name[4]; \
    name[0] = 7
#define LOCAL_MEMORY __shared__ __align__(32)
template <class T, int N> __global__ void __launch_bounds__(64, 2) declared(T* y, int* marks) {
    __shared__ T one, other[N], wide[N << 1][(N > 2) ? 3 : 1];   // several, with an operator in a size
    __shared__ __align__(64) float aligned[5];
    alignas(128) __shared__ double more_aligned[2];
    volatile __shared__ int flag;
    static __shared__ unsigned long long words[2];
    __shared__ Pair pairs[2];
    __shared__ outer::Box<T, 2> box, boxes[2];
    __shared__ struct { T x[2]; int y; } unnamed;
    __shared__ union Either { float f; int i; } either;
    __shared__ T *pointers[2];
    __shared__
        float
        over_lines[ROWS][  /* a comment; with a semicolon */
            4];
    TILE(tile); TILE(another);
    LOCAL_MEMORY float behind_a_macro[2], and_another[1];
    behind_a_macro[1] = tile[0] + another[0]; and_another[0] = 0;
    extern __shared__ __align__(16) unsigned char raw[];
    assert(blockDim.x == 1);
    one = T(1); other[N - 1] = T(2); wide[2 * N - 1][0] = T(3);
    aligned[4] = 4; more_aligned[1] = 5; flag = 6; words[1] = 1ull << 40; pairs[1].b = 8; pairs[0] = {9, 9};
    box.at[1] = T(10); boxes[1].at[0] = T(11); unnamed.x[1] = T(12); unnamed.y = 1; either.f = 1.0f;
    pointers[1] = &one; over_lines[2][3] = 13;
    float* dynamic = reinterpret_cast<float*>(raw); dynamic[3] = 14;
    scratch<T>()[3] = T(15); scratch<float>()[3] = 16;
    y[0] = one; y[1] = other[N - 1]; y[2] = wide[2 * N - 1][0]; y[3] = T(aligned[4]); y[4] = T(more_aligned[1]); y[5] = T(flag);
    y[6] = T(words[1] >> 40); y[7] = T(pairs[1].b + pairs[0].a); y[8] = box.at[1] + boxes[1].at[0]; y[9] = unnamed.x[1];
    y[10] = T(either.i >> 20); y[11] = *pointers[1]; y[12] = T(over_lines[2][3]);
    y[13] = T(behind_a_macro[1] + and_another[0]); y[14] = T(dynamic[3]);
    y[15] = scratch<T>()[3]; y[16] = T(table[1]); y[17] = T(counter); y[18] = T(helper(9)); y[19] = T(abs(-4.5f));
    marks[0] = sizeof(wide) == sizeof(T) * N * 2 * (N > 2 ? 3 : 1);
    marks[1] = (unsigned long long)aligned % 64 == 0; marks[2] = (unsigned long long)more_aligned % 128 == 0;
    marks[3] = (unsigned long long)raw % 128 == 0; marks[4] = __LINE__;
    marks[5] = sizeof(float4) == 16 && alignof(float4) == 16 && sizeof(float3) == 12 && alignof(double2) == 16
        && alignof(longlong2) == 16;
    const float4 v = make_float4(1, 2, 3, 4); const dim3 d(2, 3);
    marks[6] = v.w == 4 && d.z == 1 && make_uint3(1, 2, 3).z == 3;
}
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("type_name", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_declarations(mode: str, type_name: str, dtype: Any) -> None:
    name = f"declared<{type_name}, 3>"
    y, marks = np.zeros(20, dtype), np.zeros(7, np.int32)
    module(DECLARATIONS, mode, name).get_function(name)((1,), (1,), (y, marks), shared_mem=64)
    # The scratch of float is the scratch of T where T is float: one variable.
    kept = 16 if type_name == "float" else 15
    one = np.float32(1).view(np.int32) >> 20
    np.testing.assert_array_equal(y, [1, 2, 3, 4, 5, 6, 1, 17, 21, 12, one, 1, 13, 14, 14, kept, 2.5, 5, 4, 4.5])
    assert marks[[0, 1, 2, 3, 5, 6]].tolist() == [1] * 6
    line = next(i for i, text in enumerate(DECLARATIONS.splitlines(), 1) if "__LINE__" in text)
    assert marks[4] == line  # what the translation inserts moves no line


@pytest.mark.parametrize(
    ("declaration", "why"),
    [
        ("__shared__ float x = 3;", "initial value"),
        ("__shared__ float (*x)[3];", "is not understood"),
        ("extern __shared__ float x;", "must be an array of open size"),
        ("__shared__ float x[3]", "a semicolon is missing"),
        ("SHARED(float (*x)[3]);", "is not understood"),
    ],
)
def test_declarations_that_are_not_understood(declaration: str, why: str) -> None:
    code = (
        "#define SHARED(declaration) __shared__ declaration\n" + 'extern "C" __global__ void f() {\n    ' + declaration + "\n}"
    )
    with pytest.raises(cudasim.CompileError, match=why) as caught:
        cudasim.Module(code=code, filename="some.cu").compile()
    assert "some.cu:3" in str(caught.value)


def test_shared_variable_outside_of_a_function() -> None:
    code = 'namespace n {\n__shared__ float x[3];\n}\nextern "C" __global__ void f() {}'
    with pytest.raises(cudasim.CompileError, match=r"kernel\.cu:2: a __shared__ variable is declared outside of a function"):
        cudasim.Module(code=code).compile()


def test_shared_in_comments_and_strings_is_left_alone() -> None:
    code = """extern "C" __global__ void f(int* y) {
    // __shared__ is a word
    const char* text = "__shared__ float x[";  /* __shared__ */
    y[0] = text[0] == '_';
}"""
    y = np.zeros(1, np.int32)
    run(code, "f", (y,), block=1)
    assert y[0] == 1


# ---- tensor cores and asynchronous copies ----------------------------------------------------------------------------

WMMA = r"""
#include <mma.h>
using namespace nvcuda;
template <class T, class Sum, int M, int N, int K, class LayoutA, class LayoutB>
__global__ void product(const void* a_, const void* b_, Sum* c, int lda, int ldb, int ldc) {
    const T *a = static_cast<const T*>(a_), *b = static_cast<const T*>(b_);
    wmma::fragment<wmma::matrix_a, M, N, K, T, LayoutA> fa;
    wmma::fragment<wmma::matrix_b, M, N, K, T, LayoutB> fb;
    wmma::fragment<wmma::accumulator, M, N, K, Sum> sums;
    wmma::load_matrix_sync(sums, c, ldc, wmma::mem_row_major);
    wmma::load_matrix_sync(fa, a, lda);
    wmma::load_matrix_sync(fb, b, ldb);
    wmma::mma_sync(sums, fa, fb, sums);
    for (int i = 0; i < sums.num_elements; ++i) sums.x[i] = sums.x[i] * Sum(2.0f);
    wmma::store_matrix_sync(c, sums, ldc, wmma::mem_row_major);
}
extern "C" __global__ void product_tf32(const float* a, const float* b, float* c, bool rounded) {
    wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 8, float> sums;
    wmma::fill_fragment(sums, 0.0f);
    wmma::load_matrix_sync(fa, a, 8);
    wmma::load_matrix_sync(fb, b, 8);
    for (int i = 0; rounded && i < fa.num_elements; ++i) fa.x[i] = wmma::__float_to_tf32(fa.x[i]);
    for (int i = 0; rounded && i < fb.num_elements; ++i) fb.x[i] = wmma::__float_to_tf32(fb.x[i]);
    wmma::mma_sync(sums, fa, fb, sums);
    wmma::store_matrix_sync(c, sums, 16, wmma::mem_col_major);
}
"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (8, 32)])
@pytest.mark.parametrize(("number", "total"), [("half", "float"), ("half", "half"), ("__nv_bfloat16", "float")])
def test_tensor_cores(mode: str, shape: tuple[int, int], number: str, total: str, rng: np.random.Generator) -> None:
    if (number, total) != ("half", "float") and (mode, shape) == ("check", (8, 32)):
        pytest.skip("one of each is enough")
    m, n, k = *shape, 16
    a, b = rng.integers(-8, 8, (m, k + 8)), rng.integers(-8, 8, (n, k + 8))  # columns of b side by side
    format_name = "half" if number == "half" else "bf16"
    patterns = [bits_of(x.ravel().astype(float), format_name) for x in (a, b)]
    c = rng.integers(-8, 8, (m, n + 8)).astype(np.float32 if total == "float" else np.float16)
    expected = c.astype(float)
    expected[:, :n] = 2 * (c[:, :n].astype(float) + a[:, :k] @ b[:, :k].T)
    name = f"product<{number}, {total}, {m}, {n}, {k}, wmma::row_major, wmma::col_major>"
    module(WMMA, mode, name).get_function(name)((1,), (32,), (*patterns, c, k + 8, k + 8, n + 8))
    np.testing.assert_array_equal(c.astype(float), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rounded", [True, False])
def test_tf32_keeps_ten_bits(mode: str, rounded: bool, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((16, 8)).astype(np.float32), rng.standard_normal((16, 8)).astype(np.float32)
    c = np.zeros((16, 16), np.float32)
    run(WMMA, "product_tf32", (a, b, c, rounded), mode=mode)

    def cut(x: Any, half: float) -> Any:
        fraction, exponent = np.frexp(x.astype(float))
        scaled = fraction * 2**11
        return np.ldexp(np.sign(scaled) * np.floor(np.abs(scaled) + half), exponent - 11)

    right, wrong = (cut(a, half) @ cut(b, half).T for half in ((0.5, 0.0) if rounded else (0.0, 0.5)))
    np.testing.assert_allclose(c.T, right, rtol=1e-5, atol=1e-6)
    assert np.abs(c.T - wrong).max() > 1e-4  # what was not rounded is cut off
    assert np.abs(c.T - a.astype(float) @ b.astype(float).T).max() > 1e-5


PIPELINE = r"""
#include <cuda_pipeline.h>
extern "C" __global__ void staged(const float4* x, float4* y, int steps, int present) {
    __shared__ float4 stage[2][32];
    const int t = threadIdx.x;
    __pipeline_memcpy_async(&stage[0][t], &x[t], 16);
    __pipeline_commit();
    for (int i = 0; i < steps; ++i) {
        if (i + 1 < steps) {
            const float4* source = i + 1 < present ? &x[(i + 1) * 32 + t] : nullptr;  // never read where all of it is zeros
            __pipeline_memcpy_async(&stage[(i + 1) & 1][t], source, 16, i + 1 < present ? 4 : 16);
        }
        __pipeline_commit();
        __pipeline_wait_prior(1);
        __syncthreads();
        y[i * 32 + t] = stage[i & 1][31 - t];
        __syncthreads();
    }
}
extern "C" __global__ void too_early(const float* x, float* y) {
    __shared__ float stage[32];
    __pipeline_memcpy_async(&stage[threadIdx.x], &x[threadIdx.x], 4);
    __pipeline_commit();
    y[threadIdx.x] = stage[threadIdx.x];
    __pipeline_wait_prior(0);
}
"""


@pytest.mark.parametrize("mode", MODES)
def test_asynchronous_copies(mode: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 32, 4)).astype(np.float32)
    y = np.full((4, 32, 4), np.nan, np.float32)
    run(PIPELINE, "staged", (x, y, 4, 3), mode=mode)
    expected = np.concatenate([x[:, ::-1], np.zeros((1, 32, 4))])
    expected[1:3, :, 3] = 0  # the last 4 of their 16 bytes were asked to be zeros
    np.testing.assert_array_equal(y, expected)


def test_asynchronous_copies_land_at_the_wait() -> None:
    x, y = np.ones(32, np.float32), np.zeros(32, np.float32)
    run(PIPELINE, "too_early", (x, y))
    assert np.isnan(y).all()
    with pytest.raises(cudasim.KernelError) as caught:
        run(PIPELINE, "too_early", (x, y), mode="check")
    line = next(i for i, text in enumerate(PIPELINE.splitlines(), 1) if "y[threadIdx.x] = stage" in text)
    assert (caught.value.kind, caught.value.line) == ("uninitialised", line)


def test_printf_comes_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    code = 'extern "C" __global__ void f(int n) { printf("%d of %d\\n", threadIdx.x, n); }'
    run(code, "f", (3,), block=3)
    assert capfd.readouterr().out == "0 of 3\n1 of 3\n2 of 3\n"
