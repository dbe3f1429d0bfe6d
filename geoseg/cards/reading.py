"""A card in words and numbers for people: ``models show`` and the manual's page of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geoseg.cards.card import ModelCard
from geoseg.core.wording import counted

__all__ = ["calibration_lines", "flat_scores", "meaning_rows", "taught_line"]


def meaning_rows(card: ModelCard) -> dict[str, str]:
    """Say what a model takes and gives, a line each."""
    low, high = card.gsd_range
    return {
        "network": f"{card.network} {dict(card.network_options) or ''}".strip(),
        "bands": ", ".join(card.bands),
        "numbers": card.quantity,
        "gsd": f"{card.gsd:g} m, takes {low:g} to {high:g} m",
        "chips": f"{card.size} px, overlap {card.overlap} px, margin {card.margin} px",
        "license": card.license,
    }


def flat_scores(card: ModelCard) -> Iterator[tuple[str, str]]:
    """Yield each score that is one number or text, under its path, without the calibration."""
    rest = {key: value for key, value in card.scores.items() if key != "calibration"}
    yield from _flat("", rest)


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(f"{path} / {_words(key)}" if path else _words(key), one)
    elif isinstance(value, float):
        yield path, f"{value:.4g}"
    elif isinstance(value, str | int):
        yield path, str(value)


def _words(key: object) -> str:
    """Write a key as words, but leave a path of a file as it is."""
    text = str(key)
    return text if "/" in text or "." in text else text.replace("_", " ")


def calibration_lines(card: ModelCard) -> list[str]:
    """Say how right the probabilities are; nothing where that was not measured."""
    found = card.scores.get("calibration")
    if not isinstance(found, Mapping):
        return []
    groups = {**found["groups"], "all": found} if len(found["groups"]) > 1 else {"all": found}
    lines = [
        f"{name}: {one['accuracy']:.1%} of {one['pixels']} labelled pixels of "
        f"{counted(one['scenes'], 'scene')} right; expected calibration error {one['ece']:.3f}, "
        f"{one['ece_before']:.3f} without the temperature"
        for name, one in groups.items()
    ]
    half = [e for e in found["min_confidence"] if e["value"] == 0.5 and e["accuracy"] is not None]
    return lines + [
        f"--min-confidence 0.5 takes {e['not_sure']:.1%} of the pixels away with {e['errors']:.1%} "
        f"of the errors; {e['accuracy']:.1%} of the others are right"
        for e in half
    ]


def taught_line(card: ModelCard) -> str:
    """Say whether the card knows what the model was taught on."""
    if card.taught is None:
        return "the card does not say which ground it was taught on"
    return f"the card knows the ground of {counted(card.taught.scenes, 'scene')} that taught it"
