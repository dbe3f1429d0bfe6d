"""The model card: what travels with weights, and what ``predict`` obeys.

A model is a folder (or a .zip of one) that holds ``model.json`` and ``weights.safetensors``.
``model.json`` is a STAC item with the Machine Learning Model extension (MLM 1.5); what MLM has
no field for stands under ``geoseg:`` keys. The network is a name in geoseg's own table, never an
import path, so that reading a card can't run code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from geoseg.cards.legend import ClassInfo
from geoseg.errors import ModelError

__all__ = [
    "CARD_NAME",
    "GRAPH_NAME",
    "INT8_NAME",
    "WEIGHTS_NAME",
    "ChipBorder",
    "ModelCard",
    "Normalization",
]

T = TypeVar("T")

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
CARD_NAME = "model.json"
WEIGHTS_NAME = "weights.safetensors"
#: The network's graph for runtimes other than torch (see models/graph.py); a folder may lack it.
GRAPH_NAME = "model.onnx"
#: The same in whole numbers of 8 bits (see models/quantize.py).
INT8_NAME = "model.int8.onnx"

#: The parameters that each normalization needs, one number a band (see models/normalize.py).
NORMALIZATION_PARAMETERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "z-score": ("mean", "stddev"),
    "min-max": ("minimum", "maximum"),
    "log-logistic": ("center", "spread"),
}
ACTIVATIONS = ("softmax", "sigmoid", "none")
QUANTITIES = ("reflectance", "number")


@dataclass(frozen=True)
class Normalization:
    """How the physical values become the network's input.

    Attributes:
        kind: a key of :data:`NORMALIZATION_PARAMETERS`.
        parameters: name -> one number a band, in the order of the card's bands and in its unit.
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
        enough: px from which on hardly a label changes; None likewise.
        mean: of the differences of the probabilities, the mean at each distance.
        largest: likewise, the largest one.
        flips: likewise, the share of labels that change.
    """

    size: int
    ground: str
    exact: int | None
    enough: int | None
    mean: tuple[float, ...]
    largest: tuple[float, ...]
    flips: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """As it stands in a card."""
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
        gsd: metres per pixel that the model was taught at.
        gsd_range: the finest and coarsest gsd at which scenes are taken as they are; others are
            resampled to ``gsd``.
        network_options: keyword arguments for ``create_model`` besides bands and classes.
        quantity: what one unit of input means: ``reflectance`` (0..1) or ``number`` (raw).
        normalization: from the quantity to the network's input.
        activation: ``softmax``, ``sigmoid`` or ``none`` (the network gives probabilities).
        temperature: logits are divided by it before the softmax, so that probabilities are right
            on average (Guo et al. 2017, https://arxiv.org/abs/1706.04599); 1 for other activations.
        border: what ``geoseg models probe --write`` has measured, or None.
        size: default chip side, px.
        overlap: default overlap of neighbouring chips, px, total.
        margin: outermost px of a chip whose predictions are not trusted (the receptive field's
            radius); the taper is 0 there, except along the scene's own edge.
        multiple: chip sides and places are multiples of this, px.
        plausible: band -> (low, high): where the median of a sound scene lies, in the quantity.
        license: SPDX identifier.
        provenance: how the model was made, from what.
        scores: named numbers that were measured, with what on.
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

    def __post_init__(self) -> None:
        """Check every rule that a card must keep.

        Raises:
            ModelError: one of them is broken; the message names the key.
        """
        check = _Rule(self.name)
        slug = bool(re.fullmatch(r"[a-z][a-z0-9._-]+[a-z0-9]", self.name))
        check(slug, "name", self.name, "a slug of three or more letters, digits and ._-")
        check(len(self.bands) > 0, "bands", self.bands, "at least one band")
        named = all(isinstance(band, str) and band for band in self.bands)
        check(named, "bands", self.bands, "names")
        check(len(set(self.bands)) == len(self.bands), "bands", self.bands, "no band twice")
        check(isinstance(self.network, str), "geoseg:network", self.network, "a network's name")
        taken = sorted({"name", "in_channels", "classes"} & set(self.network_options))
        check(not taken, "geoseg:network_options", taken, "none of those that the card itself says")
        ids = [c.id for c in self.classes]
        check(len(ids) > 0, "classes", ids, "at least one class")
        names = [c.name for c in self.classes]
        check(all(names), "classes", names, "a name each")
        check(len(set(ids)) == len(ids), "classes", ids, "no id twice")
        check(all(0 <= i <= 254 for i in ids), "classes", ids, "ids of 0 to 254; 255 is nodata")
        colors = [c.color for c in self.classes]
        check(
            all(re.fullmatch(r"#[0-9A-Fa-f]{6}", c) for c in colors),
            "classes",
            colors,
            "colours as #RRGGBB",
        )
        low, high = self.gsd_range
        check(
            0 < low <= self.gsd <= high and math.isfinite(high),
            "geoseg:gsd_range",
            (low, self.gsd, high),
            "0 < finest <= gsd <= coarsest",
        )
        check(self.quantity in QUANTITIES, "quantity", self.quantity, f"one of {QUANTITIES}")
        check(self.activation in ACTIVATIONS, "activation", self.activation, str(ACTIVATIONS))
        check(
            math.isfinite(self.temperature) and self.temperature > 0,
            "geoseg:temperature",
            self.temperature,
            "finite and above 0",
        )
        check(
            self.temperature == 1.0 or self.activation == "softmax",
            "geoseg:temperature",
            self.temperature,
            f"1 for the activation {self.activation}; only softmax has one",
        )
        kind = self.normalization.kind
        check(
            kind in NORMALIZATION_PARAMETERS,
            "geoseg:normalization",
            kind,
            f"one of {tuple(NORMALIZATION_PARAMETERS)}",
        )
        p = self.normalization.parameters
        for parameter in NORMALIZATION_PARAMETERS[kind]:
            values = p.get(parameter, ())
            check(
                len(values) == len(self.bands) and all(math.isfinite(v) for v in values),
                f"geoseg:normalization.{parameter}",
                values,
                f"one finite number for each of the {len(self.bands)} bands",
            )
        if kind == "min-max":
            widths = [b - a for a, b in zip(p["minimum"], p["maximum"], strict=True)]
            check(min(widths) > 0, "geoseg:normalization.maximum", p["maximum"], "above minimum")
        for divisor in {"stddev", "spread"} & set(NORMALIZATION_PARAMETERS[kind]):
            key = f"geoseg:normalization.{divisor}"
            check(min(p[divisor]) > 0, key, p[divisor], "above 0")
        clip = self.normalization.clip
        check(
            clip is None or (clip[0] < clip[1] and all(math.isfinite(v) for v in clip)),
            "geoseg:normalization.clip",
            clip,
            "low < high",
        )
        for band, (lowest, highest) in self.plausible.items():
            key = "geoseg:plausible"
            check(band in self.bands, key, band, "a band of the card")
            finite = math.isfinite(lowest) and math.isfinite(highest)
            check(finite and lowest <= highest, f"{key}.{band}", (lowest, highest), "low <= high")
        foreign = sorted(k for k in self.extra if k in _OWN_KEYS or k.startswith("geoseg:"))
        check(not foreign, "extra", foreign, "none of the keys that a card writes itself")
        check(self.size >= 1, "size", self.size, "at least 1")
        check(self.multiple >= 1, "multiple", self.multiple, "at least 1")
        check(0 <= self.overlap < self.size, "overlap", self.overlap, "0 <= overlap < size")
        check(self.margin >= 0, "margin", self.margin, "at least 0")
        if self.border is not None:
            _check_border(check, self.border)

    def to_mlm(self) -> dict[str, Any]:
        """The card as a STAC item with the MLM extension.

        Returns:
            A JSON-serialisable dict; :meth:`from_mlm` gives the card back.
        """
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [MLM_SCHEMA],
            "id": self.name,
            # A model is of no one place; MLM asks for a footprint, so the world.
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
            },
            "bbox": [-180, -90, 180, 90],
            "properties": {
                "datetime": None,
                "start_datetime": "2015-06-23T00:00:00Z",
                "end_datetime": "9999-12-31T23:59:59Z",
                "description": self.description,
                "license": self.license,
                **self.extra,
                # MLM wants the bands of its inputs among the item's own, too.
                "bands": [{"name": band} for band in self.bands],
                "mlm:name": self.name,
                "mlm:architecture": self.network,
                "mlm:tasks": ["semantic-segmentation"],
                "mlm:framework": "PyTorch",
                "mlm:pretrained": True,
                "mlm:input": [self._mlm_input()],
                "mlm:output": [self._mlm_output()],
                "geoseg:network": self.network,
                "geoseg:network_options": dict(self.network_options),
                "geoseg:quantity": self.quantity,
                "geoseg:normalization": {
                    "kind": self.normalization.kind,
                    "parameters": {k: list(v) for k, v in self.normalization.parameters.items()},
                    "clip": None
                    if self.normalization.clip is None
                    else list(self.normalization.clip),
                },
                "geoseg:activation": self.activation,
                # Absent where it does nothing, so that older cards keep their bytes.
                **({} if self.temperature == 1.0 else {"geoseg:temperature": self.temperature}),
                **({} if self.border is None else {"geoseg:border": self.border.as_json()}),
                "geoseg:gsd": self.gsd,
                "geoseg:gsd_range": list(self.gsd_range),
                "geoseg:size": self.size,
                "geoseg:overlap": self.overlap,
                "geoseg:margin": self.margin,
                "geoseg:multiple": self.multiple,
                "geoseg:plausible": {k: list(v) for k, v in self.plausible.items()},
                "geoseg:provenance": self.provenance,
                "geoseg:scores": dict(self.scores),
            },
            "links": [],
            "assets": {
                "weights": {
                    "href": WEIGHTS_NAME,
                    "type": "application/vnd.safetensors",
                    "title": "weights",
                    "roles": ["mlm:model", "mlm:weights"],
                    "mlm:artifact_type": "safetensors.torch.save_file",
                }
            },
        }

    def _mlm_input(self) -> dict[str, Any]:
        return {
            "name": "pixels",
            "bands": [{"name": band} for band in self.bands],
            "input": {
                "shape": [-1, len(self.bands), self.size, self.size],
                "dim_order": ["batch", "bands", "height", "width"],
                "data_type": "float32",
            },
            "value_scaling": _value_scaling(self.normalization, len(self.bands)),
            "resize_type": None,
            "pre_processing_function": None,
        }

    def _mlm_output(self) -> dict[str, Any]:
        return {
            "name": "classes",
            "tasks": ["semantic-segmentation"],
            "result": {
                "shape": [-1, len(self.classes), self.size, self.size],
                "dim_order": ["batch", "classes", "height", "width"],
                "data_type": "float32",
            },
            "classification:classes": [
                {
                    "value": c.id,
                    # STAC wants a word here; the name itself is the title.
                    "name": re.sub(r"[^0-9A-Za-z_-]", "_", c.name),
                    "title": c.name,
                    "color_hint": c.color[1:].upper(),
                }
                for c in self.classes
            ],
            "post_processing_function": None,
        }

    @classmethod
    def from_mlm(cls, item: Mapping[str, Any]) -> ModelCard:
        """Read a card from a STAC MLM item.

        Args:
            item: the parsed JSON.

        Raises:
            ModelError: a key is missing or breaks a rule.
        """
        try:
            p = item["properties"]
            return cls(
                name=str(p["mlm:name"]),
                description=str(p.get("description", "")),
                network=p["geoseg:network"],
                bands=_take(p, "mlm:input", _bands),
                classes=_take(p, "mlm:output", _classes),
                gsd=_take(p, "geoseg:gsd", float),
                gsd_range=_take(p, "geoseg:gsd_range", _pair),
                network_options=_take(p, "geoseg:network_options", dict, {}),
                quantity=p["geoseg:quantity"],
                normalization=_take(p, "geoseg:normalization", _normalization),
                activation=p["geoseg:activation"],
                temperature=_take(p, "geoseg:temperature", float, 1.0),
                border=_take(p, "geoseg:border", _border, None),
                size=_take(p, "geoseg:size", _whole),
                overlap=_take(p, "geoseg:overlap", _whole),
                margin=_take(p, "geoseg:margin", _whole, 0),
                multiple=_take(p, "geoseg:multiple", _whole, 1),
                plausible=_take(p, "geoseg:plausible", _pairs, {}),
                license=str(p.get("license", "other")),
                provenance=str(p.get("geoseg:provenance", "")),
                scores=_take(p, "geoseg:scores", dict, {}),
                extra={
                    k: v for k, v in p.items() if k not in _OWN_KEYS and not k.startswith("geoseg:")
                },
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"the model card lacks or garbles {error}; {_CARD_RULE}") from error

    def with_scores(self, **scores: Any) -> ModelCard:
        """A copy with further measured scores."""
        return replace(self, scores={**self.scores, **scores})


_OWN_KEYS = {
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


class _Rule:
    """Says which key of which card breaks which rule."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, holds: bool, key: str, found: object, rule: str) -> None:
        if not holds:
            raise ModelError(f"card {self.name!r}: {key} is {found!r}; it must be: {rule}")


def _check_border(check: _Rule, border: ChipBorder) -> None:
    """Check the rules of a card's border.

    Raises:
        ModelError: one of them is broken.
    """
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


_CARD_RULE = (
    "a geoseg card is a STAC MLM item with geoseg: keys: write one with geoseg train or geoseg "
    "models import"
)
_REQUIRED = object()


def _take(
    p: Mapping[str, Any], key: str, convert: Callable[[Any], T], default: Any = _REQUIRED
) -> T:
    """A property of the item, as geoseg's own type.

    Raises:
        ModelError: it is garbled; the message names it.
    """
    value = p[key] if default is _REQUIRED else p.get(key, default)
    try:
        return convert(value)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        shown = repr(value)[:80]
        raise ModelError(
            f"the model card garbles {key}: {shown} ({error}); {_CARD_RULE}"
        ) from error


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _pairs(values: Any) -> dict[str, tuple[float, float]]:
    return {str(k): _pair(v) for k, v in values.items()}


def _whole(value: Any) -> int:
    if int(value) != value:
        raise ValueError("not a whole number")
    return int(value)


def _bands(inputs: Any) -> tuple[str, ...]:
    return tuple(b["name"] if isinstance(b, Mapping) else b for b in inputs[0]["bands"])


def _classes(outputs: Any) -> tuple[ClassInfo, ...]:
    return tuple(
        ClassInfo(_whole(c["value"]), str(c.get("title", c["name"])), "#" + c["color_hint"])
        for c in outputs[0]["classification:classes"]
    )


def _normalization(value: Any) -> Normalization:
    clip = value.get("clip")
    return Normalization(
        kind=value["kind"],
        parameters={
            k: tuple(float(v) for v in values) for k, values in value.get("parameters", {}).items()
        },
        clip=None if clip is None else _pair(clip),
    )


def _border(value: Any) -> ChipBorder | None:
    if value is None:
        return None
    exact, enough = (None if value[k] is None else _whole(value[k]) for k in ("exact", "enough"))
    curves = (tuple(float(v) for v in value[k]) for k in ("mean", "largest", "flips"))
    return ChipBorder(_whole(value["size"]), str(value["ground"]), exact, enough, *curves)


def _value_scaling(normalization: Normalization, bands: int) -> list[dict[str, Any]] | None:
    """The normalization in MLM's own words, as far as MLM has them."""
    p = normalization.parameters
    if normalization.kind == "z-score":
        return [
            {"type": "z-score", "mean": m, "stddev": s}
            for m, s in zip(p["mean"], p["stddev"], strict=True)
        ]
    if normalization.kind == "min-max":
        return [
            {"type": "min-max", "minimum": a, "maximum": b}
            for a, b in zip(p["minimum"], p["maximum"], strict=True)
        ]
    if normalization.kind == "log-logistic":
        return [
            {
                "type": "processing",
                "format": "python",
                "expression": f"1/(1+exp(1-5*(log(50*x+1)-{c})/{s}))",
            }
            for c, s in zip(p["center"], p["spread"], strict=True)
        ]
    return None
