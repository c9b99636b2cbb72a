"""Keras' models on plain arrays: layers in a row, or as a class of one's own calls them."""

from xpconv.models.model import Model
from xpconv.models.saving import load_model
from xpconv.models.sequential import Sequential

__all__ = ["Model", "Sequential", "load_model"]
