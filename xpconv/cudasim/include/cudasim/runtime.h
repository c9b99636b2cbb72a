// What a compiled kernel and the run time (../../runtime) know of each other.
//
// Each thread of a block is a fiber that runs until it reaches a barrier, a warp collective or its end; the blocks of a
// grid are shared among threads of the operating system. A kernel is compiled for one of two modes:
//   fast    plain code;
//   check   (CUDASIM_CHECK) every load and store also calls the run time, through the compiler's instrumentation.
// What belongs to the simulator must not be taken for a kernel's access in check mode: functions that read or write
// the simulator's own data are marked CUDASIM_UNCHECKED.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "cudasim/vector_types.h"

#ifdef CUDASIM_CHECK
#define CUDASIM_UNCHECKED __attribute__((noinline, no_sanitize("thread"), no_sanitize("undefined")))
#else
#define CUDASIM_UNCHECKED inline
#endif

namespace cudasim {

// The line of the kernel that a default argument is evaluated for.
struct Location {
    const char* file;
    int line;
    static constexpr Location here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};
#define CUDASIM_HERE cudasim::Location at = cudasim::Location::here()

// What a thread hands in to a collective of its warp, and what it gets back.
struct Lane {
    unsigned long long value, result;
    int source;               // whose value a shuffle takes
    const void* operands[3];  // of a matrix product
    void* product;
};

struct Thread {
    uint3 index, block;
    dim3 block_size, grid_size;
    int linear;      // index of the thread in its block, x first
    unsigned spins;    // atomic operations since it last gave way
    bool has_changed;  // one of them changed something
    Lane lane;
};

// Which operation a collective is, so that a thread that takes part in another one is found out.
enum Operation {
    kSyncThreads,
    kSyncThreadsCount,
    kSyncThreadsAnd,
    kSyncThreadsOr,
    kSyncWarp,
    kShuffle,
    kShuffleXor,
    kShuffleDown,
    kShuffleUp,
    kBallot,
    kAny,
    kAll,
    kMatch,
    kReduceAdd,
    kReduceMin,
    kReduceMax,
    kReduceAnd,
    kReduceOr,
    kReduceXor,
    kMatrixLoad,
    kMatrixStore,
    kMatrixMultiply,
};

// Computes every lane's result; called once, by the last thread to arrive. Lanes outside the mask are null.
using Finish = void (*)(Lane* const* lanes, unsigned mask);

struct Launch;
using Entry = void (*)(const char* arguments);

#pragma GCC visibility push(default)
extern thread_local Thread* current;
Thread* current_thread();
// The same values from first to last for the thread that asks: the compiler may ask once.
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) uint3 block_size();
__attribute__((const)) uint3 grid_size();

int run(Launch* launch, Entry entry, const char* arguments, const void* module_begin, const void* module_end);
[[noreturn]] void fail(const char* kind, const char* text, Location at);
int block_barrier(Operation operation, int predicate, Location at);
void warp_collective(unsigned mask, Operation operation, Location at, Finish finish);
void give_way();
void fence();

void* shared_variable(const void* key, const char* name, size_t size, size_t alignment, Location at);
void* dynamic_shared_memory(Location at);
void copy_async(void* shared, const void* global, size_t size, size_t zeros, Location at);
void commit_async();
void wait_async(size_t groups);
void require_matrix_alignment(const void* address, size_t row_bytes, Location at);

// Check mode: an atomic operation, or a plain access that the compiler's instrumentation does not see.
void check_atomic(void* address, size_t size, const void* caller);
void check_read(const void* address, size_t size, const void* caller);
void check_write(void* address, size_t size, const void* caller);
#pragma GCC visibility pop

}  // namespace cudasim
