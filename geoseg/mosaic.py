"""Images that are parts of one picture, joined without being copied.

Benchmarks often come as pictures that were cut into parts. Chips from the whole picture see what is
around them, where chips from a part see its edge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

from rasterio.enums import ColorInterp

from geoseg.errors import TrainingError
from geoseg.runtimes.cache import Cache, cache_folder
from geoseg.scene import opened

__all__ = ["join"]

#: numpy's name -> GDAL's.
_TYPES = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


def join(parts: Sequence[Path], columns: int) -> Path:
    """A virtual raster of parts that lie side by side.

    It is kept in geoseg's cache folder; its name changes with the parts.

    Args:
        parts: rasters without georeference, row by row from the upper left one. Colour tables are
            resolved, so that parts may have different ones.
        columns: parts in a row.

    Returns:
        The virtual raster's path; it ends in the first part's name.

    Raises:
        TrainingError: the parts don't fill the rows, differ in what they hold, or don't fit; or
            the cache can't be written.
        SceneError: a part can't be read.
    """
    if len(parts) % columns:
        raise TrainingError(
            f"{parts[0].parent}: {len(parts)} parts don't fill rows of {columns} columns; mend "
            f"columns, or the pattern of the images"
        )
    shapes, kinds = [], []
    for part in parts:
        with opened(str(part)) as dataset:
            if dataset.crs is not None:
                raise TrainingError(
                    f"{part} has a CRS, so it lies where it says and not in a row of {columns}; "
                    f"join such files with gdalbuildvrt, or leave columns out"
                )
            palette = dataset.colorinterp[0] == ColorInterp.palette
            shapes.append(dataset.shape)
            kinds.append((3 if palette else dataset.count, dataset.dtypes[0], palette))
    (bands, dtype, _), first = kinds[0], parts[0]
    if any(kind[:2] != (bands, dtype) for kind in kinds) or dtype not in _TYPES:
        raise TrainingError(
            f"{first.parent}: its parts hold {sorted({kind[:2] for kind in kinds})} bands and "
            f"types; parts of one picture have the same, and one of {', '.join(_TYPES)}"
        )
    heights = [shapes[i][0] for i in range(0, len(parts), columns)]
    widths = [shape[1] for shape in shapes[:columns]]
    for number, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
        row, col = divmod(number, columns)
        if shape != (heights[row], widths[col]):
            raise TrainingError(
                f"{part} has {shape[0]} rows and {shape[1]} columns, where row {row + 1}, column "
                f"{col + 1} of its picture has {heights[row]} and {widths[col]}; mend columns, or "
                f"the pattern of the images"
            )
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(sum(widths)), rasterYSize=str(sum(heights))
    )
    tops, lefts = ([0, *accumulate(sizes)] for sizes in (heights, widths))
    for band in range(1, bands + 1):
        element = ElementTree.SubElement(
            root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(band)
        )
        if bands in (3, 4) and dtype == "uint8":
            colors = ("Red", "Green", "Blue", "Alpha")
            ElementTree.SubElement(element, "ColorInterp").text = colors[band - 1]
        for number, (part, shape, kind) in enumerate(zip(parts, shapes, kinds, strict=True)):
            row, col = divmod(number, columns)
            source = ElementTree.SubElement(element, "ComplexSource")
            ElementTree.SubElement(source, "SourceFilename").text = str(part.absolute())
            ElementTree.SubElement(source, "SourceBand").text = "1" if kind[2] else str(band)
            size = {"xSize": str(shape[1]), "ySize": str(shape[0])}
            ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
            offset = {"xOff": str(lefts[col]), "yOff": str(tops[row])}
            ElementTree.SubElement(source, "DstRect", {**offset, **size})
            if kind[2]:
                ElementTree.SubElement(source, "ColorTableComponent").text = str(band)
    digest = hashlib.sha256(ElementTree.tostring(root))
    for part in parts:
        about = part.stat()
        digest.update(f"{part}|{about.st_size}|{about.st_mtime_ns}".encode())
    name = f"mosaics/{digest.hexdigest()}/{first.stem}.vrt"
    path = cache_folder() / name
    if not path.exists():
        Cache().write(name, ElementTree.tostring(root))
    if not path.exists():
        raise TrainingError(
            f"{path} can't be written; set GEOSEG_CACHE to a folder of your own, or leave columns "
            f"out"
        )
    return path
