"""geoseg.events: what runs really send is what the protocol says, from the thread that called."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import geoseg
from geoseg import events
from geoseg.cards.card import Normalization
from geoseg.cli import main
from geoseg.cli.streams import EventLines
from tests import forked
from tests.events import check_event
from tests.helpers import make_raster, tiny_model
from tests.trainhelpers import tiny_recipe, write_teacher


class Receiver:
    """Keeps events, and checks each, and the thread it comes from."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.events: list[Any] = []
        self._thread = threading.get_ident()

    def __call__(self, event: Any) -> None:
        assert threading.get_ident() == self._thread, event
        json.loads(json.dumps(event))
        self.kinds.append(check_event(event))
        self.events.append(event)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    values = np.random.default_rng(0).integers(0, 3000, (2, 90, 80)).astype(np.uint16)
    make_raster(folder / "scene.tif", values, descriptions=("red", "nir"))
    ids = (values[:1] % 3).astype(np.uint8)
    make_raster(folder / "map.tif", ids, nodata=255)
    make_raster(folder / "labels.tif", ids)
    scale = {"mean": (1500.0, 1500.0), "stddev": (300.0, 300.0)}
    normalization = Normalization("z-score", scale)
    for number in (1, 2):
        tiny_model(
            folder / f"model{number}",
            ("red", "nir"),
            ("water", "trees", "crops"),
            normalization=normalization,
            seed=number,
        )
    return folder


def test_a_prediction(place: Path, tmp_path: Path) -> None:
    hear = Receiver()
    more = {name: tmp_path / f"{name}.tif" for name in ("probs", "border")}
    model, more = place / "model1", {**more, "preview": tmp_path / "p.png"}
    geoseg.predict(place / "scene.tif", tmp_path / "a.tif", model=model, progress=hear, **more)
    assert hear.kinds[0] == "StartEvent" and hear.kinds[-1] == "PredictResult"
    assert {"PredictProgress", "PolygonsProgress", "BorderProgress"} <= set(hear.kinds)


def test_a_prediction_of_several_models_with_a_warning(place: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 3000, (2, 50, 60)).astype(np.uint16)
    scene = make_raster(tmp_path / "plain.tif", values, descriptions=("red", "nir"), crs=None)
    hear = Receiver()
    models = [place / "model1", place / "model2"]
    out = tmp_path / "agreement.tif"
    geoseg.predict(
        scene, tmp_path / "a.tif", model=models, progress=hear, no_vector=True, agreement=out
    )
    assert "WarningEvent" in hear.kinds and hear.events[-1]["agreement"] == str(out)


def test_a_dry_run(place: Path, tmp_path: Path) -> None:
    hear = Receiver()
    model = place / "model1"
    found = geoseg.dry_run(place / "scene.tif", tmp_path / "a.tif", model=model, progress=hear)
    assert set(hear.kinds) <= {"NoteEvent", "WarningEvent"}
    assert check_event(json.loads(json.dumps({"event": "dry-run", **found.report})))


def test_a_training_run(tmp_path: Path) -> None:
    hear = Receiver()
    geoseg.train(tiny_recipe(tmp_path, scenes=2), tmp_path / "model", progress=hear, device="cpu")
    assert hear.kinds[-1] == "TrainResult"
    assert {"ScenesProgress", "TrainProgress", "LogEvent", "NoteEvent"} <= set(hear.kinds)
    assert {"mean_iou_10m", "agreement_10m"} <= set(
        next(e for e in hear.events if e["event"] == "log")["scores"]
    )


def test_a_training_run_with_a_teacher(tmp_path: Path) -> None:
    hear = Receiver()
    write_teacher(tmp_path / "teacher")
    recipe = tiny_recipe(tmp_path, teacher=tmp_path / "teacher")
    geoseg.train(recipe, tmp_path / "model", progress=hear, device="cpu")
    assert "teacher" in {e["stage"] for e in hear.events if e["event"] == "progress"}


def test_an_evaluation_of_a_model(place: Path) -> None:
    hear = Receiver()
    geoseg.evaluate(
        place / "model1", scene=place / "scene.tif", labels=place / "labels.tif", progress=hear
    )
    assert set(hear.kinds) == {"StartEvent", "PredictProgress"}


def refuse(word: str) -> Any:
    raise AssertionError(f"{word} is not JSON")


def printed(*args: str | Path, cwd: Path, **options: Any) -> list[str]:
    """The events that a command prints, by name; each line is checked."""
    done = forked.run(
        [sys.executable, "-m", "geoseg", *args, "--progress", "json"], cwd=cwd, **options
    )
    kinds = []
    for line in done.stdout.splitlines():
        event = json.loads(line, parse_constant=refuse)
        kind = check_event(event)
        if kind != "AliveEvent":  # which come when the machine is slow
            kinds.append(kind)
        if event["event"] == "error":
            assert event["code"] == done.returncode
            assert done.stderr.rstrip().endswith(event["message"])
    return kinds


def test_what_the_command_line_prints(place: Path, tmp_path: Path) -> None:
    scene, model = place / "scene.tif", place / "model1"
    run = "predict", scene, "-m", model, "--src-nodata", "nan"
    kinds = printed(*run, cwd=tmp_path)
    assert kinds[0] == "StartEvent" and kinds[-1] == "PredictResult"
    assert printed(*run, cwd=tmp_path) == ["ErrorEvent"]  # the outputs are there
    assert printed(*run, "--overwrite", "--dry-run", cwd=tmp_path)[-1] == "DryRunEvent"
    assert printed(*run, "--overwrite", "--size", "0", cwd=tmp_path) == ["ErrorEvent"]
    assert printed("predict", "--no-such", cwd=tmp_path) == ["ErrorEvent"]
    kinds = printed("vectorize", place / "map.tif", cwd=tmp_path)
    assert set(kinds[:-1]) == {"PolygonsProgress"} and kinds[-1] == "VectorizeResult"
    assert printed("vectorize", place / "map.tif", cwd=tmp_path) == ["ErrorEvent"]


def test_what_a_mosaic_prints(place: Path, tmp_path: Path) -> None:
    ids = (np.arange(7200).reshape(1, 90, 80) % 2).astype(np.uint8)
    make_raster(
        tmp_path / "a.tif", ids, nodata=255, tags={"GEOSEG_CLASSES": '{"0": "a", "1": "b"}'}
    )
    kinds = printed("mosaic", "a.tif", "--top", "first", cwd=tmp_path)
    assert set(kinds[:-1]) == {"MosaicProgress", "PolygonsProgress"}
    assert kinds[-1] == "MosaicResult"
    assert printed("mosaic", "a.tif", "--top", "first", cwd=tmp_path) == ["ErrorEvent"]


def test_what_the_accuracy_of_a_map_prints(place: Path, tmp_path: Path) -> None:
    """The map is its own label."""
    raster = place / "map.tif"
    for command in (
        ("sample", raster, "-o", "points.gpkg", "-n", "20"),
        ("evaluate", raster, "--labels", raster, "--json", "report.json"),
    ):
        *before, last = printed(*command, cwd=tmp_path)
        assert set(before) <= {"WarningEvent"}
        assert last == f"{str(command[0]).capitalize()}Result"
        assert printed(*command, cwd=tmp_path) == ["ErrorEvent"]  # the outputs are there
    model = place / "model1", "--scene", place / "scene.tif", "--src-nodata", "nan"
    kinds = printed("evaluate", *model, "--labels", raster, cwd=tmp_path)
    assert kinds[0] == "StartEvent" and kinds.count("EvaluateResult") == 1


def test_what_training_prints(tmp_path: Path) -> None:
    from geoseg.training.recipe_file import dump_config

    (tmp_path / "r.json").write_text(dump_config(tiny_recipe(tmp_path)), encoding="utf-8")
    args = "train", "r.json", "-o", "model", "--device", "cpu"
    kinds = printed(*args, cwd=tmp_path)
    assert kinds[-1] == "TrainResult" and "LogEvent" in kinds
    assert printed(*args, cwd=tmp_path) == ["ErrorEvent"]


def test_an_interrupted_run(place: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 3000, (2, 1500, 1500)).astype(np.uint16)
    scene = make_raster(tmp_path / "large.tif", values, descriptions=("red", "nir"))
    args = [*("predict", str(scene), "-m", str(place / "model1"), "--progress", "json")]
    process = forked.Forked(
        [sys.executable, "-m", "geoseg", *args, "--size", "16", "--overlap", "8"], cwd=tmp_path
    )
    kinds = []
    for line in process.stdout:
        kinds.append(check_event(json.loads(line, parse_constant=refuse)))
        if kinds[-1] == "PredictProgress":
            process.send_signal(signal.SIGINT)
            break
    rest = [json.loads(line, parse_constant=refuse) for line in process.stdout]
    kinds += [check_event(event) for event in rest]
    assert process.wait(timeout=60) == 130
    assert kinds[-1] == "ErrorEvent" and rest[-1]["code"] == 130
    assert "PredictResult" not in kinds


def test_there_are_signs_of_life_and_none_after_the_last_event(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.cli.streams.ALIVE", 0.05)
    ended: list[None] = []
    lines = EventLines(lambda: ended.append(None))
    time.sleep(0.3)
    lines.receive({"event": "note", "message": "m"})
    time.sleep(0.3)
    lines.receive({"event": "result", "vector": "v", "polygons": {}})
    time.sleep(0.3)
    found = [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]
    note = found.index("note")
    assert {*found[:note]} == {*found[note + 1 : -1]} == {"alive"}
    assert found[-1] == "result" and 4 <= len(found) <= 16
    assert not ended


@pytest.mark.skipif(sys.platform == "win32", reason="asks a shell")
@pytest.mark.parametrize("background", [False, True])
def test_a_run_whose_events_nobody_reads_ends(
    place: Path, tmp_path: Path, background: bool
) -> None:
    """Such as that of a program that was killed; what is finished is kept."""
    values = np.random.default_rng(2).integers(0, 3000, (2, 3000, 3000)).astype(np.uint16)
    scene = make_raster(tmp_path / "large.tif", values, descriptions=("red", "nir"))
    args = [*("predict", str(scene), "-m", str(place / "model1"), "--progress", "json")]
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    process = subprocess.Popen(
        [sys.executable, "-m", "geoseg", *args, "--size", "16", "--overlap", "8"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **(ignored if background else {}),
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "progress":
            break
    process.stdout.close()
    start = time.monotonic()
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - start < 8  # a second for the sign of life, and the run's own two
    assert "geoseg: error: interrupted; " in process.stderr.read()
    assert not (tmp_path / "large_landcover.tif").exists()


def test_every_field_is_described() -> None:
    """With its unit or its meaning, in the docstring of its class."""
    public = [getattr(events, name) for name in events.__all__]
    dicts = [value for value in public if isinstance(value, type)]
    assert set(get_args(events.Event)) <= set(dicts)
    for kind in dicts:
        # What a start and a dry run have of a plan is described there.
        of_plan = set(get_type_hints(events.PlanReport)) if kind is not events.PlanReport else set()
        inherited = of_plan if of_plan <= set(get_type_hints(kind)) else set()
        described = re.findall(r"^        (\w+): ", kind.__doc__ or "", re.MULTILINE)
        assert described == [name for name in get_type_hints(kind) if name not in inherited]


def test_a_wrong_event_would_be_found() -> None:
    note = {"event": "note", "message": "text"}
    assert check_event(note) == "NoteEvent"
    progress = {"event": "progress", "stage": "polygons", "done": 1, "total": 2}
    assert check_event(progress) == "PolygonsProgress"
    for wrong in (
        {"event": "note"},
        {**note, "more": 1},
        {**note, "message": 1},
        {"event": "unknown"},
        {**progress, "stage": "other"},
        {**progress, "done": 1.5},
        {**progress, "done": np.int64(1)},
        {"event": "result", "raster": "a.tif"},
        {"event": "result", "raster": "a.tif", "report": "a.json", "probs": None},
    ):
        with pytest.raises(AssertionError):
            check_event(wrong)


def test_what_a_scene_is_told_of_is_strict_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A nodata of NaN was printed as Python writes it, which no other program reads."""
    values = np.ones((2, 40, 30), np.float32)
    values[:, :3] = np.nan
    scene = make_raster(tmp_path / "s.tif", values, descriptions=("red", "nir"), nodata=np.nan)
    model = tiny_model(tmp_path / "model", ("red", "nir"), ("a", "b"))
    with pytest.raises(SystemExit) as end:
        main(["info", str(scene), "-m", str(model), "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [band["nodata"] for band in found["bands"]] == ["nan", "nan"]
    assert found["models"][0]["fits"]
