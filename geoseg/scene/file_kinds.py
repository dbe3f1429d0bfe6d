"""What a file is, by its first bytes: never by its name, which comes from strangers."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from geoseg.scene.pointers import MAX_BYTES

__all__ = [
    "HDF5",
    "HEAD_BYTES",
    "MAGIC",
    "PLAIN",
    "first_bytes",
    "is_vrt",
    "leading_text",
    "tiff_metadata",
]

#: The TIFF tag of GDAL's metadata.
TIFF_METADATA = 42112
#: Of a file: GDAL looks for its texts within the first bytes, behind whatever stands before.
HEAD_BYTES = 64 << 10

#: First bytes -> drivers, one after the other. All read the file itself and what lies beside it.
MAGIC = (
    (rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+", ("GTiff",)),
    (rb"\x89PNG\r\n\x1a\n", ("PNG",)),
    (rb"\xff\xd8\xff", ("JPEG",)),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", ("JP2OpenJPEG",)),
    (rb"EHFA_HEADER_TAG", ("HFA",)),
    (rb"NITF|NSIF", ("NITF",)),
    (rb"CDF[\x01\x02\x05]", ("netCDF",)),
    (rb"SQLite format 3\x00", ("GPKG", "MBTiles")),
    (rb"GIF8[79]a", ("GIF", "BIGGIF")),
    (rb"BM", ("BMP",)),
    (rb"RIFF....WEBP", ("WEBP",)),
    (rb"GRIB", ("GRIB",)),
)
#: Of files without such bytes: numbers as they are, described in a file beside them or at the top.
PLAIN = (
    *("ENVI", "EHdr", "AAIGrid", "GRASSASCIIGrid", "GSAG", "GSBG", "GS7BG", "SAGA", "RST", "PNM"),
    *("SRTMHGT", "DTED", "USGSDEM", "BT", "XYZ"),
)
#: Of HDF5, which may lead to other files; and what opens it.
HDF5 = (rb"\x89HDF\r\n\x1a\n", ("netCDF",))
#: What GDAL takes for a text that points elsewhere, wherever it stands in a file's first bytes.
_TEXTS = {
    b"<VRTDataset": "a virtual raster (VRT)",
    b"<OGRVRTDataSource": "a virtual vector file (OGR VRT)",
    b"<GDAL_WMS": "a description of a web map (WMS)",
    b"<GDAL_WMTS": "a description of a web map (WMTS)",
    b"<WCS_GDAL": "a description of a web coverage (WCS)",
    b"<MRF_META": "a description of a raster elsewhere (MRF)",
    b"<GDALTileIndexDataset": "an index of tiles (GTI)",
    b"<OGRWFSDataSource": "a description of a web service (WFS)",
    b"WFS_Capabilities": "a description of a web service (WFS)",
    b"WMS_Capabilities": "a description of a web map (WMS)",
    b"WMT_MS_Capabilities": "a description of a web map (WMS)",
    b"<OGRCSWDataSource": "a description of a web service (CSW)",
    b"gdal_streamed_alg": "a pipeline of GDAL (GDALG)",
}


def first_bytes(path: str) -> bytes:
    """Read a file's first bytes; none where it can't be read, which GDAL then says."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def is_vrt(head: bytes) -> bool:
    """Whether a file is a virtual raster from its beginning on."""
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return begin.startswith(b"<") and b"<vrtdataset" in head.lower()


def leading_text(head: bytes) -> str | None:
    """Find the text that points elsewhere in a file's first bytes; what it is, or None."""
    folded = head.lower()
    return next((what for mark, what in _TEXTS.items() if mark.lower() in folded), None)


def tiff_metadata(path: str) -> bytes:
    """Read GDAL's metadata in a TIFF's first image, as it stands in the file.

    What is no sound TIFF has none: GDAL can't read it, either.
    """
    found = b""
    with suppress(OSError, struct.error), open(path, "rb") as file:
        order = "<" if file.read(2) == b"II" else ">"

        def number(kind: str) -> int:
            (value,) = struct.unpack(order + kind, file.read(struct.calcsize("=" + kind)))
            return int(value)

        big = number("H") == 43
        wide = "Q" if big else "I"
        file.seek(4 if big else 0, os.SEEK_CUR)
        file.seek(number(wide))
        entries = number("Q" if big else "H")
        start, size = file.tell(), 20 if big else 12
        for place in range(start, start + size * min(entries, 1 << 16), size):
            file.seek(place)
            if number("H") != TIFF_METADATA:
                continue
            number("H")
            length = number(wide)
            if length > struct.calcsize("=" + wide):
                file.seek(number(wide))
            found += file.read(min(length, MAX_BYTES))
    return found
