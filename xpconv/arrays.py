"""What the public functions accept as arrays: checked, brought to one dtype and made contiguous, in one place."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from xpconv.device import Device, get_device
from xpconv.errors import DeviceUnavailableError

FLOAT_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))
DEFAULT_DTYPE: np.dtype[Any] = FLOAT_DTYPES[0]


def float_arrays(
    op: str, device: str | Device | None, *, optional: Collection[str] = (), **arrays: Any
) -> tuple[Device, tuple[Any, ...]]:
    """Check the arrays of a call and bring them to one floating dtype, C-contiguous, on one device.

    float32 and float64 are kept; where both occur, float64 is taken. Booleans and integers take the floating dtype of the
    others, or float32 where there is none; integers that it cannot hold exactly are refused.

    Args:
        op: Name of the public function, for messages.
        device: The ``device`` argument of the call.
        optional: Names of those that may be None, and stay None.
        **arrays: The arrays by the names that the call gives them.

    Returns:
        The device, and the arrays in the order given. Not copies where nothing had to change.

    Raises:
        TypeError: Not an array, or of a dtype that is no real number.
        ValueError: Integers too large for the dtype, or an unknown device.
        DeviceUnavailableError: The device is not there.
    """
    given = {name: as_array(op, name, array) for name, array in arrays.items() if array is not None or name not in optional}
    try:
        place = get_device(device, *given.values())
    except (TypeError, ValueError, DeviceUnavailableError) as error:
        raise type(error)(f"{op}: {error}") from None
    dtype, xp = _common_dtype(op, given), place.xp
    ready = {name: _converted(op, name, array, dtype, xp) for name, array in given.items()}
    return place, tuple(ready.get(name) for name in arrays)


def index_array(op: str, name: str, indices: Any, shape: tuple[int, ...], limit: int) -> Any:
    """Check an array of positions in an image: integers of the given shape, at least 0 and below ``limit``.

    Raises:
        TypeError: Not an array of integers.
        ValueError: Wrong shape, or a position outside the image.
    """
    array = as_array(op, name, indices)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} must hold integers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{op}: {name}.shape must be {shape}, got {array.shape}")
    if array.size and not (array.min() >= 0 and array.max() < limit):
        raise ValueError(
            f"{op}: {name} must lie in an image of {limit} pixels, 0 to {limit - 1}, "
            f"got values from {array.min()} to {array.max()}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def as_array(op: str, name: str, value: Any) -> Any:
    """Return an array as it is and nested lists of numbers as an array; refuse everything else.

    Raises:
        TypeError: Neither an array of NumPy or CuPy nor a list of numbers.
    """
    if type(value) is np.ndarray:  # almost always
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{op}: {name} is a masked array; its mask would be ignored, pass {name}.filled(value)")
    if isinstance(value, np.ndarray) or type(value).__module__.partition(".")[0] == "cupy":
        return value
    if isinstance(value, (list, tuple, int, float, np.generic)):
        try:
            return np.asarray(value)
        except ValueError as error:
            raise TypeError(f"{op}: {name} is not a regular array of numbers: {error}") from None
    raise TypeError(f"{op}: {name} must be an array of NumPy or CuPy, got {type(value).__module__}.{type(value).__qualname__}")


def _common_dtype(op: str, arrays: dict[str, Any]) -> np.dtype[Any]:
    floating = []
    for name, array in arrays.items():
        dtype = array.dtype
        if dtype in FLOAT_DTYPES:
            floating.append(dtype)
        elif dtype.newbyteorder("=") in FLOAT_DTYPES:
            floating.append(dtype.newbyteorder("="))
        elif dtype.kind not in "biu":
            hint = f"; convert it: {name}.astype('float32')" if dtype.kind == "f" else ""
            raise TypeError(f"{op}: {name} must be float32, float64, integer or boolean, got {dtype}{hint}")
    return max(floating, key=lambda dtype: dtype.itemsize, default=DEFAULT_DTYPE)


def _converted(op: str, name: str, array: Any, dtype: np.dtype[Any], xp: Any) -> Any:
    if array.dtype.kind in "iu" and array.size:
        exact = 2 ** (np.finfo(dtype).nmant + 1)
        low, high = int(array.min()), int(array.max())
        if low < -exact or high > exact:
            raise ValueError(
                f"{op}: {name} holds integers from {low} to {high}, and {dtype} is exact only up to {exact}; "
                f"pass {name}.astype('float64')" + ("" if dtype == DEFAULT_DTYPE else ", knowing that it rounds them")
            )
    return xp.asarray(array, dtype=dtype, order="C")
