import threading
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch

import geoseg
from geoseg.cards.card import Normalization
from geoseg.errors import DeviceError, ModelError, UsageError
from geoseg.networks.device import pick_device
from geoseg.runtimes import load_runtime
from geoseg.runtimes import on_torch as torch_runtime
from geoseg.runtimes.multi_device import MultiDevice
from geoseg.runtimes.on_torch import TorchRuntime
from geoseg.scene.radiometry import Radiometry
from tests.helpers import make_raster, tiny_model

BANDS, CLASSES = ("red", "nir"), ("water", "trees", "crops")
RADIOMETRY = Radiometry((0.1, 2.0), (-1.0, 0.5), "for a test")


@pytest.fixture
def model(tmp_path):
    normalization = Normalization(
        "z-score", {"mean": (100.0, 200.0), "stddev": (50.0, 25.0)}, clip=(0.0, 500.0)
    )
    return tiny_model(tmp_path / "model", BANDS, CLASSES, normalization=normalization)


def runtime(model, device="cpu"):
    return load_runtime(geoseg.load_model(model), RADIOMETRY, runtime="torch", device=device)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_probabilities_are_what_the_card_says(model, dtype):
    pixels = np.random.default_rng(0).integers(0, 120, (2, 2, 5, 6)).astype(dtype)
    out = runtime(model).probs(pixels)
    network = geoseg.networks.load_network(geoseg.load_model(model))
    weight = network.head.weight.detach().numpy()[:, :, 0, 0]
    x = pixels * np.array([0.1, 2.0])[:, None, None] + np.array([-1.0, 0.5])[:, None, None]
    x = np.clip(x, 0, 500)
    x = (x - np.array([100, 200])[:, None, None]) / np.array([50, 25])[:, None, None]
    logits = np.einsum("kc,nchw->nkhw", weight, x)
    logits += network.head.bias.detach().numpy()[:, None, None]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_changes_probabilities_and_no_label(model, temperature):
    files = geoseg.load_model(model)
    warm = replace(files, card=replace(files.card, temperature=temperature))
    pixels = np.random.default_rng(0).integers(0, 120, (2, 2, 9, 7)).astype(np.uint16)
    plain = load_runtime(files, RADIOMETRY, runtime="torch", device="cpu").probs(pixels)
    softened = load_runtime(warm, RADIOMETRY, runtime="torch", device="cpu").probs(pixels)
    np.testing.assert_array_equal(plain.argmax(axis=1), softened.argmax(axis=1))
    power = plain.astype(np.float64) ** (1 / temperature)
    np.testing.assert_allclose(softened, power / power.sum(axis=1, keepdims=True), atol=1e-5)
    assert np.array_equal(plain, softened) == (temperature == 1.0)


def test_a_device_that_keeps_tensors_gives_the_same_map(model, tmp_path):
    """The lines that serve a GPU, on the CPU: stitching in torch, numpy only at the end."""
    values = np.random.default_rng(1).integers(0, 256, (2, 150, 130)).astype(np.uint16)
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=BANDS)
    maps = []
    for gives_numpy in (True, False):
        made = runtime(model)
        made.on_device = not gives_numpy
        assert isinstance(made.zeros((1,)), np.ndarray if gives_numpy else torch.Tensor)
        geoseg.predict(
            scene,
            tmp_path / "out.tif",
            model=model,
            runtime=made,
            probs=tmp_path / "p.tif",
            probs_dtype="float32",
            no_vector=True,
            overwrite=True,
        )
        with rasterio.open(tmp_path / "p.tif") as dataset:
            maps.append(dataset.read())
    np.testing.assert_array_equal(*maps)


def test_out_of_memory_says_what_to_do(model, monkeypatch):
    made = runtime(model)

    def full(raw):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(made, "_forward", full)
    with pytest.raises(DeviceError, match=r"smaller --batch-size or --size"):
        made.probs(np.zeros((3, 2, 8, 8), dtype=np.uint8))


def test_several_devices_take_turns_at_one_scene(model, tmp_path, monkeypatch):
    """The lines that serve several GPUs, on the CPU twice: the same bytes, and both at work."""
    values = np.random.default_rng(1).integers(0, 256, (2, 150, 130)).astype(np.uint16)
    scene = make_raster(tmp_path / "scene.tif", values, descriptions=BANDS)

    def predict(folder, device):
        (tmp_path / folder).mkdir()
        options = {"model": model, "runtime": "torch", "precision": "fp32", "device": device}
        out = tmp_path / folder / "out.tif"
        return geoseg.predict(scene, out, size=32, overlap=8, batch_size=3, **options), out

    _, one = predict("one", "cpu")
    devices = [torch.device("cpu")] * 2
    monkeypatch.setattr(torch_runtime, "pick_devices", lambda name: devices)
    at_work = []
    each = TorchRuntime._each
    monkeypatch.setattr(
        TorchRuntime, "_each", lambda self, *given: at_work.append(id(self)) or each(self, *given)
    )
    result, two = predict("two", "cuda:all")
    assert result.report["runtime"]["device"] == "cpu+cpu"
    assert two.read_bytes() == one.read_bytes()
    counts = [at_work.count(own) for own in set(at_work)]
    assert len(counts) == 2
    assert abs(counts[0] - counts[1]) <= 1


def test_turns_keep_the_order_and_stop_where_one_fails(model, monkeypatch):
    made = MultiDevice([runtime(model), runtime(model)])
    chips = np.random.default_rng(0).integers(0, 99, (21, 2, 8, 8)).astype(np.uint16)
    expected = [probs for _, probs in runtime(model).run(enumerate(chips))]
    for size in (1, 4, 50):
        items, found = zip(*made.run(enumerate(chips), size), strict=True)
        assert list(items) == list(range(21))
        np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-6)
    first = next(made.run(enumerate(chips), 2))  # who leaves early leaves no thread behind
    assert first[0] == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("geoseg-turn")]
    forward = TorchRuntime._forward
    sizes = []

    def small(self, raw):
        sizes.append(len(raw))
        if len(raw) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, raw)

    monkeypatch.setattr(TorchRuntime, "_forward", small)
    items, found = zip(*made.run(enumerate(chips), 8), strict=True)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-6)
    assert sizes.count(8) == 2  # each device finds out once
    monkeypatch.setattr(
        TorchRuntime, "_forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))
    )
    with pytest.raises(DeviceError, match="smaller --batch-size or --size"):
        list(made.run(enumerate(chips), 8))


def test_auto_is_a_device_that_is_here():
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "meta", ""])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(DeviceError, match="cpu"):
        pick_device(name)


def test_weights_of_another_network_are_refused(model, tmp_path):
    other = tiny_model(tmp_path / "other", ("red", "nir", "blue"), CLASSES)
    (model / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(ModelError, match="weights"):
        runtime(model)


def test_bf16_gives_nearly_the_same_and_fp32_the_very_same(model):
    pixels = np.random.default_rng(0).integers(0, 120, (1, 2, 32, 32)).astype(np.uint16)
    files = geoseg.load_model(model)
    plain, half, default = (
        load_runtime(files, RADIOMETRY, runtime="torch", precision=p, device="cpu")
        for p in ("fp32", "bf16", "auto")
    )
    assert (plain.precision, half.precision, default.precision) == ("fp32", "bf16", "fp32")
    expected, found = plain.probs(pixels), half.probs(pixels)
    np.testing.assert_array_equal(default.probs(pixels), expected)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_precision_that_torch_lacks_is_refused(model):
    with pytest.raises(DeviceError, match=r"'fp16' .* computes in fp32, bf16 on cpu"):
        load_runtime(
            geoseg.load_model(model), RADIOMETRY, runtime="torch", precision="fp16", device="cpu"
        )


@pytest.mark.parametrize("option", [{"runtime": "tvm"}, {"precision": "fp8"}, {"threads": 0}])
def test_names_and_numbers_that_mean_nothing_are_refused(model, option):
    with pytest.raises(UsageError, match=next(iter(option))):
        load_runtime(geoseg.load_model(model), RADIOMETRY, **option)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_cpus_labels(model):
    pixels = np.random.default_rng(0).integers(0, 120, (2, 2, 64, 64)).astype(np.uint16)
    cuda = runtime(model, "cuda")
    labels = cuda.to_numpy(cuda.probs(pixels)).argmax(axis=1)
    assert (labels == runtime(model).probs(pixels).argmax(axis=1)).mean() > 0.999
