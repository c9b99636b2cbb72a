"""The kernels: one folder a device, the same file names and function names in each.

A kernel gets validated, contiguous arrays of one dtype that live on its device, and a geometry; it allocates its result
and returns it. It never validates and never prints. The contract of each function is written in :mod:`xpconv.functional`.
"""
