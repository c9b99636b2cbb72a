// Blocks and their threads: who runs, who waits, and what a launch may not do.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <atomic>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "checker.h"
#include "worker.h"

namespace cudasim {

Thread* current_thread() { return current; }
uint3 thread_index() { return current->index; }
uint3 block_index() { return current->block; }
uint3 block_size() { return current->block_size; }
uint3 grid_size() { return current->grid_size; }

// ---- failures -------------------------------------------------------------------------------------------------------

std::string text_of(const char* format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return text;
}

std::string name_of(Location at) { return text_of("%s:%d", at.file, at.line); }

// The first failure of a worker is the one that is told. Allocates nothing: signal handlers call it.
void record(Worker& w, const char* kind, const char* text, Place where, const Fiber* fiber) {
    if (w.failed) return;
    w.failed = true;
    Failure& failure = w.failure;
    failure = Failure{};
    snprintf(failure.kind, sizeof failure.kind, "%s", kind);
    snprintf(failure.text, sizeof failure.text, "%s", text);
    if (where.at.file != nullptr) {
        snprintf(failure.file, sizeof failure.file, "%s", where.at.file);
        failure.line = where.at.line;
    }
    if (where.caller != nullptr)  // a return address: the call lies before it
        failure.address = static_cast<unsigned long long>(static_cast<const char*>(where.caller) - w.module_begin) - 1;
    failure.has_block = 1;
    failure.block[0] = w.block_index.x, failure.block[1] = w.block_index.y, failure.block[2] = w.block_index.z;
    if (fiber == nullptr) return;
    failure.has_thread = 1;
    failure.thread[0] = fiber->index.x, failure.thread[1] = fiber->index.y, failure.thread[2] = fiber->index.z;
}

void stop(const char* kind, const std::string& text, Place where) {
    record(*worker, kind, text.c_str(), where, worker->running);
    for (;;) park();
}

void fail(const char* kind, const char* text, Location at) { stop(kind, text, place(at)); }

// ---- barriers and collectives ---------------------------------------------------------------------------------------

void give_way() {
    Fiber& fiber = *worker->running;
    worker->idle = fiber.has_changed ? 0 : worker->idle + 1;
    fiber.spins = 0;
    fiber.has_changed = false;
    park();
}

void fence() { worker->running->fenced = true; }

int block_barrier(Operation operation, int predicate, Location at) {
    Fiber& fiber = *worker->running;
    fiber.state = State::kBlockBarrier;
    fiber.operation = operation;
    fiber.at = at;
    fiber.predicate = predicate != 0;
    ++worker->at_barrier;
    park();
    return fiber.count;
}

void warp_collective(unsigned mask, Operation operation, Location at, Finish finish) {
    Worker& w = *worker;
    Fiber& fiber = *w.running;
    const int lane = fiber.linear & 31, first = fiber.linear - lane;
    if (!(mask >> lane & 1)) stop("collective", "the calling lane is not in its mask", place(at));
    fiber.state = State::kWarpCollective;
    fiber.mask = mask;
    fiber.operation = operation;
    fiber.at = at;
    bool complete = true;
    Lane* lanes[32] = {};
    for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        if (first + i >= w.thread_count)
            stop("collective", text_of("the mask 0x%08x names lane %d, beyond the block of %d threads", mask, i, w.thread_count),
                 place(at));
        Fiber& other = w.fibers[first + i];
        if (other.state == State::kDone)
            stop("collective", text_of("lane %d, which the mask 0x%08x names, has exited", i, mask), place(at));
        lanes[i] = &other.lane;
        if (other.state != State::kWarpCollective) {
            complete = false;
            continue;
        }
        if (other.mask == mask && other.operation == operation) continue;
        complete = false;
        if (other.mask >> lane & 1)  // each waits for the other
            stop("collective",
                 text_of("lane %d, which the mask 0x%08x names, waits in another operation or with another mask (0x%08x) at %s", i,
                         mask, other.mask, name_of(other.at).c_str()),
                 place(at));
    }
    if (!complete) {
        park();
        return;
    }
    if (finish != nullptr) finish(lanes, mask);
    if (operation == kSyncWarp && w.checker) w.checker->warp_barrier(first / 32);
    for (int i = 0; i < 32; ++i)
        if (lanes[i] != nullptr) w.fibers[first + i].state = State::kReady;
    w.idle = 0;
}

// "3 threads at __syncthreads kernel.cu:7, 29 threads have ended"
static std::string who_waits_where(const Worker& w) {
    std::map<std::string, int> groups;
    for (int i = 0; i < w.thread_count; ++i) {
        const Fiber& fiber = w.fibers[i];
        switch (fiber.state) {
            case State::kBlockBarrier: ++groups["wait at __syncthreads, " + name_of(fiber.at)]; break;
            case State::kWarpCollective: ++groups["wait at a collective of their warp, " + name_of(fiber.at)]; break;
            case State::kDone: ++groups["have ended"]; break;
            case State::kReady: ++groups["run"]; break;
        }
    }
    std::string text;
    for (const auto& [where, count] : groups) text += (text.empty() ? "" : "; ") + text_of("%d threads ", count) + where;
    return text;
}

static const Fiber* first_waiting(const Worker& w) {
    for (int i = 0; i < w.thread_count; ++i) {
        const State state = w.fibers[i].state;
        if (state == State::kBlockBarrier || state == State::kWarpCollective) return &w.fibers[i];
    }
    return nullptr;
}

static void give_up(Worker& w, const char* kind, const char* what) {
    const Fiber* fiber = first_waiting(w);
    record(w, kind, (std::string(what) + ": " + who_waits_where(w)).c_str(), fiber ? place(fiber->at) : Place{}, fiber);
}

// Nobody can go on. Most often a warp waits for a lane that ended without taking part.
static void report_deadlock(Worker& w) {
    for (int i = 0; i < w.thread_count; ++i) {
        const Fiber& fiber = w.fibers[i];
        if (fiber.state != State::kWarpCollective) continue;
        for (int lane = 0; lane < 32; ++lane) {
            const int other = i - i % 32 + lane;
            if (!(fiber.mask >> lane & 1) || w.fibers[other].state != State::kDone) continue;
            record(w, "collective", text_of("lane %d, which the mask 0x%08x names, has ended without it", lane, fiber.mask).c_str(),
                   place(fiber.at), &fiber);
            return;
        }
    }
    give_up(w, "deadlock", "no thread of the block can go on");
}

// All that still run have come to a barrier: it must be the same for all, and all must still run.
static void release_barrier(Worker& w) {
    const Fiber& first = *first_waiting(w);
    bool same = w.alive == w.thread_count;
    int count = 0;
    for (int i = 0; i < w.thread_count; ++i) {
        const Fiber& fiber = w.fibers[i];
        if (fiber.state != State::kBlockBarrier) continue;
        count += fiber.predicate;
        const bool same_file = fiber.at.file == first.at.file || strcmp(fiber.at.file, first.at.file) == 0;
        same = same && same_file && fiber.at.line == first.at.line && fiber.operation == first.operation;
    }
    if (!same) {
        give_up(w, "barrier", "not all threads of the block come to the same barrier");
        return;
    }
    for (int i = 0; i < w.thread_count; ++i) {
        Fiber& fiber = w.fibers[i];
        fiber.state = State::kReady;
        fiber.count = fiber.operation == kSyncThreadsAnd  ? count == w.thread_count
                      : fiber.operation == kSyncThreadsOr ? count != 0
                                                          : count;
    }
    w.at_barrier = 0;
    w.idle = 0;
    if (w.checker) w.checker->block_barrier();
}

// ---- one block ------------------------------------------------------------------------------------------------------

static unsigned long long next_random(unsigned long long& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// Threads that spin on atomic operations wait for another thread of the block, which soon had its turn, or for another
// block, which may be at work now.
constexpr unsigned kMostIdle = 100'000;
constexpr double kMostIdleSeconds = 10;

static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

static bool is_stuck(Worker& w) {
    if (w.idle < kMostIdle) return false;
    if (w.workers_at_work->load() == 1) return true;
    if (w.idle_since == 0) w.idle_since = now();
    return now() - w.idle_since > kMostIdleSeconds;
}

void Worker::begin(Launch* l, Entry e, const char* a, const void* begin, const void* end) {
    launch = l, entry = e, arguments = a;
    module_begin = static_cast<const char*>(begin), module_end = static_cast<const char*>(end);
    thread_count = static_cast<int>(l->block[0] * l->block[1] * l->block[2]);
    if (static_cast<int>(fibers.size()) < thread_count) fibers.resize(thread_count);
    order.resize(thread_count);
    failed = false;
    shared_peak = 0;
    random = 88172645463325252ull ^ (l->seed * 0x9E3779B97F4A7C15ull);
    uint3 index{0, 0, 0};
    for (int i = 0; i < thread_count; ++i) {
        order[i] = l->order == kDescending ? thread_count - 1 - i : i;
        Fiber& fiber = fibers[i];
        fiber.index = index;
        fiber.block_size = {l->block[0], l->block[1], l->block[2]};
        fiber.grid_size = {l->grid[0], l->grid[1], l->grid[2]};
        fiber.linear = i;
        if (++index.x == l->block[0]) index.x = 0, ++index.y;
        if (index.y == l->block[1]) index.y = 0, ++index.z;
    }
    if (l->check)
        checker = std::make_unique<Checker>(*this);
    else
        checker.reset();
}

void Worker::run_block(long long number) {
    block = number;
    block_index = {static_cast<unsigned>(number % launch->grid[0]),
                   static_cast<unsigned>(number / launch->grid[0] % launch->grid[1]),
                   static_cast<unsigned>(number / launch->grid[0] / launch->grid[1])};
    memset(arena, 0xff, arena_dirty);  // shared memory starts as NaN and as -1
    arena_used = arena_dirty = static_shared = 0;
    shared.clear();
    dynamic_shared = nullptr;
    idle = 0;
    alive = thread_count;
    at_barrier = 0;
    for (int i = 0; i < thread_count; ++i) {
        Fiber& fiber = fibers[i];
        fiber.block = block_index;
        fiber.stack = -1;
        fiber.state = State::kReady;
        fiber.spins = 0;
        fiber.has_changed = false;
        fiber.fenced = false;
        fiber.copies.clear();
        fiber.groups.clear();
    }
    if (checker) checker->begin_block();

    while (alive > 0 && !failed) {
        bool moved = false;
        if (idle < kMostIdle) idle_since = 0;
        if (launch->order == kRandom)
            for (int i = thread_count - 1; i > 0; --i) std::swap(order[i], order[next_random(random) % (i + 1)]);
        for (int i : order) {
            Fiber& fiber = fibers[i];
            if (fiber.state != State::kReady) continue;
            moved = true;
            if (fiber.stack < 0) start(*this, fiber);
            resume(*this, fiber);
            if (failed) break;
            if (fiber.state == State::kDone) {
                --alive;
                idle = 0;
                free_stacks.push_back(fiber.stack);
                fiber.stack = -1;
            }
        }
        if (failed || alive == 0) break;
        if (interrupted()) {
            record(*this, "interrupted", "the launch was interrupted", {}, nullptr);
        } else if (at_barrier == alive) {
            release_barrier(*this);
        } else if (!moved) {
            report_deadlock(*this);
        } else if (is_stuck(*this)) {
            give_up(*this, "deadlock", "threads spin on atomic operations, and nothing changes what they wait for");
        }
    }
    for (int i = 0; i < thread_count; ++i) {
        if (fibers[i].stack < 0) continue;
        free_stacks.push_back(fibers[i].stack);
        fibers[i].stack = -1;
    }
    size_t used = 0;
    for (const SharedVariable& variable : shared) used += variable.size;
    shared_peak = std::max(shared_peak, used);
    if (checker) checker->end_block();
}

// ---- one launch -----------------------------------------------------------------------------------------------------

// Workers that no launch uses now. Shared by all threads of the process, so that their stacks are made once.
static std::vector<std::unique_ptr<Worker>>& pool() {
    static auto* workers = [] {
        pthread_atfork([] { process_mutex.lock(); }, [] { process_mutex.unlock(); }, [] { process_mutex.unlock(); });
        return new std::vector<std::unique_ptr<Worker>>;  // never destroyed: other threads may still run at exit
    }();
    return *workers;
}

static std::unique_ptr<Worker> take_worker() {
    const std::lock_guard<std::mutex> lock(process_mutex);
    if (pool().empty()) return std::make_unique<Worker>();
    auto taken = std::move(pool().back());
    pool().pop_back();
    return taken;
}

static void give_back(std::unique_ptr<Worker> used) {
    used->checker.reset();
    const std::lock_guard<std::mutex> lock(process_mutex);
    pool().push_back(std::move(used));
}

int run(Launch* launch, Entry entry, const char* arguments, const void* module_begin, const void* module_end) {
    const long long blocks = static_cast<long long>(launch->grid[0]) * launch->grid[1] * launch->grid[2];
    std::vector<long long> shuffled;
    if (launch->order == kRandom) {
        unsigned long long state = launch->seed * 2 + 1;
        for (long long i = 0; i < blocks; ++i) shuffled.push_back(i);
        for (long long i = blocks - 1; i > 0; --i) std::swap(shuffled[i], shuffled[next_random(state) % (i + 1)]);
    }
    std::atomic<long long> next{0};
    std::atomic<bool> stopped{false};
    std::atomic<int> at_work{0};
    std::mutex result_mutex;
    launch->failure.kind[0] = 0;
    launch->shared_used = 0;
    launch->row_count = 0;

    const auto work = [&] {
        auto w = take_worker();
        w->begin(launch, entry, arguments, module_begin, module_end);
        w->workers_at_work = &at_work;
        ++at_work;
        {
            const ThreadGuard guard(*w);
            while (!stopped.load(std::memory_order_relaxed)) {
                const long long i = next.fetch_add(1, std::memory_order_relaxed);
                if (i >= blocks) break;
                w->run_block(launch->order == kRandom ? shuffled[i] : launch->order == kDescending ? blocks - 1 - i : i);
                if (w->failed) stopped = true;
            }
        }
        --at_work;
        {
            const std::lock_guard<std::mutex> lock(result_mutex);
            if (w->failed && launch->failure.kind[0] == 0) launch->failure = w->failure;
            launch->shared_used = std::max(launch->shared_used, w->shared_peak);
            if (w->checker) w->checker->write_profile();
        }
        give_back(std::move(w));
    };

    const SignalGuard guard;
    const long long helpers = std::min<long long>(launch->workers, blocks) - 1;
    std::vector<std::thread> threads;
    try {
        for (long long i = 0; i < helpers; ++i) threads.emplace_back(work);
    } catch (const std::system_error&) {
        // no more threads to be had: those there are do all the blocks
    }
    work();
    for (std::thread& thread : threads) thread.join();
    fflush(stdout);  // what the kernel printed comes before what is printed after the launch
    return launch->failure.kind[0] != 0;
}

}  // namespace cudasim
