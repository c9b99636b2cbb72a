"""Pictures of filters, images, models and trainings: ``matplotlib`` figures, to be saved or shown.

matplotlib is imported by the functions that draw, and pyplot only by :func:`show`: no window, backend or global state is
touched by drawing. It comes with ``pip install 'xpconv[plot]'``.

pictures.py     filters, feature_maps, images, and the grid that they share
curves.py       training_curves
confusion.py    confusion_counts, confusion_matrix
classes.py      labels and predictions as class numbers
diagram.py      model_diagram
layout.py       where the nodes of a graph stand
figures.py      save, show, and what all figures share
"""

from xpconv.visualize.confusion import confusion_counts, confusion_matrix
from xpconv.visualize.curves import training_curves
from xpconv.visualize.diagram import model_diagram
from xpconv.visualize.figures import save, show
from xpconv.visualize.pictures import feature_maps, filters, images

__all__ = [
    "confusion_counts",
    "confusion_matrix",
    "feature_maps",
    "filters",
    "images",
    "model_diagram",
    "save",
    "show",
    "training_curves",
]
