"""Fit what grounds reflect, and measure how often an order of bands is doubted.

    python benchmarks/spectra.py SCENE... [--write geoseg/prediction/spectra.json]

Scenes are files whose bands are known: six (blue, green, red, nir, swir1, swir2), nine (Sentinel-2:
B2 B3 B4 B5 B6 B7 B8 B11 B12) or thirteen (EuroSAT's order), as reflectance x 10000, or any with
names. Scenes that begin with the same nine letters count as one place. Places are parted in five:
each fifth is judged by a mixture that was fitted to the others, first as it is, then with its bands
in each order that is often mistaken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.prediction import spectra
from geoseg.prediction.spectra import BANDS, MISTAKEN, SHIFTS, Mixture, likelier, transformed

#: Places of the six bands in files that have so many.
PLACES = {6: (0, 1, 2, 3, 4, 5), 9: (0, 1, 2, 6, 7, 8), 13: (1, 2, 3, 7, 10, 11)}
PARTS, NORMALS, ROUNDS, SPREAD = 5, 16, 60, 0.01
FITTED, JUDGED = 500, 1000


def pixels_of(path: str, random: np.random.Generator) -> NDArray[np.float64]:
    """Reflectance (6, n) of pixels that were measured."""
    with rasterio.open(path) as dataset:
        named = {name: i for i, name in enumerate(dataset.descriptions)}
        places = [named[b] for b in BANDS] if set(BANDS) <= set(named) else PLACES[dataset.count]
        read = dataset.read([i + 1 for i in places]).reshape(6, -1)
    measured = read[:, (read != 0).any(axis=0)]
    count = min(measured.shape[1], FITTED + JUDGED)
    picked: NDArray[np.float64] = measured[:, random.permutation(measured.shape[1])[:count]] * 1e-4
    return picked


def fit(points: NDArray[np.float64], random: np.random.Generator) -> Mixture:
    """Expectation and maximization, from pixels drawn at random."""
    count, size = points.shape
    least = SPREAD * np.eye(size)
    found = Mixture(
        np.full(NORMALS, 1 / NORMALS),
        points[random.choice(count, NORMALS, replace=False)],
        np.array([np.cov(points.T) + least] * NORMALS),
    )
    for _ in range(ROUNDS):
        alone = [
            Mixture(np.ones(1), found.means[k : k + 1], found.covariances[k : k + 1])
            for k in range(NORMALS)
        ]
        logs = np.array([m.log_density(points) for m in alone]) + np.log(found.weights)[:, None]
        shares = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
        sums = shares.sum(axis=1) + 1e-9
        means = shares @ points / sums[:, None]
        covariances = []
        for k in range(NORMALS):
            away = points - means[k]
            covariances.append((shares[k, :, None] * away).T @ away / sums[k] + least)
        found = Mixture(sums / sums.sum(), means, np.array(covariances))
    return found


def fitted(scenes: Mapping[str, NDArray[np.float64]], names: Sequence[str], seed: int) -> Mixture:
    """The mixture of some scenes, each with as many pixels."""
    points = [transformed(scenes[name][:, :FITTED]) for name in names]
    return fit(np.concatenate(points), np.random.default_rng(seed))


def judge(scenes: Mapping[str, NDArray[np.float64]]) -> None:
    """Print how often the order of scenes of other places is doubted, right and wrong."""
    places = sorted({name[:9] for name in scenes})
    part = {place: i % PARTS for i, place in enumerate(places)}
    orders: dict[str, tuple[tuple[str, ...], float]] = {"as they are": (BANDS, 0.0)}
    orders |= {",".join(order): (order, 0.0) for order in MISTAKEN}
    orders |= {f"reflectance {-shift:+g}": (BANDS, shift) for shift in SHIFTS}
    doubted, right = dict.fromkeys(orders, 0), dict.fromkeys(orders, 0)
    for number in range(PARTS):
        others = [name for name in scenes if part[name[:9]] != number]
        found = fitted(scenes, others, number)
        with patch.object(spectra, "mixture", lambda found=found: found):
            for name in sorted(scenes.keys() - others):
                pixels = scenes[name][:, -JUDGED:]
                for text, (order, shift) in orders.items():
                    given = pixels[[BANDS.index(band) for band in order]] - shift
                    other = likelier(given, BANDS)
                    doubted[text] += other is not None
                    right[text] += other is not None and (other.names, other.shift) == (
                        order,
                        shift,
                    )
                    if other is not None and text == "as they are":
                        print(f"{name} is doubted: {other}")
    print(f"{len(scenes)} scenes of {len(places)} places")
    for text in orders:
        print(f"{text:<40} doubted {doubted[text]:>4}, rightly explained {right[text]:>4}")


def as_json(found: Mixture) -> dict[str, Any]:
    """A mixture in five digits."""
    fields = {"weights": found.weights, "means": found.means, "covariances": found.covariances}
    return {"bands": BANDS} | {
        key: np.vectorize(lambda v: float(f"{v:.5g}"))(value).tolist()
        for key, value in fields.items()
    }


def main() -> None:
    """Judge, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    scenes = {Path(path).stem: pixels_of(path, random) for path in arguments.scenes}
    scenes = {name: pixels for name, pixels in scenes.items() if pixels.shape[1] >= 2 * FITTED}
    judge(scenes)
    if arguments.write:
        text = json.dumps(as_json(fitted(scenes, list(scenes), 0)))
        arguments.write.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
