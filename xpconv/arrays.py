"""What the public functions accept as arrays: checked, brought to one dtype and made contiguous, in one place."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Any

import numpy as np

from xpconv.device import Device, get_device
from xpconv.errors import DeviceUnavailableError

FLOAT_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.float64))
DEFAULT_DTYPE: np.dtype[Any] = FLOAT_DTYPES[0]

# Sixteen bits are computed with by the kernels in CUDA C++, which sum in 32. By name: NumPy knows bfloat16 through the package
# ml_dtypes alone, which CuPy brings along.
HALF_DTYPES: tuple[str, ...] = ("float16", "bfloat16")
DEVICES_WITH_HALF_DTYPES: tuple[str, ...] = ("cuda", "cudasim")

# Up to 2 to this power a dtype holds every integer.
_EXACT_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def float_arrays(
    op: str, device: str | Device | None, *, optional: Collection[str] = (), **arrays: Any
) -> tuple[Device, tuple[Any, ...]]:
    """Check the arrays of a call and bring them to one floating dtype, C-contiguous, on one device.

    float32 and float64 are kept, and so are float16 and bfloat16 on the devices that compute in them; where several occur,
    the smallest dtype that holds them all is taken (of float16 and bfloat16, float32). Booleans and integers take the
    floating dtype of the others, or float32 where there is none; integers that it cannot hold exactly are refused.

    Args:
        op: Name of the public function, for messages.
        device: The ``device`` argument of the call.
        optional: Names of those that may be None, and stay None.
        **arrays: The arrays by the names that the call gives them.

    Returns:
        The device, and the arrays in the order given. Not copies where nothing had to change.

    Raises:
        TypeError: Not an array, or of a dtype that is no real number, or that the device does not compute in.
        ValueError: Integers too large for the dtype, or an unknown device.
        DeviceUnavailableError: The device is not there.

    Notes:
        On a card nothing waits for the arrays' values, except that integers of a dtype too wide for the floating one are
        looked at.
    """
    given = {name: as_array(op, name, array) for name, array in arrays.items() if array is not None or name not in optional}
    try:
        # Numbers and lists are on no device, and follow the arrays.
        place = get_device(device, *(array for name, array in given.items() if array is arrays[name]))
    except (TypeError, ValueError, DeviceUnavailableError) as error:
        raise type(error)(f"{op}: {error}") from None
    dtype = _common_dtype(op, given, place)
    ready = {name: _converted(op, name, array, dtype, place.xp) for name, array in given.items()}
    return place, tuple(ready.get(name) for name in arrays)


def index_array(op: str, name: str, indices: Any, shape: tuple[int, ...], limit: int, place: Device) -> Any:
    """Check an array of positions in an image: integers of the given shape, at least 0 and below ``limit``.

    Args:
        op: Name of the public function, for messages.
        name: Name of the argument.
        indices: The array.
        shape: The shape that it must have.
        limit: Pixels of the image.
        place: The device that it must live on. On a card, this waits for its values.

    Returns:
        int64, C-contiguous.

    Raises:
        TypeError: Not an array of integers, or one of another device.
        ValueError: Wrong shape, or a position outside the image.
    """
    array = as_array(op, name, indices)
    try:
        get_device(place, *([array] if array is indices else []))
    except TypeError as error:
        raise TypeError(f"{op}: {name}: {error}") from None
    if array.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} must hold integers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{op}: {name}.shape must be {shape}, got {array.shape}")
    if array.size:
        low, high = int(array.min()), int(array.max())
        if not (low >= 0 and high < limit):
            raise ValueError(
                f"{op}: {name} must lie in an image of {limit} pixels, 0 to {limit - 1}, got values from {low} to {high}"
            )
    return place.xp.ascontiguousarray(aligned(array), dtype=np.int64)


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


def real_array(op: str, name: str, value: Any) -> Any:
    """As :func:`as_array`; refuses what holds no real numbers, too.

    Raises:
        TypeError: No array, or one of another dtype.
    """
    array = as_array(op, name, value)
    if not is_real(array.dtype):
        raise TypeError(f"{op}: {name} must hold real numbers, got dtype {array.dtype}")
    return array


class CheckedArrays:
    """Arrays that need not be looked at again, as long as they live.

    To look at what an array on a card holds makes the host wait for the card, and a training that waits in every step is slow.
    So what has been checked once, or was made here, is known again by its identity. (Whoever writes into it later is not
    found out.)
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def note(self, array: Any, purpose: Any) -> None:
        """Remember that an array is good for this purpose."""
        key = id(array)
        self._known[key] = (weakref.ref(array, lambda _: self._known.pop(key, None)), purpose)

    def purpose(self, array: Any) -> Any:
        """What the array was noted to be good for; None if it was not."""
        reference, purpose = self._known.get(id(array), (None, None))
        return purpose if reference is not None and reference() is array else None


def aligned(array: Any) -> Any:
    """The array, or a copy of a NumPy array whose entries lie across the boundaries that their dtype asks for."""
    return array.copy() if isinstance(array, np.ndarray) and not array.flags.aligned else array


def contiguous(array: Any, xp: Any) -> Any:
    """The array as kernels take it: aligned, and C-contiguous; itself if it is so."""
    if type(array) is np.ndarray:
        flags = array.flags
        if flags.c_contiguous and flags.aligned:  # almost always, and known so in half the time
            return array
    return xp.asarray(aligned(array), order="C")


def inexact_range(array: Any, dtype: np.dtype[Any]) -> tuple[int, int, int] | None:
    """Tell whether an array holds integers that a floating dtype cannot hold exactly.

    The values are looked at only where the array's own dtype has integers that are too large.

    Returns:
        None if there are none; otherwise the lowest and the highest of all, and up to where the floating dtype is exact.
    """
    exact = 2 ** _EXACT_BITS[dtype.name]
    if array.dtype.kind not in "iu" or not array.size or np.iinfo(array.dtype).max <= exact:
        return None
    low, high = int(array.min()), int(array.max())
    return (low, high, exact) if low < -exact or high > exact else None


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds real numbers: booleans, integers or floats, bfloat16 among them."""
    return dtype.kind in "biuf" or dtype.name == "bfloat16"


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest number that a floating dtype holds in full precision."""
    return 2.0**-126 if dtype.name == "bfloat16" else float(np.finfo(dtype).tiny)


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype holds floating-point numbers, bfloat16 among them."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _common_dtype(op: str, arrays: dict[str, Any], place: Device) -> np.dtype[Any]:
    floating: set[np.dtype[Any]] = set()
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("=")
        if dtype in FLOAT_DTYPES or (dtype.name in HALF_DTYPES and place.kind in DEVICES_WITH_HALF_DTYPES):
            floating.add(dtype)
        elif dtype.kind not in "biu":
            hint = f"; convert it: {name}.astype('float32')" if is_floating(dtype) else ""
            if dtype.name in HALF_DTYPES:
                hint = f" (the devices {' and '.join(DEVICES_WITH_HALF_DTYPES)} compute in it, {place.name} does not){hint}"
            raise TypeError(f"{op}: {name} must be float32, float64, integer or boolean, got {array.dtype}{hint}")
    widest = max(floating, key=lambda dtype: dtype.itemsize, default=DEFAULT_DTYPE)
    return DEFAULT_DTYPE if widest.itemsize == 2 and len(floating) > 1 else widest


def _converted(op: str, name: str, array: Any, dtype: np.dtype[Any], xp: Any) -> Any:
    if (found := inexact_range(array, dtype)) is not None:
        low, high, exact = found
        wider = "float32" if dtype.itemsize == 2 and max(-low, high) <= 2 ** _EXACT_BITS["float32"] else "float64"
        raise ValueError(
            f"{op}: {name} holds integers from {low} to {high}, and {dtype} is exact only up to {exact}; "
            f"pass {name}.astype({wider!r})" + (", knowing that it rounds them" if dtype == FLOAT_DTYPES[-1] else "")
        )
    return xp.asarray(aligned(array), dtype=dtype, order="C")
