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
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoseg.core.failures import explained_failures
from geoseg.core.importing import IMPORTING
from geoseg.errors import ModelError
from geoseg.geo.chip_grid import ChipGrid, Lane, Part
from geoseg.geo.window import Window
from geoseg.prediction.tapers import axis_weights

__all__ = ["FloatArray", "Piece", "StripEnd", "blend", "held_bytes", "stitch"]

FloatArray = NDArray[np.float32]
R = TypeVar("R")

#: Rows of a chip that numpy works on at a time: of a few classes they stay in a core's cache.
THIN_ROWS = 128


@dataclass(frozen=True)
class Piece(Generic[R]):
    """Finished pixels: what one chip completes of a strip.

    Attributes:
        row: what came with the row of chips.
        window: of the pixels, within the strip.
        probs: (K, height, width); a buffer that the next step overwrites.
    """

    row: R
    window: Window
    probs: Any


@dataclass(frozen=True)
class StripEnd(Generic[R]):
    """All pieces of a strip have come.

    Attributes:
        row: what came with the row of chips.
        window: of the strip; None where this row of chips finishes no row of pixels.
    """

    row: R
    window: Window | None


def stitch(
    rows: Iterable[tuple[R, Iterable[tuple[Window, Any]]]],
    grid: ChipGrid,
    *,
    classes: int,
    zeros: Callable[[tuple[int, ...]], Any],
    asarray: Callable[[FloatArray], Any],
    taper: str = "cosine",
    lane: Lane | None = None,
    first: int = 0,
    last: int | None = None,
) -> Iterator[Piece[R] | StripEnd[R]]:
    """Blend chips into strips, piece by piece: a pixel leaves with the last chip that covers it.

    What waits is what two rows of chips share, of the lane's width, and what a chip shares with
    the next one; so most of a chip is read once, while it is in the cache.

    Args:
        rows: (what travels with the row, its chips) for each row of chips that is wanted. The
            chips are (window, probabilities (K, height, width)) from the left; all-nodata chips may
            be absent. They are taken before the next row is asked for.
        grid: where the chips lie.
        classes: K.
        zeros: shape -> float32 array of zeros on the runtime's device.
        asarray: float32 numpy array -> array on the runtime's device.
        taper: a key of :data:`TAPERS`.
        lane: the columns that are wanted; None for all.
        first: number of the first row of chips. Where it is not 0, rows of pixels that chips above
            would touch, too, are made without these chips' part.
        last: number of the first row of chips that is not wanted any more; None for all.

    Raises:
        ModelError: a chip's probabilities or the runtime's arrays are of another shape, or chips
            come in another order.
        ValueError: there are more or fewer rows than are wanted.

    Yields:
        The pieces of a strip and then its end, strip by strip from the top. Pieces are disjoint,
        and come chip by chip from the left. Pixels that lie in no piece are those of absent chips.
    """
    lane = lane or Lane.whole(grid)
    waiting = _Waiting(grid, lane, classes, zeros, asarray, taper)
    numbers = range(first, len(grid.row_starts) if last is None else last)
    for number, (row, chips) in zip(numbers, rows, strict=True):
        waiting.begin(number, alone=number == first)
        for window, probs in chips:
            for part, out in waiting.add(window, probs):
                yield Piece(row, part, out)
        waiting.end()
        yield StripEnd(row, grid.strip(number, lane))


class _Waiting:
    """The sums of pixels that chips to come will add to, above and beside."""

    def __init__(
        self,
        grid: ChipGrid,
        lane: Lane,
        classes: int,
        zeros: Callable[[tuple[int, ...]], Any],
        asarray: Callable[[FloatArray], Any],
        taper: str,
    ) -> None:
        """Nothing waits yet; see :func:`stitch`.

        Args:
            grid: where the chips lie.
            lane: the columns that are wanted.
            classes: K.
            zeros: shape -> float32 array of zeros on the runtime's device.
            asarray: float32 numpy array -> array on the runtime's device.
            taper: a key of :data:`TAPERS`.
        """
        height, width = grid.chip_height, grid.chip_width
        self._grid, self._lane, self._classes = grid, lane, classes
        options = {"taper": taper, "inner": grid.weightless}
        self._row_weights = _weights(grid.row_starts, height, grid.height, asarray, options)
        self._col_weights = _weights(grid.col_starts, width, grid.width, asarray, options)
        # Where the next chip of a row begins: what lies before that is finished.
        self._ends = dict(zip(lane.starts, (*lane.starts[1:], lane.right), strict=True))
        shapes = _waiting_shapes(grid, lane, classes)
        self._above, self._beside = (_whole(zeros(shape), shape) for shape in shapes)
        self._blend, self._thin = _how(self._above, height)
        room = (classes * min(self._thin, height) * width,)
        self._scratch = _whole(zeros(room), room)

    def begin(self, number: int, *, alone: bool) -> None:
        """Begin a row of chips.

        Args:
            number: of it, from the top.
            alone: whether no row of chips above gave anything to its rows.
        """
        starts, height = self._grid.row_starts, self._grid.chip_height
        self._row = start = starts[number]
        # The rest counts rows of the chips. Those above the part are nobody's.
        top, bottom = max(0, -start), min(height, self._grid.height - start)
        #: Rows that chips above gave something to, too.
        shared = 0 if alone else starts[number - 1] + height - start
        self._kept = min(max(top, shared), bottom)
        #: Rows that no later row of chips reaches.
        last = number + 1 == len(starts)
        self._done = bottom if last else starts[number + 1] - start
        self._cuts = top, self._kept, max(top, self._done), bottom
        # Columns that are finished, and that the chips of this row have reached so far.
        self._finished = self._reached = self._lane.left

    def add(self, window: Window, probs: Any) -> Iterator[tuple[Window, Any]]:
        """Add a chip, and give what it finishes; the array is overwritten by the next step.

        Raises:
            ModelError: see :func:`stitch`.
        """
        self._check(window, probs)
        row, lane = self._row, self._lane
        left, right = max(window.col, lane.left), min(window.right, lane.right)
        end = max(self._ends[window.col], left)
        # Of absent chips.
        self._above[:, :, self._finished - lane.left : left - lane.left] = 0.0
        for top, bottom in _slices(self._cuts, self._thin):
            part = Part(
                top,
                bottom,
                left - window.col,
                right - window.col,
                known=max(min(self._reached, right) - left, 0),
                start=left - self._finished,
                end=end - left,
                kept=self._kept,
                finished=self._done,
                place=left - lane.left,
            )
            shape = self._classes, bottom - top, end - left
            out = self._scratch[: math.prod(shape)].reshape(shape)
            weights = self._row_weights[row], self._col_weights[window.col]
            self._blend(probs, *weights, self._beside, self._above, part, out)
            if top < self._done and end > left:
                yield Window(row + top, left, bottom - top, end - left), out
        self._finished, self._reached = end, right

    def end(self) -> None:
        """End the row of chips: nothing waits above where the last chips of it are absent."""
        self._above[:, :, self._finished - self._lane.left :] = 0.0

    def _check(self, window: Window, probs: Any) -> None:
        """Refuse a chip that is not due, or is no chip.

        What waits beside and above then holds every column and row of the parts: both are as large
        as what two neighbours share at most.
        """
        shape = self._classes, self._grid.chip_height, self._grid.chip_width
        if tuple(probs.shape) != shape:
            raise ModelError(
                f"a chip's probabilities are {tuple(probs.shape)} and must be {shape}; correct the "
                f"runtime"
            )
        due = window.row == self._row and window.col in self._ends
        if not due or max(window.col, self._lane.left) < self._finished:
            raise ModelError(
                f"a chip came at row {window.row}, column {window.col}, which is not due; chips "
                f"must come row by row, each from the left"
            )


def _weights(
    starts: Sequence[int],
    chip: int,
    length: int,
    asarray: Callable[[FloatArray], Any],
    options: dict[str, Any],
) -> dict[int, Any]:
    """The weights of the chips along one axis by where they start, on the runtime's device.

    Most chips have the same, so that a few rows go there, in one piece.
    """
    number: dict[bytes, int] = {}
    of_chip: dict[int, int] = {}
    kinds: list[FloatArray] = []
    for start, weight in zip(
        starts, axis_weights(list(starts), chip, length, **options), strict=True
    ):
        of_chip[start] = number.setdefault(weight.tobytes(), len(number))
        if of_chip[start] == len(kinds):
            kinds.append(weight)
    table = np.stack(kinds)
    there = _whole(asarray(table), table.shape)
    return {start: there[kind] for start, kind in of_chip.items()}


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
    """Count the bytes that :func:`stitch` holds of a lane, in a computer's own memory.

    Args:
        grid: where the chips lie.
        lane: of it.
        classes: K.
    """
    leaves = classes, min(THIN_ROWS, grid.chip_height), grid.chip_width
    return 4 * sum(math.prod(shape) for shape in (*_waiting_shapes(grid, lane, classes), leaves))


def _waiting_shapes(grid: ChipGrid, lane: Lane, classes: int) -> tuple[tuple[int, ...], ...]:
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
