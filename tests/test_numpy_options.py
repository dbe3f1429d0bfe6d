"""Options that come out of numpy, as they do in a notebook, are those of Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geoseg
from geoseg.training.augment_options import Augmentation
from geoseg.training.make_recipe import make_recipe
from geoseg.training.options import TrainOptions
from geoseg.training.recipe_file import dump_config, load_config
from geoseg.training.split import SplitConfig
from tests.helpers import make_raster
from tests.trainhelpers import tiny_recipe, write_scene


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    ids = np.random.default_rng(0).integers(0, 3, (1, 10, 10)).repeat(6, 1).repeat(6, 2)
    make_raster(folder / "map.tif", ids.astype(np.uint8), nodata=255)
    make_raster(folder / "labels.tif", ids.astype(np.uint8))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"count": np.int64(30), "seed": np.uint8(1), "allocation": np.str_("equal")},
        {"target_se": np.float32(0.1), "expected": np.float32(0.8), "blind": np.bool_(True)},
        {"count": np.int16(30), "allocation": "olofsson", "min_per_class": np.int32(5)},
        {"target_se": 0.1, "expected": {np.int64(k): np.float64(0.8) for k in range(3)}},
    ],
)
def test_sample(place: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    drawn = geoseg.sample(place / "map.tif", tmp_path / "p.gpkg", **options)
    plain = {
        k: {str(a): float(b) for a, b in v.items()} if isinstance(v, dict) else np.array(v).item()
        for k, v in options.items()
    }
    same = geoseg.sample(place / "map.tif", tmp_path / "q.gpkg", **plain)
    assert len(drawn.points) == len(same.points)
    assert drawn.points.geometry.equals(same.points.geometry)


@pytest.mark.parametrize(
    "options",
    [
        {"min_area": np.float32(500), "simplify": np.float64(5), "smooth": np.int64(1)},
        {"min_area": {np.int64(1): np.int32(500)}, "min_hole": np.int64(500)},
        {"sieve": np.uint16(4), "connectivity": np.int64(8), "threads": np.int64(1)},
        {"only": [np.int64(1), np.int32(2)], "merge": {np.uint8(0): np.uint8(1)}},
        {"most": np.float64(np.inf)},
    ],
)
def test_vectorize(place: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {plain(k): plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list) else value.item()

    made = geoseg.vectorize(place / "map.tif", tmp_path / "a.gpkg", **options)
    same = geoseg.vectorize(
        place / "map.tif", tmp_path / "b.gpkg", **{k: plain(v) for k, v in options.items()}
    )
    assert made.polygons == same.polygons
    assert json.dumps(made.polygons)


def test_mosaic(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (1, 30, 30)).astype(np.uint8)
    legend = {"GEOSEG_CLASSES": '{"0": "a", "1": "b", "2": "c"}'}
    make_raster(tmp_path / "map.tif", ids, nodata=255, tags=legend)
    options = {"res": np.float32(5), "min_area": np.int64(500), "simplify": np.float32(5)}
    bbox = np.array([500000, 4999800, 500200, 5000000], np.int64)
    made = geoseg.mosaic(
        tmp_path / "map.tif", tmp_path / "m.tif", top="first", bbox=bbox, **options
    )
    assert json.loads(json.dumps(made.report)) == json.loads((tmp_path / "m.json").read_text())
    assert made.report["grid"]["width"] == 40


def test_evaluate(place: Path, tmp_path: Path) -> None:
    done = geoseg.evaluate(
        place / "map.tif",
        labels=place / "labels.tif",
        ignore=[np.int64(2)],
        boundary_tolerance=np.float32(10),
        json=tmp_path / "r.json",
        csv=tmp_path / "r.csv",
        html=tmp_path / "r.html",
    )
    assert json.loads(json.dumps(done.report)) == json.loads((tmp_path / "r.json").read_text())


NUMBERS: dict[str, Any] = {
    "steps": np.int64(2),
    "batch": np.int32(2),
    "chip": np.uint8(16),
    "learning_rate": np.float32(1e-3),
    "seed": np.int64(3),
}


def test_a_recipe_from_options(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, 0)
    data = {"images": [scene.path], "labels": [scene.labels[0]], "bands": "1,2,3"}
    more = {"scale": np.float32(1e-4), "offset": np.int64(0), "src_nodata": np.uint16(0)}
    more |= {"block": np.int64(32), "margin": np.int64(6)}
    made = make_recipe(TrainOptions(**data, **NUMBERS, **more), tmp_path / "model")
    plain = {k: v.item() for k, v in {**NUMBERS, **more}.items()}
    assert repr(made) == repr(make_recipe(TrainOptions(**data, **plain), tmp_path / "model"))
    (tmp_path / "recipe.json").write_text(dump_config(made), encoding="utf-8")
    assert load_config(tmp_path / "recipe.json") == made


def test_a_recipe_made_in_python_trains(tmp_path: Path) -> None:
    numbers = {**NUMBERS, "clip": (np.float32(0), np.float32(1)), "every": np.int64(1)}
    numbers["inference"] = {"size": np.int64(64), "overlap": np.int64(16)}
    numbers["augmentation"] = Augmentation(gain=np.float32(0.5), zoom=(np.float64(1), np.int64(2)))
    numbers["split"] = SplitConfig(
        "blocks", folds=np.int64(3), fold=np.uint8(1), block=np.int64(32)
    )
    recipe = tiny_recipe(tmp_path, **numbers)
    assert "np." not in repr(recipe)  # which a checkpoint is bound to
    assert type(recipe.steps) is int and type(recipe.learning_rate) is float
    card = geoseg.train(recipe, tmp_path / "model", device="cpu", threads=np.int64(1))
    assert json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert card.size == 64


def test_a_recipe_keeps_nan_as_nodata(tmp_path: Path) -> None:
    """JSON has no NaN."""
    recipe = tiny_recipe(tmp_path)
    for value in (float("nan"), float("inf"), -9999.0, None):
        from dataclasses import replace

        scene = replace(recipe.scenes[0], src_nodata=value)
        text = dump_config(replace(recipe, scenes=(scene,)))
        json.loads(text, parse_constant=lambda word: pytest.fail(word))
        (tmp_path / "r.json").write_text(text, encoding="utf-8")
        assert repr(load_config(tmp_path / "r.json").scenes[0].src_nodata) == repr(value)
