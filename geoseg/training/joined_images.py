"""Images that are parts of one picture, joined without being copied.

Benchmarks often come as pictures that were cut into parts. Chips from the whole picture see what is
around them, where chips from a part see its edge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from rasterio.enums import ColorInterp

from geoseg.core.cache import Cache, cache_folder
from geoseg.errors import TrainingError
from geoseg.geo.window import Window
from geoseg.scene.files import opened
from geoseg.scene.sources import LOCAL, Rules
from geoseg.scene.vrt import VRT_TYPES, Source, virtual_raster

__all__ = ["join"]


def join(parts: Sequence[Path], columns: int, rules: Rules = LOCAL) -> Path:
    """Make a virtual raster of parts that lie side by side.

    It is kept in geoseg's cache folder; its name changes with the parts.

    Args:
        parts: rasters without georeference, row by row from the upper left one. Colour tables are
            resolved, so that parts may have different ones.
        columns: parts in a row.
        rules: what the parts may point to.

    Returns:
        The virtual raster's path; it ends in the first part's name.

    Raises:
        TrainingError: the parts don't fill the rows, differ in what they hold, or don't fit; or
            the cache can't be written.
        SceneError: a part can't be read.
    """
    if len(parts) % columns:
        raise TrainingError(
            f"{parts[0].parent}: {len(parts)} parts don't fill rows of {columns} columns; "
            f"correct columns, or the pattern of the images"
        )
    found = [_look_at(part, columns, rules) for part in parts]
    heights = [part.height for part in found[::columns]]
    widths = [part.width for part in found[:columns]]
    _check(found, heights, widths)
    root = _virtual(found, heights, widths)
    digest = hashlib.sha256(root)
    for part in parts:
        about = part.stat()
        digest.update(f"{part}|{about.st_size}|{about.st_mtime_ns}".encode())
    name = f"mosaics/{digest.hexdigest()}/{parts[0].stem}.vrt"
    path = cache_folder() / name
    if not path.exists():
        Cache().write(name, root, plain=True)
    if not path.exists():
        raise TrainingError(
            f"{path} can't be written; set GEOSEG_CACHE to a folder of your own, or leave columns "
            f"out"
        )
    return path


@dataclass(frozen=True)
class _Part:
    """A part of a picture, as its file has it.

    Attributes:
        path: of its file.
        height: rows.
        width: columns.
        bands: of it, or of its colours.
        dtype: of its numbers.
        palette: whether its numbers stand for colours of a table.
    """

    path: Path
    height: int
    width: int
    bands: int
    dtype: str
    palette: bool


def _look_at(path: Path, columns: int, rules: Rules) -> _Part:
    """Read what a part is, and refuse one that has a place on Earth.

    Raises:
        TrainingError: it has a CRS.
        SceneError: it can't be read.
    """
    with opened(str(path), rules) as dataset:
        if dataset.crs is not None:
            raise TrainingError(
                f"{path} has a CRS, so it lies where it says and not in a row of {columns}; join "
                f"such files with gdalbuildvrt, or leave columns out"
            )
        palette = dataset.colorinterp[0] == ColorInterp.palette
        bands = 3 if palette else dataset.count
        return _Part(path, dataset.height, dataset.width, bands, dataset.dtypes[0], palette)


def _check(parts: Sequence[_Part], heights: Sequence[int], widths: Sequence[int]) -> None:
    """Refuse parts that hold different things, or are not as large as their row and column."""
    kinds = {(part.bands, part.dtype) for part in parts}
    if len(kinds) > 1 or parts[0].dtype not in VRT_TYPES:
        raise TrainingError(
            f"{parts[0].path.parent}: its parts hold {sorted(kinds)} bands and types; parts of one "
            f"picture have the same, and one of {', '.join(VRT_TYPES)}"
        )
    for number, part in enumerate(parts):
        row, col = divmod(number, len(widths))
        if (part.height, part.width) != (heights[row], widths[col]):
            raise TrainingError(
                f"{part.path} has {part.height} rows and {part.width} columns, where row "
                f"{row + 1}, column {col + 1} of its picture has {heights[row]} and "
                f"{widths[col]}; correct columns, or the pattern of the images"
            )


def _virtual(parts: Sequence[_Part], heights: Sequence[int], widths: Sequence[int]) -> bytes:
    """Write the text of the virtual raster."""
    tops, lefts = ([0, *accumulate(sizes)] for sizes in (heights, widths))
    placed = []
    for number, part in enumerate(parts):
        row, col = divmod(number, len(widths))
        window = Window(tops[row], lefts[col], part.height, part.width)
        placed.append(Source(part.path.absolute(), window, part.palette))
    first = parts[0]
    colors: Sequence[str] = ()
    if first.bands in (3, 4) and first.dtype == "uint8":
        colors = ("Red", "Green", "Blue", "Alpha")
    return virtual_raster(
        sum(heights), sum(widths), first.dtype, first.bands, placed, colors=colors
    )
