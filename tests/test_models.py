"""geoseg.networks: the table, Dynamic World, the U-Net, model folders."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from geoseg.cards.card import ModelCard
from geoseg.cards.files import ModelFiles, read_model
from geoseg.cards.legend import ClassInfo
from geoseg.errors import ModelError, OutputError
from geoseg.networks import create_model, import_model, list_models, load_network, save_model
from geoseg.networks.dynamicworld import DynamicWorld, _halve, release_card, release_state

RELEASE = Path(__file__).parents[2] / "shared" / "models" / "dynamicworld"
needs_release = pytest.mark.skipif(
    not (RELEASE / "weights.npz").exists(), reason="the Dynamic World release is not here"
)

# The release's layers in its own names, written down from its description: name -> shape of .w.
CONVOLUTIONS = {
    "conv2d": (3, 3, 9, 64),
    "conv2d_1": (1, 1, 64, 48),
    **{"conv2d_2": (1, 1, 64, 96), "conv2d_3": (1, 1, 96, 96), "conv2d_4": (1, 1, 96, 96)},
    "conv2d_5": (1, 1, 64, 96),
    **{"conv2d_6": (1, 1, 96, 144), "conv2d_7": (1, 1, 144, 144), "conv2d_8": (1, 1, 144, 144)},
    "conv2d_9": (1, 1, 96, 144),
    **{"conv2d_10": (1, 1, 192, 144), "conv2d_11": (1, 1, 144, 144)},
    **{"conv2d_12": (1, 1, 144, 144), "conv2d_13": (1, 1, 192, 144)},
    "conv2d_14": (1, 1, 144, 9),
}
DEPTHWISE = [48, *3 * [96], *3 * [144], *3 * [144]]
NORMS = [64, 48, 48, *7 * [96], *7 * [144], *7 * [144]]


def fake_release(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays named and shaped like the release's, with small random numbers."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in CONVOLUTIONS.items():
        arrays[f"{name}.w"] = rng.normal(0, 0.2, shape)
        arrays[f"{name}.b"] = rng.normal(0, 0.2, shape[-1])
    for i, channels in enumerate(DEPTHWISE):
        name = f"depthwise_conv2d_{i}" if i else "depthwise_conv2d"
        arrays[f"{name}.w"] = rng.normal(0, 0.2, (3, 3, channels, 1))
        arrays[f"{name}.b"] = rng.normal(0, 0.2, channels)
    for i, channels in enumerate(NORMS):
        name = f"batch_normalization_{i}" if i else "batch_normalization"
        for part in ("g", "beta", "mean"):
            arrays[f"{name}.{part}"] = rng.normal(0, 0.2, channels) + (part == "g")
        arrays[f"{name}.var"] = rng.uniform(0.5, 1.5, channels)
    return {k: v.astype(np.float32) for k, v in arrays.items()}


def small_card(**changes: object) -> ModelCard:
    card = ModelCard(
        name="small",
        description="",
        network="small_unet",
        network_options={"width": 4, "depth": 2},
        bands=("red", "nir"),
        classes=(ClassInfo(0, "a", "#000000"), ClassInfo(1, "b", "#FFFFFF")),
        gsd=10,
        gsd_range=(8, 13),
    )
    return replace(card, **changes)  # type: ignore[arg-type]


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("small_unet", in_channels=2, classes=2, width=4, depth=2).eval()


# The table


def test_the_networks_give_logits_of_the_input_size() -> None:
    assert list_models() == sorted(list_models())
    assert {"dynamicworld", "small_unet"} <= set(list_models())
    for name in ("dynamicworld", "small_unet"):
        network = create_model(name, in_channels=5, classes=3).eval()
        assert network(torch.zeros(2, 5, 16, 24)).shape == (2, 3, 16, 24)


def test_unknown_networks_and_options_are_explained() -> None:
    with pytest.raises(ModelError, match=r"'segnat'.*'segnet'.*list --networks"):
        create_model("segnat", in_channels=3, classes=2)
    with pytest.raises(ModelError, match="wings"):
        create_model("small_unet", in_channels=3, classes=2, wings=2)
    with pytest.raises(ModelError, match="depth 0"):
        create_model("small_unet", in_channels=3, classes=2, depth=0)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, geoseg.networks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Dynamic World


def test_dynamicworld_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in DynamicWorld().parameters()) == 225_513


@needs_release
def test_imported_dynamicworld_gives_the_released_logits(tmp_path: Path) -> None:
    import_model(RELEASE, tmp_path / "dw")
    network = load_network(read_model(tmp_path / "dw"))
    golden = np.load(RELEASE / "golden.npz")
    with torch.inference_mode():
        x = torch.from_numpy(golden["x_101x94"]).permute(0, 3, 1, 2)
        logits = network(x).permute(0, 2, 3, 1).numpy()
    assert np.abs(logits - golden["y_101x94"]).max() < 1e-5
    assert (tmp_path / "dw" / "LICENSE").read_bytes() == (RELEASE / "LICENSE").read_bytes()
    assert (tmp_path / "dw" / "NOTICE").exists()


def test_release_arrays_land_in_their_layers_and_axes() -> None:
    arrays = fake_release()
    state = release_state(arrays)
    assert len(arrays) == 146
    stem = state["stem.0.weight"]
    assert stem.shape == (64, 9, 3, 3)
    assert stem[5, 2, 0, 1] == arrays["conv2d.w"][0, 1, 2, 5]
    depthwise = state["block3.body.5.0.weight"]
    assert depthwise[7, 0, 2, 1] == arrays["depthwise_conv2d_9.w"][2, 1, 7, 0]
    shortcut = state["block2.shortcut.1.running_var"]
    np.testing.assert_array_equal(shortcut, arrays["batch_normalization_16.var"])
    np.testing.assert_array_equal(state["head.bias"], arrays["conv2d_14.b"])


def test_a_release_with_other_arrays_is_refused() -> None:
    arrays = fake_release()
    del arrays["conv2d_7.b"]
    with pytest.raises(ModelError, match=r"has no conv2d_7\.b"):
        release_state(arrays)
    arrays = fake_release()
    arrays["conv2d.w"] = arrays["conv2d.w"][:, :, :3]
    with pytest.raises(ModelError, match=r"conv2d\.w .*nine-band"):
        release_state(arrays)


def test_dynamicworld_looks_no_further_than_its_card_says() -> None:
    network = DynamicWorld()
    network.load_state_dict(release_state(fake_release()))
    network.eval()
    card = release_card()
    torch.manual_seed(0)
    x = torch.rand(1, 9, 96, 96)
    with torch.inference_mode():
        whole = network(x)[..., 16:80, 16:80]
        crop = network(x[..., 16:80, 16:80])
    different = (whole - crop).abs().amax(dim=(0, 1)) > 1e-5
    inner = slice(card.margin, -card.margin)
    assert not different[inner, inner].any()
    assert different[0].any()
    # The margin is no larger than it must be: 21 px is the radius, rounded up to the multiple.
    assert different[card.margin - 2].any()


@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (1, 4, 2, 8), (1, 5, 6, 4), (1, 2, 64, 130)])
def test_halving_is_torchs_antialiased_resize(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.manual_seed(0))
    size = (shape[2] // 2, shape[3] // 2)
    expected = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(_halve(x), expected, rtol=0, atol=3e-6)


def test_dynamicworld_takes_a_single_pixel() -> None:
    network = DynamicWorld().eval()
    pixel = torch.rand(1, 9, 1, 1)
    with torch.inference_mode():
        assert network(torch.zeros(1, 9, 2, 3)).shape == (1, 9, 2, 3)
        alone, doubled = network(pixel), network(pixel.expand(1, 9, 2, 2))
    torch.testing.assert_close(alone, doubled[..., :1, :1])


# The U-Net


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 13), (8, 8), (33, 50)])
def test_small_unet_takes_any_size(size: tuple[int, int]) -> None:
    assert small_network()(torch.rand(2, 2, *size)).shape == (2, 2, *size)


def test_small_unet_gives_the_same_for_a_chip_alone_and_in_a_batch() -> None:
    network, x = small_network(), torch.rand(3, 2, 21, 34)
    with torch.inference_mode():
        together, alone = network(x), torch.cat([network(chip[None]) for chip in x])
        again = network(x)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert torch.equal(together, again)


def test_small_unet_output_depends_on_the_neighbourhood_only() -> None:
    network, x = small_network(), torch.rand(1, 2, 96, 96)
    changed = x.clone()
    changed[..., 80:] += 100.0
    with torch.inference_mode():
        difference = (network(x) - network(changed)).abs().amax(dim=(0, 1, 2))
    assert not difference[:40].any()
    assert difference[79] > 0


def test_the_embedded_network_is_small() -> None:
    network = create_model("small_unet", in_channels=6, classes=9, width=16, depth=3)
    assert 4 * sum(p.numel() for p in network.parameters()) < 5e6


# Model folders


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    network, x = small_network(), torch.rand(1, 2, 16, 16)
    save_model(small_card(), network, tmp_path / "deep" / "model")
    files = read_model(tmp_path / "deep" / "model")
    assert files.card == small_card()
    with torch.inference_mode():
        assert torch.equal(load_network(files)(x), network(x))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model"]
    modes = {p.stat().st_mode for p in (tmp_path / "deep" / "model").iterdir()}
    assert len(modes) == 1, "weights and card are readable by the same people"


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(card: ModelCard, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geoseg.networks.folder.write_card", disk_full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(small_card(), small_network(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        save_model(small_card(), small_network(), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_release_is_imported_from_folder_and_file(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    np.savez(release / "weights.npz", **fake_release())
    (release / "NOTICE").write_text("made by others")
    for source in (release, release / "weights.npz"):
        target = tmp_path / f"from_{source.name}"
        card = import_model(source, target)
        files = read_model(target)
        assert files.card == card == release_card()
        state = load_network(files).state_dict()
        for name, tensor in release_state(fake_release()).items():
            assert torch.equal(state[name], tensor), name
        assert (target / "NOTICE").read_text() == "made by others"


def test_a_model_folder_and_a_zip_of_it_are_imported(tmp_path: Path) -> None:
    save_model(small_card(), small_network(), tmp_path / "model")
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in (tmp_path / "model").iterdir():
            zipped.write(file, f"model/{file.name}")
    for i, source in enumerate((tmp_path / "model", archive)):
        assert import_model(source, tmp_path / f"copy{i}") == small_card()
        copied = read_model(tmp_path / f"copy{i}")
        assert copied.weights == read_model(tmp_path / "model").weights


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    accepted = "Dynamic World release.*geoseg model folder"
    with pytest.raises(ModelError, match=f"does not exist.*{accepted}"):
        import_model(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=accepted):
        import_model(tmp_path / "notes.txt", tmp_path / "out")
    (tmp_path / "weights.npz").write_text("hello")
    with pytest.raises(ModelError, match=accepted):
        import_model(tmp_path / "weights.npz", tmp_path / "out")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ModelError, match=r"has no conv2d\.w"):
        import_model(tmp_path / "other.npz", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=accepted):
        import_model(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pickled_objects_in_a_release_are_not_loaded(tmp_path: Path) -> None:
    arrays = {**fake_release(), "conv2d.w": np.array([{"code": 1}], dtype=object)}
    np.savez(tmp_path / "weights.npz", **arrays)
    with pytest.raises(ModelError, match=r"can't be read as \.npz"):
        import_model(tmp_path, tmp_path / "out")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_model(small_card(), small_network(), tmp_path / "model")
    files = read_model(tmp_path / "model")
    wider = replace(files, card=small_card(network_options={"width": 8, "depth": 2}))
    with pytest.raises(ModelError, match="not those of 'small_unet'"):
        load_network(wider)
    with pytest.raises(ModelError, match="not safetensors"):
        load_network(ModelFiles(files.card, b"nonsense", files.path, ""))
