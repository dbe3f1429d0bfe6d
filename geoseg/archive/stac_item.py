"""A map's STAC item: where and when, what the classes are, how it was made, and every file's hash.

It is written when all else of the folder is there, so it is the mark of a job that is done.
Links are relative, so that an archive can be moved; by STAC's rules such an item has no link to
itself. Where nothing says when the scene was taken, STAC's ``datetime`` is the time of processing,
and ``geoseg:datetime_is_of_processing`` is true.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import WktVersion

from geoseg.archive.acquired import acquired, as_text
from geoseg.archive.footprint import footprint
from geoseg.archive.model_item import FILE_SCHEMA, model_href, multihash
from geoseg.archive.writing import write_text
from geoseg.core.jsontext import json_text, nodata_value
from geoseg.core.names import public_name
from geoseg.errors import OutputError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.rasters.class_raster import ClassRaster, open_class_raster
from geoseg.scene.files import opened
from geoseg.scene.sources import is_remote

__all__ = ["COLLECTION", "ITEM_NAME", "files_of", "make_item", "write_item"]

ITEM_NAME = "item.json"
#: The id of an archive's collection where it is given no other.
COLLECTION = "landcover"

_EXTENSIONS = "https://stac-extensions.github.io"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_MEDIA_TYPES = {
    ".tif": _COG,
    ".tiff": _COG,
    ".gpkg": "application/geopackage+sqlite3",
    ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
    ".pmtiles": "application/vnd.pmtiles",
    ".shp": "application/vnd.shp",
    ".png": "image/png",
    ".json": "application/json",
    ".qml": "application/xml",
}
#: Output of a report -> asset, its title, and what it is for.
_OUTPUTS = {
    "raster": ("landcover", "land cover", "data"),
    "vector": ("polygons", "land-cover polygons", "data"),
    "probs": ("probs", "probabilities of the classes", "data"),
    "confidence": ("confidence", "probability of the class", "data"),
    "agreement": ("agreement", "share of models that say the class", "data"),
    "applicability": ("applicability", "likeness to what the model was taught on", "data"),
    "border": ("border", "where what lies beyond the ground may count", "data"),
    "preview": ("preview", "the scene beside its map", "thumbnail"),
}


def make_item(
    folder: Path,
    key: str,
    source: Mapping[str, Any],
    report: Mapping[str, Any],
    *,
    collection: str = COLLECTION,
) -> dict[str, Any]:
    """Describe a finished map as a STAC 1.1 item.

    Args:
        folder: of the map, as ``geoseg predict`` left it.
        key: of the job; the item's id, and the folder's name.
        source: of the job: ``item``, the scene's own STAC item, and ``datetime`` are looked at.
        report: the parsed report of ``geoseg predict``.
        collection: the id of the archive's collection.

    Returns:
        What JSON has, and nothing else.

    Raises:
        OutputError: a file that the report names is missing or can't be read.
        SceneError: the map can't be read.
        UsageError: the source's ``datetime`` is no time.
    """
    outputs = {name: folder / Path(path).name for name, path in report["outputs"].items()}
    with open_class_raster(outputs["raster"]) as raster:
        models = _models(raster, report)
        grid = PixelGrid.of(raster.dataset)
        place = footprint(grid, _measured(raster))
        properties = {
            "title": f"Land cover of {report['scene']['name']}",
            **_times(outputs["raster"].with_suffix(".json"), source, report),
            **_processing(report, models),
            **_projection(raster),
            "geoseg:pixels": dict(report["pixels"]),
            "geoseg:classes": _counts(report),
        }
        classes = _classes(raster)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": key,
        "geometry": None if place is None else place[0],
        **({} if place is None else {"bbox": place[1]}),
        "properties": properties,
        "links": [*_structure(), *_origins(source, report), *_model_links(models)],
        "assets": dict(_assets(outputs, classes, models)),
        "collection": collection,
    }
    item["stac_extensions"] = _extensions(item)
    found: dict[str, Any] = json.loads(json_text(item))
    return found


def files_of(result: Mapping[str, Any]) -> list[str]:
    """List what a finished job has left in its folder, by name; the item comes last.

    Args:
        result: as the ledger keeps it.
    """
    return [*result["files"], ITEM_NAME]


def write_item(
    folder: Path,
    key: str,
    source: Mapping[str, Any],
    report: Mapping[str, Any],
    *,
    collection: str = COLLECTION,
) -> dict[str, Any]:
    """Write a finished map's item, whole or not at all; its folder is done then.

    Args:
        folder: see :func:`make_item`.
        key: of the job.
        source: of the job.
        report: of ``geoseg predict``.
        collection: the id of the archive's collection.

    Returns:
        The item.

    Raises:
        OutputError: see :func:`make_item`; or the item can't be written.
        SceneError: the map can't be read.
        UsageError: the source's ``datetime`` is no time.
    """
    item = make_item(folder, key, source, report, collection=collection)
    # What a worker left that was killed amid this: nobody else is at a job at the same time.
    for left in folder.glob(f".geoseg-{ITEM_NAME}-*"):
        left.unlink(missing_ok=True)
    write_text(folder / ITEM_NAME, json_text(item, indent=2) + "\n")
    return item


def _measured(raster: ClassRaster) -> Window:
    """Find the smallest window around all pixels with a class; of a map without any, the whole."""
    height, width = raster.grid.height, raster.grid.width
    rows, cols = np.zeros(height, bool), np.zeros(width, bool)
    for strip in raster.strips():
        rows[strip.top : strip.bottom] = strip.valid.any(axis=1)
        cols |= strip.valid.any(axis=0)
    if not rows.any():
        return Window(0, 0, height, width)
    (top, bottom), (left, right) = (
        np.flatnonzero(found)[[0, -1]].tolist() for found in (rows, cols)
    )
    return Window(top, left, bottom + 1 - top, right + 1 - left)


def _times(
    report_path: Path, source: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    """Say when the scene was taken, and when the map was made: when its report was written."""
    made = datetime.fromtimestamp(int(_stat(report_path).st_mtime), UTC)
    taken = acquired(source, report)
    known: dict[str, Any] = (
        {"datetime": as_text(made), "geoseg:datetime_is_of_processing": True}
        if taken is None
        else {**taken.properties(), "geoseg:datetime_by": taken.by}
    )
    return {**known, "created": as_text(made), "processing:datetime": as_text(made)}


def _processing(report: Mapping[str, Any], models: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Say how the map was made, in the words of the processing extension."""
    runtime = report["runtime"]
    by = f"{runtime['name']} ({runtime['precision']}) on {runtime['device']}"
    names = " and ".join(name for name, _ in models)
    return {
        "processing:level": "L4",  # MLM's best practice for what a model gives
        "processing:version": report["geoseg"],
        "processing:software": {"geoseg": report["geoseg"], **report["versions"]},
        "processing:lineage": f"geoseg predict with {names}, by {by}",
        **_gsd(report),
    }


def _gsd(report: Mapping[str, Any]) -> dict[str, float]:
    gsd = report["grid"]["gsd"]
    # Rounded: it differs a little from place to place on one grid.
    return {"gsd": float(f"{max(gsd):.4g}")} if gsd else {}


def _projection(raster: ClassRaster) -> dict[str, Any]:
    """Write the pixel grid in the words of the projection extension."""
    crs = raster.dataset.crs
    authority = crs.to_authority(confidence_threshold=100) if crs else None
    about: dict[str, Any] = {"proj:code": ":".join(authority) if authority else None}
    if crs and not authority:
        about["proj:wkt2"] = crs.to_wkt(version=WktVersion.WKT2_2019)
    return {
        **about,
        "proj:shape": [raster.grid.height, raster.grid.width],
        "proj:transform": list(raster.grid.transform),
        "proj:bbox": list(raster.bounds),
    }


def _counts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {"id": "value", "pixels": "pixels", "area_m2": "area_m2"}
    return [{new: c[old] for old, new in names.items()} for c in report["classes"]]


def _classes(raster: ClassRaster) -> list[dict[str, Any]]:
    """Write the legend in the words of the classification extension."""
    colors = raster.dataset.colormap(1) if 1 in _with_colors(raster.dataset) else {}
    return [
        {
            "value": value,
            # STAC wants a word here; the name itself is the title.
            "name": re.sub(r"[^0-9A-Za-z_-]", "_", name) or "_",
            "title": name,
            **({"color_hint": "{:02X}{:02X}{:02X}".format(*colors[value])} if colors else {}),
        }
        for value, name in raster.legend.items()
    ]


def _with_colors(dataset: Any) -> list[int]:
    return [i for i, kind in enumerate(dataset.colorinterp, 1) if kind.name == "palette"]


def _models(raster: ClassRaster, report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List name and hash of all models; the report has the first one's hash alone."""
    hashes = raster.dataset.tags()["GEOSEG_MODEL_SHA256"].split("+")
    return list(zip(report["members"], hashes, strict=True))


def _structure() -> list[dict[str, Any]]:
    return [
        {"rel": rel, "href": "../collection.json", "type": "application/json"}
        for rel in ("root", "parent", "collection")
    ]


def _origins(source: Mapping[str, Any], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Link what the map was made of: the scene's own item, or its files."""
    item = source.get("item") or {}
    own = [link for link in item.get("links", ()) if link.get("rel") == "self" and link.get("href")]
    if own:
        href = public_name(own[0]["href"])
        title = {"title": str(item["id"])} if item.get("id") else {}
        return [{"rel": "derived_from", "href": href, "type": "application/geo+json", **title}]
    paths = report["scene"]["paths"]
    return [{"rel": "derived_from", "href": _address(str(path))} for path in paths]


def _address(path: str) -> str:
    """Write where a scene's file is as an address, without what gives access."""
    name = public_name(path)
    if match := re.match(r"/vsi(curl|s3|gs)(?:_streaming)?/(.*)", name):
        return match[2] if match[1] == "curl" else f"{match[1]}://{match[2]}"
    return name if is_remote(name) else Path(name).absolute().as_uri()


def _model_links(models: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Link the models' items, as MLM's best practice has it."""
    return [
        {
            "rel": "derived_from",
            "href": f"../{model_href(name, sha256)}",
            "type": "application/geo+json",
            "title": f"the model {name}",
            "mlm:name": name,
        }
        for name, sha256 in models
    ]


def _assets(
    outputs: Mapping[str, Path],
    classes: list[dict[str, Any]],
    models: Sequence[tuple[str, str]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe every file of the folder; the map first."""
    for name, path in outputs.items():
        key, title, role = _OUTPUTS[name]
        asset = _asset(path, title, role)
        if path.suffix.lower() in (".tif", ".tiff"):
            asset |= _pixels(path)
        if name == "raster":
            asset["classification:classes"] = classes
            if len(models) == 1:  # of several the links tell
                expression = f"../{model_href(*models[0])}"
                asset["processing:expression"] = {"format": "stac-mlm", "expression": expression}
        if name == "probs":
            asset["bands"] = [{"name": c["name"]} for c in classes]
        yield key, asset
    raster = outputs["raster"]
    yield "style", _asset(raster.with_suffix(".qml"), "style for QGIS", "style")
    yield "report", _asset(raster.with_suffix(".json"), "how the map was made", "metadata")


def _asset(path: Path, title: str, role: str) -> dict[str, Any]:
    size = _stat(path).st_size
    try:
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path} can't be read ({error}); give the job another try") from error
    return {
        "href": f"./{path.name}",
        "type": _MEDIA_TYPES[path.suffix.lower()],
        "title": title,
        "roles": [role],
        "file:size": size,
        "file:checksum": multihash(sha256),
    }


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError as error:
        raise OutputError(
            f"{path} is missing, and the map's report says that it was made; give the job another "
            f"try"
        ) from error


def _pixels(path: Path) -> dict[str, Any]:
    """Say what a raster's numbers are, in STAC's own words and those of the raster extension."""
    with opened(str(path)) as dataset:
        scale = dataset.scales[0]
        return {
            "data_type": dataset.dtypes[0],
            "nodata": nodata_value(dataset.nodata),
            **({} if scale == 1 else {"raster:scale": scale, "raster:offset": 0.0}),
        }


def _extensions(item: Mapping[str, Any]) -> list[str]:
    """List the extensions whose words an item has."""
    names = ["classification/v1.1.0", "processing/v1.2.0", "projection/v2.0.0"]
    if any("raster:scale" in asset for asset in item["assets"].values()):
        names.append("raster/v2.0.0")
    return [FILE_SCHEMA, *(f"{_EXTENSIONS}/{name}/schema.json" for name in names)]
