"""Arcs out of pieces, where two strips meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel
from geoseg.polygons.kernels.arcs import Arcs, reverse

__all__ = ["join"]


@kernel
def _links(ends: NDArray[np.int64], before: int, width: int) -> NDArray[np.int64]:
    """Find which end of which piece each end meets.

    Args:
        ends: of :class:`Arcs`; the first ``before`` pieces are of the strips above.
        before: see ``ends``.
        width: of the raster.

    Returns:
        (A, 2): 2 * piece + 0 for its first end or 1 for its last one; -1 for an end that meets
        none: it is at a node, or goes on below.
    """
    links = np.full((len(ends), 2), -1, np.int64)
    waiting = np.full(width + 1, -1, np.int64)
    for p in range(before):
        for e in range(2):
            if ends[p, e] < 0:
                waiting[(-ends[p, e] - 2) // 2] = 2 * p + e
    for p in range(before, len(ends)):
        for e in range(2):
            if ends[p, e] < 0 and ends[p, e] % 2 == 1:
                other = waiting[(-ends[p, e] - 1) // 2]
                links[p, e] = other
                links[other // 2, other % 2] = 2 * p + e
    return links


@kernel
def _turned(heading: int) -> int:
    """Turn a heading round; -1 stays."""
    return heading if heading < 0 else (heading + 2) & 3


@kernel
def _add_chain(
    pieces: Arcs,
    links: NDArray[np.int64],
    start: int,
    done: NDArray[np.bool_],
    joined: Arcs,
    number: int,
) -> None:
    """Write down a chain of pieces as one arc, until nothing follows or it is round.

    Args:
        pieces: to be joined.
        links: of :func:`_links`.
        start: the first piece; the chain begins at its free end, at its first one if none is free.
        done: (A,) set for every piece of the chain.
        joined: where the arc goes.
        number: of the arc there.
    """
    p = start
    e = 1 if links[p, 0] >= 0 and links[p, 1] < 0 else 0
    count = joined.offsets[number]
    joined.ends[number, 0] = pieces.ends[p, e]
    joined.sides[number, 0] = pieces.sides[p, e]
    joined.sides[number, 1] = pieces.sides[p, 1 - e]
    heading = pieces.headings[p, e]
    joined.headings[number, 0] = heading if e == 0 else _turned(heading)
    while True:
        done[p] = True
        low, high = pieces.offsets[p], pieces.offsets[p + 1]
        first, step = (low, 1) if e == 0 else (high - 1, -1)
        for k in range(high - low):
            joined.xy[count, 0] = pieces.xy[first + k * step, 0]
            joined.xy[count, 1] = pieces.xy[first + k * step, 1]
            count += 1
        e = 1 - e
        following = links[p, e]
        if following < 0 or following // 2 == start:
            break
        p, e = following // 2, following % 2
    joined.ends[number, 1] = pieces.ends[p, e]
    heading = pieces.headings[p, e]
    joined.headings[number, 1] = heading if e == 1 else _turned(heading)
    joined.offsets[number + 1] = count


@kernel
def _direct(arcs: Arcs, number: int) -> None:
    """Give an arc between nodes the direction that it has, whatever the strips were.

    From the node of the smaller number to the other; where it comes back to its node, it leaves
    by the smaller heading.
    """
    a, b = arcs.ends[number, 0], arcs.ends[number, 1]
    leaves, back_out = arcs.headings[number, 0], (arcs.headings[number, 1] + 2) & 3
    if b < a or (a == b and back_out < leaves):
        reverse(arcs.xy[arcs.offsets[number] : arcs.offsets[number + 1]])
        arcs.ends[number, 0], arcs.ends[number, 1] = b, a
        arcs.headings[number, 0], arcs.headings[number, 1] = back_out, (leaves + 2) & 3
        left, right = arcs.sides[number, 0], arcs.sides[number, 1]
        arcs.sides[number, 0], arcs.sides[number, 1] = right, left


@kernel
def _turn_loop(xy: NDArray[np.int32], count: int) -> Any:
    """Have a loop of ``count`` vertices begin at its topmost, then leftmost one, heading east.

    Args:
        xy: (count + 1, 2), changed in place; the first vertex is repeated at the end.
        count: at least 4.

    Returns:
        Whether the loop was turned round.
    """
    best = 0
    for k in range(1, count):
        if xy[k, 1] < xy[best, 1] or (xy[k, 1] == xy[best, 1] and xy[k, 0] < xy[best, 0]):
            best = k
    turned = np.empty((count, 2), np.int32)
    # East of the topmost, leftmost vertex is the one in the same row.
    back = xy[(best + 1) % count, 1] != xy[best, 1]
    for k in range(count):
        at = (best - k) % count if back else (best + k) % count
        turned[k, 0], turned[k, 1] = xy[at, 0], xy[at, 1]
    for k in range(count + 1):
        xy[k, 0], xy[k, 1] = turned[k % count, 0], turned[k % count, 1]
    return back


@kernel
def _close(arcs: Arcs, number: int, width: int) -> None:
    """Make a loop of an arc whose pieces came round, begun where it does whatever the strips."""
    begin, count = arcs.offsets[number], arcs.offsets[number + 1]
    back = _turn_loop(arcs.xy[begin : count + 1], count - begin)
    arcs.offsets[number + 1] = count + 1
    first = arcs.xy[begin, 1] * np.int64(width + 1) + arcs.xy[begin, 0]
    arcs.ends[number, 0], arcs.ends[number, 1] = first, first
    arcs.headings[number, 0], arcs.headings[number, 1] = -1, -1
    if back:
        left, right = arcs.sides[number, 0], arcs.sides[number, 1]
        arcs.sides[number, 0], arcs.sides[number, 1] = right, left


@kernel
def join(pieces: Arcs, before: int, width: int) -> tuple[Arcs, NDArray[np.bool_]]:
    """Put pieces together where the strip above ends.

    Args:
        pieces: of :func:`~geoseg.polygons.kernels.tracing.trace`, those of the strips above first.
        before: how many of them are of the strips above; all of these go on below.
        width: of the raster.

    Returns:
        What was put together, and whether each is a whole arc, (A,).
    """
    # Two pieces that end at one column between the strips are linked, end to end. A chain of
    # linked pieces is walked from a piece with a free end to the next free end; it is a whole arc
    # where both are nodes. Pieces that are left then are of loops across strips, which have no end
    # to begin at. Each whole arc gets a direction, each loop also a start, that are its own.
    total = len(pieces.ends)
    links = _links(pieces.ends, before, width)
    joined = Arcs(
        np.empty((len(pieces.xy) + total, 2), np.int32),
        np.zeros(total + 1, np.int64),
        np.empty((total, 2), np.int64),
        np.full((total, 2), -1, np.int8),
        np.empty((total, 2), np.int32),
    )
    whole = np.zeros(total, np.bool_)
    done = np.zeros(total, np.bool_)
    number: Any = np.int64(0)  # see tracing.trace
    for start in range(total):
        if done[start] or (links[start, 0] >= 0 and links[start, 1] >= 0):
            continue
        _add_chain(pieces, links, start, done, joined, number)
        whole[number] = joined.ends[number, 0] >= 0 and joined.ends[number, 1] >= 0
        if whole[number] and joined.headings[number, 0] >= 0:
            _direct(joined, number)
        number += 1
    for start in range(total):
        if not done[start]:
            _add_chain(pieces, links, start, done, joined, number)
            _close(joined, number, width)
            whole[number] = True
            number += 1
    arcs = Arcs(
        joined.xy[: joined.offsets[number]].copy(),
        joined.offsets[: number + 1].copy(),
        joined.ends[:number].copy(),
        joined.headings[:number].copy(),
        joined.sides[:number].copy(),
    )
    return arcs, whole[:number].copy()
