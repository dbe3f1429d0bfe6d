"""Regions of a strip: their labels, what is known of them, and which of two strips are one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = ["corner_pairs", "label", "notice", "recode", "roots_of", "tops", "unite"]


@kernel
def notice(ids: NDArray[Any], seen: NDArray[np.bool_]) -> None:
    """Set ``seen`` for each number in an array."""
    for i in ids.flat:
        seen[i] = True


@kernel
def recode(
    ids: NDArray[Any], valid: NDArray[np.bool_], table: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], Any]:
    """Look up the code of each id, 0 where not valid; and the largest code.

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
def _find(parent: NDArray[np.int32], i: int) -> int:
    """Find the root of an element's set, and shorten the way to it."""
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


def roots_of(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Look up each element's root, all at once; every parent is smaller than its child.

    Args:
        parent: (N,) of :func:`unite`.
    """
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return above
        parent = above


@kernel
def _first_labels(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Label the pixels of a region with one number or several, which are united.

    Returns:
        labels (N, W), 0 for nodata; union-find of them; the largest one.
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
    return labels, parent, used


@kernel
def _number_roots(parent: NDArray[np.int32], used: int) -> int:
    """Number the sets from 1 on, by their smallest elements: -number takes the parent's place.

    Returns:
        How many there are.
    """
    count = 0
    for i in range(1, used + 1):
        if parent[i] == i:
            count += 1
            parent[i] = -count  # a root is before all that point to it
        else:
            above = parent[parent[i]] if parent[i] > 0 else parent[i]
            parent[i] = above
    return count


@kernel
def label(
    codes: NDArray[np.uint8], first: int, confidence: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
    """Find the 4-connected regions of a strip, and what is known of their pixels.

    Args:
        codes: (N, W) classes; row 0 is the row above the strip, and does not count.
        first: the number of the pixel (1, 0), counted row by row from the raster's first.
        confidence: (N - 1, W) of the strip, NaN where unknown; or of no rows.

    Returns:
        labels (N, W), 0 for nodata and 1..R; and, with an entry 0 for nodata: codes (R + 1,);
        pixels and number of the first pixel (R + 1, 2); sum, count and minimum of confidence
        (R + 1, 3).
    """
    # Row by row, a pixel takes the label of its like on the left or above, else a new one; where
    # both are alike but may have other labels, these are united. What was united gets one number,
    # without gaps, in the order of first pixels. Then each pixel is counted for its region.
    rows, width = codes.shape
    labels, parent, used = _first_labels(codes)
    count = _number_roots(parent, used)
    code_of = np.zeros(count + 1, np.uint8)
    pixels = np.zeros((count + 1, 2), np.int64)
    pixels[:, 1] = np.iinfo(np.int64).max
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
    known = np.zeros((count + 1, 3))
    known[:, 2] = np.inf
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
    """Count runs of pixels in a row with none of their class above: no fewer than regions begin.

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
    """Find regions of one class that meet at a corner only, as pairs.

    Args:
        codes: (N, W) as for :func:`label`.
        labels: (N, W) of :func:`label`.
    """
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
