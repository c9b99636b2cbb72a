// The columns of a batch as one matrix, and the sum of such columns back into images.
//
//   x    (N, C, H, W)                      or (N, H, W, C)
//   col  (N * OH * OW, C * KH * KW)        or (N * OH * OW, KH * KW * C): a row for each window
#include "common.cuh"

struct Windows {
    int channels, height, width, out_height, out_width, kernel_height, kernel_width;
    int stride_height, stride_width, top, left, dilation_height, dilation_width;
    long long rows, columns, elements;
};
// rows, columns: of col. elements: of x.

// Each thread keeps one column of col, so that it knows its channel and tap, and goes through every gridDim.y * blockDim.y-th
// row. Lanes write neighbours. Padding is zero.
template <typename T, typename Index, bool LAST>
__global__ void __launch_bounds__(256, 1) im2col(const T* __restrict__ x, T* __restrict__ col, const Windows windows) {
    const Index columns = Index(windows.columns), column = Index(blockIdx.x) * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const int taps = windows.kernel_height * windows.kernel_width;
    const int channel = LAST ? int(column % windows.channels) : int(column / taps);
    const int tap = LAST ? int(column / windows.channels) : int(column % taps);
    // Unsigned, a coordinate before the image is larger than any in it.
    const unsigned first_y = unsigned(tap / windows.kernel_width) * windows.dilation_height - windows.top;
    const unsigned first_x = unsigned(tap % windows.kernel_width) * windows.dilation_width - windows.left;

    const Index step = Index(gridDim.y) * blockDim.y;
    for (Index row = Index(blockIdx.y) * blockDim.y + threadIdx.y; row < windows.rows; row += step) {
        const int out_column = int(row % windows.out_width), out_row = int(row / windows.out_width % windows.out_height);
        const Index image = row / windows.out_width / windows.out_height;
        const unsigned pixel_y = first_y + unsigned(out_row) * windows.stride_height;
        const unsigned pixel_x = first_x + unsigned(out_column) * windows.stride_width;
        T value = zero<T>();
        if (pixel_y < unsigned(windows.height) && pixel_x < unsigned(windows.width)) {
            const Index line = LAST ? image * windows.height + pixel_y : (image * windows.channels + channel) * windows.height + pixel_y;
            const Index pixel = line * windows.width + pixel_x;
            value = x[LAST ? pixel * windows.channels + channel : pixel];
        }
        col[row * columns + column] = value;
    }
}

// Each thread gathers the entries of col that were read from its element of x, tap by tap.
template <typename T, typename Index, bool LAST>
__global__ void __launch_bounds__(256, 1) col2im(const T* __restrict__ col, T* __restrict__ x, const Windows windows) {
    const int taps = windows.kernel_height * windows.kernel_width;
    for (Index i = Index(blockIdx.x) * 256 + threadIdx.x; i < windows.elements; i += Index(gridDim.x) * 256) {
        const Index pixel = LAST ? i / windows.channels : i;
        const unsigned pixel_x = unsigned(pixel % windows.width), pixel_y = unsigned(pixel / windows.width % windows.height);
        const Index plane = pixel / windows.width / windows.height;
        const int channel = int(LAST ? i % windows.channels : plane % windows.channels);
        const Index image = LAST ? plane : plane / windows.channels;
        accumulator_t<T> sum(0);
        for (int tap_y = 0; tap_y < windows.kernel_height; ++tap_y) {
            const unsigned y = pixel_y + windows.top - unsigned(tap_y) * windows.dilation_height;
            if (y % windows.stride_height || y / windows.stride_height >= unsigned(windows.out_height)) continue;
            const Index line = (image * windows.out_height + y / windows.stride_height) * windows.out_width;
            for (int tap_x = 0; tap_x < windows.kernel_width; ++tap_x) {
                const unsigned x_at = pixel_x + windows.left - unsigned(tap_x) * windows.dilation_width;
                if (x_at % windows.stride_width || x_at / windows.stride_width >= unsigned(windows.out_width)) continue;
                const int tap = tap_y * windows.kernel_width + tap_x;
                const Index column = LAST ? Index(tap) * windows.channels + channel : Index(channel) * taps + tap;
                sum += accumulator_t<T>(widen(col[(line + x_at / windows.stride_width) * windows.columns + column]));
            }
        }
        x[i] = narrow<T>(sum);
    }
}
