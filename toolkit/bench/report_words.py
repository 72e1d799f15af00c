"""Figures as text: the same digits and units wherever a report shows them."""

from __future__ import annotations

from typing import Final

NOTHING: Final = "–"
MIB: Final = 2**20


def ms(value: float) -> str:
    """Milliseconds with four digits that count, without the unit.

    Example:
        >>> [ms(value) for value in (0.0312, 4.91234, 33.333, 118.28, 1234.5)]
        ['0.031', '4.912', '33.33', '118.3', '1234']
    """
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2 if value >= 10 else 3
    return f"{value:.{digits}f}"


def mib(size_bytes: int) -> str:
    """Mebibytes without the unit."""
    return f"{size_bytes / MIB:.1f}" if size_bytes >= 10 * MIB else f"{size_bytes / MIB:.2f}"


def percent(share: float) -> str:
    """A share with its sign, two digits that count below ten percent.

    Example:
        >>> percent(0.0123), percent(0.123), percent(0.0)
        ('1.2 %', '12 %', '0 %')
    """
    return f"{share * 100:.2g} %" if share < 0.995 else f"{share * 100:.0f} %"
