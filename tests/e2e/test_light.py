"""How steady an embedded model's labels are where light changes and the ground does not."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from geoseg.runtimes import checked, load_runtime
from geoseg.scene.radiometry import Radiometry
from geoseg.zoo import find_model

#: Model -> the largest share of labels that may change, on the mean of the scenes. What is learned
#: under a recipe's ``invariance`` shall stay below 0.05; the first edition was not, and is held to
#: what it was measured at.
LIMITS = {"landcover-ms": 0.16}
#: Woods, savanna, farmland, a floodplain, a northern summer.
SCENES = (
    "sentinel2/scenes/terramesh_282D_l2a.tif",
    "sentinel2/scenes/s2100k_566084.tif",
    "sentinel2/scenes/dsen2_T33UUB.tif",
    "sentinel2/scenes/s1floods_india.tif",
    "imagery/scenes/biomassters_finland_10jul.tif",
)
NINE = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "swir1", "swir2")
SIDE = 192
#: From the middle to the rim, as ground that is seen under other angles.
RAMP = (1 + 0.1 * np.linspace(-1, 1, SIDE)).astype(np.float32)
CHANGES = {
    "15 % more": lambda x: x * np.float32(1.15),
    "15 % less": lambda x: x * np.float32(0.85),
    "0.01 more": lambda x: x + np.float32(0.01),
    "0.01 less": lambda x: np.maximum(x - np.float32(0.01), 0),
    "a slope": lambda x: x * RAMP,
}


@pytest.mark.parametrize("name", LIMITS)
def test_other_light_leaves_the_labels(shared, name):
    card = find_model(name).card
    bands = [NINE.index(band) + 1 for band in card.bands]
    runtime = load_runtime(
        find_model(name),
        Radiometry((1.0,) * len(bands), (0.0,) * len(bands), "the test"),
        precision="fp32",
        threads=1,
        sample=lambda: [np.zeros((len(bands), SIDE, SIDE), np.float32)],
        chips=30,
    )

    def labels(x: np.ndarray) -> np.ndarray:
        return runtime.to_numpy(checked.probs(runtime, x[None]))[0].argmax(axis=0)

    changed: dict[str, list[float]] = {change: [] for change in CHANGES}
    for scene in SCENES:
        with rasterio.open(shared / "data" / scene) as dataset:
            x = dataset.read(bands, window=((0, SIDE), (0, SIDE))).astype(np.float32) * 1e-4
        before = labels(x)
        for change, apply in CHANGES.items():
            changed[change].append(float((labels(apply(x)) != before).mean()))
    means = {change: float(np.mean(shares)) for change, shares in changed.items()}
    assert max(means.values()) <= LIMITS[name], means
    # The changes are changes: a model that gave one label everywhere would pass all this.
    assert max(means.values()) > 0
