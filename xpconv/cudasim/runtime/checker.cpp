// Bounds, alignment, initialisation and data races of every access, and the handlers that the compiler's
// instrumentation calls: kernels are compiled with -fsanitize=thread but not linked with its library.
#include "checker.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>

namespace cudasim {

// ---- cells ----------------------------------------------------------------------------------------------------------

template <class T> Pages<T>::Pages(size_t count) : count_(count) {
    void* memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) stop("out of memory", "no memory for the checks of this launch", {});
    data_ = static_cast<T*>(memory);
}
template <class T> Pages<T>::~Pages() {
    if (data_ != nullptr) munmap(static_cast<void*>(data_), count_ * sizeof(T));
}
template <class T> Pages<T>::Pages(Pages&& other) noexcept : data_(other.data_), count_(other.count_) { other.data_ = nullptr; }
template <class T> Pages<T>& Pages<T>::operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
}
template class Pages<Cell>;
template class Pages<AccessSet>;

void AccessSet::add(const Access& access, unsigned first_epoch_of_block) {
    if (last.epoch != 0 && !(last.thread == access.thread && last.epoch >= first_epoch_of_block)) {
        const bool same_warp = last.thread / 32 == access.thread / 32 && last.epoch >= first_epoch_of_block;
        (same_warp ? other_lane : other_warp) = last;
    }
    last = access;
}

std::string Region::description() const {
    if (shared && name == nullptr) return text_of("the dynamic shared memory (%zu bytes)", size);
    if (shared) return text_of("shared `%s` (%zu bytes)", name, size);
    return text_of("argument %d (%zu bytes)", argument, size);
}

// ---- the course of a launch -----------------------------------------------------------------------------------------

Checker::Checker(Worker& worker) : worker_(worker) {
    const Launch& launch = *worker.launch;
    for (int i = 0; i < launch.buffer_count; ++i) {
        const Buffer& buffer = launch.buffers[i];
        global_.push_back({buffer.data, buffer.size, false, buffer.writable != 0, buffer.argument, nullptr, 4, {}, {}, {}});
    }
    warp_epochs_.resize(kMaxThreads / 32);
}

void Checker::begin_block() {
    first_epoch_ = ++epoch_;
    block_epochs_.push_back({epoch_, worker_.block});
    std::fill(warp_epochs_.begin(), warp_epochs_.end(), 0u);
    open_shared_.clear();
    acquired_.clear();
}

void Checker::block_barrier() { ++epoch_; }

void Checker::end_block() {
    if (worker_.launch->profile) flush_profile();
}

void Checker::declare_shared(const SharedVariable& variable) {
    Region* region = nullptr;
    for (Region& known : shared_)
        if (known.data == variable.data && known.size == variable.size && known.name == variable.name) region = &known;
    if (region == nullptr) {
        shared_.push_back({variable.data, variable.size, true, true, 0, variable.name, 4, {}, {}, {}});
        region = &shared_.back();
    }
    region->written.assign(variable.size, 0);
    open_shared_.push_back(region);
}

// ---- one access -----------------------------------------------------------------------------------------------------

bool Checker::is_exempt(const char* address) const {  // local variables, and what the module itself holds
    return (address >= worker_.stacks && address < worker_.stacks + kMaxThreads * kStackPitch) ||
           (address >= worker_.module_begin && address < worker_.module_end);
}

Region* Checker::find(const char* address, size_t size) {
    const auto holds = [&](const Region& region) {
        return address >= region.data && address + size <= region.data + region.size;
    };
    if (address >= worker_.arena && address < worker_.arena + kArenaSize) {
        for (Region* region : open_shared_)
            if (holds(*region)) return region;
    } else {
        for (Region& region : global_)
            if (holds(region)) return &region;
    }
    return nullptr;
}

void Checker::out_of_bounds(const char* address, size_t size, bool write, const void* caller) {
    const bool shared = address >= worker_.arena && address < worker_.arena + kArenaSize;
    const Region* nearest = nullptr;
    long long distance = LLONG_MAX;
    const auto consider = [&](const Region& region) {
        const long long beyond = address < region.data ? region.data - address : address + size - (region.data + region.size);
        if (beyond < distance) distance = beyond, nearest = &region;
    };
    if (shared)
        for (const Region* region : open_shared_) consider(*region);
    else
        for (const Region& region : global_) consider(region);
    std::string text = text_of("%s of %zu bytes of %s memory that ", write ? "write" : "read", size, shared ? "shared" : "global");
    if (nearest == nullptr || distance > (1 << 30))
        text += text_of("is far from every array, at address %p", static_cast<const void*>(address));
    else if (address < nearest->data)
        text += text_of("begins %lld bytes before ", distance) + nearest->description();
    else
        text += text_of("ends %lld bytes after the end of ", distance) + nearest->description();
    stop("out of bounds", text, place(caller));
}

void Checker::require_inside(const void* address, size_t size, const void* caller) {
    const char* begin = static_cast<const char*>(address);
    if (!is_exempt(begin) && find(begin, size) == nullptr) out_of_bounds(begin, size, false, caller);
}

void Checker::check(const char* address, size_t size, bool write, bool atomic, const void* caller) {
    Fiber* fiber = worker_.running;
    if (fiber == nullptr || size == 0 || is_exempt(address)) return;
    if (interrupted()) stop("interrupted", "the launch was interrupted", place(caller));
    Region* region = find(address, size);
    if (region == nullptr) out_of_bounds(address, size, write, caller);
    if (size <= 16 && (size & (size - 1)) == 0 && reinterpret_cast<uintptr_t>(address) % size != 0)
        stop("misaligned",
             text_of("%s of %zu bytes at an address that is not a multiple of %zu: byte %lld of ", write ? "write" : "read", size, size,
                     static_cast<long long>(address - region->data)) + region->description(),
             place(caller));
    if (write && !region->writable)
        stop("read-only", "write through a pointer to const: " + region->description(), place(caller));
    const size_t offset = address - region->data;
    if (region->shared) {
        if (write && !atomic) {
            memset(region->written.data() + offset, 1, size);
        } else {
            const void* missing = memchr(region->written.data() + offset, 0, size);
            if (missing != nullptr) {
                const size_t byte = static_cast<const unsigned char*>(missing) - region->written.data();
                stop("uninitialised",
                     text_of("%s byte %zu of ", atomic ? "atomic operation on" : "read of", byte) + region->description() +
                         ", which nothing was written to",
                     place(caller));
            }
        }
    }
    Access mine;
    mine.epoch = epoch_;
    mine.warp_epoch = warp_epochs_[fiber->linear / 32];
    mine.caller = static_cast<unsigned>(static_cast<const char*>(caller) - worker_.module_begin);
    mine.thread = static_cast<unsigned short>(fiber->linear);
    mine.atomic = atomic;
    mine.write = write;
    check_races(*region, offset, size, mine);
    if (atomic && !region->shared) synchronize(address);
    if (worker_.launch->profile) count_request(*region, address, size, write, caller);
}

void Checker::read(const void* address, size_t size, const void* caller) {
    check(static_cast<const char*>(address), size, false, false, caller);
}
void Checker::write(void* address, size_t size, const void* caller) {
    check(static_cast<const char*>(address), size, true, false, caller);
}
void Checker::atomic(void* address, size_t size, const void* caller) {
    check(static_cast<const char*>(address), size, true, true, caller);
}

void Checker::forget(const void* address, size_t size) {
    Region* region = find(static_cast<const char*>(address), size);
    if (region != nullptr && region->shared)
        std::fill_n(region->written.begin() + (static_cast<const char*>(address) - region->data), size, 0);
}

// ---- data races -----------------------------------------------------------------------------------------------------

bool Checker::conflicts(const Access& earlier, const Access& mine, bool shared) const {
    if (earlier.epoch < first_epoch_) {  // of another block: only a fence and an atomic operation order the two
        if (shared) return false;
        const auto known = acquired_.find(block_of(earlier.epoch));
        if (known == acquired_.end()) return true;
        const Acquired& until = known->second;
        return !(earlier.epoch < until.epoch || (earlier.epoch == until.epoch && earlier.thread == until.thread));
    }
    if (earlier.epoch != mine.epoch || earlier.thread == mine.thread) return false;
    return !(earlier.thread / 32 == mine.thread / 32 && earlier.warp_epoch != mine.warp_epoch);
}

template <class T> static Pages<T> refined(const Pages<T>& coarse, size_t count, size_t parts) {
    Pages<T> fine(count * parts);
    for (size_t i = 0; i < count * parts; ++i) fine[i] = coarse[i / parts];
    return fine;
}

void Checker::refine(Region& region, size_t grain) {
    const size_t count = region.size / region.grain + 1, parts = region.grain / grain;
    if (region.cells) region.cells = refined(region.cells, count, parts);
    if (region.atomics) region.atomics = refined(region.atomics, count, parts);
    region.grain = grain;
}

void Checker::check_races(Region& region, size_t offset, size_t size, const Access& mine) {
    const size_t bits = offset | size;
    while (bits % region.grain != 0) refine(region, region.grain / 2);
    const size_t count = region.size / region.grain + 1;
    if (!region.cells) region.cells = Pages<Cell>(count);
    if (mine.atomic && !region.atomics) region.atomics = Pages<AccessSet>(count);
    for (size_t i = offset / region.grain; i < (offset + size) / region.grain; ++i) {
        Cell& cell = region.cells[i];
        // Read by the same thread just before: whoever wrote it since has been found to race with that.
        const Access& last = cell.reads.last;
        if (!mine.write && last.thread == mine.thread && last.epoch == mine.epoch && last.warp_epoch == mine.warp_epoch) continue;
        const Access* earlier = nullptr;
        const auto consider = [&](const Access& access) {
            if (access.epoch != 0 && earlier == nullptr && conflicts(access, mine, region.shared)) earlier = &access;
        };
        const auto consider_all = [&](const AccessSet& set) {
            consider(set.last), consider(set.other_lane), consider(set.other_warp);
        };
        consider(cell.write);
        if (mine.write) consider_all(cell.reads);
        if (!mine.atomic && region.atomics) consider_all(region.atomics[i]);
        if (earlier != nullptr) report_race(region, i * region.grain, *earlier, mine);
        if (mine.atomic)
            region.atomics[i].add(mine, first_epoch_);
        else if (mine.write)
            cell.write = mine;
        else
            cell.reads.add(mine, first_epoch_);
    }
}

long long Checker::block_of(unsigned epoch) const {
    const auto after = std::upper_bound(block_epochs_.begin(), block_epochs_.end(), std::make_pair(epoch, LLONG_MAX));
    return std::prev(after)->second;
}

std::string Checker::address_text(unsigned caller) const { return text_of("@0x%x", caller - 1); }

static const char* verb(const Access& access) { return access.atomic ? "atomic operation" : access.write ? "write" : "read"; }

void Checker::report_race(const Region& region, size_t offset, const Access& earlier, const Access& mine) {
    const dim3 size = worker_.running->block_size;
    const unsigned t = earlier.thread;
    const std::string who = text_of("thread (%u, %u, %u)", t % size.x, t / size.x % size.y, t / size.x / size.y);
    std::string text = text_of("%s of byte %zu of ", verb(mine), offset) + region.description() + " against " + (earlier.atomic ? "an " : "a ") + verb(earlier) + " at " +
                       address_text(earlier.caller) + " by " + who;
    if (earlier.epoch < first_epoch_)
        text += text_of(" of block %lld, and nothing orders two blocks", block_of(earlier.epoch));
    else if (earlier.thread / 32 == mine.thread / 32)
        text += " of the same warp, with no __syncwarp() between";
    else
        text += " of the same block, with no __syncthreads() between";
    stop("race", text, place(worker_.module_begin + mine.caller));
}

// A thread that has called __threadfence and then changes a variable atomically releases what its block did before; a
// block that changes the variable after it has acquired that ("the last block adds up the rest").
void Checker::synchronize(const char* address) {
    const Fiber& fiber = *worker_.running;
    auto& released = released_[address];
    const auto merge = [](std::map<long long, Acquired>& into, const std::map<long long, Acquired>& from) {
        for (const auto& [block, until] : from) {
            Acquired& known = into.emplace(block, until).first->second;
            if (until.epoch > known.epoch) known = until;
        }
    };
    merge(acquired_, released);
    if (!fiber.fenced) return;
    merge(released, acquired_);
    released[worker_.block] = {epoch_, fiber.linear};
}

// ---- handlers -------------------------------------------------------------------------------------------------------

static Checker* checker() { return worker != nullptr ? worker->checker.get() : nullptr; }

void check_atomic(void* address, size_t size, const void* caller) {
    if (Checker* c = checker()) c->atomic(address, size, caller);
}
void check_read(const void* address, size_t size, const void* caller) {
    if (Checker* c = checker()) c->read(address, size, caller);
}
void check_write(void* address, size_t size, const void* caller) {
    if (Checker* c = checker()) c->write(address, size, caller);
}

}  // namespace cudasim

#pragma GCC visibility push(default)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define CUDASIM_HANDLERS(size)                                                                                         \
    void __tsan_read##size(void* p) { cudasim::check_read(p, size, __builtin_return_address(0)); }                     \
    void __tsan_write##size(void* p) { cudasim::check_write(p, size, __builtin_return_address(0)); }                   \
    void __tsan_unaligned_read##size(void* p) { cudasim::check_read(p, size, __builtin_return_address(0)); }           \
    void __tsan_unaligned_write##size(void* p) { cudasim::check_write(p, size, __builtin_return_address(0)); }
CUDASIM_HANDLERS(1)
CUDASIM_HANDLERS(2)
CUDASIM_HANDLERS(4)
CUDASIM_HANDLERS(8)
CUDASIM_HANDLERS(16)
void __tsan_read_range(void* p, unsigned long size) { cudasim::check_read(p, size, __builtin_return_address(0)); }
void __tsan_write_range(void* p, unsigned long size) { cudasim::check_write(p, size, __builtin_return_address(0)); }

// Undefined behaviour: each handler gets a record that begins with the place in the source.
struct cudasim_place {
    const char* file;
    unsigned line, column;
};
struct cudasim_type {
    unsigned short kind, details;
    char name[1];  // and what follows
};
struct cudasim_index_record {
    cudasim_place place;
    const cudasim_type *array, *index;
};

static cudasim::Location location_of(const cudasim_place* place) { return {place->file, static_cast<int>(place->line)}; }

#define CUDASIM_UNDEFINED(name, kind, text)                                                                            \
    void __ubsan_handle_##name(const cudasim_place* place) { cudasim::fail(kind, text, location_of(place)); }
CUDASIM_UNDEFINED(add_overflow, "overflow", "a sum of signed integers overflows")
CUDASIM_UNDEFINED(sub_overflow, "overflow", "a difference of signed integers overflows")
CUDASIM_UNDEFINED(mul_overflow, "overflow", "a product of signed integers overflows")
CUDASIM_UNDEFINED(negate_overflow, "overflow", "the negative of a signed integer overflows")
CUDASIM_UNDEFINED(divrem_overflow, "division by zero", "an integer is divided by zero, or the quotient overflows")
CUDASIM_UNDEFINED(shift_out_of_bounds, "shift", "a shift by a negative number of bits, or by as many as there are or more")
CUDASIM_UNDEFINED(builtin_unreachable, "unreachable", "the kernel reached a statement that it declares unreachable")
void __ubsan_handle_out_of_bounds(const cudasim_index_record* record, long index) {
    const std::string text = cudasim::text_of("index %ld is outside of an array of type %s", index, record->array->name);
    cudasim::stop("out of bounds", text, cudasim::place(location_of(&record->place)));
}
}
#pragma GCC visibility pop
