"""Chips of a scene, read row of chips by row of chips; every pixel is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.window import Window
from geoseg.scene.fill import fill_nearest

__all__ = ["ChipRow", "PixelReader", "StripInput", "chip_rows"]


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
        window: of the strip.
        valid: (height, width), True = measured; an array, or a tensor on a runtime's device.
        run: chips that go through the network.
        skipped: chips without a measured pixel.
        clouded: its pixels that were measured and are left out for clouds.
    """

    window: Window
    valid: Any
    run: int
    skipped: int
    clouded: int = 0

    def valid_in(self, window: Window) -> Any:
        """Which pixels of a window within the strip were measured, (height, width)."""
        top, left = window.row - self.window.row, window.col - self.window.col
        return self.valid[top : top + window.height, left : left + window.width]


@dataclass(frozen=True)
class ChipRow:
    """One row of chips.

    Attributes:
        windows: of its chips, from the left.
        pixels: (C, rows, columns), what lies within the scene.
        valid: (rows, columns), True = measured.
        left: the scene's column that the arrays begin with.
        strip: the rows that no later row of chips touches: a prefix of ``valid``'s rows.
        alike: whether all pixels, which are equal, or none of them was measured, where that is
            known; then the arrays take no memory.
        clouded: (rows, columns), True = measured and left out for clouds; None for none.
    """

    windows: Sequence[Window]
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    left: int
    strip: Window
    alike: bool | None = None
    clouded: NDArray[np.bool_] | None = None

    @cached_property
    def strip_input(self) -> StripInput:
        """What the strip needs to know when the pixels are gone."""
        here = np.s_[: self.strip.height, self._cols(self.strip)]
        valid = self.valid[here]
        run = len(self.to_run)
        return StripInput(
            self.strip,
            valid if self.alike is None else valid.copy(),
            run,
            len(self.windows) - run,
            0 if self.clouded is None else int(self.clouded[here].sum()),
        )

    @cached_property
    def to_run(self) -> Sequence[Window]:
        """The chips that hold a measured pixel."""
        if self.alike is not None or self.complete:
            return self.windows if self.complete else ()
        return [window for window in self.windows if self.is_measured(window)]

    def _cols(self, window: Window) -> slice:
        return slice(window.col - self.left, window.right - self.left)

    @cached_property
    def complete(self) -> bool:
        """Whether every pixel was measured: then nobody need look at a chip's."""
        return bool(self.valid.all()) if self.alike is None else self.alike

    def is_measured(self, window: Window) -> bool:
        """Whether a chip holds a measured pixel."""
        if self.alike is not None:
            return self.alike
        return self.complete or bool(self.valid[:, self._cols(window)].any())

    def chip(self, window: Window) -> NDArray[Any] | None:
        """A chip as the network sees it, (C, H, W), or None where no pixel of it was measured.

        It may be a view of the row, which isn't to be changed.
        Where nothing was measured it holds the nearest measured pixel of the chip: zeros would
        make a belt of wrong classes along the border. Beyond the scene's edge it is reflected.
        """
        if not self.is_measured(window):
            return None
        valid = self.valid[:, self._cols(window)]
        pixels = self.pixels[:, :, self._cols(window)]
        if not self.complete and not valid.all():
            pixels = fill_nearest(pixels, valid)
        missing = (window.height - pixels.shape[1], window.width - pixels.shape[2])
        if any(missing):
            pixels = _reflect(pixels, *missing)
        return pixels if self.alike is None else np.ascontiguousarray(pixels)

    def measured(self, window: Window) -> NDArray[np.bool_]:
        """Where a chip's pixels are the scene's own and valid, (height, width)."""
        measured = np.zeros((window.height, window.width), dtype=np.bool_)
        valid = self.valid[:, self._cols(window)]
        measured[: valid.shape[0], : valid.shape[1]] = valid
        return measured


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
) -> Iterator[ChipRow]:
    """Read a scene, row of chips by row of chips.

    Args:
        reader: gives pixels and validity.
        grid: where the chips lie.
        lane: the columns that are wanted; None for all.
        first: number of the row of chips to begin with.
        uniform: gives what each pixel of a window is, and whether it was measured, or None where
            it has to be read; see :meth:`geoseg.scene.reader.SceneReader.uniform`.
        left_out: gives which pixels of the window that the reader read last are clouds; see
            :meth:`geoseg.scene.reader.SceneReader.left_out`.

    Yields:
        Rows of chips from the top. Rows that two of them share are kept, not read again.
    """
    lane = lane or Lane.whole(grid)
    starts = grid.row_starts
    left, right = lane.starts[0], min(lane.starts[-1] + grid.chip_width, grid.width)
    pixels: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    clouded: NDArray[np.bool_] | None = None
    end = starts[first]  # first row that was not read yet
    for i, start in enumerate(starts[first:], start=first):
        stop = min(start + grid.chip_height, grid.height)
        windows = _Chips(start, lane.starts, grid.chip_height, grid.chip_width)
        strip = grid.strip(i, lane)
        known = uniform(Window(start, left, stop - start, right - left))
        if known is not None:
            values, alike = known
            shape = (stop - start, right - left)
            pixels = np.broadcast_to(values[:, None, None], (len(values), *shape))
            valid = np.broadcast_to(np.bool_(alike), shape)
            clouded = None
            end = stop
            yield ChipRow(windows, pixels, valid, left, strip, alike)
            continue
        window = Window(end, left, stop - end, right - left)
        if pixels is None or valid is None:
            pixels, valid = reader.read(window)
            clouded = left_out()
        else:
            kept = end - start
            rows = np.empty((len(pixels), stop - start, right - left), pixels.dtype)
            rows[:, :kept] = pixels[:, pixels.shape[1] - kept :]
            pixels = rows
            _, new = reader.read(window, pixels[:, kept:])
            valid = np.concatenate([valid[valid.shape[0] - kept :], new])
            clouded = _below(clouded, left_out(), kept, new)
        end = stop
        yield ChipRow(windows, pixels, valid, left, strip, clouded=clouded)


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


def _reflect(pixels: NDArray[Any], below: int, right: int) -> NDArray[Any]:
    """Pad at the bottom and the right by reflection; numpy repeats it where the scene is short."""
    pad = ((0, 0), (0, below), (0, right))
    return np.pad(pixels, pad, mode="symmetric")
