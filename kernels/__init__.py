"""The kernels: one folder a device, the same file names and function names in each.

A kernel gets validated arrays of one dtype that live on its device, contiguous but for the transposed ones of ``matmul``, and
a geometry; it allocates its result and returns it. The updates of the optimizers work in place. A kernel never validates
and never prints. The contract of each function is written in :mod:`xpconv.functional`.
"""
