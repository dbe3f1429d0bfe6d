"""Vector files that may be opened: those that lead nowhere else."""

from __future__ import annotations

import json
import mmap
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.parsers import expat

from geoseg.core.names import public_name
from geoseg.errors import UsageError
from geoseg.scene.file_kinds import HEAD_BYTES, MAGIC, first_bytes, is_vrt, leading_text
from geoseg.scene.sources import SCHEME, Rules, is_remote

__all__ = ["check_vector", "holds_shapes"]


#: Suffixes of vector files that are plain text and hold all themselves.
_TABLES = {".csv", ".tsv", ".mif", ".dxf", ".gmt", ".geojsonl", ".geojsons", ".ndjson"}


#: Roots of XML files of shapes, without prefix.
_SHAPES_XML = {"kml", "gpx", "featurecollection", "featuredataset"}


_VECTOR_SUFFIXES = {
    *(".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".kml", ".gml", ".gpx", ".gdb"),
    *(".sqlite", ".tab", ".zip", ".shz", ".kmz", *_TABLES),
}


def holds_shapes(path: str | Path) -> bool | None:
    """Whether a file is one of shapes, as far as its first bytes say; None where they don't.

    Args:
        path: a file, a folder or an address.
    """
    name = str(path)
    suffix = Path(name.split("?")[0]).suffix.lower()
    if is_remote(name) or os.path.isdir(name):
        return suffix in _VECTOR_SUFFIXES
    head = first_bytes(name)
    if re.match(rb"SQLite format 3\x00", head):
        return None
    if any(re.match(magic, head, re.S) for magic, _ in MAGIC) or is_vrt(head):
        return False
    return suffix in _VECTOR_SUFFIXES or b"<OGRVRTDataSource" in head or _vector_kind(name, head)


def check_vector(path: str | Path, rules: Rules) -> None:
    """Refuse vector files that lead elsewhere, before GDAL sees them.

    Args:
        path: of the file.
        rules: what it may point to.

    Raises:
        UsageError: it isn't there, is remote, of a kind that is not read, or names an address.
    """
    name = str(path)
    away = is_remote(name) or (not os.path.exists(name) and SCHEME.match(name) is not None)
    if not away and not os.path.exists(name):
        raise UsageError(f"{name}: no such file")
    if rules.vrt == "any":
        return
    if away:
        raise UsageError(
            f"{public_name(name)} is no file on this machine; vector files are read from files: "
            f"download it (ogr2ogr shapes.gpkg SOURCE), or give --allow-vrt any if you trust it"
        )
    if os.path.isdir(name):
        if Path(name).suffix.lower() != ".gdb":
            raise UsageError(f"{name} is a folder; give the file of shapes itself")
        return
    head = first_bytes(name)
    if text := leading_text(head):
        raise UsageError(
            f"{name} is {text}, which may lead anywhere and is not read; give the file of shapes "
            f"itself (ogr2ogr shapes.gpkg {os.path.basename(name)}), or --allow-vrt any if you "
            f"trust it"
        )
    if not _vector_kind(name, head):
        raise UsageError(
            f"{name} can't be read as a vector file (its first bytes are none's); give a "
            f"GeoPackage, GeoJSON, Shapefile, FlatGeobuf, GeoParquet, KML or GML, or --allow-vrt "
            f"any if you trust it"
        )
    if b"{" in head[:256] and not re.match(rb"SQLite|fgb|PAR1|PK", head):
        _check_json(name)


def _vector_kind(name: str, head: bytes) -> bool:
    """Whether a file is of a kind that holds its shapes itself."""
    if re.match(rb"SQLite format 3\x00|fgb\x03|PAR1|\x00\x00\x27\x0a", head):
        return True
    suffix = Path(name).suffix.lower()
    if head.startswith(b"PK\x03\x04"):
        return _is_plain_archive(name)
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n\x1e")
    if begin.startswith(b"{"):
        return True
    if begin.startswith(b"<"):
        return _root(head) in _SHAPES_XML
    if suffix == ".tab":
        return re.search(rb"seamless|linked|view", head, re.I) is None
    # A shapefile's tables stand for it.
    return suffix in _TABLES or suffix in (".dbf", ".shx")


def _root(head: bytes) -> str:
    """Read the name of an XML text's root without prefix, in lower case; empty without a root."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: found.append(tag)
    with suppress(expat.ExpatError):
        parser.Parse(head, False)
    return found[0].rpartition(":")[2].lower() if found else ""


def _is_plain_archive(name: str) -> bool:
    """Whether all files of a .zip are of a kind that hold their shapes themselves."""
    aside = (".prj", ".cpg", ".sbn", ".sbx", ".qix", ".qmd", ".qml", ".txt", ".png", ".jpg", ".md")
    try:
        with zipfile.ZipFile(name) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    head = file.read(HEAD_BYTES)
                begin = head.lstrip(b"\xef\xbb\xbf \t\r\n\x1e")
                if leading_text(head) or begin.startswith((b"{", b"PK\x03\x04")):
                    return False
                beside = Path(member.filename).suffix.lower() in aside and begin[:1] != b"<"
                if not (member.is_dir() or beside or _vector_kind(member.filename, head)):
                    return False
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return False
    return True


def _check_json(name: str) -> None:
    """Refuse JSON whose CRS is a link, or that is no data but a task for GDAL.

    Raises:
        UsageError: it is so.
    """

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, value in pairs:
            crs = key.lower() == "crs" and isinstance(value, dict)
            kind = str(value.get("type", "")).lower() if crs else ""
            task = key.lower() == "type" and str(value).lower() == "gdal_streamed_alg"
            if task or kind.startswith(("link", "url")):
                raise UsageError(
                    f"{name} leads elsewhere ({json.dumps({key: value})[:80]}); write the shapes "
                    f"with a CRS of their own (ogr2ogr -a_srs), or give --allow-vrt any if you "
                    f"trust it"
                )
        return dict(pairs)

    with open(name, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # Escapes could spell any word.
            if re.search(rb"link|url|gdal_streamed|\\u", data, re.I) is None:
                return
        text = file.read().decode("utf-8", errors="replace")
    decoder, place = json.JSONDecoder(object_pairs_hook=look), 0
    blank = re.compile(r"[\s\x1e\ufeff]*")
    while (place := blank.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        try:
            _, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name} is no sound JSON ({error}); write it anew") from error
