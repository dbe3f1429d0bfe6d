"""``geoseg evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from geoseg.cli.options import (
    band_options,
    device_options,
    max_pixels_option,
    output_options,
    overwrite_option,
    progress_option,
    root_options,
    stretch_option,
)
from geoseg.cli.progress import progress_printer
from geoseg.errors import UsageError

__all__ = ["command"]


@click.command("evaluate")
@click.argument("raster", metavar="MAP_OR_MODEL", type=click.Path())
@click.option(
    "--points", multiple=True, type=click.Path(), help="Labelled points of geoseg sample."
)
@click.option(
    "--labels",
    multiple=True,
    type=click.Path(),
    help="Raster of labels, on any grid, or polygons.",
)
@click.option(
    "--column",
    help="Column of points or polygons that holds the true class.  [default: reference; class_id "
    "of polygons]",
)
@click.option(
    "--ignore", multiple=True, metavar="ID", help="A label that means no class; repeatable."
)
@click.option(
    "--class",
    "colors",
    multiple=True,
    metavar="NAME=#RRGGBB",
    help="For labels that are a mask: a class's colour; other colours are ignored.  Repeatable.",
)
@click.option(
    "--scene",
    multiple=True,
    type=click.Path(),
    help="For a model: the scene that it maps; repeatable for one-band files.",
)
@band_options
@stretch_option
@root_options
@device_options
@click.option("--probs", type=click.Path(), help="The map's probabilities, of predict --probs.")
@click.option(
    "--boundary-tolerance",
    type=float,
    metavar="METRES",
    help="How far off a border may be.  [default: 2 pixels]",
)
@click.option("--json", type=click.Path(), metavar="FILE", help="Write the report as JSON.")
@click.option(
    "--csv", type=click.Path(), metavar="FILE", help="Write a table, one measure per line."
)
@click.option("--html", type=click.Path(), metavar="FILE", help="Write a page with pictures.")
@click.option("--write-card", is_flag=True, help="Put the scores into the model's card.")
@click.option(
    "--write-temperature",
    is_flag=True,
    help="Put the temperature that was fitted into the model's card.",
)
@max_pixels_option
@overwrite_option
@progress_option
@output_options
def command(
    raster: str,
    scene: tuple[str, ...],
    progress: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Measure how accurate a class raster is, or a model on a scene.

    Give either --points, a labelled random sample (geoseg sample draws it): accuracies and the
    true areas of the classes, with 95 % intervals; or --labels, a raster or polygons: how their
    pixels agree with the map.
    """
    from geoseg.evaluation.run import evaluate

    # Click takes the last of several without a word.
    for name, tool in (("points", "ogrmerge.py -single"), ("labels", "gdalbuildvrt, ogrmerge.py")):
        given = options[name]
        if len(given) > 1:
            raise UsageError(
                f"--{name} is given {len(given)} times ({', '.join(given)}), and one file is "
                f"compared with the map; join them first ({tool}), or compare one at a time"
            )
        options[name] = given[0] if given else None
    if scene:
        options["scene"] = scene[0] if len(scene) == 1 else list(scene)
    receiver = progress_printer(progress, -1 if quiet else verbose)
    done = evaluate(raster, progress=receiver, **options)
    for message in done.warnings:
        receiver({"event": "warning", "message": message})
    files = [path for name in ("json", "csv", "html") if (path := options[name]) is not None]
    if options["write_card"] or options["write_temperature"]:
        files.append(raster)
    receiver({"event": "result", "files": files, "report": done.report})
    if quiet or progress == "json":
        return
    if done.accuracy is None:
        _print_labels(done.report)
    else:
        _print_points(done.report)
    if "speed" in done.report:
        speed = done.report["speed"]
        click.echo(f"{speed['mpx_s']:.3g} Mpx/s on {speed['device']}")
    for path in (options["json"], options["csv"], options["html"]):
        if path is not None:
            click.echo(path)
    if options["write_card"] or options["write_temperature"]:
        click.echo(f"{raster}: its card was written")


def _print_points(report: dict[str, Any]) -> None:
    counted = report["counted"]
    left = ", ".join(
        f"{counted[key]} {key.replace('_', ' ')}"
        for key in ("unlabelled", "ignored", "outside", "on_nodata", "not_sure")
        if counted[key]
    )
    click.echo(f"{counted['used']} of {counted['points']} points" + (f" ({left})" if left else ""))
    click.echo(f"overall accuracy {_share(report['overall_accuracy'])}   (+- is the 95 % interval)")
    metres = report["area_unit"] == "m2"
    unit, factor = ("km2", 1e-6) if metres else ("px", 1.0)
    head = f"area, {unit}"
    click.echo(
        f"{'class':<22}{'points':>7} {'users':>15} {'producers':>15} {'mapped ' + unit:>14} "
        f"{head:>28}"
    )
    for entry in report["classes"]:
        area = entry["area"]
        shown = f"{_value(area, factor)} +- {_margin(area, factor)}"
        click.echo(
            f"{entry['name']:<22}{entry['points']:>7} {_share(entry['users_accuracy']):>15} "
            f"{_share(entry['producers_accuracy']):>15} {entry['mapped_area'] * factor:>14.6g} "
            f"{shown:>28}"
        )
    classes, shares = report["classes"], report["area_shares"]["shares"]
    _print_matrix("points, reference in rows", classes, report["counts"]["points"], _count)
    title = "% of the mapped area, reference in rows"
    _print_matrix(title, classes, list(zip(*shares, strict=True)), lambda s: f"{100 * s:.2f}")


def _print_labels(report: dict[str, Any]) -> None:
    counted = report["counted"]
    click.echo(
        f"{counted['pixels']} pixels compared; {counted['unlabelled']} without label, "
        f"{counted['ignored']} ignored, {counted['on_nodata']} labels on the map's nodata, "
        f"{counted['not_sure']} where it is not sure"
    )
    for name, value in report["measures"].items():
        click.echo(f"{name.replace('_', ' '):<22} {_plain(value)}")
    titles = {
        "iou": "iou",
        "f1": "f1",
        "precision": "precision",
        "recall": "recall",
        "boundary_f1": "border f1",
        "polygons": "polygons",
        "polygons_right": "right",
    }
    names = [name for name in titles if name in report["classes"][0]]
    click.echo(f"{'class':<22}{'labelled px':>13} " + " ".join(f"{titles[n]:>9}" for n in names))
    for entry in report["classes"]:
        values = " ".join(f"{_plain(entry[n]):>9}" for n in names)
        click.echo(f"{entry['name']:<22}{entry['labelled_pixels']:>13} {values}")
    _print_matrix("pixels, labels in rows", report["classes"], report["counts"]["pixels"], _count)
    if "boundaries" in report:
        click.echo(f"borders are met within {report['boundaries']['tolerance_m']:.4g} m")
    if "calibration" in report:
        fitted = report["calibration"]["temperature"]
        click.echo(
            f"with temperature {_plain(fitted['value'])} ece is {_plain(fitted['ece_after'])} "
            f"instead of {_plain(fitted['ece_before'])} ({fitted['sampled_pixels']} px)"
        )


def _print_matrix(
    title: str,
    classes: Sequence[Mapping[str, Any]],
    rows: Sequence[Sequence[float]],
    text: Callable[[Any], str],
) -> None:
    """Print what is there by what the map says; nine classes fit on a line of 100 characters.

    Ids stand before names, so that these differ when they are cut; the map has classes with ids.
    """
    names = [c["name"] if c["id"] is None else f"{c['id']} {c['name']}" for c in classes]
    columns = [k for k, c in enumerate(classes) if c["id"] is not None]
    table = [["", *(_cut(names[k], 8) for k in columns)]]
    for name, row in zip(names, rows, strict=True):
        table.append([_cut(name, 18), *(text(row[k]) for k in columns)])
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    click.echo(f"{title}, map in columns:")
    for name, *cells in table:
        padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        click.echo(" ".join([f"{name:<{first}}", *padded]))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "."


def _count(value: int) -> str:
    return str(value) if value < 10**8 else f"{value:.2e}"


def _plain(value: float | None) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if value is None else f"{value:.4f}"


def _share(found: dict[str, float | None]) -> str:
    if found["value"] is None:
        return "-"
    margin = _half(found)
    return f"{found['value']:.3f} +- {'?' if margin is None else f'{margin:.3f}'}"


def _value(found: dict[str, float | None], factor: float) -> str:
    return "-" if found["value"] is None else f"{found['value'] * factor:.6g}"


def _margin(found: dict[str, float | None], factor: float) -> str:
    margin = _half(found)
    return "?" if margin is None else f"{margin * factor:.3g}"


def _half(found: dict[str, float | None]) -> float | None:
    """Give half of the 95 % interval."""
    low, high = found["low"], found["high"]
    return None if low is None or high is None else (high - low) / 2
