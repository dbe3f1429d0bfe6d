"""Inner loops over pixels, compiled: numpy would pass over them many times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

if TYPE_CHECKING:
    from geoseg.geo.chip_grid import Part

__all__ = ["blend", "decide"]

Floats = NDArray[np.float32]


@kernel
def blend(
    probs: Floats,
    row_weights: Floats,
    col_weights: Floats,
    beside: Floats,
    above: Floats,
    part: Part,
    out: Floats,
) -> None:
    """Do what :func:`geoseg.prediction.stitch.blend` does, in one pass.

    Args:
        probs: of the chip, (K, height, width), C-contiguous, as all arrays here.
        row_weights: (height,).
        col_weights: (width,).
        beside: (K, height, columns): what waits of chips beside it, and then for the next one.
        above: (K, rows, columns): what waits of rows of chips above, and then for the next one.
        part: which rows.
        out: (K, rows, ``part.end``): where finished columns of finished rows go.
    """
    columns, known, end = part.right - part.left, part.known, part.end
    sums = np.empty(columns, np.float32)
    weights = col_weights[part.left : part.right]
    for k in range(len(probs)):
        for row in range(part.top, part.bottom):
            given, weight = probs[k, row, part.left : part.right], row_weights[row]
            for col in range(columns):
                sums[col] = given[col] * (weight * weights[col])
            shared = beside[k, row]
            waiting = shared[part.start : part.start + known]
            for col in range(known):
                sums[col] += waiting[col]
            if row < part.kept:
                mine = sums[known:]
                waiting = above[k, row, part.place + known : part.place + columns]
                for col in range(len(mine)):
                    mine[col] += waiting[col]
            # Loops, since numba's own copies of slices take twice as long.
            mine = sums[end:]
            for col in range(len(mine)):
                shared[col] = mine[col]
            if row < part.finished:
                done = out[k, row - part.top]
            else:
                done = above[k, row - part.finished, part.place : part.place + end]
            for col in range(end):
                done[col] = sums[col]


@kernel
def decide(
    probs: Floats,
    valid: NDArray[np.bool_],
    legend: NDArray[np.uint8],
    nodata: int,
    ids: NDArray[np.uint8],
    best: Floats,
    counts: NDArray[np.int64],
) -> bool:
    """Do what :func:`geoseg.prediction.decide.decide` does, in one pass.

    Args:
        probs: (K, H, W), C-contiguous, as all but ``valid`` are.
        valid: (H, W).
        legend: class ids, (K,).
        nodata: what is put where a pixel is not valid.
        ids: (H, W), where the class ids go.
        best: (H, W), where the greatest probabilities go.
        counts: (K,), to which the pixels of each class are added.

    Returns:
        Whether the greatest probabilities of all valid pixels are finite.
    """
    width, wrong = ids.shape[1], np.uint8(0)
    for row in range(len(ids)):
        winner, top, own, first = ids[row], best[row], probs[0, row], legend[0]
        for col in range(width):
            top[col] = own[col]
            winner[col] = first
        for k in range(1, len(probs)):
            own, this = probs[k, row], legend[k]
            for col in range(width):
                number = own[col]
                # NaN is unequal to itself, and nothing is greater than it.
                better = number > top[col] or number != number
                top[col] = number if better else top[col]
                winner[col] = this if better else winner[col]
        given = valid[row]
        for col in range(width):
            # Only what is finite leaves 0 of itself.
            wrong |= np.uint8(given[col] and top[col] - top[col] != 0)
            winner[col] = winner[col] if given[col] else nodata
        # So few at a time that their number fits into 8 bits, of which most are done at once.
        for left in range(0, width, 128):
            some = winner[left : left + 128]
            for k in range(len(probs)):
                this, found = legend[k], np.uint8(0)
                for col in range(len(some)):
                    found = np.uint8(found + np.uint8(some[col] == this))
                counts[k] += found
    return bool(wrong == 0)
