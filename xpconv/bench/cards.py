"""What kinds of cards there are, as far as kernels have to fit them: sizes, and how many blocks run at once."""

from __future__ import annotations

from dataclasses import dataclass

from xpconv.bench.cubin import RESERVED_SHARED_MEMORY, CompiledKernel
from xpconv.kernels.cuda.runtime import ceil_div

WARP = 32
REGISTERS = 1 << 16  # of a multiprocessor, on every architecture here
# Registers and shared memory are handed out in such pieces.
REGISTERS_AT_ONCE = 256  # to a warp
SHARED_MEMORY_AT_ONCE = 128


@dataclass(frozen=True)
class Architecture:
    """Limits of a multiprocessor: CUDA C++ Programming Guide, "Compute Capabilities", and ``cuda_occupancy.h``.

    Attributes:
        warps: Most warps at once.
        blocks: Most blocks at once.
        shared_memory: Bytes that its blocks share.
        float32_lanes: float32 multiply-adds that it starts each cycle.
    """

    warps: int
    blocks: int
    shared_memory: int
    float32_lanes: int


ARCHITECTURES = {
    75: Architecture(32, 16, 64 << 10, 64),
    80: Architecture(64, 32, 164 << 10, 64),
    86: Architecture(48, 16, 100 << 10, 128),
    89: Architecture(48, 24, 100 << 10, 128),
    90: Architecture(64, 32, 228 << 10, 128),
    100: Architecture(64, 32, 228 << 10, 128),
    120: Architecture(48, 24, 100 << 10, 128),
}
"""By compute capability, times ten."""


@dataclass(frozen=True)
class Card:
    """A card that xpconv computes on.

    Attributes:
        name: What it is sold as.
        compute_capability: Ten times the version of its architecture.
        multiprocessors: How many there are.
        gigahertz: The clock at most.
        gigabytes_per_second: Bandwidth of its memory.
    """

    name: str
    compute_capability: int
    multiprocessors: int
    gigahertz: float
    gigabytes_per_second: float

    @property
    def architecture(self) -> Architecture:
        """Its multiprocessors; of one that isn't listed, those of the latest before it."""
        return ARCHITECTURES[max(known for known in ARCHITECTURES if known <= max(self.compute_capability, min(ARCHITECTURES)))]

    @property
    def shared_memory_limit(self) -> int:
        """Bytes that a block can opt into."""
        reserved = RESERVED_SHARED_MEMORY if self.compute_capability >= 80 else 0
        return self.architecture.shared_memory - reserved

    @property
    def gflops(self) -> float:
        """The most float32 additions and multiplications, in billions a second."""
        return 2 * self.multiprocessors * self.architecture.float32_lanes * self.gigahertz

    def blocks_at_once(self, kernel: CompiledKernel, threads: int, shared_memory: int) -> int:
        """How many blocks of a kernel a multiprocessor holds at once: the occupancy calculator's rules.

        Args:
            kernel: What was compiled for this architecture.
            threads: Threads of a block.
            shared_memory: Bytes of dynamic shared memory of a block.

        Returns:
            A number of blocks; 0 where one asks for more than there is.
        """
        architecture = self.architecture
        warps = ceil_div(threads, WARP)
        of_warp = ceil_div(kernel.registers * WARP, REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
        # Each of the four quarters of a multiprocessor hands out its own registers.
        warps_with_registers = REGISTERS // 4 // of_warp * 4
        reserved = RESERVED_SHARED_MEMORY if self.compute_capability >= 80 else 0
        shared = ceil_div(kernel.shared_memory + shared_memory + reserved, SHARED_MEMORY_AT_ONCE) * SHARED_MEMORY_AT_ONCE
        limits = [architecture.blocks, architecture.warps // warps, warps_with_registers // warps]
        if kernel.shared_memory + shared_memory:
            limits.append(architecture.shared_memory // shared)
        return min(limits)


CARDS = (
    Card("T4", 75, 40, 1.59, 320),
    Card("A100 SXM 40 GB", 80, 108, 1.41, 1555),
    Card("H100 SXM 80 GB", 90, 132, 1.98, 3350),
    Card("B200", 100, 148, 1.965, 8000),
    Card("GeForce RTX 5090", 120, 170, 2.407, 1792),
)
"""One of each architecture that the kernels are held against, with the figures of NVIDIA's data sheets."""
H100 = CARDS[2]
