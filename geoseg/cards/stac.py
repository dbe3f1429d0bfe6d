"""The model card as JSON: a STAC item with the Machine Learning Model extension (MLM 1.5).

What MLM has no field for stands under ``geoseg:`` keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from geoseg.cards.card import OWN_KEYS, WEIGHTS_NAME, ChipBorder, ModelCard, Normalization
from geoseg.cards.legend import ClassInfo
from geoseg.errors import ModelError

if TYPE_CHECKING:
    from geoseg.cards.taught import TaughtGround

__all__ = ["from_mlm", "to_mlm"]

T = TypeVar("T")

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"


def to_mlm(card: ModelCard) -> dict[str, Any]:
    """Write a card as a STAC item with the MLM extension.

    Args:
        card: any.

    Returns:
        A JSON-serialisable dict; :func:`from_mlm` gives the card back.
    """
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA],
        "id": card.name,
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
            "description": card.description,
            "license": card.license,
            **card.extra,
            **_mlm_properties(card),
            **_geoseg_properties(card),
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


def _mlm_properties(card: ModelCard) -> dict[str, Any]:
    """Write what MLM has fields for."""
    return {
        # MLM wants the bands of its inputs among the item's own, too.
        "bands": [{"name": band} for band in card.bands],
        "mlm:name": card.name,
        "mlm:architecture": card.network,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        "mlm:pretrained": True,
        "mlm:input": [_mlm_input(card)],
        "mlm:output": [_mlm_output(card)],
    }


def _geoseg_properties(card: ModelCard) -> dict[str, Any]:
    """Write what only geoseg has a field for."""
    clip = card.normalization.clip
    return {
        "geoseg:network": card.network,
        "geoseg:network_options": dict(card.network_options),
        "geoseg:quantity": card.quantity,
        "geoseg:normalization": {
            "kind": card.normalization.kind,
            "parameters": {k: list(v) for k, v in card.normalization.parameters.items()},
            "clip": None if clip is None else list(clip),
        },
        "geoseg:activation": card.activation,
        # Absent where it does nothing, so that older cards keep their bytes.
        **({} if card.temperature == 1.0 else {"geoseg:temperature": card.temperature}),
        **({} if card.clouds is None else {"geoseg:clouds": list(card.clouds)}),
        **({} if card.border is None else {"geoseg:border": card.border.as_json()}),
        **({} if card.taught is None else {"geoseg:taught": card.taught.as_json()}),
        "geoseg:gsd": card.gsd,
        "geoseg:gsd_range": list(card.gsd_range),
        "geoseg:size": card.size,
        "geoseg:overlap": card.overlap,
        "geoseg:margin": card.margin,
        "geoseg:multiple": card.multiple,
        "geoseg:plausible": {k: list(v) for k, v in card.plausible.items()},
        "geoseg:provenance": card.provenance,
        "geoseg:scores": dict(card.scores),
    }


def _mlm_input(card: ModelCard) -> dict[str, Any]:
    return {
        "name": "pixels",
        "bands": [{"name": band} for band in card.bands],
        "input": {
            "shape": [-1, len(card.bands), card.size, card.size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": _value_scaling(card.normalization),
        "resize_type": None,
        "pre_processing_function": None,
    }


def _mlm_output(card: ModelCard) -> dict[str, Any]:
    return {
        "name": "classes",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(card.classes), card.size, card.size],
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
            for c in card.classes
        ],
        "post_processing_function": None,
    }


def _value_scaling(normalization: Normalization) -> list[dict[str, Any]] | None:
    """Write the normalization in MLM's own words, as far as MLM has them."""
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


def from_mlm(item: Mapping[str, Any]) -> ModelCard:
    """Read a card from a STAC MLM item.

    Args:
        item: the parsed JSON.

    Raises:
        ModelError: a key is missing or breaks a rule.
    """
    try:
        p = item["properties"]
        return ModelCard(
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
            clouds=_take(p, "geoseg:clouds", _names, None),
            taught=_take(p, "geoseg:taught", _taught, None),
            size=_take(p, "geoseg:size", _whole),
            overlap=_take(p, "geoseg:overlap", _whole),
            margin=_take(p, "geoseg:margin", _whole, 0),
            multiple=_take(p, "geoseg:multiple", _whole, 1),
            plausible=_take(p, "geoseg:plausible", _pairs, {}),
            license=str(p.get("license", "other")),
            provenance=str(p.get("geoseg:provenance", "")),
            scores=_take(p, "geoseg:scores", dict, {}),
            extra={k: v for k, v in p.items() if k not in OWN_KEYS and not k.startswith("geoseg:")},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the model card is incomplete or malformed: {error}; {_CARD_RULE}"
        ) from error


_CARD_RULE = (
    "a geoseg card is a STAC MLM item with geoseg: keys: write one with geoseg train or geoseg "
    "models import"
)
_REQUIRED = object()


def _take(
    p: Mapping[str, Any], key: str, convert: Callable[[Any], T], default: Any = _REQUIRED
) -> T:
    """Convert a property of the item into geoseg's own type.

    Raises:
        ModelError: it can't be read as that; the message names it.
    """
    value = p[key] if default is _REQUIRED else p.get(key, default)
    try:
        return convert(value)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        shown = repr(value)[:80]
        raise ModelError(
            f"{key} of the model card can't be read: {shown} ({error}); {_CARD_RULE}"
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


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        raise TypeError("a list of names belongs there")
    return None if value is None else tuple(str(name) for name in value)


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


def _taught(value: Any) -> TaughtGround | None:
    if value is None:
        return None
    from geoseg.cards.taught import TaughtGround  # numpy, which few cards need

    return TaughtGround.from_json(value)
