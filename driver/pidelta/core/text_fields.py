"""Fields of text files."""

from __future__ import annotations


def is_number(text: str) -> bool:
    """Whether a field stands for a number, infinite ones and nan among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True
