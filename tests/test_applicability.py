"""What a card says of the ground that taught a model: ``--applicability``, and one warning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

import geoseg
from geoseg.cards.files import card_text, read_model, write_card
from geoseg.cards.stac import from_mlm
from geoseg.cards.taught import LEVELS, UNLIKE, TaughtGround, taught_ground
from geoseg.errors import ModelError, UsageError
from geoseg.prediction import later_raster
from tests.helpers import make_raster, tiny_model
from tests.oracles import Identity

UTM = "EPSG:32633"
BANDS = ("red", "green", "blue")


def ground(seed: int, centre: float = 0.0, pixels: int = 4000) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    mixed = np.array([[1, 0.5, 0.2], [0, 1, 0.5], [0, 0, 1]])
    return mixed @ rng.normal(0, 1, (3, pixels)) + centre


def learned(*seeds: int) -> TaughtGround:
    found = taught_ground([ground(seed, 20 * seed) for seed in seeds], "number")
    assert found is not None
    return found


def test_taught_pixels_are_as_strange_as_their_share_says() -> None:
    found = learned(0, 1)
    fresh = found.applicability(ground(9, 20.0), "number")
    for share in (0.5, 0.25, 0.1, 0.02):
        assert (fresh < share).mean() == pytest.approx(share, abs=0.4 * share + 0.01)
    # Between the two clouds nothing was taught, nor beyond.
    for far in (10.0, -15.0, 60.0, 1e6):
        assert (found.applicability(ground(3, far), "number") < UNLIKE).mean() > 0.97


def test_reflectance_is_compared_by_its_logarithm() -> None:
    rng = np.random.default_rng(0)
    taught = np.exp(rng.normal(0, 0.3, (3, 5000))) * np.array([[0.03], [0.05], [0.3]])
    found = taught_ground([taught], "reflectance")
    assert found is not None
    assert (found.applicability(taught, "reflectance") < UNLIKE).mean() < 0.03
    assert (found.applicability(taught[::-1], "reflectance") < UNLIKE).mean() > 0.95
    # A number below what a logarithm has is strange and no NaN.
    assert found.applicability(np.full((3, 1), -9.0), "reflectance").tolist() == [0.0]


def test_it_is_the_same_each_time_and_travels_in_the_card(tmp_path: Path) -> None:
    found = learned(0, 1, 2)
    assert learned(0, 1, 2) == found != learned(0, 1)
    card = replace(read_model(tiny_model(tmp_path / "model", BANDS, "ab")).card, taught=found)
    again = from_mlm(json.loads(card_text(card)))
    assert again == card and again.taught == found and found.scenes == 3
    values = ground(5)
    np.testing.assert_array_equal(
        again.taught.applicability(values, "number"), found.applicability(values, "number")
    )
    assert taught_ground([np.zeros((3, 5))], "number") is None
    flat = taught_ground([np.ones((3, 500))], "number")  # one number: no cluster has a spread
    assert flat is not None and np.isfinite(flat.applicability(ground(0), "number")).all()


@pytest.mark.parametrize("fault", ["shape", "order", "number", "cov", "bands"])
def test_a_card_that_is_wrong_is_refused(tmp_path: Path, fault: str) -> None:
    card = replace(read_model(tiny_model(tmp_path / "model", BANDS, "ab")).card, taught=learned(0))
    item = json.loads(card_text(card))
    taught = item["properties"]["geoseg:taught"]
    if fault == "shape":
        taught["distances"] = taught["distances"][:-1]
    elif fault == "order":
        taught["distances"][3] = 1e9
    elif fault == "number":
        taught["means"][0][0] = None
    elif fault == "cov":
        taught["covariances"][0] = (-np.eye(3)).tolist()
    else:
        taught["means"] = [m[:2] for m in taught["means"]]
        taught["covariances"] = [[r[:2] for r in c[:2]] for c in taught["covariances"]]
    with pytest.raises(ModelError, match="geoseg:taught"):
        from_mlm(item)


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    folder = tiny_model(tmp_path / "model", BANDS, ("a", "b", "c"), size=32, overlap=8)
    write_card(replace(read_model(folder).card, taught=learned(0)), folder)
    return folder


def scene(folder: Path, strange: float, name: str = "scene") -> tuple[Path, NDArray[np.float32]]:
    """Of 600 rows, of which the lower part is strange."""
    values = ground(7, 0.0, 600 * 40).reshape(3, 600, 40).astype(np.float32)
    values[:, round(600 * (1 - strange)) :] += 30
    values[:, 3:6, 2:9] = -999
    path = folder / f"{name}.tif"
    make_raster(
        path, values, crs=UTM, nodata=-999, descriptions=BANDS,
        transform=Affine(10, 0, 500000, 0, -10, 5000000),
    )  # fmt: skip
    return path, values


def mapped(path: Path, model: Path, name: str, **options: Any) -> tuple[Any, NDArray[Any]]:
    folder = path.parent / name
    folder.mkdir(exist_ok=True)
    out = folder / "applicability.tif"
    done = geoseg.predict(
        path, folder / "map.tif", model=model, applicability=out, no_vector=True,
        **{"runtime": Identity(3), "probs_dtype": "float32", **options},
    )  # fmt: skip
    with rasterio.open(out) as dataset:
        return done, dataset.read(1)


def test_the_raster_holds_what_the_card_says_of_each_pixel(tmp_path: Path, model: Path) -> None:
    path, values = scene(tmp_path, 0.3)
    done, found = mapped(path, model, "whole")
    taught = read_model(model).card.taught
    assert taught is not None
    wanted = taught.applicability(values.reshape(3, -1), "number").reshape(found.shape)
    wanted[3:6, 2:9] = np.nan
    np.testing.assert_array_equal(found, wanted)
    assert done.report["outputs"]["applicability"].endswith("applicability.tif")
    _, bytes_ = mapped(path, model, "bytes", probs_dtype="uint8")
    np.testing.assert_array_equal(
        bytes_, np.where(np.isnan(wanted), 255, np.rint(np.nan_to_num(wanted) * 254))
    )
    with rasterio.open(tmp_path / "bytes" / "applicability.tif") as dataset:
        assert dataset.scales == (1 / 254,) and dataset.nodata == 255
        assert dataset.descriptions == ("applicability",)
    # A part of it is a part of it.
    box = (500050, 4994500, 500300, 4999950)
    _, part = mapped(path, model, "part", bbox=box)
    np.testing.assert_array_equal(part, found[5:550, 5:30])
    # And the map is as it is without.
    plain = geoseg.predict(
        path, tmp_path / "plain.tif", model=model, runtime=Identity(3), no_vector=True
    )
    with rasterio.open(plain.raster) as a, rasterio.open(done.raster) as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_a_stopped_run_makes_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = scene(tmp_path, 0.3)
    _, whole = mapped(path, model, "whole")
    real, calls = TaughtGround.applicability, []

    def stops(self: TaughtGround, values: NDArray[Any], quantity: str) -> NDArray[np.float32]:
        calls.append(values.shape[1])
        if len(calls) == 3:  # of the survey, of a strip, of the next one
            raise KeyboardInterrupt
        return real(self, values, quantity)

    monkeypatch.setattr(TaughtGround, "applicability", stops)
    with pytest.raises(KeyboardInterrupt):
        mapped(path, model, "again")
    monkeypatch.undo()
    done: list[int] = []
    monkeypatch.setattr(
        TaughtGround, "applicability",
        lambda self, v, q: (done.append(v.shape[1]), real(self, v, q))[1],
    )  # fmt: skip
    _, found = mapped(path, model, "again")
    np.testing.assert_array_equal(found, whole)
    assert done[-1] == 88 * 40 and len(done) == 2  # the survey, and the strip that was missing


@pytest.mark.parametrize(("strange", "says"), [(0.0, False), (0.4, False), (0.6, True)])
def test_it_is_said_where_most_of_a_scene_is_strange(
    tmp_path: Path, model: Path, strange: float, says: bool
) -> None:
    path, _ = scene(tmp_path, strange)
    done, _ = mapped(path, model, "whole")
    lines = [w for w in done.report["warnings"] if "looks like nothing" in w]
    assert len(lines) == says
    if says:
        share = int(lines[0].split("%")[0])
        assert share == pytest.approx(100 * strange, abs=4)
        assert "--applicability FILE shows where" in lines[0]


def test_without_the_cards_word_it_is_refused(tmp_path: Path, model: Path) -> None:
    path, _ = scene(tmp_path, 0.9)
    write_card(replace(read_model(model).card, taught=None), model)
    with pytest.raises(UsageError, match="the card of model does not say; geoseg models taught"):
        mapped(path, model, "whole")
    plain = geoseg.predict(
        path, tmp_path / "plain.tif", model=model, runtime=Identity(3), no_vector=True
    )
    assert not [w for w in plain.report["warnings"] if "looks like nothing" in w]


def test_levels_begin_with_all_and_end_with_none() -> None:
    assert LEVELS[0] == 0 and LEVELS[-1] == 1 and 1 - UNLIKE in LEVELS


def test_strips_and_lanes_change_nothing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = scene(tmp_path, 0.3)
    mapped(path, model, "a")
    monkeypatch.setattr(later_raster, "STRIP", 48)
    monkeypatch.setattr(later_raster, "LANE", 16)
    mapped(path, model, "b")
    a, b = (tmp_path / name / "applicability.tif" for name in "ab")
    assert a.read_bytes() == b.read_bytes()
