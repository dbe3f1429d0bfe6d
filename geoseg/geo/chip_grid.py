"""The chip grid: where the overlapping chips of a scene lie. Pure arithmetic."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from geoseg.errors import UsageError
from geoseg.geo.window import Window

__all__ = ["ChipGrid", "Lane", "Part"]


@dataclass(frozen=True)
class ChipGrid:
    """Overlapping chips over a part of a scene, at places that are fixed on the ground.

    Chips begin at multiples of ``stride`` of the world's grid, which is the scene's grid of pixels
    extended without end (:attr:`geoseg.geo.pixel_grid.PixelGrid.place`). So whatever part of the
    ground is asked for, as a part of a scene or as a scene of its own, it is seen by the same chips
    with the same ground around it, and a network that halves its input sees it at the same phase.

    Chips reach beyond the part that is wanted, where there is ground, and beyond the ground's ends,
    where there is none and a chip is continued by reflection. Within ``border`` of an end it makes
    no difference to whom a pixel is left, so that no chip is run for the border alone. A scene
    without a pixel farther than that from an end may be covered by one chip of less than ``size``
    (or by up to ``multiple`` px more), that begins in phase.

    Rows and columns are counted from the first pixel of the part.

    >>> [c.col for c in ChipGrid(1, 10, size=4, overlap=1).chips()]
    [0, 3, 6]
    >>> [c.col for c in ChipGrid(1, 10, size=4, overlap=1, col=101).chips()]
    [-2, 1, 4, 7]
    >>> list(ChipGrid(1, 1, size=256, overlap=64).chips())
    [Window(row=0, col=0, height=1, width=1)]

    Attributes:
        height: of the part, px.
        width: of the part, px.
        size: chip side, px; rounded up to a multiple of ``multiple``.
        overlap: pixels that two neighbours share, px, total.
        multiple: chip sides and places are multiples of this, px.
        margin: outermost px of a chip that get no weight, as far as the overlap allows; see
            :func:`geoseg.prediction.tapers.axis_weights`.
        border: px from an end of the ground within which a chip's answers change with what lies
            beyond it; None for a chip's side.
        row: row of the world's grid on which the part begins.
        col: column of the world's grid on which the part begins.
        ground: where there are pixels to be seen; None for the part alone.
    """

    height: int
    width: int
    size: int
    overlap: int
    multiple: int = 1
    margin: int = 0
    border: int | None = None
    row: int = 0
    col: int = 0
    ground: Window | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: one of them makes no grid.
        """
        if self.height < 1 or self.width < 1:
            raise UsageError(f"the scene is {self.height}x{self.width}; a scene has a pixel")
        if self.multiple < 1:
            raise UsageError(f"multiple is {self.multiple}; it must be at least 1")
        if self.size < 1:
            raise UsageError(f"size is {self.size}; a chip has at least one pixel")
        if not 0 <= self.overlap < self.size:
            raise UsageError(
                f"overlap is {self.overlap} and size {self.size}; overlap must be at least 0 and "
                f"below size"
            )
        if self.margin < 0 or (self.border is not None and self.border < 0):
            raise UsageError(
                f"margin is {self.margin} and border {self.border}; neither is below 0"
            )
        part = Window(0, 0, self.height, self.width)
        if self.seen.intersection(part) != part:
            raise UsageError(f"the ground {self.ground} does not hold the part that is wanted")
        object.__setattr__(self, "size", _round_up(self.size, self.multiple))

    @property
    def seen(self) -> Window:
        """Where there are pixels to be seen."""
        return self.ground or Window(0, 0, self.height, self.width)

    @property
    def stride(self) -> int:
        """From one chip to the next, px: a multiple of ``multiple``, at most size - overlap."""
        return max(self.multiple, (self.size - self.overlap) // self.multiple * self.multiple)

    @property
    def weightless(self) -> int:
        """Outermost px of a chip that get no weight: ``margin``, or less where chips share less."""
        return max(0, min(self.margin, (self.size - self.stride - 1) // 2))

    @property
    def of_all(self) -> ChipGrid:
        """The chips of all the ground, of which this part's are some; counted from its corner."""
        seen = self.seen
        return replace(
            self,
            height=seen.height,
            width=seen.width,
            row=self.row + seen.row,
            col=self.col + seen.col,
            ground=None,
        )

    @cached_property
    def _reach(self) -> int:
        """Px from an end of the ground within which it matters what lies beyond."""
        return self.size if self.border is None else self.border

    @property
    def _may_be_anywhere(self) -> bool:
        """Whether it makes no difference where chips begin, as long as they do in phase.

        That is so where each pixel has its say from chips alone whose edges are farther away than
        the border, or where no pixel lies farther than that from an end of the ground.
        """
        widest = 2 * self._reach
        return self.weightless >= self._reach or min(self.seen.height, self.seen.width) <= widest

    @cached_property
    def _rows(self) -> _Axis:
        return self._axis(self.row, self.height, self.seen.row, self.seen.height)

    @cached_property
    def _cols(self) -> _Axis:
        return self._axis(self.col, self.width, self.seen.col, self.seen.width)

    def _axis(self, place: int, length: int, first: int, ground: int) -> _Axis:
        """Where chips lie along an axis.

        Args:
            place: of the part on the world's grid.
            length: of the part, px.
            first: pixel of the ground.
            ground: length of it, px.
        """
        low, high = place + first, place + first + ground
        if ground <= self.size and self._may_be_anywhere:
            start = low // self.multiple * self.multiple
            return _Axis([start - place], _round_up(high - start, self.multiple))
        first_chip, last_chip = self._whole_axis(low, high)
        inner, chip = self.weightless, self.size
        starts = [
            start - place
            for number in range(first_chip, last_chip + 1)
            # With its outermost px where no other chip is beside it.
            if (start := number * self.stride) + inner * (number > first_chip) < place + length
            and start + chip - inner * (number < last_chip) > place
        ]
        return _Axis(starts, chip)

    def _whole_axis(self, low: int, high: int) -> tuple[int, int]:
        """Numbers of the first and the last chip that the whole ground needs along an axis.

        Args:
            low: the ground's first pixel on the world's grid.
            high: the first one after it.
        """
        stride, inner, chip, reach = self.stride, self.weightless, self.size, self._reach
        # Those that cover it, and those that have a say farther from its ends than the border.
        first = min(low // stride, (low + reach - chip + inner) // stride + 1)
        last = max(-((chip - high) // stride), -((reach + inner - high) // stride) - 1)
        return first, max(first, last)

    @property
    def row_starts(self) -> list[int]:
        """First row of each row of chips; the first may lie above the part."""
        return self._rows.starts

    @property
    def col_starts(self) -> list[int]:
        """First column of each column of chips; the first may lie left of the part."""
        return self._cols.starts

    @property
    def chip_height(self) -> int:
        """Rows of each chip, px: ``size``, or those of a scene that is one chip high."""
        return self._rows.chip

    @property
    def chip_width(self) -> int:
        """Columns of each chip, px."""
        return self._cols.chip

    def __len__(self) -> int:
        """Count the chips."""
        return len(self.row_starts) * len(self.col_starts)

    def chips(self) -> Iterator[Window]:
        """List all chips, row by row, from the top left.

        Yields:
            Windows of one shape, which may reach beyond the part and beyond the ground.
        """
        for row in self.row_starts:
            yield from self.row_chips(row)

    def strip(self, number: int, lane: Lane) -> Window | None:
        """Find the rows that no later row of chips touches, in a lane's columns.

        Args:
            number: of the row of chips, from the top.
            lane: of this grid.

        Returns:
            Where they lie; None for none, where the next row of chips begins above the part.
        """
        starts, below = self.row_starts, number + 1
        top = max(0, starts[number]) if number else 0
        bottom = max(0, starts[below]) if below < len(starts) else self.height
        if top == bottom:
            return None
        return Window(top, lane.left, bottom - top, lane.right - lane.left)

    def place(self, window: Window) -> tuple[int, int]:
        """(row, col) of a window's first pixel on the world's grid."""
        return self.row + window.row, self.col + window.col

    def row_chips(self, row: int) -> Iterator[Window]:
        """List the chips of one row of chips, from the left.

        Args:
            row: one of :attr:`row_starts`.
        """
        for col in self.col_starts:
            yield Window(row, col, self.chip_height, self.chip_width)


@dataclass(frozen=True)
class _Axis:
    """First pixels of the chips along one axis, ascending, and their side."""

    starts: list[int]
    chip: int


@dataclass(frozen=True)
class Lane:
    """A range of a scene's columns that is predicted from top to bottom.

    A wide scene goes lane by lane where memory is small. Chips that reach into two lanes are run
    for both, so that a pixel is blended from the same chips in the same order as without lanes.

    Attributes:
        left: first column that comes out of it.
        right: the first column after these.
        starts: first columns of the chips that touch them.
    """

    left: int
    right: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, grid: ChipGrid, left: int, right: int) -> Lane:
        """Make the lane of some columns.

        Args:
            grid: of the scene.
            left: first column.
            right: the first one after.

        >>> Lane.of(ChipGrid(1, 10, size=4, overlap=1), 3, 6).starts
        (0, 3)
        """
        starts = grid.col_starts  # in ascending order
        first = bisect_right(starts, left - grid.chip_width)
        return cls(left, right, tuple(starts[first : bisect_left(starts, right)]))

    @classmethod
    def whole(cls, grid: ChipGrid) -> Lane:
        """Put all columns in one lane."""
        return cls.of(grid, 0, grid.width)


class Part(NamedTuple):
    """Some rows of a chip, and where what they share with other chips waits.

    Attributes:
        top: first row of the chip.
        bottom: the first one after.
        left: first column of the chip that is wanted.
        right: the first one after.
        known: columns, from ``left`` on, that chips beside it gave something to, too.
        start: where these columns begin in what waits beside.
        end: columns, from ``left`` on, that no later chip of this row of chips reaches.
        kept: rows of the chip, from its top, that chips above gave something to, too.
        finished: rows of the chip, from its top, that no later row of chips reaches.
        place: where ``left`` lies in what waits above.
    """

    top: int
    bottom: int
    left: int
    right: int
    known: int
    start: int
    end: int
    kept: int
    finished: int
    place: int


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
