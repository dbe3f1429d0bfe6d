"""The chip grid: where the overlapping chips of a scene lie. Pure arithmetic."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from geoseg.errors import UsageError
from geoseg.geo.window import Window

__all__ = ["ChipGrid", "Lane", "Part"]


@dataclass(frozen=True)
class ChipGrid:
    """Overlapping chips that cover a scene.

    Chips start at multiples of ``multiple``, so that a network that halves its input sees every
    pixel at the same phase whatever the chip. The last chip of a row or column is moved back so
    that it ends at the scene's edge, or less than ``multiple`` beyond it: what lies beyond is
    filled by reflection and cropped after. A scene smaller than ``size`` gets one smaller chip.

    >>> [c.col for c in ChipGrid(1, 10, size=4, overlap=1).chips()]
    [0, 3, 6]
    >>> list(ChipGrid(1, 1, size=256, overlap=64).chips())
    [Window(row=0, col=0, height=1, width=1)]

    Attributes:
        height: of the scene, px.
        width: of the scene, px.
        size: chip side, px; rounded up to a multiple of ``multiple``.
        overlap: pixels that two neighbours share, px, total.
        multiple: chip sides and places are multiples of this, px.
    """

    height: int
    width: int
    size: int
    overlap: int
    multiple: int = 1

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
        object.__setattr__(self, "size", _round_up(self.size, self.multiple))

    @property
    def stride(self) -> int:
        """From one chip to the next, px: a multiple of ``multiple``, at most size - overlap."""
        return max(self.multiple, (self.size - self.overlap) // self.multiple * self.multiple)

    @cached_property
    def row_starts(self) -> list[int]:
        """First row of each row of chips."""
        return _starts(self.height, self.chip_height, self.stride, self.multiple)

    @cached_property
    def col_starts(self) -> list[int]:
        """First column of each column of chips."""
        return _starts(self.width, self.chip_width, self.stride, self.multiple)

    @property
    def chip_height(self) -> int:
        """Rows of each chip, px: ``size``, or the scene's own where that is less."""
        return min(self.size, _round_up(self.height, self.multiple))

    @property
    def chip_width(self) -> int:
        """Columns of each chip, px."""
        return min(self.size, _round_up(self.width, self.multiple))

    def __len__(self) -> int:
        """Count the chips."""
        return len(self.row_starts) * len(self.col_starts)

    def chips(self) -> Iterator[Window]:
        """List all chips, row by row, from the top left.

        Yields:
            Windows of one shape; they reach at most ``multiple - 1`` px beyond the scene's bottom
            and right edges.
        """
        for row in self.row_starts:
            yield from self.row_chips(row)

    def strip(self, number: int, lane: Lane) -> Window:
        """Find the rows that no later row of chips touches, in a lane's columns.

        Args:
            number: of the row of chips, from the top.
            lane: of this grid.
        """
        starts = [*self.row_starts, self.height]
        top = starts[number]
        return Window(top, lane.left, starts[number + 1] - top, lane.right - lane.left)

    def row_chips(self, row: int) -> Iterator[Window]:
        """List the chips of one row of chips, from the left.

        Args:
            row: one of :attr:`row_starts`.
        """
        for col in self.col_starts:
            yield Window(row, col, self.chip_height, self.chip_width)


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


def _starts(length: int, chip: int, stride: int, multiple: int) -> list[int]:
    """Chip starts along one axis; the last chip covers the last pixel and starts in phase."""
    last = _round_up(max(length - chip, 0), multiple)
    return [*range(0, last, stride), last]
