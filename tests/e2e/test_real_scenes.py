"""Real scenes with the imported Dynamic World network and the embedded model."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

import geoseg
from geoseg.errors import RadiometryError
from geoseg.networks import import_model, load_network
from geoseg.networks.normalize import normalize
from geoseg.prediction.chips import chip_rows
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.preflight import preflight
from tests.test_doubts import CLOUDY

SCENES = {
    "majortom": "data/sentinel2/majortom/S2*",
    "ssl4eo-l1c": "data/sentinel2/ssl4eo/L1C/2*",
    "ssl4eo-l2a": "data/sentinel2/ssl4eo/L2A/2*",
}
#: Px from an end within which the Dynamic World network's answers depend on what lies beyond it.
BORDER = 21
WATER, TREES, CROPS = 0, 1, 4


@pytest.fixture(scope="module")
def dynamicworld(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "dynamicworld"
    import_model(shared / "models/dynamicworld", folder)
    return folder


def find(shared, name):
    (path,) = shared.glob(SCENES[name])
    return path


#: Nothing in these folders tells it: one is of baseline N9999, the others are named by their date.
TOLD = {"scale": 1e-4, "offset": 0.0}


def part_of(name, scene):
    """Options: what the numbers mean, and a seventh of the large scene, several chips each way."""
    if name != "majortom":
        return TOLD
    transform = geoseg.open_scene(scene).grid.transform
    (west, north), (east, south) = transform @ (200, 200), transform @ (580, 580)
    return {**TOLD, "bbox": (west, south, east, north)}


def whole_image(scene, model, part):
    """Labels and top-two margins of one forward pass over the whole scene, past geoseg's line."""
    options = PredictOptions(model=model, output="unused.tif", no_vector=True, **part)
    plan = make_plan(scene, options)
    # One chip of all the ground, in phase.
    grid = replace(plan.chips.of_all, size=10**6, overlap=0, margin=0, border=None)
    with plan.ground_reader() as reader:
        (row,) = chip_rows(reader, grid)
    assert row.valid.all()
    gain = torch.tensor(plan.radiometry.gain).view(1, -1, 1, 1)
    bias = torch.tensor(plan.radiometry.bias).view(1, -1, 1, 1)
    x = torch.from_numpy(row.chip(row.windows[0])[None].astype(np.float32)) * gain + bias
    with torch.inference_mode():
        network = load_network(geoseg.load_model(model))
        probs = network(normalize(x, plan.card.normalization)).softmax(1)[0].numpy()
    top, left = plan.chips.row - grid.row, plan.chips.col - grid.col
    top, left = top - row.windows[0].row, left - row.windows[0].col
    probs = probs[:, top : top + plan.grid.height, left : left + plan.grid.width]
    top = np.sort(probs, axis=0)
    return probs.argmax(axis=0), top[-1] - top[-2]


@pytest.mark.parametrize("name", SCENES)
def test_real_bands_without_a_baseline_are_refused(shared, name):
    wanted = "--scale 0.0001 --offset -0.1 if .*else --scale 0.0001 --offset 0"
    with pytest.raises(RadiometryError, match=wanted):
        make_plan(find(shared, name), PredictOptions(model="landcover-ms", no_vector=True))


@pytest.mark.slow
def test_no_real_scene_is_accused_and_an_offset_left_in_is_noticed_in_most(shared):
    """Bright deserts and snow have no dark pixel by which it could be."""
    found, noticed = 0, 0
    for folder, bands in (
        ("sentinel2/scenes", "1,2,3,7,8,9"),
        ("imagery/scenes", "1,2,3,7,8,9"),
        ("imagery/six", "1,2,3,4,5,6"),
    ):
        given = {"model": "landcover-ms", "no_vector": True, "bands": bands, "scale": 1e-4}
        for path in sorted((shared / "data" / folder).glob("*.tif")):
            plan = make_plan(path, PredictOptions(offset=0.0, **given))
            cloudy = path.name in CLOUDY
            assert len(preflight(plan)) == cloudy, path.name
            found += 1
            left_in = make_plan(path, PredictOptions(offset=0.1, **given))
            noticed += any("--scale 0.0001 --offset 0" in line for line in preflight(left_in))
    assert noticed > 0.6 * found > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_tiled_labels_equal_the_whole_images(shared, dynamicworld, tmp_path, name):
    scene = find(shared, name)
    part = part_of(name, scene)
    labels, margin = whole_image(scene, dynamicworld, part)
    # On the large scene comparing runtimes takes as long as the map.
    fixed = {"runtime": "openvino", "precision": "fp32"} if name == "majortom" else {}
    for size in (256,) if name == "majortom" else (128, 256, 512):
        result = geoseg.predict(
            scene,
            tmp_path / f"{size}.tif",
            model=dynamicworld,
            size=size,
            no_vector=True,
            **part,
            **fixed,
        )
        with rasterio.open(result.raster) as dataset:
            out = dataset.read(1)
        sure = margin > 1e-3
        assert sure.mean() > 0.98
        if "bbox" not in part:  # beside a scene's ends it matters how it is continued; see docs
            ends = np.ones_like(sure)
            ends[BORDER:-BORDER, BORDER:-BORDER] = False
            sure &= ~ends
        np.testing.assert_array_equal(out[sure], labels[sure])
        assert result.report["warnings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_the_embedded_model_runs_and_agrees_with_its_teacher(shared, dynamicworld, tmp_path, name):
    scene = find(shared, name)
    part = part_of(name, scene)
    given = {"model": dynamicworld, "no_vector": True, **part}
    if name == "majortom":  # which is large: comparing runtimes on it takes as long as the map
        given |= {"runtime": "openvino", "precision": "fp32"}
    ours = geoseg.predict(scene, tmp_path / "ours.tif", **part)
    teacher = geoseg.predict(scene, tmp_path / "teacher.tif", **given)
    assert ours.report["warnings"] == []
    with rasterio.open(ours.raster) as a, rasterio.open(teacher.raster) as b:
        student, taught = a.read(1), b.read(1)
    assert (student == 255).sum() == 0
    # Water is water: most of what the teacher calls water, and not much else. (On a black burnt
    # plain, of which the teacher takes a part for water, they differ.)
    if (taught == WATER).mean() > 0.01:
        both = ((student == WATER) & (taught == WATER)).sum()
        assert both / (taught == WATER).sum() > 0.6
        assert both / (student == WATER).sum() > 0.55
    assert (student == taught).mean() > 0.4


@pytest.mark.slow
def test_fields_are_crops_in_the_l1c_scene(shared, dynamicworld, tmp_path):
    for model in (dynamicworld, "landcover-ms"):
        report = geoseg.predict(
            find(shared, "ssl4eo-l1c"),
            tmp_path / "x.tif",
            model=model,
            no_vector=True,
            overwrite=True,
            **TOLD,
        ).report
        shares = {c["name"]: c["share"] for c in report["classes"]}
        assert shares["crops"] > 0.5
        assert shares["snow_and_ice"] < 0.01
