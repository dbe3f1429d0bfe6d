"""What ``auto`` promises of another precision than fp32 it has measured on the scene at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import geoseg
from geoseg.cards.files import read_model
from geoseg.networks import create_model, save_model
from geoseg.networks.export import write_graph
from geoseg.runtimes.on_openvino import precisions
from tests.helpers import make_raster, tiny_model

pytestmark = pytest.mark.skipif("bf16" not in precisions(), reason="this CPU has no bf16")

SIDE = 640


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two classes, told apart by whether a number is above 0.5; bf16 rounds it to 8 bits."""
    folder = tiny_model(tmp_path / "model", ["red"], ["low", "high"], size=64, overlap=16)
    network = create_model("linear", in_channels=1, classes=2)
    weight, bias = network.parameters()
    with torch.no_grad():
        weight[:, 0, 0, 0], bias[:] = torch.tensor([-1.0, 1.0]), torch.tensor([0.5, -0.5])
    save_model(read_model(folder).card, network.eval(), tmp_path / "own")
    write_graph(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(autouse=True)
def bf16_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for networks that have something to compute."""
    monkeypatch.setenv("GEOSEG_CACHE", str(tmp_path / "cache"))

    def speeds(load: Any, candidates: Any, chips: Any) -> Any:
        return {c: 0.1 if c[1] == "bf16" else 0.3 for c in candidates}, []

    monkeypatch.setattr("geoseg.runtimes.choose._speeds", speeds)


def flat(tmp_path: Path) -> Path:
    values = np.full((1, SIDE, SIDE), 0.2, np.float32)
    values[:, :, SIDE // 3 :] = 0.7
    return make_raster(tmp_path / "flat.tif", values, descriptions=["red"])


def half_textured(tmp_path: Path) -> Path:
    """Its right half lies near the border between the classes."""
    values = np.full((1, SIDE, SIDE), 0.2, np.float32)
    noise = np.random.default_rng(0).uniform(0.49, 0.51, (SIDE, SIDE // 2))
    values[0, :, SIDE // 2 :] = noise
    return make_raster(tmp_path / "half.tif", values, descriptions=["red"])


def predict(scene: Path, folder: Path, model: Path, **options: Any) -> tuple[Any, Any]:
    """The runtime's report, and the classes."""
    folder.mkdir()
    given = {"device": "cpu", "no_vector": True, **options}
    made = geoseg.predict(scene, folder / "map.tif", model=model, **given)
    with rasterio.open(made.raster) as dataset:
        return made.report["runtime"], dataset.read(1)


def test_a_flat_scenes_precision_is_no_other_scenes(tmp_path: Path, model: Path) -> None:
    runtime, classes = predict(flat(tmp_path), tmp_path / "1", model)
    assert runtime["precision"] == "bf16"
    assert "100 % of fp32's labels on 16 chips of this scene" in runtime["choice"]
    scene = half_textured(tmp_path)
    _, exact = predict(scene, tmp_path / "2", model, precision="fp32")
    _, rounded = predict(scene, tmp_path / "3", model, precision="bf16")
    assert 0.02 < (exact != rounded).mean() < 0.3, "it is a scene that bf16 gets wrong"
    runtime, classes = predict(scene, tmp_path / "4", model)
    assert runtime["precision"] == "fp32"
    assert "speeds as an earlier run found" in runtime["choice"]
    assert "99.5 % are asked for" in runtime["choice"]
    np.testing.assert_array_equal(classes, exact)


def test_a_few_chips_are_done_in_fp32_whatever_is_kept(tmp_path: Path, model: Path) -> None:
    predict(flat(tmp_path), tmp_path / "1", model)
    runtime, _ = predict(flat(tmp_path), tmp_path / "2", model, bbox=(500000, 4999000, 501000, 5e6))
    assert runtime["precision"] == "fp32"
    assert "a few chips" in runtime["choice"]
