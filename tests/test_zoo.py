"""The embedded models, and which of them a scene gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

import geoseg
from geoseg import zoo
from geoseg.errors import BandError
from geoseg.networks import load_network
from geoseg.scene.opening import open_scene
from geoseg.zoo import choose_model, find_model, list_embedded, list_maps
from tests.helpers import make_raster, tiny_model

SIX = ["blue", "green", "red", "nir", "swir1", "swir2"]


def scene(folder: Path, bands: list[str], gsd: float, **how: Any) -> Path:
    values = np.full((len(bands), 8, 8), 100, np.uint8)
    transform = Affine(gsd, 0, 500000, 0, -gsd, 5000000)
    where = {"crs": "EPSG:32633", "transform": transform, **how}
    return make_raster(folder / f"s{gsd}.tif", values, descriptions=bands, **where)


@pytest.mark.extra("torch")
@pytest.mark.parametrize("name", list_embedded())
def test_an_embedded_model_is_whole_and_small(name: str) -> None:
    files = find_model(name)
    assert files.card.name == name
    load_network(files)
    assert len(files.weights) < 20_000_000
    assert files.card.license == "Apache-2.0"
    assert files.card.provenance
    assert files.card.scores
    assert (Path(zoo.__file__).parents[2] / "configs" / f"{name}.toml").is_file()


@pytest.mark.parametrize(
    ("bands", "gsd", "model"),
    [
        (SIX, 10.0, "landcover-ms"),
        (SIX, 28.5, "landcover-ms"),
        (["red", "green", "blue"], 0.5, "landcover-aerial"),
        (["red", "green", "blue", "nir"], 1.0, "landcover-aerial"),
        # Both have their bands; the gsd decides.
        (SIX, 0.5, "landcover-aerial"),
        (SIX, 5.0, "landcover-ms"),
    ],
)
def test_bands_and_gsd_choose_the_model(
    bands: list[str], gsd: float, model: str, tmp_path: Path
) -> None:
    files, why = choose_model(open_scene(scene(tmp_path, bands, gsd)))
    assert files.card.name == model
    assert all(band in why for band in files.card.bands)
    assert f"{gsd:g} m" in why


def test_a_scene_without_a_place_is_chosen_for_by_its_bands(tmp_path: Path) -> None:
    path = scene(tmp_path, SIX, 1.0, crs=None)
    files, why = choose_model(open_scene(path))
    assert files.card.name == "landcover-ms"
    assert "unknown" in why


def test_what_no_embedded_model_takes_is_explained(tmp_path: Path) -> None:
    path = scene(tmp_path, ["nir", "red"], 10.0)
    with pytest.raises(BandError, match="no embedded model takes this scene") as caught:
        choose_model(open_scene(path))
    for name in list_maps():
        assert name in str(caught.value)


def test_predict_says_which_and_why(tmp_path: Path) -> None:
    path = scene(tmp_path, ["red", "green", "blue"], 0.5)
    report = geoseg.predict(path, tmp_path / "map.tif", no_vector=True).report
    assert report["model"]["name"] == "landcover-aerial"
    assert "red, green, blue" in report["model"]["chosen"]
    asked = tiny_model(tmp_path / "tiny", ["red", "green", "blue"], ["a", "b"])
    report = geoseg.predict(path, tmp_path / "b.tif", model=asked, no_vector=True).report
    assert report["model"]["chosen"] == "asked for"
