"""What the simulator finds: each kind of mistake that a kernel can make, with the line, the block and the thread."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest

from xpconv import cudasim

pytestmark = pytest.mark.skipif(not cudasim.status().available, reason=cudasim.status().reason)

MODES = ("fast", "check")

# A line with "<- name" is where the mistake of that name is found.
MISTAKES = r"""
#include <cuda_pipeline.h>
#define KERNEL extern "C" __global__ void
KERNEL global_read(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x + 1];  // <- global_read
}
KERNEL global_write(float* y, int offset) {
    y[offset] = 1;  // <- global_write
}
KERNEL wide_access(const float* x, float4* y, int offset) {
    *y = *reinterpret_cast<const float4*>(x + offset);  // <- wide_access
}
KERNEL shared_index(float* y, int i) {
    __shared__ float tile[4][8];
    tile[i][0] = 1;  // <- shared_index
    y[0] = tile[0][0];
}
KERNEL shared_pointer(float* y, int i) {
    __shared__ float tile[8], other[8];
    float* p = tile;
    p[i] = 1;  // <- shared_pointer
    other[0] = 2;
    y[0] = other[0];
}
KERNEL dynamic_shared(float* y) {
    extern __shared__ float all[];
    all[threadIdx.x] = 1;  // <- dynamic_shared
    y[threadIdx.x] = all[threadIdx.x];
}
KERNEL uninitialised(float* y) {
    __shared__ float tile[32];
    if (threadIdx.x < 31) tile[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];  // <- uninitialised
}
KERNEL missing_barrier(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[63 - threadIdx.x];  // <- missing_barrier
}
KERNEL barrier_too_few(float* y) {
    __shared__ float tile[64];
    for (int i = 0; i < 3; ++i) {
        tile[threadIdx.x] = y[threadIdx.x] + i;
        __syncthreads();
        y[threadIdx.x] = tile[63 - threadIdx.x];  // <- barrier_too_few
    }
}
KERNEL missing_syncwarp(float* y) {
    __shared__ volatile float tile[32];
    tile[threadIdx.x] = 1;
    __syncwarp();
    if (threadIdx.x < 16) tile[threadIdx.x] += tile[threadIdx.x + 16];  // <- missing_syncwarp
    if (threadIdx.x < 8) tile[threadIdx.x] += tile[threadIdx.x + 8];
    y[threadIdx.x] = 0;
}
KERNEL read_again(float* y) {
    __shared__ float one;
    if (threadIdx.x == 0) y[1] = one = 1;
    __syncwarp();
    if (threadIdx.x == 0) y[2] = one;
    __syncwarp();
    if (threadIdx.x == 0) y[3] = one;
    if (threadIdx.x == 1) one = 2;  // <- read_again
}
KERNEL blocks_race(float* y) {
    y[0] += 1;  // <- blocks_race
}
KERNEL atomic_and_plain(int* y) {
    if (threadIdx.x < 32) atomicAdd(y, 1);
    else y[1] = y[0];  // <- atomic_and_plain
}
KERNEL atomic_and_atomic(int* y) { atomicAdd(y, 1); atomicMax(y, 3); }
KERNEL early_exit(float* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = 1;
    __syncthreads();  // <- early_exit
}
KERNEL two_barriers(float* y) {
    if (threadIdx.x < 32) {
        __syncthreads();  // <- two_barriers
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 1;
}
KERNEL divergent_shuffle(float* y) {
    float v = threadIdx.x;
    if (threadIdx.x < 16) v = __shfl_down_sync(0xffffffffu, v, 1);  // <- divergent_shuffle
    y[threadIdx.x] = v;
}
KERNEL exited_lane(float* y) {
    if (threadIdx.x == 0) return;
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 2);  // <- exited_lane
}
KERNEL lane_beyond_block(float* y) {
    y[threadIdx.x] = __ballot_sync(0xffffffffu, 1);  // <- lane_beyond_block
}
KERNEL not_in_mask(float* y) {
    y[threadIdx.x] = __any_sync(0xffffu, 1);  // <- not_in_mask
}
KERNEL outside_of_mask(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);  // <- outside_of_mask
}
KERNEL two_collectives(float* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __any_sync(0xffffffffu, 1);
    else y[threadIdx.x] = __all_sync(0xffffffffu, 1);  // <- two_collectives
}
KERNEL writes_const(const float* x) {
    const_cast<float*>(x)[3] = 1;  // <- writes_const
}
KERNEL never_waited(const float* x, float* y) {
    __shared__ float tile[32];
    __pipeline_memcpy_async(&tile[threadIdx.x], &x[threadIdx.x], 4);  // <- never_waited
    y[threadIdx.x] = 1;
}
KERNEL copy_beyond(const float* x, float* y) {
    __shared__ float tile[32];
    __pipeline_memcpy_async(&tile[threadIdx.x], &x[threadIdx.x + 1], 4);  // <- copy_beyond
    __pipeline_commit();
    __pipeline_wait_prior(0);
    y[threadIdx.x] = tile[threadIdx.x];
}
KERNEL copy_of_three(const float* x) {
    __shared__ float tile[32];
    __pipeline_memcpy_async(tile, x, 3);  // <- copy_of_three
}
KERNEL copy_misaligned(const float* x) {
    __shared__ __align__(16) float tile[32];
    __pipeline_memcpy_async(tile, x + 1, 16);  // <- copy_misaligned
}
KERNEL copy_to_global(const float* x, float* y) {
    __pipeline_memcpy_async(y, x, 16);  // <- copy_to_global
}
KERNEL overflow(int* y) {
    y[1] = y[0] + 1;  // <- overflow
}
KERNEL shift(int* y) {
    y[1] = 1 << y[0];  // <- shift
}
KERNEL division(int* y) {
    y[1] = 7 / y[0];  // <- division
}
KERNEL assertion(int* y) {
    assert(y[0] == 3);  // <- assertion
}
KERNEL trap() {
    __trap();  // <- trap
}
KERNEL active_mask(unsigned* y) {
    y[0] = __activemask();  // <- active_mask
}
KERNEL too_much_shared(float* y) {
    __shared__ float tile[13000];  // <- too_much_shared
    y[0] = tile[0] = 1;
}
KERNEL copies_bytes(const char* x, char* y, int n) {
    memcpy(y, x, n);  // <- copies_bytes
}
KERNEL null_pointer(float* y) {
    y[0] = 1;  // <- null_pointer
}
"""

A, B, C = np.zeros(32, np.float32), np.zeros(64, np.float32), np.zeros(4, np.int32)
I32 = np.int32

# kind, arguments, block, thread, what the text says; grid and dynamic shared memory where not 1 and 0
FOUND_IN_CHECK_MODE: dict[str, tuple[str, tuple[Any, ...], int, int, str, int, int]] = {
    "global_read": (
        "out of bounds",
        (A, B),
        32,
        31,
        r"read of 4 bytes .* ends 4 bytes after the end of argument 0 \(128",
        1,
        0,
    ),
    "global_write": ("out of bounds", (A, I32(-3)), 1, 0, r"write of 4 bytes .* begins 12 bytes before argument 0", 1, 0),
    "wide_access": ("misaligned", (B, A, I32(1)), 1, 0, "read of 16 bytes at an address that is not a multiple of 16", 1, 0),
    "shared_index": ("out of bounds", (A, I32(4)), 1, 0, r"index 4 is outside of an array of type 'float \[4\]", 1, 0),
    "shared_pointer": ("out of bounds", (A, I32(9)), 1, 0, "ends 8 bytes after the end of shared `tile`", 1, 0),
    "dynamic_shared": ("out of bounds", (B,), 33, 32, "ends 4 bytes after the end of the dynamic shared memory", 1, 128),
    "uninitialised": ("uninitialised", (A,), 32, 31, "byte 124 of shared `tile`", 1, 0),
    "missing_barrier": ("uninitialised", (B, B.copy()), 64, 0, "byte 252 of shared `tile`", 1, 0),
    "barrier_too_few": ("race", (B,), 64, 32, r"read of byte 124 .* a write at .* by thread \(31, 0, 0\)", 1, 0),
    "missing_syncwarp": ("race", (A,), 32, 8, r"of the same warp, with no __syncwarp\(\) between", 1, 0),
    "read_again": ("race", (A,), 32, 1, r"write of byte 0 .* against a read .* by thread \(0, 0, 0\) of the same warp", 1, 0),
    "blocks_race": ("race", (A,), 1, 0, "against a write .* of block 0, and nothing orders two blocks", 2, 0),
    "atomic_and_plain": ("race", (C,), 64, 32, "read of byte 0 .* against an atomic operation", 1, 0),
    "writes_const": ("read-only", (A,), 1, 0, "write through a pointer to const: argument 0", 1, 0),
    "copy_beyond": ("out of bounds", (A, B), 32, 31, "read of 4 bytes .* after the end of argument 0", 1, 0),
    "overflow": ("overflow", (np.array([2**31 - 1, 0], I32),), 1, 0, "a sum of signed integers overflows", 1, 0),
    "shift": ("shift", (np.array([32, 0], I32),), 1, 0, "a shift by", 1, 0),
    "division": ("division by zero", (C,), 1, 0, "divided by zero", 1, 0),
    "copies_bytes": ("out of bounds", (np.zeros(3, np.int8), np.zeros(8, np.int8), I32(5)), 1, 0, "read of 5 bytes", 1, 0),
    "null_pointer": ("out of bounds", (0,), 1, 0, "far from every array", 1, 0),
}
FOUND_IN_BOTH_MODES: dict[str, tuple[str, tuple[Any, ...], int, int, str, int, int]] = {
    "early_exit": ("barrier", (A, I32(30)), 32, 0, "2 threads have ended; 30 threads wait at __syncthreads", 1, 0),
    "two_barriers": ("barrier", (B,), 64, 0, "32 threads wait at .*; 32 threads wait at", 1, 0),
    "divergent_shuffle": ("collective", (A,), 32, 0, "lane 16, which the mask .* has ended without it", 1, 0),
    "exited_lane": ("collective", (A,), 32, 1, "lane 0, which the mask 0xffffffff names, has exited", 1, 0),
    "lane_beyond_block": ("collective", (A,), 20, 0, "lane 20, beyond the block of 20 threads", 1, 0),
    "not_in_mask": ("collective", (A,), 32, 16, "the calling lane is not in its mask", 1, 0),
    "outside_of_mask": ("collective", (A,), 32, 0, "reads a lane outside its mask", 1, 0),
    "two_collectives": ("collective", (A,), 32, 16, "waits in another operation", 1, 0),
    "never_waited": ("async copy", (A, B), 32, 0, "never waited for", 1, 0),
    "copy_of_three": ("async copy", (A,), 1, 0, "moves 4, 8 or 16 bytes, not 3", 1, 0),
    "copy_misaligned": ("misaligned", (A,), 1, 0, "needs addresses that are multiples of it", 1, 0),
    "copy_to_global": ("async copy", (A, B), 1, 0, "not in shared memory", 1, 0),
    "assertion": ("assertion", (C,), 1, 0, r"assertion failed: y\[0\] == 3", 1, 0),
    "trap": ("trap", (), 1, 0, "__trap", 1, 0),
    "active_mask": ("not simulated", (np.zeros(1, np.uint32),), 1, 0, "pass on the mask", 1, 0),
    "too_much_shared": (
        "shared memory",
        (A,),
        1,
        0,
        "`tile` brings the static shared memory to 52000 bytes; nvcc allows 49152",
        1,
        0,
    ),
}


@functools.cache
def module(mode: str) -> cudasim.Module:
    return cudasim.Module(code=MISTAKES, mode=mode, filename="mistakes.cu")


def line_of(name: str) -> int:
    return next(i for i, text in enumerate(MISTAKES.splitlines(), 1) if text.endswith(f"<- {name}"))


def found(name: str, mode: str, row: tuple[str, tuple[Any, ...], int, int, str, int, int]) -> cudasim.KernelError:
    kind, arguments, block, thread, text, grid, shared = row
    before = [argument.copy() for argument in arguments if isinstance(argument, np.ndarray)]
    with pytest.raises(cudasim.KernelError, match=text) as caught:
        module(mode).get_function(name)((grid,), (block,), arguments, shared_mem=shared)
    error = caught.value
    assert (error.kernel, error.kind) == (name, kind)
    assert kind in cudasim.KernelError.KINDS
    assert error.thread == (thread, 0, 0)
    assert error.block == (grid - 1, 0, 0)
    if mode == "check":
        after = [argument for argument in arguments if isinstance(argument, np.ndarray)]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    return error


@pytest.mark.parametrize("name", FOUND_IN_CHECK_MODE)
def test_check_mode_finds(name: str) -> None:
    error = found(name, "check", FOUND_IN_CHECK_MODE[name])
    assert (error.file, error.line) == ("mistakes.cu", line_of(name))
    assert f"mistakes.cu:{line_of(name)}" in str(error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FOUND_IN_BOTH_MODES)
def test_both_modes_find(name: str, mode: str) -> None:
    error = found(name, mode, FOUND_IN_BOTH_MODES[name])
    if not (name == "never_waited" and mode == "fast"):  # told when the thread ends
        assert (error.file, error.line) == ("mistakes.cu", line_of(name))


def test_atomic_operations_do_not_race_with_each_other() -> None:
    y = np.zeros(1, np.int32)
    module("check").get_function("atomic_and_atomic")((3,), (40,), (y,))
    assert y[0] >= 3


def test_fast_mode_gives_wrong_numbers_where_a_barrier_is_missing() -> None:
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    module("fast").get_function("missing_barrier")((1,), (64,), (x, y))
    assert np.isnan(y).sum() == 32  # shared memory begins as NaN
    y[:] = 0
    module("fast").get_function("uninitialised")((1,), (32,), (y,))
    assert np.isnan(y[31])


def test_every_block_begins_with_fresh_shared_memory() -> None:
    code = r"""extern "C" __global__ void f(float* y) {
        __shared__ float x;
        y[blockIdx.x] = x;
        x = 3;
    }"""
    y = np.zeros(5, np.float32)
    cudasim.Module(code=code, mode="fast").get_function("f")((5,), (1,), (y,))
    assert np.isnan(y).all()


# ---- right kernels that look like wrong ones -------------------------------------------------------------------------

RIGHT = r"""
#define KERNEL extern "C" __global__ void
KERNEL last_block_adds_up(const float* x, float* partial, unsigned* finished, float* total) {
    __shared__ float sums[64];
    __shared__ bool is_last;
    int t = threadIdx.x, n = blockDim.x;
    sums[t] = x[blockIdx.x * n + t];
    for (int half = n / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) {
        partial[blockIdx.x] = sums[0];
#ifndef NO_FENCE
        __threadfence();
#endif
        is_last = atomicAdd(finished, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last && t == 0) {
        float sum = 0;
        for (int i = 0; i < gridDim.x; ++i) sum += partial[i];
        *total = sum;
    }
}
KERNEL neighbours_in_a_word(unsigned char* y, short* z) {  // bytes and halves of a word, each its thread's own
    __shared__ unsigned char bytes[64];
    __shared__ short halves[64];
    bytes[threadIdx.x] = threadIdx.x; halves[threadIdx.x] = threadIdx.x;
    bytes[threadIdx.x] += 1; halves[threadIdx.x] += 1;
    y[threadIdx.x] = bytes[threadIdx.x]; z[threadIdx.x] = halves[threadIdx.x];
}
KERNEL words_then_bytes(int* y) {
    y[threadIdx.x] = 0x01020304;
    __syncthreads();
    reinterpret_cast<unsigned char*>(y)[threadIdx.x] = 7;
}
KERNEL words_and_bytes(int* y) {
    y[threadIdx.x] = 0x01020304;
    reinterpret_cast<unsigned char*>(y)[threadIdx.x] = 7;
}
KERNEL many_readers(const float* x, float* y) {
    __shared__ float one;
    if (threadIdx.x == 0) one = x[0];
    __syncthreads();
    y[threadIdx.x] = one + x[0];
    __syncthreads();
    if (threadIdx.x == 33) one = 2;
}
KERNEL reader_then_writer(float* y) {
    __shared__ float one;
    if (threadIdx.x == 0) one = 1;
    __syncthreads();
    if (threadIdx.x != 40) y[threadIdx.x] = one;
    else { y[threadIdx.x] = one; one = 2; }
}
KERNEL through_the_warp(float* y) {
    __shared__ float tile[32];
    tile[threadIdx.x] = threadIdx.x;
    __syncwarp();
    y[threadIdx.x] = tile[31 - threadIdx.x];
}
KERNEL local_arrays(float* y, int n) {
    float local[8];
    for (int i = 0; i < 8; ++i) local[i] = i * n;
    y[threadIdx.x] = local[(threadIdx.x * n) % 8];
}
"""


@functools.cache
def right(*options: str) -> cudasim.Module:
    return cudasim.Module(code=RIGHT, mode="check", options=options, filename="right.cu")


def test_a_fence_and_an_atomic_operation_order_two_blocks() -> None:
    x = np.arange(256, dtype=np.float32)

    def launch(*options: str) -> float:
        total, finished = np.zeros(1, np.float32), np.zeros(1, np.uint32)
        kernel = right(*options).get_function("last_block_adds_up")
        kernel((4,), (64,), (x, np.zeros(4, np.float32), finished, total))
        return float(total[0])

    assert launch() == x.sum()
    with pytest.raises(cudasim.KernelError, match="nothing orders two blocks"):
        launch("-DNO_FENCE")


def test_neighbours_in_a_word_do_not_race() -> None:
    y, z = np.zeros(64, np.uint8), np.zeros(64, np.int16)
    right().get_function("neighbours_in_a_word")((1,), (64,), (y, z))
    np.testing.assert_array_equal(y, np.arange(1, 65))
    np.testing.assert_array_equal(z, np.arange(1, 65))
    words = np.zeros(64, np.int32)
    right().get_function("words_then_bytes")((1,), (64,), (words,))
    with pytest.raises(cudasim.KernelError, match=r"write of byte 4 .* by thread \(1, 0, 0\)|write of byte 1 ") as caught:
        right().get_function("words_and_bytes")((1,), (64,), (words,))
    assert caught.value.kind == "race"


def test_readers_do_not_race_but_a_writer_among_them_does() -> None:
    x, y = np.ones(1, np.float32), np.zeros(64, np.float32)
    right().get_function("many_readers")((1,), (64,), (x, y))
    assert (y == 2).all()
    with pytest.raises(cudasim.KernelError, match="against a") as caught:
        right().get_function("reader_then_writer")((1,), (64,), (y,))
    assert caught.value.kind == "race"


def test_a_syncwarp_orders_the_lanes_of_a_warp() -> None:
    y = np.zeros(32, np.float32)
    right().get_function("through_the_warp")((1,), (32,), (y,))
    np.testing.assert_array_equal(y, np.arange(32)[::-1])
    right().get_function("local_arrays")((1,), (32,), (y, 3))
    np.testing.assert_array_equal(y, [3 * ((3 * i) % 8) for i in range(32)])


def test_arrays_that_overlap_stay_overlapping() -> None:
    code = r"""extern "C" __global__ void f(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x] + 1; }"""
    kernel = cudasim.Module(code=code, mode="check").get_function("f")
    memory = np.zeros(8, np.float32)
    kernel((1,), (8,), (memory, memory))
    np.testing.assert_array_equal(memory, np.ones(8))
    with pytest.raises(cudasim.KernelError) as caught:  # thread 1 reads what thread 0 writes
        kernel((1,), (7,), (memory[:7], memory[1:]))
    assert caught.value.kind == "race"
    assert (memory == 1).all()


def test_alignment_is_that_of_the_place_in_the_allocation() -> None:
    code = r"""extern "C" __global__ void f(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }"""
    kernel = cudasim.Module(code=code, mode="check", name_expressions=None).get_function("f")
    x, y = np.arange(20, dtype=np.float32), np.zeros(8, np.float32)
    kernel((1,), (2,), (x[4:12], y))
    np.testing.assert_array_equal(y, np.arange(4, 12))
    with pytest.raises(cudasim.KernelError) as caught:
        kernel((1,), (2,), (x[1:9], y))
    assert caught.value.kind == "misaligned"


# ---- crashes and loops without end -----------------------------------------------------------------------------------

CRASHES = r"""
extern "C" __global__ void far_away(float* y, long long offset) { y[offset] = 1; }
extern "C" __global__ void divide(int* y) { y[1] = y[2] / y[0]; }
__device__ int deeper(int n, volatile int* y) {
    volatile int local[64];
    local[n & 63] = *y;
    return n < 0 ? 0 : deeper(n + 1, local) + local[3];
}
extern "C" __global__ void recursion(int* y) { y[0] = deeper(1, y); }
extern "C" __global__ void endless(volatile int* y) { while (y[0] == 0) {} }
extern "C" __global__ void fine(int* y) { y[threadIdx.x] = threadIdx.x; }
"""


def test_a_fault_is_an_error_and_the_next_launch_works() -> None:
    faults = cudasim.Module(code=CRASHES, mode="fast")
    y = np.zeros(8, np.int32)
    for name, arguments, kind in (
        ("far_away", (np.zeros(1, np.float32), np.int64(1 << 44)), "illegal access"),
        ("divide", (y,), "division by zero"),
        ("recursion", (y,), "stack overflow"),
    ):
        for _ in range(2):
            with pytest.raises(cudasim.KernelError) as caught:
                faults.get_function(name)((1,), (8,), arguments)
            assert caught.value.kind == kind
            assert caught.value.thread == (0, 0, 0)
            faults.get_function("fine")((3,), (8,), (y,))
            np.testing.assert_array_equal(y, np.arange(8))
            y[:] = 0


@pytest.mark.parametrize("mode", MODES)
def test_control_c_ends_a_kernel_that_does_not_end(mode: str) -> None:
    program = f"""
        import os, signal, threading
        import numpy as np
        from xpconv import cudasim
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
        module = cudasim.Module(code={CRASHES!r}, mode={mode!r})
        module.compile()
        kernel = module.get_function("endless")
        kernel.workers = 2
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            kernel((4,), (2,), (np.zeros(1, np.int32),))
        except KeyboardInterrupt:
            y = np.zeros(8, np.int32)
            module.get_function("fine")((1,), (8,), (y,))
            print("interrupted", y.sum())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.returncode) == ("interrupted 28\n", 0), done.stderr


def test_handlers_of_signals_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGSEGV, signal.SIGFPE)]
    test_a_fault_is_an_error_and_the_next_launch_works()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGSEGV, signal.SIGFPE)] == before


@pytest.mark.parametrize("mode", MODES)
def test_threads_of_python_launch_at_the_same_time(mode: str) -> None:
    code = r"""extern "C" __global__ void f(float* y, float value) {
        __shared__ float tile[64];
        tile[threadIdx.x] = value;
        __syncthreads();
        y[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x] + threadIdx.x;
    }"""
    kernel = cudasim.Module(code=code, mode=mode).get_function("f")
    wrong = []

    def launch(value: int) -> None:
        for _ in range(20):
            y = np.zeros(256, np.float32)
            kernel((4,), (64,), (y, np.float32(value)))
            if not np.array_equal(y, np.tile(np.arange(64), 4) + value):
                wrong.append(value)

    threads = [threading.Thread(target=launch, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_error_can_be_pickled() -> None:
    with pytest.raises(cudasim.KernelError) as caught:
        module("check").get_function("global_write")((1,), (1,), (A, I32(99)))
    error = caught.value
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (copy.kind, copy.line, copy.block, copy.thread) == (error.kind, error.line, error.block, error.thread)


# ---- the access profile ----------------------------------------------------------------------------------------------

PROFILED = r"""
template <int PAD> __global__ void transpose(const float* a, float* b, int n) {
    __shared__ float tile[32][32 + PAD];
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        tile[threadIdx.y + j][threadIdx.x] = a[(y + j) * n + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x; y = blockIdx.x * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += 8)
        b[(y + j) * n + x] = tile[threadIdx.x][threadIdx.y + j];
}
template <class T> __global__ void strided(const T* a, T* b, int n, int stride) {
    __shared__ T tile[64];
    int i = threadIdx.x;
    tile[i] = a[(i * stride) % n];
    __syncwarp();
    b[i] = tile[0];
    b[i] = tile[i];
}
"""


def profiled(name: str, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> cudasim.Kernel:
    names = ("transpose<0>", "transpose<1>", "strided<float>", "strided<float4>")
    kernel = _profiled_module(names).get_function(name)
    kernel.profile = True
    kernel(grid, block, arguments)
    return kernel


@functools.cache
def _profiled_module(names: tuple[str, ...]) -> cudasim.Module:
    return cudasim.Module(code=PROFILED, mode="check", name_expressions=names, filename="profiled.cu")


@pytest.mark.parametrize(("pad", "passes"), [(0, 4096), (1, 128)])
def test_profile_shows_bank_conflicts(pad: int, passes: int) -> None:
    a = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    b = np.zeros_like(a)
    kernel = profiled(f"transpose<{pad}>", (2, 2), (32, 8), (a, b, 64))
    np.testing.assert_array_equal(b, a.T)
    rows = {(row.line, row.space, row.operation): (row.requests, row.transactions, row.least) for row in kernel.report}
    assert rows == {
        (6, "global", "read"): (128, 512, 512),
        (6, "shared", "write"): (128, 128, 128),
        (10, "global", "write"): (128, 512, 512),
        (10, "shared", "read"): (128, passes, 128),
    }
    assert {row.file for row in kernel.report} == {"profiled.cu"}
    totals = {(row.space, row.operation): row.transactions for row in kernel.totals}
    assert totals == {("global", "read"): 512, ("global", "write"): 512, ("shared", "write"): 128, ("shared", "read"): passes}


def test_profile_of_strides_broadcasts_and_wide_accesses() -> None:
    a, b = np.zeros(4096, np.float32), np.zeros(256, np.float32)
    for stride, sectors in ((1, 4), (2, 8), (8, 32)):
        kernel = profiled("strided<float>", (1,), (32,), (a, b, 1024, stride))
        assert [row.transactions for row in kernel.report if (row.line, row.space) == (15, "global")] == [sectors]
        assert [row.least for row in kernel.report if (row.line, row.space) == (15, "global")] == [4]
        assert [row.transactions for row in kernel.report if (row.line, row.space) == (17, "shared")] == [1]  # a broadcast
    kernel = profiled("strided<float4>", (1,), (32,), (a, b, 1024, 1))
    shared = {(row.line, row.operation): (row.transactions, row.least) for row in kernel.report if row.space == "shared"}
    assert shared[15, "write"] == (4, 4)  # four passes at least for 32 lanes of 16 bytes
    assert shared[18, "read"] == (4, 4)
    assert sum(row.transactions for row in kernel.report if (row.line, row.space) == (15, "global")) == 16


def test_profile_counts_copies_and_their_zeros_as_one_request() -> None:
    # g++ makes several calls of the copy, one for each way through the condition.
    code = """
        #include <cuda_pipeline.h>
        extern "C" __global__ void windows(const float* x, float* y, int size, int width) {
            __shared__ float tile[4][64];
            for (int i = 0; i < 4; ++i) {
                const int at = threadIdx.x + i * 7;
                const bool present = unsigned(at - 3) < unsigned(size) && at % width < 5;
                __pipeline_memcpy_async(&tile[i][threadIdx.x], x + at, 4, present ? 0 : 4);
            }
            __pipeline_commit();
            __pipeline_wait_prior(0);
            for (int i = 0; i < 4; ++i) y[i * 64 + threadIdx.x] = tile[i][threadIdx.x];
        }
    """
    kernel = cudasim.Module(code=code, mode="check").get_function("windows")
    kernel.profile = True
    x, y = np.arange(1, 201, dtype=np.float32), np.zeros((4, 64), np.float32)
    kernel((1,), (64,), (x, y, np.int32(60), np.int32(7)))
    at = np.arange(64) + 7 * np.arange(4)[:, None]
    np.testing.assert_array_equal(y, np.where((at >= 3) & (at < 63) & (at % 7 < 5), x[at], 0))
    (copies,) = [row for row in kernel.report if (row.space, row.operation) == ("shared", "write")]
    assert (copies.requests, copies.transactions, copies.least) == (8, 8, 8)


def test_profile_needs_check_mode() -> None:
    kernel = module("fast").get_function("trap")
    kernel.profile = True
    with pytest.raises(ValueError, match='needs mode="check"'):
        kernel((1,), (1,), ())
