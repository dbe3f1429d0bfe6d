"""FCN and DeepLabV3 heads on dilated ResNets, as torchvision has them.

Torchvision's FCN is not that of the paper: its body is a ResNet at output stride 8, and its head
two convolutions without skips (https://github.com/pytorch/vision/tree/main/references/segmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model_weights, segmentation

from geoseg.errors import ModelError
from geoseg.networks.base import SegModel
from geoseg.networks.stems import adapt_stem
from geoseg.networks.weights import (
    RGB,
    SUFFIXES,
    EncoderState,
    Release,
    encoder_state,
    find_release,
    load_encoder_state,
    read_state,
)

__all__ = ["ARCHS", "TorchvisionModel"]

#: Architecture -> torchvision's function and the name of its encoder.
ARCHS: dict[str, tuple[Callable[..., Any], str]] = {
    "deeplabv3_resnet101": (segmentation.deeplabv3_resnet101, "resnet101"),
    "deeplabv3_resnet50": (segmentation.deeplabv3_resnet50, "resnet50"),
    "fcn_resnet101": (segmentation.fcn_resnet101, "resnet101"),
    "fcn_resnet50": (segmentation.fcn_resnet50, "resnet50"),
}


class TorchvisionModel(SegModel):
    """A segmentation network of torchvision (https://docs.pytorch.org/vision).

    Attributes:
        network: torchvision's.
    """

    output_stride = 8
    size_multiple = 8

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        arch: str,
        aux: bool = False,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the network.

        Args:
            in_channels: bands C.
            classes: K.
            arch: one of :data:`ARCHS`.
            aux: whether a second head learns from the features before the last stage.
            encoder_weights: None for random ones; ``imagenet`` (IMAGENET1K_V1, as torchvision
                trains from) or another of torchvision's names; ``torchgeo:NAME`` or the path of a
                file, see :func:`geoseg.networks.weights.encoder_state`.
            bands: the input's bands by name, for fitting the weights of the first convolution.

        Raises:
            ModelError: the architecture is unknown, or the weights are not here.
        """
        super().__init__()
        if arch not in ARCHS:
            raise ModelError(
                f"torchvision has no architecture {arch!r} here; give one of {sorted(ARCHS)}"
            )
        build, encoder = ARCHS[arch]
        source = _encoder_state(encoder, encoder_weights) if encoder_weights is not None else None
        # By default torchvision would fetch the encoder's weights.
        self.network: Any = build(
            weights=None, weights_backbone=None, num_classes=classes, aux_loss=aux
        )
        channels = in_channels if source is None else source.in_channels
        _replace_stem(self.network.backbone.conv1, channels)
        if source is not None:
            load_encoder_state(self.network.backbone, source)
            adapt_stem(self.network.backbone, source.bands, in_channels, bands)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits of a padded input.

        Args:
            x: float (N, C, H, W); H and W multiples of 8.

        Returns:
            float (N, K, H / 8, W / 8); in training, the auxiliary head's logits of the same shape
            after it where the network has one.
        """
        features = self.network.backbone(x)
        logits = self.network.classifier(features["out"])
        if self.training and self.network.aux_classifier is not None:
            return logits, self.network.aux_classifier(features["aux"])
        return (logits,)


def _replace_stem(convolution: nn.Conv2d, in_channels: int) -> None:
    """Let a first convolution take so many bands, with new random weights."""
    if convolution.in_channels == in_channels:
        return
    shape = (convolution.out_channels, in_channels, *convolution.kernel_size)
    convolution.in_channels = in_channels
    convolution.weight = nn.Parameter(convolution.weight.new_empty(shape))
    # As torchvision's ResNet begins.
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def _encoder_state(encoder: str, spec: str) -> EncoderState:
    """Read weights of a ResNet; torchvision's names are timm's.

    Raises:
        ModelError: they are unknown or not here.
    """
    published = get_model_weights(encoder).__members__
    entry = published.get("IMAGENET1K_V1" if spec == "imagenet" else spec)
    if entry is not None:
        release = Release(file=entry.url.split("/")[-1], url=entry.url)
        path = find_release(release, f"torchvision's weights {spec!r} of {encoder!r}")
        return EncoderState(read_state(path), 3, RGB)
    if ":" not in spec and not spec.endswith(SUFFIXES):
        raise ModelError(
            f"torchvision has no weights {spec!r} for {encoder!r}; give 'imagenet', one of "
            f"{sorted(published)}, 'torchgeo:NAME' or the path of a file that ends in one of "
            f"{', '.join(SUFFIXES)}"
        )
    return encoder_state(encoder, spec)
