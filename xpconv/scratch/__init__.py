"""The from-scratch book's classes: its names, arguments and numbers, on any device.

Koki Saitoh's "Deep Learning from Scratch" builds a convolutional network out of small classes: ``Convolution``, ``Pooling``,
``Affine``, ``SoftmaxWithLoss``, ``SimpleConvNet``, ``Trainer``. Here they have the same modules, so that a program for the
book runs when its imports change::

    from common.layers import Convolution        ->    from xpconv.scratch.layers import Convolution
    from common.trainer import Trainer           ->    from xpconv.scratch.trainer import Trainer
    from simple_convnet import SimpleConvNet     ->    from xpconv.scratch.simple_convnet import SimpleConvNet

What differs is what was wrong: ``tests/test_book_bugs.py`` has the list.
"""
