"""Numbers and nouns in messages."""

from __future__ import annotations

import pytest

from geoseg.core.wording import counted


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
