"""Strips from the model's grid back onto the scene's own, by bilinear interpolation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from geoseg.window import Window

__all__ = ["regrid"]

FloatArray = NDArray[np.float32]


def regrid(
    strips: Iterable[tuple[Window, FloatArray]],
    source: tuple[int, int],
    target: tuple[int, int],
    factor: tuple[float, float],
) -> Iterator[tuple[Window, FloatArray]]:
    """Interpolate strips onto a finer or coarser grid over the same ground.

    Args:
        strips: (window, values (K, height, source width)) from the top; may be buffers.
        source: (height, width) of the strips' grid, px.
        target: (height, width) of the grid that is wanted, px.
        factor: (down, across): target pixels per source pixel; both grids share their top left
            corner.

    Yields:
        (window, values (K, height, target width)) from the top, covering every target row.
    """
    row_0, row_1, row_t = _taps(target[0], source[0], factor[0])
    col_0, col_1, col_t = _taps(target[1], source[1], factor[1])
    kept: FloatArray | None = None  # source rows that are still needed
    first = 0  # the source row of kept's first row
    done = 0  # target rows that have left
    for _, values in strips:
        kept = values.copy() if kept is None else np.concatenate([kept, values], axis=1)
        received = first + kept.shape[1]
        ready = int(np.searchsorted(row_1, received))
        if ready == done:
            continue
        rows = slice(done, ready)
        t = row_t[rows][None, :, None]
        mixed = kept[:, row_0[rows] - first] * (1 - t) + kept[:, row_1[rows] - first] * t
        blend = mixed[:, :, col_0] * (1 - col_t) + mixed[:, :, col_1] * col_t
        yield Window(done, 0, ready - done, target[1]), np.asarray(blend, dtype=np.float32)
        done = ready
        needed = min(int(row_0[done]), received) if done < target[0] else received
        kept, first = kept[:, needed - first :], needed


def _taps(
    target: int, source: int, factor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """The two source pixels of each target pixel along one axis, and the second one's share."""
    place = np.clip((np.arange(target) + 0.5) / factor - 0.5, 0, source - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    return low, high, np.asarray(place - low, dtype=np.float32)
