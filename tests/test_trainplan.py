"""geoseg.training.make_recipe and geoseg train: runs without a recipe, and the options."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import shapely.affinity
from affine import Affine
from PIL import Image

from geoseg.cards.files import read_model
from geoseg.cli import main
from geoseg.errors import GeosegError, SceneError, TrainingError, UsageError
from geoseg.geo.window import Window
from geoseg.scene.opening import open_scene
from geoseg.training.make_recipe import make_recipe
from geoseg.training.options import TrainOptions
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import dump_config, load_config
from geoseg.training.targets import UNKNOWN, open_targets
from tests.helpers import make_raster
from tests.trainhelpers import (
    BANDS,
    CLASSES,
    IDS,
    draw_classes,
    draw_pixels,
    place_of,
    rows_of,
    tiny_recipe,
    write_teacher,
)

EXAMPLES = Path(__file__).parents[1] / "examples"
#: A run of a network that is quick to make.
QUICK = ("--network", "linear", "--steps", "2", "--batch", "2", "--chip", "16")


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Done]]:
    """Runs the command line in this process."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(["train", *map(str, args)])
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    yield run
    signal.signal(signal.SIGTERM, before)


def one_line(done: Done) -> str:
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("geoseg: error:")]
    assert len(lines) == 1, done.err
    return lines[0]


def write_image(path: Path, number: int = 0, **raster: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    defaults: dict[str, Any] = {"descriptions": BANDS, "transform": place_of(number), "nodata": 0}
    return make_raster(path, draw_pixels(number), **{**defaults, **raster})


def write_labels(path: Path, number: int = 0, tags: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_raster(path, IDS[draw_classes(number)][None], transform=place_of(number))
    if tags:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(1, **{f"class_{c.id}": c.name for c in CLASSES})
            dataset.write_colormap(1, {c.id: (*c.rgb, 255) for c in CLASSES})
    return path


def plan(tmp_path: Path, **options: Any) -> TrainConfig:
    return make_recipe(TrainOptions(**options), tmp_path / "model")


# The command line


def test_the_example_scene_and_its_labels_make_a_model(cli, tmp_path):
    scene = EXAMPLES / "landsat7_nc_2000.tif"
    labels = EXAMPLES / "landsat7_nc_2000_labels.tif"
    done = cli(
        *("--images", scene, "--labels", labels, "--ignore", "0", "-o", "First Try!"),
        *("--steps", "2", "--batch", "2", "--chip", "64", "--device", "cpu"),
    )
    assert done.code == 0, done.err
    assert "mean IoU" in done.out and "geoseg predict SCENE -m First Try!" in done.out
    card = read_model(tmp_path / "First Try!").card
    with rasterio.open(labels) as dataset:
        names = {k: v for k, v in dataset.tags(1).items() if k.startswith("class_")}
        colors = dataset.colormap(1)
    names.pop("class_0", None)
    assert {f"class_{c.id}": c.name for c in card.classes} == names
    assert all(c.rgb == colors[c.id][:3] for c in card.classes) and len(names) == 7
    assert card.network == "small_unet" and card.name == "first-try"
    assert card.gsd == 28.5 and card.gsd_range[0] < 28.5 < card.gsd_range[1]
    recipe = load_config(tmp_path / "First Try!.training" / "recipe.json")
    assert recipe.split.by == "blocks" and recipe.scenes[0].path == scene.resolve()
    assert card.bands == recipe.bands and len(card.bands) >= 6
    assert (tmp_path / "First Try!.training" / "held_out" / f"{scene.stem}.tif").exists()


def test_nobody_but_geoseg_speaks_during_a_run(cli, tmp_path, caplog):
    config = tiny_recipe(tmp_path / "data", precision="bfloat16", steps=2)
    (tmp_path / "recipe.json").write_text(dump_config(config))
    with caplog.at_level(logging.INFO, logger="lightning_fabric"):
        done = cli("recipe.json", "-o", "model")
    assert done.code == 0, done.err
    assert [r.getMessage() for r in caplog.records] == []


def test_a_recipe_with_changes_and_another_fold(cli, tmp_path):
    config = tiny_recipe(tmp_path / "data")
    (tmp_path / "recipe.json").write_text(dump_config(config))
    done = cli(
        *("recipe.json", "--set", "ema=0.5", "--fold", "2/5", "--set", "augmentation.mix=0"),
        *("--set", "split.block=24", "--steps", "2", "-o", "model", "--progress", "json"),
    )
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert all("event" in event for event in events)
    assert [e["step"] for e in events if e["event"] == "log"] == [2.0]
    assert any(e.get("stage") == "train" and e["done"] == e["total"] == 2 for e in events)
    recipe = load_config(tmp_path / "model.training" / "recipe.json")
    assert (recipe.ema, recipe.steps, recipe.augmentation.mix) == (0.5, 2, 0)
    assert (recipe.split.fold, recipe.split.folds, recipe.split.block) == (2, 5, 24)
    # What was not changed is as it was.
    assert recipe.split.margin == config.split.margin
    assert recipe.augmentation.gain == config.augmentation.gain
    assert recipe.network_options == config.network_options
    assert "part 2 of 5" in read_model(tmp_path / "model").card.scores["split"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("recipe.toml", "--images", "a.tif"), "--images is for training without a recipe"),
        (("recipe.toml", "--src-nodata", "0"), "--src-nodata is for training without a recipe"),
        ((), "give a recipe, or --images and --labels"),
        (("--labels", "b.tif"), "give a recipe, or --images and --labels"),
        (("--images", "a.tif"), "give --labels with what is there, or --teacher"),
        (("--images", "a.tif", "--labels", "b.tif", "--fold", "3"), "--fold is '3'; give I/K"),
        (("--images", "a.tif", "--labels", "b.tif", "--set", "ema"), "give KEY=VALUE"),
        (("--images", "a.tif", "--labels", "b.tif", "--set", "=1"), "give KEY=VALUE"),
        (("--images", "a.tif", "--labels", "b.tif", "--set", "a..b=1"), "'a..b' is no key"),
        (
            ("--images", "a.tif", "--labels", "b.tif", "--split", "files", "--block", "9"),
            "--block is of the split by blocks and --split is files",
        ),
        (
            ("--images", "a.tif", "--labels", "b.tif", "--split", "random", "--margin", "9"),
            "--margin is of the split by blocks and --split is random",
        ),
        (("--images", "a.tif", "--labels", "b.tif", "--column", "x"), "and b.tif is a raster"),
        (("--images", "a.tif", "--labels", "b.tif", "--radius", "3"), "and b.tif is a raster"),
        (
            ("--images", "a.tif", "--labels", "b.tif", "--ignore", "cloud"),
            "labels of a raster are ignored by id",
        ),
        (("--images", "a.tif", "--labels", "b.tif", "--class", "=3"), "give NAME or NAME=VALUE"),
        (
            ("--images", "a.tif", "--labels", "b.tif", "--class", "x=2", "--class", "y"),
            "gives the ids",
        ),
        (("--images", "a.tif", "--labels", "b.tif", "--bands", "blue,pan"), "'pan' is no band"),
    ],
)
def test_options_that_contradict_each_other_are_told_in_one_line(cli, tmp_path, options, message):
    write_image(tmp_path / "a.tif")
    write_labels(tmp_path / "b.tif")
    (tmp_path / "recipe.toml").write_text('name = "x"\n')
    done = cli(*options, "-o", "model")
    assert done.code == 2
    assert message in one_line(done)
    assert not (tmp_path / "model").exists() and not (tmp_path / "model.training").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "learning_rat=1"), "learning_rat"),
        (("--set", "steps=many"), "steps is 'many'"),
        (("--fold", "6/5"), "fold is 6; it must be 1 to 5"),
        (("--split", "random", "--device", "gpu"), "gpu"),
        (("--set", "classes=[]"), "needs bands and classes"),
        (("--set", "classes=3"), "classes is 3; it must be a list of tables"),
        (("--set", "scenes=3"), "scenes is 3; it must be a list of tables"),
        (("--set", "bands=red"), "bands is 'red'; it must be a list of names"),
        (("--set", "classes=[{id = 1}]"), "classes: the keys ['name', 'color'] are missing"),
        (("--images", "gone.tif"), "gone.tif: no such file"),
    ],
)
def test_what_fails_is_told_in_one_line(cli, tmp_path, options, message):
    write_image(tmp_path / "a.tif")
    write_labels(tmp_path / "b.tif")
    done = cli("--images", "a.tif", "--labels", "b.tif", "-o", "model", *options, "-vq")
    assert done.code == 1
    assert message in one_line(done)
    assert not (tmp_path / "model").exists()


def test_quiet_is_quiet(cli, tmp_path):
    write_image(tmp_path / "a.tif")
    write_labels(tmp_path / "b.tif")
    done = cli("--images", "a.tif", "--labels", "b.tif", "-o", "model", *QUICK, "-q")
    assert done == Done(0, "", "")


# What is looked up in the data


def test_images_and_rasters_with_a_legend(tmp_path):
    image = write_image(tmp_path / "a.tif")
    labels = write_labels(tmp_path / "b.tif", tags=True)
    config = plan(tmp_path, images=[image], labels=[labels])
    assert config.classes == CLASSES and config.bands == BANDS
    assert config.quantity == "number" and config.gsd == pytest.approx(10, rel=1e-3)
    assert config.gsd_range[0] < 10 < config.gsd_range[1]
    assert config.name == "model"
    scaled = plan(tmp_path, images=[image], labels=[labels], scale=1e-4, offset=0.0)
    assert scaled.quantity == "reflectance" and scaled.scenes[0].scale == 1e-4
    # A legend without tags is made of the ids that are there.
    plain = plan(tmp_path, images=[image], labels=[write_labels(tmp_path / "c.tif")])
    assert [c.id for c in plain.classes] == [0, 3, 7]
    some = plan(tmp_path, images=[image], labels=[tmp_path / "c.tif"], ignore=["0"])
    assert [c.id for c in some.classes] == [3, 7] and some.scenes[0].ignore_label == (0,)
    named = plan(tmp_path, images=[image], labels=[labels], classes=["wet=0", "trees=3", "bare=7"])
    assert [(c.id, c.name) for c in named.classes] == [(0, "wet"), (3, "trees"), (7, "bare")]


@pytest.mark.parametrize("few", [9, 10])
def test_many_images_are_split_by_files_and_few_by_blocks(tmp_path, few):
    for number in range(few):
        write_image(tmp_path / "images" / f"{number}.tif", number)
        write_labels(tmp_path / "labels" / f"{number}.tif", number)
    config = plan(tmp_path, images=[tmp_path / "images"], labels=[tmp_path / "labels"])
    assert config.split.by == ("files" if few == 10 else "blocks")
    assert [s.labels[0].name for s in config.scenes] == [s.path.name for s in config.scenes]
    other = plan(
        tmp_path, images=[tmp_path / "images"], labels=[tmp_path / "labels"], split="random"
    )
    assert other.split.by == "random"
    blocks = plan(
        tmp_path, images=[tmp_path / "images"], labels=[tmp_path / "labels"], margin=3, block=32
    )
    assert (blocks.split.by, blocks.split.block, blocks.split.margin) == ("blocks", 32, 3)


@pytest.mark.parametrize("names", [None, "1,3", "red,nir,blue"])
def test_bands_without_names(cli, tmp_path, names):
    """All of them, or those with some numbers, or with names in the file's order."""
    write_image(tmp_path / "a.tif", descriptions=None)
    write_labels(tmp_path / "b.tif")
    option = "--band-names" if names and "red" in names else "--bands"
    given = () if names is None else (option, names)
    done = cli("--images", "a.tif", "--labels", "b.tif", "-o", "model", *QUICK, *given)
    assert done.code == 0, done.err
    expected = {None: "band1,band2,band3", "1,3": "band1,band3"}.get(names, names)
    card = read_model(tmp_path / "model").card
    assert ",".join(card.bands) == expected
    means = draw_pixels(0).mean(axis=(1, 2))[[0, 2] if names == "1,3" else [0, 1, 2]]
    np.testing.assert_allclose(card.normalization.parameters["mean"], means, rtol=0.2)


def test_bands_by_any_spelling_get_their_common_names(tmp_path):
    image = write_image(tmp_path / "a.tif", descriptions=None)
    labels = write_labels(tmp_path / "b.tif")
    config = plan(tmp_path, images=[image], labels=[labels], band_names="Red,NIR,Blue")
    assert config.bands == ("red", "nir", "blue")
    chosen = {"band_names": "Red,NIR,Blue", "bands": "blue,RED"}
    config = plan(tmp_path, images=[image], labels=[labels], **chosen)
    assert config.bands == ("blue", "red")


def test_bands_by_name_choose_among_the_scenes_own(tmp_path):
    image = write_image(tmp_path / "a.tif")
    labels = write_labels(tmp_path / "b.tif")
    config = plan(tmp_path, images=[image], labels=[labels], bands="nir,blue")
    assert config.bands == ("nir", "blue") and config.scenes[0].bands == ("nir", "blue")


def test_images_with_other_bands_are_told(tmp_path):
    first = write_image(tmp_path / "a.tif", 0)
    labels = [write_labels(tmp_path / f"{x}_l.tif", n) for n, x in enumerate("ab")]
    other = write_image(tmp_path / "b.tif", 1, descriptions=("blue", "red", "swir1"))
    with pytest.raises(TrainingError, match="b has no band nir, which a has"):
        plan(tmp_path, images=[first, other], labels=labels)


def test_vector_labels_make_the_legend(cli, tmp_path):
    write_image(tmp_path / "a.tif")
    target = draw_classes(0)[::8, ::8]
    x, y = 500000 + 80 * np.arange(12) + 40, 5000000 - 80 * np.arange(12) - 40
    points = [shapely.Point(x[c], y[r]) for r, c in np.ndindex(target.shape)]
    values = {
        "kind": [CLASSES[k].name for k in target.flat],
        "number": [[4, 2, 9][k] for k in target.flat],
    }
    frame = geopandas.GeoDataFrame(values, geometry=points, crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "points.gpkg")
    done = cli(
        *("--images", "a.tif", "--labels", "points.gpkg", "--column", "kind", "--radius", "30"),
        *("-o", "model", *QUICK, "--set", "split.margin=0"),
    )
    assert done.code == 0, done.err
    card = read_model(tmp_path / "model").card
    assert [(c.id, c.name) for c in card.classes] == [(1, "bare"), (2, "trees"), (3, "water")]
    with rasterio.open(tmp_path / "model.training" / "held_out" / "a.tif") as dataset:
        held = dataset.read(1)
    ids = np.array([3, 2, 1])[draw_classes(0)]
    known = held != 255
    assert known.any() and (held == ids)[known].all()
    # Discs of 30 m in squares of 80 m.
    blocks = held.reshape(12, 8, 12, 8).swapaxes(1, 2).reshape(144, 64)
    full = (blocks != 255).sum(axis=1)
    assert full.max() * 100 == pytest.approx(np.pi * 900, rel=0.2)

    options = {"images": ["a.tif"], "labels": ["points.gpkg"], "radius": 30.0}
    numbers = plan(tmp_path, **options, column="number")
    assert [c.id for c in numbers.classes] == [2, 4, 9]
    left_out = plan(tmp_path, **options, column="kind", ignore=["Trees"])
    assert [c.name for c in left_out.classes] == ["bare", "water"]
    with pytest.raises(UsageError, match="--column which of kind, number"):
        plan(tmp_path, **options)
    with pytest.raises(UsageError, match="say with --radius how many metres"):
        plan(tmp_path, images=["a.tif"], labels=["points.gpkg"], column="kind")


@pytest.mark.parametrize("radius", [0.0, 30.0])
def test_what_someone_saw_comes_before_the_maps_own_class(tmp_path, monkeypatch, radius):
    """A sample that was labelled has both columns; legend and targets take the same one."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "a.tif")
    corner = shapely.Point(500000 + 200, 5000000 - 200)
    shapes = [corner.buffer(40), shapely.affinity.translate(corner, 300).buffer(40)]
    both = {"class_id": [1, 2], "reference": ["wet", "dry"]}
    frame = geopandas.GeoDataFrame(both, geometry=shapes, crs="EPSG:32633")
    frame.to_file(tmp_path / "sample.gpkg")
    config = plan(tmp_path, images=["a.tif"], labels=["sample.gpkg"], radius=radius)
    assert [c.name for c in config.classes] == ["dry", "wet"]
    with open_targets(config, config.scenes[0], open_scene(tmp_path / "a.tif").grid) as targets:
        found = targets.read(Window(0, 0, 96, 96))
    assert set(np.unique(found)) == {0, 1, UNKNOWN}


def test_photos_and_masks_in_colours(cli, tmp_path):
    """No CRS anywhere, palette and RGB masks, folders of their own."""
    colors = np.array([[60, 16, 152], [255, 255, 255], [254, 221, 58]], np.uint8)
    for number in range(6):
        folder = tmp_path / f"tile{number}"
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        target = draw_classes(number)
        pixels = np.moveaxis(draw_pixels(number) // 16, 0, -1).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "part.jpg", quality=95)
        Image.fromarray(colors[target]).save(folder / "masks" / "part.png")
    options = ("--images", "tile*/images/*.jpg", "--labels", "tile*/masks/*.png", *QUICK)
    legend = (
        "--class",
        "building=#3C1098",
        "--class",
        "street=#ffffff",
        "--class",
        "grass=#FEDD3A",
    )
    done = cli(*options, "-o", "model", "--gsd", "0.3", *legend, "--split", "files")
    assert done.code == 0, done.err
    card = read_model(tmp_path / "model").card
    assert [c.name for c in card.classes] == ["building", "street", "grass"]
    assert card.bands == ("red", "green", "blue") and card.gsd == 0.3
    assert card.scores["held_out_pixels"] % (96 * 96) == 0
    held = sorted((tmp_path / "model.training" / "held_out").iterdir())
    found = []
    for file in held:
        with rasterio.open(file) as dataset:
            found.append(dataset.read(1) - 1)
    assert all(any((f == draw_classes(n)).all() for n in range(6)) for f in found)

    without = cli(*options, "-o", "other", *legend)
    assert without.code == 2 and "give --gsd" in one_line(without)
    without = cli(*options, "-o", "other", "--gsd", "0.3")
    assert without.code == 2 and "which colour is which class" in one_line(without)


def test_a_teacher_alone_gives_the_legend(cli, tmp_path):
    write_image(tmp_path / "a.tif", scales=(1e-4,) * 3)
    write_teacher(tmp_path / "teacher")
    done = cli(
        *("--images", "a.tif", "--teacher", "teacher", "-o", "model", *QUICK),
        *("--scale", "1e-4", "--offset", "0"),
    )
    assert done.code == 0, done.err
    card = read_model(tmp_path / "model").card
    assert card.classes == CLASSES and card.quantity == "reflectance"
    assert "teacher" in card.scores["compared_with"]


def test_ids_that_no_map_can_hold_are_told(tmp_path):
    image = write_image(tmp_path / "a.tif")
    values = np.where(draw_classes(0) == 0, 300, 2).astype(np.uint16)[None]
    labels = make_raster(tmp_path / "b.tif", values, transform=place_of(0))
    with pytest.raises(SceneError, match="class ids are 0 to 254"):
        plan(tmp_path, images=[image], labels=[labels])
    # They may stand for a class that has another id.
    config = plan(tmp_path, images=[image], labels=[labels], classes=["x=300", "y=2"])
    assert config.label_values == {"x": 300, "y": 2}
    assert [c.id for c in config.classes] == [1, 2]


def test_an_id_below_0_is_left_out(cli, tmp_path):
    write_image(tmp_path / "a.tif")
    values = np.where(draw_classes(0) == 0, -1, IDS.astype(np.int16)[draw_classes(0)])[None]
    make_raster(tmp_path / "b.tif", values, transform=place_of(0))
    data = ("--images", "a.tif", "--labels", "b.tif", "-o", "model", *QUICK)
    assert "the labels hold [-1, 3, 7]" in one_line(cli(*data))
    done = cli(*data, "--ignore", "-1")
    assert done.code == 0, done.err
    assert [c.id for c in read_model(tmp_path / "model").card.classes] == [3, 7]


# Options over recipes


def test_options_go_before_the_recipes_keys(tmp_path):
    config = tiny_recipe(tmp_path / "data")
    (tmp_path / "recipe.json").write_text(dump_config(config))
    changed = plan(
        tmp_path,
        config=tmp_path / "recipe.json",
        network="deeplabv3plus",
        encoder="resnet18",
        steps=5,
        batch=3,
        chip=32,
        learning_rate=0.5,
        loss="ce",
        precision="bfloat16",
        seed=9,
        split="random",
        fold="3/4",
        changes=["inference.size=128", "class_weights=[1, 2, 3]", "description=all new: x = 1"],
    )
    assert changed.network_options == {"encoder": "resnet18"}
    assert (changed.steps, changed.batch, changed.chip, changed.seed) == (5, 3, 32, 9)
    assert (changed.learning_rate, changed.loss, changed.precision) == (0.5, "ce", "bfloat16")
    assert (changed.split.by, changed.split.fold, changed.split.folds) == ("random", 3, 4)
    assert changed.inference == {**config.inference, "size": 128}
    assert changed.class_weights == (1, 2, 3)
    assert changed.description == "all new: x = 1"
    assert changed.scenes == config.scenes
    same = plan(tmp_path, config=tmp_path / "recipe.json")
    assert same == config
    # An empty table takes what the recipe's has away.
    bare = plan(tmp_path, config=tmp_path / "recipe.json", changes=["inference={}"])
    assert config.inference and bare == replace(config, inference={})


def test_a_recipe_is_made_of_what_is_there(tmp_path):
    with pytest.raises(GeosegError, match="none matches"):
        plan(tmp_path, images=[tmp_path / "*.tif"], labels=[tmp_path / "b.tif"])


def test_a_run_without_a_recipe_goes_on_with_its_own_recipe(cli, tmp_path):
    """recipe.json says all that the options did."""
    write_image(tmp_path / "a.tif")
    write_labels(tmp_path / "b.tif", tags=True)
    assert cli("--images", "a.tif", "--labels", "b.tif", "-o", "model", *QUICK).code == 0
    assert cli("model.training/recipe.json", "-o", "again").code == 0
    one, two = (tmp_path / name / "weights.safetensors" for name in ("model", "again"))
    assert one.read_bytes() == two.read_bytes()
    logs = [rows_of(tmp_path / f"{name}.training" / "log.csv") for name in ("model", "again")]
    assert logs[0] == logs[1]


def test_pixels_of_half_the_size_are_of_the_same_model(tmp_path):
    """The range of gsd reaches around all images."""
    fine = Affine(5, 0, 500000, 0, -5, 5000000)
    images = [write_image(tmp_path / "a.tif"), write_image(tmp_path / "b.tif", transform=fine)]
    labels = [write_labels(tmp_path / f"{x}_l.tif") for x in "ab"]
    config = plan(tmp_path, images=images, labels=labels)
    assert config.gsd_range[0] < 5 and config.gsd_range[1] > 10
    assert 5 <= config.gsd <= 10.01


def test_an_encoder_asks_for_a_network_that_has_one(tmp_path: Path) -> None:
    data = {
        "images": [EXAMPLES / "landsat7_nc_2000.tif"],
        "labels": [EXAMPLES / "landsat7_nc_2000_labels.tif"],
    }
    plain = make_recipe(TrainOptions(**data), tmp_path / "one")
    assert (plain.network, dict(plain.network_options)) == ("small_unet", {})
    named = make_recipe(TrainOptions(**data, encoder="resnet18"), tmp_path / "two")
    assert named.network == "deeplabv3plus" and named.network_options["encoder"] == "resnet18"
    both = make_recipe(TrainOptions(**data, network="unet", encoder="resnet18"), tmp_path / "three")
    assert (both.network, dict(both.network_options)) == ("unet", {"encoder": "resnet18"})
