"""The simulator as a library: modules, what is passed to kernels, launches, and the folder of compiled kernels."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpconv import cudasim
from xpconv.cudasim import kernel as kernel_module
from xpconv.cudasim import toolchain
from xpconv.cudasim.options import translate_options

pytestmark = pytest.mark.skipif(not cudasim.status().available, reason=cudasim.status().reason)

MODES = ("fast", "check")

ARGUMENTS = r"""
struct Shape { int rows, columns; double scale; char tag; };
enum class Colour { red, green };
#define KERNEL extern "C" __global__ void
KERNEL add(const float* x, float* y, int n) { if (threadIdx.x < n) y[threadIdx.x] += x[threadIdx.x]; }
KERNEL scalars(double* y, bool b, signed char i8, short i16, int i32, long long i64, unsigned char u8, unsigned short u16,
               unsigned u32, unsigned long long u64, float f, double d, Colour c) {
    const double all[] = {double(b), double(i8), double(i16), double(i32), double(i64), double(u8), double(u16), double(u32),
                          double(u64), f, d, double(c)};
    for (int i = 0; i < 12; ++i) y[i] = all[i];
}
KERNEL record(double* y, char before, Shape shape, const Shape by_const, char after) {
    y[0] = before; y[1] = shape.rows; y[2] = shape.columns; y[3] = shape.scale; y[4] = shape.tag;
    y[5] = by_const.scale; y[6] = after;
}
KERNEL nothing() {}
KERNEL number(int n) {}
KERNEL unsigned_number(unsigned n) {}
KERNEL wide(long long n) {}
KERNEL real(float x) {}
KERNEL truth(bool b) {}
KERNEL bytes(const void* anything, char* characters, float4* vectors) {}
KERNEL doubles(double* x) {}
KERNEL integers(unsigned* x) {}
KERNEL null(const float* x, int* y) { y[0] = x == nullptr; }
"""


def module(mode: str = "fast") -> cudasim.Module:
    return cudasim.Module(code=ARGUMENTS, mode=mode)


def launch(name: str, *arguments: Any, mode: str = "fast") -> None:
    module(mode).get_function(name)((1,), (1,), arguments)


def refused(name: str, *arguments: Any) -> str:
    with pytest.raises(cudasim.KernelError) as caught:
        launch(name, *arguments)
    assert caught.value.kind == "launch"
    assert (caught.value.file, caught.value.line, caught.value.block, caught.value.thread) == ("", 0, None, None)
    return str(caught.value)


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_scalars_of_every_type(mode: str) -> None:
    y = np.zeros(12)
    values = (
        *(np.bool_(True), np.int8(-8), np.int16(-16), np.int32(-32), np.int64(-(2**40))),
        *(
            np.uint8(200),
            np.uint16(60000),
            np.uint32(2**32 - 1),
            np.uint64(2**40),
            np.float32(0.5),
            np.float64(0.1),
            np.int32(1),
        ),
    )
    launch("scalars", y, *values, mode=mode)
    assert y.tolist() == [float(value) for value in values]
    # Those of Python are 8 bytes, of which a card reads as many as it needs.
    launch("scalars", y, True, -1, -2, -3, -4, 5, 6, 7, 8, np.float32(9), 10.5, 1, mode=mode)
    assert y.tolist() == [1, -1, -2, -3, -4, 5, 6, 7, 8, 9, 10.5, 1]


@pytest.mark.parametrize("mode", MODES)
def test_records(mode: str) -> None:
    fields = [("rows", np.int32), ("columns", np.int32), ("scale", np.float64), ("tag", np.int8)]
    dtype = np.dtype(fields, align=True)
    y = np.zeros(7)
    shape = np.array((3, 4, 0.25, 7), dtype)
    launch("record", y, np.int8(1), shape[()], np.array([(5, 6, 0.75, 8)], dtype), np.int8(2), mode=mode)
    assert y.tolist() == [1, 3, 4, 0.25, 7, 0.75, 2]
    packed = np.array((3, 4, 0.25, 7), np.dtype(fields))
    assert "a record of 24 bytes" in refused("record", y, np.int8(1), packed[()], shape[()], np.int8(2))


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, 0, 1, -1, 2**62, -(2**63), 0.0, 1.5, float("nan"), 2 + 3j),
        *(np.bool_(True), np.int8(-3), np.int16(3), np.int32(-7), np.int64(2**40), np.uint8(9), np.uint64(2**63)),
        *(np.float16(1.5), np.float32(0.1), np.float64(0.1), np.complex64(1 + 2j)),
        np.array((2.5, 1, 2), np.dtype([("a", np.float64), ("b", np.int32), ("c", np.int32)]))[()],
    ],
    ids=repr,
)
def test_scalars_are_passed_as_cupy_passes_them(value: Any) -> None:
    scalar = pytest.importorskip("cupy._core._scalar").CScalar(value)
    ours = kernel_module._as_numpy(value)
    assert ours.dtype == scalar.dtype
    assert ours.tobytes() == ctypes.string_at(scalar.ptr, scalar.dtype.itemsize)


def test_scalars_that_a_card_would_misread_are_refused() -> None:
    assert "is 1.5, which CuPy passes as float64 (8 bytes), but the kernel takes float32" in refused("real", 1.5)
    assert "CuPy passes as int64" in refused("real", 1)
    assert "CuPy passes as float64" in refused("wide", 1.0)
    assert "is np.int32(1), which CuPy passes as int32 (4 bytes), but the kernel takes int64" in refused("wide", np.int32(1))
    assert "is 2147483648, which int32 cannot hold" in refused("number", 2**31)
    assert "is -1, which uint32 cannot hold" in refused("unsigned_number", -1)
    assert "cannot hold" in refused("unsigned_number", np.int64(-1))
    assert "is True, which CuPy passes as bool (1 bytes)" in refused("number", True)
    assert "bool" in refused("truth", 2)
    assert "is a str, but the kernel takes int32" in refused("number", "1")
    assert "is a int, but the kernel takes int64" in refused("wide", 2**70)
    assert "is a NoneType" in refused("number", None)
    assert "is a ndarray, but the kernel takes int32" in refused("number", np.zeros(2, np.int32))
    launch("number", np.int64(5))
    launch("number", 2**31 - 1)
    launch("unsigned_number", 2**32 - 1)


def test_arrays_that_a_card_would_misread_are_refused() -> None:
    x, y = np.zeros(4, np.float32), np.zeros(4, np.float32)
    assert "argument 0 has dtype float64, but the kernel takes a pointer to float32" in refused("add", x.astype(float), y, 4)
    assert "dtype int32, but the kernel takes a pointer to float32" in refused("add", x.view(np.int32), y, 4)
    assert "dtype float32, but the kernel takes a pointer to float64" in refused("doubles", x)
    assert "dtype int64, but the kernel takes a pointer to uint32" in refused("integers", np.zeros(1, np.int64))
    assert "argument 1 is not C-contiguous" in refused("add", x, np.zeros((4, 2), np.float32)[:, 0], 4)
    assert "argument 0 is not C-contiguous" in refused("add", np.zeros((4, 2), np.float32).T, y, 4)
    assert "is a float, but the kernel takes a pointer" in refused("add", 1.0, y, 4)
    assert "is a int, but the kernel takes a pointer" in refused("add", 1, y, 4)
    assert "is a list" in refused("add", [1.0], y, 4)
    y.flags.writeable = False
    assert "argument 1 is read-only" in refused("add", x, y, 4)
    launch("add", y, x, 1)  # read-only is good enough for const
    crooked = np.zeros(17, np.uint8)[1:].view(np.float32)
    assert "not aligned" in refused("add", crooked, x, 4)
    launch("integers", np.zeros(1, np.int32))  # integers of the same size stand for each other
    launch("bytes", x, x, x)


def test_the_number_of_arguments() -> None:
    assert "it takes 3 arguments, but 2 were given" in refused("add", np.zeros(1, np.float32), np.zeros(1, np.float32))
    assert "it takes 0 arguments, but 1 were given" in refused("nothing", 1)
    launch("nothing")


@pytest.mark.parametrize("mode", MODES)
def test_zero_is_a_null_pointer_and_empty_arrays_are_arrays(mode: str) -> None:
    y = np.zeros(1, np.int32)
    launch("null", 0, y, mode=mode)
    assert y[0] == 1
    launch("null", np.zeros(0, np.float32), y, mode=mode)
    assert y[0] == 0


@pytest.mark.parametrize("mode", MODES)
def test_const_arrays_stay_and_others_change_in_place(mode: str) -> None:
    memory = np.arange(12, dtype=np.float32)
    x = np.ones(4, np.float32)
    module(mode).get_function("add")((1,), (4,), (x, memory[4:8], 4))
    np.testing.assert_array_equal(memory, [0, 1, 2, 3, 5, 6, 7, 8, 8, 9, 10, 11])
    np.testing.assert_array_equal(x, np.ones(4))


# ---- launches --------------------------------------------------------------------------------------------------------

COUNT = r"""
extern "C" __global__ void count(unsigned long long* y) { atomicAdd(y, 1ull); }
extern "C" __global__ void shared_bytes(float* y) {
    __shared__ float fixed[100];
    extern __shared__ float dynamic[];
    fixed[0] = 1; dynamic[0] = 2;
    y[0] = fixed[0] + dynamic[0];
}
extern "C" __global__ void cube(int* y) {
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    __shared__ int all[8];
    all[threadIdx.x] = block;
    __syncthreads();
    y[block * 8 + threadIdx.x] = all[7 - threadIdx.x] * 10 + threadIdx.x;
}
"""


def counting(mode: str = "fast", **options: Any) -> cudasim.Kernel:
    return cudasim.Module(code=COUNT, mode=mode, **options).get_function("count")


@pytest.mark.parametrize(
    ("grid", "block", "threads"),
    [((2,), (3,), 6), ((2, 3), (4, 5), 120), ((1, 2, 3), (1024,), 6144), ((np.int64(2),), [np.int32(7)], 14), ((0,), (0,), 1)],
)
def test_grids_and_blocks(grid: Any, block: Any, threads: int) -> None:
    y = np.zeros(1, np.uint64)
    counting()(grid, block, (y,))
    assert y[0] == threads


@pytest.mark.parametrize(
    ("grid", "block", "text"),
    [
        ((1,), (1025,), "a block of 1025 x 1 x 1 threads; a card takes 1024"),
        ((1,), (32, 33), "1024 in all"),
        ((1,), (1, 1, 65), "64 in z"),
        ((1, 65536), (1,), "a grid of 1 x 65536 x 1 blocks"),
        ((2**31,), (1,), "a card takes 2147483647"),
        ((-1,), (1,), "grid is a tuple of up to three integers from 0, not (-1,)"),
        ((1, 1, 1, 1), (1,), "grid is a tuple of up to three integers"),
        ((), (1,), "grid is a tuple"),
    ],
)
def test_launches_that_a_card_refuses(grid: Any, block: Any, text: str) -> None:
    with pytest.raises(cudasim.KernelError) as caught:
        counting()(grid, block, (np.zeros(1, np.uint64),))
    assert caught.value.kind == "launch"
    assert text in str(caught.value)


def test_launches_of_the_wrong_type() -> None:
    for grid in (1, (1.5,), "1"):
        with pytest.raises(TypeError, match="grid is a tuple of up to three integers"):
            counting()(grid, (1,), (np.zeros(1, np.uint64),))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_shared_memory_has_the_limits_of_a_card(mode: str) -> None:
    y = np.zeros(1, np.float32)

    def kernel(**options: Any) -> cudasim.Kernel:
        return cudasim.Module(code=COUNT, mode=mode, **options).get_function("shared_bytes")

    small = kernel()
    small((1,), (1,), (y,), shared_mem=64)
    assert (y[0], small.shared_memory_used) == (3, 464)
    with pytest.raises(cudasim.KernelError, match="shared_mem is 49153, but max_dynamic_shared_size_bytes is 49152"):
        small((1,), (1,), (y,), shared_mem=49153)
    with pytest.raises(cudasim.KernelError, match="shared_mem is -1"):
        small((1,), (1,), (y,), shared_mem=-1)
    small.max_dynamic_shared_size_bytes = 99 << 10
    small((1,), (1,), (y,), shared_mem=(99 << 10) - 400)
    with pytest.raises(
        cudasim.KernelError, match="400 bytes of static and 101376 of dynamic shared memory are more than"
    ) as caught:
        small((1,), (1,), (y,), shared_mem=99 << 10)
    assert (caught.value.kind, caught.value.line) == ("shared memory", 4)
    small.max_dynamic_shared_size_bytes = 100 << 10
    with pytest.raises(cudasim.KernelError, match="is 102400, but the card has 101376 bytes for a block"):
        small((1,), (1,), (y,))
    large = kernel(shared_memory_limit=227 << 10)
    large.max_dynamic_shared_size_bytes = 200 << 10
    large((1,), (1,), (y,), shared_mem=200 << 10)
    assert large.shared_memory_used == (200 << 10) + 400


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    expected = np.array([block * 10 + thread for block in range(60) for thread in range(8)], np.int32)
    for workers in (1, 2, 7, None):
        kernel = cudasim.Module(code=COUNT).get_function("cube")
        kernel.workers = workers
        y = np.zeros(480, np.int32)
        kernel((3, 4, 5), (8,), (y,))
        np.testing.assert_array_equal(y, expected)


def test_bad_attributes_of_a_kernel() -> None:
    y = np.zeros(1, np.uint64)
    kernel = counting()
    kernel.order = "sideways"
    with pytest.raises(ValueError, match="order is 'sideways', but it is one of 'ascending', 'descending', 'random'"):
        kernel((1,), (1,), (y,))
    kernel = counting()
    kernel.workers = 0
    with pytest.raises(ValueError, match="workers is 0, but it is at least 1"):
        kernel((1,), (1,), (y,))
    assert repr(kernel) == "<xpconv.cudasim.Kernel count>"


# ---- modules ---------------------------------------------------------------------------------------------------------


def test_names() -> None:
    code = r"""
    extern "C" __global__ void __launch_bounds__(32 * (1 + 1)) one(float* y) {}
    extern "C" { __global__ void two() {} __device__ int helper() { return 1; } }
    __global__ void plain() {}
    template <class T> __global__ void generic(T* y) { y[0] = T(4); }
    namespace inner { template <int N> __global__ void nested(int* y) { y[0] = N; } }
    // extern "C" __global__ void commented() {}
    """
    first = cudasim.Module(code=code)
    assert first.names == ("one", "two")
    for name, text in (("plain", 'not declared extern "C"'), ("three", "no kernel 'three' here, but 'one', 'two'")):
        with pytest.raises(ValueError, match=text):
            first.get_function(name)
    names = ("plain", "generic<double>", "inner::nested<7>", "generic< float >")
    second = cudasim.Module(code=code, name_expressions=names)
    y = np.zeros(1)
    second.get_function("generic<double>")((1,), (1,), (y,))
    assert y[0] == 4
    z = np.zeros(1, np.int32)
    second.get_function("inner::nested<7>")((1,), (1,), (z,))
    assert z[0] == 7
    second.get_function("plain")((1,), (1,), ())
    with pytest.raises(ValueError, match="no kernel 'one' here"):
        second.get_function("one")
    in_macros = cudasim.Module(code='#define K(name) extern "C" __global__ void name##_kernel() {}\nK(a)\nK(b)\n')
    assert in_macros.names == ("a_kernel", "b_kernel")
    in_macros.get_function("b_kernel")((1,), (1,), ())


def test_compile_errors_name_the_line() -> None:
    with pytest.raises(cudasim.CompileError, match=r"broken\.cu:2:.*undeclared_name"):
        cudasim.Module(
            code='extern "C" __global__ void f(float* y) {\n y[0] = undeclared_name; }', filename="broken.cu"
        ).compile()
    with pytest.raises(cudasim.CompileError, match="inline PTX is not simulated"):
        cudasim.Module(
            code='extern "C" __global__ void f(int* y) { asm volatile("mov.u32 %0, %laneid;" : "=r"(y[0])); }'
        ).compile()
    for header in ("cooperative_groups.h", "curand_kernel.h"):
        with pytest.raises(cudasim.CompileError, match="not simulated"):
            cudasim.Module(code=f'#include <{header}>\nextern "C" __global__ void f() {{}}').compile()


def test_options(tmp_path: Path) -> None:
    (tmp_path / "detail").mkdir()
    (tmp_path / "scale.cuh").write_text('#pragma once\n#include "detail/more.cuh"\n#define SCALE MORE(2)\n')
    header = tmp_path / "detail" / "more.cuh"
    header.write_text(
        "#define MORE(x) ((x) + 1)\n__device__ int* kept() {\n    __shared__ int value[2];\n    return value;\n}\n"
    )
    code = r"""
    #include "scale.cuh"
    #include <scale.cuh>
    #include <cuda_runtime.h>
    #include <math_constants.h>
    extern "C" __global__ void f(long* y) {
        kept()[1] = 5;
        y[0] = SCALE; y[1] = FACTOR; y[2] = __cplusplus; y[3] = __CUDA_ARCH__; y[4] = kept()[1]; y[5] = isnan(CUDART_NAN_F);
        #ifdef __linux__
        y[6] = 1;
        #endif
    }"""

    def values(*options: str) -> list[int]:
        y = np.zeros(7, np.int64)
        found = cudasim.Module(code=code, options=(f"-I{tmp_path}", *options)).get_function("f")
        found((1,), (1,), (y,))
        return [int(value) for value in y]

    assert values("-DFACTOR=7") == [3, 7, 201703, 860, 5, 1, 1]
    options = ("--define-macro=FACTOR=8", "-std=c++20", "-arch=sm_90a", "-U__linux__", "--use_fast_math", "-lineinfo")
    assert values(*options) == [3, 8, 202002, 900, 5, 1, 0]
    header.write_text(header.read_text().replace("+ 1", "+ 2"))  # seen, though the code is the same
    assert values("-DFACTOR=7")[0] == 4


def test_options_as_nvrtc_takes_them() -> None:
    assert translate_options(("-I", "a", "-Ib", "--include-path=c", "-D", "X", "--undefine-macro=Y")).folders == ("a", "b", "c")
    assert translate_options(("-std=c++11", "--gpu-architecture=compute_75")).flags == ("-std=c++17", "-D__CUDA_ARCH__=750")
    assert translate_options(("-include", "x.h")).flags[:2] == ("-include", "x.h")
    for accepted in ("--fmad=false", "-ftz=true", "-G", "--maxrregcount=64", "--device-as-default-execution-space", "-w"):
        translate_options((accepted,))
    for option in ("-O3", "--unknown", "-march=native", "kernel.cu", "-fopenmp"):
        with pytest.raises(cudasim.CompileError, match=f"the option '{option}' is not one of NVRTC's"):
            cudasim.Module(code="", options=(option,))
    with pytest.raises(cudasim.CompileError, match=r"the standard 'c\+\+98' is not known"):
        translate_options(("-std=c++98",))
    with pytest.raises(cudasim.CompileError, match="architecture 'gfx90a'"):
        translate_options(("-arch=gfx90a",))
    with pytest.raises(cudasim.CompileError, match="'-D' needs a value"):
        translate_options(("-D",))
    with pytest.raises(TypeError, match="options is a sequence of strings, not one string"):
        cudasim.Module(code="", options="-DX")
    with pytest.raises(TypeError, match="an option is a string"):
        cudasim.Module(code="", options=(1,))  # type: ignore[arg-type]


def test_arguments_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="mode is 'slow', but it is 'fast' or 'check'"):
        cudasim.Module(code="", mode="slow")
    monkeypatch.setenv("XPCONV_CUDASIM_MODE", "check")
    assert cudasim.Module(code="").mode == "check"
    assert cudasim.Module(code="", mode="fast").mode == "fast"
    monkeypatch.setenv("XPCONV_CUDASIM_MODE", "quick")
    with pytest.raises(ValueError, match="XPCONV_CUDASIM_MODE is 'quick', but it is 'fast' or 'check'"):
        cudasim.Module(code="")
    monkeypatch.delenv("XPCONV_CUDASIM_MODE")
    assert cudasim.Module(code="").mode == "fast"
    for limit in (1000, 1 << 20):
        with pytest.raises(
            ValueError, match=f"shared_memory_limit is {limit}, but a block of a card can have from 49152 to 232448"
        ):
            cudasim.Module(code="", shared_memory_limit=limit)
    with pytest.raises(TypeError, match="code is a string"):
        cudasim.Module(code=b"")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name_expressions is a sequence of strings, not one string"):
        cudasim.Module(code="", name_expressions="f<int>")


# ---- the folder of compiled kernels ----------------------------------------------------------------------------------

SMALL = 'extern "C" __global__ void f(int* y) { y[0] = VALUE; }'


def small(value: int, **options: Any) -> int:
    y = np.zeros(1, np.int32)
    cudasim.Module(code=SMALL, options=(f"-DVALUE={value}",), **options).get_function("f")((1,), (1,), (y,))
    return int(y[0])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for compiled kernels, but for the run time, which takes long to compile."""
    small(0)
    folder = tmp_path / "kernels"
    folder.mkdir()
    for runtime in toolchain.cache_directory().glob("runtime-*.so"):
        shutil.copy(runtime, folder)
    monkeypatch.setenv("XPCONV_CUDASIM_CACHE", str(folder))
    return folder


def compiled_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith("runtime-")}


def test_what_is_compiled_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small(1) == 1
    first = compiled_in(cache)
    assert len(first) == 1
    assert all(name.startswith("kernel-") for name in first)

    def never(command: list[str]) -> None:
        raise AssertionError(f"compiled again: {command}")

    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "_compile", never)
        assert small(1) == 1
        with pytest.raises(AssertionError, match="compiled again"):
            small(2)
    assert small(2) == 2
    assert small(1, mode="check") == 1
    assert len(compiled_in(cache)) == 3


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    with pytest.raises(cudasim.CompileError):
        cudasim.Module(code='extern "C" __global__ void f() { nonsense }').compile()
    assert compiled_in(cache) == set()


def test_many_threads_and_processes_compile_at_once(cache: Path) -> None:
    program = f"""
        import numpy as np
        from xpconv import cudasim
        y = np.zeros(1, np.int32)
        cudasim.Module(code={SMALL!r}, options=("-DVALUE=3",)).get_function("f")((1,), (1,), (y,))
        print(y[0])
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(small, [3] * 6)) == [3] * 6
    assert [process.communicate(timeout=60)[0] for process in processes] == ["3\n", "3\n"]
    assert len(compiled_in(cache)) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XPCONV_CUDASIM_CACHE", str(blocked / "below"))
    temporary = toolchain._writable(toolchain.cache_directory())
    assert temporary.is_dir()
    assert temporary == toolchain._writable(toolchain.cache_directory())  # one for the process
    for runtime in cache.glob("runtime-*.so"):
        shutil.copy(runtime, temporary)
    assert small(4) == 4
    assert len(compiled_in(temporary)) == 1


def test_a_damaged_library_is_compiled_again(cache: Path) -> None:
    assert small(5) == 5
    (library,) = cache.glob("kernel-*.so")
    library.unlink()  # not truncated in place: this process has it mapped
    library.write_bytes(b"damaged")
    program = f"""
        import numpy as np
        from xpconv import cudasim
        y = np.zeros(1, np.int32)
        cudasim.Module(code={SMALL!r}, options=("-DVALUE=5",)).get_function("f")((1,), (1,), (y,))
        print(y[0])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "5\n", done.stderr


def test_old_libraries_are_forgotten(tmp_path: Path) -> None:
    old, new = tmp_path / "kernel-old.so", tmp_path / "kernel-new.so"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    toolchain._writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kernel-new.so"]


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XPCONV_CUDASIM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert toolchain.cache_directory() == tmp_path / "xpconv" / "cudasim"


# ---- where it cannot work --------------------------------------------------------------------------------------------


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = toolchain.status.__wrapped__()
    assert not missing.available
    assert "g++" in missing.reason
    assert "apt-get install g++" in missing.remedy
    monkeypatch.setattr(toolchain, "status", lambda: missing)
    with pytest.raises(cudasim.CompileError, match=r"kernels cannot be simulated here: g\+\+.*apt-get install"):
        cudasim.Module(code='extern "C" __global__ void f() {}').compile()


def test_with_clang_under_the_name_of_gcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretender = tmp_path / "g++"
    pretender.write_text("#!/bin/sh\necho Apple clang version 17\n")
    pretender.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    toolchain._compiler.cache_clear()
    try:
        missing = toolchain.status.__wrapped__()
    finally:
        toolchain._compiler.cache_clear()
    assert (missing.available, "clang" in missing.reason) == (False, True)


def test_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    missing = toolchain.status.__wrapped__()
    assert not missing.available
    assert "Linux" in missing.reason


def test_the_package_holds_the_sources() -> None:
    folder = Path(cudasim.__file__).parent
    assert {path.suffix for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts} == {
        ".py",
        ".h",
        ".cpp",
    }
    assert (folder / "include" / "cudasim.h").is_file()
    assert len(list((folder / "runtime").glob("*.cpp"))) >= 5
