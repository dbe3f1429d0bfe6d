"""Files that hold a raster a variable (netCDF): which of them are a scene's bands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geoseg.core.gdal import gdal_options
from geoseg.core.names import public_name
from geoseg.core.wording import counted
from geoseg.errors import SceneError
from geoseg.scene.files import opened
from geoseg.scene.parts import part_of
from geoseg.scene.sensors import band_code, common_name
from geoseg.scene.sources import Rules, is_remote

__all__ = ["one_band_files"]

_SUFFIXES = (".nc", ".nc4", ".cdf")


def one_band_files(files: Sequence[str], rules: Rules, skipped: list[str]) -> list[str]:
    """Put the variables of a netCDF file in its place, where it holds several.

    Args:
        files: names of rasters.
        rules: what they may point to.
        skipped: where it goes which variables are no bands, and why.

    Raises:
        SceneError: a file can't be opened; or its variables hold several layers each.
    """
    found: list[str] = []
    for file in files:
        if part_of(file) or not file.split("?")[0].lower().endswith(_SUFFIXES):
            found.append(file)
            continue
        with gdal_options(file), opened(file, rules, container=True) as dataset:
            inner = [public_name(name) for name in dataset.subdatasets]
        found += _bands_among(file, inner, rules, skipped) if inner else [file]
    return found


def _bands_among(file: str, inner: list[str], rules: Rules, skipped: list[str]) -> list[str]:
    """Those of a file's variables that are named after bands; all where none is."""
    called = {name: (part_of(name) or ("", name))[1] for name in inner}
    named = [n for n in inner if common_name(called[n]) or band_code(called[n])]
    skipped += [
        f"{called[name]}: a variable that is not named after a band"
        for name in inner
        if named and name not in named
    ]
    for name in named or inner:
        with gdal_options(name), opened(name, rules) as dataset:
            layers = dataset.count
        if layers > 1:
            what = Path(file).name if not is_remote(file) else file
            raise SceneError(
                f"{file}: its variable {called[name]} holds {counted(layers, 'layer')}, such as "
                f"dates, and a scene has one: take it out, e.g. "
                f"ncks -d time,0 {what} scene.nc, or gdal_translate -b 1 {name} band.tif for each "
                f"variable"
            )
    return named or inner
