"""Score a model of clouds: against masks by people, and on scenes without clouds.

    python benchmarks/clouds.py MODEL --labelled FILE.npz... --recipe configs/clouds-ms.toml

Labelled files hold ``img`` (H, W, 6), reflectance of blue, green, red, nir, swir1 and swir2 at
30 m, and ``msk`` (H, W, 1): 0 shadow, 1 water, 2 snow, 3 land, 4 cloud, as those of ukis-csmask.
The recipe names scenes that are clear; ``--groups`` takes some of its groups alone. A pixel is
cloud, or shadow, where these classes are the likeliest; it is left out where all that are clouds
have more than one half together, as for ``geoseg predict --clouds``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard
from geoseg.geo.model_grid import on_model_grid
from geoseg.geo.window import Window
from geoseg.networks import load_network
from geoseg.networks.normalize import normalize
from geoseg.scene.fill import fill_nearest
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene_band import finest_grid
from geoseg.training.recipe_file import load_config
from geoseg.zoo import find_model

SHADOW, CLOUD = 0, 4


def probabilities(network: torch.nn.Module, card: ModelCard, x: NDArray[Any]) -> NDArray[Any]:
    """Probabilities (K, H, W) of a whole picture of reflectance (C, H, W)."""
    height, width = x.shape[1:]
    more = [-side % card.multiple + card.multiple for side in (height, width)]
    padded = np.pad(x, ((0, 0), (0, more[0]), (0, more[1])), mode="symmetric")
    with torch.inference_mode():
        values = normalize(torch.from_numpy(padded[None].astype(np.float32)), card.normalization)
        found: NDArray[Any] = network(values).softmax(1)[0].numpy()
    return found[:, :height, :width]


def iou(found: NDArray[np.bool_], said: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((found & said).sum() / max((found | said).sum(), 1))


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--labelled", nargs="*", default=[])
    parser.add_argument("--recipe")
    parser.add_argument("--groups", nargs="*", default=[])
    asked = parser.parse_args()
    files = find_model(asked.model)
    card, network = files.card, load_network(files).eval()
    names = [c.name for c in card.classes]
    places = [names.index(name) for name in card.clouds or ()]
    shadow = [i for i in places if "shadow" in names[i]]
    clouds = [i for i in places if i not in shadow]
    for path in asked.labelled:
        data = np.load(path)
        probs = probabilities(network, card, np.moveaxis(data["img"], -1, 0))
        said, best = data["msk"][..., 0], probs.argmax(axis=0)
        left_out = probs[places].sum(axis=0) > 0.5
        print(
            f"{path}: cloud {iou(np.isin(best, clouds), said == CLOUD):.3f}, shadow "
            f"{iou(np.isin(best, shadow), said == SHADOW):.3f}, both "
            f"{iou(left_out, np.isin(said, (SHADOW, CLOUD))):.3f}; of the clear "
            f"{left_out[~np.isin(said, (SHADOW, CLOUD))].mean():.3f} left out"
        )
    if asked.recipe is None:
        return
    config = load_config(asked.recipe)
    by_group = defaultdict(list)
    for scene in config.scenes:
        if asked.groups and scene.group not in asked.groups:
            continue
        opened = open_scene(scene.path, scene.rules)
        bands = opened.choose(card.bands)
        found = find_radiometry(
            opened, bands, card.quantity, scale=config.scale, offset=config.offset
        )
        grid = on_model_grid(finest_grid(bands), card.gsd, card.gsd_range, card.name)[0].grid
        with SceneReader(bands, grid) as reader:
            numbers, valid = reader.read(Window(0, 0, grid.height, grid.width))
        x = numbers * np.array(found.gain)[:, None, None] + np.array(found.bias)[:, None, None]
        x = x if valid.all() else fill_nearest(x.astype(np.float32), valid)
        probs = probabilities(network, card, x)[:, valid]
        wrong = probs[places].sum(axis=0) > 0.5
        by_group[scene.group].append((wrong.sum(), wrong.size))
        each = ", ".join(
            f"{names[i]} {(wrong & (probs.argmax(0) == i)).mean():.4f}" for i in places
        )
        print(f"{scene.group} {scene.where} {scene.name[:40]}: {wrong.mean():.4f} ({each})")
    for group, counts in by_group.items():
        wrong, all_ = np.array(counts).sum(axis=0)
        print(f"group {group}: {wrong / all_:.4f} of {all_} px left out of scenes without clouds")


if __name__ == "__main__":
    main()
