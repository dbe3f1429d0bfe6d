"""Stitch: overlapping chips' probabilities become finished pixels.

Numpy arrays and torch tensors on any device are served alike, so a run without torch need not
import it and a run on a GPU stays there.

The weight of a chip's pixel is the product of a row weight and a column weight, and these are
divided beforehand by their sum over all chips that cover the pixel. So the weights of a pixel add
up to 1, no count raster and no division are needed, and a pixel that one chip covers keeps that
chip's value to the last bit. All-nodata chips may be left out: their pixels are not valid anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.failures import explained_failures
from geoseg.core.importing import IMPORTING
from geoseg.errors import ModelError
from geoseg.geo.chip_grid import ChipGrid, Lane, Part
from geoseg.geo.window import Window
from geoseg.prediction.tapers import axis_weights

__all__ = ["FloatArray", "blend", "held_bytes", "stitch"]

FloatArray = NDArray[np.float32]

#: Rows of a chip that numpy works on at a time: of a few classes they stay in a core's cache.
THIN_ROWS = 128


def stitch(
    chips: Iterable[tuple[Window, Any]],
    grid: ChipGrid,
    *,
    classes: int,
    zeros: Callable[[tuple[int, ...]], Any],
    asarray: Callable[[FloatArray], Any],
    taper: str = "cosine",
    margin: int = 0,
    lane: Lane | None = None,
    first: int = 0,
) -> Iterator[tuple[Window, Any]]:
    """Blend chips into strips, piece by piece: a pixel leaves with the last chip that covers it.

    What waits is what two rows of chips share, of the lane's width, and what a chip shares with
    the next one; so most of a chip is read once, while it is in the cache.

    Args:
        chips: (window, probabilities (K, height, width)), row by row from the left; all-nodata
            chips may be absent.
        grid: where the chips lie.
        classes: K.
        zeros: shape -> float32 array of zeros on the runtime's device.
        asarray: float32 numpy array -> array on the runtime's device.
        taper: a key of :data:`TAPERS`.
        margin: see :func:`axis_weights`.
        lane: the columns that are wanted; None for all.
        first: number of the row of chips that the first chip belongs to. Where it is not 0, rows
            that chips above would touch, too, lack these chips' part.

    Raises:
        ModelError: a chip's probabilities or the runtime's arrays are of another shape, or chips
            come in another order.

    Yields:
        (window, probabilities (K, height, width)): pieces, disjoint, strip by strip from the top
        and within one chip by chip from the left. The array is a buffer that the next step
        overwrites. Pixels that lie in no piece are those of absent chips. After the last piece of
        a strip (strip's window, None), whether it had pieces or not.
    """
    lane = lane or Lane.whole(grid)
    rows, cols = grid.row_starts, grid.col_starts
    height, width = grid.chip_height, grid.chip_width
    options = {"taper": taper, "margin": margin}
    row_weights = axis_weights(rows, height, grid.height, **options)  # type: ignore[arg-type]
    col_weights = axis_weights(cols, width, grid.width, **options)  # type: ignore[arg-type]
    row_arrays, col_arrays = (
        {start: _whole(asarray(w), w.shape) for start, w in zip(starts, weights, strict=True)}
        for starts, weights in ((rows, row_weights), (cols, col_weights))
    )
    # Where the next chip of a row begins: what lies before that is finished.
    ends = dict(zip(lane.starts, (*lane.starts[1:], lane.right), strict=True))

    shared = _shared(rows, height)
    above, beside = (_whole(zeros(shape), shape) for shape in _waiting(grid, lane, classes))
    blend_here, thin = _how(above, height)
    room = (classes * min(thin, height) * width,)
    scratch = _whole(zeros(room), room)

    waiting = iter(chips)
    chip = next(waiting, None)
    for number in range(first, len(rows)):
        strip = grid.strip(number, lane)
        kept = shared[number - 1] if number > first else 0
        cuts = 0, kept, strip.height, min(height, grid.height - strip.row)
        finished = reached = lane.left  # columns, by the chips of this row so far
        while chip is not None and chip[0].row == strip.row:
            window, probs = chip
            if tuple(probs.shape) != (classes, height, width):
                raise ModelError(
                    f"a chip's probabilities are {tuple(probs.shape)} and must be "
                    f"{(classes, height, width)}; correct the runtime"
                )
            left, right = max(window.col, lane.left), min(window.right, lane.right)
            # Then what waits beside and above holds every column and row of the parts below: both
            # are as large as what two neighbours share at most.
            if window.col not in ends or left < finished:
                raise ModelError(
                    f"a chip came at column {window.col} that is not due; chips must come row by "
                    f"row, each from the left"
                )
            end = max(ends[window.col], left)
            above[:, :, finished - lane.left : left - lane.left] = 0.0  # of absent chips
            for top, bottom in _slices(cuts, thin):
                part = Part(
                    top,
                    bottom,
                    left - window.col,
                    right - window.col,
                    known=max(min(reached, right) - left, 0),
                    start=left - finished,
                    end=end - left,
                    kept=kept,
                    finished=strip.height,
                    place=left - lane.left,
                )
                shape = classes, bottom - top, end - left
                out = scratch[: math.prod(shape)].reshape(shape)
                weights = row_arrays[strip.row], col_arrays[window.col]
                blend_here(probs, *weights, beside, above, part, out)
                if top < strip.height and end > left:
                    yield Window(strip.row + top, left, bottom - top, end - left), out
            finished, reached = end, right
            chip = next(waiting, None)
        above[:, :, finished - lane.left :] = 0.0
        yield strip, None
    if chip is not None:
        raise ModelError(
            f"a chip came at row {chip[0].row} that is not due any more; chips must come row by "
            f"row, each from the left"
        )


def _whole(array: Any, shape: tuple[int, ...]) -> Any:
    """A runtime's own array, to stitch in or with.

    Raises:
        ModelError: it isn't what was asked for, and kernels would reach beyond it.
    """
    kind = str(array.dtype).removeprefix("torch.")
    whole = not isinstance(array, np.ndarray) or array.flags.c_contiguous
    if tuple(array.shape) != shape or kind != "float32" or not whole:
        raise ModelError(
            f"the runtime's zeros() or asarray() gave {kind} {tuple(array.shape)} where float32 "
            f"{shape} was asked for, row by row; correct the runtime"
        )
    return array


def held_bytes(grid: ChipGrid, lane: Lane, classes: int) -> int:
    """What :func:`stitch` holds of a lane, in a computer's own memory.

    Args:
        grid: where the chips lie.
        lane: of it.
        classes: K.
    """
    leaves = classes, min(THIN_ROWS, grid.chip_height), grid.chip_width
    return 4 * sum(math.prod(shape) for shape in (*_waiting(grid, lane, classes), leaves))


def _waiting(grid: ChipGrid, lane: Lane, classes: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of what waits above and of what waits beside."""
    rows = max(_shared(grid.row_starts, grid.chip_height), default=0)
    cols = max(_shared(lane.starts, grid.chip_width), default=0)
    return (classes, rows, lane.right - lane.left), (classes, grid.chip_height, cols)


def _shared(starts: Sequence[int], chip: int) -> list[int]:
    """Pixels that each chip along an axis shares with the next one."""
    return [start + chip - after for start, after in pairwise(starts)]


def blend(
    probs: Any,
    row_weights: Any,
    col_weights: Any,
    beside: Any,
    above: Any,
    part: Part,
    out: Any,
) -> None:
    """Weighted probabilities of some rows of a chip, with what waits of chips before.

    Args:
        probs: of the chip, (K, height, width), an array or a tensor, as all others are.
        row_weights: (height,).
        col_weights: (width,).
        beside: (K, height, columns): what waits of chips beside it, and then for the next one.
        above: (K, rows, columns): what waits of rows of chips above, and then for the next one.
        part: which rows.
        out: (K, rows, ``part.end``): where finished columns of finished rows go.
    """
    top, bottom, left, right, known, start, end, kept, finished, place = part
    weight = row_weights[top:bottom, None] * col_weights[None, left:right]
    sums = probs[:, top:bottom, left:right] * weight
    sums[:, :, :known] += beside[:, top:bottom, start : start + known]
    if top < kept:
        sums[:, :, known:] += above[:, top:bottom, place + known : place + right - left]
    beside[:, top:bottom, : right - left - end] = sums[:, :, end:]
    if top < finished:
        out[:] = sums[:, :, :end]
    else:
        above[:, top - finished : bottom - finished, place : place + end] = sums[:, :, :end]


def _how(arrays: Any, height: int) -> tuple[Callable[..., None], int]:
    """The function that blends arrays of this kind, and how many rows it does at a time."""
    if not isinstance(arrays, np.ndarray):

        def on_device(*given: Any) -> None:
            with explained_failures(str(arrays.device)):
                blend(*given)

        return on_device, height
    with IMPORTING:
        from geoseg.core.jit import warm_up
        from geoseg.prediction import blending
    warm_up()

    def compiled(probs: Any, *rest: Any) -> None:
        blending.blend(np.ascontiguousarray(probs, np.float32), *rest)

    return compiled, THIN_ROWS


def _slices(cuts: Iterable[int], thin: int) -> Iterator[tuple[int, int]]:
    """Rows between cuts, from the top, in slices of at most so many rows."""
    for start, stop in pairwise(sorted(set(cuts))):
        for top in range(start, stop, thin):
            yield top, min(top + thin, stop)
