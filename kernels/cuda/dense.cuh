// The product of two matrices, out (M, N) = a (M, K) b (K, N), both of them as they lie in memory, transposed or not:
//
//   a  ALONG_DEPTH (M, K) or, transposed, ALONG_ROWS (K, M)      b  ALONG_ROWS (K, N) or, transposed, ALONG_DEPTH (N, K)
//
// Where the result is small and K long, K is split: blockIdx.y sums its share, and add_splits adds the shares in their order.
#include "product.cuh"

struct Dense {
    int rows, columns, column_tiles, steps;
    long long depth, a_pitch, b_pitch;
};
// steps: of one split. a_pitch, b_pitch: elements between the rows of a matrix, as it lies in memory.

// A block computes ROWS x COLUMNS entries of out, from the steps of its split. Grid: x = tile of rows, tile of columns, the
// latter fastest; y = split. out is (splits, M, N).
template <typename Product, typename Out, typename Index, int A_WIDTH, int B_WIDTH, int STAGES>
__device__ __forceinline__ void matmul_tile(
    const typename Product::Number* __restrict__ a, const typename Product::Number* __restrict__ b, Out* __restrict__ out,
    const Dense& shape) {
    using T = typename Product::Number;
    extern __shared__ __align__(128) unsigned char memory[];
    T* const shared = reinterpret_cast<T*>(memory);
    const int first_row = blockIdx.x / shape.column_tiles * Product::ROWS;
    const int first_column = blockIdx.x % shape.column_tiles * Product::COLUMNS;
    const Index most = Index(shape.steps) * Product::DEPTH, first_k = blockIdx.y * most, left = Index(shape.depth) - first_k;

    Product tile;
    MatrixSource<typename Product::A, Product::THREADS, A_WIDTH, Index> a_source(
        a, Index(shape.a_pitch), shape.rows, first_row, first_k);
    MatrixSource<typename Product::B, Product::THREADS, B_WIDTH, Index> b_source(
        b, Index(shape.b_pitch), shape.columns, first_column, first_k);
    sum_product<STAGES>(tile, shared, a_source, b_source, left < most ? left : most, [](const T*, const T*) {});

    out += Index(blockIdx.y) * shape.rows * shape.columns;
    each_sum(tile, shared, [&](int row, int column, accumulator_t<T> sum) {
        row += first_row;
        column += first_column;
        if (row < shape.rows && column < shape.columns) out[Index(row) * shape.columns + column] = narrow<Out>(sum);
    });
}
