"""Files that hold a raster a variable (netCDF, Zarr): which of them are a scene's bands."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import rasterio

from geoseg.core.gdal import gdal_options
from geoseg.core.names import public_name
from geoseg.core.wording import counted
from geoseg.errors import SceneError
from geoseg.scene.file_kinds import HDF5, first_bytes
from geoseg.scene.files import opened
from geoseg.scene.parts import PART_DRIVERS, part_of
from geoseg.scene.sensors import band_code, common_name
from geoseg.scene.sources import Rules
from geoseg.scene.zarr import is_picture, is_version_3, is_zarr

__all__ = ["one_band_files"]

_SUFFIXES = (".nc", ".nc4", ".cdf")
#: First bytes of netCDF, classic and version 4.
_NETCDF = re.compile(rb"CDF[\x01\x02\x05]|" + HDF5[0])
#: What GDAL calls a layer's place on the other axis: of netCDF, of Zarr.
_PLACE = re.compile(r"NETCDF_DIM_(?P<netcdf>\w+)|DIM_(?P<zarr>\w+)_VALUE")
#: Since when times are counted: 1 unit, 2 day, 3 time of day.
_SINCE = re.compile(r"(day|hour|minute|second)s? since (\d+-\d+-\d+)(?:[ T](\d+:\d+(:\d+)?))?")
#: Layers that a message lists.
MOST_SHOWN = 12


def one_band_files(files: Sequence[str], rules: Rules, skipped: list[str]) -> list[str]:
    """Put the variables of a netCDF file or a Zarr folder in its place, where it holds several.

    Args:
        files: names of rasters.
        rules: what they may point to.
        skipped: where it goes which variables are no bands, and why.

    Raises:
        SceneError: a file can't be opened; or its variables hold several layers each.
    """
    found: list[str] = []
    for file in files:
        if part_of(file) or not _holds_variables(file):
            found.append(file)
            continue
        with (
            _said_of_packing(file),
            gdal_options(file),
            opened(file, rules, container=True) as data,
        ):
            inner = [_spelled(data, file, name) for name in data.subdatasets]
        if is_zarr(file):
            # GDAL lists them as the folder does.
            inner = sorted(name for name in inner if is_picture(file, _called(name)))
        with _said_of_packing(file):
            found += _bands_among(file, inner, rules, skipped) if inner else [file]
    return found


@contextmanager
def _said_of_packing(file: str) -> Iterator[None]:
    """Say what to do about a Zarr folder that this GDAL can't unpack."""
    try:
        yield
    except SceneError as error:
        if not is_zarr(file) or not ("codec" in str(error) or is_version_3(file)):
            raise
        raise SceneError(
            f"{file}: GDAL {rasterio.__gdal_version__} does not know how this Zarr folder is "
            f"packed ({error.__cause__ or 'version 3'}); write it as version 2, which it reads "
            f"(xarray: to_zarr(path, zarr_format=2)), or as GeoTIFF"
        ) from error


def _holds_variables(file: str) -> bool:
    if is_zarr(file) or file.split("?")[0].lower().endswith(_SUFFIXES):
        return True
    # A pipe would be waited for.
    return os.path.isfile(file) and _NETCDF.match(first_bytes(file)) is not None


def _spelled(dataset: Any, file: str, name: str) -> str:
    """A variable's name as GDAL takes it, whatever stands in the file's: rasterio drops quotes."""
    drivers = {driver: prefix for prefix, driver in PART_DRIVERS.items()}
    prefix = drivers.get(dataset.driver, "")
    begin = f"{prefix}:{dataset.name}:"
    if prefix and name.lower().startswith(begin.lower()):
        return f'{prefix}:"{file}":{name[len(begin) :]}'
    return public_name(name)


def _called(name: str) -> str:
    """What a variable is called, with the groups that it is in."""
    return (part_of(name) or ("", name))[1]


def _bands_among(file: str, inner: list[str], rules: Rules, skipped: list[str]) -> list[str]:
    """Those of a file's variables that are named after bands; all where none is."""
    called = {name: _called(name) for name in inner}
    last = {name: called[name].rpartition("/")[2] for name in inner}
    named = [n for n in inner if common_name(last[n]) or band_code(last[n])]
    skipped += [
        f"{called[name]}: a variable that is not named after a band"
        for name in inner
        if named and name not in named
    ]
    for name in named or inner:
        with gdal_options(name), opened(name, rules) as dataset:
            layers, shown = dataset.count, _layers(dataset)
        if layers > 1:
            axis, values = shown or ("time", "such as dates")
            once = f"; or all at once (ncks -d {axis},0 {Path(file).name} scene.nc)"
            raise SceneError(
                f"{file}: its variable {called[name]} holds {counted(layers, 'layer')} ({values}), "
                f"and a scene has one: take it out, by number, for each variable (gdal_translate "
                f"-b 1 {name} {last[name]}.tif) and give these files{'' if is_zarr(file) else once}"
            )
    return named or inner


def _layers(dataset: Any) -> tuple[str, str] | None:
    """The axis along which a variable's layers lie, and what each of them is of."""
    tags = dataset.tags(1)
    match = next((m for key in tags if (m := _PLACE.fullmatch(key))), None)
    if match is None:
        return None
    axis = match["netcdf"] or match["zarr"]
    unit = dataset.tags().get(f"{axis}#units", tags.get(f"DIM_{axis}_UNIT", ""))
    shown = [
        f"{i} {_said(dataset.tags(i).get(match[0], ''), unit)}"
        for i in range(1, min(dataset.count, MOST_SHOWN) + 1)
    ]
    return axis, f"{axis}: " + ", ".join(shown) + (", ..." if dataset.count > MOST_SHOWN else "")


def _said(value: str, unit: str) -> str:
    """A date, where the unit says since when days or seconds are counted; else the number."""
    match = re.match(
        r"(day|hour|minute|second)s? since (\d+-\d+-\d+)(?:[ T](\d+:\d+(:\d+)?))?", unit
    )
    if match:
        with suppress(ValueError, OverflowError):
            year, month, day = map(int, match[2].split("-"))
            hour, minute = map(int, (match[3] or "0:0").split(":")[:2])
            start = datetime(year, month, day, hour, minute)
            time = start + timedelta(**{f"{match[1]}s": float(value)})
            return time.isoformat(" ").removesuffix(" 00:00:00")
    return value
