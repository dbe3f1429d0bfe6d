"""Virtual rasters (GDAL's VRT): files that lie side by side, read as one raster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from geoseg.geo.window import Window

__all__ = ["VRT_TYPES", "Source", "virtual_raster"]

#: numpy's name of a type of numbers -> GDAL's.
VRT_TYPES = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


@dataclass(frozen=True)
class Source:
    """A file and its place.

    Attributes:
        path: of the file; a relative one begins at the virtual raster's folder.
        window: where its pixels lie in the whole.
        palette: whether its only band holds numbers of a colour table. Then the bands of the whole
            are red, green and blue of these colours.
        nodata: the number that covers nothing: where a source has it, one below is seen. None
            where every pixel covers what is below.
    """

    path: Path
    window: Window
    palette: bool = False
    nodata: int | None = None


def virtual_raster(
    height: int,
    width: int,
    dtype: str,
    bands: int,
    sources: Sequence[Source],
    *,
    colors: Sequence[str] = (),
    overviews: Sequence[Path] = (),
) -> bytes:
    """Write the text of a virtual raster, without CRS, transform, nodata or tags.

    Args:
        height: rows of the whole.
        width: columns of the whole.
        dtype: of all sources, one of :data:`VRT_TYPES`.
        bands: of the whole, and of each source without a colour table.
        sources: in any order; where two overlap, the later one is seen.
        colors: what each band shows (``Red``, ``Green``, ...), or nothing.
        overviews: files with the same bands at half the size, a quarter, and so on.

    Returns:
        The bytes of a .vrt file.
    """
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    for number in range(1, bands + 1):
        band = SubElement(root, "VRTRasterBand", dataType=VRT_TYPES[dtype], band=str(number))
        if colors:
            SubElement(band, "ColorInterp").text = colors[number - 1]
        for source in sources:
            # Colour tables and nodata mean something in complex sources alone.
            is_complex = source.palette or source.nodata is not None
            element = SubElement(band, "ComplexSource" if is_complex else "SimpleSource")
            _add_file(element, source.path, 1 if source.palette else number)
            _add_rectangle(element, "SrcRect", 0, 0, source.window)
            _add_rectangle(element, "DstRect", source.window.row, source.window.col, source.window)
            if source.palette:
                SubElement(element, "ColorTableComponent").text = str(number)
            if source.nodata is not None:
                SubElement(element, "NODATA").text = str(source.nodata)
        for overview in overviews:
            _add_file(SubElement(band, "Overview"), overview, number)
    return ElementTree.tostring(root)


def _add_file(element: ElementTree.Element, path: Path, band: int) -> None:
    relative = "0" if path.is_absolute() else "1"
    SubElement(element, "SourceFilename", relativeToVRT=relative).text = str(path)
    SubElement(element, "SourceBand").text = str(band)


def _add_rectangle(
    element: ElementTree.Element, name: str, row: int, col: int, size: Window
) -> None:
    sides = {"xSize": str(size.width), "ySize": str(size.height)}
    SubElement(element, name, {"xOff": str(col), "yOff": str(row), **sides})
