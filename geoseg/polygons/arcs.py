"""Kernels on strips of a class raster: regions, the arcs between them, and rings of arcs.

Corners of pixels are the points of a lattice, (col, row) with row downwards. An **edge** is the
side of a pixel between unlike classes; nodata and what lies outside the raster are one class, code
0. A **node** is a corner where three or four edges meet; an **arc** is a run of edges between two
nodes, or a loop without any. Every edge is in exactly one arc, and an arc has one region on its
left and another on its right, all along.

Headings are 0 east, 1 south, 2 west, 3 north. Where a strip ends, an arc is cut into **pieces**;
:func:`join` puts them together. The end of a piece is a number: row * (width + 1) + col of a node,
or -1 - 2 col where it goes on above the strip, -2 - 2 col where it goes on below.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = [
    "assemble",
    "corner_pairs",
    "join",
    "label",
    "mark",
    "notice",
    "pick",
    "recode",
    "tops",
    "trace",
    "unite",
]

#: For four bits, one a heading in which an edge leaves: is it a node?
_NODE = np.array([bin(bits).count("1") >= 3 for bits in range(16)])
#: Likewise: the only heading, where there is only one.
_ONLY = np.array([{1: 0, 2: 1, 4: 2, 8: 3}.get(bits, -1) for bits in range(16)], np.int8)


@kernel
def _find(parent: NDArray[np.int32], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def unite(parent: NDArray[np.int32], a: NDArray[Any], b: NDArray[Any], shift: int) -> None:
    """Make one of the sets that each pair is in; pairs with a 0 are left out.

    Args:
        parent: (N,) union-find, changed in place; a root is the smallest of its set.
        a: (M,) elements.
        b: (M,) elements, less ``shift``.
        shift: see ``b``.
    """
    for k in range(len(a)):
        if a[k] == 0 or b[k] == 0:
            continue
        i, j = _find(parent, a[k]), _find(parent, b[k] + shift)
        if i < j:
            parent[j] = i
        elif j < i:
            parent[i] = j


@kernel
def notice(ids: NDArray[Any], seen: NDArray[np.bool_]) -> None:
    """Set ``seen`` for each number in an array."""
    for i in ids.flat:
        seen[i] = True


@kernel
def recode(
    ids: NDArray[Any], valid: NDArray[np.bool_], table: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], Any]:
    """The code of each id, 0 where not valid; and the largest code.

    Args:
        ids: (N, W), all within the table.
        valid: (N, W).
        table: id -> code.
    """
    codes = np.zeros(ids.shape, np.uint8)
    most = np.uint8(0)
    for j in range(ids.shape[0]):
        for x in range(ids.shape[1]):
            if valid[j, x]:
                codes[j, x] = table[ids[j, x]]
                most = max(most, codes[j, x])
    return codes, most


@kernel
def label(
    codes: NDArray[np.uint8], first: int, confidence: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
    """The 4-connected regions of a strip, and what is known of their pixels.

    Args:
        codes: (N, W) classes; row 0 is the row above the strip, and does not count.
        first: the number of the pixel (1, 0), counted row by row from the raster's first.
        confidence: (N - 1, W) of the strip, NaN where unknown; or of no rows.

    Returns:
        labels (N, W), 0 for nodata and 1..R; and, with an entry 0 for nodata: codes (R + 1,);
        pixels and number of the first pixel (R + 1, 2); sum, count and minimum of confidence
        (R + 1, 3).
    """
    rows, width = codes.shape
    labels = np.zeros((rows, width), np.int32)
    parent = np.empty(rows * width + 1, np.int32)
    used = 0
    for j in range(rows):
        for x in range(width):
            code = codes[j, x]
            if code == 0:
                continue
            like_left = x > 0 and codes[j, x - 1] == code
            like_up = j > 0 and codes[j - 1, x] == code
            if like_left:
                own = labels[j, x - 1]
                if like_up and codes[j - 1, x - 1] != code:
                    a, b = _find(parent, own), _find(parent, labels[j - 1, x])
                    if a < b:
                        parent[b] = a
                    elif b < a:
                        parent[a] = b
            elif like_up:
                own = labels[j - 1, x]
            else:
                used += 1
                parent[used] = used
                own = used
            labels[j, x] = own
    count = 0
    for i in range(1, used + 1):
        if parent[i] == i:
            count += 1
            parent[i] = -count  # a root is before all that point to it
        else:
            above = parent[parent[i]] if parent[i] > 0 else parent[i]
            parent[i] = above
    code_of = np.zeros(count + 1, np.uint8)
    pixels = np.zeros((count + 1, 2), np.int64)
    pixels[:, 1] = np.iinfo(np.int64).max
    known = np.zeros((count + 1, 3))
    known[:, 2] = np.inf
    for j in range(rows):
        for x in range(width):
            if labels[j, x] == 0:
                continue
            own = -parent[labels[j, x]]
            labels[j, x] = own
            code_of[own] = codes[j, x]
            if j == 0:
                continue
            if pixels[own, 0] == 0:
                pixels[own, 1] = first + (j - 1) * width + x
            pixels[own, 0] += 1
    for j in range(1, len(confidence) + 1):
        for x in range(width):
            value = confidence[j - 1, x]
            own = labels[j, x]
            if own > 0 and not np.isnan(value):
                known[own, 0] += value
                known[own, 1] += 1
                known[own, 2] = min(known[own, 2], value)
    return labels, code_of, pixels, known


@kernel
def tops(codes: NDArray[np.uint8]) -> int:
    """Runs of pixels of one class in a row that have none of it above: no fewer than regions begin.

    Args:
        codes: (N, W) as for :func:`label`.
    """
    rows, width = codes.shape
    count = 0
    for j in range(1, rows):
        above, own = codes[j - 1], codes[j]
        alone = 0  # the run so far has a class, and none of it above
        before = np.uint8(0)
        for x in range(width):
            code = own[x]
            if code != before:
                count += alone
                alone = 1 if code != 0 else 0
                before = code
            if above[x] == code:
                alone = 0
        count += alone
    return count


@kernel
def corner_pairs(
    codes: NDArray[np.uint8], labels: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Regions of one class that meet at a corner only, as pairs."""
    rows, width = codes.shape
    a = np.empty(2 * rows * width, np.int32)
    b = np.empty(2 * rows * width, np.int32)
    count = 0
    for j in range(1, rows):
        for x in range(1, width):
            nw, se, ne, sw = labels[j - 1, x - 1], labels[j, x], labels[j - 1, x], labels[j, x - 1]
            if nw != se and nw > 0 and codes[j - 1, x - 1] == codes[j, x]:
                a[count], b[count] = nw, se
                count += 1
            if ne != sw and ne > 0 and codes[j - 1, x] == codes[j, x - 1]:
                a[count], b[count] = ne, sw
                count += 1
    return a[:count].copy(), b[:count].copy()


@kernel
def mark(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """The edges at each corner.

    Args:
        codes: (N, W) as for :func:`trace`.

    Returns:
        (N, W + 1): row j is the lattice's between rows j - 1 and j, row 0 is empty. Bit h and bit
        h + 4 are set where an edge leaves with heading h. And the number of corners with a turn or
        a node.
    """
    rows, width = codes.shape
    corners = np.zeros((rows, width + 1), np.uint8)
    vertices = 0
    for j in range(1, rows):
        above, below, out = codes[j - 1], codes[j], corners[j]
        # 17 sets a bit in both halves.
        out[0] = 17 * (
            np.uint8(above[0] != below[0])
            | np.uint8(below[0] != 0) << 1
            | np.uint8(above[0] != 0) << 3
        )
        for x in range(1, width):
            nw, ne, sw, se = above[x - 1], above[x], below[x - 1], below[x]
            bits = (
                np.uint8(ne != se)
                | np.uint8(sw != se) << 1
                | np.uint8(nw != sw) << 2
                | np.uint8(nw != ne) << 3
            )
            out[x] = np.uint8(17 * bits)
        out[width] = 17 * (
            np.uint8(below[width - 1] != 0) << 1
            | np.uint8(above[width - 1] != below[width - 1]) << 2
            | np.uint8(above[width - 1] != 0) << 3
        )
        turns = 0
        for x in range(width + 1):
            bits = out[x]
            turns += (bits != 0) & (bits != 17 * 5) & (bits != 17 * 10)
        vertices += turns
    return corners, vertices


@kernel
def _walk(
    corners: NDArray[np.uint8],
    j: int,
    x: int,
    heading: int,
    top: int,
    xy: NDArray[np.int32],
    count: int,
) -> tuple[int, int, int, int]:
    """Follow edges to a node, to the strip's rim or round a loop; take them out of ``corners``.

    Returns:
        Row and col of the corner reached (row 0 above the strip, N below), the heading there and
        the number of vertices.
    """
    rows = len(corners)
    while True:
        if 0 < j < rows:
            corners[j, x] &= ~np.uint8(1 << heading)
        if heading == 0:
            x += 1
        elif heading == 1:
            j += 1
        elif heading == 2:
            x -= 1
        else:
            j -= 1
        if j <= 0 or j >= rows:
            return j, x, heading, count
        corners[j, x] &= ~np.uint8(1 << ((heading + 2) & 3))
        bits = corners[j, x]
        if _NODE[bits >> 4] or bits & 15 == 0:
            xy[count, 0], xy[count, 1] = x, top + j - 1
            return j, x, heading, count + 1
        following = _ONLY[bits & 15]
        if following != heading:
            xy[count, 0], xy[count, 1] = x, top + j - 1
            count += 1
            heading = following


@kernel
def _side(labels: NDArray[np.int32], j: int, x: int, heading: int, right: bool) -> Any:
    """The region beside the edge that leaves a corner."""
    # Heading east, the left is at (-1, 0) and the right at (0, 0) from the corner, in pixels.
    if heading == 0:
        dj, dx = (0, 0) if right else (-1, 0)
    elif heading == 1:
        dj, dx = (0, -1) if right else (0, 0)
    elif heading == 2:
        dj, dx = (-1, -1) if right else (0, -1)
    else:
        dj, dx = (-1, 0) if right else (-1, -1)
    j, x = j + dj, x + dx
    if j < 0 or j >= labels.shape[0] or x < 0 or x >= labels.shape[1]:
        return 0
    return labels[j, x]


@kernel
def trace(
    corners: NDArray[np.uint8], vertices: int, labels: NDArray[np.int32], top: int
) -> tuple[
    NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int8], NDArray[np.int32]
]:
    """The pieces of arcs in a strip.

    Args:
        corners: of :func:`mark`; the lower halves are empty after.
        vertices: likewise.
        labels: (N, W) of :func:`label`. Row 0 is the row above the strip.
        top: the strip's first row in the raster.

    Returns:
        xy (V, 2); offsets (P + 1,) into it; ends (P, 2); headings (P, 2) in which a piece leaves
        its first node and comes to its last, -1 for a loop; sides (P, 2), left and right region.
    """
    rows, width = corners.shape[0], corners.shape[1] - 1
    xy = np.empty((4 * vertices + 8, 2), np.int32)
    most = 2 * vertices + 2 * width + 8
    offsets = np.zeros(most + 1, np.int64)
    ends = np.empty((most, 2), np.int64)
    headings = np.full((most, 2), -1, np.int8)
    sides = np.empty((most, 2), np.int32)
    pieces, count = 0, 0
    # From nodes; from the rim above and below; what is left are loops within the strip.
    for phase in range(4):
        first, last = (1, rows) if phase in (0, 3) else ((0, 1) if phase == 1 else (rows, rows + 1))
        for j in range(first, last):
            for x in range(width + 1):
                if phase == 0 or phase == 3:
                    bits = corners[j, x]
                    if bits & 15 == 0 or (phase == 0 and not _NODE[bits >> 4]):
                        continue
                for heading in range(4):
                    if phase == 1:
                        if heading != 1 or rows < 2 or not corners[1, x] & 8:
                            continue
                    elif phase == 2:
                        if heading != 3 or rows < 2 or not corners[rows - 1, x] & 2:
                            continue
                    elif not corners[j, x] & (1 << heading):
                        continue
                    sides[pieces, 0] = _side(labels, j, x, heading, False)
                    sides[pieces, 1] = _side(labels, j, x, heading, True)
                    if phase == 0:
                        headings[pieces, 0] = heading
                    if phase == 0 or phase == 3:
                        xy[count, 0], xy[count, 1] = x, top + j - 1
                        count += 1
                        ends[pieces, 0] = (top + j - 1) * (width + 1) + x
                    else:
                        ends[pieces, 0] = -1 - 2 * x if phase == 1 else -2 - 2 * x
                    at, col, arrived, count = _walk(corners, j, x, heading, top, xy, count)
                    if at <= 0:
                        ends[pieces, 1] = -1 - 2 * col
                    elif at >= rows:
                        ends[pieces, 1] = -2 - 2 * col
                    else:
                        ends[pieces, 1] = (top + at - 1) * (width + 1) + col
                        if phase != 3:
                            headings[pieces, 1] = arrived
                    pieces += 1
                    offsets[pieces] = count
    return (
        xy[:count].copy(),
        offsets[: pieces + 1].copy(),
        ends[:pieces].copy(),
        headings[:pieces].copy(),
        sides[:pieces].copy(),
    )


@kernel
def pick(
    xy: NDArray[np.int32], offsets: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Some of many arcs.

    Args:
        xy: (V, 2).
        offsets: (A + 1,) arc a is ``xy[offsets[a]:offsets[a + 1]]``.
        chosen: which ones, in their new order.

    Returns:
        Their xy and offsets.
    """
    out_offsets = np.zeros(len(chosen) + 1, np.int64)
    for k in range(len(chosen)):
        out_offsets[k + 1] = out_offsets[k] + offsets[chosen[k] + 1] - offsets[chosen[k]]
    out = np.empty((out_offsets[len(chosen)], 2), np.int32)
    for k in range(len(chosen)):
        low, at = offsets[chosen[k]], out_offsets[k]
        for i in range(out_offsets[k + 1] - at):
            out[at + i, 0], out[at + i, 1] = xy[low + i, 0], xy[low + i, 1]
    return out, out_offsets


@kernel
def _reverse(xy: NDArray[np.int32]) -> None:
    for k in range(len(xy) // 2):
        other = len(xy) - 1 - k
        for axis in range(2):
            xy[k, axis], xy[other, axis] = xy[other, axis], xy[k, axis]


@kernel
def _close(xy: NDArray[np.int32], count: int) -> Any:
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
        turned[k] = xy[(best - k) % count if back else (best + k) % count]
    xy[:count] = turned
    xy[count] = turned[0]
    return back


@kernel
def join(
    xy: NDArray[np.int32],
    offsets: NDArray[np.int64],
    ends: NDArray[np.int64],
    headings: NDArray[np.int8],
    sides: NDArray[np.int32],
    before: int,
    width: int,
) -> tuple[
    NDArray[np.int32],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int8],
    NDArray[np.int32],
    NDArray[np.bool_],
]:
    """Put pieces together where the strip above ends.

    Arcs get a direction of their own, whatever the strips were: from the node of the smaller
    number to the other; of those that come back to their node, by the smaller heading.

    Args:
        xy: of :func:`trace`, that of the strips above first.
        offsets: likewise.
        ends: likewise.
        headings: likewise.
        sides: likewise.
        before: how many of them are of the strips above; all of these go on below.
        width: of the raster.

    Returns:
        The same of what was put together, and whether each is whole, (A,).
    """
    total = len(ends)
    link = np.full((total, 2), -1, np.int64)
    waiting = np.full(width + 1, -1, np.int64)
    for p in range(before):
        for e in range(2):
            if ends[p, e] < 0:
                waiting[(-ends[p, e] - 2) // 2] = 2 * p + e
    for p in range(before, total):
        for e in range(2):
            if ends[p, e] < 0 and ends[p, e] % 2 == 1:
                other = waiting[(-ends[p, e] - 1) // 2]
                link[p, e] = other
                link[other // 2, other % 2] = 2 * p + e
    out_xy = np.empty((len(xy) + total, 2), np.int32)
    out_offsets = np.zeros(total + 1, np.int64)
    out_ends = np.empty((total, 2), np.int64)
    out_headings = np.full((total, 2), -1, np.int8)
    out_sides = np.empty((total, 2), np.int32)
    whole = np.zeros(total, np.bool_)
    done = np.zeros(total, np.bool_)
    arcs, count = 0, 0
    for loops in range(2):  # loops over strips have no end to begin at
        for start in range(total):
            if done[start]:
                continue
            e = 0
            if loops == 0 and link[start, 0] >= 0:
                if link[start, 1] >= 0:
                    continue
                e = 1
            p = start
            begin = count
            out_ends[arcs, 0] = ends[p, e]
            out_headings[arcs, 0] = headings[p, e]
            if e == 1 and headings[p, 1] >= 0:
                out_headings[arcs, 0] = (headings[p, 1] + 2) & 3
            out_sides[arcs, 0], out_sides[arcs, 1] = sides[p, e], sides[p, 1 - e]
            while True:
                done[p] = True
                low, high = offsets[p], offsets[p + 1]
                for k in range(high - low):
                    out_xy[count] = xy[low + k] if e == 0 else xy[high - 1 - k]
                    count += 1
                leave = 1 - e
                following = link[p, leave]
                if following < 0:
                    out_ends[arcs, 1] = ends[p, leave]
                    out_headings[arcs, 1] = headings[p, leave]
                    if leave == 0 and headings[p, 0] >= 0:
                        out_headings[arcs, 1] = (headings[p, 0] + 2) & 3
                    break
                p, e = following // 2, following % 2
                if p == start and loops == 1:
                    break
            if loops == 1:
                back = _close(out_xy[begin : count + 1], count - begin)
                key = out_xy[begin, 1] * np.int64(width + 1) + out_xy[begin, 0]
                count += 1
                out_ends[arcs, 0], out_ends[arcs, 1] = key, key
                out_headings[arcs, 0], out_headings[arcs, 1] = -1, -1
                if back:
                    out_sides[arcs, 0], out_sides[arcs, 1] = out_sides[arcs, 1], out_sides[arcs, 0]
            whole[arcs] = out_ends[arcs, 0] >= 0 and out_ends[arcs, 1] >= 0
            if whole[arcs] and out_headings[arcs, 0] >= 0:
                a, b = out_ends[arcs, 0], out_ends[arcs, 1]
                leaves, back_out = out_headings[arcs, 0], (out_headings[arcs, 1] + 2) & 3
                if b < a or (a == b and back_out < leaves):
                    _reverse(out_xy[begin:count])
                    out_ends[arcs, 0], out_ends[arcs, 1] = b, a
                    out_headings[arcs, 0], out_headings[arcs, 1] = back_out, (leaves + 2) & 3
                    out_sides[arcs, 0], out_sides[arcs, 1] = out_sides[arcs, 1], out_sides[arcs, 0]
            arcs += 1
            out_offsets[arcs] = count
    return (
        out_xy[:count].copy(),
        out_offsets[: arcs + 1].copy(),
        out_ends[:arcs].copy(),
        out_headings[:arcs].copy(),
        out_sides[:arcs].copy(),
        whole[:arcs].copy(),
    )


@kernel
def assemble(
    xy: NDArray[Any],
    offsets: NDArray[np.int64],
    arc: NDArray[np.int64],
    backward: NDArray[np.bool_],
    begins: NDArray[np.int64],
    arrives: NDArray[np.int64],
    leaving: NDArray[np.int8],
    coming: NDArray[np.int8],
    regions: NDArray[np.int64],
    reverse: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """The rings of regions, of arcs that have the region on their right.

    Where a region meets itself at a corner, its ring goes round the pixel across the corner
    (turns left), so that no ring comes to a point twice: the outside and the hole only touch.

    Args:
        xy: of all arcs.
        offsets: likewise.
        arc: (M,) which arcs, in the order of ``regions`` and of ``begins``.
        backward: (M,) whether they are taken from their end.
        begins: (M,) nodes at which they begin, so taken.
        arrives: (M,) nodes at which they end.
        leaving: (M,) headings at the former.
        coming: (M,) headings at the latter.
        regions: (R + 1,) region r has the arcs ``regions[r]`` to ``regions[r + 1] - 1``.
        reverse: have the region on the left.

    Returns:
        xy (V, 2), closed rings, the exterior ring first; ring offsets; polygon offsets (R + 1,).
    """
    many = len(arc)
    following = np.empty(many, np.int64)
    length = 0
    for r in range(len(regions) - 1):
        low, high = regions[r], regions[r + 1]
        for i in range(low, high):
            a, b = low, high
            while a < b:
                middle = (a + b) // 2
                if begins[middle] < arrives[i]:
                    a = middle + 1
                else:
                    b = middle
            if a + 1 < high and begins[a + 1] == arrives[i] and leaving[a] != (coming[i] + 3) & 3:
                a += 1
            following[i] = a
            length += offsets[arc[i] + 1] - offsets[arc[i]]
    out = np.empty((length + many, 2))
    ring_offsets = np.zeros(many + 1, np.int64)
    polygon_offsets = np.zeros(len(regions), np.int64)
    first_of = np.empty(many, np.int64)
    done = np.zeros(many, np.bool_)
    rings, count = 0, 0
    for r in range(len(regions) - 1):
        # The cycles, and which is outside: the one that goes round the other way.
        cycles, exterior = 0, 0
        for start in range(regions[r], regions[r + 1]):
            if done[start]:
                continue
            area = 0.0
            i = start
            x0, y0 = 0.0, 0.0
            opening = True
            while not done[i]:
                done[i] = True
                low, high = offsets[arc[i]], offsets[arc[i] + 1]
                for k in range(high - low):
                    at = high - 1 - k if backward[i] else low + k
                    x1, y1 = float(xy[at, 0]), float(xy[at, 1])
                    if opening:
                        base_x, base_y = x1, y1
                        opening = False
                    x1, y1 = x1 - base_x, y1 - base_y
                    area += x0 * y1 - x1 * y0
                    x0, y0 = x1, y1
                i = following[i]
            if area > 0:
                exterior = cycles
            first_of[cycles] = start
            cycles += 1
        first_of[0], first_of[exterior] = first_of[exterior], first_of[0]
        for c in range(cycles):
            begin = count
            i = first_of[c]
            while True:
                low, high = offsets[arc[i]], offsets[arc[i] + 1]
                # The last vertex is the first of the next arc.
                for k in range(high - low - 1):
                    at = high - 1 - k if backward[i] else low + k
                    out[count, 0], out[count, 1] = xy[at, 0], xy[at, 1]
                    count += 1
                i = following[i]
                if i == first_of[c]:
                    break
            out[count] = out[begin]
            count += 1
            if reverse:
                for k in range((count - begin) // 2):
                    other = count - 1 - k
                    for axis in range(2):
                        kept = out[begin + k, axis]
                        out[begin + k, axis] = out[other, axis]
                        out[other, axis] = kept
            rings += 1
            ring_offsets[rings] = count
        polygon_offsets[r + 1] = rings
    return out[:count].copy(), ring_offsets[: rings + 1].copy(), polygon_offsets
