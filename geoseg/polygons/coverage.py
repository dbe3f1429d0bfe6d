"""Strips of classes in, the polygons of their regions out: a coverage in pixel coordinates.

Each strip is labelled and its borders traced for itself, on as many threads as wanted. Then, strip
by strip: labels of the row that two strips share are united, pieces of arcs put together, whole
arcs simplified, and regions without a pixel in the strip's last row given away. What is kept is
what is still open, so memory grows with the strip and the open regions, not with the raster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.workers import Workers
from geoseg.geo.geodesy import Ints, Rings
from geoseg.polygons import arcs as kernels
from geoseg.polygons.generalize import CUT, simplify, smooth

__all__ = ["METHODS", "Closed", "CodeRows", "Shape", "count_regions", "polygons"]

#: Vertices of the features that leave together: their table is made without the interpreter's lock
#: being free, and who wants to stop waits for it.
PART = 1 << 20
#: Of simplification.
METHODS = ("visvalingam", "douglas-peucker")


class CodeRows(NamedTuple):
    """Rows of a class map.

    Attributes:
        codes: (N, W) uint8, 0 is nodata.
        confidence: (N, W) float32, NaN where unknown; or (0, W).
        probs: (C - 1, N, W) float32, that of codes 1 to C - 1, likewise; or (0, N, W).
    """

    codes: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probs: NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """How polygons are made.

    Attributes:
        connectivity: 4, or 8: what meets at corners only is one feature of several parts.
        tolerance: of simplification, px; 0 for none.
        method: of METHODS.
        smooth: how often corners are cut.
        reverse: have exterior rings run clockwise where rows go up, not down.
    """

    connectivity: int = 4
    tolerance: float = 0.0
    method: str = METHODS[0]
    smooth: int = 0
    reverse: bool = False


class Closed(NamedTuple):
    """Features that are complete, F of P polygons, in the order of their first pixels.

    Attributes:
        rings: in pixel coordinates.
        features: (F + 1,); feature f is polygons ``features[f]`` to ``features[f + 1] - 1``.
        codes: (F,) uint8.
        pixels: (F,) how many.
        first: (F,) number of the first one, row by row.
        confidence: (F, 3): sum, number of pixels where it is known, and minimum.
        probs: (F, C) sums of each code's; (F, 0) without.
        strip: the first row of the strip that completed them.
    """

    rings: Rings
    features: Ints
    codes: NDArray[np.uint8]
    pixels: Ints
    first: Ints
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64]
    strip: int = 0

    @classmethod
    def none(cls, codes: int) -> Closed:
        """No features, of a map with or without (0) probabilities."""
        zero = np.zeros(1, np.int64)
        whole = np.zeros(0, np.int64)
        rings = Rings(np.zeros((0, 2)), zero, zero)
        return cls(
            rings, zero, np.zeros(0, np.uint8), whole, whole, np.zeros((0, 3)), np.zeros((0, codes))
        )

    def take(self, chosen: NDArray[np.bool_]) -> Closed:
        """The features of a mask."""
        polygons, features = _some(self.features, chosen)
        rings, polygon_offsets = _some(self.rings.polygons, polygons)
        vertices, ring_offsets = _some(self.rings.rings, rings)
        return Closed(
            Rings(self.rings.xy[vertices], ring_offsets, polygon_offsets),
            features,
            self.codes[chosen],
            self.pixels[chosen],
            self.first[chosen],
            self.confidence[chosen],
            self.probs[chosen],
            self.strip,
        )

    def parts(self) -> Iterator[Closed]:
        """The same features, about PART vertices at a time, one after another."""
        rings, polygons = self.rings.rings, self.rings.polygons
        ends = rings[polygons[self.features]]
        start = 0
        while start < len(self.codes):
            stop = int(np.searchsorted(ends, ends[start] + PART))
            stop = min(max(stop, start + 1), len(self.codes))
            here = slice(start, stop)
            first, last = self.features[[start, stop]]
            one, other = polygons[[first, last]]
            yield Closed(
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
                self.strip,
            )
            start = stop


def _some(offsets: Ints, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Ints]:
    """For lists one after another: which elements are in the chosen ones, and their offsets."""
    lengths = np.diff(offsets)
    return np.repeat(chosen, lengths), np.concatenate(([0], np.cumsum(lengths[chosen])))


class _Pieces(NamedTuple):
    """Arcs, or pieces of them; see :func:`geoseg.polygons.arcs.trace`."""

    xy: NDArray[np.int32]
    offsets: Ints
    ends: Ints
    headings: NDArray[np.int8]
    sides: NDArray[np.int32]

    @classmethod
    def none(cls) -> _Pieces:
        return cls(
            np.empty((0, 2), np.int32),
            np.zeros(1, np.int64),
            np.empty((0, 2), np.int64),
            np.empty((0, 2), np.int8),
            np.empty((0, 2), np.int32),
        )

    def take(self, chosen: NDArray[Any]) -> _Pieces:
        """Those of a mask or of numbers."""
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        xy, offsets = kernels.pick(self.xy, self.offsets, chosen)
        return _Pieces(
            xy,
            offsets,
            self.ends[chosen],
            self.headings[chosen],
            self.sides[chosen],
        )

    def add(self, other: _Pieces) -> _Pieces:
        """These and others."""
        if not len(self.ends):
            return other
        return _Pieces(
            np.concatenate((self.xy, other.xy)),
            np.concatenate((self.offsets, other.offsets[1:] + self.offsets[-1])),
            np.concatenate((self.ends, other.ends)),
            np.concatenate((self.headings, other.headings)),
            np.concatenate((self.sides, other.sides)),
        )


class _Regions(NamedTuple):
    """What is known of regions 1..R; entry 0 is nodata."""

    codes: NDArray[np.uint8]
    pixels: Ints
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64]


class _Traced(NamedTuple):
    """What one strip gives."""

    top: int
    last: bool
    above: NDArray[np.int32]
    below: NDArray[np.int32]
    regions: _Regions
    diagonal: tuple[NDArray[np.int32], NDArray[np.int32]] | None
    pieces: _Pieces
    marks: NDArray[np.uint8] | None


def polygons(
    bands: Iterable[CodeRows], width: int, height: int, shape: Shape, workers: Workers
) -> Iterator[Closed]:
    """The polygons of a class map's regions.

    Args:
        bands: the map from above to below, in parts of any height of at least 1.
        width: px.
        height: px, the sum of the bands'.
        shape: how they are made.
        workers: on which strips are traced and arcs simplified.

    Yields:
        Features, some at a time; each region once. Together they are a valid coverage:
        neighbours share every vertex of their border.
    """
    open_ = _Open(width, shape, workers)
    strips = _strips(bands, width, height)
    for strip in workers.map(partial(_trace, shape), strips, workers.threads):
        closed = open_.add(strip)
        if closed is not None:
            yield from closed._replace(strip=strip.top).parts()


def count_regions(
    codes: Callable[[], Iterable[NDArray[np.uint8]]], width: int, most: float
) -> tuple[int, int]:
    """How many polygons a map gives, if they are too many; all pixels are looked at.

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
    if sum(kernels.tops(part) for part in _padded(codes(), width)) <= most:
        return 0, 0
    regions = corners = still_open = 0
    last = np.zeros(width, np.int32)
    none = np.zeros((0, width), np.float32)
    for part in _padded(codes(), width):
        labels, own, *_ = kernels.label(part, 0, none)
        corners += kernels.mark(part)[1]
        parent = np.arange(still_open + len(own), dtype=np.int32)
        kernels.unite(parent, last, labels[0], still_open)
        roots = _roots(parent)
        regions += int(np.count_nonzero(roots == np.arange(len(roots)))) - 1 - still_open
        below = roots[np.where(labels[-1] > 0, labels[-1] + np.int32(still_open), 0)]
        names, numbers = np.unique(np.append(0, below), return_inverse=True)
        last = numbers[1:].astype(np.int32)
        still_open = len(names) - 1
    return (regions, corners) if regions > most else (0, 0)


def _padded(codes: Iterable[NDArray[np.uint8]], width: int) -> Iterator[NDArray[np.uint8]]:
    """Parts of a map, each with the row above it."""
    above = np.zeros((1, width), np.uint8)
    for part in codes:
        yield np.concatenate((above, part))
        above = part[-1:]


def _strips(
    bands: Iterable[CodeRows], width: int, height: int
) -> Iterator[tuple[CodeRows, int, bool]]:
    """Bands with the row above them, and at the end one of nodata below; first row; is it last?"""
    above = np.zeros((1, width), np.uint8)
    top = 0
    for band in bands:
        bottom = top + len(band.codes)
        parts = [above, band.codes]
        if bottom == height:
            parts.append(np.zeros((1, width), np.uint8))
        yield band._replace(codes=np.concatenate(parts)), top, bottom == height
        above = band.codes[-1:]
        top = bottom


def _trace(shape: Shape, strip: tuple[CodeRows, int, bool]) -> _Traced:
    """Label and trace one strip of :func:`_strips`."""
    (codes, confidence, probs), top, last = strip
    labels, own, pixels, known = kernels.label(codes, top * codes.shape[1], confidence)
    sums = np.zeros((len(own), len(probs) + 1 if len(probs) else 0))
    for code, one in enumerate(probs, start=1):
        flat = labels[1 : len(one) + 1].ravel()
        sums[:, code] = np.bincount(flat, np.nan_to_num(one).ravel(), len(sums))
    diagonal = kernels.corner_pairs(codes, labels) if shape.connectivity == 8 else None
    corners, vertices = kernels.mark(codes)
    pieces = _Pieces(*kernels.trace(corners, vertices, labels, top))
    marks = None
    if shape.tolerance > 0:
        bits = corners[1:] >> 4
        marks = np.packbits((bits != 0) & (bits != 5) & (bits != 10), axis=1)
    return _Traced(
        top,
        last,
        labels[0].copy(),
        labels[-1].copy(),
        _Regions(own, pixels, known, sums),
        diagonal,
        pieces,
        marks,
    )


@dataclass
class _Open:
    """What is not complete yet.

    Attributes:
        width: of the raster, px.
        shape: how polygons are made.
        workers: on which arcs are simplified.
        last: (W,) regions of the last row.
        regions: open ones, 1..R, and entry 0.
        groups: (R + 1,) the smallest region of the feature that each belongs to.
        pieces: arcs that go on below.
        held: whole arcs whose simplification waits for others.
        whole: simplified arcs with an open region beside them; a side that is done is 0.
        rim: which of these have nodata on one side.
        marks: rows of :class:`_Traced`, as far up as open arcs reach: (first row, bits).
    """

    width: int
    shape: Shape
    workers: Workers
    last: NDArray[np.int32] = field(init=False)
    regions: _Regions = field(init=False)
    groups: NDArray[np.int32] = field(init=False)
    pieces: _Pieces = field(default_factory=_Pieces.none)
    held: _Pieces = field(default_factory=_Pieces.none)
    whole: _Pieces = field(default_factory=_Pieces.none)
    rim: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    marks: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last = np.zeros(self.width, np.int32)
        self.groups = np.zeros(1, np.int32)
        self.regions = _Regions(
            np.zeros(1, np.uint8), np.zeros((1, 2), np.int64), np.zeros((1, 3)), np.zeros((1, 0))
        )

    def add(self, strip: _Traced) -> Closed | None:
        """Take a strip in; what is complete by now."""
        shift = len(self.regions.codes) - 1
        total = shift + len(strip.regions.codes)
        parent = np.arange(total, dtype=np.int32)
        kernels.unite(parent, self.last, strip.above, shift)
        roots = _roots(parent)
        regions = _gather(self.regions, strip.regions, roots)
        groups = roots
        if strip.diagonal is not None:
            grouped = parent.copy()
            kernels.unite(grouped, np.arange(shift + 1, dtype=np.int32), self.groups, 0)
            one, other = (np.where(d > 0, d + shift, 0).astype(np.int32) for d in strip.diagonal)
            kernels.unite(grouped, one, other, 0)
            groups = _roots(grouped)
        moved = np.where(strip.pieces.sides > 0, strip.pieces.sides + np.int32(shift), 0)
        below = np.where(strip.below > 0, strip.below + np.int32(shift), 0)
        pieces = self.pieces.add(strip.pieces._replace(sides=moved.astype(np.int32)))
        joined = kernels.join(*pieces, len(self.pieces.ends), self.width)
        arcs, is_whole = _Pieces(*joined[:5]), joined[5]
        self.pieces = arcs.take(~is_whole)
        arcs = self._simplified(self.held.add(arcs.take(is_whole)), strip)
        whole = self.whole.add(arcs)
        rim = np.concatenate((self.rim, (arcs.sides == 0).any(axis=1)))
        whole = whole._replace(sides=roots[whole.sides])
        is_open = np.zeros(total, bool)
        if not strip.last:
            is_open[groups[below]] = True
            is_open[groups[self.held.sides]] = True
        is_open[0] = True
        closed = self._closed(whole, rim, regions, groups, is_open)
        kept = is_open[groups[whole.sides]]
        kept &= whole.sides > 0
        whole = whole._replace(sides=np.where(kept, whole.sides, 0).astype(np.int32))
        some = np.flatnonzero(kept.any(axis=1))
        whole, self.rim = whole.take(some), rim[some]
        # New numbers for the open regions, the smallest first.
        alive = is_open[groups] & (roots == np.arange(total))
        number = (np.cumsum(alive) - 1).astype(np.int32)
        self.whole = whole._replace(sides=number[whole.sides])
        self.pieces = self.pieces._replace(sides=number[roots[self.pieces.sides]])
        self.held = self.held._replace(sides=number[roots[self.held.sides]])
        self.regions = _Regions(*(known[alive] for known in regions))
        self.groups = number[groups[alive]]
        self.last = number[roots[below]]
        return closed

    def _simplified(self, arcs: _Pieces, strip: _Traced) -> _Pieces:
        """Simplify whole arcs; those stay in ``held`` that must wait."""
        if self.shape.tolerance <= 0:
            return arcs
        assert strip.marks is not None
        self.marks.append((strip.top, strip.marks))
        # Of arcs between the same two nodes only one may become straight, or what lies between
        # them vanishes. So they go together: while an open arc hangs at either, all wait.
        hanging = self.pieces.ends[self.pieces.ends >= 0]
        hangs = np.isin(arcs.ends, hanging).all(axis=1)
        waits = np.asarray(hangs & (arcs.ends[:, 0] != arcs.ends[:, 1]))
        self.held = arcs.take(np.flatnonzero(waits))
        arcs = arcs.take(np.flatnonzero(~waits))
        simple = self._simplify(arcs)
        rows = [a.xy[:, 1].min() for a in (self.pieces, self.held) if len(a.xy)]
        needed = min([strip.top + len(strip.marks), *rows])
        self.marks = [m for m in self.marks if m[0] + len(m[1]) > needed]
        return simple

    def _simplify(self, arcs: _Pieces) -> _Pieces:
        count = len(arcs.ends)
        if not count:
            return arcs
        sizes = np.diff(arcs.offsets)
        one, other = arcs.ends.T
        least = np.where(one == other, 2, 0)
        rim = (arcs.sides == 0).any(axis=1)
        # Of those that are straight or may become so, the first one may, straight ones before.
        able = np.flatnonzero(~rim | (sizes == 2))
        order = able[np.lexsort((arcs.headings[able, 0], sizes[able] > 2, other[able], one[able]))]
        same = (np.diff(one[order]) == 0) & (np.diff(other[order]) == 0)
        least[order[1:][same]] = np.maximum(least[order[1:][same]], 1)
        least[rim] = -1
        highest = np.minimum.reduceat(arcs.xy[:, 1], arcs.offsets[:-1])
        recent = self.marks[max(0, len(self.marks) - 2)][0]
        near = highest >= recent
        jobs = []
        chosen = []
        for part, top in ((np.flatnonzero(near), recent), (np.flatnonzero(~near), None)):
            if not len(part):
                continue
            top = int(highest[part].min()) if top is None else top
            bits = [m for m in self.marks if m[0] + len(m[1]) > top]
            marks = np.concatenate([m[1] for m in bits])
            # By vertices, so that threads have the same to do.
            cuts = np.searchsorted(
                np.cumsum(sizes[part]),
                np.arange(1, self.workers.threads) * sizes[part].sum() / self.workers.threads,
            )
            for own in np.split(part, cuts):
                if len(own):
                    some = arcs.take(own)
                    chosen.append(own)
                    jobs.append((some, least[own], marks.copy(), bits[0][0]))

        def work(
            job: tuple[_Pieces, Ints, NDArray[np.uint8], int],
        ) -> tuple[NDArray[np.int32], Ints]:
            some, least, marks, top = job
            peucker = self.shape.method != METHODS[0]
            tolerance = float(self.shape.tolerance)
            return simplify(some.xy, some.offsets, least, tolerance, peucker, marks, top)

        done = list(self.workers.map(work, jobs, len(jobs)))
        numbers = np.concatenate(chosen)
        lengths = np.concatenate([np.diff(offsets) for _, offsets in done])
        return _Pieces(
            np.concatenate([xy for xy, _ in done]),
            np.concatenate(([0], np.cumsum(lengths))),
            arcs.ends[numbers],
            arcs.headings[numbers],
            arcs.sides[numbers],
        )

    def _closed(
        self,
        arcs: _Pieces,
        rim: NDArray[np.bool_],
        regions: _Regions,
        groups: NDArray[np.int32],
        is_open: NDArray[np.bool_],
    ) -> Closed | None:
        """The features of which nothing is open."""
        # Half arcs: each arc as its right region has it, and turned round as its left has it.
        arc, backward, side = [], [], []
        for column, back in ((1, False), (0, True)):
            own = arcs.sides[:, column]
            found = np.flatnonzero((own > 0) & ~is_open[groups[own]])
            arc.append(found)
            side.append(own[found])
            backward.append(np.full(len(found), back))
        numbers, region, turned = (np.concatenate(a) for a in (arc, side, backward))
        if not len(numbers):
            return None
        first = regions.pixels[:, 1]
        group_first = np.full(len(groups), np.iinfo(np.int64).max)
        np.minimum.at(group_first, groups, first)
        members = np.unique(region)
        members = members[np.lexsort((first[members], group_first[groups[members]]))]
        rank = np.zeros(len(groups), np.int64)
        rank[members] = np.arange(len(members))
        ends, headings = arcs.ends[numbers], arcs.headings[numbers]
        begins = np.where(turned, ends[:, 1], ends[:, 0])
        arrives = np.where(turned, ends[:, 0], ends[:, 1])
        opposite = (headings + 2) & 3
        leaving = np.where(turned, opposite[:, 1], headings[:, 0])
        coming = np.where(turned, opposite[:, 0], headings[:, 1])
        order = np.lexsort((leaving, begins, rank[region]))
        numbers = numbers[order]
        offsets = np.searchsorted(rank[region][order], np.arange(len(members) + 1))
        xy: NDArray[Any] = arcs.xy
        arc_offsets = arcs.offsets
        if self.shape.smooth > 0:
            used = np.unique(numbers)
            some = arcs.take(used)
            xy, arc_offsets = smooth(
                some.xy,
                some.offsets,
                rim[used],
                some.headings[:, 0] < 0,
                self.shape.smooth,
                CUT,
            )
            numbers = np.searchsorted(used, numbers)
        rings = kernels.assemble(
            xy,
            arc_offsets,
            numbers,
            turned[order],
            begins[order],
            arrives[order],
            leaving[order].astype(np.int8),
            coming[order].astype(np.int8),
            offsets,
            self.shape.reverse,
        )
        feature = groups[members]
        starts = np.flatnonzero(np.diff(feature, prepend=-1))
        confidence = regions.confidence[members]
        return Closed(
            Rings(*rings),
            np.append(starts, len(members)),
            regions.codes[members[starts]],
            np.add.reduceat(regions.pixels[members, 0], starts),
            first[members[starts]],
            np.column_stack(
                (
                    np.add.reduceat(confidence[:, 0], starts),
                    np.add.reduceat(confidence[:, 1], starts),
                    np.minimum.reduceat(confidence[:, 2], starts),
                )
            ),
            np.add.reduceat(regions.probs[members], starts),
        )


def _roots(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each element's root; every parent is smaller than its child."""
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return above
        parent = above


def _gather(one: _Regions, other: _Regions, roots: NDArray[np.int32]) -> _Regions:
    """Two tables of regions, one after the other, with what is united in the root's entry."""
    codes = np.concatenate((one.codes, other.codes[1:]))
    pixels = np.concatenate((one.pixels, other.pixels[1:]))
    confidence = np.concatenate((one.confidence, other.confidence[1:]))
    merged = np.flatnonzero(roots != np.arange(len(roots)))
    into = roots[merged]
    np.add.at(pixels[:, 0], into, pixels[merged, 0])
    np.minimum.at(pixels[:, 1], into, pixels[merged, 1])
    for column in (0, 1):
        np.add.at(confidence[:, column], into, confidence[merged, column])
    np.minimum.at(confidence[:, 2], into, confidence[merged, 2])
    before = one.probs if one.probs.shape[1] else np.zeros((len(one.codes), other.probs.shape[1]))
    probs = np.concatenate((before, other.probs[1:]))
    np.add.at(probs, into, probs[merged])
    return _Regions(codes, pixels, confidence, probs)
