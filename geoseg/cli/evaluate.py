"""``geoseg evaluate``."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["command"]


@click.command("evaluate")
@click.argument("raster", metavar="MAP.tif", type=click.Path())
@click.option("--points", type=click.Path(), help="Labelled points of geoseg sample.")
@click.option("--labels", type=click.Path(), help="Raster of labels, on any grid.")
@click.option("--column", help="Of the points, with the true class.  [default: reference]")
@click.option(
    "--ignore", multiple=True, metavar="ID", help="A label that means no class; repeatable."
)
@click.option("--json", type=click.Path(), metavar="FILE", help="Write the report as JSON.")
@click.option("--csv", type=click.Path(), metavar="FILE", help="Write a table, a measure a line.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option("-q", "--quiet", is_flag=True, help="Say only warnings and errors.")
@click.option("-v", "--verbose", count=True, help="-vv shows tracebacks.")
def command(raster: str, quiet: bool, verbose: int, **options: Any) -> None:
    """Say how right a class raster is.

    Give either --points, a labelled random sample (geoseg sample draws it): accuracies and the
    true areas of the classes, with 95 % intervals; or --labels, a raster of labels: how its
    pixels agree with the map.
    """
    from geoseg.evaluation import evaluate

    done = evaluate(raster, **options)
    for message in done.warnings:
        click.echo(f"geoseg: warning: {message}", err=True)
    if quiet:
        return
    if done.accuracy is None:
        _print_labels(done.report)
    else:
        _print_points(done.report)
    for path in (options["json"], options["csv"]):
        if path is not None:
            click.echo(path)


def _print_points(report: dict[str, Any]) -> None:
    counted = report["counted"]
    left = ", ".join(
        f"{counted[key]} {key.replace('_', ' ')}"
        for key in ("unlabelled", "ignored", "outside", "on_nodata")
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


def _print_labels(report: dict[str, Any]) -> None:
    counted = report["counted"]
    click.echo(
        f"{counted['pixels']} pixels compared; {counted['unlabelled']} without label, "
        f"{counted['ignored']} ignored, {counted['on_nodata']} labels on the map's nodata"
    )
    for name, value in report["measures"].items():
        click.echo(f"{name.replace('_', ' '):<22} {_plain(value)}")
    names = ("iou", "f1", "precision", "recall")
    click.echo(f"{'class':<22}{'labelled px':>13} " + " ".join(f"{n:>9}" for n in names))
    for entry in report["classes"]:
        values = " ".join(f"{_plain(entry[n]):>9}" for n in names)
        click.echo(f"{entry['name']:<22}{entry['labelled_pixels']:>13} {values}")


def _plain(value: float | None) -> str:
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
    """Half of the 95 % interval."""
    low, high = found["low"], found["high"]
    return None if low is None or high is None else (high - low) / 2
