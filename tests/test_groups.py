"""Groups of places: which learn, which choose, which are left out, and the scores of each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geoseg.cards.files import read_model
from geoseg.errors import TrainingError
from geoseg.evaluation.metrics import mean_iou, pixel_accuracy
from geoseg.networks import load_network
from geoseg.training.cross_validation import runs_of
from geoseg.training.recipe import TrainConfig
from geoseg.training.run import train
from geoseg.training.split import FINAL, TRAIN, VALIDATION, SplitConfig
from geoseg.training.validation import by_group, judge
from tests.test_training import PowerCutError, cut_at, weights_of
from tests.trainhelpers import load_scenes, tiny_recipe, write_teacher

pytestmark = pytest.mark.extra("train")
GROUPS = ("desert", "wood", "town", "coast")


def grouped(folder: Path, left_out: tuple[str, ...] = (), **changes: Any) -> TrainConfig:
    """Four scenes, each a group; one chooses."""
    config = tiny_recipe(folder, scenes=4)
    scenes = tuple(replace(s, group=g) for s, g in zip(config.scenes, GROUPS, strict=True))
    split = SplitConfig("groups", chosen_by=("desert",), left_out=left_out)
    return replace(config, scenes=scenes, split=split, keep="last", **changes)


def test_each_group_is_on_its_side(tmp_path):
    config = grouped(tmp_path, ("town",))
    sides = [np.unique(s.sides).tolist() for s in load_scenes(config, tmp_path / "scratch")]
    assert sides == [[VALIDATION], [TRAIN], [FINAL], [TRAIN]]


def test_nothing_is_learned_or_chosen_from_a_group_that_is_left_out(tmp_path):
    """Other pixels there: the same weights to the last bit, the same log, another final score."""
    config = replace(grouped(tmp_path, ("town",)), keep="best", class_weights="median_frequency")
    before = train(config, tmp_path / "before")
    path = config.scenes[2].path
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.full((3, 96, 96), 5000, np.uint16))
    after = train(config, tmp_path / "after")
    assert weights_of(tmp_path / "before") == weights_of(tmp_path / "after")
    logs = [(tmp_path / f"{run}.training" / "log.csv").read_text() for run in ("before", "after")]
    assert logs[0] == logs[1]
    assert before.normalization == after.normalization
    assert before.scores["at_10m"] == after.scores["at_10m"]
    assert before.scores["left_out"] != after.scores["left_out"]
    assert list(after.scores["left_out"]["by_group"]) == ["town"]
    assert list(after.scores["at_10m"]["by_group"]) == ["desert"]


def test_a_groups_score_is_of_all_its_pixels_together(tmp_path):
    config = grouped(tmp_path)
    # Two scenes in one group, one of them with half the labels.
    desert, wood, town, coast = config.scenes
    with rasterio.open(coast.labels[0], "r+") as dataset:
        ids = dataset.read(1)
        ids[48:] = 200
        dataset.write(ids, 1)
    scenes = (desert, wood, town, replace(coast, group="town", ignore_label=(200,)))
    split = SplitConfig("groups", chosen_by=("desert",), left_out=("town",))
    config = replace(config, scenes=scenes, split=split)
    card = train(config, tmp_path / "model")
    network = load_network(read_model(tmp_path / "model")).eval()
    found = judge(config, network, load_scenes(config, tmp_path / "again"), 1.0, card, FINAL)
    counts = np.zeros((3, 3), np.int64)
    for path in (town.path, coast.path):
        counts += found.scenes[str(path)][0]
    assert counts.sum() == 96 * 96 * 3 // 2
    scores = card.scores["left_out"]["by_group"]
    assert scores == by_group(found, load_scenes(config, tmp_path / "more"))
    assert scores["town"] == {
        "agreement": round(pixel_accuracy(counts), 4),
        "mean_iou": round(mean_iou(counts), 4),
    }


def test_a_groups_score_says_how_much_lies_in_the_sets_that_its_labels_name(tmp_path):
    """Each group's own, from the confusions of the same network with labels of single classes."""
    config = grouped(tmp_path, ("town", "coast"))
    train(config, tmp_path / "model")
    model = read_model(tmp_path / "model")
    network = load_network(model).eval()

    def scores(config: TrainConfig, name: str) -> tuple[Any, dict[str, dict[str, float]]]:
        scenes = load_scenes(config, tmp_path / name)
        found = judge(config, network, scenes, 1.0, model.card, FINAL)
        return found, by_group(found, scenes)

    exact, plain = scores(config, "exact")
    assert all("in_sets" not in found for found in plain.values())
    open_ = {"0": "water", "3": "wet", "7": "dry"}
    *others, coast = config.scenes
    less = replace(
        config,
        sets={"wet": ("water", "trees"), "dry": ("trees", "bare")},
        loss="set_ce",
        scenes=(*others, replace(coast, label_map=open_)),
    )
    found, by = scores(less, "less")
    water, trees, bare = counts = exact.scenes[str(coast.path)][0]
    hits = trees[0] + trees[1] + bare[1] + bare[2]
    share = round(float(hits / (trees.sum() + bare.sum())), 4)
    assert 0 < share < 1
    assert by["coast"]["in_sets"] == share == found.summary()["in_sets"]
    assert by["coast"]["agreement"] == round(float(water[0] / water.sum()), 4)
    assert by["town"] == plain["town"] and counts.sum() == 96 * 96


def test_a_scene_whose_labels_are_all_sets_has_no_score_of_classes(tmp_path):
    config = grouped(tmp_path, ("town", "coast"))
    *others, coast = config.scenes
    config = replace(
        config,
        split=SplitConfig("groups", chosen_by=("desert", "coast")),
        sets={"wet": ("water", "trees"), "dry": ("trees", "bare")},
        loss="set_ce",
        scenes=(*others, replace(coast, label_map={"0": "wet", "3": "wet", "7": "dry"})),
    )
    train(config, tmp_path / "model")
    scores = read_model(tmp_path / "model").card.scores["at_10m"]
    assert set(scores["by_group"]["coast"]) == {"in_sets"}
    assert set(scores["by_group"]["desert"]) == {"agreement", "mean_iou"}
    assert coast.path.stem not in scores["agreement_by_scene"]


def test_the_runs_of_a_cross_validation_leave_out_each_group_that_does_not_choose(tmp_path):
    config = grouped(tmp_path, stages=({"steps": 3},), cross_validation={"steps": 5, "every": 5})
    runs = runs_of(config)
    assert list(runs) == ["wood", "town", "coast"]
    for group, run in runs.items():
        split = replace(config.split, left_out=(group,))
        changed = {"stages": (), "cross_validation": {}, "steps": 5, "every": 5, "split": split}
        assert run == replace(config, **changed)
    assert runs_of(grouped(tmp_path)) == {}
    for table, message in (
        ({"bands": ["red"]}, r"cross_validation: \['bands'\] can't change"),
        ({"chip": 2}, "cross_validation: chip is 2 px"),
    ):
        with pytest.raises(TrainingError, match=message):
            runs_of(grouped(tmp_path, cross_validation=table))


def test_folds_leave_out_several_groups_at_a_time(tmp_path):
    changes = {"steps": 5, "every": 5}
    runs = runs_of(grouped(tmp_path, cross_validation={**changes, "folds": 2}))
    assert {name: run.split.left_out for name, run in runs.items()} == {
        "wood+coast": ("wood", "coast"),
        "town": ("town",),
    }
    for folds in (1, 4, 2.5, True):
        with pytest.raises(TrainingError, match=r"folds is .*from 2 to 3"):
            runs_of(grouped(tmp_path, cross_validation={**changes, "folds": folds}))
    config = grouped(tmp_path, cross_validation={**changes, "folds": 2})
    found = train(config, tmp_path / "model").scores["cross_validation"]
    assert set(found["by_group"]) == set(GROUPS[1:]) and found["folds"] == 2
    alone = train(runs["wood+coast"], tmp_path / "alone").scores["left_out"]["by_group"]
    assert alone == {group: found["by_group"][group] for group in ("wood", "coast")}


def test_a_cross_validation_goes_before_the_model_and_its_scores_into_the_card(tmp_path):
    config = grouped(tmp_path, cross_validation={"steps": 5, "every": 5})
    events: list[Any] = []
    card = train(config, tmp_path / "model", progress=events.append)
    notes = [e["message"] for e in events if e["event"] == "note" and "without" in e["message"]]
    assert notes == [f"without {group}: 5 steps" for group in GROUPS[1:]]
    found = card.scores["cross_validation"]
    runs = runs_of(config)
    for group, run in runs.items():
        alone = train(run, tmp_path / f"alone-{group}")
        assert alone.scores["left_out"]["by_group"] == {group: found["by_group"][group]}
    agreements = {group: scores["agreement"] for group, scores in found["by_group"].items()}
    assert found["mean"]["agreement"] == round(float(np.mean(list(agreements.values()))), 4)
    worst = min(agreements, key=lambda group: agreements[group])
    assert found["worst"] == {"group": worst, **found["by_group"][worst]}
    assert (found["chosen_by"], found["steps"]) == (["desert"], 5)
    # The model itself learned from all groups but the one that chooses.
    plain = replace(config, cross_validation={})
    train(plain, tmp_path / "plain")
    assert weights_of(tmp_path / "model") == weights_of(tmp_path / "plain")
    assert read_model(tmp_path / "model").card.scores["cross_validation"] == found
    written = json.loads((tmp_path / "model.training" / "left_out.json").read_text())
    assert written == found


@pytest.mark.parametrize("stopped", ["town", "model"])
def test_a_cross_validation_that_was_stopped_goes_on_where_it_was(tmp_path, stopped):
    config = grouped(tmp_path, cross_validation={"steps": 5, "every": 5})
    whole = train(config, tmp_path / "whole")
    logs = {"town": 2, "model": 4}[stopped]
    seen: list[Any] = []

    def when(event: Any) -> bool:
        seen.extend([event] if event["event"] == "log" else [])
        return len(seen) == logs and event["event"] == "log"

    with pytest.raises(PowerCutError):
        train(config, tmp_path / "model", progress=cut_at(when))
    again: list[Any] = []
    card = train(config, tmp_path / "model", progress=again.append)
    assert card.scores == whole.scores
    assert weights_of(tmp_path / "model") == weights_of(tmp_path / "whole")
    # Runs that were over are not trained again.
    steps = [e["step"] for e in again if e["event"] == "log"]
    assert steps == {"town": [5, 4, 8, 12], "model": [8, 12]}[stopped]
    # Anew, all of them are.
    (tmp_path / "model").rename(tmp_path / "old")
    again.clear()
    train(config, tmp_path / "model", progress=again.append, resume=False)
    assert [e["step"] for e in again if e["event"] == "log"] == [5, 5, 5, 4, 8, 12]


def test_a_labelled_scene_is_not_all_that_groups_are_judged_by(tmp_path):
    write_teacher(tmp_path / "teacher")
    config = grouped(tmp_path, teacher=tmp_path / "teacher", steps=1, every=1)
    desert, wood, *others = (replace(scene, labels=()) for scene in config.scenes)
    sea = replace(desert, everywhere="water")
    split = SplitConfig("groups", chosen_by=("desert", "wood"))
    config = replace(config, scenes=(sea, wood, *others), split=split)
    card = train(config, tmp_path / "model")
    assert card.scores["held_out_pixels"] == 2 * 96 * 96
    assert set(card.scores["at_10m"]["by_group"]) == {"desert", "wood"}
    # Of the labelled one no teacher is sure.
    assert "where_sure" not in card.scores["at_10m"]["by_group"]["desert"]
    assert "labels in scenes that have some" in card.scores["compared_with"]
