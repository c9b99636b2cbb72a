// Depthwise convolution, forward and both ways back, straight from the images in global memory.
//
// Each output of a depthwise convolution reads one channel, and each number that is read serves a few outputs only: memory is the
// limit, not arithmetic. So nothing is staged. Lanes lie along what lies together in memory (columns, or channels where they
// are last), so that a warp reads and writes neighbours, and a thread takes a strip of ROWS outputs below each other, for which
// it reads a column of the image once:
//
//     3 taps, stride 1, ROWS = 4          in 0   *
//                                         in 1   * *          each number is read into a register
//                                         in 2   * * *        and used for every output that sees it
//                                         in 3     * * *
//                                         in 4       * *
//                                         in 5         *
//                                        out     0 1 2 3
//
// What the neighbouring columns need of a number comes from the cache.
//
// The kernels sum over all channels of a group: they are right for every convolution, and compute those, too, whose windows are
// too large for the shared memory of direct.cu.
#include "windows.cuh"

// A thread sums ROWS pixels below each other, in WIDTH neighbouring channels (only LAST, and where a group has one channel and
// one filter). TAPS is the number of taps in a column of the window and STRIDE the step of the windows, or 0 where that is
// known only when it runs. Threads of a grid are (image, channel, strip, column), or (image, strip, column, channel) for LAST,
// the last one fastest; its second and third axis are phases.
template <typename T, typename Index, bool LAST, int WIDTH, int ROWS, int TAPS, int STRIDE, bool BACKWARD>
__global__ void __launch_bounds__(256, 1) correlate_planes(const T* __restrict__ in, const T* __restrict__ w, const T* __restrict__ bias,
                                                        T* __restrict__ out, const Windows windows) {
    using Sum = accumulator_t<T>;
    const Index in_channels = Index(windows.in_channels), out_channels = Index(windows.out_channels), groups = Index(windows.groups);
    const Index in_height = Index(windows.in_size[0]), in_width = Index(windows.in_size[1]);
    const Index row_phases = Index(windows.phases[0]), column_phases = Index(windows.phases[1]);
    const ImageSteps<Index, LAST> from(groups * in_channels, in_height, in_width);
    const ImageSteps<Index, LAST> to(groups * out_channels, Index(windows.out_size[0]), Index(windows.out_size[1]));
    const WeightSteps<Index, LAST> weights(windows, groups * (BACKWARD ? in_channels : out_channels),
                                           BACKWARD ? out_channels : in_channels);

    // The first phase has the most pixels.
    const Index vectors = groups * out_channels / WIDTH, width = Axis<Index, BACKWARD>(windows, 1, 0).count;
    const Index strips = (Axis<Index, BACKWARD>(windows, 0, 0).count + ROWS - 1) / ROWS;
    Index rest = Index(blockIdx.x) * 256 + threadIdx.x, channel = 0;
    if constexpr (LAST) channel = rest % vectors * WIDTH, rest /= vectors;
    const Index column = rest % width;
    rest /= width;
    const Index row = rest % strips * ROWS;
    rest /= strips;
    if constexpr (!LAST) channel = rest % vectors, rest /= vectors;
    const Index image = rest, group = channel / out_channels;
    if (image >= Index(windows.batch)) return;

    for (Index row_phase = blockIdx.y; row_phase < row_phases; row_phase += gridDim.y) {
        for (Index column_phase = blockIdx.z; column_phase < column_phases; column_phase += gridDim.z) {
            const Axis<Index, BACKWARD> rows(windows, 0, row_phase), columns(windows, 1, column_phase);
            if (row >= rows.count || column >= columns.count) continue;
            Sum sums[ROWS][WIDTH];
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) sums[i][j] = Sum(0);

            for (Index part = 0; part < in_channels; ++part) {
                const Index in_channel = group * in_channels + part;
                const Index filter = BACKWARD ? in_channel : channel, of_group = BACKWARD ? channel - group * out_channels : part;
                const T* plane = in + image * from.image + in_channel * from.channel;
                const T* tap_column = w + filter * weights.filter + of_group * weights.channel + rows.tap * weights.row;
                for (Index t = 0; t < columns.taps; ++t) {
                    const Index at = columns.start + columns.stride * column + columns.spread * t;
                    const bool seen = inside(at, in_width);
                    // Forward, the padding is a zero like any other: times an infinite weight it is NaN. A gradient that is
                    // not there is no zero: it takes no part.
                    if (BACKWARD && !seen) continue;
                    const T* tap = tap_column + (columns.tap + columns.tap_step * t) * weights.column;
                    // The pixel at this row of the image, if it is there.
                    auto load = [&](Index y, Sum(&pixel)[WIDTH]) {
                        Vector<T, WIDTH> vector;
#pragma unroll
                        for (int j = 0; j < WIDTH; ++j) vector.at[j] = zero<T>();
                        if (seen && inside(y, in_height))
                            vector = *reinterpret_cast<const Vector<T, WIDTH>*>(plane + y * from.row + at * from.column);
#pragma unroll
                        for (int j = 0; j < WIDTH; ++j) pixel[j] = widen(vector.at[j]);
                    };
                    auto load_weight = [&](Index k, Sum(&weight)[WIDTH]) {
                        const auto vector = *reinterpret_cast<const Vector<T, WIDTH>*>(tap + rows.tap_step * k * weights.row);
#pragma unroll
                        for (int j = 0; j < WIDTH; ++j) weight[j] = widen(vector.at[j]);
                    };
                    auto add = [&](int i, const Sum(&pixel)[WIDTH], const Sum(&weight)[WIDTH], Index y) {
                        if (BACKWARD && !inside(y, in_height)) return;
#pragma unroll
                        for (int j = 0; j < WIDTH; ++j) sums[i][j] += pixel[j] * weight[j];
                    };
                    if constexpr (TAPS > 0) {
                        constexpr int SEEN = (ROWS - 1) * STRIDE + TAPS;
                        const Index top = rows.start + STRIDE * row;
                        Sum pixels[SEEN][WIDTH];
#pragma unroll
                        for (int i = 0; i < SEEN; ++i) load(top + i, pixels[i]);
#pragma unroll
                        for (int k = 0; k < TAPS; ++k) {
                            Sum weight[WIDTH];
                            load_weight(k, weight);
#pragma unroll
                            for (int i = 0; i < ROWS; ++i) add(i, pixels[i * STRIDE + k], weight, top + i * STRIDE + k);
                        }
                    } else {
                        for (Index k = 0; k < rows.taps; ++k) {
                            Sum weight[WIDTH];
                            load_weight(k, weight);
#pragma unroll
                            for (int i = 0; i < ROWS; ++i) {
                                const Index y = rows.start + rows.stride * (row + i) + rows.spread * k;
                                Sum pixel[WIDTH];
                                load(y, pixel);
                                add(i, pixel, weight, y);
                            }
                        }
                    }
                }
            }

            T* target = out + image * to.image + channel * to.channel + (columns.first + columns.step * column) * to.column;
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                if (row + i >= rows.count) continue;
                Vector<T, WIDTH> vector;
#pragma unroll
                for (int j = 0; j < WIDTH; ++j) vector.at[j] = finished<T>(sums[i][j], bias + channel + j, windows.bias, windows.relu);
                *reinterpret_cast<Vector<T, WIDTH>*>(target + (rows.first + rows.step * (row + i)) * to.row) = vector;
            }
        }
    }
}

// The sum over the warps of a block of what each lane holds; only the lanes of warp 0 get it. Two calls in a row take
// different `memory`, so that one barrier a call is enough.
template <int WARPS, typename Sum>
__device__ __forceinline__ Sum add_warps(Sum value, Sum (*memory)[32]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    memory[warp][lane] = value;
    __syncthreads();
    Sum sum = Sum(0);
    if (warp == 0)
        for (int i = 0; i < WARPS; ++i) sum += memory[i][lane];
    return sum;
}

// The gradient of the weights, in splits that splits.cu adds up. Lanes lie along the columns of dy, all of one filter and channel,
// or, where channels are LAST, along these pairs. A thread takes strips of ROWS rows, and of each number of x that it reads
// every product that it has a share in:
//
//     sums[tap row][tap column] += x[row * STRIDE + tap row][column * STRIDE + tap column] * dy[row][column]
//
// TAPS_H x TAPS_W is the whole window; with 0 x 0 a block sums one tap alone, of any window. A grid is (pairs, splits, taps).
// `splits` is (splits, weights + filters): the gradient as the weight lies, and then that of the bias.
// x outside the image is a zero like any other: times an infinite gradient it is NaN.
template <typename T, typename Index, bool LAST, int ROWS, int TAPS_H, int TAPS_W, int STRIDE>
__global__ void __launch_bounds__(128, 1) plane_gradients(
    const T* __restrict__ x, const T* __restrict__ dy, accumulator_t<T>* __restrict__ splits, const Windows windows) {
    using Sum = accumulator_t<T>;
    constexpr bool WHOLE = TAPS_H > 0;
    constexpr int WARPS = 4, PAIRS = LAST ? 32 : 1, LANES = 32 * WARPS / PAIRS;
    constexpr int SUMS_H = WHOLE ? TAPS_H : 1, SUMS_W = WHOLE ? TAPS_W : 1;
    __shared__ Sum memory[2][WARPS][32];
    const Index channels = Index(windows.in_channels), group_filters = Index(windows.out_channels), groups = Index(windows.groups);
    const Index height = Index(windows.in_size[0]), width = Index(windows.in_size[1]);
    const Index dy_height = Index(windows.out_size[0]), dy_width = Index(windows.out_size[1]);
    const Index filters = groups * group_filters, taps = Index(windows.taps[0]) * Index(windows.taps[1]);
    const ImageSteps<Index, LAST> image_of_x(groups * channels, height, width), image_of_dy(filters, dy_height, dy_width);
    const Axis<Index, false> rows(windows, 0, 0), columns(windows, 1, 0);

    const Index pair = Index(blockIdx.x) * PAIRS + threadIdx.x % PAIRS;
    const Index filter = pair / channels, channel = pair % channels;
    const bool active = filter < filters;
    const Index strips_of_plane = (dy_height + ROWS - 1) / ROWS, all_strips = Index(windows.batch) * strips_of_plane * dy_width;
    const T* x_plane = x + (filter / group_filters * channels + channel) * image_of_x.channel;
    const T* dy_plane = dy + filter * image_of_dy.channel;
    const WeightSteps<Index, LAST> step(windows, filters, channels);
    Sum* const split = splits + Index(blockIdx.y) * filters * (channels * taps + 1);

    for (Index tap = blockIdx.z; tap < (WHOLE ? 1 : taps); tap += gridDim.z) {
        const Index tap_row = tap / Index(windows.taps[1]), tap_column = tap % Index(windows.taps[1]);
        Sum sums[SUMS_H][SUMS_W], bias = Sum(0);
#pragma unroll
        for (int i = 0; i < SUMS_H; ++i)
#pragma unroll
            for (int j = 0; j < SUMS_W; ++j) sums[i][j] = Sum(0);

        Index strip = Index(blockIdx.y) * LANES + threadIdx.x / PAIRS;
        for (; active && strip < all_strips; strip += Index(gridDim.y) * LANES) {
            const Index column = strip % dy_width, row = strip / dy_width % strips_of_plane * ROWS;
            const Index image = strip / dy_width / strips_of_plane;
            const T* source = x_plane + image * image_of_x.image;
            const T* gradient = dy_plane + image * image_of_dy.image + row * image_of_dy.row + column * image_of_dy.column;
            Sum dys[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                dys[i] = row + i < dy_height ? widen(gradient[i * image_of_dy.row]) : Sum(0);
                bias += dys[i];
            }
            auto pixel = [&](Index y, Index at) {
                return inside(y, height) && inside(at, width) ? widen(source[y * image_of_x.row + at * image_of_x.column]) : Sum(0);
            };
            if constexpr (WHOLE) {
                const Index top = rows.start + STRIDE * row, left = columns.start + STRIDE * column;
#pragma unroll
                for (int i = 0; i < (ROWS - 1) * STRIDE + TAPS_H; ++i) {
                    Sum pixels[SUMS_W];
#pragma unroll
                    for (int j = 0; j < TAPS_W; ++j) pixels[j] = pixel(top + i, left + j);
#pragma unroll
                    for (int k = 0; k < ROWS; ++k) {
                        const int of = i - k * STRIDE;  // which row of taps sees row i from output k
                        if (of < 0 || of >= TAPS_H || row + k >= dy_height) continue;
#pragma unroll
                        for (int j = 0; j < TAPS_W; ++j) sums[of < 0 || of >= TAPS_H ? 0 : of][j] += pixels[j] * dys[k];
                    }
                }
            } else {
                const Index at = columns.start + columns.stride * column + columns.spread * tap_column;
#pragma unroll
                for (int k = 0; k < ROWS; ++k)
                    if (row + k < dy_height)
                        sums[0][0] += pixel(rows.start + rows.stride * (row + k) + rows.spread * tap_row, at) * dys[k];
            }
        }

        // Add up the threads, and note the sum of the pair as entry `at` of the split.
        int turn = 0;
        auto note = [&](Sum sum, Index at, bool wanted) {
            if constexpr (PAIRS == 1) {
#pragma unroll
                for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
            }
            sum = add_warps<WARPS>(sum, memory[turn]);
            turn ^= 1;
            if (threadIdx.x < PAIRS && active && wanted) split[at] = sum;
        };
#pragma unroll
        for (int i = 0; i < SUMS_H; ++i)
#pragma unroll
            for (int j = 0; j < SUMS_W; ++j)
                note(sums[i][j],
                     filter * step.filter + channel * step.channel + (tap_row + i) * step.row + (tap_column + j) * step.column, true);
        note(bias, filters * channels * taps + filter, channel == 0 && tap == 0);
        __syncthreads();  // before the next tap takes the same memory
    }
}
