"""The access profile of check mode."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """How one line of a kernel uses memory, added up over all warps of a launch.

    Attributes:
        file: Source file.
        line: Line in it.
        space: "global" or "shared".
        operation: "read" or "write".
        requests: Times that a warp executed a load or store of this line.
        transactions: What they cost: sectors of 32 bytes for global memory, passes over the 32 banks for shared memory.
        least: What they would cost at best: the sectors that their bytes fill, the passes that their words need. An
            access of 16 bytes by 32 lanes takes four passes at least, as on a card.

    Example:
        >>> from xpconv import cudasim
        >>> row = cudasim.Profile("add.cu", 3, "global", "read", requests=8, transactions=64, least=32)
        >>> row.efficiency
        0.5
        >>> print(row)
        add.cu:3 global read: 8 requests, 64 sectors (least 32)
    """

    file: str
    line: int
    space: str
    operation: str
    requests: int
    transactions: int
    least: int

    @property
    def efficiency(self) -> float:
        """The least cost as a share of the cost."""
        return self.least / self.transactions if self.transactions else 1.0

    def __str__(self) -> str:
        unit = "sectors" if self.space == "global" else "passes"
        where = f"{self.file}:{self.line} {self.space} {self.operation}"
        return f"{where}: {self.requests} requests, {self.transactions} {unit} (least {self.least})"
