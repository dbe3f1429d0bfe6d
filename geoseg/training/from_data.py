"""A recipe from images and labels alone: what the user did not say is looked up in the data."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.errors import RadiometryError, TrainingError, UsageError
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import SceneBand
from geoseg.training.held_out import quiet
from geoseg.training.legend import check_label_options, find_legend
from geoseg.training.options import TrainOptions
from geoseg.training.pairing import find_files, pair
from geoseg.zoo import find_model

__all__ = ["recipe_from_data"]

#: From so many images on, whole images are held out instead of blocks of them.
MANY = 10
FOLDS = 5
STEPS = 500


def recipe_from_data(options: TrainOptions, output: Path) -> dict[str, Any]:
    """Make a recipe's document from images and labels.

    Args:
        options: what the user says.
        output: the model folder to be; it gives the model its name.

    Returns:
        Keys and values as a recipe's file has them.

    Raises:
        GeosegError: files can't be read or don't fit, or the options don't fit them.
    """
    images, given = (find_files(map(Path, files)) for files in (options.images, options.labels))
    pairs = pair(images, given, options.rules)
    with quiet():
        names = options.band_names
        scenes = [open_scene(path, options.rules, band_names=names) for path, _ in pairs]
    labels = sorted({path for _, found in pairs for path in found})
    check_label_options(labels, options)
    bands, spec = _bands(scenes, options.bands)
    quantity = _quantity(scenes, bands, spec, options)
    gsd, gsd_range = _gsd(scenes, options.gsd)
    legend, values = find_legend(labels, options)
    if len(legend) < 2:
        raise TrainingError(
            f"the labels hold one class, {legend[0].name}: a network that knows no other is always "
            f"right; label something else, too, or name a second class with --class"
        )
    return {
        "name": _slug(output.name),
        "description": f"Classes {', '.join(c.name for c in legend)} from {', '.join(bands)}.",
        "provenance": (
            f"Taught by geoseg train on {len(pairs)} images with "
            f"{'labels' if labels else 'a teacher'}; recipe.json in the run's folder has it all."
        ),
        "bands": list(bands),
        "classes": [{"id": c.id, "name": c.name, "color": c.color} for c in legend],
        "label_values": values,
        "quantity": quantity,
        "gsd": gsd,
        "gsd_range": list(gsd_range),
        "scenes": [_scene(path, found, spec, options) for path, found in pairs],
        "split": _split(scenes, options),
        **_network(options),
        "encoder_rate": 0.3 if options.encoder_weights else 1.0,
        "loss": "ce+0.5*dice" if labels else "soft_ce",
        **_schedule(scenes, options),
        "augmentation": _augmentation(quantity),
    }


def _scene(
    path: Path, labels: Sequence[Path], bands: Sequence[str], options: TrainOptions
) -> dict[str, Any]:
    """Make the table of one scene."""
    numbers = {key: getattr(options, key) for key in ("scale", "offset", "src_nodata")}
    return {
        "path": str(path.resolve()),
        "labels": [str(p.resolve()) for p in labels],
        **({"column": options.column} if options.column else {}),
        **({"ignore_label": _ignored(options.ignore)} if options.ignore else {}),
        "radius": options.radius,
        **({"input_root": list(options.rules.roots)} if options.rules.roots else {}),
        "allow_vrt": options.rules.vrt,
        "bands": list(bands),
        "band_names": _parts(options.band_names),
        **{key: number for key, number in numbers.items() if number is not None},
        **({"nearblack": True} if options.nearblack else {}),
    }


def _split(scenes: Sequence[Scene], options: TrainOptions) -> dict[str, Any]:
    """Hold out whole images where there are many, else blocks of them."""
    blocks = len(scenes) < MANY or options.block is not None or options.margin is not None
    area = sum(s.grid.height * s.grid.width for s in scenes)
    # About five blocks a part.
    block = int(np.clip(round(math.sqrt(area / (5 * FOLDS)) / 16) * 16, 32, 1024))
    by = options.split or ("blocks" if blocks else "files")
    return {"by": by, "block": block, "margin": min(max(block // 6, 1), 64), "folds": FOLDS}


def _schedule(scenes: Sequence[Scene], options: TrainOptions) -> dict[str, Any]:
    """Choose how large chips are, how many steps are taken, and what goes with both."""
    shortest = min(min(s.grid.height, s.grid.width) for s in scenes)
    chip = options.chip or int(np.clip(shortest // 4 // 32 * 32, 64, 256))
    steps = options.steps or STEPS
    return {
        "chip": chip,
        "steps": steps,
        "warmup": min(100, steps // 10),
        "every": max(steps // 10, 1),
        # The average reaches over a tenth of the run.
        "ema": float(np.clip(1 - 10 / steps, 0.9, 0.999)),
        "inference": {"size": max(256, chip), "overlap": max(256, chip) // 4},
    }


def _augmentation(quantity: str) -> dict[str, Any]:
    """Choose how chips are changed: numbers without a unit vary more than reflectance does."""
    light = {"gain": 0.0, "band_offset": 0.02, "contrast": 0.2, "brightness": 0.05}
    return {
        "zoom": [0.75, 1.5],
        "band_gain": 0.05,
        "noise": 0.01,
        "mix": 0.3,
        **(light if quantity == "number" else {"gain": 0.1}),
    }


def _network(options: TrainOptions) -> dict[str, Any]:
    """Choose the network where the user names none.

    A small U-Net, which learns most from few labels and no pretrained weights; with an encoder, a
    DeepLabV3+ with a light decoder.
    """
    if options.network:
        return {}
    if options.encoder is None and options.encoder_weights is None:
        return {"network": "small_unet"}
    # The encoder's name goes before this one.
    network = {"encoder": "mobilenetv3_small_100", "channels": 64}
    return {"network": "deeplabv3plus", "network_options": network}


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")
    return slug if re.fullmatch(r"[a-z][a-z0-9._-]+[a-z0-9]", slug) else f"model-{slug or 'new'}"


def _ignored(texts: Sequence[str]) -> list[int | str]:
    return [int(text) if re.fullmatch(r"-?\d+", text) else text for text in texts]


def _bands(scenes: Sequence[Scene], given: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the model's bands by name, and the numbers or labels that choose them in the scenes.

    Raises:
        TrainingError: the scenes hold other bands than the first one.
    """
    first = scenes[0]
    names = [band.name for band in first.bands]
    if given is not None:
        spec = tuple(_parts(given))
        bands = [_band(first, text) for text in spec]
        return tuple(
            band.name or (f"band{text}" if text.isdecimal() else text)
            for text, band in zip(spec, bands, strict=True)
        ), spec
    if all(name is None for name in names):
        for scene in scenes:
            if len(scene.bands) != len(names):
                raise TrainingError(
                    f"{first.name} has {len(names)} bands without names and {scene.name} "
                    f"{len(scene.bands)}; give --bands with the numbers of those to use, or say "
                    f"what all of them are with --band-names"
                )
        numbers = tuple(str(i) for i in range(1, len(names) + 1))
        return tuple(f"band{i}" for i in numbers), numbers
    found = tuple(dict.fromkeys(name for name in names if name is not None))
    for scene in scenes:
        missing = set(found) - {band.name for band in scene.bands}
        if missing:
            raise TrainingError(
                f"{scene.name} has no band {', '.join(sorted(missing))}, which {first.name} has; "
                f"give --bands with those that all images have"
            )
    return found, ()


def _parts(given: str | None) -> list[str]:
    """Take names or numbers with commas between them apart."""
    return [text.strip() for text in (given or "").split(",") if text.strip()]


def _band(scene: Scene, text: str) -> SceneBand:
    """Find the band of a scene that a number or a name means.

    Raises:
        UsageError: it has none, or several.
    """
    if text.isascii() and text.isdecimal():
        number = int(text)
        found = list(scene.bands[number - 1 : number]) if number else []
    else:
        found = scene.find(text)
    if len(found) != 1:
        raise UsageError(
            f"--bands {text!r} is no band of {scene.name}; it has "
            f"{', '.join(map(str, scene.bands))}: give these names or their numbers, or say what "
            f"the bands are with --band-names"
        )
    return found[0]


def _quantity(
    scenes: Sequence[Scene], bands: Sequence[str], spec: Sequence[str], options: TrainOptions
) -> str:
    """Choose reflectance where all scenes' units are known, else the numbers as they are."""
    if options.teacher is not None:
        return find_model(options.teacher).card.quantity
    try:
        for scene in scenes:
            chosen = scene.choose(bands, ",".join(spec) or None)
            find_radiometry(
                scene, chosen, "reflectance", scale=options.scale, offset=options.offset
            )
    except RadiometryError:
        return "number"
    return "reflectance"


def _gsd(scenes: Sequence[Scene], given: float | None) -> tuple[float, tuple[float, float]]:
    """Find the model's gsd, and the range around those of the scenes.

    Raises:
        UsageError: no scene has one, and the user gives none.
    """
    known = [gsd for scene in scenes if scene.grid.gsd for gsd in scene.grid.gsd]
    if given is None and not known:
        raise UsageError(
            f"{scenes[0].name} has no CRS, so the size of its pixels is unknown; give --gsd in "
            f"metres"
        )
    middle = given if given is not None else float(np.median(known))
    low, high = (min([middle, *known]), max([middle, *known])) if given is None else (middle,) * 2
    return float(f"{middle:.4g}"), (float(f"{0.75 * low:.3g}"), float(f"{1.33 * high:.3g}"))
