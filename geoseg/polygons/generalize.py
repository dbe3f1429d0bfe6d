"""Kernels that take vertices from arcs, or round their corners, and keep the topology.

**Simplifying.** A vertex v between a and b goes when the triangle a v b holds no other vertex, of
its own arc as it is by then, or of any other arc as it was at first. Then the step from a v b to
a b crosses nothing: what crossed a b would have to end in the triangle or leave it through a v or
v b. As other arcs are looked at as they were, it does not matter in which order arcs are done.

**Smoothing.** Corners are cut (Chaikin, 1974) within half a pixel of a vertex. Vertices are a
pixel or more apart, so the cuts of two vertices never meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = ["CUT", "simplify", "smooth"]

#: How far from a vertex its corner is cut at most, px; below half of the least distance.
CUT = 0.45


@kernel
def _cross(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Twice the signed area of a triangle."""
    return (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)


@kernel
def _is_free(
    ax: Any,
    ay: Any,
    vx: Any,
    vy: Any,
    bx: Any,
    by: Any,
    marks: NDArray[np.uint8],
    top: int,
) -> bool:
    """Whether the closed triangle a v b holds no marked point but a, v and b."""
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
    marks[y, x >> 3] ^= np.uint8(128 >> (x & 7))


@kernel
def _push(heap: NDArray[np.int64], size: int, area: int, vertex: int) -> int:
    """Put an entry into a binary heap, smallest area first, then smallest vertex."""
    i = size
    while i > 0:
        above = (i - 1) // 2
        if heap[above, 0] < area or (heap[above, 0] == area and heap[above, 1] <= vertex):
            break
        heap[i, 0], heap[i, 1] = heap[above, 0], heap[above, 1]
        i = above
    heap[i, 0], heap[i, 1] = area, vertex
    return size + 1


@kernel
def _pop(heap: NDArray[np.int64], size: int) -> int:
    """Take the first entry out; the new size."""
    size -= 1
    area, vertex = heap[size, 0], heap[size, 1]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= size:
            break
        if below + 1 < size and (
            heap[below + 1, 0] < heap[below, 0]
            or (heap[below + 1, 0] == heap[below, 0] and heap[below + 1, 1] < heap[below, 1])
        ):
            below += 1
        if area < heap[below, 0] or (area == heap[below, 0] and vertex <= heap[below, 1]):
            break
        heap[i, 0], heap[i, 1] = heap[below, 0], heap[below, 1]
        i = below
    heap[i, 0], heap[i, 1] = area, vertex
    return size


@kernel
def _far(arc: NDArray[np.int32], tolerance: float, stack: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The vertices that Douglas and Peucker (1973) keep."""
    count = len(arc)
    keep = np.zeros(count, np.bool_)
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
    return keep


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
        tolerance: px. Visvalingam and Whyatt (1993): a vertex goes when its triangle is smaller
            than tolerance squared, the smallest first. Douglas and Peucker: when they drop it.
        peucker: the latter.
        marks: bits of (H, W + 1): the corners at which some arc has a vertex. Changed meanwhile.
        top: the row of the first of them.

    Returns:
        xy and offsets.
    """
    arcs = len(offsets) - 1
    longest = 0
    for a in range(arcs):
        longest = max(longest, offsets[a + 1] - offsets[a])
    heap = np.empty((3 * longest + 3, 2), np.int64)
    area = np.empty(longest, np.int64)
    back = np.empty(longest, np.int64)
    ahead = np.empty(longest, np.int64)
    gone = np.empty(longest, np.bool_)
    out = np.empty_like(xy)
    out_offsets = np.zeros_like(offsets)
    limit = np.iinfo(np.int64).max
    if not peucker:
        limit = min(limit, int(np.ceil(min(2.0 * tolerance * tolerance, 4e18))))
    count = 0
    for a in range(arcs):
        arc = xy[offsets[a] : offsets[a + 1]]
        n = len(arc)
        for k in range(n):
            gone[k] = False
        inner = n - 2
        if least[a] >= 0 and inner > least[a]:
            keep = _far(arc, tolerance, heap) if peucker else np.zeros(0, np.bool_)
            size = 0
            for k in range(1, n - 1):
                back[k], ahead[k] = k - 1, k + 1
                area[k] = abs(
                    _cross(
                        np.int64(arc[k - 1, 0]),
                        np.int64(arc[k - 1, 1]),
                        np.int64(arc[k, 0]),
                        np.int64(arc[k, 1]),
                        np.int64(arc[k + 1, 0]),
                        np.int64(arc[k + 1, 1]),
                    )
                )
                if area[k] < limit and not (peucker and keep[k]):
                    size = _push(heap, size, area[k], k)
            while size > 0 and inner > least[a]:
                smallest, v = heap[0, 0], heap[0, 1]
                size = _pop(heap, size)
                if gone[v] or area[v] != smallest:
                    continue
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
                    b, c = back[w], ahead[w]
                    area[w] = abs(
                        _cross(
                            np.int64(arc[b, 0]),
                            np.int64(arc[b, 1]),
                            np.int64(arc[w, 0]),
                            np.int64(arc[w, 1]),
                            np.int64(arc[c, 0]),
                            np.int64(arc[c, 1]),
                        )
                    )
                    if area[w] < limit and not (peucker and keep[w]):
                        size = _push(heap, size, area[w], w)
        for k in range(n):
            if gone[k]:
                _flip(marks, arc[k, 0], arc[k, 1] - top)
            else:
                out[count] = arc[k]
                count += 1
        out_offsets[a + 1] = count
    return out[:count].copy(), out_offsets


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
        offsets: (A + 1,) as for :func:`simplify`.
        fixed: (A,) which arcs stay as they are.
        cyclic: (A,) which are loops without a node, so that their first vertex is a corner, too.
        times: cuts.
        cut: the longest way, px.

    Returns:
        xy and offsets.
    """
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
                m = 0
                if not cyclic[a]:
                    other[0] = one[0]
                    m = 1
                for k in range(0 if cyclic[a] else 1, n - 1):
                    for side in range(2):
                        b = k + 1
                        if side == 0:
                            b = k - 1 if k > 0 else n - 2
                        dx, dy = one[b, 0] - one[k, 0], one[b, 1] - one[k, 1]
                        part = min(0.25, cut / np.hypot(dx, dy))
                        other[m, 0] = one[k, 0] + part * dx
                        other[m, 1] = one[k, 1] + part * dy
                        m += 1
                other[m] = other[0] if cyclic[a] else one[n - 1]
                m += 1
                one, other = other, one
                n = m
        for k in range(n):
            out[count] = one[k]
            count += 1
        out_offsets[a + 1] = count
    return out[:count].copy(), out_offsets
