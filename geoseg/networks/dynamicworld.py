"""The Dynamic World network: nine Sentinel-2 bands at 10 m to nine land-cover classes.

The network behind the global near-real-time land-cover map of Brown et al. 2022
(https://doi.org/10.1038/s41597-022-01307-4). Its released TensorFlow weights
(https://github.com/google/dynamicworld, Apache-2.0) are not part of geoseg; import them with
:func:`geoseg.networks.import_model`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.cards.card import ModelCard, Normalization
from geoseg.cards.legend import ClassInfo
from geoseg.errors import ModelError
from geoseg.networks.base import SegModel, SeparableBlock, unit_length

__all__ = ["CLASSES", "DynamicWorld", "release_card", "release_state"]

CLASSES = (
    ClassInfo(0, "water", "#419BDF"),
    ClassInfo(1, "trees", "#397D49"),
    ClassInfo(2, "grass", "#88B053"),
    ClassInfo(3, "flooded_vegetation", "#7A87C6"),
    ClassInfo(4, "crops", "#E49635"),
    ClassInfo(5, "shrub_and_scrub", "#DFC35A"),
    ClassInfo(6, "built", "#C4281B"),
    ClassInfo(7, "bare", "#A59B8F"),
    ClassInfo(8, "snow_and_ice", "#B39FE1"),
)

#: Band -> (center, spread) of the log-logistic normalization, from the release's forward example.
_CENTER_SPREAD = {
    "blue": (1.7417268007636313, 2.023298706048351),
    "green": (1.7261204997060209, 2.038905204308012),
    "red": (1.6798346251414997, 2.179592821212937),
    "rededge1": (1.7734969472909623, 2.2890068333026603),
    "rededge2": (2.289154079164943, 2.6171674549378166),
    "rededge3": (2.382939712192371, 2.773418590375327),
    "nir": (2.3828939530384052, 2.7578332604178284),
    "swir1": (2.1952484264967844, 2.789092484314204),
    "swir2": (1.554812948247501, 2.4140534947492487),
}


#: Band -> where the median reflectance of a sound scene lies: the medians of Sentinel-2 scenes from
#: lakes (0.0015 in swir2) to sand (0.75 in swir1) and snow (0.84 in nir), two times wider and more.
#: Numbers that were not scaled, or scaled twice, lie outside in every band.
_PLAUSIBLE = {
    "blue": (0.004, 1.2),
    "green": (0.004, 1.2),
    "red": (0.003, 1.2),
    "rededge1": (0.002, 1.2),
    "rededge2": (0.002, 1.2),
    "rededge3": (0.002, 1.2),
    "nir": (0.002, 1.2),
    "swir1": (0.0003, 1.1),
    "swir2": (0.0002, 1.1),
}


class _Mish(nn.Module):
    """x tanh(log(1 + e^x)) as a quotient of polynomials in e^x, twice as fast as torch's on a CPU.

    With e = e^x it is x (e^2 + 2 e) / (e^2 + 2 e + 2); beyond x = 20 that is x in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        e = wide.clamp(max=20.0).exp()
        n = (e + 2.0) * e
        return (wide * (n / (n + 2.0))).to(x.dtype)


class _ConvNormMish(nn.Sequential):
    """Convolution with bias and same padding, batch norm, mish."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups),
            nn.BatchNorm2d(out_channels, eps=1e-3),
            _Mish(),
        )


class DynamicWorld(SegModel):
    """The network, 225,513 parameters with nine bands and nine classes.

    The parts stand in the order in which the release counts its layers: :func:`release_state`
    relies on it.
    """

    multiple = 2
    size_least = 2

    def __init__(self, in_channels: int = 9, classes: int = 9) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
        """
        super().__init__()
        self.stem = _ConvNormMish(in_channels, 64, 3)
        self.side = nn.Sequential(_ConvNormMish(64, 48, 1), _ConvNormMish(48, 48, 3, groups=48))
        self.block1 = SeparableBlock(64, 96, _ConvNormMish)
        self.block2 = SeparableBlock(96, 144, _ConvNormMish)
        self.block3 = SeparableBlock(192, 144, _ConvNormMish)
        self.head = nn.Conv2d(144, classes, 1)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at the input's size, which is halved inside: 2 px a side at least."""
        height, width = x.shape[-2:]
        y = _resize(self.stem(x), height // 2, width // 2)
        y = torch.cat((self.block2(self.block1(y)), self.side(y)), dim=1)
        y = _resize(self.block3(y), height, width)
        # TensorFlow's l2_normalize, with its epsilon under the root.
        return (self.head(unit_length(y, 1e-12)),)


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resize as tf.image.resize(antialias=True), which is slower and no different upwards."""
    if (2 * height, 2 * width) == tuple(x.shape[-2:]):
        return _halve(x)
    down = height < x.shape[-2] or width < x.shape[-1]
    return F.interpolate(
        x, size=(height, width), mode="bilinear", align_corners=False, antialias=down
    )


def _halve(x: Tensor) -> Tensor:
    """Halve the size, antialiased and bilinear, by a convolution; sides are even.

    There a pixel's share falls off linearly over twice the distance, so it is 1, 3, 3, 1 eighths of
    four neighbours, and beyond the edges of those that are there. Runtimes have this operation.
    """
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    summed = F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
    share = F.conv2d(torch.ones_like(x[:1, :1]), kernel[:1], stride=2, padding=1)
    return summed / share


def release_state(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Turn the released TensorFlow arrays into a state dict of :class:`DynamicWorld`.

    Args:
        arrays: layer_name.w / .b for convolutions, height, width, in, out (depthwise: height,
            width, channels, 1), .g / .beta / .mean / .var for batch norms.

    Raises:
        ModelError: an array is missing or has another shape.
    """
    network = DynamicWorld()
    state = network.state_dict()
    counts = {"conv2d": 0, "depthwise_conv2d": 0, "batch_normalization": 0}
    for path, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            kind = "batch_normalization"
            parts = {"weight": "g", "bias": "beta", "running_mean": "mean", "running_var": "var"}
        elif isinstance(layer, nn.Conv2d):
            kind = "conv2d" if layer.groups == 1 else "depthwise_conv2d"
            parts = {"weight": "w", "bias": "b"}
        else:
            continue
        # TensorFlow names the first layer of a kind without a number.
        name = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        for ours, theirs in parts.items():
            key = f"{name}.{theirs}"
            if key not in arrays:
                raise ModelError(
                    f"the Dynamic World release has no {key}; use its whole weights.npz"
                )
            array = np.asarray(arrays[key], dtype=np.float32)
            if theirs == "w":
                array = array.transpose((3, 2, 0, 1) if layer.groups == 1 else (2, 3, 0, 1))
            expected = tuple(state[f"{path}.{ours}"].shape)
            if array.shape != expected:
                raise ModelError(
                    f"{key} of the Dynamic World release has the shape {array.shape}, not "
                    f"{expected}; use the nine-band forward model"
                )
            state[f"{path}.{ours}"] = torch.from_numpy(np.ascontiguousarray(array))
    return state


def release_card() -> ModelCard:
    """Make the card of the imported release."""
    return ModelCard(
        name="dynamicworld",
        description=(
            "Land cover of Sentinel-2 scenes at 10 m in the nine classes of Dynamic World. It was "
            "taught on top-of-atmosphere reflectance (L1C) and works on surface reflectance (L2A) "
            "too, with more shrub and grass where L1C gives crops. Clouds are no class: they come "
            "out as snow, water or built, so mask them."
        ),
        network="dynamicworld",
        bands=tuple(_CENTER_SPREAD),
        classes=CLASSES,
        gsd=10.0,
        gsd_range=(8.0, 13.0),
        quantity="reflectance",
        normalization=Normalization(
            kind="log-logistic",
            parameters={
                "center": tuple(c for c, _ in _CENTER_SPREAD.values()),
                "spread": tuple(s for _, s in _CENTER_SPREAD.values()),
            },
            clip=(0.0, 10.0),
        ),
        activation="softmax",
        size=512,
        overlap=76,
        # Measured: logits of a crop at an even offset differ from the whole scene's up to 21 px
        # from the crop's edge, and from there on not at all.
        margin=22,
        multiple=2,
        plausible=_PLAUSIBLE,
        license="Apache-2.0",
        provenance=(
            "The forward model released by Google, World Resources Institute and National "
            "Geographic (https://github.com/google/dynamicworld, commit 0dd288f), its TensorFlow "
            "arrays converted to PyTorch without change. Brown et al. 2022, "
            "https://doi.org/10.1038/s41597-022-01307-4."
        ),
    )
