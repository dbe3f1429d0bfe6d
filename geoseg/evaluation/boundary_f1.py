"""How well the borders between classes are met, within a tolerance on the ground.

The measure is the boundary F1 of each class (Csurka et al. 2013, "What is a good evaluation measure
for semantic segmentation?", https://doi.org/10.5244/C.27.32; Martin et al. 2004,
https://doi.org/10.1109/TPAMI.2004.1273918): precision is the share of the map's border pixels of a
class that lie within the tolerance of a border pixel of that class in the labels, recall the share
of the labels' that lie within it of the map's, F1 their harmonic mean.

A border pixel of a class has a neighbour above, below, left or right that is of another class. Only
pixels with both a class and a label count, as pixels and as neighbours: the edge of what is known
is no border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.evaluation.metrics import class_mean

__all__ = ["Boundaries", "BoundaryScores"]

Places = NDArray[np.int16]


@dataclass(frozen=True)
class BoundaryScores:
    """How well the borders of K classes are met; NaN where undefined (0 / 0).

    Attributes:
        mapped: int64 (K,), border pixels of the map.
        labelled: int64 (K,), of the labels.
        precision: float64 (K,).
        recall: float64 (K,).
        f1: float64 (K,); 0 where only the labels have a border, NaN where they have none.
        mean_f1: over the classes that have a border in the labels.
    """

    mapped: NDArray[np.int64]
    labelled: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    mean_f1: float


class Boundaries:
    """Counts border pixels from strips that come from top to bottom.

    Rows wait until all that lies within the tolerance of them has come, so that the result does
    not depend on the strips' heights. Memory is a strip and three times the tolerance.
    """

    def __init__(self, classes: int, gsd: tuple[float, float], tolerance: float) -> None:
        """Begin before the first strip.

        Args:
            classes: K.
            gsd: metres per pixel from column to column and from row to row; it is taken as the
                same everywhere.
            tolerance: metres, at least 0; a pixel that lies just as far is within.
        """
        across, down = gsd
        reach = tolerance * (1 + 1e-9)
        self._halo = int(reach / down)
        rows = np.arange(-self._halo, self._halo + 1)
        # In the row that lies dy below, columns to this distance are within the tolerance.
        half = np.sqrt(np.maximum(reach**2 - (rows * down) ** 2, 0)) / across
        self._offsets = list(zip(rows.tolist(), half.astype(np.int64).tolist(), strict=True))
        # Labels, then map: border pixels, and those of them that the other side meets.
        self._border = np.zeros((2, classes), np.int64)
        self._met = np.zeros((2, classes), np.int64)
        self._rows: NDArray[np.int16] | None = None
        self._top = 0
        self._done = 0

    def add(self, truth: Places, mapped: Places) -> None:
        """Take the next strip.

        Args:
            truth: int16 (H, W), places of the labels' classes, 0 to K - 1; -1 where label or class
                is missing.
            mapped: int16 (H, W), those of the map's classes.
        """
        strip = np.stack((truth, mapped))
        self._rows = strip if self._rows is None else np.concatenate((self._rows, strip), axis=1)
        ready = self._top + self._rows.shape[1] - self._halo - 1
        if ready - self._done > 2 * self._halo:
            self._count(ready)

    def finish(self) -> BoundaryScores:
        """Count the rows that still wait, and give the scores."""
        if self._rows is not None:
            self._count(self._top + self._rows.shape[1])
            self._rows = None
        labelled, mapped = self._border
        with np.errstate(invalid="ignore"):
            recall, precision = self._met / self._border
            f1 = 2 * precision * recall / (precision + recall)
        # Where nothing meets, or the map has no border, none is met. Labels without a border, such
        # as polygons that don't touch, say nothing of where one is.
        f1 = np.where((labelled > 0) & np.isnan(f1), 0.0, f1)
        return BoundaryScores(mapped, labelled, precision, recall, f1, class_mean(f1))

    def _count(self, end: int) -> None:
        """Count rows up to one, of which all neighbours have come or there are none."""
        assert self._rows is not None
        places = self._rows
        border = np.stack([_borders(side) for side in places])
        own = np.s_[:, self._done - self._top : end - self._top]
        for k in range(self._border.shape[1]):
            masks = border & (places == k)
            for side in (0, 1):
                rows, cols = np.nonzero(masks[side][own[1]])
                self._border[side, k] += len(rows)
                if len(rows):
                    rows += own[1].start
                    self._met[side, k] += int(self._near(masks[1 - side], rows, cols).sum())
        kept = max(end - self._halo - 1, self._top)
        self._rows, self._top, self._done = places[:, kept - self._top :].copy(), kept, end

    def _near(
        self, mask: NDArray[np.bool_], rows: NDArray[np.int64], cols: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Say of pixels (N,) whether one of the mask lies within the tolerance."""
        height, width = mask.shape
        before = np.zeros((height, width + 1), np.int32)
        np.cumsum(mask, axis=1, out=before[:, 1:], dtype=np.int32)
        found = np.zeros(len(rows), bool)
        for step, half in self._offsets:
            there = rows + step
            inside = (there >= 0) & (there < height) & ~found
            at = there[inside]
            left = (cols[inside] - half).clip(0)
            right = (cols[inside] + half + 1).clip(max=width)
            found[inside] = before[at, right] > before[at, left]
        return found


def _borders(places: Places) -> NDArray[np.bool_]:
    """Find pixels that have a neighbour of another class, (H, W)."""
    out = np.zeros(places.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (places[one] != places[other]) & (places[one] >= 0) & (places[other] >= 0)
        out[one] |= differs
        out[other] |= differs
    return out
