"""Speed of networks, and the commands that list, time and export them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from geoseg.cards.files import read_model
from geoseg.cards.stac import from_mlm
from geoseg.errors import DeviceError, ModelError, OutputError, UsageError
from geoseg.networks import create_model, list_models, load_network
from geoseg.networks.bench import count_flops, measure_speed
from geoseg.networks.export import CARD_KEY, export_model
from geoseg.networks.normalize import normalize
from tests.helpers import tiny_model
from tests.test_cli import geoseg, one_line


class _Slow(nn.Module):
    """Takes a while, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.passes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta" and x.shape[-1] > 1:
            self.passes.append(tuple(x.shape))
            time.sleep(0.02)
        return self.layer(x)  # type: ignore[no-any-return]


def test_operations_are_twice_the_multiply_adds() -> None:
    network = nn.Conv2d(5, 7, 3, padding=1)
    assert count_flops(network, 5, 10) == 2 * 5 * 7 * 9 * 100 / 1e9
    assert next(network.parameters()).device.type == "cpu"


def test_speed_is_pixels_by_time() -> None:
    network = _Slow()
    found = measure_speed(network, size=16, batch=3, device="cpu", warmup=2, runs=4)
    assert network.passes == [(3, 3, 16, 16)] * 6
    assert (found.runs, found.warmup, found.batch, found.classes) == (4, 2, 3, 2)
    assert found.ms_least <= found.ms <= found.ms_most
    assert found.ms >= 20
    assert found.mpx_s == pytest.approx(3 * 16 * 16 / found.ms / 1e3)
    assert found.fps == pytest.approx(3 / found.ms * 1e3)
    # Sleeping takes no CPU time.
    assert found.cpu_mpx_s is not None and found.cpu_mpx_s > 1.5 * found.mpx_s
    assert found.peak_memory_bytes > 50e6


def test_a_slow_network_is_timed_three_times_at_least() -> None:
    found = measure_speed(_Slow(), size=8, device="cpu", seconds=0.0)
    assert (found.runs, found.warmup) == (3, 1)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    found = measure_speed(_Slow(), size=8, device="cpu", threads=before + 1, warmup=0, runs=1)
    assert found.threads == before + 1
    assert torch.get_num_threads() == before


def test_half_precision_runs_by_autocast() -> None:
    seen: list[torch.dtype] = []
    network = create_model("linear", in_channels=3, classes=2)
    network.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    options: dict[str, Any] = {"size": 8, "device": "cpu", "warmup": 0, "runs": 1}
    measure_speed(network, precision="bf16", **options)
    assert torch.bfloat16 in seen


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"size": 0}, UsageError),
        ({"batch": 0}, UsageError),
        ({"runs": 0}, UsageError),
        ({"precision": "int4"}, UsageError),
        ({"device": "cuda:99"}, DeviceError),
    ],
)
def test_what_can_not_be_timed_is_refused(options: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        measure_speed(_Slow(), **{"device": "cpu", **options})


# Export


def test_an_exported_model_carries_its_card_and_agrees(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", ("red", "nir"), ("a", "b"), network="small_unet")
    files = read_model(tmp_path / "model")
    path = export_model(files, tmp_path / "model.onnx", size=32)
    metadata = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert from_mlm(json.loads(metadata[CARD_KEY])) == files.card
    pixels = torch.rand(5, 2, 32, 32)
    with torch.inference_mode():
        expected = load_network(files).eval()(normalize(pixels, files.card.normalization))
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(["logits"], {"pixels": pixels.numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_an_export_overwrites_nothing_and_leaves_no_half_file(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", ("red",), ("a", "b"))
    files = read_model(tmp_path / "model")
    (tmp_path / "there.onnx").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export_model(files, tmp_path / "there.onnx")
    with pytest.raises(OutputError, match=r"ends in \.onnx"):
        export_model(files, tmp_path / "model.pt")
    with pytest.raises(OutputError, match="can't be written"):
        export_model(files, tmp_path / "nowhere" / "model.onnx", size=8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "there.onnx"]


def test_a_lattice_can_not_be_exported_and_says_so(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", ("red",), ("a", "b"), network_options={"crf": {"iterations": 1}})
    with pytest.raises(ModelError, match="filter='window'") as caught:
        export_model(read_model(tmp_path / "model"), tmp_path / "model.onnx", size=8)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


# Commands


def test_networks_are_listed_with_what_they_cost(tmp_path: Path) -> None:
    shown = geoseg("models", "list", "--networks", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["network", "paper", "parameters,", "M", "GFLOPs", "Mpx/s"]
    assert [line.split()[0] for line in lines[1 : 1 + len(list_models())]] == list_models()
    (pspnet,) = (line for line in lines if line.startswith("pspnet101 "))
    assert "Zhao et al. 2017" in pspnet and " 65.71 " in pspnet
    found = json.loads(geoseg("models", "list", "--networks", "--json", cwd=tmp_path).stdout)
    assert found["networks"]["fcn8s"]["parameters"] == 134_489_759


def test_a_network_or_model_is_timed(tmp_path: Path) -> None:
    few = ("--size", 24, "--runs", 2, "--device", "cpu")
    shown = geoseg("models", "bench", "small_unet", "--bands", 4, *few, "--batch", 2, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "2 x 4 x 24 x 24, fp32" in shown.stdout
    assert "Mpx/s" in shown.stdout and "GFLOPs" in shown.stdout and " GB" in shown.stdout
    tiny_model(tmp_path / "model", ("red", "nir"), ("a", "b"))
    shown = geoseg(
        "models", "bench", tmp_path / "model", *few, "--precision", "bf16", "--json", cwd=tmp_path
    )
    found = json.loads(shown.stdout)
    assert (found["bands"], found["classes"], found["precision"]) == (2, 2, "bf16")
    assert found["parameters"] == 2 * 2 + 2


def test_wrong_names_and_options_are_one_line(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", ("red",), ("a", "b"))
    unknown = geoseg("models", "bench", "segnat", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "did you mean ['segnet'" in one_line(unknown)
    foreign = geoseg("models", "bench", tmp_path / "model", "--classes", 3, cwd=tmp_path)
    assert foreign.returncode == 2
    assert "leave --encoder" in one_line(foreign)
    exported = geoseg("models", "export", tmp_path / "model", "-o", "m.onnx", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    again = geoseg("models", "export", tmp_path / "model", "-o", "m.onnx", cwd=tmp_path)
    assert again.returncode == 1
    assert "exists already" in one_line(again)
