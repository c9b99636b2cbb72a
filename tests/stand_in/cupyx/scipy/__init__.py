"""What xpconv uses of ``cupyx.scipy``; see the stand-in for CuPy beside it."""
