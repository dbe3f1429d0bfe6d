"""Small regions of a class map go to their neighbours, before polygons are made.

Two passes: the first labels strip by strip and keeps a line a region and one a border of a small
region; then it is decided who takes whom; the second labels the same strips again and gives each
region its class. Memory grows with the number of regions, not with that of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel
from geoseg.geo.geodesy import GroundGrid
from geoseg.polygons import arcs as kernels
from geoseg.polygons.coverage import CodeRows

__all__ = ["Limits", "merge"]


@dataclass(frozen=True)
class Limits:
    """What is too small.

    Attributes:
        area: (C,) for each code, square metres; a smaller region goes.
        hole: (C,) likewise; a hole of classes in a region of this code is filled when smaller.
        pixels: a region of fewer goes.
    """

    area: NDArray[np.float64]
    hole: NDArray[np.float64]
    pixels: int

    @property
    def metric(self) -> bool:
        """Whether square metres are asked for."""
        return bool(self.area.any() or self.hole.any())


@kernel
def _borders(
    labels: NDArray[np.int32], asked: NDArray[np.bool_], sideways: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Sides of pixels between regions, each as one number, a * regions + b; and their lengths.

    Args:
        labels: (N, W); row 0 is the row above.
        asked: (R + 1,) only sides of these regions.
        sideways: length of a pixel's upper side, of its left one 1.

    Returns:
        Pairs, lengths, and (R + 1,) which regions touch nodata within these rows.
    """
    rows, width = labels.shape
    count = 0
    for j in range(1, rows):
        for x in range(width):
            count += labels[j, x] != labels[j - 1, x]
            count += x > 0 and labels[j, x] != labels[j, x - 1]
    pairs = np.empty(count, np.int64)
    lengths = np.empty(count)
    rim = np.zeros(len(asked), np.bool_)
    count = 0
    for j in range(1, rows):
        rim[labels[j, 0]] = True
        rim[labels[j, width - 1]] = True
        for x in range(width):
            own = labels[j, x]
            for side in range(2):
                if side == 1 and x == 0:
                    continue
                other = labels[j - 1, x] if side == 0 else labels[j, x - 1]
                if own == other:
                    continue
                if own == 0 or other == 0:
                    rim[own] = True
                    rim[other] = True
                elif asked[own] or asked[other]:
                    pairs[count] = np.int64(min(own, other)) * len(asked) + max(own, other)
                    lengths[count] = sideways if side == 0 else 1.0
                    count += 1
    return pairs[:count].copy(), lengths[:count].copy(), rim


@kernel
def _decide(
    size: NDArray[np.int64],
    limit: NDArray[np.int64],
    first: NDArray[np.int64],
    codes: NDArray[np.uint8],
    starts: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    lengths: NDArray[np.float64],
    probability: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Who takes whom: the smallest region goes first.

    It goes to the neighbour whose class has the highest mean probability over its pixels; without
    probabilities, to that of the longest shared border; of equals to the larger, then the first
    one. The taker's class may meet itself on the far side: those regions become one at once.

    Args:
        size: (R,) areas in small units.
        limit: (R,) a region below this goes; likewise.
        first: (R,) numbers of the first pixels, for ties.
        codes: (R,) classes.
        starts: (R + 1,) region r touches ``neighbours[starts[r]:starts[r + 1]]``.
        neighbours: regions.
        lengths: of the borders with them.
        probability: (R, C) sums over the pixels, or (0, 0).

    Returns:
        (R,) each region's taker, or itself.
    """
    count = len(size)
    parent = np.arange(count)
    tail = np.arange(count)  # members of a region are a list: itself, then...
    chain = np.full(count, -1, np.int64)
    shared = np.zeros(count)
    touched = np.empty(count, np.int64)
    heap = np.empty((2 * count + 2, 3), np.int64)
    entries = 0
    for r in range(count):
        if size[r] < limit[r]:
            entries = _push(heap, entries, size[r], first[r], r)
    while entries > 0:
        known, region = heap[0, 0], heap[0, 2]
        entries = _pop(heap, entries)
        if parent[region] != region or size[region] != known:
            continue  # it was taken, or grew, since it was put here
        near = 0
        member = region
        while member >= 0:
            for k in range(starts[member], starts[member + 1]):
                other = neighbours[k]
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                if other == region:
                    continue
                if shared[other] == 0:
                    touched[near] = other
                    near += 1
                shared[other] += lengths[k]
            member = chain[member]
        if near == 0:
            continue  # nodata all around: it stays
        taker = touched[0]
        for k in range(1, near):
            other = touched[k]
            gain = 0.0
            if len(probability):
                gain = probability[region, codes[other]] - probability[region, codes[taker]]
            if gain == 0.0:
                gain = shared[other] - shared[taker]
            if gain == 0.0:
                gain = float(size[other] - size[taker])
            if gain > 0 or (gain == 0.0 and first[other] < first[taker]):
                taker = other
        for k in range(near):
            shared[touched[k]] = 0.0
            other = touched[k]
            if other != taker and codes[other] != codes[taker]:
                continue
            if other == taker:
                other = region
            parent[other] = taker
            size[taker] += size[other]
            first[taker] = min(first[taker], first[other])
            if len(probability):
                probability[taker] += probability[other]
            chain[tail[taker]] = other
            tail[taker] = tail[other]
        if size[taker] < limit[taker]:
            entries = _push(heap, entries, size[taker], first[taker], taker)
    for r in range(count):
        top = r
        while parent[top] != top:
            top = parent[top]
        parent[r] = top
    return parent


@kernel
def _before(heap: NDArray[np.int64], i: int, size: int, first: int) -> Any:
    return heap[i, 0] < size or (heap[i, 0] == size and heap[i, 1] < first)


@kernel
def _push(heap: NDArray[np.int64], entries: int, size: int, first: int, region: int) -> int:
    i = entries
    while i > 0:
        above = (i - 1) // 2
        if _before(heap, above, size, first):
            break
        heap[i] = heap[above]
        i = above
    heap[i, 0], heap[i, 1], heap[i, 2] = size, first, region
    return entries + 1


@kernel
def _pop(heap: NDArray[np.int64], entries: int) -> int:
    entries -= 1
    size, first, region = heap[entries, 0], heap[entries, 1], heap[entries, 2]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= entries:
            break
        if below + 1 < entries and _before(heap, below + 1, heap[below, 0], heap[below, 1]):
            below += 1
        if not _before(heap, below, size, first):
            break
        heap[i] = heap[below]
        i = below
    heap[i, 0], heap[i, 1], heap[i, 2] = size, first, region
    return entries


def merge(
    bands: Callable[[], Iterable[CodeRows]], grid: GroundGrid, limits: Limits, connectivity: int = 4
) -> Iterator[CodeRows]:
    """Bands in which small regions have their neighbour's class.

    Args:
        bands: gives the map's bands from above to below, the same each time.
        grid: the map's.
        limits: what is small.
        connectivity: 4 or 8: what a region is.

    Yields:
        The bands. A region with nothing but nodata around it stays, whatever its size.
    """
    codes = _merged_codes(bands(), grid, limits, connectivity)
    above = np.zeros((1, grid.width), np.uint8)
    used = 0
    none = np.zeros((0, grid.width), np.float32)
    for band in bands():
        labels, own, *_ = kernels.label(np.concatenate((above, band.codes)), 0, none)
        table = np.concatenate((np.zeros(1, np.uint8), codes[used : used + len(own) - 1]))
        used += len(own) - 1
        above = band.codes[-1:]
        yield band._replace(codes=table[labels[1:]])


def _merged_codes(
    bands: Iterable[CodeRows], grid: GroundGrid, limits: Limits, connectivity: int
) -> NDArray[np.uint8]:
    """The codes of all strips' regions, one strip after another."""
    width, height = grid.pixel_size() if grid.is_on_ground else (1.0, 1.0)
    # In whole 1024ths: borders of the same length must be the same number.
    sideways = max(1, round(1024 * width / height)) / 1024
    codes, pixels, areas, probs = [], [], [], []
    keys, lengths, rims, joins = [], [], [], []
    used, top = 0, 0
    above = np.zeros((1, grid.width), np.uint8)
    last = np.zeros(grid.width, np.int64)
    for band in bands:
        n = len(band.codes)
        padded = np.concatenate((above, band.codes))
        labels, own, found, _ = kernels.label(padded, top * grid.width, band.confidence[:0])
        area: NDArray[np.float64] = found[:, 0].astype(np.float64)
        if limits.metric:
            # Where there is no ground, there is no area.
            each = np.nan_to_num(grid.pixel_areas(top, top + n), copy=False)
            area = np.bincount(labels[1:].ravel(), each.ravel(), len(own)).astype(np.float64)
        asked = (area < np.maximum(limits.area[own], limits.hole.max())) | (
            found[:, 0] < limits.pixels
        )
        pairs, length, rim = _borders(labels, asked, sideways)
        pairs, inverse = np.unique(pairs, return_inverse=True)
        keys.append(np.stack(np.divmod(pairs, len(own))) + (used - 1))
        lengths.append(np.bincount(inverse, length, len(pairs)))
        if top + n == grid.height:
            rim[labels[-1]] = True
        rims.append(rim[1:])
        met = (last > 0) & (labels[0] > 0)
        joins.append(np.unique(np.stack((last[met] - 1, labels[0][met] + (used - 1))), axis=1))
        if connectivity == 8:
            one, other = kernels.corner_pairs(padded, labels)
            joins.append(np.unique(np.stack((one, other)), axis=1).astype(np.int64) + (used - 1))
        codes.append(own[1:])
        pixels.append(found[1:])
        areas.append(area[1:])
        if len(band.probs):
            flat = labels[1:].ravel()
            sums = [np.bincount(flat, np.nan_to_num(p).ravel(), len(own)) for p in band.probs]
            probs.append(np.stack([np.zeros(len(own)), *sums], axis=1)[1:])
        last = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + used, 0)
        used += len(own) - 1
        top += n
        above = band.codes[-1:]
    code, known, area = np.concatenate(codes), np.concatenate(pixels), np.concatenate(areas)
    count = len(code)
    if not count:
        return code
    a, b = np.concatenate(joins, axis=1)
    parent = np.arange(count + 1, dtype=np.int32)
    kernels.unite(parent, (a + 1).astype(np.int32), (b + 1).astype(np.int32), 0)
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    roots, region = np.unique(parent[1:] - 1, return_inverse=True)
    many = len(roots)
    first = np.full(many, np.iinfo(np.int64).max)
    np.minimum.at(first, region, known[:, 1])
    number = np.bincount(region, known[:, 0], many)
    size = np.bincount(region, area, many).astype(np.float64)
    own = code[roots]
    rim = np.bincount(region, np.concatenate(rims), many) > 0
    # Areas as whole numbers, so that equal ones are equal however they were summed.
    unit = size.sum() / max(number.sum(), 1.0) / 1e6
    # Of fewer pixels than that, whatever their size here.
    fewer = max(0.0, limits.pixels - 0.5) * size / number
    limit = np.maximum(limits.area[own], fewer)
    pairs = region[np.concatenate(keys, axis=1)]
    length = np.concatenate(lengths)
    away = pairs[0] != pairs[1]
    both = np.concatenate((pairs[:, away], pairs[::-1, away]), axis=1)
    twice = np.concatenate((length[away], length[away]))
    joint, inverse = np.unique(both[0] * many + both[1], return_inverse=True)
    starts = np.searchsorted(joint, np.arange(many + 1) * many)
    neighbours = joint % many
    limit = np.maximum(limit, _holes(limits, size, own, rim, starts, neighbours))
    probability = np.zeros((0, 0))
    if probs:
        flat = np.concatenate(probs)
        probability = np.stack([np.bincount(region, p, many) for p in flat.T], axis=1)
    taker = _decide(
        np.rint(size / unit).astype(np.int64),
        np.ceil(np.minimum(limit / unit, 4e18)).astype(np.int64),
        first,
        own,
        starts,
        neighbours,
        np.bincount(inverse, twice, len(joint)).astype(np.float64),
        probability,
    )
    return np.asarray(own[taker][region])


def _holes(
    limits: Limits,
    size: NDArray[np.float64],
    codes: NDArray[np.uint8],
    rim: NDArray[np.bool_],
    starts: NDArray[np.int64],
    neighbours: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(R,) below which size a region goes because it lies in a hole.

    A hole is a group of regions below the largest limit that touch one another, not nodata, and
    one other region alone; or a region with one neighbour.
    """
    limit = np.zeros(len(size))
    most = limits.hole.max()
    if most == 0:
        return limit
    alone = np.flatnonzero((np.diff(starts) == 1) & ~rim)
    alone = alone[size[alone] < limits.hole[codes[neighbours[starts[alone]]]]]
    limit[alone] = np.inf
    small = size < most
    group = np.full(len(size), -1)
    for first in np.flatnonzero(small & (group < 0)).tolist():
        if group[first] >= 0:
            continue
        members, around = [first], set()
        group[first] = first
        for member in members:
            for other in neighbours[starts[member] : starts[member + 1]].tolist():
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
