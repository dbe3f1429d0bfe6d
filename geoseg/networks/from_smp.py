"""Decoders of segmentation_models_pytorch on its own encoders or any of timm's."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import encoders as own_encoders
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.networks.base import SegModel
from geoseg.networks.stems import adapt_stem, stem_channels
from geoseg.networks.weights import (
    RGB,
    SUFFIXES,
    EncoderState,
    bands_of_file,
    encoder_state,
    find_release,
    hub_release,
    load_encoder_state,
    one_line,
    read_state,
)

__all__ = ["ARCHS", "SmpModel"]

#: Architecture -> class, in the library's own spelling.
ARCHS: dict[str, type[nn.Module]] = {
    "DPT": smp.DPT,
    "DeepLabV3": smp.DeepLabV3,
    "DeepLabV3Plus": smp.DeepLabV3Plus,
    "FPN": smp.FPN,
    "Linknet": smp.Linknet,
    "MAnet": smp.MAnet,
    "PAN": smp.PAN,
    "PSPNet": smp.PSPNet,
    "Segformer": smp.Segformer,
    "UPerNet": smp.UPerNet,
    "Unet": smp.Unet,
    "UnetPlusPlus": smp.UnetPlusPlus,
}

#: The encoder where none is given, unless it is resnet34.
_ENCODERS = {"DPT": "tu-vit_base_patch16_224.augreg_in21k", "Segformer": "mit_b0"}

#: Architectures whose encoder can be dilated.
_DILATED = ("DeepLabV3", "DeepLabV3Plus", "PAN")

#: Options of the library that this class sets itself, or that would make an output of another kind.
_TAKEN = (
    "activation",
    "aux_params",
    "classes",
    "encoder_name",
    "encoder_output_stride",
    "encoder_weights",
    "in_channels",
    "kwargs",
    "self",
    "upsampling",
)

#: Modules of a vision transformer behind the features that DPT takes.
_BEHIND = ("norm", "fc_norm", "head")

#: What the libraries raise where an encoder and a decoder do not go together.
_REFUSALS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


class SmpModel(SegModel):
    """A network of segmentation_models_pytorch (https://github.com/qubvel-org/segmentation_models.pytorch).

    Attributes:
        network: the library's.
        side: px of the only side that the encoder takes, or None where it takes any.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        arch: str,
        encoder: str | None = None,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
        output_stride: int | None = None,
        **options: Any,
    ) -> None:
        """Build the network.

        Args:
            in_channels: bands C.
            classes: K.
            arch: one of :data:`ARCHS`.
            encoder: one of the library's own, or ``tu-`` and a name of timm's, or such a name
                alone where the library has none of that name. None takes resnet34, mit_b0 for
                Segformer and tu-vit_base_patch16_224.augreg_in21k for DPT.
            encoder_weights: None for random ones; ``imagenet`` or another weight set that the
                library has for its encoder; the path of a file of the encoder's tensors; for
                timm's encoders what :func:`geoseg.networks.weights.encoder_state` takes.
            bands: the input's bands by name, for fitting the weights of the first convolution.
            output_stride: px of the input per px of the encoder's last feature, for DeepLabV3 and
                DeepLabV3Plus (8, 16) and PAN (16, 32); None takes the library's.
            **options: the library's for this architecture; for timm's encoders also timm's, such
                as ``img_size``.

        Raises:
            ModelError: an option is unknown, encoder and architecture do not go together, or the
                weights are not here.
        """
        super().__init__()
        if arch not in ARCHS:
            raise ModelError(f"smp has no architecture {arch!r}; it has {', '.join(sorted(ARCHS))}")
        encoder = _encoder(encoder or _ENCODERS.get(arch, "resnet34"))
        _check_options(arch, encoder, options)
        if output_stride is not None:
            if arch not in _DILATED:
                raise ModelError(
                    f"{arch} takes no output_stride; leave it out, or take one of {_DILATED}"
                )
            options["encoder_output_stride"] = output_stride
        self.side: int | None = None
        timm_name = encoder.removeprefix("tu-") if encoder.startswith("tu-") else None
        if timm_name is not None:
            self.side = _any_size(timm_name, options, features_only=arch != "DPT")
        source = None
        if encoder_weights is not None:
            source = (
                encoder_state(timm_name, encoder_weights, img_size=options.get("img_size"))
                if timm_name is not None
                else _own_state(encoder, encoder_weights)
            )
        channels = in_channels if source is None else source.in_channels
        self.network = _build(arch, encoder, channels, classes, options)
        if source is not None:
            if timm_name is not None:
                unused = _BEHIND if arch == "DPT" else ()
                load_encoder_state(self.network.encoder.model, source, unused)
            else:
                _load_own(self.network.encoder, encoder, source, str(encoder_weights))
            adapt_stem(self.network.encoder, source.bands, in_channels, bands)
        self._set_sides(arch, encoder)

    def _set_sides(self, arch: str, encoder: str) -> None:
        """Work out which sides the network takes."""
        stride = int(self.network.encoder.output_stride)
        if arch == "DPT":
            strides = set(self.network.encoder.output_strides)
            if len(strides) > 1 or stride & (stride - 1):
                raise ModelError(
                    f"DPT needs an encoder whose features all lie at one stride that is a power of "
                    f"2, and those of {encoder!r} lie at {sorted(strides)}; take a vision "
                    f"transformer with patches of 16, such as vit_base_patch16_224"
                )
            # The features are brought to strides 4, 8, 16, ... and doubled from the last up.
            self.size_multiple = max(stride, 2 ** (len(self.network.encoder.output_strides) + 1))
        else:
            # Some of timm's networks, such as HRNet, join strides up to 32 whatever is taken.
            self.size_multiple = max(stride, 32) if encoder.startswith("tu-") else stride
        if arch == "PAN":
            # Its pyramid halves the last feature three times.
            self.size_least = 8 * stride
        if self.side is not None:
            if self.side < self.size_least or self.side % self.size_multiple:
                raise ModelError(
                    f"{arch} needs sides of a multiple of {self.size_multiple} px, from "
                    f"{self.size_least} px on, and {encoder!r} takes {self.side} px only; give "
                    f"another img_size, or choose another encoder"
                )
            self.size_multiple = self.size_least = self.side

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits of a padded input.

        Args:
            x: float (N, C, H, W); H and W multiples of ``size_multiple``.

        Returns:
            float (N, K, H, W).

        Raises:
            ModelError: the encoder takes one size only, and this is larger.
        """
        if self.side is not None and tuple(x.shape[-2:]) != (self.side, self.side):
            raise ModelError(
                f"this encoder takes chips of up to {self.side} px a side and got larger ones; "
                f"give a smaller size, or build the network with a larger img_size"
            )
        return (self.network(x),)


def _encoder(name: str) -> str:
    """Find an encoder's name as the library wants it.

    Raises:
        ModelError: nobody knows it.
    """
    bare = name.removeprefix("tu-")
    if name in own_encoders:
        return name
    if timm.is_model(bare):
        return f"tu-{bare}"
    near = [n for n in own_encoders if n[:5] == bare[:5]] or ["resnet34", "efficientnet-b0"]
    raise ModelError(
        f"there is no encoder {name!r}; give one of smp's, such as {near[:6]}, or one of timm's, "
        f"such as {timm.list_models(f'*{bare[:6]}*')[:6] or ['convnext_tiny']}"
    )


def _check_options(arch: str, encoder: str, options: dict[str, Any]) -> None:
    """Refuse options that the library would ignore, or that are set elsewhere.

    Raises:
        ModelError: there are such.
    """
    known = set(inspect.signature(ARCHS[arch].__init__).parameters) - set(_TAKEN)
    wrong = sorted(
        name
        for name in options
        if name in _TAKEN or (name not in known and not encoder.startswith("tu-"))
    )
    if wrong:
        raise ModelError(
            f"{arch} on {encoder!r} does not take {wrong}; its options are {sorted(known)}"
        )


def _any_size(name: str, options: dict[str, Any], *, features_only: bool) -> int | None:
    """Make a transformer of timm take any size, if it can.

    Args:
        name: of the network in timm.
        options: for the encoder; ``dynamic_img_size`` is added where the network knows it.
        features_only: how the network will be built.

    Returns:
        The only side that it takes, px, or None where it takes any.

    Raises:
        ModelError: ``img_size`` is no square.
    """
    size = options.get("img_size")
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise ModelError(f"img_size={size!r} is no square; give one number of px")
        size = options["img_size"] = size[0]
    if options.get("dynamic_img_size") or options.get("strict_img_size") is False:
        return None
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return None
    if "dynamic_img_size" not in options and "strict_img_size" not in options:
        try:
            with torch.device("meta"):
                timm.create_model(name, features_only=features_only, dynamic_img_size=True)
        except _REFUSALS:
            pass
        else:
            options["dynamic_img_size"] = True
            return None
    return int(size if size is not None else config.input_size[-1])


def _build(arch: str, encoder: str, in_channels: int, classes: int, options: dict[str, Any]) -> Any:
    """Build the library's network, with random weights.

    Raises:
        ModelError: the library refuses.
    """
    try:
        return ARCHS[arch](
            encoder_name=encoder,
            encoder_weights=None,
            in_channels=in_channels,
            classes=classes,
            **options,
        )
    except _REFUSALS as error:
        hint = "choose another encoder, or other options"
        if "downsampling pattern" in str(error):
            hint = "its features lie at one stride, so take arch DPT, or another encoder"
        raise ModelError(
            f"smp's {arch} does not go with the encoder {encoder!r} and {options or 'no options'} "
            f"({error}); {hint}"
        ) from error


def _own_state(encoder: str, spec: str) -> EncoderState:
    """Read weights of one of the library's own encoders, in its names.

    Raises:
        ModelError: there are none of that name, or they are not here.
    """
    if spec.endswith(SUFFIXES):
        state = read_state(spec)
        channels = stem_channels(smp.encoders.get_encoder(encoder), state, 3)
        if channels is None:
            raise ModelError(
                f"{spec} has no first convolution of {encoder!r}; it must hold that encoder's "
                f"tensors in smp's names, and holds {', '.join(list(state)[:3])}, ..."
            )
        return EncoderState(state, channels, bands_of_file(channels))
    settings = own_encoders[encoder]["pretrained_settings"]
    if spec.startswith("torchgeo:"):
        raise ModelError(
            f"torchgeo's weights are for timm's networks and {encoder!r} is smp's own; give "
            f"encoder='tu-{encoder}'"
        )
    if spec not in settings:
        raise ModelError(
            f"smp has no weights {spec!r} for {encoder!r}; it has {sorted(settings)}; give one of "
            f"these, or the path of a file that ends in one of {', '.join(SUFFIXES)}"
        )
    release = hub_release(
        settings[spec]["repo_id"], "model.safetensors", revision=settings[spec]["revision"]
    )
    path = find_release(release, f"smp's weights {spec!r} of {encoder!r}")
    return EncoderState(read_state(path), 3, RGB)


def _load_own(network: nn.Module, encoder: str, source: EncoderState, spec: str) -> None:
    """Fill one of the library's own encoders, completely.

    Raises:
        ModelError: the weights are another's.
    """
    try:
        # The library's encoders drop the classifier, and torch refuses whatever else differs.
        network.load_state_dict(dict(source.state))
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            f"the weights {spec!r} are not those of smp's {encoder!r} "
            f"({one_line(error)}); give the weights of this very encoder"
        ) from error
