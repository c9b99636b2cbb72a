// The gradient of the weights and of the bias:
//
//   dw[f, c, tap] = sum over pixels p of dy[p, f] * x[p moved by tap, c]          db[f] = sum over pixels p of dy[p, f]
//
// As a matrix product it has the filters on one side, the columns (channel and tap) on the other, and all pixels of the
// batch as its depth, which is long where the result is small. So the pixels are split: blockIdx.y sums its share of them,
// and add_splits adds the shares in the order of their numbers. No share depends on chance, so neither does a bit of dw.
//
// A split writes dw and db, one behind the other, into a workspace; where there is but one, it writes the results themselves.
//
//   channels_first  x (N, C, H, W)  dy (N, F, OH, OW)  dw (F, C/groups, KH, KW)
//                   dw[filter][column], columns ordered (channel, tap): tiles of both operands lie along the pixels
//   channels_last   x (N, H, W, C)  dy (N, OH, OW, F)  dw (KH, KW, C/groups, F)
//                   dw[column][filter], columns ordered (tap, channel): they lie along channels and filters
//
// Padding is a zero like any other: times an infinite dy it is NaN.
#include "product.cuh"

struct WeightGradient {
    int channels, filters, groups, taps, kernel_width;
    int height, width, out_width;
    int stride_height, stride_width, top, left, dilation_height, dilation_width;
    int row_tiles, column_tiles, steps;
    unsigned swept_rows, swept_columns, step_rows, step_columns;
    long long pixels, split_size, bias_at;
    long long step_offset, next_line, next_image;
    long long plane, plane_step, x_step, x_next_image, dy_step, dy_next_image;
};
// channels, filters: of one group. steps: of one split. split_size: elements between the results of two splits, or 0 where there
// is but one. bias_at: where db begins in the result of a split. The rest is what a thread adds on its way from pixel to pixel:
// see WindowWalk and PlaneSource. It is here, and not worked out by every thread, so that it takes no registers.

// The windows of every so many pixels of the result: where they start on the padded images.
//
// From one to the next they go step_rows and step_columns on, and by step_offset elements. Where that leads beyond the windows of
// a line (swept_columns) or of an image (swept_rows), they go on by next_line or next_image elements more.
template <typename Index>
struct WindowWalk {
    unsigned row, column;

    // `offset` becomes that of the first start from the first element of x, were there no padding; `apart` elements lie from one
    // pixel of x to the next.
    __device__ __forceinline__ WindowWalk(const WeightGradient& shape, Index pixel, int apart, Index& offset) {
        const Index plane = Index(shape.plane), rest = pixel % plane;
        row = unsigned(rest / shape.out_width) * shape.stride_height;
        column = unsigned(rest % shape.out_width) * shape.stride_width;
        const Index image = Index(shape.height) * shape.width * shape.channels * shape.groups;
        offset = pixel / plane * image + (Index(row) * shape.width + Index(column)) * apart;
    }

    // The row, or where there is no pixel one from which no tap reaches the image.
    __device__ __forceinline__ unsigned row_if(bool real, const WeightGradient& shape) const {
        return real ? row : unsigned(shape.height) + shape.top;
    }

    // Goes on to the next window, and returns by how much its start moves.
    __device__ __forceinline__ Index advance(const WeightGradient& shape) {
        Index step = Index(shape.step_offset);
        row += shape.step_rows;
        column += shape.step_columns;
        if (column >= shape.swept_columns) column -= shape.swept_columns, row += shape.stride_height, step += Index(shape.next_line);
        if (row >= shape.swept_rows) row -= shape.swept_rows, step += Index(shape.next_image);
        return step;
    }
};

// Where a tap of a channel lies on the image, as seen from where the window starts on the padded one. Coordinates are unsigned:
// one before the image is then larger than any in it, so that one comparison finds both ends.
template <typename Index>
struct Tap {
    Index offset;
    unsigned row, column;

    __device__ __forceinline__ void find(const WeightGradient& shape, int tap, Index channel, int apart) {
        row = unsigned(tap / shape.kernel_width) * shape.dilation_height - shape.top;
        column = unsigned(tap % shape.kernel_width) * shape.dilation_width - shape.left;
        offset = channel + (Index(int(row)) * shape.width + Index(int(column))) * apart;
    }

    // Whether it lies on the image, for the window that starts in this row and column.
    __device__ __forceinline__ bool inside(const WeightGradient& shape, unsigned first_row, unsigned first_column) const {
        return (first_row + row < unsigned(shape.height)) & (first_column + column < unsigned(shape.width));
    }
};

// dy of channels_first; and x too (IS_X), where a window is one pixel, so that x lies pixel by pixel as dy does.
//
// From one step to the next the thread's pixel goes plane_step on in its plane, and by x_step or dy_step elements, whole images
// included. Where that leads beyond the plane, it goes on by x_next_image or dy_next_image elements more.
template <typename Operand, int THREADS, int WIDTH, typename Index, bool IS_X>
struct PlaneSource {
    using T = typename Operand::Number;
    using Part = Share<Operand, THREADS, WIDTH>;
    typename Part::Vectors copies;
    const WeightGradient& shape;
    const T* next;  // the thread's first element of the next step
    Index within;   // its pixel, counted from the first of the plane
    int place, rows;  // where the thread's first vector goes; rows that are left from it

    __device__ __forceinline__ PlaneSource(const T* planes, const WeightGradient& shape_, int first_row, Index first_pixel)
        : shape(shape_) {
        const Index plane = Index(shape.plane), pixel = first_pixel + Part::depth(0), row = Index(first_row) + Part::row(0);
        within = pixel % plane;
        place = kept(Part::offset(0));
        rows = kept((IS_X ? shape.channels : shape.filters) - int(row));
        next = planes + (row * plane + pixel + pixel / plane * next_image());
    }

    __device__ __forceinline__ Index next_image() const { return Index(IS_X ? shape.x_next_image : shape.dy_next_image); }

    __device__ __forceinline__ void start(T* tile, Index left) {
        const Index plane = Index(shape.plane);
        const T* from = next;
#pragma unroll
        for (int i = 0; i < Part::COPIES; ++i) {
            if (!Part::EVEN) from = next + Part::rows_apart(i) * plane;
            const bool present = (Part::rows_apart(i) < rows) & (Part::depth(0) < left);
            if (Part::active()) copies.start(i, tile + place + Part::apart(i), from, present);
            from += Part::STEP * plane;
        }
        Index step = Index(IS_X ? shape.x_step : shape.dy_step);
        within += Index(shape.plane_step);
        if (within >= plane) within -= plane, step += next_image();
        next += step;
    }

    __device__ __forceinline__ void finish(T* tile) const { Part::finish(copies, tile); }
};

// x of channels_first: a thread copies one pixel for every column of its part. Lanes stand on neighbouring pixels.
template <typename Operand, int THREADS, typename Index>
struct WindowSource {
    using T = typename Operand::Number;
    using Part = Share<Operand, THREADS, 1>;
    static_assert(Part::STEP * Part::SIDE_BY_SIDE == THREADS, "all threads copy");
    typename Part::Vectors copies;
    // Where the window of the next step starts: an address, for of pointers the compiler adds up all parts anew for every copy.
    unsigned long long next;
    int place;  // where the thread's first vector goes
    const WeightGradient& shape;
    Index offset;
    WindowWalk<Index> window;
    // The taps of the thread's columns; those of all the tile's where they are more than registers can hold.
    static constexpr bool TABULATED = Part::COPIES > 8;
    Tap<Index> taps[TABULATED ? 1 : Part::COPIES];
    const Tap<Index>* table;

    __device__ __forceinline__ WindowSource(const T* x, const WeightGradient& shape_, int first_column, Index first_pixel)
        : shape(shape_), window(shape_, first_pixel + Part::depth(0), 1, offset) {
        next = reinterpret_cast<unsigned long long>(x + offset);
        place = kept(Part::offset(0));
        if constexpr (TABULATED) {
            __shared__ Tap<Index> shared_taps[Operand::LENGTH];
            for (int row = threadIdx.x; row < Operand::LENGTH; row += THREADS) find(shared_taps[row], first_column + row);
            __syncthreads();
            table = shared_taps;
        } else {
#pragma unroll
            for (int i = 0; i < Part::COPIES; ++i) find(taps[i], first_column + Part::row(i));
        }
    }

    __device__ __forceinline__ void find(Tap<Index>& tap, int column) const {
        if (column >= shape.channels * shape.taps) column = 0;  // behind the last: its sums are dropped
        tap.find(shape, column % shape.taps, Index(column / shape.taps) * shape.height * shape.width, 1);
    }

    __device__ __forceinline__ void start(T* tile, Index left) {
        const unsigned row = window.row_if(Part::depth(0) < left, shape);
#pragma unroll
        for (int i = 0; i < Part::COPIES; ++i) {
            const Tap<Index> tap = TABULATED ? table[Part::row(i)] : taps[TABULATED ? 0 : i];
            const bool present = tap.inside(shape, row, window.column);
            const T* const from = reinterpret_cast<const T*>(next + (unsigned long long)(tap.offset) * sizeof(T));
            copies.start(i, tile + place + Part::apart(i), from, present);
        }
        next += (unsigned long long)(window.advance(shape)) * sizeof(T);
    }

    __device__ __forceinline__ void finish(T* tile) const { Part::finish(copies, tile); }
};

// x of channels_last: a thread copies WIDTH channels of one tap for every pixel of its part. Lanes stand on neighbouring channels.
template <typename Operand, int THREADS, int WIDTH, typename Index>
struct TapSource {
    using T = typename Operand::Number;
    using Part = Share<Operand, THREADS, WIDTH>;
    typename Part::Vectors copies;
    const T* next;  // the thread's tap and channel of the next window
    int place;      // where its first vector goes
    const WeightGradient& shape;
    Index offset;
    WindowWalk<Index> window;
    Tap<Index> tap;

    __device__ __forceinline__ TapSource(const T* x, const WeightGradient& shape_, int first_column, Index first_pixel)
        : shape(shape_), window(shape_, first_pixel + Part::depth(0), shape_.channels * shape_.groups, offset) {
        const int wanted = first_column + Part::row(0), column = wanted < shape.channels * shape.taps ? wanted : 0;
        tap.find(shape, column / shape.channels, column % shape.channels, shape.channels * shape.groups);
        next = x + (offset + tap.offset);
        place = kept(Part::offset(0));
    }

    __device__ __forceinline__ void start(T* tile, Index left) {
#pragma unroll
        for (int i = 0; i < Part::COPIES; ++i) {
            const bool present = tap.inside(shape, window.row_if(Part::depth(i) < left, shape), window.column);
            if (Part::active()) copies.start(i, tile + place + Part::apart(i), next, present);
            next += window.advance(shape);
        }
    }

    __device__ __forceinline__ void finish(T* tile) const { Part::finish(copies, tile); }
};

// The sum of a row of the tile of dy, of which each thread has one.
template <typename Operand>
__device__ __forceinline__ accumulator_t<typename Operand::Number> sum_of_row(const typename Operand::Number* tile) {
    using T = typename Operand::Number;
    constexpr int WIDTH = Operand::ORDER == ALONG_DEPTH ? Operand::FULL_WIDTH : 1;
    accumulator_t<T> sum(0);
#pragma unroll
    for (int k = 0; k < Operand::DEPTH; k += WIDTH) {
        const auto vector = *reinterpret_cast<const Vector<T, WIDTH>*>(tile + Operand::offset(threadIdx.x, k));
#pragma unroll
        for (int i = 0; i < WIDTH; ++i) sum += accumulator_t<T>(widen(vector.at[i]));
    }
    return sum;
}

// Sums ROWS x COLUMNS entries of one group's dw over the pixels of the block's split; the first block of each filter, db too.
// Grid: x = group, tile of rows, tile of columns, the last of them fastest; y = split.
template <typename Product, typename Out, typename Index, bool LAST, int X_WIDTH, int DY_WIDTH, int STAGES>
__device__ __forceinline__ void weight_gradient_tile(
    const typename Product::Number* __restrict__ x, const typename Product::Number* __restrict__ dy, Out* __restrict__ dw,
    typename Product::Number* __restrict__ db, const WeightGradient& shape) {
    using T = typename Product::Number;
    using A = typename Product::A;
    using B = typename Product::B;
    static_assert(Product::ROWS <= Product::THREADS && Product::COLUMNS <= Product::THREADS, "a thread for each filter of the tile");
    extern __shared__ __align__(128) unsigned char memory[];
    T* const shared = reinterpret_cast<T*>(memory);

    int rest = blockIdx.x;
    const int column_tile = rest % shape.column_tiles;
    rest /= shape.column_tiles;
    const int row_tile = rest % shape.row_tiles, group = rest / shape.row_tiles;
    const Index most = Index(shape.steps) * Product::DEPTH, first_pixel = blockIdx.y * most;
    const Index left = Index(shape.pixels) - first_pixel, pixels = left < most ? left : most;
    const int columns = shape.channels * shape.taps;
    const int first_row = row_tile * Product::ROWS, first_column = column_tile * Product::COLUMNS;
    const int first_filter = LAST ? first_column : first_row;
    const Index group_filter = Index(group) * shape.filters, group_channel = Index(group) * shape.channels;

    dw += blockIdx.y * shape.split_size;
    Product tile;
    accumulator_t<T> bias(0);
    const bool sums_bias = (LAST ? row_tile : column_tile) == 0;

    auto sum = [&](auto& a, auto& b) {
        // Two loops, for what a loop may do but doesn't costs time, too.
        if (!sums_bias) {
            sum_product<STAGES>(tile, shared, a, b, pixels, [](const T*, const T*) {});
        } else {
            sum_product<STAGES>(tile, shared, a, b, pixels, [&](const T* a_tile, const T* b_tile) {
                if constexpr (LAST) {
                    if (threadIdx.x < B::LENGTH) bias += sum_of_row<B>(b_tile);
                } else {
                    if (threadIdx.x < A::LENGTH) bias += sum_of_row<A>(a_tile);
                }
            });
        }
    };
    if constexpr (LAST) {
        TapSource<A, Product::THREADS, X_WIDTH, Index> a(x + group_channel, shape, first_row, first_pixel);
        MatrixSource<B, Product::THREADS, DY_WIDTH, Index> b(
            dy + group_filter, Index(shape.filters) * shape.groups, shape.filters, first_column, first_pixel);
        sum(a, b);
    } else {
        PlaneSource<A, Product::THREADS, DY_WIDTH, Index, false> a(dy + group_filter * Index(shape.plane), shape, first_row, first_pixel);
        const T* const group_x = x + group_channel * shape.height * shape.width;
        if constexpr (X_WIDTH > 1) {
            PlaneSource<B, Product::THREADS, X_WIDTH, Index, true> b(group_x, shape, first_column, first_pixel);
            sum(a, b);
        } else {
            WindowSource<B, Product::THREADS, Index> b(group_x, shape, first_column, first_pixel);
            sum(a, b);
        }
    }

    const int all_rows = LAST ? columns : shape.filters, all_columns = LAST ? shape.filters : columns;
    const Index pitch = LAST ? Index(shape.filters) * shape.groups : columns;
    Out* const target = dw + group_filter * (LAST ? 1 : columns);
    each_sum(tile, shared, [&](int row, int column, accumulator_t<T> sum) {
        row += first_row;
        column += first_column;
        if (row < all_rows && column < all_columns) target[row * pitch + column] = narrow<Out>(sum);
    });
    const int filter = first_filter + threadIdx.x;
    if (sums_bias && threadIdx.x < (LAST ? Product::COLUMNS : Product::ROWS) && filter < shape.filters) {
        if (shape.split_size) {
            dw[shape.bias_at + group_filter + filter] = narrow<Out>(bias);
        } else {
            db[group_filter + filter] = narrow<T>(bias);
        }
    }
}
