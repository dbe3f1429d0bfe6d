"""Released VGG-16 weights in the networks that are built on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.networks import create_model
from geoseg.networks.weights import RGB, EncoderState


@pytest.fixture(scope="module")
def released() -> Iterator[dict[str, nn.Module]]:
    """timm's own networks with seeded numbers, in place of the released files."""
    torch.manual_seed(0)
    networks = {name: timm.create_model(name).eval() for name in ("vgg16", "vgg16_bn")}
    for layer in networks["vgg16_bn"].modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    yield networks


@pytest.fixture(autouse=True)
def _released_files(released: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    def state(name: str, spec: str) -> EncoderState:
        assert spec == "imagenet"
        return EncoderState(dict(released[name].state_dict()), 3, RGB)

    monkeypatch.setattr("geoseg.networks.vgg.encoder_state", state)


def trunk(groups: nn.ModuleList, x: Tensor) -> Tensor:
    """The convolutions with plain poolings after each group."""
    for group in groups:
        x = nn.functional.max_pool2d(group(x), 2)
    return x


@pytest.mark.slow
def test_segnet_and_deeplab_have_every_released_convolution(released: dict[str, nn.Module]) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        segnet = create_model("segnet", encoder_weights="imagenet").eval()
        expected = released["vgg16_bn"].features(x)  # type: ignore[operator]
        torch.testing.assert_close(trunk(segnet.encoder, x), expected)  # type: ignore[arg-type]
        deeplab = create_model("deeplabv1_largefov", encoder_weights="imagenet").eval()
        features = released["vgg16"].features
        convs = [m.weight for m in deeplab.groups.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[union-attr]
        theirs = [m.weight for m in features.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[union-attr]
        assert all(torch.equal(a, b) for a, b in zip(convs, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn32s", "dilation8_frontend"])
def test_the_released_classifier_becomes_fc6_and_fc7(
    released: dict[str, nn.Module], name: str
) -> None:
    network = create_model(name, encoder_weights="imagenet", padding="same").eval()
    whole = released["vgg16"]
    assert torch.equal(network.fc6.weight, whole.pre_logits.fc1.weight)  # type: ignore[union-attr, arg-type]
    assert torch.equal(network.fc7.bias, whole.pre_logits.fc2.bias)  # type: ignore[union-attr, arg-type]
    if name == "fcn32s":
        # Over 224 px the classifier sees its 7 x 7 features whole, in the middle of fc6's output.
        x = torch.randn(1, 3, 224, 224)
        with torch.inference_mode():
            ours = network.fc6(trunk(network.groups, x))[..., 3, 3]  # type: ignore[operator, arg-type]
            theirs = whole.pre_logits.fc1(whole.features(x))[..., 0, 0]  # type: ignore[operator, union-attr]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_first_convolution_is_fitted_to_the_bands(released: dict[str, nn.Module]) -> None:
    bands = ["blue", "green", "red", "nir"]
    network = create_model(
        "deeplabv1_largefov", in_channels=4, encoder_weights="imagenet", bands=bands
    )
    first = network.groups[0][0]  # type: ignore[index, union-attr]
    weight = released["vgg16"].features[0].weight * 3 / 4  # type: ignore[index, union-attr]
    torch.testing.assert_close(first.weight[:, 2], weight[:, 0])
    torch.testing.assert_close(first.weight[:, 0], weight[:, 2])
    torch.testing.assert_close(first.weight[:, 3], weight.mean(dim=1))
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 4, 20, 20)).shape == (1, 21, 20, 20)


def test_another_width_can_not_take_them() -> None:
    with pytest.raises(ModelError, match="width=1"):
        create_model("segnet", encoder_weights="imagenet", width=1 / 8)
