"""Folders and archives that are scenes: which of their files are bands, and which show clouds."""

from __future__ import annotations

import os
import re

from geoseg.core.gdal import gdal_options
from geoseg.errors import SceneError
from geoseg.scene.bands import bands_of
from geoseg.scene.clouds import rule_of
from geoseg.scene.containers import KINDS, archive_root, files_in, shell_of, within
from geoseg.scene.files import opened
from geoseg.scene.products import Layout, layout_of
from geoseg.scene.products.dimap import of_header
from geoseg.scene.scene import CloudLayer
from geoseg.scene.sensors import Sensor, band_code, common_name
from geoseg.scene.sources import Rules, is_remote
from geoseg.scene.zarr import is_zarr

__all__ = [
    "PRODUCT_FOLDER",
    "RASTER_SUFFIXES",
    "bands_in",
    "beside_header",
    "cloud_layer",
    "folder_of",
    "is_product_archive",
    "name_of",
]

#: Folders whose name is a product's.
PRODUCT_FOLDER = re.compile(
    r"(S2[ABCD]_(MSI|T?\d{1,2}[A-Z]{3}_\d{8})|SENTINEL2[ABCD]_|L[CETMO]0\d_|HLS\.)", re.IGNORECASE
)
RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".dat", ".bil"}
#: What GDAL would read beside a band in an archive, and what it names can't be looked at there.
_BESIDE = (".ovr", ".msk", ".aux", ".aux.xml")
#: Folders in each other, each alone in the one before, that are looked through.
MAX_SHELLS = 5
_NO_NAME = ": not named after a band"
#: Layers that show clouds, as names of files end.
_LAYER = re.compile(r"(?:^|[_.])(SCL|QA_PIXEL|Fmask)(?:_\d+m)?$", re.I)


def folder_of(named: str) -> str | None:
    """Find the folder that a scene's files are in; None where the user named a file.

    Args:
        named: path of a folder, an archive (.zip, .tar), or a header that stands for a folder
            (.dim); an address is none.

    Returns:
        A path, of an archive's inside as GDAL writes it.

    Raises:
        SceneError: it is an archive that can't be read.
    """
    if is_remote(named):
        return None
    if os.path.isdir(named):
        return _core("" if os.path.normpath(named) == "." else os.path.normpath(named))
    inside = archive_root(named)
    return of_header(named) if inside is None else _core(inside)


def beside_header(named: str) -> str:
    """Give the raster that an ENVI header (.hdr) describes; any other name as it is.

    Args:
        named: a path or an address.
    """
    stem, suffix = os.path.splitext(named)
    if suffix.lower() != ".hdr" or is_remote(named):
        return named
    ends = ("", *sorted(RASTER_SUFFIXES), ".bsq", ".bip", ".raw")
    return next((stem + end for end in ends if os.path.isfile(stem + end)), named)


def is_product_archive(name: str) -> bool:
    """Whether a file is named as an archive of a product: other archives may hold anything.

    Args:
        name: without its folder.
    """
    stem, suffix = os.path.splitext(name)
    is_product = PRODUCT_FOLDER.match(name) is not None or stem.upper().endswith(".SAFE")
    return suffix.lower() in KINDS and is_product


def _core(folder: str) -> str:
    """Pass folders that hold no raster and one folder alone, down to what may be a scene."""
    for _ in range(MAX_SHELLS):
        rasters = any(
            os.path.splitext(name)[1].lower() in RASTER_SUFFIXES for name in files_in(folder)
        )
        inner = shell_of(folder)
        known = is_zarr(folder) or layout_of(folder) is not None
        if inner is None or rasters or known:
            break
        folder = inner
    return folder


def name_of(folder: str, named: str) -> str:
    """Give the name of a scene that is a folder.

    Args:
        folder: as :func:`folder_of` gives it.
        named: what the user named.
    """
    if os.path.isdir(named):
        name = os.path.basename(os.path.abspath(folder))  # "." has none of its own
    else:
        name = os.path.splitext(os.path.basename(named))[0]
    return re.sub(r"\.(SAFE|data|zarr)$", "", name, flags=re.I) or "scene"


def bands_in(folder: str, named: str) -> Layout:
    """Find the files with bands in a folder: a product's, or those that are named after a band.

    Args:
        folder: as :func:`folder_of` gives it.
        named: what the user named, for messages.

    Raises:
        SceneError: there are none, or what lies beside them can't be looked at.
    """
    found = layout_of(folder) or _by_names(folder)
    if not found.files:
        raise SceneError(
            f"{named} holds {len(found.others)} raster files and none is named after a band; a "
            f"folder scene has one-band files such as B04.tif or red.tif: or give the files "
            f"themselves"
        )
    if folder.startswith("/vsi"):
        _check_beside([*found.files, *(path for path, _ in found.clouds)], named)
    return found


def _by_names(folder: str) -> Layout:
    used: list[str] = []
    others: list[str] = []
    layers: list[tuple[str, str]] = []
    for name in files_in(folder):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in RASTER_SUFFIXES or name.startswith("."):
            continue
        if band_code(stem) is not None or common_name(stem) is not None:
            used.append(within(folder, name))
            continue
        others.append(f"{name}{_NO_NAME}")
        if match := _LAYER.search(stem):
            layers.append((within(folder, name), match[1]))
    if len(others) == 1 and not used and not layers:  # whose bands may have names
        return Layout((within(folder, others[0].removesuffix(_NO_NAME)),))
    return Layout(tuple(used), tuple(others), tuple(layers))


def _check_beside(paths: list[str], named: str) -> None:
    """Refuse what GDAL would read beside bands in an archive.

    Raises:
        SceneError: there is some.
    """
    for folder in dict.fromkeys(map(os.path.dirname, paths)):
        here = {name.casefold() for name in files_in(folder)}
        for path in paths:
            whole = os.path.basename(path).casefold()
            stems = {whole, os.path.splitext(whole)[0]}
            beside = [stem + end for stem in stems for end in _BESIDE if stem + end in here]
            if beside and os.path.dirname(path) == folder:
                raise SceneError(
                    f"{named}: {beside[0]} lies beside a band, and may lead anywhere where geoseg "
                    f"can't see it; unpack the archive and give the folder"
                )


def cloud_layer(found: Layout, sensor: Sensor | None, rules: Rules) -> CloudLayer | None:
    """Open the layer that shows a product's clouds, with the finest pixels; None without one.

    Args:
        found: the product's files.
        sensor: of the scene, which says what the layer's numbers mean.
        rules: what its file may point to.

    Raises:
        SceneError: it can't be opened, or holds no whole numbers.
    """
    best: CloudLayer | None = None
    for path, kind in found.clouds:
        rule = rule_of(kind, sensor)
        if rule is None:
            continue
        with gdal_options(path), opened(path, rules) as dataset:
            bands = bands_of(dataset, path, rules, alpha=False)
        if len(bands) < max(rule.bands, default=1):
            continue
        if not bands[0].dtype.startswith(("int", "uint")):
            raise SceneError(
                f"{path}: a cloud layer has whole numbers, and these are {bands[0].dtype}; give "
                f"--clouds none to do without"
            )
        layer = CloudLayer(bands[0], rule, os.path.basename(path))
        if best is None or abs(bands[0].grid.transform.a) < abs(best.band.grid.transform.a):
            best = layer
    return best
