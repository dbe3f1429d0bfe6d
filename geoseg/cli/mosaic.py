"""``geoseg mosaic``."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import (
    Bbox,
    force_option,
    max_pixels_option,
    output_options,
    overwrite_option,
    progress_option,
    root_options,
)
from geoseg.cli.progress import progress_printer
from geoseg.core.wording import area

__all__ = ["command"]


@click.command("mosaic")
@click.argument("maps", nargs=-1, required=True, metavar="MAPS...")
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    default="mosaic.tif",
    show_default=True,
    help="Class raster: .tif; or .vrt, a virtual raster of maps that lie on one grid.",
)
@click.option(
    "--crs", help="CRS of the mosaic, e.g. EPSG:3035.  [default: the maps', if they share one]"
)
@click.option(
    "--res", type=float, help="Side of a pixel, CRS units.  [default: that of the finest map]"
)
@click.option("--bbox", type=Bbox(), help="Only this part, in the mosaic's CRS.")
@click.option(
    "--top",
    type=click.Choice(["newest", "confident", "frequent", "first", "last"]),
    default="newest",
    show_default=True,
    help="Where maps overlap: the class of the newest one, of the most confident one, the class "
    "that most have, or that of the first or last one in the order given.",
)
@click.option(
    "--vector",
    type=click.Path(),
    help="Polygons: .gpkg, .fgb, .parquet or .geojson.  [default: the raster's name with .gpkg]",
)
@click.option("--no-vector", is_flag=True, help="Write no polygons.")
@click.option(
    "--min-area",
    type=float,
    default=0.0,
    help="Regions smaller than this (m2) go to a neighbour, before --simplify.",
)
@click.option("--simplify", type=float, default=0.0, help="Tolerance of polygon borders, m.")
@force_option
@click.option(
    "--co",
    "creation_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Creation option of GDAL's COG driver, e.g. COMPRESS=ZSTD; repeatable.",
)
@root_options
@max_pixels_option
@overwrite_option
@progress_option
@output_options
def command(
    maps: tuple[str, ...],
    output: str,
    progress: str,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Make one map of many, and polygons that no scene's border cuts.

    MAPS are class rasters that geoseg predict made, patterns, text files (.txt) with a path on each
    line, or folders, which stand for every */landcover.tif in them. All must have the same classes.
    Maps of other CRSs or pixels than the mosaic's are resampled by nearest neighbour; others keep
    their pixels. The date of a map is in the item.json beside it.
    """
    from geoseg.mosaicking.run import mosaic

    report = progress_printer(progress, -1 if quiet else verbose)
    made = mosaic(maps, output, progress=report, **options)
    if quiet or progress == "json":
        return
    for entry in sorted(made.report["classes"], key=lambda c: -c["pixels"]):
        if entry["pixels"]:
            shown = "" if entry["area_m2"] is None else f"{area(entry['area_m2']):>16}"
            click.echo(f"{entry['name']:<22}{entry['share']:7.1%} {shown}")
    size = made.report["pixels"]["valid"] / 1e6
    click.echo(f"{size:.2f} Mpx of {len(made.report['maps'])} maps")
    for path in made.report["outputs"].values():
        click.echo(path)
