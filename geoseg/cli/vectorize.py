"""``geoseg vectorize``."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import (
    force_option,
    max_pixels_option,
    number_or_each,
    output_options,
    overwrite_option,
    progress_option,
    root_options,
)
from geoseg.cli.progress import progress_printer
from geoseg.errors import UsageError

__all__ = ["command"]


@click.command("vectorize")
@click.argument("raster", metavar="CLASS_RASTER", type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Polygons: .gpkg, .fgb, .parquet, .geojson, .pmtiles or .shp.  [default: the raster's "
    "name with .gpkg in the current folder]",
)
@click.option("--layer", default="landcover", show_default=True, help="The layer's name.")
@click.option(
    "--connectivity",
    type=click.Choice(["4", "8"]),
    default="4",
    show_default=True,
    help="8: pixels of a class that meet at a corner are one feature, of several parts.",
)
@click.option(
    "--min-area",
    multiple=True,
    metavar="M2 or CLASS=M2",
    help="Regions smaller than this go to a neighbour; for all classes, or for each; repeatable.",
)
@click.option(
    "--min-hole",
    multiple=True,
    metavar="M2 or CLASS=M2",
    help="Holes smaller than this are filled by the class around them; for all classes, or for "
    "each; repeatable.",
)
@click.option(
    "--sieve",
    type=click.IntRange(min=0),
    default=0,
    metavar="PIXELS",
    help="Regions of fewer pixels than this go to a neighbour.",
)
@click.option(
    "--simplify",
    type=float,
    default=0.0,
    help="Simplify borders by this tolerance; neighbours keep their shared borders.",
)
@click.option(
    "--units",
    type=click.Choice(["m", "px"]),
    default="m",
    show_default=True,
    help="Unit of --simplify.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["visvalingam", "douglas-peucker"]),
    default="visvalingam",
    show_default=True,
    help="Which vertices --simplify takes: those of small corners, or those near the line.",
)
@click.option(
    "--smooth",
    type=click.IntRange(0, 5),
    default=0,
    show_default=True,
    help="How often corners are cut (Chaikin), within half a pixel.",
)
@click.option(
    "--classes",
    "only",
    help="Only polygons of these, by name or id: water,forest.  [default: all]",
)
@click.option(
    "--merge",
    multiple=True,
    metavar="CLASS=CLASS",
    help="Make the first class part of the second, by name or id; repeatable.",
)
@click.option(
    "--probs", type=click.Path(), help="All probabilities, of predict --probs, for more columns."
)
@click.option(
    "--confidence",
    type=click.Path(),
    help="The winning probability, of predict --confidence, for more columns.",
)
@click.option(
    "-m",
    "--model",
    help="The model whose legend it is: a name, a folder or a .zip.  [default: the raster's tags]",
)
@click.option(
    "-j",
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Threads for computing.  [default: one per processor]",
)
@force_option
@root_options
@max_pixels_option
@overwrite_option
@progress_option
@output_options
def command(
    raster: str,
    connectivity: str,
    min_area: tuple[str, ...],
    min_hole: tuple[str, ...],
    only: str | None,
    merge: tuple[str, ...],
    force: bool,
    progress: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Turn a class raster into polygons.

    CLASS_RASTER has one band of whole numbers; names and colours are read from its tags. Every
    pixel with a class lies in exactly one polygon, and neighbours share their borders, simplified
    and smoothed or not.
    """
    from geoseg.polygons.vectorizing import vectorize

    report = progress_printer(progress, -1 if quiet else verbose)
    if force:
        options["most"] = float("inf")
    written = vectorize(
        raster,
        connectivity=int(connectivity),
        min_area=_per_class("--min-area", min_area),
        min_hole=_per_class("--min-hole", min_hole),
        only=None if only is None else [name.strip() for name in only.split(",")],
        merge=_mergers(merge),
        progress=lambda done, total: report(
            {"event": "progress", "stage": "polygons", "done": done, "total": total}
        ),
        **options,
    )
    report({"event": "result", "vector": str(written.path), "polygons": written.polygons})
    if not quiet and progress != "json":
        for name, count in written.polygons.items():
            if count:
                click.echo(f"{name:<22}{count:>12}")
        click.echo(written.path)


def _per_class(option: str, texts: tuple[str, ...]) -> float | dict[str, float]:
    """Parse square metres: one number for all, or class -> number."""
    if not texts:
        return 0.0
    what = "one number of m2 for all (500), or CLASS=NUMBER for each class (water=2000)"
    return number_or_each(option, texts, what)


def _mergers(texts: tuple[str, ...]) -> dict[int | str, int | str]:
    """Parse pairs: class -> the class that it is made part of.

    Raises:
        UsageError: a text is no pair, or a class would be made part of two.
    """
    pairs = [text.partition("=") for text in texts]
    if not all(one and other for one, _, other in pairs):
        raise UsageError(f"--merge {' '.join(texts)}: give CLASS=CLASS, e.g. shrub=forest")
    merged: dict[int | str, int | str] = {one: other for one, _, other in pairs}
    if len(merged) < len(pairs):
        raise UsageError(
            f"--merge {' '.join(texts)}: a class is made part of two; name each once before ="
        )
    return merged
