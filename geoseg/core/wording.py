"""Numbers and nouns in messages."""

from __future__ import annotations

__all__ = ["counted"]


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
