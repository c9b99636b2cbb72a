// What every kernel uses: the types that numbers are stored and summed in, loads and stores of vectors of them, and
// asynchronous copies into shared memory.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

// The type that products of T are summed in: float for the 16-bit types.
template <typename T> struct Accumulator { using type = T; };
template <> struct Accumulator<__half> { using type = float; };
template <> struct Accumulator<__nv_bfloat16> { using type = float; };
template <typename T> using accumulator_t = typename Accumulator<T>::type;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

// Rounds to the nearest; what is too large for 16 bits becomes infinity.
template <typename T> __device__ __forceinline__ T narrow(accumulator_t<T> value) { return value; }
template <> __device__ __forceinline__ __half narrow<__half>(float value) { return __float2half(value); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) { return __float2bfloat16(value); }

template <typename T> __device__ __forceinline__ T zero() { return narrow<T>(accumulator_t<T>(0)); }

// What a sum becomes before it is stored: with its `bias`, and no less than zero, where asked for. A NaN stays one.
template <typename T>
__device__ __forceinline__ T finished(accumulator_t<T> sum, const T* bias, bool add, bool relu) {
    if (add) sum += widen(*bias);
    return narrow<T>(relu && sum < accumulator_t<T>(0) ? accumulator_t<T>(0) : sum);
}

// WIDTH neighbouring elements that are loaded, stored or copied at once.
template <typename T, int WIDTH> struct alignas(sizeof(T) * WIDTH) Vector {
    T at[WIDTH];
};

// The WIDTH elements that begin here, at an address that is a multiple of their size, as one.
template <int WIDTH, typename T> __device__ __forceinline__ Vector<T, WIDTH>& vector_at(T* first) {
    return *reinterpret_cast<Vector<T, WIDTH>*>(first);
}
template <int WIDTH, typename T> __device__ __forceinline__ const Vector<T, WIDTH>& vector_at(const T* first) {
    return *reinterpret_cast<const Vector<T, WIDTH>*>(first);
}

__host__ __device__ constexpr int ceil_div(int numerator, int denominator) { return (numerator + denominator - 1) / denominator; }

// Starts to copy a vector from global into shared memory, or zeros where it is not `present`. It is there after
// __pipeline_commit, __pipeline_wait_prior and a barrier, and on sm_80 and later goes past the registers.
template <typename T, int WIDTH>
__device__ __forceinline__ void copy_async(T* shared, const T* global, bool present) {
    constexpr int BYTES = int(sizeof(T)) * WIDTH;
    static_assert(BYTES >= 4, "no fewer bytes are copied asynchronously");
    __pipeline_memcpy_async(shared, global, BYTES, present ? 0 : BYTES);
}
