// The product of two matrices on CUDA cores: see dense.cuh.
#include "dense.cuh"

// One block at least on a multiprocessor: registers go before more blocks.
template <
    typename T, typename Out, typename Index, Order A_ORDER, Order B_ORDER, int A_WIDTH, int B_WIDTH, int ROWS, int COLUMNS, int DEPTH,
    int WARPS_M, int WARPS_N, int LANE_ROWS, int LANE_COLUMNS, int STAGES>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, 1)
    matmul(const T* __restrict__ a, const T* __restrict__ b, Out* __restrict__ out, const Dense shape) {
    using A = Operand<T, A_ORDER, ROWS, DEPTH, ROWS / WARPS_M / LANE_ROWS, LANE_ROWS>;
    using B = Operand<T, B_ORDER, COLUMNS, DEPTH, COLUMNS / WARPS_N / LANE_COLUMNS, LANE_COLUMNS>;
    matmul_tile<Tile<A, B, WARPS_M, WARPS_N>, Out, Index, A_WIDTH, B_WIDTH, STAGES>(a, b, out, shape);
}
