// The product of two tiles in shared memory, C (M, N) += A (M, K) B (K, N), which every matrix product here is made of.
//
// A block of threads owns ROWS x COLUMNS entries of C and walks along K in steps of DEPTH. Its warps lie side by side on
// that tile, and in a warp's part the 32 lanes:
//
//        COLUMNS                          WARP_COLUMNS
//      +-------+-------+                +---------------------+
//      | warp0 | warp1 |                | lane0  lane1 ..      |  each lane sums LANE_ROWS x LANE_COLUMNS entries
//      +-------+-------+  ROWS          | lane8  lane9 ..      |  in registers
//      | warp2 | warp3 |                | ..                   |
//      +-------+-------+                +---------------------+
//
// A tile of an operand lies in shared memory in one of two orders, whichever its global memory fills without transposing:
//
//   ALONG_ROWS  [DEPTH][LENGTH + pad]  neighbours along M (or N): a lane reads vectors of neighbouring rows
//   ALONG_DEPTH [LENGTH][DEPTH + pad]  neighbours along K: a lane reads vectors along K and takes every LANES-th row
//
// Both cost the same number of 128-bit loads, LANE_ROWS * DEPTH / WIDTH, and have no bank conflicts.
//
// TensorTile of tensor_tile.cuh computes the same product on tensor cores, from the same operands, and gives its sums in the
// same way: slice by slice, through a strip of shared memory of each warp, so that lanes can write neighbours.
#include "common.cuh"

enum Order { ALONG_ROWS, ALONG_DEPTH };

// COUNT vectors that a thread copies from global into shared memory while the block multiplies what came before:
// start() them all, multiply, finish() them all. From sm_80 on they go past the registers. Where they cannot (older cards,
// and copies of less than 4 bytes), start() loads them into registers and finish() stores them, which hides their way as well.
template <typename T, int WIDTH, int COUNT>
struct Copies {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    static constexpr bool PAST_REGISTERS = false;
#else
    static constexpr bool PAST_REGISTERS = int(sizeof(T)) * WIDTH >= 4;
#endif
    Vector<T, WIDTH> held[PAST_REGISTERS ? 1 : COUNT];

    __device__ __forceinline__ void start(int i, T* shared, const T* global, bool present) {
        if constexpr (PAST_REGISTERS) {
            copy_async<T, WIDTH>(shared, global, present);
        } else if (present) {
            held[i] = *reinterpret_cast<const Vector<T, WIDTH>*>(global);
        } else {
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) held[i].at[j] = zero<T>();
        }
    }

    __device__ __forceinline__ void finish(int i, T* shared) const {
        if constexpr (!PAST_REGISTERS) *reinterpret_cast<Vector<T, WIDTH>*>(shared) = held[i];
    }
};

// The value itself, kept in a register: what is worked out from threadIdx the compiler works out anew in every step of a loop.
// A lane is asked for by its number in the warp, of which __shfl_sync takes the remainder.
__device__ __forceinline__ int kept(int value) { return __shfl_sync(0xffffffffu, value, threadIdx.x); }

// One operand of a tile: LENGTH rows (of A) or columns (of B) that LANES lanes of a warp share, PER_LANE each.
template <typename T, Order ORDER_, int LENGTH_, int DEPTH_, int LANES_, int PER_LANE_>
struct Operand {
    using Number = T;
    static constexpr Order ORDER = ORDER_;
    static constexpr int LENGTH = LENGTH_, DEPTH = DEPTH_, LANES = LANES_, PER_LANE = PER_LANE_;
    static constexpr int FULL_WIDTH = 16 / int(sizeof(T));
    // Elements that a lane reads at once, along rows or along depth.
    static constexpr int WIDTH = ORDER == ALONG_ROWS ? (PER_LANE < FULL_WIDTH ? PER_LANE : FULL_WIDTH) : FULL_WIDTH;
    static constexpr int PITCH = (ORDER == ALONG_ROWS ? LENGTH : DEPTH) + FULL_WIDTH;
    static constexpr int ELEMENTS = (ORDER == ALONG_ROWS ? DEPTH : LENGTH) * PITCH;
    static_assert(PER_LANE % WIDTH == 0 || ORDER == ALONG_DEPTH, "a lane's rows are whole vectors");
    static_assert(DEPTH % FULL_WIDTH == 0, "the depth is whole vectors");

    // Where element (row, k) of the tile lies.
    __device__ static constexpr int offset(int row, int k) { return ORDER == ALONG_ROWS ? k * PITCH + row : row * PITCH + k; }

    // Which row of its warp's part the lane's i-th is.
    __device__ static constexpr int row_of(int lane, int i) {
        return ORDER == ALONG_ROWS ? (i / WIDTH * LANES + lane) * WIDTH + i % WIDTH : i * LANES + lane;
    }
};

template <typename A_, typename B_, int WARPS_M_, int WARPS_N_>
struct Tile {
    using A = A_;
    using B = B_;
    using Number = typename A::Number;
    using Sum = accumulator_t<Number>;
    static constexpr int ROWS = A::LENGTH, COLUMNS = B::LENGTH, DEPTH = A::DEPTH;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int LANE_ROWS = A::PER_LANE, LANE_COLUMNS = B::PER_LANE;
    static constexpr int WARP_ROWS = ROWS / WARPS_M, WARP_COLUMNS = COLUMNS / WARPS_N;
    static_assert(A::LANES * B::LANES == 32, "a warp has 32 lanes");
    static_assert(WARP_ROWS == A::LANES * LANE_ROWS && WARP_COLUMNS == B::LANES * LANE_COLUMNS, "the lanes cover the tile");
    static_assert(A::DEPTH == B::DEPTH, "both operands have the same depth");
    // The sums of a warp come out in slices: the i-th rows of all its lanes, STAGED numbers at a time.
    static constexpr int SLICES = LANE_ROWS, SLICE_ROWS = A::LANES;
    // Rows of lanes that write single numbers lie in different banks.
    static constexpr int PITCH = WARP_COLUMNS + (B::ORDER == ALONG_DEPTH ? B::LANES : 0), STAGED = SLICE_ROWS * PITCH;

    Sum sums[LANE_ROWS][LANE_COLUMNS];
    int first_row, first_column, lane_m, lane_n;  // of this warp in the tile, and of this lane in the warp

    __device__ __forceinline__ Tile() {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        first_row = kept(warp / WARPS_N * WARP_ROWS);
        first_column = kept(warp % WARPS_N * WARP_COLUMNS);
        lane_m = kept(lane / B::LANES);
        lane_n = kept(lane % B::LANES);
#pragma unroll
        for (int i = 0; i < LANE_ROWS; ++i)
#pragma unroll
            for (int j = 0; j < LANE_COLUMNS; ++j) sums[i][j] = Sum(0);
    }

    // Adds the product of the two tiles in shared memory.
    __device__ __forceinline__ void multiply(const Number* a, const Number* b) {
        constexpr int STEP = A::ORDER == ALONG_DEPTH || B::ORDER == ALONG_DEPTH ? A::FULL_WIDTH : 1;
        a += A::offset(first_row, 0);
        b += B::offset(first_column, 0);
#pragma unroll
        for (int k = 0; k < DEPTH; k += STEP) {
            Number left[LANE_ROWS][STEP], right[LANE_COLUMNS][STEP];
            fetch<A, STEP>(left, a, lane_m, k);
            fetch<B, STEP>(right, b, lane_n, k);
#pragma unroll
            for (int step = 0; step < STEP; ++step)
#pragma unroll
                for (int i = 0; i < LANE_ROWS; ++i)
#pragma unroll
                    for (int j = 0; j < LANE_COLUMNS; ++j) sums[i][j] += Sum(widen(left[i][step])) * Sum(widen(right[j][step]));
        }
    }

    // Writes a slice into shared memory of the warp's own: SLICE_ROWS rows of WARP_COLUMNS numbers.
    __device__ __forceinline__ void stage(int slice, Sum* staged) const {
        // Only ALONG_ROWS do a lane's columns lie side by side.
        constexpr int FULL_WIDTH = B::ORDER == ALONG_ROWS ? 16 / int(sizeof(Sum)) : 1;
        constexpr int WIDTH = B::WIDTH < FULL_WIDTH ? B::WIDTH : FULL_WIDTH;
#pragma unroll
        for (int j = 0; j < LANE_COLUMNS; j += WIDTH) {
            Vector<Sum, WIDTH> vector;
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) vector.at[i] = sums[slice][j + i];
            *reinterpret_cast<Vector<Sum, WIDTH>*>(staged + lane_m * PITCH + B::row_of(lane_n, j)) = vector;
        }
    }

    // Which row of the tile a staged row is.
    __device__ __forceinline__ int row_of(int slice, int row) const { return first_row + A::row_of(row, slice); }

  private:
    template <typename O, int STEP>
    __device__ static __forceinline__ void fetch(Number (&values)[O::PER_LANE][STEP], const Number* tile, int lane, int k) {
        if constexpr (O::ORDER == ALONG_ROWS) {
#pragma unroll
            for (int step = 0; step < STEP; ++step)
#pragma unroll
                for (int i = 0; i < O::PER_LANE; i += O::WIDTH) {
                    const auto vector =
                        *reinterpret_cast<const Vector<Number, O::WIDTH>*>(tile + O::offset(O::row_of(lane, i), k + step));
#pragma unroll
                    for (int j = 0; j < O::WIDTH; ++j) values[i + j][step] = vector.at[j];
                }
        } else {
#pragma unroll
            for (int i = 0; i < O::PER_LANE; ++i) {
                const auto vector = *reinterpret_cast<const Vector<Number, STEP>*>(tile + O::offset(O::row_of(lane, i), k));
#pragma unroll
                for (int step = 0; step < STEP; ++step) values[i][step] = vector.at[step];
            }
        }
    }
};

// Calls `store(row, column, sum)` for the entries of a tile, lanes on neighbouring columns: every warp takes its sums, slice
// by slice, through its own part of shared memory.
template <typename Product, typename Store>
__device__ __forceinline__ void each_sum(const Product& product, typename Product::Number* shared, Store store) {
    static_assert(Product::SLICE_ROWS * Product::WARP_COLUMNS % 32 == 0, "every lane writes as many sums as the others");
    const int lane = threadIdx.x % 32;
    auto* const staged = reinterpret_cast<typename Product::Sum*>(shared) + threadIdx.x / 32 * Product::STAGED;
#pragma unroll
    for (int slice = 0; slice < Product::SLICES; ++slice) {
        product.stage(slice, staged);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < Product::SLICE_ROWS * Product::WARP_COLUMNS; i += 32) {
            const int row = (i + lane) / Product::WARP_COLUMNS, column = (i + lane) % Product::WARP_COLUMNS;
            store(product.row_of(slice, row), product.first_column + column, staged[row * Product::PITCH + column]);
        }
        __syncwarp();
    }
}
