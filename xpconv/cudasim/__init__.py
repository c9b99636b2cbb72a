"""CUDA kernels on the processor: they run, and they are checked, with no GPU.

:class:`Module` takes the place of ``cupy.RawModule``, NumPy arrays that of CuPy's. A reader finds in

* ``source.py`` and ``options.py`` what is changed in a kernel's source and options before g++ compiles it,
* ``include/`` the language: ``cudasim.h`` comes before each source, the others are CUDA's own headers,
* ``toolchain.py`` the compiler and the folder of what it made,
* ``kernel.py`` and ``memory.py`` what is checked of a launch, and what is passed,
* ``runtime/`` the threads of a block as fibers, barriers and warps (``scheduler.cpp``), and the checks (``checker.cpp``).

Example:
    >>> from xpconv import cudasim
    >>> [mode for mode in ("fast", "check") if cudasim.Module(code="", mode=mode).mode == mode]
    ['fast', 'check']
"""

from xpconv.cudasim.errors import CompileError, KernelError
from xpconv.cudasim.kernel import Kernel
from xpconv.cudasim.module import Module
from xpconv.cudasim.profile import Profile
from xpconv.cudasim.toolchain import Status, status

__all__ = ["CompileError", "Kernel", "KernelError", "Module", "Profile", "Status", "status"]
