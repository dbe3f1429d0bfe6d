"""A chip's target: a teacher's views, labels that are sets, light that changes no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch

from geoseg.errors import GeosegError, TrainingError
from geoseg.training.augment import change_light
from geoseg.training.augment_options import Augmentation
from geoseg.training.chips import ChipSource
from geoseg.training.derived_bands import derive_bands
from geoseg.training.recipe import TrainConfig
from geoseg.training.run import train
from geoseg.training.scene_config import SceneConfig
from geoseg.training.scenes import load_scene
from geoseg.training.split import SplitConfig
from geoseg.training.targets import UNKNOWN
from geoseg.training.teacher import MOST_VIEWS, Teacher, load_teacher, view_of
from tests.helpers import make_raster
from tests.trainhelpers import (
    BANDS,
    IDS,
    draw_classes,
    scene_of,
    tiny_recipe,
    write_scene,
    write_teacher,
)

pytestmark = pytest.mark.extra("train")
NONE = Augmentation(flips=False)
WET, DRY = 1, 2
SETS = {"wet": ("water", "trees"), "dry": ("trees", "bare")}


def teacher_of(folder: Path, views: int, network: str = "half_separable") -> Teacher:
    write_teacher(folder / f"{network}-{views}", network=network)
    config = tiny_recipe(
        folder, teacher=folder / f"{network}-{views}", teacher_views=views, chip=32, teacher_halo=0
    )
    teacher = load_teacher(config, torch.device("cpu"))
    assert teacher is not None
    return teacher


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 0.4, (3, height, width)).astype(np.float32)


# Views


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 12), (7, 7), (1, 2)])
def test_what_is_shown_in_any_view_comes_back_in_its_place(height, width):
    values = picture(height, width)
    views = [view_of(n) for n in range(MOST_VIEWS)]
    shapes = {view.of(values).shape[1:] for view in views}
    for view in views:
        np.testing.assert_array_equal(view.undo(view.of(values), height, width), values)
    assert len(set(views)) == MOST_VIEWS
    # Even, and of one size but for a turn: a runtime is compiled for one.
    assert all(side % 2 == 0 for shape in shapes for side in shape)
    assert len({tuple(sorted(shape)) for shape in shapes}) == 1
    for first in range(0, MOST_VIEWS, 4):
        assert len({(view.down, view.right) for view in views[first : first + 4]}) == 4


@pytest.mark.parametrize("moved", ["down", "right", "turned", "mirrored"])
def test_the_mean_of_all_views_is_of_the_ground_alone(tmp_path, moved):
    """A network that halves its input answers otherwise a pixel later; the mean of its views not.

    Nor does it for the picture turned, which a random network answers in another way altogether.
    """
    both = {views: teacher_of(tmp_path, views) for views in (1, MOST_VIEWS)}
    values = picture(64, 64)
    forth = {
        "down": lambda a: a[:, 1:, :],
        "right": lambda a: a[:, :, 1:],
        "turned": lambda a: np.rot90(a, 1, (1, 2)),
        "mirrored": lambda a: a[..., ::-1],
    }[moved]
    far = {}
    for views, teacher in both.items():
        here = forth(teacher.probs(values))
        there = teacher.probs(np.ascontiguousarray(forth(values)))
        inner = np.s_[:, 26:-26, 26:-26]
        far[views] = float(np.abs(here - there)[inner].max())
    assert far[MOST_VIEWS] < 1e-4 < 0.01 < far[1]


def test_four_views_are_the_mean_of_four_answers(tmp_path):
    one, four = teacher_of(tmp_path, 1), teacher_of(tmp_path, 4)
    values = picture(32, 32)
    answers = [view_of(n).undo(one.probs(view_of(n).of(values)), 32, 32) for n in range(4)]
    np.testing.assert_allclose(four.probs(values), np.mean(answers, axis=0), atol=1e-5)
    np.testing.assert_allclose(four.probs(values).sum(axis=0), 1, atol=1e-5)
    # The side that its runtime is compiled for is the views', not the chip's.
    assert (one.side, four.side) == (32, 34)


# Light that changes no answer


def test_the_target_stays_under_other_light_and_the_light_is_another_each_time(tmp_path):
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(
        tmp_path,
        teacher=tmp_path / "teacher",
        augmentation=NONE,
        invariance=Augmentation(gain=0.2, brightness=0.02, slope=0.3, haze=0.05),
        pool=4,
        fresh=1,
    )
    teacher = load_teacher(config, torch.device("cpu"))
    scene = scene_of(picture(80, 80), np.zeros((80, 80), int))
    scene.labelled[:] = False
    source = ChipSource(config, [scene], BANDS, 1.0, teacher)
    plain = ChipSource(replace(config, invariance=Augmentation()), [scene], BANDS, 1.0, teacher)
    seen: dict[bytes, list[torch.Tensor]] = {}
    for step in range(4):
        for chip in source.batch(step):
            seen.setdefault(chip.probs.numpy().tobytes(), []).append(chip.pixels)
    # What was learned is the answer for the chip as it was.
    made = {plain.chip(n).probs.numpy().tobytes(): plain.chip(n).pixels for n in range(8)}
    assert set(seen) <= set(made)
    for answer, pictures in seen.items():
        for n, pixels in enumerate(pictures):
            assert not torch.equal(pixels, made[answer])
            assert not any(torch.equal(pixels, other) for other in pictures[:n])
    assert max(map(len, seen.values())) > 1


def test_a_slope_rises_evenly_and_leaves_the_middle():
    a = Augmentation(slope=0.3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        factor = change_light(rng, np.ones((2, 41, 61), np.float32), ("red", "nir"), a, 1.0)
        np.testing.assert_array_equal(factor[0], factor[1])
        assert factor[0, 20, 30] == pytest.approx(1)
        assert factor.min() >= 0.7 - 1e-6 and factor.max() <= 1.3 + 1e-6
        np.testing.assert_allclose(factor + factor[:, ::-1, ::-1], 2, atol=1e-5)
        for axis in (1, 2):
            steps = np.diff(factor, axis=axis)
            np.testing.assert_allclose(steps, steps.flat[0], atol=1e-5)


# Labels that are sets of classes


def with_sets(seed: int = 0):
    rng = np.random.default_rng(seed)
    scene = scene_of(picture(80, 80), rng.integers(3, size=(80, 80)))
    sets = rng.integers(3, size=(80, 80)).astype(np.uint8)
    sets[:, 40:] = 0
    scene.sets = sets
    scene.labelled[:] = False
    scene.labelled[60:, :40] = True
    sets[60:] = 0
    return scene


def test_a_teachers_answer_is_kept_to_what_the_label_leaves_open(tmp_path):
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(
        tmp_path, teacher=tmp_path / "teacher", augmentation=NONE, sets=SETS, loss="soft_ce"
    )
    teacher = load_teacher(config, torch.device("cpu"))
    assert teacher is not None
    scene = with_sets()
    source = ChipSource(config, [scene], BANDS, 1.0, teacher)
    open_to = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]], np.float32)
    found = {0: 0, WET: 0, DRY: 0}
    for number in range(30):
        chip = source.chip(number)
        ((row, col),) = np.argwhere(scene.pixels[0] == chip.pixels[0, 0, 0].item()).tolist()
        here = np.s_[row : row + 16, col : col + 16]
        sets, labelled = scene.sets[here], scene.labelled[here]
        answer = teacher.probs(chip.pixels.numpy()[[2, 0, 1]])
        probs = chip.probs.float().numpy()
        np.testing.assert_allclose(probs.sum(axis=0), 1, atol=2e-3)
        for k in found:
            where = (sets == k) & ~labelled
            found[k] += int(where.sum())
            shut = open_to[k] == 0
            assert not probs[shut][:, where].any()
            # In the teacher's own proportions, but where it knows of none of them.
            kept = answer[~shut][:, where] + (0.01 if k else 0)
            expected = kept / kept.sum(axis=0)
            np.testing.assert_allclose(probs[~shut][:, where], expected, atol=2e-3)
        np.testing.assert_array_equal(probs.argmax(axis=0)[labelled], scene.target[here][labelled])
        assert (probs.max(axis=0)[labelled] == 1).all()
        assert (chip.weight == 1).all()
    assert all(found.values())


def test_without_a_teacher_a_set_is_a_target_and_a_pixel_without_label_is_none(tmp_path):
    config = tiny_recipe(tmp_path, augmentation=NONE, sets=SETS, loss="set_ce")
    scene = with_sets()
    nothing = (scene.sets == 0) & ~scene.labelled
    scene.target[nothing] = UNKNOWN
    source = ChipSource(config, [scene], BANDS, 1.0)
    for number in range(20):
        chip = source.chip(number)
        ((row, col),) = np.argwhere(scene.pixels[0] == chip.pixels[0, 0, 0].item()).tolist()
        here = np.s_[row : row + 16, col : col + 16]
        np.testing.assert_array_equal(chip.weight == 0, nothing[here])
        probs = chip.probs.float().numpy()
        for k, expected in ((WET, [0.5, 0.5, 0]), (DRY, [0, 0.5, 0.5])):
            where = scene.sets[here] == k
            assert np.abs(probs[:, where].T - expected).max(initial=0) < 1e-3


def test_labels_with_a_legend_of_their_own_are_read_by_their_map(tmp_path):
    scene = write_scene(tmp_path, 0)
    classes = draw_classes(0)
    config = tiny_recipe(tmp_path, sets=SETS, loss="set_ce")
    own = replace(scene, label_map={"0": "water", "3": "dry", "7": "wet"}, everywhere="bare")
    with_gap = make_raster(
        tmp_path / "gap.tif",
        np.where(np.arange(96) < 48, IDS[draw_classes(0)], 255)[None].astype(np.uint8),
        transform=rasterio_transform(scene),
        nodata=255,
    )
    found = load_scene(config, replace(own, labels=(with_gap,)), BANDS, folder(tmp_path, "a"), 0)
    left, right = np.s_[:, :48], np.s_[:, 48:]
    np.testing.assert_array_equal(found.sets[left], np.choose(classes, [0, DRY, WET])[left])
    # The first class of a set is what chips are drawn by; it is no label.
    np.testing.assert_array_equal(found.target[left], np.choose(classes, [0, 1, 0])[left])
    np.testing.assert_array_equal(found.labelled[left], (classes == 0)[left])
    assert (found.target[right] == 2).all() and found.labelled[right].all()
    assert not found.sets[right].any()
    # An id that the map does not name is told, as any other.
    short = replace(own, label_map={"0": "water", "3": "dry"}, labels=scene.labels)
    with pytest.raises(TrainingError, match=r"7 \(\d+ px\), which are neither classes"):
        load_scene(config, short, BANDS, folder(tmp_path, "b"), 0)


def test_a_set_may_be_all_that_is_known_of_a_scene(tmp_path):
    scene = replace(write_scene(tmp_path, 0), labels=(), everywhere="wet")
    config = tiny_recipe(tmp_path, sets=SETS, loss="set_ce")
    found = load_scene(config, scene, BANDS, folder(tmp_path, "a"), 0)
    assert (found.sets == WET).all() and not found.labelled.any() and not found.fault
    assert replace(config, scenes=(scene,)).scenes[0].has_labels


def test_a_map_may_be_of_colours(tmp_path):
    """Colours that it does not name, such as edges of others, say nothing."""
    scene = write_scene(tmp_path, 0)
    classes = draw_classes(0)
    colors = np.array([[0x6E, 0xC1, 0xE4], [0, 255, 0], [1, 2, 3]], np.uint8)[classes]
    path = make_raster(
        tmp_path / "colors.tif", np.moveaxis(colors, -1, 0), transform=rasterio_transform(scene)
    )
    config = tiny_recipe(tmp_path, sets=SETS, loss="set_ce")
    own = replace(scene, labels=(path,), label_map={"#6ec1e4": "bare", "#00FF00": "wet"})
    found = load_scene(config, own, BANDS, folder(tmp_path, "a"), 0)
    np.testing.assert_array_equal(found.target, np.choose(classes, [2, 0, UNKNOWN]))
    np.testing.assert_array_equal(found.sets, np.choose(classes, [0, WET, 0]))
    assert found.labelled.sum() == (classes == 0).sum()


@pytest.mark.parametrize("radius", [0.0, 5.0])
def test_a_map_may_be_of_texts_in_a_column(tmp_path, radius):
    """Numbers there are ids as they stand; what one thing is called twice is not disputed."""
    scene = write_scene(tmp_path, 0)
    with rasterio.open(scene.path) as dataset:
        transform, crs = dataset.transform, dataset.crs
    boxes = [(0, 0, 30, 30), (20, 0, 50, 30), (60, 60, 70, 70), (60, 60, 70, 70)]
    shapes = [
        shapely.box(*(transform @ (left, bottom)), *(transform @ (right, top)))
        for left, top, right, bottom in boxes
    ]
    kinds = ["Yes", "shed", "1", ""]
    frame = geopandas.GeoDataFrame({"building": kinds}, geometry=shapes, crs=crs)
    path = tmp_path / "houses.geojson"
    frame.to_crs("EPSG:4326").to_file(path)
    own = replace(
        scene,
        labels=(path,),
        column="building",
        radius=radius,
        label_map={"yes": "bare", "shed": "bare", "1": "dry"},
        everywhere="wet",
    )
    config = tiny_recipe(tmp_path, sets=SETS, loss="set_ce")
    found = load_scene(config, own, BANDS, folder(tmp_path, "a"), 0)
    expected = np.full((96, 96), WET, np.uint8)
    expected[:30, :50] = 0
    expected[60:70, 60:70] = DRY
    # The way to degrees and back bends the outlines by a part of a pixel.
    assert (found.sets != expected).mean() < 0.01
    assert (found.target[:29, :49] == 2).all() and found.disputed == 0
    # A text that is not in the map is told, even one that looks like a number.
    strange = replace(own, label_map={"yes": "bare", "shed": "bare"})
    with pytest.raises(GeosegError, match=r"'1' \(1\) is no class of the recipe"):
        load_scene(config, strange, BANDS, folder(tmp_path, "b"), 0)


@pytest.mark.parametrize("kind", ["ids", "colours"])
def test_a_map_that_says_nothing_of_a_file_is_refused(tmp_path, kind):
    scene = write_scene(tmp_path, 0)
    config = tiny_recipe(tmp_path, sets=SETS, loss="set_ce")
    if kind == "ids":
        houses = tmp_path / "houses.geojson"
        frame = geopandas.GeoDataFrame(
            {"building": ["yes"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326"
        )
        frame.to_file(houses)
        own = replace(scene, labels=(*scene.labels, houses), label_map={"yes": "dry"})
        message = "holds ids such as 3, and the scene's label_map names 'yes'"
    else:
        colors = make_raster(
            tmp_path / "c.tif", np.zeros((3, 96, 96), np.uint8), transform=rasterio_transform(scene)
        )
        own = replace(scene, labels=(colors,), label_map={"3": "dry"})
        message = "holds colours such as #6EC1E4, and the scene's label_map names '3'"
    with pytest.raises(TrainingError, match=message):
        load_scene(config, own, BANDS, folder(tmp_path, "a"), 0)


def test_a_scenes_weight_says_how_often_chips_are_laid_in_it(tmp_path):
    config = tiny_recipe(tmp_path, scenes=2, augmentation=NONE)
    one, other = config.scenes

    def share(weight: float, balance: float) -> float:
        scenes = (one, replace(other, weight=weight))
        changed = replace(config, scenes=scenes, balance=balance)
        where = folder(tmp_path, f"{weight}-{balance}")
        loaded = [load_scene(changed, s, BANDS, where, i) for i, s in enumerate(scenes)]
        source = ChipSource(changed, loaded, BANDS, 1.0)
        names = [source.chip(n).origin.split()[0] for n in range(200)]
        return names.count(other.name) / 200

    for balance in (0.0, 1.0):
        assert share(1.0, balance) == pytest.approx(0.5, abs=0.12)
        assert share(4.0, balance) == pytest.approx(0.8, abs=0.1)
        assert share(0.05, balance) < 0.12


def folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def rasterio_transform(scene: SceneConfig):
    with rasterio.open(scene.path) as dataset:
        return dataset.transform


# Bands that a scene has not


def derived(tmp_path: Path, network: str = "small_unet") -> TrainConfig:
    """Two scenes of three bands and one without the red one, which the teacher alone needs."""
    write_teacher(tmp_path / "teacher", network=network)
    config = tiny_recipe(
        tmp_path,
        scenes=3,
        bands=("blue", "nir"),
        teacher=tmp_path / "teacher",
        network="linear",
        network_options={},
        inference={},
        pool=16,
    )
    *whole, last = (replace(scene, labels=()) for scene in config.scenes)
    with rasterio.open(last.path) as dataset:
        numbers, transform = dataset.read([1, 3]), dataset.transform
    path = make_raster(
        tmp_path / "two.tif",
        numbers,
        descriptions=("blue", "nir"),
        nodata=0,
        transform=transform,
    )
    whole[1] = replace(whole[1], split="validation")
    scenes = (*whole, replace(last, path=path, derive=("red",)))
    return replace(config, scenes=scenes, split=SplitConfig("scenes"))


def test_a_band_that_is_missing_is_what_the_others_lead_one_to_expect(tmp_path):
    config = derived(tmp_path)
    bands = ("blue", "nir", "red")
    scratch = folder(tmp_path, "scratch")
    scenes = [load_scene(config, s, bands, scratch, i) for i, s in enumerate(config.scenes)]
    assert not scenes[2].pixels[2].any()
    derive_bands(scenes, bands, 2)
    with rasterio.open(tmp_path / "scene2.tif") as dataset:
        truth = dataset.read(2).astype(float)
    guess = scenes[2].pixels[2].astype(float)
    # Each class has a red of its own, 0.03, 0.03 and 0.25, with a noise of 0.01.
    assert np.abs(guess - truth).mean() < 200
    assert np.corrcoef(guess.ravel(), truth.ravel())[0, 1] > 0.95
    with pytest.raises(TrainingError, match="no scene of the recipe has them"):
        derive_bands(scenes[2:], bands, 2)


def test_a_teacher_answers_for_a_scene_whose_bands_are_derived(tmp_path):
    card = train(derived(tmp_path), tmp_path / "model")
    assert card.bands == ("blue", "nir")
    plain = derived(tmp_path / "other")
    without = replace(plain.scenes[2], derive=())
    with pytest.raises(GeosegError, match="red"):
        train(replace(plain, scenes=(*plain.scenes[:2], without)), tmp_path / "none")
