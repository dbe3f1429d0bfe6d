"""``geoseg info``: what geoseg sees in a scene, and which models fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from geoseg.cli.options import (
    Pixels,
    asset_option,
    band_options,
    cloud_option,
    json_option,
    model_option,
    root_options,
    scene_argument,
    stretch_option,
)
from geoseg.cli.streams import print_json

__all__ = ["command"]


@click.command("info")
@scene_argument
@model_option
@band_options
@stretch_option
@asset_option
@cloud_option
@click.option(
    "--max-pixels",
    type=Pixels(),
    help="Refuse scenes that hold more pixels.  [default: 1e11]",
)
@root_options
@json_option
def command(
    scene: tuple[str, ...],
    model: str | None,
    bands: str | None,
    band_names: str | None,
    scale: float | None,
    offset: float | None,
    src_nodata: float | None,
    nearblack: bool,
    stretch: tuple[float, float] | None,
    assets: tuple[str, ...],
    clouds: str,
    max_pixels: float | None,
    input_root: tuple[str, ...],
    allow_vrt: str,
    as_json: bool,
) -> None:
    """Show what geoseg sees in a scene, and which models fit it.

    Without -m all embedded models are tried.
    """
    from geoseg.prediction.scene_info import scene_info

    source = scene[0] if len(scene) == 1 else scene
    report = scene_info(
        source,
        models=[model] if model else None,
        bands=bands,
        band_names=band_names,
        scale=scale,
        offset=offset,
        src_nodata=src_nodata,
        nearblack=nearblack,
        stretch=stretch,
        assets=assets,
        clouds=clouds,
        max_pixels=max_pixels,
        input_root=input_root,
        allow_vrt=allow_vrt,
    )
    if as_json:
        print_json(report)
        return
    _print(report)


def _print(report: dict[str, Any]) -> None:
    grid = report["grid"]
    gsd = "gsd unknown" if grid["gsd"] is None else "{:.4g} x {:.4g} m".format(*grid["gsd"])
    click.echo(f"{report['name']}: {grid['width']} x {grid['height']} px, {gsd}, {grid['crs']}")
    click.echo()
    for row in _in_columns([("", "", "why"), *_facts(report)]):
        click.echo(row)
    for line in report["notes"]:
        click.echo(f"doubt: {line}")
    for line in report["ignored"]:
        click.echo(f"unused: {line}")
    for model in report["models"]:
        click.echo()
        _print_model(model)


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Rows of the table: of what, what it is, and why geoseg believes it."""
    yield "sensor", report["sensor"] or "unknown", report["sensor_by"]
    for band in report["bands"]:
        yield band["label"], f"{band['name'] or '?'}, {band['dtype']}", band["name_by"]
    numbers = report["numbers"]
    if numbers["scale"] is None:
        yield "numbers", "unknown", numbers["why"]
    else:
        yield "numbers", f"reflectance = {_formula(numbers)}", numbers["why"]
    nodata = {(b["nodata"], b["nodata_by"]) for b in report["bands"]}
    for value, why in sorted(nodata, key=str):
        shown = "none" if value is None else value if isinstance(value, str) else f"{value:g}"
        yield "nodata", shown, why or "no tag, no convention"
    clouds = report["clouds"]
    if clouds:
        yield "clouds", "left out", f"{clouds['layer']}: {clouds['source']}"
    else:
        yield "clouds", "unknown", "no cloud layer lies with the scene"
    item = report["item"]
    if item:
        yield "item", item["id"], f"of {item['collection']}, {item['datetime']}"


def _formula(numbers: dict[str, Any]) -> str:
    """The rule from numbers to reflectance; bands may differ."""
    scale, offset = numbers["scale"], numbers["offset"]
    if len(scale) > 1 or len(offset) > 1:
        return f"number x {min(scale):g} to {max(scale):g} + {min(offset):g} to {max(offset):g}"
    if (scale[0], offset[0]) == (1, 0):
        return "number"
    return f"number x {scale[0]:g}" + (f" {offset[0]:+g}" if offset[0] else "")


def _in_columns(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """Rows with the first two columns as wide as they need, within limits."""
    first, second = (min(max(len(row[i]) for row in rows), most) for i, most in ((0, 28), (1, 40)))
    for a, b, c in rows:
        yield f"{a:<{first}}  {b:<{second}}  {c}".rstrip()


def _print_model(model: dict[str, Any]) -> None:
    if not model["fits"]:
        click.echo(f"model {model['name']}: does not fit: {model['why']}")
        return
    click.echo(f"model {model['name']}: fits; values: {model['radiometry']}")
    click.echo(f"  {model['valid_share']:.1%} of the sampled pixels were measured")
    if model["statistics"]:
        click.echo(f"  {'band':<10} {'1 %':>8} {'median':>8} {'99 %':>8}")
    for s in model["statistics"]:
        click.echo(f"  {s['name']:<10} {s['low']:8.4f} {s['median']:8.4f} {s['high']:8.4f}")
    for line in model["notes"]:
        click.echo(f"  doubt: {line}")
