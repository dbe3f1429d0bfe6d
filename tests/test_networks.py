"""Every network of the table: faithful in numbers, and useful from creation to prediction."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import geoseg
from geoseg.cards.card import ModelCard
from geoseg.cards.files import read_model
from geoseg.cards.legend import ClassInfo
from geoseg.errors import ModelError
from geoseg.networks import (
    ModelInfo,
    create_model,
    list_models,
    load_network,
    model_info,
    save_model,
)
from geoseg.networks.base import SegModel, reflect
from geoseg.networks.bench import count_flops, published
from geoseg.networks.encoders import create_encoder
from geoseg.networks.export import export_onnx
from geoseg.networks.table import NETWORKS

SCENE = Path(__file__).parents[1] / "examples" / "landsat7_nc_2000.tif"
REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "seed-models.json"


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """Counts and fingerprints of the papers' networks, which may not be committed."""
    if not REFERENCE.exists():
        pytest.skip("needs ../shared/reference/seed-models.json, which is not in the repository")
    found: dict[str, Any] = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return found


@functools.cache
def info(name: str, classes: int = 21) -> ModelInfo:
    """Looked up once: building every network takes a while, even without numbers."""
    return model_info(name, classes=classes)


# Faithful: counts and fingerprints

#: Where a published count is not that of 21 classes.
CLASSES = {"segnet_basic": 11, "dilation10_cityscapes": 19}
#: Networks of the reference's list of library counts, under our names and options.
LIBRARY = {
    "torchvision.fcn_resnet50 (NOT paper FCN)": ("torchvision_fcn_resnet50", {}),
    "torchvision.fcn_resnet101": ("torchvision_fcn_resnet101", {}),
    "torchvision.deeplabv3_resnet50": ("torchvision_deeplabv3_resnet50", {}),
    "torchvision.deeplabv3_resnet101": ("torchvision_deeplabv3_resnet101", {}),
    "smp.PSPNet resnet50 default (depth 3, os8 truncated, NOT paper)": ("smp_pspnet", "resnet50"),
    "smp.PSPNet resnet101 default": ("smp_pspnet", "resnet101"),
    "smp.DeepLabV3 resnet50": ("smp_deeplabv3", "resnet50"),
    "smp.DeepLabV3 resnet101": ("smp_deeplabv3", "resnet101"),
    "smp.DeepLabV3Plus resnet50": ("smp_deeplabv3plus", "resnet50"),
    "smp.DeepLabV3Plus resnet101": ("smp_deeplabv3plus", "resnet101"),
    "smp.Unet resnet50": ("unet", "resnet50"),
    "smp.UnetPlusPlus resnet50": ("unetplusplus", "resnet50"),
    "smp.MAnet resnet50": ("manet", "resnet50"),
    "smp.Linknet resnet50": ("linknet", "resnet50"),
    "smp.FPN resnet50": ("fpn", "resnet50"),
    "smp.PAN resnet50": ("pan", "resnet50"),
    "smp.UPerNet resnet50": ("upernet", "resnet50"),
    "smp.Segformer mit_b0": ("segformer", "mit_b0"),
    "smp.Segformer mit_b2": ("segformer", "mit_b2"),
    "smp.DPT tu-vit_base_patch16_224": ("dpt", None),
}


def test_the_published_parameters_are_exact(reference: dict[str, Any]) -> None:
    published = {k: v["params_total"] for k, v in reference["models"].items()}
    ours = {name: info(name, CLASSES.get(name, 21)).parameters for name in published}
    assert ours == published


def test_auxiliary_heads_and_other_class_counts_are_exact(reference: dict[str, Any]) -> None:
    models = reference["models"]
    for name in ("pspnet50", "pspnet101", "torchvision_deeplabv3_resnet101"):
        assert model_info(name, aux=True).parameters == models[name]["params_with_aux"]
    assert (
        model_info("pspnet50", classes=150).parameters == models["pspnet50"]["params_150_classes"]
    )
    assert model_info("segnet", classes=11).parameters == models["segnet"]["params_11_classes"]
    nonseparable = model_info("deeplabv3plus_xception65", separable=False).parameters
    assert nonseparable == models["deeplabv3plus_xception65"]["params_nonseparable"]


def test_the_libraries_networks_have_their_own_counts(reference: dict[str, Any]) -> None:
    counts = reference["library_param_counts_21_classes_3_bands"]
    for key, (name, encoder) in LIBRARY.items():
        expected = counts[key]["noaux"] if isinstance(counts[key], dict) else counts[key]
        assert model_info(name, encoder or None).parameters == expected, key


def test_the_published_output_strides_hold(reference: dict[str, Any]) -> None:
    for name, entry in reference["models"].items():
        strides = info(name, CLASSES.get(name, 21)).output_stride
        assert strides == entry["output_stride"], name


#: Key of the reference's operation counts -> our network, its options and the input's side.
OPERATIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "deeplabv1_largefov": ("deeplabv1_largefov", {}, 512),
    "resnet38_seg": ("resnet38", {}, 512),
    "dilation8_basic": ("dilation8_basic", {}, 900),
    "dilation8_large": ("dilation8_large", {}, 900),
    "segnet": ("segnet", {}, 512),
    "deeplabv2_r101": ("deeplabv2_r101", {}, 512),
    "deeplabv3_r101_os16": ("deeplabv3_r101", {}, 512),
    "deeplabv3_r101_os8": ("deeplabv3_r101", {"output_stride": 8}, 512),
    "deeplabv3plus_r101_os16": ("deeplabv3plus_r101", {}, 512),
    "pspnet101_noaux": ("pspnet101", {}, 513),
    "refinenet101": ("refinenet101", {}, 512),
    "gcn_r152_k7": ("gcn_r152_k7", {}, 512),
    "deeplabv3plus_xception_jfz": ("deeplabv3plus_xception_jfz", {}, 512),
    "fcn8s": ("fcn8s", {}, 512),
    "tv_deeplabv3_r101": ("torchvision_deeplabv3_resnet101", {}, 512),
    "smp_unet_r50": ("unet", {"encoder": "resnet50"}, 512),
    "smp_upernet_r50": ("upernet", {"encoder": "resnet50"}, 512),
}


class _Native(nn.Module):
    """forward_logits as a module of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward_logits(x)  # type: ignore[operator, no-any-return]


def test_the_published_operations_are_exact(reference: dict[str, Any]) -> None:
    counts = reference["flops_torch_flop_counter_total_gflops(=2*MAC)"]
    for key, (name, options, side) in OPERATIONS.items():
        with torch.device("meta"):
            network = _Native(create_model(name, **options).eval())
        assert count_flops(network, 3, side) == counts[key]["gflops"], key


def h32(count: int, seed: int) -> NDArray[np.float64]:
    """The reference's integer hash of 0..count-1, as numbers of -1 to 1."""
    mask = np.uint64(0xFFFFFFFF)
    x = (np.arange(count, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B1) & mask
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ x >> np.uint64(shift)) * np.uint64(factor) & mask
    return (x ^ x >> np.uint64(16)).astype(np.float64) / 2**32 * 2 - 1


def hash_weights(network: nn.Module) -> nn.Module:
    """Weights fixed by their own index; transposed convolutions stay bilinear."""

    def put(target: Tensor, values: NDArray[np.float64]) -> None:
        target.copy_(torch.from_numpy(values).view(target.shape))

    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                fan = layer.weight[0].numel()
                put(layer.weight, h32(layer.weight.numel(), 0) * math.sqrt(3 / fan))
                if layer.bias is not None:
                    put(layer.bias, 0.1 * h32(layer.bias.numel(), 1))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.weight.fill_(1.0)
                put(layer.bias, 0.05 * h32(layer.bias.numel(), 1))
                layer.running_mean.zero_()  # type: ignore[union-attr]
                layer.running_var.fill_(1.0)  # type: ignore[union-attr]
    return network.eval()


FINGERPRINTS = [
    ("fcn8s", "fingerprint", "forward_logits"),
    ("deeplabv1_largefov", "fingerprint", "forward_logits"),
    ("deeplabv1_largefov", "fingerprint_fullres_align_corners", "forward"),
    ("pspnet101", "fingerprint", "forward"),
    ("dilation8_basic", "fingerprint", "forward_logits"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "key", "method"), FINGERPRINTS)
def test_the_published_fingerprints_hold(
    reference: dict[str, Any], name: str, key: str, method: str
) -> None:
    expected = reference["models"][name][key]
    network = hash_weights(create_model(name))
    shape = expected["input"]
    x = torch.from_numpy(h32(math.prod(shape), 7)).view(shape).float()
    with torch.inference_mode():
        logits = getattr(network, method)(x)
    assert list(logits.shape) == expected["output_shape"]
    tolerance = 1e-5 * expected["std"]
    for point in expected["points"]:
        c, row, col = point["chw"]
        assert abs(float(logits[0, c, row, col]) - point["value"]) <= tolerance
    assert abs(float(logits.mean()) - expected["mean"]) <= tolerance
    assert abs(float(logits.std(correction=0)) - expected["std"]) <= tolerance


@pytest.mark.parametrize(
    ("name", "side", "cells"),
    [
        ("deeplabv1_largefov", 321, 41),
        ("deeplabv1_largefov", 65, 9),
        ("deeplabv2_r101", 321, 41),
        ("deeplabv2_r101", 513, 65),
        ("deeplabv3_r101", 513, 33),
        ("resnet38", 65, 9),
        ("resnet38", 64, 8),
        ("resnet38", 504, 63),
        ("dilation8_frontend", 900, 66),
        ("dilation8_frontend", 404, 4),
        ("dilation8_large", 500, 16),
        ("refinenet101", 65, 17),
    ],
)
def test_logits_have_the_published_size(name: str, side: int, cells: int) -> None:
    with torch.device("meta"):
        network = create_model(name)
        logits = network.eval().forward_logits(torch.empty(1, 3, side, side))  # type: ignore[operator]
    assert logits.shape == (1, 21, cells, cells)


# Faithful: what a count doesn't show


@pytest.mark.parametrize("context", ["basic", "large"])
def test_a_context_module_without_noise_is_the_identity_above_zero(context: str) -> None:
    network = create_model("dilation8_basic", classes=7, context=context, noise=0.0, width=1 / 64)
    x = torch.randn(1, 7, 40, 41)
    torch.testing.assert_close(network.context(x), x.relu(), atol=2e-6, rtol=0)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "side", "published"),
    [
        ("deeplabv1_largefov", 513, 435),
        ("deeplabv1_4x4", 385, 323),
        ("dilation8_frontend", 404, 380),
    ],
)
def test_a_score_sees_as_far_as_published(
    monkeypatch: pytest.MonkeyPatch, name: str, side: int, published: int
) -> None:
    network = create_model(name, in_channels=1, classes=1, width=1 / 64)
    # A maximum would let one pixel through, whatever it could see.
    monkeypatch.setattr(nn.functional, "max_pool2d", nn.functional.avg_pool2d)
    assert seen_by_the_middle(network.forward_logits, network, side) == published  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("context", "published"), [("basic", 67), ("large", 67), ("cityscapes", 259)]
)
def test_a_context_module_sees_as_far_as_published(context: str, published: int) -> None:
    network = create_model("dilation8_basic", classes=1, context=context, width=1 / 64)
    module = network.context
    assert seen_by_the_middle(module, module, 263) == published  # type: ignore[arg-type]


def seen_by_the_middle(function: Callable[[Tensor], Tensor], module: nn.Module, side: int) -> int:
    """Width of what the middle output depends on, px, with weights that hide nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.0 if parameter.ndim == 1 else 1 / parameter[0].numel())
    x = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    module.double().eval()
    out = function(x)
    middle = out.shape[-1] // 2
    out[0, 0, middle, middle].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    columns = x.grad[0, 0].abs().sum(dim=0).nonzero()
    return int(columns.max() - columns.min() + 1)


def test_padding_inside_or_outside_gives_the_same_away_from_the_edge() -> None:
    options: dict[str, Any] = {"classes": 3, "width": 1 / 64}
    valid = hash_weights(create_model("dilation8_frontend", **options)).double()
    same = hash_weights(create_model("dilation8_frontend", padding="same", **options)).double()
    x = torch.randn(1, 3, 448, 448, dtype=torch.float64)
    with torch.inference_mode():
        a, b = valid(x), same(x)
    inner = slice(208, 240)  # 190 px from any edge, and a cell for the resizing
    torch.testing.assert_close(a[..., inner, inner], b[..., inner, inner])
    assert (a - b)[..., :64, :64].abs().max() > 1e-3


def test_fcn_upsampling_is_bilinear_and_stays_so() -> None:
    network = create_model("fcn8s", classes=2, width=1 / 64)
    frozen = [p for p in network.parameters() if not p.requires_grad]
    assert [tuple(p.shape) for p in frozen] == [(2, 2, 4, 4), (2, 2, 4, 4), (2, 2, 16, 16)]
    up = network.up  # type: ignore[union-attr]
    flat = up(torch.ones(1, 2, 6, 6))[0, :, 8:-8, 8:-8]  # type: ignore[operator]
    torch.testing.assert_close(flat, torch.ones_like(flat))


def test_every_convolution_of_a_dilated_stage_has_its_rate() -> None:
    network = create_encoder("resnet50", 3, (16, 32), output_stride=8).network
    rates = {
        stage: {m.dilation for m in getattr(network, stage).modules() if _is_spatial(m)}
        for stage in ("layer2", "layer3", "layer4")
    }
    assert rates == {"layer2": {(1, 1)}, "layer3": {(2, 2)}, "layer4": {(4, 4)}}
    timm_way = create_encoder("resnet50", 3, (32,), output_stride=8, first_block="previous").network
    assert {m.dilation for m in timm_way.layer4.modules() if _is_spatial(m)} == {(2, 2), (4, 4)}


def test_the_multi_grid_multiplies_the_last_stage() -> None:
    network = create_encoder("resnet50", 3, (32,), output_stride=16, multi_grid=(1, 2, 4)).network
    assert [m.dilation for m in network.layer4.modules() if _is_spatial(m)] == [
        (2, 2),
        (4, 4),
        (8, 8),
    ]
    with pytest.raises(ModelError, match=r"resnet18.*4 spatial.*3 factors"):
        create_encoder("resnet18", 3, (32,), multi_grid=(1, 2, 4))


def _is_spatial(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)


def test_features_come_back_onto_their_own_pixels() -> None:
    """A network whose logits are its input at every eighth pixel gives a ramp back as it was."""

    class Sampled(SegModel):
        size_multiple = 8
        size_offset = 1
        align_corners = True

        def heads(self, x: Tensor) -> tuple[Tensor, ...]:
            return (x[..., ::8, ::8],)

    ramp = torch.arange(57.0).expand(1, 1, 41, 57)
    torch.testing.assert_close(Sampled()(ramp), ramp)


@pytest.mark.parametrize(
    ("encoder", "options", "corners"),
    [
        ("resnet50", {}, True),
        ("resnet50", {"caffe": True}, True),
        ("resnet50", {"caffe": True, "output_stride": 8}, True),
        ("xception65", {"output_stride": 16, "first_block": "previous"}, True),
        ("mobilenetv3_small_100", {"output_stride": 8}, True),
        ("vgg16_bn", {}, False),
        ("convnext_atto", {}, False),
        ("densenet121", {}, False),
        ("dla34", {}, False),  # which does not take 513 px at all
    ],
)
def test_where_an_encoders_features_lie_is_found(
    encoder: str, options: dict[str, Any], corners: bool
) -> None:
    assert create_encoder(encoder, 3, (4, 32), **options).corners is corners


@pytest.mark.parametrize("name", ["deeplabv2_r101", "deeplabv3_r101", "deeplabv3plus_r101"])
def test_the_published_sides_are_neither_padded_nor_cut(name: str) -> None:
    with torch.device("meta"):
        network = create_model(name).eval()
    seen: list[tuple[int, ...]] = []
    network.encoder.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda layer, inputs: seen.append(tuple(inputs[0].shape[2:]))
    )
    for side in (321, 513):
        network(torch.empty(1, 3, side, side, device="meta"))
    assert seen == [(321, 321), (513, 513)]


def test_refinenet_can_convolve_before_pooling() -> None:
    options: dict[str, Any] = {"encoder": "test_resnet", "channels": 8}
    networks = [
        hash_weights(create_model("refinenet", classes=3, conv_first=first, **options))
        for first in (False, True)
    ]
    x = torch.randn(1, 3, 65, 65)
    with torch.inference_mode():
        after, before = (network(x) for network in networks)
    assert [p.shape for p in networks[0].parameters()] == [
        p.shape for p in networks[1].parameters()
    ]
    assert not torch.allclose(after, before)


def test_segnet_pools_odd_sides_up_and_gives_them_back() -> None:
    network = create_model("segnet", in_channels=2, classes=3, width=1 / 32).eval()
    seen: list[int] = []
    for group in network.decoder:  # type: ignore[union-attr]
        group.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].shape[2]))
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 360, 45)).shape == (1, 3, 360, 45)
    # The released configuration for 360 x 480 px: 12 -> 23 -> 45 -> 90 -> 180 -> 360 rows.
    assert seen == [23, 45, 90, 180, 360]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 7)])
def test_reflection_is_that_of_numpy(shape: tuple[int, int]) -> None:
    x = torch.arange(float(shape[0] * shape[1])).view(1, 1, *shape)
    found = reflect(x, above=2, below=9, left=3, right=16)
    pad = ((0, 0), (0, 0), (2, 9), (3, 16))
    mode = "edge" if 1 in shape else "reflect"
    if mode == "reflect":
        np.testing.assert_array_equal(found, np.pad(x, pad, mode="reflect"))
    rows = np.pad(x[0, 0, :, 0], (2, 9), mode="edge" if shape[0] == 1 else "reflect")
    np.testing.assert_array_equal(found[0, 0, :, 3], rows)


# Useful: every architecture from creation to prediction

_TINY: dict[str, Any] = {"encoder": "test_resnet"}
_SMP_TINY: dict[str, Any] = {"encoder": "tu-test_resnet"}
#: Every architecture, small: values do not matter here.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "fcn32s": {"width": 1 / 64},
    "fcn16s": {"width": 1 / 64},
    "fcn8s": {"width": 1 / 64, "padding": "same"},
    "fcn8s_atonce": {"width": 1 / 64},
    "fcn_alexnet": {"width": 1 / 32},
    "segnet": {"width": 1 / 16},
    "segnet_basic": {"width": 1 / 8},
    "deeplabv1_largefov": {"width": 1 / 32},
    "deeplabv1_4x4": {"width": 1 / 32},
    "deeplabv2_vgg16_aspp_l": {"width": 1 / 32},
    "deeplabv2": _TINY,
    "deeplabv3": {**_TINY, "channels": 16},
    "deeplabv3plus": {"encoder": "mobilenetv3_small_100", "channels": 16},
    "pspnet": {**_TINY, "channels": 16},
    "resnet38": {"width": 1 / 32},
    "refinenet": {**_TINY, "channels": 16},
    "gcn": {**_TINY, "kernel": 7},
    "dilation8_frontend": {"width": 1 / 64, "padding": "same"},
    "dilation8_basic": {"width": 1 / 64},
    "dilation8_large": {"width": 1 / 64, "padding": "same"},
    "dilation10_cityscapes": {"width": 1 / 64, "padding": "same"},
    "crfasrnn_fcn8s": {
        "width": 1 / 64,
        "padding": "same",
        "filter": "window",
        "radius": 1,
        "iterations": 2,
    },
    "unet": {**_SMP_TINY, "decoder_channels": (16, 8, 8, 8, 8)},
    "unetplusplus": {**_SMP_TINY, "decoder_channels": (16, 8, 8, 8, 8)},
    "manet": {**_SMP_TINY, "decoder_channels": (16, 8, 8, 8, 8), "decoder_pab_channels": 8},
    "linknet": _SMP_TINY,
    "fpn": {**_SMP_TINY, "decoder_pyramid_channels": 16, "decoder_segmentation_channels": 64},
    "pan": {**_SMP_TINY, "decoder_channels": 8},
    "upernet": {**_SMP_TINY, "decoder_channels": 16},
    "segformer": {**_SMP_TINY, "decoder_segmentation_channels": 16},
    "dpt": {
        "encoder": "test_vit",
        "decoder_intermediate_channels": (16, 16, 16, 16),
        "decoder_fusion_channels": 16,
    },
    "smp_deeplabv3": {**_SMP_TINY, "decoder_channels": 16},
    "smp_deeplabv3plus": {**_SMP_TINY, "decoder_channels": 16},
    "smp_pspnet": {**_SMP_TINY, "psp_out_channels": 16},
    "torchvision_fcn_resnet50": {},
    "torchvision_deeplabv3_resnet50": {},
    "dynamicworld": {},
    "full_separable": {"stem": 4, "widths": (8, 8), "dilations": ((1, 2), (3,))},
    "half_resnet": {"width": 8, "stem": 4, "dilations": (1, 2)},
    "half_separable": {"stem": 8, "side": 4, "widths": (8, 12, 12)},
    "linear": {},
    "small_unet": {"width": 4, "depth": 2},
}


def test_every_architecture_of_the_table_is_here() -> None:
    def kinds(names: Any) -> set[tuple[str, str]]:
        archs = [(NETWORKS[n].target, str(NETWORKS[n].options.get("arch"))) for n in names]
        return {(target, arch.replace("resnet101", "resnet50")) for target, arch in archs}

    assert kinds(ARCHITECTURES) == kinds(list_models())


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_serves_from_creation_to_prediction(name: str, tmp_path: Path) -> None:
    options = ARCHITECTURES[name]
    takes_any_size_and_bands(name, options)
    network = learns(name, options)
    card = is_saved_and_loaded(name, options, network, tmp_path / "model")
    predicts(card, tmp_path)
    exports(network, tmp_path)


def takes_any_size_and_bands(name: str, options: dict[str, Any]) -> None:
    for bands, sides in ((1, (1, 1)), (3, (65, 67)), (13, (128, 128))):
        torch.manual_seed(0)
        network = create_model(name, in_channels=bands, classes=3, **options).eval()
        assert isinstance(network, SegModel)
        with torch.inference_mode():
            logits = network(torch.randn(1, bands, *sides))
        assert logits.shape == (1, 3, *sides)
        assert logits.isfinite().all()


def learns(name: str, options: dict[str, Any]) -> nn.Module:
    """A step down the gradient lowers the loss, with a batch of one chip, too."""
    torch.manual_seed(0)
    network = create_model(name, in_channels=6, classes=3, **options)
    stir(network)
    for layer in network.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.p = 0.0
    for batch in (1, 2):
        pixels = torch.randn(batch, 6, 64, 64)
        labels = (pixels[:, 0] > 0).long() + (pixels[:, 1] > 0.5).long()
        before, after = descend(network, pixels, labels)
        assert after < before
    return network.eval()


def descend(network: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[float, float]:
    """The loss before and after a step down the gradient, as small as it takes."""
    network.train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    loss = nn.functional.cross_entropy(network(pixels), labels)
    before = float(loss.detach())
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    slopes = [(p, p.grad) for p in network.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float((g**2).sum()) for _, g in slopes))
    assert norm > 0
    for step in (1e-1, 1e-2, 1e-3, 1e-4):
        network.load_state_dict(state)
        with torch.no_grad():
            for parameter, slope in slopes:
                parameter -= step / norm * slope
            after = float(nn.functional.cross_entropy(network(pixels), labels))
        if after < before:
            break
    return before, after


def stir(network: nn.Module) -> None:
    """Give score layers that start at 0 something to say, or every test would compare zeros."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and not layer.weight.any():
                layer.weight.normal_(std=0.05)


def is_saved_and_loaded(
    name: str, options: dict[str, Any], network: nn.Module, folder: Path
) -> ModelCard:
    card = ModelCard(
        name="under-test",
        description="",
        network=name,
        network_options=options,
        bands=("blue", "green", "red", "nir", "swir1", "swir2"),
        classes=tuple(ClassInfo(i, n, "#123456") for i, n in enumerate(("a", "b", "c"))),
        gsd=28.5,
        gsd_range=(10, 60),
        size=64,
        overlap=32,
        multiple=model_info(name, **options).multiple,
    )
    save_model(card, network, folder)
    pixels = torch.randn(1, 6, 64, 64)
    with torch.inference_mode():
        again = load_network(read_model(folder))(pixels)
        assert torch.equal(again, network(pixels))
        assert again.std() > 0
    return card


def predicts(card: ModelCard, folder: Path) -> None:
    with rasterio.open(SCENE) as dataset:
        west, north = dataset.transform @ (200, 200)
    result = geoseg.predict(
        SCENE,
        folder / "map.tif",
        model=folder / "model",
        bbox=(west, north - 100 * 28.5, west + 100 * 28.5, north),
        no_vector=True,
    )
    with rasterio.open(result.raster) as dataset:
        classes = dataset.read(1)
    assert classes.shape == (100, 100)
    assert set(np.unique(classes)) <= {0, 1, 2}
    assert result.report["chips"]["run"] > 1
    assert result.report["model"]["name"] == card.name


def exports(network: nn.Module, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(export_onnx(network, in_channels=6, size=64))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    free = isinstance(session.get_inputs()[0].shape[0], str)
    pixels = torch.randn(3 if free else 1, 6, 64, 64)
    with torch.inference_mode():
        expected = network(pixels)
    (found,) = session.run(["logits"], {"pixels": pixels.numpy()})
    assert expected.std() > 0
    assert np.abs(found - expected.numpy()).max() <= 1e-4 * float(expected.std())


# The interface


def test_reading_a_model_fetches_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, spec: str) -> None:
        raise AssertionError(f"{spec} was asked for")

    options = {"encoder": "test_resnet", "channels": 8}
    network = create_model("deeplabv3", in_channels=2, classes=2, **options)
    card = ModelCard(
        name="pretrained",
        description="",
        network="deeplabv3",
        network_options={**options, "encoder_weights": "imagenet"},
        bands=("red", "nir"),
        classes=(ClassInfo(0, "a", "#000000"), ClassInfo(1, "b", "#FFFFFF")),
        gsd=10,
        gsd_range=(10, 10),
    )
    save_model(card, network, tmp_path / "model")
    monkeypatch.setattr("geoseg.networks.encoders.encoder_state", fetch)
    loaded = load_network(read_model(tmp_path / "model")).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


def test_auxiliary_logits_come_in_training_and_when_asked() -> None:
    with torch.device("meta"):
        x = torch.empty(2, 3, 40, 40)
        network = create_model("pspnet", "test_resnet", aux=True).train()
        assert {k: v.shape for k, v in network(x).items()} == {
            "out": (2, 21, 40, 40),
            "aux": (2, 21, 40, 40),
        }
        assert network.eval()(x).shape == (2, 21, 40, 40)
        assert isinstance(create_model("pspnet", "test_resnet").train()(x), Tensor)
    with pytest.raises(ModelError, match=r"'fcn8s' takes no aux.*pspnet101"):
        create_model("fcn8s", aux=True)


def test_any_network_can_carry_a_crf() -> None:
    torch.manual_seed(0)
    network = create_model("small_unet", in_channels=4, classes=3, crf={"filter": "exact"}).eval()
    plain = create_model("small_unet", in_channels=4, classes=3)
    added = sum(p.numel() for p in network.parameters()) - sum(
        p.numel() for p in plain.parameters()
    )
    assert added == 3 * 3 * 3
    x = torch.randn(2, 4, 9, 11)
    with torch.inference_mode():
        refined, unary = network(x), network.network(x)  # type: ignore[operator]
    assert refined.shape == unary.shape
    assert not torch.allclose(refined, unary)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "deeplabv3", "encoder": "resnet5O"}, r"no encoder 'resnet5O'.*'resnet50'"),
        ({"name": "segnet", "encoder": "resnet50"}, "takes no encoder"),
        ({"name": "segnet", "output_stride": 8}, r"takes no output_stride.*deeplabv3"),
        ({"name": "deeplabv3", "encoder": "convnext_atto"}, "output_stride=32"),
        ({"name": "deeplabv3", "encoder": "hrnet_w18_small"}, "output_stride=32"),
        ({"name": "deeplabv3", "encoder": "swin_tiny_patch4_window7_224"}, "chips of any size"),
        ({"name": "refinenet", "encoder": "convnext_atto", "wings": 2}, "wings"),
        ({"name": "gcn", "encoder": "convnext_atto"}, r"strides \[4, 8, 16, 32\]"),
        ({"name": "deeplabv3", "encoder": "resnet18", "caffe": True}, "bottlenecks"),
        ({"name": "deeplabv3", "output_stride": 5}, "must be"),
        ({"name": "deeplabv3plus", "output_stride": 4}, "must be one of"),
        ({"name": "fcn8s", "padding": "none"}, "caffe or same"),
        ({"name": "fcn8s", "in_channels": 0}, "at least|1 at least"),
        ({"name": "fcn8s", "stride": 4}, "stride 4"),
        ({"name": "deeplabv1_largefov", "head": "5x5"}, "5x5"),
        ({"name": "dilation8_basic", "context": "huge"}, "huge"),
        ({"name": "gcn", "kernel": 8}, "odd"),
    ],
)
def test_what_a_network_does_not_take_is_explained(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        create_model(**{"encoder": None, **arguments})
    assert "\n" not in str(caught.value)


def test_encoders_that_cut_cells_are_put_back_by_cells() -> None:
    torch.manual_seed(0)
    network = create_model("deeplabv3plus", "convnext_atto", output_stride=32, channels=8).eval()
    assert (network.size_offset, network.align_corners) == (0, False)
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 33, 65)).shape == (1, 21, 33, 65)


def test_half_separable_has_the_layout_of_dynamic_world() -> None:
    """The same convolutions in the same order, at whatever widths it has by default."""

    def convolutions(name: str) -> list[tuple[int, ...]]:
        network = create_model(name, in_channels=9, classes=9)
        return [tuple(m.weight.shape) for m in network.modules() if isinstance(m, nn.Conv2d)]

    assert convolutions("half_separable") == convolutions("dynamicworld")


@pytest.mark.parametrize("options", [{"stem": 0}, {"widths": (8, 8)}, {"widths": (8, 0, 8)}])
def test_half_separable_refuses_widths_that_make_no_network(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="must be 1 at least"):
        create_model("half_separable", in_channels=2, classes=2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": 0}, "must be 1 at least"),
        ({"dilations": ((1,), (0,), (1,))}, "must be 1 at least"),
        ({"dilations": ((1,), (2,))}, "3 widths and 2 blocks"),
        ({"dilations": ((1,), (), (2,))}, "one dilation at least"),
        ({"widths": (), "dilations": ()}, "0 widths and 0 blocks"),
    ],
)
def test_full_separable_refuses_what_makes_no_network(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("full_separable", in_channels=2, classes=2, **options)


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_full_separable_answers_alike_wherever_a_chip_begins(moved: int) -> None:
    """No stride: a pixel later, the same answer a pixel later, up to the receptive field's edge."""
    torch.manual_seed(0)
    options = {"stem": 6, "widths": (8, 9), "dilations": ((1, 2), (3,))}
    network = create_model("full_separable", in_channels=2, classes=3, **options).eval()
    x = torch.randn(1, 2, 40, 44)
    reach = 1 + 1 + 2 + 3
    with torch.inference_mode():
        whole, part = network(x), network(x[..., moved:, moved:])
    inner = part[..., reach:-reach, reach:-reach]
    expected = whole[..., moved:, moved:][..., reach:-reach, reach:-reach]
    torch.testing.assert_close(inner, expected, atol=1e-5, rtol=1e-5)
    assert (part - whole[..., moved:, moved:])[..., reach - 1, :].abs().max() > 1e-5
    assert network.multiple == 1


@pytest.mark.parametrize("side", [(24, 36), (25, 36)])
def test_full_separable_learns_what_it_predicts(side: tuple[int, int]) -> None:
    """Its depthwise convolutions are done otherwise in training: the same values and gradients."""
    torch.manual_seed(0)
    options = {"stem": 6, "widths": (8, 9), "dilations": ((1, 2), (3,))}
    network = create_model("full_separable", in_channels=2, classes=3, **options).eval()
    found = []
    for training in (False, True):
        torch.manual_seed(1)
        x = torch.randn(2, 2, *side, requires_grad=True)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.train(training)
        network.zero_grad()
        y = network(x)
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        found.append([y, x.grad, *(p.grad for p in network.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_names_can_be_searched_and_looked_up() -> None:
    assert list_models("pspnet*") == ["pspnet", "pspnet101", "pspnet101_std_stem", "pspnet50"]
    own = {
        "dynamicworld",
        "full_separable",
        "half_resnet",
        "half_separable",
        "linear",
        "small_unet",
    }
    assert set(list_models(tag="geoseg")) == own
    found = info("pspnet101")
    assert (found.year, found.output_stride, found.multiple) == (2017, 8, 8)
    assert found.url.startswith("https://arxiv.org/")
    assert dict(found.options) == {"encoder": "resnet101s"}


# The table of what they cost


def test_the_published_table_holds_what_the_code_says() -> None:
    entries = published()["networks"]
    assert list(entries) == list_models()
    for name, entry in entries.items():
        found = info(name)
        assert (entry["parameters"], entry["year"]) == (found.parameters, found.year), name
        assert entry["mpx_s"] > 0
        with torch.device("cpu" if name == "segformer" else "meta"):
            network = create_model(name).eval()
        assert count_flops(network, 3, 512) == pytest.approx(entry["gflops"]), name


def test_the_manual_has_the_table() -> None:
    from benchmarks.networks import MARKS, PAGE, with_table

    text = PAGE.read_text(encoding="utf-8")
    assert all(mark in text for mark in MARKS)
    assert with_table(text) == text
