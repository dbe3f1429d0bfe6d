"""What geoseg made: only that is ever replaced or removed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import rasterio
import rasterio.errors

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.ours import is_ours as holds_our_polygons

__all__ = [
    "HTML_MARK",
    "PLAN_COLUMNS",
    "PLAN_MARK",
    "QML_MARK",
    "TABLE_HEAD",
    "holds_statistics_alone",
    "is_ours",
    "significant_text",
]

#: In the first bytes of text files that geoseg writes.
HTML_MARK = '<meta name="generator" content="geoseg">'
QML_MARK = "<!-- made by geoseg -->"
#: First line of an evaluation's table.
TABLE_HEAD = ("class_id", "class_name", "measure", "value", "standard_error", "low", "high")
#: First line of the plan of an archive, and the first bytes of the same as GeoJSON.
PLAN_COLUMNS = (
    *("key", "name", "state", "reason", "width", "height", "pixels", "seconds", "bytes"),
    *("source", "west", "south", "east", "north"),
)
PLAN_MARK = '{"type": "FeatureCollection", "geoseg:plan": '
#: Of a sample's points, with and without the mapped class.
POINT_COLUMNS = (("id", "class_id", "class_name", "reference"), ("id", "reference"))
#: In a PNG's text, by which matplotlib says what made it.
PNG_MARK = b"tEXtSoftware\x00geoseg"
#: So much of a file is looked at for a mark.
_HEAD_BYTES = 4096
#: Reports and sidecars are smaller; what is larger is not read to find out.
_MOST_BYTES = 64 << 20


def is_ours(path: Path) -> bool:
    """Whether geoseg made a file, as far as the file itself shows.

    Args:
        path: of a file that is there.

    Returns:
        False where it can't be read, or is of a kind that geoseg does not write.
    """
    with suppress(*GDAL_ERRORS, ValueError):
        return _CHECKS.get(path.suffix.lower(), _is_vector)(path)
    return False


def _is_raster(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        # What lies beside the file says nothing about who made it.
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_PAM_ENABLED="NO"),
            rasterio.open(path, driver="GTiff") as dataset,
        ):
            return "GEOSEG_VERSION" in dataset.tags()


def _is_virtual_raster(path: Path) -> bool:
    """Whether a virtual raster has geoseg's tag; the files that it names are not opened."""
    if path.stat().st_size > _MOST_BYTES:
        return False
    content = path.read_bytes()
    if b"<!DOCTYPE" in content:
        return False
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return False
    tags = {item.get("key") for item in root.findall("Metadata/MDI")}
    return root.tag == "VRTDataset" and "GEOSEG_VERSION" in tags


def _is_json(path: Path) -> bool:
    """Whether a file is a report, a collection, or GeoJSON under the shorter suffix."""
    if path.stat().st_size > _MOST_BYTES:
        return _is_vector(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        return False
    if "geoseg" in found or "geoseg:items" in found:  # a report, or an archive's collection
        return True
    return found.get("type") == "FeatureCollection" and _is_vector(path)


def _begins_with(*marks: bytes) -> Callable[[Path], bool]:
    def check(path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        return any(mark in head for mark in marks)

    return check


def _is_geojson(path: Path) -> bool:
    return _begins_with(PLAN_MARK.encode())(path) or _is_vector(path)


def _is_vector(path: Path) -> bool:
    return holds_our_polygons(path) or _holds_our_points(path)


def _holds_our_points(path: Path) -> bool:
    """Whether a vector file is a sample of which no point was labelled yet: that is work."""
    # It takes half a second, and only where a file is there.
    import pyogrio

    try:
        if len(pyogrio.list_layers(path)) != 1:
            return False
        if tuple(pyogrio.read_info(path)["fields"]) not in POINT_COLUMNS:
            return False
        labels = pyogrio.read_dataframe(path, columns=["reference"], read_geometry=False)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError):
        return False
    return bool(labels["reference"].isna().all())


_CHECKS: dict[str, Callable[[Path], bool]] = {
    ".tif": _is_raster,
    ".tiff": _is_raster,
    ".vrt": _is_virtual_raster,
    ".json": _is_json,
    ".qml": _begins_with(QML_MARK.encode()),
    ".html": _begins_with(HTML_MARK.encode()),
    ".htm": _begins_with(HTML_MARK.encode()),
    ".png": _begins_with(PNG_MARK),
    ".csv": _begins_with(",".join(TABLE_HEAD).encode(), ",".join(PLAN_COLUMNS).encode()),
    ".geojson": _is_geojson,
}


def holds_statistics_alone(path: Path) -> bool:
    """Whether a ``.aux.xml`` holds nothing but what GDAL and QGIS work out of the pixels.

    QGIS writes such a file when a raster is looked at.

    Args:
        path: of any file or link.
    """
    if not path.name.lower().endswith(".aux.xml") or path.is_symlink():
        return False
    try:
        return path.stat().st_size <= _MOST_BYTES and not significant_text(path.read_bytes())
    except (OSError, ElementTree.ParseError):
        return False


def significant_text(content: bytes) -> str:
    """Read what a ``.aux.xml`` says apart from statistics and histograms; "" for nothing.

    Args:
        content: of the file.

    Raises:
        ElementTree.ParseError: it is no XML.
    """
    root = ElementTree.fromstring(content)
    _drop_statistics(root)
    if root.tag != "PAMDataset" or len(root) or root.attrib:
        return ElementTree.canonicalize(ElementTree.tostring(root, "unicode"), strip_text=True)
    return ""


def _drop_statistics(parent: Any) -> None:
    for child in list(parent):
        _drop_statistics(child)
        derived = child.tag == "Histograms" or str(child.get("key", "")).startswith("STATISTICS_")
        # What held nothing else is left empty.
        empty = child.tag in ("PAMRasterBand", "Metadata") and not len(child)
        if derived or empty:
            parent.remove(child)
