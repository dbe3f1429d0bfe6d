"""Numbers and nouns in messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.core.wording import area, counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "chip", "0 chips"),
        (1, "chip", "1 chip"),
        (2, "weights file", "2 weights files"),
        (1, "class", "1 class"),
        (9, "class", "9 classes"),
    ],
)
def test_one_is_singular(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@given(st.floats(1e-3, 1e15))
def test_areas_are_written_in_the_unit_that_fits(square_metres: float) -> None:
    """To three digits at least, without an exponent, and never 0."""
    number, unit = area(square_metres).split()
    assert float(number) * {"m2": 1, "ha": 1e4, "km2": 1e6}[unit] == pytest.approx(
        square_metres, rel=5e-3
    )
    assert "e" not in number
    if unit != "km2":
        assert float(number) < {"m2": 1e4, "ha": 100}[unit]
