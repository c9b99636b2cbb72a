"""The exceptions of xpconv.

A bad argument raises ValueError (a bad value) or TypeError (a bad type). The classes below are for what no check of the
arguments can foresee: a device that is not there, a damaged file, a training that cannot go on. Each is also one of
Python's own exceptions, so code that catches ValueError or RuntimeError catches these too.
"""


class XpconvError(Exception):
    """The base of every exception that xpconv defines.

    Example:
        >>> import xpconv as xc
        >>> issubclass(xc.errors.DataError, xc.errors.XpconvError)
        True
    """


class DeviceUnavailableError(XpconvError, RuntimeError):
    """A device that xpconv knows cannot be used here; the text gives the reason and the remedy."""


class DataError(XpconvError, ValueError):
    """A file of a data set is missing, truncated, wrong or tampered with; the text names the file."""


class ParameterFileError(XpconvError, ValueError):
    """A file of parameters is damaged, or belongs to another network; the text names the file."""


class TrainingError(XpconvError, RuntimeError):
    """Training cannot go on: the images or the loss hold NaN or infinity."""


class BrokenChainError(XpconvError, ValueError):
    """A model computed something that no layer recorded, so that no gradient can go back through it."""
