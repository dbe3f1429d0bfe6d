"""Rasters that are written: what they are apart from their pixels, and COGs of them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import rasterio
import rasterio.errors
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from geoseg.cards.legend import ClassInfo
from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.importing import IMPORTING
from geoseg.core.ownership import QML_MARK
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import UsageError
from geoseg.geo.pixel_grid import PixelGrid

__all__ = [
    "NODATA",
    "PROBABILITY_DTYPES",
    "RasterSpec",
    "check_creation_options",
    "decode_probability",
    "encode_probability",
    "halve",
    "try_creation_options",
    "write_cog",
    "write_overviews",
    "write_qml",
    "write_vrt",
]

#: The class raster's "not measured"; never a class id.
NODATA = 255
#: Probabilities as uint8 are round(p * 254), so that 0 and 1 are exact and 255 is nodata.
PROBABILITY_STEPS = 254
PROBABILITY_DTYPES = ("uint8", "float32")
#: Pixels of a strip from which polygons are made, about.
POLYGON_STRIP = 1 << 21
#: Side of a COG's blocks, px.
COG_BLOCK = 512
#: Pixels that are read at a time to make overviews, about, and of their rows a multiple of this.
OVERVIEW_STRIP, OVERVIEW_ROWS = 1 << 21, 64


@dataclass(frozen=True)
class RasterSpec:
    """What a raster is, apart from its pixels.

    Attributes:
        grid: its pixels' places.
        dtype: of the numbers.
        nodata: the number for "not measured".
        descriptions: one a band.
        scale: quantity per number.
        classes: legend, for a class raster.
        tags: metadata of the file.
        resampling: of the overviews.
        creation_options: for GDAL's COG driver, e.g. COMPRESS.
    """

    grid: PixelGrid
    dtype: str
    nodata: float
    descriptions: tuple[str, ...]
    scale: float = 1.0
    classes: tuple[ClassInfo, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    resampling: str = "AVERAGE"
    creation_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether a pixel is one byte."""
        return self.dtype == "uint8" and len(self.descriptions) == 1

    def describe(self, dataset: Any) -> None:
        """Give an open dataset names, colours, scale and tags.

        Args:
            dataset: of rasterio, open for writing.
        """
        for i, description in enumerate(self.descriptions, start=1):
            dataset.set_band_description(i, description)
        if self.scale != 1.0:
            dataset.scales = (self.scale,) * len(self.descriptions)
            dataset.offsets = (0.0,) * len(self.descriptions)
        if self.classes:
            dataset.write_colormap(1, {c.id: (*c.rgb, 255) for c in self.classes})
            dataset.update_tags(1, **{f"class_{c.id}": c.name for c in self.classes})
        dataset.update_tags(**self.tags)


def halve(classes: NDArray[np.uint8], nodata: int = NODATA) -> NDArray[np.uint8]:
    """Make a class raster at half its size: of four pixels the most frequent class.

    Of equals the first one wins, from the top left; pixels without a class have no vote.

    Args:
        classes: uint8 (H, W).
        nodata: what is no class.

    Returns:
        uint8 (H / 2, W / 2), rounded up; at odd edges two pixels or one stand for four.

    Examples:
        >>> halve(np.array([[1, 2, 255], [2, 3, 255]], np.uint8)).tolist()
        [[2, 255]]
    """
    with IMPORTING:
        from geoseg.rasters import halving

    height, width = classes.shape
    even = classes
    if height % 2 or width % 2:
        pad = ((0, height % 2), (0, width % 2))
        even = np.pad(classes, pad, constant_values=np.uint8(nodata))
    out = np.empty(((height + 1) // 2, (width + 1) // 2), np.uint8)
    halving.halve(np.ascontiguousarray(even), nodata, out)
    return out


def write_overviews(
    read: Callable[[int, int], NDArray[np.uint8]],
    shape: tuple[int, int],
    folder: Path,
    nodata: int = NODATA,
) -> list[Path]:
    """Write a class raster at a half, a quarter and so on of its size, while its rows come.

    GDAL makes overviews of the most frequent class, too, several times slower, and only when all
    is there.

    Args:
        read: the class raster's rows from a first one to before a last one, (rows, W); called for
            each row once, from the top.
        shape: (H, W) of the class raster.
        folder: of the files ``overview-2.img``, ``overview-4.img`` and so on.
        nodata: what is no class.

    Returns:
        The files, the largest first; none where the raster fits into one block of a COG.

    Raises:
        OutputError: one can't be written.
    """
    shapes = []
    height, width = shape
    while max(height, width) > COG_BLOCK:
        height, width = (height + 1) // 2, (width + 1) // 2
        shapes.append((height, width))
    # Bare rows with a header that GDAL knows (ENVI's), so that they leave the memory at once.
    paths = [folder / f"overview-{2 ** (i + 1)}.img" for i in range(len(shapes))]
    if not paths:
        return []
    try:
        with ExitStack() as stack:
            for path, (height, width) in zip(paths, shapes, strict=True):
                path.with_suffix(".hdr").write_text(
                    f"ENVI\nsamples = {width}\nlines = {height}\nbands = 1\nheader offset = 0\n"
                    f"file type = ENVI Standard\ndata type = 1\ninterleave = bsq\nbyte order = 0\n",
                    encoding="ascii",
                )
            levels = [stack.enter_context(open(path, "wb")) for path in paths]
            # Rows that wait for the one below.
            odd = [np.empty((0, w), np.uint8) for _, w in (shape, *shapes[:-1])]
            step = max(1, OVERVIEW_STRIP // shape[1] // OVERVIEW_ROWS) * OVERVIEW_ROWS
            for top in range(0, shape[0], step):
                bottom = min(top + step, shape[0])
                rows = read(top, bottom)
                for i, level in enumerate(levels):
                    rows = np.concatenate([odd[i], rows])
                    whole = len(rows) - (len(rows) % 2 if bottom < shape[0] else 0)
                    odd[i], rows = rows[whole:].copy(), halve(rows[:whole], nodata)
                    level.write(rows.data)
    except OSError as error:
        raise explain_write_error(error, folder) from error
    return paths


def write_vrt(text: bytes, path: Path, spec: RasterSpec) -> None:
    """Write a virtual raster with CRS, transform, nodata, names, colours and tags.

    Args:
        text: what :func:`geoseg.scene.vrt.virtual_raster` gives.
        path: of the .vrt file.
        spec: what the raster is.

    Raises:
        OSError: it can't be written; rasterio's errors, too.
    """
    grid = spec.grid
    path.write_bytes(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "r+") as dataset:
            if grid.crs is not None:
                dataset.crs = grid.crs
            dataset.transform = grid.transform
            dataset.nodata = spec.nodata
            spec.describe(dataset)


def write_cog(source: Path, path: Path, spec: RasterSpec) -> None:
    """Turn a raster into a COG.

    Args:
        source: what is there already, names, colours and tags included.
        path: where the COG goes (not yet its final name).
        spec: for the overviews and creation options.

    Raises:
        OutputError: it can't be written.
    """
    options = {"OVERVIEW_RESAMPLING": spec.resampling, **_cog_options(spec.creation_options)}
    try:
        rasterio.shutil.copy(source, path, driver="COG", **options)
    except GDAL_ERRORS as error:
        raise explain_write_error(error, path) from error


def _cog_options(given: Mapping[str, str]) -> dict[str, str]:
    """Gather all options of GDAL's COG driver, the user's before geoseg's own."""
    # Level 2 takes a quarter of the time of GDAL's 6 and makes class rasters 1.4 times as large.
    packed = {} if "COMPRESS" in given else {"COMPRESS": "DEFLATE", "LEVEL": "2"}
    return {
        **packed,
        "BLOCKSIZE": str(COG_BLOCK),
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": str(min(4, os.cpu_count() or 1)),
        **given,
    }


def encode_probability(
    probs: NDArray[np.float32], valid: NDArray[np.bool_], dtype: str
) -> NDArray[Any]:
    """Probabilities as they are stored.

    Args:
        probs: float32 (..., H, W), 0 to 1.
        valid: (H, W).
        dtype: ``uint8``: round(p * 254), 255 where not valid; ``float32``: p, NaN where not valid.

    Returns:
        A new array of that dtype.
    """
    if dtype == "float32":
        return np.where(valid, probs, np.float32(np.nan))
    steps = np.rint(np.clip(probs, 0.0, 1.0) * PROBABILITY_STEPS).astype(np.uint8)
    return np.where(valid, steps, np.uint8(NODATA))


def decode_probability(values: NDArray[Any]) -> NDArray[np.float32]:
    """Undo :func:`encode_probability`, NaN where not valid.

    Args:
        values: (..., H, W) of either dtype.
    """
    if values.dtype != np.uint8:
        return np.asarray(values, np.float32)
    table = np.arange(256, dtype=np.float32) * np.float32(1 / PROBABILITY_STEPS)
    table[NODATA] = np.nan
    return np.take(table, values)


#: The options of GDAL's COG driver that leave pixels and grid as they are, and their values.
CREATION_OPTIONS: dict[str, str] = {
    "BIGTIFF": r"YES|NO|IF_NEEDED|IF_SAFER",
    "BLOCKSIZE": r"\d{2,4}",
    "COMPRESS": r"NONE|LZW|DEFLATE|ZSTD|LZMA",
    "GEOTIFF_VERSION": r"AUTO|1\.0|1\.1",
    "LEVEL": r"\d{1,2}",
    "NUM_THREADS": r"\d{1,3}|ALL_CPUS",
    "OVERVIEWS": r"AUTO|IGNORE_EXISTING|NONE",
    "OVERVIEW_COMPRESS": r"AUTO|NONE|LZW|DEFLATE|ZSTD|LZMA",
    "OVERVIEW_COUNT": r"\d{1,2}",
    "PREDICTOR": r"YES|NO|STANDARD|FLOATING_POINT",
    "SPARSE_OK": r"TRUE|FALSE",
    "STATISTICS": r"AUTO|YES|NO",
}


def check_creation_options(items: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` strings for GDAL's COG driver.

    Raises:
        UsageError: one of them has another form, is unknown, or would change pixels or grid.
    """
    options: dict[str, str] = {}
    for item in items:
        name, sign, value = item.partition("=")
        name, value = name.strip().upper(), value.strip().upper()
        if not sign or not name or not value:
            raise UsageError(f"--co {item!r} must be NAME=VALUE, e.g. --co COMPRESS=ZSTD")
        if name not in CREATION_OPTIONS:
            raise UsageError(
                f"--co {name} is none of the options that leave pixels and grid as they are: "
                f"{', '.join(CREATION_OPTIONS)}"
            )
        if not re.fullmatch(CREATION_OPTIONS[name], value):
            allowed = re.sub(r"\\d{.*}", "a number", CREATION_OPTIONS[name]).replace("\\", "")
            raise UsageError(f"--co {name}={value}: {name} is {allowed.replace('|', ', ')}")
        options[name] = value
    if int(options.get("BLOCKSIZE", COG_BLOCK)) % 16:
        raise UsageError(
            f"--co BLOCKSIZE={options['BLOCKSIZE']}: a TIFF's tiles have sides of a multiple of 16 "
            f"px; give e.g. --co BLOCKSIZE={COG_BLOCK}"
        )
    return options


def try_creation_options(items: Sequence[str], dtypes: Sequence[str]) -> None:
    """Have GDAL make a small COG of each dtype in memory, before it does so after hours of work.

    Args:
        items: as for :func:`check_creation_options`.
        dtypes: of the rasters that will be written.

    Raises:
        UsageError: GDAL refuses the options.
    """
    options = check_creation_options(items)
    if not options:
        return
    for dtype in dtypes:
        profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": dtype}
        with MemoryFile() as source, MemoryFile() as target:
            with source.open(**profile, transform=Affine.translation(1, 1)) as dataset:
                dataset.write(np.zeros((1, 1, 1), dtype))
            try:
                rasterio.shutil.copy(
                    source.name, target.name, driver="COG", **_cog_options(options)
                )
            except GDAL_ERRORS as error:
                given = " ".join(f"--co {item}" for item in items)
                raise UsageError(
                    f"{given}: GDAL can't write {dtype} rasters so ({error}); leave out what it "
                    f"names"
                ) from error


def write_qml(path: Path, classes: Sequence[ClassInfo]) -> None:
    """Write a QGIS style beside a class raster, which QGIS loads by itself: names and colours.

    Args:
        path: of the .qml file.
        classes: the legend.
    """
    entries = "\n".join(
        f'          <paletteEntry value="{c.id}" color="{c.color.lower()}" alpha="255" '
        f"label={quoteattr(c.name)}/>"
        for c in classes
    )
    path.write_text(
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f"{QML_MARK}\n"
        '<qgis version="3.22" styleCategories="Symbology">\n'
        "  <pipe>\n"
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" '
        'nodataColor="">\n'
        "        <colorPalette>\n"
        f"{entries}\n"
        "        </colorPalette>\n"
        "    </rasterrenderer>\n"
        "  </pipe>\n"
        "</qgis>\n",
        encoding="utf-8",
    )
