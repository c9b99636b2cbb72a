"""Checks of our own CUDA kernels that need no GPU: every kernel in the checking simulator, and faults planted into them.

``xpconv sanitize`` is the command for the first; :mod:`xpconv.sanitizer.mutation` serves the second.
"""
