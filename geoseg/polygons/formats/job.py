"""What a writer is given; and the writer that leaves it all to GDAL."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import geopandas
import pyarrow
import pyogrio

from geoseg.cards.legend import ClassInfo
from geoseg.core.workers import Workers

__all__ = ["GdalWriter", "Job", "arrow_table"]


@dataclass(frozen=True)
class Job:
    """What is written.

    Attributes:
        frames: rows, some at a time; all like ``empty``.
        empty: the table without rows.
        path: of the file, in plain letters.
        name: what it will be called, for messages and for formats that hold it.
        layer: its name, where the format has layers.
        geometry: ``Polygon``, ``MultiPolygon`` or ``Point``.
        classes: the legend, for formats that hold a style.
        workers: that turn frames into what is written.
        pixel: side of the map's pixels, m; None where it can't be in Web Mercator.
    """

    frames: Iterable[geopandas.GeoDataFrame]
    empty: geopandas.GeoDataFrame
    path: Path
    name: Path
    layer: str
    geometry: str
    classes: Sequence[ClassInfo]
    workers: Workers
    pixel: float | None

    @property
    def schema(self) -> pyarrow.Schema:
        """Columns and types of the rows as Arrow's."""
        return arrow_table(self.empty).schema

    def tables(self) -> Iterator[pyarrow.Table]:
        """Turn the rows into Arrow's, geometry as WKB."""
        schema = self.schema
        return self.workers.map(lambda frame: arrow_table(frame).cast(schema), self.frames, 1)

    def batches(self) -> pyarrow.RecordBatchReader:
        """Turn the rows into a stream of Arrow's."""
        each = (batch for table in self.tables() for batch in table.to_batches())
        return pyarrow.RecordBatchReader.from_batches(self.schema, each)


def arrow_table(frame: geopandas.GeoDataFrame) -> pyarrow.Table:
    """Turn rows into Arrow's, geometry as WKB."""
    return pyarrow.table(frame.to_arrow(index=False, geometry_encoding="WKB"))


@dataclass(frozen=True)
class GdalWriter:
    """Writes files by one of GDAL's drivers.

    Attributes:
        driver: its name.
        geometry: the layer's geometry type, where it isn't that of the job.
        options: of the layer.
        dataset: options of the file.
        names: of columns that are called something else.
    """

    driver: str
    geometry: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def __call__(self, job: Job) -> None:
        """Write the file."""
        batches = job.batches()
        if self.names:
            schema = batches.schema
            renamed = pyarrow.schema(
                [f.with_name(self.names.get(f.name, f.name)) for f in schema], schema.metadata
            )
            rows = (pyarrow.RecordBatch.from_arrays(b.columns, schema=renamed) for b in batches)
            batches = pyarrow.RecordBatchReader.from_batches(renamed, rows)
        crs = job.empty.crs
        with ExitStack() as stack:
            if crs is None:  # catching warnings is no thread's own, so no more than needed
                stack.enter_context(warnings.catch_warnings())
                # A scene without a CRS gives shapes without one; whoever asked for them knows.
                warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.write_arrow(
                batches,
                job.path,
                layer=job.layer,
                driver=self.driver,
                geometry_name=job.empty.geometry.name,
                geometry_type=self.geometry or job.geometry,
                crs=None if crs is None else crs.to_wkt(),
                layer_options=self.options,
                dataset_options=self.dataset,
            )
