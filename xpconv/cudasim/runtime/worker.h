// The structures of the run time: what Python hands over, the threads of a block as fibers, and the worker that runs them.
#pragma once
#include <pthread.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cudasim/runtime.h"

namespace cudasim {

// ---- mirrored by ctypes structures in launch.py ---------------------------------------------------------------------

struct Buffer {
    char* data;
    size_t size;
    int argument;  // index of the first argument that lies in it
    int writable;
};

// What went wrong. `text` may name a second place as @0x<address>, relative to the start of the module.
struct Failure {
    char kind[32];
    char text[1024];
    char file[512];  // empty where only an address is known
    int line;
    int has_block, has_thread;
    unsigned block[3], thread[3];
    unsigned long long address;  // relative to the start of the module; 0 where there is none
};

// Requests of one instruction, added up over all warps.
struct ProfileRow {
    unsigned long long address;
    int shared, write;
    unsigned long long requests, transactions, least;
};

enum Order { kAscending, kDescending, kRandom };

struct Launch {
    unsigned grid[3], block[3];
    size_t dynamic_shared, shared_limit;
    int order, workers;
    unsigned long long seed;
    int check, profile;
    const Buffer* buffers;
    int buffer_count;
    ProfileRow* rows;
    int row_capacity, row_count;
    size_t shared_used;
    Failure failure;
};

// ---- fibers ---------------------------------------------------------------------------------------------------------

constexpr size_t kStackSize = 256 << 10, kPage = 4096, kStackPitch = kStackSize + kPage;
constexpr int kMaxThreads = 1024;

enum class State : unsigned char { kReady, kBlockBarrier, kWarpCollective, kDone };

struct AsyncCopy {
    char* shared;
    const char* global;
    unsigned size, zeros;
    const void* caller;
    unsigned line;
};

struct Fiber : Thread {
    void* stack_pointer;
    int stack;  // index of its stack, -1 while it has none
    State state;
    unsigned mask;  // of the collective it waits for
    Operation operation;
    Location at;  // where it waits
    int predicate, count;
    bool fenced;  // it has called __threadfence
    std::vector<AsyncCopy> copies;
    std::vector<unsigned> groups;  // number of copies in each committed group, and those before it
};

// ---- shared memory --------------------------------------------------------------------------------------------------

constexpr size_t kGap = 256;  // nobody's bytes around each variable
constexpr size_t kArenaSize = 1 << 20;
constexpr size_t kStaticLimit = 48 << 10;
constexpr size_t kDynamicAlignment = 128;

struct SharedVariable {
    const void* key;   // null for dynamic shared memory
    const char* name;  // and so is this
    char* data;
    size_t size;
};

class Checker;

// Runs blocks, one after another, on one thread of the operating system. Kept between launches for its stacks.
struct Worker {
    Launch* launch = nullptr;
    Entry entry = nullptr;
    const char* arguments = nullptr;
    const char *module_begin = nullptr, *module_end = nullptr;

    std::vector<Fiber> fibers;  // of one block
    int thread_count = 0, alive = 0, at_barrier = 0;
    long long block = 0;  // number of the block
    uint3 block_index{};
    unsigned long long random = 0;
    std::vector<int> order;

    void* scheduler_stack_pointer = nullptr;
    Fiber* running = nullptr;
    char* stacks = nullptr;  // kMaxThreads of them, made usable one by one
    int stacks_made = 0;
    std::vector<int> free_stacks;
    std::unique_ptr<char[]> signal_stack;

    char* arena = nullptr;
    size_t arena_used = 0, arena_dirty = 0, static_shared = 0;
    std::vector<SharedVariable> shared;
    char* dynamic_shared = nullptr;
    size_t shared_peak = 0;

    std::unique_ptr<Checker> checker;  // null in fast mode
    bool failed = false;
    Failure failure{};
    unsigned idle = 0;      // times that a thread gave way since any thread of the block got any further
    double idle_since = 0;  // when that became suspicious
    const std::atomic<int>* workers_at_work = nullptr;  // of the launch

    Worker();
    ~Worker();
    void begin(Launch* launch, Entry entry, const char* arguments, const void* module_begin, const void* module_end);
    void run_block(long long number);
};

extern thread_local Worker* worker;  // of this thread of the operating system, while it runs blocks

// Of what all threads of the process share: workers that are not in use, and the handlers of signals.
inline std::mutex process_mutex;

// ---- fibers.cpp -----------------------------------------------------------------------------------------------------

void start(Worker& w, Fiber& fiber);
void resume(Worker& w, Fiber& fiber);
void park();  // back to the scheduler; returns when the scheduler resumes the fiber

// While one lives, a fault in a kernel ends the launch instead of the process, and Ctrl-C ends a kernel that does not end.
class SignalGuard {
  public:
    SignalGuard();
    ~SignalGuard();
};
// The same for one thread of the operating system.
class ThreadGuard {
  public:
    explicit ThreadGuard(Worker& w);
    ~ThreadGuard();

  private:
    int slot_;
    char old_stack_[64];
};
inline std::atomic<bool> interrupt_flag{false};
inline bool interrupted() { return interrupt_flag.load(std::memory_order_relaxed); }

// ---- failures -------------------------------------------------------------------------------------------------------

// The place of a failure: a line, or an address within the module.
struct Place {
    Location at{nullptr, 0};
    const void* caller = nullptr;
};
inline Place place(Location at) { return {at, nullptr}; }
inline Place place(const void* caller) { return {{nullptr, 0}, caller}; }

void record(Worker& w, const char* kind, const char* text, Place where, const Fiber* fiber);
[[noreturn]] void stop(const char* kind, const std::string& text, Place where);  // ends the launch, from within a fiber
std::string name_of(Location at);
std::string text_of(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace cudasim
