"""GeoParquet 1.1: a group of rows for each strip of the map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import geopandas
import numpy as np
import pyarrow
import pyarrow.parquet

from geoseg.polygons.formats.job import Job, arrow_table

__all__ = ["write_geoparquet"]


def write_geoparquet(job: Job) -> None:
    """Write a GeoParquet file."""
    geometry = job.empty.geometry.name
    crs = job.empty.crs
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    types: set[str] = set()
    plain = pyarrow.schema([f.remove_metadata() for f in job.schema])

    def noticed() -> Iterator[geopandas.GeoDataFrame]:
        for frame in job.frames:
            if not len(frame):
                continue
            own = frame.total_bounds
            bounds[:2] = np.minimum(bounds[:2], own[:2])
            bounds[2:] = np.maximum(bounds[2:], own[2:])
            types.update(frame.geom_type.unique())
            yield frame

    def table(frame: geopandas.GeoDataFrame) -> tuple[int, pyarrow.Table]:
        return frame.attrs.get("strip", 0), arrow_table(frame).cast(job.schema).cast(plain)

    with pyarrow.parquet.ParquetWriter(job.path, plain, compression="zstd") as writer:
        each = job.workers.map(table, noticed(), 1)
        # A group of rows is of a strip, in however many parts it comes.
        for _, group in groupby(each, key=lambda found: found[0]):
            rows = pyarrow.concat_tables(part for _, part in group)
            writer.write_table(rows.combine_chunks())
            del rows  # the next strip needs the memory
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(types),
            "crs": None if crs is None else crs.to_json_dict(),
        }
        if types:
            column["bbox"] = bounds.tolist()
        if types <= {"Polygon", "MultiPolygon"}:
            column["orientation"] = "counterclockwise"
        geo = {"version": "1.1.0", "primary_column": geometry, "columns": {geometry: column}}
        writer.add_key_value_metadata({"geo": json.dumps(geo)})
