"""What the processor offers that the kernels are compiled for: how wide its vectors are, and how many it can hold.

Numba compiles for the processor it runs on, or for the one that ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` name. LLVM is
asked by compiling a multiplication of 64 bytes for that processor and looking at the registers in the result: it is LLVM that
chooses them in the kernels, too.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import codegen, config


def _probe() -> str:
    # Built and not written out: LLVM's releases spell pointers differently.
    vector = ir.VectorType(ir.FloatType(), 16)
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [vector.as_pointer()] * 2), "probe")
    builder = ir.IRBuilder(function.append_basic_block())
    x, y = (builder.load(argument) for argument in function.args)
    builder.store(builder.fmul(x, y), function.args[0])
    builder.ret_void()
    return str(function.module)


@functools.cache
def vector_bytes() -> int:
    """Size of a vector register in bytes: 64 with AVX-512, 32 with AVX, 16 on any other x86-64 and on ARM."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    name = config.CPU_NAME or llvm.get_host_cpu_name()
    if config.CPU_FEATURES is not None:
        features = config.CPU_FEATURES
    else:
        # Numba adds the host's features to a processor named without any; what the name alone offers is what is meant.
        features = "" if config.CPU_NAME else codegen.get_host_cpu_features()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=name, features=features, opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(_probe()))
    if re.search(r"\bzmm\d", assembly):
        return 64
    return 32 if re.search(r"\bymm\d", assembly) else 16


def lanes(dtype: np.dtype[Any]) -> int:
    """Number of elements in a vector register."""
    return vector_bytes() // dtype.itemsize


@functools.cache
def registers() -> int:
    """Number of vector registers: 32 with AVX-512 and on ARM, 16 on any other x86-64."""
    is_x86 = llvm.get_default_triple().startswith(("x86_64", "i686", "amd64"))
    return 16 if is_x86 and vector_bytes() < 64 else 32
