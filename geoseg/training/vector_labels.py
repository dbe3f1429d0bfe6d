"""Labels in vector files: polygons, and points and lines with the recipe's radius around them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import TrainingError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.labels.classes import class_ids
from geoseg.labels.polygons import PolygonFile, read_polygons
from geoseg.labels.vector_files import class_column, read_features
from geoseg.labels.window import check_crs
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig

__all__ = ["CLASS_COLUMNS", "read_shapes"]

#: Columns that say the class of a vector label where the recipe names none: what someone who
#: looked wrote into a sample comes before the map's own class.
CLASS_COLUMNS = ("reference", "class_id")

#: Where the ids begin that stand for the texts of a scene's ``label_map``.
TEXTS = 1 << 40
#: Shapes that lie in a pixel as a whole, or each of their parts does.
POINTS = (shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT)


def read_shapes(
    config: TrainConfig, scene: SceneConfig, path: Path, grid: PixelGrid
) -> PolygonFile:
    """Read the areas of a vector file that are of a class.

    Args:
        config: the recipe, for its legend.
        scene: whose labels they are.
        path: of the file.
        grid: where the scene's pixels lie.

    Returns:
        The polygons; where the scene has a radius, points and lines with it around them, too. Their
        ids are places in the legend, or numbers of sets (:meth:`TrainConfig.targets`).

    Raises:
        TrainingError: nothing in the file has a class, or no CRS gives the radius its metres.
        UsageError: the file has no such column, or holds shapes without area and there is no
            radius.
        LabelError: a CRS is missing on one side, or a text in the column is no class.
    """
    legend, places = _legend(config, scene)
    if scene.radius > 0:
        found = _buffered(path, legend, scene, grid)
    else:
        found = read_polygons(
            path,
            scene.column,
            legend,
            ignore=scene.ignore_label,
            owner="the recipe",
            usual=CLASS_COLUMNS,
            rules=scene.rules,
        )
    return replace(found, ids=np.array([places[i] for i in found.ids.tolist()], np.int64))


def _legend(config: TrainConfig, scene: SceneConfig) -> tuple[dict[int, str], dict[int, int]]:
    """Find what stands for what in a column: (id -> text, id -> place or number of a set)."""
    if not scene.label_map:
        legend = {c.id: str(config.label_values.get(c.name, c.name)) for c in config.classes}
        return legend, {c.id: place for place, c in enumerate(config.classes)}
    targets = config.targets()
    # A number in the column is an id as it stands; texts get ids that no column holds.
    ids = [int(key) if key.isdecimal() else TEXTS + n for n, key in enumerate(scene.label_map)]
    names = zip(ids, scene.label_map.items(), strict=True)
    found = [(i, key, targets[name]) for i, (key, name) in names]
    return {i: key for i, key, _ in found}, {i: place for i, _, place in found}


def _buffered(
    path: Path, legend: dict[int, str], scene: SceneConfig, grid: PixelGrid
) -> PolygonFile:
    """Read points and lines with the scene's radius around them, and polygons as they are.

    A point has the pixel that it lies in at least, however small the radius.

    Raises:
        TrainingError: there is no CRS to measure metres in.
    """
    kinds = ["Point", "LineString", "Polygon"]
    kinds += [f"Multi{kind}" for kind in kinds]
    frame = read_features(str(path), scene.column, kinds, "point, line or polygon", scene.rules)
    column = class_column(str(path), frame, scene.column, CLASS_COLUMNS)
    check_crs(grid.crs is not None, str(scene.path), frame.crs is not None, str(path))
    if frame.crs is None:
        raise TrainingError(
            f"radius is in metres, and neither {scene.path} nor {path} has a CRS that gives "
            f"metres; give them one (gdal_edit.py -a_srs)"
        )
    ids, ignored = class_ids(
        frame[column], legend, scene.ignore_label, str(path), owner="the recipe", things="features"
    )
    rows = np.flatnonzero(ids >= 0)
    if not len(rows):
        raise TrainingError(
            f"{path}: none of its {len(frame)} features has a class in the column {column!r}"
        )
    labelled = frame.geometry.iloc[rows]
    metres = labelled.to_crs(_metres_around(grid))
    area = metres.geom_type.isin(["Polygon", "MultiPolygon"])
    # 16 segments a quarter: the circle's area is right to 0.2 %.
    round_ = metres.where(area, metres.buffer(scene.radius, quad_segs=16))
    parts, feature = shapely.get_parts(np.asarray(round_.array), return_index=True)
    squares, of_point = _pixels_under(labelled, grid, metres.crs)
    feature = np.concatenate((feature, of_point))
    order = np.argsort(feature, kind="stable")
    shapes = shapely.multipolygons(np.concatenate((parts, squares))[order], indices=feature[order])
    return PolygonFile(
        str(path),
        column,
        ids[rows],
        shapely.force_2d(shapes),
        rows,
        pyproj.CRS(metres.crs),
        len(frame),
        len(frame) - len(rows) - ignored,
        ignored,
    )


def _pixels_under(
    shapes: geopandas.GeoSeries, grid: PixelGrid, crs: Any
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Make squares around the centres of the pixels that points lie in.

    Args:
        shapes: points of them are looked at, all else is left out.
        grid: whose pixels they are.
        crs: in which the squares are wanted.

    Returns:
        The squares, and for each the place of its point in ``shapes``.
    """
    own = pyproj.CRS.from_user_input(grid.crs)
    points = np.array(shapes.to_crs(own).array)
    points[~np.isin(shapely.get_type_id(points), POINTS)] = None
    xy, place = shapely.get_coordinates(points, return_index=True)
    col, row = np.floor(_moved(~grid.transform, xy)).T
    inside = (col >= 0) & (col < grid.width) & (row >= 0) & (row < grid.height)
    col, row = col[inside], row[inside]
    # Half a pixel wide: no other pixel's centre lies in them.
    squares = shapely.box(col + 0.25, row + 0.25, col + 0.75, row + 0.75)
    on_grid = shapely.transform(squares, partial(_moved, grid.transform))
    return np.asarray(geopandas.GeoSeries(on_grid, crs=own).to_crs(crs).array), place[inside]


def _moved(transform: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move places (N, 2) by an affine transform; what has no place stays without one."""
    a, b, c, d, e, f = tuple(transform)[:6]
    x, y = xy.T
    with np.errstate(invalid="ignore"):
        return np.column_stack((a * x + b * y + c, d * x + e * y + f))


def _metres_around(grid: PixelGrid) -> pyproj.CRS:
    """Make a CRS in which a metre is one near the grid, however far labels reach beyond it."""
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*(grid.transform @ (grid.width / 2, grid.height / 2)))
    return pyproj.CRS.from_dict({"proj": "aeqd", "lon_0": lon, "lat_0": lat, "datum": "WGS84"})
