// Convolution forward and back to its input: the implicit matrix product of correlation.cuh on CUDA cores, the kernel that
// packs the weights for it, the one that adds up sums that blocks shared, and the one that mends a gradient where weights are
// not finite.
#include "correlation.cuh"

template <typename T, typename Index, bool LAST, int WIDTH, int ROWS, int COLUMNS, int DEPTH, int WARPS_M, int WARPS_N,
          int LANE_ROWS, int LANE_COLUMNS, int STAGES, bool SPLIT>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, resident_blocks<T, Index, 32 * WARPS_M * WARPS_N, LAST, WIDTH, SPLIT>())
    correlate(const T* __restrict__ in, const T* __restrict__ packed, const T* __restrict__ bias,
              written_t<T, SPLIT>* __restrict__ out, const Correlation problem) {
    using A = Operand<T, LAST ? ALONG_DEPTH : ALONG_ROWS, ROWS, DEPTH, ROWS / WARPS_M / LANE_ROWS, LANE_ROWS>;
    using B = Operand<T, ALONG_ROWS, COLUMNS, DEPTH, COLUMNS / WARPS_N / LANE_COLUMNS, LANE_COLUMNS>;
    correlate_tile<Tile<A, B, WARPS_M, WARPS_N>, Index, LAST, WIDTH, STAGES, SPLIT>(in, packed, bias, out, problem);
}

// Which elements of a weight are neighbours, and what its axes are to a correlation.
struct Weights {
    long long groups, taps, channels, filters, packed_channels, packed_filters;  // of one group
    long long group, tap, channel, filter;  // elements of `w` from one to the next
    int look;                               // whether to look for weights that are not finite
};

// Packs a weight `w` into `packed`, (groups, taps, packed channels, packed filters) with zeros where there is no weight. A
// thread packs all taps of a channel of a filter, which are neighbours in channels_first; its warp writes neighbours. Raises
// `flag` where a weight is infinite or not a number: one word, the same from every thread.
template <typename T, typename Index>
__global__ void __launch_bounds__(256, 1)
    pack_weights(const T* __restrict__ w, T* __restrict__ packed, int* flag, const Weights weights) {
    const Index taps = Index(weights.taps), plane = Index(weights.packed_channels * weights.packed_filters);
    const Index size = Index(weights.groups) * plane;
    for (Index i = Index(blockIdx.x) * 256 + threadIdx.x; i < size; i += Index(gridDim.x) * 256) {
        const Index group = i / plane, place = i % plane;
        const Index channel = place / Index(weights.packed_filters), filter = place % Index(weights.packed_filters);
        const bool present = filter < weights.filters && channel < weights.channels;
        const Index from = group * Index(weights.group) + channel * Index(weights.channel) + filter * Index(weights.filter);
        for (Index tap = 0; tap < taps; ++tap) {
            const T value = present ? w[from + tap * Index(weights.tap)] : zero<T>();
            packed[(group * taps + tap) * plane + place] = value;
            const accumulator_t<T> difference = widen(value) - widen(value);  // not zero for infinity and NaN
            if (weights.look && difference != accumulator_t<T>(0)) atomicExch(flag, 1);
        }
    }
}

// Adds up what the blocks that share tiles gave, `sums` (splits, like out), in their order: the same bits at every run.
template <typename T, typename Index, bool LAST>
__global__ void __launch_bounds__(256, 1)
    add_correlation_splits(const accumulator_t<T>* __restrict__ sums, const T* __restrict__ bias, T* __restrict__ out,
                           const Correlation problem, const int splits) {
    const Index filters = Index(problem.groups * problem.filters), plane = Index(problem.out_plane);
    const Index size = Index(problem.batch) * filters * plane;
    for (Index at = Index(blockIdx.x) * 256 + threadIdx.x; at < size; at += Index(gridDim.x) * 256) {
        accumulator_t<T> sum = sums[at];
        for (int split = 1; split < splits; ++split) sum += sums[split * size + at];
        out[at] = finished<T>(sum, bias + (LAST ? at : at / plane) % filters, problem.bias, problem.relu);
    }
}

// Mends the gradient of the input where weights are not finite. The matrix product multiplies them by the zeros around dy, too:
// that gives NaN, but those zeros are gradients of nothing. So `flag` asks, which pack_weights raises, and every pixel is
// summed anew from real gradients alone: one thread a pixel and channel, in a fixed order. Without the flag it ends at once.
// dy is (N, F, OH, OW) or (N, OH, OW, F), w is (F, C/groups, KH, KW) or (KH, KW, C/groups, F), and dx is (N, C, H, W) or
// (N, H, W, C).
template <typename T, typename Index, bool LAST>
__global__ void __launch_bounds__(256, 1)
    correct_backward_input(const T* __restrict__ dy, const T* __restrict__ w, const int* __restrict__ flag, T* __restrict__ dx,
                           const Correlation problem, const Weights weights) {
    if (*flag == 0) return;
    const Index taps[2] = {Index(problem.taps[0]), Index(problem.taps[1])};
    const Index stride[2] = {Index(problem.stride[0]), Index(problem.stride[1])};
    const Index groups = Index(problem.groups), channels = Index(problem.filters), filters = Index(problem.channels);
    const Index height = Index(problem.out_size[0]), width = Index(problem.out_size[1]);
    const Index dy_height = Index(problem.in_size[0]), dy_width = Index(problem.in_size[1]);
    const Index size = Index(problem.batch) * groups * channels * height * width;
    for (Index at = Index(blockIdx.x) * 256 + threadIdx.x; at < size; at += Index(gridDim.x) * 256) {
        Index rest = at, all_channels = groups * channels;
        Index channel, row, column;
        if (LAST) {
            channel = rest % all_channels, rest /= all_channels;
            column = rest % width, rest /= width;
            row = rest % height, rest /= height;
        } else {
            column = rest % width, rest /= width;
            row = rest % height, rest /= height;
            channel = rest % all_channels, rest /= all_channels;
        }
        const Index image = rest, group = channel / channels;
        accumulator_t<T> sum(0);
        for (Index tap_row = 0; tap_row < taps[0]; ++tap_row) {
            const Index y = row + Index(problem.padding[0]) - tap_row * Index(problem.dilation[0]), i = y / stride[0];
            if (y < 0 || y % stride[0] || i >= dy_height) continue;
            for (Index tap_column = 0; tap_column < taps[1]; ++tap_column) {
                const Index x = column + Index(problem.padding[1]) - tap_column * Index(problem.dilation[1]), j = x / stride[1];
                if (x < 0 || x % stride[1] || j >= dy_width) continue;
                const Index tap = tap_row * taps[1] + tap_column;
                const T* weight =
                    w + group * Index(weights.group) + tap * Index(weights.tap) + channel % channels * Index(weights.filter);
                const T* gradient = LAST ? dy + ((image * dy_height + i) * dy_width + j) * groups * filters + group * filters
                                         : dy + ((image * groups + group) * filters * dy_height + i) * dy_width + j;
                const Index next = LAST ? Index(1) : dy_height * dy_width;
                for (Index filter = 0; filter < filters; ++filter)
                    sum += accumulator_t<T>(widen(gradient[filter * next])) *
                           accumulator_t<T>(widen(weight[filter * Index(weights.channel)]));
            }
        }
        dx[at] = narrow<T>(sum);
    }
}
