"""Rasters that are written: strip by strip into a scratch file, then whole as a COG."""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import rasterio
import rasterio.errors
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.card import ClassInfo
from geoseg.errors import OutputError, UsageError
from geoseg.gdal import GDAL_ERRORS
from geoseg.outputs import explain_write_error
from geoseg.pixelgrid import PixelGrid
from geoseg.window import Window

__all__ = [
    "NODATA",
    "PROBABILITY_DTYPES",
    "RasterSpec",
    "StripWriter",
    "check_creation_options",
    "encode_probability",
    "write_qml",
]

#: The class raster's "not measured"; never a class id.
NODATA = 255
#: Probabilities as uint8 are round(p * 254), so that 0 and 1 are exact and 255 is nodata.
PROBABILITY_STEPS = 254
PROBABILITY_DTYPES = ("uint8", "float32")


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


class StripWriter:
    """Takes strips in order; :meth:`finish` makes the COG and reads it back."""

    def __init__(self, spec: RasterSpec, scratch: Path) -> None:
        """Open the scratch file.

        Args:
            spec: of the raster.
            scratch: where strips go first: one row a block, so that strips of any height are
                written once and never read again.

        Raises:
            OutputError: it can't be written.
        """
        self.spec = spec
        self.scratch = scratch
        self._crc = [0] * len(spec.descriptions)
        grid = spec.grid
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                self._dataset = rasterio.open(
                    scratch,
                    "w",
                    driver="GTiff",
                    height=grid.height,
                    width=grid.width,
                    count=len(spec.descriptions),
                    dtype=spec.dtype,
                    crs=grid.crs,
                    transform=grid.transform,
                    nodata=spec.nodata,
                    interleave="band",
                    blockysize=1,
                    compress="zstd",
                    zstd_level=1,
                    bigtiff="if_safer",
                )
            self._describe()
        except GDAL_ERRORS as error:
            raise explain_write_error(error, scratch.parent) from error

    def _describe(self) -> None:
        """Names, colours, scale and tags: before the pixels, so that they lie in the header."""
        dataset, spec = self._dataset, self.spec
        for i, description in enumerate(spec.descriptions, start=1):
            dataset.set_band_description(i, description)
        if spec.scale != 1.0:
            dataset.scales = (spec.scale,) * len(spec.descriptions)
            dataset.offsets = (0.0,) * len(spec.descriptions)
        if spec.classes:
            dataset.write_colormap(1, {c.id: (*c.rgb, 255) for c in spec.classes})
            dataset.update_tags(1, **{f"class_{c.id}": c.name for c in spec.classes})
        dataset.update_tags(**spec.tags)

    def __enter__(self) -> StripWriter:
        """For ``with``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the scratch file."""
        if not self._dataset.closed:
            if kind is None:
                self._dataset.close()
                return
            # The run has failed already: what closing has to say would hide the reason.
            try:
                self._dataset.close()
            except GDAL_ERRORS:
                return

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write a strip.

        Args:
            window: full width, right below the last one.
            values: (bands, height, width) or (height, width) of the spec's dtype.

        Raises:
            OutputError: the disk is full or fails.
        """
        bands = values[None] if values.ndim == 2 else values
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            self._dataset.write(bands, window=area)
        except GDAL_ERRORS as error:
            raise explain_write_error(error, self.scratch.parent) from error
        for i, band in enumerate(bands):
            self._crc[i] = zlib.crc32(np.ascontiguousarray(band).tobytes(), self._crc[i])

    def finish(self, path: Path) -> None:
        """Make the COG, read it back whole and compare.

        Args:
            path: where it goes (not yet its final name).

        Raises:
            OutputError: it can't be written, or what was read differs from what was written (some
                disk errors show only so).
        """
        options = {
            "COMPRESS": "DEFLATE",
            "BLOCKSIZE": "512",
            "BIGTIFF": "IF_SAFER",
            "OVERVIEW_RESAMPLING": self.spec.resampling,
            "NUM_THREADS": str(min(4, os.cpu_count() or 1)),
            **self.spec.creation_options,
        }
        try:
            self._dataset.close()
            rasterio.shutil.copy(self.scratch, path, driver="COG", **options)
            whole = self._read_back(path) == self._crc
        except GDAL_ERRORS as error:
            raise explain_write_error(error, path) from error
        if not whole:
            raise OutputError(
                f"{path}: what was read back differs from what was written; the disk is full or "
                f"faulty"
            )

    def _read_back(self, path: Path) -> list[int]:
        crcs = [0] * len(self.spec.descriptions)
        grid = self.spec.grid
        with rasterio.open(path) as dataset:
            for row in range(0, grid.height, 512):
                height = min(512, grid.height - row)
                bands = dataset.read(window=RasterioWindow(0, row, grid.width, height))
                for i, band in enumerate(bands):
                    crcs[i] = zlib.crc32(band.tobytes(), crcs[i])
        return crcs


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


#: The options of GDAL's COG driver that leave pixels and grid as they are, and their values.
CREATION_OPTIONS: dict[str, str] = {
    "BIGTIFF": r"YES|NO|IF_NEEDED|IF_SAFER",
    "BLOCKSIZE": r"\d+",
    "COMPRESS": r"NONE|LZW|DEFLATE|ZSTD|LZMA",
    "GEOTIFF_VERSION": r"AUTO|1\.0|1\.1",
    "LEVEL": r"\d+",
    "NUM_THREADS": r"\d+|ALL_CPUS",
    "OVERVIEWS": r"AUTO|IGNORE_EXISTING|NONE",
    "OVERVIEW_COMPRESS": r"AUTO|NONE|LZW|DEFLATE|ZSTD|LZMA",
    "OVERVIEW_COUNT": r"\d+",
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
            allowed = CREATION_OPTIONS[name].replace("\\d+", "a number").replace("\\", "")
            raise UsageError(f"--co {name}={value}: {name} is {allowed.replace('|', ', ')}")
        options[name] = value
    return options


def write_qml(path: Path, classes: Sequence[ClassInfo]) -> None:
    """A QGIS style beside a class raster, which QGIS loads by itself: names and colours.

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
