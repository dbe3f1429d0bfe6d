"""geoseg.training.run: whole runs on tiny synthetic scenes."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import rasterio.shutil
import shapely
import shapely.affinity
import torch
from PIL import Image

import geoseg.training.loop
import geoseg.training.process
from geoseg.cards.files import read_model
from geoseg.errors import DeviceError, GeosegError, OutputError, TrainingError
from geoseg.networks import load_network
from geoseg.networks.normalize import normalize
from geoseg.training.augment_options import Augmentation
from geoseg.training.loss_spec import make_loss
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import load_config
from geoseg.training.run import train
from geoseg.training.run_folder import RunFolder
from geoseg.training.scene_config import SceneConfig
from geoseg.training.split import MARGIN, VALIDATION, SplitConfig
from tests.helpers import make_raster
from tests.trainhelpers import (
    BANDS,
    CLASSES,
    IDS,
    SIZE,
    draw_classes,
    load_scenes,
    place_of,
    rows_of,
    split_kinds,
    tiny_recipe,
    write_teacher,
)

Event = dict[str, Any]


def weights_of(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(read_model(folder)).state_dict()


class PowerCutError(Exception):
    pass


def cut_at(when: Callable[[Event], bool]) -> Callable[[Event], None]:
    def progress(event: Event) -> None:
        if when(event):
            raise PowerCutError

    return progress


def stop_after(step: int, config: TrainConfig, output: Path, **options: Any) -> None:
    """Run until the checkpoint of a step is written."""
    with pytest.raises(PowerCutError):
        train(
            config,
            output,
            progress=cut_at(lambda e: e["event"] == "log" and e["step"] == step),
            **options,
        )
    assert not output.exists()


# What a run leaves


def test_training_learns_and_writes_a_model_folder(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, scenes=2, steps=80, every=20, validation_gsds=(1.0, 2.0))
    events: list[Event] = []
    card = train(config, tmp_path / "model", progress=events.append)
    files = read_model(tmp_path / "model")
    assert files.card == card
    assert card.bands == BANDS and card.classes == CLASSES and card.margin == 4
    assert card.scores["at_10m"]["agreement"] > 0.9
    assert card.taught is not None and card.taught.scenes == 2
    assert "labels" in card.scores["compared_with"] and "part 1 of 3" in card.scores["split"]
    rows = rows_of(tmp_path / "model.training" / "log.csv")
    assert [row["step"] for row in rows] == [20, 40, 60, 80]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert "mean_iou_20m" in rows[0]
    logged = [
        {k: v for k, v in {**e, **e["scores"]}.items() if k in rows[0]}
        for e in events
        if e["event"] == "log"
    ]
    assert logged == rows

    # The score is that of the weights in the folder, on what was held out.
    network = load_network(files)
    right, held_pixels = 0, 0
    for scene in load_scenes(config, tmp_path / "scratch"):
        held = scene.sides == VALIDATION
        pixels, _ = scene.cut(slice(0, SIZE), slice(0, SIZE), (VALIDATION, MARGIN))
        with torch.inference_mode():
            x = normalize(torch.from_numpy(pixels)[None], card.normalization)
            channel = network(x)[0].argmax(0).numpy()
        right += int((channel == scene.target)[held].sum())
        held_pixels += int(held.sum())
        assert card.scores["at_10m"]["agreement_by_scene"][scene.name] > 0.8
    assert card.scores["held_out_pixels"] == held_pixels
    assert card.scores["at_10m"]["agreement"] == pytest.approx(right / held_pixels, abs=2e-3)


def records(file: Path) -> list[Any]:
    """The events of a TensorBoard file: length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event as TensorBoardEvent

    data, at, found = file.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        found.append(TensorBoardEvent.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return found


def test_the_folder_beside_the_model(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path)
    train(config, tmp_path / "model")
    folder = tmp_path / "model.training"
    names = sorted(p.name for p in folder.iterdir() if "tfevents" not in p.name)
    assert names == ["curve.png", "held_out", "log.csv", "made-by-geoseg", "recipe.json"]
    assert load_config(folder / "recipe.json") == config
    assert Image.open(folder / "curve.png").size == (800, 450)
    (file,) = folder.glob("*tfevents*")
    rows = rows_of(folder / "log.csv")
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in records(file)
        for value in event.summary.value
    }
    expected = {(k, int(r["step"])): v for r in rows for k, v in r.items() if k != "step"}
    assert scalars == pytest.approx(expected, rel=1e-5)
    (scene,) = load_scenes(config, tmp_path / "scratch")
    with rasterio.open(folder / "held_out" / "scene0.tif") as dataset:
        np.testing.assert_array_equal(
            dataset.read(1), np.where(scene.sides == VALIDATION, IDS[draw_classes(0)], 255)
        )


# The same command ends with the same weights


class Restless(torch.nn.Module):
    """Batch norm, dropout, and a dict of two outputs in training."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Conv2d(8, classes, 1)
        self.aux = torch.nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.nn.functional.dropout(self.norm(self.encoder(x)).relu(), 0.3, self.training)
        return {"out": self.head(x), "aux": self.aux(x)} if self.training else self.head(x)


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Networks are restless ones; gives what they were asked for."""
    asked: list[dict[str, Any]] = []

    def create(name: str, *, in_channels: int, classes: int, **options: Any) -> torch.nn.Module:
        asked.append(options)
        return Restless(in_channels, classes)

    monkeypatch.setattr("geoseg.training.network_setup.create_model", create)
    return asked


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"accumulate": 3, "batch": 2},
    "pool": {"pool": 16, "fresh": 3},
    "last": {"keep": "last", "optimizer": "sgd", "loss": "ce+0.5*dice"},
    "bfloat16": {"precision": "bfloat16"},
    "patience": {"patience": 9, "schedule": "poly"},
}


def assert_same_run(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "model.json"):
        straight, stopped = (tmp_path / run / name for run in ("straight", "stopped"))
        assert straight.read_bytes() == stopped.read_bytes(), name
    logs = [rows_of(tmp_path / f"{run}.training" / "log.csv") for run in ("straight", "stopped")]
    assert logs[0] == logs[1]
    assert not (tmp_path / "stopped.training" / "checkpoint.pt").exists()
    assert not (tmp_path / "stopped.training" / "scratch").exists()


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS.keys())
def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny_recipe(tmp_path, **changes)
    train(config, tmp_path / "straight")
    stop_after(8, config, tmp_path / "stopped")
    torch.rand(7)  # as much of torch's own randomness as anyone may have used meanwhile
    events: list[Event] = []
    train(config, tmp_path / "stopped", progress=events.append)
    assert any(e.get("message") == "going on after step 8 of 12" for e in events)
    assert [e["step"] for e in events if e["event"] == "log"] == [12]
    assert_same_run(tmp_path)


def test_a_run_stopped_twice_and_between_checkpoints_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geoseg.training.process, "REPORT_EVERY", 0.0)
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(
        tmp_path, teacher=tmp_path / "teacher", teacher_halo=4, pool=16, accumulate=2, keep="best"
    )
    config = replace(config, scenes=tuple(replace(s, labels=()) for s in config.scenes))
    train(config, tmp_path / "straight")
    for step in (2, 7, 9):
        with pytest.raises(PowerCutError):
            train(
                config,
                tmp_path / "stopped",
                progress=cut_at(
                    lambda e, step=step: (e.get("stage"), e.get("done")) == ("train", step)
                ),
            )
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path)


@pytest.mark.parametrize("step", [2, 6])
def test_a_long_run_is_saved_between_validations_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the first one as well; what the log says of the losses is the same."""
    monkeypatch.setattr(geoseg.training.process, "REPORT_EVERY", 0.0)
    config = tiny_recipe(tmp_path, pool=16, accumulate=2)
    train(config, tmp_path / "straight")
    monkeypatch.setattr(geoseg.training.loop, "SAVE_EVERY", 0.0)
    with pytest.raises(PowerCutError):
        train(
            config,
            tmp_path / "stopped",
            progress=cut_at(lambda e: (e.get("stage"), e.get("done")) == ("train", step + 1)),
        )
    events: list[Event] = []
    train(config, tmp_path / "stopped", progress=events.append)
    assert any(e.get("message") == f"going on after step {step} of 12" for e in events)
    assert_same_run(tmp_path)


def test_a_short_run_is_saved_at_validations_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(RunFolder, "save", lambda _, state: saved.append(state["step"]))
    train(tiny_recipe(tmp_path), tmp_path / "model")
    assert saved == [4, 8, 12]


@pytest.mark.parametrize("when", ["log", "note"])
def test_a_run_stopped_when_its_patience_was_over_does_not_go_on(tmp_path: Path, when: str) -> None:
    config = tiny_recipe(tmp_path, steps=40, every=2, patience=2, learning_rate=0.0, keep="last")
    train(config, tmp_path / "straight")

    def over(event: Event) -> bool:
        if when == "note":
            return "validations: stopped" in event.get("message", "")
        return event["event"] == "log" and event["step"] == 6

    with pytest.raises(PowerCutError):
        train(config, tmp_path / "stopped", progress=cut_at(over))
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path)


def test_dropout_batch_norm_and_auxiliary_output_end_the_same_after_a_stop(
    tmp_path: Path, restless: list[dict[str, Any]]
) -> None:
    config = tiny_recipe(tmp_path, loss="ce+dice", optimizer="sgd", network_options={})
    train(config, tmp_path / "straight")
    stop_after(4, config, tmp_path / "stopped")
    torch.rand(7)
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path)
    train(replace(config, aux_weight=0.0), tmp_path / "without")
    assert weights_of(tmp_path / "without") != weights_of(tmp_path / "straight")


KILLED = """
import sys
from geoseg.training.run import train

def tell(event):
    if event["event"] == "log":
        print(int(event["step"]), flush=True)

train(sys.argv[1], sys.argv[2], progress=tell, threads=1)
"""


def test_a_killed_process_is_continued_by_the_same_command(tmp_path: Path) -> None:
    from geoseg.training.recipe_file import dump_config

    config = tiny_recipe(tmp_path, steps=400, every=4, pool=16)
    (tmp_path / "recipe.json").write_text(dump_config(config))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "recipe.json"), str(tmp_path / "stopped")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 8:
            break
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()
    left = tmp_path / "stopped.training"
    assert (left / "checkpoint.pt").exists() and (left / "scratch").exists()
    assert not (tmp_path / "stopped").exists()
    # No further than a little, as the whole run would take long.
    events: list[Event] = []
    stop = cut_at(lambda e: events.append(e) or (e["event"] == "log" and e["step"] >= 24))
    with pytest.raises(PowerCutError):
        train(config, tmp_path / "stopped", progress=stop, threads=1)
    (note,) = [e["message"] for e in events if "going on" in e.get("message", "")]
    assert int(note.split()[4]) >= 8
    last = int(max(e["step"] for e in events if e["event"] == "log"))
    stop_after(last, config, tmp_path / "straight", threads=1)
    states = [
        torch.load(tmp_path / f"{run}.training" / "checkpoint.pt", weights_only=True)
        for run in ("stopped", "straight")
    ]
    assert states[0]["step"] == states[1]["step"] == last
    for part in ("network", "average", "best"):
        for a, b in zip(states[0][part].values(), states[1][part].values(), strict=True):
            assert torch.equal(a, b)
    assert states[0]["log"] == states[1]["log"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_what_is_kept(number: int, tmp_path: Path) -> None:
    from geoseg.training.recipe_file import dump_config

    (tmp_path / "recipe.json").write_text(dump_config(tiny_recipe(tmp_path, steps=4000, every=4)))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "geoseg", "train", "recipe.json", "-o", "model"),
            *("--progress", "json", "--threads", "1"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "log":
            break
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "model.training holds is kept: the same command goes on" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "model").exists()
    left = {path.name for path in (tmp_path / "model.training").iterdir()}
    assert "checkpoint.pt" in left and "scratch" not in left


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, steps=2)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(config, seed=seed), tmp_path / name)
    assert weights_of(tmp_path / "a") == weights_of(tmp_path / "b")
    assert weights_of(tmp_path / "a") != weights_of(tmp_path / "c")


def test_accumulated_batches_are_one_step_of_the_batch_they_make(tmp_path: Path) -> None:
    """Where all pixels count the same and nothing looks at a batch as a whole."""
    config = tiny_recipe(tmp_path, network="linear", network_options={}, inference={}, steps=6)
    # Chips of a scene without a margin or held-out part in them.
    config = held_apart(config, tmp_path)
    train(config, tmp_path / "wide")
    train(replace(config, batch=1, accumulate=4), tmp_path / "narrow")
    torch.testing.assert_close(
        state_of(tmp_path / "wide"), state_of(tmp_path / "narrow"), rtol=1e-4, atol=1e-6
    )
    train(replace(config, batch=1), tmp_path / "other")
    moved = state_of(tmp_path / "other")["head.weight"] - state_of(tmp_path / "wide")["head.weight"]
    assert moved.abs().max() > 1e-4


def held_apart(config: TrainConfig, folder: Path) -> TrainConfig:
    """One scene to learn from and another one to judge by."""
    first, second = tiny_recipe(folder, scenes=2).scenes
    scenes = (first, replace(second, split="validation"))
    return replace(config, scenes=scenes, split=SplitConfig("scenes"))


@pytest.mark.parametrize("split", split_kinds(), ids=lambda s: s.by)
def test_the_network_learns_nothing_from_what_is_held_out(tmp_path: Path, split: Any) -> None:
    """Other held-out pixels, the same weights to the last bit."""
    config = tiny_recipe(tmp_path, scenes=3, split=split, keep="last", learning_rate=0.05)
    config = replace(config, class_weights="median_frequency")
    train(config, tmp_path / "before")
    scenes = load_scenes(config, tmp_path / "scratch")
    for scene in scenes:
        hidden = np.isin(scene.sides, (VALIDATION, MARGIN))
        with rasterio.open(scene.config.path, "r+") as dataset:
            values = dataset.read()
            values[:, hidden] = 5000
            dataset.write(values)
    train(config, tmp_path / "after")
    assert weights_of(tmp_path / "before") == weights_of(tmp_path / "after")
    a, b = (read_model(tmp_path / run).card for run in ("before", "after"))
    assert a.normalization == b.normalization
    assert a.scores != b.scores


# Checkpoints


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path)
    stop_after(4, config, tmp_path / "model")
    with pytest.raises(TrainingError, match="another recipe"):
        train(replace(config, seed=1), tmp_path / "model")
    events: list[Event] = []
    train(replace(config, seed=1), tmp_path / "model", resume=False, progress=events.append)
    assert not any("going on" in e.get("message", "") for e in events)


def test_starting_anew_forgets_the_checkpoint_at_once(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path)
    stop_after(4, config, tmp_path / "model")
    with pytest.raises(PowerCutError):
        train(config, tmp_path / "model", resume=False, progress=cut_at(lambda e: True))
    events: list[Event] = []
    train(config, tmp_path / "model", progress=events.append)
    assert not any("going on" in e.get("message", "") for e in events)


def test_an_existing_output_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = tiny_recipe(tmp_path)
    missing = tuple(replace(scene, path=tmp_path / "gone.tif") for scene in config.scenes)
    with pytest.raises(OutputError, match="exists already"):
        train(replace(config, scenes=missing), tmp_path / "model")


# Choosing weights, stopping early


def test_training_ends_when_patience_does(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, steps=40, every=2, patience=3, learning_rate=0.0)
    events: list[Event] = []
    card = train(config, tmp_path / "model", progress=events.append)
    rows = rows_of(tmp_path / "model.training" / "log.csv")
    # The first validation is the best one, and three more are no better.
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    assert any(e.get("message") == "no better for 3 validations: stopped" for e in events)
    assert card.scores["weights_of_step"] == 2


def test_the_best_weights_are_those_of_the_best_row(tmp_path: Path) -> None:
    config = tiny_recipe(
        tmp_path, steps=16, every=2, learning_rate=0.5, warmup=0, ema=0.0, optimizer="sgd"
    )
    card = train(config, tmp_path / "model")
    rows = rows_of(tmp_path / "model.training" / "log.csv")
    best = max(rows, key=lambda row: row["mean_iou_10m"])
    assert best is not rows[-1]
    assert card.scores["weights_of_step"] == best["step"]
    assert card.scores["at_10m"]["mean_iou"] == pytest.approx(best["mean_iou_10m"], abs=1e-4)
    stop_after(int(best["step"]), config, tmp_path / "stopped")
    checkpoint = torch.load(tmp_path / "stopped.training" / "checkpoint.pt", weights_only=True)
    state = state_of(tmp_path / "model")
    assert all(torch.equal(state[k], v) for k, v in checkpoint["average"].items())

    last = train(replace(config, keep="last"), tmp_path / "last")
    assert last.scores["weights_of_step"] == 16
    assert last.scores["at_10m"]["mean_iou"] == pytest.approx(rows[-1]["mean_iou_10m"], abs=1e-4)


# Labels and teachers


def polygons_of(folder: Path) -> Path:
    """The scene's classes as squares, by name."""
    target = draw_classes(0)[::8, ::8]
    shapes = [
        shapely.box(
            500000 + 80 * c, 5000000 - 80 * (r + 1), 500000 + 80 * (c + 1), 5000000 - 80 * r
        )
        for r, c in np.ndindex(target.shape)
    ]
    names = [CLASSES[k].name for k in target.flat]
    frame = geopandas.GeoDataFrame({"kind": names}, geometry=shapes, crs="EPSG:32633")
    frame.to_file(folder / "polygons.gpkg")
    return folder / "polygons.gpkg"


def test_polygons_and_rasters_of_the_same_labels_teach_the_same(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, steps=2)
    train(config, tmp_path / "raster")
    scene = replace(config.scenes[0], labels=(polygons_of(tmp_path),), column="kind")
    train(replace(config, scenes=(scene,)), tmp_path / "polygons")
    assert weights_of(tmp_path / "raster") == weights_of(tmp_path / "polygons")


def wrong_labels(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Of each kind of mistake: changes to the scene, and what is said."""
    polygons = polygons_of(folder)
    bare = geopandas.read_file(polygons).set_crs(None, allow_override=True)
    bare.to_file(folder / "bare.gpkg")
    nine = np.where(draw_classes(0) == 1, 9, 0).astype(np.uint8)[None]
    make_raster(folder / "nine.tif", nine, transform=place_of(0))
    make_raster(folder / "far.tif", nine * 0, transform=place_of(9))
    make_raster(folder / "bare.tif", nine * 0, crs=None)
    line = shapely.LineString([(500001, 4999801), (500801, 4999801)])
    thin = geopandas.GeoDataFrame({"class_id": [0]}, geometry=[line], crs="EPSG:32633")
    thin.to_file(folder / "thin.gpkg")
    return {
        "id": ({"labels": (folder / "nine.tif",)}, r"nine\.tif hold 9 \(\d+ px\)"),
        "place": ({"labels": (folder / "far.tif",)}, r"\(500000.*far\.tif over \(508640"),
        "crs": ({"labels": (folder / "bare.tif",)}, r"bare\.tif has no CRS"),
        "vector crs": ({"labels": (folder / "bare.gpkg",), "column": "kind"}, "has no CRS"),
        "column": ({"labels": (polygons,), "column": "sort"}, "no column 'sort'"),
        "file": ({"labels": (folder / "gone.tif",)}, r"gone\.tif: no such file"),
        "radius": ({"labels": (folder / "thin.gpkg",), "radius": 0.25}, "radius of 0.25 m"),
        "window": ({"window": (0, 0, 99, 99)}, "does not lie in its 96 x 96 px"),
    }


@pytest.mark.parametrize(
    "mistake", ["id", "place", "crs", "vector crs", "column", "file", "radius", "window"]
)
def test_labels_that_do_not_fit_are_told_before_anything_is_written(
    tmp_path: Path, mistake: str
) -> None:
    config = tiny_recipe(tmp_path)
    changes, message = wrong_labels(tmp_path)[mistake]
    before = sorted(tmp_path.iterdir())
    scenes = (replace(config.scenes[0], **changes),)
    with pytest.raises(GeosegError, match=message):
        train(replace(config, scenes=scenes), tmp_path / "model")
    assert sorted(tmp_path.iterdir()) == before


def test_a_student_learns_from_a_teacher_without_labels(tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher", network="linear", margin=0)
    config = tiny_recipe(
        tmp_path,
        teacher=tmp_path / "teacher",
        network="linear",
        network_options={},
        inference={},
        steps=80,
        every=20,
        learning_rate=0.1,
        pool=16,
    )
    config = replace(config, scenes=tuple(replace(s, labels=()) for s in config.scenes))
    card = train(config, tmp_path / "model")
    assert "teacher" in card.scores["compared_with"]
    rows = rows_of(tmp_path / "model.training" / "log.csv")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["agreement_10m"] > 0.8
    assert rows[-1]["scene_agreement_where_sure_10m"] >= rows[-1]["scene_agreement_10m"]
    # There are no labels to be written.
    assert not (tmp_path / "model.training" / "held_out").exists()


def test_where_labels_are_held_out_the_teachers_answers_judge_nothing(tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(tmp_path, 2, steps=1, teacher=tmp_path / "teacher")
    labelled, bare = config.scenes
    with rasterio.open(labelled.labels[0], "r+") as dataset:
        ids = dataset.read(1)
        ids[:, SIZE // 2 :] = 200
        dataset.write(ids, 1)
    scenes = (replace(labelled, ignore_label=(200,)), replace(bare, labels=()))
    card = train(replace(config, scenes=scenes), tmp_path / "model")
    with rasterio.open(tmp_path / "model.training" / "held_out" / "scene0.tif") as dataset:
        held = dataset.read(1) != 255
    assert 0 < held.sum() == card.scores["held_out_pixels"] and not held[:, SIZE // 2 :].any()
    assert card.scores["compared_with"] == "labels"
    assert "scene_agreement" not in card.scores["at_10m"]
    # Nothing labelled is held out: the teacher's answers are all there is, and the card says so.
    by_scenes = (scenes[0], replace(scenes[1], split="validation"))
    config = replace(config, scenes=by_scenes, split=SplitConfig("scenes"))
    card = train(config, tmp_path / "taught")
    assert card.scores["held_out_pixels"] == SIZE**2
    assert "no ground truth" in card.scores["compared_with"]


def test_images_that_no_label_reaches_are_left_out_and_told(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, 3)
    first, far, bare = config.scenes
    scenes = (first, replace(far, labels=first.labels), replace(bare, labels=()))
    config = replace(config, scenes=scenes)
    events: list[Event] = []
    train(config, tmp_path / "model", progress=events.append)
    told = [e["message"] for e in events if e["event"] == "warning"]
    assert any("no label of scene0_labels.tif lies" in text for text in told)
    assert any("scene2.tif has no labels: it is left out" in text for text in told)
    assert any("1 scene," in e.get("message", "") for e in events)
    with pytest.raises(TrainingError, match=r"no label of scene0_labels\.tif lies"):
        train(replace(config, scenes=scenes[1:]), tmp_path / "none")
    # A teacher knows of them all the same.
    teacher = tmp_path / "teacher"
    write_teacher(teacher)
    train(replace(config, teacher=teacher), tmp_path / "taught", progress=events.append)
    assert any("3 scenes" in e.get("message", "") for e in events)


# Stages


STAGES: tuple[dict[str, Any], ...] = (
    {"steps": 6, "every": 3, "learning_rate": 0.004},
    {"steps": 8, "every": 4, "chip": 24, "augmentation": {"gain": 0.0}},
)


def test_stages_are_runs_that_begin_with_the_weights_of_the_one_before(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, stages=STAGES)
    events: list[Event] = []
    card = train(config, tmp_path / "model", progress=events.append)
    told = [e["message"] for e in events if e["event"] == "note" and "stage" in e["message"]]
    assert told == [f"stage {i} of 3: {n} steps" for i, n in ((1, 12), (2, 6), (3, 8))]
    assert card.scores["weights_of_step"] in (4, 8)
    # By hand: three recipes, each with the model of the one before as its start.
    first, second, third = config.in_stages()
    train(first, tmp_path / "one")
    train(replace(second, start=tmp_path / "one"), tmp_path / "two")
    train(replace(third, start=tmp_path / "two"), tmp_path / "three")
    by_hand = (tmp_path / "three" / "weights.safetensors").read_bytes()
    assert (tmp_path / "model" / "weights.safetensors").read_bytes() == by_hand
    assert by_hand != (tmp_path / "two" / "weights.safetensors").read_bytes()
    before, after = state_of(tmp_path / "one"), state_of(tmp_path / "three")
    far = max(float((after[k] - v).abs().max()) for k, v in before.items() if v.ndim > 1)
    assert 0 < far < 0.2  # it went on from there, and did not begin anew


@pytest.mark.parametrize("where", [(12, 4), (6, 3), (8, 4)])
def test_a_run_stopped_in_any_stage_ends_the_same(tmp_path: Path, where: tuple[int, int]) -> None:
    config = tiny_recipe(tmp_path, stages=STAGES)
    train(config, tmp_path / "straight")
    stage = 0

    def cut(event: Event) -> None:
        nonlocal stage
        steps, step = where
        stage = steps if f": {steps} steps" in str(event.get("message")) else stage
        if stage == steps and event["event"] == "log" and event["step"] == step:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(config, tmp_path / "stopped", progress=cut)
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path)


def test_a_finished_stage_of_another_recipe_is_refused(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, stages=STAGES)

    def cut(event: Event) -> None:
        if "stage 2" in str(event.get("message")):
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(config, tmp_path / "model", progress=cut)
    with pytest.raises(TrainingError, match="stage1 is a stage of another recipe"):
        train(replace(config, seed=5), tmp_path / "model")
    train(replace(config, seed=5), tmp_path / "model", resume=False)


def test_a_model_to_begin_with(tmp_path: Path) -> None:
    """With other classes its head begins anew, and its normalization is kept."""
    card = train(tiny_recipe(tmp_path), tmp_path / "first")
    config = tiny_recipe(tmp_path, start=tmp_path / "first", learning_rate=0.0, ema=0.0)
    again = train(config, tmp_path / "again")
    assert again.normalization == card.normalization
    first = state_of(tmp_path / "first")
    for name, value in state_of(tmp_path / "again").items():
        if name.endswith("weight"):
            torch.testing.assert_close(value, first[name])
    two = replace(config, classes=config.classes[:2], label_values={})
    scene = replace(config.scenes[0], ignore_label=(config.classes[2].id,))
    train(replace(two, scenes=(scene,)), tmp_path / "two")
    state = state_of(tmp_path / "two")
    assert state["head.weight"].shape[0] == 2
    same = [k for k, v in state.items() if k.endswith("weight") and torch.equal(v, first[k])]
    assert len(same) >= 2 and "head.weight" not in same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("red", "nir", "blue")}, "has the bands"),
        ({"network_options": {"width": 8, "depth": 2}}, "give its own network and options"),
    ],
)
def test_a_model_that_does_not_fit_is_no_beginning(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    train(tiny_recipe(tmp_path), tmp_path / "first")
    config = tiny_recipe(tmp_path, start=tmp_path / "first", **changes)
    with pytest.raises(TrainingError, match=message):
        train(config, tmp_path / "second")


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("stages", [(), STAGES[:1]])
def test_two_runs_do_not_share_a_folder(
    tmp_path: Path, resume: bool, stages: tuple[dict[str, Any], ...]
) -> None:
    """The second one takes nothing from the first: no checkpoint, no finished stage."""
    config = tiny_recipe(tmp_path, stages=stages)
    folder = tmp_path / "model.training"
    kept: list[tuple[set[Path], set[Path]]] = []

    def rival(event: Event) -> None:
        if event["event"] == "log" and event["step"] == (3 if stages else 4):
            before = set(folder.rglob("*"))
            with pytest.raises(OutputError, match="another run is at work"):
                train(config, tmp_path / "model", resume=resume)
            kept.append((before, set(folder.rglob("*"))))

    train(config, tmp_path / "model", progress=rival)
    ((before, after),) = kept
    assert before == after and folder / "checkpoint.pt" in after
    assert not stages or folder / "stage1" in after
    assert not (folder / ".lock").exists()


def test_starting_anew_forgets_later_stages_too(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, stages=STAGES)

    def cut(stage: str) -> None:
        heard: list[str] = []

        def progress(event: Event) -> None:
            heard.append(str(event.get("message")))
            if event["event"] == "log" and any(stage in text for text in heard):
                raise PowerCutError

        with pytest.raises(PowerCutError):
            train(config, tmp_path / "model", progress=progress, resume=stage == "stage 2")

    cut("stage 2")
    cut("stage 1")
    train(config, tmp_path / "model")


def virtual(path: Path, source: Path) -> Path:
    """A virtual raster of another one."""
    rasterio.shutil.copy(source, path, driver="VRT")
    return path


def changed_files(folder: Path, config: TrainConfig) -> dict[str, tuple[SceneConfig, Path]]:
    """Of each kind: a scene, and one of its files that the recipe does not name."""
    (scene,) = config.scenes
    polygons = geopandas.read_file(polygons_of(folder))
    polygons.to_file(folder / "polygons.shp")
    safe = folder / "S2B_MSIL2A_20200223T032739_N0214_R018_T33TTG_20200223T072222.SAFE"
    bands = safe / "GRANULE" / "L2A_T33TTG" / "IMG_DATA" / "R10m"
    bands.mkdir(parents=True)
    with rasterio.open(scene.path) as dataset:
        for index, code in enumerate(("B02", "B04", "B08"), start=1):
            band = make_raster(folder / "band.tif", dataset.read([index]), transform=place_of(0))
            path = bands / f"T33TTG_20200223T032739_{code}_10m.jp2"
            rasterio.shutil.copy(band, path, driver="JP2OpenJPEG")
    shape = folder / "polygons.shp"
    image, labels = virtual(folder / "image.vrt", scene.path), scene.labels[0]
    mask = virtual(folder / "mask.vrt", labels)
    return {
        "labels": (scene, labels),
        "table": (replace(scene, labels=(shape,), column="kind"), shape.with_suffix(".dbf")),
        "virtual labels": (replace(scene, labels=(mask,)), labels),
        "virtual image": (replace(scene, path=image), scene.path),
        "band": (replace(scene, path=safe), next(bands.iterdir())),
    }


@pytest.mark.parametrize("kind", ["labels", "table", "virtual labels", "virtual image", "band"])
def test_labels_and_scenes_that_changed_since_are_not_continued(tmp_path: Path, kind: str) -> None:
    config = tiny_recipe(tmp_path)
    scene, file = changed_files(tmp_path, config)[kind]
    config = replace(config, scenes=(scene,))
    stop_after(4, config, tmp_path / "model")
    os.utime(file, ns=(0, 0))
    with pytest.raises(TrainingError, match="scenes or labels have changed since"):
        train(config, tmp_path / "model")
    train(config, tmp_path / "model", resume=False)


def test_outputs_beside_and_within_a_scene_change_nothing(tmp_path: Path) -> None:
    """A folder of bands may hold the model, and a label file lie beside a map of the same name."""
    config = tiny_recipe(tmp_path)
    (scene,) = config.scenes
    folder = tmp_path / "bands"
    folder.mkdir()
    with rasterio.open(scene.path) as dataset:
        for index, name in enumerate(BANDS, start=1):
            values, where = dataset.read([index]), dataset.transform
            make_raster(folder / f"{name}.tif", values, transform=where, nodata=0)
    config = replace(config, scenes=(replace(scene, path=folder),))
    stop_after(4, config, folder / "model")
    scene.labels[0].with_suffix(".geojson").touch()
    events: list[Event] = []
    train(config, folder / "model", progress=events.append)
    assert any(e.get("message") == "going on after step 4 of 12" for e in events)


def test_warnings_about_what_flatters_or_is_missing(tmp_path: Path) -> None:
    def warned(config: TrainConfig, name: str) -> str:
        events: list[Event] = []
        train(replace(config, steps=1), tmp_path / name, progress=events.append)
        return " ".join(e["message"] for e in events if e["event"] == "warning")

    config = tiny_recipe(tmp_path)
    assert warned(config, "plain") == ""
    random = replace(config, split=SplitConfig("random", folds=4))
    assert "the scores flatter" in warned(random, "random")
    with rasterio.open(config.scenes[0].labels[0], "r+") as dataset:
        ids = dataset.read(1)
        dataset.write(np.where(ids == 7, 0, ids), 1)
    assert "no training pixel is bare" in warned(config, "missing")
    polygons = geopandas.read_file(polygons_of(tmp_path))
    # Four rows of pixels of this square, and of the one below, and as many columns.
    bare = shapely.affinity.translate(polygons.geometry[0], 0, -40)
    over = geopandas.GeoDataFrame({"kind": ["bare"]}, geometry=[bare], crs=polygons.crs)
    pandas.concat([polygons, over]).to_file(tmp_path / "over.gpkg")
    scene = replace(config.scenes[0], labels=(tmp_path / "over.gpkg",), column="kind")
    others = sum(32 for name in polygons["kind"][[0, 12]] if name != "bare")
    assert others
    assert (
        f"shapes of different classes overlap in {others} pixels, {others} of them in "
        f"{scene.path}; these have no label"
    ) in warned(replace(config, scenes=(scene,)), "over")


def test_a_gsd_at_which_nothing_is_left_is_told_before_the_first_step(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(TrainingError, match="nothing held out is left at 40 times the gsd of 10 m"):
        train(
            tiny_recipe(tmp_path, validation_gsds=(1.0, 40.0)),
            tmp_path / "model",
            progress=events.append,
        )
    assert not any(e.get("stage") == "train" for e in events)


def test_scenes_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, steps=1)
    other = tiny_recipe(tmp_path / "other", steps=1)
    config = replace(config, scenes=(*config.scenes, *other.scenes))
    card = train(config, tmp_path / "model")
    assert set(card.scores["at_10m"]["agreement_by_scene"]) == {"scene0.tif", "other/scene0.tif"}
    names = sorted(p.name for p in (tmp_path / "model.training" / "held_out").iterdir())
    assert names == ["other-scene0.tif", "scene0.tif"]


def test_a_sharpened_teachers_own_softness_goes_into_the_card(tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher")
    config = tiny_recipe(tmp_path, steps=1, teacher=tmp_path / "teacher", teacher_temperature=0.5)
    assert train(config, tmp_path / "labels").temperature == 1.0
    bare = replace(config, scenes=tuple(replace(s, labels=()) for s in config.scenes))
    assert train(bare, tmp_path / "model").temperature == 2.0


# Losses, optimizers and networks


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ce + 0.5*dice", "class_weights": "median_frequency"},
        {"loss": "focal(gamma=1)", "class_weights": (1.0, 0.5, 2.0), "schedule": "poly"},
        {"loss": "ohem(min_kept=64)", "optimizer": "sgd", "learning_rate": 0.1},
        {"precision": "bfloat16"},
    ],
)
def test_labels_are_learned_with_any_loss(tmp_path: Path, changes: dict[str, Any]) -> None:
    card = train(tiny_recipe(tmp_path, steps=60, every=60, **changes), tmp_path / "model")
    assert card.scores["at_10m"]["agreement"] > 0.8
    state = state_of(tmp_path / "model")
    assert all(v.dtype == torch.float32 for v in state.values() if v.is_floating_point())


def test_a_target_of_labels_is_the_most_likely_class(tmp_path: Path) -> None:
    """On targets that are certain, hard and soft cross-entropy are one and the same."""
    config = tiny_recipe(tmp_path, steps=4, augmentation=Augmentation(mix=0.5))
    scenes = tuple(replace(scene, ignore=((0, 0, 20, 30),)) for scene in config.scenes)
    config = replace(config, scenes=scenes)
    states = []
    for loss in ("soft_ce", "ce"):
        train(replace(config, loss=loss), tmp_path / loss)
        states.append(state_of(tmp_path / loss))
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


def test_class_weights_are_measured_on_the_training_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(spec: str, **options: Any) -> Any:
        seen.append(options["weight"])
        return make_loss(spec, **options)

    monkeypatch.setattr("geoseg.training.loop.make_loss", spy)
    config = tiny_recipe(tmp_path, scenes=3, steps=1, class_weights="median_frequency")
    split = [*config.scenes[:2], replace(config.scenes[2], split="validation")]
    scenes = tuple(replace(s, ignore_label=(255,)) for s in split)
    config = replace(config, scenes=scenes, split=SplitConfig("scenes"))
    water = np.zeros((SIZE, SIZE), np.uint8)
    water[:6] = 255
    half = water.copy()
    half[6:, SIZE // 2 :] = 3
    for number, (scene, labels) in enumerate(zip(scenes[:2], (water, half), strict=True)):
        make_raster(scene.labels[0], labels[None], transform=place_of(number))
    train(config, tmp_path / "model")
    water_share, trees_share = 3 / 4, 1 / 2
    median = (water_share + trees_share) / 2
    np.testing.assert_allclose(seen[0], [median / water_share, median / trees_share, 1.0])


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_chips(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, learning_rate=1e30, warmup=0)
    with pytest.raises(
        TrainingError,
        match=r"the loss is (nan|inf) at step \d+, with chips of scene0 around row \d+, column \d+",
    ):
        train(config, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_learning_rate_beyond_float32_is_told(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, learning_rate=1e38, warmup=0)
    with pytest.raises(TrainingError, match=r"beyond float32 at step 1 .*lower learning_rate"):
        train(config, tmp_path / "model")


def test_chips_that_memory_can_not_hold_are_told(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path, chip=2_000_000)
    with pytest.raises(
        TrainingError, match=r"4 chips of 2000000 px .*memory.*; change batch, chip"
    ):
        train(config, tmp_path / "model")


def test_the_encoder_learns_at_its_own_rate(tmp_path: Path, restless: list[dict[str, Any]]) -> None:
    changes = {"optimizer": "sgd", "weight_decay": 0.0, "ema": 0.0, "warmup": 0, "keep": "last"}
    config = tiny_recipe(tmp_path, steps=1, network_options={}, **changes)
    torch.manual_seed(config.seed)
    first = Restless(3, 3).state_dict()
    steps = {}
    for rate in (1.0, 0.25, 0.0):
        train(replace(config, encoder_rate=rate), tmp_path / str(rate))
        from safetensors.torch import load_file

        state = load_file(tmp_path / str(rate) / "weights.safetensors")
        steps[rate] = {k: v - first[k] for k, v in state.items() if v.is_floating_point()}
    for name, step in steps[1.0].items():
        if name == "encoder.weight":
            assert step.abs().max() > 1e-4
            torch.testing.assert_close(steps[0.25][name], 0.25 * step, rtol=1e-2, atol=1e-6)
            assert not steps[0.0][name].any()
        elif not name.startswith("encoder"):
            torch.testing.assert_close(steps[0.25][name], step)


@pytest.mark.parametrize(("share", "still"), [(0.5, True), (0.75, False), (1.0, False)])
def test_batch_norms_stay_as_they_are_after_a_share_of_the_steps(
    share: float, still: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}
    save = RunFolder.save

    def spy(self: RunFolder, state: dict[str, Any]) -> None:
        seen[state["step"]] = {k: v.clone() for k, v in state["network"].items()}
        save(self, state)

    monkeypatch.setattr(RunFolder, "save", spy)
    train(tiny_recipe(tmp_path, steps=8, every=4, freeze_norm=share), tmp_path / "model")
    for name, before in seen[4].items():
        same = torch.equal(before, seen[8][name])
        if "running" in name:
            assert same == still, name
        elif name.endswith("weight"):
            assert not same, name


def test_a_rate_for_an_encoder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = tiny_recipe(
        tmp_path, network="linear", network_options={}, inference={}, encoder_rate=0.5
    )
    with pytest.raises(TrainingError, match="'linear' has no encoder"):
        train(config, tmp_path / "model")


def test_pretrained_encoders_are_asked_for_once_and_with_the_bands(
    tmp_path: Path, restless: list[dict[str, Any]]
) -> None:
    options = {"encoder": "resnet18", "encoder_weights": "imagenet"}
    card = train(tiny_recipe(tmp_path, steps=1, network_options=options), tmp_path / "model")
    assert restless == [{**options, "bands": BANDS}]
    assert card.network_options == {"encoder": "resnet18"}


def test_the_smallest_batch_trains_through_batch_norm(tmp_path: Path) -> None:
    options = {"width": 4, "depth": 3}  # one pixel at the bottom
    config = tiny_recipe(tmp_path, steps=2, batch=1, chip=8, network_options=options)
    config = replace(config, inference={})
    assert train(config, tmp_path / "model").network_options == options


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
    monkeypatch.setattr("geoseg.training.network_setup.create_model", lambda *_, **__: network)
    config = tiny_recipe(tmp_path)
    missing = tuple(replace(scene, path=tmp_path / "gone.tif") for scene in config.scenes)
    with pytest.raises(TrainingError, match=message):
        train(replace(config, scenes=missing), tmp_path / "model")


def test_chips_lie_at_the_networks_own_multiple_unless_told_otherwise(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "network": "deeplabv3plus",
        "network_options": {"encoder": "test_resnet", "channels": 8},
        "steps": 1,
    }
    card = train(tiny_recipe(tmp_path, inference={}, **changes), tmp_path / "own")
    assert card.multiple == 16
    card = train(tiny_recipe(tmp_path, inference={"multiple": 32}, **changes), tmp_path / "told")
    assert card.multiple == 32


def test_an_unsound_card_is_refused_before_training(tmp_path: Path) -> None:
    events: list[Event] = []
    config = tiny_recipe(tmp_path, inference={"size": 32, "overlap": 40})
    with pytest.raises(TrainingError, match="overlap"):
        train(config, tmp_path / "model", progress=events.append)
    assert not any(e.get("stage") == "train" for e in events)


# Devices


def test_what_a_device_can_not_do_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    config = tiny_recipe(tmp_path)
    missing = tuple(replace(scene, path=tmp_path / "gone.tif") for scene in config.scenes)
    config = replace(config, scenes=missing)
    with pytest.raises(TrainingError, match="float16 is for CUDA: use bfloat16"):
        train(replace(config, precision="float16"), tmp_path / "model", device="cpu")
    for devices in (3, 0):
        with pytest.raises(TrainingError, match=f"batch is 4 chips for {devices} devices"):
            train(config, tmp_path / "model", device="cpu", devices=devices)
    with pytest.raises(DeviceError):
        train(config, tmp_path / "model", device="gpu")


def test_threads_are_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(tiny_recipe(tmp_path, steps=1), tmp_path / "model", device="cpu", threads=before + 1)
    assert torch.get_num_threads() == before


SHARED = """
import sys
from geoseg.training.run import train

if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], device="cpu", devices=2, threads=1)
    try:
        train(sys.argv[3], sys.argv[4], device="cpu", devices=2, threads=1)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Where all pixels count the same and nothing looks at a batch as a whole."""
    from geoseg.training.recipe_file import dump_config

    config = tiny_recipe(tmp_path, network="linear", network_options={}, inference={}, accumulate=2)
    config = held_apart(config, tmp_path)
    (tmp_path / "recipe.json").write_text(dump_config(config))
    far = replace(config.scenes[0], labels=config.scenes[1].labels)
    wrong = replace(config, scenes=(far, config.scenes[1]))
    (tmp_path / "wrong.json").write_text(dump_config(wrong))
    (tmp_path / "script.py").write_text(textwrap.dedent(SHARED))
    one, two = tmp_path / "one", tmp_path / "two"
    train(config, one, device="cpu", threads=1)
    arguments = [tmp_path / "recipe.json", two, tmp_path / "wrong.json", tmp_path / "three"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(geoseg.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(state_of(one), state_of(two), rtol=1e-3, atol=1e-5)
    a, b = (read_model(folder).card.scores for folder in (one, two))
    assert a["at_10m"]["agreement"] == pytest.approx(b["at_10m"]["agreement"], abs=0.01)
    a_rows, b_rows = (rows_of(tmp_path / f"{n}.training" / "log.csv") for n in ("one", "two"))
    assert [r["step"] for r in a_rows] == [r["step"] for r in b_rows]
    # What one of the processes says comes out as it said it.
    assert "Error no pixel on the training side is measured and has a target" in done.stdout
    assert not (tmp_path / "three").exists()
