"""Networks of segmentation_models_pytorch and torchvision behind geoseg's own interface."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn
from torchvision.models import resnet50

from geoseg.errors import ModelError
from geoseg.networks.base import guard_batch_norm
from geoseg.networks.from_smp import ARCHS, SmpModel
from geoseg.networks.from_torchvision import TorchvisionModel

#: Options that make each network small.
TINY: dict[str, dict[str, Any]] = {
    "Unet": {"decoder_channels": (16, 8, 8, 8, 8)},
    "UnetPlusPlus": {"decoder_channels": (16, 8, 8, 8, 8)},
    "MAnet": {"decoder_channels": (16, 8, 8, 8, 8), "decoder_pab_channels": 8},
    "Linknet": {},
    "FPN": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 64},
    "PAN": {"decoder_channels": 8},
    "UPerNet": {"decoder_channels": 16},
    "Segformer": {"decoder_segmentation_channels": 16, "encoder": "test_resnet"},
    "DPT": {
        "encoder": "test_vit",
        "decoder_intermediate_channels": (16, 16, 16, 16),
        "decoder_fusion_channels": 16,
    },
    "DeepLabV3": {"decoder_channels": 16},
    "DeepLabV3Plus": {"decoder_channels": 16},
    "PSPNet": {"psp_out_channels": 16},
}


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

    def urlopen(url: str, **_: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def tiny(arch: str, in_channels: int = 4, **options: Any) -> SmpModel:
    torch.manual_seed(0)
    options = {"encoder": "tu-test_resnet", **TINY[arch], **options}
    return SmpModel(in_channels, 3, arch=arch, **options)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def seeded(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.1)
    return network


# Sizes


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_any_size_goes_in_and_comes_out(arch: str) -> None:
    network = tiny(arch).eval()
    with torch.no_grad():
        for height, width in ((1, 1), (37, 70), (64, 64)):
            assert network(torch.rand(2, 4, height, width)).shape == (2, 3, height, width)
        side = max(network.size_least, 64)
        x = torch.rand(1, 4, side, side)
        assert torch.equal(network.forward_logits(x), network.network(x))
        assert torch.equal(network(x), network.network(x))


@pytest.mark.parametrize("side", [64, 32])
@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_one_chip_trains(arch: str, side: int) -> None:
    network = tiny(arch).train()
    guard_batch_norm(network)
    network(torch.rand(1, 4, side, side)).square().mean().backward()
    heads = network.network.segmentation_head.parameters()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads)


@pytest.mark.parametrize(
    ("arch", "encoder", "expected"),
    [
        ("PSPNet", "resnet18", 8),
        ("PSPNet", "tu-test_resnet", 32),
        ("DeepLabV3", "resnet18", 8),
        ("DeepLabV3Plus", "resnet18", 16),
        ("Unet", "resnet18", 32),
        ("PAN", "resnet18", 16),
    ],
)
def test_sides_are_multiples_of_the_encoders_stride(arch: str, encoder: str, expected: int) -> None:
    with torch.device("meta"):
        assert tiny(arch, encoder=encoder).size_multiple == expected


def test_output_strides() -> None:
    with torch.device("meta"):
        assert tiny("DeepLabV3", encoder="resnet18", output_stride=16).size_multiple == 16
        assert tiny("PAN", encoder="resnet18", output_stride=32).size_least == 256
        with pytest.raises(ModelError, match="Unet takes no output_stride"):
            tiny("Unet", output_stride=16)
        with pytest.raises(ModelError, match="support output stride 8 or 16, got 4"):
            tiny("DeepLabV3", output_stride=4)


def test_transformers_take_any_size_where_they_can_and_one_where_not() -> None:
    with torch.device("meta"):
        swin = tiny("UPerNet", encoder="swin_tiny_patch4_window7_224")
        maxvit = tiny("Unet", encoder="maxvit_tiny_rw_224")
        assert (swin.side, swin.size_multiple) == (None, 32)
        assert (maxvit.side, maxvit.size_multiple, maxvit.size_least) == (224, 224, 224)
        with pytest.raises(ModelError, match="chips of up to 224 px a side"):
            maxvit(torch.rand(1, 4, 10, 225))
        with pytest.raises(ModelError, match=r"multiple of 32 px, .* takes 80 px only"):
            tiny("DPT", img_size=80, dynamic_img_size=False)
        with pytest.raises(ModelError, match="is no square"):
            tiny("DPT", img_size=(64, 32))


def test_a_transformer_of_one_size_pads_to_it() -> None:
    network = tiny("DPT", img_size=(64, 64), dynamic_img_size=False).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 4, 20, 50)).shape == (1, 3, 20, 50)


# Counts, measured on the libraries themselves


@pytest.mark.parametrize(
    ("arch", "encoder", "expected"),
    [
        ("PSPNet", "resnet50", 24_393_173),
        ("PSPNet", "resnet101", 43_385_301),
        ("DeepLabV3", "resnet50", 39_638_869),
        ("DeepLabV3", "resnet101", 58_630_997),
        ("DeepLabV3Plus", "resnet50", 26_682_725),
        ("DeepLabV3Plus", "resnet101", 45_674_853),
        ("Unet", "resnet50", 32_524_005),
        ("UnetPlusPlus", "resnet50", 48_988_645),
        ("MAnet", "resnet50", 147_442_893),
        ("Linknet", "resnet50", 31_178_437),
        ("FPN", "resnet50", 26_118_613),
        ("PAN", "resnet50", 24_265_596),
        ("UPerNet", "resnet50", 37_289_813),
        # With the classifier of ImageNet-21k, which the library keeps; and with that of 1k.
        ("DPT", None, 137_811_560),
        ("DPT", "vit_base_patch16_224", 121_783_293),
    ],
)
def test_parameters_are_the_librarys(arch: str, encoder: str | None, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(SmpModel(3, 21, arch=arch, encoder=encoder)) == expected


def test_parameters_of_mixed_transformers_are_the_librarys() -> None:
    # Their drop rates are computed, which the meta device can't.
    assert parameters(SmpModel(3, 21, arch="Segformer")) == 3_719_541
    assert parameters(SmpModel(3, 21, arch="Segformer", encoder="mit_b2")) == 24_727_509


def test_parameters_with_options_are_the_librarys() -> None:
    with torch.device("meta"):
        plus = SmpModel(
            3,
            21,
            arch="DeepLabV3Plus",
            encoder="resnet101",
            decoder_aspp_separable=False,
            decoder_atrous_rates=(6, 12, 18),
        )
        assert parameters(plus) == 58_202_469
        xception = SmpModel(4, 21, arch="DeepLabV3Plus", encoder="xception65")
        assert parameters(xception) == 41_042_293


@pytest.mark.parametrize(
    ("arch", "aux", "expected"),
    [
        ("fcn_resnet50", False, 32_957_013),
        ("fcn_resnet50", True, 35_322_218),
        ("fcn_resnet101", False, 51_949_141),
        ("fcn_resnet101", True, 54_314_346),
        ("deeplabv3_resnet50", False, 39_638_869),
        ("deeplabv3_resnet50", True, 42_004_074),
        ("deeplabv3_resnet101", False, 58_630_997),
        ("deeplabv3_resnet101", True, 60_996_202),
    ],
)
def test_parameters_are_torchvisions(arch: str, aux: bool, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(TorchvisionModel(3, 21, arch=arch, aux=aux)) == expected


# Refusals


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("Unet", {"encoder": "resnet9999"}, "there is no encoder 'resnet9999'"),
        ("Unet", {"encoder": "tu-nosuchnet"}, "there is no encoder 'tu-nosuchnet'"),
        ("Unet", {"encoder": "resnet18", "decoder_chanels": 3}, "does not take"),
        ("Unet", {"decoder_chanels": 3}, "unexpected keyword argument"),
        ("Unet", {"activation": "sigmoid"}, "does not take"),
        ("Unet", {"aux_params": {"classes": 2}}, "does not take"),
        ("Unet", {"encoder": "test_vit"}, "take arch DPT"),
        ("DPT", {"encoder": "resnet34"}, "Only Timm encoders are supported for DPT"),
        ("DPT", {"encoder": "vit_small_patch14_dinov2"}, "a power of 2, .* lie at \\[14\\]"),
        ("DeepLabV3", {"encoder": "vgg11"}, "do not support dilated mode"),
        ("Linknet", {"encoder": "mit_b0"}, "is not supported for Linknet"),
    ],
)
def test_what_does_not_go_together_is_said(
    arch: str, options: dict[str, Any], message: str
) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match=message):
        tiny(arch, **options)


def test_unknown_architectures_are_named() -> None:
    with pytest.raises(ModelError, match=r"no architecture 'UNet'; it has .*UnetPlusPlus"):
        SmpModel(3, 2, arch="UNet")
    with pytest.raises(ModelError, match=r"no architecture 'lraspp'.*fcn_resnet50"):
        TorchvisionModel(3, 2, arch="lraspp")


# Weights


def test_the_librarys_own_weights_are_used_and_fitted(folder: Path) -> None:
    state = seeded(get_encoder("mobilenet_v2")).state_dict()
    safetensors.torch.save_file(state, folder / "mobilenet_v2.imagenet.safetensors")
    bands = ["blue", "green", "red", "nir"]
    network = SmpModel(
        4, 3, arch="FPN", encoder="mobilenet_v2", encoder_weights="imagenet", bands=bands
    )
    loaded = network.network.encoder.state_dict()
    assert loaded.keys() == state.keys()
    old, new = state["features.0.0.weight"], loaded["features.0.0.weight"]
    expected = torch.stack([old[:, 2], old[:, 1], old[:, 0], old.mean(1)], 1) * 3 / 4
    assert torch.allclose(new, expected, atol=1e-6)
    assert all(torch.equal(loaded[k], state[k]) for k in state if k != "features.0.0.weight")


def test_own_files_fill_the_librarys_encoders(tmp_path: Path) -> None:
    encoder = get_encoder("mobilenet_v2", in_channels=5)
    state = seeded(encoder).state_dict()
    path = tmp_path / "own.pth"
    torch.save(state, path)
    options = {"arch": "FPN", "encoder": "mobilenet_v2", "encoder_weights": str(path)}
    network = SmpModel(5, 3, **options)
    loaded = network.network.encoder.state_dict()
    assert all(torch.equal(loaded[k], state[k]) for k in state)
    torch.save({k: v for k, v in state.items() if "18.1" not in k}, path)
    with pytest.raises(ModelError, match="are not those of smp's 'mobilenet_v2'"):
        SmpModel(5, 3, **options)


def test_the_librarys_weights_that_are_not_here_are_named(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        SmpModel(3, 2, arch="Unet", encoder="resnet18", encoder_weights="ssl")
    revision = "d600d5116aac2e6e595f99f40612074c723c00b2"
    url = f"https://huggingface.co/smp-hub/resnet18.ssl/resolve/{revision}/model.safetensors"
    assert url in str(caught.value)
    assert str(folder / "resnet18.ssl.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("advprop", r"no weights 'advprop' for 'resnet18'; it has \['imagenet', 'ssl', 'swsl'\]"),
        ("torchgeo:SENTINEL2_ALL_MOCO", "give encoder='tu-resnet18'"),
        ("nowhere.pth", "there is no weights file nowhere.pth"),
    ],
)
def test_other_weights_are_refused(weights: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        SmpModel(3, 2, arch="Unet", encoder="resnet18", encoder_weights=weights)


@pytest.mark.parametrize("arch", ["UPerNet", "DPT"])
def test_timm_weights_are_used_and_fitted(arch: str, folder: Path) -> None:
    name = "test_vit" if arch == "DPT" else "test_resnet"
    state = seeded(timm.create_model(name)).state_dict()
    safetensors.torch.save_file(state, folder / f"{name}.r160_in1k.safetensors")
    network = tiny(arch, 2, encoder=name, encoder_weights="imagenet", bands=["green", "thermal1"])
    loaded = network.network.encoder.model.state_dict()
    stem = "patch_embed.proj.weight" if arch == "DPT" else "conv1.0.weight"
    old = state[stem]
    expected = torch.stack([old[:, 1], old.mean(1)], 1) * 3 / 2
    renamed = {key.replace(".", "_"): value for key, value in loaded.items()}
    assert torch.allclose(renamed.pop(stem.replace(".", "_")), expected, atol=1e-6)
    given = {key.replace(".", "_"): value for key, value in state.items()}
    assert all(torch.equal(value, given[key]) for key, value in renamed.items())


def test_timm_weights_are_brought_to_another_size(folder: Path) -> None:
    state = seeded(timm.create_model("test_vit")).state_dict()
    safetensors.torch.save_file(state, folder / "test_vit.r160_in1k.safetensors")
    network = tiny("DPT", 3, encoder_weights="imagenet", img_size=64, dynamic_img_size=False)
    loaded = network.network.encoder.model.state_dict()
    assert loaded["pos_embed"].shape[1] == state["pos_embed"].shape[1] - 10**2 + 4**2
    assert torch.equal(loaded["blocks.0.norm1.weight"], state["blocks.0.norm1.weight"])


def test_torchgeo_weights_are_used_and_fitted(folder: Path) -> None:
    pytest.importorskip("torchgeo.models", exc_type=ImportError)
    state = seeded(timm.create_model("resnet18", in_chans=13)).state_dict()
    torch.save(state, folder / "resnet18_sentinel2_all_moco-59bfdff9.pth")
    weights = "torchgeo:SENTINEL2_ALL_MOCO"
    for bands in (["red", "swir2"], ["nir", "green"]):
        network = tiny("FPN", 2, encoder="tu-resnet18", encoder_weights=weights, bands=bands)
        loaded = network.network.encoder.model.conv1.weight
        index = {"red": 3, "swir2": 12, "nir": 7, "green": 2}
        expected = state["conv1.weight"][:, [index[b] for b in bands]] * 13 / 2
        assert torch.allclose(loaded, expected, atol=1e-5)


# Torchvision


@pytest.mark.parametrize("arch", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_torchvisions_output_is_kept_and_one_chip_trains(arch: str) -> None:
    torch.manual_seed(0)
    network = TorchvisionModel(5, 3, arch=arch, aux=True)
    guard_batch_norm(network)
    x = torch.rand(1, 5, 32, 40)
    with torch.no_grad():
        out = network.train()(x)
        assert isinstance(out, dict)
        assert {k: v.shape for k, v in out.items()} == dict.fromkeys(("out", "aux"), (1, 3, 32, 40))
        assert [head.shape for head in network.heads(x)] == [(1, 3, 4, 5)] * 2
        network.eval()
        assert torch.allclose(network(x), network.network(x)["out"], atol=1e-6)
        assert network.forward_logits(x).shape == (1, 3, 4, 5)
        assert network(torch.rand(1, 5, 1, 9)).shape == (1, 3, 1, 9)


def test_torchvisions_weights_are_used_and_fitted(folder: Path) -> None:
    state = seeded(resnet50()).state_dict()
    torch.save(state, folder / "resnet50-0676ba61.pth")
    for weights in ("imagenet", "IMAGENET1K_V1"):
        network = TorchvisionModel(
            4,
            3,
            arch="fcn_resnet50",
            encoder_weights=weights,
            bands=["nir", "red", "green", "blue"],
        )
        loaded = network.network.backbone.state_dict()
        assert torch.allclose(
            loaded["conv1.weight"][:, 1:], state["conv1.weight"] * 3 / 4, atol=1e-6
        )
        assert all(torch.equal(loaded[k], state[k]) for k in loaded if k != "conv1.weight")


def test_torchvisions_weights_that_are_not_here_are_named(folder: Path) -> None:
    with pytest.raises(ModelError) as caught:
        TorchvisionModel(3, 2, arch="fcn_resnet101", encoder_weights="imagenet")
    assert "https://download.pytorch.org/models/resnet101-63fe2227.pth" in str(caught.value)
    assert str(folder / "resnet101-63fe2227.pth") in str(caught.value)
    with pytest.raises(ModelError, match=r"no weights 'ssl' .*'IMAGENET1K_V2'"):
        TorchvisionModel(3, 2, arch="fcn_resnet101", encoder_weights="ssl")
