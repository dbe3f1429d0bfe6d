"""A table of STAC items (stac-geoparquet), row by row as items again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from geoseg.errors import SceneError

__all__ = ["read_table"]

#: Rows that are in memory at a time; each has some kilobytes.
_ROWS = 256
#: Columns of an item itself; the others are properties.
_OF_THE_ITEM = {
    *("type", "id", "collection", "bbox", "links", "assets", "properties"),
    *("geometry", "stac_version", "stac_extensions"),
}
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_table(file: BinaryIO | str, name: str) -> Iterator[dict[str, Any]]:
    """Go through the items of a table.

    Args:
        file: its path, or what is in it.
        name: of it, for people.

    Raises:
        SceneError: it can't be read, or is no table of STAC items.
    """
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            missing = [column for column in ("id", "assets") if column not in names]
            if missing:
                raise SceneError(
                    f"{name} is no stac-geoparquet: it has no column {missing[0]}; write it with "
                    f"stac-geoparquet or rustac, or give the items as .json or .ndjson"
                )
            # An item's outline is of no use here, its box is.
            columns = [n for n in names if n != "geometry" or "bbox" not in names]
            for batch in table.iter_batches(batch_size=_ROWS, columns=columns):
                yield from map(_item, batch.to_pylist(maps_as_pydicts="strict"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SceneError(
            f"{name} can't be read as Parquet ({' '.join(str(error).split())[:120]}); check that "
            f"it is whole"
        ) from error


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make an item of a row; what is null in it was not said of this item."""
    said = _without_nulls(row)
    properties = said.get("properties")
    properties = dict(properties) if isinstance(properties, Mapping) else {}
    properties |= {key: value for key, value in said.items() if key not in _OF_THE_ITEM}
    kept = ("id", "collection", "links", "assets")
    item: dict[str, Any] = {key: said[key] for key in kept if key in said}
    box = said.get("bbox")
    if isinstance(box, Mapping) and all(side in box for side in _SIDES):
        item["bbox"] = [box[side] for side in _SIDES]
    elif isinstance(box, list):
        item["bbox"] = box
    elif isinstance(said.get("geometry"), bytes):
        item["bbox"] = _bounds(said["geometry"])
    return {"type": "Feature", **item, "properties": properties}


def _bounds(geometry: bytes) -> list[float] | None:
    import shapely

    shape = shapely.from_wkb(geometry, on_invalid="ignore")
    return None if shape is None or shape.is_empty else [float(v) for v in shape.bounds]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value
