"""geoseg.training.recipe: recipes, their files, and what is wrong with them."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from geoseg.cards.legend import ClassInfo
from geoseg.errors import TrainingError
from geoseg.networks import model_info
from geoseg.training.augment_options import Augmentation
from geoseg.training.laid_clouds_options import LaidClouds
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import dump_config, load_config, make_config
from geoseg.training.scene_config import SceneConfig
from geoseg.training.schedules import SCHEDULES
from geoseg.training.split import SplitConfig
from tests.trainhelpers import WILD, tiny_recipe


def write_recipe(folder: Path, text: str, scenes: str = "", tables: str = "") -> Path:
    path = folder / "recipe.toml"
    path.write_text(
        'name = "tiny"\nbands = ["blue", "red", "nir"]\n'
        'classes = [{ id = 0, name = "water", color = "#0000FF" }]\n'
        f"{text}\nscenes = [\n{scenes}]\n{tables}"
    )
    return path


SCENES = (
    '{ path = "a.tif", place = "here", labels = "a_labels.tif" },\n'
    '{ path = "b.tif", place = "there", labels = ["/b.gpkg", "c.tif"], split = "validation" },\n'
)


PLAIN = SCENES.replace(', split = "validation"', "")
GROUPS = PLAIN.replace('"here"', '"here", group = "dry"').replace(
    '"there"', '"there", group = "wet"'
)


def test_paths_start_at_the_recipe_and_variables_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSEG_TEST_PLACE", "/somewhere")
    text = 'folder = "scenes"\nteacher = "${GEOSEG_TEST_PLACE}/teacher"'
    config = load_config(write_recipe(tmp_path, text, SCENES))
    assert config.scenes[0].path == tmp_path / "scenes" / "a.tif"
    assert config.scenes[0].labels == (tmp_path / "scenes" / "a_labels.tif",)
    assert config.scenes[1].labels == (Path("/b.gpkg"), tmp_path / "scenes" / "c.tif")
    assert config.teacher == Path("/somewhere/teacher")

    monkeypatch.delenv("GEOSEG_TEST_PLACE")
    with pytest.raises(TrainingError, match="GEOSEG_TEST_PLACE, which is not set"):
        load_config(write_recipe(tmp_path, text, SCENES))


def test_a_teacher_is_a_folder_that_is_there_or_an_embedded_model(tmp_path):
    path = write_recipe(tmp_path, 'teacher = "landcover"', SCENES)
    assert load_config(path).teacher == Path("landcover")
    (tmp_path / "landcover").mkdir()
    assert load_config(path).teacher == tmp_path / "landcover"


def test_images_stand_for_many_scenes(tmp_path):
    for name in ("x/a.tif", "x/b.tif", "y/a.png", "y/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scenes = '{ images = "x/*.tif", labels = ["y"], place = "p", radius = 5.0 },\n'
    config = load_config(write_recipe(tmp_path, "split = {by = 'blocks'}", scenes))
    assert [(s.path.name, s.labels[0].name) for s in config.scenes] == [
        ("a.tif", "a.png"),
        ("b.tif", "b.png"),
    ]
    assert all((s.place, s.radius) == ("p", 5.0) for s in config.scenes)


@pytest.mark.parametrize(
    ("text", "scenes", "message"),
    [
        ("learning_rat = 1", SCENES, "learning_rat.*unknown"),
        ("", SCENES.replace("there", "here"), "here.*both sides"),
        ("", SCENES.replace("validation", "test"), "train or validation"),
        ("", SCENES.splitlines()[0], "no scene has split = 'validation'"),
        ("", "", "names no scene"),
        ("split = {by = 'blocks'}", SCENES, "by blocks and b says split = 'validation'"),
        ("split = {by = 'halves'}", SCENES, "by 'halves'"),
        ("split = {fold = 6}", SCENES, "fold is 6"),
        ("split = {parts = 6}", SCENES, r"split: the keys \['parts'\] are unknown"),
        ("split = 'blocks'", SCENES, "a table of keys belongs there"),
        (
            "",
            re.sub(r"labels = (\[.*?\]|\S+)", "src_nodata = 0.0", SCENES),
            "no labels.*no teacher",
        ),
        ("", SCENES.replace("place =", "plaice ="), "plaice"),
        ("", SCENES.replace('path = "a.tif", ', ""), "path"),
        ("", SCENES.replace('place = "here"', "radius = -1.0"), "radius is -1"),
        ("label_values = {lava = 3}", SCENES, r"names \['lava'\]; the classes are \['water'\]"),
        ("steps = 0", SCENES, "steps is 0"),
        ("steps = true", SCENES, "steps is True; it must be a whole number"),
        ("description = 3", SCENES, "description is 3; it must be text"),
        ("gsd_range = 3", SCENES, "gsd_range is 3; it must be a list"),
        ("plausible = 3", SCENES, "plausible is 3; it must be a table of keys"),
        ("network_options = 3", SCENES, "network_options is 3; it must be a table of keys"),
        ("augmentation = {zoom = 3}", SCENES, "zoom is 3; it must be a list"),
        ("clip = 5", SCENES, r"clip is 5; give \[low, high\]"),
        ("clip = [1.0, 0.0]", SCENES, r"clip is \(1\.0, 0\.0\); give \[low, high\]"),
        ("weight_decay = -1.0", SCENES, r"weight_decay is -1\.0"),
        ("seed = -1", SCENES, "seed is -1"),
        ("accumulate = 0", SCENES, "accumulate is 0"),
        ("chip = 4", SCENES, "chip is 4 px"),
        ("pool = 7", SCENES, "pool is 7 chips and a step takes 8"),
        ("ema = 1.5", SCENES, r"ema is 1\.5; it must be 0 to 1"),
        ("balance = -0.5", SCENES, r"balance is -0\.5"),
        ("patience = -1", SCENES, "patience is -1"),
        ("learning_rate = nan", SCENES, "learning_rate is nan"),
        ("gsd = 0.0", SCENES, r"gsd is 0\.0"),
        ("validation_gsds = []", SCENES, "validation_gsds is"),
        ("validation_gsds = [1.0, 0.5]", SCENES, "each 1 at least"),
        ("teacher_temperature = 0.0", SCENES, "teacher_temperature is 0"),
        ('keep = "all"', SCENES, "keep is 'all'; it is one of best, last"),
        ('quantity = "radiance"', SCENES, "quantity is 'radiance'"),
        ('precision = "half"', SCENES, "precision is 'half'"),
        ("steps = = 0", SCENES, "can't be read"),
        ('loss = "dise"', SCENES, "names 'dise'"),
        ('loss = "focal(gamma=-1)"', SCENES, "gamma is -1"),
        ("aux_weight = -1", SCENES, "aux_weight is -1"),
        ('class_weights = "often"', SCENES, "class_weights is 'often'; it is 'none', 'median"),
        ("class_weights = [1, 2]", SCENES, "2 numbers and the recipe 1 classes"),
        ("class_weights = [-1]", SCENES, "each 0 at least"),
        ('class_weights = ["1"]', SCENES, r"class_weights is \('1',\)"),
        ('loss = "dice"\nclass_weights = [1]', SCENES, "no use for class weights"),
        ('loss = "dice"\nclass_weights = "median_frequency"', SCENES, "no use for class weights"),
        ('optimizer = "lbfgs"', SCENES, "optimizer is 'lbfgs'; it is one of adamw, sgd"),
        ("stages = [{bands = ['red']}]", SCENES, r"stage 2: \['bands'\] can't change"),
        ("stages = [{steps = 5}, {chip = 2}]", SCENES, "stage 3: chip is 2 px"),
        ("stages = [{steps = 'many'}]", SCENES, "stage 2: steps is 'many'; it must be a whole"),
        ("stages = [{augmentation = {hase = 1.0}}]", SCENES, r"stage 2: the keys \['hase'\]"),
        ("teacher_views = 6", SCENES, "teacher_views is 6; it is 1, or a multiple of 4"),
        ("invariance = {mix = 0.5}", SCENES, "invariance.mix: what is there after it"),
        ("augmentation = {slope = 1.0}", SCENES, "slope is 1.0; it must be 0 to 0.9"),
        ("sets = {wet = ['lava']}", SCENES, r"sets.wet is \('lava',\)"),
        ("sets = {water = ['water']}", SCENES, "a name that no class has"),
        ("sets = {wet = ['water']}", SCENES, "has soft_ce, which takes each label for one class"),
        ("", SCENES.replace('place = "here"', "label_map = {3 = 'lava'}"), "'lava' is neither"),
        (
            "",
            SCENES.replace('place = "here"', "label_map = {x = 'water'}"),
            "'x' and no label file is a vector file",
        ),
        ("", SCENES.replace('place = "here"', "everywhere = 'lava'"), "'lava' is neither"),
        ("", SCENES.replace('place = "here"', "weight = 0"), "weight is 0; it must be above 0"),
        ("", SCENES.replace('place = "here"', "derive = ['rededge1']"), "the recipe has none"),
        (
            "teacher = 'landcover-ms'",
            SCENES.replace('place = "here"', "derive = ['nir']"),
            "derive names nir, which the network itself takes",
        ),
        ("split = {by = 'groups'}", PLAIN, "a has no group"),
        ("split = {by = 'groups'}", GROUPS, "chosen_by names no group"),
        ("split = {by = 'groups', chosen_by = ['sea']}", GROUPS, "'sea'; the groups are dry, wet"),
        (
            "split = {by = 'groups', chosen_by = ['wet']}",
            GROUPS.replace("there", "here"),
            "scenes of here are in several groups",
        ),
        ("cross_validation = {steps = 5}", SCENES, "split by groups, with one at least"),
        ("stages = 5", SCENES, "stages is 5; it must be a list of tables"),
        ('schedule = "flat"', SCENES, "schedule is 'flat'; it is one of cosine, poly"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, text: str, scenes: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load_config(write_recipe(tmp_path, text, scenes))


def test_a_misspelt_augmentation_is_an_error(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "", SCENES, "[augmentation]\nflip = true\n")
    with pytest.raises(TrainingError, match=r"augmentation: the keys \['flip'\] are unknown"):
        load_config(path)


def test_a_value_of_another_kind_is_explained(tmp_path: Path) -> None:
    for text in ('steps = "many"', 'ema = "0.9"', "gsd = [10.0]", 'chip = "wide"'):
        with pytest.raises(TrainingError, match=text.split()[0]):
            load_config(write_recipe(tmp_path, text, SCENES))
    tables = '[augmentation]\ngain = "much"\n'
    with pytest.raises(TrainingError, match="gain"):
        load_config(write_recipe(tmp_path, "", SCENES, tables))


def full_recipe(tmp_path: Path) -> TrainConfig:
    """Every field has a value that is not its default."""
    config = tiny_recipe(tmp_path, scenes=2)
    first, second = config.scenes
    first = replace(
        first,
        place="here",
        column="kind",
        ignore_label=(9, "cloud"),
        radius=2.5,
        bands=("nir", "red", "blue"),
        scale=2e-4,
        offset=-0.1,
        src_nodata=7.0,
        derive=("rededge1",),
        window=(0, 8, 80, 80),
        ignore=((0, 0, 4, 4), (5, 6, 7, 8)),
        label_map={"3": "trees", "4": "dry"},
        everywhere="dry",
        group="north",
    )
    return replace(
        config,
        description="d “é”",
        scenes=(first, replace(second, group="south")),
        split=SplitConfig("groups", 3, 2, 40, 5, chosen_by=("south",)),
        sets={"dry": ("trees", "bare")},
        label_values={"water": "#0000FE", "trees": 4},
        network_options={"width": 4, "depth": 1},
        normalization="log-logistic",
        normalization_parameters={"center": (0.1, 0.2, 0.3), "spread": (1.0, 2.0, 3.0)},
        clip=(0.0, 2.0),
        gsd=20.0,
        gsd_range=(15.0, 25.0),
        plausible={"blue": (0.0, 1.0)},
        license="MIT",
        provenance="p",
        teacher=tmp_path / "teacher",
        teacher_temperature=0.5,
        teacher_halo=4,
        teacher_views=8,
        classes=(*config.classes, ClassInfo(9, "fog", "#CCCCCC")),
        clouds=("fog",),
        laid_clouds=LaidClouds("water", "trees", "bare", share=0.1),
        invariance=Augmentation(gain=0.1, slope=0.1),
        accumulate=2,
        pool=40,
        fresh=3,
        loss="soft_ce+0.5*set_ce",
        aux_weight=0.3,
        class_weights=(1.0, 2.0, 3.0, 4.0),
        optimizer="sgd",
        encoder_rate=0.5,
        weight_decay=0.01,
        schedule="poly",
        precision="bfloat16",
        freeze_norm=0.75,
        balance=0.25,
        patience=3,
        keep="last",
        validation_gsds=(1.0, 2.0),
        seed=7,
        augmentation=WILD,
        start=Path("landcover-ms"),
        stages=({"steps": 3, "augmentation": {"ease": 1.0}}, {"chip": 24, "batch": 2}),
        cross_validation={"steps": 5},
    )


def test_a_dumped_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    for config in (full_recipe(tmp_path), tiny_recipe(tmp_path)):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        path = tmp_path / "elsewhere" / "recipe.json"
        path.write_text(dump_config(config), encoding="utf-8")
        again = load_config(path)
        assert again == config
        assert repr(again) == repr(config)  # which a checkpoint is known by
        json.loads(path.read_text(encoding="utf-8"))


def test_a_stage_differs_from_the_recipe_in_what_it_says_alone(tmp_path: Path) -> None:
    config = full_recipe(tmp_path)
    first, second, third = config.in_stages()
    assert first == replace(config, stages=(), cross_validation={})
    assert second == replace(first, steps=3, augmentation=replace(WILD, ease=1.0))
    assert third == replace(first, chip=24, batch=2)
    assert first.in_stages() == (first,)


def staged(tmp_path: Path, own: str, split: str = "split = {by = 'scenes'}") -> Path:
    stage = f"stages = [{{scenes = [{own.replace(chr(10), ' ')}], steps = 5}}]"
    return write_recipe(tmp_path, f"{split}\n{stage}", SCENES)


def test_a_stage_may_have_training_scenes_of_its_own(tmp_path):
    path = staged(tmp_path, SCENES.replace("a.tif", "fine.tif").replace("a_labels", "fine_labels"))
    config = load_config(path)
    first, second = config.in_stages()
    assert [s.path.name for s in first.scenes] == ["a.tif", "b.tif"]
    assert [s.path.name for s in second.scenes] == ["fine.tif", "b.tif"]
    assert second.scenes[0].labels == (tmp_path / "fine_labels.tif",)
    (tmp_path / "recipe.json").write_text(dump_config(config))
    assert repr(load_config(tmp_path / "recipe.json")) == repr(config)


@pytest.mark.parametrize(
    ("own", "split", "message"),
    [
        (SCENES.replace("b.tif", "c.tif"), "scenes", "holds out"),
        (SCENES.replace('"here"', '"there"'), "scenes", "stage 2: .*both sides"),
        (SCENES.splitlines()[0], "scenes", "stage 2: no scene has split"),
        ('{ path = "z.tif", labels = "y.tif" }', "blocks", "holds out"),
    ],
)
def test_a_stage_holds_out_what_the_first_one_does(tmp_path, own, split, message):
    path = staged(tmp_path, own, f"split = {{by = '{split}'}}")
    if split == "blocks":
        path.write_text(path.read_text().replace(', split = "validation"', ""))
    with pytest.raises(TrainingError, match=message):
        load_config(path)


def test_every_field_is_dumped(tmp_path: Path) -> None:
    """A recipe that is full has no default left but those few."""
    config = full_recipe(tmp_path)
    default = tiny_recipe(tmp_path)
    same = {f.name for f in fields(TrainConfig) if getattr(config, f.name) == f.default}
    assert same <= {"network", "quantity", "steps"}
    assert config.scenes != default.scenes
    document = json.loads(dump_config(config))
    assert set(document) == {f.name for f in fields(TrainConfig)}


def test_a_relative_path_is_dumped_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_recipe(Path("scenes"))
    assert not config.scenes[0].path.is_absolute()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(dump_config(config))
    again = load_config(tmp_path / "run" / "recipe.json")
    assert again.scenes[0].path == tmp_path / "scenes" / "scene0.tif"
    assert again.scenes[0].labels == (tmp_path / "scenes" / "scene0_labels.tif",)


def test_a_scene_has_a_name_and_a_place():
    scene = SceneConfig(Path("/x/tile.tif"))
    assert (scene.name, scene.where) == ("tile", "/x/tile.tif")
    assert replace(scene, place="alps").where == "alps"


def test_what_is_no_table_of_keys(tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(TrainingError, match="holds no table"):
        load_config(tmp_path / "list.json")
    with pytest.raises(TrainingError, match="can't be read"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(TrainingError, match="one at least of each"):
        make_config({"name": "x", "bands": [], "scenes": [{"path": "a.tif"}]}, tmp_path, "here")


def test_schedules_fall_from_one_to_zero() -> None:
    for schedule in SCHEDULES.values():
        values = [schedule(done) for done in np.linspace(0, 1, 20)]
        assert values[0] == 1.0 and values[-1] == pytest.approx(0.0, abs=1e-12)
        assert values == sorted(values, reverse=True)
    assert SCHEDULES["cosine"](0.5) == pytest.approx(0.5)
    assert SCHEDULES["poly"](0.75) == pytest.approx(0.25**0.9)


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_published_recipe_names_a_network_and_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEOSEG_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GEOSEG_TEACHER", str(tmp_path / "teacher"))
    monkeypatch.setenv("GEOSEG_PREPARED", str(tmp_path / "prepared"))
    # Globs stand for themselves, as the data are not here.
    monkeypatch.setattr("geoseg.training.recipe_file.find_files", list)
    monkeypatch.setattr(
        "geoseg.training.recipe_file.pair", lambda a, b, _: [(path, tuple(b)) for path in a]
    )
    monkeypatch.setattr("geoseg.training.joined_images.join", lambda parts, columns, _: parts[0])
    config = load_config(path)
    # A recipe of a further edition ends with its number.
    assert config.name == re.sub(r"-\d$", "", path.stem)
    options = {k: v for k, v in config.network_options.items() if k != "encoder_weights"}
    info = model_info(
        config.network, in_channels=len(config.bands), classes=len(config.classes), **options
    )
    assert config.inference["multiple"] % info.multiple == 0
    for scene in config.scenes:
        for file in (scene.path, *scene.labels):
            assert file.is_relative_to(tmp_path) or file.exists()
