// The mathematical functions and integer intrinsics of CUDA. Nothing is included for them: <cmath> would take longer to
// compile than the kernel.
#pragma once
#include "cudasim/runtime.h"

// ---- functions of the C library, under the names of double and float ------------------------------------------------

#define CUDASIM_FUNCTION1(name)                                                                                        \
    extern "C" double name(double) noexcept;                                                                           \
    extern "C" float name##f(float) noexcept;                                                                          \
    inline float name(float x) { return name##f(x); }
CUDASIM_FUNCTION1(acos)
CUDASIM_FUNCTION1(acosh)
CUDASIM_FUNCTION1(asin)
CUDASIM_FUNCTION1(asinh)
CUDASIM_FUNCTION1(atan)
CUDASIM_FUNCTION1(atanh)
CUDASIM_FUNCTION1(cbrt)
CUDASIM_FUNCTION1(ceil)
CUDASIM_FUNCTION1(cos)
CUDASIM_FUNCTION1(cosh)
CUDASIM_FUNCTION1(erf)
CUDASIM_FUNCTION1(erfc)
CUDASIM_FUNCTION1(exp)
CUDASIM_FUNCTION1(exp10)
CUDASIM_FUNCTION1(exp2)
CUDASIM_FUNCTION1(expm1)
CUDASIM_FUNCTION1(fabs)
CUDASIM_FUNCTION1(floor)
CUDASIM_FUNCTION1(j0)
CUDASIM_FUNCTION1(j1)
CUDASIM_FUNCTION1(lgamma)
CUDASIM_FUNCTION1(log)
CUDASIM_FUNCTION1(log10)
CUDASIM_FUNCTION1(log1p)
CUDASIM_FUNCTION1(log2)
CUDASIM_FUNCTION1(logb)
CUDASIM_FUNCTION1(nearbyint)
CUDASIM_FUNCTION1(rint)
CUDASIM_FUNCTION1(round)
CUDASIM_FUNCTION1(sin)
CUDASIM_FUNCTION1(sinh)
CUDASIM_FUNCTION1(sqrt)
CUDASIM_FUNCTION1(tan)
CUDASIM_FUNCTION1(tanh)
CUDASIM_FUNCTION1(tgamma)
CUDASIM_FUNCTION1(trunc)
CUDASIM_FUNCTION1(y0)
CUDASIM_FUNCTION1(y1)
#undef CUDASIM_FUNCTION1

#define CUDASIM_FUNCTION2(name)                                                                                        \
    extern "C" double name(double, double) noexcept;                                                                   \
    extern "C" float name##f(float, float) noexcept;                                                                   \
    inline float name(float x, float y) { return name##f(x, y); }
CUDASIM_FUNCTION2(atan2)
CUDASIM_FUNCTION2(copysign)
CUDASIM_FUNCTION2(fdim)
CUDASIM_FUNCTION2(fmax)
CUDASIM_FUNCTION2(fmin)
CUDASIM_FUNCTION2(fmod)
CUDASIM_FUNCTION2(hypot)
CUDASIM_FUNCTION2(nextafter)
CUDASIM_FUNCTION2(pow)
CUDASIM_FUNCTION2(remainder)
#undef CUDASIM_FUNCTION2

#define CUDASIM_FUNCTION(result, name, parameters, float_parameters, arguments)                                        \
    extern "C" result name parameters noexcept;                                                                        \
    extern "C" result name##f float_parameters noexcept;                                                               \
    inline result name float_parameters { return name##f arguments; }
CUDASIM_FUNCTION(int, ilogb, (double), (float x), (x))
CUDASIM_FUNCTION(long, lrint, (double), (float x), (x))
CUDASIM_FUNCTION(long, lround, (double), (float x), (x))
CUDASIM_FUNCTION(long long, llrint, (double), (float x), (x))
CUDASIM_FUNCTION(long long, llround, (double), (float x), (x))
#undef CUDASIM_FUNCTION

extern "C" {
double fma(double, double, double) noexcept;
float fmaf(float, float, float) noexcept;
double ldexp(double, int) noexcept;
float ldexpf(float, int) noexcept;
double scalbn(double, int) noexcept;
float scalbnf(float, int) noexcept;
double frexp(double, int*) noexcept;
float frexpf(float, int*) noexcept;
double modf(double, double*) noexcept;
float modff(float, float*) noexcept;
int abs(int) noexcept;
long labs(long) noexcept;
long long llabs(long long) noexcept;
}
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline float ldexp(float x, int exponent) { return ldexpf(x, exponent); }
inline float scalbn(float x, int exponent) { return scalbnf(x, exponent); }
inline float frexp(float x, int* exponent) { return frexpf(x, exponent); }
inline float modf(float x, float* whole) { return modff(x, whole); }
inline long abs(long x) { return labs(x); }
inline long long abs(long long x) { return llabs(x); }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isnan(double x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }
inline bool signbit(double x) { return __builtin_signbit(x); }

inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrtf(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rcbrt(double x) { return 1.0 / cbrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline double sinpi(double x) { return sin(fmod(x, 2.0) * 3.14159265358979323846); }
inline double cospi(double x) { return cos(fmod(x, 2.0) * 3.14159265358979323846); }
inline float sinpif(float x) { return static_cast<float>(sinpi(static_cast<double>(x))); }
inline float cospif(float x) { return static_cast<float>(cospi(static_cast<double>(x))); }
inline void sincos(double x, double* sine, double* cosine) { *sine = sin(x), *cosine = cos(x); }
inline void sincosf(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
inline void sincos(float x, float* sine, float* cosine) { sincosf(x, sine, cosine); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
inline float normcdff(float x) { return static_cast<float>(normcdf(static_cast<double>(x))); }
inline float fdividef(float x, float y) { return x / y; }

// ---- minimum and maximum: a NaN gives way to a number, as in CUDA ---------------------------------------------------

#define CUDASIM_EXTREMA(T, A, B)                                                                                       \
    inline T min(A a, B b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); }   \
    inline T max(A a, B b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a); }
CUDASIM_EXTREMA(int, int, int)
CUDASIM_EXTREMA(unsigned, unsigned, unsigned)
CUDASIM_EXTREMA(unsigned, int, unsigned)
CUDASIM_EXTREMA(unsigned, unsigned, int)
CUDASIM_EXTREMA(long, long, long)
CUDASIM_EXTREMA(unsigned long, unsigned long, unsigned long)
CUDASIM_EXTREMA(unsigned long, long, unsigned long)
CUDASIM_EXTREMA(unsigned long, unsigned long, long)
CUDASIM_EXTREMA(long long, long long, long long)
CUDASIM_EXTREMA(unsigned long long, unsigned long long, unsigned long long)
CUDASIM_EXTREMA(unsigned long long, long long, unsigned long long)
CUDASIM_EXTREMA(unsigned long long, unsigned long long, long long)
#undef CUDASIM_EXTREMA
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(static_cast<double>(a), b); }
inline double max(float a, double b) { return fmax(static_cast<double>(a), b); }
inline double min(double a, float b) { return fmin(a, static_cast<double>(b)); }
inline double max(double a, float b) { return fmax(a, static_cast<double>(b)); }

// ---- intrinsics of float and double: as exact here as the plain functions -------------------------------------------

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline void __sincosf(float x, float* sine, float* cosine) { sincosf(x, sine, cosine); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x >= 0 ? (x > 1 ? 1.0f : x) : 0.0f; }

inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline double __drcp_rn(double x) { return 1.0 / x; }
inline double __dsqrt_rn(double x) { return sqrt(x); }

// ---- conversions: out of range gives the nearest number there is, NaN gives 0 ---------------------------------------

namespace cudasim {
template <class T> CUDASIM_UNCHECKED T to_integer(double whole) {
    constexpr bool is_signed = T(-1) < T(0);
    constexpr int bits = sizeof(T) * 8 - (is_signed ? 1 : 0);
    constexpr T highest = static_cast<T>(~0ull >> (64 - bits)), lowest = is_signed ? static_cast<T>(-highest - 1) : T(0);
    const double bound = bits == 64 ? 18446744073709551616.0 : static_cast<double>(1ull << (bits & 63));
    if (whole != whole) return 0;
    if (whole >= bound) return highest;
    if (whole < (is_signed ? -bound : 0.0)) return lowest;
    return static_cast<T>(whole);
}
}  // namespace cudasim

#define CUDASIM_CONVERSIONS(F, name, T)                                                                                \
    inline T __##F##2##name##_rn(F x) { return cudasim::to_integer<T>(rint(static_cast<double>(x))); }                 \
    inline T __##F##2##name##_rz(F x) { return cudasim::to_integer<T>(trunc(static_cast<double>(x))); }                \
    inline T __##F##2##name##_ru(F x) { return cudasim::to_integer<T>(ceil(static_cast<double>(x))); }                 \
    inline T __##F##2##name##_rd(F x) { return cudasim::to_integer<T>(floor(static_cast<double>(x))); }                \
    inline F __##name##2##F##_rn(T x) { return static_cast<F>(x); }
CUDASIM_CONVERSIONS(float, int, int)
CUDASIM_CONVERSIONS(float, uint, unsigned)
CUDASIM_CONVERSIONS(float, ll, long long)
CUDASIM_CONVERSIONS(float, ull, unsigned long long)
CUDASIM_CONVERSIONS(double, int, int)
CUDASIM_CONVERSIONS(double, uint, unsigned)
CUDASIM_CONVERSIONS(double, ll, long long)
CUDASIM_CONVERSIONS(double, ull, unsigned long long)
#undef CUDASIM_CONVERSIONS
inline float __double2float_rn(double x) { return static_cast<float>(x); }

// ---- bits -----------------------------------------------------------------------------------------------------------

#define CUDASIM_REINTERPRET(name, From, To)                                                                            \
    inline To name(From from) {                                                                                        \
        To to;                                                                                                         \
        __builtin_memcpy(&to, &from, sizeof to);                                                                       \
        return to;                                                                                                     \
    }
CUDASIM_REINTERPRET(__int_as_float, int, float)
CUDASIM_REINTERPRET(__float_as_int, float, int)
CUDASIM_REINTERPRET(__uint_as_float, unsigned, float)
CUDASIM_REINTERPRET(__float_as_uint, float, unsigned)
CUDASIM_REINTERPRET(__longlong_as_double, long long, double)
CUDASIM_REINTERPRET(__double_as_longlong, double, long long)
#undef CUDASIM_REINTERPRET
inline int __double2hiint(double x) { return static_cast<int>(__double_as_longlong(x) >> 32); }
inline int __double2loint(double x) { return static_cast<int>(__double_as_longlong(x)); }
inline double __hiloint2double(int high, int low) {
    return __longlong_as_double(static_cast<long long>(static_cast<unsigned long long>(static_cast<unsigned>(high)) << 32 |
                                                       static_cast<unsigned>(low)));
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
    return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 | __brev(static_cast<unsigned>(x >> 32));
}
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32); }
inline int __mulhi(int x, int y) { return static_cast<int>(static_cast<int64_t>(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}
inline long long __mul64hi(long long x, long long y) { return static_cast<long long>(static_cast<__int128>(x) * y >> 64); }
inline int __mul24(int x, int y) {
    const auto low = [](int v) { return static_cast<int>(static_cast<unsigned>(v) << 8) >> 8; };
    return static_cast<int>(static_cast<unsigned>(low(x)) * static_cast<unsigned>(low(y)));
}
inline unsigned __umul24(unsigned x, unsigned y) { return (x & 0xffffffu) * (y & 0xffffffu); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned chosen = selector >> (4 * i) & 15;
        unsigned byte = static_cast<unsigned>(bytes >> (8 * (chosen & 7))) & 0xff;
        if (chosen & 8) byte = byte & 0x80 ? 0xff : 0;  // the sign, repeated
        result |= byte << (8 * i);
    }
    return result;
}
inline unsigned __sad(int x, int y, unsigned z) {
    return z + static_cast<unsigned>(x < y ? static_cast<int64_t>(y) - x : static_cast<int64_t>(x) - y);
}
inline unsigned __usad(unsigned x, unsigned y, unsigned z) { return z + (x < y ? y - x : x - y); }
inline int __hadd(int x, int y) { return static_cast<int>((static_cast<int64_t>(x) + y) >> 1); }
inline int __rhadd(int x, int y) { return static_cast<int>((static_cast<int64_t>(x) + y + 1) >> 1); }
inline unsigned __uhadd(unsigned x, unsigned y) { return static_cast<unsigned>((static_cast<uint64_t>(x) + y) >> 1); }
inline unsigned __urhadd(unsigned x, unsigned y) { return static_cast<unsigned>((static_cast<uint64_t>(x) + y + 1) >> 1); }
inline int __dp4a(int x, int y, int sum) {
    for (int i = 0; i < 4; ++i)
        sum += static_cast<signed char>(x >> (8 * i)) * static_cast<signed char>(y >> (8 * i));
    return sum;
}
inline unsigned __dp4a(unsigned x, unsigned y, unsigned sum) {
    for (int i = 0; i < 4; ++i) sum += (x >> (8 * i) & 0xff) * (y >> (8 * i) & 0xff);
    return sum;
}
