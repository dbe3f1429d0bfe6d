"""``geoseg batch``: every scene in one state, whatever is killed, and maps as they should be."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import psutil
import pytest
import rasterio
from rio_cogeo import cog_validate
from shapely import box

import geoseg
from geoseg.archive import deadline
from geoseg.archive.faults import fault_of
from geoseg.archive.ledger import Ledger
from geoseg.archive.worker import LEAVING, run_job
from geoseg.cards.card import Normalization
from geoseg.core.staging import Staging
from geoseg.errors import GeosegError
from tests.helpers import make_raster, tiny_model
from tests.stacitems import earth_search, save

pytestmark = pytest.mark.extra("batch")

COMMAND = [sys.executable, "-m", "geoseg", "batch"]


def make_scenes(folder: Path, count: int, size: int = 64) -> None:
    folder.mkdir()
    for number in range(count):
        rows = np.random.default_rng(number).integers(0, 3000, (2, 4, 4))
        values = np.kron(rows, np.ones((size // 4, size // 4))).astype(np.uint16)
        make_raster(folder / f"s{number:03}.tif", values, descriptions=("red", "nir"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, some scenes, and an archive of them that was left in peace."""
    folder = tmp_path_factory.mktemp("batch")
    scale = {"mean": (1500.0, 1500.0), "stddev": (300.0, 300.0)}
    tiny_model(
        folder / "model",
        ("red", "nir"),
        ("water", "trees", "crops"),
        normalization=Normalization("z-score", scale),
        seed=1,
    )
    make_scenes(folder / "scenes", 12)
    done = run(folder, "scenes", "-o", "archive", "--vector-format", "parquet", workers=2)
    assert done.returncode == 0, done.stderr
    return folder


def arguments(*args: str, workers: int = 1) -> list[str]:
    """A run's; a second worker takes seconds to start, and only some tests need one."""
    return [*COMMAND, "--workers", f"{workers}", "-m", "model", *args]


def run(folder: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    given = {"cwd": folder, "capture_output": True, "text": True, "check": False, "timeout": 300}
    workers = options.pop("workers", 1)
    return subprocess.run(arguments(*args, workers=workers), **{**given, **options})


def in_archive(archive: Path, *command: str) -> subprocess.CompletedProcess[str]:
    name, *rest = command
    return subprocess.run(
        [*COMMAND, name, str(archive), *rest], capture_output=True, text=True, check=False
    )


def maps(archive: Path) -> dict[str, bytes]:
    """What an archive holds of each scene, but for times and places."""
    found = {}
    for path in sorted(archive.glob("*/*")):
        if path.suffix in (".tif", ".qml", ".parquet"):
            found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return found


def in_scene(name: str) -> tuple[str, str]:
    """A scene's name and the file of its map, of a path in an archive."""
    folder, _, file = name.partition("/")
    return folder.rpartition("-")[0], file


def counts(archive: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(in_archive(archive, "status", "--json").stdout)["counts"]
    return {state: number for state, number in found.items() if number}


def outcomes(archive: Path) -> dict[str, int]:
    with sqlite3.connect(archive / "ledger.sqlite") as base:
        return dict(base.execute("SELECT outcome, count(*) FROM attempts GROUP BY 1").fetchall())


def test_each_map_is_what_predict_makes(place: Path, tmp_path: Path) -> None:
    """And a second run finds nothing to do."""
    archive = place / "archive"
    assert counts(archive) == {"done": 12}
    report = json.loads((archive / "report.json").read_text(encoding="utf-8"))
    assert sum(entry["pixels"] > 0 for entry in report["classes"]) == 3
    for scene in sorted((place / "scenes").iterdir())[:3]:
        made = geoseg.predict(
            scene,
            tmp_path / "landcover.tif",
            model=place / "model",
            vector=tmp_path / "polygons.parquet",
            overwrite=True,
        )
        (folder,) = archive.glob(f"{scene.stem}-*")
        assert (folder / "landcover.tif").read_bytes() == made.raster.read_bytes()
        assert (folder / "polygons.parquet").read_bytes() == Path(str(made.vector)).read_bytes()
        item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
        assert item["id"] == folder.name
    for name in ("collection.json", "items.parquet", "report.json", "report.html"):
        assert (archive / name).exists()
    before = outcomes(archive)
    done = run(place, "scenes", "-o", "archive", "--vector-format", "parquet")
    assert done.returncode == 0 and "0 new, 12 done" in done.stderr
    assert outcomes(archive) == before == {"done": 12}
    assert in_archive(archive, "verify").returncode == 0


def test_maps_are_cogs_to_two_validators(place: Path) -> None:
    """rio-cogeo, and GDAL's own script, by the system's GDAL."""
    found = sorted((place / "archive").glob("*/landcover.tif"))[:3]
    assert len(found) == 3
    for path in found:
        assert cog_validate(path, strict=True) == (True, [], [])
    script = "osgeo_utils.samples.validate_cloud_optimized_geotiff"
    system = ["/usr/bin/python3", "-m", script, "--full-check=yes"]
    for path in found:
        done = subprocess.run([*system, path], capture_output=True, text=True, check=False)
        if "No module named" in done.stderr:
            pytest.skip("needs the system's GDAL for Python (python3-gdal)")
        assert done.returncode == 0 and "is a valid cloud optimized GeoTIFF" in done.stdout, done


def test_another_option_makes_another_map_beside_the_first(place: Path, tmp_path: Path) -> None:
    """Options of the machine don't; what was removed is made again."""
    archive = tmp_path / "archive"
    shutil.copytree(place / "archive", archive)
    same = "--vector-format", "parquet"
    done = run(place, "scenes/s00[01].tif", "-o", str(archive), *same, "--threads", "1")
    assert done.returncode == 0 and "0 new, 2 done" in done.stderr
    done = run(place, "scenes/s00[01].tif", "-o", str(archive), *same, "--min-area", "5000")
    assert done.returncode == 0 and "2 new, 0 done" in done.stderr
    assert counts(archive) == {"done": 14} and len([*archive.glob("s000-*")]) == 2
    shutil.rmtree(next(archive.glob("s002-*")))
    (next(archive.glob("s003-*")) / "landcover.tif").unlink()
    verified = in_archive(archive, "verify")
    assert verified.returncode == 1 and "give the command that made" in verified.stdout
    done = run(place, "scenes", "-o", str(archive), *same)
    assert done.returncode == 0 and "2 to be done again" in done.stderr
    assert in_archive(archive, "verify").returncode == 0
    wanted = maps(place / "archive")
    assert {k: v for k, v in maps(archive).items() if k in wanted} == wanted


def test_what_fails_is_in_quarantine_and_the_others_are_done(place: Path, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    shutil.copytree(place / "scenes", scenes)
    whole = (scenes / "s003.tif").read_bytes()
    (scenes / "s003.tif").write_bytes(whole[: 3 * len(whole) // 4])
    make_raster(scenes / "s004.tif", np.ones((1, 64, 64), np.uint16), descriptions=("blue",))
    archive = tmp_path / "archive"
    done = run(place, str(scenes), "-o", str(archive), "--vector-format", "parquet")
    assert done.returncode == 3, done.stderr
    assert counts(archive) == {"done": 10, "quarantined": 2}
    said = in_archive(archive, "status").stdout
    assert "corrupt" in said and "unfit" in said
    report = json.loads((archive / "report.json").read_text(encoding="utf-8"))
    assert report["jobs"]["states"] == {"done": 10, "quarantined": 2}
    # Each failed once: the same would have come of it.
    assert outcomes(archive) == {"done": 10, "failed": 2}
    assert run(place, str(scenes), "-o", str(archive)).returncode == 3
    shutil.copyfile(place / "scenes" / "s003.tif", scenes / "s003.tif")
    for wrong in (("--kind", "broken"), ("--key", "none")):
        refused = in_archive(archive, "retry", *wrong)
        assert refused.returncode == 2 and wrong[1] in refused.stderr
    assert "1 scene will" in in_archive(archive, "retry", "--kind", "corrupt").stdout
    done = run(place, str(scenes), "-o", str(archive), "--vector-format", "parquet")
    assert done.returncode == 3 and counts(archive) == {"done": 11, "quarantined": 1}
    assert in_archive(archive, "verify").returncode == 0
    assert in_archive(archive, "forget").returncode == 2
    assert "0 scenes taken" in in_archive(archive, "forget", "--kind", "corrupt").stdout
    assert "1 scene taken" in in_archive(archive, "forget", "--kind", "unfit").stdout
    assert counts(archive) == {"done": 11} and outcomes(archive)["failed"] == 2


def poisoned(task: dict[str, Any]) -> dict[str, Any]:
    """A job that takes its worker with it, where its scene is called so."""
    if "s005" in task["key"]:
        if "TEST_DEATHS" in os.environ:
            with open(os.environ["TEST_DEATHS"], "a", encoding="utf-8") as log:
                log.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return run_job(task)


@contextmanager
def all_but_one(place: Path, folder: Path, **options: Any) -> Iterator[Ledger]:
    """The ledger of a run over all scenes, of which one ended in quarantine."""
    from geoseg.archive.run import batch

    archive = folder / "archive"
    done = batch(str(place / "scenes"), archive, model=place / "model", workers=2, **options)
    assert done.counts["done"] == 11 and done.counts["quarantined"] == 1
    with Ledger(archive / "ledger.sqlite") as ledger:
        yield ledger


def test_a_scene_that_kills_its_workers(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.archive.coordinator.run_job", poisoned)
    with all_but_one(place, tmp_path) as ledger:
        (job,) = ledger.jobs("quarantined")
        assert job.name == "s005" and job.kind == "crashed"
        assert [a.outcome for a in ledger.attempts(job.key)] == ["lost"] * 3


def hung(task: dict[str, Any]) -> dict[str, Any]:
    """A job that comes to no event any more, in a library that keeps the interpreter's lock."""
    if "s005" in task["key"]:
        deadline.GRACE = 0.5
        with deadline.ended_after(task["timeout"]):
            ctypes.PyDLL(None).sleep(60)
    return run_job(task)


def test_a_job_that_hangs_is_ended(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.archive.coordinator.run_job", hung)
    with all_but_one(place, tmp_path, job_timeout=8) as ledger:
        (job,) = ledger.jobs("quarantined")
        assert job.name == "s005" and job.kind == "too long" and "--job-timeout" in job.reason


def children(process: psutil.Process) -> Iterator[psutil.Process]:
    """The workers of a coordinator."""
    for child in process.children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                yield child
        except psutil.NoSuchProcess:
            continue


@pytest.mark.slow
def test_whatever_is_killed_every_scene_is_done_once(place: Path, tmp_path: Path) -> None:
    """200 scenes, a worker killed at 20 moments and the coordinator at 2.

    They are 20 scenes in ten folders each, so that 20 maps made in peace show what all 200 are.
    """
    (tmp_path / "scenes").mkdir()
    make_scenes(tmp_path / "scenes" / "0", 20, 32)
    for number in range(1, 10):
        shutil.copytree(tmp_path / "scenes" / "0", tmp_path / "scenes" / f"{number}")
    form = "--vector-format", "parquet"
    alone = str(tmp_path / "scenes" / "0"), *form, "-o", str(tmp_path / "peace")
    assert run(place, *alone).returncode == 0
    given = str(tmp_path / "scenes" / "*" / "*.tif"), *form
    archive, chance = tmp_path / "archive", random.Random(7)
    kills = 0
    for round_ in range(3):
        process = subprocess.Popen(
            arguments(*given, "-o", str(archive), workers=2),
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        about = psutil.Process(process.pid)
        while kills < 10 * (round_ + 1) and process.poll() is None:
            time.sleep(chance.uniform(0.1, 1.0))
            # Every other time when a map has just been begun: else most of them only start.
            before = {*archive.glob("*/.geoseg-*")}
            while kills % 2 and process.poll() is None:
                if {*archive.glob("*/.geoseg-*")} - before:
                    break
                time.sleep(0.01)
            workers = [*children(about)]
            if workers:
                chance.choice(workers).kill()
                kills += 1
        if round_ < 2:
            process.kill()
        process.communicate(timeout=280)
    assert process.returncode == 0 and kills >= 20
    assert counts(archive) == {"done": 200} and outcomes(archive)["done"] == 200
    assert outcomes(archive)["lost"]  # some were amid a job
    assert in_archive(archive, "verify").returncode == 0
    peace = {in_scene(name): made for name, made in maps(tmp_path / "peace").items()}
    found = maps(archive)
    assert len(peace) == 20 * 3 and len(found) == 200 * 3
    assert all(made == peace[in_scene(name)] for name, made in found.items())
    assert not [*archive.glob("*/.geoseg-*")]


def test_two_coordinators_share_the_scenes(place: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    given = arguments("scenes", "-o", str(archive), "--vector-format", "parquet")
    both = [
        subprocess.Popen(given, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        process.communicate(timeout=280)
    assert [process.returncode for process in both] == [0, 0]
    assert outcomes(archive) == {"done": 12}
    assert maps(archive) == maps(place / "archive")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_gives_its_jobs_back(
    place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    make_scenes(tmp_path / "scenes", 30, 128)
    archive = tmp_path / "archive"
    given = str(tmp_path / "scenes"), "-o", str(archive), "--vector-format", "parquet"
    process = subprocess.Popen(
        arguments(*given, "--progress", "json", workers=2),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["done"]:
            break
    process.send_signal(number)
    start = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - start < 15
    assert "30 scenes are done, and the same command goes on" in said
    assert set(counts(archive)) == {"waiting", "done"}
    assert run(place, *given).returncode == 0
    assert counts(archive) == {"done": 30}


def told_to_go(task: dict[str, Any]) -> dict[str, Any]:
    """A job whose worker is told to go amid it, the first time."""
    note = Path(task["out"]) / "told"
    if "s005" not in task["key"] or note.exists():
        return run_job(task)
    note.touch()
    start = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    LEAVING.wait(30)
    outcome = run_job(task)
    note.write_text(f"{outcome['outcome']} {time.monotonic() - start}", encoding="utf-8")
    return outcome


def test_a_worker_that_is_told_to_go_gives_its_job_back(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within five seconds; nobody is blamed."""
    from geoseg.archive.run import batch

    monkeypatch.setattr("geoseg.archive.coordinator.run_job", told_to_go)
    archive = tmp_path / "archive"
    done = batch(str(place / "scenes"), archive, model=place / "model", workers=2)
    assert done.counts["done"] == 12
    with Ledger(archive / "ledger.sqlite") as ledger:
        (job,) = (job for job in ledger.jobs() if job.name == "s005")
        # Dask may have given it to the other worker before it heard of its end.
        outcomes = [attempt.outcome for attempt in ledger.attempts(job.key)]
    assert outcomes in (["done"], ["given back", "done"]) and job.losses == job.tries == 0
    outcome, seconds = (archive / "told").read_text(encoding="utf-8").rsplit(" ", 1)
    assert outcome == "given back" and float(seconds) < 5


def test_a_map_that_another_worker_is_at_is_tried_later(place: Path, tmp_path: Path) -> None:
    """As when Dask moves a job off a worker that is told to go."""
    final = tmp_path / "landcover.tif"
    with (
        Staging([final]) as staging,
        pytest.raises(GeosegError, match="another run is at work") as caught,
    ):
        staging.scratch("strips")
        geoseg.predict(place / "scenes" / "s000.tif", final, model=place / "model", no_vector=True)
    assert fault_of(caught.value).passing


def test_a_run_stops_in_order_and_goes_on(place: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    given = "scenes", "-o", str(archive), "--vector-format", "parquet"
    done = run(place, *given, "--max-bytes", "1")
    assert done.returncode == 4 and "--max-bytes" in done.stdout
    first = counts(archive)
    assert first["done"] < 12 and "running" not in first
    assert run(place, *given).returncode == 0
    assert maps(archive) == maps(place / "archive")


def test_stac_items_are_scenes(tmp_path: Path) -> None:
    """Each map is that of predict on the item, clouds left out, and knows when it was taken."""
    collection: dict[str, Any] = {"type": "FeatureCollection", "features": []}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        item = {**earth_search(tmp_path / name), "id": f"scene-{name}"}
        save(tmp_path / name, item)
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace("./", f"./{name}/")
        collection["features"].append(item)
    (tmp_path / "items.json").write_text(json.dumps(collection), encoding="utf-8")
    given = "items.json", "-m", "landcover-ms", "-o", "archive", "--vector-format", "parquet"
    command = [*COMMAND, "--workers", "1", *given, "--cloud-buffer", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    for name in ("a", "b"):
        (folder,) = (tmp_path / "archive").glob(f"scene-{name}-*")
        made = geoseg.predict(
            tmp_path / name / "item.json",
            tmp_path / f"{name}.tif",
            model="landcover-ms",
            no_vector=True,
            cloud_buffer=0,
        )
        with rasterio.open(made.raster) as one, rasterio.open(folder / "landcover.tif") as other:
            np.testing.assert_array_equal(one.read(), other.read())
        item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
        assert item["properties"]["geoseg:datetime_by"] and item["properties"]["datetime"]
    assert geoseg.mosaic([tmp_path / "archive"], tmp_path / "m.tif", top="newest", no_vector=True)


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(
    place: Path, tmp_path: Path
) -> None:
    make_scenes(tmp_path / "scenes", 3)
    noise = np.random.default_rng(0).integers(0, 3000, (2, 400, 400)).astype(np.uint16)
    make_raster(tmp_path / "scenes" / "s001b.tif", noise, descriptions=("red", "nir"))
    archive = tmp_path / "archive"
    given = str(tmp_path / "scenes"), "-o", str(archive), "--vector-format", "parquet"
    small = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))}
    done = run(place, *given, **small)
    assert done.returncode == 1, done.stderr
    assert "the disk is full" in done.stderr and "the same command goes on" in done.stderr
    assert set(counts(archive)) <= {"waiting", "done"}
    assert run(place, *given).returncode == 0
    assert counts(archive) == {"done": 4} and in_archive(archive, "verify").returncode == 0


def test_a_script_needs_no_guard(place: Path, tmp_path: Path) -> None:
    """Workers don't run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, geoseg\n"
        "print('begun', flush=True)\n"
        "done = geoseg.batch(sys.argv[1], sys.argv[2], model='model', workers=1)\n"
        "print(done.counts['done'], __file__ == sys.argv[0])\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script, "scenes/s00[01].tif", tmp_path / "archive"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["begun", "2", "True"], done.stderr


def test_an_archive_that_has_lost_its_ledger_begins_anew(place: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(place / "archive", archive)
    (archive / "ledger.sqlite").write_text("garbage " * 100)
    given = "scenes", "-o", str(archive), "--vector-format", "parquet"
    done = run(place, *given)
    assert done.returncode == 1 and "move it away" in done.stderr
    (archive / "ledger.sqlite").unlink()
    done = run(place, *given)
    assert done.returncode == 0 and "12 new" in done.stderr
    assert maps(archive) == maps(place / "archive")


def test_another_area_in_the_same_file_is_another_map(place: Path, tmp_path: Path) -> None:
    archive, area = tmp_path / "archive", tmp_path / "area.geojson"
    with rasterio.open(place / "scenes" / "s000.tif") as scene:
        west, south, east, north = scene.bounds
        crs = scene.crs
    middle = (west + east) / 2
    shapes = box(west, south, middle, north), box(middle, south, east, north)
    for number, shape in enumerate(shapes, start=1):
        geopandas.GeoSeries([shape], crs=crs).to_file(area)
        given = "scenes/s000.tif", "-o", str(archive), "--aoi", str(area)
        for new in (1, 0):
            done = run(place, *given)
            assert done.returncode == 0 and f"{new} new" in done.stderr, done.stderr
        assert len([*archive.glob("s000-*")]) == number


def test_what_is_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for args, words in (
        (("none", "-o", "a"), "no such file"),
        (("scenes", "-o", str(tmp_path / "mine")), "something else than an archive"),
        (("scenes", "-o", "a", "--tta", "none", "--size", "0"), "size is 0"),
        (("scenes", "-o", "a", "--workers", "0"), "at least one"),
        (("scenes", "-o", "a", "--job-timeout", "-3"), "must be more than 0"),
        (("scenes", "-o", "a", "--max-hours", "nan"), "must be more than 0"),
        (("scenes", "-o", "a", "--mem-limit", "100MB"), "too little for any scene"),
        (("scenes", "-o", "a", "--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers"),
        (("model", "-o", "a"), "no scene"),
    ):
        done = run(place, *args)
        assert done.returncode in (1, 2) and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        shutil.rmtree(place / "a", ignore_errors=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert "is no archive" in in_archive(tmp_path / "mine", "status").stderr


def test_a_cluster_of_the_user(place: Path, tmp_path: Path) -> None:
    """Whose workers run elsewhere, by whatever brought them up."""
    from distributed import LocalCluster

    archive = tmp_path / "archive"
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        address = str(cluster.scheduler_address)
        done = run(
            place,
            "scenes",
            "-o",
            str(archive),
            "--vector-format",
            "parquet",
            "--scheduler",
            address,
            "--threads",
            "1",
            "--mem-limit",
            "1500MB",
        )
        assert done.returncode == 0, done.stderr
    assert maps(archive) == maps(place / "archive")
    report = json.loads(next(archive.glob("s000-*/landcover.json")).read_text(encoding="utf-8"))
    assert report["memory"]["limit_bytes"] == 1_500_000_000


def test_a_cluster_of_the_user_does_not_repeat_what_kills_its_workers(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its scheduler would do by itself: the ledger counts."""
    from distributed import LocalCluster

    from geoseg.archive.run import batch

    monkeypatch.setattr("geoseg.archive.coordinator.run_job", poisoned)
    monkeypatch.setattr("geoseg.archive.coordinator.PATIENCE", 20.0)
    monkeypatch.setenv("TEST_DEATHS", str(tmp_path / "deaths"))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        assert cluster.scheduler.allowed_failures > 0
        done = batch(
            str(place / "scenes" / "s00[45].tif"),
            tmp_path / "archive",
            model=place / "model",
            scheduler=str(cluster.scheduler_address),
        )
    assert done.counts["done"] == 1 and done.counts["quarantined"] == 1
    assert (tmp_path / "deaths").read_text(encoding="utf-8") == "x" * 3
