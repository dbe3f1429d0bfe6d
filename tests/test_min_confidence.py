"""``--min-confidence``: what is not sure has an id of its own, wherever there is a legend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

import geoseg
from geoseg.cards.legend import ClassInfo, not_sure_class
from geoseg.errors import OutputError, UsageError
from geoseg.prediction.decide import decide
from geoseg.prediction.options import PredictOptions
from geoseg.rasters.class_raster import open_class_raster
from tests.helpers import make_raster, tiny_model
from tests.oracles import Identity

UTM = "EPSG:32633"
NOT_SURE = 254
CLASSES = ("water", "trees", "crops")


class Shares(Identity):
    """Probabilities are the pixels, which the scene holds as such."""


def made(folder: Path, shape: tuple[int, int] = (70, 90), seed: int = 0) -> tuple[Path, Path]:
    """A scene of three shares and its model."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet((0.8, 0.8, 0.8), shape).transpose(2, 0, 1).astype(np.float32)
    shares[:, :3, :5] = -9
    scene = make_raster(
        folder / "scene.tif", shares, crs=UTM, nodata=-9,
        transform=Affine(10, 0, 500000, 0, -10, 5000000), descriptions=("red", "green", "blue"),
    )  # fmt: skip
    bands = ("red", "green", "blue")
    return scene, tiny_model(folder / "model", bands, CLASSES, size=32, overlap=8)


def mapped(scene: Path, model: Path, name: str, least: float, **options: Any) -> Any:
    folder = scene.parent / name
    folder.mkdir()
    given = {"confidence": folder / "confidence.tif", "probs": folder / "probs.tif"}
    return geoseg.predict(
        scene, folder / "map.tif", model=model, runtime=Shares(3), clouds="none",
        **{"min_confidence": least, "probs_dtype": "float32", **given, **options},
    )  # fmt: skip


def read(path: str | Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        found: NDArray[Any] = dataset.read(1)
        return found


@pytest.mark.parametrize("least", [0.4, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_what_is_not_sure_is_what_has_less_confidence(
    tmp_path: Path, least: float, dtype: str
) -> None:
    scene, model = made(tmp_path)
    plain = mapped(scene, model, "plain", 0.0, probs_dtype=dtype)
    done = mapped(scene, model, "done", least, probs_dtype=dtype)
    before, after = read(plain.raster), read(done.raster)
    confidence = read(tmp_path / "done" / "confidence.tif")
    doubted, valid = after == NOT_SURE, before != 255
    if dtype == "float32":
        np.testing.assert_array_equal(doubted, valid & (confidence < np.float32(least)))
    else:
        # The raster's half step is all that may lie between.
        assert (confidence[doubted] <= round(least * 254)).all()
        assert (confidence[valid & ~doubted] >= round(least * 254)).all()
    np.testing.assert_array_equal(after[~doubted], before[~doubted])
    for name in ("confidence", "probs"):
        paths = [tmp_path / folder / f"{name}.tif" for folder in ("plain", "done")]
        np.testing.assert_array_equal(*(read(path) for path in paths))
    assert done.report["not_sure"] == {
        "min_confidence": least, "id": NOT_SURE, "pixels": doubted.sum(),
        "share": doubted.sum() / valid.sum(),
    }  # fmt: skip
    *others, last = done.report["classes"]
    assert last["name"] == "not sure" and last["pixels"] == doubted.sum() > 0
    for entry in others:
        assert entry["pixels"] == (after == entry["id"]).sum()
    assert plain.report["not_sure"] is None and len(plain.report["classes"]) == 3


def test_the_same_in_numbers_of_32_bits() -> None:
    """0.7 is no binary fraction: a probability that is the nearest one to it is not below it."""
    probs = np.float32([0.7, 0.3])[:, None, None]
    legend = np.arange(2, dtype=np.uint8)
    found = decide(probs, np.ones((1, 1), bool), legend, 255, (0.7, NOT_SURE))
    assert found.ids.tolist() == [[0]] and found.counts.tolist() == [1, 0, 0]
    found = decide(probs, np.ones((1, 1), bool), legend, 255, (0.71, NOT_SURE))
    assert found.ids.tolist() == [[NOT_SURE]] and found.counts.tolist() == [0, 0, 1]


def test_0_is_none(tmp_path: Path) -> None:
    scene, model = made(tmp_path)
    bytes_ = []
    for name, given in (("a", {}), ("b", {"min_confidence": 0}), ("c", {"min_confidence": 0.0})):
        out = tmp_path / f"{name}.tif"
        geoseg.predict(scene, out, model=model, runtime=Shares(3), no_vector=True, **given)
        bytes_.append(out.read_bytes())
    assert len(set(bytes_)) == 1


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_probability_is_0_to_1(wrong: float) -> None:
    with pytest.raises(UsageError, match=r"min confidence is .*0 to 1"):
        PredictOptions(min_confidence=wrong)


def test_a_part_and_a_stopped_run(tmp_path: Path) -> None:
    scene, model = made(tmp_path, (160, 90))
    whole = read(mapped(scene, model, "whole", 0.6, no_vector=True).raster)
    box = (500200, 4999500, 500700, 4999800)
    part = read(mapped(scene, model, "part", 0.6, no_vector=True, bbox=box).raster)
    np.testing.assert_array_equal(part, whole[20:50, 20:70])

    class Stops(Shares):
        def answer(self, pixels: NDArray[Any]) -> NDArray[Any]:
            if len(self.batches) > 20:
                raise KeyboardInterrupt
            return super().answer(pixels)

    def run(runtime: Any, **given: Any) -> Any:
        return geoseg.predict(
            scene, tmp_path / "x.tif", model=model, runtime=runtime, no_vector=True, **given
        )

    with pytest.raises(KeyboardInterrupt):
        run(Stops(3), min_confidence=0.6)
    with pytest.raises(OutputError, match=r"min_confidence was 0.6.*--restart"):
        run(Shares(3), min_confidence=0.5)
    again = Shares(3)
    np.testing.assert_array_equal(read(run(again, min_confidence=0.6).raster), whole)
    assert 0 < len(again.batches) < 28  # it went on


def test_legends_know_it(tmp_path: Path) -> None:
    scene, model = made(tmp_path)
    done = mapped(scene, model, "done", 0.6, preview=tmp_path / "preview.png")
    with open_class_raster(done.raster) as raster:
        assert raster.legend == {**dict(enumerate(CLASSES)), NOT_SURE: "not sure"}
        assert raster.not_sure == NOT_SURE
        assert raster.dataset.colormap(1)[NOT_SURE] == (0x5A, 0x5A, 0x5A, 255)
        assert raster.dataset.nodata == 255
    with rasterio.open(tmp_path / "done" / "probs.tif") as dataset:
        assert json.loads(dataset.tags()["GEOSEG_CLASSES"]) == {
            str(i): c for i, c in enumerate(CLASSES)
        }
        assert "GEOSEG_NOT_SURE" not in dataset.tags()
    assert 'value="254"' in done.raster.with_suffix(".qml").read_text()
    rows = geopandas.read_file(done.vector, layer="landcover")
    unsure = rows[rows["class_name"] == "not sure"]
    assert unsure["pixels"].sum() == done.report["not_sure"]["pixels"]
    assert (unsure["class_id"] == NOT_SURE).all() and (unsure["confidence"] < 0.6).all()
    # The likeliest class is what such a polygon may be.
    assert set(unsure["runner_up"]) == set(CLASSES)
    assert "not sure" not in set(rows["runner_up"])


@pytest.mark.parametrize("with_model", [False, True])
def test_vectorize_makes_the_same_polygons(tmp_path: Path, with_model: bool) -> None:
    scene, model = made(tmp_path)
    done = mapped(scene, model, "done", 0.6)
    again = tmp_path / "again.gpkg"
    geoseg.vectorize(
        done.raster, again, confidence=tmp_path / "done" / "confidence.tif",
        probs=tmp_path / "done" / "probs.tif", **({"model": model} if with_model else {}),
    )  # fmt: skip
    first, second = (geopandas.read_file(path) for path in (done.vector, again))
    columns = ["class_id", "class_name", "pixels", "runner_up", "geometry"]
    assert first[columns].equals(second[columns])


def test_labels_are_counted_apart_where_the_map_is_not_sure(tmp_path: Path) -> None:
    scene, model = made(tmp_path)
    done = mapped(scene, model, "done", 0.6, no_vector=True)
    ids = read(done.raster)
    labels = np.random.default_rng(1).integers(0, 3, ids.shape).astype(np.uint8)
    with rasterio.open(scene) as dataset:
        where = dataset.transform
    file = make_raster(tmp_path / "labels.tif", labels[None], crs=UTM, transform=where)
    found = geoseg.evaluate(done.raster, labels=file, probs=tmp_path / "done" / "probs.tif")
    sure = ids < 3
    assert found.report["counted"]["pixels"] == sure.sum()
    assert found.report["counted"]["not_sure"] == (ids == NOT_SURE).sum() > 0
    assert found.report["counted"]["on_nodata"] == 15
    assert [c["name"] for c in found.report["classes"]] == list(CLASSES)
    right = (labels == ids)[sure].mean()
    assert found.report["measures"]["pixel_accuracy"] == pytest.approx(right)
    assert any("not sure of" in w and "counted apart" in w for w in found.warnings)


def test_points_are_counted_apart_too(tmp_path: Path) -> None:
    scene, model = made(tmp_path)
    done = mapped(scene, model, "done", 0.6, no_vector=True)
    drawn = geoseg.sample(done.raster, count=60, seed=1).points
    assert "not sure" not in set(drawn["class_name"])
    rows, cols = np.nonzero(read(done.raster) == NOT_SURE)
    extra = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(500005 + 10 * cols[:7], 4999995 - 10 * rows[:7]), crs=UTM
    )
    points = geopandas.GeoDataFrame(
        {"reference": [*drawn["class_name"], *["water"] * 7]},
        geometry=[*drawn.geometry, *extra.geometry], crs=UTM,
    )  # fmt: skip
    points.to_file(tmp_path / "points.gpkg")
    found = geoseg.evaluate(done.raster, points=tmp_path / "points.gpkg")
    assert found.report["counted"]["not_sure"] == 7
    assert found.report["counted"]["on_nodata"] == 0
    assert found.report["overall_accuracy"]["value"] == pytest.approx(1)
    assert any("not sure at 7 labelled points" in w for w in found.warnings)


def test_maps_of_a_mosaic_are_all_so_or_none(tmp_path: Path) -> None:
    scene, model = made(tmp_path)
    one, two = (mapped(scene, model, name, 0.6, no_vector=True) for name in ("one", "two"))
    plain = mapped(scene, model, "plain", 0.0, no_vector=True)
    geoseg.mosaic([one.raster, two.raster], tmp_path / "mosaic.tif", top="first")
    with open_class_raster(tmp_path / "mosaic.tif") as raster:
        assert raster.not_sure == NOT_SURE
    np.testing.assert_array_equal(read(tmp_path / "mosaic.tif"), read(one.raster))
    with pytest.raises(UsageError, match=r"and all with --min-confidence or none"):
        geoseg.mosaic([one.raster, plain.raster], tmp_path / "other.tif", top="first")


def test_an_id_must_be_free() -> None:
    every = [ClassInfo(i, f"c{i}", "#000000") for i in range(255)]
    assert not_sure_class([c for c in every if c.id != 7]).id == 7
    with pytest.raises(UsageError, match="none is left for what is not sure"):
        not_sure_class(every)
