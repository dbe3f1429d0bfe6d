"""Several files that lie side by side and hold the same bands: one scene, cut into tiles.

Earth Engine cuts what it exports. The tiles are read through a virtual raster in geoseg's cache
folder, which names them; no pixel is copied.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags

from geoseg.core.cache import Cache
from geoseg.core.folders import cache_folder
from geoseg.core.gdal import gdal_options
from geoseg.errors import BandError
from geoseg.geo.pixel_grid import ROUNDING, PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.files import opened
from geoseg.scene.parts import part_of
from geoseg.scene.sources import Rules, is_remote
from geoseg.scene.vrt import VRT_TYPES, Source, virtual_raster

__all__ = ["join_tiles"]

#: Tiles may share so much of the smaller one; files that share more are of other dates.
MOST_SHARED = 0.5


@dataclass(frozen=True)
class _Tile:
    """A file: where it lies, what is the same in all of them, and whether a mask lies in it."""

    path: str
    grid: PixelGrid
    bands: tuple[tuple[Any, ...], ...]
    tags: dict[str, str]
    masked: bool


def join_tiles(files: Sequence[str], rules: Rules) -> tuple[list[str], Rules]:
    """Put one virtual raster in the place of files that are tiles of one scene.

    Args:
        files: names of rasters, public.
        rules: what they may point to.

    Returns:
        The files to read, and what they may point to; as they came, where they are no tiles.

    Raises:
        BandError: they are tiles, and can't be read as one raster; with what to do.
        SceneError: one can't be opened.
    """
    if len(files) < 2 or any(part_of(file) for file in files):
        return list(files), rules
    tiles = _alike(files, rules)
    if not tiles or _share(tiles):
        return list(files), rules
    places = _places(tiles)
    why = _unfit(tiles, places)
    path = None if why else _written(tiles, places)
    if path is None:
        names = " ".join(Path(tile.path).name for tile in tiles)
        raise BandError(
            f"{Path(tiles[0].path).name} and {Path(tiles[1].path).name} hold the same bands of "
            f"places side by side, so they are tiles of one scene, and "
            f"{why or 'geoseg cannot write into its cache folder (GEOSEG_CACHE)'}: join them "
            f"(gdalbuildvrt scene.vrt {names}), and give that"
        )
    folders = {os.path.dirname(os.path.realpath(tile.path)) for tile in tiles}
    return [path], replace(rules, roots=(*rules.roots, *sorted(folders)))


def _alike(files: Sequence[str], rules: Rules) -> list[_Tile]:
    """The files as tiles; none where their bands differ, or say nothing of what they are."""
    tiles: list[_Tile] = []
    for file in files:
        with gdal_options(file), opened(file, rules, container=True) as dataset:
            # One band without a name is told from others by its file's name alone.
            if not dataset.count or (dataset.count == 1 and not dataset.descriptions[0]):
                return []
            tiles.append(_tile(file, dataset))
        if tiles[-1].bands != tiles[0].bands:
            return []
    return tiles


def _tile(file: str, dataset: Any) -> _Tile:
    about = zip(
        dataset.descriptions, dataset.dtypes, map(_number, dataset.nodatavals), dataset.scales,
        dataset.offsets, dataset.colorinterp, strict=True,
    )  # fmt: skip
    masked = any(
        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        for flags in dataset.mask_flag_enums
    )
    return _Tile(file, PixelGrid.of(dataset), tuple(about), dict(dataset.tags()), masked)


def _number(nodata: float | None) -> str | None:
    """A number that equals itself, NaN too."""
    return None if nodata is None else repr(float(nodata))


def _share(tiles: Sequence[_Tile]) -> bool:
    """Whether two files show the same ground, so that they can't be parts of one picture."""
    boxes = []
    for tile in tiles:
        corners = [tile.grid.transform @ (x * tile.grid.width, y * tile.grid.height)
                   for x in (0, 1) for y in (0, 1)]  # fmt: skip
        xs, ys = zip(*corners, strict=True)
        boxes.append((tile.grid.crs, min(xs), min(ys), max(xs), max(ys)))
    for i, (crs, *one) in enumerate(boxes):
        for other_crs, *other in boxes[:i]:
            if crs != other_crs:
                continue
            across = min(one[2], other[2]) - max(one[0], other[0])
            down = min(one[3], other[3]) - max(one[1], other[1])
            least = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
            if across > 0 and down > 0 and across * down > MOST_SHARED * least:
                return True
    return False


def _places(tiles: Sequence[_Tile]) -> list[Window] | None:
    """Where each tile lies on the first one's pixels; None where they are on other ones."""
    found = []
    first = tiles[0].grid
    for tile in tiles:
        relative = ~first.transform @ tile.grid.transform
        row, col = round(relative.f), round(relative.c)
        size = max(tile.grid.height, tile.grid.width)
        turned = max(abs(relative.a - 1), abs(relative.e - 1), abs(relative.b), abs(relative.d))
        off = max(abs(relative.f - row), abs(relative.c - col), turned * size)
        if tile.grid.crs != first.crs or off > ROUNDING:
            return None
        found.append(Window(row, col, tile.grid.height, tile.grid.width))
    return found


def _unfit(tiles: Sequence[_Tile], places: list[Window] | None) -> str:
    """Why tiles can't be read as one raster; "" where they can."""
    first = tiles[0]
    if places is None:
        return "their pixels are not on one grid (bring them to one CRS and grid with gdalwarp)"
    if any(is_remote(tile.path) for tile in tiles):
        return "they are on a server, where virtual rasters are not followed"
    if any(tile.masked for tile in tiles):
        return "they hold masks"
    if any(dtype not in VRT_TYPES for _, dtype, *_ in first.bands):
        return f"numbers of {first.bands[0][1]} are not put together"
    bare = [band for band in first.bands if band[2] is None and not band[1].startswith("float")]
    if bare and ColorInterp.alpha not in [band[5] for band in first.bands]:
        whole = _around(places)
        if sum(p.height * p.width for p in places) < whole.height * whole.width:
            return "nothing says what is between them (declare nodata, gdal_edit.py -a_nodata)"
    return ""


def _around(places: Sequence[Window]) -> Window:
    """The smallest window that holds all."""
    row, col = min(p.row for p in places), min(p.col for p in places)
    bottom, right = max(p.bottom for p in places), max(p.right for p in places)
    return Window(row, col, bottom - row, right - col)


def _written(tiles: Sequence[_Tile], places: list[Window] | None) -> str | None:
    """Write the virtual raster, once for the same tiles; None where that can't be done."""
    assert places is not None
    text = _text(tiles, places)
    mark = hashlib.sha256(text).hexdigest()[:16]
    name = f"tiles/{Path(tiles[0].path).stem[:100]}-{mark}.vrt"
    try:
        path = cache_folder() / name
        if not path.is_file() or path.read_bytes() != text:
            Cache().write(name, text, plain=True)
        return str(path) if path.read_bytes() == text else None
    except (OSError, RuntimeError):
        return None


def _text(tiles: Sequence[_Tile], places: Sequence[Window]) -> bytes:
    """The virtual raster's text: the tiles, and what the first one says of its bands."""
    first, whole = tiles[0], _around(places)
    sources = [
        Source(
            Path(os.path.abspath(tile.path)),
            Window(p.row - whole.row, p.col - whole.col, p.height, p.width),
        )
        for tile, p in zip(tiles, places, strict=True)
    ]
    text = virtual_raster(whole.height, whole.width, first.bands[0][1], len(first.bands), sources)
    root = ElementTree.fromstring(text)
    if first.grid.crs is not None:
        SubElement(root, "SRS").text = first.grid.crs.to_wkt()
    a, b, c, d, e, f = tuple(first.grid.transform @ Affine.translation(whole.col, whole.row))[:6]
    SubElement(root, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    metadata = SubElement(root, "Metadata")
    for key, value in first.tags.items():
        SubElement(metadata, "MDI", key=key).text = value
    for element, band in zip(root.iter("VRTRasterBand"), first.bands, strict=True):
        description, dtype, nodata, scale, offset, color = band
        element.set("dataType", VRT_TYPES[dtype])
        # What no tile covers is NaN where nothing else is declared.
        empty = nodata or ("nan" if dtype.startswith("float") else None)
        said = {
            "Description": description,
            "NoDataValue": empty,
            "Scale": None if scale == 1 else repr(float(scale)),
            "Offset": None if offset == 0 else repr(float(offset)),
            "ColorInterp": color.name.capitalize() if color.value else None,
        }
        for key, value in said.items():
            if value is not None:
                SubElement(element, key).text = value
    return ElementTree.tostring(root)
