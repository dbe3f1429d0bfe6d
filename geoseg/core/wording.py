"""Numbers and nouns in messages."""

from __future__ import annotations

__all__ = ["area", "counted", "percent"]


def counted(number: int, noun: str) -> str:
    """Put a number before a noun, in the singular or the plural.

    Args:
        number: how many.
        noun: in the singular; its plural ends in s, or in es behind an s.

    Examples:
        >>> counted(1, "strip"), counted(2, "strip"), counted(0, "class")
        ('1 strip', '2 strips', '0 classes')
    """
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def area(square_metres: float) -> str:
    """Write an area in the unit that fits: m2 below a hectare, ha below a square kilometre, km2.

    Examples:
        >>> area(0.0131), area(742), area(42_500), area(57_726_000)
        ('0.0131 m2', '742 m2', '4.25 ha', '57.726 km2')
    """
    # Where rounding would reach the next unit, that one is taken.
    if square_metres < 9999.5:
        return f"{square_metres:.4g} m2"
    if square_metres < 999_950:
        return f"{square_metres / 1e4:.2f} ha"
    return f"{square_metres / 1e6:.3f} km2"


def percent(share: float) -> str:
    """Write a share; what is there is never 0 %, and what is not all never 100 %.

    Examples:
        >>> percent(0.234), percent(0.00001), percent(0.9999), percent(1)
        ('23.4 %', 'less than 0.1 %', 'more than 99.9 %', '100 %')
    """
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    if 0.9995 <= share < 1:
        return "more than 99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"
