"""Small regions of a class map go to their neighbours, before polygons are made.

Two passes: the first labels strip by strip and keeps a line a region and one a border of a small
region; then it is decided who takes whom; the second labels the same strips again and gives each
region its class. Memory grows with the number of regions, not with that of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.geodesy import Floats, GroundGrid, Ints
from geoseg.polygons.kernels.absorbing import Neighbours, borders, takers
from geoseg.polygons.kernels.regions import corner_pairs, label, roots_of, unite
from geoseg.polygons.strips import CodeRows

__all__ = ["Limits", "merge"]


@dataclass(frozen=True)
class Limits:
    """What is too small.

    Attributes:
        area: (C,) for each code, square metres; a smaller region goes.
        hole: (C,) for each code, square metres; a hole of classes in a region of this code is
            filled when smaller.
        pixels: a region of fewer goes.
    """

    area: Floats
    hole: Floats
    pixels: int

    @property
    def metric(self) -> bool:
        """Whether square metres are asked for."""
        return bool(self.area.any() or self.hole.any())


def merge(
    strips: Callable[[], Iterable[CodeRows]],
    grid: GroundGrid,
    limits: Limits,
    connectivity: int = 4,
) -> Iterator[CodeRows]:
    """Give small regions their neighbour's class.

    Args:
        strips: gives the map's strips from above to below, the same each time.
        grid: the map's.
        limits: what is small.
        connectivity: 4 or 8: what a region is.

    Yields:
        The strips. A region with nothing but nodata around it stays, whatever its size.
    """
    codes = _merged_codes(strips(), grid, limits, connectivity)
    above = np.zeros((1, grid.width), np.uint8)
    used = 0
    none = np.zeros((0, grid.width), np.float32)
    for strip in strips():
        labels, own, *_ = label(np.concatenate((above, strip.codes)), 0, none)
        table = np.concatenate((np.zeros(1, np.uint8), codes[used : used + len(own) - 1]))
        used += len(own) - 1
        above = strip.codes[-1:]
        yield strip._replace(codes=table[labels[1:]])


def _merged_codes(
    strips: Iterable[CodeRows], grid: GroundGrid, limits: Limits, connectivity: int
) -> NDArray[np.uint8]:
    """Find the codes of all strips' regions, one strip after another."""
    # What strips call regions are parts; they are united to the map's regions, what is known of
    # parts is added up, and each part gets the code of its region's taker.
    parts = _Parts.joined(_parts(strips, grid, limits, connectivity))
    if not len(parts.codes):
        return parts.codes
    roots, region = _united(parts)
    many = len(roots)
    codes = parts.codes[roots]
    first = np.full(many, np.iinfo(np.int64).max)
    np.minimum.at(first, region, parts.pixels[:, 1])
    pixels = np.bincount(region, parts.pixels[:, 0], many)
    size = np.bincount(region, parts.areas, many).astype(np.float64)
    rim = np.bincount(region, parts.rim, many) > 0
    neighbours = _neighbours(parts, region, many)
    # Of fewer pixels than that, whatever their size here.
    fewer = max(0.0, limits.pixels - 0.5) * size / pixels
    limit = np.maximum(limits.area[codes], fewer)
    limit = np.maximum(limit, _holes(limits, size, codes, rim, neighbours))
    probability = np.zeros((0, 0))
    if parts.probs.shape[1]:
        probability = np.stack([np.bincount(region, p, many) for p in parts.probs.T], axis=1)
    # Areas as whole numbers, so that equal ones are equal however they were summed.
    unit = size.sum() / max(pixels.sum(), 1.0) / 1e6
    taker = takers(
        np.rint(size / unit).astype(np.int64),
        np.ceil(np.minimum(limit / unit, 4e18)).astype(np.int64),
        first,
        codes,
        neighbours,
        probability,
    )
    return np.asarray(codes[taker][region])


class _Parts(NamedTuple):
    """What strips know of their regions, P in all; the first part has number 0.

    Attributes:
        codes: (P,) uint8.
        pixels: (P, 2) how many, and the number of the first one.
        areas: (P,) square metres; pixels where no metres are asked for.
        probs: (P, C) sums of each code's; (P, 0) without.
        rim: (P,) whether it touches nodata or the raster's edge.
        pairs: (2, B) parts that have a border, where one of them is small.
        lengths: (B,) of these borders, in heights of a pixel.
        joins: (2, J) parts that are of one region.
    """

    codes: NDArray[np.uint8]
    pixels: Ints
    areas: Floats
    probs: Floats
    rim: NDArray[np.bool_]
    pairs: Ints
    lengths: Floats
    joins: Ints

    @classmethod
    def joined(cls, strips: Iterable[_Parts]) -> _Parts:
        """Put those of all strips one after another."""
        columns = zip(*strips, strict=True)
        across = {cls._fields.index("pairs"), cls._fields.index("joins")}
        return cls(
            *(np.concatenate(c, axis=1 if i in across else 0) for i, c in enumerate(columns))
        )


def _parts(
    strips: Iterable[CodeRows], grid: GroundGrid, limits: Limits, connectivity: int
) -> Iterator[_Parts]:
    """Label each strip, and measure its regions."""
    width, height = grid.pixel_size() if grid.is_on_ground else (1.0, 1.0)
    # In whole 1024ths: borders of the same length must be the same number.
    sideways = max(1, round(1024 * width / height)) / 1024
    used, top = 0, 0
    above = np.zeros((1, grid.width), np.uint8)
    last = np.zeros(grid.width, np.int64)  # parts in the row above, from 1 on
    for strip in strips:
        n = len(strip.codes)
        padded = np.concatenate((above, strip.codes))
        labels, own, found, _ = label(padded, top * grid.width, strip.confidence[:0])
        area: Floats = found[:, 0].astype(np.float64)
        if limits.metric:
            # Where there is no ground, there is no area.
            each = np.nan_to_num(grid.pixel_areas(top, top + n), copy=False)
            area = np.bincount(labels[1:].ravel(), each.ravel(), len(own)).astype(np.float64)
        small = area < np.maximum(limits.area[own], limits.hole.max())
        small |= found[:, 0] < limits.pixels
        sides, length, rim = borders(labels, small, sideways)
        sides, inverse = np.unique(sides, return_inverse=True)
        if top + n == grid.height:
            rim[labels[-1]] = True
        met = (last > 0) & (labels[0] > 0)
        joins = np.unique(np.stack((last[met] - 1, labels[0][met] + (used - 1))), axis=1)
        if connectivity == 8:
            one, other = corner_pairs(padded, labels)
            corners = np.unique(np.stack((one, other)), axis=1).astype(np.int64) + (used - 1)
            joins = np.concatenate((joins, corners), axis=1)
        yield _Parts(
            own[1:],
            found[1:],
            area[1:],
            _sums(strip.probs, labels[1:], len(own))[1:],
            rim[1:],
            np.stack(np.divmod(sides, len(own))) + (used - 1),
            np.bincount(inverse, length, len(sides)).astype(np.float64),
            joins,
        )
        last = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + used, 0)
        used += len(own) - 1
        top += n
        above = strip.codes[-1:]


def _sums(probs: NDArray[np.float32], labels: NDArray[np.int32], count: int) -> Floats:
    """Add up probabilities for each label, (count, C); (count, 0) where there are none."""
    if not len(probs):
        return np.zeros((count, 0))
    flat = labels.ravel()
    sums = [np.bincount(flat, np.nan_to_num(p).ravel(), count) for p in probs]
    return np.stack([np.zeros(count), *sums], axis=1)


def _united(parts: _Parts) -> tuple[NDArray[np.int32], Ints]:
    """Number the regions of the map, M of P parts.

    Returns:
        (M,) the first part of each; (P,) the region that each part is of.
    """
    one, other = (parts.joins + 1).astype(np.int32)
    parent = np.arange(len(parts.codes) + 1, dtype=np.int32)
    unite(parent, one, other, 0)
    roots, region = np.unique(roots_of(parent)[1:] - 1, return_inverse=True)
    return roots, region.astype(np.int64)


def _neighbours(parts: _Parts, region: Ints, many: int) -> Neighbours:
    """List for each region those that it touches; both ways, and each pair once."""
    pairs = region[parts.pairs]
    away = pairs[0] != pairs[1]
    both = np.concatenate((pairs[:, away], pairs[::-1, away]), axis=1)
    twice = np.concatenate((parts.lengths[away], parts.lengths[away]))
    joint, inverse = np.unique(both[0] * many + both[1], return_inverse=True)
    return Neighbours(
        np.searchsorted(joint, np.arange(many + 1) * many),
        joint % many,
        np.bincount(inverse, twice, len(joint)).astype(np.float64),
    )


def _holes(
    limits: Limits,
    size: Floats,
    codes: NDArray[np.uint8],
    rim: NDArray[np.bool_],
    neighbours: Neighbours,
) -> Floats:
    """Find below which size a region goes because it lies in a hole, (R,).

    A hole is a group of regions below the largest limit that touch one another, not nodata, and
    one other region alone; or a region with one neighbour.
    """
    starts, touching, _ = neighbours
    limit = np.zeros(len(size))
    most = limits.hole.max()
    if most == 0:
        return limit
    alone = np.flatnonzero((np.diff(starts) == 1) & ~rim)
    alone = alone[size[alone] < limits.hole[codes[touching[starts[alone]]]]]
    limit[alone] = np.inf
    small = size < most
    group = np.full(len(size), -1)
    for first in np.flatnonzero(small & (group < 0)).tolist():
        if group[first] >= 0:
            continue
        members, around = [first], set()
        group[first] = first
        for member in members:
            for other in touching[starts[member] : starts[member + 1]].tolist():
                if not small[other]:
                    around.add(other)
                elif group[other] < 0:
                    group[other] = first
                    members.append(other)
        if len(around) == 1 and not rim[members].any():
            hole = limits.hole[codes[around.pop()]]
            if size[members].sum() < hole:
                limit[members] = np.inf
    return limit
