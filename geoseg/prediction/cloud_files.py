"""A file of clouds that the user names: a mask, a product's cloud layer, or polygons."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS, explain_read_error, gdal_options, retried
from geoseg.core.names import public_name
from geoseg.errors import SceneError, UsageError
from geoseg.geo.window import Window
from geoseg.prediction.area import read_polygons
from geoseg.scene.bands import bands_of, stem_of
from geoseg.scene.clouds import CLOUDS, CloudRule, Numbers, rule_of
from geoseg.scene.files import add_files, opened
from geoseg.scene.scene import CloudLayer, FoundClouds, Scene
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import Sensor, detect_sensor
from geoseg.scene.sources import Rules, is_remote

__all__ = ["with_cloud_file"]

#: Cloud layers of products, as names of files end.
_LAYER = re.compile(r"(?:^|[_.-])(SCL|QA_PIXEL|Fmask|CLM|udm2)(?:_(?:\d+m|R\d))*$", re.I)
#: Rasters are looked through, and polygons burnt, in squares of this many pixels a side.
SIDE = 1024
#: More different numbers are not told.
_MOST_SHOWN = 8
#: A raster whose numbers go no farther holds classes, and no percent.
_MOST_CLASSES = 20


def with_cloud_file(scene: Scene, named: str | Path, rules: Rules) -> Scene:
    """Give a scene the clouds of a file.

    Args:
        scene: without clouds.
        named: raster of one band whose numbers are 0 and 1, or 0 and 255; a cloud layer that is
            named as products name it, of the scene's sensor; or a vector file of polygons.
        rules: what the file may point to.

    Raises:
        UsageError: it isn't there, or doesn't say what clouds are.
        SceneError: it can't be read.
    """
    from geoseg.labels.vector_files import is_vector

    path = public_name(named)
    if not is_remote(path) and not os.path.exists(path):
        raise UsageError(
            f"--clouds {path}: there is no such file; give a raster or polygons of clouds, or one "
            f"of {', '.join(CLOUDS)}"
        )
    if is_vector(path):
        return replace(scene, clouds=_polygons(path, scene, rules))
    behind: dict[str, None] = {}
    with gdal_options(path), opened(path, rules) as dataset:
        bands = bands_of(dataset, path, rules, alpha=False)
        add_files(dataset, behind, rules)
        rule = _rule(dataset, path, bands, scene.sensor)
    layer = CloudLayer(_placed(bands[0], scene), rule, Path(path).name)
    return replace(scene, clouds=layer, files=tuple(dict.fromkeys([*scene.files, *behind])))


def _placed(mask: SceneBand, scene: Scene) -> SceneBand:
    """Bring a mask without a CRS, whose pixels are one of the bands' own, to the band's CRS."""
    if mask.grid.crs is not None:
        return mask
    for band in scene.bands:
        if replace(band.grid, crs=None) == mask.grid:
            return replace(mask, grid=band.grid)
    return mask


def _rule(dataset: Any, path: str, bands: Sequence[SceneBand], sensor: Sensor | None) -> CloudRule:
    """Find out which numbers of a raster are clouds.

    Raises:
        UsageError: nothing says it.
    """
    stem, dtype = stem_of(path), bands[0].dtype
    kind = _LAYER.search(stem)
    known = rule_of(kind[1], sensor or detect_sensor([stem])) if kind else None
    if not dtype.startswith(("int", "uint")):
        highest = max((n for n in _numbers(dataset, path) if math.isfinite(n)), default=0)
        raise UsageError(f"--clouds {path}: its numbers are {dtype}; {_mask_of(path, highest)}")
    if known is not None and len(bands) >= max(known.bands, default=1):
        return known
    if len(bands) > 1:
        raise UsageError(
            f"--clouds {path} has {len(bands)} bands, and a mask has one; take that of the clouds: "
            f"gdal_translate -b NUMBER {Path(path).name} mask.tif"
        )
    nodata = bands[0].nodata
    gap = int(nodata) if nodata is not None and nodata and float(nodata).is_integer() else None
    numbers = sorted(_numbers(dataset, path) - {gap})
    if set(numbers) not in ({0}, {1}, {0, 1}, {255}, {0, 255}, set()):
        shown = ", ".join(map(str, numbers[:_MOST_SHOWN]))
        shown += ", ..." if len(numbers) > _MOST_SHOWN else ""
        whose = ""
        if kind is not None:
            whose = f" (as {kind[1]} it would be known of the scene's sensor, which is " + (
                "unknown)" if sensor is None else f"{sensor.name})"
            )
        raise UsageError(
            f"--clouds {path}: its numbers are {shown}{whose}, and which are clouds nobody says; "
            f"{_mask_of(path, numbers[-1])}"
        )
    return CloudRule(
        f"the mask {Path(path).name}",
        Numbers((max(numbers) or 1,) if numbers else (1,)),
        unmeasured=Numbers(() if gap is None else (gap,)),
        why="its numbers are 0 and one other",
    )


def _mask_of(path: str, highest: float) -> str:
    """Say how a mask is made of a raster's numbers.

    Args:
        path: of the raster.
        highest: of its numbers, as far as they were looked at.
    """
    # Probabilities are 0 to 1 or percent; a few numbers are classes.
    if re.search("SCL", Path(path).name, re.IGNORECASE) and highest > 1:
        clouds = "numpy.isin(A,[3,8,9,10])"
    else:
        clouds = (
            "A>0.4" if highest <= 1 else "A>40" if highest > _MOST_CLASSES else f"A=={highest:g}"
        )
    return (
        f"a mask of clouds has 0 and 1, or 0 and 255: gdal_calc.py -A {Path(path).name} "
        f'--calc="{clouds}" --type=Byte --outfile=mask.tif makes one, with what is cloud in place '
        f"of {clouds}"
    )


def _numbers(dataset: Any, path: str) -> set[Any]:
    """Collect a raster's numbers, or the first that are too many for a mask."""
    found: set[int] = set()
    for row in range(0, dataset.height, SIDE):
        for col in range(0, dataset.width, SIDE):
            window = RasterioWindow(
                col, row, min(SIDE, dataset.width - col), min(SIDE, dataset.height - row)
            )
            try:
                part = retried(path, partial(dataset.read, 1, window=window))
            except GDAL_ERRORS as error:
                raise SceneError(
                    f"--clouds {path}: rows from {row} on can't be read: "
                    f"{explain_read_error(error, path)}"
                ) from error
            found |= set(np.unique(part).tolist())
            if len(found) > _MOST_SHOWN + 1:
                return found
    return found


def _polygons(path: str, scene: Scene, rules: Rules) -> FoundClouds:
    """Take polygons of clouds, on the scene's own pixels.

    Raises:
        UsageError: they can't be read, or none touches the scene.
    """
    from shapely import STRtree
    from shapely.geometry import Polygon, shape

    grid, name = scene.grid, Path(path).name
    shapes = [shape(g) for g in read_polygons(path, grid.crs, rules, "--clouds")]
    tree = STRtree(shapes)

    def touching(part: Window) -> list[Any]:
        corners = ((0, 0), (part.width, 0), (part.width, part.height), (0, part.height))
        ground = Polygon([grid.crop(part).transform @ corner for corner in corners])
        return [shapes[i] for i in sorted(tree.query(ground, predicate="intersects"))]

    if not touching(Window(0, 0, grid.height, grid.width)):
        raise UsageError(
            f"--clouds {path}: none of its polygons touches the scene {scene.name}; give the file "
            f"that belongs to it, or --clouds none"
        )

    def burnt(square: Window) -> NDArray[np.bool_]:
        mask = np.zeros((square.height, square.width), np.uint8)
        near = touching(Window(square.row - 1, square.col - 1, square.height + 2, square.width + 2))
        if near:
            # What a polygon touches: one smaller than a pixel is a cloud, too.
            rasterize(near, out=mask, transform=grid.crop(square).transform, all_touched=True)
        return mask.astype(bool)

    def find(area: Window) -> NDArray[np.bool_]:
        return by_squares(area, SIDE, burnt)

    def finder() -> AbstractContextManager[Callable[[Window], NDArray[np.bool_]]]:
        return nullcontext(find)

    return FoundClouds(f"the polygons of {name}", name, grid, finder, paths=(path,))


def by_squares(
    area: Window, side: int, answer: Callable[[Window], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Put an answer together from squares that lie at fixed places, so that it is always the same.

    Args:
        area: rows and columns from 0 on.
        side: of the squares, px.
        answer: (side, side) for each square.

    Returns:
        (H, W) of the area.
    """
    out = np.zeros((area.height, area.width), dtype=bool)
    for row in range(area.row // side * side, area.bottom, side):
        for col in range(area.col // side * side, area.right, side):
            square = Window(row, col, side, side)
            inside = square.intersection(area)
            assert inside is not None, "squares begin in the area"
            there, here = inside.shifted(-row, -col), inside.shifted(-area.row, -area.col)
            out[here.rows, here.cols] = answer(square)[there.rows, there.cols]
    return out
