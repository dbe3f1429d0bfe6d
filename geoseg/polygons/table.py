"""Features in pixels become rows of a table: areas on the ground, shares, shapes in the CRS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import geopandas
import numpy as np
import pandas
import shapely
from numpy.typing import NDArray

from geoseg.cards.legend import ClassInfo
from geoseg.geo.geodesy import GroundGrid
from geoseg.polygons.features import Features
from geoseg.polygons.measure import Measure

__all__ = ["PolygonTable"]


@dataclass(frozen=True)
class PolygonTable:
    """Makes the rows; see :func:`~geoseg.polygons.polygonize.polygonize` for the columns.

    Attributes:
        grid: of the map.
        classes: the legend, in the order of codes 1, 2, ...
        measure: of areas and perimeters.
        connectivity: 4, or 8 for features of several parts.
        probs: whether the probabilities of all classes are known.
    """

    grid: GroundGrid
    classes: Sequence[ClassInfo]
    measure: Measure
    connectivity: int
    probs: bool

    def frame(self, features: Features | None) -> geopandas.GeoDataFrame:
        """Make the table of some features; None gives one without rows."""
        if features is None:
            features = Features.none(len(self.classes) + 1 if self.probs else 0)
        area, perimeter = self.measure(features.rings)
        starts = features.features[:-1]
        if len(area) != len(starts):
            area, perimeter = (np.add.reduceat(values, starts) for values in (area, perimeter))
        total, known, least = features.confidence.T
        with np.errstate(invalid="ignore", divide="ignore"):
            confidence = np.where(known > 0, total / known, np.nan)
        ids = np.array([0, *(c.id for c in self.classes)], np.int32)
        names = np.array([None, *(c.name for c in self.classes)], object)
        runner_up, runner_up_probability = _runner_up(features)
        frame = geopandas.GeoDataFrame(
            {
                "class_id": ids[features.codes],
                "class_name": pandas.Series(names[features.codes], dtype=str),
                "area_m2": area,
                "perimeter_m": perimeter,
                "pixels": features.pixels,
                "confidence": confidence,
                "confidence_min": np.where(known > 0, least, np.nan),
                "runner_up": pandas.Series(names[runner_up], dtype=str),
                "runner_up_probability": runner_up_probability,
                "first": features.first,
            },
            geometry=self._geometries(features),
            crs=self.grid.file_crs,
        )
        frame.attrs["more"] = features.more
        return frame

    def _geometries(self, features: Features) -> NDArray[np.object_]:
        """Make (F,) shapes in the raster's CRS."""
        xy, rings, polygons = features.rings
        xy = self.grid.to_crs(xy)
        kind = shapely.GeometryType.POLYGON
        offsets: tuple[NDArray[np.int64], ...] = (rings, polygons)
        if self.connectivity == 8:
            kind = shapely.GeometryType.MULTIPOLYGON
            offsets = (rings, polygons, features.features)
        return np.asarray(shapely.from_ragged_array(kind, xy, offsets))


def _runner_up(features: Features) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the most probable code but for the own one, (F,), and its mean; 0 and NaN without."""
    many = len(features.codes)
    if features.probs.shape[1] <= 2 or not many:
        return np.zeros(many, np.int64), np.full(many, np.nan)
    means = features.probs / features.pixels[:, None]
    means[:, 0] = -1
    means[np.arange(many), features.codes] = -1
    return means.argmax(axis=1), means.max(axis=1)
