"""A scene that looks cloudy is said before the run, and no other is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import geoseg
from geoseg.prediction.cloud_doubts import cloud_warnings
from geoseg.prediction.cloudy import BANDS, CLOUDY, cloud_share
from geoseg.prediction.dry_run import dry_run
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.scene_clouds import open_with_clouds
from geoseg.prediction.scene_info import scene_info
from tests.helpers import make_raster, tiny_model
from tests.oracles import NumpyRuntime
from tests.stacitems import grid

DATA = Path(__file__).parents[2] / "shared" / "data"
#: Reflectance of blue, green, red, nir, swir1, swir2: clouds, and what is as bright.
CLOUDS = {
    "thick": (0.60, 0.60, 0.60, 0.66, 0.45, 0.35),
    "of ice": (0.70, 0.69, 0.70, 0.72, 0.30, 0.25),
    "over land": (0.35, 0.34, 0.34, 0.42, 0.33, 0.25),
    "thin over woods": (0.20, 0.18, 0.17, 0.26, 0.20, 0.13),
}
GROUND = {
    "fresh snow": (0.85, 0.86, 0.85, 0.80, 0.10, 0.08),
    "old snow": (0.60, 0.62, 0.60, 0.55, 0.12, 0.10),
    "desert": (0.22, 0.32, 0.42, 0.50, 0.58, 0.54),
    "white sand": (0.45, 0.55, 0.62, 0.68, 0.66, 0.55),
    "salt": (0.60, 0.65, 0.68, 0.68, 0.45, 0.35),
    "limestone": (0.30, 0.36, 0.40, 0.45, 0.48, 0.42),
    "white roofs": (0.50, 0.52, 0.52, 0.52, 0.55, 0.50),
    "concrete": (0.28, 0.30, 0.32, 0.34, 0.36, 0.34),
    "woods in haze": (0.11, 0.09, 0.07, 0.30, 0.15, 0.07),
    "water": (0.10, 0.07, 0.05, 0.03, 0.01, 0.01),
    "turbid water": (0.16, 0.17, 0.16, 0.12, 0.03, 0.02),
}
#: Real scenes in which people, or their own index, see clouds that are not masked.
CLOUDED = {
    *("landsat5", "sentinel2", "s2_rockies_t11uns_20250403", "s2_rockies_t11uns_20250423"),
    *("oli_kentucky_lake", "oli_alabama_2015", "s2_mountain_snow_mosaic"),
}


def column(reflectance: tuple[float, ...], count: int = 10) -> NDArray[np.float64]:
    return np.repeat(np.array(reflectance)[:, None], count, axis=1)


@pytest.mark.parametrize("kind", CLOUDS)
def test_clouds_are_seen_and_their_share_is_counted(kind: str) -> None:
    clouds = column(CLOUDS[kind], 3)
    assert cloud_share(clouds) == 1
    assert cloud_share(np.concatenate([clouds, column(GROUND["water"], 9)], axis=1)) == 0.25


@pytest.mark.parametrize("kind", GROUND)
def test_bright_ground_is_no_cloud(kind: str) -> None:
    assert cloud_share(column(GROUND[kind])) == 0


def test_what_is_no_number_of_ground_is_no_cloud() -> None:
    assert cloud_share(np.zeros((6, 0))) == cloud_share(np.zeros((6, 5))) == 0
    assert cloud_share(np.full((6, 5), -0.1)) == 0


class Water(NumpyRuntime):
    """Says one class of everything."""

    def __init__(self) -> None:
        super().__init__(2)

    def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.stack([np.ones_like(pixels[:, 0]), np.zeros_like(pixels[:, 0])], axis=1)


def scene_of(path: Path, kind: tuple[float, ...], share: float) -> Path:
    values = np.repeat(column(GROUND["water"], 80)[:, None] * 1e4, 60, axis=1)
    values[:, : round(60 * share)] = column(kind, 80)[:, None] * 1e4
    return make_raster(
        path, values.astype(np.uint16), transform=grid(10), descriptions=BANDS,
        scales=[1e-4] * 6, offsets=[0] * 6,
    )  # fmt: skip


def warned(events: list[Any]) -> list[str]:
    return [e["message"] for e in events if e["event"] == "warning" and "cloudy" in e["message"]]


def test_a_cloudy_scene_is_said_with_what_to_do(tmp_path: Path) -> None:
    model = tiny_model(
        tmp_path / "model", BANDS, ("a", "b"), size=32, overlap=8, quantity="reflectance"
    )
    scene = scene_of(tmp_path / "scene.tif", CLOUDS["thick"], 0.5)

    def said(name: str, source: Path = scene, **options: Any) -> list[str]:
        events: list[Any] = []
        geoseg.predict(
            source, tmp_path / f"{name}.tif", model=model, runtime=Water(), no_vector=True,
            progress=events.append, **options,
        )  # fmt: skip
        return warned(events)

    (line,) = said("auto")
    assert "at least 50% of the sampled pixels" in line and "\n" not in line
    assert "--clouds FILE" in line and "--clouds none" in line
    # What it says to do works.
    assert not said("none", clouds="none")
    mask = np.zeros((1, 60, 80), np.uint8)
    mask[:, :30] = 1
    file = make_raster(tmp_path / "mask.tif", mask, transform=grid(10))
    assert not said("masked", clouds=file)
    # A dry run and info say it, too.
    events: list[Any] = []
    dry_run(scene, tmp_path / "x.tif", model=model, no_vector=True, progress=events.append)
    assert warned(events) == [line]
    assert line in scene_info(scene, models=[model])["models"][0]["notes"]
    # Where a product has a layer, it is its word that counts.
    plan = make_plan(scene, PredictOptions(model=model, output=tmp_path / "y.tif"))
    assert len(cloud_warnings(plan)) == 1
    layer = open_with_clouds(scene, PredictOptions(clouds=file)).clouds
    known = replace(plan, scene=replace(plan.scene, clouds=layer))
    assert not cloud_warnings(known)
    # Others are not accused.
    for kind in ("fresh snow", "white sand"):
        assert not said(kind, scene_of(tmp_path / f"of {kind}.tif", GROUND[kind], 0.9))


def real_scenes() -> Iterator[tuple[str, NDArray[Any]]]:
    """Names, and reflectance of what was measured."""
    nine, thirteen = (1, 2, 3, 7, 8, 9), (2, 3, 4, 8, 11, 12)
    for folder, bands in (
        ("sentinel2/scenes", nine),
        ("imagery/scenes", nine),
        ("imagery/six", (1, 2, 3, 4, 5, 6)),
        ("labelled/eurosat", thirteen),
    ):
        for path in sorted((DATA / folder).glob("*.tif")):
            with rasterio.open(path) as dataset:
                values = dataset.read(list(bands))
            yield path.stem, values[:, (values != 0).any(axis=0)][:, ::3] / 1e4
    for path in sorted((DATA / "labelled" / "csmask").glob("*.npz")):
        yield path.stem, np.moveaxis(np.load(path)["img"], -1, 0).reshape(6, -1)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real scenes are not here")
def test_of_real_scenes_the_cloudy_ones_are_said_and_no_other() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        shares = {name: cloud_share(values) for name, values in real_scenes()}
    assert len(shares) > 130
    assert {name for name, share in shares.items() if share >= CLOUDY} == CLOUDED
