"""PMTiles: vector tiles in one file, for web maps."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from itertools import chain

from geoseg.errors import UsageError
from geoseg.polygons.formats.job import GdalWriter, Job

__all__ = ["write_pmtiles"]

#: Length of the equator in Web Mercator (EPSG:3857), m: the side of the tile of zoom 0.
EQUATOR = 2 * math.pi * 6378137.0
#: Coordinates along a tile, as in most vector tiles (Mapbox Vector Tile 2.1).
TILE_EXTENT = 4096
#: Zooms that a file of tiles has, and the last one that GDAL's driver takes.
ZOOMS, MOST_ZOOM = 4, 22


def write_pmtiles(job: Job) -> None:
    """Write vector tiles (MVT) in Web Mercator: all polygons in each of a few zooms.

    GDAL's own limits on a tile would drop polygons without a word. Further out, where a tile holds
    more than some thousand pixels a side, polygons are no way to look at a map.

    Raises:
        UsageError: the map can't be in Web Mercator, or there is no polygon.
    """
    if job.pixel is None:
        raise UsageError(
            f"{job.name}: PMTiles are in Web Mercator, and these shapes have no geographic or "
            f"projected CRS, or lie beyond 85 degrees of latitude; choose .gpkg"
        )
    # A step of the first zoom's coordinates is a pixel at most, on the equator as elsewhere, so
    # that no polygon collapses; in the last zoom it is an eighth, and no corner moves visibly.
    finest = math.ceil(math.log2(2 ** (ZOOMS - 1) * EQUATOR / (TILE_EXTENT * job.pixel)))
    finest = min(max(finest, 0), MOST_ZOOM)
    zooms = {"MINZOOM": max(finest - ZOOMS + 1, 0), "MAXZOOM": finest}
    limits = {"MAX_SIZE": 2**31 - 1, "MAX_FEATURES": 2**31 - 1, "EXTENT": TILE_EXTENT}
    options = {name: str(value) for name, value in (zooms | limits).items()}
    rows = iter(job.frames)
    first = next(rows, None)
    if first is None:
        raise UsageError(
            f"{job.name}: there is no polygon, and PMTiles hold one at least; choose .gpkg"
        )
    job = replace(job, frames=chain([first], rows))
    name = os.fsencode(job.name.stem).decode(errors="replace")
    GdalWriter("PMTiles", dataset={"NAME": name} | options)(job)
