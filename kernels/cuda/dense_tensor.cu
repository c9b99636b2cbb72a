// The product of two matrices on tensor cores: see dense.cuh. Apart from dense.cu, for <mma.h> is not everywhere where the
// other headers of CUDA are.
#include "dense.cuh"
#include "tensor_tile.cuh"

// LANE_ROWS x LANE_COLUMNS is a fragment.
// One block at least on a multiprocessor: registers go before more blocks.
template <
    typename T, typename Out, typename Index, Order A_ORDER, Order B_ORDER, int A_WIDTH, int B_WIDTH, int ROWS, int COLUMNS, int DEPTH,
    int WARPS_M, int WARPS_N, int LANE_ROWS, int LANE_COLUMNS, int STAGES>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, 1)
    matmul_tensor(const T* __restrict__ a, const T* __restrict__ b, Out* __restrict__ out, const Dense shape) {
    using A = Operand<T, A_ORDER, ROWS, DEPTH, 1, LANE_ROWS>;
    using B = Operand<T, B_ORDER, COLUMNS, DEPTH, 1, LANE_COLUMNS>;
    matmul_tile<TensorTile<A, B, WARPS_M, WARPS_N>, Out, Index, A_WIDTH, B_WIDTH, STAGES>(a, b, out, shape);
}
