// Barriers, fences, votes, shuffles and reductions of a warp.
#pragma once
#include "cudasim/runtime.h"

inline void __syncthreads(CUDASIM_HERE) { cudasim::block_barrier(cudasim::kSyncThreads, 0, at); }
inline int __syncthreads_count(int predicate, CUDASIM_HERE) {
    return cudasim::block_barrier(cudasim::kSyncThreadsCount, predicate, at);
}
inline int __syncthreads_and(int predicate, CUDASIM_HERE) {
    return cudasim::block_barrier(cudasim::kSyncThreadsAnd, predicate, at);
}
inline int __syncthreads_or(int predicate, CUDASIM_HERE) {
    return cudasim::block_barrier(cudasim::kSyncThreadsOr, predicate, at);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDASIM_HERE) {
    cudasim::warp_collective(mask, cudasim::kSyncWarp, at, nullptr);
}
inline void __threadfence() { cudasim::fence(); }
inline void __threadfence_block() { cudasim::fence(); }
inline void __threadfence_system() { cudasim::fence(); }
inline void __nanosleep(unsigned) { cudasim::give_way(); }
inline unsigned __activemask(CUDASIM_HERE) {
    cudasim::fail("not simulated", "__activemask is not simulated: pass on the mask that the threads agreed on", at);
}

namespace cudasim {

CUDASIM_UNCHECKED void finish_shuffle(Lane* const* lanes, unsigned mask) {
    for (int i = 0; i < 32; ++i)
        if (mask >> i & 1) lanes[i]->result = lanes[lanes[i]->source]->value;
}

template <class T>
CUDASIM_UNCHECKED T shuffle(unsigned mask, T value, int source, Operation operation, Location at) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    Lane& lane = current_thread()->lane;
    if (!(mask >> source & 1)) fail("collective", "a shuffle reads a lane outside its mask", at);
    __builtin_memcpy(&lane.value, &value, sizeof value);
    lane.source = source;
    warp_collective(mask, operation, at, finish_shuffle);
    T result;
    __builtin_memcpy(&result, &lane.result, sizeof result);
    return result;
}

CUDASIM_UNCHECKED int lane_index() { return current_thread()->linear & 31; }

// value of each lane -> one result for all
template <class T, class Combine> CUDASIM_UNCHECKED void finish_reduction(Lane* const* lanes, unsigned mask) {
    T total{};
    bool first = true;
    for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        T value;
        __builtin_memcpy(&value, &lanes[i]->value, sizeof value);
        total = first ? value : Combine::of(total, value);
        first = false;
    }
    for (int i = 0; i < 32; ++i)
        if (mask >> i & 1) __builtin_memcpy(&lanes[i]->result, &total, sizeof total);
}

template <class Combine, class T> CUDASIM_UNCHECKED T reduce(unsigned mask, T value, Operation operation, Location at) {
    Lane& lane = current_thread()->lane;
    __builtin_memcpy(&lane.value, &value, sizeof value);
    warp_collective(mask, operation, at, finish_reduction<T, Combine>);
    T result;
    __builtin_memcpy(&result, &lane.result, sizeof result);
    return result;
}

#define CUDASIM_COMBINE(name, expression)                                                                              \
    struct name {                                                                                                      \
        template <class T> CUDASIM_UNCHECKED static T of(T a, T b) { return expression; }                              \
    };
CUDASIM_COMBINE(Sum, T(static_cast<unsigned>(a) + static_cast<unsigned>(b)))
CUDASIM_COMBINE(Least, b < a ? b : a)
CUDASIM_COMBINE(Greatest, a < b ? b : a)
CUDASIM_COMBINE(Both, a& b)
CUDASIM_COMBINE(Either, a | b)
CUDASIM_COMBINE(OneOf, a ^ b)
#undef CUDASIM_COMBINE

CUDASIM_UNCHECKED void finish_match_any(Lane* const* lanes, unsigned mask) {
    for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        unsigned same = 0;
        for (int k = 0; k < 32; ++k)
            if ((mask >> k & 1) && lanes[k]->value == lanes[i]->value) same |= 1u << k;
        lanes[i]->result = same;
    }
}

template <class T> CUDASIM_UNCHECKED unsigned match_any(unsigned mask, T value, Location at) {
    Lane& lane = current_thread()->lane;
    lane.value = 0;
    __builtin_memcpy(&lane.value, &value, sizeof value);
    warp_collective(mask, kMatch, at, finish_match_any);
    return static_cast<unsigned>(lane.result);
}

}  // namespace cudasim

// A segment of `width` lanes is a warp of its own; a source beyond it leaves the lane its own value.
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDASIM_HERE) {
    const int lane = cudasim::lane_index();
    return cudasim::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), cudasim::kShuffle, at);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CUDASIM_HERE) {
    const int lane = cudasim::lane_index(), source = lane ^ lane_mask;
    const bool beyond = (source & ~(width - 1)) > (lane & ~(width - 1)) || source > 31;
    return cudasim::shuffle(mask, value, beyond ? lane : source, cudasim::kShuffleXor, at);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_HERE) {
    const int lane = cudasim::lane_index();
    const bool inside = (lane & (width - 1)) + static_cast<long long>(delta) < width;
    return cudasim::shuffle(mask, value, inside ? lane + static_cast<int>(delta) : lane, cudasim::kShuffleDown, at);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDASIM_HERE) {
    const int lane = cudasim::lane_index();
    const bool inside = (lane & (width - 1)) >= static_cast<long long>(delta);
    return cudasim::shuffle(mask, value, inside ? lane - static_cast<int>(delta) : lane, cudasim::kShuffleUp, at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDASIM_HERE) {
    const unsigned mine = predicate != 0 ? 1u << cudasim::lane_index() : 0u;
    return cudasim::reduce<cudasim::Either>(mask, mine, cudasim::kBallot, at);
}
inline int __any_sync(unsigned mask, int predicate, CUDASIM_HERE) {
    return cudasim::reduce<cudasim::Either>(mask, unsigned(predicate != 0), cudasim::kAny, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDASIM_HERE) {
    return cudasim::reduce<cudasim::Both>(mask, unsigned(predicate != 0), cudasim::kAll, at) != 0;
}
template <class T> unsigned __match_any_sync(unsigned mask, T value, CUDASIM_HERE) {
    return cudasim::match_any(mask, value, at);
}
template <class T> unsigned __match_all_sync(unsigned mask, T value, int* all, CUDASIM_HERE) {
    *all = cudasim::match_any(mask, value, at) == mask;
    return *all ? mask : 0u;
}

#define CUDASIM_REDUCTION(name, T, Combine, operation)                                                                 \
    inline T __reduce_##name##_sync(unsigned mask, T value, CUDASIM_HERE) {                                            \
        return cudasim::reduce<cudasim::Combine>(mask, value, cudasim::operation, at);                                 \
    }
CUDASIM_REDUCTION(add, unsigned, Sum, kReduceAdd)
CUDASIM_REDUCTION(add, int, Sum, kReduceAdd)
CUDASIM_REDUCTION(min, unsigned, Least, kReduceMin)
CUDASIM_REDUCTION(min, int, Least, kReduceMin)
CUDASIM_REDUCTION(max, unsigned, Greatest, kReduceMax)
CUDASIM_REDUCTION(max, int, Greatest, kReduceMax)
CUDASIM_REDUCTION(and, unsigned, Both, kReduceAnd)
CUDASIM_REDUCTION(or, unsigned, Either, kReduceOr)
CUDASIM_REDUCTION(xor, unsigned, OneOf, kReduceXor)
#undef CUDASIM_REDUCTION
