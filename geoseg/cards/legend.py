"""A class: its id, name and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.errors import UsageError

__all__ = ["NOT_SURE_TAG", "ClassInfo", "not_sure_class"]

#: The tag of a class raster that holds the id of pixels whose confidence was too low.
NOT_SURE_TAG = "GEOSEG_NOT_SURE"


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


def not_sure_class(classes: Sequence[ClassInfo]) -> ClassInfo:
    """Make the class of pixels whose confidence is too low for any class of a legend.

    Args:
        classes: the legend. Its highest free id is taken, so that most maps have the same.

    Raises:
        UsageError: no id is free.

    >>> not_sure_class([ClassInfo(0, "water", "#0000FF")])
    ClassInfo(id=254, name='not sure', color='#5A5A5A')
    """
    taken = {c.id for c in classes}
    free = next((i for i in range(254, -1, -1) if i not in taken), None)
    if free is None:
        raise UsageError(
            "the model has a class for each id of 0 to 254, so none is left for what is not sure; "
            "leave --min-confidence out, and use --confidence"
        )
    return ClassInfo(free, "not sure", "#5A5A5A")
