"""A class: its id, name and colour."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClassInfo"]


@dataclass(frozen=True)
class ClassInfo:
    """One class of the legend.

    Attributes:
        id: the value in the class raster, 0 to 254 (255 is the output's nodata).
        name: as shown to people.
        color: ``#RRGGBB``; kept in capitals, as STAC wants them.
    """

    id: int
    name: str
    color: str

    def __post_init__(self) -> None:
        """Bring the colour into one spelling."""
        object.__setattr__(self, "color", str(self.color).upper())

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three numbers of 0 to 255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)
