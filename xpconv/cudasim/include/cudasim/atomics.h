// Atomic operations: relaxed, as on the card. A thread that only spins on them gives way to the others now and then.
#pragma once
#include "cudasim/runtime.h"

namespace cudasim {

template <size_t size> struct Word;
template <> struct Word<2> {
    using type = uint16_t;
};
template <> struct Word<4> {
    using type = uint32_t;
};
template <> struct Word<8> {
    using type = uint64_t;
};

template <class Update, class T>
CUDASIM_UNCHECKED T modify(T* address, T operand, T compared) {
#ifdef CUDASIM_CHECK  // not inlined: the return address tells the line
    check_atomic(address, sizeof(T), __builtin_return_address(0));
#endif
    Thread* thread = current_thread();
    if (++thread->spins >= 50) give_way();
    using W = typename Word<sizeof(T)>::type;
    W* word = reinterpret_cast<W*>(address);
    W old_word = __atomic_load_n(word, __ATOMIC_RELAXED);
    for (;;) {
        T old, updated;
        __builtin_memcpy(&old, &old_word, sizeof old);
        updated = Update::of(old, operand, compared);
        W new_word;
        __builtin_memcpy(&new_word, &updated, sizeof new_word);
        if (!__atomic_compare_exchange_n(word, &old_word, new_word, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
        thread->has_changed |= new_word != old_word;
        return old;
    }
}

#define CUDASIM_UPDATE(name, expression)                                                                               \
    struct name {                                                                                                      \
        template <class T>                                                                                             \
        CUDASIM_UNCHECKED static T of(T old, [[maybe_unused]] T operand, [[maybe_unused]] T compared) {                \
            return expression;                                                                                         \
        }                                                                                                              \
    };
CUDASIM_UPDATE(Add, T(old + operand))
CUDASIM_UPDATE(Subtract, T(old - operand))
CUDASIM_UPDATE(Exchange, operand)
CUDASIM_UPDATE(Minimum, operand < old ? operand : old)
CUDASIM_UPDATE(Maximum, old < operand ? operand : old)
CUDASIM_UPDATE(Increment, old >= operand ? T(0) : T(old + 1))
CUDASIM_UPDATE(Decrement, old == 0 || old > operand ? operand : T(old - 1))
CUDASIM_UPDATE(And, old& operand)
CUDASIM_UPDATE(Or, old | operand)
CUDASIM_UPDATE(Xor, old ^ operand)
CUDASIM_UPDATE(CompareAndSwap, old == compared ? operand : old)
#undef CUDASIM_UPDATE

// Sums of signed numbers wrap around, on the card as here.
struct AddSigned {
    CUDASIM_UNCHECKED static int of(int old, int operand, int) {
        return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(operand));
    }
};
struct SubtractSigned {
    CUDASIM_UNCHECKED static int of(int old, int operand, int) {
        return static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(operand));
    }
};

}  // namespace cudasim

#define CUDASIM_ATOMIC(function, T, Update)                                                                            \
    __attribute__((always_inline)) inline T function(T* address, T value) {                                            \
        return cudasim::modify<cudasim::Update>(address, value, value);                                                \
    }                                                                                                                  \
    __attribute__((always_inline)) inline T function##_block(T* address, T value) { return function(address, value); } \
    __attribute__((always_inline)) inline T function##_system(T* address, T value) { return function(address, value); }
CUDASIM_ATOMIC(atomicAdd, int, AddSigned)
CUDASIM_ATOMIC(atomicAdd, unsigned, Add)
CUDASIM_ATOMIC(atomicAdd, unsigned long long, Add)
CUDASIM_ATOMIC(atomicAdd, float, Add)
CUDASIM_ATOMIC(atomicAdd, double, Add)
CUDASIM_ATOMIC(atomicSub, int, SubtractSigned)
CUDASIM_ATOMIC(atomicSub, unsigned, Subtract)
CUDASIM_ATOMIC(atomicExch, int, Exchange)
CUDASIM_ATOMIC(atomicExch, unsigned, Exchange)
CUDASIM_ATOMIC(atomicExch, unsigned long long, Exchange)
CUDASIM_ATOMIC(atomicExch, float, Exchange)
CUDASIM_ATOMIC(atomicMin, int, Minimum)
CUDASIM_ATOMIC(atomicMin, unsigned, Minimum)
CUDASIM_ATOMIC(atomicMin, long long, Minimum)
CUDASIM_ATOMIC(atomicMin, unsigned long long, Minimum)
CUDASIM_ATOMIC(atomicMax, int, Maximum)
CUDASIM_ATOMIC(atomicMax, unsigned, Maximum)
CUDASIM_ATOMIC(atomicMax, long long, Maximum)
CUDASIM_ATOMIC(atomicMax, unsigned long long, Maximum)
CUDASIM_ATOMIC(atomicInc, unsigned, Increment)
CUDASIM_ATOMIC(atomicDec, unsigned, Decrement)
CUDASIM_ATOMIC(atomicAnd, int, And)
CUDASIM_ATOMIC(atomicAnd, unsigned, And)
CUDASIM_ATOMIC(atomicAnd, unsigned long long, And)
CUDASIM_ATOMIC(atomicOr, int, Or)
CUDASIM_ATOMIC(atomicOr, unsigned, Or)
CUDASIM_ATOMIC(atomicOr, unsigned long long, Or)
CUDASIM_ATOMIC(atomicXor, int, Xor)
CUDASIM_ATOMIC(atomicXor, unsigned, Xor)
CUDASIM_ATOMIC(atomicXor, unsigned long long, Xor)

#define CUDASIM_ATOMIC_CAS(T)                                                                                          \
    __attribute__((always_inline)) inline T atomicCAS(T* address, T compared, T value) {                               \
        return cudasim::modify<cudasim::CompareAndSwap>(address, value, compared);                                     \
    }                                                                                                                  \
    __attribute__((always_inline)) inline T atomicCAS_block(T* address, T compared, T value) {                         \
        return atomicCAS(address, compared, value);                                                                    \
    }                                                                                                                  \
    __attribute__((always_inline)) inline T atomicCAS_system(T* address, T compared, T value) {                        \
        return atomicCAS(address, compared, value);                                                                    \
    }
CUDASIM_ATOMIC_CAS(int)
CUDASIM_ATOMIC_CAS(unsigned)
CUDASIM_ATOMIC_CAS(unsigned short)
CUDASIM_ATOMIC_CAS(unsigned long long)
#undef CUDASIM_ATOMIC_CAS
