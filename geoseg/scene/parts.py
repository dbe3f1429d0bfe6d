"""Names in GDAL's spelling: a variable of a netCDF file, an image in a TIFF, an address."""

from __future__ import annotations

import os
import re

__all__ = ["PART", "PART_DRIVERS", "is_remote", "part_of"]

REMOTE = ("http://", "https://", "s3://", "gs://", "az://", "/vsi")

#: A part of a file in GDAL's spelling -> its driver; what stands before and after the file's name.
PART = re.compile(
    r'(?P<driver>NETCDF|NITF_IM|GTIFF_DIR|GPKG|ZARR):(?P<number>(?:off:)?\d+:)?"?(?P<file>[^"]+?)"?'
    # A variable in a group only behind quotes, where it is no part of an address.
    r"(?P<rest>:[^:\"/\\]+|(?<=\"):/[^:\"\\]+)?",
    re.I,
)
PART_DRIVERS = {
    **{"NETCDF": "netCDF", "NITF_IM": "NITF", "GTIFF_DIR": "GTiff", "GPKG": "GPKG"},
    "ZARR": "Zarr",
}


def is_remote(source: str) -> bool:
    """Whether GDAL reads the source over a network, or out of an archive."""
    return source.startswith(REMOTE) or bool(re.match(r"[a-z0-9]{2,}(\+[a-z0-9]+)*://", source))


def part_of(name: str) -> tuple[str, str] | None:
    """Take a part of a file in GDAL's spelling apart: the file, and what the part is called.

    >>> part_of('NETCDF:"/data/s.nc":B04')
    ('/data/s.nc', 'B04')
    >>> part_of("/data/s.nc")
    """
    match = PART.fullmatch(name)
    if match is None or os.path.exists(name):
        return None
    return match["file"], (match["rest"] or match["number"] or "").strip(":/")
