"""Measure a model of land cover from the air on ground whose labels it need not share.

    GEOSEG_DATA=../shared python configs/landcover_aerial_2.py prepared
    GEOSEG_DATA=../shared python benchmarks/aerial.py MODEL prepared [--maps FOLDER] [--json FILE]

MODEL is the name of an embedded model or a model folder with the classes of landcover-aerial, first
or second edition; prepared holds the labels. Each score says of which ground it is. The first
edition has seen the two left columns of Dubai's places and nothing else; the second one has not
seen their right columns, the patches 3, 5 and 6 of West Virginia, and Rio.

- Dubai: classes merged to building, paved, bare, vegetation and water.
- Buildings: intersection over union; what labels leave open has no part.
- Trees and low vegetation: the share that is found (of a model that knows vegetation alone, that).
- What is alive and called water, and water that is found.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

import geoseg
from geoseg.evaluation.metrics import iou, mean_iou
from geoseg.labels.colours import color_table
from geoseg.rasters.class_raster import open_class_raster

IDS: dict[str, int] = runpy.run_path(
    str(Path(__file__).parents[1] / "configs" / "landcover_aerial_2.py")
)["IDS"]
#: Name of a class in either edition -> the class of Dubai's labels, by place.
MERGED = {
    "building": 0,
    "road": 1,
    "paved": 1,
    "bare_land": 2,
    "bare": 2,
    "vegetation": 3,
    "low_vegetation": 3,
    "trees": 3,
    "water": 4,
}
NAMES = ("building", "paved", "bare", "vegetation", "water")
#: Colours of Dubai's masks, in the order of these names.
COLORS = (0x3C1098, 0x6EC1E4, 0x8429F6, 0xFEDD3A, 0xE2A929)
ALIVE = ("low_vegetation", "trees", "vegetation")
#: Patches of West Virginia from which nothing was learned.
UNSEEN = ("3", "5", "6")

Bools = NDArray[np.bool_]


class Maps:
    """Maps of one model, as boolean layers by class."""

    def __init__(self, model: str, folder: Path) -> None:
        """Remember where maps go.

        Args:
            model: a name or a folder.
            folder: for the maps; those that are there are taken as they are.
        """
        self.model, self.folder = model, folder

    def of(self, scene: Path, key: str, **options: Any) -> dict[str, Bools]:
        """Map a scene: name of each class -> bool (H, W)."""
        path = self.folder / f"{key}.tif"
        if not path.exists():
            geoseg.predict(scene, path, model=self.model, no_vector=True, threads=1, **options)
        with open_class_raster(path) as raster:
            legend = raster.legend
        with rasterio.open(path) as dataset:
            ids = dataset.read(1)
        return {name: ids == number for number, name in legend.items()}


def read(path: Path) -> NDArray[np.uint8]:
    """Read the only band of a raster."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read(1))


def colors_of(path: Path) -> NDArray[np.int64]:
    """Read a mask in colours, as 0xRRGGBB; some have a colour table."""
    with rasterio.open(path) as dataset:
        if dataset.count == 1:
            return np.asarray(color_table(dataset)[dataset.read(1)])
        red, green, blue = dataset.read([1, 2, 3]).astype(np.int64)
    return np.asarray((red << 16) + (green << 8) + blue)


def any_of(layers: dict[str, Bools], *names: str) -> Bools:
    """Join the layers of classes that a model has."""
    found = [layers[name] for name in names if name in layers]
    return np.asarray(np.logical_or.reduce(found))


def dubai(maps: Maps, data: Path) -> dict[str, Any]:
    """Compare with Dubai's masks in the right columns, classes merged; each part is a scene."""
    counts: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros((5, 5), np.int64))
    for image in sorted(data.glob("dubai/tile_*/images/image_part_00[369].jpg")):
        place, part = image.parents[1].name, image.stem[-1]
        layers = maps.of(image, f"dubai_{place}_{part}")
        color = colors_of(image.parents[1] / "masks" / f"{image.stem}.png")
        found = np.full(color.shape, -1)
        for name, layer in layers.items():
            found[layer] = MERGED[name]
        for number, value in enumerate(COLORS):
            of_class = np.bincount(found[(color == value) & (found >= 0)], minlength=5)
            counts["seven places"][number] += of_class
            counts[place][number] += of_class
    return {
        where: {
            "mean_iou": round(mean_iou(c), 3),
            **{name: round(float(v), 3) for name, v in zip(NAMES, iou(c), strict=True) if v >= 0},
        }
        for where, c in counts.items()
    }


def buildings(maps: Maps, data: Path, prepared: Path) -> dict[str, dict[str, float]]:
    """Compare with outlines of buildings, and with what is green and what is ground around them."""
    sources = {
        "rio": (data / "aerial/spacenet_rio", prepared / "rio/labels", {"src_nodata": 0}),
        "kampala": (prepared / "kampala/images", prepared / "kampala/labels", {}),
    }
    scores = {}
    for where, (images, labels, options) in sources.items():
        both = either = 0
        found = np.zeros(4, np.int64)
        for path in sorted(labels.glob("*.tif")):
            truth = read(path)
            layers = maps.of(images / path.name, f"{where}_{path.stem}", **options)
            layer, alive = layers["building"], any_of(layers, *ALIVE)
            known, real = truth != 0, truth == IDS["building"]
            both += int((layer & real).sum())
            either += int(((layer & known) | real).sum())
            green, ground = truth == IDS["vegetation"], truth == IDS["ground"]
            found += [(alive & green).sum(), green.sum(), (alive & ground).sum(), ground.sum()]
        scores[where] = {
            "building_iou": round(both / either, 3),
            "green_found": round(float(found[0] / found[1]), 3),
            "ground_called_alive": round(float(found[2] / found[3]), 3),
        }
    return scores


def west_virginia(maps: Maps, prepared: Path) -> dict[str, dict[str, float]]:
    """Find the shares of trees and of low vegetation that are found, by date."""
    hits: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for path in sorted((prepared / "west-virginia/labels").glob("*.tif")):
        season, patch = path.stem.split("_")
        truth = read(path)
        layers = maps.of(prepared / "west-virginia/images" / path.name, f"wv_{path.stem}")
        ground = f"{season}, {'unseen' if patch in UNSEEN else 'other'} patches"
        found = {
            "trees": any_of(layers, "trees", "vegetation"),
            "low_vegetation": any_of(layers, "low_vegetation", "vegetation"),
            "alive_called_water": layers["water"],
        }
        alive = np.isin(truth, [IDS[name] for name in ALIVE])
        for name, layer in found.items():
            real = truth == IDS[name] if name in IDS else alive
            hits[ground, name][0] += int((layer & real).sum())
            hits[ground, name][1] += int(real.sum())
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for (ground, name), (hit, total) in hits.items():
        scores[ground][name] = round(hit / max(total, 1), 4)
    return dict(scores)


def water(maps: Maps, data: Path, prepared: Path) -> dict[str, dict[str, float]]:
    """Find how much of the living is called water, and how much of the water is found."""
    sources = {
        "north-dakota": prepared / "north-dakota/images",
        "coasts": data / "aerial/obx/img",
    }
    scores = {}
    for where, images in sources.items():
        sums = dict.fromkeys(
            ("alive", "alive_water", "water", "water_water", "dry", "dry_water"), 0
        )
        # Of the coasts a quarter will do.
        labels = sorted((prepared / where / "labels").glob("*.tif"))[
            :: 4 if where == "coasts" else 1
        ]
        for path in labels:
            truth = read(path)
            image = images / path.name
            if not image.exists():
                image = image.with_suffix(".jpg")
            layer = maps.of(image, f"{where}_{path.stem}")["water"]
            for name, ids in (
                ("alive", ALIVE),
                ("water", ("water",)),
                ("dry", ("dry", "not_water")),
            ):
                real = np.isin(truth, [IDS[i] for i in ids])
                sums[name] += int(real.sum())
                sums[f"{name}_water"] += int((real & layer).sum())
        scores[where] = {
            "alive_called_water": round(sums["alive_water"] / sums["alive"], 4),
            "dry_called_water": round(sums["dry_water"] / sums["dry"], 4),
            "water_found": round(sums["water_water"] / sums["water"], 4),
        }
    return scores


def main() -> None:
    """Print the scores as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--maps", type=Path, help="keep the maps here, or go on with those there")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    data = Path(os.environ["GEOSEG_DATA"]) / "data"
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.maps or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        maps = Maps(asked.model, folder)
        scores = {
            "dubai": dubai(maps, data),
            "buildings": buildings(maps, data, asked.prepared),
            "west-virginia": west_virginia(maps, asked.prepared),
            "water": water(maps, data, asked.prepared),
        }
    text = json.dumps(scores, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
