"""Polygons that are complete, as flat arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.geodesy import Ints, Rings

__all__ = ["Features"]

#: Vertices of the features that leave together: their table is made without the interpreter's lock
#: being free, and who wants to stop waits for it.
PART = 1 << 20


class Features(NamedTuple):
    """F features of P polygons, in the order of their first pixels.

    Attributes:
        rings: in pixel coordinates.
        features: (F + 1,); feature f is polygons ``features[f]`` to ``features[f + 1] - 1``.
        codes: (F,) uint8.
        pixels: (F,) how many.
        first: (F,) number of the first one, row by row.
        confidence: (F, 3): sum, number of pixels where it is known, and minimum.
        probs: (F, C) sums of each code's; (F, 0) without.
        more: whether others that the same strip completed come next.
    """

    rings: Rings
    features: Ints
    codes: NDArray[np.uint8]
    pixels: Ints
    first: Ints
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64]
    more: bool = False

    @classmethod
    def none(cls, codes: int) -> Features:
        """Make a table without features, of a map with or without (0) probabilities."""
        zero = np.zeros(1, np.int64)
        whole = np.zeros(0, np.int64)
        rings = Rings(np.zeros((0, 2)), zero, zero)
        return cls(
            rings, zero, np.zeros(0, np.uint8), whole, whole, np.zeros((0, 3)), np.zeros((0, codes))
        )

    def take(self, chosen: NDArray[np.bool_]) -> Features:
        """Take the features of a mask."""
        polygons, features = _some(self.features, chosen)
        rings, polygon_offsets = _some(self.rings.polygons, polygons)
        vertices, ring_offsets = _some(self.rings.rings, rings)
        return Features(
            Rings(self.rings.xy[vertices], ring_offsets, polygon_offsets),
            features,
            self.codes[chosen],
            self.pixels[chosen],
            self.first[chosen],
            self.confidence[chosen],
            self.probs[chosen],
            self.more,
        )

    def parts(self) -> Iterator[Features]:
        """Cut into parts of about PART vertices, one after another."""
        rings, polygons = self.rings.rings, self.rings.polygons
        ends = rings[polygons[self.features]]
        start = 0
        while start < len(self.codes):
            stop = int(np.searchsorted(ends, ends[start] + PART))
            stop = min(max(stop, start + 1), len(self.codes))
            here = slice(start, stop)
            first, last = self.features[[start, stop]]
            one, other = polygons[[first, last]]
            yield Features(
                Rings(
                    self.rings.xy[ends[start] : ends[stop]],
                    rings[one : other + 1] - ends[start],
                    polygons[first : last + 1] - one,
                ),
                self.features[start : stop + 1] - first,
                self.codes[here],
                self.pixels[here],
                self.first[here],
                self.confidence[here],
                self.probs[here],
                stop < len(self.codes),
            )
            start = stop


def _some(offsets: Ints, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Ints]:
    """Find, in lists one after another, the elements of the chosen ones, and their offsets."""
    lengths = np.diff(offsets)
    return np.repeat(chosen, lengths), np.concatenate(([0], np.cumsum(lengths[chosen])))
