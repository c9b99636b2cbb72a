// Convolution forward and back to its input as one implicit matrix product, C += A B, without a matrix of columns in memory.
//
// Both are a correlation: every pixel j of a grid gathers, from fixed places around it, all channels c of its group,
//
//     out[n, m, first + step * j] = bias[m] + sum over t, c of  in[n, c, start + stride * j + dilation * t] * w[t, c, m]
//
// along both axes. Forward, the grid is the result. Back to the input, the grid is cut into phases, one for each residue of the
// stride: the pixels of a phase see the same taps, every (stride / gcd(stride, dilation))-th of one axis, so that nothing is
// multiplied in vain, and every pixel has one thread that sums it in a fixed order. For a stride of 2 and 3 taps:
//
//     dx    0   1   2   3   4   5        phase 0 (pixels 0, 2, 4) sees taps 0 and 2, phase 1 (1, 3, 5) sees tap 1
//     dy  0   1   2   3                  (padding 1: the other way round)
//
// The pixels of one phase of one group are one dimension of the product, its filters the other, and taps x channels are summed.
// A block computes one tile:
//
//     channels_first  in (N, C, H, W)   A = weights, ALONG_ROWS    B = pixels, ALONG_ROWS   lanes read and write along pixels
//     channels_last   in (N, H, W, C)   A = pixels,  ALONG_DEPTH   B = weights, ALONG_ROWS  lanes read and write along channels
//
// The weights come packed, (group, tap, channel, filter), with zeros up to whole tiles. The pixels are read where they are: a
// thread copies the same pixels in every step, and looks where they are, and whether they lie in the image, only when the tap
// changes. What lies outside is zero. The tiles of STAGES steps are in shared memory at a time, or on their way to it, and one
// barrier a step keeps them apart:
//
//     wait for step s | barrier | start to copy step s + STAGES - 1 | multiply step s
//
// Where the tiles are too few for the card, several blocks, side by side along y, share a tile (SPLIT): each takes some steps,
// and writes its sums into a workspace; another kernel adds them up.
#include "tile.cuh"

// The numbers of one group, and everything by axis: [0] rows, [1] columns.
struct Correlation {
    int bias, relu, backward;             // whether
    int packed_channels, packed_filters;  // with their zeros
    long long batch, groups, channels, filters;
    long long in_size[2], out_size[2];  // pixels of the planes that are read and written,
    long long in_plane, out_plane;      // and their products
    long long taps[2], stride[2], dilation[2], padding[2];  // of the convolution, forward
    long long tap_step[2], phases[2];  // taps of a phase lie tap_step apart; phases that have any
    long long split_steps;  // of all steps, those that a block takes; the blocks along y share them
};

// Blocks that a multiprocessor should hold, which tells the compiler how many registers a thread may take: 128, but 168 where
// operands lie ALONG_DEPTH, of which a lane holds several terms at a time, or where numbers or offsets take two registers; and
// where blocks share tiles (SPLIT), since these problems are too small to fill a multiprocessor with warps. Narrow copies of
// channels have more addresses than that, copies of less than 4 bytes go through registers: both take what they need.
template <typename T, typename Index, int THREADS, bool LAST, int WIDTH, bool SPLIT>
__host__ __device__ constexpr int resident_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    constexpr bool ROOMY = true;
#else
    constexpr bool ROOMY = LAST || SPLIT || sizeof(T) > 4 || sizeof(Index) > 4;
#endif
    constexpr int BYTES = WIDTH * int(sizeof(T)), REGISTERS = BYTES < (LAST ? 16 : 4) ? 255 : ROOMY ? 168 : 128;
    constexpr int BLOCKS = THREADS * REGISTERS < 65536 ? 65536 / (THREADS * REGISTERS) : 1;
    return BLOCKS;
}

template <bool CONDITION, typename Yes, typename No> struct Choice { using Type = Yes; };
template <typename Yes, typename No> struct Choice<false, Yes, No> { using Type = No; };

// What one phase is along one axis: see the formula above.
template <typename Index>
struct Axis {
    Index first, step, count;       // the pixels that are written
    Index start, stride, dilation;  // the pixels that are read
    Index tap, tap_step, taps;      // the taps of the weight
};

template <typename Index>
__device__ __forceinline__ Axis<Index> axis_of(const Correlation& problem, int number, Index phase) {
    Axis<Index> axis;
    const Index size = Index(problem.out_size[number]), taps = Index(problem.taps[number]);
    const Index padding = Index(problem.padding[number]);
    const Index stride = Index(problem.stride[number]), dilation = Index(problem.dilation[number]);
    axis.tap = phase, axis.tap_step = Index(problem.tap_step[number]);
    if (problem.backward) {
        // Pixel i of dx met tap t in output o where i = o * stride - padding + t * dilation.
        const Index met = phase * dilation - padding, rest = met % stride;
        axis.first = rest < 0 ? rest + stride : rest, axis.step = stride;
        axis.count = axis.first < size ? (size - axis.first + stride - 1) / stride : 0;
        axis.start = (axis.first - met) / stride, axis.stride = 1, axis.dilation = -(dilation * axis.tap_step / stride);
        axis.taps = (taps - phase + axis.tap_step - 1) / axis.tap_step;
    } else {
        axis.first = 0, axis.step = 1, axis.count = size;
        axis.start = -padding, axis.stride = stride, axis.dilation = dilation, axis.taps = taps;
    }
    return axis;
}

// What a block writes: results, or its part of sums.
template <typename T, bool SPLIT> using written_t = typename Choice<SPLIT, accumulator_t<T>, T>::Type;

// Which tile a block computes. Blocks that follow each other share pixels, which come from memory once and then from the cache.
template <typename Index>
struct Place {
    Index group, row_phase, column_phase, first_pixel, first_filter;
};

template <typename Index>
__device__ __forceinline__ Place<Index> place_of(const Correlation& problem, int tile_pixels, int tile_filters) {
    // No phase has more pixels than one that starts with pixel 0.
    const Index row_step = problem.backward ? Index(problem.stride[0]) : 1;
    const Index column_step = problem.backward ? Index(problem.stride[1]) : 1;
    const Index rows = (Index(problem.out_size[0]) + row_step - 1) / row_step;
    const Index columns = (Index(problem.out_size[1]) + column_step - 1) / column_step;
    const Index pixel_tiles = (Index(problem.batch) * rows * columns + tile_pixels - 1) / tile_pixels;
    const Index filter_tiles = problem.packed_filters / tile_filters;
    Place<Index> place;
    Index block = blockIdx.x;
    place.first_filter = block % filter_tiles * tile_filters, block /= filter_tiles;
    place.first_pixel = block % pixel_tiles * tile_pixels, block /= pixel_tiles;
    place.column_phase = block % Index(problem.phases[1]), block /= Index(problem.phases[1]);
    place.row_phase = block % Index(problem.phases[0]), block /= Index(problem.phases[0]);
    place.group = block;
    return place;
}

// A pixel of a phase's grid.
template <typename Index>
struct Pixel {
    Index image, row, column;

    __device__ __forceinline__ Pixel(Index number, const Axis<Index>& rows, const Axis<Index>& columns) {
        column = number % columns.count;
        row = number / columns.count % rows.count;
        image = number / columns.count / rows.count;
    }
};

// Where the windows of a tile's pixels start: the row, the column, and the element of the group's first channel; all of them
// may lie before the image. What is no pixel, behind the last one, starts so far before it that no tap of it is inside.
template <typename Index, int LENGTH>
struct TilePixels {
    Index row[LENGTH], column[LENGTH], origin[LENGTH];
    Index written[LENGTH];  // where the pixel itself belongs in what is written, for filter 0 of the group; or -1
};

// The threads' part of copying the operand that is pixels; O is its place in shared memory. A thread copies vectors of WIDTH
// elements: channels of one pixel (LAST), or one channel of WIDTH neighbouring pixels, which only 1x1 windows allow.
template <typename O, typename Index, bool LAST, int WIDTH, int THREADS>
struct PixelCopies {
    using T = typename O::Number;
    // Vectors along the fast axis of shared memory, and the threads that lie along it.
    static constexpr int ALONG = (LAST ? O::DEPTH : O::LENGTH) / WIDTH, ACROSS = LAST ? O::LENGTH : O::DEPTH;
    static constexpr int LINES = THREADS / ALONG;
    static constexpr bool EXACT = LINES <= ACROSS;
    static constexpr int COUNT = EXACT ? ACROSS / LINES : 1;
    // A thread copies the same channels of COUNT pixels (LAST), or COUNT channels of the same pixels.
    static constexpr int PIXELS = LAST ? COUNT : 1;
    static_assert(THREADS % ALONG == 0 && (!EXACT || ACROSS % LINES == 0), "threads and vectors divide each other");

    Copies<T, WIDTH, COUNT> copies;
    Index source[PIXELS];
    bool inside[PIXELS];
    int lane, line;

    __device__ __forceinline__ PixelCopies() {
        lane = threadIdx.x % ALONG;
        line = threadIdx.x / ALONG;
    }

    // The first pixel of the tile that the thread's i-th vector is of.
    __device__ __forceinline__ int pixel_of(int i) const {
        if constexpr (LAST) {
            // Eight lanes write 128 bytes at once. Pixels that lie VECTORS apart are in different banks.
            constexpr int VECTORS = O::DEPTH / O::FULL_WIDTH, TOGETHER = VECTORS < 8 ? 8 / VECTORS : 1;
            constexpr int BLOCK = TOGETHER * VECTORS;
            static_assert(O::LENGTH % BLOCK == 0, "whole blocks of pixels");
            const int number = line + i * LINES;
            return number / BLOCK * BLOCK + number % TOGETHER * VECTORS + number / TOGETHER % VECTORS;
        } else {
            return lane * WIDTH;
        }
    }

    // The channel of the tile that the thread's first vector is of, or starts with.
    __device__ __forceinline__ int channel() const { return LAST ? lane * WIDTH : line; }

    // Whether the thread copies at all: a block can have more threads than there are vectors.
    __device__ __forceinline__ bool active() const { return EXACT || line < ACROSS; }

    // Calls `copy(i, place)` for the thread's vectors, with their places in the tile.
    template <typename Copy>
    __device__ __forceinline__ void each(T* tile, Copy copy) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (active()) copy(i, tile + O::offset(pixel_of(i), channel()) + (LAST ? 0 : O::offset(0, i * LINES)));
    }

    // Moves to a tap, `rows` and `columns` from where the windows of the pixels start, which is `apart` elements.
    __device__ __forceinline__ void look(const TilePixels<Index, O::LENGTH>& spots, Index apart, Index rows, Index columns,
                                         const Correlation& problem) {
        const Index height = Index(problem.in_size[0]), width = Index(problem.in_size[1]);
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) {
            const int pixel = active() ? pixel_of(i) : 0;
            const Index row = spots.row[pixel] + rows, column = spots.column[pixel] + columns;
            inside[i] = row >= 0 && row < height && column >= 0 && column < width;
            source[i] = inside[i] ? spots.origin[pixel] + apart : 0;
        }
    }

    // Starts to copy the next DEPTH channels, of which `left` are left; `apart` elements lie from one to the next.
    __device__ __forceinline__ void start(T* tile, const T* in, Index apart, int left) {
        left -= channel();
        const T* from = in + source[0];
        each(tile, [&](int i, T* place) {
            copies.start(i, place, LAST ? in + source[i] : from, inside[LAST ? i : 0] && (LAST ? 0 : i * LINES) < left);
            from += LINES * apart;
        });
        skip(LAST ? Index(O::DEPTH) : Index(O::DEPTH) * apart);
    }

    __device__ __forceinline__ void skip(Index elements) {
#pragma unroll
        for (int i = 0; i < PIXELS; ++i) source[i] += elements;
    }

    __device__ __forceinline__ void finish(T* tile) const {
        if constexpr (!Copies<T, WIDTH, COUNT>::PAST_REGISTERS)
            each(tile, [&](int i, T* place) { copies.finish(i, place); });
    }
};

// The threads' part of copying the packed weights, whose rows of filters need no guard: each copies the same filters of some
// channels.
template <typename O, typename Index, int THREADS>
struct WeightCopies {
    using T = typename O::Number;
    static constexpr int WIDTH = O::FULL_WIDTH, LANES = O::LENGTH / WIDTH, LINES = THREADS / LANES;
    static constexpr bool EXACT = LINES <= O::DEPTH;
    static constexpr int COUNT = EXACT ? O::DEPTH / LINES : 1;
    static_assert(THREADS % LANES == 0 && (!EXACT || O::DEPTH % LINES == 0), "threads and vectors divide each other");

    Copies<T, WIDTH, COUNT> copies;
    Index source;

    __device__ __forceinline__ static int filter() { return int(threadIdx.x) % LANES * WIDTH; }
    __device__ __forceinline__ static int channel() { return int(threadIdx.x) / LANES; }

    // Calls `copy(i, place)` for the thread's vectors, with their places in the tile; a block can have more threads than there
    // are vectors.
    template <typename Copy>
    __device__ __forceinline__ static void each(T* tile, Copy copy) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i)
            if (EXACT || channel() < O::DEPTH) copy(i, tile + O::offset(filter(), channel()) + O::offset(0, i * LINES));
    }

    // Moves to a tap, whose first channel's filters start at element `tap`; `pitch` elements lie from one channel to the next.
    __device__ __forceinline__ void look(Index tap, Index pitch) { source = tap + channel() * pitch + filter(); }

    __device__ __forceinline__ void skip(Index elements) { source += elements; }

    __device__ __forceinline__ void start(T* tile, const T* packed, Index pitch) {
        const T* from = packed + source;
        each(tile, [&](int i, T* place) {
            copies.start(i, place, from, true);
            from += LINES * pitch;
        });
        source += O::DEPTH * pitch;
    }

    __device__ __forceinline__ void finish(T* tile) const {
        if constexpr (!Copies<T, WIDTH, COUNT>::PAST_REGISTERS)
            each(tile, [&](int i, T* place) { copies.finish(i, place); });
    }
};

// Computes the tile of this block. `in` is (N, C, H, W) or (N, H, W, C), `packed` is (groups, taps, packed channels, packed
// filters), `bias` has one number for each filter, and `out` is like `in`, with filters for channels; with SPLIT it is one of
// these for each block along y, of sums without bias. No two blocks write the same number, and the sums have a fixed order:
// the same bits at every run.
template <typename Product, typename Index, bool LAST, int WIDTH, int STAGES, bool SPLIT>
__device__ __forceinline__ void correlate_tile(
    const typename Product::Number* __restrict__ in, const typename Product::Number* __restrict__ packed,
    const typename Product::Number* __restrict__ bias, written_t<typename Product::Number, SPLIT>* __restrict__ out,
    const Correlation& problem) {
    using T = typename Product::Number;
    using Sum = typename Product::Sum;
    using A = typename Product::A;
    using B = typename Product::B;
    using Pixels = typename Choice<LAST, A, B>::Type;
    using Weights = typename Choice<LAST, B, A>::Type;
    constexpr int STAGE = A::ELEMENTS + B::ELEMENTS;
    constexpr int OFFSET_OF_PIXELS = LAST ? 0 : A::ELEMENTS, OFFSET_OF_WEIGHTS = LAST ? A::ELEMENTS : 0;

    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ Place<Index> place;
    __shared__ Axis<Index> axes[2];
    __shared__ TilePixels<Index, Pixels::LENGTH> spots;
    T* const tiles = reinterpret_cast<T*>(shared);
    const Axis<Index>&rows = axes[0], &columns = axes[1];

    const Index images = Index(problem.batch), groups = Index(problem.groups), channels = Index(problem.channels);
    const Index filters = Index(problem.filters), pitch = problem.packed_filters;
    const Index in_plane = Index(problem.in_plane), in_channel = LAST ? 1 : in_plane;
    const Index out_width = Index(problem.out_size[1]), out_plane = Index(problem.out_plane);

    // What is the same for all threads stays in shared memory, and leaves the registers to the sums.
    if (threadIdx.x < 2) {
        const Place<Index> here = place_of<Index>(problem, Pixels::LENGTH, Weights::LENGTH);
        axes[threadIdx.x] = axis_of<Index>(problem, threadIdx.x, threadIdx.x == 0 ? here.row_phase : here.column_phase);
        if (threadIdx.x == 0) place = here;
    }
    __syncthreads();
    const Index pixels = images * rows.count * columns.count, first_pixel = place.first_pixel;
    if (first_pixel >= pixels) return;  // the whole block: its phase has fewer pixels than others
    for (int i = threadIdx.x; i < Pixels::LENGTH; i += Product::THREADS) {
        const bool present = first_pixel + i < pixels;
        const Pixel<Index> pixel(present ? first_pixel + i : 0, rows, columns);
        const Index in_row = rows.start + pixel.row * rows.stride, in_column = columns.start + pixel.column * columns.stride;
        const Index out_row = rows.first + pixel.row * rows.step, out_column = columns.first + pixel.column * columns.step;
        const Index in_spot = in_row * Index(problem.in_size[1]) + in_column, out_spot = out_row * out_width + out_column;
        spots.row[i] = present ? in_row : -(Index(1) << (8 * sizeof(Index) - 2));
        spots.column[i] = in_column;
        spots.origin[i] = LAST ? (pixel.image * in_plane + in_spot) * groups * channels + place.group * channels
                                 : (pixel.image * groups + place.group) * channels * in_plane + in_spot;
        spots.written[i] = !present ? Index(-1)
                             : LAST   ? (pixel.image * out_plane + out_spot) * groups * filters + place.group * filters
                                      : (pixel.image * groups + place.group) * filters * out_plane + out_spot;
    }
    __syncthreads();

    PixelCopies<Pixels, Index, LAST, WIDTH, Product::THREADS> pixel_copies;
    WeightCopies<Weights, Index, Product::THREADS> weight_copies;
    const Index tap_elements = Index(problem.packed_channels) * pitch;

    // Where the next step to be copied is: its tap, and how many channels of it are left. After the last tap nothing is copied
    // any more, and `left` counts what the stages still hold.
    const Index tap_steps = problem.packed_channels / Pixels::DEPTH;
    const Index first_step = SPLIT ? Index(blockIdx.y) * Index(problem.split_steps) : 0;
    Index tap = first_step / tap_steps, remaining = 0;  // remaining: steps of this block, where it has not all, in later taps
    int left = 0, ahead = 0;
    bool more = true;
    auto look = [&] {
        const Index tap_row = tap / columns.taps, tap_column = tap % columns.taps;
        const Index down = tap_row * rows.dilation, across = tap_column * columns.dilation;
        const Index apart = (down * Index(problem.in_size[1]) + across) * (LAST ? groups * channels : 1);
        pixel_copies.look(spots, apart + pixel_copies.channel() * in_channel, down, across, problem);
        const Index row = rows.tap + tap_row * rows.tap_step, column = columns.tap + tap_column * columns.tap_step;
        const Index number = (place.group * Index(problem.taps[0]) + row) * Index(problem.taps[1]) + column;
        weight_copies.look(number * tap_elements + place.first_filter, pitch);
    };
    auto take = [&](int present) {
        left = present;
        if constexpr (SPLIT) {
            if (remaining * Pixels::DEPTH < present) left = int(remaining) * Pixels::DEPTH;
            remaining -= (left + Pixels::DEPTH - 1) / Pixels::DEPTH;
        }
    };
    auto go_on = [&] {
        ++tap;
        more = SPLIT ? remaining > 0 : tap < rows.taps * columns.taps;
        left = ahead * Pixels::DEPTH;
        if (!more) return;
        look();
        take(int(channels));
    };
    auto pixels_of = [&](int stage) { return tiles + stage + OFFSET_OF_PIXELS; };
    auto weights_of = [&](int stage) { return tiles + stage + OFFSET_OF_WEIGHTS; };
    auto start = [&](int stage) {
        pixel_copies.start(pixels_of(stage), in, in_channel, left);
        weight_copies.start(weights_of(stage), packed, pitch);
    };
    auto finish = [&](int stage) {
        pixel_copies.finish(pixels_of(stage));
        weight_copies.finish(weights_of(stage));
    };

    look();
    if constexpr (SPLIT) {
        const int skipped = int(first_step % tap_steps) * Pixels::DEPTH;
        pixel_copies.skip(skipped * in_channel);
        weight_copies.skip(skipped * pitch);
        remaining = rows.taps * columns.taps * tap_steps - first_step;
        if (remaining > Index(problem.split_steps)) remaining = Index(problem.split_steps);
        more = remaining > 0;
        take(int(channels) - skipped);
    } else {
        take(int(channels));
    }
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (more) {
            start(stage * STAGE);
            finish(stage * STAGE);
            ++ahead;
            left -= Pixels::DEPTH;
            if (left <= 0) go_on();
        }
        __pipeline_commit();
    }
    Product product;
    int stage = 0;
    while (!SPLIT || ahead > 0) {  // a tap; a phase with few taps leaves nothing to some blocks that share a tile
        do {                       // DEPTH of its channels
            __pipeline_wait_prior(STAGES - 2);
            __syncthreads();
            const int next = stage == 0 ? (STAGES - 1) * STAGE : stage - STAGE;
            if (more) start(next);
            __pipeline_commit();
            product.multiply(tiles + stage, tiles + stage + A::ELEMENTS);
            if (more) finish(next);
            stage = stage == (STAGES - 1) * STAGE ? 0 : stage + STAGE;
            left -= Pixels::DEPTH;
        } while (left > 0);
        if (!more) break;
        go_on();
    }
    __syncthreads();  // the tiles have been read

    const Index group = place.group, first_filter = place.first_filter;
    const Index split = Index(blockIdx.y) * images * groups * filters * out_plane;
    each_sum(product, tiles, [&](int row, int column, Sum sum) {
        const Index at = spots.written[LAST ? row : column], filter = first_filter + (LAST ? column : row);
        if (at >= 0 && filter < filters) {
            const Index to = at + filter * (LAST ? Index(1) : out_plane);
            if constexpr (SPLIT) {
                out[split + to] = sum;
            } else {
                out[to] = finished<T>(sum, bias + (group * filters + filter), problem.bias, problem.relu);
            }
        }
    });
}
