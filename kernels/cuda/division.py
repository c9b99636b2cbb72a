"""Numbers with which ``division.cuh`` divides without dividing."""

from __future__ import annotations

# Dividends and divisors must be smaller: those of kernels whose offsets are of type int.
REACH = 2**31


def magic(divisor: int) -> tuple[int, int]:
    """Multiplier and shift so that ``n // divisor == (n * multiplier // 2**32 + n) >> shift`` for all n from 0 to 2**31 - 1.

    A divisor of :data:`REACH` or more has none, and needs none: its kernels take offsets of 64 bits, which are divided.
    """
    if divisor >= REACH:
        return 0, 0
    shift = (divisor - 1).bit_length()
    return 2**32 * (2**shift - divisor) // divisor + 1, shift
