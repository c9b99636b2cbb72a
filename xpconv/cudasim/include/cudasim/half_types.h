// What __half and __nv_bfloat16 have in common: conversions that round to nearest even, from any number in one step, and
// arithmetic that rounds once. All of it in integers and floats, so that no processor has to know the types.
#pragma once
#include "cudasim.h"
#include "cudasim/entry.h"

namespace cudasim {

// A float format of 16 bits, by its number of bits of the fraction: 10 (half) or 7 (bfloat16).
template <int fraction> struct Format {
    static constexpr int exponent_bits = 15 - fraction, bias = (1 << (exponent_bits - 1)) - 1;
    static constexpr unsigned infinity = ((1u << exponent_bits) - 1) << fraction, nan = 0x7fff;

    // Rounds a double, which holds every float and every int exactly.
    CUDASIM_UNCHECKED static uint16_t narrow(double value) {
        uint64_t bits;
        __builtin_memcpy(&bits, &value, sizeof bits);
        const unsigned sign = static_cast<unsigned>(bits >> 63) << 15;
        bits &= ~0ull >> 1;
        if (bits > 0x7ffull << 52) return nan;
        if (bits == 0) return static_cast<uint16_t>(sign);
        const int exponent = static_cast<int>(bits >> 52) - 1023;
        if (exponent > bias) return static_cast<uint16_t>(sign | infinity);
        const uint64_t significand = (bits & (~0ull >> 12)) | 1ull << 52;
        // Normal numbers lose 52 - fraction bits, subnormal ones more.
        const int lowest = 1 - bias;
        const int lost = 52 - fraction + (exponent < lowest ? lowest - exponent : 0);
        if (lost > 54) return static_cast<uint16_t>(sign);
        const uint64_t rest = significand & ((1ull << lost) - 1), middle = 1ull << (lost - 1);
        uint64_t kept = significand >> lost;
        if (rest > middle || (rest == middle && (kept & 1))) ++kept;
        // The leading one of a normal number adds 1 to the exponent, and so does a carry.
        const uint64_t biased = exponent < lowest ? 0 : static_cast<uint64_t>(exponent + bias - 1) << fraction;
        return static_cast<uint16_t>(sign | static_cast<unsigned>(biased + kept));
    }

    CUDASIM_UNCHECKED static uint16_t narrow(float value) { return narrow_float(value, Digits<fraction>{}); }

    CUDASIM_UNCHECKED static float widen(uint16_t bits) { return widen(bits, Digits<fraction>{}); }

  private:
    template <int> struct Digits {};

    CUDASIM_UNCHECKED static uint16_t narrow_float(float value, Digits<10>) {
        uint32_t bits;
        __builtin_memcpy(&bits, &value, sizeof bits);
        const uint32_t magnitude = bits & 0x7fffffffu;
        if (magnitude - 0x38800000u < 0x477ff000u - 0x38800000u)  // normal, and not rounded up to infinity
            return static_cast<uint16_t>((bits >> 16 & 0x8000u) |
                                         ((magnitude + 0xfffu + (magnitude >> 13 & 1) - 0x38000000u) >> 13));
        return narrow(static_cast<double>(value));
    }
    CUDASIM_UNCHECKED static uint16_t narrow_float(float value, Digits<7>) {
        uint32_t bits;
        __builtin_memcpy(&bits, &value, sizeof bits);
        if (value != value) return nan;
        return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
    CUDASIM_UNCHECKED static float widen(uint16_t half, Digits<10>) {
        const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
        uint32_t bits;
        if (magnitude >= 0x7c00u) {
            bits = sign | 0x7f800000u | magnitude << 13;
        } else if (magnitude >= 0x400u) {
            bits = sign | ((magnitude << 13) + 0x38000000u);
        } else {  // subnormal: a multiple of 2**-24
            const float value = static_cast<float>(static_cast<int>(magnitude)) * 5.9604644775390625e-8f;
            __builtin_memcpy(&bits, &value, sizeof bits);
            bits |= sign;
        }
        float result;
        __builtin_memcpy(&result, &bits, sizeof result);
        return result;
    }
    CUDASIM_UNCHECKED static float widen(uint16_t half, Digits<7>) {
        const uint32_t bits = static_cast<uint32_t>(half) << 16;
        float result;
        __builtin_memcpy(&result, &bits, sizeof result);
        return result;
    }
};

// x * y + z, rounded to double in such a way that rounding it again rounds it rightly: an inexact result is made odd.
CUDASIM_UNCHECKED double multiply_add(float x, float y, float z) {
    const double product = static_cast<double>(x) * y, addend = z, sum = product + addend;
    if (!(__builtin_fabs(sum) <= 1.7976931348623157e308)) return sum;
    const double part = sum - product, error = (product - (sum - part)) + (addend - part);
    long long bits;
    __builtin_memcpy(&bits, &sum, sizeof bits);
    if (error != 0 && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : -1;
    double odd;
    __builtin_memcpy(&odd, &bits, sizeof odd);
    return odd;
}

}  // namespace cudasim

// A type T of 16 bits, the type T2 of two of them, and CUDA's functions on both. RAW is the type of a pattern, `fraction`
// as above, `kind_` what the signature of a kernel says of T.
#define CUDASIM_HALF_TYPE(T, T2, RAW, fraction, kind_)                                                                 \
    struct RAW {                                                                                                       \
        unsigned short x;                                                                                              \
    };                                                                                                                 \
    struct T {                                                                                                         \
        unsigned short bits;                                                                                           \
        T() = default;                                                                                                 \
        constexpr T(RAW raw) : bits(raw.x) {}                                                                          \
        T(float x) : bits(cudasim::Format<fraction>::narrow(x)) {}                                                     \
        T(double x) : bits(cudasim::Format<fraction>::narrow(x)) {}                                                    \
        T(int x) : T(static_cast<double>(x)) {}                                                                        \
        T(unsigned x) : T(static_cast<double>(x)) {}                                                                   \
        T(short x) : T(static_cast<double>(x)) {}                                                                      \
        T(unsigned short x) : T(static_cast<double>(x)) {}                                                             \
        T(long x) : T(static_cast<double>(x)) {}                                                                       \
        T(unsigned long x) : T(static_cast<double>(x)) {}                                                              \
        T(long long x) : T(static_cast<double>(x)) {}                                                                  \
        T(unsigned long long x) : T(static_cast<double>(x)) {}                                                         \
        operator float() const { return cudasim::Format<fraction>::widen(bits); }                                      \
        operator RAW() const { return {bits}; }                                                                        \
        explicit operator bool() const { return (bits & 0x7fff) != 0; }                                                \
        T operator+() const { return *this; }                                                                          \
        T operator-() const { return RAW{static_cast<unsigned short>(bits ^ 0x8000)}; }                                \
        T& operator++() { return *this = T(float(*this) + 1); }                                                        \
        T& operator--() { return *this = T(float(*this) - 1); }                                                        \
    };                                                                                                                 \
    struct alignas(4) T2 {                                                                                             \
        T x, y;                                                                                                        \
        T2() = default;                                                                                                \
        T2(T x_, T y_) : x(x_), y(y_) {}                                                                               \
    };                                                                                                                 \
    template <> struct cudasim::Half16<T> {                                                                            \
        static constexpr char kind = kind_;                                                                            \
    };                                                                                                                 \
    CUDASIM_HALF_OPERATOR(T, T2, +)                                                                                    \
    CUDASIM_HALF_OPERATOR(T, T2, -)                                                                                    \
    CUDASIM_HALF_OPERATOR(T, T2, *)                                                                                    \
    CUDASIM_HALF_OPERATOR(T, T2, /)                                                                                    \
    CUDASIM_HALF_COMPARISON(T, ==, eq)                                                                                 \
    CUDASIM_HALF_COMPARISON(T, !=, ne)                                                                                 \
    CUDASIM_HALF_COMPARISON(T, <, lt)                                                                                  \
    CUDASIM_HALF_COMPARISON(T, <=, le)                                                                                 \
    CUDASIM_HALF_COMPARISON(T, >, gt)                                                                                  \
    CUDASIM_HALF_COMPARISON(T, >=, ge)                                                                                 \
    inline T __hadd(T a, T b) { return a + b; }                                                                        \
    inline T __hsub(T a, T b) { return a - b; }                                                                        \
    inline T __hmul(T a, T b) { return a * b; }                                                                        \
    inline T __hdiv(T a, T b) { return a / b; }                                                                        \
    inline T __hadd_rn(T a, T b) { return a + b; }                                                                     \
    inline T __hsub_rn(T a, T b) { return a - b; }                                                                     \
    inline T __hmul_rn(T a, T b) { return a * b; }                                                                     \
    inline T __hneg(T a) { return -a; }                                                                                \
    inline T __habs(T a) { return RAW{static_cast<unsigned short>(a.bits & 0x7fff)}; }                                 \
    inline T __hfma(T a, T b, T c) { return T(cudasim::multiply_add(a, b, c)); }                                       \
    inline bool __hisnan(T a) { return (a.bits & 0x7fffu) > cudasim::Format<fraction>::infinity; }                     \
    inline int __hisinf(T a) {                                                                                         \
        return (a.bits & 0x7fffu) != cudasim::Format<fraction>::infinity ? 0 : a.bits & 0x8000 ? -1 : 1;               \
    }                                                                                                                  \
    inline bool isnan(T a) { return __hisnan(a); }                                                                     \
    inline bool isinf(T a) { return __hisinf(a) != 0; }                                                                \
    inline T __hmax_nan(T a, T b) { return __hisnan(a) ? a : __hisnan(b) ? b : float(a) < float(b) ? b : a; }          \
    inline T __hmin_nan(T a, T b) { return __hisnan(a) ? a : __hisnan(b) ? b : float(b) < float(a) ? b : a; }          \
    inline T __hmax(T a, T b) { return __hisnan(a) ? b : __hisnan(b) ? a : __hmax_nan(a, b); }                         \
    inline T __hmin(T a, T b) { return __hisnan(a) ? b : __hisnan(b) ? a : __hmin_nan(a, b); }                         \
    inline T __hadd_sat(T a, T b) { return T(__saturatef(float(a + b))); }                                             \
    inline T __hsub_sat(T a, T b) { return T(__saturatef(float(a - b))); }                                             \
    inline T __hmul_sat(T a, T b) { return T(__saturatef(float(a * b))); }                                             \
    inline T __hfma_sat(T a, T b, T c) { return T(__saturatef(float(__hfma(a, b, c)))); }                              \
    inline T __hfma_relu(T a, T b, T c) {                                                                              \
        const T sum = __hfma(a, b, c);                                                                                 \
        return float(sum) < 0 ? T(0.0f) : sum;                                                                         \
    }                                                                                                                  \
    CUDASIM_HALF_FUNCTION(T, T2, exp, exp)                                                                             \
    CUDASIM_HALF_FUNCTION(T, T2, exp2, exp2)                                                                           \
    CUDASIM_HALF_FUNCTION(T, T2, exp10, exp10)                                                                         \
    CUDASIM_HALF_FUNCTION(T, T2, log, log)                                                                             \
    CUDASIM_HALF_FUNCTION(T, T2, log2, log2)                                                                           \
    CUDASIM_HALF_FUNCTION(T, T2, log10, log10)                                                                         \
    CUDASIM_HALF_FUNCTION(T, T2, sqrt, sqrt)                                                                           \
    CUDASIM_HALF_FUNCTION(T, T2, rsqrt, rsqrt)                                                                         \
    CUDASIM_HALF_FUNCTION(T, T2, rcp, 1.0 /)                                                                           \
    CUDASIM_HALF_FUNCTION(T, T2, sin, sin)                                                                             \
    CUDASIM_HALF_FUNCTION(T, T2, cos, cos)                                                                             \
    CUDASIM_HALF_FUNCTION(T, T2, tanh, tanh)                                                                           \
    CUDASIM_HALF_FUNCTION(T, T2, floor, floor)                                                                         \
    CUDASIM_HALF_FUNCTION(T, T2, ceil, ceil)                                                                           \
    CUDASIM_HALF_FUNCTION(T, T2, trunc, trunc)                                                                         \
    CUDASIM_HALF_FUNCTION(T, T2, rint, rint)                                                                           \
    CUDASIM_HALF_PAIRWISE(T, T2, __hadd)                                                                               \
    CUDASIM_HALF_PAIRWISE(T, T2, __hsub)                                                                               \
    CUDASIM_HALF_PAIRWISE(T, T2, __hmul)                                                                               \
    CUDASIM_HALF_PAIRWISE(T, T2, __hmax)                                                                               \
    CUDASIM_HALF_PAIRWISE(T, T2, __hmin)                                                                               \
    inline T2 __h2div(T2 a, T2 b) { return {a.x / b.x, a.y / b.y}; }                                                   \
    inline T2 __hmax2_nan(T2 a, T2 b) { return {__hmax_nan(a.x, b.x), __hmax_nan(a.y, b.y)}; }                         \
    inline T2 __hmin2_nan(T2 a, T2 b) { return {__hmin_nan(a.x, b.x), __hmin_nan(a.y, b.y)}; }                         \
    inline T2 __hneg2(T2 a) { return {-a.x, -a.y}; }                                                                   \
    inline T2 __habs2(T2 a) { return {__habs(a.x), __habs(a.y)}; }                                                     \
    inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }                     \
    inline T2 __hfma2_relu(T2 a, T2 b, T2 c) { return {__hfma_relu(a.x, b.x, c.x), __hfma_relu(a.y, b.y, c.y)}; }      \
    inline T atomicAdd(T* address, T value) { return cudasim::modify<cudasim::Add>(address, value, value); }           \
    inline T2 atomicAdd(T2* address, T2 value) {                                                                       \
        return {atomicAdd(&address->x, value.x), atomicAdd(&address->y, value.y)};                                     \
    }

#define CUDASIM_HALF_OPERATOR(T, T2, op)                                                                               \
    inline T operator op(T a, T b) { return T(float(a) op float(b)); }                                                 \
    inline T& operator op##=(T& a, T b) { return a = a op b; }                                                         \
    inline T2 operator op(T2 a, T2 b) { return {a.x op b.x, a.y op b.y}; }                                             \
    inline T2& operator op##=(T2& a, T2 b) { return a = a op b; }
#define CUDASIM_HALF_COMPARISON(T, op, name)                                                                           \
    inline bool operator op(T a, T b) { return float(a) op float(b); }                                                 \
    inline bool __h##name(T a, T b) { return a op b; }
#define CUDASIM_HALF_FUNCTION(T, T2, name, function)                                                                   \
    inline T h##name(T x) { return T(function(static_cast<double>(float(x)))); }                                       \
    inline T2 h2##name(T2 x) { return {h##name(x.x), h##name(x.y)}; }
#define CUDASIM_HALF_PAIRWISE(T, T2, name)                                                                             \
    inline T2 name##2(T2 a, T2 b) { return {name(a.x, b.x), name(a.y, b.y)}; }
