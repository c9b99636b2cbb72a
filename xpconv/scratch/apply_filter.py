"""The book's ``ch07/apply_filter.py``: the first filters of a convolution as pictures, by :mod:`xpconv.visualize`.

What the filters make of an image is drawn by :func:`xpconv.visualize.feature_maps`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpconv import visualize
from xpconv.arrays import as_array
from xpconv.geometry import integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["filter_show"]


def filter_show(filters: Any, nx: int = 4, show_num: int = 16) -> Figure:
    """Draw the first channel of the first filters, and show it where there is a window or a notebook.

    Args:
        filters: Filters, (FN, C, FH, FW).
        nx: Filters in a row.
        show_num: How many filters to draw; all where there are fewer.

    Returns:
        The figure; :func:`xpconv.visualize.save` writes it to a file.

    Raises:
        ValueError: ``filters`` has not four axes or is empty, or ``show_num`` is below 1.
        TypeError: ``filters`` is no array of real numbers.
        ImportError: matplotlib is not installed.

    Example:
        >>> from xpconv.scratch.apply_filter import filter_show
        >>> from xpconv.scratch.simple_convnet import SimpleConvNet
        >>> figure = filter_show(SimpleConvNet().params["W1"])
    """
    count = integer("filter_show", "show_num", show_num, 1)
    figure = visualize.filters(as_array("filter_show", "filters", filters)[:count], columns=nx, channel=0)
    visualize.show(figure)
    return figure
