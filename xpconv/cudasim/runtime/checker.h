// The checker: sees every load and store of a kernel in check mode.
#pragma once
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

#include "worker.h"

namespace cudasim {

// Who accessed some bytes, and when. Time is counted in epochs: a block's barrier begins a new one, so does each block.
struct Access {
    unsigned epoch = 0;       // 0: nobody yet
    unsigned warp_epoch = 0;  // number of __syncwarps that its warp had passed
    unsigned caller = 0;      // address in the module
    unsigned short thread = 0;
    bool atomic = false, write = false;
};

// Of the many that read some bytes, those three that no fourth could race with unless one of them does too.
struct AccessSet {
    Access last, other_lane, other_warp;
    void add(const Access& access, unsigned first_epoch_of_block);
};

struct Cell {
    Access write;
    AccessSet reads;
};

// Zeroed memory that takes up pages only where it is touched.
template <class T> class Pages {
  public:
    Pages() = default;
    explicit Pages(size_t count);
    ~Pages();
    Pages(Pages&& other) noexcept;
    Pages& operator=(Pages&& other) noexcept;
    T& operator[](size_t i) const { return data_[i]; }
    explicit operator bool() const { return data_ != nullptr; }

  private:
    T* data_ = nullptr;
    size_t count_ = 0;
};

// An array in global memory, or a variable in shared memory.
struct Region {
    const char* data;
    size_t size;
    bool shared, writable;
    int argument;      // of global memory
    const char* name;  // of shared memory; null if it is dynamic
    // Bytes of one cell. Halved when an access is narrower: exact for any mixture of types, and small for floats.
    size_t grain = 4;
    Pages<Cell> cells;
    Pages<AccessSet> atomics;  // of each cell, from the first atomic operation on
    std::vector<unsigned char> written;  // shared memory: which bytes are initialised

    std::string description() const;
};

class Checker {
  public:
    explicit Checker(Worker& worker);
    void begin_block();
    void end_block();
    void block_barrier();
    void warp_barrier(int warp) { ++warp_epochs_[warp]; }
    void declare_shared(const SharedVariable& variable);

    void read(const void* address, size_t size, const void* caller);
    void write(void* address, size_t size, const void* caller);
    void atomic(void* address, size_t size, const void* caller);
    void forget(const void* address, size_t size);
    void require_inside(const void* address, size_t size, const void* caller);
    // As the copies of which line the profile counts what follows: g++ may spread one instruction of a card, which copies for
    // some lanes and writes zeros for others, over several calls. 0 counts by the instruction, kUncounted not at all.
    static constexpr unsigned kUncounted = ~0u;
    void count_as(unsigned line) { counted_as_ = line; }
    void write_profile() const;

  private:
    struct Request {  // of one warp for one execution of one instruction
        bool write;
        unsigned caller;
        std::vector<std::pair<uintptr_t, unsigned>> accesses;
    };
    struct Instance {
        unsigned instruction;
        int warp;
        unsigned occurrence;
        bool shared;
        bool operator<(const Instance& other) const;
    };
    struct Totals {
        bool write = false;
        unsigned long long requests = 0, transactions = 0, least = 0;
    };
    struct Acquired {  // what the running block knows to have happened in another one
        unsigned epoch;
        int thread;
    };

    void check(const char* address, size_t size, bool write, bool atomic, const void* caller);
    Region* find(const char* address, size_t size);
    bool is_exempt(const char* address) const;
    [[noreturn]] void out_of_bounds(const char* address, size_t size, bool write, const void* caller);
    void check_races(Region& region, size_t offset, size_t size, const Access& mine);
    bool conflicts(const Access& earlier, const Access& mine, bool shared) const;
    [[noreturn]] void report_race(const Region& region, size_t offset, const Access& earlier, const Access& mine);
    static void refine(Region& region, size_t grain);
    void synchronize(const char* address);
    long long block_of(unsigned epoch) const;
    std::string address_text(unsigned caller) const;
    void count_request(const Region& region, const char* address, size_t size, bool write, const void* caller);
    void flush_profile();

    Worker& worker_;
    unsigned counted_as_ = 0;
    std::vector<Region> global_;
    std::deque<Region> shared_;  // of all blocks: pointers to its elements stay valid
    std::vector<Region*> open_shared_;  // those that the running block has declared
    unsigned epoch_ = 0, first_epoch_ = 1;
    std::vector<unsigned> warp_epochs_;
    std::vector<std::pair<unsigned, long long>> block_epochs_;  // first epoch of each block, number of the block
    // Fences: what each atomic variable has been released with, and what this block has acquired, by block.
    std::unordered_map<const char*, std::map<long long, Acquired>> released_;
    std::map<long long, Acquired> acquired_;
    std::unordered_map<unsigned long long, unsigned> occurrences_;
    std::map<Instance, Request> requests_;
    std::map<std::pair<unsigned, bool>, Totals> totals_;
};

}  // namespace cudasim
