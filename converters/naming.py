"""Port names: identifiers that every runtime accepts, unique among inputs and outputs together."""

from __future__ import annotations

import re

NEXT_SUFFIX = "_next"


def identifier(text: str) -> str:
    """Turn free text into `[A-Za-z_][A-Za-z0-9_]*`.

    Examples:
        >>> identifier("blocks.0.conv.buffer"), identifier("0.h"), identifier("")
        ('blocks_0_conv_buffer', '_0_h', '_')
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name if name and not name[0].isdigit() else f"_{name}"


class Names:
    """Hands out names that were not handed out before."""

    def __init__(self, taken: set[str] | None = None) -> None:
        """Start with the names `taken`."""
        # Core ML compares some names without case on case-insensitive file systems, so we do too.
        self._taken = {name.lower() for name in taken or set()}

    def unique(self, wanted: str) -> str:
        """Return `wanted` as an identifier, with a number behind it if it is taken."""
        return self._reserve(wanted, suffixes=("",))

    def unique_pair(self, wanted: str, alternative: str = "") -> str:
        """Return a state name whose `_next` name is free too, and reserve both.

        Args:
            wanted: Name of the state.
            alternative: Put behind `wanted` before numbers are tried.
        """
        base = identifier(wanted)
        if any(self._is_taken(base + suffix) for suffix in ("", NEXT_SUFFIX)):
            base += alternative
        return self._reserve(base, suffixes=("", NEXT_SUFFIX))

    def _is_taken(self, name: str) -> bool:
        return name.lower() in self._taken

    def _reserve(self, wanted: str, suffixes: tuple[str, ...]) -> str:
        base = identifier(wanted)
        name, number = base, 1
        while any(self._is_taken(name + suffix) for suffix in suffixes):
            number += 1
            name = f"{base}_{number}"
        self._taken.update((name + suffix).lower() for suffix in suffixes)
        return name
