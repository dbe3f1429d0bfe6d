"""The manual's page of each embedded model is what its card says, and so is ``models show``."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geoseg.cards.files import read_model, write_card
from geoseg.cli import main
from geoseg.zoo import find_model, list_embedded
from tests.helpers import tiny_model

DOCS = Path(__file__).parents[1] / "docs"
BINS = [
    {"low": k / 15, "high": (k + 1) / 15, "pixels": k, "confidence": None, "accuracy": None}
    for k in range(14)
] + [{"low": 14 / 15, "high": 1.0, "pixels": 90, "confidence": 0.97, "accuracy": 0.75}]
ONE = {"scenes": 2, "pixels": 100, "accuracy": 0.75, "ece_before": 0.4, "ece": 0.05}
CALIBRATION = {
    "temperature": 0.5, **ONE, "bins": BINS,
    "groups": {"Sentinel-2": {**ONE, "ece": 0.04}, "Landsat": {**ONE, "ece": 0.06}},
    "min_confidence": [{"value": 0.5, "not_sure": 0.1, "errors": 0.345, "accuracy": 0.9}],
}  # fmt: skip


@pytest.fixture()
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", list_embedded())
def test_each_embedded_model_has_a_page_that_is_what_its_card_says(
    generate: Any, name: str
) -> None:
    page = generate.on_page_markdown((DOCS / "models" / f"{name}.md").read_text(encoding="utf-8"))
    card = find_model(name).card
    for said in (card.description, card.provenance, card.license, *(c.name for c in card.classes)):
        assert said in page
    assert generate.card_page(card) in page


def test_a_page_changes_with_its_card(generate: Any, tmp_path: Path, capsys: Any) -> None:
    folder = tiny_model(tmp_path / "model", ("red",), ("water", "trees"))
    card = read_model(folder).card
    plain = generate.card_page(card)
    assert "was not measured" in plain and "<svg" not in plain
    scores = {"iou": {"water": 0.12345, "dry_land": 1}, "calibration": CALIBRATION}
    card = replace(card, scores=scores, license="CC0-1.0")
    page = generate.card_page(card)
    for said in ("| iou / dry land | 1 |", "| iou / water | 0.1235 |", "CC0-1.0", "<svg"):
        assert said in page and said not in plain
    assert "0.97 is right in 0.75 of 90 pixels" in page and page.count("<rect") == 1
    write_card(card, folder)
    with pytest.raises(SystemExit):
        main(["models", "show", str(folder)])
    shown = capsys.readouterr().out
    for said in (
        "Sentinel-2: 75.0% of 100 labelled pixels of 2 scenes right; expected calibration error "
        "0.040, 0.400 without the temperature",
        "Landsat: 75.0%",
        "--min-confidence 0.5 takes 10.0% of the pixels away with 34.5% of the errors; 90.0% of",
    ):
        assert said in shown and said in page
    assert "iou / water: 0.1235" in shown
