// nvcuda::wmma: matrix fragments of a warp. Which lane holds which element is as strange as on a card, on purpose.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

inline float __float_to_tf32(float x) {  // 10 bits of the fraction, rounded to nearest, ties away from zero
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) < 0x7f800000u) bits += 0x1000u;
    return __uint_as_float(bits & ~0x1fffu);
}

namespace detail {

template <class T> struct Storage {
    using type = T;
};
template <> struct Storage<precision::tf32> {
    using type = float;
};

template <class Use, int m, int n, int k> struct Shape;
template <int m, int n, int k> struct Shape<matrix_a, m, n, k> {
    static constexpr int rows = m, columns = k;
};
template <int m, int n, int k> struct Shape<matrix_b, m, n, k> {
    static constexpr int rows = k, columns = n;
};
template <int m, int n, int k> struct Shape<accumulator, m, n, k> {
    static constexpr int rows = m, columns = n;
};

template <class Use, int m, int n, int k, class T> constexpr bool exists() {
    constexpr bool sixteen = (m == 16 && n == 16 && k == 16) || (m == 32 && n == 8 && k == 16) || (m == 8 && n == 32 && k == 16);
    if (cudasim::is_same<T, precision::tf32>) return m == 16 && n == 16 && k == 8 && !cudasim::is_same<Use, accumulator>;
    if (cudasim::is_same<T, float>)
        return cudasim::is_same<Use, accumulator> && (sixteen || (m == 16 && n == 16 && k == 8));
    if (cudasim::is_same<T, __nv_bfloat16>) return sixteen && !cudasim::is_same<Use, accumulator>;
    return cudasim::is_same<T, __half> && sixteen;
}

}  // namespace detail

template <class Use, int m, int n, int k, class T, class Layout = void> struct fragment {
    static_assert(detail::exists<Use, m, n, k, T>(), "the simulator knows no such fragment: see the table of wmma");
    using element_type = T;
    using storage_element_type = typename detail::Storage<T>::type;
    static constexpr int rows = detail::Shape<Use, m, n, k>::rows, columns = detail::Shape<Use, m, n, k>::columns;
    static constexpr int num_elements = rows * columns / 32, num_storage_elements = num_elements;
    storage_element_type x[num_elements];

    // Position row * columns + column of element i of a lane; 37 has no common factor with the number of elements.
    static constexpr int position(int lane, int i) { return ((lane * num_elements + i) * 37 + 11) % (rows * columns); }
};

template <class Use, int m, int n, int k, class T, class Layout, class V>
inline void fill_fragment(fragment<Use, m, n, k, T, Layout>& f, const V& value) {
    for (auto& element : f.x) element = static_cast<typename detail::Storage<T>::type>(value);
}

namespace detail {

template <class Pointer> CUDASIM_UNCHECKED void begin(const Pointer* address, unsigned stride, cudasim::Operation operation,
                                                       cudasim::Location at) {
    cudasim::require_matrix_alignment(address, stride * sizeof(Pointer), at);
    cudasim::warp_collective(0xffffffffu, operation, at, nullptr);
}

template <class F, class P>
__attribute__((always_inline)) inline void load(F& f, const P* address, unsigned stride, bool by_rows, cudasim::Location at) {
    begin(address, stride, cudasim::kMatrixLoad, at);
    const int lane = cudasim::lane_index();
    for (int i = 0; i < F::num_elements; ++i) {
        const unsigned position = F::position(lane, i), row = position / F::columns, column = position % F::columns;
        f.x[i] = address[by_rows ? row * stride + column : column * stride + row];
    }
}

// What the tensor cores take of an element: of tf32, 10 bits of the fraction.
template <class T, class S> CUDASIM_UNCHECKED float input(const S& element) {
    const float x = static_cast<float>(element);
    if (!cudasim::is_same<T, precision::tf32>) return x;
    unsigned bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits &= ~0x1fffu;
    float cut;
    __builtin_memcpy(&cut, &bits, sizeof cut);
    return x == x ? cut : x;
}

// The last lane to arrive multiplies for all.
template <class FA, class FB, class FC, class FD, int m, int n, int k>
CUDASIM_UNCHECKED void finish_multiply(cudasim::Lane* const* lanes, unsigned) {
    float a[m * k], b[k * n], sums[m * n];
    for (int lane = 0; lane < 32; ++lane) {
        const FA& fa = *static_cast<const FA*>(lanes[lane]->operands[0]);
        const FB& fb = *static_cast<const FB*>(lanes[lane]->operands[1]);
        const FC& fc = *static_cast<const FC*>(lanes[lane]->operands[2]);
        for (int i = 0; i < FA::num_elements; ++i) a[FA::position(lane, i)] = input<typename FA::element_type>(fa.x[i]);
        for (int i = 0; i < FB::num_elements; ++i) b[FB::position(lane, i)] = input<typename FB::element_type>(fb.x[i]);
        for (int i = 0; i < FC::num_elements; ++i) sums[FC::position(lane, i)] = static_cast<float>(fc.x[i]);
    }
    for (int row = 0; row < m; ++row)
        for (int i = 0; i < k; ++i)
            for (int column = 0; column < n; ++column) sums[row * n + column] += a[row * k + i] * b[i * n + column];
    for (int lane = 0; lane < 32; ++lane) {
        FD& fd = *static_cast<FD*>(lanes[lane]->product);
        for (int i = 0; i < FD::num_elements; ++i)
            fd.x[i] = static_cast<typename FD::storage_element_type>(sums[FD::position(lane, i)]);
    }
}

}  // namespace detail

template <class Use, int m, int n, int k, class T, class Layout, class P>
__attribute__((always_inline)) inline void load_matrix_sync(
    fragment<Use, m, n, k, T, Layout>& f, const P* address, unsigned stride, CUDASIM_HERE) {
    detail::load(f, address, stride, cudasim::is_same<Layout, row_major>, at);
}
template <int m, int n, int k, class T, class P>
__attribute__((always_inline)) inline void load_matrix_sync(
    fragment<accumulator, m, n, k, T>& f, const P* address, unsigned stride, layout_t layout, CUDASIM_HERE) {
    detail::load(f, address, stride, layout == mem_row_major, at);
}
template <int m, int n, int k, class T, class P>
__attribute__((always_inline)) inline void store_matrix_sync(
    P* address, const fragment<accumulator, m, n, k, T>& f, unsigned stride, layout_t layout, CUDASIM_HERE) {
    using F = fragment<accumulator, m, n, k, T>;
    detail::begin(address, stride, cudasim::kMatrixStore, at);
    const int lane = cudasim::lane_index();
    for (int i = 0; i < F::num_elements; ++i) {
        const unsigned position = F::position(lane, i), row = position / F::columns, column = position % F::columns;
        address[layout == mem_row_major ? row * stride + column : column * stride + row] = f.x[i];
    }
}

template <int m, int n, int k, class D, class A, class LayoutA, class B, class LayoutB, class C>
CUDASIM_UNCHECKED void mma_sync(fragment<accumulator, m, n, k, D>& d, const fragment<matrix_a, m, n, k, A, LayoutA>& a,
                                const fragment<matrix_b, m, n, k, B, LayoutB>& b,
                                const fragment<accumulator, m, n, k, C>& c, CUDASIM_HERE) {
    static_assert(cudasim::is_same<A, B>, "both factors of mma_sync have the same type");
    cudasim::Lane& lane = cudasim::current_thread()->lane;
    lane.operands[0] = &a, lane.operands[1] = &b, lane.operands[2] = &c;
    lane.product = &d;
    using FA = fragment<matrix_a, m, n, k, A, LayoutA>;
    using FB = fragment<matrix_b, m, n, k, B, LayoutB>;
    using FC = fragment<accumulator, m, n, k, C>;
    using FD = fragment<accumulator, m, n, k, D>;
    cudasim::warp_collective(0xffffffffu, cudasim::kMatrixMultiply, at, detail::finish_multiply<FA, FB, FC, FD, m, n, k>);
}

}  // namespace wmma
}  // namespace nvcuda
