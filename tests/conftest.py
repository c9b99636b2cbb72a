"""Fixtures and helpers that the whole suite stands on.

The suite runs on every device that works on this machine: a test that takes ``device`` is repeated for each of them.
``pytest -k numpy`` picks one; ``HYPOTHESIS_PROFILE=explore pytest`` looks for new examples, and for many more of them.
``PYTHONPATH=tests/stand_in pytest -k cuda`` runs on the ``cuda`` device without a card: on a stand-in for CuPy.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import xpconv as xc
from xpconv import availability
from xpconv import device as devices
from xpconv.kernels.cuda import runtime

Array = np.ndarray[Any, np.dtype[Any]]

# ----------------------------------------------------------------------------------------------------------------------
# What the tests are repeated for
# ----------------------------------------------------------------------------------------------------------------------

DEVICES = [status.name for status in xc.devices() if status.available]

# The fixtures live as long as the session since hypothesis does not allow shorter ones: all three are constants.


@pytest.fixture(scope="session", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Name of each device that can be used here."""
    return str(request.param)


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    """Each dtype that every device computes in."""
    return np.dtype(request.param)


@pytest.fixture(scope="session", params=["channels_first", "channels_last"])
def data_format(request: pytest.FixtureRequest) -> str:
    """Each order of the axes."""
    return str(request.param)


@pytest.fixture(autouse=True, scope="session")
def _compiling_is_not_told() -> None:
    """Keep off standard error, where tests look for errors, that kernels are being compiled."""
    if "numba" in DEVICES:
        importlib.import_module("xpconv.kernels.numba.compiler").keep_quiet()


# ----------------------------------------------------------------------------------------------------------------------
# With a card, and without
# ----------------------------------------------------------------------------------------------------------------------

STAND_IN = Path(__file__).parent / "stand_in"
collect_ignore = [str(STAND_IN)]  # what lies there is imported as cupy by nobody but the tests that ask for it


def _forget_devices() -> None:
    for remembered in (devices._device_of, availability._compile_probe, runtime._card):
        remembered.cache_clear()


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in for CuPy with two cards, on which the simulator computes."""
    if not xc.cudasim.status()[0]:
        pytest.skip("the simulator has no compiler here")
    for name in _modules_of_cupy():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(STAND_IN)
    _forget_devices()
    module = importlib.import_module("cupy")
    importlib.import_module("cupyx")
    yield module
    for name in _modules_of_cupy():
        del sys.modules[name]
    _forget_devices()


def _modules_of_cupy() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx")]


@pytest.fixture
def without_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Python that has no CuPy, and so no device ``cuda``."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    _forget_devices()
    yield
    _forget_devices()


# ----------------------------------------------------------------------------------------------------------------------
# Chance: the same in every run
# ----------------------------------------------------------------------------------------------------------------------

settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that draws the same numbers in every run."""
    return np.random.default_rng(20240229)


@pytest.fixture
def smallest_parts(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a device that cuts its work into parts of a certain size cut it as small as it can: a row, or an image.

    And let all threads take part, however little there is to do.
    """
    if device == "numpy":
        for module in ("conv2d", "fused", "windows"):
            monkeypatch.setattr(f"xpconv.kernels.numpy.{module}.CHUNK_BYTES", 1)
    if device == "numba":
        yield from smallest_numba_parts(monkeypatch)
    else:
        yield


def smallest_numba_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As :func:`smallest_parts`, for a fixture of tests that know only this device."""
    modules = [importlib.import_module(f"xpconv.kernels.numba.{name}") for name in NUMBA_PARTS]
    for module, names in zip(modules, NUMBA_PARTS.values(), strict=True):
        for name in names:
            monkeypatch.setattr(module, name, 1)
    plans = [value for module in modules for value in vars(module).values() if _remembers_plans(value)]
    assert plans
    for plan in plans:
        plan.cache_clear()
    yield
    for plan in plans:
        plan.cache_clear()


# What decides the size of the parts, and whether threads take part, in each file of the numba device.
NUMBA_PARTS = {
    "conv2d": (),
    "correlation": ("BAND_BYTES", "UNIT_PIXELS", "SMALL_WEIGHT"),
    "elementwise": ("SMALL", "SOFTMAX_BYTES"),
    "fused": ("CHUNK_BYTES",),
    "im2col": ("SMALL",),
    "narrow": ("BAND_BYTES", "SUMS_BYTES", "SMALL_WORK"),
    "pool2d": ("ELEMENTS_WORTH_A_THREAD",),
    "weight_gradient": ("SUMS_BYTES", "SMALL"),
    "winograd": ("UNIT_BYTES", "SMALL_WEIGHT"),
}


def _remembers_plans(value: object) -> bool:
    # Kernels are remembered for good, plans as long as there is room for them.
    parameters = getattr(value, "cache_parameters", None)
    return parameters is not None and parameters()["maxsize"] is not None


@pytest.fixture(autouse=True)
def _global_seed() -> Iterator[None]:
    """Let code that draws from NumPy's global generator draw the same numbers, whichever tests ran before."""
    state = np.random.get_state()
    np.random.seed(20240229)
    yield
    np.random.set_state(state)


def normal(seed: int, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """Normally distributed numbers that float32 holds exactly, so that no dtype starts with a rounding error."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Comparing
# ----------------------------------------------------------------------------------------------------------------------


class Tolerance(NamedTuple):
    """Largest error allowed: ``atol + rtol * abs(expected)``."""

    rtol: float
    atol: float


TOLERANCES = {
    np.dtype(np.float32): Tolerance(rtol=1e-5, atol=1e-5),
    np.dtype(np.float64): Tolerance(rtol=1e-13, atol=1e-13),
}


def tolerances(dtype: Any) -> Tolerance:
    """The error that sums of some dozens of terms of size 1 may carry in this dtype."""
    return TOLERANCES[np.dtype(dtype)]


def assert_close(actual: Any, expected: Any, dtype: Any, *, terms: int = 1) -> None:
    """Fail unless ``actual`` is of this dtype and of ``expected``'s shape, and every entry is near enough.

    NaN is equal to NaN alone, and an infinity to itself alone.

    Args:
        actual: What the library gave, on any device.
        expected: What it should have given, as a rule in float64.
        dtype: The dtype that ``actual`` must have; it decides the tolerance.
        terms: Number of terms in each sum, where there are thousands: the tolerance grows with the square root of it,
            as the sum itself and its rounding error do.
    """
    __tracebackhide__ = True
    actual, expected = xc.to_numpy(actual), np.asarray(expected)
    assert actual.dtype == np.dtype(dtype), f"dtype {actual.dtype}, expected {np.dtype(dtype)}"
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    rtol, atol = tolerances(dtype)
    with np.errstate(invalid="ignore"):
        error = np.abs(actual.astype(np.float64) - expected)
        allowed = np.sqrt(terms) * (atol + rtol * np.abs(expected))
        near = np.isfinite(actual) & np.isfinite(expected) & (error <= allowed)
        good = near | (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    if good.all():
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        badness = np.where(good, -1.0, np.nan_to_num(error / allowed, nan=np.inf))
    worst = tuple(int(at) for at in np.unravel_index(np.argmax(badness), badness.shape))
    pytest.fail(
        f"{np.count_nonzero(~good)} of {good.size} entries differ; the worst is [{', '.join(map(str, worst))}]: "
        f"{actual[worst]!r}, expected {expected[worst]!r}, error {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
    )


# ----------------------------------------------------------------------------------------------------------------------
# Calling
# ----------------------------------------------------------------------------------------------------------------------


def call(function: Callable[..., Any], *arguments: Any, device: str, **options: Any) -> Any:
    """Call a public function on a device, with every array among ``arguments`` moved there, and bring the result back.

    Also holds the function to what it always owes: it changes no input, not even for a while in the gaps of a view, and
    its results are memory of their own that the caller may write to.
    """
    __tracebackhide__ = True
    moved = [xc.asarray(a, device=device) if isinstance(a, np.ndarray) else a for a in arguments]
    arrays = [a for a in moved if hasattr(a, "dtype")]
    before = [_bytes(a) for a in arrays]
    result = function(*moved, device=device, **options)
    for number, (array, content) in enumerate(zip(arrays, before, strict=True)):
        assert _bytes(array) == content, f"{function.__name__} changed its array argument number {number}"
    results = [xc.to_numpy(part) for part in (result if isinstance(result, tuple) else (result,))]
    for part in results:
        assert part.flags.writeable, f"{function.__name__} gave a read-only result"
        for array in arrays:
            assert not (isinstance(array, np.ndarray) and np.may_share_memory(part, array)), (
                f"{function.__name__} gave a view of its input"
            )
    return tuple(results) if isinstance(result, tuple) else results[0]


def _bytes(array: Any) -> bytes:
    whole = array
    while isinstance(getattr(whole, "base", None), type(array)):
        whole = whole.base
    return xc.to_numpy(array).tobytes() + xc.to_numpy(whole).tobytes()


# ----------------------------------------------------------------------------------------------------------------------
# Arrays in unusual memory, and windows of all kinds
# ----------------------------------------------------------------------------------------------------------------------


def _every_other(x: Array) -> Array:
    base = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan if x.dtype.kind == "f" else 7, x.dtype)
    base[..., 1::2] = x
    return base[..., 1::2]


def _backwards(x: Array) -> Array:
    reverse = (slice(None, None, -1),) * x.ndim
    return x[reverse].copy()[reverse]


def _other_axis_order(x: Array) -> Array:
    return np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)


def _read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def _big_endian(x: Array) -> Array:
    return x.astype(x.dtype.newbyteorder(">"))


def _unaligned(x: Array) -> Array:
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


MEMORY_LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran order": np.asfortranarray,
    "other axis order": _other_axis_order,
    "every other entry": _every_other,
    "negative strides": _backwards,
    "read-only": _read_only,
    "big-endian": _big_endian,
    "unaligned": _unaligned,
}
"""Ways to store an array so that its entries stay what they are."""


class WindowCase(NamedTuple):
    """An image size and a window that fits into the padded image."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    options: dict[str, Any]  # stride, padding and, where asked for, dilation


@st.composite
def window_cases(draw: st.DrawFn, *, dilated: bool = True) -> WindowCase:
    """Windows of all kinds: every form of every option, from the smallest image that holds the window upwards."""

    def number_or_pair(low: int, high: int) -> st.SearchStrategy[Any]:
        return st.integers(low, high) | st.tuples(st.integers(low, high), st.integers(low, high))

    def of_axis(option: Any, axis: int) -> Any:
        return option[axis] if isinstance(option, tuple) else option

    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(number_or_pair(1, 4))
    dilation = draw(number_or_pair(1, 3)) if dilated else 1
    asymmetric = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2)
    padding = draw(st.sampled_from(["same", "valid"]) | number_or_pair(0, 3) | asymmetric)
    size = []
    for axis in (0, 1):
        span = of_axis(dilation, axis) * (kernel[axis] - 1) + 1
        if padding == "same":
            pads = span
        elif padding == "valid":
            pads = 0
        else:
            of_this_axis = of_axis(padding, axis)
            pads = sum(of_this_axis) if isinstance(of_this_axis, tuple) else 2 * of_this_axis
        size.append(max(1, span - pads) + draw(st.integers(0, 6)))
    options = {"stride": stride, "padding": padding}
    if dilated:
        options["dilation"] = dilation
    return WindowCase((size[0], size[1]), kernel, options)
