"""Encoders: timm's feature pyramids, dilated as the papers do it, and their weights."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import AvgPool2dSame, Conv2dSame
from timm.models import FeatureHookNet
from torch import Tensor, nn

from geoseg.core.wording import counted
from geoseg.errors import ModelError
from geoseg.networks.base import SegModel
from geoseg.networks.stems import adapt_stem
from geoseg.networks.weights import encoder_state, load_encoder_state

__all__ = ["Encoder", "EncoderModel", "Tap", "caffe_resnet", "create_encoder", "dilate"]

#: Side of the input that dilation is worked out with, a power of 2, px. Nothing is computed.
TRACE_SIDE = 512


class Tap(NamedTuple):
    """A layer whose output is a feature.

    Attributes:
        module: its name in timm's network.
        channels: of its output.
        stride: of its output, px of the input per px.
    """

    module: str
    channels: int
    stride: int


class Encoder(nn.Module):
    """A timm network that gives features at chosen strides.

    Attributes:
        channels: of each feature.
        corners: whether its features lie at pixels 0, s, 2s, ..., as convolutions leave them that
            pad by half their kernel; else at the centres of cells of s px.
        network: timm's, with ``features_only``.
    """

    def __init__(self, network: nn.Module, channels: Sequence[int], corners: bool) -> None:
        """Wrap a network.

        Args:
            network: gives a list of features.
            channels: of these.
            corners: see the attribute.
        """
        super().__init__()
        self.network = network
        self.channels = tuple(channels)
        self.corners = corners

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give features (N, C_i, H_i, W_i) of float (N, C, H, W), the finest first."""
        features = []
        for channels, feature in zip(self.channels, self.network(x), strict=True):
            if feature.shape[1] != channels and feature.shape[-1] == channels:
                # Swin and its like keep the channels last.
                feature = feature.permute(0, 3, 1, 2).contiguous()
            features.append(feature)
        return features


class EncoderModel(SegModel):
    """A network on an encoder: it pads and resizes as suits the encoder's features.

    Attributes:
        encoder: what gives the features.
    """

    def __init__(
        self,
        encoder: str,
        in_channels: int,
        strides: Sequence[int],
        *,
        output_stride: int | None = None,
        **options: Any,
    ) -> None:
        """Build the encoder.

        Args:
            encoder: of timm.
            in_channels: bands C.
            strides: of the wanted features, px of the input per px, before any dilation.
            output_stride: of the encoder, which the logits and the input's sides follow; None for
                an encoder as it is, whose network says these itself.
            **options: of :func:`create_encoder`.

        Raises:
            ModelError: see :func:`create_encoder`.
        """
        super().__init__()
        if output_stride is not None:
            self.output_stride = self.size_multiple = self.multiple = output_stride
            options["output_stride"] = output_stride
        self.encoder = create_encoder(encoder, in_channels, strides, **options)
        self.size_offset = int(self.encoder.corners)
        self.align_corners = self.encoder.corners


def create_encoder(
    name: str,
    in_channels: int,
    strides: Sequence[int],
    *,
    output_stride: int = 32,
    multi_grid: Sequence[int] = (),
    caffe: bool = False,
    first_block: str = "own",
    taps: Sequence[Tap] = (),
    weights: str | None = None,
    bands: Sequence[str] | None = None,
) -> Encoder:
    """Build an encoder from timm.

    Args:
        name: of a timm network.
        in_channels: bands C.
        strides: of the wanted features, px of the input per px, before any dilation.
        output_stride: of the coarsest feature after dilation; 8, 16 or 32.
        multi_grid: factors of the rates of the last stage's spatial convolutions
            (Chen et al. 2017, https://arxiv.org/abs/1706.05587).
        caffe: the stride of a stage in its first 1x1 convolution and the stem's pooling rounded
            up, as in the first ResNets (https://github.com/KaimingHe/deep-residual-networks).
        first_block: the rate of a dilated stage's first block: ``own``, the stage's, as in PSPNet
            and DeepLab on ResNets; or ``previous``, that of the stage before, as timm has it and
            DeepLabV3+ on Xception.
        taps: the layers whose outputs are the features, where timm would take others; ``strides``
            does not count then.
        weights: see :func:`geoseg.networks.weights.encoder_state`.
        bands: the input's bands by name, for fitting the weights of the first convolution.

    Raises:
        ModelError: the encoder is unknown, has no feature at a stride, can't be dilated, or its
            weights are not here.
    """
    options: dict[str, Any] = {}
    if first_block == "previous" and output_stride < 32:
        options["output_stride"] = output_stride
    source = encoder_state(name, weights) if weights is not None else None
    channels_in = source.in_channels if source is not None else in_channels
    network = _features(name, channels_in, strides, taps, options)
    if source is not None:
        load_encoder_state(network, source)
        adapt_stem(network, source.bands, in_channels, bands)
    try:
        _sides(network, in_channels, TRACE_SIDE)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"the encoder {name!r} does not take chips of any size ({error}); choose one that "
            f"does, such as resnet50, or a network of segmentation_models_pytorch, such as upernet"
        ) from error
    if caffe:
        caffe_resnet(network)
    if first_block == "own" and output_stride < 32:
        dilate(network, name, in_channels, output_stride)
    if multi_grid:
        _multi_grid(network, name, multi_grid, in_channels)
    return Encoder(network, network.feature_info.channels(), _has_corners(network, in_channels))


def _features(
    name: str,
    in_channels: int,
    strides: Sequence[int],
    taps: Sequence[Tap],
    options: dict[str, Any],
) -> Any:
    """Build timm's network so that it gives features, at random weights.

    Args:
        name: of a timm network.
        in_channels: bands C.
        strides: of the wanted features, where there are no ``taps``.
        taps: the layers whose outputs are the features.
        options: of timm's.

    Raises:
        ModelError: timm does not know the encoder, or it has no features like these.
    """
    try:
        if taps:
            whole = timm.create_model(name, num_classes=0, in_chans=in_channels, **options)
            whole.feature_info = [
                {"module": tap.module, "num_chs": tap.channels, "reduction": tap.stride}
                for tap in taps
            ]
            return FeatureHookNet(whole, tuple(range(len(taps))), flatten_sequential=True)
        return timm.create_model(
            name,
            features_only=True,
            out_indices=_indices(name, strides),
            in_chans=in_channels,
            **options,
        )
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise ModelError(
            f"timm's {name!r} can't serve as an encoder with {options or 'its own options'} "
            f"({error}); choose another encoder or output_stride"
        ) from error


def _has_corners(network: nn.Module, in_channels: int) -> bool:
    """Find :class:`Encoder`'s ``corners``: a side of 2**n + 1 px then has features of 2**m + 1."""
    try:
        sides = _sides(network, in_channels, TRACE_SIDE + 1)
    except (RuntimeError, AssertionError):
        return False
    return all(side > 1 and (side - 1) & (side - 2) == 0 for side in sides)


def _indices(name: str, strides: Sequence[int]) -> tuple[int, ...]:
    """Find where timm lists the features of the wanted strides.

    Raises:
        ModelError: the encoder is unknown or has no feature at one of them.
    """
    try:
        with torch.device("meta"):
            info = timm.create_model(name, features_only=True).feature_info
    except (RuntimeError, AttributeError, AssertionError) as error:
        near = difflib.get_close_matches(name, timm.list_models(), n=3) or ["resnet50"]
        raise ModelError(
            f"there is no encoder {name!r} ({error}); it must be one of timm's, such as {near}"
        ) from error
    found = info.reduction()
    # The last of several at one stride is the deepest.
    places = {stride: index for index, stride in enumerate(found)}
    missing = [stride for stride in strides if stride not in places]
    if missing:
        raise ModelError(
            f"the encoder {name!r} has features at strides {found} and this network needs "
            f"{list(strides)}; choose another encoder, such as resnet50"
        )
    return tuple(places[stride] for stride in strides)


def caffe_resnet(network: nn.Module) -> None:
    """Move each stage's stride from the 3x3 to the 1x1 convolution, and round the pooling up.

    Args:
        network: a timm ResNet of bottlenecks, changed in place.

    Raises:
        ModelError: it is none.
    """
    moved = 0
    for block in network.modules():
        conv1, conv2 = getattr(block, "conv1", None), getattr(block, "conv2", None)
        if isinstance(conv1, nn.Conv2d) and isinstance(conv2, nn.Conv2d):
            if conv1.kernel_size == (1, 1) and conv2.stride == (2, 2):
                conv1.stride, conv2.stride = (2, 2), (1, 1)
                moved += 1
        elif isinstance(block, nn.MaxPool2d):
            block.ceil_mode = True
    if moved != 3:
        raise ModelError(
            f"this encoder has {moved} bottlenecks with a stride in their 3x3 convolution and a "
            f"ResNet of bottlenecks has 3; caffe=True needs one, such as resnet101"
        )


def dilate(network: nn.Module, name: str, in_channels: int, output_stride: int) -> None:
    """Take away the strides beyond an output stride and dilate what follows.

    A convolution whose output had the stride r gets the rate r / output_stride, the first block of
    a stage like its others. timm's own ``output_stride`` gives the first block of a stage the rate
    of the stage before, which neither PSPNet nor DeepLab on ResNets have.

    Args:
        network: gives features, changed in place.
        name: for messages.
        in_channels: bands C.
        output_stride: 8 or 16 as a rule; a power of 2.

    Raises:
        ModelError: a layer that halves its input is neither a convolution nor a pooling with an
            odd kernel.
    """
    if output_stride not in (2, 4, 8, 16):
        raise ModelError(f"output_stride is {output_stride}; it must be 2, 4, 8, 16 or 32")
    names = {layer: path for path, layer in network.named_modules()}
    for layer, stride in _trace(network, in_channels):
        if stride <= output_stride:
            continue
        kernel = _pair(layer.kernel_size)
        if isinstance(layer, nn.AvgPool2d):
            if _pair(layer.stride) != (1, 1):
                # The mean of the same pixels at every place, as timm has it in ResNet-D.
                mean = AvgPool2dSame(kernel, stride=1, count_include_pad=False)
                network.set_submodule(names[layer], mean)
            continue
        if any(k % 2 == 0 for k in kernel):
            raise ModelError(
                f"the encoder {name!r} can't be made denser than it is: it halves its input with "
                f"{layer}; give output_stride=32, or choose another encoder, such as resnet50"
            )
        layer.stride = (1, 1)
        if kernel != (1, 1):
            rate = stride // output_stride
            layer.dilation = (rate, rate)
            # timm's Conv2dSame works its padding out for itself.
            if not isinstance(layer, Conv2dSame):
                layer.padding = tuple(rate * (k // 2) for k in kernel)
    try:
        reached = max(stride for _, stride in _trace(network, in_channels))
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"the encoder {name!r} can't be made denser than it is ({error}); give "
            f"output_stride=32, or choose another encoder, such as resnet50"
        ) from error
    if reached > output_stride:
        raise ModelError(
            f"the encoder {name!r} still has the stride {reached} where {output_stride} was asked "
            f"for; give output_stride=32, or choose another encoder, such as resnet50"
        )


def _multi_grid(network: nn.Module, name: str, factors: Sequence[int], in_channels: int) -> None:
    """Multiply the rates of the last stage's spatial convolutions."""
    last = list(network.children())[-1]
    spatial = [
        layer
        for layer in last.modules()
        if isinstance(layer, nn.Conv2d) and _pair(layer.kernel_size) != (1, 1)
    ]
    if len(spatial) != len(factors):
        raise ModelError(
            f"the last stage of {name!r} has {counted(len(spatial), 'spatial convolution')} and "
            f"multi_grid {counted(len(factors), 'factor')}; there must be as many: leave "
            f"multi_grid out, or take resnet101"
        )
    for layer, factor in zip(spatial, factors, strict=True):
        rate = layer.dilation[0] * factor
        layer.dilation, layer.padding = (
            (rate, rate),
            tuple(rate * (k // 2) for k in layer.kernel_size),
        )


def _trace(network: nn.Module, in_channels: int) -> list[tuple[Any, int]]:
    """List each convolution and pooling with the stride of its output, as they run."""
    found: list[tuple[Any, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Squeeze-and-excitation convolves a single pixel, which has no stride.
        if min(output.shape[-2:]) > 1:
            found.append((layer, round_stride(output.shape[-1])))

    def round_stride(side: int) -> int:
        return int(2 ** round(math.log2(TRACE_SIDE / side)))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, kinds)]
    try:
        _sides(network, in_channels, TRACE_SIDE)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _sides(network: nn.Module, in_channels: int, side: int) -> list[int]:
    """Work out the widths of a square input's features without computing anything."""
    state = {k: v.to("meta") for k, v in network.state_dict(keep_vars=True).items()}
    training = network.training
    try:
        x = torch.empty((1, in_channels, side, side), device="meta")
        with torch.no_grad():
            features = torch.func.functional_call(network.eval(), state, (x,))
    finally:
        network.train(training)
    # Whether channels come second or last: the last but one is a side.
    return [int(feature.shape[-2]) for feature in features]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
