// Where windows stand on planes, for the kernels that slide them over the planes themselves instead of multiplying matrices.
//
// A convolution forward and the gradient of its input are one thing here: every pixel of `out` sums, over the channels of its
// group and over the taps, pixels of `in` times weights. Along one axis the j-th of `count` pixels is
//
//     out[first + step * j]  from  in[start + stride * j + spread * t] * w[tap + tap_step * t]     for t = 0 .. taps - 1
//
// Forward all pixels are alike. Back to the input there are phases, as many as the stride is long: the pixels of a phase are
// `stride` apart and meet the same taps, every (stride / gcd(stride, dilation))-th, in falling order. For a stride of 2,
// 3 taps and no padding:
//
//     dx    0   1   2   3   4         phase 0 (pixels 0, 2, 4) meets taps 2 and 0
//     dy  0   1   2                   phase 1 (pixels 1, 3)    meets tap 1
//
// Every pixel has one thread that sums it in a fixed order: results are the same bits every time.
#pragma once
#include "common.cuh"

// All windows of a convolution; [0] is along rows, [1] along columns.
struct Windows {
    int bias, relu;                                          // whether to add a bias, and to raise what is negative to zero
    long long batch, groups, in_channels, out_channels;      // channels of one group
    long long in_size[2], out_size[2];                       // of the planes that are read and written
    long long taps[2], stride[2], dilation[2], padding[2];   // of the convolution, in both directions
    long long phases[2];                                     // 1 forward
    long long tap_step[2], inverse[2];                       // stride / gcd, and the inverse of dilation / gcd modulo it
};

// One axis of them, in one phase: the numbers of the formula above.
template <typename Index, bool BACKWARD>
struct Axis {
    Index first, step, count, start, stride, spread, tap, tap_step, taps;

    __device__ __forceinline__ Axis(const Windows& windows, int axis, Index phase) {
        const Index padding = Index(windows.padding[axis]), dilation = Index(windows.dilation[axis]);
        if constexpr (!BACKWARD) {
            first = 0, step = 1, count = Index(windows.out_size[axis]);
            start = -padding, stride = Index(windows.stride[axis]), spread = dilation;
            tap = 0, tap_step = 1, taps = Index(windows.taps[axis]);
        } else {
            // Pixel i met tap k in the output o where i + padding = o * step + k * dilation.
            first = phase, step = Index(windows.stride[axis]), count = (Index(windows.out_size[axis]) - first + step - 1) / step;
            const Index apart = Index(windows.tap_step[axis]), divisor = step / apart, rest = (first + padding) % step;
            const Index lowest = rest / divisor * Index(windows.inverse[axis]) % apart, all = Index(windows.taps[axis]);
            taps = rest % divisor == 0 && lowest < all ? (all - lowest + apart - 1) / apart : 0;
            tap = lowest + (taps - 1) * apart, tap_step = -apart;
            stride = 1, spread = dilation / divisor;
            start = taps == 0 ? 0 : (first + padding - lowest * dilation) / step - (taps - 1) * spread;
        }
    }
};

// Elements of a weight from one filter, channel of its group, tap row and tap column to the next.
// It is (F, C/groups, KH, KW), or (KH, KW, C/groups, F) where channels are LAST.
template <typename Index, bool LAST>
struct WeightSteps {
    Index filter, channel, row, column;

    __device__ __forceinline__ WeightSteps(const Windows& windows, Index filters, Index channels) {
        column = LAST ? channels * filters : 1;
        row = Index(windows.taps[1]) * column;
        channel = LAST ? filters : Index(windows.taps[0]) * row;
        filter = LAST ? 1 : channels * channel;
    }
};

// Elements of a batch of images from one image, channel, row and column to the next.
// It is (N, C, H, W), or (N, H, W, C) where channels are LAST.
template <typename Index, bool LAST>
struct ImageSteps {
    Index image, channel, row, column;

    __device__ __forceinline__ ImageSteps(Index channels, Index height, Index width) {
        column = LAST ? channels : 1;
        row = width * column;
        channel = LAST ? 1 : height * width;
        image = channels * height * width;
    }
};

// Whether `position` is one of 0 .. size - 1.
__device__ __forceinline__ bool inside(int position, int size) { return unsigned(position) < unsigned(size); }
__device__ __forceinline__ bool inside(long long position, long long size) { return position >= 0 && position < size; }
