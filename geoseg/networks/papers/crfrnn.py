"""CRF-RNN behind any network: Zheng et al. 2015 (https://arxiv.org/abs/1502.03240)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from geoseg.networks.base import SegModel
from geoseg.networks.crf import DenseCRF
from geoseg.networks.papers.fcn import FCN

__all__ = ["CRFRNN", "FCNCRF"]

#: One standard deviation of ImageNet's RGB in 0..255: a band that was brought to a standard
#: deviation of 1 is put back into the units of the published bandwidths.
IMAGE_SCALE = 255 * 0.225


class CRFRNN(SegModel):
    """A network whose logits a dense CRF refines, all of it trained together.

    The CRF looks at the network's own input.
    """

    def __init__(
        self, network: nn.Module, classes: int, *, image_scale: float = IMAGE_SCALE, **options: Any
    ) -> None:
        """Put a CRF behind a network.

        Args:
            network: gives logits at its input's size.
            classes: classes.
            image_scale: the network's input times this is what the CRF sees; its bandwidth
                theta_beta is in these units.
            **options: of :class:`geoseg.networks.crf.DenseCRF`.
        """
        super().__init__()
        self.network = network
        self.crf = DenseCRF(classes, **options)
        self.image_scale = image_scale
        self.output_stride = int(getattr(network, "output_stride", 1))
        self.multiple = int(getattr(network, "multiple", 1))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give refined logits at the input's size; in training also the network's auxiliary."""
        logits = self.network(x)
        found = logits if isinstance(logits, dict) else {"out": logits}
        refined = self.crf(found["out"], x * self.image_scale)
        return (refined, found["aux"]) if "aux" in found else (refined,)


class FCNCRF(CRFRNN):
    """The published CRF-RNN: FCN-8s, whose first upsampling has a bias here, and the CRF."""

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        width: float = 1.0,
        padding: str = "caffe",
        encoder_weights: str | None = None,
        bands: Any = None,
        **options: Any,
    ) -> None:
        """Build both.

        Args:
            in_channels: bands.
            classes: classes.
            width: times the published channels of FCN-8s.
            padding: of FCN-8s: ``caffe`` or ``same``.
            encoder_weights: of VGG-16 with fc6 and fc7, or None.
            bands: the input's bands by name, for fitting these.
            **options: of :class:`CRFRNN`.
        """
        network = FCN(
            in_channels,
            classes,
            score_bias=True,
            width=width,
            padding=padding,
            encoder_weights=encoder_weights,
            bands=bands,
        )
        super().__init__(network, classes, **options)
