// The gradient of the weights and of the bias on tensor cores: see weight_gradient.cuh. Apart from weight_gradient.cu, for
// <mma.h> is not everywhere where the other headers of CUDA are.
#include "weight_gradient.cuh"
#include "tensor_tile.cuh"

// LANE_ROWS x LANE_COLUMNS is a fragment.
// One block at least on a multiprocessor: registers go before more blocks.
template <
    typename T, typename Out, typename Index, bool LAST, int X_WIDTH, int DY_WIDTH, int ROWS, int COLUMNS, int DEPTH, int WARPS_M,
    int WARPS_N, int LANE_ROWS, int LANE_COLUMNS, int STAGES>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, 1) weight_gradient_tensor(
    const T* __restrict__ x, const T* __restrict__ dy, Out* __restrict__ dw, T* __restrict__ db, const WeightGradient shape) {
    constexpr Order ORDER = LAST ? ALONG_ROWS : ALONG_DEPTH;
    using A = Operand<T, ORDER, ROWS, DEPTH, 1, LANE_ROWS>;
    using B = Operand<T, ORDER, COLUMNS, DEPTH, 1, LANE_COLUMNS>;
    weight_gradient_tile<TensorTile<A, B, WARPS_M, WARPS_N>, Out, Index, LAST, X_WIDTH, DY_WIDTH, STAGES>(x, dy, dw, db, shape);
}
