"""Rings of regions out of the arcs around them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel
from geoseg.geo.geodesy import Rings
from geoseg.polygons.kernels.arcs import reverse

__all__ = ["HalfArcs", "assemble"]


class HalfArcs(NamedTuple):
    """M half arcs: each is an arc as one of the two regions beside it has it, on its right.

    They are in the order of regions, and in each of the nodes where they begin.

    Attributes:
        arc: (M,) int64, which arc.
        backward: (M,) bool, whether it is taken from its end.
        begins: (M,) int64, nodes at which they begin, so taken.
        arrives: (M,) int64, nodes at which they end.
        leaving: (M,) int8, headings in which they begin.
        coming: (M,) int8, headings in which they end.
        regions: (R + 1,) int64; region r has those from ``regions[r]`` to ``regions[r + 1] - 1``.
    """

    arc: NDArray[np.int64]
    backward: NDArray[np.bool_]
    begins: NDArray[np.int64]
    arrives: NDArray[np.int64]
    leaving: NDArray[np.int8]
    coming: NDArray[np.int8]
    regions: NDArray[np.int64]


@kernel
def _following(half: HalfArcs) -> NDArray[np.int64]:
    """Find the half arc that comes next in each one's ring, (M,)."""
    following = np.empty(len(half.arc), np.int64)
    for r in range(len(half.regions) - 1):
        low, high = half.regions[r], half.regions[r + 1]
        for i in range(low, high):
            node = half.arrives[i]
            a, b = low, high
            while a < b:
                middle = (a + b) // 2
                if half.begins[middle] < node:
                    a = middle + 1
                else:
                    b = middle
            # Where two begin, the region meets itself: take the one that turns left.
            left = (half.coming[i] + 3) & 3
            if a + 1 < high and half.begins[a + 1] == node and half.leaving[a] != left:
                a += 1
            following[i] = a
    return following


@kernel
def _signed_area(
    xy: NDArray[Any],
    offsets: NDArray[np.int64],
    half: HalfArcs,
    following: NDArray[np.int64],
    start: int,
    done: NDArray[np.bool_],
) -> float:
    """Twice the area of the ring that half arc ``start`` is in; the ring's are set in ``done``."""
    area = 0.0
    x0, y0 = 0.0, 0.0
    base_x, base_y = 0.0, 0.0
    opening = True
    i = start
    while not done[i]:
        done[i] = True
        low, high, backward = offsets[half.arc[i]], offsets[half.arc[i] + 1], half.backward[i]
        for k in range(high - low):
            at = high - 1 - k if backward else low + k
            x1, y1 = float(xy[at, 0]), float(xy[at, 1])
            if opening:
                base_x, base_y = x1, y1
                opening = False
            x1, y1 = x1 - base_x, y1 - base_y
            area += x0 * y1 - x1 * y0
            x0, y0 = x1, y1
        i = following[i]
    return area


@kernel
def _write_ring(
    xy: NDArray[Any],
    offsets: NDArray[np.int64],
    half: HalfArcs,
    following: NDArray[np.int64],
    start: int,
    out: NDArray[np.float64],
    begin: int,
) -> int:
    """Write the closed ring of half arc ``start`` from ``out[begin]`` on; where it ends."""
    count = begin
    i = start
    while True:
        low, high, backward = offsets[half.arc[i]], offsets[half.arc[i] + 1], half.backward[i]
        # The last vertex is the first of the next arc.
        for k in range(high - low - 1):
            at = high - 1 - k if backward else low + k
            out[count, 0], out[count, 1] = xy[at, 0], xy[at, 1]
            count += 1
        i = following[i]
        if i == start:
            break
    out[count, 0], out[count, 1] = out[begin, 0], out[begin, 1]
    return count + 1


@kernel
def assemble(xy: NDArray[Any], offsets: NDArray[np.int64], half: HalfArcs, turned: bool) -> Rings:
    """Make the rings of regions, each region one polygon.

    Args:
        xy: (V, 2) of all arcs.
        offsets: (A + 1,) arc a is ``xy[offsets[a]:offsets[a + 1]]``.
        half: the regions' half arcs.
        turned: have the region on the left.
    """
    # Where one half arc of a region ends, another one begins: so each has one that follows, and
    # following them comes round. Where a region meets itself at a corner, two begin; the ring goes
    # round the pixel across the corner (turns left), so that no ring comes to a point twice: the
    # outside and the hole only touch. Of a region's rings the outside is the one that goes round
    # the other way; it is written first.
    following = _following(half)
    many = len(half.arc)
    length = 0
    for i in range(many):
        length += offsets[half.arc[i] + 1] - offsets[half.arc[i]]
    out = np.empty((length + many, 2))
    ring_offsets = np.zeros(many + 1, np.int64)
    polygon_offsets = np.zeros(len(half.regions), np.int64)
    starts = np.empty(many, np.int64)
    done = np.zeros(many, np.bool_)
    rings = 0
    for r in range(len(half.regions) - 1):
        found, exterior = 0, 0
        for start in range(half.regions[r], half.regions[r + 1]):
            if done[start]:
                continue
            if _signed_area(xy, offsets, half, following, start, done) > 0:
                exterior = found
            starts[found] = start
            found += 1
        starts[0], starts[exterior] = starts[exterior], starts[0]
        for ring in range(found):
            begin = ring_offsets[rings]
            end = _write_ring(xy, offsets, half, following, starts[ring], out, begin)
            if turned:
                reverse(out[begin:end])
            rings += 1
            ring_offsets[rings] = end
        polygon_offsets[r + 1] = rings
    ring_offsets = ring_offsets[: rings + 1].copy()
    return Rings(out[: ring_offsets[rings]].copy(), ring_offsets, polygon_offsets)
