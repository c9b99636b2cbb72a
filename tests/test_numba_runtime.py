"""What compiles, keeps and runs the kernels of the numba device: its cache, its threads, its memory and its vector code.

Where a process has to begin, end, fork or be interrupted, a program runs in a process of its own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numba_samples as samples
import numpy as np
import pytest

from xpconv.kernels.numba import compiler, intrinsics, target, threads
from xpconv.kernels.numba.memory import address, borrowed

ROOT = Path(__file__).parent.parent
PACKAGE = Path(compiler.__file__).parent

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
SETTINGS_OF_NUMBA = [name for name in os.environ if name.startswith("NUMBA_")]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
needs_timer = pytest.mark.skipif(sys.platform == "win32", reason="the system has no timer that sends a signal")


def start(program: str, cache: Path, *options: str, path: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """Start a Python program that has ``samples``, ``np`` and ``compiler``, with nothing set but what is named here."""
    begin = "import numba_samples as samples, numpy as np\nfrom xpconv.kernels.numba import compiler, threads\n"
    begin += "compiler.keep_quiet()\n"  # on a busy machine compiling takes long enough to be told
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS_OF_NUMBA}
    paths = os.pathsep.join([str(path), str(Path(__file__).parent)])
    settings = {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", *options, "-c", begin + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, **settings, **environment},
    )


def output(process: subprocess.Popen[str]) -> list[str]:
    """What a program prints, word by word, once it has ended without an error and without a message."""
    try:
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, ""), out
    return out.split()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of these tests, filled by whichever test comes first."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for this very process."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    compiler.cache_trouble.cache_clear()
    yield tmp_path / "cache"
    compiler.cache_trouble.cache_clear()


def compile_anew() -> compiler.CompiledFunction:
    """Compile a kernel, or get it from the cache, as a new process would."""
    kernel = samples.scale_kernel.__wrapped__(numba.float32)
    assert kernel.address
    return kernel


def files_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


# ----------------------------------------------------------------------------------------------------------------------
# Machine code is kept
# ----------------------------------------------------------------------------------------------------------------------

SCALE = "x = np.arange(1000.0); assert (samples.scale(x, 0.5, 2) == x / 2).all(); print(compiler.compiled_seconds())\n"


def test_the_next_process_compiles_nothing(tmp_path: Path) -> None:
    assert float(output(start(SCALE, tmp_path))[0]) > 0
    kept = {path: path.read_bytes() for path in files_of(tmp_path)}
    assert any(path.name.startswith("scale-") for path in kept)
    assert float(output(start(SCALE, tmp_path))[0]) == 0
    assert {path: path.read_bytes() for path in files_of(tmp_path)} == kept


def test_two_processes_that_compile_at_once_leave_whole_files(tmp_path: Path) -> None:
    both = [start(SCALE, tmp_path), start(SCALE, tmp_path)]
    assert all(float(output(process)[0]) > 0 for process in both)
    assert {path.suffix for path in files_of(tmp_path)} == {".bin"}
    assert float(output(start(SCALE, tmp_path))[0]) == 0


def test_every_file_of_the_folder_decides_where_machine_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "numba"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    directory_of = compiler._fingerprint.__wrapped__
    original = directory_of()
    monkeypatch.setattr(compiler, "__file__", str(copy / "compiler.py"))
    seen = [directory_of()]
    assert seen == [original]
    sources = sorted(copy.rglob("*.py"))
    assert {"compiler.py", "intrinsics.py", "threads.py"} <= {path.name for path in sources}
    for path in sources:
        with path.open("a") as file:
            file.write("# edited\n")
        seen.append(directory_of())
    assert len(set(seen)) == len(sources) + 1


@pytest.mark.parametrize(("name", "value"), [("NUMBA_CPU_NAME", "generic"), ("NUMBA_OPT", "0"), ("NUMBA_LOOP_VECTORIZE", "0")])
def test_settings_that_change_the_code_have_a_cache_of_their_own(cache: Path, name: str, value: str) -> None:
    program = "print(compiler.cache_directory())"
    assert output(start(program, cache, **{name: value})) != output(start(program, cache))


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-100], lambda content: b"garbage" * 1000, flipped],
    ids=["empty", "truncated", "garbage", "one bit"],
)
def test_a_damaged_file_is_compiled_anew(empty_cache: Path, damage: Callable[[bytes], bytes]) -> None:
    assert compile_anew().seconds > 0
    (path,) = files_of(empty_cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert compile_anew().seconds > 0
    assert len(path.read_bytes()) > len(whole) // 2
    assert compile_anew().seconds == 0


@pytest.mark.parametrize("place", ["below a file", "read-only", "of the system"])
def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(tmp_path: Path, place: str) -> None:
    parent = tmp_path / "parent"
    if place == "below a file":
        parent.write_text("a file")
    elif place == "of the system":
        parent = Path("/proc/self")
        if not parent.is_dir():
            pytest.skip("the system has no such place")
    else:
        parent.mkdir(mode=0o500)
        if os.access(parent, os.W_OK):
            pytest.skip("this user may write everywhere")
    seconds, *trouble = output(start(SCALE + "print(compiler.cache_trouble())", parent / "cache"))
    assert float(seconds) > 0
    assert trouble[0].startswith(str(parent / "cache"))
    assert "cannot be written" in " ".join(trouble)
    assert "NUMBA_CACHE_DIR names another directory" in " ".join(trouble)


def test_a_user_without_a_home_gets_no_directory_called_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiler.platformdirs, "user_cache_path", lambda name: Path("~/.cache") / name)
    compiler.cache_trouble.cache_clear()
    try:
        assert "home directory" in str(compiler.cache_trouble())
        assert compile_anew().seconds > 0
    finally:
        compiler.cache_trouble.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_the_cache_alone(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    compile_anew()
    shutil.rmtree(empty_cache)
    compiler.cache_directory().mkdir(parents=True)
    monkeypatch.setattr(compiler.os, "fdopen", full)
    assert compile_anew().seconds > 0
    assert files_of(empty_cache) == []


def test_an_installation_is_never_written_to(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "xpconv", tmp_path / "xpconv", ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    before = [path for path in (tmp_path / "xpconv").rglob("*") if path.chmod(0o555 if path.is_dir() else 0o444) is None]
    (tmp_path / "xpconv").chmod(0o555)
    where = "print(compiler.__file__)\n"
    cache, settings = tmp_path / "cache", {"path": tmp_path, "PYTHONDONTWRITEBYTECODE": ""}
    assert output(start(where + SCALE, cache, **settings))[0].startswith(str(tmp_path))
    assert float(output(start(SCALE, cache, **settings))[0]) == 0
    written = set((tmp_path / "xpconv").rglob("*")) - set(before)
    for path in before:
        path.chmod(0o755)
    (tmp_path / "xpconv").chmod(0o755)
    assert {path.name for path in written if path.suffix != ".pyc"} <= {"__pycache__"}


def test_directories_of_other_sources_are_forgotten_when_they_are_old(empty_cache: Path) -> None:
    parent = compiler.cache_directory().parent
    for name, days in (("old", 31), ("recent", 29)):
        (parent / name).mkdir(parents=True)
        (parent / name / "kernel.bin").write_bytes(b"")
        moment = compiler.time.time() - days * 86400
        os.utime(parent / name, (moment, moment))
    assert compiler.cache_trouble() is None
    assert {path.name for path in parent.iterdir()} == {"recent", compiler.cache_directory().name}


@pytest.mark.parametrize(("spent", "told"), [(0.9, False), (1.1, True)])
def test_compiling_is_told_once_when_it_takes_longer_than_a_second(cache: Path, spent: float, told: bool) -> None:
    program = f"""
import types
compiler.time = types.SimpleNamespace(perf_counter=lambda: 0.0, time=compiler.time.time)  # what is compiled takes no time
compiler._seconds, compiler._told = {spent}, False
for real in (samples.numba.float32, samples.numba.float64):
    samples.scale_kernel.__wrapped__(real).address
    samples.sum_kernel.__wrapped__(real).address
print("computed")
"""
    process = start(program, cache / "a new one each time" / str(spent))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "computed\n"), err
    assert err.count("\n") == told
    if told:
        assert err.startswith("xpconv: compiling the kernels of the numba device")
        assert str(cache / "a new one each time") in err
        assert "xpconv doctor --compile" in err


def test_nobody_who_reads_standard_error_is_no_reason_to_fail(cache: Path) -> None:
    close = "import sys; sys.stderr.close(); compiler._seconds, compiler._told = 2.0, False\n"
    process = start(close + SCALE, cache / "closed")
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert float(out) > 2


def test_a_kernel_that_was_interrupted_while_it_was_compiled_is_compiled_later(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = samples.scale_kernel.__wrapped__(numba.float64)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(compiler, "_compile_and_tell", lambda compile_function: (_ for _ in ()).throw(KeyboardInterrupt))
        kernel.address  # noqa: B018
    assert kernel.address
    assert kernel.seconds > 0
    assert kernel in compiler.compiled_functions()


# ----------------------------------------------------------------------------------------------------------------------
# Processors
# ----------------------------------------------------------------------------------------------------------------------


def assert_vector_code_is_right() -> None:
    """Hold the intrinsics to NumPy in all dtypes and shapes: small integers, of which every sum is exact."""
    random = np.random.default_rng(0)
    tiles = [(intrinsics.TILE_ROWS_1, 1), (intrinsics.TILE_ROWS_2, 2), (intrinsics.TILE_ROWS_3, 3), (1, 1), (2, 3)]
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        lanes = target.lanes(dtype)
        for rows, vectors in tiles:
            width = vectors * lanes
            for depth in (0, 1, 7):
                a = random.integers(-9, 10, 500).astype(dtype)
                a_rows, a_steps = random.integers(0, 200, rows), random.integers(0, 200, depth)
                b = random.integers(-9, 10, (depth + 1, width + 3)).astype(dtype)
                many = random.integers(-9, 10, (rows, width + 1)).astype(dtype)
                expected = a[a_rows[:, None] + a_steps].astype(np.float64) @ b[:depth, :width]
                for start in (many, many[0]):
                    c = np.full((rows, width + 5), 77, dtype)
                    samples.product(a, a_rows, a_steps, b, start, c, vectors)
                    np.testing.assert_array_equal(c[:, :width], expected + start[..., :width], str((dtype, rows, vectors)))
                    assert (c[:, width:] == 77).all()
        source, result = random.standard_normal((lanes, lanes + 3)).astype(dtype), np.full((lanes, lanes + 5), 77, dtype)
        samples.transpose(source, result)
        np.testing.assert_array_equal(result[:, :lanes], source[:, :lanes].T)
        assert (result[:, lanes:] == 77).all()


def test_vector_code_is_right() -> None:
    assert_vector_code_is_right()


def test_infinity_and_nan_keep_their_meaning_in_tiles() -> None:
    lanes = target.lanes(np.dtype(np.float32))
    a, b = np.array([0.0, 1.0], np.float32), np.full((1, lanes), np.inf, np.float32)
    c = np.zeros((2, lanes), np.float32)
    samples.product(a, np.array([0, 1]), np.array([0]), b, np.zeros(lanes, np.float32), c, 1)
    assert np.isnan(c[0]).all()
    assert (c[1] == np.inf).all()


@pytest.mark.skipif(not IS_X86, reason="the names of processors below are of x86-64")
@pytest.mark.parametrize(("name", "width"), [("generic", 16), ("haswell", 32)])
def test_code_for_a_processor_that_is_named(cache: Path, name: str, width: int) -> None:
    if width > target.vector_bytes():
        pytest.skip("this processor cannot run the code")
    program = """
import test_numba_runtime as tests
tests.assert_vector_code_is_right()
x = np.random.default_rng(0).standard_normal(10001)
assert (samples.scale(x, 0.5, 3) == x / 2).all()
assert abs(samples.sum_up(x, 3) - x.sum()) < 1e-9
print(tests.target.vector_bytes(), tests.target.lanes(np.dtype(np.float64)))
"""
    assert output(start(program, cache, NUMBA_CPU_NAME=name)) == [str(width), str(width // 8)]


# ----------------------------------------------------------------------------------------------------------------------
# Threads
# ----------------------------------------------------------------------------------------------------------------------


def test_every_worker_computes_its_share_once() -> None:
    random = np.random.default_rng(0)
    for workers in (1, 2, 3, 5, 2):
        for size in (0, 1, 4, 10007):
            x = random.standard_normal(size)
            np.testing.assert_array_equal(samples.scale(x, -3.0, workers), x * -3.0)


def test_the_number_of_threads_is_numbas(cache: Path) -> None:
    program = """
import numba
x = np.random.default_rng(0).standard_normal(100003).astype(np.float32)
def bits():
    sums = {samples.sum_up(x).hex() for _ in range(50)}
    assert len(sums) == 1, sums
    return sums.pop()
print(threads.thread_count(), bits())
if threads.thread_count() > 2:
    numba.set_num_threads(2)
    print(threads.thread_count(), bits(), samples.sum_up(x, 2).hex())
"""
    one = output(start(program, cache, NUMBA_NUM_THREADS="1"))
    three = output(start(program, cache, NUMBA_NUM_THREADS="3"))
    assert one[0] == "1"
    assert (three[0], three[2]) == ("3", "2")
    assert three[3] == three[4]
    assert len({one[1], three[1], three[3]}) == 3  # the bits do depend on it, and so the test above can fail
    assert output(start(program, cache, NUMBA_NUM_THREADS="3")) == three


@pytest.mark.parametrize("layer", ["tbb", "nonsense"])
def test_a_threading_layer_of_numba_that_is_missing_is_not_missed(cache: Path, layer: str) -> None:
    program = "print(threads.thread_count())\n" + SCALE
    assert output(start(program, cache, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2"))[0] == "2"


def test_python_threads_compute_at_once() -> None:
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(20011) for _ in range(8)]
    expected = [(x * 2, samples.sum_up(x, 3)) for x in arrays]

    def compute(number: int) -> bool:
        x = arrays[number % 8]
        twice, total = samples.scale(x, 2.0, 3), samples.sum_up(x, 3)
        return np.array_equal(twice, expected[number % 8][0]) and total == expected[number % 8][1]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(compute, range(400)))


@needs_fork
def test_a_forked_child_computes(cache: Path) -> None:
    program = """
import multiprocessing, os, signal, threading
x = np.random.default_rng(0).standard_normal(100003)
expected = samples.sum_up(x, 3)
busy, stop = threading.Event(), threading.Event()
def compute():
    while not stop.is_set():
        samples.sum_up(x, 3)
        busy.set()
other = threading.Thread(target=compute)
other.start()
busy.wait()
for _ in range(10):  # while another thread of the parent computes
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = all(samples.sum_up(x, 3) == expected for _ in range(5))
        started = sum(thread.name.startswith("xpconv-numba") for thread in threading.enumerate())
        os._exit(0 if same and started == 2 else 3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
other.join()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.starmap(samples.sum_up, [(x, 3)] * 20) == [expected] * 20)
print(samples.sum_up(x, 3) == expected)
"""
    assert output(start(program, cache, "-W", "ignore::DeprecationWarning")) == ["0"] * 10 + ["True"] * 2


@needs_timer
def test_ctrl_c_waits_for_the_threads_that_still_write(cache: Path) -> None:
    # Also where the calling thread is done long before the others, and where it is pressed again and again.
    program = """
import signal
in_work = False
def pressed(number, frame):
    if in_work:
        raise KeyboardInterrupt
signal.signal(signal.SIGALRM, pressed)
x = np.arange(1000.0)
samples.work(np.zeros(3, np.int64), 1, 1)
for first, others in ((10**8, 2 * 10**8), (2 * 10**8, 1), (1, 2 * 10**8)):
    for again in (0, 0.02):
        done = np.zeros(3, np.int64)
        interrupted = False
        try:
            in_work = True
            signal.setitimer(signal.ITIMER_REAL, 0.03, again)
            samples.work(done, first, others)
        except KeyboardInterrupt:
            in_work, interrupted, finished = False, True, (done != 0).all()
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(interrupted, finished, (samples.scale(x, 0.5, 3) == x / 2).all(), threads._pool.lock.locked())
"""
    assert output(start(program, cache)) == ["True", "True", "True", "False"] * 6


@needs_timer
def test_a_signal_handler_computes_while_its_thread_computes(cache: Path) -> None:
    program = """
import signal
x = np.random.default_rng(0).standard_normal(100003)
expected = samples.sum_up(x, 3)
results = []
signal.signal(signal.SIGALRM, lambda number, frame: results.append(samples.sum_up(x, 3) == expected))
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
done = np.zeros(3, np.int64)
samples.work(done, 1, 2 * 10**8)
while len(results) < 20:
    results.append(samples.sum_up(x, 3) == expected)
signal.setitimer(signal.ITIMER_REAL, 0)
print(all(results), (done != 0).all())
"""
    assert output(start(program, cache)) == ["True", "True"]


@pytest.mark.parametrize("used", [True, False])
def test_the_end_of_a_process_ends_its_threads(cache: Path, used: bool) -> None:
    # What is registered to run at the end runs in reverse order. By then Python starts no threads any more.
    program = f"""
import atexit
def at_end():
    print([thread.is_alive() for thread in pool.threads])
    x = np.arange(1000.0)
    print((samples.scale(x, 0.5, 3) == x / 2).all())
atexit.unregister(threads._close)
atexit.register(at_end)
atexit.register(threads._close)
pool = threads._pool
if {used}:
    samples.scale(np.arange(1000.0), 0.5, 3)
print([thread.is_alive() for thread in pool.threads])
"""
    living, ended = ("[True, True]", "[False, False]") if used else ("[]", "[]")
    assert "".join(output(start(program, cache))) == f"{living}{ended}True".replace(" ", "")


def test_a_system_that_refuses_threads_gets_the_work_done_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(1000.0)
    samples.scale(x, 0.5, 2)

    def refuse(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    workers = len(threads._pool.threads) + 2
    with monkeypatch.context() as patch:
        patch.setattr(threads.threading.Thread, "start", refuse)
        for _ in range(2):
            np.testing.assert_array_equal(samples.scale(x, 0.5, workers), x / 2)
    np.testing.assert_array_equal(samples.scale(x, 0.5, workers), x / 2)
    assert len(threads._pool.threads) == len(threads._pool.bells) == workers - 1


# ----------------------------------------------------------------------------------------------------------------------
# Memory
# ----------------------------------------------------------------------------------------------------------------------


def test_borrowed_memory_is_aligned_and_used_again() -> None:
    with borrowed(1000) as first, borrowed(1000) as second:
        assert first % 64 == second % 64 == 0
        assert abs(first - second) >= 1000
    with borrowed(1000) as again:
        assert again in (first, second)


def test_the_address_is_that_of_the_first_element() -> None:
    x = np.arange(10, dtype=np.int64)
    assert address(x[3:]) - address(x) == 3 * 8
