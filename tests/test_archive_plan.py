"""The plan of an archive: what it says of scenes is what the run does with them."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sqlite3
import threading
import tracemalloc
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

import geoseg
from geoseg.archive import plan as planning
from geoseg.archive import probes
from geoseg.archive.asked import Asked
from geoseg.archive.estimates import Measured
from geoseg.archive.plan import ArchivePlan, plan_batch
from geoseg.archive.plan_rows import PlanRow, compare, look
from geoseg.archive.plan_text import plan_text
from geoseg.archive.probes import probe
from geoseg.archive.run import batch
from geoseg.archive.sources import SceneSource, source_of_file
from geoseg.cli import main
from geoseg.core.ownership import PLAN_COLUMNS
from geoseg.errors import OutputError, UsageError
from tests.archives import in_this_process, ledger_says
from tests.events import check_event
from tests.helpers import make_raster, tiny_model

pytestmark = pytest.mark.extra("batch")

BANDS = ("red", "nir")


def scene(path: Path, seed: int, side: int = 64, **more: Any) -> Path:
    rows = np.random.default_rng(seed).integers(1, 250, (2, side // 16, side // 16))
    values = np.kron(rows, np.ones((16, 16))).astype(np.uint8)
    return make_raster(path, values, **{"descriptions": BANDS, **more})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", BANDS, ("a", "b", "c"), seed=1)


@pytest.fixture(autouse=True)
def without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.archive.run.connected", in_this_process)


@pytest.fixture
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not matter how long maps take."""
    monkeypatch.setattr(planning, "probe", lambda *args: None)


def table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "plan.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(tuple(row) == PLAN_COLUMNS for row in rows)
    return {row["name"]: row for row in rows}


def features(out: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((out / "plan.geojson").read_text(encoding="utf-8"))
    assert found["type"] == "FeatureCollection"
    return {feature["properties"]["name"]: feature for feature in found["features"]}


def held(out: Path) -> dict[str, bytes]:
    """All files of an archive but those of a plan, and what its ledger says."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(("plan.", "ledger.sqlite-"))
    }


def listed(folder: Path, names: list[str], name: str = "list.txt") -> str:
    (folder / name).write_text("".join(f"{n}.tif\n" for n in names), encoding="utf-8")
    return str(folder / name)


# What it says is what the run does.


def test_what_a_plan_says_is_what_the_run_does(model: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("same", "other", "changed", "lost", "new", "cut")):
        scene(tmp_path / f"{name}.tif", number)
    tall = np.random.default_rng(8).integers(1, 250, (2, 160, 48)).astype(np.uint8)
    make_raster(tmp_path / "new.tif", tall, descriptions=BANDS)
    values = np.random.default_rng(9).integers(1, 250, (2, 64, 64)).astype(np.uint8)
    make_raster(tmp_path / "wrong.tif", values[:1], descriptions=("blue",))
    make_raster(tmp_path / "cut.tif", values, descriptions=BANDS)
    whole = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: 3 * len(whole) // 4])
    out = tmp_path / "archive"
    first = listed(tmp_path, ["same", "other", "changed", "lost", "wrong"], "first.txt")
    batch(first, out, model=model, workers=1)
    scene(tmp_path / "changed.tif", 99)
    with sqlite3.connect(out / "ledger.sqlite") as base:
        keys = dict(base.execute("SELECT name, key FROM jobs").fetchall())
    shutil.rmtree(out / keys["lost"])
    every = ["new", "lost", "same", "none", "changed", "wrong", "other", "cut"]
    everything = listed(tmp_path, every)

    before = held(out)
    plan = plan_batch(everything, out, model=model, workers=1)
    assert held(out) == before
    rows = table(out)
    assert list(rows) == list(features(out)) == every
    assert {name: row["state"] for name, row in rows.items()} == {
        "new": "new",
        "lost": "recompute",
        "changed": "recompute",
        "same": "done",
        "other": "done",
        "wrong": "quarantined",
        "none": "refused",
        "cut": "refused",
    }
    assert rows["changed"]["reason"] == "its source has changed"
    assert rows["lost"]["reason"] == "a file of its map is not there any more"
    assert plan.refused == {"missing": 1, "corrupt": 1} and plan.to_do == 3

    attempts = len(ledger_says(out)["attempts"])
    done = batch(everything, out, model=model, workers=1)
    said = ledger_says(out)
    tried = {said["names"][key] for key in said["attempts"][attempts:]}
    assert tried == {"new", "lost", "changed", "none", "cut"}
    assert dict(done.counts) == {"waiting": 0, "running": 0, "done": 5, "quarantined": 3}
    for name in ("wrong", "none", "cut"):
        kind = rows[name]["reason"].split(":")[0]
        assert said["kinds"][name] == kind, name
    for name, row in rows.items():
        if row["state"] in ("refused", "quarantined"):
            assert row["pixels"] == row["seconds"] == "" and features(out)[name]["geometry"] is None
            continue
        with rasterio.open(out / row["key"] / "landcover.tif") as made:
            assert (made.height, made.width) == (int(row["height"]), int(row["width"])), name
            assert made.height * made.width == int(row["pixels"])
    kept = {name for name in before if name.startswith((keys["same"], keys["other"]))}
    assert {name: held(out)[name] for name in kept} == {name: before[name] for name in kept}
    alone = geoseg.predict(tmp_path / "changed.tif", tmp_path / "map.tif", model=model)
    assert alone.raster.read_bytes() == (out / keys["changed"] / "landcover.tif").read_bytes()

    plan = plan_batch(everything, out, model=model, workers=1)
    assert plan.counts == {"done": 5, "quarantined": 3}
    assert (plan.to_do, plan.pixels, plan.worker_seconds, plan.bytes) == (0, 0, 0, 0)
    assert "5 done" in plan_text(plan)


def test_what_waits_is_to_be_done(model: Path, tmp_path: Path, unprobed: None) -> None:
    """After a run that stopped in order; what another coordinator has is left to it."""
    for number in range(4):
        scene(tmp_path / f"s{number}.tif", number)
    out, given = tmp_path / "archive", str(tmp_path / "s*.tif")
    assert batch(given, out, model=model, workers=1, max_bytes=1).stopped
    with sqlite3.connect(out / "ledger.sqlite") as base:
        base.execute("UPDATE jobs SET state = 'running' WHERE name = 's3'")
    plan = plan_batch(given, out, model=model, workers=1)
    assert plan.counts == {"done": 1, "waiting": 2, "running": 1} and plan.to_do == 2
    assert plan.pixels == 2 * 64 * 64
    plan = plan_batch(given, out, model=model, workers=1, min_area=10.0)
    assert plan.counts == {"new": 4}


# Where the scenes are.


def test_footprints_are_where_the_scenes_are(model: Path, tmp_path: Path, unprobed: None) -> None:
    from affine import Affine

    grids: dict[str, tuple[str | None, Affine]] = {
        "utm": ("EPSG:32633", Affine(10, 0, 500000, 0, -10, 5000000)),
        "degrees": ("EPSG:4326", Affine(1e-4, 0, 11, 0, -1e-4, -40)),
        "mercator": ("EPSG:3857", Affine(10, 0, 1e6, 0, -10, 6e6)),
        "nowhere": (None, Affine(10, 0, 0, 0, -10, 0)),
    }
    for number, (name, (crs, transform)) in enumerate(grids.items()):
        scene(tmp_path / f"{name}.tif", number, 96, crs=crs, transform=transform)
    out = tmp_path / "archive"
    plan_batch(str(tmp_path / "*.tif"), out, model=model, workers=1)
    for name, (crs, transform) in grids.items():
        feature = features(out)[name]
        row = table(out)[name]
        assert row["state"] == "new" and row["pixels"] == "9216"
        if crs is None:
            assert feature["geometry"] is None and "bbox" not in feature and row["west"] == ""
            continue
        bounds = rasterio.transform.array_bounds(96, 96, transform)
        wanted = rasterio.warp.transform_bounds(crs, "OGC:CRS84", *bounds, densify_pts=101)
        half = 5 / 111_000
        assert feature["bbox"] == pytest.approx(wanted, abs=half)
        assert [float(row[s]) for s in ("west", "south", "east", "north")] == feature["bbox"]
        shape = shapely.geometry.shape(feature["geometry"])
        assert shape.is_valid and shape.exterior.is_ccw
        assert shape.bounds == pytest.approx(feature["bbox"])
        assert feature["properties"]["pixels"] == 9216
    # A part of a scene: the rectangle of --bbox, in whole pixels.
    one = str(tmp_path / "utm.tif")
    plan = plan_batch(one, out, model=model, workers=1, bbox=(500100, 4999500, 500400, 4999900))
    assert plan.pixels == 30 * 40


def test_programs_read_the_places(model: Path, tmp_path: Path, unprobed: None) -> None:
    import pyogrio

    scene(tmp_path / "a.tif", 1)
    (tmp_path / "b.tif").write_text("no raster")
    plan_batch(str(tmp_path / "*.tif"), tmp_path / "o", model=model, workers=1)
    frame = pyogrio.read_dataframe(tmp_path / "o" / "plan.geojson")
    assert frame.crs.to_epsg() == 4326 and list(frame.geometry.isna()) == [False, True]
    assert [c for c in frame.columns if c != "geometry"] == list(PLAN_COLUMNS)


def test_a_scene_that_is_not_opened_has_the_place_of_its_item(model: Path, tmp_path: Path) -> None:
    asked = Asked.of(model, {}, ())
    item = {"type": "Feature", "id": "i", "properties": {}, "assets": {}, "links": []}
    for box, kind, area in (
        ((10.0, 0.0, 11.0, 2.0), "Polygon", 2.0),
        ((179.0, 0.0, -179.0, 2.0), "MultiPolygon", 4.0),
    ):
        source = SceneSource("i", item=item, footprint=box)
        (row,) = compare([source, source], asked, tmp_path, None)
        row = look(row, asked, ".gpkg", tmp_path)
        assert row.state == "refused" and row.box == box and row.geometry is not None
        assert row.geometry["type"] == kind
        assert shapely.geometry.shape(row.geometry).area == area


# Nobody's file is touched.


def test_a_plan_makes_no_ledger_and_replaces_only_plans(
    model: Path, tmp_path: Path, unprobed: None
) -> None:
    given = str(scene(tmp_path / "a.tif", 1))
    out = tmp_path / "archive"
    plan_batch(given, out, model=model, workers=1)
    assert sorted(p.name for p in out.iterdir()) == ["plan.csv", "plan.geojson"]
    (out / ".geoseg-plan.csv-0011").write_text("of a plan that was killed")
    plan_batch(given, out, model=model, workers=1)
    assert batch(given, out, model=model, workers=1).counts["done"] == 1
    for name in ("plan.csv", "plan.geojson"):
        good = (out / name).read_bytes()
        (out / name).write_text("key,name\nmine,too\n")
        with pytest.raises(OutputError, match="was not made by geoseg"):
            plan_batch(given, out, model=model, workers=1)
        assert (out / name).read_text() == "key,name\nmine,too\n"
        (out / name).write_bytes(good)
    assert plan_batch(given, out, model=model, workers=1).counts == {"done": 1}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "plan.csv").write_text("week,task\n1,sow\n")
    for function in (plan_batch, batch):
        with pytest.raises(OutputError, match="something else than an archive"):
            function(given, mine, model=model, workers=1)
    assert [p.name for p in mine.iterdir()] == ["plan.csv"]


# Times, sizes and prices.


@given(
    st.floats(0, 100),
    st.floats(1e-9, 1),
    st.lists(st.integers(1, 10**9), min_size=2, max_size=20, unique=True),
)
def test_a_line_is_found_again(fixed: float, each: float, sizes: list[int]) -> None:
    measured = Measured()
    for size in sizes:
        measured.add(size, fixed + each * size, 3 * size)
    rates = measured.rates("")
    total = sum(fixed + each * size for size in sizes)
    assert sum(map(rates.seconds.at, sizes)) == pytest.approx(total, rel=1e-3)
    assert rates.seconds.fixed >= 0 and rates.seconds.of_a_pixel >= 0
    if np.std(sizes) > 0.3 * np.mean(sizes):
        assert [rates.seconds.at(s) for s in sizes] == pytest.approx(
            [fixed + each * s for s in sizes], rel=1e-3, abs=1e-6 * total
        )
    assert [rates.bytes.at(s) for s in sizes] == pytest.approx([3 * s for s in sizes], rel=1e-6)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1e6)), min_size=1, max_size=20))
def test_no_estimate_is_negative(pairs: list[tuple[int, float]]) -> None:
    measured = Measured()
    for pixels, seconds in pairs:
        measured.add(pixels, seconds, 0)
    line = measured.rates("").seconds
    assert line.fixed >= 0 and line.of_a_pixel >= 0 and math.isfinite(line.at(1e12))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_sums_and_prices(
    model: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured()
    measured.add(1000, 1000.0, 5000)
    monkeypatch.setattr(planning, "probe", lambda *args: measured.rates("a guess"))
    for number, side in enumerate((64, 64, 128)):
        scene(tmp_path / f"s{number}.tif", number, side)
    make_raster(tmp_path / "bad.tif", np.ones((1, 64, 64), np.uint8), descriptions=("blue",))
    out = tmp_path / "archive"
    given = {"model": model, "workers": workers, "mem_limit": 10**9}
    plan = plan_batch(str(tmp_path / "*.tif"), out, price_per_hour=2.5, **given)
    seconds = [float(row["seconds"]) for row in table(out).values() if row["seconds"]]
    assert seconds == [4096, 4096, 16384] and plan.worker_seconds == sum(seconds)
    assert plan.wall_seconds == max(sum(seconds) / workers, 16384)
    assert plan.bytes == 5 * plan.pixels == sum(int(r["bytes"] or 0) for r in table(out).values())
    assert plan.price == pytest.approx(sum(seconds) / 3600 * 2.5)
    said = plan_text(plan, 2.5)
    assert "6.83 worker-hours at 2.5" in said and "17.07" in said and "a guess" in said
    assert "1 unfit" in said and "bad: unfit" in said
    with pytest.raises(UsageError, match="at least 0"):
        plan_batch(str(tmp_path / "*.tif"), out, price_per_hour=-1.0, **given)


def test_probes_tell_the_size_of_maps(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of scenes of which nine tenths were never looked at; and times, within reason."""
    monkeypatch.setattr(probes, "LITTLE", 30.0)  # on a busy machine, too
    for number in range(2):
        scene(tmp_path / f"s{number}.tif", number, 2048)
    out, given = tmp_path / "archive", str(tmp_path / "s*.tif")
    shared = {"model": model, "workers": 1, "threads": 1, "also": ("confidence",)}
    plan = plan_batch(given, out, **shared)
    assert plan.bytes is not None and plan.worker_seconds is not None
    assert "this machine with 1 thread" in plan.basis and "2 scenes" in plan.basis
    batch(given, out, **shared)
    said = ledger_says(out)["results"]
    assert plan.bytes == pytest.approx(sum(r["bytes"] for r in said), rel=0.3)
    seconds = sum(r["seconds"] for r in said)
    assert seconds / 20 < plan.worker_seconds < 20 * seconds


def test_a_probe_looks_for_measured_pixels_and_reports_what_fails(
    model: Path, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(1, 250, (2, 512, 512)).astype(np.uint8)
    values[:, 64:448] = 0
    make_raster(tmp_path / "a.tif", values, descriptions=BANDS, nodata=0)
    asked = Asked.of(model, {"threads": 1}, ())
    (row,) = compare([source_of_file(tmp_path / "a.tif")], asked, tmp_path, None)
    heard: list[Any] = []
    # Where it looks there is nothing, and that is no fault.
    assert probe([look(row, asked, ".gpkg", tmp_path)], asked, ".gpkg", heard.append) is None
    values[:, 64:448, :200] = 9
    make_raster(tmp_path / "a.tif", values, descriptions=BANDS, nodata=0)
    found = probe([look(row, asked, ".gpkg", tmp_path)], asked, ".gpkg", heard.append)
    assert found is not None and not heard
    (tmp_path / "a.tif").unlink()
    assert probe([row], asked, ".gpkg", heard.append) is None
    assert "no such file" in heard[0]["message"]


def test_rows_wait_on_disk(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unprobed: None
) -> None:
    def known(row: PlanRow, **_: Any) -> PlanRow:
        return PlanRow(**{**vars(row), "height": 10, "width": 10})

    monkeypatch.setattr(planning, "look", known)
    peaks = []
    for count in (500, 3000):
        scenes = (SceneSource(f"s{n}", (f"/{n}" + "x" * 4000,)) for n in range(count))
        tracemalloc.start()
        plan = plan_batch(scenes, tmp_path / f"{count}", model=model, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert plan.scenes == count and plan.pixels == 100 * count
    # Ten megabytes of paths came by in between.
    assert peaks[1] - peaks[0] < 3e6, peaks


# The command.


def run(*args: Any) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    return int(end.value.code or 0)


def test_the_command(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = scene(tmp_path / "a.tif", 1), "-m", model, "--workers", 1
    plan = "batch", *given, "-o", tmp_path / "o", "--dry-run", "--price-per-hour", 7
    assert run(*plan) == 0
    said = capfd.readouterr().out
    assert "1 new" in said and "worker-hours at 7" in said and "no map was made" in said
    assert run(*plan, "--progress", "json") == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    kinds = [check_event(event) for event in events]
    assert kinds[-1] == "BatchDryRunEvent" and "PlanProgress" in kinds
    assert events[-1]["to_do"] == 1 and events[-1]["files"] == [
        str(tmp_path / "o" / name) for name in ("plan.csv", "plan.geojson")
    ]
    assert run("batch", *given, "-o", tmp_path / "o", "--price-per-hour", 7) == 2
    (tmp_path / "b.tif").write_text("no raster")
    alone = tmp_path / "b.tif", "-m", model, "-o", tmp_path / "p", "--dry-run"
    assert run("batch", *alone) == 1
    assert "is refused" in capfd.readouterr().err


class _Denies(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - its name

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def denying() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Denies)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_credentials_are_tried(
    model: Path, tmp_path: Path, denying: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text(f"{denying}/a.tif?token=abc\n{denying}/b.tif\n")
    args = tmp_path / "list.txt", "-m", model, "-o", tmp_path / "o", "--dry-run"
    assert run("batch", *args) == 1
    said = capfd.readouterr()
    assert "2 denied" in said.out and "every one of 2 scenes is refused" in said.err
    rows = table(tmp_path / "o")
    assert {row["state"] for row in rows.values()} == {"refused"}
    for name in ("plan.csv", "plan.geojson"):
        assert "abc" not in (tmp_path / "o" / name).read_text()


# Further outputs.


def test_further_outputs_are_those_of_predict(model: Path, tmp_path: Path) -> None:
    given = scene(tmp_path / "a.tif", 1)
    out = tmp_path / "archive"
    every: Mapping[str, str] = {
        "confidence": "data",
        "probs": "data",
        "agreement": "data",
        "border": "data",
        "preview": "thumbnail",
    }
    for _ in range(2):
        done = batch(str(given), out, model=model, workers=1, tta="flips", also=list(every))
        assert done.counts["done"] == 1
    (folder,) = out.glob("a-*")
    item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
    wanted = {name: tmp_path / f"{name}.tif" for name in every if name != "preview"}
    geoseg.predict(
        given,
        tmp_path / "map.tif",
        model=model,
        tta="flips",
        preview=tmp_path / "preview.png",
        **wanted,
    )
    for name, role in every.items():
        asset = item["assets"][name]
        assert asset["roles"] == [role]
        made = folder / asset["href"]
        assert asset["file:size"] == made.stat().st_size
        alone = tmp_path / made.name
        if name == "preview":
            assert alone.stat().st_size > 0 and asset["type"] == "image/png"
        else:
            assert made.read_bytes() == alone.read_bytes()
    from geoseg.archive.closing import certify
    from geoseg.archive.ledger import Ledger

    with Ledger(out / "ledger.sqlite") as ledger:
        assert certify(out, ledger).is_whole
    # Without them it is another job; and in another order the same one.
    plan = plan_batch(
        str(given), out, model=model, workers=1, tta="flips", also=list(reversed(every))
    )
    assert plan.counts == {"done": 1}
    assert batch(str(given), out, model=model, workers=1, tta="flips").counts["done"] == 1
    assert len([*out.glob("a-*")]) == 2
    for also, words in ((["thumbnail"], "must be one of"), (["agreement"], "several members")):
        with pytest.raises(UsageError, match=words):
            batch(str(given), tmp_path / "no", model=model, also=also)
    assert not (tmp_path / "no").exists()


def test_a_plan_is_the_same_whoever_makes_it(model: Path, tmp_path: Path, unprobed: None) -> None:
    """With any number of threads that look."""
    for number in range(12):
        scene(tmp_path / f"s{number:02}.tif", number, 64 + 16 * number)
    plans: list[ArchivePlan] = []
    tables = []
    for threads in (1, 8):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planning, "LOOKERS", threads)
            out = tmp_path / f"o{threads}"
            plans.append(plan_batch(str(tmp_path / "*.tif"), out, model=model, workers=1))
            tables.append((out / "plan.csv").read_bytes())
    assert tables[0] == tables[1] and plans[0].pixels == plans[1].pixels
