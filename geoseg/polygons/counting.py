"""How many polygons a map would give, before any are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from geoseg.polygons.kernels.regions import label, roots_of, tops, unite
from geoseg.polygons.kernels.tracing import mark
from geoseg.polygons.strips import with_row_above

__all__ = ["count_regions"]


def count_regions(
    codes: Callable[[], Iterable[NDArray[np.uint8]]], width: int, most: float
) -> tuple[int, int]:
    """Count the polygons that a map gives, if they are too many; all pixels are looked at.

    A region begins somewhere with a run of pixels below nothing of its class. Where there are no
    more of these than ``most``, no more need be known, which takes a glance; otherwise regions
    are labelled and counted.

    Args:
        codes: gives the map from above to below, in parts, the same each time.
        width: px.
        most: how many are not too many.

    Returns:
        Regions (4-connected), and corners at which borders turn or meet; (0, 0) where there are
        not too many.
    """
    if sum(tops(part) for part in with_row_above(codes(), width)) <= most:
        return 0, 0
    regions = corners = still_open = 0
    last = np.zeros(width, np.int32)
    none = np.zeros((0, width), np.float32)
    for part in with_row_above(codes(), width):
        labels, own, *_ = label(part, 0, none)
        corners += mark(part)[1]
        parent = np.arange(still_open + len(own), dtype=np.int32)
        unite(parent, last, labels[0], still_open)
        roots = roots_of(parent)
        regions += int(np.count_nonzero(roots == np.arange(len(roots)))) - 1 - still_open
        below = roots[np.where(labels[-1] > 0, labels[-1] + np.int32(still_open), 0)]
        names, numbers = np.unique(np.append(0, below), return_inverse=True)
        last = numbers[1:].astype(np.int32)
        still_open = len(names) - 1
    return (regions, corners) if regions > most else (0, 0)
