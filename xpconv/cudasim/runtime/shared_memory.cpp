// Shared memory: an arena of each worker, in which variables are laid out as a block comes to declare them.
#include <string.h>

#include "checker.h"
#include "worker.h"

namespace cudasim {

static char* place_variable(Worker& w, const void* key, const char* name, size_t size, size_t alignment, Location at) {
    const size_t begin = (w.arena_used + kGap + alignment - 1) / alignment * alignment;
    if (begin + size + kGap > kArenaSize) stop("shared memory", "shared memory is exhausted", place(at));
    w.arena_used = begin + size;
    w.arena_dirty = w.arena_used + kGap;
    w.shared.push_back({key, name, w.arena + begin, size});
    if (w.checker) w.checker->declare_shared(w.shared.back());
    return w.arena + begin;
}

void* shared_variable(const void* key, const char* name, size_t size, size_t alignment, Location at) {
    Worker& w = *worker;
    for (const SharedVariable& variable : w.shared)
        if (variable.key == key) return variable.data;
    w.static_shared += size;
    if (w.static_shared > kStaticLimit)
        stop("shared memory",
             text_of("`%s` brings the static shared memory to %zu bytes; nvcc allows %zu (more is had as dynamic shared memory)", name,
                     w.static_shared, kStaticLimit),
             place(at));
    if (w.static_shared + w.launch->dynamic_shared > w.launch->shared_limit)
        stop("shared memory",
             text_of("%zu bytes of static and %zu of dynamic shared memory are more than the card's %zu", w.static_shared,
                     w.launch->dynamic_shared, w.launch->shared_limit),
             place(at));
    return place_variable(w, key, name, size, alignment, at);
}

void* dynamic_shared_memory(Location at) {
    Worker& w = *worker;
    if (w.dynamic_shared == nullptr)
        w.dynamic_shared = place_variable(w, nullptr, nullptr, w.launch->dynamic_shared, kDynamicAlignment, at);
    return w.dynamic_shared;
}

// A matrix of wmma begins at a multiple of 32 bytes, its rows at multiples of 16. NumPy aligns to 16 only, and only the
// copies of check mode are aligned as on a card.
void require_matrix_alignment(const void* address, size_t row_bytes, Location at) {
    if (row_bytes % 16 != 0)
        stop("misaligned", text_of("rows of a matrix are %zu bytes apart, which is not a multiple of 16", row_bytes), place(at));
    const char* byte = static_cast<const char*>(address);
    const bool in_shared = byte >= worker->arena && byte < worker->arena + kArenaSize;
    const size_t needed = in_shared || worker->checker ? 32 : 16;
    if (reinterpret_cast<uintptr_t>(address) % needed != 0)
        stop("misaligned", text_of("a matrix of wmma begins at an address that is not a multiple of %zu", needed), place(at));
}

// ---- asynchronous copies --------------------------------------------------------------------------------------------

void copy_async(void* shared, const void* global, size_t size, size_t zeros, Location at) {
    Worker& w = *worker;
    const void* caller = __builtin_return_address(0);
    char* to = static_cast<char*>(shared);
    const char* from = static_cast<const char*>(global);
    if (size != 4 && size != 8 && size != 16)
        stop("async copy", text_of("an asynchronous copy moves 4, 8 or 16 bytes, not %zu", size), place(at));
    if (zeros > size)
        stop("async copy", text_of("%zu bytes of zeros in an asynchronous copy of %zu bytes", zeros, size), place(at));
    if (reinterpret_cast<uintptr_t>(to) % size != 0 || (zeros < size && reinterpret_cast<uintptr_t>(from) % size != 0))
        stop("misaligned", text_of("an asynchronous copy of %zu bytes needs addresses that are multiples of it", size), place(at));
    if (to < w.arena || to >= w.arena + kArenaSize)
        stop("async copy", "the destination of an asynchronous copy is not in shared memory", place(at));
    if (w.checker) {
        w.checker->count_as(Checker::kUncounted);  // it is counted when it lands
        w.checker->write(to, size, caller);
        w.checker->count_as(0);
        w.checker->forget(to, size);  // nobody's until the wait
        if (zeros < size) w.checker->require_inside(from, size - zeros, caller);
    }
    memset(to, 0xff, size);
    w.running->copies.push_back({to, from, static_cast<unsigned>(size), static_cast<unsigned>(zeros), caller, static_cast<unsigned>(at.line)});
}

void commit_async() { worker->running->groups.push_back(static_cast<unsigned>(worker->running->copies.size())); }

void wait_async(size_t groups) {
    Worker& w = *worker;
    Fiber& fiber = *w.running;
    if (fiber.groups.size() <= groups) return;
    const unsigned landed = fiber.groups[fiber.groups.size() - 1 - groups];
    for (unsigned i = 0; i < landed; ++i) {
        const AsyncCopy& copy = fiber.copies[i];
        const unsigned moved = copy.size - copy.zeros;
        if (w.checker) {
            w.checker->count_as(copy.line);
            w.checker->write(copy.shared, copy.size, copy.caller);
            if (moved > 0) w.checker->read(copy.global, moved, copy.caller);
            w.checker->count_as(0);
        }
        if (moved > 0) memcpy(copy.shared, copy.global, moved);
        memset(copy.shared + moved, 0, copy.zeros);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + landed);
    fiber.groups.erase(fiber.groups.begin(), fiber.groups.end() - static_cast<long>(groups));
    for (unsigned& end : fiber.groups) end -= landed;
}

}  // namespace cudasim
