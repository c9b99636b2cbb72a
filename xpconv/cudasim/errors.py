"""What goes wrong with a kernel: it does not compile, or it makes a mistake when it runs."""

from __future__ import annotations

from xpconv.errors import XpconvError


class CompileError(XpconvError, RuntimeError):
    """The source of a kernel is not understood, or the compiler refuses it; the text gives line and reason.

    Example:
        >>> from xpconv import cudasim
        >>> issubclass(cudasim.CompileError, RuntimeError)
        True
    """


class KernelError(XpconvError, RuntimeError):
    """A kernel was launched wrongly, or made a mistake when it ran.

    Attributes:
        kernel: Name of the kernel.
        kind: Kind of the mistake, one of :data:`KINDS`.
        file: Source file of the mistake, empty where it is not known.
        line: Line in the file, 0 where it is not known.
        block: Index of the block (x, y, z), or None.
        thread: Index of the thread in its block (x, y, z), or None.
        description: The text without the kernel, the line, the block and the thread.

    Example:
        >>> from xpconv import cudasim
        >>> print(cudasim.KernelError("add", "race", "read against write", file="add.cu", line=7, block=(0, 0, 0)))
        add: race: read against write [add.cu:7, block (0, 0, 0)]
    """

    KINDS = (
        "launch",  # grid, block, shared memory or an argument, before the kernel ran
        "out of bounds",
        "misaligned",
        "read-only",
        "uninitialised",
        "race",
        "barrier",  # not all threads come to it
        "collective",  # of a warp
        "async copy",
        "shared memory",  # too much of it
        "deadlock",
        "overflow",
        "shift",
        "division by zero",
        "unreachable",
        "stack overflow",
        "illegal access",
        "assertion",
        "trap",
        "not simulated",
        "interrupted",
        "out of memory",
    )

    def __init__(
        self,
        kernel: str,
        kind: str,
        description: str,
        *,
        file: str = "",
        line: int = 0,
        block: tuple[int, int, int] | None = None,
        thread: tuple[int, int, int] | None = None,
    ) -> None:
        self.kernel = kernel
        self.kind = kind
        self.description = description
        self.file = file
        self.line = line
        self.block = block
        self.thread = thread
        places = [f"{file}:{line}"] if file else []
        places += [f"block {block}"] if block is not None else []
        places += [f"thread {thread}"] if thread is not None else []
        super().__init__(f"{kernel}: {kind}: {description}" + (f" [{', '.join(places)}]" if places else ""))

    def __reduce__(self) -> tuple[object, ...]:
        where = {"file": self.file, "line": self.line, "block": self.block, "thread": self.thread}
        return _rebuild, (self.kernel, self.kind, self.description, where)


def _rebuild(kernel: str, kind: str, description: str, where: dict[str, object]) -> KernelError:
    return KernelError(kernel, kind, description, **where)  # type: ignore[arg-type]
