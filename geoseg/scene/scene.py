"""Scenes: opening what the user has.

A scene is one raster file, a list of files, or a folder (also a .SAFE) of one-band files, local or
remote. Its bands are known by name as far as names, codes and the sensor tell.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import rasterio
import rasterio.errors
from affine import Affine
from rasterio.enums import ColorInterp

from geoseg.core.gdal import GDAL_ERRORS, explain_open_error, first_line, gdal_options, retried
from geoseg.core.names import public_name
from geoseg.errors import BandError, SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.declared import check_declared
from geoseg.scene.sensors import (
    BAND_NAMES,
    STAND_INS,
    Sensor,
    band_code,
    band_name,
    common_name,
    detect_sensor,
)
from geoseg.scene.sources import LOCAL, Rules, is_remote, open_raster

__all__ = [
    "Scene",
    "SceneBand",
    "finest_grid",
    "first_line",
    "gdal_options",
    "is_remote",
    "open_scene",
    "opened",
]

#: Folders whose name is a product's.
PRODUCT_FOLDER = re.compile(r"(S2[ABCD]_MSI|L[CETMO]0\d_|HLS\.)", re.IGNORECASE)
RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".dat", ".bil"}


@dataclass(frozen=True)
class SceneBand:
    """One band of a scene.

    Attributes:
        name: geoseg's band name, or None where it is not known.
        label: as found: description or file stem; ``#3`` where there is neither.
        path: the file.
        index: in the file, from 1.
        dtype: of the numbers.
        nodata: the number that stands for "not measured", or None.
        scale: quantity per number by the file's tags, or None.
        offset: quantity at number 0 by the file's tags, or None.
        grid: of the file.
        rules: what the file may point to.
    """

    name: str | None
    label: str
    path: str
    index: int
    dtype: str
    nodata: float | None
    scale: float | None
    offset: float | None
    grid: PixelGrid
    rules: Rules = LOCAL

    def __str__(self) -> str:
        """Name and label, for messages."""
        return f"{self.name} ({self.label})" if self.name not in (None, self.label) else self.label


@dataclass(frozen=True)
class Scene:
    """What was opened. No file stays open.

    Attributes:
        name: the stem for outputs.
        paths: the files with bands.
        bands: all of them, except alpha.
        sensor: where it could be told.
        texts: file and folder names, for the sensor's conventions.
        tags: metadata of the first file.
        ignored: files of the folder that were not used, with the reason.
        files: all on this machine that are read: those behind virtual rasters, too, and what lies
            beside a file and describes it.
    """

    name: str
    paths: tuple[str, ...]
    bands: tuple[SceneBand, ...]
    sensor: Sensor | None
    texts: tuple[str, ...]
    tags: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def grid(self) -> PixelGrid:
        """The grid of the finest band."""
        return finest_grid(self.bands)

    def choose(self, wanted: Sequence[str], spec: str | None = None) -> tuple[SceneBand, ...]:
        """The scene's bands that a model needs, in the model's order.

        Args:
            wanted: the model's bands by name.
            spec: what the user says, comma-separated. Band numbers from 1, or labels and names
                that the scene carries, choose bands in the model's order. For a scene whose bands
                carry no names, names say what each of its bands is, in the file's order.

        Raises:
            BandError: bands are missing, unknown or too few.
        """
        if spec is not None:
            return self._choose_by_spec(wanted, [s.strip() for s in spec.split(",") if s.strip()])
        by_name: dict[str, list[SceneBand]] = {}
        for band in self.bands:
            if band.name is not None:
                by_name.setdefault(band.name, []).append(band)
        chosen: list[SceneBand] = []
        missing: list[str] = []
        for name in wanted:
            # A band that the model needs itself does not stand in for another.
            others = (n for n in STAND_INS.get(name, ()) if n not in wanted)
            served = next((n for n in (name, *others) if n in by_name), None)
            if served is None:
                missing.append(name)
                continue
            if len(by_name[served]) > 1:
                twice = " and ".join(b.label for b in by_name[served])
                raise BandError(
                    f"{self.name}: {twice} are all {served}; say with --bands which ones to use, "
                    f"as band numbers in the model's order: {', '.join(wanted)}"
                )
            chosen += by_name[served]
        if not missing:
            return tuple(chosen)
        found = ", ".join(str(b) for b in self.bands)
        if not by_name and len(self.bands) >= len(wanted):
            raise BandError(
                f"{self.name}: its {len(self.bands)} bands carry no names; the model needs "
                f"{', '.join(wanted)}: give them with --bands, as names in the file's order or "
                f"as band numbers in the model's order"
            )
        if not by_name:
            found = f"{len(self.bands)} bands without names"
        raise BandError(
            f"{self.name}: band {', '.join(missing)} not found among {found}; "
            f"the model needs {', '.join(wanted)}: choose another model (geoseg info shows which "
            f"fit), or say with --bands which bands these are"
        )

    def _choose_by_spec(self, wanted: Sequence[str], items: list[str]) -> tuple[SceneBand, ...]:
        if all(item.isdecimal() for item in items) and items:
            self._check_count(wanted, items)
            numbers = [int(item) for item in items]
            outside = [n for n in numbers if not 1 <= n <= len(self.bands)]
            if outside:
                raise BandError(
                    f"--bands names band {outside[0]}; {self.name} has bands 1 to {len(self.bands)}"
                )
            return tuple(self.bands[n - 1] for n in numbers)
        if any(band.name for band in self.bands) or (items and all(map(self._find, items))):
            self._check_count(wanted, items)
            return tuple(self._by_text(item) for item in items)
        names = [common_name(item) for item in items]
        unknown = [item for item, name in zip(items, names, strict=True) if name is None]
        if unknown:
            raise BandError(
                f"--bands: {unknown[0]!r} is no band name; known are {', '.join(BAND_NAMES)}"
            )
        if len(items) != len(self.bands):
            raise BandError(
                f"--bands gives {len(items)} names and {self.name} has {len(self.bands)} bands "
                f"without names: give one name a band in the file's order, or band numbers"
            )
        named = tuple(replace(b, name=n) for b, n in zip(self.bands, names, strict=True))
        return replace(self, bands=named).choose(wanted)

    def _check_count(self, wanted: Sequence[str], items: list[str]) -> None:
        if len(items) != len(wanted):
            raise BandError(
                f"--bands gives {len(items)} bands; the model needs {len(wanted)}, in this order: "
                f"{', '.join(wanted)}"
            )

    def _find(self, text: str) -> list[SceneBand]:
        """The bands with this label, else this code, else this name."""
        code, name = band_code(text), common_name(text)
        return (
            [b for b in self.bands if b.label == text]
            or [b for b in self.bands if code is not None and band_code(b.label) == code]
            or [b for b in self.bands if name is not None and b.name == name]
        )

    def _by_text(self, text: str) -> SceneBand:
        found = self._find(text)
        if len(found) != 1:
            wrong = f"{len(found)} bands" if found else "no band"
            raise BandError(
                f"--bands: {self.name} has {wrong} {text!r}; it has "
                f"{', '.join(str(b) for b in self.bands)}: give labels, or band numbers"
            )
        return found[0]


def finest_grid(bands: Sequence[SceneBand]) -> PixelGrid:
    """The grid of the band with the smallest pixels."""
    # Thousands of bands of one file share a grid, and measuring it takes milliseconds.
    return min({id(b.grid): b.grid for b in bands}.values(), key=_pixel_size)


def _pixel_size(grid: PixelGrid) -> float:
    """Of a pixel: square metres, or square CRS units where metres are not known."""
    return grid.pixel_area or abs(grid.transform.determinant)


def open_scene(source: str | Path | Sequence[str | Path], rules: Rules = LOCAL) -> Scene:
    """Find out what a scene holds.

    Args:
        source: a raster that GDAL opens (path, URL), a folder of one-band files, a .SAFE folder,
            or a list of files.
        rules: what its files may point to.

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
    """A folder's one-band files; in a .SAFE those of IMG_DATA."""
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
        # From the file up to the .SAFE folder, whose name tells the processing baseline:
        # X.SAFE/GRANULE/L2A_.../IMG_DATA/R10m/B02.jp2. The file's own name tells most.
        texts += reversed(Path(file.split("?")[0]).absolute().parts[-6:])
    found: list[SceneBand] = []
    tags: dict[str, str] = {}
    skipped = list(ignored)
    behind: dict[str, None] = {}
    for file in files:
        with gdal_options(file), opened(file, rules) as dataset:
            _add_files(dataset, behind, rules)
            tags = tags or dict(dataset.tags())
            bands = _bands(dataset, file, rules)
            one_band_only = folder and len(files) > 1
            if one_band_only and len(bands) > 1 and not any(dataset.descriptions):
                skipped.append(f"{Path(file).name}: {len(bands)} bands without names")
                continue
            found += bands
    codes = [code for band in found if (code := band_code(band.label))]
    told = [v for k, v in tags.items() if "SPACECRAFT" in k.upper() or "PLATFORM" in k.upper()]
    # What the file says of itself comes first, then its name, then folders that are products; a
    # folder that merely is called after a sensor is no evidence.
    products = [t for t in texts if PRODUCT_FOLDER.match(t)]
    sensor = detect_sensor([*told, *(Path(f.split("?")[0]).name for f in files), *products], codes)
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


def _add_files(dataset: Any, found: dict[str, None], rules: Rules) -> None:
    """Add a dataset's files on this machine, and those of virtual rasters behind it."""
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
                    _add_files(inner, found, rules)


def files_behind(source: str, rules: Rules = LOCAL) -> tuple[str, ...]:
    """A raster's files on this machine, as of :attr:`Scene.files`; none where it can't be read.

    Args:
        source: a file that GDAL opens.
        rules: what it may point to.
    """
    found: dict[str, None] = {}
    with suppress(SceneError), gdal_options(source), opened(source, rules) as dataset:
        _add_files(dataset, found, rules)
    return tuple(found)


def _finest_of_each(bands: list[SceneBand], skipped: list[str]) -> list[SceneBand]:
    """One band a name: a .SAFE holds B02 at 10, 20 and 60 m."""
    best: dict[str, SceneBand] = {}
    for band in bands:
        key = band.name or f"{band.path}:{band.index}"
        other = best.get(key)
        if other is None:
            best[key] = band
            continue
        sizes = [_pixel_size(b.grid) for b in (band, other)]
        if math.isclose(*sizes, rel_tol=1e-3):
            raise BandError(
                f"{band.label} and {other.label} are both {key} at the same pixel size; give only "
                f"one of them"
            )
        keep, drop = (band, other) if sizes[0] < sizes[1] else (other, band)
        best[key] = keep
        skipped.append(f"{drop.label}: {key} is there at a finer pixel size")
    return list(best.values())


@contextmanager
def opened(file: str, rules: Rules = LOCAL) -> Iterator[Any]:
    """An open dataset, or a SceneError that says what is wrong with the file.

    Args:
        file: as :func:`geoseg.core.names.public_name` gives it.
        rules: what it may point to.
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


_COLORS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
}


def _bands(dataset: Any, file: str, rules: Rules) -> list[SceneBand]:
    """The bands of an open dataset, without alpha."""
    grid = PixelGrid(dataset.height, dataset.width, dataset.transform, dataset.crs)
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
