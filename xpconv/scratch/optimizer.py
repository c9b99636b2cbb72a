"""The book's optimizers: the very classes of :mod:`xpconv.optimizers`."""

from xpconv.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop"]
