"""Pixel rectangles."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """A pixel rectangle of a scene. Whole numbers only.

    Attributes:
        row: first row, px from the top.
        col: first column, px from the left.
        height: rows, px, at least 1.
        width: columns, px, at least 1.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse empty windows.

        Raises:
            ValueError: height or width is below 1.
        """
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window has at least one pixel; found {self.height}x{self.width}")

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.col + self.width

    @property
    def rows(self) -> slice:
        """For indexing an array's rows."""
        return slice(self.row, self.bottom)

    @property
    def cols(self) -> slice:
        """For indexing an array's columns."""
        return slice(self.col, self.right)

    def intersection(self, other: Window) -> Window | None:
        """Find the pixels that lie in both, or None.

        >>> Window(0, 0, 4, 4).intersection(Window(2, 3, 4, 4))
        Window(row=2, col=3, height=2, width=1)
        """
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.bottom, other.bottom) - row
        width = min(self.right, other.right) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def around(self, other: Window) -> Window:
        """Find the smallest window that holds both.

        >>> Window(0, 0, 4, 4).around(Window(2, 3, 4, 4))
        Window(row=0, col=0, height=6, width=7)
        """
        row, col = min(self.row, other.row), min(self.col, other.col)
        bottom, right = max(self.bottom, other.bottom), max(self.right, other.right)
        return Window(row, col, bottom - row, right - col)

    def shifted(self, rows: int, cols: int) -> Window:
        """Move it down and to the right."""
        return Window(self.row + rows, self.col + cols, self.height, self.width)
