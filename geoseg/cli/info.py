"""``geoseg info``: what geoseg sees in a scene, and which models fit."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import (
    Pixels,
    asset_option,
    band_options,
    json_option,
    model_option,
    root_options,
    scene_argument,
)
from geoseg.cli.streams import print_json

__all__ = ["command"]


@click.command("info")
@scene_argument
@model_option
@band_options
@asset_option
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
    assets: tuple[str, ...],
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
        assets=assets,
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
    click.echo(f"sensor   {report['sensor'] or 'unknown'}")
    for band in report["bands"]:
        nodata = band["nodata"]
        shown = nodata if isinstance(nodata, str) else f"{nodata or 0:g}"
        extra = "" if nodata is None else f", nodata {shown}"
        scale = "" if band["scale"] is None else f", x {band['scale']:g} + {band['offset']:g}"
        click.echo(f"  {band['label']:<12} {band['name'] or '?':<10} {band['dtype']}{extra}{scale}")
    if report["item"]:
        item = report["item"]
        click.echo(f"item     {item['id']} of {item['collection']}, {item['datetime']}")
    if report["clouds"]:
        what = "asset " if report["item"] else ""
        click.echo(f"clouds   {report['clouds']['layer']}, {what}{report['clouds']['source']}")
    for line in report["notes"]:
        click.echo(f"  note: {line}")
    for line in report["ignored"]:
        click.echo(f"  unused: {line}")
    for model in report["models"]:
        if not model["fits"]:
            click.echo(f"model {model['name']}: does not fit: {model['why']}")
            continue
        click.echo(f"model {model['name']}: fits; values: {model['radiometry']}")
        click.echo(f"  {model['valid_share']:.1%} of the sampled pixels were measured")
        if model["statistics"]:
            click.echo(f"  {'band':<10} {'1 %':>8} {'median':>8} {'99 %':>8}")
        for s in model["statistics"]:
            click.echo(f"  {s['name']:<10} {s['low']:8.4f} {s['median']:8.4f} {s['high']:8.4f}")
        for line in model["notes"]:
            click.echo(f"  note: {line}")
