// The product of two tiles in shared memory on tensor cores: what Tile of tile.cuh is, from the same operands.
//
// A warp's part of the tile is cut into fragments of 16 x 16 sums. The 16-bit types are multiplied exactly and summed in
// float; float itself is rounded to TF32 (10 bits behind the point) before it is multiplied, which a user must ask for.
#include "tile.cuh"

#include <mma.h>

// What a fragment of numbers of type T is called, and how deep it is.
template <typename T> struct TensorNumber {
    using Type = T;
    static constexpr int DEPTH = 16;
};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // older cards have no TF32
template <> struct TensorNumber<float> {
    using Type = nvcuda::wmma::precision::tf32;
    static constexpr int DEPTH = 8;
};
#endif

template <Order ORDER, bool LEFT> struct FragmentOrder;
template <> struct FragmentOrder<ALONG_ROWS, true> { using Type = nvcuda::wmma::col_major; };
template <> struct FragmentOrder<ALONG_DEPTH, true> { using Type = nvcuda::wmma::row_major; };
template <> struct FragmentOrder<ALONG_ROWS, false> { using Type = nvcuda::wmma::row_major; };
template <> struct FragmentOrder<ALONG_DEPTH, false> { using Type = nvcuda::wmma::col_major; };

template <typename A_, typename B_, int WARPS_M_, int WARPS_N_>
struct TensorTile {
    using A = A_;
    using B = B_;
    using Number = typename A::Number;
    using Sum = float;
    static constexpr int ROWS = A::LENGTH, COLUMNS = B::LENGTH, DEPTH = A::DEPTH;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int WARP_ROWS = ROWS / WARPS_M, WARP_COLUMNS = COLUMNS / WARPS_N;
    static constexpr int FRAGMENT = 16, FRAGMENT_DEPTH = TensorNumber<Number>::DEPTH;
    static constexpr int FRAGMENTS_M = WARP_ROWS / FRAGMENT, FRAGMENTS_N = WARP_COLUMNS / FRAGMENT;
    static_assert(FRAGMENTS_M * FRAGMENT == WARP_ROWS && FRAGMENTS_N * FRAGMENT == WARP_COLUMNS, "whole fragments");
    static_assert(A::DEPTH == B::DEPTH && DEPTH % FRAGMENT_DEPTH == 0, "whole fragments along the depth");
    // The sums of a warp come out in slices of one row of fragments. Four more columns keep its rows in different banks.
    static constexpr int SLICES = FRAGMENTS_M, SLICE_ROWS = FRAGMENT, PITCH = WARP_COLUMNS + 4, STAGED = SLICE_ROWS * PITCH;

    template <typename Use, typename... Layout>
    using Fragment = nvcuda::wmma::fragment<Use, FRAGMENT, FRAGMENT, FRAGMENT_DEPTH, Layout...>;
    using Type = typename TensorNumber<Number>::Type;
    using Left = Fragment<nvcuda::wmma::matrix_a, Type, typename FragmentOrder<A::ORDER, true>::Type>;
    using Right = Fragment<nvcuda::wmma::matrix_b, Type, typename FragmentOrder<B::ORDER, false>::Type>;

    Fragment<nvcuda::wmma::accumulator, float> sums[FRAGMENTS_M][FRAGMENTS_N];
    int first_row, first_column;  // of this warp in the tile

    __device__ __forceinline__ TensorTile() {
        const int warp = threadIdx.x / 32;
        first_row = warp / WARPS_N * WARP_ROWS;
        first_column = warp % WARPS_N * WARP_COLUMNS;
#pragma unroll
        for (int i = 0; i < FRAGMENTS_M; ++i)
#pragma unroll
            for (int j = 0; j < FRAGMENTS_N; ++j) nvcuda::wmma::fill_fragment(sums[i][j], 0.0f);
    }

    // Adds the product of the two tiles in shared memory.
    __device__ __forceinline__ void multiply(const Number* a, const Number* b) {
#pragma unroll
        for (int k = 0; k < DEPTH; k += FRAGMENT_DEPTH) {
            Left left[FRAGMENTS_M];
#pragma unroll
            for (int i = 0; i < FRAGMENTS_M; ++i) fetch(left[i], a + A::offset(first_row + i * FRAGMENT, k), A::PITCH);
#pragma unroll
            for (int j = 0; j < FRAGMENTS_N; ++j) {
                Right right;
                fetch(right, b + B::offset(first_column + j * FRAGMENT, k), B::PITCH);
#pragma unroll
                for (int i = 0; i < FRAGMENTS_M; ++i) nvcuda::wmma::mma_sync(sums[i][j], left[i], right, sums[i][j]);
            }
        }
    }

    // Writes a slice into shared memory of the warp's own: SLICE_ROWS rows of WARP_COLUMNS numbers.
    __device__ __forceinline__ void stage(int slice, Sum* staged) const {
#pragma unroll
        for (int j = 0; j < FRAGMENTS_N; ++j)
            nvcuda::wmma::store_matrix_sync(staged + j * FRAGMENT, sums[slice][j], PITCH, nvcuda::wmma::mem_row_major);
    }

    // Which row of the tile a staged row is.
    __device__ __forceinline__ int row_of(int slice, int row) const { return first_row + slice * FRAGMENT + row; }

  private:
    template <typename F>
    __device__ static __forceinline__ void fetch(F& fragment, const Number* tile, int pitch) {
        nvcuda::wmma::load_matrix_sync(fragment, tile, pitch);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
        if constexpr (FRAGMENT_DEPTH == 8) {
#pragma unroll
            for (int i = 0; i < fragment.num_elements; ++i) fragment.x[i] = nvcuda::wmma::__float_to_tf32(fragment.x[i]);
        }
#endif
    }
};
