"""Which region takes a small one, and what they share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.heap import pop, push
from geoseg.core.jit import kernel

__all__ = ["Neighbours", "borders", "takers"]


@kernel
def borders(
    labels: NDArray[np.int32], asked: NDArray[np.bool_], sideways: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """List the sides of pixels between regions, each as one number, a * regions + b; and lengths.

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


class Neighbours(NamedTuple):
    """Which regions touch.

    Attributes:
        starts: (R + 1,) int64; region r touches ``regions[starts[r]:starts[r + 1]]``.
        regions: int64.
        lengths: float64, of the borders with them.
    """

    starts: NDArray[np.int64]
    regions: NDArray[np.int64]
    lengths: NDArray[np.float64]


class _Groups(NamedTuple):
    """Regions that grow by taking others; a group goes by its taker's number.

    Attributes:
        parent: (R,) int64 union-find: each region's taker, or itself.
        chain: (R,) int64, the next member of the group, or -1; a group's list begins with its
            taker.
        tail: (R,) int64, the last member of each taker's list.
        size: (R,) int64, areas in small units.
        first: (R,) int64, numbers of the first pixels.
        codes: (R,) uint8, classes.
        probability: (R, C) float64, sums over the pixels, or (0, 0).
    """

    parent: NDArray[np.int64]
    chain: NDArray[np.int64]
    tail: NDArray[np.int64]
    size: NDArray[np.int64]
    first: NDArray[np.int64]
    codes: NDArray[np.uint8]
    probability: NDArray[np.float64]


@kernel
def _touched(
    groups: _Groups,
    region: int,
    neighbours: Neighbours,
    touched: NDArray[np.int64],
    shared: NDArray[np.float64],
) -> int:
    """List the groups around one in ``touched``, add up their borders in ``shared``; how many."""
    parent = groups.parent
    near = 0
    member = region
    while member >= 0:
        for k in range(neighbours.starts[member], neighbours.starts[member + 1]):
            other = neighbours.regions[k]
            while parent[other] != other:
                parent[other] = parent[parent[other]]
                other = parent[other]
            if other == region:
                continue
            if shared[other] == 0:
                touched[near] = other
                near += 1
            shared[other] += neighbours.lengths[k]
        member = groups.chain[member]
    return near


@kernel
def _best(
    groups: _Groups, region: int, touched: NDArray[np.int64], shared: NDArray[np.float64]
) -> Any:
    """Choose who takes a region, of the groups that touch it.

    The one whose class has the highest mean probability over the region's pixels; without
    probabilities, the one of the longest shared border; of equals the larger, then the first one.
    """
    taker = touched[0]
    for k in range(1, len(touched)):
        other = touched[k]
        gain = 0.0
        if len(groups.probability):
            own = groups.probability[region]
            gain = own[groups.codes[other]] - own[groups.codes[taker]]
        if gain == 0.0:
            gain = shared[other] - shared[taker]
        if gain == 0.0:
            gain = float(groups.size[other] - groups.size[taker])
        if gain > 0 or (gain == 0.0 and groups.first[other] < groups.first[taker]):
            taker = other
    return taker


@kernel
def _take(groups: _Groups, taker: int, other: int) -> None:
    """Make one group part of another."""
    groups.parent[other] = taker
    groups.size[taker] += groups.size[other]
    groups.first[taker] = min(groups.first[taker], groups.first[other])
    if len(groups.probability):
        groups.probability[taker] += groups.probability[other]
    groups.chain[groups.tail[taker]] = other
    groups.tail[taker] = groups.tail[other]


@kernel
def _flatten(parent: NDArray[np.int64]) -> None:
    """Have every region point to its taker's taker, and so on to the last one."""
    for r in range(len(parent)):
        top = r
        while parent[top] != top:
            top = parent[top]
        parent[r] = top


@kernel
def takers(
    size: NDArray[np.int64],
    limit: NDArray[np.int64],
    first: NDArray[np.int64],
    codes: NDArray[np.uint8],
    neighbours: Neighbours,
    probability: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Decide who takes whom.

    Args:
        size: (R,) areas in small units; changed.
        limit: (R,) a region below this goes, in the same units.
        first: (R,) numbers of the first pixels, for ties; changed.
        codes: (R,) classes.
        neighbours: of all regions that may go.
        probability: (R, C) sums over the pixels, or (0, 0); changed.

    Returns:
        (R,) each region's taker, or itself.
    """
    # The smallest region goes first, to the best of the groups around it as they are by then. The
    # taker's class may meet itself on the far side: those regions become one at once. What is
    # still too small goes back to the heap; entries there of regions that have gone or grown
    # since are passed over.
    count = len(size)
    groups = _Groups(
        np.arange(count),
        np.full(count, -1, np.int64),
        np.arange(count),
        size,
        first,
        codes,
        probability,
    )
    shared = np.zeros(count)
    touched = np.empty(count, np.int64)
    heap = np.empty((2 * count + 2, 3), np.int64)
    entries = 0
    for r in range(count):
        if size[r] < limit[r]:
            entries = push(heap, entries, size[r], first[r], r)
    while entries > 0:
        known, region = heap[0, 0], heap[0, 2]
        entries = pop(heap, entries)
        if groups.parent[region] != region or size[region] != known:
            continue
        near = touched[: _touched(groups, region, neighbours, touched, shared)]
        if len(near) == 0:
            continue  # nodata all around: it stays
        taker = _best(groups, region, near, shared)
        for k in range(len(near)):
            other = near[k]
            shared[other] = 0.0
            if other == taker:
                _take(groups, taker, region)
            elif codes[other] == codes[taker]:
                _take(groups, taker, other)
        if size[taker] < limit[taker]:
            entries = push(heap, entries, size[taker], first[taker], taker)
    _flatten(groups.parent)
    return groups.parent
