"""The inner loop of overviews, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = ["halve"]


@kernel
def halve(classes: NDArray[np.uint8], nodata: int, out: NDArray[np.uint8]) -> None:
    """Do in one pass what :func:`geoseg.rasters.writing.halve` does.

    Args:
        classes: (2 H, 2 W), C-contiguous.
        nodata: what is no class.
        out: (H, W), where the result goes.
    """
    for row in range(len(out)):
        upper, lower = classes[2 * row], classes[2 * row + 1]
        for col in range(out.shape[1]):
            a, b, c, d = upper[2 * col], upper[2 * col + 1], lower[2 * col], lower[2 * col + 1]
            # Votes of each, 0 where it is no class; of equals the first one wins.
            best, most = a, (1 + (a == b) + (a == c) + (a == d)) * (a != nodata)
            votes = (1 + (b == c) + (b == d)) * (b != nodata)
            best, most = (b, votes) if votes > most else (best, most)
            votes = (1 + (c == d)) * (c != nodata)
            best, most = (c, votes) if votes > most else (best, most)
            out[row, col] = d if most == 0 else best
