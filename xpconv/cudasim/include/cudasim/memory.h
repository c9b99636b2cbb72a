// Loads and stores with a cache hint, and the copies of bytes that the compiler's instrumentation does not see.
#pragma once
#include <string.h>

#include "cudasim/runtime.h"

#define CUDASIM_LOAD(name)                                                                                             \
    template <class T> __attribute__((always_inline)) inline T name(const T* address) { return *address; }
CUDASIM_LOAD(__ldg)
CUDASIM_LOAD(__ldca)
CUDASIM_LOAD(__ldcg)
CUDASIM_LOAD(__ldcs)
CUDASIM_LOAD(__ldcv)
CUDASIM_LOAD(__ldlu)
#undef CUDASIM_LOAD

namespace cudasim {
template <class T> struct Same {
    using type = T;
};
}  // namespace cudasim
#define CUDASIM_STORE(name)                                                                                            \
    template <class T>                                                                                                 \
    __attribute__((always_inline)) inline void name(T* address, typename cudasim::Same<T>::type value) {               \
        *address = value;                                                                                              \
    }
CUDASIM_STORE(__stwb)
CUDASIM_STORE(__stcg)
CUDASIM_STORE(__stcs)
CUDASIM_STORE(__stwt)
#undef CUDASIM_STORE

#ifdef CUDASIM_CHECK
namespace cudasim {
CUDASIM_UNCHECKED void* checked_copy(void* to, const void* from, size_t size) {
    check_read(from, size, __builtin_return_address(0));
    check_write(to, size, __builtin_return_address(0));
    return __builtin_memmove(to, from, size);
}
CUDASIM_UNCHECKED void* checked_fill(void* to, int value, size_t size) {
    check_write(to, size, __builtin_return_address(0));
    return __builtin_memset(to, value, size);
}
}  // namespace cudasim
#define memcpy(to, from, size) cudasim::checked_copy(to, from, size)
#define memmove(to, from, size) cudasim::checked_copy(to, from, size)
#define memset(to, value, size) cudasim::checked_fill(to, value, size)
#endif
