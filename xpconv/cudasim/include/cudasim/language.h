// The keywords and built-in variables of CUDA C++.
#pragma once
#include "cudasim/runtime.h"

#define __global__ __attribute__((cudasim_kernel))  // no such attribute: a mark that outlives the preprocessor
#define __device__
#define __host__
#define __constant__ static
#define __managed__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __align__(n) alignas(n)
#undef __restrict__
#define __restrict__ __restrict
#define __builtin_assume(condition) ((condition) ? (void)0 : __builtin_unreachable())
#define __builtin_align__(n) alignas(n)

#ifdef CUDASIM_CHECK
#define threadIdx (cudasim::thread_index())
#define blockIdx (cudasim::block_index())
#define blockDim (cudasim::block_size())
#define gridDim (cudasim::grid_size())
#else
#define threadIdx (cudasim::current->index)
#define blockIdx (cudasim::current->block)
#define blockDim (cudasim::current->block_size)
#define gridDim (cudasim::current->grid_size)
#endif
#define warpSize 32

namespace cudasim {

// `__shared__ float tile[32][33];` in a kernel becomes `auto& tile = shared<float[(32)][(33)]>(key, "tile", 0);`, where `key`
// is the address of something that no other variable has.
template <class T> CUDASIM_UNCHECKED T& shared(const void* key, const char* name, size_t alignment, CUDASIM_HERE) {
    constexpr size_t least = alignof(T) > 16 ? alignof(T) : 16;
    return *static_cast<T*>(shared_variable(key, name, sizeof(T), alignment > least ? alignment : least, at));
}
template <class T> CUDASIM_UNCHECKED T* dynamic_shared(CUDASIM_HERE) { return static_cast<T*>(dynamic_shared_memory(at)); }

}  // namespace cudasim

extern "C" int printf(const char*, ...);
#define assert(condition)                                                                                              \
    ((condition) ? (void)0 : cudasim::fail("assertion", "assertion failed: " #condition, cudasim::Location::here()))
inline void __trap(CUDASIM_HERE) { cudasim::fail("trap", "__trap() was called", at); }
