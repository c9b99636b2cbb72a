// The gradient of the weights and of the bias on CUDA cores: see weight_gradient.cuh.
#include "weight_gradient.cuh"

// One block at least on a multiprocessor: registers go before more blocks.
template <
    typename T, typename Out, typename Index, bool LAST, int X_WIDTH, int DY_WIDTH, int ROWS, int COLUMNS, int DEPTH, int WARPS_M,
    int WARPS_N, int LANE_ROWS, int LANE_COLUMNS, int STAGES>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, 1) weight_gradient(
    const T* __restrict__ x, const T* __restrict__ dy, Out* __restrict__ dw, T* __restrict__ db, const WeightGradient shape) {
    constexpr Order ORDER = LAST ? ALONG_ROWS : ALONG_DEPTH;
    using A = Operand<T, ORDER, ROWS, DEPTH, ROWS / WARPS_M / LANE_ROWS, LANE_ROWS>;
    using B = Operand<T, ORDER, COLUMNS, DEPTH, COLUMNS / WARPS_N / LANE_COLUMNS, LANE_COLUMNS>;
    weight_gradient_tile<Tile<A, B, WARPS_M, WARPS_N>, Out, Index, LAST, X_WIDTH, DY_WIDTH, STAGES>(x, dy, dw, db, shape);
}
