"""Finds a missing barrier in a CUDA kernel, on a machine with no GPU.

A block adds up numbers in shared memory. One barrier is missing: on a card the sum is right most of the time. In the
simulator's fast mode it is wrong, in its check mode it is an error that names both lines.

Usage: python examples/cudasim_race.py
"""

from __future__ import annotations

import sys

import numpy as np

from xpconv import cudasim

THREADS = 256

CODE = r"""
extern "C" __global__ void block_sum(const float* x, float* sum) {
    __shared__ float partial[256];
    const int t = threadIdx.x;
    partial[t] = x[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) partial[t] += partial[t + half];
#ifdef MENDED
        __syncthreads();
#endif
    }
    if (t == 0) sum[blockIdx.x] = partial[0];
}
"""


def kernel(mode: str, *options: str) -> cudasim.Kernel:
    """The kernel, for one of the simulator's two modes."""
    return cudasim.Module(code=CODE, options=options, mode=mode, filename="block_sum.cu").get_function("block_sum")


def main() -> None:
    status = cudasim.status()
    if not status.available:
        sys.exit(f"{status.reason}: {status.remedy}")

    x = np.ones((2, THREADS), np.float32)
    total = np.zeros(2, np.float32)

    kernel("fast")((2,), (THREADS,), (x, total))
    print(f"fast mode, barrier missing: sums {total.tolist()}, where each is {THREADS}")

    try:
        kernel("check")((2,), (THREADS,), (x, total))
    except cudasim.KernelError as error:
        print(f"check mode, barrier missing: a {error.kind} in line {error.line}\n  {error}")
    else:
        sys.exit("check mode found nothing")

    for mode in ("fast", "check"):
        mended = kernel(mode, "-DMENDED")
        mended((2,), (THREADS,), (x, total))
        print(f"{mode} mode, mended: sums {total.tolist()}")
        if total.tolist() != [THREADS, THREADS]:
            sys.exit("the sums are wrong")

    mended.profile = True
    mended((2,), (THREADS,), (x, total))
    print("what the mended kernel asks of the memory:")
    for row in mended.report:
        print(f"  {row}")


if __name__ == "__main__":
    main()
