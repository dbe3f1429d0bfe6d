"""Stitch: overlapping chips' probabilities become finished strips.

Numpy arrays and torch tensors on any device are served alike, so a run without torch need not
import it and a run on a GPU stays there.

The weight of a chip's pixel is the product of a row weight and a column weight, and these are
divided beforehand by their sum over all chips that cover the pixel. So the weights of a pixel add
up to 1, no count raster and no division are needed, and a pixel that one chip covers keeps that
chip's value to the last bit. All-nodata chips may be left out: their pixels are not valid anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import UsageError
from geoseg.grid import ChipGrid, Lane
from geoseg.window import Window

__all__ = ["TAPERS", "axis_weights", "stitch"]

FloatArray = NDArray[np.float32]


def _cosine(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(0.5 * np.pi * np.clip(distance / ramp, 0.0, 1.0)) ** 2)


def _linear(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    return np.clip(distance / ramp, 0.0, 1.0)


def _gaussian(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    # Sigma is an eighth of the side, as in nnU-Net's and MONAI's importance maps.
    return np.asarray(np.exp(-0.5 * ((side / 2 - np.minimum(distance, side / 2)) * 8 / side) ** 2))


def _none(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    return np.ones_like(distance)


#: Weight along one axis by the distance (px, from a pixel's centre) to the nearest inner edge of
#: the chip, less the margin; ``ramp`` is the px over which it rises, ``side`` the chip's length.
TAPERS: dict[str, Callable[[NDArray[np.float64], float, int], NDArray[np.float64]]] = {
    "cosine": _cosine,
    "linear": _linear,
    "gaussian": _gaussian,
    "none": _none,
}


def axis_weights(
    starts: list[int], chip: int, length: int, *, taper: str = "cosine", margin: int = 0
) -> list[FloatArray]:
    """The weights of each chip along one axis; they add up to 1 at every pixel.

    Args:
        starts: first pixel of each chip, ascending.
        chip: pixels of a chip along this axis.
        length: pixels of the scene along this axis.
        taper: a key of :data:`TAPERS`.
        margin: outermost pixels at a chip's inner edges that get no weight wherever another chip
            covers them better. With the taper ``none`` every chip counts alike.

    Returns:
        One float32 (chip,) array a chip; pixels beyond the scene have weight 0.

    Raises:
        UsageError: the taper is unknown.
    """
    if taper not in TAPERS:
        raise UsageError(f"taper is {taper!r}; it must be one of {', '.join(TAPERS)}")
    last = len(starts) - 1
    raw: list[NDArray[np.float64]] = []
    for i, start in enumerate(starts):
        pixel = np.arange(chip) + 0.5
        # The scene's own edge is no seam: no chip sees more there, so it doesn't count.
        left = pixel if i > 0 else np.full(chip, np.inf)
        right = chip - pixel if i < last else np.full(chip, np.inf)
        neighbours = [starts[j] for j in (i - 1, i + 1) if 0 <= j <= last]
        shared = min((chip - abs(start - other) for other in neighbours), default=chip)
        # A margin that leaves nothing of the overlap would leave pixels without any chip.
        inner = max(0, min(margin, (shared - 1) // 2)) if taper != "none" else 0
        distance = np.minimum(left, right) - inner
        weight = TAPERS[taper](np.maximum(distance, 0.0), max(shared - 2.0 * inner, 1.0), chip)
        weight = np.where(distance > 0, weight, 0.0)
        weight[max(0, length - start) :] = 0.0
        raw.append(weight)
    total = np.zeros(max(length, starts[-1] + chip))
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + chip] += weight
    total[length:] = 1.0
    return [
        (weight / total[start : start + chip]).astype(np.float32)
        for start, weight in zip(starts, raw, strict=True)
    ]


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
    """Blend chips into strips; a row leaves when no later chip can touch it.

    Memory is one row of chips: ``classes * chip height * lane width`` float32.

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

    Yields:
        (window, probabilities (K, height, lane width)): strips from the top, disjoint, covering
        every row. The array is a buffer that the next step overwrites.
    """
    lane = lane or Lane.whole(grid)
    rows, cols = grid.row_starts, grid.col_starts
    options = {"taper": taper, "margin": margin}
    row_weights = axis_weights(rows, grid.chip_height, grid.height, **options)  # type: ignore[arg-type]
    col_weights = axis_weights(cols, grid.chip_width, grid.width, **options)  # type: ignore[arg-type]
    row_index = {row: i for i, row in enumerate(rows)}
    col_arrays = {c: asarray(w[None, :]) for c, w in zip(cols, col_weights, strict=True)}

    buffer = zeros((classes, grid.chip_height, lane.right - lane.left))
    current = first  # number of the row of chips that the buffer's first row belongs to
    kept = 0  # rows of the buffer, from the top, that hold what chips above gave
    reached = lane.left  # of the other rows, the first column that chips of this row haven't filled
    row_array = asarray(row_weights[current][:, None])
    for window, probs in chips:
        while row_index[window.row] > current:
            buffer[:, kept:, reached - lane.left :] = 0.0
            yield _finished(buffer, grid, lane, rows, current)
            kept = _shift(buffer, rows[current + 1] - rows[current])
            current, reached = current + 1, lane.left
            row_array = asarray(row_weights[current][:, None])
        left, right = max(window.col, lane.left), min(window.right, lane.right)
        if left > reached:  # a chip was left out
            buffer[:, kept:, reached - lane.left : left - lane.left] = 0.0
        height = min(window.bottom, grid.height) - window.row
        weight = row_array * col_arrays[window.col]
        seen = min(max(reached, left), right)  # columns from here on are new
        for top, bottom, start, end, new in (
            (0, min(kept, height), left, right, False),
            (kept, height, left, seen, False),
            (kept, height, seen, right, True),
        ):
            own = np.s_[..., top:bottom, start - window.col : end - window.col]
            here = buffer[:, top:bottom, start - lane.left : end - lane.left]
            _blend(here, probs[own], weight[own], new)
        reached = max(reached, right)
    while current < len(rows):
        buffer[:, kept:, reached - lane.left :] = 0.0
        yield _finished(buffer, grid, lane, rows, current)
        if current + 1 < len(rows):
            kept = _shift(buffer, rows[current + 1] - rows[current])
        current, reached = current + 1, lane.left


def _blend(here: Any, probs: Any, weight: Any, new: bool) -> None:
    """Add weighted probabilities (K, H, W) to what is here, or put them in its place.

    Args:
        here: of the buffer; it is changed.
        probs: of a chip.
        weight: (H, W).
        new: what is here means nothing yet.
    """
    if not isinstance(here, np.ndarray):
        if new:
            here[:] = probs * weight
        else:
            here += probs * weight
    elif new:
        np.multiply(probs, weight, out=here)
    else:
        # A class at a time, so that what is added is still in the cache.
        part = np.empty(weight.shape, np.float32)
        for mine, theirs in zip(here, probs, strict=True):
            np.multiply(theirs, weight, out=part)
            mine += part


def _finished(
    buffer: Any, grid: ChipGrid, lane: Lane, rows: list[int], current: int
) -> tuple[Window, Any]:
    """The rows above the next row of chips."""
    end = rows[current + 1] if current + 1 < len(rows) else grid.height
    height = end - rows[current]
    return Window(rows[current], lane.left, height, lane.right - lane.left), buffer[:, :height]


def _shift(buffer: Any, by: int) -> int:
    """Move the buffer's rows up by ``by``, without overlap between copies; gives how many moved."""
    moved = max(int(buffer.shape[1]) - by, 0)
    for start in range(0, moved, by):
        stop = min(start + by, moved)
        buffer[:, start:stop] = buffer[:, start + by : stop + by]
    return moved
