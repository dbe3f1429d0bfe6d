"""A mosaic that holds no pixel: a virtual raster (VRT) of maps on one grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import UsageError
from geoseg.geo.window import Window
from geoseg.mosaicking.grid import MosaicGrid
from geoseg.mosaicking.maps import MapFile, named
from geoseg.rasters.writing import NODATA, RasterSpec, write_vrt
from geoseg.scene.sources import is_remote
from geoseg.scene.vrt import Source, virtual_raster

__all__ = ["check_virtual", "leads_out", "move_virtual", "write_virtual"]

#: Rules that a virtual raster has: what lies above covers what lies below.
IN_LAYERS = ("newest", "first", "last")


def check_virtual(maps: Sequence[MapFile], mosaic: MosaicGrid, top: str) -> None:
    """See that a virtual raster can be the mosaic.

    Raises:
        UsageError: it can't.
    """
    if top not in IN_LAYERS:
        raise UsageError(
            f"--top {top} compares maps pixel by pixel, which a virtual raster (.vrt) can't; give "
            f"--top {', '.join(IN_LAYERS)}, or a name that ends in .tif"
        )
    off = [m.path for m in maps if mosaic.place_of(m.grid) is None]
    if off:
        raise UsageError(
            f"{named(off)} would have to be resampled, and a virtual raster (.vrt) shows maps as "
            f"they are: its maps have one CRS and one grid of pixels; give a name that ends in .tif"
        )
    masked = [m.path for m in maps if not m.plain]
    if masked:
        raise UsageError(
            f"{named(masked)} marks nodata by something other than {NODATA}, as geoseg's maps do; "
            f"give a name that ends in .tif"
        )
    remote = [m.path for m in maps if is_remote(m.path)]
    if remote:
        raise UsageError(
            f"{named(remote)} is remote, and geoseg reads virtual rasters (.vrt) of files in "
            f"folders alone; give a name that ends in .tif"
        )


def write_virtual(
    path: Path, maps: Sequence[MapFile], mosaic: MosaicGrid, spec: RasterSpec
) -> None:
    """Write a virtual raster that names the maps by absolute paths.

    Args:
        path: of the .vrt file.
        maps: by rank, the one on top first; see :func:`check_virtual`.
        mosaic: its grid.
        spec: what the raster is.

    Raises:
        OutputError: it can't be written.
    """
    sources = []
    for m in reversed(maps):
        place = mosaic.place_of(m.grid)
        assert place is not None
        row, col = place.row - mosaic.window.row, place.col - mosaic.window.col
        window = Window(row, col, place.height, place.width)
        sources.append(Source(Path(m.path).absolute(), window, nodata=NODATA))
    height, width = mosaic.window.height, mosaic.window.width
    try:
        write_vrt(virtual_raster(height, width, "uint8", 1, sources), path, spec)
    except GDAL_ERRORS as error:
        raise explain_write_error(error, path) from error


def move_virtual(path: Path, target: Path, final: Path) -> None:
    """Write a virtual raster for another folder; what lies in that is named relative to it.

    So an archive can be moved together with its mosaic.

    Args:
        path: of the virtual raster, with absolute names.
        target: where to write it.
        final: the name that it will get.

    Raises:
        OutputError: it can't be written.
    """
    folder = final.absolute().parent
    root = ElementTree.fromstring(path.read_bytes())
    for element in root.iter("SourceFilename"):
        source = os.path.abspath(path.parent / str(element.text))
        inside = Path(source).is_relative_to(folder)
        element.text = os.path.relpath(source, folder) if inside else source
        element.set("relativeToVRT", "1" if inside else "0")
    try:
        target.write_bytes(ElementTree.tostring(root))
    except OSError as error:
        raise explain_write_error(error, final) from error


def leads_out(maps: Sequence[MapFile], final: Path) -> list[str]:
    """List the folders of maps that lie outside of a virtual raster's own folder."""
    folder = os.path.realpath(final.absolute().parent)
    others = {os.path.dirname(os.path.realpath(m.path)) for m in maps}
    return sorted(other for other in others if not Path(other).is_relative_to(folder))
