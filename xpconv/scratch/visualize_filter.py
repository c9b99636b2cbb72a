"""The book's ``ch07/visualize_filter.py``: the filters of a convolution as pictures, by :mod:`xpconv.visualize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpconv import visualize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["filter_show"]


def filter_show(filters: Any, nx: int = 8, margin: float = 3, scale: float = 10) -> Figure:
    """Draw the first channel of every filter, and show it where there is a window or a notebook.

    Args:
        filters: Filters, (FN, C, FH, FW).
        nx: Filters in a row.
        margin: Pixels between the filters.
        scale: Width and height of a weight in pixels.

    Returns:
        The figure; :func:`xpconv.visualize.save` writes it to a file.

    Raises:
        ValueError: ``filters`` has not four axes or is empty.
        TypeError: ``filters`` is no array of real numbers.
        ImportError: matplotlib is not installed.

    Example:
        >>> from xpconv.scratch.simple_convnet import SimpleConvNet
        >>> from xpconv.scratch.visualize_filter import filter_show
        >>> figure = filter_show(SimpleConvNet().params["W1"])
    """
    figure = visualize.filters(filters, columns=nx, channel=0, scale=scale, margin=margin)
    visualize.show(figure)
    return figure
