"""geoseg.training and geoseg.data: reading, targets, chips, and runs on tiny synthetic scenes."""

import csv
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from geoseg.card import ClassInfo, ModelCard, Normalization, read_model
from geoseg.data import (
    Augmentation,
    ChipSampler,
    SceneConfig,
    TrainingScene,
    add_haze,
    coarsen,
    measure_normalization,
    read_pixels,
)
from geoseg.errors import BandError, OutputError, SceneError, TrainingError
from geoseg.losses import make_loss
from geoseg.models import create_model, load_network, model_info, save_model
from geoseg.models.normalize import normalize
from geoseg.recipe import SCHEDULES, TrainConfig, load_config
from geoseg.targets import label_probs, load_scene, teacher_probs
from geoseg.training import train

BANDS = ("blue", "red", "nir")
CLASSES = (
    ClassInfo(0, "water", "#0000FF"),
    ClassInfo(3, "trees", "#00FF00"),
    ClassInfo(7, "bare", "#AAAAAA"),
)
# Reflectance of each class in each band.
SPECTRA = np.array([[0.06, 0.03, 0.02], [0.03, 0.03, 0.35], [0.15, 0.25, 0.30]])
CPU = torch.device("cpu")


def write_raster(
    path: Path, array: np.ndarray, bands: tuple[str, ...] = (), **profile: Any
) -> Path:
    array = array if array.ndim == 3 else array[None]
    count, height, width = array.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=array.dtype,
            **profile,
        ) as dataset:
            dataset.write(array)
            for i, band in enumerate(bands, start=1):
                dataset.set_band_description(i, band)
    return path


def write_scene(folder: Path, name: str, seed: int, size: int = 48) -> tuple[Path, Path]:
    """A scene of blocks of three classes, x 10000, and its labels."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(3, size=(size // 8, size // 8))
    channel = blocks.repeat(8, axis=0).repeat(8, axis=1)
    pixels = SPECTRA[channel].transpose(2, 0, 1) + rng.normal(0, 0.01, (3, size, size))
    scene = write_raster(
        folder / f"{name}.tif",
        np.clip(pixels * 10000, 1, 65535).astype(np.uint16),
        BANDS,
        nodata=0,
    )
    ids = np.array([c.id for c in CLASSES], np.uint8)
    return scene, write_raster(folder / f"{name}_labels.tif", ids[channel])


def recipe(folder: Path, **changes: Any) -> TrainConfig:
    """A run of 12 steps that takes about a second."""
    scenes = []
    for seed, split in enumerate(("train", "train", "validation")):
        scene, labels = write_scene(folder, f"scene{seed}", seed)
        scenes.append(SceneConfig(scene, f"place{seed}", split, labels=labels))
    config = TrainConfig(
        name="tiny",
        description="",
        bands=BANDS,
        classes=CLASSES,
        scenes=tuple(scenes),
        network_options={"width": 4, "depth": 1},
        inference={"size": 64, "overlap": 16, "margin": 4, "multiple": 2},
        steps=12,
        batch=4,
        chip=16,
        learning_rate=1e-2,
        warmup=2,
        ema=0.9,
        every=4,
        augmentation=Augmentation(gain=0.02, haze=0.02, noise=0.002, mix=0.3, gsd_max=2.0),
    )
    return replace(config, **changes)


def rows_of(log: Path) -> list[dict[str, str]]:
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


# Whole runs


def test_training_learns_and_writes_a_model_folder(tmp_path: Path) -> None:
    config = recipe(tmp_path, steps=80, every=20, validation_gsds=(1.0, 2.0))
    card = train(config, tmp_path / "model")
    files = read_model(tmp_path / "model")
    assert files.card == card
    assert card.bands == BANDS and card.classes == CLASSES and card.margin == 4
    assert card.scores["at_10m"]["agreement"] > 0.9
    by_place = card.scores["agreement_by_place_at_10m"]
    assert by_place == {"place2": card.scores["at_10m"]["agreement"]}
    assert card.scores["held_out_pixels"] == 48 * 48
    rows = rows_of(tmp_path / "model.training" / "log.csv")
    assert [float(row["step"]) for row in rows] == [20, 40, 60, 80]
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert "mean_iou_20m" in rows[0]

    # The score is that of the weights in the folder, on the scene that was held out.
    pixels, _ = read_pixels(config.scenes[2].path, BANDS, config.scenes[2])
    with rasterio.open(config.scenes[2].labels) as dataset:  # type: ignore[arg-type]
        labels = dataset.read(1)
    with torch.inference_mode():
        x = normalize(torch.from_numpy(pixels)[None], card.normalization)
        channel = load_network(files)(x)[0].argmax(0).numpy()
    ids = np.array([c.id for c in CLASSES])
    share = float((ids[channel] == labels).mean())
    assert card.scores["at_10m"]["agreement"] == pytest.approx(share, abs=1e-3)


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    train(config, tmp_path / "straight")

    class PowerCutError(Exception):
        pass

    def cut(line: str) -> None:
        if line.startswith("step 8"):
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(config, tmp_path / "stopped", progress=cut)
    assert not (tmp_path / "stopped").exists()
    lines: list[str] = []
    train(config, tmp_path / "stopped", progress=lines.append)
    assert "going on after step 8 of 12" in lines
    assert not any(line.startswith("step 4") for line in lines)
    for name in ("weights.safetensors", "model.json"):
        straight, stopped = (tmp_path / run / name for run in ("straight", "stopped"))
        assert straight.read_bytes() == stopped.read_bytes(), name
    logs = [
        (tmp_path / f"{run}.training" / "log.csv").read_text() for run in ("straight", "stopped")
    ]
    assert logs[0] == logs[1]
    assert not (tmp_path / "stopped.training" / "checkpoint.pt").exists()


def stop_after_first_checkpoint(config: TrainConfig, output: Path) -> None:
    def cut(line: str) -> None:
        if line.startswith("step"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, output, progress=cut)


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    stop_after_first_checkpoint(config, tmp_path / "model")
    with pytest.raises(TrainingError, match="another recipe"):
        train(replace(config, seed=1), tmp_path / "model")
    lines: list[str] = []
    train(replace(config, seed=1), tmp_path / "model", resume=False, progress=lines.append)
    assert not any("going on" in line for line in lines)


def test_starting_anew_forgets_the_checkpoint_at_once(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    stop_after_first_checkpoint(config, tmp_path / "model")

    def cut(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "model", resume=False, progress=cut)
    lines: list[str] = []
    train(config, tmp_path / "model", progress=lines.append)
    assert not any("going on" in line for line in lines)


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    card = train(recipe(tmp_path, steps=40, every=40, precision="bfloat16"), tmp_path / "model")
    assert card.scores["at_10m"]["agreement"] > 0.8
    state = load_network(read_model(tmp_path / "model")).state_dict()
    assert all(v.dtype == torch.float32 for v in state.values() if v.is_floating_point())


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    stop_after_first_checkpoint(config, tmp_path / "model")
    checkpoint = tmp_path / "model.training" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt can't be read"):
        train(config, tmp_path / "model")


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    config = recipe(tmp_path, steps=2)
    train(config, tmp_path / "a")
    train(replace(config, seed=1), tmp_path / "b")
    assert read_model(tmp_path / "a").weights != read_model(tmp_path / "b").weights


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    config = recipe(tmp_path, learning_rate=1e30, warmup=0)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+"):
        train(config, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = recipe(tmp_path)
    missing = tuple(replace(scene, path=tmp_path / "gone.tif") for scene in config.scenes)
    with pytest.raises(OutputError, match="exists already"):
        train(replace(config, scenes=missing), tmp_path / "model")


def test_chips_lie_at_the_networks_own_multiple_unless_told_otherwise(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "network": "deeplabv3plus",
        "network_options": {"encoder": "test_resnet", "channels": 8},
        "steps": 1,
    }
    card = train(recipe(tmp_path, inference={}, **changes), tmp_path / "own")
    assert card.multiple == 16
    card = train(recipe(tmp_path, inference={"multiple": 32}, **changes), tmp_path / "told")
    assert card.multiple == 32


def test_an_unsound_card_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="overlap"):
        train(recipe(tmp_path, inference={"size": 32, "overlap": 40}), tmp_path / "model")


# Losses, optimizers and networks


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ce + 0.5*dice", "class_weights": "median_frequency"},
        {"loss": "focal(gamma=1)", "class_weights": (1.0, 0.5, 2.0), "schedule": "poly"},
        {"loss": "ohem(min_kept=64)", "optimizer": "sgd", "learning_rate": 0.1},
    ],
)
def test_labels_are_learned_with_any_loss(tmp_path: Path, changes: dict[str, Any]) -> None:
    card = train(recipe(tmp_path, steps=60, every=60, **changes), tmp_path / "model")
    assert card.scores["at_10m"]["agreement"] > 0.8


def test_a_target_of_labels_is_the_most_likely_class(tmp_path: Path) -> None:
    """On targets that are certain, hard and soft cross-entropy are one and the same."""
    config = recipe(tmp_path, steps=4, augmentation=Augmentation(mix=0.5))
    scenes = tuple(replace(scene, ignore=((0, 0, 20, 30),)) for scene in config.scenes)
    config = replace(config, scenes=scenes)
    states = []
    for loss in ("soft_ce", "ce"):
        train(replace(config, loss=loss), tmp_path / loss)
        states.append(load_network(read_model(tmp_path / loss)).state_dict())
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


def test_class_weights_are_measured_on_the_training_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(spec: str, **options: Any) -> Any:
        seen.append(options["weight"])
        return make_loss(spec, **options)

    monkeypatch.setattr("geoseg.training.make_loss", spy)
    config = recipe(tmp_path, steps=1, class_weights="median_frequency")
    water = np.zeros((48, 48), np.uint8)
    water[:3] = 255
    half = water.copy()
    half[3:, 24:] = 3
    for scene, labels in zip(config.scenes[:2], (water, half), strict=True):
        write_raster(scene.labels, labels)  # type: ignore[arg-type]
    train(config, tmp_path / "model")
    water_share, trees_share = 3 / 4, 1 / 2
    median = (water_share + trees_share) / 2
    np.testing.assert_allclose(seen[0], [median / water_share, median / trees_share, 1.0])


class Restless(torch.nn.Module):
    """Batch norm, dropout, and a dict of two outputs in training."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Conv2d(8, classes, 1)
        self.aux = torch.nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.nn.functional.dropout(self.norm(self.body(x)).relu(), 0.3, self.training)
        return {"out": self.head(x), "aux": self.aux(x)} if self.training else self.head(x)


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Networks are restless ones; gives what they were asked for."""
    asked: list[dict[str, Any]] = []

    def create(name: str, *, in_channels: int, classes: int, **options: Any) -> torch.nn.Module:
        asked.append(options)
        return Restless(in_channels, classes)

    monkeypatch.setattr("geoseg.training.create_model", create)
    return asked


def test_dropout_batch_norm_and_auxiliary_output_end_the_same_after_a_stop(
    tmp_path: Path, restless: list[dict[str, Any]]
) -> None:
    config = recipe(tmp_path, loss="ce+dice", optimizer="sgd")
    train(config, tmp_path / "straight")
    stop_after_first_checkpoint(config, tmp_path / "stopped")
    torch.rand(7)  # as much of torch's own randomness as anyone may have used meanwhile
    train(config, tmp_path / "stopped")
    straight, stopped = (read_model(tmp_path / run).weights for run in ("straight", "stopped"))
    assert straight == stopped
    train(replace(config, aux_weight=0.0), tmp_path / "without")
    assert read_model(tmp_path / "without").weights != straight


def test_pretrained_encoders_are_asked_for_once_and_with_the_bands(
    tmp_path: Path, restless: list[dict[str, Any]]
) -> None:
    options = {"encoder": "resnet18", "encoder_weights": "imagenet"}
    card = train(recipe(tmp_path, steps=1, network_options=options), tmp_path / "model")
    assert restless == [{**options, "bands": BANDS}]
    assert card.network_options == {"encoder": "resnet18"}


def test_the_smallest_batch_trains_through_batch_norm(tmp_path: Path) -> None:
    options = {"width": 4, "depth": 3}  # one pixel at the bottom
    card = train(
        recipe(tmp_path, steps=2, batch=1, chip=8, network_options=options), tmp_path / "model"
    )
    assert card.network_options == options


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (torch.nn.Conv2d(3, 3, 3), r"gives out of the shape \(4, 3, 14, 14\)"),
        (torch.nn.Conv2d(3, 5, 1), r"gives out of the shape \(4, 5, 16, 16\)"),
        (torch.nn.Conv2d(3, 3, 40), "fails on 4 chips of 16 px"),
    ],
)
def test_a_network_that_does_not_fit_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: torch.nn.Module, message: str
) -> None:
    monkeypatch.setattr("geoseg.training.create_model", lambda *_, **__: network)
    config = recipe(tmp_path)
    missing = tuple(replace(scene, path=tmp_path / "gone.tif") for scene in config.scenes)
    with pytest.raises(TrainingError, match=message):
        train(replace(config, scenes=missing), tmp_path / "model")


def test_schedules_fall_from_one_to_zero() -> None:
    for schedule in SCHEDULES.values():
        values = [schedule(done) for done in np.linspace(0, 1, 20)]
        assert values[0] == 1.0 and values[-1] == pytest.approx(0.0, abs=1e-12)
        assert values == sorted(values, reverse=True)
    assert SCHEDULES["cosine"](0.5) == pytest.approx(0.5)
    assert SCHEDULES["poly"](0.75) == pytest.approx(0.25**0.9)


# Recipes


def write_recipe(folder: Path, text: str, scenes: str = "") -> Path:
    path = folder / "recipe.toml"
    path.write_text(
        'name = "tiny"\ndescription = "d"\nbands = ["blue", "red", "nir"]\n'
        'classes = [{ id = 0, name = "water", color = "#0000FF" }]\n'
        f"{text}\nscenes = [\n{scenes}]\n"
    )
    return path


SPLIT = (
    '{ path = "a.tif", place = "here", labels = "a_labels.tif" },\n'
    '{ path = "b.tif", place = "there", labels = "/b_labels.tif", split = "validation" },\n'
)


def test_paths_start_at_the_recipe_and_variables_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSEG_TEST_PLACE", "/somewhere")
    text = 'folder = "scenes"\nteacher = "${GEOSEG_TEST_PLACE}/teacher"\nteacher_haze = [0.05]'
    config = load_config(write_recipe(tmp_path, text, SPLIT))
    assert config.scenes[0].path == tmp_path / "scenes" / "a.tif"
    assert config.scenes[1].labels == Path("/b_labels.tif")
    assert config.teacher == Path("/somewhere/teacher")
    assert config.teacher_haze == (0.05,)

    monkeypatch.delenv("GEOSEG_TEST_PLACE")
    with pytest.raises(TrainingError, match="GEOSEG_TEST_PLACE, which is not set"):
        load_config(write_recipe(tmp_path, text, SPLIT))


@pytest.mark.parametrize(
    ("text", "scenes", "message"),
    [
        ("learning_rat = 1", SPLIT, "learning_rat.*unknown"),
        ("", SPLIT.replace("there", "here"), "here.*both sides"),
        ("", SPLIT.replace("validation", "test"), "train or validation"),
        ("", SPLIT.splitlines()[0], "no scene has split = 'validation'"),
        ("", SPLIT.replace('labels = "a_labels.tif"', 'relabel = "lava"'), "lava.*water"),
        ("", SPLIT.replace(', labels = "a_labels.tif"', ""), "no labels.*no teacher"),
        ("", SPLIT.replace("place =", "plaice ="), "plaice"),
        ("", SPLIT.replace('place = "here", ', ""), "place"),
        ("", SPLIT.replace('labels = "a', 'look = "nice", labels = "a'), "look is 'nice'"),
        ("steps = 0", SPLIT, "steps is 0"),
        ('precision = "half"', SPLIT, "precision is 'half'"),
        ("steps = = 0", SPLIT, "can't be read"),
        ('loss = "dise"', SPLIT, "names 'dise'"),
        ('loss = "focal(gamma=-1)"', SPLIT, "gamma is -1"),
        ("aux_weight = -1", SPLIT, "aux_weight is -1"),
        ('class_weights = "often"', SPLIT, "class_weights is 'often'; it is 'none', 'median"),
        ("class_weights = [1, 2]", SPLIT, "2 numbers and the recipe 1 classes"),
        ("class_weights = [-1]", SPLIT, "each 0 at least"),
        ('class_weights = ["1"]', SPLIT, r"class_weights is \('1',\)"),
        ('loss = "dice"\nclass_weights = [1]', SPLIT, "no use for class weights"),
        ('loss = "dice"\nclass_weights = "median_frequency"', SPLIT, "no use for class weights"),
        ('optimizer = "lbfgs"', SPLIT, r"optimizer is 'lbfgs'; it is one of \['adamw', 'sgd'\]"),
        ('schedule = "flat"', SPLIT, r"schedule is 'flat'; it is one of \['cosine', 'poly'\]"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, text: str, scenes: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        load_config(write_recipe(tmp_path, text, scenes))


def test_loss_and_weights_come_from_the_recipe(tmp_path: Path) -> None:
    text = 'loss = "ce+0.5*dice"\nclass_weights = [2]\noptimizer = "sgd"\nschedule = "poly"'
    config = load_config(write_recipe(tmp_path, text, SPLIT))
    assert (config.loss, config.class_weights) == ("ce+0.5*dice", (2,))
    assert (config.optimizer, config.schedule) == ("sgd", "poly")


def test_a_misspelt_augmentation_is_an_error(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "", SPLIT)
    path.write_text(path.read_text() + "[augmentation]\nflip = true\n")
    with pytest.raises(TrainingError, match=r"augmentation: the keys \['flip'\] are unknown"):
        load_config(path)


def test_the_published_recipe_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_file = Path(__file__).parents[1] / "configs" / "landcover-ms.toml"
    monkeypatch.setenv("GEOSEG_DATA", "/data")
    monkeypatch.setenv("GEOSEG_TEACHER", "/teacher")
    config = load_config(recipe_file)
    assert len({scene.place for scene in config.scenes if scene.split == "validation"}) >= 5
    assert [c.id for c in config.classes] == list(range(9))
    assert all(band in config.plausible for band in config.bands)
    monkeypatch.delenv("GEOSEG_DATA")
    with pytest.raises(TrainingError, match="GEOSEG_DATA, which is not set"):
        load_config(recipe_file)


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_published_recipe_names_a_network_and_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOSEG_DATA", "/data")
    monkeypatch.setenv("GEOSEG_TEACHER", "/teacher")
    config = load_config(path)
    assert config.name == path.stem
    info = model_info(
        config.network,
        in_channels=len(config.bands),
        classes=len(config.classes),
        **config.network_options,
    )
    assert config.inference["multiple"] % info.multiple == 0
    outside = {"/data", "/teacher"}
    for scene in config.scenes:
        assert "/" + scene.path.parts[1] in outside or scene.path.exists()


# Reading


def test_pixels_come_as_reflectance_in_the_order_asked_for(tmp_path: Path) -> None:
    array = np.arange(1, 13, dtype=np.uint16).reshape(3, 2, 2) * 1000
    path = write_raster(tmp_path / "a.tif", array, ("B2", "B4", "B12"), nodata=0)
    config = SceneConfig(path, "here", offset=-0.1)
    pixels, valid = read_pixels(path, ("swir2", "blue"), config)
    np.testing.assert_allclose(pixels[0], array[2] * 1e-4 - 0.1, atol=1e-6)
    np.testing.assert_allclose(pixels[1], array[0] * 1e-4 - 0.1, atol=1e-6)
    assert pixels.dtype == np.float32 and valid.all()


def test_nodata_is_where_no_band_was_measured(tmp_path: Path) -> None:
    array = np.full((3, 2, 2), 500, np.uint16)
    array[:, 0, 0] = 0
    array[1, 1, 1] = 0  # one dark band does not void a pixel
    path = write_raster(tmp_path / "a.tif", array, BANDS, nodata=0)
    _, valid = read_pixels(path, BANDS, SceneConfig(path, "here"))
    assert valid.tolist() == [[False, True], [True, True]]


def test_nan_is_not_valid_and_not_passed_on(tmp_path: Path) -> None:
    array = np.full((3, 2, 2), 0.5, np.float32)
    array[2, 1, 0] = np.nan
    path = write_raster(tmp_path / "a.tif", array, BANDS)
    pixels, valid = read_pixels(path, BANDS, SceneConfig(path, "here", scale=1.0))
    assert valid.tolist() == [[True, True], [False, True]]
    assert np.isfinite(pixels).all()


def test_a_folder_of_bands_is_brought_to_the_finest_grid(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 80, 10, dtype=np.uint16), (8, 8))
    write_raster(tmp_path / "B02.tif", np.ascontiguousarray(ramp))
    # The same ramp on half the grid: each pixel the mean of two.
    write_raster(tmp_path / "B12.tif", np.ascontiguousarray(ramp[::2, ::2] + 5))
    pixels, valid = read_pixels(
        tmp_path, ("blue", "swir2"), SceneConfig(tmp_path, "here", scale=1.0)
    )
    assert pixels.shape == (2, 8, 8) and valid.all()
    np.testing.assert_allclose(pixels[1, :, 1:-1], pixels[0, :, 1:-1])

    write_raster(tmp_path / "B04.tif", np.zeros((8, 6), np.uint16))
    with pytest.raises(SceneError, match=r"sizes \[\(8, 6\), \(8, 8\)\]"):
        read_pixels(tmp_path, ("blue", "red"), SceneConfig(tmp_path, "here"))


def test_missing_bands_and_files_are_named(tmp_path: Path) -> None:
    path, _ = write_scene(tmp_path, "a", 0)
    with pytest.raises(BandError, match=r"no band swir1, swir2; it has blue, red, nir"):
        read_pixels(path, ("blue", "swir1", "swir2"), SceneConfig(path, "here"))
    with pytest.raises(BandError, match="3 bands and the recipe names 2"):
        read_pixels(path, BANDS, SceneConfig(path, "here", bands=("blue", "red")))
    with pytest.raises(SceneError, match=r"gone\.tif does not exist"):
        read_pixels(tmp_path / "gone.tif", BANDS, SceneConfig(path, "here"))
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(SceneError, match=r"text\.tif"):
        read_pixels(tmp_path / "text.tif", BANDS, SceneConfig(path, "here"))


def test_bands_named_in_the_recipe_go_before_the_files(tmp_path: Path) -> None:
    path, _ = write_scene(tmp_path, "a", 0)
    named = SceneConfig(path, "here", bands=("nir", "red", "blue"))
    swapped, _ = read_pixels(path, BANDS, named)
    plain, _ = read_pixels(path, BANDS, SceneConfig(path, "here"))
    np.testing.assert_array_equal(swapped, plain[::-1])


# Targets


def test_labels_become_channels_and_the_ignored_id_is_not_valid(tmp_path: Path) -> None:
    labels = np.array([[0, 3], [7, 255]], np.uint8)
    path = write_raster(tmp_path / "labels.tif", labels)
    probs, known = label_probs(path, [0, 3, 7], 255, (2, 2))
    assert probs.argmax(axis=0)[known].tolist() == [0, 1, 2]
    assert known.tolist() == [[True, True], [True, False]]
    assert not probs[:, 1, 1].any()


def test_labels_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", np.array([[0, 9]], np.uint8))
    with pytest.raises(TrainingError, match=r"hold \[9\]"):
        label_probs(path, [0, 3, 7], 255, (1, 2))
    with pytest.raises(TrainingError, match="1 x 2 px and the scene is 2 x 2"):
        label_probs(path, [0, 3, 7], 255, (2, 2))


@pytest.fixture
def teacher(tmp_path: Path) -> tuple[ModelCard, torch.nn.Module]:
    """A teacher of random weights that looks 6 px far."""
    torch.manual_seed(3)
    network = create_model("small_unet", in_channels=3, classes=3, width=4, depth=1).eval()
    with torch.no_grad():
        network.head.weight *= 20  # random weights alone have no opinion
    card = ModelCard(
        name="teacher",
        description="",
        network="small_unet",
        network_options={"width": 4, "depth": 1},
        bands=("nir", "blue", "red"),
        classes=CLASSES,
        gsd=10,
        gsd_range=(8, 13),
        normalization=Normalization("z-score", {"mean": (0.1,) * 3, "stddev": (0.1,) * 3}),
        size=32,
        overlap=16,
        margin=8,
        multiple=2,
    )
    save_model(card, network, tmp_path / "teacher")
    return card, network


def test_a_teacher_answers_a_scene_in_chips_as_it_would_at_once(
    teacher: tuple[ModelCard, torch.nn.Module],
) -> None:
    card, network = teacher
    pixels = np.random.default_rng(0).random((3, 75, 50), np.float32)
    with torch.inference_mode():
        x = normalize(torch.from_numpy(pixels)[None], card.normalization)
        whole = network(x).softmax(1)[0].numpy()
    np.testing.assert_allclose(teacher_probs(card, network, pixels, CPU), whole, atol=1e-3)


def test_a_scene_is_taught_by_teacher_pair_haze_class_and_windows(
    tmp_path: Path, teacher: tuple[ModelCard, torch.nn.Module]
) -> None:
    config = recipe(tmp_path, teacher=tmp_path / "teacher", teacher_haze=(0.02, 0.04))
    card, network = teacher
    path, other = config.scenes[0].path, config.scenes[1].path

    def taught(**changes: Any) -> TrainingScene:
        return load_scene(config, SceneConfig(path, "here", **changes), teacher, CPU)

    def answer(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        seen, _ = read_pixels(file, card.bands, SceneConfig(file, "here"))
        return teacher_probs(card, network, change(seen), CPU).astype(np.float32)

    plain = answer(path, lambda x: x)
    hazy = np.mean(
        [answer(path, lambda x, h=h: add_haze(x, card.bands, h)) for h in (0.02, 0.04)], 0
    )
    assert np.abs(plain - hazy).max() > 0.01
    np.testing.assert_allclose(taught(look="top-of-atmosphere").probs, plain, atol=2e-3)
    np.testing.assert_allclose(taught().probs, hazy, atol=2e-3)
    np.testing.assert_allclose(taught(teacher_haze=(0.0,)).probs, plain, atol=2e-3)
    np.testing.assert_allclose(taught(answer=other).probs, answer(other, lambda x: x), atol=2e-3)
    assert (taught(relabel="bare").probs.argmax(0) == 2).all()
    cut = taught(window=(8, 4, 30, 20), ignore=((0, 0, 10, 10),))
    assert cut.pixels.shape == (3, 30, 20) and cut.probs.shape == (3, 30, 20)
    assert not cut.valid[:2, :6].any() and cut.valid.sum() == 30 * 20 - 2 * 6
    np.testing.assert_array_equal(cut.pixels, taught().pixels[:, 8:38, 4:24])
    with pytest.raises(TrainingError, match="does not lie in"):
        taught(window=(40, 0, 20, 20))


def test_a_student_learns_from_a_teacher_folder(
    tmp_path: Path, teacher: tuple[ModelCard, torch.nn.Module]
) -> None:
    config = recipe(tmp_path, teacher=tmp_path / "teacher", steps=60, every=20)
    scenes = tuple(replace(scene, labels=None) for scene in config.scenes)
    card = train(replace(config, scenes=scenes), tmp_path / "model")
    assert "teacher" in card.scores["compared_with"]
    rows = rows_of(tmp_path / "model.training" / "log.csv")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_teacher_with_other_classes_is_refused(
    tmp_path: Path, teacher: tuple[ModelCard, torch.nn.Module]
) -> None:
    config = recipe(tmp_path, teacher=tmp_path / "teacher", classes=CLASSES[::-1])
    with pytest.raises(TrainingError, match="must be the same, in the same order"):
        train(config, tmp_path / "model")


# Numbers


def scene_of(
    pixels: np.ndarray, probs: np.ndarray, valid: np.ndarray | None = None, look: str = "surface"
) -> TrainingScene:
    return TrainingScene(
        SceneConfig(Path("memory.tif"), "here", look=look),
        pixels.astype(np.float32),
        probs.astype(np.float16),
        np.ones(pixels.shape[1:], bool) if valid is None else valid,
    )


def test_normalization_is_measured_without_nodata() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(0.3, 0.05, (2, 40, 40))
    valid = np.zeros((40, 40), bool)
    valid[:20] = True
    pixels[:, ~valid] = 0.0
    scene = scene_of(pixels, np.ones((1, 40, 40)), valid)
    measured = measure_normalization([scene], "z-score", None)
    assert measured.parameters["mean"] == pytest.approx(pixels[:, :20].mean((1, 2)), rel=1e-4)
    assert measured.parameters["stddev"] == pytest.approx(pixels[:, :20].std((1, 2)), rel=1e-3)


def test_log_logistic_puts_the_mean_of_the_logarithm_at_one_half() -> None:
    pixels = np.exp(np.random.default_rng(0).normal(-2, 0.5, (3, 50, 50)))
    scene = scene_of(pixels, np.ones((1, 50, 50)))
    measured = measure_normalization([scene], "log-logistic", (0.0, 2.0))
    y = np.log1p(50 * pixels.clip(0, 2))
    x = (np.expm1(y.mean((1, 2))) / 50)[None, :, None, None]
    middle = normalize(torch.from_numpy(x), measured)
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5), atol=1e-4, rtol=0)


def test_what_can_not_be_normalized_is_explained() -> None:
    flat = scene_of(np.ones((2, 8, 8)), np.ones((1, 8, 8)))
    with pytest.raises(TrainingError, match=r"bands \[0, 1\] hold one value"):
        measure_normalization([flat], "z-score", None)
    with pytest.raises(TrainingError, match="'min-max'"):
        measure_normalization([flat], "min-max", None)
    empty = scene_of(np.ones((2, 8, 8)), np.ones((1, 8, 8)), np.zeros((8, 8), bool))
    with pytest.raises(TrainingError, match="no training scene has a valid pixel"):
        measure_normalization([empty], "z-score", None)
    with pytest.raises(TrainingError, match="no training scene has a valid pixel"):
        ChipSampler([empty], ("red", "nir"), size=8, balance=0, augmentation=Augmentation())


def test_coarsening_averages_areas_and_leaves_out_what_is_not_valid() -> None:
    pixels = torch.tensor([[[1.0, 3.0, 5.0, 7.0], [1.0, 3.0, 5.0, 99.0]]])
    probs = torch.stack((pixels[0] / 100, 1 - pixels[0] / 100))
    valid = torch.tensor([[True, True, True, True], [True, True, True, False]])
    coarse, target, known = coarsen(pixels, probs, valid, (1, 2))
    torch.testing.assert_close(coarse, torch.tensor([[[2.0, 17 / 3]]]))
    torch.testing.assert_close(target.sum(0), torch.ones(1, 2))
    assert known.tolist() == [[True, True]]
    _, _, known = coarsen(pixels, probs, torch.zeros(2, 4, dtype=torch.bool), (1, 2))
    assert not known.any()


def test_haze_lifts_blue_most_and_can_be_taken_away() -> None:
    dark = np.full((3, 4, 4), 0.02, np.float32)
    blue, red, nir = (add_haze(dark, BANDS, 0.06) - dark).mean((1, 2))
    assert blue > red > nir > 0
    np.testing.assert_allclose(add_haze(add_haze(dark, BANDS, 0.06), BANDS, -0.06), dark, atol=1e-6)
    assert (add_haze(dark, BANDS, -0.5) >= 0).all()


# Chips


def image_is_target(size: int = 40) -> TrainingScene:
    """A scene whose second band is the probability of its second class."""
    share = np.random.default_rng(0).integers(257, size=(size, size)) / 256  # exact in float16
    return scene_of(np.stack((1 - share, share)), np.stack((1 - share, share)))


@pytest.mark.parametrize("size", [8, 40, 100])
def test_pixels_and_targets_move_together(size: int) -> None:
    changes = Augmentation(flips=True, mix=1.0, gsd_max=2.5, gsd_share=0.7)
    sampler = ChipSampler(
        [image_is_target()], ("red", "nir"), size=size, balance=0.5, augmentation=changes
    )
    pixels, probs, weight = sampler.batch(np.random.default_rng(0), 16)
    assert pixels.shape == probs.shape == (16, 2, size, size) and weight.shape == (16, size, size)
    torch.testing.assert_close(pixels, probs, atol=1e-5, rtol=0)
    assert pixels.std() > 0.1 and (weight == 1).all()


def test_chips_depend_on_their_generator_only() -> None:
    changes = Augmentation(gain=0.1, haze=0.1, noise=0.01, mix=0.5, gsd_max=2.0)
    samplers = [
        ChipSampler(
            [image_is_target()], ("blue", "nir"), size=16, balance=0.5, augmentation=changes
        )
        for _ in range(2)
    ]
    samplers[1].batch(np.random.default_rng(99), 3)
    first, second = (s.batch(np.random.default_rng(5), 4)[0] for s in samplers)
    assert torch.equal(first, second)
    assert not torch.equal(first, samplers[0].batch(np.random.default_rng(6), 4)[0])


def test_light_changes_pixels_and_not_targets() -> None:
    scene = image_is_target()
    plain, lit = (
        ChipSampler([scene], ("blue", "nir"), size=16, balance=0, augmentation=a)
        for a in (Augmentation(flips=False), Augmentation(flips=False, gain=0.1, noise=0.01))
    )
    (a, a_probs, _), (b, b_probs, _) = (s.batch(np.random.default_rng(1), 1) for s in (plain, lit))
    assert torch.equal(a_probs, b_probs)
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, a_probs, atol=1e-6, rtol=0)


def test_rare_classes_are_drawn_as_often_as_common_ones() -> None:
    probs = np.zeros((2, 200, 200))
    probs[0] = 1.0
    probs[:, 90:94, 90:94] = [[[0.0]], [[1.0]]]
    scene = scene_of(np.random.default_rng(0).random((2, 200, 200)), probs)

    def share(balance: float) -> float:
        sampler = ChipSampler(
            [scene], ("red", "nir"), size=8, balance=balance, augmentation=Augmentation()
        )
        _, target, _ = sampler.batch(np.random.default_rng(0), 200)
        return float(target[:, 1].amax(dim=(1, 2)).mean())

    assert share(0.0) < 0.05
    assert 0.35 < share(1.0) < 0.65


def test_chips_have_no_weight_where_the_scene_is_not_valid() -> None:
    valid = np.ones((40, 40), bool)
    valid[:, 20:] = False
    half = image_is_target()
    scene = replace(half, valid=valid, pixels=np.where(valid, half.pixels, 5.0).astype(np.float32))
    sampler = ChipSampler(
        [scene], ("red", "nir"), size=16, balance=0.0, augmentation=Augmentation(gsd_max=2.0)
    )
    pixels, _, weight = sampler.batch(np.random.default_rng(0), 32)
    assert 0 < weight.mean() < 1
    assert pixels[:, 1][weight == 1].max() < 1.01
