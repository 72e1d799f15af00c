"""The list of models that mvtool can build by name. Imports no framework.

A family lists its `ModelEntry` objects in its own module; the table below puts them together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mvtool.errors import SourceError
from mvtool.zoo import (
    mobilenet_v3_table,
    movinet_entries,
    pytorchvideo_resnet_table,
    r2plus1d_table,
    resnet3d_table,
    tsm_table,
    tvn_table,
    video_mobile_former_table,
    x3d_table,
)
from mvtool.zoo.entry import ModelEntry

__all__ = ["ModelEntry", "entries", "get"]


def _table(*families: Iterable[ModelEntry]) -> dict[str, ModelEntry]:
    table: dict[str, ModelEntry] = {}
    for family in families:
        for entry in family:
            if entry.name in table:
                raise SourceError(f"Two models of the zoo are called {entry.name!r}; rename one.")
            table[entry.name] = entry
    return table


_ENTRIES = _table(
    movinet_entries.ENTRIES,
    x3d_table.ENTRIES,
    pytorchvideo_resnet_table.ENTRIES,
    tvn_table.ENTRIES,
    video_mobile_former_table.ENTRIES,
    mobilenet_v3_table.ENTRIES,
    tsm_table.ENTRIES,
    resnet3d_table.ENTRIES,
    r2plus1d_table.ENTRIES,
)


def entries() -> tuple[ModelEntry, ...]:
    """All models, in the order of the families' tables."""
    return tuple(_ENTRIES.values())


def get(name: str) -> ModelEntry:
    """The entry called `name`.

    Raises:
        SourceError: There is none; the message lists the closest names.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), _ENTRIES, n=5, cutoff=0.5) or list(_ENTRIES)[:5]
    raise SourceError(
        f"The zoo has no model {name!r}. Closest names: {', '.join(close)}. `mvtool zoo` lists all {len(_ENTRIES)}; "
        "an own model is given as `package.module:function`."
    )
