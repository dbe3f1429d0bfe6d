"""Whether a scene's coordinates can be those of its CRS."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid

__all__ = ["check_place"]

#: Degrees east or west: some grids go on beyond the antimeridian, or begin at it.
MOST_LONGITUDE = 540.0
#: A scene has no smaller pixels, in metres, but one of degrees under a CRS of metres has.
LEAST_PIXEL = 0.002
#: Degrees beyond the area that a CRS is made for, besides half of its own extent.
BEYOND = 1.0
#: Percent: a CRS that is like one of EPSG's is guessed to be it otherwise.
SURE = 100
_MEND = "correct its CRS (gdal_edit.py -a_srs EPSG:...) or its transform, and run this again"


def check_place(grid: PixelGrid, name: str) -> list[str]:
    """Look at whether a scene's coordinates contradict its CRS.

    Args:
        grid: of the scene.
        name: of the scene, for messages.

    Returns:
        Notes for the user.

    Raises:
        SceneError: they do: the numbers can't be coordinates of that CRS, so where the scene lies
            and how large its pixels are is unknown.
    """
    crs = grid.crs
    if crs is None or not (crs.is_geographic or crs.is_projected):
        return []
    fractions = [(x, y) for y in (0.5, 0, 1) for x in (0.5, 0, 1)]  # the middle first
    points = [grid.transform @ (x * grid.width, y * grid.height) for x, y in fractions]
    xy = np.array(points, np.float64)
    where = f"{name}: its coordinates are {_range(xy[:, 0])} and {_range(xy[:, 1])}"
    if crs.is_geographic:
        return _degrees(grid, xy, where)
    pixel = math.sqrt(abs(grid.transform.determinant))
    small = np.abs(xy[:, 0]).max() <= MOST_LONGITUDE and np.abs(xy[:, 1]).max() <= 90
    if small and pixel < LEAST_PIXEL:
        raise SceneError(
            f"{where}, with pixels of {pixel:.3g}, which is longitude and latitude, and its CRS "
            f"{_short(crs)} is of {_unit(crs)}: {_MEND}; that of longitude and latitude is "
            f"EPSG:4326"
        )
    return list(_outside(crs, xy, where))


def _degrees(grid: PixelGrid, xy: Any, where: str) -> list[str]:
    """Look at a scene that is said to be in longitude and latitude."""
    # Grids of pixel centres reach half a pixel beyond the poles.
    pole = 90 + 2 * math.hypot(grid.transform.d, grid.transform.e)
    outside = (np.abs(xy[:, 0]) > MOST_LONGITUDE) | (np.abs(xy[:, 1]) > pole)
    if outside[0]:
        raise SceneError(
            f"{where}, which lie outside its CRS {_short(grid.crs)}: that is of longitude and "
            f"latitude, -180 to 180 and -90 to 90, and these look like metres: {_MEND}"
        )
    if outside.any():
        return [f"{where}, and some lie outside its CRS {_short(grid.crs)}: is that right?"]
    return []


def _outside(crs: Any, xy: Any, where: str) -> Iterator[str]:
    """Say where a scene's middle lies outside the area that its CRS is made for.

    Raises:
        SceneError: it has no place on Earth at all.
    """
    import pyproj
    import pyproj.exceptions

    try:
        to_degrees = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(*xy[0])
        code = crs.to_epsg(confidence_threshold=SURE)
        area = pyproj.CRS.from_epsg(code).area_of_use if code else None
    except pyproj.exceptions.ProjError:
        return
    if not (math.isfinite(lon) and math.isfinite(lat)):
        raise SceneError(
            f"{where}, and its CRS {_short(crs)} has no place on Earth for its middle: {_MEND}"
        )
    if area is None:
        return
    wide = (area.east - area.west) % 360 or 360.0
    east = (lon - (area.west + wide / 2) + 180) % 360 - 180  # of the area's middle
    tall = area.north - area.south
    north = lat - (area.south + tall / 2)
    if abs(east) > wide + BEYOND or abs(north) > tall + BEYOND:
        yield (
            f"{where}, which is {lat:.4g} degrees north and {lon:.4g} east, far outside the area "
            f"of its CRS {_short(crs)} ({area.name}): is its CRS right?"
        )


def _range(values: Any) -> str:
    """From the least to the greatest, with as many digits as tell them apart."""
    low, high = float(values.min()), float(values.max())
    return f"{low:.9g} to {high:.9g}"


def _short(crs: Any) -> str:
    """A CRS in a few letters."""
    code = crs.to_epsg(confidence_threshold=SURE)
    return f"EPSG:{code}" if code else str(crs.to_wkt().split('"')[1])


def _unit(crs: Any) -> str:
    return str(crs.linear_units or "metre")
