"""A picture of what `memory.py` measured: bars of what is resident at the end, with peak and limit.

python benchmarks/memory_plot.py memory.json memory.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvtool.files import atomic_path
from mvtool.plotting import COLOURS, check_target

PARTS = {
    "model_kb": "file of the model",
    "weights_kb": "file of packed weights",
    "heap_kb": "heap",
    "code_kb": "code of the runtime",
}
LIMIT_COLOUR = "#B00000"


def plot(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw rows of `memory.Row` as JSON.

    Raises:
        UsageError: The suffix is none that can be drawn.
        MissingExtraError: matplotlib is not installed.
    """
    check_target(target)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    left = [0.0] * len(rows)
    for colour, (key, label) in zip(COLOURS, PARTS.items(), strict=False):
        sizes = [row[key] / 1024 for row in rows]
        axes.barh(places, sizes, left=left, color=colour, label=label, height=0.7)
        left = [start + size for start, size in zip(left, sizes, strict=True)]
    peaks = [row["end_kb"] / 1024 for row in rows]
    axes.scatter(peaks, places, marker="|", s=120, color="black", label="peak", zorder=3)
    limited = [(place, row) for place, row in zip(places, rows, strict=True) if row["limit_kb"] is not None]
    limits = [(row["limit_kb"] + row["one_operator_kb"]) / 1024 for _, row in limited]
    label = "limit, over one operator"
    axes.scatter(limits, [place for place, _ in limited], marker="|", s=120, color=LIMIT_COLOUR, label=label, zorder=3)
    names = [f"{row['artifact']}, {row['manner']}".removesuffix(", as it is") for row in rows]
    axes.set_yticks(places, names, fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("MiB over the library alone")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.09), ncols=3, frameon=False, fontsize=8)
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110)


if __name__ == "__main__":
    plot(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
