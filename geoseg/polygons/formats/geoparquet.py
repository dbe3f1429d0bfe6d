"""GeoParquet 1.1: a group of rows for each strip of the map."""

from __future__ import annotations

import json
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

    def noticed(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
        own = frame.total_bounds
        bounds[:2] = np.minimum(bounds[:2], own[:2])
        bounds[2:] = np.maximum(bounds[2:], own[2:])
        types.update(frame.geom_type.unique())
        return frame

    def table(frame: geopandas.GeoDataFrame) -> tuple[bool, pyarrow.Table]:
        return frame.attrs.get("more", False), arrow_table(frame).cast(job.schema).cast(plain)

    with pyarrow.parquet.ParquetWriter(job.path, plain, compression="zstd") as writer:
        parts: list[pyarrow.Table] = []
        for more, part in job.workers.map(table, map(noticed, filter(len, job.frames)), 1):
            parts.append(part)
            if not more:
                writer.write_table(pyarrow.concat_tables(parts).combine_chunks())
                parts.clear()
            del part  # the next strip needs the memory
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
