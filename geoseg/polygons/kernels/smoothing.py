"""Corners of arcs are cut (Chaikin, 1974).

Each cut is within half a pixel of its vertex. Vertices are a pixel or more apart, so the cuts of
two vertices never meet, and arcs that touched nothing still do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = ["CUT", "smooth"]

#: How far from a vertex its corner is cut at most, px; below half of the least distance.
CUT = 0.45


@kernel
def _cut_corners(
    xy: NDArray[np.float64], n: int, cyclic: bool, cut: float, out: NDArray[np.float64]
) -> int:
    """Cut each corner of an arc once.

    Args:
        xy: its vertices.
        n: how many.
        cyclic: whether its first vertex is a corner, too.
        cut: the longest way from a vertex, px.
        out: where the new vertices go.

    Returns:
        How many they are.
    """
    count = 0
    if not cyclic:
        out[0] = xy[0]
        count = 1
    for k in range(0 if cyclic else 1, n - 1):
        for side in range(2):
            other = k + 1
            if side == 0:
                other = k - 1 if k > 0 else n - 2
            dx, dy = xy[other, 0] - xy[k, 0], xy[other, 1] - xy[k, 1]
            part = min(0.25, cut / np.hypot(dx, dy))
            out[count, 0] = xy[k, 0] + part * dx
            out[count, 1] = xy[k, 1] + part * dy
            count += 1
    out[count] = out[0] if cyclic else xy[n - 1]
    return count + 1


@kernel
def smooth(
    xy: NDArray[np.int32],
    offsets: NDArray[np.int64],
    fixed: NDArray[np.bool_],
    cyclic: NDArray[np.bool_],
    times: int,
    cut: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Cut corners: a vertex becomes two, a quarter of the way to its neighbours, again and again.

    Args:
        xy: (V, 2) whole numbers.
        offsets: (A + 1,) arc a is ``xy[offsets[a]:offsets[a + 1]]``.
        fixed: (A,) which arcs stay as they are.
        cyclic: (A,) which are loops without a node, so that their first vertex is a corner, too.
        times: cuts.
        cut: the longest way, px.

    Returns:
        xy and offsets.
    """
    # Arc by arc, vertices go to and fro between two buffers, a cut each time.
    arcs = len(offsets) - 1
    total, longest = 0, 0
    for a in range(arcs):
        n = offsets[a + 1] - offsets[a]
        total += n if fixed[a] else (n << times) + 1
        longest = max(longest, (n << times) + 1)
    out = np.empty((total, 2))
    out_offsets = np.zeros_like(offsets)
    one = np.empty((longest, 2))
    other = np.empty((longest, 2))
    count = 0
    for a in range(arcs):
        n = offsets[a + 1] - offsets[a]
        for k in range(n):
            one[k, 0], one[k, 1] = xy[offsets[a] + k, 0], xy[offsets[a] + k, 1]
        if not fixed[a]:
            for _ in range(times):
                n = _cut_corners(one, n, cyclic[a], cut, other)
                one, other = other, one
        for k in range(n):
            out[count] = one[k]
            count += 1
        out_offsets[a + 1] = count
    return out[:count].copy(), out_offsets
