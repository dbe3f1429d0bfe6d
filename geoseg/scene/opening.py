"""From what the user names to a scene: a file, several, a folder of one-band files, a .SAFE."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from geoseg.core.gdal import gdal_options
from geoseg.core.names import public_name
from geoseg.errors import BandError, SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.files import add_files, opened
from geoseg.scene.scene import Scene, SceneBand, pixel_size
from geoseg.scene.sensors import band_code, band_name, common_name, detect_sensor
from geoseg.scene.sources import LOCAL, Rules, is_remote

__all__ = ["RASTER_SUFFIXES", "open_scene"]

#: Folders whose name is a product's.
PRODUCT_FOLDER = re.compile(r"(S2[ABCD]_MSI|L[CETMO]0\d_|HLS\.)", re.IGNORECASE)
RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".dat", ".bil"}
_COLORS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
}


def open_scene(source: str | Path | Sequence[str | Path], rules: Rules = LOCAL) -> Scene:
    """Find out what a scene holds.

    Args:
        source: a raster that GDAL opens (path, URL), a folder of one-band files, a .SAFE folder,
            or a list of files.
        rules: what its files may point to.

    Returns:
        Its bands, sensor and tags; no file stays open.

    Raises:
        SceneError: it isn't there, is no raster, or has no usable georeference.
    """
    if isinstance(source, str | Path):
        text = public_name(source)
        if not is_remote(text) and os.path.isdir(text):
            return _open_folder(Path(text), rules)
        return _open_files([text], _stem(text), (), rules, folder=False)
    files = [public_name(s) for s in source]
    if not files:
        raise SceneError("no file given; a scene is a raster file, a list of them or a folder")
    return _open_files(files, _stem(files[0]), (), rules, folder=len(files) > 1)


def _stem(source: str) -> str:
    name = source.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return Path(name).stem or "scene"


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
    files: list[str], name: str, ignored: tuple[str, ...], rules: Rules, *, folder: bool
) -> Scene:
    texts: list[str] = []
    for file in files:
        # From the file up to the .SAFE folder, whose name has the processing baseline:
        # X.SAFE/GRANULE/L2A_.../IMG_DATA/R10m/B02.jp2. The file's own name says most.
        texts += reversed(Path(file.split("?")[0]).absolute().parts[-6:])
    found: list[SceneBand] = []
    tags: dict[str, str] = {}
    skipped = list(ignored)
    behind: dict[str, None] = {}
    for file in files:
        with gdal_options(file), opened(file, rules) as dataset:
            add_files(dataset, behind, rules)
            tags = tags or dict(dataset.tags())
            bands = _bands(dataset, file, rules)
            one_band_only = folder and len(files) > 1
            if one_band_only and len(bands) > 1 and not any(dataset.descriptions):
                skipped.append(f"{Path(file).name}: {len(bands)} bands without names")
                continue
            found += bands
    codes = [code for band in found if (code := band_code(band.label))]
    platforms = [v for k, v in tags.items() if "SPACECRAFT" in k.upper() or "PLATFORM" in k.upper()]
    # What the file says of itself comes first, then its name, then folders that are products; a
    # folder that merely is called after a sensor is no evidence.
    products = [t for t in texts if PRODUCT_FOLDER.match(t)]
    sensor = detect_sensor(
        [*platforms, *(Path(f.split("?")[0]).name for f in files), *products], codes
    )
    named = [replace(b, name=b.name or band_name(b.label, sensor)) for b in found]
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
    )


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


def _bands(dataset: Any, file: str, rules: Rules) -> list[SceneBand]:
    """Describe the bands of an open dataset, without alpha."""
    grid = PixelGrid.of(dataset)
    # Each of these goes through all bands: asked for band by band, thousands take minutes.
    colors, dtypes, descriptions = dataset.colorinterp, dataset.dtypes, dataset.descriptions
    scales, offsets, nodatas = dataset.scales, dataset.offsets, dataset.nodatavals
    single = len(colors) - (ColorInterp.alpha in colors) == 1
    bands = []
    # A colour interpretation is a name only where it is given for three bands at once: a single
    # band that says "red" is how some writers mark their first band.
    coloured = set(_COLORS) <= set(colors)
    for i, interp in enumerate(colors):
        if interp == ColorInterp.alpha:
            continue
        if dtypes[i].startswith("complex"):
            raise SceneError(f"{file}: band {i + 1} is complex; geoseg reads real numbers")
        description = descriptions[i]
        label = description or (_stem(file) if single else f"#{i + 1}")
        name = common_name(label)
        if name is None and not description and coloured:
            name = _COLORS.get(interp)
        scale, offset = scales[i], offsets[i]
        tagged = scale != 1.0 or offset != 0.0
        bands.append(
            SceneBand(
                name=name,
                label=label,
                path=file,
                index=i + 1,
                dtype=dtypes[i],
                nodata=nodatas[i],
                scale=float(scale) if tagged else None,
                offset=float(offset) if tagged else None,
                grid=grid,
                rules=rules,
            )
        )
    return bands
