"""``geoseg predict``."""

from __future__ import annotations

import gc
from typing import Any, cast

import click

from geoseg.cli.options import (
    Bbox,
    Bytes,
    Overlap,
    Pixels,
    asset_option,
    band_options,
    cloud_option,
    device_options,
    force_option,
    output_options,
    overwrite_option,
    progress_option,
    root_options,
    scene_argument,
    stretch_option,
)
from geoseg.cli.progress import progress_printer
from geoseg.core.wording import area
from geoseg.events import DryRunEvent

__all__ = ["command"]


@click.command("predict")
@scene_argument
@click.option(
    "-m",
    "--model",
    multiple=True,
    help="Embedded model's name, or a model folder or .zip; several for the mean of their "
    "probabilities.  [default: the embedded one that suits the scene's bands and gsd]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="Class raster.  [default: <scene>_landcover.tif in the current folder]",
)
@click.option(
    "--vector",
    type=click.Path(),
    help="Polygons: .gpkg, .fgb, .parquet or .geojson.  [default: the raster's name with .gpkg]",
)
@click.option("--no-vector", is_flag=True, help="Write no polygons.")
@click.option(
    "--probs", type=click.Path(), help="Write a raster of all probabilities, one band per class."
)
@click.option("--confidence", type=click.Path(), help="Write a raster of the winning probability.")
@click.option(
    "--min-confidence",
    type=float,
    default=0.0,
    metavar="0..1",
    help='Pixels whose winning probability is below this become "not sure", an id of its own.',
)
@click.option(
    "--agreement",
    type=click.Path(),
    help="Write a raster of the share of members (--tta, several -m) that agree on the class.",
)
@click.option(
    "--border",
    type=click.Path(),
    help="Write a raster of where a class may depend on what lies beyond the measured ground.",
)
@click.option(
    "--applicability",
    type=click.Path(),
    help="Write a raster of how far each pixel is like what the model was taught on.",
)
@click.option(
    "--probs-dtype",
    type=click.Choice(["uint8", "float32"]),
    default="uint8",
    show_default=True,
    help="uint8 holds probability * 254 and a scale tag.",
)
@click.option(
    "--preview", type=click.Path(), help="Write a PNG of the scene beside its class raster."
)
@band_options
@stretch_option
@asset_option
@cloud_option
@click.option(
    "--cloud-buffer",
    type=float,
    default=60.0,
    show_default=True,
    metavar="METRES",
    help="How far around clouds and their shadows all becomes nodata, too.",
)
@root_options
@click.option("--bbox", type=Bbox(), help="Predict only this part, in the scene's CRS.")
@click.option("--bbox-crs", help="CRS of --bbox, e.g. EPSG:4326.")
@click.option("--aoi", type=click.Path(), help="Vector file; predict only inside its polygons.")
@click.option("--size", type=int, help="Chip side, px.  [default: the model's]")
@click.option(
    "--overlap",
    type=Overlap(),
    help="Pixels two chips share, or auto: no more than needed.  [default: the model's]",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Overlap chips so far that the probabilities are those of the untiled scene.",
)
@click.option(
    "--taper",
    type=click.Choice(["cosine", "linear", "gaussian", "none"]),
    default="cosine",
    show_default=True,
    help="How a chip's weight falls off towards its edges.",
)
@click.option(
    "--tta",
    type=click.Choice(["none", "flips", "d4"]),
    default="none",
    show_default=True,
    help="flips: average over mirrored chips (4 times the work); d4: over turned ones, too (8 "
    "times).",
)
@click.option("--crf", is_flag=True, help="Smooth the map along the image's edges (dense CRF).")
@click.option(
    "--crf-option",
    "crf_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Options of --crf: filter, iterations, alpha, beta, gamma, spatial, bilateral, radius; "
    "repeatable.",
)
@click.option(
    "--batch-size", type=int, help="Most chips in one forward pass of a GPU; a CPU takes one."
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "openvino", "onnxruntime", "torch"]),
    default="auto",
    show_default=True,
    help="The library that computes; auto takes the fastest on this machine.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="auto keeps at least 99.5 % of fp32's labels.",
)
@device_options
@click.option(
    "--mem-limit",
    type=Bytes(),
    help="Memory of the run in all, such as 2GB; wide scenes are then cut into lanes.  [default: "
    "most of what is free]",
)
@click.option(
    "--max-pixels",
    type=Pixels(),
    help="Refuse scenes that hold more pixels.  [default: 1e11]",
)
@click.option(
    "--restart",
    is_flag=True,
    help="Start from the beginning, even if a stopped run could be continued.",
)
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
@overwrite_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the time, memory and disk space that a run would take; write nothing.",
)
@progress_option
@output_options
def command(
    scene: tuple[str, ...],
    output: str | None,
    model: tuple[str, ...],
    dry_run: bool,
    progress: str,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Turn a scene into a land-cover raster and polygons.

    SCENE is a raster (path or URL), a folder of one-band files, several such files, a product as it
    is delivered (a folder, a .zip or a .tar), or a STAC item (path or URL). Writes
    <scene>_landcover.tif, .gpkg and .json into the current folder.
    """
    # The libraries are no garbage, and a run leaves next to none: look for it less often.
    gc.set_threshold(20_000)
    from geoseg.prediction.dry_run import dry_run as plan_only
    from geoseg.prediction.run import predict

    receiver = progress_printer(progress, -1 if quiet else verbose)
    source = scene[0] if len(scene) == 1 else scene
    if model:
        options["model"] = model[0] if len(model) == 1 else model
    if dry_run:
        estimate = plan_only(source, output, progress=receiver, **options)
        if progress == "json":
            receiver(cast(DryRunEvent, {"event": "dry-run", **estimate.report}))
        else:
            _print_estimate(estimate.report)
        return
    result = predict(source, output, progress=receiver, **options)
    if progress != "json" and not quiet:
        _print_result(result.report)


def _print_estimate(report: dict[str, Any]) -> None:
    chips = report["chips"]
    click.echo(f"chips    {chips['run']} to run, {chips['skipped']} skipped (all nodata)")
    click.echo(f"time     about {report['seconds']:.0f} s with {_runtime(report)}")
    click.echo(f"memory   about {report['memory_bytes'] / 1e9:.1f} GB")
    for path, size in report["output_bytes"].items():
        click.echo(f"output   {path}, at most {size / 1e6:.1f} MB")
    click.echo("nothing was written")


def _runtime(report: dict[str, Any]) -> str:
    runtime = report["runtime"]
    return f"{runtime['name']} {runtime['precision']} on {runtime['device']}"


def _print_result(report: dict[str, Any]) -> None:
    for entry in sorted(report["classes"], key=lambda c: -c["pixels"]):
        if entry["pixels"]:
            shown = "" if entry["area_m2"] is None else f"{area(entry['area_m2']):>16}"
            click.echo(f"{entry['name']:<22}{entry['share']:7.1%} {shown}")
    seconds, pixels = report["seconds"]["total"], report["pixels"]["valid"]
    click.echo(f"{pixels / 1e6:.2f} Mpx in {seconds:.1f} s with {_runtime(report)}")
    for path in report["outputs"].values():
        click.echo(path)
