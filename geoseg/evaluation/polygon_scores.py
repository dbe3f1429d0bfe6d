"""How labelled polygons fare, each as one object.

A polygon is right where most of it is mapped as its class. Connected regions of the map are not
matched to polygons (F1 at an IoU): a region may reach over any number of strips, so that this can't
be done exactly in bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.labels.polygons import PixelsOfFeatures

__all__ = ["ObjectScores", "Objects"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectScores:
    """How polygons of K classes fare and, in the last place, all; NaN where there is none.

    Attributes:
        polygons: int64 (K + 1,), polygons with at least one pixel that counts.
        empty: int64 (K + 1,), polygons without: too small, outside the map or on its nodata.
        right: float64 (K + 1,), share of the polygons whose most common class on the map is
            theirs; where another class has as many pixels, it isn't.
        mean_share: float64 (K + 1,), mean over the polygons of the share of their pixels that is
            mapped as their class.
        median_share: float64 (K + 1,), the median of it.
    """

    polygons: NDArray[np.int64]
    empty: NDArray[np.int64]
    right: Floats
    mean_share: Floats
    median_share: Floats


class Objects:
    """Counts the mapped classes of each polygon's pixels. Memory is polygons times classes."""

    def __init__(self, own: NDArray[np.int64], classes: int) -> None:
        """Begin before the first part of the map.

        Args:
            own: (F,) places of the polygons' classes, 0 to K - 1.
            classes: K.
        """
        self._own = own
        self._classes = classes
        self._counts = np.zeros(len(own) * classes, np.int64)

    def add(self, members: PixelsOfFeatures, places: NDArray[np.int16]) -> None:
        """Take a part of the map; no pixel may come twice.

        Args:
            members: which of its pixels lie in which polygon.
            places: (H, W) of the mapped classes, 0 to K - 1; -1 where a pixel does not count.
        """
        mapped = places[members.row, members.col].astype(np.int64)
        counts = mapped >= 0
        keys = members.feature[counts] * self._classes + mapped[counts]
        found, times = np.unique(keys, return_counts=True)
        self._counts[found] += times

    def finish(self) -> ObjectScores:
        """Give the scores."""
        table = self._counts.reshape(-1, self._classes)
        pixels = table.sum(axis=1)
        each = np.arange(len(table))
        own = table[each, self._own]
        others = table.copy()
        others[each, self._own] = -1
        right = own > others.max(axis=1, initial=-1)
        seen = pixels > 0
        share = np.divide(own, pixels, out=np.full(len(own), np.nan), where=seen)
        of = [self._own == k for k in range(self._classes)] + [np.ones(len(own), bool)]
        groups = [mine & seen for mine in of]
        return ObjectScores(
            np.array([int(g.sum()) for g in groups]),
            np.array([int((mine & ~seen).sum()) for mine in of]),
            *(
                np.array([float(function(values[g])) if g.any() else np.nan for g in groups])
                for function, values in ((np.mean, right), (np.mean, share), (np.median, share))
            ),
        )
