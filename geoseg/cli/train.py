"""``geoseg train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoseg.cli.options import (
    band_options,
    device_options,
    max_pixels_option,
    output_options,
    progress_option,
    root_options,
)
from geoseg.cli.progress import progress_printer

__all__ = ["command"]


@click.command("train")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The new model folder."
)
@click.option("--images", multiple=True, help="Scenes: files, folders or globs; repeatable.")
@click.option(
    "--labels",
    multiple=True,
    help="Class rasters, masks in class colours, polygons or points; repeatable.",
)
@click.option(
    "--column",
    help="Column of vector labels that holds the class.  [default: reference, or class_id]",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A class, and what stands for it in the labels: id, #RRGGBB or text.  [default: all that "
    "the labels hold]",
)
@click.option(
    "--ignore", multiple=True, metavar="ID", help="A label that means no class; repeatable."
)
@click.option(
    "--radius",
    type=float,
    default=0.0,
    help="Metres around labelled points and lines that get their class, too.",
)
@band_options
@root_options
@click.option(
    "--gsd",
    type=float,
    help="Metres per pixel that the network works at: those of images without a CRS; images with "
    "one are resampled.  [default: the images' own]",
)
@click.option(
    "--network",
    help="The network; geoseg models list --networks shows all.  [default: small_unet; with an "
    "encoder deeplabv3plus]",
)
@click.option("--encoder", help="The network's encoder: any of timm's, for networks that take one.")
@click.option(
    "--encoder-weights", help="The encoder's pretrained weights: imagenet, torchgeo:NAME or a file."
)
@click.option(
    "--teacher", help="A model whose probabilities are learned where there are no labels."
)
@click.option(
    "--split",
    type=click.Choice(["blocks", "files", "random"]),
    help="What is held out: squares of each image, whole images, or single chips (whose scores are "
    "too good).  [default: blocks; files from 10 images on, without --block and --margin]",
)
@click.option("--block", type=int, help="Side of a block, px.")
@click.option(
    "--margin", type=int, help="Width around held-out blocks that is left out of training, px."
)
@click.option("--fold", metavar="I/K", help="Hold out part I of K.  [default: 1/5]")
@click.option("--steps", type=int, help="Steps of the optimizer.  [default: 500]")
@click.option("--batch", type=int, help="Chips in one forward pass.  [default: 8]")
@click.option("--chip", type=int, help="Chip side, px.")
@click.option("--lr", "learning_rate", type=float, help="Highest learning rate.  [default: 0.001]")
@click.option("--loss", help="The loss: a sum such as ce+0.5*dice.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Precision of the forward passes.",
)
@click.option("--seed", type=int, help="Seed of everything random.  [default: 0]")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any key of a recipe; repeatable."
)
@device_options
@max_pixels_option
@click.option("--devices", type=int, default=1, help="GPUs that share each batch.")
@click.option(
    "--no-resume",
    is_flag=True,
    help="Start from the beginning, even if a stopped run could be continued.",
)
@progress_option
@output_options
def command(
    output: Path,
    device: str,
    devices: int,
    threads: int | None,
    no_resume: bool,
    progress: str,
    quiet: bool,
    verbose: int,
    **options: Any,
) -> None:
    """Train a network, from a recipe (CONFIG) or from --images and --labels.

    A run that was stopped is continued when the same command is given again. Beside the
    model folder, OUTPUT.training holds log, curve, recipe and the held-out labels.
    """
    from geoseg.core.importing import require

    require("train", "geoseg train")
    from geoseg.training.run import train

    try:
        card = train(
            options.pop("config"),
            output,
            resume=not no_resume,
            progress=progress_printer(progress, -1 if quiet else verbose),
            device=device,
            devices=devices,
            threads=threads,
            **options,
        )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"what {output}.training holds is kept: the same command goes on from its last "
            f"checkpoint"
        ) from error
    if quiet or progress == "json":
        return
    for gsd, scores in card.scores.items():
        if gsd.startswith("at_"):
            click.echo(
                f"held out, {gsd[3:]}: agreement {scores['agreement']:.3f}, mean IoU "
                f"{scores['mean_iou']:.3f}"
            )
    click.echo(f"{card.name} is in {output}; use it with geoseg predict SCENE -m {output}")
