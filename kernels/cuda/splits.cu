// Adds what the splits of a long sum gave: sums (splits, size), in the order of their numbers, so that the bits are the same at
// every run. The first `first_size` results go to `first`, the others to `second`. Each thread adds one result after another.
#include "common.cuh"

template <typename T>
__global__ void __launch_bounds__(256, 1) add_splits(
    const accumulator_t<T>* __restrict__ sums, T* __restrict__ first, T* __restrict__ second, const long long first_size,
    const long long size, const int splits) {
    for (long long i = blockIdx.x * 256ll + threadIdx.x; i < size; i += gridDim.x * 256ll) {
        accumulator_t<T> sum = sums[i];
        for (int split = 1; split < splits; ++split) sum += sums[split * size + i];
        if (i < first_size) {
            first[i] = narrow<T>(sum);
        } else {
            second[i - first_size] = narrow<T>(sum);
        }
    }
}
