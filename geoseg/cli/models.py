"""``geoseg models``: what is there, and what is made of models or measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli.options import (
    Bbox,
    band_options,
    device_options,
    json_option,
    output_options,
    progress_option,
    root_options,
    scene_argument,
)
from geoseg.cli.progress import progress_printer
from geoseg.cli.streams import print_json
from geoseg.core.wording import counted
from geoseg.errors import UsageError

__all__ = ["command"]


@click.group("models")
def command() -> None:
    """List, show, import, export, quantize and time models."""


@command.command("list")
@click.option("--networks", is_flag=True, help="List the networks that can be trained, instead.")
@json_option
def list_command(networks: bool, as_json: bool) -> None:
    """List the embedded models, or the networks.

    With --networks it is what geoseg train and create_model can build: with paper, parameters in
    millions, GFLOPs (21 classes, three bands, 512 px) and Mpx/s, million pixels per second of one
    core's time, as measured by benchmarks/networks.py.
    """
    if networks:
        _list_networks(as_json)
        return
    from geoseg.zoo import find_model, list_embedded

    cards = [find_model(name).card for name in list_embedded()]
    if as_json:
        entries = [
            {
                "name": c.name,
                "network": c.network,
                "bands": list(c.bands),
                "classes": [k.name for k in c.classes],
                "gsd_range": list(c.gsd_range),
                "license": c.license,
                "description": c.description,
            }
            for c in cards
        ]
        print_json(entries)
        return
    for c in cards:
        low, high = c.gsd_range
        click.echo(
            f"{c.name:<16} {counted(len(c.classes), 'class')}  {low:g}-{high:g} m  "
            f"{','.join(c.bands)}"
        )


def _list_networks(as_json: bool) -> None:
    from geoseg.networks.bench import networks_table, published

    if as_json:
        print_json(published())
        return
    how = published()["how"]
    click.echo(networks_table())
    click.echo(
        f"\n{how['size']} px, {counted(how['bands'], 'band')}, {counted(how['classes'], 'class')}, "
        f"{how['precision']}, {counted(how['threads'], 'thread')} of {how['hardware']}"
    )


@command.command("show")
@click.argument("name")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Show a model's card. NAME is an embedded model, a model folder or a .zip."""
    from geoseg.cards.reading import calibration_lines, flat_scores, meaning_rows, taught_line
    from geoseg.cards.stac import to_mlm
    from geoseg.zoo import find_model

    files = find_model(name)
    card = files.card
    if as_json:
        print_json(to_mlm(card))
        return
    click.echo(f"{card.name}: {card.description}")
    rows = {
        **meaning_rows(card),
        "sha256": files.sha256,
        "made": card.provenance,
        "taught": taught_line(card),
    }
    for key, value in rows.items():
        click.echo(f"  {key:<8} {value}")
    click.echo("  classes")
    for c in card.classes:
        click.echo(f"    {c.id:>3} {c.color} {c.name}")
    for title, lines in (
        ("scores", [f"{key}: {score}" for key, score in flat_scores(card)]),
        ("probabilities", calibration_lines(card)),
    ):
        if lines:
            click.echo(f"  {title}")
        for line in lines:
            click.echo(f"    {line}")


@command.command("import")
@click.argument("source", type=click.Path())
@click.option("-o", "--output", type=click.Path(), required=True, help="The new model folder.")
@json_option
def import_command(source: str, output: str, as_json: bool) -> None:
    """Turn a release into a geoseg model folder.

    SOURCE is a Dynamic World release (a folder with weights.npz), a geoseg model folder or .zip.
    """
    from geoseg.cards.stac import to_mlm
    from geoseg.networks import import_model

    card = import_model(source, output)
    if as_json:
        print_json(to_mlm(card))
        return
    click.echo(f"{card.name} is in {output}; use it with geoseg predict SCENE -m {output}")


@command.command("export")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(), required=True, help="The new .onnx file.")
@click.option("--size", type=click.IntRange(min=1), help="Chip side, px.  [default: the model's]")
def export_command(name: str, output: str, size: int | None) -> None:
    """Write a model as ONNX, its card in the metadata.

    NAME is an embedded model, a model folder or a .zip. The graph takes normalized float32 chips
    (N, C, size, size) and gives logits (N, K, size, size).
    """
    from geoseg.networks.export import export_model
    from geoseg.zoo import find_model

    path = export_model(find_model(name), output, size=size)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


@command.command("graph")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def graph_command(names: tuple[str, ...]) -> None:
    """Write model.onnx beside the weights of models.

    With that file OpenVINO and ONNX Runtime run a model, and torch is not imported. NAME is a model
    folder; an older model.onnx in it is replaced if geoseg wrote it. The file is small: it refers
    to the weights beside it.
    """
    from geoseg.networks.export import write_graph
    from geoseg.zoo import check_changeable, find_model

    models = [find_model(name) for name in names]
    for files in models:
        check_changeable(files, "geoseg models graph")
    for files in models:
        path, takes = write_graph(files.path)
        click.echo(f"{path}: {path.stat().st_size / 1e3:.0f} kB, takes {takes}")


@command.command("quantize")
@click.argument("name")
@scene_argument
@click.option("-o", "--output", type=click.Path(), required=True, help="The new model folder.")
@band_options
@root_options
@click.option("--size", type=click.IntRange(min=1), help="Chip side, px.  [default: the model's]")
@click.option("--bbox", type=Bbox(), help="Only this part, in the scene's CRS.")
@json_option
def quantize_command(
    name: str, scene: tuple[str, ...], output: str, as_json: bool, **options: Any
) -> None:
    """Make an 8-bit version of a model, for predict --precision int8.

    NAME is an embedded model, a model folder or a .zip; SCENE is like those that it will be
    used on. Up to 16 of its chips show how large the network's numbers get, and which layers must
    stay in floating point for the labels to stay the same.
    """
    from geoseg.prediction.quantizing import quantize

    made = quantize(name, list(scene) if len(scene) > 1 else scene[0], output, **options)
    if as_json:
        names = ("chips", "agreement", "floating")
        entry = {"folder": str(made.folder), **{name: getattr(made, name) for name in names}}
        print_json(entry)
        return
    click.echo(
        f"{made.folder}: {made.words}; use it with geoseg predict SCENE -m {made.folder} "
        f"--precision int8"
    )


@command.command("bench")
@click.argument("name")
@click.option("--encoder", help="The encoder, where NAME is a network.  [default: its own]")
@click.option("--bands", "in_channels", type=int, help="Bands of the input.  [default: 3]")
@click.option("--classes", type=int, help="Classes of the output.  [default: 21]")
@click.option("--size", type=int, default=512, show_default=True, help="Chip side, px.")
@click.option("--batch", type=int, default=1, show_default=True, help="Chips per batch.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="fp32, or bf16 or fp16 by torch's autocast.",
)
@click.option("-j", "--threads", type=int, help="Threads for computing on a CPU.")
@click.option("--runs", type=int, default=30, show_default=True, help="Batches to time.")
@click.option(
    "--seconds",
    type=float,
    default=60.0,
    show_default=True,
    help="After so many seconds, time no further batches.",
)
@json_option
def bench_command(
    name: str,
    encoder: str | None,
    in_channels: int | None,
    classes: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Time a network's forward passes.

    NAME is a network of geoseg models list --networks, an embedded model, a model folder or .zip.
    """
    from geoseg.networks import create_model, list_models, load_network
    from geoseg.networks.bench import measure_speed
    from geoseg.zoo import find_model, list_embedded

    if name in list_models() or not (Path(name).exists() or name in list_embedded()):
        in_channels = in_channels or 3
        network = create_model(name, encoder, in_channels, classes or 21)
    else:
        if encoder or in_channels or classes:
            raise UsageError(
                f"{name} is a model, whose encoder, bands and classes are its own; leave "
                f"--encoder, --bands and --classes out, or give a network of geoseg models list "
                f"--networks"
            )
        files = find_model(name)
        in_channels, network = len(files.card.bands), load_network(files)
    speed = measure_speed(network, in_channels=in_channels, **options)
    if as_json:
        print_json({"name": name, **speed.as_dict()})
        return
    rows = {
        "speed": f"{speed.mpx_s:.4g} Mpx/s, {speed.fps:.4g} chips/s",
        "time": f"{speed.ms:.4g} ms a batch [{speed.ms_least:.4g} to {speed.ms_most:.4g}], median "
        f"of {speed.runs} after {speed.warmup}",
        "cost": f"{speed.gflops:.4g} GFLOPs a chip, {speed.parameters:,} parameters",
        "memory": f"{speed.peak_memory_bytes / 1e9:.3g} GB at most",
        "input": f"{speed.batch} x {speed.bands} x {speed.size} x {speed.size}, {speed.precision}",
        "machine": f"{speed.device}, {speed.hardware}, {counted(speed.threads, 'thread')}, "
        f"torch {speed.torch}",
    }
    if speed.cpu_mpx_s is not None:
        rows["speed"] += f", {speed.cpu_mpx_s:.4g} Mpx per second of CPU time"
    for key, value in rows.items():
        click.echo(f"{key:<8} {value}")


@command.command("probe")
@click.argument("model")
@click.argument("scene", nargs=-1, metavar="[SCENE...]")
@click.option("--size", type=int, help="Chip side, px.  [default: the model's, or what fits]")
@band_options
@root_options
@click.option("-j", "--threads", type=int, help="Threads for computing on a CPU.")
@click.option("--write", is_flag=True, help="Write the result into the card in the model's folder.")
@json_option
def probe_command(
    model: str, scene: tuple[str, ...], as_json: bool, write: bool, **options: Any
) -> None:
    """Measure how far from a chip's edge predictions change.

    MODEL is an embedded model, a model folder or a .zip. The same ground of SCENE, or of random
    smooth numbers without one, is seen as a chip and with ample ground around it. What is found is
    for geoseg predict --overlap auto and --exact.
    """
    from geoseg.prediction.border_probe import probe_border

    ground = scene[0] if len(scene) == 1 else (scene or None)
    probe = probe_border(model, ground, write=write, **options)
    border = probe.border
    if as_json:
        print_json({"model": model, "chips": probe.chips, **border.as_json()})
        return
    click.echo(f"{counted(probe.chips, 'chip')} of {border.size} px of {border.ground}")
    click.echo(f"{'px from the edge':<17}{'mean':>9}{'largest':>9}{'labels changed':>16}")
    # Closely where it changes much, then about twice a doubling.
    for i in [0, 1, 2, 3, *(k * 2**power for power in range(1, 12) for k in (2, 3))]:
        if i < len(border.mean):
            mean, largest, flips = border.mean[i], border.largest[i], border.flips[i]
            click.echo(f"{i:<17}{mean:>9.2g}{largest:>9.2g}{flips:>16.3%}")
    for name, value, what in (
        ("enough", border.enough, "on hardly a label changes"),
        ("exact", border.exact, "on nothing changes"),
    ):
        middle = "not within the chip: predictions change up to its middle"
        click.echo(f"{name:<7} {middle if value is None else f'from {value} px {what}'}")
    if probe.written is not None:
        click.echo(f"{probe.written} was written")


@command.command("calibrate")
@click.argument("model")
@click.argument("scenes", type=click.Path())
@device_options
@click.option("--write", is_flag=True, help="Write the result into the card in the model's folder.")
@progress_option
@output_options
@json_option
def calibrate_command(
    model: str,
    scenes: str,
    as_json: bool,
    progress: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Find the temperature that makes a model's probabilities right.

    MODEL is an embedded model, a model folder or a .zip. SCENES is a TOML file that lists labelled
    scenes which did not teach it. What the temperature is worth is measured on each of them with
    that of the others.
    """
    from geoseg.evaluation.calibrating import calibrate

    receiver = progress_printer(progress, -1 if quiet or as_json else verbose)
    done = calibrate(model, scenes, progress=receiver, **options)
    if as_json:
        print_json({"model": model, **done.report})
        return
    if quiet:
        return
    report = done.report
    apart = "{:.3g} to {:.3g}".format(*report["temperatures_apart"])
    click.echo(f"temperature {report['temperature']:.3g} ({apart} times the old without one scene)")
    click.echo(f"{'':<22}{'scenes':>7}{'pixels':>9}{'right':>8}{'ece before':>12}{'ece':>8}")
    for name, found in (*report["groups"].items(), ("all", report)):
        click.echo(
            f"{name:<22}{found['scenes']:>7}{found['pixels']:>9}{found['accuracy']:>8.1%}"
            f"{found['ece_before']:>12.3f}{found['ece']:>8.3f}"
        )
    for found in report["min_confidence"]:
        left = "-" if found["accuracy"] is None else f"{found['accuracy']:.1%}"
        click.echo(
            f"--min-confidence {found['value']:g}: {found['not_sure']:.1%} of the pixels not sure, "
            f"with {found['errors']:.1%} of the errors; {left} of the others right"
        )
    if done.written is not None:
        click.echo(f"{done.written} was written")


@command.command("taught")
@click.argument("model")
@click.argument("recipe", type=click.Path())
@click.option("--write", is_flag=True, help="Write the result into the card in the model's folder.")
@json_option
def taught_command(model: str, recipe: str, as_json: bool, write: bool) -> None:
    """Note what a model was taught on, for predict's warning and --applicability.

    MODEL is an embedded model, a model folder or a .zip; RECIPE is what it was trained with, whose
    scenes are looked at. geoseg train notes it by itself.
    """
    from geoseg.training.taught_scenes import add_taught

    done = add_taught(model, recipe, write=write)
    if as_json:
        print_json({"model": model, "unlike": done.unlike, "held_out": list(done.held_out)})
        return
    for path, share in sorted(done.unlike.items(), key=lambda entry: -entry[1]):
        side = "held out" if path in done.held_out else "taught"
        click.echo(f"{share:>7.1%} unlike  {side:<9} {path}")
    if done.written is not None:
        click.echo(f"{done.written} was written")
