"""The table of networks: name, class, paper; :mod:`geoseg.networks.create` builds them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NETWORKS", "Network", "Paper", "list_models"]


@dataclass(frozen=True)
class Paper:
    """Where a network was published.

    Attributes:
        title: what people call it, and who.
        year: of the publication.
        url: of the paper, or of the code where there is no paper.
    """

    title: str
    year: int
    url: str


@dataclass(frozen=True)
class Network:
    """One line of the table.

    Attributes:
        target: ``module:Class`` within :mod:`geoseg.networks`. The class takes in_channels, classes
            and options.
        paper: where it was published.
        tag: ``paper`` (after its paper), ``smp``, ``torchvision`` or ``geoseg``.
        options: of the class, where they differ from its own defaults.
    """

    target: str
    paper: Paper
    tag: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)


_FCN = Paper("FCN, Long et al.", 2015, "https://arxiv.org/abs/1411.4038")
_SEGNET = Paper("SegNet, Badrinarayanan et al.", 2017, "https://arxiv.org/abs/1511.00561")
_DEEPLABV1 = Paper("DeepLab, Chen et al.", 2015, "https://arxiv.org/abs/1412.7062")
_DEEPLABV2 = Paper("DeepLabV2, Chen et al.", 2017, "https://arxiv.org/abs/1606.00915")
_DEEPLABV3 = Paper("DeepLabV3, Chen et al.", 2017, "https://arxiv.org/abs/1706.05587")
_DEEPLABV3PLUS = Paper("DeepLabV3+, Chen et al.", 2018, "https://arxiv.org/abs/1802.02611")
_PSPNET = Paper("PSPNet, Zhao et al.", 2017, "https://arxiv.org/abs/1612.01105")
_RESNET38 = Paper("Wider or Deeper, Wu et al.", 2019, "https://arxiv.org/abs/1611.10080")
_REFINENET = Paper("RefineNet, Lin et al.", 2017, "https://arxiv.org/abs/1611.06612")
_GCN = Paper("GCN, Large Kernel Matters, Peng et al.", 2017, "https://arxiv.org/abs/1703.02719")
_DILATION = Paper("Dilated convolutions, Yu and Koltun", 2016, "https://arxiv.org/abs/1511.07122")
_CRFASRNN = Paper("CRF-RNN, Zheng et al.", 2015, "https://arxiv.org/abs/1502.03240")
_DYNAMICWORLD = Paper(
    "Dynamic World, Brown et al.", 2022, "https://doi.org/10.1038/s41597-022-01307-4"
)
_RESNET = Paper("Residual blocks, He et al.", 2016, "https://arxiv.org/abs/1512.03385")
_UNET = Paper("U-Net, Ronneberger et al.", 2015, "https://arxiv.org/abs/1505.04597")
_LINEAR = Paper(
    "Logistic regression on a pixel's bands",
    1958,
    "https://doi.org/10.1111/j.2517-6161.1958.tb00292.x",
)

_SMP = {
    "dpt": ("DPT", "DPT, Ranftl et al.", 2021, "https://arxiv.org/abs/2103.13413"),
    "fpn": ("FPN", "FPN, Kirillov et al.", 2019, "https://arxiv.org/abs/1901.02446"),
    "linknet": (
        "Linknet",
        "LinkNet, Chaurasia and Culurciello",
        2017,
        "https://arxiv.org/abs/1707.03718",
    ),
    "manet": ("MAnet", "MA-Net, Fan et al.", 2020, "https://doi.org/10.1109/ACCESS.2020.3025372"),
    "pan": ("PAN", "PAN, Li et al.", 2018, "https://arxiv.org/abs/1805.10180"),
    "segformer": ("Segformer", "SegFormer, Xie et al.", 2021, "https://arxiv.org/abs/2105.15203"),
    "smp_deeplabv3": ("DeepLabV3", "DeepLabV3 of smp", 2017, "https://arxiv.org/abs/1706.05587"),
    "smp_deeplabv3plus": (
        "DeepLabV3Plus",
        "DeepLabV3+ of smp",
        2018,
        "https://arxiv.org/abs/1802.02611",
    ),
    "smp_pspnet": ("PSPNet", "PSPNet of smp", 2017, "https://arxiv.org/abs/1612.01105"),
    "unet": ("Unet", "U-Net, Ronneberger et al.", 2015, "https://arxiv.org/abs/1505.04597"),
    "unetplusplus": (
        "UnetPlusPlus",
        "UNet++, Zhou et al.",
        2018,
        "https://arxiv.org/abs/1807.10165",
    ),
    "upernet": ("UPerNet", "UPerNet, Xiao et al.", 2018, "https://arxiv.org/abs/1807.10221"),
}
_TORCHVISION = {
    "fcn_resnet50": ("FCN head of torchvision", 2015, "https://arxiv.org/abs/1411.4038"),
    "fcn_resnet101": ("FCN head of torchvision", 2015, "https://arxiv.org/abs/1411.4038"),
    "deeplabv3_resnet50": ("DeepLabV3 of torchvision", 2017, "https://arxiv.org/abs/1706.05587"),
    "deeplabv3_resnet101": ("DeepLabV3 of torchvision", 2017, "https://arxiv.org/abs/1706.05587"),
}

_R101 = {"encoder": "resnet101"}
_CAFFE101 = {"encoder": "resnet101", "caffe": True}
_XCEPTION = {"encoder": "xception65", "first_block": "previous"}

#: Name -> network. To add an architecture: a file in ``papers/``, and a line here.
NETWORKS: dict[str, Network] = {
    "fcn32s": Network("papers.fcn:FCN", _FCN, options={"stride": 32}),
    "fcn16s": Network("papers.fcn:FCN", _FCN, options={"stride": 16}),
    "fcn8s": Network("papers.fcn:FCN", _FCN, options={"stride": 8}),
    "fcn8s_atonce": Network("papers.fcn:FCN", _FCN, options={"stride": 8, "at_once": True}),
    "fcn_alexnet": Network("papers.fcn:FCNAlexNet", _FCN),
    "segnet": Network("papers.segnet:SegNet", _SEGNET),
    "segnet_basic": Network("papers.segnet:SegNetBasic", _SEGNET),
    "deeplabv1_largefov": Network("papers.deeplabv1:DeepLabV1", _DEEPLABV1),
    "deeplabv1_4x4": Network("papers.deeplabv1:DeepLabV1", _DEEPLABV1, options={"head": "4x4"}),
    "deeplabv1_7x7": Network("papers.deeplabv1:DeepLabV1", _DEEPLABV1, options={"head": "7x7"}),
    "deeplabv2": Network("papers.deeplab:DeepLabV2", _DEEPLABV2),
    "deeplabv2_r101": Network("papers.deeplab:DeepLabV2", _DEEPLABV2, options=_CAFFE101),
    "deeplabv2_vgg16_aspp_l": Network("papers.deeplabv1:DeepLabV2VGG", _DEEPLABV2),
    "deeplabv3": Network("papers.deeplab:DeepLabV3", _DEEPLABV3),
    "deeplabv3_r101": Network(
        "papers.deeplab:DeepLabV3", _DEEPLABV3, options={**_CAFFE101, "multi_grid": (1, 2, 4)}
    ),
    "deeplabv3plus": Network("papers.deeplab:DeepLabV3Plus", _DEEPLABV3PLUS),
    # After https://github.com/kazuto1011/deeplab-pytorch, which does not align corners.
    "deeplabv3plus_r101": Network(
        "papers.deeplab:DeepLabV3Plus",
        _DEEPLABV3PLUS,
        options={**_CAFFE101, "multi_grid": (1, 2, 4), "align_corners": False},
    ),
    "deeplabv3plus_xception65": Network(
        "papers.deeplab:DeepLabV3Plus",
        _DEEPLABV3PLUS,
        options={**_XCEPTION, "separable": True, "image_first": True},
    ),
    # The layers of https://github.com/jfzhang95/pytorch-deeplab-xception: the decoder takes the
    # output of the entry flow's first block, and nothing in the head is separable.
    "deeplabv3plus_xception_jfz": Network(
        "papers.deeplab:DeepLabV3Plus",
        _DEEPLABV3PLUS,
        options={
            **_XCEPTION,
            "taps": (("blocks.1.stack.act1", 128, 4), ("blocks.20", 2048, 32)),
        },
    ),
    "pspnet": Network("papers.pspnet:PSPNet", _PSPNET),
    "pspnet50": Network("papers.pspnet:PSPNet", _PSPNET, options={"encoder": "resnet50s"}),
    "pspnet101": Network("papers.pspnet:PSPNet", _PSPNET, options={"encoder": "resnet101s"}),
    "pspnet101_std_stem": Network("papers.pspnet:PSPNet", _PSPNET, options=_R101),
    "resnet38": Network("papers.resnet38:ResNet38", _RESNET38),
    "refinenet": Network("papers.refinenet:RefineNet", _REFINENET, options={"encoder": "resnet50"}),
    "refinenet101": Network("papers.refinenet:RefineNet", _REFINENET, options=_R101),
    "refinenet152": Network(
        "papers.refinenet:RefineNet", _REFINENET, options={"encoder": "resnet152"}
    ),
    "gcn": Network("papers.gcn:GCN", _GCN, options={"encoder": "resnet50"}),
    "gcn_r152_k7": Network("papers.gcn:GCN", _GCN, options={"encoder": "resnet152", "kernel": 7}),
    "gcn_r152_k15": Network("papers.gcn:GCN", _GCN, options={"encoder": "resnet152"}),
    "gcn_r50_k15": Network("papers.gcn:GCN", _GCN, options={"encoder": "resnet50"}),
    "dilation8_frontend": Network(
        "papers.dilated_vgg:DilationNet", _DILATION, options={"context": None}
    ),
    "dilation8_basic": Network("papers.dilated_vgg:DilationNet", _DILATION),
    "dilation8_large": Network(
        "papers.dilated_vgg:DilationNet", _DILATION, options={"context": "large"}
    ),
    "dilation10_cityscapes": Network(
        "papers.dilated_vgg:DilationNet",
        _DILATION,
        options={"context": "cityscapes", "upsample": True},
    ),
    "crfasrnn_fcn8s": Network("papers.crfrnn:FCNCRF", _CRFASRNN),
    "dynamicworld": Network("dynamicworld:DynamicWorld", _DYNAMICWORLD, "geoseg"),
    "full_separable": Network("full_separable:FullSeparable", _DYNAMICWORLD, "geoseg"),
    "half_resnet": Network("half_resnet:HalfResNet", _RESNET, "geoseg"),
    "half_separable": Network("half_separable:HalfSeparable", _DYNAMICWORLD, "geoseg"),
    "linear": Network("linear:Linear", _LINEAR, "geoseg"),
    "small_unet": Network("small_unet:SmallUNet", _UNET, "geoseg"),
    **{
        name: Network("from_smp:SmpModel", Paper(title, year, url), "smp", {"arch": arch})
        for name, (arch, title, year, url) in _SMP.items()
    },
    **{
        f"torchvision_{arch}": Network(
            "from_torchvision:TorchvisionModel", Paper(*paper), "torchvision", {"arch": arch}
        )
        for arch, paper in _TORCHVISION.items()
    },
}


def list_models(pattern: str = "*", tag: str | None = None) -> list[str]:
    """List the names that :func:`geoseg.create_model` takes.

    Args:
        pattern: as in a shell: ``*deeplab*``.
        tag: ``paper``, ``smp``, ``torchvision`` or ``geoseg``; None for all.

    Returns:
        Names, sorted.

    Examples:
        >>> list_models("gcn_*")
        ['gcn_r152_k15', 'gcn_r152_k7', 'gcn_r50_k15']
    """
    names = sorted(fnmatch.filter(NETWORKS, pattern))
    return [name for name in names if tag is None or NETWORKS[name].tag == tag]
