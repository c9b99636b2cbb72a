// Convolution forward and back to its input on tensor cores. Apart from correlation.cu, for <mma.h> is not everywhere where the
// other headers of CUDA are.
#include "correlation.cuh"
#include "tensor_tile.cuh"

// LANE_ROWS x LANE_COLUMNS is a fragment.
template <typename T, typename Index, bool LAST, int WIDTH, int ROWS, int COLUMNS, int DEPTH, int WARPS_M, int WARPS_N,
          int LANE_ROWS, int LANE_COLUMNS, int STAGES, bool SPLIT>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, resident_blocks<T, Index, 32 * WARPS_M * WARPS_N, LAST, WIDTH, SPLIT>())
    correlate_tensor(const T* __restrict__ in, const T* __restrict__ packed, const T* __restrict__ bias,
                     written_t<T, SPLIT>* __restrict__ out, const Correlation problem) {
    using A = Operand<T, LAST ? ALONG_DEPTH : ALONG_ROWS, ROWS, DEPTH, 1, LANE_ROWS>;
    using B = Operand<T, ALONG_ROWS, COLUMNS, DEPTH, 1, LANE_COLUMNS>;
    correlate_tile<TensorTile<A, B, WARPS_M, WARPS_N>, Index, LAST, WIDTH, STAGES, SPLIT>(in, packed, bias, out, problem);
}
