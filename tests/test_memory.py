"""What a run may take, and what it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

import geoseg
from geoseg.errors import UsageError
from geoseg.prediction import meter
from geoseg.prediction.dry_run import dry_run
from tests.helpers import make_raster, tiny_model
from tests.oracles import OneHot

LIMITED = """
import json, sys
import geoseg
from geoseg.errors import UsageError
from geoseg.core.machine import peak_memory
try:
    geoseg.predict(sys.argv[1], sys.argv[2], model="landcover-aerial", runtime="openvino",
        precision="fp32", mem_limit=int(sys.argv[3]), threads=int(sys.argv[4]), no_vector=True)
    print(json.dumps([True, peak_memory()]))
except UsageError as error:
    print(json.dumps([False, str(error)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 4])
def test_a_real_network_stays_below_the_limit_or_is_refused(tmp_path: Path, threads: int) -> None:
    """What it computes with counts, not only what it weighs."""
    values = np.random.default_rng(0).integers(1, 255, (3, 1100, 1100), dtype=np.uint8)
    scene = make_raster(
        tmp_path / "s.tif",
        values,
        descriptions=("red", "green", "blue"),
        transform=from_origin(500000, 5000000, 0.5, 0.5),
    )

    def run(limit: int) -> tuple[bool, int | str]:
        arguments = [str(scene), str(tmp_path / f"{limit}.tif"), str(limit), str(threads)]
        command = [sys.executable, "-W", "ignore", "-c", LIMITED, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        ran, said = json.loads(done.stdout.splitlines()[-1])
        return ran, said

    went = 0
    for limit in range(380_000_000, 740_000_001, 90_000_000):
        ran, said = run(limit)
        if ran:
            assert int(said) <= limit
            went += 1
        else:
            assert "raise --mem-limit" in str(said)
    assert went


@pytest.mark.parametrize("limit", ["2GB", 0, -5, 1.5])
def test_a_limit_is_a_number_of_bytes(tmp_path: Path, limit: object) -> None:
    with pytest.raises(UsageError, match=r"mem_limit is .*; it must be a whole number, at least 1"):
        geoseg.predict(tmp_path / "scene.tif", mem_limit=limit)


def test_a_dry_run_keeps_to_the_limit(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"))
    values = np.ones((1, 40, 40), np.uint8)
    scene = make_raster(tmp_path / "s.tif", values, descriptions=("red",))
    assert dry_run(scene, tmp_path / "out.tif", model=model, mem_limit=8 << 30).memory_bytes > 0
    with pytest.raises(UsageError, match="raise --mem-limit"):
        dry_run(scene, tmp_path / "out.tif", model=model, mem_limit=50 << 20)


def test_how_far_a_wide_scene_is_told_between_its_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single row of chips is a single strip."""
    monkeypatch.setattr(meter, "EVERY_SECONDS", 0.0)
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"))
    values = np.zeros((1, 32, 400), np.uint8)
    values[:, :, 100:160] = 9
    scene = make_raster(tmp_path / "s.tif", values, descriptions=("red",), nodata=9)
    events: list[dict[str, int]] = []
    made = geoseg.predict(
        scene,
        tmp_path / "out.tif",
        model=model,
        runtime=OneHot(2),
        size=32,
        overlap=8,
        progress=lambda event: events.append(event),
    )
    told = [e["done"] for e in events if e["event"] == "progress" and e["stage"] == "predict"]
    assert told == sorted(told)
    assert told[-1] == values.size
    assert len({*told}) >= made.report["chips"]["run"] > 10
    assert told[0] < values.size / 8


@pytest.mark.extra("torch")
def test_versions_are_of_what_computed(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", ("red",), ("a", "b"))
    values = np.ones((1, 40, 40), np.uint8)
    scene = make_raster(tmp_path / "s.tif", values, descriptions=("red",))
    for runtime, other in (("openvino", "torch"), ("torch", "openvino")):
        made = geoseg.predict(
            scene, tmp_path / "out.tif", model=model, runtime=runtime, overwrite=True
        )
        assert runtime in made.report["versions"]
        assert other not in made.report["versions"]
