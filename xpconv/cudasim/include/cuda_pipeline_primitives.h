// Asynchronous copies to shared memory. The bytes land when they are waited for; until then the destination is poison.
#pragma once
#include "cudasim.h"

__attribute__((always_inline)) inline void __pipeline_memcpy_async(
    void* shared, const void* global, size_t size, size_t zeros = 0, CUDASIM_HERE) {
    cudasim::copy_async(shared, global, size, zeros, at);
}
inline void __pipeline_commit() { cudasim::commit_async(); }
inline void __pipeline_wait_prior(size_t groups) { cudasim::wait_async(groups); }
