"""From what the user names to a scene: a file, several, a folder or an archive of one-band files.

A STAC item is looked at in ``item.py``; ``item_scene.py`` makes a scene of it. What folders and
archives of products hold, and what their metadata say, is found in ``products/``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from rasterio.enums import ColorInterp

from geoseg.core.gdal import gdal_options, over_network
from geoseg.core.names import public_name
from geoseg.errors import BandError, SceneError, UsageError
from geoseg.scene.bands import bands_of, said_of_alpha, stem_of
from geoseg.scene.clouds import cloud_band
from geoseg.scene.dates import dates_of
from geoseg.scene.files import add_files, opened
from geoseg.scene.folders import (
    PRODUCT_FOLDER,
    RASTER_SUFFIXES,
    bands_in,
    beside_header,
    cloud_layer,
    folder_of,
    name_of,
)
from geoseg.scene.item import Item, is_item, parse_item, read_item
from geoseg.scene.item_beside import item_beside
from geoseg.scene.item_scene import open_item
from geoseg.scene.naming import WHOLE, named_bands, told_by_products
from geoseg.scene.parts import part_of
from geoseg.scene.place import check_place
from geoseg.scene.products import Layout, told_of
from geoseg.scene.scene import CloudLayer, Scene
from geoseg.scene.scene_band import SceneBand, pixel_size
from geoseg.scene.sources import LOCAL, Rules
from geoseg.scene.tiles import join_tiles
from geoseg.scene.variables import one_band_files
from geoseg.scene.zarr import is_zarr

__all__ = ["PRODUCT_FOLDER", "RASTER_SUFFIXES", "Source", "open_scene"]


#: What a scene is opened from.
Source: TypeAlias = str | Path | Sequence[str | Path] | Mapping[str, Any] | Item


def open_scene(
    source: Source,
    rules: Rules = LOCAL,
    *,
    assets: Sequence[str] = (),
    clouds: str = "auto",
    band_names: str | None = None,
) -> Scene:
    """Find out what a scene holds.

    Args:
        source: a raster that GDAL opens (path, URL), a folder of one-band files or of a product, a
            .zip or .tar of one, a list of files, or a STAC item: path, URL, pystac's object, the
            parsed JSON, or what :func:`geoseg.scene.item.parse_item` makes of that and of where it
            was read from.
        rules: what its files may point to.
        assets: keys of the item's assets that are its bands; none for all that are known to be.
        clouds: ``auto``: look for a layer that says which pixels are clouds; ``none``.
        band_names: what the bands are, one name a band, comma-separated; None where the files say
            it.

    Returns:
        Its bands, sensor and tags; no file stays open.

    Raises:
        SceneError: it isn't there, is no raster, or has no usable georeference, or one whose
            coordinates are not those of its CRS.
        UsageError: assets are named, and the scene is no item or has none of that name.
        BandError: the names are unknown, or not as many as there are bands.
    """
    scene = _open(source, rules, assets, clouds, band_names).with_names(band_names)
    return replace(scene, notes=(*scene.notes, *check_place(scene.grid, scene.name)))


def _open(
    source: Source, rules: Rules, assets: Sequence[str], clouds: str, band_names: str | None
) -> Scene:
    """Open a scene whose bands are called what the files call them."""
    if not isinstance(source, str | Path | Sequence):
        return open_item(_item_of(source), rules, assets, clouds)
    named = [source] if isinstance(source, str | Path) else list(source)
    files = [beside_header(public_name(name)) for name in named]
    items = [file for file in files if is_item(file)]
    if items and len(files) > 1:
        raise SceneError(
            f"{items[0]} is a STAC item, and so a scene of its own; give it alone, or the rasters"
        )
    if items:
        return open_item(read_item(items[0]), rules, assets, clouds)
    if assets:
        raise UsageError(
            f"--asset {assets[0]}: assets are chosen of a STAC item, and {', '.join(files)[:200]} "
            f"is none; leave --asset out, or give the item"
        )
    if not files:
        raise SceneError("no file given; a scene is a raster file, a list of them or a folder")
    if isinstance(source, str | Path) and (folder := folder_of(files[0])) is not None:
        return _open_folder(folder, files[0], rules, clouds)
    names = [name.strip() for name in (band_names or "").split(",")]
    name = stem_of(files[0])
    files, rules = join_tiles(files, rules)
    scene = _open_files(files, name, (), rules, folder=len(files) > 1, names=names)
    return scene if clouds == "none" else _with_cloud_band(scene)


def _item_of(source: Any) -> Item:
    """A STAC item that was read by others."""
    if isinstance(source, Item):
        return source
    if hasattr(source, "to_dict"):  # pystac's, which knows where it read the item
        return parse_item(source.to_dict(), source.get_self_href())
    return parse_item(source)


def _open_folder(folder: str, named: str, rules: Rules, clouds: str) -> Scene:
    """Open a product's bands, or a folder's one-band files.

    Args:
        folder: as :func:`geoseg.scene.folders.folder_of` gives it.
        named: what the user named: the folder, an archive, or a header.
        rules: what the files may point to.
        clouds: as for :func:`open_scene`.
    """
    if is_zarr(folder):
        return _open_files([folder or "."], name_of(folder, named), (), rules, folder=True)
    found = bands_in(folder, named)
    scene = _by_item(folder, named, found, rules, clouds)
    if scene is not None:
        return scene
    scene = _open_files(
        list(found.files), name_of(folder, named), found.others, rules, folder=len(found.files) > 1
    )
    if clouds != "auto":
        return scene
    layer = cloud_layer(found, scene.sensor, rules)
    if layer is None:
        return _with_cloud_band(scene)
    used = f"{os.path.basename(layer.band.path)}: "
    ignored = tuple(line for line in scene.ignored if not line.startswith(used))
    return replace(scene, clouds=layer, ignored=ignored)


def _with_cloud_band(scene: Scene) -> Scene:
    """Have the band of a scene that is a cloud layer show its clouds."""
    found = cloud_band(scene.bands, scene.sensor)
    if found is None:
        return scene
    band, rule = found
    source = f"{band.label} in {os.path.basename(band.path)}"
    return replace(scene, clouds=CloudLayer(band, rule, source))


def _by_item(folder: str, named: str, found: Layout, rules: Rules, clouds: str) -> Scene | None:
    """Open files as the STAC item that lies beside them says; None where there is none.

    A product's own metadata come before it, and numbers of other types than products have were
    changed by someone: the item does not speak of them.
    """
    if any(told_of(file, 1, 1) is not None for file in found.files):
        return None
    item = item_beside(folder, found.files)
    if item is None:
        return None
    scene = open_item(item, rules, clouds=clouds)
    if not all(WHOLE.match(band.dtype) for band in scene.bands):
        return None
    note = f"{os.path.basename(item.href)} names these files, and says what their numbers mean"
    return replace(scene, name=name_of(folder, named), notes=(*scene.notes, note))


def _open_files(
    files: list[str],
    name: str,
    ignored: tuple[str, ...],
    rules: Rules,
    *,
    folder: bool,
    names: Sequence[str] = (),
) -> Scene:
    """Open rasters that are a scene together.

    Args:
        files: their names.
        name: of the scene.
        ignored: what else is there, with the reason.
        rules: what they may point to.
        folder: whether they are one-band files, of which the finest of each band counts.
        names: what the user says that all bands are; none where the files say it.
    """
    skipped, notes = list(ignored), list[str]()
    files = one_band_files(files, rules, skipped)
    folder = folder or len(files) > 1
    texts: list[str] = []
    for file in files:
        # From the file up to the .SAFE folder, whose name has the processing baseline:
        # X.SAFE/GRANULE/L2A_.../IMG_DATA/R10m/B02.jp2. The file's own name says most.
        bare = (part_of(file) or (file, ""))[0].split("?")[0]
        texts += reversed(Path(bare).absolute().parts[-6:])
    found: list[SceneBand] = []
    tags: dict[str, str] = {}
    behind: dict[str, None] = {}
    for file in files:
        with gdal_options(file), opened(file, rules) as dataset:
            add_files(dataset, behind, rules)
            tags = tags or dict(dataset.tags())
            bands, said = _bands_of(dataset, file, rules, names)
            unnamed = len(bands) > 1 and not any(dataset.descriptions)
            if folder and len(files) > 1 and unnamed and not _is_told(file, len(bands)):
                skipped.append(f"{Path(file).name}: {len(bands)} bands without names")
                continue
            found += bands
            notes += said
    found, told, products = told_by_products(found, behind, texts)
    telling = [*_platforms(tags), *_names(files), *products]
    (sensor, sensor_by), named = named_bands(found, told, telling, texts)
    if not named:
        reasons = f" ({'; '.join(skipped)})" if skipped else ""
        raise SceneError(f"{name}: no usable band found{reasons}; a scene has at least one")
    if folder:
        named = _finest_of_each(named, skipped)
    return Scene(
        name=name,
        paths=tuple(dict.fromkeys(b.path for b in named)),
        bands=tuple(named),
        sensor=sensor,
        sensor_by=sensor_by,
        texts=tuple(dict.fromkeys(texts)),
        tags=tags,
        ignored=tuple(skipped),
        files=tuple(behind),
        notes=tuple(notes),
    )


def _bands_of(
    dataset: Any, file: str, rules: Rules, names: Sequence[str]
) -> tuple[list[SceneBand], list[str]]:
    """Describe a file's bands, and say what is odd about them."""
    # Who names all bands says that none of them is alpha.
    alpha = False if _is_named(dataset, names) else None
    bands = bands_of(dataset, file, rules, alpha=alpha)
    return bands, [] if alpha is False else said_of_alpha(dataset, file, bands)


def _is_named(dataset: Any, names: Sequence[str]) -> bool:
    """Whether the user names the band that is marked as alpha."""
    if len(names) != dataset.count or ColorInterp.alpha not in dataset.colorinterp:
        return False
    marked: int = dataset.colorinterp.index(ColorInterp.alpha)
    return names[marked] != "-"


def _is_told(file: str, count: int) -> bool:
    """Whether a product's metadata say what any of a file's bands is."""
    said = [] if over_network(file) else [told_of(file, i + 1, count) for i in range(count)]
    return any(one is not None and one.name is not None for one in said)


def _platforms(tags: Mapping[str, str]) -> list[str]:
    return [v for k, v in tags.items() if "SPACECRAFT" in k.upper() or "PLATFORM" in k.upper()]


def _names(files: Sequence[str]) -> list[str]:
    return [Path(file.split("?")[0]).name for file in files]


def _finest_of_each(bands: list[SceneBand], skipped: list[str]) -> list[SceneBand]:
    """Keep one band a name: a .SAFE holds B02 at 10, 20 and 60 m."""
    best: dict[str, SceneBand] = {}
    for band in bands:
        key = band.name or f"{band.path}:{band.index}"
        other = best.get(key)
        if other is None:
            best[key] = band
            continue
        sizes = [pixel_size(b.grid) for b in (band, other)]
        if math.isclose(*sizes, rel_tol=1e-3):
            raise BandError(
                f"{band.label} and {other.label} are both {key} at the same pixel size"
                f"{_of_dates(band, other)}; give only one of them"
            )
        keep, drop = (band, other) if sizes[0] < sizes[1] else (other, band)
        best[key] = keep
        skipped.append(f"{drop.label}: {key} is there at a finer pixel size")
    return list(best.values())


def _of_dates(*bands: SceneBand) -> str:
    """Say of which dates bands are, where their names tell several."""
    found = dates_of([(band.label if band.has_words else "", band.path) for band in bands])
    if len(found) < 2:
        return ""
    return f", of {' and '.join(map(str, sorted(found)))}: a scene is of one date"
