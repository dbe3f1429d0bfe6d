"""Strips from the model's grid back onto the scene's own, by bilinear interpolation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.model_grid import Taps
from geoseg.geo.window import Window

__all__ = ["regrid"]

FloatArray = NDArray[np.float32]


def regrid(
    strips: Iterable[tuple[Window | None, FloatArray]],
    taps: tuple[Taps, Taps],
    place: tuple[int, int],
    cols: tuple[int, int],
) -> Iterator[tuple[Window | None, FloatArray]]:
    """Interpolate strips onto a finer or coarser grid over the same ground.

    Args:
        strips: (window, values (K, height, width)), one below the other; may be buffers. None is
            one without rows. Where the first one is not the topmost, the target rows that need rows
            above it are left out.
        taps: where the target's pixels lie, down and across.
        place: (row, col) on the world's grid from which the strips' windows are counted.
        cols: (first, the first after) of the target's columns.

    Yields:
        (window, values (K, height, columns)) for each strip, from the top; None and an empty array
        where a strip finishes no row.
    """
    down, across = taps
    row_0, row_1, row_t = down.of(0, down.length)
    row_0, row_1 = row_0 - place[0], row_1 - place[0]
    left, right = cols
    col_0, col_1, col_t = across.of(left, right)
    origin = across.needed(left, right)[0]
    kept: FloatArray | None = None  # source rows that are still needed
    first = 0  # the source row of kept's first row
    done = 0  # target rows that have left
    for strip, values in strips:
        if strip is None:
            yield None, values[:, :0]
            continue
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
        needed = min(int(row_0[done]), received) if done < down.length else received
        kept, first = kept[:, needed - first :], needed
