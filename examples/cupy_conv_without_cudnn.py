"""Convolve CuPy arrays without cuDNN: what ``cupyx.cudnn`` did, and on top of it the ``convolve`` of sigpy.

CuPy 14 has no cuDNN any more. With a card this runs on CuPy arrays; without one the simulator runs the same CUDA kernels on
NumPy arrays, so that it can be tried, and tested, anywhere::

    python examples/cupy_conv_without_cudnn.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import xpconv as xc

# ---- a layer, forward and back: conv2d and max_pool2d follow the arrays ------------------------------------------------


def layer_and_its_gradients(xp: Any) -> None:
    """A convolution and a pooling, as a network trains them."""
    random = np.random.default_rng(0)
    x = xp.asarray(random.standard_normal((2, 3, 12, 12)))
    w = xp.asarray(random.standard_normal((4, 3, 3, 3)))
    b = xp.asarray(random.standard_normal(4))

    maps = xc.conv2d(x, w, b, stride=1, padding=1)  # was convolution_forward
    pooled, winners = xc.max_pool2d(maps, 2, return_indices=True)  # was pooling_forward

    def loss(w: Any) -> float:
        return float(0.5 * (xc.max_pool2d(xc.conv2d(x, w, b, padding=1), 2) ** 2).sum())

    dmaps = xc.max_pool2d_backward(pooled, winners, maps.shape, 2)  # was pooling_backward
    dx = xc.conv2d_backward_input(dmaps, w, x.shape, padding=1)  # was convolution_backward_data
    dw, db = xc.conv2d_backward_weight(x, dmaps, w.shape, padding=1)  # was convolution_backward_filter

    print(f"maps {maps.shape}, pooled {pooled.shape}, gradients {dx.shape}, {dw.shape}, {db.shape}")
    step = xp.asarray(1e-6 * random.standard_normal(w.shape))
    predicted, measured = float((dw * step).sum()), (loss(w + step) - loss(w - step)) / 2
    print(f"a small step of the filters changes the loss by {predicted:.6e}; measured {measured:.6e}")
    np.testing.assert_allclose(predicted, measured, rtol=1e-6)


# ---- sigpy's convolve --------------------------------------------------------------------------------------------------


def convolve(
    data: Any, filt: Any, mode: str = "full", strides: tuple[int, ...] | None = None, multi_channel: bool = False
) -> Any:
    """Convolve as signal processing means it, with sigpy's arguments: the filter is turned.

    Args:
        data: (..., *size), or with ``multi_channel`` (..., channels, *size); one or two axes of size, real or complex.
        filt: (*size), or with ``multi_channel`` (filters, channels, *size).
        mode: "full", or "valid" for the places where the whole filter lies in the data.
        strides: Every so manieth place along each axis of size.
        multi_channel: Whether there are channels.
    """
    axes = filt.ndim - 2 * multi_channel
    if axes not in (1, 2):
        raise ValueError(f"convolve: one or two axes of size, got filt.shape={filt.shape}")
    if mode not in ("full", "valid"):
        raise ValueError(f"convolve: mode must be 'full' or 'valid', got {mode!r}")
    if data.dtype.kind == "c" or filt.dtype.kind == "c":
        return _convolve_complex(data, filt, mode, strides, multi_channel)

    def as_images(array: Any, leading: tuple[int, ...]) -> Any:
        return array.reshape(*leading, *(1,) * (2 - axes), *array.shape[-axes:])

    channels = filt.shape[1] if multi_channel else 1
    batch = data.shape[: -axes - multi_channel]
    images = as_images(data, (int(np.prod(batch)), channels))
    filters = as_images(filt, (filt.shape[0] if multi_channel else 1, channels))[:, :, ::-1, ::-1]
    size = filters.shape[2:]
    y = xc.conv2d(
        images,
        filters,
        padding=tuple(length - 1 for length in size) if mode == "full" else 0,
        stride=(1, *(strides or (1,)))[-2:] if axes == 1 else strides or 1,
    )
    return y.reshape(*batch, *((y.shape[1],) if multi_channel else ()), *y.shape[4 - axes :])


def _convolve_complex(data: Any, filt: Any, *how: Any) -> Any:
    # (a + ib) * (c + id) = (ac - bd) + i (ad + bc)
    parts = [[convolve(x, w, *how) for w in (filt.real, filt.imag)] for x in (data.real, data.imag)]
    return parts[0][0] - parts[1][1] + 1j * (parts[0][1] + parts[1][0])


def signals_and_images(xp: Any) -> None:
    """Convolve as sigpy's users do, and compare with NumPy's own convolution of signals."""
    random = np.random.default_rng(1)
    signal, echo = random.standard_normal(50) + 1j * random.standard_normal(50), np.array([1, 0, 0, 0.5j])
    heard = convolve(xp.asarray(signal), xp.asarray(echo))
    error = abs(xc.to_numpy(heard) - np.convolve(signal, echo)).max()
    print(f"a complex signal of {len(signal)} and its echo: {heard.shape[0]} samples, at most {error:.1e} from np.convolve")
    assert error < 1e-12

    coils = xp.asarray(random.standard_normal((8, 32, 32)).astype(np.float32))  # 8 channels
    kernels = xp.asarray(random.standard_normal((5, 8, 3, 3)).astype(np.float32))
    y = convolve(coils, kernels, mode="valid", strides=(2, 2), multi_channel=True)
    print(f"{coils.shape} with {kernels.shape}, valid, every other place: {y.shape}")


def main() -> None:
    """Run on the best there is for CUDA kernels."""
    status = next(status for status in xc.devices() if status.name == "cuda")
    device = xc.get_device("cuda" if status.available else "cudasim")
    print(f"device {device}" + ("" if status.available else f": {status.reason}, so the simulator runs the CUDA kernels"))
    if not status.available:
        xc.set_default_device(device)  # NumPy arrays are computed by the simulator then; CuPy arrays need no such word
    try:
        layer_and_its_gradients(device.xp)
        signals_and_images(device.xp)
    finally:
        xc.set_default_device(None)


if __name__ == "__main__":
    main()
