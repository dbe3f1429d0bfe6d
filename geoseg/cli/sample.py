"""``geoseg sample``."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import (
    max_pixels_option,
    number_or_each,
    output_options,
    overwrite_option,
    progress_option,
    root_options,
)
from geoseg.cli.progress import progress_printer
from geoseg.core.wording import counted
from geoseg.errors import UsageError

__all__ = ["command"]


@click.command("sample")
@click.argument("raster", metavar="MAP.tif", type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    help="Points: .gpkg, .fgb, .parquet or .geojson.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Points in all.")
@click.option(
    "--target-se",
    type=float,
    help="Instead of -n: as many as this standard error of the overall accuracy needs, e.g. 0.01.",
)
@click.option(
    "--expected",
    multiple=True,
    metavar="U or CLASS=U",
    help="User's accuracy expected for --target-se, for all or for each class; repeatable.  "
    "[default: 0.8]",
)
@click.option(
    "--allocation",
    type=click.Choice(["proportional", "equal", "olofsson"]),
    default="proportional",
    show_default=True,
    help="Points of a class: by its area, the same for all, or --min-per-class and by area.",
)
@click.option(
    "--min-per-class",
    type=click.IntRange(min=0),
    help="For --allocation olofsson.  [default: 50]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed gives the same points.",
)
@click.option("--blind", is_flag=True, help="Leave the mapped class out of the file.")
@root_options
@max_pixels_option
@overwrite_option
@progress_option
@output_options
def command(
    raster: str,
    expected: tuple[str, ...],
    min_per_class: int | None,
    progress: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Draw points at which to check a class raster.

    A random sample of its pixels, class by class. Fill the column "reference" with the name or id
    of the class that is really there, then run geoseg evaluate. Points come in random order,
    which gives no class away; --blind leaves the mapped class out altogether.
    """
    from geoseg.evaluation.sample_design import sample

    if expected:
        if options["target_se"] is None:
            raise UsageError("--expected is for --target-se; give that, or leave it out")
        what = "one number for all (0.8), or CLASS=NUMBER for each class (water=0.95)"
        options["expected"] = number_or_each("--expected", expected, what)
    if min_per_class is not None:
        if options["allocation"] != "olofsson":
            raise UsageError("--min-per-class is for --allocation olofsson; give that, too")
        options["min_per_class"] = min_per_class
    receiver = progress_printer(progress, -1 if quiet else verbose)
    drawn = sample(raster, **options)
    for message in drawn.warnings:
        receiver({"event": "warning", "message": message})
    counts = {s.name: s.points for s in drawn.strata}
    receiver({"event": "result", "vector": options["output"], "points": counts})
    if quiet or progress == "json":
        return
    click.echo(f"{'class':<22}{'pixels':>13} {'area':>7} {'points':>7}")
    for s in drawn.strata:
        click.echo(f"{s.name:<22}{s.pixels:>13} {s.share:>7.1%} {s.points:>7}")
    click.echo(f"{options['output']}: {counted(len(drawn.points), 'point')}")
