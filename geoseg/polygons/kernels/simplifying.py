"""Vertices are taken out of arcs, and the topology stays.

A vertex v between a and b goes when the triangle a v b holds no other vertex, of its own arc as it
is by then, or of any other arc as it was at first. Then the step from a v b to a b crosses
nothing: what crossed a b would have to end in the triangle or leave it through a v or v b. As
other arcs are looked at as they were, it does not matter in which order arcs are done.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.heap import pop, push
from geoseg.core.jit import kernel

__all__ = ["simplify"]


class _Scratch(NamedTuple):
    """Room for the work on one arc, as long as the longest of them, N.

    Attributes:
        heap: (3 N + 3, 3) int64, vertices that may go, by the areas of their triangles.
        area: (N,) int64, twice the area of each vertex's triangle.
        back: (N,) int64, the vertex before each one that is still there.
        ahead: (N,) int64, the vertex after each one.
        gone: (N,) bool, which were taken out.
        keep: (N,) bool, which must stay.
    """

    heap: NDArray[np.int64]
    area: NDArray[np.int64]
    back: NDArray[np.int64]
    ahead: NDArray[np.int64]
    gone: NDArray[np.bool_]
    keep: NDArray[np.bool_]


@kernel
def _room(longest: int) -> _Scratch:
    """Make room for arcs of up to so many vertices."""
    return _Scratch(
        np.empty((3 * longest + 3, 3), np.int64),
        np.empty(longest, np.int64),
        np.empty(longest, np.int64),
        np.empty(longest, np.int64),
        np.empty(longest, np.bool_),
        np.zeros(longest, np.bool_),
    )


@kernel
def _cross(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Twice the signed area of a triangle."""
    return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)


@kernel
def _double_area(arc: NDArray[np.int32], a: int, b: int, c: int) -> Any:
    """Twice the area of the triangle of three vertices of an arc."""
    return abs(
        _cross(
            np.int64(arc[a, 0]),
            np.int64(arc[a, 1]),
            np.int64(arc[b, 0]),
            np.int64(arc[b, 1]),
            np.int64(arc[c, 0]),
            np.int64(arc[c, 1]),
        )
    )


@kernel
def _is_free(
    ax: Any, ay: Any, vx: Any, vy: Any, bx: Any, by: Any, marks: NDArray[np.uint8], top: int
) -> bool:
    """Whether the closed triangle a v b holds no marked point but a, v and b."""
    # Row by row, the columns between the triangle's sides are looked at.
    area = _cross(ax, ay, vx, vy, bx, by)
    sign = 1 if area >= 0 else -1
    for y in range(min(ay, vy, by), max(ay, vy, by) + 1):
        left, right = np.inf, -np.inf
        for side in range(3):
            if side == 0:
                px, py, qx, qy = ax, ay, vx, vy
            elif side == 1:
                px, py, qx, qy = vx, vy, bx, by
            else:
                px, py, qx, qy = bx, by, ax, ay
            if min(py, qy) > y or max(py, qy) < y:
                continue
            if py == qy:
                left, right = min(left, float(min(px, qx))), max(right, float(max(px, qx)))
            else:
                x = px + (y - py) * (qx - px) / (qy - py)
                left, right = min(left, x), max(right, x)
        for col in range(int(np.ceil(left - 1e-6)), int(np.floor(right + 1e-6)) + 1):
            if not marks[y - top, col >> 3] >> (7 - (col & 7)) & 1:
                continue
            if (col == ax and y == ay) or (col == vx and y == vy) or (col == bx and y == by):
                continue
            if (
                sign * _cross(ax, ay, vx, vy, col, y) >= 0
                and sign * _cross(vx, vy, bx, by, col, y) >= 0
                and sign * _cross(bx, by, ax, ay, col, y) >= 0
            ):
                return False
    return True


@kernel
def _flip(marks: NDArray[np.uint8], x: Any, y: Any) -> None:
    """Set or clear the bit of a corner."""
    marks[y, x >> 3] ^= np.uint8(128 >> (x & 7))


@kernel
def _keep_far(
    arc: NDArray[np.int32], tolerance: float, stack: NDArray[np.int64], keep: NDArray[np.bool_]
) -> None:
    """Set in ``keep`` the vertices that Douglas and Peucker (1973) keep."""
    # A stretch of the arc is split at the vertex farthest from the line between its ends, as long
    # as that is farther than the tolerance; stretches that wait are on the stack.
    count = len(arc)
    keep[:count] = False
    keep[0], keep[count - 1] = True, True
    stack[0, 0], stack[0, 1] = 0, count - 1
    size = 1
    while size > 0:
        size -= 1
        a, b = stack[size, 0], stack[size, 1]
        ax, ay = float(arc[a, 0]), float(arc[a, 1])
        dx, dy = arc[b, 0] - ax, arc[b, 1] - ay
        square = dx * dx + dy * dy
        most, at = -1.0, -1
        for k in range(a + 1, b):
            px, py = arc[k, 0] - ax, arc[k, 1] - ay
            along = 0.0
            if square > 0:
                along = min(max((px * dx + py * dy) / square, 0.0), 1.0)
            ex, ey = px - along * dx, py - along * dy
            distance = ex * ex + ey * ey
            if distance > most:
                most, at = distance, k
        if at >= 0 and most > tolerance * tolerance:
            keep[at] = True
            stack[size, 0], stack[size, 1] = a, at
            stack[size + 1, 0], stack[size + 1, 1] = at, b
            size += 2


@kernel
def _thin(
    arc: NDArray[np.int32],
    least: int,
    limit: int,
    marks: NDArray[np.uint8],
    top: int,
    scratch: _Scratch,
) -> None:
    """Set in ``scratch.gone`` which vertices of an arc go, and clear their bits in ``marks``.

    Args:
        arc: (N, 2) corners.
        least: vertices that must stay between the ends.
        limit: a vertex goes when twice its triangle's area is below this.
        marks: of :func:`simplify`.
        top: of :func:`simplify`.
        scratch: with ``gone`` all False, and ``keep``.
    """
    heap, area, back, ahead, gone, keep = scratch
    n = len(arc)
    inner = n - 2
    size = 0
    for k in range(1, n - 1):
        back[k], ahead[k] = k - 1, k + 1
        area[k] = _double_area(arc, k - 1, k, k + 1)
        if area[k] < limit and not keep[k]:
            size = push(heap, size, area[k], k, k)
    while size > 0 and inner > least:
        smallest, v = heap[0, 0], heap[0, 2]
        size = pop(heap, size)
        if gone[v] or area[v] != smallest:
            continue  # it is gone, or its triangle is another by now
        p, q = back[v], ahead[v]
        if not _is_free(
            np.int64(arc[p, 0]),
            np.int64(arc[p, 1]),
            np.int64(arc[v, 0]),
            np.int64(arc[v, 1]),
            np.int64(arc[q, 0]),
            np.int64(arc[q, 1]),
            marks,
            top,
        ):
            continue
        gone[v] = True
        _flip(marks, arc[v, 0], arc[v, 1] - top)
        inner -= 1
        ahead[p], back[q] = q, p
        for w in (p, q):
            if w == 0 or w == n - 1:
                continue
            area[w] = _double_area(arc, back[w], w, ahead[w])
            if area[w] < limit and not keep[w]:
                size = push(heap, size, area[w], w, w)


@kernel
def simplify(
    xy: NDArray[np.int32],
    offsets: NDArray[np.int64],
    least: NDArray[np.int64],
    tolerance: float,
    peucker: bool,
    marks: NDArray[np.uint8],
    top: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Simplify arcs.

    Args:
        xy: (V, 2) corners (col, row).
        offsets: (A + 1,) arc a is ``xy[offsets[a]:offsets[a + 1]]``; its ends stay.
        least: (A,) vertices that must stay between the ends; -1: all.
        tolerance: px.
        peucker: whether a vertex goes when Douglas and Peucker (1973) drop it; else when its
            triangle is smaller than tolerance squared, the smallest first (Visvalingam and
            Whyatt, 1993).
        marks: bits of (H, W + 1): the corners at which some arc has a vertex. Changed meanwhile.
        top: the row of the first of them.

    Returns:
        xy and offsets.
    """
    # Arc by arc: vertices wait in a heap, the smallest triangle first. What goes is taken from the
    # marks while its arc is done, and put back after, so that every arc sees the others as they
    # were at first.
    arcs = len(offsets) - 1
    longest = 0
    for a in range(arcs):
        longest = max(longest, offsets[a + 1] - offsets[a])
    scratch = _room(longest)
    limit = np.iinfo(np.int64).max
    if not peucker:
        limit = min(limit, int(np.ceil(min(2.0 * tolerance * tolerance, 4e18))))
    out = np.empty_like(xy)
    out_offsets = np.zeros_like(offsets)
    count = 0
    for a in range(arcs):
        arc = xy[offsets[a] : offsets[a + 1]]
        n = len(arc)
        scratch.gone[:n] = False
        if least[a] >= 0 and n - 2 > least[a]:
            if peucker:
                _keep_far(arc, tolerance, scratch.heap, scratch.keep)
            _thin(arc, least[a], limit, marks, top, scratch)
        for k in range(n):
            if scratch.gone[k]:
                _flip(marks, arc[k, 0], arc[k, 1] - top)
            else:
                out[count] = arc[k]
                count += 1
        out_offsets[a + 1] = count
    return out[:count].copy(), out_offsets
