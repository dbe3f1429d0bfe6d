"""What a user may ask of a mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import UsageError
from geoseg.rasters.writing import check_creation_options

__all__ = ["TOPS", "MosaicOptions"]

#: Word -> which map's class a pixel takes, for people.
TOPS = {
    "newest": "the newest map that has a class there",
    "confident": "the map that is most confident there",
    "frequent": "the class that most maps have there",
    "first": "the first map, in the order given, that has a class there",
    "last": "the last map, in the order given, that has a class there",
}


@dataclass(frozen=True)
class MosaicOptions:
    """How maps become one.

    Attributes:
        crs: of the mosaic, e.g. ``EPSG:3035``; that of the maps, if they all have the same.
        res: side of a pixel, CRS units; by default that of the finest map.
        bbox: west, south, east, north in the mosaic's CRS; by default all maps.
        top: what a pixel takes where maps overlap. ``newest``: the class of the newest map (the
            date is in the ``item.json`` beside it). ``confident``: of the map with the highest
            probability (the confidence raster beside it). ``frequent``: the class that most maps
            have. ``first`` and ``last``: of the map that comes first or last in the order given.
            Of equals, and where dates are equal, the newest map counts, or without dates the one
            that comes first in the order given. A map without a class there never counts.
        vector: polygons; the raster's name with .gpkg by default.
        no_vector: write no polygons.
        min_area: square metres; smaller regions go to a neighbour.
        simplify: tolerance of polygon borders, metres.
        force: make polygons even if there are more than 10 million.
        creation_options: ``NAME=VALUE`` for GDAL's COG driver.
        input_root: folders into which maps may point, besides their own.
        allow_vrt: ``any`` lets maps point anywhere.
        overwrite: replace outputs.
    """

    crs: str | None = None
    res: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    top: str = "newest"
    vector: str | Path | None = None
    no_vector: bool = False
    min_area: float = 0.0
    simplify: float = 0.0
    force: bool = False
    creation_options: Sequence[str] = ()
    input_root: str | Path | Sequence[str | Path] = ()
    allow_vrt: str = "local"
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            UsageError: a value is outside its range.
        """
        builtin_fields(self)
        if self.top not in TOPS:
            raise UsageError(f"--top {self.top!r}: it must be one of {', '.join(TOPS)}")
        if self.res is not None and not (math.isfinite(self.res) and self.res > 0):
            raise UsageError(f"--res is {self.res}; a pixel's side must be a number above 0")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (west < east and south < north and all(map(math.isfinite, self.bbox))):
                raise UsageError(
                    f"--bbox {self.bbox}: give finite west,south,east,north, west < east and "
                    f"south < north"
                )
        for name, value in (("min-area", self.min_area), ("simplify", self.simplify)):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"--{name} is {value}; it must be a finite number of at least 0")
        if self.no_vector and self.vector is not None:
            raise UsageError("--vector and --no-vector contradict each other; give one of them")
        check_creation_options(self.creation_options)
