"""The tests' own models are what geoseg would write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from geoseg.cards.card import WEIGHTS_NAME
from geoseg.cards.files import read_model
from tests.helpers import tiny_model


@pytest.mark.extra("torch")
@pytest.mark.parametrize(("bands", "classes", "seed"), [(1, 2, 0), (2, 3, 0), (6, 9, 7)])
def test_the_linear_model_has_torchs_numbers(
    tmp_path: Path, bands: int, classes: int, seed: int
) -> None:
    import torch

    from geoseg.networks import create_model, load_network

    names, legend = [f"band{i}" for i in range(bands)], [f"class{i}" for i in range(classes)]
    folder = tiny_model(tmp_path / "model", names, legend, seed=seed)
    torch.manual_seed(seed)
    expected = create_model("linear", in_channels=bands, classes=classes).state_dict()
    found = safetensors.numpy.load_file(folder / WEIGHTS_NAME)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=0, atol=1e-7)
    load_network(read_model(folder))


@pytest.mark.extra("torch", "onnxruntime")
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_its_graph_computes_what_its_network_does(tmp_path: Path, runtime: str) -> None:
    from geoseg.runtimes import load_runtime
    from geoseg.scene.radiometry import Radiometry

    files = read_model(tiny_model(tmp_path / "model", ("red", "nir"), ("a", "b", "c")))
    radiometry = Radiometry((0.01, 0.01), (0.0, 0.0), "for a test")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 2, 24, 40)).astype(np.uint8)
    given = [
        load_runtime(files, radiometry, runtime=name, precision="fp32", device="cpu").probs(pixels)
        for name in (runtime, "torch")
    ]
    np.testing.assert_allclose(np.asarray(given[0]), np.asarray(given[1]), atol=1e-6)
