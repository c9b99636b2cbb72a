"""The checks of our own CUDA kernels: that they run everything, and that they find what is planted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpconv import cudasim
from xpconv.cli import main
from xpconv.kernels import numpy as numpy_kernels
from xpconv.kernels.cuda.source import source_of
from xpconv.sanitizer import cases, checks, mutation
from xpconv.sanitizer.cases import Case

needs_compiler = pytest.mark.skipif(not cudasim.status().available, reason=f"no simulator: {cudasim.status().reason}")

ELEMENTWISE = "elementwise.cu"


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cases of ReLU, which one kernel computes."""
    several = [Case("relu_forward", (cases.numbers((size,), np.float32),), f"{size} elements") for size in (0, 37)]
    monkeypatch.setattr(checks, "all_cases", lambda: several)
    monkeypatch.setattr(checks, "profile_cases", lambda: iter(several))


def plant(monkeypatch: pytest.MonkeyPatch, good: str, bad: str) -> None:
    """Put a fault into the source of the elementwise kernels."""
    text = source_of(ELEMENTWISE)
    assert text.count(good) == 1, good
    monkeypatch.setattr(checks, "source_of", lambda file: text.replace(good, bad) if file == ELEMENTWISE else source_of(file))


# ---- the cases ---------------------------------------------------------------------------------------------------------


def test_the_cases_call_every_function_that_computes() -> None:
    called = {case.operation for case in cases.all_cases()}
    inside = {"max_pool2d_backward", "conv2d_max_pool2d_forward", "conv2d_max_pool2d_backward"}  # of composed ones
    assert called | inside == {*numpy_kernels.__all__, *cases.COMPOSED} - {"fuses_conv2d_max_pool2d"}


def test_the_cases_are_the_same_at_every_call() -> None:
    first, second = cases.all_cases(), cases.all_cases()
    assert [str(case) for case in first] == [str(case) for case in second]
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one.arguments, other.arguments, strict=True):
            assert a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b  # bytes, since NaN is NaN here


def test_a_case_changes_none_of_its_arguments() -> None:
    (case,) = (case for case in cases.elementwise_cases(9, np.float32, "") if case.operation == "momentum_update")
    before = [np.copy(argument) for argument in case.arguments]
    results = case.compute(numpy_kernels)
    assert len(results) == 2
    assert not np.array_equal(results[0], before[0])
    for argument, old in zip(case.arguments, before, strict=True):
        np.testing.assert_array_equal(argument, old)


def test_environment_variables_are_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPCONV_TEST_A", "old")
    monkeypatch.delenv("XPCONV_TEST_B", raising=False)
    with cases.environment({"XPCONV_TEST_A": "new", "XPCONV_TEST_B": "new"}):
        assert os.environ["XPCONV_TEST_A"] == os.environ["XPCONV_TEST_B"] == "new"
    assert os.environ["XPCONV_TEST_A"] == "old"
    assert "XPCONV_TEST_B" not in os.environ


def test_a_copy_lies_in_memory_as_the_argument_does() -> None:
    array = cases.misaligned(cases.numbers((3, 5), np.float32))
    assert array.ctypes.data % 16 == 4
    for argument in (array, array.T):
        seen: list[Any] = []
        Case("watch", (argument,), "").compute(_Watching(seen))
        assert seen[0].ctypes.data % 16 == 4
        assert seen[0].strides == argument.strides
        assert not np.shares_memory(seen[0], argument)
        np.testing.assert_array_equal(seen[0], argument)


class _Watching:
    def __init__(self, seen: list[Any]) -> None:
        self.watch = seen.append


# ---- what is compared --------------------------------------------------------------------------------------------------

SINGLE = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("result", "expected", "told"),
    [
        ([1.0, np.nan], [1.0, 2.0], "1 of 2 elements differ, at (1,) nan is not 2.0"),
        ([1.0, 2.0], [np.nan, 2.0], "at (0,) 1.0 is not nan"),
        ([np.inf], [-np.inf], "inf is not -inf"),
        ([np.inf], [1.0], "inf is not 1.0"),
        ([1.001], [1.0], "1.001"),
        ([1.0, 1.0], [1.0], "shape (2,), not (1,)"),
    ],
)
def test_what_differs_is_told(result: list[float], expected: list[float], told: str) -> None:
    (text,) = checks.differences([np.array(result)], [np.array(expected)], SINGLE)
    assert told in text


def test_what_is_rounded_is_equal_and_whole_numbers_are_compared_exactly() -> None:
    x = np.array([1.0, np.nan, np.inf, -3.0])
    assert checks.differences([x.astype(np.float32) * np.float32(1 + 2**-23)], [x], SINGLE) == []
    assert checks.differences([np.array([2**40 + 1])], [np.array([2**40])], SINGLE) != []
    assert checks.differences([np.array([1])], [], SINGLE) == ["1 results, not 0"]


# ---- which kernels -----------------------------------------------------------------------------------------------------


def test_kernels_are_found_in_a_source() -> None:
    code = """
    // __global__ void not_this(int i) {
    /* __global__ void nor_this() {} */
    extern "C" __global__ void plain(const float* x) {}
    template <typename T, int ROWS>
    __global__ void __launch_bounds__(32 * (ROWS + 1))
        bounded(const T* x, T* (&y)[2]) { if (x) return; }
    __device__ void helper(int i);
    """
    assert checks.kernels_in(code) == ["plain", "bounded"]


def test_a_pattern_is_a_part_of_a_name_or_has_stars() -> None:
    assert checks.matches("", "pool2d.cu", "max_pool2d_forward")
    assert checks.matches("max_pool", "pool2d.cu", "max_pool2d_forward")
    assert checks.matches("pool2d.cu", "pool2d.cu", "max_unpool2d")
    assert checks.matches("*_forward", "pool2d.cu", "max_pool2d_forward")
    assert checks.matches("pool2d.cu:avg*", "pool2d.cu", "avg_pool2d_forward")
    assert not checks.matches("*_forward", "pool2d.cu", "max_pool2d_backward")
    assert not checks.matches("conv", "pool2d.cu", "max_pool2d_backward")


def test_the_cases_come_by_every_kernel() -> None:
    launched = {(file, checks.template_of(name)) for _, _, names in checks.planned(cases.all_cases()) for file, name in names}
    assert set(checks.kernel_templates()) == launched


# ---- a run -------------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.usefixtures("few_cases")
def test_sound_kernels_pass_and_their_use_of_memory_is_told() -> None:
    report = checks.run("relu_forward", profile=True)
    assert report.failures == []
    (kernel,) = report.kernels
    assert (kernel.file, kernel.template, kernel.instantiations) == (ELEMENTWISE, "relu_forward", {"relu_forward<float, 4>"})
    assert kernel.launches == 1  # none for no elements
    assert report.cases == 1
    loads = kernel.access("global", "read")
    assert loads is not None
    assert loads.transactions >= loads.least > 0
    assert kernel.access("shared", "read") is None


@needs_compiler
@pytest.mark.usefixtures("few_cases")
@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ("    if (item < vectors) {", "    if (item <= vectors) {", "out of bounds"),
        ("if (widen(value) <= 0) value", "if (widen(value) >= 0) value", "result 0: "),
        ("constexpr int THREADS = 256;", "this is no C++;", "this"),
    ],
    ids=["out of bounds", "wrong result", "no C++"],
)
def test_what_is_planted_is_found(monkeypatch: pytest.MonkeyPatch, good: str, bad: str, told: str) -> None:
    plant(monkeypatch, good, bad)
    report = checks.run("relu_forward")
    assert any(told in failure for failure in report.failures), report.failures
    found = report.kernels[0].findings + report.findings
    assert any("relu_forward" in finding.case for finding in found)


@needs_compiler
@pytest.mark.usefixtures("few_cases")
def test_an_error_of_the_host_code_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = list(checks.planned(checks.all_cases()))
    monkeypatch.setattr(checks, "planned", lambda cases: plans)
    monkeypatch.setattr("xpconv.kernels.cuda.relu_forward", lambda x: x / "2")
    report = checks.run("relu_forward")
    assert any("TypeError" in finding.message for finding in report.findings)


@pytest.mark.usefixtures("few_cases")
def test_a_kernel_that_no_case_comes_by_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "kernel_templates", lambda: {(ELEMENTWISE, "ghost"): None})
    report = checks.run()
    assert report.never_run == [f"{ELEMENTWISE}: ghost"]
    assert report.failures == [f"{ELEMENTWISE}: ghost is never run by a case"]


# ---- the command -------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.usefixtures("few_cases")
def test_the_command_prints_a_table_and_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = tmp_path / "report.json", tmp_path / "page.md"
    page.write_text("before\n<!-- sanitize -->\nold\n<!-- /sanitize -->\nafter\n")
    assert main(["sanitize", "relu_forward", "--profile", "--json", str(path), "--readme", str(page)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "relu_forward" in out
    assert "Use of memory" in out
    assert "1 cases, 1 launches" in out
    report = json.loads(path.read_text())
    assert report["findings"] == report["never_run"] == []
    assert report["kernels"][0]["template"] == "relu_forward"
    assert report["kernels"][0]["accesses"][0]["space"] == "global"
    assert page.read_text().startswith("before\n<!-- sanitize -->\n| file | kernel |")
    assert page.read_text().endswith("passes; and the share of them that would do.\n<!-- /sanitize -->\nafter\n")
    assert "| elementwise.cu | relu_forward | 1 | 1 | 0 |" in page.read_text()


@needs_compiler
def test_a_page_without_markers_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "run", None)
    page = tmp_path / "page.md"
    page.write_text("no markers\n")
    assert main(["sanitize", "--readme", str(page)]) == 1
    assert "needs the lines <!-- sanitize -->" in capsys.readouterr().err


@needs_compiler
@pytest.mark.usefixtures("few_cases")
def test_the_command_fails_with_the_full_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plant(monkeypatch, "    if (item < vectors) {", "    if (item <= vectors) {")
    assert main(["sanitize", "relu_forward"]) == 1
    out, err = capsys.readouterr()
    assert "out of bounds" in out
    assert "37 elements" in out
    assert err == "error: sanitize: 1 finding, see above\n"


def test_a_pattern_that_nothing_matches_is_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sanitize", "no such kernel"]) == (2 if cudasim.status().available else 1)
    assert "no such kernel" in capsys.readouterr().err or not cudasim.status().available


def test_without_a_compiler_the_command_tells_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cudasim, "status", lambda: cudasim.Status(False, "there is no g++", "install it"))
    assert main(["sanitize"]) == 1
    assert capsys.readouterr().err == "error: sanitize: there is no g++: install it\n"


# ---- mutants -----------------------------------------------------------------------------------------------------------


def changes_in(code: str) -> list[str]:
    register = mutation.Register()
    mutation.with_mutants(code, register)
    return [mutant.change for mutant in register.mutants]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("void f() { __syncthreads(); }", ["no __syncthreads"]),
        ("void f() { __pipeline_wait_prior(1); }", ["no __pipeline_wait_prior", "one copy more stays under way"]),
        ("void f() { for (int i = 0; i < n; ++i) g(i); }", ["< becomes <="]),
        ("void f() { x[i] = 0; }", ["[i] becomes [i + 1]"]),
        ("void f() { y = a - b; }", ["- becomes +"]),
        ("void f() { y = a * b; }", ["no * and what is behind it"]),
        ("void f() { y += a; }", ["+= becomes -="]),
        ("void f() { if (inside) g(); }", ["inside is taken for true", "inside is taken for false"]),
        ("void f() { ok = a && b || c; }", ["a is taken for true", "c is taken for false"]),
        ("void f() { y = there ? a : b; }", ["there is taken for true", "there is taken for false"]),
    ],
)
def test_what_is_planted(code: str, changes: list[str]) -> None:
    found = changes_in(code)
    assert all(change in found for change in changes), found


@pytest.mark.parametrize(
    "code",
    [
        "template <typename T, int N = 2 + 3> struct A { T at[N * 2], more[N]; };",
        "static constexpr int A = B * 2 + 1;",
        'static_assert(A < B, "a < b");',
        "void f() { if constexpr (A == 2) g(); }",
        "void f() { __shared__ float tile[ROWS * 2][COLUMNS + 1]; }",
        "__global__ void __launch_bounds__(32 * WARPS) f(const T* __restrict__ x, T (&y)[2]);",
        "#define LESS(a, b) a < b\n",
        "void f() { g<A + 1>(); } // a < b\n",
        "using A = B<C + 1>; enum { D = 1 + 2 };",
        "void f() { int step = ORDER == ALONG_ROWS ? WIDTH : 1; }",
    ],
)
def test_what_is_settled_at_compile_time_is_no_mutant(code: str) -> None:
    assert changes_in(code) == []
    assert mutation.with_mutants(code, mutation.Register()) == code


def test_a_mutant_knows_its_file_and_line_and_a_header_has_the_same_numbers_everywhere() -> None:
    header = '#line 1 "head.cuh"\n\nint f(int i) { return i - 1; }\n'
    register = mutation.Register()
    for name in ("a.cu", "b.cu"):
        mutation.with_mutants(f'#line 1 "{name}"\n{header}#line 2 "{name}"\nint g(int i) {{ return i + 2; }}\n', register)
    assert [(mutant.file, mutant.line, mutant.change) for mutant in register.mutants] == [
        ("head.cuh", 2, "- becomes +"),
        ("a.cu", 2, "+ becomes -"),
        ("b.cu", 2, "+ becomes -"),
    ]
    assert str(register.mutants[0]) == "head.cuh:2: - becomes +: int f(int i) { return i - 1; }"


REVERSAL = """#line 1 "reversal.cu"
template <typename T> __global__ void reverse(const T* x, T* y, int n) {
    __shared__ T tile[32];
    const int i = threadIdx.x;
    if (i < n) tile[i] = x[i];
    __syncthreads();
    if (i < n) y[i] = tile[n - 1 - i];
}
"""


@needs_compiler
def test_mutants_sleep_until_they_are_selected() -> None:
    register = mutation.Register()
    text = mutation.with_mutants(REVERSAL, register)
    names = ("reverse<float>", *mutation.SELECTORS)
    module = cudasim.Module(code=mutation.prelude(register) + text, name_expressions=names, mode="check")
    reverse = module.get_function("reverse<float>")
    count = len(register.mutants)

    def result() -> str:
        x, y = np.arange(1, 8, dtype=np.float32), np.zeros(7, np.float32)
        try:
            reverse((1,), (32,), (x, y, np.int32(7)))
        except cudasim.KernelError as error:
            return error.kind
        return "right" if np.array_equal(y, x[::-1]) else "wrong"

    assert result() == "right"
    mutation.watch(module, count)
    assert result() == "right"
    assert mutation.reached(module, count) == set(range(count))
    seen = {}
    for mutant in register.mutants:
        mutation.select(module, mutant.number, count)
        seen[f"{mutant.line}: {mutant.change}"] = result()
    assert seen["5: no __syncthreads"] in ("race", "uninitialised")
    assert seen["4: < becomes <="] == "out of bounds"
    assert seen["6: i < n is taken for false"] == "wrong"
    assert "right" not in seen.values(), seen
    mutation.select(module, None, count)
    assert result() == "right"
