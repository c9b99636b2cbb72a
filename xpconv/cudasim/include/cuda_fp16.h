// __half and __half2.
#pragma once
#include "cudasim/half_types.h"

CUDASIM_HALF_TYPE(__half, __half2, __half_raw, 10, 'h')
using half = __half;
using half2 = __half2;

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline __half __double2half(double x) { return x; }
inline float __low2float(__half2 x) { return x.x; }
inline float __high2float(__half2 x) { return x.y; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 make_half2(__half x, __half y) { return {x, y}; }
inline __half2 __float2half2_rn(float x) { return {x, x}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 x) { return {x.x, x.y}; }
inline float2 __half22float2(__half2 x) { return {x.x, x.y}; }
inline __half2 __low2half2(__half2 x) { return {x.x, x.x}; }
inline __half2 __high2half2(__half2 x) { return {x.y, x.y}; }
inline __half2 __lows2half2(__half2 x, __half2 y) { return {x.x, y.x}; }
inline __half2 __highs2half2(__half2 x, __half2 y) { return {x.y, y.y}; }
inline __half2 __lowhigh2highlow(__half2 x) { return {x.y, x.x}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline short __half_as_short(__half x) { return static_cast<short>(x.bits); }
inline __half __ushort_as_half(unsigned short x) { return __half_raw{x}; }
inline __half __short_as_half(short x) { return __half_raw{static_cast<unsigned short>(x)}; }
#define CUDASIM_HALF_INTEGER(name, T)                                                                                  \
    inline __half __##name##2half_rn(T x) { return x; }                                                                \
    inline T __half2##name##_rn(__half x) { return cudasim::to_integer<T>(rint(static_cast<double>(float(x)))); }      \
    inline T __half2##name##_rz(__half x) { return cudasim::to_integer<T>(trunc(static_cast<double>(float(x)))); }     \
    inline T __half2##name##_ru(__half x) { return cudasim::to_integer<T>(ceil(static_cast<double>(float(x)))); }      \
    inline T __half2##name##_rd(__half x) { return cudasim::to_integer<T>(floor(static_cast<double>(float(x)))); }
CUDASIM_HALF_INTEGER(short, short)
CUDASIM_HALF_INTEGER(ushort, unsigned short)
CUDASIM_HALF_INTEGER(int, int)
CUDASIM_HALF_INTEGER(uint, unsigned)
CUDASIM_HALF_INTEGER(ll, long long)
CUDASIM_HALF_INTEGER(ull, unsigned long long)
#undef CUDASIM_HALF_INTEGER
