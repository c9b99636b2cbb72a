// How a block sums a matrix product along K: tiles of both operands are copied into shared memory a few steps ahead of the
// one that is multiplied. What differs between a dense product and the gradient of weights is where an operand's elements
// lie in global memory: that is a source, and a source is all that a kernel adds to what stands here.
//
//   step       0      1      2      3   ..
//   copied     0 1    2      3      4        STAGES - 1 ahead, STAGES tiles in a ring
//   multiplied        0      1      2        one barrier a step: it ends the wait for the copies of this step, and the
//                                            multiplication that read the tile which is filled next
#include "tile.cuh"

// Which vectors of WIDTH elements of an operand's tile a thread copies: COPIES of them.
//
//   ALONG_ROWS   the thread's row stays, its k goes on by STEP
//   ALONG_DEPTH  the thread's k stays, its row goes on by STEP. The rows that are written at once are spread over a group of
//                eight so that they share no bank, for the pitch of a row is 4 words more than a multiple of 8 words:
//
//                  16 words of depth   threads  0 .. 15  row 0  banks 0 .. 15      thread 16 .. 31  row 4  banks 16 .. 31
//
// Neighbouring threads read neighbouring addresses in both.
template <typename Operand, int THREADS, int WIDTH>
struct Share {
    static constexpr bool BY_ROWS = Operand::ORDER == ALONG_ROWS;
    static constexpr int SIDE_BY_SIDE = (BY_ROWS ? Operand::LENGTH : Operand::DEPTH) / WIDTH;
    static constexpr int ACROSS = BY_ROWS ? Operand::DEPTH : Operand::LENGTH;
    static constexpr int STEP = THREADS / SIDE_BY_SIDE < ACROSS ? THREADS / SIDE_BY_SIDE : ACROSS;
    static constexpr int COPIES = ACROSS / STEP;
    using Vectors = Copies<typename Operand::Number, WIDTH, COPIES>;
    static_assert(THREADS % SIDE_BY_SIDE == 0 && ACROSS % STEP == 0, "each thread copies as many vectors as the others");

    // Whether the thread's vectors lie equally far apart.
    static constexpr bool EVEN = BY_ROWS || STEP % 8 == 0;

    // Rows that the threads which write at once (those of 128 bytes) stand on.
    static constexpr int ROW_WORDS = Operand::DEPTH * int(sizeof(typename Operand::Number)) / 4;
    static constexpr int AT_ONCE = ROW_WORDS >= 32 ? 1 : 32 / ROW_WORDS < 8 ? 32 / ROW_WORDS : 8;

    // Whether the thread copies at all: a block can have more threads than there are vectors.
    __device__ static bool active() { return STEP * SIDE_BY_SIDE == THREADS || int(threadIdx.x) < STEP * SIDE_BY_SIDE; }

    // Row and k of the first element of the thread's i-th vector.
    __device__ static int row(int i) {
        if constexpr (BY_ROWS) return threadIdx.x % SIDE_BY_SIDE * WIDTH;
        if constexpr (EVEN) return spread(threadIdx.x / SIDE_BY_SIDE) + i * STEP;
        return spread(threadIdx.x / SIDE_BY_SIDE + i * STEP);
    }
    __device__ static int depth(int i) {
        if constexpr (BY_ROWS) return threadIdx.x / SIDE_BY_SIDE + i * STEP;
        return threadIdx.x % SIDE_BY_SIDE * WIDTH;
    }
    // Rows from the thread's first vector to its i-th.
    __device__ static int rows_apart(int i) { return BY_ROWS ? 0 : EVEN ? i * STEP : row(i) - row(0); }
    // Where it goes in the tile, from the start of the tile or from the thread's first.
    __device__ static int offset(int i) { return Operand::offset(row(i), depth(i)); }
    __device__ static int apart(int i) {
        if constexpr (EVEN) return i * STEP * Operand::PITCH;
        return offset(i) - offset(0);
    }

    __device__ static void finish(const Vectors& copies, typename Operand::Number* tile) {
        if constexpr (!Vectors::PAST_REGISTERS) {
#pragma unroll
            for (int i = 0; i < COPIES; ++i)
                if (active()) copies.finish(i, tile + offset(i));
        }
    }

  private:
    __device__ static int spread(int row) { return row / 8 * 8 + row % AT_ONCE * (8 / AT_ONCE) + row % 8 / AT_ONCE; }
};

// An operand that lies in global memory as a matrix: ALONG_ROWS [depth][pitch], ALONG_DEPTH [rows][pitch].
// Rows behind the last, and what lies behind the depth, are zeros.
template <typename Operand, int THREADS, int WIDTH, typename Index>
struct MatrixSource {
    using T = typename Operand::Number;
    using Part = Share<Operand, THREADS, WIDTH>;
    typename Part::Vectors copies;
    const T* next;  // the thread's first element of the next step
    Index pitch;
    int place, rows;  // where the thread's first vector goes; rows that are left from it

    // The tile begins with row `first_row`, the first step with `first_k`.
    __device__ __forceinline__ MatrixSource(const T* matrix, Index pitch_, int all_rows, int first_row, Index first_k)
        : pitch(pitch_), place(kept(Part::offset(0))), rows(kept(all_rows - first_row - Part::row(0))) {
        const Index row = Index(first_row) + Part::row(0), k = first_k + Part::depth(0);
        next = matrix + (Part::BY_ROWS ? k * pitch + row : row * pitch + k);
    }

    // Starts to copy the thread's part of a step, and goes on to the next one. `left` terms are left; behind them are zeros.
    __device__ __forceinline__ void start(T* tile, Index left) {
        const T* from = next;
#pragma unroll
        for (int i = 0; i < Part::COPIES; ++i) {
            if constexpr (!Part::EVEN) from = next + Part::rows_apart(i) * pitch;
            const bool present = (Part::rows_apart(i) < rows) & (Part::depth(i) < left);
            if (Part::active()) copies.start(i, tile + place + Part::apart(i), from, present);
            from += Part::STEP * pitch;
        }
        next += Part::BY_ROWS ? Operand::DEPTH * pitch : Index(Operand::DEPTH);
    }

    __device__ __forceinline__ void finish(T* tile) const { Part::finish(copies, tile); }
};

// Adds products of `terms` terms to the tile's sums; `shared` holds STAGES tiles of both operands. `each` is called with the
// operands of every step, while they are there.
template <int STAGES, typename Tile, typename A, typename B, typename Index, typename Each>
__device__ __forceinline__ void sum_product(Tile& tile, typename Tile::Number* shared, A& a, B& b, Index terms, Each each) {
    constexpr int A_ELEMENTS = Tile::A::ELEMENTS, STAGE = A_ELEMENTS + Tile::B::ELEMENTS, DEPTH = Tile::DEPTH;
    auto start = [&](int stage, Index left) {  // a stage goes by where its tiles begin
        b.start(shared + stage + A_ELEMENTS, left);  // b first: the loops come out a few instructions shorter
        a.start(shared + stage, left);
    };
    auto finish = [&](int stage) {
        a.finish(shared + stage);
        b.finish(shared + stage + A_ELEMENTS);
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage * DEPTH < terms) {
            start(stage * STAGE, terms - stage * DEPTH);
            finish(stage * STAGE);
        }
        __pipeline_commit();  // with nothing in it, too, for the waits count them
    }
    constexpr int LAST = (STAGES - 1) * STAGE;
    int stage = 0;
    for (Index left = terms; left > 0; left -= DEPTH) {
        __pipeline_wait_prior(STAGES - 2);
        __syncthreads();
        // What was read before leaves its place free; of two stages that is also the next one.
        const int before = STAGES == 2 ? LAST - stage : stage == 0 ? LAST : stage - STAGE;
        const bool more = left > (STAGES - 1) * DEPTH;
        if (more) start(before, left - (STAGES - 1) * DEPTH);
        __pipeline_commit();
        const typename Tile::Number* const operands = shared + stage;
        tile.multiply(operands, operands + A_ELEMENTS);
        each(operands, operands + A_ELEMENTS);
        if (more) finish(before);
        stage = STAGES == 2 ? before : stage == LAST ? 0 : stage + STAGE;
    }
    __syncthreads();  // the last tiles have been read: their place is free
}
