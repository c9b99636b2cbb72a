// Pooling and its gradients.
//
// Both orders of the axes are one: a batch is (planes, height, width, channels), where channels_last is (N, H, W, C) as it is
// and channels_first (N, C, H, W) is (N * C, H, W, 1). A thread computes CHANNELS neighbouring channels of one pixel, up to 16
// bytes where they divide the channels, and its neighbours compute what lies next to that in memory:
//
//      channels_first    y  | o | o | o | o |        channels_last   y  | o o o o | o o o o |   one pixel
//                    thread   0   1   2   3                      thread      0         1
//
// so that a warp reads and writes whole lines. Windows that lie side by side on one channel are computed COLUMNS at a time.
// What the windows of neighbouring threads share comes from the cache. Gradients are gathered, never scattered: each pixel asks
// the windows that cover it, in the same order every time.
//
// Index is the type of offsets and positions. KH x KW is the size of the window where it is known at compile time, else 0 x 0;
// a window of known size, without dilation, is unrolled: all its loads are under way before the first value is looked at.
#include "common.cuh"
#include "division.cuh"

constexpr int THREADS = 256;

struct Pool2d {
    long long items;  // threads with something to do
    long long height, width, channels, out_height, out_width;
    long long window_height, window_width, stride_height, stride_width, dilation_height, dilation_width;
    long long top, left;  // of the padding
    // What of the padding counts in a mean.
    long long counted_top, counted_bottom, counted_left, counted_right;
    // How to divide by vectors of channels, columns and rows of what the items lie in, by the strides and the window's width.
    unsigned by_vectors[2], by_columns[2], by_rows[2], by_stride_height[2], by_stride_width[2], by_window_width[2];
    int only_positive;  // whether a maximum that is not greater than 0 belongs to no tap
};

// An item among (planes, rows, columns, vectors of `width` channels).
template <typename Index> struct Item {
    Index plane, row, column, channel;

    __device__ __forceinline__ Item(Index number, Index rows, Index columns, Index vectors, int width, const Pool2d& pool) {
        const Index pixel = quotient(number, vectors, pool.by_vectors);
        channel = (number - pixel * vectors) * width;
        const Index line = quotient(pixel, columns, pool.by_columns);
        column = pixel - line * columns;
        plane = quotient(line, rows, pool.by_rows);
        row = line - plane * rows;
    }
};

// Along one axis: the windows, from first to last, that a position of the padded image may belong to.
template <typename Index> struct Covering {
    Index first, last;

    __device__ __forceinline__ Covering(
        Index position, Index window, Index dilation, Index outputs, long long stride, const unsigned (&by_stride)[2]) {
        const Index span = dilation * (window - 1) + 1;
        first = position < span ? Index(0) : quotient(Index(position - span), stride, by_stride) + 1;
        last = quotient(position, stride, by_stride);
        if (last >= outputs) last = outputs - 1;
    }
};

// Calls visit(window row, window column, tap row, tap column, whether there is such a window) for the windows that cover a
// pixel of the image, the last one first. With MOST > 0 windows have no dilation, and no more than MOST of them cover a pixel
// along either axis: as many are named whether they are there or not, so that all loads can be under way together.
template <int MOST, typename Index, typename Visit>
__device__ __forceinline__ void visit_covering_windows(Index row, Index column, const Pool2d& pool, Visit visit) {
    const Index out_height = Index(pool.out_height), out_width = Index(pool.out_width);
    const Index window_height = Index(pool.window_height), window_width = Index(pool.window_width);
    const Index stride_height = Index(pool.stride_height), stride_width = Index(pool.stride_width);
    row += Index(pool.top);
    column += Index(pool.left);
    if constexpr (MOST > 0) {
        const Index last_row = quotient(row, stride_height, pool.by_stride_height);
        const Index last_column = quotient(column, stride_width, pool.by_stride_width);
#pragma unroll
        for (int number = 0; number < MOST * MOST; ++number) {
            const Index out_row = last_row - number / MOST, below = row - out_row * stride_height;
            const Index out_column = last_column - number % MOST, beside = column - out_column * stride_width;
            const bool there_down = out_row >= 0 && out_row < out_height && below < window_height;
            const bool there = there_down && out_column >= 0 && out_column < out_width && beside < window_width;
            visit(there ? out_row : Index(0), there ? out_column : Index(0), below, beside, there);
        }
    } else {
        const Index dilation_height = Index(pool.dilation_height), dilation_width = Index(pool.dilation_width);
        const Covering<Index> down(row, window_height, dilation_height, out_height, stride_height, pool.by_stride_height);
        const Covering<Index> across(column, window_width, dilation_width, out_width, stride_width, pool.by_stride_width);
#pragma unroll 1
        for (Index out_row = down.last; out_row >= down.first; --out_row) {
            const Index below = row - out_row * stride_height;
            if (dilation_height > 1 && below % dilation_height != 0) continue;
#pragma unroll 1
            for (Index out_column = across.last; out_column >= across.first; --out_column) {
                const Index beside = column - out_column * stride_width;
                if (dilation_width > 1 && beside % dilation_width != 0) continue;
                visit(out_row, out_column, below, beside, true);
            }
        }
    }
}

// The row of windows that covers a row of pixels where windows neither overlap nor leave the image, and which of their rows of
// taps does. Where none covers it the first is named.
template <typename Index> struct Row {
    Index window, below;
    bool covered;

    __device__ __forceinline__ Row(Index row, const Pool2d& pool) {
        window = quotient(row, Index(pool.stride_height), pool.by_stride_height);
        below = row - window * Index(pool.stride_height);
        covered = window < Index(pool.out_height) && below < Index(pool.window_height);
        window = covered ? window : Index(0);
    }
};

// Calls visit(i, value, row, column, number of the tap) for every tap of a window that lies on the image, in row-major order,
// for CHANNELS neighbouring channels i. `image` is the first row of the plane, at the first of these channels.
//
// With COLUMNS > 0 windows lie side by side, never leave the image, and have one channel: i is then one of COLUMNS neighbouring
// windows, of which the given position is the first, and each row of them is one load:
//
//      | 0 0 | 1 1 |      KH = KW = 2, COLUMNS = 2: two loads of four
//      | 0 0 | 1 1 |
template <int KH, int KW, int COLUMNS, int CHANNELS, typename T, typename Index, typename Visit>
__device__ __forceinline__ void visit_windows(
    const T* image, Index first_row, Index first_column, const Pool2d& pool, Visit visit) {
    const Index height = Index(pool.height), width = Index(pool.width), channels = Index(pool.channels);
    if constexpr (COLUMNS > 0) {
        Vector<T, COLUMNS * KW> seen[KH];
#pragma unroll
        for (int i = 0; i < KH; ++i) seen[i] = vector_at<COLUMNS * KW>(image + (first_row + i) * width + first_column);
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i)
#pragma unroll
            for (int tap = 0; tap < KH * KW; ++tap) {
                const int beside = i * KW + tap % KW;
                visit(i, seen[tap / KW].at[beside], first_row + tap / KW, first_column + beside, Index(tap));
            }
    } else if constexpr (KH > 0) {
        const auto on_image = [&](Index row, Index column) {
            return row >= 0 && row < height && column >= 0 && column < width;
        };
        Vector<T, CHANNELS> seen[KH * KW];
#pragma unroll
        for (int tap = 0; tap < KH * KW; ++tap) {
            const Index row = first_row + tap / KW, column = first_column + tap % KW;
            if (on_image(row, column)) seen[tap] = vector_at<CHANNELS>(image + (row * width + column) * channels);
        }
#pragma unroll
        for (int tap = 0; tap < KH * KW; ++tap) {
            const Index row = first_row + tap / KW, column = first_column + tap % KW;
            if (on_image(row, column)) {
#pragma unroll
                for (int i = 0; i < CHANNELS; ++i) visit(i, seen[tap].at[i], row, column, Index(tap));
            }
        }
    } else {
        const Index dilation_height = Index(pool.dilation_height), dilation_width = Index(pool.dilation_width);
        const Index window_width = Index(pool.window_width);
#pragma unroll 1
        for (Index below = 0; below < Index(pool.window_height); ++below) {
            const Index row = first_row + below * dilation_height;
            if (row < 0 || row >= height) continue;
#pragma unroll 2
            for (Index beside = 0; beside < window_width; ++beside) {
                const Index column = first_column + beside * dilation_width;
                if (column < 0 || column >= width) continue;
                const Vector<T, CHANNELS> seen = vector_at<CHANNELS>(image + (row * width + column) * channels);
#pragma unroll
                for (int i = 0; i < CHANNELS; ++i) visit(i, seen.at[i], row, column, below * window_width + beside);
            }
        }
    }
}

// Stores what was computed for neighbouring elements, rounded to their type.
template <int WIDTH, typename T> __device__ __forceinline__ void store_rounded(T* to, const accumulator_t<T> (&values)[WIDTH]) {
    Vector<T, WIDTH> rounded;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) rounded.at[i] = narrow<T>(values[i]);
    vector_at<WIDTH>(to) = rounded;
}

// ---- maximum ------------------------------------------------------------------------------------------------------------

// Where a maximum was: its position in the plane, or with bytes the number of its tap.
template <typename Position> struct Noted {
    template <typename Index> __device__ static Index place(Index row, Index column, Index, const Pool2d& pool) {
        return row * Index(pool.width) + column;
    }
    template <typename Number> __device__ static bool kept(Number, const Pool2d&) { return true; }
};
template <> struct Noted<unsigned char> {
    template <typename Index> __device__ static Index place(Index, Index, Index tap, const Pool2d&) { return tap; }
    // What ReLU held back passes no gradient on, to no tap.
    template <typename Number> __device__ static bool kept(Number maximum, const Pool2d& pool) {
        return !pool.only_positive || maximum > 0;
    }
};

// The type in a pack of none or one; long long where there is none.
template <typename... Positions> struct Only { using Type = long long; };
template <typename Position> struct Only<Position> { using Type = Position; };

template <typename Number> __device__ __forceinline__ Number lowest() { return -Number(__int_as_float(0x7f800000)); }

// Stores where the maxima of neighbouring channels were.
template <int WIDTH, typename Index, typename Number, typename Position>
__device__ __forceinline__ void note(
    Position* positions, const Index (&places)[WIDTH], const Number (&maxima)[WIDTH], const Pool2d& pool) {
    constexpr unsigned char NO_TAP = 255;  // the number of a tap that no window has
    Vector<Position, WIDTH> noted;
#pragma unroll
    for (int i = 0; i < WIDTH; ++i)
        noted.at[i] = Noted<Position>::kept(maxima[i], pool) ? Position(places[i]) : Position(NO_TAP);
    vector_at<WIDTH>(positions) = noted;
}

// y = the maximum of each window, and where it was if `positions` is given: the first NaN, or else the first of the greatest.
template <typename T, typename Index, int KH, int KW, int COLUMNS, int CHANNELS, typename... Positions>
__global__ void __launch_bounds__(THREADS, 1) max_pool2d_forward(const T* x, T* y, Pool2d pool, Positions*... positions) {
    using Number = accumulator_t<T>;
    using Places = Noted<typename Only<Positions...>::Type>;
    constexpr int WINDOWS = COLUMNS > 0 ? COLUMNS : 1, OUTPUTS = WINDOWS * CHANNELS;
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    if (number >= Index(pool.items)) return;
    const Index channels = Index(pool.channels), columns = Index(pool.out_width) / WINDOWS;
    const Item<Index> item(number, Index(pool.out_height), columns, channels / CHANNELS, CHANNELS, pool);
    const Index first_row = item.row * Index(pool.stride_height) - Index(pool.top);
    const Index first_column = item.column * WINDOWS * Index(pool.stride_width) - Index(pool.left);

    Number maxima[OUTPUTS];
    Index places[OUTPUTS];
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
        maxima[i] = lowest<Number>();
        places[i] = -1;
    }
    const auto compare = [&](int i, T seen, Index row, Index column, Index tap) {
        const Number value = widen(seen);
        // Nothing is greater than NaN, and NaN replaces numbers only. Where all is -inf the first still has a place.
        bool wins = value > maxima[i] || (value != value && maxima[i] == maxima[i]);
        if constexpr (sizeof...(Positions) > 0) wins = wins || places[i] < 0;
        maxima[i] = wins ? value : maxima[i];
        places[i] = wins ? Places::place(row, column, tap, pool) : places[i];
    };
    const T* image = x + item.plane * Index(pool.height) * Index(pool.width) * channels + item.channel;
    visit_windows<KH, KW, COLUMNS, CHANNELS>(image, first_row, first_column, pool, compare);
    store_rounded(y + number * OUTPUTS, maxima);
    (note(positions + number * OUTPUTS, places, maxima, pool), ...);
}

// dx = the gradients of the windows that a pixel won, summed from the last window in its row-major order to the first. A thread
// computes CHANNELS neighbouring channels of COLUMNS neighbouring pixels; one of the two is 1.
//
// With KW > 0 a row of pixels is tiled by windows of that width, so that COLUMNS / KW neighbouring windows are what it needs.
template <typename T, typename Index, int KW, int COLUMNS, int CHANNELS, int MOST, typename Position>
__global__ void __launch_bounds__(THREADS, 1) max_pool2d_backward(const T* dy, const Position* positions, T* dx, Pool2d pool) {
    using Number = accumulator_t<T>;
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    if (number >= Index(pool.items)) return;
    const Index channels = Index(pool.channels);
    const Item<Index> item(number, Index(pool.height), Index(pool.width) / COLUMNS, channels / CHANNELS, CHANNELS, pool);
    const Index first_line = item.plane * Index(pool.out_height);

    // What a window gives to a pixel: chosen, not multiplied, so that infinite gradients stay out of where they don't belong.
    const auto share = [&](T gradient, Position winner, Index column, Index tap) {
        return winner == Position(Noted<Position>::place(item.row, column, tap, pool)) ? Number(widen(gradient)) : Number(0);
    };
    Number sums[COLUMNS * CHANNELS];
    if constexpr (KW > 0) {
        constexpr int WINDOWS = COLUMNS / KW;
        const Row<Index> row(item.row, pool);
        const Index offset = (first_line + row.window) * Index(pool.out_width) + item.column * WINDOWS;
        const auto gradients = vector_at<WINDOWS>(dy + offset);
        const auto winners = vector_at<WINDOWS>(positions + offset);
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
            const Index column = item.column * COLUMNS + i, tap = row.below * KW + i % KW;
            sums[i] = row.covered ? share(gradients.at[i / KW], winners.at[i / KW], column, tap) : Number(0);
        }
    } else {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
            const Index column = item.column * COLUMNS + i;
#pragma unroll
            for (int j = 0; j < CHANNELS; ++j) sums[i * CHANNELS + j] = 0;
            const auto add = [&](Index out_row, Index out_column, Index below, Index beside, bool there) {
                const Index offset = ((first_line + out_row) * Index(pool.out_width) + out_column) * channels + item.channel;
                const auto gradients = vector_at<CHANNELS>(dy + offset);
                const auto winners = vector_at<CHANNELS>(positions + offset);
                const Index tap = below * Index(pool.window_width) + beside;  // of windows without dilation
#pragma unroll
                for (int j = 0; j < CHANNELS; ++j)
                    sums[i * CHANNELS + j] += there ? share(gradients.at[j], winners.at[j], column, tap) : Number(0);
            };
            visit_covering_windows<MOST>(item.row, column, pool, add);
        }
    }
    store_rounded(dx + number * (COLUMNS * CHANNELS), sums);
}

// Adds to *misplaced the positions that are none of a pixel of the image that their own window reads.
template <typename Index>
__global__ void __launch_bounds__(THREADS, 1)
    count_misplaced(const long long* positions, unsigned long long* misplaced, Pool2d pool) {
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    bool wrong = false;
    if (number < Index(pool.items)) {
        const Item<Index> item(number, Index(pool.out_height), Index(pool.out_width), Index(pool.channels), 1, pool);
        const long long position = positions[number];
        wrong = position < 0 || position >= pool.height * pool.width;
        if (!wrong) {
            const Index row = Index(position) / Index(pool.width);
            const Index below = row + Index(pool.top) - item.row * Index(pool.stride_height);
            const Index column = Index(position) - row * Index(pool.width);
            const Index beside = column + Index(pool.left) - item.column * Index(pool.stride_width);
            const Index dilation_height = Index(pool.dilation_height), dilation_width = Index(pool.dilation_width);
            wrong = below < 0 || below > dilation_height * Index(pool.window_height - 1) || below % dilation_height != 0 ||
                    beside < 0 || beside > dilation_width * Index(pool.window_width - 1) || beside % dilation_width != 0;
        }
    }
    const int found = __syncthreads_count(wrong);
    if (threadIdx.x == 0 && found > 0) atomicAdd(misplaced, (unsigned long long)(found));  // whole numbers: any order will do
}

// latest = 1 + the number of the last maximum, in row-major order of its plane, that names a position; 0 where none does.
template <typename Index>
__global__ void __launch_bounds__(THREADS, 1) find_latest(const long long* positions, Index* latest, Pool2d pool) {
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    if (number >= Index(pool.items)) return;
    const Index channels = Index(pool.channels);
    const Item<Index> item(number, Index(pool.height), Index(pool.width), channels, 1, pool);
    const long long position = positions[number], pixels = pool.out_height * pool.out_width;
    if (position < 0 || position >= pixels) return;  // whoever calls has looked at them; but nothing is written elsewhere
    const Index target = (item.plane * Index(pixels) + Index(position)) * channels;
    atomicMax(latest + target + item.channel, item.row * Index(pool.width) + item.column + 1);
}

// y = the maximum that `latest` names, or 0. Maxima x are of height x width pixels, the result y of out_height x out_width.
template <typename T, typename Index>
__global__ void __launch_bounds__(THREADS, 1) max_unpool2d(const T* x, const Index* latest, T* y, Pool2d pool) {
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    if (number >= Index(pool.items)) return;
    const Index channels = Index(pool.channels);
    const Item<Index> item(number, Index(pool.out_height), Index(pool.out_width), channels, 1, pool);
    const Index source = latest[number];
    const Index image = item.plane * Index(pool.height * pool.width);
    y[number] = source > 0 ? x[(image + source - 1) * channels + item.channel] : zero<T>();
}

// ---- mean ---------------------------------------------------------------------------------------------------------------

// Positions along one axis that count in the mean of a window that begins at `start`: up to the end of the padding at most,
// or of the image.
template <typename Index>
__device__ __forceinline__ Index counted(Index start, Index window, Index size, Index before, Index after) {
    const Index end = start + window < size + after ? start + window : size + after;
    return end - (start > -before ? start : -before);
}

template <typename Index> __device__ __forceinline__ Index divisor(Index row, Index column, const Pool2d& pool) {
    const Index start_row = row * Index(pool.stride_height) - Index(pool.top);
    const Index start_column = column * Index(pool.stride_width) - Index(pool.left);
    const Index rows = counted(
        start_row, Index(pool.window_height), Index(pool.height), Index(pool.counted_top), Index(pool.counted_bottom));
    const Index columns = counted(
        start_column, Index(pool.window_width), Index(pool.width), Index(pool.counted_left), Index(pool.counted_right));
    return rows * columns;
}

// y = the mean of each window.
template <typename T, typename Index, int KH, int KW, int COLUMNS, int CHANNELS>
__global__ void __launch_bounds__(THREADS, 1) avg_pool2d_forward(const T* x, T* y, Pool2d pool) {
    using Number = accumulator_t<T>;
    constexpr int WINDOWS = COLUMNS > 0 ? COLUMNS : 1, OUTPUTS = WINDOWS * CHANNELS;
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    if (number >= Index(pool.items)) return;
    const Index channels = Index(pool.channels), columns = Index(pool.out_width) / WINDOWS;
    const Item<Index> item(number, Index(pool.out_height), columns, channels / CHANNELS, CHANNELS, pool);
    const Index first_row = item.row * Index(pool.stride_height) - Index(pool.top);
    const Index first_column = item.column * WINDOWS * Index(pool.stride_width) - Index(pool.left);

    Number means[OUTPUTS];
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) means[i] = 0;
    const T* image = x + item.plane * Index(pool.height) * Index(pool.width) * channels + item.channel;
    const auto add = [&](int i, T seen, Index, Index, Index) { means[i] += widen(seen); };
    visit_windows<KH, KW, COLUMNS, CHANNELS>(image, first_row, first_column, pool, add);
    const Number count = Number(divisor(item.row, item.column * WINDOWS, pool));  // that of its neighbours, too
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) means[i] /= count;
    store_rounded(y + number * OUTPUTS, means);
}

// dx = the shares of all windows that cover a pixel. Threads as in max_pool2d_backward.
template <typename T, typename Index, int KW, int COLUMNS, int CHANNELS, int MOST>
__global__ void __launch_bounds__(THREADS, 1) avg_pool2d_backward(const T* dy, T* dx, Pool2d pool) {
    using Number = accumulator_t<T>;
    const Index number = Index(blockIdx.x) * THREADS + Index(threadIdx.x);
    if (number >= Index(pool.items)) return;
    const Index channels = Index(pool.channels);
    const Item<Index> item(number, Index(pool.height), Index(pool.width) / COLUMNS, channels / CHANNELS, CHANNELS, pool);
    const Index first_line = item.plane * Index(pool.out_height);

    Number sums[COLUMNS * CHANNELS];
    if constexpr (KW > 0) {
        constexpr int WINDOWS = COLUMNS / KW;
        const Row<Index> row(item.row, pool);
        const auto gradients =
            vector_at<WINDOWS>(dy + (first_line + row.window) * Index(pool.out_width) + item.column * WINDOWS);
        const Number count = Number(divisor(row.window, item.column * WINDOWS, pool));
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i)
            sums[i] = row.covered ? Number(widen(gradients.at[i / KW])) / count : Number(0);
    } else {
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) {
#pragma unroll
            for (int j = 0; j < CHANNELS; ++j) sums[i * CHANNELS + j] = 0;
            const auto add = [&](Index out_row, Index out_column, Index, Index, bool there) {
                const Number count = Number(divisor(out_row, out_column, pool));
                const Index offset = ((first_line + out_row) * Index(pool.out_width) + out_column) * channels + item.channel;
                const auto gradients = vector_at<CHANNELS>(dy + offset);
#pragma unroll
                for (int j = 0; j < CHANNELS; ++j)
                    sums[i * CHANNELS + j] += there ? Number(widen(gradients.at[j])) / count : Number(0);
            };
            visit_covering_windows<MOST>(item.row, item.column * COLUMNS + i, pool, add);
        }
    }
    store_rounded(dx + number * (COLUMNS * CHANNELS), sums);
}

// ---- large windows, few of them -----------------------------------------------------------------------------------------

// A team of threads for each window, and for each channel of it, where one thread each would leave the card idle. What the
// threads of a block are, from the slowest to the fastest:
//
//      channels_first   8 windows, 32 members, 1 channel        lanes of a warp read neighbours along W
//      channels_last    1 window,  8 members, 32 channels       and here neighbouring channels
//
// Each member takes every MEMBERS-th tap.
template <typename Index, int CHANNELS> struct WindowTeam {
    static constexpr int MEMBERS = CHANNELS == 1 ? 32 : 8, WINDOWS = THREADS / (MEMBERS * CHANNELS);
    const Pool2d& pool;
    int member;
    bool present;
    Index plane, row, column, channel;

    __device__ __forceinline__ explicit WindowTeam(const Pool2d& pool_) : pool(pool_) {
        const Index number = Index(blockIdx.x) * WINDOWS + Index(threadIdx.x) / (MEMBERS * CHANNELS);
        const Index channels = Index(pool.channels), vectors = (channels + CHANNELS - 1) / CHANNELS;
        const Item<Index> item(number, Index(pool.out_height), Index(pool.out_width), vectors, CHANNELS, pool);
        plane = item.plane;
        row = item.row;
        column = item.column;
        channel = item.channel + threadIdx.x % CHANNELS;
        member = threadIdx.x / CHANNELS % MEMBERS;
        present = number < Index(pool.items) && channel < channels;
    }

    // Calls visit(value, row, column, number of the tap) for the taps of this member that lie on the image, in row-major order.
    template <typename T, typename Visit> __device__ __forceinline__ void visit_own_taps(const T* x, Visit visit) const {
        const Index height = Index(pool.height), width = Index(pool.width), channels = Index(pool.channels);
        const Index window_width = Index(pool.window_width);
        const Index taps = present ? Index(pool.window_height) * window_width : Index(0);
        const Index first_row = row * Index(pool.stride_height) - Index(pool.top);
        const Index first_column = column * Index(pool.stride_width) - Index(pool.left);
        for (Index tap = member; tap < taps; tap += MEMBERS) {
            const Index i = quotient(tap, window_width, pool.by_window_width);
            const Index at_row = first_row + i * Index(pool.dilation_height);
            const Index at_column = first_column + (tap - i * window_width) * Index(pool.dilation_width);
            if (at_row >= 0 && at_row < height && at_column >= 0 && at_column < width)
                visit(widen(x[((plane * height + at_row) * width + at_column) * channels + channel]), at_row, at_column, tap);
        }
    }

    __device__ __forceinline__ Index output() const {
        return ((plane * Index(pool.out_height) + row) * Index(pool.out_width) + column) * Index(pool.channels) + channel;
    }

    // Calls combine(own, other) with the numbers of two threads of the team until the first member has all. All threads of
    // the block must come here.
    template <typename Combine> __device__ __forceinline__ void reduce(Combine combine) const {
#pragma unroll
        for (int distance = MEMBERS / 2; distance > 0; distance /= 2) {
            __syncthreads();
            if (member < distance) combine(int(threadIdx.x), int(threadIdx.x) + distance * CHANNELS);
        }
    }
};

// As max_pool2d_forward.
template <typename T, typename Index, int CHANNELS, typename... Positions>
__global__ void __launch_bounds__(THREADS, 1)
    max_pool2d_forward_in_teams(const T* x, T* y, Pool2d pool, Positions*... positions) {
    using Number = accumulator_t<T>;
    using Places = Noted<typename Only<Positions...>::Type>;
    __shared__ Number values[THREADS];
    __shared__ Index places[THREADS];
    const WindowTeam<Index, CHANNELS> team(pool);
    Number maximum = lowest<Number>();
    Index found = -1;
    team.visit_own_taps(x, [&](Number value, Index row, Index column, Index tap) {
        if (found < 0 || value > maximum || (value != value && maximum == maximum)) {
            maximum = value;
            found = Places::place(row, column, tap, pool);
        }
    });
    values[threadIdx.x] = maximum;
    places[threadIdx.x] = found;
    team.reduce([&](int own, int other) {
        const Number a = values[own], b = values[other];
        const bool equal = a == b || (a != a && b != b), greater = b > a || (b != b && a == a);
        if (places[other] >= 0 && (places[own] < 0 || greater || (equal && places[other] < places[own]))) {
            values[own] = b;
            places[own] = places[other];
        }
    });
    if (team.present && team.member == 0) {
        const Index own_place[1] = {places[threadIdx.x]};
        const Number own_maximum[1] = {values[threadIdx.x]};
        store_rounded(y + team.output(), own_maximum);
        (note(positions + team.output(), own_place, own_maximum, pool), ...);
    }
}

// As avg_pool2d_forward.
template <typename T, typename Index, int CHANNELS>
__global__ void __launch_bounds__(THREADS, 1) avg_pool2d_forward_in_teams(const T* x, T* y, Pool2d pool) {
    using Number = accumulator_t<T>;
    __shared__ Number sums[THREADS];
    const WindowTeam<Index, CHANNELS> team(pool);
    Number sum = 0;
    team.visit_own_taps(x, [&](Number value, Index, Index, Index) { sum += value; });
    sums[threadIdx.x] = sum;
    team.reduce([&](int own, int other) { sums[own] += sums[other]; });
    if (team.present && team.member == 0)
        y[team.output()] = narrow<T>(sums[threadIdx.x] / Number(divisor(team.row, team.column, pool)));
}
