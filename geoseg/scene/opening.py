"""From what the user names to a scene: a file, several, a folder of one-band files, a .SAFE.

A STAC item is looked at in ``item.py``; ``item_scene.py`` makes a scene of it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from rasterio.enums import ColorInterp

from geoseg.core.gdal import gdal_options
from geoseg.core.names import public_name
from geoseg.errors import BandError, SceneError, UsageError
from geoseg.scene.bands import bands_of, said_of_alpha, stem_of
from geoseg.scene.files import add_files, opened
from geoseg.scene.item import Item, is_item, parse_item, read_item
from geoseg.scene.item_scene import open_item
from geoseg.scene.parts import part_of
from geoseg.scene.place import check_place
from geoseg.scene.scene import Scene, SceneBand, pixel_size
from geoseg.scene.sensors import Sensor, band_code, band_name, common_name, detect_sensor
from geoseg.scene.sources import LOCAL, Rules, is_remote
from geoseg.scene.tiles import join_tiles
from geoseg.scene.variables import one_band_files

__all__ = ["RASTER_SUFFIXES", "Source", "open_scene"]

#: Folders whose name is a product's.
PRODUCT_FOLDER = re.compile(r"(S2[ABCD]_MSI|L[CETMO]0\d_|HLS\.)", re.IGNORECASE)
RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".dat", ".bil"}


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
        source: a raster that GDAL opens (path, URL), a folder of one-band files, a .SAFE folder,
            a list of files, or a STAC item: path, URL, pystac's object, the parsed JSON, or what
            :func:`geoseg.scene.item.parse_item` makes of that and of where it was read from.
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
    files = [public_name(name) for name in named]
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
    if isinstance(source, str | Path) and not is_remote(files[0]) and os.path.isdir(files[0]):
        return _open_folder(Path(files[0]), rules)
    names = [name.strip() for name in (band_names or "").split(",")]
    name = stem_of(files[0])
    files, rules = join_tiles(files, rules)
    return _open_files(files, name, (), rules, folder=len(files) > 1, names=names)


def _item_of(source: Any) -> Item:
    """A STAC item that was read by others."""
    if isinstance(source, Item):
        return source
    if hasattr(source, "to_dict"):  # pystac's, which knows where it read the item
        return parse_item(source.to_dict(), source.get_self_href())
    return parse_item(source)


def _open_folder(folder: Path, rules: Rules) -> Scene:
    """Open a folder's one-band files; in a .SAFE those of IMG_DATA."""
    if folder.suffix.upper() == ".SAFE":
        files = sorted(folder.glob("GRANULE/*/IMG_DATA/**/*.jp2"))
    else:
        files = sorted(
            p
            for p in folder.iterdir()
            if p.suffix.lower() in RASTER_SUFFIXES and not p.name.startswith(".")
        )
    used: list[str] = []
    ignored: list[str] = []
    for path in files:
        named = band_code(path.stem) is not None or common_name(path.stem) is not None
        (used if named else ignored).append(str(path))
    if not used:
        raise SceneError(
            f"{folder} holds {len(files)} raster files and none is named after a band; a folder "
            f"scene has one-band files such as B04.tif or red.tif: or give the files themselves"
        )
    reasons = tuple(f"{Path(p).name}: not named after a band" for p in ignored)
    name = Path(os.path.abspath(folder)).name  # "." has none of its own
    return _open_files(used, name.removesuffix(".SAFE") or "scene", reasons, rules, folder=True)


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
            if folder and len(files) > 1 and len(bands) > 1 and not any(dataset.descriptions):
                skipped.append(f"{Path(file).name}: {len(bands)} bands without names")
                continue
            found += bands
            notes += said
    sensor = _sensor_of(files, found, texts, tags)
    named = [replace(b, name=_name_of(b, sensor)) for b in found]
    if sensor is not None and sensor.name == "Sentinel-2":
        # ESA's products say so in their specification (NODATA is 0), not in the JP2 files.
        named = [
            replace(b, nodata=0.0) if b.nodata is None and b.path.endswith(".jp2") else b
            for b in named
        ]
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


def _sensor_of(
    files: Sequence[str], found: Sequence[SceneBand], texts: Sequence[str], tags: Mapping[str, str]
) -> Sensor | None:
    """Find the sensor by what files say of themselves, their names and their bands' codes."""
    codes = [code for band in found if (code := band_code(band.label))]
    platforms = [v for k, v in tags.items() if "SPACECRAFT" in k.upper() or "PLATFORM" in k.upper()]
    # What the file says of itself comes first, then its name, then folders that are products; a
    # folder that merely is called after a sensor is no evidence.
    products = [t for t in texts if PRODUCT_FOLDER.match(t)]
    return detect_sensor(
        [*platforms, *(Path(f.split("?")[0]).name for f in files), *products], codes
    )


def _name_of(band: SceneBand, sensor: Sensor | None) -> str | None:
    """What a band's description means with the sensor; without one, what the file's colours say."""
    return band_name(band.label, sensor, band.wavelength) if band.has_words else band.name


def _is_named(dataset: Any, names: Sequence[str]) -> bool:
    """Whether the user names the band that is marked as alpha."""
    if len(names) != dataset.count or ColorInterp.alpha not in dataset.colorinterp:
        return False
    marked: int = dataset.colorinterp.index(ColorInterp.alpha)
    return names[marked] != "-"


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
                f"{band.label} and {other.label} are both {key} at the same pixel size; give only "
                f"one of them"
            )
        keep, drop = (band, other) if sizes[0] < sizes[1] else (other, band)
        best[key] = keep
        skipped.append(f"{drop.label}: {key} is there at a finer pixel size")
    return list(best.values())
