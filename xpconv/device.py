"""The devices that xpconv computes on: their names, which of them work here and why not, and moving arrays between them.

A device is chosen by name in one argument, ``device=``. ``None`` follows the arrays: a CuPy array goes to its own card, a
NumPy array to the default device of the CPU. Nothing is ever moved between devices unless :func:`asarray` or
:func:`to_numpy` says so.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from xpconv.availability import DEVICE_NAMES, DeviceStatus, card_count, note_failed_import, status_of
from xpconv.errors import DeviceUnavailableError

P = ParamSpec("P")
R = TypeVar("R")

AUTO_ORDER: tuple[str, ...] = ("cuda", "numba", "numpy")
ENVIRONMENT_VARIABLE = "XPCONV_DEVICE"

# The two run the same sources, and which of them computes is told by the arrays.
_KERNELS_OF = {"cudasim": "cuda"}

_chosen_default: str | None = None


@dataclass(frozen=True)
class Device:
    """A place where arrays live and convolutions run.

    Attributes:
        name: ``"numpy"``, ``"numba"``, ``"cuda:0"`` ...: what ``device=`` takes.
    """

    name: str

    @functools.cached_property
    def kind(self) -> str:
        """The name without the number of the card."""
        return self.name.partition(":")[0]

    @property
    def asynchronous(self) -> bool:
        """Whether a call returns before its result is computed, so that reading a number makes the caller wait."""
        return self.kind == "cuda"

    @functools.cached_property
    def xp(self) -> Any:
        """The array module: NumPy, or CuPy on a card."""
        return importlib.import_module("cupy") if self.kind == "cuda" else np

    def current(self) -> contextlib.AbstractContextManager[object]:
        """A context in which new arrays come to this device: on a card, CuPy's own, which makes it the current one."""
        return self.xp.cuda.Device(self.card) if self.kind == "cuda" else contextlib.nullcontext()

    @functools.cached_property
    def card(self) -> int:
        """The number of the card; only a ``cuda`` device has one."""
        return int(self.name.partition(":")[2])

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The module that holds this device's kernels, one function for each operation."""
        return _kernels(self.kind)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the name alone, without the modules that have been looked up."""
        return Device, (self.name,)


def devices() -> list[DeviceStatus]:
    """Tell for every device whether it works here, why not, and what to do about it.

    Returns:
        One :class:`DeviceStatus` a device, in the order of :data:`DEVICE_NAMES`.

    Example:
        >>> import xpconv as xc
        >>> xc.devices()[0]
        DeviceStatus(name='numpy', available=True, reason='always there', remedy='')
    """
    return [status_of(name) for name in DEVICE_NAMES]


def default_device() -> str:
    """Name of the device that computes on NumPy arrays when a call names none.

    The last name given to :func:`set_default_device`, else the environment variable ``XPCONV_DEVICE``, else ``"numpy"``.

    Raises:
        ValueError: ``XPCONV_DEVICE`` holds an unknown name.
        DeviceUnavailableError: It names a device that is not there.

    Example:
        >>> import xpconv as xc
        >>> xc.default_device()
        'numpy'
    """
    if _chosen_default is not None:
        return _chosen_default
    name = os.environ.get(ENVIRONMENT_VARIABLE)
    if not name:
        return "numpy"
    try:
        return _usable(name).name
    except (ValueError, DeviceUnavailableError) as error:
        raise type(error)(f"{error} (named by the environment variable {ENVIRONMENT_VARIABLE})") from None


def set_default_device(device: str | Device | None) -> None:
    """Set the device that computes on NumPy arrays when a call names none.

    Args:
        device: A device's name, ``"auto"``, or None to go back to ``XPCONV_DEVICE`` or ``"numpy"``.

    Raises:
        ValueError: The name is unknown.
        DeviceUnavailableError: The device is not there; the default stays as it was.

    Example:
        >>> import xpconv as xc
        >>> xc.set_default_device("numpy")
        >>> xc.set_default_device(None)
    """
    global _chosen_default
    _chosen_default = None if device is None else _usable(device).name


def get_device(device: str | Device | None = None, *arrays: object) -> Device:
    """Find the device that a call computes on.

    Args:
        device: A name, ``"auto"`` for the best device that is there, a :class:`Device`, or None to follow ``arrays``.
        *arrays: The arrays of the call; a CuPy array decides for its own card.

    Returns:
        The device, checked to be usable.

    Raises:
        ValueError: The name is unknown.
        TypeError: ``device`` is no name, or the arrays live on different devices or not on the one named.
        DeviceUnavailableError: The device is known but cannot be used here; the text tells why and what to do.

    Example:
        >>> import xpconv as xc
        >>> xc.get_device("auto").name in {"cuda:0", "numba", "numpy"}
        True
    """
    cards = {home for array in arrays if (home := card_of(array)) is not None}
    if not cards:
        found = _usable(default_device() if device is None else device)
        if found.kind == "cuda" and any(isinstance(array, np.ndarray) for array in arrays):
            raise TypeError(
                f"device {found.name!r} computes on CuPy arrays but was given a NumPy array; move it with "
                f"xpconv.asarray(x, device={found.name!r})"
            )
        return found
    if len(cards) > 1 or any(isinstance(array, np.ndarray) for array in arrays):
        homes = sorted(cards | ({"numpy"} if any(isinstance(array, np.ndarray) for array in arrays) else set()))
        raise TypeError(f"the arrays live on different devices: {' and '.join(homes)}; move them with xpconv.asarray")
    home = cards.pop()
    if device is not None and _usable(device).name != home:
        raise TypeError(f"device={str(device)!r} was named but the arrays live on {home!r}; move them with xpconv.asarray")
    return _usable(home)


def asarray(x: object, device: str | Device | None = None, dtype: DTypeLike | None = None) -> Any:
    """Bring an array to a device.

    Args:
        x: A NumPy or CuPy array, or nested lists of numbers.
        device: Where to; None leaves it where it is (lists become NumPy arrays).
        dtype: The dtype to convert to, or None to keep it.

    Returns:
        The array on that device; ``x`` itself when it is there already and of that dtype.

    Raises:
        ValueError, DeviceUnavailableError: As :func:`get_device`.

    Example:
        >>> import xpconv as xc
        >>> xc.asarray([[1, 2], [3, 4]], device="numpy", dtype="float32")
        array([[1., 2.],
               [3., 4.]], dtype=float32)
    """
    target = get_device(device, x) if device is None else get_device(device)
    home = card_of(x)
    if home is not None and target.kind != "cuda":
        x = to_numpy(x)
    with target.current():
        if home is not None and target.kind == "cuda" and home != target.name:
            x = x.copy()  # type: ignore[attr-defined]  # to the current card
        return target.xp.asarray(x, dtype=dtype)


def to_numpy(x: object) -> np.ndarray[Any, Any]:
    """Bring an array to the CPU as a NumPy array.

    Args:
        x: A NumPy array (returned as it is), a CuPy array, or nested lists of numbers.

    Example:
        >>> import numpy as np, xpconv as xc
        >>> x = np.ones(3)
        >>> xc.to_numpy(x) is x
        True
    """
    if card_of(x) is not None:
        return np.asarray(x.get())  # type: ignore[attr-defined]
    return np.asarray(x)


def on_its_card(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run with the card of its arrays as the current one: there CuPy puts what it computes."""

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        cupy = sys.modules.get("cupy")
        if cupy is not None:
            for argument in (*arguments, *options.values()):
                if isinstance(argument, cupy.ndarray):
                    with argument.device:
                        return function(*arguments, **options)
        return function(*arguments, **options)

    return run


def number(place: Device, value: Any) -> Any:
    """A number that was computed on a device: a float, or on a card still the array without axes, which nobody waits for."""
    return value if place.asynchronous else float(value)


def fetch(*numbers: Any) -> list[float]:
    """Bring numbers and arrays without axes, all of one device, to the host at once; on a card this waits for them."""
    arrays = [number for number in numbers if card_of(number) is not None]
    if not arrays:
        return [float(number) for number in numbers]
    import cupy

    with arrays[0].device:
        fetched = iter(cupy.stack([array.astype(np.float64) for array in arrays]).get().tolist())
    return [next(fetched) if card_of(number) is not None else float(number) for number in numbers]


def _usable(device: str | Device) -> Device:
    name = device.name if isinstance(device, Device) else device
    if not isinstance(name, str):
        raise TypeError(f"device must be a name such as 'numpy', or None, got {device!r}")
    return _device_of(name)


@functools.cache  # what is there stays there; a refusal is not kept
def _device_of(name: str) -> Device:
    if name == "auto":
        usable = (candidate for candidate in AUTO_ORDER if status_of(candidate).available and _can_load(candidate))
        name = next(usable, AUTO_ORDER[-1])  # if none can be loaded, the last one tells why
    if not re.fullmatch(r"numpy|numba|cudasim|cuda(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}; expected one of 'numpy', 'numba', 'cuda', 'cuda:N', 'cudasim', 'auto'")
    kind, _, card = name.partition(":")
    status = status_of(kind)
    if not status.available:
        raise DeviceUnavailableError(_refusal(name, status))
    _kernels(kind)
    if kind != "cuda":
        return Device(kind)
    number, cards = int(card or 0), card_count()
    if number >= cards:
        there = "the only card is 'cuda:0'" if cards == 1 else f"the cards are 'cuda:0' to 'cuda:{cards - 1}'"
        raise DeviceUnavailableError(f"device {name!r} cannot be used here: {there}")
    return Device(f"cuda:{number}")


@functools.cache
def _kernels(kind: str) -> ModuleType:
    try:
        return importlib.import_module(f"xpconv.kernels.{_KERNELS_OF.get(kind, kind)}")
    except (ImportError, OSError) as error:  # a Numba of another NumPy, a library of the system that is missing
        note_failed_import(kind, error)
        _device_of.cache_clear()
        raise DeviceUnavailableError(_refusal(kind, status_of(kind))) from error


def _can_load(kind: str) -> bool:
    try:
        _kernels(kind)
    except DeviceUnavailableError:
        return False
    return True


def _refusal(name: str, status: DeviceStatus) -> str:
    return f"device {name!r} cannot be used here: {status.reason}; {status.remedy}"


def card_of(array: object) -> str | None:
    """``"cuda:0"`` for an array on that card, None for anything else. Asking never imports CuPy."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return f"cuda:{array.device.id}"
    return None
