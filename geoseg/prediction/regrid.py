"""Strips from the model's grid back onto the scene's own, by bilinear interpolation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.window import Window

__all__ = ["regrid", "source_cols"]

FloatArray = NDArray[np.float32]


def regrid(
    strips: Iterable[tuple[Window, FloatArray]],
    source: tuple[int, int],
    target: tuple[int, int],
    factor: tuple[float, float],
    cols: tuple[int, int] | None = None,
) -> Iterator[tuple[Window | None, FloatArray]]:
    """Interpolate strips onto a finer or coarser grid over the same ground.

    Args:
        strips: (window, values (K, height, width)), one below the other; may be buffers. Their
            columns are those of :func:`source_cols`. Where the first one is not the topmost, the
            target rows that need rows above it are left out.
        source: (height, width) of the strips' grid, px.
        target: (height, width) of the grid that is wanted, px.
        factor: (down, across): target pixels per source pixel; both grids share their top left
            corner.
        cols: (first, the first after) of the target's columns; None for all.

    Yields:
        (window, values (K, height, columns)) for each strip, from the top; None and an empty array
        where a strip finishes no row.
    """
    row_0, row_1, row_t = _taps(np.arange(target[0]), source[0], factor[0])
    left, right = cols or (0, target[1])
    taps = _taps(np.arange(target[1]), source[1], factor[1])
    col_0, col_1, col_t = (tap[left:right] for tap in taps)
    origin = int(col_0[0]) if cols else 0
    kept: FloatArray | None = None  # source rows that are still needed
    first = 0  # the source row of kept's first row
    done = 0  # target rows that have left
    for strip, values in strips:
        if kept is None:
            kept, first = values.copy(), strip.row
            done = int(np.searchsorted(row_0, first)) if first else 0
        else:
            kept = np.concatenate([kept, values], axis=1)
        received = first + kept.shape[1]
        ready = int(np.searchsorted(row_1, received))
        if ready <= done:
            yield None, kept[:, :0]
            continue
        rows = slice(done, ready)
        t = row_t[rows][None, :, None]
        mixed = kept[:, row_0[rows] - first] * (1 - t) + kept[:, row_1[rows] - first] * t
        blend = mixed[:, :, col_0 - origin] * (1 - col_t) + mixed[:, :, col_1 - origin] * col_t
        window = Window(done, left, ready - done, right - left)
        yield window, np.asarray(blend, dtype=np.float32)
        done = ready
        needed = min(int(row_0[done]), received) if done < target[0] else received
        kept, first = kept[:, needed - first :], needed


def source_cols(source: int, factor: float, left: int, right: int) -> tuple[int, int]:
    """The source columns that target columns are made from.

    Args:
        source: columns of the source, px.
        factor: target pixels per source pixel.
        left: first target column.
        right: the first one after.

    Returns:
        (first, the first after).
    """
    low, high, _ = _taps(np.array([left, right - 1]), source, factor)
    return int(low[0]), int(high[1]) + 1


def _taps(
    target: NDArray[np.int64], source: int, factor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """The two source pixels of target pixels along one axis, and the second one's share."""
    place = np.clip((target + 0.5) / factor - 0.5, 0, source - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    return low, high, np.asarray(place - low, dtype=np.float32)
