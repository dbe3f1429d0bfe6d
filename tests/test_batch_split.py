"""``geoseg batch --split``: one large scene by several workers, whatever becomes of them."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geoseg
from geoseg.archive.ledger import Ledger
from geoseg.archive.worker import run_job
from geoseg.cards.card import Normalization
from geoseg.prediction.journal import StripStore
from tests.helpers import make_raster, tiny_model
from tests.test_batch import in_archive, maps, outcomes, run

pytestmark = pytest.mark.extra("batch")

HEIGHT, WIDTH = 330, 150
#: Of which the large scene has four blocks.
SPLIT = HEIGHT * WIDTH / 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a large scene and a small one, and what predict makes of them."""
    folder = tmp_path_factory.mktemp("split")
    scale = {"mean": (1500.0, 1500.0), "stddev": (300.0, 300.0)}
    three = ("water", "trees", "crops")
    normalization = Normalization("z-score", scale)
    tiny_model(
        folder / "model", ("red", "nir"), three, normalization=normalization, size=32, overlap=16
    )
    (folder / "scenes").mkdir()
    for name, height in (("large", HEIGHT), ("small", 40)):
        values = np.random.default_rng(height).integers(0, 3000, (2, height, WIDTH))
        path = folder / "scenes" / f"{name}.tif"
        make_raster(path, values.astype(np.uint16), descriptions=("red", "nir"))
        made = folder / "archive" / f"{name}-0"
        made.mkdir(parents=True)
        geoseg.predict(
            path,
            made / "landcover.tif",
            model=folder / "model",
            vector=made / "polygons.parquet",
        )
    return folder


def batch(place: Path, archive: Path, **options: Any) -> Any:
    from geoseg.archive.run import batch

    given = {"model": place / "model", "workers": 2, "vector_suffix": ".parquet"}
    return batch(str(place / "scenes"), archive, **{**given, **options})


def blocks_of(archive: Path) -> list[tuple[int, int, str]]:
    """The first strip of each block of the large scene, the first after, and its state."""
    with Ledger(archive / "ledger.sqlite") as ledger:
        (job,) = (job for job in ledger.jobs() if job.name == "large")
        return [(*block.source["block"], block.state) for block in ledger.blocks(job.key)]


def report_of(archive: Path) -> dict[str, Any]:
    (path,) = archive.glob("large-*/landcover.json")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name in ("threads", "mem_limit"):
        report["options"].pop(name)
    unlike = ("seconds", "memory", "peak_memory_bytes", "outputs", "runtime")
    return {key: value for key, value in report.items() if key not in unlike}


def made(archive: Path) -> dict[str, bytes]:
    """The maps, by their scenes' names alone."""
    return {re.sub("-[0-9a-f]+/", "/", name): found for name, found in maps(archive).items()}


def assert_same(archive: Path, other: Path) -> None:
    """Maps and reports are alike, and nothing else is there."""
    assert made(archive) == made(other) and len(made(other)) == 6
    assert report_of(archive) == report_of(other)
    assert not [*archive.glob("*/.geoseg-*")]
    assert in_archive(archive, "verify").returncode == 0


def test_a_large_scene_in_blocks_is_the_same_map(place: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    given = "scenes", "-o", str(archive), "--vector-format", "parquet"
    done = run(place, *given, "--split", f"{SPLIT:g}")
    assert done.returncode == 0, done.stderr
    assert_same(archive, place / "archive")
    blocks = blocks_of(archive)
    assert len(blocks) == 4 and {state for *_, state in blocks} == {"done"}
    assert outcomes(archive) == {"split": 1, "done": 6}
    # Blocks are no scenes.
    report = json.loads((archive / "report.json").read_text(encoding="utf-8"))
    assert report["jobs"]["states"] == {"done": 2}
    # Whatever --split says, it is the same map.
    done = run(place, *given)
    assert done.returncode == 0 and "0 new, 2 done" in done.stderr
    assert outcomes(archive) == {"split": 1, "done": 6}
    for wrong in ("0", "many"):
        done = run(place, *given, "--split", wrong)
        assert done.returncode == 2 and "--split" in done.stderr


def waits(task: dict[str, Any]) -> dict[str, Any]:
    """Gives blocks back."""
    found = {} if task["block"] else run_job(task)
    about = dict.fromkeys(("host", "worker", "versions"), "")
    given_back = {"outcome": "given back", "reason": "it waits", "peak_bytes": None, **about}
    return found or given_back


def dies_amid(task: dict[str, Any]) -> dict[str, Any]:
    """Takes its worker with it after the second strip of a block, the first time."""
    mark = Path(task["out"]).parent / "killed"
    if task["block"] and task["block"][0] > 0 and not mark.exists():
        mark.touch()
        write = StripStore.write

        def kills(self: StripStore, lane: int, strip: Any) -> None:
            write(self, lane, strip)
            if len(self) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        StripStore.write = kills  # type: ignore[method-assign]
    return run_job(task)


def test_coordinator_and_worker_are_gone_amid_blocks(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that comes after, without --split, goes on with them; so does a worker."""
    archive = tmp_path / "archive"

    def interrupts(event: Any) -> None:
        if event["event"] == "progress":
            with sqlite3.connect(archive / "ledger.sqlite") as base:
                if base.execute("SELECT count(*) FROM jobs WHERE parent != ''").fetchone()[0]:
                    raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geoseg.archive.coordinator.run_job", waits)
        with pytest.raises(KeyboardInterrupt):
            batch(place, archive, split=SPLIT, progress=interrupts)
    assert {state for *_, state in blocks_of(archive)} == {"waiting"}
    monkeypatch.setattr("geoseg.archive.coordinator.run_job", dies_amid)
    done = batch(place, archive)
    assert done.counts == {"waiting": 0, "running": 0, "done": 2, "quarantined": 0}
    assert_same(archive, place / "archive")
    assert (tmp_path / "killed").exists()
    found = outcomes(archive)
    assert (found["split"], found["done"]) == (1, 6) and found["lost"] in (1, 2)


def fails_once(task: dict[str, Any]) -> dict[str, Any]:
    """The second block fails for good, the first time."""
    mark = Path(task["out"]).parent / "failed"
    done = run_job(task)
    if task["block"] and 0 < task["block"][0] < 10 and not mark.exists():
        mark.touch()
        return {**done, "outcome": "failed", "kind": "corrupt", "reason": "a", "passing": False}
    return done


def test_a_scene_of_which_a_block_failed_is_tried_again_without_what_is_there(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    monkeypatch.setattr("geoseg.archive.coordinator.run_job", fails_once)
    done = batch(place, archive, split=SPLIT, workers=1)
    assert done.counts["done"] == done.counts["quarantined"] == 1
    with Ledger(archive / "ledger.sqlite") as ledger:
        (job,) = ledger.jobs("quarantined")
        assert job.kind == "corrupt" and job.reason.startswith("large, strips ")
    before = blocks_of(archive)
    assert "1 scene will" in in_archive(archive, "retry").stdout
    done = batch(place, archive, split=SPLIT, workers=1)
    assert done.counts["done"] == 2
    assert_same(archive, place / "archive")
    # The block that failed had left its strips, too; the others had not been begun.
    assert [state for *_, state in before] == ["done", "quarantined", "waiting", "waiting"]
    assert blocks_of(archive)[0][0] == before[1][1]


def test_what_a_worker_says_of_a_scene_and_of_its_blocks(place: Path, tmp_path: Path) -> None:
    """--job-timeout counts for each of them."""
    task: dict[str, Any] = {
        "key": "large-0",
        "source": {"files": [str(place / "scenes" / "large.tif")]},
        "out": str(tmp_path / "archive"),
        "options": {"model": str(place / "model")},
        "vector_suffix": ".parquet",
        "timeout": None,
        **{"block": None, "split": SPLIT, "seconds": 0.0},
    }
    found = run_job(task)
    blocks = found["result"]["blocks"]
    assert found["outcome"] == "split" and len(blocks) == 4
    for which in (None, blocks[0]):
        late = run_job({**task, "block": which, "timeout": 0.0})
        assert (late["outcome"], late["kind"], late["passing"]) == ("failed", "too long", False)
    for which in blocks:
        found = run_job({**task, "block": which})
        assert found["outcome"] == "done" and found["result"]["used"]
    found = run_job({**task, "split": None, "seconds": 1000.0})
    assert found["outcome"] == "done" and 1000 < found["result"]["seconds"] < 1100
    assert made(tmp_path / "archive").items() <= made(place / "archive").items()
    assert len(made(tmp_path / "archive")) == 3 and not [*tmp_path.glob("*/*/.geoseg-*")]
