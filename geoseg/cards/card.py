"""The model card: what travels with weights, and what ``predict`` obeys.

A model is a folder (or a .zip of one) that holds ``model.json``, which is the card
(:mod:`geoseg.cards.stac`), and ``weights.safetensors``. The network is a name in geoseg's own
table, never an import path, so that reading a card can't run code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from geoseg.cards.legend import ClassInfo
from geoseg.core.wording import counted
from geoseg.errors import ModelError

if TYPE_CHECKING:
    from geoseg.cards.taught import TaughtGround

__all__ = [
    "CARD_NAME",
    "GRAPH_NAME",
    "INT8_NAME",
    "WEIGHTS_NAME",
    "ChipBorder",
    "ModelCard",
    "Normalization",
]

#: The files of a model folder.
CARD_NAME = "model.json"
WEIGHTS_NAME = "weights.safetensors"
#: The network's graph for runtimes other than torch (:mod:`geoseg.graphs.binding`); optional.
GRAPH_NAME = "model.onnx"
#: The same in whole numbers of 8 bits (:mod:`geoseg.graphs.quantize`); optional.
INT8_NAME = "model.int8.onnx"

#: The parameters that each normalization needs, one number a band
#: (:mod:`geoseg.networks.normalize`).
NORMALIZATION_PARAMETERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "z-score": ("mean", "stddev"),
    "min-max": ("minimum", "maximum"),
    "log-logistic": ("center", "spread"),
}
ACTIVATIONS = ("softmax", "sigmoid", "none")
QUANTITIES = ("reflectance", "number")

#: Properties of the STAC item that a card writes itself, besides all of ``geoseg:``.
OWN_KEYS = {
    "datetime",
    "start_datetime",
    "end_datetime",
    "description",
    "license",
    "bands",
    "mlm:name",
    "mlm:architecture",
    "mlm:tasks",
    "mlm:framework",
    "mlm:pretrained",
    "mlm:input",
    "mlm:output",
}


@dataclass(frozen=True)
class Normalization:
    """How the physical values become the network's input.

    Attributes:
        kind: ``none``, ``z-score``, ``min-max`` or ``log-logistic``.
        parameters: name -> one number a band, in the order of the card's bands and in its unit:
            ``mean`` and ``stddev`` of ``z-score``, ``minimum`` and ``maximum`` of ``min-max``,
            ``center`` and ``spread`` of ``log-logistic``.
        clip: (low, high) applied to the physical values first, or None.
    """

    kind: str = "none"
    parameters: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class ChipBorder:
    """How far from a chip's edge its predictions still depend on what lies beyond the edge.

    Measured by :func:`geoseg.prediction.border_probe.probe_border`. Distances count the pixels
    between a pixel and the nearest inner edge of its chip, so that ``exact`` and ``enough`` are how
    many outermost pixels to leave out. The three curves begin at distance 0 and end where ``exact``
    begins, or in the chip's middle where there is no such distance.

    Attributes:
        size: side of the chips that were probed, px.
        ground: what they showed, in words.
        exact: px from which on probabilities are those of an untiled scene; None where there are
            none within the chip: the network looks at all of it, or farther.
        enough: px from which on hardly a pixel changes its class; None where pixels do up to the
            chip's middle.
        mean: the mean difference of the probabilities at each distance.
        largest: the largest difference of the probabilities at each distance.
        flips: the share of pixels that change their class, at each distance.
    """

    size: int
    ground: str
    exact: int | None
    enough: int | None
    mean: tuple[float, ...]
    largest: tuple[float, ...]
    flips: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Give it as it stands in a card."""
        return {
            "size": self.size,
            "ground": self.ground,
            "exact": self.exact,
            "enough": self.enough,
            "mean": list(self.mean),
            "largest": list(self.largest),
            "flips": list(self.flips),
        }


@dataclass(frozen=True)
class ModelCard:
    """What a model expects and what it gives.

    Attributes:
        name: the model's name, a slug.
        description: one paragraph for people.
        network: a name of :func:`geoseg.networks.list_models`.
        bands: the input bands by common name, in the network's order.
        classes: the legend; the network gives one channel a class, in this order.
        gsd: metres per pixel that the model was trained at.
        gsd_range: the finest and coarsest gsd at which scenes are taken as they are; others are
            resampled to ``gsd``.
        network_options: keyword arguments for ``create_model`` besides bands and classes.
        quantity: what one unit of input means: ``reflectance`` (0..1) or ``number`` (raw).
        normalization: from the quantity to the network's input.
        activation: ``softmax``, ``sigmoid`` or ``none`` (the network gives probabilities).
        temperature: logits are divided by it before the softmax, so that probabilities are right
            on average (Guo et al. 2017, https://arxiv.org/abs/1706.04599); 1 for other activations.
        border: what ``geoseg models probe --write`` has measured, or None.
        clouds: which classes are clouds, haze and their shadows; empty where none is, so that they
            have to be left out of a scene beforehand; None where nobody says.
        taught: where the numbers of the ground lie that it was taught on, or None.
        size: default chip side, px.
        overlap: default overlap of neighbouring chips, px, total.
        margin: outermost px of a chip whose predictions are not trusted (the receptive field's
            radius); the taper is 0 there, except along the scene's own edge.
        multiple: chip sides and places are multiples of this, px.
        plausible: band -> (low, high): where the median of a sound scene lies, in the quantity.
        license: SPDX identifier.
        provenance: how the model was made, from what.
        scores: named numbers that were measured, and on what.
        extra: any further MLM properties to keep.
    """

    name: str
    description: str
    network: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    gsd: float
    gsd_range: tuple[float, float]
    network_options: Mapping[str, Any] = field(default_factory=dict)
    quantity: str = "reflectance"
    normalization: Normalization = Normalization()
    activation: str = "softmax"
    size: int = 256
    overlap: int = 64
    margin: int = 0
    multiple: int = 1
    plausible: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    license: str = "other"
    provenance: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    border: ChipBorder | None = None
    clouds: tuple[str, ...] | None = None
    taught: TaughtGround | None = None

    def __post_init__(self) -> None:
        """Check every rule that a card must keep.

        Raises:
            ModelError: one of them is broken; the message names the key.
        """
        check = _Rule(self.name)
        _check_network(check, self)
        _check_classes(check, self.classes)
        names = [c.name for c in self.classes]
        known = self.clouds is None or set(self.clouds) < set(names)
        check(known, "geoseg:clouds", self.clouds, f"some of {names}, not all, or none")
        _check_meaning(check, self)
        _check_normalization(check, self.normalization, len(self.bands))
        _check_plausible(check, self)
        foreign = sorted(k for k in self.extra if k in OWN_KEYS or k.startswith("geoseg:"))
        check(not foreign, "extra", foreign, "none of the keys that a card writes itself")
        _check_chips(check, self)
        if self.border is not None:
            _check_border(check, self.border)
        if self.taught is not None:
            bands = self.taught.means.shape[1]
            check(bands == len(self.bands), "geoseg:taught", f"of {bands} bands", "of the card's")

    def with_scores(self, **scores: Any) -> ModelCard:
        """Copy the card, with further measured scores."""
        return replace(self, scores={**self.scores, **scores})


class _Rule:
    """Says which key of which card breaks which rule."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, holds: bool, key: str, found: object, rule: str) -> None:
        """Refuse the card unless a rule holds.

        Raises:
            ModelError: it doesn't.
        """
        if not holds:
            raise ModelError(f"card {self.name!r}: {key} is {found!r}; it must be: {rule}")


def _check_network(check: _Rule, card: ModelCard) -> None:
    """Check the model's name, its bands, and what builds its network."""
    slug = bool(re.fullmatch(r"[a-z][a-z0-9._-]+[a-z0-9]", card.name))
    check(slug, "name", card.name, "a slug of three or more letters, digits and ._-")
    check(len(card.bands) > 0, "bands", card.bands, "at least one band")
    named = all(isinstance(band, str) and band for band in card.bands)
    check(named, "bands", card.bands, "names")
    check(len(set(card.bands)) == len(card.bands), "bands", card.bands, "no band twice")
    check(isinstance(card.network, str), "geoseg:network", card.network, "a network's name")
    taken = sorted({"name", "in_channels", "classes"} & set(card.network_options))
    check(not taken, "geoseg:network_options", taken, "none of those that the card itself says")


def _check_classes(check: _Rule, classes: tuple[ClassInfo, ...]) -> None:
    """Check ids, names and colours."""
    ids = [c.id for c in classes]
    check(len(ids) > 0, "classes", ids, "at least one class")
    names = [c.name for c in classes]
    check(all(names), "classes", names, "a name each")
    check(len(set(ids)) == len(ids), "classes", ids, "no id twice")
    check(all(0 <= i <= 254 for i in ids), "classes", ids, "ids of 0 to 254; 255 is nodata")
    colors = [c.color for c in classes]
    hexadecimal = all(re.fullmatch(r"#[0-9A-Fa-f]{6}", c) for c in colors)
    check(hexadecimal, "classes", colors, "colours as #RRGGBB")


def _check_meaning(check: _Rule, card: ModelCard) -> None:
    """Check what input and output mean: gsd, quantity, activation, temperature."""
    low, high = card.gsd_range
    check(
        0 < low <= card.gsd <= high and math.isfinite(high),
        "geoseg:gsd_range",
        (low, card.gsd, high),
        "0 < finest <= gsd <= coarsest",
    )
    check(card.quantity in QUANTITIES, "quantity", card.quantity, f"one of {QUANTITIES}")
    check(card.activation in ACTIVATIONS, "activation", card.activation, str(ACTIVATIONS))
    key, temperature = "geoseg:temperature", card.temperature
    sound = math.isfinite(temperature) and temperature > 0
    check(sound, key, temperature, "finite and above 0")
    check(
        temperature == 1.0 or card.activation == "softmax",
        key,
        temperature,
        f"1 for the activation {card.activation}; only softmax has one",
    )


def _check_normalization(check: _Rule, normalization: Normalization, bands: int) -> None:
    """Check that its kind is known, and that its parameters can be computed with."""
    key, kind, p = "geoseg:normalization", normalization.kind, normalization.parameters
    known = kind in NORMALIZATION_PARAMETERS
    check(known, key, kind, f"one of {tuple(NORMALIZATION_PARAMETERS)}")
    for parameter in NORMALIZATION_PARAMETERS[kind]:
        values = p.get(parameter, ())
        check(
            len(values) == bands and all(math.isfinite(v) for v in values),
            f"{key}.{parameter}",
            values,
            f"{counted(bands, 'finite number')}, one a band",
        )
    if kind == "min-max":
        widths = [b - a for a, b in zip(p["minimum"], p["maximum"], strict=True)]
        check(min(widths) > 0, f"{key}.maximum", p["maximum"], "above minimum")
    for divisor in {"stddev", "spread"} & set(NORMALIZATION_PARAMETERS[kind]):
        check(min(p[divisor]) > 0, f"{key}.{divisor}", p[divisor], "above 0")
    clip = normalization.clip
    ordered = clip is None or (clip[0] < clip[1] and all(math.isfinite(v) for v in clip))
    check(ordered, f"{key}.clip", clip, "low < high")


def _check_plausible(check: _Rule, card: ModelCard) -> None:
    """Check the ranges in which medians of sound scenes lie."""
    key = "geoseg:plausible"
    for band, (low, high) in card.plausible.items():
        check(band in card.bands, key, band, "a band of the card")
        ordered = math.isfinite(low) and math.isfinite(high) and low <= high
        check(ordered, f"{key}.{band}", (low, high), "low <= high")


def _check_chips(check: _Rule, card: ModelCard) -> None:
    """Check how a scene is cut into chips."""
    check(card.size >= 1, "size", card.size, "at least 1")
    check(card.multiple >= 1, "multiple", card.multiple, "at least 1")
    check(0 <= card.overlap < card.size, "overlap", card.overlap, "0 <= overlap < size")
    check(card.margin >= 0, "margin", card.margin, "at least 0")


def _check_border(check: _Rule, border: ChipBorder) -> None:
    """Check that distances and curves suit the chips that were probed."""
    key, half = "geoseg:border", border.size // 2
    check(border.size >= 2, f"{key}.size", border.size, "at least 2")
    for name in ("exact", "enough"):
        value = getattr(border, name)
        rule = f"null, or 0 to {half}, half of its size"
        check(value is None or 0 <= value <= half, f"{key}.{name}", value, rule)
    length = half if border.exact is None else border.exact
    for name, most in (("mean", math.inf), ("largest", math.inf), ("flips", 1.0)):
        curve = getattr(border, name)
        check(len(curve) == length, f"{key}.{name}", curve, f"one number for each of {length} px")
        sound = all(math.isfinite(v) and 0 <= v <= most for v in curve)
        check(sound, f"{key}.{name}", curve, f"finite numbers of 0 to {most:g}")
