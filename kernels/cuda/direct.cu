// Convolution of images with few channels, and the ways back, without a matrix product.
//
// The first layer of a network reads one channel or three. As a matrix product it would be thin and deep, and most of a tile
// padding; here a block keeps the part of the image that it needs in shared memory once, and every thread reads from there the
// few numbers that it multiplies:
//
//      in (one of its channels)            out (FILTERS of its filters)
//     +--------------------------+       +---------------------+
//     |   +----------------+     |       |   +------------+    |   A thread sums PIXELS outputs below each other for FILTERS
//     |   | tile with the  |     |       |   | tile of    |    |   filters: a column of the tile of `in` goes into registers,
//     |   | borders that   |     |  -->  |   | the block  |    |   and each number of it meets all taps of that column.
//     |   | windows reach  |     |       |   +------------+    |
//     |   +----------------+     |       |                     |
//     +--------------------------+       +---------------------+
//
// Few filters are the same thing backward: the gradient of the input of such a layer.
#include "windows.cuh"

// How a block is laid out. It computes `rows` x `columns` pixels for `lanes` * FILTERS filters; `lanes` * `columns` * `rows` /
// PIXELS of its threads compute, and all of them copy.
struct DirectTile {
    int rows, columns, lanes;       // pixels of the tile, and threads that share its filters
    int row_tiles, column_tiles, filter_tiles;  // tiles of one phase of one group
    int channels;                   // how many channels are in shared memory at a time
    int in_rows, in_columns;        // what they need of `in`, rows up to the end of the last vector
    int split;                      // columns from one remainder by the stride to the next
    int pitch, plane;               // elements from one column, and one channel, to the next
    int tap_rows, tap_columns;      // taps that a phase has at most
};

// Starts to copy a vector into shared memory, in the type that is computed with.
template <typename T, int WIDTH>
__device__ __forceinline__ void stage(accumulator_t<T>* shared, const T* global, bool present) {
    if constexpr (sizeof(T) == sizeof(accumulator_t<T>)) {
        copy_async<T, WIDTH>(shared, global, present);
    } else {
        Vector<T, WIDTH> vector;
        if (present) vector = *reinterpret_cast<const Vector<T, WIDTH>*>(global);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) shared[i] = present ? widen(vector.at[i]) : accumulator_t<T>(0);
    }
}

// A number that the compiler knows, as an argument.
template <int VALUE> struct Length {
    static constexpr int value = VALUE;
};

// Threads lie along columns first and share weights, or, where channels are LAST, along filters first and share pixels: so
// neighbours write neighbours. The filters of a thread are vectors of WIDTH. In shared memory the patch lies column by column,
// as threads read it, and columns that are a stride apart are neighbours, for lanes read those at once. TAPS and STRIDE are those
// of a column of the window (and STRIDE that of its rows) with a dilation of 1, or 0 where they are known only when it runs.
// A grid is (tiles of phases of groups, images, more images).
template <typename T, typename Index, bool LAST, int PIXELS, int FILTERS, int WIDTH, int TAPS, int STRIDE, bool BACKWARD>
__global__ void __launch_bounds__(256, 1) direct_correlate(const T* __restrict__ in, const T* __restrict__ w, const T* __restrict__ bias,
                                                        T* __restrict__ out, const Windows windows, const DirectTile tile) {
    using Sum = accumulator_t<T>;
    constexpr int FULL_WIDTH = 16 / int(sizeof(Sum));
    // Filters of a weight and rows of the patch that are read at once. Channels that are LAST are copied across each other: what
    // keeps the banks apart leaves no vectors of rows.
    constexpr int SHARED_WIDTH = LAST ? WIDTH : FILTERS > FULL_WIDTH ? FULL_WIDTH : FILTERS, RUN = LAST ? 1 : FULL_WIDTH;
    extern __shared__ __align__(128) unsigned char memory[];
    const int block_filters = tile.lanes * FILTERS;
    Sum* const weights = reinterpret_cast<Sum*>(memory);  // [channel][tap column][tap row][filter], up to a whole vector
    const int weight_vectors = ceil_div(tile.channels * tile.tap_rows * tile.tap_columns * block_filters, FULL_WIDTH);
    Sum* const patch = weights + weight_vectors * FULL_WIDTH;  // [channel][remainder of the column][column / stride][row]

    unsigned rest = blockIdx.x;
    const int filter_tile = int(rest % tile.filter_tiles);
    rest /= tile.filter_tiles;
    const Index column_tile = Index(rest % tile.column_tiles);
    rest /= tile.column_tiles;
    const Index row_tile = Index(rest % tile.row_tiles);
    rest /= tile.row_tiles;
    const Index column_phase = Index(rest % unsigned(windows.phases[1]));
    rest /= unsigned(windows.phases[1]);
    const Index row_phase = Index(rest % unsigned(windows.phases[0]));
    const Index group = Index(rest / unsigned(windows.phases[0]));
    const Index image = Index(blockIdx.z) * gridDim.y + blockIdx.y;
    const Axis<Index, BACKWARD> rows(windows, 0, row_phase), columns(windows, 1, column_phase);
    const Index first_row = row_tile * tile.rows, first_column = column_tile * tile.columns;
    // A whole block has nothing to do: all of its threads leave.
    if (image >= Index(windows.batch) || first_row >= rows.count || first_column >= columns.count) return;

    const Index in_channels = Index(windows.in_channels), out_channels = Index(windows.out_channels), groups = Index(windows.groups);
    const Index in_height = Index(windows.in_size[0]), in_width = Index(windows.in_size[1]);
    const ImageSteps<Index, LAST> from(groups * in_channels, in_height, in_width);
    const ImageSteps<Index, LAST> to(groups * out_channels, Index(windows.out_size[0]), Index(windows.out_size[1]));
    const WeightSteps<Index, LAST> step(windows, groups * (BACKWARD ? in_channels : out_channels),
                                        BACKWARD ? out_channels : in_channels);
    const int tap_rows = TAPS > 0 ? TAPS : int(rows.taps), tap_columns = int(columns.taps);
    const int row_stride = STRIDE > 0 ? STRIDE : int(rows.stride), column_stride = STRIDE > 0 ? STRIDE : int(columns.stride);
    const int row_spread = TAPS > 0 ? 1 : int(rows.spread), column_spread = TAPS > 0 ? 1 : int(columns.spread);

    // This thread's place in the tile.
    const int pixel = LAST ? threadIdx.x / tile.lanes : threadIdx.x % (tile.columns * (tile.rows / PIXELS));
    const int lane = LAST ? threadIdx.x % tile.lanes : threadIdx.x / (tile.columns * (tile.rows / PIXELS));
    const int column = pixel % tile.columns, row = pixel / tile.columns * PIXELS;
    const bool active = row < tile.rows && lane < tile.lanes;
    // Filter i of this thread, the first one of a vector.
    auto filter_of = [&](int i) { return LAST ? (i / WIDTH * tile.lanes + lane) * WIDTH : lane * FILTERS + i; };

    Sum sums[PIXELS][FILTERS];
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int i = 0; i < FILTERS; ++i) sums[p][i] = Sum(0);

    const T* const image_in = in + image * from.image;
    const Index top = rows.start + rows.stride * first_row, left = columns.start + columns.stride * first_column;

    for (Index first_channel = 0; first_channel < in_channels; first_channel += tile.channels) {
        const int channels = int(in_channels - first_channel < tile.channels ? in_channels - first_channel : tile.channels);
        if (first_channel > 0) __syncthreads();

        // A warp copies rows of the patch; its lanes lie along channels, too, where these are neighbours.
        const int together = LAST ? channels : 1, copied_at_once = 32 / together;
        const int warp_lane = threadIdx.x % 32, copied_channel = warp_lane % together, copied_column = warp_lane / together;
        const int lines = copied_column < copied_at_once ? (LAST ? 1 : channels) * tile.in_rows : 0, warps = int(blockDim.x) / 32;
        for (int line = threadIdx.x / 32; line < lines; line += warps) {
            const int channel = LAST ? copied_channel : line / tile.in_rows, y = LAST ? line : line % tile.in_rows;
            const bool row_there = inside(top + y, in_height);
            const T* source = image_in + (group * in_channels + first_channel + channel) * from.channel + (top + y) * from.row;
            Sum* target = patch + channel * tile.plane + y;
            for (int x = copied_column; x < tile.in_columns; x += copied_at_once)
                stage<T, 1>(target + (x % column_stride * tile.split + x / column_stride) * tile.pitch,
                            source + (left + x) * from.column, row_there && inside(left + x, in_width));
        }
        // Neighbouring threads copy neighbouring filters, and then what else lies side by side. Weights that are not there are 0.
        bool odd = false;  // whether a weight is not finite
        const int taps = tap_rows * tap_columns, threads_of_tap = int(blockDim.x) / block_filters;
        const Index f = Index(filter_tile) * block_filters + threadIdx.x % block_filters;
        const int copies = int(threadIdx.x) < threads_of_tap * block_filters ? channels * taps : 0;
        for (int at = threadIdx.x / block_filters; at < copies; at += threads_of_tap) {
            int channel, t, k;
            if (BACKWARD && LAST) {  // the channels of dy are the filters of the weight
                channel = at % channels, t = at / channels % tap_columns, k = at / channels / tap_columns;
            } else {
                t = at % tap_columns, k = at / tap_columns % tap_rows, channel = at / tap_columns / tap_rows;
            }
            const Index in_channel = first_channel + channel;
            const Index filter = BACKWARD ? group * in_channels + in_channel : group * out_channels + f;
            const Index of_group = BACKWARD ? f : in_channel;
            const T* source = w + filter * step.filter + of_group * step.channel + (rows.tap + rows.tap_step * k) * step.row +
                              (columns.tap + columns.tap_step * t) * step.column;
            const Sum weight = f < out_channels ? widen(*source) : Sum(0);
            weights[((channel * tap_columns + t) * tap_rows + k) * block_filters + threadIdx.x % block_filters] = weight;
            odd |= !(weight - weight == Sum(0));
        }
        __pipeline_commit();
        __pipeline_wait_prior(0);

        // Forward, the padding is a zero like any other: times an infinite weight it is NaN. A gradient that is not there is no
        // zero: where that makes a difference, it is left out.
        bool guarded = false;
        if constexpr (BACKWARD) {
            guarded = __syncthreads_or(odd);
        } else {
            __syncthreads();
        }
        auto there = [&](int p, int k, int t) {  // asked backward only, where windows are one pixel apart
            return inside(top + row + p + k * row_spread, in_height) && inside(left + column + t * column_spread, in_width);
        };
        auto fetch = [&](Sum(&values)[FILTERS], int at) {
#pragma unroll
            for (int i = 0; i < FILTERS; i += SHARED_WIDTH) {
                const auto vector = *reinterpret_cast<const Vector<Sum, SHARED_WIDTH>*>(weights + at * block_filters + filter_of(i));
#pragma unroll
                for (int j = 0; j < SHARED_WIDTH; ++j) values[i + j] = vector.at[j];
            }
        };
        if (active) {
            // Where tap column t begins: its remainder by the stride, and how often the stride goes into it.
            const int further = column_spread % column_stride, steps = column_spread / column_stride;
            int remainder = 0, place = column;
            for (int t = 0; t < tap_columns; ++t) {
                for (int channel = 0; channel < channels; ++channel) {
                    const Sum* source = patch + channel * tile.plane + (remainder * tile.split + place) * tile.pitch + row * row_stride;
                    const int at = (channel * tap_columns + t) * tap_rows;
                    if (BACKWARD && guarded) {
                        for (int k = 0; k < tap_rows; ++k) {
                            Sum weight[FILTERS];
                            fetch(weight, at + k);
#pragma unroll
                            for (int p = 0; p < PIXELS; ++p) {
                                if (!there(p, k, t)) continue;
                                const Sum number = source[p + k * row_spread];
#pragma unroll
                                for (int i = 0; i < FILTERS; ++i) sums[p][i] += number * weight[i];
                            }
                        }
                    } else if constexpr (TAPS > 0) {
                        constexpr int SEEN = (PIXELS - 1) * STRIDE + TAPS;
                        Sum numbers[ceil_div(SEEN, RUN) * RUN];
#pragma unroll
                        for (int i = 0; i < SEEN; i += RUN) {
                            const auto vector = *reinterpret_cast<const Vector<Sum, RUN>*>(source + i);
#pragma unroll
                            for (int j = 0; j < RUN; ++j) numbers[i + j] = vector.at[j];
                        }
#pragma unroll
                        for (int k = 0; k < TAPS; ++k) {
                            Sum weight[FILTERS];
                            fetch(weight, at + k);
#pragma unroll
                            for (int p = 0; p < PIXELS; ++p)
#pragma unroll
                                for (int i = 0; i < FILTERS; ++i) sums[p][i] += numbers[p * STRIDE + k] * weight[i];
                        }
                    } else {
                        for (int k = 0; k < tap_rows; ++k) {
                            Sum weight[FILTERS];
                            fetch(weight, at + k);
#pragma unroll
                            for (int p = 0; p < PIXELS; ++p) {
                                const Sum number = source[p * row_stride + k * row_spread];
#pragma unroll
                                for (int i = 0; i < FILTERS; ++i) sums[p][i] += number * weight[i];
                            }
                        }
                    }
                }
                remainder += further, place += steps;
                if (remainder >= column_stride) remainder -= column_stride, place += 1;
            }
        }
    }

    if (!active || first_column + column >= columns.count) return;
    T* const pixels = out + image * to.image + group * out_channels * to.channel +
                      (columns.first + columns.step * (first_column + column)) * to.column;
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
        if (first_row + row + p >= rows.count) continue;
        T* const target = pixels + (rows.first + rows.step * (first_row + row + p)) * to.row;
#pragma unroll
        for (int i = 0; i < FILTERS; i += WIDTH) {
            const Index filter = Index(filter_tile) * block_filters + filter_of(i);
            if (filter >= out_channels) continue;  // whole vectors: WIDTH divides the filters of a group
            Vector<T, WIDTH> vector;
#pragma unroll
            for (int j = 0; j < WIDTH; ++j)
                vector.at[j] = finished<T>(sums[p][i + j], bias + group * out_channels + filter + j, windows.bias, windows.relu);
            *reinterpret_cast<Vector<T, WIDTH>*>(target + filter * to.channel) = vector;
        }
    }
}

// How a block that sums gradients of weights is laid out: a thread for each filter, channel and part of a tile's pixels.
struct GradientTile {
    int rows, columns;              // pixels of dy, whole cells of CELL x CELL
    int row_tiles, column_tiles;    // of a plane
    int filters, channels, parts;   // threads: filters * channels * parts, filters first
    int filter_tiles, channel_tiles;  // of a group
    int in_rows, in_columns;        // the part of x that the windows of a tile see, each row to the end of its last vector
    int pitch;                      // of dy in shared memory: elements of a filter (or of a pixel, where channels are last)
    int dy_elements, elements;      // of one stage in shared memory, dy first
};

// The gradient of the weights of a layer with few channels. All products of a number of dy belong to one filter, so lanes lie
// along filters, and a thread has the sums of a whole window in registers. The pixels of x it needs are the same for all lanes:
// one read serves the warp. It goes over a tile in cells of CELL x CELL pixels of dy; each row of x under a cell is read once:
//
//     x row i   ########              with taps 3 x 3, stride 1:   row i of x meets
//                                         row i of dy at tap row 0, row i - 1 at tap row 1, row i - 2 at tap row 2
//
// so 4 * 4 + 6 * 6 numbers make 4 * 4 * 3 * 3 products. Tiles come into shared memory while the tile before is summed. A block
// takes every gridDim.y-th tile of the batch, in order, and leaves its sums as one of the `splits` (blocks, weights + filters)
// that splits.cu adds up: the gradient as the weight lies, and then that of the bias. COPY elements of dy are copied at once.
// A grid is (tiles of filters and channels of all groups, blocks that share the pixels).
template <typename T, typename Index, bool LAST, int COPY, int TAPS_H, int TAPS_W, int STRIDE>
__global__ void __launch_bounds__(256, 1) direct_weight_gradient(const T* __restrict__ x, const T* __restrict__ dy,
                                                              accumulator_t<T>* __restrict__ splits, const Windows windows,
                                                              const GradientTile tile) {
    using Sum = accumulator_t<T>;
    constexpr int CELL = 4, WIDTH = 16 / int(sizeof(Sum));  // elements of Sum that are read at once
    constexpr int SEEN = (CELL - 1) * STRIDE + TAPS_W, VECTORS = ceil_div(SEEN, WIDTH);
    extern __shared__ __align__(128) unsigned char memory[];
    Sum* const shared = reinterpret_cast<Sum*>(memory);

    const int threads = int(blockDim.x), thread = int(threadIdx.x);
    const Index channels = Index(windows.in_channels), group_filters = Index(windows.out_channels), groups = Index(windows.groups);
    const Index height = Index(windows.in_size[0]), width = Index(windows.in_size[1]);
    const Index dy_height = Index(windows.out_size[0]), dy_width = Index(windows.out_size[1]);
    const ImageSteps<Index, LAST> image_of_x(groups * channels, height, width);
    const ImageSteps<Index, LAST> image_of_dy(groups * group_filters, dy_height, dy_width);

    Index rest = Index(blockIdx.x);
    const Index first_filter = rest % tile.filter_tiles * tile.filters;
    rest /= tile.filter_tiles;
    const Index first_channel = rest % tile.channel_tiles * tile.channels, group = rest / tile.channel_tiles;
    const int filter = thread % tile.filters, channel = thread / tile.filters % tile.channels;
    const int part = thread / tile.filters / tile.channels;
    const Index tiles = Index(windows.batch) * tile.row_tiles * tile.column_tiles;
    const T* const x_group = x + (group * channels + first_channel) * image_of_x.channel;
    const T* const dy_group = dy + (group * group_filters + first_filter) * image_of_dy.channel;

    // Where a tile begins in its plane.
    auto first_row_of = [&](Index number) { return number / tile.column_tiles % tile.row_tiles * tile.rows; };
    auto first_column_of = [&](Index number) { return number % tile.column_tiles * tile.columns; };

    // Starts to copy a tile of dy and what its windows see of x.
    auto load = [&](Index number, Sum* stage_memory) {
        const Index first_row = first_row_of(number), first_column = first_column_of(number);
        const Index image = number / tile.column_tiles / tile.row_tiles;
        const T* const dy_image = dy_group + image * image_of_dy.image;
        if constexpr (LAST) {
            const int vectors = tile.filters / COPY, pixels_at_once = threads / vectors, f = thread % vectors * COPY;
            const int pixels = thread < vectors * pixels_at_once ? tile.rows * tile.columns : 0;
            for (int pixel = thread / vectors; pixel < pixels; pixel += pixels_at_once) {
                const Index row = first_row + pixel / tile.columns, column = first_column + pixel % tile.columns;
                stage<T, COPY>(stage_memory + pixel * tile.pitch + f,
                               dy_image + row * image_of_dy.row + column * image_of_dy.column + f,
                               row < dy_height && column < dy_width && first_filter + f < group_filters);
            }
        } else {
            const int vectors = tile.columns / COPY, lines_at_once = threads / vectors, c = thread % vectors * COPY;
            const int lines = thread < vectors * lines_at_once ? tile.filters * tile.rows : 0;
            for (int line = thread / vectors; line < lines; line += lines_at_once) {
                const int f = line / tile.rows, r = line % tile.rows;
                stage<T, COPY>(stage_memory + f * tile.pitch + r * tile.columns + c,
                               dy_image + f * image_of_dy.channel + (first_row + r) * image_of_dy.row + (first_column + c),
                               first_row + r < dy_height && first_column + c < dy_width && first_filter + f < group_filters);
            }
        }
        const Index top = first_row * STRIDE - Index(windows.padding[0]), left = first_column * STRIDE - Index(windows.padding[1]);
        const T* const x_image = x_group + image * image_of_x.image;
        Sum* const patch = stage_memory + tile.dy_elements;
        for (int line = thread / 32; line < tile.channels * tile.in_rows; line += threads / 32) {
            const int c = line / tile.in_rows, r = line % tile.in_rows;
            const bool row_there = inside(top + r, height) && first_channel + c < channels;
            for (int column = thread % 32; column < tile.in_columns; column += 32)
                stage<T, 1>(patch + line * tile.in_columns + column,
                            x_image + c * image_of_x.channel + (top + r) * image_of_x.row + (left + column) * image_of_x.column,
                            row_there && inside(left + column, width));
        }
        __pipeline_commit();
    };

    Sum sums[TAPS_H][TAPS_W], bias = Sum(0);
#pragma unroll
    for (int i = 0; i < TAPS_H; ++i)
#pragma unroll
        for (int j = 0; j < TAPS_W; ++j) sums[i][j] = Sum(0);

    auto add_tile = [&](Index number, const Sum* stage_memory) {
        const Index first_row = first_row_of(number), first_column = first_column_of(number);
        const int cells_across = tile.columns / CELL, cells = tile.rows / CELL * cells_across;
        for (int cell = part; cell < cells; cell += tile.parts) {
            const int row = cell / cells_across * CELL, column = cell % cells_across * CELL;
            const Sum* const patch =
                stage_memory + tile.dy_elements + (channel * tile.in_rows + row * STRIDE) * tile.in_columns + column * STRIDE;
            const int pixel = row * tile.columns + column;
            const Sum* const gradient = stage_memory + (LAST ? pixel * tile.pitch + filter : filter * tile.pitch + pixel);
            const Index rows_there = dy_height - first_row - row, columns_there = dy_width - first_column - column;
            if (rows_there >= CELL && columns_there >= CELL) {
                Sum dys[CELL][CELL];
#pragma unroll
                for (int i = 0; i < CELL; ++i) {
                    if constexpr (LAST) {
#pragma unroll
                        for (int j = 0; j < CELL; ++j) dys[i][j] = gradient[(i * tile.columns + j) * tile.pitch];
                    } else {
#pragma unroll
                        for (int j = 0; j < CELL; j += WIDTH) {
                            const auto vector = *reinterpret_cast<const Vector<Sum, WIDTH>*>(gradient + i * tile.columns + j);
#pragma unroll
                            for (int k = 0; k < WIDTH; ++k) dys[i][j + k] = vector.at[k];
                        }
                    }
#pragma unroll
                    for (int j = 0; j < CELL; ++j) bias += dys[i][j];
                }
#pragma unroll
                for (int i = 0; i < (CELL - 1) * STRIDE + TAPS_H; ++i) {
                    Sum pixels[VECTORS * WIDTH];
#pragma unroll
                    for (int j = 0; j < VECTORS; ++j) {
                        const auto vector = *reinterpret_cast<const Vector<Sum, WIDTH>*>(patch + i * tile.in_columns + j * WIDTH);
#pragma unroll
                        for (int k = 0; k < WIDTH; ++k) pixels[j * WIDTH + k] = vector.at[k];
                    }
#pragma unroll
                    for (int r = 0; r < CELL; ++r) {
                        constexpr int LAST_TAP = TAPS_H - 1;
                        const int tap_row = i - r * STRIDE;  // which row of taps sees row i of x from row r of dy
                        if (tap_row < 0 || tap_row > LAST_TAP) continue;
#pragma unroll
                        for (int c = 0; c < CELL; ++c)
#pragma unroll
                            for (int j = 0; j < TAPS_W; ++j)
                                sums[tap_row < 0 ? 0 : tap_row > LAST_TAP ? LAST_TAP : tap_row][j] += pixels[c * STRIDE + j] * dys[r][c];
                    }
                }
            } else {
                // At the end of a plane only the pixels that are there take part: x may be infinite where dy ends.
                for (int r = 0; r < CELL && r < rows_there; ++r)
                    for (int c = 0; c < CELL && c < columns_there; ++c) {
                        const Sum number = gradient[(r * tile.columns + c) * (LAST ? tile.pitch : 1)];
                        bias += number;
#pragma unroll
                        for (int i = 0; i < TAPS_H; ++i)
#pragma unroll
                            for (int j = 0; j < TAPS_W; ++j)
                                sums[i][j] += patch[(r * STRIDE + i) * tile.in_columns + c * STRIDE + j] * number;
                    }
            }
        }
    };

    int turn = 0;
    if (Index(blockIdx.y) < tiles) load(blockIdx.y, shared);
    for (Index number = blockIdx.y; number < tiles; number += gridDim.y, turn ^= 1) {
        __pipeline_wait_prior(0);
        __syncthreads();  // this tile is there, and nobody reads the one before any longer
        if (number + gridDim.y < tiles) load(number + gridDim.y, shared + (turn ^ 1) * tile.elements);
        add_tile(number, shared + turn * tile.elements);
    }

    // Add up what the threads of the same filter and channel have summed, one row of taps after the other, and the bias. Threads
    // behind those of the last part have summed what others have, too: it is left out.
    const int pairs = tile.filters * tile.channels;
    const Index filters = groups * group_filters;
    const WeightSteps<Index, LAST> step(windows, filters, channels);
    Sum* const split = splits + Index(blockIdx.y) * filters * (channels * TAPS_H * TAPS_W + 1);
    auto add_up = [&](const Sum* values, auto length, auto put) {
        constexpr int LENGTH = decltype(length)::value;
        __syncthreads();
#pragma unroll
        for (int j = 0; j < LENGTH; ++j) shared[thread * LENGTH + j] = values[j];
        __syncthreads();
        // Neighbouring threads take what lies together in the weight.
        for (int at = thread; at < pairs * LENGTH; at += threads) {
            const int pair = LAST ? at % pairs : at / LENGTH, j = LAST ? at / pairs : at % LENGTH;
            Sum sum = Sum(0);
            for (int i = 0; i < tile.parts; ++i) sum += shared[(i * pairs + pair) * LENGTH + j];
            const Index f = first_filter + pair % tile.filters, c = first_channel + pair / tile.filters;
            if (f < group_filters && c < channels) put(group * group_filters + f, c, j, sum);
        }
    };
#pragma unroll
    for (int i = 0; i < TAPS_H; ++i)
        add_up(sums[i], Length<TAPS_W>(), [&](Index f, Index c, int j, Sum sum) {
            split[f * step.filter + c * step.channel + i * step.row + j * step.column] = sum;
        });
    add_up(&bias, Length<1>(), [&](Index f, Index c, int, Sum sum) {
        if (c == 0) split[filters * channels * TAPS_H * TAPS_W + f] = sum;
    });
}
