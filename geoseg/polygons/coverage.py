"""Strips of classes in, the polygons of their regions out: a coverage in pixel coordinates.

Each strip is labelled and its borders traced for itself, on as many threads as wanted. Then, strip
by strip: labels of the row that two strips share are united, pieces of arcs put together, whole
arcs simplified, and regions without a pixel in the strip's last row given away. What is kept is
what is still open, so memory grows with the strip and the open regions, not with the raster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from geoseg.core.workers import Workers
from geoseg.polygons.closing import close
from geoseg.polygons.features import Features
from geoseg.polygons.generalizing import Simplifier
from geoseg.polygons.kernels.arcs import Arcs
from geoseg.polygons.kernels.joining import join
from geoseg.polygons.kernels.regions import roots_of, unite
from geoseg.polygons.options import RingOptions
from geoseg.polygons.strips import CodeRows, Regions, TracedStrip, padded_strips, trace_strip

__all__ = ["polygons"]


def polygons(
    strips: Iterable[CodeRows], width: int, height: int, options: RingOptions, workers: Workers
) -> Iterator[Features]:
    """Make the polygons of a class map's regions.

    Args:
        strips: the map from above to below, in parts of any height of at least 1.
        width: px.
        height: px, the sum of the strips'.
        options: how they are made.
        workers: on which strips are traced and arcs simplified.

    Yields:
        Features, those of a strip at a time; each region once. Together they are a valid coverage:
        neighbours share every vertex of their border.
    """
    open_ = _Open(width, options, Simplifier(options, workers))
    padded = padded_strips(strips, width, height)
    for strip in workers.map(partial(trace_strip, options), padded, workers.threads):
        features = open_.add(strip)
        if features is not None:
            yield features


@dataclass
class _Open:
    """What is not complete yet.

    Attributes:
        width: of the raster, px.
        options: how polygons are made.
        simplifier: with the whole arcs that are not simplified yet.
        last: (W,) regions of the last row.
        regions: open ones, 1..R, and entry 0.
        groups: (R + 1,) the smallest region of the feature that each belongs to.
        pieces: of arcs that go on below.
        arcs: simplified ones with an open region beside them; a side that is done is 0.
        rim: (A,) which of these have nodata on one side.
    """

    width: int
    options: RingOptions
    simplifier: Simplifier
    last: NDArray[np.int32] = field(init=False)
    regions: Regions = field(default_factory=Regions.none)
    groups: NDArray[np.int32] = field(default_factory=lambda: np.zeros(1, np.int32))
    pieces: Arcs = field(default_factory=Arcs.none)
    arcs: Arcs = field(default_factory=Arcs.none)
    rim: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        self.last = np.zeros(self.width, np.int32)

    def add(self, strip: TracedStrip) -> Features | None:
        """Take a strip in; the features that are complete by now."""
        # One numbering for both: the open regions as they are, the strip's after them.
        shift = len(self.regions.codes) - 1
        roots, groups = self._unite(strip, shift)
        regions = self.regions.add(strip.regions, roots)
        below = _shifted(strip.below, shift)
        new = self._whole_arcs(strip, shift)
        rim = np.concatenate((self.rim, (new.sides == 0).any(axis=1)))
        arcs = self.arcs.add(new)
        arcs = arcs._replace(sides=roots[arcs.sides])
        # A feature is open while it has a pixel in the last row, or an arc that waits.
        is_open = np.zeros(len(roots), bool)
        if not strip.last:
            is_open[groups[below]] = True
            is_open[groups[self.simplifier.held.sides]] = True
        is_open[0] = True
        features = close(self.options, arcs, rim, regions, groups, is_open)
        # Arcs stay while a region beside them is open; what is closed there counts as nothing.
        kept = is_open[groups[arcs.sides]]
        kept &= arcs.sides > 0
        arcs = arcs._replace(sides=np.where(kept, arcs.sides, 0).astype(np.int32))
        some = np.flatnonzero(kept.any(axis=1))
        arcs, self.rim = arcs.take(some), rim[some]
        # New numbers for the open regions, the smallest first.
        alive = is_open[groups] & (roots == np.arange(len(roots)))
        number = (np.cumsum(alive) - 1).astype(np.int32)
        self.arcs = arcs._replace(sides=number[arcs.sides])
        self.pieces = self.pieces._replace(sides=number[roots[self.pieces.sides]])
        held = self.simplifier.held
        self.simplifier.held = held._replace(sides=number[roots[held.sides]])
        self.regions = Regions(*(known[alive] for known in regions))
        self.groups = number[groups[alive]]
        self.last = number[roots[below]]
        return features

    def _unite(self, strip: TracedStrip, shift: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Find which regions are one across the strips.

        Returns:
            Of all regions, the strip's ``shift`` after the open ones: the one that each is part
            of, and the smallest one of its feature.
        """
        parent = np.arange(shift + len(strip.regions.codes), dtype=np.int32)
        unite(parent, self.last, strip.above, shift)
        roots = roots_of(parent)
        if strip.diagonal is None:
            return roots, roots
        unite(parent, np.arange(shift + 1, dtype=np.int32), self.groups, 0)
        one, other = strip.diagonal
        unite(parent, _shifted(one, shift), _shifted(other, shift), 0)
        return roots, roots_of(parent)

    def _whole_arcs(self, strip: TracedStrip, shift: int) -> Arcs:
        """Join the strip's pieces to those that are open; the simplified arcs that are whole."""
        own = strip.pieces._replace(sides=_shifted(strip.pieces.sides, shift))
        arcs, whole = join(self.pieces.add(own), len(self.pieces.ends), self.width)
        self.pieces = arcs.take(~whole)
        arcs = arcs.take(whole)
        return self.simplifier.add(arcs, self.pieces, strip)


def _shifted(regions: NDArray[np.int32], shift: int) -> NDArray[np.int32]:
    """Numbers of a strip's regions after ``shift`` others; 0 stays."""
    return np.where(regions > 0, regions + np.int32(shift), 0).astype(np.int32)
