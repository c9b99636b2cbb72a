"""What only a card can tell: ``pytest -m gpu``. Without one every test here is skipped, and says why.

The public suite runs on a card, too, where there is one: ``pytest -k cuda``. Here are all dtypes in sizes that fill a card,
streams, waiting, several cards, arrays beyond 32 bits, memory that runs out, training, and PyTorch with cuDNN beside it.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import test_card_layers as front_end

import xpconv as xc
from xpconv.bench import runner, settings
from xpconv.kernels.cuda import runtime
from xpconv.scratch import optimizer as book

pytestmark = pytest.mark.gpu

Array = Any
LAYOUTS = ("channels_first", "channels_last")
# What rounding to a dtype changes of a number of size 1, at most.
ROUNDING = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}
PATIENCE = 60.0  # seconds, for what should take none
GIGABYTE = 1 << 30


@pytest.fixture(scope="module", autouse=True)
def cupy() -> Any:
    """CuPy; a card that is there but cannot be used is a failure, no reason to skip."""
    (status,) = [status for status in xc.devices() if status.name == "cuda"]
    if not status.available:
        told = f"{status.reason}; {status.remedy}"
        cards = Path("/proc/driver/nvidia/gpus")
        if cards.is_dir() and any(cards.iterdir()) and importlib.util.find_spec("cupy") is not None:
            pytest.fail(f"there is a card here that cannot be used: {told}")
        pytest.skip(told)
    return importlib.import_module("cupy")


@pytest.fixture(autouse=True)
def _nothing_left(cupy: Any) -> Iterator[None]:
    """An error that a test leaves behind on the card belongs to that test."""
    yield
    cupy.cuda.Device(0).synchronize()


@pytest.fixture(params=LAYOUTS)
def data_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(ROUNDING))
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(request.param)


def normal(seed: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype)


def on_card(*arrays: Array, card: int = 0) -> list[Any]:
    return [xc.asarray(array, device=f"cuda:{card}") for array in arrays]


def check(actual: Any, expected: Array, dtype: Any, terms: int = 1) -> None:
    """Compare a result on a card with what it is in float64, a sum of so many products of normally distributed numbers.

    Sums are rounded in float at least, term by term; the result once, to its dtype.
    """
    __tracebackhide__ = True
    assert actual.dtype == dtype
    assert type(actual).__module__.partition(".")[0] == "cupy"
    sums = min(ROUNDING[np.dtype(dtype).name], ROUNDING["float32"])
    size = math.sqrt(terms)
    atol = 8 * size * math.sqrt(terms) * sums + 1e-3 * size * ROUNDING[np.dtype(dtype).name]
    rtol = 2 * ROUNDING[np.dtype(dtype).name]
    np.testing.assert_allclose(xc.to_numpy(actual).astype(np.float64), expected, rtol=rtol, atol=atol)


def wide(*arrays: Array) -> list[Array]:
    return [array.astype(np.float64) for array in arrays]


# ----------------------------------------------------------------------------------------------------------------------
# Values: small against naive loops, large against the numpy device in float64
# ----------------------------------------------------------------------------------------------------------------------

SMALL: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "3x3": ((2, 5, 9, 8), (6, 5, 3, 3), {"padding": 1}),
    "odd": ((3, 6, 10, 7), (9, 2, 3, 2), {"groups": 3, "stride": (3, 2), "padding": ((2, 0), (1, 3)), "dilation": (2, 1)}),
    "depthwise": ((2, 4, 8, 9), (8, 1, 3, 3), {"groups": 4, "padding": "same"}),
    "one channel": ((4, 1, 12, 12), (5, 1, 5, 5), {}),
    "empty": ((0, 3, 6, 6), (4, 3, 3, 3), {}),
}
LARGE: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "MNIST": ((100, 1, 28, 28), (30, 1, 5, 5), {}),
    "3x3": ((16, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    "1x1": ((16, 256, 28, 28), (64, 256, 1, 1), {}),
    "stride 2": ((8, 64, 57, 55), (130, 64, 3, 3), {"stride": 2, "padding": 1}),
    "RGB": ((4, 3, 112, 112), (64, 3, 7, 7), {"stride": 2, "padding": 3}),
    "depthwise": ((16, 64, 56, 56), (64, 1, 3, 3), {"groups": 64, "padding": 1}),
    "groups, dilation": ((5, 48, 31, 33), (72, 12, 3, 3), {"groups": 4, "padding": 2, "dilation": 2}),
}


def convolve(shapes: tuple[Any, ...], dtype: Any, data_format: str, expected_by: Any, how: dict[str, Any]) -> None:
    x_shape, w_shape, options = shapes
    options = {**options, "data_format": data_format}
    x = reference.from_channels_first(normal(1, x_shape, dtype), data_format)
    w = reference.weight_from_channels_first(normal(2, w_shape, dtype), data_format)
    b = normal(3, w_shape[:1], dtype)
    x64, w64, b64 = wide(x, w, b)
    y = expected_by.conv2d(x64, w64, b64, **options, **how)
    dy = normal(4, y.shape, dtype)
    dx = expected_by.conv2d_backward_input(dy.astype(np.float64), w64, x.shape, **options, **how)
    dw, db = expected_by.conv2d_backward_weight(x64, dy.astype(np.float64), w.shape, **options, **how)
    terms = math.prod(w_shape[1:])
    pixels = max(1, y.size // w_shape[0])
    x, w, b, dy = on_card(x, w, b, dy)
    check(xc.conv2d(x, w, b, **options), y, dtype, terms + 1)
    check(xc.conv2d_backward_input(dy, w, x.shape, **options), dx, dtype, math.prod(w_shape[2:]) * w_shape[0])
    gradient, bias_gradient = xc.conv2d_backward_weight(x, dy, w.shape, **options)
    check(gradient, dw, dtype, pixels)
    check(bias_gradient, db, dtype, pixels)


@pytest.mark.parametrize("case", SMALL)
def test_small_convolutions(case: str, dtype: Any, data_format: str) -> None:
    convolve(SMALL[case], dtype, data_format, reference, {})


@pytest.mark.parametrize("case", LARGE)
def test_large_convolutions(case: str, dtype: Any, data_format: str) -> None:
    convolve(LARGE[case], dtype, data_format, xc, {"device": "numpy"})


@pytest.mark.parametrize(
    "window", [(2, {"stride": 2}), (3, {"stride": 2, "padding": 1}), ((3, 2), {"stride": 1, "dilation": 2})], ids=str
)
def test_pooling(window: Any, dtype: Any, data_format: str) -> None:
    size, options = window
    options = {**options, "data_format": data_format}
    x = reference.from_channels_first(np.round(normal(1, (6, 9, 29, 31)), 1).astype(dtype), data_format)  # with ties
    x.flat[5] = np.nan
    expected, winners = xc.max_pool2d(x.astype(np.float64), size, return_indices=True, device="numpy", **options)
    dy = normal(2, expected.shape, dtype)
    card_x, card_dy = on_card(x, dy)
    y, indices = xc.max_pool2d(card_x, size, return_indices=True, **options)
    np.testing.assert_array_equal(xc.to_numpy(y).astype(np.float64), expected)
    np.testing.assert_array_equal(xc.to_numpy(indices), winners)
    dx = xc.max_pool2d_backward(dy.astype(np.float64), winners, x.shape, size, device="numpy", **options)
    check(xc.max_pool2d_backward(card_dy, indices, x.shape, size, **options), dx, dtype, 4)
    if "dilation" not in options:
        x.flat[5] = 0
        (card_x,) = on_card(x)
        mean = xc.avg_pool2d(x.astype(np.float64), size, device="numpy", **options)
        check(xc.avg_pool2d(card_x, size, **options), mean, dtype)
        spread = xc.avg_pool2d_backward(dy.astype(np.float64), x.shape, size, device="numpy", **options)
        check(xc.avg_pool2d_backward(card_dy, x.shape, size, **options), spread, dtype)


def test_nan_and_infinity_go_where_they_go_on_the_other_devices(data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (2, 3, 7, 7)), data_format)
    w = reference.weight_from_channels_first(normal(2, (4, 3, 3, 3)), data_format)
    w.flat[7], x.flat[20] = np.inf, np.nan
    options = {"padding": 1, "stride": 2, "data_format": data_format}
    with np.errstate(invalid="ignore"):
        expected = xc.conv2d(x, w, device="numpy", **options)
        dy = normal(3, expected.shape)
        backward = xc.conv2d_backward_input(dy, w, x.shape, device="numpy", **options)
    card_x, card_w, card_dy = on_card(x, w, dy)
    for actual, right in (
        (xc.conv2d(card_x, card_w, **options), expected),
        (xc.conv2d_backward_input(card_dy, card_w, x.shape, **options), backward),
    ):
        np.testing.assert_allclose(xc.to_numpy(actual), right, rtol=1e-5, atol=1e-5)
    assert np.isnan(expected).any()
    assert not np.isfinite(backward).all()


def test_the_same_bits_every_time(dtype: Any, data_format: str) -> None:
    x = reference.from_channels_first(normal(1, (32, 16, 30, 30), dtype), data_format)
    w = reference.weight_from_channels_first(normal(2, (24, 16, 3, 3), dtype), data_format)
    x, w = on_card(x, w)

    def gradients() -> list[bytes]:
        y = xc.conv2d(x, w, data_format=data_format)
        dw, db = xc.conv2d_backward_weight(x, y, w.shape, data_format=data_format)
        dx = xc.conv2d_backward_input(y, w, x.shape, data_format=data_format)
        return [array.tobytes() for array in (y, dx, dw, db)]

    first = gradients()
    assert all(gradients() == first for _ in range(5))


def test_no_kernel_that_ran_has_local_memory(cupy: Any) -> None:
    """What the compiler's output says without a card, the driver says, too."""
    x, w = on_card(normal(1, (8, 64, 28, 28)), normal(2, (64, 64, 3, 3)))
    y = xc.conv2d(x, w, padding=1)
    xc.conv2d_backward_weight(x, y, w.shape, padding=1)
    kernels = runtime.runtime_of(x)._kernels
    assert kernels
    assert {name: kernel.attributes["local_size_bytes"] for name, kernel in kernels.items()} == dict.fromkeys(kernels, 0)


# ----------------------------------------------------------------------------------------------------------------------
# Streams, and waiting
# ----------------------------------------------------------------------------------------------------------------------


class Blocked:
    """A stream in which nothing happens until it is let go on; who waits for it before fails instead of hanging."""

    def __init__(self, cupy: Any) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.gate = threading.Event()
        self.expired = False

    def block(self) -> None:
        self.gate.clear()
        self.stream.launch_host_func(self._wait, None)

    def _wait(self, _: object) -> None:
        self.expired = not self.gate.wait(PATIENCE)

    def let_go_on(self) -> None:
        assert not self.stream.done, "the host waited for the card"
        self.gate.set()
        self.stream.synchronize()
        assert not self.expired, "the host waited for the card"


def without_waiting(cupy: Any, work: Callable[[], Any]) -> Any:
    """Do some work in a stream of its own; after some rounds nothing may wait, for then that stream does not go on."""
    blocked = Blocked(cupy)
    with blocked.stream:
        for _ in range(3):  # they compile, and get the memory that the next one uses again
            work()
        blocked.stream.synchronize()
        blocked.block()
        result = work()
    blocked.let_go_on()
    return result


def test_the_callers_stream_computes(cupy: Any) -> None:
    x, w = normal(1, (64, 16, 28, 28)), normal(2, (32, 16, 3, 3))
    expected = xc.conv2d(x.astype(np.float64), w.astype(np.float64), device="numpy")
    card_x, card_w = on_card(np.zeros_like(x), w)
    (arriving,) = on_card(x)
    cupy.cuda.Device(0).synchronize()

    def work() -> Any:
        card_x.fill(0)
        card_x[...] = arriving  # later than any other stream would read it
        return xc.conv2d(card_x, card_w)

    check(without_waiting(cupy, work), expected, np.float32, 16 * 9 + 1)


@pytest.mark.parametrize(
    "optimizer",
    [
        *(rule(0.1) for rule in (book.SGD, book.Momentum, book.Nesterov, book.AdaGrad, book.RMSprop, book.Adam)),
        xc.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=1.0),
        xc.Adam(0.1, amsgrad=True, clipvalue=0.1),
        xc.AdamW(xc.optimizers.schedules.CosineDecay(0.1, 10), global_clipnorm=1.0),
        xc.RMSprop(0.1, momentum=0.5, centered=True),
        xc.Adagrad(0.1),
    ],
    ids=repr,
)
def test_a_training_step_waits_for_nothing(cupy: Any, optimizer: Any) -> None:
    net = xc.SimpleConvNet(device="cuda", seed=0)
    x, t = on_card(normal(1, (100, 1, 28, 28)), np.arange(100) % 10)
    cupy.cuda.Device(0).synchronize()

    def step() -> Any:
        loss, gradients = net.loss_and_gradient(x, t)
        optimizer.update(net.params, gradients, device="cuda")
        return loss

    assert 0 < float(without_waiting(cupy, step)) < 100


def test_pooling_with_its_own_indices_waits_for_nothing(cupy: Any) -> None:
    (x,) = on_card(normal(1, (100, 30, 24, 24)))
    cupy.cuda.Device(0).synchronize()

    def work() -> Any:
        y, indices = xc.max_pool2d(x, 2, return_indices=True)
        return xc.max_pool2d_backward(y, indices, x.shape, 2)

    without_waiting(cupy, work)


def test_two_streams_at_once(cupy: Any) -> None:
    w = normal(2, (16, 8, 3, 3))
    (card_w,) = on_card(w)
    inputs = [normal(seed, (16, 8, 20, 20)) for seed in range(8)]
    cards = on_card(*inputs)
    cupy.cuda.Device(0).synchronize()
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in inputs]
    results = []
    for stream, x in zip(streams, cards, strict=True):
        with stream:
            results.append(xc.conv2d(x, card_w))
    for stream in streams:
        stream.synchronize()
    for x, y in zip(inputs, results, strict=True):
        check(y, xc.conv2d(x.astype(np.float64), w.astype(np.float64), device="numpy"), np.float32, 73)


def test_threads_at_once() -> None:
    x, w = normal(1, (16, 8, 20, 20)), normal(2, (16, 8, 3, 3))
    expected = xc.conv2d(x.astype(np.float64), w.astype(np.float64), device="numpy")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            card_x, card_w = on_card(x, w)
            for _ in range(5):
                check(xc.conv2d(card_x, card_w), expected, np.float32, 73)
        except BaseException as error:  # told by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)


# ----------------------------------------------------------------------------------------------------------------------
# Several cards, much memory, too little of it
# ----------------------------------------------------------------------------------------------------------------------


def test_the_arrays_card_computes_whichever_is_current(cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one card here")
    x, w = normal(1, (8, 4, 20, 20)), normal(2, (6, 4, 3, 3))
    expected = xc.conv2d(x.astype(np.float64), w.astype(np.float64), device="numpy")
    card_x, card_w = on_card(x, w, card=1)
    with cupy.cuda.Device(0):
        y = xc.conv2d(card_x, card_w)
        dx = xc.conv2d_backward_input(y, card_w, card_x.shape)
    assert {array.device.id for array in (y, dx)} == {1}
    check(y, expected, np.float32, 37)
    (elsewhere,) = on_card(w, card=0)
    with pytest.raises(TypeError, match="the arrays live on different devices: cuda:0 and cuda:1"):
        xc.conv2d(card_x, elsewhere)
    with pytest.raises(TypeError, match="device='cuda:0' was named but the arrays live on 'cuda:1'"):
        xc.conv2d(card_x, card_w, device="cuda:0")


def needs_memory(cupy: Any, gigabytes: float) -> None:
    cupy.get_default_memory_pool().free_all_blocks()
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < gigabytes * GIGABYTE:
        pytest.skip(f"needs {gigabytes} GB of the card's memory, {free / GIGABYTE:.1f} are free")


def test_arrays_beyond_32_bits(cupy: Any, data_format: str) -> None:
    """The last images of a batch that int does not reach are what they are when computed alone."""
    needs_memory(cupy, 16)
    shape = reference.from_channels_first(np.empty((1, 16, 512, 512), np.int8), data_format).shape[1:]
    images = 160  # 2.7 GB
    x = cupy.random.default_rng(0).standard_normal((images, *shape), np.float32)
    (w,) = on_card(reference.weight_from_channels_first(normal(2, (16, 16, 3, 3)), data_format))
    assert x.nbytes > 2**31
    options = {"padding": 1, "data_format": data_format}
    y = xc.conv2d(x, w, **options)
    dx = xc.conv2d_backward_input(y, w, x.shape, **options)
    pooled, indices = xc.max_pool2d(x, 2, return_indices=True, data_format=data_format)
    dw, _ = xc.conv2d_backward_weight(x, y, w.shape, **options)
    parts = 0
    for part in (slice(0, 80), slice(80, images)):
        parts = parts + xc.conv2d_backward_weight(x[part], y[part], w.shape, **options)[0].astype(np.float64)
    np.testing.assert_allclose(xc.to_numpy(dw), xc.to_numpy(parts), rtol=1e-4, atol=1e-4 * float(abs(parts).max()))
    for image in (0, images - 1):
        one = slice(image, image + 1)
        alone = xc.conv2d(x[one], w, **options)
        np.testing.assert_allclose(xc.to_numpy(y[one]), xc.to_numpy(alone), rtol=1e-5, atol=1e-4)
        back = xc.conv2d_backward_input(y[one], w, x[one].shape, **options)
        np.testing.assert_allclose(xc.to_numpy(dx[one]), xc.to_numpy(back), rtol=1e-5, atol=1e-3)
        largest, where = xc.max_pool2d(x[one], 2, return_indices=True, data_format=data_format)
        assert (pooled[one] == largest).all()
        assert (indices[one] == where).all()


def test_memory_that_runs_out_is_an_error_and_no_more(cupy: Any) -> None:
    pool = cupy.get_default_memory_pool()
    (x,) = on_card(normal(1, (64, 64, 56, 56)))
    (w,) = on_card(normal(2, (64, 64, 3, 3)))
    expected = xc.to_numpy(xc.conv2d(x, w))
    limit = pool.get_limit()
    pool.set_limit(size=pool.used_bytes() + x.nbytes // 4)
    try:
        pool.free_all_blocks()
        with pytest.raises(MemoryError):
            xc.conv2d(x, w)
    finally:
        pool.set_limit(size=limit)
    np.testing.assert_array_equal(xc.to_numpy(xc.conv2d(x, w)), expected)


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------


def test_simple_convnet_has_the_losses_of_numpy() -> None:
    x, t = normal(1, (400, 1, 28, 28)), np.arange(400) % 10
    losses = {}
    for device in ("numpy", "cuda"):
        net = xc.SimpleConvNet(device=device, seed=0)
        optimizer = xc.Adam(0.001)
        told = []
        for step in range(20):
            batch = slice(step % 4 * 100, step % 4 * 100 + 100)
            loss, gradients = net.loss_and_gradient(xc.asarray(x[batch], device=device), xc.asarray(t[batch], device=device))
            optimizer.update(net.params, gradients, device=device)
            told.append(float(loss))
        losses[device] = told
    np.testing.assert_allclose(losses["cuda"], losses["numpy"], rtol=1e-3)
    assert losses["cuda"][-1] < losses["cuda"][0]


def test_the_trainer(tmp_path: Path) -> None:
    train, test = xc.datasets.load_mnist()
    net = xc.SimpleConvNet(device="cuda", seed=0)
    history = xc.Trainer(net, train, test, epochs=2, optimizer=xc.Adam(0.001), seed=0, progress=False).run()
    assert history["test_accuracy"][-1] > 0.9
    net.save(tmp_path / "trained.safetensors")
    other = xc.SimpleConvNet(device="numpy")
    other.load(tmp_path / "trained.safetensors")
    for name, parameter in net.params.items():
        np.testing.assert_array_equal(xc.to_numpy(parameter), other.params[name])


# ----------------------------------------------------------------------------------------------------------------------
# Layers, losses, metrics and models: the tables are those of the stand-in's tests
# ----------------------------------------------------------------------------------------------------------------------


def moved(array: Any) -> Any:
    return xc.asarray(array, device="cuda")


def close_to(given: Any, expected: Any, rtol: float) -> None:
    __tracebackhide__ = True
    assert type(given).__module__.partition(".")[0] == "cupy"
    assert (given.dtype, given.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(xc.to_numpy(given), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", front_end.LAYERS)
def test_a_layer_gives_what_it_gives_on_numpy(name: str) -> None:
    expected = front_end.forward_and_back(name, front_end.kept, device="numpy")
    given = front_end.forward_and_back(name, moved, device="cuda")
    for part, wanted in zip(given, expected, strict=True):
        close_to(part, wanted, 1e-4)


@pytest.mark.parametrize("name", front_end.ACTIVATIONS)
@pytest.mark.parametrize("values", [front_end.FAR, front_end.ROWS], ids=["far", "near"])
def test_an_activation_gives_what_it_gives_on_numpy(name: str, values: Any) -> None:
    activation = front_end.ACTIVATIONS[name]
    for dtype, rtol in (("float32", 1e-5), ("float64", 1e-12)):
        x = values.astype(dtype)
        dy = np.linspace(-2, 2, x.size).reshape(x.shape).astype(dtype)
        expected = front_end.activated(activation, x, dy, "numpy")
        for part, wanted in zip(front_end.activated(activation, moved(x), moved(dy), "cuda"), expected, strict=True):
            close_to(part, wanted, rtol)


@pytest.mark.parametrize("name", front_end.LOSSES)
@pytest.mark.parametrize("weight", [None, front_end.WEIGHTS], ids=["plain", "weighted"])
def test_a_loss_gives_what_it_gives_on_numpy(name: str, weight: Any) -> None:
    loss, y_true, y_pred = front_end.LOSSES[name]
    value, gradient = loss.value_and_gradient(y_true, y_pred, weight)
    told, given = loss.value_and_gradient(moved(y_true), moved(y_pred), weight)
    assert float(told) == pytest.approx(value, rel=1e-5)
    close_to(given, gradient, 1e-5)


@pytest.mark.parametrize("name", front_end.METRICS)
@pytest.mark.parametrize("weight", [None, front_end.WEIGHTS], ids=["plain", "weighted"])
def test_a_metric_gives_what_it_gives_on_numpy(name: str, weight: Any) -> None:
    make, y_true, y_pred = front_end.METRICS[name]
    assert make()(moved(y_true), moved(y_pred), weight) == pytest.approx(make()(y_true, y_pred, weight), rel=1e-5)


@pytest.mark.parametrize("make", front_end.MODELS.values(), ids=front_end.MODELS)
def test_a_step_of_a_model_waits_for_nothing(cupy: Any, make: Any) -> None:
    model = make("cuda")
    x, labels = on_card(front_end.SAMPLES, front_end.CLASSES)
    loss = xc.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = loss.check(labels, (len(labels), 3))
    cupy.cuda.Device(0).synchronize()

    def step() -> Any:
        value, dy = loss.value_and_gradient(labels, model(x, training=True), checked=True)
        model.backward(dy)
        names = [f"{position}" for position in range(len(model.gradients))]
        params, grads = (dict(zip(names, arrays, strict=True)) for arrays in (model.trainable_weights, model.gradients))
        model.optimizer.update(params, grads)
        return value

    assert 0 < float(without_waiting(cupy, step)) < 100


@pytest.mark.parametrize("make", front_end.MODELS.values(), ids=front_end.MODELS)
def test_fit_has_the_losses_of_numpy(make: Any, tmp_path: Path) -> None:
    samples, classes = front_end.SAMPLES, front_end.CLASSES
    models, histories = [], []
    for device in ("numpy", "cuda"):
        model = make(device)
        history = model.fit(samples, classes, batch_size=16, epochs=3, validation_data=front_end.HELD, verbose=0)
        models.append(model)
        histories.append(history.history)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-3, err_msg=name)
    model = models[1]
    model.save(tmp_path / "model.safetensors")
    again = xc.models.load_model(tmp_path / "model.safetensors", {"Residual": front_end.Residual}, device="numpy")
    scores = model.predict(samples, verbose=0)
    np.testing.assert_allclose(again.predict(samples, verbose=0), scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.to("numpy").predict(samples, verbose=0), scores, rtol=1e-4, atol=1e-5)
    assert model.fit(samples, classes, verbose=0).history["loss"][0] < histories[1]["loss"][0]


# ----------------------------------------------------------------------------------------------------------------------
# Beside cuDNN
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", LARGE)
def test_against_pytorch_with_cudnn(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch finds no card that it can use")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x_shape, w_shape, options = LARGE[case]
    arrays = normal(1, x_shape), normal(2, w_shape), normal(3, w_shape[:1])
    x, w, b = (torch.tensor(array, device="cuda", requires_grad=True) for array in arrays)
    expected = torch.nn.functional.conv2d(x, w, b, **options)
    dy = normal(4, tuple(expected.shape))
    expected.backward(torch.tensor(dy, device="cuda"))
    card_x, card_w, card_b, card_dy = on_card(*arrays, dy)
    dw, db = xc.conv2d_backward_weight(card_x, card_dy, w_shape, **options)
    for actual, right in (
        (xc.conv2d(card_x, card_w, card_b, **options), expected),
        (xc.conv2d_backward_input(card_dy, card_w, x_shape, **options), x.grad),
        (dw, w.grad),
        (db, b.grad),
    ):
        right = right.detach().cpu().numpy()
        np.testing.assert_allclose(xc.to_numpy(actual), right, rtol=1e-4, atol=2e-5 * np.abs(right).max())


def test_the_benchmark_on_a_card() -> None:
    chosen = settings.settings_from(device=["cuda"], workloads="tiny", rounds=2, seconds=0.01, quiet=False)
    report = runner.run(chosen)
    assert report.own_failures() == []
    assert report.machine.card
    assert report.machine.gigabytes_per_second > 10
    for row in report.rows:
        outcome = row.outcomes["xpconv:cuda:0"]
        assert outcome.milliseconds is not None
        assert outcome.milliseconds > 0
