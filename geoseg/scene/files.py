"""A raster file: opened with all checks; and the files that it is made of."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
import rasterio.errors
from affine import Affine

from geoseg.core.gdal import GDAL_ERRORS, explain_open_error, gdal_options, retried
from geoseg.core.names import public_name
from geoseg.errors import SceneError
from geoseg.scene.declared import check_declared
from geoseg.scene.sources import LOCAL, Rules, is_remote, open_raster
from geoseg.scene.zarr import folders_of

__all__ = ["add_files", "files_behind", "opened"]


@contextmanager
def opened(file: str, rules: Rules = LOCAL, *, container: bool = False) -> Iterator[Any]:
    """Open a raster of rasterio's, after all checks.

    Args:
        file: as :func:`geoseg.core.names.public_name` gives it.
        rules: what it may point to.
        container: give a file without bands of its own, but with subdatasets, as it is.

    Raises:
        SceneError: it can't be opened or has no pixels with a place; with what is wrong with it.
    """
    file = public_name(file)
    if not is_remote(file):
        _check_file(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = retried(file, partial(open_raster, file, rules))
    except (rasterio.errors.RasterioError, OSError, ValueError) as error:
        raise SceneError(explain_open_error(error, file)) from error
    with dataset:
        if dataset.count == 0:
            inner = dataset.subdatasets
            if container and inner:
                yield dataset
                return
            hint = f"; give one of its {len(inner)} subdatasets, e.g. {inner[0]}" if inner else ""
            raise SceneError(f"{file} has no bands of its own{hint}")
        _check_transform(dataset, file)
        placed = dataset.crs is not None or dataset.transform != Affine.identity()
        if not placed and (dataset.gcps[0] or dataset.rpcs):
            raise SceneError(
                f"{file} is placed by ground control points or RPCs only, which would bend the "
                f"output; warp it first, e.g. gdalwarp {Path(file).name} warped.tif"
            )
        check_declared(dataset, file)
        yield dataset


def _check_file(file: str) -> None:
    """Refuse what is no file on this machine that GDAL can open.

    Raises:
        SceneError: it isn't there, is a pipe or a device, or has a name that is not UTF-8.
    """
    try:
        file.encode()
    except UnicodeEncodeError as error:
        shown = file.encode(errors="backslashreplace").decode()
        raise SceneError(f"{shown}: the name is not UTF-8, which GDAL needs; rename it") from error
    if not os.path.exists(file):
        if not re.search("[:<]", file):  # GDAL's own names have these
            raise SceneError(f"{file}: no such file")
    elif not os.path.isfile(file) and not os.path.isdir(file):
        raise SceneError(f"{file} is a pipe or a device; give a file")


def _check_transform(dataset: Any, file: str) -> None:
    """Refuse a raster whose pixels have no place, or no size.

    Raises:
        SceneError: it is one.
    """
    numbers = tuple(dataset.transform)[:6]
    if all(math.isfinite(number) for number in numbers) and dataset.transform.determinant != 0:
        return
    raise SceneError(
        f"{file}: its pixels have no size on the ground (transform "
        f"{', '.join(map(str, numbers))}); correct it, e.g. with gdal_edit.py -a_ullr"
    )


def add_files(dataset: Any, found: dict[str, None], rules: Rules) -> None:
    """Add a dataset's files on this machine, and those of virtual rasters behind it.

    Args:
        dataset: rasterio's, open.
        found: where the paths go, as keys.
        rules: what the files may point to.
    """
    if dataset.driver == "Zarr":
        files = [name for name in dataset.files if os.path.isfile(name)]
        found.update(dict.fromkeys(p for f in files for p in folders_of(os.path.dirname(f))))
    for name in dataset.files:
        # Such as /vsizip/archive.zip/band.tif: the archive.
        bare = Path(re.sub(r"^(/vsi\w+/)+", "", name))
        file = next((str(p) for p in (bare, *bare.parents) if p.is_file()), None)
        if file is None or file in found:
            continue
        found[file] = None
        if file == name and file.lower().endswith(".vrt") and name != dataset.name:
            with suppress(*GDAL_ERRORS), warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                # Looked at already, as part of what names it.
                with rasterio.open(name, driver=None if rules.vrt == "any" else "VRT") as inner:
                    add_files(inner, found, rules)


def files_behind(source: str, rules: Rules = LOCAL) -> tuple[str, ...]:
    """List a raster's files on this machine, as a scene has them; none where it can't be read.

    Args:
        source: a file that GDAL opens.
        rules: what it may point to.
    """
    found: dict[str, None] = {}
    with suppress(SceneError), gdal_options(source), opened(source, rules) as dataset:
        add_files(dataset, found, rules)
    return tuple(found)
