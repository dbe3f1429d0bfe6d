"""Chips of a scene, read row of chips by row of chips; every pixel is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.window import Window
from geoseg.scene.fill import fill_nearest

__all__ = ["ChipRow", "PixelReader", "StripInput", "chip_rows", "mirrored"]


class PixelReader(Protocol):
    """What :func:`chip_rows` needs of a scene reader."""

    def read(
        self, window: Window, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (C, H, W), in ``out`` where it is given, and valid (H, W) of a window."""


@dataclass(frozen=True)
class StripInput:
    """What a row of chips leaves for its strip: it travels with the chips until the strip ends.

    Attributes:
        number: of the row of chips, from the top.
        window: of the strip; None where this row of chips finishes no row of pixels.
        valid: (height, width), True = measured and wanted; an array, or a tensor on a runtime's
            device; None where there is no strip.
        run: chips that go through the network.
        skipped: chips without a measured pixel that is wanted.
        clouded: its pixels that were measured and are left out for clouds.
    """

    number: int
    window: Window | None
    valid: Any
    run: int
    skipped: int
    clouded: int = 0

    def valid_in(self, window: Window) -> Any:
        """Which pixels of a window in the strip were measured and are wanted, (height, width)."""
        assert self.window is not None, "a window lies in a strip"
        top, left = window.row - self.window.row, window.col - self.window.col
        return self.valid[top : top + window.height, left : left + window.width]


@dataclass(frozen=True)
class ChipRow:
    """One row of chips.

    Attributes:
        number: of it, from the top.
        windows: of its chips, from the left.
        pixels: (C, rows, columns), what there is to be seen of them.
        valid: (rows, columns), True = measured.
        top: the part's row that the arrays begin with; it may lie above the part.
        left: the part's column that the arrays begin with; it may lie left of the part.
        strip: the part's rows that no later row of chips touches; None for none.
        alike: whether all pixels, which are equal, or none of them was measured, where that is
            known; then the arrays take no memory.
        clouded: (rows, columns), True = measured and left out for clouds; None for none.
        wanted: (rows, columns), True = to be mapped; None for all.
    """

    number: int
    windows: Sequence[Window]
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    top: int
    left: int
    strip: Window | None
    alike: bool | None = None
    clouded: NDArray[np.bool_] | None = None
    wanted: NDArray[np.bool_] | None = None

    @cached_property
    def strip_input(self) -> StripInput:
        """What the strip needs to know when the pixels are gone."""
        run = len(self.to_run)
        skipped = len(self.windows) - run
        if self.strip is None:
            return StripInput(self.number, None, None, run, skipped)
        here = self.inside(self.strip)
        valid = self.valid[here]
        clouded = None if self.clouded is None else self.clouded[here]
        if self.wanted is not None:
            valid = valid & self.wanted[here]
            clouded = None if clouded is None else clouded & self.wanted[here]
        elif self.alike is not None:
            valid = valid.copy()
        left_out = 0 if clouded is None else int(clouded.sum())
        return StripInput(self.number, self.strip, valid, run, skipped, left_out)

    @cached_property
    def to_run(self) -> Sequence[Window]:
        """The chips that hold a measured pixel and one that is wanted."""
        if self.wanted is None and (self.alike is not None or self.complete):
            return self.windows if self.complete else ()
        return [w for w in self.windows if self.is_measured(w) and self._is_wanted(w)]

    def inside(self, window: Window) -> tuple[slice, slice]:
        """Where a window lies in the arrays, as far as it does."""
        return (
            slice(max(window.row - self.top, 0), max(window.bottom - self.top, 0)),
            slice(max(window.col - self.left, 0), max(window.right - self.left, 0)),
        )

    def beyond(self, window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
        """How many px of a chip lie (above, below) and (left, right) of the arrays."""
        height, width = self.valid.shape
        return (
            (max(self.top - window.row, 0), max(window.bottom - self.top - height, 0)),
            (max(self.left - window.col, 0), max(window.right - self.left - width, 0)),
        )

    @cached_property
    def complete(self) -> bool:
        """Whether every pixel was measured: then nobody need look at a chip's."""
        return bool(self.valid.all()) if self.alike is None else self.alike

    def is_measured(self, window: Window) -> bool:
        """Whether a chip holds a measured pixel."""
        if self.alike is not None:
            return self.alike
        return self.complete or bool(self.valid[self.inside(window)].any())

    def _is_wanted(self, window: Window) -> bool:
        return self.wanted is None or bool(self.wanted[self.inside(window)].any())

    def chip(self, window: Window) -> NDArray[Any] | None:
        """A chip as the network sees it, (C, H, W), or None where no pixel of it was measured.

        It may be a view of the row, which isn't to be changed.
        Where nothing was measured it holds the nearest measured pixel of the chip: zeros would
        make a belt of wrong classes along the border. Beyond the ends of the ground it is
        reflected.
        """
        if not self.is_measured(window):
            return None
        here = self.inside(window)
        pixels, valid = self.pixels[:, *here], self.valid[here]
        if not self.complete and not valid.all():
            pixels = fill_nearest(pixels, valid)
        for axis, (before, after) in enumerate(self.beyond(window), start=1):
            if before or after:
                pixels = pixels.take(mirrored(before, pixels.shape[axis], after), axis)
        return pixels if self.alike is None else np.ascontiguousarray(pixels)

    def measured(self, window: Window) -> NDArray[np.bool_]:
        """Where a chip's pixels are the scene's own and valid, (height, width)."""
        return np.pad(self.valid[self.inside(window)], self.beyond(window))


def mirrored(before: int, length: int, after: int) -> NDArray[np.int64]:
    """Places along an axis that is continued by reflection on both sides.

    It is repeated where the axis is short; the outermost pixel is reflected, too.

    >>> mirrored(2, 3, 4).tolist()
    [1, 0, 0, 1, 2, 2, 1, 0, 0]

    Args:
        before: px that are added before the first one.
        length: px that there are.
        after: px that are added after the last one.
    """
    places = np.arange(-before, length + after) % (2 * length)
    return np.minimum(places, 2 * length - 1 - places)


@dataclass(frozen=True)
class _Chips(Sequence[Window]):
    """The windows of a row of chips, made when they are asked for: a sparse scene has millions."""

    row: int
    starts: Sequence[int]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, item: int) -> Window: ...

    @overload
    def __getitem__(self, item: slice) -> _Chips: ...

    def __getitem__(self, item: int | slice) -> Window | _Chips:
        if isinstance(item, slice):
            return _Chips(self.row, self.starts[item], self.height, self.width)
        return Window(self.row, self.starts[item], self.height, self.width)


def chip_rows(
    reader: PixelReader,
    grid: ChipGrid,
    lane: Lane | None = None,
    first: int = 0,
    uniform: Callable[[Window], tuple[NDArray[Any], bool] | None] = lambda window: None,
    left_out: Callable[[], NDArray[np.bool_] | None] = lambda: None,
    wanted: Callable[[Window], NDArray[np.bool_]] | None = None,
) -> Iterator[ChipRow]:
    """Read a scene, row of chips by row of chips.

    Args:
        reader: gives pixels and validity; its first pixel is the grid's first one that is seen.
        grid: where the chips lie.
        lane: the columns that are wanted; None for all.
        first: number of the row of chips to begin with.
        uniform: gives what each pixel of a window is, and whether it was measured, or None where
            it has to be read; see :meth:`geoseg.scene.reader.SceneReader.uniform`.
        left_out: gives which pixels of the window that the reader read last are clouds; see
            :meth:`geoseg.scene.reader.SceneReader.left_out`.
        wanted: gives which pixels of a window of the reader's are to be mapped, (H, W); None for
            all of them. The others are seen nevertheless, as the ground around.

    Yields:
        Rows of chips from the top. Rows that two of them share are kept, not read again.
    """
    lane = lane or Lane.whole(grid)
    starts, seen = grid.row_starts, grid.seen
    left = max(lane.starts[0], seen.col)
    right = min(lane.starts[-1] + grid.chip_width, seen.right)
    pixels: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    clouded: NDArray[np.bool_] | None = None
    end = 0  # first row that was not read yet
    for i, start in enumerate(starts[first:], start=first):
        top, bottom = max(start, seen.row), min(start + grid.chip_height, seen.bottom)
        # Where the reader has it.
        place = Window(top - seen.row, left - seen.col, bottom - top, right - left)
        mask = None if wanted is None else wanted(place)
        row = partial(
            ChipRow,
            i,
            _Chips(start, lane.starts, grid.chip_height, grid.chip_width),
            top=top,
            left=left,
            strip=grid.strip(i, lane),
            wanted=mask,
        )
        if mask is not None and not mask.any():  # nothing is read; what follows begins anew
            nothing = np.broadcast_to(np.bool_(False), (1, place.height, place.width))
            pixels = valid = clouded = None
            yield row(nothing, nothing[0], alike=False)
            continue
        known = uniform(place)
        if known is not None:
            values, alike = known
            shape = (bottom - top, right - left)
            pixels = np.broadcast_to(values[:, None, None], (len(values), *shape))
            valid = np.broadcast_to(np.bool_(alike), shape)
            clouded = None
            end = bottom
            yield row(pixels, valid, alike=alike)
            continue
        if pixels is None:
            end = top
        kept = end - top
        if pixels is not None and valid is not None and end == bottom:  # the ground's last row
            pixels, valid = pixels[:, -kept:], valid[-kept:]
            clouded = None if clouded is None else clouded[-kept:]
            yield row(pixels, valid, clouded=clouded)
            continue
        window = Window(end - seen.row, place.col, bottom - end, place.width)
        if pixels is None or valid is None:
            pixels, valid = reader.read(window)
            clouded = left_out()
        else:
            rows = np.empty((len(pixels), bottom - top, right - left), pixels.dtype)
            rows[:, :kept] = pixels[:, pixels.shape[1] - kept :]
            pixels = rows
            _, new = reader.read(window, pixels[:, kept:])
            valid = np.concatenate([valid[valid.shape[0] - kept :], new])
            clouded = _below(clouded, left_out(), kept, new)
        end = bottom
        yield row(pixels, valid, clouded=clouded)


def _below(
    above: NDArray[np.bool_] | None,
    new: NDArray[np.bool_] | None,
    kept: int,
    like: NDArray[np.bool_],
) -> NDArray[np.bool_] | None:
    """The last rows of a mask and those below them; None stands for a mask of nothing.

    Args:
        above: of the row of chips above.
        new: of the rows that were read.
        kept: rows that both rows of chips share.
        like: of the shape of ``new``.
    """
    if above is None and new is None:
        return None
    first = np.zeros((kept, like.shape[1]), bool) if above is None else above[len(above) - kept :]
    return np.concatenate([first, np.zeros_like(like) if new is None else new])
